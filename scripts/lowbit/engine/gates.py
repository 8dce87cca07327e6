"""Checks of the engine on a probe batch, run in every job: wrong numbers stop it.

Parity: the walk equals the plain Hugging Face forward. Patching: a stream patched with its own
activations does not change; patched everywhere with another stream's, it becomes that stream.
"""

import copy
from functools import partial

import torch
from torch import Tensor

from lowbit.engine.decoder import BlockTaps, Decoder
from lowbit.engine.losses import token_losses
from lowbit.engine.streams import block_parameters
from lowbit.engine.walk import Stream, walk
from lowbit.errors import GateError

PARITY_TOLERANCE = 1e-5
"""Largest difference of one token's NLL in nats, float32."""
FOLDING_TOLERANCE = 1e-4
"""The same for scales that are moved between layers: each weight is rounded once more."""
ROUNDING = 0.71
"""A factor without a short binary form: scaling by it and back rounds as moved scales do."""
ADDED_TO_RESIDUAL = ("attn_out", "mlp_out")
"""All a block adds to its input; patching both everywhere replaces the whole computation."""


def parity(decoder: Decoder, full: Stream, token_ids: Tensor, noise_floor: float) -> float:
    """Largest per-token NLL difference between the walk and the plain forward, nats.

    In bfloat16 rounding alone exceeds float32's tolerance, so the measured noise floor sets it.

    Raises:
        GateError: it is above the tolerance.
    """
    if next(decoder.blocks.parameters()).device.type == "meta":
        difference = _block_parity(decoder, full, token_ids)
    else:
        difference = (_plain_nll(decoder, token_ids) - _nll(decoder, full, token_ids)).abs().max()
    tolerance = max(PARITY_TOLERANCE, 4 * noise_floor)
    if not difference <= tolerance:
        raise GateError(
            f"the block walk differs from the plain Hugging Face forward by {difference:.3g} nats "
            f"per token; {tolerance:.3g} is allowed."
        )
    return float(difference)


def self_patch(decoder: Decoder, stream: Stream, token_ids: Tensor) -> float:
    """Largest per-token NLL change when `stream` is patched with its own activations, nats.

    Raises:
        GateError: it is not exactly 0.
    """
    alone = _nll(decoder, stream, token_ids)
    again = Stream(f"{stream.name} again", stream.parameters)
    patched = _patched_nll(decoder, stream, again, token_ids)
    return _exact(alone, patched, f"{stream.name} patched with its own activations changed")


def full_patch(decoder: Decoder, donor: Stream, stream: Stream, token_ids: Tensor) -> float:
    """Largest per-token NLL gap to `donor` when all of `stream` is patched from it, nats.

    Raises:
        GateError: it is not exactly 0.
    """
    target = _nll(decoder, donor, token_ids)
    patched = _patched_nll(decoder, donor, stream, token_ids)
    return _exact(target, patched, f"{stream.name} patched everywhere from {donor.name} differs")


def folding(decoder: Decoder, full: Stream, folded: Stream, token_ids: Tensor) -> float:
    """Largest per-token NLL change by the scales a quantizer moves between layers, nats.

    Raises:
        GateError: it is more than rounding explains.
    """
    own = _nll(decoder, full, token_ids)
    difference = (own - _nll(decoder, folded, token_ids)).abs().max()
    rounding = (own - _nll(decoder, _rounded(decoder, full, folded), token_ids)).abs().max()
    noise = noise_floor(decoder, full, token_ids)
    tolerance = max(FOLDING_TOLERANCE, 4 * noise, 4 * float(rounding))
    if not difference <= tolerance:
        raise GateError(
            f"the full-precision model with the scales of {folded.name} differs from the model "
            f"itself by {difference:.3g} nats per token; {tolerance:.3g} is allowed."
        )
    return float(difference)


def _rounded(decoder: Decoder, full: Stream, folded: Stream) -> Stream:
    """The model with the parameters that `folded` has scaled by a factor, and back."""

    def parameters(index: int) -> dict[str, Tensor]:
        own = block_parameters(decoder, full, index)
        return {name: own[name] * ROUNDING / ROUNDING for name in folded.parameters(index)}

    return Stream("rounded", parameters)


def noise_floor(decoder: Decoder, stream: Stream, token_ids: Tensor) -> float:
    """Largest per-token NLL difference between batches of one and one batch of all rows, nats."""
    alone = torch.cat([_nll(decoder, stream, row[None]) for row in token_ids])
    return float((alone - _nll(decoder, stream, token_ids)).abs().max())


def _exact(expected: Tensor, found: Tensor, what: str) -> float:
    difference = (expected - found).abs().max()
    if not difference == 0:
        raise GateError(f"{what} by {difference:.3g} nats per token; it must be exactly 0.")
    return 0.0


def _nll(decoder: Decoder, stream: Stream, token_ids: Tensor) -> Tensor:
    """Per-token NLL of one stream, `[batch, length - 1]`."""
    (normed,) = walk(decoder, [stream], [token_ids])
    return token_losses(decoder.logits, normed, token_ids, None)[stream.name].nll


@torch.inference_mode()
def _plain_nll(decoder: Decoder, token_ids: Tensor) -> Tensor:
    logits = decoder.model(input_ids=token_ids, use_cache=False).logits[:, :-1].float()
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), token_ids[:, 1:].flatten().long(), reduction="none"
    )
    return loss.view(token_ids.shape[0], -1)


def _patched_nll(decoder: Decoder, donor: Stream, stream: Stream, token_ids: Tensor) -> Tensor:
    """Per-token NLL of `stream` with what its blocks add replaced by `donor`'s."""
    latest: dict[str, Tensor] = {}

    def keep(role: str, activation: Tensor) -> None:
        latest[role] = activation

    def give(role: str, activation: Tensor) -> Tensor:
        return latest[role]

    def taps(name: str, index: int, batch: int) -> BlockTaps:
        return {
            role: partial(keep if name == donor.name else give, role) for role in ADDED_TO_RESIDUAL
        }

    (normed,) = walk(decoder, [donor, stream], [token_ids], taps)
    return token_losses(decoder.logits, normed, token_ids, None)[stream.name].nll


@torch.inference_mode()
def _block_parity(decoder: Decoder, full: Stream, token_ids: Tensor) -> Tensor:
    """Largest difference of a block's output, walked against the same block built for itself.

    For models that do not fit in memory at once; relative to the largest activation.
    """
    entered = decoder.enter(token_ids)
    hidden_states, worst = entered.hidden_states, torch.zeros(())
    for index, (args, kwargs) in enumerate(entered.calls):
        block = copy.deepcopy(decoder.blocks[index]).to_empty(device=token_ids.device)
        block.load_state_dict(dict(full.parameters(index)), strict=False)
        for name, buffer in decoder.blocks[index].named_buffers():
            block.get_buffer(name).copy_(buffer)
        output = block(hidden_states, *args, **kwargs)
        alone = output[0] if isinstance(output, tuple) else output
        walked = decoder.run_block(index, hidden_states, (args, kwargs), full.parameters(index))
        worst = max(worst, (alone - walked).abs().max() / alone.abs().max())
        hidden_states = walked
    return worst
