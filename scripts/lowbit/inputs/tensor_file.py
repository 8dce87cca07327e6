"""Tensors of a safetensors file, read one by one into memory of their own.

`safetensors.safe_open` (0.8) maps the whole file as private and writable, which Linux counts as
memory that may be needed: it refuses a file larger than memory and swap, and a limit on a job's
data takes the whole file from it. A model that is read block by block has just such files.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lowbit.errors import InputError
from lowbit.inputs.models import read_header

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""What unquantized weights are stored in."""


class TensorFile:
    """Reads tensors of the file at `path`; nothing but its header is kept.

    Raises:
        InputError: not a whole safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header = read_header(path)
        ends = [entry["data_offsets"][1] for entry in self._header.values()]
        self._start = path.stat().st_size - max(ends, default=0)

    @property
    def names(self) -> list[str]:
        """All tensors of the file."""
        return list(self._header)

    def read(self, name: str) -> Tensor:
        """Read one tensor.

        Raises:
            InputError: it is of a type that unquantized weights do not have.
        """
        entry = self._header[name]
        if entry["dtype"] not in _DTYPES:
            raise InputError(
                f"{self.path}: {name} is stored as {entry['dtype']}, and engine.mode: stream reads "
                f"only {', '.join(_DTYPES)}. Write engine.mode: resident."
            )
        dtype = _DTYPES[entry["dtype"]]
        integer = np.dtype(f"<i{dtype.itemsize}")  # NumPy has no bfloat16
        first, end = entry["data_offsets"]
        data = np.fromfile(
            self.path, integer, (end - first) // dtype.itemsize, offset=self._start + first
        )
        return torch.from_numpy(data.reshape(entry["shape"])).view(dtype)
