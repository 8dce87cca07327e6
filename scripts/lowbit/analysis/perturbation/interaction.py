"""Weights and activations perturbed together, against the sum of each alone."""

import numpy as np
import pandas as pd

from lowbit.analysis.perturbation.effects import PerturbedErrors, error_draws
from lowbit.analysis.statistics import BootstrapSettings, summarise
from lowbit.experiments.perturbation_conditions import (
    ACTIVATIONS,
    BOTH,
    WEIGHTS,
    plain_noise,
)

MEASURES = ("weights", "activations", "together", "interaction")


def interaction_draws(
    perturbed: PerturbedErrors, draws: np.ndarray, kind: dict[str, object]
) -> np.ndarray | None:
    """Draws [1 + R, 4] of `MEASURES` for one kind of noise; None where one of them was not tried.

    Args:
        draws: [1 + R, conditions] of the mean errors.
        kind: distribution, relation and intensity.
    """
    targets = WEIGHTS, ACTIVATIONS, BOTH
    places = [perturbed.place(plain_noise(target, **kind)) for target in targets]
    if None in places:
        return None
    errors = draws[:, places]
    return np.column_stack([errors, errors[:, 2] - errors[:, 0] - errors[:, 1]])


def interaction_table(
    perturbed: PerturbedErrors, settings: BootstrapSettings, seed: int
) -> pd.DataFrame:
    """One row per kind of noise that was tried on both: mean errors, nats per token.

    `interaction`: together less the sum of each alone, with interval; `share`: of that sum.
    """
    means = error_draws(perturbed, settings, seed)
    keys = ["distribution", "relation", "intensity"]
    conditions = perturbed.conditions
    tried = conditions.loc[conditions["target"] == BOTH, keys].drop_duplicates()
    rows = []
    for kind in tried.to_dict("records"):
        draws = interaction_draws(perturbed, means, kind)
        if draws is None:
            continue
        values = dict(zip(MEASURES, draws[0], strict=True))
        _, low, high = summarise(draws[:, 3], settings.confidence)
        share = values["interaction"] / (values["weights"] + values["activations"])
        rows.append({**kind, **values, "low": low, "high": high, "share": share})
    return pd.DataFrame(rows, columns=[*keys, *MEASURES, "low", "high", "share"])
