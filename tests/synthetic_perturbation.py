"""Scores of perturbations and simulated quantization with known answers, and a study of them.

By default everything is as the perturbation paper states it; a test changes what it is about.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd
from synthetic_study import METHODS, make_scores

from lowbit.analysis.error_sets import error_table
from lowbit.analysis.perturbation.effects import CONDITION
from lowbit.analysis.statistics import BootstrapSettings
from lowbit.analysis.studied_models import StudiedModel
from lowbit.analysis.tables import methods_from_config
from lowbit.claims.results import ModelResults, StudyResults
from lowbit.experiments.perturbation_conditions import (
    ACTIVATIONS,
    BOTH,
    CLIP,
    MATCHED,
    NOISE,
    SHUFFLED,
    WEIGHTS,
    Perturbation,
    Plan,
    list_perturbations,
    list_sensitivities,
)
from lowbit.experiments.simulation_settings import Simulation, list_simulations

BOOTSTRAP = BootstrapSettings(resamples=300, confidence=0.95)
PLAN = Plan(intensities=[0.1, 1.0, 10.0], quantiles=[0.99, 0.999], seeds=3)
NLL = 4.0
"""Mean NLL of the full-precision model, nats per token."""

ErrorOf = Callable[[Perturbation], float]


def perturbation_error(kind: Perturbation) -> float:
    """Mean error of a perturbation in a world where the paper is right, nats per token."""
    base = {WEIGHTS: 0.05, ACTIVATIONS: 0.02, BOTH: 0.07}[kind.target]
    if kind.change == NOISE:
        relation = {"M+": 0.5, "M-": 1.5}.get(kind.relation, 1.0)
        distribution = {"uniform": 1.01, "rademacher": 0.99}.get(kind.distribution, 1.0)
        return base * relation * distribution * kind.intensity**1.5
    share = 10 * (1 - kind.quantile) / 0.01
    return base * share * {CLIP: 3.0, SHUFFLED: 1.5, MATCHED: 1.0}[kind.change]


def simulation_error(kind: Simulation) -> float:
    """The same of simulated quantization."""
    return 0.02 if kind.transform == "power" else 0.08


def documents(count: int = 40, first: int = 0) -> list[str]:
    """Ids of some documents."""
    return [f"doc{number:05d}" for number in range(first, first + count)]


def spread(doc_ids: list[str], width: float = 0.2) -> np.ndarray:
    """A factor per document, of mean 1, the same for every condition."""
    places = np.array([int(name.removeprefix("doc")) for name in doc_ids])
    return 1 + width * np.sin(places + 1.0)


def full_nll(doc_ids: list[str]) -> np.ndarray:
    """NLL of the full-precision model."""
    return NLL * spread(doc_ids, 0.1)


def perturbation_scores(
    error_of: ErrorOf = perturbation_error,
    seeds: int = 3,
    doc_ids: list[str] | None = None,
    width: float = 0.2,
    blocks: Sequence[Sequence[str]] = (("q_proj",),),
    apart: float = 0.02,
) -> pd.DataFrame:
    """perturbation_scores.parquet; errors of neighbouring seeds are `apart` by that share."""
    ids = doc_ids or documents()
    plan = Plan(PLAN.intensities, PLAN.quantiles, seeds)
    kinds = list_perturbations(plan) + list_sensitivities(blocks, plan)
    full = full_nll(ids)
    parts = []
    for kind in kinds:
        of_seed = 1 + apart * (kind.seed - (seeds - 1) / 2) * (kind.change != CLIP)
        error = error_of(kind) * of_seed * spread(ids, width)
        columns = {"doc_id": ids, "nll": full + error, "nll_full": full}
        parts.append(pd.DataFrame({**asdict(kind), **columns}))
    return pd.concat(parts, ignore_index=True)


def effects(scores: pd.DataFrame, sizes: Mapping[str, float] | None = None) -> pd.DataFrame:
    """Rows of perturbation.csv, as far as sizes go: relative norms at intensity 1, by target."""
    sizes = sizes or {WEIGHTS: 0.2, ACTIVATIONS: 0.05, BOTH: 0.2}
    rows = scores[CONDITION].drop_duplicates().reset_index(drop=True)
    return rows.assign(size=rows["target"].map(sizes) * rows["intensity"].fillna(1.0))


def simulation_scores(
    error_of: Callable[[Simulation], float] = simulation_error,
    doc_ids: list[str] | None = None,
    width: float = 0.2,
    transforms: Sequence[str] = ("uniform", "power", "square root"),
) -> pd.DataFrame:
    """simulation_scores.parquet of W4A16 and W8A8."""
    ids = doc_ids or documents()
    full = full_nll(ids)
    parts = [
        pd.DataFrame(
            {
                "setting": kind.setting,
                **asdict(kind),
                "doc_id": ids,
                "nll_full": full,
                "nll": full + error_of(kind) * spread(ids, width),
            }
        )
        for kind in list_simulations(["W4A16", "W8A8"], transforms, transforms)
    ]
    return pd.concat(parts, ignore_index=True)


def error_magnitudes(uniform: float = 0.0, power: float = 2 / 3, modules: int = 12) -> pd.DataFrame:
    """Rows of error_magnitude.csv with these mean slopes; values rounded to 0 have slope 1."""
    around = 0.02 * np.cos(np.arange(modules))
    slopes = {"uniform": uniform, "power": power}
    parts = [
        pd.DataFrame(
            {
                "module": [f"{number}.q_proj" for number in range(modules)],
                "bits": bits,
                "transform": transform,
                "values": values,
                "pearson": slope,
                "slope": (1.0 if values == "all" else slope) + around - around.mean(),
            }
        )
        for transform, slope in slopes.items()
        for bits in (4, 8)
        for values in ("all", "not rounded to 0")
    ]
    return pd.concat(parts, ignore_index=True)


def model_results(tables: Mapping[str, pd.DataFrame]) -> ModelResults:
    """Results of one model whose tables of optional stages are these."""
    methods = {name: METHODS[name] for name in ("rtn3", "nf3")}
    scores, _ = make_scores(60, methods)
    return ModelResults(
        errors=error_table(scores),
        sets=pd.DataFrame(columns=["doc_id", "method", "set"]),
        residuals=pd.DataFrame(),
        methods=methods_from_config(methods),
        settings=BOOTSTRAP,
        seed=0,
        tables=tables,
    )


def perturbed(scores: pd.DataFrame | None = None, sizes=None) -> ModelResults:
    """Results of one model that was perturbed."""
    scores = perturbation_scores() if scores is None else scores
    return model_results({"perturbation_scores": scores, "perturbation": effects(scores, sizes)})


def simulated(**arguments) -> ModelResults:
    """Results of one model whose quantization was simulated."""
    scores = simulation_scores(**arguments)
    return model_results({"simulation_scores": scores, "error_magnitude": error_magnitudes()})


def study_of(models: Mapping[StudiedModel, ModelResults]) -> StudyResults:
    """A study of several models."""
    by_name = {model.name: results for model, results in models.items()}
    return StudyResults(list(models), by_name.__getitem__)
