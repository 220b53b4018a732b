"""Kernels by their names: each is its plain numpy twin until that has had enough to do, and is compiled then.

Compiling takes seconds, and loading what was compiled before takes half a second (numba itself, for the most part).
So each kernel is plain for the first `PLAIN_SCORES` of a process, if the data is not known to have more (`expect`),
and for all where numba is missing or fails. Both give the same counts and bits, and a run may go on with the other at
any call. ``UNOIC_KERNELS`` is ``plain`` or ``compiled`` to have that alone.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from unoic_cli import compiling
from unoic_cli.kernels import plain
from unoic_cli.kernels.constants import LANES

PLAIN_SCORES = 1_000_000
"""Scores (times lambdas or temperatures, where each takes a visit) that a plain twin is given before it is replaced."""

PLAIN, COMPILED = "plain", "compiled"


def forced() -> str | None:
    """What ``UNOIC_KERNELS`` asks for; without the JIT, kernels as they are written."""
    asked = os.environ.get("UNOIC_KERNELS")
    if asked in (PLAIN, COMPILED):
        return asked
    return COMPILED if os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0") else None


class Kernel:
    """A kernel, whose form is chosen at every call.

    Parameters
    ----------
    place : str
        Module of `unoic_cli.kernels` and function in it; its twin in `unoic_cli.kernels.plain` has the same name.
    work : callable
        How many scores a call looks at, given its arguments.
    """

    fails = False
    """Whether numba is missing or failed: all kernels are plain then."""
    many = False
    """Whether the data has so many scores that kernels which look at all of them are compiled at once."""
    listener: Callable[[str, tuple[Any, ...]], None] | None = None
    """Who hears of calls, see `overheard`."""

    def __init__(self, place: str, work: Callable[..., int]) -> None:
        self.module, _, self.name = place.partition(".")
        self.work = work
        self.done = 0
        self.plain: Callable[..., Any] = getattr(plain, self.name)

    def compiled(self) -> Callable[..., Any]:
        """The compiled form; imports numba."""
        function: Callable[..., Any] = getattr(importlib.import_module(f"{__name__}.{self.module}"), self.name)
        return function

    def is_plain(self, *given: Any) -> bool:
        """Whether a call with these arguments is left to numpy."""
        asked = forced()
        if asked is not None or Kernel.fails:
            return asked == PLAIN or Kernel.fails
        if self.done < PLAIN_SCORES:
            self.done += PLAIN_SCORES if Kernel.many and self.work not in _SOME else self.work(*given)
        return self.done < PLAIN_SCORES

    def __call__(self, *given: Any) -> Any:
        """Call the form that is chosen."""
        if Kernel.listener is not None:
            Kernel.listener(self.name, given)
            return self.plain(*given)
        if self.is_plain(*given):
            return self.plain(*given)
        try:
            return self.compiled()(*given)
        except MemoryError:
            raise
        except Exception as error:  # before anything was counted: kernels raise nothing of their own
            if forced() is not None:
                raise
            Kernel.fails = True
            compiling.failed(error)
            return self.plain(*given)


@contextlib.contextmanager
def overheard(listener: Callable[[str, tuple[Any, ...]], None]) -> Iterator[None]:
    """Let somebody hear the name and the arguments of every call; all kernels are plain meanwhile.

    Examples
    --------
    >>> import numpy as np
    >>> said = []
    >>> with overheard(lambda name, given: said.append((name, given[2]))):
    ...     split(np.arange(8, dtype=np.uint8), 2, np.empty(8, np.uint8))
    >>> said
    [('split', array([0, 2, 4, 6, 1, 3, 5, 7], dtype=uint8))]
    """
    Kernel.listener = listener
    try:
        yield
    finally:
        Kernel.listener = None


def _scores(raw: Any, *_: Any) -> int:
    return int(raw.size)


def _looked_at(raw: Any, brain: Any, pixels: Any, units: Any, places: Any, labels: Any, n_classes: int, *_: Any) -> int:
    return int(units.size) * n_classes


def _at_places(*given: Any) -> int:
    return int(given[0].size * given[7].size // 3)


def _in_bins(*given: Any) -> int:
    return int(given[0].size * given[9].size)


def _octets(data: Any, *_: Any) -> int:
    return int(data.size) // 8


def _filled(*given: Any) -> int:
    return int(given[8] * given[6].n_classes)


def _fused(experts: Any, n_groups: int, lams: Any, *_: Any) -> int:
    return int(n_groups * LANES * experts.n_experts * experts.n_classes * lams.size)


def _written(experts: Any, n_groups: int, *_: Any) -> int:
    return int(n_groups * LANES * experts.n_experts * experts.n_classes)


def _counted(winners: Any, n_groups: int, n: int, n_points: int, *_: Any) -> int:
    return n * n_points


_SOME = (_looked_at, _octets)
"""Work on a sample of the units, or on bytes: the size of the data says nothing of it."""


def expect(n_scores: int) -> None:
    """Say how many scores a pass looks at, before it does."""
    Kernel.many = n_scores >= PLAIN_SCORES


count_path_columns = Kernel("path.count_path_columns", _scores)
count_path_wide = Kernel("path.count_path_wide", _scores)
count_top_k = Kernel("rank.count_top_k", _scores)
predict_columns = Kernel("points.predict_columns", _scores)
predict_wide = Kernel("points.predict_wide", _scores)
count_point_columns = Kernel("points.count_point_columns", _scores)
count_predictions = Kernel("points.count_predictions", _scores)
count_confusion = Kernel("points.count_confusion", _scores)
sum_posterior = Kernel("posterior.sum_posterior", _scores)
sum_likelihood = Kernel("likelihood.sum_likelihood", _at_places)
sum_confidence = Kernel("likelihood.sum_confidence", _in_bins)
entropy_of_units = Kernel("entropy.entropy_of_units", _scores)
look_at_rows = Kernel("evidence.look_at_rows", _looked_at)
join_2 = Kernel("octet_loops.join_2", _octets)
join_4 = Kernel("octet_loops.join_4", _octets)
join_8 = Kernel("octet_loops.join_8", _octets)
split = Kernel("octet_loops.split", _octets)
add_words = Kernel("octet_loops.add_words", _octets)
fill_rows64 = Kernel("fusion.fill_rows64", _filled)
fill_planes64 = Kernel("fusion.fill_planes64", _filled)
fused_winners = Kernel("fusion.fused_winners", _fused)
count_winners = Kernel("fusion.count_winners", _counted)
write_fused = Kernel("fusion.write_fused", _written)
add_scaled = Kernel("fusion.add_scaled", _scores)

NAMES = tuple(name for name, kernel in globals().items() if isinstance(kernel, Kernel))
"""All kernels."""
