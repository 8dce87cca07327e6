"""The summary of a study in plain words: the answer first, then what it rests on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import binom

from lowbit.analysis.correlation import ALL
from lowbit.analysis.evaluation import evaluation_answer, evaluation_markdown
from lowbit.analysis.long_tail import DIFFERENCE
from lowbit.analysis.mechanisms.intervention_report import intervention_answer
from lowbit.analysis.mechanisms.mixed_precision_tables import mixed_answer
from lowbit.analysis.mechanisms.patching_report import patching_answer, patching_figures
from lowbit.analysis.perturbation.report import (
    agreement_answer,
    perturbation_answer,
    sensitivity_answer,
    transforms_answer,
)
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
    membership,
    of_different_quantizers,
)
from lowbit.claims.report import counts_sentence
from lowbit.markdown import number, number_with_interval, plain, table
from lowbit.names import FULL, SETS

WORST_DOCUMENTS = 10
EXCERPT_CHARACTERS = 90
PATCHING, INTERVENTIONS, MIXED = "patching", "interventions", "mixed_precision"
PERTURBATION, AGREEMENT, SENSITIVITY = "perturbation", "perturbation_agreement", "sensitivity"
TRANSFORMS = "best_transforms"
EVALUATION = "evaluation"
ANSWERS = {
    EVALUATION: evaluation_answer,
    PATCHING: patching_answer,
    INTERVENTIONS: intervention_answer,
    MIXED: mixed_answer,
    PERTURBATION: perturbation_answer,
    AGREEMENT: agreement_answer,
    SENSITIVITY: sensitivity_answer,
    TRANSFORMS: transforms_answer,
}
"""Table of an optional stage -> what the summary says of it, given the table and the folder."""
SHOWN_SHARE = 0.05
"""Share of a document's tokens, the worst ones, that the answer is about."""

STRENGTHS = ((0.3, "Weakly"), (0.6, "Partly"), (np.inf, "Yes"))
"""How to call a mean correlation below a bound, where its interval is above 0."""

FIGURES = {
    "error_distribution": "errors by method",
    "overlap": "overlap of the worst documents",
    "correlation": "correlation between methods",
    "scatter": "errors of two methods",
    "residual_correlation": "residual norms and errors by layer",
    "residual_norms": "norms of D_large and D_ctrl",
    "residual_reversal": "the reversal",
    "residual_density": "how norms spread over the documents of both",
    "residual_kurtosis": "kurtosis of D_large and D_ctrl",
    "early_exit": "what each layer would predict",
    "amplification": "errors of MLP outputs and the size of their inputs",
    "prediction": "prediction of held-out documents by features",
    "prediction_transfer": "prediction from one method to another",
    "long_tail": "errors and the full model's NLL",
    "token_concentration": "share of the worst tokens",
    "token_errors": "token errors by position, frequency and confidence",
    "token_flips": "changed top tokens by the same",
}
"""Files in a model's folder figures/, and what they show."""

OPTIONAL_FIGURES = {
    EVALUATION: {"evaluation": "perplexity and accuracy on the evaluation sets"},
    INTERVENTIONS: {"interventions": "errors when residual norms are changed"},
    MIXED: {
        "module_ranking": "what each module gives back in higher precision",
        "mixed_precision": "models of mixed precision",
    },
    PERTURBATION: {
        "perturbation_intensity": "noise of growing norm",
        "perturbation_distribution": "noise of different kinds",
        "clipping": "clipping and its controls",
        "interaction": "noise on weights, activations and both",
    },
    AGREEMENT: {"perturbation_agreement": "whether noise hurts the same documents"},
    SENSITIVITY: {"sensitivity": "noise on single projections"},
    TRANSFORMS: {
        "transforms": "uniform and non-uniform grids",
        "sqnr": "signal-to-noise ratio and errors",
    },
}
"""The same of optional stages, by their table."""

EMBEDDED = (
    "The embedded model is a very small one, trained for this project so that the whole study runs "
    "on a laptop. It is none of the paper's models: it can show whether an effect's direction is "
    "there, and no more. The paper's figures bind only for the paper's own models."
)
OTHER = "The paper's figures bind only for the paper's own models, methods and text."


@dataclass(frozen=True)
class ModelSummary:
    """One model of the study and its tables."""

    name: str
    folder: str
    record: dict[str, Any]
    errors: pd.DataFrame
    sets: pd.DataFrame
    perplexity: pd.DataFrame
    overlap: pd.DataFrame
    by_bits: pd.DataFrame
    residual_correlation: pd.DataFrame
    prediction: pd.DataFrame
    prediction_added: pd.DataFrame
    long_tail: pd.DataFrame
    token_concentration: pd.DataFrame
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """Tables of optional stages, by file name without its ending."""


def summary_markdown(
    study: str,
    models: Sequence[ModelSummary],
    methods: Sequence[Method],
    documents: pd.DataFrame,
    claims: pd.DataFrame,
    settings: BootstrapSettings,
    seed: int,
) -> str:
    """Write the summary.

    Args:
        documents: doc_id, text, source.
        claims: the table of verdicts.
    """
    confidence = f"{100 * settings.confidence:g} %"
    parts = [f"# Which inputs break: study “{study}”\n"]
    parts += [_answers(model, methods, settings, seed) for model in models]
    parts.append(
        f"**The papers' claims.** {_sentence_case(counts_sentence(claims))} A direction counts as "
        "reproduced only if its whole interval is on the side the paper states. All of them: "
        "[claims.md](claims.md).\n"
    )
    embedded = any(model.record["source"] == "demo" for model in models)
    parts.append(f"{EMBEDDED if embedded else OTHER}\n")
    parts.append(
        f"Numbers in brackets are {confidence} bootstrap intervals over documents "
        f"({settings.resamples} resamples, seed {seed}). e(x) is the error of a document: its mean "
        "negative log-likelihood per token under the quantized model less that under the full one. "
        "D_large: the documents with the largest errors.\n"
    )
    for model in models:
        parts.append(_model_section(model, methods, documents, settings, seed))
    parts.append("## Claims\n\n" + _claims_table(claims))
    return "\n".join(parts)


def _answers(
    model: ModelSummary, methods: Sequence[Method], settings: BootstrapSettings, seed: int
) -> str:
    """The answers for one model."""
    n = model.errors["doc_id"].nunique()
    head = (
        f"**{model.name}** ({_description(model.record)}), {n} documents, {len(methods)} methods:"
    )
    answers = [
        _agreement(model, methods),
        _breaking(model, methods, settings, seed),
        _prediction(model),
        _held_out(model),
        _long_tail(model),
        _tokens(model),
    ]
    answers += [
        answer(model.tables[name], model.folder)
        for name, answer in ANSWERS.items()
        if name in model.tables
    ]
    return head + "\n\n" + "\n".join(f"- {answer}" for answer in answers) + "\n"


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
    times = _times_in_large(model, methods, doc_ids)
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
    last = _last_layer(model).sort_values("pearson", kind="stable")
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


def _last_layer(model: ModelSummary) -> pd.DataFrame:
    """Correlations of norm(r) in the last layer; no rows if the architecture has no r."""
    frame = model.residual_correlation
    return frame[(frame["quantity"] == "r") & (frame["layer"] == frame["layer"].max())]


def _verdict(low: float, high: float, above: str, below: str, neither: str) -> str:
    """Choose words by where an interval lies relative to 0."""
    if low > 0:
        return above
    return below if high < 0 else neither


def _sentence_case(text: str) -> str:
    """Take bold out of a fragment and begin it with a capital."""
    text = text.replace("**", "")
    return text[0].upper() + text[1:]


def _times_in_large(
    model: ModelSummary, methods: Sequence[Method], doc_ids: np.ndarray
) -> np.ndarray:
    """In how many methods' D_large each document is, int [documents]."""
    return np.sum(
        [membership(model.sets, method.name, "large", doc_ids) for method in methods], axis=0
    )


def _model_section(
    model: ModelSummary,
    methods: Sequence[Method],
    documents: pd.DataFrame,
    settings: BootstrapSettings,
    seed: int,
) -> str:
    """Perplexities, worst documents and figures of one model."""
    shown = dict(FIGURES)
    if PATCHING in model.tables:
        shown |= patching_figures(model.tables[PATCHING])
    for name, figures in OPTIONAL_FIGURES.items():
        shown |= figures if name in model.tables else {}
    figures = "\n".join(
        f"- [{text}]({model.folder}/figures/{name}.png)" for name, text in shown.items()
    )
    evaluated = []
    if EVALUATION in model.tables:
        evaluated.append(f"## {model.name}: evaluation sets\n")
        evaluated.append(evaluation_markdown(model.tables[EVALUATION]))
    return "\n".join(
        [
            f"## {model.name}: cost of quantization\n",
            _perplexity_table(model, methods, settings, seed),
            *evaluated,
            f"## {model.name}: the documents that break most often\n",
            "Ordered by how many methods have the document in D_large, then by its mean error "
            "rank. NLL: of the full model, nats per token. Errors: mean over the methods of a bit "
            "width.\n",
            _worst_table(model, methods, documents),
            f"## {model.name}: figures\n",
            figures + "\n",
        ]
    )


def _perplexity_table(
    model: ModelSummary, methods: Sequence[Method], settings: BootstrapSettings, seed: int
) -> str:
    """Perplexity, mean error, KL, flips, and r of residual norm and error, of every method."""
    names = [method.name for method in methods]
    errors = by_document(model.errors, "error", names)
    counts = resample_counts(len(errors), settings, seed)
    draws = mean_draws(errors, np.ones(len(errors), bool), counts)
    intervals = dict(
        zip(names, zip(*summarise(draws, settings.confidence), strict=True), strict=True)
    )
    bits = {method.name: str(method.bits) for method in methods}
    norm = {
        row.method: number_with_interval(row.pearson, row.low, row.high)
        for row in _last_layer(model).itertuples()
    }
    rows = []
    for row in model.perplexity.itertuples():
        cells = ["-"] * 5
        if row.method != FULL:
            flips = f"{100 * row.top1_flip_rate:.1f} %"
            error = number_with_interval(*intervals[row.method])
            cells = [bits[row.method], error, number(row.mean_kl), flips, norm.get(row.method, "-")]
        rows.append([row.method, cells[0], f"{row.perplexity:.2f}", *cells[1:], str(row.n)])
    header = ["method", "bits", "perplexity", "mean error [nats per token]", "mean KL [nats]"]
    return table([*header, "changed top token", "r of last residual norm with error", "n"], rows)


def _worst_table(model: ModelSummary, methods: Sequence[Method], documents: pd.DataFrame) -> str:
    """The documents that are in most methods' D_large, with the beginning of their text."""
    doc_ids = document_ids(model.errors)
    times = _times_in_large(model, methods, doc_ids)
    errors = by_document(model.errors, "error", [method.name for method in methods])
    nll = by_document(model.errors, "nll_full", [methods[0].name])[:, 0]
    rank = np.argsort(np.argsort(-errors, axis=0, kind="stable"), axis=0).mean(axis=1)
    order = np.lexsort((rank, -times))[: min(WORST_DOCUMENTS, np.count_nonzero(times))]
    texts = documents.set_index("doc_id")
    widths = sorted({method.bits for method in methods})
    rows = []
    for index in order:
        document = texts.loc[doc_ids[index]]
        means = [
            errors[index, [method.bits == bits for method in methods]].mean() for bits in widths
        ]
        rows.append(
            [
                f"`{doc_ids[index]}`",
                plain(str(document["source"])),
                f"{times[index]} of {len(methods)}",
                f"{nll[index]:.2f}",
                *(f"{mean:.2f}" for mean in means),
                plain(_excerpt(document["text"])),
            ]
        )
    header = [
        "document",
        "source",
        "in D_large",
        "NLL",
        *(f"error, {bits} bits" for bits in widths),
    ]
    return table([*header, "begins"], rows)


def _excerpt(text: str) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text[: 4 * EXCERPT_CHARACTERS].split())
    return line if len(line) <= EXCERPT_CHARACTERS else line[:EXCERPT_CHARACTERS].rstrip() + " ..."


def _claims_table(claims: pd.DataFrame) -> str:
    """Directions only, one line each."""
    directions = claims[claims["kind"] == "direction"]
    rows = [
        [
            row.verdict,
            f"`{row.claim}`",
            "" if pd.isna(row.model) else row.model,
            number_with_interval(row.measured, row.low, row.high),
            row.expected,
            "" if pd.isna(row.paper_value) else row.paper_value,
            "" if pd.isna(row.n) else f"{row.n:.0f}",
        ]
        for row in directions.itertuples()
    ]
    return table(["verdict", "claim", "model", "measured", "expected", "in the paper", "n"], rows)
