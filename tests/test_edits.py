"""Edited streams: patched, scaled, with weights put back; against plain hooks and known answers."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_models import MODELS, build, token_ids
from torch import Tensor, nn

from lowbit.engine import gates
from lowbit.engine.decoder import Decoder
from lowbit.engine.edits import Edit, Edited, Patch, Restoration, Scaling, edited_nll
from lowbit.engine.engine import Engine
from lowbit.engine.streams import block_parameters, folded_stream
from lowbit.engine.walk import Stream, own_parameters
from lowbit.errors import GateError
from lowbit.files import sha256, write_json
from lowbit.names import FULL
from lowbit.quantization.quantized import QuantizedLayer, describe, write_quantized
from lowbit.quantizers import rtn

CPU = torch.device("cpu")
FULL_STREAM = Stream(FULL, own_parameters)
IDS = token_ids(5)
BLOCKS = 3
PATCHED = ("attn_out", "mlp_gate", "mlp_up", "mlp_down", "mlp_out", "mlp_in", "residual_out")


def engine_of(model: nn.Module, batch_size: int = 2) -> Engine:
    return Engine(Decoder(model), FULL_STREAM, torch.float32, CPU, batch_size, resident=True)


def noise(decoder: Decoder, blocks: range, only: str = "") -> Stream:
    """Fixed noise on the matrices of some blocks, or only on those whose name has `only`."""
    generator = torch.Generator().manual_seed(2)
    changed: list[Mapping[str, Tensor]] = [
        {
            name: p + 0.1 * torch.randn(p.shape, generator=generator)
            for name, p in block.named_parameters()
            if p.dim() > 1 and only in name
        }
        for block in decoder.blocks
    ]
    return Stream("noisy", lambda index: changed[index] if index in blocks else {})


def nll(engine: Engine, other: Stream, **edits: Edit) -> dict[str, np.ndarray]:
    """Per-token NLL of full, of `other`, and of `other` under each edit."""
    named = {name: Edited(other.name, edit) for name, edit in edits.items()}
    parts = list(edited_nll(engine, [FULL_STREAM, other], named, IDS.int().numpy(), FULL))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize("name", [name for name in MODELS if name != "gpt-neox"])
def test_replacing_r_reaches_the_norm_and_the_stream_beside_it(name: str) -> None:
    """Only the first block differs, so the donor's r in the second makes the stream the donor."""
    engine = engine_of(build(name))
    noisy = noise(engine.decoder, range(1))
    losses = nll(engine, noisy, patched=Patch("residual_mid", frozenset({1})))
    assert np.abs(losses["noisy"] - losses[FULL]).mean() > 1e-3
    np.testing.assert_array_equal(losses["patched"], losses[FULL])


@pytest.mark.parametrize("name", ["llama", "qwen2", "gemma2", "opt", "bloom", "gpt-neox"])
def test_patching_equals_plain_hooks(name: str) -> None:
    model = build(name)
    engine = engine_of(model)
    decoder, blocks = engine.decoder, frozenset({1, 2})
    noisy = noise(decoder, range(BLOCKS))
    roles = [role for role in PATCHED if role in decoder.roles]
    losses = nll(engine, noisy, **{role: Patch(role, blocks) for role in roles})
    other = build(name)
    for index in range(BLOCKS):
        block = other.get_submodule(f"{decoder.blocks_name}.{index}")
        block.load_state_dict(dict(noisy.parameters(index)), strict=False)
    for role in roles:
        expected = plainly_patched(model, other, decoder, role, blocks)
        np.testing.assert_allclose(losses[role], expected, atol=2e-5, err_msg=role)
        assert np.abs(losses[role] - losses["noisy"]).max() > 1e-4, role


def keep(kept: dict[int, Tensor], index: int, module: nn.Module, *seen: object) -> None:
    """Hook of the donor: `seen` ends with the input or the output."""
    kept[index] = (seen[-1][0] if isinstance(seen[-1], tuple) else seen[-1]).clone()


def give(kept: dict[int, Tensor], index: int, module: nn.Module, *seen: object) -> object:
    """Hook of the patched model: the donor's activation in place of its own."""
    return (kept[index], *seen[-1][1:]) if isinstance(seen[-1], tuple) else kept[index]


def plainly_patched(
    donor: nn.Module, model: nn.Module, decoder: Decoder, role: str, blocks: frozenset[int]
) -> np.ndarray:
    """Per-token NLL of `model` with a role's activation taken from `donor`, by plain hooks."""
    kept: dict[int, Tensor] = {}
    handles = []
    for index in blocks:
        place, side = decoder.sites[index][role]
        name = ".".join(filter(None, (decoder.blocks_name, str(index), place)))
        for each, hook in (
            (donor, partial(keep, kept, index)),
            (model, partial(give, kept, index)),
        ):
            module = each.get_submodule(name)
            if side == "input":
                handles.append(module.register_forward_pre_hook(hook))
            else:
                handles.append(module.register_forward_hook(hook))
    with torch.inference_mode():
        donor(IDS)
        log_probabilities = model(IDS).logits.double().log_softmax(-1)[:, :-1]
    for handle in handles:
        handle.remove()
    return -log_probabilities.gather(-1, IDS[:, 1:, None])[..., 0].numpy()


def test_only_the_module_that_differs_matters() -> None:
    """One module of one block differs between the weight sets: patching it restores the donor."""
    engine = engine_of(build("llama"))
    noisy = noise(engine.decoder, range(1, 2), only="down_proj")
    blocks = frozenset({1})
    losses = nll(
        engine,
        noisy,
        down=Patch("mlp_down", blocks),
        gate=Patch("mlp_gate", blocks),
        attention=Patch("attn_out", blocks),
    )
    np.testing.assert_array_equal(losses["down"], losses[FULL])
    np.testing.assert_array_equal(losses["gate"], losses["noisy"])
    np.testing.assert_array_equal(losses["attention"], losses["noisy"])
    assert np.abs(losses["noisy"] - losses[FULL]).mean() > 1e-3


def test_the_gate_projection_alone_can_read_the_donor() -> None:
    """Noise before block 1 reaches its MLP through h; patching h for the gate leaves up noisy."""
    engine = engine_of(build("llama"))
    noisy, block = noise(engine.decoder, range(1)), frozenset({1})
    losses = nll(
        engine,
        noisy,
        gate_in=Patch("mlp_gate_in", block),
        gate=Patch("mlp_gate", block),
        h=Patch("mlp_in", block),
    )
    np.testing.assert_allclose(losses["gate_in"], losses["gate"], atol=1e-6)
    assert np.abs(losses["gate_in"] - losses["h"]).max() > 1e-4


def test_weights_put_back_restore_the_donor() -> None:
    engine = engine_of(build("llama"))
    noisy = noise(engine.decoder, range(1, BLOCKS))

    def own(index: int) -> dict[str, Tensor]:
        return block_parameters(engine.decoder, FULL_STREAM, index)

    def gate(index: int) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in own(index).items() if "gate_proj" in name}

    losses = nll(
        engine,
        noisy,
        all=Restoration(own, frozenset({1, 2})),
        last=Restoration(own, frozenset({2})),
        gate=Restoration(gate, frozenset({1, 2})),
    )
    np.testing.assert_array_equal(losses["all"], losses[FULL])
    assert len({losses[name].tobytes() for name in (FULL, "noisy", "last", "gate")}) == 4


@pytest.mark.parametrize("name", [name for name in MODELS if name != "opt-350m"])
def test_a_norm_does_not_see_the_scale_of_what_it_reads(name: str) -> None:
    """The sham control: the factor is taken out again by the norm, but for its epsilon."""
    model = build(name)
    for module in model.modules():  # random activations are so small that epsilon would matter
        for epsilon in {"eps", "variance_epsilon"} & set(vars(module)):
            setattr(module, epsilon, 1e-12)
    engine = engine_of(model)
    sham = Scaling("mlp_norm_in", dict.fromkeys(range(BLOCKS), 8.0))
    losses = nll(engine, noise(engine.decoder, range(0)), sham=sham)
    np.testing.assert_allclose(losses["sham"], losses[FULL], atol=1e-4)


def test_scaling_r_by_document() -> None:
    engine = engine_of(build("llama"))
    same = noise(engine.decoder, range(0))
    factors = np.array([1.0, 2.0, 0.5, 1.0, 3.0])
    losses = nll(engine, same, scaled=Scaling("residual_mid", {1: factors}))
    unchanged = factors == 1
    np.testing.assert_array_equal(losses["scaled"][unchanged], losses[FULL][unchanged])
    for row in np.flatnonzero(~unchanged):
        alone = nll(engine, same, one=Scaling("residual_mid", {1: float(factors[row])}))["one"]
        np.testing.assert_allclose(losses["scaled"][row], alone[row], atol=1e-6)
        assert np.abs(alone[row] - losses[FULL][row]).max() > 1e-3


def test_edits_do_not_depend_on_the_batch() -> None:
    model = build("llama")
    found = []
    for batch_size in (1, 2, 5):
        engine = engine_of(model, batch_size)
        noisy = noise(engine.decoder, range(BLOCKS))
        factors = np.linspace(0.5, 2, len(IDS))
        edits = {"s": Scaling("residual_mid", {1: factors}), "p": Patch("mlp_in", frozenset({2}))}
        found.append(nll(engine, noisy, **edits))
    for name in ("s", "p"):
        for other in found[1:]:
            np.testing.assert_allclose(found[0][name], other[name], atol=1e-5)


def write_folded(folder: Path, model: nn.Module, wrong: bool = False) -> Path:
    """A method that moves scales from the MLP's norm into gate and up, and from up into down."""
    layers, replaced = {}, {}
    generator = torch.Generator().manual_seed(3)
    for index, block in enumerate(model.model.layers):
        norm, mlp = block.post_attention_layernorm, block.mlp
        into_h, into_up = (torch.rand(n, generator=generator) + 0.5 for n in (64, 128))
        prefix = f"model.layers.{index}."
        replaced[f"{prefix}post_attention_layernorm.weight"] = norm.weight.detach() / into_h
        folds = {
            "gate_proj": {"folded_scale": into_h},
            "up_proj": {"folded_scale": into_h, "output_scale": into_up},
            "down_proj": {"folded_scale": into_up * (2 if wrong else 1)},
        }
        for name, scales in folds.items():
            weight = mlp.get_submodule(name).weight.detach()
            layer = rtn.quantize(weight, bits=4, group_size=16)
            layers[f"{prefix}mlp.{name}"] = QuantizedLayer(**vars(layer) | scales)
    folder.mkdir()
    write_quantized(folder / "weights.safetensors", layers, replaced)
    described = {name: describe(layer) for name, layer in layers.items()}
    digest = sha256(folder / "weights.safetensors")
    write_json(folder / "method.json", {"layers": described, "weights_sha256": digest})
    return folder / "method.json"


def test_scales_moved_between_layers_change_nothing(tmp_path: Path) -> None:
    model = build("llama")
    engine = engine_of(model)
    ids = IDS.int().numpy()
    donor = engine.donor("awq4", write_folded(tmp_path / "right", model), ids)
    assert donor.name != FULL
    parts = list(edited_nll(engine, [engine.full, donor], {}, ids))
    for part in parts:
        np.testing.assert_allclose(part[donor.name], part[FULL], atol=1e-5)
    weight = donor.parameters(0)["mlp.up_proj.weight"]
    assert (weight - model.model.layers[0].mlp.up_proj.weight).abs().max() > 0.1
    with pytest.raises(GateError, match="with the scales of full, scales of awq4 differs"):
        engine.donor("awq4", write_folded(tmp_path / "wrong", model, wrong=True), ids)


def test_moved_scales_may_round_in_bfloat16(tmp_path: Path) -> None:
    model = build("llama").to(torch.bfloat16)
    full = Stream(FULL, own_parameters)
    engine = Engine(Decoder(model), full, torch.bfloat16, CPU, 2, resident=True)
    ids = IDS.int().numpy()
    assert engine.donor("awq4", write_folded(tmp_path / "right", model), ids) is not full
    with pytest.raises(GateError, match="with the scales of full, scales of awq4 differs"):
        engine.donor("awq4", write_folded(tmp_path / "wrong", model, wrong=True), ids)


def test_a_method_that_moves_no_scales_is_donated_to_by_the_model_itself(tmp_path: Path) -> None:
    model = build("llama")
    engine = engine_of(model)
    layer = rtn.quantize(model.model.layers[0].mlp.up_proj.weight.detach(), bits=4, group_size=16)
    layers = {"model.layers.0.mlp.up_proj": layer}
    write_quantized(tmp_path / "weights.safetensors", layers, {})
    digest = sha256(tmp_path / "weights.safetensors")
    described = {name: describe(layer) for name, layer in layers.items()}
    write_json(tmp_path / "method.json", {"layers": described, "weights_sha256": digest})
    assert engine.donor("rtn4", tmp_path / "method.json", IDS.int().numpy()) is engine.full
    assert folded_stream("r", tmp_path / "method.json", engine.decoder, engine.full, True) is None


def test_the_gate_on_moved_scales_lets_equal_streams_pass() -> None:
    engine = engine_of(build("llama"))
    assert gates.folding(engine.decoder, FULL_STREAM, Stream("same", own_parameters), IDS) == 0
