"""Tabulate what the documents that break are about, beside all documents."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--classifier", type=Path, required=True, help="classifier.json with the labels"
    )
    parser.add_argument("--topics", type=Path, required=True, help="Parquet of classify_topics.py")
    parser.add_argument("--errors", type=Path, required=True, help="errors.parquet")
    parser.add_argument("--sets", type=Path, required=True, help="sets.parquet")
    parser.add_argument("--methods", required=True, help="the config's methods: as JSON")
    parser.add_argument("--settings", required=True, help="the config's bootstrap: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resamples")
    parser.add_argument(
        "--documents", type=Path, required=True, help="output: by document, and whose they are"
    )
    parser.add_argument("--output", type=Path, required=True, help="output: by topic (CSV)")
    return parser.parse_args()


def main() -> None:
    """Read topics, errors and sets, write two tables."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.statistics import BootstrapSettings
    from lowbit.analysis.tables import methods_from_config, require_methods
    from lowbit.analysis.topics import topics_table
    from lowbit.files import read_json, write_csv, write_parquet
    from lowbit.settings import parse_json, parse_settings

    settings = parse_settings(BootstrapSettings, arguments.settings, "--settings")
    methods = methods_from_config(parse_json(arguments.methods, "--methods"))
    classifier = read_json(arguments.classifier)
    labels = classifier["labels"]
    topics, errors = pd.read_parquet(arguments.topics), pd.read_parquet(arguments.errors)
    require_methods(errors, methods)
    names = [method.name for method in methods]
    sets = pd.read_parquet(arguments.sets)
    table = topics_table(topics, labels, errors, sets, names, settings, arguments.seed)
    known = topics.assign(known=len(labels), classifier=classifier["source"])
    write_parquet(arguments.documents, known)
    write_csv(arguments.output, table)


if __name__ == "__main__":
    run(main)
