"""Cross-model activation patching and weights put back, condition by condition, in few walks.

Every condition is a stream that leaves the quantized one where it is first changed (see
`lowbit.engine.edits`). Hundreds of them (each role in each block) are walked in groups, so that
memory does not grow with their number.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lowbit.engine.decoder import Decoder
from lowbit.engine.edits import Edit, Edited, Patch, Restoration
from lowbit.engine.engine import Engine
from lowbit.engine.sizes import PROBE_DOCUMENTS
from lowbit.engine.streams import block_parameters
from lowbit.engine.walk import Stream
from lowbit.errors import GateError
from lowbit.experiments.conditions import ALL_WEIGHTS, GATE_INPUT, PATCH, Condition
from lowbit.experiments.edited_documents import EDITS_AT_ONCE, document_nll, read_once
from lowbit.unfinished import UNKEPT, Unkept


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
    parts: Unkept = UNKEPT,
) -> dict[str, NDArray[np.float64]]:
    """Mean NLL of each document of `token_ids` `[documents, length]` under every condition.

    Conditions that leave nothing of the quantized model have the donor's NLL; they are walked over
    a few documents to check that.

    Args:
        advance: called with the number of documents that are done in one of the `groups`.
        parts: finished parts are kept there and taken from there.

    Returns:
        `[documents]`, nats: by the names of the full-precision, the donor and the quantized stream,
        and by `str` of each condition.

    Raises:
        GateError: a condition that must give the donor's NLL does not.
    """
    others = [] if donor is engine.full else [engine.full]
    quantized, donor = read_once(quantized), read_once(donor)
    whole = [each for each in conditions if each.is_whole(len(engine.decoder))]
    check_whole(_walk(engine, quantized, donor, whole, token_ids[:PROBE_DOCUMENTS]), whole, donor)
    found: dict[str, NDArray[np.float64]] = {}
    for number, group in enumerate(groups(conditions, len(engine.decoder))):
        kept = parts.of(str(number))
        found |= _walk(engine, quantized, donor, group, token_ids, others, advance, kept)
        others = []  # no condition needs them: once is enough
    return found | {str(condition): found[donor.name] for condition in whole}


def groups(conditions: Sequence[Condition], blocks: int) -> list[list[Condition]]:
    """Cut conditions into groups of at most `EDITS_AT_ONCE`, all of about the same size.

    Those of the same effect are walked once, and those whose effect is known not at all.
    """
    distinct = list({str(each): each for each in conditions if not each.is_whole(blocks)}.values())
    count = max(1, -(-len(distinct) // EDITS_AT_ONCE))
    ends = [round(len(distinct) * number / count) for number in range(count + 1)]
    return [distinct[start:end] for start, end in pairwise(ends)]


def check_whole(
    found: Mapping[str, NDArray[np.float64]], conditions: Sequence[Condition], donor: Stream
) -> None:
    """Raise `GateError` unless conditions have exactly the donor's NLL."""
    for condition in conditions:
        difference = np.abs(found[str(condition)] - found[donor.name]).max()
        if not difference == 0:
            raise GateError(
                f"{condition} leaves nothing of the quantized model, but the NLL differs from that "
                f"of {donor.name} by {difference:.3g} nats per token; it must be exactly 0."
            )


def _walk(
    engine: Engine,
    quantized: Stream,
    donor: Stream,
    conditions: Sequence[Condition],
    token_ids: NDArray[np.int32],
    others: Sequence[Stream] = (),
    advance: Callable[[int], object] = lambda documents: None,
    parts: Unkept = UNKEPT,
) -> dict[str, NDArray[np.float64]]:
    """Walk conditions in one group; `others`: streams that only their NLL is wanted of."""
    edits = {
        str(condition): Edited(quantized.name, edit_of(condition, engine.decoder, donor))
        for condition in conditions
    }
    streams = [*others, donor, quantized]
    return document_nll(engine, streams, [edits], token_ids, advance, donor.name, parts)
