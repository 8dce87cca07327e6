"""Verdicts: every claim of a paper against what a study measured.

A verdict is `reproduced`, `differs` or `not run (why)`, never stronger than the numbers: a
direction is reproduced only if the whole interval is on the right side of the threshold; a figure
of the paper binds only for the paper's own model, method and text (the claim's, if it has one), and
is reproduced if the measured value is within the stated tolerance. `detail` says what a bare
`differs` would hide, such as an interval that includes the threshold.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from lowbit.analysis.studied_models import StudiedModel
from lowbit.claims.paper import (
    KEY_SEPARATOR,
    STUDY,
    Claim,
    Direction,
    Paper,
    PaperText,
    models_of,
    repository,
    text_of,
)
from lowbit.claims.results import StudyResults
from lowbit.claims.statistics import STATISTICS, Measurement, ModelResults, NotMeasured
from lowbit.claims.study_statistics import STUDY_STATISTICS
from lowbit.names import FULL

REPRODUCED = "reproduced"
DIFFERS = "differs"
NO_STAGE = "not run (no stage yet)"
EVERY_MODEL = "all models"
"""In place of a model's name, for what is of all of them together."""


@dataclass(frozen=True)
class Verdict:
    """One row of the table of claims: a claim (or one of its figures) on one model."""

    claim: str
    section: str
    kind: str
    verdict: str
    model: str
    methods: str
    statement: str
    measured: float | None
    low: float | None
    high: float | None
    n: int | None
    expected: str
    paper_value: str
    detail: str
    statistic: str
    stages: str
    paper: str


@dataclass(frozen=True)
class Study:
    """What verdicts need of a study.

    Args:
        sources: per model its source, as in the config.
        results: load the result tables of a model.
        methods: the config's methods with all their settings.
        text_source, text_length: where the documents are from, and their length in tokens.
        models: what models are compared by; only for claims of scope `study`.
    """

    sources: Mapping[str, str]
    results: Callable[[str], ModelResults]
    methods: Mapping[str, Mapping[str, Any]]
    text_source: str
    text_length: int
    models: Sequence[StudiedModel] = ()


def judge(papers: Sequence[Paper], study: Study) -> pd.DataFrame:
    """Judge every claim and figure of the papers; one row per `Verdict`, in the files' order."""
    rows = [row for paper in papers for row in _judge_paper(paper, study)]
    columns = [field.name for field in fields(Verdict)]
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype({"measured": float, "low": float, "high": float, "n": "Int64"})


def _judge_paper(paper: Paper, study: Study) -> list[Verdict]:
    """Judge a paper's claims one by one, those that others require before these."""
    judged: dict[str, list[Verdict]] = {}
    for claim in paper.claims:
        directions = _directions(paper, claim, study, _not_passed(claim, judged))
        judged[claim.id] = directions + _figures(paper, claim, study)
    return [row for rows in judged.values() for row in rows]


def _not_passed(claim: Claim, judged: Mapping[str, Sequence[Verdict]]) -> str:
    """Why a claim may not be judged yet: a figure that it requires differs, or none was run."""
    figures = {
        name: [row for row in judged[name] if row.kind == "figure"]
        for name in (*claim.requires, *claim.requires_any)
    }
    for name, rows in figures.items():
        for row in rows:
            if row.verdict == DIFFERS:
                return (
                    f"{name} did not pass: {row.measured:.4g} instead of {row.expected} on "
                    f"{row.model}"
                )
    passed = {name for name, rows in figures.items() if REPRODUCED in [r.verdict for r in rows]}
    for name in claim.requires:
        if name not in passed:
            why = figures[name][0].verdict.removeprefix("not run (").removesuffix(")")
            return f"{name} was not run: {why}"
    if claim.requires_any and not passed.intersection(claim.requires_any):
        return (
            f"none of {', '.join(claim.requires_any)} was run (why is said there): one figure "
            "at least must be reproduced in this study, also for a family that has none of its "
            "own; add a model that has one"
        )
    return ""


def _directions(paper: Paper, claim: Claim, study: Study, not_passed: str) -> list[Verdict]:
    """Judge a claim's direction on every model of the study, or once for all of them."""
    if claim.direction is None:
        return []
    row = partial(_row, paper, claim, "direction", expected=_expected(claim.direction))
    if not claim.statistic:
        return [row(NO_STAGE)]
    if claim.documents:
        try:
            require_text(claim.documents, study, "the claim")
        except NotMeasured as reason:
            return [row(f"not run ({reason})", model=EVERY_MODEL)]
    names = _in_scope(claim, study)
    models = {EVERY_MODEL: list(study.sources)}
    if claim.scope != STUDY:
        models = {name: [name] for name in study.sources}
    return [
        _direction(partial(row, model=shown), claim, study, each, names, not_passed)
        for shown, each in models.items()
    ]


def _direction(
    row: Callable[..., Verdict],
    claim: Claim,
    study: Study,
    models: Sequence[str],
    names: Sequence[str],
    not_passed: str,
) -> Verdict:
    """Judge a claim's direction on one model, or on all together."""
    try:
        measurement = _measure(claim, claim.statistic, study, models, names)
        if not_passed:
            raise NotMeasured(not_passed)
    except NotMeasured as reason:
        return row(f"not run ({reason})")
    verdict, detail = judge_direction(
        measurement, claim.direction.expect, claim.direction.threshold
    )
    return row(verdict, **_measured(measurement, detail))


def _measure(
    claim: Claim, statistic: str, study: Study, models: Sequence[str], names: Sequence[str]
) -> Measurement:
    """Measure a statistic on the one model of `models`, or, with `scope: study`, over all of them.

    Args:
        names: of methods.
    """
    if not names:
        raise NotMeasured(f"no method of {claim.maximum_bits} bits or fewer in this study")
    if claim.scope == STUDY:
        chosen = [model for model in study.models if model.name in models]
        results = StudyResults(chosen, study.results, names)
        return _defined(STUDY_STATISTICS[statistic](results, claim.options))
    (model,) = models
    return _defined(STATISTICS[statistic](study.results(model), names, claim.options))


def _defined(measurement: Measurement) -> Measurement:
    """Return a measurement; `NotMeasured` if its value or interval is undefined.

    No comparison with nan holds, so the verdict would be `differs` although nothing is known.
    """
    if np.isnan([measurement.value, measurement.low, measurement.high]).any():
        raise NotMeasured(
            f"the value or its interval is undefined for these {measurement.n} documents: they "
            "are too few, or all alike"
        )
    return measurement


def _expected(direction: Direction) -> str:
    """'> 0' or '< 0'."""
    return f"{'>' if direction.expect == 'above' else '<'} {direction.threshold:g}"


def judge_direction(measurement: Measurement, expect: str, threshold: float) -> tuple[str, str]:
    """Return the verdict on a direction, and what else to say about it."""
    sign = 1 if expect == "above" else -1
    nearest = measurement.low if expect == "above" else measurement.high
    if sign * (nearest - threshold) > 0:
        return REPRODUCED, ""
    if measurement.low <= threshold <= measurement.high:
        return DIFFERS, f"interval includes {threshold:g}"
    return DIFFERS, "interval lies on the other side"


def _in_scope(claim: Claim, study: Study) -> list[str]:
    """Methods that the statement is about."""
    limit = claim.maximum_bits
    return [
        name for name, method in study.methods.items() if limit is None or method["bits"] <= limit
    ]


def _figures(paper: Paper, claim: Claim, study: Study) -> list[Verdict]:
    """Judge every figure of a claim."""
    if claim.figures is None:
        return []
    return [
        _figure(paper, claim, study, models_of(claim, models), key, value)
        for models, values in claim.figures.values.items()
        for key, value in values.items()
    ]


def _figure(
    paper: Paper, claim: Claim, study: Study, paper_models: Sequence[str], key: str, value: float
) -> Verdict:
    """Judge one figure of the paper."""
    tolerance = claim.figures.tolerance_of(value)
    values = {
        "model": " with ".join(paper.models[model].name for model in paper_models),
        "methods": key,
        "expected": f"{value:g} ± {tolerance:.2g}",
        "paper_value": f"{value:g}",
        "statistic": claim.statistic_of_figures,
    }
    if not claim.statistic_of_figures:
        return _row(paper, claim, "figure", NO_STAGE, **values)
    try:
        models = [study_model(paper, model, study) for model in paper_models]
        if claim.figures.on_documents:
            require_text(text_of(paper, claim), study, "the figure")
        names = [study_method(paper, label, study) for label in key.split(KEY_SEPARATOR)]
        measurement = _measure(claim, claim.statistic_of_figures, study, models, names)
    except NotMeasured as reason:
        return _row(paper, claim, "figure", f"not run ({reason})", **values)
    verdict, detail = judge_figure(measurement, value, tolerance)
    return _row(
        paper,
        claim,
        "figure",
        verdict,
        **{**values, **_measured(measurement, detail), "model": " with ".join(models)},
    )


def judge_figure(measurement: Measurement, value: float, tolerance: float) -> tuple[str, str]:
    """Return the verdict on a figure of the paper, and what else to say about it."""
    if abs(measurement.value - value) <= tolerance:
        wide = measurement.high - measurement.low > 2 * tolerance
        return REPRODUCED, "interval wider than the tolerance" if wide else ""
    if measurement.low <= value <= measurement.high:
        return DIFFERS, "interval includes the paper's value"
    return DIFFERS, "interval excludes the paper's value"


def study_model(paper: Paper, paper_model: str, study: Study) -> str:
    """Return the study's name of a model of the paper; `NotMeasured` if it has none."""
    wanted = paper.models[paper_model]
    repositories = {source.casefold() for source in wanted.sources}
    found = [
        name
        for name, source in study.sources.items()
        if repository(source).casefold() in repositories
    ]
    if not found:
        raise NotMeasured(f"{wanted.name} is not in this study")
    return found[0]


def require_text(text: PaperText, study: Study, what: str) -> None:
    """Raise `NotMeasured` unless a study's documents are of this text and length."""
    fits = text.length in (None, study.text_length)
    if not _is_of(text, study.text_source) or not fits:
        wanted, given = (
            f"of {length} tokens " if text.length else ""
            for length in (text.length, study.text_length)
        )
        raise NotMeasured(
            f"{what} is for documents {wanted}from {text.source}, this study's are {given}from "
            f"{study.text_source}"
        )


def _is_of(text: PaperText, source: str) -> bool:
    """Whether a study's `documents.source` is a text, by its name or on the hub."""
    found = repository(source).casefold()
    on_hub = found != "" and found == text.repository.casefold()
    return on_hub or source == f"named:{text.source}"


def study_method(paper: Paper, label: str, study: Study) -> str:
    """Return the study's name of a method of the paper."""
    if label == FULL:
        return FULL
    wanted = paper.methods[label]
    for name, method in study.methods.items():
        if all(method.get(key) == value for key, value in wanted.items()):
            return name
    settings = ", ".join(f"{key} {value}" for key, value in wanted.items())
    raise NotMeasured(f"no method like {label} in this study: {settings}")


def _measured(measurement: Measurement, detail: str) -> dict[str, Any]:
    """Columns of a measured row."""
    return {
        "methods": " ".join(measurement.methods),
        "measured": measurement.value,
        "low": measurement.low,
        "high": measurement.high,
        "n": measurement.n,
        "detail": "; ".join(part for part in (detail, measurement.detail) if part),
    }


def _row(paper: Paper, claim: Claim, kind: str, verdict: str, **values: Any) -> Verdict:
    """Build a row; what is not given is empty."""
    empty: dict[str, Any] = dict.fromkeys(("measured", "low", "high", "n"))
    empty |= dict.fromkeys(("model", "methods", "expected", "detail"), "")
    return Verdict(
        claim=claim.id,
        section=claim.section,
        kind=kind,
        verdict=verdict,
        statement=claim.statement,
        stages=" ".join(claim.stages),
        paper=paper.name,
        **{**empty, "statistic": claim.statistic, "paper_value": claim.paper, **values},
    )
