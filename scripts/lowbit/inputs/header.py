"""The header of a safetensors file: what tensors it holds and where. Needs the standard library."""

import json
import struct
from pathlib import Path
from typing import Any

from lowbit.errors import InputError

LARGEST_HEADER = 100_000_000
"""Bytes; the limit the safetensors library sets."""


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Read a safetensors header: tensor name -> `dtype`, `shape`, `data_offsets`.

    Raises:
        InputError: not a safetensors file, or one whose size is not what its header says.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else LARGEST_HEADER + 1
        text = file.read(length) if length <= LARGEST_HEADER else b""
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        ends = [_end(**entry) for entry in header.values()]
    except (ValueError, TypeError, AttributeError):
        raise InputError(
            f"{path} ({size} bytes) is not a whole safetensors file: its header cannot be read; "
            "copy or download it again"
        ) from None
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise InputError(
            f"{path} has {size} bytes but its header promises {expected}: it was cut off or "
            "damaged; copy or download it again"
        )
    return header


def _end(dtype: str, shape: list[int], data_offsets: list[int]) -> int:
    """Where a tensor's data ends; `ValueError` or `TypeError` if its entry is not one."""
    first, end = data_offsets
    if not 0 <= first <= end or not isinstance(dtype, str) or any(size < 0 for size in shape):
        raise ValueError(data_offsets)
    return end
