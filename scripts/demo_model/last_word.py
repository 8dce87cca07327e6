"""A last-word task made of the held-out documents, in the spirit of LAMBADA (arXiv 1606.06031).

An item is a passage whose last word ends a clause in the document and stands earlier in the passage
too: who follows the passage can find it, who looks at the last few words hardly can. One item is
drawn from each document, so that items are independent of each other.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
import pandas as pd
from tokenizers import Tokenizer

from .documents import SEED, encode, gram_set

SHORTEST, LONGEST = 30, 127
"""Tokens of a passage, without start token."""
LAST_WORD = re.compile(r"(?<= )[a-z]{4,}(?=[.,;:](?:\s|$))")
"""A word of four small letters or more after a space, before the mark that ends a clause."""
BEGINNING = re.compile(r"(?:^|(?<=\n)|(?<=[.:] ))(?=\S)")
"""Where a passage may begin: at a line, or after a sentence."""
CALIBRATION_SHARE = 0.1
"""Largest share of a passage's token 5-grams that calibration passages may have, too."""


def passages(text: str, tokenizer: Tokenizer) -> list[str]:
    """All passages of a text that can be items: for each last word the longest one.

    Length is counted in the text's own tokens; cut out, a passage may have one more at its start.
    """
    token_starts = [start for start, _ in tokenizer.encode(text, add_special_tokens=False).offsets]
    beginnings = np.array([match.start() for match in BEGINNING.finditer(text)])
    before = np.searchsorted(token_starts, beginnings)
    found = []
    for word in LAST_WORD.finditer(text):
        lengths = np.searchsorted(token_starts, word.end()) - before
        fitting = beginnings[(lengths >= SHORTEST) & (lengths < LONGEST)]
        if not len(fitting):
            continue
        start = fitting[0]
        if re.search(rf"\b{word.group()}\b", text[start : word.start()]):
            found.append(text[start : word.end()])
    return found


def last_word_task(
    documents: pd.DataFrame, calibration: pd.DataFrame, tokenizer: Tokenizer, seed: int
) -> pd.DataFrame:
    """Draw one item from each document that has one, far from every calibration passage.

    Args:
        documents: doc_id, text, source, licence; in order of doc_id.
        calibration: the same, of what quantizers learn from.

    Returns:
        The same columns; `text` is the passage.
    """
    known = set().union(*(gram_set(tokens) for tokens in encode(tokenizer, calibration["text"])))
    rng = np.random.default_rng(seed)
    items = []
    for document in documents.itertuples(index=False):
        texts = passages(document.text, tokenizer)
        grams = [set(gram_set(tokens)) for tokens in encode(tokenizer, pd.Series(texts, dtype=str))]
        far = [
            text
            for text, mine in zip(texts, grams, strict=True)
            if len(mine & known) <= CALIBRATION_SHARE * len(mine)
        ]
        if far:
            items.append(document._replace(text=far[rng.integers(len(far))]))
    return pd.DataFrame(items, columns=documents.columns)


def main() -> None:
    """Make the task of the documents and calibration passages in the build directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--build", type=Path, required=True, help="build directory")
    arguments = parser.parse_args()
    tables = (
        pd.read_parquet(arguments.build / f"{name}.parquet")
        for name in ("documents", "calibration")
    )
    tokenizer = Tokenizer.from_file(str(arguments.tokenizer / "tokenizer.json"))
    task = last_word_task(*tables, tokenizer, SEED)
    task.to_parquet(arguments.build / "last_word.parquet", index=False)


if __name__ == "__main__":
    main()
