"""What a full-precision and a quantized model make of the same document, layer by layer.

Early exit (arXiv 2506.12044, section 4.2): the NLL of softmax(U phi(a(l))) for a = r and a = z of
every block l, phi the final norm and U the output head. Amplification (section 4.1): the mean
squared difference between the two models' MLP outputs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lowbit.engine.decoder import Decoder, Tap
from lowbit.engine.engine import Engine
from lowbit.engine.losses import token_losses
from lowbit.engine.walk import Stream, walk
from lowbit.names import FULL

EXITS = {"r": "residual_mid", "z": "residual_out"}
"""Where a model is read out, and the role."""


@dataclass
class Exits:
    """NLL of one stream's documents at every block, mean over tokens in nats, by exit."""

    r: NDArray[np.float64] | None = None
    """`[documents, layers]`; None where the architecture does not have it."""
    z: NDArray[np.float64] | None = None
    """The same."""


@dataclass
class Differences:
    """How far one stream's MLP outputs are from the full-precision model's."""

    mean_squared: NDArray[np.float64]
    """`[documents, layers]`, mean over tokens and dimensions."""


def exit_nll(
    engine: Engine, streams: Sequence[Stream], token_ids: NDArray[np.int32], first: int = 0
) -> Iterator[dict[str, Exits]]:
    """Read every stream out at every block; yields per shard of `token_ids` `[documents, length]`.

    Args:
        first: document to begin with, as in `Engine.shards`.
    """
    exits = {name: role for name, role in EXITS.items() if role in engine.decoder.roles}
    for shard in engine.shards(token_ids, first=first):
        shape = [(len(rows), len(engine.decoder)) for rows in shard]
        keys = [(stream.name, name) for stream in streams for name in exits]
        found = [{key: np.zeros(of_batch) for key in keys} for of_batch in shape]
        taps = partial(_exit_taps, engine.decoder, exits, shard, found)
        for _ in walk(engine.decoder, streams, shard, taps):
            pass
        yield {
            stream.name: Exits(
                **{e: np.concatenate([batch[stream.name, e] for batch in found]) for e in exits}
            )
            for stream in streams
        }


def _exit_taps(
    decoder: Decoder,
    exits: Mapping[str, str],
    shard: Sequence[Tensor],
    found: Sequence[dict[tuple[str, str], NDArray[np.float64]]],
    stream: str,
    index: int,
    batch: int,
) -> Mapping[str, Tap]:
    def read(name: str, activation: Tensor) -> None:
        normed = decoder.leave(shard[batch], activation)
        losses = token_losses(decoder.logits, {name: normed}, shard[batch], None)[name]
        found[batch][stream, name][:, index] = losses.nll.double().mean(1).cpu()

    return {role: partial(read, name) for name, role in exits.items()}


def mlp_differences(
    engine: Engine, variants: Sequence[Stream], token_ids: NDArray[np.int32], first: int = 0
) -> Iterator[dict[str, Differences]]:
    """Compare the variants' MLP outputs with the full-precision model's; yields per shard.

    Args:
        first: document to begin with, as in `Engine.shards`.
    """
    layers = len(engine.decoder)
    for shard in engine.shards(token_ids, first=first):
        found = [{v.name: np.zeros((len(rows), layers)) for v in variants} for rows in shard]
        taps = partial(_difference_taps, {}, found)
        for _ in walk(engine.decoder, [engine.full, *variants], shard, taps):
            pass
        yield {
            each.name: Differences(np.concatenate([batch[each.name] for batch in found]))
            for each in variants
        }


def _difference_taps(
    outputs: dict[str, Tensor],
    found: Sequence[dict[str, NDArray[np.float64]]],
    stream: str,
    index: int,
    batch: int,
) -> Mapping[str, Tap]:
    """Keep the full-precision model's output, which comes first, and compare the others with it."""

    def read(activation: Tensor) -> None:
        if stream == FULL:
            outputs[FULL] = activation.float()
            return
        squared = (activation.float() - outputs[FULL]).square()
        found[batch][stream][:, index] = squared.mean((1, 2)).cpu()

    return {"mlp_out": read}
