"""compressed-tensors (llm-compressor): packed integers, plain int8, and FP8 as stored.

`weight_packed` holds codes of any width as a bit stream along the inputs, `weight_zero_point` the
zeros along the outputs, both shifted by 2**(bits - 1) to be positive. FP8 layers pass through:
their bytes are codes of 8 bits, and the codebook says what float8_e4m3fn means by each.
"""

import torch
from torch import Tensor

from lowbit.errors import InputError
from lowbit.quantization.bitstream import unpack
from lowbit.quantization.published.checkpoint import Checkpoint, equal_groups
from lowbit.quantization.quantized import QuantizedLayer

MARKERS = (".weight_packed", ".weight_scale")
PARTS = (
    "weight",
    "weight_packed",
    "weight_scale",
    "weight_zero_point",
    "weight_shape",
    "weight_g_idx",
    "input_scale",
    "input_zero_point",
    "input_global_scale",
    "weight_global_scale",
)


def read(checkpoint: Checkpoint, name: str) -> QuantizedLayer:
    """Read one layer; the library computes the same in the type of the scales."""
    if f"{name}.weight_global_scale" in checkpoint:
        raise InputError(f"{name}.weight_global_scale belongs to NVFP4, which is not read")
    if f"{name}.weight_packed" in checkpoint:
        return _packed(checkpoint, name)
    weight = checkpoint.tensor(f"{name}.weight")
    if weight.dtype == torch.int8 and weight.dim() == 2:
        codes, codebook = (weight.to(torch.int16) + 128).to(torch.uint8), None
    elif weight.dtype == torch.float8_e4m3fn and weight.dim() == 2:
        codes, codebook = weight.view(torch.uint8), float8_values()
    else:
        raise checkpoint.damaged(f"{name}.weight", "a matrix of int8 or float8_e4m3fn")
    if codebook is not None and bool(codebook[codes.int()].isnan().any()):
        raise InputError(f"{checkpoint.directory}: {name}.weight has values that are NaN")
    return _scaled(checkpoint, name, codes, 8, codebook)


def float8_values() -> Tensor:
    """What each byte means in float8_e4m3fn, float32 `[256]`; bytes 127 and 255 are NaN."""
    return torch.arange(256).to(torch.uint8).view(torch.float8_e4m3fn).float()


def _packed(checkpoint: Checkpoint, name: str) -> QuantizedLayer:
    place = f"{name}.weight_packed"
    words = checkpoint.matrix(place, torch.int32)
    shape = checkpoint.tensor(f"{name}.weight_shape").tolist()
    if len(shape) != 2 or shape[0] != words.shape[0]:
        raise checkpoint.damaged(f"{name}.weight_shape", f"[{words.shape[0]}, inputs]")
    bits = _bits(checkpoint, name, words.shape[1], shape[1])
    if words.shape[1] == -(-shape[1] * bits // 32):
        codes = checkpoint.codes(place, words, bits, shape[1])
    else:  # releases before 0.16 start a word with a whole code
        codes = _whole_codes(words, bits)[:, : shape[1]]
    return _scaled(checkpoint, name, codes, bits, None)


def _bits(checkpoint: Checkpoint, name: str, words: int, columns: int) -> int:
    """The bits, of the schemes in the config, for which the words have room for just the codes."""
    schemes = checkpoint.config.get("config_groups", {}).values()
    known = {scheme["weights"]["num_bits"] for scheme in schemes if scheme.get("weights")}
    dense = [bits for bits in known if words == -(-columns * bits // 32)]
    fitting = dense or [bits for bits in known if words == -(-columns // (32 // bits))]
    if len(fitting) != 1:
        raise checkpoint.damaged(
            f"{name}.weight_packed", f"{columns} codes of {sorted(known)} bits, as the config says"
        )
    return fitting[0]


def _whole_codes(words: Tensor, bits: int) -> Tensor:
    """Unpack words `[rows, words]` that each hold 32 // bits codes and waste the rest."""
    per_word = 32 // bits
    streams = words.reshape(-1, 1).view(torch.uint8)[:, : (per_word * bits + 7) // 8]
    return unpack(streams.contiguous(), bits, per_word).view(words.shape[0], -1)


def _scaled(
    checkpoint: Checkpoint, name: str, codes: Tensor, bits: int, codebook: Tensor | None
) -> QuantizedLayer:
    """Add scales (and zeros): one for all, per row, per group of a row, or per block of rows."""
    rows, columns = codes.shape
    found = checkpoint.tensor(f"{name}.weight_scale")
    scales = checkpoint.scales(f"{name}.weight_scale", *found.shape)
    zeros = _zeros(checkpoint, name, bits, rows, found)
    if scales.numel() == 1:
        size, permutation, scales = columns, None, scales.view(1, 1)
    else:
        size, permutation, pieces = _groups(checkpoint, name, columns, found.shape[-1])
        scales = _per_row(checkpoint, name, scales, rows)[:, pieces]
        zeros = None if zeros is None else zeros[:, pieces]
    return QuantizedLayer(
        codes=codes if permutation is None else codes[:, permutation],
        bits=bits,
        group_size=size,
        scales=scales,
        zeros=zeros,
        codebook=codebook,
        permutation=permutation,
    )


def _groups(
    checkpoint: Checkpoint, name: str, columns: int, groups: int
) -> tuple[int, Tensor | None, Tensor]:
    place = f"{name}.weight_g_idx"
    g_idx = checkpoint.tensor(place) if place in checkpoint else torch.tensor([-1])
    if int(g_idx.min()) < 0:  # -1 where it is not used
        return equal_groups(f"{name}.weight_scale", torch.arange(columns) // -(-columns // groups))
    if len(g_idx) != columns or int(g_idx.max()) >= groups:
        raise checkpoint.damaged(place, f"the group, below {groups}, of {columns} columns")
    return equal_groups(place, g_idx)


def _per_row(checkpoint: Checkpoint, name: str, scales: Tensor, rows: int) -> Tensor:
    """Scales `[out, groups]` of scales stored per row, or per block of so many rows."""
    if scales.dim() != 2 or not 1 <= scales.shape[0] <= rows:
        raise checkpoint.damaged(f"{name}.weight_scale", f"[{rows}, groups]")
    block = -(-rows // scales.shape[0])
    if -(-rows // block) != scales.shape[0]:
        raise checkpoint.damaged(f"{name}.weight_scale", f"[{rows}, groups]")
    return scales.repeat_interleave(block, dim=0)[:rows]


def _zeros(
    checkpoint: Checkpoint, name: str, bits: int, rows: int, scales: Tensor
) -> Tensor | None:
    """Zeros shaped like the scales, moved by the same offset as the codes; None if symmetric."""
    place = f"{name}.weight_zero_point"
    if place not in checkpoint:
        return None
    stored = checkpoint.tensor(place)
    if stored.dtype == torch.int8 and stored.shape == scales.shape:
        return (stored.to(torch.int16) + 2 ** (bits - 1)).to(torch.uint8)
    if stored.dtype != torch.int32 or stored.dim() != 2 or stored.shape[1] != scales.shape[-1]:
        raise checkpoint.damaged(place, f"zeros for scales {list(scales.shape)}")
    if stored.shape[0] == -(-rows * bits // 32):
        return checkpoint.codes(place, stored.T, bits, rows).T
    if stored.shape[0] == -(-rows // (32 // bits)):
        return _whole_codes(stored.T.contiguous(), bits)[:, :rows].T
    raise checkpoint.damaged(place, f"packed zeros of {rows} rows")
