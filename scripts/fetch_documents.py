"""Read documents from their source into one table."""

import argparse
from pathlib import Path

from lowbit.errors import run
from lowbit.files import sha256, write_json, write_parquet


def parse_arguments() -> argparse.Namespace:
    """Define and read the options."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", required=True, help="its source in the config")
    parser.add_argument("--key", default="documents", help="section of the config, for messages")
    parser.add_argument("--demo", type=Path, required=True, help="file of the embedded documents")
    parser.add_argument("--text-column", default="text", help="key or column of the text")
    parser.add_argument("--id-column", help="key or column of a unique id")
    parser.add_argument("--keep-empty", action="store_true", help="documents without text, too")
    parser.add_argument("--output", type=Path, required=True, help="documents.parquet")
    parser.add_argument("--record", type=Path, required=True, help="documents.json")
    return parser.parse_args()


def main() -> None:
    """Locate, read, write."""
    arguments = parse_arguments()
    from lowbit.inputs.documents import document_files, locate_documents, read_documents

    path = locate_documents(arguments.source, arguments.demo)
    table = read_documents(
        path, arguments.text_column, arguments.id_column, arguments.keep_empty, arguments.key
    )
    folder = path if path.is_dir() else path.parent
    write_parquet(arguments.output, table.frame)
    write_json(
        arguments.record,
        {
            "source": arguments.source,
            "files": {
                file.relative_to(folder).as_posix(): sha256(file) for file in document_files(path)
            },
            "documents": len(table.frame),
            "dropped_empty": table.dropped_empty,
            "has_token_ids": "token_ids" in table.frame,
        },
    )


if __name__ == "__main__":
    run(main)
