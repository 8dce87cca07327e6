"""Tensors of a safetensors file, read one by one into memory of their own.

`safetensors.safe_open` (0.8) maps the whole file as private and writable, which Linux counts as
memory that may be needed: it refuses a file larger than memory and swap, and a limit on a job's
data takes the whole file from it. Weights that are read block by block are in just such files.
"""

import weakref
from pathlib import Path

import torch
from torch import Tensor

from lowbit.errors import InputError
from lowbit.inputs.header import read_header

FLOATS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
}
"""What unquantized weights are stored in."""
DTYPES = FLOATS | {
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""What quantized ones are stored in as well."""


class TensorFile:
    """Reads tensors of the file at `path`; nothing but its header is kept in memory.

    Raises:
        InputError: not a whole safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._header = read_header(path)
        ends = [entry["data_offsets"][1] for entry in self._header.values()]
        self._start = path.stat().st_size - max(ends, default=0)
        self._file = open(path, "rb")  # noqa: SIM115 (closed with this object)
        weakref.finalize(self, self._file.close)

    @property
    def names(self) -> list[str]:
        """All tensors of the file."""
        return list(self._header)

    def stored(self, name: str) -> str:
        """The type that a tensor is stored in, as safetensors calls it: F32, U8."""
        return self._header[name]["dtype"]

    def read(self, name: str) -> Tensor:
        """Read one tensor.

        Raises:
            InputError: its type is none of `DTYPES`, or its bytes are more or fewer than its shape
                needs.
        """
        entry = self._header[name]
        if entry["dtype"] not in DTYPES:
            raise InputError(
                f"{self.path}: {name} is stored as {entry['dtype']}; what is read is "
                f"{', '.join(DTYPES)}"
            )
        tensor = torch.empty(entry["shape"], dtype=DTYPES[entry["dtype"]])
        first, end = entry["data_offsets"]
        self._file.seek(self._start + first)
        found = end - first
        if found == tensor.nbytes:
            found = self._file.readinto(tensor.view(-1).view(torch.uint8).numpy())
        if found != tensor.nbytes:
            raise InputError(
                f"{self.path}: {name} has {found} bytes and its shape {entry['shape']} of "
                f"{entry['dtype']} needs {tensor.nbytes}: the file is damaged; copy or download it "
                "again"
            )
        return tensor
