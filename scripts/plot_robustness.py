"""Draw how much the same perturbations and quantizations hurt each model of a study."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--robustness", type=Path, required=True, help="robustness.csv")
    parser.add_argument(
        "--figure",
        nargs=2,
        type=Path,
        required=True,
        metavar=("PNG", "SVG"),
        help="output: models beside each other",
    )
    return parser.parse_args()


def main() -> None:
    """Read the table, write the figure."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.figures import plotting, robustness

    plotting.start()
    figure = robustness.robustness(pd.read_csv(arguments.robustness))
    plotting.save(figure, arguments.figure)


if __name__ == "__main__":
    run(main)
