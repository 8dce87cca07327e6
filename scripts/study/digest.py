"""A digest of a script and of every module of ours that it imports.

Snakemake sees a changed script, but not a changed module that the script imports. The digest goes
into each rule as a parameter, so a change in `scripts/lowbit/` reruns exactly the stages that
import it.
"""

import ast
import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import yaml


def code_digest(script: Path, extra: Sequence[str] = ()) -> str:
    """12 hex digits over the script and the closure of the local modules it imports.

    Found statically: imports at any level, also inside functions and under `if TYPE_CHECKING`.
    Local is what lies beside the script (its folder is `sys.path[0]` when it runs).

    Args:
        script: `scripts/<name>.py`.
        extra: modules imported by a computed name, such as `lowbit.quantizers.rtn`.

    Raises:
        FileNotFoundError: the script is not there.
        ModuleNotFoundError: a module of `extra` is not a local one.
    """
    root = script.parent
    waiting = [script, *(file for module in extra for file in _required(root, module))]
    seen: set[Path] = set()
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            waiting.extend(_imported_files(root, file))
    digest = hashlib.sha256()
    for file in sorted(seen):
        digest.update(f"{file.relative_to(root).as_posix()}\0{_content_hash(file)}\n".encode())
    return digest.hexdigest()[:12]


def environment_digest(file: Path) -> str:
    """12 hex digits over what an environment file installs; comments and layout do not count."""
    content = yaml.safe_load(file.read_bytes())
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def _required(root: Path, module: str) -> list[Path]:
    files = _module_files(root, module)
    place = root.joinpath(*module.split("."))
    if not files or files[-1] not in (place / "__init__.py", place.with_name(f"{place.name}.py")):
        raise ModuleNotFoundError(f"{module} is not a module below {root}")
    return files


@cache
def _content_hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@cache
def _imported_files(root: Path, file: Path) -> list[Path]:
    """Local files that importing `file` may run, packages' `__init__` included."""
    tree = ast.parse(file.read_bytes(), filename=str(file))
    package = file.relative_to(root).with_suffix("").parts[:-1]
    names = {name for node in ast.walk(tree) for name in _imported_names(node, package)}
    return [found for name in sorted(names) for found in _module_files(root, name)]


def _imported_names(node: ast.AST, package: tuple[str, ...]) -> Iterator[str]:
    """Dotted names an import statement may load; `from a import b` may mean the module a.b."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package[: len(package) - node.level + 1] if node.level else ()
        base = ".".join([*above, *([node.module] if node.module else [])])
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)


def _module_files(root: Path, module: str) -> list[Path]:
    """The files below `root` that `import module` runs; empty for what is not ours."""
    files = []
    place = root
    for part in module.split("."):
        place /= part
        init, single = place / "__init__.py", place.with_name(f"{part}.py")
        files += [file for file in (init, single) if file.is_file()][:1]
        if not place.is_dir():
            break
    return files
