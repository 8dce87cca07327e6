"""What texts are about, as a classifier says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import TYPE_CHECKING

import numpy as np
import torch

from lowbit.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

STREAM = "topics"
"""Name of the one stream of results that `classify` yields."""
MULTIPLE = 32
"""Tokens of which a batch's length is a multiple: batches of ever new lengths would take ever more
memory, a third more after 40 of them."""


@dataclass(frozen=True)
class Classified:
    """The label of each text."""

    label: np.ndarray
    """Number of the most probable label, int64 `[texts]`."""
    probability: np.ndarray
    """What the classifier gives that label, float32 `[texts]`."""


def classify(
    tokenizer: "PreTrainedTokenizerBase",
    model: "PreTrainedModel",
    texts: Sequence[str],
    batch_size: int,
    first: int = 0,
) -> Iterator[Mapping[str, Classified]]:
    """Yield the labels of texts, batch by batch; what exceeds the classifier's context is cut off.

    Args:
        batch_size: texts at once.
        first: the text to begin with.

    Raises:
        InputError: the tokenizer has no token to fill up shorter texts with.
    """
    if tokenizer.pad_token is None:
        raise InputError(
            "the classifier's tokenizer has no padding token; write one into tokenizer_config.json"
        )
    context = getattr(model.config, "max_position_embeddings", None)
    multiple = gcd(context, MULTIPLE) if context else MULTIPLE
    for at in range(first, len(texts), batch_size):
        inputs = tokenizer(
            list(texts[at : at + batch_size]),
            padding=True,
            pad_to_multiple_of=multiple,
            truncation=context is not None,
            max_length=context,
            return_tensors="pt",
        )
        with torch.inference_mode():
            probabilities = model(**inputs.to(model.device)).logits.softmax(dim=-1)
        best, label = probabilities.max(dim=-1)
        yield {STREAM: Classified(label.cpu().numpy(), best.cpu().numpy())}
