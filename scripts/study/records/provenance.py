"""Where every result of a study comes from: the one record with dates, seconds and hardware.

Each run writes itself down in `results/provenance/runs/<start>.json` when it starts and again when
it ends, so that a run that was killed has a record, too. Runs of one folder never overlap: the
date of a file says which of them made it, also when that was another study's.
"""

import csv
import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from lowbit.files import read_json, sha256, write_json
from study.config.study import Study
from study.paths import Fingerprints, Paths, pattern
from study.records.machine import Code, Machine, Part, without_home

FOLDER = Path("results/provenance")
"""What all studies share: `runs/<start>.json`, `environments/<name>-<digest>.txt`, `jobs/`."""
STAMP = "%Y%m%dT%H%M%SZ"


class Failure(Part):
    """A job that failed."""

    rule: str
    """The rule of the job."""
    outputs: list[str]
    """What it would have made."""
    logs: list[str]
    """Where it says why."""


class Run(Part):
    """One call of Snakemake that had something to do."""

    study: str
    """The study it was a run of."""
    status: Literal["running", "finished", "failed"]
    """`running` in the record of an earlier run: it was killed."""
    started: datetime
    """When its first job was about to start."""
    ended: datetime | None = None
    """When its last job had ended; null where `status` is `running`."""
    config_sha256: str
    """Of the config in full, as in `config.resolved.yaml`."""
    seed: int
    """Of all that is drawn at random."""
    code: Code
    """The state of this repository."""
    machine: Machine
    """Where Snakemake itself ran; jobs that a cluster ran elsewhere name theirs."""
    snakemake: str
    """Its version."""
    environments: dict[str, str]
    """Environment -> its lock, below `results/provenance/environments/`; `workflow` is
    Snakemake's own, the others are those of the jobs that were to run."""
    failures: list[Failure] = Field(default_factory=list)
    """Jobs that failed."""

    @property
    def id(self) -> str:
        """Its start, as the name of its file."""
        return self.started.strftime(STAMP)


class Result(Part):
    """One file that a rule made."""

    sha256: str | None
    """Null where the file is gone."""
    bytes: int | None
    """Its size; null where the file is gone."""
    made: datetime | None
    """When its job ended; null where that is not known."""
    rule: str
    """The rule that made it."""
    inputs: list[str]
    """Files it was made from; each is a result, too."""
    code: str | None
    """Digests of the script with all modules it imports, and of its environment's file."""
    environment: str | None
    """A name in its run's `environments`; null where rules ran without environments."""
    run: str | None
    """The run that made it, a key of `runs`; null where none of the known runs did."""
    machine: Machine | None
    """Where a cluster ran its job; null where its run's Snakemake ran it itself."""


class ModelOrigin(Part):
    """A model as it was checked."""

    source: str
    """As in the config, a branch as its commit and the home directory as `~`."""
    commit: str | None
    """Of the repository that it comes from, 40 hex digits; null for local files."""
    files: dict[str, str]
    """File -> SHA-256."""


class TextOrigin(Part):
    """A table of documents."""

    table: str
    """A key of `results`, which has its hash."""
    source: str
    """As in the config, a branch as its commit and the home directory as `~`."""
    commit: str | None
    """Of the repository that it comes from, 40 hex digits; null for local files."""


class RuleCost(Part):
    """What all jobs of a rule took together."""

    jobs: int
    """How many."""
    seconds: float
    """Wall time, in all."""
    max_memory_mib: float
    """Of the largest job; 0 where jobs were too short to be looked at."""


class Provenance(Part):
    """`results/<study>/provenance.json`, as the study's last run left it."""

    study: str
    """Its name."""
    complete: bool
    """Whether the last run was of the whole study and no job failed."""
    last_run: str
    """A key of `runs`."""
    config_sha256: str
    """Of the config in full, as in `config.resolved.yaml`."""
    models: dict[str, ModelOrigin]
    """Those that are checked already, by name."""
    classifier: ModelOrigin | None
    """The classifier of topics; null where it is not checked yet, or there is none."""
    documents: dict[str, TextOrigin]
    """Those that are read already, by key in the config: `documents`, `calibration.<name>`,
    `evaluation.<name>`."""
    environments: dict[str, str]
    """Lock of an environment -> its SHA-256."""
    runs: dict[str, Run]
    """The last run, and every run that made a result of this study; by start."""
    results: dict[str, Result]
    """Every file that the study's rules make and that is or was there, by path."""
    rules: dict[str, RuleCost]
    """Seconds and memory, from the benchmarks of all jobs whose results are there."""


class Placement(Part):
    """A job that ran on a machine of a cluster."""

    started: datetime
    machine: Machine


class Job(Part):
    """What Snakemake knows of a job."""

    rule: str
    inputs: list[str]
    made: dict[str, datetime | None]
    """Output -> when it was made; null where nothing is known of it."""
    code: str | None
    environment: str | None
    benchmark: str | None
    placement: Placement | None
    """The last on record, which need not be of the run that made the outputs."""


def keep_run(run: Run, folder: Path = FOLDER) -> None:
    """Write a run's record, in place of what it said before."""
    write_json(folder / "runs" / f"{run.id}.json", run.model_dump(mode="json"))


def kept_runs(folder: Path = FOLDER) -> list[Run]:
    """All runs on record, by start; what another version of this workflow wrote is left out."""
    runs = []
    for file in folder.glob("runs/*.json"):
        with suppress(ValidationError):
            runs.append(Run.model_validate(read_json(file)))
    return sorted(runs, key=lambda run: run.started)


def provenance(
    study: Study,
    paths: Paths,
    jobs: Sequence[Job],
    runs: Sequence[Run],
    complete: bool,
) -> Provenance:
    """Put a study's record together; reads its result files for their hashes.

    Args:
        jobs: all jobs of the study, whether they ran or had run before.
        runs: all runs on record, by start, the last run of the study at the end.
        complete: whether everything is there that a finished study has.
    """
    results = _results(jobs, runs)
    used = {result.run for result in results.values()} | {runs[-1].id}
    kept = {run.id: run for run in runs if run.id in used}
    locks = sorted({lock for run in kept.values() for lock in run.environments.values()})
    return Provenance(
        study=study.study,
        complete=complete,
        last_run=runs[-1].id,
        config_sha256=config_sha256(study),
        models=_models(study, paths),
        classifier=_origin(paths.shared("classifier")) if study.topics else None,
        documents=_documents(paths),
        environments={lock: sha256(lock) for lock in locks},
        runs=kept,
        results=results,
        rules=summarize(Path(job.benchmark) for job in jobs if job.benchmark),
    )


def config_sha256(study: Study) -> str:
    """SHA-256 of the config in full."""
    return hashlib.sha256(study.resolved().encode()).hexdigest()


def run_of(made: datetime | None, runs: Sequence[Run]) -> str | None:
    """The run that was at work when a file was made: the last that had started by then.

    Args:
        made: when the file was made.
        runs: by start.
    """
    if made is None:
        return None
    before = [run for run in runs if run.started <= made]
    if not before or (before[-1].ended and made > before[-1].ended):
        return None
    return before[-1].id


def summarize(benchmarks: Iterable[Path]) -> dict[str, RuleCost]:
    """Rule -> number of jobs, seconds in all, and the largest job's memory in MiB.

    Args:
        benchmarks: files `benchmarks/<rule>.tsv` or `benchmarks/<rule>/<what>.tsv`.
    """
    costs: dict[str, dict[str, Any]] = {}
    for file in sorted(benchmark for benchmark in benchmarks if benchmark.exists()):
        folder = file.parent
        rule = file.stem if folder.name == "benchmarks" else folder.name
        cost = costs.setdefault(rule, {"jobs": 0, "seconds": 0.0, "max_memory_mib": 0.0})
        with open(file, encoding="utf-8", newline="") as stream:
            for row in csv.DictReader(stream, delimiter="\t"):
                cost["jobs"] += 1
                cost["seconds"] = round(cost["seconds"] + float(row["s"]), 1)
                # Snakemake writes NA for a job too short to be looked at.
                if row["max_rss"] != "NA":
                    cost["max_memory_mib"] = max(cost["max_memory_mib"], float(row["max_rss"]))
    return {rule: RuleCost(**cost) for rule, cost in costs.items()}


def _results(jobs: Sequence[Job], runs: Sequence[Run]) -> dict[str, Result]:
    """Path -> record, of every output that is there or was made."""
    fingerprints = Fingerprints()
    found = {
        path: _result(path, made, job, runs, fingerprints)
        for job in jobs
        for path, made in job.made.items()
        if made or Path(path).exists()
    }
    fingerprints.save()
    return dict(sorted(found.items()))


def _result(
    path: str, made: datetime | None, job: Job, runs: Sequence[Run], fingerprints: Fingerprints
) -> Result:
    file, run = Path(path), run_of(made, runs)
    placement = job.placement
    # Of an earlier or a later run than the one that made the file, it says nothing.
    placed = placement and run and run_of(placement.started, runs) == run
    return Result(
        sha256=_content_hash(file, fingerprints),
        bytes=file.stat().st_size if file.exists() else None,
        made=made,
        rule=job.rule,
        inputs=job.inputs,
        code=job.code,
        environment=job.environment,
        run=run,
        machine=placement.machine if placed else None,
    )


def _content_hash(path: Path, fingerprints: Fingerprints) -> str | None:
    """SHA-256 of a file; of quantized weights, which are large, the one in their record."""
    if not path.exists():
        return None
    record = path.with_name("method.json")
    if path.name == "weights.safetensors" and record.exists():
        return read_json(record)["weights_sha256"]
    return fingerprints.of_file(path)


def _models(study: Study, paths: Paths) -> dict[str, ModelOrigin]:
    origins = {name: _origin(paths.shared("model", model=name)) for name in study.models}
    return {name: origin for name, origin in origins.items() if origin}


def _origin(path: str) -> ModelOrigin | None:
    """What a record of a model says of it; None where it is not there."""
    record = _read_if_there(path)
    return record and ModelOrigin(
        source=without_home(record["source"]),
        commit=_commit(record),
        files={file: entry["sha256"] for file, entry in record["files"].items()},
    )


def _documents(paths: Paths) -> dict[str, TextOrigin]:
    keyed_names = {
        "documents": paths.documents,
        **{f"calibration.{name}": keyed for name, keyed in paths.calibration_documents.items()},
        **{f"evaluation.{name}": keyed for name, keyed in paths.evaluation_documents.items()},
    }
    origins = {}
    for key, keyed in keyed_names.items():
        record = _read_if_there(pattern("documents_record").format(documents=keyed))
        if record:
            origins[key] = TextOrigin(
                table=pattern("documents").format(documents=keyed),
                source=without_home(record["source"]),
                commit=_commit(record),
            )
    return origins


def _commit(record: Mapping[str, Any]) -> str | None:
    """The commit that a record names by itself or in `hub:<repository>@<commit>`."""
    found = re.search(r"@([0-9a-f]{40})\b", record["source"])
    return record.get("commit") or (found and found[1])


def _read_if_there(path: str) -> dict[str, Any] | None:
    return read_json(path) if Path(path).exists() else None
