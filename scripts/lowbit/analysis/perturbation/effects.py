"""How much each perturbation raises the NLL, and by how much it changed what (arXiv 2403.06408)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lowbit.analysis.statistics import (
    BootstrapSettings,
    mean_draws,
    resample_counts,
    summarise,
)
from lowbit.analysis.tables import matching
from lowbit.experiments.perturbation_conditions import (
    ALL,
    GAUSSIAN,
    INDEPENDENT,
    MATCHED,
    NOISE,
)

CONDITION = [
    "target",
    "change",
    "distribution",
    "relation",
    "per",
    "intensity",
    "quantile",
    "projection",
    "block",
]
"""What tells perturbations apart, but for the seed."""


@dataclass(frozen=True)
class PerturbedErrors:
    """Errors e(x) = NLL(perturbed) - NLL(full precision) of the documents."""

    doc_ids: np.ndarray
    """[documents]"""
    conditions: pd.DataFrame
    """One row per condition (`CONDITION`), with `seeds` and the `lowest` and `highest` mean error
    of a seed, nats per token."""
    errors: np.ndarray
    """[documents, conditions], means over seeds, nats per token."""
    by_seed: np.ndarray
    """[documents, conditions, seeds]; a condition that draws nothing has the same for all."""

    def place(self, wanted: Mapping[str, object]) -> int | None:
        """Place of the only condition with these values; None where there is none."""
        places = np.flatnonzero(matching(self.conditions, wanted))
        if len(places) > 1:
            raise ValueError(f"{len(places)} perturbations are {wanted}")
        return int(places[0]) if len(places) else None


def perturbed_errors(scores: pd.DataFrame) -> PerturbedErrors:
    """Arrange perturbation_scores.parquet by document and condition.

    Args:
        scores: `CONDITION`, seed, doc_id, nll, nll_full.
    """
    number = scores.groupby(CONDITION, sort=False, dropna=False).ngroup()
    scores = scores.assign(error=scores["nll"] - scores["nll_full"], condition=number)
    wide = scores.pivot(index="doc_id", columns=["condition", "seed"], values="error")
    wide = wide.loc[scores["doc_id"].drop_duplicates()].sort_index(axis=1)
    of_seeds = wide.mean().groupby(level="condition")
    conditions = scores.drop_duplicates("condition")[CONDITION].reset_index(drop=True)
    conditions = conditions.assign(
        seeds=of_seeds.size(), lowest=of_seeds.min(), highest=of_seeds.max()
    )
    every = pd.MultiIndex.from_product([conditions.index, sorted(scores["seed"].unique())])
    cube = wide.reindex(columns=every).to_numpy().reshape(len(wide), len(conditions), -1)
    means = np.nanmean(cube, axis=2)
    cube = np.where(np.isnan(cube), means[:, :, None], cube)
    return PerturbedErrors(wide.index.to_numpy(), conditions, means, cube)


def error_draws(perturbed: PerturbedErrors, settings: BootstrapSettings, seed: int) -> np.ndarray:
    """Draws [1 + R, conditions] of the mean error, over documents and seeds of the noise.

    Both are drawn anew in a resample, seeds for all conditions alike, which share their noise:
    with the few draws of the noise taken for granted, an interval says nothing of another draw.
    """
    documents = resample_counts(len(perturbed.doc_ids), settings, seed)
    seeds = resample_counts(perturbed.by_seed.shape[2], settings, seed + 1)
    everyone = np.ones(len(perturbed.doc_ids), bool)
    of_seeds = [
        mean_draws(errors, everyone, documents) for errors in np.moveaxis(perturbed.by_seed, 2, 0)
    ]
    weights = seeds / seeds.sum(axis=1, keepdims=True)
    return np.einsum("srk,rs->rk", np.stack(of_seeds), weights)


def effect_table(
    perturbed: PerturbedErrors, norms: pd.DataFrame, settings: BootstrapSettings, seed: int
) -> pd.DataFrame:
    """One row per condition: `error`, its mean over documents and seeds, with interval, and `size`.

    `beyond_baseline`: the error less that of the baseline of the same norm, with interval. Of noise
    that is Gaussian noise independent of |x|, of clipping and its shuffled amounts the matched
    noise.

    Args:
        norms: `CONDITION`, seed, module, and the L2 norms `perturbation` and `norm` (of what was
            perturbed).
    """
    draws = error_draws(perturbed, settings, seed)
    value, low, high = summarise(draws, settings.confidence)
    n = len(perturbed.doc_ids)
    found = perturbed.conditions.assign(error=value, low=low, high=high, n=n)
    baselines = _baselines(perturbed.conditions)
    beyond = draws[:, list(baselines)] - draws[:, list(baselines.values())]
    names = ("beyond_baseline", "beyond_baseline_low", "beyond_baseline_high")
    for name, numbers in zip(names, summarise(beyond, settings.confidence), strict=True):
        found.loc[list(baselines), name] = numbers
    return found.merge(relative_sizes(norms), on=CONDITION, how="left", validate="one_to_one")


def _baselines(conditions: pd.DataFrame) -> dict[int, int]:
    """Place of a condition -> place of what it is compared with; baselines themselves are out."""
    same_norm = ["target", "per", "intensity", "quantile", "projection", "block"]
    found = {}
    for _, rows in conditions.groupby(same_norm, sort=False, dropna=False):
        plain = (rows["distribution"] == GAUSSIAN) & (rows["relation"] == INDEPENDENT)
        baseline = rows.index[plain & rows["change"].isin([NOISE, MATCHED])]
        found |= {
            place: baseline[0] for place in rows.index if len(baseline) and place != baseline[0]
        }
    return found


def relative_sizes(norms: pd.DataFrame) -> pd.DataFrame:
    """||Delta|| / ||x|| over all that a condition perturbs, by `CONDITION`: `size`, mean of seeds.

    Where weights and activations are perturbed, that of the weights.
    """
    own = norms["target_of_norm"] == norms["target"].where(norms["target"] != "both", "weights")
    squares = norms[own].assign(perturbation=norms["perturbation"] ** 2, norm=norms["norm"] ** 2)
    sums = squares.groupby(CONDITION, sort=False, dropna=False)[["perturbation", "norm"]].sum()
    return np.sqrt(sums["perturbation"] / sums["norm"]).rename("size").reset_index()


def of_all(perturbed: PerturbedErrors) -> PerturbedErrors:
    """The conditions that perturb all projections of all blocks."""
    chosen = matching(perturbed.conditions, {"projection": ALL, "block": -1})
    conditions = perturbed.conditions[chosen].reset_index(drop=True)
    errors, by_seed = perturbed.errors[:, chosen], perturbed.by_seed[:, chosen]
    return PerturbedErrors(perturbed.doc_ids, conditions, errors, by_seed)
