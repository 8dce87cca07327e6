"""Tabulate early exit by set and layer, and how MLP differences go with norm(h)."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--exits", type=Path, required=True, help="early_exit.parquet")
    parser.add_argument("--differences", type=Path, required=True, help="mlp_differences.parquet")
    parser.add_argument("--residuals", type=Path, required=True, help="residuals.parquet")
    parser.add_argument("--errors", type=Path, required=True, help="errors.parquet")
    parser.add_argument("--sets", type=Path, required=True, help="sets.parquet")
    parser.add_argument("--methods", nargs="+", required=True, help="names")
    parser.add_argument("--settings", required=True, help="the config's bootstrap: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resamples")
    parser.add_argument("--early-exit", type=Path, required=True, help="output (CSV)")
    parser.add_argument("--amplification", type=Path, required=True, help="output (CSV)")
    return parser.parse_args()


def main() -> None:
    """Read what was measured, write two tables."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.analysis.mechanisms import layer_trace
    from lowbit.analysis.statistics import BootstrapSettings
    from lowbit.analysis.tables import document_ids
    from lowbit.files import write_csv
    from lowbit.settings import parse_settings

    settings = parse_settings(BootstrapSettings, arguments.settings, "--settings")
    methods, seed = arguments.methods, arguments.seed
    doc_ids = document_ids(pd.read_parquet(arguments.errors, columns=["doc_id"]))
    exits, sets = pd.read_parquet(arguments.exits), pd.read_parquet(arguments.sets)
    curves = layer_trace.exit_curves(exits, sets, doc_ids, methods, settings, seed)
    differences = pd.read_parquet(arguments.differences)
    residuals = pd.read_parquet(arguments.residuals)
    grown = layer_trace.amplification(differences, residuals, methods, settings, seed)
    write_csv(arguments.early_exit, curves)
    write_csv(arguments.amplification, grown)


if __name__ == "__main__":
    run(main)
