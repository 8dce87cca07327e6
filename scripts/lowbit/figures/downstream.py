"""Figure of the answers to a downstream task by popularity."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lowbit.analysis.downstream import HIGHEST, LOWEST
from lowbit.analysis.tables import Method
from lowbit.figures import plotting
from lowbit.names import FULL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FULL_STYLE = {"color": "black", "linestyle": "-", "marker": "o"}


def by_popularity(table: pd.DataFrame, methods: Sequence[Method]) -> "Figure":
    """Draw the share of right answers and the damage by bucket of popularity, a row per task.

    Args:
        table: rows of popularity.csv.
    """
    names = list(table["name"].unique())
    figure, panels = plt.subplots(
        len(names),
        2,
        figsize=(9.5, 3.3 * len(names)),
        squeeze=False,
        layout="constrained",
    )
    styles = plotting.styles(methods) | {FULL: FULL_STYLE}
    for (accuracy, damage), name in zip(panels, names, strict=True):
        rows = table[(table["name"] == name) & ~table["bucket"].isin([LOWEST, HIGHEST])]
        _panel(accuracy, rows, ("accuracy", "low", "high"), styles)
        accuracy.set_title(f"{name}: right answers")
        accuracy.set_ylabel("share of the items")
        accuracy.set_ylim(bottom=0)
        quantized = rows[rows["method"] != FULL]
        _panel(damage, quantized, ("damage", "damage_low", "damage_high"), styles)
        damage.set_title(f"{name}: lost by quantization")
        damage.set_ylabel("share full less quantized")
        damage.axhline(0, **plotting.REFERENCE)
        accuracy.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28), ncols=4, frameon=False)
    plotting.title(
        figure,
        _headline(table),
        "Eight buckets of as many items each, from the least popular on the left to the most; "
        "below each the median popularity. Bars: bootstrap intervals over items, paired for what "
        "is lost.",
    )
    return figure


def _headline(table: pd.DataFrame) -> str:
    """Count where both extremes lose less than the middle, intervals included."""
    gaps = table[table["bucket"].isin([LOWEST, HIGHEST])]
    less = (gaps["damage_high"] < 0).groupby([gaps["name"], gaps["method"]]).all()
    return (
        "Least popular and most popular items both lose less than those between with "
        f"{int(less.sum())} of {len(less)} quantized models"
    )


def _panel(
    axes: "Axes", rows: pd.DataFrame, columns: tuple[str, str, str], styles: dict[str, dict]
) -> None:
    """One line with intervals per method over the buckets; slightly apart, so that all are seen."""
    value, low, high = columns
    shown = list(rows["method"].unique())
    for place, method in enumerate(shown):
        mine = rows[rows["method"] == method]
        at = np.arange(len(mine)) + 0.06 * (place - (len(shown) - 1) / 2)
        distance = np.maximum([mine[value] - mine[low], mine[high] - mine[value]], 0)
        look = {"markersize": 4.5, "linewidth": 1.5, "elinewidth": 1, "capsize": 2}
        axes.errorbar(at, mine[value], distance, label=method, **styles[method], **look)
    medians = rows.loc[rows["method"] == shown[0], "popularity_median"]
    axes.set_xticks(range(len(medians)), map(_label, medians), rotation=30)
    axes.set_xlabel("popularity, median of the bucket")


def _label(popularity: float) -> str:
    return f"{popularity:,.0f}" if popularity >= 10 else f"{popularity:.3g}"
