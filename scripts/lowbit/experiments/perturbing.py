"""Perturbations as edits of the walk: perturbed weights, and taps on what the projections read.

The size of noise on a weight matrix is that of a reference method's error there, ||Q(W) - W||_2,
times the intensity. On activations it is that of simulated uniform quantization of the same
activation, document by document, so that no result depends on which documents share a batch.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor

from lowbit.engine.decoder import BlockTaps
from lowbit.engine.edits import Donated, Nothing
from lowbit.engine.engine import Engine
from lowbit.engine.streams import block_parameters
from lowbit.errors import GateError, InputError
from lowbit.experiments.perturbation_conditions import (
    ACTIVATIONS,
    ALL,
    CHANNEL,
    CLIP,
    NOISE,
    SHUFFLED,
    WEIGHTS,
    Perturbation,
)
from lowbit.experiments.projections import Once, by_document, projections
from lowbit.perturbation.clipping import clip, shuffle_clipping
from lowbit.perturbation.noise import generator, l2, of_norm, relate, unit_noise, worst_mismatch
from lowbit.quantization.quantized import QuantizedWeights, require_scales, unfolded

NORM_TOLERANCE = 1e-4
"""Largest relative difference between the norm of a perturbation and the norm that is meant."""

TARGETS = WEIGHTS, ACTIVATIONS
DRAWS_KEPT = 8
"""Draws of eps for activations: those of one block, for the streams that are walked next."""

Quantize = Callable[[Tensor], Tensor]
"""From an activation `[batch, length, width]` to its quantized version."""


class Reference:
    """The errors whose norms perturbations have, and the projections they are known for.

    Args:
        record: `method.json` of the reference method for weights.
        activations: simulated quantization, the reference for activations.
        seed: of the study; noise is drawn by it and by the seed of the condition.

    Raises:
        InputError: the reference method moved scales that nobody knows.
    """

    def __init__(self, engine: Engine, record: Path, activations: Quantize, seed: int = 0) -> None:
        require_scales(record, "perturbation.reference")
        self._engine, self.activations, self.seed = engine, activations, seed
        self._weights = QuantizedWeights(record.with_name("weights.safetensors"), record)
        names = frozenset(self._weights.names)
        self.projections = [
            {name: kind for name, kind in found.items() if self._full_name(index, name) in names}
            for index, found in enumerate(map(projections, engine.decoder.blocks))
        ]
        self.weight_error = cache(self._weight_error)

    def kinds(self, wanted: Sequence[str] | None) -> list[list[str]]:
        """Kinds of projections in each block (`q_proj`), all or those that are wanted.

        Raises:
            InputError: one that no block has.
        """
        found = [list(dict.fromkeys(kinds.values())) for kinds in self.projections]
        known = list(dict.fromkeys(kind for kinds in found for kind in kinds))
        for kind in wanted or ():
            if kind not in known:
                raise InputError(
                    f"perturbation.projections has {kind}, which "
                    f"{type(self._engine.decoder.model).__name__} does not have: write some of "
                    f"{', '.join(known)}, or leave the key out"
                )
        return [[kind for kind in kinds if not wanted or kind in wanted] for kinds in found]

    def share_perturbed(self) -> float:
        """Share of the weights of all blocks' matrices that are in the projections."""
        blocks = self._engine.decoder.blocks
        perturbed = sum(
            block.get_submodule(name).weight.numel()
            for block, kinds in zip(blocks, self.projections, strict=True)
            for name in kinds
        )
        return perturbed / sum(p.numel() for p in blocks.parameters() if p.dim() > 1)

    def _full_name(self, index: int, module: str) -> str:
        return f"{self._engine.decoder.blocks_name}.{index}.{module}"

    def _weight_error(self, index: int, module: str) -> Tensor:
        """L2 norm of the error in each row of a weight of block `index`, float32 `[out, 1]`."""
        parameters = block_parameters(self._engine.decoder, self._engine.full, index)
        own = parameters[f"{module}.weight"].detach().float()
        quantized = unfolded(self._weights.layer(self._full_name(index, module)))
        return l2(quantized.to(own) - own, (1,))


class Norms:
    """What perturbations measured on their way: sums of squares, and the worst mismatch of a norm.

    Numbers stay on the device until they are asked for, in tensors that are made beforehand: small
    ones made between large ones would keep freed memory from being used again.

    Args:
        modules: names of all that is perturbed.
    """

    def __init__(self, modules: Sequence[str], device: torch.device) -> None:
        self._places = {name: place for place, name in enumerate(modules)}
        shape = len(TARGETS), len(modules), 2
        self._squares = torch.zeros(shape, dtype=torch.float64, device=device)
        self._worst = torch.zeros((), device=device)

    def record(
        self,
        target: str,
        module: str,
        changed: Tensor,
        x: Tensor,
        dims: tuple[int, ...],
        norm: Tensor | None,
    ) -> None:
        """Measure ||changed - x|| and ||x|| of a module, and compare the first with what is meant.

        Those of activations add up over batches; a weight has its own each time.

        Args:
            norm: that is meant, over `dims`; None where none is.
        """
        found, size = l2(changed - x, dims), l2(x, dims)
        kept = self._squares[TARGETS.index(target), self._places[module]]
        squares = torch.stack([(each.double() ** 2).sum() for each in (found, size)])
        kept.mul_(target == ACTIVATIONS).add_(squares)
        if norm is not None:
            mismatch = worst_mismatch(found, norm, size)
            torch.maximum(self._worst, mismatch, out=self._worst)  # nan stays nan

    @property
    def measured(self) -> Mapping[str, Tensor]:
        """All that was measured, as tensors that are changed in place."""
        return {"squares": self._squares, "worst": self._worst}

    def worst(self) -> float:
        """Largest relative mismatch so far; 0 where no norm was meant."""
        return float(self._worst)

    def rows(self) -> list[dict[str, object]]:
        """Per target and module that was perturbed the L2 norms of perturbation and x."""
        found = self._squares.sqrt().tolist()
        return [
            {"target_of_norm": target, "module": module, "perturbation": changed, "norm": norm}
            for target, modules in zip(TARGETS, found, strict=True)
            for module, (changed, norm) in zip(self._places, modules, strict=True)
            if norm > 0
        ]


class PerturbationEdit(Nothing):
    """One condition as an edit; see `lowbit.engine.edits.Edit`."""

    def __init__(self, condition: Perturbation, engine: Engine, reference: Reference) -> None:
        self.condition = condition
        self._decoder, self._reference = engine.decoder, reference
        self._seeds = reference.seed, condition.seed
        self._modules = {
            index: chosen
            for index, kinds in enumerate(reference.projections)
            if condition.block in (-1, index) and (chosen := _chosen(kinds, condition.projection))
        }

        names = [f"{index}.{name}" for index, chosen in self._modules.items() for name in chosen]
        self.norms = Norms(names, engine.device)

    @property
    def blocks(self) -> frozenset[int]:
        return frozenset(self._modules)

    @property
    def measured(self) -> Mapping[str, Tensor]:
        return self.norms.measured

    def parameters(self, index: int, own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Perturb the weights of the chosen projections."""
        if self.condition.target == ACTIVATIONS:
            return own
        whole = dict(self._decoder.blocks[index].named_parameters()) | dict(own)
        changed = {
            f"{name}.weight": self._weight(index, name, whole[f"{name}.weight"].detach())
            for name in self._modules[index]
        }
        return {**own, **changed}

    def taps(self, index: int, rows: slice, donated: Donated) -> BlockTaps:
        """Perturb what the chosen projections read; what several of them read, once."""
        if self.condition.target == WEIGHTS:
            return {}
        once = Once(lambda name, x: self._activation(f"{index}.{name}", x, rows))
        return {(name, "input"): once.tap(name) for name in self._modules[index]}

    def _weight(self, index: int, name: str, weight: Tensor) -> Tensor:
        """Perturb one weight `[out, in]`."""
        x = weight.float()
        dims = (1,) if self.condition.per == CHANNEL else (0, 1)
        random = generator(x.device, *self._seeds, index, name)
        error = None
        if self.condition.change == NOISE:
            rows = self._reference.weight_error(index, name)
            error = rows if self.condition.per == CHANNEL else l2(rows, (0, 1))
        kind, shape = self.condition.distribution, tuple(x.shape)
        changed, norm = self._changed(x, error, dims, lambda: unit_noise(shape, kind, random))
        if self.condition.change == SHUFFLED:
            changed = shuffle_clipping(x, changed, random)
        self.norms.record(WEIGHTS, f"{index}.{name}", changed, x, dims, norm)
        return changed.to(weight.dtype)

    def _activation(self, name: str, activation: Tensor, rows: slice) -> Tensor:
        """Perturb one activation `[batch, length, width]`, every document by its own."""
        kind, documents, dims = self.condition, range(rows.start, rows.stop), (1, 2)
        x = by_document(activation, len(documents)).float()
        error = None
        if kind.change == NOISE:
            error = l2(self._reference.activations(x) - x, dims)
        shape, device = tuple(x.shape[1:]), x.device
        changed, norm = self._changed(
            x,
            error,
            dims,
            lambda: _drawn(kind.distribution, shape, device, self._seeds, name, documents),
        )
        if kind.change == SHUFFLED:
            draws = [generator(device, *self._seeds, name, row) for row in documents]
            changed = torch.stack(
                [shuffle_clipping(*each) for each in zip(x, changed, draws, strict=True)]
            )
        self.norms.record(ACTIVATIONS, name, changed, x, dims, norm)
        return changed.to(activation.dtype).view(activation.shape)

    def _changed(
        self, x: Tensor, error: Tensor | None, dims: tuple[int, ...], draw: Callable[[], Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Clip, or add noise: of the reference's norm (`error`), or of that of clipping.

        Returns:
            The changed tensor, and the norm that the change is meant to have, if any.
        """
        kind = self.condition
        if kind.change != NOISE:
            clipped = clip(x, kind.quantile, start=x.dim() - 2)
            if kind.change in (CLIP, SHUFFLED):
                return clipped, None
            norm = l2(clipped - x, dims)
        else:
            norm = error * kind.intensity
        return x + of_norm(draw() * relate(x, kind.relation, dims), norm, dims), norm


def check_norms(edits: Mapping[str, PerturbationEdit]) -> float:
    """Largest relative mismatch of a norm in any edit.

    Raises:
        GateError: it is above the tolerance.
    """
    worst = {name: edit.norms.worst() for name, edit in edits.items()}
    for name, mismatch in worst.items():
        if not mismatch <= NORM_TOLERANCE:
            raise GateError(
                f"the norm of a perturbation ({name}) is off by a share of {mismatch:.3g}; "
                f"{NORM_TOLERANCE:.3g} is allowed."
            )
    return max(worst.values())


def check_nothing(scores: pd.DataFrame) -> float:
    """Largest change of a document's NLL by perturbations of intensity 0, nats.

    Args:
        scores: nll and nll_full.

    Raises:
        GateError: it is not exactly 0.
    """
    change = float((scores["nll"] - scores["nll_full"]).abs().max(skipna=False))
    if not change == 0:
        raise GateError(
            f"a perturbation of intensity 0 changed the NLL by {change:.3g} nats per token; it "
            "must be exactly 0."
        )
    return change


def _chosen(kinds: Mapping[str, str], wanted: str) -> list[str]:
    """Names of the linear layers that are of the wanted kind."""
    return [name for name, kind in kinds.items() if wanted in (ALL, kind)]


@lru_cache(maxsize=DRAWS_KEPT)
def _drawn(
    distribution: str,
    shape: tuple[int, ...],
    device: torch.device,
    seeds: tuple[int, int],
    name: str,
    documents: range,
) -> Tensor:
    """eps of some documents, `[documents, length, width]`; streams of the same seed share it."""
    draws = (generator(device, *seeds, name, row) for row in documents)
    return torch.stack([unit_noise(shape, distribution, random) for random in draws])
