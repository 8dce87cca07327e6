"""What benchmarks compute beside times: that contenders do the same work, counts, bounds."""

import csv
import subprocess
import sys
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch
from run_script import SCRIPTS, run_script
from tiny_models import build, token_ids
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from bench import gpu, memory, patching
from bench.patching_contender import CONDITIONS, CONTENDERS, Pair
from bench.random_llama import write_model
from bench.shape import Shape
from lowbit.engine.engine import Engine
from lowbit.experiments.scoring import score_documents

SHAPE = Shape(hidden=64, intermediate=96, layers=2, heads=4, vocabulary=128)


@pytest.fixture
def pair() -> Pair:
    """Two tiny Llamas that differ in their blocks alone."""
    donor, target = build("llama"), build("llama", seed=1)
    outside = {key: value for key, value in donor.state_dict().items() if "layers." not in key}
    target.load_state_dict(outside, strict=False)
    return Pair(donor, target, [], batch_size=2)


@pytest.mark.parametrize("conditions", CONDITIONS)
def test_patching_contenders_find_the_same(conditions: str, pair: Pair) -> None:
    pair.conditions = CONDITIONS[conditions](3)
    rows = token_ids(5).int().numpy()
    found = {name: CONTENDERS[name](pair)(rows) for name in ("walk", "plain_hooks")}
    assert found["walk"].shape == (2 + len(pair.conditions), 5, rows.shape[1] - 1)
    np.testing.assert_allclose(*found.values(), atol=2e-5)
    apart = [np.abs(a - b).max() for k, a in enumerate(found["walk"]) for b in found["walk"][:k]]
    assert min(apart) > 1e-3, "every condition is another one"
    assert CONTENDERS["bare_forwards"](pair)(rows) is None


@pytest.mark.parametrize("conditions", CONDITIONS)
def test_there_are_as_many_conditions_of_each_kind(conditions: str) -> None:
    found = CONDITIONS[conditions](6)
    assert len(set(found)) == 8
    first = {condition.first for condition in found}
    assert first == {"each_block": set(range(6)), "upper_half": {3, 4, 5}}.get(conditions, {0})


def test_other_numbers_stop_the_comparison(tmp_path: Path) -> None:
    for name, value in {"walk": 1.0, "near": 1.00005, "far": 1.001, "nan": np.nan}.items():
        np.save(tmp_path / f"{name}.npy", np.full((2, 3), value))
    files = {name: tmp_path / f"{name}.npy" for name in ("walk", "near", "far", "nan")}
    assert patching.largest_difference([files["walk"], files["near"]]) == pytest.approx(5e-5)
    for other in ("far", "nan"):
        with pytest.raises(SystemExit, match=rf"near by 5e-05, {other} by"):
            patching.largest_difference([files["walk"], files["near"], files[other]])


def test_parameters_and_operations_are_those_of_the_model() -> None:
    length, counter = 32, FlopCounterMode(display=False)
    # Written out as matrix products, attention is counted too: also where its mask leaves nothing.
    config = SHAPE.config(length)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    assert sum(p.numel() for p in model.parameters()) == SHAPE.parameters
    assert sum(p.numel() for p in model.model.layers[0].parameters()) == SHAPE.block_parameters
    with counter, torch.inference_mode():
        model(torch.zeros(3, length, dtype=torch.long), use_cache=False)
    counted = counter.get_flop_counts()["Global"]
    assert counted[torch.ops.aten.mm] == gpu.token_flops(SHAPE) * 3 * length
    assert counted[torch.ops.aten.bmm] == pytest.approx(
        2 * gpu.attention_flops(SHAPE, length) * 3 * length, rel=0.01
    )


def test_bound_of_stream_mode() -> None:
    model = AutoModelForCausalLM.from_config(SHAPE.config(16))
    sizes = {name: p.nbytes for name, p in model.named_parameters()}
    block = sum(size for name, size in sizes.items() if name.startswith("model.layers.0."))
    ends = sizes["model.embed_tokens.weight"] + sizes["lm_head.weight"]
    hidden_states = 4 * 5 * 16 * 64  # float32 [documents, length, hidden]
    expected = ends + 2 * (2 * block) + 3 * hidden_states
    assert memory.bound_bytes(SHAPE, documents=5, length=16, streams=2) == expected


def test_a_made_up_model_scores_alike_in_both_modes(tmp_path: Path) -> None:
    rows = token_ids(4).int().numpy()
    settings = {"threads": 1, "device": "cpu", "dtype": "float32", "batch_size": 2}
    for name in ("one", "two"):
        write_model(SHAPE, tmp_path / name, length=17, bits=4, group_size=32)
    files = [p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file()]
    assert len(files) == 8
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    found = []
    for mode in ("stream", "resident"):
        engine = Engine.open(tmp_path / "one" / "model.json", settings | {"mode": mode})
        rounded = engine.quantized("rtn", tmp_path / "one" / "rtn" / "method.json")
        shards = score_documents(engine, [rounded], rows)
        parts = [np.stack([scores.token_nll for scores in shard.values()]) for shard in shards]
        found.append(np.concatenate(parts, axis=1))
    np.testing.assert_array_equal(*found)
    assert found[0].shape[:2] == (2, 4)
    assert np.abs(found[0][0] - found[0][1]).max() > 1e-4


def test_without_a_gpu_its_benchmark_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = run_script("bench/gpu.py", tmp_path, "--output", "gpu.csv")
    assert "error: no GPU here" in message
    assert "--device cpu" in message
    assert not (tmp_path / "gpu.csv").exists()


def test_the_gpu_benchmark_runs_on_a_cpu_where_asked_to(tmp_path: Path) -> None:
    names = ("--hidden", "--intermediate", "--layers", "--heads", "--vocabulary")
    sizes = [str(x) for pair in zip(names, astuple(SHAPE), strict=True) for x in pair]
    sizes += ["--n", "4", "--length", "16", "--batch-size", "2", "--product", "64"]
    assert (
        run_script("bench/gpu.py", tmp_path, "--device", "cpu", *sizes, "--output", "o.csv") == ""
    )
    with open(tmp_path / "o.csv", newline="", encoding="utf-8") as file:
        product, *others = csv.DictReader(file)
    assert product["% of the matrix product"] == "100"
    assert product["stream-tokens/s"] == ""
    for row, streams in zip(others, (1, 1, 2), strict=True):
        tokens = float(row["stream-tokens/s"]) * float(row["seconds"])
        assert tokens == pytest.approx(streams * 4 * 16, rel=1e-2)
        rate = float(row["TFLOP/s"]) * 1e12
        expected = float(row["stream-tokens/s"]) * gpu.token_flops(SHAPE)
        assert rate == pytest.approx(expected, rel=1e-2)


@pytest.mark.parametrize(
    "name", ["patching", "patching_contender", "memory", "memory_contender", "gpu"]
)
def test_a_benchmark_explains_itself_without_loading_anything_heavy(name: str) -> None:
    program = (
        "import runpy, sys; sys.argv[1:] = ['--help']\n"
        f"try: runpy.run_path({str(SCRIPTS / 'bench' / name)!r} + '.py', run_name='__main__')\n"
        "finally: print('heavy:', {'torch', 'transformers', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout
    assert done.stdout.endswith("heavy: set()\n")
