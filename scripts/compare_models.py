"""Tabulate how much the same perturbations and quantizations hurt each model of a study."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--models",
        required=True,
        help='JSON: {model: {"family", "step" and "base" of the config, "results": directory of '
        'its tables, "record": its model.json}}',
    )
    parser.add_argument(
        "--tables", nargs="+", required=True, help="tables in each results directory"
    )
    parser.add_argument("--settings", required=True, help="the config's bootstrap: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resamples")
    parser.add_argument("--output", type=Path, required=True, help="table to write")
    return parser.parse_args()


def main() -> None:
    """Read every model's tables, write one table."""
    arguments = parse_arguments()
    from lowbit.analysis.perturbation.robustness import robustness_table
    from lowbit.analysis.statistics import BootstrapSettings
    from lowbit.analysis.studied_models import studied_models
    from lowbit.files import read_json, read_table, write_csv
    from lowbit.settings import parse_json, parse_settings

    given = parse_json(arguments.models, "--models")
    settings = parse_settings(BootstrapSettings, arguments.settings, "--settings")
    models = studied_models(
        given, {name: read_json(entry["record"]) for name, entry in given.items()}
    )
    tables = {
        name: {
            Path(table).stem: read_table(Path(entry["results"], table))
            for table in arguments.tables
        }
        for name, entry in given.items()
    }
    write_csv(arguments.output, robustness_table(models, tables, settings, arguments.seed))


if __name__ == "__main__":
    run(main)
