"""From files to batches: sources are opened once, and their blocks checked and made ready."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli import formats
from unoic_cli.data.batch import (
    Batch,
    CareError,
    InvalidScoreError,
    Part,
    check_labels,
    choose_split,
    fill_blanks,
    make_scores,
    stored_batch,
    where_is,
)
from unoic_cli.data.dataset import DataSet, Span
from unoic_cli.data.folds import FoldAssigner, FoldPlan
from unoic_cli.data.sampling import looks_at_all
from unoic_cli.data.steps import View
from unoic_cli.errors import DataError
from unoic_cli.formats import schema
from unoic_cli.formats.block import Layout, LogitBlock, Reader, Source


class BatchReader:
    """One thread's way to the data: opens each source once and turns its blocks into batches.

    Parameters
    ----------
    data : DataSet
    fields : frozenset of str
        Block fields that are wanted (``scores`` among them); those a file lacks are left out.
    view : View or None
        How scores are made of what is stored; None leaves that to others.
    folds : FoldPlan or None
        Tables of the batches.
    groups : dict of str to int or None
        Tables by the file's ``group``, instead.
    files : dict of str to int or None
        Tables by the name of the source, instead.
    images : dict of str to int or None
        A table for each sample, instead: that of the first one of each source.
    whole_samples : bool
        Each batch is a whole span (and spans were cut between samples).
    careful : bool
        Scores of units whose label is ignored may be anything, and -inf among logits is a mask.
    as_stored : bool
        Nothing is checked, and no scores are made: see `unoic_cli.data.batch.stored_batch`.
    pieces : {"rows", "planes"} or None
        As stored, each batch holds whole pieces of an output of this layout.
    """

    def __init__(
        self,
        data: DataSet,
        fields: frozenset[str],
        *,
        view: View | None = None,
        folds: FoldPlan | None = None,
        groups: dict[str, int] | None = None,
        files: dict[str, int] | None = None,
        images: dict[str, int] | None = None,
        whole_samples: bool = False,
        careful: bool = False,
        as_stored: bool = False,
        pieces: Layout | None = None,
    ) -> None:
        self.data, self.careful, self.as_stored, self.pieces = data, careful, as_stored, pieces
        self.fields = fields | ({"split"} if data.split is not None else set())
        if "scores" in fields and not as_stored:
            self.fields |= {"delta"}
            if data.beside:
                self.fields |= {"sample_id"}
        if groups is not None:
            self.fields |= {"group"}
        self.view = view
        self.groups, self.files, self.images = groups, files, images
        self.whole = whole_samples or bool(data.beside)
        self.assigner = FoldAssigner(folds, data) if folds is not None else None
        self._zeros = np.zeros(0, dtype=np.int32)
        self._labels = np.empty(0, dtype=np.int32)
        self._open: dict[int, tuple[Source, Reader]] = {}
        names = [member.modality for member in data.modalities]
        self._order = [[data.modality, *(m.modality for m in data.beside)].index(name) for name in names]

    def _reader(self, source: Source, slot: int) -> Reader:
        held = self._open.get(slot)
        if held is not None and held[0] is source:
            return held[1]
        if held is not None:
            held[1].close()
            del self._open[slot]
        reader = formats.open_reader(source)
        self._open[slot] = source, reader
        return reader

    def close(self) -> None:
        """Close the files that are open."""
        for _, reader in self._open.values():
            reader.close()
        self._open.clear()

    def batches(self, index: int, span: Span, use: Callable[[Batch], None]) -> None:
        """Hand each batch of a span to `use`; invalid scores that it reports become a DataError naming the row."""
        if self.assigner is not None:
            self.assigner.begin(index)
        for blocks in self._blocks(span):
            parts = self._parts(blocks, span)
            if self.as_stored:
                use(stored_batch(parts[0]))
                continue
            if self.careful:
                parts = tuple(replace(part, masks=True) for part in parts)
            batch = self._batch(parts)
            if batch.n_units == 0:
                continue
            if self.careful and batch.n_ignored and batch.labels is not None and not self._whole_images:
                batch = _without_blanks(batch, batch.labels)
            try:
                use(batch if self.view is None else self.view.apply(batch))
            except InvalidScoreError as error:
                if not self.careful:
                    self._check_harmless(batch, error)
                raise invalid_score(parts, error) from None

    @property
    def _whole_images(self) -> bool:
        """Whether units whose label is ignored have a share in the others, by the entropy of their sample."""
        return self.view is not None and self.view.needs_samples

    def _check_harmless(self, batch: Batch, error: InvalidScoreError) -> None:
        """Ask for care where a score that a kernel refused is a mask, or of a unit that takes no part."""
        ignored = batch.labels is not None and batch.labels[error.unit] < 0 and not self._whole_images
        chosen = batch.parts if error.modality is None else (batch.parts[error.modality],)
        for part in chosen:
            if part.block.scores is None:
                continue
            row = make_scores(part, 1.0, np.empty(0)).row(error.unit)
            k = int((~np.isfinite(row)).argmax()) if not np.isfinite(row).all() else int(np.abs(row).argmax())
            place = where_is(part.source, part.unit_of(error.unit))
            if ignored:
                found = f"{row[k]} at {place}, whose label is ignored: such units take no part"
                raise CareError(part.source.scores_name, found, "expected valid scores elsewhere")
            if part.source.kind == "logits" and (row == -np.inf).any() and (row < np.inf).all() and row.max() > -np.inf:
                found = f"-inf at {place}: read as a class that the unit cannot have"
                raise CareError(
                    part.source.scores_name, found, "expected finite logits, or such masks",
                    is_news=not looks_at_all(part.source),
                )  # fmt: skip

    def _blocks(self, span: Span) -> Iterator[list[LogitBlock]]:
        """The span's blocks of all modalities, the reference first."""
        if self.pieces is not None:
            for first, last in schema.pieces(span.start, span.stop, span.source.pixels, self.pieces):
                reader = self._reader(span.source, 0)
                yield [gather(reader.blocks(first, last, self.fields), span.source, last)]
            return
        if not self.whole:
            more = {"scores", "predictions"} if self.as_stored else {"scores"}
            fields = self.fields & (span.source.fields | more)
            for block in self._reader(span.source, 0).blocks(span.start, span.stop, fields):
                yield [block]
            return
        blocks = []
        for slot, piece in enumerate((span, *span.beside)):
            fields = self.fields & (piece.source.fields | {"scores"})
            reader = self._reader(piece.source, slot)
            blocks.append(gather(reader.blocks(piece.start, piece.stop, fields), piece.source, piece.stop))
        yield blocks

    def _parts(self, blocks: list[LogitBlock], span: Span) -> tuple[Part, ...]:
        """The chosen split of each modality, in the order of the modalities' names; the reference decides."""
        pieces = (span, *span.beside)
        for block, piece in zip(blocks[1:], pieces[1:], strict=True):
            _check_rows(blocks[0], span.source, block, piece.source)
            block.split = blocks[0].split
        found = [
            choose_split(block, piece.source, self.data.split) for block, piece in zip(blocks, pieces, strict=True)
        ]
        return tuple(found[i] for i in self._order)

    def _batch(self, parts: tuple[Part, ...]) -> Batch:
        part = parts[self._order.index(0)]
        block, source = part.block, part.source
        labels, n_ignored, predictions = None, 0, None
        if block.labels is not None:
            if self._labels.size < block.labels.size:
                self._labels = np.empty(block.labels.size, dtype=np.int32)
            labels, n_ignored = check_labels(
                block.labels, source.n_classes, self.data.ignored, source, part.unit_of,
                self._labels[: block.labels.size],
            )  # fmt: skip
            for other in parts:
                if other is not part and other.block.labels is not None:
                    self._compare_labels(labels, part, other)
        if block.predictions is not None:
            predictions = check_predictions(block.predictions, part, labels)
        n_units = block.stop - block.start if part.units is None else part.units.size
        if self._zeros.size < n_units:
            self._zeros = np.zeros(n_units, dtype=np.int32)
        tables = self._zeros[:n_units]
        if self.groups is not None:
            assert block.group is not None
            codes = np.array([self.groups[name] for name in block.group.tolist()], dtype=np.int32)
            tables = part.per_unit(codes)
        elif self.files is not None:
            tables = np.full(n_units, self.files[source.name], dtype=np.int32)
        elif self.images is not None:
            tables = (self.images[source.name] + part.sample_of_units()).astype(np.int32)
        elif self.assigner is not None:
            assert labels is not None
            tables = self.assigner.assign(labels, part)
        return Batch(n_units, None, predictions, labels, n_ignored, tables, part, parts)

    def _compare_labels(self, labels: NDArray[np.int32], part: Part, other: Part) -> None:
        """Refuse a modality whose labels differ from those of the reference."""
        assert other.block.labels is not None
        source = other.source
        theirs, _ = check_labels(other.block.labels, source.n_classes, self.data.ignored, source, other.unit_of)
        if not np.array_equal(labels, theirs):
            i = int((labels != theirs).argmax())
            assert part.block.labels is not None
            found = f"label {int(other.block.labels[i])} at {where_is(source, other.unit_of(i))}"
            wanted = int(part.block.labels[i])
            expected = f"expected {wanted}, as in {part.source.name} ({where_is(part.source, part.unit_of(i))})"
            raise DataError(f"{source.name}:labels", found, expected)


def _without_blanks(batch: Batch, labels: NDArray[np.int32]) -> Batch:
    """A batch in which scores of ignored units that are none have others in their place."""
    ignored = np.flatnonzero(labels < 0)
    blanks = [fill_blanks(part, ignored) for part in batch.parts]
    if not any(found.size for found in blanks):
        return batch
    blank = np.zeros(batch.n_units, dtype=bool)
    for found in blanks:
        blank[found] = True
    return replace(batch, blank=blank)


def gather(blocks: Iterator[LogitBlock], source: Source, stop: int) -> LogitBlock:
    """Consecutive blocks, which end at `stop`, as one."""
    block = next(blocks)
    if block.stop == stop:
        return block
    held = [block.own()]  # before the reader is asked for the next, which may come in the same memory
    held.extend(block.own() for block in blocks)
    joined = LogitBlock(held[0].start, held[-1].stop)
    scores = [block.scores for block in held if block.scores is not None]
    if scores:
        joined.scores = _joined_scores(scores, joined.start, joined.stop, source.pixels)
    for name in ("predictions", "labels"):
        arrays = [getattr(block, name) for block in held]
        if arrays[0] is not None:
            setattr(joined, name, np.concatenate(arrays))
    deltas = [block.delta for block in held if block.delta is not None]
    if deltas:
        sizes = [block.stop - block.start for block in held]
        whole = [d if d.size == n else np.full(n, d[0]) for d, n in zip(deltas, sizes, strict=True)]
        joined.delta = np.concatenate(whole)
    for name in ("split", "group", "sample_id"):
        if getattr(held[0], name) is None:
            continue
        seen, values = held[0].start // source.pixels, []
        for block in held:
            first = block.start // source.pixels
            array = getattr(block, name)
            values.append(array[max(0, seen - first) :])
            seen = max(seen, first + len(array))
        setattr(joined, name, np.concatenate(values))
    return joined


def _joined_scores(scores: Sequence[NDArray[Any]], start: int, stop: int, pixels: int) -> NDArray[Any]:
    """Scores of consecutive blocks as a block holds them: planes of whole images or of a part of one, else rows."""
    flat = np.concatenate([s if s.ndim == 2 else s.transpose(0, 2, 1).reshape(-1, s.shape[1]) for s in scores])
    if any(s.ndim == 2 for s in scores):
        return flat
    inside = min(pixels, stop - start)
    if start // pixels != (stop - 1) // pixels and (start % pixels or stop % pixels):
        return flat
    return np.ascontiguousarray(flat.reshape(-1, inside, flat.shape[1]).transpose(0, 2, 1))


def _check_rows(block: LogitBlock, source: Source, other: LogitBlock, beside: Source) -> None:
    """Refuse modalities whose rows belong to other samples."""
    for name in ("sample_id", "split", "group"):
        ours, theirs = getattr(block, name), getattr(other, name)
        if ours is None or theirs is None:
            continue
        if (ours.dtype.kind in "iu") != (theirs.dtype.kind in "iu"):
            ours, theirs = ours.astype(str), theirs.astype(str)
        if not np.array_equal(ours, theirs):
            i = int((ours != theirs).argmax())
            sample = other.start // beside.pixels + i
            expected = f"expected {ours[i]!s}, as in {source.name}: modalities are aligned row by row"
            raise DataError(f"{beside.name}:{name}", f"{theirs[i]!s} at sample {sample}", expected)


def check_predictions(
    predictions: NDArray[Any], part: Part, labels: NDArray[np.int32] | None = None
) -> NDArray[np.int32]:
    """Stored predictions as int32; one outside [0, K) is an error, unless the unit's label is ignored."""
    n_classes = part.source.n_classes
    if not predictions.size or (int(predictions.min()) >= 0 and int(predictions.max()) < n_classes):
        return predictions.astype(np.int32)
    outside = (predictions < 0) | (predictions >= n_classes)
    wrong = outside if labels is None else outside & (labels >= 0)
    if wrong.any():
        i = int(wrong.argmax())
        found = f"prediction {int(predictions[i])} at {where_is(part.source, part.unit_of(i))}"
        raise DataError(f"{part.source.name}:predictions", found, f"expected [0, {n_classes})")
    return np.where(outside, 0, predictions).astype(np.int32)


def invalid_score(parts: tuple[Part, ...], error: InvalidScoreError) -> DataError:
    """The error for a unit whose scores a kernel refused: of the first modality where it is not valid."""
    chosen = range(len(parts)) if error.modality is None else (error.modality,)
    said = [_invalid_score(parts[m], error.unit) for m in chosen]
    return next((one for one, certain in said if certain), said[0][0])


def _invalid_score(part: Part, unit: int) -> tuple[DataError, bool]:
    """The error for one modality, and whether a score of it may not be there."""
    source = part.source
    scores = make_scores(part)
    row = scores.row(unit)
    place = where_is(source, part.unit_of(unit))
    bad = ~np.isfinite(row) & ~((row == -np.inf) & scores.allow_zero)
    expected = f"expected finite {source.kind.replace('_', '-')}"
    if source.kind == "logits" and (row == -np.inf).all():
        return DataError(source.scores_name, f"only -inf at {place}", "expected a class that the unit can have"), True
    if not bad.any():
        zeros = row == -np.inf
        factor = 1.0 if not scores.delta.size else float(scores.delta[unit if scores.delta.size > 1 else 0])
        if zeros.any() and factor == 0.0:
            found = "a zero probability under a delta of 0"
        elif zeros.any() and (np.abs(row[~zeros]) * factor <= np.finfo(np.float32).max).all():
            found = "no class of positive probability" + ("" if zeros.all() else " that may be predicted")
        else:
            found = "scores that leave float32's range"
        return DataError(source.scores_name, f"{found} at {place}", expected), False
    k = int(bad.argmax())
    value = "a negative or NaN probability" if source.kind == "probs" else str(row[k])
    return DataError(source.scores_name, f"{value} at {place}, class {k}", expected), True
