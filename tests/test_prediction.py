"""Predicting errors of held-out documents: features, fits, metrics, verdicts, degenerate input."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from sklearn.dummy import DummyRegressor
from sklearn.linear_model import LinearRegression, LogisticRegressionCV, RidgeCV
from sklearn.metrics import (
    average_precision_score,
    log_loss,
    mean_squared_error,
    r2_score,
    roc_auc_score,
)
from sklearn.model_selection import RepeatedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lowbit.analysis.prediction import fit as prediction_fit
from lowbit.analysis.prediction import text_features
from lowbit.analysis.prediction.feature_sets import (
    ERROR,
    FEATURE_SETS,
    LARGE,
    Targets,
    predictions_from_table,
    predictions_table,
)
from lowbit.analysis.prediction.fit import Features, PredictionSettings, predict
from lowbit.analysis.prediction.metrics import (
    auroc_draws,
    average_precision_draws,
    chance_precision,
    partial_correlation_draws,
    r2_draws,
)
from lowbit.analysis.prediction.report import norm_verdict, prediction_markdown
from lowbit.analysis.prediction.tables import (
    ADDS,
    LOWERS,
    NOTHING,
    Evaluation,
    added_table,
    partial_table,
    prediction_table,
    transfer_table,
    verdict,
)
from lowbit.analysis.prediction.text_features import BigramSurprise
from lowbit.analysis.statistics import BootstrapSettings, estimate, resample_counts
from lowbit.analysis.tables import MEAN_OF_METHODS
from lowbit.errors import InputError

TWO_FOLDS = PredictionSettings(folds=2, repeats=1)
BOOTSTRAP = BootstrapSettings(resamples=200, confidence=0.95)


# --- features of the text


def test_text_features_of_a_text_with_known_answers():
    text = "The cat, THE 12 dogs."
    (found,) = text_features.text_features([text])
    expected = {
        "digits": 2 / 21,
        "punctuation": 2 / 21,
        "upper_case": 4 / 21,
        "stop_words": 2 / 4,
        "type_token_ratio": 3 / 4,
    }
    assert dict(zip(text_features.TEXT_FEATURES, found, strict=True)) == pytest.approx(
        expected | {"compressed_size": found[-1]}
    )


def test_repetition_compresses_and_an_empty_text_has_zeros():
    repeated, varied = "word " * 200, " ".join(str(n**5) for n in range(200))
    sizes = text_features.text_features([repeated, varied])[:, -1]
    assert sizes[0] < 0.05 < sizes[1]
    assert not text_features.text_features(["", "..."])[0].any()
    assert text_features.text_features([]).shape == (0, 6)


def plain_surprise(tokens: np.ndarray, others: np.ndarray, vocabulary: int) -> float:
    """Surprise of a row of tokens under a bigram model of the rows of `others`, written out."""
    pairs = Counter((v, w) for row in others.tolist() for v, w in pairwise(row))
    contexts = Counter(v for row in others.tolist() for v in row[:-1])
    words = Counter(w for row in others.tolist() for w in row[1:])
    total, row, surprise = words.total(), tokens.tolist(), []
    for v, w in pairwise(row):
        prior = (words[w] + 1) / (total + vocabulary)
        m = text_features.PRIOR
        surprise.append(-np.log((pairs[v, w] + m * prior) / (contexts[v] + m)))
    return np.mean(surprise)


def test_bigram_model_is_fitted_on_the_other_training_documents():
    tokens = np.random.default_rng(0).integers(0, 6, (12, 20))
    train = np.arange(12) < 8
    found = BigramSurprise(tokens, vocabulary=7).surprise(train)
    for document in range(12):
        others = tokens[train & (np.arange(12) != document)]
        assert found[document] == pytest.approx(plain_surprise(tokens[document], others, 7))


def test_held_out_documents_change_no_other_document_s_surprise():
    rng = np.random.default_rng(1)
    tokens = rng.integers(0, 6, (12, 20))
    train = np.arange(12) < 8
    changed = np.where(train[:, None], tokens, rng.integers(0, 6, tokens.shape))
    before = BigramSurprise(tokens, 7).surprise(train)
    after = BigramSurprise(changed, 7).surprise(train)
    np.testing.assert_array_equal(before[train], after[train])
    assert (before[~train] != after[~train]).all()


def test_bigram_probabilities_sum_to_one():
    known = np.random.default_rng(2).integers(0, 5, (30, 2))
    every_word_after_3 = np.array([[3, word] for word in range(5)])
    train = np.arange(35) < 30
    model = BigramSurprise(np.concatenate([known, every_word_after_3]), vocabulary=5)
    assert np.exp(-model.surprise(train)[~train]).sum() == pytest.approx(1)


# --- metrics against scikit-learn and SciPy


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Scores with ties of 60 documents [2, 60], D_large, D_ctrl, and resamples."""
    rng = np.random.default_rng(4)
    large, control = np.arange(60) < 18, np.arange(60) >= 35
    scores = np.round(rng.normal(size=(2, 60)) + large, 1)
    return scores, large, control, resample_counts(60, BOOTSTRAP, 0)


@pytest.mark.parametrize(
    ("ours", "sklearns"),
    [(auroc_draws, roc_auc_score), (average_precision_draws, average_precision_score)],
)
def test_classification_metrics_equal_scikit_learn_in_every_resample(scored, ours, sklearns):
    scores, large, control, counts = scored
    members = large | control
    draws = ours(scores, large, control, counts)
    for resample in (0, 1, 50, 200):
        weights = counts[resample, members]
        for place, score in enumerate(scores):
            expected = sklearns(large[members], score[members], sample_weight=weights)
            assert draws[resample, place] == pytest.approx(expected)


def test_r2_equals_scikit_learn(scored):
    rng = np.random.default_rng(5)
    error, predicted = rng.normal(size=60), rng.normal(size=(2, 60))
    counts = scored[-1]
    draws = r2_draws(predicted, np.full(60, error.mean()), error, counts)
    assert draws[0] == pytest.approx([r2_score(error, each) for each in predicted])
    weights = counts[7]
    ratio = [
        mean_squared_error(error, predicted[0], sample_weight=weights),
        mean_squared_error(error, np.full(60, error.mean()), sample_weight=weights),
    ]
    assert draws[7, 0] == pytest.approx(1 - ratio[0] / ratio[1])


def test_partial_correlation_is_that_of_what_regressions_leave():
    rng = np.random.default_rng(6)
    z = rng.normal(size=80)
    x, y = z + rng.normal(size=80), np.stack([z + rng.normal(size=80), rng.normal(size=80)], 1)
    counts = resample_counts(80, BOOTSTRAP, 0)
    draws = partial_correlation_draws(x, y, z, counts)
    for resample in (0, 3):
        drawn = np.repeat(np.arange(80), counts[resample].astype(int))
        left = [
            each[drawn]
            - LinearRegression().fit(z[drawn, None], each[drawn]).predict(z[drawn, None])
            for each in (x, *y.T)
        ]
        expected = [scipy.stats.pearsonr(left[0], each).statistic for each in left[1:]]
        np.testing.assert_allclose(draws[resample], expected, atol=1e-9)


def test_chance_precision_is_the_mean_over_random_orders():
    positive = np.arange(12) < 5
    rng = np.random.default_rng(7)
    random = [average_precision_score(positive, rng.permutation(12)) for _ in range(400)]
    assert chance_precision(5, 7) == pytest.approx(np.mean(random), abs=0.03)
    assert np.isnan(chance_precision(0, 0))


def test_intervals_cover_the_truth():
    """Of 95 % intervals about 95 % hold the truth; 5 % of 80 studies are 4."""
    hits = Counter()
    for study in range(80):
        rng = np.random.default_rng(study)
        counts = resample_counts(120, BOOTSTRAP, study)
        large = np.arange(120) < 60
        score = rng.normal(size=(1, 120)) + large
        auroc = estimate(auroc_draws(score, large, ~large, counts)[:, 0], 0.95)
        hits["auroc"] += auroc.low < scipy.stats.norm.cdf(1 / np.sqrt(2)) < auroc.high
        z = rng.normal(size=120)
        x, y = z + rng.normal(size=120), (z + rng.normal(size=120))[:, None]
        partial = estimate(partial_correlation_draws(x, y, z, counts)[:, 0], 0.95)
        hits["partial"] += partial.low < 0 < partial.high
    assert all(71 <= count <= 80 for count in hits.values()), hits


def test_the_inner_score_is_the_log_loss():
    rng = np.random.default_rng(8)
    matrix, member = rng.normal(size=(40, 3)), rng.random(40) < 0.5
    model = LogisticRegressionCV(use_legacy_attributes=False, l1_ratios=(0,), cv=3, scoring=None)
    model.fit(matrix, member)
    expected = -log_loss(member, model.predict_proba(matrix))
    assert prediction_fit.mean_log_likelihood(model, matrix, member) == pytest.approx(expected)


# --- fits


class Constant:
    """Stands in for the bigram model: a surprise that does not depend on the training folds."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def surprise(self, train: np.ndarray) -> np.ndarray:
        return self.values


def make_study(
    n: int = 200, norm_weight: float = 0.0, methods: int = 1, seed: int = 0
) -> tuple[Features, Targets]:
    """Errors that grow with NLL and, as `norm_weight` says, fall with the norm; text says nothing.

    The norm itself falls with the NLL, too, so that it goes with the error in any case.
    """
    rng = np.random.default_rng(seed)
    nll = rng.normal(size=n)
    own = rng.normal(size=n)
    norm = own - nll
    error = nll[:, None] - norm_weight * own[:, None] + 1.2 * rng.normal(size=(n, methods))
    features = Features(
        norm=norm[:, None],
        norms=np.column_stack([norm, rng.normal(size=(n, 3))]),
        nll=np.column_stack([nll, 0.8 * nll + 0.3 * rng.normal(size=n)]),
        text=rng.normal(size=(n, 6)),
        bigrams=Constant(rng.normal(size=n)),
        quantity="r",
    )
    order = np.argsort(-error, axis=0)
    size = max(1, n // 8)
    large, control = np.zeros((2, n, methods), bool)
    np.put_along_axis(large, order[:size], True, axis=0)
    np.put_along_axis(control, order[-2 * size :: 2], True, axis=0)
    return features, Targets([f"m{i}" for i in range(methods)], error, large, control)


def evaluate(
    features: Features, targets: Targets, settings: PredictionSettings = TWO_FOLDS
) -> Evaluation:
    """Predict and evaluate."""
    counts = resample_counts(len(targets.error), BOOTSTRAP, 0)
    return Evaluation(predict(features, targets, settings, 0), targets, counts, 0.95)


def test_regression_is_scikit_learns_on_held_out_documents():
    features, targets = make_study(methods=2)
    settings = PredictionSettings(folds=3, repeats=2)
    predictions = predict(features, targets, settings, seed=5)
    splits = list(RepeatedKFold(n_splits=3, n_repeats=2, random_state=5).split(features.norms))
    for method in range(2):
        error = targets.error[:, method]
        for name, matrix in (("norms", features.norms), ("nll", features.nll)):
            model = make_pipeline(StandardScaler(), RidgeCV(prediction_fit.RIDGE_PENALTIES))
            halves = [
                cross_val_predict(model, matrix, error, cv=part)
                for part in (splits[:3], splits[3:])
            ]
            found = predictions.error[method, list(FEATURE_SETS).index(name)]
            np.testing.assert_allclose(found, np.mean(halves, axis=0), atol=1e-9)
        means = [
            cross_val_predict(DummyRegressor(), features.nll, error, cv=part)
            for part in (splits[:3], splits[3:])
        ]
        np.testing.assert_allclose(predictions.baseline[method], np.mean(means, axis=0))


def test_a_held_out_document_s_own_error_and_set_change_nothing_for_it():
    features, targets = make_study()
    before = predict(features, targets, TWO_FOLDS, seed=0)
    (_, held_out), *_ = RepeatedKFold(n_splits=2, n_repeats=1, random_state=0).split(features.norm)
    changed = targets.error.copy()
    changed[held_out] = np.random.default_rng(0).normal(size=(len(held_out), 1))
    swapped = targets.large.copy(), targets.control.copy()
    swapped[0][held_out], swapped[1][held_out] = (
        targets.control[held_out],
        targets.large[held_out],
    )
    after = predict(features, Targets(["m0"], changed, *swapped), TWO_FOLDS, seed=0)
    np.testing.assert_array_equal(after.error[..., held_out], before.error[..., held_out])
    np.testing.assert_array_equal(after.score[..., held_out], before.score[..., held_out])
    others = np.setdiff1d(np.arange(200), held_out)
    assert (after.error[..., others] != before.error[..., others]).all()


def test_a_norm_that_says_more_than_nll_adds():
    evaluation = evaluate(*make_study(norm_weight=1.0, methods=2))
    added = added_table(evaluation)
    norm = added[(added["added"] == "norm") & (added["metric"].isin(["r2", "auroc"]))]
    assert set(norm["verdict"]) == {ADDS}
    values = prediction_table(evaluation).set_index(["method", "metric", "features"])["value"]
    assert values["m0", "r2", "all"] > 0.45 > values["m0", "r2", "nll"]
    assert norm_verdict(added).startswith("adds to the R2 of e(x) (")


def test_a_norm_that_only_mirrors_nll_does_not_add():
    """It goes with the error by itself and is worth nothing beside the NLL; 2.5 % err by chance."""
    found = Counter()
    for seed in range(15):
        evaluation = evaluate(*make_study(norm_weight=0.0, seed=seed))
        values = prediction_table(evaluation).set_index(["method", "metric", "features"])
        found["norm alone"] += values.loc[("m0", "r2", "norm"), "low"] > 0
        added = added_table(evaluation)
        norm = added[(added["added"] == "norm") & (added["method"] == "m0")]
        for row in norm.itertuples():
            found[row.metric] += row.verdict == ADDS
    assert found["norm alone"] >= 12
    assert max(found["r2"], found["auroc"]) <= 2


def test_difference_is_paired_and_its_own_metrics_difference():
    evaluation = evaluate(*make_study(norm_weight=0.3))
    values = prediction_table(evaluation).set_index(["method", "metric", "features"])
    for row in added_table(evaluation).itertuples():
        name = "norm+nll+text" if row.added == "norm" else "all"
        both, without = (values.loc[(row.method, row.metric, key)] for key in (name, "nll+text"))
        assert row.difference == pytest.approx(both["value"] - without["value"])
        assert row.high - row.low < both["high"] - without["low"]


def test_transfer_has_a_method_s_own_prediction_on_the_diagonal():
    evaluation = evaluate(*make_study(norm_weight=1.0, methods=2))
    transfer = transfer_table(evaluation).set_index(["metric", "fitted_on", "tested_on"])["value"]
    own = prediction_table(evaluation).set_index(["metric", "features", "method"])["value"]
    for metric in ("spearman", "auroc"):
        for method in ("m0", "m1"):
            assert transfer[metric, method, method] == pytest.approx(own[metric, "all", method])
    targets, predictions = evaluation.targets, evaluation.predictions
    rho = scipy.stats.spearmanr(predictions.of(ERROR, "all")[0], targets.error[:, 1]).statistic
    assert transfer["spearman", "m0", "m1"] == pytest.approx(rho)
    members = targets.large[:, 1] | targets.control[:, 1]
    score = predictions.of(LARGE, "all")[0, members]
    auroc = roc_auc_score(targets.large[members, 1], score)
    assert transfer["auroc", "m0", "m1"] == pytest.approx(auroc)


def test_partial_table_compares_with_the_plain_correlation():
    features, targets = make_study(methods=2)
    table = partial_table(
        features.norm[:, 0], "r", features.nll[:, 0], evaluate(features, targets)
    ).set_index("method")
    assert (table["pearson"] < -0.3).all()
    assert (table["low"] < 0).all()
    assert (table["high"] > 0).all()
    for column in ("pearson", "partial"):
        mean = table.loc[["m0", "m1"], column].mean()
        assert table.loc[MEAN_OF_METHODS, column] == pytest.approx(mean)


# --- what cannot be measured


def test_what_cannot_be_fitted_is_noted_and_the_others_go_on():
    features, targets = make_study(methods=4, norm_weight=1.0)
    targets.error[:, 1] = 0.25
    targets.large[:, 2] &= np.cumsum(targets.large[:, 2]) <= 9
    (train, _), *_ = RepeatedKFold(n_splits=2, n_repeats=1, random_state=0).split(features.norm)
    targets.large[:, 3] = False
    targets.large[np.r_[train[:12], np.setdiff1d(np.arange(200), train)[:2]], 3] = True
    targets.control[:, 3] &= ~targets.large[:, 3]
    values = prediction_table(evaluate(features, targets)).set_index(["method", "metric"])
    notes = values["note"]
    constant = "not measured: the error is the same for all documents"
    assert set(notes["m1"]) == {constant}
    assert values.loc["m1", ["value", "low", "high"]].isna().all(axis=None)
    assert set(notes["m2", "auroc"]) == {
        f"not measured: 9 documents in D_large and {targets.control[:, 2].sum()} in D_ctrl, each "
        "needs 10"
    }
    assert set(notes["m2", "r2"]) == set(notes["m0", "r2"]) == {""}
    assert set(notes["m3", "auroc"]) == {
        "not measured: a training fold has fewer than 3 documents of D_large or D_ctrl"
    }
    assert set(notes[MEAN_OF_METHODS, "auroc"]) == {"1 of 4 methods"}
    assert set(notes[MEAN_OF_METHODS, "r2"]) == {"3 of 4 methods"}
    own, mean = (
        values.loc[("m0", "auroc"), "value"],
        values.loc[(MEAN_OF_METHODS, "auroc"), "value"],
    )
    np.testing.assert_allclose(own, mean)


def test_too_few_documents_for_the_folds():
    table = prediction_table(evaluate(*make_study(n=19)))
    note = table[table["metric"] == "r2"]["note"].iloc[0]
    assert note == "not measured: 19 documents in 2 folds, each fold needs 10"
    assert table["value"].isna().all()
    fewer = evaluate(*make_study(n=8), PredictionSettings(folds=9, repeats=1))
    assert prediction_table(fewer)["value"].isna().all()


def test_a_feature_that_is_not_finite_spoils_only_its_feature_sets():
    features, targets = make_study()
    features.nll[3, 1] = np.inf
    table = prediction_table(evaluate(features, targets))
    spoiled = table.loc[table["note"].str.contains("not a finite number"), "features"]
    assert set(spoiled) == {"nll", "nll+text", "norm+nll+text", "all"}
    whole = table[~table["features"].isin(spoiled) & (table["method"] == "m0")]
    assert set(whole["features"]) == {"norm", "norms", "text"}
    assert whole["value"].notna().all()


def test_constant_features_predict_the_mean():
    features, targets = make_study()
    features.norm[:] = 3.0
    predictions = predict(features, targets, TWO_FOLDS, 0)
    np.testing.assert_allclose(predictions.error[:, 0], predictions.baseline, atol=1e-9)
    np.testing.assert_allclose(predictions.score[:, 0], 0, atol=1e-9)


def test_a_singular_fit_is_noted(monkeypatch):
    def fail(*_):
        raise np.linalg.LinAlgError("no convergence")

    monkeypatch.setattr(RidgeCV, "fit", fail)
    monkeypatch.setattr(LogisticRegressionCV, "fit", fail)
    table = prediction_table(evaluate(*make_study()))
    single = table[table["method"] == "m0"]
    assert set(single["note"]) == {"not measured: the fit is singular (no convergence)"}


@pytest.mark.parametrize(
    ("numbers", "word"),
    [
        ((0.1, 0.01, 0.2), ADDS),
        ((0.1, -0.01, 0.2), NOTHING),
        ((-0.1, -0.2, -0.01), LOWERS),
        ((0.1, np.nan, np.nan), ""),
    ],
)
def test_the_verdict_is_no_stronger_than_the_interval(numbers, word):
    assert verdict(*numbers) == word


def test_wrong_settings_are_refused():
    for settings in ({"folds": 1}, {"repeats": 0}):
        with pytest.raises(InputError, match=r"prediction\.folds is"):
            PredictionSettings(**settings)


# --- files


def test_predictions_survive_their_table(tmp_path):
    features, targets = make_study(methods=2, n=60)
    predictions = predict(features, targets, TWO_FOLDS, 0)
    assert predictions.notes
    table = predictions_table(predictions, [f"d{i}" for i in range(60)])
    table.to_parquet(tmp_path / "predictions.parquet")
    again = predictions_from_table(pd.read_parquet(tmp_path / "predictions.parquet"))
    assert again.methods == list(predictions.methods)
    assert again.notes == predictions.notes
    for name in ("error", "baseline", "score"):
        np.testing.assert_array_equal(getattr(again, name), getattr(predictions, name))
    assert list(table["doc_id"][:3]) == ["d0", "d1", "d2"]


def test_the_page_says_what_was_not_measured():
    features, targets = make_study(methods=2, n=60)
    evaluation = evaluate(features, targets)
    added = added_table(evaluation)
    partial = partial_table(features.norm[:, 0], "r", features.nll[:, 0], evaluation)
    text = prediction_markdown("tiny", prediction_table(evaluation), added, partial, 2, 1)
    reason = f"7 documents in D_large and {targets.control[:, 0].sum()} in D_ctrl, each needs 10"
    assert f"was not measured by the AUROC of D_large ({reason})" in text
    assert f"- m0, m1, AUROC of D_large: not measured: {reason}" in text
    assert "it adds nothing measurable to the R2 of e(x) (" in text
    assert "| `norm+nll+text` | " in text
