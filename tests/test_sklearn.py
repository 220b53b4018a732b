"""`unoic_cli.sklearn`: scikit-learn's own checks, the commands' results, plain numpy, and what is refused."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
import subprocess
import sys

import h5py
import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from joblib.externals.loky import get_reusable_executor
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    ShuffleSplit,
    StratifiedKFold,
    cross_val_predict,
    cross_val_score,
)
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils import get_tags
from sklearn.utils.estimator_checks import parametrize_with_checks

import unoic_cli
from unoic_cli import Calibration, cli, plots
from unoic_cli.sklearn import ImbalanceCalibrator, InputError, RebalancedClassifierCV

VAL, TEST = "sample_data/digits_lt/val.h5", "sample_data/digits_lt/test.h5"
CLASSES = (RebalancedClassifierCV, ImbalanceCalibrator)
few = pytest.mark.filterwarnings("ignore:The least populated class in y")

# ------------------------------------------------------------ scikit-learn's checks

BY_NATURE = "X are logits, so it has as many columns as there are classes"
OTHER_COLUMNS = (
    "check_array_api_input",
    "check_classifiers_classes",
    "check_classifiers_train",
    "check_dtype_object",
    "check_estimators_dtypes",
    "check_estimators_fit_returns_self",
    "check_estimators_nan_inf",
    "check_estimators_overwrite_params",
    "check_estimators_pickle",
    "check_n_features_in_after_fitting",
    "check_pipeline_consistency",
    "check_positive_only_tag_during_fit",
    "check_readonly_memmap_input",
)
"""Checks that fit features of another number, or blobs as if these were logits."""


def expected_failed_checks(estimator):
    return dict.fromkeys(OTHER_COLUMNS, BY_NATURE) if isinstance(estimator, ImbalanceCalibrator) else {}


@parametrize_with_checks(
    [
        RebalancedClassifierCV(LinearSVC()),
        RebalancedClassifierCV(LogisticRegression(), cv=2),
        RebalancedClassifierCV(GaussianNB(), lam=0.5),
        ImbalanceCalibrator(source_prior="labels"),
    ],
    expected_failed_checks=expected_failed_checks,
)
@few
def test_checks(estimator, check):
    check(estimator)


# ------------------------------------------------------------ data


def blobs(counts, seed=0, spread=1.0):
    """Samples of three features around points on a circle, in random order."""
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(len(counts)), counts)
    angle = 2 * np.pi * np.arange(len(counts)) / len(counts)
    X = np.stack([np.cos(angle), np.sin(angle), np.zeros(len(counts))], axis=1)[y] + rng.normal(0, spread, (len(y), 3))
    order = rng.permutation(len(y))
    return X[order], y[order]


def logits_of(path):
    with h5py.File(path) as file:
        return file["logits"][()], file["labels"][()].astype(np.int64), file["source_counts"][()].tolist()


def held_out(estimator, X, y, method="predict_log_proba", n=5):
    return cross_val_predict(estimator, X, y, cv=StratifiedKFold(n), method=method)


def same(one, other):
    """Two calibrations that differ in nothing but where they came from, and whether classes have names."""
    one, other = ({**made.to_dict(), "provenance": None, "class_names": None} for made in (one, other))
    for made in (one, other):
        for prior in (made["target_prior"], *(modality["source_prior"] for modality in made["modalities"])):
            prior.pop("origin")
    assert one == other


# ------------------------------------------------------------ the commands


def written(path, emit="probs"):
    with h5py.File(path) as file:
        return file[emit][()], file["predictions"][()].astype(np.int64)


@pytest.mark.parametrize("metric", ["macc", "miou"])
@pytest.mark.parametrize("lam", ["tune", 0.7])
def test_a_calibrator_is_search_lambda_and_calibrate(lam, metric, tmp_path, answer):
    """With a temperature: the calibration that `search-lambda -o` writes, and what `calibrate -c` makes of it."""
    logits, labels, counts = logits_of(VAL)
    model = ImbalanceCalibrator(lam=lam, metric=metric, source_prior=counts, temperature=1).fit(logits, labels)
    given = [] if lam == "tune" else ["-l", lam]
    path, out = tmp_path / "c.json", tmp_path / "out.h5"
    found = answer("search-lambda", VAL, "--metric", metric, *given, "-o", path, "-q", "--format", "json")
    same(model.calibration_, Calibration.load(path))
    assert model.lambda_ == model.search_.lam == found["lambda"] and model.temperature_ == 1
    for key in ("best", "baseline", "gain", "choice", "curve", "warnings"):
        assert json.loads(json.dumps(model.search_.to_dict()[key])) == found[key]
    assert cli.run(["calibrate", TEST, "-c", str(path), "-o", str(out), "--emit", "probs", "-q"]) == 0
    unseen, _, _ = logits_of(TEST)
    probs, decided = written(out)
    assert (model.predict(unseen) == decided).all() and (decided != unseen.argmax(1)).any()
    made = model.predict_proba(unseen)
    assert made.dtype == probs.dtype
    np.testing.assert_allclose(made, probs, rtol=3e-5, atol=1e-7)
    np.testing.assert_allclose(model.predict_log_proba(unseen), np.log(probs), rtol=2e-5, atol=2e-5)


def test_a_calibrator_without_a_temperature_is_calibrate_by_itself(tmp_path):
    logits, labels, counts = logits_of(VAL)
    model = ImbalanceCalibrator(source_prior=counts).fit(logits, labels)
    out = tmp_path / "out.h5"
    assert cli.run(["calibrate", VAL, "-o", str(out), "--emit", "probs", "-q"]) == 0
    same(model.calibration_, Calibration.load(tmp_path / "out.calibration.json"))
    assert model.temperature_ != 1 and abs(model.lambda_ * model.temperature_ - model.search_.lam) < 1e-12
    probs, decided = written(out)
    assert (model.predict(logits) == decided).all()
    np.testing.assert_allclose(model.predict_proba(logits), probs, rtol=3e-5, atol=1e-7)


def test_what_a_classifier_saves_commands_read(tmp_path, answer):
    X, y = blobs([90, 30, 9])
    names = np.array(["cat", "dog", "elk"])
    model = RebalancedClassifierCV(GaussianNB()).fit(X, names[y])
    model.calibration_.save(tmp_path / "c.json")
    with h5py.File(tmp_path / "z.h5", "w") as file:
        file["log_probs"] = GaussianNB().fit(X, y).predict_log_proba(X)
        file["labels"], file["class_names"] = y, names.astype("S")
    found = answer("evaluate", tmp_path / "z.h5", "-c", tmp_path / "c.json", "-q", "--format", "json")
    assert json.dumps(model.score(X, names[y])) in json.dumps(found)


# ------------------------------------------------------------ plain numpy

LAMS = np.arange(601) / 100


def chosen(z, y, prior):
    """The anchored rule of docs/trust.md for mean class accuracy and a uniform target: curve, scale and lambda."""
    n, k = z.shape
    s = -np.log(k) - np.log(prior)
    support = np.bincount(y, minlength=k)
    decided = np.array([(z + lam * s).argmax(1) for lam in LAMS])
    right = decided == y
    curve = np.array([np.mean([one[y == c].mean() for c in range(k)]) for one in right])
    offset = np.log((support + 0.5) / (n + k / 2)) + np.log(k)

    def cost(at):
        x = at[0] * z + at[1] * s + offset
        top = x.max(1)
        rows = np.log(np.exp(x - top[:, None]).sum(1)) + top - x[np.arange(n), y]
        return rows.sum() + ((at - 1) ** 2).sum() / 2

    fit = minimize(cost, [1.0, 1.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-11, "maxiter": 4000}).x
    anchor = np.abs(LAMS - fit[1] / fit[0]).argmin()
    top = np.flatnonzero(curve > curve.max() - 1e-12)
    runs = np.split(top, np.flatnonzero(np.diff(top) > 1) + 1)
    widest = max(runs, key=len)
    assert sum(len(run) == len(widest) for run in runs) == 1 and widest[-1] < 600, "an example without such a tie"
    best = widest[(len(widest) - 1) // 2]
    d = (right.astype(float) - right[best]) / (k * support[y])
    se = np.sqrt(sum(support[c] * d[:, y == c].var(1) for c in range(k)))
    good = np.flatnonzero(curve >= curve[best] - se - 1e-12)
    return curve, fit, LAMS[good[np.abs(good - anchor).argmin()]]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("counts", [(120, 40, 12), (150, 25)])
def test_lambda_is_that_of_plain_numpy(counts, seed):
    X, y = blobs(counts, seed)
    model = RebalancedClassifierCV(GaussianNB()).fit(X, y)
    z = held_out(GaussianNB(), X, y)
    curve, (a, lam), found = chosen(z, y, np.array(counts) / sum(counts))
    assert (model.curve_["lambda"] == LAMS).all()
    np.testing.assert_allclose(model.curve_["macc"], curve, rtol=0, atol=1e-12)
    assert model.search_.lam == found > 0
    assert abs(model.temperature_ - 1 / a) < 1e-4 / a and abs(model.search_.choice["fit"] - lam) < 1e-4
    s = np.log(1 / len(counts)) - np.log(np.array(counts) / sum(counts))
    x = model.estimator_.predict_log_proba(X) + found * s
    assert (model.predict(X) == x.argmax(1)).all()
    p = np.exp(x / model.temperature_)
    np.testing.assert_allclose(model.predict_proba(X), p / p.sum(1, keepdims=True), rtol=1e-9)


def test_it_helps_the_rare_class():
    X, y = blobs([900, 90, 30])
    unseen, truth = blobs([300, 300, 300], 1)
    plain = LogisticRegression().fit(X, y)
    model = RebalancedClassifierCV(LogisticRegression()).fit(X, y)
    before, after = (balanced_accuracy_score(truth, one.predict(unseen)) for one in (plain, model))
    assert after > before + 0.1


@pytest.mark.parametrize(
    "estimator, method",
    [(KNeighborsClassifier(9), "predict_proba"), (GaussianNB(), "predict_log_proba")],
)
def test_scores_are_those_out_of_fold(estimator, method):
    X, y = blobs([90, 30, 12])
    model = RebalancedClassifierCV(estimator, cv=3).fit(X, y)
    kind = "probs" if method == "predict_proba" else "log_probs"
    other = ImbalanceCalibrator(kind=kind, source_prior=[90, 30, 12]).fit(held_out(estimator, X, y, method, 3), y)
    assert model.search_.lam == other.search_.lam and (model.search_.counts.hits == other.search_.counts.hits).all()
    scores = getattr(estimator.fit(X, y), method)(X)
    assert (model.predict(X) == other.predict(scores)).all()
    np.testing.assert_allclose(model.predict_proba(X), other.predict_proba(scores), rtol=1e-9, atol=1e-300)


# ------------------------------------------------------------ margins


@pytest.mark.parametrize("counts", [(90, 30, 12), (90, 20)])
def test_margins_are_divided_by_their_spread(counts):
    X, y = blobs(counts)
    model = RebalancedClassifierCV(LinearSVC()).fit(X, y)

    def margins(found):
        return np.stack([np.zeros(len(found)), found], axis=1) if found.ndim == 1 else found

    own = margins(LinearSVC().fit(X, y).decision_function(X))
    spread = np.sqrt(np.mean((own - own.mean(1, keepdims=True)) ** 2))
    z = margins(held_out(LinearSVC(), X, y, "decision_function"))
    other = ImbalanceCalibrator(source_prior=counts).fit(z / spread, y)
    assert model.search_.lam == other.search_.lam
    assert abs(model.temperature_ - spread * other.temperature_) < 1e-6
    assert (model.predict(X) == other.predict(own / spread)).all()


class Louder(LinearSVC):
    """Margins in another unit."""

    def decision_function(self, X):
        return 1024 * super().decision_function(X)


def test_the_unit_of_margins_changes_nothing():
    X, y = blobs([90, 30, 12])
    one, other = (RebalancedClassifierCV(kind()).fit(X, y) for kind in (LinearSVC, Louder))
    assert one.search_.lam == other.search_.lam > 0 and other.temperature_ == 1024 * one.temperature_
    assert (one.predict(X) == other.predict(X)).all()
    np.testing.assert_allclose(one.predict_proba(X), other.predict_proba(X), rtol=1e-12)


def test_two_classes_of_one_column_and_of_two():
    z, y = np.random.default_rng(0).normal(size=60), np.arange(60) % 4 == 0
    both = np.stack([np.zeros(60), z], axis=1)
    one, two = (ImbalanceCalibrator(source_prior=[3, 1]).fit(X, y) for X in (z[:, None], both))
    same(one.calibration_, two.calibration_)
    assert one.n_features_in_ == 1 and one.classes_.tolist() == [False, True]
    assert (one.predict_proba(z[:, None]) == two.predict_proba(both)).all()
    p = 1 / (1 + np.exp(-z))
    three = ImbalanceCalibrator(source_prior=[3, 1], kind="probs").fit(p[:, None], y)
    assert three.search_.lam == one.search_.lam
    np.testing.assert_allclose(three.predict_proba(p[:, None]), one.predict_proba(z[:, None]), rtol=1e-9)


def test_a_kernel_matrix_is_cut_both_ways():
    X, y = blobs([60, 20])
    kernel = RebalancedClassifierCV(SVC(kernel="precomputed"))
    assert get_tags(kernel).input_tags.pairwise and not get_tags(RebalancedClassifierCV(SVC())).input_tags.pairwise
    one, other = kernel.fit(X @ X.T, y), RebalancedClassifierCV(SVC(kernel="linear")).fit(X, y)
    assert one.search_.lam == other.search_.lam and (one.predict(X @ X.T) == other.predict(X)).all()


# ------------------------------------------------------------ a given lambda


@pytest.mark.parametrize("estimator", [GaussianNB(), LinearSVC(), KNeighborsClassifier(7)])
def test_a_given_lambda_decides_as_the_same_that_is_found(estimator):
    X, y = blobs([90, 30, 12])
    found = RebalancedClassifierCV(estimator).fit(X, y)
    given = RebalancedClassifierCV(estimator, lam=found.search_.lam).fit(X, y)
    assert (found.predict(X) == given.predict(X)).all()
    zero = RebalancedClassifierCV(estimator, lam=0).fit(X, y)
    assert (zero.predict(X) == estimator.fit(X, y).predict(X)).all() and (zero.predict(X) != given.predict(X)).any()


class Counted(GaussianNB):
    """It counts how often it is fitted."""

    fits = 0

    def fit(self, X, y, sample_weight=None):
        Counted.fits += 1
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize("lam, cv, fits", [(0.5, None, 1), ("tune", None, 6), ("tune", 3, 4)])
def test_folds_are_fitted_where_lambda_is_found(lam, cv, fits, monkeypatch):
    monkeypatch.setattr(Counted, "fits", 0)
    RebalancedClassifierCV(Counted(), lam=lam, cv=cv).fit(*blobs([60, 20]))
    assert Counted.fits == fits


def test_a_fit_leaves_nothing_of_the_one_before():
    X, y = blobs([60, 20])
    model = RebalancedClassifierCV(GaussianNB()).fit(pd.DataFrame(X, columns=["a", "b", "c"]), y)
    assert model.feature_names_in_.tolist() == ["a", "b", "c"] and model.n_features_in_ == 3
    assert model.search_ and model.calibration_.tuning is not None
    model.set_params(lam=0.5).fit(X, y)
    assert not any(hasattr(model, name) for name in ("search_", "curve_", "feature_names_in_"))
    assert model.lambda_ == 0.5 and model.calibration_.tuning is None


# ------------------------------------------------------------ priors and labels


def test_labels_are_whatever_they_are():
    X, y = blobs([90, 30, 12])
    plain = RebalancedClassifierCV(GaussianNB()).fit(X, y)
    for labels in (np.array(["rat", "ant", "cow"]), np.array([7, -1, 3]), np.array(["b", "a", "c"], dtype=object)):
        model = RebalancedClassifierCV(GaussianNB()).fit(X, labels[y])
        assert model.classes_.tolist() == sorted(labels.tolist())
        assert (model.predict(X) == labels[plain.predict(X)]).all()
        order = np.argsort(labels)
        np.testing.assert_allclose(model.predict_proba(X), plain.predict_proba(X)[:, order], rtol=1e-9, atol=1e-300)
        assert model.calibration_.class_names == tuple(map(str, sorted(labels.tolist())))
    assert plain.calibration_.class_names is None
    names = pd.Series(np.array(["rat", "ant", "cow"])[y])
    for series in (names, names.astype("category"), names.astype(object)):
        decided = RebalancedClassifierCV(GaussianNB()).fit(X, series).predict(X)
        assert (decided == np.array(["rat", "ant", "cow"])[plain.predict(X)]).all()
    named = RebalancedClassifierCV(GaussianNB(), metric="recall[cow]").fit(X, np.array(["rat", "ant", "cow"])[y])
    assert named.search_.best["recall[cow]"] >= named.search_.baseline["recall[cow]"]


@pytest.mark.parametrize(
    "prior",
    [
        {"rat": 9, "ant": 3, "cow": 1},
        pd.Series({"rat": 9, "ant": 3, "cow": 1}),
        np.array([3, 1, 9]),
        (3, 1, 9),
        "3,1,9",
        unoic_cli.Prior.from_weights([3, 1, 9], "given", counts=True),
    ],
    ids=lambda prior: type(prior).__name__,
)
def test_priors_as_people_have_them(prior):
    X, y = blobs([90, 30, 12])
    labels = np.array(["rat", "ant", "cow"])[y]
    model = RebalancedClassifierCV(GaussianNB(), lam=1, source_prior=prior, target_prior=prior).fit(X, labels)
    assert model.classes_.tolist() == ["ant", "cow", "rat"]
    for found in (model.calibration_.source_prior, model.calibration_.target_prior):
        assert found.values == (3 / 13, 1 / 13, 9 / 13)
    assert (model.predict(X) == GaussianNB().fit(X, labels).predict(X)).all()


def test_the_source_prior_is_that_of_training():
    X, y = blobs([90, 30, 12])
    model = RebalancedClassifierCV(GaussianNB()).fit(X, y)
    assert model.calibration_.source_prior.counts == (90, 30, 12)
    assert model.calibration_.target_prior.values == (1 / 3,) * 3
    assert not model.search_.notes


@few
@pytest.mark.parametrize("counts", [(60, 30, 1), (60, 1, 30)])
@pytest.mark.parametrize("estimator", [LogisticRegression(), LinearSVC(), DecisionTreeClassifier(max_depth=3)])
def test_a_class_that_a_fold_has_not_trained_on_is_impossible_there(estimator, counts):
    X, y = blobs(counts)
    model = RebalancedClassifierCV(estimator, cv=KFold(5)).fit(X, y)
    method = "predict_log_proba" if hasattr(estimator, "predict_log_proba") else "decision_function"
    z = np.full((len(y), 3), -np.inf)
    for train, test in KFold(5).split(X):
        fitted = clone(estimator).fit(X[train], y[train])
        with np.errstate(divide="ignore"):
            found = getattr(fitted, method)(X[test])
        if found.ndim == 1:  # of the two classes that are left
            found = np.stack([0 * found, found], axis=1)
        z[np.ix_(test, fitted.classes_)] = found
    rare = counts.index(1)
    assert np.isneginf(z[y == rare, rare]).all() and np.isfinite(z[:, rare]).any()
    if method == "decision_function":
        own = model.estimator_.decision_function(X)
        z /= np.sqrt(np.mean((own - own.mean(1, keepdims=True)) ** 2))
        z -= np.log(np.exp(z).sum(1, keepdims=True))
    s = -np.log(3) - np.log(np.array(counts) / sum(counts))
    counted = model.search_.counts
    assert counted.support[0].tolist() == list(counts) and not counted.hits[:, rare].any()
    for i in (0, 50, 100, 333, 600):
        decided = (z + LAMS[i] * s).argmax(1)
        assert counted.predicted[i].tolist() == np.bincount(decided, minlength=3).tolist()
        assert counted.hits[i].tolist() == np.bincount(y[decided == y], minlength=3).tolist()
    other = ImbalanceCalibrator(source_prior=counts, kind="log_probs").fit(z, y)
    assert model.search_.lam == other.search_.lam and np.isfinite(model.temperature_)
    assert not any("sum to 1" in note for note in model.search_.notes) and not hasattr(estimator, "classes_")


def test_a_calibrator_may_know_more_classes_than_labels():
    z = np.random.default_rng(0).normal(size=(60, 4))
    y = np.array(["d", "a", "b"])[np.arange(60) % 3]
    model = ImbalanceCalibrator(classes=["d", "c", "b", "a"], source_prior={"a": 9, "b": 4, "c": 2, "d": 1}).fit(z, y)
    assert model.classes_.tolist() == ["d", "c", "b", "a"]
    assert model.calibration_.source_prior.counts == (1, 2, 4, 9)
    assert (model.predict(9 * np.eye(4)) == model.classes_).all()
    other = ImbalanceCalibrator(source_prior=[9, 4, 2, 1], classes=list("abcd")).fit(z[:, ::-1], y)
    assert model.search_.lam == other.search_.lam
    assert (model.predict(z) == other.predict(z[:, ::-1])).all()


@pytest.mark.parametrize("kind", CLASSES)
def test_labels_that_stand_in_for_those_of_training_are_told(kind, recwarn):
    X, y = blobs([40, 20, 10])
    frozen = FrozenEstimator(GaussianNB().fit(X, y))
    model = kind(frozen) if kind is RebalancedClassifierCV else kind()
    with pytest.warns(UserWarning, match="no source_prior, so the labels given to fit stand in") as told:
        model.fit(X, y)
    assert told[0].filename == __file__
    assert model.calibration_.source_prior.counts == (40, 20, 10)
    recwarn.clear()
    silent = clone(model).set_params(source_prior="labels").fit(X, y)
    assert not len(recwarn)
    same(silent.calibration_, model.calibration_)


# ------------------------------------------------------------ frozen


def test_a_frozen_classifier_is_not_fitted():
    fitted = Counted().fit(*blobs([300, 90, 20]))
    before, at = Counted.fits, {name: np.copy(getattr(fitted, name)) for name in ("theta_", "var_", "class_prior_")}
    X, y = blobs([40, 40, 40], 1)
    model = RebalancedClassifierCV(FrozenEstimator(fitted), source_prior=[300, 90, 20]).fit(X, y)
    assert Counted.fits == before and model.estimator_.estimator is fitted
    assert all((getattr(fitted, name) == value).all() for name, value in at.items())
    z = fitted.predict_log_proba(X)
    other = ImbalanceCalibrator(kind="log_probs", source_prior=[300, 90, 20]).fit(z, y)
    same(model.calibration_, other.calibration_)
    assert (model.predict_proba(X) == other.predict_proba(z)).all()
    given = clone(model).set_params(lam=0.5).fit(X, y)
    assert given.search_.best["lambda"] == given.lambda_ == 0.5 and given.search_.n == 120


def test_a_frozen_classifier_knows_its_classes():
    fitted = GaussianNB().fit(*blobs([300, 90, 20]))
    X, y = blobs([40, 40], 1)
    model = RebalancedClassifierCV(FrozenEstimator(fitted), source_prior=[300, 90, 20]).fit(X, y)
    assert model.classes_.tolist() == [0, 1, 2] and model.predict_proba(X).shape == (80, 3)
    with pytest.raises(InputError, match="y: the class 3; expected some of 0, 1, 2"):
        model.fit(X, y + 2)
    with pytest.raises(InputError, match="y: the class 'ant'; expected some of 0, 1, 2"):
        model.fit(X, np.array(["ant", "cow"])[y])


# ------------------------------------------------------------ within scikit-learn


def test_in_a_pipeline_and_around_one():
    X, y = blobs([90, 30, 12])
    inside = make_pipeline(StandardScaler(), RebalancedClassifierCV(LogisticRegression(), cv=3)).fit(X, y)
    scaled = StandardScaler().fit_transform(X)
    alone = RebalancedClassifierCV(LogisticRegression(), cv=3).fit(scaled, y)
    assert (inside.predict_proba(X) == alone.predict_proba(scaled)).all()
    around = RebalancedClassifierCV(make_pipeline(StandardScaler(), LogisticRegression()), cv=3).fit(X, y)
    z = held_out(make_pipeline(StandardScaler(), LogisticRegression()), X, y, n=3)
    assert around.search_.lam == ImbalanceCalibrator(kind="log_probs", source_prior=[90, 30, 12]).fit(z, y).search_.lam
    frame = pd.DataFrame(X, columns=["a", "b", "c"])
    assert around.fit(frame, pd.Series(y)).feature_names_in_.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize("how", [{}, {"n_jobs": 2}])
def test_a_grid_of_lambdas(how):
    X, y = blobs([120, 40, 15])
    lams = [0, 0.5, 1.0, "tune"]
    grid = GridSearchCV(
        RebalancedClassifierCV(GaussianNB(), cv=3), {"lam": lams}, scoring="balanced_accuracy", cv=4, **how
    )
    with joblib.parallel_config(backend="threading"):
        grid.fit(X, y)
    found = grid.cv_results_["mean_test_score"]
    assert found[0] == cross_val_score(GaussianNB(), X, y, scoring="balanced_accuracy", cv=4).mean()
    for lam, score in zip(lams, found, strict=True):
        one = RebalancedClassifierCV(GaussianNB(), lam=lam, cv=3)
        assert score == cross_val_score(one, X, y, scoring="balanced_accuracy", cv=4).mean()
    assert grid.best_params_["lam"] != 0 and found.max() > found[0]


def test_folds_in_other_processes():
    X, y = blobs([90, 30, 12])
    one, other = (RebalancedClassifierCV(GaussianNB(), n_jobs=n).fit(X, y) for n in (None, 2))
    get_reusable_executor().shutdown(wait=True)  # processes that would wait for more
    same(one.calibration_, other.calibration_)


@pytest.mark.parametrize("labels", [np.arange(3), np.array(["rat", "ant", "cow"])], ids=["numbers", "text"])
def test_pickled_copied_and_cloned(labels):
    X, y = blobs([90, 30, 12])
    model = RebalancedClassifierCV(LogisticRegression(), source_prior=[3, 2, 1]).fit(X, labels[y])
    probs = model.predict_proba(X)
    for again in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert (again.predict_proba(X) == probs).all() and again.search_.to_dict() == model.search_.to_dict()
    blank = clone(model)
    assert not hasattr(blank, "calibration_") and blank.get_params()["source_prior"] == [3, 2, 1]
    assert (blank.fit(X, labels[y]).predict_proba(X) == probs).all()


def test_decisions_are_the_first_largest_probabilities():
    rng = np.random.default_rng(0)
    z = rng.integers(-2, 3, (500, 4)).astype(np.float32)  # many ties
    y = rng.choice(4, 500, p=[0.6, 0.2, 0.15, 0.05])
    for prior in ([1, 1, 1, 1], [8, 4, 2, 1]):
        model = ImbalanceCalibrator(source_prior=prior).fit(z, y)
        decided = model.predict(z)
        assert (model.predict_proba(z).argmax(1) == decided).all()
        assert (model.predict_log_proba(z).argmax(1) == decided).all()
        np.testing.assert_allclose(model.predict_proba(z).sum(1), 1, rtol=1e-5)


def test_a_curve_is_drawn_and_read():
    X, y = blobs([90, 30, 12])
    model = RebalancedClassifierCV(GaussianNB()).fit(X, y)
    table = pd.DataFrame(model.curve_)
    assert len(table) == 601 and {"lambda", "macc", "acc", "miou", "f1"} <= set(table)
    assert table.macc[table["lambda"] == model.search_.lam].item() == model.search_.best["macc"]
    ax = plots.curve(model.search_, metrics=["macc"])
    drawn = ax.get_lines()[0]
    np.testing.assert_allclose(np.interp(1, drawn.get_xdata(), drawn.get_ydata()), 100 * table.macc[100])


# ------------------------------------------------------------ metadata


class Recorder(ClassifierMixin, BaseEstimator):
    """A classifier that remembers the weights it was fitted with."""

    seen = None

    def __init__(self, seen=None):
        self.seen = seen

    def fit(self, X, y, sample_weight=None, colour=None):
        self.model_ = GaussianNB().fit(X, y, sample_weight)
        self.classes_ = self.model_.classes_
        Recorder.log.append((len(y), None if sample_weight is None else float(np.sum(sample_weight)), colour))
        return self

    def predict_log_proba(self, X):
        return self.model_.predict_log_proba(X)

    def predict(self, X):
        return self.model_.predict(X)


@pytest.fixture
def log():
    Recorder.log = []
    yield Recorder.log
    del Recorder.log


@pytest.mark.parametrize("routing", [False, True])
def test_weights_train_and_do_not_count(routing, log):
    X, y = blobs([60, 30])
    w = np.where(y == 1, 2.0, 1.0)
    with sklearn.config_context(enable_metadata_routing=routing):
        inner = Recorder().set_fit_request(sample_weight=True, colour=True) if routing else Recorder()
        model = RebalancedClassifierCV(inner, cv=3).fit(X, y, sample_weight=w, colour="red")
    folds = [float(w[train].sum()) for train, _ in StratifiedKFold(3).split(X, y)]
    assert log == [(90, 120.0, "red"), *((60, total, "red") for total in folds)]
    assert model.calibration_.source_prior.values == (0.5, 0.5), "what the classifier was trained on"
    assert model.search_.counts.support[0].tolist() == [60, 30] and model.lambda_ == 0
    given = RebalancedClassifierCV(Recorder(), source_prior=[2, 1])
    assert given.fit(X, y, sample_weight=w).calibration_.source_prior.counts == (2, 1)
    assert given.fit(X, y, sample_weight=None).predict(X).shape == (90,)


def test_metadata_that_nobody_asked_for(log):
    X, y = blobs([60, 30])
    with sklearn.config_context(enable_metadata_routing=True):
        with pytest.raises(sklearn.exceptions.UnsetMetadataPassedError, match="sample_weight"):
            RebalancedClassifierCV(Recorder()).fit(X, y, sample_weight=np.ones(90))
        with pytest.raises(TypeError, match="flavour"):
            RebalancedClassifierCV(Recorder()).fit(X, y, flavour="sweet")
        RebalancedClassifierCV(Recorder().set_fit_request(sample_weight=False)).fit(X, y)
    with pytest.raises(TypeError, match="flavour"):
        RebalancedClassifierCV(Recorder()).fit(X, y, flavour="sweet")
    assert [one[1] for one in log] == [None] * 6


@pytest.mark.parametrize("routing", [False, True])
def test_groups_are_for_the_splitter(routing, log):
    X, y = blobs([60, 30])
    groups = np.arange(90) // 6
    with sklearn.config_context(enable_metadata_routing=routing):
        model = RebalancedClassifierCV(Recorder(), cv=GroupKFold(3)).fit(X, y, groups=groups)
        grid = GridSearchCV(RebalancedClassifierCV(Recorder(), cv=GroupKFold(3)), {"lam": ["tune"]}, cv=GroupKFold(2))
        if routing:
            grid.fit(X, y, groups=groups)
    z = cross_val_predict(GaussianNB(), X, y, groups=groups, cv=GroupKFold(3), method="predict_log_proba")
    other = ImbalanceCalibrator(kind="log_probs", source_prior=[60, 30]).fit(z, y)
    assert (model.search_.counts.hits == other.search_.counts.hits).all()
    assert not routing or grid.best_estimator_.search_.lam == model.search_.lam


def test_weights_of_a_step_say_nothing_of_the_prior():
    X, y = blobs([60, 30])
    pipe = make_pipeline(StandardScaler(), LogisticRegression())
    w = {"logisticregression__sample_weight": np.where(y == 1, 2.0, 1.0)}
    with pytest.raises(InputError, match=r"beside logisticregression__sample_weight, so what prior .* is not known"):
        RebalancedClassifierCV(pipe).fit(X, y, **w)
    model = RebalancedClassifierCV(pipe, source_prior=[1, 1]).fit(X, y, **w)
    assert (model.predict(X) == clone(pipe).fit(X, y, **w).predict(X)).all() and model.lambda_ == 0


# ------------------------------------------------------------ what is refused

ROWS, LABELS = blobs([20, 10])
NOTHING = type("Nothing", (BaseEstimator,), {"fit": lambda self, X, y: self})()
WIDE = type("Wide", (GaussianNB,), {"predict_log_proba": lambda self, X: np.zeros((len(X), 5))})()
ENDLESS = type("Endless", (LinearSVC,), {"decision_function": lambda self, X: np.full(len(X), np.inf)})()
BROKEN = type("Broken", (GaussianNB,), {"predict_log_proba": lambda self, X: np.full((len(X), 2), np.nan)})()


@pytest.mark.parametrize(
    "estimator, how, y, said",
    [
        (GaussianNB(), {"lam": "best"}, LABELS, "lam: 'best'; expected \"tune\" or a finite number"),
        (GaussianNB(), {"lam": True}, LABELS, "lam: True; expected"),
        (GaussianNB(), {"lam": np.nan}, LABELS, "lam: nan; expected"),
        (GaussianNB(), {"lam": 1e300}, LABELS, "1e+300; expected a finite number between"),
        (GaussianNB(), {"metric": "best"}, LABELS, "the unknown metric 'best'"),
        (GaussianNB(), {"source_prior": {0: 1}}, LABELS, "source_prior: no weight of class 1; expected one for each"),
        (GaussianNB(), {"target_prior": {0: 1, 1: 1, 2: 1}}, LABELS, "target_prior: a weight of 2, which is no class"),
        (GaussianNB(), {"target_prior": [1, 1, 1]}, LABELS, "a prior of 3 classes"),
        (GaussianNB(), {"cv": ShuffleSplit(2, random_state=0)}, LABELS, "6 times in all; expected each sample"),
        (GaussianNB(), {"cv": KFold(2)}, np.arange(30) >= 29, "cv: a fold that leaves 1 class to train on; expected"),
        (GaussianNB(), {}, np.zeros(30), "y: 1 class; expected two classes or more"),
        (GaussianNB(), {}, np.arange(30) / 7, "Unknown label type: continuous"),
        (GaussianNB(), {}, np.eye(30)[:, :3], "y should be a 1d array"),
        (GaussianNB(), {}, LABELS[:9], "inconsistent numbers of samples"),
        (DummyClassifier(), {"source_prior": "nowhere"}, LABELS, "'nowhere'; expected uniform, labels"),
        (LinearRegression(), {}, LABELS, "estimator: LinearRegression, which has no scores; expected a classifier"),
        (NOTHING, {}, LABELS, "estimator: Nothing, which has no scores"),
        (WIDE, {}, LABELS, "estimator: 5 columns of predict_log_proba for 2 classes; expected a score for each class"),
        (ENDLESS, {}, LABELS, "inf at row 0, class 1; expected finite logits"),
        (BROKEN, {}, LABELS, "nan at row 0, class 0; expected finite log-probs"),
    ],
)
@few
def test_what_a_classifier_refuses(estimator, how, y, said):
    with pytest.raises(ValueError) as caught:
        RebalancedClassifierCV(estimator, **how).fit(ROWS, y)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_scores_of_pairs_are_refused():
    X, y = blobs([20, 20, 20])
    model = RebalancedClassifierCV(make_pipeline(StandardScaler(), SVC(decision_function_shape="ovo")))
    with pytest.raises(InputError, match='svc__decision_function_shape="ovo", scores of pairs; expected "ovr"'):
        model.fit(X, y)
    assert model.set_params(estimator__svc__decision_function_shape="ovr").fit(X, y).predict(X).shape == (60,)


SOFT = np.array([[0.5, 0.5], [0.2, 0.8], [0.9, 0.1]])


@pytest.mark.parametrize(
    "how, X, y, params, said",
    [
        ({}, SOFT * 9, [0, 1, 2], {}, "X: 2 columns for 3 classes; expected a column for each class (classes="),
        ({}, SOFT, [0, 1, 0], {}, 'X: values in [0, 1] whose rows sum to 1; expected logits, or Imb'),
        ({}, SOFT * 9, [0, 1, 0], {"sample_weight": [1, 1, 1]}, "lambda is chosen by counts of samples"),
        ({}, SOFT * 9, [0, 1, 0], {"colour": "red"}, "colour: given; expected X and y alone"),
        ({"kind": "odds"}, SOFT, [0, 1, 0], {}, "kind: 'odds'; expected one of logits, log_probs, probs"),
        ({"classes": [0, 1]}, SOFT * 9, [0, 1, 2], {}, "y: the class 2; expected some of 0, 1"),
        ({"classes": ["a", "a"]}, SOFT * 9, ["a", "a", "a"], {}, "classes: a label twice; expected one for each"),
        ({"temperature": 0}, SOFT * 9, [0, 1, 0], {}, "temperature"),
        ({"kind": "probs"}, -SOFT, [0, 1, 0], {}, "expected"),
        ({}, np.full((3, 2), np.nan), [0, 1, 0], {}, "Input X contains NaN"),
    ],
)  # fmt: skip
def test_what_a_calibrator_refuses(how, X, y, params, said):
    with pytest.raises(ValueError) as caught:
        ImbalanceCalibrator(**{"source_prior": "uniform", **how}).fit(X, y, **params)
    assert said in str(caught.value)


def test_a_sample_of_no_possible_class_is_refused():
    model = ImbalanceCalibrator(kind="probs", lam=1, source_prior=[0, 1, 1])
    model.fit([[0.5, 0.5, 0], [0.2, 0.4, 0.4], [0.1, 0.1, 0.8]], [0, 1, 2])
    assert model.predict([[0.9, 0.1, 0]]) == [1]
    for method in (model.predict, model.predict_proba, model.predict_log_proba):
        with pytest.raises(InputError, match="no class of positive probability that may be predicted"):
            method([[0.9, 0.1, 0], [1.0, 0, 0]])


# ------------------------------------------------------------ the module


@pytest.mark.parametrize("kind", CLASSES)
def test_docstrings(kind):
    X, y = blobs([60, 20])
    model = kind(GaussianNB()) if kind is RebalancedClassifierCV else kind(source_prior="labels")
    model.fit(pd.DataFrame(X[:, :2], columns=["a", "b"]), y)
    for section, names in (("Parameters", set(model.get_params(deep=False))), ("Attributes", set())):
        text = re.search(rf"^{section}\n-+\n(.*?)\n\n\w", inspect.getdoc(kind), re.MULTILINE | re.DOTALL)[1]
        listed = {name for line in re.findall(r"^(\S.*) : ", text, re.MULTILINE) for name in line.split(", ")}
        assert listed == (names or listed)
        assert all(hasattr(model, name) for name in listed)
    fitted = {name for name in vars(model) if name.endswith("_") and not name.startswith("_")}
    assert fitted <= listed
    for method in ("fit", "predict", "predict_proba", "predict_log_proba"):
        assert re.search(r"^Parameters\n-+\nX : ", inspect.getdoc(getattr(kind, method)), re.MULTILINE)


def test_nothing_else_imports_it():
    code = (
        "import sys, unoic_cli.plots, unoic_cli.cli as cli; cli.run(['doctor', '-q']); print('sklearn' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.endswith("False\n")


def test_doctor_knows_the_extra(answer):
    assert answer("doctor")["extras"]["sklearn"] is True


def test_it_is_not_taken_for_what_it_imports():
    code = "import unoic_cli.sklearn as ours, sklearn; print(ours.BaseEstimator is sklearn.base.BaseEstimator)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "True\n"


def test_without_scikit_learn_one_line_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "unoic_cli.sklearn")
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ImportError) as caught:
        __import__("unoic_cli.sklearn")
    said = str(caught.value)
    assert said.startswith("unoic_cli.sklearn: no scikit-learn, or one before 1.6 (") and "\n" not in said
    assert (
        said.endswith("; expected it to be installed: pip install 'unoic[sklearn]'") and caught.value.__cause__ is None
    )
