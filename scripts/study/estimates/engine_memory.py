"""Memory of the engine's jobs beside Python and its libraries: weights, streams, one batch's work.

Formulas follow `lowbit.engine`: a resident model keeps its weights and those of every method; in
stream mode there are those of one block, and while it is left those of the next. Losses are
computed after the last block, when its activations are gone, but for early exits.
"""

from collections.abc import Iterator
from math import ceil, log2
from typing import NamedTuple

from lowbit.engine.sizes import LOGITS_PER_CHUNK, PROBE_DOCUMENTS, STREAM_SHARD
from study.config.sections import Engine
from study.estimates.shapes import ModelShape
from study.estimates.walks import Job, Walk, largest

FLOAT32 = 4
BYTES = {"float32": 4, "bfloat16": 2}
"""Of one number, by the config's `engine.dtype`."""
PLAIN_LOGITS = 3
"""Copies of the logits in the check against a plain forward, float32: logits, log-probabilities,
and what the loss makes of them."""
CHUNK = FLOAT32 * LOGITS_PER_CHUNK
"""Bytes of the logits of one chunk of the loss."""
CHUNKS = 6
"""Arrays of that size: logits and log-probabilities of two streams, probabilities, a difference."""
INSIDE_MLP, INSIDE_BLOCK = 4, 6
"""Activations of a batch in a block: as wide as the MLP; as wide as the residual stream."""
HOLES, MOST_HOLES = 0.35, 2.0
"""Of all that a walk makes and lets go, the share that the C library keeps beside it on a CPU: what
was freed, and others of another size do not fit into. It grows by `HOLES` with each doubling of the
batches (of every group of edits), up to `MOST_HOLES`. Measured: .2 to .8 after 2 or 3 batches, .9
to 1.5 after 8, 1.5 to 2.2 after 38, on small models; after 2 on a random one of 160 million
parameters .2 to 1.9."""
RETURNED = 32 * 2**20
"""Bytes from which glibc gives freed memory back at once, so that no holes stay."""
UNPACKED = 1 + 3 * FLOAT32
"""Bytes per weight while one matrix is dequantized: codes, levels, scaled, in their order."""


def engine_memory(job: Job, shape: ModelShape, engine: Engine) -> float:
    """Bytes on the device that the model runs on, beside Python and its libraries."""
    return max(_moments(job, shape, engine))


def cpu_memory(job: Job, shape: ModelShape, engine: Engine) -> float:
    """Bytes on a CPU beside Python and its libraries: as `engine_memory`, but matrices are
    dequantized there, too, and freed memory has holes."""
    states = max((_walk(walk, shape, engine).states for walk in job.walks), default=0.0)
    dequantizing = sum(_weights(job, shape, engine)) + states + unpacking(job, shape)
    holes = max((_holes(walk, shape, engine) for walk in job.walks), default=0.0)
    return max(*_moments(job, shape, engine), dequantizing) + holes


def unpacking(job: Job, shape: ModelShape) -> float:
    """Bytes of the machine while a method's largest matrix is dequantized, on the CPU."""
    return UNPACKED * shape.largest_matrix if job.quantized else 0.0


def classifier_memory(shape: ModelShape, length: int) -> float:
    """Bytes of a classifier, in float32 whatever the study's format, and of a text inside it."""
    inside = length * (INSIDE_MLP * shape.widest + INSIDE_BLOCK * shape.hidden)
    return FLOAT32 * (shape.parameters + inside)


def block_parameters(shape: ModelShape) -> float:
    """Parameters of one block."""
    return shape.block_parameters / shape.layers


def _moments(job: Job, shape: ModelShape, engine: Engine) -> Iterator[float]:
    """Bytes on the device when much is there: in the checks, within a block, over the losses."""
    kept, passing = _weights(job, shape, engine)
    yield kept + _checks(job, shape)
    for walk in largest(job.walks):
        held = _walk(walk, shape, engine)
        yield kept + passing + held.states + held.inside + held.changed
        yield kept + (passing if walk.exits else 0.0) + held.states + held.loss


def _weights(job: Job, shape: ModelShape, engine: Engine) -> tuple[float, float]:
    """Bytes of the weights that stay for the whole job, and of a block's, in a walk only."""
    number, methods = BYTES[engine.dtype], job.quantized * shape.block_weights
    if engine.mode == "resident":
        return number * (shape.parameters + methods), 0.0
    block = block_parameters(shape)
    # The full model's block stays until the next one is read; those of methods go before that.
    return number * (shape.kept_parameters + block), number * max(block, methods / shape.layers)


class Held(NamedTuple):
    """Bytes that a walk holds, by what they are of."""

    states: float
    """Hidden states of all streams."""
    inside: float
    """Activations of a batch in a block."""
    changed: float
    """Matrices of a block that edited streams have of their own."""
    loss: float
    """Logits, and what the loss makes of them."""


def _walk(walk: Walk, shape: ModelShape, engine: Engine) -> Held:
    number, batch = BYTES[engine.dtype], min(engine.batch_size, walk.rows)
    held = batch
    if walk.by_block or engine.mode == "stream":
        held = min(walk.rows, max(1, STREAM_SHARD // engine.batch_size) * engine.batch_size)
    inside = batch * walk.length * (INSIDE_MLP * shape.widest + INSIDE_BLOCK * shape.hidden)
    changed = walk.changed_matrices * shape.block_weights / shape.layers
    row = FLOAT32 * shape.vocabulary
    chunk = max(row, min(CHUNK, batch * walk.length * row))
    return Held(
        states=number * _states(walk, held, shape),
        inside=number * inside,
        changed=number * changed,
        loss=CHUNKS * chunk if walk.read_outs else 0.0,
    )


def _states(walk: Walk, rows: int, shape: ModelShape) -> float:
    """Numbers in the hidden states of rows: every stream's, and the embedded tokens that all
    started from."""
    return (walk.streams + 1) * rows * walk.length * shape.hidden


def _holes(walk: Walk, shape: ModelShape, engine: Engine) -> float:
    """Bytes that are freed and not used again.

    Of the hidden states those of one batch: it is batch by batch that new ones take their place.
    """
    number, batch = BYTES[engine.dtype], min(engine.batch_size, walk.rows)
    held, tokens = _walk(walk, shape, engine), batch * walk.length
    pieces = (
        (number * _states(walk, batch, shape), number * tokens * shape.hidden),
        (held.inside, number * tokens * shape.widest),
        (held.changed, number * shape.largest_matrix),
        (held.loss, CHUNK),
    )
    share = min(MOST_HOLES, HOLES * log2(1 + walk.groups * ceil(walk.rows / engine.batch_size)))
    return share * sum(part for part, piece in pieces if piece < RETURNED)


def _checks(job: Job, shape: ModelShape) -> float:
    """Bytes of the plain forward's logits, which the walk is compared with."""
    length = max((walk.length for walk in job.walks), default=0)
    return PROBE_DOCUMENTS * length * shape.vocabulary * FLOAT32 * PLAIN_LOGITS
