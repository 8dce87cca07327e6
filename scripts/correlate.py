"""Correlate the errors of every pair of methods over documents, with bootstrap intervals."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--errors", type=Path, required=True, help="errors.parquet")
    parser.add_argument("--methods", required=True, help="the config's methods: as JSON")
    parser.add_argument("--settings", required=True, help="the config's bootstrap: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resamples")
    parser.add_argument("--pairs", type=Path, required=True, help="output: one row per pair (CSV)")
    parser.add_argument("--by-bits", type=Path, required=True, help="output: means (CSV)")
    return parser.parse_args()


def main() -> None:
    """Read the errors, write two tables."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.correlation import correlation_tables
    from lowbit.analysis.statistics import BootstrapSettings
    from lowbit.analysis.tables import methods_from_config, require_methods
    from lowbit.files import write_csv
    from lowbit.settings import parse_json, parse_settings

    settings = parse_settings(BootstrapSettings, arguments.settings, "--settings")
    methods = methods_from_config(parse_json(arguments.methods, "--methods"))
    errors = pd.read_parquet(arguments.errors)
    require_methods(errors, methods)
    pairs, by_bits = correlation_tables(errors, methods, settings, arguments.seed)
    write_csv(arguments.pairs, pairs)
    write_csv(arguments.by_bits, by_bits)


if __name__ == "__main__":
    run(main)
