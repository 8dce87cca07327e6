"""Draw how residual norms predict errors by layer, and how D_large differs from D_ctrl."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--correlation", type=Path, required=True, help="residual_correlation.csv")
    parser.add_argument("--by-set", type=Path, required=True, help="residual_sets.csv")
    parser.add_argument("--residuals", type=Path, required=True, help="residuals.parquet")
    parser.add_argument("--sets", type=Path, required=True, help="sets.parquet")
    parser.add_argument("--methods", required=True, help="the config's methods: as JSON")
    files = {"nargs": 2, "type": Path, "required": True, "metavar": ("PNG", "SVG")}
    parser.add_argument("--layers-figure", **files, help="output: correlation by layer")
    parser.add_argument("--norms-figure", **files, help="output: norms of D_large and D_ctrl")
    parser.add_argument("--reversal-figure", **files, help="output: their ratio by layer")
    parser.add_argument("--density-figure", **files, help="output: densities of norms by set")
    parser.add_argument("--kurtosis-figure", **files, help="output: kurtosis by layer and set")
    return parser.parse_args()


def main() -> None:
    """Read the tables, write five figures."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.tables import methods_from_config, require_methods
    from lowbit.figures import plotting
    from lowbit.figures import residuals as residual_figures
    from lowbit.settings import parse_json

    methods = methods_from_config(parse_json(arguments.methods, "--methods"))
    correlations = pd.read_csv(arguments.correlation)
    by_set = pd.read_csv(arguments.by_set)
    require_methods(correlations, methods)
    plotting.start()
    layers = residual_figures.correlation_by_layer(correlations, methods)
    plotting.save(layers, arguments.layers_figure)
    plotting.save(residual_figures.norms_by_set(by_set, methods), arguments.norms_figure)
    plotting.save(residual_figures.reversal(by_set, methods), arguments.reversal_figure)
    residuals, sets = pd.read_parquet(arguments.residuals), pd.read_parquet(arguments.sets)
    densities = residual_figures.densities(residuals, sets, methods)
    plotting.save(densities, arguments.density_figure)
    plotting.save(residual_figures.kurtosis_by_set(by_set, methods), arguments.kurtosis_figure)


if __name__ == "__main__":
    run(main)
