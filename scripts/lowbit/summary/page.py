"""The summary of a study in plain words: the answer first, then what it rests on."""

from collections.abc import Sequence

import pandas as pd

from lowbit.analysis.evaluation import evaluation_markdown
from lowbit.analysis.statistics import BootstrapSettings
from lowbit.analysis.tables import Method
from lowbit.claims.report import counts_sentence
from lowbit.summary.answers import answers
from lowbit.summary.figures import figure_links
from lowbit.summary.model import ModelSummary
from lowbit.summary.optional_stages import EVALUATION
from lowbit.summary.tables import claims_table, perplexity_table
from lowbit.summary.worst_documents import worst_table

EMBEDDED = (
    "The embedded model is a very small one, trained for this project so that the whole study runs "
    "on a laptop. It is none of the paper's models: it can show whether an effect's direction is "
    "there, and no more. The paper's figures bind only for the paper's own models."
)
OTHER = "The paper's figures bind only for the paper's own models, methods and text."


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
    parts += [answers(model, methods, settings, seed) for model in models]
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
    parts.append("## Claims\n\n" + claims_table(claims))
    return "\n".join(parts)


def _sentence_case(text: str) -> str:
    """Take bold out of a fragment and begin it with a capital."""
    text = text.replace("**", "")
    return text[0].upper() + text[1:]


def _model_section(
    model: ModelSummary,
    methods: Sequence[Method],
    documents: pd.DataFrame,
    settings: BootstrapSettings,
    seed: int,
) -> str:
    """Perplexities, worst documents and figures of one model."""
    evaluated = []
    if EVALUATION in model.tables:
        evaluated.append(f"## {model.name}: evaluation sets\n")
        evaluated.append(evaluation_markdown(model.tables[EVALUATION]))
    return "\n".join(
        [
            f"## {model.name}: cost of quantization\n",
            perplexity_table(model, methods, settings, seed),
            *evaluated,
            f"## {model.name}: the documents that break most often\n",
            "Ordered by how many methods have the document in D_large, then by its mean error "
            "rank. NLL: of the full model, nats per token. Errors: mean over the methods of a bit "
            "width.\n",
            worst_table(model, methods, documents),
            f"## {model.name}: figures\n",
            figure_links(model) + "\n",
        ]
    )
