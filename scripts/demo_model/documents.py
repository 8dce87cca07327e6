"""Choose the held-out documents, the validation and calibration passages, and the training rows.

A held-out passage counts only if its token 5-gram Jaccard similarity to every training passage,
and to every held-out passage kept before it, is at most 0.1: library docstrings repeat each other.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tokenizers import Tokenizer
from tqdm import tqdm

from .tokenizer import BEGIN_ID, END_ID, MAXIMUM_LENGTH

DOCUMENTS = 400
CALIBRATION_PASSAGES = 128
LOSS_SAMPLES = 128
JACCARD_LIMIT = 0.1
GRAM = 5
TOKEN_BITS = 12
SEED = 20240612


def gram_set(tokens: Sequence[int]) -> np.ndarray:
    """Sorted distinct token 5-grams, each packed exactly into one integer (12 bits a token)."""
    ids = np.asarray(tokens, dtype=np.uint64)
    if len(ids) < GRAM:
        return np.empty(0, dtype=np.uint64)
    packed = np.zeros(len(ids) - GRAM + 1, dtype=np.uint64)
    for offset in range(GRAM):
        packed = (packed << np.uint64(TOKEN_BITS)) | ids[offset : len(packed) + offset]
    return np.unique(packed)


class GramIndex:
    """Inverted index: 5-gram -> the held-out passages that contain it."""

    def __init__(self, sets: Sequence[np.ndarray]) -> None:
        self.sizes = np.array([len(item) for item in sets])
        owners = np.repeat(np.arange(len(sets)), self.sizes)
        grams = np.concatenate(sets) if sets else np.empty(0, dtype=np.uint64)
        order = np.argsort(grams, kind="stable")
        self.grams, self.owners = grams[order], owners[order]

    def jaccard(self, grams: np.ndarray) -> np.ndarray:
        """Jaccard similarity of one 5-gram set to every indexed passage, `[passages]`."""
        first = np.searchsorted(self.grams, grams, side="left")
        last = np.searchsorted(self.grams, grams, side="right")
        met = np.flatnonzero(last > first)
        spans = [self.owners[first[index] : last[index]] for index in met]
        owners = np.concatenate(spans) if spans else np.empty(0, dtype=np.int64)
        shared = np.bincount(owners, minlength=len(self.sizes))
        union = self.sizes + len(grams) - shared
        return shared / np.maximum(union, 1)


def far_from_training(
    heldout: Sequence[Sequence[int]], training: Iterable[Sequence[int]], limit: float
) -> np.ndarray:
    """Mask of held-out token lists with Jaccard <= `limit` to all training token lists."""
    index = GramIndex([gram_set(tokens) for tokens in heldout])
    keep = np.ones(len(heldout), dtype=bool)
    for tokens in training:
        keep &= index.jaccard(gram_set(tokens)) <= limit
    return keep


def distinct(heldout: Sequence[Sequence[int]], limit: float) -> np.ndarray:
    """Mask that keeps, walking in order, each token list far from all kept before it."""
    sets = [gram_set(tokens) for tokens in heldout]
    index = GramIndex(sets)
    keep = np.zeros(len(sets), dtype=bool)
    for position, grams in enumerate(sets):
        near = index.jaccard(grams) > limit
        keep[position] = not (near & keep).any()
    return keep


def training_rows(tokens: Sequence[Sequence[int]], seed: int = SEED) -> np.ndarray:
    """Rows of the training set, uint16 `[rows, 512]`, no token used twice and none padded.

    Evaluation reads a start token and the beginning of a passage, so the first 512 tokens of every
    long passage form a row of their own; what is left over, and the short passages, follow one
    another in a shuffled stream that is cut into rows.
    """
    whole = [np.array([BEGIN_ID, *item, END_ID], dtype=np.uint16) for item in tokens]
    heads = [item[:MAXIMUM_LENGTH] for item in whole if len(item) >= MAXIMUM_LENGTH]
    rests = [item[MAXIMUM_LENGTH:] if len(item) >= MAXIMUM_LENGTH else item for item in whole]
    order = np.random.default_rng(seed).permutation(len(rests))
    stream = np.concatenate([rests[index] for index in order])
    tail = stream[: len(stream) // MAXIMUM_LENGTH * MAXIMUM_LENGTH].reshape(-1, MAXIMUM_LENGTH)
    return np.concatenate([np.array(heads, dtype=np.uint16).reshape(-1, MAXIMUM_LENGTH), tail])


def published(table: pd.DataFrame) -> pd.DataFrame:
    """Columns of a committed document table: doc_id, text, source, licence."""
    source = table["package"] + " " + table["version"]
    return table.assign(source=source)[["doc_id", "text", "source", "licence"]]


def encode(tokenizer: Tokenizer, texts: pd.Series) -> list[list[int]]:
    """Token ids of each text without special tokens."""
    encoded = tokenizer.encode_batch_fast(texts.tolist(), add_special_tokens=False)
    return [item.ids for item in encoded]


def eligible_heldout(heldout: pd.DataFrame, training: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Held-out passages of 512 tokens or more (start token counted), far from all others."""
    heldout = heldout[heldout["tokens"].map(len) >= MAXIMUM_LENGTH - 1]
    heldout = heldout.sample(frac=1, random_state=seed)
    progress = tqdm(training["tokens"], desc="compare with training", unit="passage")
    far = far_from_training(heldout["tokens"].tolist(), progress, JACCARD_LIMIT)
    heldout = heldout[far]
    return heldout[distinct(heldout["tokens"].tolist(), JACCARD_LIMIT)]


def first_row(tokens: pd.Series) -> np.ndarray:
    """Start token and the first 511 tokens of each passage, uint16 `[passages, 512]`."""
    rows = [[BEGIN_ID, *item[: MAXIMUM_LENGTH - 1]] for item in tokens]
    return np.array(rows, dtype=np.uint16).reshape(-1, MAXIMUM_LENGTH)


def main() -> None:
    """Write documents, calibration passages, token rows and the counts of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--passages", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True, help="build directory")
    arguments = parser.parse_args()
    table = pd.read_parquet(arguments.passages)
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer / "tokenizer.json"))
    table["tokens"] = encode(tokenizer, table["text"])
    training, heldout = (table[table["split"] == name] for name in ("training", "heldout"))
    eligible = eligible_heldout(heldout, training, SEED)
    documents, validation = eligible[:DOCUMENTS], eligible[DOCUMENTS:][:LOSS_SAMPLES]
    long = training[training["tokens"].map(len) >= MAXIMUM_LENGTH - 1]
    sample = long.sample(n=CALIBRATION_PASSAGES + LOSS_SAMPLES, random_state=SEED)
    calibration, seen = sample[:CALIBRATION_PASSAGES], sample[CALIBRATION_PASSAGES:]
    rows = training_rows(training["tokens"].tolist())

    output: Path = arguments.output
    published(documents.sort_values("doc_id")).to_parquet(output / "documents.parquet", index=False)
    published(calibration.sort_values("doc_id")).to_parquet(
        output / "calibration.parquet", index=False
    )
    np.save(output / "training_rows.npy", rows)
    np.save(output / "heldout_sample.npy", first_row(validation["tokens"]))
    np.save(output / "training_sample.npy", first_row(seen["tokens"]))
    counts = {
        "training_tokens": int(training["tokens"].map(len).sum()),
        "training_rows": len(rows),
        "rows_from_a_start_token": int((rows[:, 0] == BEGIN_ID).sum()),
        "heldout_passages": len(heldout),
        "heldout_long_enough": int((heldout["tokens"].map(len) >= MAXIMUM_LENGTH - 1).sum()),
        "heldout_eligible": len(eligible),
        "documents": len(documents),
        "heldout_sample": len(validation),
        "training_sample": len(seen),
        "calibration": len(calibration),
    }
    (output / "splits.json").write_text(json.dumps(counts, indent=1) + "\n")


if __name__ == "__main__":
    main()
