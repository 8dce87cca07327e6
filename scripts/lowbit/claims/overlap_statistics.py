"""Statistics of claims about how far D_large is the same in different models.

Versions of one model are no different models: checkpoints of one training, a model and what was
fine-tuned from it. Pairs of these are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from lowbit.analysis.statistics import estimate, expected_jaccard, jaccard_draws
from lowbit.analysis.studied_models import StudiedModel
from lowbit.claims.results import Measurement, ModelResults, NotMeasured, StudyResults
from lowbit.names import LARGE


def overlap_between_models(results: StudyResults, options: dict) -> Measurement:
    """Mean Jaccard index of D_large of two models under one method, over pairs and methods."""
    overlaps = _overlaps(results)
    return _mean(results, overlaps, overlaps.jaccard)


def overlap_between_models_above_chance(results: StudyResults, options: dict) -> Measurement:
    """The same less its expectation for random sets of these sizes."""
    overlaps = _overlaps(results)
    detail = f"Jaccard {overlaps.jaccard[0].mean():.2f}, chance {overlaps.chance.mean():.2f}"
    return _mean(results, overlaps, overlaps.jaccard - overlaps.chance, detail)


@dataclass(frozen=True)
class Overlaps:
    """How far D_large is the same, for pairs of models and methods."""

    pairs: list[str]
    """Names of both models."""
    left_out: int
    """Pairs of versions of one model."""
    jaccard: np.ndarray
    """Draws [1 + R, pairs, methods]; all models share the resamples of documents."""
    chance: np.ndarray
    """Expected for random sets as large, [pairs, methods]."""
    n: int
    """Documents of the smallest D_large."""


def _overlaps(results: StudyResults) -> Overlaps:
    """Measure every pair of different models under every method."""
    pairs = list(combinations(results.models, 2))
    training = {model.name: _training(model, results.models) for model in results.models}
    different = [pair for pair in pairs if len({training[model.name] for model in pair}) == 2]
    if not different:
        raise NotMeasured("this study has no two different models to compare")
    tables = {model.name: results.of_model(model.name) for model in results.models}
    first = next(iter(tables.values()))
    if any(not np.array_equal(first.doc_ids, table.doc_ids) for table in tables.values()):
        raise NotMeasured("the models were not scored on the same documents")
    by_method = [_of_method(tables, different, name) for name in results.methods]
    return Overlaps(
        [f"{one.name} with {other.name}" for one, other in different],
        len(pairs) - len(different),
        np.stack([jaccard for jaccard, _ in by_method], axis=2),
        np.stack([chance for _, chance in by_method], axis=1),
        min(table.smallest(results.methods, LARGE) for table in tables.values()),
    )


def _training(model: StudiedModel, models: Sequence[StudiedModel]) -> tuple:
    """What versions of one model have in common: the training of what all were tuned from."""
    by_name = {each.name: each for each in models}
    seen = [model]
    while (base := by_name.get(seen[-1].base)) and base not in seen:
        seen.append(base)
    root = seen[-1]
    if root.step is not None:
        return root.family, root.parameters
    return (root.base or root.name,)


def _of_method(
    tables: Mapping[str, ModelResults],
    pairs: Sequence[tuple[StudiedModel, StudiedModel]],
    name: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Jaccard draws [1 + R, pairs] under one method, and what chance would give [pairs]."""
    counts = {model: table.large_counts(name) for model, table in tables.items()}
    sizes = {model: int(table.member(name, LARGE).sum()) for model, table in tables.items()}
    n = len(next(iter(tables.values())).doc_ids)
    draws = [jaccard_draws(counts[one.name], counts[other.name]) for one, other in pairs]
    chance = [expected_jaccard(sizes[one.name], sizes[other.name], n) for one, other in pairs]
    return np.stack(draws, axis=1), np.array(chance)


def _mean(
    results: StudyResults, overlaps: Overlaps, draws: np.ndarray, detail: str = ""
) -> Measurement:
    """Summarise draws [1 + R, pairs, methods] by their mean, and say how far pairs are apart."""
    methods = len(results.methods)
    said = [detail, f"pairs of models: {len(overlaps.pairs)}, methods: {methods}"]
    if len(overlaps.pairs) > 1:
        by_pair = draws[0].mean(axis=1)
        least, most = int(by_pair.argmin()), int(by_pair.argmax())
        said.append(
            f"from {by_pair[least]:.2f} ({overlaps.pairs[least]}) to {by_pair[most]:.2f} "
            f"({overlaps.pairs[most]})"
        )
    if overlaps.left_out:
        said.append(f"pairs of versions of one model, left out: {overlaps.left_out}")
    interval = estimate(draws.mean(axis=(1, 2)), results.settings.confidence)
    told = "; ".join(part for part in said if part)
    return Measurement(*interval, overlaps.n, tuple(results.methods), told)
