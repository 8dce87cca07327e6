"""Tables, figure, summary and claims of the evaluation sets."""

import json
from pathlib import Path

import matplotlib.text
import numpy as np
import pandas as pd
import pytest
import scipy.stats
from run_script import run_script
from synthetic_study import METHODS
from test_claims import results as claim_results
from test_claims import study as claim_study

from lowbit.analysis.evaluation import (
    evaluation_answer,
    evaluation_markdown,
    evaluation_table,
    measure_draws,
)
from lowbit.analysis.statistics import BootstrapSettings, resample_counts
from lowbit.analysis.tables import methods_from_config
from lowbit.claims.evaluation_statistics import evaluated_perplexity
from lowbit.claims.judging import judge
from lowbit.claims.paper import read_paper
from lowbit.claims.results import NotMeasured
from lowbit.claims.statistics import STATISTICS
from lowbit.claims.study_statistics import STUDY_STATISTICS
from lowbit.errors import InputError
from lowbit.figures import plotting
from lowbit.figures.evaluation import evaluated_methods

BOOTSTRAP = BootstrapSettings(resamples=200, confidence=0.95)
RECORDS = {
    "wikitext2": {"kind": "windows", "length": 2048, "whole": True},
    "lambada": {"kind": "last_word", "whole": False},
}


def make_scores(windows: int = 30, items: int = 80, methods: dict = METHODS) -> pd.DataFrame:
    """Scores of a text and a task; the fewer bits, the worse."""
    rng = np.random.default_rng(0)
    hard, words = rng.normal(3, 0.2, windows), rng.gamma(2, size=items)
    tokens = rng.integers(1, 4, items)
    parts = []
    for name, loss in [("full", 0.0), *((name, 1 / m["bits"]) for name, m in methods.items())]:
        noise = rng.normal(scale=0.02, size=windows)
        text = {"row": range(windows), "nll": 2047 * (hard + loss + noise), "tokens": 2047}
        task = {"row": range(items), "nll": words + loss, "tokens": tokens}
        task["correct"] = pd.array(words + loss < 1.5, dtype="boolean")
        sets = {"wikitext2": ("windows", text), "lambada": ("last_word", task)}
        for each, (kind, columns) in sets.items():
            parts.append(pd.DataFrame(columns).assign(set=each, kind=kind, method=name))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return evaluation_table(make_scores(), RECORDS, BOOTSTRAP, 0)


def test_values_are_what_the_definitions_say(table: pd.DataFrame) -> None:
    scores = make_scores()
    for row in table.itertuples():
        mine = scores[(scores["set"] == row.set) & (scores["method"] == row.method)]
        if row.measure == "perplexity":
            assert row.value == pytest.approx(np.exp(mine["nll"].sum() / mine["tokens"].sum()))
        elif row.measure == "word_perplexity":
            assert row.value == pytest.approx(np.exp(mine["nll"].mean()))
        else:
            assert row.value == pytest.approx(mine["correct"].mean())
        assert row.low < row.value < row.high
        assert (row.n, row.tokens) == (len(mine), mine["tokens"].sum())
    by = table.set_index(["set", "measure", "method"]).sort_index()
    assert set(by.loc["lambada"].index.get_level_values(0)) == {"accuracy", "word_perplexity"}
    for key, row in by.iterrows():
        if key[2] == "full":
            assert np.isnan(row["difference"])
        else:
            assert row["difference"] == pytest.approx(
                row["value"] - by.loc[(*key[:2], "full"), "value"]
            )
    assert by.loc["wikitext2", "length"].eq(2048).all()
    assert by.loc["lambada", "length"].isna().all()


def test_intervals_are_those_of_scipys_paired_bootstrap(table: pd.DataFrame) -> None:
    scores = make_scores()
    of_text = scores[scores["set"] == "wikitext2"]
    nll = {m: of_text.loc[of_text["method"] == m, "nll"].to_numpy() for m in ("rtn2", "full")}

    def difference(one: np.ndarray, full: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.exp(one.mean(axis) / 2047) - np.exp(full.mean(axis) / 2047)

    expected = scipy.stats.bootstrap(
        (nll["rtn2"], nll["full"]),
        difference,
        paired=True,
        n_resamples=200,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    row = table.query("set == 'wikitext2' and method == 'rtn2'").iloc[0]
    np.testing.assert_allclose([row["difference_low"], row["difference_high"]], expected)


def test_a_few_rows_have_no_interval() -> None:
    few = evaluation_table(make_scores(windows=4), RECORDS, BOOTSTRAP, 0)
    text = few[few["set"] == "wikitext2"]
    assert text["value"].notna().all()
    assert text[["low", "high", "difference_low", "difference_high"]].isna().all(axis=None)
    assert few.loc[few["set"] == "lambada", "low"].notna().all()
    plotting.start()
    evaluated_methods(few, methods_from_config(METHODS))
    assert "nan" not in evaluation_markdown(few) + evaluation_answer(few, "demo")


def test_a_loss_that_is_no_number_is_told_with_its_method_and_set() -> None:
    scores = make_scores()
    scores.loc[scores["method"] == "nf2", "nll"] = np.inf
    with pytest.raises(InputError, match="'nf2' on 'wikitext2': the NLL of row 0 is not a finite"):
        evaluation_table(scores, RECORDS, BOOTSTRAP, 0)


def test_draws_are_of_the_rows_drawn() -> None:
    scores = make_scores()
    mine = scores[(scores["set"] == "lambada") & (scores["method"] == "full")]
    counts = resample_counts(len(mine), BOOTSTRAP, 1)
    drawn = mine.loc[mine.index.repeat(counts[7].astype(int))]
    draws = measure_draws(mine, counts)
    assert draws["accuracy"][7] == pytest.approx(drawn["correct"].mean())
    assert draws["word_perplexity"][7] == pytest.approx(np.exp(drawn["nll"].mean()))


def test_the_figure_has_a_panel_per_set(table: pd.DataFrame) -> None:
    plotting.start()
    figure = evaluated_methods(table, methods_from_config(METHODS))
    visible = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title(loc="left") for axes in visible] == ["wikitext2", "lambada"]
    assert [axes.get_xlabel() for axes in visible] == ["perplexity (n = 30)", "accuracy (n = 80)"]
    assert [axes.get_xscale() for axes in visible] == ["log", "linear"]
    texts = "".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))
    assert "What each method loses on 2 evaluation sets" in texts
    for name in METHODS:
        assert name in texts


def test_scripts_write_table_and_figure_the_same_every_time(tmp_path: Path) -> None:
    make_scores().to_parquet(tmp_path / "evaluation.parquet")
    for name, record in RECORDS.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(record))
    records = json.dumps({name: f"{name}.json" for name in RECORDS})
    settings = '{"resamples": 100, "confidence": 0.95}'
    written = []
    for number in "12":
        calls = [
            ("analyze_evaluation.py", "--scores", "evaluation.parquet", "--records", records,
             "--settings", settings, "--seed", 0, "--output", f"{number}.csv"),
            ("plot_evaluation.py", "--table", f"{number}.csv", "--methods", json.dumps(METHODS),
             "--figure", f"{number}.png", f"{number}.svg"),
        ]  # fmt: skip
        for script, *options in calls:
            assert run_script(script, tmp_path, *options) == ""
        written.append(
            [(tmp_path / f"{number}.{end}").read_bytes() for end in ("csv", "png", "svg")]
        )
    assert written[0] == written[1]
    assert pd.read_csv(tmp_path / "1.csv")["value"].notna().all()


def test_the_summary_tells_of_the_least_and_the_most_that_is_lost(table: pd.DataFrame) -> None:
    told = evaluation_answer(table, "demo")
    by = table.set_index(["set", "measure", "method"])["value"].sort_index()
    text = by["wikitext2", "perplexity"]
    best, worst = text.drop("full").idxmin(), text.drop("full").idxmax()
    assert f"wikitext2: perplexity {text['full']:.2f} in full precision, {text[best]:.2f} [" in told
    assert f"({best}) at best" in told
    assert f"({worst}) at worst" in told
    words = by["lambada", "accuracy"]
    assert f"lambada: accuracy {100 * words['full']:.1f} % in full precision" in told
    best, worst = (f"{100 * value:.1f} % [" for value in words.drop("full").agg(["max", "min"]))
    at_best, _, at_worst = told.partition("lambada")[2].partition("at best")
    assert best in at_best
    assert worst in at_worst
    lines = evaluation_markdown(table).splitlines()
    assert lines[0] == "| method | wikitext2: perplexity | lambada: accuracy |"
    assert len(lines) == 2 + 1 + len(METHODS)


# Claims


def measured(table: pd.DataFrame, method: str = "rtn3", **options):
    """The statistic on the synthetic study with this table."""
    results = claim_results()
    results.tables["evaluation"] = table
    return evaluated_perplexity(results, [method], {"set": "wikitext2", "length": 2048} | options)


def test_the_statistic_is_the_tables_row(table: pd.DataFrame) -> None:
    found = measured(table)
    row = table.query("set == 'wikitext2' and method == 'rtn3'").iloc[0]
    assert (found.value, found.low, found.high, found.n) == (
        row["value"],
        row["low"],
        row["high"],
        30,
    )
    assert measured(table, "full").methods == ("full",)


def test_another_set_length_or_part_of_the_text_is_not_measured(table: pd.DataFrame) -> None:
    for change, told in (
        ({"set": "c4"}, "no set of this study's evaluation: is called c4 and has a perplexity"),
        ({"set": "lambada"}, "is called lambada and has a perplexity"),
        ({"length": 1024}, "this study has all 30 windows of 2048"),
    ):
        with pytest.raises(NotMeasured, match=told):
            measured(table, **change)
    with pytest.raises(NotMeasured, match="this study has the first 30 windows of 2048"):
        measured(table.assign(whole=False))
    with pytest.raises(NotMeasured, match="no table evaluation: write a section evaluation"):
        evaluated_perplexity(claim_results(), ["full"], {"set": "wikitext2", "length": 2048})


def test_the_papers_figures_bind_for_its_models_whatever_the_documents(table: pd.DataFrame) -> None:
    results = claim_results()
    results.tables["evaluation"] = table
    study = claim_study("hub:Qwen/Qwen2.5-7B@x", tables=results, text="path:other")
    claims = judge([read_paper("claims/inputs.yaml", STATISTICS, STUDY_STATISTICS)], study)
    mine = claims[(claims["claim"] == "perplexity_wikitext") & (claims["model"] == "m")]
    assert mine["methods"].tolist() == ["full", "nf4", "nf3"]
    value = table.query("set == 'wikitext2' and method == 'full'")["value"].iloc[0]
    assert mine["measured"].iloc[0] == pytest.approx(value)
    assert mine["verdict"].iloc[0] == "differs"
    on_documents = claims[claims["claim"] == "perplexity_fineweb"]
    assert on_documents["verdict"].str.startswith("not run (").all()
