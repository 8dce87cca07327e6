"""Streams that are edited on their way: activations patched or scaled, weights put back.

An *edit* says what changes in one stream, block by block. An edited stream leaves the stream it
edits (its base) at the first block that the edit touches. Patching takes activations from a donor
stream that walks in the same lockstep (cross-model activation patching, arXiv 2506.12044,
section 5); nothing is cached across blocks, and K edits cost K streams at most.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lowbit.engine.decoder import BlockTaps
from lowbit.engine.engine import Engine
from lowbit.engine.losses import token_losses
from lowbit.engine.walk import Stream, walk

Donated = Mapping[str, Tensor]
"""The donor's activations by role in the block and batch at hand, `[batch, length, width]`."""


class Edit(Protocol):
    """A change of one stream."""

    @property
    def blocks(self) -> frozenset[int]:
        """The blocks that are changed; at least one."""

    @property
    def measured(self) -> Mapping[str, Tensor]:
        """What it measures on its way, by any name: tensors that are changed in place."""

    def roles(self, index: int) -> frozenset[str]:
        """Roles whose activations it needs from the donor in block `index`, one of `blocks`."""

    def taps(self, index: int, rows: slice, donated: Donated) -> BlockTaps:
        """Taps of block `index`, one of `blocks`, for these rows of the documents."""

    def parameters(self, index: int, own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Parameters of block `index`, one of `blocks`, given those of the edited stream."""


class Nothing:
    """What an edit does where its class does not say otherwise."""

    @property
    def measured(self) -> Mapping[str, Tensor]:
        return {}

    def roles(self, index: int) -> frozenset[str]:
        return frozenset()

    def taps(self, index: int, rows: slice, donated: Donated) -> BlockTaps:
        return {}

    def parameters(self, index: int, own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return own


@dataclass(frozen=True)
class Patch(Nothing):
    """Replace the activation of one role by the donor's, in some blocks."""

    role: str
    blocks: frozenset[int]

    def roles(self, index: int) -> frozenset[str]:
        return frozenset({self.role})

    def taps(self, index: int, rows: slice, donated: Donated) -> BlockTaps:
        return {self.role: lambda activation: donated[self.role]}


@dataclass(frozen=True)
class Restoration(Nothing):
    """Take parameters from elsewhere: weights put back into full precision, a norm changed."""

    source: Callable[[int], Mapping[str, Tensor]]
    """From a block's index to the parameters that replace the stream's; names relative to it."""
    blocks: frozenset[int]

    def parameters(self, index: int, own: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {**own, **self.source(index)}


@dataclass(frozen=True)
class Scaling(Nothing):
    """Multiply the activation of one role by a factor, its direction kept."""

    role: str
    factors: Mapping[int, float | NDArray[np.float64]]
    """By block: one factor, or one for each document `[documents]`."""

    @property
    def blocks(self) -> frozenset[int]:
        return frozenset(self.factors)

    def taps(self, index: int, rows: slice, donated: Donated) -> BlockTaps:
        factor = torch.as_tensor(self.factors[index])
        if factor.dim():
            factor = factor[rows, None, None]
        return {self.role: lambda activation: activation * factor.to(activation)}


def edited(name: str, base: Stream, edit: Edit) -> Stream:
    """Return the stream `base` with an edit's parameters; its taps are set by `edited_nll`."""

    def parameters(index: int) -> Mapping[str, Tensor]:
        own = base.parameters(index)
        return edit.parameters(index, own) if index in edit.blocks else own

    return Stream(name, parameters, parent=base.name, start=min(edit.blocks))


@dataclass(frozen=True)
class Edited:
    """An edit of one of the streams that are walked."""

    base: str
    edit: Edit


def edited_nll(
    engine: Engine,
    streams: Sequence[Stream],
    edits: Mapping[str, Edited],
    token_ids: NDArray[np.int32],
    donor: str | None = None,
) -> Iterator[dict[str, NDArray[np.float32]]]:
    """Walk streams and edited streams over `token_ids` `[documents, length]`; yields per batch.

    Args: as in `edited_walk`.

    Yields:
        Per-token NLL of every stream, edited or not, `[batch, length - 1]`, nats.
    """
    for shard in edited_walk(engine, streams, edits, token_ids, donor):
        for _, batch, normed in shard:
            losses = token_losses(engine.decoder.logits, normed, batch, None)
            yield {name: column.nll.cpu().numpy() for name, column in losses.items()}


def edited_walk(
    engine: Engine,
    streams: Sequence[Stream],
    edits: Mapping[str, Edited],
    token_ids: NDArray[np.int32],
    donor: str | None = None,
    lengths: NDArray[np.int64] | None = None,
    first: int = 0,
) -> Iterator[Iterator[tuple[slice, Tensor, dict[str, Tensor]]]]:
    """Walk streams and edited streams over `token_ids` `[documents, length]`.

    Args:
        streams: the streams as they are; the donor before all whose edits need it.
        edits: by the name of the edited stream.
        donor: name of the stream that activations are taken from.
        lengths: of documents that are padded on the right, as in `Engine.shards`.
        first: document to begin with, as there.

    Yields:
        Per shard its batches; of each the rows of `token_ids`, their tokens `[batch, length]`, and
        per stream, edited or not, the output after the final norm `[batch, length, width]`.
    """
    bases = {stream.name: stream for stream in streams}
    others = [edited(name, bases[each.base], each.edit) for name, each in edits.items()]
    done = first
    for shard in engine.shards(token_ids, lengths, first):
        ends = np.cumsum([done, *map(len, shard)])
        rows = [slice(*pair) for pair in pairwise(ends)]
        taps = _EditTaps(edits, donor, rows)
        walked = walk(engine.decoder, [*streams, *others], shard, taps)
        yield zip(rows, shard, walked, strict=True)
        done = int(ends[-1])


class _EditTaps:
    """The taps of one walk: the donor's keep activations, those of edited streams use them."""

    def __init__(
        self, edits: Mapping[str, Edited], donor: str | None, rows: Sequence[slice]
    ) -> None:
        self.edits, self.donor, self.rows = edits, donor, rows
        self.donated: dict[str, Tensor] = {}

    def __call__(self, stream: str, index: int, batch: int) -> BlockTaps:
        if stream == self.donor:
            self.donated = {}
            return {role: partial(self._keep, role) for role in self._wanted(index)}
        each = self.edits.get(stream)
        if each is None or index not in each.edit.blocks:
            return {}
        return each.edit.taps(index, self.rows[batch], self.donated)

    def _wanted(self, index: int) -> set[str]:
        touching = [each.edit for each in self.edits.values() if index in each.edit.blocks]
        return {role for edit in touching for role in edit.roles(index)}

    def _keep(self, role: str, activation: Tensor) -> None:
        self.donated[role] = activation
