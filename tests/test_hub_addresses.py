"""The hub without a hub: addresses, what is remembered, the cache, what refusals are told."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import huggingface_hub
import pytest
from huggingface_hub import constants
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import hf_raise_for_status

from lowbit.errors import InputError
from lowbit.inputs import hub, models
from lowbit.inputs.header import read_header
from lowbit.inputs.hub import DATASET, MODEL, Address, File, Listing, downloads, problems
from lowbit.inputs.hub.listings import _listed_folder
from lowbit.quantization.published.description import describe_checkpoint

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
ADDRESS = Address(MODEL, "owner/name", COMMIT)


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A cache of its own, no token, and no waiting."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(problems, "WAITS", (0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("argument", "kind", "address"),
    [
        ("Qwen/Qwen2.5-0.5B@main", MODEL, Address(MODEL, "Qwen/Qwen2.5-0.5B", "main")),
        ("gpt2@refs/pr/1", MODEL, Address(MODEL, "gpt2", "refs/pr/1")),
        (f"a/b@{COMMIT}", MODEL, Address(MODEL, "a/b", COMMIT)),
        ("a/b@v1.0/d/x-*.parquet", DATASET, Address(DATASET, "a/b", "v1.0", "d/x-*.parquet")),
        ("a/b@main", DATASET, Address(DATASET, "a/b", "main")),
        (
            "a/b@refs/convert/parquet/d/0.parquet",
            DATASET,
            Address(DATASET, "a/b", "refs/convert/parquet", "d/0.parquet"),
        ),
    ],
)
def test_an_address_is_read_and_written(argument: str, kind: str, address: Address) -> None:
    assert hub.parse(argument, kind) == address
    assert str(address) == f"hub:{argument}"


@pytest.mark.parametrize("argument", ["", "a/b@", "@main", "a/b/c@main", "a b@main", "a@../../x"])
@pytest.mark.parametrize("kind", [MODEL, DATASET])
def test_what_is_no_address_is_told_how_to_write_one(argument: str, kind: str) -> None:
    with pytest.raises(InputError, match=r"is no address on the hub; write hub:<owner>/<"):
        hub.parse(argument, kind)


def test_an_address_without_revision_is_told_to_write_one() -> None:
    with pytest.raises(InputError, match="hub:a/b has no revision; write hub:a/b@main, or better"):
        hub.parse("a/b", MODEL)


def as_listed(folder: Path) -> list[RepoFile]:
    """A folder as the hub lists it: safetensors in large file storage, the rest in git."""
    entries = []
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        entry = {"path": path.name, "size": len(content), "oid": git_hash(path)}
        if path.suffix == ".safetensors":
            digest = hashlib.sha256(content).hexdigest()
            entry |= {"lfs": {"size": len(content), "oid": digest, "pointerSize": 134}}
        entries.append(RepoFile(**entry))
    return entries


def git_hash(path: Path) -> str:
    """The blob id that git itself gives."""
    command = ["git", "hash-object", "--no-filters", path]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


class FakeHub:
    """Answers as huggingface_hub's `HfApi` does, for one repository; counts what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.commit, self.asked = folder, COMMIT, []

    def repo_info(self, repo: str, **options: Any) -> SimpleNamespace:
        self.asked.append(f"commit of {options['revision']}")
        return SimpleNamespace(sha=self.commit)

    def list_repo_tree(self, repo: str, path: str | None, **options: Any) -> list[RepoFile]:
        self.asked.append(f"files of {options['revision']}")
        return as_listed(self.folder)

    def parse_safetensors_file_metadata(self, repo: str, name: str, **options: Any) -> Any:
        self.asked.append(f"header of {name}")
        header = read_header(self.folder / name)
        entries = {key: SimpleNamespace(**entry) for key, entry in header.items()}
        return SimpleNamespace(tensors=entries)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, llama_directory: Path) -> FakeHub:
    """A hub with one model; files are copied instead of downloaded. Works in an empty folder."""
    answering = FakeHub(llama_directory)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: answering)

    def copy(url: str, stream: Any, displayed_filename: str, **options: Any) -> None:
        answering.asked.append(f"content of {displayed_filename}")
        stream.write((llama_directory / displayed_filename).read_bytes())

    monkeypatch.setattr("huggingface_hub.file_download.http_get", copy)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return answering


def test_a_branch_stays_where_it_was_until_its_entry_is_deleted(fake: FakeHub) -> None:
    branch = hub.parse("owner/name@main", MODEL)
    first = hub.listing(branch)
    fake.commit = OTHER
    fake.asked.clear()
    assert hub.listing(branch) == first
    assert first.commit == COMMIT
    assert not fake.asked
    revisions = hub.FOLDER / "revisions.json"
    assert json.loads(revisions.read_text()) == {"models/owner/name@main": COMMIT}
    revisions.write_text("{}")
    assert hub.listing(branch).commit == OTHER
    assert fake.asked[0] == "commit of main"


def test_a_commit_is_not_resolved_and_gives_what_its_branch_gives(fake: FakeHub) -> None:
    by_commit = hub.listing(ADDRESS)
    assert not [asked for asked in fake.asked if asked.startswith("commit")]
    assert hub.listing(hub.parse("owner/name@main", MODEL)) == by_commit
    assert models.pinned("hub:owner/name@main") == f"hub:owner/name@{COMMIT}"


def test_a_listing_tells_what_the_files_themselves_would(
    fake: FakeHub, llama_directory: Path
) -> None:
    """The config check sees what it would see on disk, and fetches no weights."""
    listed = hub.listing(ADDRESS)
    assert models.model_files(listed) == models.model_files(llama_directory)
    assert models.block_linears(listed) == models.block_linears(llama_directory)
    assert models.read_config(listed) == models.read_config(llama_directory) == listed.config
    assert models.read_architecture(listed) == models.read_architecture(llama_directory)
    assert not [
        asked for asked in fake.asked if "content" in asked and "safetensors" in asked[-12:]
    ]
    sizes = {name: file.bytes for name, file in listed.files.items()}
    assert sizes == {path.name: path.stat().st_size for path in llama_directory.iterdir()}


def test_a_model_is_downloaded_once_and_checked_each_time(
    fake: FakeHub, llama_directory: Path
) -> None:
    folder = models.locate_model("hub:owner/name@main", Path("demo"))
    names = models.model_files(llama_directory)
    for name in names:
        assert (folder / name).read_bytes() == (llama_directory / name).read_bytes()
    fake.asked.clear()
    assert models.locate_model("hub:owner/name@main", Path("demo")) == folder
    assert not fake.asked
    damaged = next(name for name in names if name.endswith(".safetensors"))
    content = bytearray((folder / damaged).read_bytes())
    content[-1] ^= 1
    (folder / damaged).write_bytes(content)
    models.locate_model("hub:owner/name@main", Path("demo"))
    assert fake.asked == [f"content of {damaged}"]
    assert (folder / damaged).read_bytes() == (llama_directory / damaged).read_bytes()


def test_without_network_the_cache_is_enough(
    fake: FakeHub, llama_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = models.locate_model(str(ADDRESS), Path("demo"))
    refs = folder.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text(COMMIT)
    shutil.rmtree(hub.FOLDER)
    fake.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert models.locate_model("hub:owner/name@main", Path("demo")) == folder
    listed = hub.listing(hub.parse("owner/name@main", MODEL))
    assert models.block_linears(listed) == models.block_linears(llama_directory)
    assert not fake.asked
    for wanted in (f"hub:owner/name@{OTHER}", "hub:owner/name@v2", "hub:owner/absent@main"):
        with pytest.raises(InputError, match=r"is not in the cache .* unset HF_HUB_OFFLINE"):
            models.outline_model(wanted, Path("demo"))


def test_pickles_alone_are_told(fake: FakeHub, llama_directory: Path, tmp_path: Path) -> None:
    fake.folder = tmp_path / "pickled"
    fake.folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(llama_directory / name, fake.folder)
    (fake.folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match=r"has only pickle weights \(pytorch_model.bin\)"):
        models.model_files(hub.listing(ADDRESS))


def test_a_checkpoint_is_described_from_its_listing() -> None:
    config = {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}
    listed = Listing(str(ADDRESS), COMMIT, {"config.json": File(1, None, OTHER)})
    listed = Listing(listed.address, COMMIT, listed.files, {"config.json": config})
    described = {"quantizer": "gptq", "bits": 4, "group_size": 128}
    assert describe_checkpoint(listed) == described


def test_no_space_is_told_before_anything_is_downloaded(
    fake: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = hub.listing(ADDRESS)
    fake.asked.clear()
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(InputError, match=r"needs 0\.\d+ GB in .*, where 0.00 GB are free.*HF_HOME"):
        hub.download(ADDRESS, models.model_files(listed), listed)
    assert not fake.asked


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"),
        (b"hello\n", "ce013625030ba8dba906f756967f9e9ca394464a"),
    ],
)
def test_the_blob_id_is_gits(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    assert downloads.git_blob_id(tmp_path / "file") == expected


@pytest.mark.parametrize(
    ("path", "folder", "deep"),
    [
        ("", "", True),
        ("a.parquet", "", False),
        ("d/e/a.parquet", "d/e", False),
        ("d/e/*.parquet", "d/e", False),
        ("d/*/a.parquet", "d", True),
        ("d/CC-[12]*/e/a.parquet", "d", True),
    ],
)
def test_only_the_folder_that_is_meant_is_listed(path: str, folder: str, deep: bool) -> None:
    assert _listed_folder(Address(DATASET, "a/b", "main", path)) == (folder, deep)


def test_a_pattern_that_matches_nothing_is_told_what_is_there() -> None:
    listed = Listing("hub:a/b@x", COMMIT, {"d/a.parquet": File(1, OTHER, None)})
    assert hub.matching(Address(DATASET, "a/b", COMMIT, "d/*.parquet"), listed) == ["d/a.parquet"]
    with pytest.raises(InputError, match=r"matches no file; files there are d/a\.parquet"):
        hub.matching(Address(DATASET, "a/b", COMMIT, "d/*.csv"), listed)


def refused(status: int, **headers: str) -> None:
    """Raise as huggingface_hub does for this answer, which repeats the token."""
    url = f"{constants.ENDPOINT}/api/models/owner/name/revision/main"
    sent = httpx2.Request("GET", url, headers={"authorization": "Bearer hf_secret"})
    headers = {name.replace("_", "-"): text for name, text in headers.items()}
    hf_raise_for_status(httpx2.Response(status, headers=headers, text="hf_secret", request=sent))


@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [
        (401, {"X_Error_Code": "GatedRepo"}, "once its licence is accepted: do so at"),
        (403, {"X_Error_Code": "GatedRepo"}, "once its licence is accepted: do so at"),
        (403, {}, "once its licence is accepted: do so at"),
        (401, {}, "is not there: .* has no model owner/name, or it is private.*HF_TOKEN"),
        (404, {"X_Error_Code": "RepoNotFound"}, "is not there: .* has no model owner/name"),
        (404, {"X_Error_Code": "RevisionNotFound"}, "no such revision; write a branch, tag or"),
        (404, {"X_Error_Code": "EntryNotFound"}, "has no such revision, file or folder; see"),
        (401, {"X_Error_Message": "Invalid"}, "is not there: .* or it is private.*HF_TOKEN"),
        (403, {"X_Error_Message": "Access to this resource is disabled."}, "has been disabled"),
        (429, {}, r"rate limit or quota is used up \(429\); wait some minutes, then run the same"),
        (429, {"Retry_After": "7"}, "wait 7 seconds, then run the same command"),
        (429, {"RateLimit": '"api";r=0;t=55'}, "wait 55 seconds, .* With HF_TOKEN set"),
        (503, {}, r"trouble at .* \(503\); run the same command again"),
        (418, {}, r"was refused by .* \(418\)"),
    ],
)
def test_each_refusal_is_told_in_one_line_without_the_token(
    status: int, headers: dict[str, str], told: str
) -> None:
    address = Address(MODEL, "owner/name", "main")
    expected = pytest.raises(InputError, match=f"^hub:owner/name@main .*{told}")
    with expected as caught, problems.explained(address):
        refused(status, **headers)
    assert "\n" not in str(caught.value)
    assert "hf_secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [
        (403, {"X_Error_Code": "GatedRepo"}, "with the token in use: accept the licence at"),
        (
            401,
            {"X_Error_Message": "Invalid credentials in Authorization header"},
            "does not know the token that it was sent; set HF_TOKEN",
        ),
    ],
)
def test_a_token_that_does_not_help_is_told(
    status: int, headers: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(InputError, match=told) as caught, problems.explained(ADDRESS):
        refused(status, **headers)
    assert "hf_secret" not in str(caught.value)


@pytest.mark.parametrize("error", [httpx2.ConnectError("no"), httpx2.ReadTimeout("late")])
def test_no_network_is_told(error: Exception) -> None:
    told = "cannot be reached at .* check the network and its proxy, then run the same command"
    with pytest.raises(InputError, match=told), problems.explained(ADDRESS):
        raise error


def test_a_page_in_place_of_an_answer_is_told() -> None:
    """What a network that wants a login first gives for every address."""
    expected = pytest.raises(InputError, match="did not answer as a hub does")
    with expected, problems.explained(ADDRESS):
        httpx2.Response(200, text="<html>").json()


@pytest.mark.parametrize(("status", "tries"), [(503, 4), (429, 4), (404, 1), (401, 1)])
def test_only_passing_trouble_is_tried_again(status: int, tries: int) -> None:
    asked = []

    def ask() -> None:
        asked.append(1)
        refused(status)

    with pytest.raises(huggingface_hub.errors.HfHubHTTPError):
        problems.retried(ask)
    assert len(asked) == tries


def test_a_study_without_the_hub_does_not_load_its_library() -> None:
    """It would cost every start some tenths of a second."""
    code = "import sys, study.paths; sys.exit('huggingface_hub' in sys.modules)"
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": f"{root}/scripts"})
