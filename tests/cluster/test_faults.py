"""What befalls single jobs: each is submitted again, with more where it had too little.

All of it befalls jobs of one run, for the waiting is what takes time.
"""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from copies import Copy, fork, kill
from slurm import Job, ask, jobs, running, wait_until

SECONDS = 420
Attempts = Callable[[str], list[Job]]
"""The jobs of a rule, in their order."""


@pytest.fixture(scope="module")
def folder(sources: Copy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where faults.smk ran under the project's profile for clusters, while we did our worst."""
    copy = fork(sources, tmp_path_factory.mktemp("faults"))
    launch = [
        ".venv/bin/python",
        "scripts/study/launch.py",
        "--snakefile",
        "tests/cluster/faults.smk",
    ]
    process = subprocess.Popen(
        [*launch, "--workflow-profile", "profiles/slurm"],
        cwd=copy.folder,
        env=os.environ | {"PATH": f"{copy.folder}/envs/standin:{os.environ['PATH']}"},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        wait_until(lambda: running("cancelled") and running("lost"), 120)
        ask("scancel", running("cancelled")[0].number)
        ask("scontrol", "update", "nodename=c2", "state=down", "reason=test")
        output, _ = process.communicate(timeout=SECONDS)
    finally:
        kill(process)
        ask("scontrol", "update", "nodename=c2", "state=resume")
    assert process.returncode == 0, output
    return copy.folder


@pytest.fixture
def attempts(folder: Path) -> Attempts:
    return lambda rule: [job for job in jobs(rule) if job.folder == str(folder)]


def test_a_job_over_its_time_gets_more(attempts: Attempts) -> None:
    first, second = attempts("over_time")
    assert (first.state, first.minutes) == ("TIMEOUT", "1:00")
    assert (second.state, second.minutes) == ("COMPLETED", "2:00")


def test_a_job_over_its_memory_gets_more(attempts: Attempts, folder: Path) -> None:
    first, second = attempts("over_memory")
    assert (first.state, first.memory) == ("FAILED", "1000M")
    log = folder / f".snakemake/slurm_logs/rule_over_memory/{first.number}.log"
    assert "exceeded memory limit" in log.read_text(encoding="utf-8")
    assert (second.state, second.memory) == ("COMPLETED", "2000M")


def test_a_cancelled_job_runs_again(attempts: Attempts) -> None:
    assert [job.state for job in attempts("cancelled")] == ["CANCELLED", "COMPLETED"]


def test_a_job_whose_node_is_lost_runs_on_another(attempts: Attempts) -> None:
    first, second = attempts("lost")
    assert (first.state, first.node) == ("NODE_FAIL", "c2")
    assert (second.state, second.node) == ("COMPLETED", "c1")


def test_jobs_go_to_the_partition_that_has_what_they_ask_for(
    attempts: Attempts, folder: Path
) -> None:
    (with_gpu,), (without,) = attempts("on_gpu"), attempts("without_gpu")
    assert (with_gpu.state, with_gpu.partition) == ("COMPLETED", "gpu")
    assert (without.state, without.partition) == ("COMPLETED", "cpu")
    assert (folder / "results/on_gpu.txt").read_text().strip() in ("0", "1")
