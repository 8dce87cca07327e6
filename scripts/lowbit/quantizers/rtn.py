"""Round to nearest (RTN): the baseline that every other quantizer must beat."""

import torch
from torch import Tensor

from lowbit.quantization.quantized import GroupSize, QuantizedLayer, join_groups, split_groups

LIBRARIES = ("torch",)


def quantize(
    weight: Tensor, *, bits: int, group_size: GroupSize, symmetric: bool = False, axis: int = 1
) -> QuantizedLayer:
    """Round `weight` `[out, in]` to the nearest level of its group's uniform grid.

    Asymmetric, as in GPTQ and AWQ: the grid spans [min(w, 0), max(w, 0)] in 2**bits levels, with 0
    one of them. Symmetric, as in AWQ: it spans [-max|w|, max|w|] in 2**bits - 1 levels. The level
    that the other convention (GPTQ's) adds would clip one end of the range or leave the group's
    extremes off the grid; without it extremes, and so constant groups, are exact.
    """
    groups, extent = split_groups(weight.to(torch.float32), group_size, axis)
    low, high = groups.amin(extent, keepdim=True), groups.amax(extent, keepdim=True)
    if symmetric:
        scales = _scales(torch.maximum(-low, high), 2 ** (bits - 1) - 1, low == high)
        codes = (groups / scales).round_().add_(2 ** (bits - 1))
        return join_groups(codes, scales, bits=bits, axis=axis)
    span = high.clamp(min=0) - low.clamp(max=0)
    scales = _scales(span, 2**bits - 1, low == high)
    zeros = (-low.clamp(max=0) / scales).round_()
    codes = (groups / scales).round_().add_(zeros).clamp_(0, 2**bits - 1)
    return join_groups(codes, scales, zeros.to(torch.uint8), bits=bits, axis=axis)


def _scales(span: Tensor, steps: int, constant: Tensor) -> Tensor:
    """The grid's step; a constant group's is its size, so that it is one step from 0, exactly."""
    scales = torch.where(constant, span, span / steps)
    # A group of zeros, or one so small that the step underflows, is 0 on any grid.
    return torch.where(scales > 0, scales, 1.0)
