"""Correlate residual magnitudes with errors by layer, and compare D_large with D_ctrl."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--residuals", type=Path, required=True, help="residuals.parquet")
    parser.add_argument("--dimensions", type=Path, required=True, help="dimensions.parquet")
    parser.add_argument("--errors", type=Path, required=True, help="errors.parquet")
    parser.add_argument("--sets", type=Path, required=True, help="sets.parquet")
    parser.add_argument("--settings", required=True, help="the config's bootstrap: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resamples")
    parser.add_argument("--correlation", type=Path, required=True, help="output: by layer (CSV)")
    parser.add_argument("--by-set", type=Path, required=True, help="output: mean norms (CSV)")
    parser.add_argument("--outliers", type=Path, required=True, help="output: dimensions (CSV)")
    return parser.parse_args()


def main() -> None:
    """Read norms, errors and sets, write three tables."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.mechanisms import residual_norms as residual_analysis
    from lowbit.analysis.mechanisms.outliers import outlier_dimensions
    from lowbit.analysis.statistics import BootstrapSettings
    from lowbit.files import write_csv
    from lowbit.settings import parse_settings

    settings = parse_settings(BootstrapSettings, arguments.settings, "--settings")
    residuals = pd.read_parquet(arguments.residuals)
    errors = pd.read_parquet(arguments.errors)
    sets = pd.read_parquet(arguments.sets)
    methods = list(errors["method"].unique())
    correlations = residual_analysis.residual_correlations(
        residuals, errors, methods, settings, arguments.seed
    )
    by_set = residual_analysis.norms_by_set(
        residuals, errors, sets, methods, settings, arguments.seed
    )
    write_csv(arguments.correlation, correlations)
    write_csv(arguments.by_set, by_set)
    write_csv(arguments.outliers, outlier_dimensions(pd.read_parquet(arguments.dimensions)))


if __name__ == "__main__":
    run(main)
