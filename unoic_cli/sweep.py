"""The one loop: read blocks, make them ready, and let every tally count them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from unoic_cli import formats
from unoic_cli.batch import Batch, InvalidScoreError, Part, check_labels, choose_split, make_scores, where_is
from unoic_cli.block import Reader, Source
from unoic_cli.dataset import DataSet, Span
from unoic_cli.engines import threads as engine
from unoic_cli.errors import DataError
from unoic_cli.folds import FoldAssigner, FoldPlan

T = TypeVar("T", bound="Tally")


class Tally(Protocol):
    """What is counted while the data streams by; see `unoic_cli.tallies`."""

    needs: frozenset[str]

    def fresh(self: T) -> T:
        """An empty tally like this one."""
        ...

    def update(self, batch: Batch) -> None:
        """Count a batch."""
        ...

    def add(self, other: Any) -> None:
        """Take over what another thread counted."""
        ...


class BatchReader:
    """One thread's way to the data: opens each source once and turns its blocks into batches.

    Parameters
    ----------
    data : DataSet
    fields : frozenset of str
        Block fields that are wanted (``scores`` among them); those a file lacks are left out.
    temperature : float
        Scores are divided by it.
    folds : FoldPlan or None
        Tables of the batches.
    groups : dict of str to int or None
        Tables by the file's ``group``, instead.
    """

    def __init__(
        self,
        data: DataSet,
        fields: frozenset[str],
        *,
        temperature: float = 1.0,
        folds: FoldPlan | None = None,
        groups: dict[str, int] | None = None,
    ) -> None:
        self.data = data
        self.fields = fields | ({"split"} if data.split is not None else set())
        if "scores" in fields:
            self.fields |= {"delta"}
        if groups is not None:
            self.fields |= {"group"}
        self.temperature = temperature
        self.groups = groups
        self.assigner = FoldAssigner(folds, data) if folds is not None else None
        self._zeros = np.zeros(0, dtype=np.int32)
        self._open: tuple[Source, Reader] | None = None

    def _reader(self, source: Source) -> Reader:
        if self._open is not None and self._open[0] is source:
            return self._open[1]
        self.close()
        self._open = source, formats.open_reader(source)
        return self._open[1]

    def close(self) -> None:
        """Close the file that is open."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def batches(self, index: int, span: Span, use: Callable[[Batch], None]) -> None:
        """Hand each batch of a span to `use`; invalid scores that it reports become a DataError naming the row."""
        source = span.source
        fields = self.fields & (source.fields | {"scores"})
        if self.assigner is not None:
            self.assigner.begin(index)
        for block in self._reader(source).blocks(span.start, span.stop, fields):
            part = choose_split(block, source, self.data.split)
            batch = self._batch(part)
            if batch.n_units == 0:
                continue
            try:
                use(batch)
            except InvalidScoreError as error:
                raise invalid_score(batch, error.unit) from None

    def _batch(self, part: Part) -> Batch:
        block, source = part.block, part.source
        scores = None if block.scores is None else make_scores(part, self.temperature)
        labels, n_ignored, predictions = None, 0, None
        if block.labels is not None:
            labels, n_ignored = check_labels(block.labels, source.n_classes, self.data.ignored, source, part.unit_of)
        if block.predictions is not None:
            predictions = check_predictions(block.predictions, part)
        n_units = block.stop - block.start if part.units is None else part.units.size
        if self._zeros.size < n_units:
            self._zeros = np.zeros(n_units, dtype=np.int32)
        tables = self._zeros[:n_units]
        if self.groups is not None:
            assert block.group is not None
            codes = np.array([self.groups[name] for name in block.group.tolist()], dtype=np.int32)
            tables = part.per_unit(codes)
        elif self.assigner is not None:
            assert labels is not None
            tables = self.assigner.assign(labels, part)
        return Batch(n_units, scores, predictions, labels, n_ignored, tables, part)


def check_predictions(predictions: NDArray[Any], part: Part) -> NDArray[np.int32]:
    """Stored predictions as int32; one outside [0, K) is an error."""
    n_classes = part.source.n_classes
    if predictions.size and int(predictions.max()) >= n_classes:
        i = int((predictions >= n_classes).argmax())
        found = f"prediction {int(predictions[i])} at {where_is(part.source, part.unit_of(i))}"
        raise DataError(f"{part.source.name}:predictions", found, f"expected [0, {n_classes})")
    return predictions.astype(np.int32)


def invalid_score(batch: Batch, unit: int) -> DataError:
    """The error for a unit whose scores a kernel refused."""
    scores, source = batch.scores, batch.part.source
    assert scores is not None
    row = scores.row(unit)
    place = where_is(source, batch.part.unit_of(unit))
    bad = ~np.isfinite(row) & ~((row == -np.inf) & scores.allow_zero)
    expected = f"expected finite {source.kind.replace('_', '-')}"
    if not bad.any():
        zeros = row == -np.inf
        factor = 1.0 if not scores.delta.size else float(scores.delta[unit if scores.delta.size > 1 else 0])
        if zeros.any() and factor == 0.0:
            found = "a zero probability under a delta of 0"
        elif zeros.any() and (np.abs(row[~zeros]) * factor <= np.finfo(np.float32).max).all():
            found = "no class of positive probability" + ("" if zeros.all() else " that may be predicted")
        else:
            found = "scores that leave float32's range"
        return DataError(source.scores_name, f"{found} at {place}", expected)
    k = int(bad.argmax())
    value = "a negative or NaN probability" if source.kind == "probs" else str(row[k])
    return DataError(source.scores_name, f"{value} at {place}, class {k}", expected)


class _Worker:
    def __init__(self, reader: BatchReader, spans: Sequence[Span], tallies: Sequence[Any]) -> None:
        self.reader, self.spans = reader, spans
        self.tallies = [tally.fresh() for tally in tallies]

    def run(self, index: int) -> None:
        self.reader.batches(index, self.spans[index], self._count)

    def _count(self, batch: Batch) -> None:
        for tally in self.tallies:
            tally.update(batch)

    def close(self) -> None:
        self.reader.close()


def sweep(
    data: DataSet,
    tallies: Sequence[Any],
    *,
    spans: Sequence[Span] | None = None,
    temperature: float = 1.0,
    folds: FoldPlan | None = None,
    groups: dict[str, int] | None = None,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Stream the data once through all tallies.

    Parameters
    ----------
    data : DataSet
    tallies : sequence of Tally
        Filled in place. Any number of threads and any spans give the same counts.
    spans : sequence of Span, optional
        What a worker reads at once; ``data.spans()`` by default (and for `folds`, those it was planned for).
    temperature : float
        Scores are divided by it.
    folds : FoldPlan, optional
        Tables of the units.
    groups : dict of str to int, optional
        Tables by the files' ``group``, instead.
    n_threads : int, optional
        By default, what the machine gives this process.
    progress : callable, optional
        Called with spans done and spans in all.
    """
    chosen = list(data.spans() if spans is None else spans)
    fields = frozenset().union(*(tally.needs for tally in tallies))

    def make_worker() -> _Worker:
        reader = BatchReader(data, fields, temperature=temperature, folds=folds, groups=groups)
        return _Worker(reader, chosen, tallies)

    report = None if progress is None else (lambda done: progress(done, len(chosen)))
    for worker in engine.run(len(chosen), make_worker, n_threads or engine.available_threads(), report):
        for tally, part in zip(tallies, worker.tallies, strict=True):
            tally.add(part)
