"""Compute e(x) per document and method, perplexities, and the sets D_large and D_ctrl."""

import argparse
from pathlib import Path

from lowbit.errors import run
from lowbit.files import write_csv, write_parquet


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True, help="scores.json of the score rule")
    parser.add_argument("--tokens", type=Path, required=True, help="tokens.parquet")
    parser.add_argument("--settings", required=True, help="the config's errors: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the control draw")
    parser.add_argument("--errors", type=Path, required=True, help="output: long table (Parquet)")
    parser.add_argument("--perplexity", type=Path, required=True, help="output: per method (CSV)")
    parser.add_argument("--sets", type=Path, required=True, help="output: D_large, ... (Parquet)")
    parser.add_argument("--overlap", type=Path, required=True, help="output: Jaccard of sets (CSV)")
    return parser.parse_args()


def main() -> None:
    """Read scores and tokens, write four tables."""
    arguments = parse_arguments()
    from lowbit.analysis import error_sets
    from lowbit.analysis.score_files import read_scores
    from lowbit.analysis.tables import by_document
    from lowbit.inputs.tokens import read_tokens
    from lowbit.settings import parse_settings

    settings = parse_settings(error_sets.ErrorSettings, arguments.settings, "--settings")
    errors = error_sets.error_table(read_scores(arguments.scores))
    doc_ids, tokens = read_tokens(arguments.tokens)
    error_sets.require_documents_of(errors, doc_ids)
    methods = list(errors["method"].unique())
    matrix = by_document(errors, "error", methods)
    sets = {
        method: error_sets.choose_sets(column, tokens, settings, arguments.seed, method)
        for method, column in zip(methods, matrix.T, strict=True)
    }
    write_parquet(arguments.errors, errors)
    write_csv(arguments.perplexity, error_sets.perplexity_table(errors))
    write_parquet(arguments.sets, error_sets.sets_table(doc_ids, sets))
    write_csv(arguments.overlap, error_sets.overlap_table(sets, len(doc_ids)))


if __name__ == "__main__":
    run(main)
