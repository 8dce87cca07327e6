"""How the size of a quantizer's error goes with the size of the value it belongs to.

Perturbation paper: uniform quantization's error is independent of |x|; that of a power function's
grid grows as |x|**(1 - p).
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import pearsonr, spearmanr

from lowbit.errors import InputError

BINS = 20
ALL, RESOLVED = "all", "not rounded to 0"


class Relation(NamedTuple):
    """|error| against |x|: correlations, and d log(RMS error) / d log |x| over bins of |x|."""

    pearson: float
    spearman: float
    slope: float


def error_magnitude(x: np.ndarray, quantized: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """Relate |Q(x) - x| to |x|, for all values and for those that did not become 0.

    A value that is rounded to 0 has the error |x| under any quantizer. That is arithmetic, no
    property of the grid, so the values that are resolved have a row of their own. Independence is
    a property of fine grids: where few levels are in use, neither row shows it.

    Args:
        x, quantized: of one shape, and of one range: where rows or groups have ranges of their own,
            divide both by these first. Otherwise large groups have large values and large errors,
            whatever holds within a group.

    Returns:
        A row per set of `values`: `n`, their `share` of all, `pearson`, `spearman`, `slope`. nan
        where |x| or |error| does not vary.

    Raises:
        InputError: shapes differ, values are not finite, or fewer than two per bin.
    """
    magnitude, error = _flat(x, quantized, bins)
    resolved = np.asarray(quantized).reshape(-1) != 0
    rows = []
    for values, chosen in {ALL: np.full(len(error), True), RESOLVED: resolved}.items():
        found = relate(magnitude[chosen], error[chosen], bins)
        rows.append([values, int(chosen.sum()), chosen.mean(), *found])
    return pd.DataFrame(rows, columns=["values", "n", "share", *Relation._fields])


def error_by_magnitude(x: np.ndarray, quantized: np.ndarray, bins: int = BINS) -> pd.DataFrame:
    """RMS error of equally many values each, from small |x| to large.

    Args:
        x, quantized: as for `error_magnitude`, which also says what is refused.

    Returns:
        A row per bin: median `magnitude` |x|, RMS `error`, `n`.
    """
    return _binned(*_flat(x, quantized, bins), bins)


def relate(magnitude: np.ndarray, error: np.ndarray, bins: int) -> Relation:
    """Relate |error| to |x|, both `[n]`."""
    if len(error) < 2 * bins or np.ptp(magnitude) == 0 or np.ptp(error) == 0:
        return Relation(np.nan, np.nan, np.nan)
    table = _binned(magnitude, error, bins)
    inside = table[(table["magnitude"] > 0) & (table["error"] > 0)]
    logs = np.log(inside[["magnitude", "error"]].to_numpy())
    slope = np.polyfit(*logs.T, 1)[0] if len(logs) > 1 else np.nan
    return Relation(
        float(pearsonr(magnitude, error).statistic),
        float(spearmanr(magnitude, error).statistic),
        float(slope),
    )


def _binned(magnitude: np.ndarray, error: np.ndarray, bins: int) -> pd.DataFrame:
    parts = np.array_split(np.argsort(magnitude, kind="stable"), bins)
    rows = [
        [np.median(magnitude[part]), np.sqrt(np.mean(error[part] ** 2)), len(part)]
        for part in parts
    ]
    return pd.DataFrame(rows, columns=["magnitude", "error", "n"])


def _flat(x: np.ndarray, quantized: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """|x| and |Q(x) - x|, float64 `[n]`."""
    x, quantized = np.asarray(x, float), np.asarray(quantized, float)
    if x.shape != quantized.shape:
        raise InputError(f"values of shape {x.shape} have quantized ones of {quantized.shape}")
    if x.size < 2 * bins:
        raise InputError(f"{x.size} values are too few for {bins} bins: give {2 * bins} or more")
    magnitude, error = np.abs(x).reshape(-1), np.abs(quantized - x).reshape(-1)
    if not np.isfinite(error).all():
        raise InputError("values that are NaN or infinite have no error to relate")
    return magnitude, error
