"""Figures of early exit and of the amplification in the MLPs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd

from lowbit.analysis.tables import Method, method_on
from lowbit.figures import plotting
from lowbit.names import CONTROL, FULL, LARGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STRONG = 0.6
"""Correlation that the paper finds exceeded in most upper layers."""


def exit_curves(curves: pd.DataFrame) -> "Figure":
    """Draw early-exit NLL by layer: a row per exit (r, z), a column per method, four curves each.

    Args:
        curves: rows of early_exit.csv.
    """
    methods = list(curves["method"].unique())
    quantities = [q for q in ("r", "z") if q in set(curves["quantity"])]
    figure, panels = plt.subplots(
        len(quantities),
        len(methods),
        figsize=(max(6.0, 2.7 * len(methods) + 1), 2.6 * len(quantities)),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for column, method in enumerate(methods):
        for row, quantity in enumerate(quantities):
            mine = curves[(curves["method"] == method) & (curves["quantity"] == quantity)]
            _exit_panel(panels[row, column], mine)
            plotting.set_logarithmic(panels[row, column])
        sets_of = curves.loc[curves["method"] == method, "sets_of"].iloc[0]
        panels[0, column].set_title(method_on(method, sets_of))
        panels[-1, column].set_xlabel("layer")
    for row, quantity in enumerate(quantities):
        panels[row, 0].set_ylabel(f"NLL read out from {quantity}, nats")
    panels[0, -1].legend(loc="upper right", frameon=True)
    plotting.title(
        figure,
        "Early exit: what each layer would predict, and where the quantized model departs",
        "Negative log-likelihood when the residual stream after attention (r) or after the MLP (z) "
        "goes straight to the final norm and head; means over D_large and D_ctrl with bootstrap "
        "intervals, on a logarithmic axis.",
    )
    return figure


def _exit_panel(axes: "Axes", rows: pd.DataFrame) -> None:
    """Four curves: full precision and quantized, on both sets."""
    for name in (CONTROL, LARGE):
        label, colour, _ = plotting.SET_LOOKS[name]
        for full, words in ((True, "full precision"), (False, "quantized")):
            mine = rows[(rows["set"] == name) & ((rows["model"] == FULL) == full)]
            style = {"color": colour, "linestyle": "-" if full else "--", "marker": "o"}
            plotting.band(axes, mine, "nll", style, f"{label}, {words}")


def amplification(table: pd.DataFrame, methods: Sequence[Method]) -> "Figure":
    """Draw r of norm(h) with the MLPs' squared differences, by layer and method.

    Args:
        table: rows of amplification.csv.
    """
    figure, axes = plt.subplots(figsize=(6.4, 3.2), layout="constrained")
    shown = [method for method in methods if method.name in set(table["method"])]
    styles = plotting.styles(shown)
    for method in shown:
        rows = table[table["method"] == method.name]
        plotting.band(axes, rows, "pearson", styles[method.name], method.name)
    axes.axhline(STRONG, **plotting.REFERENCE)
    axes.axhline(0, color="0.8", linewidth=0.8, zorder=0)
    layers = sorted(table["layer"].unique())
    axes.axvspan(layers[len(layers) // 2] - 0.5, layers[-1] + 0.5, color="0.93", zorder=-1)
    axes.set_xlim(layers[0] - 0.5, layers[-1] + 0.5)
    axes.set_xlabel("layer")
    axes.set_ylabel("Pearson's r with norm(h)")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    plotting.title(
        figure,
        "Amplification: the error in an MLP's output against the size of its input",
        f"Correlation over {table['n'].iloc[0]} documents of norm(h) with the mean squared "
        "difference between full-precision and quantized MLP output, with bootstrap intervals. The "
        f"paper finds it above {STRONG} (dashed) in most upper layers (shaded).",
    )
    return figure
