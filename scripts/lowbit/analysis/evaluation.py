"""What methods lose on evaluation sets: perplexity of texts, accuracy for last words.

Intervals come from resampling rows (windows of a text, items of a task), the same resamples for all
methods of a set, so that differences to the full-precision model are paired.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from lowbit.analysis.statistics import (
    MINIMUM_DOCUMENTS,
    BootstrapSettings,
    resample_counts,
    summarise,
)
from lowbit.errors import InputError
from lowbit.inputs.evaluation import LAST_WORD
from lowbit.markdown import table as markdown_table
from lowbit.names import FULL

PERPLEXITY, ACCURACY, WORD_PERPLEXITY = "perplexity", "accuracy", "word_perplexity"
"""exp(mean NLL per token) of a text; share of items whose last word greedy decoding gives; exp(mean
NLL of a whole last word)."""

COLUMNS = [
    "set",
    "kind",
    "measure",
    "method",
    "value",
    "low",
    "high",
    "difference",
    "difference_low",
    "difference_high",
    "n",
    "tokens",
    "length",
    "whole",
]


def measure_draws(scores: pd.DataFrame, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Measures of one method (or perturbation) on one set in every resample -> draws [1 + R].

    Args:
        scores: kind, nll (sum over a row's tokens, nats), tokens, correct; one row per window or
            item.
        counts: how often each resample holds each row, [1 + R, rows].

    Raises:
        InputError: an NLL is not a finite number.
    """
    nll = scores["nll"].to_numpy(float)
    if not np.isfinite(nll).all():
        row = scores.loc[~np.isfinite(nll), "row"].iloc[0]
        raise InputError(
            f"the NLL of row {row} is not a finite number: the quantized weights overflow; use "
            "engine.dtype float32 or remove the method"
        )
    if (scores["kind"] != LAST_WORD).any():
        return {PERPLEXITY: np.exp((counts @ nll) / (counts @ scores["tokens"].to_numpy(float)))}
    items = counts.sum(axis=1)
    return {
        ACCURACY: (counts @ scores["correct"].to_numpy(float)) / items,
        WORD_PERPLEXITY: np.exp((counts @ nll) / items),
    }


def evaluation_table(
    scores: pd.DataFrame,
    records: Mapping[str, Mapping[str, Any]],
    settings: BootstrapSettings,
    seed: int,
) -> pd.DataFrame:
    """One row per set, measure and method, `full` first (`COLUMNS`).

    `difference`: from the full-precision model. `n`: windows or items; `tokens` scored in them;
    `length`: of a window; `whole`: whether they are all that the source has.

    Args:
        scores: set, kind, method, row, nll, tokens, correct.
        records: by set what its rows are (rows.json).

    Raises:
        InputError: an NLL is not a finite number.
    """
    rows = []
    for name, of_set in scores.groupby("set", sort=False):
        record = records[str(name)]
        by_method = dict(iter(of_set.groupby("method", sort=False)))
        counts = resample_counts(len(by_method[FULL]), settings, seed)
        draws = {method: _draws(method, mine, counts) for method, mine in by_method.items()}
        common = {
            "set": name,
            "kind": record["kind"],
            "n": counts.shape[1],
            "tokens": int(by_method[FULL]["tokens"].sum()),
            "length": record.get("length"),
            "whole": record["whole"],
        }
        for measure in draws[FULL]:
            for method, mine in draws.items():
                row = common | {"measure": measure, "method": method}
                rows.append(row | _estimates(mine[measure], draws[FULL][measure], settings, method))
    frame = pd.DataFrame(rows, columns=COLUMNS)
    few = frame["n"] < MINIMUM_DOCUMENTS  # an interval of these would say more than they can
    frame.loc[few, ["low", "high", "difference_low", "difference_high"]] = np.nan
    return frame.astype({"length": "Int64"})


def _draws(method: str, scores: pd.DataFrame, counts: np.ndarray) -> dict[str, np.ndarray]:
    """Draws of one method's measures; an error says whose they are."""
    try:
        return measure_draws(scores, counts)
    except InputError as error:
        raise InputError(f"'{method}' on '{scores['set'].iloc[0]}': {error}") from None


def _estimates(
    draws: np.ndarray, full: np.ndarray, settings: BootstrapSettings, method: str
) -> dict[str, float]:
    """Value and difference from `full`, with intervals; `full` has no difference from itself."""
    found = {}
    names = ("value", "low", "high"), ("difference", "difference_low", "difference_high")
    for columns, each in zip(names, (draws, draws - full), strict=True):
        found |= dict(zip(columns, map(float, summarise(each, settings.confidence)), strict=True))
    return found if method != FULL else {name: found[name] for name in names[0]}


def evaluation_answer(table: pd.DataFrame, folder: str) -> str:
    """Say for the summary what is lost on every set, from the least to the most.

    Args:
        table: rows of evaluation.csv.
        folder: of the model's results, for the link.
    """
    parts = []
    for (name, measure), rows in table.groupby(["set", "measure"], sort=False):
        if measure == WORD_PERPLEXITY:
            continue
        full = rows.loc[rows["method"] == FULL, "value"].iloc[0]
        others = rows[rows["method"] != FULL]
        order = others.sort_values("value", ascending=measure != ACCURACY, kind="stable")
        best, worst = (
            f"{_shown(row)} ({row['method']})" for _, row in order.iloc[[0, -1]].iterrows()
        )
        parts.append(
            f"{name}: {measure} {_number(full, measure)} in full precision, {best} at best, "
            f"{worst} at worst"
        )
    return (
        "*What is lost on evaluation sets?* " + "; ".join(parts) + ". All methods: "
        f"[evaluation.csv]({folder}/evaluation.csv)."
    )


def evaluation_markdown(table: pd.DataFrame) -> str:
    """Show a table of all methods and sets for the summary.

    Args:
        table: rows of evaluation.csv.
    """
    shown = table[table["measure"] != WORD_PERPLEXITY]
    sets = list(dict.fromkeys(zip(shown["set"], shown["measure"], strict=True)))
    cells = {(row["method"], row["set"]): _shown(row) for _, row in shown.iterrows()}
    rows = [
        [method, *(cells[method, name] for name, _ in sets)] for method in shown["method"].unique()
    ]
    return markdown_table(["method", *(f"{name}: {measure}" for name, measure in sets)], rows)


def _shown(row: pd.Series) -> str:
    """'23.10 [22.40, 23.90]', or the value alone where it has no interval."""
    value, low, high = (_number(row[name], row["measure"]) for name in ("value", "low", "high"))
    return value if np.isnan(row["low"]) else f"{value} [{low}, {high}]"


def _number(value: float, measure: str) -> str:
    """A perplexity with two decimals, an accuracy in per cent with one."""
    return f"{100 * value:.1f} %" if measure == ACCURACY else f"{value:.2f}"
