"""score.py: what it writes is what plain Hugging Face says, and nothing is scored twice."""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from tiny_models import build, token_ids
from torch import nn

import score
from lowbit.errors import InputError, run
from lowbit.files import read_json, sha256, write_json
from lowbit.quantization.quantized import dequantize, describe, write_quantized
from lowbit.quantizers import rtn

SETTINGS = {
    "threads": 1,
    "device": "cpu",
    "dtype": "float32",
    "batch_size": 4,
    "mode": "resident",
}
ROWS = token_ids(6, 24)


def write_model(directory: Path) -> nn.Module:
    model = build("llama")
    model.save_pretrained(directory / "files")
    files = sorted((directory / "files").iterdir())
    recorded = {file.name: {"sha256": sha256(file), "bytes": file.stat().st_size} for file in files}
    write_json(directory / "model.json", {"files": recorded})
    ids = pa.FixedSizeListArray.from_arrays(pa.array(ROWS.int().numpy().ravel()), ROWS.shape[1])
    documents = [f"d{number}" for number in range(len(ROWS))]
    pa.parquet.write_table(
        pa.table({"doc_id": documents, "token_ids": ids}), directory / "tokens.parquet"
    )
    return model


def write_method(directory: Path, model: nn.Module, bits: int) -> Path:
    """Quantize all linear layers of the blocks to `bits` by RTN; return the record's path."""
    linears = {
        f"model.layers.{name}": module
        for name, module in model.model.layers.named_modules()
        if isinstance(module, nn.Linear)
    }
    layers = {
        name: rtn.quantize(linear.weight.detach(), bits=bits, group_size=16)
        for name, linear in linears.items()
    }
    folder = directory / f"rtn{bits}"
    folder.mkdir(exist_ok=True)
    write_quantized(folder / "weights.safetensors", layers, {})
    record = {
        "weights_sha256": sha256(folder / "weights.safetensors"),
        "layers": {name: describe(layer) for name, layer in layers.items()},
    }
    write_json(folder / "method.json", record)
    return folder / "method.json"


def run_score(directory: Path, methods: dict[str, Path], code: str = "c0") -> dict:
    """Run the script's `main`; return scores.json."""
    listed = [{"name": "full", "record": None, "scores": str(directory / "scores/full.parquet")}]
    listed += [
        {"name": name, "record": str(record), "scores": str(directory / f"scores/{name}.parquet")}
        for name, record in methods.items()
    ]
    options = {
        "--model": directory / "model.json",
        "--tokens": directory / "tokens.parquet",
        "--methods": json.dumps(listed),
        "--settings": json.dumps(SETTINGS),
        "--code": code,
        "--gates": directory / "gates.json",
        "--output": directory / "scores.json",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["score.py", *(str(x) for o in options.items() for x in o)])
        score.main()
    return read_json(directory / "scores.json")


def written(directory: Path) -> dict[str, int]:
    return {path.stem: path.stat().st_mtime_ns for path in (directory / "scores").iterdir()}


def test_scores_equal_a_plain_forward_of_the_quantized_model(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    record = write_method(tmp_path, model, bits=2)
    scores = run_score(tmp_path, {"rtn2": record})
    with torch.inference_mode():
        full = model(ROWS).logits.double().log_softmax(-1)[:, :-1]
    for module in model.model.layers.modules():
        if isinstance(module, nn.Linear):
            layer = rtn.quantize(module.weight.detach(), bits=2, group_size=16)
            module.weight.data = dequantize(layer)
    with torch.inference_mode():
        quantized = model(ROWS).logits.double().log_softmax(-1)[:, :-1]
    for name, expected in (("full", full), ("rtn2", quantized)):
        table = pd.read_parquet(scores[name]["path"])
        token_nll = -expected.gather(-1, ROWS[:, 1:, None])[..., 0].numpy()
        np.testing.assert_allclose(np.stack(table["token_nll"]), token_nll, atol=1e-5)
        np.testing.assert_allclose(table["nll"], token_nll.mean(1), atol=1e-5)
        kl = (full.exp() * (full - expected)).sum(-1).mean(1)
        np.testing.assert_allclose(table["kl"], kl, atol=1e-5)
        flips = full.argmax(-1) != expected.argmax(-1)
        np.testing.assert_array_equal(np.stack(table["token_flip"]), flips)
        np.testing.assert_allclose(table["top1_flip_rate"], flips.double().mean(1))
    table = pd.read_parquet(scores["full"]["path"])
    entropy = -(full.exp() * full).sum(-1).mean(1)
    np.testing.assert_allclose(table["entropy"], entropy, atol=1e-5)
    confidence = np.stack(table["token_confidence"])
    np.testing.assert_allclose(confidence, full.exp().amax(-1), atol=1e-5)
    gates = read_json(tmp_path / "gates.json")
    assert gates["rtn2"] == {"self_patch": 0.0, "full_patch": 0.0}
    assert gates["full"]["parity_with_plain_forward"] <= 1e-5


def test_only_what_is_new_or_changed_is_scored(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    methods = {"rtn2": write_method(tmp_path, model, 2)}
    first = run_score(tmp_path, methods)
    before = written(tmp_path)

    methods["rtn3"] = write_method(tmp_path, model, 3)
    second = run_score(tmp_path, methods)
    after = written(tmp_path)
    assert {k: after[k] for k in before} == before
    assert {k: second[k] for k in first} == first

    (tmp_path / "scores" / "rtn2.parquet").write_bytes(b"PAR1 cut off")
    assert run_score(tmp_path, methods) == second
    repaired = written(tmp_path)
    assert [k for k in repaired if repaired[k] != after[k]] == ["rtn2"]

    assert run_score(tmp_path, methods, code="c1").keys() == second.keys()
    rescored = written(tmp_path)
    assert all(rescored[k] != repaired[k] for k in repaired)


def test_one_walk_over_all_methods_equals_one_by_one(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    methods = {f"rtn{bits}": write_method(tmp_path, model, bits) for bits in (2, 3)}
    together = run_score(tmp_path, methods)
    for path in (tmp_path / "scores").iterdir():
        path.unlink()
    run_score(tmp_path, {"rtn3": methods["rtn3"]})
    assert run_score(tmp_path, methods) == together


def test_foreign_weights_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    model = write_model(tmp_path)
    record = write_method(tmp_path, model, 2)
    described = read_json(record)
    described["layers"] = {
        name.replace("layers.0", "layers.7"): entry for name, entry in described["layers"].items()
    }
    write_json(record, described)
    with pytest.raises(InputError, match="method rtn2: its weights hold"):
        run_score(tmp_path, {"rtn2": record})


def test_run_shows_a_user_error_without_a_traceback() -> None:
    def main() -> None:
        raise InputError("write this instead")

    with pytest.raises(SystemExit, match="error: write this instead"):
        run(main)
