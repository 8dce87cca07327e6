"""Find out which tokens carry the errors: how few, where they stand, how rare and how sure."""

import argparse
from pathlib import Path

from lowbit.errors import run


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scores", type=Path, required=True, help="scores.json of the score rule")
    parser.add_argument("--tokens", type=Path, required=True, help="tokens.parquet")
    parser.add_argument("--sets", type=Path, required=True, help="sets.parquet")
    parser.add_argument("--settings", required=True, help="the config's bootstrap: as JSON")
    parser.add_argument("--seed", type=int, required=True, help="seed of the resamples")
    parser.add_argument("--concentration", type=Path, required=True, help="output: shares (CSV)")
    parser.add_argument("--by-bin", type=Path, required=True, help="output: errors, flips (CSV)")
    return parser.parse_args()


def main() -> None:
    """Read the tokens' scores one method at a time, write two tables."""
    arguments = parse_arguments()
    import numpy as np
    import pandas as pd

    from lowbit.analysis import token_errors
    from lowbit.analysis.score_files import read_token_scores, score_paths
    from lowbit.analysis.statistics import BootstrapSettings, require_documents, resample_counts
    from lowbit.analysis.tables import membership
    from lowbit.files import write_csv
    from lowbit.inputs.tokens import read_tokens
    from lowbit.names import FULL
    from lowbit.settings import parse_settings

    settings = parse_settings(BootstrapSettings, arguments.settings, "--settings")
    ids, tokens = read_tokens(arguments.tokens)
    doc_ids, sets = np.array(ids), pd.read_parquet(arguments.sets)
    require_documents(len(doc_ids))
    counts = resample_counts(len(doc_ids), settings, arguments.seed)
    paths = score_paths(arguments.scores)
    full = paths.pop(FULL)
    nll = read_token_scores(full, "token_nll")
    every_bins = [
        token_errors.position_bins(*tokens.shape),
        token_errors.frequency_bins(tokens),
        token_errors.confidence_bins(read_token_scores(full, "token_confidence")),
    ]
    draws, sizes, rows = {}, {}, []
    for method, path in paths.items():
        errors = read_token_scores(path, "token_nll") - nll
        flips = read_token_scores(path, "token_flip")
        members = {token_errors.ALL: np.ones(len(doc_ids), bool)} | {
            name: membership(sets, method, name, doc_ids)
            for name in (token_errors.LARGE, token_errors.CONTROL)
        }
        sizes[method] = {name: int(member.sum()) for name, member in members.items()}
        draws[method] = token_errors.concentration_draws(errors, members, counts)
        rows += token_errors.token_rows(
            method, errors, flips, every_bins, members, counts, settings.confidence
        )
    shares = token_errors.concentration_table(draws, sizes, settings.confidence)
    write_csv(arguments.concentration, shares)
    write_csv(arguments.by_bin, token_errors.token_table(rows))


if __name__ == "__main__":
    run(main)
