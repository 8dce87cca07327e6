"""The outlier dimensions of the residual stream, and how the norm before the MLP scales them.

Inputs paper, section 4.1: the dimensions where |r| is largest tend to have the smallest |gamma| in
that norm.
"""

import numpy as np
import pandas as pd

SHOWN_OUTLIERS = 5
"""Largest dimensions of a layer that count as outliers."""

COLUMNS = [
    "layer",
    "place",
    "dimension",
    "magnitude",
    "ratio",
    "gamma",
    "gamma_rank",
    "gamma_share",
]


def outlier_dimensions(dimensions: pd.DataFrame) -> pd.DataFrame:
    """Return the largest dimensions of each layer with the rank of their |gamma|.

    Args:
        dimensions: rows of dimensions.parquet: layer, dimension, magnitude (mean of |r|), gamma.

    Returns:
        Per layer and place (1 is the largest): magnitude and its `ratio` to the layer's median,
        gamma, the rank of |gamma| (1 is the smallest) and the share of all other dimensions whose
        |gamma| is smaller (0: none). gamma and what follows are empty where there is no such norm.
    """
    parts = [_largest(layer, rows) for layer, rows in dimensions.groupby("layer")]
    return pd.concat(parts, ignore_index=True)[COLUMNS]


def _largest(layer: int, rows: pd.DataFrame) -> pd.DataFrame:
    size = rows["gamma"].abs()
    rows = rows.assign(
        ratio=rows["magnitude"] / rows["magnitude"].median(),
        gamma_rank=size.rank(method="min"),
        gamma_share=(size.rank(method="average") - 1) / max(len(rows) - 1, 1),
    )
    rows = rows.sort_values("magnitude", ascending=False, kind="stable").head(SHOWN_OUTLIERS)
    return rows.assign(layer=layer, place=np.arange(1, len(rows) + 1))
