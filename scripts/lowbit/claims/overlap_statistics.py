"""Statistics of claims about how far D_large is the same in different models."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from lowbit.analysis.statistics import estimate, expected_jaccard, jaccard_draws
from lowbit.claims.results import Measurement, ModelResults, NotMeasured, StudyResults


def overlap_between_models(results: StudyResults, options: dict) -> Measurement:
    """Mean Jaccard index of D_large of two models under one method, over pairs and methods."""
    sides = _sides(results)
    return _measure(results, sides, np.mean([_jaccard(*side) for side in sides], axis=0))


def overlap_between_models_above_chance(results: StudyResults, options: dict) -> Measurement:
    """The same less its expectation for random sets of these sizes."""
    sides = _sides(results)
    draws = np.mean([_jaccard(*side) for side in sides], axis=0)
    chance = float(np.mean([_chance(*side) for side in sides]))
    detail = f"Jaccard {draws[0]:.2f}, chance {chance:.2f}"
    return _measure(results, sides, draws - chance, detail)


Side = tuple[ModelResults, ModelResults, str]
"""Two models and a method."""


def _sides(results: StudyResults) -> list[Side]:
    """Every pair of models under every method."""
    if len(results.models) < 2:
        raise NotMeasured("this study has one model: two or more are compared")
    if not results.methods:
        raise NotMeasured("no method of so few bits in this study")
    tables = [results.of_model(model.name) for model in results.models]
    if any(not np.array_equal(tables[0].doc_ids, table.doc_ids) for table in tables):
        raise NotMeasured("the models were not scored on the same documents")
    return [(*pair, name) for pair in combinations(tables, 2) for name in results.methods]


def _jaccard(one: ModelResults, other: ModelResults, method: str) -> np.ndarray:
    """Draws [1 + R]; both models share their resamples of documents."""
    return jaccard_draws(one.large_counts(method), other.large_counts(method))


def _chance(one: ModelResults, other: ModelResults, method: str) -> float:
    """Expected Jaccard index of random sets as large as both D_large."""
    sizes = [int(each.member(method, "large").sum()) for each in (one, other)]
    return expected_jaccard(*sizes, len(one.doc_ids))


def _measure(
    results: StudyResults, sides: Sequence[Side], draws: np.ndarray, detail: str = ""
) -> Measurement:
    """Summarise draws [1 + R]; `n` counts the documents of the smallest D_large."""
    n = min(table.smallest([name], "large") for *pair, name in sides for table in pair)
    counted = f"{len(results.models)} models, {len(results.methods)} methods"
    said = "; ".join(part for part in (detail, counted) if part)
    interval = estimate(draws, results.settings.confidence)
    return Measurement(*interval, n, tuple(results.methods), said)
