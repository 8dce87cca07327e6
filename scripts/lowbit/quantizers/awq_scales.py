"""What the libraries of AWQ have in common: scales moved between layers, and what they change."""

import torch
from torch import Tensor

from lowbit.errors import InputError
from lowbit.quantization.blocks import CalibratedBlock
from lowbit.quantization.quantized import relative_error

TOLERANCE = 1e-4
"""Relative change of the block's output by scales alone: far above float32 noise."""

Found = tuple[str, tuple[str, ...], Tensor]
"""The module of the block that is divided, the layers that are multiplied, and the scales."""


def other_parameters(block: CalibratedBlock) -> dict[str, Tensor]:
    """Norms and biases, copied to the CPU."""
    parameters = block.module.named_parameters()
    return {name: p.detach().cpu().clone() for name, p in parameters if p.dim() == 1}


def changed_parameters(block: CalibratedBlock, before: dict[str, Tensor]) -> dict[str, Tensor]:
    """The norms and biases that are not what they were."""
    after = other_parameters(block)
    return {name: after[name] for name in before if not torch.equal(after[name], before[name])}


def first_output(block: CalibratedBlock) -> Tensor:
    """The block's output on the first batch of the full-precision stream."""
    return block.run(*next(iter(block.inputs("full"))))


def check_output(block: CalibratedBlock, expected: Tensor, library: str) -> None:
    """Before anything is rounded, scales must have left the block's first output as it was.

    Raises:
        InputError: they have not; names the library and the architecture.
    """
    error = relative_error(expected, first_output(block)) or 0.0
    if not error <= TOLERANCE:
        raise InputError(
            f"{library}'s scales change the output of block {block.index} by {error:.2g} before "
            f"anything is rounded ({TOLERANCE:g} is allowed): its table for "
            f"{block.model.config.model_type} does not fit this model; use another quantizer or "
            "backend"
        )


def scales_by_layer(
    block: CalibratedBlock, found: list[Found]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Per layer, what its columns were multiplied by and what its rows were divided by."""
    folded, divided = {}, {}
    for before, names, scales in found:
        scales = scales.float().cpu()
        folded |= dict.fromkeys(names, scales)
        if before in block.linears:
            # Of a layer that makes queries, keys and values at once, the last rows are divided.
            rows = torch.ones(block.linears[before].out_features)
            rows[-len(scales) :] = scales
            divided[before] = rows
    return folded, divided
