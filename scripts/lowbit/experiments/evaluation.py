"""Perplexity and last-word accuracy of any streams, edited or not, on evaluation rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray

from lowbit.engine.edits import Edited, edited_walk
from lowbit.engine.engine import Engine
from lowbit.engine.losses import ChosenLosses, chosen_losses
from lowbit.engine.walk import Stream
from lowbit.inputs.evaluation import LAST_WORD, EvaluationRows


@dataclass
class RowScores:
    """What one stream makes of some rows."""

    nll: NDArray[np.float64]
    """`[rows]` sum over the scored tokens of a row, nats"""
    correct: NDArray[np.bool_] | None = None
    """`[rows]` whether every scored token is the most likely one given the true tokens before it
    (so greedy decoding gives the word); of last words only"""


def evaluation_scores(
    engine: Engine,
    streams: Sequence[Stream],
    rows: EvaluationRows,
    edits: Mapping[str, Edited] = MappingProxyType({}),
    donor: str | None = None,
    first: int = 0,
) -> Iterator[dict[str, RowScores]]:
    """Walk streams over all rows in one walk; yields per shard, rows in their order.

    Args:
        streams: the streams as they are.
        edits: edited streams beside them, by name. No padding is walked.
        donor: name of the stream that activations are taken from, where edits need one.
        first: row to begin with, as in `Engine.shards`.
    """
    hits = rows.kind == LAST_WORD
    scored = torch.from_numpy(rows.scored)
    targets = torch.from_numpy(rows.token_ids[:, 1:])
    for shard in edited_walk(engine, streams, edits, rows.inputs, donor, rows.input_lengths, first):
        batches = []
        for part, batch, normed in shard:
            place = (part, slice(batch.shape[1]))
            losses = chosen_losses(
                engine.decoder.logits,
                normed,
                targets[place].to(batch.device),
                scored[place].to(batch.device),
                hits,
            )
            batches.append({name: _row_scores(column) for name, column in losses.items()})
        yield {name: join_rows([batch[name] for batch in batches]) for name in batches[0]}


def join_rows(parts: Sequence[RowScores]) -> RowScores:
    """Put the batches or shards of one stream together again."""
    correct = [part.correct for part in parts]
    return RowScores(
        np.concatenate([part.nll for part in parts]),
        None if correct[0] is None else np.concatenate(correct),
    )


def _row_scores(losses: ChosenLosses) -> RowScores:
    correct = None if losses.hit is None else losses.hit.all(1).cpu().numpy()
    return RowScores(losses.nll.double().sum(1).cpu().numpy(), correct)
