"""Metrics from integer counts. The last axis is the class; other axes (lattice points, folds) are kept."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, get_args

from unoic_cli.brief import brief
from unoic_cli.calls import nearest
from unoic_cli.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Absent = Literal["reference", "truth-only", "zero"]
ABSENT: tuple[Absent, ...] = get_args(Absent)
ABSENT_RULES: dict[Absent, str] = {
    "reference": "classes absent from truth and prediction are left out; "
    "in miou and f1 a class that is only predicted counts 0",
    "truth-only": "only classes present in the truth are averaged",
    "zero": "every class is averaged; absent ones count 0",
}
NAMES = ("acc", "macc", "miou", "f1")
SPELLINGS = {
    "acc": ("accuracy", "overall accuracy", "OA", "pixel accuracy", "aAcc", "micro accuracy", "accuracy score"),
    "macc": (
        "mean class accuracy", "class-mean accuracy", "balanced accuracy", "balanced accuracy score", "balanced acc",
        "bacc", "macro accuracy", "macro recall", "recall macro", "mean recall", "UAR",
    ),
    "miou": (
        "mean IoU", "IoU", "macro IoU", "mean intersection over union", "jaccard", "jaccard macro", "macro jaccard",
        "jaccard index", "mean jaccard",
    ),
    "f1": ("macro f1", "f1 macro", "mF1", "mean f1", "f1 score", "macro f1 score", "mDice", "mean dice", "dice"),
}  # fmt: skip
"""What else a metric is called: whatever the case, and with spaces, hyphens, underscores or nothing between words."""
_TOP = re.compile(r"top([1-9][0-9]{0,8})(?:acc|accuracy)?")


def top_of(name: str) -> int | None:
    """K of ``topk``, else None."""
    match = _TOP.fullmatch(_folded(name))
    return int(match[1]) if match else None


def metric_name(name: str, option: str, *, tops: bool = True) -> str:
    """The program's name of a metric that may be called otherwise.

    Parameters
    ----------
    name : str
        One of `NAMES` or `SPELLINGS`; ``topN``, if `tops`.
    option : str
        For messages.
    tops : bool
        Whether ``topN`` is among the metrics.

    Raises
    ------
    UsageError
        An unknown metric; the message names the known ones, and the one that is probably meant.

    Examples
    --------
    >>> [metric_name(name, "--metric") for name in ("mAcc", "balanced_accuracy", "mean-iou", "F1_macro", "top-5")]
    ['macc', 'macc', 'miou', 'f1', 'top5']
    """
    known = {_folded(other): own for own in NAMES for other in (own, *SPELLINGS[own])}
    folded = _folded(name)
    if folded in known:
        return known[folded]
    top = top_of(name)
    if tops and top is not None:
        return f"top{top}"
    near = nearest(folded, known)
    meant = "" if near is None else f"did you mean {known[near]}? "
    listed = f"expected one of {', '.join(NAMES)}" + (", top5 (or another topN)" if tops else "")
    raise UsageError(option, f"the unknown metric {name!r}" if tops else f"{name!r}", meant + listed)


def _folded(name: str) -> str:
    return re.sub(r"[-_\s]+", "", name.casefold())


@dataclass(frozen=True)
class Counts:
    """Per-class counts of labelled units.

    Attributes
    ----------
    hits, predicted : (..., K) int64
        Units with label = prediction = k, and with prediction k.
    support : (..., K) int64
        Units with label k; broadcasts against the others.
    """

    hits: NDArray[np.int64]
    predicted: NDArray[np.int64]
    support: NDArray[np.int64]

    __repr__ = brief

    def __getitem__(self, index: Any) -> Counts:
        """Counts at some lattice points: indexes the axes before the class."""
        return Counts(self.hits[index], self.predicted[index], self.support)


def _mean(numerator: Any, denominator: Any, counted: Any) -> Any:
    """Mean over classes of numerator / denominator where `counted`; NaN where no class counts."""
    import numpy as np

    ratio = np.divide(
        numerator, denominator, out=np.zeros(np.broadcast(numerator, denominator).shape), where=denominator > 0
    )
    # a running sum adds one class after another: a class that counts 0 or is left out cannot change the rounding
    total = np.cumsum(np.where(counted, ratio, 0.0), axis=-1)[..., -1]
    n = counted.sum(axis=-1)
    return np.divide(total, n, out=np.full(total.shape, np.nan), where=n > 0)


def _counted(counts: Counts, absent: Absent, ignored: Sequence[int]) -> tuple[Any, Any]:
    """The classes, (..., K) bool, that enter the means of miou and f1; and that of macc."""
    import numpy as np

    present = np.broadcast_to(counts.support, counts.hits.shape) > 0
    asked = np.ones(present.shape[-1], dtype=bool)
    asked[list(ignored)] = False
    if absent == "zero":
        everything = np.broadcast_to(asked, present.shape)
        return everything, everything
    return (present if absent == "truth-only" else present | (counts.predicted > 0)) & asked, present & asked


def compute(
    counts: Counts, name: str, absent: Absent = "reference", ignored: Sequence[int] = ()
) -> NDArray[np.float64]:
    """One metric at every position of the leading axes.

    Parameters
    ----------
    counts : Counts
        See there.
    name : {"acc", "macc", "miou", "f1"}
        Accuracy; mean over classes of the recall; of TP / (support + predicted - TP); of 2 TP / (support + predicted).
    absent : {"reference", "truth-only", "zero"}
        Which classes are averaged; see `ABSENT_RULES`.
    ignored : sequence of int
        Classes in [0, K) whose units are left out (``--ignore-index``): they enter no mean. Units of other classes
        that are predicted as one of them are wrong all the same.

    Returns
    -------
    (...) float64
        Fractions in [0, 1]; NaN where nothing can be averaged.

    Examples
    --------
    >>> import numpy as np
    >>> counts = Counts(np.array([2, 3, 0]), np.array([2, 4, 2]), np.array([4, 4, 0]))
    >>> [round(float(compute(counts, name)), 6) for name in ("acc", "macc", "miou")]
    [0.625, 0.625, 0.366667]
    """
    import numpy as np

    hits, predicted = counts.hits, counts.predicted
    support = np.broadcast_to(counts.support, hits.shape)
    if name == "acc":
        n = support.sum(axis=-1)
        return np.asarray(np.divide(hits.sum(axis=-1), n, out=np.full(n.shape, np.nan), where=n > 0))
    averaged, recalled = _counted(counts, absent, ignored)
    if name == "macc":
        return np.asarray(_mean(hits, support, recalled))
    both = support + predicted
    if name == "miou":
        return np.asarray(_mean(hits, both - hits, averaged))
    return np.asarray(_mean(2 * hits, both, averaged))


def compute_all(counts: Counts, absent: Absent = "reference", ignored: Sequence[int] = ()) -> dict[str, Any]:
    """All of `NAMES`."""
    return {name: compute(counts, name, absent, ignored) for name in NAMES}


def rounding(n_classes: int) -> float:
    """Two values of `compute` that lie nearer than this may be equal: rounding alone can part them so far."""
    return 1e-15 * (n_classes + 8)


def exact(counts: Counts, name: str, absent: Absent = "reference", ignored: Sequence[int] = ()) -> Fraction | None:
    """One metric of counts (K,) without any rounding; None where nothing can be averaged.

    Parameters
    ----------
    counts, name, absent, ignored
        As in `compute`.

    Examples
    --------
    >>> import numpy as np
    >>> exact(Counts(np.array([2, 3, 0]), np.array([2, 4, 2]), np.array([4, 4, 0])), "miou")
    Fraction(11, 30)
    """
    import numpy as np

    hits, predicted, support = counts.hits, counts.predicted, np.broadcast_to(counts.support, counts.hits.shape)
    if name == "acc":
        n = int(support.sum())
        return Fraction(int(hits.sum()), n) if n else None
    averaged, recalled = _counted(counts, absent, ignored)
    if name == "macc":
        over, under, counted = hits, support, recalled
    elif name == "miou":
        over, under, counted = hits, support + predicted - hits, averaged
    else:
        over, under, counted = 2 * hits, support + predicted, averaged
    n = int(counted.sum())
    if not n:
        return None
    own = counted & (under > 0)
    denominators, places = np.unique(under[own], return_inverse=True)
    sums = [0] * denominators.size
    for place, value in zip(places.tolist(), over[own].tolist(), strict=True):
        sums[place] += value
    return _sum([Fraction(a, b) for a, b in zip(sums, denominators.tolist(), strict=True)]) / n


def _sum(terms: list[Fraction]) -> Fraction:
    """The sum of fractions, in halves: their denominators grow only at the end."""
    while len(terms) > 1:
        paired = [a + b for a, b in zip(terms[::2], terms[1::2], strict=False)]
        terms = [*paired, *terms[len(paired) * 2 :]]
    return terms[0] if terms else Fraction(0)
