"""The probe: a few random tokens scored by the plain model, to prove an environment reads it right.

Old versions of transformers silently ignore newer keys of a model's config: 4.51 takes the default
RoPE base for a checkpoint written by 5.x. Every environment that quantizes therefore scores the
probe's tokens first, and stops unless the core environment's NLL comes out.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lowbit.errors import InputError

ROWS = 4
LENGTH = 128
"""Tokens per row, where the model's context allows."""
TOLERANCE = 1e-4
"""Nats per token, mean of a row: far above float32 noise, far below a misread config."""


def draw_tokens(vocabulary: int, context: int | None, seed: int = 0) -> Tensor:
    """Draw random token ids `[4, min(128, context)]`; `context` None is unlimited."""
    length = LENGTH if context is None else min(LENGTH, context)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocabulary, (ROWS, length), generator=generator)


@torch.no_grad()
def row_nll(model: nn.Module, token_ids: Tensor) -> list[float]:
    """Score `[rows, length]` by the model's own forward; each row's mean NLL in nats per token."""
    logits = model(
        input_ids=token_ids, attention_mask=torch.ones_like(token_ids), use_cache=False
    ).logits
    token_nll = nn.functional.cross_entropy(
        logits[:, :-1].float().transpose(1, 2), token_ids[:, 1:], reduction="none"
    )
    return token_nll.double().mean(dim=1).tolist()


def make_probe(model: nn.Module, context: int | None) -> dict[str, Any]:
    """Draw the tokens and score them: the content of `probe.json`.

    Raises:
        InputError: the model's NLL is not a finite number.
    """
    token_ids = draw_tokens(model.get_input_embeddings().num_embeddings, context)
    nll = row_nll(model, token_ids)
    if not torch.tensor(nll).isfinite().all():
        raise InputError(
            f"the model gives an NLL of {nll} on random tokens, not finite numbers; "
            "its weights are broken, or it cannot be run in float32"
        )
    return {"nll": nll, "dtype": "float32", "token_ids": token_ids.tolist()}


def check_probe(model: nn.Module, probe: Mapping[str, Any]) -> None:
    """Score the probe's own tokens again.

    Raises:
        InputError: a row's NLL differs by more than `TOLERANCE`.
    """
    import transformers

    here = row_nll(model, torch.tensor(probe["token_ids"]))
    pairs = zip(here, probe["nll"], strict=True)
    found, expected = max(pairs, key=lambda pair: abs(pair[0] - pair[1]))
    if not abs(found - expected) <= TOLERANCE:
        raise InputError(
            f"the unquantized model has an NLL of {found:.6f} on the probe here and "
            f"{expected:.6f} in the core environment; {TOLERANCE:g} is allowed. Probably "
            f"transformers {transformers.__version__} of this environment misreads the model's "
            "config.json: old versions ignore newer keys, such as rope_theta inside "
            "rope_parameters. Write such keys the old way too, or quantize with a newer version."
        )
