"""Statistics of the claims about predicting errors of held-out documents."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from lowbit.analysis.prediction.feature_sets import (
    BASELINE,
    ERROR,
    Predictions,
    Targets,
    make_targets,
    predictions_from_table,
)
from lowbit.analysis.prediction.metrics import METRICS, metric_draws
from lowbit.claims.results import Measurement, ModelResults, NotMeasured

TABLE = "predictions"
"""Name of the stage's table: predictions.parquet."""


def held_out_metric(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean over methods of `metric` on held-out documents, predicted from `features`."""
    return _over_methods(results, names, options["metric"], [options["features"]])


def held_out_gain(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """`metric` with `features` less `metric` with NLL, entropy and text alone, mean of methods."""
    return _over_methods(results, names, options["metric"], [BASELINE, options["features"]])


def _over_methods(
    results: ModelResults, names: Sequence[str], metric: str, features: Sequence[str]
) -> Measurement:
    """Mean over the measured methods of the last feature set's metric, less the first's if two."""
    predictions = predictions_from_table(results.table(TABLE))
    targets = make_targets(results.errors, results.sets)
    measured = _measured(predictions, names, METRICS[metric], features)
    draw = partial(metric_draws, metric, predictions, targets, counts=results.counts)
    draws = np.mean([draw(name, features=features) for name in measured], axis=0)
    single = len(features) == 1
    value = draws[:, 0] if single else draws[:, -1] - draws[:, 0]
    detail = "" if single else f"from {draws[0, 0]:.2f} to {draws[0, -1]:.2f}"
    size = _size(targets, measured, METRICS[metric])
    return results.measure(value, measured, detail, size)


def _measured(
    predictions: Predictions, names: Sequence[str], target: str, features: Sequence[str]
) -> list[str]:
    """Methods with a prediction from every feature set; `NotMeasured` if there is none."""
    reasons = {
        name: next(
            (
                predictions.notes[target, name, each]
                for each in features
                if (target, name, each) in predictions.notes
            ),
            "",
        )
        for name in names
    }
    found = [name for name, reason in reasons.items() if not reason]
    if not found:
        raise NotMeasured(next(iter(reasons.values())))
    return found


def _size(targets: Targets, names: Sequence[str], target: str) -> int | None:
    """Documents of the smallest pair of sets; None, which is all, for errors."""
    if target == ERROR:
        return None
    places = [list(targets.methods).index(name) for name in names]
    return int((targets.large | targets.control)[:, places].sum(axis=0).min())
