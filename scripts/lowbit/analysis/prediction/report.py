"""The page about predicting errors, and its verdict on the norm in plain words."""

from collections.abc import Sequence

import pandas as pd

from lowbit.analysis.prediction.feature_sets import ADDED, BASELINE, FEATURE_SETS
from lowbit.analysis.prediction.tables import ADDS, LOWERS, NOT_MEASURED
from lowbit.analysis.tables import MEAN_OF_METHODS
from lowbit.markdown import number, number_with_interval, table

METRIC_NAMES = {
    "r2": "R2 of e(x)",
    "spearman": "Spearman's rho with e(x)",
    "auroc": "AUROC of D_large",
    "average_precision": "average precision of D_large",
}
HEADLINE_METRICS = ("r2", "auroc")
"""Metrics of the verdict: one for the regression, one for the classification."""

NOTE = """\
Features: `norm` is the mean norm of {quantity} in the last layer of the full-precision model,
`norms` those of all quantities and layers, `nll` the full model's NLL and the entropy of its
predictions, `text` six properties of the text (shares of digits, punctuation, upper case and stop
words, type-token ratio, size after compression) and the surprise of a bigram model of the tokens,
`all` everything.

Every document is predicted by a model that was fitted without it: {folds} folds, cut anew
{repeats} times, the mean of the {repeats} predictions; ridge regression for e(x), logistic
regression for D_large against D_ctrl, both with a penalty chosen inside the training folds, on
standardised features. The bigram model, too, is fitted on training folds only. R2: share of the
squared error that is saved compared with the training documents' mean. Brackets: bootstrap
intervals over documents, the fitted models being as they are. Features that say nothing come out
somewhat below chance: what the training folds have too much of, the held-out fold has too little
of.
"""


def norm_verdict(added: pd.DataFrame, what: str = "norm") -> str:
    """Say whether norms add to NLL, entropy and text; the end of a sentence that begins with them.

    Args:
        added: rows of prediction_added.csv.
        what: `norm`, the last layer's, or `norms`, all of them.
    """
    chosen = added[added["added"] == what]
    return " and ".join(
        _metric_verdict(chosen[chosen["metric"] == metric], METRIC_NAMES[metric])
        for metric in HEADLINE_METRICS
    )


def _metric_verdict(rows: pd.DataFrame, name: str) -> str:
    """'adds to the R2 (0.24 to 0.38, difference 0.13 [0.10, 0.17]; 9 of 9 methods up)'."""
    mean = rows[rows["method"] == MEAN_OF_METHODS].iloc[0]
    if pd.isna(mean["difference"]):
        return f"was not measured by the {name} ({_first_reason(rows)})"
    single = rows[(rows["method"] != MEAN_OF_METHODS) & rows["difference"].notna()]["verdict"]
    count = f"{(single == ADDS).sum()} of {len(single)} methods up"
    if (single == LOWERS).any():
        count += f", {(single == LOWERS).sum()} down"
    interval = number_with_interval(mean["difference"], mean["low"], mean["high"])
    verb = LOWERS if mean["verdict"] == LOWERS else f"{mean['verdict']} to"
    return (
        f"{verb} the {name} ({number(mean['without'])} to {number(mean['with'])}, difference "
        f"{interval}; {count})"
    )


def _first_reason(rows: pd.DataFrame) -> str:
    """The reason that the first method without a value gives."""
    notes = rows.loc[rows["method"] != MEAN_OF_METHODS, "note"].fillna("")
    return next((note.removeprefix(NOT_MEASURED) for note in notes if note), "undefined")


def prediction_markdown(
    model: str,
    values: pd.DataFrame,
    added: pd.DataFrame,
    partial: pd.DataFrame,
    folds: int,
    repeats: int,
) -> str:
    """Write the page: verdict, means by feature set, what the norm adds by method, not measured.

    Args:
        values, added, partial: rows of prediction.csv, prediction_added.csv,
            partial_correlation.csv.
    """
    quantity = partial["quantity"].iloc[0]
    parts = [
        f"# Predicting errors of {model} before quantizing\n",
        f"**Does the last layer's norm({quantity}) add to NLL, entropy and text?** Mean of "
        f"methods: it {norm_verdict(added)}.\n",
        f"The block of all norms of all layers {norm_verdict(added, 'norms')}.\n",
        _partial_sentence(partial) + "\n",
        NOTE.format(quantity=quantity, folds=folds, repeats=repeats),
        "## By features, mean of methods\n",
        _means_table(values),
        f"## What the norm adds to `{BASELINE}`, by method\n",
        "Difference of the metric with and without the last layer's norm; 'adds' and 'lowers' "
        "where the whole interval is on one side of 0.\n",
        _added_table(added),
        "## Norm and error where the full model's NLL is held fixed\n",
        _partial_table(partial),
        _not_measured(values),
    ]
    return "\n".join(part for part in parts if part)


def _partial_sentence(partial: pd.DataFrame) -> str:
    """Say the correlation of norm and error with and without NLL held fixed."""
    mean = partial[partial["method"] == MEAN_OF_METHODS].iloc[0]
    interval = number_with_interval(mean["partial"], mean["low"], mean["high"])
    return (
        f"Correlation of norm({mean['quantity']}) with e(x), mean of methods: "
        f"{number(mean['pearson'])}; with the full model's NLL held fixed {interval}."
    )


def _means_table(values: pd.DataFrame) -> str:
    """Feature sets by metrics."""
    mean = values[values["method"] == MEAN_OF_METHODS].set_index(["features", "metric"])
    rows = []
    for features in FEATURE_SETS:
        chosen = [mean.loc[(features, metric)] for metric in METRIC_NAMES]
        rows.append([f"`{features}`", *(_cell(row.value, row.low, row.high) for row in chosen)])
    chance = [mean.loc[("all", metric), "chance"] for metric in METRIC_NAMES]
    rows.append(["by chance", *(number(value) if pd.notna(value) else "-" for value in chance)])
    return table(["features", *METRIC_NAMES.values()], rows)


def _added_table(added: pd.DataFrame) -> str:
    """Methods by the verdict's metrics."""
    norm = added[added["added"] == next(iter(ADDED))]
    rows = []
    for method in dict.fromkeys(norm["method"]):
        cells = [method]
        for metric in HEADLINE_METRICS:
            (row,) = norm[(norm["method"] == method) & (norm["metric"] == metric)].itertuples()
            cells += [_cell(row.difference, row.low, row.high), row.verdict or "-"]
        rows.append(cells)
    header = ["method"]
    for metric in HEADLINE_METRICS:
        header += [f"difference of {METRIC_NAMES[metric]}", "the norm"]
    return table(header, rows)


def _partial_table(partial: pd.DataFrame) -> str:
    """Methods by plain and partial correlation."""
    rows = [
        [row.method, number(row.pearson), _cell(row.partial, row.low, row.high), str(row.n)]
        for row in partial.itertuples()
    ]
    return table(["method", "r", "r with NLL held fixed", "n"], rows)


def _cell(value: float, low: float, high: float) -> str:
    """A number with its interval, or '-'."""
    return number_with_interval(value, low, high) or "-"


def _not_measured(values: pd.DataFrame) -> str:
    """List what was not measured and why; empty where everything was."""
    missing = values[(values["method"] != MEAN_OF_METHODS) & (values["note"] != "")]
    lines = [
        f"- {_listed(rows['method'])}, {METRIC_NAMES[metric]}: {note}"
        for (metric, note), rows in missing.groupby(["metric", "note"], sort=False)
    ]
    return "## Not measured\n\n" + "\n".join(lines) + "\n" if lines else ""


def _listed(names: Sequence[str]) -> str:
    """Different names, in order, with commas."""
    return ", ".join(dict.fromkeys(names))
