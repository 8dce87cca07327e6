"""Figures of the residual magnitudes: what they predict, and how D_large differs from D_ctrl."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns

from lowbit.analysis.mechanisms.residual_norms import RATIO
from lowbit.analysis.tables import KURTOSES, PARALLEL_RESIDUAL, QUANTITIES, Method
from lowbit.figures import plotting
from lowbit.names import CONTROL, LARGE, SETS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

QUANTITY_NAMES = {
    "r": "norm(r), after attention",
    "z": "norm(z), after the MLP",
    "h": "norm(h), input of the MLP",
    "r_kurtosis": "kurtosis of r",
    "h_kurtosis": "kurtosis of h",
}
SHOWN_METHODS = 4
"""Columns of the figure of norms at most."""
SHOWN_LAYERS = 3
"""Columns of the figure of densities at most."""


def correlation_by_layer(correlations: pd.DataFrame, methods: Sequence[Method]) -> "Figure":
    """Draw r of every norm with e(x) by layer: a row per quantity, a column per bit width.

    Args:
        correlations: rows of residual_correlation.csv.
    """
    shown = _present(correlations, QUANTITIES)
    figure = _grid(correlations, methods, "pearson", shown, "Pearson's r with e(x)", reference=0)
    layer = correlations["layer"].max()
    is_last = (correlations["quantity"] == shown[0]) & (correlations["layer"] == layer)
    last = correlations.loc[is_last, "pearson"]
    name = "Residual norm" if shown[0] == "r" else QUANTITY_NAMES[shown[0]]
    plotting.title(
        figure,
        f"{name} and error: r from {last.min():.2f} to {last.max():.2f} in the last layer",
        f"Correlation over {correlations['n'].iloc[0]} documents of the mean norm at a layer with "
        "e(x), with bootstrap intervals. Below 0: documents with a small norm have large errors.",
    )
    return figure


def _present(frame: pd.DataFrame, quantities: Sequence[str]) -> list[str]:
    """Keep the quantities that the model has: the table has no rows of the others."""
    found = set(frame["quantity"])
    return [quantity for quantity in quantities if quantity in found]


def reversal(by_set: pd.DataFrame, methods: Sequence[Method]) -> "Figure":
    """Draw the ratio of norms in D_large and D_ctrl by layer: a row each for r and h.

    Args:
        by_set: rows of residual_sets.csv.
    """
    if _present(by_set, ("r", "h")) != ["r", "h"]:
        return plotting.message(
            "The reversal is of norm(r) and norm(h), but this architecture has no norm(r):\n"
            f"{PARALLEL_RESIDUAL}."
        )
    ratios = by_set[by_set["set"] == RATIO]
    figure = _grid(ratios, methods, "mean", ("r", "h"), "D_large / D_ctrl", 1)
    plotting.title(
        figure,
        _reversal_headline(ratios),
        "Mean norm of the documents that break over that of the control documents, with bootstrap "
        "intervals. The paper finds r below 1 and h above 1 in the upper half of the layers "
        "(shaded).",
    )
    for axes in figure.axes:
        layers = sorted(ratios["layer"].unique())
        axes.axvspan(layers[len(layers) // 2] - 0.5, layers[-1] + 0.5, color="0.93", zorder=-1)
        axes.set_xlim(layers[0] - 0.5, layers[-1] + 0.5)
    return figure


def _reversal_headline(ratios: pd.DataFrame) -> str:
    """Count the methods with r below 1 and h above 1 in all upper layers."""
    layers = sorted(ratios["layer"].unique())
    upper = ratios[ratios["layer"].isin(layers[len(layers) // 2 :])]
    extremes = upper.groupby(["method", "quantity"])["mean"].agg(["min", "max"]).unstack()
    reversed_methods = (extremes["max", "r"] < 1) & (extremes["min", "h"] > 1)
    return (
        f"Reversal of the norms (r smaller, h larger): {reversed_methods.sum()} of "
        f"{len(extremes)} methods"
    )


def norms_by_set(by_set: pd.DataFrame, methods: Sequence[Method]) -> "Figure":
    """Draw the norms of D_large and D_ctrl by layer for the methods with the fewest bits."""
    quantities = _present(by_set, ("r", "h"))
    logarithmic = quantities[0] == "r"  # grows with depth by orders of magnitude, h does not
    return _set_figure(
        by_set,
        methods,
        quantities,
        "Norms inside the full-precision model: documents that break and documents that do not",
        " The upper row has a logarithmic axis." if logarithmic else "",
        logarithmic,
    )


def kurtosis_by_set(by_set: pd.DataFrame, methods: Sequence[Method]) -> "Figure":
    """Draw the kurtosis of r and h in D_large and D_ctrl by layer."""
    return _set_figure(
        by_set,
        methods,
        _present(by_set, KURTOSES),
        "Kurtosis inside the full-precision model: how much few dimensions stand out",
        " Excess kurtosis over a token's dimensions, mean over tokens; 0 for a normal "
        "distribution. The paper finds that of r lower for D_large in upper layers.",
        False,
    )


def _set_figure(
    by_set: pd.DataFrame,
    methods: Sequence[Method],
    quantities: Sequence[str],
    headline: str,
    remark: str,
    logarithmic: bool,
) -> "Figure":
    """A row of panels per quantity, a column per method; D_large and D_ctrl by layer."""
    fewest = [method for method in methods if method.bits == plotting.bit_widths(methods)[0]]
    shown = fewest[:SHOWN_METHODS]
    figure, panels = plt.subplots(
        len(quantities),
        len(shown),
        figsize=(max(6.0, 2.6 * len(shown) + 1), 2.4 * len(quantities)),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    for column, method in enumerate(shown):
        for row, quantity in enumerate(quantities):
            rows = by_set[(by_set["method"] == method.name) & (by_set["quantity"] == quantity)]
            _set_panel(panels[row, column], rows)
        panels[0, column].set_title(method.name)
        if logarithmic:
            plotting.set_logarithmic(panels[0, column])
        panels[-1, column].set_xlabel("layer")
    for row, quantity in enumerate(quantities):
        panels[row, 0].set_ylabel(QUANTITY_NAMES[quantity])
    panels[0, 0].legend(loc="best", frameon=True)
    plotting.title(
        figure,
        headline,
        f"Mean over documents, with bootstrap intervals, for methods of {shown[0].bits} bits. "
        f"D_large: largest errors; D_ctrl: drawn from the documents with small errors.{remark}",
    )
    return figure


def densities(residuals: pd.DataFrame, sets: pd.DataFrame, methods: Sequence[Method]) -> "Figure":
    """Draw the densities of norm(r) and norm(h) over the documents of D_large and D_ctrl.

    Args:
        residuals: doc_id, layer, r, h of the full-precision model.
        sets: method, set, doc_id; those of the first method with the fewest bits are drawn.
    """
    quantities = [quantity for quantity in ("r", "h") if quantity in residuals]
    method = next(m for m in methods if m.bits == plotting.bit_widths(methods)[0])
    chosen = sets[(sets["method"] == method.name) & sets["set"].isin(SETS)]
    frame = chosen.merge(residuals, on="doc_id")
    layers = sorted(residuals["layer"].unique())
    upper = layers[len(layers) // 2 :]
    shown = upper[:: max(1, -(-len(upper) // SHOWN_LAYERS))]
    figure, panels = plt.subplots(
        len(quantities),
        len(shown),
        figsize=(2.6 * len(shown) + 1, 2.3 * len(quantities)),
        squeeze=False,
        layout="constrained",
    )
    for column, layer in enumerate(shown):
        for row, quantity in enumerate(quantities):
            _density_panel(panels[row, column], frame[frame["layer"] == layer], quantity)
        panels[0, column].set_title(f"layer {layer}")
    for axes in panels[:, 0]:
        axes.set_ylabel("density")
    panels[0, 0].legend(loc="best", frameon=True)
    plotting.title(
        figure,
        f"Before and after the norm: documents that {method.name} breaks, and others",
        "Density over documents of their mean norm in some upper layers of the full-precision "
        "model. The paper finds D_large to the left for r (before the norm) and to the right for h "
        "(after it).",
    )
    return figure


def _density_panel(axes: "Axes", rows: pd.DataFrame, quantity: str) -> None:
    """Smoothed densities of one quantity in both sets."""
    for name in (CONTROL, LARGE):
        label, colour, _ = plotting.SET_LOOKS[name]
        values = rows.loc[rows["set"] == name, quantity]
        if values.nunique() > 1:
            sns.kdeplot(x=values, ax=axes, color=colour, fill=True, alpha=0.25, label=label)
    axes.set_xlabel(QUANTITY_NAMES[quantity])
    axes.set_ylabel("")
    axes.set_yticks([])


def _set_panel(axes: "Axes", rows: pd.DataFrame) -> None:
    """Norms of D_large and D_ctrl of one method and quantity."""
    for name, width in ((CONTROL, 3.0), (LARGE, 1.2)):  # on top, narrower: both are seen
        label, colour, marker = plotting.SET_LOOKS[name]
        mine = rows[rows["set"] == name]
        style = {"color": colour, "marker": marker, "linestyle": "-", "linewidth": width}
        plotting.band(axes, mine, "mean", style, f"{label} (n = {mine['n'].iloc[0]})")


def _grid(
    frame: pd.DataFrame,
    methods: Sequence[Method],
    value: str,
    quantities: Sequence[str],
    label: str,
    reference: float,
) -> "Figure":
    """One panel per quantity (rows) and bit width (columns), one line per method."""
    widths = plotting.bit_widths(methods)
    figure, panels = plt.subplots(
        len(quantities),
        len(widths),
        figsize=(max(6.0, 2.7 * len(widths) + 1), 2.3 * len(quantities) + 0.2),
        sharex=True,
        sharey="row",
        squeeze=False,
        layout="constrained",
    )
    styles = plotting.styles(methods)
    for column, bits in enumerate(widths):
        for row, quantity in enumerate(quantities):
            axes = panels[row, column]
            for method in (method for method in methods if method.bits == bits):
                chosen = (frame["method"] == method.name) & (frame["quantity"] == quantity)
                plotting.band(axes, frame[chosen], value, styles[method.name], method.name)
            axes.axhline(reference, **plotting.REFERENCE)
        panels[0, column].set_title(f"{bits} bits")
        panels[-1, column].set_xlabel("layer")
        panels[-1, column].legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2, frameon=False
        )
    for row, quantity in enumerate(quantities):
        panels[row, 0].set_ylabel(f"{QUANTITY_NAMES[quantity]}\n{label}", fontsize=8)
    return figure
