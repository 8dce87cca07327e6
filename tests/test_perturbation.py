"""Perturbations: their distributions and norms, clipping, and their way through the walk."""

from functools import partial
from math import nan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mechanism_inputs import folded_layers, open_engine, quantized_layers, write_method
from scipy import stats
from tiny_models import build, token_ids
from torch import Tensor, nn

from lowbit.engine.edits import Edited
from lowbit.errors import GateError, InputError
from lowbit.experiments import simulating
from lowbit.experiments.edited_documents import document_nll
from lowbit.experiments.perturbation_conditions import (
    ACTIVATIONS,
    BOTH,
    CLIP,
    MATCHED,
    SHUFFLED,
    WEIGHTS,
    Perturbation,
    Plan,
    list_nothings,
    list_perturbations,
    list_sensitivities,
)
from lowbit.experiments.perturbing import (
    PerturbationEdit,
    Reference,
    check_norms,
    check_nothing,
)
from lowbit.experiments.simulating import SimulationEdit
from lowbit.experiments.simulation_settings import TRANSFORMS, Simulation
from lowbit.names import FULL
from lowbit.perturbation.clipping import clip, shuffle_clipping
from lowbit.perturbation.noise import (
    DISTRIBUTIONS,
    FLOOR,
    RELATIONS,
    SPREAD,
    generator,
    l2,
    of_norm,
    relate,
    unit_noise,
    worst_mismatch,
)
from lowbit.quantization.activations import ActivationQuantization, quantize_activation
from lowbit.quantization.quantized import dequantize
from lowbit.quantizers import power

CPU = torch.device("cpu")
IDS = token_ids(5).int().numpy()
EIGHT_BITS = partial(
    quantize_activation, settings=ActivationQuantization(bits=8, granularity="token")
)


def draw(distribution: str, count: int = 200_000) -> np.ndarray:
    return unit_noise((count,), distribution, generator(CPU, "test", distribution)).numpy()


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
def test_noise_has_mean_0_and_variance_1(distribution: str) -> None:
    sample = draw(distribution)
    assert abs(sample.mean()) < 4 / len(sample) ** 0.5
    assert abs((sample**2).mean() - 1) < 0.02


def test_distributions_are_what_they_are_called() -> None:
    assert stats.kstest(draw("gaussian"), "norm").pvalue > 0.01
    assert stats.kstest(draw("uniform"), "uniform", (-SPREAD, 2 * SPREAD)).pvalue > 0.01
    assert set(draw("rademacher")) == {-1.0, 1.0}


def test_generators_of_the_same_names_draw_the_same_and_others_do_not() -> None:
    first, again, other = (torch.rand(5, generator=generator(CPU, *n)) for n in ["ab", "ab", "a"])
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)


def test_relations_to_the_magnitude_by_hand() -> None:
    x = torch.tensor([[0.0, -1.0, 3.0]])
    found = {name: relate(x, name, (0, 1)) for name in RELATIONS}
    assert found["independent"] == 1
    torch.testing.assert_close(found["M+"], torch.tensor([[0.0, 1.0, 3.0]]))
    torch.testing.assert_close(found["M-"], torch.tensor([[3.0, 2.0, 0.0]]))
    floor = FLOOR * 4 / 3
    torch.testing.assert_close(found["inverse"], torch.tensor([[1 / floor, 1.0, 1 / 3]]))


@given(
    seed=st.integers(0, 1000),
    size=st.floats(1e-4, 1e4),
    norm=st.floats(1e-3, 1e3),
    relation=st.sampled_from(RELATIONS),
    dims=st.sampled_from([(0, 1), (1,)]),
)
def test_noise_has_the_norm_that_is_meant(seed, size, norm, relation, dims) -> None:
    random = torch.Generator().manual_seed(seed)
    x = size * torch.randn(6, 40, generator=random)
    wanted = norm * l2(x, dims)
    delta = of_norm(torch.randn(6, 40, generator=random) * relate(x, relation, dims), wanted, dims)
    torch.testing.assert_close(l2(delta, dims), wanted, rtol=1e-5, atol=0)


def test_a_tensor_of_zeros_stays_as_it_is() -> None:
    x = torch.zeros(3, 4)
    for relation in RELATIONS:
        delta = of_norm(torch.ones(3, 4) * relate(x, relation, (0, 1)), l2(x, (0, 1)), (0, 1))
        torch.testing.assert_close(delta, x, rtol=0, atol=0)


def test_mismatch_is_seen() -> None:
    norm, size = torch.tensor([[2.0], [0.0]]), torch.zeros(2, 1)
    assert worst_mismatch(norm, norm, size) == 0
    assert worst_mismatch(torch.tensor([[2.2], [0.0]]), norm, size) == pytest.approx(0.1)
    assert worst_mismatch(torch.tensor([[2.0], [1e-9]]), norm, size) > 0
    assert worst_mismatch(torch.tensor([[2.0], [torch.nan]]), norm, size).isnan()


def test_the_norm_of_many_entries_of_one_size_is_not_off() -> None:
    signs = unit_noise((8, 512, 384), "rademacher", generator(torch.device("cpu"), 0))
    x = 0.0123 * signs
    exact = x.double().square().sum((1, 2), keepdim=True).sqrt()
    torch.testing.assert_close(l2(x, (1, 2)).double(), exact, rtol=1e-6, atol=0)


def test_what_float32_cannot_represent_is_no_mismatch() -> None:
    """The largest of a few values, clipped to one that is nearly as large."""
    x = torch.randn(1, 400, generator=torch.Generator().manual_seed(0))
    norm = 1e-6 * l2(x, (1,))
    delta = of_norm(torch.randn(1, 400, generator=torch.Generator().manual_seed(1)), norm, (1,))
    found, more = (l2(x + factor * delta - x, (1,)) for factor in (1, 1.1))
    assert (found / norm - 1).abs() > 1e-4
    assert worst_mismatch(found, norm, l2(x, (1,))) < 1e-4
    assert worst_mismatch(more, norm, l2(x, (1,))) > 0.03


def test_clipping_by_hand() -> None:
    x = torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0, -6.0, 7.0, -8.0, 9.0, -10.0])
    torch.testing.assert_close(clip(x, 0.9), x.clamp(-9, 9))
    torch.testing.assert_close(clip(x, 0.8), x.clamp(-8, 8))
    torch.testing.assert_close(clip(x, 0.99), x.clamp(-9, 9))  # at least one entry
    rows = torch.stack([x, 10 * x])
    torch.testing.assert_close(
        clip(rows, 0.9, start=1), torch.stack([x.clamp(-9, 9)] * 2) * torch.tensor([[1.0], [10.0]])
    )


def test_clipped_share_is_that_above_the_quantile() -> None:
    x = torch.randn(100, 100, generator=torch.Generator().manual_seed(0))
    for quantile in (0.99, 0.999, 0.9999):
        assert (clip(x, quantile) != x).sum() == round((1 - quantile) * x.numel())


@given(seed=st.integers(0, 1000), quantile=st.sampled_from([0.5, 0.9, 0.99]))
def test_shuffled_clipping_changes_the_same_entries_as_much_within_range(seed, quantile) -> None:
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(20, 30, generator=random)
    clipped = clip(x, quantile)
    shuffled = shuffle_clipping(x, clipped, random)
    assert torch.equal(shuffled != x, clipped != x)
    assert shuffled.abs().max() <= x.abs().max()
    amounts = [(each - x).abs().flatten().sort().values for each in (shuffled, clipped)]
    torch.testing.assert_close(*amounts, rtol=1e-4, atol=1e-6)


def opened(tmp_path: Path, name: str = "llama", batch_size: int = 2) -> tuple:
    """An engine, and a reference of 3 bits for it."""
    model = build(name)
    engine = open_engine(model, batch_size)
    record = write_method(tmp_path / name, quantized_layers(model, 3))
    return engine, Reference(engine, record, EIGHT_BITS)


def test_a_reference_on_unknown_scales_is_refused(tmp_path: Path) -> None:
    model = build("llama")
    record = write_method(tmp_path / "awq3", *folded_layers(model, 3), backend="published")
    with pytest.raises(InputError, match=r"perturbation\.reference names a published checkpoint"):
        Reference(open_engine(model), record, EIGHT_BITS)


def nll_of(engine, reference, *conditions: Perturbation) -> tuple[dict, dict]:
    """NLL of the documents by condition, and the edits."""
    edits = {str(c): PerturbationEdit(c, engine, reference) for c in conditions}
    packs = [{name: Edited(FULL, edit)} for name, edit in edits.items()]
    return document_nll(engine.by_block(), [engine.full], packs, IDS), edits


@pytest.mark.parametrize("name", ["llama", "opt", "bloom", "gpt-neox", "gemma2", "glm4-moe"])
def test_every_perturbation_walks_and_has_its_norm(name: str, tmp_path: Path) -> None:
    engine, reference = opened(tmp_path, name)
    plan = Plan(intensities=[0.1, 1.0], quantiles=[0.9], seeds=1)
    conditions = list_perturbations(plan) + list_sensitivities(reference.kinds(None), plan)
    assert len(set(map(str, conditions))) == len(conditions)
    nll, edits = nll_of(engine, reference, *conditions)
    assert check_norms(edits) < 1e-4
    changed = [np.abs(nll[str(c)] - nll[FULL]).max() for c in conditions]
    assert np.isfinite(changed).all()
    assert min(changed) > 0


@pytest.mark.parametrize("name", ["llama", "opt"])
def test_nothing_changes_nothing(name: str, tmp_path: Path) -> None:
    engine, reference = opened(tmp_path, name)
    nll, _ = nll_of(engine, reference, *list_nothings())
    assert len(nll) == 5
    for each in nll.values():
        assert check_nothing(pd.DataFrame({"nll": each, "nll_full": nll[FULL]})) == 0
    changed = pd.DataFrame({"nll": nll[FULL] + 1e-9, "nll_full": nll[FULL]})
    with pytest.raises(GateError, match="intensity 0 changed the NLL"):
        check_nothing(changed)


def test_no_result_depends_on_the_batch(tmp_path: Path) -> None:
    conditions = [
        Perturbation(BOTH),
        Perturbation(ACTIVATIONS, relation="M-"),
        Perturbation(ACTIVATIONS, SHUFFLED, intensity=nan, quantile=0.9),
        Perturbation(ACTIVATIONS, MATCHED, intensity=nan, quantile=0.9),
    ]
    alone, _ = nll_of(*opened(tmp_path / "1", batch_size=1), *conditions)
    together, _ = nll_of(*opened(tmp_path / "5", batch_size=5), *conditions)
    for condition in map(str, conditions):
        np.testing.assert_allclose(alone[condition], together[condition], atol=2e-6)


def plain_nll(model: nn.Module) -> np.ndarray:
    """Mean NLL of the documents from the model's own forward."""
    ids = torch.from_numpy(IDS).long()
    with torch.no_grad():
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
    loss = nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none")
    return loss.mean(1).numpy()


def test_clipped_activations_equal_plain_hooks(tmp_path: Path) -> None:
    """Every projection's own input is clipped, each document by its own quantile."""
    engine, reference = opened(tmp_path)
    condition = Perturbation(ACTIVATIONS, CLIP, intensity=nan, quantile=0.95)
    nll, _ = nll_of(engine, reference, condition)
    model = build("llama")

    def clipped(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        (x,) = args
        above = round(0.05 * x[0].numel())
        limits = x.abs().flatten(1).sort(dim=1, descending=True).values[:, above, None, None]
        return (torch.minimum(torch.maximum(x, -limits), limits),)

    for module in model.model.layers.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(clipped)
    np.testing.assert_allclose(nll[str(condition)], plain_nll(model), atol=1e-5)
    assert np.abs(nll[str(condition)] - nll[FULL]).min() > 1e-4


def test_clipped_weights_equal_a_plain_model_with_them(tmp_path: Path) -> None:
    engine, reference = opened(tmp_path)
    condition = Perturbation(WEIGHTS, CLIP, intensity=nan, quantile=0.95)
    nll, edits = nll_of(engine, reference, condition)
    model = build("llama")
    change = 0.0
    for module in model.model.layers.modules():
        if isinstance(module, nn.Linear):
            limit = module.weight.abs().flatten().sort(descending=True).values
            limit = limit[round(0.05 * len(limit))]
            before = module.weight.detach().clone()
            module.weight.data.clamp_(-limit, limit)
            change += float((module.weight.detach() - before).square().sum())
    np.testing.assert_allclose(nll[str(condition)], plain_nll(model), atol=1e-5)
    found = sum(row["perturbation"] ** 2 for row in edits[str(condition)].norms.rows())
    assert found == pytest.approx(change, rel=1e-4)


def test_what_several_projections_read_is_perturbed_alike(tmp_path: Path) -> None:
    """q, k and v read one tensor: noise of their own each would be another experiment."""
    engine, reference = opened(tmp_path)
    edit = PerturbationEdit(Perturbation(ACTIVATIONS), engine, reference)
    taps = edit.taps(0, slice(0, 2), {})
    x = torch.randn(2, 7, 64, generator=torch.Generator().manual_seed(0))
    q, k, v = (taps[f"self_attn.{name}_proj", "input"](x) for name in "qkv")
    assert q is k is v
    assert not torch.equal(q, x)


def test_noise_is_matched_to_the_reference_row_by_row(tmp_path: Path) -> None:
    engine, reference = opened(tmp_path)
    edit = PerturbationEdit(Perturbation(WEIGHTS, per="channel", intensity=2.0), engine, reference)
    own = engine.decoder.blocks[1].mlp.up_proj.weight.detach()
    changed = edit.parameters(1, {})["mlp.up_proj.weight"]
    layer = quantized_layers(build("llama"), 3)["model.layers.1.mlp.up_proj"]
    error = (dequantize(layer) - own).norm(dim=1)
    torch.testing.assert_close((changed - own).norm(dim=1), 2 * error, rtol=1e-4, atol=0)


def test_a_projection_that_the_model_does_not_have(tmp_path: Path) -> None:
    _, reference = opened(tmp_path, "opt")
    with pytest.raises(InputError, match=r"has gate_proj, which OPTForCausalLM does not have.*fc1"):
        reference.kinds(["fc1", "gate_proj"])
    assert reference.kinds(["fc1"]) == [["fc1"]] * 3


def test_a_wrong_norm_stops_the_job(tmp_path: Path) -> None:
    engine, reference = opened(tmp_path)
    edit = PerturbationEdit(Perturbation(WEIGHTS), engine, reference)
    x = torch.ones(2, 2)
    edit.norms.record(WEIGHTS, "0.mlp.up_proj", x + 0.5, x, (0, 1), torch.tensor([[1.001]]))
    with pytest.raises(GateError, match=r"norm of a perturbation .broken. is off by a share of"):
        check_norms({"broken": edit})


def test_every_transform_has_its_quantizer_and_what_is_fitted_is_fitted_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {*simulating.WEIGHT_QUANTIZERS, *simulating.FITTED} == set(TRANSFORMS)
    engine, _ = opened(tmp_path)
    edit = SimulationEdit(Simulation(3, 16, "power fitted", "row"), engine, 16, {})
    first = edit.parameters(1, {})["mlp.up_proj.weight"]
    weight = engine.decoder.blocks[1].mlp.up_proj.weight.detach()
    expected = dequantize(power.quantize(weight, bits=3, group_size="row", exponent="fit"))
    torch.testing.assert_close(first, expected, rtol=0, atol=0)
    monkeypatch.setattr(simulating, "best_compander", None)
    torch.testing.assert_close(edit.parameters(1, {})["mlp.up_proj.weight"], first, rtol=0, atol=0)
