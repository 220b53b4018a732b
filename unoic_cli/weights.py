"""Numbers of classes that people write down: in their order, by name or by index; whether scores are such shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unoic_cli.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def are_probabilities(scores: NDArray[Any], axis: int = 1) -> bool:
    """Whether scores look like probabilities: all in [0, 1], and the sums along the axis of the classes 1.

    A few scores say no, mostly; then a few rows.
    """
    if not scores.size:
        return False
    for part in (scores[:1][..., :1], scores[:1], scores):
        if not (part.min() >= 0 and part.max() <= 1):
            return False
    return not bool((abs(scores.sum(axis=axis, dtype="f8") - 1) >= 1e-3).any())


def weights_of(values: Sequence[Any], path: str) -> list[float]:
    """Weights as numbers."""
    try:
        return [float(value) for value in values]
    except (TypeError, ValueError, OverflowError):
        raise DataError(path, "entries that are not numbers", "expected one count or probability per class") from None


def weights_by_name(pairs: Sequence[tuple[str, Any]], class_names: Sequence[str] | None, path: str) -> list[float]:
    """Weights of (name, weight) pairs in class order; names may also be class indices."""
    table = dict(pairs)
    if len(table) < len(pairs):
        twice = next(name for i, (name, _) in enumerate(pairs) if name in [other for other, _ in pairs[:i]])
        raise DataError(path, f"the class {twice!r} twice", "expected each class once")
    is_named = bool(class_names) and set(class_names or ()) == set(table)
    names = list(class_names or ()) if is_named else [str(k) for k in range(len(table))]
    if set(names) != set(table):
        known = f"the class names ({', '.join((class_names or ())[:6])} ...) or " if class_names else ""
        more = "" if class_names else " (the scores have no class_names)"
        expected = f"expected {known}indices 0 to K - 1{more}"
        raise DataError(path, f"classes {', '.join(list(table)[:6])}{' ...' if len(table) > 6 else ''}", expected)
    if len(set(names)) < len(names):
        raise DataError(path, "weights by name, where two classes have one name", "expected weights by index")
    return weights_of([table[name] for name in names], path)


def weights_by_class(table: Mapping[Any, Any], class_names: Sequence[str] | None, where: str) -> list[float]:
    """Weights by class name or class index, in the order of the classes."""
    return weights_by_name([(str(key), value) for key, value in table.items()], class_names, where)
