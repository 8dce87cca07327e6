"""Figure of the topics of the documents that break, beside those of all documents."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lowbit.analysis.tables import MEAN_OF_METHODS, Method
from lowbit.figures import plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPREAD = 0.5
"""Of a line, over which the methods' points are spread."""


def topics_of_large(table: pd.DataFrame, methods: Sequence[Method]) -> "Figure":
    """Draw the share of each topic in D_large, and the topic's mean error.

    Args:
        table: rows of topics.csv.
    """
    mean = table[table["method"] == MEAN_OF_METHODS].sort_values("share", kind="stable")
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(9.0, 0.24 * len(mean) + 1.3), sharey=True, layout="constrained"
    )
    places = np.arange(len(mean))
    left.barh(places, mean["share"], color="0.85", height=0.75, label="all documents")
    mean_look = {"color": "0.1", "fmt": "D", "markersize": 4.5, "capsize": 2, "linewidth": 1.2}
    shown = {left: ("share_large", "low", "high"), right: ("mean_error", "error_low", "error_high")}
    ordered, looks = plotting.sort_methods(methods), plotting.points(methods)
    offsets = np.linspace(-SPREAD / 2, SPREAD / 2, len(ordered))
    for axes, columns in shown.items():
        for method, offset in zip(ordered, offsets, strict=True):
            mine = table[table["method"] == method.name].set_index("topic").loc[mean["topic"]]
            look = {"linestyle": "", "markersize": 3.5, "alpha": 0.8} | looks[method.name]
            axes.plot(mine[columns[0]], places + offset, label=method.name, **look)
        value, low, high = (mean[column].to_numpy() for column in columns)
        spread = np.nan_to_num(np.maximum([value - low, high - value], 0))
        axes.errorbar(value, places, xerr=spread, label=MEAN_OF_METHODS, **mean_look)
    _label(left, right, list(mean["topic"]))
    plotting.title(
        figure,
        _headline(mean),
        "Bars: share among all documents, by which topics are ordered. Points: methods; their mean "
        "with its bootstrap interval over documents, without one where there are fewer than 5. "
        "Left: share of D_large. Right: mean error of all documents of the topic.",
    )
    return figure


def _label(left: "Axes", right: "Axes", topics: Sequence[str]) -> None:
    left.set_yticks(range(len(topics)), topics)
    left.set_ylim(-0.6, len(topics) - 0.4)
    left.set_xlabel("share of D_large")
    left.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0, decimals=0))
    right.set_xlabel("mean error e(x) [nats per token]")
    right.axvline(0, **plotting.REFERENCE)
    handles, names = left.get_legend_handles_labels()
    left.figure.legend(handles, names, loc="outside lower center", ncols=5, frameon=False)


def _headline(mean: pd.DataFrame) -> str:
    """Name the topic with the largest share, and how many are over or under their share."""
    first = mean.loc[mean["share_large"].idxmax()]
    said = f"The largest topic holds {100 * first['share_large']:.0f} % of D_large ({first.topic})"
    if mean["excess_low"].isna().all():
        return said
    more, less = (mean["excess_low"] > 0).sum(), (mean["excess_high"] < 0).sum()
    return f"{said}; {more} of {len(mean)} have more of it than of all documents, {less} less"
