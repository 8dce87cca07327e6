"""Statistics against SciPy and against distributions with known answers."""

import numpy as np
import pytest
import scipy.stats

from lowbit.analysis.statistics import (
    BootstrapSettings,
    estimate,
    expected_jaccard,
    jaccard_draws,
    mean_draws,
    pearson_draws,
    require_documents,
    require_variation,
    resample_counts,
    spearman_draws,
    summarise,
    top_counts,
)
from lowbit.errors import InputError

SETTINGS = BootstrapSettings(resamples=200, confidence=0.9)


@pytest.fixture
def sample() -> tuple[np.ndarray, np.ndarray]:
    """Two columns and three columns of 60 correlated values, with ties and far from zero."""
    rng = np.random.default_rng(5)
    base = rng.normal(size=(60, 1))
    x = 1e4 + base + rng.normal(size=(60, 2))
    y = np.round(base + rng.standard_t(3, size=(60, 3)), 1)
    return x, y


@pytest.mark.parametrize(
    ("ours", "scipys"),
    [(pearson_draws, scipy.stats.pearsonr), (spearman_draws, scipy.stats.spearmanr)],
)
def test_correlations_equal_scipy(sample, ours, scipys):
    x, y = sample
    value = ours(x, y, np.ones((1, len(x))))[0]
    expected = [[scipys(a, b).statistic for b in y.T] for a in x.T]
    np.testing.assert_allclose(value, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("ours", "scipys"),
    [(pearson_draws, scipy.stats.pearsonr), (spearman_draws, scipy.stats.spearmanr)],
)
def test_bootstrap_equals_scipy_draw_by_draw(sample, ours, scipys):
    x, y = sample
    counts = resample_counts(len(x), SETTINGS, seed=3)
    draws = ours(x[:, :1], y[:, :1], counts)[:, 0, 0]
    expected = scipy.stats.bootstrap(
        (x[:, 0], y[:, 0]),
        lambda a, b: scipys(a, b).statistic,
        paired=True,
        vectorized=False,
        n_resamples=SETTINGS.resamples,
        confidence_level=SETTINGS.confidence,
        method="percentile",
        rng=np.random.default_rng(3),
    )
    np.testing.assert_allclose(draws[1:], expected.bootstrap_distribution, atol=1e-10)
    result = estimate(draws, SETTINGS.confidence)
    np.testing.assert_allclose(result[1:], expected.confidence_interval, atol=1e-10)


def test_chunked_ranks_equal_unchunked(sample, monkeypatch):
    x, y = sample
    counts = resample_counts(len(x), SETTINGS, seed=0)
    whole = spearman_draws(x, y, counts)
    monkeypatch.setattr("lowbit.analysis.statistics.CHUNK_ELEMENTS", 1000)
    np.testing.assert_array_equal(spearman_draws(x, y, counts), whole)


def test_resamples_are_seeded_and_hold_n_documents():
    counts = resample_counts(50, SETTINGS, seed=1)
    np.testing.assert_array_equal(counts, resample_counts(50, SETTINGS, seed=1))
    assert (counts != resample_counts(50, SETTINGS, seed=2)).any()
    assert (counts[0] == 1).all()
    assert (counts.sum(axis=1) == 50).all()


def test_mean_and_jaccard_follow_the_weights():
    values = np.array([[1.0], [2.0], [30.0], [4.0]])
    a = np.array([True, True, False, True])
    b = np.array([False, True, True, True])
    counts = np.array([[1, 1, 1, 1], [0, 3, 1, 0]], float)
    np.testing.assert_allclose(mean_draws(values, a, counts)[:, 0], [7 / 3, 2])
    np.testing.assert_allclose(jaccard_draws(counts * a, counts * b), [2 / 4, 3 / 4])


def test_the_largest_are_chosen_anew_in_every_resample():
    values = np.array([0.1, 0.9, 0.5, 0.7])
    counts = np.array([[1, 1, 1, 1], [3, 0, 1, 0], [0, 3, 1, 0], [2, 0, 1, 1]], float)
    expected = [[0, 1, 0, 1], [1, 0, 1, 0], [0, 2, 0, 0], [0, 0, 1, 1]]
    np.testing.assert_array_equal(top_counts(values, 2, counts), expected)


def test_resample_without_variation_is_left_out_of_the_interval():
    x = np.array([[0.0], [1.0], [2.0], [4.0]])
    y = np.array([[0.0], [1.5], [1.0], [3.0]])
    counts = np.array([[1, 1, 1, 1], [4, 0, 0, 0], [1, 1, 1, 1]], float)
    draws = pearson_draws(x, y, counts)
    assert np.isnan(draws[1]).all()
    value, low, high = summarise(draws, 0.95)
    np.testing.assert_allclose(low, value)
    np.testing.assert_allclose(high, value)


def test_interval_covers_the_true_correlation():
    """95 % intervals of r between normal variables hold the truth in about 95 % of samples."""
    rng = np.random.default_rng(11)
    truth, covered, trials = 0.6, 0, 400
    counts = resample_counts(120, BootstrapSettings(400, 0.95), seed=0)
    for _ in range(trials):
        pair = rng.multivariate_normal([0, 0], [[1, truth], [truth, 1]], size=120)
        draws = pearson_draws(pair[:, :1], pair[:, 1:], counts)[:, 0, 0]
        _, low, high = estimate(draws, 0.95)
        covered += low <= truth <= high
    assert 0.90 <= covered / trials <= 0.98


def test_mean_over_dependent_pairs_is_less_certain_than_independence_would_say():
    """All pairs share a method: averaging them must not shrink the interval like 1/sqrt(pairs)."""
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(150, 1))
    others = shared + 0.05 * rng.normal(size=(150, 20)) + 0.8 * rng.normal(size=(150, 1))
    counts = resample_counts(150, BootstrapSettings(500, 0.95), seed=0)
    draws = pearson_draws(shared, others, counts)[:, 0, :]
    one = estimate(draws[:, 0], 0.95)
    mean = estimate(draws.mean(axis=1), 0.95)
    assert mean.high - mean.low > 0.8 * (one.high - one.low)


@pytest.mark.parametrize(("n_a", "n_b", "n"), [(30, 30, 300), (5, 12, 20), (9, 9, 10)])
def test_expected_jaccard_equals_simulation(n_a, n_b, n):
    rng = np.random.default_rng(0)
    order = rng.permuted(np.tile(np.arange(n), (4000, 1)), axis=1)
    overlap = (order[:, :n_a] < n_b).sum(axis=1)
    simulated = (overlap / (n_a + n_b - overlap)).mean()
    assert expected_jaccard(n_a, n_b, n) == pytest.approx(simulated, abs=0.005)


def test_chance_level_of_the_paper():
    """Two random tenths of 10,000 documents overlap with Jaccard .05, as the paper says."""
    assert expected_jaccard(1000, 1000, 10_000) == pytest.approx(0.0526, abs=1e-3)


def test_user_errors_name_the_key():
    with pytest.raises(InputError, match=r"documents\.n"):
        require_documents(3)
    with pytest.raises(InputError, match=r"methods\.rtn8"):
        require_variation(np.zeros((9, 1)), ["rtn8"], "the error")
    with pytest.raises(InputError, match=r"bootstrap\.confidence"):
        BootstrapSettings(confidence=95)
    with pytest.raises(InputError, match=r"bootstrap\.resamples"):
        BootstrapSettings(resamples=0)
