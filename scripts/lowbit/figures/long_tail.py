"""Figure of the errors against the full-precision model's NLL."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lowbit.analysis.long_tail import BUCKET, DIFFERENCE
from lowbit.analysis.tables import Method
from lowbit.figures import plotting
from lowbit.figures.errors import MAXIMUM_POINTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = (0.5, 99.5)
"""Percentiles of the errors that a panel's axis reaches to, at least all bucket means."""


def error_by_nll(table: pd.DataFrame, errors: pd.DataFrame, methods: Sequence[Method]) -> "Figure":
    """Draw e(x) against the full-precision NLL: documents, and means by bucket.

    Args:
        table: rows of long_tail.csv.
        errors: doc_id, method, error, nll_full.
    """
    widths = plotting.bit_widths(methods)
    figure, panels = plt.subplots(
        1,
        len(widths),
        figsize=(max(5.0, 3.6 * len(widths)), 3.4),
        squeeze=False,
        layout="constrained",
    )
    for axes, bits in zip(panels[0], widths, strict=True):
        chosen = [method for method in methods if method.bits == bits]
        _panel(axes, table, errors, chosen, plotting.styles(methods))
        axes.set_title(f"{bits} bits")
        axes.set_xlabel("NLL of the full-precision model [nats per token]")
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3, frameon=False)
    panels[0, 0].set_ylabel("error e(x) [nats per token]")
    plotting.title(
        figure,
        _headline(table),
        f"Points: {errors['doc_id'].nunique()} documents. Lines: mean by bucket of NLL (0.5 nats "
        "wide) with its bootstrap interval; buckets of fewer than 5 documents without one. Right: "
        "documents that the full model finds hard. Each panel has its own scale.",
    )
    return figure


def _headline(table: pd.DataFrame) -> str:
    """Count the methods by where the difference of both ends lies."""
    gap = table[table["documents"] == DIFFERENCE]
    more, less = (gap["low"] > 0).sum(), (gap["high"] < 0).sum()
    return (
        f"The hardest tenth of the documents suffers more than the easiest with {more} of "
        f"{len(gap)} methods, less with {less}"
    )


def _panel(
    axes: "Axes",
    table: pd.DataFrame,
    errors: pd.DataFrame,
    methods: Sequence[Method],
    styles: dict[str, dict],
) -> None:
    """Documents and bucket means of the methods of one bit width."""
    buckets = table[table["documents"] == BUCKET]
    limits = []
    for method in methods:
        style = styles[method.name]
        mine = errors[errors["method"] == method.name]
        shown = mine.iloc[:: max(1, len(mine) * len(methods) // (3 * MAXIMUM_POINTS))]
        look = {"s": 4, "alpha": 0.18, "linewidths": 0, "rasterized": True}
        axes.scatter(shown["nll_full"], shown["error"], color=style["color"], **look)
        means = buckets[buckets["method"] == method.name]
        middle = (means["nll_from"] + means["nll_to"]) / 2
        distance = [means["mean_error"] - means["low"], means["high"] - means["mean_error"]]
        look = {"markersize": 4.5, "linewidth": 1.5, "elinewidth": 1, "capsize": 2}
        distance = np.maximum(np.nan_to_num(distance), 0)
        axes.errorbar(middle, means["mean_error"], distance, label=method.name, **style, **look)
        limits += [*np.percentile(mine["error"], SHOWN), *means["mean_error"]]
    margin = 0.05 * (max(limits) - min(limits))
    axes.set_ylim(min(limits) - margin, max(limits) + margin)
    axes.axhline(0, **plotting.REFERENCE)
