"""Draw the correlation of errors between methods, as a heat map and as scatter plots."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=Path, required=True, help="correlation.csv")
    parser.add_argument("--errors", type=Path, required=True, help="errors.parquet")
    parser.add_argument("--methods", required=True, help="the config's methods: as JSON")
    files = {"nargs": 2, "type": Path, "required": True, "metavar": ("PNG", "SVG")}
    parser.add_argument("--heatmap-figure", **files, help="output: r of every pair")
    parser.add_argument("--scatter-figure", **files, help="output: errors of typical pairs")
    return parser.parse_args()


def main() -> None:
    """Read the tables, write two figures."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.tables import methods_from_config, require_methods
    from lowbit.figures import correlation as correlation_figures
    from lowbit.figures import plotting
    from lowbit.settings import parse_json

    methods = methods_from_config(parse_json(arguments.methods, "--methods"))
    errors = pd.read_parquet(arguments.errors)
    require_methods(errors, methods)
    pairs = pd.read_csv(arguments.pairs)
    plotting.start()
    heatmap = correlation_figures.correlation_heatmap(pairs, methods)
    plotting.save(heatmap, arguments.heatmap_figure)
    scatter = correlation_figures.error_scatter(pairs, errors)
    plotting.save(scatter, arguments.scatter_figure)


if __name__ == "__main__":
    run(main)
