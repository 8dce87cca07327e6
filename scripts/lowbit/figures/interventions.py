"""The figure of interventions on the residual norm."""

from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lowbit.analysis.mechanisms.interventions import GAP
from lowbit.experiments.intervention_conditions import SCALE, SHAM, SWAP, SWAP_INVERSE, SWAP_SHAM
from lowbit.figures import plotting
from lowbit.names import CONTROL, LARGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHAM_LINES = {CONTROL: (0, (4, 4)), LARGE: (4, (4, 4))}
"""Dashes of one fall into the gaps of the other: they lie on top of each other."""
SWAPPED = "norms swapped"
"""Title of the column of swaps."""
PLACES = {SWAP_INVERSE: -1.0, SWAP: 1.0, SWAP_SHAM: 1.0}
"""Where swaps are on its axis; 0 is a document's own norm."""


def scaled_norms(interventions: pd.DataFrame) -> "Figure":
    """Draw the change of e by the factor of norm(r): a row per method, a column per layers.

    The last column is of norms that are swapped, the lowest row of the full-precision model's NLL.

    Args:
        interventions: rows of interventions.csv.
    """
    changed = _placed(interventions, SCALE, SWAP, SWAP_INVERSE)
    shams = _placed(interventions, SHAM, SWAP_SHAM)
    if changed.empty:
        return plotting.message(
            "norm(r) cannot be changed: this architecture has no residual stream between attention "
            "and MLP."
        )
    methods, columns = changed["method"].unique(), changed["column"].unique()
    figure, panels = plt.subplots(
        len(methods) + 1,
        len(columns),
        figsize=(max(6.5, 2.1 * len(columns) + 1), 1.75 * (len(methods) + 1)),
        sharex="col",
        squeeze=False,
        layout="constrained",
    )
    scaled = panels[:, columns != SWAPPED]  # norms are swapped for others that are not far off
    for first, *others in scaled:
        for axes in others:
            axes.sharey(first)
            axes.tick_params(labelleft=False)
    for column, name in enumerate(columns):
        for row, method in enumerate(methods):
            mine = changed[(changed["method"] == method) & (changed["column"] == name)]
            swapped = (shams["column"] == SWAPPED) == (name == SWAPPED)
            sham = shams[swapped & (shams["method"] == method)]
            _error_panel(panels[row, column], mine, sham)
        _full_panel(panels[-1, column], changed[changed["column"] == name])
        panels[0, column].set_title(name)
        panels[-1, column].set_xlabel("norm(r)" if name == SWAPPED else "norm(r), times")
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
        "left to right. Last column, on an axis of its own: in the upper half, documents of "
        "D_large and D_ctrl with nearly the same NLL get each other's norms (partner's), or each "
        "norm moves as far the other way (inverse). If D_large breaks for its small norms, it "
        "falls and D_ctrl rises; what is alike both ways is regression to the mean. Dashed: the "
        "sham, the same factors on what only the norms read (of scaling: at all layers). Lowest "
        "row: what it does to the full-precision model, a line for each method's documents.",
    )
    return figure


def _placed(interventions: pd.DataFrame, *conditions: str) -> pd.DataFrame:
    """Rows of some conditions, with the title of their `column` and their place `at` in it."""
    rows = interventions[interventions["condition"].isin(conditions) & (interventions["n"] > 0)]
    rows = rows[rows["set"] != GAP]
    place = rows["condition"].map(PLACES)
    column = rows["layers"].where(place.isna(), SWAPPED)
    return rows.assign(column=column, at=place.fillna(rows["factor"]))


def _error_panel(axes: "Axes", changed: pd.DataFrame, sham: pd.DataFrame) -> None:
    """Change of e of one method in one column, with the sham's."""
    for name, sham_line in SHAM_LINES.items():
        label, colour, marker = plotting.SET_LOOKS[name]
        rows = _with_unchanged(changed[changed["set"] == name], ["difference", "low", "high"])
        style = {"color": colour, "marker": marker, "markersize": 4, "linewidth": 1.5}
        axes.plot(rows["at"], rows["difference"], label=f"{label}, r scaled", **style)
        axes.fill_between(
            rows["at"], rows["low"], rows["high"], color=colour, alpha=0.15, linewidth=0
        )
        rows = _with_unchanged(sham[sham["set"] == name], ["difference"])
        style |= {"marker": "none", "linestyle": sham_line, "linewidth": 1.2}
        if len(sham):
            axes.plot(rows["at"], rows["difference"], label=f"{label}, sham", **style)
    _set_axis(axes, changed)


def _full_panel(axes: "Axes", changed: pd.DataFrame) -> None:
    """Change of the full-precision model's NLL on every method's documents."""
    for name in (CONTROL, LARGE):
        _, colour, marker = plotting.SET_LOOKS[name]
        for _, mine in changed[changed["set"] == name].groupby("method", sort=False):
            rows = _with_unchanged(mine, ["nll_full_change"])
            axes.plot(
                rows["at"],
                rows["nll_full_change"],
                color=colour,
                marker=marker,
                markersize=3,
                linewidth=0.9,
            )
    _set_axis(axes, changed)


def _with_unchanged(rows: pd.DataFrame, values: list[str]) -> pd.DataFrame:
    """Rows by place, with that of the norm as it is, where nothing changes."""
    own = 0.0 if (rows["column"] == SWAPPED).all() else 1.0
    unchanged = pd.DataFrame({"at": [own], **{value: [0.0] for value in values}})
    return pd.concat([rows[["at", *values]], unchanged]).sort_values("at")


def _set_axis(axes: "Axes", changed: pd.DataFrame) -> None:
    """Swaps by name; factors logarithmic, as far from each other as from their inverses."""
    axes.axhline(0, **plotting.REFERENCE)
    if (changed["column"] == SWAPPED).all():
        axes.set_xticks([-1, 0, 1], ["inverse", "own", "partner's"])
        axes.set_xlim(-1.2, 1.2)
        return
    axes.set_xscale("log", base=2)
    ticks = sorted({*changed["at"], 1.0})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
    axes.set_xlim(np.min(ticks) / 1.1, np.max(ticks) * 1.1)
