"""Sizes of texts before they are read: of local files, and of what the hub lists."""

from collections.abc import Mapping
from dataclasses import dataclass

from lowbit.inputs.documents import DocumentFiles, HubDocuments, Outline
from lowbit.inputs.released_sets import ReleasedSets

RATIOS = {".parquet": 0.75, ".gz": 1.1, ".zst": 1.2, ".jsonl": 0.4, ".txt": 0.4}
"""Bytes of documents.parquet per byte of a source, by the end of its name: of Parquet measured on
the embedded documents; of others assumed, from what they are compressed with."""
DOCUMENT = 4000
"""Bytes of one long document in documents.parquet; assumed: 2,000 tokens, compressed."""


@dataclass(frozen=True)
class TextSource:
    """A source of documents."""

    files: Mapping[str, int]
    """Name -> bytes."""
    is_downloaded: bool
    candidates: int | None = None
    """Documents that are kept at most; None: all."""

    @property
    def download(self) -> int:
        """Bytes that are fetched."""
        return sum(self.files.values()) if self.is_downloaded else 0

    @property
    def kept(self) -> float:
        """Bytes of documents.parquet."""
        found = sum(
            size * next((ratio for end, ratio in RATIOS.items() if name.endswith(end)), 0.4)
            for name, size in self.files.items()
        )
        return found if self.candidates is None else min(found, DOCUMENT * self.candidates)


def text_source(outline: Outline, candidates: int | None) -> TextSource | None:
    """What is known of a source; None where nothing is before it is fetched."""
    if isinstance(outline, ReleasedSets):
        return None
    if isinstance(outline, HubDocuments):
        sizes = {name: outline.listing.files[name].bytes for name in outline.names}
    elif isinstance(outline, DocumentFiles):
        sizes = {name: (outline.folder / name).stat().st_size for name in outline.names}
    return TextSource(sizes, isinstance(outline, HubDocuments), candidates)
