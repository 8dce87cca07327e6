"""Our documents of large error beside the D_large that the inputs paper's authors released.

The documents are theirs, so each method's sets are known: how many of their D_large are among as
many documents with our largest errors? (arXiv 2506.12044; `lowbit.inputs.released_sets`)
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lowbit.analysis.statistics import (
    BootstrapSettings,
    estimate,
    expected_jaccard,
    jaccard_draws,
    resample_counts,
    top_counts,
)
from lowbit.analysis.tables import Method, by_document, document_ids, membership

SETS = {"large": "large", "nonlarge": "control"}
"""The authors' names of the sets -> ours."""


def released_sets(documents: pd.DataFrame) -> pd.DataFrame:
    """Say which released sets each document is in: doc_id, method (theirs: `awq3`), set.

    Args:
        documents: doc_id and source, which names the sets: `awq3-large nf3-nonlarge`.
    """
    rows = [
        (doc_id, method, SETS[part])
        for doc_id, source in zip(documents["doc_id"], documents["source"], strict=True)
        for method, _, part in (name.rpartition("-") for name in source.split())
    ]
    return pd.DataFrame(rows, columns=["doc_id", "method", "set"])


def label(method: Method) -> str:
    """What the authors call a method: `awq3`."""
    return f"{method.quantizer}{method.bits}"


def agreement_draws(
    error: np.ndarray, theirs: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Draws [1 + R] of how the documents with the largest errors agree with a set of as many.

    Args:
        error: e(x) [documents].
        theirs: bool [documents].
        counts: resamples [1 + R, documents].

    Returns:
        Jaccard index, and precision: the share of ours that are theirs.
    """
    ours = top_counts(error, int(theirs.sum()), counts)
    common = np.where(theirs, ours, 0).sum(axis=1) / ours.sum(axis=1)
    return jaccard_draws(ours, np.where(theirs, counts, 0)), common


def agreement_table(
    errors: pd.DataFrame,
    sets: pd.DataFrame,
    released: pd.DataFrame,
    methods: Sequence[Method],
    settings: BootstrapSettings,
    seed: int,
) -> pd.DataFrame:
    """One row per method that sets were released of.

    Args:
        errors: of all methods and documents.
        sets: ours (doc_id, method, set).
        released: theirs, of `released_sets`.

    Returns:
        method, released, n documents, theirs (size of their D_large among these), jaccard and
        precision of the documents with our largest errors, as many, each with low, high and
        chance; large (size of our D_large) and large_precision (its share that is theirs).
    """
    doc_ids = document_ids(errors)
    counts = resample_counts(len(doc_ids), settings, seed)
    rows = []
    for method in methods:
        theirs = membership(released, label(method), "large", doc_ids)
        if not theirs.any():
            continue
        error = by_document(errors, "error", [method.name])[:, 0]
        size, n = int(theirs.sum()), len(doc_ids)
        jaccard, precision = agreement_draws(error, theirs, counts)
        large = membership(sets, method.name, "large", doc_ids)
        rows.append(
            {"method": method.name, "released": label(method), "n": n, "theirs": size}
            | _with_interval("jaccard", jaccard, expected_jaccard(size, size, n), settings)
            | _with_interval("precision", precision, size / n, settings)
            | {"large": int(large.sum()), "large_precision": float(theirs[large].mean())}
        )
    return pd.DataFrame(rows, columns=COLUMNS)


COLUMNS = [
    *("method", "released", "n", "theirs"),
    *("jaccard", "jaccard_low", "jaccard_high", "jaccard_chance"),
    *("precision", "precision_low", "precision_high", "precision_chance"),
    *("large", "large_precision"),
]


def _with_interval(
    name: str, draws: np.ndarray, chance: float, settings: BootstrapSettings
) -> dict[str, float]:
    """Columns of one measure."""
    value, low, high = estimate(draws, settings.confidence)
    return {name: value, f"{name}_low": low, f"{name}_high": high, f"{name}_chance": chance}
