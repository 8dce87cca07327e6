"""Tabulate perplexity and last-word accuracy of every method, and what is lost."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True, help="Parquet of evaluate.py")
    parser.add_argument("--records", required=True, help="JSON: {set: its rows.json}")
    parser.add_argument("--settings", required=True, help="the config's bootstrap: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resamples")
    parser.add_argument("--output", type=Path, required=True, help="table to write (CSV)")
    return parser.parse_args()


def main() -> None:
    """Read what was measured, write a table."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.evaluation import evaluation_table
    from lowbit.analysis.statistics import BootstrapSettings
    from lowbit.files import read_json, write_csv
    from lowbit.settings import parse_json, parse_settings

    settings = parse_settings(BootstrapSettings, arguments.settings, "--settings")
    records = parse_json(arguments.records, "--records")
    table = evaluation_table(
        pd.read_parquet(arguments.scores),
        {name: read_json(path) for name, path in records.items()},
        settings,
        arguments.seed,
    )
    write_csv(arguments.output, table)


if __name__ == "__main__":
    run(main)
