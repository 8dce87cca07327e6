"""Modules in higher precision: the right weights on the right scales, known ranks, the script."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mechanism_inputs import (
    SETTINGS,
    folded_layers,
    linear_weights,
    open_engine,
    quantized_layers,
    write_method,
    write_model,
)
from run_script import run_script
from tiny_models import build, token_ids
from torch import nn

from lowbit.analysis.mechanisms.mixed_precision import GREEDY, LAST, halves
from lowbit.engine.edits import Edited
from lowbit.errors import GateError, InputError
from lowbit.experiments.edited_documents import document_nll
from lowbit.experiments.module_precision import FULL_BITS, HigherPrecision, check_scales
from lowbit.files import read_json
from lowbit.quantization.experts import expert_slices, separate_tensors
from lowbit.quantization.quantized import dequantize, unfolded
from lowbit.quantizers import rtn

IDS = token_ids(6).int().numpy()
DIFFERENT = "model.layers.1.mlp.up_proj"


def on_grid(name: str) -> tuple[nn.Module, dict]:
    """A model whose linear weights are what its 4-bit layers stand for, and these layers."""
    model = build(name)
    layers = quantized_layers(model, 4)
    tensors = {f"{linear}.weight": dequantize(layer) for linear, layer in layers.items()}
    model.load_state_dict(tensors, strict=False)
    return model, layers


def test_the_only_module_that_differs_gives_back_the_whole_gap(tmp_path: Path) -> None:
    model, layers = on_grid("llama")
    layers[DIFFERENT] = rtn.quantize(dequantize(layers[DIFFERENT]), bits=2, group_size=16)
    engine = open_engine(model)
    record = write_method(tmp_path / "base", layers)
    precision, base = HigherPrecision(engine, record, None), engine.quantized("base", record)
    packs = [{m.name: Edited("base", precision.edit([m], base))} for m in precision.modules]
    nll = document_nll(engine, [engine.full, base], packs, IDS)
    assert len(packs) == 3 * 7
    assert np.abs(nll["base"] - nll["full"]).min() > 1e-4
    for module in precision.modules:
        expected = "full" if module.name == "1.mlp.up_proj" else "base"
        np.testing.assert_array_equal(nll[module.name], nll[expected], err_msg=module.name)


def test_bits_are_those_stored_and_of_unquantized_weights_sixteen(tmp_path: Path) -> None:
    """Groups of 16: 2 bits, and a scale of 32 and a zero of 8 bits for 16 weights."""
    model = build("llama")
    engine = open_engine(model)
    base = write_method(tmp_path / "rtn2", quantized_layers(model, 2))
    higher = write_method(tmp_path / "rtn4", quantized_layers(model, 4))
    for module in HigherPrecision(engine, base, higher).modules:
        count = sum(linear_weights(model)[name].numel() for name in module.linears)
        assert module.weights == count
        assert module.base_bits == pytest.approx(4.5 * count)
        assert module.higher_bits == pytest.approx(6.5 * count)
    assert {m.higher_bits / m.weights for m in HigherPrecision(engine, base, None).modules} == {
        FULL_BITS
    }


def test_weights_are_put_onto_the_scales_that_the_base_moved(tmp_path: Path) -> None:
    model = build("llama")
    engine = open_engine(model)
    layers, replaced = folded_layers(model, 2)
    record = write_method(tmp_path / "awq2", layers, replaced)
    base = engine.quantized("awq2", record)
    assert check_scales(engine, record, base, IDS) < 1e-4
    other = quantized_layers(model, 4)
    precision = HigherPrecision(engine, record, write_method(tmp_path / "rtn4", other))
    (module,) = (m for m in precision.modules if m.name == "1.mlp.up_proj")
    edit = precision.edit([module], base)
    assert edit.blocks == {1}
    changed = edit.parameters(1, base.parameters(1))
    scales = layers[DIFFERENT]
    expected = unfolded(other[DIFFERENT]) * scales.folded_scale / scales.output_scale[:, None]
    torch.testing.assert_close(changed["mlp.up_proj.weight"], expected)
    unchanged = {name for name in changed if changed[name] is base.parameters(1)[name]}
    assert unchanged == set(changed) - {"mlp.up_proj.weight"}


def test_higher_weights_leave_their_own_moved_scales_behind(tmp_path: Path) -> None:
    """A method with moved scales gives its weights to one without."""
    model = build("llama")
    engine = open_engine(model)
    record = write_method(tmp_path / "rtn2", quantized_layers(model, 2))
    base = engine.quantized("rtn2", record)
    precision = HigherPrecision(
        engine, record, write_method(tmp_path / "awq8", *folded_layers(model, 8))
    )
    streams = [engine.full, base]
    whole = {"all": Edited("rtn2", precision.edit(precision.modules, base))}
    nll = document_nll(engine, streams, [whole], IDS)
    np.testing.assert_allclose(nll["all"], nll["full"], atol=0.02)
    assert np.abs(nll["rtn2"] - nll["full"]).max() > 0.1
    assert check_scales(engine, record, base, IDS) is None


@pytest.mark.parametrize("unknown", ["base", "higher"])
def test_weights_on_unknown_scales_are_refused(tmp_path: Path, unknown: str) -> None:
    model = build("llama")
    engine = open_engine(model)
    known = write_method(tmp_path / "rtn", quantized_layers(model, 2 if unknown == "higher" else 8))
    scaled = write_method(tmp_path / "awq4", *folded_layers(model, 4), backend="published")
    methods = (scaled, known) if unknown == "base" else (known, scaled)
    with pytest.raises(InputError, match=rf"mechanisms\.mixed_precision\.{unknown} names a publ"):
        HigherPrecision(engine, *methods)


def test_wrong_scales_are_noticed(tmp_path: Path) -> None:
    model = build("llama")
    engine = open_engine(model)
    layers, replaced = folded_layers(model, 4)
    name = "model.layers.0.post_attention_layernorm.weight"
    record = write_method(tmp_path / "wrong", layers, replaced | {name: replaced[name] * 2})
    with pytest.raises(GateError, match="with the scales of wrong differs from the model itself"):
        check_scales(engine, record, engine.quantized("wrong", record), IDS)


@pytest.mark.parametrize("resident", [True, False])
def test_a_projection_of_all_experts_is_one_module(tmp_path: Path, resident: bool) -> None:
    model = build("qwen3-moe")
    engine = open_engine(model)
    engine = type(engine)(**vars(engine) | {"resident": resident})
    record = write_method(tmp_path / "rtn2", quantized_layers(model, 2))
    precision, base = HigherPrecision(engine, record, None), engine.quantized("rtn2", record)
    (module,) = (m for m in precision.modules if m.name == "1.mlp.experts.*.up_proj")
    assert len(module.linears) == 4
    own = base.parameters(1)
    changed = precision.edit([module], base).parameters(1, own)
    slices, full = expert_slices(model.model.layers[1]), separate_tensors(model.model.layers[1])
    assert len(slices) == 4 * 3
    for linear, place in slices.items():
        found = place.of(changed[place.parameter])
        if "up_proj" in linear:
            assert torch.equal(found, full[f"{linear}.weight"])
        else:
            assert torch.equal(found, place.of(own[place.parameter]))


def test_a_higher_method_must_have_every_layer_and_more_bits(tmp_path: Path) -> None:
    model = build("llama")
    engine = open_engine(model)
    layers = quantized_layers(model, 3)
    three = write_method(tmp_path / "rtn3", layers)
    two = write_method(tmp_path / "rtn2", quantized_layers(model, 2))
    with pytest.raises(InputError, match=r"mixed_precision: .*q_proj has 4.5 stored .* and 5.5"):
        HigherPrecision(engine, three, two)
    del layers[DIFFERENT]
    few = write_method(tmp_path / "few", layers)
    with pytest.raises(InputError, match=rf"higher has no quantized {DIFFERENT}.*or full"):
        HigherPrecision(engine, two, few)


@pytest.mark.parametrize("name", ["llama", "opt"])
def test_scripts_rank_mix_and_score(name: str, tmp_path: Path) -> None:
    model = write_model(tmp_path, name)
    base, higher = quantized_layers(model, 2), quantized_layers(model, 4)
    write_method(tmp_path / "rtn2", base)
    write_method(tmp_path / "rtn4", higher)
    assert mix(tmp_path, "--higher", "rtn4", "--higher-record", "rtn4/method.json") == ""
    plan = read_json(tmp_path / "plan.json")
    ranking, held_out = halves(12, 0)
    restored = pd.read_parquet(tmp_path / "modules.parquet")
    assert sorted(restored["doc_id"].unique()) == [f"d{row:02}" for row in ranking]
    module = plan["modules"][3]["module"]
    blocks = next(iter(base)).split(".0.")[0]
    linear = f"{blocks}.{module}"
    expected = plain_nll(model, base | {linear: higher[linear]})
    found = restored[restored["module"] == module]["nll"]
    np.testing.assert_allclose(found, expected[ranking], atol=1e-5)
    scores = pd.read_parquet(tmp_path / "models.parquet").set_index("model")
    mixed = {f"{blocks}.{each}": higher[f"{blocks}.{each}"] for each in plan["chosen"][GREEDY]}
    assert mixed
    expected = plain_nll(model, base | mixed)[held_out]
    np.testing.assert_allclose(scores.loc[GREEDY, "nll"], expected, atol=1e-5)
    np.testing.assert_allclose(
        scores.loc["base", "nll"], plain_nll(model, base)[held_out], atol=1e-5
    )
    np.testing.assert_allclose(
        scores.loc["higher", "nll"], plain_nll(model, higher)[held_out], atol=1e-5
    )
    assert sum(label.startswith("random") for label in scores.index.unique()) == 10
    assert tabulate(tmp_path, "rtn4") == ""


def test_scripts_with_the_unquantized_weights_and_moved_scales(tmp_path: Path) -> None:
    model = write_model(tmp_path, "llama")
    write_method(tmp_path / "rtn2", *folded_layers(model, 2))
    assert mix(tmp_path, "--higher", "full") == ""
    gates = read_json(tmp_path / "gates.json")
    assert 0 < gates["rtn2"]["moved_scales"] < 1e-4
    assert "higher" not in set(pd.read_parquet(tmp_path / "models.parquet")["model"])
    assert tabulate(tmp_path, "full") == ""
    mixed = pd.read_csv(tmp_path / "mixed.csv").set_index("model")
    assert mixed.loc["higher", "bits_per_weight"] == pytest.approx(FULL_BITS)
    assert mixed.loc["higher", "error"] == 0
    assert (mixed.loc[[GREEDY, LAST], "extra_bits"] <= 1.5).all()


def test_weights_read_block_by_block_give_the_same_scores(tmp_path: Path) -> None:
    model = write_model(tmp_path, "llama")
    write_method(tmp_path / "rtn2", *folded_layers(model, 2))
    write_method(tmp_path / "rtn4", quantized_layers(model, 4))
    found = []
    for mode in ("resident", "stream"):
        higher = ("--higher", "rtn4", "--higher-record", "rtn4/method.json")
        assert mix(tmp_path, *higher, mode=mode) == ""
        found.append([pd.read_parquet(tmp_path / f"{n}.parquet") for n in ("modules", "models")])
    for resident, streamed in zip(*found, strict=True):
        pd.testing.assert_frame_equal(resident, streamed, rtol=0, atol=1e-5)


def plain_nll(model: nn.Module, layers: dict) -> np.ndarray:
    """Mean NLL of each document under a plain model with these layers' weights."""
    kept = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors = {f"{linear}.weight": dequantize(layer) for linear, layer in layers.items()}
    model.load_state_dict(tensors, strict=False)
    ids = token_ids(12, 20)
    with torch.inference_mode():
        logits = model(ids).logits.double().log_softmax(-1)[:, :-1]
    model.load_state_dict(kept)
    return -logits.gather(-1, ids[:, 1:, None])[..., 0].mean(1).numpy()


def mix(folder: Path, *higher: str, mode: str = "resident") -> str:
    """Run mixed_precision.py; return its error message."""
    return run_script(
        "mixed_precision.py", folder, "--model", "model.json", "--tokens", "tokens.parquet",
        "--base", "rtn2", "--base-record", "rtn2/method.json", *higher, "--extra-bits", 1.5,
        "--settings", json.dumps(SETTINGS | {"mode": mode}), "--seed", 0, "--gates", "gates.json",
        "--plan", "plan.json", "--modules", "modules.parquet", "--models", "models.parquet",
    )  # fmt: skip


def tabulate(folder: Path, higher: str) -> str:
    """Run the scripts that tabulate and draw; return the first error message."""
    for name in ("errors", "sets"):
        table = pd.read_parquet(folder / f"{name}.parquet")
        table.assign(method="rtn2").to_parquet(folder / f"{name}.parquet")
    return run_script(
        "analyze_mixed_precision.py", folder, "--model", "tiny", "--plan", "plan.json",
        "--modules", "modules.parquet", "--models", "models.parquet", "--errors", "errors.parquet",
        "--sets", "sets.parquet", "--settings", json.dumps({"resamples": 50, "confidence": 0.9}),
        "--seed", 0, "--ranking", "ranking.csv", "--mixed", "mixed.csv", "--markdown", "mixed.md",
    ) or run_script(
        "plot_mixed_precision.py", folder, "--ranking", "ranking.csv", "--mixed", "mixed.csv",
        "--base", "rtn2", "--higher", higher, "--ranking-figure", "r.png", "r.svg",
        "--mixed-figure", "m.png", "m.svg",
    )  # fmt: skip
