"""Make a logits file: of numpy arrays, or of a logits file in the other format."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Unpack, cast

import numpy as np

from unoic_cli import formats
from unoic_cli.brief import brief, detached
from unoic_cli.calibrations.view import View
from unoic_cli.commands.info import BLOCK_BYTES, scalar_delta
from unoic_cli.commands.rounding import RoundingTally, Watch, as_encoding, check_dtype, is_exact, make_watch
from unoic_cli.data.batch import Batch, choose_split, stored_batch, where_is
from unoic_cli.data.dataset import DataSet, Span
from unoic_cli.data.steps import Steps, count, here, rewrite
from unoic_cli.errors import DataError, UsageError
from unoic_cli.formats import names, schema
from unoic_cli.formats import single as one_column
from unoic_cli.formats.block import Encoding, Kind, LogitBlock, OutputSpec, Source, Writer
from unoic_cli.formats.names import Asked
from unoic_cli.options import filled
from unoic_cli.resolve.common import asked_of, check_threads, described, take_output
from unoic_cli.resolve.inputs import expand, single
from unoic_cli.resolve.options import (
    ArrayOptions,
    DtypeOption,
    ForceOption,
    ProgressOption,
    TellOption,
    ThreadsOption,
)
from unoic_cli.tallies.contents import ClassCounts, CopyTally, KindTally, ScoreValues
from unoic_cli.tallies.findings import findings_of, id_findings


@dataclass(frozen=True)
class ConvertResult:
    """What was written.

    Attributes
    ----------
    input, output : str
        As typed; the input with the member that the scores came from.
    kind, kind_from : str
        What the scores are, and how that was decided.
    n_samples, n_classes, image_shape, encoding
        N, K, (H, W) or (), and the type of a score.
    fields : tuple of str
        What was kept beside the scores.
    dropped : tuple of str
        Members of the input that were not.
    notes : tuple of str
        What the user should know.
    changed : int or None
        Units whose largest score is of another class after rounding; None where no score was rounded.
    """

    input: str
    output: str
    kind: Kind
    kind_from: str
    n_samples: int
    n_classes: int
    image_shape: tuple[int, ...]
    encoding: str
    fields: tuple[str, ...]
    dropped: tuple[str, ...]
    notes: tuple[str, ...]
    changed: int | None = None

    __repr__ = brief

    @detached
    def to_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class _Input:
    """An opened input of either sort.

    Attributes
    ----------
    source : Source
        Its `kind` is provisional for arrays.
    scores : str
        ``FILE:MEMBER`` of the scores, for messages; the member's name is evidence of their kind.
    dtypes : dict of str to str
        Of the fields to be written, as in `OutputSpec`.
    """

    source: Source
    scores: str
    dtypes: dict[str, str]
    scalar_delta: float | None = None
    dropped: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


class ConvertOptions(ArrayOptions, total=False):
    """Options of `convert`."""

    dtype: DtypeOption
    force: ForceOption
    threads: ThreadsOption
    tell: TellOption
    progress: ProgressOption


def convert(
    inputs: str | os.PathLike[str],
    out: str | os.PathLike[str],
    **options: Unpack[ConvertOptions],
) -> Steps[ConvertResult]:
    """Write a logits file in another format, block by block: every bit of the scores is kept, but where `dtype` rounds.

    Parameters
    ----------
    inputs : str
        A logits file of any format, ``FILE::GROUP`` or ``FILE::PART``, or ``-``.
    out : str
        The output; its suffix names the format. ``-`` is an Arrow stream on standard output.
    **options : Unpack[ConvertOptions]
        See `ConvertOptions`.

    Returns
    -------
    ConvertResult

    Raises
    ------
    UsageError
        Options that make no sense for this input, or an unknown suffix of the output.
    DataError
        The arrays are not what a logits file holds, or leave a doubt about what they are.
    CannotCreateError, StorageError
        The output cannot be written. Nothing is left behind, and an older file is untouched.

    Examples
    --------
    >>> from unoic_cli import convert
    >>> import os, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "val.npz")
    ...     np.savez(path, logits=np.float32([[2.5, -1], [0, 3]]), y=np.array([0, 1]))
    ...     result = convert(path, os.path.join(folder, "val.h5"))
    >>> result.kind, result.n_samples, result.n_classes, result.fields
    ('logits', 2, 2, ('labels',))
    """
    chosen = filled(ConvertOptions, options)
    source, out, kind = os.fspath(inputs), os.fspath(out), chosen["kind"]
    check_threads(chosen["threads"])
    asked = asked_of(chosen)
    labels = asked.labels_file
    check_dtype(chosen["dtype"])
    source = single(source, (yield from expand(source, asked)))
    is_arrays = formats.says_little(source)
    out = yield from take_output(out, force=chosen["force"], inputs=(source,) if labels is None else (source, labels))
    given = yield from _stored_input(source, chosen["allow_external"], asked, is_arrays)
    decided, reason = yield from _decide_kind(given, kind, is_arrays)
    written = given.source
    if written.n_classes == 1:
        written = one_column.widened(replace(written, kind=decided, notes=()))
        given.notes.extend(written.notes)
    if written.kind == "predictions" and chosen["dtype"] != "keep":
        raise UsageError("--dtype", f"given, but {written.name} holds predictions", "expected scores")
    written = replace(written, kind=decided)
    made = written if chosen["dtype"] == "keep" else replace(written, encoding=cast("Encoding", chosen["dtype"]))
    watch = None
    if not is_exact(written.encoding, made.encoding):
        watch = yield from make_watch(written, made.encoding, None)
    shard = (yield from here()).shard
    data = DataSet((given.source,), None, frozenset(), written.n_samples, shard=shard)
    copier = _Copied(given, written, made, watch)
    left = formats.left_out(out, copier.spec(written.n_samples))
    given.notes.extend(not_held(out, left))
    copied = yield from rewrite(data, out, copier)
    seen, *rounding = copied.tallies
    written = made
    given.notes.extend(label_notes(seen.labels, written.n_classes))
    copy = replace(written, kind=decided, fields=written.fields - {"sample_id"})  # not read twice
    if out != formats.STANDARD:
        copy = replace(described_again(copied.place, copier.spec(written.n_samples)), name=out)
    repeated = yield from id_findings([copy], None)
    given.notes.extend(map(str, findings_of(copy, seen.evidence, repeated, memory=written)))
    unused = f"not used: {', '.join(given.dropped)}"
    if given.dropped and unused not in given.notes:
        given.notes.append(unused)
    changed = rounding[0].changed[0] if rounding else None
    result = _result(given, out, decided, reason, written, copied.n_units // written.pixels, changed)
    return replace(result, fields=tuple(name for name in result.fields if name not in left))


def _result(
    given: _Input, out: str, kind: Kind, reason: str, written: Source, n_samples: int, changed: int | None
) -> ConvertResult:
    return ConvertResult(
        input=given.scores,
        output=out,
        kind=kind,
        kind_from=reason,
        n_samples=n_samples,
        n_classes=written.n_classes,
        image_shape=written.image_shape,
        encoding=written.encoding,
        fields=kept_fields(written, given.dtypes, predictions=written.has_predictions, scalar=given.scalar_delta),
        dropped=given.dropped,
        notes=tuple(given.notes),
        changed=changed,
    )


# ------------------------------------------------------------------------------------------------
# what the scores are


def _decide_kind(given: _Input, declared: Kind | None, is_arrays: bool) -> Steps[tuple[Kind, str]]:
    """Kind of the scores and how it was decided, after a look at all values where it matters."""
    source = given.source
    if not is_arrays and declared is None:
        return source.kind, "the name of the scores"
    if source.kind == "predictions":
        raise UsageError("--kind", f"given, but {source.name} holds predictions", "expected scores")
    tally = KindTally(source)
    data = DataSet((source,), None, frozenset(), source.n_samples)
    yield from count(data, [tally], as_stored=True, shared=True)
    values, blank = tally.values, tally.blank
    if blank is not None:
        said = f"{blank.value} at {where_is(source, blank.unit)}"
        given.notes.append(f"{said}, whose label is ignored: such units take no part")
    if "sum" in values.first and source.n_samples > 1 and tally.sums_over_samples:
        found = "values that sum to 1 along the first axis, and not along that of the classes"
        raise DataError(given.scores, found, f"expected --class-axis 0, or {schema.CLASSES_FIRST}")
    name = given.scores.rpartition(":")[2].lower()
    decided, reason = (declared, "--kind") if declared else _seen_kind(given, name, values)
    _refuse_not_finite(given, values, decided)
    if decided == "log_probs":
        _refuse_first(
            given, values, "positive", "expected logarithms of probabilities, none above 0 (else --kind logits)"
        )
    if decided == "probs":
        hint = f"expected probabilities in [0, 1]{'' if declared else ', as the name says (else --kind logits)'}"
        _refuse_first(given, values, "outside", hint)
    given.notes.extend(_kind_notes(given, decided, name, values))
    return decided, reason


def _seen_kind(given: _Input, name: str, values: ScoreValues) -> tuple[Kind, str]:
    """Kind by the name of the member and by all of its values; doubts are refused."""
    said = names.kind_of(name)
    if said == "log_probs":
        return "log_probs", "the name of the member"
    if "outside" in values.first:
        return ("probs" if said == "probs" else "logits"), "the values: not all lie in [0, 1]"
    if given.source.n_classes == 1 and said is not None:
        return said, "the name of the member"
    if given.source.n_classes == 1:
        expected = "expected --kind probs or --kind logits to say what they are"
        raise DataError(given.scores, "one score of each unit, all in [0, 1]", expected)
    if "sum" not in values.first:
        return "probs", "the values: all lie in [0, 1] and each row sums to 1"
    row = values.first["sum"]
    found = f"all values lie in [0, 1], but {where_is(given.source, row.unit)} sums to {row.value:.6g}"
    raise DataError(given.scores, found, "expected --kind probs or --kind logits to say what they are")


def _refuse_not_finite(given: _Input, values: ScoreValues, kind: Kind) -> None:
    expected = "expected finite values"
    for name, text in (("nan", "NaN"), ("+inf", "inf"), ("-inf", "-inf")):
        if name in values.first and (name, kind) not in (("-inf", "log_probs"), ("-inf", "logits")):
            raise DataError(given.scores, f"{text} at {where_is(given.source, values.first[name].unit)}", expected)


def _refuse_first(given: _Input, values: ScoreValues, name: str, expected: str) -> None:
    if name in values.first:
        unit, value = values.first[name]
        raise DataError(given.scores, f"{value:.6g} at {where_is(given.source, unit)}", expected)


def _kind_notes(given: _Input, kind: Kind, name: str, values: ScoreValues) -> list[str]:
    notes = []
    if kind == "probs" and "sum" not in values.first and names.kind_of(name) == "logits":
        notes.append(f"stored as probs: the values of {name} lie in [0, 1] and each row sums to 1")
    return notes


# ------------------------------------------------------------------------------------------------
# copying


@dataclass(frozen=True)
class _Copied:
    """Makes every block as it is stored; one score of each unit becomes those of two classes."""

    given: _Input
    written: Source
    made: Source
    watch: Watch | None = None

    view = View()
    as_stored = True
    pieces = None

    @property
    def fields(self) -> frozenset[str]:
        """What is read."""
        more = {"predictions"} if self.given.source.has_predictions else set()
        return frozenset({"scores", *more, *self.given.dtypes})

    def spans(self, data: DataSet) -> list[Span]:
        """What a worker reads at once."""
        return data.spans(BLOCK_BYTES)

    def create(self, path: str, spec: OutputSpec, unfinished: str | None) -> Writer:
        """Start the output, or go on with an unfinished one."""
        return formats.create(path, spec, unfinished=unfinished)

    def spec(self, n_samples: int) -> OutputSpec:
        """The form of the output."""
        return replace(copy_spec(self.made, self.given.dtypes, self.given.scalar_delta), n_samples=n_samples)

    def tallies(self) -> list[Any]:
        """What the input is like, and what rounding changes."""
        return [CopyTally(self.written), *([] if self.watch is None else [RoundingTally(1)])]

    def worker(self, spec: OutputSpec, tallies: Sequence[Any]) -> Callable[[Batch, int], Iterator[LogitBlock]]:
        """What makes blocks in one thread."""
        seen, *rounding = tallies
        counter = None if self.watch is None else self.watch.counter(rounding[0].changed)

        def make(batch: Batch, start: int) -> Iterator[LogitBlock]:
            block = self._widened(batch.part.block)
            seen.update(stored_batch(choose_split(block, self.written, None)))
            if self.given.source.has_predictions:
                check_predictions(self.written, block)
            if block.scores is not None and self.made.encoding != self.written.encoding:
                scores = as_encoding(block.scores, self.written, self.made.encoding, block.start)
                if counter is not None:
                    counter.update(block, scores, self.given.scalar_delta)
                block = replace(block, scores=scores)
            yield replace(block, start=start, stop=start + batch.n_units)

        return make

    def _widened(self, block: LogitBlock) -> LogitBlock:
        source = self.given.source
        if source.n_classes > 1 or block.scores is None:
            return block
        one, written = block.scores, self.written
        two = np.empty((len(one), 2, *one.shape[2:]), schema.score_dtype(written.encoding))
        one_column.fill(one, source.encoding, written.kind, two)
        return replace(block, scores=two)


def not_held(path: Any, left: Sequence[str]) -> list[str]:
    """What to say of what the format of an output cannot hold."""
    return [f"{formats.writable(path).TITLE} holds no {', '.join(left)}: left out (HDF5 and npz do)"] if left else []


def described_again(place: str, spec: OutputSpec) -> Source:
    """What was written, as it is found; a file that holds one array alone says less of it."""
    images = bool(spec.image_shape) and spec.kind != "predictions"
    kind = None if spec.kind == "predictions" else spec.kind
    alone = formats.detect(place) == "npy"
    return formats.describe(place, asked=Asked(kind=kind, class_axis=1) if alone and images else Asked(kind=kind))


def copy_spec(source: Source, dtypes: dict[str, str], scalar: float | None) -> OutputSpec:
    """The form of a copy, in the encoding and layout of the source."""
    return OutputSpec(
        n_samples=source.n_samples,
        n_classes=source.n_classes,
        image_shape=source.image_shape,
        kind=source.kind,
        encoding=source.encoding,
        layout=source.layout,
        predictions=source.has_predictions,
        dtypes=dtypes,
        scalar_delta=scalar,
        class_names=source.class_names,
        source_counts=source.source_counts,
        source_prior=source.source_prior,
        attributes=dict(source.attributes),
    )


def check_predictions(source: Source, block: LogitBlock) -> None:
    """Refuse predictions that the output's smaller type would change, but where the label is none, either."""
    assert block.predictions is not None
    outside = (block.predictions < 0) | (block.predictions >= source.n_classes)
    if not outside.any():
        return
    wrong = outside.copy()
    if block.labels is not None:
        wrong &= (block.labels >= 0) & (block.labels < source.n_classes)
    if wrong.any():
        i = int(wrong.argmax())
        found = f"{block.predictions[i]} at {where_is(source, block.start + i)}"
        raise DataError(f"{source.name}:predictions", found, f"expected classes in [0, {source.n_classes})")
    largest = np.iinfo(schema.prediction_dtype(source.n_classes)).max
    block.predictions = np.where(outside, largest, block.predictions)


def kept_fields(
    source: Source, dtypes: Mapping[str, str], *, predictions: bool, scalar: float | None
) -> tuple[str, ...]:
    """Names of what a copy keeps beside the scores."""
    extras = ["predictions"] if predictions else []
    extras += ["delta"] if scalar is not None else []
    extras += [name for name in ("source_counts", "source_prior", "class_names") if getattr(source, name) is not None]
    return tuple(sorted([*dtypes, *extras]))


def label_notes(labels: ClassCounts, n_classes: int) -> list[str]:
    """What to say of labels that are no class."""
    outside = labels.outside.sorted()
    if not outside:
        return []
    listed = ", ".join(f"{value} ({count:,} times)" for value, count in list(outside.items())[:5])
    return [f"labels outside [0, {n_classes}): {listed}{', ...' if len(outside) > 5 else ''}"]


# ------------------------------------------------------------------------------------------------
# the input


def _stored_input(name: str, allow_external: bool, asked: Asked, is_arrays: bool) -> Steps[_Input]:
    """Open a file as an input; what scores of plain arrays are is decided by all of their values."""
    provisional = replace(asked, kind=None, decide=False) if is_arrays else asked
    source = yield from described(name, allow_external=allow_external, asked=provisional)
    scalar = scalar_delta(source)
    dtypes = field_dtypes(source, scalar)
    notes = list(source.notes)
    if is_arrays:
        origin = f"{os.path.basename(source.name)}:{source.scores_name.rpartition(':')[2]}"
        source = replace(source, attributes={"converted_from": origin})
        notes = _array_notes(source)
    if source.single:
        notes.remove(one_column.meaning(source.kind))
        source = one_column.as_stored(source)
    dropped = source.others
    return _Input(source, source.scores_name, dtypes, scalar, dropped, notes)


def _array_notes(source: Source) -> list[str]:
    """What to say of plain arrays: the names that they take become the schema's own."""
    notes = [note for note in source.notes if not note.startswith("labels are read from")]
    if "labels" not in source.fields and not any("labels" in note for note in notes):
        notes.append(f"no labels (none of {', '.join(names.LABELS)}; --labels-key NAME takes another)")
    return notes


def field_dtypes(source: Source, scalar: float | None) -> dict[str, str]:
    """Dtypes of the fields that are written (not of a `scalar` delta), by a look at the first unit."""
    fields = source.fields if scalar is None else source.fields - {"delta"}
    if not fields:
        return {}
    first = formats.first_block(source, 1, fields)
    dtypes = {name: getattr(first, name).dtype for name in sorted(fields)}
    return {name: "str" if dtype.kind == "O" else dtype.name for name, dtype in dtypes.items()}
