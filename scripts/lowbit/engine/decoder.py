"""A causal language model taken apart at its decoder blocks, by its own Hugging Face code.

Nothing of a model is written again here: embeddings, masks, positions, blocks, final norm and head
are the modules' own. The blocks are stepped one by one so that several weight sets can advance in
lockstep (`lowbit.engine.walk`) and activations can be read or replaced on the way.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.engine.roles import Site, decoder_blocks, find_architecture, role_sites
from lowbit.errors import InputError

Tap = Callable[[Tensor], Tensor | None]
"""Called with an activation `[batch, length, width]`; what it returns, if not None, replaces it."""

BlockTaps = Mapping[str | Site, Tap]
"""By role, or by site: a submodule of the block and its side. At a site the activation is passed on
as the very tensor that the submodule is called with, of whatever shape."""

_TRANSFORMERS_4 = version("transformers").startswith("4.")
"""In the old environments of some quantizers every architecture's block returns a tuple."""

REPLACED_IN_PLACE = frozenset({"residual_mid"})
"""Read where it enters the MLP's norm. The block adds the same tensor to the MLP's output later, so
what replaces it is written into it: norm and residual branch both see the change."""


@dataclass(frozen=True)
class Entered:
    """A batch on the threshold of the first block."""

    hidden_states: Tensor
    """`[batch, length, hidden]`"""
    calls: list[tuple[tuple, dict[str, Any]]]
    """Per block: the other positional and keyword arguments the model passes (masks, positions)."""


class Decoder:
    """Steps through the blocks of `model`, whose weights are those of the full-precision stream."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.eval()
        self.architecture = find_architecture(type(model).__name__)
        self.blocks_name, self.blocks = decoder_blocks(model)
        sites = self.architecture.sites(model.config)
        self.sites = [role_sites(block, sites) for block in self.blocks]
        self._replaced = False

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def roles(self) -> frozenset[str]:
        """The roles that every block has."""
        return frozenset.intersection(*(frozenset(sites) for sites in self.sites))

    def enter(self, token_ids: Tensor) -> Entered:
        """Embed `token_ids` `[batch, length]` and collect what each block will be called with."""
        recorded: list[tuple[Tensor, tuple, dict[str, Any]]] = []

        def record(hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
            recorded.append((hidden_states, args, kwargs))
            return self._as_block_output(hidden_states)

        with self._blocks_replaced([record] * len(self)):
            self.model.base_model(input_ids=token_ids, use_cache=False)
        return Entered(recorded[0][0], [(args, kwargs) for _, args, kwargs in recorded])

    def run_block(
        self,
        index: int,
        hidden_states: Tensor,
        call: tuple[tuple, dict[str, Any]],
        parameters: Mapping[str, Tensor] | None = None,
        taps: BlockTaps | None = None,
    ) -> Tensor:
        """Advance `hidden_states` `[batch, length, hidden]` through block `index`.

        `parameters` (names relative to the block) stand in for the block's own; `taps` read or
        replace the activations of roles, or those at one side of any submodule.

        Raises:
            InputError: a tap on a role that this block does not have.
        """
        block, (args, kwargs) = self.blocks[index], call
        with self._tapped(index, taps or {}, hidden_states.shape[:2]):
            if parameters:
                output = torch.func.functional_call(
                    block, dict(parameters), (hidden_states, *args), kwargs, tie_weights=False
                )
            else:
                output = block(hidden_states, *args, **kwargs)
        return _first(output)

    def leave(self, token_ids: Tensor, hidden_states: Tensor) -> Tensor:
        """Apply what follows the last block (final norm, projections): `[batch, length, width]`.

        Also the paper's phi for early exit from any `hidden_states` (2506.12044, section 4.2).
        """

        def discard(ignored: Tensor, *args: Any, **kwargs: Any) -> Any:
            return self._as_block_output(hidden_states)

        with self._blocks_replaced([discard] * len(self)):
            return self.model.base_model(input_ids=token_ids, use_cache=False).last_hidden_state

    def logits(self, normed: Tensor) -> Tensor:
        """Apply the output head to `[..., width]`; float32 logits `[..., vocabulary]`."""
        logits = self.model.get_output_embeddings()(normed).float()
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def _as_block_output(self, hidden_states: Tensor) -> Any:
        as_tuple = self.architecture.block_returns_tuple or _TRANSFORMERS_4
        return (hidden_states, None) if as_tuple else hidden_states

    @contextmanager
    def _blocks_replaced(self, forwards: list[Callable[..., Any]]) -> Iterator[None]:
        """Let `forwards` answer for the blocks while the model's own code runs around them.

        A tap may do this in the middle of a block, which keeps its hooks: they stay quiet.
        """
        try:
            self._replaced = True
            for block, forward in zip(self.blocks, forwards, strict=True):
                block.forward = forward
            yield
        finally:
            self._replaced = False
            for block in self.blocks:
                vars(block).pop("forward", None)

    @contextmanager
    def _tapped(self, index: int, taps: BlockTaps, batch_shape: torch.Size) -> Iterator[None]:
        with ExitStack() as stack:
            for place, tap in taps.items():
                name, side = self._site(index, place) if isinstance(place, str) else place
                module = self.blocks[index].get_submodule(name)
                shaped = _shaped(place, tap, batch_shape) if isinstance(place, str) else tap
                stack.callback(_hook(module, side, partial(self._tap, shaped)).remove)
            yield

    def _site(self, index: int, role: str) -> Site:
        if role not in self.sites[index]:
            raise InputError(
                f"{type(self.model).__name__} has no role {role} in block {index}; "
                f"it has {', '.join(self.sites[index])}."
            )
        return self.sites[index][role]

    def _tap(self, tap: Tap, activation: Tensor) -> Tensor | None:
        return None if self._replaced else tap(activation)


def _hook(module: nn.Module, side: str, tap: Tap) -> torch.utils.hooks.RemovableHandle:
    """Attach `tap` to the first argument or the (first) output of `module`."""

    def on_input(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> Any:
        if args:
            replaced = tap(args[0])
            return None if replaced is None else ((replaced, *args[1:]), kwargs)
        replaced = tap(kwargs["hidden_states"])
        return None if replaced is None else (args, kwargs | {"hidden_states": replaced})

    def on_output(module: nn.Module, args: tuple, output: Any) -> Any:
        replaced = tap(_first(output))
        if replaced is None or not isinstance(output, tuple):
            return replaced
        return (replaced, *output[1:])

    if side == "input":
        return module.register_forward_pre_hook(on_input, with_kwargs=True)
    return module.register_forward_hook(on_output)


def _shaped(role: str, tap: Tap, batch_shape: torch.Size) -> Tap:
    """Show a tap `[batch, length, width]` even where the block works on `[tokens, width]`."""

    def shaped(activation: Tensor) -> Tensor | None:
        replaced = tap(activation.view(*batch_shape, activation.shape[-1]))
        if replaced is None:
            return None
        replaced = replaced.reshape(activation.shape)
        if role in REPLACED_IN_PLACE:
            activation.copy_(replaced)
            return None
        return replaced

    return shaped


def _first(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
