"""Memory of the quantizers' jobs beside Python and its libraries.

A job has the whole model in float32 on the CPU, one block in work on the device, the calibration
text's hidden states, and the codes made so far (`lowbit.quantization.quantize_model`).
"""

from study.config.methods import Method
from study.config.study import Study
from study.estimates.disk import weights_bytes
from study.estimates.engine_memory import FLOAT32, block_parameters
from study.estimates.shapes import ModelShape

CALIBRATION_BATCH = 4
"""Sequences that are run at once: `lowbit.quantization.quantize_model`."""
STREAMS = 2
"""Hidden states of the calibration text: with full and with quantized blocks before."""
BLOCK_COPIES = 4
"""Of the block in work: a copy to change, differences from it of the method and of RTN, float32
levels."""
INSIDE_MLP, INSIDE_BLOCK = 4, 6
"""Activations of a batch in a block, as in the engine."""
CODES, PACKED = 1, 2
"""Bytes of a weight's code in memory; copies of the packed codes while the file is written."""
HESSIANS = 4
"""Matrices of the size of GPTQ's Hessian: it, its inverse and what both are made of."""
OPTIMIZER = 5
"""Copies of a block's weights that training takes: itself, gradients, two moments, w'."""
LEARNING = ("gptq", "awq", "eqat")
"""Quantizers that look at activations; the others' output errors are measured on them."""


def host_memory(method: Method, study: Study, shape: ModelShape, name: str) -> float:
    """Bytes of the machine where the work itself is on a GPU."""
    calibration = study.calibration[study.calibration_of(name)]
    streams = STREAMS if method.quantizer in LEARNING else 1
    states = streams * calibration.n * calibration.length * shape.hidden * FLOAT32
    stored = weights_bytes(method, shape)
    return FLOAT32 * shape.parameters + states + CODES * shape.block_weights + PACKED * stored


def work_memory(method: Method, study: Study, shape: ModelShape, name: str) -> float:
    """Bytes of the block in work, on the device."""
    calibration = study.calibration[study.calibration_of(name)]
    batch = min(CALIBRATION_BATCH, calibration.n) * calibration.length
    inside = INSIDE_MLP * shape.widest + INSIDE_BLOCK * shape.hidden
    numbers = BLOCK_COPIES * block_parameters(shape) + batch * inside
    return FLOAT32 * (numbers + _of_quantizer(method, shape, calibration.n * calibration.length))


def _of_quantizer(method: Method, shape: ModelShape, tokens: int) -> float:
    """Numbers that the algorithm itself holds."""
    in_block = [each.count / shape.layers for each in shape.matrices]
    if method.quantizer == "gptq":
        widest = max(each.inputs for each in shape.matrices)
        return HESSIANS * widest**2
    if method.quantizer == "awq":
        read = sum(k * each.inputs for k, each in zip(in_block, shape.matrices, strict=True))
        return tokens * read
    if method.quantizer == "eqat":
        return OPTIMIZER * block_parameters(shape) + tokens * shape.hidden
    return 0.0
