"""Settings that reach a script as one JSON option."""

import dataclasses
import json
from typing import Any, TypeVar

from lowbit.errors import InputError

Settings = TypeVar("Settings")


def parse_json(text: str, option: str) -> Any:
    """Parse the JSON text of a command-line option; raise `InputError` naming the option."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{option} is not JSON ({error}): {text!r}") from error


def parse_settings(cls: type[Settings], text: str, option: str) -> Settings:
    """Build the dataclass `cls` from a JSON object; unknown or missing keys are an `InputError`."""
    value = parse_json(text, option)
    if not isinstance(value, dict):
        raise InputError(f'{option} must be a JSON object such as {{"key": 1}}, not {text!r}')
    names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    unknown = [key for key in value if key not in names]
    if unknown:
        raise InputError(f"{option} has unknown keys {unknown}: allowed are {names}")
    try:
        return cls(**value)
    except TypeError as error:
        raise InputError(f"{option}: {error}") from error
