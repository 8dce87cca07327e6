"""Tensors read one by one from a safetensors file."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lowbit.engine.loading import load_decoder
from lowbit.errors import InputError
from lowbit.inputs.tensor_file import TensorFile


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_tensors_come_back_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {"matrix": (3, 5), "odd": (7,), "scalar": (), "empty": (0, 4)}
    written = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    written = {name: tensor.to(dtype) for name, tensor in written.items()}
    save_file(written, tmp_path / "weights.safetensors", {"format": "pt"})
    file = TensorFile(tmp_path / "weights.safetensors")
    assert sorted(file.names) == sorted(written)
    for name, tensor in written.items():
        found = file.read(name)
        assert found.dtype == dtype
        assert found.shape == tensor.shape
        assert torch.equal(found, tensor)


def test_other_types_are_refused(tmp_path: Path) -> None:
    save_file({"codes": torch.zeros(2, dtype=torch.int32)}, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"codes is stored as I32.*Write engine\.mode: resident"):
        TensorFile(tmp_path / "weights.safetensors").read("codes")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_stream_mode_leaves_no_file_mapped(tmp_path: Path) -> None:
    """A mapping of a whole file would be refused where the file is larger than memory."""
    from tiny_models import build

    build("llama").save_pretrained(tmp_path)
    _, parameters = load_decoder(tmp_path, "stream", torch.float32, torch.device("cpu"))
    block = parameters(0)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert all(parameter.abs().sum() > 0 for parameter in block.values())
