"""bitsandbytes, four bits (NF4, FP4): `weight`, `weight.absmax`, `weight.quant_map`, ...

Codes lie two in a byte, the first in its high half; blocks run over the flattened matrix. With
double quantization `absmax` holds codes itself.
"""

import json
from math import gcd
from typing import Any

import torch
from torch import Tensor

from lowbit.errors import InputError
from lowbit.quantization.published.checkpoint import Checkpoint
from lowbit.quantization.quantized import QuantizedLayer

MARKERS = (".weight.absmax", ".weight.quant_map")
PARTS = (
    "weight",
    "weight.absmax",
    "weight.quant_map",
    "weight.nested_absmax",
    "weight.nested_quant_map",
    "weight.quant_state.bitsandbytes__nf4",
    "weight.quant_state.bitsandbytes__fp4",
)
BITS = 4


def read(checkpoint: Checkpoint, name: str) -> QuantizedLayer:
    """Read one layer; the library computes the same in float32, then rounds to its own type."""
    state = _state(checkpoint, f"{name}.weight")
    rows, columns = state["shape"]
    packed = checkpoint.tensor(f"{name}.weight")
    flat = packed.reshape(-1).view(torch.uint8)
    if flat.numel() != (rows * columns + 1) // 2:
        raise checkpoint.damaged(f"{name}.weight", f"the bytes of {rows} x {columns} half bytes")
    codes = torch.stack([flat >> 4, flat & 15], dim=1).view(-1)[: rows * columns]
    size = gcd(columns, state["blocksize"])
    starts = torch.arange(0, rows * columns, size)
    return QuantizedLayer(
        codes=codes.view(rows, columns),
        bits=BITS,
        group_size=size,
        scales=_scales(checkpoint, f"{name}.weight", state)[starts // state["blocksize"]].view(
            rows, -1
        ),
        codebook=checkpoint.scales(f"{name}.weight.quant_map", 2**BITS),
    )


def _state(checkpoint: Checkpoint, weight: str) -> dict[str, Any]:
    """The JSON that lies in a tensor of bytes beside the weight."""
    for kind in ("nf4", "fp4"):
        place = f"{weight}.quant_state.bitsandbytes__{kind}"
        if place in checkpoint:
            try:
                state = json.loads(bytes(checkpoint.tensor(place).tolist()))
                rows, columns = state["shape"]
                if state["blocksize"] > 0 and rows > 0 and columns > 0:
                    return state
            except (ValueError, KeyError, TypeError):
                pass
            raise checkpoint.damaged(place, "JSON with the weight's shape and blocksize")
    raise InputError(
        f"{checkpoint.directory} has no {weight}.quant_state.bitsandbytes__nf4 (or fp4); only "
        "4-bit layers in the form that transformers saves are read"
    )


def _scales(checkpoint: Checkpoint, weight: str, state: dict[str, Any]) -> Tensor:
    """Largest magnitude of each block, float32 `[blocks]`."""
    blocks = -(-state["shape"][0] * state["shape"][1] // state["blocksize"])
    if f"{weight}.nested_absmax" not in checkpoint:
        return checkpoint.scales(f"{weight}.absmax", blocks)
    codes = checkpoint.tensor(f"{weight}.absmax")
    if codes.dtype != torch.uint8 or codes.shape != (blocks,):
        raise checkpoint.damaged(f"{weight}.absmax", f"[{blocks}] of uint8")
    size = state["nested_blocksize"]
    outer = checkpoint.scales(f"{weight}.nested_absmax", -(-blocks // size))
    levels = checkpoint.scales(f"{weight}.nested_quant_map", 256)
    return levels[codes.int()] * outer[torch.arange(blocks) // size] + state["nested_offset"]
