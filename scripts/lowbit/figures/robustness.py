"""Figure of the models of a study side by side: what the same changes cost each of them."""

from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lowbit.figures import plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 4
"""Panels in a row at most."""
STEP, PARAMETERS, MODEL = "step", "parameters", "model"
LABELS = {STEP: "training step", PARAMETERS: "parameters", MODEL: ""}


def robustness(table: pd.DataFrame) -> "Figure":
    """Draw the relative rise of the log perplexity by training step, size or model.

    Args:
        table: rows of robustness.csv.
    """
    if table.empty:
        return plotting.message("None of the conditions that models are compared by was tried.")
    along = axis_of(table)
    conditions = list(table["condition"].unique())
    width = min(COLUMNS, len(conditions))
    figure, panels = plt.subplots(
        -(-len(conditions) // width),
        width,
        figsize=(max(6.5, 2.7 * width), 2.5 * -(-len(conditions) // width) + 0.4),
        layout="constrained",
        squeeze=False,
    )
    for axes in panels.flat[len(conditions) :]:
        axes.set_axis_off()
    families = list(table["family"].unique())
    for axes, condition in zip(panels.flat, conditions, strict=False):
        _panel(axes, table[table["condition"] == condition], along, families)
        axes.set_title(condition)
    if len(families) > 1:
        panels[0, 0].legend(title="family", frameon=False)
    figure.supylabel("relative rise of log perplexity", fontsize=9)
    if LABELS[along]:
        figure.supxlabel(LABELS[along], fontsize=9)
    plotting.title(
        figure,
        "How much the same changes hurt each model",
        "Mean error over mean NLL of the full-precision model, with bootstrap intervals over "
        "documents and draws of the noise. Noise has the norm of the reference's error in each "
        "tensor; weights are "
        f"quantized per output row. Fewest documents: {table['n'].min()}.",
    )
    return figure


def axis_of(table: pd.DataFrame) -> str:
    """What tells the models apart: their step, else their size, else only their name."""
    models = table.drop_duplicates("model")
    if models["step"].notna().all() and models["step"].nunique() > 1:
        return STEP
    return PARAMETERS if models["parameters"].nunique() == len(models) else MODEL


def _panel(axes: "Axes", rows: pd.DataFrame, along: str, families: list[str]) -> None:
    """One condition: a line with intervals per family, or per family and size over steps."""
    names = list(rows["model"])
    by = ["family", "parameters"] if along == STEP else ["family"]
    for (family, *_), mine in rows.groupby(by, sort=False):
        place = families.index(family)
        chosen = mine if along == MODEL else mine.sort_values(along)
        x = [names.index(name) for name in chosen["model"]] if along == MODEL else chosen[along]
        below, above = (
            (chosen[f"relative_{end}"] - chosen["relative"]).abs() for end in ("low", "high")
        )
        axes.errorbar(
            x,
            chosen["relative"],
            yerr=np.stack([below, above]),
            color=plotting.PALETTE[place % len(plotting.PALETTE)],
            marker=plotting.MARKERS[place % len(plotting.MARKERS)],
            linestyle="none" if along == MODEL else "-",
            markersize=4,
            capsize=2,
            linewidth=1.2,
            label=family,
        )
    axes.axhline(0, **plotting.REFERENCE)
    axes.margins(x=0.08)
    if along == MODEL:
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        return
    axes.set_xscale("log")
    axes.xaxis.set_minor_formatter(mpl.ticker.NullFormatter())
    if (rows[along] == 0).any():  # the untrained model has no place on a logarithmic scale
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(left=-0.5)
