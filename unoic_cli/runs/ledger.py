"""A run's ledger: what it has found out about its inputs, and what each read of the data has counted so far.

Every command is a function of two things: *facts* (what files are like, what small files say) and *passes* (the
counters of each stream over the data, in order). A ledger holds both. So a run can be interrupted and go on from its
ledger, be cut into shards whose ledgers are joined, and be repeated from a complete one without any data.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from unoic_cli.data.facts import Fact
from unoic_cli.errors import DataError
from unoic_cli.storage.output import stamp_of
from unoic_cli.urls import scrub, scrub_all

if TYPE_CHECKING:
    from unoic_cli.tallies.tally import Counters

T = TypeVar("T")
Extent = tuple[int, int]
"""Units [start, stop) of all inputs, one behind the other."""


def joined(extents: Sequence[Extent]) -> list[Extent]:
    """Extents in order, those that touch made one.

    Examples
    --------
    >>> joined([(5, 7), (0, 2), (2, 5), (9, 9)])
    [(0, 7)]
    """
    found: list[Extent] = []
    for start, stop in sorted(extents):
        if start >= stop:
            continue
        if found and start <= found[-1][1]:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((start, stop))
    return found


def gaps(extents: Sequence[Extent], size: int) -> list[Extent]:
    """What of [0, size) is not covered.

    Examples
    --------
    >>> gaps([(0, 2), (5, 7)], 9)
    [(2, 5), (7, 9)]
    """
    edges = [0, *(edge for extent in joined(extents) for edge in extent), size]
    return [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b]


@dataclass
class Counted:
    """One pass over the data, as far as it has come.

    Attributes
    ----------
    size : int
        Units of all inputs.
    shared : bool
        Every shard counts all of it (a look at the labels before the scores are read).
    counted : (list of Extent, list of Counters)
        What is counted, and what came of it for each tally: one assignment, so that no signal finds one without the
        other.
    """

    size: int
    shared: bool
    counted: tuple[list[Extent], list[Counters]] = ((), ())  # type: ignore[assignment]  # nothing, of either kind

    @property
    def done(self) -> list[Extent]:
        """What is counted."""
        return list(self.counted[0])

    @property
    def counters(self) -> list[Counters]:
        """What came of it, for each tally."""
        return list(self.counted[1])

    @property
    def complete(self) -> bool:
        """Whether all units are counted."""
        return not gaps(self.done, self.size)

    @property
    def edges(self) -> list[int]:
        """Where what is counted begins and ends."""
        return [edge for extent in self.counted[0] for edge in extent]

    def covers(self, extent: Extent) -> bool:
        """Whether these units are counted."""
        return any(start <= extent[0] and extent[1] <= stop for start, stop in self.counted[0])


@dataclass
class Ledger:
    """Facts and passes of one run.

    Attributes
    ----------
    name : str
        Where it is stored, for messages.
    command : str
        Whose run it is.
    arguments : dict
        What it was asked for, as far as that changes a result.
    facts : dict
        By name; JSON values.
    passes : list of Counted
        In the order in which the command makes them.
    shard : tuple of int or None
        (i, n): this run counts the i-th of n parts, from 1.
    replay : bool
        Repeat the run from facts and passes alone.
    partial : bool
        In a repetition, take passes with gaps as they are.
    save : callable or None
        Stores the ledger; called between spans, every `every` seconds, and when the run is interrupted.
    every : float
        Seconds.
    engine : object or None
        Counts the passes, instead of the threads of this process.
    before : dict
        Facts of the run that this one goes on from.
    outputs : dict of str to list of list of int
        Outputs that are complete, by their final (absolute) names: the stamps of files that may have these names.
    """

    name: str = "state"
    command: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    passes: list[Counted] = field(default_factory=list)
    shard: tuple[int, int] | None = None
    replay: bool = False
    partial: bool = False
    save: Callable[[], None] | None = None
    every: float = 60.0
    engine: Any = None
    before: dict[str, Any] = field(default_factory=dict)
    outputs: dict[str, list[list[int]]] = field(default_factory=dict)
    _next: int = 0
    _saved: float = field(default_factory=time.monotonic)

    def restart(self) -> None:
        """Begin the run: facts of the ledger are what the inputs must still be like."""
        self.before, self._next = self.facts, 0
        if not self.replay:
            self.facts = {}

    def know(self, fact: Fact[T]) -> T:
        """What a fact is: found out, or in a repetition as it was.

        Raises
        ------
        DataError
            It has changed since the ledger was stored.
        """
        name = scrub(fact.name)
        if self.replay:
            if name not in self.facts:
                raise DataError(self.name, f"nothing known of {name}", "expected a state of this very command")
            return fact.read(self.facts[name])
        value = fact.find()
        stored = scrub_all(json.loads(json.dumps(fact.write(value))))
        if name in self.before and self.before[name] != stored:
            kind, _, of = name.partition(" ")
            raise DataError(of, "changed since the state was stored", f"expected the {kind} as it was")
        self.facts[name] = stored
        return value

    def open(self, size: int, shared: bool) -> Counted | None:
        """The next pass, with what is counted of it; None where a repeated run asks for one that was not made."""
        self._next += 1
        if self._next > len(self.passes):
            if self.replay:
                return None
            self.passes.append(Counted(size, shared))
        entry = self.passes[self._next - 1]
        if (entry.size, entry.shared) != (size, shared):
            raise DataError(self.name, f"a pass over {entry.size:,} units", f"expected one over {size:,}")
        if self.replay and not (entry.complete or self.partial):
            raise DataError(self.name, f"{missing(entry)} missing", "expected every shard (or --partial)")
        return entry

    def tick(self) -> bool:
        """Whether it is time to be stored."""
        return self.save is not None and time.monotonic() - self._saved >= self.every

    def wrote(self, path: str) -> bool:
        """Whether what has this name is an output that the run had finished before it was killed."""
        stamp = stamp_of(path)
        return stamp is not None and list(stamp) in self.outputs.get(os.path.abspath(path), [])

    def store(self) -> None:
        """Be stored now."""
        if self.save is not None:
            self.save()
            self._saved = time.monotonic()


def missing(entry: Counted) -> str:
    """The gaps of a pass in words."""
    found = gaps(entry.done, entry.size)
    listed = ", ".join(f"{a:,} to {b - 1:,}" for a, b in found[:8]) + (", ..." if len(found) > 8 else "")
    n = sum(b - a for a, b in found)
    return f"{n:,} of {entry.size:,} rows ({listed})"
