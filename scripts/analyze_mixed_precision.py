"""Tabulate which modules are worth higher precision, and what models mixed by that are worth."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="name of the model")
    parser.add_argument("--plan", type=Path, required=True, help="JSON of mixed_precision.py")
    parser.add_argument("--modules", type=Path, required=True, help="its Parquet of modules")
    parser.add_argument("--models", type=Path, required=True, help="its Parquet of mixed models")
    parser.add_argument("--errors", type=Path, required=True, help="errors.parquet")
    parser.add_argument("--sets", type=Path, required=True, help="sets.parquet")
    parser.add_argument("--settings", required=True, help="the config's bootstrap: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resamples")
    parser.add_argument("--ranking", type=Path, required=True, help="output: modules (CSV)")
    parser.add_argument("--mixed", type=Path, required=True, help="output: models (CSV)")
    parser.add_argument("--markdown", type=Path, required=True, help="output: page to read")
    return parser.parse_args()


def main() -> None:
    """Read what was measured, write two tables and a page."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.mechanisms.mixed_precision_tables import (
        Plan,
        mixed_markdown,
        mixed_table,
        ranking_table,
    )
    from lowbit.analysis.statistics import BootstrapSettings
    from lowbit.files import read_json, write_csv, write_text
    from lowbit.settings import parse_settings

    settings = parse_settings(BootstrapSettings, arguments.settings, "--settings")
    plan, seed = Plan.read(read_json(arguments.plan)), arguments.seed
    errors = pd.read_parquet(arguments.errors)
    ranking = ranking_table(pd.read_parquet(arguments.modules), errors, plan, settings, seed)
    scores, sets = pd.read_parquet(arguments.models), pd.read_parquet(arguments.sets)
    mixed = mixed_table(scores, errors, sets, plan, settings, seed)
    write_csv(arguments.ranking, ranking)
    write_csv(arguments.mixed, mixed)
    page = mixed_markdown(arguments.model, plan, ranking, mixed, settings.confidence)
    write_text(arguments.markdown, page)


if __name__ == "__main__":
    run(main)
