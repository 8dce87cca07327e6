"""Perplexity and last-word accuracy of perturbed and of simulated quantized models."""

from collections.abc import Sequence

import pandas as pd

from lowbit.analysis.evaluation import measure_draws
from lowbit.analysis.statistics import BootstrapSettings, resample_counts, summarise_set

VALUE = ("value", "low", "high")
DIFFERENCE = ("difference", "difference_low", "difference_high")


def set_table(
    scores: pd.DataFrame, keys: Sequence[str], settings: BootstrapSettings, seed: int
) -> pd.DataFrame:
    """One row per set, condition and measure, see `lowbit.analysis.evaluation`.

    Rows of a set have their mean over seeds. `value` with interval over the rows of the set;
    `full`: of the full-precision model; `difference` from it, with interval. A set of fewer than
    `MINIMUM_DOCUMENTS` rows has no intervals.

    Args:
        scores: `keys`, set, kind, row, tokens, nll, nll_full, correct, correct_full; and seed,
            where a condition is tried with several.
        keys: columns that tell conditions apart.
    """
    found = []
    for name, mine in _means(scores, keys).groupby("set", sort=False):
        n, confidence = mine["row"].nunique(), settings.confidence
        counts = resample_counts(n, settings, seed)
        for _, rows in mine.groupby(list(keys), sort=False, dropna=False):
            full = rows.assign(nll=rows["nll_full"], correct=rows["correct_full"])
            of_full = measure_draws(full, counts)
            condition = rows[list(keys)].iloc[0].to_dict()
            for measure, draws in measure_draws(rows, counts).items():
                row = {"set": name, "measure": measure, **condition}
                row |= dict(zip(VALUE, summarise_set(draws, confidence, n), strict=True))
                row |= {"full": of_full[measure][0]}
                difference = summarise_set(draws - of_full[measure], confidence, n)
                row |= dict(zip(DIFFERENCE, difference, strict=True))
                found.append(row | {"n": n})
    return pd.DataFrame(found)


def _means(scores: pd.DataFrame, keys: Sequence[str]) -> pd.DataFrame:
    """Means over seeds, one row per set, condition and row of the set."""
    scores = scores.astype({"correct": float, "correct_full": float})
    same = ["set", "kind", *keys, "row", "tokens"]
    values = ["nll", "nll_full", "correct", "correct_full"]
    return scores.groupby(same, sort=False, dropna=False)[values].mean().reset_index()
