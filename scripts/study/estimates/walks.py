"""What the engine's jobs do: how many streams walk over how many documents.

Counts follow `lowbit.experiments`; where a stream leaves another at a later block, only the blocks
of its own are counted.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from lowbit.experiments.conditions import list_conditions
from lowbit.experiments.perturbation_conditions import (
    Plan,
    list_perturbations,
    list_sensitivities,
)
from lowbit.experiments.simulation_settings import TRANSFORMS, UNQUANTIZED, list_simulations
from study.config.study import Study
from study.estimates.shapes import ModelShape

EDITS_AT_ONCE = 16
"""As in `lowbit.experiments.edited_documents`, which needs PyTorch."""
EXITS = 2
"""Places of a block where a stream is read out: r and z."""
MIXED_MODELS = 13
"""Models with some modules in higher precision: by the ranking, the last, ten at random, all."""
LAYER_SETS = (0.0, 1 / 3, 2 / 3, 1 / 2)
"""Where the thirds of the depth and the upper half begin, as in `intervention_conditions`."""
SCALINGS, SWAPS, SHAMS = 4, 3, 4
"""Interventions: factors of norm(r) in each set of layers; swaps in the upper half; shams."""
USUAL_LENGTH = 2048
"""Tokens of an evaluation window where nothing says otherwise."""
WINDOWS, ITEMS = 166, 5153
"""Rows of an evaluation set of unknown size: windows of 2,048 tokens of WikiText-2's test split
under Llama 2's tokenizer; items of LAMBADA."""
ITEM_LENGTH = 128
"""Tokens of an item of unknown length; LAMBADA's are shorter."""


@dataclass(frozen=True)
class Walk:
    """One pass of some streams over some documents."""

    rows: int
    length: int
    """Tokens of a row."""
    streams: int
    """Hidden states that are held at once."""
    blocks: float
    """Blocks that are run, of all streams together; more than once where walks are repeated."""
    read_outs: float
    """How often the output head is applied, to all tokens of all rows."""
    changed_matrices: int = 0
    """Edited streams that hold matrices of a block of their own."""
    by_block: bool = False
    """Whether many batches pass a block before the next, though the weights are resident."""
    groups: int = 1
    """How often all documents are walked: edited streams are so many at once."""
    exits: bool = False
    """Whether the output head is applied in the middle of a block, and not only after the last."""


@dataclass(frozen=True)
class Job:
    """What one job of the engine does."""

    walks: Sequence[Walk]
    quantized: int = 0
    """Methods whose weights are there beside the full model's."""
    kept_bytes: float = 0.0
    """Results that are collected until the end, in bytes."""


def documents_of_sets(study: Study) -> int:
    """Documents of D_large and D_ctrl of one method."""
    return 2 * round(study.documents.n * study.errors.large_fraction)


def evaluation_shapes(study: Study, shape: ModelShape) -> dict[str, tuple[int, int]]:
    """Evaluation set -> rows and tokens of a row; what only its text could tell is assumed."""
    found = {}
    for name, each in study.evaluation.items():
        usual = min(USUAL_LENGTH, shape.context or USUAL_LENGTH)
        windows = each.kind == "windows"
        length = (each.length or usual) if windows else min(ITEM_LENGTH, usual)
        found[name] = each.n or (WINDOWS * USUAL_LENGTH // length if windows else ITEMS), length
    return found


def engine_job(rule: str, study: Study, shape: ModelShape) -> Job:
    """What a job of `rule` does for a model.

    Raises:
        KeyError: no rule of the engine.
    """
    return ENGINE_RULES[rule](study, shape)


def _score(study: Study, shape: ModelShape) -> Job:
    documents, streams = study.documents, 1 + len(study.methods)
    tokens = documents.n * (documents.length - 1)
    # NLL as float32 and flips as a byte for each method; the full model's confidence as well.
    kept = tokens * (5 * streams + 4)
    return Job([_plain(documents.n, documents.length, streams, shape)], len(study.methods), kept)


def _evaluate(study: Study, shape: ModelShape) -> Job:
    streams = 1 + len(study.methods)
    sets = evaluation_shapes(study, shape).values()
    return Job([_plain(*each, streams, shape) for each in sets], len(study.methods))


def _measure_residuals(study: Study, shape: ModelShape) -> Job:
    return Job([_plain(study.documents.n, study.documents.length, 1, shape, read_outs=0)])


def _trace_layers(study: Study, shape: ModelShape) -> Job:
    methods, length = len(study.mechanism_methods()), study.documents.length
    together = [methods] if study.mechanisms.sets_of else [1] * methods
    exits = [_exits(documents_of_sets(study), length, 1 + k, shape) for k in together]
    whole = _plain(study.documents.n, length, 1 + methods, shape, read_outs=0)
    return Job([*exits, whole], methods)


def _patch(study: Study, shape: ModelShape) -> Job:
    conditions = list_conditions(shape.layers, study.mechanisms.patch)
    distinct = {str(each): each for each in conditions if not each.is_whole(shape.layers)}
    starts = [min(each.blocks) / shape.layers for each in distinct.values()]
    rows, length = documents_of_sets(study), study.documents.length
    methods = len(study.mechanism_methods())
    # The donor is on a method's scales where it moves some: a whole second set of weights.
    return Job([_edited(rows, length, 2, starts, shape)] * methods, 2 * methods)


def _intervene(study: Study, shape: ModelShape) -> Job:
    starts = [start for start in LAYER_SETS for _ in range(SCALINGS + 1)]
    starts += [1 / 2] * SWAPS + [0.0] * SHAMS
    methods = len(study.mechanism_methods())
    walk = _edited(documents_of_sets(study), study.documents.length, 2, 2 * starts, shape)
    return Job([walk] * methods, methods)


def _mix_precision(study: Study, shape: ModelShape) -> Job:
    rows, length = study.documents.n // 2, study.documents.length
    modules = [
        block / shape.layers for block in range(shape.layers) for _ in range(_projections(shape))
    ]
    ranking = _edited(rows, length, 1, modules, shape, changed=1)
    mixed = _plain(rows, length, 2 + MIXED_MODELS, shape)
    methods = [study.mechanisms.mixed_precision.base, study.mechanisms.mixed_precision.higher]
    return Job([ranking, mixed], sum(method in study.methods for method in methods))


def _perturb(study: Study, shape: ModelShape) -> Job:
    wanted, length = study.perturbation, study.documents.length
    plan = Plan(wanted.intensities, wanted.quantiles, wanted.seeds)
    everywhere = [0.0] * len(list_perturbations(plan))
    kinds = _projections(shape)
    if wanted.projections:
        kinds = min(kinds, len(wanted.projections))
    alone = list_sensitivities([list(map(str, range(kinds)))] * shape.layers, plan)
    starts = [each.block / shape.layers for each in alone] if wanted.sensitivity else []
    changed = EDITS_AT_ONCE
    edited = partial(_edited, shape=shape, changed=changed, by_block=True)
    walks = [edited(wanted.documents, length, 1, [*everywhere, *starts])]
    walks += [edited(*each, 1, everywhere) for each in evaluation_shapes(study, shape).values()]
    return Job(walks)


def _simulate(study: Study, shape: ModelShape) -> Job:
    wanted = study.simulation
    transforms = wanted.transforms or TRANSFORMS
    simulations = list_simulations(wanted.settings, transforms, wanted.activation_transforms)
    changed = any(each.weight_bits != UNQUANTIZED for each in simulations) * EDITS_AT_ONCE
    edited = partial(_edited, shape=shape, changed=changed, by_block=True)
    starts = [0.0] * len(simulations)
    walks = [edited(wanted.documents, study.documents.length, 1, starts)]
    walks += [edited(*each, 1, starts) for each in evaluation_shapes(study, shape).values()]
    calibration = next(iter(study.calibration.values()))
    ranges = _plain(calibration.n, calibration.length, 1, shape, read_outs=0)
    return Job([*walks, ranges])


def _relate_errors(study: Study, shape: ModelShape) -> Job:
    return Job([])


ENGINE_RULES: Mapping[str, Callable[[Study, ModelShape], Job]] = {
    "score": _score,
    "evaluate": _evaluate,
    "measure_residuals": _measure_residuals,
    "trace_layers": _trace_layers,
    "patch": _patch,
    "intervene": _intervene,
    "mix_precision": _mix_precision,
    "perturb": _perturb,
    "simulate_quantization": _simulate,
    "relate_errors": _relate_errors,
}
"""Rules whose jobs open the engine."""


def _plain(
    rows: int, length: int, streams: int, shape: ModelShape, read_outs: float | None = None
) -> Walk:
    """All streams through all blocks, once."""
    blocks = streams * shape.layers
    return Walk(rows, length, streams, blocks, streams if read_outs is None else read_outs)


def _exits(rows: int, length: int, streams: int, shape: ModelShape) -> Walk:
    """All streams through all blocks, each read out at every exit."""
    walked = _plain(rows, length, streams, shape, read_outs=EXITS * shape.layers * streams)
    return replace(walked, exits=True)


def _edited(
    rows: int,
    length: int,
    unedited: int,
    starts: Sequence[float],
    shape: ModelShape,
    changed: int = 0,
    by_block: bool = False,
) -> Walk:
    """Edited streams in groups, each group beside the unedited ones.

    Args:
        starts: of each edited stream the share of the depth where it leaves the unedited one.
        changed: edited streams that hold matrices of their own at once.
    """
    groups = max(1, -(-len(starts) // EDITS_AT_ONCE))
    at_once = unedited + min(len(starts), EDITS_AT_ONCE)
    blocks = shape.layers * (groups * unedited + sum(1 - start for start in starts))
    read_outs = groups * unedited + len(starts)
    return Walk(rows, length, at_once, blocks, read_outs, changed, by_block, groups)


def _projections(shape: ModelShape) -> int:
    """Kinds of matrices in a block; those of experts count once."""
    return len({matrix.name for matrix in shape.matrices})


def largest(walks: Iterable[Walk]) -> Iterator[Walk]:
    """Each kind of walk once: repeated ones take no more memory."""
    return iter(dict.fromkeys(walks))
