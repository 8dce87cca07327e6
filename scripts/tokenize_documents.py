"""Tokenize documents once for a model: n rows of one length, which every later stage reads."""

import argparse
from pathlib import Path

from lowbit.errors import run
from lowbit.files import read_json, write_json


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model.json of fetch_model.py")
    parser.add_argument("--documents", type=Path, required=True, help="documents.parquet")
    parser.add_argument("--key", default="documents", help="section of the config, for messages")
    parser.add_argument("--n", type=int, required=True, help="documents to draw")
    parser.add_argument("--length", type=int, required=True, help="tokens, start token included")
    parser.add_argument("--seed", type=int, required=True, help="of the draw")
    parser.add_argument(
        "--chosen", type=Path, help="document_ids.txt of choose_documents.py: exactly these"
    )
    parser.add_argument("--output", type=Path, required=True, help="tokens.parquet")
    parser.add_argument("--ids", type=Path, help="output: the rows' document ids, one a line")
    parser.add_argument("--record", type=Path, required=True, help="tokens.json")
    return parser.parse_args()


def main() -> None:
    """Tokenize or take the ids given, draw n rows, write them with their text and what they are."""
    arguments = parse_arguments()
    import pandas as pd

    from lowbit.inputs.documents import read_ids, write_ids
    from lowbit.inputs.tokenizer import (
        decode,
        document_tokens,
        load_tokenizer,
        tokenizer_sha256,
    )
    from lowbit.inputs.tokens import check_vocabulary, choose_rows, write_tokens

    model = read_json(arguments.model)
    documents = pd.read_parquet(arguments.documents)
    if arguments.chosen:
        chosen = read_ids(arguments.chosen)
        documents = documents.set_index("doc_id").loc[chosen].reset_index()
    tokenizer = load_tokenizer(arguments.model.parent / "files")
    rows = choose_rows(
        documents["doc_id"].tolist(),
        document_tokens(documents, tokenizer, model, arguments.key),
        arguments.n,
        arguments.length,
        arguments.seed,
        arguments.key,
    )
    check_vocabulary(rows.token_ids, model["vocabulary"])
    write_tokens(arguments.output, rows, decode(rows.token_ids, tokenizer))
    if arguments.ids:
        write_ids(arguments.ids, rows.doc_ids)
    write_json(
        arguments.record,
        {
            "n": arguments.n,
            "length": arguments.length,
            "seed": arguments.seed,
            "start_token": model["start_token"],
            "token_ids": "given" if "token_ids" in documents else "made",
            "tokenizer_sha256": tokenizer_sha256(model["files"]),
            "chosen": "for all models" if arguments.chosen else "for this model",
            "documents": len(documents),
            "dropped_short": rows.dropped_short,
            "eligible": rows.eligible,
        },
    )


if __name__ == "__main__":
    run(main)
