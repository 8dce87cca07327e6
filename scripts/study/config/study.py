"""The config of a study: its sections together, merging with the default, checks against files.

`config.yaml` is the default study and states every key. A study file in `config/` holds only what
differs. `models`, `methods` and the sections of texts of a study file replace the default's whole
(otherwise a study could only ever add to the demo's); all other sections are merged key by key, but
for the default's optional stages, which a study file must ask for itself.

The JSON schema in `config/schema.json` is generated from the classes here, in
`study.config.sections` and in `study.config.methods`, by `scripts/study/schema.py`.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.json_schema import GenerateJsonSchema

from lowbit.downstream.buckets import MINIMUM_ITEMS
from lowbit.errors import InputError
from lowbit.inputs import documents as document_sources
from lowbit.inputs import models as model_sources
from lowbit.inputs.classifier_source import read_labels
from lowbit.inputs.hub import Listing, Unreachable
from lowbit.names import FULL
from study.config import archive
from study.config.messages import Key, explain, line_of
from study.config.methods import AnyMethod, Method
from study.config.sections import (
    DEMO_CALIBRATION,
    DEMO_DOCUMENTS,
    DEMO_MODEL,
    Benchmark,
    Bootstrap,
    Calibration,
    Documents,
    Engine,
    Errors,
    Evaluation,
    Mechanisms,
    Model,
    Name,
    Perturbation,
    Prediction,
    Simulation,
    Texts,
    Topics,
    section_settings,
)
from study.config.yaml_file import read_mapping

REPLACED_WHOLE = ("models", "methods", "documents", "calibration", "evaluation")
NOT_INHERITED = ("perturbation", "simulation")
"""Optional stages of the default study that a study file has only if it names them."""
RESULT_FOLDERS = ("models", "documents", "classifiers", "hub", "logs", "benchmarks", "provenance")
"""Folders of `results/` that every study shares, so no study may have their name."""


def _check_method_name(name: str) -> str:
    if name == FULL:
        raise ValueError("is reserved for the unquantized model, which is always scored; rename it")
    return name


def _check_study_name(name: str) -> str:
    if name in RESULT_FOLDERS:
        raise ValueError(f"would be mixed up with the folder results/{name}; choose another name")
    return name


def _check_perturbing(stage: Perturbation | Simulation | None, info: ValidationInfo) -> None:
    """Check an optional stage that adds small noise against what the study has."""
    documents, engine = info.data.get("documents"), info.data.get("engine")
    if stage and documents and stage.documents > documents.n:
        n = documents.n
        raise ValueError(
            f"documents is {stage.documents}, but the study has {n}; write {n} or fewer"
        )
    if stage and engine and engine.dtype != "float32":
        raise ValueError(
            f"needs engine.dtype: float32; {engine.dtype} rounds small noise away, so that it is "
            "not the noise that is meant"
        )


class Study(BaseModel):
    """One study: models x methods x documents x analyses."""

    model_config = section_settings(
        {
            "study": "demo",
            "seed": 0,
            "models": {"demo": {"source": "demo"}},
            "methods": {
                "rtn3": {"quantizer": "rtn", "bits": 3, "group_size": 64},
                "nf3": {"quantizer": "nf", "bits": 3, "group_size": 64},
            },
        }
    )

    study: Annotated[Name, AfterValidator(_check_study_name)]
    """Name of the study: its tables and figures go to `results/<study>/`."""
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    """Seed of everything that is drawn at random."""
    models: Annotated[dict[Name, Model], Field(min_length=1)]
    """The models, by name. A study file's `models` replace the default's."""
    documents: Documents
    calibration: Annotated[dict[Name, Calibration], Field(min_length=1)]
    """Calibration sets, by name; methods that name none use the first."""
    evaluation: dict[Name, Evaluation] = Field(default_factory=dict)
    """Evaluation sets, by name; without any, nothing is evaluated. Call WikiText-2's test split
    `wikitext2`, which is how the papers' figures for it are found."""
    methods: Annotated[
        dict[Annotated[Name, AfterValidator(_check_method_name)], AnyMethod], Field(min_length=2)
    ]
    """The quantization methods, by name; at least two, because methods are correlated with each
    other. A study file's `methods` replace the default's."""
    engine: Engine
    errors: Errors
    mechanisms: Mechanisms
    bootstrap: Bootstrap
    prediction: Prediction
    perturbation: Perturbation | None = None
    """Without it nothing is perturbed."""
    simulation: Simulation | None = None
    """Without it nothing is simulated."""
    topics: Topics | None = None
    """Without it nothing is classified."""
    downstream: dict[Name, Benchmark] = Field(default_factory=dict)
    """Tasks that the models are tried on, by name. Without it none."""

    @field_validator("models")
    @classmethod
    def _bases_exist(cls, models: dict[str, Model]) -> dict[str, Model]:
        for name, model in models.items():
            others = [other for other in models if other != name]
            if model.base not in (None, *others):
                write = f"write one of {', '.join(others)}" if others else "leave it out"
                raise ValueError(
                    f"{name}.base is {model.base}, which is no other model of this study; {write}"
                )
        return models

    @field_validator("documents")
    @classmethod
    def _token_ids_are_of_one_model(cls, documents: Documents, info: ValidationInfo) -> Documents:
        models = info.data.get("models", {})
        if documents.released and len(models) > 1:
            raise ValueError(
                f"source: {documents.source} holds token ids of one model's tokenizer; write that "
                f"model alone under models, not {', '.join(models)}"
            )
        return documents

    @field_validator("errors")
    @classmethod
    def _large_set_is_not_empty(cls, errors: Errors, info: ValidationInfo) -> Errors:
        documents = info.data.get("documents")
        if documents and documents.n * errors.large_fraction < 1:
            raise ValueError(
                f"large_fraction: {errors.large_fraction:g} of documents.n: {documents.n} is less "
                "than one document; write documents.n: "
                f"{math.ceil(1 / errors.large_fraction)} or more"
            )
        return errors

    @field_validator("evaluation")
    @classmethod
    def _is_not_learned_from(
        cls, evaluation: dict[str, Evaluation], info: ValidationInfo
    ) -> dict[str, Evaluation]:
        for name, each in evaluation.items():
            for other, calibration in info.data.get("calibration", {}).items():
                if each.source == calibration.source != "demo":
                    raise ValueError(
                        f"{name}.source is also calibration.{other}.source; quantizers must not "
                        "learn from what they are evaluated on. Take one of the two from elsewhere"
                    )
        return evaluation

    @field_validator("methods", mode="before")
    @classmethod
    def _published_need_no_quantizer(cls, methods: Any) -> Any:
        """`quantized` alone says that a method is a published checkpoint."""
        if not isinstance(methods, dict):
            return methods
        return {
            name: {"quantizer": "published", **method}
            if isinstance(method, dict) and "quantized" in method
            else method
            for name, method in methods.items()
        }

    @field_validator("methods")
    @classmethod
    def _calibration_sets_exist(
        cls, methods: dict[str, Method], info: ValidationInfo
    ) -> dict[str, Method]:
        known = list(info.data.get("calibration", {}))
        for name, method in methods.items():
            if known and method.calibration not in (None, *known):
                raise ValueError(
                    f"{name}.calibration is {method.calibration!r}, which is no set under "
                    f"calibration; write one of {', '.join(known)}"
                )
        return methods

    @field_validator("mechanisms")
    @classmethod
    def _methods_exist(cls, mechanisms: Mechanisms, info: ValidationInfo) -> Mechanisms:
        methods = info.data.get("methods")
        mixed = mechanisms.mixed_precision
        for key in ("methods", "patch"):
            listed = getattr(mechanisms, key) or []
            if twice := [name for name in listed if listed.count(name) > 1]:
                raise ValueError(f"{key} has {twice[0]} twice; write it once")
        named = {f"methods.{n}": name for n, name in enumerate(mechanisms.methods or [])}
        if mechanisms.sets_of:
            named["sets_of"] = mechanisms.sets_of
        if mixed:
            named |= {"mixed_precision.base": mixed.base, "mixed_precision.higher": mixed.higher}
        for key, name in named.items():
            allowed = (FULL,) if key == "mixed_precision.higher" else ()
            if methods and name not in (*methods, *allowed):
                raise ValueError(
                    f"{key} is {name!r}, which is no method of this study; write one of "
                    f"{', '.join((*methods, *allowed))}"
                )
        if methods and mixed and mixed.higher != FULL:
            low, high = methods[mixed.base].bits, methods[mixed.higher].bits
            if high <= low:
                raise ValueError(
                    f"mixed_precision.higher is {mixed.higher} with {high} bits, the base has "
                    f"{low}; write a method with more bits, or {FULL}"
                )
        return mechanisms

    @field_validator("perturbation")
    @classmethod
    def _reference_exists(
        cls, perturbation: Perturbation | None, info: ValidationInfo
    ) -> Perturbation | None:
        methods = info.data.get("methods")
        if perturbation and methods and perturbation.reference not in methods:
            raise ValueError(
                f"reference is {perturbation.reference!r}, which is no method of this study; "
                f"write one of {', '.join(methods)}"
            )
        _check_perturbing(perturbation, info)
        return perturbation

    @field_validator("simulation")
    @classmethod
    def _can_be_simulated(
        cls, simulation: Simulation | None, info: ValidationInfo
    ) -> Simulation | None:
        _check_perturbing(simulation, info)
        return simulation

    @field_validator("downstream")
    @classmethod
    def _downstream_methods_exist(
        cls, downstream: dict[str, Benchmark], info: ValidationInfo
    ) -> dict[str, Benchmark]:
        methods = info.data.get("methods")
        for name, benchmark in downstream.items():
            for method in benchmark.methods or []:
                if methods and method not in methods:
                    raise ValueError(
                        f"{name}.methods has {method!r}, which is no method of this study; write "
                        f"some of {', '.join(methods)} ({FULL} always answers)"
                    )
        return downstream

    def downstream_methods(self, name: str) -> list[str]:
        """The methods that answer the questions of a downstream task, `full` first."""
        return [FULL, *dict.fromkeys(self.downstream[name].methods or self.methods)]

    def mechanism_methods(self) -> list[str]:
        """The methods that are looked at inside the model."""
        three = [name for name, method in self.methods.items() if method.bits == 3]
        return self.mechanisms.methods or (three or list(self.methods))[:3]

    def calibration_of(self, method: str) -> str:
        """Name of a method's calibration set: its own, or the first."""
        return self.methods[method].calibration or next(iter(self.calibration))

    def model_outline(self, name: str) -> Path | Listing:
        """A model's local directory, or what the hub lists of it."""
        return model_sources.outline_model(self.models[name].source, DEMO_MODEL)

    def classifier_outline(self) -> Path | Listing:
        """The local directory of the classifier of topics, or what the hub lists of it."""
        return model_sources.outline_model(self.topics.source, DEMO_MODEL)

    def texts(self) -> dict[Key, tuple[Texts, Path]]:
        """Sections of texts by their key, each with the file that `source: demo` stands for."""
        return (
            {("evaluation", name): (each, each.demo) for name, each in self.evaluation.items()}
            | {
                ("calibration", name): (each, DEMO_CALIBRATION)
                for name, each in self.calibration.items()
            }
            | {("documents",): (self.documents, DEMO_DOCUMENTS)}
        )

    def resolved(self) -> str:
        """The whole config as YAML, defaults filled in."""
        return yaml.safe_dump(self.model_dump(), sort_keys=False, allow_unicode=True)


def load_study(
    default: Path, *files: Path | str, overrides: Mapping[str, Any] | None = None
) -> Study:
    """Merge the default with study files and overrides, in this order; validate; check sources.

    Args:
        default: `config.yaml`.
        files: study files; the sections of `REPLACED_WHOLE` in one replace what came before, and
            where there is one, those of `NOT_INHERITED` in the default do not count.
        overrides: a last layer, such as Snakemake's `config` (it holds only what the user gave).

    Raises:
        InputError: one line per mistake, each with file, line, key and what to write.
    """
    others = [Path(file) for file in files if Path(file).resolve() != default.resolve()]
    files = (default, *others)
    try:
        study = Study.model_validate(_with_archived_columns(merge_layers(files, overrides or {})))
    except ValidationError as error:
        problems = explain(error, json_schema())
    else:
        problems = list(_check_against_files(study))
    if problems:
        lines = [f"{_place(key, files)}{'.'.join(key)} {text}" for key, text in problems]
        raise InputError("the config cannot be used:\n" + "\n".join(lines))
    return study


def merge_layers(files: Sequence[Path], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Read the default and the study files and lay them over each other, then the overrides."""
    merged, *layers = map(read_mapping, files)
    if layers:
        merged = {key: value for key, value in merged.items() if key not in NOT_INHERITED}
    for layer in (*layers, overrides):
        merged = _merge(merged, layer)
    return merged


class _InOrder(GenerateJsonSchema):
    """Keys as they are written in the classes, not sorted: the order is meant."""

    def sort(self, value: Any, parent_key: str | None = None) -> Any:
        """Leave everything where it is."""
        return value


def json_schema() -> dict[str, Any]:
    """JSON schema of a complete config."""
    return Study.model_json_schema(schema_generator=_InOrder)


def _place(key: Key, files: Sequence[Path]) -> str:
    """`file:line: ` of a key; in a section that is replaced whole, only the last file counts."""
    if key[0] in REPLACED_WHOLE:
        files = [file for file in files if key[0] in read_mapping(file)][-1:]
    return line_of(key, files)


def _merge(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one config over another, key by key in a section unless it is `REPLACED_WHOLE`."""
    merged = dict(base)
    for key, value in change.items():
        before = base.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping) and key not in REPLACED_WHOLE:
            value = {**before, **value}
        merged[key] = value
    return merged


def _with_archived_columns(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fill in the columns of named texts where the study says nothing else."""

    def filled(texts: Any) -> Any:
        columns = archive.columns_of(texts.get("source")) if isinstance(texts, Mapping) else {}
        return {**columns, **texts} if columns else texts

    changed = dict(config)
    for section in {"documents", "calibration", "evaluation"} & config.keys():
        texts = config[section]
        if section == "documents" or not isinstance(texts, Mapping):
            changed[section] = filled(texts)
        else:
            changed[section] = {name: filled(each) for name, each in texts.items()}
    return changed


def _check_against_files(study: Study) -> Iterator[tuple[Key, str]]:
    """Yield `(key, problem)` for what only the models' and documents' own files can tell."""
    for key, (settings, demo) in study.texts().items():
        try:
            document_sources.outline_documents(archive.locate(settings.source, demo).source, demo)
        except InputError as error:
            yield (*key, "source"), f"cannot be used: {error}"
            if isinstance(error, Unreachable):  # nor can the others be asked for
                return
    yield from _check_ids(study.documents)
    yield from _check_task_files(study)
    if study.topics and (problem := _classifier_problem(study)):
        yield ("topics", "source"), f"cannot be used: {problem}"
        if isinstance(problem, Unreachable):
            return
    for name in study.models:
        try:
            outline = study.model_outline(name)
            model_sources.model_files(outline)
            model_sources.read_architecture(outline)
            config = model_sources.read_config(outline)
            linears = model_sources.block_linears(outline)
        except InputError as error:
            yield ("models", name, "source"), f"cannot be used: {error}"
            if isinstance(error, Unreachable):
                return
            continue
        context = model_sources.context_length(config)
        lengths = {("documents",): study.documents.length} | {
            ("calibration", key): calibration.length
            for key, calibration in study.calibration.items()
        }
        lengths |= {("evaluation", key): each.length for key, each in study.evaluation.items()}
        for key, length in lengths.items():
            if context and length and length > context:
                left_out = ", or leave it out" if key[0] == "evaluation" else ""
                yield (
                    (*key, "length"),
                    f"is {length}, but the context of model {name} is {context} tokens; "
                    f"write {context} or less{left_out}",
                )
        for method, settings in study.methods.items():
            problem = _group_problem(settings, linears)
            if problem:
                yield ("methods", method, "group_size"), f"{problem} of model {name}"
        if study.simulation:
            widths = {linear: inputs for linear, _, inputs in linears}
            problem = _undivided(study.simulation.group_size, widths, 2)
            if problem:
                yield ("simulation", "group_size"), f"{problem} of model {name}"


def _classifier_problem(study: Study) -> InputError | None:
    """What keeps the classifier of topics from being used, as far as its files' names tell."""
    try:
        classifier = study.classifier_outline()
        model_sources.model_files(classifier)
        read_labels(classifier)
    except InputError as error:
        return error
    return None


def _check_ids(documents: Documents) -> Iterator[tuple[Key, str]]:
    """Yield `(key, problem)` for a file of document ids that cannot be used."""
    file = documents.ids_file()
    if file is None:
        return
    try:
        ids = document_sources.read_ids(file)
    except InputError as error:
        yield ("documents", "ids"), f"cannot be used: {error}"
        return
    if len(ids) != documents.n:
        yield (
            ("documents", "n"),
            f"is {documents.n}, but documents.ids names {len(ids)}; write n: {len(ids)}",
        )


def _check_task_files(study: Study) -> Iterator[tuple[Key, str]]:
    """Yield `(key, problem)` for task files that cannot be used as the config asks."""
    for name, benchmark in study.downstream.items():
        try:
            file = benchmark.task_file()
        except InputError as error:
            yield ("downstream", name, "task"), f"cannot be used: {error}"
            continue
        limit = benchmark.limit
        if limit and file and file.popularity and limit < MINIMUM_ITEMS:
            yield (
                ("downstream", name, "limit"),
                f"is {limit}, too few for buckets by popularity; write {MINIMUM_ITEMS} or more",
            )


def _group_problem(method: Method, linears: list[tuple[str, int, int]]) -> str | None:
    """Say which layer the group size does not divide, and which sizes divide all layers."""
    size = method.group_size
    if isinstance(size, str):
        return None
    widths = {name: method.grouped_width(outputs, inputs) for name, outputs, inputs in linears}
    return _undivided(size, widths, math.lcm(8, method.GROUP_MULTIPLE))


def _undivided(size: int, widths: Mapping[str, int], multiple: int) -> str | None:
    """Say which width the size does not divide, and which multiples of `multiple` divide all."""
    wrong = [name for name, width in widths.items() if width % size]
    if not wrong:
        return None
    common = math.gcd(*widths.values())
    valid = [str(n) for n in range(multiple, common + 1, multiple) if common % n == 0]
    return (
        f"is {size}, which does not divide {widths[wrong[0]]}; write one of "
        f"{', '.join(valid) or 1}. {widths[wrong[0]]} is the width of {wrong[0]}"
    )
