"""HQQ as safetensors (transformers' and the package's own): `W_q`, `scale`, `zero` and its meta.

Groups are rows of the stored matrix (axis 1) or its columns (axis 0); codes of one byte or word are
`rows / codes per word` rows apart, the first in the highest bits.
"""

import torch
from torch import Tensor

from lowbit.errors import InputError
from lowbit.quantization.published.checkpoint import Checkpoint
from lowbit.quantization.quantized import QuantizedLayer, join_groups

MARKERS = (".W_q",)
PARTS = (
    *("W_q", "scale", "zero", "nbits", "group_size", "shape", "axis", "packing"),
    *("unpack_view_dtype", "view_as_float", "quant_scale", "quant_zero", "compute_dtype"),
    *("offload_meta", "encoded_state_dict", "stores_quant_config", "channel_wise"),
    *("optimize", "round_zero"),
)
PACKINGS = {
    "8bit_u8": (8, 1, torch.uint8),
    "4bit_u8": (4, 2, torch.uint8),
    "3bit_32": (3, 10, torch.int32),
    "2bit_u8": (2, 4, torch.uint8),
    "1bit_u8": (1, 8, torch.uint8),
}
"""Name -> bits of a place, places per word, type of a word."""


def read(checkpoint: Checkpoint, name: str) -> QuantizedLayer:
    """Read one layer; the library computes (code - zero) * scale in the type of its meta."""
    nbits, axis = (_number(checkpoint, f"{name}.{key}") for key in ("nbits", "axis"))
    rows, columns = checkpoint.tensor(f"{name}.shape").tolist()
    grouped = columns if axis == 1 else rows
    size = _number(checkpoint, f"{name}.group_size") if f"{name}.group_size" in checkpoint else 0
    size = size or grouped
    if axis not in (0, 1) or grouped % size:
        raise checkpoint.damaged(f"{name}.group_size", f"a divisor of {grouped}")
    groups = rows * columns // size
    codes = _unpacked(checkpoint, name)
    lines, width = (groups, size) if axis == 1 else (size, groups)
    if codes.shape[1] != width or codes.shape[0] < lines:
        raise checkpoint.damaged(f"{name}.W_q", f"the packed codes of {rows} x {columns} weights")
    stored = (groups, 1) if axis == 1 else (1, groups)
    view = (rows, columns // size, size) if axis == 1 else (size, rows // size, columns)
    kept = (rows, columns // size, 1) if axis == 1 else (1, rows // size, columns)
    return join_groups(
        codes[:lines].reshape(view),
        checkpoint.scales(f"{name}.scale", *stored).view(kept),
        checkpoint.scales(f"{name}.zero", *stored).view(kept),
        bits=nbits,
        axis=axis,
    )


def _unpacked(checkpoint: Checkpoint, name: str) -> Tensor:
    packing = "".join(map(chr, checkpoint.tensor(f"{name}.packing").tolist()))
    if packing not in PACKINGS:
        raise InputError(f"{name}.packing is {packing!r}, which is not read: {', '.join(PACKINGS)}")
    bits, places, dtype = PACKINGS[packing]
    words = checkpoint.tensor(f"{name}.W_q")
    if words.is_floating_point():  # the same bytes under another name, for sharded training
        words = words.view(dtype)
    if words.dtype != dtype or words.dim() != 2:
        raise checkpoint.damaged(f"{name}.W_q", f"a matrix of {packing}")
    shifts = [bits * place for place in reversed(range(places))]
    return torch.cat([(words >> shift) & (2**bits - 1) for shift in shifts]).to(torch.uint8)


def _number(checkpoint: Checkpoint, name: str) -> int:
    found = checkpoint.tensor(name)
    if found.numel() != 1:
        raise checkpoint.damaged(name, "one number")
    return int(found.item())
