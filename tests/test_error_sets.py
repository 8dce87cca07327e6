"""Errors, D_large, D_ctrl and their overlap, on cases small enough to know the answer."""

import numpy as np
import pandas as pd
import pytest

from lowbit.analysis.error_sets import (
    DocumentSets,
    ErrorSettings,
    choose_sets,
    error_table,
    overlap_table,
    perplexity_table,
    require_documents_of,
    sets_table,
)
from lowbit.errors import InputError

SETTINGS = ErrorSettings()


def unique_tokens(n: int, length: int = 20) -> np.ndarray:
    """Rows of tokens without a common n-gram."""
    return np.arange(n * length, dtype=np.int32).reshape(n, length)


def score(nll: list[float], documents: str = "abcdefgh") -> pd.DataFrame:
    """Score table of a few documents."""
    doc_ids = list(documents[: len(nll)])
    columns = {"doc_id": doc_ids, "nll": nll, "kl": 0.1, "top1_flip_rate": 0.2, "entropy": 3.0}
    return pd.DataFrame(columns)


def test_errors_are_signed_differences_in_the_order_of_methods():
    table = error_table(
        {"full": score([1.0, 2.0]), "b": score([1.5, 1.75]), "a": score([1.0, 2.5])}
    )
    assert list(table.columns) == [
        "doc_id", "method", "error", "kl", "top1_flip_rate", "nll_full", "entropy_full", "nll"
    ]  # fmt: skip
    assert list(table["method"]) == ["b", "b", "a", "a"]
    assert list(table["error"]) == [0.5, -0.25, 0.0, 0.5]
    assert list(table["nll_full"]) == [1.0, 2.0, 1.0, 2.0]


def test_perplexity_is_of_the_mean_nll_and_error_its_log_ratio():
    table = perplexity_table(error_table({"full": score([1.0, 3.0]), "a": score([2.0, 3.0])}))
    assert list(table["method"]) == ["full", "a"]
    np.testing.assert_allclose(table["perplexity"], np.exp([2.0, 2.5]))
    ratio = table["perplexity"][1] / table["perplexity"][0]
    assert table["mean_error"][1] == pytest.approx(np.log(ratio))
    assert list(table["n"]) == [2, 2]
    assert list(table["mean_kl"]) == [0.0, 0.1]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ({"a": score([1.0])}, "no 'full' entry"),
        ({"full": score([1.0])}, "no method was scored"),
        ({"full": score([1.0, 2.0]), "a": score([1.0, 2.0], "ba")}, "different documents"),
        ({"full": score([1.0, 2.0]), "a": score([1.0, np.nan])}, "document 'b' under 'a'"),
        ({"full": score([1.0, 2.0]), "a": score([1.0, np.inf])}, "not a finite number"),
    ],
)
def test_unusable_scores_are_named(scores, message):
    with pytest.raises(InputError, match=message):
        error_table(scores)


def test_errors_must_be_of_the_token_table():
    errors = error_table({"full": score([1.0, 2.0]), "a": score([1.0, 2.5])})
    require_documents_of(errors, ["a", "b"])
    with pytest.raises(InputError, match="score again"):
        require_documents_of(errors, ["a", "c"])


def test_large_is_the_top_tenth_and_control_is_from_the_bottom_half():
    error = np.random.default_rng(0).permutation(np.arange(100.0))
    sets = choose_sets(error, unique_tokens(100), SETTINGS, seed=3, method="rtn3")
    assert list(error[sets.large]) == list(np.arange(99.0, 89.0, -1))
    assert len(sets.control) == 10
    assert len(set(sets.control)) == 10
    assert (error[sets.control] < 50).all()
    assert len(sets.duplicate) == 0


def test_signed_errors_count_not_their_size():
    error = np.array([-9.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    sets = choose_sets(error, unique_tokens(10), SETTINGS, seed=0, method="a")
    assert list(sets.large) == [9]


def test_duplicates_are_dropped_from_the_top_and_neither_refilled_nor_matched_by_control():
    error = np.arange(40.0)
    tokens = unique_tokens(40)
    tokens[37] = tokens[39]  # the same text with a smaller error
    tokens[20] = tokens[38]  # not among the worst: of no consequence
    sets = choose_sets(error, tokens, SETTINGS, seed=0, method="a")
    assert list(sets.large) == [39, 38, 36]
    assert list(sets.duplicate) == [37]
    assert len(sets.control) == 4


def test_control_draw_depends_on_seed_and_method_only():
    error, tokens = np.arange(100.0), unique_tokens(100)

    def control(seed: int, method: str) -> list[int]:
        return list(choose_sets(error, tokens, SETTINGS, seed, method).control)

    assert control(0, "a") == control(0, "a")
    assert control(0, "a") != control(1, "a")
    assert control(0, "a") != control(0, "b")


def test_control_draw_is_uniform_over_the_bottom_half():
    error, tokens = np.arange(20.0), unique_tokens(20)
    drawn = [choose_sets(error, tokens, SETTINGS, seed, "a").control for seed in range(500)]
    counts = np.bincount(np.concatenate(drawn), minlength=20)
    assert (counts[10:] == 0).all()
    assert counts[:10].min() > 70  # 100 expected, standard deviation 9


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (np.arange(4.0), r"4 documents are too few.*documents\.n"),
        (np.full(50, 0.25), r"error of 'rtn3' is 0\.25 for all 50 documents"),
    ],
)
def test_sets_that_cannot_be_chosen(error, message):
    with pytest.raises(InputError, match=message):
        choose_sets(error, unique_tokens(len(error)), SETTINGS, seed=0, method="rtn3")


@pytest.mark.parametrize(("large", "control"), [(0, 0.5), (0.6, 0.5), (0.3, 0.8), (-0.1, 0.5)])
def test_fractions_that_overlap_are_refused(large, control):
    with pytest.raises(InputError, match=r"errors\.large_fraction"):
        ErrorSettings(large_fraction=large, control_fraction=control)


def test_overlap_and_sets_tables():
    def chosen(large: list[int]) -> DocumentSets:
        return DocumentSets(np.array(large), np.array([0]), np.array([], int))

    sets = {"a": chosen([4, 5, 6]), "b": chosen([6, 7]), "c": chosen([1])}
    overlap = overlap_table(sets, n=8)
    assert list(overlap["jaccard"]) == [1 / 4, 0, 0]
    assert list(overlap["n_a"]) == [3, 3, 2]
    table = sets_table(list("abcdefgh"), sets)
    large = table[(table["method"] == "a") & (table["set"] == "large")]
    assert list(large["doc_id"]) == ["e", "f", "g"]
    assert set(table["set"]) == {"large", "control"}
    assert overlap_table({"a": chosen([1])}, n=8).empty
