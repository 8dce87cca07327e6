"""Which rows of a large source are kept: least values, a seeded sample, listed ids."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from run_script import run_script

from lowbit.errors import InputError
from lowbit.files import read_json, sha256
from lowbit.inputs import document_readers
from lowbit.inputs.document_tables import Columns, DocumentTable, Selection, read_documents
from lowbit.inputs.documents import local_files, read_ids, write_ids

COUNTS = [5, 2000, 1024, 1023, None, 4000, 1500, 10]
"""Token counts of eight documents, one of them unknown."""


def write(path: Path, counts: list[Any] = COUNTS, group: int = 3) -> Path:
    """A file of documents as FineWeb's or C4's, by its ending; text and id say the row."""
    rows = [
        {"text": f"text {at}", "id": f"<urn:{at}>", "token_count": count, "url": {"host": at}}
        for at, count in enumerate(counts)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if path.name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    elif path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(lines, mtime=0))
    elif path.name.endswith(".zst"):
        path.write_bytes(pa.compress(lines, codec="zstd", asbytes=True))
    else:
        path.write_bytes(lines)
    return path


def read(path: Path, **selection: Any) -> DocumentTable:
    """Read with a selection."""
    return read_documents(local_files(path), Columns(), selection=Selection(**selection))


def chosen(path: Path, **selection: Any) -> list[int]:
    """Rows that are kept; their ids and texts must be those of the rows."""
    frame = read(path, **selection).frame
    numbers = [int(text.split()[1]) for text in frame["text"]]
    assert [int(doc_id.partition("#")[2]) for doc_id in frame["doc_id"]] == numbers
    return numbers


ENDINGS = ["parquet", "jsonl", "jsonl.gz", "jsonl.zst", "json.gz"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_kind_of_file_keeps_the_same_rows(tmp_path: Path, ending: str) -> None:
    file = write(tmp_path / f"a.{ending}")
    assert chosen(file) == list(range(8))
    assert chosen(file, minimum={"token_count": 1024}) == [1, 2, 5, 6]
    assert read(file, minimum={"token_count": 1024}).eligible == 4
    assert chosen(file, ids=[f"a.{ending}#6", f"a.{ending}#1"]) == [6, 1]
    parquet = write(tmp_path / "a.parquet")
    sample = {"minimum": {"token_count": 10}, "candidates": 3, "seed": 7}
    assert chosen(file, **sample) == chosen(parquet, **sample)


def test_least_values_of_several_columns_must_all_be_reached(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    pd.DataFrame(
        {"text": list("abcd"), "n": [1, 2, 3, 4], "score": [0.9, 0.1, 0.65, 0.8]}
    ).to_parquet(file)
    frame = read(file, minimum={"n": 2, "score": 0.65}).frame
    assert frame["text"].tolist() == ["c", "d"]


def test_candidates_are_drawn_from_all_files_together(
    tmp_path: Path,
) -> None:
    counts = list(np.random.default_rng(0).integers(0, 2000, 60))
    for name, part in (("a", counts[:25]), ("b", []), ("c", counts[25:])):
        write(tmp_path / f"{name}.jsonl", [int(count) for count in part])
    write(tmp_path / "d.parquet", [5000] * 40)

    def drawn(seed: int) -> list[str]:
        table = read(tmp_path, minimum={"token_count": 1000}, candidates=10, seed=seed)
        assert table.eligible == sum(count >= 1000 for count in counts) + 40
        return table.frame["doc_id"].tolist()

    first = drawn(1)
    assert len(set(first)) == 10
    assert first == drawn(1)
    assert first != drawn(2)
    every = {name for seed in range(100) for name in drawn(seed)}
    assert len(every) == sum(count >= 1000 for count in counts) + 40


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.sets(st.integers(0, 29)),
    group=st.integers(1, 12),
    ending=st.sampled_from(["parquet", "jsonl"]),
)
def test_any_rows_of_a_file_can_be_read_alone(
    rows: set[int], group: int, ending: str, tmp_path: Path
) -> None:
    file = write(tmp_path / f"x.{ending}", [1] * 30, group)
    wanted = np.array(sorted(rows), dtype=np.int64)
    found = list(document_readers.read_records(file, ["text"], "text", wanted))
    assert [(number, record["text"]) for number, record in found] == [
        (number, f"text {number}") for number in sorted(rows)
    ]


def test_only_what_is_wanted_of_a_parquet_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other columns and other row groups are never decoded."""
    file = write(tmp_path / "a.parquet", [0] * 90 + [2000] * 3, group=3)
    read_batches = pq.ParquetFile.iter_batches
    seen: list[tuple] = []

    def record(self: Any, batch_size: int = 0, row_groups: Any = None, columns: Any = None) -> Any:
        seen.append((row_groups, columns))
        return read_batches(self, batch_size or 65536, row_groups=row_groups, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", record)
    assert chosen(file, minimum={"token_count": 1024}) == [90, 91, 92]
    assert seen == [(None, ["token_count"]), ([30], ["text"])]


def test_ids_of_a_column_are_found_in_any_order_and_their_order_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    ids = ["<urn:7>", "<urn:0>", "<urn:4>"]
    files = local_files(tmp_path)
    frame = read_documents(files, Columns(id="id"), selection=Selection(ids=ids)).frame
    assert frame["doc_id"].tolist() == ids
    assert frame["text"].tolist() == ["text 7", "text 0", "text 4"]
    with pytest.raises(InputError, match=r"documents\.ids names 2 of 3 documents .* first is no"):
        read_documents(files, Columns(id="id"), selection=Selection(ids=["no", "<urn:0>", "x"]))


def test_a_file_of_ids_is_read_as_it_was_written(tmp_path: Path) -> None:
    ids = ["<urn:uuid:1>", "b c#2", "ä"]
    write_ids(tmp_path / "ids.txt", ids)
    assert read_ids(tmp_path / "ids.txt") == ids
    for content, told in (("", "is empty"), ("a\nb\na\n", "has a twice")):
        (tmp_path / "ids.txt").write_text(content)
        with pytest.raises(InputError, match=told):
            read_ids(tmp_path / "ids.txt")
    with pytest.raises(InputError, match="there is no file"):
        read_ids(tmp_path / "none.txt")


MISTAKES: dict[str, tuple[str, dict[str, Any], str]] = {
    "no such column": (
        "a.parquet",
        {"minimum": {"tokens": 1}},
        "documents.minimum: a.parquet has no tokens; it has text, id, token_count, url",
    ),
    "no such key": (
        "a.jsonl",
        {"minimum": {"tokens": 1}},
        "documents.minimum: a.jsonl has no tokens; it has text, id, token_count, url",
    ),
    "no number": (
        "a.parquet",
        {"minimum": {"text": 1}},
        "documents.minimum: text of a.parquet is string, not a number; name a column of numbers",
    ),
    "nothing reaches it": (
        "a.parquet",
        {"minimum": {"token_count": 5000}},
        "documents.minimum is token_count: 5000, which no document of",
    ),
}


@pytest.mark.parametrize(("name", "selection", "told"), MISTAKES.values(), ids=list(MISTAKES))
def test_a_selection_that_cannot_be_is_told(
    tmp_path: Path, name: str, selection: dict, told: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(write(tmp_path / name), **selection)
    assert told in str(caught.value)


def test_a_text_file_has_no_columns(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a<|endoftext|>b<|endoftext|>c")
    with pytest.raises(InputError, match=r"a\.txt has no token_count; it has no columns"):
        read(tmp_path / "a.txt", minimum={"token_count": 1})
    assert read(tmp_path / "a.txt", candidates=2).frame["text"].isin(["a", "b", "c"]).sum() == 2


@pytest.mark.parametrize("ending", ["jsonl.gz", "jsonl.zst"])
def test_a_compressed_file_that_is_cut_off_is_told(tmp_path: Path, ending: str) -> None:
    counts = [int(n) for n in np.random.default_rng(0).integers(0, 10**9, 5000)]
    file = write(tmp_path / f"a.{ending}", counts)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"cannot be read to its end .* copy it again"):
        read(file)


def test_files_packed_of_several_parts_are_read_whole(tmp_path: Path) -> None:
    """As `cat a.gz b.gz` makes them, and parallel compressors."""
    parts = [b'{"text": "one"}\n', b'{"text": "two"}\n']
    (tmp_path / "a.jsonl.gz").write_bytes(b"".join(map(gzip.compress, parts)))
    packed = [pa.compress(part, codec="zstd", asbytes=True) for part in parts]
    (tmp_path / "b.jsonl.zst").write_bytes(b"".join(packed))
    assert read(tmp_path).frame["text"].tolist() == ["one", "two"] * 2


def fetch(folder: Path, *options: object) -> str:
    """Run the script as a rule would."""
    given = ["--source", "path:a.parquet", "--demo", "demo.parquet", "--id-column", "id"]
    given += ["--output", "out/documents.parquet", "--record", "out/documents.json"]
    return run_script("fetch_documents.py", folder, *given, *options)


def test_the_script_selects_and_records(tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet")
    least = ["--minimum", '{"token_count": 1024}', "--candidates", 2, "--seed", 3]
    named = ["--named", '{"source": "named:web", "gone": {"hub:x": "gone"}}']
    assert fetch(tmp_path, *least, *named, "--sha256", sha256(file)) == ""
    frame = pd.read_parquet(tmp_path / "out/documents.parquet")
    assert read_json(tmp_path / "out/documents.json") == {
        "source": "path:a.parquet",
        "named": {"source": "named:web", "gone": {"hub:x": "gone"}},
        "files": {"a.parquet": sha256(file)},
        "eligible": 4,
        "dropped_empty": 0,
        "documents": 2,
        "has_token_ids": False,
    }
    write_ids(tmp_path / "ids.txt", frame["doc_id"].tolist()[::-1])
    assert fetch(tmp_path, "--ids", "ids.txt") == ""
    again = pd.read_parquet(tmp_path / "out/documents.parquet")
    assert again["doc_id"].tolist() == frame["doc_id"].tolist()[::-1]


def test_the_script_refuses_another_file_than_was_named(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet")
    told = fetch(tmp_path, "--sha256", "f" * 64)
    assert "error: documents.source: path:a.parquet is not the one file with SHA-256 ffff" in told
    assert not (tmp_path / "out").exists()
