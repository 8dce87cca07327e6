"""Companding: a uniform grid in a transformed domain gives a non-uniform grid for the values.

u = x / max|x| lies in [-1, 1]; f(u) is rounded to the nearest of the 2 K + 1 levels k / K with
K = 2**(bits - 1) - 1; the value is max|x| f^-1(k / K). Levels are the codebook f^-1(k / K), but
rounding happens before the inverse: where f is curved, that is not always the nearest level. The
extremes, 0 and so constant groups are levels, and nothing is clipped.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor

from lowbit.quantization.quantized import (
    GroupSize,
    QuantizedLayer,
    dequantize,
    join_groups,
    split_groups,
)


class Compander(ABC):
    """An odd, increasing map f of [-1, 1] onto itself, given by what it does to [0, 1]."""

    @abstractmethod
    def compress(self, magnitude: Tensor) -> Tensor:
        """f on [0, 1]; may overwrite its argument."""

    @abstractmethod
    def expand(self, magnitude: Tensor) -> Tensor:
        """The inverse of f on [0, 1]."""

    def forward(self, values: Tensor) -> Tensor:
        """f of values in [-1, 1], any shape."""
        return self.compress(values.abs()).copysign_(values)

    def inverse(self, values: Tensor) -> Tensor:
        """The inverse of f for values in [-1, 1], any shape."""
        return self.expand(values.abs()).copysign_(values)

    def levels(self, bits: int) -> Tensor:
        """The codebook f^-1(k / K), ascending from -1 through 0 to 1, float32 `[2**bits - 1]`."""
        half = largest_code(bits)
        return self.inverse(torch.arange(-half, half + 1, dtype=torch.float64) / half).float()

    def steps(self, magnitude: Tensor, bits: int) -> Tensor:
        """k, a whole number from 0 to K, for each value in [0, 1]; may overwrite its argument."""
        return self.compress(magnitude).mul_(largest_code(bits)).round_()


def largest_code(bits: int) -> int:
    """K, the number of levels above 0 of a symmetric grid with 2**bits - 1 levels."""
    return 2 ** (bits - 1) - 1


def divisor(largest: Tensor) -> Tensor:
    """The largest magnitudes, or 1 where all is 0, so that what is divided stays 0."""
    return torch.where(largest > 0, largest, 1.0)


def best_compander(
    weight: Tensor, candidates: Iterable[Compander], *, bits: int, group_size: GroupSize
) -> Compander:
    """Return the candidate that quantizes `weight` `[out, in]` with the least squared error.

    Of equals the first. All are tried, because the error as a function of a compander's parameter
    has many small minima beside the one that is meant.
    """

    def error(compander: Compander) -> float:
        layer = companded(weight, compander, bits=bits, group_size=group_size)
        difference = weight - dequantize(layer)
        return torch.linalg.vector_norm(difference, dtype=torch.float64).item()

    only, *others = candidates
    return min((only, *others), key=error) if others else only


def companded(
    weight: Tensor, compander: Compander, *, bits: int, group_size: GroupSize
) -> QuantizedLayer:
    """Divide each group of `weight` by its largest magnitude; nearest level in the domain of f."""
    groups, extent = split_groups(weight.to(torch.float32), group_size)
    magnitude = groups.abs()
    scales = magnitude.amax(extent, keepdim=True)
    steps = compander.steps(magnitude.div_(divisor(scales)), bits)
    codes = steps.copysign_(groups).add_(largest_code(bits))
    return join_groups(codes, scales, codebook=compander.levels(bits), bits=bits)


def quantize_companded(
    weight: Tensor, candidates: Iterable[Compander], *, bits: int, group_size: GroupSize
) -> QuantizedLayer:
    """Quantize `weight` `[out, in]` by the candidate with the least squared error."""
    best = best_compander(weight, candidates, bits=bits, group_size=group_size)
    return companded(weight, best, bits=bits, group_size=group_size)
