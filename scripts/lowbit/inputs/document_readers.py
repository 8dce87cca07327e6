"""Files of documents, read row by row or a few columns at a time, never as a whole.

Rows of a file are numbered from 0; empty lines of JSON Lines are no rows.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from io import TextIOWrapper
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lowbit.errors import InputError
from lowbit.inputs.documents import PARQUET, TEXT

SEPARATOR = "<|endoftext|>"
"""Splits a text file into documents; without it the file is one document."""
BATCH = 10_000
"""Rows of which a few columns are held at once."""

Record = dict[str, Any]
Rows = np.ndarray | None
"""Numbers of the rows that are wanted, rising; None for all."""


def read_records(
    file: Path, wanted: Sequence[str], text: str, rows: Rows = None
) -> Iterator[tuple[int, Record]]:
    """Yield `(number, record)` of rows.

    Args:
        file: of one of the kinds of `lowbit.inputs.documents`.
        wanted: columns that are read where the file has columns.
        text: what the text of a text file's documents is called.
        rows: which; without it all.

    Raises:
        InputError: the file is broken.
    """
    if file.name.endswith(PARQUET):
        yield from _parquet_records(file, wanted, rows)
    elif file.name.endswith(TEXT):
        yield from _chosen(_text_records(file, text), rows)
    else:
        for number, line in _chosen(_json_lines(file), rows):
            yield number, _parsed(file, *line)


def column_names(file: Path) -> list[str]:
    """The columns of a file, or the keys of its first row; a text file has none."""
    if file.name.endswith(PARQUET):
        with _opened_parquet(file) as table:
            return table.schema_arrow.names
    if file.name.endswith(TEXT):
        return []
    return [name for line in islice(_json_lines(file), 1) for name in _parsed(file, *line)]


def count_rows(file: Path) -> int:
    """How many rows a file has."""
    if file.name.endswith(PARQUET):
        with _opened_parquet(file) as table:
            return table.metadata.num_rows
    if file.name.endswith(TEXT):
        return sum(1 for _ in _text_records(file, ""))
    return sum(1 for _ in _json_lines(file))


def read_columns(file: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield some columns of all rows, batch by batch; what a row does not have is null."""
    if file.name.endswith(PARQUET):
        with _opened_parquet(file) as table:
            yield from table.iter_batches(columns=list(names), batch_size=BATCH)
        return
    records = (record for _, record in read_records(file, names, ""))
    while batch := list(islice(records, BATCH)):
        rows = [{name: record.get(name) for name in names} for record in batch]
        yield pa.RecordBatch.from_pylist(rows)


def rows_with_minimum(file: Path, minimum: Mapping[str, float]) -> np.ndarray:
    """Numbers of the rows in which every column named has its least value; null is less.

    Raises:
        InputError: a column holds no numbers.
    """
    found, start = [], 0
    for batch in read_columns(file, list(minimum)):
        reached = np.ones(len(batch), dtype=bool)
        for name, least in minimum.items():
            try:
                enough = pc.greater_equal(batch[name], least)
            except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
                kind = batch[name].type
                raise InputError(f"{name} of {file.name} is {kind}, not a number") from None
            reached &= pc.fill_null(enough, False).to_numpy(zero_copy_only=False)
        found.append(start + np.flatnonzero(reached))
        start += len(batch)
    return np.concatenate(found) if found else np.zeros(0, dtype=np.int64)


def _chosen(rows_of_file: Iterator, rows: Rows) -> Iterator[tuple[int, Any]]:
    """Number all rows, yield those that are wanted, and stop after the last of them."""
    if rows is None:
        yield from enumerate(rows_of_file)
        return
    wanted, before = iter(rows.tolist()), 0
    for number in wanted:
        yield number, next(islice(rows_of_file, number - before, None))
        before = number + 1


def _opened_parquet(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise InputError(f"{file} is not a whole Parquet file ({error}); copy it again") from None


def _parquet_records(file: Path, wanted: Sequence[str], rows: Rows) -> Iterator[tuple[int, Record]]:
    """Rows of a Parquet file, of the columns that are wanted only; other row groups are skipped."""
    with _opened_parquet(file) as table:
        present = [name for name in table.schema_arrow.names if name in wanted]
        start = 0
        for group in range(table.num_row_groups):
            end = start + table.metadata.row_group(group).num_rows
            if rows is None or np.searchsorted(rows, start) < np.searchsorted(rows, end):
                for batch in table.iter_batches(BATCH, [group], present):
                    numbers = np.arange(start, start + len(batch))
                    if rows is not None:
                        numbers = numbers[np.isin(numbers, rows)]
                    yield from zip(
                        numbers.tolist(),
                        batch.take(pa.array(numbers - start)).to_pylist(),
                        strict=True,
                    )
                    start += len(batch)
            start = end


def _json_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Yield `(line number from 1, line)` of the lines that are not empty."""
    try:
        with pa.input_stream(str(file)) as stream, TextIOWrapper(stream, "utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield number, line
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{file} cannot be read to its end ({error}); copy it again") from None


def _parsed(file: Path, number: int, line: str) -> Record:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{file}:{number} is not JSON: {error}") from None
    if not isinstance(record, dict):
        raise InputError(f'{file}:{number} is not a JSON object like {{"text": ...}}')
    return record


def _text_records(file: Path, text: str) -> Iterator[Record]:
    """Yield the documents of a text file."""
    for document in file.read_text(encoding="utf-8").split(SEPARATOR):
        yield {text: document.strip("\n")}
