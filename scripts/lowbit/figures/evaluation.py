"""Figure of the evaluation sets: perplexity or accuracy of every method, beside full precision."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd

from lowbit.analysis.evaluation import ACCURACY, WORD_PERPLEXITY
from lowbit.analysis.tables import Method
from lowbit.figures import plotting
from lowbit.names import FULL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 2
"""Panels beside each other."""


def evaluated_methods(table: pd.DataFrame, methods: Sequence[Method]) -> "Figure":
    """Draw one panel per set: the value of every method, and a line at the full model's.

    Args:
        table: rows of evaluation.csv.
    """
    shown = table[table["measure"] != WORD_PERPLEXITY]
    sets = list(shown["set"].unique())
    columns = min(COLUMNS, len(sets))
    lines = -(-len(sets) // columns)
    figure, panels = plt.subplots(
        lines,
        columns,
        figsize=(max(6.5, 3.9 * columns), lines * (0.24 * len(methods) + 1.1)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    ordered = plotting.sort_methods(methods)
    for axes, name in zip(panels.ravel(), sets, strict=False):
        _panel(axes, shown[shown["set"] == name].set_index("method"), ordered)
    for axes in panels.ravel()[len(sets) :]:
        axes.set_visible(False)
    count = "1 evaluation set" if len(sets) == 1 else f"{len(sets)} evaluation sets"
    plotting.title(
        figure,
        f"What each method loses on {count}",
        "Dashed: the full-precision model. Bars: bootstrap intervals of the difference from it, "
        "over windows of the text or items of the task; one that does not reach the dashed line is "
        "a difference. Perplexity is on a logarithmic scale, lower is better; accuracy for the "
        "last word, higher is better.",
    )
    return figure


def _panel(axes: "Axes", rows: pd.DataFrame, methods: Sequence[Method]) -> None:
    """Values of one set with intervals of the difference from `full`, methods ordered by bits."""
    styles, full = plotting.styles(methods), rows.loc[FULL, "value"]
    for place, method in enumerate(methods):
        row, style = rows.loc[method.name], styles[method.name]
        look = {"color": style["color"], "fmt": style["marker"], "markersize": 5, "capsize": 2.5}
        spread = None
        if pd.notna(row["difference_low"]):
            low, high = full + row["difference_low"], full + row["difference_high"]
            spread = [[max(0, row["value"] - low)], [max(0, high - row["value"])]]
        axes.errorbar([row["value"]], [place], xerr=spread, linewidth=1.4, **look)
    axes.axvline(full, **plotting.REFERENCE)
    measure, n = rows["measure"].iloc[0], rows["n"].iloc[0]
    if measure != ACCURACY:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    axes.set_xlabel(f"{measure} (n = {n})")
    axes.set_title(str(rows["set"].iloc[0]))
    axes.set_yticks(range(len(methods)), [method.name for method in methods])
    axes.set_ylim(len(methods) - 0.5, -0.5)
