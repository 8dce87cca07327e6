"""The claims file, how it is checked, and the verdicts."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from synthetic_study import METHODS, make_residuals, make_scores

from lowbit.analysis.error_sets import ErrorSettings, choose_sets, error_table, sets_table
from lowbit.analysis.statistics import BootstrapSettings, expected_jaccard
from lowbit.analysis.studied_models import StudiedModel
from lowbit.analysis.tables import by_document, methods_from_config
from lowbit.claims.judging import (
    Study,
    judge,
    judge_direction,
    judge_figure,
    study_method,
)
from lowbit.claims.paper import Paper, read_paper, repository
from lowbit.claims.report import claims_markdown, verdict_counts
from lowbit.claims.results import MADE_BY
from lowbit.claims.statistics import STATISTICS, Measurement, ModelResults, NotMeasured
from lowbit.claims.study_statistics import STUDY_STATISTICS
from lowbit.errors import InputError

INPUTS = "claims/inputs.yaml"
PERTURBATION = "claims/perturbation.yaml"
BOOTSTRAP = BootstrapSettings(resamples=300, confidence=0.95)

MINIMAL = {
    "name": "tiny",
    "title": "A paper",
    "reference": "none",
    "documents": {"source": "fineweb", "repository": "HuggingFaceFW/fineweb", "length": 512},
    "models": {"qwen": {"name": "Qwen", "sources": ["Qwen/Qwen2.5-7B"]}},
    "methods": {"NF3": {"quantizer": "nf", "bits": 3, "group_size": 64}},
    "claims": [
        {
            "id": "predicts",
            "section": "Residuals",
            "statement": "It predicts.",
            "stages": ["residuals"],
            "statistic": "residual_correlation",
            "options": {"quantity": "r"},
            "maximum_bits": 3,
            "direction": {"expect": "below", "threshold": 0},
            "figures": {"tolerance": 0.05, "values": {"qwen": {"NF3": -0.58}}},
        }
    ],
}


def read(path) -> Paper:
    """Read a claims file."""
    return read_paper(path, STATISTICS, STUDY_STATISTICS)


def results(n: int = 150, methods: dict = METHODS, change=None) -> ModelResults:
    """Result tables of the synthetic study; `change` alters the scores first."""
    scores, fragility = make_scores(n, methods)
    if change:
        change(scores)
    errors = error_table(scores)
    doc_ids = list(scores["full"]["doc_id"])
    tokens = np.arange(n * 20).reshape(n, 20)
    matrix = by_document(errors, "error", list(methods))
    sets = {
        name: choose_sets(column, tokens, ErrorSettings(), 0, name)
        for name, column in zip(methods, matrix.T, strict=True)
    }
    return ModelResults(
        errors=errors,
        sets=sets_table(doc_ids, sets),
        residuals=make_residuals(fragility),
        methods=methods_from_config(methods),
        settings=BOOTSTRAP,
        seed=0,
    )


def study(source: str = "demo", methods: dict = METHODS, text: str = "demo", tables=None) -> Study:
    """A study with one model."""
    return study_of({"m": source}, {"m": tables or results(methods=methods)}, methods, text)


def study_of(
    sources: dict,
    tables: dict,
    methods: dict = METHODS,
    text: str = "demo",
    models: Sequence[StudiedModel] = (),
) -> Study:
    """A study with models from `sources`, whose results are `tables`; all different unless told."""
    models = models or [StudiedModel(name, "llama", 1000) for name in sources]
    return Study(sources, tables.__getitem__, methods, text, 512, models)


def write(tmp_path, content) -> str:
    """Write a claims file."""
    path = tmp_path / "claims.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


def changed(**keys) -> dict:
    """The minimal file with keys of its claim replaced (None removes a key)."""
    claim = {**MINIMAL["claims"][0], **keys}
    claim = {key: value for key, value in claim.items() if value is not None}
    return {**MINIMAL, "claims": [claim]}


def test_the_papers_claims_are_complete():
    paper = read(INPUTS)
    figures = {claim.id: claim.figures for claim in paper.claims if claim.figures}
    pairs = figures["errors_correlate"].values
    assert {model: len(values) for model, values in pairs.items()} == {
        "qwen": 12, "llama8": 13, "mistral": 12, "llama70": 13
    }  # fmt: skip
    values = [value for model in pairs.values() for value in model.values()]
    assert np.mean(values) == pytest.approx(0.82, abs=0.005)
    assert (min(values), max(values)) == (0.52, 0.98)
    assert sum(map(len, figures["residual_predicts_error"].values.values())) == 11
    assert sum(map(len, figures["perplexity_fineweb"].values.values())) == 27
    assert all(claim.statistic for claim in paper.claims)


def test_every_statistic_is_of_a_claim():
    claims = [claim for path in (INPUTS, PERTURBATION) for claim in read(path).claims]
    used = {name for claim in claims for name in (claim.statistic, claim.statistic_of_figures)}
    assert {*STATISTICS, *STUDY_STATISTICS} == used - {""}


def test_the_papers_means_by_bits_follow_from_its_pairs():
    """What the file calls calculated is what its own pairs give."""
    paper = read(INPUTS)
    claims = {claim.id: claim for claim in paper.claims}
    pairs = claims["errors_correlate"].figures.values
    groups: dict[tuple, list[float]] = {}
    for values in pairs.values():
        for key, value in values.items():
            bits = sorted(paper.methods[label]["bits"] for label in key.split("-"))
            groups.setdefault(tuple(bits), []).append(value)
    assert np.mean(groups[3, 3]) == pytest.approx(0.888, abs=6e-4)
    assert np.mean(groups[3, 4]) == pytest.approx(0.804, abs=6e-4)
    assert np.mean(groups[4, 4]) == pytest.approx(0.803, abs=6e-4)
    means = claims["mean_over_pairs"].figures.values
    assert means.keys() == pairs.keys()
    for model, values in means.items():
        for key, mean in values.items():
            chosen = set(key.split("-"))
            of_these = [r for pair, r in pairs[model].items() if set(pair.split("-")) <= chosen]
            assert np.mean(of_these) == pytest.approx(mean, abs=6e-5), (model, key)
        assert len(of_these) == 3
        assert max(len(key.split("-")) for key in values) == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(statistic="no_such"), "claim 'predicts': statistic 'no_such' is not one of"),
        (
            changed(direction={"expect": "up", "threshold": 0}),
            "'predicts': direction.expect is 'up'",
        ),
        (changed(direction={"expect": "above"}), r"'predicts': direction lacks \['threshold'\]"),
        (changed(surprise=1), r"claim 'predicts' has unknown keys \['surprise'\]"),
        (changed(section=None), r"claim 'predicts' lacks \['section'\]"),
        (changed(stages="errors"), "claim 'predicts': stages must be a list"),
        (changed(maximum_bits="three"), "claim 'predicts': maximum_bits must be a whole number"),
        (changed(direction=None, figures=None), "claim 'predicts' needs direction: or figures:"),
        (
            changed(figures={"tolerance": 0.1, "values": {"qwen": {"NF3": "-.58"}}}),
            r"claim 'predicts': figures.values.qwen.NF3 must be a number, not '-.58'",
        ),
        (
            changed(figures={"tolerance": 0.1, "values": {"gpt": {"NF3": 1}}}),
            "claim 'predicts': figures.values.gpt is not a model",
        ),
        (
            changed(figures={"tolerance": 0.1, "values": {"qwen": {"NF9": 1}}}),
            r"claim 'predicts': figures.values.qwen: 'NF9' names \['NF9'\]",
        ),
        (changed(scope="world"), "claim 'predicts': scope is 'world': write model or study"),
        (
            changed(scope="study"),
            r"statistic 'residual_correlation' is not one of \['family_order'",
        ),
        (
            changed(
                scope="study",
                statistic="overlap_between_models",
                figures={"tolerance": 0.1, "values": {"qwen-gpt": {"NF3": 1}}},
            ),
            "claim 'predicts': figures.values.qwen-gpt is not a model",
        ),
        (
            changed(
                scope="study",
                statistic="overlap_between_models",
                figures={"tolerance": 0.1, "values": {"qwen-qwen": {"NF3": 1}}},
            ),
            "claim 'predicts': figures.values.qwen-qwen is one model; with scope: study write two",
        ),
        (
            changed(figures={"tolerance": 0.1, "values": {"qwen-qwen": {"NF3": 1}}}),
            "claim 'predicts': figures.values.qwen-qwen is not a model",
        ),
        (
            changed(documents={"source": "arxiv", "length": "long"}),
            "claim 'predicts': documents: length must be a whole number",
        ),
        (changed(statistic="family_order"), "statistic 'family_order' is not one of"),
        (
            changed(requires=["predicts"]),
            "claim 'predicts': requires 'predicts', which is no claim",
        ),
        (
            changed(requires_any=["predicts"]),
            "claim 'predicts': requires 'predicts', which is no claim",
        ),
        (changed(requires="other"), "claim 'predicts': requires must be a list of claims"),
        ({**MINIMAL, "claims": MINIMAL["claims"] * 2}, "claim 'predicts' is there twice"),
        ({**MINIMAL, "claims": []}, "claims: must be a list of at least one"),
        ({**MINIMAL, "claims": ["text"]}, "claim 1 must be a mapping"),
        ({**MINIMAL, "documents": None}, "documents must be a mapping"),
        ({**MINIMAL, "documents": {"source": "fineweb"}}, r"documents lacks \['length'\]"),
        ([], "the file must be a mapping"),
    ],
)
def test_a_wrong_claims_file_is_refused_by_claim_and_key(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(InputError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(path)


def test_a_file_that_is_not_yaml(tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("claims: [")
    with pytest.raises(InputError, match=r"broken\.yaml is not YAML"):
        read(path)


def measurement(value: float, low: float, high: float) -> Measurement:
    """A measurement with only its numbers of interest."""
    return Measurement(value, low, high, 100, ("a",))


@pytest.mark.parametrize(
    ("numbers", "expect", "verdict", "detail"),
    [
        ((0.5, 0.4, 0.6), "above", "reproduced", ""),
        ((0.5, -0.1, 0.9), "above", "differs", "interval includes 0"),
        ((-0.5, -0.6, -0.4), "above", "differs", "interval lies on the other side"),
        ((-0.5, -0.6, -0.4), "below", "reproduced", ""),
        ((-0.5, -0.6, 0.0), "below", "differs", "interval includes 0"),
        ((0.5, 0.4, 0.6), "below", "differs", "interval lies on the other side"),
    ],
)
def test_a_direction_is_reproduced_only_by_the_whole_interval(numbers, expect, verdict, detail):
    assert judge_direction(measurement(*numbers), expect, 0) == (verdict, detail)


@pytest.mark.parametrize(
    ("numbers", "verdict", "detail"),
    [
        ((0.80, 0.79, 0.81), "reproduced", ""),
        ((0.80, 0.60, 0.90), "reproduced", "interval wider than the tolerance"),
        ((0.70, 0.60, 0.83), "differs", "interval includes the paper's value"),
        ((0.70, 0.69, 0.71), "differs", "interval excludes the paper's value"),
    ],
)
def test_a_figure_is_reproduced_within_its_tolerance(numbers, verdict, detail):
    assert judge_figure(measurement(*numbers), 0.82, 0.05) == (verdict, detail)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("hub:Qwen/Qwen2.5-7B@d149729", "Qwen/Qwen2.5-7B"),
        ("hub:Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B"),
        ("demo", ""),
        ("path:Qwen/Qwen2.5-7B", ""),
    ],
)
def test_a_model_is_the_papers_only_by_its_repository(source, expected):
    assert repository(source) == expected


def test_known_effects_are_reproduced_on_the_synthetic_study():
    paper = read(INPUTS)
    claims = judge([paper], study())
    directions = claims[claims["kind"] == "direction"].set_index("claim")
    known = [
        "perplexity",
        "fewer_bits_hurt_more",
        "errors_correlate",
        "three_bit_pairs_agree_more",
        "kl_agrees",
        "large_sets_overlap",
        "residual_predicts_error",
        "residual_correlation_deepens",
        "block_output_predicts_error",
        "large_has_smaller_residual",
        "reversal",
        "easy_documents_break",
    ]
    assert set(directions.loc[known, "verdict"]) == {"reproduced"}
    assert directions.loc["no_topic_prevails", "verdict"] == (
        "not run (this study has no table topics: write a section topics)"
    )
    assert directions.loc["gates_recover", "verdict"] == (
        "not run (this study has no table patching: write mechanisms.patch: [upper])"
    )
    assert directions.loc["long_tail", "verdict"].startswith("not run (no document of D_large")
    row = directions.loc["residual_predicts_error"]
    assert row["methods"] == "rtn2 rtn3 nf2 nf3 hqq2 hqq3"  # 3 bits or fewer
    assert row["low"] < row["measured"] < row["high"] < 0
    assert row["n"] == 150
    figures = claims[claims["kind"] == "figure"]
    assert figures["verdict"].str.startswith("not run").all()
    assert "not run (Qwen2.5-7B is not in this study)" in set(figures["verdict"])


def test_reversed_effects_differ():
    """The same study with fragile documents made robust must not be called a reproduction."""

    def reverse(scores):
        full = scores["full"]["nll"]
        for name, table in scores.items():
            if name != "full":
                error = table["nll"] - full
                scores[name] = table.assign(nll=full + error.mean() - (error - error.mean()))

    paper = read(INPUTS)
    claims = judge([paper], study(tables=results(change=reverse)))
    verdicts = claims[claims["kind"] == "direction"].set_index("claim")["verdict"]
    assert verdicts["errors_correlate"] == "reproduced"
    for claim in ("residual_predicts_error", "reversal", "large_has_smaller_residual", "kl_agrees"):
        assert verdicts[claim] == "differs"


def test_figures_bind_on_the_papers_model_method_and_text(tmp_path):
    paper = read(write(tmp_path, MINIMAL))
    hub = "hub:qwen/qwen2.5-7b@abc"

    def figure(**keys):
        claims = judge([paper], study(**keys))
        (row,) = claims[claims["kind"] == "figure"].itertuples()
        return row

    row = figure(source=hub, text="hub:HuggingFaceFW/fineweb@1/sample/10BT/000_00000.parquet")
    assert row.verdict in ("reproduced", "differs")
    assert row.model == "m"
    assert row.methods == "nf3"
    assert row.expected == "-0.58 ± 0.05"
    assert (row.verdict == "reproduced") == (abs(row.measured + 0.58) <= 0.05)
    assert "Qwen is not in this study" in figure().verdict
    others = ("hub:HuggingFaceFW/fineweb-edu@1/x.parquet", "path:/texts/fineweb.jsonl", "fineweb")
    for text in ("demo", *others):
        assert "documents of 512 tokens from fineweb" in figure(source=hub, text=text).verdict
    others = {name: method for name, method in METHODS.items() if name != "nf3"}
    row = figure(source=hub, text="named:fineweb", methods=others)
    assert row.verdict == (
        "not run (no method like NF3 in this study: quantizer nf, bits 3, group_size 64)"
    )


@pytest.mark.parametrize(
    ("changed", "found"),
    [({}, True), ({"activation_order": False}, False), ({"damping": 0.1}, False)],
)
def test_gptq_is_the_papers_with_its_order_and_damping_only(changed: dict, found: bool):
    method = {"quantizer": "gptq", "bits": 3, "group_size": 64, "symmetric": True}
    method |= {"activation_order": True, "damping": 0.01} | changed
    mine = study(methods={**METHODS, "mine": method})
    if found:
        assert study_method(read(INPUTS), "GPTQ3", mine) == "mine"
    else:
        with pytest.raises(NotMeasured, match=r"no method like GPTQ3 .* damping 0\.01"):
            study_method(read(INPUTS), "GPTQ3", mine)


def test_figures_may_be_of_another_statistic_than_the_direction(tmp_path):
    figures = {"tolerance": 0.05, "statistic": "perplexity", "values": {"qwen": {"NF3": 9.5}}}
    paper = read(write(tmp_path, changed(figures=figures)))
    claims = judge([paper], study(source="hub:Qwen/Qwen2.5-7B", text="named:fineweb"))
    direction, figure = claims.itertuples()
    assert (direction.statistic, figure.statistic) == ("residual_correlation", "perplexity")
    assert figure.measured == pytest.approx(STATISTICS["perplexity"](results(), ["nf3"], {}).value)
    figures["statistic"] = "no_such"
    with pytest.raises(InputError, match="claim 'predicts': statistic 'no_such' is not one of"):
        read(write(tmp_path, changed(figures=figures)))


def test_claims_about_few_bits_are_not_run_without_such_methods(tmp_path):
    methods = {name: method for name, method in METHODS.items() if method["bits"] == 4}
    paper = read(write(tmp_path, MINIMAL))
    claims = judge([paper], study(methods=methods))
    verdict = claims.loc[claims["kind"] == "direction", "verdict"].item()
    assert verdict == "not run (no method of 3 bits or fewer in this study)"


def test_correlation_claims_need_two_quantizers():
    methods = {name: METHODS[name] for name in ("rtn2", "rtn3")}
    tables = results(methods=methods)
    with pytest.raises(NotMeasured, match="different quantizers"):
        STATISTICS["pair_correlation"](tables, ["rtn2", "rtn3"], {})


@pytest.mark.parametrize(
    ("hard", "reason"),
    [
        (0, "no document has an NLL of 4 or more"),
        (1, "only 1 document has an NLL of 4 or more, a mean needs 5"),
        (4, "only 4 documents have an NLL of 4 or more, a mean needs 5"),
    ],
)
def test_a_mean_over_too_few_documents_is_not_measured(hard, reason):
    with pytest.raises(NotMeasured, match=f"^{reason}$"):
        STATISTICS["hard_error"](with_hard_documents(hard), ["rtn2"], {"hard": 4})


def with_hard_documents(count: int) -> ModelResults:
    """Results in which the first documents have a full-precision NLL of 5, all others of 3."""
    tables = results(n=60)
    place = tables.errors.groupby("method").cumcount()
    return replace(tables, errors=tables.errors.assign(nll_full=np.where(place < count, 5.0, 3.0)))


def test_n_is_the_size_of_the_smallest_set():
    tables = with_hard_documents(5)
    hard = STATISTICS["hard_error"](tables, ["rtn2"], {"hard": 4})
    assert hard.n == 5
    assert hard.low < hard.value < hard.high
    sizes = tables.sets.groupby(["method", "set"]).size()
    large = STATISTICS["perplexity_on_large"](tables, ["rtn2", "nf2"], {})
    assert large.n == sizes["rtn2", "large"] == 6
    for statistic in ("overlap", "overlap_above_chance", "large_nll_gap"):
        assert STATISTICS[statistic](tables, ["rtn2", "nf2"], {}).n == 6
    assert STATISTICS["long_tail_gap"](tables, ["rtn2"], {"hard": 4, "easy": 9}).n == 5


@pytest.mark.parametrize("numbers", [(0.5, np.nan, np.nan), (np.nan, np.nan, np.nan)])
def test_an_undefined_interval_is_no_verdict(tmp_path, monkeypatch, numbers):
    monkeypatch.setitem(
        STATISTICS, "residual_correlation", lambda results, names, options: measurement(*numbers)
    )
    paper = read(write(tmp_path, MINIMAL))
    claims = judge([paper], study(source="hub:Qwen/Qwen2.5-7B", text="named:fineweb"))
    assert list(claims["kind"]) == ["direction", "figure"]
    assert claims["verdict"].str.startswith("not run (the value or its interval is undefined").all()


def test_the_least_favourable_layer_decides():
    """One upper layer in which the order is not reversed refutes 'throughout the upper half'."""
    tables = results()
    residuals = tables.residuals.copy()
    one = residuals["layer"] == 5
    residuals.loc[one, "h"] = residuals.loc[one, "r"].to_numpy()
    spoiled = ModelResults(tables.errors, tables.sets, residuals, tables.methods, BOOTSTRAP, seed=0)
    options = {"quantity": "h", "expect": "above"}
    before = STATISTICS["set_norm_difference"](tables, ["rtn2"], options)
    after = STATISTICS["set_norm_difference"](spoiled, ["rtn2"], options)
    assert before.low > 0
    assert after.high < 0
    assert after.detail == "layer 5; above 0 in 2 of 3 upper layers"


def test_a_layer_whose_interval_crosses_0_decides_before_a_smaller_sure_one():
    """Norms of all layers differ by a tenth; in layer 5 by two tenths on average, but wildly."""
    tables = results()
    residuals = tables.residuals.copy()
    large = tables.sets.query("method == 'rtn2' and set == 'large'")["doc_id"]
    control = tables.sets.query("method == 'rtn2' and set == 'control'")["doc_id"]
    height = np.where(residuals["doc_id"].isin(large), 1.1, 1.0)
    wild = pd.Series(1.0, index=[*large, *control])
    wild[large] = 1.2 + 8.0 * (np.arange(len(large)) == 0) - 8.0 / len(large)
    uncertain = residuals["layer"] == 5
    residuals["h"] = np.where(uncertain, residuals["doc_id"].map(wild).fillna(1), height)
    spoiled = replace(tables, residuals=residuals)
    options = {"quantity": "h", "expect": "above"}
    found = STATISTICS["set_norm_difference"](spoiled, ["rtn2"], options)
    assert found.detail.startswith("layer 5; above 0 in 3 of 3")
    assert found.low < 0 < found.value


def test_a_pair_whose_interval_crosses_0_decides_before_a_smaller_sure_one():
    """Errors of two methods correlate by 0.5 on all documents, of a third by one document alone."""
    tables = results(methods={name: METHODS[name] for name in ("rtn2", "nf2", "hqq2")})
    n = len(tables.doc_ids)
    rng = np.random.default_rng(77)  # not that of the synthetic study
    shared = rng.normal(size=n)
    spike = np.where(np.arange(n) == 0, 60.0, 0.0)
    columns = {
        "rtn2": shared + spike,
        "nf2": shared + rng.normal(size=n),
        "hqq2": rng.normal(size=n) + spike,
    }
    error = np.concatenate([columns[name] for name in tables.errors["method"].unique()])
    tables = replace(tables, errors=tables.errors.assign(error=error))
    found = STATISTICS["weakest_pair_correlation"](tables, list(columns), {})
    pairs = [STATISTICS["pair_correlation"](tables, pair, {}) for pair in combinations(columns, 2)]
    assert found.low == min(pair.low for pair in pairs)
    assert found.value > min(pair.value for pair in pairs)


@pytest.mark.parametrize(
    ("of_r", "of_z", "above"), [(0.1, 0.6, False), (-0.8, -0.4, True), (-0.4, -0.8, False)]
)
def test_how_clearly_a_norm_predicts_is_the_strength_of_its_correlation(of_r, of_z, above):
    tables = results(n=400)
    error = by_document(tables.errors, "error", ["rtn2"])[:, 0]
    rng = np.random.default_rng(77)  # not that of the synthetic study
    residuals = tables.residuals.copy()
    scaled = (error - error.mean()) / error.std()
    for quantity, r in (("r", of_r), ("z", of_z)):
        norm = 10 + r * scaled + np.sqrt(1 - r * r) * rng.normal(size=len(error))
        residuals[quantity] = residuals["doc_id"].map(dict(zip(tables.doc_ids, norm, strict=True)))
    found = STATISTICS["residual_correlation_gap"](
        replace(tables, residuals=residuals), ["rtn2"], {}
    )
    assert found.value == pytest.approx(abs(of_r) - abs(of_z), abs=0.1)
    assert (found.low > 0) == above


def test_variants_of_a_quantizer_are_set_beside_different_ones():
    variants = {name: METHODS["rtn3"] for name in ("a", "b", "c")}
    tables = results(methods={**variants, "nf3": METHODS["nf3"]})
    names = [*variants, "nf3"]
    r = np.corrcoef(by_document(tables.errors, "error", names).T)
    same = np.mean([r[0, 1], r[0, 2], r[1, 2]])
    found = STATISTICS["variant_correlation"](tables, list(variants), {})
    assert found.value == pytest.approx(same)
    options = {"quantizer": "rtn", "bits": 3}
    found = STATISTICS["variant_gap"](tables, names, options)
    assert found.value == pytest.approx(same - np.mean(r[:3, 3]))
    with pytest.raises(NotMeasured, match="no two variants of rtn at 3 bits"):
        STATISTICS["variant_gap"](tables, ["a", "nf3"], options)


def test_statistics_equal_plain_definitions():
    tables = results()
    errors = by_document(tables.errors, "error", ["rtn2", "nf2"])
    value = STATISTICS["pair_correlation"](tables, ["rtn2", "nf2"], {}).value
    assert value == pytest.approx(np.corrcoef(errors.T)[0, 1])
    assert STATISTICS["mean_error"](tables, ["nf2"], {}).value == pytest.approx(errors[:, 1].mean())
    frame = tables.errors.query("method == 'nf2'")
    perplexity = STATISTICS["perplexity"](tables, ["full"], {}).value
    assert perplexity == pytest.approx(np.exp(frame["nll_full"].mean()))
    large = set(tables.sets.query("method == 'rtn2' and set == 'large'")["doc_id"])
    mine = frame[frame["doc_id"].isin(large)]
    on_large = STATISTICS["perplexity_on_large"](tables, ["rtn2", "nf2"], {}).value
    assert on_large == pytest.approx(np.exp(mine["nll"].mean()))
    other = set(tables.sets.query("method == 'nf2' and set == 'large'")["doc_id"])
    overlap = STATISTICS["overlap"](tables, ["rtn2", "nf2"], {}).value
    assert overlap == pytest.approx(len(large & other) / len(large | other))
    hard = STATISTICS["hard_error"](tables, ["nf2"], {"hard": 4}).value
    assert hard == pytest.approx(frame.loc[frame["nll_full"] >= 4, "error"].mean())


def test_markdown_counts_and_escapes(tmp_path):
    paper = read(write(tmp_path, changed(statement="norm | of r")))
    claims = judge([paper], study())
    text = claims_markdown(claims, [paper], 0.95)
    assert "| **reproduced** | `predicts` norm \\| of r | m | " in text
    assert "not run (Qwen is not in this study): 1 of `predicts`" in text
    assert verdict_counts(claims) == {"reproduced": 1, "differs": 0, "not run": 1}
    assert isinstance(claims, pd.DataFrame)


def test_every_table_of_an_optional_stage_says_what_makes_it() -> None:
    """A rule that adds one to `CLAIM_TABLES` adds a line to `MADE_BY`."""
    rules = "".join(path.read_text() for path in sorted(Path("rules").glob("*.smk")))
    added = re.findall(r"CLAIM_TABLES\.\w+\(([^)]*)\)", rules)
    tables = {Path(name).stem for each in added for name in re.findall(r'"([^"]+)"', each)}
    assert tables == set(MADE_BY)
    made = re.findall(r"the rule (\w+) makes it", " ".join(MADE_BY.values()))
    assert all(f"rule {name}:" in rules for name in made)


def test_agreement_with_the_released_sets_is_measured_on_the_methods_that_have_some() -> None:
    methods = {
        "awq3": {"quantizer": "awq", "bits": 3, "group_size": 128},
        "rtn3": {"quantizer": "rtn", "bits": 3, "group_size": 128},
    }
    measured = results(methods=methods)
    order = np.argsort(-measured.column("error", ["awq3"])[:, 0])
    theirs = measured.doc_ids[order[:75]]

    def overlap(doc_ids: np.ndarray, names: tuple[str, ...] = ("awq3", "rtn3")) -> Measurement:
        sets = pd.DataFrame({"doc_id": doc_ids, "method": "awq3", "set": "large"})
        with_sets = replace(measured, tables={"released_sets": sets})
        return STATISTICS["released_overlap"](with_sets, names, {})

    same = overlap(theirs)
    chance = expected_jaccard(75, 75, 150)
    assert same.value == pytest.approx(1 - chance)
    assert (same.methods, same.n) == (("awq3",), 75)
    assert same.low > 0
    assert overlap(measured.doc_ids[order[75:]]).value == pytest.approx(-chance)
    with pytest.raises(NotMeasured, match=r"no method of this study is one .* \(awq3\)"):
        overlap(theirs, ("rtn3",))
    with pytest.raises(NotMeasured, match=r"write documents\.source: qerror:<model>"):
        STATISTICS["released_overlap"](measured, ("awq3",), {})


ON_ARXIV = {"source": "arxiv", "length": 512}


@pytest.mark.parametrize(
    ("text", "wanted", "judged"),
    [
        ("named:arxiv", ON_ARXIV, True),
        ("named:arxiv", {"source": "arxiv"}, True),
        ("named:arxiv", ON_ARXIV | {"length": 1024}, False),
        ("named:fineweb", ON_ARXIV, False),
        ("demo", ON_ARXIV, False),
        ("hub:togethercomputer/RedPajama-Data-1T-Sample@main/arxiv_sample.jsonl", ON_ARXIV, False),
    ],
)
def test_a_claim_about_one_text_is_judged_on_that_text_only(tmp_path, text, wanted, judged):
    """A repository that holds other texts, too, tells nothing."""
    paper = read(write(tmp_path, changed(documents=wanted)))
    of_two = {"q": "hub:Qwen/Qwen2.5-7B@1", "x": "demo"}
    claims = judge([paper], study_of(of_two, {"q": results(), "x": results()}, text=text))
    direction, figure = (claims[claims["kind"] == kind] for kind in ("direction", "figure"))
    if judged:
        assert direction["model"].tolist() == ["q", "x"]
        assert set(claims["verdict"]) <= {"reproduced", "differs"}
        return
    assert direction["model"].tolist() == ["all models"]  # it is said once
    for rows, what in ((direction, "claim"), (figure, "figure")):
        assert rows["verdict"].tolist() == [
            f"not run (the {what} is for documents of {wanted['length']} tokens from arxiv, this "
            f"study's are of 512 tokens from {text})"
        ]


def overlaps(tmp_path, tables: dict[str, ModelResults], **keys) -> pd.DataFrame:
    """Verdicts on the overlap of D_large between models of the hub."""
    content = changed(
        scope="study",
        statistic="overlap_between_models_above_chance",
        direction={"expect": "above", "threshold": 0},
        figures={
            "statistic": "overlap_between_models",
            "tolerance": 0.05,
            "values": {"qwen-llama": {"NF3": 0.29}},
        },
    )
    llama = {"name": "Llama", "sources": ["meta/llama"]}
    content["models"] = MINIMAL["models"] | {"llama": llama}
    sources = {"q": "hub:Qwen/Qwen2.5-7B@1", "l": "hub:meta/llama@1"}
    sources = {name: sources.get(name, "demo") for name in tables}
    paper = read(write(tmp_path, content))
    return judge([paper], study_of(sources, tables, text="named:fineweb", **keys)).set_index("kind")


def shifted(scores):
    """Give every document the error of the one five places before it."""
    for name, table in scores.items():
        if name != "full":
            order = np.roll(np.arange(len(table)), 5)
            error = (table["nll"] - scores["full"]["nll"]).to_numpy()
            scores[name] = table.assign(nll=scores["full"]["nll"] + error[order])


LOW = [name for name, method in METHODS.items() if method["bits"] <= 3]


def large_sets(models: dict[str, ModelResults]) -> dict[str, dict[str, set]]:
    """Numbers of the documents of every D_large."""
    return {
        model: {name: set(np.flatnonzero(tables.member(name, "large"))) for name in METHODS}
        for model, tables in models.items()
    }


def jaccard(one: set, other: set) -> float:
    return len(one & other) / len(one | other)


def test_overlap_between_models_by_hand(tmp_path):
    """Shared documents of D_large over all in either, less chance; a third model has no figure."""
    models = {"q": results(), "l": results(change=shifted), "x": results()}
    claims = overlaps(tmp_path, models)
    large = large_sets(models)
    values = {
        pair: [jaccard(large[pair[0]][name], large[pair[1]][name]) for name in LOW]
        for pair in ("ql", "qx", "lx")
    }
    sizes = [(len(large[a][name]), len(large[b][name])) for a, b in values for name in LOW]
    chance = np.mean([expected_jaccard(*each, 150) for each in sizes])
    direction, figure = claims.loc["direction"], claims.loc["figure"]
    assert direction["measured"] == pytest.approx(np.mean([*values.values()]) - chance)
    assert direction["model"] == "all models"
    apart = np.mean(values["ql"]) - chance
    said = f"pairs of models: 3, methods: {len(LOW)}; from {apart:.2f} (q with l) to "
    assert said in direction["detail"]
    assert figure["measured"] == pytest.approx(values["ql"][LOW.index("nf3")])
    assert figure["model"] == "q with l"
    assert figure["methods"] == "nf3"
    assert figure["n"] == len(large["q"]["nf3"])


def test_models_that_break_on_the_same_documents_overlap_in_every_resample(tmp_path):
    """Both models share the resamples; otherwise the interval would reach below 1."""
    claims = overlaps(tmp_path, {"q": results(), "l": results()})
    assert claims.loc["figure", ["measured", "low", "high"]].tolist() == [1, 1, 1]
    assert claims.loc["direction", "verdict"] == "reproduced"


def test_the_interval_of_an_overlap_is_of_sets_chosen_anew(tmp_path):
    """Beside a bootstrap of documents written as a loop over copies of them."""
    models = {"q": results(), "l": results(change=shifted)}
    figure = overlaps(tmp_path, models).loc["figure"]
    rng, draws = np.random.default_rng(0), []
    size = len(large_sets(models)["q"]["nf3"])
    errors = [tables.column("error", ["nf3"])[:, 0] for tables in models.values()]
    for _ in range(BOOTSTRAP.resamples):
        drawn = rng.integers(0, 150, 150)
        chosen = [Counter(drawn[np.argsort(-error[drawn])[:size]]) for error in errors]
        shared, either = chosen[0] & chosen[1], chosen[0] | chosen[1]
        draws.append(shared.total() / either.total())
    low, high = np.quantile(draws, [0.025, 0.975])
    assert (figure["low"], figure["high"]) == pytest.approx((low, high))


def test_overlap_needs_different_models_and_the_same_documents(tmp_path):
    alone = overlaps(tmp_path, {"q": results()})["verdict"]
    assert alone["direction"] == "not run (this study has no two different models to compare)"
    assert alone["figure"] == "not run (Llama is not in this study)"
    shorter, other = results(n=120), results()
    frames = {"errors": other.errors, "sets": other.sets}
    renamed = {key: frame.assign(doc_id=frame["doc_id"] + "x") for key, frame in frames.items()}
    for second in (shorter, replace(other, **renamed)):
        told = overlaps(tmp_path, {"q": results(), "l": second})["verdict"]
        assert set(told) == {"not run (the models were not scored on the same documents)"}


@pytest.mark.parametrize(
    ("first", "second", "third"),
    [
        ({"step": 1}, {"step": 2}, {"step": 3}),
        ({}, {"base": "q"}, {"base": "l"}),
        ({"base": "o"}, {"base": "o"}, {"base": "q"}),
        ({"step": 1}, {"step": 2}, {"base": "l"}),
    ],
)
def test_versions_of_one_model_are_no_different_models(tmp_path, first, second, third):
    """Checkpoints of a training, and what was tuned from one of them or from what was so tuned."""
    of_each = {"q": first, "l": second, "v": third}
    models = {name: results() for name in of_each}
    versions = [StudiedModel(name, "llama", 9, **keys) for name, keys in of_each.items()]
    told = overlaps(tmp_path, models, models=versions)["verdict"]
    assert set(told) == {"not run (this study has no two different models to compare)"}
    models["x"] = results(change=shifted)
    compared = overlaps(tmp_path, models, models=[*versions, StudiedModel("x", "llama", 9)])
    detail = compared.loc["direction", "detail"]
    assert f"pairs of models: 3, methods: {len(LOW)}; from " in detail
    assert detail.endswith("; pairs of versions of one model, left out: 3")
