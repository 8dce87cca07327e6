"""Figures: what they show, that they are written whole and the same every time."""

import json
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.colors
import matplotlib.text
import numpy as np
import pandas as pd
import pytest
from run_script import run_script
from synthetic_study import LAYERS, METHODS, make_residuals, make_scores

from lowbit.analysis.correlation import correlation_tables
from lowbit.analysis.error_sets import (
    ErrorSettings,
    choose_sets,
    error_table,
    overlap_table,
    sets_table,
)
from lowbit.analysis.mechanisms.residual_norms import norms_by_set, residual_correlations
from lowbit.analysis.statistics import BootstrapSettings
from lowbit.analysis.tables import by_document, methods_from_config
from lowbit.figures import correlation as correlation_figures
from lowbit.figures import errors as error_figures
from lowbit.figures import plotting
from lowbit.figures import residuals as residual_figures

BOOTSTRAP = BootstrapSettings(resamples=50, confidence=0.95)


class Tables:
    """Every table that a figure is drawn from."""

    def __init__(self, methods: dict = METHODS, n: int = 80) -> None:
        scores, fragility = make_scores(n, methods)
        names = list(methods)
        self.methods = methods_from_config(methods)
        self.errors = error_table(scores)
        matrix = by_document(self.errors, "error", names)
        tokens = np.arange(n * 10).reshape(n, 10)
        sets = {
            name: choose_sets(column, tokens, ErrorSettings(), 0, name)
            for name, column in zip(names, matrix.T, strict=True)
        }
        self.sets = sets_table(list(scores["full"]["doc_id"]), sets)
        self.overlap = overlap_table(sets, n)
        self.pairs, _ = correlation_tables(self.errors, self.methods, BOOTSTRAP, 0)
        self.residuals = make_residuals(fragility)
        self.correlations = residual_correlations(self.residuals, self.errors, names, BOOTSTRAP, 0)
        self.by_set = norms_by_set(self.residuals, self.errors, self.sets, names, BOOTSTRAP, 0)

    def write(self, folder: Path) -> None:
        """Write the tables as the scripts expect them."""
        self.errors.to_parquet(folder / "errors.parquet")
        self.sets.to_parquet(folder / "sets.parquet")
        self.residuals.to_parquet(folder / "residuals.parquet")
        self.overlap.to_csv(folder / "overlap.csv", index=False)
        self.pairs.to_csv(folder / "correlation.csv", index=False)
        self.correlations.to_csv(folder / "residual_correlation.csv", index=False)
        self.by_set.to_csv(folder / "residual_sets.csv", index=False)


@pytest.fixture(scope="module")
def tables() -> Tables:
    plotting.start()
    return Tables()


def texts(figure) -> str:
    """All text of a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


def test_distribution_has_a_panel_per_bit_width_with_units(tables):
    figure = error_figures.error_distribution(tables.errors, tables.sets, tables.methods)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["2 bits", "3 bits", "4 bits"]
    assert "nats per token" in figure.axes[-1].get_xlabel()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["rtn2", "nf2", "hqq2"]
    points = figure.axes[0].collections[0].get_offsets()[:, 0]
    errors = tables.errors.loc[tables.errors["method"] == "rtn2", "error"]
    np.testing.assert_allclose(points, errors)


def test_the_black_mark_is_the_edge_of_large(tables):
    errors = tables.errors.loc[tables.errors["method"] == "rtn2", "error"].to_numpy()
    edge = error_figures._large_edges(tables.errors, tables.sets)["rtn2"]
    assert (errors >= edge).sum() == 8


def test_heatmap_shows_each_pair_once_and_brackets_one_quantizer(tables):
    figure = correlation_figures.correlation_heatmap(tables.pairs, tables.methods)
    shown = [text.get_text() for text in figure.axes[0].texts]
    assert len(shown) == 36
    assert sum(text.startswith("(") for text in shown) == 9
    pair = tables.pairs.query("method_a == 'rtn2' and method_b == 'nf2'")["pearson"].item()
    assert shown[0] == f"{pair:.2f}"
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["nf2", "hqq2", "rtn3", "nf3", "hqq3", "rtn4", "nf4", "hqq4"]


def test_numbers_in_cells_can_be_read(tables):
    """Contrast of text and cell at least 4.5 (WCAG 2.2, level AA)."""
    for figure in (
        correlation_figures.correlation_heatmap(tables.pairs, tables.methods),
        error_figures.overlap_heatmap(tables.overlap, tables.methods),
    ):
        axes = figure.axes[0]
        colours = [colour for colour in axes.collections[0].get_facecolors() if colour[3] > 0]
        assert len(colours) == len(axes.texts)
        for text, colour in zip(axes.texts, colours, strict=True):
            pair = sorted([_luminance(text.get_color()), _luminance(colour)])
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5


def _luminance(colour) -> float:
    """Relative luminance of a colour."""
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_the_overlaps_mean_leaves_out_pairs_of_one_quantizer(tables):
    different = tables.overlap[~tables.pairs["same_quantizer"]]
    figure = error_figures.overlap_heatmap(tables.overlap, tables.methods)
    assert f"worst documents: {different['jaccard'].mean():.2f} on average" in texts(figure)
    rtn = tables.overlap.query("method_a.str.startswith('rtn') and method_b.str.startswith('rtn')")
    methods = [method for method in tables.methods if method.quantizer == "rtn"]
    assert "between settings of one quantizer" in texts(error_figures.overlap_heatmap(rtn, methods))


def test_scatter_shows_typical_pairs_of_different_quantizers(tables):
    chosen = correlation_figures.typical_pairs(tables.pairs)
    assert list(zip(chosen["low_bits"], chosen["high_bits"], strict=True)) == [
        (2, 2), (2, 3), (2, 4), (3, 3), (3, 4), (4, 4)
    ]  # fmt: skip
    assert not chosen["same_quantizer"].any()
    two = tables.pairs.query("bits_a == 2 and bits_b == 2")["pearson"]
    assert chosen["pearson"].iloc[0] == two.median()
    figure = correlation_figures.error_scatter(tables.pairs, tables.errors)
    assert len(figure.axes) == 6


def test_residual_figures_have_every_method_and_layer(tables):
    figure = residual_figures.correlation_by_layer(tables.correlations, tables.methods)
    assert len(figure.axes) == 9
    curves = {line.get_label(): line for line in figure.axes[0].lines}
    assert {"rtn2", "nf2", "hqq2"} <= set(curves)
    assert list(curves["rtn2"].get_xdata()) == list(range(1, LAYERS + 1))
    assert "Pearson's r with e(x)" in texts(figure)


def test_reversal_counts_methods_that_hold_in_every_upper_layer(tables):
    by_set = tables.by_set.copy()
    ratio = by_set["set"] == "ratio"
    by_set.loc[ratio & (by_set["quantity"] == "r"), "mean"] = 0.9
    by_set.loc[ratio & (by_set["quantity"] == "h"), "mean"] = 1.1
    assert "9 of 9 methods" in texts(residual_figures.reversal(by_set, tables.methods))
    rtn2 = ratio & (by_set["method"] == "rtn2")
    by_set.loc[rtn2 & (by_set["layer"] == 3), "mean"] = 1.0  # lower half: of no consequence
    assert "9 of 9 methods" in texts(residual_figures.reversal(by_set, tables.methods))
    by_set.loc[rtn2 & (by_set["layer"] == 5), "mean"] = 1.0
    assert "8 of 9 methods" in texts(residual_figures.reversal(by_set, tables.methods))


def test_without_r_the_other_norms_are_shown(tables):
    correlations = tables.correlations.query("quantity != 'r'")
    by_set = tables.by_set.query("quantity != 'r'")
    layers = residual_figures.correlation_by_layer(correlations, tables.methods)
    assert len(layers.axes) == 6
    assert "norm(z), after the MLP and error: r from -" in texts(layers)
    norms = residual_figures.norms_by_set(by_set, tables.methods)
    assert len(norms.axes) == 3
    assert "logarithmic" not in texts(norms)
    reversal = residual_figures.reversal(by_set, tables.methods)
    assert "this architecture has no norm(r)" in texts(reversal)


def test_sets_of_few_documents_have_norms_without_an_interval(tables):
    """The larger set alone has one; neither difference nor ratio has."""
    few = tables.sets[tables.sets["set"] == "large"].groupby("method").head(4)
    sets = pd.concat([few, tables.sets[tables.sets["set"] == "control"]])
    names = [method.name for method in tables.methods]
    by_set = norms_by_set(tables.residuals, tables.errors, sets, names, BOOTSTRAP, 0)
    assert by_set["mean"].notna().all()
    without = by_set.loc[by_set[["low", "high"]].isna().all(axis=1), "set"]
    assert set(without) == {"large", "difference", "ratio"}
    assert (by_set["set"].isin(set(without)) == by_set["low"].isna()).all()
    for figure in (residual_figures.reversal, residual_figures.norms_by_set):
        assert "D_large" in texts(figure(by_set, tables.methods))


def test_norms_are_shown_for_the_fewest_bits(tables):
    figure = residual_figures.norms_by_set(tables.by_set, tables.methods)
    titles = [axes.get_title(loc="left") for axes in figure.axes[:3]]
    assert titles == ["rtn2", "nf2", "hqq2"]
    assert "D_large (n = 8)" in texts(figure)


def test_methods_of_one_quantizer_and_bits_differ_in_line():
    methods = methods_from_config(
        {
            "rtn3": {"quantizer": "rtn", "bits": 3},
            "rtn3row": {"quantizer": "rtn", "bits": 3},
            "nf3": {"quantizer": "nf", "bits": 3},
        }
    )
    styles = plotting.styles(methods)
    assert styles["rtn3"]["color"] == styles["rtn3row"]["color"] != styles["nf3"]["color"]
    assert styles["rtn3"]["linestyle"] != styles["rtn3row"]["linestyle"]


def plot(folder: Path, output: Path, methods: dict, run=None) -> list[Path]:
    """Run the plotting scripts on a folder of tables; return the files."""
    method_json = json.dumps(methods)

    def files(name: str) -> list[str]:
        return [str(output / f"{name}.png"), str(output / f"{name}.svg")]

    calls = [
        ["plot_errors.py", "--errors", folder / "errors.parquet", "--sets", folder / "sets.parquet",
         "--overlap", folder / "overlap.csv", "--methods", method_json,
         "--distribution-figure", *files("error_distribution"), "--overlap-figure",
         *files("overlap")],
        ["plot_correlation.py", "--pairs", folder / "correlation.csv",
         "--errors", folder / "errors.parquet", "--methods", method_json,
         "--heatmap-figure", *files("correlation"), "--scatter-figure", *files("scatter")],
        ["plot_residuals.py", "--correlation", folder / "residual_correlation.csv",
         "--by-set", folder / "residual_sets.csv", "--residuals", folder / "residuals.parquet",
         "--sets", folder / "sets.parquet", "--methods", method_json,
         "--layers-figure", *files("residual_correlation"), "--norms-figure",
         *files("residual_norms"), "--reversal-figure", *files("residual_reversal"),
         "--density-figure", *files("residual_density"), "--kurtosis-figure",
         *files("residual_kurtosis")],
    ]  # fmt: skip
    for script, *options in calls:
        message = (run or in_process)(script, options)
        assert message == "", f"{script}: {message}"
    return sorted(output.iterdir())


def in_process(script: str, options: list) -> str:
    """Run a script here; return its error message."""
    return run_script(script, Path.cwd(), *options)


def in_another_process(script: str, options: list) -> str:
    """Run a script in a new process with another hash seed; return its error message."""
    command = [sys.executable, f"scripts/{script}", *map(str, options)]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else ""


def test_two_processes_write_the_same_bytes(tmp_path):
    methods = {name: METHODS[name] for name in ("rtn2", "nf2", "rtn3")}
    Tables(methods, n=40).write(tmp_path)
    first = plot(tmp_path, tmp_path / "first", methods)
    second = plot(tmp_path, tmp_path / "second", methods, in_another_process)
    assert len(first) == 18
    for one, two in zip(first, second, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name
        if one.suffix == ".svg":
            assert "<dc:date>" not in one.read_text()


def test_scripts_draw_a_study_of_one_method(tmp_path):
    methods = {"rtn2": METHODS["rtn2"]}
    Tables(methods, n=30).write(tmp_path)
    assert len(plot(tmp_path, tmp_path / "figures", methods)) == 18


def test_missing_methods_are_an_error(tables, tmp_path):
    tables.write(tmp_path)
    with pytest.raises(AssertionError, match=r"error: .* compute the errors again"):
        plot(tmp_path, tmp_path / "figures", {"other": {"quantizer": "rtn", "bits": 2}})
    assert not (tmp_path / "figures").exists()


def test_points_tell_bit_widths_and_methods_of_one_apart():
    given = {"a": ("q", 4), "b": ("q", 3), "c": ("q", 3), "d": ("p", 3)}
    methods = {name: {"quantizer": q, "bits": bits} for name, (q, bits) in given.items()}
    looks = plotting.points(methods_from_config(methods))
    assert looks["b"]["marker"] == looks["d"]["marker"] != looks["a"]["marker"]
    assert looks["a"]["color"] == looks["b"]["color"] != looks["d"]["color"]
    assert {name for name, look in looks.items() if look["markerfacecolor"] == "white"} == {"c"}
