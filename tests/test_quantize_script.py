"""probe_model.py and quantize.py on a tiny model: what they write, and when they stop."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM

import probe_model
import quantize
from lowbit.engine.roles import decoder_blocks
from lowbit.errors import InputError
from lowbit.files import read_json, sha256, write_json
from lowbit.inputs.checkpoint import load_model
from lowbit.inputs.tokens import TokenRows, write_tokens
from lowbit.quantization import probe
from lowbit.quantization.block_store import BlockStore
from lowbit.quantization.measure import measure_layers
from lowbit.quantization.quantize_model import check_blocks, quantize_model
from lowbit.quantization.quantized import QuantizedWeights, relative_error
from lowbit.quantizers import rtn

SCRIPTS = Path(__file__).parents[1] / "scripts"
RTN = {"bits": 3, "group_size": 32, "symmetric": False}


def write_model(folder: Path, model: nn.Module) -> Path:
    """A model's `files` and the part of `model.json` that matters here."""
    model.save_pretrained(folder / "files")
    rows = tiny_models.token_ids(6, 24).numpy().astype("int32")
    write_tokens(folder / "calibration.parquet", TokenRows(list("abcdef"), rows, 0, 6))
    return record_model(folder)


def record_model(folder: Path) -> Path:
    sizes = {path.name: {"bytes": path.stat().st_size} for path in (folder / "files").iterdir()}
    write_json(folder / "model.json", {"files": sizes, "context_length": 40})
    return folder


def run_script(script: object, monkeypatch: pytest.MonkeyPatch, **options: object) -> None:
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    monkeypatch.setattr(sys, "argv", ["script", *words])
    threads = torch.get_num_threads()
    try:
        script.main()
    finally:
        torch.set_num_threads(threads)


class Case:
    """A model with its probe, and what quantizing it writes."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch

    def probe(self) -> None:
        model, output = self.folder / "model.json", self.folder / "probe.json"
        run_script(probe_model, self.monkeypatch, model=model, output=output)

    def options(self, quantizer: str, settings: dict, out: str = "out") -> dict[str, object]:
        return {
            "model": self.folder / "model.json",
            "probe": self.folder / "probe.json",
            "calibration": self.folder / "calibration.parquet",
            "module": f"lowbit.quantizers.{quantizer}",
            "method": json.dumps({"quantizer": quantizer, "backend": "b", "settings": settings}),
            "name": "mine",
            "seed": 0,
            "weights": self.folder / out / "weights.safetensors",
            "record": self.folder / out / "method.json",
        }

    def quantize(self, quantizer: str, settings: dict, out: str = "out") -> dict:
        run_script(quantize, self.monkeypatch, **self.options(quantizer, settings, out))
        return read_json(self.folder / out / "method.json")

    def weights(self, out: str = "out") -> QuantizedWeights:
        folder = self.folder / out
        return QuantizedWeights(folder / "weights.safetensors", folder / "method.json")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), tiny_models.build("llama"))


@pytest.fixture
def case(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    made = Case(tmp_path, monkeypatch)
    made.probe()
    return made


def edit_weights(case: Case, name: str, value: float | None) -> None:
    """Set a tensor's first value, or drop the tensor."""
    path = case.folder / "files" / "model.safetensors"
    tensors = load_file(path)
    if value is None:
        del tensors[name]
    else:
        tensors[name].view(-1)[0] = value
    save_file(tensors, path, metadata={"format": "pt"})
    record_model(case.folder)


def test_probe_is_the_plain_model_s_loss(case: Case) -> None:
    written = read_json(case.folder / "probe.json")
    token_ids = torch.tensor(written["token_ids"])
    assert token_ids.shape == (4, 40)  # the context, being shorter than 128
    assert 0 <= token_ids.min() < token_ids.max() < tiny_models.VOCABULARY
    model = AutoModelForCausalLM.from_pretrained(case.folder / "files")
    for row, nll in zip(token_ids, written["nll"], strict=True):
        loss = model(input_ids=row[None], labels=row[None]).loss
        assert nll == pytest.approx(loss.item(), abs=1e-5)


def test_rtn_writes_codes_and_record(case: Case) -> None:
    record, weights = case.quantize("rtn", RTN), case.weights()
    model = AutoModelForCausalLM.from_pretrained(case.folder / "files")
    linears = [n for n, m in model.named_modules() if isinstance(m, nn.Linear) and n != "lm_head"]
    assert list(record["layers"]) == weights.names == linears
    assert not weights.replaced
    assert record["settings"] == RTN
    assert (record["quantizer"], record["backend"], record["seed"]) == ("rtn", "b", 0)
    calibration = {"sha256": sha256(case.folder / "calibration.parquet"), "n": 6, "length": 24}
    assert record["calibration"] == calibration
    assert record["changed"] == []
    assert not (case.folder / "out" / "blocks").exists()
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert record["compute_dtype"] == "float32"
    assert record["bits_per_weight"] == 3 + 40 / 32
    assert record["kept_in_full_precision"] == []
    for name, entry in record["layers"].items():
        full = model.get_submodule(name).weight.detach()
        error = relative_error(full, weights.dequantize(name))
        assert entry["weight_error"] == pytest.approx(error, rel=1e-5)
        assert entry["weight_error"] == entry["rtn_weight_error"]
        assert entry["output_error"] == entry["rtn_output_error"]
        assert 0.05 < entry["output_error"] < 0.4


def test_output_error_is_that_on_the_calibration_text(case: Case) -> None:
    entry = case.quantize("nf", {"bits": 2, "group_size": 32})["layers"]
    model = AutoModelForCausalLM.from_pretrained(case.folder / "files")
    token_ids = tiny_models.token_ids(6, 24)
    name = "model.layers.0.self_attn.v_proj"
    block = model.model.layers[0]
    with torch.no_grad():
        inputs = block.input_layernorm(model.model.embed_tokens(token_ids))
        full = inputs @ block.self_attn.v_proj.weight.T
        error = relative_error(full, inputs @ case.weights().dequantize(name).T)
    assert entry[name]["output_error"] == pytest.approx(error, rel=1e-4)
    assert entry[name]["output_error"] != entry[name]["rtn_output_error"]


def test_hqq_beats_rtn_in_the_record(case: Case) -> None:
    record = case.quantize("hqq", {"bits": 3, "group_size": 32, "axis": 1})
    assert record["versions"]["hqq"].startswith("0.2.8")
    layers = record["layers"].values()
    assert all(entry["weight_error"] < entry["rtn_weight_error"] for entry in layers)


def test_two_runs_are_byte_identical(case: Case) -> None:
    for quantizer in ("rtn", "nf", "hqq", "power", "lloyd_max"):
        settings = {"bits": 4, "group_size": 16}
        for out in ("first", "second"):
            case.quantize(quantizer, settings, out)
        for file in ("weights.safetensors", "method.json"):
            first, second = (case.folder / out / file for out in ("first", "second"))
            assert first.read_bytes() == second.read_bytes(), (quantizer, file)


@pytest.mark.parametrize("name", ["opt", "opt-350m", "bloom", "gpt-neox", "qwen3", "gemma3"])
def test_quantizes_and_measures_every_matrix_of_the_blocks(name: str, tmp_path: Path) -> None:
    model = tiny_models.build(name)
    expected = [
        f"{prefix}.{key}"
        for prefix, blocks in [decoder_blocks(model)]
        for key, module in blocks.named_modules()
        if isinstance(module, nn.Linear)
    ]
    assert check_blocks(model, 32, 1, "mine") == []
    cpu, settings = torch.device("cpu"), {"bits": 4, "group_size": 32}
    store, token_ids = BlockStore(tmp_path, {"run": "same"}), tiny_models.token_ids()
    layers, replaced = quantize_model(model, token_ids, rtn, settings, store, 0, cpu)
    assert list(layers) == expected
    assert not replaced
    entries = measure_layers(model, token_ids, layers, cpu)
    assert list(entries) == expected
    for entry in entries.values():
        assert 0 < entry["output_error"] == entry["rtn_output_error"] < 0.3


def test_merged_experts_are_refused() -> None:
    with pytest.raises(InputError, match=r"mlp.experts.gate_up_proj holds several matrices"):
        check_blocks(tiny_models.build("qwen3-moe"), 32, 1, "mine")


def test_a_wrong_probe_stops_before_anything_is_written(case: Case) -> None:
    """As a separate process: the message is all the user sees."""
    written = read_json(case.folder / "probe.json")
    true = written["nll"][2]
    written["nll"][2] = true + 2e-4
    write_json(case.folder / "probe.json", written)
    options = case.options("rtn", RTN)
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, str(SCRIPTS / "quantize.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the unquantized model has an NLL of ")
    assert f"{true:.6f} on the probe here and {true + 2e-4:.6f} in the core" in done.stderr
    assert "misreads the model's config.json" in done.stderr
    assert not (case.folder / "out").exists()


def test_a_misread_rope_base_changes_the_probe(case: Case) -> None:
    """What transformers 4.51 does to a checkpoint of 5.x: it takes the default base."""
    config = read_json(case.folder / "files" / "config.json")
    config["rope_parameters"]["rope_theta"] = 500_000.0
    write_json(case.folder / "files" / "config.json", config)
    record_model(case.folder)
    with pytest.raises(InputError, match="in the core environment"):
        case.quantize("rtn", RTN)


def test_a_nan_probe_stops(case: Case) -> None:
    model = load_model(case.folder / "files", torch.float32)
    written = read_json(case.folder / "probe.json")
    written["nll"][0] = float("nan")
    with pytest.raises(InputError, match="nan in the core environment"):
        probe.check_probe(model, written)


def test_nan_weights_name_the_tensor(case: Case) -> None:
    model = tiny_models.build("llama")
    model.model.layers[1].mlp.up_proj.weight.data[3, 5] = float("nan")
    with pytest.raises(InputError, match=r"model.layers.1.mlp.up_proj.weight has 1 of 8192"):
        check_blocks(model, 64, 1, "mine")
    edit_weights(case, "model.layers.1.mlp.up_proj.weight", float("nan"))
    with pytest.raises(InputError, match="not finite numbers"):
        case.probe()


def test_a_missing_weight_is_not_filled_in(case: Case) -> None:
    edit_weights(case, "model.layers.1.mlp.up_proj.weight", None)
    with pytest.raises(InputError, match=r"lacks 1 weights .* model.layers.1.mlp.up_proj.weight"):
        case.probe()


@pytest.mark.parametrize(
    ("quantizer", "settings", "message"),
    [
        (
            "rtn",
            {"bits": 3, "group_size": 48},
            r"methods.mine.group_size is 48, which does not divide 64, the width of "
            r"model.layers.0.self_attn.q_proj; write one of 8, 16, 32, 64$",
        ),
        (
            "hqq",
            {"bits": 3, "group_size": 64, "axis": 0},
            r"64, which does not divide 32, the output width of model.layers.0.self_attn.k_proj",
        ),
        ("nf", {"bits": 3, "group_size": 64, "axis": 1}, r"methods.mine: .*argument 'axis'"),
        ("rtn", {"group_size": 64}, r"methods.mine: lowbit.quantizers.rtn: missing .*'bits'"),
    ],
)
def test_impossible_settings_write_nothing(
    case: Case, quantizer: str, settings: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        case.quantize(quantizer, settings)
    assert not (case.folder / "out").exists()


def test_settings_that_are_not_json_are_told(case: Case) -> None:
    options = case.options("rtn", {}) | {"method": "bits=3"}
    with pytest.raises(InputError, match="--method is not JSON"):
        run_script(quantize, case.monkeypatch, **options)


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "hqq.core.quantize", None)
    monkeypatch.delitem(sys.modules, "lowbit.quantizers.hqq", raising=False)
    with pytest.raises(InputError, match=r"lowbit.quantizers.hqq needs the package hqq"):
        quantize.load_implementation("lowbit.quantizers.hqq")
