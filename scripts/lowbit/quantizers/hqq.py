"""Half-quadratic quantization, by its authors' package (github.com/mobiusml/hqq)."""

from math import prod

import torch
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear, Quantizer
from torch import Tensor

from lowbit.errors import InputError
from lowbit.quantization.quantized import GroupSize, QuantizedLayer, join_groups, split_groups

LIBRARIES = ("hqq",)

_PACKED_TOGETHER = {2: 4, 4: 2}
"""Rows of groups that the package packs into one, for the bits where it does not pad."""


def quantize(weight: Tensor, *, bits: int, group_size: GroupSize, axis: int = 1) -> QuantizedLayer:
    """Quantize `weight` `[out, in]` with the package on the CPU in float32.

    `dequantize` of the result equals `HQQLinear.dequantize` to the last bit.

    Raises:
        InputError: the group size does not fit the weight and the axis.
    """
    return extract(quantize_linear(weight, bits=bits, group_size=group_size, axis=axis))


def quantize_linear(weight: Tensor, *, bits: int, group_size: GroupSize, axis: int) -> HQQLinear:
    """Return the package's own layer for `weight` `[out, in]`, without a bias."""
    if group_size == "row" and axis == 0:
        raise InputError('group_size "row" needs axis 1; with axis 0 write a number')
    groups, (extent,) = split_groups(weight, group_size, axis)
    if axis == 1 and prod(groups.shape[:2]) % _PACKED_TOGETHER.get(bits, 1):
        raise InputError(
            f"hqq packs {bits}-bit groups in sets of {_PACKED_TOGETHER[bits]}, and a weight of "
            f"{list(weight.shape)} has {prod(groups.shape[:2])}; write a smaller group_size"
        )
    config = BaseQuantizeConfig(nbits=bits, group_size=groups.shape[extent], axis=axis)
    return HQQLinear.from_weights(
        weight, bias=None, quant_config=config, compute_dtype=torch.float32, device="cpu"
    )


def extract(linear: HQQLinear) -> QuantizedLayer:
    """Take codes, scales and zeros out of the package's layer."""
    meta = linear.meta
    (rows, columns), size, axis = meta["shape"], meta["group_size"], meta["axis"]
    view = (rows, columns // size, size) if axis == 1 else (size, rows // size, columns)
    kept = (rows, columns // size, 1) if axis == 1 else (1, rows // size, columns)
    unpacked = Quantizer.unpack[meta["packing"]](linear.W_q.data, dtype=torch.uint8)
    # Three-bit words hold ten rows, so the last ones may be padding.
    codes = unpacked.flatten()[: rows * columns].view(view)
    return join_groups(
        codes, meta["scale"].view(kept), meta["zero"].view(kept), bits=meta["nbits"], axis=axis
    )
