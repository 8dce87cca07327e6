"""The quantized-weights file: what goes in comes out, and a broken file is told apart."""

import os
from pathlib import Path

import pytest
import torch

from lowbit.errors import InputError
from lowbit.files import sha256, write_json
from lowbit.quantization.bitstream import row_bytes
from lowbit.quantization.quantized import (
    QuantizedLayer,
    QuantizedWeights,
    bits_per_weight,
    dequantize,
    describe,
    relative_error,
    sqnr_db,
    write_quantized,
)
from lowbit.quantizers import nf, power, rtn


def random_codes(bits: int, rows: int = 6, columns: int = 20) -> torch.Tensor:
    return torch.randint(2**bits, (rows, columns), dtype=torch.uint8)


def every_kind_of_layer() -> dict[str, QuantizedLayer]:
    torch.manual_seed(0)
    return {
        "rtn": rtn.quantize(torch.randn(6, 20), bits=3, group_size=10),
        "symmetric": rtn.quantize(torch.randn(6, 20), bits=5, group_size=20, symmetric=True),
        "tensor": rtn.quantize(torch.randn(6, 20), bits=2, group_size="tensor"),
        "along_outputs": rtn.quantize(torch.randn(6, 20), bits=4, group_size=3, axis=0),
        "nf": nf.quantize(torch.randn(6, 20), bits=3, group_size=4),
        "power": power.quantize(torch.randn(6, 20), bits=3, group_size=10),
        "row_codebook": QuantizedLayer(random_codes(3), 3, 20, codebook=torch.randn(6, 8)),
        "permuted": QuantizedLayer(
            random_codes(4),
            4,
            5,
            scales=torch.rand(6, 4),
            zeros=torch.rand(6, 4),
            permutation=torch.randperm(20, dtype=torch.int32),
            folded_scale=torch.rand(20),
        ),
    }


def write(folder: Path, layers: dict[str, QuantizedLayer], **extra: torch.Tensor) -> Path:
    weights, record = folder / "weights.safetensors", folder / "method.json"
    write_quantized(weights, layers, extra)
    entries = {name: describe(layer) for name, layer in layers.items()}
    write_json(record, {"weights_sha256": sha256(weights), "layers": entries})
    return weights


def read(weights: Path) -> QuantizedWeights:
    return QuantizedWeights(weights, weights.with_name("method.json"))


def test_every_layer_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    layers = every_kind_of_layer()
    norm = torch.randn(7, 2).T  # not contiguous
    weights = read(write(tmp_path, layers, **{"model.norm.weight": norm}))
    assert weights.names == list(layers)
    assert list(weights.replaced) == ["model.norm.weight"]
    assert torch.equal(weights.replaced["model.norm.weight"], norm)
    for name, layer in layers.items():
        stored = weights.layer(name)
        for part, value in vars(layer).items():
            same = torch.equal if isinstance(value, torch.Tensor) else lambda a, b: a == b
            assert same(getattr(stored, part), value), (name, part)
        assert torch.equal(weights.dequantize(name), dequantize(layer))
        rounded = dequantize(layer).to(torch.bfloat16)
        assert torch.equal(weights.dequantize(name, torch.bfloat16), rounded)


def test_dequantize_by_hand() -> None:
    codes = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0]], dtype=torch.uint8)
    scales = torch.tensor([[1.0, 10.0], [0.5, 2.0]])
    zeros = torch.tensor([[1.0, 0.0], [2.0, 0.5]])
    layer = QuantizedLayer(codes, 2, 2, scales, zeros)
    expected = torch.tensor([[-1.0, 0.0, 20.0, 30.0], [0.5, 0.0, 1.0, -1.0]])
    assert torch.equal(dequantize(layer), expected)


def test_without_zeros_codes_are_centred() -> None:
    codes = torch.tensor([[0, 1, 2, 3]], dtype=torch.uint8)
    layer = QuantizedLayer(codes, 2, 4, scales=torch.tensor([[2.0]]))
    assert dequantize(layer).tolist() == [[-4.0, -2.0, 0.0, 2.0]]


def test_groups_along_the_outputs_are_interleaved_rows() -> None:
    codes = torch.ones(4, 3, dtype=torch.uint8)
    scales = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    layer = QuantizedLayer(codes, 2, 2, scales, torch.zeros(2, 3), axis=0)
    assert torch.equal(dequantize(layer), scales.repeat(2, 1))


def test_permutation_puts_columns_back() -> None:
    torch.manual_seed(0)
    weight, order = torch.randn(4, 16), torch.randperm(16)
    ordered = rtn.quantize(weight[:, order], bits=8, group_size=4)
    layer = QuantizedLayer(**{**vars(ordered), "permutation": order})
    assert relative_error(weight, dequantize(layer)) < 0.01


@pytest.mark.parametrize(("bits", "group_size"), [(2, 64), (3, 64), (3, 128), (4, 32), (8, 256)])
def test_size_is_that_of_codes_and_scales(tmp_path: Path, bits: int, group_size: int) -> None:
    layer = rtn.quantize(torch.randn(128, 256), bits=bits, group_size=group_size)
    weights = write(tmp_path, {"layer": layer})
    groups = layer.codes.numel() // group_size
    expected = layer.codes.numel() * bits / 8 + groups * 5  # a float32 scale and a one-byte zero
    assert expected <= weights.stat().st_size < 1.1 * expected
    assert bits_per_weight({"layer": layer}) == 8 * expected / layer.codes.numel()


def test_bits_per_weight_counts_padding() -> None:
    layer = QuantizedLayer(random_codes(3, 2, 5), 3, 5, codebook=torch.zeros(8))
    assert bits_per_weight({"layer": layer}) == 8 * (2 * row_bytes(5, 3) + 32) / 10


def test_same_layers_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write(tmp_path / name, every_kind_of_layer(), **{"b": torch.ones(2), "a": torch.ones(3)})
    files = [tmp_path / name / "weights.safetensors" for name in ("first", "second")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_others_may_read_the_file(tmp_path: Path) -> None:
    weights = write(tmp_path, every_kind_of_layer())
    assert weights.stat().st_mode == weights.with_name("method.json").stat().st_mode


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_file_is_told(tmp_path: Path, keep: int) -> None:
    weights = write(tmp_path, every_kind_of_layer())
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"weights.safetensors is damaged, incomplete or not"):
        read(weights)


def test_missing_file_is_told(tmp_path: Path) -> None:
    weights = write(tmp_path, every_kind_of_layer())
    weights.unlink()
    with pytest.raises(InputError, match="missing or cannot be read"):
        read(weights)


def test_a_flipped_bit_is_told(tmp_path: Path) -> None:
    weights = write(tmp_path, every_kind_of_layer())
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(InputError, match="or not the file that"):
        read(weights)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")
def test_full_disk_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / f"weights.safetensors.{os.getpid()}.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        write_quantized(tmp_path / "weights.safetensors", every_kind_of_layer(), {})
    assert caught.value.errno == 28
    assert list(tmp_path.iterdir()) == []


def test_relative_error() -> None:
    assert relative_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 5.0])) == 0.2
    assert relative_error(torch.zeros(2), torch.zeros(2)) is None


def test_sqnr_is_ten_decibels_per_tenth_of_the_power() -> None:
    assert sqnr_db(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])) == pytest.approx(20)
    assert sqnr_db(torch.tensor([10.0]), torch.tensor([-10.0])) == pytest.approx(-6.0206, abs=1e-4)
    assert sqnr_db(torch.ones(2), torch.ones(2)) == float("inf")
    assert sqnr_db(torch.zeros(2), torch.ones(2)) is None
