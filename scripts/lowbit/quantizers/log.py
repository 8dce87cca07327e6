"""Logarithm: a uniform grid for the mu-law of the weight, as in telephony (ITU-T G.711)."""

from dataclasses import dataclass
from math import log1p
from typing import Literal

from torch import Tensor

from lowbit.errors import InputError
from lowbit.quantization.companding import Compander, quantize_companded
from lowbit.quantization.quantized import GroupSize, QuantizedLayer

LIBRARIES = ("torch",)
MU = 255.0
"""That of telephony."""
FITTED = [2.0 ** (n / 2) for n in range(-8, 33)]
"""Of which the best is taken; the first is all but the uniform grid."""


@dataclass(frozen=True)
class MuLaw(Compander):
    """f(u) = sign(u) ln(1 + mu |u|) / ln(1 + mu)."""

    mu: float = MU

    def __post_init__(self) -> None:
        if not 0.01 <= self.mu <= 1e6:
            raise InputError(f"mu is {self.mu}; write a number from 0.01 to 1000000")

    def compress(self, magnitude: Tensor) -> Tensor:
        """f on [0, 1]."""
        return magnitude.mul_(self.mu).log1p_().div_(log1p(self.mu))

    def expand(self, magnitude: Tensor) -> Tensor:
        """((1 + mu)**y - 1) / mu."""
        return magnitude.mul(log1p(self.mu)).expm1().div(self.mu)


def quantize(
    weight: Tensor, *, bits: int, group_size: GroupSize, mu: float | Literal["fit"] = MU
) -> QuantizedLayer:
    """Round the mu-law of `weight` `[out, in]`, by groups, to the uniform grid."""
    tried = FITTED if mu == "fit" else [mu]
    return quantize_companded(weight, map(MuLaw, tried), bits=bits, group_size=group_size)
