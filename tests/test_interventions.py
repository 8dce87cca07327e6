"""Interventions: norms become what they should, the sham is one, gamma is raised, scripts run."""

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mechanism_inputs import (
    SETTINGS,
    folded_layers,
    open_engine,
    quantized_layers,
    write_method,
    write_model,
)
from run_script import run_script
from tiny_models import build, token_ids
from torch import Tensor

from lowbit.analysis.mechanisms.matched_documents import match
from lowbit.engine.decoder import Tap
from lowbit.engine.edits import Edit, Edited, Scaling
from lowbit.engine.engine import Engine
from lowbit.engine.streams import block_parameters
from lowbit.engine.walk import Stream, walk
from lowbit.errors import GateError
from lowbit.experiments import sham
from lowbit.experiments.edited_documents import EDITS_AT_ONCE, document_nll, walks
from lowbit.experiments.intervention_conditions import SWAPS, layer_sets
from lowbit.experiments.interventions import (
    R,
    check_norms,
    list_interventions,
    raised_gamma,
)
from lowbit.experiments.residuals import measure_residuals
from lowbit.files import read_json

IDS = token_ids(6).int().numpy()
PARTNERS = np.array([3, 4, 2, 0, 1, 5])


def noisy(engine: Engine) -> Stream:
    """A stream with fixed noise on all matrices of all blocks."""
    generator = torch.Generator().manual_seed(2)
    changed = [
        {
            name: p.detach() + 0.05 * torch.randn(p.shape, generator=generator)
            for name, p in block.named_parameters()
            if p.dim() > 1
        }
        for block in engine.decoder.blocks
    ]
    return Stream("noisy", changed.__getitem__)


def norms_of(engine: Engine) -> np.ndarray:
    """norm(x; r(l)) of the unchanged model, [documents, layers]."""
    return np.concatenate([batch.documents["r"] for batch in measure_residuals(engine, IDS)])


def norms_under(engine: Engine, edit: Edit) -> dict[int, np.ndarray]:
    """norm(x; r(l)) in the full-precision stream, after the edit, by edited block."""
    found: dict[int, np.ndarray] = {}

    def taps(stream: str, index: int, batch: int) -> Mapping[str, Tap]:
        if index not in edit.blocks:
            return {}
        change = edit.taps(index, slice(None), {})[R]

        def read(activation: Tensor) -> Tensor:
            changed = change(activation)
            found[index] = changed.norm(dim=-1).mean(1).double().numpy()
            return changed

        return {R: read}

    list(walk(engine.decoder, [engine.full], [torch.tensor(IDS).long()], taps))
    return found


@pytest.mark.parametrize("name", ["llama", "opt", "bloom", "gemma2"])
def test_norms_become_what_they_should_at_every_layer(name: str) -> None:
    engine = open_engine(build(name))
    norms = norms_of(engine)
    found, left_out = list_interventions(engine, noisy(engine), norms, PARTNERS)
    assert left_out == {}
    for each in found:
        if each.condition in ("scale", "swap", "swap_inverse"):
            partners = norms[PARTNERS]
            meant = {"swap": partners, "swap_inverse": norms**2 / partners}
            meant = meant.get(each.condition, each.factor * norms)
            after = norms_under(engine, each.full)
            assert len(after) == len(each.full.blocks)
            for index, norm in after.items():
                np.testing.assert_allclose(norm, meant[:, index], rtol=1e-5)
            first = min(after)
            np.testing.assert_allclose(
                each.full.factors[first], meant[:, first] / norms[:, first], rtol=1e-5
            )


def test_both_streams_are_scaled_by_the_same_factors_whatever_the_batches() -> None:
    """As a plain walk with the factors that were found."""
    nll = {}
    for batch_size in (2, 6):
        engine = open_engine(build("llama"), batch_size)
        other = noisy(engine)
        found, _ = list_interventions(engine, other, norms_of(engine), PARTNERS)
        swap = next(each for each in found if each.condition == "swap")
        streams = [engine.full, other]
        nll[batch_size] = document_nll(engine, streams, [swap.pack("noisy")], IDS)
        fixed = {index: each.copy() for index, each in swap.full.factors.items()}
        pack = {"again": Edited("noisy", Scaling(R, fixed))}
        alone = document_nll(engine, streams, [pack], IDS)["again"]
        np.testing.assert_allclose(nll[batch_size][swap.name("noisy")], alone, atol=1e-6)
    for name in nll[2]:
        np.testing.assert_allclose(nll[2][name], nll[6][name], atol=1e-5)
    assert np.abs(nll[2][swap.name("full")] - nll[2]["full"])[np.arange(6) != PARTNERS].max() > 1e-3
    np.testing.assert_allclose(nll[2][swap.name("full")][[2, 5]], nll[2]["full"][[2, 5]], atol=1e-5)


def test_norms_of_other_documents_are_noticed() -> None:
    engine = open_engine(build("llama"))
    norms = norms_of(engine)
    for given, wrong in ((norms, False), (norms[::-1].copy(), True)):
        found, _ = list_interventions(engine, noisy(engine), given, PARTNERS)
        scaled = [each for each in found if each.condition == "scale"][:2]
        packs = [each.pack("noisy") for each in scaled]
        document_nll(engine, [engine.full, noisy(engine)], packs, IDS)
        if wrong:
            with pytest.raises(GateError, match=r"norm\(r\) differs from residuals.parquet"):
                check_norms(scaled, given, torch.float32)
        else:
            assert check_norms(scaled, given, torch.float32) < 1e-6


def test_edits_are_walked_in_bounded_groups() -> None:
    packs = [{f"{number} a": None, f"{number} b": None} for number in range(20)]
    groups = walks(packs)
    assert [len(group) for group in groups] == [16, 16, 8]
    assert [name for group in groups for name in group] == [name for p in packs for name in p]
    large = {str(number): None for number in range(EDITS_AT_ONCE + 1)}
    assert walks([packs[0], large]) == [packs[0], large]


@pytest.mark.parametrize("name", ["llama", "gemma", "opt", "bloom", "gpt-neox", "qwen3-moe"])
def test_the_sham_changes_nothing_that_epsilon_does_not_explain(name: str) -> None:
    engine = open_engine(build(name))
    for stream in (engine.full, noisy(engine)):
        measured = sham.check_sham(engine, stream, IDS[:2], 0.0)
        assert measured["beyond_epsilon"] < 2e-5
        assert measured["by_epsilon"] > 0


def test_rounding_is_no_reason_to_fail_in_bfloat16() -> None:
    engine = open_engine(build("llama"), dtype=torch.bfloat16)
    measured = sham.check_sham(engine, engine.full, IDS[:2], 0.0)
    assert sham.SHAM_TOLERANCE < measured["beyond_epsilon"] <= measured["tolerance"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_no_sham_is_noticed(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = open_engine(build("llama"), dtype=dtype)
    real = sham.Scaling
    monkeypatch.setattr(sham, "Scaling", lambda role, factors: real(R, factors))
    with pytest.raises(GateError, match=r"beyond what the norm's epsilon explains.*it is no sham"):
        sham.check_sham(engine, engine.full, IDS[:2], 0.0)


def test_epsilon_is_put_back() -> None:
    engine = open_engine(build("llama"))
    norms = [block.post_attention_layernorm for block in engine.decoder.blocks]
    before = norms[1].variance_epsilon
    with sham.epsilon_divided(engine.decoder, [1], 4.0):
        assert norms[1].variance_epsilon == before / 4
        assert norms[0].variance_epsilon == before
    assert norms[1].variance_epsilon == before


def gamma_model(name: str, gamma: Tensor) -> Engine:
    """A tiny model whose MLP norms multiply by `gamma`."""
    engine = open_engine(build(name))
    for block, sites in zip(engine.decoder.blocks, engine.decoder.sites, strict=True):
        norm = block.get_submodule(sites["mlp_norm_in"][0])
        norm.weight.data = gamma - engine.decoder.architecture.norm_offset
    return engine


@pytest.mark.parametrize("name", ["llama", "gemma", "gemma2", "opt"])
def test_the_smallest_gamma_is_raised_to_the_median_with_its_sign(name: str) -> None:
    """3 of 64 entries are 5 %; an entry of 0 shuts its channel and stays."""
    gamma = torch.linspace(1, 2, 64)
    gamma[[5, 9, 20]] = torch.tensor([0.1, -0.2, 0.3])
    gamma[30] = 0
    engine = gamma_model(name, gamma)
    offset = engine.decoder.architecture.norm_offset
    ((key, weight),) = raised_gamma(engine.decoder, engine.full, engine.full, 1).items()
    assert key == f"{engine.decoder.sites[1]['mlp_norm_in'][0]}.weight"
    median = gamma.abs().quantile(0.5)
    expected = gamma.clone()
    expected[[5, 9, 20]] = median * torch.tensor([1.0, -1.0, 1.0])
    torch.testing.assert_close(weight + offset, expected)
    scales = torch.linspace(0.5, 2, 64)
    folded = Stream("folded", lambda index: {key: gamma / scales - offset})
    own = raised_gamma(engine.decoder, engine.full, folded, 1)[key]
    torch.testing.assert_close(own + offset, expected / scales)


def test_raising_gamma_leaves_a_method_with_moved_scales_equal_to_the_model(tmp_path: Path) -> None:
    """At 8 bits little but the moved scales differs, and the ratio is the same in both."""
    model = build("llama")
    engine = open_engine(model)
    stream = engine.quantized("awq8", write_method(tmp_path / "awq8", *folded_layers(model, 8)))
    found, _ = list_interventions(engine, stream, None, PARTNERS)
    gamma = [each for each in found if each.condition == "gamma"]
    packs = [each.pack("awq8") for each in gamma]
    nll = document_nll(engine, [engine.full, stream], packs, IDS)
    for each in gamma:
        np.testing.assert_allclose(nll[each.name("awq8")], nll[each.name("full")], atol=0.02)
        assert np.abs(nll[each.name("full")] - nll["full"]).max() > 1e-4
    name = "post_attention_layernorm.weight"
    ratio = raised_gamma(engine.decoder, engine.full, engine.full, 0)[name]
    ratio = ratio / block_parameters(engine.decoder, engine.full, 0)[name]
    own = stream.parameters(0)[name]
    torch.testing.assert_close(
        raised_gamma(engine.decoder, engine.full, stream, 0)[name], own * ratio
    )


def test_layers_are_thirds_and_the_upper_half() -> None:
    assert layer_sets(6) == {
        "lower third": [0, 1],
        "middle third": [2, 3],
        "upper third": [4, 5],
        "upper half": [3, 4, 5],
    }
    assert layer_sets(7)["lower third"] == [0, 1, 2]
    assert layer_sets(1) == {"lower third": [0], "upper half": [0]}


def test_partners_are_as_alike_as_can_be_over_all_pairs() -> None:
    """The first would take 2.1, but then 2.2 would be left with 5."""
    nll = np.array([2.0, 2.2, 2.1, 5.0, 1.0])
    assert match(nll, 2).tolist() == [4, 2, 1, 3, 0]
    assert match(np.array([1.0, 2.0, 2.1]), 2).tolist() == [0, 2, 1]


@pytest.mark.parametrize("name", ["llama", "opt"])
def test_scripts_write_scores_table_page_and_figure(name: str, tmp_path: Path) -> None:
    model = write_model(tmp_path, name)
    record = write_method(tmp_path / "m", quantized_layers(model, 3))
    assert intervene(tmp_path, record) == ""
    scores = pd.read_parquet(tmp_path / "scores.parquet")
    counts = scores.groupby("condition", sort=False)["factor"].size() / 8
    once = dict.fromkeys(("swap", "swap_inverse", "swap_sham"), 1)
    assert counts.to_dict() == {"scale": 16, **once, "sham": 4, "gamma": 4}
    with torch.inference_mode():
        ids = token_ids(12, 20)
        logits = model(ids).logits.double().log_softmax(-1)[:, :-1]
    nll = -logits.gather(-1, ids[:, 1:, None])[..., 0].mean(1).numpy()
    plain = {f"d{number:02}": value for number, value in enumerate(nll)}
    np.testing.assert_allclose(scores["nll_full"], scores["doc_id"].map(plain), atol=1e-5)
    pairs = scores[scores["condition"] == "swap"].set_index("doc_id")["partner"]
    assert all(pairs[pairs[doc_id]] == doc_id for doc_id in pairs.index)
    gates = read_json(tmp_path / "gates.json")
    assert gates["m"]["left_out"] == {}
    assert gates["m"]["norms"] < 1e-5
    assert gates["m"]["self_patch"] == 0
    assert gates["full"]["sham"]["beyond_epsilon"] < 1e-4
    assert tabulate(tmp_path) == ""
    table = pd.read_csv(tmp_path / "interventions.csv")
    assert len(table) == 27 * 2 + 2
    assert "Without a sham" in (tmp_path / "interventions.md").read_text()


@pytest.mark.parametrize(
    ("name", "missing", "said"),
    [
        ("gpt-neox", {"scale", *SWAPS}, "Not measured: this architecture"),
        ("opt-350m", {"sham", "swap_sham", "gamma"}, "There is no sham"),
    ],
)
def test_conditions_without_their_role_are_left_out_with_a_note(
    name: str, missing: set[str], said: str, tmp_path: Path
) -> None:
    model = write_model(tmp_path, name)
    record = write_method(tmp_path / "m", quantized_layers(model, 3))
    assert intervene(tmp_path, record) == ""
    assert tabulate(tmp_path) == ""
    table = pd.read_csv(tmp_path / "interventions.csv")
    empty = table[table["n"] == 0]
    assert set(empty["condition"]) == missing
    assert empty["note"].str.startswith("left out: no role").all()
    assert set(table.loc[table["n"] > 0, "condition"]).isdisjoint(missing)
    page = (tmp_path / "interventions.md").read_text()
    assert said in page
    assert "## Left out" in page


def test_a_method_without_sets_is_an_error(tmp_path: Path) -> None:
    model = write_model(tmp_path, "llama")
    record = write_method(tmp_path / "m", quantized_layers(model, 3))
    sets = pd.read_parquet(tmp_path / "sets.parquet")
    sets[sets["set"] == "large"].to_parquet(tmp_path / "sets.parquet")
    assert "no D_large or no D_ctrl of 'm'" in intervene(tmp_path, record)


def test_weights_read_block_by_block_give_the_same_scores(tmp_path: Path) -> None:
    model = write_model(tmp_path, "llama")
    record = write_method(tmp_path / "m", *folded_layers(model, 3))
    tables = []
    for mode in ("resident", "stream"):
        assert intervene(tmp_path, record, mode) == ""
        tables.append(pd.read_parquet(tmp_path / "scores.parquet"))
    pd.testing.assert_frame_equal(*tables, rtol=0, atol=1e-5)


def intervene(folder: Path, record: Path, mode: str = "resident") -> str:
    """Run intervene.py; return its error message."""
    settings = json.dumps(SETTINGS | {"mode": mode})
    return run_script(
        "intervene.py", folder, "--model", "model.json", "--tokens", "tokens.parquet",
        "--errors", "errors.parquet", "--sets", "sets.parquet", "--residuals", "residuals.parquet",
        "--methods", json.dumps({"m": str(record)}), "--settings", settings,
        "--gates", "gates.json", "--output", "scores.parquet",
    )  # fmt: skip


def tabulate(folder: Path) -> str:
    """Run the scripts that tabulate and draw; return the first error message."""
    return run_script(
        "analyze_interventions.py", folder, "--model", "tiny", "--scores", "scores.parquet",
        "--gates", "gates.json", "--errors", "errors.parquet",
        "--settings", json.dumps({"resamples": 50, "confidence": 0.9}), "--seed", 0,
        "--csv", "interventions.csv", "--markdown", "interventions.md",
    ) or run_script(
        "plot_interventions.py", folder, "--table", "interventions.csv",
        "--figure", "figure.png", "figure.svg",
    )  # fmt: skip
