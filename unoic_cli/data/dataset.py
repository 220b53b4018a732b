"""One or more logits files as one data set: checked against each other, restricted to a split, cut into spans.

Several modalities of the same samples are data sets side by side: the one that knows most (labels, splits, groups) is
the reference, and the others lie `beside` it, row for row.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

from unoic_cli import formats
from unoic_cli.data.batch import Part, choose_split
from unoic_cli.data.facts import Facts, know
from unoic_cli.errors import DataError, UsageError, other_names
from unoic_cli.formats.block import Source
from unoic_cli.formats.names import Asked, AxisError, refuse

SPAN_BYTES = 4 << 20
"""Scores that a worker reads at once: they stay in the shared cache while they are counted."""
WHOLE_BYTES = 16 << 20
"""Images up to this are read whole where their entropy is needed first; of larger ones it takes a pass of its own."""
_ITEM = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


@dataclass(frozen=True)
class Span:
    """Units [start, stop) of one source, and the same units of the modalities beside it."""

    source: Source
    start: int
    stop: int
    beside: tuple[Span, ...] = ()


class Evidence(Protocol):
    """What looks at a first read of the data; see `unoic_cli.tallies.findings`."""

    def tally(self, data: DataSet, fields: frozenset[str]) -> Any:
        """What looks at a pass that reads these fields; None where it would learn nothing new."""
        ...

    def take(self, data: DataSet, tally: Any, fields: frozenset[str]) -> None:
        """Say what it has seen."""
        ...


@dataclass
class Care:
    """What was met in scores that is harmless, but not free to look for: all streams over the data share it.

    Attributes
    ----------
    on : bool
        Scores of units whose label is ignored may be anything, and -inf among logits is a mask.
    tell : callable or None
        Called with what was met, once.
    """

    on: bool = False
    tell: Callable[[str], None] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"on": self.on, "tell": None}

    def take(self, text: str | None) -> None:
        """Take care from now on, and say why, where nobody else does."""
        self.on = True
        if self.tell is not None and text is not None:
            self.tell(text)


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
    modality : str or None
        Its name, where there are several.
    beside : tuple of DataSet
        The other modalities of the same samples.
    given : tuple of str
        Names of the modalities, in the order in which they were given.
    shard : tuple of int or None
        (i, n): spans are those of the i-th of n parts.
    span_bytes, whole_bytes : int or None
        Instead of `SPAN_BYTES` and `WHOLE_BYTES`.
    names_beside : tuple of str or None
        (K,) names that a modality has which no longer lies beside it.
    care : Care
        What streams have met.
    evidence : Evidence or None
        What the run has seen of the data so far, and says; see `unoic_cli.tallies.findings`.
    """

    sources: tuple[Source, ...]
    split: str | None
    ignored: frozenset[int]
    n_samples: int
    modality: str | None = None
    beside: tuple[DataSet, ...] = ()
    given: tuple[str, ...] = ()
    shard: tuple[int, int] | None = None
    span_bytes: int | None = None
    whole_bytes: int | None = None
    names_beside: tuple[str, ...] | None = None
    care: Care = field(default_factory=Care, compare=False)
    evidence: Evidence | None = field(default=None, compare=False, repr=False)

    def bounded(self, span_bytes: int, whole_bytes: int) -> DataSet:
        """The same, with bounds of what is read at once."""
        beside = tuple(replace(one, span_bytes=span_bytes, whole_bytes=whole_bytes) for one in self.beside)
        return replace(self, beside=beside, span_bytes=span_bytes, whole_bytes=whole_bytes)

    @property
    def modalities(self) -> tuple[DataSet, ...]:
        """Itself and those beside it, in the order of their names."""
        return tuple(sorted((self, *self.beside), key=lambda data: data.modality or ""))

    def alone(self) -> DataSet:
        """The same without what lies beside it."""
        return replace(self, beside=(), names_beside=self.class_names)

    @property
    def all_sources(self) -> tuple[Source, ...]:
        """The files of every modality."""
        return tuple(source for data in self.modalities for source in data.sources)

    @property
    def n_classes(self) -> int:
        """K."""
        return self.sources[0].n_classes

    @property
    def ignored_classes(self) -> tuple[int, ...]:
        """Classes in [0, K) whose units are left out: they enter no mean over classes."""
        return tuple(sorted(label for label in self.ignored if 0 <= label < self.n_classes))

    @property
    def name(self) -> str:
        """For messages: the first input, and how many more."""
        more = len(self.sources) - 1
        return self.sources[0].name + (f" and {more} more" if more else "")

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """(K,) names, where a file has them."""
        known = (source.class_names for source in (*self.sources, *self.all_sources) if source.class_names)
        return next(known, self.names_beside)

    @property
    def has_images(self) -> bool:
        """Whether units are pixels."""
        return any(source.image_shape for source in self.sources)

    def has(self, field: str) -> bool:
        """Whether every file has the field."""
        return all(field in source.fields for source in self.sources)

    @property
    def may_mix_splits(self) -> bool:
        """Whether samples may be of several splits, and none is chosen: names of inputs that say one alone are none."""
        named = {source.constants.get("split", "") for source in self.all_sources}
        known = any("split" in source.fields for source in self.all_sources)
        return self.split is None and known and (len(named) > 1 or named == {""})

    def require_scores(self) -> None:
        """Refuse predictions without scores."""
        if self.sources[0].kind == "predictions":
            raise DataError(self.name, "predictions without scores", "expected logits, log_probs or probs")

    def require(self, field: str, why: str) -> None:
        """Refuse files without the field."""
        for source in self.sources:
            if field not in source.fields:
                hints = [note for note in source.notes if field == "labels" and "labels" in note]
                raise DataError(source.name, f"no {field}", "; ".join([f"expected {field} {why}", *hints]))

    def spans(
        self,
        target_bytes: int | None = None,
        *,
        whole_samples: bool = False,
        window: tuple[int, int] | None = None,
    ) -> list[Span]:
        """What one worker reads at once, in order; of the shard alone, where there is one.

        Parameters
        ----------
        target_bytes : int, optional
            What the scores of a span should weigh; `SPAN_BYTES` by default.
        whole_samples : bool
            Divide no image that `WHOLE_BYTES` can hold.
        window : tuple of int, optional
            Units [start, stop) of all sources, instead of those of the shard.
        """
        if target_bytes is None:
            target_bytes = SPAN_BYTES if self.span_bytes is None else self.span_bytes
        whole_bytes = target_bytes
        if whole_samples:
            whole_bytes = WHOLE_BYTES if self.whole_bytes is None else self.whole_bytes
        if window is None:
            window = (0, self.n_units) if self.shard is None else self.shard_units(*self.shard)
        if self.beside or whole_samples:
            return list(_joint_spans((self, *self.beside), target_bytes, whole_bytes, window))
        return [
            Span(source, *clipped)
            for begin, source in self._placed()
            if begin < window[1] and begin + source.n_units > window[0]
            for span in formats.spans(source, target_bytes)
            if (clipped := _clip(span, begin, window)) is not None
        ]

    @property
    def n_units(self) -> int:
        """Rows of scores in all sources, of every split."""
        return sum(source.n_units for source in self.sources)

    @property
    def n_scores(self) -> int:
        """Scores in all sources of all modalities."""
        return sum(source.n_units * source.n_classes for source in self.all_sources)

    def _placed(self) -> Iterator[tuple[int, Source]]:
        """Each source, and how many units lie before it."""
        return zip(itertools.accumulate((s.n_units for s in self.sources), initial=0), self.sources, strict=False)

    def extents(self, spans: Sequence[Span]) -> list[tuple[int, int]]:
        """Where spans lie among the units of all sources."""
        begins = {id(source): begin for begin, source in self._placed()}
        return [(begins[id(span.source)] + span.start, begins[id(span.source)] + span.stop) for span in spans]

    def shard_units(self, i: int, n: int) -> tuple[int, int]:
        """Units [start, stop) of the i-th of n parts, from 1: equal numbers of samples, none divided."""
        total = sum(source.n_samples for source in self.sources)

        def place(sample: int) -> int:
            units = 0
            for source in self.sources:
                taken = min(sample, source.n_samples)
                units, sample = units + taken * source.pixels, sample - taken
            return units

        return place(total * (i - 1) // n), place(total * i // n)


def split_at(data: DataSet, spans: Sequence[Span], edges: Iterable[int]) -> list[Span]:
    """Spans, cut where some units (of all sources, one behind the other) lie between two edges inside them.

    A run that goes on may read in other pieces than it began with; so each span is all counted, or not at all.
    """
    sorted_edges, found = sorted(set(edges)), []
    for span, (start, stop) in zip(spans, data.extents(spans), strict=True):
        first, last = bisect_right(sorted_edges, start), bisect_left(sorted_edges, stop)
        cuts = [0, *(edge - start for edge in sorted_edges[first:last]), stop - start]
        found += [_piece(span, a, b) for a, b in itertools.pairwise(cuts)]
    return found


def _piece(span: Span, start: int, stop: int) -> Span:
    beside = tuple(_piece(one, start, stop) for one in span.beside)
    return Span(span.source, span.start + start, span.start + stop, beside)


def _clip(span: tuple[int, int], begin: int, window: tuple[int, int]) -> tuple[int, int] | None:
    """What of a span lies in a window; `begin` units lie before its source."""
    start, stop = max(span[0], window[0] - begin), min(span[1], window[1] - begin)
    return (start, stop) if start < stop else None


def span_bytes(span: Span, fields: frozenset[str]) -> int:
    """About how many bytes are read of a span, and of those beside it."""
    source = span.source
    scores = 1 if source.kind == "predictions" else _ITEM[source.encoding] * source.n_classes
    unit = (scores if "scores" in fields else 0) + ("labels" in fields)
    return (span.stop - span.start) * unit + sum(span_bytes(piece, fields) for piece in span.beside)


def _joint_spans(
    members: Sequence[DataSet], target_bytes: int, whole_bytes: int, window: tuple[int, int]
) -> Iterator[Span]:
    """Spans of all members together; none crosses the end of a file of any of them."""
    ends = [list(itertools.accumulate(source.n_samples for source in member.sources)) for member in members]
    edges = sorted({0, *(end for member in ends for end in member)})
    begin = 0
    for first, last in itertools.pairwise(edges):
        sources, starts = [], []
        for member, own in zip(members, ends, strict=True):
            place = next(i for i, end in enumerate(own) if end > first)
            sources.append(member.sources[place])
            starts.append((first - (own[place] - sources[-1].n_samples)) * sources[-1].pixels)
        size = (last - first) * sources[0].pixels
        if begin < window[1] and begin + size > window[0]:
            for cut in _cuts(sources, starts, size, target_bytes, whole_bytes):
                if (clipped := _clip(cut, begin, window)) is not None:
                    a, b = clipped
                    pieces = [Span(source, at + a, at + b) for source, at in zip(sources, starts, strict=True)]
                    yield replace(pieces[0], beside=tuple(pieces[1:]))
        begin += size


def _cuts(
    sources: Sequence[Source], starts: Sequence[int], size: int, target_bytes: int, whole_bytes: int
) -> Iterator[tuple[int, int]]:
    """Cut `size` units, which begin at `starts` of each source, where the source with the coarsest spans is cut."""
    pixels = sources[0].pixels
    found = []
    for source, start in zip(sources, starts, strict=True):
        spans = formats.spans(source, max(1, target_bytes // len(sources)))
        found.append([a - start for a, _ in spans if start < a < start + size])
    edges = min(found, key=len)
    image_bytes = sum(_ITEM[source.encoding] * source.n_classes * pixels for source in sources)
    if pixels > 1 and image_bytes <= whole_bytes:
        edges = [edge // pixels * pixels for edge in edges]
    yield from itertools.pairwise(sorted({0, *edges, size}))


def text_counts(source: Source, field: str) -> Facts[Counter[str]]:
    """How many samples have each value of a per-sample text field, in order of appearance."""
    found = yield from know(f"{field} {source.name}", lambda: dict(_text_counts(source, field)))
    return Counter(found)


def _text_counts(source: Source, field: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    with contextlib.closing(formats.open_reader(source)) as reader:
        seen = 0
        for start, stop in formats.spans(source, SPAN_BYTES):
            for block in reader.blocks(start, stop, frozenset({field})):
                values = getattr(block, field)
                first = block.start // source.pixels
                counts.update(values[max(0, seen - first) :].tolist())
                seen = max(seen, first + len(values))
    return counts


def open_modalities(
    named: Mapping[str, Sequence[str | Source]],
    *,
    split: str | None = None,
    ignore_index: Sequence[int] = (),
    allow_external: bool = False,
    asked: Asked | None = None,
) -> Facts[DataSet]:
    """Several modalities of the same samples, aligned by position.

    Parameters
    ----------
    named : mapping of str to sequence of str or Source
        The inputs of each modality, as `open_dataset` takes them.
    split, ignore_index, allow_external, asked
        As in `open_dataset`. Labels, splits and groups are those of one modality, the reference: one with labels, and
        of those the one that has most of the rest.

    Raises
    ------
    UnoicError
        A file is missing or broken, or the modalities do not go together.
    """
    if not named:
        raise UsageError("FILES", "no input", "expected at least one modality, NAME=FILE")
    common: dict[str, Any] = {"ignore_index": ignore_index, "allow_external": allow_external, "beside": split}
    opened = yield from _open_all(named, asked=asked, **common)
    for name, data in opened.items():
        if data.sources[0].kind == "predictions":
            raise DataError(data.name, "predictions without scores", f"expected scores of {name}, to fuse them")
    known = ("labels", "split", "group", "sample_id")
    first = max(opened, key=lambda name: [opened[name].has(field) for field in known])
    reference = opened.pop(first)
    _check_distinct((*reference.sources, *(source for data in opened.values() for source in data.sources)))
    for data in opened.values():
        _check_aligned(reference, data)
    check_names([source for data in (reference, *opened.values()) for source in data.sources])
    if split is not None:
        reference = replace(reference, split=split, n_samples=(yield from _count_split(reference.sources, split)))
    beside = tuple(
        replace(
            data,
            modality=name,
            split=split if data.has("split") else None,
            n_samples=reference.n_samples if data.has("split") else data.n_samples,
        )
        for name, data in opened.items()
    )
    return replace(reference, modality=first, beside=beside, given=tuple(named))


def _open_all(
    named: Mapping[str, Sequence[str | Source]], *, asked: Asked | None, **options: Any
) -> Facts[dict[str, DataSet]]:
    """Every modality; where only others tell the size of the images, they settle where its classes are."""
    opened: dict[str, DataSet] = {}
    late: dict[str, AxisError] = {}
    for name, inputs in sorted(named.items()):
        try:
            opened[name] = yield from open_dataset(inputs, asked=asked, **options)
        except AxisError as error:
            late[name] = error
    for name, unsettled in late.items():
        known = next((data.sources[0] for data in opened.values()), None)
        axis = None if known is None else unsettled.beside(known.n_classes, known.image_shape)
        if axis is None:
            raise unsettled
        asked_here = replace(asked or Asked(), class_axis=axis)
        opened[name] = yield from open_dataset(named[name], asked=asked_here, **options)
    return dict(sorted(opened.items()))


def _check_aligned(reference: DataSet, data: DataSet) -> None:
    """Refuse modalities of other classes, or of another number or size of samples."""
    first, other = reference.sources[0], data.sources[0]
    if other.n_classes != first.n_classes:
        raise DataError(other.name, f"{other.n_classes} classes", f"expected {first.n_classes}, as in {first.name}")
    if data.n_samples != reference.n_samples:
        expected = f"expected {reference.n_samples}, as in {reference.name}"
        raise DataError(data.name, f"{data.n_samples} samples", expected)
    ours, others = _shapes(reference), _shapes(data)
    if ours != others:
        wanted, found = next((a, b) for a, b in itertools.zip_longest(ours, others, fillvalue=((), 0)) if a != b)
        raise DataError(data.name, f"images of shape {found[0]}", f"expected {wanted[0]}, as in {reference.name}")


def _shapes(data: DataSet) -> list[tuple[tuple[int, ...], int]]:
    """Image shapes in order, each with the number of samples that have it."""
    runs = itertools.groupby(data.sources, key=lambda source: source.image_shape)
    return [(shape, sum(source.n_samples for source in sources)) for shape, sources in runs]


def _count_split(sources: Sequence[Source], split: str) -> Facts[int]:
    """How many samples there are of a split, which need not be in every source."""
    there: Counter[str] = Counter()
    for source in sources:
        if "split" not in source.fields:
            expected = f"expected an array split, with the split of each sample, to take {split!r}"
            raise DataError(source.name, "no split", expected)
        there += yield from text_counts(source, "split")
    if split not in there:
        listed = ", ".join(f"{name} ({count})" for name, count in list(there.items())[:8])
        more = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
        raise DataError(f"{sources[0].name}{more}:split", f"no sample of split {split!r}", f"expected one of {listed}")
    return there[split]


def _of_split(sources: tuple[Source, ...], split: str | None) -> tuple[Source, ...]:
    """Sources without those all of whose samples are of another split, where any are left."""
    return tuple(source for source in sources if source.constants.get("split", split) == split) or sources


def _check_alike(sources: Sequence[Source]) -> None:
    first = sources[0]
    for source in sources[1:]:
        if source.n_classes != first.n_classes:
            raise DataError(
                source.name, f"{source.n_classes} classes", f"expected {first.n_classes}, as in {first.name}"
            )
        if (source.kind == "predictions") != (first.kind == "predictions"):
            raise DataError(source.name, f"{source.kind}", f"expected {first.kind}, as in {first.name}")
    check_names(sources)
    for key in ("source_counts", "source_prior"):
        _check_one(sources, key, "another prior", "that")


def check_names(sources: Sequence[Source]) -> None:
    """Refuse files whose classes have other names, or the same in another order."""
    _check_one(sources, "class_names", "other class names", "those")


def _check_one(sources: Sequence[Source], key: str, found: str, expected: str) -> None:
    """Refuse sources that state something else than the first of them that states it."""
    stated = [source for source in sources if getattr(source, key)]
    for source in stated[1:]:
        if getattr(source, key) != getattr(stated[0], key):
            if key == "class_names":
                found = other_names(source.class_names or (), stated[0].class_names or ())
            raise DataError(f"{source.name}:{key}", found, f"expected {expected} of {stated[0].name}")


def _check_distinct(sources: Sequence[Source]) -> None:
    """Refuse the same data twice: every unit would count double, and an expert would agree with itself."""
    seen: dict[tuple[Any, str], str] = {}
    for source in sources:
        if source.format == "arrays":
            continue
        key = formats.identity(source)
        if key in seen:
            raise UsageError(source.name, f"the same data as {seen[key]}", "expected each input once")
        seen[key] = source.name


def _check_no_name_twice(names: Sequence[str]) -> None:
    """Refuse a name that is given twice before any file is opened: a list may have very many lines."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            where = formats.storage.shown(name)
            raise UsageError(where, f"the same data as {where}", "expected each input once")
        seen.add(name)


def open_dataset(
    inputs: Sequence[str | Source],
    *,
    split: str | None = None,
    ignore_index: Sequence[int] = (),
    allow_external: bool = False,
    asked: Asked | None = None,
    beside: str | None = None,
) -> Facts[DataSet]:
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
    asked : Asked, optional
        What was said of the names of arrays, and of the class axis.
    beside : str, optional
        The split that is kept of the modality that these lie beside.

    Raises
    ------
    UnoicError
        A file is missing or broken, or the files do not go together.
    """
    wanted = split if beside is None else beside
    if not inputs:
        raise UsageError("FILES", "no input", "expected at least one logits file")
    files = [item for item in inputs if not isinstance(item, Source)]
    _check_no_name_twice(files)
    if asked is not None and len(files) < len(inputs):
        refuse(replace(asked, class_axis=None, kind=None), "the input", "is an array in memory")
    described = iter((yield from _describe_all(files, allow_external=allow_external, asked=asked)))
    sources = _with_samples([item if isinstance(item, Source) else next(described) for item in inputs])
    sources = sources if wanted is None else _of_split(sources, wanted)
    _check_alike(sources)
    _check_distinct(sources)
    n_samples = sum(s.n_samples for s in sources) if split is None else (yield from _count_split(sources, split))
    return DataSet(sources, split, frozenset(ignore_index), n_samples)


def _with_samples(sources: Sequence[Source]) -> tuple[Source, ...]:
    """Sources without the empty ones among them, which is said."""
    kept = [source for source in sources if source.n_samples]
    if not kept:
        raise DataError(sources[0].name, "no samples (N = 0)", "expected at least one")
    if len(kept) < len(sources):
        empty = [source.name for source in sources if not source.n_samples]
        note = f"no samples (N = 0) in {', '.join(empty[:3])}{' ...' if len(empty) > 3 else ''}: left out"
        kept[0] = replace(kept[0], notes=(*kept[0].notes, note))
    return tuple(kept)


def _describe_all(names: Sequence[str], *, allow_external: bool, asked: Asked | None) -> Facts[list[Source]]:
    """Inputs as they are: looked into together, as soon as one is asked for."""
    live = functools.cache(lambda: formats.describe_all(names, allow_external=allow_external, asked=asked))

    def write(source: Source) -> dict[str, Any]:
        return {**source.to_dict(), "fingerprint": formats.fingerprint(source)}

    def read(fact: dict[str, Any]) -> Source:
        return Source.from_dict({key: fact[key] for key in fact if key != "fingerprint"})

    found = []
    for i, name in enumerate(names):
        found.append((yield from know(f"input {name}", partial(_place, live, i), write=write, read=read)))
    for path in dict.fromkeys(source.labels_from.path for source in found if source.labels_from is not None):
        yield from know(f"labels {path}", partial(formats.fingerprint_of, path))
    return found


def _place(sources: Callable[[], list[Source]], i: int) -> Source:
    return sources()[i]


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
    """How many units of the split come before each span, and how many there are in all of them."""
    sizes = [span.stop - span.start for span in spans]
    if data.split is not None:
        sizes = [0] * len(spans)
        for index, part in parts(data, spans, "split"):
            sizes[index] += part.block.stop - part.block.start if part.units is None else part.units.size
    return list(itertools.accumulate(sizes, initial=0))
