"""AWQ (arXiv 2306.00978) by llm-compressor: its modifier's search for scales, block by block.

The library's tables say which layers share a scale and which module before them takes it back. It
searches on full-precision activations. (The activations of its own pipeline are those of scaled
blocks, which are the same but for the last bits.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from compressed_tensors.quantization import (
    QuantizationArgs,
    QuantizationScheme,
    disable_quantization,
    fake_quantize,
    initialize_module_for_quantization,
)
from llmcompressor import create_session
from llmcompressor.core import State
from llmcompressor.modeling.offset_norm import norm_calibration_context
from llmcompressor.modifiers.quantization.calibration import initialize_observer
from llmcompressor.modifiers.transform.awq import (
    AWQModifier,
    base,
    get_layer_mappings_from_model,
)
from llmcompressor.pipelines.cache import IntermediatesCache
from pydantic import PrivateAttr
from torch import Tensor, nn
from tqdm import tqdm

from lowbit.errors import InputError
from lowbit.quantization.blocks import CalibratedBlock, QuantizedBlock, not_finite
from lowbit.quantization.quantized import GroupSize, QuantizedLayer
from lowbit.quantizers.awq_scales import (
    Found,
    changed_parameters,
    check_output,
    first_output,
    other_parameters,
    scales_by_layer,
)
from lowbit.quantizers.llm_compressor import find_grid, quantization_args, signed_layer

LIBRARIES = ("llmcompressor", "compressed-tensors")


@torch.no_grad()
def quantize_block(
    block: CalibratedBlock, *, bits: int, group_size: GroupSize, clipping: bool = False
) -> QuantizedBlock:
    """Search scales on the full-precision stream, apply them, and round.

    `block.module` is left with scaled weights. Beside the layers come the norms and biases that
    took scales in.

    Args:
        clipping: the library has none; `study.config.methods` refuses it.

    Raises:
        InputError: an architecture that the library's tables do not fit, a layer that no
            calibration text reaches, activations that are not finite.
        GateError: the codes do not give the library's weight back.
    """
    if clipping:
        raise InputError("llm-compressor's AWQ has no clipping; write clipping: false")
    args = quantization_args(bits, group_size)
    others = other_parameters(block)
    expected = first_output(block)
    found = _scale(block, args)
    check_output(block, expected, "llm-compressor")
    folded, divided = scales_by_layer(block, found)
    layers = {
        name: _round(linear, args, block.full_name(name), folded.get(name), divided.get(name))
        for name, linear in block.linears.items()
    }
    return QuantizedBlock(layers, changed_parameters(block, others))


class Search(AWQModifier):
    """The library's modifier, which here keeps the scales that it finds."""

    _found: list[tuple[str, list[str], Tensor]] = PrivateAttr(default_factory=list)

    def _compute_best_scale(self, mapping: Any, *rest: Any) -> Tensor:
        scales = super()._compute_best_scale(mapping, *rest)
        self._found.append((mapping.smooth_name, mapping.balance_names, scales))
        return scales


def _scale(block: CalibratedBlock, args: QuantizationArgs) -> list[Found]:
    """Let the library search scales and apply them to the block."""
    model = _model_of(block)
    search = Search(mappings=get_layer_mappings_from_model(block.model), offload_device=None)
    with create_session() as session, norm_calibration_context(model), _quiet_and_unpinned():
        session.state.model = model
        _attach_grids(block, args)
        _resolve(search, block, session.state)
        for hidden_states, call in block.inputs("full"):
            block.run(hidden_states, call)
        _check_activations(search, block)
        search.on_sequential_epoch_end(session.state, None)
        search.on_calibration_end(session.state, None)
    prefix = block.full_name("")
    return [
        (before.removeprefix(prefix), tuple(name.removeprefix(prefix) for name in names), scales)
        for before, names, scales in search._found
    ]


def _model_of(block: CalibratedBlock) -> nn.Module:
    """The block at its place in an otherwise empty model: the tables go by the modules' names."""
    model = module = nn.Module()
    model.config = block.model.config
    *parents, last = block.full_name("").rstrip(".").split(".")
    for name in parents:
        module.add_module(name, nn.Module())
        module = module.get_submodule(name)
    module.add_module(last, block.module)
    return model


def _attach_grids(block: CalibratedBlock, args: QuantizationArgs) -> None:
    """Tell the search how each layer will be rounded; nothing is rounded outside the search."""
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    for linear in block.linears.values():
        initialize_module_for_quantization(linear, scheme)
        initialize_observer(linear, "weight")
        disable_quantization(linear)


def _resolve(search: Search, block: CalibratedBlock, state: State) -> None:
    """Find the table's modules in the block, and have their activations collected."""
    architecture = type(block.model).__name__
    advice = "use another quantizer or backend"
    try:
        search.on_calibration_start(state, None)
    except ValueError as error:
        raise InputError(
            f"llm-compressor's table of layers does not fit {architecture}: {error}; {advice}"
        ) from error
    if not search._resolved_mappings:
        raise InputError(
            f"llm-compressor finds no layer to scale in block {block.index} of {architecture}; "
            f"{advice}"
        )
    if any(not hasattr(mapping.smooth_layer, "weight") for mapping in search._resolved_mappings):
        raise InputError(
            f"llm-compressor scales the activation function of {architecture}, which quantized "
            f"weights cannot hold; {advice}"
        )


def _check_activations(search: Search, block: CalibratedBlock) -> None:
    """The library would leave out, without a word, what no text reaches or is not finite."""
    for mapping in search._resolved_mappings:
        reached = search._smooth_activation_stats.get(mapping.smooth_name)
        layer = mapping.balance_names[0].removeprefix(block.full_name(""))
        if reached is None:
            raise block.not_reached([layer], "AWQ")
        if not reached[0].isfinite().all():
            raise not_finite(mapping.balance_names[0])


@contextmanager
def _quiet_and_unpinned() -> Iterator[None]:
    """No bars of progress within ours; no pinned memory, which needs a GPU."""
    with (
        patch.object(base, "tqdm", partial(tqdm, disable=True)),
        patch.object(IntermediatesCache, "pin_memory", lambda self, batch_index: None),
    ):
        yield


def _round(
    linear: nn.Linear,
    args: QuantizationArgs,
    name: str,
    folded: Tensor | None,
    divided: Tensor | None,
) -> QuantizedLayer:
    """Take codes out of the library's rounding of one weight."""
    grid = find_grid(linear, args)
    rounded = fake_quantize(linear.weight, grid["scale"], grid["zero_point"], args)
    return signed_layer(
        rounded,
        grid["scale"],
        grid["zero_point"],
        args,
        name,
        folded_scale=folded,
        output_scale=divided,
    )
