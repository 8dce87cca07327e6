"""What befalls single jobs: each is submitted again, with more where it had too little."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from copies import Copy, kill
from slurm import Job, ask, jobs, node_states, running, wait_until

SECONDS = 300
"""For one rule with all its attempts."""


@contextmanager
def started(copy: Copy, rule: str) -> Iterator[subprocess.Popen[str]]:
    """Run a rule of faults.smk under the project's profile for clusters."""
    launch = [
        ".venv/bin/python",
        "scripts/study/launch.py",
        "--snakefile",
        "tests/cluster/faults.smk",
    ]
    process = subprocess.Popen(
        [*launch, "--workflow-profile", "profiles/slurm", target(rule)],
        cwd=copy.folder,
        env=os.environ | {"PATH": f"{copy.folder}/envs/standin:{os.environ['PATH']}"},
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        kill(process)
        process.stdout.close()


def target(rule: str) -> str:
    """What the rule makes."""
    return f"results/{rule}.txt"


def attempts(copy: Copy, process: subprocess.Popen[str], rule: str) -> list[Job]:
    """The jobs of a rule, once Snakemake has ended well."""
    output, _ = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, output
    assert (copy.folder / target(rule)).exists()
    return [job for job in jobs(rule) if job.folder == str(copy.folder)]


def test_a_job_over_its_time_gets_more(fresh: Copy) -> None:
    with started(fresh, "over_time") as process:
        first, second = attempts(fresh, process, "over_time")
    assert (first.state, first.minutes) == ("TIMEOUT", "1:00")
    assert (second.state, second.minutes) == ("COMPLETED", "2:00")


def test_a_job_over_its_memory_gets_more(fresh: Copy) -> None:
    with started(fresh, "over_memory") as process:
        first, second = attempts(fresh, process, "over_memory")
    assert first.state in ("OUT_OF_MEMORY", "FAILED", "CANCELLED")
    assert second.state == "COMPLETED"
    assert (first.memory, second.memory) == ("1000M", "2000M")


def test_a_cancelled_job_runs_again(fresh: Copy) -> None:
    with started(fresh, "interrupted") as process:
        wait_until(lambda: running("interrupted"), 60)
        ask("scancel", running("interrupted")[0].number)
        first, second = attempts(fresh, process, "interrupted")
    assert (first.state, second.state) == ("CANCELLED", "COMPLETED")


def test_a_job_whose_node_is_lost_runs_on_another(fresh: Copy) -> None:
    with started(fresh, "interrupted") as process:
        wait_until(lambda: running("interrupted"), 60)
        node = running("interrupted")[0].node
        ask("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        try:
            first, second = attempts(fresh, process, "interrupted")
        finally:
            ask("scontrol", "update", f"nodename={node}", "state=resume")
    assert (first.state, first.node) == ("NODE_FAIL", node)
    assert second.state == "COMPLETED"
    assert second.node != node
    wait_until(lambda: node_states()[node] == "idle", 30)


def test_jobs_go_to_the_partition_that_has_what_they_ask_for(fresh: Copy) -> None:
    for rule, partition in (("on_gpu", "gpu"), ("without_gpu", "cpu")):
        with started(fresh, rule) as process:
            (job,) = attempts(fresh, process, rule)
        assert (job.state, job.partition) == ("COMPLETED", partition)
    assert (fresh.folder / target("on_gpu")).read_text().strip() in ("0", "1")
