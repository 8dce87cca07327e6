"""The figure of interventions on the residual norm."""

from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lowbit.analysis.mechanisms.interventions import SCALE, SHAM
from lowbit.figures import plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SETS = {
    "control": ("D_ctrl", plotting.CONTROL_COLOUR, "s"),
    "large": ("D_large", plotting.LARGE_COLOUR, "o"),
}
SHAM_LINES = {"control": (0, (4, 4)), "large": (4, (4, 4))}
"""Dashes of one fall into the gaps of the other: they lie on top of each other."""


def scaled_norms(interventions: pd.DataFrame) -> "Figure":
    """Draw the change of e by the factor of norm(r): a row per method, a column per layers.

    The lowest row has the change of the full-precision model's NLL.

    Args:
        interventions: rows of interventions.csv.
    """
    scaled = interventions[(interventions["condition"] == SCALE) & (interventions["n"] > 0)]
    if scaled.empty:
        return plotting.message(
            "norm(r) cannot be changed: this architecture has no residual stream between attention "
            "and MLP."
        )
    methods, layers = scaled["method"].unique(), scaled["layers"].unique()
    figure, panels = plt.subplots(
        len(methods) + 1,
        len(layers),
        figsize=(max(6.5, 2.1 * len(layers) + 1), 1.75 * (len(methods) + 1)),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    shams = interventions[interventions["condition"] == SHAM]
    for column, name in enumerate(layers):
        for row, method in enumerate(methods):
            mine = scaled[(scaled["method"] == method) & (scaled["layers"] == name)]
            _error_panel(panels[row, column], mine, shams[shams["method"] == method])
        _full_panel(panels[-1, column], scaled[scaled["layers"] == name])
        panels[0, column].set_title(name)
        panels[-1, column].set_xlabel("norm(r), times")
    for row, method in enumerate(methods):
        panels[row, 0].set_ylabel(f"{method}\nchange of e\n[nats per token]")
    panels[-1, 0].set_ylabel("full precision\nchange of NLL\n[nats per token]")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    plotting.title(
        figure,
        "Errors when the norm of the residual stream is set, its direction kept",
        "Change of the mean error e = NLL quantized - NLL full precision, both models scaled "
        "alike, with bootstrap intervals. If a small norm makes inputs break, curves fall from "
        "left to right. Dashed: the sham, the same factors on what only the norms read, at all "
        "layers. Lowest row: what scaling does to the full-precision model, a line for each "
        "method's documents.",
    )
    return figure


def _error_panel(axes: "Axes", scaled: pd.DataFrame, sham: pd.DataFrame) -> None:
    """Change of e of one method at some layers, with the sham's at all layers."""
    for name, (label, colour, marker) in SETS.items():
        rows = _with_one(scaled[scaled["set"] == name], ["difference", "low", "high"])
        style = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.5}
        axes.plot(rows["factor"], rows["difference"], label=f"{label}, r scaled", **style)
        axes.fill_between(
            rows["factor"], rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0
        )
        rows = _with_one(sham[sham["set"] == name], ["difference"])
        style |= {"marker": "none", "linestyle": SHAM_LINES[name], "linewidth": 1.2}
        if len(sham):
            axes.plot(rows["factor"], rows["difference"], label=f"{label}, sham", **style)
    _set_axis(axes, sorted(scaled["factor"].unique()))


def _full_panel(axes: "Axes", scaled: pd.DataFrame) -> None:
    """Change of the full-precision model's NLL on every method's documents."""
    for name, (_, colour, marker) in SETS.items():
        for _, mine in scaled[scaled["set"] == name].groupby("method", sort=False):
            rows = _with_one(mine, ["nll_full_change"])
            axes.plot(
                rows["factor"],
                rows["nll_full_change"],
                color=colour,
                marker=marker,
                markersize=3,
                linewidth=0.9,
            )
    _set_axis(axes, sorted(scaled["factor"].unique()))


def _with_one(rows: pd.DataFrame, values: list[str]) -> pd.DataFrame:
    """Rows by factor, with that of the factor 1, which changes nothing."""
    unchanged = pd.DataFrame({"factor": [1.0], **{value: [0.0] for value in values}})
    return pd.concat([rows[["factor", *values]], unchanged]).sort_values("factor")


def _set_axis(axes: "Axes", factors: list[float]) -> None:
    """Factors on a logarithmic axis, as far from each other as from their inverses."""
    axes.axhline(0, **plotting.REFERENCE)
    axes.set_xscale("log", base=2)
    ticks = sorted({*factors, 1.0})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.set_xlim(np.min(ticks) / 1.1, np.max(ticks) * 1.1)
