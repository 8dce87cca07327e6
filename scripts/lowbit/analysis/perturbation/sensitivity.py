"""Which projections are sensitive: the same noise on the weights of each alone.

Noise has the norm of the reference quantizer's error in each matrix, so *as quantized* sensitivity
is the error itself. Matrices differ in size and in how well they quantize; *at equal norm* it is
the error per squared norm of the noise, because small noise raises the loss by a quadratic form.
"""

import pandas as pd

from lowbit.analysis.perturbation.effects import CONDITION
from lowbit.experiments.perturbation_conditions import ALL

KEYS = ["projection", "block"]


def sensitivity_table(effects: pd.DataFrame, norms: pd.DataFrame) -> pd.DataFrame:
    """One row per projection and block: error with interval, nats per token, and per squared norm.

    Args:
        effects: rows of perturbation.csv.
        norms: `CONDITION`, seed, module, perturbation.
    """
    alone = effects[effects["projection"] != ALL]
    squared = norms.assign(squared_norm=norms["perturbation"] ** 2)
    sums = squared.groupby([*CONDITION, "seed"], dropna=False)["squared_norm"].sum()
    means = sums.groupby(CONDITION, dropna=False).mean().reset_index()
    found = alone.merge(means, on=CONDITION, how="left", validate="one_to_one")
    for name in ("error", "low", "high"):
        found[f"{name}_per_squared_norm"] = found[name] / found["squared_norm"]
    kept = ["error", "low", "high", "lowest", "highest", "seeds", "n", "size", "squared_norm"]
    per_norm = [f"{name}_per_squared_norm" for name in ("error", "low", "high")]
    return found[[*KEYS, *kept, *per_norm]]


def by_kind(sensitivity: pd.DataFrame) -> pd.DataFrame:
    """Sums over blocks for each projection, and over projections for each block.

    Errors of single matrices add up as long as they are small; what they add up to is compared
    with, not taken for, the error of all together.
    """
    parts = []
    for key in KEYS:
        sums = sensitivity.groupby(key, sort=False)[["error", "squared_norm"]].sum()
        sums = sums.assign(error_per_squared_norm=sums["error"] / sums["squared_norm"])
        parts.append(sums.reset_index(names="name").assign(over=key))
    return pd.concat(parts, ignore_index=True)
