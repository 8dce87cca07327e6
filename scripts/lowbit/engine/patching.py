"""Cross-model activation patching and weights put back, condition by condition, in few walks.

Every condition is a stream that leaves the quantized one where it is first changed (see
`lowbit.engine.edits`). Hundreds of them (each role in each block) are walked in groups, so that
memory does not grow with their number.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lowbit.engine.conditions import ALL_WEIGHTS, GATE_INPUT, PATCH, Condition
from lowbit.engine.decoder import Decoder
from lowbit.engine.edits import Edit, Edited, Patch, Restoration, edited_nll
from lowbit.engine.engine import Engine
from lowbit.engine.streams import block_parameters
from lowbit.engine.walk import Stream
from lowbit.errors import GateError

EDITS_AT_ONCE = 16
"""Edited streams in one walk: each holds one more activation of a batch (of a shard, where weights
are read block by block); the streams that they are made from cost an eighth of it or less."""


def edit_of(condition: Condition, decoder: Decoder, donor: Stream) -> Edit:
    """Return the edit that a condition is; weights and activations come from `donor`."""
    if condition.kind == PATCH:
        return Patch(condition.role, condition.blocks)

    def source(index: int) -> Mapping[str, Tensor]:
        whole = block_parameters(decoder, donor, index)
        if condition.role == ALL_WEIGHTS:
            return whole
        module, _ = decoder.sites[index][GATE_INPUT]
        return {name: tensor for name, tensor in whole.items() if name.startswith(f"{module}.")}

    return Restoration(source, condition.blocks)


def condition_nll(
    engine: Engine,
    quantized: Stream,
    donor: Stream,
    conditions: Sequence[Condition],
    token_ids: NDArray[np.int32],
    advance: Callable[[int], object] = lambda documents: None,
) -> dict[str, NDArray[np.float64]]:
    """Mean NLL of each document of `token_ids` `[documents, length]` under every condition.

    Args:
        advance: called with the number of documents that are done in one of the `groups`.

    Returns:
        `[documents]`, nats: by the names of the full-precision, the donor and the quantized stream,
        and by `str` of each condition.
    """
    unedited = [_read_once(donor), _read_once(quantized)]
    others = [] if donor is engine.full else [engine.full]
    found: dict[str, NDArray[np.float64]] = {}
    for group in groups(conditions):
        edits = {
            str(condition): Edited(quantized.name, edit_of(condition, engine.decoder, unedited[0]))
            for condition in group
        }
        parts = []
        for batch in edited_nll(engine, [*others, *unedited], edits, token_ids, donor.name):
            parts.append({name: nll.mean(1, dtype=np.float64) for name, nll in batch.items()})
            advance(len(parts[-1][donor.name]))
        found |= {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        others = []  # no condition needs them: once is enough
    return found


def groups(conditions: Sequence[Condition]) -> list[list[Condition]]:
    """Cut conditions into groups of at most `EDITS_AT_ONCE`, all of about the same size.

    Those that change the same in the same blocks are walked once.
    """
    distinct = list({str(condition): condition for condition in conditions}.values())
    count = max(1, -(-len(distinct) // EDITS_AT_ONCE))
    ends = [round(len(distinct) * number / count) for number in range(count + 1)]
    return [distinct[start:end] for start, end in pairwise(ends)]


def check_whole_conditions(
    found: Mapping[str, NDArray[np.float64]],
    conditions: Sequence[Condition],
    donor: str,
    blocks: int,
) -> float:
    """Largest difference in nats from the donor where by construction there is none; it is 0.

    Raises:
        GateError: it is not.
    """
    whole = [str(condition) for condition in conditions if condition.is_whole(blocks)]
    worst = max((float(np.abs(found[name] - found[donor]).max()) for name in whole), default=0.0)
    if worst != 0:
        raise GateError(
            f"with the last residual stream or all weights of {donor} the quantized model still "
            f"differs from it by {worst:.3g} nats per token; it must be exactly 0."
        )
    return worst


def _read_once(stream: Stream) -> Stream:
    """The same stream; what is made from it in a block shares one set of tensors."""
    return Stream(stream.name, lru_cache(maxsize=1)(stream.parameters))
