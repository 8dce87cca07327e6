"""GPTQ (arXiv 2210.17323) by auto-gptq, the package that made it known, block by block.

Its own `GPTQ` object quantizes each layer.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from unittest.mock import patch

import torch
from torch import nn

from lowbit.quantization.blocks import CalibratedBlock, QuantizedBlock
from lowbit.quantization.grid import layer_on_grid
from lowbit.quantization.quantized import GroupSize, QuantizedLayer
from lowbit.quantizers.gptq_layers import (
    Settings,
    check_finite,
    not_positive_definite,
    quantize_in_order,
)

logging.getLogger("auto_gptq").setLevel(logging.ERROR)  # it says that no CUDA kernel was built
with warnings.catch_warnings(record=True):  # deprecations in a package that has been archived
    from auto_gptq.quantization.gptq import GPTQ

LIBRARIES = ("auto-gptq",)


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
    """Quantize every linear layer of the block; its weights in `block.module` are replaced.

    With `activation_order`, groups are runs of the columns in the order of their quantization, so
    the layer has a `permutation`.

    Raises:
        InputError: no calibration text reaches a layer, activations are not finite, or the Hessian
            is not positive definite.
        GateError: the codes do not give the library's weight back.
    """
    settings = Settings(bits, group_size, symmetric, activation_order, damping)
    return quantize_in_order(block, partial(_prepare, settings), partial(_solve, settings))


def _prepare(settings: Settings, linear: nn.Linear) -> GPTQ:
    solver = GPTQ(linear)
    solver.quantizer.configure(settings.bits, perchannel=True, sym=settings.symmetric, mse=False)
    return solver


def _solve(settings: Settings, solver: GPTQ, name: str) -> QuantizedLayer:
    """Let the library quantize one layer, and take the codes out of what it returns."""
    check_finite(solver.H, name)
    try:
        with _synchronizing_only_with_cuda():
            scales, zeros, group_of_input = solver.fasterquant(
                percdamp=settings.damping,
                group_size=-1 if settings.group_size == "row" else settings.group_size,
                actorder=settings.activation_order,
            )
    except torch.linalg.LinAlgError as error:
        raise not_positive_definite(name, settings.damping) from error
    weight = solver.layer.weight
    solver.free()
    return layer_on_grid(
        weight,
        scales,
        None if settings.symmetric else zeros,
        bits=settings.bits,
        name=name,
        library="auto-gptq",
        permutation=settings.permutation(group_of_input),
    )


@contextmanager
def _synchronizing_only_with_cuda() -> Iterator[None]:
    """The library waits for the GPU, to time itself, even where there is none."""
    if torch.cuda.is_available():
        yield
    else:
        with patch.object(torch.cuda, "synchronize", lambda: None):
            yield
