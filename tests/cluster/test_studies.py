"""Whole studies on the cluster, by the command that the README gives."""

import yaml
from copies import SECONDS, SMALL, Copy, started
from slurm import jobs, running, wait_until

ON_CLUSTER = ("study", "PROFILE=slurm", f"STUDY={SMALL}")


def run(copy: Copy) -> str:
    """Run the small study on the cluster to its end; what it said."""
    done = copy.make(*ON_CLUSTER)
    assert done.code == 0, done.output
    return done.output


def known() -> set[str]:
    """Numbers of the jobs so far."""
    return {job.number for job in jobs()}


def test_a_study_equals_that_of_one_machine(fresh: Copy, finished: Copy) -> None:
    before = known()
    run(fresh)
    submitted = [job for job in jobs() if job.number not in before]
    assert {job.state for job in submitted} == {"COMPLETED"}
    assert len({job.comment for job in submitted}) == len(submitted)
    assert not [job for job in submitted if job.comment.startswith(("rule_plot", "rule_fetch"))]
    assert fresh.results() == finished.results()
    assert not fresh.plan()


def test_a_killed_head_is_followed_by_the_same_command(fresh: Copy, finished: Copy) -> None:
    """Jobs run on after it; the next run ends them before it submits the same again."""
    before = known()
    with started(fresh, *ON_CLUSTER):
        wait_until(lambda: running("quantize"), SECONDS)
    assert running("quantize")
    left = known() - before
    said = run(fresh)
    assert "that a killed run left on the cluster" in said
    old = [job for job in jobs() if job.number in left]
    new = [job for job in jobs() if job.number not in before | left]
    assert {job.state for job in new} == {"COMPLETED"}
    assert "CANCELLED" in {job.state for job in old}
    assert max(job.ended for job in old) <= min(job.submitted for job in new)
    assert fresh.results() == finished.results()


def test_a_run_without_the_cluster_ends_what_a_killed_one_left_there(fresh: Copy) -> None:
    with started(fresh, *ON_CLUSTER):
        wait_until(lambda: running("quantize"), SECONDS)
    fresh.study(options="--until fetch_model")
    assert not running()


def test_what_the_cluster_lacks_is_told_before_any_job(fresh: Copy) -> None:
    before = known()
    partitions = {"compute": {"max_runtime": 60}, "cpu": {"max_gpu": 1}}
    file = fresh.folder / "profiles/slurm/partitions.yaml"
    file.write_text(yaml.safe_dump({"partitions": partitions}), encoding="utf-8")
    done = fresh.make("study", "PROFILE=slurm")
    assert done.code != 0
    assert "partition compute does not exist; the cluster has cpu, gpu" in done.output
    assert "partition cpu has no GPUs. Partitions with GPUs: gpu" in done.output
    assert "Traceback" not in done.output
    assert known() == before
