"""How long jobs run: what is computed, over a rate.

Rates of a CPU are measured on the embedded model, rule by rule, by `fit.py`. Those of a
GPU are assumptions, and the plan says so.
"""

from dataclasses import dataclass

from lowbit.engine.sizes import STREAM_SHARD
from study.config.methods import Method
from study.config.study import Study
from study.estimates.shapes import ModelShape
from study.estimates.walks import Job, Walk

READ_RATE = 1e9
"""Bytes per second that weights are read with in stream mode. Assumed: a network disk of a cluster,
or a plain SSD."""
DOWNLOAD_RATE = 5e7
"""Bytes per second from the hub. Assumed: half a gigabit line, shared."""
CHECK_RATE = 2.5e8
"""Bytes per second in which a model's files are hashed and its tensors looked through. Assumed: a
SHA-256 takes about half of it."""
UNPACKING = 1.35e-8
"""Seconds per weight that is dequantized; measured on a matrix of 4,096 x 4,096 in 3 and 4 bits, by
one thread of the machine that the rates are from."""
PASSES = {"gptq": 5, "awq": 60, "eqat": 12}
"""Times that the calibration text goes through a block, in forward passes: GPTQ's layers one after
the other, AWQ's search over 20 scales and 10 ranges, EfficientQAT's training (a step counts 3)."""
OTHER_PASSES = 4
"""Of those that only measure: with W, and its differences from the method's weights and RTN's."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as the plan assumes it."""

    name: str
    memory: float
    """Bytes."""
    rates: dict[str, float]
    """Operations per second by number format, from the maker's data sheet, dense."""
    share: dict[str, float]
    """Of that rate, which a forward pass of a model reaches. Assumed, not measured."""

    def rate(self, dtype: str) -> float:
        """Operations per second that are counted on."""
        return self.rates[dtype] * self.share[dtype]


A100 = Gpu(
    "NVIDIA A100 80GB",
    80e9,
    {"float32": 19.5e12, "bfloat16": 312e12},
    {"float32": 0.6, "bfloat16": 0.4},
)
"""float32 without TensorFloat-32, as PyTorch computes unless told otherwise."""


def engine_work(job: Job, shape: ModelShape) -> float:
    """Operations of a job of the engine: two per weight and token, attention, the output head."""
    return sum(_walk_work(walk, shape) for walk in job.walks)


def _walk_work(walk: Walk, shape: ModelShape) -> float:
    block = (2 * shape.active_weights) / shape.layers + 4 * walk.length * shape.hidden
    head = 2 * shape.vocabulary * shape.hidden
    return walk.rows * walk.length * (walk.blocks * block + walk.read_outs * head)


def quantizer_work(method: Method, study: Study, shape: ModelShape, name: str) -> float:
    """Operations of a quantizer: passes of the calibration text, and GPTQ's Hessians."""
    calibration = study.calibration[study.calibration_of(name)]
    tokens = calibration.n * calibration.length
    work = 2.0 * shape.active_weights * tokens * PASSES.get(method.quantizer, OTHER_PASSES)
    if method.quantizer == "gptq":
        for matrix in shape.matrices:
            hessian = 2 * tokens * matrix.inputs**2
            solving = 2 * matrix.inputs**3 + 2 * matrix.outputs * matrix.inputs**2
            work += matrix.count * (hessian + solving)
    return work


def weights_seconds(job: Job, shape: ModelShape, resident: bool) -> float:
    """Seconds for weights: those of methods are dequantized, in stream mode all are read again.

    Resident weights are dequantized once; else both is done once for every shard of documents.
    """
    shards = 1 if resident else sum(-(-walk.rows // STREAM_SHARD) for walk in job.walks)
    reading = 0.0 if resident else shape.stored_bytes / READ_RATE
    return shards * (reading + UNPACKING * job.quantized * shape.block_weights)
