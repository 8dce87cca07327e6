"""Patching of a synthetic study with known shares, as patch.py writes it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lowbit.engine.roles import ROLES
from lowbit.experiments.conditions import (
    ALL_WEIGHTS,
    GATE_INPUT,
    GATE_PROJECTION,
    LAST,
    NONE,
    UPPER,
    list_conditions,
)

BLOCKS = 6
SHARES = {
    "mlp_down": 0.9,
    "mlp_gate": 0.7,
    "mlp_up": -0.2,
    "attn_out": 0.25,
    "mlp_in": 0.8,
    "residual_mid": 0.95,
    "residual_out": 1.0,
    "mlp_out": 0.85,
    GATE_INPUT: 0.65,
    GATE_PROJECTION: 0.05,
}
"""Share that each condition of the upper half restores; patched elsewhere, a BLOCKS-th of it."""


def make_patching(
    errors: pd.DataFrame,
    sets: pd.DataFrame,
    methods: Sequence[str],
    patch: Sequence[str] = (UPPER,),
    shares: Mapping[str, float] = SHARES,
    absent: Sequence[str] = (),
    scales_unknown: Sequence[str] = (),
    sets_of: str | None = None,
    blocks: int = BLOCKS,
) -> pd.DataFrame:
    """Rows of patching.parquet.

    A document's share is the known one times 0.8 to 1.2, the same for all conditions; weights of
    the last k blocks restore (k / blocks) squared of the damage.

    Args:
        errors: doc_id, method, nll_full, nll.
        absent: roles that the architecture does not have.
        scales_unknown: methods whose moved scales nobody knows.
        sets_of: whose sets all methods are patched on; their own if left out.
    """
    rng = np.random.default_rng(5)
    parts = []
    for method in methods:
        chosen = sets[(sets["method"] == (sets_of or method)) & (sets["set"] != "duplicate")]
        documents = chosen[["doc_id", "set"]].merge(errors[errors["method"] == method], on="doc_id")
        spread = rng.uniform(0.8, 1.2, len(documents))
        for condition in list_conditions(blocks, patch, absent):
            count = condition.last - condition.first + 1
            share = shares.get(condition.role, (count / blocks) ** 2)
            if condition.layers not in (UPPER, LAST):
                share /= blocks
            exact = condition.role == "residual_out" or count == blocks
            restored = share * (1 if exact else spread) * (documents["nll"] - documents["nll_full"])
            rows = pd.DataFrame(
                {
                    "method": method,
                    "sets_of": sets_of or method,
                    "set": documents["set"],
                    "doc_id": documents["doc_id"],
                    "kind": condition.kind,
                    "role": condition.role,
                    "layers": condition.layers,
                    "first_block": condition.first + 1,
                    "last_block": condition.last + 1,
                    "nll": documents["nll"] - restored,
                    "nll_full": documents["nll_full"],
                    "nll_quantized": documents["nll"],
                    "note": "",
                }
            )
            note = condition.left_out(set(ROLES) - set(absent), method in scales_unknown)
            if note:
                rows = rows.drop_duplicates("set")
                rows = rows.assign(kind=NONE, doc_id=None, note=note)
                rows[["nll", "nll_full", "nll_quantized"]] = np.nan
            parts.append(rows)
    assert shares.keys() & {ALL_WEIGHTS} == set()
    return pd.concat(parts, ignore_index=True)
