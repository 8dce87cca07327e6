"""The table of patching to read: perplexities and shares, the paper's own values beside ours."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd

from lowbit.analysis.mechanisms.patching import NO_GAP
from lowbit.analysis.statistics import MINIMUM_DOCUMENTS
from lowbit.analysis.tables import method_on
from lowbit.experiments.conditions import (
    ALL_WEIGHTS,
    GATE_INPUT,
    GATE_PROJECTION,
    LAST,
    MLP_OUT,
    MODULE_OUTPUTS,
    NONE,
    PATCH,
    SINGLE,
    SUFFIX,
    UPPER,
    WEIGHTS,
    name_last,
    papers_last,
)
from lowbit.markdown import number_with_interval, table
from lowbit.names import FULL, SET_TITLES

QUANTIZED = "quantized"
"""Column of the paper's table that is no condition, beside `full`."""

ROLE_NAMES = {
    "mlp_down": "MLP output (h_down)",
    "mlp_gate": "gate activation (h_gate)",
    "mlp_up": "up projection (h_up)",
    "attn_out": "attention output (h_attn)",
    "mlp_out": "output of all experts (mlp_out)",
    "mlp_in": "MLP input after its norm (h)",
    "residual_mid": "residual after attention (r)",
    "residual_out": "residual after block (z)",
}

HEAD = """\
# Activation patching: {model}

The quantized model runs on documents that it breaks (D_large) and on control documents (D_ctrl). In
all blocks of the upper half ({first} to {last}), one activation is overwritten by what the
full-precision model computes on the same tokens:

- **h_down**, **h_gate**, **h_up**, **h_attn**: outputs of the MLP, of its gate after the activation
  function, of its up projection, and of attention;
{experts}- **h**: what the MLP reads, after its norm; **gate inputs**: the same, but for the gate
  projection alone;
- **r**: the residual stream after attention; what is left of quantization is the last block's MLP.

Or weights are put back into full precision: those of the gate projections in these blocks (**gate
weights**), or all of the {named} (**{title}**; the paper: 7 of 40).

The share restored is that of the rise in log perplexity that quantization costs on these documents:
1 is all, 0 nothing, below 0 is harm. Brackets: {confidence:g} % bootstrap intervals over documents.
“{no_gap}”: the interval of that rise includes 0. D_large was chosen by its errors, so part of any
share restored on it is regression to the mean: any disturbance brings such errors down. D_ctrl,
drawn from the smaller errors, shows how much, as it is pulled the other way. All conditions:
`patching.csv`.
"""


EXPERTS = """\
- **mlp_out**: what all experts of the MLP give together, in place of h_down, which a mixture of
  experts does not have;
"""


class Column(NamedTuple):
    """One condition and what the table calls it."""

    title: str
    kind: str
    role: str
    layers: str


def patching_markdown(
    shares: pd.DataFrame, paper: pd.DataFrame, model: str, confidence: float
) -> str:
    """Write patching.md.

    Args:
        shares: rows of patching.csv.
        paper: perplexities on D_large where the model is the paper's: method, sets_of, kind, role,
            layers, value; role `full` and `quantized` for its first two columns.
        model: name of the model.
    """
    run = shares[shares["kind"] != NONE]
    blocks = int(run["last_block"].max())
    count = papers_last(blocks)
    head = HEAD.format(
        model=model,
        experts=EXPERTS if MLP_OUT in set(run["role"]) else "",
        first=blocks // 2 + 1,
        last=blocks,
        named=name_last(count, blocks),
        title=_last_title(count),
        confidence=100 * confidence,
        no_gap=NO_GAP,
    )
    columns = [column for column in _columns(count) if len(_at(run, column, count))]
    parts = [head]
    for name, title in SET_TITLES.items():
        mine = run[run["set"] == name]
        known = paper if name == "large" else paper.iloc[:0]
        rows = [cells for each in _methods(mine) for cells in _rows(each, known, columns, count)]
        titles = [column.title for column in columns]
        parts.append(
            f"## Perplexity on {title}\n\n"
            + table(["method", "n", "16 bit", "quantized", *titles], rows)
        )
        rows = [_share_cells(each, columns, count) for each in _methods(mine)]
        parts.append(f"## Share restored on {title}\n\n" + table(["method", "n", *titles], rows))
    notes = sorted(_left_out(shares))
    if notes:
        parts.append("Not run: " + "; ".join(notes) + ".\n")
    return "\n".join(parts)


def _left_out(shares: pd.DataFrame) -> Iterator[str]:
    """Why conditions were not run, and on which methods if not on all."""
    absent = shares[shares["kind"] == NONE]
    for note, rows in absent.groupby("note"):
        methods = rows["method"].unique()
        everywhere = len(methods) == shares["method"].nunique()
        yield note if everywhere else f"{note} ({', '.join(methods)})"


def _columns(count: int) -> list[Column]:
    """The paper's columns, then what it does not have or has in its text."""
    roles = {"h_down": "mlp_down", "h_gate": "mlp_gate", "h_up": "mlp_up", "h_attn": "attn_out"}
    roles |= {"mlp_out": MLP_OUT, "h": "mlp_in", "r": "residual_mid", "gate inputs": GATE_INPUT}
    return [
        *(Column(title, PATCH, role, UPPER) for title, role in roles.items()),
        Column("gate weights", WEIGHTS, GATE_PROJECTION, UPPER),
        Column(_last_title(count), WEIGHTS, ALL_WEIGHTS, LAST),
    ]


def _last_title(count: int) -> str:
    """Title of the column of the last blocks' weights."""
    return "last block" if count == 1 else f"last {count} blocks"


def _methods(rows: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Rows of one method at a time, in the table's order."""
    for _, mine in rows.groupby("method", sort=False):
        yield mine


def _at(rows: pd.DataFrame, column: Column, count: int) -> pd.DataFrame:
    """Rows of one condition; of weights of the last blocks, those of `count` blocks."""
    chosen = rows[
        (rows["kind"] == column.kind)
        & (rows["role"] == column.role)
        & (rows["layers"] == column.layers)
    ]
    if column.layers != LAST:
        return chosen
    return chosen[chosen["last_block"] - chosen["first_block"] + 1 == count]


def _rows(
    mine: pd.DataFrame, paper: pd.DataFrame, columns: list[Column], count: int
) -> Iterator[list[str]]:
    """Perplexities of one method, and of the paper below them where it has any."""
    first = mine.iloc[0]
    cells = [method_on(first["method"], first["sets_of"]), str(first["n"])]
    cells += [f"{first['perplexity_full']:.2f}", f"{first['perplexity_quantized']:.2f}"]
    at = [_at(mine, each, count)["perplexity"] for each in columns]
    yield cells + ["" if found.empty else f"{found.iloc[0]:.2f}" for found in at]
    for sets_of, known in paper[paper["method"] == first["method"]].groupby("sets_of", sort=False):
        if (known["kind"] == NONE).all():  # the paper has the set, but did not patch this method
            continue
        values = {(row.kind, row.role, row.layers): row.value for row in known.itertuples()}
        keys = [(NONE, FULL, ""), (NONE, QUANTIZED, ""), *(each[1:] for each in columns)]
        found = [values.get(key, np.nan) for key in keys]
        label = f"{first['method']} in the paper, D_large of {sets_of}"
        yield [label, "", *("" if np.isnan(value) else f"{value:.2f}" for value in found)]


def _share_cells(mine: pd.DataFrame, columns: list[Column], count: int) -> list[str]:
    """Shares of one method."""
    first = mine.iloc[0]
    cells = [method_on(first["method"], first["sets_of"]), str(first["n"])]
    for column in columns:
        rows = _at(mine, column, count)
        if rows.empty:  # not run on this method
            cells.append("")
            continue
        row = rows.iloc[0]
        if np.isnan(row["share"]):
            cells.append(NO_GAP)
        elif np.isnan(row["share_low"]):
            cells.append(f"{row['share']:.2f}")
        else:
            cells.append(number_with_interval(row["share"], row["share_low"], row["share_high"]))
    return cells


def patching_answer(shares: pd.DataFrame, folder: str) -> str:
    """Say for the summary which module output restores most, and what late weights do.

    Args:
        shares: rows of patching.csv.
        folder: of the model's results, for the link.
    """
    run = shares[shares["kind"] != NONE]
    blocks = int(run["last_block"].max())
    count = papers_last(blocks)
    outputs = run[(run["layers"] == UPPER) & run["role"].isin(MODULE_OUTPUTS)]
    parts = [
        "*Which activation undoes the damage?*",
        *(_best_output(outputs, name, blocks) for name in SET_TITLES if len(outputs)),
        _late_weights(run[run["set"] == "large"], count, blocks),
        f"More in [patching.md]({folder}/patching.md).",
    ]
    return " ".join(part for part in parts if part)


def patching_figures(shares: pd.DataFrame) -> dict[str, str]:
    """Files in a model's folder figures/, and what they show."""
    maps = {
        SINGLE: "what one activation in one block alone restores",
        SUFFIX: "the same in a block and all after it",
    }
    return {
        "patching_roles": "what an activation of the upper half restores",
        "patching_last_blocks": "weights of the last blocks in full precision",
    } | {
        f"patching_{layers}": text
        for layers, text in maps.items()
        if layers in set(shares["layers"])
    }


def _best_output(outputs: pd.DataFrame, name: str, blocks: int) -> str:
    """Which module output restores most on a set, and for how many methods that is certain."""
    title = SET_TITLES[name]
    mine = outputs[outputs["set"] == name]
    rows = mine[mine["share_low"].notna()]
    if rows.empty:
        few = mine["n"].max() < MINIMUM_DOCUMENTS
        reason = "it has too few documents" if few else "no rise in NLL is measurable there"
        return f"On {title} nothing can be said: {reason}."
    best = rows.groupby("role", sort=False)["share"].mean().idxmax()
    mine = rows[rows["role"] == best].set_index("method")
    rivals = rows[rows["role"] != best].groupby("method")["share_high"].max()
    certain = int((mine["share_low"] > rivals.reindex(mine.index)).sum())
    how = (
        f"With one module's output in blocks {blocks // 2 + 1} to {blocks} taken from the full "
        f"model, on {title}"
        if name == "large"
        else f"On {title}"
    )
    return (
        f"{how} the {ROLE_NAMES[best]} restores most of the lost log perplexity on average: "
        f"{_ends(mine)}; its interval is above those of all others for {certain} of {len(mine)} "
        "methods."
    )


def _late_weights(large: pd.DataFrame, count: int, blocks: int) -> str:
    """What full-precision weights of the last blocks restore on D_large."""
    last = _at(large, Column("", WEIGHTS, ALL_WEIGHTS, LAST), count)
    rows = last[last["share_low"].notna()].set_index("method")
    if rows.empty:
        return ""
    return (
        f"Full-precision weights in the {name_last(count, blocks)} (the paper: 7 of 40) restore "
        f"{_ends(rows)}."
    )


def _ends(rows: pd.DataFrame) -> str:
    """The smallest and the largest share with their methods; rows have the method as index."""
    ordered = rows.sort_values("share", kind="stable")
    ends = ordered.iloc[[0, -1]] if len(ordered) > 1 else ordered
    return " to ".join(
        f"{number_with_interval(row.share, row.share_low, row.share_high)} ({row.Index})"
        for row in ends.itertuples()
    )
