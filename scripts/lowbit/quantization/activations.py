"""Simulated quantization of activations: each value becomes its level, in the type it had.

The grid is symmetric, of 2**bits - 1 levels, uniform or companded (`companding`), between -range
and range: the largest magnitude at hand (dynamic), or one known from calibration (static).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from lowbit.errors import InputError
from lowbit.quantization.companding import Compander, divisor, largest_code
from lowbit.quantizers.log import MuLaw
from lowbit.quantizers.piecewise import PiecewiseLinear
from lowbit.quantizers.power import Power
from lowbit.quantizers.sigmoid import Sigmoid

UNIFORM = "uniform"
COMPANDERS: Mapping[str, Callable[..., Compander]] = {
    "power": Power,
    "sigmoid": Sigmoid,
    "log": MuLaw,
    "piecewise": PiecewiseLinear,
}
"""Non-uniform transforms by name; each is made of one parameter, which has a default."""
GRANULARITIES = ("tensor", "token", "group", "channel")
BITS = range(2, 9)


@dataclass(frozen=True)
class ActivationQuantization:
    """How the activations that enter a layer are quantized.

    Raises:
        InputError: settings that do not go together.
    """

    bits: int
    granularity: str
    """Values that share a range: all of a document (`tensor`), of a `token`, `group_size` channels
    of a token (`group`), or a `channel` of all documents (static only)."""
    group_size: int | None = None
    """Channels of a group, for granularity `group` only."""
    static: bool = False
    """Whether ranges are given, for all documents alike, and values beyond them clipped."""
    transform: str = UNIFORM
    """`uniform` or one of `COMPANDERS`."""
    parameter: float | None = None
    """The transform's parameter, such as the exponent of `power`; None for its default."""

    def __post_init__(self) -> None:
        for key, allowed in {
            "bits": BITS,
            "granularity": GRANULARITIES,
            "transform": (UNIFORM, *COMPANDERS),
        }.items():
            if getattr(self, key) not in allowed:
                listed = ", ".join(map(str, allowed))
                raise InputError(f"{key} is {getattr(self, key)!r}; write one of {listed}")
        static = {"token": False, "channel": True}.get(self.granularity, self.static)
        if self.static != static:
            raise InputError(f"granularity: {self.granularity} needs static: {str(static).lower()}")
        if (self.granularity == "group") != (self.group_size is not None):
            raise InputError("granularity: group and group_size go together; write both or neither")
        if self.group_size is not None and self.group_size < 1:
            raise InputError(f"group_size is {self.group_size}; write a number of channels")
        if self.transform == UNIFORM and self.parameter is not None:
            raise InputError("transform: uniform has no parameter; leave it out")
        _compander(self)

    @property
    def compander(self) -> Compander | None:
        """The transform; None for the uniform grid."""
        return _compander(self)


@lru_cache
def _compander(settings: ActivationQuantization) -> Compander | None:
    if settings.transform == UNIFORM:
        return None
    given = () if settings.parameter is None else (settings.parameter,)
    return COMPANDERS[settings.transform](*given)


@lru_cache
def _levels(compander: Compander, bits: int, device: torch.device) -> Tensor:
    """The levels from 0 up `[2**(bits - 1)]`, made once for all activations."""
    return compander.levels(bits)[largest_code(bits) :].to(device)


@torch.no_grad()
def quantize_activation(
    x: Tensor, settings: ActivationQuantization, largest: Tensor | None = None
) -> Tensor:
    """Replace every value by its level; same shape and type.

    The extremes, 0 and so constant tensors come back exactly. Documents do not affect each other.

    Args:
        x: finite activations `[batch, length, width]`. `[tokens, width]` will do but for dynamic
            ranges per tensor, which are those of one document `[length, width]` each.
        largest: static ranges, as `largest_magnitude` gives them; values beyond are clipped.

    Raises:
        InputError: ranges are missing or not wanted, or x has no such groups or documents.
    """
    if settings.static != (largest is not None):
        wanted = "needs" if settings.static else "takes no"
        raise InputError(f"static: {str(settings.static).lower()} {wanted} ranges of calibration")
    view, extent = _view(x.to(torch.promote_types(x.dtype, torch.float32)), settings)
    magnitude = view.abs()
    if largest is None:
        ranges = magnitude.amax(extent, keepdim=True)
        magnitude.div_(divisor(ranges))
    else:
        ranges = largest.to(view).unsqueeze(-1) if settings.group_size else largest.to(view)
        magnitude.div_(divisor(ranges)).clamp_(max=1)
    levels = _nearest(magnitude, settings).mul_(ranges).copysign_(view)
    return levels.reshape(x.shape).to(x.dtype)


def largest_magnitude(x: Tensor, settings: ActivationQuantization) -> Tensor:
    """The static ranges of these activations; those of several batches are their maximum.

    Returns:
        `[]` (tensor), `[width]` (channel) or `[width / group_size]` (group).

    Raises:
        InputError: the ranges of these settings are dynamic.
    """
    if not settings.static:
        raise InputError("static: false takes no ranges of calibration")
    view, _ = _view(x, settings)
    kept = {"tensor": None, "channel": view.dim() - 1, "group": view.dim() - 2}
    others = [d for d in range(view.dim()) if d != kept[settings.granularity]]
    return view.abs().amax(others)


def _view(x: Tensor, settings: ActivationQuantization) -> tuple[Tensor, tuple[int, ...]]:
    """x by groups where there are groups, and the dimensions over which a range extends."""
    if settings.granularity == "group":
        if x.shape[-1] % settings.group_size:
            raise InputError(
                f"group_size {settings.group_size} does not divide activations of {x.shape[-1]}"
            )
        return x.unflatten(-1, (-1, settings.group_size)), (-1,)
    if settings.granularity == "tensor" and not settings.static:
        if x.dim() != 3:
            raise InputError(
                f"granularity: tensor needs activations [batch, length, width], not "
                f"{list(x.shape)}: whose tokens these are is unknown; write granularity: token"
            )
        return x, (-2, -1)
    return x, (-1,)


def _nearest(normalised: Tensor, settings: ActivationQuantization) -> Tensor:
    """The levels of magnitudes in [0, 1]; may overwrite them."""
    half = largest_code(settings.bits)
    compander = settings.compander
    if compander is None:
        return normalised.mul_(half).round_().div_(half)
    steps = compander.steps(normalised, settings.bits).to(torch.int32)
    levels = _levels(compander, settings.bits, normalised.device).to(normalised.dtype)
    return levels.index_select(0, steps.flatten()).view(normalised.shape)
