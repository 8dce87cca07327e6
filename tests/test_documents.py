"""Document tables from JSON Lines, Parquet, text and folders of these."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from run_script import run_script

from lowbit.errors import InputError
from lowbit.files import read_json, sha256
from lowbit.inputs.document_tables import Columns, read_documents
from lowbit.inputs.documents import (
    find_documents,
    local_files,
)


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    """One JSON value per line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_frame(path: Path, **columns: Any) -> Path:
    """A Parquet file."""
    pd.DataFrame(columns).to_parquet(path)
    return path


def rows(path: Path, text: str = "text", doc_id: str | None = None) -> list[tuple]:
    """(doc_id, text, source) of every document."""
    frame = read_documents(local_files(path), Columns(text, doc_id)).frame
    return list(frame[["doc_id", "text", "source"]].itertuples(index=False, name=None))


def test_json_lines(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}, {"text": "two", "more": 1}])
    file.write_text(file.read_text() + "\n")
    assert rows(file) == [("a.jsonl#0", "one", "a.jsonl"), ("a.jsonl#1", "two", "a.jsonl")]


def test_parquet_with_its_own_ids_and_sources(tmp_path: Path) -> None:
    file = write_frame(
        tmp_path / "a.parquet", doc_id=["x", "y"], text=["1", "2"], source=["s", "t"]
    )
    assert rows(file) == [("x", "1", "s"), ("y", "2", "t")]


def test_named_columns(tmp_path: Path) -> None:
    file = write_frame(tmp_path / "a.parquet", body=["1", "2"], number=[7, 8], text=["no", "no"])
    assert rows(file, "body", "number") == [("7", "1", "a.parquet"), ("8", "2", "a.parquet")]


def test_a_text_file_is_one_document_or_split_at_the_separator(tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("first\n\nsecond\n")
    (tmp_path / "two.txt").write_text("first\n<|endoftext|>\nsecond\nline\n")
    assert rows(tmp_path / "one.txt") == [("one.txt#0", "first\n\nsecond", "one.txt")]
    assert [row[:2] for row in rows(tmp_path / "two.txt")] == [
        ("two.txt#0", "first"),
        ("two.txt#1", "second\nline"),
    ]


def test_a_folder_is_read_in_the_order_of_paths(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    write_jsonl(tmp_path / "c.jsonl", [{"text": "c"}])
    (tmp_path / "b" / "x.txt").write_text("x")
    write_frame(tmp_path / "a.parquet", text=["a"])
    (tmp_path / "notes.md").write_text("not read")
    assert [row[0] for row in rows(tmp_path)] == ["a.parquet#0", "b/x.txt#0", "c.jsonl#0"]


def test_empty_documents_are_dropped_and_counted_and_ids_stay(tmp_path: Path) -> None:
    values = [{"text": ""}, {"text": "a"}, {"text": " \n"}, {"text": None}, {"text": "b"}]
    table = read_documents(local_files(write_jsonl(tmp_path / "a.jsonl", values)))
    assert table.dropped_empty == 3
    assert table.frame["doc_id"].tolist() == ["a.jsonl#1", "a.jsonl#4"]


def test_empty_documents_are_kept_where_they_are_asked_for(tmp_path: Path) -> None:
    values = [{"text": ""}, {"text": "a"}, {"text": " \n"}, {"text": None}]
    table = read_documents(local_files(write_jsonl(tmp_path / "a.jsonl", values)), keep_empty=True)
    assert table.dropped_empty == 0
    assert table.frame["text"].tolist() == ["", "a", " \n", ""]


def test_ready_tokens_are_carried_along(tmp_path: Path) -> None:
    file = write_frame(tmp_path / "a.parquet", token_ids=[[1, 2], [3]], tokenizer_sha256=["f", "f"])
    frame = read_documents(local_files(file)).frame
    assert [list(ids) for ids in frame["token_ids"]] == [[1, 2], [3]]
    assert frame["tokenizer_sha256"].tolist() == ["f", "f"]


BAD: dict[str, tuple[Any, str]] = {
    "empty set": (lambda p: write_jsonl(p, []), "has no document with text (0 empty ones)"),
    "only empty": (lambda p: write_jsonl(p, [{"text": " "}]), "(1 empty ones)"),
    "no such column": (
        lambda p: write_jsonl(p, [{"body": "x", "n": 1}]),
        "a.jsonl#0 has no text; set documents.text_column to one of body, n",
    ),
    "not text": (
        lambda p: write_jsonl(p, [{"text": 3}]),
        "a.jsonl#0: text is int, not text; name the column with the text in documents.text_column",
    ),
    "not JSON": (lambda p: p.write_text('{"text": "a"}\n{"tex'), "a.jsonl:2 is not JSON"),
    "not an object": (lambda p: write_jsonl(p, ["a"]), "a.jsonl:1 is not a JSON object"),
    "not UTF-8": (lambda p: p.write_bytes(b'{"text": "\xff"}'), "a.jsonl is not UTF-8 text"),
    "an id twice": (
        lambda p: write_jsonl(p, [{"text": t, "doc_id": 1} for t in "ab"]),
        "1 document ids stand more than once in column doc_id (the first is 1)",
    ),
    "an id of two lines": (
        lambda p: write_jsonl(p, [{"text": "a", "doc_id": "b\nc"}]),
        "'b\\nc' in column doc_id is no id: it must be one line of text; set documents.id_column",
    ),
    "tokens of unknown origin": (
        lambda p: write_jsonl(p, [{"text": "a", "token_ids": [1]}]),
        "beside it tokenizer_sha256",
    ),
    "tokens for some": (
        lambda p: write_jsonl(
            p, [{"text": "a", "token_ids": [1], "tokenizer_sha256": "f"}, {"text": "b"}]
        ),
        "needs a value in every row",
    ),
}


@pytest.mark.parametrize(("write", "told"), BAD.values(), ids=list(BAD))
def test_documents_that_cannot_be_used_are_told(tmp_path: Path, write: Any, told: str) -> None:
    write(tmp_path / "a.jsonl")
    with pytest.raises(InputError) as caught:
        read_documents(local_files(tmp_path / "a.jsonl"))
    assert told in str(caught.value)


def test_a_missing_id_is_told(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": "a", "id": 1}, {"text": "b"}])
    with pytest.raises(InputError, match=r"a\.jsonl#1 has no id; change documents\.id_column"):
        read_documents(local_files(file), Columns("text", "id"))


def test_parquet_without_the_column_names_the_others(tmp_path: Path) -> None:
    file = write_frame(tmp_path / "a.parquet", body=["x"])
    with pytest.raises(InputError, match=r"set documents\.text_column to one of body"):
        read_documents(local_files(file))


def test_a_truncated_parquet_file_is_told(tmp_path: Path) -> None:
    file = write_frame(tmp_path / "a.parquet", text=["x" * 100])
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(InputError, match="is not a whole Parquet file"):
        read_documents(local_files(file))


def test_files_of_other_kinds_and_empty_folders_are_told(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nx\n")
    with pytest.raises(InputError, match=r"a\.csv is not a document file; give one of \.jsonl"):
        local_files(tmp_path / "a.csv")
    with pytest.raises(InputError, match="has no document files"):
        local_files(tmp_path)
    with pytest.raises(InputError, match=r"write demo or hub:.* or path:<file or folder> or"):
        find_documents("huggingface", tmp_path)


def fetch(folder: Path, source: str) -> None:
    """Run the script as a rule would."""
    options = ["--source", source, "--demo", "demo.parquet"]
    options += ["--output", "out/documents.parquet", "--record", "out/documents.json"]
    assert run_script("fetch_documents.py", folder, *options) == ""


def test_the_script_writes_the_same_bytes_every_time(tmp_path: Path) -> None:
    write_frame(tmp_path / "demo.parquet", doc_id=["b", "a"], text=["1", "2"], licence=["x", "x"])
    fetch(tmp_path, "demo")
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert read_json(tmp_path / "out" / "documents.json") == {
        "source": "demo",
        "files": {"demo.parquet": sha256(tmp_path / "demo.parquet")},
        "dropped_empty": 0,
        "documents": 2,
        "has_token_ids": False,
    }
    frame = pd.read_parquet(tmp_path / "out" / "documents.parquet")
    assert frame.to_dict("list") == {
        "doc_id": ["b", "a"],
        "text": ["1", "2"],
        "source": ["demo.parquet", "demo.parquet"],
    }
    fetch(tmp_path, "demo")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == first
