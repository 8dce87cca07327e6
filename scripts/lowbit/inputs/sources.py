"""Where models and documents come from: the `kind:argument` text of the config.

`SOURCES` of `lowbit.inputs.models` and of `lowbit.inputs.documents` holds the kinds. A new kind is
one function and one line there.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from lowbit.errors import InputError

Found = TypeVar("Found")


@dataclass(frozen=True)
class Source(Generic[Found]):
    """One kind of source."""

    form: str
    """How the config writes it, for messages: `path:<directory>`."""
    locate: Callable[[str, Path], Found]
    """From the text after the colon and the embedded demo's place to the local file or folder, or
    to what else says where it is."""
    local: bool
    """Whether `locate` only looks at local files, so that a config check may call it."""


def find_source(text: str, kinds: Mapping[str, Source[Found]]) -> tuple[Source[Found], str]:
    """Split `kind:argument` and look the kind up.

    Raises:
        InputError: unknown kind, or an argument where none belongs, or none where one does.
    """
    kind, colon, argument = text.partition(":")
    forms = " or ".join(sorted(source.form for source in kinds.values()))
    if kind not in kinds:
        raise InputError(f"{text!r} is not a known source; write {forms}")
    if bool(argument) != (":" in kinds[kind].form) or (colon and not argument):
        raise InputError(f"{text!r} is not a source; write {kinds[kind].form}")
    return kinds[kind], argument


def embedded(argument: str, demo: Path) -> Path:
    """The place of the embedded demo."""
    if not demo.exists():
        raise InputError(f"the embedded demo is not at {demo}; restore it with git checkout {demo}")
    return demo


def on_disk(argument: str, demo: Path) -> Path:
    """An existing local file or folder; `~` is the home directory."""
    path = Path(argument).expanduser()
    if not path.exists():
        raise InputError(f"path:{argument} does not exist (looked for {path.absolute()})")
    return path
