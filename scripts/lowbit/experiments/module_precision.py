"""Modules of one quantized model in the higher precision of another, or of the unquantized model.

A *module* is one projection of one block; in a mixture of experts, that of all experts together.
Only weights are taken: norms and biases stay those of the base. Where the base's quantizer moved
scales between layers (AWQ), the other weight W is put onto the same scales before it takes the
place of the base's: diag(1 / output_scale) W diag(folded_scale).
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lowbit.engine import gates
from lowbit.engine.decoder import Decoder
from lowbit.engine.edits import Edit, Restoration
from lowbit.engine.engine import Engine
from lowbit.engine.sizes import PROBE_DOCUMENTS
from lowbit.engine.streams import block_parameters, fold
from lowbit.engine.walk import Stream
from lowbit.errors import InputError
from lowbit.names import FULL
from lowbit.quantization.experts import expert_slices, merge_tensors
from lowbit.quantization.quantized import (
    QuantizedWeights,
    bits_per_weight,
    require_scales,
    unfolded,
)

FULL_BITS = 16.0
"""What a weight counts that is not quantized, whatever type the engine computes in."""
_EXPERT = re.compile(r"\.\d+\.")


@dataclass(frozen=True)
class Module:
    """One projection of one block."""

    block: int
    """Counted from 0."""
    projection: str
    """Its name in the block: `mlp.up_proj`, with experts `mlp.experts.*.up_proj`."""
    linears: tuple[str, ...]
    """Full names of its linear layers: one, or one of each expert."""
    weights: int
    base_bits: float
    """Stored bits of all its weights, scales and zeros included."""
    higher_bits: float

    @property
    def name(self) -> str:
        """`3.mlp.up_proj`: block, counted from 0, and projection."""
        return f"{self.block}.{self.projection}"


class HigherPrecision:
    """Puts modules of a base into higher precision.

    Args:
        base: `method.json` of the method that is improved.
        higher: of the method whose weights are put in; None for the unquantized weights.

    Raises:
        InputError: `higher` lacks a layer of `base`, or has no more bits there; or one of them
            moved scales that nobody knows.
    """

    def __init__(self, engine: Engine, base: Path, higher: Path | None) -> None:
        require_scales(base, "mechanisms.mixed_precision.base")
        if higher is not None:
            require_scales(higher, "mechanisms.mixed_precision.higher")
        self._engine, self._base = engine, _open(base)
        other = None if higher is None else _open(higher)
        self.modules = _list_modules(engine.decoder, self._base, other)
        source = partial(_full_weight, engine) if other is None else partial(_restored, other)
        # All of them, or those of one block, which every edited stream then shares.
        of_block = max(Counter(m.block for m in self.modules for _ in m.linears).values())
        cached = lru_cache(maxsize=None if engine.resident else of_block)
        self._weight = cached(partial(self._on_scales, source))

    @property
    def moves_scales(self) -> bool:
        """Whether the base's quantizer moved scales between layers."""
        return any(self._base.folds(name) for name in self._base.names)

    def edit(self, modules: Collection[Module], stream: Stream) -> Edit:
        """Return the edit that puts `modules` of the base's `stream` into higher precision."""
        decoder = self._engine.decoder
        linears: dict[int, list[str]] = defaultdict(list)
        for module in modules:
            linears[module.block] += module.linears

        def source(index: int) -> Mapping[str, Tensor]:
            own = block_parameters(decoder, stream, index)
            weights = {f"{_place(decoder, n)[1]}.weight": self._weight(n) for n in linears[index]}
            return merge_tensors(expert_slices(decoder.blocks[index]), weights, own.__getitem__)

        return Restoration(source, frozenset(linears))

    def _on_scales(self, source: Callable[[str], Tensor], linear: str) -> Tensor:
        """The higher weight `[out, in]` of a linear layer, on the base's scales."""
        weight = source(linear).float().to(self._engine.device)
        return fold(weight, self._base.folds(linear)).to(self._engine.dtype)


def check_scales(
    engine: Engine, base: Path, stream: Stream, token_ids: NDArray[np.int32]
) -> float | None:
    """Largest per-token NLL gap to the full-precision model with all its weights put in, nats.

    None where the base's quantizer moved no scales: then nothing need be computed.

    Raises:
        GateError: it is more than rounding explains, so the scales are not put on as they should.
    """
    unquantized = HigherPrecision(engine, base, None)
    if not unquantized.moves_scales:
        return None
    edit = unquantized.edit(unquantized.modules, stream)
    whole = Stream(stream.name, lambda index: edit.parameters(index, stream.parameters(index)))
    ((probe,),) = engine.shards(token_ids[: min(PROBE_DOCUMENTS, engine.batch_size)])
    return gates.folding(engine.decoder, engine.full, whole, probe)


def _list_modules(
    decoder: Decoder, base: QuantizedWeights, higher: QuantizedWeights | None
) -> list[Module]:
    """All modules of the base, in the model's order."""
    linears: dict[tuple[int, str], list[str]] = defaultdict(list)
    for name in base.names:
        index, inside = _place(decoder, name)
        linears[index, _EXPERT.sub(".*.", inside)].append(name)
    found = []
    for (block, projection), names in linears.items():
        sizes = zip(*(_bits(name, base, higher) for name in names), strict=True)
        found.append(Module(block, projection, tuple(names), *map(sum, sizes)))
    return found


def _bits(
    linear: str, base: QuantizedWeights, higher: QuantizedWeights | None
) -> tuple[int, float, float]:
    """Number of weights of a linear layer, and the stored bits of all of them in both methods.

    Raises:
        InputError: the higher method lacks the layer, or has no more bits there.
    """
    if higher is not None and linear not in higher.names:
        raise InputError(
            f"mechanisms.mixed_precision.higher has no quantized {linear}, which the base has: "
            f"write another method, or {FULL}"
        )
    layer = base.layer(linear)
    low = bits_per_weight({linear: layer})
    high = FULL_BITS if higher is None else bits_per_weight({linear: higher.layer(linear)})
    if high <= low:
        raise InputError(
            f"mechanisms.mixed_precision: {linear} has {high:.3g} stored bits per weight in the "
            f"higher method and {low:.3g} in the base: write a base with fewer bits, or "
            f"higher: {FULL}"
        )
    count = layer.codes.numel()
    return count, count * low, count * high


def _restored(weights: QuantizedWeights, linear: str) -> Tensor:
    """What a method has for the original weight `[out, in]`."""
    return unfolded(weights.layer(linear))


def _full_weight(engine: Engine, linear: str) -> Tensor:
    """The unquantized weight `[out, in]`."""
    index, inside = _place(engine.decoder, linear)
    parameters = block_parameters(engine.decoder, engine.full, index)
    place = expert_slices(engine.decoder.blocks[index]).get(inside)
    if place is None:
        return parameters[f"{inside}.weight"].detach()
    return place.of(parameters[place.parameter]).detach()


def _place(decoder: Decoder, linear: str) -> tuple[int, str]:
    """Block of a linear layer, and its name there."""
    index, _, inside = linear.removeprefix(f"{decoder.blocks_name}.").partition(".")
    return int(index), inside


def _open(record: Path) -> QuantizedWeights:
    return QuantizedWeights(record.with_name("weights.safetensors"), record)
