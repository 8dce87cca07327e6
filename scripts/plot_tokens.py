"""Draw which tokens carry the errors."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--concentration", type=Path, required=True, help="token_concentration.csv")
    parser.add_argument("--by-bin", type=Path, required=True, help="token_errors.csv")
    parser.add_argument("--methods", required=True, help="the config's methods: as JSON")
    files = {"nargs": 2, "type": Path, "required": True, "metavar": ("PNG", "SVG")}
    parser.add_argument("--concentration-figure", **files, help="output: share of the worst")
    parser.add_argument("--errors-figure", **files, help="output: mean errors by bin")
    parser.add_argument("--flips-figure", **files, help="output: changed top tokens by bin")
    return parser.parse_args()


def main() -> None:
    """Read the tables, write three figures."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.tables import methods_from_config, require_methods
    from lowbit.figures import plotting
    from lowbit.figures import tokens as token_figures
    from lowbit.settings import parse_json

    methods = methods_from_config(parse_json(arguments.methods, "--methods"))
    table = pd.read_csv(arguments.by_bin)
    require_methods(table, methods)
    plotting.start()
    shares = token_figures.concentration(pd.read_csv(arguments.concentration), methods)
    plotting.save(shares, arguments.concentration_figure)
    for value, files in (
        ("mean_error", arguments.errors_figure),
        ("flip_rate", arguments.flips_figure),
    ):
        plotting.save(token_figures.by_bin(table, methods, value), files)


if __name__ == "__main__":
    run(main)
