"""Weights beside their quantized values, for questions about single errors."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lowbit.engine.engine import Engine
from lowbit.engine.streams import block_parameters
from lowbit.experiments.projections import projections
from lowbit.experiments.simulating import WEIGHT_QUANTIZERS
from lowbit.experiments.simulation_settings import TENSOR
from lowbit.perturbation.noise import generator
from lowbit.quantization.quantized import dequantize

SAMPLE = 2**18
"""Weights of a matrix that are looked at, drawn at random where it has more."""


class Rounded(NamedTuple):
    """Weights of one projection and what became of them, float32 `[n]`."""

    module: str
    """`0.self_attn.q_proj`: block, counted from 0, and projection."""
    bits: int
    transform: str
    x: np.ndarray
    quantized: np.ndarray


def rounded_weights(
    engine: Engine, bits: Sequence[int], transforms: Sequence[str]
) -> Iterator[Rounded]:
    """Quantize the weights of every projection, one range for a whole matrix.

    Args:
        transforms: of `lowbit.experiments.simulation_settings.TRANSFORMS`.
    """
    for index, block in enumerate(engine.decoder.blocks):
        parameters = block_parameters(engine.decoder, engine.full, index)
        for name in projections(block):
            module = f"{index}.{name}"
            x = parameters[f"{name}.weight"].detach().float().cpu()
            places = _places(x, module)
            for width, transform in product(bits, transforms):
                quantize = WEIGHT_QUANTIZERS[transform]
                quantized = dequantize(quantize(x, bits=width, group_size=TENSOR))
                both = (each.flatten()[places].numpy() for each in (x, quantized))
                yield Rounded(module, width, transform, *both)


def _places(x: Tensor, module: str) -> Tensor | slice:
    """Which weights are looked at: the same for every grid."""
    if x.numel() <= SAMPLE:
        return slice(None)
    random = generator(x.device, "rounding", module)
    return torch.randint(x.numel(), (SAMPLE,), generator=random)
