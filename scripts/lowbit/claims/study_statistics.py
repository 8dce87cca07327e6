"""Statistics of claims that compare the models of a study: families, sizes, training, fine-tuning.

All here are of the relative rise of the log perplexity under a condition of robustness.csv (the
option `condition`), on resamples of documents, and of draws of the noise, that the models share.
The models themselves are taken as they are: an interval tells nothing of what others would have
given.
"""

from collections.abc import Sequence

import numpy as np

from lowbit.analysis.perturbation.robustness import (
    NOISES,
    common_seeds,
    condition_errors,
    paired_draws,
    relative_draws,
)
from lowbit.analysis.studied_models import StudiedModel
from lowbit.claims.overlap_statistics import (
    overlap_between_models,
    overlap_between_models_above_chance,
)
from lowbit.claims.perturbation_statistics import MINIMUM_SEEDS
from lowbit.claims.results import (
    Measurement,
    NotMeasured,
    StudyResults,
    StudyStatistic,
    weakest,
)

MINIMUM_SIZES = 4
"""Of one family; fewer say nothing about families or sizes."""
MINIMUM_STEPS = 4
"""Checkpoints of one training; fewer say nothing about its course."""


def family_order(results: StudyResults, options: dict) -> Measurement:
    """Smallest step of the rise along `families`, the most robust first, at one size.

    Families have different sizes, and size matters: each is fitted by a straight line over the
    logarithm of the number of parameters, and compared in the middle of the sizes that all span.
    """
    known = _sizes(results)
    families = {name: known.get(name, []) for name in options["families"]}
    if any(len(models) < MINIMUM_SIZES for models in families.values()):
        raise NotMeasured(_too_few_sizes(f"each of {', '.join(families)}", families))
    first = max(models[0].parameters for models in families.values())
    last = min(models[-1].parameters for models in families.values())
    if first > last:
        raise NotMeasured(f"no size is spanned by all of {_named(families)}")
    middle = (np.log10(first) + np.log10(last)) / 2
    everyone = [model for models in families.values() for model in models]
    draws, n = _rises(results, everyone, options["condition"])
    columns = [[model.family == name for model in everyone] for name in families]
    fitted = np.stack(
        [
            _line(_log_sizes(models), draws[:, mine], middle)[1]
            for models, mine in zip(families.values(), columns, strict=True)
        ],
        axis=1,
    )
    steps = np.diff(fitted, axis=1)
    values = ", ".join(f"{name} {rise:.2g}" for name, rise in zip(families, fitted[0], strict=True))
    detail = f"at {10**middle / 1e9:.2g} billion parameters {values}; {_named(families)}"
    return results.measure(steps[:, weakest(steps, results.settings.confidence)], detail, n)


def size_slope(results: StudyResults, options: dict) -> Measurement:
    """Slope of the rise against log10 of the parameters, in the family that speaks most against it.

    Less that under the condition `against`, where there is one. The option `expect` says on which
    side of 0 it is stated to be.
    """
    families = {
        name: models for name, models in _sizes(results).items() if len(models) >= MINIMUM_SIZES
    }
    if not families:
        raise NotMeasured(_too_few_sizes("one family", _sizes(results)))
    against = options.get("against")
    slopes, n = [], []
    for models in families.values():
        draws, size = _rises(results, models, options["condition"])
        if against:
            draws = draws - _rises(results, models, against)[0]
        slopes.append(_line(_log_sizes(models), draws)[0])
        n.append(size)
    return _of_groups(results, slopes, list(families), options["expect"], _named(families), min(n))


def training_slope(results: StudyResults, options: dict) -> Measurement:
    """Slope of the rise against log10 of the training step, over checkpoints of one training.

    Models of one family and size are of one training; of several, the one that speaks most against
    `expect`. Step 0 has no logarithm and is left out.
    """
    trainings: dict[str, list[StudiedModel]] = {}
    for model in sorted(results.models, key=lambda each: each.step or 0):
        if model.step:
            name = f"{model.family} of {model.parameters / 1e6:.3g} million parameters"
            trainings.setdefault(name, []).append(model)
    chosen = {name: models for name, models in trainings.items() if len(models) >= MINIMUM_STEPS}
    if not chosen:
        raise NotMeasured(
            f"needs {MINIMUM_STEPS} checkpoints of one training after its start: models with "
            "models.<name>.step"
        )
    slopes, n = [], []
    for models in chosen.values():
        draws, size = _rises(results, models, options["condition"])
        slopes.append(_line(np.log10([model.step for model in models]), draws)[0])
        n.append(size)
    steps = "; ".join(
        f"{name}: steps {', '.join(str(model.step) for model in models)}"
        for name, models in chosen.items()
    )
    return _of_groups(results, slopes, list(chosen), options["expect"], steps, min(n))


def fine_tuning_gap(results: StudyResults, options: dict) -> Measurement:
    """The rise of fine-tuned models less that of their bases, mean over pairs."""
    by_name = {model.name: model for model in results.models}
    tuned = [model for model in results.models if model.base]
    if not tuned:
        raise NotMeasured("no model of this study has a models.<name>.base")
    bases = [by_name[model.base] for model in tuned]
    draws, n = _rises(results, [*tuned, *bases], options["condition"])
    gaps = draws[:, : len(tuned)] - draws[:, len(tuned) :]
    pairs = ", ".join(
        f"{model.name} less {model.base} {gap:.2g}"
        for model, gap in zip(tuned, gaps[0], strict=True)
    )
    return results.measure(gaps.mean(axis=1), pairs, n)


STUDY_STATISTICS: dict[str, StudyStatistic] = {
    statistic.__name__: statistic
    for statistic in (
        family_order,
        size_slope,
        training_slope,
        fine_tuning_gap,
        overlap_between_models,
        overlap_between_models_above_chance,
    )
}
"""Every statistic that a claim of scope `study` may name."""


def _sizes(results: StudyResults) -> dict[str, list[StudiedModel]]:
    """By family one model of each size, small to large: of several, that of the latest step."""
    by_size: dict[tuple[str, int], StudiedModel] = {}
    for model in results.models:
        known = by_size.setdefault((model.family, model.parameters), model)
        if known.step is not None and (model.step is None or model.step > known.step):
            by_size[model.family, model.parameters] = model
    families: dict[str, list[StudiedModel]] = {}
    for model in by_size.values():
        families.setdefault(model.family, []).append(model)
    return {
        name: sorted(models, key=lambda model: model.parameters)
        for name, models in families.items()
    }


def _too_few_sizes(which: str, families: dict[str, list[StudiedModel]]) -> str:
    """Say what is needed and what is there."""
    counts = ", ".join(f"{len(models)} of {name}" for name, models in families.items())
    return f"needs {MINIMUM_SIZES} sizes of {which}; this study has {counts}"


def _rises(
    results: StudyResults, models: Sequence[StudiedModel], condition: str
) -> tuple[np.ndarray, int]:
    """Relative rise of the log perplexity -> draws [1 + R, models], and the fewest documents."""
    found = []
    for model in models:
        errors = condition_errors(results.of_model(model.name).tables, condition)
        if errors is None:
            raise NotMeasured(f"{model.name} was not measured under {condition}")
        found.append(errors)
    seeds = len(common_seeds(found))
    if condition in NOISES and seeds < MINIMUM_SEEDS:
        raise NotMeasured(f"{seeds} seeds are too few: write perturbation.seeds: {MINIMUM_SEEDS}")
    sums = paired_draws(found, results.settings, results.seed)
    return relative_draws(sums), int(sums[0, :, 2].min())


def _line(places: np.ndarray, draws: np.ndarray, at: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Slope, and value at `at`, of the least-squares line through draws [1 + R, k] over places [k].

    Both are draws [1 + R].
    """
    centred = places - places.mean()
    slope = draws @ centred / (centred @ centred)
    return slope, draws.mean(axis=1) + slope * (at - places.mean())


def _log_sizes(models: Sequence[StudiedModel]) -> np.ndarray:
    """log10 of the number of parameters."""
    return np.log10([model.parameters for model in models])


def _of_groups(
    results: StudyResults,
    slopes: Sequence[np.ndarray],
    names: Sequence[str],
    expect: str,
    detail: str,
    n: int,
) -> Measurement:
    """The weakest of several slopes, each of draws [1 + R]."""
    draws = np.stack(slopes, axis=1)
    place = weakest(draws, results.settings.confidence, expect)
    listed = ", ".join(f"{name} {slope:.2g}" for name, slope in zip(names, draws[0], strict=True))
    return results.measure(draws[:, place], f"{listed}; {detail}", n)


def _named(families: dict[str, list[StudiedModel]]) -> str:
    """'opt 0.13 to 13 billion (6)'."""
    return ", ".join(
        f"{name} {models[0].parameters / 1e9:.2g} to {models[-1].parameters / 1e9:.2g} billion "
        f"({len(models)})"
        for name, models in families.items()
    )
