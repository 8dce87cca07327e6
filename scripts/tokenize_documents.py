"""Tokenize documents once for a model: n rows of one length, which every later stage reads."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowbit.errors import InputError, run
from lowbit.files import read_json, write_json

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedTokenizerBase


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument("--documents", type=Path, required=True, help="documents.parquet")
    parser.add_argument("--key", default="documents", help="section of the config, for messages")
    parser.add_argument("--n", type=int, required=True, help="documents to draw")
    parser.add_argument("--length", type=int, required=True, help="tokens, start token included")
    parser.add_argument("--seed", type=int, required=True, help="of the draw")
    parser.add_argument("--output", type=Path, required=True, help="tokens.parquet")
    parser.add_argument("--record", type=Path, required=True, help="tokens.json")
    return parser.parse_args()


def given_tokens(documents: "pd.DataFrame", tokenizer_hash: str, key: str) -> list[Any]:
    """The table's own token ids, if the model's tokenizer made all of them."""
    others = sorted(set(documents["tokenizer_sha256"]) - {tokenizer_hash})
    if others:
        raise InputError(
            f"{key}.source has token_ids made by a tokenizer with SHA-256 {', '.join(others)}, "
            f"but this model's is {tokenizer_hash}; use the model they were made for, or leave "
            "the column token_ids out so that the text is tokenized"
        )
    return documents["token_ids"].tolist()


def encode_documents(
    documents: "pd.DataFrame", tokenizer: "PreTrainedTokenizerBase", start: int | None
) -> list[Any]:
    """Tokenize every text with the model's tokenizer."""
    from tqdm import tqdm

    from lowbit.inputs.tokenizer import encode

    with tqdm(total=len(documents), desc="tokenize", unit="document") as bar:
        return list(encode(documents["text"].tolist(), tokenizer, start, bar.update))


def main() -> None:
    """Tokenize or take the ids given, draw n rows, write them with their text and what they are."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.inputs.tokenizer import decode, load_tokenizer, tokenizer_sha256
    from lowbit.inputs.tokens import check_vocabulary, choose_rows, write_tokens

    model = read_json(arguments.model)
    documents = pd.read_parquet(arguments.documents)
    tokenizer = load_tokenizer(arguments.model.parent / "files")
    tokenizer_hash = tokenizer_sha256(model["files"])
    given = "token_ids" in documents
    if given:
        token_ids = given_tokens(documents, tokenizer_hash, arguments.key)
    else:
        token_ids = encode_documents(documents, tokenizer, model["start_token"])
    rows = choose_rows(
        documents["doc_id"].tolist(),
        token_ids,
        arguments.n,
        arguments.length,
        arguments.seed,
        arguments.key,
    )
    check_vocabulary(rows.token_ids, model["vocabulary"])
    write_tokens(arguments.output, rows, decode(rows.token_ids, tokenizer))
    write_json(
        arguments.record,
        {
            "n": arguments.n,
            "length": arguments.length,
            "seed": arguments.seed,
            "start_token": model["start_token"],
            "token_ids": "given" if given else "made",
            "tokenizer_sha256": tokenizer_hash,
            "documents": len(documents),
            "dropped_short": rows.dropped_short,
            "eligible": rows.eligible,
        },
    )


if __name__ == "__main__":
    run(main)
