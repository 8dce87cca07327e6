"""The models of a study side by side: table, figure, scripts."""

import json
from pathlib import Path

import matplotlib.text
import numpy as np
import pandas as pd
import pytest
from run_script import run_script
from synthetic_perturbation import (
    BOOTSTRAP,
    NLL,
    documents,
    effects,
    perturbation_error,
    perturbation_scores,
    simulation_error,
    simulation_scores,
)

from lowbit.analysis.perturbation.robustness import (
    COLUMNS,
    CONDITIONS,
    condition_errors,
    paired_draws,
    relative_draws,
    robustness_table,
)
from lowbit.analysis.statistics import MINIMUM_DOCUMENTS
from lowbit.analysis.studied_models import StudiedModel
from lowbit.figures import plotting
from lowbit.figures import robustness as figures


def tables(factor: float = 1.0, doc_ids=None, width: float = 0.2) -> dict[str, pd.DataFrame]:
    """Tables of a model whose errors are `factor` times as large."""
    scores = perturbation_scores(
        lambda kind: factor * perturbation_error(kind), doc_ids=doc_ids, width=width
    )
    simulation = simulation_scores(
        lambda kind: factor * simulation_error(kind), doc_ids=doc_ids, width=width
    )
    return {
        "perturbation_scores": scores,
        "perturbation": effects(scores),
        "simulation_scores": simulation,
    }


def errors_of(model: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Errors of a model under uniform W4A16."""
    return condition_errors(model, "W4A16, uniform")


MODELS = [
    StudiedModel("small", "opt", 10**8),
    StudiedModel("large", "opt", 10**9),
    StudiedModel("chat", "opt", 10**9, base="large"),
]
FACTORS = {"small": 1.0, "large": 2.0, "chat": 3.0}


def table(models=MODELS, **arguments) -> pd.DataFrame:
    """The table of these models."""
    found = {model.name: tables(FACTORS.get(model.name, 1.0), **arguments) for model in models}
    return robustness_table(models, found, BOOTSTRAP, 0)


def test_values_by_hand() -> None:
    rows = table(width=0.0).set_index(["model", "condition"])
    assert set(rows.index.get_level_values(1)) == set(CONDITIONS)
    for name, factor in FACTORS.items():
        uniform = rows.loc[(name, "W8A8 per token, uniform")]
        assert uniform["error"] == pytest.approx(0.08 * factor)
        assert uniform["low"] == pytest.approx(0.08 * factor)
        assert rows.loc[(name, "W4A16, cube root"), "error"] == pytest.approx(0.02 * factor)
        noise = rows.loc[(name, "noise on weights")]
        assert noise["error"] == pytest.approx(0.05 * factor)
        assert noise["relative"] == pytest.approx(0.05 * factor / noise["nll_full"])
        assert noise["nll_full"] == pytest.approx(NLL, rel=0.01)
        assert (noise["size"], noise["n"]) == (0.2, 40)
        assert np.isnan(uniform["size"])


def test_a_model_is_compared_with_its_base_or_the_first() -> None:
    rows = table().query("condition == 'W4A16, uniform'").set_index("model")
    assert rows["against"].fillna("").to_dict() == {"small": "", "large": "small", "chat": "large"}
    assert np.isnan(rows.loc["small", "difference"])
    for name, other in (("large", "small"), ("chat", "large")):
        gap = rows.loc[name, "relative"] - rows.loc[other, "relative"]
        assert rows.loc[name, "difference"] == pytest.approx(gap)
        assert rows.loc[name, "difference_low"] < gap < rows.loc[name, "difference_high"]


def test_models_share_their_resamples_document_by_document() -> None:
    """Two equal models differ by nothing in any resample; on other documents they do."""
    same = [errors_of(tables())] * 2
    draws = relative_draws(paired_draws(same, BOOTSTRAP, 0))
    np.testing.assert_array_equal(draws[:, 0], draws[:, 1])
    shuffled = same[1].iloc[::-1]
    draws = relative_draws(paired_draws([same[0], shuffled], BOOTSTRAP, 0))
    np.testing.assert_allclose(draws[:, 0], draws[:, 1], rtol=1e-12)
    other = errors_of(tables(doc_ids=documents(40, first=40)))
    draws = relative_draws(paired_draws([same[0], other], BOOTSTRAP, 0))
    assert abs(np.corrcoef(draws[1:].T)[0, 1]) < 0.3


def test_a_document_that_a_model_lacks_counts_in_the_others() -> None:
    whole = errors_of(tables())
    part = whole.iloc[:10]
    sums = paired_draws([whole, part], BOOTSTRAP, 0)
    np.testing.assert_allclose(sums[0, :, 2], [40, 10])
    np.testing.assert_allclose(sums[0, 1, 0], part["error"].sum())
    assert (sums[1:, 0, 2] == 40).all()
    assert sums[1:, 1, 2].std() > 0


def test_draws_of_the_noise_are_part_of_the_interval() -> None:
    """Seeds differ by 2 % of the error; documents do not differ here."""
    errors = condition_errors(tables(width=0.0), "noise on weights")
    sums = paired_draws([errors, errors], BOOTSTRAP, 0)
    means = sums[:, 0, 0] / sums[:, 0, 2]
    assert means[0] == pytest.approx(0.05)
    assert means.min() == pytest.approx(0.049)
    assert means.max() == pytest.approx(0.051)
    np.testing.assert_array_equal(sums[:, 0], sums[:, 1])


def test_what_was_not_tried_has_no_row() -> None:
    found = {model.name: tables() for model in MODELS}
    del found["small"]["simulation_scores"]
    found["large"]["perturbation_scores"] = perturbation_scores(
        doc_ids=documents(MINIMUM_DOCUMENTS - 1)
    )
    rows = robustness_table(MODELS, found, BOOTSTRAP, 0)
    of_noise = rows["condition"].str.startswith("noise")
    assert set(rows.loc[~of_noise, "model"]) == {"large", "chat"}
    assert set(rows.loc[of_noise, "model"]) == {"small", "chat"}
    assert rows.loc[of_noise & (rows["model"] == "chat"), "against"].isna().all()
    assert list(rows.columns) == COLUMNS


def test_the_axis_is_what_tells_the_models_apart() -> None:
    steps = [StudiedModel(f"s{step}", "pythia", 10**8, step) for step in (0, 10, 100)]
    assert figures.axis_of(table(steps)) == figures.STEP
    assert figures.axis_of(table(MODELS[:2])) == figures.PARAMETERS
    assert figures.axis_of(table()) == figures.MODEL


@pytest.mark.parametrize(
    ("models", "label"),
    [
        (MODELS, ""),
        (MODELS[:2], "parameters"),
        ([StudiedModel(f"s{s}", "p", 10**8, s) for s in (0, 10, 100)], "training step"),
    ],
)
def test_the_figure_has_a_panel_per_condition(models, label: str) -> None:
    plotting.start()
    figure = figures.robustness(table(models))
    figure.draw_without_rendering()
    panels = [axes for axes in figure.axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in panels] == list(CONDITIONS)
    text = [text.get_text() for text in figure.findobj(matplotlib.text.Text)]
    assert "relative rise of log perplexity" in text
    assert label in text
    assert ("chat" in text) == (models is MODELS)


def test_nothing_to_compare_is_said() -> None:
    empty = robustness_table(MODELS, {model.name: {} for model in MODELS}, BOOTSTRAP, 0)
    figure = figures.robustness(empty)
    text = "".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))
    assert "None of the conditions" in text


def test_scripts_write_the_same_every_time(tmp_path: Path) -> None:
    given = {}
    for model in MODELS[1:]:
        folder = tmp_path / model.name
        folder.mkdir()
        for name, frame in tables(FACTORS[model.name]).items():
            if name == "perturbation":
                frame.to_csv(folder / f"{name}.csv", index=False)
            else:
                frame.to_parquet(folder / f"{name}.parquet")
        record = {"architecture": "OPTForCausalLM", "parameters": model.parameters}
        (folder / "model.json").write_text(json.dumps(record))
        given[model.name] = {
            **{"family": None, "step": None, "base": model.base},
            **{"results": str(folder), "record": str(folder / "model.json")},
        }
    names = ["perturbation_scores.parquet", "perturbation.csv", "simulation_scores.parquet"]
    written = []
    for run in ("a", "b"):
        out = tmp_path / run
        settings = json.dumps(vars(BOOTSTRAP))
        assert not run_script(
            *("compare_models.py", Path.cwd(), "--models", json.dumps(given), "--tables", *names),
            *("--settings", settings, "--seed", 0, "--output", out / "robustness.csv"),
        )
        assert not run_script(
            *("plot_robustness.py", Path.cwd(), "--robustness", out / "robustness.csv"),
            *("--figure", out / "robustness.png", out / "robustness.svg"),
        )
        written.append({file.name: file.read_bytes() for file in sorted(out.iterdir())})
    assert written[0] == written[1]
    rows = pd.read_csv(tmp_path / "a" / "robustness.csv")
    assert len(rows) == 2 * len(CONDITIONS)
    assert set(rows["family"]) == {"opt"}
