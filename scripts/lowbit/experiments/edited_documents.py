"""Mean NLL of documents under any number of edits, walked in groups so that memory is bounded."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lowbit.engine.edits import Edited, edited_nll
from lowbit.engine.engine import Engine
from lowbit.engine.walk import Stream

EDITS_AT_ONCE = 16
"""Edited streams in one walk. Each holds one activation `[batch, length, hidden]` (of all batches
of a shard, where weights are read block by block) and what it changes of a block's weights."""


def document_nll(
    engine: Engine,
    streams: Sequence[Stream],
    packs: Sequence[Mapping[str, Edited]],
    token_ids: NDArray[np.int32],
    advance: Callable[[int], object] = lambda documents: None,
    donor: str | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Mean NLL of each document of `token_ids` `[documents, length]` in every stream, nats.

    Args:
        streams: the streams as they are; they take part in every walk.
        packs: edits by the name of the edited stream; those of one pack are walked together.
        advance: called with the number of documents that are done in one of the `walks`.
        donor: name of the stream that activations are taken from; before those that need it.

    Returns:
        By the name of the stream, edited or not: `[documents]`.
    """
    unedited = [read_once(stream) for stream in streams]
    found: dict[str, NDArray[np.float64]] = {}
    for edits in walks(packs):
        parts = []
        for batch in edited_nll(engine, unedited, edits, token_ids, donor):
            parts.append({name: nll.mean(1, dtype=np.float64) for name, nll in batch.items()})
            advance(len(parts[-1][unedited[0].name]))
        found |= {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return found


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
