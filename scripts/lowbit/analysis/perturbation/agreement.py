"""Do perturbations hurt the documents that quantizers hurt? Both papers in one table.

Pearson's r over documents between e(x) under a perturbation (mean over seeds) and e(x) of a
quantization method, on the documents that were perturbed. Both errors are noisy, so r is smaller
than it would be between what the two do to a document on average.
"""

import numpy as np
import pandas as pd

from lowbit.analysis.perturbation.effects import CONDITION, PerturbedErrors
from lowbit.analysis.statistics import (
    BootstrapSettings,
    pearson_draws,
    require_documents,
    resample_counts,
    summarise,
)
from lowbit.analysis.tables import by_document

COLUMNS = [*CONDITION, "method", "r", "low", "high", "n"]


def agreement_table(
    perturbed: PerturbedErrors,
    errors: pd.DataFrame,
    methods: list[str],
    settings: BootstrapSettings,
    seed: int,
) -> pd.DataFrame:
    """One row per perturbation and method (`COLUMNS`).

    Args:
        errors: doc_id, method, error; of all documents of the study.

    Raises:
        InputError: too few documents.
    """
    require_documents(len(perturbed.doc_ids))
    mine = errors[errors["doc_id"].isin(perturbed.doc_ids)]
    order = pd.Index(mine["doc_id"].drop_duplicates()).get_indexer(perturbed.doc_ids)
    quantized = by_document(mine, "error", methods)[order]
    counts = resample_counts(len(perturbed.doc_ids), settings, seed)
    varied = np.ptp(perturbed.errors, axis=0) > 0
    draws = pearson_draws(perturbed.errors[:, varied], quantized, counts)
    value, low, high = summarise(draws, settings.confidence)
    conditions = perturbed.conditions.loc[varied, CONDITION].reset_index(drop=True)
    parts = [
        conditions.assign(
            method=method,
            r=value[:, at],
            low=low[:, at],
            high=high[:, at],
            n=len(quantized),
        )
        for at, method in enumerate(methods)
    ]
    return pd.concat(parts, ignore_index=True)[COLUMNS]
