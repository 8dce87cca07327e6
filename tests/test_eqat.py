"""EfficientQAT: what each phase lowers, what it starts from, and how it goes on."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny_models
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

import probe_model
import quantize
from lowbit.engine.decoder import Decoder
from lowbit.engine.streams import quantized_stream
from lowbit.engine.walk import Stream, own_parameters
from lowbit.errors import InputError
from lowbit.files import read_json, write_json
from lowbit.inputs.tokens import TokenRows, write_tokens
from lowbit.quantization.block_store import BlockStore
from lowbit.quantization.blocks import (
    CalibratedBlock,
    QuantizedBlock,
    calibrated_block,
    enter,
    substitute,
)
from lowbit.quantization.quantize_model import quantize_model
from lowbit.quantization.quantized import dequantize, split_groups
from lowbit.quantizers import eqat, eqat_end_to_end, rtn

CPU = torch.device("cpu")
SETTINGS = {
    "bits": 2,
    "group_size": 32,
    "epochs": 2,
    "batch_size": 3,
    "quantization_learning_rate": 1e-3,
    "weight_learning_rate": 1e-3,
    "end_to_end_epochs": 0,
    "end_to_end_batch_size": 5,
    "end_to_end_learning_rate": 1e-3,
}
TOKENS = tiny_models.token_ids(10, 24)
"""Ten sequences come in batches of 4, 4 and 2 and are trained in steps of 3, 3, 3 and 1."""


def block_of(name: str, index: int = 0) -> CalibratedBlock:
    """A block of a tiny model; for `index` 0 both streams are the embeddings."""
    decoder = Decoder(tiny_models.build(name))
    return calibrated_block(decoder, index, enter(decoder, TOKENS, 4), CPU)


@torch.no_grad()
def output_loss(name: str, made: QuantizedBlock) -> float:
    """Mean squared error of a block's output against full precision."""
    block = block_of(name)
    targets = [block.run(states, call) for states, call in block.inputs("full")]
    substitute(block.module, made.parameters())
    outputs = [block.run(states, call) for states, call in block.inputs("full")]
    pairs = zip(outputs, targets, strict=True)
    return float(torch.cat([(output - target).pow(2) for output, target in pairs]).mean())


def run_model(folder: Path, name: str = "llama", **settings: Any) -> dict[str, Tensor]:
    """Quantize a tiny model as the driver does; weights and changed parameters by full name."""
    store = BlockStore(folder, {})
    model = tiny_models.build(name)
    layers, replaced = quantize_model(model, TOKENS, eqat, SETTINGS | settings, store, 0, CPU)
    return {f"{key}.weight": dequantize(layer) for key, layer in layers.items()} | replaced


def calibration_loss(parameters: Mapping[str, Tensor], name: str = "llama") -> float:
    model = tiny_models.build(name)
    substitute(model, parameters)
    with torch.no_grad():
        return float(model(input_ids=TOKENS, labels=TOKENS).loss)


def assert_equal(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "name", ["llama", "opt", "opt-350m", "bloom", "gpt-neox", "qwen3", "gemma3"]
)
def test_training_lowers_the_block_s_output_loss(name: str) -> None:
    start = eqat.quantize_block(block_of(name), **SETTINGS | {"epochs": 0})
    made = eqat.quantize_block(block_of(name), **SETTINGS | {"epochs": 8})
    assert output_loss(name, made) < 0.9 * output_loss(name, start)
    linears = block_of(name).linears
    assert made.layers.keys() == linears.keys()
    biases = {f"{linear}.bias" for linear in linears}
    own = dict(block_of(name).module.named_parameters())
    assert made.replaced.keys() == {k for k, p in own.items() if p.dim() == 1} - biases
    assert all(not torch.equal(tensor, own[key]) for key, tensor in made.replaced.items())


@pytest.mark.parametrize("group_size", [16, "row"])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_without_training_it_is_rtn(bits: int, group_size: int | str) -> None:
    settings = SETTINGS | {"epochs": 0, "bits": bits, "group_size": group_size}
    made = eqat.quantize_block(block_of("opt"), **settings)
    for name, linear in block_of("opt").linears.items():
        nearest = rtn.quantize(linear.weight.detach(), bits=bits, group_size=group_size)
        assert torch.equal(made.layers[name].codes, nearest.codes)
        assert torch.equal(dequantize(made.layers[name]), dequantize(nearest))
    assert not made.replaced


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_baked_weights_are_the_trained_ones_bit_for_bit(bits: int) -> None:
    block = block_of("llama")
    made = eqat.quantize_block(block, **SETTINGS | {"bits": bits})
    for name, linear in block.linears.items():
        assert parametrize.is_parametrized(linear, "weight")
        layer = made.layers[name]
        assert torch.equal(dequantize(layer), linear.weight)
        assert layer.zeros.dtype == torch.uint8
        groups = split_groups(dequantize(layer), 32)[0].flatten(0, 1)
        assert max(len(group.unique()) for group in groups) <= 2**bits
        start = rtn.quantize(tiny_block_weight(name), bits=bits, group_size=32)
        assert not torch.equal(layer.scales, start.scales)


def tiny_block_weight(name: str) -> Tensor:
    return block_of("llama").linears[name].weight.detach()


def test_gradients_are_straight_through_but_for_clamped_codes() -> None:
    weight = torch.tensor([[-1.0, 0.1, 0.9, 2.0]], requires_grad=True)
    quantizer = eqat.FakeQuantizer(weight, 2, 4)  # step 1, zero point 1
    quantizer.scales.data.fill_(0.7)
    # codes round(w / .7) + 1 = 0, 1, 2, and 4, which is clamped to 3
    made = quantizer(weight)
    assert torch.allclose(made, torch.tensor([[-0.7, 0.0, 0.7, 1.4]]))
    made.sum().backward()
    assert torch.allclose(weight.grad, torch.tensor([[1.0, 1.0, 1.0, 0.0]]))
    # each w' changes with s by code - z - w / s inside, by code - z where clamped
    expected = (-1 + 1 / 0.7) + (0 - 0.1 / 0.7) + (1 - 0.9 / 0.7) + 2
    assert quantizer.scales.grad.item() == pytest.approx(expected)
    assert quantizer.zeros.grad.item() == pytest.approx(-0.7)  # of the clamped one only


def test_constant_and_tiny_groups_stay_what_they_are() -> None:
    block = block_of("llama")
    weight = block.linears["mlp.up_proj"].weight.data
    weight[0] = 0.0
    weight[1] = 0.25
    weight[2] *= 1e-6
    tiny = weight[2].clone()
    none = eqat.quantize_block(block, **SETTINGS | {"epochs": 0}).layers["mlp.up_proj"]
    assert torch.equal(dequantize(none), dequantize(rtn.quantize(weight, bits=2, group_size=32)))
    again = block_of("llama")
    again.linears["mlp.up_proj"].weight.data.copy_(weight)
    made = dequantize(eqat.quantize_block(again, **SETTINGS).layers["mlp.up_proj"])
    assert made.isfinite().all()
    assert (made[0] == 0).all()
    assert (made[1] - 0.25).abs().max() < 0.1
    assert dequantize(none)[2].abs().max() <= 2 * tiny.abs().max()


def test_end_to_end_lowers_the_calibration_loss(tmp_path: Path) -> None:
    before = run_model(tmp_path / "before")
    after = run_model(tmp_path / "after", end_to_end_epochs=10)
    assert calibration_loss(after) < calibration_loss(before) - 0.01


@pytest.mark.parametrize("name", ["opt-350m", "bloom", "gemma2"])
def test_end_to_end_takes_every_architecture(name: str, tmp_path: Path) -> None:
    before = run_model(tmp_path / "before", name, epochs=1)
    after = run_model(tmp_path / "after", name, epochs=1, end_to_end_epochs=3)
    assert calibration_loss(after, name) < calibration_loss(before, name)


def test_end_to_end_moves_only_step_sizes(tmp_path: Path) -> None:
    model = tiny_models.build("llama")
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    decoder, store = Decoder(model), BlockStore(tmp_path, {})
    blocks = [rounded(decoder, index) for index in range(len(decoder))]
    assert eqat.finish(decoder, blocks, TOKENS, store, CPU, **SETTINGS) == blocks
    settings = SETTINGS | {"end_to_end_epochs": 1}
    made = eqat.finish(decoder, blocks, TOKENS, store, CPU, **settings)
    for old, new in zip(blocks, made, strict=True):
        for name, layer in old.layers.items():
            assert torch.equal(layer.codes, new.layers[name].codes)
            assert torch.equal(layer.zeros, new.layers[name].zeros)
            assert not torch.equal(layer.scales, new.layers[name].scales)
    assert_equal(state, model.state_dict())
    assert all(parameter.grad is None for parameter in model.parameters())


def rounded(decoder: Decoder, index: int) -> QuantizedBlock:
    block = calibrated_block(decoder, index, [], CPU)
    layers = {
        n: rtn.quantize(m.weight.detach(), bits=2, group_size=32) for n, m in block.linears.items()
    }
    return QuantizedBlock(layers)


def test_the_loss_is_the_model_s_own(tmp_path: Path) -> None:
    decoder = Decoder(tiny_models.build("gemma2"))  # caps its logits
    blocks = [rounded(decoder, index) for index in range(len(decoder))]
    loss = eqat_end_to_end._QuantizedModel(decoder, blocks, CPU).loss(TOKENS)
    parameters = {
        f"{decoder.blocks_name}.{index}.{name}": tensor
        for index, block in enumerate(blocks)
        for name, tensor in block.parameters().items()
    }
    expected = calibration_loss(parameters, "gemma2")
    assert loss.item() / TOKENS[:, 1:].numel() == pytest.approx(expected, rel=1e-5)


class Killed(Exception):
    pass


@pytest.mark.parametrize("survived", [1, 3])
def test_an_interrupted_end_to_end_training_goes_on(
    survived: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"end_to_end_epochs": 2}
    expected = run_model(tmp_path / "whole", **settings)
    step, taken = eqat_end_to_end._step, []

    def killed_later(*arguments: Any) -> None:
        if len(taken) == survived:
            raise Killed
        taken.append(step(*arguments))

    monkeypatch.setattr(eqat_end_to_end, "SAVE_EVERY", 0)
    monkeypatch.setattr(eqat_end_to_end, "_step", killed_later)
    with pytest.raises(Killed):
        run_model(tmp_path / "killed", **settings)
    monkeypatch.setattr(eqat_end_to_end, "_step", lambda *a: taken.append(step(*a)))
    monkeypatch.setattr(eqat, "quantize_block", None)  # finished blocks are not made again
    assert_equal(run_model(tmp_path / "killed", **settings), expected)
    assert len(taken) == 4


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_or_foreign_checkpoint_is_not_used(damage: bytes | None, tmp_path: Path) -> None:
    settings = {"end_to_end_epochs": 1}
    expected = run_model(tmp_path, **settings)
    path = tmp_path / "end_to_end.pt"
    if damage is None:
        torch.save(torch.load(path) | {"fingerprint": "another"}, path)
    else:
        path.write_bytes(damage)
    assert_equal(run_model(tmp_path, **settings), expected)


def test_diverging_training_says_which_rate_to_lower(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"block 0 .*lower quantization_learning_rate or weight_"):
        eqat.quantize_block(block_of("llama"), **SETTINGS | {"weight_learning_rate": 1e25})
    settings = {"end_to_end_epochs": 4, "end_to_end_learning_rate": 1e25}
    with pytest.raises(InputError, match=r"the whole model .*lower end_to_end_learning_rate"):
        run_model(tmp_path, **settings)


def test_a_model_that_overflows_is_not_blamed_on_a_rate() -> None:
    block = block_of("llama")
    block.module.mlp.down_proj.weight.data.fill_(3e38)
    with pytest.raises(InputError, match="before the first step"):
        eqat.quantize_block(block, **SETTINGS)


def test_the_script_writes_the_same_bytes_twice_and_norms_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_models.build("llama")
    model.save_pretrained(tmp_path / "files")
    sizes = {p.name: {"bytes": p.stat().st_size} for p in (tmp_path / "files").iterdir()}
    write_json(tmp_path / "model.json", {"files": sizes, "context_length": 40})
    rows = TokenRows(list("abcdefghij"), TOKENS.numpy().astype("int32"), 0, 10)
    write_tokens(tmp_path / "calibration.parquet", rows)
    record, probe = tmp_path / "model.json", tmp_path / "probe.json"
    run_script(probe_model, monkeypatch, model=record, output=probe)
    method = {
        "quantizer": "eqat",
        "backend": "own",
        "settings": SETTINGS | {"end_to_end_epochs": 1},
    }
    for out in ("first", "second"):
        run_script(
            quantize,
            monkeypatch,
            model=record,
            probe=probe,
            calibration=tmp_path / "calibration.parquet",
            module="lowbit.quantizers.eqat",
            method=json.dumps(method),
            seed=0,
            weights=tmp_path / out / "weights.safetensors",
            record=tmp_path / out / "method.json",
        )
    for file in ("weights.safetensors", "method.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    check_norms(model, tmp_path / "first" / "method.json")


def check_norms(model: nn.Module, record: Path) -> None:
    norms = ("input_layernorm.weight", "post_attention_layernorm.weight")
    changed = [f"model.layers.{index}.{norm}" for index in range(3) for norm in norms]
    assert read_json(record)["changed"] == sorted(changed)
    full = Stream("full", own_parameters)
    decoder = Decoder(model)
    stream = quantized_stream("mine", record, decoder, full, True, torch.float32, CPU)
    for norm in norms:
        own = model.model.layers[1].get_parameter(norm)
        assert 0 < (stream.parameters(1)[norm] - own).abs().max() < 0.1


def run_script(script: Any, monkeypatch: pytest.MonkeyPatch, **options: object) -> None:
    words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
    monkeypatch.setattr(sys, "argv", ["script", *words])
    threads = torch.get_num_threads()
    try:
        script.main()
    finally:
        torch.set_num_threads(threads)
