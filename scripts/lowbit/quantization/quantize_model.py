"""Quantize every linear layer inside a model's decoder blocks, and measure what it cost.

Embeddings, norms, biases and the output head stay as they are.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lowbit.engine.roles import decoder_blocks
from lowbit.errors import InputError
from lowbit.quantization.quantized import (
    GroupSize,
    QuantizedLayer,
    dequantize,
    describe,
    relative_error,
)
from lowbit.quantizers import rtn


@dataclass(frozen=True)
class BlockWeights:
    """The matrices of a model's decoder blocks, by full dotted name, in the model's order."""

    linears: dict[str, nn.Linear]
    kept: list[str]
    """Matrices that are not of a linear layer (routers of experts) and stay in full precision."""


def find_block_weights(model: nn.Module) -> BlockWeights:
    """Sort the matrices of the decoder blocks into those to quantize and those to keep.

    Raises:
        InputError: weights of more than two dimensions (experts merged into one tensor), which no
            quantizer here takes and which it would be wrong to leave out silently.
    """
    prefix, blocks = decoder_blocks(model)
    linears = {
        f"{prefix}.{name}": module
        for name, module in blocks.named_modules()
        if isinstance(module, nn.Linear)
    }
    quantized = {f"{name}.weight" for name in linears}
    others = {f"{prefix}.{name}": tensor for name, tensor in blocks.named_parameters()}
    for name, tensor in others.items():
        if tensor.dim() > 2:
            raise InputError(
                f"{name} holds several matrices in one tensor {list(tensor.shape)}, "
                "which cannot be quantized yet; quantize a model without merged experts"
            )
    kept = [name for name, t in others.items() if t.dim() == 2 and name not in quantized]
    return BlockWeights(linears, kept)


def check_weights(
    linears: Mapping[str, nn.Linear], group_size: GroupSize, axis: int, method: str
) -> None:
    """Check before the first layer is quantized that all of them can be.

    Raises:
        InputError: a weight that is not finite, or a group size that does not divide a layer's
            width; names the layer, and for the latter the config key and the sizes that would do.
    """
    for name, linear in linears.items():
        bad = int((~linear.weight.isfinite()).sum())
        if bad:
            raise InputError(
                f"{name}.weight has {bad} of {linear.weight.numel()} values that are NaN or "
                "infinite; the model's weights are broken"
            )
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


@torch.no_grad()
def capture_inputs(
    model: nn.Module, linears: Mapping[str, nn.Linear], token_ids: Tensor
) -> dict[str, Tensor]:
    """Run the model once on `[rows, length]`; what each layer reads, `[tokens, in]`.

    Layers that read the same activation share its memory; a layer that is not reached is left out.
    """
    inputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            inputs[name] = arguments[0].reshape(-1, arguments[0].shape[-1])

        return hook

    handles = [m.register_forward_pre_hook(keep(name)) for name, m in linears.items()]
    try:
        model(input_ids=token_ids, attention_mask=torch.ones_like(token_ids), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return inputs


@torch.no_grad()
def quantize_layers(
    linears: Mapping[str, nn.Linear],
    inputs: Mapping[str, Tensor],
    quantize: Callable[..., QuantizedLayer],
    settings: Mapping[str, Any],
) -> tuple[dict[str, QuantizedLayer], dict[str, dict[str, Any]]]:
    """Quantize layer by layer, with a progress bar; the layers and their part of the record.

    The record compares each with asymmetric RTN at the same bits and groups: relative error of the
    weight, ||W - Wq|| / ||W||, and of the output, ||XW - XWq|| / ||XW|| for X of `inputs`.
    """
    layers, entries = {}, {}
    for name, linear in tqdm(linears.items(), unit="layer"):
        weight = linear.weight.detach().float()
        layers[name] = quantize(weight, **settings)
        nearest = rtn.quantize(
            weight,
            bits=settings["bits"],
            group_size=settings["group_size"],
            axis=settings.get("axis", 1),
        )
        own = _errors(weight, dequantize(layers[name]), inputs.get(name))
        reference = _errors(weight, dequantize(nearest), inputs.get(name))
        compared = {f"rtn_{key}": value for key, value in reference.items()}
        entries[name] = describe(layers[name]) | own | compared
    return layers, entries


def _errors(weight: Tensor, approximation: Tensor, inputs: Tensor | None) -> dict[str, Any]:
    """Relative errors to six digits; None where they are not defined."""
    errors = {"weight_error": relative_error(weight, approximation), "output_error": None}
    if inputs is not None:
        errors["output_error"] = relative_error(inputs @ weight.T, inputs @ approximation.T)
    return {key: None if value is None else float(f"{value:.6g}") for key, value in errors.items()}
