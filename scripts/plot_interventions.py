"""Draw how errors move when the residual norm is changed."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", type=Path, required=True, help="interventions.csv")
    files = {"nargs": 2, "type": Path, "required": True, "metavar": ("PNG", "SVG")}
    parser.add_argument("--figure", **files, help="output")
    return parser.parse_args()


def main() -> None:
    """Read the table, write the figure."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.figures import interventions, plotting

    plotting.start()
    figure = interventions.scaled_norms(pd.read_csv(arguments.table))
    plotting.save(figure, arguments.figure)


if __name__ == "__main__":
    run(main)
