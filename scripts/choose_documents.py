"""Choose the documents of a study of several models: long enough under every model's tokenizer."""

import argparse
from pathlib import Path

from lowbit.errors import run
from lowbit.files import read_json, write_json


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--models", type=Path, nargs="+", required=True, help="model.json of each model"
    )
    parser.add_argument("--documents", type=Path, required=True, help="documents.parquet")
    parser.add_argument("--n", type=int, required=True, help="documents to draw")
    parser.add_argument("--length", type=int, required=True, help="tokens, start token included")
    parser.add_argument("--seed", type=int, required=True, help="of the draw")
    parser.add_argument("--output", type=Path, required=True, help="document ids, one a line")
    parser.add_argument("--record", type=Path, required=True, help="JSON: what was drawn from")
    return parser.parse_args()


def main() -> None:
    """Count every document's tokens under each tokenizer, draw, write the ids."""
    arguments = parse_arguments()
    import numpy as np
    import pandas as pd

    from lowbit.inputs.documents import write_ids
    from lowbit.inputs.tokenizer import document_tokens, load_tokenizer, tokenizer_sha256
    from lowbit.inputs.tokens import draw_documents

    documents = pd.read_parquet(arguments.documents)
    sizes, tokenizers = {}, {}
    for path in arguments.models:
        model = read_json(path)
        identity = tokenizer_sha256(model["files"]), model["start_token"]
        tokenizers[path.parent.name] = identity
        if identity not in sizes:
            tokenizer = load_tokenizer(path.parent / "files")
            token_ids = document_tokens(documents, tokenizer, model, "documents")
            sizes[identity] = np.array([len(ids) for ids in token_ids])
    fewest = np.min(list(sizes.values()), axis=0)
    chosen = draw_documents(fewest, arguments.n, arguments.length, arguments.seed)
    write_ids(arguments.output, documents["doc_id"].iloc[chosen].tolist())
    write_json(
        arguments.record,
        {
            "n": arguments.n,
            "length": arguments.length,
            "seed": arguments.seed,
            "documents": len(documents),
            "eligible": int((fewest >= arguments.length).sum()),
            "models": {
                name: {
                    "tokenizer_sha256": identity[0],
                    "start_token": identity[1],
                    "long_enough": int((sizes[identity] >= arguments.length).sum()),
                }
                for name, identity in tokenizers.items()
            },
        },
    )


if __name__ == "__main__":
    run(main)
