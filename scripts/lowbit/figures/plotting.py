"""What all figures share: look, colours, order of methods, and files that do not change by the day.

Colour says the quantizer, in every figure (Okabe and Ito's palette, which colour-blind readers can
tell apart). Where bit widths have panels of their own, marker and line tell apart methods of one
quantizer (`styles`); where they share one, the marker says the bit width (`points`).
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from lowbit.analysis.tables import Method
from lowbit.files import atomic
from lowbit.names import CONTROL, LARGE, SET_TITLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
LINES = ("-", "--", ":", "-.")
REFERENCE = {"color": "0.45", "linewidth": 0.8, "linestyle": (0, (4, 3)), "zorder": 0}
"""A line that marks 'no effect'."""


class SetLook(NamedTuple):
    """How documents of a set are shown."""

    label: str
    colour: str
    marker: str


SET_LOOKS = {
    LARGE: SetLook(SET_TITLES[LARGE], "#D55E00", "o"),
    CONTROL: SetLook(SET_TITLES[CONTROL], "#0072B2", "s"),
}


def start() -> None:
    """Set fonts, grid and everything that makes an SVG reproducible."""
    sns.set_theme(style="whitegrid", context="paper", font="DejaVu Sans")
    mpl.rcParams.update(
        {
            "svg.hashsalt": "lowbit",
            "svg.fonttype": "path",
            "figure.dpi": 100,
            "axes.titlesize": 10,
            "axes.titlelocation": "left",
            "axes.labelsize": 9,
            "figure.titlesize": 11,
            "legend.fontsize": 8.5,
            "legend.title_fontsize": 8.5,
            "xtick.labelsize": 8.5,
            "ytick.labelsize": 8.5,
            "grid.linewidth": 0.5,
            "axes.spines.top": False,
            "axes.spines.right": False,
        }
    )


def save(figure: "Figure", paths: Sequence[str | Path]) -> None:
    """Write a figure to every path (PNG at 150 dpi, SVG); the same figure gives the same bytes."""
    metadata = {".svg": {"Date": None}, ".png": {"Software": None}}
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, not again for every file
    for path in map(Path, paths):
        with atomic(path) as partial:
            figure.savefig(
                partial,
                format=path.suffix[1:],
                dpi=150,
                bbox_inches="tight",
                metadata=metadata[path.suffix],
            )
    plt.close(figure)


def title(figure: "Figure", headline: str, explanation: str) -> None:
    """Put a headline, and below it how to read the figure, above the panels; wrapped to fit."""
    width, height = figure.get_size_inches()
    headline = textwrap.fill(headline, int(10 * width))
    explanation = textwrap.fill(explanation, int(14.5 * width))
    top = 1 + (0.12 + 0.17 * (explanation.count("\n") + 1)) / height
    figure.text(0.01, top, headline, fontsize=11, fontweight="bold", va="bottom", ha="left")
    below = top - 0.04 / height
    figure.text(0.01, below, explanation, fontsize=8.5, color="0.3", va="top", ha="left")


def sort_methods(methods: Sequence[Method]) -> list[Method]:
    """Order methods by bits, then as in the config."""
    return sorted(methods, key=lambda method: method.bits)


def bit_widths(methods: Sequence[Method]) -> list[int]:
    """Bit widths present, smallest first."""
    return sorted({method.bits for method in methods})


def quantizer_colours(methods: Sequence[Method]) -> dict[str, str]:
    """Give each quantizer a colour, in the config's order."""
    quantizers = list(dict.fromkeys(method.quantizer for method in methods))
    return {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(quantizers)}


def styles(methods: Sequence[Method]) -> dict[str, dict]:
    """Colour and line of each method; methods of one quantizer at the same bits differ in line."""
    colours = quantizer_colours(methods)
    seen: dict[tuple[str, int], int] = {}
    result = {}
    for method in methods:
        place = seen.setdefault((method.quantizer, method.bits), 0)
        seen[method.quantizer, method.bits] += 1
        result[method.name] = {
            "color": colours[method.quantizer],
            "linestyle": LINES[place % len(LINES)],
            "marker": MARKERS[place % len(MARKERS)],
        }
    return result


def points(methods: Sequence[Method]) -> dict[str, dict]:
    """Colour and marker of each method; further ones of one quantizer and width are hollow."""
    widths, looks = bit_widths(methods), styles(methods)
    result = {}
    for method in methods:
        colour, is_first = looks[method.name]["color"], looks[method.name]["linestyle"] == LINES[0]
        result[method.name] = {
            "color": colour,
            "marker": MARKERS[widths.index(method.bits) % len(MARKERS)],
            "markerfacecolor": colour if is_first else "white",
        }
    return result


def band(axes: "Axes", frame: pd.DataFrame, value: str, style: dict, label: str) -> None:
    """Draw `value` by layer with the interval `low` to `high` as a band."""
    axes.plot(
        frame["layer"], frame[value], label=label, **{"markersize": 4, "linewidth": 1.5} | style
    )
    axes.fill_between(
        frame["layer"], frame["low"], frame["high"], color=style["color"], alpha=0.15, linewidth=0
    )
    axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(integer=True, nbins=8))


def set_logarithmic(axes: "Axes") -> None:
    """Give the y axis a logarithmic scale with plain numbers on it."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(mpl.ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(mpl.ticker.StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(mpl.ticker.NullFormatter())


def message(text: str) -> "Figure":
    """Return a figure that says in words why there is nothing to draw."""
    figure, axes = plt.subplots(figsize=(6, 1.2))
    axes.axis("off")
    axes.text(0.0, 0.5, text, ha="left", va="center", fontsize=10, wrap=True)
    return figure
