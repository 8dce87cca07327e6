"""Per-document and per-token scores of several weight sets beside one full-precision stream."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray

from lowbit.engine.engine import Engine
from lowbit.engine.losses import TokenLosses, token_losses
from lowbit.engine.walk import Stream, walk
from lowbit.names import FULL


@dataclass
class Scores:
    """What one weight set makes of some documents."""

    nll: NDArray[np.float64]
    """`[documents]` mean over the predicted tokens, nats"""
    kl: NDArray[np.float64]
    """`[documents]` mean KL(full || stream), nats"""
    top1_flip_rate: NDArray[np.float64]
    """`[documents]` share of tokens whose most likely prediction is not the full model's"""
    token_nll: NDArray[np.float32]
    """`[documents, length - 1]`, nats"""
    token_flip: NDArray[np.bool_]
    """`[documents, length - 1]` whether the most likely prediction is not the full model's"""
    entropy: NDArray[np.float64] | None = None
    """`[documents]` mean entropy of the predictions, nats; of the full model only"""
    token_confidence: NDArray[np.float32] | None = None
    """`[documents, length - 1]` highest probability; of the full model only"""


def score_documents(
    engine: Engine, variants: Sequence[Stream], token_ids: NDArray[np.int32], first: int = 0
) -> Iterator[dict[str, Scores]]:
    """Score `token_ids` `[documents, length]` under `full` and `variants`; yields per shard.

    Args:
        first: document to begin with, as in `Engine.shards`.
    """
    streams = [engine.full, *variants]
    for shard in engine.shards(token_ids, first=first):
        parts: dict[str, list[Scores]] = {stream.name: [] for stream in streams}
        for rows, normed in zip(shard, walk(engine.decoder, streams, shard), strict=True):
            losses = token_losses(engine.decoder.logits, normed, rows, reference=FULL)
            for name, column in losses.items():
                parts[name].append(_document_means(column))
        yield {name: join(batches) for name, batches in parts.items()}


def join(parts: Sequence[Scores]) -> Scores:
    """Put the batches or shards of one stream together again."""
    columns = [[getattr(part, field.name) for part in parts] for field in fields(Scores)]
    return Scores(*(None if c[0] is None else np.concatenate(c) for c in columns))


def room_for(scores: Scores, documents: int) -> Scores:
    """Room for scores like these of all `documents`, to be filled with `put`.

    Made at once: many small arrays that stay would keep freed logits from being used again.
    """
    columns = vars(scores).values()
    return Scores(
        *(None if c is None else np.empty((documents, *c.shape[1:]), c.dtype) for c in columns)
    )


def put(scores: Scores, room: Scores, first: int) -> None:
    """Copy scores of consecutive documents to where they belong; `first` is the first's place."""
    for values, column in zip(vars(scores).values(), vars(room).values(), strict=True):
        if values is not None:
            column[first : first + len(values)] = values


def _document_means(losses: TokenLosses) -> Scores:
    def mean(column: torch.Tensor | None) -> NDArray[np.float64] | None:
        return None if column is None else column.double().mean(1).cpu().numpy()

    def tokens(column: torch.Tensor | None) -> NDArray | None:
        return None if column is None else column.cpu().numpy()

    return Scores(
        mean(losses.nll),
        mean(losses.kl),
        mean(losses.top1_flip),
        tokens(losses.nll),
        tokens(losses.top1_flip.bool()),
        mean(losses.entropy),
        tokens(losses.confidence),
    )
