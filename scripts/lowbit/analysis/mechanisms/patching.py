"""What patching and weights put back restore, on D_large and D_ctrl (arXiv 2506.12044, section 5).

The share restored is of the rise in NLL that quantization costs on a set of documents: the sum over
its documents of NLL(quantized) - NLL(edited), divided by that of NLL(quantized) - NLL(full). 1 is
all of it, 0 none; below 0 the change does harm, above 1 it leaves less than the full model's NLL.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from lowbit.analysis.statistics import (
    MINIMUM_DOCUMENTS,
    BootstrapSettings,
    mean_draws,
    resample_counts,
    summarise,
)
from lowbit.experiments.conditions import NONE, Condition

CONDITION = ["kind", "role", "layers", "first_block", "last_block"]
NO_GAP = "no gap to restore"
TOO_FEW = f"fewer than {MINIMUM_DOCUMENTS} documents: no interval"
BY_CONSTRUCTION = "1 by construction: nothing of the quantized model is left"
PERPLEXITIES = ("perplexity_full", "perplexity_quantized", "perplexity")


@dataclass(frozen=True)
class PatchedSet:
    """One method on one set of documents, under every condition."""

    method: str
    sets_of: str
    """The method whose set it is."""
    name: str
    """`large` or `control`."""
    conditions: pd.DataFrame
    """A row per condition, in the order of the columns of `nll`: kind, role, layers, blocks."""
    nll: np.ndarray
    """[documents, conditions], mean over tokens, nats."""
    nll_full: np.ndarray
    nll_quantized: np.ndarray
    """[documents], nats."""
    counts: np.ndarray
    """How often each of its documents is in a resample of the study's documents, [1 + R, n]."""

    @property
    def n(self) -> int:
        """Number of documents."""
        return len(self.nll_full)

    @cached_property
    def gap_draws(self) -> np.ndarray:
        """Mean of NLL(quantized) - NLL(full), draws [1 + R], nats per token."""
        return self._means((self.nll_quantized - self.nll_full)[:, None])[:, 0]

    @cached_property
    def share_draws(self) -> np.ndarray:
        """Share of the gap that each condition restores, draws [1 + R, conditions].

        Meant for a set that has a gap, see `has_gap`.
        """
        restored = self._means(self.nll_quantized[:, None] - self.nll)
        return restored / self.gap_draws[:, None]

    @cached_property
    def perplexity_draws(self) -> dict[str, np.ndarray]:
        """exp(mean NLL) of the full, the quantized [1 + R, 1] and the edited model [1 + R, k]."""
        columns = (self.nll_full[:, None], self.nll_quantized[:, None], self.nll)
        return {
            name: np.exp(self._means(values))
            for name, values in zip(PERPLEXITIES, columns, strict=True)
        }

    def has_gap(self, confidence: float) -> bool:
        """Tell whether quantization raises the NLL: the gap's whole interval is above 0."""
        if self.n < MINIMUM_DOCUMENTS:
            return bool(self.gap_draws[0] > 0)
        _, low, _ = summarise(self.gap_draws, confidence)
        return bool(low > 0)

    def place(
        self, kind: str, role: str, layers: str, last_blocks: int | None = None
    ) -> int | None:
        """Column of a condition, None if there is none; `last_blocks` where layers is `last`."""
        rows = self.conditions
        found = (rows["kind"] == kind) & (rows["role"] == role) & (rows["layers"] == layers)
        if last_blocks is not None:
            found &= rows["last_block"] - rows["first_block"] + 1 == last_blocks
        places = np.flatnonzero(found)
        return int(places[0]) if len(places) else None

    def _means(self, values: np.ndarray) -> np.ndarray:
        return mean_draws(values, np.ones(self.n, bool), self.counts)


def patched_sets(
    patching: pd.DataFrame, doc_ids: np.ndarray, counts: np.ndarray
) -> Iterator[PatchedSet]:
    """Yield every method's two sets.

    Args:
        patching: rows of patching.parquet.
        doc_ids: all documents of the study, in the order of the columns of `counts`.
        counts: resamples of these documents, [1 + R, documents].
    """
    run = patching[patching["kind"] != NONE]
    for (method, sets_of, name), rows in run.groupby(["method", "sets_of", "set"], sort=False):
        member = np.isin(doc_ids, rows["doc_id"].unique())
        wide = rows.pivot(index="doc_id", columns=CONDITION, values="nll").loc[doc_ids[member]]
        conditions = rows[CONDITION].drop_duplicates().reset_index(drop=True)
        documents = rows.drop_duplicates("doc_id").set_index("doc_id").loc[doc_ids[member]]
        yield PatchedSet(
            method=method,
            sets_of=sets_of,
            name=name,
            conditions=conditions,
            nll=wide[list(conditions.itertuples(index=False, name=None))].to_numpy(),
            nll_full=documents["nll_full"].to_numpy(),
            nll_quantized=documents["nll_quantized"].to_numpy(),
            counts=counts[:, member],
        )


def patching_table(
    patching: pd.DataFrame, doc_ids: np.ndarray, settings: BootstrapSettings, seed: int
) -> pd.DataFrame:
    """Perplexities and shares restored: a row per method, set and condition.

    Shares are nan where the set has no gap to restore; conditions that the model cannot have come
    last, with the reason as their note.
    """
    counts = resample_counts(len(doc_ids), settings, seed)
    tables = [
        _set_rows(patched, settings.confidence)
        for patched in patched_sets(patching, doc_ids, counts)
    ]
    absent = patching[patching["kind"] == NONE]
    keys = ["method", "sets_of", "set", *CONDITION]
    tables.append(absent[[*keys, "note"]].assign(n=0))
    return pd.concat(tables, ignore_index=True).reindex(columns=tables[0].columns)


def _set_rows(patched: PatchedSet, confidence: float) -> pd.DataFrame:
    """Rows of one method and set; see `patching_table`."""
    table = patched.conditions.copy()
    blocks = int(table["last_block"].max())
    for place, (name, value) in enumerate(
        (("method", patched.method), ("sets_of", patched.sets_of), ("set", patched.name))
    ):
        table.insert(place, name, value)
    table["n"] = patched.n
    few, gap = patched.n < MINIMUM_DOCUMENTS, patched.has_gap(confidence)
    columns = patched.perplexity_draws | ({"share": patched.share_draws} if gap else {})
    for name in (*PERPLEXITIES, "share"):
        value, low, high = (
            summarise(columns[name], confidence) if name in columns else (np.nan,) * 3
        )
        table[name] = np.broadcast_to(value, len(table))
        table[f"{name}_low"] = np.nan if few else np.broadcast_to(low, len(table))
        table[f"{name}_high"] = np.nan if few else np.broadcast_to(high, len(table))
    table["note"] = ["; ".join(_notes(row, blocks, gap=gap, few=few)) for row in table.itertuples()]
    return table


def _notes(row, blocks: int, *, gap: bool, few: bool) -> Iterator[str]:
    """What else to know of one row."""
    condition = Condition(row.kind, row.role, row.layers, row.first_block - 1, row.last_block - 1)
    if not gap:
        yield NO_GAP
    elif condition.is_whole(blocks):
        yield BY_CONSTRUCTION
    if few:
        yield TOO_FEW
