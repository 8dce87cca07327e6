"""Disk that results take, file by file.

Large files follow from their content; figures and short tables have sizes measured on the embedded
study, which change little with the model.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from study.config.methods import Method
from study.config.study import Study
from study.estimates.shapes import ModelShape
from study.estimates.walks import engine_job, evaluation_shapes

KIB = 1024
FLOAT32 = 4
BY_ENDING = {
    ".png": 108 * KIB,
    ".svg": 88 * KIB,
    ".html": 17 * KIB,
    ".csv": 4 * KIB,
    ".md": 4 * KIB,
}
"""Means over the embedded study's files; of other kinds, `OTHER`."""
BY_NAME = {"claims.csv": 85 * KIB, "claims.md": 15 * KIB, "token_errors.csv": 16 * KIB}
"""Tables that are longer, whatever the study."""
OTHER = 1 * KIB

CODEBOOKS = ("nf", "fp", "power", "sigmoid", "log", "piecewise", "lloyd_max")
"""Quantizers whose groups have a scale, float32, and no zero."""
WIDE_ZEROS = ("hqq",)
"""Those whose zeros are float32; all others' are bytes."""
HEADER_ENTRY = 100
"""Bytes of a tensor's entry in a safetensors header."""
RECORD_ENTRY = 300
"""Bytes of a matrix in method.json."""

TABLE = 6 * KIB
"""Bytes of a Parquet file without rows."""
DICTIONARY = 1 << 20
"""Bytes of distinct values up to which Parquet writes each value once and numbers beside them."""
TOKEN = 2.5
"""Bytes per token of tokens.parquet: its id and its text, compressed; embedded documents."""
COMPRESSED_FLOATS = 0.94
"""Compression of float32 NLLs."""
DOCUMENT_ROW, LAYER_ROW, DIMENSION_ROW = 45, 28, 12
"""Bytes of a row of numbers: of a document and method; of a document and layer; of a dimension."""
TOPIC_ROW = 6
"""Bytes of a document with its topic."""
EDITED_ROW = 15
"""Bytes of a document under one edit."""
PREDICTION_ROW = 140
"""Bytes of a document and method in predictions.parquet, over all feature sets."""


def weights_bytes(method: Method, shape: ModelShape) -> float:
    """Bytes of a method's weights.safetensors: packed codes, scales, zeros."""
    found = 0.0
    for matrix in shape.matrices:
        groups = _groups(method, matrix.outputs, matrix.inputs)
        one = method.bits * matrix.weights / 8 + groups * _group_bytes(method)
        if method.quantizer == "awq":
            one += FLOAT32 * matrix.inputs  # scales moved into the layer before
        found += matrix.count * (one + 3 * HEADER_ENTRY)
    return found


def _group_bytes(method: Method) -> int:
    """Bytes of a group's scale and zero."""
    if method.quantizer in CODEBOOKS or getattr(method, "symmetric", False):
        return FLOAT32
    return FLOAT32 + (FLOAT32 if method.quantizer in WIDE_ZEROS else 1)


def _groups(method: Method, outputs: int, inputs: int) -> float:
    """Groups of weights of one matrix."""
    if method.group_size == "tensor":
        return 1
    size = inputs if method.group_size == "row" else method.group_size
    return outputs * inputs / size


def score_bytes(study: Study) -> float:
    """Bytes of the score files of all methods, the full model's among them."""
    values = study.documents.n * (study.documents.length - 1)
    files = 1 + len(study.methods)
    return files * (TABLE / 2 + _floats(values) + values / 8) + _floats(values)


def _floats(values: int) -> float:
    """Bytes of a Parquet column of float32, hardly any two of them the same."""
    index = values.bit_length() / 8 if FLOAT32 * values <= DICTIONARY else 0
    return values * (COMPRESSED_FLOATS * FLOAT32 + index)


def file_bytes(name: str, study: Study, shape: ModelShape | None) -> float:
    """Bytes of an output that no wildcard but the model tells more of.

    Args:
        name: of the file, without its folder.
        shape: None for files that are not of one model.
    """
    if shape is not None and name in OF_MODEL:
        return OF_MODEL[name](study, shape)
    return BY_NAME.get(name, BY_ENDING.get(Path(name).suffix, OTHER))


def _rows(per_row: float, count: float) -> float:
    return TABLE + per_row * count


def _methods_rows(study: Study, shape: ModelShape) -> float:
    return _rows(DOCUMENT_ROW, study.documents.n * len(study.methods))


def _inside_rows(study: Study, shape: ModelShape) -> float:
    methods = len(study.mechanism_methods())
    return _rows(LAYER_ROW, study.documents.n * methods * shape.layers / 2)


def _evaluation(study: Study, shape: ModelShape) -> float:
    rows = sum(rows for rows, _ in evaluation_shapes(study, shape).values())
    return 2 * _rows(LAYER_ROW / 2, rows * (1 + len(study.methods)))


def _edited_rows(rule: str, study: Study, shape: ModelShape) -> float:
    """A table with a row per document and edited stream of a rule's jobs."""
    walk = engine_job(rule, study, shape).walks[0]
    return _rows(EDITED_ROW, walk.rows * walk.read_outs)


OF_MODEL: Mapping[str, Callable[[Study, ModelShape], float]] = {
    "scores.json": lambda study, shape: score_bytes(study),  # and the files that it names
    "errors.parquet": _methods_rows,
    "predictions.parquet": lambda study, shape: _rows(
        PREDICTION_ROW, study.documents.n * len(study.methods)
    ),
    "residuals.parquet": lambda study, shape: _rows(LAYER_ROW, study.documents.n * shape.layers),
    "dimensions.parquet": lambda study, shape: _rows(DIMENSION_ROW, shape.layers * shape.hidden),
    "topics.parquet": lambda study, shape: _rows(TOPIC_ROW, study.documents.n),
    "early_exit.parquet": _inside_rows,
    "mlp_differences.parquet": _inside_rows,
    "evaluation.parquet": _evaluation,
    "patching.parquet": partial(_edited_rows, "patch"),
    "intervention_scores.parquet": partial(_edited_rows, "intervene"),
    "module_scores.parquet": partial(_edited_rows, "mix_precision"),
    "perturbation_scores.parquet": partial(_edited_rows, "perturb"),
    "perturbation_evaluation.parquet": partial(_edited_rows, "perturb"),
    "simulation_scores.parquet": partial(_edited_rows, "simulate_quantization"),
    "simulation_evaluation.parquet": partial(_edited_rows, "simulate_quantization"),
}
"""Files that grow with the study or the model."""
