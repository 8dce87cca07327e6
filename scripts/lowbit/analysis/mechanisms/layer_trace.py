"""Early exit and amplification: where in depth a quantized model departs (inputs paper, 4.1-2)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lowbit.analysis.statistics import (
    BootstrapSettings,
    mean_draws,
    pearson_draws,
    resample_counts,
    summarise,
    summarise_set,
)
from lowbit.analysis.tables import document_ids, membership, norms_by_document
from lowbit.names import FULL, SETS

EXIT_COLUMNS = [
    "method",
    "sets_of",
    "set",
    "model",
    "quantity",
    "layer",
    "nll",
    "low",
    "high",
    "n",
]
AMPLIFICATION_COLUMNS = [
    "method",
    "layer",
    "mean_squared_difference",
    "pearson",
    "low",
    "high",
    "n",
]


def by_layer(frame: pd.DataFrame, value: str, doc_ids: np.ndarray) -> np.ndarray:
    """Turn rows (doc_id, layer, `value`) into [documents, layers]; nan where one has no rows."""
    wide = frame.pivot(index="doc_id", columns="layer", values=value)
    return wide.reindex(doc_ids)[sorted(wide.columns)].to_numpy(float)


def exit_curves(
    exits: pd.DataFrame,
    sets: pd.DataFrame,
    doc_ids: np.ndarray,
    methods: Sequence[str],
    settings: BootstrapSettings,
    seed: int,
) -> pd.DataFrame:
    """Mean early-exit NLL by layer of the full and each quantized model, on D_large and D_ctrl.

    A set of fewer than `MINIMUM_DOCUMENTS` has no interval.

    Args:
        exits: model, sets_of, quantity (r, z), doc_id, layer, nll; documents in that method's sets.
        doc_ids: all documents of the study, for resamples that are paired with other tables'.
    """
    counts = resample_counts(len(doc_ids), settings, seed)
    of = exit_sets(exits)
    rows = []
    groups = exits.groupby(["model", "sets_of", "quantity"], sort=False)
    for (model, sets_of, quantity), frame in groups:
        nll = by_layer(frame, "nll", doc_ids)
        mine = [method for method in methods if of[method] == sets_of]
        for method in mine if model == FULL else [model]:
            for name in SETS:
                member = membership(sets, sets_of, name, doc_ids)
                draws, n = mean_draws(nll, member, counts), int(member.sum())
                numbers = summarise_set(draws, settings.confidence, n)
                keys = [method, sets_of, name, model, quantity]
                rows += [
                    [*keys, layer, *values, n]
                    for layer, values in enumerate(zip(*numbers, strict=True), 1)
                ]
    return pd.DataFrame(rows, columns=EXIT_COLUMNS)


def exit_sets(exits: pd.DataFrame) -> dict[str, str]:
    """Whose D_large and D_ctrl each quantized model was read out on, by the model's method."""
    read = exits.loc[exits["model"] != FULL, ["model", "sets_of"]].drop_duplicates()
    return dict(read.itertuples(index=False, name=None))


def amplification(
    differences: pd.DataFrame,
    residuals: pd.DataFrame,
    methods: Sequence[str],
    settings: BootstrapSettings,
    seed: int,
) -> pd.DataFrame:
    """Pearson's r, by layer, of norm(h) with the squared difference of the MLPs' outputs.

    Args:
        differences: method, doc_id, layer, mean_squared_difference.
        residuals: doc_id, layer, h of the full-precision model.
    """
    doc_ids = document_ids(differences)
    norms = norms_by_document(residuals, doc_ids, ["h"])[0][:, 0]
    counts = resample_counts(len(doc_ids), settings, seed)
    rows = []
    for method in methods:
        frame = differences[differences["method"] == method]
        squared = by_layer(frame, "mean_squared_difference", doc_ids)
        numbers = summarise(amplification_draws(squared, norms, counts), settings.confidence)
        rows += [
            [method, layer, squared[:, layer - 1].mean(), *values, len(doc_ids)]
            for layer, values in enumerate(zip(*numbers, strict=True), 1)
        ]
    return pd.DataFrame(rows, columns=AMPLIFICATION_COLUMNS)


def amplification_draws(squared: np.ndarray, norms: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pearson's r of two arrays [documents, layers], layer by layer -> draws [1 + R, layers]."""
    draws = [
        pearson_draws(squared[:, [layer]], norms[:, [layer]], counts)[:, 0, 0]
        for layer in range(squared.shape[1])
    ]
    return np.stack(draws, axis=1)
