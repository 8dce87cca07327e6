"""GPTQ (arXiv 2210.17323) by llm-compressor, the library of the vLLM project, block by block.

As in its sequential pipeline, the Hessians of all layers of a block are taken at once, with the
block itself in full precision and all blocks before it quantized; then each layer is quantized.
(The other libraries take a layer's Hessian after the layers that feed it within the block.) Scales
and zeros come from the weight before GPTQ moves it, by the library's minimum and maximum.
"""

from functools import partial

import torch
from compressed_tensors.quantization import QuantizationArgs
from llmcompressor.modifiers.gptq.gptq_quantize import quantize_weight
from llmcompressor.modifiers.gptq.helpers import (
    accumulate_hessian,
    make_empty_hessian,
    prepare_batch,
)
from torch import Tensor, nn

from lowbit.quantization.blocks import CalibratedBlock, QuantizedBlock
from lowbit.quantization.quantized import GroupSize, QuantizedLayer
from lowbit.quantizers.gptq_layers import check_finite, feed, not_positive_definite
from lowbit.quantizers.llm_compressor import find_grid, quantization_args, signed_layer

LIBRARIES = ("llmcompressor", "compressed-tensors")


@torch.no_grad()
def quantize_block(
    block: CalibratedBlock,
    *,
    bits: int,
    group_size: GroupSize,
    symmetric: bool = False,
    activation_order: bool = False,
    damping: float = 0.01,
) -> QuantizedBlock:
    """Quantize every linear layer of the block.

    With `activation_order`, columns are quantized in the order of their inputs' size but groups
    stay runs of the original columns (the library's `actorder="weight"`, also called static; it
    has no other any more), so there is no `permutation`.

    Raises:
        InputError: no calibration text reaches a layer, activations are not finite, or the Hessian
            is not positive definite, where the library would round to nearest instead.
        GateError: the codes do not give the library's weight back.
    """
    args = quantization_args(bits, group_size, symmetric, activation_order)
    hessians = _hessians(block)
    return QuantizedBlock(
        {
            name: _solve(linear, *hessians[name], block.full_name(name), args, damping)
            for name, linear in block.linears.items()
        }
    )


def _hessians(block: CalibratedBlock) -> dict[str, tuple[Tensor, Tensor]]:
    """Per layer, the sum of its inputs' products over the calibration text, and the sequences."""
    sums = {
        name: (make_empty_hessian(linear), torch.zeros((), device=linear.weight.device))
        for name, linear in block.linears.items()
    }
    feed(block, {name: partial(_add, block.linears[name], *sums[name]) for name in sums})
    missing = [name for name, (_, samples) in sums.items() if samples == 0]
    if missing:
        raise block.not_reached(missing, "GPTQ")
    return sums


def _add(
    linear: nn.Linear, hessian: Tensor, samples: Tensor, inputs: Tensor, output: Tensor
) -> None:
    """Add a batch to the Hessian and to the number of sequences; the library does so in place."""
    accumulate_hessian(inputs, linear, hessian, samples)


def _solve(
    linear: nn.Linear,
    hessian: Tensor,
    samples: Tensor,
    name: str,
    args: QuantizationArgs,
    damping: float,
) -> QuantizedLayer:
    """Let the library quantize one layer, and take the codes out of what it returns."""
    check_finite(hessian, name)
    weights, hessians, scales, zeros, _ = prepare_batch(
        [linear], [find_grid(linear, args)], {linear: hessian}, {linear: samples}
    )
    quantized, _, rounded = quantize_weight(
        weights, hessians, scales, zeros, None, args, percdamp=damping
    )
    if rounded.any():
        raise not_positive_definite(name, damping)
    return signed_layer(quantized[0], scales[0], zeros[0], args, name)
