"""Read documents from their source into one table."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lowbit.errors import InputError, run
from lowbit.files import read_json, sha256, write_json, write_parquet

if TYPE_CHECKING:
    import pandas as pd


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True, help="its source in the config")
    parser.add_argument("--key", default="documents", help="section of the config, for messages")
    parser.add_argument("--demo", type=Path, required=True, help="file of the embedded documents")
    parser.add_argument("--text-column", default="text", help="key or column of the text")
    parser.add_argument("--id-column", help="key or column of a unique id")
    parser.add_argument("--keep-empty", action="store_true", help="documents without text, too")
    parser.add_argument(
        "--minimum", default="{}", help="JSON: {column: least value} of the documents kept"
    )
    parser.add_argument("--candidates", type=int, help="keep at most so many, drawn")
    parser.add_argument("--seed", type=int, default=0, help="of that draw")
    parser.add_argument("--ids", type=Path, help="keep exactly these: a file with one id per line")
    parser.add_argument("--model", type=Path, help="model.json, whose tokenizer reads token ids")
    parser.add_argument("--sha256", help="that its only file must have")
    parser.add_argument(
        "--named", default="{}", help="JSON to record: the config's name of the source, copies gone"
    )
    parser.add_argument("--output", type=Path, required=True, help="documents.parquet")
    parser.add_argument("--record", type=Path, required=True, help="documents.json")
    return parser.parse_args()


def read_files(arguments: argparse.Namespace) -> tuple["pd.DataFrame", dict[str, Any]]:
    """Read the documents of files; return them and what to record."""
    from lowbit.inputs.document_tables import Columns, Selection, read_documents
    from lowbit.inputs.documents import find_documents, read_ids
    from lowbit.settings import parse_json

    selection = Selection(
        minimum=parse_json(arguments.minimum, "--minimum"),
        candidates=arguments.candidates,
        seed=arguments.seed,
        ids=read_ids(arguments.ids) if arguments.ids else None,
    )
    files = find_documents(arguments.source, arguments.demo)
    hashes = {name: sha256(files.folder / name) for name in files.names}
    if arguments.sha256 and list(hashes.values()) != [arguments.sha256]:
        raise InputError(
            f"{arguments.key}.source: {arguments.source} is not the one file with SHA-256 "
            f"{arguments.sha256} but {hashes}; use another copy, or correct config/sources.yaml"
        )
    columns = Columns(arguments.text_column, arguments.id_column, arguments.key)
    table = read_documents(files, columns, arguments.keep_empty, selection)
    drawn = {} if table.eligible is None else {"eligible": table.eligible}
    return table.frame, {"files": hashes, **drawn, "dropped_empty": table.dropped_empty}


def read_released(arguments: argparse.Namespace) -> tuple["pd.DataFrame", dict[str, Any]]:
    """Fetch and decode the sets that the inputs paper's authors released; the same."""
    from lowbit.inputs import released_sets
    from lowbit.inputs.tokenizer import load_tokenizer, tokenizer_sha256

    model = read_json(arguments.model)
    sets = released_sets.parse_released(arguments.source.removeprefix("qerror:"))
    contents = {name: released_sets.download(name) for name in sets.names}
    tokenizer = load_tokenizer(arguments.model.parent / "files")
    frame, same = released_sets.released_documents(
        sets, contents, tokenizer, model, tokenizer_sha256(model["files"])
    )
    hashes = {name: released_sets.sha256_of(content) for name, content in contents.items()}
    return frame, {"commit": released_sets.COMMIT, "files": hashes, "same_tokens_again": same}


def main() -> None:
    """Read, write, record."""
    arguments = parse_arguments()
    from lowbit.settings import parse_json

    named = parse_json(arguments.named, "--named")
    frame, record = (read_released if arguments.model else read_files)(arguments)
    write_parquet(arguments.output, frame)
    write_json(
        arguments.record,
        {
            "source": arguments.source,
            **({"named": named} if named else {}),
            **record,
            "documents": len(frame),
            "has_token_ids": "token_ids" in frame,
        },
    )


if __name__ == "__main__":
    run(main)
