"""Sigmoid: a uniform grid for a logistic function of the weight, centred and scaled to [-1, 1]."""

from dataclasses import dataclass
from math import tanh
from typing import Literal

from torch import Tensor

from lowbit.errors import InputError
from lowbit.quantization.companding import Compander, quantize_companded
from lowbit.quantization.quantized import GroupSize, QuantizedLayer

LIBRARIES = ("torch",)
STEEPNESS = 3.0
FITTED = [n / 4 for n in range(1, 49)]
"""Of which the best is taken; the first is all but the uniform grid."""


@dataclass(frozen=True)
class Sigmoid(Compander):
    """f(u) = (2 s(a u) - 1) / (2 s(a) - 1), s the logistic function: tanh(a u / 2) / tanh(a / 2).

    The steepness a is how much the logistic's argument changes from 0 to the largest magnitude.
    """

    steepness: float = STEEPNESS

    def __post_init__(self) -> None:
        if not 0.1 <= self.steepness <= 20:
            raise InputError(f"steepness is {self.steepness}; write a number from 0.1 to 20")

    def compress(self, magnitude: Tensor) -> Tensor:
        """f on [0, 1]; PyTorch's logistic function is faster than its tanh."""
        logistic = magnitude.mul_(self.steepness).sigmoid_()
        return logistic.mul_(2).sub_(1).div_(tanh(self.steepness / 2))

    def expand(self, magnitude: Tensor) -> Tensor:
        """(2 / a) artanh(y tanh(a / 2))."""
        return magnitude.mul(tanh(self.steepness / 2)).atanh().mul(2 / self.steepness)


def quantize(
    weight: Tensor,
    *,
    bits: int,
    group_size: GroupSize,
    steepness: float | Literal["fit"] = STEEPNESS,
) -> QuantizedLayer:
    """Round the sigmoid of `weight` `[out, in]`, by groups, to the uniform grid."""
    tried = FITTED if steepness == "fit" else [steepness]
    return quantize_companded(weight, map(Sigmoid, tried), bits=bits, group_size=group_size)
