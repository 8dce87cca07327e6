"""Interventions on the residual stream's norm, alike in a full-precision and a quantized stream.

The inputs paper (arXiv 2506.12044, section 4.1) finds that documents with a small norm(r) have
large errors, and changes nothing itself. Here norm(r) is *set*, the direction of r kept, and the
error e = NLL(quantized) - NLL(full precision) is measured again, both models changed by the same
factors. Every intervention is one `Edit` for each of the two streams.

scale         norm(x; r(l)) of document x becomes `factor` times what it is in the unchanged
              full-precision model, at every layer l of some layers
swap          it becomes that of the document's partner
swap_inverse  it is divided by what the swap multiplies it with: as large a change, the other way
sham          only the norms before the MLPs read r at `factor` times its norm, at all layers at
              once; r itself stays. RMSNorm and LayerNorm take the factor out again, so nothing may
              change (`experiments.sham`)
swap_sham     the same with the partner's norm over the document's own
gamma         the smallest |gamma| of the norm before the MLP are raised to the median
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowbit.engine.decoder import Decoder, Tap
from lowbit.engine.edits import Donated, Edit, Edited, Restoration, Scaling
from lowbit.engine.engine import Engine
from lowbit.engine.streams import block_parameters
from lowbit.engine.walk import Stream
from lowbit.errors import GateError
from lowbit.experiments.intervention_conditions import (
    ALL,
    FACTORS,
    GAMMA,
    SCALE,
    SHAM,
    SWAP,
    SWAP_INVERSE,
    SWAP_SHAM,
    SWAPS,
    UPPER_HALF,
    layer_sets,
)
from lowbit.names import FULL

SMALL_SHARE = 0.05
"""Share of a norm's entries, those with the smallest |gamma|, that are raised."""
NORM_TOLERANCE = 1e-4
"""Largest relative difference of norm(r) between residuals.parquet and the walk, float32."""

R, NORM_INPUT = "residual_mid", "mlp_norm_in"
"""Role of r for norm and residual branch together, and as the norm alone reads it."""


@dataclass(frozen=True)
class Rescaling(Scaling):
    """Scale each document by the factor that makes the mean norm of its tokens a target.

    The factors are found on the way and kept in `factors`, so that a plain `Scaling` with the same
    arrays, in a stream that is walked after this one, uses the same. A fixed factor at every layer
    instead would act once more at each: r(l + 1) contains the r(l) that was already scaled.
    """

    targets: Mapping[int, NDArray[np.float64]]
    """By block: the mean norm that each document gets, `[documents]`."""

    @classmethod
    def to(cls, role: str, targets: Mapping[int, NDArray[np.float64]]) -> "Rescaling":
        """Make the edit with room for the factors."""
        return cls(role, {index: np.ones(len(each)) for index, each in targets.items()}, targets)

    @property
    def measured(self) -> Mapping[str, Tensor]:
        return {str(index): torch.from_numpy(each) for index, each in self.factors.items()}

    def taps(self, index: int, rows: slice, donated: Donated) -> Mapping[str, Tap]:
        def rescale(activation: Tensor) -> Tensor:
            norm = activation.float().norm(dim=-1).mean(1)
            factor = torch.as_tensor(self.targets[index][rows]).to(norm) / norm
            self.factors[index][rows] = factor.cpu().numpy()
            return activation * factor[:, None, None].to(activation)

        return {self.role: rescale}


@dataclass(frozen=True)
class Intervention:
    """One change, made in both streams."""

    condition: str
    """`scale`, `swap`, `swap_inverse`, `sham`, `swap_sham` or `gamma`."""
    layers: str
    """Name of a set of layers: `all`, or one of `layer_sets`."""
    factor: float
    """Of norm(r); nan where every document has its own, or none is meant."""
    full: Edit
    quantized: Edit
    ratio: NDArray[np.float64] | float = np.nan
    """norm(r) that is meant over the unchanged one, mean over the layers, `[documents]` or one for
    all; nan where no norm is meant."""

    def pack(self, quantized: str) -> dict[str, Edited]:
        """Both edits, the full-precision stream's first, by the names of the edited streams."""
        return {
            self.name(FULL): Edited(FULL, self.full),
            self.name(quantized): Edited(quantized, self.quantized),
        }

    def name(self, stream: str) -> str:
        """Name of a stream with this intervention."""
        return f"{stream}, {self.condition} {self.layers} {self.factor:g}"


def list_interventions(
    engine: Engine,
    quantized: Stream,
    norms: NDArray[np.float64] | None,
    partners: NDArray[np.intp],
) -> tuple[list[Intervention], dict[str, str]]:
    """List all interventions for some documents, and why conditions are left out.

    Args:
        norms: norm(x; r(l)) of the unchanged full-precision model, `[documents, layers]`; None
            where the architecture has no r.
        partners: by document the row of the one whose norms it gets, `[documents]`; its own row
            where it has no partner.
    """
    decoder, sets = engine.decoder, layer_sets(len(engine.decoder))
    found: list[Intervention] = []
    dropped: dict[str, str] = {}
    if norms is None:
        dropped = dict.fromkeys((SCALE, *SWAPS), f"no role {R}")
    else:
        found += _scaled(sets, norms)
        found += _swapped(sets[UPPER_HALF], norms, partners, NORM_INPUT in decoder.roles)
    if NORM_INPUT in decoder.roles:
        found += _sham(len(decoder))
        found += _gamma(engine, quantized, sets)
    else:
        reason = f"no role {NORM_INPUT}: no norm between r and the MLP"
        dropped |= dict.fromkeys((SHAM, SWAP_SHAM, GAMMA), reason)
    return found, dropped


def check_norms(
    interventions: Sequence[Intervention], norms: NDArray[np.float64], dtype: torch.dtype
) -> float:
    """Largest relative difference of norm(r) between `norms` and what the walk found.

    The first layer that an intervention rescales is still as in the unchanged model.

    Raises:
        GateError: it is above the tolerance, so the norms are of other documents or another model.
    """
    worst = 0.0
    for edit in (each.full for each in interventions):
        if isinstance(edit, Rescaling):
            first = min(edit.blocks)
            walked = edit.targets[first] / edit.factors[first]
            worst = max(worst, float(np.abs(walked / norms[:, first] - 1).max()))
    tolerance = max(NORM_TOLERANCE, 4 * torch.finfo(dtype).eps)
    if not worst <= tolerance:
        raise GateError(
            f"norm(r) differs from residuals.parquet by a share of {worst:.3g}; {tolerance:.3g} is "
            "allowed. It was measured on another model or other documents."
        )
    return worst


def raised_gamma(decoder: Decoder, full: Stream, stream: Stream, index: int) -> dict[str, Tensor]:
    """Weight of the norm before the MLP of block `index`, its smallest entries raised.

    Those are the `SMALL_SHARE` of the full-precision gamma that are smallest in magnitude, but for
    entries of exactly 0, which shut a channel. There gamma becomes the median |gamma| with its own
    sign. The quantized stream's gamma, which may have scales folded in or be trained, is multiplied
    by the same ratio. Gemma's norms multiply by 1 + weight.
    """
    name = f"{decoder.sites[index][NORM_INPUT][0]}.weight"
    offset = decoder.architecture.norm_offset
    gamma = block_parameters(decoder, full, index)[name].detach().float() + offset
    magnitude = gamma.abs()
    open_channels = torch.where(magnitude > 0, magnitude, torch.inf)
    small = open_channels.argsort()[: max(1, round(SMALL_SHARE * len(gamma)))]
    ratio = torch.ones_like(gamma)
    ratio[small] = magnitude.quantile(0.5) / magnitude[small]
    ratio[magnitude == 0] = 1
    own = block_parameters(decoder, stream, index)[name].detach()
    return {name: ((own.float() + offset) * ratio - offset).to(own)}


def _scaled(sets: Mapping[str, list[int]], norms: NDArray[np.float64]) -> list[Intervention]:
    found = []
    for layers, blocks in sets.items():
        for factor in FACTORS:
            full = Rescaling.to(R, {index: factor * norms[:, index] for index in blocks})
            same = Scaling(R, full.factors)
            found.append(Intervention(SCALE, layers, factor, full, same, factor))
    return found


def _swapped(
    blocks: list[int], norms: NDArray[np.float64], partners: NDArray[np.intp], sham: bool
) -> list[Intervention]:
    ratios = {index: norms[partners, index] / norms[:, index] for index in blocks}
    inverse = {index: 1 / ratio for index, ratio in ratios.items()}
    found = []
    for condition, factors in ((SWAP, ratios), (SWAP_INVERSE, inverse)):
        full = Rescaling.to(R, {index: norms[:, index] * factors[index] for index in blocks})
        same, mean = Scaling(R, full.factors), np.mean(list(factors.values()), axis=0)
        found.append(Intervention(condition, UPPER_HALF, np.nan, full, same, mean))
    if sham:
        edit = Scaling(NORM_INPUT, ratios)
        found.append(Intervention(SWAP_SHAM, UPPER_HALF, np.nan, edit, edit, found[0].ratio))
    return found


def _sham(blocks: int) -> list[Intervention]:
    edits = {
        factor: Scaling(NORM_INPUT, dict.fromkeys(range(blocks), factor)) for factor in FACTORS
    }
    return [Intervention(SHAM, ALL, factor, e, e, factor) for factor, e in edits.items()]


def _gamma(engine: Engine, quantized: Stream, sets: Mapping[str, list[int]]) -> list[Intervention]:
    def edit(stream: Stream, blocks: list[int]) -> Edit:
        source = partial(raised_gamma, engine.decoder, engine.full, stream)
        return Restoration(source, frozenset(blocks))

    return [
        Intervention(GAMMA, layers, np.nan, edit(engine.full, blocks), edit(quantized, blocks))
        for layers, blocks in sets.items()
    ]
