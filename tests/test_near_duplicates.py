"""Near-duplicates against a brute-force definition."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lowbit.inputs.near_duplicates import drop_near_duplicates, jaccard_similarities, ngram_ids


def grams(row: np.ndarray, ngram: int) -> set[tuple[int, ...]]:
    """The set of n-grams of one row."""
    values = row.tolist()
    return {tuple(values[at : at + ngram]) for at in range(len(values) - ngram + 1)}


def brute_force(
    order: list[int], tokens: np.ndarray, ngram: int, threshold: float
) -> tuple[list[int], list[int]]:
    """The definition, word for word."""
    kept: list[int] = []
    dropped: list[int] = []
    for row in order:
        mine = grams(tokens[row], ngram)
        others = [grams(tokens[other], ngram) for other in kept]
        near = any(mine and len(mine & o) / len(mine | o) > threshold for o in others)
        (dropped if near else kept).append(row)
    return kept, dropped


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], np.ndarray, int, float]:
    """Few different tokens, so that n-grams are often shared."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 15)))
    values = st.sampled_from([0, 1, 2, 150_000])
    tokens = draw(arrays(np.int32, shape, elements=values))
    order = draw(st.permutations(range(shape[0])))[: draw(st.integers(1, shape[0]))]
    threshold = draw(st.sampled_from([0.0, 0.1, 1 / 3, 0.5, 1.0]))
    return list(order), tokens, draw(st.integers(1, 6)), threshold


@given(cases())
@settings(max_examples=300)
def test_the_walk_equals_the_definition(case: tuple[list[int], np.ndarray, int, float]) -> None:
    assert drop_near_duplicates(*case) == brute_force(*case)


@given(cases())
@settings(max_examples=100)
def test_ids_are_equal_exactly_where_ngrams_are(
    case: tuple[list[int], np.ndarray, int, float],
) -> None:
    _, tokens, ngram, _ = case
    ids = ngram_ids(tokens, ngram)
    pairs = {}
    for row, numbers in zip(tokens, ids, strict=True):
        for at, number in enumerate(numbers.tolist()):
            gram = tuple(row[at : at + ngram].tolist())
            assert pairs.setdefault(gram, number) == number
    assert len(set(pairs.values())) == len(pairs)


def test_similarity_is_jaccard_of_sets() -> None:
    tokens = np.array([[1, 1, 1, 2], [1, 1, 2, 3], [7, 8, 9, 7]])
    # Bigrams {11, 12}, {11, 12, 23} and {78, 89, 97}.
    expected = [[1, 2 / 3, 0], [2 / 3, 1, 0], [0, 0, 1]]
    np.testing.assert_allclose(jaccard_similarities(tokens, 2).toarray(), expected)


def test_a_dropped_row_drops_no_other() -> None:
    a = np.arange(20)
    b = np.concatenate([a[10:], np.arange(20, 30)])
    c = np.arange(20, 40)  # near b only
    assert drop_near_duplicates([0, 1, 2], np.stack([a, b, c]), 5, 0.1) == ([0, 2], [1])
    assert drop_near_duplicates([1, 0, 2], np.stack([a, b, c]), 5, 0.1) == ([1], [0, 2])


def test_similarity_at_the_threshold_is_kept() -> None:
    tokens = np.array([[1, 2, 3, 4], [1, 2, 3, 5]])  # trigrams 123, 234 and 123, 235: 1 of 3
    assert drop_near_duplicates([0, 1], tokens, 3, 1 / 3) == ([0, 1], [])
    assert drop_near_duplicates([0, 1], tokens, 3, 0.33) == ([0], [1])


@pytest.mark.parametrize("order", [[], [3]])
def test_none_and_one(order: list[int]) -> None:
    tokens = np.zeros((4, 8), dtype=np.int32)
    assert drop_near_duplicates(order, tokens, 5, 0.1) == (order, [])
