"""The tensors of a published checkpoint, by name, and what its config says of them."""

from collections import Counter
from math import gcd
from pathlib import Path

import torch
from torch import Tensor

from lowbit.errors import InputError
from lowbit.inputs.models import read_config
from lowbit.inputs.tensor_file import TensorFile
from lowbit.quantization.bitstream import row_bytes, unpack
from lowbit.quantization.published.description import quantization_config, weight_names

SMALLEST_GROUP = 8
"""Weights; uneven groups become equal ones of their common divisor, if it is at least this."""


class Checkpoint:
    """A quantized checkpoint's config and tensors; a tensor is read when it is asked for.

    Raises:
        InputError: unknown format, pickled weights, or a file that is not whole.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.config = quantization_config(directory)
        self.model_config = read_config(directory)
        files = [TensorFile(directory / name) for name in weight_names(directory)]
        self._places = {name: file for file in files for name in file.names}

    @property
    def names(self) -> list[str]:
        """Names of all tensors, sorted."""
        return sorted(self._places)

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def tensor(self, name: str) -> Tensor:
        """Read one tensor.

        Raises:
            InputError: there is none of that name, or it cannot be read.
        """
        if name not in self._places:
            raise InputError(
                f"{self.directory} has no tensor {name}, which its layer needs; the checkpoint is "
                "incomplete or damaged, download it again"
            )
        return self._places[name].read(name)

    def matrix(self, name: str, dtype: torch.dtype, rows: int | None = None) -> Tensor:
        """Read a tensor `[rows, any]` of a known type.

        Raises:
            InputError: it has another shape or type.
        """
        found = self.tensor(name)
        if found.dtype != dtype or found.dim() != 2 or (rows and found.shape[0] != rows):
            expected = f"[{rows or '*'}, *] of {str(dtype).removeprefix('torch.')}"
            raise self.damaged(name, expected)
        return found

    def scales(self, name: str, *shape: int) -> Tensor:
        """Read scales of a known shape, whatever float type they have, as float32.

        Raises:
            InputError: another shape, no floats, or values that are not finite.
        """
        found = self.tensor(name)
        if not found.is_floating_point() or tuple(found.shape) != shape:
            raise self.damaged(name, f"{list(shape)} of a float type")
        if not found.isfinite().all():
            raise InputError(f"{self.directory}: {name} has values that are NaN or infinite")
        return found.float()

    def damaged(self, name: str, expected: str) -> InputError:
        """The error for a tensor that is not what its layer needs."""
        found = self.tensor(name)
        kind = str(found.dtype).removeprefix("torch.")
        return InputError(
            f"{self.directory}: {name} is {list(found.shape)} of {kind}, not {expected}; the "
            "checkpoint is damaged, or in a format that is not read"
        )

    def codes(self, name: str, words: Tensor, bits: int, columns: int) -> Tensor:
        """Unpack int32 words `[rows, words]`, each row a little-endian bit stream.

        Raises:
            InputError: too few or too many words for so many codes.
        """
        if words.shape[1] != -(-columns * bits // 32):
            raise self.damaged(name, f"the packed words of {columns} codes of {bits} bits")
        stream = words.contiguous().view(torch.uint8)
        return unpack(stream[:, : row_bytes(columns, bits)], bits, columns)


def equal_groups(name: str, groups: Tensor) -> tuple[int, Tensor | None, Tensor]:
    """Lay columns out in groups of one size, from the group that each column belongs to.

    Where groups differ in size, they are cut into pieces of their common divisor, which then share
    their values.

    Args:
        name: of the tensor, for the message.
        groups: `[in]`, the group of each column.

    Returns:
        The size, the permutation (None where columns already lie group by group), and `[pieces]`,
        the group that each piece has its values from.

    Raises:
        InputError: pieces would be smaller than `SMALLEST_GROUP`.
    """
    counts = Counter(groups.tolist())
    size = gcd(*counts.values())
    if size < min(SMALLEST_GROUP, *counts.values()):
        told = ", ".join(f"{k}: {n}" for k, n in sorted(counts.items())[:4])
        raise InputError(
            f"{name} puts the columns into groups of uneven sizes ({told}, ...) without a common "
            f"divisor of at least {SMALLEST_GROUP}; such a layer is not read"
        )
    order = torch.argsort(groups, stable=True)
    ordered = bool((order == torch.arange(len(groups))).all())
    return size, None if ordered else order.int(), groups[order][::size].long()
