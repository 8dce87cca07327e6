"""Tables of the predictions: by feature set, what the norm adds, transfer, partial correlation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from lowbit.analysis.prediction.feature_sets import (
    ADDED,
    BASELINE,
    ERROR,
    EVERYTHING,
    FEATURE_SETS,
    LARGE,
    Predictions,
    Targets,
)
from lowbit.analysis.prediction.metrics import (
    METRICS,
    auroc_draws,
    chance_precision,
    metric_draws,
    partial_correlation_draws,
)
from lowbit.analysis.statistics import (
    Estimate,
    estimate,
    pearson_draws,
    require_documents,
    spearman_draws,
)
from lowbit.analysis.tables import MEAN_OF_METHODS

NOT_MEASURED = "not measured: "
"""Before the reason in a note."""
ADDS, NOTHING, LOWERS = "adds", "adds nothing measurable", "lowers"
CHANCE = {"r2": 0.0, "spearman": 0.0, "auroc": 0.5}
"""What a useless predictor has; of average precision it depends on the sets."""
TRANSFER_METRICS = {"spearman": ERROR, "auroc": LARGE}
"""Metrics that do not depend on the scale of the errors, which differs between methods."""

PREDICTION_COLUMNS = [
    "method",
    "target",
    "features",
    "metric",
    "value",
    "low",
    "high",
    "chance",
    "n",
    "note",
]
ADDED_COLUMNS = [
    "method",
    "metric",
    "added",
    "without",
    "with",
    "difference",
    "low",
    "high",
    "verdict",
    "n",
    "note",
]
TRANSFER_COLUMNS = ["fitted_on", "tested_on", "metric", "value", "low", "high", "n", "note"]
PARTIAL_COLUMNS = ["method", "quantity", "pearson", "partial", "low", "high", "n"]


@dataclass(frozen=True)
class Evaluation:
    """Predictions beside what they are of, and the resamples of documents."""

    predictions: Predictions
    targets: Targets
    counts: np.ndarray
    confidence: float

    @cached_property
    def draws(self) -> Mapping[str, Mapping[str, np.ndarray]]:
        """Metric -> method -> draws [1 + R, feature sets]; the mean of the measured ones last."""
        found = {}
        for metric in METRICS:
            by_method = {
                method: metric_draws(metric, self.predictions, self.targets, method, self.counts)
                for method in self.targets.methods
            }
            found[metric] = by_method | {
                MEAN_OF_METHODS: _mean_of_measured(list(by_method.values()))
            }
        return found

    def estimate(self, draws: np.ndarray) -> Estimate:
        """Value and interval of draws [1 + R]; all nan where not measured."""
        if np.isnan(draws[0]):
            return Estimate(np.nan, np.nan, np.nan)
        return estimate(draws, self.confidence)

    def size(self, method: str, target: str) -> int:
        """Documents that a value is of; of the mean, those of the smallest."""
        if method == MEAN_OF_METHODS:
            return min(self.size(name, target) for name in self.targets.methods)
        place = self.targets.methods.index(method)
        both = self.targets.large[:, place] | self.targets.control[:, place]
        return int(both.sum()) if target == LARGE else len(both)

    def chance(self, method: str, metric: str) -> float:
        """What a useless predictor is expected to have."""
        if metric in CHANCE:
            return CHANCE[metric]
        if method == MEAN_OF_METHODS:
            return float(np.mean([self.chance(name, metric) for name in self.targets.methods]))
        place = self.targets.methods.index(method)
        sets = self.targets.large[:, place], self.targets.control[:, place]
        return chance_precision(*(int(member.sum()) for member in sets))

    def note(self, method: str, target: str, features: str) -> str:
        """Why there is no value; of the mean, how many methods have one."""
        notes = self.predictions.notes
        if method == MEAN_OF_METHODS:
            missing = sum((target, name, features) in notes for name in self.targets.methods)
            count = len(self.targets.methods)
            return f"{count - missing} of {count} methods" if missing else ""
        reason = notes.get((target, method, features), "")
        return NOT_MEASURED + reason if reason else ""


def _mean_of_measured(draws: Sequence[np.ndarray]) -> np.ndarray:
    """Mean over methods of draws [1 + R, columns]; a method without a value is left out."""
    stacked = np.stack(draws)
    measured = ~np.isnan(stacked[:, :1])
    with np.errstate(invalid="ignore"):
        total = np.where(measured, stacked, 0).sum(axis=0)
        return total / np.where(measured.any(axis=0), measured.sum(axis=0), np.nan)


def prediction_table(evaluation: Evaluation) -> pd.DataFrame:
    """One row per method (and the mean), metric and feature set: `PREDICTION_COLUMNS`."""
    rows = []
    for metric, target in METRICS.items():
        for method, draws in evaluation.draws[metric].items():
            chance = evaluation.chance(method, metric)
            size = evaluation.size(method, target)
            for place, features in enumerate(FEATURE_SETS):
                numbers = evaluation.estimate(draws[:, place])
                note = evaluation.note(method, target, features)
                row = [method, target, features, metric, *numbers, chance, size, note]
                rows.append(row)
    return pd.DataFrame(rows, columns=PREDICTION_COLUMNS)


def added_table(evaluation: Evaluation) -> pd.DataFrame:
    """What norms add to NLL, entropy and text: `ADDED_COLUMNS`, a paired difference per row."""
    rows = []
    places = list(FEATURE_SETS)
    for metric, target in METRICS.items():
        for method, draws in evaluation.draws[metric].items():
            without = draws[:, places.index(BASELINE)]
            for added, features in ADDED.items():
                both = draws[:, places.index(features)]
                difference = evaluation.estimate(both - without)
                size = evaluation.size(method, target)
                note = evaluation.note(method, target, features)
                keys = [method, metric, added, without[0], both[0]]
                rows.append([*keys, *difference, verdict(*difference), size, note])
    return pd.DataFrame(rows, columns=ADDED_COLUMNS)


def verdict(difference: float, low: float, high: float) -> str:
    """Say whether something was added, by where the interval of the difference lies."""
    if np.isnan([difference, low, high]).any():
        return ""
    if low > 0:
        return ADDS
    return LOWERS if high < 0 else NOTHING


def transfer_table(evaluation: Evaluation) -> pd.DataFrame:
    """How well a fit to one method's errors predicts another's: `TRANSFER_COLUMNS`.

    From all features. The predictions are those for held-out documents, so no document that tests
    was trained on, under no method; the diagonal is the method's own prediction.
    """
    predictions, targets, counts = evaluation.predictions, evaluation.targets, evaluation.counts
    with np.errstate(invalid="ignore", divide="ignore"):
        spearman = spearman_draws(predictions.of(ERROR, EVERYTHING).T, targets.error, counts)
    scores = predictions.of(LARGE, EVERYTHING)
    sets = zip(targets.large.T, targets.control.T, strict=True)
    auroc = np.stack([auroc_draws(scores, *chosen, counts) for chosen in sets], axis=2)
    rows = []
    for metric, draws in (("spearman", spearman), ("auroc", auroc)):
        target = TRANSFER_METRICS[metric]
        for i, fitted_on in enumerate(targets.methods):
            for j, tested_on in enumerate(targets.methods):
                notes = [
                    evaluation.note(name, target, EVERYTHING) for name in (fitted_on, tested_on)
                ]
                note = next((text for text in notes if text), "")
                values = np.full(len(counts), np.nan) if note else draws[:, i, j]
                numbers = evaluation.estimate(values)
                size = evaluation.size(tested_on, target)
                rows.append([fitted_on, tested_on, metric, *numbers, size, note])
    return pd.DataFrame(rows, columns=TRANSFER_COLUMNS)


def partial_table(
    norm: np.ndarray, quantity: str, nll: np.ndarray, evaluation: Evaluation
) -> pd.DataFrame:
    """Correlation of the last layer's norm with e(x), NLL held fixed: `PARTIAL_COLUMNS`.

    Args:
        norm: mean norm of `quantity` in the last layer [documents].
        nll: full-precision NLL [documents].
    """
    errors, counts = evaluation.targets.error, evaluation.counts
    require_documents(len(errors))
    with np.errstate(invalid="ignore", divide="ignore"):  # a constant error has no correlation
        plain = _with_mean(pearson_draws(norm[:, None], errors, counts[:1])[:, 0])[0]
        draws = _with_mean(partial_correlation_draws(norm, errors, nll, counts))
    names = [*evaluation.targets.methods, MEAN_OF_METHODS]
    rows = [
        [name, quantity, r, *evaluation.estimate(column), len(errors)]
        for name, r, column in zip(names, plain, draws.T, strict=True)
    ]
    return pd.DataFrame(rows, columns=PARTIAL_COLUMNS)


def _with_mean(draws: np.ndarray) -> np.ndarray:
    """Draws [R, methods] with the mean of the measured methods as one more column."""
    return np.column_stack([draws, _mean_of_measured(list(draws.T[..., None]))])
