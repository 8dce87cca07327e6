"""What the documents that break are about: their topics, beside those of all documents.

Inputs paper (arXiv 2506.12044): D_large spans all topics of the WebOrganizer scheme, and no topic
holds more than 12 % of it.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lowbit.analysis.statistics import (
    MINIMUM_DOCUMENTS,
    BootstrapSettings,
    mean_draws,
    resample_counts,
    summarise,
)
from lowbit.analysis.tables import MEAN_OF_METHODS, by_document, document_ids, membership
from lowbit.markdown import number_with_interval
from lowbit.names import LARGE

COLUMNS = [
    "method",
    "topic",
    "n",
    "share",
    "n_large",
    "share_large",
    "low",
    "high",
    "excess",
    "excess_low",
    "excess_high",
    "mean_error",
    "error_low",
    "error_high",
]


def one_hot(topics: pd.DataFrame, labels: Sequence[str], doc_ids: np.ndarray) -> np.ndarray:
    """Which topic each document has: float64 [documents, labels], one 1 in each row.

    Args:
        topics: doc_id, topic.
    """
    of_document = topics.set_index("doc_id")["topic"].loc[doc_ids].to_numpy()
    return (of_document[:, None] == np.array(labels)).astype(float)


def topics_table(
    topics: pd.DataFrame,
    labels: Sequence[str],
    errors: pd.DataFrame,
    sets: pd.DataFrame,
    methods: Sequence[str],
    settings: BootstrapSettings,
    seed: int,
) -> pd.DataFrame:
    """One row per method and topic, then the mean of the methods (`COLUMNS`).

    `n`, `share`: of all documents; `n_large`, `share_large` with interval: of D_large, whose
    documents stay in it in every resample; `excess`: share_large less share; `mean_error`: of the
    topic's documents, nats per token. Without interval where there are fewer than
    `MINIMUM_DOCUMENTS`: of the topic for its error, in D_large for the rest.

    Args:
        topics: doc_id, topic.
        labels: all topics that the classifier knows.
        errors: doc_id, method, error.
        sets: doc_id, method, set.
        methods: in the order of the table.
    """
    doc_ids = document_ids(errors)
    of_topic = one_hot(topics, labels, doc_ids)
    counts = resample_counts(len(doc_ids), settings, seed)
    large = np.stack([membership(sets, name, LARGE, doc_ids) for name in methods])
    error = by_document(errors, "error", methods)
    columns = [
        np.array([*methods, MEAN_OF_METHODS])[:, None],
        np.array(labels),
        *_shares(of_topic, large, counts, settings.confidence),
        *_errors(of_topic, error, counts, settings.confidence),
    ]
    shape = len(methods) + 1, len(labels)
    flat = [np.broadcast_to(column, shape).ravel() for column in columns]
    return pd.DataFrame(dict(zip(COLUMNS, flat, strict=True)))


def _shares(
    of_topic: np.ndarray, large: np.ndarray, counts: np.ndarray, confidence: float
) -> list[np.ndarray]:
    """Columns from `n` to `excess_high`, [methods + 1, labels] or [labels]."""
    everyone = mean_draws(of_topic, np.ones(len(of_topic), bool), counts)[:, None]
    share = np.stack([mean_draws(of_topic, member, counts) for member in large], axis=1)
    share = _with_mean(share, axis=1)  # [1 + R, methods + 1, labels]
    sizes = large.sum(axis=1)
    few = np.array([*sizes, min(sizes)])[:, None] < MINIMUM_DOCUMENTS
    return [
        of_topic.sum(axis=0).astype(int),
        everyone[0],
        _with_mean(large @ of_topic, axis=0),
        *_summarise(share, few, confidence),
        *_summarise(share - everyone, few, confidence),
    ]


def _errors(
    of_topic: np.ndarray, error: np.ndarray, counts: np.ndarray, confidence: float
) -> list[np.ndarray]:
    """Columns from `mean_error` on, [methods + 1, labels]."""
    loss = np.stack([mean_draws(error, column == 1, counts) for column in of_topic.T], axis=2)
    few = of_topic.sum(axis=0)[None, :] < MINIMUM_DOCUMENTS
    return _summarise(_with_mean(loss, axis=1), few, confidence)


def _with_mean(values: np.ndarray, axis: int) -> np.ndarray:
    """Add the mean over methods behind them."""
    return np.concatenate([values, values.mean(axis=axis, keepdims=True)], axis=axis)


def _summarise(draws: np.ndarray, few: np.ndarray, confidence: float) -> list[np.ndarray]:
    """Values of draws [1 + R, methods, labels] with bounds, which are nan where `few` is true."""
    known = np.broadcast_to(~few, draws.shape[1:])
    found = [draws[0], *(np.full(draws.shape[1:], np.nan) for _ in range(2))]
    if known.any():
        for place, bound in zip(found[1:], summarise(draws[:, known], confidence)[1:], strict=True):
            place[known] = bound
    return found


def topics_answer(table: pd.DataFrame, folder: str) -> str:
    """Say for the summary whether what breaks is of one topic.

    Args:
        table: rows of topics.csv.
        folder: of the model's results, for the link.
    """
    question = "*Is it one topic that breaks?*"
    mean = table[table["method"] == MEAN_OF_METHODS].set_index("topic")
    if mean["low"].isna().all():
        return f"{question} Not measured: D_large has too few documents."
    first = mean.loc[mean["share_large"].idxmax()]
    present = (mean["n_large"] > 0).sum()
    more, less = mean[mean["excess_low"] > 0], mean[mean["excess_high"] < 0]
    text = (
        f"{question} D_large has documents of {present} of {len(mean)} topics; most are of "
        f"“{first.name}”, a share of {_interval(first, 'share_large', 'low', 'high')} "
        f"({first['share']:.2f} of all documents; mean of methods)."
    )
    for rows, word, ascending in ((more, "More", False), (less, "Fewer", True)):
        named = rows.sort_values("excess", ascending=ascending, kind="stable").head(3)
        parts = [
            f"“{topic}” ({_interval(row, 'excess', 'excess_low', 'excess_high')})"
            for topic, row in named.iterrows()
        ]
        found = ", ".join(parts) if parts else "none"
        text += f" {word} than among all documents, interval on one side of 0: {found}."
    return (
        f"{text} Of {len(mean)} intervals some are on one side by chance. All: "
        f"[topics.csv]({folder}/topics.csv)."
    )


def _interval(row: pd.Series, *columns: str) -> str:
    return number_with_interval(*row[list(columns)])
