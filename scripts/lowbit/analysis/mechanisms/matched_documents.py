"""Documents of D_large, each beside one of D_ctrl that is as hard for the full-precision model.

D_large has another NLL under the full-precision model than D_ctrl (inputs paper: a much lower one).
Pairs of equal NLL take that difference out: what is then swapped between them is the norm alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from lowbit.analysis.tables import membership, norms_by_document
from lowbit.errors import InputError
from lowbit.names import SETS


@dataclass(frozen=True)
class MatchedDocuments:
    """The documents of one method's sets, D_large first."""

    rows: np.ndarray
    """Row of each in the token table, int [documents]."""
    doc_ids: np.ndarray
    sets: np.ndarray
    """`large` or `control`, [documents]."""
    partners: np.ndarray
    """Place (in these arrays) of the partner in the other set, its own where there is none."""
    norms: np.ndarray | None
    """norm(x; r(l)) of the full-precision model [documents, layers]; None: it has no r."""


def choose_documents(
    method: str,
    doc_ids: Sequence[str],
    errors: pd.DataFrame,
    sets: pd.DataFrame,
    residuals: pd.DataFrame,
) -> MatchedDocuments:
    """Choose a method's D_large and D_ctrl and match them.

    Args:
        doc_ids: of the token table, in its order.
        errors: doc_id, method, nll_full.
        sets: doc_id, method, set.
        residuals: doc_id, layer, r (where the architecture has it).

    Raises:
        InputError: the table of sets has no documents of the method.
    """
    ids = np.array(doc_ids)
    members = [membership(sets, method, name, ids).nonzero()[0] for name in SETS]
    if not all(map(len, members)):
        raise InputError(
            f"the table of sets has no D_large or no D_ctrl of '{method}': compute the errors again"
        )
    rows = np.concatenate(members)
    nll = errors[errors["method"] == method].set_index("doc_id")["nll_full"].loc[ids[rows]]
    norms = None
    if "r" in residuals:
        norms = norms_by_document(residuals, ids[rows], ["r"])[0][:, 0]
    sizes = [len(each) for each in members]
    partners = match(nll.to_numpy(float), sizes[0])
    return MatchedDocuments(rows, ids[rows], np.repeat(SETS, sizes), partners, norms)


def match(nll: np.ndarray, large: int) -> np.ndarray:
    """Pair documents one to one so that the differences in NLL add up to the least.

    Args:
        nll: [documents], the first `large` of them D_large, the others D_ctrl.

    Returns:
        Place of each document's partner, its own where the other set is too small, int [documents].
    """
    left, right = linear_sum_assignment(np.abs(nll[:large, None] - nll[None, large:]))
    partners = np.arange(len(nll))
    partners[left], partners[large + right] = large + right, left
    return partners
