"""Every result of a study says where it comes from, and so does a run that fails."""

import hashlib
import re
from pathlib import Path

from copies import SMALL, Copy

from lowbit.files import read_json, sha256
from study.records.provenance import Provenance


def provenance(copy: Copy) -> Provenance:
    return Provenance.model_validate(read_json(copy.folder / "results/small/provenance.json"))


def test_every_result_of_a_study_is_on_record(finished: Copy) -> None:
    record = provenance(finished)
    assert record.complete
    (run,) = record.runs.values()
    assert (run.study, run.status, run.seed) == ("small", "finished", 0)
    config = (finished.folder / "results/small/config.resolved.yaml").read_bytes()
    assert record.config_sha256 == run.config_sha256 == hashlib.sha256(config).hexdigest()
    own = {name for name in finished.results() if name.startswith("small/")}
    assert {f"results/{name}" for name in own} <= record.results.keys()
    for name, result in record.results.items():
        assert result.sha256 == sha256(finished.folder / name), name
        assert result.run == run.id, name
        assert run.started < result.made <= run.ended, name
        assert result.environment in run.environments, name
        assert record.results.keys() >= set(result.inputs), name


def test_models_documents_and_environments_are_on_record(finished: Copy) -> None:
    record = provenance(finished)
    weights = finished.folder / "resources/demo/model/model.safetensors"
    assert record.models["demo"].files["model.safetensors"] == sha256(weights)
    assert {"documents", "calibration.demo"} <= record.documents.keys()
    assert record.results[record.documents["documents"].table].sha256
    (run,) = record.runs.values()
    assert {"workflow", "core", "analysis", "hqq"} <= run.environments.keys()
    for lock, digest in record.environments.items():
        assert sha256(finished.folder / lock) == digest
    core = (finished.folder / run.environments["core"]).read_text()
    assert re.search(r"^# Python 3\.11\.\d+$", core, re.MULTILINE)
    pinned = re.search(r"torch==[\d.]+", (finished.folder / "envs/core.yaml").read_text())
    assert re.search(rf"^{re.escape(pinned[0])}", core, re.MULTILINE)


def test_the_record_does_not_name_the_home_directory(finished: Copy) -> None:
    text = (finished.folder / "results/small/provenance.json").read_text()
    assert str(Path.home()) + "/" not in text


def test_a_result_stays_with_the_run_that_made_it(done: Copy) -> None:
    (first,) = provenance(done).runs
    done.edit("scripts/lowbit/claims/report.py")
    done.study()
    record = provenance(done)
    assert record.last_run != first
    made = {name for name, result in record.results.items() if result.run == record.last_run}
    assert {record.results[name].rule for name in made} == {
        "judge_claims",
        "render_pages",
        "write_summary",
    }
    assert all(result.run == first for name, result in record.results.items() if name not in made)


def test_a_run_that_fails_is_on_record(done: Copy) -> None:
    break_script(done, "raise SystemExit(3)")
    assert done.make("study", f"STUDY={SMALL}").code != 0
    record = provenance(done)
    assert not record.complete
    last = record.runs[record.last_run]
    assert last.status == "failed"
    (failure,) = last.failures
    assert (failure.rule, failure.logs) == ("render_pages", ["results/small/logs/render_pages.log"])


def test_a_run_that_is_killed_is_on_record(done: Copy) -> None:
    script, text = break_script(done, "import os; os.killpg(0, 9)")
    assert done.make("study", f"STUDY={SMALL}").code != 0
    script.write_text(text, encoding="utf-8")
    done.study()
    kept = sorted(done.folder.glob("results/provenance/runs/*"))
    assert [read_json(file)["status"] for file in kept] == ["finished", "running", "finished"]
    assert provenance(done).complete


def break_script(copy: Copy, fault: str) -> tuple[Path, str]:
    """Let `render_pages.py` do this instead; return its path, and its text as it was."""
    script = copy.folder / "scripts/render_pages.py"
    text = script.read_text(encoding="utf-8")
    script.write_text(text.replace('__main__":\n', f'__main__":\n    {fault}\n'), encoding="utf-8")
    return script, text
