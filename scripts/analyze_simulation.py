"""Tabulate simulated quantization of weights and activations: errors, SQNR, the best transforms."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True, help="Parquet of simulate.py")
    parser.add_argument("--sizes", type=Path, required=True, help="its Parquet of errors of x")
    parser.add_argument("--settings", required=True, help="the config's bootstrap: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resamples")
    parser.add_argument("--simulations", type=Path, required=True, help="table to write")
    parser.add_argument("--best", type=Path, required=True, help="table to write")
    parser.add_argument("--evaluation", type=Path, help="scores on evaluation sets, if any")
    parser.add_argument("--sets", type=Path, help="table of them to write")
    return parser.parse_args()


def main() -> None:
    """Read what was measured, write the tables."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.perturbation.sets import set_table
    from lowbit.analysis.perturbation.simulations import (
        SIMULATION,
        best_transforms,
        simulation_table,
    )
    from lowbit.analysis.statistics import BootstrapSettings
    from lowbit.files import write_csv
    from lowbit.settings import parse_settings

    settings = parse_settings(BootstrapSettings, arguments.settings, "--settings")
    scores, sizes = (pd.read_parquet(path) for path in (arguments.scores, arguments.sizes))
    simulations = simulation_table(scores, sizes, settings, arguments.seed)
    write_csv(arguments.simulations, simulations)
    write_csv(arguments.best, best_transforms(simulations))
    if arguments.evaluation:
        evaluation = pd.read_parquet(arguments.evaluation)
        write_csv(arguments.sets, set_table(evaluation, SIMULATION, settings, arguments.seed))


if __name__ == "__main__":
    run(main)
