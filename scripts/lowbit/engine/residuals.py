"""Residual magnitudes of the full-precision model (arXiv 2506.12044, section 4.1).

r(l) = z(l-1) + Attn(LN1(z(l-1))); z(l) = r(l) + MLP(LN2(r(l))); h(l) = LN2(r(l)).
norm(x; a(l)) is the mean over the tokens of document x of the L2 norm of activation a at block l.
"""

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowbit.engine.decoder import Tap
from lowbit.engine.engine import Engine
from lowbit.engine.walk import walk

QUANTITIES = {"r": "residual_mid", "z": "residual_out", "h": "mlp_in"}
"""The paper's letter of each activation, and its role."""

Norms = dict[str, Tensor]
"""Per quantity: float32 `[batch, layers]`."""


def residual_norms(
    engine: Engine, token_ids: NDArray[np.int32]
) -> Iterator[dict[str, NDArray[np.float64]]]:
    """Yield, batch by batch, each quantity's norms `[batch, layers]`.

    A quantity whose role the architecture does not have (r of a parallel residual) is left out.
    """
    present = {q: role for q, role in QUANTITIES.items() if role in engine.decoder.roles}
    for shard in engine.shards(token_ids):
        layers = len(engine.decoder)
        norms: list[Norms] = [
            {q: torch.zeros(len(rows), layers) for q in present} for rows in shard
        ]
        taps = partial(_norm_taps, present, norms)
        for number, _ in enumerate(walk(engine.decoder, [engine.full], shard, taps)):
            yield {q: column.double().numpy() for q, column in norms[number].items()}


def _norm_taps(
    roles: dict[str, str], norms: list[Norms], stream: str, index: int, batch: int
) -> Mapping[str, Tap]:
    def read(quantity: str, activation: Tensor) -> None:
        norms[batch][quantity][:, index] = activation.float().norm(dim=-1).mean(1).cpu()

    return {role: partial(read, quantity) for quantity, role in roles.items()}
