"""Draw which modules are worth higher precision, and what models mixed by that are worth."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranking", type=Path, required=True, help="module_ranking.csv")
    parser.add_argument("--mixed", type=Path, required=True, help="mixed_precision.csv")
    parser.add_argument("--base", required=True, help="name of the method that is improved")
    parser.add_argument("--higher", required=True, help="name of the higher method")
    files = {"nargs": 2, "type": Path, "required": True, "metavar": ("PNG", "SVG")}
    parser.add_argument("--ranking-figure", **files, help="output: modules")
    parser.add_argument("--mixed-figure", **files, help="output: models")
    return parser.parse_args()


def main() -> None:
    """Read two tables, write two figures."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.figures import mixed_precision, plotting

    names = arguments.base, arguments.higher
    plotting.start()
    ranking = mixed_precision.module_ranking(pd.read_csv(arguments.ranking), *names)
    plotting.save(ranking, arguments.ranking_figure)
    mixed = mixed_precision.mixed_models(pd.read_csv(arguments.mixed), *names)
    plotting.save(mixed, arguments.mixed_figure)


if __name__ == "__main__":
    run(main)
