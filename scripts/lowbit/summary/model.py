"""What the summary knows of a model of the study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from lowbit.analysis.tables import Method, membership
from lowbit.names import LARGE


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

    @property
    def last_layer(self) -> pd.DataFrame:
        """Correlations of norm(r) in the last layer; no rows if the architecture has no r."""
        frame = self.residual_correlation
        return frame[(frame["quantity"] == "r") & (frame["layer"] == frame["layer"].max())]

    def times_in_large(self, methods: Sequence[Method], doc_ids: np.ndarray) -> np.ndarray:
        """In how many methods' D_large each document is, int [documents]."""
        return np.sum(
            [membership(self.sets, method.name, LARGE, doc_ids) for method in methods], axis=0
        )
