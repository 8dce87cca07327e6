"""A whole study of a model from the hub, through `make`, beside the same of the model on disk."""

import re
import shutil
from pathlib import Path

import pytest
from copies import Copy, copy_sources
from local_hub import ROOT, Hub

DEMO = ROOT / "resources/demo/model"
STUDY = """study: small
models:
  tiny: {{source: "{source}"}}
documents: {{name: demo, source: demo, n: 24, length: 64}}
methods:
  rtn2: {{quantizer: rtn, bits: 2, group_size: 64}}
  nf3: {{quantizer: nf, bits: 3, group_size: 64}}
engine: {{device: cpu}}
bootstrap: {{resamples: 100}}
"""
NAMES_ITS_SOURCE = {"config.resolved.yaml", "summary.md", "summary.html", "model.json"}
NAMES_KEYS = {"scores.json"}
KEY = re.compile(r"-[0-9a-f]{8}\b")
"""Of a shared file; it is over the source."""


def write_study(copy: Copy, source: str) -> str:
    """Write a study of one model; return its file."""
    (copy.folder / "study.yaml").write_text(STUDY.format(source=source))
    return "study.yaml"


@pytest.fixture
def on_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The hub with the embedded model, which this process and its children use."""
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)
    hub.publish("model", "owner/tiny", DEMO)
    return hub


def test_a_model_from_the_hub_gives_the_results_of_the_same_on_disk(
    on_hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = {name: copy_sources(tmp_path / name) for name in ("disk", "hub")}
    copies["disk"].study(write_study(copies["disk"], "path:resources/demo/model"))
    assert not on_hub.asked()
    copies["hub"].study(write_study(copies["hub"], "hub:owner/tiny@main"))
    found = {name: without_keys(copy) for name, copy in copies.items()}
    remembered = {name for name in found["hub"] if name.startswith("hub/")}
    assert found["disk"].keys() == found["hub"].keys() - remembered
    differ = {name for name, content in found["disk"].items() if found["hub"][name] != content}
    assert {Path(name).name for name in differ} == NAMES_ITS_SOURCE | NAMES_KEYS
    records = [copy.folder / "results/small/tiny/scores.json" for copy in copies.values()]
    assert len({KEY.sub("", record.read_text()) for record in records}) == 1
    (record,) = copies["hub"].folder.glob("results/models/tiny-*/model.json")
    (head,) = on_hub.folder.glob("models/owner/tiny/.git/refs/heads/main")
    assert f'"hub:owner/tiny@{head.read_text().strip()}"' in record.read_text()

    # The jobs read Snakefile and config again; only the run itself asked, and each thing once.
    for what in ("/revision/main", "/tree/", "/config.json"):
        assert len(on_hub.answered(what)) == 1
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "Nothing to be done" in copies["hub"].study("study.yaml").output


def without_keys(copy: Copy) -> dict[str, str]:
    """Hashes of results by name without keys."""
    return {KEY.sub("", name): value for name, value in copy.results().items()}


def test_what_the_hub_refuses_is_told_with_file_line_and_key(on_hub: Hub, tmp_path: Path) -> None:
    copy = copy_sources(tmp_path / "copy")
    study = write_study(copy, "hub:owner/absent@main")
    told = copy.make("plan", f"STUDY={study}")
    expected = "study.yaml:3: models.tiny.source cannot be used: hub:owner/absent@main is not there"
    assert told.code
    assert expected in told.output
    assert "Traceback" not in told.output

    study = write_study(copy, "hub:owner/tiny@main")
    on_hub.fail("/revision/", 503)
    told = copy.make("plan", f"STUDY={study}")
    assert "hub:owner/tiny@main failed because of trouble at" in told.output
    on_hub.repair()
    assert copy.plan(study)["fetch_model"] == 1


def test_a_published_checkpoint_is_fetched_by_a_job_of_its_own(on_hub: Hub, tmp_path: Path) -> None:
    """Where jobs run on nodes without a network, this one runs beside Snakemake."""
    folder = Path(shutil.copytree(DEMO, tmp_path / "published"))
    (folder / "quantize_config.json").write_text('{"bits": 4, "group_size": 64}')
    on_hub.publish("model", "owner/tiny-gptq", folder)
    copy = copy_sources(tmp_path / "copy")
    study = write_study(copy, "hub:owner/tiny@main")
    text = (copy.folder / study).read_text()
    method = '{quantized: "hub:owner/tiny-gptq@main"}\nengine:'
    (copy.folder / study).write_text(text.replace("engine:", f"  published4: {method}", 1))
    planned = copy.plan(study)
    assert planned["fetch_checkpoint"] == planned["read_checkpoint"] == 1


def test_settings_are_checked_against_the_listing(on_hub: Hub, tmp_path: Path) -> None:
    """Context and widths are known before anything large is fetched."""
    copy = copy_sources(tmp_path / "copy")
    study = write_study(copy, "hub:owner/tiny@main")
    text = (copy.folder / study).read_text()
    text = text.replace("bits: 2, group_size: 64", "bits: 2, group_size: 48")
    (copy.folder / study).write_text(text.replace("length: 64", "length: 100000"))
    told = copy.make("plan", f"STUDY={study}").output
    assert "study.yaml:4: documents.length is 100000, but the context of model tiny is" in told
    assert "study.yaml:6: methods.rtn2.group_size is 48, which does not divide" in told
    assert not [path for path in on_hub.home.rglob("*") if path.stat().st_size > 1_000_000]
    shutil.rmtree(copy.folder)
