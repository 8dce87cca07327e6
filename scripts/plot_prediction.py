"""Draw how well errors are predicted by features, and from one method to another."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="prediction.csv")
    parser.add_argument("--added", type=Path, required=True, help="prediction_added.csv")
    parser.add_argument("--transfer", type=Path, required=True, help="prediction_transfer.csv")
    parser.add_argument("--partial", type=Path, required=True, help="partial_correlation.csv")
    parser.add_argument("--methods", required=True, help="the config's methods: as JSON")
    files = {"nargs": 2, "type": Path, "required": True, "metavar": ("PNG", "SVG")}
    parser.add_argument("--prediction-figure", **files, help="output: by features")
    parser.add_argument("--transfer-figure", **files, help="output: from method to method")
    return parser.parse_args()


def main() -> None:
    """Read the tables, write two figures."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.tables import methods_from_config, require_methods
    from lowbit.figures import plotting
    from lowbit.figures import prediction as prediction_figures
    from lowbit.settings import parse_json

    methods = methods_from_config(parse_json(arguments.methods, "--methods"))
    transfer = pd.read_csv(arguments.transfer)
    require_methods(transfer.rename(columns={"fitted_on": "method"}), methods)
    plotting.start()
    by_features = prediction_figures.prediction_by_features(
        pd.read_csv(arguments.table),
        pd.read_csv(arguments.added),
        methods,
        pd.read_csv(arguments.partial)["quantity"].iloc[0],
    )
    plotting.save(by_features, arguments.prediction_figure)
    heatmap = prediction_figures.transfer_heatmap(transfer, methods)
    plotting.save(heatmap, arguments.transfer_figure)


if __name__ == "__main__":
    run(main)
