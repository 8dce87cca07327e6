"""What the libraries of GPTQ have in common: which layers go together, and what is refused."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

from lowbit.errors import InputError
from lowbit.quantization.blocks import CalibratedBlock, QuantizedBlock, not_finite
from lowbit.quantization.quantized import GroupSize, QuantizedLayer


@dataclass(frozen=True)
class Settings:
    """The settings of GPTQ, the same for all libraries; see `study.config.methods`."""

    bits: int
    group_size: GroupSize
    symmetric: bool
    activation_order: bool
    damping: float

    def permutation(self, group_of_input: Tensor) -> Tensor | None:
        """Columns in the order of their groups, None where that is the order they are in.

        Args:
            group_of_input: `[in]`, where groups are runs of the columns as GPTQ went over them.
        """
        if not self.activation_order or self.group_size in ("row", len(group_of_input)):
            return None
        return group_of_input.argsort(stable=True)


class Solver(Protocol):
    """A library's GPTQ of one layer."""

    def add_batch(self, inputs: Tensor, output: Tensor) -> None:
        """Add to the Hessian what went into the layer and what came out."""


AnySolver = TypeVar("AnySolver", bound=Solver)


def quantize_in_order(
    block: CalibratedBlock,
    prepare: Callable[[nn.Linear], AnySolver],
    solve: Callable[[AnySolver, str], QuantizedLayer],
) -> QuantizedBlock:
    """Quantize layers that read the same tensor together, each such group after those before it.

    So the Hessian of every group is of activations that come out of quantized layers ("true
    sequential").

    Args:
        prepare: makes the library's object for a layer of `block.module`.
        solve: quantizes that object's layer, and leaves the quantized weight there.

    Raises:
        InputError: no calibration text reaches a layer.
    """
    layers = {}
    for names in reading_groups(block):
        solvers = {name: prepare(block.linears[name]) for name in names}
        feed(block, {name: solver.add_batch for name, solver in solvers.items()})
        for name, solver in solvers.items():
            layers[name] = solve(solver, block.full_name(name))
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
    raise block.not_reached(list(waiting), "GPTQ")


def _note_input(
    reads: list[tuple[Tensor, list[str]]], name: str, module: nn.Module, inputs: tuple[Tensor]
) -> None:
    """Forward hook: put the layer beside those that read the same tensor."""
    for tensor, names in reads:
        if tensor is inputs[0]:
            names.append(name)
            return
    reads.append((inputs[0], [name]))


def feed(block: CalibratedBlock, adders: Mapping[str, Callable[[Tensor, Tensor], Any]]) -> None:
    """Run the calibration text through the block as it is now, behind quantized blocks.

    Args:
        adders: by layer, what takes its input and its output for each batch.
    """
    with ExitStack() as hooks:
        for name, add in adders.items():
            hook = partial(_hand_on, add)
            hooks.callback(block.linears[name].register_forward_hook(hook).remove)
        for hidden_states, call in block.inputs("quantized"):
            block.run(hidden_states, call)


def _hand_on(
    add: Callable[[Tensor, Tensor], Any], module: nn.Module, inputs: tuple[Tensor], output: Tensor
) -> None:
    add(inputs[0], output)


def check_finite(hessian: Tensor, name: str) -> None:
    """Raise `InputError` unless the Hessian of layer `name` is made of finite numbers."""
    if not hessian.isfinite().all():
        raise not_finite(name)


def not_positive_definite(name: str, damping: float) -> InputError:
    """What to say where the Hessian of layer `name` has no inverse."""
    return InputError(
        f"the Hessian of {name} is not positive definite; write a larger damping than "
        f"{damping:g}, such as {min(10 * damping, 0.5):g}, or more calibration text"
    )
