"""The one loop: read blocks, make them ready, and let every tally count them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from unoic_cli import formats, kernels
from unoic_cli.calibrations.view import Look
from unoic_cli.calibrations.view import View as Looks
from unoic_cli.data.batch import Batch, CareError
from unoic_cli.data.dataset import DataSet, Span, span_bytes, split_at
from unoic_cli.data.folds import FoldPlan
from unoic_cli.data.reader import BatchReader
from unoic_cli.data.steps import Pass, View
from unoic_cli.machine import available_threads
from unoic_cli.runs import threads as engine
from unoic_cli.runs.ledger import Counted, Extent, Ledger, joined
from unoic_cli.runs.state import sensible
from unoic_cli.tallies.tally import Counters, Tally


@dataclass(frozen=True)
class Stream:
    """One stream over the data: all that whoever counts a part of it must know, in this process or another.

    Attributes
    ----------
    data : DataSet
    spans : tuple of Span
        All of them; a part is named by their indices.
    recipes : tuple of callable
        Make empty tallies.
    fields : frozenset of str
        Block fields that are wanted.
    view, folds, groups, files, images, whole_samples, careful, as_stored
        As in `BatchReader`.
    """

    data: DataSet
    spans: tuple[Span, ...]
    recipes: tuple[Callable[[], Tally], ...]
    fields: frozenset[str]
    view: View | None = None
    folds: FoldPlan | None = None
    groups: dict[str, int] | None = None
    files: dict[str, int] | None = None
    images: dict[str, int] | None = None
    whole_samples: bool = False
    careful: bool = False
    as_stored: bool = False

    def extents(self) -> list[Extent]:
        """Where each span lies among the units of all inputs."""
        return self.data.extents(self.spans)

    def weights(self) -> list[int]:
        """Bytes of each span that are read."""
        return [span_bytes(span, self.fields) for span in self.spans]

    def part(self, indices: Sequence[int]) -> Stream:
        """The same with some of the spans alone."""
        folds = self.folds
        if folds is not None and folds.offsets:
            folds = replace(folds, offsets=[folds.offsets[i] for i in indices])
        return replace(self, spans=tuple(self.spans[i] for i in indices), folds=folds)

    def tallies(self) -> list[Tally]:
        """Empty tallies."""
        return [make() for make in self.recipes]

    def worker(self, indices: Sequence[int]) -> StreamWorker:
        """What counts some of the spans in one thread."""
        reader = BatchReader(
            self.data, self.fields, view=self.view, folds=self.folds, groups=self.groups, files=self.files,
            images=self.images, whole_samples=self.whole_samples, careful=self.careful, as_stored=self.as_stored,
        )  # fmt: skip
        return StreamWorker(reader, self.spans, indices, self.tallies())

    def count(self, indices: Sequence[int], n_threads: int, watch: engine.Watch | None = None) -> list[Tally]:
        """Count some of the spans in threads of this process."""
        total = self.tallies()
        for worker in engine.run(len(indices), lambda: self.worker(indices), n_threads, watch):
            add_all(total, worker.tallies)
        return total


class StreamWorker:
    """One thread's part of a stream."""

    def __init__(
        self, reader: BatchReader, spans: Sequence[Span], indices: Sequence[int], tallies: list[Tally]
    ) -> None:
        self.reader, self.spans, self.indices, self.tallies = reader, spans, indices, tallies

    def run(self, index: int) -> None:
        """Count a span."""
        place = self.indices[index]
        self.reader.batches(place, self.spans[place], self._count)

    def _count(self, batch: Batch) -> None:
        for tally in self.tallies:
            tally.update(batch)

    def close(self) -> None:
        """Close the files."""
        self.reader.close()


def add_all(ours: Sequence[Tally], theirs: Sequence[Tally]) -> None:
    """Add tallies to those of the same kind."""
    for tally, other in zip(ours, theirs, strict=True):
        tally.add(other)


class _Watch(engine.Teller):
    """Shows how far a stream has come, and keeps the run's ledger up to date."""

    def __init__(
        self, stream: Stream, indices: Sequence[int], ledger: Ledger | None = None, entry: Counted | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:  # fmt: skip
        weights = stream.weights()
        super().__init__((weights[i] for i in indices), progress, ledger)
        self.stream, self.indices, self.entry = stream, indices, entry
        if entry is not None:
            self.done, self.counters = entry.done, entry.counters
            self.extents = stream.extents()

    def look(self, workers: Sequence[Any], done: Sequence[int]) -> None:
        """Put what was counted so far into the ledger, and store it."""
        if self.ledger is None or self.entry is None or not self.saves:
            return
        total = self.stream.tallies()
        absorb_all(total, self.counters)
        for worker in workers:
            add_all(total, worker.tallies)
        places = joined([*self.done, *(self.extents[self.indices[i]] for i in done)])
        self.entry.counted = places, [tally.counters() for tally in total]
        self.ledger.store()


def absorb_all(tallies: Sequence[Tally], counters: Sequence[Counters]) -> None:
    """Add to tallies what those of the same kind counted elsewhere, if there is anything."""
    for tally, one in zip(tallies, counters or [{}] * len(tallies), strict=True):
        if one:
            tally.absorb(one)


def _with_care(
    stream: Stream, indices: Sequence[int], threads: int, watch: Callable[[Stream, Sequence[int]], _Watch],
    elsewhere: Any = None,
) -> list[Tally]:  # fmt: skip
    """Count some of the spans, and once more from their beginning where scores were met that need care."""

    def count(one: Stream) -> list[Tally]:
        counter = one.count if elsewhere is None else partial(elsewhere.count, one)
        found: list[Tally] = counter(indices, threads, watch(one, indices))
        return found

    try:
        return count(stream)
    except CareError as error:
        stream.data.care.take(f"{error.where}: {error.found}" if error.is_news else None)
        return count(replace(stream, careful=True))


def count(
    step: Pass,
    *,
    ledger: Ledger | None = None,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> bool:
    """Answer a pass: give every tally all of the data, or take what the run's ledger knows of it.

    Returns
    -------
    bool
        Whether all is counted: a shard counts its part, and a repeated run may ask for a pass that was never made.
    """
    data = replace(step.data, shard=None) if step.shared else step.data
    fields: frozenset[str] = frozenset().union(*(tally.needs for tally in step.tallies))
    look = None if data.evidence is None else data.evidence.tally(data, fields)
    tallies = [*step.tallies, *([] if look is None else [look])]
    entry = None
    if ledger is not None:
        entry = ledger.open(data.n_units, step.shared)
        if entry is None:
            return False
        with sensible(ledger.name):
            absorb_all(tallies, entry.counters)
    if ledger is None or not ledger.replay:
        stream = _stream(step, data, tallies, fields, () if entry is None else entry.edges)
        _count(stream, tallies, ledger, entry, n_threads, progress)
    if entry is not None and ledger is not None and not (entry.complete or ledger.partial):
        return False
    if look is not None:
        assert data.evidence is not None
        data.evidence.take(data, look, fields)
    return True


def _stream(step: Pass, data: DataSet, tallies: Sequence[Any], fields: frozenset[str], edges: Sequence[int]) -> Stream:
    """A pass as those see it who count it; what is counted already lies between edges."""
    used = None if step.raw or step.as_stored else step.view or Looks((Look(),) * len(data.modalities))
    whole = step.whole_samples or (used is not None and used.needs_samples)
    spans = split_at(data, data.spans(whole_samples=whole) if step.spans is None else step.spans, edges)
    return Stream(
        replace(data, evidence=None),
        tuple(spans),
        tuple(tally.recipe() for tally in tallies),
        fields,
        used,
        None if step.folds is None else step.folds.plan(data, spans),
        step.groups,
        step.files,
        step.images,
        whole,
        data.care.on,
        step.as_stored,
    )


def _count(
    stream: Stream, tallies: Sequence[Any], ledger: Ledger | None, entry: Counted | None, n_threads: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:  # fmt: skip
    """Count what is not counted yet."""
    threads = n_threads or available_threads()
    kernels.expect(stream.data.n_scores)
    todo = [i for i, extent in enumerate(stream.extents()) if entry is None or not entry.covers(extent)]
    if todo:
        watch = partial(_Watch, ledger=ledger, entry=entry, progress=progress)
        elsewhere = None if ledger is None or (entry is not None and entry.shared) else ledger.engine
        add_all(tallies, _with_care(stream, todo, threads, watch, elsewhere))
        formats.check_unchanged(stream.data.all_sources)
    if entry is not None:
        data = stream.data
        own = (0, entry.size) if data.shard is None else data.shard_units(*data.shard)
        entry.counted = joined([*entry.done, own]), [tally.counters() for tally in tallies]
