"""The long tail of hard documents, and which tokens carry the errors."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lowbit.analysis.long_tail import (
    BUCKET,
    DIFFERENCE,
    EASIEST,
    HARDEST,
    bucket_edges,
    long_tail_table,
)
from lowbit.analysis.score_files import read_token_scores
from lowbit.analysis.statistics import BootstrapSettings, resample_counts
from lowbit.analysis.tables import MEAN_OF_METHODS
from lowbit.analysis.token_errors import (
    concentration,
    concentration_draws,
    concentration_table,
    confidence_bins,
    frequency_bins,
    position_bins,
    token_rows,
    token_table,
)
from lowbit.errors import InputError

BOOTSTRAP = BootstrapSettings(resamples=100, confidence=0.9)


# --- the long tail


def errors_by_nll(n: int = 100) -> pd.DataFrame:
    """Errors of two methods: one falls by 0.1 for each nat, one is noise."""
    rng = np.random.default_rng(0)
    nll = np.linspace(1.01, 4.4, n)
    columns = {"falls": 1 - 0.1 * nll, "noise": rng.normal(size=n)}
    parts = [
        pd.DataFrame(
            {
                "doc_id": [f"d{i}" for i in range(n)],
                "method": name,
                "error": error,
                "nll_full": nll,
            }
        )
        for name, error in columns.items()
    ]
    return pd.concat(parts, ignore_index=True)


def test_buckets_are_multiples_of_half_a_nat_and_hold_everything():
    np.testing.assert_allclose(bucket_edges(np.array([1.2, 2.0, 2.3])), [1, 1.5, 2, 2.5])
    np.testing.assert_allclose(bucket_edges(np.array([2.0, 2.5])), [2, 2.5, 3])
    np.testing.assert_allclose(bucket_edges(np.array([0.3])), [0, 0.5])


def test_long_tail_rows_are_means_over_their_documents():
    errors = errors_by_nll()
    table = long_tail_table(errors, ["falls", "noise"], BOOTSTRAP, 0)
    assert list(dict.fromkeys(table["method"])) == ["falls", "noise"]
    buckets = table[table["documents"] == BUCKET]
    assert buckets.groupby("method")["n"].sum().tolist() == [100, 100]
    for row in buckets.itertuples():
        inside = errors["nll_full"].between(row.nll_from, row.nll_to, inclusive="left")
        mine = errors.loc[inside & (errors["method"] == row.method), "error"]
        assert row.n == len(mine)
        assert row.mean_error == pytest.approx(mine.mean())
        assert row.median_error == pytest.approx(mine.median())
        assert row.low < row.mean_error < row.high


def test_both_ends_are_compared_in_pairs():
    table = long_tail_table(errors_by_nll(), ["falls", "noise"], BOOTSTRAP, 0)
    falls = table[table["method"] == "falls"].set_index("documents")
    assert falls.loc[[EASIEST, HARDEST, DIFFERENCE], "n"].tolist() == [10, 10, 10]
    gap = falls.loc[HARDEST, "mean_error"] - falls.loc[EASIEST, "mean_error"]
    assert falls.loc[DIFFERENCE, "mean_error"] == pytest.approx(gap)
    assert gap == pytest.approx(-0.1 * 90 * (4.4 - 1.01) / 99)
    assert falls.loc[DIFFERENCE, "high"] < 0
    noise = table[(table["method"] == "noise") & (table["documents"] == DIFFERENCE)].iloc[0]
    assert noise["low"] < 0 < noise["high"]


def test_few_documents_have_no_interval():
    table = long_tail_table(errors_by_nll(20), ["falls"], BOOTSTRAP, 0).set_index("documents")
    assert table.loc[HARDEST, "n"] == 2
    assert table.loc[[EASIEST, HARDEST, DIFFERENCE], ["low", "high"]].isna().all(axis=None)
    assert table.loc[HARDEST, "mean_error"] > 0
    with pytest.raises(InputError, match="4 documents are too few"):
        long_tail_table(errors_by_nll(4), ["falls"], BOOTSTRAP, 0)


# --- concentration


def test_concentration_is_the_worst_tokens_share_of_the_positive_part():
    errors = np.array([[4.0, 1.0, -3.0, 3.0, 2.0], [1.0] * 5, [0.0, -1.0, 0.0, -2.0, 5.0]])
    np.testing.assert_allclose(concentration(errors, 0.2), [0.4, 0.2, 1.0])
    np.testing.assert_allclose(concentration(errors, 0.4), [0.7, 0.4, 1.0])
    np.testing.assert_allclose(concentration(errors, 0.3), [0.7, 0.4, 1.0])  # at least 0.3 of 5
    np.testing.assert_allclose(concentration(errors, 1.0), 1.0)


def test_a_document_without_positive_errors_has_no_share():
    errors = np.array([[-1.0, 0.0], [1.0, 1.0], [2.0, 2.0]])
    shares = concentration(errors, 0.5)
    assert np.isnan(shares[0])
    sets = {"all": np.ones(3, bool)}
    draws = concentration_draws(errors, sets, resample_counts(3, BOOTSTRAP, 0))
    assert draws["all", 0.1][0] == pytest.approx(0.5)


def test_concentration_table_compares_sets_and_averages_methods():
    rng = np.random.default_rng(1)
    large = np.arange(40) < 15
    sets = {"all": np.ones(40, bool), "large": large, "control": ~large}
    sizes = {name: int(member.sum()) for name, member in sets.items()}
    counts = resample_counts(40, BOOTSTRAP, 0)
    heavy = rng.gamma(0.2, size=(40, 200))
    even = rng.gamma(5, size=(40, 200))
    draws = {
        "one": concentration_draws(np.where(large[:, None], heavy, even), sets, counts),
        "two": concentration_draws(heavy, sets, counts),
    }
    table = concentration_table(draws, dict.fromkeys(draws, sizes), 0.9)
    rows = table[table["top"] == 0.05].set_index(["method", "set"])
    assert rows.loc[("one", "difference"), "low"] > 0.1
    assert rows.loc[("two", "difference"), "low"] < 0 < rows.loc[("two", "difference"), "high"]
    assert rows.loc[("one", "large"), "share"] == pytest.approx(
        concentration(heavy[large], 0.05).mean()
    )
    for name in sets:
        mean = (rows.loc[("one", name), "share"] + rows.loc[("two", name), "share"]) / 2
        assert rows.loc[(MEAN_OF_METHODS, name), "share"] == pytest.approx(mean)
    assert rows.loc[(MEAN_OF_METHODS, "difference"), "n"] == 15
    few = concentration_table(draws, {key: {**sizes, "large": 4} for key in draws}, 0.9)
    gone = few[few["set"].isin(["large", "difference"])]
    assert gone["low"].isna().all()
    assert gone["share"].notna().all()


# --- bins


def test_positions_are_counted_in_tokens_before():
    bins = position_bins(2, 40)
    labels = [bins.label(*pair) for pair in zip(bins.lowest, bins.highest, strict=True)]
    assert labels == ["1-7", "8-15", "16-31", "32-39"]
    assert bins.index.shape == (2, 39)
    assert np.bincount(bins.index[0]).tolist() == [7, 8, 16, 8]
    assert bins.index[0][[0, 6, 7, 38]].tolist() == [0, 0, 1, 3]
    short = position_bins(1, 5)
    assert (short.lowest.tolist(), short.highest.tolist()) == ([1], [4])


def test_frequencies_are_counts_in_all_documents():
    tokens = np.array([[9, 1, 1, 1, 2], [9, 1, 3, 3, 3], [9, 3, 3, 3, 4]])
    bins = frequency_bins(tokens)
    assert bins.lowest.tolist() == [1, 4]
    assert bins.highest.tolist() == [3, 15]
    expected = [[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 1, 0]]  # 1 occurs 4 times, 3 six times
    assert bins.index.tolist() == expected


def test_confidence_is_in_tenths_to_the_end():
    bins = confidence_bins(np.array([[0.0, 0.1, 0.55, 0.999, 1.0]]))
    assert bins.index.tolist() == [[0, 1, 5, 9, 9]]
    assert bins.label(bins.lowest[9], bins.highest[9]) == "0.9-1.0"


def test_rows_are_means_over_tokens_of_a_set():
    rng = np.random.default_rng(2)
    errors, flips = rng.normal(size=(30, 19)), rng.random((30, 19)) < 0.3
    sets = {"all": np.ones(30, bool), "large": np.arange(30) < 8}
    bins = [position_bins(30, 20), confidence_bins(np.full((30, 19), 0.35))]
    counts = resample_counts(30, BOOTSTRAP, 0)
    table = token_table(token_rows("m", errors, flips, bins, sets, counts, 0.9))
    assert table.groupby(["set", "by"])["n"].sum().tolist() == [570, 570, 152, 152]
    assert table.loc[table["by"] == "confidence", "bin"].tolist() == ["0.3-0.4"] * 2
    row = table[(table["set"] == "large") & (table["bin"] == "8-15")].iloc[0]
    assert row["mean_error"] == pytest.approx(errors[:8, 7:15].mean())
    assert row["flip_rate"] == pytest.approx(flips[:8, 7:15].mean())
    resampled = [
        np.repeat(errors[:8, 7:15], count[:8].astype(int), axis=0).mean() for count in counts[1:]
    ]
    assert row["error_low"] == pytest.approx(np.nanquantile(resampled, 0.05))
    assert row["error_low"] < row["mean_error"] < row["error_high"]


def test_bins_in_few_documents_have_no_interval():
    """Of ten documents nine are predicted with one confidence, the tenth with another."""
    rng = np.random.default_rng(2)
    errors, confidence = rng.normal(size=(10, 19)), np.full((10, 19), 0.35)
    confidence[0] = 0.95
    sets = {"all": np.ones(10, bool), "large": np.arange(10) < 4}
    bins, counts = [confidence_bins(confidence)], resample_counts(10, BOOTSTRAP, 0)
    table = token_table(token_rows("m", errors, errors > 0, bins, sets, counts, 0.9))
    at = table.set_index(["set", "bin"])
    ends = ["error_low", "error_high", "flip_low", "flip_high"]
    assert at.loc[("all", "0.3-0.4"), ends].notna().all()
    others = at.drop(("all", "0.3-0.4"))
    assert len(others) == 3
    assert others[ends].isna().all(axis=None)
    assert others[["mean_error", "flip_rate"]].notna().all(axis=None)


def test_token_columns_are_read_as_they_were_written(tmp_path):
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    columns = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(column.ravel()), 3)
        for name, column in (("token_nll", values), ("token_flip", values > 2))
    }
    pq.write_table(pa.table(columns), tmp_path / "scores.parquet")
    found = read_token_scores(tmp_path / "scores.parquet", "token_nll")
    np.testing.assert_array_equal(found, values)
    flips = read_token_scores(tmp_path / "scores.parquet", "token_flip")
    assert flips.dtype == bool
    np.testing.assert_array_equal(flips, values > 2)
