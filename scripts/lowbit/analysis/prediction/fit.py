"""Can a document's error be predicted before quantizing, and from what?

The inputs paper (arXiv 2506.12044, claim 2) correlates the residual norm with e(x) on the documents
at hand and holds nothing out. Here e(x) is predicted by ridge regression, and membership of D_large
against D_ctrl by logistic regression with an L2 penalty, for documents that the fit has not seen:
repeated K-fold cross-validation, the same folds for every method and feature set, the strength of
the penalty chosen inside the training folds. A document's prediction is the mean over the repeats.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegressionCV, RidgeCV
from sklearn.model_selection import RepeatedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from lowbit.analysis.prediction.feature_sets import ERROR, FEATURE_SETS, LARGE, Predictions, Targets
from lowbit.analysis.prediction.text_features import BigramSurprise, text_features
from lowbit.analysis.tables import QUANTITIES, norms_by_document, present_quantities
from lowbit.errors import InputError

MINIMUM_PER_CLASS = 10
"""Documents that each of D_large and D_ctrl must have."""
MINIMUM_PER_FOLD = 10
"""Documents that each fold must have for a regression."""
INNER_FOLDS = 3
"""Folds inside the training folds by which the logistic regression's penalty is chosen."""
RIDGE_PENALTIES = np.logspace(-2, 6, 17)
LOGISTIC_STRENGTHS = np.logspace(-3, 0, 3)
"""Inverse strengths C of the logistic regression's penalty, for standardised features."""


@dataclass(frozen=True)
class PredictionSettings:
    """The config's `prediction`: folds of the cross-validation, and how often it is repeated."""

    folds: int = 5
    repeats: int = 3

    def __post_init__(self) -> None:
        if self.folds < 2 or self.repeats < 1:
            raise InputError(
                f"prediction.folds is {self.folds} and prediction.repeats is {self.repeats}: write "
                "2 or more folds and 1 or more repeats"
            )


@dataclass(frozen=True)
class Features:
    """Blocks of features of every document, each [documents, columns].

    norm: mean L2 norm of r in the last layer (of z where the architecture has no r). norms: those
    of r, z and h in all layers. nll: full-precision NLL and entropy. text: `TEXT_FEATURES`, to
    which the surprise of a bigram model of the training documents is added.
    """

    norm: np.ndarray
    norms: np.ndarray
    nll: np.ndarray
    text: np.ndarray
    bigrams: BigramSurprise
    quantity: str
    """Which norm `norm` is: r or z."""

    def matrices(self, train: np.ndarray) -> dict[str, np.ndarray]:
        """Every feature set as [documents, columns], fitted on `train`, bool [documents]."""
        surprise = self.bigrams.surprise(train)
        blocks = {
            "norm": self.norm,
            "norms": self.norms,
            "nll": self.nll,
            "text": np.column_stack([self.text, surprise]),
        }
        return {
            name: np.concatenate([blocks[part] for part in parts], axis=1)
            for name, parts in FEATURE_SETS.items()
        }


def make_features(
    residuals: pd.DataFrame,
    errors: pd.DataFrame,
    doc_ids: np.ndarray,
    texts: Sequence[str],
    tokens: np.ndarray,
    vocabulary: int,
) -> Features:
    """Build the features of the documents, all arguments in the order of `doc_ids`.

    Args:
        residuals: doc_id, layer, r, z, h.
        errors: rows of errors.parquet of any method: doc_id, nll_full, entropy_full.
        texts: what the model saw of each document.
        tokens: token ids [documents, length].
        vocabulary: number of the model's tokens.
    """
    norms, _ = norms_by_document(residuals, doc_ids)
    quantities = present_quantities(norms)
    present = norms[:, [QUANTITIES.index(name) for name in quantities]]
    first = errors.drop_duplicates("doc_id").set_index("doc_id").loc[doc_ids]
    return Features(
        norm=present[:, 0, -1:],
        norms=present.reshape(len(doc_ids), -1),
        nll=first[["nll_full", "entropy_full"]].to_numpy(float),
        text=text_features(texts),
        bigrams=BigramSurprise(tokens, vocabulary),
        quantity=quantities[0],
    )


def predict(
    features: Features, targets: Targets, settings: PredictionSettings, seed: int
) -> Predictions:
    """Predict every target of every document from the other folds' documents.

    What cannot be fitted is left nan with a note; the other methods and feature sets go on.
    """
    n, count = targets.error.shape
    error, score = np.zeros((2, count, len(FEATURE_SETS), n))
    baseline = np.zeros((count, n))
    notes = _unfit(targets, settings)
    for train in _splits(n, settings, seed):
        baseline[:, ~train] += targets.error[train].mean(axis=0)[:, None]
        for place, (name, matrix) in enumerate(features.matrices(train).items()):
            if not np.isfinite(matrix).all():
                _note_all(notes, targets.methods, name, "a feature is not a finite number")
                continue
            error[:, place, ~train] += _regress(matrix, targets, train, name, notes)
            score[:, place, ~train] += _classify(matrix, targets, train, name, notes)
    for target, method, name in notes:
        values = error if target == ERROR else score
        values[targets.methods.index(method), list(FEATURE_SETS).index(name)] = np.nan
    repeats = settings.repeats
    return Predictions(targets.methods, error / repeats, baseline / repeats, score / repeats, notes)


def _splits(n: int, settings: PredictionSettings, seed: int) -> Iterator[np.ndarray]:
    """Yield which documents train, bool [n]; nothing where there are fewer than folds."""
    if n < settings.folds:
        return
    splitter = RepeatedKFold(n_splits=settings.folds, n_repeats=settings.repeats, random_state=seed)
    for train, _ in splitter.split(np.zeros(n)):
        chosen = np.zeros(n, bool)
        chosen[train] = True
        yield chosen


def _unfit(targets: Targets, settings: PredictionSettings) -> dict[tuple[str, str, str], str]:
    """Why targets cannot be predicted at all, as `Predictions.notes`."""
    notes: dict[tuple[str, str, str], str] = {}
    n = len(targets.error)
    columns = zip(targets.methods, targets.error.T, targets.large.T, targets.control.T, strict=True)
    for method, error, large, control in columns:
        reasons = {}
        sizes = large.sum(), control.sum()
        if min(sizes) < MINIMUM_PER_CLASS:
            reasons[LARGE] = (
                f"{sizes[0]} documents in D_large and {sizes[1]} in D_ctrl, each needs "
                f"{MINIMUM_PER_CLASS}"
            )
        if n < MINIMUM_PER_FOLD * settings.folds:
            reasons[ERROR] = (
                f"{n} documents in {settings.folds} folds, each fold needs {MINIMUM_PER_FOLD}"
            )
        if np.ptp(error) == 0:
            reasons = dict.fromkeys((ERROR, LARGE), "the error is the same for all documents")
        for target, reason in reasons.items():
            notes |= {(target, method, name): reason for name in FEATURE_SETS}
    return notes


def _note_all(notes: dict, methods: Sequence[str], features: str, reason: str) -> None:
    """Note for every method and target why a feature set gives no prediction."""
    for method in methods:
        for target in (ERROR, LARGE):
            notes.setdefault((target, method, features), reason)


def _regress(
    matrix: np.ndarray, targets: Targets, train: np.ndarray, name: str, notes: dict
) -> np.ndarray:
    """Predicted e(x) of held-out documents [methods, held out]; each method has its own penalty."""
    methods = targets.methods
    fitted = [i for i, method in enumerate(methods) if (ERROR, method, name) not in notes]
    predicted = np.full((len(methods), np.count_nonzero(~train)), np.nan)
    if not fitted:
        return predicted
    model = make_pipeline(StandardScaler(), RidgeCV(RIDGE_PENALTIES, alpha_per_target=True))
    try:
        model.fit(matrix[train], targets.error[np.ix_(train, fitted)])
    except np.linalg.LinAlgError as error:
        for i in fitted:
            notes[ERROR, methods[i], name] = f"the fit is singular ({error})"
        return predicted
    predicted[fitted] = model.predict(matrix[~train]).reshape(-1, len(fitted)).T
    return predicted


def _classify(
    matrix: np.ndarray, targets: Targets, train: np.ndarray, name: str, notes: dict
) -> np.ndarray:
    """`Predictions.score` of all held-out documents, [methods, held out]."""
    predicted = np.full((len(targets.methods), np.count_nonzero(~train)), np.nan)
    scaled = StandardScaler().fit(matrix[train]).transform(matrix)
    for place, method in enumerate(targets.methods):
        if (LARGE, method, name) in notes:
            continue
        large = targets.large[:, place]
        members = train & (large | targets.control[:, place])
        if min(np.bincount(large[members], minlength=2)) < INNER_FOLDS:
            notes[LARGE, method, name] = (
                f"a training fold has fewer than {INNER_FOLDS} documents of D_large or D_ctrl"
            )
            continue
        try:
            model = _classifier().fit(scaled[members], large[members])
        except np.linalg.LinAlgError as error:
            notes[LARGE, method, name] = f"the fit is singular ({error})"
            continue
        log_odds = model.decision_function(scaled)
        predicted[place] = log_odds[~train] - log_odds[members].mean()
    return predicted


def _classifier() -> LogisticRegressionCV:
    """Logistic regression, its L2 penalty chosen by the likelihood of inner folds."""
    return LogisticRegressionCV(
        Cs=LOGISTIC_STRENGTHS,
        l1_ratios=(0,),
        cv=INNER_FOLDS,
        scoring=mean_log_likelihood,
        solver="newton-cholesky",
        use_legacy_attributes=False,
    )


def mean_log_likelihood(
    model: LogisticRegressionCV, matrix: np.ndarray, member: np.ndarray
) -> float:
    """scikit-learn's `neg_log_loss` for two classes, without its checks (most of the time)."""
    log_odds = matrix @ np.ravel(model.coef_) + model.intercept_
    return -np.logaddexp(0, np.where(member > 0, -log_odds, log_odds)).mean()
