"""Offsets: a bias b_k for each class, so that scores are delta / T * z + b + lambda * s."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from unoic_cli.calibrations.lattice import LARGEST
from unoic_cli.calibrations.prior import read_weights
from unoic_cli.data.facts import Facts
from unoic_cli.errors import DataError, NoInputError, UsageError
from unoic_cli.weights import weights_by_class

Offsets: TypeAlias = tuple[float, ...]
EXPECTED = "expected one number for each class, by name or in order, or a JSON, CSV or TSV file of them"


def check_offsets(values: Sequence[float], n_classes: int, where: str) -> Offsets:
    """Refuse offsets of another number of classes, and those beside which no score counts.

    Examples
    --------
    >>> check_offsets([0, 1], 2, "--offsets")
    (0.0, 1.0)
    """
    if len(values) != n_classes:
        raise DataError(where, f"{len(values)} offsets", f"expected {n_classes}, one for each class")
    for k, value in enumerate(values):
        if not abs(value) <= LARGEST:
            expected = f"expected finite numbers between -{LARGEST} and {LARGEST}"
            raise DataError(where, f"{value:g} for class {k}", expected)
    return tuple(map(float, values))


def read_offsets(given: Any, n_classes: int, class_names: Sequence[str] | None, option: str) -> Facts[Offsets]:
    """Offsets as they are given: numbers in the order of the classes, by class name or index, or in a file.

    Raises
    ------
    UsageError, DataError, NoInputError
        Something else, or a file that cannot be read.
    """
    where = option
    if isinstance(given, str) and (listed := _numbers(given.split(","))) is not None and len(listed) > 1:
        values: Sequence[float] = listed
    elif isinstance(given, str):
        where = given
        try:
            values, _ = yield from read_weights(given, class_names)
        except NoInputError as error:
            raise NoInputError(error.where, error.found, EXPECTED) from None
        except DataError as error:
            raise DataError(error.where, error.found.replace("weights", "offsets"), EXPECTED) from None
    elif isinstance(given, Mapping):
        values = weights_by_class(given, class_names, option)
    else:
        found = _numbers(given) if isinstance(given, (list, tuple)) else None
        if found is None:
            raise UsageError(option, f"{given!r}"[:60], EXPECTED)
        values = found
    return check_offsets(values, n_classes, where)


def _numbers(parts: Sequence[Any]) -> list[float] | None:
    """All of them as numbers, or None."""
    try:
        return [float(part) for part in parts]
    except (TypeError, ValueError, OverflowError):
        return None
