"""The plan of the small study, beside what the study then really took."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from copies import SMALL, Copy

from lowbit.files import read_json
from study.fit_estimates import finished_jobs, study_account

TOLERANCE = 0.2
"""Of memory and disk: as a share of what was measured."""


@pytest.fixture(scope="module")
def account(finished: Copy) -> dict[str, Any]:
    """What the plan is made of, in the folder where the study has run."""
    return study_account(SMALL, finished.folder)


def stage_rows(output: str) -> dict[str, Sequence[str]]:
    """The printed table: stage -> its cells."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in output.splitlines()]
    return {cells[0]: cells[1:] for cells in lines if len(cells) == 8}


def test_the_jobs_are_counted_before_anything_runs(fresh: Copy, finished: Copy) -> None:
    planned = fresh.make("plan", f"STUDY={SMALL}")
    assert planned.code == 0, planned.output
    ran = read_json(finished.folder / "results/small/provenance.json")["rules"]
    jobs = sum(rule["jobs"] for rule in ran.values())
    assert sum(planned.rules.values()) == jobs
    assert f"{jobs} of {jobs} jobs are to run" in planned.output
    assert stage_rows(planned.output)["total"][:2] == [str(jobs), "0"]
    assert planned.output.index("Assumed:") < planned.output.index("Job stats:")
    assert not list((fresh.folder / "results").glob("*/"))


def test_a_finished_study_is_planned_as_done(finished: Copy) -> None:
    planned = finished.make("plan", f"STUDY={SMALL}")
    assert planned.code == 0, planned.output
    jobs, done, *rest = stage_rows(planned.output)["total"]
    assert jobs == done
    assert rest[0] == "0.00"


def test_a_part_of_a_study_can_be_planned(fresh: Copy) -> None:
    planned = fresh.make("plan", f"STUDY={SMALL}", "ARGS=--until tokenize_documents")
    assert dict(planned.rules) == {
        "fetch_documents": 1,
        "fetch_model": 1,
        "tokenize_documents": 1,
    }


def test_memory_is_what_the_jobs_took(account: dict[str, Any], finished: Copy) -> None:
    jobs = list(finished_jobs(account, finished.folder))
    assert {job.rule for job in jobs} >= {"score", "quantize_hqq", "patch", "predict"}
    wrong = {
        (job.rule, job.peak_mib, job.estimated_mib)
        for job in jobs
        if abs(job.estimated_mib / job.peak_mib - 1) > TOLERANCE
    }
    assert not wrong


def test_disk_is_what_the_results_take(account: dict[str, Any], finished: Copy) -> None:
    def size(path: Path) -> int:
        return path.stat().st_size

    outputs = [finished.folder / name for job in account["jobs"] for name in job["output"]]
    kept = [*outputs, *finished.folder.glob("results/models/*/scores/*/*.parquet")]
    planned = sum(job["disk"] for job in account["jobs"])
    assert planned == pytest.approx(sum(map(size, kept)), rel=TOLERANCE)
    for job in account["jobs"]:
        if job["rule"].startswith("quantize_"):
            taken = sum(size(finished.folder / name) for name in job["output"])
            assert job["disk"] == pytest.approx(taken, rel=TOLERANCE)


def test_resources_rerun_nothing(done: Copy) -> None:
    """Other estimates are other resources, and no reason to run a job again."""
    file = done.folder / "scripts/study/estimates/requests.py"
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("MEMORY_MARGIN = 1.25", "MEMORY_MARGIN = 2.5"), encoding="utf-8")
    assert file.read_text(encoding="utf-8") != text
    assert not done.plan()
