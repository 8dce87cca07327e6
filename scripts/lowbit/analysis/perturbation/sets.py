"""Perplexity and last-word accuracy of perturbed and of simulated quantized models."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lowbit.analysis.statistics import (
    BootstrapSettings,
    mean_draws,
    resample_counts,
    summarise,
)

LAST_WORD = "last_word"
PERPLEXITY, ACCURACY = "perplexity", "accuracy"
DIFFERENCE = ("difference", "difference_low", "difference_high")


def set_table(
    scores: pd.DataFrame, keys: Sequence[str], settings: BootstrapSettings, seed: int
) -> pd.DataFrame:
    """One row per set and condition: perplexity or accuracy (means over seeds).

    `measure` is perplexity, exp of the mean NLL per token, or accuracy; `value` with interval over
    the rows of the set; `full`: of the full-precision model; `difference` from it, with interval.

    Args:
        scores: `keys`, set, kind, row, tokens, nll, nll_full, correct, correct_full; and seed,
            where a condition is tried with several.
        keys: columns that tell conditions apart.
    """
    parts = []
    for name, mine in scores.groupby("set", sort=False):
        words = mine["kind"].iloc[0] == LAST_WORD
        values, weights, full, conditions = _arranged(mine, keys, words)
        counts = resample_counts(len(values), settings, seed) * weights
        everyone = np.ones(len(values), bool)
        draws = mean_draws(np.column_stack([values, full]), everyone, counts)
        draws = draws if words else np.exp(draws)
        value, low, high = summarise(draws[:, :-1], settings.confidence)
        difference = summarise(draws[:, :-1] - draws[:, -1:], settings.confidence)
        columns = {"value": value, "low": low, "high": high, "full": draws[0, -1]}
        columns |= dict(zip(DIFFERENCE, difference, strict=True))
        measure = ACCURACY if words else PERPLEXITY
        parts.append(conditions.assign(set=name, measure=measure, **columns, n=len(values)))
    found = pd.concat(parts, ignore_index=True)
    return found[["set", "measure", *keys, *columns, "n"]]


def _arranged(
    mine: pd.DataFrame, keys: Sequence[str], words: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray, pd.DataFrame]:
    """Values [rows, conditions] (means over seeds), weights and the full model's [rows].

    Of windows the values are NLL per token, weighted by tokens; of last words 1 where correct.
    """
    number = mine.groupby(list(keys), sort=False, dropna=False).ngroup()
    value = mine["correct"].astype(float) if words else mine["nll"] / mine["tokens"]
    table = pd.DataFrame({"row": mine["row"], "number": number, "value": value})
    wide = table.groupby(["row", "number"], sort=False)["value"].mean().unstack("number")
    first = mine.drop_duplicates("row").set_index("row").loc[wide.index]
    if words:
        full, weights = first["correct_full"].astype(float), np.ones(len(first))
    else:
        full, weights = first["nll_full"] / first["tokens"], first["tokens"].to_numpy(float)
    conditions = mine.loc[~number.duplicated(), list(keys)].reset_index(drop=True)
    return wide.to_numpy(), weights, full.to_numpy(), conditions
