"""Near-duplicates among token rows: Jaccard similarity of their sets of n-grams."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_array


def ngram_ids(tokens: np.ndarray, ngram: int) -> np.ndarray:
    """Number the n-grams: equal ids for equal n-grams, and only for these (nothing is hashed).

    Args:
        tokens: int `[documents, length]`.
        ngram: tokens per n-gram.

    Returns:
        int64 `[documents, length - ngram + 1]`, ids from 0 without gaps; no columns where rows are
        shorter than an n-gram.
    """
    columns = max(tokens.shape[1] - ngram + 1, 0)
    ids = np.zeros((len(tokens), columns), dtype=np.int64)
    words = np.unique(tokens, return_inverse=True)[1].reshape(tokens.shape)
    for offset in range(ngram if ids.size else 0):
        longer = ids * (words.max() + 1) + words[:, offset : offset + columns]
        ids = np.unique(longer, return_inverse=True)[1].reshape(ids.shape)
    return ids


def jaccard_similarities(tokens: np.ndarray, ngram: int) -> csr_array:
    """Jaccard similarity of the n-gram sets of every two rows that share an n-gram.

    Args:
        tokens: int `[documents, length]`.
        ngram: tokens per n-gram.

    Returns:
        Sparse float64 `[documents, documents]`; what is not stored is 0.
    """
    ids = ngram_ids(tokens, ngram)
    rows = np.repeat(np.arange(len(ids)), ids.shape[1])
    members = csr_array(
        (np.ones(ids.size, dtype=np.int64), (rows, ids.ravel())),
        shape=(len(ids), ids.max(initial=-1) + 1),
    )
    members.sum_duplicates()
    members.data[:] = 1  # a set: how often an n-gram stands in a row does not count
    sizes = members.sum(axis=1)
    shared = (members @ members.T).tocoo()
    union = sizes[shared.row] + sizes[shared.col] - shared.data
    return csr_array((shared.data / union, (shared.row, shared.col)), shape=shared.shape)


def drop_near_duplicates(
    order: Sequence[int], tokens: np.ndarray, ngram: int, threshold: float
) -> tuple[list[int], list[int]]:
    """Walk through rows in the given order and drop each that is too similar to one kept before.

    A dropped row makes no other row drop, and nothing takes its place (arXiv 2506.12044).

    Args:
        order: row numbers of `tokens`, the most important first; rows not in it are left out.
        tokens: int `[documents, length]`.
        ngram: tokens per n-gram.
        threshold: largest Jaccard similarity that two kept rows may have.

    Returns:
        The kept and the dropped row numbers, both in the given order.
    """
    similarities = jaccard_similarities(tokens[np.asarray(order, dtype=np.int64)], ngram)
    is_kept = np.zeros(len(order), dtype=bool)
    for place in range(len(order)):
        stored = slice(similarities.indptr[place], similarities.indptr[place + 1])
        near = similarities.indices[stored][similarities.data[stored] > threshold]
        is_kept[place] = not is_kept[near].any()
    kept = [int(row) for row, keep in zip(order, is_kept, strict=True) if keep]
    return kept, [int(row) for row, keep in zip(order, is_kept, strict=True) if not keep]
