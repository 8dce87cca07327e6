"""AutoGPTQ and GPTQModel: `qweight`, `qzeros`, `scales`, `g_idx`.

Codes are bit streams along the inputs, zeros along the outputs. Format `gptq` stores zero - 1
(modulo 2**bits), `gptq_v2` the zero itself.
"""

import re

import torch

from lowbit.errors import InputError
from lowbit.quantization.published.checkpoint import Checkpoint, equal_groups
from lowbit.quantization.quantized import QuantizedLayer

MARKERS = (".qweight",)
PARTS = ("qweight", "qzeros", "scales", "g_idx")
FORMATS = {"gptq": 1, "gptq_v2": 0}
"""What was taken from each zero before it was stored."""
BITS = (2, 3, 4, 8)


def read(checkpoint: Checkpoint, name: str) -> QuantizedLayer:
    """Read one layer; `dequantize` is the library's (code - zero) * scale before any rounding."""
    config = checkpoint.config
    bits, taken = _bits(checkpoint, name), _taken(checkpoint)
    words = checkpoint.matrix(f"{name}.qweight", torch.int32)
    rows, groups = words.shape[1], checkpoint.tensor(f"{name}.scales").shape[0]
    place = f"{name}.g_idx"
    if place in checkpoint:
        g_idx = checkpoint.tensor(place)
        if g_idx.dim() != 1 or not 0 <= int(g_idx.min()) <= int(g_idx.max()) < groups:
            raise checkpoint.damaged(place, f"the group, below {groups}, of each column")
    else:
        columns = words.shape[0] * 32 // bits
        size = config["group_size"] if config["group_size"] > 0 else columns
        g_idx = torch.arange(columns) // size
    codes = checkpoint.codes(f"{name}.qweight", words.T, bits, len(g_idx))
    scales = checkpoint.scales(f"{name}.scales", groups, rows)
    packed = checkpoint.matrix(f"{name}.qzeros", torch.int32, groups)
    zeros = (checkpoint.codes(f"{name}.qzeros", packed, bits, rows) + taken) & (2**bits - 1)
    size, permutation, pieces = equal_groups(place, g_idx)
    return QuantizedLayer(
        codes=codes if permutation is None else codes[:, permutation],
        bits=bits,
        group_size=size,
        scales=scales.T[:, pieces],
        zeros=zeros.T[:, pieces],
        permutation=permutation,
    )


def _bits(checkpoint: Checkpoint, name: str) -> int:
    """Bits of one layer: the checkpoint's, unless a rule of its own (GPTQModel) matches."""
    bits = checkpoint.config["bits"]
    for rule, settings in (checkpoint.config.get("dynamic") or {}).items():
        if not rule.startswith("-:") and re.match(rule.removeprefix("+:"), name):
            bits = settings.get("bits", bits)
            break
    if bits not in BITS:
        raise InputError(f"{name}.qweight has {bits} bits; of GPTQ only {BITS} are read")
    return bits


def _taken(checkpoint: Checkpoint) -> int:
    config = checkpoint.config
    kind = config.get("checkpoint_format") or config.get("format") or "gptq"
    if kind not in FORMATS:
        raise InputError(
            f"{checkpoint.directory}: checkpoint_format {kind!r} of GPTQ is not read, only "
            f"{' and '.join(FORMATS)}; save it again in one of these"
        )
    return FORMATS[kind]
