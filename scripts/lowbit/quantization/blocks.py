"""One decoder block on its way through a quantizer that looks at activations."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from lowbit.engine.decoder import Decoder
from lowbit.engine.roles import decoder_blocks
from lowbit.errors import InputError
from lowbit.quantization.quantized import QuantizedLayer, dequantize


@dataclass
class CalibrationBatch:
    """A few calibration sequences on the threshold of a block; hidden states lie on the CPU."""

    full: Tensor
    """`[batch, length, hidden]` float32, where all blocks before have their full precision."""
    quantized: Tensor
    """The same, where all blocks before are quantized."""
    calls: list[tuple[tuple, dict[str, Any]]]
    """Per block: the other positional and keyword arguments the model passes."""


@dataclass(frozen=True)
class QuantizedBlock:
    """What a quantizer makes of one block; names are relative to the block."""

    layers: dict[str, QuantizedLayer]
    """Every linear layer of the block, by name."""
    replaced: dict[str, Tensor] = field(default_factory=dict)
    """Other parameters that the quantizer changed (norms, biases), by name."""

    def parameters(self) -> dict[str, Tensor]:
        """What stands in for the block's own parameters, float32, by name."""
        weights = {f"{name}.weight": dequantize(layer) for name, layer in self.layers.items()}
        return weights | self.replaced


@dataclass(frozen=True)
class CalibratedBlock:
    """A working copy of one block, and the activations that reach it."""

    model: nn.Module
    """The model the block is from, all in full precision; not to be changed."""
    index: int
    module: nn.Module
    """A copy of the block in full precision, on `device`; a quantizer may change it at will."""
    batches: Sequence[CalibrationBatch]
    device: torch.device

    @property
    def linears(self) -> dict[str, nn.Linear]:
        """The linear layers of `module`, by name relative to the block, in the model's order."""
        return linears_of(self.module)

    def full_name(self, layer: str) -> str:
        """The name in the model of a layer of this block."""
        return f"{decoder_blocks(self.model)[0]}.{self.index}.{layer}"

    def not_reached(self, layers: Sequence[str], algorithm: str) -> InputError:
        """What to say of layers that no calibration text reaches."""
        names = ", ".join(self.full_name(layer) for layer in layers)
        return InputError(
            f"no calibration text reaches {names}, so {algorithm} knows nothing of its inputs; "
            "write a larger n or length under calibration"
        )

    def inputs(self, stream: str) -> Iterator[tuple[Tensor, tuple[tuple, dict[str, Any]]]]:
        """Yield, per batch, the hidden states of `stream` (full, quantized) and the call, moved."""
        for batch in self.batches:
            args, kwargs = tree_map(
                lambda leaf: leaf.to(self.device) if isinstance(leaf, Tensor) else leaf,
                batch.calls[self.index],
            )
            yield getattr(batch, stream).to(self.device), (args, kwargs)

    def run(self, hidden_states: Tensor, call: tuple[tuple, dict[str, Any]]) -> Tensor:
        """Run `module` as it is now: `[batch, length, hidden]` to the same."""
        args, kwargs = call
        output = self.module(hidden_states, *args, **kwargs)
        return output[0] if isinstance(output, tuple) else output


def not_finite(layer: str) -> InputError:
    """What to say of a layer, by its full name, whose inputs are NaN or infinite."""
    return InputError(
        f"the inputs of {layer} on the calibration text are not finite numbers; the model's "
        "weights are broken, or it cannot be run in float32"
    )


def linears_of(block: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of a block, by name, in its order."""
    return {name: m for name, m in block.named_modules() if isinstance(m, nn.Linear)}


@torch.no_grad()
def enter(decoder: Decoder, token_ids: Tensor, batch_size: int) -> list[CalibrationBatch]:
    """Embed calibration sequences `[n, length]`; both streams start there."""
    batches = []
    for rows in token_ids.split(batch_size):
        entered = decoder.enter(rows)
        states = entered.hidden_states
        batches.append(CalibrationBatch(states, states, entered.calls))
    return batches


def calibrated_block(
    decoder: Decoder, index: int, batches: Sequence[CalibrationBatch], device: torch.device
) -> CalibratedBlock:
    """Copy block `index` to the device, beside the batches that reach it."""
    module = copy.deepcopy(decoder.blocks[index]).to(device)
    return CalibratedBlock(decoder.model, index, module, batches, device)


@torch.no_grad()
def substitute(module: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Write parameters into a module in place, by name."""
    own = dict(module.named_parameters())
    for name, tensor in parameters.items():
        own[name].copy_(tensor)
