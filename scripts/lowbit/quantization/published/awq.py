"""AutoAWQ's GEMM format: `qweight`, `qzeros`, `scales`, four bits.

Both codes `[in, out / 8]` and zeros `[groups, out / 8]` are packed along the outputs; the nibbles
of a word, lowest first, belong to outputs 0, 2, 4, 6, 1, 3, 5, 7 of eight.
"""

import torch
from torch import Tensor

from lowbit.errors import InputError
from lowbit.quantization.published.checkpoint import Checkpoint
from lowbit.quantization.quantized import QuantizedLayer

MARKERS = (".qweight",)
PARTS = ("qweight", "qzeros", "scales")
BITS = 4
NIBBLE_OF_OUTPUT = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where in its word each of eight outputs lies."""


def read(checkpoint: Checkpoint, name: str) -> QuantizedLayer:
    """Read one layer; the library computes the same (code - zero) * scale in float16."""
    kind = (checkpoint.config.get("version") or checkpoint.config.get("format") or "gemm").lower()
    if kind != "gemm" or checkpoint.config["bits"] != BITS:
        raise InputError(
            f"{name}.qweight is in AWQ's format {kind} with {checkpoint.config['bits']} bits; only "
            "gemm with 4 bits is read"
        )
    words = checkpoint.matrix(f"{name}.qweight", torch.int32)
    columns, rows = words.shape[0], words.shape[1] * 8
    zeros = checkpoint.matrix(f"{name}.qzeros", torch.int32)
    groups = zeros.shape[0]
    if zeros.shape[1] != words.shape[1] or columns % groups:
        raise checkpoint.damaged(f"{name}.qzeros", f"[groups, {words.shape[1]}] of int32")
    return QuantizedLayer(
        codes=_in_order(checkpoint, f"{name}.qweight", words, rows).T.contiguous(),
        bits=BITS,
        group_size=columns // groups,
        scales=checkpoint.scales(f"{name}.scales", groups, rows).T.contiguous(),
        zeros=_in_order(checkpoint, f"{name}.qzeros", zeros, rows).T.contiguous(),
    )


def _in_order(checkpoint: Checkpoint, name: str, words: Tensor, rows: int) -> Tensor:
    """Unpack `[any, out / 8]` words to `[any, out]` codes in the outputs' order."""
    nibbles = checkpoint.codes(name, words, BITS, rows)
    return nibbles.unflatten(1, (-1, 8))[:, :, NIBBLE_OF_OUTPUT].flatten(1)
