"""Runs that are killed, run twice at once, or cannot start."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from copies import SECONDS, SMALL, Copy, started
from kills import KINDS, draw, kill_again_and_again

SEED = 11


def wait_for(moment: Callable[[Path], bool], copy: Copy, process: subprocess.Popen[str]) -> None:
    """Wait until the moment has come; fail where the run ends before it."""
    end = time.monotonic() + SECONDS
    while not moment(copy.folder / "results"):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.005)
    assert process.poll() is None


def test_a_study_killed_three_times_goes_on_to_the_same_results(
    fresh: Copy, finished: Copy
) -> None:
    """One job, Snakemake, everything; `make test-kills` does it 30 times."""
    kills = kill_again_and_again(fresh, draw(3, SEED), SMALL)
    assert {each.kind for each in kills} == set(KINDS)
    assert fresh.results() == finished.results()
    assert not list(fresh.folder.glob("results/**/*.partial"))
    assert not list(fresh.folder.glob("results/**/*.unfinished"))
    assert not fresh.plan()


def test_a_second_run_at_the_same_time_is_refused(fresh: Copy) -> None:
    with started(fresh, "study", f"STUDY={SMALL}") as process:
        wait_for(lambda results: (results / "models").exists(), fresh, process)
        second = fresh.make("study", f"STUDY={SMALL}")
        assert process.poll() is None
    assert second.code != 0
    assert "another run is at work in this folder" in second.output
    assert "Traceback" not in second.output


def test_a_wrong_config_is_explained_before_any_job(fresh: Copy) -> None:
    done = fresh.make("study", "STUDY=tests/e2e/config/wrong.yaml")
    assert done.code != 0
    for key in ("sed", "methods.nf3"):
        assert key in done.output
    assert "wrong.yaml:3" in done.output
    assert "Traceback" not in done.output
    assert not fresh.results().keys() - {"README.md"}


def test_a_missing_study_file_is_named(fresh: Copy) -> None:
    done = fresh.make("study", "STUDY=config/absent.yaml")
    assert done.code != 0
    assert "there is no study file config/absent.yaml" in done.output
    assert "Traceback" not in done.output
