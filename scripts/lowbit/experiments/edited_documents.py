"""Mean NLL of documents under any number of edits, walked in groups so that memory is bounded."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lowbit.engine.edits import Edited, edited_walk
from lowbit.engine.engine import Engine
from lowbit.engine.losses import token_losses
from lowbit.engine.walk import Stream
from lowbit.unfinished import UNKEPT, Unkept

EDITS_AT_ONCE = 16
"""Edited streams in one walk. Each holds one activation `[batch, length, hidden]` (of all batches
of a shard, where weights are read block by block) and what it changes of a block's weights."""


@dataclass
class DocumentNll:
    """What one stream makes of some documents."""

    nll: NDArray[np.float64]
    """`[documents]` mean over the predicted tokens, nats"""


def document_nll(
    engine: Engine,
    streams: Sequence[Stream],
    packs: Sequence[Mapping[str, Edited]],
    token_ids: NDArray[np.int32],
    advance: Callable[[int], object] = lambda documents: None,
    donor: str | None = None,
    parts: Unkept = UNKEPT,
) -> dict[str, NDArray[np.float64]]:
    """Mean NLL of each document of `token_ids` `[documents, length]` in every stream, nats.

    Args:
        streams: the streams as they are; they take part in every walk.
        packs: edits by the name of the edited stream; those of one pack are walked together.
        advance: called with the number of documents that are done in one of the `walks`.
        donor: name of the stream that activations are taken from; before those that need it.
        parts: finished parts of each walk are kept there and taken from there.

    Returns:
        By the name of the stream, edited or not: `[documents]`.
    """
    unedited = [read_once(stream) for stream in streams]
    found: dict[str, NDArray[np.float64]] = {}
    for number, edits in enumerate(walks(packs)):
        names = [*(stream.name for stream in unedited), *edits]
        make = partial(_document_nll, engine, unedited, edits, token_ids, donor)
        shards = []
        for shard in parts.of(str(number)).walk(DocumentNll, names, make, measured(edits)):
            shards.append(shard)
            advance(len(shard[names[0]].nll))
        found |= {name: np.concatenate([shard[name].nll for shard in shards]) for name in names}
    return found


def _document_nll(
    engine: Engine,
    streams: Sequence[Stream],
    edits: Mapping[str, Edited],
    token_ids: NDArray[np.int32],
    donor: str | None,
    first: int,
) -> Iterator[dict[str, DocumentNll]]:
    """One walk, shard by shard, from document `first` on."""
    for shard in edited_walk(engine, streams, edits, token_ids, donor, first=first):
        losses = [
            token_losses(engine.decoder.logits, normed, batch, None) for _, batch, normed in shard
        ]

        def means(name: str, losses: Sequence = losses) -> NDArray[np.float64]:
            columns = [batch[name].nll.cpu().numpy() for batch in losses]
            return np.concatenate([column.mean(1, dtype=np.float64) for column in columns])

        yield {name: DocumentNll(means(name)) for name in losses[0]}


def measured(edits: Mapping[str, Edited]) -> dict[str, Tensor]:
    """What the edits of one walk measure on their way, under names that tell edits apart."""
    return {
        f"{name}/{what}": tensor
        for name, each in edits.items()
        for what, tensor in each.edit.measured.items()
    }


def walks(packs: Sequence[Mapping[str, Edited]]) -> list[dict[str, Edited]]:
    """Join packs, in order, into walks of at most `EDITS_AT_ONCE` edits (or one larger pack)."""
    joined: list[dict[str, Edited]] = [{}]
    for pack in packs:
        if joined[-1] and len(joined[-1]) + len(pack) > EDITS_AT_ONCE:
            joined.append({})
        joined[-1].update(pack)
    return joined


def read_once(stream: Stream) -> Stream:
    """The same stream; what is made from it in a block shares one set of tensors."""
    once = lru_cache(maxsize=1)(stream.parameters)
    return Stream(stream.name, once, stream.parent, stream.start)
