"""What is looked at before a run on a cluster; the cluster's commands are stood in for by scripts.

`make test-cluster` does the same with a real one.
"""

import os
from pathlib import Path

import pytest
import yaml

from lowbit.errors import InputError
from study.cluster import (
    JOB_NAMES,
    LOGS,
    cancel_left_jobs,
    check_cluster,
    offered_gpus,
    read_profile,
    runs_on_cluster,
)

PROFILES = Path(__file__).parents[1] / "profiles"
SINFO = (
    r"printf 'cpu|(null)\nlong|(null)\ngpu|gpu:a100:4(S:0,2),shard:8\ngpu|gpu:h100:2\nold|gpu:2\n'"
)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of commands before all others; the current folder has nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    command(folder, "sbatch", "true")
    command(folder, "sinfo", SINFO)
    return folder


def command(folder: Path, name: str, script: str) -> None:
    """Make a command."""
    (folder / name).write_text(f"#!/bin/bash\n{script}\n")
    (folder / name).chmod(0o755)


def profile(folder: Path, partitions: dict | None) -> Path:
    """A profile with these partitions."""
    (folder / "partitions.yaml").write_text(yaml.safe_dump({"partitions": partitions}))
    return folder


def refusal(folder: Path, partitions: dict | None, gpu: bool = True) -> str:
    """Why the stand-in cluster does not do."""
    with pytest.raises(InputError) as error:
        check_cluster(profile(folder, partitions), gpu)
    return str(error.value)


def test_gpus_are_read_with_and_without_a_kind(commands: Path) -> None:
    expected = {"cpu": set(), "long": set(), "gpu": {"a100", "h100"}, "old": {"gpu"}}
    assert offered_gpus() == expected


def test_partitions_that_are_there_are_accepted(commands: Path, tmp_path: Path) -> None:
    fitting = {"cpu": {"max_runtime": 60}, "gpu": {"max_gpu": 4, "available_gpu_models": ["h100"]}}
    check_cluster(profile(tmp_path, fitting), gpu=True)


def test_a_study_without_gpu_needs_no_partition_with_gpus(commands: Path, tmp_path: Path) -> None:
    check_cluster(profile(tmp_path, {"cpu": {}, "gpus": {"max_gpu": 1}}), gpu=False)


def test_each_thing_that_is_not_there_is_named(commands: Path, tmp_path: Path) -> None:
    said = refusal(tmp_path, {"cp": {}, "long": {"max_gpu": 1}})
    assert f"{tmp_path}/partitions.yaml" in said
    assert "partition cp does not exist; the cluster has cpu, long, gpu, old" in said
    assert "partition long has no GPUs. Partitions with GPUs: gpu, old" in said
    assert "engine: {device: cpu}" in said
    assert "no v100" in refusal(tmp_path, {"gpu": {"max_gpu": 1, "available_gpu_models": ["v100"]}})
    assert "no partition has `max_gpu`" in refusal(tmp_path, {"cpu": {}})


def test_what_the_plugin_would_fail_with_is_told(commands: Path, tmp_path: Path) -> None:
    assert "partition cpu is None" in (said := refusal(tmp_path, {"cpu": None}))
    assert "`cpu: {max_runtime: 2880}`, or `cpu: {}`" in said
    assert "names no partitions. Write `partitions:`" in refusal(tmp_path, None)
    (tmp_path / "partitions.yaml").write_text("# none yet\n")
    with pytest.raises(InputError, match="names no partitions"):
        check_cluster(tmp_path, gpu=False)


def test_a_machine_without_slurm_is_told_so(
    commands: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    said = refusal(tmp_path, {"cpu": {}})
    assert "no SLURM (`sbatch` was not found)" in said
    assert "without PROFILE" in said


def test_a_cluster_that_does_not_answer_is_not_taken_for_one_without_partitions(
    commands: Path, tmp_path: Path
) -> None:
    command(commands, "sinfo", "echo 'Unable to contact slurm controller' >&2; exit 1")
    assert "Unable to contact slurm controller" in refusal(tmp_path, {"cpu": {}})


def test_only_jobs_of_killed_runs_of_this_folder_are_cancelled(
    commands: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    LOGS.mkdir(parents=True)
    monkeypatch.setenv("SLURM_JOB_ID", "6")
    others = f"6|{JOB_NAMES}|{tmp_path}\n8|{JOB_NAMES}_x|/elsewhere\n9|interactive|{tmp_path}\n"
    (tmp_path / "queue").write_text(f"7|{JOB_NAMES}_x|{tmp_path}\n{others}")
    command(commands, "squeue", f"cat {tmp_path}/queue")
    command(commands, "scancel", f"echo $@ > {tmp_path}/cancelled; sed -i /^7/d {tmp_path}/queue")
    cancel_left_jobs()
    assert (tmp_path / "cancelled").read_text().split() == ["7"]
    assert "Cancelling 1 jobs" in capsys.readouterr().out
    (tmp_path / "cancelled").unlink()
    cancel_left_jobs()
    assert not (tmp_path / "cancelled").exists()


def test_what_a_killed_run_left_is_not_taken_for_gone_when_the_cluster_does_not_answer(
    commands: Path,
) -> None:
    LOGS.mkdir(parents=True)
    command(commands, "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(InputError, match=rf"Unable to contact.* remove {LOGS}"):
        cancel_left_jobs()


def test_a_folder_that_never_used_the_cluster_does_not_ask_it(commands: Path) -> None:
    command(commands, "squeue", "exit 1")
    cancel_left_jobs()


def test_the_profile_is_a_clusters_and_else_as_the_default() -> None:
    default, slurm = (read_profile(PROFILES / name) for name in ("default", "slurm"))
    assert (runs_on_cluster(default), runs_on_cluster(slurm)) == (False, True)
    assert slurm["slurm-jobname-prefix"] == JOB_NAMES
    shared = default.keys() - {"cores", "resources"}  # limits of one machine
    assert {key: slurm[key] for key in shared} == {key: default[key] for key in shared}
