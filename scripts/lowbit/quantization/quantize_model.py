"""Quantize every linear layer inside a model's decoder blocks, block by block.

The model stays in full precision; one block at a time is copied, quantized and kept as codes, so
memory is that of the model, one block and the calibration's hidden states. Embeddings, norms,
biases and the output head stay as they are, but for what a quantizer folds into them.
"""

from collections.abc import Mapping, Sequence
from math import gcd
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lowbit.engine.decoder import Decoder
from lowbit.engine.roles import decoder_blocks
from lowbit.errors import InputError
from lowbit.quantization.block_store import BlockStore
from lowbit.quantization.blocks import (
    CalibrationBatch,
    QuantizedBlock,
    calibrated_block,
    enter,
    linears_of,
    substitute,
)
from lowbit.quantization.quantized import GroupSize, QuantizedLayer

CALIBRATION_BATCH = 4
"""Calibration sequences that are run at once."""


def check_blocks(model: nn.Module, group_size: GroupSize, axis: int, method: str) -> list[str]:
    """Check before the first layer is quantized that all can be; name the matrices that are not.

    Raises:
        InputError: a weight that is not finite, experts merged into one tensor (which no quantizer
            here takes), or a group size that does not divide a layer's width; names the layer, and
            for the latter the config key and the sizes that would do.
    """
    prefix, blocks = decoder_blocks(model)
    linears = {f"{prefix}.{name}": linear for name, linear in linears_of(blocks).items()}
    others = {f"{prefix}.{name}": tensor for name, tensor in blocks.named_parameters()}
    for name, tensor in others.items():
        bad = int((~tensor.isfinite()).sum())
        if bad:
            raise InputError(
                f"{name} has {bad} of {tensor.numel()} values that are NaN or "
                "infinite; the model's weights are broken"
            )
        if tensor.dim() > 2:
            raise InputError(
                f"{name} holds several matrices in one tensor {list(tensor.shape)}, "
                "which cannot be quantized yet; quantize a model without merged experts"
            )
    _check_group_size(linears, group_size, axis, method)
    quantized = {f"{name}.weight" for name in linears}
    return [name for name, tensor in others.items() if tensor.dim() == 2 and name not in quantized]


def _check_group_size(
    linears: Mapping[str, nn.Linear], group_size: GroupSize, axis: int, method: str
) -> None:
    if isinstance(group_size, str):
        return
    widths = {name: linear.weight.shape[axis] for name, linear in linears.items()}
    wrong = next((name for name, width in widths.items() if width % group_size), None)
    if wrong:
        common = gcd(*widths.values())
        valid = [str(size) for size in range(8, common + 1) if common % size == 0]
        raise InputError(
            f"methods.{method}.group_size is {group_size}, which does not divide {widths[wrong]}, "
            f"the {'output ' if axis == 0 else ''}width of {wrong}; write one of "
            f"{', '.join(valid) or common}"
        )


def quantize_model(
    model: nn.Module,
    token_ids: Tensor,
    implementation: ModuleType,
    settings: Mapping[str, Any],
    store: BlockStore,
    seed: int,
    device: torch.device,
) -> tuple[dict[str, QuantizedLayer], dict[str, Tensor]]:
    """Quantize block by block, with a progress bar; return layers and changed parameters by name.

    Args:
        token_ids: calibration text `[n, length]`.
        implementation: a module of `lowbit.quantizers`.
        store: finished blocks are kept there and taken from there.
        seed: block k starts from seed + k, whether or not the blocks before it were made now.
    """
    decoder = Decoder(model)
    looks_at_activations = hasattr(implementation, "quantize_block")
    blocks = [store.load(index) for index in range(len(decoder))]
    last = max((index for index, made in enumerate(blocks) if made is None), default=-1)
    walks = looks_at_activations and last >= 0
    batches = enter(decoder, token_ids, CALIBRATION_BATCH) if walks else []
    for index in tqdm(range(len(decoder)), unit="block"):
        if blocks[index] is None:
            torch.manual_seed(seed + index)
            made = _quantize_block(decoder, index, batches, implementation, settings, device)
            store.save(index, made)
            blocks[index] = made
        if index < last:  # what comes after needs no activations
            _advance(decoder, index, batches, blocks[index], device)
    if hasattr(implementation, "finish"):
        torch.manual_seed(seed + len(decoder))
        blocks = implementation.finish(decoder, blocks, token_ids, store, device, **settings)
    return _joined(decoder, blocks)


def _quantize_block(
    decoder: Decoder,
    index: int,
    batches: Sequence[CalibrationBatch],
    implementation: ModuleType,
    settings: Mapping[str, Any],
    device: torch.device,
) -> QuantizedBlock:
    block = calibrated_block(decoder, index, batches, device)
    names = list(block.linears)
    if hasattr(implementation, "quantize_block"):
        made = implementation.quantize_block(block, **settings)
    else:
        # On the CPU: codebooks are made there, and hqq works there.
        weights = {name: linear.weight.detach().cpu() for name, linear in block.linears.items()}
        made = QuantizedBlock(
            {name: implementation.quantize(weight, **settings) for name, weight in weights.items()}
        )
    if made.layers.keys() != set(names):
        wrong = ", ".join(sorted(made.layers.keys() ^ set(names)))
        raise InputError(
            f"{implementation.__name__} did not quantize exactly the linear layers of block "
            f"{index}: {wrong}"
        )
    return QuantizedBlock({name: made.layers[name] for name in names}, made.replaced)


@torch.no_grad()
def _advance(
    decoder: Decoder,
    index: int,
    batches: Sequence[CalibrationBatch],
    made: QuantizedBlock,
    device: torch.device,
) -> None:
    """Take both streams of every batch through the block."""
    if not batches:
        return
    block = calibrated_block(decoder, index, batches, device)
    for batch, (hidden_states, call) in zip(batches, block.inputs("full"), strict=True):
        batch.full = block.run(hidden_states, call).cpu()
    substitute(block.module, made.parameters())
    for batch, (hidden_states, call) in zip(batches, block.inputs("quantized"), strict=True):
        batch.quantized = block.run(hidden_states, call).cpu()


def _joined(
    decoder: Decoder, blocks: Sequence[QuantizedBlock]
) -> tuple[dict[str, QuantizedLayer], dict[str, Tensor]]:
    """Bring the blocks together under full names."""
    layers, replaced = {}, {}
    for index, block in enumerate(blocks):
        prefix = f"{decoder.blocks_name}.{index}."
        layers |= {prefix + name: layer for name, layer in block.layers.items()}
        replaced |= {prefix + name: tensor for name, tensor in block.replaced.items()}
    return layers, replaced
