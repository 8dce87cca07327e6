"""The four-bit types of bitsandbytes as codes, codebook and scales."""

import bitsandbytes.functional as bnb
import torch
from torch import Tensor

from lowbit.errors import InputError
from lowbit.quantization.quantized import QuantizedLayer, dequantize


def quantize_4bit(
    weight: Tensor, kind: str, bits: int, group_size: int, double_quantization: bool
) -> QuantizedLayer:
    """Quantize `weight` `[out, in]` with the library; `dequantize` gives its tensor bit for bit.

    With double quantization the scales kept are what the library makes of its own quantized ones.

    Args:
        kind: `nf4` or `fp4`.

    Raises:
        InputError: other bits than 4, or a group size that does not divide the rows.
    """
    rows, columns = weight.shape
    if bits != 4:
        raise InputError(f"bitsandbytes has bits: 4 only, not {bits}")
    if columns % group_size:
        raise InputError(f"group_size {group_size} does not divide a dimension of {columns}")
    packed, state = bnb.quantize_4bit(
        weight.contiguous(),
        blocksize=group_size,
        compress_statistics=double_quantization,
        quant_type=kind,
    )
    halves = packed.view(-1, 1)  # two codes a byte, the first in the upper half
    codes = torch.cat([halves >> 4, halves & 15], 1).view(rows, columns)
    layer = QuantizedLayer(
        codes=codes.to(torch.uint8),
        bits=4,
        group_size=group_size,
        scales=_scales(state).view(rows, -1),
        codebook=state.code.float(),
    )
    if not torch.equal(dequantize(layer), bnb.dequantize_4bit(packed, state)):
        raise InputError("codes do not give the weight that bitsandbytes computed")
    return layer


def _scales(state: bnb.QuantState) -> Tensor:
    """Largest magnitudes of the blocks, as the library's dequantization takes them."""
    if not state.nested:
        return state.absmax.float()
    return (bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset).float()
