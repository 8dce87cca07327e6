"""Reading the YAML files that a user writes."""

from pathlib import Path
from typing import Any

import yaml

from lowbit.errors import InputError


class _Loader(yaml.SafeLoader):
    """Plain YAML in which a key that stands twice is an error, not silently the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """Build the mapping; raise where a key repeats."""
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                line = key.start_mark.line + 1
                raise InputError(f"{self.name}:{line}: {key.value} stands twice; keep one")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_mapping(file: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        InputError: there is no such file, or it is no mapping, or a key stands twice.
    """
    if not file.is_file():
        raise InputError(f"there is no config file {file}")
    try:
        with open(file, encoding="utf-8") as stream:
            value = yaml.load(stream, _Loader)
    except yaml.YAMLError as error:
        raise InputError(f"{file} is not valid YAML: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{file} must be a mapping of keys such as `study: my_study`")
    return value
