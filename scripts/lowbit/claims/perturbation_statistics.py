"""Statistics of the claims about perturbation (arXiv 2403.06408), in the concretization of ours.

Errors are means over documents and over seeds, three at least, in nats per token. Intervals are
over both: documents that were perturbed, and draws of the noise, are resampled together. (Three
draws are few: about as often as an interval is left out, a resample has one of them only.) Noise is
Gaussian, independent of |x| and of the norm of the reference's error in each tensor, unless an
option says otherwise. The option `target` is `weights`, `activations` or `both`. Where a statement
is about several steps (an order of three, every intensity), the step whose interval reaches
furthest against it is judged: it holds only if it holds there.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np
import pandas as pd

from lowbit.analysis.error_magnitude import RESOLVED
from lowbit.analysis.perturbation.robustness import SIMULATION
from lowbit.analysis.statistics import MINIMUM_DOCUMENTS, mean_draws, resample_counts, summarise
from lowbit.analysis.tables import matching
from lowbit.claims.results import Measurement, ModelResults, NotMeasured, weakest
from lowbit.experiments.perturbation_conditions import (
    ACTIVATIONS,
    CLIP,
    GAUSSIAN,
    INDEPENDENT,
    NOISE,
    OTHER_DISTRIBUTIONS,
    TENSOR,
    WEIGHTS,
    plain_noise,
)
from lowbit.experiments.simulation_settings import NONE, UNIFORM, UNIFORMS

EFFECTS, MAGNITUDES = "perturbation", "error_magnitude"
"""Names of the tables with sizes of noise and with slopes."""
MINIMUM_SEEDS = 3
"""Noise of fewer draws is not judged."""
MINIMUM_INTENSITIES = 3
MINIMUM_MODULES = 5
"""Fewer give no interval over modules."""
M_PLUS, M_MINUS = "M+", "M-"


def distribution_spread(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Difference of mean error between two distributions, over the mean of all three.

    Of the two, and in the direction, whose interval reaches furthest from 0: an interval below a
    bound says that all are within plus and minus the bound.
    """
    draws, detail = _distributions(results, options["target"])
    differences = _differences(draws) / draws.mean(axis=1, keepdims=True)
    furthest = weakest(differences, results.settings.confidence, "below")
    return _measured(results, differences[:, furthest], detail)


def distribution_beside_relation(
    results: ModelResults, names: Sequence[str], options: dict
) -> Measurement:
    """The same difference, as it is, less that of M- from M+ noise."""
    target = options["target"]
    draws, detail = _distributions(results, target)
    plus, minus = (plain_noise(target, relation=relation) for relation in (M_PLUS, M_MINUS))
    of_relation = np.diff(_draws(results, plus, minus), axis=1)
    differences = _differences(draws) - of_relation
    furthest = weakest(differences, results.settings.confidence, "below")
    detail = f"{detail}; M- less M+ {of_relation[0, 0]:.2g}"
    return _measured(results, differences[:, furthest], detail)


def relation_gap(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean error under M- noise less that under M+ noise of the same norm."""
    draws, detail = _relations(results, options)
    return _measured(results, draws[:, 2] - draws[:, 0], detail)


def relation_order(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Smallest step of the mean error from M+ over independent to M- noise of the same norm."""
    draws, detail = _relations(results, options)
    steps = np.diff(draws, axis=1)
    least = weakest(steps, results.settings.confidence)
    return _measured(results, steps[:, least], detail)


def intensity_step(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Smallest rise of the mean error from one intensity of the noise to the next."""
    intensities = _intensities(results, options["target"])
    if len(intensities) < MINIMUM_INTENSITIES:
        raise NotMeasured(
            f"{len(intensities)} intensities are too few for a rise: write {MINIMUM_INTENSITIES} "
            "or more under perturbation.intensities"
        )
    kinds = [plain_noise(options["target"], intensity=each) for each in intensities]
    draws = _draws(results, *kinds)
    steps = np.diff(draws, axis=1)
    least = weakest(steps, results.settings.confidence)
    detail = (
        f"from intensity {intensities[least]:g} to {intensities[least + 1]:g}; errors "
        f"{_listed(draws[0])} at {_listed(intensities)}"
    )
    return _measured(results, steps[:, least], detail)


def clipping_error(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean error with values beyond the option `quantile` of |x| clipped to it."""
    return _measured(results, _draws(results, _clipping(options, CLIP))[:, 0])


def clipping_gap(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean error under clipping less `times` that under its `control`.

    Controls: `matched noise` (of clipping's norm), `shuffled clipping` (of the same entries), or
    `noise` of the norm of the reference's error, which is no control of anything.
    """
    control = options["control"]
    other = plain_noise(options["target"]) if control == NOISE else _clipping(options, control)
    draws = _draws(results, _clipping(options, CLIP), other)
    detail = f"clipping {draws[0, 0]:.2g}, {control} {draws[0, 1]:.2g}"
    return _measured(results, draws[:, 0] - options.get("times", 1) * draws[:, 1], detail)


def magnitude_slope(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Slope of log RMS error of weights against log |x|, mean over projections.

    Of weights that are not rounded to 0, one range per matrix, by the options `transform` and
    `bits`. The interval is over projections, and n is their number.
    """
    draws, detail, n = _slopes(results, options)
    return results.measure(draws, [], detail, n)


def magnitude_slope_distance(
    results: ModelResults, names: Sequence[str], options: dict
) -> Measurement:
    """That slope less the option `expected`, or the reverse: what reaches further from 0."""
    draws, detail, n = _slopes(results, options)
    distances = np.stack([draws - options["expected"], options["expected"] - draws], axis=1)
    furthest = weakest(distances, results.settings.confidence, "below")
    return results.measure(distances[:, furthest], [], detail, n)


def transform_gap(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean error of the `transform` less that of the uniform grid, both simulated.

    Of two uniform grids, the symmetric and the asymmetric one, that with the smaller error, as in
    simulations.csv, whose `setting`, `weights_per` and `activations_per` the options are.
    """
    table = results.table(SIMULATION)
    uniforms = [name for name in UNIFORMS if name in set(_cell(table, options)["transform"])]
    draws, n = _simulated(results, options, [options["transform"], *(uniforms or [UNIFORM])])
    best = int(np.argmin(draws[0, 1:]))
    detail = f"{draws[0, 0]:.2g} against {draws[0, 1 + best]:.2g} ({uniforms[best]})"
    return results.measure(draws[:, 0] - draws[:, 1 + best], [], detail, n)


def perplexity_rise(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Perplexity with a simulated quantization over that without, less 1. Options as above."""
    draws, n = _simulated(results, options, [options["transform"]])
    return results.measure(np.exp(draws[:, 0]) - 1, [], "", n)


def sensitivity_difference(
    results: ModelResults, names: Sequence[str], options: dict
) -> Measurement:
    """Larger less smaller sensitivity, of weights and activations perturbed alone.

    Sensitivity is the error per squared relative norm, (||Delta|| / ||x||)^2, because small noise
    raises the loss by a quadratic form. Both are of one relative norm, the largest that was tried
    on both (smaller ones do less harm and so tell less); between two intensities by a straight line
    over its logarithm. Which is the larger is taken from the sample and kept in the resamples, so
    the interval may include 0.
    """
    curves = {target: _sensitivities(results, target) for target in (WEIGHTS, ACTIVATIONS)}
    first = max(sizes[0] for sizes, _ in curves.values())
    last = min(sizes[-1] for sizes, _ in curves.values())
    if first > last:
        tried = ", ".join(
            f"{target} by {np.exp(sizes[0]):.2g} to {np.exp(sizes[-1]):.2g}"
            for target, (sizes, _) in curves.items()
        )
        raise NotMeasured(
            f"no relative norm was tried on both ({tried}): add to perturbation.intensities"
        )
    of_weights, of_activations = (_between(*curve, last) for curve in curves.values())
    difference = of_activations - of_weights
    larger = ACTIVATIONS if difference[0] > 0 else WEIGHTS
    detail = (
        f"{larger} are more sensitive at ||Delta|| / ||x|| = {np.exp(last):.2g}; error per "
        f"squared relative norm of weights {of_weights[0]:.2g}, of activations "
        f"{of_activations[0]:.2g}"
    )
    return _measured(results, difference * np.sign(difference[0]), detail)


Condition = Mapping[str, object]


def _clipping(options: Mapping, change: str) -> Condition:
    """The same of clipping and its controls."""
    return {"target": options["target"], "change": change, "quantile": options["quantile"]}


def _rows(table: pd.DataFrame, condition: Condition) -> pd.DataFrame:
    """Rows of a table under one condition."""
    return table[matching(table, condition)]


def _place(results: ModelResults, condition: Condition) -> int:
    """Column of a perturbation; `NotMeasured` without it, or with too few seeds or documents."""
    perturbed = results.perturbed
    place = perturbed.place(condition)
    if place is None:
        raise NotMeasured(f"not tried in this study: {' '.join(map(str, condition.values()))}")
    seeds = perturbed.conditions["seeds"].iloc[place]
    if condition["change"] != CLIP and seeds < MINIMUM_SEEDS:
        raise NotMeasured(f"{seeds} seeds are too few: write perturbation.seeds: {MINIMUM_SEEDS}")
    if len(perturbed.doc_ids) < MINIMUM_DOCUMENTS:
        raise NotMeasured(
            f"{len(perturbed.doc_ids)} documents are too few: write perturbation.documents: "
            f"{MINIMUM_DOCUMENTS} or more"
        )
    return place


def _draws(results: ModelResults, *conditions: Condition) -> np.ndarray:
    """Mean errors under some perturbations -> draws [1 + R, conditions]."""
    places = [_place(results, condition) for condition in conditions]
    return results.perturbed_draws[:, places]


def _measured(results: ModelResults, draws: np.ndarray, detail: str = "") -> Measurement:
    """Summarise draws [1 + R] over the documents that were perturbed."""
    return results.measure(draws, [], detail, len(results.perturbed.doc_ids))


def _differences(draws: np.ndarray) -> np.ndarray:
    """Differences between any two of draws [1 + R, k], in both directions."""
    pairs = permutations(range(draws.shape[1]), 2)
    return np.stack([draws[:, first] - draws[:, second] for first, second in pairs], axis=1)


def _distributions(results: ModelResults, target: str) -> tuple[np.ndarray, str]:
    """Mean errors [1 + R, 3] under the three distributions; `NotMeasured` if they do no harm.

    Where the noise does nothing that these documents show, distributions cannot be told apart, and
    a share of the error means nothing.
    """
    kinds = [plain_noise(target, distribution=name) for name in (GAUSSIAN, *OTHER_DISTRIBUTIONS)]
    draws = _draws(results, *kinds)
    _, low, _ = summarise(draws.mean(axis=1), results.settings.confidence)
    if not low > 0:
        raise NotMeasured(
            f"noise of intensity 1 on {target} does no harm that these documents show, so there is "
            "nothing to compare"
        )
    of_seeds = results.perturbed.conditions.iloc[[_place(results, kind) for kind in kinds]]
    apart = (of_seeds["highest"] - of_seeds["lowest"]).max()
    return draws, (
        f"{', '.join((GAUSSIAN, *OTHER_DISTRIBUTIONS))}: {_listed(draws[0])}; single seeds of one "
        f"differ by up to {apart:.2g}"
    )


def _relations(results: ModelResults, options: Mapping) -> tuple[np.ndarray, str]:
    """Mean errors [1 + R, 3] under M+, independent and M- noise of one norm."""
    order = (M_PLUS, INDEPENDENT, M_MINUS)
    per = options.get("per", TENSOR)
    draws = _draws(
        results, *(plain_noise(options["target"], relation=relation, per=per) for relation in order)
    )
    return draws, f"{', '.join(order)}: {_listed(draws[0])}"


def _intensities(results: ModelResults, target: str) -> list[float]:
    """Intensities that plain noise was tried at, rising."""
    wanted = {key: value for key, value in plain_noise(target).items() if key != "intensity"}
    return sorted(_rows(results.perturbed.conditions, wanted)["intensity"])


def _sensitivities(results: ModelResults, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Log relative norms [k], rising, and the error per squared norm there, draws [1 + R, k]."""
    table = results.table(EFFECTS)
    kinds = [plain_noise(target, intensity=each) for each in _intensities(results, target)]
    if len(kinds) < 2:
        raise NotMeasured("write two or more under perturbation.intensities")
    draws = _draws(results, *kinds)
    sizes = np.array([_rows(table, kind)["size"].item() for kind in kinds])
    return np.log(sizes), draws / sizes**2


def _slopes(results: ModelResults, options: Mapping) -> tuple[np.ndarray, str, int]:
    """Mean slope over projections, draws [1 + R], what to say of it, and how many they are."""
    wanted = {"transform": options["transform"], "bits": options["bits"], "values": RESOLVED}
    rows = _rows(results.table(MAGNITUDES), wanted).dropna(subset="slope")
    if len(rows) < MINIMUM_MODULES:
        raise NotMeasured(
            f"{len(rows)} projections are too few for an interval over them: "
            f"{MINIMUM_MODULES} are needed"
        )
    slopes = rows["slope"].to_numpy()
    draws = resample_counts(len(slopes), results.settings, results.seed) @ slopes / len(slopes)
    detail = (
        f"slope {draws[0]:.2g} ({slopes.min():.2g} to {slopes.max():.2g}), Pearson's r "
        f"{rows['pearson'].mean():.2g}; {len(rows)} projections, interval over them"
    )
    return draws, detail, len(rows)


def _between(places: np.ndarray, draws: np.ndarray, at: float) -> np.ndarray:
    """Straight line between the two of rising `places` [k] around `at`: draws [1 + R]."""
    after = int(np.clip(np.searchsorted(places, at), 1, len(places) - 1))
    share = (at - places[after - 1]) / (places[after] - places[after - 1])
    return (1 - share) * draws[:, after - 1] + share * draws[:, after]


def _cell(table: pd.DataFrame, options: Mapping) -> pd.DataFrame:
    """Rows of simulations that differ in the transform only."""
    wanted = {
        "setting": options["setting"],
        "weights_per": options["weights_per"],
        "activations_per": options.get("activations_per", NONE),
    }
    return _rows(table, wanted)


def _simulated(
    results: ModelResults, options: Mapping, transforms: Sequence[str]
) -> tuple[np.ndarray, int]:
    """Mean errors of simulations that differ in the transform -> draws [1 + R, transforms], n."""
    cell = _cell(results.table(SIMULATION), options)
    scores = cell.assign(error=cell["nll"] - cell["nll_full"])
    errors = scores.pivot(index="doc_id", columns="transform", values="error")
    for transform in transforms:
        if transform not in errors:
            place = options["setting"], options["weights_per"], options.get("activations_per", NONE)
            raise NotMeasured(f"not simulated in this study: {' '.join(place)} {transform}")
    if len(errors) < MINIMUM_DOCUMENTS:
        raise NotMeasured(
            f"{len(errors)} documents are too few: write simulation.documents: "
            f"{MINIMUM_DOCUMENTS} or more"
        )
    errors = errors.loc[cell["doc_id"].drop_duplicates(), list(transforms)].to_numpy()
    counts = resample_counts(len(errors), results.settings, results.seed)
    return mean_draws(errors, np.ones(len(errors), bool), counts), len(errors)


def _listed(values: Sequence[float]) -> str:
    """'0.13 0.14 0.16'."""
    return " ".join(f"{value:.2g}" for value in values)
