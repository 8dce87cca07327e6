"""Figures of predicting errors: by features, and from one method to another."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.lines import Line2D

from lowbit.analysis.prediction.feature_sets import FEATURE_SETS
from lowbit.analysis.tables import MEAN_OF_METHODS, Method
from lowbit.figures import plotting
from lowbit.figures.errors import set_contrast
from lowbit.markdown import number_with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEATURE_NAMES = {
    "norm": "norm({quantity}), last layer",
    "norms": "all norms, all layers",
    "nll": "NLL and entropy",
    "text": "text",
    "nll+text": "NLL, entropy, text",
    "norm+nll+text": "NLL, entropy, text, norm({quantity})",
    "all": "everything",
}
PANELS = {
    "r2": "error e(x) of any document\nR2 (0: no better than the mean)",
    "auroc": "which documents break\nAUROC, D_large against D_ctrl (0.5: chance)",
}
TRANSFER_PANELS = {
    "spearman": ("Errors: Spearman's rho", {"cmap": "RdBu_r", "vmin": -1, "vmax": 1}),
    "auroc": ("D_large against D_ctrl: AUROC", {"cmap": "RdBu_r", "vmin": 0, "vmax": 1}),
}
MOST_NUMBERS = 16
"""Methods up to which a heat map has numbers in its cells."""


def prediction_by_features(
    values: pd.DataFrame, added: pd.DataFrame, methods: Sequence[Method], quantity: str
) -> "Figure":
    """Draw R2 and AUROC on held-out documents by feature set: every method, and their mean.

    Args:
        values: rows of prediction.csv.
        added: rows of prediction_added.csv.
        quantity: which norm `norm` is.
    """
    figure, panels = plt.subplots(1, 2, figsize=(9.6, 4.4), sharey=True, layout="constrained")
    for axes, (metric, label) in zip(panels, PANELS.items(), strict=True):
        _feature_panel(axes, values[values["metric"] == metric], methods)
        axes.set_xlabel(label)
    names = [FEATURE_NAMES[name].format(quantity=quantity) for name in FEATURE_SETS]
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    figure.legend(handles=_legend(methods), loc="outside lower center", ncols=6, frameon=False)
    plotting.title(
        figure,
        _headline(added, quantity),
        f"Prediction of held-out documents from these features ({values['n'].max()} documents). "
        "Text: six properties and a bigram model's surprise. Black: mean of methods with its "
        "bootstrap interval; small: single methods. Dashed: a useless prediction; single methods "
        "fall below it, too: what training folds have too much of, the held-out fold lacks.",
    )
    return figure


def _headline(added: pd.DataFrame, quantity: str) -> str:
    """Say what the last layer's norm adds, mean of methods."""
    chosen = added[(added["added"] == "norm") & (added["method"] == MEAN_OF_METHODS)].set_index(
        "metric"
    )
    parts = []
    for metric, name in (("r2", "R2"), ("auroc", "AUROC")):
        row = chosen.loc[metric]
        interval = number_with_interval(row["difference"], row["low"], row["high"])
        parts.append(f"{name} {interval or 'not measured'}")
    return f"What norm({quantity}) adds to NLL, entropy, text: {', '.join(parts)}"


def _feature_panel(axes: "Axes", values: pd.DataFrame, methods: Sequence[Method]) -> None:
    """Values of one metric: rows are feature sets."""
    looks = plotting.points(methods)
    places = np.linspace(-0.26, 0.26, len(methods)) if len(methods) > 1 else [0.0]
    for place, method in zip(places, plotting.sort_methods(methods), strict=True):
        mine = values[values["method"] == method.name].set_index("features")["value"]
        axes.scatter(
            mine.loc[list(FEATURE_SETS)],
            np.arange(len(FEATURE_SETS)) + place,
            color=looks[method.name]["color"],
            marker=looks[method.name]["marker"],
            s=14,
            alpha=0.75,
            linewidths=0,
        )
    mean = values[values["method"] == MEAN_OF_METHODS].set_index("features").loc[list(FEATURE_SETS)]
    distance = [mean["value"] - mean["low"], mean["high"] - mean["value"]]
    axes.errorbar(
        mean["value"],
        range(len(mean)),
        xerr=np.maximum(distance, 0),
        fmt="D",
        color="black",
        markersize=5,
        elinewidth=1.6,
        capsize=3,
        zorder=5,
    )
    axes.axvline(mean["chance"].iloc[0], **plotting.REFERENCE)
    if mean["value"].isna().all():
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="0.3")


def _legend(methods: Sequence[Method]) -> list[Line2D]:
    """Mean, colours of quantizers, markers of bit widths."""
    point = {"linestyle": "", "markersize": 5}
    entries = [Line2D([], [], color="black", marker="D", label="mean of methods", **point)]
    for name, colour in plotting.quantizer_colours(methods).items():
        entries.append(Line2D([], [], color=colour, marker="o", label=name, **point))
    for place, bits in enumerate(plotting.bit_widths(methods)):
        marker = plotting.MARKERS[place % len(plotting.MARKERS)]
        entries.append(Line2D([], [], color="0.5", marker=marker, label=f"{bits} bits", **point))
    return entries


def transfer_heatmap(transfer: pd.DataFrame, methods: Sequence[Method]) -> "Figure":
    """Draw how well a fit to one method (rows) predicts another (columns).

    Args:
        transfer: rows of prediction_transfer.csv.
    """
    names = [method.name for method in plotting.sort_methods(methods)]
    size = max(2.6, 0.44 * len(names))
    figure, panels = plt.subplots(
        1, 2, figsize=(2 * size + 2.6, size + 0.5), sharey=True, layout="constrained"
    )
    for axes, (metric, (label, look)) in zip(panels, TRANSFER_PANELS.items(), strict=True):
        rows = transfer[transfer["metric"] == metric]
        matrix = rows.pivot(index="fitted_on", columns="tested_on", values="value")
        _transfer_panel(axes, matrix.loc[names, names], look)
        axes.set_title(label)
        axes.set_xlabel("tested on")
        axes.set_ylabel("fitted to" if axes is panels[0] else "")
    plotting.title(
        figure,
        _transfer_headline(transfer),
        "All features; every document is predicted by a fit that has not seen it. Diagonal: fitted "
        "to and tested on the same method. White is chance. Methods are ordered by bits.",
    )
    return figure


def _transfer_panel(axes: "Axes", matrix: pd.DataFrame, look: dict) -> None:
    """One metric as a heat map."""
    numbers = len(matrix) <= MOST_NUMBERS
    texts = matrix.map("{:.2f}".format) if numbers else False
    options = {"linewidths": 0.6, "linecolor": "white", "cbar_kws": {"shrink": 0.8}}
    sns.heatmap(matrix, annot=texts, fmt="", annot_kws={"size": 8}, ax=axes, **options, **look)
    if numbers and matrix.notna().all(axis=None):
        set_contrast(axes)
    if matrix.isna().all(axis=None):
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="0.3")
    axes.tick_params(axis="y", rotation=0)
    axes.tick_params(axis="x", rotation=45)
    axes.grid(visible=False)


def _transfer_headline(transfer: pd.DataFrame) -> str:
    """Compare the mean off the diagonal with that on it."""
    rows = transfer[transfer["metric"] == "spearman"]
    same = rows["fitted_on"] == rows["tested_on"]
    own, other = rows.loc[same, "value"].mean(), rows.loc[~same, "value"].mean()
    if np.isnan([own, other]).any():
        return "Predicting one method's errors from another's"
    return (
        f"Fitted to one method, tested on another: rho {other:.2f} on average, "
        f"{own:.2f} on its own method"
    )
