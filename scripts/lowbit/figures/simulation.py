"""Figures of simulated quantization: transforms of the grid, and SQNR beside the error."""

from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from lowbit.analysis.perturbation.simulations import CELL
from lowbit.experiments.simulation_settings import NONE, TRANSFORMS
from lowbit.figures import plotting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINEAR_BELOW = 1e-3
"""Nats per token; errors may be negative, so the axis is linear near 0."""
EDGES = {"linewidths": 0.6, "linecolor": "white"}


def transforms(simulations: pd.DataFrame) -> "Figure":
    """Draw the error of every transform in every cell as a map; the best of each cell is framed.

    Args:
        simulations: rows of simulations.csv.
    """
    cells = [_cell_name(key) for key in simulations[CELL].itertuples(index=False)]
    wide = simulations.assign(cell=cells).pivot(index="transform", columns="cell", values="error")
    wide = wide.loc[simulations["transform"].unique(), list(dict.fromkeys(cells))]
    shown = np.log10(wide.clip(lower=wide[wide > 0].min().min()))
    figure, axes = plt.subplots(
        figsize=(2.6 + 0.52 * wide.shape[1], 1.6 + 0.3 * wide.shape[0]), layout="constrained"
    )
    sns.heatmap(
        shown,
        ax=axes,
        cmap="rocket_r",
        annot=wide,
        fmt=".2g",
        annot_kws={"fontsize": 6.5},
        cbar_kws={"label": "error [nats per token], log10"},
        **EDGES,
    )
    for column, name in enumerate(wide.columns):
        best = wide.index.get_loc(wide[name].idxmin())
        frame = plt.Rectangle((column, best), 1, 1, fill=False, edgecolor="#009E73", linewidth=1.8)
        axes.add_patch(frame)
    axes.set_xlabel("")
    axes.set_ylabel("")
    plotting.title(
        figure,
        "Which transform of the grid, at which bits and granularity",
        "Mean error e = NLL quantized - NLL full precision. W4A16: weights of 4 bits, activations "
        "not quantized; then what has one scale. power is the paper's cube root. Framed: the least "
        "error of each column.",
    )
    return figure


def sqnr(simulations: pd.DataFrame) -> "Figure":
    """Draw the error against SQNR: of weights alone, and of activations where these are quantized.

    Args:
        simulations: rows of simulations.csv.
    """
    alone = simulations["activations_per"] == NONE
    parts = {
        "weights alone": (simulations[alone], "sqnr_weights", "SQNR of the weights [dB]"),
        "weights and activations": (
            simulations[~alone],
            "sqnr_activations",
            "SQNR of the activations [dB]",
        ),
    }
    parts = {name: part for name, part in parts.items() if len(part[0])}
    colours = dict(zip(TRANSFORMS, sns.color_palette("tab20", len(TRANSFORMS)), strict=True))
    figure, panels = plt.subplots(
        1, len(parts), figsize=(4.4 * len(parts) + 1.4, 3.4), layout="constrained", squeeze=False
    )
    for axes, (name, (rows, measure, label)) in zip(panels[0], parts.items(), strict=True):
        rows = rows.rename(columns={"weights_per": "one scale per"})
        style = "one scale per" if name == "weights alone" else "activations_per"
        sns.scatterplot(
            rows.rename(columns={"activations_per": "activations per"}),
            x=measure,
            y="error",
            hue="transform",
            style=style.replace("_", " "),
            palette=colours,
            ax=axes,
            s=30,
        )
        axes.set_yscale("symlog", linthresh=LINEAR_BELOW)
        axes.set_ylim(2 * min(rows["error"].min(), 0) - LINEAR_BELOW / 4, 2 * rows["error"].max())
        axes.set_title(name)
        axes.set_xlabel(label)
        axes.set_ylabel("error [nats per token]")
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), fontsize=7)
    plotting.title(
        figure,
        "How well values are represented, and how much the model minds",
        "Each point is one way to quantize all projections. Where points of one SQNR differ in "
        "error, mean squared error does not tell which quantizer is better.",
    )
    return figure


def _cell_name(key: tuple) -> str:
    setting, weights, activations = key
    per = weights if activations == NONE else activations
    return f"{setting}, {per}"
