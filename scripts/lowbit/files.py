"""Atomic, byte-deterministic writing of results, and their hashes."""

import csv
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it takes its place only if the block succeeds.

    A killed process leaves `<path>.<process>.partial`, never a half-written `<path>`, and one that
    outlived its killed parent cannot write into the file of the job that replaces it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8."""
    with atomic(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, keys in the order given (the order often means something)."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def link_directory(link: Path, directory: Path) -> None:
    """Point `link` at the directory: relative where it was given so, or the project cannot move."""
    link.parent.mkdir(parents=True, exist_ok=True)
    target = directory
    if not directory.is_absolute():  # real paths: results/ may itself be a link to another disk
        target = Path(os.path.relpath(directory.resolve(), link.parent.resolve()))
    partial = link.with_name(f"{link.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target, target_is_directory=True)
    os.replace(partial, link)


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_parquet(path: str | Path, frame: "pd.DataFrame") -> None:
    """Write a table as Parquet (zstd), without the index."""
    with atomic(path) as partial:
        frame.to_parquet(partial, index=False, compression="zstd")


def write_csv(path: str | Path, frame: "pd.DataFrame") -> None:
    """Write a table as CSV; floats with 9 significant digits, enough to restore a float32."""
    with atomic(path) as partial:
        frame.to_csv(partial, index=False, float_format="%.9g", quoting=csv.QUOTE_MINIMAL)


def read_table(path: str | Path) -> "pd.DataFrame":
    """Read a table that `write_parquet` or `write_csv` wrote."""
    import pandas as pd

    path = Path(path)
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def sha256(path: str | Path) -> str:
    """Hash a file's content; 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
