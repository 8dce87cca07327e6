"""What texts are about, as a classifier says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

UNLIMITED = 10**9
"""What a tokenizer without a limit states is far above this."""
STREAM = "topics"
"""Name of the one stream of results that `classify` yields."""


@dataclass(frozen=True)
class Classified:
    """Labels of texts."""

    label: np.ndarray
    """Number of the most probable label, int64 `[texts]`."""
    probability: np.ndarray
    """What the classifier gives that label, float32 `[texts]`."""


def classify(
    tokenizer: "PreTrainedTokenizerBase",
    model: "PreTrainedModel",
    texts: Sequence[str],
    first: int = 0,
) -> Iterator[Mapping[str, Classified]]:
    """Yield the labels of texts, one by one; what exceeds the classifier's context is cut off.

    One at a time, so that nothing is padded: not all classifiers leave padding alone.

    Args:
        first: the text to begin with.
    """
    most = maximum_tokens(tokenizer, model)
    cut = {"truncation": True, "max_length": most} if most else {}
    for text in texts[first:]:
        inputs = tokenizer([text], return_tensors="pt", **cut).to(model.device)
        with torch.inference_mode():
            best, label = model(**inputs).logits.softmax(dim=-1).max(dim=-1)
        yield {STREAM: Classified(label.cpu().numpy(), best.float().cpu().numpy())}


def maximum_tokens(tokenizer: "PreTrainedTokenizerBase", model: "PreTrainedModel") -> int | None:
    """Tokens that a classifier reads at most; None where nothing limits them.

    Where positions are a table with an entry for padding (RoBERTa), tokens' begin behind it.
    """
    positions = getattr(model.config, "max_position_embeddings", None) or 0
    for name, module in model.named_modules():
        is_table = isinstance(module, nn.Embedding) and name.endswith("position_embeddings")
        if is_table and module.padding_idx is not None:
            positions -= module.padding_idx + 1
    limits = [limit for limit in (positions, tokenizer.model_max_length) if 0 < limit < UNLIMITED]
    return min(limits, default=None)
