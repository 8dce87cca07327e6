"""Codes of 1 to 8 bits as a little-endian bit stream along the input dimension.

Code j of a row takes the bits [j * bits, (j + 1) * bits) of that row's stream, its lowest bit
first; bit i of the stream is bit i % 8 of byte i // 8. Each row starts at a byte. Eight codes
always fill `bits` bytes, so both directions work on runs of eight codes in one 64-bit word.
"""

import torch
from torch import Tensor

_RUN = 8
"""Codes per 64-bit word."""


def row_bytes(columns: int, bits: int) -> int:
    """Bytes of one packed row of `columns` codes."""
    return (columns * bits + 7) // 8


def pack(codes: Tensor, bits: int) -> Tensor:
    """Pack integer codes `[rows, columns]`, each in [0, 2**bits), into uint8 `[rows, row_bytes]`.

    Raises:
        ValueError: `bits` outside 1 to 8, or a code that does not fit.
    """
    _check_bits(bits)
    rows, columns = codes.shape
    if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < 2**bits:
        raise ValueError(f"codes from {codes.min()} to {codes.max()} do not fit {bits} bits")
    runs = -(-columns // _RUN)
    padded = torch.nn.functional.pad(codes, (0, runs * _RUN - columns)).view(rows, runs, _RUN)
    words = torch.zeros(rows, runs, dtype=torch.int64, device=codes.device)
    for position in range(_RUN):
        words |= padded[..., position].to(torch.int64) << (bits * position)
    stream = torch.empty(rows, runs, bits, dtype=torch.uint8, device=codes.device)
    for byte in range(bits):
        stream[..., byte] = (words >> (8 * byte)) & 0xFF
    return stream.view(rows, runs * bits)[:, : row_bytes(columns, bits)].contiguous()


def unpack(stream: Tensor, bits: int, columns: int) -> Tensor:
    """Invert `pack`: uint8 `[rows, row_bytes(columns, bits)]` to uint8 codes `[rows, columns]`.

    Raises:
        ValueError: `bits` outside 1 to 8, or a stream of another width.
    """
    _check_bits(bits)
    rows, width = stream.shape
    if width != row_bytes(columns, bits):
        raise ValueError(f"{columns} codes of {bits} bits are not {width} bytes per row")
    runs = -(-columns // _RUN)
    padded = torch.nn.functional.pad(stream, (0, runs * bits - width)).view(rows, runs, bits)
    words = torch.zeros(rows, runs, dtype=torch.int64, device=stream.device)
    for byte in range(bits):
        words |= padded[..., byte].to(torch.int64) << (8 * byte)
    codes = torch.empty(rows, runs, _RUN, dtype=torch.uint8, device=stream.device)
    for position in range(_RUN):
        codes[..., position] = (words >> (bits * position)) & (2**bits - 1)
    return codes.view(rows, runs * _RUN)[:, :columns].contiguous()


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise ValueError(f"codes have 1 to 8 bits, not {bits}")
