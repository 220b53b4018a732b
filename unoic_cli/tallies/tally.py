"""Counters: what was counted, as integers under names. Adding them is exact, in any order and anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

import numpy as np

from unoic_cli.data.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable

Counters: TypeAlias = "dict[str, Any]"
"""Integers of any size, lists of them, int64 arrays, and tables of these."""

T = TypeVar("T", bound="Tally")


def added(ours: Any, theirs: Any) -> Any:
    """The sum of two counters: of integers, of lists and arrays place by place, of tables name by name.

    Examples
    --------
    >>> added({"n": 1, "sums": [1, 2]}, {"n": 2, "sums": [3, 4], "more": 5})
    {'n': 3, 'sums': [4, 6], 'more': 5}
    """
    if isinstance(ours, dict):
        joined = dict(ours)
        for name, value in theirs.items():
            joined[name] = added(joined[name], value) if name in joined else value
        return joined
    if isinstance(ours, list):
        return [a + b for a, b in zip(ours, theirs, strict=True)]
    if isinstance(ours, np.ndarray) and ours.shape != theirs.shape:
        raise ValueError(f"counters of shapes {ours.shape} and {theirs.shape}")
    return ours + theirs


def same(ours: Any, theirs: Any) -> bool:
    """Whether two counters are equal."""
    if isinstance(ours, dict):
        return ours.keys() == theirs.keys() and all(same(ours[name], theirs[name]) for name in ours)
    return bool(np.array_equal(ours, theirs)) if isinstance(ours, np.ndarray) else bool(ours == theirs)


class Tally:
    """What is counted while the data streams by.

    A subclass says in `COUNTED` which of its attributes are counters; they start at zero.
    """

    needs: frozenset[str]
    """Fields of the blocks that it looks at."""
    COUNTED: ClassVar[tuple[str, ...]] = ()

    def recipe(self: T) -> Callable[[], T]:
        """What makes an empty tally like this one; small, and fit to be sent to another process."""
        raise NotImplementedError

    def fresh(self: T) -> T:
        """An empty tally like this one."""
        return self.recipe()()

    def update(self, batch: Batch) -> None:
        """Count a batch."""
        raise NotImplementedError

    def counters(self) -> Counters:
        """What was counted so far."""
        return {name: value for name in self.COUNTED if (value := getattr(self, name)) is not None}

    def absorb(self, counters: Mapping[str, Any]) -> None:
        """Add what a tally like this one counted elsewhere."""
        for name, value in counters.items():
            if name not in self.COUNTED:
                raise KeyError(name)
            setattr(self, name, added(getattr(self, name), value))

    def add(self: T, other: T) -> None:
        """Take over what another thread counted."""
        self.absorb(other.counters())
