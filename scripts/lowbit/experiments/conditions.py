"""What is patched or put back, and in which blocks (arXiv 2506.12044, section 5).

A *condition* is one change of the quantized model: the activation of one role overwritten by the
full-precision model's, or weights put back into full precision, in consecutive blocks. Nothing here
needs PyTorch: the tables and figures name conditions in the same words.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

PATCH, WEIGHTS, NONE = "patch", "weights", "none"
"""Kinds: activations overwritten; weights put back; not run, because the model has no such role."""

UPPER, SINGLE, SUFFIX, LAST = "upper", "single", "suffix", "last"
"""Blocks: the upper half; each alone; each and all after it; the last k."""

PAPERS_OUTPUTS = ("mlp_down", "mlp_gate", "mlp_up", "attn_out")
"""The paper's h_down, h_gate (after its activation function), h_up and h_attn."""
MLP_DOWN, MLP_OUT = "mlp_down", "mlp_out"
"""A mixture of experts has no one h_down; what the experts give together takes its place."""
MODULE_OUTPUTS = (*PAPERS_OUTPUTS, MLP_OUT)
RESIDUAL_STREAM = ("residual_mid", "residual_out")
"""Once it is overwritten nothing of what came before is left: only the last block counts."""
PATCHED = (*PAPERS_OUTPUTS, "mlp_in", *RESIDUAL_STREAM)
GATE_INPUT = "mlp_gate_in"
"""Role of the follow-up: what the gate projection alone reads."""
SCALED = ("mlp_in", GATE_INPUT, "mlp_up")
"""On the scales that a quantizer moves between layers (AWQ): from the norm into what reads it, and
from the up projection into the down projection. All other roles, and whole blocks, are not."""
GATE_PROJECTION, ALL_WEIGHTS = "gate_projection", "all"
"""Weights that are put back: of the gate projection, or all of a block."""

EVERY_DEPTH = 16
"""Up to so many blocks, every number of last blocks is tried; in deeper models, some of them."""
SOME_DEPTHS = (1, 2, 3, 5, 7, 10, 14, 20, 28, 40, 56, 80, 112, 160)
PAPERS_LAST, PAPERS_BLOCKS = 7, 40
"""The paper puts back the last 7 of Mistral-Nemo's 40 blocks."""


@dataclass(frozen=True)
class Condition:
    """One change of the quantized model."""

    kind: str
    """`patch` or `weights`."""
    role: str
    """The activation's role (see `lowbit.engine.roles`), or which weights."""
    layers: str
    """How the blocks were chosen: `upper`, `single`, `suffix` or `last`."""
    first: int
    last: int
    """First and last block changed, both included, counted from 0."""

    @property
    def blocks(self) -> frozenset[int]:
        """The blocks in which something is done; see `RESIDUAL_STREAM`."""
        first = self.last if self.role in RESIDUAL_STREAM else self.first
        return frozenset(range(first, self.last + 1))

    @property
    def needs(self) -> str | None:
        """The role without which there is no such condition, if any."""
        if self.kind == PATCH:
            return self.role
        return GATE_INPUT if self.role == GATE_PROJECTION else None

    def left_out(self, roles: Container[str], scales_unknown: bool) -> str:
        """Why it is not run on a method; empty where it is.

        Args:
            roles: those that the model has.
            scales_unknown: whether the method moved scales between layers that nobody knows.
        """
        if self.needs is not None and self.needs not in roles:
            instead = f"; {MLP_OUT} is patched in its place" if self.needs == MLP_DOWN else ""
            return f"this architecture has no {self.needs}{instead}"
        if scales_unknown and self.needs in SCALED:
            return (
                f"{self.needs} is on scales that the published checkpoint does not store, so the "
                "full-precision model's does not fit"
            )
        return ""

    def __str__(self) -> str:
        """What is changed and where; conditions of the same effect have the same name."""
        return f"{self.kind} {self.role} in blocks {min(self.blocks) + 1} to {self.last + 1}"

    def is_whole(self, blocks: int) -> bool:
        """Tell whether nothing of the quantized model reaches the output of so many blocks.

        So it is where its residual stream is overwritten at the end, or all weights are put back:
        the damage is then undone by construction.
        """
        if self.kind == PATCH:
            return self.role == RESIDUAL_STREAM[-1] and self.last == blocks - 1
        return self.role == ALL_WEIGHTS and (self.first, self.last) == (0, blocks - 1)


def list_conditions(
    blocks: int, patch: Iterable[str], absent: Container[str] = ()
) -> list[Condition]:
    """List the conditions for a model of so many blocks, those that need an absent role included.

    Roles of the residual stream are patched in the upper half and block by block only: with all
    later blocks they would say the same for every first block.

    Args:
        patch: the config's `mechanisms.patch`, any of `upper`, `single`, `suffix`.
        absent: roles that the model does not have.
    """
    patched = (*PATCHED, MLP_OUT) if MLP_DOWN in absent else PATCHED
    end = blocks - 1
    upper = blocks // 2
    starts = {UPPER: [upper], SINGLE: range(blocks), SUFFIX: range(blocks)}
    found = [
        Condition(PATCH, role, layers, first, first if layers == SINGLE else end)
        for layers in dict.fromkeys(patch)
        for role in patched
        if not (layers == SUFFIX and role in RESIDUAL_STREAM)
        for first in starts[layers]
    ]
    found.append(Condition(PATCH, GATE_INPUT, UPPER, upper, end))
    found.append(Condition(WEIGHTS, GATE_PROJECTION, UPPER, upper, end))
    counts = last_block_counts(blocks)
    return found + [Condition(WEIGHTS, ALL_WEIGHTS, LAST, blocks - k, end) for k in counts]


def last_block_counts(blocks: int) -> Sequence[int]:
    """How many last blocks get their weights back, for each condition of that kind."""
    if blocks <= EVERY_DEPTH:
        return range(1, blocks + 1)
    some = {papers_last(blocks), blocks // 2, blocks}
    return sorted(some | {k for k in SOME_DEPTHS if k <= blocks})


def papers_last(blocks: int) -> int:
    """The paper's 7 of 40 last blocks for a model of another depth: the same share, at least 1."""
    return max(1, round(PAPERS_LAST * blocks / PAPERS_BLOCKS))


def name_last(count: int, blocks: int) -> str:
    """Name the last blocks: 'last block of 6', 'last 7 of 40 blocks'."""
    return f"last block of {blocks}" if count == 1 else f"last {count} of {blocks} blocks"
