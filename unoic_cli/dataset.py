"""One or more logits files as one data set: checked against each other, restricted to a split, cut into spans."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from unoic_cli import formats
from unoic_cli.batch import Part, choose_split
from unoic_cli.block import Source
from unoic_cli.errors import DataError, UsageError

SPAN_BYTES = 2 << 20
"""Scores that a worker reads at once: they stay in the shared cache while they are counted."""


@dataclass(frozen=True)
class Span:
    """Units [start, stop) of one source."""

    source: Source
    start: int
    stop: int


@dataclass(frozen=True)
class DataSet:
    """Sources that hold the same classes, and which of their units are looked at.

    Attributes
    ----------
    sources : tuple of Source
    split : str or None
        Only samples of this split.
    ignored : frozenset of int
        ``--ignore-index`` values.
    n_samples : int
        Samples in the split.
    """

    sources: tuple[Source, ...]
    split: str | None
    ignored: frozenset[int]
    n_samples: int

    @property
    def n_classes(self) -> int:
        """K."""
        return self.sources[0].n_classes

    @property
    def name(self) -> str:
        """For messages: the first input, and how many more."""
        more = len(self.sources) - 1
        return self.sources[0].name + (f" and {more} more" if more else "")

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """(K,) names, where a file has them."""
        return next((source.class_names for source in self.sources if source.class_names), None)

    @property
    def has_images(self) -> bool:
        """Whether units are pixels."""
        return any(source.image_shape for source in self.sources)

    def has(self, field: str) -> bool:
        """Whether every file has the field."""
        return all(field in source.fields for source in self.sources)

    def require(self, field: str, why: str) -> None:
        """Refuse files without the field."""
        for source in self.sources:
            if field not in source.fields:
                raise DataError(source.name, f"no {field}", f"expected {field} {why}")

    def spans(self, target_bytes: int = SPAN_BYTES) -> list[Span]:
        """What one worker reads at once, in order."""
        return [Span(source, *span) for source in self.sources for span in formats.spans(source, target_bytes)]


def text_counts(source: Source, field: str) -> Counter[str]:
    """How many samples have each value of a per-sample text field, in order of appearance."""
    counts: Counter[str] = Counter()
    reader = formats.open_reader(source)
    try:
        seen = 0
        for start, stop in formats.spans(source, SPAN_BYTES):
            for block in reader.blocks(start, stop, frozenset({field})):
                values = getattr(block, field)
                first = block.start // source.pixels
                counts.update(values[max(0, seen - first) :].tolist())
                seen = max(seen, first + len(values))
    finally:
        reader.close()
    return counts


def _check_alike(sources: Sequence[Source]) -> None:
    first = sources[0]
    for source in sources[1:]:
        if source.n_classes != first.n_classes:
            raise DataError(
                source.name, f"{source.n_classes} classes", f"expected {first.n_classes}, as in {first.name}"
            )
        if (source.kind == "predictions") != (first.kind == "predictions"):
            raise DataError(source.name, f"{source.kind}", f"expected {first.kind}, as in {first.name}")
        if source.class_names and first.class_names and source.class_names != first.class_names:
            raise DataError(f"{source.name}:class_names", "other class names", f"expected those of {first.name}")
        for key in ("source_counts", "source_prior"):
            ours, theirs = getattr(source, key), getattr(first, key)
            if ours and theirs and ours != theirs:
                raise DataError(f"{source.name}:{key}", "another prior", f"expected that of {first.name}")


def _check_distinct(sources: Sequence[Source]) -> None:
    """Refuse the same data twice: every unit would count double."""
    seen: dict[tuple[str, str], str] = {}
    for source in sources:
        if source.format == "arrays":
            continue
        path, group = formats.split_name(source.name)
        key = os.path.realpath(path), group
        if key in seen:
            raise UsageError(source.name, f"the same data as {seen[key]}", "expected each input once")
        seen[key] = source.name


def _samples_in_split(source: Source, split: str) -> int:
    if "split" not in source.fields:
        raise DataError(source.name, "no split", f"expected split text for --split {split}")
    counts = text_counts(source, "split")
    if split not in counts:
        there = ", ".join(f"{name} ({count})" for name, count in list(counts.items())[:8])
        raise DataError(f"{source.name}:split", f"no sample of split {split!r}", f"expected one of {there}")
    return counts[split]


def open_dataset(
    inputs: Sequence[str | Source],
    *,
    split: str | None = None,
    ignore_index: Sequence[int] = (),
    allow_external: bool = False,
) -> DataSet:
    """Look into the inputs and check that they belong together.

    Parameters
    ----------
    inputs : sequence of str or Source
        ``FILE`` or ``FILE::GROUP`` names, or sources made of arrays.
    split : str, optional
        Keep the samples of this split only.
    ignore_index : sequence of int
        Labels to leave out, besides 255, -1 and -100 outside [0, K).
    allow_external : bool
        Follow external links, external storage and virtual datasets.

    Raises
    ------
    UnoicError
        A file is missing or broken, or the files do not go together.
    """
    if not inputs:
        raise UsageError("FILES", "no input", "expected at least one logits file")
    sources = tuple(
        item if isinstance(item, Source) else formats.describe(item, allow_external=allow_external) for item in inputs
    )
    _check_alike(sources)
    _check_distinct(sources)
    n_samples = sum(s.n_samples if split is None else _samples_in_split(s, split) for s in sources)
    return DataSet(sources, split, frozenset(ignore_index), n_samples)


def parts(data: DataSet, spans: Sequence[Span], field_name: str) -> Iterator[tuple[int, Part]]:
    """The blocks of the spans in order, with one field (and the split): (span position, part)."""
    wanted = frozenset({field_name} | ({"split"} if data.split is not None else set()))
    for _, group in itertools.groupby(enumerate(spans), key=lambda item: id(item[1].source)):
        reader = None
        try:
            for index, span in group:
                reader = reader or formats.open_reader(span.source)
                for block in reader.blocks(span.start, span.stop, wanted):
                    yield index, choose_split(block, span.source, data.split)
        finally:
            if reader is not None:
                reader.close()


def split_units(data: DataSet, spans: Sequence[Span]) -> list[int]:
    """For each span, how many units of the split come before it in the data set."""
    sizes = [span.stop - span.start for span in spans]
    if data.split is not None:
        sizes = [0] * len(spans)
        for index, part in parts(data, spans, "split"):
            sizes[index] += part.block.stop - part.block.start if part.units is None else part.units.size
    return list(itertools.accumulate(sizes, initial=0))[:-1]
