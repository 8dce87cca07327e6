"""The answers: a question in plain words, what was found, and its numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom

from lowbit.analysis.correlation import ALL
from lowbit.analysis.long_tail import DIFFERENCE
from lowbit.analysis.prediction.feature_sets import EVERYTHING
from lowbit.analysis.prediction.report import norm_verdict
from lowbit.analysis.prediction.tables import NOT_MEASURED
from lowbit.analysis.statistics import (
    MINIMUM_DOCUMENTS,
    BootstrapSettings,
    mean_draws,
    resample_counts,
    summarise,
)
from lowbit.analysis.tables import (
    MEAN_OF_METHODS,
    PARALLEL_RESIDUAL,
    Method,
    by_document,
    document_ids,
    of_different_quantizers,
)
from lowbit.markdown import number, number_with_interval
from lowbit.names import SETS
from lowbit.summary.model import ModelSummary
from lowbit.summary.optional_stages import ANSWERS

SHOWN_SHARE = 0.05
"""Share of a document's tokens, the worst ones, that the answer is about."""

STRENGTHS = ((0.3, "Weakly"), (0.6, "Partly"), (np.inf, "Yes"))
"""How to call a mean correlation below a bound, where its interval is above 0."""


def answers(
    model: ModelSummary, methods: Sequence[Method], settings: BootstrapSettings, seed: int
) -> str:
    """The answers for one model."""
    n = model.errors["doc_id"].nunique()
    head = (
        f"**{model.name}** ({_description(model.record)}), {n} documents, {len(methods)} methods:"
    )
    found = [
        _agreement(model, methods),
        _breaking(model, methods, settings, seed),
        _prediction(model),
        _held_out(model),
        _long_tail(model),
        _tokens(model),
    ]
    found += [
        answer(model.tables[name], model.folder)
        for name, answer in ANSWERS.items()
        if name in model.tables
    ]
    return head + "\n\n" + "\n".join(f"- {answer}" for answer in found) + "\n"


def _description(record: dict[str, Any]) -> str:
    """'embedded model, 8.1 million parameters, 6 layers'."""
    source = "embedded model" if record["source"] == "demo" else f"`{record['source']}`"
    return (
        f"{source}, {record['parameters'] / 1e6:,.1f} million parameters, {record['layers']} layers"
    )


def _agreement(model: ModelSummary, methods: Sequence[Method]) -> str:
    """Do methods break the same documents?"""
    question = "*Do methods break the same documents?*"
    overall = model.by_bits[model.by_bits["bits_a"].astype(str) == ALL]
    if overall.empty:
        return f"{question} Not measured: the study has no two methods of different quantizers."
    row = overall.iloc[0]
    strength = next(word for bound, word in STRENGTHS if row["mean_pearson"] < bound)
    answer = _verdict(row["low"], row["high"], strength, "No, rather different ones", "Not shown")
    widths = model.by_bits[model.by_bits["bits_a"].astype(str) != ALL]
    ordered = widths.sort_values("mean_pearson", kind="stable")
    ends = " to ".join(
        f"{number(line.mean_pearson)} ({line.bits_a} with {line.bits_b} bits)"
        for line in ordered.iloc[[0, -1]].itertuples()
    )
    jaccard, chance = of_different_quantizers(model.overlap, methods)[["jaccard", "chance"]].mean()
    return (
        f"{question} {answer}: the errors of different quantizers correlate with a mean r of "
        f"{number_with_interval(row['mean_pearson'], row['low'], row['high'])} over {row['pairs']} "
        f"pairs, by bit widths {ends}. The D_large of two of them overlap with a Jaccard index "
        f"of {jaccard:.2f} on average; random sets would have {chance:.2f}."
    )


def _breaking(
    model: ModelSummary, methods: Sequence[Method], settings: BootstrapSettings, seed: int
) -> str:
    """Which inputs break?"""
    doc_ids = document_ids(model.errors)
    times = model.times_in_large(methods, doc_ids)
    half = -(-len(methods) // 2)
    share = sum(
        len(model.sets.query("method == @method.name and set == 'large'")) for method in methods
    )
    share = share / (len(methods) * len(doc_ids))
    expected = len(doc_ids) * binom.sf(half - 1, len(methods), share)
    nll = by_document(model.errors, "nll_full", [methods[0].name])
    counts = resample_counts(len(doc_ids), settings, seed)
    often = times >= half
    text = (
        f"*Which inputs break?* {often.sum()} of {len(doc_ids)} documents are in the D_large of at "
        f"least {half} of the {len(methods)} methods ({expected:.1f} expected if methods were "
        "independent)."
    )
    if min(often.sum(), (~often).sum()) < MINIMUM_DOCUMENTS:
        return f"{text} These are too few to compare with the others."
    gap = mean_draws(nll, often, counts) - mean_draws(nll, ~often, counts)
    value, low, high = (column[0] for column in summarise(gap, settings.confidence))
    kind = _verdict(
        low, high, "They are harder", "They are easier", "They are neither harder nor easier"
    )
    return (
        f"{text} {kind} for the full model than the others: mean NLL differs by "
        f"{number_with_interval(value, low, high)} nats per token. The worst are listed below."
    )


def _prediction(model: ModelSummary) -> str:
    """Does the residual norm predict the error?"""
    question = "*Does the full model's residual norm predict the error?*"
    last = model.last_layer.sort_values("pearson", kind="stable")
    if last.empty:
        return f"{question} Not measured: this architecture has no norm(r): {PARALLEL_RESIDUAL}."
    below, above = (last["high"] < 0).sum(), (last["low"] > 0).sum()
    ends = " to ".join(
        f"{number_with_interval(row.pearson, row.low, row.high)} ({row.method})"
        for row in last.iloc[[0, -1]].itertuples()
    )
    return (
        f"{question} A smaller norm goes with a larger error for {below} of {len(last)} "
        f"methods, with a smaller one for {above} (interval on one side of 0): r in the last "
        f"layer is {ends}; every method is in the table below."
    )


def _held_out(model: ModelSummary) -> str:
    """Can the error be predicted, and does the norm help?"""
    question = "*Can errors be predicted before quantizing?*"
    rows = model.prediction[model.prediction["metric"] == "r2"]
    mean = rows[rows["method"] == MEAN_OF_METHODS].set_index("features")
    everything = mean.loc[EVERYTHING]
    if pd.isna(everything["value"]):
        reason = rows["note"].dropna().iloc[0].removeprefix(NOT_MEASURED)
        return f"{question} Not measured: {reason}."
    answer = _verdict(everything["low"], everything["high"], "In part", "No", "Not shown")
    text, nll = (number(mean.loc[features, "value"]) for features in ("text", "nll"))
    return (
        f"{question} {answer}: on held-out documents norms, NLL, entropy and text together have "
        f"an R2 of {number_with_interval(*everything[['value', 'low', 'high']])} (mean of "
        f"methods), text alone {text}, NLL and entropy {nll}. Beyond NLL, entropy and text, the "
        f"last layer's norm {norm_verdict(model.prediction_added)}. More in "
        f"[prediction.md]({model.folder}/prediction.md)."
    )


def _long_tail(model: ModelSummary) -> str:
    """Is it hard text that breaks?"""
    gap = model.long_tail[model.long_tail["documents"] == DIFFERENCE]
    gap = gap.sort_values("mean_error", kind="stable")
    question = "*Is it hard text that breaks?*"
    if gap["low"].isna().all():
        return f"{question} Not measured: a tenth of the documents is too few."
    more, less = (gap["low"] > 0).sum(), (gap["high"] < 0).sum()
    answer = "It depends on the method"
    if not (more and less):
        counts = (more, "Yes"), (less, "No, rather easy text")
        count, word = max(counts)
        answer = word if 2 * count > len(gap) else "Not shown"
    ends = " to ".join(
        f"{number_with_interval(row.mean_error, row.low, row.high)} ({row.method})"
        for row in gap.iloc[[0, -1]].itertuples()
    )
    return (
        f"{question} {answer}: the tenth of the documents that the full model finds hardest has "
        f"a larger mean error than the easiest tenth with {more} of {len(gap)} methods, a smaller "
        f"one with {less} (interval on one side of 0). The difference is {ends} nats per token."
    )


def _tokens(model: ModelSummary) -> str:
    """Do few tokens carry the error?"""
    table = model.token_concentration
    chosen = table[table["method"] == MEAN_OF_METHODS].set_index("set")
    rows = chosen[np.isclose(chosen["top"], SHOWN_SHARE)]
    question = "*Do a few tokens carry the error?*"
    if rows["low"].isna().any():
        return f"{question} Not measured: D_large or D_ctrl has too few documents."
    share = {name: number_with_interval(*rows.loc[name, ["share", "low", "high"]]) for name in SETS}
    gap = rows.loc[DIFFERENCE]
    compared = _verdict(gap["low"], gap["high"], "more", "less", "no measurable difference")
    return (
        f"{question} In D_large the worst {100 * SHOWN_SHARE:g} % of a document's tokens carry a "
        f"share of {share['large']} of the sum of its positive token errors, in D_ctrl "
        f"{share['control']} ({compared}; mean of methods)."
    )


def _verdict(low: float, high: float, above: str, below: str, neither: str) -> str:
    """Choose words by where an interval lies relative to 0."""
    if low > 0:
        return above
    return below if high < 0 else neither
