"""Statistics of claims about what happens by layer: early exit, amplification, outliers of r.

Layers count from 1; the upper half of L layers begins after layer L // 2. Values over several
methods are means; early exit is on the D_large and D_ctrl that each method was read out on, the
rest on its own.
"""

from collections.abc import Sequence

import numpy as np

from lowbit.analysis.mechanisms.layer_trace import amplification_draws, by_layer, exit_sets
from lowbit.analysis.mechanisms.residual_norms import DIFFERENCE, set_draws
from lowbit.analysis.statistics import mean_draws
from lowbit.analysis.tables import KURTOSES, PARALLEL_RESIDUAL, norms_by_document
from lowbit.claims.results import Measurement, ModelResults, NotMeasured, on_other_sets
from lowbit.names import FULL, SETS

EXITS, DIFFERENCES, OUTLIERS = "early_exit", "mlp_differences", "outlier_dimensions"
"""Names of the tables."""

MINIMUM_LAYERS = 5
"""Fewer give no interval over layers."""

DEPARTURE = 0.1
"""Share of the final gap from which on two curves count as apart."""


def amplified_layers(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Share of upper layers where r of norm(h) with the MLPs' squared difference is > `above`."""
    table = results.table(DIFFERENCES)
    traced = _traced(names, table["method"])
    norms = norms_by_document(results.residuals, results.doc_ids, ["h"])[0][:, 0]
    upper = norms.shape[1] // 2
    draws = []
    for name in traced:
        rows = table[table["method"] == name]
        squared = by_layer(rows, "mean_squared_difference", results.doc_ids)
        draws.append(amplification_draws(squared, norms, results.counts)[:, upper:])
    r = np.stack(draws, axis=1)  # [1 + R, methods, upper layers]
    share = (r > options["above"]).mean(axis=(1, 2))
    detail = f"r {r[0].min():.2f} to {r[0].max():.2f} in {r.shape[2]} upper layers"
    return results.measure(share, traced, detail)


def kurtosis_difference(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean kurtosis of r in D_large less that in D_ctrl, mean over the upper layers."""
    values = norms_by_document(results.residuals, results.doc_ids, KURTOSES[:1])[0]
    if np.isnan(values).all():
        raise NotMeasured(f"this architecture has no r: {PARALLEL_RESIDUAL}")
    per_method = [
        set_draws(
            values,
            results.member(name, "large"),
            results.member(name, "control"),
            results.counts,
        )[DIFFERENCE][:, 0]
        for name in names
    ]
    upper = np.mean(per_method, axis=0)[:, values.shape[2] // 2 :]
    below = int((upper[0] < 0).sum())
    detail = f"below 0 in {below} of {upper.shape[1]} upper layers"
    n = results.smallest(names, *SETS)
    return results.measure(upper.mean(axis=1), names, detail, n)


def outlier_gamma_share(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean share of dimensions with a smaller |gamma| than the largest ones of r have.

    Over the upper layers; 0.5 is chance. The interval is over layers, drawn with replacement, and n
    is their number: over documents the largest dimensions hardly vary.
    """
    table = results.table(OUTLIERS)
    upper = table[table["layer"] > table["layer"].max() // 2]
    if upper["gamma_share"].isna().all():
        raise NotMeasured("this architecture has no norm before the MLP")
    by_one = upper.groupby("layer")["gamma_share"].mean().to_numpy()
    if len(by_one) < MINIMUM_LAYERS:
        raise NotMeasured(
            f"{len(by_one)} upper layers are too few for an interval over layers: "
            f"{MINIMUM_LAYERS} are needed"
        )
    drawn = np.random.default_rng(results.seed).integers(
        0, len(by_one), (results.settings.resamples, len(by_one))
    )
    draws = np.concatenate([[by_one.mean()], by_one[drawn].mean(axis=1)])
    places = int(table["place"].max())
    ranks = upper.loc[upper["place"] == 1, "gamma_rank"]
    detail = (
        f"largest {places} dimensions of {len(by_one)} upper layers, interval over layers; rank of "
        f"the largest one's gamma {ranks.min():.0f} to {ranks.max():.0f}"
    )
    return results.measure(draws, [], detail, n=len(by_one))


def late_resolution(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """NLL read out from r, D_large less D_ctrl, over the upper half but its last fifth of depth."""
    traced = _read_out(results, names)
    gaps = np.stack([_exit_gap(results, FULL, each) for each in traced.values()], axis=1)
    layers = gaps.shape[2]
    first, last = layers // 2, max(layers // 2 + 1, layers - round(layers / 5))
    draws = gaps[:, :, first:last].mean(axis=(1, 2))
    final = gaps[0, :, -1].mean()
    detail = f"layers {first + 1} to {last}; in the last layer {final:.2f}"
    n = results.smallest(list(traced.values()), *SETS)
    return results.measure(draws, list(traced), detail, n)


def resolution_layer(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """First layer from which on D_large has a lower NLL than D_ctrl, read out from r.

    The sets are the first method's, what is read out is the second (or `full`).
    """
    sets_of, model = names
    below = _exit_gap(results, model, sets_of) < 0
    n = results.smallest([sets_of], *SETS)
    return results.measure(_from_layer(below), names, n=n)


def departure_slope(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Slope over the upper half of NLL(quantized) - NLL(full) on D_large, read out from r.

    Least squares, in nats per whole depth of the model.
    """
    traced = _read_out(results, names)
    gaps = np.stack([_departure(results, *each) for each in traced.items()], axis=1)
    upper = gaps[:, :, gaps.shape[2] // 2 :].mean(axis=1)
    if upper.shape[1] < 2:
        raise NotMeasured("a slope over the upper half needs 4 layers")
    depth = np.arange(upper.shape[1]) / gaps.shape[2]
    centred = depth - depth.mean()
    slope = upper @ centred / (centred @ centred)
    detail = f"gap {upper[0, 0]:.2f} in its first layer, {upper[0, -1]:.2f} in the last"
    n = results.smallest(list(traced.values()), "large")
    return results.measure(slope, list(traced), detail, n)


def departure_layer(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """First layer from which on that gap is more than a tenth of its value in the last layer.

    The D_large is the first method's, the quantized model the second.
    """
    sets_of, method = names
    _read_out(results, [method])  # or it is no method of the study's mechanisms
    gap = _departure(results, method, sets_of)
    apart = gap > DEPARTURE * gap[:, -1:]
    return results.measure(_from_layer(apart), names, n=results.smallest([sets_of], "large"))


def _traced(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Those of the methods that were traced; `NotMeasured` if there is none."""
    traced = [name for name in names if name in set(known)]
    if not traced:
        raise NotMeasured(
            f"none of these methods was traced: {', '.join(names)}. Name one of them in "
            "mechanisms.methods"
        )
    return traced


def _read_out(results: ModelResults, names: Sequence[str]) -> dict[str, str]:
    """Those of the methods that were read out -> whose sets they were read out on."""
    sets_of = exit_sets(results.table(EXITS))
    return {name: sets_of[name] for name in _traced(names, list(sets_of))}


def _exits(results: ModelResults, model: str, sets_of: str) -> np.ndarray:
    """NLL read out from r on a method's sets -> [documents, layers]; nan for all others.

    `NotMeasured` if the architecture has no r, or the model was not read out on these sets.
    """
    table = results.table(EXITS)
    rows = table[(table["model"] == model) & (table["quantity"] == "r")]
    if rows.empty:
        raise NotMeasured(f"this architecture has no r: {PARALLEL_RESIDUAL}")
    mine = rows[rows["sets_of"] == sets_of]
    if mine.empty:
        others = " and ".join(rows["sets_of"].unique())
        raise on_other_sets(f"{model} was read out", others, sets_of)
    return by_layer(mine, "nll", results.doc_ids)


def _exit_gap(results: ModelResults, model: str, sets_of: str) -> np.ndarray:
    """A model's NLL on D_large less that on D_ctrl -> draws [1 + R, layers]."""
    nll = _exits(results, model, sets_of)
    large, control = (
        mean_draws(nll, results.member(sets_of, which), results.counts) for which in SETS
    )
    return large - control


def _departure(results: ModelResults, method: str, sets_of: str) -> np.ndarray:
    """NLL(quantized) - NLL(full) on D_large -> draws [1 + R, layers]."""
    gap = _exits(results, method, sets_of) - _exits(results, FULL, sets_of)
    return mean_draws(gap, results.member(sets_of, "large"), results.counts)


def _from_layer(holds: np.ndarray) -> np.ndarray:
    """First layer from which on `holds` [1 + R, layers] is true to the last; nan if it is not."""
    to_the_end = np.logical_and.accumulate(holds[:, ::-1], axis=1).sum(axis=1)
    return np.where(to_the_end > 0, holds.shape[1] - to_the_end + 1.0, np.nan)
