"""Where every file of a study is, and the keys that let studies share what is the same.

A *key* is 8 hex digits of a SHA-256 over a source's content and the settings that make a file what
it is. What has a key lives under `results/models/`, `documents/` or `classifiers/` as
`<name>-<key>`: two studies meet there exactly when they would write the same. What belongs to one
study lives under `results/<study>/`.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lowbit.errors import InputError
from lowbit.files import read_json, sha256, write_json
from lowbit.inputs import documents as document_sources
from lowbit.inputs import models as model_sources
from lowbit.inputs.hub import Listing
from lowbit.inputs.model_files import files_of
from lowbit.names import FULL
from lowbit.quantization.published.description import checkpoint_files
from study.config import archive
from study.config.messages import Key
from study.config.methods import Published
from study.config.sections import Benchmark, Calibration, Documents, Evaluation, Texts
from study.config.study import Study

RESULTS = "results"
SHARED = MappingProxyType(
    {
        "model": "models/{model}/model.json",
        "probe": "models/{model}/probe.json",
        "documents": "documents/{documents}/documents.parquet",
        "documents_record": "documents/{documents}/documents.json",
        "chosen": "documents/{documents}/chosen/{tokens}.txt",
        "chosen_record": "documents/{documents}/chosen/{tokens}.json",
        "tokens": "models/{model}/tokens/{tokens}/tokens.parquet",
        "tokens_record": "models/{model}/tokens/{tokens}/tokens.json",
        "document_ids": "models/{model}/tokens/{tokens}/document_ids.txt",
        "calibration": "models/{model}/calibration/{calibration}/tokens.parquet",
        "calibration_record": "models/{model}/calibration/{calibration}/tokens.json",
        "evaluation_rows": "models/{model}/evaluation/{evaluation}/rows.parquet",
        "evaluation_record": "models/{model}/evaluation/{evaluation}/rows.json",
        "evaluation_scores": "models/{model}/evaluation/{evaluation}/{scores}.parquet",
        "weights": "models/{model}/quantized/{method}/weights.safetensors",
        "checkpoint": "models/{model}/quantized/{method}/checkpoint.json",
        "method_record": "models/{model}/quantized/{method}/method.json",
        "scores": "models/{model}/scores/{tokens}/{scores}.parquet",
        "residuals": "models/{model}/residuals/{residuals}/residuals.parquet",
        "residual_dimensions": "models/{model}/residuals/{residuals}/dimensions.parquet",
        "classifier": "classifiers/{classifier}/classifier.json",
        "topics": "models/{model}/topics/{topics}/topics.parquet",
        "answers": "models/{model}/downstream/{downstream}/{scores}.parquet",
        "answers_record": "models/{model}/downstream/{downstream}/{scores}.json",
    }
)
"""Files that studies share, as patterns below `results/`; each wildcard holds a `<name>-<key>`."""

TOPIC_SETTINGS = {"device", "threads"}
"""Keys of `engine` that a classifier of topics is run by: always in float32, one text at a time."""

FINGERPRINTS = Path(".cache/fingerprints.json")
LARGE_FILE = 64 * 2**20
"""Bytes from which a file's hash is remembered; smaller files are read each time (< 0.1 s)."""


def pattern(kind: str) -> str:
    """A shared file's path with its wildcards, for a rule: `results/models/{model}/model.json`."""
    return f"{RESULTS}/{SHARED[kind]}"


@dataclass(frozen=True)
class Paths:
    """The keyed names of one study, and every path made from them (relative, as text)."""

    study: str
    models: Mapping[str, str]
    """Model name -> `<name>-<key>`; the key is over the model's files."""
    documents: str
    """`<name>-<key>`; over the documents' files, the columns read and what selects them; of
    released sets over the model that reads them."""
    tokens: str
    """`<documents name>-<key>`; over the documents' key, n, length and seed, and over the models
    where documents are chosen for all of them."""
    chosen_for_all: bool
    """Whether the models have different tokenizers, so that documents are chosen for all of them
    together: long enough under each. Otherwise every model chooses the same ones by itself."""
    calibration_documents: Mapping[str, str]
    """Calibration set -> `<name>-<key>` of its documents; over their files and the columns read."""
    calibration: Mapping[str, str]
    """Calibration set -> `<name>-<key>` of its tokens; over documents, n, length and seed."""
    evaluation_documents: Mapping[str, str]
    """Evaluation set -> `<name>-<key>` of its documents; over their files and how they are read."""
    evaluation: Mapping[str, str]
    """Evaluation set -> `<name>-<key>` of its rows; over documents, kind, n, length and seed."""
    methods: Mapping[str, str]
    """Method name -> `<name>-<key>` of its weights; over quantizer, settings, calibration, seed,
    threads and device."""
    scores: Mapping[str, str]
    """Method name, `full` first -> `<name>-<key>` of its scores; over weights and engine."""
    residuals: str
    """`<documents name>-<key>`; over tokens and engine."""
    classifier: str
    """`topics-<key>`, the key over the files of the classifier of topics; empty without one."""
    topics: str
    """`<documents name>-<key>`; over tokens, classifier and how it is run; empty without one."""
    downstream: Mapping[str, str]
    """Downstream task -> `<name>-<key>`; over its files, shots, limit and seed."""

    def shared(
        self,
        kind: str,
        model: str = "",
        method: str = "",
        calibration: str = "",
        evaluation: str = "",
        downstream: str = "",
    ) -> str:
        """Path of a shared file (a key of `SHARED`) for plain names.

        Raises:
            KeyError: no such name, or the file needs one and none is given.
        """
        wildcards = {
            "documents": self.documents,
            "tokens": self.tokens,
            "residuals": self.residuals,
            "classifier": self.classifier,
            "topics": self.topics,
        }
        if model:
            wildcards["model"] = self.models[model]
        if calibration:
            wildcards["calibration"] = self.calibration[calibration]
        if evaluation:
            wildcards["evaluation"] = self.evaluation[evaluation]
        if downstream:
            wildcards["downstream"] = self.downstream[downstream]
        if method:
            wildcards["scores"] = self.scores[method]
        if method != FULL and method:
            wildcards["method"] = self.methods[method]
        return pattern(kind).format(**wildcards)

    def result(self, file: str, model: str | None = None) -> str:
        """Path of a table or figure of this study: `results/<study>/[<model>/]<file>`."""
        return "/".join(part for part in (RESULTS, self.study, model, file) if part)

    def plain_name(self, keyed: str) -> str:
        """The plain name in a wildcard's `<name>-<key>`.

        Raises:
            InputError: the key is not one of this study, so its settings are not known.
        """
        current = {
            *self.models.values(),
            *self.methods.values(),
            *self.scores.values(),
            *self.calibration_documents.values(),
            *self.calibration.values(),
            *self.evaluation_documents.values(),
            *self.evaluation.values(),
            *self.downstream.values(),
            *(self.documents, self.tokens, self.residuals),
        }
        if keyed not in current:
            raise InputError(
                f"{keyed} is not part of study {self.study} as it is configured now; "
                f"known are {', '.join(sorted(current))}"
            )
        return keyed.rpartition("-")[0]


def paths_of(study: Study, cache: Path = FINGERPRINTS) -> Paths:
    """Work out all keys of a study; reads local sources' files (large ones only if changed)."""
    fingerprints = Fingerprints(cache)
    models = {name: _keyed(name, fingerprints.of_model(study, name)) for name in study.models}
    texts = {
        key: _text_key(key, settings, fingerprints.of_documents(settings.source, demo), study)
        for key, (settings, demo) in study.texts().items()
    }
    documents = texts["documents",]
    if study.documents.released:  # they are decoded by the model's tokenizer
        documents = _keyed(study.documents.name, documents, list(models.values()))
    tokenizers = [fingerprints.of_tokenizer(study, name) for name in study.models]
    several = any(other != tokenizers[0] for other in tokenizers) and not study.documents.ids
    together = [sorted(models.values())] if several else []
    tokens = _drawn_key(study.documents.name, documents, study.documents, study.seed, *together)
    calibration_documents = {name: texts["calibration", name] for name in study.calibration}
    calibration = {
        name: _drawn_key(name, calibration_documents[name], each, study.seed)
        for name, each in study.calibration.items()
    }
    evaluation_documents = {name: texts["evaluation", name] for name in study.evaluation}
    evaluation = {
        name: _rows_key(name, evaluation_documents[name], each, study.seed)
        for name, each in study.evaluation.items()
    }
    checkpoints = {
        name: fingerprints.of_checkpoint(method)
        for name, method in study.methods.items()
        if isinstance(method, Published)
    }
    downstream = _downstream_keys(study, fingerprints)
    classifier = _keyed("topics", fingerprints.of_classifier(study)) if study.topics else ""
    fingerprints.save()

    engine = study.engine.model_dump()
    numeric = study.engine.model_dump(exclude={"mode"})  # both modes give the same scores
    learned_from = {name: (calibration_documents[name], key) for name, key in calibration.items()}
    methods = _method_keys(study, checkpoints, learned_from)
    scored = {FULL: FULL} | methods
    return Paths(
        study=study.study,
        models=models,
        documents=documents,
        tokens=tokens,
        chosen_for_all=several,
        calibration_documents=calibration_documents,
        calibration=calibration,
        evaluation_documents=evaluation_documents,
        evaluation=evaluation,
        methods=methods,
        scores={name: _keyed(name, keyed, numeric) for name, keyed in scored.items()},
        residuals=_keyed(study.documents.name, tokens, engine),
        classifier=classifier,
        topics=_topics_key(study, tokens, classifier) if study.topics else "",
        downstream=downstream,
    )


def _topics_key(study: Study, tokens: str, classifier: str) -> str:
    """Keyed name of the documents' topics."""
    run = study.engine.model_dump(include=TOPIC_SETTINGS)
    return _keyed(study.documents.name, tokens, classifier, run)


def _downstream_keys(study: Study, fingerprints: "Fingerprints") -> dict[str, str]:
    """Keyed names of the downstream tasks."""
    return {
        name: _keyed(
            name,
            fingerprints.of_task(benchmark),
            benchmark.model_dump(include={"shots", "limit"}),
            {"seed": study.seed},
        )
        for name, benchmark in study.downstream.items()
    }


def _method_keys(
    study: Study, checkpoints: Mapping[str, Any], learned_from: Mapping[str, tuple[str, str]]
) -> dict[str, str]:
    """Keyed names of the methods.

    Args:
        checkpoints: what identifies the files of each published checkpoint.
        learned_from: keyed names of each calibration set's documents and tokens.
    """
    run = {"seed": study.seed} | study.engine.model_dump(include={"threads", "device"})
    return {
        name: _keyed(
            name,
            checkpoints.get(name, method.model_dump()),
            learned_from[study.calibration_of(name)],
            run,
        )
        for name, method in study.methods.items()
    }


def _text_key(key: Key, settings: Texts, content: Any, study: Study) -> str:
    """Keyed name of a table of documents; of what selects them only what is there counts."""
    name = key[1] if len(key) > 1 else study.documents.name
    columns = settings.model_dump(include={"text_column", "id_column"})
    selected: list[Any] = ["keep empty"] if settings.keep_empty else []
    if settings.minimum:
        selected.append({"minimum": settings.minimum})
    if settings.candidates:
        selected.append({"candidates": settings.candidates, "seed": study.seed})
    if file := settings.ids_file():
        selected.append({"ids": sha256(file)})
    return _keyed(name, content, columns, *selected)


def _drawn_key(
    name: str, documents: str, settings: Documents | Calibration, seed: int, *choice: Any
) -> str:
    """Keyed name of the tokens drawn from a set of documents."""
    drawn = settings.model_dump(include={"n", "length"}) | {"seed": seed}
    return _keyed(name, documents, drawn, *choice)


def _rows_key(name: str, documents: str, settings: Evaluation, seed: int) -> str:
    """Keyed name of the rows made of an evaluation set's documents."""
    made = settings.model_dump(include={"kind", "n", "length", "join"}) | {"seed": seed}
    return _keyed(name, documents, made)


def _keyed(name: str, *content: Any) -> str:
    """`<name>-<key>`, the key over the canonical JSON of `content` (not over the name)."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


class Fingerprints:
    """Content hashes of sources. A touched file keeps its fingerprint, a changed one does not.

    Hashes of large files are remembered by path, size and times, so that a model of 100 GB is not
    read at each start.
    """

    def __init__(self, cache: Path = FINGERPRINTS, large_file: int = LARGE_FILE) -> None:
        self.cache, self.large_file = cache, large_file
        self.known = self._load()
        self.new = False

    def _load(self) -> dict[str, list]:
        try:
            return read_json(self.cache)
        except (FileNotFoundError, json.JSONDecodeError):
            return {}  # only a cache: what is not there is computed again

    def of_model(self, study: Study, name: str) -> Any:
        """Names and hashes of a local model's files, or repository and commit of one on the hub."""
        return self._of_outline(study.model_outline(name))

    def of_classifier(self, study: Study) -> Any:
        """The same of the classifier of topics."""
        return self._of_outline(study.classifier_outline())

    def _of_outline(self, outline: Path | Listing) -> Any:
        if not isinstance(outline, Path):
            return outline.address
        return self.of_files(outline, model_sources.model_files(outline))

    def of_tokenizer(self, study: Study, name: str) -> dict[str, Any]:
        """Names and hashes of the files that decide how a model tokenizes."""
        outline = study.model_outline(name)
        names = [file for file in model_sources.TOKENIZER_FILES if file in files_of(outline)]
        if isinstance(outline, Path):
            return self.of_files(outline, names)
        return {file: asdict(outline.files[file]) for file in names}

    def of_checkpoint(self, method: Published) -> Any:
        """The same of a published checkpoint."""
        outline = method.checkpoint()
        if not isinstance(outline, Path):
            return outline.address
        return self.of_files(outline, checkpoint_files(outline))

    def of_documents(self, source: str, demo: Path) -> Any:
        """Names and hashes of document files; of remote ones, what identifies their content."""
        found = document_sources.outline_documents(archive.locate(source, demo).source, demo)
        if isinstance(found, document_sources.DocumentFiles):
            return self.of_files(found.folder, found.names)
        return found.content

    def of_task(self, benchmark: Benchmark) -> Any:
        """Hashes of a task's files, or the name of a task of the harness itself."""
        file = benchmark.task_file()
        return benchmark.task if file is None else [self.of_file(path) for path in file.files]

    def of_files(self, folder: Path, names: Iterable[str]) -> dict[str, str]:
        """Name -> SHA-256."""
        return {name: self.of_file(folder / name) for name in names}

    def of_file(self, path: Path) -> str:
        """SHA-256 of one file's content, from the cache where size and times are as they were."""
        status = path.stat()
        if status.st_size < self.large_file:
            return sha256(path)
        place = os.path.realpath(path)
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        if self.known.get(place, [])[:3] != stamp:
            self.known[place] = [*stamp, sha256(path)]
            self.new = True
        return self.known[place][3]

    def save(self) -> None:
        """Write the cache if it has something new; files that are gone are forgotten."""
        if self.new:
            kept = {place: entry for place, entry in self.known.items() if os.path.exists(place)}
            write_json(self.cache, kept)
