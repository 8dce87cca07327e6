"""A whole published checkpoint beside the model that it was quantized from."""

import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn
from tqdm import tqdm

from lowbit.engine.roles import decoder_blocks
from lowbit.errors import InputError
from lowbit.quantization.experts import expert_slices, separate_tensors
from lowbit.quantization.published import awq, bitsandbytes, compressed_tensors, gptq, hqq
from lowbit.quantization.published.checkpoint import Checkpoint
from lowbit.quantization.quantized import QuantizedLayer

FORMATS: dict[str, ModuleType] = {
    "gptq": gptq,
    "awq": awq,
    "compressed-tensors": compressed_tensors,
    "bitsandbytes": bitsandbytes,
    "hqq": hqq,
}
"""By the `quant_method` of config.json."""
DERIVED = re.compile(r"(rotary_emb\.inv_freq|\.masked_bias)$")
"""Tensors of old checkpoints that models compute themselves."""


@dataclass(frozen=True)
class PublishedWeights:
    """What a checkpoint holds of a model; names are the model's, an expert's linears its own."""

    layers: dict[str, QuantizedLayer]
    """Quantized linear layers, in the model's order."""
    replaced: dict[str, Tensor]
    """Other tensors inside the blocks that differ from the model's, as stored."""
    kept: list[str]
    """Weights of linear layers that the checkpoint holds in full precision."""
    versions: dict[str, str]
    """What wrote the checkpoint, as far as it says."""
    not_applied: list[str]
    """What else the checkpoint asks for and the engine does not do (quantized activations)."""


def read_published(directory: Path, model: nn.Module) -> PublishedWeights:
    """Read every layer, and check that all the rest is the model's.

    What lies outside the blocks (embeddings, final norm, head) must equal the model's values, as
    rounded to the checkpoint's type: the engine runs the model's own, so that other ones would give
    scores of a model that nobody has.

    Raises:
        InputError: unknown or damaged format, or a checkpoint of another model; names the tensor.
    """
    checkpoint = Checkpoint(directory)
    own = separate_tensors(model)
    prefix, linears = decoder_blocks(model)[0], _linears(model)
    names = _quantized(checkpoint, linears, prefix)
    form = FORMATS[checkpoint.config["quant_method"]]
    layers = {}
    for name in tqdm(names, unit="layer", desc="read checkpoint"):
        layers[name] = form.read(checkpoint, name)
        _check_shape(checkpoint, name, layers[name], own[f"{name}.weight"])
    taken = {f"{name}.{part}" for name in names for part in form.PARTS}
    rest = [name for name in checkpoint.names if name not in taken]
    rest = [name for name in rest if not _ignored(checkpoint, name, own, names, model)]
    _check_complete(checkpoint, rest, own, layers, model)
    replaced = {}
    for name in rest:
        stored = checkpoint.tensor(name)
        if not _same(checkpoint, name, own[name], stored):
            if not name.startswith(f"{prefix}."):
                raise _outside(checkpoint, name, own[name], stored)
            replaced[name] = stored
    kept = [f"{name}.weight" for name in linears if name not in layers]
    return PublishedWeights(layers, replaced, kept, _versions(checkpoint), _not_applied(checkpoint))


def _versions(checkpoint: Checkpoint) -> dict[str, str]:
    config = checkpoint.config
    writers = (config.get("meta") or {}).get("quantizer") or []
    pairs = [
        writer.partition(":") for writer in ([writers] if isinstance(writers, str) else writers)
    ]
    found = {name: version for name, _, version in pairs}
    if config["quant_method"] == "compressed-tensors" and config.get("version"):
        found["compressed-tensors"] = config["version"]
    if checkpoint.model_config.get("transformers_version"):
        found["transformers"] = checkpoint.model_config["transformers_version"]
    return found or {config["quant_method"]: "of unknown version"}


def _not_applied(checkpoint: Checkpoint) -> list[str]:
    schemes = (checkpoint.config.get("config_groups") or {}).values()
    asked = {key for scheme in schemes for key, value in scheme.items() if value and "activ" in key}
    cache = ["kv_cache_scheme"] if checkpoint.config.get("kv_cache_scheme") else []
    return sorted(asked) + cache


def _linears(model: nn.Module) -> list[str]:
    """Linear layers inside the blocks, each expert's included."""
    prefix, blocks = decoder_blocks(model)
    plain = [name for name, module in blocks.named_modules() if isinstance(module, nn.Linear)]
    order = {name: number for number, name in enumerate(separate_tensors(blocks))}
    names = sorted([*plain, *expert_slices(blocks)], key=lambda name: order[f"{name}.weight"])
    names.sort(key=lambda name: int(name.partition(".")[0]))
    return [f"{prefix}.{name}" for name in names]


def _quantized(checkpoint: Checkpoint, linears: list[str], prefix: str) -> list[str]:
    """Names of the quantized layers, in the model's order."""
    markers = FORMATS[checkpoint.config["quant_method"]].MARKERS
    found = {}
    for tensor in checkpoint.names:
        marker = next((ending for ending in markers if tensor.endswith(ending)), None)
        if marker is not None:
            found[tensor.removesuffix(marker)] = tensor
    unknown = [tensor for name, tensor in found.items() if name not in set(linears)]
    if unknown:
        raise InputError(
            f"{checkpoint.directory} has {unknown[0]}, which is no linear layer in the model's "
            f"decoder blocks ({prefix}). Either it was quantized from another model, or it has a "
            "quantized head or embedding, which the engine does not run"
        )
    if not found:
        raise InputError(
            f"{checkpoint.directory} has no quantized layer: no tensor is called *{markers[0]}"
        )
    return [name for name in linears if name in found]


def _check_shape(checkpoint: Checkpoint, name: str, layer: QuantizedLayer, own: Tensor) -> None:
    if layer.codes.shape != own.shape:
        raise InputError(
            f"{checkpoint.directory}: {name} is a weight of {list(layer.codes.shape)}, but the "
            f"model's is {list(own.shape)}; was it quantized from another model?"
        )


def _ignored(
    checkpoint: Checkpoint, name: str, own: dict[str, Tensor], layers: list[str], model: nn.Module
) -> bool:
    """Whether a tensor that the model does not have may be there; an error if it may not."""
    if name in own:
        return False
    patterns = getattr(model, "_keys_to_ignore_on_load_unexpected", None) or []
    if DERIVED.search(name) or any(re.search(pattern, name) for pattern in patterns):
        return True
    if name.endswith(".bias") and name.removesuffix(".bias") in set(layers):
        return not checkpoint.tensor(name).any()  # AutoGPTQ gives every layer a bias of zeros
    raise InputError(
        f"{checkpoint.directory} has {name}, which is no tensor of the model; it was quantized "
        "from another model, or is in a format that is not read"
    )


def _check_complete(
    checkpoint: Checkpoint,
    rest: list[str],
    own: dict[str, Tensor],
    layers: dict[str, QuantizedLayer],
    model: nn.Module,
) -> None:
    """Raise where a tensor of the model is in the checkpoint neither quantized nor plain."""
    tied = set(getattr(model, "all_tied_weights_keys", None) or {})
    there = {*rest, *tied, *(f"{name}.weight" for name in layers)}
    missing = [name for name in own if name not in there]
    if missing:
        raise InputError(
            f"{checkpoint.directory} lacks {len(missing)} tensors of the model, such as "
            f"{missing[0]}; it is incomplete, or was quantized from another model"
        )


def _same(checkpoint: Checkpoint, name: str, own: Tensor, stored: Tensor) -> bool:
    """Whether a plain tensor is the model's, rounded to the type that it is stored in."""
    if stored.shape != own.shape:
        raise InputError(
            f"{checkpoint.directory}: {name} is {list(stored.shape)}, but the model's is "
            f"{list(own.shape)}; was it quantized from another model?"
        )
    if not stored.is_floating_point() or stored.element_size() < 2:
        raise checkpoint.damaged(name, "a tensor in full precision")
    if not stored.isfinite().all():
        raise InputError(f"{checkpoint.directory}: {name} has values that are NaN or infinite")
    return torch.equal(own.to(stored.dtype), stored)


def _outside(checkpoint: Checkpoint, name: str, own: Tensor, stored: Tensor) -> InputError:
    largest = (own.float() - stored.float()).abs().max().item()
    return InputError(
        f"{checkpoint.directory}: {name} differs from the model's by up to {largest:.3g}. It lies "
        "outside the decoder blocks, where the engine runs the model's own; name the model that "
        "this checkpoint was quantized from, or one with these embeddings, norm and head"
    )
