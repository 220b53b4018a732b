"""Metrics: one file each. Nothing here knows them by name: a file in this folder is a metric.

Which are shown where nobody asks is all that is listed.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Sequence

from unoic_cli.calls import nearest
from unoic_cli.errors import UsageError
from unoic_cli.metrics.metric import (
    ABSENT,
    ABSENT_RULES,
    SHOTS,
    Absent,
    ClassMean,
    Counted,
    Exact,
    Metric,
    OfClass,
    Recipe,
    Rules,
    Weights,
    fold,
    rounding,
    unknown_class,
)
from unoic_cli.tallies.counts import Counts

__all__ = [
    "ABSENT", "ABSENT_RULES", "NAMES", "SHOTS", "Absent", "Counted", "Counts", "Exact", "Metric", "OfClass", "Recipe",
    "Rules", "Weights", "find", "in_percent", "is_better", "known", "rounding", "title",
]  # fmt: skip

NAMES = ("acc", "macc", "miou", "f1")
"""What is shown by default."""
_OF_CLASS = re.compile(r"(.*?)\[(.*)\]", re.DOTALL)


@functools.cache
def known() -> tuple[type[Metric], ...]:
    """All metrics: those shown by default, then the others by name."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        for one in vars(importlib.import_module(f"{__name__}.{module.name}")).values():
            if isinstance(one, type) and issubclass(one, Metric) and "NAME" in vars(one):
                found[one.NAME] = one
    return tuple(found[name] for name in (*NAMES, *sorted(found.keys() - {*NAMES})))


def find(name: str, option: str, n_classes: int = 0, class_names: Sequence[str] | None = None) -> Metric:
    """The metric of a name, as people write it.

    Parameters
    ----------
    name : str
        ``mIoU``, ``balanced accuracy``, ``top-5``; of one class ``recall[3]``, or by the name of the class.
    option : str
        For messages.
    n_classes : int
        K.
    class_names : sequence of str, optional
        (K,).

    Raises
    ------
    UsageError
        An unknown metric, or class; the message names the one that is probably meant.

    Examples
    --------
    >>> [find(name, "--metric").name for name in ("mAcc", "balanced_accuracy", "mean-iou", "F1_macro", "top-5")]
    ['macc', 'macc', 'miou', 'f1', 'top5']
    >>> find("Sensitivity[cat]", "--metric", 2, ("dog", "cat")).name
    'recall[cat]'
    """
    match = _OF_CLASS.fullmatch(name.strip())
    if match:
        return _of_class(match[1], match[2].strip(), option, n_classes, class_names)
    folded = fold(name)
    for one in known():
        metric = one.called(folded)
        if metric is not None:
            return metric
    others = sorted({one.NAME for one in known() if one.NAME and one.NAME not in (*NAMES, "topN")})
    listed = f"expected one of {', '.join(NAMES)}, topN, {', '.join(others)}, or of a class recall[CLASS] and the like"
    raise UsageError(option, f"the unknown metric {name!r}", _meant(folded) + listed)


def _meant(folded: str) -> str:
    """The metric that is probably meant by another name."""
    near = nearest(folded, names := {fold(other): one.NAME for one in known() for other in (one.NAME, *one.ALIASES)})
    return "" if near is None else f"did you mean {names[near]}? "


def _of_class(name: str, label: str, option: str, n_classes: int, class_names: Sequence[str] | None) -> Metric:
    """The ratio of one class."""
    ratios = [one for one in known() if issubclass(one, ClassMean) and "RATIO" in vars(one)]
    mean = next((one for one in ratios if one.ratio_called(fold(name))), None)
    if mean is None:
        listed = ", ".join(f"{one.RATIO}[CLASS]" for one in ratios)
        raise UsageError(option, f"{name.strip()} of one class", f"expected one of {listed}")
    names = list(class_names or ())
    if names.count(label) > 1:
        found = f"{names.count(label)} classes are called {label!r}"
        raise UsageError(option, found, "expected names that differ, to name one of them")
    if label in names:
        return OfClass(mean(), names.index(label), label)
    if not (label.isascii() and label.isdigit() and int(label) < n_classes):
        raise unknown_class(option, label, n_classes, class_names)
    return OfClass(mean(), int(label), names[int(label)] if names else str(int(label)))


def title(name: str) -> str:
    """The title of a metric of a command's result."""
    return name if "[" in name else find(name, "").title


def in_percent(name: str) -> bool:
    """Whether tables show it in percent."""
    return "[" in name or find(name, "").PERCENT


def is_better(name: str, one: float, other: float) -> bool:
    """Whether one of two values of a metric is the better one."""
    return one > other if "[" in name or find(name, "").HIGHER else one < other
