"""Token rows: made once per model and documents, read by every later stage."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lowbit.errors import InputError
from lowbit.files import atomic


@dataclass(frozen=True)
class TokenRows:
    """The documents chosen, cut to one length."""

    doc_ids: list[str]
    token_ids: np.ndarray
    """int32 `[n, length]`."""
    dropped_short: int
    """Documents of the whole table that have fewer than `length` tokens."""
    eligible: int
    """Documents long enough, from which n were drawn."""


def choose_rows(
    doc_ids: Sequence[str],
    token_ids: Sequence[Sequence[int]],
    n: int,
    length: int,
    seed: int,
    key: str = "documents",
) -> TokenRows:
    """Draw n of the documents with `length` tokens or more and cut them; table order is kept.

    Args:
        doc_ids: one id per document.
        token_ids: each document's tokens, of any number.
        n: documents wanted.
        length: tokens of each, start token included.
        seed: of the draw.
        key: section of the config, for messages.

    Raises:
        InputError: fewer than n documents are long enough.
    """
    sizes = np.array([len(ids) for ids in token_ids])
    chosen = draw_documents(sizes, n, length, seed, key)
    rows = np.array([token_ids[at][:length] for at in chosen], dtype=np.int32)
    short = int((sizes < length).sum())
    return TokenRows([doc_ids[at] for at in chosen], rows, short, len(sizes) - short)


def draw_documents(
    sizes: np.ndarray, n: int, length: int, seed: int, key: str = "documents"
) -> np.ndarray:
    """Draw n of the documents with `length` tokens or more; return their numbers, rising.

    Args:
        sizes: tokens of each document; where several models must have the same ones, the fewest
            under any of them.
        n, length, seed, key: as of `choose_rows`.

    Raises:
        InputError: fewer than n documents are long enough.
    """
    eligible = np.flatnonzero(sizes >= length)
    if len(eligible) < n:
        raise InputError(_too_few(sizes, len(eligible), n, length, key))
    return np.sort(np.random.default_rng(seed).permutation(eligible)[:n])


def _too_few(sizes: np.ndarray, eligible: int, n: int, length: int, key: str) -> str:
    """Say how many documents are long enough, and which n or which length would do."""
    message = f"only {eligible} of {len(sizes)} documents have {length} tokens or more, but {n} are"
    ways = [f"{key}.n: {eligible}"] if eligible else []
    if len(sizes) >= n:
        ways.append(f"{key}.length: {np.sort(sizes)[-n]}")
    change = f"write {' or '.join(ways)}, or " if ways else ""
    return f"{message} asked for by {key}.n; {change}give more or longer documents"


def check_vocabulary(token_ids: np.ndarray, vocabulary: int) -> None:
    """Raise `InputError` if a token id is not one of the model's."""
    low, high = int(token_ids.min()), int(token_ids.max())
    if low < 0 or high >= vocabulary:
        raise InputError(
            f"the documents have token ids from {low} to {high}, but the model's vocabulary has "
            f"{vocabulary} entries: the tokenizer (or the token_ids given) belongs to another model"
        )


def write_tokens(path: Path, rows: TokenRows, texts: Sequence[str] | None = None) -> None:
    """Write `doc_id, token_ids, text` with `token_ids` a fixed-size list of int32.

    Args:
        texts: what each row says, which is all of a document that a model sees; no such column
            where it is left out.
    """
    length = rows.token_ids.shape[1]
    values = pa.array(rows.token_ids.ravel(), pa.int32())
    columns = {
        "doc_id": pa.array(rows.doc_ids, pa.string()),
        "token_ids": pa.FixedSizeListArray.from_arrays(values, length),
    }
    if texts is not None:
        columns["text"] = pa.array(texts, pa.string())
    with atomic(path) as partial:
        pq.write_table(pa.table(columns), partial, compression="zstd")


def read_tokens(path: str | Path) -> tuple[list[str], np.ndarray]:
    """Read what `write_tokens` wrote.

    Returns:
        Document ids and token ids, int32 `[documents, length]`.
    """
    with pq.ParquetFile(path) as file:
        table = file.read(columns=["doc_id", "token_ids"])
    column = table["token_ids"].combine_chunks()
    tokens = column.flatten().to_numpy().reshape(len(table), column.type.list_size)
    return table["doc_id"].to_pylist(), tokens


def read_texts(path: str | Path) -> list[str]:
    """Read what each row of a token table says, in its order."""
    with pq.ParquetFile(path) as file:
        return file.read(columns=["text"])["text"].to_pylist()
