"""Tabulate what perturbations did: effects, interaction, sensitivity, agreement with quantizers."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="name of the model")
    parser.add_argument("--reference", required=True, help="method whose errors set the norms")
    parser.add_argument(
        "--activation-bits", type=int, required=True, help="the same of activations"
    )
    parser.add_argument("--scores", type=Path, required=True, help="Parquet of perturb.py")
    parser.add_argument("--norms", type=Path, required=True, help="its Parquet of sizes")
    parser.add_argument("--errors", type=Path, required=True, help="errors.parquet")
    parser.add_argument("--methods", nargs="+", required=True, help="methods of the study")
    parser.add_argument("--settings", required=True, help="the config's bootstrap: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resamples")
    parser.add_argument("--effects", type=Path, required=True, help="table to write")
    parser.add_argument("--interaction", type=Path, required=True, help="table to write")
    parser.add_argument("--sensitivity", type=Path, help="table to write, where there is any")
    parser.add_argument("--agreement", type=Path, required=True, help="table to write")
    parser.add_argument("--markdown", type=Path, required=True, help="page to write")
    parser.add_argument("--evaluation", type=Path, help="scores on evaluation sets, if any")
    parser.add_argument("--sets", type=Path, help="table of them to write")
    return parser.parse_args()


def main() -> None:
    """Read what was measured, write the tables."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.perturbation.agreement import agreement_table
    from lowbit.analysis.perturbation.effects import (
        CONDITION,
        effect_table,
        of_all,
        perturbed_errors,
    )
    from lowbit.analysis.perturbation.interaction import interaction_table
    from lowbit.analysis.perturbation.report import perturbation_markdown
    from lowbit.analysis.perturbation.sensitivity import sensitivity_table
    from lowbit.analysis.perturbation.sets import set_table
    from lowbit.analysis.statistics import BootstrapSettings
    from lowbit.files import write_csv, write_text
    from lowbit.settings import parse_settings

    settings = parse_settings(BootstrapSettings, arguments.settings, "--settings")
    scores, norms, errors = (
        pd.read_parquet(path) for path in (arguments.scores, arguments.norms, arguments.errors)
    )
    perturbed, seed = perturbed_errors(scores), arguments.seed
    everywhere = of_all(perturbed)
    effects = effect_table(perturbed, norms, settings, seed)
    tables = {
        arguments.effects: effects,
        arguments.interaction: interaction_table(everywhere, settings, seed),
        arguments.sensitivity: sensitivity_table(effects, norms),
        arguments.agreement: agreement_table(everywhere, errors, arguments.methods, settings, seed),
    }
    for path, each in tables.items():
        if path:
            write_csv(path, each)
    about = arguments.model, arguments.reference, arguments.activation_bits
    write_text(arguments.markdown, perturbation_markdown(*tables.values(), *about))
    if arguments.evaluation:
        evaluation = pd.read_parquet(arguments.evaluation)
        write_csv(arguments.sets, set_table(evaluation, CONDITION, settings, arguments.seed))


if __name__ == "__main__":
    run(main)
