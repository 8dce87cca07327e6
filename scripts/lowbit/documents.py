"""Document tables: reading local JSONL, Parquet and text into `doc_id, text, source`."""

from pathlib import Path

from lowbit.errors import InputError
from lowbit.sources import Source, embedded, find_source, on_disk

SOURCES: dict[str, Source] = {
    "demo": Source("demo", embedded, local=True),
    "path": Source("path:<file or folder>", on_disk, local=True),
}
SUFFIXES = (".jsonl", ".parquet", ".txt")


def locate_documents(source: str, demo: Path) -> Path:
    """Return the file or folder of a document source, fetching it where its kind needs that.

    Raises:
        InputError: unknown kind of source, or nothing there.
    """
    kind, argument = find_source(source, SOURCES)
    return kind.locate(argument, demo)


def document_files(path: Path) -> list[Path]:
    """The files to read, sorted by path: `path` itself, or those anywhere under a folder.

    Raises:
        InputError: there is none, or the file is of another kind.
    """
    if path.is_file():
        if path.suffix not in SUFFIXES:
            raise InputError(f"{path} is not a document file; give one of {', '.join(SUFFIXES)}")
        return [path]
    files = sorted(found for found in path.rglob("*") if found.suffix in SUFFIXES)
    if not files:
        raise InputError(f"{path} has no document files ({', '.join(SUFFIXES)})")
    return files
