"""Which tokens carry a document's error?

e(x) is the mean over a document's predicted tokens of d(t) = NLL(t; quantized) - NLL(t; full
precision). These are signed: quantization makes some tokens more likely. Tables here are over the
documents of D_large, of D_ctrl, and all.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lowbit.analysis.statistics import MINIMUM_DOCUMENTS, Estimate, estimate, mean_draws, summarise
from lowbit.analysis.tables import MEAN_OF_METHODS
from lowbit.names import CONTROL, LARGE

TOP_SHARES = (0.01, 0.05, 0.1)
"""Shares of a document's tokens that are looked at, the worst first."""
FREQUENCY_BASE = 4
"""Each bin of token frequency reaches to this many times its lowest count."""
FIRST_EDGE = 4
"""Positions before the doubled one share the first bin; each later bin reaches twice as far."""
CONFIDENCE_BINS = 10
ALL, DIFFERENCE = "all", "difference"

CONCENTRATION_COLUMNS = ["method", "set", "top", "share", "low", "high", "n"]
TOKEN_COLUMNS = [
    "method",
    "set",
    "by",
    "bin",
    "from",
    "to",
    "n",
    "mean_error",
    "error_low",
    "error_high",
    "flip_rate",
    "flip_low",
    "flip_high",
]


def concentration(token_errors: np.ndarray, top: float) -> np.ndarray:
    """Share of the positive part of the error that the worst tokens carry -> [documents].

    sum over the k worst tokens of max(d, 0) / sum over all tokens of max(d, 0), with k the smallest
    number that is at least `top` of the tokens. Negative errors are left out of both sums: with
    them a share could be above 1, or have no meaning where e(x) is near 0. Errors spread evenly
    would give `top`. nan for a document without any positive error.

    Args:
        token_errors: d(t) [documents, tokens], nats.
    """
    positive = np.maximum(token_errors, 0).astype(float)
    length = positive.shape[1]
    count = int(np.ceil(round(top * length, 9)))
    worst = np.partition(positive, length - count, axis=1)[:, length - count :].sum(axis=1)
    total = positive.sum(axis=1)
    return np.divide(worst, total, out=np.full(len(total), np.nan), where=total > 0)


def concentration_draws(
    token_errors: np.ndarray, sets: Mapping[str, np.ndarray], counts: np.ndarray
) -> dict[tuple[str, float], np.ndarray]:
    """Mean `concentration` of each set of documents -> (set, top share) -> draws [1 + R].

    Args:
        sets: name -> bool [documents]; where D_large and D_ctrl are among them, their difference
            (large - control) is added.
    """
    draws = {}
    for top in TOP_SHARES:
        shares = concentration(token_errors, top)
        for name, member in sets.items():
            draws[name, top] = mean_draws(shares[:, None], member & ~np.isnan(shares), counts)[:, 0]
        if LARGE in sets and CONTROL in sets:
            draws[DIFFERENCE, top] = draws[LARGE, top] - draws[CONTROL, top]
    return draws


def concentration_table(
    draws: Mapping[str, Mapping[tuple[str, float], np.ndarray]],
    sizes: Mapping[str, Mapping[str, int]],
    confidence: float,
) -> pd.DataFrame:
    """One row per method (and their mean), set and top share: `CONCENTRATION_COLUMNS`.

    Args:
        draws: method -> what `concentration_draws` gives.
        sizes: method -> set -> documents; a set of fewer than `MINIMUM_DOCUMENTS` has no interval.
    """
    means = {key: np.mean([mine[key] for mine in draws.values()], axis=0) for key in _keys(draws)}
    smallest = {name: min(mine[name] for mine in sizes.values()) for name in _keys(sizes)}
    rows = []
    for method, mine in [*draws.items(), (MEAN_OF_METHODS, means)]:
        size = sizes.get(method, smallest)
        for (name, top), values in mine.items():
            documents = min(size[LARGE], size[CONTROL]) if name == DIFFERENCE else size[name]
            rows.append([method, name, top, *_estimate(values, documents, confidence), documents])
    return pd.DataFrame(rows, columns=CONCENTRATION_COLUMNS)


def _keys(by_method: Mapping[str, Mapping]) -> list:
    """Keys that every method has."""
    return list(next(iter(by_method.values())))


def _estimate(draws: np.ndarray, documents: int, confidence: float) -> Estimate:
    """Value and interval; without an interval for too few documents."""
    if documents < MINIMUM_DOCUMENTS:
        return Estimate(float(draws[0]), np.nan, np.nan)
    return estimate(draws, confidence)


@dataclass(frozen=True)
class Bins:
    """Predicted tokens, sorted into bins by one of their properties."""

    by: str
    lowest: np.ndarray
    """Smallest value in each bin [bins]."""
    highest: np.ndarray
    """Largest value in each bin [bins]."""
    index: np.ndarray
    """Bin of each token [documents, tokens]."""
    label: Callable[[float, float], str]

    def sums(self, values: np.ndarray | None = None) -> np.ndarray:
        """Sum of values [documents, tokens] (their number if left out) -> [documents, bins]."""
        documents, bins = len(self.index), len(self.lowest)
        place = self.index + bins * np.arange(documents)[:, None]
        weights = None if values is None else values.ravel().astype(float)
        sums = np.bincount(place.ravel(), weights=weights, minlength=documents * bins)
        return sums.reshape(documents, bins)


def position_bins(documents: int, length: int) -> Bins:
    """By how many tokens stand before the predicted one: 1-7, 8-15, 16-31, ..."""
    position = np.broadcast_to(np.arange(1, length), (documents, length - 1))
    edges = _edges(FIRST_EDGE, 2, length - 1)
    edges[0] = 1
    highest = np.append(edges[1:], length) - 1
    return Bins("position", edges, highest, _places(edges, position), _whole_numbers)


def frequency_bins(tokens: np.ndarray) -> Bins:
    """By how often the predicted token occurs in all of the study's documents: 1-3, 4-15, ...

    Args:
        tokens: token ids [documents, length].
    """
    counts = np.bincount(tokens.ravel())[tokens[:, 1:]]
    edges = _edges(1, FREQUENCY_BASE, counts.max())
    highest = FREQUENCY_BASE * edges - 1
    return Bins("frequency", edges, highest, _places(edges, counts), _whole_numbers)


def _edges(first: int, base: int, largest: int) -> np.ndarray:
    """first, first * base, first * base^2, ... up to `largest`; at least one."""
    edges = [first]
    while edges[-1] * base <= largest:
        edges.append(edges[-1] * base)
    return np.array(edges)


def _places(edges: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Bin of each value; what is below the first edge is in the first bin."""
    return np.maximum(np.searchsorted(edges, values, side="right") - 1, 0)


def confidence_bins(confidence: np.ndarray) -> Bins:
    """By the full-precision model's highest probability [documents, tokens], in tenths."""
    index = np.clip((confidence * CONFIDENCE_BINS).astype(int), 0, CONFIDENCE_BINS - 1)
    edges = np.arange(CONFIDENCE_BINS + 1) / CONFIDENCE_BINS
    return Bins("confidence", edges[:-1], edges[1:], index, "{:.1f}-{:.1f}".format)


def _whole_numbers(low: float, high: float) -> str:
    """'64-255'."""
    return f"{low:,.0f}-{high:,.0f}"


def token_rows(
    method: str,
    token_errors: np.ndarray,
    flips: np.ndarray,
    every_bins: Sequence[Bins],
    sets: Mapping[str, np.ndarray],
    counts: np.ndarray,
    confidence: float,
) -> list[list]:
    """Mean error and flip rate by set and bin, rows of `TOKEN_COLUMNS`; empty bins have none.

    Intervals are over documents, which are resampled with all of their tokens; where fewer than
    `MINIMUM_DOCUMENTS` have tokens in a bin there is none.

    Args:
        token_errors: d(t) [documents, tokens], nats.
        flips: where the most likely token changed, bool [documents, tokens].
    """
    rows = []
    for bins in every_bins:
        sizes, errors, flipped = bins.sums(), bins.sums(token_errors), bins.sums(flips)
        for name, member in sets.items():
            filled = np.flatnonzero(sizes[member].sum(axis=0))
            drawn, inside = counts[:, member], np.ix_(member, filled)
            total = drawn @ sizes[inside]
            few = (sizes[inside] > 0).sum(axis=0) < MINIMUM_DOCUMENTS
            with np.errstate(invalid="ignore"):
                error = summarise(drawn @ errors[inside] / total, confidence)
                flip = summarise(drawn @ flipped[inside] / total, confidence)
            for _, low, high in (error, flip):
                low[few] = high[few] = np.nan
            for column, place in enumerate(filled):
                low, high = bins.lowest[place], bins.highest[place]
                keys = [method, name, bins.by, bins.label(low, high), low, high, total[0, column]]
                rows.append([*keys, *(numbers[column] for numbers in (*error, *flip))])
    return rows


def token_table(rows: Sequence[Sequence]) -> pd.DataFrame:
    """Put the rows of all methods into one table: `TOKEN_COLUMNS`."""
    return pd.DataFrame(rows, columns=TOKEN_COLUMNS).astype({"n": int})
