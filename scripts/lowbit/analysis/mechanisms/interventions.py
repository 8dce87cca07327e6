"""Does a small residual norm make an input break? Errors before and after the norm is changed.

The inputs paper (arXiv 2506.12044, claim 2) finds that a small norm(r) goes with a large error. If
it is the cause, then shrinking r raises the error of documents that do not break (D_ctrl), and
enlarging it lowers the error of those that do (D_large). Two things look alike and are none of it:
any change of the model may move errors, so the sham is subtracted; and D_large was chosen for its
errors, which any disturbance brings nearer to the mean, whichever way r is scaled, so each factor
is also set against its inverse, and so is the swap of norms between D_large and D_ctrl.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lowbit.analysis.statistics import (
    BootstrapSettings,
    mean_draws,
    resample_counts,
    summarise_set,
)
from lowbit.experiments.intervention_conditions import (
    ALL,
    INVERSE,
    SCALE,
    SHAM_OF,
    SWAP,
    SWAP_INVERSE,
    SWAPS,
)
from lowbit.names import CONTROL, LARGE

GAP = "gap"
"""In place of a set: D_large less D_ctrl."""

MEASURES = ("error_unedited", "error_edited", "nll_full_unedited", "nll_full_edited")
COLUMNS = [
    "method",
    "condition",
    "layers",
    "factor",
    "set",
    "n",
    "error_unedited",
    "error_edited",
    "difference",
    "low",
    "high",
    "beyond_sham",
    "beyond_sham_low",
    "beyond_sham_high",
    "against_inverse",
    "against_inverse_low",
    "against_inverse_high",
    "nll_full_change",
    "nll_full_change_low",
    "nll_full_change_high",
    "per_full_change",
    "note",
]

Key = tuple[str, str, float | None]
"""Condition, layers and factor (None: every document has its own, or there is none)."""


def intervention_table(
    scores: pd.DataFrame,
    left_out: Mapping[str, Mapping[str, str]],
    doc_ids: np.ndarray,
    settings: BootstrapSettings,
    seed: int,
) -> pd.DataFrame:
    """One row per method, set and intervention (`COLUMNS`), nats per token.

    `difference`: of the mean error, by the intervention. `beyond_sham`: that less the sham's.
    `against_inverse`: the error less that under the inverse factor or swap. `nll_full_change`: of
    the full-precision model's NLL. `per_full_change`: difference over the size of that change, nan
    where its interval includes 0. Swaps have one more row, set `gap`: the mean error of D_large
    less that of D_ctrl. A condition that is left out has one row with a note. Of fewer than
    `MINIMUM_DOCUMENTS` in a set there are no intervals.

    Args:
        scores: method, condition, layers, factor, norm_ratio, set, doc_id, partner, nll_full, nll,
            nll_full_edited, nll_edited.
        left_out: by method, why conditions are not there.
        doc_ids: all documents of the study, for resamples that are paired with other tables'.
    """
    counts = resample_counts(len(doc_ids), settings, seed)
    rows = []
    for method, of_method in scores.groupby("method", sort=False):
        draws = {
            name: _draws_by_key(mine, doc_ids, counts)
            for name, mine in of_method.groupby("set", sort=False)
        }
        draws[GAP] = _gaps(draws[LARGE], draws[CONTROL])
        for name, of_set in draws.items():
            rows += [
                {"method": method, "set": name}
                | _row(key, of_set, settings.confidence, _fewest(key, of_method, name))
                | _described(key, of_method, name)
                for key in of_set
                if name != GAP or key[0] in (SWAP, SWAP_INVERSE)
            ]
    for method, reasons in left_out.items():
        for condition, reason in reasons.items():
            note = f"left out: {reason}"
            rows.append({"method": method, "condition": condition, "n": 0, "note": note})
    return pd.DataFrame(rows, columns=COLUMNS)


def _draws_by_key(
    mine: pd.DataFrame, doc_ids: np.ndarray, counts: np.ndarray
) -> dict[Key, dict[str, np.ndarray]]:
    """Draws [1 + R] of every measure's mean, for each intervention on one method's set."""
    mine = mine.assign(
        error_unedited=mine["nll"] - mine["nll_full"],
        error_edited=mine["nll_edited"] - mine["nll_full_edited"],
        nll_full_unedited=mine["nll_full"],
    )
    found = {}
    for (condition, layers, factor), each in mine.groupby(
        ["condition", "layers", "factor"], sort=False, dropna=False
    ):
        values = each.set_index("doc_id")[list(MEASURES)].reindex(doc_ids).to_numpy(float)
        draws = mean_draws(values, np.isin(doc_ids, each["doc_id"]), counts)
        key = condition, layers, None if np.isnan(factor) else float(factor)
        found[key] = dict(zip(MEASURES, draws.T, strict=True))
    return found


def _gaps(
    large: Mapping[Key, Mapping[str, np.ndarray]], control: Mapping[Key, Mapping[str, np.ndarray]]
) -> dict[Key, dict[str, np.ndarray]]:
    """Draws of swaps in D_large less those in D_ctrl."""
    return {
        key: {name: large[key][name] - control[key][name] for name in MEASURES}
        for key in large
        if key[0] in SWAPS
    }


def _row(
    key: Key, draws: Mapping[Key, Mapping[str, np.ndarray]], confidence: float, n: int
) -> dict:
    """The numbers of one intervention on `n` documents."""
    condition, layers, factor = key
    mine = draws[key]
    changes = {k: each["error_edited"] - each["error_unedited"] for k, each in draws.items()}
    full = mine["nll_full_edited"] - mine["nll_full_unedited"]
    row = {"condition": condition, "layers": layers, "factor": factor}
    row |= {name: mine[name][0] for name in ("error_unedited", "error_edited")}
    row |= _estimate("difference", changes[key], confidence, n)
    row |= _estimate("nll_full_change", full, confidence, n)
    row["low"], row["high"] = row.pop("difference_low"), row.pop("difference_high")
    sham = SHAM_OF.get(condition), ALL if condition == SCALE else layers, factor
    if sham in draws:
        row |= _estimate("beyond_sham", changes[key] - changes[sham], confidence, n)
    if condition in (SCALE, SWAP):
        inverse = SCALE if condition == SCALE else SWAP_INVERSE, layers, INVERSE.get(factor)
        against = mine["error_edited"] - draws[inverse]["error_edited"]
        row |= _estimate("against_inverse", against, confidence, n)
    changed = row["nll_full_change_low"] > 0 or row["nll_full_change_high"] < 0
    if changed and condition not in SHAM_OF.values():
        row["per_full_change"] = row["difference"] / abs(row["nll_full_change"])
    return row


def _estimate(name: str, draws: np.ndarray, confidence: float, n: int) -> dict[str, float]:
    numbers = (float(number) for number in summarise_set(draws, confidence, n))
    return dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))


def _of_key(key: Key, of_method: pd.DataFrame) -> pd.DataFrame:
    """Rows of one intervention."""
    condition, layers, factor = key
    chosen = (of_method["condition"] == condition) & (of_method["layers"] == layers)
    chosen &= of_method["factor"].isna() if factor is None else of_method["factor"] == factor
    return of_method[chosen]


def _fewest(key: Key, of_method: pd.DataFrame, name: str) -> int:
    """Number of documents of a set, of the gap that of the smaller set."""
    sizes = _of_key(key, of_method)["set"].value_counts()
    return int(sizes.min() if name == GAP else sizes[name])


def _described(key: Key, of_method: pd.DataFrame, name: str) -> dict:
    """Number of documents, and for swaps how much norms change and how alike partners are."""
    each, condition = _of_key(key, of_method), key[0]
    if name == GAP:
        return {"n": len(each), "note": "D_large less D_ctrl"}
    of_set = each[each["set"] == name]
    if condition not in (SWAP, SWAP_INVERSE):
        return {"n": len(of_set)}
    nll = each.set_index("doc_id")["nll_full"]
    apart = np.abs(of_set["nll_full"].to_numpy() - nll.loc[of_set["partner"]].to_numpy()).mean()
    few, most = of_set["norm_ratio"].quantile([0.05, 0.95])
    return {
        "n": len(of_set),
        "note": f"norm(r) times {of_set['norm_ratio'].mean():.3f} on average ({few:.3f} to "
        f"{most:.3f}, 5th to 95th percentile); NLL of partners {apart:.3f} nats apart",
    }
