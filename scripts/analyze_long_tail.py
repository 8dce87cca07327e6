"""Compare the errors of documents that the full-precision model finds easy and hard."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--errors", type=Path, required=True, help="errors.parquet")
    parser.add_argument("--settings", required=True, help="the config's bootstrap: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resamples")
    parser.add_argument("--output", type=Path, required=True, help="output: by bucket (CSV)")
    return parser.parse_args()


def main() -> None:
    """Read the errors, write one table."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.long_tail import long_tail_table
    from lowbit.analysis.statistics import BootstrapSettings
    from lowbit.files import write_csv
    from lowbit.settings import parse_settings

    settings = parse_settings(BootstrapSettings, arguments.settings, "--settings")
    errors = pd.read_parquet(arguments.errors)
    methods = list(errors["method"].unique())
    write_csv(arguments.output, long_tail_table(errors, methods, settings, arguments.seed))


if __name__ == "__main__":
    run(main)
