"""Losses over the vocabulary, computed in chunks: the logits of a batch never exist at once."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lowbit.engine.sizes import LOGITS_PER_CHUNK


@dataclass
class TokenLosses:
    """What one stream says of each predicted token; every field `[batch, length - 1]`, float32.

    Only `nll` is there where no reference was named.
    """

    nll: Tensor
    """-ln p(token), nats"""
    kl: Tensor | None = None
    """KL(reference || stream), nats"""
    top1_flip: Tensor | None = None
    """1 where the stream's most likely token is not the reference's"""
    entropy: Tensor | None = None
    """Of the predicted distribution, nats; of the reference itself only"""
    confidence: Tensor | None = None
    """Probability of the most likely token; of the reference itself only"""


@dataclass
class ChosenLosses:
    """What one stream says of the tokens chosen; every field `[batch, length]`."""

    nll: Tensor
    """-ln p(token), nats, float32; 0 where no token was chosen"""
    hit: Tensor | None
    """Whether the token is the most likely one, bool; true where no token was chosen"""


@torch.inference_mode()
def token_losses(
    logits: Callable[[Tensor], Tensor],
    normed: Mapping[str, Tensor],
    token_ids: Tensor,
    reference: str | None,
) -> dict[str, TokenLosses]:
    """Compute losses of several streams against the stream `reference` (None: NLL only).

    Args:
        logits: the output head, `[tokens, width]` to float32 `[tokens, vocabulary]`.
        normed: per stream the output after the final norm, `[batch, length, width]`.
        token_ids: `[batch, length]`; position t + 1 is the target of position t.
    """
    batch, length = token_ids.shape
    targets = token_ids[:, 1:].reshape(-1).long()
    places = (
        torch.arange(batch * length, device=targets.device).view(batch, length)[:, :-1].flatten()
    )
    flat = {name: states.flatten(0, 1) for name, states in normed.items()}
    order = sorted(flat, key=lambda name: name != reference)
    # Made beforehand: small tensors that stay, made between the logits of one chunk and the next,
    # would keep freed memory from being used again.
    found = {name: _room(targets, reference, name) for name in order}
    for chunk in _chunks(logits, flat[order[0]], len(places)):
        base = None
        for name in order:
            log_probabilities = logits(flat[name][places[chunk]]).log_softmax(-1)
            nll = -log_probabilities.gather(-1, targets[chunk, None])[:, 0]
            if reference is None:
                losses = TokenLosses(nll)
            else:
                base = base or _Reference(log_probabilities)
                losses = base.compare(nll, log_probabilities)
            for field, values in vars(losses).items():
                if values is not None:
                    getattr(found[name], field)[chunk] = values
    return {name: _shaped(found[name], (batch, length - 1)) for name in normed}


@torch.inference_mode()
def chosen_losses(
    logits: Callable[[Tensor], Tensor],
    normed: Mapping[str, Tensor],
    targets: Tensor,
    chosen: Tensor,
    hits: bool,
) -> dict[str, ChosenLosses]:
    """Compute the NLL of chosen tokens under several streams; logits of no others are computed.

    Args:
        logits: the output head, as in `token_losses`.
        normed: per stream the output after the final norm, `[batch, length, width]`.
        targets: `[batch, length]` the token that follows each position.
        chosen: bool `[batch, length]` the positions whose next token counts; one at least.
        hits: whether to look for the most likely tokens, too.
    """
    wanted = targets[chosen].long()
    found = {}
    for name, states in normed.items():
        flat, nll, hit = states[chosen], [], []
        for chunk in _chunks(logits, flat, len(flat)):
            log_probabilities = logits(flat[chunk]).log_softmax(-1)
            nll.append(-log_probabilities.gather(-1, wanted[chunk, None])[:, 0])
            if hits:
                hit.append(log_probabilities.argmax(-1) == wanted[chunk])
        spread = torch.zeros(chosen.shape, device=flat.device)
        spread[chosen] = torch.cat(nll)
        all_hit = torch.ones_like(chosen) if hits else None
        if hits:
            all_hit[chosen] = torch.cat(hit)
        found[name] = ChosenLosses(spread, all_hit)
    return found


def _chunks(logits: Callable[[Tensor], Tensor], flat: Tensor, tokens: int) -> Iterator[slice]:
    """Cut `tokens` so that the logits of a piece are at most `LOGITS_PER_CHUNK`.

    Args:
        flat: `[..., width]` some of them, to see how many logits one has.
    """
    step = max(1, LOGITS_PER_CHUNK // logits(flat[:1]).shape[-1])
    for start in range(0, tokens, step):
        yield slice(start, start + step)


class _Reference:
    """The full-precision model's distribution over one chunk of tokens."""

    def __init__(self, log_probabilities: Tensor) -> None:
        self.log_probabilities = log_probabilities
        self.probabilities = log_probabilities.exp()
        highest, self.top1 = log_probabilities.max(-1)
        self.confidence = highest.exp()

    def compare(self, nll: Tensor, log_probabilities: Tensor) -> TokenLosses:
        """Losses of a stream from its log-probabilities `[tokens, vocabulary]`."""
        if log_probabilities is self.log_probabilities:
            nothing = torch.zeros_like(nll)
            entropy = -torch.linalg.vecdot(self.probabilities, log_probabilities)
            return TokenLosses(nll, nothing, nothing, entropy, self.confidence)
        difference = (self.log_probabilities - log_probabilities).mul_(self.probabilities)
        flip = log_probabilities.argmax(-1) != self.top1
        return TokenLosses(nll, difference.sum(-1), flip.float())


def _room(targets: Tensor, reference: str | None, name: str) -> TokenLosses:
    """Room for what stream `name` says of `targets` `[tokens]`."""
    wanted = 1 if reference is None else 5 if name == reference else 3
    columns = [targets.new_empty(targets.shape, dtype=torch.float32) for _ in range(wanted)]
    return TokenLosses(*columns)


def _shaped(losses: TokenLosses, shape: tuple[int, int]) -> TokenLosses:
    return TokenLosses(*(None if c is None else c.view(shape) for c in vars(losses).values()))
