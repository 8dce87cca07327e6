"""Statistics of the claims about patching: shares restored, and perplexities after patching.

The option `condition` (and `other`) names one by `kind` and `role`; its blocks are the upper half,
or for `all` weights the paper's share of last blocks (7 of 40). With a mixture of experts, what
they give together (`mlp_out`) stands for `mlp_down`. Shares are means over methods, on the D_large
that each was patched on.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lowbit.analysis.mechanisms.patching import NO_GAP, PatchedSet, patched_sets
from lowbit.analysis.statistics import MINIMUM_DOCUMENTS
from lowbit.claims.results import Measurement, ModelResults, NotMeasured, on_other_sets
from lowbit.experiments.conditions import (
    ALL_WEIGHTS,
    LAST,
    MLP_DOWN,
    MLP_OUT,
    NONE,
    PATCH,
    UPPER,
    name_last,
    papers_last,
)

TABLE = "patching"
"""Name of the stage's table: patching.parquet."""


def share_restored(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Share of the rise in log perplexity on D_large that one condition removes."""
    condition = options["condition"]
    patched = _with_gap(results, names, condition)
    draws = _share_draws(results, patched, condition)
    return _measured(results, draws, patched, _blocks_detail(patched[0], condition))


def share_gap(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Share that `condition` removes less the share that `other` removes, on D_large."""
    conditions = options["condition"], options["other"]
    patched = _with_gap(results, names, *conditions)
    sides = [_share_draws(results, patched, each) for each in conditions]
    first, second = (side[0].mean() for side in sides)
    detail = f"shares {first:.2f} and {second:.2f}"
    return _measured(results, sides[0] - sides[1], patched, detail)


def patched_perplexity(results: ModelResults, names: Sequence[str], options: dict) -> Measurement:
    """Perplexity on D_large of the first method of the second, under one condition."""
    sets_of, method = names
    (patched,) = _large(results, [method])
    if patched.sets_of != sets_of:
        raise on_other_sets(f"{method} was patched", patched.sets_of, sets_of)
    place = _place(results, patched, options["condition"])
    draws = patched.perplexity_draws["perplexity"][:, place]
    return results.measure(draws, names, n=patched.n)


def _large(results: ModelResults, names: Sequence[str]) -> list[PatchedSet]:
    """The D_large of those of the methods that were patched, large enough for an interval."""
    rows = results.table(TABLE)
    known = rows[(rows["set"] == "large") & rows["method"].isin(names)]
    found = list(patched_sets(known, results.doc_ids, results.counts))
    if not found:
        raise NotMeasured(
            f"none of these methods was patched: {', '.join(names)}. Name one of them in "
            "mechanisms.methods"
        )
    for each in found:
        if each.n < MINIMUM_DOCUMENTS:
            raise NotMeasured(
                f"{each.n} documents in the D_large of {each.sets_of} are too few: raise "
                "documents.n"
            )
    return found


def _with_gap(
    results: ModelResults, names: Sequence[str], *conditions: Mapping[str, Any]
) -> list[PatchedSet]:
    """The same, of the methods that lose something on it; `NotMeasured` if none does.

    Those that were not run under all of the conditions are left out, unless none was: `_place` then
    says why.
    """
    found = _large(results, names)
    kept = [each for each in found if each.has_gap(results.settings.confidence)]
    if not kept:
        raise NotMeasured(f"{NO_GAP} on D_large")
    run = [each for each in kept if None not in [_find(each, one) for one in conditions]]
    return run or kept


def _share_draws(
    results: ModelResults, patched: Sequence[PatchedSet], condition: Mapping[str, Any]
) -> np.ndarray:
    """Share that a condition removes of each method's gap -> draws [1 + R, methods]."""
    columns = [each.share_draws[:, _place(results, each, condition)] for each in patched]
    return np.stack(columns, axis=1)


def _place(results: ModelResults, patched: PatchedSet, condition: Mapping[str, Any]) -> int:
    """Column of a condition; `NotMeasured` if it was not run."""
    place, role = _find(patched, condition), condition["role"]
    if place is not None:
        return place
    rows = results.table(TABLE)
    absent = rows[
        (rows["kind"] == NONE)
        & (rows["method"] == patched.method)
        & (rows["role"] == role)
        & (rows["layers"] == _layers(role))
    ]
    if len(absent):
        raise NotMeasured(absent["note"].iloc[0])
    raise NotMeasured(f"{role} was not patched: write {UPPER} among mechanisms.patch")


def _find(patched: PatchedSet, condition: Mapping[str, Any]) -> int | None:
    """Column of a condition, None if there is none."""
    kind, role = condition["kind"], condition["role"]
    last = _last(patched) if role == ALL_WEIGHTS else None
    place = patched.place(kind, role, _layers(role), last)
    if place is None and role == MLP_DOWN:
        place = patched.place(kind, MLP_OUT, _layers(role))
    return place


def _layers(role: str) -> str:
    return LAST if role == ALL_WEIGHTS else UPPER


def _last(patched: PatchedSet) -> int:
    """How many last blocks the paper's claim is about, in a model of this depth."""
    return papers_last(int(patched.conditions["last_block"].max()))


def _blocks_detail(patched: PatchedSet, condition: Mapping[str, Any]) -> str:
    """Say what of a condition the model decides: how many last blocks, or what is patched."""
    if condition["role"] == MLP_DOWN and patched.place(PATCH, MLP_DOWN, UPPER) is None:
        return f"{MLP_OUT} in place of {MLP_DOWN}"
    if condition["role"] != ALL_WEIGHTS:
        return ""
    return name_last(_last(patched), int(patched.conditions["last_block"].max()))


def _measured(
    results: ModelResults, draws: np.ndarray, patched: Sequence[PatchedSet], detail: str
) -> Measurement:
    """Mean of draws [1 + R, methods] over methods, with their spread."""
    values = draws[0]
    if len(values) > 1:
        spread = f"{len(values)} methods: {values.min():.2f} to {values.max():.2f}"
        detail = "; ".join(part for part in (detail, spread) if part)
    names = [each.method for each in patched]
    return results.measure(draws.mean(axis=1), names, detail, min(each.n for each in patched))
