"""What each job of a study takes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

from study.config.study import Study
from study.estimates import disk, seconds
from study.estimates.analyses import analysis_memory, analysis_work
from study.estimates.engine_memory import (
    BYTES,
    FLOAT32,
    block_parameters,
    classifier_memory,
    cpu_memory,
    engine_memory,
    unpacking,
)
from study.estimates.measured import Measured, read_measured
from study.estimates.need import MIB, Need
from study.estimates.quantizer_memory import host_memory, work_memory
from study.estimates.shapes import ModelShape
from study.estimates.texts import TextSource
from study.estimates.walks import ENGINE_RULES, Job, Walk, engine_job
from study.paths import Paths

QUANTIZE, READ_CHECKPOINT = "quantize_", "read_checkpoint"
CLASSIFY = "classify_topics"
OF_CLASSIFIER = ("fetch_classifier", CLASSIFY)
"""Rules whose jobs are about the classifier of topics, not about a language model."""
ON_DEVICE = (*ENGINE_RULES, "answer", CLASSIFY, READ_CHECKPOINT)
"""Rules, beside the quantizers, whose jobs run on the config's `engine.device`."""
FETCHING = ("fetch_model", "fetch_classifier", "fetch_documents", "fetch_checkpoint")
GPU_LIBRARIES = 0.6e9
"""Bytes of a GPU that its driver's context and libraries take. Assumed."""
HOST_LIBRARIES = 2.5e9
"""Bytes of the machine's memory that CUDA's libraries add to a job on a GPU. Assumed."""
PROBE_TOKENS = 4 * 128
"""Tokens of the probe: `lowbit.quantization.probe`."""
PROMPT = 1024
"""Tokens of a prompt of a downstream task, where the context allows."""
QUESTIONS = {"popqa": 14267, "mmlu": 14042 * 4}
"""Prompts of a whole task; those of MMLU have four answers each."""
OTHER_QUESTIONS = 1000
USUAL = "score"
"""The rule whose numbers others that run models take, where they have none of their own."""


def gpu_is_here() -> bool:
    """Whether this machine has an NVIDIA GPU."""
    return Path("/dev/nvidia0").exists()


def runs_on_device(rule: str) -> bool:
    """Whether a rule's jobs run where `engine.device` says."""
    return rule in ON_DEVICE or rule.startswith(QUANTIZE)


@dataclass(frozen=True)
class Estimates:
    """Estimates for the jobs of one study.

    Args:
        shapes: of the models, by plain name.
        texts: where each table of documents is from, by keyed name, where that is known.
        downloads: bytes of each model that is on the hub, by plain name.
        checkpoints: the same of published checkpoints, by method.
        classifier: of topics, where the study has one.
        classifier_download: bytes of it, where it is on the hub.
    """

    study: Study
    paths: Paths
    shapes: Mapping[str, ModelShape]
    texts: Mapping[str, TextSource] = field(default_factory=dict)
    downloads: Mapping[str, int] = field(default_factory=dict)
    checkpoints: Mapping[str, int] = field(default_factory=dict)
    classifier: ModelShape | None = None
    classifier_download: int = 0
    gpu: seconds.Gpu = seconds.A100
    measured: Mapping[str, Measured] = field(default_factory=read_measured)

    def unknown_documents(self) -> set[str]:
        """Keyed names of tables of documents whose size is not known before they are fetched."""
        paths = self.paths
        tables = (*paths.calibration_documents.values(), *paths.evaluation_documents.values())
        return {paths.documents, *tables} - set(self.texts)

    def need(
        self,
        rule: str,
        wildcards: Mapping[str, str],
        outputs: Iterable[str] = (),
        on_gpu: bool = False,
    ) -> Need:
        """What a job of `rule` takes.

        Args:
            wildcards: of the job.
            outputs: its files; only their names matter.
            on_gpu: whether what runs on `engine.device` runs on a GPU.
        """
        shape = self._shape(rule, wildcards)
        kept = sum(self._file(Path(name).name, wildcards, shape) for name in outputs)
        base = self._base(rule)
        on_gpu = on_gpu and runs_on_device(rule)
        taken = self._seconds(rule, wildcards, base, on_gpu)
        libraries = base.memory_mib * MIB
        if not on_gpu:
            return Need(libraries + self.computed_memory(rule, wildcards), taken, kept)
        host, device = self._divided(rule, wildcards)
        return Need(libraries + HOST_LIBRARIES + host, taken, kept, GPU_LIBRARIES + device)

    def computed_memory(self, rule: str, wildcards: Mapping[str, str]) -> float:
        """Bytes at the peak beside Python and its libraries, on the CPU."""
        shape, engine = self._shape(rule, wildcards), self.study.engine
        if rule in ENGINE_RULES:
            job = engine_job(rule, self.study, shape)
            return cpu_memory(job, shape, engine) + 2 * job.kept_bytes
        host, device = self._divided(rule, wildcards)
        # Weights pass through nothing on their way to an answer: they are there.
        return device if rule in ("answer", CLASSIFY) else host + device

    def work(self, rule: str, wildcards: Mapping[str, str]) -> float:
        """What the time of a job is in proportion to: operations, or rows of its tables."""
        shape = self._shape(rule, wildcards)
        if rule in ENGINE_RULES:
            return seconds.engine_work(engine_job(rule, self.study, shape), shape)
        if rule.startswith(QUANTIZE) or rule == READ_CHECKPOINT:
            name = self._method(wildcards)
            return seconds.quantizer_work(self.study.methods[name], self.study, shape, name)
        if rule == "answer":
            return seconds.engine_work(self._answers(wildcards, shape), shape)
        if rule == CLASSIFY:
            return seconds.engine_work(self._classified(shape), shape)
        if rule == "probe_model":
            return 2.0 * shape.parameters * PROBE_TOKENS
        if rule in ("fetch_model", "fetch_classifier"):
            return shape.stored_bytes
        return analysis_work(rule, self.study)

    def _divided(self, rule: str, wildcards: Mapping[str, str]) -> tuple[float, float]:
        """Bytes of the machine and of the device. On a CPU both are the machine's, for the rules
        that `computed_memory` does not treat apart."""
        shape, study = self._shape(rule, wildcards), self.study
        if rule in ENGINE_RULES:
            job = engine_job(rule, study, shape)
            host = self._loading(shape, study.engine.mode) + unpacking(job, shape)
            return host + 2 * job.kept_bytes, engine_memory(job, shape, study.engine)
        if rule.startswith(QUANTIZE) or rule == READ_CHECKPOINT:
            name = self._method(wildcards)
            given = study.methods[name], study, shape, name
            return host_memory(*given), work_memory(*given)
        if rule == "answer":
            job = self._answers(wildcards, shape)
            engine = study.engine.model_copy(update={"mode": "resident"})
            return self._loading(shape, "resident"), engine_memory(job, shape, engine)
        if rule == CLASSIFY:
            device = classifier_memory(shape, study.documents.length)
            return FLOAT32 * shape.parameters, device
        if rule == "probe_model":
            logits = 3 * PROBE_TOKENS * shape.vocabulary
            return FLOAT32 * (shape.parameters + logits), 0.0
        if rule in ("fetch_model", "fetch_classifier"):
            largest = max(shape.largest_matrix, shape.vocabulary * shape.hidden)
            return FLOAT32 * largest, 0.0
        return analysis_memory(rule, study), 0.0

    def _loading(self, shape: ModelShape, mode: str) -> float:
        """Bytes of the machine that weights pass through on their way to a GPU."""
        number = BYTES[self.study.engine.dtype]
        if mode == "resident":
            return number * shape.parameters
        return number * (shape.kept_parameters + 2 * block_parameters(shape))

    def _seconds(
        self, rule: str, wildcards: Mapping[str, str], base: Measured, on_gpu: bool
    ) -> float:
        work, study, rate = self.work(rule, wildcards), self.study, base.rate
        if rule in FETCHING:
            return base.seconds + self._fetching(rule, wildcards)
        if not runs_on_device(rule):
            return base.seconds + (work / rate if rate else 0.0)
        if on_gpu:
            rate = self.gpu.rate(study.engine.dtype if rule in ENGINE_RULES else "float32")
        else:
            rate = study.engine.threads * (rate or self._base(USUAL).rate or inf)
        taken = base.seconds + work / rate
        if rule in ENGINE_RULES:
            shape, resident = self._shape(rule, wildcards), study.engine.mode == "resident"
            taken += seconds.weights_seconds(engine_job(rule, study, shape), shape, resident)
        return taken

    def _fetching(self, rule: str, wildcards: Mapping[str, str]) -> float:
        """Seconds in which files are downloaded, hashed and looked through."""
        if rule == "fetch_documents":
            source = self.texts.get(wildcards["documents"])
            return source.download / seconds.DOWNLOAD_RATE if source else 0.0
        if rule == "fetch_checkpoint":
            size = self.checkpoints.get(self._method(wildcards), 0)
            return size / seconds.DOWNLOAD_RATE + size / seconds.CHECK_RATE
        size = self.classifier_download
        if rule == "fetch_model":
            size = self.downloads.get(self._model(wildcards), 0)
        stored = self._shape(rule, wildcards).stored_bytes
        return size / seconds.DOWNLOAD_RATE + stored / seconds.CHECK_RATE

    def _base(self, rule: str) -> Measured:
        """The measured numbers of a rule; where it has none, those of the largest of its kind."""
        if rule in self.measured:
            return self.measured[rule]
        if not self.measured:
            return Measured(0.0, 0.0, None)
        kind = rule.split("_")[0]
        kin = {name: each for name, each in self.measured.items() if name.split("_")[0] == kind}
        if runs_on_device(rule) and not kin:
            return self.measured[USUAL]
        others = {n: each for n, each in self.measured.items() if not runs_on_device(n)}
        found = list((kin or others).values())
        rates = [each.rate for each in found if each.rate is not None]
        return Measured(
            max(each.memory_mib for each in found),
            max(each.seconds for each in found),
            min(rates, default=None),
        )

    def _shape(self, rule: str, wildcards: Mapping[str, str]) -> ModelShape | None:
        """Sizes of the model, or classifier, of a job; None for jobs that are not of one."""
        if rule in OF_CLASSIFIER:
            return self.classifier
        return self.shapes[self._model(wildcards)] if "model" in wildcards else None

    def _model(self, wildcards: Mapping[str, str]) -> str:
        model = wildcards["model"]
        return model if model in self.shapes else self.paths.plain_name(model)

    def _method(self, wildcards: Mapping[str, str]) -> str:
        return self.paths.plain_name(wildcards["method"])

    def _answers(self, wildcards: Mapping[str, str], shape: ModelShape) -> Job:
        """The prompts of a downstream task, as a walk of one stream."""
        task = self.study.downstream[self.paths.plain_name(wildcards["downstream"])]
        rows = QUESTIONS.get(task.task, OTHER_QUESTIONS)
        if task.limit:
            rows = min(rows, task.limit * (4 * 57 if task.task == "mmlu" else 1))
        length = min(PROMPT, shape.context or PROMPT)
        return Job([Walk(rows, length, 1, shape.layers, 1)], quantized=0)

    def _classified(self, shape: ModelShape) -> Job:
        """The documents, as a walk through the classifier."""
        documents = self.study.documents
        return Job([Walk(documents.n, documents.length, 1, shape.layers, read_outs=0)])

    def _file(self, name: str, wildcards: Mapping[str, str], shape: ModelShape | None) -> float:
        """Bytes of one output."""
        if name == "weights.safetensors":
            method = self.study.methods[self._method(wildcards)]
            return disk.weights_bytes(method, shape)
        if name == "method.json":
            return disk.RECORD_ENTRY * sum(matrix.count for matrix in shape.matrices)
        if name == "documents.parquet":
            source = self.texts.get(wildcards["documents"])
            return source.kept if source else 0.0
        if name == "tokens.parquet":
            sizes = self.study.documents
            if "calibration" in wildcards:
                sizes = self.study.calibration[self.paths.plain_name(wildcards["calibration"])]
            return disk.TABLE + disk.TOKEN * sizes.n * sizes.length
        return disk.file_bytes(name, self.study, shape)
