"""Figures of perturbations: size, kind, clipping, weights with activations, single projections."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns

from lowbit.analysis.tables import Method, matching
from lowbit.experiments.perturbation_conditions import (
    ACTIVATIONS,
    ALL,
    BOTH,
    CLIP,
    GAUSSIAN,
    INDEPENDENT,
    MATCHED,
    NOISE,
    OTHER_RELATIONS,
    SHUFFLED,
    TENSOR,
    WEIGHTS,
    plain_noise,
)
from lowbit.figures import plotting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RELATION_LABELS = {
    INDEPENDENT: "independent of |x|",
    "M+": "M+: grows with |x|",
    "M-": "M-: shrinks with |x|",
    "inverse": "1/|x|",
}
CHANGE_LABELS = {
    CLIP: "clipped",
    SHUFFLED: "same entries, same amounts shuffled",
    MATCHED: "noise of matched norm on all entries",
}
LINEAR_BELOW = 1e-3
"""Nats per token; errors may be negative, so the axis is linear near 0."""


def intensities(effects: pd.DataFrame) -> "Figure":
    """Draw the error by intensity: a panel for weights and activations, a line per relation.

    Args:
        effects: rows of perturbation.csv.
    """
    targets = [WEIGHTS, ACTIVATIONS, BOTH]
    figure, panels = _panels(len(targets))
    rows = _of_all(effects, change=NOISE, per=TENSOR, distribution=GAUSSIAN)
    for axes, target in zip(panels, targets, strict=True):
        _lines(axes, _where(rows, target=target), "relation", "intensity", RELATION_LABELS)
        axes.set_title(target if target != BOTH else "weights and activations")
        axes.set_xlabel("norm of the noise /\nnorm of the quantization error")
    _finish(figure, panels, rows)
    plotting.title(
        figure,
        "Damage by Gaussian noise of growing norm, and its relation to the magnitude",
        "Mean error e = NLL perturbed - NLL full precision, mean of the seeds, with bootstrap "
        "intervals over documents and seeds. All noises of one intensity have the same L2 norm in "
        "every weight matrix or activation. The axis is linear below "
        f"{LINEAR_BELOW:g}.",
    )
    return figure


def distributions(effects: pd.DataFrame) -> "Figure":
    """Draw the error at the reference's own norm by distribution and relation.

    Args:
        effects: rows of perturbation.csv.
    """
    targets = [WEIGHTS, ACTIVATIONS]
    kinds = [(name, INDEPENDENT) for name in ("gaussian", "uniform", "rademacher")]
    kinds += [(GAUSSIAN, relation) for relation in OTHER_RELATIONS]
    figure, panels = plt.subplots(
        1, len(targets), figsize=(8.4, 2.9), layout="constrained", sharey=True
    )
    for axes, target in zip(panels, targets, strict=True):
        rows = _of_all(effects, target=target, change=NOISE, per=TENSOR, intensity=1.0)
        keyed = rows.set_index(["distribution", "relation"])
        for place, kind in enumerate(kinds):
            _whisker(
                axes, place, keyed.loc[kind], "#0072B2" if kind[1] == INDEPENDENT else "#D55E00"
            )
        labels = [
            name if relation == INDEPENDENT else f"{name}, {relation}" for name, relation in kinds
        ]
        axes.set_yticks(range(len(kinds)), labels)
        axes.axvline(0, **plotting.REFERENCE)
        axes.set_title(target)
        axes.set_xlabel("error [nats per token]")
    panels[0].invert_yaxis()
    plotting.title(
        figure,
        "Distribution and relation to the magnitude, at the norm of the quantization error",
        "Dots: mean over seeds, with bootstrap intervals over documents; ticks: lowest and highest "
        "seed. Blue: independent of |x|, three distributions. Red: Gaussian, related to |x|.",
    )
    return figure


def clipping(effects: pd.DataFrame) -> "Figure":
    """Draw the error by the share that is clipped, beside its two controls.

    Args:
        effects: rows of perturbation.csv.
    """
    targets = [WEIGHTS, ACTIVATIONS]
    figure, panels = _panels(len(targets))
    rows = _of_all(effects[effects["change"] != NOISE])
    rows = rows.assign(share=(100 * (1 - rows["quantile"])).round(6))
    for axes, target in zip(panels, targets, strict=True):
        _lines(axes, _where(rows, target=target), "change", "share", CHANGE_LABELS)
        axes.set_title(target)
        axes.set_xlabel("entries above the threshold [%]")
        axes.invert_xaxis()
    _finish(figure, panels, rows)
    plotting.title(
        figure,
        "Clipping against a perturbation of the same entries, and matched noise",
        "Values beyond a quantile of |x| are set to it; per weight matrix, and per document and "
        "activation. Lines that lie together mean that only the size of the change matters. "
        "Bootstrap intervals over documents and seeds.",
    )
    return figure


def interaction(table: pd.DataFrame) -> "Figure":
    """Draw weights and activations perturbed together against the sum of each alone.

    Args:
        table: rows of interaction.csv.
    """
    rows = table[(table["distribution"] == GAUSSIAN) & (table["relation"] == INDEPENDENT)]
    rows = rows.sort_values("intensity")
    figure, axes = plt.subplots(figsize=(6.4, 3.0), layout="constrained")
    total = rows["weights"] + rows["activations"]
    lines = {"weights alone": rows["weights"], "activations alone": rows["activations"]}
    lines["sum of both"] = total
    for colour, (name, values) in zip(plotting.PALETTE, lines.items(), strict=False):
        dashed = "--" if name == "sum of both" else "-"  # it may lie on another line
        axes.plot(rows["intensity"], values, dashed, color=colour, linewidth=1.5, label=name)
    below, above = rows["interaction"] - rows["low"], rows["high"] - rows["interaction"]
    bars = np.clip([below, above], 0, None)
    style = {"color": "black", "markersize": 4, "linewidth": 1.2, "label": "together"}
    axes.errorbar(rows["intensity"], rows["together"], bars, fmt="o", **style)
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=LINEAR_BELOW)
    lowest = min(rows[["activations", "together"]].min().min(), 0)
    axes.set_ylim(2 * lowest - LINEAR_BELOW / 4, 2 * max(total.max(), rows["together"].max()))
    axes.set_xlabel("norm of the noise / norm of the quantization error")
    axes.set_ylabel("error [nats per token]")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    plotting.title(
        figure,
        "Do perturbations of weights and activations add up?",
        "Gaussian noise. Dots: both together, with the interval of the difference from the sum of "
        "the errors of each alone. Dots on that line mean that they add up.",
    )
    return figure


def sensitivity(table: pd.DataFrame) -> "Figure":
    """Draw the error of noise on one projection of one block, as it is and per squared norm.

    Args:
        table: rows of sensitivity.csv.
    """
    measures = {
        "error": "as quantized:\nerror [nats per token]",
        "error_per_squared_norm": "at equal norm:\nerror per squared norm of the noise",
    }
    kinds, blocks = table["projection"].unique(), sorted(table["block"].unique())
    figure, panels = plt.subplots(
        1,
        2,
        figsize=(2.4 + 1.0 * len(kinds), 1.4 + 0.34 * len(blocks)),
        layout="constrained",
        sharey=True,
    )
    for axes, (measure, label) in zip(panels, measures.items(), strict=True):
        wide = table.pivot(index="block", columns="projection", values=measure)[list(kinds)]
        sure = table.assign(sure=table["low"] > 0).pivot(
            index="block", columns="projection", values="sure"
        )[list(kinds)]
        wide.index += 1
        limit = np.nanmax(np.abs(wide.to_numpy()))
        marks = np.where(sure.to_numpy(bool), "•", "")
        sns.heatmap(
            wide,
            ax=axes,
            cmap="RdBu_r",
            vmin=-limit,
            vmax=limit,
            annot=marks,
            fmt="",
            cbar_kws={"label": label},
        )
        axes.set_xlabel("")
        axes.set_ylabel("layer" if axes is panels[0] else "")
        axes.tick_params(axis="x", rotation=45)
        axes.tick_params(axis="y", rotation=0)
    plotting.title(
        figure,
        "Noise on the weights of one projection alone",
        "Gaussian noise with the norm of the quantization error of that matrix. Dots: the interval "
        "over documents lies above 0.",
    )
    return figure


def agreement(table: pd.DataFrame, methods: Sequence[Method]) -> "Figure":
    """Draw the correlation of e(x) under perturbations with that of quantizers.

    Args:
        table: rows of perturbation_agreement.csv.
    """
    kinds = {
        "noise on weights": plain_noise(WEIGHTS),
        "noise on weights, M+": plain_noise(WEIGHTS, relation="M+"),
        "noise on weights, M-": plain_noise(WEIGHTS, relation="M-"),
        "noise on activations": plain_noise(ACTIVATIONS),
        "noise on both": plain_noise(BOTH),
    }
    figure, axes = plt.subplots(
        figsize=(6.4, 1.2 + 0.28 * len(kinds) * max(1, len(methods) / 3)), layout="constrained"
    )
    offsets = np.linspace(-0.3, 0.3, len(methods)) if len(methods) > 1 else [0.0]
    looks = plotting.points(methods)
    for place, wanted in enumerate(kinds.values()):
        rows = _where(table, **wanted).set_index("method")
        for offset, method in zip(offsets, methods, strict=True):
            if method.name not in rows.index:
                continue  # no noise, or no error, that varies
            row = rows.loc[method.name]
            axes.errorbar(
                row["r"],
                place + offset,
                xerr=[[row["r"] - row["low"]], [row["high"] - row["r"]]],
                markersize=4,
                linewidth=1,
                label=method.name if place == 0 else None,
                **looks[method.name],
            )
    axes.axvline(0, **plotting.REFERENCE)
    axes.set_yticks(range(len(kinds)), list(kinds))
    axes.invert_yaxis()
    axes.set_xlabel("Pearson's r of e(x) over documents")
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1), title="with the errors of")
    plotting.title(
        figure,
        "Does noise hurt the documents that quantizers hurt?",
        "Correlation of a document's error under Gaussian noise of the norm of the quantization "
        "error (mean of the seeds) with its error under each method; bootstrap intervals.",
    )
    return figure


def _panels(count: int) -> tuple["Figure", np.ndarray]:
    return plt.subplots(
        1, count, figsize=(2.9 * count + 0.6, 3.0), layout="constrained", sharey=True
    )


def _where(table: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    return table[matching(table, wanted)]


def _of_all(effects: pd.DataFrame, **wanted: object) -> pd.DataFrame:
    """Rows that perturb all projections of all blocks."""
    return _where(effects, projection=ALL, block=-1, **wanted)


def _lines(axes: "Axes", rows: pd.DataFrame, by: str, x: str, labels: Mapping[str, str]) -> None:
    """A line with its interval for each value of `by`."""
    for place, (value, label) in enumerate(labels.items()):
        mine = rows[rows[by] == value].sort_values(x)
        if mine.empty:
            continue
        colour = plotting.PALETTE[place]
        axes.plot(
            mine[x],
            mine["error"],
            color=colour,
            marker=plotting.MARKERS[place],
            markersize=4,
            label=label,
        )
        axes.fill_between(mine[x], mine["low"], mine["high"], color=colour, alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    ticks = sorted(rows[x].unique())
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())


def _finish(figure: "Figure", panels: np.ndarray, rows: pd.DataFrame) -> None:
    """Axes and legend that panels share; `rows` are all that are drawn."""
    for axes in panels:
        axes.axhline(0, **plotting.REFERENCE)
        axes.set_yscale("symlog", linthresh=LINEAR_BELOW)
    lowest = min(rows["low"].min(), 0)
    panels[0].set_ylim(2 * lowest - LINEAR_BELOW / 4, 2 * rows["high"].max())
    panels[0].set_ylabel("error [nats per token]")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)


def _whisker(axes: "Axes", place: float, row: pd.Series, colour: str) -> None:
    """A mean with its interval, and the range of the seeds."""
    error = row["error"]
    axes.errorbar(
        error,
        place,
        xerr=[[error - row["low"]], [row["high"] - error]],
        fmt="o",
        color=colour,
        markersize=4,
        linewidth=1.2,
    )
    axes.plot([row["lowest"], row["highest"]], [place, place], "|", color="0.3", markersize=7)
