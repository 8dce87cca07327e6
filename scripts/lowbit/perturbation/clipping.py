"""Clipping, and the two controls without which its damage says little (arXiv 2403.06408).

The paper sets values beyond a threshold to the threshold and finds that this hurts far more than
ordinary quantization noise. It may hurt because these entries matter, or because its error is
larger. So the same entries are perturbed by as much, another time, within the tensor's range; and
noise of the same L2 norm is put on all entries (`lowbit.perturbation.noise`).
"""

import math

import torch
from torch import Tensor


def clip(x: Tensor, quantile: float, start: int = 0) -> Tensor:
    """Set entries with |x| above a quantile of |x| to it, with their sign.

    Args:
        quantile: between 0 and 1; .999 clips one entry in a thousand (at least one).
        start: the quantile is of all dimensions from this one on; earlier ones stay apart.
    """
    threshold = _threshold(x, quantile, start)
    return torch.clamp(x, -threshold, threshold)


def shuffle_clipping(x: Tensor, clipped: Tensor, random: torch.Generator) -> Tensor:
    """Perturb the entries that clipping changed by the same amounts, shuffled among them.

    Signs are random, but no entry leaves [-max|x|, max|x|]: the sign that would is turned. The L2
    norm of the perturbation is that of clipping.

    Args:
        x: one tensor of any shape.
        clipped: `clip(x, ...)`.
    """
    amounts = (clipped - x).abs()
    changed = amounts > 0
    values, amounts = x[changed], amounts[changed]
    order = torch.randperm(len(amounts), generator=random, device=random.device)
    delta = amounts[order]
    signs = torch.empty_like(delta).bernoulli_(0.5, generator=random).mul_(2).sub_(1)
    outside = (values + signs * delta).abs() > x.abs().max()
    signs = torch.where(outside, -values.sign(), signs)
    found = x.clone()
    found[changed] = values + signs * delta
    return found


def _threshold(x: Tensor, quantile: float, start: int) -> Tensor:
    """The largest |x| that stays, `[..., 1, 1]`: all but the share above the quantile."""
    size = x.abs().flatten(start)
    above = max(1, math.floor((1 - quantile) * size.shape[-1] + 0.5))
    kept = size.topk(min(above + 1, size.shape[-1]), dim=-1).values[..., -1]
    return kept.reshape(*x.shape[:start], *[1] * (x.dim() - start))
