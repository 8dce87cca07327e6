"""The files of a model, in a local directory or on the hub, as far as a config check reads them.

Uses the standard library only.
"""

import json
from pathlib import Path
from typing import Any, Protocol

from lowbit.errors import InputError
from lowbit.files import read_json
from lowbit.inputs.header import read_header


class ModelFiles(Protocol):
    """What may be asked of a model's files; `str` of it is its place, for messages."""

    def __contains__(self, name: str) -> bool:
        """Whether there is a file of this name."""

    def names(self) -> list[str]:
        """All files, sorted; subfolders are left out."""

    def json(self, name: str) -> Any:
        """The content of a JSON file."""

    def header(self, name: str) -> dict[str, dict[str, Any]]:
        """Tensors of a safetensors file: name -> `dtype` and `shape`."""


class LocalFiles:
    """The files of a local directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def __str__(self) -> str:
        return str(self.directory)

    def __contains__(self, name: str) -> bool:
        return (self.directory / name).is_file()

    def names(self) -> list[str]:
        """All files, sorted; subfolders are left out."""
        return sorted(path.name for path in self.directory.iterdir() if path.is_file())

    def json(self, name: str) -> Any:
        """Read JSON; a broken file is the user's, not ours."""
        path = self.directory / name
        try:
            return read_json(path)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise InputError(
                f"{path} is not valid JSON ({error}); copy or download it again"
            ) from None

    def header(self, name: str) -> dict[str, dict[str, Any]]:
        """Read a safetensors header; raises `InputError` where the file is not whole."""
        return read_header(self.directory / name)


def files_of(place: Path | ModelFiles) -> ModelFiles:
    """The files of a local directory, or of what the hub lists."""
    return LocalFiles(place) if isinstance(place, Path) else place
