"""Figures of what is worth higher precision: modules, and models mixed of them."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from lowbit.analysis.mechanisms.mixed_precision import BASE, GREEDY, HIGHER, LAST, RANDOM
from lowbit.analysis.mechanisms.mixed_precision_tables import ALL
from lowbit.figures import plotting
from lowbit.names import LARGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {BASE: "0.35", RANDOM: "#0072B2", LAST: "#E69F00", GREEDY: "#009E73", HIGHER: "0.35"}
"""Models from the top of the figure to its bottom."""


def module_ranking(modules: pd.DataFrame, base: str, higher: str) -> "Figure":
    """Draw NLL recovered per extra bit by layer and projection; dots mark the greedy model's.

    Args:
        modules: rows of module_ranking.csv.
        base, higher: names of the methods.
    """
    in_order = modules.sort_values(["layer", "place"])
    projections = in_order["projection"].unique()
    worth, chosen = (
        modules.pivot(index="projection", columns="layer", values=value).loc[projections]
        for value in ("per_extra_bit", "chosen")
    )
    figure, axes = plt.subplots(
        figsize=(max(6.5, 0.45 * worth.shape[1] + 3.2), 0.36 * worth.shape[0] + 1.2),
        layout="constrained",
    )
    largest = modules["per_extra_bit"].abs().max()
    sns.heatmap(
        worth,
        cmap="RdBu",
        vmin=-largest,
        vmax=largest,
        linewidths=0.6,
        linecolor="white",
        cbar_kws={"label": "NLL recovered per extra bit\n[nats per token / bit per weight]"},
        ax=axes,
    )
    rows, columns = np.nonzero((chosen == True).to_numpy())  # noqa: E712 - absent modules are nan
    look = {"s": 26, "color": "white", "edgecolors": "black", "linewidths": 0.8}
    axes.scatter(columns + 0.5, rows + 0.5, label="in the greedy model", **look)
    axes.legend(loc="upper left", bbox_to_anchor=(0, -0.16), frameon=False)
    axes.set_xlabel("layer")
    axes.set_ylabel("projection")
    axes.tick_params(axis="y", rotation=0)
    axes.grid(visible=False)
    best = modules.iloc[0]
    headline = "What each module is worth in higher precision"
    if best["low"] > 0:
        headline = f"Worth most in higher precision: {best['projection']} of layer {best['layer']}"
    plotting.title(
        figure,
        headline,
        f"One module of {base} at a time is given the weights of {higher}. Colour: by how much the "
        f"mean NLL of {best['n']} documents falls, per bit that the model then takes more (bits "
        "per weight, mean over all quantized weights); red: it rises.",
    )
    return figure


def mixed_models(mixed: pd.DataFrame, base: str, higher: str) -> "Figure":
    """Draw the mean error of every model on the held-out half: all documents, and D_large.

    Args:
        mixed: rows of mixed_precision.csv.
        base, higher: names of the methods.
    """
    titles = {ALL: "all held-out documents", LARGE: f"D_large of {base}, held out"}
    sets = [name for name in titles if name in set(mixed["set"])]
    figure, panels = plt.subplots(
        1,
        len(sets),
        figsize=(max(6.5, 3.9 * len(sets)), 2.5),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    bits = mixed[mixed["set"] == ALL].set_index("model")["bits_per_weight"]
    names = {BASE: base, HIGHER: higher} | {name: name for name in (RANDOM, LAST, GREEDY)}
    labels = {name: f"{names[name]}, {bits[name]:.2f} bits" for name in COLOURS}
    for axes, name in zip(panels[0], sets, strict=True):
        rows = mixed[mixed["set"] == name]
        _model_panel(axes, rows, labels)
        axes.set_title(f"{titles[name]} (n = {rows['n'].iloc[0]})")
        axes.set_xlabel("mean error e(x) [nats per token]")
    choices = mixed["model"].str.startswith(f"{RANDOM} ").sum() // len(sets)
    plotting.title(
        figure,
        _headline(mixed),
        f"Mean error on documents that took no part in choosing, with bootstrap intervals. greedy: "
        f"modules of {base} with the weights of {higher} in the order of what they recover per "
        f"bit; last blocks: from the end; random: mean of {choices} choices, each a small dot.",
    )
    return figure


def _model_panel(axes: "Axes", rows: pd.DataFrame, labels: Mapping[str, str]) -> None:
    """Points with intervals of one set of documents; random choices as small dots."""
    at = rows.set_index("model")
    for place, (name, colour) in enumerate(COLOURS.items()):
        row = at.loc[name]
        spread = [[row["error"] - row["error_low"]], [row["error_high"] - row["error"]]]
        look = {"color": colour, "fmt": "o", "markersize": 6, "capsize": 3, "linewidth": 1.5}
        axes.errorbar([row["error"]], [place], xerr=spread, **look)
    choices = rows.loc[rows["model"].str.startswith(f"{RANDOM} "), "error"]
    height = np.full(len(choices), list(COLOURS).index(RANDOM) + 0.3)
    axes.scatter(choices, height, s=9, color=COLOURS[RANDOM], alpha=0.6, linewidths=0)
    axes.axvline(0, **plotting.REFERENCE)
    axes.set_yticks(range(len(COLOURS)), [labels[name] for name in COLOURS])
    axes.set_ylim(len(COLOURS) - 0.5, -0.5)


def _headline(mixed: pd.DataFrame) -> str:
    """Say by how much the choice by measuring differs from random ones."""
    greedy = mixed[(mixed["set"] == ALL) & (mixed["model"] == GREEDY)].iloc[0]
    numbers = (greedy[f"minus_random{end}"] for end in ("", "_low", "_high"))
    value, low, high = (f"{number:+.4f}" for number in numbers)
    return f"NLL with modules chosen by measuring, less random ones: {value} [{low}, {high}]"
