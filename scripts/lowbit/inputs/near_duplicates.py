"""Near-duplicates among token rows: Jaccard similarity of their sets of n-grams."""

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.sparse import coo_array, csr_array


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
    members = _members(ids, int(ids.max(initial=-1)) + 1)
    return csr_array(_jaccard(members, members))


def nearest_pair(first: np.ndarray, second: np.ndarray, ngram: int) -> tuple[float, int, int]:
    """The two rows, one of each table, whose sets of n-grams are most alike.

    Args:
        first: int `[rows, length]`.
        second: the same, of another length or not.
        ngram: tokens per n-gram.

    Returns:
        Their Jaccard similarity and their row numbers; 0, 0, 0 where no n-gram is shared.
    """
    if min(first.shape[1], second.shape[1]) < ngram:
        return 0.0, 0, 0
    windows = [sliding_window_view(table, ngram, axis=1) for table in (first, second)]
    every = np.concatenate([view.reshape(-1, ngram) for view in windows])
    ids = np.unique(every, axis=0, return_inverse=True)[1].ravel()
    cut, count = windows[0].shape[0] * windows[0].shape[1], int(ids.max()) + 1
    sets = [
        _members(part.reshape(len(table), -1), count)
        for part, table in zip((ids[:cut], ids[cut:]), (first, second), strict=True)
    ]
    similarities = _jaccard(*sets)
    if not similarities.nnz:
        return 0.0, 0, 0
    best = similarities.data.argmax()
    return float(similarities.data[best]), int(similarities.row[best]), int(similarities.col[best])


def _members(ids: np.ndarray, count: int) -> csr_array:
    """Which of `count` n-grams stand in which row of ids `[rows, n-grams]`: 0 or 1."""
    rows = np.repeat(np.arange(len(ids)), ids.shape[1])
    ones = np.ones(ids.size, dtype=np.int64)
    members = csr_array((ones, (rows, ids.ravel())), shape=(len(ids), count))
    members.sum_duplicates()
    members.data[:] = 1  # a set: how often an n-gram stands in a row does not count
    return members


def _jaccard(first: csr_array, second: csr_array) -> coo_array:
    """Jaccard similarity of every row of one table of members with every row of the other."""
    shared = (first @ second.T).tocoo()
    union = first.sum(axis=1)[shared.row] + second.sum(axis=1)[shared.col] - shared.data
    return coo_array((shared.data / union, (shared.row, shared.col)), shape=shared.shape)


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
