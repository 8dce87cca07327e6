"""The sections of a study's config: their keys, types and what they may say by themselves.

What sections must have in common is checked in `study.config.study`; the methods' keys are in
`study.config.methods`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from lowbit.errors import InputError
from lowbit.experiments.simulation_settings import (
    OF_ACTIVATIONS,
    SETTING,
    TRANSFORMS,
    UNQUANTIZED,
)
from lowbit.inputs import documents as document_sources
from lowbit.inputs import models as model_sources
from lowbit.inputs.classifier_source import CLASSIFIER_SOURCES
from lowbit.inputs.sources import Source
from study.config.task_files import HARNESS_TASKS, TASK_FILES, TaskFile, task_file

DEMO_MODEL = Path("resources/demo/model")
"""Directory of the embedded model, relative to the repository root."""
DEMO_DOCUMENTS = Path("resources/demo/documents.parquet")
"""File of the embedded documents, relative to the repository root."""
DEMO_CALIBRATION = Path("resources/demo/calibration.parquet")
"""File of the embedded calibration texts, relative to the repository root."""
DEMO_LAST_WORD = Path("resources/demo/last_word.parquet")
"""File of the embedded last-word task, relative to the repository root."""

NAMED_SOURCE = Source("named:<entry of config/sources.yaml>", lambda *_: None, local=False)
"""Stands for one of the others, as `study.config.archive` finds it."""
DOCUMENT_SOURCES = document_sources.SOURCES | {"named": NAMED_SOURCE}
TEXT_SOURCES = {kind: source for kind, source in DOCUMENT_SOURCES.items() if kind != "qerror"}
"""What `source` may be of documents, and of other texts."""

NAME = re.compile(r"[a-z0-9][a-z0-9._]*")


def section_settings(example: dict[str, Any] | str) -> ConfigDict:
    """Sections and methods refuse unknown keys and convert nothing; messages show the example."""
    return ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        use_attribute_docstrings=True,
        json_schema_extra={"examples": [example]},
    )


def _check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        better = re.sub(r"[^a-z0-9._]+", "_", name.lower()).lstrip("._") or "my_name"
        raise ValueError(
            "is not a name: use lower-case letters, digits, '.' and '_', first a letter or digit; "
            f"write {better}"
        )
    return name


def _check_task(task: str) -> str:
    known = (*TASK_FILES, *HARNESS_TASKS)
    if task not in known and not task.endswith((".yaml", ".yml")):
        raise ValueError(
            f"is {task!r}; write {', '.join(known)} or the path of a task file of "
            "lm-evaluation-harness (.yaml)"
        )
    return task


def _check_source(source: str, kinds: Mapping) -> str:
    try:
        model_sources.find_source(source, kinds)
    except InputError as error:
        raise ValueError(str(error)) from None
    return source


def _check_ids_file(text: str) -> str:
    if not text.removeprefix("path:") or not text.startswith("path:"):
        raise ValueError(f"is {text!r}; write path:<file with one document id per line>")
    return text


def _check_candidates(n: int, info: ValidationInfo) -> None:
    candidates = info.data.get("candidates")
    if candidates is not None and candidates < n:
        raise ValueError(
            f"is {n}, more than candidates: {candidates}; write more candidates, some to spare for "
            "those that are too short"
        )


def _rising(numbers: list[float]) -> list[float]:
    if numbers != sorted(set(numbers)):
        raise ValueError(f"must rise; write {sorted(set(numbers))}")
    return numbers


def _with_one(intensities: list[float]) -> list[float]:
    if 1 not in intensities:
        raise ValueError(
            f"must have 1, the reference's own norm; write {sorted({1.0, *intensities})}"
        )
    return _rising(intensities)


def _check_setting(setting: str) -> str:
    found = SETTING.fullmatch(setting)
    bits = [int(number) for number in found.groups()] if found else []
    allowed = (*range(2, 9), UNQUANTIZED)
    if not bits or set(bits) - {*allowed} or set(bits) == {UNQUANTIZED}:
        raise ValueError(
            f"is {setting!r}; write bits of weights and activations, such as W4A16 or W8A8, each "
            f"from 2 to 8, or {UNQUANTIZED} for one that is not quantized"
        )
    return setting


Name = Annotated[str, AfterValidator(_check_name)]
TextSource = Annotated[str, AfterValidator(lambda text: _check_source(text, TEXT_SOURCES))]


class Model(BaseModel):
    """One model to study."""

    model_config = section_settings({"source": "demo"})

    source: Annotated[str, AfterValidator(lambda text: _check_source(text, model_sources.SOURCES))]
    """`demo` (embedded in the repository), `path:<directory>` (Hugging Face format) or
    `hub:<repo>@<revision>`, best with a commit as revision; a branch is resolved once and held."""
    family: Name | None = None
    """What its sizes are compared within; without it the architecture's name, such as `llama`."""
    step: Annotated[int, Field(ge=0)] | None = None
    """Steps of training, of a model that is a checkpoint of one."""
    base: Name | None = None
    """The model of this study that it was fine-tuned from."""


class Texts(BaseModel):
    """Where texts are from, and which of them are read."""

    model_config = section_settings({"source": "demo"})

    source: TextSource
    """`demo`; `path:<file or folder>` (.jsonl, .parquet, .txt, or a folder of them);
    `hub:<owner>/<data set>@<revision>/<file or pattern>`; or `named:<entry>`, an entry of
    `config/sources.yaml`."""
    text_column: str = "text"
    """Column (Parquet) or key (JSON Lines) that holds the text."""
    id_column: str | None = None
    """Column or key that holds a unique id; without it `doc_id` where there is one, otherwise ids
    are `<file>#<row>`."""
    minimum: dict[str, int | float] = Field(default_factory=dict)
    """Columns or keys, and the least value that a document must have in each to be read; FineWeb
    has a `token_count`."""
    candidates: Annotated[int, Field(ge=1)] | None = None
    """At most so many documents are read, drawn with the seed from those with the least values, so
    that little is kept of a large source; without it all."""

    @property
    def keep_empty(self) -> bool:
        """Whether documents without text count."""
        return False

    def ids_file(self) -> Path | None:
        """File with the ids of exactly the documents to be read, where there is one."""
        return None


class Documents(Texts):
    """The texts on which errors are measured."""

    model_config = section_settings({"name": "demo", "source": "demo", "n": 300, "length": 512})

    name: Name
    """A name for this set; its tokens and scores are kept in folders of that name."""
    source: Annotated[str, AfterValidator(lambda text: _check_source(text, DOCUMENT_SOURCES))]
    """As of all texts, or `qerror:<model>/<method>`: the sets that the inputs paper's authors
    released for a model, `qerror:Qwen2.5-7B/awq3+nf3` those of several methods."""
    n: Annotated[int, Field(ge=10)]
    """How many documents to use, drawn with the seed from those that are long enough under the
    tokenizer of every model."""
    length: Annotated[int, Field(ge=8)]
    """Tokens per document, the start token included; shorter documents are dropped."""
    ids: Annotated[str, AfterValidator(_check_ids_file)] | None = None
    """`path:<file with one document id per line>`: exactly these documents, in this order. A study
    writes such a file beside its tokens, `document_ids.txt`."""

    @field_validator("minimum", "candidates", "ids")
    @classmethod
    def _released_sets_are_whole(cls, value: Any, info: ValidationInfo) -> Any:
        if value and str(info.data.get("source")).startswith("qerror:"):
            raise ValueError("is not for the authors' released sets; leave it out")
        return value

    @field_validator("ids")
    @classmethod
    def _nothing_is_drawn(cls, ids: str | None, info: ValidationInfo) -> str | None:
        for key in ("minimum", "candidates"):
            if ids and info.data.get(key):
                raise ValueError(f"says which documents are used; leave out {key}")
        return ids

    @field_validator("n")
    @classmethod
    def _candidates_are_enough(cls, n: int, info: ValidationInfo) -> int:
        _check_candidates(n, info)
        return n

    @property
    def released(self) -> bool:
        """Whether these are the sets that the inputs paper's authors released."""
        return self.source.startswith("qerror:")

    def ids_file(self) -> Path | None:
        """The file that `ids` names."""
        return Path(self.ids.removeprefix("path:")).expanduser() if self.ids else None


class Calibration(Texts):
    """Texts that quantizers learn from, and on which their output errors are measured."""

    model_config = section_settings({"source": "demo", "n": 32, "length": 512})

    n: Annotated[int, Field(ge=1)]
    """How many sequences, drawn with the seed from the documents that are long enough."""
    length: Annotated[int, Field(ge=8)]
    """Tokens per sequence, the start token included; shorter documents are dropped."""

    @field_validator("n")
    @classmethod
    def _candidates_are_enough(cls, n: int, info: ValidationInfo) -> int:
        _check_candidates(n, info)
        return n


class Evaluation(Texts):
    """A text or task on which all methods are compared, beside the documents."""

    model_config = section_settings({"kind": "windows", "source": "path:data/wiki.test.txt"})

    kind: Literal["windows", "last_word"]
    """`windows`: perplexity of the whole text in windows that do not overlap; `last_word`: accuracy
    for the last word of each document (LAMBADA)."""
    n: Annotated[int, Field(ge=1)] | None = None
    """At most so many windows (the first) or items (drawn with the seed); without it all."""
    length: Annotated[int, Field(ge=8)] | None = None
    """Tokens of a window; without it 2,048, or the model's context where that is shorter."""
    join: str | None = None
    """What is put between the documents of `windows`; without it an empty line."""

    @field_validator("length", "join")
    @classmethod
    def _of_windows_only(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and info.data.get("kind") == "last_word":
            raise ValueError(
                "is of kind: windows only; leave it out, for the items of kind: last_word are "
                "whole documents"
            )
        return value

    @property
    def demo(self) -> Path:
        """The embedded file that `source: demo` stands for."""
        return DEMO_LAST_WORD if self.kind == "last_word" else DEMO_DOCUMENTS

    @property
    def keep_empty(self) -> bool:
        """Whether documents without text count: where documents are joined, as empty lines do."""
        return self.kind == "windows"


class Engine(BaseModel):
    """How models are run. Results belong to these settings: they change sums in the last bits."""

    model_config = section_settings(
        {"dtype": "float32", "device": "auto", "batch_size": 8, "mode": "resident", "threads": 2}
    )

    dtype: Literal["float32", "bfloat16"]
    """Number format of weights and activations; the loss is always summed in float32."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")]
    """`auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:1`."""
    batch_size: Annotated[int, Field(ge=1)]
    """Documents per forward pass."""
    mode: Literal["resident", "stream"]
    """`resident` keeps the model in memory, `stream` loads each block when it is needed."""
    threads: Annotated[int, Field(ge=1)]
    """CPU threads of each job that runs a model or a quantizer."""


class Errors(BaseModel):
    """Which documents count as large-error and as control."""

    model_config = section_settings(
        {
            "large_fraction": 0.1,
            "control_fraction": 0.5,
            "duplicate_ngram": 5,
            "duplicate_jaccard": 0.1,
        }
    )

    large_fraction: Annotated[float, Field(gt=0, le=0.5)]
    """Share of the documents with the largest errors that makes up D_large."""
    control_fraction: Annotated[float, Field(gt=0, le=1)]
    """Share of the documents with the smallest errors from which D_ctrl is drawn."""
    duplicate_ngram: Annotated[int, Field(ge=1)]
    """Token n-gram length of the near-duplicate test."""
    duplicate_jaccard: Annotated[float, Field(ge=0, le=1)]
    """Jaccard similarity above which a document is dropped from D_large as a near-duplicate."""

    @field_validator("control_fraction")
    @classmethod
    def _sets_are_apart(cls, control: float, info: ValidationInfo) -> float:
        large = info.data.get("large_fraction", 0)
        if not large <= control <= 1 - large:
            raise ValueError(
                f"is {control:g}, but with large_fraction: {large:g} it must be from {large:g} "
                f"(D_ctrl is as large as D_large) to {1 - large:g} (they must not overlap)"
            )
        return control


class Bootstrap(BaseModel):
    """Confidence intervals, by resampling documents."""

    model_config = section_settings({"resamples": 2000, "confidence": 0.95})

    resamples: Annotated[int, Field(ge=100)]
    """Number of bootstrap resamples."""
    confidence: Annotated[float, Field(gt=0, lt=1)]
    """Probability that the interval is meant to cover."""


class Prediction(BaseModel):
    """How errors are predicted for documents that the fit has not seen."""

    model_config = section_settings({"folds": 5, "repeats": 3})

    folds: Annotated[int, Field(ge=2)]
    """Parts that the documents are cut into; each is predicted from the others."""
    repeats: Annotated[int, Field(ge=1)]
    """How often they are cut anew; results are means."""


class MixedPrecision(BaseModel):
    """Which modules to keep in higher precision, found by measuring and then tried."""

    model_config = section_settings({"base": "gptq3", "higher": "gptq4", "extra_bits": 0.25})

    base: Name
    """The method whose modules are put into higher precision, one at a time."""
    higher: Name
    """The method that has the higher precision; `full` for unquantized (16 bit)."""
    extra_bits: Annotated[float, Field(gt=0)]
    """Bits per weight, mean over all quantized weights, that the mixed model may have more."""


class Mechanisms(BaseModel):
    """What is looked at inside the model: early exit, patching, interventions, mixed precision."""

    model_config = section_settings({"patch": ["upper"], "interventions": False})

    methods: Annotated[list[Name], Field(min_length=1)] | None = None
    """The methods that are looked at; without it the first three with 3 bits, or of all."""
    patch: list[Literal["upper", "single", "suffix"]]
    """Blocks that are patched at once: the upper half, each alone, each and all after it."""
    sets_of: Name | None = None
    """Whose D_large and D_ctrl every method is read out and patched on; without it its own."""
    interventions: bool
    """Whether the residual stream and norms are changed, to see whether that makes inputs break."""
    mixed_precision: MixedPrecision | None = None
    """Without it nothing is tried."""


class Perturbation(BaseModel):
    """Noise and clipping of weights and activations (arXiv 2403.06408)."""

    model_config = section_settings({"reference": "rtn3"})

    reference: Name
    """The method whose weight error, ||Q(W) - W||, noise on each weight matrix is matched to."""
    activation_bits: Annotated[int, Field(ge=2, le=8)] = 8
    """Bits of the uniform quantization, one scale per token, whose error noise on activations is
    matched to."""
    documents: Annotated[int, Field(ge=5)] = 64
    """How many of the study's documents are scored under every perturbation, evenly spaced."""
    intensities: Annotated[
        list[Annotated[float, Field(gt=0)]], Field(min_length=1), AfterValidator(_with_one)
    ] = [0.1, 0.32, 1.0, 3.2, 10.0]
    """Factors of the reference's norm; 1 is among them."""
    quantiles: Annotated[
        list[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1), AfterValidator(_rising)
    ] = [0.99, 0.999, 0.9999]
    """Of |x|: what lies above is clipped to it. 0.999 clips one entry in a thousand."""
    seeds: Annotated[int, Field(ge=3)] = 3
    """How often noise is drawn."""
    sensitivity: bool = True
    """Whether each projection of each block is perturbed alone."""
    projections: Annotated[list[str], Field(min_length=1)] | None = None
    """Those that are perturbed alone, such as `q_proj`; without it all that the model has."""


class Simulation(BaseModel):
    """Quantization of weights and activations, uniform or not, simulated (arXiv 2403.06408)."""

    model_config = section_settings({"settings": ["W4A16", "W8A8"]})

    settings: Annotated[
        list[Annotated[str, AfterValidator(_check_setting)]], Field(min_length=1)
    ] = ["W2A16", "W3A16", "W4A16", "W8A8", "W4A8", "W4A4"]
    """Bits of weights and activations, each 2 to 8, or 16 for unquantized."""
    documents: Annotated[int, Field(ge=5)] = 64
    """How many of the study's documents are scored under every setting, evenly spaced."""
    group_size: Annotated[int, Field(ge=2)] = 64
    """Weights, and channels of activations, that share a scale where groups do."""
    transforms: Annotated[list[Literal[TRANSFORMS]], Field(min_length=1)] | None = None
    """Of the grid of weights; without it all."""
    activation_transforms: Annotated[list[Literal[OF_ACTIVATIONS]], Field(min_length=1)] = [
        "uniform",
        "power",
    ]
    """Of weights and activations alike, where both are quantized."""


class Topics(BaseModel):
    """A classifier that says what each document is about, to see which topics break."""

    model_config = section_settings({"source": "hub:WebOrganizer/TopicClassifier-NoURL@main"})

    source: Annotated[str, AfterValidator(lambda text: _check_source(text, CLASSIFIER_SOURCES))]
    """`hub:<repo>@<revision>` or `path:<directory>`: a classifier of texts in Hugging Face format,
    with names for its labels. The inputs paper's topics are those of WebOrganizer's."""


class Benchmark(BaseModel):
    """Questions that full and quantized models answer, through lm-evaluation-harness."""

    model_config = section_settings({"task": "popqa", "shots": 15})

    task: Annotated[str, AfterValidator(_check_task)]
    """`popqa`, `mmlu`, or the path of a task file (.yaml) of lm-evaluation-harness."""
    shots: Annotated[int, Field(ge=0)]
    """Examples in the prompt, before each question."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Items, drawn with the seed, of the task (of each of MMLU's 57 subjects); without it all."""
    methods: Annotated[list[Name], Field(min_length=1)] | None = None
    """The methods that answer beside `full`; without it all."""

    def task_file(self) -> TaskFile | None:
        """What the task's file says; None where the harness has the task itself."""
        return task_file(self.task)
