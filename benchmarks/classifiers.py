"""What `RebalancedClassifierCV` gains around classifiers of scikit-learn, on handwritten digits made rare.

    python benchmarks/classifiers.py [--repeats 10]

Half of scikit-learn's digits trains, class k being cut to 88 * 0.7^k samples; the other half, balanced, tests. Printed
for each classifier: mean class accuracy in percent as it is, with balanced class weights where it takes them,
rebalanced at lambda 1, and at the lambda that folds lead to, with the least and the largest gain of a repetition; then
log-loss before and after, where there is one.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier, SGDClassifier
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC, LinearSVC

from unoic_cli.sklearn import RebalancedClassifierCV

LARGEST, RATIO = 88, 0.7
CLASSIFIERS = (
    LogisticRegression(max_iter=1000),
    RandomForestClassifier(random_state=0),
    HistGradientBoostingClassifier(max_iter=30, random_state=0),
    MLPClassifier(max_iter=300, random_state=0),
    GaussianNB(),
    LinearSVC(),
    SGDClassifier(random_state=0),
    RidgeClassifier(),
    SVC(),
)


def splits(repeats: int) -> Iterator[tuple[Any, Any, Any, Any]]:
    """Samples and labels to train on, and to test on."""
    X, y = load_digits(return_X_y=True)
    for seed in range(repeats):
        known, unknown, labels, truth = train_test_split(X / 16, y, test_size=0.5, stratify=y, random_state=seed)
        kept = [np.flatnonzero(labels == k)[: round(LARGEST * RATIO**k)] for k in range(10)]
        yield known[np.concatenate(kept)], labels[np.concatenate(kept)], unknown, truth


def balanced(classifier: Any) -> Any:
    """The classifier with balanced class weights, where it takes them."""
    takes = "class_weight" in classifier.get_params()
    return clone(classifier).set_params(class_weight="balanced") if takes else None


def loss(model: Any, X: Any, y: Any) -> float:
    """Log-loss; NaN where there are no probabilities."""
    return log_loss(y, model.predict_proba(X)) if hasattr(model, "predict_proba") else np.nan


def figures(classifier: Any, X: Any, y: Any, unknown: Any, truth: Any) -> list[float]:
    """One row of a split."""
    ways = (
        classifier, balanced(classifier), RebalancedClassifierCV(classifier, lam=1), RebalancedClassifierCV(classifier)
    )  # fmt: skip
    models = [None if way is None else clone(way).fit(X, y) for way in ways]
    scored = [np.nan if one is None else 100 * balanced_accuracy_score(truth, one.predict(unknown)) for one in models]
    return [*scored, loss(models[0], unknown, truth), loss(models[3], unknown, truth)]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10)
    repeats = parser.parse_args().repeats
    warnings.simplefilter("ignore")  # of classes of fewer samples than folds, and of training that stops early
    print("| classifier | as it is | balanced | lambda 1 | tuned | gains | log-loss | after |\n" + "| --- " * 8 + "|")
    for classifier in CLASSIFIERS:
        rows = np.array([figures(classifier, *split) for split in splits(repeats)])
        shown = [f"{value:.1f}" if np.isfinite(value) else "" for value in rows[:, :4].mean(axis=0)]
        gain = rows[:, 3] - rows[:, 0]
        shown.append(f"{gain.min():+.1f} to {gain.max():+.1f}")
        shown += [f"{value:.2f}" if np.isfinite(value) else "" for value in rows[:, 4:].mean(axis=0)]
        print(f"| {type(classifier).__name__} | {' | '.join(shown)} |", flush=True)


if __name__ == "__main__":
    main()
