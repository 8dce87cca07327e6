"""How good predictions for held-out documents are, with paired bootstrap intervals.

Intervals are over documents, with the fitted models as they are: what another draw of training
documents would change is not in them.
"""

from collections.abc import Sequence

import numpy as np

from lowbit.analysis.prediction.feature_sets import ERROR, FEATURE_SETS, LARGE, Predictions, Targets
from lowbit.analysis.statistics import pearson_draws, spearman_draws

METRICS = {"r2": ERROR, "spearman": ERROR, "auroc": LARGE, "average_precision": LARGE}
"""Metric -> what it is of."""


def r2_draws(
    predicted: np.ndarray, baseline: np.ndarray, error: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Share of the squared error of `baseline` that a prediction saves -> draws [1 + R, sets].

    1 - sum (e - predicted)^2 / sum (e - baseline)^2. The baseline is the mean of the training
    documents, so that a prediction from nothing has exactly 0, and a bad one less.

    Args:
        predicted: [sets, documents].
        baseline, error: [documents].
    """
    left = (error - predicted) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return 1 - (counts @ left.T) / (counts @ (error - baseline) ** 2)[:, None]


def auroc_draws(
    scores: np.ndarray, large: np.ndarray, control: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Chance that a document of D_large has the higher score than one of D_ctrl -> [1 + R, sets].

    Equal scores count half. nan where a resample has no document of one of the sets.

    Args:
        scores: [sets, documents].
        large, control: bool [documents].
    """
    a, b = counts[:, large], counts[:, control]
    pairs = a.sum(axis=1) * b.sum(axis=1)
    draws = []
    for score in scores:
        first, second = score[large][:, None], score[control][None]
        won = (first > second) + 0.5 * (first == second)
        won = np.where(np.isnan(score).any(), np.nan, won)
        draws.append(np.einsum("ri,ri->r", a @ won, b) / np.where(pairs > 0, pairs, np.nan))
    return np.stack(draws, axis=1)


def average_precision_draws(
    scores: np.ndarray, large: np.ndarray, control: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Average precision of finding D_large among D_large and D_ctrl -> draws [1 + R, sets].

    As scikit-learn defines it, documents weighted by `counts`; arguments as of `auroc_draws`.
    """
    members = large | control
    drawn, positive = counts[:, members], large[members]
    return np.stack([_precision(score[members], positive, drawn) for score in scores], axis=1)


def _precision(score: np.ndarray, positive: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Average precision of one score -> draws [1 + R]."""
    if np.isnan(score).any():
        return np.full(len(counts), np.nan)
    order = np.argsort(-score, kind="stable")
    drawn, ranked = counts[:, order], score[order]
    last_of_ties = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    found = np.cumsum(drawn * positive[order], axis=1)[:, last_of_ties]
    seen = np.cumsum(drawn, axis=1)[:, last_of_ties]
    new = np.diff(found, axis=1, prepend=0)
    with np.errstate(invalid="ignore"):
        return np.nansum(new * found / seen, axis=1) / found[:, -1]


def chance_precision(large: int, control: int) -> float:
    """Average precision that a random order of D_large and D_ctrl is expected to have.

    With P of N documents in D_large, place i holds one of them with probability P / N, and its
    precision then is (1 + (i - 1)(P - 1) / (N - 1)) / i.
    """
    size = large + control
    if size < 2:
        return np.nan
    place = np.arange(1, size + 1)
    return float(np.mean((1 + (place - 1) * (large - 1) / (size - 1)) / place))


def partial_correlation_draws(
    x: np.ndarray, y: np.ndarray, given: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Correlation of x [n] with each of y [n, b] where `given` [n] is held fixed -> [1 + R, b].

    (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2)(1 - r_yz^2)): Pearson's r of what a linear regression on
    z leaves of x and of y.
    """
    z = given[:, None]
    xy = pearson_draws(x[:, None], y, counts)[:, 0]
    xz = pearson_draws(x[:, None], z, counts)[:, 0]
    yz = pearson_draws(y, z, counts)[:, :, 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        return (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))


def metric_draws(
    metric: str,
    predictions: Predictions,
    targets: Targets,
    method: str,
    counts: np.ndarray,
    features: Sequence[str] = tuple(FEATURE_SETS),
) -> np.ndarray:
    """Draws [1 + R, feature sets] of one metric for one method; nan where not measured."""
    place = targets.methods.index(method)
    scores = np.stack([predictions.of(METRICS[metric], name)[place] for name in features])
    error, baseline = targets.error[:, place], predictions.baseline[place]
    sets = targets.large[:, place], targets.control[:, place]
    if metric == "r2":
        return r2_draws(scores + baseline, baseline, error, counts)
    if metric == "auroc":
        return auroc_draws(scores, *sets, counts)
    if metric == "average_precision":
        return average_precision_draws(scores, *sets, counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return spearman_draws(scores.T, error[:, None], counts)[:, :, 0]
