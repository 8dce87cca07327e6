"""Do different methods break the same documents? Correlation of e(x) between methods.

Inputs paper, claim 1: Pearson's r of e(x) between every two methods of one model; pairs of one
quantizer at two bit widths are left out of its means, because such a pair is hardly two methods.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from lowbit.analysis.statistics import (
    BootstrapSettings,
    pearson_draws,
    require_documents,
    require_variation,
    resample_counts,
    spearman_draws,
    summarise,
)
from lowbit.analysis.tables import Method, by_document

ALL = "all"
"""Bit width of the row that averages over all pairs of different quantizers."""

PAIR_COLUMNS = [
    "method_a",
    "method_b",
    "bits_a",
    "bits_b",
    "same_quantizer",
    "pearson",
    "pearson_low",
    "pearson_high",
    "spearman",
    "spearman_low",
    "spearman_high",
    "n",
]
BITS_COLUMNS = ["bits_a", "bits_b", "pairs", "mean_pearson", "low", "high", "mean_spearman", "n"]


def pair_indices(methods: Sequence[Method]) -> list[tuple[int, int]]:
    """Every pair of methods as indices, in the order of the config."""
    return list(combinations(range(len(methods)), 2))


def pair_draws(
    errors: np.ndarray, methods: Sequence[Method], counts: np.ndarray, spearman: bool = False
) -> np.ndarray:
    """Correlation of e(x) for every pair of methods -> draws [1 + R, pairs].

    Args:
        errors: e(x) [documents, methods].
        spearman: rank correlation instead of Pearson's.
    """
    require_documents(len(errors))
    require_variation(errors, [method.name for method in methods], "the error")
    draws = (spearman_draws if spearman else pearson_draws)(errors, errors, counts)
    a, b = np.array(pair_indices(methods), int).reshape(-1, 2).T
    return draws[:, a, b]


def correlation_tables(
    frame: pd.DataFrame, methods: Sequence[Method], settings: BootstrapSettings, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Correlate every pair of methods, and average by every pair of bit widths.

    Returns:
        One row per pair (`PAIR_COLUMNS`), and one row per pair of bit widths (`BITS_COLUMNS`),
        the row `all` first, which leave out pairs of one quantizer. Both are empty where there is
        no such pair.
    """
    errors = by_document(frame, "error", [method.name for method in methods])
    counts = resample_counts(len(errors), settings, seed)
    pearson = pair_draws(errors, methods, counts)
    spearman = pair_draws(errors, methods, counts, spearman=True)
    pairs = _pair_table(pearson, spearman, methods, settings.confidence, len(errors))
    by_bits = _bits_table(pearson, spearman, methods, settings.confidence, len(errors))
    return pairs, by_bits


def _pair_table(
    pearson: np.ndarray,
    spearman: np.ndarray,
    methods: Sequence[Method],
    confidence: float,
    n: int,
) -> pd.DataFrame:
    """One row per pair from draws [1 + R, pairs]."""
    r, r_low, r_high = summarise(pearson, confidence)
    rho, rho_low, rho_high = summarise(spearman, confidence)
    rows = []
    for index, (i, j) in enumerate(pair_indices(methods)):
        a, b = methods[i], methods[j]
        same = a.quantizer == b.quantizer
        numbers = [column[index] for column in (r, r_low, r_high, rho, rho_low, rho_high)]
        rows.append([a.name, b.name, a.bits, b.bits, same, *numbers, n])
    return pd.DataFrame(rows, columns=PAIR_COLUMNS)


def _bits_table(
    pearson: np.ndarray,
    spearman: np.ndarray,
    methods: Sequence[Method],
    confidence: float,
    n: int,
) -> pd.DataFrame:
    """One row per pair of bit widths from draws [1 + R, pairs]; same-quantizer pairs left out."""
    groups: dict[tuple, list[int]] = {}
    for index, (i, j) in enumerate(pair_indices(methods)):
        if methods[i].quantizer != methods[j].quantizer:
            groups.setdefault((ALL, ALL), []).append(index)
            bits = sorted((methods[i].bits, methods[j].bits))
            groups.setdefault(tuple(bits), []).append(index)
    rows = []
    for bits in sorted(groups, key=lambda key: (key != (ALL, ALL), key)):
        chosen = groups[bits]
        value, low, high = summarise(pearson[:, chosen].mean(axis=1), confidence)
        mean_spearman = spearman[0, chosen].mean()
        rows.append([*bits, len(chosen), value, low, high, mean_spearman, n])
    return pd.DataFrame(rows, columns=BITS_COLUMNS)
