"""The statistics that claims are judged by, each measured on one model of a study.

A statistic takes the model's results, the names of the methods it is about and the claim's options,
and returns a `Measurement` or raises `NotMeasured` with the reason in the user's words. A new one
is a function here and a line in `STATISTICS`. Values over several methods are means whose interval
comes from the same resamples of documents, because methods and pairs are dependent.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from lowbit.analysis.mechanisms.residual_norms import RATIO, norm_error_draws, set_draws
from lowbit.analysis.prediction.metrics import partial_correlation_draws
from lowbit.analysis.statistics import (
    MINIMUM_DOCUMENTS,
    expected_jaccard,
    jaccard_draws,
    mean_draws,
    pearson_draws,
)
from lowbit.analysis.tables import (
    PARALLEL_RESIDUAL,
    QUANTITIES,
    present_quantities,
)
from lowbit.claims.downstream_statistics import extremes_damage
from lowbit.claims.evaluation_statistics import evaluated_perplexity
from lowbit.claims.patching_statistics import patched_perplexity, share_gap, share_restored
from lowbit.claims.perturbation_statistics import (
    clipping_error,
    clipping_gap,
    distribution_beside_relation,
    distribution_spread,
    intensity_step,
    magnitude_slope,
    magnitude_slope_distance,
    perplexity_rise,
    relation_gap,
    relation_order,
    sensitivity_difference,
    transform_gap,
)
from lowbit.claims.prediction_statistics import held_out_gain, held_out_metric
from lowbit.claims.released_statistics import released_overlap
from lowbit.claims.results import Measurement, ModelResults, NotMeasured, Statistic, weakest
from lowbit.claims.topic_statistics import largest_topic_share, topics_in_large
from lowbit.claims.trace_statistics import (
    amplified_layers,
    departure_layer,
    departure_slope,
    kurtosis_difference,
    late_resolution,
    outlier_gamma_share,
    resolution_layer,
)
from lowbit.names import FULL, SETS


def mean_error(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean of e(x) over documents and methods, nats per token."""
    errors = results.column("error", names)
    per_method = mean_draws(errors, _everyone(results), results.counts)
    return results.measure(per_method.mean(axis=1), names, _count_detail(per_method[0], "above 0"))


def perplexity(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """exp(mean NLL) of one method, or of `full`."""
    nll = results.column("nll", names)
    draws = np.exp(mean_draws(nll, _everyone(results), results.counts)[:, 0])
    return results.measure(draws, names)


def bits_error_gap(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean error at `fewer` bits less that at `more` bits, mean over quantizers that have both."""
    methods = [results.method(name) for name in names]
    pairs = [
        (a.name, b.name)
        for a in methods
        for b in methods
        if a.quantizer == b.quantizer and (a.bits, b.bits) == (options["fewer"], options["more"])
    ]
    if not pairs:
        raise NotMeasured(
            f"no quantizer at both {options['fewer']} and {options['more']} bits in this study"
        )
    fewer, more = (results.column("error", side) for side in zip(*pairs, strict=True))
    gaps = mean_draws(fewer - more, _everyone(results), results.counts)
    used = [name for pair in pairs for name in pair]
    return results.measure(gaps.mean(axis=1), used, _count_detail(gaps[0], "above 0", "quantizers"))


def pair_correlation(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean of Pearson's r of e(x) over pairs of different quantizers."""
    pairs = _pairs(results, names)
    draws = _pair_draws(results, pairs)
    detail = _range_detail(draws[0], f"{len(pairs)} pairs") if len(pairs) > 1 else ""
    return results.measure(draws.mean(axis=1), names, detail)


def weakest_pair_correlation(
    results: ModelResults, names: Sequence[str], options: dict
) -> Measurement:
    """Pearson's r of e(x) of the pair of different quantizers that is least surely correlated."""
    pairs = _pairs(results, names)
    draws = _pair_draws(results, pairs)
    least = weakest(draws, results.settings.confidence)
    return results.measure(draws[:, least], pairs[least], f"least sure of {len(pairs)} pairs")


def pair_correlation_gap(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean r over pairs at `fewer` bits less mean r over pairs at `more` bits."""
    means, used = [], []
    for bits in (options["fewer"], options["more"]):
        chosen = [name for name in names if results.method(name).bits == bits]
        pairs = _pairs(results, chosen, f"of {bits} bits ")
        means.append(_pair_draws(results, pairs).mean(axis=1))
        used += chosen
    detail = f"mean r {means[0][0]:.2f} and {means[1][0]:.2f}"
    return results.measure(means[0] - means[1], used, detail)


def variant_correlation(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean of Pearson's r of e(x) over all pairs of `names`, of whatever quantizers."""
    draws = _pair_draws(results, list(combinations(names, 2)))
    return results.measure(draws.mean(axis=1), names, _range_detail(draws[0], "pairs"))


def variant_gap(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean r over variants of `quantizer` at `bits` less mean r over different quantizers there."""
    quantizer, bits = options["quantizer"], options["bits"]
    chosen = [name for name in names if results.method(name).bits == bits]
    variants = [name for name in chosen if results.method(name).quantizer == quantizer]
    if len(variants) < 2:
        raise NotMeasured(
            f"no two variants of {quantizer} at {bits} bits in this study; as in "
            "config/gptq-variants.yaml"
        )
    pairs = list(combinations(variants, 2)), _pairs(results, chosen, f"of {bits} bits ")
    same, different = (_pair_draws(results, each).mean(axis=1) for each in pairs)
    detail = f"mean r {same[0]:.2f} over variants, {different[0]:.2f} over quantizers"
    return results.measure(same - different, chosen, detail)


def kl_agreement(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean over methods of Pearson's r of e(x) with KL(full || quantized)."""
    errors, kl = results.column("error", names), results.column("kl", names)
    draws = np.stack(
        [
            pearson_draws(errors[:, [i]], kl[:, [i]], results.counts)[:, 0, 0]
            for i in range(len(names))
        ],
        axis=1,
    )
    return results.measure(draws.mean(axis=1), names, _range_detail(draws[0], "methods"))


def overlap(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean Jaccard index of D_large over pairs of different quantizers."""
    draws = [_jaccard_draws(results, pair) for pair in _pairs(results, names)]
    return results.measure(np.mean(draws, axis=0), names, n=results.smallest(names, "large"))


def overlap_above_chance(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean Jaccard index of D_large over pairs, less its expectation for random sets."""
    pairs = _pairs(results, names)
    draws = np.mean([_jaccard_draws(results, pair) for pair in pairs], axis=0)
    chance = np.mean([_chance(results, pair) for pair in pairs])
    detail = f"Jaccard {draws[0]:.2f}, chance {chance:.2f}, {len(pairs)} pairs"
    return results.measure(draws - chance, names, detail, results.smallest(names, "large"))


def residual_correlation(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean over methods of r between the last layer's norm of `quantity` and e(x)."""
    place = _index(results, options["quantity"])
    draws = _norm_draws(results, names)[:, :, place, -1]
    return results.measure(draws.mean(axis=1), names, _range_detail(draws[0], "methods"))


def residual_correlation_given_nll(
    results: ModelResults, names: Sequence[str], options: dict
) -> Measurement:
    """As `residual_correlation`, the full-precision NLL held fixed (partial correlation)."""
    norm = results.norms[:, _index(results, options["quantity"]), -1]
    nll = results.column("nll", [FULL])[:, 0]
    errors = results.column("error", names)
    draws = partial_correlation_draws(norm, errors, nll, results.counts)
    return results.measure(draws.mean(axis=1), names, _range_detail(draws[0], "methods"))


def residual_depth_slope(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Least-squares slope of the mean correlation by layer against depth from 0 to 1."""
    place = _index(results, options["quantity"])
    by_layer = _norm_draws(results, names)[:, :, place].mean(axis=1)
    layers = by_layer.shape[1]
    if layers < 3:
        raise NotMeasured(f"the model has {layers} layers; a trend with depth needs 3")
    depth = np.linspace(0, 1, layers)
    centred = depth - depth.mean()
    slope = by_layer @ centred / (centred @ centred)
    detail = f"r {by_layer[0, 0]:.2f} in the first layer, {by_layer[0, -1]:.2f} in the last"
    return results.measure(slope, names, detail)


def residual_correlation_gap(
    results: ModelResults, names: Sequence[str], options: dict
) -> Measurement:
    """Last layer's |correlation| of norm(r) less that of norm(z), mean over methods.

    How clearly a norm predicts is the strength of its correlation, whatever the sign.
    """
    places = [_index(results, "r"), _index(results, "z")]
    draws = _norm_draws(results, names)[:, :, places, -1]  # [1 + R, names, 2]
    gaps = np.abs(draws[..., 0]) - np.abs(draws[..., 1])
    r, z = draws[0].mean(axis=0)
    return results.measure(gaps.mean(axis=1), names, f"r of r {r:.2f}, of z {z:.2f}")


def set_norm_difference(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Relative difference of the norm in D_large from that in D_ctrl, in one upper layer.

    norm(D_large) / norm(D_ctrl) - 1, mean over methods. The statement is about every upper layer,
    so the layer whose interval reaches furthest against it is judged: it holds only if it holds
    there.
    """
    place = _index(results, options["quantity"])
    per_method = [
        set_draws(
            results.norms,
            results.member(name, "large"),
            results.member(name, "control"),
            results.counts,
        )[RATIO][:, place]
        - 1
        for name in names
    ]
    by_layer = np.mean(per_method, axis=0)
    layers = by_layer.shape[1]
    upper = by_layer[:, layers // 2 :]
    worst = weakest(upper, results.settings.confidence, options["expect"])
    holds = np.sum(upper[0] < 0 if options["expect"] == "below" else upper[0] > 0)
    detail = (
        f"layer {layers // 2 + worst + 1}; {options['expect']} 0 in {holds} of {upper.shape[1]} "
        "upper layers"
    )
    n = results.smallest(names, *SETS)
    return results.measure(upper[:, worst], names, detail, n)


def large_nll_gap(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean full-precision NLL of D_large less that of all documents, mean over methods."""
    nll = results.column("nll", [FULL])
    everyone = mean_draws(nll, _everyone(results), results.counts)[:, 0]
    large = [mean_draws(nll, results.member(name, "large"), results.counts)[:, 0] for name in names]
    draws = np.mean(large, axis=0)
    detail = f"perplexity {np.exp(draws[0]):.2f} against {np.exp(everyone[0]):.2f}"
    return results.measure(draws - everyone, names, detail, results.smallest(names, "large"))


def perplexity_on_large(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Perplexity of the second method (or `full`) on D_large of the first."""
    chosen, scored = names
    nll = results.column("nll", [scored])
    draws = mean_draws(nll, results.member(chosen, "large"), results.counts)[:, 0]
    return results.measure(np.exp(draws), names, n=results.smallest([chosen], "large"))


def long_tail_gap(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean error of documents with NLL >= `hard` less that of D_large with NLL <= `easy`."""
    hard = _hard(results, options)
    easy = [_easy(results, name, options) for name in names]
    gaps = [
        _error_draws(results, name, hard) - _error_draws(results, name, mine)
        for name, mine in zip(names, easy, strict=True)
    ]
    n = min(int(member.sum()) for member in (hard, *easy))
    return results.measure(np.mean(gaps, axis=0), names, n=n)


def hard_error(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean error of documents with a full-precision NLL of `hard` or more."""
    hard = _hard(results, options)
    return results.measure(_error_draws(results, names[0], hard), names, n=int(hard.sum()))


def easy_large_error(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Mean error of documents of D_large with a full-precision NLL of `easy` or less."""
    easy = _easy(results, names[0], options)
    return results.measure(_error_draws(results, names[0], easy), names, n=int(easy.sum()))


STATISTICS: dict[str, Statistic] = {
    statistic.__name__: statistic
    for statistic in (
        mean_error,
        perplexity,
        bits_error_gap,
        pair_correlation,
        weakest_pair_correlation,
        pair_correlation_gap,
        variant_correlation,
        variant_gap,
        kl_agreement,
        overlap,
        overlap_above_chance,
        residual_correlation,
        residual_correlation_given_nll,
        residual_depth_slope,
        residual_correlation_gap,
        set_norm_difference,
        large_nll_gap,
        perplexity_on_large,
        long_tail_gap,
        hard_error,
        easy_large_error,
        held_out_metric,
        held_out_gain,
        amplified_layers,
        kurtosis_difference,
        outlier_gamma_share,
        late_resolution,
        resolution_layer,
        departure_slope,
        departure_layer,
        share_restored,
        share_gap,
        patched_perplexity,
        extremes_damage,
        evaluated_perplexity,
        released_overlap,
        distribution_spread,
        distribution_beside_relation,
        relation_gap,
        relation_order,
        intensity_step,
        clipping_error,
        clipping_gap,
        magnitude_slope,
        magnitude_slope_distance,
        transform_gap,
        perplexity_rise,
        sensitivity_difference,
        largest_topic_share,
        topics_in_large,
    )
}
"""Every statistic that a claim may name."""


def _everyone(results: ModelResults) -> np.ndarray:
    """Membership of the set of all documents."""
    return np.ones(len(results.doc_ids), bool)


def _pairs(results: ModelResults, names: Sequence[str], which: str = "") -> list[tuple[str, str]]:
    """Pairs of methods of different quantizers."""
    pairs = [
        (a, b)
        for a, b in combinations(names, 2)
        if results.method(a).quantizer != results.method(b).quantizer
    ]
    if not pairs:
        raise NotMeasured(f"no two methods {which}from different quantizers in this study")
    return pairs


def _pair_draws(results: ModelResults, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """Pearson's r of e(x) for each pair -> draws [1 + R, pairs]."""
    names = sorted({name for pair in pairs for name in pair})
    errors = results.column("error", names)
    draws = pearson_draws(errors, errors, results.counts)
    return np.stack([draws[:, names.index(a), names.index(b)] for a, b in pairs], axis=1)


def _jaccard_draws(results: ModelResults, pair: tuple[str, str]) -> np.ndarray:
    """Jaccard index of D_large of two methods -> draws [1 + R]."""
    return jaccard_draws(*(results.large_counts(name) for name in pair))


def _chance(results: ModelResults, pair: tuple[str, str]) -> float:
    """Expected Jaccard index of random sets as large as two methods' D_large."""
    sizes = [int(results.member(name, "large").sum()) for name in pair]
    return expected_jaccard(*sizes, len(results.doc_ids))


def _norm_draws(results: ModelResults, names: Sequence[str]) -> np.ndarray:
    """Pearson's r of norms with errors -> draws [1 + R, names, quantity, layer]."""
    return norm_error_draws(results.norms, results.column("error", names), results.counts)


def _index(results: ModelResults, quantity: str) -> int:
    """Place of r, z or h in arrays of norms; `NotMeasured` if the architecture has no such norm."""
    if quantity not in present_quantities(results.norms):
        reason = f": {PARALLEL_RESIDUAL}" if quantity == "r" else ""
        raise NotMeasured(f"this architecture has no {quantity}{reason}")
    return QUANTITIES.index(quantity)


def _hard(results: ModelResults, options: dict) -> np.ndarray:
    """Documents with full-precision NLL >= `hard`, bool [documents]."""
    hard = results.column("nll", [FULL])[:, 0] >= options["hard"]
    return _enough(hard, "", f"an NLL of {options['hard']} or more")


def _easy(results: ModelResults, name: str, options: dict) -> np.ndarray:
    """Documents of a method's D_large with full-precision NLL <= `easy`, bool [documents]."""
    easy = results.column("nll", [FULL])[:, 0] <= options["easy"]
    easy &= results.member(name, "large")
    return _enough(easy, " of D_large", f"an NLL of {options['easy']} or less")


def _enough(member: np.ndarray, of: str, what: str) -> np.ndarray:
    """Return `member`; `NotMeasured` with the number of documents if they are too few for a mean.

    The interval of a mean over one document would have no width.
    """
    count = int(member.sum())
    if count == 0:
        raise NotMeasured(f"no document{of} has {what}")
    if count < MINIMUM_DOCUMENTS:
        have = f"1 document{of} has" if count == 1 else f"{count} documents{of} have"
        raise NotMeasured(f"only {have} {what}, a mean needs {MINIMUM_DOCUMENTS}")
    return member


def _error_draws(results: ModelResults, name: str, member: np.ndarray) -> np.ndarray:
    """Draws [1 + R] of a method's mean error over some documents."""
    return mean_draws(results.column("error", [name]), member, results.counts)[:, 0]


def _count_detail(values: np.ndarray, what: str, of: str = "methods") -> str:
    """'7 of 9 methods above 0'."""
    return f"{int(np.sum(values > 0))} of {len(values)} {of} {what}"


def _range_detail(values: np.ndarray, of: str) -> str:
    """'6 methods: -0.61 to -0.22', or nothing for a single value."""
    if len(values) == 1:
        return ""
    count = of if of[0].isdigit() else f"{len(values)} {of}"
    return f"{count}: {values.min():.2f} to {values.max():.2f}"
