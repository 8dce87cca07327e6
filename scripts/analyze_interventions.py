"""Tabulate how errors move when the residual norm is changed, and say what that supports."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="name of the model")
    parser.add_argument("--scores", type=Path, required=True, help="Parquet of intervene.py")
    parser.add_argument("--gates", type=Path, required=True, help="its JSON of checks")
    parser.add_argument("--errors", type=Path, required=True, help="errors.parquet")
    parser.add_argument("--settings", required=True, help="the config's bootstrap: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resamples")
    parser.add_argument("--csv", type=Path, required=True, help="table to write")
    parser.add_argument("--markdown", type=Path, required=True, help="page to write")
    return parser.parse_args()


def main() -> None:
    """Read what was measured, write a table and a page."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.mechanisms.intervention_report import intervention_markdown
    from lowbit.analysis.mechanisms.interventions import intervention_table
    from lowbit.analysis.statistics import BootstrapSettings
    from lowbit.analysis.tables import document_ids
    from lowbit.files import read_json, write_csv, write_text
    from lowbit.settings import parse_settings

    settings = parse_settings(BootstrapSettings, arguments.settings, "--settings")
    gates = read_json(arguments.gates)
    left_out = {name: each["left_out"] for name, each in gates.items() if "left_out" in each}
    doc_ids = document_ids(pd.read_parquet(arguments.errors, columns=["doc_id"]))
    scores = pd.read_parquet(arguments.scores)
    interventions = intervention_table(scores, left_out, doc_ids, settings, arguments.seed)
    write_csv(arguments.csv, interventions)
    page = intervention_markdown(interventions, arguments.model, settings.confidence)
    write_text(arguments.markdown, page)


if __name__ == "__main__":
    run(main)
