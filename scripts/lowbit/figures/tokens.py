"""Figures of which tokens carry the errors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lowbit.analysis.tables import MEAN_OF_METHODS, Method
from lowbit.analysis.token_errors import ALL, TOP_SHARES
from lowbit.figures import plotting
from lowbit.names import CONTROL, LARGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BIN_LABELS = {
    "position": "tokens before it",
    "frequency": "occurrences of the token\nin all documents",
    "confidence": "full model's highest probability",
}
VALUES = {
    "mean_error": ("error_low", "error_high", "mean token error [nats]"),
    "flip_rate": ("flip_low", "flip_high", "share of changed top tokens"),
}
SHIFTS = {LARGE: -0.14, CONTROL: 0.14}
"""Where a set is beside the method's place."""


def by_bin(table: pd.DataFrame, methods: Sequence[Method], value: str) -> "Figure":
    """Draw a value of tokens by position, frequency and confidence, a row per bit width.

    Args:
        table: rows of token_errors.csv.
        value: `mean_error` or `flip_rate`.
    """
    low, high, label = VALUES[value]
    everything = table[table["set"] == ALL]
    widths = plotting.bit_widths(methods)
    figure, panels = plt.subplots(
        len(widths),
        len(BIN_LABELS),
        figsize=(9.5, 2.1 * len(widths) + 0.9),
        sharex="col",
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    styles = plotting.styles(methods)
    for row, bits in enumerate(widths):
        chosen = [method for method in methods if method.bits == bits]
        for axes, by in zip(panels[row], BIN_LABELS, strict=True):
            rows = everything[everything["by"] == by]
            _lines(axes, rows, chosen, styles, (value, low, high))
        panels[row, 0].set_ylabel(f"{bits} bits\n{label}", fontsize=8.5)
        panels[row, -1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    for axes, text in zip(panels[-1], BIN_LABELS.values(), strict=True):
        axes.set_xlabel(text)
    figure.align_xlabels(panels[-1])
    plotting.title(figure, _headline(everything, value), _explanation(everything))
    return figure


def _lines(
    axes: "Axes",
    rows: pd.DataFrame,
    methods: Sequence[Method],
    styles: dict[str, dict],
    columns: tuple[str, str, str],
) -> None:
    """One line per method over the bins, with intervals as bands."""
    value, low, high = columns
    bins = list(dict.fromkeys(rows.sort_values("from", kind="stable")["bin"]))
    for method in methods:
        mine = rows[rows["method"] == method.name].set_index("bin").loc[bins]
        place, style = np.arange(len(bins)), styles[method.name]
        look = {"markersize": 4, "linewidth": 1.4}
        axes.plot(place, mine[value], label=method.name, **style, **look)
        axes.fill_between(
            place, mine[low], mine[high], color=style["color"], alpha=0.15, linewidth=0
        )
    axes.axhline(0, **plotting.REFERENCE)
    axes.set_xticks(range(len(bins)), bins, rotation=55, ha="right", rotation_mode="anchor")


def _headline(rows: pd.DataFrame, value: str) -> str:
    """Say at which confidence and frequency the value is largest, every method counting alike."""
    relative = rows[value] / rows.groupby(["method", "by"])[value].transform("mean")
    means = rows.assign(relative=relative).groupby(["by", "bin"], sort=False)["relative"].mean()
    confidence, frequency = means["confidence"].idxmax(), means["frequency"].idxmax()
    what = "Token errors are largest" if value == "mean_error" else "Top tokens change most"
    return f"{what} at a confidence of {confidence}, and for tokens that occur {frequency} times"


def _explanation(rows: pd.DataFrame) -> str:
    """How to read the figures by bin."""
    count = rows[(rows["method"] == rows["method"].iloc[0]) & (rows["by"] == "position")]["n"].sum()
    return (
        f"Means over {count:,} predicted tokens of all documents, with bootstrap intervals over "
        "documents. Left: by how many tokens stand before the predicted one; middle: by how often "
        "it occurs in this study's documents; right: by how sure the full-precision model is."
    )


def concentration(table: pd.DataFrame, methods: Sequence[Method]) -> "Figure":
    """Draw the share of the error that the worst tokens carry in D_large and D_ctrl.

    Args:
        table: rows of token_concentration.csv.
    """
    names = [*(method.name for method in plotting.sort_methods(methods)), MEAN_OF_METHODS]
    figure, panels = plt.subplots(
        1,
        len(TOP_SHARES),
        figsize=(9.0, 0.32 * len(names) + 1.3),
        sharey=True,
        layout="constrained",
    )
    for axes, top in zip(panels, TOP_SHARES, strict=True):
        rows = table[np.isclose(table["top"], top)]
        for name, shift in SHIFTS.items():
            label, colour, marker = plotting.SET_LOOKS[name]
            mine = rows[rows["set"] == name].set_index("method").loc[names]
            distance = [mine["share"] - mine["low"], mine["high"] - mine["share"]]
            axes.errorbar(
                100 * mine["share"],
                np.arange(len(names)) + shift,
                xerr=100 * np.maximum(np.nan_to_num(distance), 0),
                fmt=marker,
                color=colour,
                markersize=4,
                elinewidth=1.1,
                label=label,
            )
        axes.axvline(100 * top, **plotting.REFERENCE)
        axes.set_xlim(left=0)
        axes.set_title(f"worst {100 * top:g} % of the tokens")
        axes.set_xlabel("share of the positive error [%]")
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.4, -0.6)
    panels[-1].legend(loc="best", frameon=True)
    mean = table[(table["method"] == MEAN_OF_METHODS) & np.isclose(table["top"], TOP_SHARES[1])]
    shares = mean.set_index("set")["share"]
    plotting.title(
        figure,
        f"The worst {100 * TOP_SHARES[1]:g} % of a document's tokens carry "
        f"{100 * shares[LARGE]:.0f} % of its positive error in D_large, "
        f"{100 * shares[CONTROL]:.0f} % in D_ctrl",
        "Sum of the positive token errors of the worst tokens over that of all tokens, mean over "
        "the documents of a set, with bootstrap intervals. Dashed: what equal errors would give.",
    )
    return figure
