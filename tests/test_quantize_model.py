"""The walk that quantizes block by block: its two streams, interruptions, and errors measured."""

from pathlib import Path
from types import ModuleType

import pytest
import tiny_models
import torch
from torch import Tensor

from lowbit.errors import InputError
from lowbit.files import read_json, write_json
from lowbit.quantization import quantize_model as quantize_model_module
from lowbit.quantization.block_store import BlockStore
from lowbit.quantization.blocks import CalibratedBlock, QuantizedBlock
from lowbit.quantization.measure import measure_layers
from lowbit.quantization.quantize_model import quantize_model
from lowbit.quantization.quantized import QuantizedLayer, dequantize, unfolded
from lowbit.quantizers import rtn

CPU = torch.device("cpu")
SETTINGS = {"bits": 3, "group_size": 16}


class Interrupted(Exception):
    """Stands for a killed process."""


def recording(seen: dict, stop_at: int | None = None, scale_norms: bool = False) -> ModuleType:
    """A quantizer that keeps what reaches each block, draws a random number and rounds."""
    module = ModuleType("recording")

    def quantize_block(block: CalibratedBlock, **settings: object) -> QuantizedBlock:
        if block.index == stop_at:
            raise Interrupted
        states = {
            stream: torch.cat([states for states, _ in block.inputs(stream)])
            for stream in ("full", "quantized")
        }
        seen[block.index] = states | {"draw": torch.rand(1).item()}
        layers = {
            name: rtn.quantize(linear.weight.detach(), **settings)
            for name, linear in block.linears.items()
        }
        norms = {"input_layernorm.weight": block.module.input_layernorm.weight.detach() * 1.5}
        for parameter in block.module.parameters():
            parameter.data.fill_(float("nan"))  # it may do with its copy what it likes
        return QuantizedBlock(layers, norms if scale_norms else {})

    module.quantize_block = quantize_block
    return module


def run(
    folder: Path, module: ModuleType, fingerprint: str = "same", name: str = "llama"
) -> tuple[dict[str, QuantizedLayer], dict[str, Tensor]]:
    model, token_ids = tiny_models.build(name), tiny_models.token_ids(6, 12)
    store = BlockStore(folder, {"run": fingerprint})
    return quantize_model(model, token_ids, module, SETTINGS, store, 7, CPU)


def hidden_states(model: torch.nn.Module) -> tuple[Tensor, ...]:
    with torch.no_grad():
        return model(tiny_models.token_ids(6, 12), output_hidden_states=True).hidden_states


@pytest.mark.parametrize("scale_norms", [False, True])
def test_the_streams_are_those_of_the_full_and_of_the_quantized_model(
    tmp_path: Path, scale_norms: bool
) -> None:
    seen: dict[int, dict] = {}
    layers, replaced = run(tmp_path, recording(seen, scale_norms=scale_norms))
    model = tiny_models.build("llama")
    full = hidden_states(model)
    changed = {f"{key}.weight": dequantize(layer) for key, layer in layers.items()} | replaced
    assert len(replaced) == (3 if scale_norms else 0)
    model.load_state_dict(changed, strict=False)
    quantized = hidden_states(model)
    for index in range(3):
        torch.testing.assert_close(seen[index]["full"], full[index], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(seen[index]["quantized"], quantized[index], rtol=1e-5, atol=1e-5)
    assert not torch.equal(seen[2]["full"], seen[2]["quantized"])


def test_an_interrupted_quantization_goes_on_to_the_same_result(tmp_path: Path) -> None:
    straight, resumed = {}, {}
    expected, _ = run(tmp_path / "straight", recording(straight))
    with pytest.raises(Interrupted):
        run(tmp_path / "resumed", recording({}, stop_at=2))
    found, _ = run(tmp_path / "resumed", recording(resumed))
    assert resumed.keys() == {2}
    assert resumed[2]["draw"] == straight[2]["draw"]
    for stream in ("full", "quantized"):
        assert torch.equal(resumed[2][stream], straight[2][stream])
    assert all(torch.equal(found[key].codes, expected[key].codes) for key in expected)


def test_blocks_of_other_settings_or_damaged_ones_are_not_used(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run(tmp_path, recording({}))
    others: dict[int, dict] = {}
    run(tmp_path, recording(others), fingerprint="another")
    assert others.keys() == {0, 1, 2}
    assert (
        "not used, but made again: since then there was a change of run" in capsys.readouterr().err
    )
    (tmp_path / "1.safetensors").write_bytes(b"cut off")
    (tmp_path / "2.json").unlink()
    again: dict[int, dict] = {}
    run(tmp_path, recording(again), fingerprint="another")
    assert again.keys() == {1, 2}
    told = capsys.readouterr().err
    assert f"block 1 in {tmp_path} is damaged" in told
    record = read_json(tmp_path / "1.json")
    write_json(tmp_path / "1.json", record | {"fingerprint": "of an older run"})
    foreign: dict[int, dict] = {}
    run(tmp_path, recording(foreign), fingerprint="another")
    assert foreign.keys() == {1}
    assert f"block 1 in {tmp_path} was made from something else" in capsys.readouterr().err


def test_finished_blocks_need_no_calibration_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, _ = run(tmp_path, recording({}))
    monkeypatch.setattr(quantize_model_module, "enter", None)
    found, _ = run(tmp_path, recording({}, stop_at=0))
    assert all(torch.equal(found[key].codes, expected[key].codes) for key in expected)


def test_a_quantizer_that_leaves_a_layer_out_is_stopped(tmp_path: Path) -> None:
    module = ModuleType("forgetful")
    module.quantize_block = lambda block, **settings: QuantizedBlock({})
    with pytest.raises(InputError, match=r"exactly the linear layers of block 0: mlp.down_proj"):
        run(tmp_path, module)


def test_scales_moved_between_layers_do_not_count_as_error() -> None:
    """A layer that is exact but for moved scales: (W diag(s) / t, exact codes) is no error."""
    model = tiny_models.build("llama")
    layers = {}
    for name, module in model.model.layers.named_modules():
        if isinstance(module, torch.nn.Linear):
            exact = rtn.quantize(module.weight.detach(), bits=8, group_size=16)
            module.weight.data = dequantize(exact)
            outputs = module.weight.shape[0]
            key = f"model.layers.{name}"
            layers[key] = exact
            if name.endswith("v_proj"):
                scale = 0.5 ** torch.arange(outputs).remainder(3)
                rows = QuantizedLayer(**vars(exact) | {"scales": exact.scales / scale[:, None]})
                layers[key] = QuantizedLayer(**vars(rows) | {"output_scale": scale})
                assert torch.equal(unfolded(layers[key]), dequantize(exact))
    entries = measure_layers(model, tiny_models.token_ids(), layers, CPU)
    assert all(entry["output_error"] < 1e-6 for entry in entries.values())
    assert all(entry["weight_error"] < 1e-6 for entry in entries.values())
