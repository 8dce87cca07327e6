"""Does the full-precision model's residual magnitude predict which documents break?

Inputs paper, claim 2: norm(x; q(l)), the mean over tokens of the L2 norm of quantity q after layer
l, is correlated with e(x) over documents, and compared between D_large and D_ctrl. The quantities
are the residual stream after attention (r), after the MLP (z), and the normalised MLP input (h).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lowbit.analysis.statistics import (
    BootstrapSettings,
    mean_draws,
    pearson_draws,
    require_documents,
    require_variation,
    resample_counts,
    spearman_draws,
    summarise,
    summarise_set,
)
from lowbit.analysis.tables import (
    KURTOSES,
    QUANTITIES,
    by_document,
    document_ids,
    membership,
    norms_by_document,
    present_quantities,
)

CORRELATION_COLUMNS = ["method", "quantity", "layer", "pearson", "low", "high", "spearman", "n"]
SET_COLUMNS = ["method", "quantity", "layer", "set", "mean", "low", "high", "n"]

RATIO = "ratio"
DIFFERENCE = "difference"


def norm_error_draws(norms: np.ndarray, errors: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pearson's r of norms with errors -> draws [1 + R, methods, quantity, layer].

    Args:
        norms: [documents, quantity, layer].
        errors: e(x) [documents, methods].
    """
    flat = norms.reshape(len(norms), -1)
    draws = pearson_draws(errors, flat, counts)
    return draws.reshape(len(counts), errors.shape[1], *norms.shape[1:])


def set_draws(
    norms: np.ndarray, large: np.ndarray, control: np.ndarray, counts: np.ndarray
) -> dict[str, np.ndarray]:
    """Mean norms by set, their difference and ratio -> draws [1 + R, quantity, layer].

    Args:
        norms: [documents, quantity, layer].
        large, control: bool [documents].
    """
    flat = norms.reshape(len(norms), -1)
    shape = (len(counts), *norms.shape[1:])
    in_large = mean_draws(flat, large, counts).reshape(shape)
    in_control = mean_draws(flat, control, counts).reshape(shape)
    return {
        "large": in_large,
        "control": in_control,
        DIFFERENCE: in_large - in_control,
        RATIO: in_large / in_control,
    }


def residual_correlations(
    residuals: pd.DataFrame,
    frame: pd.DataFrame,
    methods: Sequence[str],
    settings: BootstrapSettings,
    seed: int,
) -> pd.DataFrame:
    """Correlate every norm with every method's error: one row per method, quantity and layer.

    A quantity that the architecture does not have has no rows.
    """
    norms, quantities, layers = _present_norms(residuals, document_ids(frame))
    errors = by_document(frame, "error", methods)
    require_documents(len(errors))
    require_variation(errors, methods, "the error")
    counts = resample_counts(len(errors), settings, seed)
    r, low, high = summarise(norm_error_draws(norms, errors, counts), settings.confidence)
    rho = spearman_draws(errors, norms.reshape(len(norms), -1), np.ones((1, len(norms))))
    rho = rho[0].reshape(r.shape)
    rows = [
        [method, quantity, layer, r[i, j, k], low[i, j, k], high[i, j, k], rho[i, j, k], len(norms)]
        for i, method in enumerate(methods)
        for j, quantity in enumerate(quantities)
        for k, layer in enumerate(layers)
    ]
    return pd.DataFrame(rows, columns=CORRELATION_COLUMNS)


def norms_by_set(
    residuals: pd.DataFrame,
    frame: pd.DataFrame,
    sets: pd.DataFrame,
    methods: Sequence[str],
    settings: BootstrapSettings,
    seed: int,
) -> pd.DataFrame:
    """Mean norm in D_large and D_ctrl by layer, with their difference (large - control) and ratio.

    Beside the norms it has the kurtoses `r_kurtosis` and `h_kurtosis`. The reversal effect: in the
    upper half of the layers the ratio is below 1 for r and above 1 for h. A quantity that the
    architecture does not have has no rows, and a set of fewer than `MINIMUM_DOCUMENTS` no interval.
    """
    doc_ids = document_ids(frame)
    norms, quantities, layers = _present_norms(residuals, doc_ids, (*QUANTITIES, *KURTOSES))
    counts = resample_counts(len(doc_ids), settings, seed)
    rows = []
    for method in methods:
        large = membership(sets, method, "large", doc_ids)
        control = membership(sets, method, "control", doc_ids)
        sizes = {"large": int(large.sum()), "control": int(control.sum())}
        for name, draws in set_draws(norms, large, control, counts).items():
            n, fewest = sizes.get(name, sum(sizes.values())), sizes.get(name, min(sizes.values()))
            keys = [(quantity, layer) for quantity in quantities for layer in layers]
            numbers = summarise_set(draws, settings.confidence, fewest)
            rows += [
                [method, quantity, layer, name, *row, n]
                for (quantity, layer), *row in zip(keys, *map(np.ravel, numbers), strict=True)
            ]
    return pd.DataFrame(rows, columns=SET_COLUMNS)


def _present_norms(
    residuals: pd.DataFrame, doc_ids: np.ndarray, wanted: Sequence[str] = QUANTITIES
) -> tuple[np.ndarray, list[str], list[int]]:
    """Norms [documents, quantity, layer] of what the architecture has, its quantities, layers."""
    norms, layers = norms_by_document(residuals, doc_ids, wanted)
    quantities = present_quantities(norms, wanted)
    return norms[:, [wanted.index(name) for name in quantities]], quantities, layers
