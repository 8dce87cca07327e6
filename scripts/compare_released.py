"""Compare our documents of large error with the authors' D_large, on the authors' documents."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=Path, required=True, help="documents.parquet (qerror:)")
    parser.add_argument("--errors", type=Path, required=True, help="errors.parquet")
    parser.add_argument("--sets", type=Path, required=True, help="sets.parquet")
    parser.add_argument("--methods", required=True, help="the config's methods: as JSON")
    parser.add_argument("--settings", required=True, help="the config's bootstrap: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resamples")
    parser.add_argument("--released", type=Path, required=True, help="output: their sets (Parquet)")
    parser.add_argument("--output", type=Path, required=True, help="output: per method (CSV)")
    return parser.parse_args()


def main() -> None:
    """Read documents, errors and sets; write two tables."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.released_sets import agreement_table, released_sets
    from lowbit.analysis.statistics import BootstrapSettings
    from lowbit.analysis.tables import methods_from_config
    from lowbit.files import write_csv, write_parquet
    from lowbit.settings import parse_json, parse_settings

    settings = parse_settings(BootstrapSettings, arguments.settings, "--settings")
    methods = methods_from_config(parse_json(arguments.methods, "--methods"))
    errors, sets = pd.read_parquet(arguments.errors), pd.read_parquet(arguments.sets)
    released = released_sets(pd.read_parquet(arguments.documents, columns=["doc_id", "source"]))
    released = released[released["doc_id"].isin(set(errors["doc_id"]))]
    table = agreement_table(errors, sets, released, methods, settings, arguments.seed)
    write_parquet(arguments.released, released)
    write_csv(arguments.output, table)


if __name__ == "__main__":
    run(main)
