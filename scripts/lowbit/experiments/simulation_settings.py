"""Which simulated quantizations of weights and activations are tried. No PyTorch is needed here.

W4A16 stands for weights of 4 bits and unquantized activations. Weights alone are tried with every
transform and granularity. With quantized activations, weights have one scale per output row, both
are of the same transform, and the granularity of the activations varies.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import product

UNQUANTIZED = 16
UNIFORM, POWER = "uniform", "power"
TENSOR, ROW, GROUP, TOKEN = "tensor", "row", "group", "token"
NONE = "-"
ASYMMETRIC = "uniform asymmetric"
UNIFORMS = (UNIFORM, ASYMMETRIC)
TRANSFORMS = (
    *UNIFORMS,
    POWER,
    "square root",
    "power fitted",
    "sigmoid",
    "sigmoid fitted",
    "log",
    "log fitted",
    "piecewise",
    "piecewise fitted",
    "nf",
    "lloyd_max",
)
"""What is done to the uniform grid; `power` is the paper's cube root. Fitted: its parameter is that
of the least squared error in each matrix; else it is stated where the quantizer is. Symmetric
uniform grids and those that are made of them have 2**bits - 1 levels, `uniform asymmetric`, `nf`
and `lloyd_max` 2**bits."""
OF_ACTIVATIONS = (UNIFORM, POWER, "sigmoid", "log", "piecewise")
"""Those that need not be fitted to the values, so that activations can be quantized by them."""
SETTING = re.compile(r"W(\d+)A(\d+)")


@dataclass(frozen=True)
class Simulation:
    """One way to quantize the projections of all blocks."""

    weight_bits: int
    activation_bits: int
    """16: unquantized."""
    transform: str
    """One of `TRANSFORMS`."""
    weights_per: str
    """What has one scale: `tensor`, `row` or `group`."""
    activations_per: str = NONE
    """`tensor` (one document), `token`, `group`, or `static tensor`: one for all, from calibration
    text."""

    @property
    def setting(self) -> str:
        """W4A16."""
        return f"W{self.weight_bits}A{self.activation_bits}"

    def __str__(self) -> str:
        """All that tells it from others; the name of its stream."""
        return ", ".join(str(getattr(self, field.name)) for field in fields(self))


def list_simulations(
    settings: Sequence[str], transforms: Sequence[str], of_activations: Sequence[str]
) -> list[Simulation]:
    """List what is tried.

    Args:
        settings: such as W4A16.
        transforms: of weights alone.
        of_activations: of weights and activations alike; some of `OF_ACTIVATIONS`.
    """
    found = []
    for setting in settings:
        weight_bits, activation_bits = map(int, SETTING.fullmatch(setting).groups())
        bits = weight_bits, activation_bits
        if activation_bits == UNQUANTIZED:
            kinds = product(transforms, (TENSOR, ROW, GROUP), (NONE,))
        else:
            kinds = product(of_activations, (ROW,), (f"static {TENSOR}", TENSOR, TOKEN, GROUP))
        found += [Simulation(*bits, *kind) for kind in kinds]
    return found
