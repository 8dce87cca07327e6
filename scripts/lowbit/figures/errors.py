"""Figures of the errors: their distribution by method, and how far the worst documents overlap."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from lowbit.analysis.tables import Method, of_different_quantizers
from lowbit.figures import plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAXIMUM_POINTS = 1000
"""Documents drawn as points in one row; boxes are always of all documents."""


def error_distribution(
    errors: pd.DataFrame, sets: pd.DataFrame, methods: Sequence[Method]
) -> "Figure":
    """Draw the errors of every method, one panel with its own scale per bit width.

    Args:
        errors: doc_id, method, error.
        sets: doc_id, method, set; the smallest error in `large` or `duplicate` is D_large's edge.
    """
    widths = plotting.bit_widths(methods)
    rows = [[method for method in methods if method.bits == bits] for bits in widths]
    figure, panels = plt.subplots(
        len(rows),
        1,
        figsize=(7.5, 0.7 * len(rows) + 0.42 * len(methods)),
        height_ratios=[len(row) for row in rows],
        squeeze=False,
        layout="constrained",
    )
    edges = _large_edges(errors, sets)
    colours = plotting.quantizer_colours(methods)
    for axes, row, bits in zip(panels[:, 0], rows, widths, strict=True):
        _error_panel(axes, errors, row, colours, edges)
        axes.set_title(f"{bits} bits")
    panels[-1, 0].set_xlabel("error e(x) = NLL quantized - NLL full precision [nats per token]")
    count = errors["doc_id"].nunique()
    plotting.title(
        figure,
        "How much each document suffers, by method",
        f"Every point is one of {count} documents (box: quartiles; whiskers: 5th to 95th "
        "percentile). Documents right of the black mark are the method's D_large before "
        "near-duplicates are dropped. Each panel has its own scale.",
    )
    return figure


def _error_panel(
    axes: "Axes",
    errors: pd.DataFrame,
    methods: Sequence[Method],
    colours: dict[str, str],
    edges: pd.Series,
) -> None:
    """Points, box and D_large's edge for the methods of one bit width."""
    rng = np.random.default_rng(0)
    for row, method in enumerate(methods):
        values = errors.loc[errors["method"] == method.name, "error"].to_numpy()
        shown = values[:: max(1, len(values) // MAXIMUM_POINTS)]
        jitter = row + rng.uniform(-0.3, 0.3, len(shown))
        look = {"color": colours[method.quantizer], "linewidths": 0, "rasterized": True}
        look |= {"s": 5, "alpha": 0.4} if len(shown) > 100 else {"s": 14, "alpha": 0.7}
        axes.scatter(shown, jitter, **look)
        axes.boxplot(
            values,
            positions=[row],
            orientation="horizontal",
            widths=0.55,
            whis=(5, 95),
            showfliers=False,
            medianprops={"color": "black", "linewidth": 1.4},
            boxprops={"color": "0.2"},
            whiskerprops={"color": "0.2"},
            capprops={"color": "0.2"},
        )
        axes.plot([edges[method.name]] * 2, [row - 0.42, row + 0.42], color="black", linewidth=2.4)
    axes.axvline(0, **plotting.REFERENCE)
    axes.set_yticks(range(len(methods)), [method.name for method in methods])
    axes.set_ylim(len(methods) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")


def _large_edges(errors: pd.DataFrame, sets: pd.DataFrame) -> pd.Series:
    """Smallest error of each method's D_large, near-duplicates included."""
    chosen = sets[sets["set"].isin(["large", "duplicate"])]
    return chosen.merge(errors, on=["doc_id", "method"]).groupby("method")["error"].min()


def overlap_heatmap(overlap: pd.DataFrame, methods: Sequence[Method]) -> "Figure":
    """Draw the Jaccard index of D_large between every two methods.

    Args:
        overlap: method_a, method_b, jaccard, chance.
    """
    names = [method.name for method in plotting.sort_methods(methods)]
    if overlap.empty:
        return plotting.message("The overlap of D_large needs at least two methods.")
    figure = triangle(
        symmetric(overlap, "jaccard", names),
        plotting.sort_methods(methods),
        {
            "cmap": "viridis",
            "vmin": 0,
            "vmax": 1,
            "cbar_kws": {"label": "Jaccard index of D_large"},
        },
    )
    different = of_different_quantizers(overlap, methods)
    counted = overlap if different.empty else different
    plotting.title(
        figure,
        _overlap_headline(different),
        "Share of the worst documents that two methods have in common: 1 is the same set; random "
        f"sets would have {counted['chance'].mean():.2f}. Methods are ordered by bits; lines part "
        "bit widths.",
    )
    return figure


def _overlap_headline(different: pd.DataFrame) -> str:
    """Say the mean over pairs of different quantizers, as the correlation's figure does."""
    if different.empty:
        return "Overlap between settings of one quantizer"
    mean = different["jaccard"].mean()
    return f"Overlap of different quantizers' worst documents: {mean:.2f} on average"


def set_contrast(axes: "Axes") -> None:
    """Write each cell's number in black or white, whichever has more contrast (WCAG 2.2)."""
    (mesh,) = axes.collections
    mesh.update_scalarmappable()
    visible = ~np.ma.getmaskarray(mesh.get_array()).ravel()
    red, green, blue = np.where(
        (rgb := mesh.get_facecolors()[visible, :3].T) <= 0.04045,
        rgb / 12.92,
        ((rgb + 0.055) / 1.055) ** 2.4,
    )
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    for text, light in zip(axes.texts, luminance, strict=True):
        text.set_color("black" if light > 0.179 else "white")


def symmetric(pairs: pd.DataFrame, value: str, names: Sequence[str]) -> pd.DataFrame:
    """Turn rows of pairs into a symmetric matrix of `value`, nan on the diagonal."""
    matrix = pd.DataFrame(np.nan, index=list(names), columns=list(names))
    for a, b, number in zip(pairs["method_a"], pairs["method_b"], pairs[value], strict=True):
        matrix.loc[a, b] = matrix.loc[b, a] = number
    return matrix


def triangle(
    matrix: pd.DataFrame, methods: Sequence[Method], heatmap: dict, annotations=None
) -> "Figure":
    """Draw the lower triangle of a symmetric matrix with its values, bit widths parted by lines.

    Args:
        matrix: methods by methods, in the order of `methods`.
        heatmap: arguments of `seaborn.heatmap`.
        annotations: texts of the cells; the values with two decimals if left out.
    """
    shown = matrix.iloc[1:, :-1]
    texts = annotations.iloc[1:, :-1] if annotations is not None else shown.map("{:.2f}".format)
    hidden = np.triu(np.ones(shown.shape, bool), 1)
    size = max(4.2, 0.62 * len(shown) + 1.6)
    figure, axes = plt.subplots(figsize=(size + 0.9, 0.82 * size), layout="constrained")
    sns.heatmap(
        shown,
        mask=hidden,
        annot=texts,
        fmt="",
        annot_kws={"size": 8.5},
        linewidths=0.6,
        linecolor="white",
        ax=axes,
        **heatmap,
    )
    set_contrast(axes)
    bits = [method.bits for method in methods]
    for place in np.flatnonzero(np.diff(bits)):
        axes.plot([0, place + 1], [place, place], color="black", linewidth=1.2)
        axes.plot([place + 1, place + 1], [place, len(shown)], color="black", linewidth=1.2)
    axes.tick_params(axis="y", rotation=0)
    axes.tick_params(axis="x", rotation=45)
    axes.grid(visible=False)
    return figure
