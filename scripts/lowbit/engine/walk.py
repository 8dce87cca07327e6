"""The lockstep block walk: several weight sets advance through the model together.

At each block all streams advance before the next block's weights are touched, so a block's weights
are needed once per shard of documents, and what one stream needs of another (an activation to
patch in) is right there.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lowbit.engine.decoder import Decoder, Tap

FULL = "full"
"""The reserved name of the unquantized model."""

BlockParameters = Callable[[int], Mapping[str, Tensor]]
"""From a block's index to the parameters (names relative to the block) that replace its own."""

Taps = Callable[[str, int, int], Mapping[str, Tap]]
"""From stream name, block index and batch index within the shard to the taps of that block call."""


@dataclass(frozen=True)
class Stream:
    """One weight set on its way through the model."""

    name: str
    parameters: BlockParameters


def own_parameters(index: int) -> Mapping[str, Tensor]:
    """The block keeps its own weights: the full-precision stream of a resident model."""
    return {}


def no_taps(stream: str, index: int, batch: int) -> Mapping[str, Tap]:
    """Read and replace nothing."""
    return {}


@torch.inference_mode()
def walk(
    decoder: Decoder, streams: Sequence[Stream], shard: Sequence[Tensor], taps: Taps = no_taps
) -> Iterator[dict[str, Tensor]]:
    """Walk a shard (token batches `[batch, length]`) through all blocks; all streams in lockstep.

    Yields, per batch, each stream's output after the final norm: `[batch, length, width]`.
    """
    entered = [decoder.enter(batch) for batch in shard]
    hidden_states = [[batch.hidden_states] * len(streams) for batch in entered]
    for index in range(len(decoder)):
        parameters = [stream.parameters(index) for stream in streams]
        for number, batch in enumerate(entered):
            for k, stream in enumerate(streams):
                hidden_states[number][k] = decoder.run_block(
                    index,
                    hidden_states[number][k],
                    batch.calls[index],
                    parameters[k],
                    taps(stream.name, index, number),
                )
        del parameters
    for token_ids, states in zip(shard, hidden_states, strict=True):
        yield {
            stream.name: decoder.leave(token_ids, state)
            for stream, state in zip(streams, states, strict=True)
        }
