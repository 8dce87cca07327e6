"""Models of one study side by side: how much the same changes hurt each of them.

Families and checkpoints differ in their NLL, and families in what a token is. So the error is also
put relative to the full-precision NLL: the relative rise of the log perplexity, mean e(x) over mean
NLL. Models are compared on the same resamples of documents: a document that is drawn counts in
every model that was measured on it. (Models of one tokenizer have the same documents; others lack
some that are too short for them, or all where the sets were drawn apart.)
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd

from lowbit.analysis.statistics import (
    MINIMUM_DOCUMENTS,
    BootstrapSettings,
    resample_counts,
    summarise,
)
from lowbit.analysis.studied_models import StudiedModel
from lowbit.analysis.tables import matching
from lowbit.experiments.perturbation_conditions import ACTIVATIONS, WEIGHTS, plain_noise
from lowbit.experiments.simulation_settings import POWER, UNIFORM

PERTURBATION, EFFECTS, SIMULATION = "perturbation_scores", "perturbation", "simulation_scores"
"""Names of the tables that are read, by file name without its ending."""

NOISES: Mapping[str, dict[str, object]] = MappingProxyType(
    {f"noise on {target}": plain_noise(target) for target in (WEIGHTS, ACTIVATIONS)}
)
"""Noise of the norm of the reference's error."""

_PLACES = {
    "W4A16": {"setting": "W4A16", "weights_per": "row"},
    "W8A8 per token": {"setting": "W8A8", "weights_per": "row", "activations_per": "token"},
    "W8A8 per tensor": {"setting": "W8A8", "weights_per": "row", "activations_per": "tensor"},
}
CUBE_ROOT = "cube root"
SIMULATED: Mapping[str, dict[str, object]] = MappingProxyType(
    {
        f"{place}, {name}": {**wanted, "transform": transform}
        for place, wanted in _PLACES.items()
        for name, transform in ((UNIFORM, UNIFORM), (CUBE_ROOT, POWER))
    }
)
"""Simulated quantization: weights per output row, the paper's two settings and two grids."""

CONDITIONS = (*NOISES, *SIMULATED)
"""What models are compared under."""

COLUMNS = [
    *("model", "family", "parameters", "step", "base", "condition", "nll_full"),
    *("error", "low", "high", "relative", "relative_low", "relative_high"),
    *("against", "difference", "difference_low", "difference_high", "size", "n"),
]


def condition_errors(tables: Mapping[str, pd.DataFrame], condition: str) -> pd.DataFrame | None:
    """Errors of one model under one of `CONDITIONS`.

    Returns:
        `error` and `nll_full` by doc_id and `seed`, which is 0 where nothing is drawn; None where
        the study did not try it, or on fewer documents than an interval needs.
    """
    name, wanted = _place(condition)
    if name not in tables:
        return None
    scores = tables[name][matching(tables[name], wanted)]
    if scores["doc_id"].nunique() < MINIMUM_DOCUMENTS:
        return None
    if "seed" not in scores:
        scores = scores.assign(seed=0)
    errors = scores.assign(error=scores["nll"] - scores["nll_full"])
    return errors.set_index(["doc_id", "seed"])[["error", "nll_full"]]


def common_seeds(errors: Sequence[pd.DataFrame]) -> list[int]:
    """Draws of the noise that all models have."""
    return sorted(set.intersection(*(set(each.index.unique("seed")) for each in errors)))


def paired_draws(
    errors: Sequence[pd.DataFrame], settings: BootstrapSettings, seed: int
) -> np.ndarray:
    """Sums over the documents of each resample, mean over seeds -> `[1 + R, models, 3]`.

    The last dimension holds the sums of e(x) and of the full-precision NLL, and the number of
    documents. Row 0 is the sample itself. Seeds are drawn anew as documents are, for all models
    alike (see `lowbit.analysis.perturbation.effects.error_draws`).

    Args:
        errors: of each model, as `condition_errors` gives them.
    """
    documents = pd.Index(pd.concat(errors).index.unique("doc_id"))
    counts = resample_counts(len(documents), settings, seed)
    seeds = common_seeds(errors)
    shares = resample_counts(len(seeds), settings, seed + 1) / len(seeds)
    columns = []
    for each in errors:
        wide = each["error"].unstack("seed")[seeds]
        mine = counts[:, documents.get_indexer(wide.index)]
        error = (mine @ wide.to_numpy() * shares).sum(axis=1)
        nll = mine @ each["nll_full"].groupby("doc_id").first()[wide.index].to_numpy()
        columns.append(np.stack([error, nll, mine.sum(axis=1)], axis=1))
    return np.stack(columns, axis=1)


def relative_draws(sums: np.ndarray) -> np.ndarray:
    """Relative rise of the log perplexity, from `paired_draws`: mean e(x) over mean NLL.

    Returns:
        Draws `[1 + R, models]`; nan for a resample without any document of a model.
    """
    return _ratio(sums[..., 0], sums[..., 1])


def robustness_table(
    models: Sequence[StudiedModel],
    tables: Mapping[str, Mapping[str, pd.DataFrame]],
    settings: BootstrapSettings,
    seed: int,
) -> pd.DataFrame:
    """One row per model and condition that it was measured under (`COLUMNS`).

    `difference`: of `relative` from the model `against`, the base or else the study's first.
    `size`: ||Delta|| / ||x|| of noise.

    Args:
        tables: per model its tables by name, those of `PERTURBATION`, `EFFECTS`, `SIMULATION` that
            the study has.
    """
    parts = [_condition_rows(models, tables, condition, settings, seed) for condition in CONDITIONS]
    rows = pd.DataFrame([row for part in parts for row in part], columns=COLUMNS)
    return rows.astype({"parameters": "Int64", "step": "Int64", "n": "Int64"})


def _condition_rows(
    models: Sequence[StudiedModel],
    tables: Mapping[str, Mapping[str, pd.DataFrame]],
    condition: str,
    settings: BootstrapSettings,
    seed: int,
) -> list[dict[str, object]]:
    """Rows of one condition, for the models that were measured under it."""
    found = {model.name: condition_errors(tables[model.name], condition) for model in models}
    errors = {name: each for name, each in found.items() if each is not None}
    if not errors:
        return []
    sums = paired_draws(list(errors.values()), settings, seed)
    places = list(errors)
    relative = relative_draws(sums)
    rows = []
    for model in models:
        if model.name not in errors:
            continue
        place = places.index(model.name)
        against = model.base or models[0].name
        row = {**vars(model), "model": model.name, "condition": condition}
        row |= _interval("error", _ratio(sums[:, place, 0], sums[:, place, 2]), settings)
        row |= _interval("relative", relative[:, place], settings)
        if against != model.name and against in errors:
            difference = relative[:, place] - relative[:, places.index(against)]
            row |= {"against": against} | _interval("difference", difference, settings)
        row["nll_full"] = sums[0, place, 1] / sums[0, place, 2]
        row["n"] = int(sums[0, place, 2])
        row["size"] = _size(tables[model.name], condition)
        rows.append(row)
    return rows


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide; nan where a resample has no document."""
    return numerator / np.where(denominator == 0, np.nan, denominator)


def _interval(name: str, draws: np.ndarray, settings: BootstrapSettings) -> dict[str, float]:
    """Value, low and high of draws `[1 + R]` as columns of the table."""
    value, low, high = map(float, summarise(draws, settings.confidence))
    prefix = "" if name == "error" else f"{name}_"
    return {name: value, f"{prefix}low": low, f"{prefix}high": high}


def _size(tables: Mapping[str, pd.DataFrame], condition: str) -> float:
    """Relative norm of noise, as perturbation.csv has it; nan for what is no noise."""
    if condition not in NOISES:
        return np.nan
    effects = tables[EFFECTS]
    return float(effects.loc[matching(effects, NOISES[condition]), "size"].iloc[0])


def _place(condition: str) -> tuple[str, Mapping[str, object]]:
    """Table that holds a condition, and what its rows have in common."""
    noise = NOISES.get(condition)
    return (SIMULATION, SIMULATED[condition]) if noise is None else (PERTURBATION, noise)
