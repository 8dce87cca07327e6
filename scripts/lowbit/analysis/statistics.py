"""Correlations and means over documents, with paired bootstrap intervals.

Every statistic here is a function of one weight per document. The bootstrap draws documents with
replacement, so a resample is a row of counts [documents]; the sample itself is the row of ones.
All quantities of a table are computed from the *same* rows: intervals of different methods, pairs
and layers are paired, and a mean over dependent pairs gets its own interval from the same draws.

`draws` arrays have the sample's value at index 0 and one value per resample after it. Intervals are
percentile intervals (Efron and Tibshirani, 1993, chapter 13): they respect [-1, 1] and need no
variance formula. An undefined resample (one document drawn n times has no variance) is nan and is
left out of the interval.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.stats import hypergeom

from lowbit.errors import InputError

MINIMUM_DOCUMENTS = 5
"""Fewer documents than this give no correlation worth an interval."""

NO_VARIATION = 1e-12
"""Variance, relative to the sample's, under which a resample counts as constant."""

CHUNK_ELEMENTS = 4_000_000
"""Largest temporary array of the rank statistics, in numbers (32 MB)."""


@dataclass(frozen=True)
class BootstrapSettings:
    """Number of resamples and the interval's coverage, as in the config's `bootstrap`."""

    resamples: int = 2000
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise InputError(f"bootstrap.resamples is {self.resamples}: write 1 or more")
        if not 0 < self.confidence < 1:
            raise InputError(
                f"bootstrap.confidence is {self.confidence}: write a number between 0 and 1, "
                "for example 0.95"
            )


class Estimate(NamedTuple):
    """A value and its bootstrap interval."""

    value: float
    low: float
    high: float


def require_documents(n: int) -> None:
    """Raise `InputError` if there are too few documents for any statistic of this module."""
    if n < MINIMUM_DOCUMENTS:
        raise InputError(
            f"{n} documents are too few for correlations: raise documents.n to "
            f"{MINIMUM_DOCUMENTS} or more (250 or more give usable intervals)"
        )


def require_variation(values: np.ndarray, names: Sequence[str], what: str) -> None:
    """Raise `InputError` if a column of `values` [documents, names] is the same for all documents.

    A correlation with a constant is undefined; a constant error means that the method changed
    nothing (or the same for every text), which the user should look at first.
    """
    for column, name in zip(values.T, names, strict=True):
        if np.ptp(column) == 0:
            raise InputError(
                f"{what} of '{name}' is {column[0]:g} for all {len(column)} documents, so nothing "
                f"correlates with it: does methods.{name} quantize anything?"
            )


def resample_counts(n: int, settings: BootstrapSettings, seed: int) -> np.ndarray:
    """Count how often each resample holds each document; float64 [1 + resamples, n].

    Row 0 is the sample itself. The draws equal those of `scipy.stats.bootstrap` for the same
    generator.
    """
    rng = np.random.default_rng(seed)
    counts = np.ones((1 + settings.resamples, n))
    for row in counts[1:]:
        row[:] = np.bincount(rng.integers(0, n, n), minlength=n)
    return counts


def pearson_draws(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pearson's r of each column of x [n, a] with each of y [n, b] -> draws [1 + R, a, b]."""
    x, y = _standardise(x), _standardise(y)
    weights = counts / counts.sum(axis=1, keepdims=True)
    products = (x[:, :, None] * y[:, None, :]).reshape(len(x), -1)
    mean_x, mean_y = weights @ x, weights @ y
    covariance = (weights @ products).reshape(len(weights), x.shape[1], y.shape[1])
    covariance -= mean_x[:, :, None] * mean_y[:, None, :]
    variance_x = weights @ x**2 - mean_x**2
    variance_y = weights @ y**2 - mean_y**2
    return _correlation(covariance, variance_x, variance_y)


def spearman_draws(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Spearman's rho of each column of x [n, a] with each of y [n, b] -> draws [1 + R, a, b].

    Each resample is ranked anew, with its ties (a document drawn twice ties with itself).
    """
    step = max(1, CHUNK_ELEMENTS // (len(x) * (x.shape[1] + y.shape[1])))
    chunks = [counts[start : start + step] for start in range(0, len(counts), step)]
    return np.concatenate([_spearman_chunk(x, y, chunk) for chunk in chunks])


def mean_draws(values: np.ndarray, member: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean of values [n, k] over the documents where `member` [n] is true -> draws [1 + R, k].

    Membership stays with the document, so the set's size varies between resamples.
    """
    inside = counts[:, member]
    with np.errstate(invalid="ignore"):
        return (inside @ values[member]) / inside.sum(axis=1, keepdims=True)


def top_counts(values: np.ndarray, size: int, counts: np.ndarray) -> np.ndarray:
    """How often each document is among the `size` largest of values [n], chosen anew -> [1 + R, n].

    Where the last of them was drawn more often than there is room, part of its copies count.
    """
    order = np.argsort(-values, kind="stable")
    drawn = counts[:, order]
    before = np.cumsum(drawn, axis=1) - drawn
    chosen = np.empty_like(drawn)
    chosen[:, order] = np.clip(size - before, 0, drawn)
    return chosen


def jaccard_draws(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Jaccard index of two multisets of documents, counts [1 + R, n] each -> draws [1 + R]."""
    return np.minimum(a, b).sum(axis=1) / np.maximum(a, b).sum(axis=1)


def summarise(draws: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (value, low, high) of draws [1 + R, ...], each of shape [...]."""
    tails = [(1 - confidence) / 2, (1 + confidence) / 2]
    quantile = np.nanquantile if np.isnan(draws[1:]).any() else np.quantile
    low, high = quantile(draws[1:], tails, axis=0)
    return draws[0], low, high


def summarise_set(
    draws: np.ndarray, confidence: float, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of a set of `n` documents: without interval (nan) below `MINIMUM_DOCUMENTS`.

    That of one document would have no width.
    """
    if n >= MINIMUM_DOCUMENTS:
        return summarise(draws, confidence)
    nothing = np.full(draws.shape[1:], np.nan)[()]  # of one number a number
    return draws[0], nothing, nothing


def estimate(draws: np.ndarray, confidence: float) -> Estimate:
    """Return the estimate of one statistic from its draws [1 + R]."""
    return Estimate(*(float(number) for number in summarise(draws, confidence)))


def expected_jaccard(n_a: int, n_b: int, n: int) -> float:
    """Expected Jaccard index of two independent random sets of n_a and n_b out of n documents."""
    overlap = np.arange(max(0, n_a + n_b - n), min(n_a, n_b) + 1)
    chance = hypergeom.pmf(overlap, n, n_a, n_b)
    return float(np.sum(chance * overlap / (n_a + n_b - overlap)))


def _standardise(values: np.ndarray) -> np.ndarray:
    """Centre and scale columns: sums of squares of large, nearly equal numbers would cancel."""
    return (values - values.mean(axis=0)) / values.std(axis=0)


def _correlation(
    covariance: np.ndarray, variance_x: np.ndarray, variance_y: np.ndarray
) -> np.ndarray:
    """Divide covariances [R, a, b] by the standard deviations; nan where one is constant."""
    variance_x = np.where(variance_x > NO_VARIATION, variance_x, np.nan)
    variance_y = np.where(variance_y > NO_VARIATION, variance_y, np.nan)
    return covariance / np.sqrt(variance_x[:, :, None] * variance_y[:, None, :])


def _spearman_chunk(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Spearman draws [r, a, b] of some rows of counts [r, n]."""
    ranks_x = np.stack([_ranks(column, counts) for column in x.T], axis=1)  # [r, a, n]
    ranks_y = np.stack([_ranks(column, counts) for column in y.T], axis=1)
    weights = (counts / counts.sum(axis=1, keepdims=True))[:, None, :]
    variance_x = (weights * ranks_x**2).sum(axis=2)
    variance_y = (weights * ranks_y**2).sum(axis=2)
    covariance = (weights * ranks_x) @ ranks_y.transpose(0, 2, 1)
    return _correlation(covariance, variance_x, variance_y)


def _ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Centred mid-ranks of values [n] in resamples counts [r, n], scaled by n -> [r, n].

    A group of c equal values after m smaller ones has mid-rank m + (c + 1) / 2.
    """
    _, inverse = np.unique(values, return_inverse=True)
    order = np.argsort(inverse, kind="stable")
    starts = np.flatnonzero(np.diff(inverse[order], prepend=-1))
    group = np.add.reduceat(counts[:, order], starts, axis=1)
    midrank = np.cumsum(group, axis=1) - (group - 1) / 2
    total = counts.sum(axis=1, keepdims=True)
    return ((midrank - (total + 1) / 2) / total)[:, inverse]
