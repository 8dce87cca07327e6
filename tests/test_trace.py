"""Early exit, amplification and outlier dimensions: tables, claims, figures, the script."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from synthetic_study import METHODS
from test_claims import BOOTSTRAP, results
from test_score_script import ROWS, SETTINGS, write_method, write_model

import trace_layers
from lowbit.analysis.mechanisms.layer_trace import amplification, exit_curves
from lowbit.analysis.mechanisms.outliers import outlier_dimensions
from lowbit.analysis.tables import methods_from_config
from lowbit.claims.results import Measurement, ModelResults, NotMeasured
from lowbit.claims.statistics import STATISTICS
from lowbit.errors import InputError
from lowbit.figures import layer_trace as figures
from lowbit.figures import plotting
from lowbit.files import read_json

LAYERS = 10
TRACED = ["rtn3", "nf3"]
KEYS = ["model", "quantity", "doc_id", "layer"]


def long(doc_ids: list[str], values: np.ndarray, **names: str) -> pd.DataFrame:
    """Rows of `values` [documents, layers]."""
    layers = np.arange(1, values.shape[1] + 1)
    keys = {"doc_id": np.repeat(doc_ids, len(layers)), "layer": np.tile(layers, len(values))}
    return pd.DataFrame({**names, **keys, "value": values.ravel()})


def curve(large: np.ndarray, values: dict[str, np.ndarray]) -> np.ndarray:
    """Early-exit NLL [documents, layers] with one curve for D_large and one for all others."""
    return np.where(large[:, None], values["large"], values["control"])


@pytest.fixture(scope="module")
def traced() -> ModelResults:
    """D_large is above D_ctrl up to layer 8 of 10; quantization departs in layers 8 to 10."""
    base = results()
    doc_ids, depth = list(base.doc_ids), np.arange(1, LAYERS + 1)
    large = base.member("rtn3", "large")
    own = base.sets[base.sets["method"] == "rtn3"]
    sets = pd.concat([own.assign(method=name) for name in METHODS])  # the same for every method
    noise = np.random.default_rng(0).normal(scale=0.01, size=(len(doc_ids), LAYERS))
    control = 8 - 0.5 * depth
    full = curve(large, {"control": control, "large": control + np.where(depth <= 8, 1.0, -1.0)})
    exits = []
    for name in TRACED:
        gap = np.where(depth >= 8, 0.4 * (depth - 7), 0.0)
        of = {"sets_of": name, "quantity": "r"}
        exits.append(long(doc_ids, full + noise, model="full", **of))
        exits.append(long(doc_ids, full + noise + gap, model=name, **of))
    rng = np.random.default_rng(1)
    h = rng.normal(size=(len(doc_ids), LAYERS)) + 10
    noise = rng.normal(size=h.shape)
    tied = np.where(depth > 7, h, noise)  # upper layers are 6 to 10: 3 of 5
    squared = [long(doc_ids, 3 * tied + 0.1 * noise, method=name) for name in TRACED]
    kurtosis = np.where(large[:, None], 5.0, 8.0) + noise
    residuals = long(doc_ids, h).rename(columns={"value": "h"})
    residuals["r"], residuals["z"] = residuals["h"], residuals["h"]
    residuals["r_kurtosis"] = kurtosis.ravel()
    differences = pd.concat(squared).rename(columns={"value": "mean_squared_difference"})
    return ModelResults(
        errors=base.errors,
        sets=sets,
        residuals=residuals,
        methods=base.methods,
        settings=BOOTSTRAP,
        seed=0,
        tables={
            "early_exit": pd.concat(exits).rename(columns={"value": "nll"}),
            "mlp_differences": differences,
            "outlier_dimensions": outlier_dimensions(dimensions()),
        },
    )


def dimensions(width: int = 64) -> pd.DataFrame:
    """In upper layers, the larger a dimension of r the smaller its gamma; below, the reverse."""
    rows = []
    for layer in range(1, LAYERS + 1):
        magnitude = np.random.default_rng(layer).permutation(width) + 1.0
        gamma = -1 / magnitude if layer > LAYERS // 2 else magnitude
        keys = {"layer": layer, "dimension": np.arange(width)}
        rows.append(pd.DataFrame({**keys, "magnitude": magnitude, "gamma": gamma}))
    return pd.concat(rows)


def measure(
    statistic: str,
    of: ModelResults,
    options: dict | None = None,
    names: Sequence[str] = tuple(METHODS),
) -> Measurement:
    return STATISTICS[statistic](of, list(names), options or {})


def on_sets_of(name: str, of: ModelResults) -> ModelResults:
    """Results in which all methods were read out on the sets of one.

    In the others' own sets D_large and D_ctrl are exchanged.
    """
    sets = of.sets.assign(set=of.sets["set"].replace({"large": "control", "control": "large"}))
    sets = sets.where(sets["method"] != name, of.sets)
    exits = of.tables["early_exit"].assign(sets_of=name).drop_duplicates(KEYS)
    return replace(of, sets=sets, tables={**of.tables, "early_exit": exits})


def test_claims_about_layers_measure_what_is_there(traced: ModelResults) -> None:
    late = measure("late_resolution", traced)
    assert late.value == pytest.approx(1, abs=0.02)
    assert set(late.methods) == set(TRACED)
    resolved = measure("resolution_layer", traced, names=["nf3", "full"])
    assert (resolved.value, resolved.low, resolved.high) == (9, 9, 9)
    assert resolved.n == traced.member("nf3", "large").sum()
    assert measure("departure_layer", traced, names=["nf3", "nf3"]).value == 8
    slope = measure("departure_slope", traced)
    expected = np.polyfit(np.arange(5) / LAYERS, [0, 0, 0.4, 0.8, 1.2], 1)[0]
    assert slope.value == pytest.approx(expected, abs=0.02)
    amplified = measure("amplified_layers", traced, {"above": 0.6})
    assert (amplified.value, amplified.low, amplified.high) == (0.6, 0.6, 0.6)
    assert measure("kurtosis_difference", traced).high < -1
    share = measure("outlier_gamma_share", traced)
    assert share.value == pytest.approx(np.arange(5).mean() / 63)


def test_a_curve_that_never_crosses_has_no_layer(traced: ModelResults) -> None:
    table = traced.tables["early_exit"]
    flat = table.assign(nll=1.0)
    never = replace(traced, tables={**traced.tables, "early_exit": flat})
    assert np.isnan(measure("resolution_layer", never, names=["nf3", "full"]).value)


def test_claims_about_layers_are_on_the_sets_that_were_read_out(traced: ModelResults) -> None:
    """On its own sets, which are exchanged, rtn3 would have D_large below D_ctrl."""
    shared = on_sets_of("nf3", traced)
    late = measure("late_resolution", shared)
    assert late.value == pytest.approx(measure("late_resolution", traced).value)
    assert late.methods == ("rtn3", "nf3")
    slope = measure("departure_slope", shared).value
    assert slope == pytest.approx(measure("departure_slope", traced).value)
    assert measure("departure_layer", shared, names=["nf3", "rtn3"]).value == 8


def test_the_papers_layers_need_its_sets(traced: ModelResults) -> None:
    shared = on_sets_of("nf3", traced)
    told = r"on the D_large of nf3, not of rtn3: write mechanisms\.sets_of: rtn3"
    with pytest.raises(NotMeasured, match=f"full was read out {told}"):
        measure("resolution_layer", shared, names=["rtn3", "full"])
    with pytest.raises(NotMeasured, match=f"rtn3 was read out {told}"):
        measure("departure_layer", shared, names=["rtn3", "rtn3"])
    with pytest.raises(NotMeasured, match=r"none of these methods was traced: hqq2"):
        measure("departure_layer", shared, names=["nf3", "hqq2"])


@pytest.mark.parametrize(
    "statistic", ["late_resolution", "departure_slope", "amplified_layers", "outlier_gamma_share"]
)
def test_claims_without_their_stage_say_so(statistic: str) -> None:
    with pytest.raises(NotMeasured, match="this study has no table"):
        measure(statistic, results(), {"above": 0.6})


def test_claims_on_methods_that_were_not_traced_say_so(traced: ModelResults) -> None:
    with pytest.raises(NotMeasured, match=r"Name one of them in mechanisms\.methods"):
        STATISTICS["late_resolution"](traced, ["hqq2"], {})


def test_outlier_dimensions_by_hand() -> None:
    frame = pd.DataFrame(
        {
            "layer": [1, 1, 1, 1],
            "dimension": [0, 1, 2, 3],
            "magnitude": [1.0, 8.0, 2.0, 2.0],
            "gamma": [0.5, -0.1, 0.2, -0.9],
        }
    )
    first = outlier_dimensions(frame).iloc[0]
    assert (first["dimension"], first["ratio"], first["gamma"]) == (1, 4, -0.1)
    assert (first["gamma_rank"], first["gamma_share"]) == (1, 0)
    without = outlier_dimensions(frame.assign(gamma=np.nan))
    assert without["gamma_share"].isna().all()


def test_tables_equal_means_and_scipy(traced: ModelResults) -> None:
    doc_ids = traced.doc_ids
    curves = exit_curves(traced.tables["early_exit"], traced.sets, doc_ids, TRACED, BOOTSTRAP, 0)
    assert len(curves) == 2 * 2 * 2 * LAYERS
    one = curves[(curves["method"] == "nf3") & (curves["model"] == "nf3")]
    one = one[(one["set"] == "large") & (one["layer"] == 9)].iloc[0]
    rows = traced.tables["early_exit"]
    rows = rows[(rows["model"] == "nf3") & (rows["layer"] == 9)]
    member = traced.sets[(traced.sets["method"] == "nf3") & (traced.sets["set"] == "large")]
    chosen = rows[rows["doc_id"].isin(member["doc_id"])]
    assert one["nll"] == pytest.approx(chosen["nll"].mean())
    assert one["n"] == len(chosen)
    assert one["low"] < one["nll"] < one["high"]
    shared = on_sets_of("nf3", traced)
    exits = shared.tables["early_exit"]
    both = exit_curves(exits, shared.sets, doc_ids, TRACED, BOOTSTRAP, 0)
    assert set(both["sets_of"]) == {"nf3"}
    assert len(both) == len(curves)
    full = both[both["model"] == "full"].groupby(["set", "layer"])["nll"]
    assert (full.nunique() == 1).all()  # the same documents for both methods
    keys = ["method", "model", "set", "layer"]
    pd.testing.assert_series_equal(
        *(each.set_index(keys)["nll"].sort_index() for each in (both, curves))
    )
    differences = traced.tables["mlp_differences"]
    table = amplification(differences, traced.residuals, TRACED, BOOTSTRAP, 0)
    row = table[(table["method"] == "rtn3") & (table["layer"] == 10)].iloc[0]
    squared = differences[(differences["method"] == "rtn3") & (differences["layer"] == 10)]
    h = traced.residuals[traced.residuals["layer"] == 10].set_index("doc_id")["h"]
    expected = scipy.stats.pearsonr(
        squared["mean_squared_difference"], h.loc[squared["doc_id"]]
    ).statistic
    assert row["pearson"] == pytest.approx(expected)


def test_sets_of_few_documents_have_curves_without_an_interval(traced: ModelResults) -> None:
    sets = traced.sets.groupby(["method", "set"]).head(4)
    doc_ids = traced.doc_ids
    curves = exit_curves(traced.tables["early_exit"], sets, doc_ids, TRACED, BOOTSTRAP, 0)
    assert set(curves["n"]) == {4}
    assert curves["nll"].notna().all()
    assert curves[["low", "high"]].isna().all(axis=None)
    assert [len(axes.lines) for axes in figures.exit_curves(curves).axes] == [4, 4]


def test_figures_are_drawn(traced: ModelResults, tmp_path: Path) -> None:
    plotting.start()
    curves = exit_curves(
        traced.tables["early_exit"], traced.sets, traced.doc_ids, TRACED, BOOTSTRAP, 0
    )
    figure = figures.exit_curves(curves)
    assert [axes.get_title(loc="left") for axes in figure.axes] == TRACED
    assert [len(axes.lines) for axes in figure.axes] == [4, 4]
    other = figures.exit_curves(curves.assign(sets_of="nf3"))
    assert other.axes[0].get_title(loc="left") == "rtn3 (documents of nf3)"
    plotting.save(figure, [tmp_path / "exit.png", tmp_path / "exit.svg"])
    table = amplification(traced.tables["mlp_differences"], traced.residuals, TRACED, BOOTSTRAP, 0)
    figure = figures.amplification(table, methods_from_config(METHODS))
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == TRACED
    plotting.save(figure, [tmp_path / "a.png", tmp_path / "a.svg"])
    assert all(path.stat().st_size > 1000 for path in tmp_path.iterdir())


def run_trace(folder: Path, methods: list[dict[str, str]]) -> dict[str, Path]:
    """Run the script's `main`; return its outputs."""
    outputs = {name: folder / f"{name}.out" for name in ("gates", "exits", "differences")}
    options = {
        "--model": folder / "model.json",
        "--tokens": folder / "tokens.parquet",
        "--sets": folder / "sets.parquet",
        "--methods": json.dumps(methods),
        "--settings": json.dumps(SETTINGS),
        **{f"--{name}": path for name, path in outputs.items()},
    }
    with pytest.MonkeyPatch.context() as monkey:
        monkey.setattr(sys, "argv", ["x", *(str(x) for pair in options.items() for x in pair)])
        trace_layers.main()
    return outputs


def write_sets(folder: Path, **of_method: tuple[str, str]) -> None:
    """Write the document of each method's D_large and that of its D_ctrl."""
    rows = [
        (method, name, doc_id)
        for method, doc_ids in of_method.items()
        for name, doc_id in zip(("large", "control"), doc_ids, strict=True)
    ]
    columns = ["method", "set", "doc_id"]
    pd.DataFrame(rows, columns=columns).to_parquet(folder / "sets.parquet")


def test_the_script_reads_models_out(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    record = write_method(tmp_path, model, bits=2)
    write_sets(tmp_path, rtn2=("d1", "d4"))
    methods = [{"name": "rtn2", "record": str(record), "sets_of": "rtn2"}]
    outputs = run_trace(tmp_path, methods)
    exits = pd.read_parquet(outputs["exits"])
    assert set(exits["doc_id"]) == {"d1", "d4"}
    assert set(exits["sets_of"]) == {"rtn2"}
    last = exits[(exits["model"] == "full") & (exits["quantity"] == "z")]
    last = last[last["layer"] == last["layer"].max()].set_index("doc_id")["nll"]
    with torch.inference_mode():
        losses = model(ROWS).logits.double().log_softmax(-1)[:, :-1]
    expected = -losses.gather(-1, ROWS[:, 1:, None])[..., 0].mean(1).numpy()
    np.testing.assert_allclose(last.loc[["d1", "d4"]], expected[[1, 4]], atol=1e-5)
    differences = pd.read_parquet(outputs["differences"])
    assert len(differences) == len(ROWS) * len(model.model.layers)
    assert (differences["mean_squared_difference"] > 0).all()
    assert read_json(outputs["gates"])["rtn2"] == {"self_patch": 0.0, "full_patch": 0.0}


def test_models_are_read_out_on_the_sets_that_are_named(tmp_path: Path) -> None:
    """The same numbers whichever models are read out together."""
    model = write_model(tmp_path)
    records = {f"rtn{bits}": str(write_method(tmp_path, model, bits)) for bits in (2, 3)}
    write_sets(tmp_path, rtn2=("d1", "d4"), rtn3=("d1", "d0"))
    found = {}
    for shared in (False, True):
        named = [
            {"name": name, "record": record, "sets_of": "rtn3" if shared else name}
            for name, record in records.items()
        ]
        found[shared] = pd.read_parquet(run_trace(tmp_path, named)["exits"])
        assert not found[shared].duplicated([*KEYS, "sets_of"]).any()
    assert set(found[True]["doc_id"]) == {"d1", "d0"}
    assert list(found[True]["model"].unique()) == ["full", "rtn2", "rtn3"]
    assert set(found[False].query("model == 'rtn2'")["doc_id"]) == {"d1", "d4"}
    both = found[True].merge(found[False], on=[*KEYS, "sets_of"])
    assert set(both["model"]) == {"full", "rtn3"}
    np.testing.assert_allclose(both["nll_x"], both["nll_y"], atol=1e-5)
    one = "model == 'rtn2' and doc_id == 'd1'"
    own, others = (found[key].query(one)["nll"] for key in (False, True))
    np.testing.assert_allclose(own, others, atol=1e-5)
    with pytest.raises(InputError, match="no documents of the method nf3"):
        run_trace(tmp_path, [{**named[0], "sets_of": "nf3"}])


def test_an_architecture_without_r_has_no_kurtosis() -> None:
    base = results()
    other = base.residuals.drop(columns=["r", "r_kurtosis"])
    with pytest.raises(NotMeasured, match="this architecture has no r"):
        measure("kurtosis_difference", replace(base, residuals=other))
