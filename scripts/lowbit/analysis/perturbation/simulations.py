"""Uniform against non-uniform quantization of weights and activations: errors beside SQNR.

SQNR is the energy of x over that of its error, in decibels, over all projections. It tells how well
x is represented and not how much the model minds: both are shown, because MSE alone misleads
(DACQ, arXiv 2603.00364).
"""

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from lowbit.analysis.statistics import (
    BootstrapSettings,
    mean_draws,
    resample_counts,
    summarise,
)
from lowbit.experiments.simulation_settings import UNIFORMS

SIMULATION = [
    "setting",
    "weight_bits",
    "activation_bits",
    "transform",
    "weights_per",
    "activations_per",
]
AGAINST = ["against_uniform", "against_uniform_low", "against_uniform_high"]
CELL = ["setting", "weights_per", "activations_per"]
"""Within one of these, only the transform differs."""


def simulation_table(
    scores: pd.DataFrame, sizes: pd.DataFrame, settings: BootstrapSettings, seed: int
) -> pd.DataFrame:
    """One row per simulation: mean error over documents with interval, and SQNR in dB.

    `against_uniform`: the error less that of the uniform grid in the same cell, with interval; of
    the better one, where there is an asymmetric grid beside the symmetric.

    Args:
        scores: `SIMULATION`, doc_id, nll, nll_full.
        sizes: `SIMULATION`, target, module, signal, noise.
    """
    number = scores.groupby(SIMULATION, sort=False).ngroup()
    scores = scores.assign(error=scores["nll"] - scores["nll_full"], number=number)
    wide = scores.pivot(index="doc_id", columns="number", values="error")
    # In the table's order, so that resamples are those of the claims.
    errors = wide.loc[scores["doc_id"].drop_duplicates()].to_numpy()
    rows = scores.drop_duplicates("number")[SIMULATION].reset_index(drop=True)
    counts = resample_counts(len(errors), settings, seed)
    draws = mean_draws(errors, np.ones(len(errors), bool), counts)
    value, low, high = summarise(draws, settings.confidence)
    rows = rows.assign(error=value, low=low, high=high, n=len(errors))
    rows[AGAINST] = np.nan
    for _, cell in rows.groupby(CELL, sort=False):
        uniform = cell[cell["transform"].isin(UNIFORMS)]
        if uniform.empty:
            continue
        baseline = draws[:, uniform["error"].idxmin()]
        against = summarise(draws[:, cell.index] - baseline[:, None], settings.confidence)
        rows.loc[cell.index, AGAINST] = np.column_stack(against)
    return rows.merge(sqnr_table(sizes), on=SIMULATION, how="left", validate="one_to_one")


def sqnr_table(sizes: pd.DataFrame) -> pd.DataFrame:
    """SQNR in dB of each simulation: `sqnr_weights` and `sqnr_activations`."""
    sums = sizes.groupby([*SIMULATION, "target"])[["signal", "noise"]].sum()
    with np.errstate(divide="ignore"):
        decibels = 10 * np.log10(sums["signal"] / sums["noise"])
    wide = decibels.unstack("target").add_prefix("sqnr_")
    return wide.reindex(columns=["sqnr_weights", "sqnr_activations"]).reset_index()


def best_transforms(simulations: pd.DataFrame) -> pd.DataFrame:
    """One row per cell: the transform of the least error, that of the highest SQNR, and agreement.

    `surely`: whether a non-uniform transform is the best, and its error below that of the better
    uniform grid by its whole interval. The interval does not know that it was picked.
    `rank_correlation`: Spearman's rho of SQNR and error over the transforms of the cell (-1: SQNR
    tells all); of weights, and of activations where these are quantized too.
    """
    rows = []
    for key, cell in simulations.groupby(CELL, sort=False):
        measure = "sqnr_weights" if cell["sqnr_activations"].isna().all() else "sqnr_activations"
        best = cell.loc[cell["error"].idxmin()]
        clearest = cell.loc[cell[measure].idxmax()]
        several = len(cell) > 2
        rows.append(
            {
                **dict(zip(CELL, key, strict=True)),
                "best": best["transform"],
                "error": best["error"],
                "low": best["low"],
                "high": best["high"],
                "against_uniform": best["against_uniform"],
                "surely": best["transform"] not in UNIFORMS
                and bool(best["against_uniform_high"] < 0),
                "best_by_sqnr": clearest["transform"],
                "error_of_best_by_sqnr": clearest["error"],
                "rank_correlation": spearmanr(cell[measure], cell["error"]).statistic
                if several
                else np.nan,
                "transforms": len(cell),
            }
        )
    return pd.DataFrame(rows)
