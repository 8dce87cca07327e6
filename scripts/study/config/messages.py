"""Config errors as one readable line each: file and line, key, what is wrong, what to write."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

Key = tuple[str, ...]
"""Keys from the top of the config downwards: `("methods", "rtn3", "bits")`."""

KINDS = {
    "int_type": "a whole number",
    "float_type": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "dict_type": "a mapping of names to settings",
    "model_type": "a mapping of keys to values",
    "model_attributes_type": "a mapping of keys to values",
}


def explain(error: ValidationError, schema: Mapping[str, Any]) -> list[tuple[Key, str]]:
    """Turn Pydantic's errors into `(key, text)`; `schema` is the JSON schema of the same model."""
    return [_explain_one(one, schema) for one in error.errors()]


def _explain_one(error: Mapping[str, Any], schema: Mapping[str, Any]) -> tuple[Key, str]:
    location = tuple(str(part) for part in error["loc"])
    key, section, parent = _walk(location, schema)
    kind, value = error["type"], error["input"]
    if kind == "extra_forbidden":
        return key, _unknown(key[-1], list(parent.get("properties", {})))
    if kind == "missing":
        return key, f"is missing{_written(key, _examples(key, section, parent))}"
    if kind == "union_tag_not_found":
        known = ", ".join(section["discriminator"]["mapping"])
        return key, f"has no quantizer (known: {known}){_written(key, section['examples'])}"
    if kind == "union_tag_invalid":
        known = list(section["discriminator"]["mapping"])
        told = f"is {value['quantizer']!r}, not a quantizer: {_suggest(value['quantizer'], known)}"
        return (*key, "quantizer"), told
    if kind == "value_error":
        return key, str(error["ctx"]["error"])
    wrong = f"is {'empty' if value is None else repr(value)}, but {_expected(error)}"
    return key, wrong + _written(key, _examples(key, section, parent))


def _expected(error: Mapping[str, Any]) -> str:
    """What should stand there, from the type of the error or in Pydantic's words."""
    if error["type"] in KINDS:
        return f"must be {KINDS[error['type']]}"
    if error["type"] == "too_short":
        return f"needs at least {error['ctx']['min_length']} entries"
    message = error["msg"].removeprefix("Input should ").removeprefix("String should ")
    return f"must {message}"


def _walk(location: Key, schema: Mapping[str, Any]) -> tuple[Key, dict, dict]:
    """Follow Pydantic's location; return the user's key, its schema and its parent's.

    The location has parts that the user never wrote: the quantizer's name, which picks a branch of
    the union, and `[key]` where the name itself is wrong.
    """
    key: list[str] = []
    node = parent = dict(schema)
    for part in location:
        mapping = node.get("discriminator", {}).get("mapping", {})
        if part in mapping:
            node = _resolve({"$ref": mapping[part]}, schema)
        elif part != "[key]":
            key.append(part)
            children = node.get("properties", {})
            parent, node = node, children.get(part, node.get("additionalProperties") or {})
            node = _resolve(node if isinstance(node, dict) else {}, schema)
    branches = node.get("discriminator", {}).get("mapping", {})
    for branch in list(branches.values())[:1]:
        node = {**node, "examples": _resolve({"$ref": branch}, schema)["examples"]}
    return tuple(key), node, parent


def _resolve(node: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    if "$ref" not in node:
        return dict(node)
    return dict(schema["$defs"][node["$ref"].rsplit("/", 1)[1]]) | {
        name: value for name, value in node.items() if name != "$ref"
    }


def _unknown(name: str, known: Sequence[str]) -> str:
    return f"is not a key that exists: {_suggest(name, known)}"


def _suggest(name: Any, known: Sequence[str]) -> str:
    """Name the nearest known word, or all of them."""
    near = difflib.get_close_matches(str(name), known, n=1)
    return f"did you mean {near[0]}?" if near else f"write one of {', '.join(known)}"


def _examples(key: Key, section: Mapping[str, Any], parent: Mapping[str, Any]) -> list[Any]:
    """Values the key might have: its parent's examples first, then its own or its branches'."""
    values = [example[key[-1]] for example in parent.get("examples", []) if key[-1] in example]
    return values + section.get("examples", [])


def _written(key: Key, values: Sequence[Any]) -> str:
    """`; write for example key: value` with the first value, or nothing where there is none."""
    if not values:
        return ""
    text = yaml.safe_dump(values[0], default_flow_style=True, sort_keys=False, width=1000)
    plain = text.strip().removesuffix("...").strip()  # YAML ends a bare value with an end mark
    return f"; write for example `{key[-1]}: {plain}`"


def line_of(key: Key, files: Sequence[Path]) -> str:
    """`file:line: ` of the key or the nearest section above it, in the last file that has it."""
    best = (0, "")
    for file in files:
        root = yaml.compose(file.read_text(encoding="utf-8"))
        depth, line = _find(root, key)
        if depth and depth >= best[0]:
            best = (depth, f"{os.path.relpath(file)}:{line}: ")
    return best[1]


def _find(node: yaml.Node | None, key: Key) -> tuple[int, int]:
    """How many parts of the key the file has, and the line (from 1) of the last of these."""
    depth, line = 0, 0
    for part in key:
        if not isinstance(node, yaml.MappingNode):
            break
        found = [pair for pair in node.value if pair[0].value == part]
        if not found:
            break
        name, node = found[-1]
        depth, line = depth + 1, name.start_mark.line + 1
    return depth, line
