"""Draw what perturbations did."""

import argparse
from pathlib import Path

from lowbit.errors import run

FIGURES = ("intensity", "distribution", "clipping", "interaction", "agreement")


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--effects", type=Path, required=True, help="perturbation.csv")
    parser.add_argument("--interaction", type=Path, required=True, help="interaction.csv")
    parser.add_argument("--sensitivity", type=Path, help="sensitivity.csv, where there is one")
    parser.add_argument("--agreement", type=Path, required=True, help="perturbation_agreement.csv")
    parser.add_argument("--methods", required=True, help="the config's methods: as JSON")
    files = {"nargs": 2, "type": Path, "required": True, "metavar": ("PNG", "SVG")}
    for name in FIGURES:
        parser.add_argument(f"--{name}-figure", **files, help="output")
    parser.add_argument("--sensitivity-figure", **{**files, "required": False}, help="output")
    return parser.parse_args()


def main() -> None:
    """Read the tables, write the figures."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.tables import methods_from_config
    from lowbit.figures import perturbation, plotting
    from lowbit.settings import parse_json

    plotting.start()
    effects = pd.read_csv(arguments.effects)
    methods = methods_from_config(parse_json(arguments.methods, "--methods"))
    agreement = pd.read_csv(arguments.agreement)
    plotting.save(perturbation.intensities(effects), arguments.intensity_figure)
    plotting.save(perturbation.distributions(effects), arguments.distribution_figure)
    plotting.save(perturbation.clipping(effects), arguments.clipping_figure)
    together = perturbation.interaction(pd.read_csv(arguments.interaction))
    plotting.save(together, arguments.interaction_figure)
    plotting.save(perturbation.agreement(agreement, methods), arguments.agreement_figure)
    if arguments.sensitivity:
        alone = perturbation.sensitivity(pd.read_csv(arguments.sensitivity))
        plotting.save(alone, arguments.sensitivity_figure)


if __name__ == "__main__":
    run(main)
