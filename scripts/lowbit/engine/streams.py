"""Quantized weights as streams of the walk."""

from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from lowbit.engine.decoder import Decoder
from lowbit.engine.walk import Stream
from lowbit.errors import InputError
from lowbit.names import FULL
from lowbit.quantization.experts import expert_slices, merge_tensors, separate_tensors
from lowbit.quantization.quantized import QuantizedWeights


def quantized_stream(
    name: str,
    record: Path,
    decoder: Decoder,
    full: Stream,
    resident: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Stream:
    """Return the stream of method `name`, dequantized block by block from beside its `record`.

    A resident stream dequantizes each block once; else each time the walk reaches it. Experts that
    the model merges are put into the merged tensors.
    """
    weights = QuantizedWeights(record.with_name("weights.safetensors"), record)
    modules, replaced = _by_block(name, weights, decoder)

    def parameters(index: int) -> Mapping[str, Tensor]:
        prefix = f"{decoder.blocks_name}.{index}."
        changed = {
            f"{module.removeprefix(prefix)}.weight": weights.dequantize(module, dtype)
            for module in modules[index]
        } | {key.removeprefix(prefix): weights.replaced[key].to(dtype) for key in replaced[index]}
        moved = {key: tensor.to(device) for key, tensor in changed.items()}
        own, block = full.parameters(index), decoder.blocks[index]

        def merged(key: str) -> Tensor:
            return own[key] if key in own else block.get_parameter(key)

        return {**own, **merge_tensors(expert_slices(block), moved, merged)}

    return Stream(name, cache(parameters) if resident else parameters)


def block_parameters(decoder: Decoder, stream: Stream, index: int) -> dict[str, Tensor]:
    """All parameters that a stream has in a block, also those it shares with the model."""
    return dict(decoder.blocks[index].named_parameters()) | dict(stream.parameters(index))


@torch.no_grad()
def put_into_model(decoder: Decoder, stream: Stream) -> None:
    """Overwrite the model's own weights with a stream's, so that its plain forward is the stream's.

    For those who need a whole model, such as text generation; the full-precision weights are gone.
    """
    for index, block in enumerate(decoder.blocks):
        own = block.state_dict()
        for name, tensor in stream.parameters(index).items():
            own[name].copy_(tensor)


def folded_stream(
    name: str, record: Path, decoder: Decoder, full: Stream, resident: bool
) -> Stream | None:
    """Return the full-precision model with the scales that method `name` moved between layers.

    It computes what `full` does, but its activations are on the method's scales, so that they can
    be patched into the method's stream (arXiv 2506.12044, section 5). None where the method moves
    no scales.
    """
    weights = QuantizedWeights(record.with_name("weights.safetensors"), record)
    folds = {module: scales for module in weights.names if (scales := weights.folds(module))}
    if not folds:
        return None
    modules, replaced = _by_block(name, weights, decoder)

    def parameters(index: int) -> Mapping[str, Tensor]:
        prefix = f"{decoder.blocks_name}.{index}."
        own = block_parameters(decoder, full, index)
        changed = {key.removeprefix(prefix): weights.replaced[key] for key in replaced[index]}
        for module in modules[index]:
            weight = f"{module.removeprefix(prefix)}.weight"
            changed[weight] = fold(own[weight].float(), folds.get(module, {}))
        return own | {key: tensor.to(own[key]) for key, tensor in changed.items()}

    return Stream(f"{FULL}, scales of {name}", cache(parameters) if resident else parameters)


def fold(weight: Tensor, scales: Mapping[str, Tensor]) -> Tensor:
    """Multiply `[out, in]` by `folded_scale` and divide it by `output_scale`, where there are."""
    if "folded_scale" in scales:
        weight = weight * scales["folded_scale"].to(weight)
    if "output_scale" in scales:
        weight = weight / scales["output_scale"].to(weight).unsqueeze(1)
    return weight


def _by_block(
    name: str, weights: QuantizedWeights, decoder: Decoder
) -> tuple[dict[int, list[str]], dict[int, list[str]]]:
    """Sort quantized modules and replaced parameters into blocks.

    Raises:
        InputError: one of them lies outside the model's blocks, where it would be ignored.
    """
    known = {f"{decoder.blocks_name}.{key}" for key in separate_tensors(decoder.blocks)}
    modules: dict[int, list[str]] = defaultdict(list)
    replaced: dict[int, list[str]] = defaultdict(list)
    names = [(key, f"{key}.weight", modules) for key in weights.names]
    names += [(key, key, replaced) for key in weights.replaced]
    for key, parameter, sorted_into in names:
        if parameter not in known:
            raise InputError(
                f"method {name}: its weights hold {key}, which is no module of the model's "
                f"decoder blocks ({decoder.blocks_name}). Was it quantized from another model?"
            )
        index = int(key.removeprefix(f"{decoder.blocks_name}.").split(".", 1)[0])
        sorted_into[index].append(key)
    return modules, replaced
