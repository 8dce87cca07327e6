"""Figures of patching: which activation restores what, weights of the last blocks, by block."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from lowbit.analysis.mechanisms.patching_report import ROLE_NAMES
from lowbit.analysis.tables import Method, method_on
from lowbit.experiments.conditions import (
    GATE_INPUT,
    GATE_PROJECTION,
    LAST,
    MODULE_OUTPUTS,
    NONE,
    PATCH,
    SINGLE,
    UPPER,
    WEIGHTS,
    name_last,
    papers_last,
)
from lowbit.figures import plotting
from lowbit.figures.errors import set_contrast
from lowbit.names import SET_TITLES, SETS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = (-1.0, 1.4)
"""Shares outside this are drawn at its edge with their value."""
ANNOTATED_BLOCKS = 12
"""Heat maps of at most so many blocks have the numbers in their cells."""
SMALLEST_LIMIT = 0.05
"""The colours of heat maps are for shares of up to this at least."""
COLUMNS = 3
"""Panels side by side at most."""


def share_by_role(shares: pd.DataFrame, methods: Sequence[Method]) -> "Figure":
    """Draw what each activation of the upper half restores: a panel per method, a bar per set.

    Args:
        shares: rows of patching.csv.
    """
    rows = _bars(shares)
    names, labels = _names(rows, methods), list(rows["label"].drop_duplicates())
    figure, panels = _panels(len(names), height=0.55 + 0.42 * len(labels), sharey=True)
    for axes, name in zip(panels, names, strict=False):
        _bar_panel(axes, rows[rows["method"] == name], labels)
        axes.set_title(_method_title(rows, name))
        axes.set_xlim(_limits(rows))
    _label_edges(panels, "share of the damage restored", "")
    _set_legend(figure, panels[0], rows)
    run = shares[shares["kind"] != NONE]
    blocks = int(run["last_block"].max())
    plotting.title(
        figure,
        _role_headline(rows),
        f"One activation (or the weights named) of blocks {blocks // 2 + 1} to {blocks} taken from "
        "the full-precision model. Damage: the rise in log perplexity by quantization; 1 is all "
        "of it, below 0 is harm. Lines: bootstrap intervals over documents.",
    )
    return figure


def last_blocks(shares: pd.DataFrame, methods: Sequence[Method]) -> "Figure":
    """Draw what weights of the last k blocks in full precision restore, against k.

    Args:
        shares: rows of patching.csv.
    """
    rows = shares[(shares["kind"] == WEIGHTS) & (shares["layers"] == LAST)]
    rows = rows.assign(
        layer=rows["last_block"] - rows["first_block"] + 1,
        low=rows["share_low"],
        high=rows["share_high"],
    )
    names, blocks = _names(rows, methods), int(rows["last_block"].max())
    figure, panels = _panels(len(names), height=2.5, sharey=True)
    for axes, name in zip(panels, names, strict=False):
        for of, (label, colour, marker) in plotting.SET_LOOKS.items():
            mine = rows[(rows["method"] == name) & (rows["set"] == of)]
            style = {"color": colour, "marker": marker}
            if mine["share"].notna().any():
                plotting.band(axes, mine, "share", style, f"{label} (n = {mine['n'].iloc[0]})")
            else:
                axes.plot([], [], label=f"{label}: no gap to restore", **style)
        axes.axvline(papers_last(blocks), **plotting.REFERENCE)
        axes.axhline(1, **plotting.REFERENCE)
        axes.axhline(0, **plotting.REFERENCE)
        axes.set_title(_method_title(rows, name))
        axes.legend(loc="lower right", frameon=True)
    _label_edges(panels, "last blocks with full-precision weights", "share of the damage restored")
    count = papers_last(blocks)
    known = rows[(rows["layer"] == count) & (rows["set"] == "large") & rows["low"].notna()]
    headline = f"What full-precision weights of the {name_last(count, blocks)} restore"
    if len(known):
        headline += f" on D_large: {_span(known['share'])} of the damage"
    plotting.title(
        figure,
        headline,
        f"Vertical line: the paper's share of blocks (7 of 40), here {count} of {blocks}. With all "
        f"{blocks} everything is restored by construction. Bands: bootstrap intervals over "
        "documents.",
    )
    return figure


def share_by_block(shares: pd.DataFrame, methods: Sequence[Method], layers: str) -> "Figure":
    """Draw the share restored by role and block: a row of panels per method, a column per set.

    Args:
        shares: rows of patching.csv.
        layers: `single` or `suffix`.
    """
    rows = shares[(shares["kind"] == PATCH) & (shares["layers"] == layers)]
    names, roles = _names(rows, methods), [role for role in ROLE_NAMES if role in set(rows["role"])]
    blocks = int(rows["last_block"].max())
    largest = rows.loc[rows["role"].isin(MODULE_OUTPUTS), "share"].abs().max()
    limit = np.nanmin([np.nanmax([largest, SMALLEST_LIMIT]), 1])
    figure, panels = plt.subplots(
        len(names),
        len(SETS),
        figsize=(2.6 + len(SETS) * np.clip(0.5 * blocks, 2.5, 6), 2.6 * len(names) + 0.2),
        sharex=True,
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for row, name in enumerate(names):
        for column, (of, label) in enumerate(SET_TITLES.items()):
            mine = rows[(rows["method"] == name) & (rows["set"] == of)]
            _map_panel(panels[row, column], mine, roles, limit)
            count = f"n = {mine['n'].iloc[0]}"
            panels[row, column].set_title(f"{_method_title(rows, name)}, {label} ({count})")
    for axes in panels[-1]:
        axes.set_xlabel("block" if layers == SINGLE else "first block overwritten")
    mesh = panels[0, 0].collections[0]
    figure.colorbar(mesh, ax=panels, label="share of the damage restored", extend="both", pad=0.01)
    where = "one block alone" if layers == SINGLE else "a block and all blocks after it"
    plotting.title(
        figure,
        f"What an activation restores when it is overwritten in {where}",
        "Share of the rise in log perplexity that taking the activation from the full-precision "
        "model restores: 1 is all of it, below 0 is harm. The colours end at the largest share of "
        "a module output. Grey: no gap to restore, or not run.",
    )
    return figure


def _bars(shares: pd.DataFrame) -> pd.DataFrame:
    """Rows of the first figure with their labels, from the top down."""
    names = {(PATCH, role, UPPER): name for role, name in ROLE_NAMES.items()}
    names.pop((PATCH, "residual_out", UPPER))  # 1 by construction
    names[PATCH, GATE_INPUT, UPPER] = "input of the gate projection"
    names[WEIGHTS, GATE_PROJECTION, UPPER] = "weights of the gate projection"
    keys = list(zip(shares["kind"], shares["role"], shares["layers"], strict=True))
    rows = shares.assign(label=[names.get(key) for key in keys]).dropna(subset="label")
    order = {label: place for place, label in enumerate(names.values())}
    return rows.sort_values("label", key=lambda column: column.map(order), kind="stable")


def _bar_panel(axes: "Axes", rows: pd.DataFrame, labels: Sequence[str]) -> None:
    """Bars of one method: D_large above D_ctrl for each condition; all panels have all labels."""
    places = {label: place for place, label in enumerate(labels)}
    for label in set(labels) - set(rows["label"]):
        axes.text(0.02, places[label], "not run", fontsize=7, color="0.35", va="center")
    for offset, of in zip((-0.2, 0.2), SETS, strict=True):
        colour = plotting.SET_LOOKS[of].colour
        mine = rows[rows["set"] == of]
        y = mine["label"].map(places).to_numpy() + offset
        share = mine["share"].to_numpy()
        low, high = (mine[column].to_numpy() for column in ("share_low", "share_high"))
        inside = np.clip(share, *SHOWN)
        axes.barh(y, inside, height=0.38, color=colour, alpha=0.85, linewidth=0)
        axes.hlines(y, np.clip(low, *SHOWN), np.clip(high, *SHOWN), color="0.15", linewidth=1.1)
        for at, value, shown in zip(y, share, inside, strict=True):
            if np.isnan(value):
                axes.text(0.02, at, "no gap to restore", fontsize=7, color="0.35", va="center")
            elif value != shown:
                side = "left" if value < shown else "right"
                axes.text(
                    shown, at, f" {value:.1f} ", fontsize=7, color="white", va="center", ha=side
                )
    axes.axvline(0, color="0.2", linewidth=0.8)
    axes.axvline(1, **plotting.REFERENCE)
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.45, -0.55)
    axes.grid(visible=False, axis="y")


def _limits(rows: pd.DataFrame) -> tuple[float, float]:
    """Limits of the axis of shares: 0 to 1 and all intervals, as far as `SHOWN`."""
    values = rows[["share", "share_low", "share_high"]].to_numpy()
    low, high = np.nanmin([-0.05, *values.flat]), np.nanmax([1.05, *values.flat])
    return max(SHOWN[0], low), min(SHOWN[1], high)


def _map_panel(axes: "Axes", rows: pd.DataFrame, roles: Sequence[str], limit: float) -> None:
    """Heat map of one method and set; colours from -limit to limit."""
    wide = rows.pivot(index="role", columns="first_block", values="share").reindex(list(roles))
    axes.set_facecolor("0.85")
    few = len(wide.columns) <= ANNOTATED_BLOCKS
    sns.heatmap(
        wide.rename(index=ROLE_NAMES),
        cmap="RdBu",
        vmin=-limit,
        vmax=limit,
        cbar=False,
        annot=wide.round(2) + 0 if few else None,  # no -0.00
        fmt=".2f",
        annot_kws={"size": 7},
        linewidths=0.4 if few else 0,
        ax=axes,
    )
    if few and wide.notna().any(axis=None):
        set_contrast(axes)
    axes.set_xlabel("")
    axes.set_ylabel("")
    axes.tick_params(axis="y", rotation=0)
    axes.tick_params(axis="x", rotation=0)
    axes.grid(visible=False)


def _role_headline(rows: pd.DataFrame) -> str:
    """Name the module output with the largest mean share on D_large, where there are intervals."""
    large = rows[(rows["set"] == "large") & rows["role"].isin(MODULE_OUTPUTS)]
    large = large[large["share_low"].notna()]
    if large.empty:
        return "What overwriting one activation restores"
    best = large.groupby("role", sort=False)["share"].mean().idxmax()
    return (
        f"Of the module outputs, {ROLE_NAMES[best]} restores most on D_large on average: "
        f"{_span(large.loc[large['role'] == best, 'share'])}"
    )


def _span(shares: pd.Series) -> str:
    """'0.12 to 0.34', or one number."""
    ends = [f"{shares.min():.2f}", f"{shares.max():.2f}"]
    return " to ".join(dict.fromkeys(ends))


def _names(rows: pd.DataFrame, methods: Sequence[Method]) -> list[str]:
    """Methods of the table, in the config's order."""
    return [method.name for method in methods if method.name in set(rows["method"])]


def _method_title(rows: pd.DataFrame, name: str) -> str:
    """The method, and whose documents it is patched on where they are not its own."""
    return method_on(name, rows.loc[rows["method"] == name, "sets_of"].iloc[0])


def _panels(count: int, height: float, *, sharey: bool) -> tuple["Figure", list["Axes"]]:
    """One panel per method, at most `COLUMNS` side by side."""
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    figure, panels = plt.subplots(
        rows,
        columns,
        figsize=(max(6.0, 2.6 * columns + 2.0), height * rows),
        sharex=True,
        sharey=sharey,
        squeeze=False,
        layout="constrained",
    )
    for axes in panels.flat[count:]:
        axes.set_visible(False)
    return figure, list(panels.flat)


def _label_edges(panels: Sequence["Axes"], x: str, y: str) -> None:
    """Label the axes of the panels at the edges, also where the panel below is left out."""
    shown = [axes for axes in panels if axes.get_visible()]
    for axes in shown:
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.label_outer()
    for axes in shown[-COLUMNS:]:
        axes.set_xlabel(x)
        axes.tick_params(axis="x", labelbottom=True)


def _set_legend(figure: "Figure", axes: "Axes", rows: pd.DataFrame) -> None:
    """Say which colour is which set, below the panels."""
    handles = [
        plt.Rectangle((0, 0), 1, 1, color=look.colour, alpha=0.85, linewidth=0)
        for look in plotting.SET_LOOKS.values()
    ]
    sizes = {of: sorted(set(rows.loc[rows["set"] == of, "n"])) for of in SETS}
    labels = [
        f"{label} (n = {' to '.join(str(size) for size in {min(sizes[of]), max(sizes[of])})})"
        for of, label in SET_TITLES.items()
    ]
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
