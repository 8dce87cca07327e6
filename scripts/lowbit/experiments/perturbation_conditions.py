"""Which perturbations are tried (arXiv 2403.06408). Nothing here needs PyTorch.

Every condition is one change of weights, of activations (what the projections of the blocks read),
or of both, with one seed. Conditions of one seed draw the same eps, so that intensities and
relations are compared on the same draw.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from math import nan

WEIGHTS, ACTIVATIONS, BOTH = "weights", "activations", "both"
NOISE, CLIP, SHUFFLED, MATCHED = "noise", "clip", "shuffled clipping", "matched noise"
"""Changes: noise matched to a quantizer's error; clipping; the same entries perturbed by as much;
noise on all entries of clipping's norm."""
TENSOR, CHANNEL = "tensor", "channel"
"""What each norm is of: a weight matrix, or one of its rows. Of activations: one document."""
ALL = "all"
GAUSSIAN, INDEPENDENT = "gaussian", "independent"
OTHER_DISTRIBUTIONS, OTHER_RELATIONS = ("uniform", "rademacher"), ("M+", "M-", "inverse")


@dataclass(frozen=True)
class Perturbation:
    """One perturbation of the model."""

    target: str
    """`weights`, `activations` or `both`."""
    change: str = NOISE
    distribution: str = GAUSSIAN
    """`gaussian`, `uniform` or `rademacher`; of noise."""
    relation: str = INDEPENDENT
    """To |x|: `independent`, `M+`, `M-` or `inverse`; of noise."""
    per: str = TENSOR
    intensity: float = 1.0
    """Norm of the noise over that of the reference's error; nan where clipping sets the norm."""
    quantile: float = nan
    """Of |x|; what is above is clipped. nan for noise."""
    projection: str = ALL
    """Name of the projections that are perturbed, such as `q_proj`."""
    block: int = -1
    """Block that is perturbed, counted from 0; -1 for all."""
    seed: int = 0

    def __str__(self) -> str:
        """All that tells it from others; the name of its stream."""
        return ", ".join(str(getattr(self, field.name)) for field in fields(self))


def plain_noise(target: str, **changes: object) -> dict[str, object]:
    """What tells one kind of noise from all other perturbations, by column of their tables.

    Gaussian, independent of |x|, of the reference's norm, on all projections, but for `changes`.
    """
    kind = {"target": target, "change": NOISE, "distribution": GAUSSIAN, "relation": INDEPENDENT}
    size = {"per": TENSOR, "intensity": 1.0}
    return kind | size | {"projection": ALL, "block": -1} | changes


@dataclass(frozen=True)
class Plan:
    """What is tried, as in the config's `perturbation`."""

    intensities: Sequence[float]
    quantiles: Sequence[float]
    seeds: int


def list_perturbations(plan: Plan) -> list[Perturbation]:
    """List what is done to all projections of all blocks."""
    return [*_noises(plan), *_clippings(plan)]


def list_nothings() -> list[Perturbation]:
    """List perturbations of intensity 0, which must change nothing."""
    relations = (INDEPENDENT, *OTHER_RELATIONS)
    return [Perturbation(BOTH, relation=relation, intensity=0.0) for relation in relations]


def list_sensitivities(blocks: Sequence[Iterable[str]], plan: Plan) -> list[Perturbation]:
    """List the same noise on the weights of each projection of each block alone.

    Args:
        blocks: names of the projections in each block.
    """
    return [
        Perturbation(WEIGHTS, projection=name, block=index, seed=seed)
        for index, names in enumerate(blocks)
        for name in names
        for seed in range(plan.seeds)
    ]


def _noises(plan: Plan) -> list[Perturbation]:
    """Distributions and norms of rows at the reference's own intensity, the rest at all of them."""
    kinds: list[Mapping[str, object]] = [
        {"target": target, "intensity": intensity}
        for target, intensity in product((WEIGHTS, ACTIVATIONS, BOTH), plan.intensities)
    ]
    single = (WEIGHTS, ACTIVATIONS)
    kinds += [
        {"target": target, "relation": relation, "intensity": intensity}
        for target, relation, intensity in product(single, OTHER_RELATIONS, plan.intensities)
    ]
    kinds += [
        {"target": target, "distribution": distribution}
        for target, distribution in product((WEIGHTS, ACTIVATIONS, BOTH), OTHER_DISTRIBUTIONS)
    ]
    kinds += [
        {"target": WEIGHTS, "per": CHANNEL, "relation": relation}
        for relation in (INDEPENDENT, "M+", "M-")
    ]
    return [Perturbation(**kind, seed=seed) for kind in kinds for seed in range(plan.seeds)]


def _clippings(plan: Plan) -> list[Perturbation]:
    """Clipping itself has no seed; its controls have."""
    found = []
    for target, quantile in product((WEIGHTS, ACTIVATIONS), plan.quantiles):
        found.append(Perturbation(target, CLIP, intensity=nan, quantile=quantile))
        found += [
            Perturbation(target, change, intensity=nan, quantile=quantile, seed=seed)
            for change, seed in product((SHUFFLED, MATCHED), range(plan.seeds))
        ]
    return found
