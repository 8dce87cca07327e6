"""Noise on a tensor x, its size set by an L2 norm (arXiv 2403.06408).

The paper perturbs weights and activations artificially: Gaussian, uniform or Rademacher noise that
is independent of |x|, grows with it (M+) or shrinks with it (M-), all of one L2 norm. Its formulas
could not be recovered; these are ours. eps has mean 0 and variance 1, and Delta is

    independent   c eps
    M+            c |x| eps
    M-            c (max|x| - |x|) eps
    inverse       c eps / max(|x|, FLOOR mean|x|)

with c such that ||Delta||_2 is the norm that is asked for.
"""

import hashlib
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

GAUSSIAN, UNIFORM, RADEMACHER = "gaussian", "uniform", "rademacher"
INDEPENDENT, M_PLUS, M_MINUS, INVERSE = "independent", "M+", "M-", "inverse"
FLOOR = 0.01
"""Share of mean |x| below which 1/|x| grows no more: it has no bound, and no finite variance."""

HALF_AN_ULP = 2.0**-24
"""Largest relative error of rounding to float32."""
SPREAD = 3**0.5
"""Uniform noise on [-sqrt 3, sqrt 3] has variance 1."""


def generator(device: torch.device, *names: object) -> torch.Generator:
    """Return a generator whose seed is a digest of `names`: the same wherever it is asked for."""
    digest = hashlib.sha256("\0".join(map(str, names)).encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little", signed=True))


def unit_noise(shape: tuple[int, ...], distribution: str, random: torch.Generator) -> Tensor:
    """Draw eps with mean 0 and variance 1, float32.

    Args:
        distribution: `gaussian`, `uniform` or `rademacher` (+1 or -1).
    """
    empty = torch.empty(shape, device=random.device)
    return _DRAWS[distribution](empty, random)


def relate(x: Tensor, relation: str, dims: tuple[int, ...]) -> Tensor | float:
    """How large the noise on each entry of `x` is, up to the factor c; at least 0.

    Args:
        relation: `independent`, `M+`, `M-` or `inverse`.
        dims: dimensions that max and mean extend over.
    """
    return _RELATIONS[relation](x.abs(), dims)


def of_norm(delta: Tensor, norm: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Scale `delta` to the L2 norm `norm` over `dims` (kept as 1 in `norm`); 0 stays 0."""
    own = l2(delta, dims)
    return delta * torch.where(own > 0, norm / own, 0.0)


def l2(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """L2 norm over `dims`, which are kept as 1.

    One dimension after the other: one long sum in float32 would be off by 1e-4 where all entries
    have the same size, as those of Rademacher noise.
    """
    for dim in reversed(dims):
        x = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x


def worst_mismatch(found: Tensor, norm: Tensor, size: Tensor) -> Tensor:
    """Largest relative difference between ||changed - x|| and the norm that is meant; a scalar.

    Left out is what the rounding of the sum to float32 may be at most: a perturbation far smaller
    than x cannot be represented any better. A norm of 0 must be met exactly, and counts as it is.

    Args:
        found: ||changed - x||, measured on the perturbed tensor itself.
        norm: the norm that is meant.
        size: ||x||.
    """
    rounding = torch.where(norm > 0, HALF_AN_ULP * (size + found), 0.0)
    excess = ((found - norm).abs() - rounding).clamp(min=0)
    return (excess / torch.where(norm > 0, norm, 1.0)).max()


_DRAWS: Mapping[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    GAUSSIAN: lambda empty, random: empty.normal_(generator=random),
    UNIFORM: lambda empty, random: empty.uniform_(-SPREAD, SPREAD, generator=random),
    RADEMACHER: lambda empty, random: empty.bernoulli_(0.5, generator=random).mul_(2).sub_(1),
}
_RELATIONS: Mapping[str, Callable[[Tensor, tuple[int, ...]], Tensor | float]] = {
    INDEPENDENT: lambda size, dims: 1.0,
    M_PLUS: lambda size, dims: size,
    M_MINUS: lambda size, dims: size.amax(dims, keepdim=True) - size,
    INVERSE: lambda size, dims: 1 / torch.maximum(size, _floor(size, dims)),
}
DISTRIBUTIONS, RELATIONS = tuple(_DRAWS), tuple(_RELATIONS)


def _floor(size: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Where 1/|x| stops growing; 1 for a tensor of zeros, where nothing is related."""
    floor = FLOOR * size.mean(dims, keepdim=True)
    return torch.where(floor > 0, floor, 1.0)
