"""Document tables: reading local JSONL, Parquet and text into `doc_id, text, source`."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowbit.errors import InputError
from lowbit.inputs.sources import Source, embedded, find_source, on_disk

SOURCES: dict[str, Source] = {
    "demo": Source("demo", embedded, local=True),
    "path": Source("path:<file or folder>", on_disk, local=True),
}
SUFFIXES = (".jsonl", ".parquet", ".txt")
SEPARATOR = "<|endoftext|>"
"""Splits a text file into documents; without it the file is one document."""
ID_COLUMN = "doc_id"
"""Read as the id where the table has it and no other column is named."""
TOKENS, TOKENIZER = "token_ids", "tokenizer_sha256"
"""Columns of ready token ids and of the hash of the tokenizer that made them."""

if TYPE_CHECKING:
    import pandas as pd


def locate_documents(source: str, demo: Path) -> Path:
    """Return the file or folder of a document source, fetching it where its kind needs that.

    Raises:
        InputError: unknown kind of source, or nothing there.
    """
    kind, argument = find_source(source, SOURCES)
    return kind.locate(argument, demo)


def document_files(path: Path) -> list[Path]:
    """The files to read, sorted by path: `path` itself, or those anywhere under a folder.

    Raises:
        InputError: there is none, or the file is of another kind.
    """
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise InputError(f"{path} is not a document file; give one of {', '.join(SUFFIXES)}")
        return [path]
    files = sorted(found for found in path.rglob("*") if found.suffix in SUFFIXES)
    if not files:
        raise InputError(f"{path} has no document files ({', '.join(SUFFIXES)})")
    return files


@dataclass(frozen=True)
class Columns:
    """What to read of each document, and where the config says so."""

    text: str
    id: str | None
    key: str
    """Section of the config, for messages."""


@dataclass(frozen=True)
class DocumentTable:
    """Documents read from files."""

    frame: "pd.DataFrame"
    """doc_id, text, source; with token_ids and tokenizer_sha256 where the files have them."""
    dropped_empty: int
    """Documents without text (nothing or only white space)."""


def read_documents(
    path: Path,
    text_column: str,
    id_column: str | None = None,
    keep_empty: bool = False,
    key: str = "documents",
) -> DocumentTable:
    """Read a file or a folder of them into one table.

    Args:
        path: a .jsonl, .parquet or .txt file, or a folder of these.
        text_column: key or column of the text.
        id_column: key or column of a unique id; otherwise `doc_id` where there is one, otherwise
            ids are `<file>#<row>`, rows counted from 0.
        keep_empty: whether documents without text are rows, too.
        key: section of the config, for messages.

    Raises:
        InputError: no documents, a column that is not there, an id that stands twice, broken files.
    """
    import pandas as pd
    from tqdm import tqdm

    folder = path if path.is_dir() else path.parent
    columns = Columns(text_column, id_column, key)
    rows = []
    for file in tqdm(document_files(path), desc="read documents", unit="file"):
        name = file.relative_to(folder).as_posix()
        try:
            for number, record in enumerate(READERS[file.suffix](file, columns)):
                rows.append(_document(record, f"{name}#{number}", name, columns))
        except UnicodeDecodeError as error:
            raise InputError(f"{file} is not UTF-8 text ({error}); convert it to UTF-8") from None
    filled = [row for row in rows if row["text"].strip() or TOKENS in row]
    if not filled:
        raise InputError(
            f"{key}.source: {path} has no document with text ({len(rows)} empty ones); "
            f"give documents with text, or name its column in {key}.text_column"
        )
    frame = pd.DataFrame(rows if keep_empty else filled)
    _check_ids(frame, columns)
    _check_given_tokens(frame)
    return DocumentTable(frame, len(rows) - len(frame))


def _read_jsonl(file: Path, columns: Columns) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON Lines file; blank lines are no rows."""
    with open(file, encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{file}:{number} is not JSON: {error}") from None
            if not isinstance(record, dict):
                raise InputError(f'{file}:{number} is not a JSON object like {{"text": ...}}')
            yield record


def _read_parquet(file: Path, columns: Columns) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file, of the columns that are wanted only."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = {columns.text, columns.id, ID_COLUMN, "source", TOKENS, TOKENIZER}
    try:
        with pq.ParquetFile(file) as table:
            present = [name for name in table.schema_arrow.names if name in wanted]
            if columns.text not in present and TOKENS not in present:
                raise InputError(_no_text(file.name, columns, table.schema_arrow.names))
            for batch in table.iter_batches(columns=present):
                yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise InputError(f"{file} is not a whole Parquet file ({error}); copy it again") from None


def _read_text(file: Path, columns: Columns) -> Iterator[dict[str, Any]]:
    """Yield the documents of a text file."""
    for text in file.read_text(encoding="utf-8").split(SEPARATOR):
        yield {columns.text: text.strip("\n")}


READERS = {".jsonl": _read_jsonl, ".parquet": _read_parquet, ".txt": _read_text}


def _document(record: dict[str, Any], place: str, name: str, columns: Columns) -> dict[str, Any]:
    """One row of the table; `place` is `<file>#<row>`, `name` the file."""
    tokens = record.get(TOKENS)
    if columns.text not in record and tokens is None:
        raise InputError(_no_text(place, columns, list(record)))
    text = record.get(columns.text)
    text = "" if text is None else text
    if not isinstance(text, str):
        raise InputError(
            f"{place}: {columns.text} is {type(text).__name__}, not text; "
            f"name the column with the text in {columns.key}.text_column"
        )
    if columns.id and record.get(columns.id) is None:
        raise InputError(
            f"{place} has no {columns.id}; change {columns.key}.id_column, or leave it out to have "
            "ids made from file and row"
        )
    doc_id = record.get(columns.id or ID_COLUMN)
    row = {
        "doc_id": place if doc_id is None else str(doc_id),
        "text": text,
        "source": record.get("source") or name,
    }
    if tokens is not None:
        row |= {TOKENS: tokens, TOKENIZER: record.get(TOKENIZER)}
    return row


def _no_text(place: str, columns: Columns, present: list[str]) -> str:
    return (
        f"{place} has no {columns.text}; set {columns.key}.text_column to one of "
        f"{', '.join(present)}"
    )


def _check_ids(frame: "pd.DataFrame", columns: Columns) -> None:
    twice = frame.loc[frame["doc_id"].duplicated(), "doc_id"].unique().tolist()
    if twice:
        raise InputError(
            f"{len(twice)} document ids stand more than once in column {columns.id or ID_COLUMN} "
            f"(the first is {twice[0]}); give each document its own, or set "
            f"{columns.key}.id_column to a column that is unique"
        )


def _check_given_tokens(frame: "pd.DataFrame") -> None:
    """Ready token ids come for all documents or none, each with its tokenizer's hash."""
    if TOKENS not in frame:
        return
    missing = int(frame[TOKENS].isna().sum() + frame[TOKENIZER].isna().sum())
    if missing:
        raise InputError(
            f"column {TOKENS} needs a value in every row and beside it {TOKENIZER}, the SHA-256 of "
            f"the tokenizer.json that made the ids; {missing} values are missing"
        )
