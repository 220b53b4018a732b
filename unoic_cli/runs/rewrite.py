"""The one loop that writes: read, make what is written of each batch, and store it, all or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unoic_cli import formats, kernels
from unoic_cli.data.batch import Batch, stored_field
from unoic_cli.data.dataset import DataSet, Span, span_bytes, split_at, split_units
from unoic_cli.data.reader import BatchReader
from unoic_cli.data.steps import Rewrite, Rewritten
from unoic_cli.errors import UsageError
from unoic_cli.formats.block import LogitBlock, OutputSpec, ResumableWriter, Writer
from unoic_cli.machine import available_threads
from unoic_cli.runs import threads as engine
from unoic_cli.runs.ledger import Counted, Extent, Ledger, joined
from unoic_cli.runs.sweep import absorb_all, add_all
from unoic_cli.runs.turnstile import Turnstile
from unoic_cli.storage.output import place_of, remove, temporary_start
from unoic_cli.tallies.evidence import EvidenceTally
from unoic_cli.tallies.tally import Counters, Tally

_LOOKED_AT = frozenset({"scores", "labels"})
_TEXTS = frozenset({"group", "sample_id", "split"})
_HELD_BYTES = 24 << 20
"""Encoded chunks that a thread holds until it is its turn to store them."""


@dataclass
class _Job:
    """What is written, and where: units of the chosen spans, one behind the other."""

    step: Rewrite
    spans: list[Span]
    extents: list[Extent]
    starts: list[int]
    spec: OutputSpec
    writer: Writer
    turnstile: Turnstile | None


class _Worker:
    """One thread: reads, makes, writes, and counts meanwhile."""

    def __init__(self, job: _Job, todo: Sequence[int]) -> None:
        self.job, self.todo = job, todo
        data, maker = job.step.data, job.step.maker
        self.reader = BatchReader(
            data, maker.fields, view=maker.view, whole_samples=maker.view.needs_samples, careful=True,
            as_stored=maker.as_stored, pieces=maker.pieces,
        )  # fmt: skip
        self.encode = getattr(job.writer, "prepare", None)
        self.tallies = _tallies(job.step)
        self.look = self.tallies[-1] if isinstance(self.tallies[-1], EvidenceTally) else None
        self.make = maker.worker(job.spec, [tally for tally in self.tallies if tally is not self.look])
        self.at = 0

    def run(self, index: int) -> None:
        job, index = self.job, self.todo[index]
        self.at = job.starts[index]
        try:
            self.reader.batches(index, job.spans[index], lambda batch: self._batch(index, batch))
            if job.turnstile is not None and job.turnstile.wait(index):
                job.turnstile.advance()
        except BaseException:
            if job.turnstile is not None:
                job.turnstile.close()
            raise

    def _batch(self, index: int, batch: Batch) -> None:
        """Write what is made of a batch; encoded chunks wait for their turn, so that they lie in the file in order."""
        held: list[LogitBlock] = []
        size = 0
        for block in self.make(batch, self.at):
            held.append(block if self.encode is None else self.encode(block))
            size += sum(len(data) for _, _, data in held[-1].cache.get("chunks", ()))
            if self.encode is None or size > _HELD_BYTES:
                self._store(index, held)
                held, size = [], 0
        self._store(index, held)
        if self.look is not None:
            self.look.update(batch)
        self.at += batch.n_units

    def _store(self, index: int, blocks: Sequence[LogitBlock]) -> None:
        for block in blocks:
            if self.job.turnstile is None or self.job.turnstile.wait(index):
                self.job.writer.write(block)

    def close(self) -> None:
        self.reader.close()


def _tallies(step: Rewrite) -> list[Tally]:
    """Those of the maker; the last one looks at what is not known of the data yet."""
    evidence = step.data.evidence
    look = None if evidence is None else evidence.tally(step.data, _LOOKED_AT)
    return [*step.maker.tallies(), *([] if look is None else [look])]


def _sum(step: Rewrite, kept: _Kept, workers: Sequence[_Worker]) -> list[Tally]:
    """What this run and those before it counted."""
    total = _tallies(step)
    absorb_all(total, kept.counters)
    for worker in workers:
        add_all(total, worker.tallies)
    return total


class _Watch(engine.Teller):
    """Shows how far the writing has come, and keeps the run's ledger up to date."""

    def __init__(
        self, job: _Job, todo: Sequence[int], kept: _Kept, progress: Callable[[int, int], None] | None
    ) -> None:
        super().__init__((span_bytes(job.spans[i], _LOOKED_AT) for i in todo), progress, kept.ledger)
        self.job, self.todo, self.kept = job, todo, kept

    def look(self, workers: Sequence[Any], done: Sequence[int]) -> None:
        """Put what is written so far on the disk, and say so in the ledger."""
        assert isinstance(self.job.writer, ResumableWriter)
        self.job.writer.flush()
        written = (self.job.extents[self.todo[i]] for i in done)
        self.kept.put(_sum(self.job.step, self.kept, workers), written)
        self.kept.store()


class _Kept:
    """What of the writing was done before this run, as the run's ledger knows it."""

    def __init__(self, ledger: Ledger | None, data: DataSet, output: str) -> None:
        self.ledger, self.output = ledger, output
        self.key = f"unfinished {output}"
        self.entry: Counted | None = None
        self.unfinished: str | None = None
        self.finished = False
        self.counters: list[Counters] = []
        self.done: list[Extent] = []
        if ledger is None:
            return
        self.entry = ledger.open(data.n_units, False)
        assert self.entry is not None
        name = ledger.before.get(self.key)
        usable = name is not None and os.path.exists(name) and _is_unfinished(name, output)
        own = (0, data.n_units) if data.shard is None else data.shard_units(*data.shard)
        self.finished = ledger.wrote(output) and self.entry.covers(own)
        if self.finished or usable:
            self.unfinished = name if usable else None
            self.counters, self.done = self.entry.counters, self.entry.done
        else:  # begun anew
            self.entry.counted = [], []

    @property
    def edges(self) -> list[int]:
        """Where what was written begins and ends."""
        return [] if self.entry is None else self.entry.edges

    def __contains__(self, extent: Extent) -> bool:
        """Whether units were written before."""
        return self.entry is not None and self.entry.covers(extent)

    def begin(self, writer: Writer) -> None:
        """Note the unfinished output."""
        if self.ledger is not None and self.ledger.save is not None:
            if writer.ordered or not isinstance(writer, ResumableWriter):
                expected = "expected contiguous HDF5, whose parts can be written in any order (or --shard)"
                raise UsageError("--checkpoint", f"a checkpoint of {_ordered(self.output)}", expected)
            self.ledger.facts[self.key] = self.ledger.before[self.key] = writer.temporary
            self.ledger.store()

    def put(self, tallies: Sequence[Tally], done: Iterable[Extent]) -> None:
        """Note what was written and counted."""
        if self.entry is not None:
            places = joined([*self.done, *done])
            self.entry.counted = places, [tally.counters() for tally in tallies]

    def store(self) -> None:
        """Save what was noted."""
        assert self.ledger is not None
        self.ledger.store()


def _ordered(output: str) -> str:
    """What an output is that is written in order."""
    if output == formats.STANDARD:
        return "a stream"
    kind = formats.writable(output)
    return "chunks" if kind.NAME == "hdf5" else kind.TITLE.replace(" file", " output")


def _is_unfinished(name: str, output: str) -> bool:
    """Whether a name is one that unfinished outputs get: a checkpoint names no other file to go on with."""
    folder, file = os.path.split(os.path.abspath(name))
    own = os.path.dirname(os.path.abspath(output))
    return folder == own and file.startswith(temporary_start(output)) and file.endswith(".tmp")


def rewrite(
    step: Rewrite,
    *,
    ledger: Ledger | None = None,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Rewritten:
    """Answer a rewrite: stream the data through its maker into the output; all or nothing."""
    data = step.data
    path = step.path if isinstance(step.path, str) else ""
    kept = _Kept(ledger if path else None, data, path)  # what is in memory outlives no process
    spans = split_at(data, step.maker.spans(data), kept.edges)
    *starts, n_units = split_units(data, spans)
    if not n_units:
        raise UsageError("--shard", f"no rows in part {data.shard and data.shard[0]}", "expected fewer parts")
    if kept.finished:
        if kept.unfinished is not None:
            remove(kept.unfinished)  # its other name
        return _rewritten(step, _sum(step, kept, ()), n_units)
    spec = step.maker.spec(n_units // spans[0].source.pixels)
    writer = step.maker.create(step.path, spec, kept.unfinished)
    extents = data.extents(spans)
    job = _Job(step, spans, extents, starts, spec, writer, Turnstile() if writer.ordered else None)
    written = [i for i, extent in enumerate(extents) if extent in kept]
    todo = [i for i, extent in enumerate(extents) if extent not in kept]
    watch = _Watch(job, todo, kept, progress)
    kernels.expect(data.n_scores)
    try:
        kept.begin(writer)
        _write_texts(job, written)
        workers = engine.run(len(todo), lambda: _Worker(job, todo), n_threads or available_threads(), watch)
        formats.check_unchanged(data.all_sources)
        kept.put(_sum(step, kept, workers), (extents[i] for i in todo))
        writer.commit()
    except BaseException as error:
        if job.turnstile is not None:
            job.turnstile.close()
        if not (watch.saves and isinstance(error, KeyboardInterrupt)):
            writer.abort()
        raise
    return _rewritten(step, _sum(step, kept, workers), n_units)


def _rewritten(step: Rewrite, tallies: Sequence[Tally], n_units: int) -> Rewritten:
    for look in tallies:
        if isinstance(look, EvidenceTally) and step.data.evidence is not None:
            step.data.evidence.take(step.data, look, _LOOKED_AT)
    kept = [tally for tally in tallies if not isinstance(tally, EvidenceTally)]
    return Rewritten(kept, n_units, place_of(step.path) if isinstance(step.path, str) else step.path)


def _write_texts(job: _Job, indices: Sequence[int]) -> None:
    """Give a writer that goes on with an unfinished file what it does not find in there: the fields of text."""
    data, fields = job.step.data, _TEXTS & frozenset(job.spec.dtypes)
    wanted = fields | {"labels"} if data.has("labels") else fields
    reader = BatchReader(data.alone(), wanted, as_stored=job.step.maker.as_stored)
    try:
        for index in indices:
            at = job.starts[index]

            def write(batch: Batch) -> None:
                nonlocal at
                block, stop = batch.part.block, at + batch.n_units
                ids = stored_field(block.sample_id, job.spec.dtypes.get("sample_id"))
                job.writer.write(LogitBlock(at, stop, split=block.split, group=block.group, sample_id=ids))
                at = stop

            reader.batches(index, replace(job.spans[index], beside=()), write)
    finally:
        reader.close()
