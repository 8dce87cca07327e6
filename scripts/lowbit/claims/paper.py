"""A paper's claims as data: what a claims file holds, and how it is checked when read.

`judging` turns these into verdicts; `statistics` measures them.
"""

from collections.abc import Container, Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from lowbit.errors import InputError

MODEL, STUDY = "model", "study"
"""Scopes of a claim: judged on every model by itself, or once over all models of a study."""

KEY_SEPARATOR = "-"
"""Between the method labels of a figure's key, AWQ3-NF3, and between models that are compared."""


@dataclass(frozen=True)
class Direction:
    """The statistic, and its whole interval, must lie above or below a threshold."""

    expect: str
    threshold: float


@dataclass(frozen=True)
class Figures:
    """The paper's values by model id and key; `tolerance` is absolute, or relative to the value.

    With `scope: study` they are of several models, whose ids are joined: llama8-llama70. They are
    of the claim's own statistic, unless another is named here, and bind for the paper's documents
    (or the claim's), unless `on_documents` is false: then the statistic looks after its text.
    """

    tolerance: float
    values: dict[str, dict[str, float]]
    relative: bool = False
    statistic: str = ""
    on_documents: bool = True

    def tolerance_of(self, value: float) -> float:
        """Absolute tolerance for one value."""
        return self.tolerance * abs(value) if self.relative else self.tolerance


@dataclass(frozen=True)
class PaperText:
    """Documents: their name in config/sources.yaml, their length in tokens (any, if left out), and
    the hub repository that holds nothing else, if there is one."""

    source: str
    length: int | None = None
    repository: str = ""


@dataclass(frozen=True)
class Claim:
    """One statement of a paper; see the heads of claims/inputs.yaml and perturbation.yaml."""

    id: str
    section: str
    statement: str
    stages: list[str]
    scope: str = MODEL
    requires: list[str] = field(default_factory=list)
    """Claims of each of which no figure may differ, and one must be reproduced."""
    requires_any: list[str] = field(default_factory=list)
    """The same of all of these together."""
    paper: str = ""
    statistic: str = ""
    options: dict[str, Any] = field(default_factory=dict)
    maximum_bits: int | None = None
    documents: PaperText | None = None
    """The only text that the claim is about, if it is not the paper's for its figures and any for
    its direction."""
    direction: Direction | None = None
    figures: Figures | None = None

    @property
    def statistic_of_figures(self) -> str:
        """What the figures are values of, empty where no stage measures it."""
        return (self.figures.statistic if self.figures else "") or self.statistic


@dataclass(frozen=True)
class PaperModel:
    """A model of the paper and the hub repositories that hold it."""

    name: str
    sources: list[str]


@dataclass(frozen=True)
class Paper:
    """A claims file."""

    name: str
    title: str
    reference: str
    documents: PaperText
    models: dict[str, PaperModel]
    methods: dict[str, dict[str, Any]]
    claims: list[Claim]


Record = TypeVar("Record")


def read_paper(
    path: str | Path, statistics: Container[str], study_statistics: Container[str]
) -> Paper:
    """Read and check a claims file.

    Args:
        statistics: names that a claim's `statistic` may have.
        study_statistics: the same of a claim with `scope: study`.

    Raises:
        InputError: naming the file, the claim and the key that is wrong.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {error}") from error
    try:
        paper = _paper(content)
        _check_claims(paper, {MODEL: statistics, STUDY: study_statistics})
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return paper


def _paper(content: Any) -> Paper:
    """Build a `Paper` from parsed YAML."""
    content = dict(_mapping(content, "the file"))
    claims = content.pop("claims", None)
    if not isinstance(claims, list) or not claims:
        raise InputError("claims: must be a list of at least one claim")
    models = _mapping(content.pop("models", None), "models")
    methods = _mapping(content.pop("methods", None), "methods")
    documents = _record(PaperText, content.pop("documents", None), "documents")
    if documents.length is None:
        raise InputError("documents lacks ['length']: the paper's figures are of one length")
    return _record(
        Paper,
        {
            **content,
            "documents": documents,
            "models": {
                key: _record(PaperModel, value, f"models.{key}") for key, value in models.items()
            },
            "methods": {
                key: dict(_mapping(value, f"methods.{key}")) for key, value in methods.items()
            },
            "claims": [_claim(value, index) for index, value in enumerate(claims, 1)],
        },
        "the file",
    )


def _claim(content: Any, index: int) -> Claim:
    """Build a `Claim`; errors name its id, or its place in the file if it has none."""
    content = dict(_mapping(content, f"claim {index}"))
    where = f"claim '{content['id']}'" if "id" in content else f"claim {index}"
    if "direction" in content:
        content["direction"] = _record(Direction, content["direction"], f"{where}: direction")
    if "documents" in content:
        content["documents"] = _record(PaperText, content["documents"], f"{where}: documents")
    if "figures" in content:
        figures = _record(Figures, content["figures"], f"{where}: figures")
        for model, values in figures.values.items():
            _check_numbers(values, f"{where}: figures.values.{model}")
        content["figures"] = figures
    return _record(Claim, content, where)


def _check_claims(paper: Paper, statistics: Mapping[str, Container[str]]) -> None:
    """Check what the types cannot: names that must exist and keys that belong together."""
    seen: dict[str, Claim] = {}
    for claim in paper.claims:
        where = f"claim '{claim.id}'"
        if claim.id in seen:
            raise InputError(f"{where} is there twice: ids must be unique")
        _check_gates(claim, seen, where)
        seen[claim.id] = claim
        if claim.scope not in statistics:
            raise InputError(f"{where}: scope is '{claim.scope}': write {MODEL} or {STUDY}")
        allowed = statistics[claim.scope]
        for name in (claim.statistic, claim.statistic_of_figures):
            if name and name not in allowed:
                raise InputError(f"{where}: statistic '{name}' is not one of {sorted(allowed)}")
        if not (claim.direction or claim.figures):
            raise InputError(f"{where} needs direction: or figures: to be judged by")
        if claim.direction and claim.direction.expect not in ("above", "below"):
            raise InputError(
                f"{where}: direction.expect is '{claim.direction.expect}': write above or below"
            )
        if claim.figures:
            _check_figure_keys(paper, claim, where)


def _check_gates(claim: Claim, before: Mapping[str, Claim], where: str) -> None:
    """Check that what a claim requires stands before it, and has figures to be passed."""
    for name in (*claim.requires, *claim.requires_any):
        if name not in before or not before[name].figures:
            raise InputError(
                f"{where}: requires '{name}', which is no claim with figures further up in the file"
            )


def _check_figure_keys(paper: Paper, claim: Claim, where: str) -> None:
    """Check that figures name models and, where they are measured, methods of the paper."""
    for model, values in claim.figures.values.items():
        compared = models_of(claim, model)
        if not set(compared) <= set(paper.models):
            raise InputError(
                f"{where}: figures.values.{model} is not a model: {sorted(paper.models)}"
            )
        if claim.scope == STUDY and len(set(compared)) < 2:
            raise InputError(
                f"{where}: figures.values.{model} is one model; with scope: {STUDY} write two, as "
                f"in {KEY_SEPARATOR.join(sorted(paper.models)[:2])}"
            )
        for key in values if claim.statistic_of_figures else ():
            unknown = set(key.split(KEY_SEPARATOR)) - set(paper.methods) - {"full"}
            if unknown:
                raise InputError(
                    f"{where}: figures.values.{model}: '{key}' names {sorted(unknown)}, which are "
                    f"not methods: {sorted(paper.methods)}"
                )


def repository(source: str) -> str:
    """Return the hub repository of a source ('hub:Qwen/Qwen2.5-7B@abc'), or ''."""
    return source.removeprefix("hub:").split("@")[0] if source.startswith("hub:") else ""


def text_of(paper: Paper, claim: Claim) -> PaperText:
    """The text that a claim's figures are of: its own, or the paper's."""
    return claim.documents or paper.documents


def models_of(claim: Claim, key: str) -> list[str]:
    """The paper's models that a figure is of: several only where they are compared."""
    return key.split(KEY_SEPARATOR) if claim.scope == STUDY else [key]


def _mapping(value: Any, where: str) -> Mapping:
    """Return `value` if it is a mapping."""
    if not isinstance(value, Mapping):
        raise InputError(f"{where} must be a mapping of keys to values, not {value!r}")
    return value


def _check_numbers(values: Any, where: str) -> None:
    """Raise unless `values` maps names to numbers."""
    for key, value in _mapping(values, where).items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise InputError(f"{where}.{key} must be a number, not {value!r}")


EXPECTED_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "tolerance": ((int, float), "a number"),
    "threshold": ((int, float), "a number"),
    "length": (int, "a whole number"),
    "maximum_bits": (int, "a whole number"),
    "relative": (bool, "true or false"),
    "on_documents": (bool, "true or false"),
    "stages": (list, "a list of stage names"),
    "requires": (list, "a list of claims"),
    "requires_any": (list, "a list of claims"),
    "sources": (list, "a list of hub repositories"),
    "claims": (list, "a list"),
    "values": (dict, "a mapping of models to values"),
    "options": (dict, "a mapping"),
    "models": (dict, "a mapping"),
    "methods": (dict, "a mapping"),
    "documents": (PaperText, "a mapping"),
    "direction": (Direction, "a mapping"),
    "figures": (Figures, "a mapping"),
}
"""What each key must hold; every other key holds text."""


def _record(cls: type[Record], content: Any, where: str) -> Record:
    """Build the dataclass `cls` from a mapping, checking its keys and the types of their values."""
    content = _mapping(content, where)
    names = [item.name for item in fields(cls)]  # type: ignore[arg-type]
    unknown = sorted(set(content) - set(names))
    if unknown:
        raise InputError(f"{where} has unknown keys {unknown}: allowed are {names}")
    for key, value in content.items():
        expected, description = EXPECTED_TYPES.get(key, (str, "text"))
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
            raise InputError(f"{where}: {key} must be {description}, not {value!r}")
    try:
        return cls(**content)
    except TypeError:
        missing = [name for name in names if name not in content and _required(cls, name)]
        raise InputError(f"{where} lacks {missing}") from None


def _required(cls: type, name: str) -> bool:
    """Tell whether a dataclass field has no default."""
    (item,) = (item for item in fields(cls) if item.name == name)
    return item.default is MISSING and item.default_factory is MISSING
