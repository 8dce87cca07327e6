"""Named sources of texts: `config/sources.yaml`, where each has copies to fall back on.

A copy that is gone from the hub is passed over for the next one. Which copy was taken, and why, is
held in `results/hub/sources.json`: studies go on with that copy until its entry there is deleted.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, ValidationError

from lowbit.errors import InputError
from lowbit.files import read_json, write_json
from lowbit.inputs import documents, hub
from lowbit.inputs.sources import find_source
from study.config.messages import explain, line_of
from study.config.sections import section_settings
from study.config.yaml_file import read_mapping

ARCHIVE = Path("config/sources.yaml")
HELD = hub.FOLDER / "sources.json"
"""Name -> the copy that is taken, and those that were passed over."""


def _check_copy(source: str) -> str:
    try:
        find_source(source, documents.SOURCES)
    except InputError as error:
        raise ValueError(str(error)) from None
    return source


class Copy(BaseModel):
    """One place where a text is."""

    model_config = section_settings({"source": "hub:allenai/c4@main/en/*.json.gz"})

    source: Annotated[str, AfterValidator(_check_copy)]
    """As `source` of `documents`."""
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None
    """Of the content of its only file, where that is known."""


class Entry(BaseModel):
    """A text with its copies."""

    model_config = section_settings(
        {"about": "C4", "licence": "ODC-BY", "primary": {"source": "hub:allenai/c4@main/en/*.gz"}}
    )

    about: str
    """What it is."""
    licence: str
    """Under which it may be used."""
    primary: Copy
    """The copy that is taken unless it is gone."""
    mirrors: list[Copy] = Field(default_factory=list)
    """Copies for that case, the first that is there."""
    text_column: str = "text"
    """Column or key of the text; a study's own `text_column` comes first."""
    id_column: str | None = None
    """Column or key of a unique id; a study's own `id_column` comes first."""


@dataclass(frozen=True)
class Found:
    """Where a text is read from."""

    source: str
    sha256: str | None = None
    """Of its only file, where that is known beforehand."""
    passed_over: Mapping[str, str] = field(default_factory=dict)
    """Copies that are gone -> why."""


def read_archive(file: Path = ARCHIVE) -> dict[str, Entry]:
    """Read and check the named sources.

    Raises:
        InputError: one line per mistake, each with file, line, key and what to write.
    """
    adapter = TypeAdapter(dict[str, Entry])
    try:
        return adapter.validate_python(read_mapping(file))
    except ValidationError as error:
        problems = explain(error, adapter.json_schema())
    lines = [f"{line_of(key, [file])}{'.'.join(key)} {text}" for key, text in problems]
    raise InputError(f"{file} cannot be used:\n" + "\n".join(lines))


def columns_of(source: Any) -> dict[str, str]:
    """What an entry says of the columns of its texts; nothing for a source that is not named."""
    name = _named(source)
    entry = read_archive().get(name) if name else None
    return entry.model_dump(include={"text_column", "id_column"}) if entry else {}


@cache
def locate(source: str, demo: Path) -> Found:
    """Where a source is read from: itself, or the copy of a named one that is there.

    Raises:
        InputError: no such entry; no copy is there; or the hub refuses one, which is no reason to
            take another.
    """
    name = _named(source)
    if name is None:
        return Found(source)
    entries = read_archive()
    if name not in entries:
        raise InputError(f"{source} is no entry of {ARCHIVE}; write one of {', '.join(entries)}")
    copies = [entries[name].primary, *entries[name].mirrors]
    held = read_json(HELD) if HELD.is_file() else {}
    if name not in held or held[name]["source"] not in [copy.source for copy in copies]:
        held[name] = asdict(_first_there(source, copies, demo))
        write_json(HELD, dict(sorted(held.items())))
    return Found(**held[name])


def _first_there(source: str, copies: list[Copy], demo: Path) -> Found:
    """The first copy that is there; where the hub cannot be reached, none of its copies is."""
    gone: dict[str, str] = {}
    no_way: hub.Unreachable | None = None
    for copy in copies:
        if no_way and copy.source.startswith("hub:"):
            continue
        try:
            documents.outline_documents(copy.source, demo)
        except (hub.NotThere, hub.Unreachable) as error:
            gone[copy.source] = str(error)
            no_way = error if isinstance(error, hub.Unreachable) else no_way
        else:
            return Found(copy.source, copy.sha256, gone)
    if no_way:
        raise no_way
    listed = "; ".join(gone.values())
    raise InputError(f"{source}: no copy that {ARCHIVE} names is there: {listed}")


def _named(source: Any) -> str | None:
    """The entry that a source names."""
    prefix = "named:"
    return (
        source.removeprefix(prefix)
        if isinstance(source, str) and source.startswith(prefix)
        else None
    )
