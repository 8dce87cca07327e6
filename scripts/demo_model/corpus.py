"""Collect English technical prose from the installed, pinned packages and the standard library.

Docstrings are read from source with `ast` (nothing is imported), long descriptions from the
distributions' metadata. Every module is cut into passages at docstring boundaries, and a hash of
the module's name, never of a passage, decides whether it is held out.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import inspect
import json
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import yaml
from tqdm import tqdm

MINIMUM_DOCSTRING_CHARACTERS = 40
PASSAGE_CHARACTERS = 3000
HELDOUT_SHARE = 0.09
SKIPPED_PARTS = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
DOCSTRING_SETTERS = {"add_docstr", "_add_docstr", "add_newdoc"}
WORKERS = 2


@dataclass(frozen=True)
class Source:
    """A distribution as it is installed, or the standard library."""

    package: str
    version: str
    licence: str


@dataclass(frozen=True)
class Module:
    """One module's file, or a distribution's long description (`path` is None)."""

    name: str
    source: Source
    path: Path | None
    description: str = ""


def pinned_packages(environment: Path) -> list[str]:
    """Names of the distributions that an environment file pins with `==`, sorted.

    Without setuptools, which was not pinned yet when the corpus was made.
    """
    dependencies = yaml.safe_load(environment.read_text())["dependencies"]
    pins = next(item["pip"] for item in dependencies if isinstance(item, dict))
    names = {pin.split("==")[0].strip() for pin in pins} - {"setuptools"}
    return sorted(names, key=str.lower)


def licence_of(distribution: metadata.Distribution) -> str:
    """Licence as the metadata state it: expression, else short field, else classifiers."""
    fields = distribution.metadata
    stated = fields.get("License-Expression") or fields.get("License") or ""
    if stated and "\n" not in stated.strip() and len(stated) < 80:
        return stated.strip()
    classifiers = fields.get_all("Classifier") or []
    names = [item.split("::")[-1].strip() for item in classifiers if item.startswith("License")]
    return ", ".join(names) or stated.strip().split("\n")[0] or "not stated"


def dotted_name(path: Path) -> str:
    """`scipy/stats/__init__.py` -> `scipy.stats`."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def is_prose_source(path: Path) -> bool:
    """True for a Python file outside test folders."""
    return (
        path.suffix == ".py"
        and not SKIPPED_PARTS & set(path.parts)
        and not path.name.startswith("test_")
    )


def distribution_modules(name: str) -> Iterator[Module]:
    """The modules of an installed distribution and its long description."""
    distribution = metadata.distribution(name)
    # A local label (`2.13.0+cpu`) names a build; the prose is that of the release.
    version = distribution.version.split("+")[0]
    source = Source(distribution.metadata["Name"], version, licence_of(distribution))
    description = distribution.metadata.get_payload() or distribution.metadata["Description"] or ""
    yield Module(f"{name}.long_description", source, None, str(description))
    for file in distribution.files or []:
        if is_prose_source(Path(str(file))) and ".." not in file.parts:
            yield Module(dotted_name(Path(str(file))), source, Path(distribution.locate_file(file)))


def standard_library_modules() -> Iterator[Module]:
    """The modules of the running interpreter's standard library."""
    root = Path(sysconfig.get_path("stdlib"))
    source = Source("python", platform.python_version(), "PSF-2.0")
    for path in root.rglob("*.py"):
        relative = path.relative_to(root)
        if is_prose_source(relative):
            yield Module(dotted_name(relative), source, path)


def docstrings(tree: ast.AST) -> Iterator[str]:
    """Docstrings of a parsed module in source order, those set by `add_docstr` included."""
    owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, owners):
            yield ast.get_docstring(node) or ""
        elif isinstance(node, ast.Call):
            function = node.func
            name = getattr(function, "id", None) or getattr(function, "attr", None)
            if name in DOCSTRING_SETTERS:
                texts = (item.value for item in node.args if isinstance(item, ast.Constant))
                yield from (inspect.cleandoc(text) for text in texts if isinstance(text, str))


def tidy(text: str) -> str:
    """Drop trailing spaces and control characters; at most one empty line in a row."""
    text = re.sub(r"[^\S\n]+\n", "\n", text.replace("\r", "").expandtabs() + "\n")
    text = "".join(character for character in text if character == "\n" or character.isprintable())
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def module_texts(module: Module) -> list[str]:
    """The module's prose: its docstrings, or its long description as one text."""
    if module.path is None:
        found: Iterable[str] = [module.description]
    else:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # invalid escapes in other people's sources
                found = docstrings(ast.parse(module.path.read_bytes()))
        except (SyntaxError, ValueError, RecursionError):
            return []  # templates and deliberately broken fixtures hold no prose
    texts = (tidy(text) for text in found)
    return [text for text in texts if len(text) >= MINIMUM_DOCSTRING_CHARACTERS]


def split_long(text: str, limit: int = PASSAGE_CHARACTERS) -> Iterator[str]:
    """Cut a text longer than 1.5 `limit` characters between paragraphs into about `limit` each."""
    if len(text) <= 1.5 * limit:
        yield text
        return
    piece = ""
    for paragraph in text.split("\n\n"):
        piece = f"{piece}\n\n{paragraph}" if piece else paragraph
        if len(piece) >= limit:
            yield piece
            piece = ""
    if piece:
        yield piece


def passages(texts: Iterable[str], target: int = PASSAGE_CHARACTERS) -> list[str]:
    """Join texts until a passage has `target` characters; a short rest joins the one before it."""
    done: list[str] = []
    current = ""
    for text in texts:
        for piece in split_long(text, target):
            current = f"{current}\n\n{piece}" if current else piece
            if len(current) >= target:
                done.append(current)
                current = ""
    if current and done and len(current) < target // 4:
        done[-1] = f"{done[-1]}\n\n{current}"
    elif current:
        done.append(current)
    return done


def is_heldout(module_name: str, share: float = HELDOUT_SHARE) -> bool:
    """Stable split by module: a SHA-256 of the dotted name sends `share` of them to held-out."""
    digest = hashlib.sha256(module_name.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def content_hash(texts: Iterable[str]) -> str:
    """SHA-256 over the sorted texts, each ended by a zero byte."""
    digest = hashlib.sha256()
    for text in sorted(texts):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def read_modules(environment: Path) -> pd.DataFrame:
    """All passages: columns doc_id, text, module, package, version, licence, split."""
    modules = [item for name in pinned_packages(environment) for item in distribution_modules(name)]
    modules += standard_library_modules()
    modules.sort(key=lambda module: (module.source.package, module.name))
    with get_context("fork").Pool(WORKERS) as pool:
        found = pool.imap(module_texts, modules, chunksize=32)
        texts = list(tqdm(found, total=len(modules), desc="docstrings", unit="module"))
    return passage_table(zip(modules, texts, strict=True))


def passage_table(modules: Iterable[tuple[Module, list[str]]]) -> pd.DataFrame:
    """Passages of every module, each docstring kept only where it is met first."""
    seen: set[str] = set()
    rows = []
    for module, texts in modules:
        fresh = [text for text in dict.fromkeys(texts) if text not in seen]
        seen.update(fresh)
        split = "heldout" if is_heldout(module.name) else "training"
        for index, text in enumerate(passages(fresh)):
            doc_id = f"{module.source.package}/{module.name}#{index}"
            row = {"doc_id": doc_id, "text": text, "module": module.name, "split": split}
            rows.append(row | asdict(module.source))
    return pd.DataFrame(rows)


def manifest(table: pd.DataFrame) -> dict[str, object]:
    """Content hash, sizes and the counts of every source."""
    keys = ["package", "version", "licence"]
    counted = table.assign(characters=table["text"].str.len()).groupby(keys, as_index=False)
    sources = counted.agg(
        modules=("module", "nunique"), passages=("doc_id", "size"), characters=("characters", "sum")
    )
    return {
        "content_sha256": content_hash(table["text"]),
        "characters": int(table["text"].str.len().sum()),
        "bytes": int(table["text"].map(lambda text: len(text.encode())).sum()),
        "passages": table["split"].value_counts().sort_index().to_dict(),
        "modules": table.groupby("split")["module"].nunique().to_dict(),
        "sources": sources.to_dict("records"),
    }


def main() -> None:
    """Write `passages.parquet` and `corpus.json` into the build directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--environment", type=Path, required=True, help="file that pins packages")
    parser.add_argument("--passages", type=Path, required=True)
    parser.add_argument("--manifest", type=Path, required=True)
    arguments = parser.parse_args()
    table = read_modules(arguments.environment)
    arguments.passages.parent.mkdir(parents=True, exist_ok=True)
    table.to_parquet(arguments.passages, index=False)
    arguments.manifest.write_text(json.dumps(manifest(table), indent=1) + "\n")


if __name__ == "__main__":
    main()
