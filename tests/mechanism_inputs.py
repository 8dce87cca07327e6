"""Tiny random models with quantized versions, and the files that scripts about mechanisms read."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from tiny_models import build, token_ids
from torch import Tensor, nn

from lowbit.engine.decoder import Decoder
from lowbit.engine.engine import Engine
from lowbit.engine.walk import Stream, own_parameters
from lowbit.experiments.residuals import measure_residuals
from lowbit.files import sha256, write_json
from lowbit.names import FULL
from lowbit.quantization.experts import separate_tensors
from lowbit.quantization.quantized import QuantizedLayer, describe, write_quantized
from lowbit.quantizers import rtn

SETTINGS = {
    "threads": 1,
    "device": "cpu",
    "dtype": "float32",
    "batch_size": 4,
    "mode": "resident",
}
GROUP = 16


def open_engine(
    model: nn.Module, batch_size: int = 4, dtype: torch.dtype = torch.float32
) -> Engine:
    """An engine around a model in memory."""
    full = Stream(FULL, own_parameters)
    cpu = torch.device("cpu")
    return Engine(Decoder(model.to(dtype)), full, dtype, cpu, batch_size, resident=True)


def linear_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights of all linear layers in the blocks, merged experts' apart, by the layer's name."""
    decoder = Decoder(model)
    return {
        f"{decoder.blocks_name}.{name.removesuffix('.weight')}": tensor.detach().clone()
        for name, tensor in separate_tensors(decoder.blocks).items()
        if name.endswith(".weight") and tensor.dim() == 2 and "mlp.gate.weight" not in name
    }


def quantized_layers(model: nn.Module, bits: int) -> dict[str, QuantizedLayer]:
    """All linear layers of the blocks, rounded to nearest."""
    weights = linear_weights(model).items()
    return {name: rtn.quantize(weight, bits=bits, group_size=GROUP) for name, weight in weights}


def folded_layers(
    model: nn.Module, bits: int
) -> tuple[dict[str, QuantizedLayer], dict[str, Tensor]]:
    """The same with scales moved as AWQ does: from the MLP's norm into gate and up, from up into
    down; and the norms' weights, which are replaced.
    """
    layers, replaced = quantized_layers(model, bits), {}
    generator = torch.Generator().manual_seed(3)
    for index, block in enumerate(model.model.layers):
        prefix = f"model.layers.{index}."
        into_h, into_up = (torch.rand(n, generator=generator) + 0.5 for n in (64, 128))
        norm = block.post_attention_layernorm.weight.detach()
        replaced[f"{prefix}post_attention_layernorm.weight"] = norm / into_h
        for name, scales in {
            "gate_proj": {"folded_scale": into_h},
            "up_proj": {"folded_scale": into_h, "output_scale": into_up},
            "down_proj": {"folded_scale": into_up},
        }.items():
            weight = block.mlp.get_submodule(name).weight.detach() * scales["folded_scale"]
            if "output_scale" in scales:
                weight = weight / scales["output_scale"][:, None]
            layer = rtn.quantize(weight, bits=bits, group_size=GROUP)
            layers[f"{prefix}mlp.{name}"] = QuantizedLayer(**vars(layer) | scales)
    return layers, replaced


def write_method(
    folder: Path,
    layers: Mapping[str, QuantizedLayer],
    replaced: Mapping[str, Tensor] | None = None,
    **fields: str,
) -> Path:
    """Write quantized weights; return the record's path. `fields`: more of the record."""
    folder.mkdir(parents=True)
    write_quantized(folder / "weights.safetensors", layers, replaced or {})
    described = {name: describe(layer) for name, layer in layers.items()}
    digest = sha256(folder / "weights.safetensors")
    record = {"layers": described, "weights_sha256": digest, "changed": sorted(replaced or {})}
    write_json(folder / "method.json", record | fields)
    return folder / "method.json"


def write_model(folder: Path, name: str, documents: int = 12, length: int = 20) -> nn.Module:
    """Write a tiny model, tokens, errors, sets and residuals as the stages before do.

    The errors are of a method `m`; the first third of the documents is its D_large, the last third
    its D_ctrl.
    """
    model = build(name)
    model.save_pretrained(folder / "files")
    files = sorted((folder / "files").iterdir())
    recorded = {file.name: {"sha256": sha256(file), "bytes": file.stat().st_size} for file in files}
    write_json(folder / "model.json", {"files": recorded})
    ids = token_ids(documents, length).int().numpy()
    doc_ids = [f"d{number:02}" for number in range(documents)]
    rows = pa.FixedSizeListArray.from_arrays(pa.array(ids.ravel()), length)
    pq.write_table(pa.table({"doc_id": doc_ids, "token_ids": rows}), folder / "tokens.parquet")
    error = np.linspace(1, 0, documents)
    nll = np.random.default_rng(4).normal(4, 1, documents)
    errors = {"doc_id": doc_ids, "method": "m", "error": error, "nll_full": nll, "nll": nll + error}
    pd.DataFrame(errors).to_parquet(folder / "errors.parquet")
    third = documents // 3
    sets = {"doc_id": doc_ids[:third] + doc_ids[-third:], "method": "m"}
    sets["set"] = ["large"] * third + ["control"] * third
    pd.DataFrame(sets).to_parquet(folder / "sets.parquet")
    write_residuals(folder / "residuals.parquet", model, doc_ids, ids)
    return model


def write_residuals(path: Path, model: nn.Module, doc_ids: list[str], ids: np.ndarray) -> None:
    """Measure the norms and write them as residuals.py does."""
    engine = open_engine(model)
    batches = [batch.documents for batch in measure_residuals(engine, ids)]
    layers = np.arange(1, len(engine.decoder) + 1)
    keys = {"doc_id": np.repeat(doc_ids, len(layers)), "layer": np.tile(layers, len(doc_ids))}
    norms = {name: np.concatenate([b[name] for b in batches]).ravel() for name in batches[0]}
    pd.DataFrame(keys | norms).to_parquet(path)
