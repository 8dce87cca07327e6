"""Draw what perturbations did."""

import argparse
from pathlib import Path

from lowbit.errors import run

FIGURES = ("intensity", "distribution", "clipping", "interaction", "sensitivity", "agreement")


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--effects", type=Path, required=True, help="perturbation.csv")
    parser.add_argument("--interaction", type=Path, required=True, help="interaction.csv")
    parser.add_argument("--sensitivity", type=Path, required=True, help="sensitivity.csv")
    parser.add_argument("--agreement", type=Path, required=True, help="perturbation_agreement.csv")
    parser.add_argument("--methods", required=True, help="the config's methods: as JSON")
    files = {"nargs": 2, "type": Path, "required": True, "metavar": ("PNG", "SVG")}
    for name in FIGURES:
        parser.add_argument(f"--{name}-figure", **files, help="output")
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
    sensitivity, table = (pd.read_csv(p) for p in (arguments.sensitivity, arguments.agreement))
    plotting.save(perturbation.intensities(effects), arguments.intensity_figure)
    plotting.save(perturbation.distributions(effects), arguments.distribution_figure)
    plotting.save(perturbation.clipping(effects), arguments.clipping_figure)
    together = perturbation.interaction(pd.read_csv(arguments.interaction))
    plotting.save(together, arguments.interaction_figure)
    plotting.save(perturbation.sensitivity(sensitivity), arguments.sensitivity_figure)
    plotting.save(perturbation.agreement(table, methods), arguments.agreement_figure)


if __name__ == "__main__":
    run(main)
