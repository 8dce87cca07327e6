"""Memory of the engine's jobs beside Python and its libraries: weights, streams, one batch's work.

Formulas follow `lowbit.engine`: a resident model keeps its weights and those of every method; in
stream mode there are those of one block, and of the next while they change.
"""

from lowbit.engine.sizes import LOGITS_PER_CHUNK, PROBE_DOCUMENTS, STREAM_SHARD
from study.config.sections import Engine
from study.estimates.shapes import ModelShape
from study.estimates.walks import Job, Walk, largest

FLOAT32 = 4
BYTES = {"float32": 4, "bfloat16": 2}
"""Of one number, by the config's `engine.dtype`."""
BLOCKS_READ = 2
"""Blocks of the full model in stream mode: one is read while the other is let go."""
PLAIN_LOGITS = 3
"""Copies of the logits in the check against a plain forward, float32: logits, log-probabilities,
and what the loss makes of them."""
CHUNK = FLOAT32 * LOGITS_PER_CHUNK
"""Bytes of the logits of one chunk of the loss."""
CHUNKS = 6
"""Arrays of that size: logits and log-probabilities of two streams, probabilities, a difference."""
INSIDE_MLP, INSIDE_BLOCK = 4, 6
"""Activations of a batch in a block: as wide as the MLP; as wide as the residual stream."""
HOLES = 1.0
"""Of a walk's memory, what the C library keeps beside it on a CPU: what was freed, and others of
another size do not fit into (measured: .8 to 1.2)."""
UNPACKED = 1 + 3 * FLOAT32
"""Bytes per weight while one matrix is dequantized: codes, levels, scaled, in their order."""


def engine_memory(job: Job, shape: ModelShape, engine: Engine) -> float:
    """Bytes on the device that the model runs on, beside Python and its libraries."""
    return BYTES[engine.dtype] * _weights(job, shape, engine) + _working(job, shape, engine)


def holes(job: Job, shape: ModelShape, engine: Engine) -> float:
    """Bytes that a CPU's memory takes beside that, between what comes and goes."""
    return HOLES * _working(job, shape, engine)


def unpacking(job: Job, shape: ModelShape) -> float:
    """Bytes of the machine while a method's largest matrix is dequantized, on the CPU."""
    return UNPACKED * shape.largest_matrix if job.quantized else 0.0


def block_parameters(shape: ModelShape) -> float:
    """Parameters of one block."""
    return shape.block_parameters / shape.layers


def _weights(job: Job, shape: ModelShape, engine: Engine) -> float:
    """Weights that are there for the whole job, in numbers."""
    if engine.mode == "resident":
        return shape.parameters + job.quantized * shape.block_weights
    methods = job.quantized * shape.block_weights / shape.layers
    return shape.kept_parameters + BLOCKS_READ * block_parameters(shape) + methods


def _working(job: Job, shape: ModelShape, engine: Engine) -> float:
    """Bytes of activations and logits."""
    walked = max((_walk(walk, shape, engine) for walk in largest(job.walks)), default=0.0)
    return max(walked, _checks(job, shape))


def _walk(walk: Walk, shape: ModelShape, engine: Engine) -> float:
    """Bytes of activations, of changed weights and of the loss."""
    number, batch = BYTES[engine.dtype], min(engine.batch_size, walk.rows)
    held = batch
    if walk.by_block or engine.mode == "stream":
        held = min(walk.rows, max(1, STREAM_SHARD // engine.batch_size) * engine.batch_size)
    # Every stream's, and the embedded tokens that all started from.
    states = (walk.streams + 1) * held * walk.length * shape.hidden
    inside = INSIDE_MLP * shape.widest + INSIDE_BLOCK * shape.hidden
    changed = walk.changed_matrices * shape.block_weights / shape.layers
    row = FLOAT32 * shape.vocabulary
    chunk = max(row, min(CHUNK, batch * walk.length * row))
    loss = CHUNKS * chunk if walk.read_outs else 0
    return number * (states + batch * walk.length * inside + changed) + loss


def _checks(job: Job, shape: ModelShape) -> float:
    """Bytes of the plain forward's logits, which the walk is compared with."""
    length = max((walk.length for walk in job.walks), default=0)
    return PROBE_DOCUMENTS * length * shape.vocabulary * FLOAT32 * PLAIN_LOGITS
