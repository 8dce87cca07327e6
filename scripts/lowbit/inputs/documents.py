"""Where documents are from: sources, their files, and lists of ids.

`lowbit.inputs.document_tables` reads the files. Here is what a config check needs, by the standard
library only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lowbit.errors import InputError
from lowbit.files import write_text
from lowbit.inputs import hub
from lowbit.inputs.released_sets import ReleasedSets, parse_released
from lowbit.inputs.sources import Source, embedded, find_source, on_disk

PARQUET, TEXT = ".parquet", ".txt"
SUFFIXES = (".jsonl", PARQUET, TEXT, ".jsonl.gz", ".jsonl.zst", ".json.gz")
"""Of files that can be read; what is compressed is JSON Lines."""


@dataclass(frozen=True)
class DocumentFiles:
    """Files of documents on this machine."""

    folder: Path
    names: Sequence[str]
    """Below the folder."""


@dataclass(frozen=True)
class HubDocuments:
    """Files of a data set on the hub, as it lists them."""

    address: hub.Address
    listing: hub.Listing
    names: Sequence[str]

    @property
    def pinned(self) -> str:
        """The source, with its commit for a branch."""
        return str(self.address.at(self.listing.commit))

    @property
    def content(self) -> dict[str, str]:
        """SHA-256 of each file, or its blob's where the hub has no other."""
        files = {name: self.listing.files[name] for name in self.names}
        return {name: str(file.sha256 or file.blob_id) for name, file in files.items()}

    def fetch(self) -> DocumentFiles:
        """Download what the Hugging Face cache does not have."""
        return DocumentFiles(hub.download(self.address, self.names, self.listing), self.names)


Outline = DocumentFiles | HubDocuments | ReleasedSets
"""What is known of a source without fetching it. Remote ones have `pinned`, the source with its
commit, and `content`, which identifies what is there."""


def outline_documents(source: str, demo: Path) -> Outline:
    """Find the files of a source without fetching them.

    Raises:
        InputError: unknown kind of source, nothing there, nothing that can be read, or the hub
            cannot be asked.
    """
    kind, argument = find_source(source, SOURCES)
    return kind.locate(argument, demo)


def find_documents(source: str, demo: Path) -> DocumentFiles:
    """Find the files of a source, fetching them where they are not on this machine.

    Raises:
        InputError: as `outline_documents`, or they cannot be fetched, or are no files of documents.
    """
    found = outline_documents(source, demo)
    if isinstance(found, ReleasedSets):
        raise InputError(f"{source} holds token ids, which need a model's tokenizer to be read")
    return found.fetch() if isinstance(found, HubDocuments) else found


def pinned(source: str, demo: Path) -> str:
    """The source, on the hub with its commit for a branch."""
    found = outline_documents(source, demo)
    return source if isinstance(found, DocumentFiles) else found.pinned


def local_files(path: Path) -> DocumentFiles:
    """`path` itself, or the document files anywhere under a folder, sorted by path.

    Raises:
        InputError: there is none, or the file is of another kind.
    """
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise InputError(f"{path} is not a document file; give one of {', '.join(SUFFIXES)}")
        return DocumentFiles(path.parent, [path.name])
    names = [file.relative_to(path).as_posix() for file in sorted(path.rglob("*"))]
    return DocumentFiles(path, readable(names, str(path)))


def readable(names: Sequence[str], place: str) -> list[str]:
    """Those of the files that can be read as documents.

    Raises:
        InputError: there is none.
    """
    found = [name for name in names if name.endswith(SUFFIXES)]
    if not found:
        raise InputError(f"{place} has no document files ({', '.join(SUFFIXES)})")
    return found


def _on_hub(argument: str, demo: Path) -> HubDocuments:
    """Ask the hub, unless it was asked before, which files an address means."""
    address = hub.parse(argument, hub.DATASET)
    listing = hub.listing(address)
    return HubDocuments(address, listing, readable(hub.matching(address, listing), str(address)))


SOURCES: dict[str, Source[Outline]] = {
    "demo": Source(
        "demo", lambda argument, demo: local_files(embedded(argument, demo)), local=True
    ),
    "hub": Source("hub:<owner>/<data set>@<revision>/<file or pattern>", _on_hub, local=False),
    "path": Source(
        "path:<file or folder>",
        lambda argument, demo: local_files(on_disk(argument, demo)),
        local=True,
    ),
    "qerror": Source(
        "qerror:<model>/<method>", lambda argument, demo: parse_released(argument), local=False
    ),
}


def read_ids(path: Path) -> list[str]:
    """Read a file with one document id per line.

    Raises:
        InputError: it is not there or empty, or an id stands twice.
    """
    if not path.is_file():
        raise InputError(
            f"there is no file {path}; write path:<file with one document id per line>"
        )
    ids = [line for line in path.read_text(encoding="utf-8").split("\n") if line]
    if not ids:
        raise InputError(f"{path} is empty; it must hold one document id per line")
    seen: set[str] = set()
    for doc_id in ids:
        if doc_id in seen:
            raise InputError(f"{path} has {doc_id} twice; each id must stand once")
        seen.add(doc_id)
    return ids


def write_ids(path: Path, ids: Sequence[str]) -> None:
    """Write one id per line, as `read_ids` reads them."""
    write_text(path, "".join(f"{doc_id}\n" for doc_id in ids))
