"""Models from a hub: what is asked, kept and recorded, and what goes wrong on the way."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faulty_proxy import Fault
from local_hub import ROOT, Hub
from safetensors.numpy import save_file
from tiny_classifier import LABELS, write_gte

from lowbit.files import read_json, sha256
from lowbit.inputs import models

SECONDS = 120
BLOCK = 10 * 2**20
"""Bytes that huggingface_hub writes at a time."""


FIND = """
import sys
from pathlib import Path
from lowbit.errors import run
from lowbit.inputs.models import locate_model as locate
run(lambda: print(locate(sys.argv[1], Path("demo"))))
"""
FIND_CHECKPOINT = """
import sys
from lowbit.quantization.published.description import locate_checkpoint
print(locate_checkpoint(sys.argv[1]))
"""
DESCRIBE_CHECKPOINT = """
import json, sys
from lowbit.quantization.published.description import describe_checkpoint, outline_checkpoint
print(json.dumps(describe_checkpoint(outline_checkpoint(sys.argv[1]))))
"""


def run_code(
    hub: Hub, code: str, source: str, folder: Path, **variables: str
) -> subprocess.CompletedProcess:
    """Run Python code about a source, in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, source],
        cwd=folder,
        env=hub.environment | {"PYTHONPATH": str(ROOT / "scripts")} | variables,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def find(hub: Hub, source: str, folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """Bring a model here as fetch_model.py does first; it prints the folder."""
    return run_code(hub, FIND, source, folder, **variables)


def found(done: subprocess.CompletedProcess) -> Path:
    """The folder that was found."""
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


def fetch(hub: Hub, source: str, folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """Run fetch_model.py as its rule would."""
    options = ["--source", source, "--demo", "demo", "--output", folder / "model/model.json"]
    return subprocess.run(
        [sys.executable, ROOT / "scripts/fetch_model.py", *options],
        cwd=folder,
        env=hub.environment | variables,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def message(done: subprocess.CompletedProcess) -> str:
    """The one line that a failed run said."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture
def model(hub: Hub, llama_directory: Path, request: pytest.FixtureRequest) -> str:
    """A tiny model on the hub, in a repository of this test alone, as `hub:<repo>`."""
    repo = f"owner/{re.sub(r'[^a-z0-9]+', '-', request.node.name.lower())[:60].strip('-')}"
    (llama_directory / "README.md").write_text("Not part of the model.\n")
    (llama_directory / "modeling_own.py").write_text("raise RuntimeError('code was run')\n")
    (llama_directory / "pytorch_model.bin").write_bytes(b"pickle")
    hub.publish("model", repo, llama_directory)
    return f"hub:{repo}"


def commit_of(hub: Hub, model: str) -> str:
    """The commit that branch main is at."""
    head = hub.folder / "models" / model.removeprefix("hub:") / ".git/refs/heads/main"
    return head.read_text().strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An empty folder to work in."""
    folder = tmp_path / "project"
    folder.mkdir()
    return folder


def test_a_classifier_published_with_code_is_fetched_and_its_code_is_not(
    hub: Hub, project: Path, tmp_path: Path
) -> None:
    directory = write_gte(tmp_path / "topics")
    (directory / "modeling.py").write_text("raise RuntimeError('code was run')\n")
    hub.publish("model", "owner/topics", directory)
    script = ROOT / "scripts/fetch_classifier.py"
    options = ["--source", "hub:owner/topics@main", "--output", "topics/classifier.json"]
    done = subprocess.run(
        [sys.executable, script, *options],
        cwd=project,
        env=hub.environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr
    record = read_json(project / "topics/classifier.json")
    commit = commit_of(hub, "hub:owner/topics")
    assert record["source"] == f"hub:owner/topics@{commit}"
    assert record["labels"] == LABELS
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert record["files"].keys() == names
    assert {file.name for file in (project / "topics/files").iterdir()} == names


def test_a_model_is_fetched_checked_and_recorded(
    hub: Hub, model: str, llama_directory: Path, project: Path
) -> None:
    commit = commit_of(hub, model)
    done = fetch(hub, f"{model}@main", project)
    assert done.returncode == 0, done.stderr
    record = read_json(project / "model/model.json")
    assert record["source"] == f"{model}@{commit}"
    assert record["files"] == models.resolve("x", llama_directory)["files"]
    for name, file in record["files"].items():
        assert sha256(project / "model/files" / name) == file["sha256"]
    assert (project / "model/files").resolve().is_relative_to(hub.home)
    assert {path.name for path in (project / "model/files").iterdir()} == set(record["files"])
    revisions = read_json(project / "results/hub/revisions.json")
    assert revisions == {f"models/{model.removeprefix('hub:')}@main": commit}


def test_nothing_is_asked_twice(hub: Hub, model: str, project: Path, tmp_path: Path) -> None:
    folder = found(find(hub, f"{model}@main", project))
    hub.repair()
    assert found(find(hub, f"{model}@main", project)) == folder
    assert not hub.asked()
    assert found(find(hub, f"{model}@{commit_of(hub, model)}", tmp_path)) == folder
    assert not hub.asked("/resolve/")  # another project finds the files in the cache
    assert not hub.asked("/revision/")  # a commit needs no resolving


def test_a_branch_that_moves_does_not_move_the_study(
    hub: Hub, model: str, llama_directory: Path, project: Path
) -> None:
    first = found(find(hub, f"{model}@main", project))
    assert first.name == commit_of(hub, model)
    config = read_json(llama_directory / "config.json")
    (llama_directory / "config.json").write_text(json.dumps(config | {"rope_theta": 5000.0}))
    second = hub.publish("model", model.removeprefix("hub:"), llama_directory)
    hub.repair()
    assert found(find(hub, f"{model}@main", project)) == first
    assert not hub.asked()
    (project / "results/hub/revisions.json").unlink()
    assert found(find(hub, f"{model}@main", project)).name == second != first.name


@pytest.fixture
def large(hub: Hub, llama_directory: Path, request: pytest.FixtureRequest) -> str:
    """A model on the hub with a file of weights that takes three blocks."""
    rng = np.random.default_rng(0)
    weights = {"filler": rng.standard_normal(24 * 2**18, dtype=np.float32)}
    save_file(weights, llama_directory / "model.safetensors", metadata={"format": "pt"})
    repo = f"owner/{request.node.name.replace('_', '-')}"
    hub.publish("model", repo, llama_directory)
    return f"hub:{repo}"


def parts(hub: Hub) -> list[str | None]:
    """Parts of the weights that were asked for, but for pieces such as the header."""
    return [
        request.range
        for request in hub.proxy.requests
        if request.path.endswith("model.safetensors") and not request.is_for_a_piece
    ]


def test_a_file_that_is_cut_off_is_gone_on_with(
    hub: Hub, large: str, llama_directory: Path, project: Path
) -> None:
    hub.disturb(Fault(r"model\.safetensors$", cut_after=BLOCK + 1000))
    folder = found(find(hub, f"{large}@main", project))
    assert parts(hub) == [None, f"bytes={BLOCK}-"]
    expected = sha256(llama_directory / "model.safetensors")
    assert sha256(folder / "model.safetensors") == expected


def test_a_killed_download_is_gone_on_with(
    hub: Hub, large: str, llama_directory: Path, project: Path
) -> None:
    hub.disturb(Fault(r"model\.safetensors$", stall_after=BLOCK + 1000))
    process = subprocess.Popen(
        [sys.executable, "-c", FIND, f"{large}@main"],
        cwd=project,
        env=hub.environment | {"PYTHONPATH": str(ROOT / "scripts")},
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(lambda: BLOCK in partial_sizes(hub))
    finally:
        process.kill()
        process.wait()
    hub.repair()
    folder = found(find(hub, f"{large}@main", project))
    assert parts(hub) == [f"bytes={BLOCK}-"]
    expected = sha256(llama_directory / "model.safetensors")
    assert sha256(folder / "model.safetensors") == expected


def partial_sizes(hub: Hub) -> list[int]:
    """Bytes of files that are not whole yet."""
    return [path.stat().st_size for path in hub.home.rglob("*.incomplete")]


def wait_for(happened: Callable[[], bool]) -> None:
    """Wait until something has happened."""
    end = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_file_that_arrives_damaged_is_fetched_again(hub: Hub, model: str, project: Path) -> None:
    hub.disturb(Fault(r"resolve/.*tokenizer\.json$", times=1, corrupt=True))
    found(find(hub, f"{model}@main", project))
    assert len(hub.asked("/tokenizer.json")) == 2


def test_a_file_that_arrives_damaged_twice_is_told(hub: Hub, model: str, project: Path) -> None:
    hub.disturb(Fault(r"resolve/.*tokenizer\.json$", times=2, corrupt=True))
    told = message(find(hub, f"{model}@main", project))
    assert "tokenizer.json arrived damaged twice" in told
    found(find(hub, f"{model}@main", project))


GATED = {"X_Error_Code": "GatedRepo"}


@pytest.mark.parametrize(
    ("path", "status", "headers", "told"),
    [
        (
            "/revision/",
            401,
            {},
            "is not there: .* or it is private. Check the name, or set HF_TOKEN",
        ),
        ("/revision/", 403, {}, "once its licence is accepted: do so at http.*, make a token"),
        ("config.json", 401, GATED, "once its licence is accepted: do so at http.*, make a token"),
        ("/tree/", 404, {"X_Error_Code": "RepoNotFound"}, "is not there: .* has no model"),
        ("/revision/", 404, {"X_Error_Code": "RevisionNotFound"}, "has no such revision; write a"),
        ("/revision/", 429, {"Retry_After": "1"}, r"\(429\); wait 1 seconds, then run the same"),
        ("tokenizer.json", 429, {}, r"\(429\); wait some minutes, then run the same command"),
        ("/revision/", 503, {}, r"trouble at http.* \(503\); run the same command again"),
        ("tokenizer.json", 500, {}, r"trouble at http.* \(500\); run the same command again"),
    ],
)
def test_a_refusal_is_told_and_the_same_command_goes_on_after_it(
    hub: Hub,
    model: str,
    path: str,
    status: int,
    headers: dict[str, str],
    told: str,
    project: Path,
) -> None:
    hub.fail(re.escape(path), status, **headers)
    said = message(find(hub, f"{model}@main", project))
    assert re.search(f"error: {model}@.* {told}", said), said
    hub.repair()
    found(find(hub, f"{model}@main", project))


@pytest.mark.parametrize("status", [429, 502])
def test_passing_trouble_is_waited_out(hub: Hub, model: str, status: int, project: Path) -> None:
    hub.fail("/revision/", status, times=2)
    hub.fail(r"config\.json", status, times=2)
    found(find(hub, f"{model}@main", project))


TOKEN = "hf_ThisIsNoRealToken0123456789abcdefg"


def test_a_token_opens_a_gated_model_and_is_left_nowhere(
    hub: Hub, model: str, project: Path
) -> None:
    closed = {"X-Error-Code": "GatedRepo"}
    hub.disturb(Fault("/resolve/", 10**6, 403, closed, token=TOKEN))
    assert "set HF_TOKEN to it" in message(find(hub, f"{model}@main", project))
    wrong = fetch(hub, f"{model}@main", project, HF_TOKEN=TOKEN[:-1])
    assert "may not be read with the token in use: accept the licence at" in message(wrong)
    right = fetch(hub, f"{model}@main", project, HF_TOKEN=TOKEN)
    assert right.returncode == 0, right.stderr
    for said in (wrong.stdout, wrong.stderr, right.stdout, right.stderr):
        assert TOKEN[:-1] not in said
    for path in project.parent.rglob("*"):
        if path.is_file():
            assert TOKEN[:-1].encode() not in path.read_bytes(), path


def test_what_is_not_there_is_told(hub: Hub, model: str, project: Path) -> None:
    absent = message(find(hub, "hub:owner/absent@main", project))
    assert re.search(r"hub:owner/absent@main is not there: .* has no model owner/absent", absent)
    branch = message(find(hub, f"{model}@v9", project))
    assert f"{model}@v9 is not there" in branch  # how olah says so; RevisionNotFound is above
    commit = message(find(hub, f"{model}@{'0' * 40}", project))
    assert f"{model}@{'0' * 40} has no such revision, file or folder" in commit


def test_pickles_alone_are_told(hub: Hub, model: str, llama_directory: Path, project: Path) -> None:
    (llama_directory / "model.safetensors").unlink()
    hub.publish("model", model.removeprefix("hub:"), llama_directory)
    said = message(find(hub, f"{model}@main", project))
    assert "has only pickle weights (pytorch_model.bin)" in said
    assert not hub.asked("pytorch_model.bin")


def test_no_network_is_told_and_a_filled_cache_is_enough(
    hub: Hub, model: str, project: Path, tmp_path: Path
) -> None:
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    said = message(find(hub, f"{model}@main", project, **nowhere))
    assert "cannot be reached at http://127.0.0.1:9" in said
    commit = commit_of(hub, model)
    offline = nowhere | {"HF_HUB_OFFLINE": "1"}
    said = message(find(hub, f"{model}@{commit}", project, **offline))
    assert "HF_HUB_OFFLINE forbids to ask the hub" in said
    folder = found(find(hub, f"{model}@{commit}", tmp_path))
    assert found(find(hub, f"{model}@{commit}", project, **offline)) == folder
    assert not (project / "results").exists()  # what a cache has need not be all there is


def test_a_cache_that_huggingface_hub_filled_is_used(hub: Hub, model: str, project: Path) -> None:
    """What was downloaded with its own command is not downloaded again."""
    filling = "import sys, huggingface_hub; huggingface_hub.snapshot_download(sys.argv[1])"
    repo = model.removeprefix("hub:")
    subprocess.run([sys.executable, "-c", filling, repo], env=hub.environment, check=True)
    hub.repair()
    found(find(hub, f"{model}@main", project))
    assert not hub.asked("/resolve/")
    shutil.rmtree(project / "results")
    found(find(hub, f"{model}@main", project, HF_HUB_OFFLINE="1"))


def test_a_full_disk_is_told(hub: Hub, model: str, project: Path, tmp_path: Path) -> None:
    """Files are listed as larger than any disk."""
    found(find(hub, f"{model}@main", project))
    (listing,) = (project / "results/hub/models").rglob("*.json")
    content = read_json(listing)
    content["files"]["model.safetensors"]["bytes"] = 10**18
    listing.write_text(json.dumps(content))
    said = message(find(hub, f"{model}@main", project, HF_HOME=str(tmp_path / "new")))
    assert re.search(r"needs 1000000000\.\d\d GB in .*, where \d+\.\d\d GB are free", said), said
    assert os.fspath(tmp_path / "new") in said


def test_a_published_checkpoint_is_described_before_it_is_fetched(
    hub: Hub, llama_directory: Path, project: Path
) -> None:
    """AutoGPTQ's names: what it quantized with apart, and in the name of the file of weights."""
    (llama_directory / "model.safetensors").rename(llama_directory / "gptq_model-3bit.safetensors")
    settings = {"bits": 3, "group_size": 128, "desc_act": False}
    (llama_directory / "quantize_config.json").write_text(json.dumps(settings))
    hub.publish("model", "owner/published", llama_directory)
    source = "hub:owner/published@main"
    told = run_code(hub, DESCRIBE_CHECKPOINT, source, project)
    assert json.loads(told.stdout) == {"quantizer": "gptq", "bits": 3, "group_size": 128}
    pieces = [each.range for each in hub.proxy.requests if "gptq_model" in each.path]
    assert pieces == ["bytes=0-100000"]  # the header
    folder = found(run_code(hub, FIND_CHECKPOINT, source, project))
    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "quantize_config.json", "gptq_model-3bit.safetensors"}
