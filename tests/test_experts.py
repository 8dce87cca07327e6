"""Merged experts: each linear's place in them, and modules that compute the same apart."""

import pytest
import tiny_models
import torch
from torch import nn

from lowbit.quantization.experts import (
    expert_slices,
    merge_tensors,
    separate_experts,
    separate_tensors,
)

MODELS = ["qwen3-moe", "glm4-moe"]


@pytest.mark.parametrize("name", MODELS)
def test_separate_tensors_are_what_save_pretrained_writes(name: str, tmp_path) -> None:
    """transformers itself takes the merged tensors apart when it saves."""
    from safetensors.torch import load_file

    model = tiny_models.build(name)
    model.save_pretrained(tmp_path)
    saved, found = load_file(tmp_path / "model.safetensors"), separate_tensors(model)
    assert found.keys() == saved.keys()
    assert all(torch.equal(found[key], tensor) for key, tensor in saved.items())


@pytest.mark.parametrize("name", MODELS)
def test_separate_experts_compute_the_same(name: str) -> None:
    model, ids = tiny_models.build(name), tiny_models.token_ids()
    names = list(expert_slices(model))
    with torch.inference_mode():
        before = model(ids).logits
        after = separate_experts(model)(ids).logits
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
    assert not expert_slices(model)
    linears = [key for key, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert set(names) <= set(linears)


def test_merging_changes_only_what_is_given() -> None:
    model = tiny_models.build("qwen3-moe")
    name = "model.layers.1.mlp.experts.2.up_proj.weight"
    new = torch.randn_like(separate_tensors(model)[name])
    norm = {"model.norm.weight": torch.zeros(64)}
    merged = merge_tensors(expert_slices(model), {name: new, **norm}, model.get_parameter)
    assert merged.keys() == {"model.layers.1.mlp.experts.gate_up_proj", "model.norm.weight"}
    before = separate_tensors(model)
    model.load_state_dict(merged, strict=False)
    assert torch.equal(separate_tensors(model)[name], new)
    others = [key for key in before if key not in (name, "model.norm.weight")]
    assert all(torch.equal(separate_tensors(model)[key], before[key]) for key in others)


def test_a_model_without_experts_has_none() -> None:
    assert expert_slices(tiny_models.build("llama")) == {}
