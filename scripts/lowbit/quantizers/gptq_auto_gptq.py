"""GPTQ (arXiv 2210.17323) by auto-gptq, the library that made it common.

Its `GPTQ` object quantizes one layer; the walk through the model is ours, so that a run can be
interrupted and one block at a time is held. Order and inputs are the library's own with
`true_sequential`: layers that read the same activation together, in the order of execution, each
seeing what the layers before it became.
"""

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from unittest import mock

import torch
from torch import Tensor, nn

from lowbit.errors import InputError
from lowbit.quantization.blocks import CalibratedBlock, QuantizedBlock
from lowbit.quantization.quantized import GroupSize, QuantizedLayer, dequantize

logging.getLogger("auto_gptq").setLevel(logging.ERROR)
os.environ.pop("DEBUG", None)  # the library prints and computes more where this is set

from auto_gptq.quantization.gptq import GPTQ  # noqa: E402

LIBRARIES = ("auto-gptq",)


@torch.no_grad()
def quantize_block(
    block: CalibratedBlock,
    *,
    bits: int,
    group_size: GroupSize,
    symmetric: bool,
    activation_order: bool,
    damping: float,
) -> QuantizedBlock:
    """Quantize a block's layers on the activations that reach them through quantized blocks.

    Raises:
        InputError: a layer's Hessian is not positive definite.
    """
    layers = {}
    for names in reading_the_same(block):
        solvers = {name: _solver(block.linears[name], bits, symmetric) for name in names}
        _accumulate(block, solvers)
        for name, solver in solvers.items():
            layers[name] = _quantize(
                solver, f"{block.index}.{name}", bits, group_size, activation_order, damping
            )
    return QuantizedBlock(layers)


def reading_the_same(block: CalibratedBlock) -> list[list[str]]:
    """Groups of layers that are called with the same tensor, in the order of execution."""
    calls: list[tuple[Tensor, list[str]]] = []

    def note(name: str, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if calls and calls[-1][0] is arguments[0]:
            calls[-1][1].append(name)
        else:
            calls.append((arguments[0], [name]))

    hidden_states, call = next(block.inputs("quantized"))
    _run_hooked(block, {name: partial(note, name) for name in block.linears}, hidden_states, call)
    return [names for _, names in calls]


def _solver(linear: nn.Linear, bits: int, symmetric: bool) -> GPTQ:
    solver = GPTQ(linear)
    solver.quantizer.configure(bits, perchannel=True, sym=symmetric, mse=False)
    return solver


def _accumulate(block: CalibratedBlock, solvers: dict[str, GPTQ]) -> None:
    """Show every solver the inputs of its layer, batch by batch."""

    def add(solver: GPTQ, module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        solver.add_batch(arguments[0], None)

    hooks = {name: partial(add, solver) for name, solver in solvers.items()}
    for hidden_states, call in block.inputs("quantized"):
        _run_hooked(block, hooks, hidden_states, call)


def _run_hooked(block: CalibratedBlock, hooks: dict[str, Callable], *arguments: object) -> None:
    with ExitStack() as stack:
        for name, hook in hooks.items():
            stack.callback(block.linears[name].register_forward_pre_hook(hook).remove)
        block.run(*arguments)


def _quantize(
    solver: GPTQ,
    name: str,
    bits: int,
    group_size: GroupSize,
    activation_order: bool,
    damping: float,
) -> QuantizedLayer:
    """Let the library solve for one layer, which changes its weight; return the codes."""
    rows, columns = solver.layer.weight.shape
    size = columns if group_size == "row" else int(group_size)
    order = torch.argsort(torch.diag(solver.H), descending=True) if activation_order else None
    dead = torch.diag(solver.H) == 0
    if activation_order and dead.any():  # the library sorts after it has set dead columns to 1
        order = torch.argsort(torch.diag(solver.H).masked_fill(dead, 1), descending=True)
    # The library waits for a GPU at the end, even where there is none.
    waits = mock.patch("torch.cuda.synchronize") if not torch.cuda.is_available() else ExitStack()
    try:
        with waits:
            scales, zeros, _ = solver.fasterquant(
                percdamp=damping,
                group_size=-1 if group_size == "row" else size,
                actorder=activation_order,
            )
    except torch.linalg.LinAlgError as error:
        raise InputError(
            f"the Hessian of block {name} is not positive definite with damping: {damping:g} "
            f"({error}); write a larger damping, such as {min(10 * damping, 0.5):g}, or give more "
            "calibration texts"
        ) from error
    solver.free()
    return _layer(solver.layer.weight.data, scales, zeros, order, bits, size, name)


def _layer(
    weight: Tensor,
    scales: Tensor,
    zeros: Tensor,
    order: Tensor | None,
    bits: int,
    size: int,
    name: str,
) -> QuantizedLayer:
    """Read the codes off the quantized weight `[out, in]`; they give it back to the last bit."""
    columns = weight if order is None else weight[:, order]
    steps = scales.repeat_interleave(size, 1)
    codes = (columns / steps).round() + zeros.repeat_interleave(size, 1)
    layer = QuantizedLayer(
        codes=codes.to(torch.uint8).cpu(),
        bits=bits,
        group_size=size,
        scales=scales.float().contiguous().cpu(),
        zeros=zeros.to(torch.uint8).contiguous().cpu(),
        permutation=None if order is None else order.to(torch.int32).cpu(),
    )
    if not torch.equal(dequantize(layer), weight.float().cpu()):
        raise InputError(f"block {name}: codes do not give the weight that auto-gptq computed")
    return layer
