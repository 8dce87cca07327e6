"""GPTQ (arXiv 2210.17323) by auto-gptq, the package that made it known, block by block.

Its own `GPTQ` object quantizes each layer. Layers that read the same input are quantized together
("true sequential"), on the activations that come out of all that is quantized before them.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from unittest.mock import patch

import torch
from torch import Tensor, nn

from lowbit.engine.roles import decoder_blocks
from lowbit.errors import GateError, InputError
from lowbit.quantization.blocks import CalibratedBlock, QuantizedBlock
from lowbit.quantization.quantized import GroupSize, QuantizedLayer, dequantize

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
    layers = {}
    for names in reading_groups(block):
        for name, solver in _collect(block, names, bits, symmetric).items():
            full_name = f"{decoder_blocks(block.model)[0]}.{block.index}.{name}"
            _check_hessian(solver, full_name)
            layers[name] = _solve(
                solver, full_name, bits, group_size, symmetric, activation_order, damping
            )
    return QuantizedBlock(layers)


def reading_groups(block: CalibratedBlock) -> list[list[str]]:
    """Names of the layers that read one and the same tensor, in the order of execution.

    Raises:
        InputError: no calibration text reaches a layer.
    """
    groups: list[list[str]] = []
    waiting = dict(block.linears)
    for hidden_states, call in block.inputs("quantized"):
        # Tensors are kept for one batch, or another could take the place of one that was freed.
        reads: list[tuple[Tensor, list[str]]] = []
        with ExitStack() as hooks:
            for name, linear in waiting.items():
                note = partial(_note_input, reads, name)
                hooks.callback(linear.register_forward_pre_hook(note).remove)
            block.run(hidden_states, call)
        groups += [names for _, names in reads]
        read = {name for names in groups for name in names}
        waiting = {name: linear for name, linear in waiting.items() if name not in read}
        if not waiting:
            return groups
    raise InputError(
        f"no calibration text reaches {', '.join(waiting)} in block {block.index}, so GPTQ knows "
        "nothing of its inputs; write a larger n or length under calibration"
    )


def _note_input(
    reads: list[tuple[Tensor, list[str]]], name: str, module: nn.Module, inputs: tuple[Tensor]
) -> None:
    """Forward hook: put the layer beside those that read the same tensor."""
    for tensor, names in reads:
        if tensor is inputs[0]:
            names.append(name)
            return
    reads.append((inputs[0], [name]))


def _collect(
    block: CalibratedBlock, names: list[str], bits: int, symmetric: bool
) -> dict[str, GPTQ]:
    """Sum up the Hessians of some layers over the calibration text."""
    linears = block.linears
    solvers = {name: GPTQ(linears[name]) for name in names}
    with ExitStack() as hooks:
        for name, solver in solvers.items():
            solver.quantizer.configure(bits, perchannel=True, sym=symmetric, mse=False)
            add = partial(_add_input, solver)
            hooks.callback(linears[name].register_forward_hook(add).remove)
        for hidden_states, call in block.inputs("quantized"):
            block.run(hidden_states, call)
    return solvers


def _add_input(solver: GPTQ, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
    """Forward hook: add a batch to the library's Hessian."""
    solver.add_batch(inputs[0], output)


def _check_hessian(solver: GPTQ, name: str) -> None:
    if not solver.H.isfinite().all():
        raise InputError(
            f"the inputs of {name} on the calibration text are not finite numbers; the model's "
            "weights are broken, or it cannot be run in float32"
        )


def _solve(
    solver: GPTQ,
    name: str,
    bits: int,
    group_size: GroupSize,
    symmetric: bool,
    activation_order: bool,
    damping: float,
) -> QuantizedLayer:
    """Let the library quantize one layer, and take the codes out of what it returns."""
    try:
        with _synchronizing_only_with_cuda():
            scales, zeros, group_of_input = solver.fasterquant(
                percdamp=damping,
                group_size=-1 if group_size == "row" else group_size,
                actorder=activation_order,
            )
    except torch.linalg.LinAlgError as error:
        raise InputError(
            f"the Hessian of {name} is not positive definite; write a larger damping than "
            f"{damping:g}, such as {min(10 * damping, 0.5):g}, or more calibration text"
        ) from error
    weight = solver.layer.weight.detach()
    columns = weight.shape[1]
    order = torch.argsort(group_of_input, stable=True)
    size = columns if group_size == "row" else group_size
    layer = QuantizedLayer(
        codes=_codes(weight[:, order], scales, zeros, size).cpu(),
        bits=bits,
        group_size=size,
        scales=scales.float().cpu(),
        zeros=None if symmetric else zeros.to(torch.uint8).cpu(),
        permutation=order.to(torch.int32).cpu() if activation_order and size < columns else None,
    )
    solver.free()
    if not torch.equal(dequantize(layer), weight.float().cpu()):
        raise GateError(f"the codes of {name} do not give auto-gptq's weight back")
    return layer


def _codes(weight: Tensor, scales: Tensor, zeros: Tensor, size: int) -> Tensor:
    """Codes `[out, in]` of a weight that lies on its grid."""
    steps = weight.unflatten(1, (-1, size)) / scales.unsqueeze(2)
    return (steps.round() + zeros.unsqueeze(2)).flatten(1).to(torch.uint8)


@contextmanager
def _synchronizing_only_with_cuda() -> Iterator[None]:
    """The library waits for the GPU, to time itself, even where there is none."""
    if torch.cuda.is_available():
        yield
    else:
        with patch.object(torch.cuda, "synchronize", lambda: None):
            yield
