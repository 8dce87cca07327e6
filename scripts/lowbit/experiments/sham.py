"""The sham control's gate: a norm takes the factor out again of what it alone reads.

RMSNorm divides x by sqrt(mean(x^2) + epsilon), LayerNorm by sqrt(variance + epsilon). With c x in
place of x the result is that of x with epsilon / c^2: nothing changes but what epsilon does where
activations are small. That much is measured and reported. What is left is rounding, and the gate.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lowbit.engine.decoder import Decoder, Tap
from lowbit.engine.edits import Donated, Edited, Scaling, edited_nll
from lowbit.engine.engine import Engine
from lowbit.engine.walk import Stream
from lowbit.errors import GateError
from lowbit.experiments.intervention_conditions import FACTORS
from lowbit.experiments.interventions import NORM_INPUT

SHAM_TOLERANCE = 1e-4
"""Largest difference of one token's NLL that epsilon does not explain, nats, float32."""
EPSILONS = ("eps", "variance_epsilon")
"""What Hugging Face's norms call it."""


def check_sham(
    engine: Engine, stream: Stream, token_ids: NDArray[np.int32], noise_floor: float
) -> dict[str, float]:
    """Scale what the norms alone read, by every factor at all layers.

    In bfloat16 rounding alone exceeds float32's tolerance. Then the noise floor sets it, or what
    scaling by a factor and back changes, where that is more.

    Returns:
        Largest changes of one token's NLL, nats: `by_epsilon`, all that the factor changes,
        `beyond_epsilon`, what another epsilon does not explain, and `tolerance`.

    Raises:
        GateError: `beyond_epsilon` is above the tolerance.
    """
    changes = [_changes(engine, stream, factor, token_ids) for factor in FACTORS]
    by_epsilon, beyond = (float(max(column)) for column in zip(*changes, strict=True))
    tolerance = max(SHAM_TOLERANCE, 4 * noise_floor, 4 * _rounding(engine, stream, token_ids))
    if not beyond <= tolerance:
        raise GateError(
            f"scaling what only the norm before the MLP reads changed {stream.name} by "
            f"{beyond:.3g} nats per token beyond what the norm's epsilon explains; "
            f"{tolerance:.3g} is allowed: it is no sham."
        )
    return {"by_epsilon": by_epsilon, "beyond_epsilon": beyond, "tolerance": tolerance}


@dataclass(frozen=True)
class RoundTrip(Scaling):
    """Scale an activation and scale it back, so that only rounding is left."""

    def taps(self, index: int, rows: slice, donated: Donated) -> Mapping[str, Tap]:
        factor = self.factors[index]
        return {self.role: lambda activation: activation * factor / factor}


def _rounding(engine: Engine, stream: Stream, token_ids: NDArray[np.int32]) -> float:
    """Largest change of one token's NLL by rounding what every norm reads, nats."""
    edit = RoundTrip(NORM_INPUT, dict.fromkeys(range(len(engine.decoder)), FACTORS[1]))
    batches = edited_nll(engine, [stream], {"back": Edited(stream.name, edit)}, token_ids)
    return max(float(np.abs(batch["back"] - batch[stream.name]).max()) for batch in batches)


def _changes(
    engine: Engine, stream: Stream, factor: float, token_ids: NDArray[np.int32]
) -> tuple[np.float32, np.float32]:
    """Largest change by the factor, and of it what epsilon / factor^2 does not do as well."""
    blocks = range(len(engine.decoder))
    sham = {"sham": Edited(stream.name, Scaling(NORM_INPUT, dict.fromkeys(blocks, factor)))}
    scaled = list(edited_nll(engine, [stream], sham, token_ids))
    with epsilon_divided(engine.decoder, blocks, factor**2):
        explained = list(edited_nll(engine, [stream], {}, token_ids))
    by_epsilon = max(np.abs(batch["sham"] - batch[stream.name]).max() for batch in scaled)
    beyond = max(
        np.abs(batch["sham"] - other[stream.name]).max()
        for batch, other in zip(scaled, explained, strict=True)
    )
    return by_epsilon, beyond


@contextmanager
def epsilon_divided(decoder: Decoder, blocks: Collection[int], by: float) -> Iterator[None]:
    """Divide epsilon of the norm before the MLP in some blocks, for a while."""
    norms = [
        decoder.blocks[index].get_submodule(decoder.sites[index][NORM_INPUT][0]) for index in blocks
    ]
    named = [(norm, name) for norm in norms for name in EPSILONS if name in vars(norm)]
    before = [getattr(norm, name) for norm, name in named]
    try:
        for (norm, name), epsilon in zip(named, before, strict=True):
            setattr(norm, name, epsilon / by)
        yield
    finally:
        for (norm, name), epsilon in zip(named, before, strict=True):
            setattr(norm, name, epsilon)
