"""Residual magnitudes of the full-precision model (arXiv 2506.12044, section 4.1).

r(l) = z(l-1) + Attn(LN1(z(l-1))); z(l) = r(l) + MLP(LN2(r(l))); h(l) = LN2(r(l)).
norm(x; a(l)) is the mean over the tokens of document x of the L2 norm of activation a at block l;
the kurtosis is likewise a mean over tokens, of the excess kurtosis over a token's dimensions.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowbit.engine.decoder import Tap
from lowbit.engine.engine import Engine
from lowbit.engine.streams import block_parameters
from lowbit.engine.walk import walk

QUANTITIES = {"r": "residual_mid", "z": "residual_out", "h": "mlp_in"}
"""The paper's letter of each activation, and its role."""


def _norm(activation: Tensor) -> Tensor:
    return activation.norm(dim=-1)


def _kurtosis(activation: Tensor) -> Tensor:
    """Excess kurtosis over the last dimension, 0 for a normal distribution."""
    squared = (activation - activation.mean(-1, keepdim=True)).square()
    return squared.square().mean(-1) / squared.mean(-1).square() - 3


MEASURES: Mapping[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "r": ("r", _norm),
    "z": ("z", _norm),
    "h": ("h", _norm),
    "r_kurtosis": ("r", _kurtosis),
    "h_kurtosis": ("h", _kurtosis),
}
"""Name of a measure -> quantity, and what is taken of each token's activation `[..., width]`."""


@dataclass(frozen=True)
class ResidualMeasures:
    """What one shard gave; a quantity whose role the architecture does not have is left out."""

    documents: dict[str, NDArray[np.float64]]
    """Per measure: means over tokens, `[documents, layers]`."""
    magnitude: NDArray[np.float64]
    """Sum over documents of the mean over tokens of |r| by dimension, `[layers, hidden]`; of z
    where there is no r."""


def measure_residuals(
    engine: Engine, token_ids: NDArray[np.int32], first: int = 0
) -> Iterator[ResidualMeasures]:
    """Walk the full-precision model over `token_ids` `[documents, length]`; yields per shard.

    Args:
        first: document to begin with, as in `Engine.shards`.
    """
    present = [q for q, role in QUANTITIES.items() if role in engine.decoder.roles]
    layers, width = len(engine.decoder), engine.decoder.model.config.hidden_size
    for shard in engine.shards(token_ids, first=first):
        batches = [
            ResidualMeasures(
                {
                    name: np.zeros((len(rows), layers))
                    for name, (q, _) in MEASURES.items()
                    if q in present
                },
                np.zeros((layers, width)),
            )
            for rows in shard
        ]
        taps = partial(_measure_taps, present, batches)
        for _ in walk(engine.decoder, [engine.full], shard, taps):
            pass
        yield ResidualMeasures(
            {
                name: np.concatenate([batch.documents[name] for batch in batches])
                for name in batches[0].documents
            },
            sum(batch.magnitude for batch in batches),
        )


def _measure_taps(
    present: list[str], batches: list[ResidualMeasures], stream: str, index: int, batch: int
) -> Mapping[str, Tap]:
    found = batches[batch]

    def read(quantity: str, activation: Tensor) -> None:
        activation = activation.float()
        for name, (of, measure) in MEASURES.items():
            if of == quantity:
                found.documents[name][:, index] = measure(activation).mean(1).cpu()
        if quantity == present[0]:
            found.magnitude[index] = activation.abs().mean(1).sum(0).cpu()

    return {QUANTITIES[quantity]: partial(read, quantity) for quantity in present}


def norm_weights(engine: Engine) -> NDArray[np.float64] | None:
    """What the norm before each MLP multiplies by (gamma), `[layers, hidden]`.

    None where a block has no such norm (OPT-350M's follow the additions).
    """
    decoder = engine.decoder
    if "mlp_norm_in" not in decoder.roles:
        return None
    weights = [
        block_parameters(decoder, engine.full, index)[f"{sites['mlp_norm_in'][0]}.weight"]
        for index, sites in enumerate(decoder.sites)
    ]
    offset = decoder.architecture.norm_offset
    return torch.stack([w.detach().double() for w in weights]).add(offset).cpu().numpy()
