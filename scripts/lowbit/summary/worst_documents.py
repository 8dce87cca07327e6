"""The documents that break most often, with the beginning of their text."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lowbit.analysis.tables import Method, by_document, document_ids
from lowbit.markdown import plain, table
from lowbit.summary.model import ModelSummary

WORST_DOCUMENTS = 10
EXCERPT_CHARACTERS = 90


def worst_table(model: ModelSummary, methods: Sequence[Method], documents: pd.DataFrame) -> str:
    """The documents that are in most methods' D_large, with the beginning of their text."""
    doc_ids = document_ids(model.errors)
    times = model.times_in_large(methods, doc_ids)
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
