"""Draw the errors by method and the overlap of the worst documents between methods."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--errors", type=Path, required=True, help="errors.parquet")
    parser.add_argument("--sets", type=Path, required=True, help="sets.parquet")
    parser.add_argument("--overlap", type=Path, required=True, help="overlap.csv")
    parser.add_argument("--methods", required=True, help="the config's methods: as JSON")
    files = {"nargs": 2, "type": Path, "required": True, "metavar": ("PNG", "SVG")}
    parser.add_argument("--distribution-figure", **files, help="output: errors by method")
    parser.add_argument("--overlap-figure", **files, help="output: overlap of D_large")
    return parser.parse_args()


def main() -> None:
    """Read the tables, write two figures."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.tables import methods_from_config, require_methods
    from lowbit.figures import errors as error_figures
    from lowbit.figures import plotting
    from lowbit.settings import parse_json

    methods = methods_from_config(parse_json(arguments.methods, "--methods"))
    errors = pd.read_parquet(arguments.errors)
    require_methods(errors, methods)
    plotting.start()
    sets = pd.read_parquet(arguments.sets)
    distribution = error_figures.error_distribution(errors, sets, methods)
    plotting.save(distribution, arguments.distribution_figure)
    overlap = error_figures.overlap_heatmap(pd.read_csv(arguments.overlap), methods)
    plotting.save(overlap, arguments.overlap_figure)


if __name__ == "__main__":
    run(main)
