"""A Llama of any size with random weights, written shard by shard, and its weights in 4 bits."""

import json
from collections import defaultdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from bench.shape import Shape
from lowbit.files import sha256, write_json
from lowbit.quantization.quantized import describe, write_quantized
from lowbit.quantizers import rtn

SCALE = 0.02
"""Standard deviation of the weights, as transformers initializes a Llama's."""
BLOCKS = "model.layers."


def write_model(shape: Shape, folder: Path, length: int, bits: int, group_size: int) -> None:
    """Write float32 weights, a shard per block, and their rounding to `bits` bits.

    The same arguments give the same bytes. In `folder` there are then `model.json` with `files/`,
    as `fetch_model.py` leaves a model, and `rtn/method.json`, as `quantize.py` leaves a method.
    """
    files = folder / "files"
    files.mkdir(parents=True)
    config = shape.config(length)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(files)
    generator = torch.Generator().manual_seed(0)
    placed, layers = {}, {}
    for shard, shapes in _shards(config).items():
        tensors = {name: _random(size, generator) for name, size in shapes.items()}
        save_file(tensors, files / shard, {"format": "pt"})
        placed |= dict.fromkeys(tensors, shard)
        for name, tensor in tensors.items():
            if name.startswith(BLOCKS) and tensor.dim() == 2:
                module = name.removesuffix(".weight")
                layers[module] = rtn.quantize(tensor, bits=bits, group_size=group_size)
    index = {"metadata": {"total_size": 4 * shape.parameters}, "weight_map": placed}
    (files / "model.safetensors.index.json").write_text(json.dumps(index))
    sizes = {path.name: {"bytes": path.stat().st_size} for path in sorted(files.iterdir())}
    write_json(folder / "model.json", {"files": sizes})
    weights = folder / "rtn" / "weights.safetensors"
    write_quantized(weights, layers, {})
    described = {name: describe(layer) for name, layer in layers.items()}
    record = {"weights_sha256": sha256(weights), "layers": described}
    write_json(folder / "rtn" / "method.json", record)


def _shards(config: LlamaConfig) -> dict[str, dict[str, torch.Size]]:
    """Name and size of every parameter, by the file that it is written to."""
    with torch.device("meta"):
        state = LlamaForCausalLM(config).state_dict()
    found: dict[str, dict[str, torch.Size]] = defaultdict(dict)
    for name, tensor in state.items():
        inside = name.startswith(BLOCKS)
        part = f"block-{int(name.split('.')[2]):03d}" if inside else "other"
        found[f"model-{part}.safetensors"][name] = tensor.shape
    return found


def _random(size: torch.Size, generator: torch.Generator) -> Tensor:
    """Weights of a matrix, or of a norm."""
    return torch.randn(size, generator=generator) * SCALE + (1 if len(size) == 1 else 0)
