"""Packing of codes: against numpy's bit order, and back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lowbit.quantization.bitstream import pack, row_bytes, unpack

CODES = st.tuples(st.integers(1, 8), st.integers(0, 5), st.integers(1, 70), st.integers(0, 2**32))


def draw(bits: int, rows: int, columns: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2**bits, (rows, columns), generator=generator, dtype=torch.uint8)


@settings(max_examples=200)
@given(CODES)
def test_round_trip(case: tuple[int, int, int, int]) -> None:
    codes = draw(*case)
    stream = pack(codes, case[0])
    assert stream.shape == (case[1], row_bytes(case[2], case[0]))
    assert torch.equal(unpack(stream, case[0], case[2]), codes)


@settings(max_examples=50)
@given(CODES)
def test_is_a_little_endian_bit_stream(case: tuple[int, int, int, int]) -> None:
    """The layout by numpy: every code's bits, lowest first, then packed lowest bit first."""
    bits, rows, columns, _ = case
    codes = draw(*case).numpy()
    flat = (codes[:, :, None] >> np.arange(bits, dtype=np.uint8)) & 1
    expected = np.packbits(flat.reshape(rows, columns * bits), axis=1, bitorder="little")
    assert np.array_equal(pack(torch.from_numpy(codes), bits).numpy(), expected)


@pytest.mark.parametrize("codes", [[[8]], [[-1]]])
def test_a_code_that_does_not_fit_is_refused(codes: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="do not fit 3 bits"):
        pack(torch.tensor(codes), 3)


def test_a_stream_of_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="not 4 bytes"):
        unpack(torch.zeros(2, 4, dtype=torch.uint8), 3, 16)


def test_bits_outside_one_to_eight_are_refused() -> None:
    with pytest.raises(ValueError, match="not 9"):
        pack(torch.zeros(1, 1, dtype=torch.uint8), 9)
