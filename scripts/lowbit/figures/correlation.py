"""Figures of the correlation of errors between methods."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lowbit.analysis.tables import Method
from lowbit.figures import plotting
from lowbit.figures.errors import MAXIMUM_POINTS, symmetric, triangle

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3
"""Panels side by side in the scatter figure."""


def correlation_heatmap(pairs: pd.DataFrame, methods: Sequence[Method]) -> "Figure":
    """Draw Pearson's r of e(x) for every pair; pairs of one quantizer in brackets.

    Args:
        pairs: rows of correlation.csv.
    """
    if pairs.empty:
        return plotting.message("A correlation between methods needs at least two methods.")
    ordered = plotting.sort_methods(methods)
    names = [method.name for method in ordered]
    matrix = symmetric(pairs, "pearson", names)
    same = symmetric(pairs.assign(same=pairs["same_quantizer"].astype(float)), "same", names)
    texts = matrix.map("{:.2f}".format).where(same != 1, matrix.map("({:.2f})".format))
    figure = triangle(
        matrix,
        ordered,
        {"cmap": "RdBu_r", "vmin": -1, "vmax": 1, "cbar_kws": {"label": "Pearson's r of e(x)"}},
        texts,
    )
    plotting.title(
        figure,
        _headline(pairs),
        f"Correlation of e(x) over {pairs['n'].iloc[0]} documents. Values in brackets are of one "
        "quantizer at two settings and count in no mean. Methods are ordered by bits; lines part "
        "bit widths.",
    )
    return figure


def _headline(pairs: pd.DataFrame) -> str:
    """Say the mean over pairs of different quantizers."""
    different = pairs.loc[~pairs["same_quantizer"], "pearson"]
    if different.empty:
        return "Correlation of errors between settings of one quantizer"
    return f"Errors of different quantizers: mean correlation {different.mean():.2f}"


def typical_pairs(pairs: pd.DataFrame) -> pd.DataFrame:
    """For every two bit widths pick the pair whose r is the median: typical, not the best.

    Of an even number the lower of the two middle pairs. Pairs of one quantizer are left out.
    """
    different = pairs[~pairs["same_quantizer"].astype(bool)]
    bits = np.sort(different[["bits_a", "bits_b"]].to_numpy(), axis=1)
    keyed = different.assign(low_bits=bits[:, 0], high_bits=bits[:, 1])
    chosen = [
        group.sort_values("pearson", kind="stable").iloc[(len(group) - 1) // 2]
        for _, group in keyed.groupby(["low_bits", "high_bits"])
    ]
    return pd.DataFrame(chosen, columns=keyed.columns)


def error_scatter(pairs: pd.DataFrame, errors: pd.DataFrame) -> "Figure":
    """Draw e(x) of one method against that of another: a typical pair of every two bit widths."""
    chosen = typical_pairs(pairs)
    if chosen.empty:
        return plotting.message("A scatter of errors needs two methods of different quantizers.")
    wide = errors.pivot(index="doc_id", columns="method", values="error")
    columns = min(COLUMNS, len(chosen))
    rows = -(-len(chosen) // columns)
    figure, panels = plt.subplots(
        rows,
        columns,
        figsize=(max(4.0, 2.75 * columns), 2.75 * rows),
        squeeze=False,
        layout="constrained",
    )
    for axes in panels.flat[len(chosen) :]:
        axes.set_visible(False)
    for axes, pair in zip(panels.flat, chosen.itertuples(), strict=False):
        _scatter_panel(axes, wide, pair)
    plotting.title(
        figure,
        "Errors of two methods on the same documents: r from "
        f"{chosen['pearson'].min():.2f} to {chosen['pearson'].max():.2f}",
        "e(x) [nats per token] of two methods; every point is a document. For every two bit widths "
        "the pair with the median correlation is shown; r with its bootstrap interval.",
    )
    return figure


def _scatter_panel(axes: "Axes", wide: pd.DataFrame, pair) -> None:
    """Errors of one pair of methods."""
    x, y = wide[pair.method_a].to_numpy(), wide[pair.method_b].to_numpy()
    step = max(1, len(x) // MAXIMUM_POINTS)
    axes.scatter(
        x[::step], y[::step], s=7, alpha=0.45, linewidths=0, color="#0072B2", rasterized=True
    )
    axes.axhline(0, **plotting.REFERENCE)
    axes.axvline(0, **plotting.REFERENCE)
    axes.set_xlabel(f"{pair.method_a}")
    axes.set_ylabel(f"{pair.method_b}")
    axes.locator_params(nbins=4)
    axes.set_title(
        f"r = {pair.pearson:.2f} [{pair.pearson_low:.2f}, {pair.pearson_high:.2f}]", fontsize=9
    )
