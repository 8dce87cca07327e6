"""Simulated quantization of weights and activations, as edits of the walk.

Weights are quantized to codes and back by the quantizers of the workflow themselves. Activations
are replaced by their levels where projections read them. Nothing is stored but scores and errors.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowbit.engine.decoder import BlockTaps, Tap
from lowbit.engine.edits import Donated, Nothing
from lowbit.engine.engine import Engine
from lowbit.engine.walk import walk
from lowbit.experiments.projections import Once, by_document, projections
from lowbit.experiments.simulation_settings import (
    ASYMMETRIC,
    GROUP,
    POWER,
    UNIFORM,
    UNQUANTIZED,
    Simulation,
)
from lowbit.quantization.activations import (
    ActivationQuantization,
    largest_magnitude,
    quantize_activation,
)
from lowbit.quantization.companding import Compander, best_compander, companded
from lowbit.quantization.quantized import QuantizedLayer, dequantize
from lowbit.quantizers import lloyd_max, log, nf, piecewise, power, rtn, sigmoid

WEIGHT_QUANTIZERS: Mapping[str, Callable[..., QuantizedLayer]] = {
    UNIFORM: partial(rtn.quantize, symmetric=True),
    ASYMMETRIC: rtn.quantize,
    POWER: power.quantize,
    "square root": partial(power.quantize, exponent=0.5),
    "sigmoid": sigmoid.quantize,
    "log": log.quantize,
    "piecewise": partial(piecewise.quantize, break_point=piecewise.PiecewiseLinear.break_point),
    "nf": nf.quantize,
    "lloyd_max": lloyd_max.quantize,
}
"""By transform; the others of `TRANSFORMS` are in `FITTED`."""
FITTED: Mapping[str, tuple[Callable[[float], Compander], Sequence[float]]] = {
    "power fitted": (power.Power, power.FITTED),
    "sigmoid fitted": (sigmoid.Sigmoid, sigmoid.FITTED),
    "log fitted": (log.MuLaw, log.FITTED),
    "piecewise fitted": (piecewise.PiecewiseLinear, piecewise.FITTED),
}
"""Transforms whose parameter is found for each matrix, which takes far longer than quantizing: a
compander and the parameters that are tried."""

Ranges = Mapping[tuple[int, str], Tensor]
"""By block and projection the largest magnitude of what it reads, over calibration text."""


class SimulationEdit(Nothing):
    """One simulated quantization; see `lowbit.engine.edits.Edit`.

    Args:
        group_size: weights, and channels of activations, that share a scale where groups do.
        ranges: static ranges, for a simulation that needs them.
    """

    def __init__(
        self, simulation: Simulation, engine: Engine, group_size: int, ranges: Ranges
    ) -> None:
        self.simulation, self._decoder, self._ranges = simulation, engine.decoder, ranges
        self._projections = [projections(block) for block in engine.decoder.blocks]
        per = simulation.weights_per
        self._group_size = group_size if per == GROUP else per
        self._activations = activation_settings(simulation, group_size)
        self._companders: dict[tuple[int, str], Compander] = {}
        # Made beforehand: small tensors made between large ones keep freed memory from being used.
        self._energies = {
            (target, f"{index}.{name}"): torch.zeros(2, dtype=torch.float64, device=engine.device)
            for target in ("weights", "activations")
            for index, names in enumerate(self._projections)
            for name in names
        }

    @property
    def blocks(self) -> frozenset[int]:
        return frozenset(range(len(self._decoder)))

    @property
    def measured(self) -> Mapping[str, Tensor]:
        return {f"{target} {module}": both for (target, module), both in self._energies.items()}

    def parameters(self, index: int, own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Quantize the weights of all projections, on the CPU, where codebooks are made."""
        if self.simulation.weight_bits == UNQUANTIZED:
            return own
        whole = dict(self._decoder.blocks[index].named_parameters()) | dict(own)
        found = dict(own)
        for name in self._projections[index]:
            weight = whole[f"{name}.weight"].detach()
            x = weight.float().cpu()
            quantized = dequantize(self._quantize(index, name, x))
            self._energies["weights", f"{index}.{name}"].copy_(energies(x, quantized))
            found[f"{name}.weight"] = quantized.to(weight)
        return found

    def taps(self, index: int, rows: slice, donated: Donated) -> BlockTaps:
        """Quantize what projections read; what several of them read, once."""
        if self._activations is None:
            return {}
        once = Once(lambda name, x: self._activation(index, name, x, rows.stop - rows.start))
        return {(name, "input"): once.tap(name) for name in self._projections[index]}

    def sizes(self) -> list[dict[str, object]]:
        """Per target and module the energies of x and of its error."""
        found = {place: both.tolist() for place, both in self._energies.items()}
        return [
            {"target": target, "module": module, "signal": signal, "noise": noise}
            for (target, module), (signal, noise) in found.items()
            if signal > 0
        ]

    def _quantize(self, index: int, name: str, weight: Tensor) -> QuantizedLayer:
        """Quantize a weight `[out, in]`; what is fitted to it is fitted once."""
        transform = self.simulation.transform
        how = {"bits": self.simulation.weight_bits, "group_size": self._group_size}
        if transform not in FITTED:
            return WEIGHT_QUANTIZERS[transform](weight, **how)
        place = index, name
        if place not in self._companders:
            self._companders[place] = best_compander(weight, map(*FITTED[transform]), **how)
        return companded(weight, self._companders[place], **how)

    def _activation(self, index: int, name: str, activation: Tensor, documents: int) -> Tensor:
        x = by_document(activation, documents)
        ranges = self._ranges[index, name] if self._activations.static else None
        quantized = quantize_activation(x, self._activations, ranges)
        self._energies["activations", f"{index}.{name}"].add_(energies(x, quantized))
        return quantized.view(activation.shape)


def energies(x: Tensor, quantized: Tensor) -> Tensor:
    """Squared L2 norms of x and of the error, float64 `[2]`."""
    norms = [torch.linalg.vector_norm(each.float()) for each in (x, quantized - x)]
    return torch.stack(norms).double() ** 2


def activation_settings(simulation: Simulation, group_size: int) -> ActivationQuantization | None:
    """How a simulation quantizes activations; None where it does not."""
    if simulation.activation_bits == UNQUANTIZED:
        return None
    per = simulation.activations_per.removeprefix("static ")
    return ActivationQuantization(
        bits=simulation.activation_bits,
        granularity=per,
        group_size=group_size if per == GROUP else None,
        static=per != simulation.activations_per,
        transform=simulation.transform,
    )


def static_ranges(engine: Engine, token_ids: NDArray[np.int32]) -> Ranges:
    """Largest magnitude of what every projection reads in the full-precision model.

    Args:
        token_ids: calibration text `[n, length]`.
    """
    found: dict[tuple[int, str], Tensor] = {}
    settings = ActivationQuantization(bits=8, granularity="tensor", static=True)

    def watch(index: int, name: str) -> Tap:
        def tap(activation: Tensor) -> None:
            largest = largest_magnitude(activation, settings)
            known = found.get((index, name), largest)
            found[index, name] = torch.maximum(known, largest)

        return tap

    def taps(stream: str, index: int, batch: int) -> BlockTaps:
        names = projections(engine.decoder.blocks[index])
        return {(name, "input"): watch(index, name) for name in names}

    for shard in engine.shards(token_ids):
        for _ in walk(engine.decoder, [engine.full], shard, taps):
            pass
    return found
