"""patch.py: what it writes is what plain hooks on plain Hugging Face models say."""

import copy
import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from mechanism_inputs import quantized_layers
from tiny_models import build, token_ids
from torch import Tensor, nn

import patch
from lowbit.engine.decoder import Decoder
from lowbit.engine.roles import decoder_blocks
from lowbit.engine.walk import Stream, own_parameters
from lowbit.errors import GateError, InputError
from lowbit.experiments import patching
from lowbit.experiments.conditions import (
    LAST,
    NONE,
    PATCH,
    PATCHED,
    SINGLE,
    SUFFIX,
    UPPER,
    Condition,
    last_block_counts,
    list_conditions,
    papers_last,
)
from lowbit.files import read_json, sha256, write_json
from lowbit.quantization.experts import separate_experts
from lowbit.quantization.quantized import QuantizedLayer, describe, unfolded, write_quantized
from lowbit.quantizers import rtn

SETTINGS = {
    "threads": 1,
    "device": "cpu",
    "dtype": "float32",
    "batch_size": 3,
    "mode": "resident",
}
ROWS = token_ids(6, 24)
LARGE, CONTROL = ["d4", "d1"], ["d2", "d0", "d5"]
ORDER = [1, 4, 0, 2, 5]
"""Rows of the tokens in the order of the output: D_large, then D_ctrl, each as in the tokens."""
BLOCKS = 3


def write_inputs(folder: Path, model: nn.Module, method: str) -> None:
    """Write model, tokens and sets as the stages before do."""
    model.save_pretrained(folder / "files")
    files = sorted((folder / "files").iterdir())
    recorded = {file.name: {"sha256": sha256(file), "bytes": file.stat().st_size} for file in files}
    write_json(folder / "model.json", {"files": recorded})
    ids = pa.FixedSizeListArray.from_arrays(pa.array(ROWS.int().numpy().ravel()), ROWS.shape[1])
    names = [f"d{number}" for number in range(len(ROWS))]
    pa.parquet.write_table(pa.table({"doc_id": names, "token_ids": ids}), folder / "tokens.parquet")
    sets = [(name, method, "large") for name in LARGE]
    sets += [(name, method, "control") for name in CONTROL] + [("d3", method, "duplicate")]
    frame = pd.DataFrame(sets, columns=["doc_id", "method", "set"])
    frame.to_parquet(folder / "sets.parquet")


def write_method(
    folder: Path, layers: dict[str, QuantizedLayer], replaced: Mapping[str, Tensor], **fields: str
) -> None:
    """Write a method's weights and record, with more fields of it."""
    write_quantized(folder / "weights.safetensors", layers, dict(replaced))
    record = {
        "weights_sha256": sha256(folder / "weights.safetensors"),
        "layers": {name: describe(layer) for name, layer in layers.items()},
        "changed": sorted(replaced),
    }
    write_json(folder / "method.json", record | fields)


def plain_method(model: nn.Module) -> tuple[dict[str, QuantizedLayer], dict[str, Tensor]]:
    """Round all linear layers of the blocks to 2 bits."""
    prefix, blocks = decoder_blocks(model)
    linears = {n: m for n, m in blocks.named_modules() if isinstance(m, nn.Linear)}
    layers = {
        f"{prefix}.{name}": rtn.quantize(linear.weight.detach(), bits=2, group_size=16)
        for name, linear in linears.items()
    }
    return layers, {}


def scaled_method(model: nn.Module) -> tuple[dict[str, QuantizedLayer], dict[str, Tensor]]:
    """The MLPs rounded like AWQ's: scales move from the norm into gate and up, and into down."""
    generator = torch.Generator().manual_seed(3)
    layers, replaced = {}, {}
    for index, block in enumerate(model.model.layers):
        into_h, into_up = (torch.rand(n, generator=generator) + 0.5 for n in (64, 128))
        norm = f"model.layers.{index}.post_attention_layernorm.weight"
        replaced[norm] = block.post_attention_layernorm.weight.detach() / into_h
        scales = {
            "gate_proj": {"folded_scale": into_h},
            "up_proj": {"folded_scale": into_h, "output_scale": into_up},
            "down_proj": {"folded_scale": into_up},
        }
        for name, moved in scales.items():
            weight = block.mlp.get_submodule(name).weight.detach() * moved["folded_scale"]
            if "output_scale" in moved:
                weight = weight / moved["output_scale"][:, None]
            layer = rtn.quantize(weight, bits=2, group_size=16)
            name = f"model.layers.{index}.mlp.{name}"
            layers[name] = QuantizedLayer(**vars(layer) | moved)
    return layers, replaced


def run_patch(folder: Path, *ways: str, method: str = "rtn2", **settings: object) -> pd.DataFrame:
    """Run the script's `main`; return its table."""
    methods = [{"name": "rtn2", "record": str(folder / "method.json"), "sets_of": method}]
    options = {
        "--model": folder / "model.json",
        "--tokens": folder / "tokens.parquet",
        "--sets": folder / "sets.parquet",
        "--methods": json.dumps(methods),
        "--settings": json.dumps(SETTINGS | settings),
        "--gates": folder / "gates.json",
        "--output": folder / "patching.parquet",
    }
    argv = [*(str(part) for option in options.items() for part in option), "--patch", *ways]
    with pytest.MonkeyPatch.context() as monkey:
        monkey.setattr(sys, "argv", ["patch.py", *argv])
        patch.main()
    return pd.read_parquet(folder / "patching.parquet")


def experts_method(model: nn.Module) -> tuple[dict[str, QuantizedLayer], dict[str, Tensor]]:
    """Round all linear layers of the blocks to 2 bits, those of every expert included."""
    return quantized_layers(model, bits=2), {}


def restored(model: nn.Module, layers: dict[str, QuantizedLayer]) -> nn.Module:
    """The quantized model with its scales taken out again: the same function, on full's scales."""
    quantized = copy.deepcopy(model)
    for name, layer in layers.items():
        quantized.get_submodule(name).weight.data = unfolded(layer)
    return quantized


def token_nll(model: nn.Module) -> np.ndarray:
    """Mean NLL of each row, nats."""
    with torch.inference_mode():
        log_probabilities = model(ROWS).logits.double().log_softmax(-1)[:, :-1]
    return -log_probabilities.gather(-1, ROWS[:, 1:, None])[..., 0].numpy().mean(1)


def plainly(condition: Condition, full: nn.Module, quantized: nn.Module) -> np.ndarray:
    """Mean NLL of each row under a condition, by plain hooks or copied weights."""
    _, blocks = decoder_blocks(quantized)
    _, originals = decoder_blocks(full)
    if condition.kind != PATCH:
        edited = copy.deepcopy(quantized)
        _, blocks = decoder_blocks(edited)
        for index in condition.blocks:
            wanted = "" if condition.role == "all" else "mlp.gate_proj"
            state = originals[index].state_dict()
            chosen = {name: tensor for name, tensor in state.items() if name.startswith(wanted)}
            blocks[index].load_state_dict(chosen, strict=False)
        return token_nll(edited)
    sites = Decoder(full).sites
    handles = []
    for index in condition.blocks:
        place, side = sites[index][condition.role]
        in_place = condition.role == "residual_mid"
        kept: list[Tensor] = []
        handles.append(_keep(originals[index].get_submodule(place), side, kept))
        handles.append(_give(blocks[index].get_submodule(place), side, kept, in_place=in_place))
    token_nll(full)
    nll = token_nll(quantized)
    for handle in handles:
        handle.remove()
    return nll


def _keep(module: nn.Module, side: str, kept: list[Tensor]):
    """Hook that remembers an input or output."""
    if side == "input":
        return module.register_forward_pre_hook(lambda m, args: kept.append(args[0].clone()))
    return module.register_forward_hook(lambda m, args, out: kept.append(_first(out).clone()))


def _give(module: nn.Module, side: str, kept: list[Tensor], *, in_place: bool):
    """Hook that puts it there, for r into the tensor that is added again later."""
    if in_place:
        return module.register_forward_pre_hook(lambda m, args: (args[0].copy_(kept[0]),))
    if side == "input":
        return module.register_forward_pre_hook(lambda m, args: (kept[0], *args[1:]))
    return module.register_forward_hook(
        lambda m, args, out: (kept[0], *out[1:]) if isinstance(out, tuple) else kept[0]
    )


def _first(output: object) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


Method = Callable[[nn.Module], tuple[dict[str, QuantizedLayer], dict[str, Tensor]]]


@pytest.mark.parametrize(
    ("architecture", "method"),
    [
        ("llama", plain_method),
        ("llama", scaled_method),
        ("opt", plain_method),
        ("qwen3-moe", experts_method),
        ("glm4-moe", experts_method),
    ],
)
def test_every_condition_equals_plain_hooks(
    tmp_path: Path, architecture: str, method: Method
) -> None:
    model = build(architecture)
    layers, replaced = method(model)
    write_inputs(tmp_path, model, "rtn2")
    write_method(tmp_path, layers, replaced)
    table = run_patch(tmp_path, UPPER, SINGLE, SUFFIX)
    model = separate_experts(model)  # so that plain hooks and copies reach every expert
    quantized = restored(model, layers)
    run = table[table["kind"] != NONE]
    ids = [f"d{row}" for row in ORDER]
    assert list(run["doc_id"]) == ids * (len(run) // len(ids))
    assert set(run.loc[run["set"] == "large", "doc_id"]) == set(LARGE)
    experts = architecture.endswith("moe")
    tolerance = 2e-5 if replaced or experts else 5e-6
    keys = ["kind", "role", "layers", "first_block", "last_block"]
    for key, rows in run.groupby(keys, sort=False):
        *names, first, last = key
        expected = plainly(Condition(*names, first - 1, last - 1), model, quantized)[ORDER]
        np.testing.assert_allclose(rows["nll"], expected, atol=tolerance, err_msg=str(key))
        np.testing.assert_allclose(rows["nll_full"], token_nll(model)[ORDER], atol=1e-5)
        np.testing.assert_allclose(rows["nll_quantized"], token_nll(quantized)[ORDER], atol=2e-5)
    conditions = list_conditions(BLOCKS, [UPPER, SINGLE, SUFFIX])
    absent = table[table["kind"] == NONE]
    missing = {"mlp_gate": 7, "mlp_gate_in": 1, "gate_projection": 1}
    notes = {f"this architecture has no {role}" for role in ("mlp_gate", "mlp_gate_in")}
    if experts:
        missing |= {"mlp_down": 7, "mlp_up": 7}
        notes.add("this architecture has no mlp_down; mlp_out is patched in its place")
        notes.add("this architecture has no mlp_up")
    if architecture == "llama":
        assert absent.empty
        assert len(run) == len(conditions) * len(ids)
    else:
        expected = {role: 2 * count for role, count in missing.items()}
        assert absent.groupby("role").size().to_dict() == expected
        assert absent["doc_id"].isna().all()
        assert absent["nll"].isna().all()
        assert set(absent["note"]) == notes
    assert (run["role"] == "mlp_out").sum() == (7 * len(ids) if experts else 0)
    gates = read_json(tmp_path / "gates.json")
    assert gates["rtn2"]["full_patch"] == 0.0
    assert (gates["rtn2"]["donor_shift"] > 0) == bool(replaced)


def test_without_r_its_conditions_are_notes(tmp_path: Path) -> None:
    model = build("gpt-neox")
    write_inputs(tmp_path, model, "rtn2")
    write_method(tmp_path, *plain_method(model))
    table = run_patch(tmp_path, UPPER)
    absent = table[table["kind"] == NONE]
    assert set(absent["role"]) == {"mlp_gate", "mlp_gate_in", "gate_projection", "residual_mid"}
    assert len(table) - len(absent) == len(ORDER) * 8


def test_on_unknown_scales_only_what_no_scale_reaches_is_run(tmp_path: Path) -> None:
    """A published AWQ checkpoint has the same weights and norms, without the scales themselves."""
    model = build("llama")
    write_inputs(tmp_path, model, "rtn2")
    layers, replaced = scaled_method(model)
    write_method(tmp_path, layers, replaced)
    known = run_patch(tmp_path, UPPER, SINGLE)
    bare = {
        name: dataclasses.replace(layer, folded_scale=None, output_scale=None)
        for name, layer in layers.items()
    }
    write_method(tmp_path, bare, replaced, backend="published")
    found = run_patch(tmp_path, UPPER, SINGLE)
    absent = found[found["kind"] == NONE]
    assert set(absent["role"]) == {"mlp_in", "mlp_up", "mlp_gate_in", "gate_projection"}
    assert absent["note"].str.contains("scales that the published checkpoint does not store").all()
    expected = known[~known["role"].isin(absent["role"])].reset_index(drop=True)
    run = found[found["kind"] != NONE].reset_index(drop=True)
    pd.testing.assert_frame_equal(run, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("settings", [{"mode": "stream"}, {"batch_size": 5}])
def test_groups_modes_and_batches_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict
) -> None:
    """Small groups, weights read block by block, other batches: the same numbers."""
    model = build("llama")
    write_inputs(tmp_path, model, "rtn2")
    write_method(tmp_path, *scaled_method(model))
    before = run_patch(tmp_path, UPPER, SINGLE)
    monkeypatch.setattr(patching, "EDITS_AT_ONCE", 5)
    after = run_patch(tmp_path, UPPER, SINGLE, **settings)
    pd.testing.assert_frame_equal(before, after, rtol=0, atol=1e-6)


def test_sets_of_another_method(tmp_path: Path) -> None:
    model = build("llama")
    write_inputs(tmp_path, model, "awq3")
    write_method(tmp_path, *plain_method(model))
    table = run_patch(tmp_path, UPPER, method="awq3")
    assert set(table["method"]) == {"rtn2"}
    assert set(table["sets_of"]) == {"awq3"}
    with pytest.raises(InputError, match="no documents of the method rtn2"):
        run_patch(tmp_path, UPPER)


def test_a_condition_that_must_give_the_donor_and_does_not_is_refused() -> None:
    whole = [each for each in list_conditions(2, [UPPER]) if each.is_whole(2)]
    assert [each.role for each in whole] == ["residual_out", "all"]
    donor = Stream("full", own_parameters)
    found = {"full": np.zeros(3)} | {str(each): np.zeros(3) for each in whole}
    patching.check_whole(found, whole, donor)
    found[str(whole[1])] = np.array([0.0, 0.0, 1e-9])
    with pytest.raises(GateError, match=r"weights all in blocks 1 to 2 leaves .* 1e-09 nats"):
        patching.check_whole(found, whole, donor)
    found[str(whole[1])] = np.array([0.0, 0.0, np.nan])
    with pytest.raises(GateError):
        patching.check_whole(found, whole, donor)


def test_conditions_cover_what_the_config_names() -> None:
    assert [papers_last(blocks) for blocks in (1, 3, 6, 28, 32, 40, 80)] == [1, 1, 1, 5, 6, 7, 14]
    assert list(last_block_counts(6)) == [1, 2, 3, 4, 5, 6]
    deep = last_block_counts(28)
    assert {5, 7, 14, 28} <= set(deep)
    assert len(deep) < 12
    found = list_conditions(7, [UPPER])
    upper = [each for each in found if each.layers == UPPER]
    assert {(each.first, each.last) for each in upper} == {(3, 6)}
    assert [each.role for each in upper[:7]] == list(PATCHED)
    assert [7 - each.first for each in found if each.layers == LAST] == list(range(1, 8))
    single = [each for each in list_conditions(7, [SINGLE, SINGLE]) if each.layers == SINGLE]
    assert len(single) == 7 * len(PATCHED)
    assert all(len(each.blocks) == 1 for each in single)


def test_the_same_change_is_walked_once_in_groups_of_bounded_size() -> None:
    conditions = list_conditions(30, [UPPER, SINGLE, SUFFIX])
    cut = patching.groups(conditions, 30)
    assert max(map(len, cut)) <= patching.EDITS_AT_ONCE
    assert min(map(len, cut)) >= patching.EDITS_AT_ONCE - 1
    walked = [str(each) for group in cut for each in group]
    assert len(set(walked)) == len(walked)
    assert set(walked) == {str(each) for each in conditions if not each.is_whole(30)}
    assert len(walked) < len(conditions)
    assert patching.groups([], 30) == [[]]
