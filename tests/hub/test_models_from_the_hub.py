"""Models from a hub: what is asked, kept and recorded, and what goes wrong on the way."""

import json
import os
import re
import shutil
import signal
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

from lowbit.files import read_json, sha256
from lowbit.inputs import models

SECONDS = 120
BLOCK = 10 * 2**20
"""Bytes that huggingface_hub writes at a time."""


def fetch(hub: Hub, source: str, folder: Path, **variables: str) -> subprocess.CompletedProcess:
    """Run the script as its rule would, in a project folder of its own."""
    return subprocess.run(
        command(source, folder),
        cwd=folder,
        env=hub.environment | variables,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


def command(source: str, folder: Path) -> list[str | Path]:
    """The command of a rule that fetches a model."""
    folder.mkdir(exist_ok=True)
    script = ROOT / "scripts/fetch_model.py"
    options = ["--source", source, "--demo", "demo", "--output", folder / "model/model.json"]
    return [sys.executable, script, *options]


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


def test_a_model_is_fetched_checked_and_recorded(
    hub: Hub, model: str, llama_directory: Path, tmp_path: Path
) -> None:
    project, commit = tmp_path / "project", commit_of(hub, model)
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


def test_nothing_is_asked_twice(hub: Hub, model: str, tmp_path: Path) -> None:
    assert fetch(hub, f"{model}@main", tmp_path / "project").returncode == 0
    hub.repair()
    assert fetch(hub, f"{model}@main", tmp_path / "project").returncode == 0
    assert not hub.asked()
    commit = commit_of(hub, model)
    assert fetch(hub, f"{model}@{commit}", tmp_path / "other").returncode == 0
    assert not hub.asked("/resolve/")  # another project finds the files in the cache
    assert not hub.asked("/revision/")  # a commit needs no resolving


def test_a_branch_that_moves_does_not_move_the_study(
    hub: Hub, model: str, llama_directory: Path, tmp_path: Path
) -> None:
    project, first = tmp_path / "project", commit_of(hub, model)
    assert fetch(hub, f"{model}@main", project).returncode == 0
    before = read_json(project / "model/model.json")
    config = read_json(llama_directory / "config.json")
    (llama_directory / "config.json").write_text(json.dumps(config | {"rope_theta": 5000.0}))
    second = hub.publish("model", model.removeprefix("hub:"), llama_directory)
    assert second != first
    hub.repair()
    assert fetch(hub, f"{model}@main", project).returncode == 0
    assert read_json(project / "model/model.json") == before
    assert not hub.asked()
    (project / "results/hub/revisions.json").unlink()
    assert fetch(hub, f"{model}@main", project).returncode == 0
    assert read_json(project / "model/model.json") != before
    assert second in json.dumps(read_json(project / "results/hub/revisions.json"))


@pytest.fixture
def large(hub: Hub, llama_directory: Path, request: pytest.FixtureRequest) -> str:
    """The same with a file of weights that takes three blocks."""
    repo = f"owner/large-{re.sub(r'[^a-z0-9]+', '-', request.node.name.lower())[:60].strip('-')}"
    rng = np.random.default_rng(0)
    weights = {"filler": rng.standard_normal(24 * 2**18, dtype=np.float32)}
    weights |= {
        name: np.zeros(entry["shape"], np.float32)
        for name, entry in models.files_of(llama_directory).header("model.safetensors").items()
    }
    save_file(weights, llama_directory / "model.safetensors", metadata={"format": "pt"})
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
    hub: Hub, large: str, llama_directory: Path, tmp_path: Path
) -> None:
    hub.disturb(Fault(r"model\.safetensors$", cut_after=BLOCK + 1000))
    done = fetch(hub, f"{large}@main", tmp_path / "project")
    assert done.returncode == 0, done.stderr
    assert parts(hub) == [None, f"bytes={BLOCK}-"]
    weights = tmp_path / "project/model/files/model.safetensors"
    assert sha256(weights) == sha256(llama_directory / "model.safetensors")


def test_a_killed_download_is_gone_on_with(
    hub: Hub, large: str, llama_directory: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    hub.disturb(Fault(r"model\.safetensors$", stall_after=BLOCK + 1000))
    arguments = command(f"{large}@main", project)
    process = subprocess.Popen(arguments, cwd=project, env=hub.environment, stderr=subprocess.PIPE)
    try:
        wait_for(lambda: BLOCK in partial_sizes(hub))
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    hub.repair()
    done = fetch(hub, f"{large}@main", project)
    assert done.returncode == 0, done.stderr
    assert parts(hub) == [f"bytes={BLOCK}-"]
    weights = project / "model/files/model.safetensors"
    assert sha256(weights) == sha256(llama_directory / "model.safetensors")


def partial_sizes(hub: Hub) -> list[int]:
    """Bytes of files that are not whole yet."""
    return [path.stat().st_size for path in hub.home.rglob("*.incomplete")]


def wait_for(happened: Callable[[], bool]) -> None:
    """Wait until something has happened."""
    end = time.monotonic() + SECONDS
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_file_that_arrives_damaged_is_fetched_again(hub: Hub, model: str, tmp_path: Path) -> None:
    hub.disturb(Fault(r"resolve/.*tokenizer\.json$", times=1, corrupt=True))
    assert fetch(hub, f"{model}@main", tmp_path / "project").returncode == 0
    assert len(hub.asked("/tokenizer.json")) == 2


def test_a_file_that_arrives_damaged_twice_is_told(hub: Hub, model: str, tmp_path: Path) -> None:
    hub.disturb(Fault(r"resolve/.*tokenizer\.json$", times=2, corrupt=True))
    told = message(fetch(hub, f"{model}@main", tmp_path / "project"))
    assert "tokenizer.json arrived damaged twice" in told
    assert not (tmp_path / "project/model").exists()
    assert fetch(hub, f"{model}@main", tmp_path / "project").returncode == 0


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
    tmp_path: Path,
) -> None:
    hub.fail(re.escape(path), status, **headers)
    said = message(fetch(hub, f"{model}@main", tmp_path / "project"))
    assert re.search(f"error: {model}@.* {told}", said), said
    assert not (tmp_path / "project/model").exists()
    hub.repair()
    done = fetch(hub, f"{model}@main", tmp_path / "project")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("status", [429, 502])
def test_passing_trouble_is_waited_out(hub: Hub, model: str, status: int, tmp_path: Path) -> None:
    hub.fail("/revision/", status, times=2)
    hub.fail(r"config\.json", status, times=2)
    done = fetch(hub, f"{model}@main", tmp_path / "project")
    assert done.returncode == 0, done.stderr


TOKEN = "hf_ThisIsNoRealToken0123456789abcdefg"


def test_a_token_opens_a_gated_model_and_is_left_nowhere(
    hub: Hub, model: str, tmp_path: Path
) -> None:
    closed = {"X-Error-Code": "GatedRepo"}
    hub.disturb(Fault("/resolve/", 10**6, 403, closed, token=TOKEN))
    project = tmp_path / "project"
    assert "set HF_TOKEN to it" in message(fetch(hub, f"{model}@main", project))
    wrong = fetch(hub, f"{model}@main", project, HF_TOKEN=TOKEN[:-1])
    assert "may not be read with the token in use: accept the licence at" in message(wrong)
    right = fetch(hub, f"{model}@main", project, HF_TOKEN=TOKEN)
    assert right.returncode == 0, right.stderr
    for said in (wrong.stdout, wrong.stderr, right.stdout, right.stderr):
        assert TOKEN[:-1] not in said
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert TOKEN[:-1].encode() not in path.read_bytes(), path


def test_what_is_not_there_is_told(hub: Hub, model: str, tmp_path: Path) -> None:
    absent = message(fetch(hub, "hub:owner/absent@main", tmp_path / "project"))
    assert re.search(r"hub:owner/absent@main is not there: .* has no model owner/absent", absent)
    said = message(fetch(hub, f"{model}@v9", tmp_path / "project"))
    assert f"{model}@v9 " in said
    unknown = message(fetch(hub, f"{model}@{'0' * 40}", tmp_path / "project"))
    assert "0" * 40 in unknown


def test_pickles_alone_are_told(
    hub: Hub, model: str, llama_directory: Path, tmp_path: Path
) -> None:
    (llama_directory / "model.safetensors").unlink()
    hub.publish("model", model.removeprefix("hub:"), llama_directory)
    said = message(fetch(hub, f"{model}@main", tmp_path / "project"))
    assert "has only pickle weights (pytorch_model.bin)" in said
    assert not hub.asked("pytorch_model.bin")


def test_no_network_is_told_and_a_filled_cache_is_enough(
    hub: Hub, model: str, tmp_path: Path
) -> None:
    nowhere = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    said = message(fetch(hub, f"{model}@main", tmp_path / "project", **nowhere))
    assert "cannot be reached at http://127.0.0.1:9" in said
    commit = commit_of(hub, model)
    offline = nowhere | {"HF_HUB_OFFLINE": "1"}
    said = message(fetch(hub, f"{model}@{commit}", tmp_path / "project", **offline))
    assert "HF_HUB_OFFLINE forbids to ask the hub" in said
    assert fetch(hub, f"{model}@{commit}", tmp_path / "filling").returncode == 0
    done = fetch(hub, f"{model}@{commit}", tmp_path / "project", **offline)
    assert done.returncode == 0, done.stderr
    records = [tmp_path / name / "model/model.json" for name in ("filling", "project")]
    assert records[0].read_bytes() == records[1].read_bytes()


def test_a_cache_that_huggingface_hub_filled_is_used(hub: Hub, model: str, tmp_path: Path) -> None:
    """What was downloaded with its own command is not downloaded again."""
    filling = "import sys, huggingface_hub; huggingface_hub.snapshot_download(sys.argv[1])"
    repo = model.removeprefix("hub:")
    subprocess.run([sys.executable, "-c", filling, repo], env=hub.environment, check=True)
    hub.repair()
    assert fetch(hub, f"{model}@main", tmp_path / "project").returncode == 0
    assert not hub.asked("/resolve/")
    shutil.rmtree(tmp_path / "project/results")
    done = fetch(hub, f"{model}@main", tmp_path / "project", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stderr


def test_a_full_disk_is_told(hub: Hub, model: str, tmp_path: Path) -> None:
    """Files are listed as larger than any disk."""
    assert fetch(hub, f"{model}@main", tmp_path / "project").returncode == 0
    (listing,) = (tmp_path / "project/results/hub/models").rglob("*.json")
    content = read_json(listing)
    content["files"]["model.safetensors"]["bytes"] = 10**18
    listing.write_text(json.dumps(content))
    said = message(fetch(hub, f"{model}@main", tmp_path / "project", HF_HOME=str(tmp_path / "new")))
    assert re.search(r"needs 1000000000\.\d\d GB in .*, where \d+\.\d\d GB are free", said), said
    assert os.fspath(tmp_path / "new") in said
