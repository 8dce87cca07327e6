"""Lloyd-Max: the levels of the least squared error for a layer's own weights.

Lloyd (1982) and Max (1960), which is k-means in one dimension. Weights are divided by the largest
magnitude of their group, and one codebook serves the layer. The error of a normalised weight counts
with its group's squared scale, so that what is least is the squared error of the weight itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lowbit.quantization.companding import divisor
from lowbit.quantization.quantized import GroupSize, QuantizedLayer, join_groups, split_groups
from lowbit.quantizers import nf

LIBRARIES = ("torch", "numpy")
STARTS = 10
"""Codebooks of nearly the best density that are tried as the start."""
ITERATIONS = 2000
"""At most; the search ends as soon as no value changes its level."""


@dataclass(frozen=True)
class Sorted:
    """Values in order, so that those nearest to a level are a run whose sums are differences."""

    values: np.ndarray
    """Ascending, in [-1, 1], `[n]`."""
    mass: np.ndarray
    """Importance of all before each, and of all, `[n + 1]`."""
    moment: np.ndarray
    """The same of importance times value."""

    @classmethod
    def of(cls, values: np.ndarray, importance: np.ndarray) -> "Sorted":
        """Sort values and importance `[n]`."""
        order = np.argsort(values, kind="stable")
        values, importance = values[order].astype(float), importance[order].astype(float)
        mass = np.concatenate([[0.0], np.cumsum(importance)])
        return cls(values, mass, np.concatenate([[0.0], np.cumsum(importance * values)]))

    def bounds(self, limits: np.ndarray) -> np.ndarray:
        """Where the runs between limits begin and end, `[limits + 2]`."""
        return np.concatenate([[0], np.searchsorted(self.values, limits), [len(self.values)]])

    def runs(self, levels: np.ndarray) -> np.ndarray:
        """Bounds of the runs nearest to each level."""
        return self.bounds((levels[1:] + levels[:-1]) / 2)

    def error(self, levels: np.ndarray) -> float:
        """Sum of importance * (value - nearest level)**2, but for what no level changes."""
        runs = self.runs(levels)
        mass, moment = np.diff(self.mass[runs]), np.diff(self.moment[runs])
        return float((levels**2 * mass - 2 * levels * moment).sum())


def lloyd_max(values: Sorted, start: np.ndarray) -> np.ndarray:
    """Move levels to a local minimum of the error.

    In turn each value goes to its nearest level, and each level to the mean of its values (without
    any it stays). Neither raises the error. The start is the given one or, where better, one of
    `dense_levels`.

    Args:
        start: `[levels]`, ascending.

    Returns:
        Levels, ascending, float64.
    """
    levels = min([start, *dense_levels(values, len(start))], key=values.error).copy()
    before = None
    for _ in range(ITERATIONS):
        runs = values.runs(levels)
        if np.array_equal(runs, before):
            break
        mass, moment = np.diff(values.mass[runs]), np.diff(values.moment[runs])
        np.divide(moment, mass, out=levels, where=mass > 0)
        before = runs
    return levels


def dense_levels(values: Sorted, count: int) -> Iterator[np.ndarray]:
    """Levels as dense as the cube root of the density: best where they are many.

    Panter and Dite (1951). The density is counted in two cells per level, and cells are drawn anew
    where they hold even shares of its cube root, so that they are small where the values are.
    """
    edges = np.linspace(-1, 1, 2 * count + 1)
    for _ in range(STARTS):
        inside = np.diff(values.mass[values.bounds(edges[1:-1])])
        shares = np.cumsum(np.cbrt(inside) * np.diff(edges) ** (2 / 3))
        even = np.linspace(0, shares[-1], len(edges))
        edges = np.interp(even, np.concatenate([[0.0], shares]), edges)
        yield edges[1::2]


def quantize(weight: Tensor, *, bits: int, group_size: GroupSize) -> QuantizedLayer:
    """Divide each group of `weight` `[out, in]` by its largest magnitude; fit 2**bits levels.

    The error is at most that of normal-float levels, from which the search may start.
    """
    groups, extent = split_groups(weight.to(torch.float32), group_size)
    scales = groups.abs().amax(extent, keepdim=True)
    normalised = groups / divisor(scales)
    importance = scales.double().square().expand_as(groups)
    values = Sorted.of(normalised.flatten().numpy(), importance.flatten().numpy())
    levels = torch.from_numpy(lloyd_max(values, nf.codebook(bits).double().numpy())).float()
    codes = torch.bucketize(normalised, (levels[1:] + levels[:-1]) / 2, out_int32=True)
    return join_groups(codes, scales, codebook=levels, bits=bits)
