"""Features of the text alone: what one can know of a document without running any model.

Five shares and ratios of the text as the model saw it, its compressibility, and the surprise of a
bigram model of its tokens, which is fitted on other documents of the study.
"""

import re
import string
import zlib
from collections.abc import Sequence

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

TEXT_FEATURES = (
    "digits",
    "punctuation",
    "upper_case",
    "stop_words",
    "type_token_ratio",
    "compressed_size",
)
"""Columns of `text_features`; the bigram model's surprise stands after them in feature sets."""

PRIOR = 100.0
"""Weight of the unigram model in the bigram model, in occurrences of the context."""

_WORD = re.compile(r"[^\W\d_]+")
_PUNCTUATION = frozenset(string.punctuation)


def text_features(texts: Sequence[str]) -> np.ndarray:
    """Compute `TEXT_FEATURES` of every text -> [documents, 6]; all 0 for an empty text.

    digits, punctuation (ASCII), upper_case: shares of the characters. stop_words: share of the
    words that are among scikit-learn's English stop words. type_token_ratio: different words over
    words, in lower case. compressed_size: bytes after zlib over bytes before.
    """
    return np.array([_features(text) for text in texts]).reshape(len(texts), len(TEXT_FEATURES))


def _features(text: str) -> list[float]:
    """The features of one text, in the order of `TEXT_FEATURES`."""
    words = _WORD.findall(text.lower())
    raw = text.encode()
    counts = [
        (sum(map(str.isdigit, text)), len(text)),
        (sum(map(_PUNCTUATION.__contains__, text)), len(text)),
        (sum(map(str.isupper, text)), len(text)),
        (sum(map(ENGLISH_STOP_WORDS.__contains__, words)), len(words)),
        (len(set(words)), len(words)),
        (len(zlib.compress(raw)), len(raw)),
    ]
    return [count / total if total else 0.0 for count, total in counts]


class BigramSurprise:
    """Mean surprise of a document under a bigram model of token ids, in nats per token.

    p(w | v) = (c(v, w) + m p(w)) / (c(v) + m), the prior p(w) = (c(w) + 1) / (N + V): a Dirichlet
    prior with m = `PRIOR` (MacKay and Peto, 1995, "A hierarchical Dirichlet language model") over
    add-one unigrams. Counts are of the training documents. A training document is scored without
    its own counts, as a held-out one is: otherwise its surprise would be too small and a regression
    would learn from a feature that held-out documents do not have.
    """

    def __init__(self, tokens: np.ndarray, vocabulary: int) -> None:
        """Index tokens [documents, length]; `vocabulary`: number of the model's tokens."""
        tokens = tokens.astype(np.int64)
        self.vocabulary = vocabulary
        self.contexts = _Counted(tokens[:, :-1])
        self.words = _Counted(tokens[:, 1:])
        self.pairs = _Counted(tokens[:, :-1] * vocabulary + tokens[:, 1:])

    def surprise(self, train: np.ndarray) -> np.ndarray:
        """Surprise of every document [documents], fitted on `train`, bool [documents]."""
        predicted = self.words.ids.shape[1]
        total = predicted * (train.sum() - train)[:, None]
        prior = (self.words.counts(train) + 1) / (total + self.vocabulary)
        pairs, contexts = self.pairs.counts(train), self.contexts.counts(train)
        return -np.log((pairs + PRIOR * prior) / (contexts + PRIOR)).mean(axis=1)


class _Counted:
    """Numbers [documents, length] and how often each occurs in other documents."""

    def __init__(self, values: np.ndarray) -> None:
        _, flat = np.unique(values, return_inverse=True)
        self.ids = flat.reshape(values.shape)
        self.own = np.stack([_occurrences(row) for row in self.ids])

    def counts(self, train: np.ndarray) -> np.ndarray:
        """Occurrences of each number in the documents of `train`, its own left out."""
        everywhere = np.bincount(self.ids[train].ravel(), minlength=self.ids.max() + 1)
        return everywhere[self.ids] - np.where(train[:, None], self.own, 0)


def _occurrences(row: np.ndarray) -> np.ndarray:
    """How often each number of a row [length] occurs in it."""
    _, inverse, counts = np.unique(row, return_inverse=True, return_counts=True)
    return counts[inverse]
