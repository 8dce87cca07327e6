"""Draw early exit and amplification by layer."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--early-exit", type=Path, required=True, help="early_exit.csv")
    parser.add_argument("--amplification", type=Path, required=True, help="amplification.csv")
    parser.add_argument("--methods", required=True, help="the config's methods: as JSON")
    files = {"nargs": 2, "type": Path, "required": True, "metavar": ("PNG", "SVG")}
    parser.add_argument("--exit-figure", **files, help="output: early exit")
    parser.add_argument("--amplification-figure", **files, help="output: amplification")
    return parser.parse_args()


def main() -> None:
    """Read two tables, write two figures."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.tables import methods_from_config
    from lowbit.figures import layer_trace, plotting
    from lowbit.settings import parse_json

    methods = methods_from_config(parse_json(arguments.methods, "--methods"))
    plotting.start()
    curves = layer_trace.exit_curves(pd.read_csv(arguments.early_exit))
    plotting.save(curves, arguments.exit_figure)
    grown = layer_trace.amplification(pd.read_csv(arguments.amplification), methods)
    plotting.save(grown, arguments.amplification_figure)


if __name__ == "__main__":
    run(main)
