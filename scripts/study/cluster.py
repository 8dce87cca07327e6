"""A SLURM cluster before a run: what the profile asks in vain, and jobs that a killed run left."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from lowbit.errors import InputError

LOGS = Path(".snakemake/slurm_logs")
"""Of jobs in this folder; there once a run submitted any."""
JOB_NAMES = "lowbit"
"""How the names of all jobs begin: `slurm-jobname-prefix` of the profile."""
PATIENCE = 120.0
"""Seconds that cancelled jobs may take to end."""


def runs_on_cluster(profile: Mapping[str, Any]) -> bool:
    """Whether jobs run on a SLURM cluster under this profile."""
    return profile.get("executor") == "slurm"


def read_profile(folder: Path) -> dict[str, Any]:
    """Read `config.yaml` of a profile."""
    return yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))


def cancel_left_jobs() -> None:
    """Cancel the jobs that a killed run of this folder left on the cluster, and wait for their end.

    They would write the very files that the next run makes. Only a process that holds the lock of
    this folder may call it, else the jobs are those of a run that is alive.

    Raises:
        InputError: the cluster does not answer, or the jobs do not end.
    """
    if not LOGS.exists() or shutil.which("squeue") is None:
        return
    try:
        jobs = left_jobs(Path.cwd())
    except InputError as error:
        raise InputError(
            f"{error} If no job of an earlier run can be at work in this folder, remove {LOGS}."
        ) from error
    if jobs:
        print(
            f"Cancelling {len(jobs)} jobs that a killed run left on the cluster: {', '.join(jobs)}"
        )
        _ask("scancel", *jobs)
    end = time.monotonic() + PATIENCE
    while jobs := left_jobs(Path.cwd()):
        if time.monotonic() > end:
            raise InputError(
                f"jobs {', '.join(jobs)} of a killed run do not end. See `squeue --me`; once they "
                "are gone, run the same command again."
            )
        time.sleep(0.5)


def left_jobs(folder: Path) -> list[str]:
    """Numbers of this user's jobs that wait, run or end, submitted by a run in `folder`."""
    own = os.environ.get("SLURM_JOB_ID")  # where Snakemake itself runs in a job
    queue = _ask("squeue", "--me", "--noheader", "--format=%A|%j|%Z")
    jobs = [line.split("|", maxsplit=2) for line in queue.splitlines()]
    return [
        number
        for number, name, directory in jobs
        if name.startswith(JOB_NAMES) and directory == str(folder) and number != own
    ]


def check_cluster(profile: Path, gpu: bool) -> None:
    """Refuse a cluster that does not have what `partitions.yaml` of a profile, if any, says.

    Args:
        profile: folder.
        gpu: whether the study may ask for GPUs; if not, partitions for these need not be there.

    Raises:
        InputError: no SLURM here, no answer, no partitions, a partition or GPU that is not there.
    """
    if shutil.which("sbatch") is None:
        raise InputError(
            "this machine has no SLURM (`sbatch` was not found). Run the same command on a login "
            "node of a cluster, or without PROFILE to run the study on this machine."
        )
    file = profile / "partitions.yaml"
    if not file.exists():
        return
    problems = [*_problems(read_partitions(file), offered_gpus(), gpu)]
    if problems:
        raise InputError("\n  ".join([f"{file} does not fit this cluster:", *problems]))


def read_partitions(file: Path) -> dict[str, dict[str, Any]]:
    """Partition -> its limits, as `partitions.yaml` of a profile has them.

    Raises:
        InputError: Snakemake's plugin would fail with it; says what to write.
    """
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    asked = content.get("partitions") if isinstance(content, dict) else None
    if not isinstance(asked, dict):
        raise InputError(
            f"{file} names no partitions. Write `partitions:` and below it each one that jobs may "
            "go to with its limits, such as `cpu: {max_runtime: 2880}`"
        )
    for name, limits in asked.items():
        if not isinstance(limits, dict):
            raise InputError(
                f"{file}: partition {name} is {limits!r}, not a mapping of limits; write "
                f"`{name}: {{max_runtime: 2880}}`, or `{name}: {{}}` where it has none"
            )
    return asked


def offered_gpus() -> dict[str, set[str]]:
    """Partition -> kinds of GPU on its nodes (`gpu` where they have no name)."""
    found: dict[str, set[str]] = {}
    for line in _ask("sinfo", "--noheader", "--format=%R|%G").splitlines():
        partition, resources = line.split("|", maxsplit=1)
        # gpu:a100:2(S:0-1),shard:8; or gpu:2 without a kind; or (null)
        kinds = re.findall(r"\bgpu(?::([\w.-]+))?:\d", resources)
        found.setdefault(partition, set()).update(kind or "gpu" for kind in kinds)
    return found


def _problems(
    asked: Mapping[str, Mapping[str, Any]], offered: Mapping[str, set[str]], gpu: bool
) -> Iterator[str]:
    """What does not fit, one sentence each that says what to write."""
    with_gpus = ", ".join(name for name, kinds in offered.items() if kinds) or "none"
    elsewhere = (
        f"Partitions with GPUs: {with_gpus}. To do without one, write `engine: {{device: cpu}}` in "
        "the study."
    )
    for name, limits in asked.items():
        needs_gpu = bool(limits.get("max_gpu"))
        if needs_gpu and not gpu:
            continue
        if name not in offered:
            yield (
                f"partition {name} does not exist; the cluster has {', '.join(offered)}. "
                "Write one of these in its place."
            )
        elif needs_gpu and not offered[name]:
            yield f"partition {name} has no GPUs. {elsewhere}"
        elif missing := {*(limits.get("available_gpu_models") or [])} - offered[name]:
            yield f"partition {name} has no {', '.join(missing)}, but {', '.join(offered[name])}."
    if gpu and not any(limits.get("max_gpu") for limits in asked.values()):
        yield f"the study may ask for a GPU, and no partition has `max_gpu`. {elsewhere}"


def _ask(*command: str) -> str:
    """Output of one of SLURM's commands.

    Raises:
        InputError: it failed; says what SLURM said.
    """
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise InputError(
            f"the cluster does not answer (`{command[0]}`: {done.stderr.strip()}). Try `sinfo`; "
            "when that works, run the same command again."
        )
    return done.stdout
