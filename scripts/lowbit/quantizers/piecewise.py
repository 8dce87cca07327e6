"""Piecewise linear: two uniform grids, a fine one around 0 and a coarse one for the tails.

As PWLQ (arXiv 2002.00104), which gives half of the levels to each and takes the break point of the
least error; but with one symmetric code for both, so that no level stands twice.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from lowbit.errors import InputError
from lowbit.quantization.companding import Compander, quantize_companded
from lowbit.quantization.quantized import GroupSize, QuantizedLayer

LIBRARIES = ("torch",)
UNIFORM = 0.5
"""The break point that leaves one grid."""
FITTED = [n / 100 for n in range(1, 51)]
"""Break points of which the best is taken; the last is the uniform grid."""


@dataclass(frozen=True)
class PiecewiseLinear(Compander):
    """f takes [0, b] to [0, 1/2] and [b, 1] to [1/2, 1], with b the break point."""

    break_point: float = 0.25

    def __post_init__(self) -> None:
        if not 0.01 <= self.break_point <= UNIFORM:
            raise InputError(f"break_point is {self.break_point}; write a number from 0.01 to 0.5")

    def compress(self, magnitude: Tensor) -> Tensor:
        """f on [0, 1]: the lesser of the two lines, as the inner one is the steeper."""
        outer = magnitude.sub(1).mul_(0.5 / (1 - self.break_point)).add_(1)
        return magnitude.mul_(0.5 / self.break_point).minimum(outer)

    def expand(self, magnitude: Tensor) -> Tensor:
        """The greater of the two lines' inverses."""
        outer = magnitude.sub(1).mul(2 * (1 - self.break_point)).add(1)
        return magnitude.mul(2 * self.break_point).maximum(outer)


def quantize(
    weight: Tensor,
    *,
    bits: int,
    group_size: GroupSize,
    break_point: float | Literal["fit"] = "fit",
) -> QuantizedLayer:
    """Round `weight` `[out, in]`, by groups, to a grid that is finer below the break point.

    The break point is a share of each group's largest magnitude, one for the layer.
    """
    points = FITTED if break_point == "fit" else [break_point]
    return quantize_companded(
        weight, map(PiecewiseLinear, points), bits=bits, group_size=group_size
    )
