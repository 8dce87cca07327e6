"""Is it rare, hard text that breaks? Errors against the full-precision model's NLL.

Inputs paper (arXiv 2506.12044), long tail: documents that the full-precision model finds hard have
a smaller mean error than those of D_large that it finds easy.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lowbit.analysis.statistics import (
    BootstrapSettings,
    mean_draws,
    require_documents,
    resample_counts,
    summarise_set,
)
from lowbit.analysis.tables import by_document

WIDTH = 0.5
"""Width of a bucket in nats per token; the paper's bounds, 1 and 4, are edges of buckets."""
TAIL = 0.1
"""Share of the documents at each end of the NLL that is compared."""
BUCKET, EASIEST, HARDEST, DIFFERENCE = "bucket", "easiest tenth", "hardest tenth", "difference"

COLUMNS = [
    "method",
    "documents",
    "nll_from",
    "nll_to",
    "n",
    "mean_error",
    "low",
    "high",
    "median_error",
]


def bucket_edges(nll: np.ndarray) -> np.ndarray:
    """Edges of the buckets that hold all NLLs [documents]: multiples of `WIDTH`, ascending."""
    first, last = np.floor(nll.min() / WIDTH), np.floor(nll.max() / WIDTH)
    return WIDTH * np.arange(first, last + 2)


def long_tail_table(
    errors: pd.DataFrame, methods: Sequence[str], settings: BootstrapSettings, seed: int
) -> pd.DataFrame:
    """Errors by bucket of the full-precision NLL, and of the easiest and hardest tenth: `COLUMNS`.

    `documents` is `bucket`, `easiest tenth`, `hardest tenth`, or `difference` (hardest less
    easiest, without a median). A bucket of fewer than `MINIMUM_DOCUMENTS` has no interval.

    Args:
        errors: doc_id, method, error, nll_full.
    """
    error = by_document(errors, "error", methods)
    nll = by_document(errors, "nll_full", methods[:1])[:, 0]
    require_documents(len(nll))
    counts = resample_counts(len(nll), settings, seed)
    groups = _groups(nll)
    draws = [mean_draws(error, member, counts) for _, member, _ in groups]
    rows = []
    for (name, member, edges), found in zip(groups, draws, strict=True):
        median = np.median(error[member], axis=0)
        rows += _rows(methods, name, edges, int(member.sum()), found, median, settings.confidence)
    gap, nothing = draws[-1] - draws[-2], np.full(len(methods), np.nan)
    size = int(groups[-1][1].sum())
    rows += _rows(methods, DIFFERENCE, (np.nan, np.nan), size, gap, nothing, settings.confidence)
    order = {name: place for place, name in enumerate(methods)}
    table = pd.DataFrame(rows, columns=COLUMNS)
    return table.sort_values("method", key=lambda names: names.map(order), kind="stable")


def _groups(nll: np.ndarray) -> list[tuple[str, np.ndarray, tuple[float, float]]]:
    """Name, members (bool [documents]) and NLL bounds: every bucket, then both ends."""
    edges = bucket_edges(nll)
    place = np.digitize(nll, edges) - 1
    groups = [
        (BUCKET, place == index, (edges[index], edges[index + 1]))
        for index in range(len(edges) - 1)
        if (place == index).any()
    ]
    size = max(1, round(TAIL * len(nll)))
    order = np.argsort(nll, kind="stable")
    for name, chosen in ((EASIEST, order[:size]), (HARDEST, order[-size:])):
        member = np.isin(np.arange(len(nll)), chosen)
        groups.append((name, member, (nll[member].min(), nll[member].max())))
    return groups


def _rows(
    methods: Sequence[str],
    name: str,
    edges: tuple[float, float],
    size: int,
    draws: np.ndarray,
    medians: np.ndarray,
    confidence: float,
) -> list[list]:
    """One row per method from draws [1 + R, methods] of a group's mean error."""
    numbers = zip(methods, *summarise_set(draws, confidence, size), medians, strict=True)
    return [
        [method, name, *edges, size, mean, lower, upper, median]
        for method, mean, lower, upper, median in numbers
    ]
