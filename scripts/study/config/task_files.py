"""Task files of lm-evaluation-harness, as far as the workflow must know them before a job runs.

The workflow's own environment does not have the harness. What a file includes, the functions it
names and its local data make its results what they are, so they count with it.
"""

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lowbit.errors import InputError

TASK_FILES = {"popqa": Path("resources/tasks/popqa.yaml")}
"""Tasks that are defined here, relative to the repository root."""
HARNESS_TASKS = ("mmlu",)
"""Tasks that are taken from the harness as they are."""
SCRIPTS = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class TaskFile:
    """What a task file says, together with those it includes."""

    path: Path
    popularity: str | None
    """Column with the popularity of an item (`metadata.popularity`), if the task has one."""
    files: tuple[Path, ...]
    """The file itself, those it includes, Python files beside them and local data."""
    modules: tuple[str, ...]
    """Modules of this project that it names functions of: `lowbit.downstream.popqa`."""


@dataclass(frozen=True)
class _Function:
    """`!function module.name` in a file of `folder`."""

    folder: Path
    name: str

    @property
    def module(self) -> str:
        return self.name.rpartition(".")[0]


def task_file(task: str) -> TaskFile | None:
    """Read the file of a config's `task`; None for a task of the harness itself.

    Raises:
        InputError: there is no such file, or it defines no single task.
    """
    return None if task in HARNESS_TASKS else read_task_file(TASK_FILES.get(task, Path(task)))


def read_task_file(path: Path) -> TaskFile:
    """Read a task file.

    Raises:
        InputError: there is none, it is no YAML, includes what is not there, defines no single
            task, or names data files that are not there.
    """
    files: list[Path] = []
    content = _read(path, files)
    if "group" in content or not isinstance(content.get("task"), str):
        raise InputError(
            f"{path} must define one task, with its name as `task: <name>`, as "
            f"{TASK_FILES['popqa']} does; groups of tasks cannot be used"
        )
    functions = list(_functions(content))
    beside = [f.folder.joinpath(*f.module.split(".")).with_suffix(".py") for f in functions]
    files += [file for file in dict.fromkeys(beside) if file.is_file()]
    modules = dict.fromkeys(f.module for f in functions)
    return TaskFile(
        path=path,
        popularity=(content.get("metadata") or {}).get("popularity"),
        files=(*files, *_data_files(path, content)),
        modules=tuple(
            m for m in modules if SCRIPTS.joinpath(*m.split(".")).with_suffix(".py").exists()
        ),
    )


def _read(path: Path, files: list[Path]) -> dict[str, Any]:
    """Read a file and those it includes, whose keys it overrides; note all in `files`."""
    if not path.is_file():
        raise InputError(
            f"{path} does not exist; write {', '.join((*TASK_FILES, *HARNESS_TASKS))} or the path "
            "of a task file of lm-evaluation-harness"
        )
    if path in files:
        raise InputError(f"{path} includes itself")
    files.append(path)
    try:
        with open(path, encoding="utf-8") as stream:
            content = yaml.load(stream, _loader(path.parent))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML of a task: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} must be a mapping of keys, such as `task: my_task`")
    included = content.pop("include", [])
    merged: dict[str, Any] = {}
    for name in [included] if isinstance(included, str) else included:
        merged |= _read(path.parent / name, files)
    return merged | content


def _loader(folder: Path) -> type[yaml.SafeLoader]:
    """A loader that keeps `!function` as a name."""

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor(
        "!function", lambda loader, node: _Function(folder, loader.construct_scalar(node))
    )
    return Loader


def _functions(value: Any) -> Iterator[_Function]:
    """All functions that a value names, at any depth."""
    if isinstance(value, _Function):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _functions(each)


def _data_files(path: Path, content: dict[str, Any]) -> list[Path]:
    """Local files that the task's items are read from."""
    listed = (content.get("dataset_kwargs") or {}).get("data_files", [])
    by_split = listed.values() if isinstance(listed, dict) else [listed]
    names = [n for names in by_split for n in ([names] if isinstance(names, str) else names)]
    found = []
    for name in names:
        if "://" in name:  # not on this machine
            continue
        matching = sorted(file for file in glob.glob(name, recursive=True) if Path(file).is_file())
        if not matching:
            raise InputError(
                f"{path}: dataset_kwargs.data_files names {name}, which does not exist (looked for "
                f"in {Path.cwd()})"
            )
        found += map(Path, matching)
    return found
