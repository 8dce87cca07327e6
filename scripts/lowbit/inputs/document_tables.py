"""Document tables: reading files into `doc_id, text, source`.

A source may be far larger than what is kept of it. It is then read twice, a few rows at a time:
first only the columns that say which rows are kept, then those rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lowbit.errors import InputError
from lowbit.inputs.document_readers import (
    Record,
    column_names,
    count_rows,
    read_records,
    rows_with_minimum,
)
from lowbit.inputs.documents import PARQUET, DocumentFiles

ID_COLUMN = "doc_id"
"""Read as the id where the table has it and no other column is named."""
TOKENS, TOKENIZER = "token_ids", "tokenizer_sha256"
"""Columns of ready token ids and of the hash of the tokenizer that made them."""


@dataclass(frozen=True)
class Columns:
    """What to read of each document, and where the config says so."""

    text: str = "text"
    id: str | None = None
    """A unique id; without it `doc_id` where there is one, otherwise ids are `<file>#<row>`, rows
    counted from 0."""
    key: str = "documents"
    """Section of the config, for messages."""

    @property
    def of_ids(self) -> list[str]:
        """Columns that an id is read from."""
        return [self.id or ID_COLUMN]

    @property
    def wanted(self) -> list[str]:
        """All columns that are read."""
        return [self.text, *self.of_ids, "source", TOKENS, TOKENIZER]


@dataclass(frozen=True)
class Selection:
    """Which rows of a source are kept; all, where nothing is said."""

    minimum: Mapping[str, float] = field(default_factory=dict)
    """Columns, and the least value that each must have."""
    candidates: int | None = None
    """At most so many, drawn from those with the least values."""
    seed: int = 0
    """Of that draw."""
    ids: Sequence[str] | None = None
    """Exactly the documents with these ids, in this order."""


@dataclass(frozen=True)
class DocumentTable:
    """Documents read from files."""

    frame: pd.DataFrame
    """doc_id, text, source; with token_ids and tokenizer_sha256 where the files have them."""
    dropped_empty: int
    """Documents without text (nothing or only white space)."""
    eligible: int | None = None
    """Rows that could have been kept, where there was a selection."""


def read_documents(
    files: DocumentFiles,
    columns: Columns | None = None,
    keep_empty: bool = False,
    selection: Selection | None = None,
) -> DocumentTable:
    """Read files into one table.

    Args:
        files: what to read.
        columns: of text and id; without it the usual names.
        keep_empty: whether documents without text are rows, too.
        selection: which rows; without it all.

    Raises:
        InputError: no documents, a column that is not there, an id that stands twice or nowhere,
            broken files.
    """
    from tqdm import tqdm

    columns, selection = columns or Columns(), selection or Selection()
    kept, eligible = _select(files, columns, selection)
    rows = []
    for name in tqdm(files.names, desc="read documents", unit="file"):
        file = files.folder / name
        try:
            _require_text(file, columns)
            for number, record in read_records(file, columns.wanted, columns.text, kept[name]):
                rows.append(_document(record, f"{name}#{number}", name, columns))
        except UnicodeDecodeError as error:
            raise InputError(f"{file} is not UTF-8 text ({error}); convert it to UTF-8") from None
    filled = [row for row in rows if row["text"].strip() or TOKENS in row]
    if not filled:
        raise InputError(
            f"{columns.key}.source: {files.folder} has no document with text ({len(rows)} empty "
            f"ones); give documents with text, or name its column in {columns.key}.text_column"
        )
    frame = pd.DataFrame(rows if keep_empty else filled)
    _check_ids(frame, columns)
    _check_given_tokens(frame)
    dropped = len(rows) - len(frame)
    if selection.ids is not None:
        frame = _in_order(frame, selection.ids, columns)
    return DocumentTable(frame, dropped, eligible)


def _select(
    files: DocumentFiles, columns: Columns, selection: Selection
) -> tuple[dict[str, np.ndarray | None], int | None]:
    """Rows to keep of each file (None: all), and how many could be kept."""
    if selection.ids is not None:
        return _rows_of_ids(files, columns, selection.ids), None
    if not selection.minimum and selection.candidates is None:
        return dict.fromkeys(files.names), None
    rows = [_eligible(files.folder / name, columns, selection.minimum) for name in files.names]
    counts = [len(numbers) for numbers in rows]
    eligible = sum(counts)
    if not eligible:
        least = ", ".join(f"{name}: {value:g}" for name, value in selection.minimum.items())
        raise InputError(
            f"{columns.key}.minimum is {least}, which no document of {files.folder} has; write less"
        )
    if selection.candidates is not None and selection.candidates < eligible:
        draw = np.random.default_rng(selection.seed)
        drawn = np.zeros(eligible, dtype=bool)
        drawn[draw.choice(eligible, size=selection.candidates, replace=False)] = True
        parts = np.split(drawn, np.cumsum(counts)[:-1])
        rows = [numbers[part] for numbers, part in zip(rows, parts, strict=True)]
    return dict(zip(files.names, rows, strict=True)), eligible


def _eligible(file: Path, columns: Columns, minimum: Mapping[str, float]) -> np.ndarray:
    """Numbers of a file's rows that have the least values."""
    rows = count_rows(file)
    if not minimum or not rows:
        return np.arange(rows)
    present = column_names(file)
    for name in minimum:
        if name not in present:
            has = f"it has {', '.join(present)}" if present else "it has no columns"
            raise InputError(f"{columns.key}.minimum: {file.name} has no {name}; {has}")
    try:
        return rows_with_minimum(file, minimum)
    except InputError as error:
        raise InputError(f"{columns.key}.minimum: {error}; name a column of numbers") from None


def _rows_of_ids(
    files: DocumentFiles, columns: Columns, ids: Sequence[str]
) -> dict[str, np.ndarray]:
    """Numbers of each file's rows that have these ids."""
    wanted, found = set(ids), set()
    rows = {}
    for name in files.names:
        file = files.folder / name
        numbers = []
        for number, record in read_records(file, columns.of_ids, columns.text):
            doc_id = _id_of(record, f"{name}#{number}", columns)
            if doc_id in wanted:
                found.add(doc_id)
                numbers.append(number)
        rows[name] = np.array(numbers, dtype=np.int64)
    if missing := [doc_id for doc_id in ids if doc_id not in found]:
        raise InputError(
            f"{columns.key}.ids names {len(missing)} of {len(ids)} documents that are not in the "
            f"source (the first is {missing[0]}); give the source and {columns.key}.id_column "
            "that the ids are of"
        )
    return rows


def _in_order(frame: pd.DataFrame, ids: Sequence[str], columns: Columns) -> pd.DataFrame:
    """The table in the order of the ids."""
    if empty := set(ids) - set(frame["doc_id"]):
        raise InputError(
            f"{columns.key}.ids names {len(empty)} documents without text (one is {min(empty)}); "
            "take them out"
        )
    return frame.set_index("doc_id").loc[list(ids)].reset_index()


def _document(record: Record, place: str, name: str, columns: Columns) -> dict[str, Any]:
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
    source = record.get("source")
    row = {
        "doc_id": _id_of(record, place, columns),
        "text": text,
        "source": source if source and isinstance(source, str) else name,
    }
    if tokens is not None:
        row |= {TOKENS: tokens, TOKENIZER: record.get(TOKENIZER)}
    return row


def _id_of(record: Record, place: str, columns: Columns) -> str:
    """A row's id."""
    if columns.id and record.get(columns.id) is None:
        raise InputError(
            f"{place} has no {columns.id}; change {columns.key}.id_column, or leave it out to have "
            "ids made from file and row"
        )
    doc_id = record.get(columns.id or ID_COLUMN)
    return place if doc_id is None else str(doc_id)


def _require_text(file: Path, columns: Columns) -> None:
    """Raise unless a file with columns has one of text, or of ready tokens."""
    present = column_names(file)
    if file.name.endswith(PARQUET) and not {columns.text, TOKENS} & set(present):
        raise InputError(_no_text(file.name, columns, present))


def _no_text(place: str, columns: Columns, present: Sequence[str]) -> str:
    return (
        f"{place} has no {columns.text}; set {columns.key}.text_column to one of "
        f"{', '.join(present)}"
    )


def _check_ids(frame: pd.DataFrame, columns: Columns) -> None:
    """Each document has an id of its own, of one line, so that a list of ids says which it is."""
    for doc_id in frame["doc_id"]:
        if not doc_id or "\n" in doc_id:
            raise InputError(
                f"{doc_id!r} in column {columns.id or ID_COLUMN} is no id: it must be one line of "
                f"text; set {columns.key}.id_column to another column"
            )
    twice = frame.loc[frame["doc_id"].duplicated(), "doc_id"].unique().tolist()
    if twice:
        raise InputError(
            f"{len(twice)} document ids stand more than once in column {columns.id or ID_COLUMN} "
            f"(the first is {twice[0]}); give each document its own, or set "
            f"{columns.key}.id_column to a column that is unique"
        )


def _check_given_tokens(frame: pd.DataFrame) -> None:
    """Ready token ids come for all documents or none, each with its tokenizer's hash."""
    if TOKENS not in frame:
        return
    missing = int(frame[TOKENS].isna().sum() + frame[TOKENIZER].isna().sum())
    if missing:
        raise InputError(
            f"column {TOKENS} needs a value in every row and beside it {TOKENIZER}, the SHA-256 of "
            f"the tokenizer.json that made the ids; {missing} values are missing"
        )
