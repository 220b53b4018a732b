"""For scikit-learn: `RebalancedClassifierCV` around a classifier, and `ImbalanceCalibrator` of logits.

Importing this module imports scikit-learn (extra ``unoic[sklearn]``); nothing else of the package does.
"""

from __future__ import annotations

import contextlib
import math
import numbers
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unoic_cli.calibrations.applied import KINDS
from unoic_cli.calibrations.prior import Prior
from unoic_cli.calls import plain
from unoic_cli.errors import DataError, UnoicError
from unoic_cli.searches.joint import log_softmax
from unoic_cli.version import __version__

try:
    from sklearn import get_config
    from sklearn.base import BaseEstimator, ClassifierMixin, MetaEstimatorMixin, clone
    from sklearn.frozen import FrozenEstimator
    from sklearn.model_selection import check_cv
    from sklearn.utils import Bunch, assert_all_finite, get_tags, indexable
    from sklearn.utils.metadata_routing import MetadataRouter, MethodMapping, process_routing
    from sklearn.utils.metaestimators import _safe_split
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.parallel import Parallel, delayed
    from sklearn.utils.validation import _check_method_params, check_is_fitted, column_or_1d, validate_data
except ImportError as error:
    found = f"no scikit-learn, or one before 1.6 ({error})"
    text = f"unoic_cli.sklearn: {found}; expected it to be installed: pip install 'unoic[sklearn]'"
    raise ImportError(text) from None

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unoic_cli.calibrations.calibration import Calibration
    from unoic_cli.commands.search import SearchResult
    from unoic_cli.formats.block import Kind

    Floats = NDArray[np.float64]

__all__ = ["ImbalanceCalibrator", "InputError", "RebalancedClassifierCV"]

METHODS = ("predict_log_proba", "predict_proba", "decision_function")
"""Where scores come from: the first of these that a classifier has."""
TUNE = "tune"
WEIGHT = "sample_weight"
NO_WEIGHTS = "expected none: lambda is chosen by counts of samples, which are whole numbers, and a weight is none"
OF_FIT = "the labels given to fit"


class InputError(DataError, ValueError):
    """What cannot be fitted or predicted; scikit-learn knows it as a ValueError."""


@contextlib.contextmanager
def _value_errors() -> Iterator[None]:
    """What the package refuses, as scikit-learn expects it."""
    try:
        yield
    except InputError:
        raise
    except UnoicError as error:
        raise InputError(error.where, error.found, error.expected) from None


class _Rebalanced(ClassifierMixin, BaseEstimator):
    """What both classifiers are: scores, and a calibration that decides by them."""

    def _scores(self, X: Any) -> tuple[Floats, Kind]:
        """Scores of samples (N, K) in the order of the classes, and what they are."""
        raise NotImplementedError

    def _applied(self, X: Any, how: str) -> NDArray[Any]:
        check_is_fitted(self, "calibration_")
        with _value_errors():
            scores, kind = self._scores(X)
            return np.asarray(getattr(self.calibration_, how)(scores, kind=kind))

    def predict(self, X: Any) -> NDArray[Any]:
        """Decide.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples,)
            For each sample the first class of the largest probability.
        """
        places = self._applied(X, "predict")
        return np.asarray(self.classes_[places])

    def predict_proba(self, X: Any) -> NDArray[Any]:
        """Probabilities of the rebalanced posterior.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.
        """
        return self._applied(X, "predict_proba")

    def predict_log_proba(self, X: Any) -> NDArray[Any]:
        """Logarithms of the probabilities, which keep their digits where these are near 0.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)

        Returns
        -------
        ndarray of shape (n_samples, n_classes)
            In the order of `classes_`.
        """
        return self._applied(X, "apply")

    @property
    def curve_(self) -> dict[str, NDArray[np.float64]]:
        """Lambdas that were looked at, under ``lambda``, and each metric at all of them."""
        search: SearchResult = self.search_
        return {"lambda": search.lams, **search.curve}

    def _forget(self, *names: str) -> None:
        """An earlier fit leaves nothing behind."""
        for name in names:
            self.__dict__.pop(name, None)

    def _keep(self, calibration: Calibration) -> None:
        self.calibration_ = calibration
        self.lambda_ = calibration.lam
        self.temperature_ = calibration.temperature

    def _searched(
        self, scores: NDArray[Any], codes: NDArray[np.int64], kind: Kind, source: Any, temperature: float | None
    ) -> SearchResult:
        """What `unoic_cli.search_lambda` finds on scores; a given lambda is measured there."""
        from unoic_cli import from_arrays, search_lambda  # all that reads and counts, where it is needed

        names = _names(self.classes_)
        data = from_arrays(scores, codes, kind=kind, class_names=names, class_axis=1, name="fit")
        target = _prior(self.target_prior, self.classes_, "target_prior")
        lam = _lambda(self.lam)
        return search_lambda(
            data, lam=lam, metric=self.metric, source_prior=source, target_prior=target, temperature=temperature
        )


class RebalancedClassifierCV(MetaEstimatorMixin, _Rebalanced):
    """Rebalance a classifier: decisions are argmax(z + lambda * (log P_target - log P_source)), lambda found exactly.

    The scores z that lambda is chosen by are out of fold: each sample's are of a clone of the classifier that was
    fitted without it. The classifier that predicts is fitted on all samples.

    Parameters
    ----------
    estimator : classifier
        Its scores are those of ``predict_log_proba``, ``predict_proba`` or ``decision_function``, the first that it
        has. A `sklearn.frozen.FrozenEstimator` is not fitted, and there are no folds: the samples given to `fit` should
        be others than those that it was trained on.
    lam : "tune" or float, default="tune"
        lambda, or how it is found: ``"tune"`` is the choice of ``unoic search-lambda``. A number needs no folds.
    metric : str, default="macc"
        What lambda is chosen for: mean class (balanced) accuracy, or another of docs/metrics.md.
    source_prior : array-like of shape (n_classes,), mapping by class, or str, default=None
        Class frequencies that the classifier was trained on. By default the counts of the labels given to `fit`, or the
        sums of their ``sample_weight``. A frozen classifier was trained on others: without its frequencies the labels
        given to `fit` stand in, with a warning that ``"labels"`` silences.
    target_prior : array-like of shape (n_classes,), mapping by class, or str, default=None
        Class frequencies wanted. By default uniform.
    cv : int, splitter or iterable, default=None
        Folds that hold each sample out exactly once. By default five, stratified.
    n_jobs : int, default=None
        Folds that are fitted at a time.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels.
    estimator_ : classifier
        Fitted on all samples; a frozen one as it is.
    calibration_ : unoic_cli.Calibration
        What turns its scores into decisions and probabilities. `Calibration.save` writes the file that commands read.
    lambda_, temperature_ : float
        Of the calibration. Decisions depend on their product alone.
    search_ : unoic_cli.SearchResult
        The choice, the curve, gains with their intervals, notes and warnings; ``unoic_cli.plots.curve(model.search_)``
        draws it. A ``lam`` that is a number has none, unless the classifier is frozen.
    curve_ : dict of str to ndarray
        Of `search_`: lambdas under ``lambda``, and metrics at all of them.
    n_features_in_ : int
        Of `estimator_`, where it has it.
    feature_names_in_ : ndarray of shape (n_features,)
        Of `estimator_`, where it has it.

    See Also
    --------
    ImbalanceCalibrator : For scores that are there already.

    Notes
    -----
    A margin (of ``decision_function``, one against the rest for instance) is taken for a logit, one column as (0, z).
    Margins have no unit, so they are divided by their spread first: the root mean square around the mean of each
    sample, of `estimator_` on the samples given to `fit`. A ``lam`` that is a number is for scores so divided. Columns
    for pairs of classes (``decision_function_shape="ovo"``) are refused.

    With ``lam="tune"`` probabilities have the temperature of a joint fit with lambda, which moves no decision, as
    ``unoic calibrate`` writes them; with a number they are softmax(z + lam * s).

    Where a fold's training part lacks a class, that class is impossible for the samples held out: those that are of it
    are wrong at every lambda.

    Metadata go to `fit` of the classifier (``groups``, or what is requested, to the splitter). So does
    ``sample_weight``: it trains, and each sample counts once where lambda is chosen, as counts are whole numbers. With
    ``class_weight="balanced"`` a classifier learns a uniform prior: say ``source_prior="uniform"`` (lambda stays 0), or
    leave the weights out.

    Examples
    --------
    >>> from sklearn.datasets import make_classification
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.metrics import balanced_accuracy_score
    >>> from unoic_cli.sklearn import RebalancedClassifierCV
    >>> X, y = make_classification(1200, n_informative=4, weights=[0.95], random_state=0)
    >>> X, y, X_test, y_test = X[:600], y[:600], X[600:], y[600:]
    >>> plain = LogisticRegression().fit(X, y)
    >>> model = RebalancedClassifierCV(LogisticRegression()).fit(X, y)
    >>> balanced_accuracy_score(y_test, model.predict(X_test)) > balanced_accuracy_score(y_test, plain.predict(X_test))
    True
    """

    def __init__(
        self,
        estimator: Any,
        *,
        lam: str | float = TUNE,
        metric: str = "macc",
        source_prior: Any = None,
        target_prior: Any = None,
        cv: Any = None,
        n_jobs: int | None = None,
    ) -> None:
        self.estimator = estimator
        self.lam = lam
        self.metric = metric
        self.source_prior = source_prior
        self.target_prior = target_prior
        self.cv = cv
        self.n_jobs = n_jobs

    def fit(self, X: Any, y: Any, **params: Any) -> RebalancedClassifierCV:
        """Fit the classifier, and find lambda by what it says of samples that it was not fitted on.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,)
            Labels.
        **params : dict
            For `fit` of the classifier, and the splitter.

        Returns
        -------
        RebalancedClassifierCV

        Raises
        ------
        InputError
            Samples, folds or parameters that cannot be used.
        """
        self._forget("search_", "n_features_in_", "feature_names_in_")
        lam = _lambda(self.lam)
        y = _labels(y)
        X, y = indexable(X, y)
        routed = self._routed(params)
        frozen = isinstance(self.estimator, FrozenEstimator)
        if not frozen:
            _several(np.unique(y), "y")
        self.estimator_ = clone(self.estimator).fit(X, y, **routed.estimator.fit)
        self._method = _method(self.estimator_)
        self.classes_ = np.asarray(self.estimator_.classes_)
        _several(self.classes_, "estimator")
        codes = _codes(y, self.classes_, "y")
        for name in ("n_features_in_", "feature_names_in_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        source = self._source(codes, routed.estimator.fit, frozen)
        with _value_errors():
            scores, kind = _scores(self.estimator_, X, self._method, self.classes_)
            spread = _spread(scores) if kind == "logits" else None
            if lam is None and not frozen:
                scores, kind = self._held_out(X, y, codes, routed)
            result = self._searched(scores, codes, kind, source, spread)
            calibration = result.calibration if lam is not None else _with_scale(result)
        if frozen or lam is None:
            self.search_ = result
        else:  # the samples were those of training: what they show of a lambda is worth nothing
            calibration = replace(calibration, tuning=None, provenance={"unoic": __version__})
        self._keep(calibration)
        return self

    def _scores(self, X: Any) -> tuple[Floats, Kind]:
        return _scores(self.estimator_, X, self._method, self.classes_)

    def _source(self, codes: NDArray[np.int64], params: Mapping[str, Any], frozen: bool) -> Any:
        """The source prior, as asked for or as training had it."""
        if self.source_prior is not None:
            return _prior(self.source_prior, self.classes_, "source_prior")
        if frozen:
            _warn(self, 4)
            return None
        weights = params.get(WEIGHT)
        within = next((name for name in params if name.endswith(f"__{WEIGHT}")), None)
        if weights is None and within is not None:
            found = f"none given beside {within}, so what prior the classifier has learnt is not known"
            raise InputError(
                "source_prior", found, "expected the sum of the weights of each class, or other frequencies"
            )
        if weights is not None:
            weights = np.asarray(column_or_1d(weights), dtype=np.float64)
        counts = np.bincount(codes, weights, minlength=len(self.classes_)).tolist()
        with _value_errors():
            return Prior.from_weights(counts, OF_FIT, counts=weights is None)

    def _held_out(self, X: Any, y: Any, codes: NDArray[np.int64], routed: Any) -> tuple[Floats, Kind]:
        """Scores of each sample by a classifier that was fitted without it."""
        cv = check_cv(self.cv, y, classifier=True)
        splits = [(np.asarray(train), np.asarray(test)) for train, test in cv.split(X, y, **routed.splitter.split)]
        held = np.concatenate([np.arange(len(y))[test] for _, test in splits])
        if not np.array_equal(np.sort(held), np.arange(len(y))):
            found = f"folds that hold {np.unique(held).size} of {len(y)} samples out, {held.size} times in all"
            raise InputError("cv", found, "expected each sample in exactly one of them")
        if min(np.unique(y[train]).size for train, _ in splits) < 2:
            expected = "expected two classes or more in each: more samples, or other folds"
            raise InputError("cv", "a fold that leaves 1 class to train on", expected)
        params, classes = routed.estimator.fit, self.classes_
        parts = Parallel(n_jobs=self.n_jobs)(
            delayed(_held_out)(clone(self.estimator), X, y, train, test, self._method, classes, params)
            for train, test in splits
        )
        whole = all(known for _, known in parts)
        scores = np.empty((len(y), len(classes)))
        scores[held] = np.concatenate([part for part, _ in parts])
        if self._method != METHODS[2]:
            return scores, "log_probs"
        return (scores, "logits") if whole else (log_softmax(scores), "log_probs")  # which know impossible classes

    def _routed(self, params: dict[str, Any]) -> Any:
        """What is for the classifier, and what for the splitter."""
        if get_config()["enable_metadata_routing"]:
            return process_routing(self, "fit", **params)
        split = {"groups": params["groups"]} if params.get("groups") is not None else {}
        rest = {name: value for name, value in params.items() if name != "groups" and value is not None}
        return Bunch(estimator=Bunch(fit=rest), splitter=Bunch(split=split))

    def get_metadata_routing(self) -> Any:
        """Where metadata go.

        Returns
        -------
        MetadataRouter
        """
        router = MetadataRouter(owner=type(self).__name__)
        router.add(estimator=self.estimator, method_mapping=MethodMapping().add(caller="fit", callee="fit"))
        return router.add(splitter=self.cv, method_mapping=MethodMapping().add(caller="fit", callee="split"))

    def __sklearn_tags__(self) -> Any:
        tags, own = super().__sklearn_tags__(), get_tags(self.estimator)
        tags.input_tags, tags.non_deterministic = own.input_tags, own.non_deterministic
        if own.classifier_tags is not None:
            tags.classifier_tags = own.classifier_tags
            tags.classifier_tags.multi_label = False
        return tags


class ImbalanceCalibrator(_Rebalanced):
    """Rebalance logits, which are X: as ``unoic search-lambda`` finds lambda and ``unoic calibrate`` writes posteriors.

    Parameters
    ----------
    lam : "tune" or float, default="tune"
        lambda, or how it is found: ``"tune"`` is the choice of ``unoic search-lambda``.
    metric : str, default="macc"
        What lambda is chosen for: mean class (balanced) accuracy, or another of docs/metrics.md.
    source_prior : array-like of shape (n_classes,), mapping by class, or str, default=None
        Class frequencies that the network was trained on. Without them the labels given to `fit` stand in, with a
        warning that ``"labels"`` silences.
    target_prior : array-like of shape (n_classes,), mapping by class, or str, default=None
        Class frequencies wanted. By default uniform.
    temperature : float, default=None
        Divides the logits. By default 1 beside a ``lam`` that is a number; with ``"tune"`` that of a joint fit with
        lambda, which moves no decision: ``unoic calibrate`` without a calibration does the same.
    kind : {"logits", "log_probs", "probs"}, default="logits"
        What X holds.
    classes : array-like of shape (n_classes,), default=None
        The labels of the columns. By default those in y, in order.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        Labels of the columns.
    calibration_ : unoic_cli.Calibration
        What turns logits into decisions and probabilities. `Calibration.save` writes the file that commands read.
    lambda_, temperature_ : float
        Of the calibration. Decisions depend on their product alone.
    search_ : unoic_cli.SearchResult
        The choice, the curve, gains with their intervals, notes and warnings; ``unoic_cli.plots.curve(model.search_)``
        draws it.
    curve_ : dict of str to ndarray
        Of `search_`: lambdas under ``lambda``, and metrics at all of them.
    n_features_in_ : int
        Columns of X: one for each class, or one alone that stands for two classes as (0, z).
    feature_names_in_ : ndarray of shape (n_features,)
        Names of the columns, where X has names that are all text.

    See Also
    --------
    RebalancedClassifierCV : Around a classifier, whose scores out of fold it takes.

    Notes
    -----
    ``sample_weight`` is refused: lambda is chosen by counts of samples, which are whole numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from unoic_cli.sklearn import ImbalanceCalibrator
    >>> logits = np.array([[2.0, 1.5], [2.0, 0.0], [1.0, 0.0], [0.2, 1.0]])
    >>> labels = ["common", "rare", "rare", "common"]
    >>> model = ImbalanceCalibrator(lam=1, source_prior={"common": 3, "rare": 1}).fit(logits, labels)
    >>> model.predict([[2.0, 1.5], [2.0, 0.0]]).tolist(), model.predict_proba([[2.0, 1.5]]).round(3).tolist()
    (['rare', 'common'], [[0.355, 0.645]])
    """

    def __init__(
        self,
        *,
        lam: str | float = TUNE,
        metric: str = "macc",
        source_prior: Any = None,
        target_prior: Any = None,
        temperature: float | None = None,
        kind: Kind = "logits",
        classes: Any = None,
    ) -> None:
        self.lam = lam
        self.metric = metric
        self.source_prior = source_prior
        self.target_prior = target_prior
        self.temperature = temperature
        self.kind = kind
        self.classes = classes

    def fit(self, X: Any, y: Any, **params: Any) -> ImbalanceCalibrator:
        """Find lambda, or measure the one that is given.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_classes)
            Logits.
        y : array-like of shape (n_samples,)
            Labels.
        **params : dict
            None is known: ``sample_weight`` is refused with the reason.

        Returns
        -------
        ImbalanceCalibrator

        Raises
        ------
        InputError
            Logits, labels or parameters that cannot be used.
        """
        for name in [name for name, value in params.items() if value is not None]:
            raise InputError(name, "given", NO_WEIGHTS if name == WEIGHT else "expected X and y alone")
        lam = _lambda(self.lam)
        if self.kind not in KINDS:
            raise InputError("kind", f"{self.kind!r:.60}", f"expected one of {', '.join(KINDS)}")
        scores = self._validated(X, y=y, reset=True)
        y = _labels(y)
        known = np.unique(y) if self.classes is None else column_or_1d(np.asarray(self.classes))
        _several(known, "y" if self.classes is None else "classes")
        if len(np.unique(known)) < len(known):
            raise InputError("classes", "a label twice", "expected one for each column")
        codes = _codes(y, known, "y")
        if scores.shape[1] != len(known):
            found = f"{self.n_features_in_} columns for {len(known)} classes"
            raise InputError("X", found, "expected a column for each class (classes= names those that y lacks)")
        self.classes_ = known
        if self.source_prior is None:
            _warn(self, 3)
        source = _prior(self.source_prior, known, "source_prior")
        with _value_errors():
            if self.kind == "logits" and _are_probabilities(scores):
                found = "values in [0, 1] whose rows sum to 1"
                raise InputError("X", found, 'expected logits, or ImbalanceCalibrator(kind="probs")')
            self.search_ = self._searched(scores, codes, self.kind, source, self.temperature)
            fits = lam is None and self.temperature is None
            self._keep(_with_scale(self.search_) if fits else self.search_.calibration)
        return self

    def _scores(self, X: Any) -> tuple[Floats, Kind]:
        return self._validated(X, reset=False), self.kind

    def _validated(self, X: Any, **how: Any) -> Floats:
        """Scores (N, K) of floats."""
        logits = self.kind == "logits"
        found = validate_data(self, X, dtype=[np.float64, np.float32, np.float16], ensure_all_finite=logits, **how)
        scores: Floats = found[0] if "y" in how else found
        if scores.shape[1] > 1:
            return scores
        from unoic_cli.formats.single import fill

        made = np.empty((len(scores), 2), scores.dtype if logits else np.float64)
        fill(scores, scores.dtype.name, self.kind, made)
        return made


# --------------------------------------------------------------------------------------------


def _labels(y: Any) -> NDArray[Any]:
    """Labels (N,)."""
    labels = column_or_1d(y, warn=True)
    assert_all_finite(labels, input_name="y")
    check_classification_targets(labels)
    return np.asarray(labels)


def _several(classes: NDArray[Any], where: str) -> None:
    """Refuse what nothing can be decided among."""
    if len(classes) < 2:
        raise InputError(where, f"{len(classes)} class", "expected two classes or more")


def _codes(labels: NDArray[Any], classes: NDArray[Any], where: str) -> NDArray[np.int64]:
    """Places of labels among classes, in whatever order these are."""
    met, inverse = np.unique(labels, return_inverse=True)
    known = {one: place for place, one in enumerate(classes.tolist())}
    strange = next((one for one in met.tolist() if one not in known), None)
    if strange is not None:
        listed = ", ".join(map(repr, list(known)[:8])) + (" ..." if len(known) > 8 else "")
        raise InputError(where, f"the class {strange!r}", f"expected some of {listed}")
    return np.array([known[one] for one in met.tolist()], dtype=np.int64)[inverse]


def _lambda(lam: Any) -> float | None:
    """A given lambda; None where it is to be found."""
    if isinstance(lam, str) and lam == TUNE:
        return None
    if isinstance(lam, bool) or not isinstance(lam, numbers.Real) or not math.isfinite(lam):
        raise InputError("lam", f"{lam!r:.60}", 'expected "tune" or a finite number')
    return float(lam)


def _names(classes: NDArray[Any]) -> list[str] | None:
    """What files call the classes: nothing where they are their own places, or have no printable name."""
    names = [str(one) for one in classes.tolist()]
    if names == [str(k) for k in range(len(names))] or not all(name.isprintable() and name for name in names):
        return None
    return names


def _prior(spec: Any, classes: NDArray[Any], where: str) -> Any:
    """A prior as commands take it; a table is by the labels themselves, and by nothing else."""
    with _value_errors():
        spec = plain(spec, where)
    if not isinstance(spec, Mapping):
        return spec
    known = classes.tolist()
    for one in [*known, *spec]:
        if one not in spec or one not in known:
            found = f"no weight of class {one!r}" if one in known else f"a weight of {one!r}, which is no class"
            raise InputError(where, found, f"expected one for each of {', '.join(map(repr, known[:8]))}")
    return [spec[one] for one in known]


def _warn(model: Any, level: int) -> None:
    """Say that the labels at hand stand in for those of training, which nobody has told."""
    name = type(model).__name__
    text = (
        f"{name}: no source_prior, so the labels given to fit stand in for those of training; expected the class "
        'frequencies that the scores were trained on, or source_prior="labels" where these are the same'
    )
    warnings.warn(text, UserWarning, stacklevel=level)


def _are_probabilities(scores: NDArray[Any]) -> bool:
    """Whether what should be logits looks like probabilities, as commands tell."""
    from unoic_cli.formats import arrays

    return arrays.look_like_probabilities(arrays.describe(scores, class_axis=1))


def _with_scale(result: SearchResult) -> Calibration:
    """The calibration that ``unoic calibrate`` writes where it searches by itself."""
    from unoic_cli.commands.calibrate import with_scale
    from unoic_cli.resolve.common import Notes

    return with_scale(result, Notes())


def _method(estimator: Any) -> str:
    """Where the scores of a fitted classifier come from."""
    found = next((name for name in METHODS if hasattr(estimator, name)), None)
    if found is None:
        expected = f"expected a classifier that has {', '.join(METHODS[:2])} or {METHODS[2]}"
        raise InputError("estimator", f"{type(estimator).__name__}, which has no scores", expected)
    if found == METHODS[2]:
        pairs = [
            name
            for name, value in estimator.get_params().items()
            if name.endswith("decision_function_shape") and value == "ovo"
        ]
        if pairs and len(estimator.classes_) > 2:
            raise InputError(
                "estimator", f'{pairs[0]}="ovo", scores of pairs', 'expected "ovr", a score for each class'
            )
    return found


def _scores(estimator: Any, X: Any, method: str, classes: NDArray[Any]) -> tuple[Floats, Kind]:
    """Scores of a fitted classifier, (N, K) in the order of the classes; those that it does not know are impossible."""
    with np.errstate(divide="ignore"):
        found = np.asarray(getattr(estimator, method)(X), dtype=np.float64)
        if method == METHODS[1]:
            found = np.log(found)
    kind: Kind = "logits" if method == METHODS[2] else "log_probs"
    own = np.asarray(estimator.classes_)
    if found.ndim == 1:
        found = found[:, None]
    if found.shape[1] == 1 and len(own) == 2:
        found = np.hstack([np.zeros_like(found), found])
    if found.shape[1] != len(own):
        shape = f"{found.shape[1]} columns of {method} for {len(own)} classes"
        raise InputError("estimator", shape, "expected a score for each class")
    if np.array_equal(own, classes):
        return found, kind
    scores = np.full((len(found), len(classes)), -np.inf)
    scores[:, _codes(own, classes, "estimator")] = found
    return scores, kind


def _held_out(
    estimator: Any, X: Any, y: NDArray[Any], train: Any, test: Any, method: str, classes: NDArray[Any], params: Any
) -> tuple[Floats, bool]:
    """Scores of the samples of a fold by a classifier fitted on the others, and whether it knows all classes."""
    known, labels = _safe_split(estimator, X, y, train)
    unknown, _ = _safe_split(estimator, X, y, test, train)
    estimator = estimator.fit(known, labels, **_check_method_params(X, params, train))
    return _scores(estimator, unknown, method, classes)[0], len(estimator.classes_) == len(classes)


def _spread(scores: Floats) -> float:
    """Root mean square of scores around the mean of each row: the unit of margins that have none."""
    with np.errstate(over="ignore", invalid="ignore"):
        spread = float(np.sqrt(np.square(scores - scores.mean(axis=1, keepdims=True)).mean()))
    return spread if 0 < spread < np.inf else 1.0
