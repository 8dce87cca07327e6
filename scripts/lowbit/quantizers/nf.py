"""NormalFloat (NF): levels at the quantiles of a normal distribution (QLoRA, arXiv 2305.14314).

NF4 is bitsandbytes' data type; NF3 and the others follow its construction.
"""

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from lowbit.errors import InputError
from lowbit.quantization.quantized import GroupSize, QuantizedLayer, join_groups, split_groups

LIBRARIES = ("torch",)


def codebook(bits: int) -> Tensor:
    """Return the 2**bits levels of NF, ascending from -1 through 0 to 1, float32.

    Normal quantiles at even distances from `offset` to .5, 2**(bits - 1) positive and one fewer
    negative, and zero; divided by the largest. `offset` is 1 - delta, with delta the mean of
    1 / 2**(bits + 1) and 1 / (2 (2**bits - 1)). It is rounded to seven digits and spread in float32
    because bitsandbytes' `create_normal_map` does so: NF4 equals its table to the last bit.
    """
    delta = (1 / 2 ** (bits + 1) + 1 / (2 * (2**bits - 1))) / 2
    offset, half = round(1 - delta, 7), 2 ** (bits - 1)
    positive = ndtri(torch.linspace(offset, 0.5, half + 1)[:-1].double().numpy())
    negative = -ndtri(torch.linspace(offset, 0.5, half)[:-1].double().numpy())
    levels = torch.from_numpy(np.sort(np.concatenate([positive, [0.0], negative]))).float()
    return levels / levels.max()


def quantize(
    weight: Tensor, *, bits: int, group_size: GroupSize, double_quantization: bool = False
) -> QuantizedLayer:
    """Divide each group of `weight` `[out, in]` by its largest magnitude; take the nearest level.

    Where the group size divides the row, groups are bitsandbytes' blocks, and the reciprocal is
    taken as it does, so that no weight between two levels falls to the other side.

    Raises:
        InputError: double quantization, which only bitsandbytes does.
    """
    if double_quantization:
        raise InputError("double_quantization: true needs backend: bitsandbytes")
    groups, extent = split_groups(weight.to(torch.float32), group_size)
    scales = groups.abs().amax(extent, keepdim=True)
    levels = codebook(bits)
    midpoints = (levels[1:] + levels[:-1]) / 2
    normalised = groups * (1.0 / scales.clamp(min=1e-38))
    codes = torch.bucketize(normalised, midpoints, out_int32=True)
    return join_groups(codes, scales, codebook=levels, bits=bits)
