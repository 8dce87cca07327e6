"""What is predicted, from what, and the predictions themselves, as arrays and as a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lowbit.analysis.tables import by_document, document_ids, membership

FEATURE_SETS = {
    "norm": ("norm",),
    "norms": ("norms",),
    "nll": ("nll",),
    "text": ("text",),
    "nll+text": ("nll", "text"),
    "norm+nll+text": ("norm", "nll", "text"),
    "all": ("norms", "nll", "text"),
}
"""Feature set -> the blocks of features it joins; see `Features`."""
BASELINE = "nll+text"
"""What can be known without looking inside the model."""
ADDED = {"norm": "norm+nll+text", "norms": "all"}
"""What is added to the baseline -> the feature set that has both."""
EVERYTHING = "all"

ERROR, LARGE = "error", "large"
"""What is predicted: e(x), or membership of D_large against D_ctrl."""


@dataclass(frozen=True)
class Targets:
    """What is predicted of every document: e(x), and the two sets of each method."""

    methods: Sequence[str]
    error: np.ndarray
    """e(x) [documents, methods]."""
    large: np.ndarray
    """In D_large, bool [documents, methods]."""
    control: np.ndarray
    """In D_ctrl, bool [documents, methods]."""


def make_targets(errors: pd.DataFrame, sets: pd.DataFrame) -> Targets:
    """Collect the targets of every method from errors.parquet and sets.parquet."""
    methods, doc_ids = list(errors["method"].unique()), document_ids(errors)

    def members(name: str) -> np.ndarray:
        return np.stack([membership(sets, m, name, doc_ids) for m in methods], axis=1)

    error = by_document(errors, "error", methods)
    return Targets(methods, error, members("large"), members("control"))


@dataclass(frozen=True)
class Predictions:
    """Predictions for held-out documents, [methods, feature sets, documents]; nan: none.

    `notes` says for (target, method, feature set) why there are none.
    """

    methods: Sequence[str]
    error: np.ndarray
    """Predicted e(x), nats per token."""
    baseline: np.ndarray
    """Mean e(x) of the training documents [methods, documents]: what is predicted from nothing."""
    score: np.ndarray
    """Log-odds of D_large against D_ctrl less their mean over the training documents of these sets.

    The mean differs between folds, and is lower where the held-out documents have more of D_large.
    """
    notes: Mapping[tuple[str, str, str], str]

    def of(self, target: str, features: str) -> np.ndarray:
        """What orders documents by one target, from one feature set: [methods, documents]."""
        place = list(FEATURE_SETS).index(features)
        return self.score[:, place] if target == LARGE else self.error[:, place] - self.baseline


def predictions_table(predictions: Predictions, doc_ids: Sequence[str]) -> pd.DataFrame:
    """One row per method, feature set and document, in this order (of the arrays).

    Columns doc_id, method, features, predicted_error, baseline, score, and why there is none:
    error_note, score_note.
    """
    shape = predictions.error.shape
    method, features, document = np.indices(shape, dtype=np.int32).reshape(3, -1)
    baseline = np.broadcast_to(predictions.baseline[:, None], shape)
    return pd.DataFrame(
        {
            "doc_id": pd.Categorical.from_codes(document, list(doc_ids)),
            "method": pd.Categorical.from_codes(method, list(predictions.methods)),
            "features": pd.Categorical.from_codes(features, list(FEATURE_SETS)),
            "predicted_error": predictions.error.ravel(),
            "baseline": baseline.ravel(),
            "score": predictions.score.ravel(),
            "error_note": _notes_column(predictions, ERROR),
            "score_note": _notes_column(predictions, LARGE),
        }
    )


def _notes_column(predictions: Predictions, target: str) -> pd.Categorical:
    """The notes on one target, repeated for every document."""
    documents = predictions.error.shape[-1]
    notes = [
        predictions.notes.get((target, method, features), "")
        for method in predictions.methods
        for features in FEATURE_SETS
    ]
    return pd.Categorical(notes).repeat(documents)


def predictions_from_table(table: pd.DataFrame) -> Predictions:
    """Turn what `predictions_table` made into arrays again."""
    methods = list(dict.fromkeys(table["method"]))
    shape = (len(methods), len(FEATURE_SETS), -1)
    error, baseline, score = (
        table[column].to_numpy(float).reshape(shape)
        for column in ("predicted_error", "baseline", "score")
    )
    first = table.drop_duplicates(["method", "features"])
    notes = {
        (target, row.method, row.features): note
        for row in first.itertuples()
        for target, note in ((ERROR, row.error_note), (LARGE, row.score_note))
        if note
    }
    return Predictions(methods, error, baseline[:, 0], score, notes)
