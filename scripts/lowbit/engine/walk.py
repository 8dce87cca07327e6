"""The lockstep block walk: several weight sets advance through the model together.

At each block all streams advance before the next block's weights are touched, so a block's weights
are needed once per shard of documents, and what one stream needs of another (an activation to
patch in) is right there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lowbit.engine.decoder import BlockTaps, Decoder

BlockParameters = Callable[[int], Mapping[str, Tensor]]
"""From a block's index to the parameters (names relative to the block) that replace its own."""

Taps = Callable[[str, int, int], BlockTaps]
"""From stream name, block index and batch index within the shard to the taps of that block call."""


@dataclass(frozen=True)
class Stream:
    """One weight set on its way through the model."""

    name: str
    parameters: BlockParameters
    parent: str | None = None
    """A stream that this one does not differ from before block `start`; it is not walked twice."""
    start: int = 0
    """First block of its own; 0 where there is no parent."""


def own_parameters(index: int) -> Mapping[str, Tensor]:
    """The block keeps its own weights: the full-precision stream of a resident model."""
    return {}


def no_taps(stream: str, index: int, batch: int) -> BlockTaps:
    """Read and replace nothing."""
    return {}


@torch.inference_mode()
def walk(
    decoder: Decoder, streams: Sequence[Stream], shard: Sequence[Tensor], taps: Taps = no_taps
) -> Iterator[dict[str, Tensor]]:
    """Walk a shard (token batches `[batch, length]`) through all blocks; all streams in lockstep.

    Yields, per batch, each stream's output after the final norm: `[batch, length, width]`.
    """
    parents = _parents(streams, len(decoder))
    entered = [decoder.enter(batch) for batch in shard]
    hidden_states = [[batch.hidden_states] * len(streams) for batch in entered]
    for index in range(len(decoder)):
        active = [k for k, stream in enumerate(streams) if stream.start <= index]
        parameters = {k: streams[k].parameters(index) for k in active}
        for number, batch in enumerate(entered):
            before = list(hidden_states[number])
            for k in active:
                source = parents[k] if streams[k].start == index else k
                hidden_states[number][k] = decoder.run_block(
                    index,
                    before[source],
                    batch.calls[index],
                    parameters[k],
                    taps(streams[k].name, index, number),
                )
        del parameters
    for token_ids, states in zip(shard, hidden_states, strict=True):
        for k in range(len(streams)):
            states[k] = decoder.leave(token_ids, states[k])
        yield {stream.name: states[k] for k, stream in enumerate(streams)}
        states.clear()


def _parents(streams: Sequence[Stream], blocks: int) -> list[int]:
    """Place of the stream that each one is before its first own block; its own place for most.

    Raises:
        ValueError: a start without a parent or beyond the last block, or a parent that has one.
    """
    places = {stream.name: k for k, stream in enumerate(streams)}
    for stream in streams:
        whole = stream.parent is None and stream.start == 0
        forked = stream.parent in places and streams[places[stream.parent]].parent is None
        if not whole and not (forked and 0 <= stream.start < blocks):
            raise ValueError(
                f"stream {stream.name} cannot leave {stream.parent} at block {stream.start}"
            )
    return [places[stream.parent or stream.name] for stream in streams]
