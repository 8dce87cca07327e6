"""Losses over the vocabulary, computed in chunks: the logits of a batch never exist at once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

LOGITS_PER_CHUNK = 1 << 21
"""Logits in flight per stream: 8 MiB in float32, within a large cache, few enough calls."""


@dataclass
class TokenLosses:
    """What one stream says of each predicted token; every field `[batch, length - 1]`, float32."""

    nll: Tensor
    """-ln p(token), nats"""
    kl: Tensor | None
    """KL(full || stream), nats; None where not asked for"""
    top1_flip: Tensor | None
    """1 where the stream's most likely token is not the full-precision model's"""


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
    flat = {name: states[:, :-1].reshape(targets.numel(), -1) for name, states in normed.items()}
    order = sorted(flat, key=lambda name: name != reference)
    columns = {name: _empty_losses(targets, reference is not None) for name in order}
    vocabulary = logits(flat[order[0]][:1]).shape[-1]
    step = max(1, LOGITS_PER_CHUNK // vocabulary)
    for start in range(0, targets.numel(), step):
        chunk = slice(start, start + step)
        base = None
        for name in order:
            log_probabilities = logits(flat[name][chunk]).log_softmax(-1)
            columns[name].nll[chunk] = -log_probabilities.gather(-1, targets[chunk, None])[:, 0]
            if reference is None:
                continue
            if base is None:
                base = _Reference(log_probabilities)
            columns[name].kl[chunk] = base.divergence(log_probabilities)
            columns[name].top1_flip[chunk] = (log_probabilities.argmax(-1) != base.top1).float()
    return {name: _reshaped(columns[name], (batch, length - 1)) for name in normed}


class _Reference:
    """The full-precision model's distribution over one chunk of tokens."""

    def __init__(self, log_probabilities: Tensor) -> None:
        self.log_probabilities = log_probabilities
        self.probabilities = log_probabilities.exp()
        self.top1 = log_probabilities.argmax(-1)

    def divergence(self, log_probabilities: Tensor) -> Tensor:
        """KL(reference || stream) per token `[tokens]`."""
        return (self.log_probabilities - log_probabilities).mul_(self.probabilities).sum(-1)


def _empty_losses(targets: Tensor, compared: bool) -> TokenLosses:
    def empty() -> Tensor:
        return torch.empty(targets.shape, dtype=torch.float32, device=targets.device)

    return TokenLosses(empty(), empty() if compared else None, empty() if compared else None)


def _reshaped(losses: TokenLosses, shape: tuple[int, int]) -> TokenLosses:
    columns = (losses.nll, losses.kl, losses.top1_flip)
    return TokenLosses(*(column if column is None else column.view(shape) for column in columns))
