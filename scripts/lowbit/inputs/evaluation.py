"""Evaluation rows: token rows of a text or task, and which tokens of each row are scored.

`windows`: perplexity of a text in windows that do not overlap, the protocol of GPTQ (arXiv
2210.17323, section 4) and of most papers since. All documents are joined and tokenized once, with
the start token (where the model has one) at the very beginning and nowhere else; the ids are cut
into windows, the remainder is dropped. A window's first token is not predicted.

`last_word`: the task of LAMBADA (arXiv 1606.06031) as lm-evaluation-harness asks it. The last word
is what follows the last space, that space included; its tokens are those of the whole text beyond
those of the text before. An item too long for the model loses tokens on the left, the start token
first.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lowbit.errors import InputError
from lowbit.files import atomic

WINDOWS, LAST_WORD = "windows", "last_word"
"""Kinds of evaluation sets."""
USUAL_LENGTH = 2048
"""Tokens of a window where the config names none and the model's context is not shorter."""
PADDING = 0
"""Fills rows on the right. Any token would do: no token sees what comes after it."""


@dataclass(frozen=True)
class EvaluationRows:
    """Token rows and the tokens of each, from `first` to before `end`, that are scored."""

    kind: str
    """`windows` or `last_word`."""
    row_ids: list[str]
    """Number of the window, or id of the document that is the item."""
    token_ids: NDArray[np.int32]
    """`[rows, longest]`, padded on the right."""
    first: NDArray[np.int64]
    """`[rows]` place of the first scored token, at least 1."""
    end: NDArray[np.int64]
    """`[rows]` place after the last scored token, which is the row's last: the row's length."""

    def __len__(self) -> int:
        return len(self.row_ids)

    @property
    def inputs(self) -> NDArray[np.int32]:
        """What a model is given, `[rows, longest - 1]`: nothing is predicted from the last token.

        A row may therefore have one token more than the model's context.
        """
        return self.token_ids[:, :-1]

    @property
    def input_lengths(self) -> NDArray[np.int64]:
        """Tokens of each row of `inputs` that are no padding, `[rows]`."""
        return self.end - 1

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Number of scored tokens, `[rows]`."""
        return self.end - self.first

    @property
    def scored(self) -> NDArray[np.bool_]:
        """Places of `inputs` from which a scored token is predicted, `[rows, longest - 1]`."""
        places = np.arange(self.token_ids.shape[1] - 1)
        return (places >= self.first[:, None] - 1) & (places < self.end[:, None] - 1)


def cut_windows(
    token_ids: Sequence[int], length: int, n: int | None, key: str
) -> tuple[EvaluationRows, int]:
    """Cut one text into windows that do not overlap.

    Args:
        token_ids: of the whole text.
        length: tokens of a window.
        n: at most so many windows, from the beginning.
        key: the set's place in the config, for messages.

    Returns:
        The windows, and how many there are without `n`.

    Raises:
        InputError: too little text for one window.
    """
    there = len(token_ids) // length
    if there == 0:
        shorter = f", or write {key}.length: {len(token_ids)} or less" if token_ids else ""
        raise InputError(
            f"{key}.source has {len(token_ids)} tokens, too few for one window of {length}; give "
            f"more text{shorter}"
        )
    count = min(there, n or there)
    rows = np.array(token_ids[: count * length], dtype=np.int32).reshape(count, length)
    row_ids = [str(number) for number in range(count)]
    first, end = np.full(count, 1), np.full(count, length)
    return EvaluationRows(WINDOWS, row_ids, rows, first, end), there


def split_last_word(text: str) -> tuple[str, str] | None:
    """Split a text before its last word: (text before, the word with the space before it).

    White space before the word belongs to it, as in lm-evaluation-harness (`_encode_pair`).
    None where there is no last word, or nothing before it.
    """
    before, _, word = text.rpartition(" ")
    before = before.rstrip()
    return (before, text[len(before) :]) if before and word else None


def last_word_rows(
    row_ids: Sequence[str],
    texts: Sequence[Sequence[int]],
    before: Sequence[Sequence[int]],
    context: int | None,
    key: str,
) -> tuple[EvaluationRows, int]:
    """Make rows of items, the longest first, so that batches have little padding.

    Args:
        row_ids: one id per item.
        texts: each item's tokens, start token included.
        before: the same of the text without its last word.
        context: tokens that the model can be given; None: any number.
        key: the set's place in the config, for messages.

    Returns:
        The rows, and how many were cut from the left.

    Raises:
        InputError: a last word without tokens or too long for the model, or no item fits uncut.
    """
    lengths = np.array([len(ids) for ids in texts], dtype=np.int64)
    words = lengths - [len(ids) for ids in before]
    longest = lengths.max() if context is None else min(context + 1, int(lengths.max()))
    for name, size in zip(row_ids, words, strict=True):
        if not 0 < size < longest:
            raise InputError(
                f"{key}.source: the last word of {name} has {size} tokens, the model can be asked "
                f"for 1 to {longest - 1}; take this item out"
            )
    if longest < lengths.min():
        raise InputError(
            f"{key}.source: none of its {len(lengths)} items fits the model's context of {context} "
            f"tokens, the shortest has {lengths.min()}; give shorter items or another model"
        )
    end = np.minimum(lengths, longest)
    order = np.argsort(-end, kind="stable")
    rows = np.full((len(order), longest), PADDING, dtype=np.int32)
    for row, item in zip(rows, order, strict=True):
        row[: end[item]] = texts[item][-end[item] :]
    end = end[order]
    ids = [row_ids[item] for item in order]
    cut = int((lengths > longest).sum())
    return EvaluationRows(LAST_WORD, ids, rows, end - words[order], end), cut


def draw_items(count: int, n: int | None, seed: int) -> NDArray[np.int64]:
    """Draw n of so many items with the seed (all where n is none or more); in their own order."""
    chosen = np.random.default_rng(seed).permutation(count)[: n or count]
    return np.sort(chosen)


def write_rows(path: Path, rows: EvaluationRows) -> None:
    """Write `row, token_ids, first`, each row with its own tokens only, and the kind."""
    ids = [row[:end] for row, end in zip(rows.token_ids, rows.end, strict=True)]
    table = pa.table(
        {
            "row": pa.array(rows.row_ids, pa.string()),
            "token_ids": pa.array(ids, pa.list_(pa.int32())),
            "first": pa.array(rows.first, pa.int32()),
        }
    )
    with atomic(path) as partial:
        pq.write_table(
            table.replace_schema_metadata({"kind": rows.kind}), partial, compression="zstd"
        )


def read_rows(path: str | Path) -> EvaluationRows:
    """Read what `write_rows` wrote."""
    with pq.ParquetFile(path) as file:
        table = file.read()
    ids = table["token_ids"].combine_chunks()
    end = ids.value_lengths().to_numpy().astype(np.int64)
    token_ids = np.full((len(end), end.max()), PADDING, dtype=np.int32)
    token_ids[np.arange(end.max()) < end[:, None]] = ids.flatten().to_numpy()
    first = table["first"].to_numpy().astype(np.int64)
    kind = table.schema.metadata[b"kind"].decode()
    return EvaluationRows(kind, table["row"].to_pylist(), token_ids, first, end)
