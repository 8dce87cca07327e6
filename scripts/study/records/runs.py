"""A run of Snakemake writes itself down: when it starts, when it ends, and what its jobs made.

Called from the handlers in `rules/report.smk`; what Snakemake knows becomes plain data here.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from lowbit.files import read_json, write_json
from study.config.study import Study
from study.paths import Paths
from study.records.locks import write_lock
from study.records.machine import describe_code, describe_machine
from study.records.provenance import (
    FOLDER,
    Failure,
    Job,
    Placement,
    Run,
    config_sha256,
    keep_run,
    kept_runs,
    provenance,
)

if TYPE_CHECKING:
    from snakemake.jobs import Job as SnakemakeJob
    from snakemake.workflow import Workflow


def begin_run(workflow: "Workflow", study: Study) -> None:
    """Put the run on record before its first job starts, so that a killed run is on record, too."""
    keep_run(
        Run(
            study=study.study,
            status="running",
            started=datetime.now(UTC),
            config_sha256=config_sha256(study),
            seed=study.seed,
            code=describe_code(),
            machine=describe_machine(),
            snakemake=version("snakemake"),
            environments=_write_locks(workflow),
        )
    )


def end_run(
    workflow: "Workflow", study: Study, paths: Paths, final: Iterable[str], failed: bool = False
) -> None:
    """Complete the run's record and write the study's `provenance.json`.

    Args:
        final: everything that a finished study has.
        failed: whether a job failed.
    """
    *earlier, run = kept_runs()  # the last is this one: runs of one folder never overlap
    run = run.model_copy(
        update={
            "status": "failed" if failed else "finished",
            "ended": datetime.now(UTC),
            "failures": _failures(workflow) if failed else [],
        }
    )
    keep_run(run)
    made = {file for job in workflow.dag.jobs for file in job.output}
    complete = not failed and made.issuperset(final)
    record = provenance(study, paths, _jobs(workflow), [*earlier, run], complete)
    write_json(paths.result("provenance.json"), record.model_dump(mode="json"))


def place_jobs(arguments: Sequence[str]) -> None:
    """On a machine of a cluster: note for each job that runs here what machine that is.

    Args:
        arguments: those that Snakemake was called with here; it tells a Snakefile its jobs by
            nothing else.
    """
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--target-jobs", nargs="+", default=[])
    placement = Placement(started=datetime.now(UTC), machine=describe_machine())
    for target in parser.parse_known_args(arguments)[0].target_jobs:
        rule, _, wildcards = target.partition(":")
        pairs = (pair.split("=", 1) for pair in wildcards.split(",") if pair)
        write_json(_placement_file(rule, dict(pairs)), placement.model_dump(mode="json"))


def _placement_file(rule: str, wildcards: Mapping[str, str]) -> Path:
    text = json.dumps(sorted(wildcards.items()))
    return FOLDER / "jobs" / f"{rule}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.json"


def _write_locks(workflow: "Workflow") -> dict[str, str]:
    """Environment -> its lock, of Snakemake's own and of those that rules of this study name."""
    prefixes = {"workflow": sys.prefix} | {
        _environment_name(specification): environment.address
        for (specification, _), environment in workflow.dag.conda_envs.items()
    }
    folder = FOLDER / "environments"
    return {
        name: write_lock(name, Path(prefix), folder).as_posix()
        for name, prefix in sorted(prefixes.items())
    }


def _environment_name(specification: object) -> str:
    """`core` of `envs/core.yaml`."""
    return Path(specification.file.get_path_or_uri(secret_free=True)).stem


def _failures(workflow: "Workflow") -> list[Failure]:
    failed = workflow.scheduler.failed
    jobs = [job for one in failed for job in (one.jobs if one.is_group() else [one])]
    return [
        Failure(rule=job.rule.name, outputs=[*map(str, job.output)], logs=[*map(str, job.log)])
        for job in sorted(jobs, key=lambda job: (job.rule.name, [*map(str, job.output)]))
    ]


def _jobs(workflow: "Workflow") -> list[Job]:
    """The study's jobs, whether they ran now or before."""
    return [_job(workflow, job) for job in workflow.dag.jobs if job.output]


def _job(workflow: "Workflow", job: "SnakemakeJob") -> Job:
    named = workflow.dag.conda_envs and job.conda_env_spec
    placement = _placement_file(job.rule.name, job.wildcards_dict)
    return Job(
        rule=job.rule.name,
        inputs=sorted(map(str, job.input)),
        made={str(file): _made(workflow, file) for file in job.output},
        code=job.params.get("code"),
        environment=_environment_name(job.conda_env_spec) if named else None,
        benchmark=str(job.benchmark) if job.benchmark else None,
        placement=Placement.model_validate(read_json(placement)) if placement.exists() else None,
    )


def _made(workflow: "Workflow", file: object) -> datetime | None:
    """When a file's job ended, as Snakemake remembers it; a file's own date changes when copied."""
    record = workflow.persistence.metadata(file)
    if record is None or record.incomplete or record.endtime is None:
        return None
    return datetime.fromtimestamp(record.endtime, UTC)
