"""Draw simulated quantization of weights and activations."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=Path, required=True, help="simulations.csv")
    files = {"nargs": 2, "type": Path, "required": True, "metavar": ("PNG", "SVG")}
    parser.add_argument("--transforms-figure", **files, help="output")
    parser.add_argument("--sqnr-figure", **files, help="output")
    return parser.parse_args()


def main() -> None:
    """Read the table, write the figures."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.figures import plotting, simulation

    plotting.start()
    simulations = pd.read_csv(arguments.simulations)
    plotting.save(simulation.transforms(simulations), arguments.transforms_figure)
    plotting.save(simulation.sqnr(simulations), arguments.sqnr_figure)


if __name__ == "__main__":
    run(main)
