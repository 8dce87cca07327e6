"""Patching: shares restored and their intervals, the table to read, claims, figures, summary."""

import json
from dataclasses import replace
from pathlib import Path

import matplotlib.text
import numpy as np
import pandas as pd
import pytest
from run_script import run_script
from synthetic_patching import BLOCKS, SHARES, make_patching
from synthetic_study import METHODS, make_residuals, make_scores

from lowbit.analysis.error_sets import ErrorSettings, choose_sets, error_table, sets_table
from lowbit.analysis.mechanisms.patching import (
    BY_CONSTRUCTION,
    NO_GAP,
    TOO_FEW,
    PatchedSet,
    patching_table,
)
from lowbit.analysis.mechanisms.patching_report import patching_answer, patching_markdown
from lowbit.analysis.statistics import BootstrapSettings, estimate, resample_counts
from lowbit.analysis.tables import by_document, document_ids, methods_from_config
from lowbit.claims.judging import Study, judge
from lowbit.claims.paper import Paper, read_paper
from lowbit.claims.paper_patching import COLUMNS, paper_perplexities
from lowbit.claims.results import ModelResults
from lowbit.claims.statistics import STATISTICS
from lowbit.claims.study_statistics import STUDY_STATISTICS
from lowbit.figures import patching as figures
from lowbit.figures import plotting

CLAIMS = "claims/inputs.yaml"
BOOTSTRAP = BootstrapSettings(resamples=200, confidence=0.95)
THREE = ["rtn3", "nf3", "hqq3"]
PAPERS = {
    "awq3": {"quantizer": "awq", "bits": 3, "group_size": 128},
    "nf3": {"quantizer": "nf", "bits": 3, "group_size": 64},
}
NO_PAPER = pd.DataFrame(columns=COLUMNS)


def make_results(n: int = 150, methods: dict = METHODS) -> ModelResults:
    """Errors and sets of the synthetic study, without any patching."""
    scores, fragility = make_scores(n, methods)
    errors = error_table(scores)
    tokens = np.arange(n * 20).reshape(n, 20)
    matrix = by_document(errors, "error", list(methods))
    sets = {
        name: choose_sets(column, tokens, ErrorSettings(), 0, name)
        for name, column in zip(methods, matrix.T, strict=True)
    }
    return ModelResults(
        errors=errors,
        sets=sets_table(list(scores["full"]["doc_id"]), sets),
        residuals=make_residuals(fragility),
        methods=methods_from_config(methods),
        settings=BOOTSTRAP,
        seed=0,
    )


@pytest.fixture(scope="module")
def results() -> ModelResults:
    return make_results()


def table_of(results: ModelResults, patching: pd.DataFrame) -> pd.DataFrame:
    """The table of shares."""
    return patching_table(patching, document_ids(results.errors), BOOTSTRAP, 0)


def patched(results: ModelResults, names=THREE, **options) -> ModelResults:
    """The same results with the stage's table."""
    tables = {"patching": make_patching(results.errors, results.sets, names, **options)}
    return replace(results, tables=tables)


@pytest.fixture(scope="module")
def shares(results) -> pd.DataFrame:
    """Table of a study that patches in every way."""
    ways = ("upper", "single", "suffix")
    return table_of(results, make_patching(results.errors, results.sets, THREE, ways))


def test_a_tiny_study_has_tables_and_figures_without_intervals():
    tiny = make_results(n=24)
    shares = table_of(tiny, make_patching(tiny.errors, tiny.sets, THREE, ("upper", "single")))
    assert shares["share_low"].isna().all()
    assert shares["note"].str.contains(TOO_FEW).all()
    text = patching_answer(shares, "m")
    assert text.count("nothing can be said: it has too few documents.") == 2
    assert "  " not in text
    assert "| 0.9" in patching_markdown(shares, NO_PAPER, "m", 0.95)
    methods = methods_from_config(METHODS)
    roles = figures.share_by_role(shares, methods)
    assert "What overwriting one activation restores" in texts(roles)
    assert roles.axes[0].get_xlim()[1] >= shares.loc[shares["layers"] == "upper", "share"].max()
    figures.last_blocks(shares, methods)
    figures.share_by_block(shares[shares["method"] == "nf3"], methods, "single")


def by_hand(full: list, quantized: list, edited: list) -> pd.DataFrame:
    """Patching of one method on one set under one condition."""
    documents = [f"d{place}" for place in range(len(full))]
    condition = {"kind": "patch", "role": "mlp_up", "layers": "upper", "first_block": 2}
    named = {"method": "m", "sets_of": "m", "set": "large", "doc_id": documents, "last_block": 2}
    nll = {"nll": edited, "nll_full": full, "nll_quantized": quantized, "note": ""}
    return pd.DataFrame(named | condition | nll)


def test_the_share_is_a_ratio_of_sums():
    """Gaps 1, 2, 3, 0, 2 (8 together), restored 1, 0, 3, 0, -1 (3 together)."""
    frame = by_hand([1, 1, 1, 1, 1], [2, 3, 4, 1, 3], [1, 3, 1, 1, 4])
    (row,) = patching_table(frame, frame["doc_id"].to_numpy(), BOOTSTRAP, 0).itertuples()
    assert row.share == pytest.approx(3 / 8)
    assert row.perplexity_full == pytest.approx(np.e)
    assert row.perplexity_quantized == pytest.approx(np.exp(13 / 5))
    assert row.perplexity == pytest.approx(np.exp(10 / 5))
    assert row.n == 5
    assert row.share_low < row.share < row.share_high
    assert row.perplexity_full_low == row.perplexity_full_high
    assert row.note == ""


def test_intervals_are_quantiles_of_the_share_of_resampled_documents():
    rng = np.random.default_rng(0)
    full = rng.normal(3, 0.3, 12)
    quantized = full + rng.uniform(0.5, 2, 12)
    edited = quantized - rng.uniform(0, 0.5, 12)
    frame = by_hand(full, quantized, edited)
    everyone = np.array([*(f"other{k}" for k in range(20)), *frame["doc_id"]])
    (row,) = patching_table(frame, everyone, BOOTSTRAP, 7).itertuples()
    drawn = [
        np.repeat(np.arange(12), counts[20:].astype(int))
        for counts in resample_counts(32, BOOTSTRAP, 7)[1:]
    ]
    ratios = [(quantized - edited)[k].sum() / (quantized - full)[k].sum() for k in drawn]
    assert (row.share_low, row.share_high) == pytest.approx(np.quantile(ratios, [0.025, 0.975]))
    perplexities = [np.exp(edited[k].mean()) for k in drawn]
    expected = np.quantile(perplexities, [0.025, 0.975])
    assert (row.perplexity_low, row.perplexity_high) == pytest.approx(expected)


def test_the_interval_of_a_share_covers_it():
    """Documents' gaps are skewed and their shares grow with the gap; 400 samples of 40."""
    rng = np.random.default_rng(1)

    def draw(n: int) -> tuple[np.ndarray, np.ndarray]:
        gap = rng.gamma(2, 0.5, n)
        return gap, gap * np.clip(0.3 + 0.2 * gap + rng.normal(0, 0.3, n), -1, 2)

    gap, restored = draw(2_000_000)
    truth, zeros, covered = restored.sum() / gap.sum(), np.zeros(40), 0
    for seed in range(400):
        gap, restored = draw(40)
        counts = resample_counts(40, BOOTSTRAP, seed)
        nll = (gap - restored)[:, None]
        sample = PatchedSet("m", "m", "large", pd.DataFrame(), nll, zeros, gap, counts)
        share = estimate(sample.share_draws[:, 0], BOOTSTRAP.confidence)
        covered += share.low <= truth <= share.high
    assert 0.90 <= covered / 400 <= 0.98


def test_a_gap_that_may_be_none_has_no_share():
    rng = np.random.default_rng(2)
    full = rng.normal(3, 0.3, 30)
    for centre, expected in ((0.0, True), (-0.5, True), (0.5, False)):
        frame = by_hand(full, full + rng.normal(centre, 0.3, 30), full)
        (row,) = patching_table(frame, frame["doc_id"].to_numpy(), BOOTSTRAP, 0).itertuples()
        assert np.isnan(row.share) == expected
        assert row.note == (NO_GAP if expected else "")
        assert np.isfinite([row.perplexity_low, row.perplexity, row.perplexity_high]).all()


def test_few_documents_have_no_interval():
    frame = by_hand([1.0, 1.0], [2.0, 3.0], [1.5, 2.0])
    (row,) = patching_table(frame, frame["doc_id"].to_numpy(), BOOTSTRAP, 0).itertuples()
    assert row.share == pytest.approx(0.5)
    assert np.isnan([row.share_low, row.share_high, row.perplexity_low]).all()
    assert row.note == TOO_FEW


def test_the_table_finds_the_planted_shares(shares):
    upper = shares[(shares["layers"] == "upper") & (shares["set"] == "large")]
    assert "mlp_out" not in set(upper["role"])  # it is h_down
    for role, share in SHARES.items():
        rows = upper[upper["role"] == role]
        if role == "mlp_out":
            continue
        assert list(rows["method"]) == THREE
        np.testing.assert_allclose(rows["share"], share, atol=0.07 * abs(share) + 1e-9)
        assert (rows["share_low"] <= rows["share"]).all()
        assert (rows["share"] <= rows["share_high"]).all()
    assert set(upper["first_block"]) == {4}
    last = shares[(shares["layers"] == "last") & (shares["set"] == "large")]
    counts = last["last_block"] - last["first_block"] + 1
    assert list(counts) == [1, 2, 3, 4, 5, 6] * 3
    np.testing.assert_allclose(last["share"], (counts / BLOCKS) ** 2, rtol=0.08)
    whole = shares["note"] == BY_CONSTRUCTION
    assert set(shares.loc[whole, "role"]) == {"residual_out", "all"}
    np.testing.assert_allclose(
        shares.loc[whole & shares["layers"].isin(["upper", "last"]), "share"], 1
    )


def test_what_the_architecture_does_not_have_is_a_row_with_its_reason(results):
    absent = ("mlp_gate", "mlp_gate_in")
    patching = make_patching(results.errors, results.sets, THREE, absent=absent)
    table = table_of(results, patching)
    rows = table[table["kind"] == "none"]
    assert len(rows) == 3 * 3 * 2  # roles, methods, sets
    assert set(rows["n"]) == {0}
    assert rows["share"].isna().all()
    assert set(rows["note"]) == {
        "this architecture has no mlp_gate",
        "this architecture has no mlp_gate_in",
    }
    text = patching_markdown(table, NO_PAPER, "m", 0.95)
    assert "| h_gate |" not in text
    assert "Not run: this architecture has no mlp_gate; this architecture has no mlp_g" in text


def test_a_method_on_unknown_scales_lacks_some_conditions_only(results):
    """Beside methods that have them all; a claim is then about the others."""
    ways = ("upper", "single")
    found = patched(results, patch=ways, scales_unknown=["nf3"])
    table = table_of(found, found.tables["patching"])
    text = patching_markdown(table, NO_PAPER, "m", 0.95)
    assert "does not fit (nf3)" in text
    shown = cells(text, "Share restored on D_large")
    place = shown["method"].index("h_up")
    assert shown["nf3"][place] == ""
    assert shown["rtn3"][place] != ""
    claims = directions(found)
    with_gap = set(claims.loc["mlp_output_recovers", "methods"].split())
    assert set(claims.loc["up_projection_does_not", "methods"].split()) == with_gap - {"nf3"}
    only = patched(results, ["nf3"], scales_unknown=["nf3"])
    assert "scales that the published" in directions(only)["verdict"]["up_projection_does_not"]
    methods = methods_from_config(METHODS)
    assert "not run" in texts(figures.share_by_role(table, methods))
    figures.share_by_block(table, methods, "single")


EXPERTS = ("mlp_down", "mlp_gate", "mlp_up", "mlp_gate_in")
"""Roles that a mixture of experts does not have."""


def test_with_experts_the_mlp_is_patched_as_a_whole(results):
    found = patched(results, patch=("upper", "single"), absent=EXPERTS)
    table = table_of(found, found.tables["patching"])
    down = table[(table["role"] == "mlp_down") & (table["kind"] == "none")]
    told = "this architecture has no mlp_down; mlp_out is patched in its place"
    assert set(down["note"]) == {told}
    text = patching_markdown(table, NO_PAPER, "m", 0.95)
    shown = cells(text, "Share restored on D_large")
    assert shown["method"] == ["n", "h_attn", "mlp_out", "h", "r", "last block"]
    assert shown["nf3"][2].startswith("0.8")
    assert "- **mlp_out**: what all experts of the MLP give together" in text
    assert "the output of all experts (mlp_out) restores most" in patching_answer(table, "m")
    claims = directions(found)
    row = claims.loc["mlp_output_recovers"]
    assert row["verdict"] == "reproduced"
    assert row["measured"] == pytest.approx(SHARES["mlp_out"], abs=0.05)
    assert row["detail"].startswith("mlp_out in place of mlp_down; 3 methods")
    assert claims["verdict"]["gates_recover"] == "not run (this architecture has no mlp_gate)"
    methods = methods_from_config(METHODS)
    assert "Of the module outputs, output of all experts (mlp_out)" in texts(
        figures.share_by_role(table, methods)
    )
    maps = figures.share_by_block(table, methods, "single")
    labels = [label.get_text() for label in maps.axes[0].get_yticklabels()]
    assert "output of all experts (mlp_out)" in labels
    assert not any("h_down" in label for label in labels)


def test_without_experts_nothing_is_said_of_them(shares):
    text = patching_markdown(shares, NO_PAPER, "m", 0.95)
    assert "mlp_out" not in text
    assert "of attention;\n- **h**" in text


def cells(text: str, title: str) -> dict[str, list[str]]:
    """Rows of one of the report's tables by their first cell."""
    part = text[text.index(f"## {title}") :].split("\n\n")[1]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in part.strip().splitlines()
    ]
    return {row[0]: row[1:] for row in rows}


def test_the_report_has_the_papers_columns(shares):
    text = patching_markdown(shares, NO_PAPER, "m", 0.95)
    table = cells(text, "Perplexity on D_large")
    assert table["method"] == ["n", "16 bit", "quantized", "h_down", "h_gate", "h_up", "h_attn",
                               "h", "r", "gate inputs", "gate weights", "last block"]  # fmt: skip
    assert list(table)[2:] == THREE
    mine = shares[(shares["method"] == "nf3") & (shares["set"] == "large")]
    gate = mine[(mine["role"] == "mlp_gate") & (mine["layers"] == "upper")].iloc[0]
    assert table["nf3"][1:3] == [
        f"{gate['perplexity_full']:.2f}",
        f"{gate['perplexity_quantized']:.2f}",
    ]
    assert table["nf3"][4] == f"{gate['perplexity']:.2f}"
    shown = cells(text, "Share restored on D_ctrl")
    assert shown["rtn3"][2].startswith("0.")
    assert "(**last block**; the paper: 7 of 40)" in text
    assert "regression to the mean" in text


def paper_results(**options) -> tuple[ModelResults, Study]:
    """A study of one of the paper's models on its text, patched with the paper's methods."""
    found = patched(make_results(methods=PAPERS), list(PAPERS), **options)
    source, text = "hub:mistralai/Mistral-Nemo-Base-2407@abc", "hub:HuggingFaceFW/fineweb@1"
    return found, Study({"m": source}, lambda model: found, PAPERS, text, 512)


def test_the_papers_own_values_stand_beside_ours():
    found, study = paper_results()
    paper = paper_perplexities([read_paper(CLAIMS, STATISTICS, STUDY_STATISTICS)], study, "m")
    shares = table_of(found, found.tables["patching"])
    table = cells(patching_markdown(shares, paper, "m", 0.95), "Perplexity on D_large")
    values = ["", "5.60", "8.67", "6.05", "6.13", "12.49", "7.61", "", "", "", "", "8.05"]
    assert table["awq3 in the paper, D_large of awq3"] == values
    values = ["", "5.60", "10.14", "5.92", "7.12", "13.75", "8.71", "", "", "", "", ""]
    assert table["nf3 in the paper, D_large of awq3"] == values
    other = replace(study, sources={"m": "demo"})
    assert paper_perplexities([read_paper(CLAIMS, STATISTICS, STUDY_STATISTICS)], other, "m").empty


KNOWN = {
    "mlp_output_recovers": SHARES["mlp_down"],
    "gates_recover": SHARES["mlp_gate"],
    "up_projection_does_not": SHARES["mlp_up"] - SHARES["mlp_gate"],
    "attention_recovers_less": SHARES["attn_out"] - SHARES["mlp_gate"],
    "gate_inputs_not_weights": SHARES["mlp_gate_in"] - SHARES["gate_projection"],
    "restoring_last_layers": (1 / BLOCKS) ** 2,
}


def directions(results: ModelResults, methods: dict = METHODS) -> pd.DataFrame:
    """Verdicts on the claims about patching."""
    study = Study({"m": "demo"}, lambda model: results, methods, "demo", 512)
    claims = judge([paper()], study)
    return claims[claims["kind"] == "direction"].set_index("claim").loc[list(KNOWN)]


def paper() -> Paper:
    """The paper with its claims about patching only."""
    whole = read_paper(CLAIMS, STATISTICS, STUDY_STATISTICS)
    return replace(whole, claims=[claim for claim in whole.claims if claim.stages == ["patch"]])


def test_planted_shares_are_reproduced(results):
    claims = directions(patched(results))
    assert set(claims["verdict"]) == {"reproduced"}
    for claim, value in KNOWN.items():
        assert claims["measured"][claim] == pytest.approx(value, abs=0.06 * abs(value) + 1e-3)
    assert set(claims["methods"]) == {" ".join(THREE)}
    assert set(claims["n"]) == {15}
    assert claims["detail"]["restoring_last_layers"] == "last block of 6; 3 methods: 0.03 to 0.03"
    assert claims["detail"]["attention_recovers_less"].startswith("shares 0.2")


def test_opposite_shares_differ(results):
    swapped = SHARES | {"mlp_down": 0.3, "mlp_gate": -0.2, "mlp_up": 0.7, "attn_out": 0.9}
    swapped |= {"mlp_gate_in": 0.0, "gate_projection": 0.4}
    claims = directions(patched(results, shares=swapped))
    assert set(claims["verdict"][:5]) == {"differs"}


def test_a_study_without_patching_is_not_run(results):
    told = "not run (this study has no table patching: write mechanisms.patch: [upper])"
    assert set(directions(results)["verdict"]) == {told}


def test_roles_ways_and_methods_that_are_not_there_are_not_run(results):
    claims = directions(patched(results, absent=("mlp_gate", "mlp_gate_in")))["verdict"]
    assert claims["mlp_output_recovers"] == claims["restoring_last_layers"] == "reproduced"
    assert claims["gates_recover"] == "not run (this architecture has no mlp_gate)"
    claims = directions(patched(results, patch=("single",)))["verdict"]
    reason = "not run (mlp_down was not patched: write upper among mechanisms.patch)"
    assert claims["mlp_output_recovers"] == reason
    assert claims["restoring_last_layers"] == "reproduced"
    claims = directions(patched(results, names=["nf4"]))["verdict"]
    assert claims["gates_recover"].startswith("not run (none of these methods was patched: rtn2, r")


def test_a_method_without_damage_counts_in_no_mean(results):
    frame = make_patching(results.errors, results.sets, THREE)
    same = frame["method"] == "nf3"
    frame.loc[same, "nll_quantized"] = frame.loc[same, "nll_full"]
    claims = directions(replace(results, tables={"patching": frame}))
    assert set(claims["methods"]) == {"rtn3 hqq3"}
    frame["nll_quantized"] = frame["nll_full"]
    claims = directions(replace(results, tables={"patching": frame}))
    assert set(claims["verdict"]) == {"not run (no gap to restore on D_large)"}


def figures_judged(results: ModelResults, study: Study) -> pd.DataFrame:
    """Verdicts on the paper's figures of patching."""
    claims = judge([paper()], study)
    return claims[claims["kind"] == "figure"]


def test_the_papers_figures_bind_on_the_sets_it_used():
    found, study = paper_results(sets_of="awq3", blocks=40)
    claims = figures_judged(found, study)
    mine = claims[claims["model"] == "m"]
    assert sorted(mine["claim"]) == [
        *(["attention_recovers_less"] * 2), *(["gates_recover"] * 2),
        *(["mlp_output_recovers"] * 2), "restoring_last_layers", *(["up_projection_does_not"] * 2),
    ]  # fmt: skip
    assert set(mine["verdict"]) <= {"reproduced", "differs"}
    assert set(mine["methods"]) == {"awq3 awq3", "awq3 nf3"}
    rows = found.tables["patching"]
    large = rows[(rows["set"] == "large") & (rows["method"] == "awq3")]
    late = large[(large["layers"] == "last") & (large["first_block"] == 34)]
    row = mine[mine["claim"] == "restoring_last_layers"].iloc[0]
    assert row["measured"] == pytest.approx(np.exp(late["nll"].mean()))
    assert row["low"] < row["measured"] < row["high"]
    assert row["expected"] == "8.05 ± 0.4"
    others = claims[claims["model"] != "m"]
    assert others["verdict"].str.endswith("is not in this study)").all()


def test_the_papers_figures_need_its_sets():
    claims = figures_judged(*paper_results())
    mine = claims[claims["methods"] == "AWQ3-NF3"]
    reason = (
        "not run (nf3 was patched on the D_large of nf3, not of awq3: write "
        "mechanisms.sets_of: awq3)"
    )
    assert reason in set(mine["verdict"])


def texts(figure) -> str:
    """All text of a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def test_figures_show_every_method_role_and_set(shares):
    plotting.start()
    methods = methods_from_config(METHODS)
    roles = figures.share_by_role(shares, methods)
    assert [axes.get_title(loc="left") for axes in roles.axes] == THREE
    bars = roles.axes[0].patches
    assert len(bars) == 2 * 8  # z is left out: 1 by construction
    large = shares[(shares["method"] == "rtn3") & (shares["set"] == "large")]
    down = large[(large["role"] == "mlp_down") & (large["layers"] == "upper")]["share"].item()
    assert bars[0].get_width() == pytest.approx(down)
    assert "MLP output (h_down) restores most on D_large on average: 0." in texts(roles)
    assert "blocks 4 to 6" in texts(roles).replace("\n", " ")
    last = figures.last_blocks(shares, methods)
    assert len(last.axes) == 3
    assert "weights of the last block of 6 restore on D_large: 0.0" in texts(last)
    for layers, count in (("single", 7), ("suffix", 5)):
        maps = figures.share_by_block(shares[shares["method"] != "nf3"], methods, layers)
        panels = [axes for axes in maps.axes if axes.get_title(loc="left")]
        assert len(panels) == 4
        assert len(panels[0].get_yticklabels()) == count
        assert len(panels[0].texts) == count * BLOCKS


def test_figures_say_where_nothing_can_be_restored_and_clip_what_is_far_off(results):
    frame = make_patching(results.errors, results.sets, ["nf3"], shares=SHARES | {"mlp_up": -4.0})
    control = frame["set"] == "control"
    frame.loc[control, "nll_quantized"] = frame.loc[control, "nll_full"]
    shares = table_of(results, frame)
    methods = methods_from_config(METHODS)
    figure = figures.share_by_role(shares, methods)
    assert "no gap to restore" in texts(figure)
    assert "-4." in texts(figure) or "−4." in texts(figure)
    assert figure.axes[0].get_xlim()[0] == figures.SHOWN[0]
    assert "D_ctrl: no gap to restore" in texts(figures.last_blocks(shares, methods))


def test_maps_of_deep_models_have_colours_for_small_shares_and_no_numbers(results):
    frame = make_patching(results.errors, results.sets, ["nf3"], ("single",), blocks=20)
    figure = figures.share_by_block(
        table_of(results, frame), methods_from_config(METHODS), "single"
    )
    assert not figure.axes[0].texts
    limit = figure.axes[0].collections[0].get_clim()[1]
    assert limit == pytest.approx(0.05)  # 0.9 / 20 is less
    assert max(figure.get_size_inches()) < 16


def test_the_summarys_answer_counts_separate_intervals(shares, results):
    text = patching_answer(shares, "m")
    assert "With one module's output in blocks 4 to 6" in text
    assert text.count("the MLP output (h_down) restores most") == 2
    assert "for 3 of 3 methods. On D_ctrl" in text
    assert "weights in the last block of 6 (the paper: 7 of 40) restore 0.0" in text
    close = SHARES | {"mlp_gate": 0.895}
    rows = make_patching(results.errors, results.sets, THREE, shares=close)
    assert "for 0 of 3 methods. On D_ctrl" in patching_answer(table_of(results, rows), "m")
    nothing = rows.assign(nll_quantized=rows["nll_full"])
    text = patching_answer(table_of(results, nothing), "m")
    assert text.count("nothing can be said: no rise in NLL is measurable there") == 2


def test_scripts_write_tables_and_figures_the_same_every_time(results, tmp_path):
    frame = make_patching(results.errors, results.sets, ["nf3"], ("upper", "single", "suffix"))
    frame.to_parquet(tmp_path / "patching.parquet")
    results.errors.to_parquet(tmp_path / "errors.parquet")
    assert analyse(tmp_path, tmp_path / "a") == ""
    assert draw(tmp_path / "a", "roles", "last", "single", "suffix") == ""
    assert len(list((tmp_path / "a").iterdir())) == 10
    assert analyse(tmp_path, tmp_path / "b") == ""
    assert draw(tmp_path / "b", "roles", "last") == ""
    for path in (tmp_path / "b").iterdir():
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes(), path.name
    table = pd.read_csv(tmp_path / "a" / "patching.csv")
    assert len(table) == 2 * (7 + 7 * 6 + 5 * 6 + 2 + 6)
    assert (tmp_path / "a" / "patching.md").read_text().startswith("# Activation patching: m")


def analyse(inputs: Path, outputs: Path) -> str:
    """Run the script that makes the tables."""
    return run_script(
        "analyze_patching.py", Path.cwd(), "--patching", inputs / "patching.parquet",
        "--errors", inputs / "errors.parquet", "--claims", CLAIMS, "--name", "m",
        "--source", "demo", "--document-settings", '{"source": "demo", "length": 512}',
        "--methods", json.dumps(METHODS), "--settings", '{"resamples": 100, "confidence": 0.9}',
        "--seed", 0, "--table", outputs / "patching.csv", "--markdown", outputs / "patching.md",
    )  # fmt: skip


def draw(folder: Path, *names: str) -> str:
    """Run the script that draws these figures."""
    options = {
        f"--{name}-figure": [folder / f"{name}.png", folder / f"{name}.svg"] for name in names
    }
    return run_script(
        "plot_patching.py", Path.cwd(), "--table", folder / "patching.csv",
        "--methods", json.dumps(METHODS),
        *(part for option, paths in options.items() for part in (option, *paths)),
    )  # fmt: skip
