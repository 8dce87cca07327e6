"""Errors per document, and the documents a method breaks (D_large) beside a control set (D_ctrl).

Inputs paper (arXiv 2506.12044): e(x) = NLL(x; quantized) - NLL(x; full precision), signed, the NLL
a mean over the predicted tokens. D_large holds the top 10 % by e(x) without near-duplicates; D_ctrl
is a random draw, as large as D_large was, from the half with the smallest e(x).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from lowbit.analysis.statistics import expected_jaccard
from lowbit.analysis.tables import document_ids
from lowbit.errors import InputError
from lowbit.inputs.near_duplicates import drop_near_duplicates
from lowbit.names import FULL, SETS

SET_NAMES = (*SETS, "duplicate")


@dataclass(frozen=True)
class ErrorSettings:
    """The config's `errors`: set sizes as fractions of all documents, and the duplicate rule."""

    large_fraction: float = 0.1
    control_fraction: float = 0.5
    duplicate_ngram: int = 5
    duplicate_jaccard: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.large_fraction <= self.control_fraction <= 1 - self.large_fraction:
            raise InputError(
                f"errors.large_fraction is {self.large_fraction} and errors.control_fraction is "
                f"{self.control_fraction}: the control documents are drawn from the bottom "
                "fraction, which must be at least as large as the top one and must not overlap "
                "it; the paper uses 0.1 and 0.5"
            )


@dataclass(frozen=True)
class DocumentSets:
    """Row indices of the documents in each set, in the order they were chosen."""

    large: np.ndarray
    control: np.ndarray
    duplicate: np.ndarray


def error_table(scores: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Join the scores of `full` and every method into one long table of errors.

    Args:
        scores: per method a table with doc_id, nll, kl, top1_flip_rate; `full`, which has its
            entropy too, among them. All hold the same documents in the same order.

    Returns:
        doc_id, method, error, kl, top1_flip_rate, nll_full, entropy_full, nll; methods in the order
        given.

    Raises:
        InputError: without `full`, for different documents, or for a value that is not finite.
    """
    if FULL not in scores:
        raise InputError(f"the scores have no '{FULL}' entry, only {list(scores)}: score it first")
    full = scores[FULL]
    parts = [_method_errors(name, table, full) for name, table in scores.items() if name != FULL]
    if not parts:
        raise InputError("no method was scored: add one under methods: in the config")
    return pd.concat(parts, ignore_index=True)


def _method_errors(name: str, table: pd.DataFrame, full: pd.DataFrame) -> pd.DataFrame:
    """Errors of one method; see `error_table`."""
    if not table["doc_id"].equals(full["doc_id"]):
        raise InputError(
            f"the scores of '{name}' and of '{FULL}' are of different documents: "
            "delete both score files and score again"
        )
    for column, values in (("nll", table["nll"]), ("kl", table["kl"]), ("nll", full["nll"])):
        if not np.isfinite(values).all():
            document = table["doc_id"][~np.isfinite(values)].iloc[0]
            raise InputError(
                f"{column} of document '{document}' under '{name}' is not a finite number: "
                "the quantized weights overflow; use engine.dtype float32 or remove the method"
            )
    return pd.DataFrame(
        {
            "doc_id": table["doc_id"],
            "method": name,
            "error": table["nll"] - full["nll"],
            "kl": table["kl"],
            "top1_flip_rate": table["top1_flip_rate"],
            "nll_full": full["nll"],
            "entropy_full": full["entropy"],
            "nll": table["nll"],
        }
    )


def require_documents_of(errors: pd.DataFrame, doc_ids: Sequence[str]) -> None:
    """Raise `InputError` unless the errors are of the token table's documents, in its order."""
    if list(document_ids(errors)) != list(doc_ids):
        raise InputError(
            f"the scores are of {errors['doc_id'].nunique()} documents that are not the "
            f"{len(doc_ids)} of the token table: score again from these tokens"
        )


def perplexity_table(errors: pd.DataFrame) -> pd.DataFrame:
    """Perplexity over all documents, exp(mean NLL), of `full` and of every method.

    All documents have the same number of predicted tokens, so the mean over documents is the mean
    over tokens. `mean_error` is in nats per token: log(perplexity / perplexity of `full`).
    """
    first = errors[errors["method"] == errors["method"].iloc[0]]
    reference = first.assign(method=FULL, error=0.0, kl=0.0, top1_flip_rate=0.0, nll=first.nll_full)
    groups = pd.concat([reference, errors]).groupby("method", sort=False)
    means = groups[["nll", "error", "kl", "top1_flip_rate"]].mean()
    return pd.DataFrame(
        {
            "method": means.index,
            "perplexity": np.exp(means["nll"].to_numpy()),
            "mean_nll": means["nll"].to_numpy(),
            "mean_error": means["error"].to_numpy(),
            "mean_kl": means["kl"].to_numpy(),
            "top1_flip_rate": means["top1_flip_rate"].to_numpy(),
            "n": groups.size().to_numpy(),
        }
    )


def choose_sets(
    error: np.ndarray, tokens: np.ndarray, settings: ErrorSettings, seed: int, method: str
) -> DocumentSets:
    """Choose D_large and D_ctrl of one method.

    D_large: the `large_fraction` with the largest error, walked from the largest down; a document
    whose token n-grams have a Jaccard index above the threshold with one already kept is dropped
    and not replaced. D_ctrl: as many as D_large had before dropping, drawn from the
    `control_fraction` with the smallest error; seeded by study and method, so that another method
    in the study changes no draw. Equal errors keep the documents' order.

    Args:
        error: e(x) [documents].
        tokens: token ids [documents, length].
    """
    count = round(settings.large_fraction * len(error))
    pool_size = round(settings.control_fraction * len(error))
    if count < 1 or pool_size < count:
        raise InputError(
            f"{len(error)} documents are too few: errors.large_fraction "
            f"{settings.large_fraction} of them is {count} and errors.control_fraction "
            f"{settings.control_fraction} is {pool_size}; raise documents.n"
        )
    if np.ptp(error) == 0:
        raise InputError(
            f"the error of '{method}' is {error[0]:g} for all {len(error)} documents, so none is "
            f"larger than another: check methods.{method} (does it quantize anything?)"
        )
    order = np.argsort(-error, kind="stable")
    kept, dropped = drop_near_duplicates(
        order[:count], tokens, settings.duplicate_ngram, settings.duplicate_jaccard
    )
    rng = np.random.default_rng([seed, *method.encode()])
    control = rng.choice(order[len(order) - pool_size :], size=count, replace=False)
    return DocumentSets(np.asarray(kept, int), control, np.asarray(dropped, int))


def sets_table(doc_ids: Sequence[str], sets: Mapping[str, DocumentSets]) -> pd.DataFrame:
    """List every method's sets: doc_id, method, set (large, control or duplicate)."""
    rows = [
        (doc_ids[index], method, name)
        for method, chosen in sets.items()
        for name in SET_NAMES
        for index in getattr(chosen, name)
    ]
    return pd.DataFrame(rows, columns=["doc_id", "method", "set"])


def overlap_table(sets: Mapping[str, DocumentSets], n: int) -> pd.DataFrame:
    """Jaccard index of D_large between every two methods, beside the one random sets would have."""
    rows = []
    for a, b in combinations(sets, 2):
        large_a, large_b = set(sets[a].large.tolist()), set(sets[b].large.tolist())
        rows.append(
            {
                "method_a": a,
                "method_b": b,
                "jaccard": len(large_a & large_b) / len(large_a | large_b),
                "n_a": len(large_a),
                "n_b": len(large_b),
                "chance": expected_jaccard(len(large_a), len(large_b), n),
            }
        )
    columns = ["method_a", "method_b", "jaccard", "n_a", "n_b", "chance"]
    return pd.DataFrame(rows, columns=columns)
