"""Tensors read one by one from a safetensors file."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lowbit.engine.loading import load_decoder
from lowbit.errors import InputError
from lowbit.files import sha256, write_json
from lowbit.inputs.header import read_header
from lowbit.inputs.models import check_weights
from lowbit.inputs.tensor_file import DTYPES, TensorFile

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="/proc and its limits are Linux's")


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=list(DTYPES))
def test_tensors_come_back_bit_for_bit(dtype: torch.dtype, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = {"matrix": (3, 5), "odd": (7,), "scalar": (), "empty": (0, 4)}
    written = {name: 9 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    written = {name: tensor.to(dtype) for name, tensor in written.items()}
    save_file(written, tmp_path / "weights.safetensors", {"format": "pt"})
    file = TensorFile(tmp_path / "weights.safetensors")
    assert sorted(file.names) == sorted(written)
    for name, tensor in written.items():
        found = file.read(name)
        assert found.dtype == dtype
        assert found.shape == tensor.shape
        assert torch.equal(found.view(-1).view(torch.uint8), tensor.view(-1).view(torch.uint8))
        assert DTYPES[file.stored(name)] == dtype


def test_other_types_are_refused(tmp_path: Path) -> None:
    save_file({"phases": torch.zeros(2, dtype=torch.complex64)}, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match=r"phases is stored as C64; what is read is F64, F32, .*"):
        TensorFile(tmp_path / "weights.safetensors").read("phases")


def write_raw(path: Path, header: object, data: bytes = b"") -> Path:
    """Write a file of any header, also of those that the library would not write."""
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"shape": [5]},
            r"a has 16 bytes and its shape \[5\] of F32 needs 20: the file is damaged",
        ),
        ({"dtype": "F64"}, r"a has 16 bytes and its shape \[4\] of F64 needs 32"),
        ({"shape": [-4]}, "its header cannot be read"),
        ({"shape": ["4"]}, "its header cannot be read"),
        ({"dtype": None}, "its header cannot be read"),
        ({"data_offsets": [16]}, "its header cannot be read"),
        ({"data_offsets": [20, 16]}, "its header cannot be read"),
        ({"data_offsets": [-4, 16]}, "its header cannot be read"),
        ({"data_offsets": [0, 32]}, "it was cut off or damaged"),
    ],
)
def test_a_header_that_is_not_of_its_data_is_told(
    changes: dict[str, object], told: str, tmp_path: Path
) -> None:
    entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
    path = tmp_path / "weights.safetensors"
    assert TensorFile(write_raw(path, {"a": entry}, bytes(16))).read("a").tolist() == [0] * 4
    write_raw(path, {"a": entry | changes}, bytes(16))
    with pytest.raises(InputError, match=told):
        TensorFile(path).read("a")


@pytest.mark.parametrize("header", [[], {"a": []}, {"a": {"dtype": "F32"}}, "x"])
def test_what_is_no_header_is_told(header: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its header cannot be read"):
        read_header(write_raw(tmp_path / "weights.safetensors", header))


def test_a_file_that_shrinks_is_told(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"a": torch.ones(10_000)}, path)
    file = TensorFile(path)
    os.truncate(path, path.stat().st_size - 4)
    with pytest.raises(InputError, match=r"a has 39996 bytes and .* needs 40000"):
        file.read("a")


@pytest.mark.parametrize(
    ("value", "bad"), [(1e30, 0), (float("nan"), 3), (float("inf"), 3), (-float("inf"), 3)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e5m2])
def test_the_check_of_weights_counts_what_is_not_finite(
    value: float, bad: int, dtype: torch.dtype, tmp_path: Path
) -> None:
    """In any float type; 1e30 is finite but in 8 bits, where it becomes infinite."""
    tensors = {"a": torch.zeros(4, 5), "empty": torch.zeros(0), "codes": torch.zeros(2).char()}
    tensors["a"][1, :3] = value
    tensors["a"] = tensors["a"].to(dtype)
    save_file(tensors, tmp_path / "weights.safetensors")
    bad = int((~tensors["a"].float().isfinite()).sum())
    if not bad:
        assert check_weights([tmp_path / "weights.safetensors"]) == 22
        return
    with pytest.raises(InputError, match=f"a has {bad} values of 20 that are NaN or infinite"):
        check_weights([tmp_path / "weights.safetensors"])


def test_stream_mode_reads_unquantized_weights_only(tmp_path: Path) -> None:
    from tiny_models import build

    build("llama").save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.1.mlp.up_proj.weight"
    save_file(tensors | {name: tensors[name].int()}, path, {"format": "pt"})
    _, parameters = load_decoder(tmp_path, "stream", torch.float32, torch.device("cpu"))
    parameters(0)
    with pytest.raises(InputError, match=r"stored as I32, and .*Write engine\.mode: resident"):
        parameters(1)


@LINUX
def test_stream_mode_leaves_no_file_mapped(tmp_path: Path) -> None:
    """A mapping of a whole file would be refused where the file is larger than memory."""
    from tiny_models import build

    build("llama").save_pretrained(tmp_path)
    _, parameters = load_decoder(tmp_path, "stream", torch.float32, torch.device("cpu"))
    block = parameters(0)
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    assert all(parameter.abs().sum() > 0 for parameter in block.values())


MIB = 2**20
TENSORS, SIZE = 32, 16 * MIB
"""A sparse file of 512 MiB, which takes no space on the disk."""

LIMITED = """
import re, resource, sys
from pathlib import Path
import torch, safetensors, tqdm
from lowbit.inputs.models import check_weights
from lowbit.quantization.published.checkpoint import Checkpoint
from lowbit.quantization.quantized import QuantizedWeights

data = re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
limit = 1024 * int(data) + 256 * 2**20
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
folder = Path(sys.argv[1])
path = folder / "weights.safetensors"
"""
READERS = {
    "check of weights": "assert check_weights([path]) == 512 * 2**20",
    "quantized weights": """
weights = QuantizedWeights(path, folder / "method.json")
assert not any(weights.layer(name).codes.any() for name in weights.names)
""",
    "published checkpoint": """
checkpoint = Checkpoint(folder)
assert not any(checkpoint.tensor(name).any() for name in checkpoint.names)
""",
}


@pytest.fixture(scope="module")
def large_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a file of zeros that is larger than the limit; a record and a config."""
    folder = tmp_path_factory.mktemp("large")
    shape = [1024, SIZE // 1024]
    header = {
        f"m{n}.codes": {"dtype": "U8", "shape": shape, "data_offsets": [n * SIZE, (n + 1) * SIZE]}
        for n in range(TENSORS)
    }
    path = write_raw(folder / "weights.safetensors", header)
    os.truncate(path, path.stat().st_size + TENSORS * SIZE)
    layer = {"shape": shape, "bits": 8, "group_size": SIZE // 1024, "axis": 1}
    layers = {f"m{n}": layer for n in range(TENSORS)}
    write_json(folder / "method.json", {"layers": layers, "weights_sha256": sha256(path)})
    write_json(folder / "config.json", {"quantization_config": {"quant_method": "gptq"}})
    return folder


@LINUX
@pytest.mark.parametrize("reader", READERS.values(), ids=list(READERS))
def test_a_file_larger_than_memory_is_read(large_file: Path, reader: str) -> None:
    done = limited(reader, large_file)
    assert done.returncode == 0, done.stderr


@LINUX
def test_mapping_that_file_fails_under_the_limit(large_file: Path) -> None:
    """Otherwise the tests above would show nothing."""
    done = limited("safetensors.safe_open(path, framework='pt')", large_file)
    assert "Cannot allocate memory" in done.stderr


def limited(code: str, folder: Path) -> subprocess.CompletedProcess:
    """Run code in a process that may take 256 MiB more than its imports."""
    return subprocess.run(
        [sys.executable, "-c", LIMITED + code, str(folder)],
        env={**os.environ, "PYTHONPATH": "scripts", "MALLOC_MMAP_THRESHOLD_": str(MIB)},
        capture_output=True,
        text=True,
    )
