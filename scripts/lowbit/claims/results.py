"""What the statistics of claims are made from, and what they return.

`lowbit.claims.statistics` and its neighbours `*_statistics` measure; here is what they share.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from lowbit.analysis.perturbation.effects import (
    PerturbedErrors,
    error_draws,
    of_all,
    perturbed_errors,
)
from lowbit.analysis.statistics import (
    MINIMUM_DOCUMENTS,
    BootstrapSettings,
    estimate,
    require_documents,
    require_variation,
    resample_counts,
    summarise,
    top_counts,
)
from lowbit.analysis.studied_models import StudiedModel
from lowbit.analysis.tables import (
    Method,
    by_document,
    document_ids,
    membership,
    norms_by_document,
)
from lowbit.names import FULL

MADE_BY = {
    "early_exit": "the rule trace_layers makes it",
    "mlp_differences": "the rule trace_layers makes it",
    "outlier_dimensions": "the rule analyze_residuals makes it",
    "predictions": "the rule predict makes it",
    "patching": "write mechanisms.patch: [upper]",
    "evaluation": "write a section evaluation",
    "released_sets": "write documents.source: qerror:<model>/<method>",
    "perturbation_scores": "write a section perturbation",
    "perturbation": "write a section perturbation",
    "simulation_scores": "write a section simulation",
    "error_magnitude": "write a section simulation",
    "downstream": "write a section downstream",
    "topics": "write a section topics",
}
"""Tables of optional stages -> the rule, or what to write into the config, that makes them."""


class NotMeasured(Exception):
    """A statistic does not exist for this model and these methods; the message says why."""


@dataclass(frozen=True)
class Measurement:
    """A measured value with its interval, the number of documents, and what else to know.

    `n` counts the documents that the value is of: all of the study, or, where it is of sets, those
    of the smallest set; of a downstream task, its items.
    """

    value: float
    low: float
    high: float
    n: int
    methods: tuple[str, ...]
    detail: str = ""


@dataclass(frozen=True)
class ModelResults:
    """The result tables of one model, and the resamples that all of its statistics share."""

    errors: pd.DataFrame
    sets: pd.DataFrame
    residuals: pd.DataFrame
    methods: Sequence[Method]
    settings: BootstrapSettings
    seed: int
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """Tables of optional stages, by file name without its ending."""

    def __post_init__(self) -> None:
        names = [method.name for method in self.methods]
        require_documents(len(self.doc_ids))
        require_variation(self.by_document["error"], names, "the error")

    @cached_property
    def doc_ids(self) -> np.ndarray:
        """Documents, in the order of every array below."""
        return document_ids(self.errors)

    @cached_property
    def by_document(self) -> dict[str, np.ndarray]:
        """Columns of the errors as [documents, methods]."""
        names = [method.name for method in self.methods]
        columns = ("error", "kl", "nll", "nll_full")
        return {column: by_document(self.errors, column, names) for column in columns}

    @cached_property
    def counts(self) -> np.ndarray:
        """Resamples [1 + R, documents]; the same as in every other table of this study."""
        return resample_counts(len(self.doc_ids), self.settings, self.seed)

    @cached_property
    def norms(self) -> np.ndarray:
        """Mean norms [documents, quantity, layer]; nan where the architecture has no such norm."""
        return norms_by_document(self.residuals, self.doc_ids)[0]

    @cached_property
    def perturbed(self) -> PerturbedErrors:
        """Errors under what perturbs all projections of all blocks."""
        return of_all(perturbed_errors(self.table("perturbation_scores")))

    @cached_property
    def perturbed_draws(self) -> np.ndarray:
        """Mean errors under these, over documents and draws of the noise: [1 + R, conditions]."""
        return error_draws(self.perturbed, self.settings, self.seed)

    def table(self, name: str) -> pd.DataFrame:
        """Table of an optional stage; `NotMeasured` if the study does not run that stage."""
        if name not in self.tables:
            raise NotMeasured(f"this study has no table {name}: {MADE_BY[name]}")
        return self.tables[name]

    def method(self, name: str) -> Method:
        """Look a method up."""
        return next(method for method in self.methods if method.name == name)

    def column(self, column: str, names: Sequence[str]) -> np.ndarray:
        """Return error, kl, nll or nll_full as [documents, names]; nll of `full` is nll_full."""
        order = [method.name for method in self.methods]
        full = self.by_document["nll_full"][:, 0]
        values = self.by_document[column]
        columns = [full if name == FULL else values[:, order.index(name)] for name in names]
        return np.stack(columns, axis=1)

    def member(self, method: str, name: str) -> np.ndarray:
        """Documents of a method's set, bool [documents]; `NotMeasured` if they are too few."""
        member = membership(self.sets, method, name, self.doc_ids)
        if member.sum() < MINIMUM_DOCUMENTS:
            raise NotMeasured(
                f"{member.sum()} documents in the set '{name}' of {method} are too few: raise "
                "documents.n"
            )
        return member

    def large_counts(self, method: str) -> np.ndarray:
        """How often each document is in a method's D_large: [1 + R, documents].

        Each resample chooses the largest errors anew: which documents are in D_large is what
        varies. The near-duplicates dropped from the sample's sets stay out.
        """
        large = self.member(method, "large")
        duplicate = membership(self.sets, method, "duplicate", self.doc_ids)
        error = self.column("error", [method])[:, 0]
        chosen = top_counts(error, int(large.sum() + duplicate.sum()), self.counts)
        return np.where(duplicate, 0, chosen)

    def smallest(self, methods: Sequence[str], *names: str) -> int:
        """Number of documents in the smallest of the methods' sets of these names."""
        return min(int(self.member(method, name).sum()) for method in methods for name in names)

    def measure(
        self, draws: np.ndarray, names: Sequence[str], detail: str = "", n: int | None = None
    ) -> Measurement:
        """Summarise draws [1 + R] of one number; it is of `n` documents, all if left out."""
        value, low, high = estimate(draws, self.settings.confidence)
        count = len(self.doc_ids) if n is None else n
        return Measurement(value, low, high, count, tuple(names), detail)


def on_other_sets(what: str, found: str, wanted: str) -> NotMeasured:
    """What to raise where something was done on other documents than a figure is of."""
    return NotMeasured(
        f"{what} on the D_large of {found}, not of {wanted}: write mechanisms.sets_of: {wanted}"
    )


@dataclass(frozen=True)
class StudyResults:
    """All models of a study, for claims that compare them."""

    models: Sequence[StudiedModel]
    of_model: Callable[[str], ModelResults]
    """Load the results of a model by its name."""
    methods: Sequence[str] = ()
    """Those that a claim is about; of no account where only noise is looked at."""

    @property
    def settings(self) -> BootstrapSettings:
        """The study's bootstrap, the same for all its models."""
        return self.of_model(self.models[0].name).settings

    @property
    def seed(self) -> int:
        """Seed of the study's resamples."""
        return self.of_model(self.models[0].name).seed

    def measure(self, draws: np.ndarray, detail: str, n: int) -> Measurement:
        """Summarise draws [1 + R] of one number over models of `n` or more documents each."""
        return Measurement(*estimate(draws, self.settings.confidence), n, (), detail)


def weakest(draws: np.ndarray, confidence: float, expect: str = "above") -> int:
    """Which of several numbers, draws [1 + R, k], speaks most against all of them being `expect`.

    That is the one whose interval reaches furthest to the other side.
    """
    _, low, high = summarise(draws, confidence)
    return int(np.argmin(low) if expect == "above" else np.argmax(high))


Statistic = Callable[[ModelResults, Sequence[str], dict[str, Any]], Measurement]
StudyStatistic = Callable[[StudyResults, dict[str, Any]], Measurement]
