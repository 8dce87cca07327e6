"""Documents from a hub: a data set in FineWeb's shape, its mirror, and what is recorded."""

import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from copies import copy_sources
from local_hub import ROOT, Hub
from tiny_checkpoints import write_checkpoint

from lowbit.files import read_json, sha256

SECONDS = 120
SHARD = "sample/10BT/000_00000.parquet"
ROWS = 3000
METHODS = {
    "rtn3": {"quantizer": "rtn", "bits": 3, "group_size": 32},
    "nf3": {"quantizer": "nf", "bits": 3, "group_size": 32},
}


def write_shard(file: Path, rows: int = ROWS) -> None:
    """A shard with FineWeb's columns; a fifth of the documents is long."""
    counts = [1024 + at if at % 5 == 0 else 100 for at in range(rows)]
    columns: dict[str, Any] = {
        "text": [f"the cat {at} sat on the mat and on a table " * 3 for at in range(rows)],
        "id": [f"<urn:uuid:{at:08d}>" for at in range(rows)],
        "dump": "CC-MAIN-2013-20",
        "url": [f"http://example.org/{at}" for at in range(rows)],
        "language": "en",
        "language_score": 0.9,
        "token_count": counts,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pandas(pd.DataFrame(columns)), file, row_group_size=1000)


@pytest.fixture
def web(hub: Hub, tmp_path: Path) -> str:
    """The data set on the hub, with a second shard; returns its commit."""
    write_shard(tmp_path / "web" / SHARD)
    write_shard(tmp_path / "web" / SHARD.replace("000_", "001_"), 10)
    (tmp_path / "web/README.md").write_text("not read")
    return hub.publish("dataset", "owner/web", tmp_path / "web")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the default study, two tiny models and calibration texts."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("config.yaml", "resources", "claims", "rules", "scripts", "envs", "Snakefile"):
        (folder / name).symlink_to(ROOT / name)
    for family in ("llama", "qwen2"):
        write_checkpoint(folder / "models" / family, family)
    lines = [json.dumps({"text": f"a model of language {at} " * 20}) + "\n" for at in range(40)]
    (folder / "calibration.jsonl.gz").write_bytes(gzip.compress("".join(lines).encode()))
    return folder


def study(source: str, **documents: Any) -> dict[str, Any]:
    """A study of two models on documents from there."""
    paths = {name: {"source": f"path:models/{name}"} for name in ("llama", "qwen2")}
    return {
        "study": "web",
        "models": paths,
        "documents": {"name": "web", "source": source, "n": 20, "length": 30} | documents,
        "calibration": {"c": {"source": "path:calibration.jsonl.gz", "n": 4, "length": 16}},
        "methods": METHODS,
    }


def run(hub: Hub, folder: Path, *command: str) -> subprocess.CompletedProcess:
    """Run Python in the folder with this hub."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=hub.environment | {"PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


START = """
import json, sys
from pathlib import Path
from lowbit.errors import run
from lowbit.inputs.documents import pinned
from study.config.archive import locate
from study.config.study import load_study
from study.paths import paths_of
def start():
    study = load_study(Path("config.yaml"), overrides=json.loads(sys.argv[1]))
    paths, documents = paths_of(study), study.documents
    source = locate(documents.source, Path("demo")).source
    print(json.dumps({
        "documents": paths.documents, "tokens": paths.tokens, "together": paths.chosen_for_all,
        "columns": [documents.text_column, documents.id_column],
        "source": pinned(source, Path("demo")),
    }))
run(start)
"""


def start(hub: Hub, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What a run finds out at its start."""
    done = run(hub, folder, "-c", START, json.dumps(settings))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(hub: Hub, folder: Path, settings: dict[str, Any]) -> str:
    """What a run that cannot start says."""
    done = run(hub, folder, "-c", START, json.dumps(settings))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    return done.stderr


def fetch(hub: Hub, folder: Path, source: str, *options: object) -> pd.DataFrame:
    """Run fetch_documents.py as its rule would."""
    given = ["--source", source, "--demo", "demo", "--id-column", "id", *map(str, options)]
    given += ["--output", "out/documents.parquet", "--record", "out/documents.json"]
    done = run(hub, folder, str(ROOT / "scripts/fetch_documents.py"), *given)
    assert done.returncode == 0, done.stderr
    return pd.read_parquet(folder / "out/documents.parquet")


def test_long_documents_are_drawn_and_can_be_had_again_by_their_ids(
    hub: Hub, web: str, project: Path, tmp_path: Path
) -> None:
    found = start(hub, project, study(f"hub:owner/web@main/{SHARD}", id_column="id"))
    assert found["source"] == f"hub:owner/web@{web}/{SHARD}"
    assert not hub.asked("resolve")  # nothing is downloaded to find out what there is
    least = ["--minimum", '{"token_count": 1024}', "--candidates", 50, "--seed", 3]
    frame = fetch(hub, project, found["source"], *least)
    assert len(frame) == 50
    numbers = [int(doc_id[10:18]) for doc_id in frame["doc_id"]]
    assert all(number % 5 == 0 for number in numbers)
    assert frame["text"].str.startswith("the cat").all()
    record = read_json(project / "out/documents.json")
    assert record["source"] == f"hub:owner/web@{web}/{SHARD}"
    assert record["eligible"] == ROWS // 5
    assert record["files"] == {SHARD: sha256(tmp_path / "web" / SHARD)}

    (project / "ids.txt").write_text("".join(f"{name}\n" for name in frame["doc_id"][::-1]))
    again = fetch(hub, project, found["source"], "--ids", "ids.txt")
    assert again["doc_id"].tolist() == frame["doc_id"].tolist()[::-1]
    assert again["text"].tolist() == frame["text"].tolist()[::-1]
    assert len(hub.asked("resolve")) <= 2  # the shard once, whatever the client asks of it first


def test_a_moved_branch_changes_neither_source_nor_keys(
    hub: Hub, web: str, project: Path, tmp_path: Path
) -> None:
    settings = study(f"hub:owner/web@main/{SHARD}", id_column="id")
    before = start(hub, project, settings)
    assert before["together"]
    pq.write_table(pa.table({"text": ["x"], "id": ["y"]}), tmp_path / "web" / SHARD)
    moved = hub.publish("dataset", "owner/web", tmp_path / "web")
    assert start(hub, project, settings) == before
    (project / "results/hub/revisions.json").unlink()
    after = start(hub, project, settings)
    assert after["source"] == f"hub:owner/web@{moved}/{SHARD}"
    assert after["documents"] != before["documents"]


def test_the_key_is_of_the_content_and_not_of_the_commit(
    hub: Hub, web: str, project: Path, tmp_path: Path
) -> None:
    (tmp_path / "web/README.md").write_text("changed")
    later = hub.publish("dataset", "owner/web", tmp_path / "web")
    first, second = (
        start(hub, project, study(f"hub:owner/web@{commit}/{SHARD}")) for commit in (web, later)
    )
    assert first["documents"] == second["documents"]
    both = start(hub, project, study(f"hub:owner/web@{web}/sample/10BT/*.parquet"))
    assert both["documents"] != first["documents"]


def test_files_that_are_not_there_or_cannot_be_read_are_told(
    hub: Hub, web: str, project: Path
) -> None:
    told = refused(hub, project, study("hub:owner/web@main/sample/10BT/*.json"))
    assert "documents.source cannot be used: hub:owner/web@main/sample/10BT/*.json matches" in told
    told = refused(hub, project, study("hub:owner/web@main/README.md"))
    assert "hub:owner/web@main/README.md has no document files" in told
    told = refused(hub, project, study("hub:owner/none@main/x.parquet"))
    assert "documents.source cannot be used: hub:owner/none@main/x.parquet is not there" in told


def named(project: Path, **entry: Any) -> None:
    """Write the archive: `web`, gone from its primary place, and on the hub elsewhere."""
    copies = {
        "primary": {"source": f"hub:gone/web@main/{SHARD}"},
        "mirrors": [{"source": f"hub:owner/web@main/{SHARD}"}],
    }
    content = {"about": "Web", "licence": "none", "id_column": "id"} | copies | entry
    (project / "config").mkdir(exist_ok=True)
    (project / "config/sources.yaml").write_text(json.dumps({"web": content}))


def test_a_mirror_takes_the_place_of_what_is_gone_and_is_recorded(
    hub: Hub, web: str, project: Path
) -> None:
    named(project)
    found = start(hub, project, study("named:web"))
    assert found["source"] == f"hub:owner/web@{web}/{SHARD}"
    assert found["columns"] == ["text", "id"]
    held = read_json(project / "results/hub/sources.json")["web"]
    assert held["source"] == f"hub:owner/web@main/{SHARD}"
    assert "is not there" in held["passed_over"][f"hub:gone/web@main/{SHARD}"]


@pytest.mark.parametrize("status", [401, 403, 429])
def test_no_mirror_takes_the_place_of_what_is_refused(
    hub: Hub, web: str, project: Path, status: int
) -> None:
    """Gated (401), forbidden or too often asked for; the mirror would answer."""
    named(project, primary={"source": f"hub:owner/refused@main/{SHARD}"})
    hub.fail("owner/refused", status, **({"X_Error_Code": "GatedRepo"} if status == 401 else {}))
    told = refused(hub, project, study("named:web"))
    assert "documents.source cannot be used: hub:owner/refused@" in told
    assert not (project / "results/hub/sources.json").exists()


def test_where_no_copy_answers_each_is_told(hub: Hub, web: str, project: Path) -> None:
    named(project)
    hub.fail("web", 503)
    told = refused(hub, project, study("named:web"))
    assert "named:web: no copy that config/sources.yaml names is there: hub:gone/web" in told
    assert f"hub:owner/web@main/{SHARD} failed because of trouble" in told


def test_a_study_tokenizes_the_same_documents_for_all_its_models_and_again_from_their_ids(
    hub: Hub, web: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through `make`: a sample of the long documents of a branch, then the same by ids alone."""
    for name, value in hub.environment.items():
        monkeypatch.setenv(name, value)
    copy = copy_sources(tmp_path / "copy")
    for family in ("llama", "qwen2"):
        write_checkpoint(copy.folder / "models" / family, family)
    (copy.folder / "texts.txt").write_text("a model of language is a table of counts " * 9)
    until = "--until tokenize_documents"
    settings = study(f"hub:owner/web@main/{SHARD}", id_column="id")
    settings["calibration"] = {"c": {"source": "path:texts.txt", "n": 1, "length": 16}}
    settings["documents"] |= {"minimum": {"token_count": 1024}, "candidates": 60}
    (copy.folder / "study.yaml").write_text(json.dumps(settings))
    ran = copy.study("study.yaml", until).rules
    assert (ran["choose_documents"], ran["tokenize_documents"]) == (1, 2)

    first, second = copy.folder.glob("results/models/*/tokens/web-*/document_ids.txt")
    assert first.read_text() == second.read_text()
    ids = first.read_text().split()
    assert len(ids) == 20
    assert all(int(doc_id[10:18]) % 5 == 0 for doc_id in ids)

    shutil.copy(first, copy.folder / "ids.txt")
    for key in ("minimum", "candidates"):
        del settings["documents"][key]
    settings["documents"] |= {"name": "again", "ids": "path:ids.txt"}
    (copy.folder / "again.yaml").write_text(json.dumps(settings))
    ran = copy.study("again.yaml", until).rules
    assert (ran["fetch_documents"], ran["choose_documents"]) == (1, 0)
    for tokens in copy.folder.glob("results/models/*/tokens/web-*/tokens.parquet"):
        (again,) = tokens.parents[1].glob("again-*/tokens.parquet")
        assert again.read_bytes() == tokens.read_bytes()
