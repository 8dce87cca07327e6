"""What a killed run left behind is cleared away before the next one starts."""

import errno
import os
import platform
import subprocess
import time
from pathlib import Path

import pytest

from study import launch
from study.launch import HEAD, NO_LOCKS, end_leftover_jobs, remove_remnants, take_lock


def test_only_jobs_of_this_folder_without_their_snakemake_are_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    ended = subprocess.Popen(["true"])
    ended.wait()

    def job(folder: Path, head: object) -> subprocess.Popen:
        environment = os.environ | {HEAD: str(head)}
        return subprocess.Popen(["sleep", "60"], cwd=folder, env=environment)

    leftover = job(here, ended.pid)
    others = [job(here, os.getpid()), job(elsewhere, ended.pid), job(here, "")]
    try:
        monkeypatch.chdir(here)
        end_leftover_jobs()
        assert leftover.wait(timeout=10) == -9
        time.sleep(0.1)
        assert [each.poll() for each in others] == [None, None, None]
    finally:
        for each in (leftover, *others):
            each.kill()
            each.wait()


def test_locks_and_half_written_files_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".snakemake/locks/0.input.lock", "results/a/b.csv.12.partial", "results/a/b.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    remove_remnants()
    left = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    assert left == ["results/a/b.csv"]


def test_a_second_run_is_told_whose_the_first_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "PATIENCE", 0.0)
    lock = take_lock(tmp_path / "state/run.lock")
    with pytest.raises(SystemExit, match=rf"process {os.getpid()} on {platform.node()}\)\. Wait"):
        take_lock(tmp_path / "state/run.lock")
    os.close(lock)
    os.close(take_lock(tmp_path / "state/run.lock"))


@pytest.mark.parametrize("number", [*NO_LOCKS, errno.EIO])
def test_a_file_system_without_locks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(launch.fcntl, "flock", refuse)
    expected = SystemExit if number in NO_LOCKS else OSError
    with pytest.raises(expected) as error:
        take_lock(tmp_path / "run.lock")
    assert os.strerror(number) in str(error.value)
    assert ("has no file locks" in str(error.value)) == (number in NO_LOCKS)
