"""Many edits of the full-precision model beside it, on documents and evaluation sets, as tables."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from lowbit.engine.edits import Edit, Edited
from lowbit.engine.engine import Engine
from lowbit.experiments.edited_documents import document_nll, measured, walks
from lowbit.experiments.evaluation import RowScores, evaluation_scores, join_rows
from lowbit.inputs.evaluation import LAST_WORD, EvaluationRows
from lowbit.names import FULL
from lowbit.unfinished import UNKEPT, Unkept

Keys = Mapping[str, Mapping[str, Any]]
"""By the name of an edit the columns that say what it is."""


def spread(rows: int, wanted: int) -> NDArray[np.intp]:
    """Choose so many of the rows, evenly spaced: the first ones are all of one source."""
    return np.arange(wanted) * rows // wanted


def document_table(
    engine: Engine,
    edits: Mapping[str, Edit],
    keys: Keys,
    doc_ids: Sequence[str],
    token_ids: NDArray[np.int32],
    parts: Unkept = UNKEPT,
) -> pd.DataFrame:
    """One row per edit and document: its `keys`, doc_id, mean nll and nll_full, nats.

    Args:
        edits: of the full-precision model; neighbours are walked together.
        parts: finished parts are kept there and taken from there.
    """
    packs = _packs(edits)
    total = len(walks(packs)) * len(token_ids)
    with tqdm(total=total, unit="document", desc=f"{len(edits)} models") as bar:
        by_block, full = engine.by_block(), [engine.full]
        nll = document_nll(by_block, full, packs, token_ids, bar.update, parts=parts)
    shared = {"doc_id": doc_ids, "nll_full": nll[FULL]}
    tables = [pd.DataFrame({**keys[name], **shared, "nll": nll[name]}) for name in edits]
    return pd.concat(tables, ignore_index=True)


def set_table(
    engine: Engine,
    edits: Mapping[str, Edit],
    keys: Keys,
    sets: Mapping[str, EvaluationRows],
    parts: Unkept = UNKEPT,
) -> pd.DataFrame:
    """One row per edit, evaluation set and row of it.

    Columns: the edit's `keys`, set, kind, row, tokens, nll and nll_full (sums over the row's
    tokens, nats), correct and correct_full (of last words; else null).

    Args:
        parts: finished parts are kept there and taken from there.
    """
    tables = []
    for name, rows in sets.items():
        packs = _packs(edits)
        total = len(walks(packs)) * len(rows)
        with tqdm(total=total, unit="row", desc=f"{name}: {len(edits)} models") as bar:
            scores = _row_scores(engine.by_block(), packs, rows, bar.update, parts.of(name))
        shared = {"set": name, "kind": rows.kind, "row": rows.row_ids, "tokens": rows.tokens}
        shared |= _columns(scores[FULL], rows, "_full")
        tables += [
            pd.DataFrame({**keys[edit], **shared, **_columns(scores[edit], rows)}) for edit in edits
        ]
    types = {"correct": "boolean", "correct_full": "boolean"}
    return pd.concat(tables, ignore_index=True).astype(types)


def _packs(edits: Mapping[str, Edit]) -> list[dict[str, Edited]]:
    return [{name: Edited(FULL, edit)} for name, edit in edits.items()]


def _row_scores(
    engine: Engine,
    packs: Sequence[Mapping[str, Edited]],
    rows: EvaluationRows,
    advance: Callable[[int], object],
    parts: Unkept,
) -> dict[str, RowScores]:
    """Scores of the full-precision model and every edit on all rows."""
    found: dict[str, RowScores] = {}
    for number, edits in enumerate(walks(packs)):
        names = [FULL, *edits]
        make = partial(evaluation_scores, engine, [engine.full], rows, edits, None)
        shards = []
        for shard in parts.of(str(number)).walk(RowScores, names, make, measured(edits)):
            shards.append(shard)
            advance(len(shard[FULL].nll))
        found |= {name: join_rows([shard[name] for shard in shards]) for name in names}
    return found


def _columns(scores: RowScores, rows: EvaluationRows, end: str = "") -> dict[str, Any]:
    correct = scores.correct if rows.kind == LAST_WORD else [None] * len(rows)
    return {f"nll{end}": scores.nll, f"correct{end}": correct}
