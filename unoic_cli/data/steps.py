"""What a command may ask for: it is a generator of these, and returns its result.

A command reads nothing, counts nothing and writes nothing itself. It yields steps, and a driver answers them: from the
files, from threads, from a cluster, from a checkpoint, or from the states of shards (`unoic_cli.runs.driver`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, cast

from unoic_cli.data.batch import Batch
from unoic_cli.data.dataset import DataSet, Span
from unoic_cli.data.facts import Fact
from unoic_cli.data.folds import Folding
from unoic_cli.formats.arrays import Memory
from unoic_cli.formats.block import Layout, LogitBlock, OutputSpec

T = TypeVar("T")
Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True)
class Pass:
    """One read of the data: every tally is given every batch, and holds the sums when the pass is answered.

    Attributes
    ----------
    data : DataSet
    tallies : sequence of Tally
        Filled in place. Any number of threads and any spans give the same counts.
    view : View or None
        How scores are made of what is stored; by default, each modality as it is.
    raw : bool
        Make no scores: the tallies do that themselves (see `unoic_cli.tallies.viewed`).
    whole_samples : bool
        Batches hold whole samples as far as spans do; a view that needs them has them anyway.
    spans : sequence of Span or None
        What a worker reads at once; ``data.spans()`` by default.
    folds : Folding or None
        Tables of the units are their folds.
    groups, files, images : dict of str to int or None
        Tables by the files' ``group``, by the name of the file, or one for each image of a file, of which this is the
        first, instead.
    as_stored : bool
        Nothing is checked, and no scores are made: see `unoic_cli.data.batch.stored_batch`.
    shared : bool
        Every shard of a run counts all of it: it is cheap, and the rest depends on it.
    """

    data: DataSet
    tallies: Sequence[Any]
    view: View | None = None
    raw: bool = False
    whole_samples: bool = False
    spans: Sequence[Span] | None = None
    folds: Folding | None = None
    groups: dict[str, int] | None = None
    files: dict[str, int] | None = None
    images: dict[str, int] | None = None
    as_stored: bool = False
    shared: bool = False


class View(Protocol):
    """How scores are made of what is stored."""

    @property
    def needs_samples(self) -> bool:
        """Whether whole samples must be seen at once."""
        ...

    def apply(self, batch: Batch) -> Batch:
        """The batch with its scores made."""
        ...


class Maker(Protocol):
    """What is written of every batch, and what is counted meanwhile."""

    @property
    def view(self) -> View:
        """How scores are made of what is stored."""
        ...

    @property
    def fields(self) -> frozenset[str]:
        """Block fields that are read, where there are any."""
        ...

    @property
    def as_stored(self) -> bool:
        """Whether batches come as they are stored, unchecked, and without scores made of them."""
        ...

    @property
    def pieces(self) -> Layout | None:
        """As stored, in whole pieces of an output of this layout."""
        ...

    def spans(self, data: DataSet) -> list[Span]:
        """What a worker reads, and writes, at once."""
        ...

    def create(self, path: Any, spec: OutputSpec, unfinished: str | None) -> Any:
        """Start the output, or go on with an unfinished one."""
        ...

    def spec(self, n_samples: int) -> OutputSpec:
        """The form of the output."""
        ...

    def tallies(self) -> list[Any]:
        """Empty tallies, which `worker` fills."""
        ...

    def worker(self, spec: OutputSpec, tallies: Sequence[Any]) -> Callable[[Batch, int], Iterable[LogitBlock]]:
        """What makes blocks in one thread: of a batch, whose first unit has a place in the output."""
        ...


@dataclass(frozen=True)
class Rewrite:
    """One read of the data that writes a file as large, and is answered by a `Rewritten`.

    Attributes
    ----------
    data : DataSet
    path : str or Memory
        The suffix of a file names the format; ``-`` is a stream on standard output.
    maker : Maker
    """

    data: DataSet
    path: str | Memory
    maker: Maker


class Rewritten(NamedTuple):
    """What came of a rewrite.

    Attributes
    ----------
    tallies : list of Tally
        Those of the maker, filled.
    n_units : int
        Units written.
    place : str or Memory
        Where the output is, as long as it waits for its name.
    """

    tallies: list[Any]
    n_units: int
    place: Any


@dataclass(frozen=True)
class Text:
    """A small output: complete, or not there; in its place when the command has ended, with all others."""

    path: str
    text: str


@dataclass(frozen=True)
class Bytes:
    """As `Text`, of what is no text."""

    path: str
    content: bytes


@dataclass(frozen=True)
class Here:
    """A question about the run itself, answered by a `Situation`."""


@dataclass(frozen=True)
class StateOf:
    """A question about a state file, answered by what it says of its run: command, arguments, rows."""

    path: str


@dataclass(frozen=True)
class Situation:
    """What a run is like.

    Attributes
    ----------
    shard : tuple of int or None
        (i, n): it is the i-th of n parts, from 1.
    lacking : tuple of str
        Of a report of an incomplete state: which rows of each pass are missing.
    wrote : callable
        Whether what has a name is an output that the run had finished before it was killed.
    begun : dict of str to str
        Outputs that the run had begun before it was stopped, and their unfinished files.
    stored : bool
        It is kept, and compared with others: what is measured of this machine has no place in it.
    """

    shard: tuple[int, int] | None = None
    lacking: tuple[str, ...] = ()
    wrote: Callable[[str], bool] = field(default=lambda path: False)
    begun: dict[str, str] = field(default_factory=dict)
    stored: bool = False


Step: TypeAlias = Fact[Any] | Pass | tuple[Pass, ...] | Rewrite | Text | Bytes | Here | StateOf
Steps: TypeAlias = Generator[Step, Any, T]
"""Asks for steps, and returns a T."""


def count(data: DataSet, tallies: Sequence[Any], **how: Any) -> Steps[None]:
    """Ask for a pass; see `Pass`."""
    yield Pass(data, tallies, **how)


def count_each(passes: Sequence[Pass]) -> Steps[None]:
    """Ask for passes of which none depends on another: a shard counts its part of each."""
    yield tuple(passes)


def rewrite(data: DataSet, path: str | Memory, maker: Maker) -> Steps[Rewritten]:
    """Ask for a rewrite; see `Rewrite`."""
    return cast(Rewritten, (yield Rewrite(data, path, maker)))


def here() -> Steps[Situation]:
    """Ask what the run is like."""
    return cast(Situation, (yield Here()))


def state_of(path: str) -> Steps[dict[str, Any]]:
    """Ask what a state file says of its run."""
    return cast("dict[str, Any]", (yield StateOf(path)))


def write_text(path: str, text: str) -> Steps[None]:
    """Ask for a small output."""
    yield Text(path, text)


def write_bytes(path: str, content: bytes) -> Steps[None]:
    """Ask for a small output that is no text."""
    yield Bytes(path, content)


def write_json(path: str, content: Any) -> Steps[None]:
    """Ask for a small output of JSON."""
    yield Text(path, json.dumps(content, indent=1) + "\n")
