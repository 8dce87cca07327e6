"""Runs that are killed, run twice at once, or cannot start."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from copies import SECONDS, SMALL, Copy, started

# Something that is there only from a certain moment of the run on: in each, the run is killed.
MOMENTS: list[Callable[[Path], bool]] = [
    # while the first method is being quantized
    lambda results: any(results.glob("models/*/logs/quantize/*.log")),
    # between two methods
    lambda results: len(list(results.glob("models/*/quantized/*/method.json"))) >= 2,
    # while documents are being scored
    lambda results: "document" in read(results / "small/demo/logs/score.log"),
    # between writing the scores of two methods
    lambda results: any(results.glob("models/*/scores/*/*.parquet")),
    # while tables are being computed
    lambda results: (results / "small/demo/errors.parquet").exists(),
    # while figures are being drawn
    lambda results: any(results.glob("small/demo/figures/*.png")),
]


def read(file: Path) -> str:
    return file.read_text(encoding="utf-8") if file.exists() else ""


def wait_for(moment: Callable[[Path], bool], copy: Copy, process: subprocess.Popen[str]) -> None:
    """Wait until the moment has come; fail where the run ends before it."""
    end = time.monotonic() + SECONDS
    while not moment(copy.folder / "results"):
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.005)
    assert process.poll() is None


def test_a_killed_study_goes_on_to_the_same_results(fresh: Copy, finished: Copy) -> None:
    for moment in MOMENTS:
        with started(fresh, "study", f"STUDY={SMALL}") as process:
            wait_for(moment, fresh, process)
    fresh.study()
    assert fresh.results() == finished.results()
    assert not list(fresh.folder.glob("results/**/*.partial"))
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
