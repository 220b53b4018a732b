"""Metrics: one file each. Nothing here knows them by name: a file in this folder is a metric.

Which are shown where nobody asks is all that is listed.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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
    fold,
    rounding,
    unknown_class,
)
from unoic_cli.tallies.counts import Counts

if TYPE_CHECKING:
    from fractions import Fraction

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "ABSENT", "ABSENT_RULES", "NAMES", "SHOTS", "Absent", "Counted", "Counts", "Exact", "Metric", "OfClass", "Recipe",
    "Rules", "find", "known", "rounding",
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
        An unknown metric, or class; the message names the known ones, and the one that is probably meant.

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
    raise UsageError(option, f"the unknown metric {name!r}", f"{_meant(folded)}expected one of {', '.join(_listed())}")


def _meant(folded: str) -> str:
    """The metric that is probably meant by another name."""
    near = nearest(folded, names := {fold(other): one.NAME for one in known() for other in (one.NAME, *one.ALIASES)})
    return "" if near is None else f"did you mean {names[near]}? "


def _listed() -> list[str]:
    return [name for one in known() for name in one.names()]


def _of_class(name: str, label: str, option: str, n_classes: int, class_names: Sequence[str] | None) -> Metric:
    """The ratio of one class."""
    ratios = [one for one in known() if issubclass(one, ClassMean) and "RATIO" in vars(one)]
    mean = next((one for one in ratios if one.ratio_called(fold(name))), None)
    if mean is None:
        listed = ", ".join(f"{one.RATIO}[CLASS]" for one in ratios)
        raise UsageError(option, f"{name.strip()} of one class", f"expected one of {listed}")
    names = list(class_names or ())
    if label in names:
        return OfClass(mean(), names.index(label), label)
    if not (label.isascii() and label.isdigit() and int(label) < n_classes):
        raise unknown_class(option, label, n_classes, class_names)
    return OfClass(mean(), int(label), names[int(label)] if names else str(int(label)))


# what the commands call until they take metrics as they are

SPELLINGS = {one.NAME: one.ALIASES for one in known() if one.NAME in NAMES}


def top_of(name: str) -> int | None:
    """K of ``topk``, else None."""
    k = next((one.called(fold(name)) for one in known() if one.NAME == "topN"), None)
    return getattr(k, "k", None)


def metric_name(name: str, option: str, *, tops: bool = True) -> str:
    """The program's name of a metric that may be called otherwise."""
    if fold(name) in {fold(other): own for own in NAMES for other in (own, *SPELLINGS[own])} or (tops and top_of(name)):
        return find(name, option).name
    listed = f"expected one of {', '.join(NAMES)}" + (", top5 (or another topN)" if tops else "")
    raise UsageError(option, f"the unknown metric {name!r}" if tops else f"{name!r}", _meant(fold(name)) + listed)


def compute(
    counts: Counts, name: str, absent: Absent = "reference", ignored: Sequence[int] = ()
) -> NDArray[np.float64]:
    """One metric at every position of the leading axes."""
    return find(name, "").values(Counted(counts), Rules(absent, tuple(ignored)))


def compute_all(counts: Counts, absent: Absent = "reference", ignored: Sequence[int] = ()) -> dict[str, Any]:
    """All of `NAMES`."""
    return {name: compute(counts, name, absent, ignored) for name in NAMES}


def exact(counts: Counts, name: str, absent: Absent = "reference", ignored: Sequence[int] = ()) -> Fraction | None:
    """One metric of counts (K,) without any rounding; None where nothing can be averaged."""
    return find(name, "").exact(Counted(counts), Rules(absent, tuple(ignored)))  # type: ignore[return-value]  # of NAMES
