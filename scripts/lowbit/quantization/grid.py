"""Codes of weights that a library has already put on their grid."""

import torch
from torch import Tensor

from lowbit.errors import GateError
from lowbit.quantization.quantized import QuantizedLayer, dequantize


def layer_on_grid(
    weight: Tensor,
    scales: Tensor,
    zeros: Tensor | None,
    *,
    bits: int,
    name: str,
    library: str,
    permutation: Tensor | None = None,
    folded_scale: Tensor | None = None,
    output_scale: Tensor | None = None,
) -> QuantizedLayer:
    """Take the codes out of a weight `[out, in]` whose values are (code - zero) * scale.

    Args:
        scales: `[out, groups]`.
        zeros: the codes that mean 0, like `scales`; None for 2**(bits - 1).
        permutation: groups are runs of the columns in this order `[in]`.
        folded_scale, output_scale: as in `QuantizedLayer`.

    Raises:
        GateError: the codes do not give the weight back to the last bit.
    """
    weight, scales = weight.detach().float().cpu(), scales.float().cpu()
    ordered = weight if permutation is None else weight[:, permutation.cpu()]
    size = weight.shape[1] // scales.shape[1]
    steps = (ordered.unflatten(1, (-1, size)) / scales.unsqueeze(2)).round()
    middle = 2 ** (bits - 1) if zeros is None else zeros.float().cpu().unsqueeze(2)
    codes = (steps + middle).flatten(1)
    layer = QuantizedLayer(
        codes=codes.to(torch.uint8),
        bits=bits,
        group_size=size,
        scales=scales,
        zeros=None if zeros is None else zeros.cpu().to(torch.uint8),
        permutation=None if permutation is None else permutation.cpu().to(torch.int32),
        folded_scale=folded_scale,
        output_scale=output_scale,
    )
    if codes.max() >= 2**bits or not torch.equal(dequantize(layer), weight):
        raise GateError(f"the codes of {name} do not give {library}'s weight back")
    return layer
