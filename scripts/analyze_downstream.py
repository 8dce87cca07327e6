"""Tabulate what full and quantized models answered right, as a whole and by popularity."""

import argparse
import json
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--answers",
        type=json.loads,
        required=True,
        help='JSON list of {"name", "method", "items" (Parquet), "record" (JSON)} of downstream.py',
    )
    parser.add_argument("--settings", required=True, help="the config's bootstrap: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resamples")
    parser.add_argument("--output", type=Path, required=True, help="output: answers (Parquet)")
    parser.add_argument("--table", type=Path, required=True, help="output: accuracy (CSV)")
    parser.add_argument("--popularity", type=Path, help="output: by popularity, if any (CSV)")
    return parser.parse_args()


def main() -> None:
    """Read all answers, write them in one file, and two tables."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.downstream import accuracy_table, join_answers, popularity_table
    from lowbit.analysis.statistics import BootstrapSettings
    from lowbit.files import read_json, write_csv, write_parquet
    from lowbit.settings import parse_settings

    settings = parse_settings(BootstrapSettings, arguments.settings, "--settings")
    parts = {(a["name"], a["method"]): pd.read_parquet(a["items"]) for a in arguments.answers}
    shots = {a["name"]: read_json(a["record"])["shots"] for a in arguments.answers}
    answers = join_answers(parts)
    write_parquet(arguments.output, answers)
    write_csv(arguments.table, accuracy_table(answers, shots, settings, arguments.seed))
    if arguments.popularity:
        write_csv(arguments.popularity, popularity_table(answers, settings, arguments.seed))


if __name__ == "__main__":
    run(main)
