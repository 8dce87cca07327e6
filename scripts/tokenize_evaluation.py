"""Tokenize an evaluation set once for a model: windows of a text, or items with their last word."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowbit.errors import InputError, run
from lowbit.files import read_json, write_json

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase

    from lowbit.inputs.evaluation import EvaluationRows

EMPTY_LINE = "\n\n"
"""Joins documents where the config says nothing else, as GPTQ joins WikiText-2's."""
CHARACTERS_PER_TOKEN = 16
"""Characters tokenized for each token wanted: a few times what any language takes."""


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument("--documents", type=Path, required=True, help="documents.parquet")
    parser.add_argument("--name", required=True, help="of the set")
    parser.add_argument("--settings", required=True, help='JSON: {"kind", "n", "length", "join"}')
    parser.add_argument("--seed", type=int, required=True, help="of the draw of items")
    parser.add_argument("--output", type=Path, required=True, help="rows.parquet")
    parser.add_argument("--record", type=Path, required=True, help="rows.json")
    return parser.parse_args()


def windows(
    documents: "pd.DataFrame",
    tokenizer: "PreTrainedTokenizerBase",
    model: dict[str, Any],
    settings: dict[str, Any],
    key: str,
) -> tuple["EvaluationRows", dict[str, Any]]:
    """Join all documents, tokenize them once and cut windows; return these and what to record.

    Where n windows are asked for, only as much text is tokenized as these are sure to need: a
    whole corpus as one text would take more memory than the model.
    """
    from lowbit.inputs.evaluation import USUAL_LENGTH, cut_windows
    from lowbit.inputs.tokenizer import encode

    n, join = settings["n"], settings["join"]
    join = EMPTY_LINE if join is None else join
    length = settings["length"] or min(USUAL_LENGTH, model["context_length"] or USUAL_LENGTH)
    text = join.join(documents["text"])
    taken = n * length * CHARACTERS_PER_TOKEN if n else len(text)
    (ids,) = encode([text[:taken]], tokenizer, model["start_token"])
    if n and taken < len(text) and len(ids) < (n + 1) * length:
        (ids,) = encode([text], tokenizer, model["start_token"])
    rows, there = cut_windows(ids, length, n, key)
    tokenized_all = not n or taken >= len(text)
    return rows, {
        "length": length,
        "join": join,
        "windows": len(rows),
        "whole": tokenized_all and len(rows) == there,
        "dropped_tokens": len(ids) - rows.token_ids.size if tokenized_all else None,
    }


def last_words(
    documents: "pd.DataFrame",
    tokenizer: "PreTrainedTokenizerBase",
    model: dict[str, Any],
    settings: dict[str, Any],
    key: str,
    seed: int,
) -> tuple["EvaluationRows", dict[str, Any]]:
    """Tokenize items with and without their last word; return their rows and what to record."""
    from lowbit.inputs.evaluation import draw_items, last_word_rows, split_last_word
    from lowbit.inputs.tokenizer import encode

    chosen = documents.iloc[draw_items(len(documents), settings["n"], seed)]
    doc_ids, texts = chosen["doc_id"].tolist(), chosen["text"].tolist()
    before = []
    for name, text in zip(doc_ids, texts, strict=True):
        split = split_last_word(text)
        if split is None:
            raise InputError(
                f"{key}.source: {name} has no last word: each text must end in a space and the "
                f"word to be predicted, but it ends in {text[-20:]!r}"
            )
        before.append(split[0])
    whole_ids, before_ids = (
        list(encode(part, tokenizer, model["start_token"])) for part in (texts, before)
    )
    rows, cut = last_word_rows(doc_ids, whole_ids, before_ids, model["context_length"], key)
    whole = len(chosen) == len(documents)
    return rows, {"items": len(rows), "whole": whole, "cut_from_the_left": cut}


def main() -> None:
    """Make the rows of one set; write them and what they are."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.inputs.evaluation import WINDOWS, write_rows
    from lowbit.inputs.tokenizer import load_tokenizer, tokenizer_sha256
    from lowbit.inputs.tokens import check_vocabulary
    from lowbit.settings import parse_json

    model = read_json(arguments.model)
    settings = parse_json(arguments.settings, "--settings")
    key = f"evaluation.{arguments.name}"
    documents = pd.read_parquet(arguments.documents, columns=["doc_id", "text"])
    tokenizer = load_tokenizer(arguments.model.parent / "files")
    given = documents, tokenizer, model, settings, key
    if settings["kind"] == WINDOWS:
        rows, record = windows(*given)
    else:
        rows, record = last_words(*given, arguments.seed)
    check_vocabulary(rows.token_ids, model["vocabulary"])
    write_rows(arguments.output, rows)
    write_json(
        arguments.record,
        {
            "kind": rows.kind,
            "documents": len(documents),
            **record,
            "scored_tokens": int(rows.tokens.sum()),
            "context_length": model["context_length"],
            "start_token": model["start_token"],
            "tokenizer_sha256": tokenizer_sha256(model["files"]),
        },
    )


if __name__ == "__main__":
    run(main)
