"""Published checkpoints: each format as its own library wrote it, and files that are damaged."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from environments import ROOT, run_in
from library_checks.published import CHECKS
from run_script import run_script
from safetensors.torch import load_file, save_file

from lowbit.engine import gates
from lowbit.engine.decoder import Decoder
from lowbit.engine.streams import quantized_stream
from lowbit.engine.walk import Stream, own_parameters, walk
from lowbit.errors import InputError
from lowbit.files import read_json, sha256, write_json
from lowbit.inputs.checkpoint import load_model
from lowbit.inputs.tokens import TokenRows, write_tokens
from lowbit.names import FULL
from lowbit.quantization.bitstream import pack
from lowbit.quantization.published.checkpoint import equal_groups
from lowbit.quantization.published.description import describe_checkpoint
from lowbit.quantization.published.reader import PublishedWeights, read_published
from lowbit.quantization.quantized import (
    QuantizedWeights,
    dequantize,
    describe,
    scales_unknown,
    write_quantized,
)
from study.config.study import load_study
from study.paths import paths_of

SCRIPT = "tests/library_checks/published.py"
ALL = [(environment, check) for environment, checks in CHECKS.items() for check in checks]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Have the libraries of an environment write their checkpoints, once."""
    made: dict[str, Path] = {}

    def write(environment: str, check: str) -> Path:
        if environment not in made:
            made[environment] = tmp_path_factory.mktemp(environment)
            run_in(environment, SCRIPT, environment, str(made[environment]))
        return made[environment] / check

    return write


def read(folder: Path, checkpoint: str = "checkpoint") -> PublishedWeights:
    return read_published(folder / checkpoint, load_model(folder / "model", torch.float32))


@pytest.mark.parametrize(("environment", "check"), ALL)
def test_reads_what_the_library_dequantizes(
    environment: str, check: str, written: Callable[[str, str], Path]
) -> None:
    """To the last bit, once rounded to the type in which the library computes."""
    folder = written(environment, check)
    expected, published = load_file(folder / "dequantized.safetensors"), read(folder)
    assert published.layers.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(dequantize(published.layers[name]).to(weight.dtype), weight), name
    described = describe_checkpoint(folder / "checkpoint")
    assert {layer.bits for layer in published.layers.values()} == {described["bits"]}


def test_a_norm_that_was_scaled_is_replaced(written: Callable[[str, str], Path]) -> None:
    replaced = read(written("archived", "autoawq")).replaced
    assert replaced
    assert all(name.endswith("layernorm.weight") for name in replaced)


def test_a_mixed_checkpoint_is_read_as_it_is(written: Callable[[str, str], Path]) -> None:
    published = read(written("modern", "int4"))
    assert published.kept == ["model.layers.1.self_attn.o_proj.weight"]
    assert {layer.bits for layer in published.layers.values()} == {4}


def test_quantized_activations_are_told(written: Callable[[str, str], Path]) -> None:
    assert read(written("modern", "fp8")).not_applied == ["input_activations"]


def test_experts_are_scored_and_patched(
    written: Callable[[str, str], Path], tmp_path: Path
) -> None:
    """The stream equals a plain model with the dequantized weights; the gates hold."""
    folder = written("modern", "experts int4")
    published = read(folder)
    write_quantized(tmp_path / "weights.safetensors", published.layers, published.replaced)
    layers = {name: describe(layer) for name, layer in published.layers.items()}
    digest = sha256(tmp_path / "weights.safetensors")
    write_json(tmp_path / "method.json", {"weights_sha256": digest, "layers": layers})
    decoder, cpu = Decoder(load_model(folder / "model", torch.float32)), torch.device("cpu")
    full = Stream(FULL, own_parameters)
    stream = quantized_stream(
        "mine", tmp_path / "method.json", decoder, full, True, torch.float32, cpu
    )
    plain = load_model(_dense(folder, published, tmp_path / "dense"), torch.float32)
    ids = torch.randint(2, 300, (3, 20), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = plain(ids, use_cache=False).logits
        original = decoder.model(ids, use_cache=False).logits
    (normed,) = walk(decoder, [full, stream], [ids])
    with torch.inference_mode():
        found = decoder.logits(normed["mine"])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - original).abs().max() > 1e-2
    assert "mlp_out" in decoder.roles
    assert gates.self_patch(decoder, stream, ids) == 0
    assert gates.full_patch(decoder, full, stream, ids) == 0


def _dense(folder: Path, published: PublishedWeights, place: Path) -> Path:
    """The model's directory with dequantized weights in its files, by the names there."""
    shutil.copytree(folder / "model", place)
    tensors = load_file(place / "model.safetensors")
    for name, layer in published.layers.items():
        assert f"{name}.weight" in tensors
        tensors[f"{name}.weight"] = dequantize(layer)
    tensors = {name: tensor.float().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, place / "model.safetensors", metadata={"format": "pt"})
    return place


# What no library is needed for: a GPTQ checkpoint written here, in all its damaged forms.

GROUP = 16


def gptq_words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack codes `[rows, columns]` into int32 words `[rows, words]`."""
    return pack(codes, bits).contiguous().view(torch.int32)


def quantize_gptq(weight: torch.Tensor, groups: torch.Tensor) -> dict[str, torch.Tensor]:
    """Random codes for a weight `[out, in]`: only what is read back matters."""
    rows, columns = weight.shape
    count = int(groups.max()) + 1
    return {
        "qweight": gptq_words(torch.randint(16, (rows, columns)), 4).T.contiguous(),
        "qzeros": gptq_words(torch.randint(16, (count, rows)), 4),
        "scales": torch.rand(count, rows).half(),
        "g_idx": groups.int(),
    }


@pytest.fixture
def gptq(llama_directory: Path, tmp_path: Path) -> Path:
    """A folder with `model` and `checkpoint`, whose groups have an order of their own."""
    torch.manual_seed(0)
    shutil.copytree(llama_directory, tmp_path / "model")
    shutil.copytree(llama_directory, tmp_path / "checkpoint")
    tensors = load_file(tmp_path / "model" / "model.safetensors")
    for name in [key for key in tensors if "_proj.weight" in key]:
        weight = tensors.pop(name)
        groups = (torch.arange(weight.shape[1]) // GROUP)[torch.randperm(weight.shape[1])]
        parts = quantize_gptq(weight, groups)
        tensors |= {name.replace("weight", part): tensor for part, tensor in parts.items()}
    save_file(tensors, tmp_path / "checkpoint" / "model.safetensors", metadata={"format": "pt"})
    configure(tmp_path, {"quant_method": "gptq", "bits": 4, "group_size": GROUP})
    return tmp_path


def configure(folder: Path, quantization: dict[str, Any] | None) -> None:
    config = json.loads((folder / "model" / "config.json").read_text())
    config |= {} if quantization is None else {"quantization_config": quantization}
    (folder / "checkpoint" / "config.json").write_text(json.dumps(config))


def change(folder: Path, name: str, new: torch.Tensor | None) -> None:
    path = folder / "checkpoint" / "model.safetensors"
    tensors = load_file(path)
    tensors.pop(name, None)
    save_file(tensors | ({} if new is None else {name: new}), path, metadata={"format": "pt"})


LAYER = "model.layers.1.mlp.up_proj"


def by_hand(folder: Path, name: str) -> torch.Tensor:
    """The weight of a 4-bit GPTQ layer, column by column."""
    tensors = load_file(folder / "checkpoint" / "model.safetensors")
    words, zeros, scales, groups = (
        tensors[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales", "g_idx")
    )
    rows = words.shape[1]
    weight = torch.empty(rows, len(groups))
    for column, group in enumerate(groups.tolist()):
        codes = (words[column // 8] >> (4 * (column % 8))) & 15
        zero = (zeros[group].repeat_interleave(8) >> (4 * (torch.arange(rows) % 8))) & 15
        weight[:, column] = (codes - (zero + 1) % 16) * scales[group].float()
    return weight


def test_gptq_by_hand(gptq: Path) -> None:
    layer = read(gptq).layers[LAYER]
    assert layer.permutation is not None
    assert layer.group_size == GROUP
    assert torch.equal(dequantize(layer), by_hand(gptq, LAYER))


def test_uneven_groups_are_cut_into_equal_ones(gptq: Path) -> None:
    groups = torch.tensor([0] * 40 + [1] * 16 + [2] * 8)[torch.randperm(64)]
    for part, tensor in quantize_gptq(torch.empty(96, 64), groups).items():
        change(gptq, f"{LAYER}.{part}", tensor)
    layer = read(gptq).layers[LAYER]
    assert layer.group_size == 8
    assert torch.equal(dequantize(layer), by_hand(gptq, LAYER))


def test_groups_without_a_common_size_are_refused() -> None:
    groups = torch.tensor([0] * 33 + [1] * 31)
    with pytest.raises(InputError, match=r"x\.g_idx puts the columns into groups of uneven sizes"):
        equal_groups("x.g_idx", groups)


@pytest.mark.parametrize("part", ["qzeros", "scales"])
def test_a_missing_tensor_is_named(gptq: Path, part: str) -> None:
    change(gptq, f"{LAYER}.{part}", None)
    with pytest.raises(InputError, match=rf"{LAYER}\.{part}"):
        read(gptq)


@pytest.mark.parametrize(
    ("part", "new"),
    [
        ("qweight", torch.zeros(3, 96, dtype=torch.int32)),
        ("qweight", torch.zeros(8, 96)),
        ("qzeros", torch.zeros(4, 3, dtype=torch.int32)),
        ("scales", torch.ones(4, 95).half()),
        ("scales", torch.full((4, 96), torch.nan).half()),
        ("g_idx", torch.full((64,), 9, dtype=torch.int32)),
    ],
)
def test_a_damaged_tensor_is_named(gptq: Path, part: str, new: torch.Tensor) -> None:
    change(gptq, f"{LAYER}.{part}", new)
    with pytest.raises(InputError, match=rf"{LAYER}\.{part}"):
        read(gptq)


def test_a_truncated_file_is_told(gptq: Path) -> None:
    path = gptq / "checkpoint" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"cut off or damaged"):
        read(gptq)


def test_a_layer_that_is_not_there_is_named(gptq: Path) -> None:
    for part in ("qweight", "qzeros", "scales", "g_idx"):
        change(gptq, f"{LAYER}.{part}", None)
    with pytest.raises(InputError, match=rf"lacks 1 tensors of the model, such as {LAYER}\.weight"):
        read(gptq)


def test_another_model_is_refused(gptq: Path) -> None:
    change(gptq, "model.layers.7.mlp.up_proj.qweight", torch.zeros(8, 96, dtype=torch.int32))
    with pytest.raises(InputError, match=r"model\.layers\.7\.mlp\.up_proj\.qweight.*another model"):
        read(gptq)


def test_another_shape_is_refused(gptq: Path) -> None:
    groups = torch.arange(32) // GROUP
    for part, tensor in quantize_gptq(torch.empty(96, 32), groups).items():
        change(gptq, f"{LAYER}.{part}", tensor)
    with pytest.raises(InputError, match=rf"{LAYER} is a weight of \[96, 32\]"):
        read(gptq)


@pytest.mark.parametrize("name", ["lm_head.weight", "model.norm.weight"])
def test_a_changed_head_is_refused(gptq: Path, name: str) -> None:
    own = load_file(gptq / "checkpoint" / "model.safetensors")[name]
    change(gptq, name, own + 0.5)
    with pytest.raises(InputError, match=rf"{name} differs from the model's by up to 0\.5"):
        read(gptq)


def test_rounded_values_are_the_model_s(gptq: Path) -> None:
    path = gptq / "checkpoint" / "model.safetensors"
    tensors = load_file(path)
    rounded = {k: v.half() if v.dtype == torch.float32 else v for k, v in tensors.items()}
    save_file(rounded, path, metadata={"format": "pt"})
    assert not read(gptq).replaced


def test_changed_norms_are_replaced(gptq: Path) -> None:
    name = "model.layers.0.input_layernorm.weight"
    own = load_file(gptq / "checkpoint" / "model.safetensors")[name]
    change(gptq, name, own * 2)
    assert torch.equal(read(gptq).replaced[name], own * 2)
    message, record = run_reader(gptq)
    assert message == ""
    assert scales_unknown(read_json(record))
    entry = read_json(record)["layers"][LAYER]
    assert entry["weight_error"] is entry["output_error"] is None
    assert entry["rtn_output_error"] > 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"quant_method": "exl3", "bits": 4}, "EXL3 is not read"),
        ({"quant_method": "quip", "bits": 4}, "'quip' is not read, only gptq, awq"),
        ({"quant_method": "gptq", "bits": 4, "checkpoint_format": "marlin"}, "'marlin' of GPTQ"),
        ({"quant_method": "gptq", "bits": 5}, r"\.qweight has 5 bits"),
        (None, "no quantization_config"),
    ],
)
def test_unknown_formats_are_told(gptq: Path, config: dict | None, message: str) -> None:
    configure(gptq, config)
    with pytest.raises(InputError, match=message):
        read(gptq)


def test_pickles_are_never_read(gptq: Path) -> None:
    path = gptq / "checkpoint" / "model.safetensors"
    path.rename(path.with_name("pytorch_model.bin"))
    with pytest.raises(InputError, match="only pickle weights"):
        read(gptq)


def run_reader(folder: Path, out: str = "out") -> tuple[str, Path]:
    """Run read_checkpoint.py on a folder's `model` and `checkpoint`; return its error message."""
    shutil.copytree(folder / "model", folder / "files", dirs_exist_ok=True)
    sizes = {path.name: {"bytes": path.stat().st_size} for path in (folder / "files").iterdir()}
    write_json(folder / "model.json", {"files": sizes, "context_length": 40})
    rows = torch.randint(2, 300, (4, 24), generator=torch.Generator().manual_seed(0))
    write_tokens(folder / "tokens.parquet", TokenRows(list("abcd"), rows.int().numpy(), 0, 4))
    model = ("--model", folder / "model.json")
    assert not run_script("probe_model.py", folder, *model, "--output", folder / "probe.json")
    record = folder / out / "method.json"
    message = run_script(
        "read_checkpoint.py",
        folder,
        *model,
        *("--probe", folder / "probe.json"),
        *("--calibration", folder / "tokens.parquet"),
        *("--source", "path:checkpoint"),
        *("--weights", record.with_name("weights.safetensors")),
        *("--record", record),
    )
    return message, record


def test_the_script_writes_what_quantize_would(gptq: Path) -> None:
    message, record = run_reader(gptq)
    assert message == ""
    method = read_json(record)
    assert (method["quantizer"], method["backend"]) == ("gptq", "published")
    assert not scales_unknown(method)
    assert method["settings"] == {"bits": 4, "group_size": GROUP}
    weights = QuantizedWeights(record.with_name("weights.safetensors"), record)
    assert torch.equal(weights.dequantize(LAYER), by_hand(gptq, LAYER))
    assert all(entry["bits"] == 4 for entry in method["layers"].values())
    assert method["layers"][LAYER]["output_error"] > method["layers"][LAYER]["rtn_output_error"]
    _, again = run_reader(gptq, "again")
    for file in ("method.json", "weights.safetensors"):
        assert record.with_name(file).read_bytes() == again.with_name(file).read_bytes()


def test_the_script_tells_a_damaged_checkpoint(gptq: Path) -> None:
    change(gptq, f"{LAYER}.scales", None)
    message, record = run_reader(gptq)
    assert message.startswith("error: ")
    assert f"{LAYER}.scales" in message
    assert not record.exists()


def test_the_script_reads_experts(written: Callable[[str, str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(written("modern", "experts int4"), tmp_path / "copy"))
    message, record = run_reader(folder)
    assert message == ""
    method = read_json(record)
    entry = method["layers"]["model.layers.1.mlp.experts.3.up_proj"]
    assert entry["bits"] == 4
    assert 0 < entry["weight_error"] < 0.2
    assert method["kept_in_full_precision"] == ["model.layers.1.self_attn.o_proj.weight"]


def test_a_config_needs_only_the_source(gptq: Path) -> None:
    source = f"path:{gptq / 'checkpoint'}"
    overrides = {"methods": {"mine": {"quantized": source}, "gone": {"quantized": source + "x"}}}
    overrides["perturbation"] = None  # the default's looks at rtn3
    with pytest.raises(InputError, match=r"methods\.gone .*does not exist"):
        load_study(ROOT / "config.yaml", overrides=overrides)
    overrides["methods"]["gone"] = {"quantizer": "rtn", "bits": 3, "group_size": 64}
    study = load_study(ROOT / "config.yaml", overrides=overrides)
    described = study.methods["mine"].described()
    assert (described["quantizer"], described["bits"]) == ("gptq", 4)
    assert described["group_size"] == GROUP
    before = paths_of(study, gptq / "cache.json").methods["mine"]
    change(gptq, "model.norm.weight", torch.zeros(64))
    assert paths_of(study, gptq / "cache.json").methods["mine"] != before
