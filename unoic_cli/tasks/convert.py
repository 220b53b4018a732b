"""Make a logits file: of numpy arrays, or of a logits file in the other format."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from unoic_cli import formats
from unoic_cli.batch import choose_split, ignored_units, where_is
from unoic_cli.block import Encoding, Kind, LogitBlock, OutputSpec, Source
from unoic_cli.brief import brief
from unoic_cli.errors import DataError, UsageError
from unoic_cli.evidence import SourceEvidence
from unoic_cli.formats import names, numpy_files, schema
from unoic_cli.formats import single as one_column
from unoic_cli.formats.names import Asked
from unoic_cli.output import together
from unoic_cli.steps import Steps
from unoic_cli.tallies.evidence import TOLERANCE
from unoic_cli.tasks.info import BLOCK_BYTES, ClassCounts, ScoreValues, as_floats, scalar_delta
from unoic_cli.tasks.inputs import expand, single

if TYPE_CHECKING:
    from numpy.typing import NDArray

PER_SAMPLE = ("split", "group", "sample_id")

_TELLING = 4096
"""Scores of each volume that tell along which axis probabilities sum to 1."""

Members = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]


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

    __repr__ = brief

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
    blocks : callable
        All units in order, with just the fields asked for.
    dtypes : dict of str to str
        Of the fields to be written, as in `OutputSpec`.
    """

    source: Source
    scores: str
    blocks: Callable[[frozenset[str]], Iterator[LogitBlock]]
    dtypes: dict[str, str]
    scalar_delta: float | None = None
    has_predictions: bool = False
    dropped: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)


def convert(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    logits_key: str | None = None,
    labels_key: str | None = None,
    kind: Kind | None = None,
    class_axis: int | None = None,
    labels: str | None = None,
    force: bool = False,
    allow_external: bool = False,
) -> Steps[ConvertResult]:
    """Write an npz, npy, HDF5 or Parquet file as HDF5 or Parquet, block by block; every bit of the scores is kept.

    Parameters
    ----------
    source : str
        ``FILE.npz``, ``FILE.npy``, ``FILE.parquet``, ``FILE.h5[::GROUP]``, a remote logits file, or ``-``.
    out : str
        The output; its suffix names the format. ``-`` is an Arrow stream on standard output.
    logits_key, labels_key : str, optional
        Arrays (or columns) of the input, where their names do not tell.
    kind : {"logits", "log_probs", "probs"}, optional
        What the scores are. Otherwise the values of an npz or npy file decide, once; HDF5 and
        Parquet files say it themselves.
    class_axis : int, optional
        Of 4-D scores: 1 for (N, K, H, W), -1 for (N, H, W, K), where no labels settle it.
    labels : str, optional
        Another npy or npz file with the labels of an npz or npy file.
    force : bool
        Replace an output that exists.
    allow_external : bool
        Follow links of an HDF5 file to other files.

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
    source, out = os.fspath(source), os.fspath(out)
    if kind is not None:
        names.check_kind("--kind", kind)
    source, asked = single(source, (yield from expand(source))), Asked(logits_key, labels_key, class_axis, kind)
    is_arrays = formats.detect(source) not in formats.MODULES
    if is_arrays:
        formats.storage.refuse_remote(source, "npz or npy file")
    elif labels is not None:
        found = f"given, but {formats.storage.shown(source)} is no npz or npy file"
        raise UsageError("--labels", found, "expected it for such files only")
    _check_output(out, force, (source,) if labels is None else (source, labels))
    if is_arrays:
        arrays = _Arrays(source, asked, labels)
        given = arrays.as_input()
    else:
        given = _stored_input(source, allow_external, asked)
    decided, reason = _decide_kind(given, kind, is_arrays)
    if given.source.n_classes == 1:
        given = _two_classes(given, decided)
    with together(given.notes.append) as outputs:
        fields, evidence = _copy(given, decided, out)
        written = replace(given.source, kind=decided, fields=given.source.fields - {"sample_id"})  # not read twice
        if out != formats.STANDARD:
            written = replace(formats.describe(outputs.found(out)), name=out)
        given.notes.extend(map(str, evidence.findings(written)))
    if given.dropped:
        given.notes.append(f"not used: {', '.join(given.dropped)}")
    return _result(given, out, decided, reason, fields)


def _result(given: _Input, out: str, kind: Kind, reason: str, fields: tuple[str, ...]) -> ConvertResult:
    return ConvertResult(
        input=given.scores,
        output=out,
        kind=kind,
        kind_from=reason,
        n_samples=given.source.n_samples,
        n_classes=given.source.n_classes,
        image_shape=given.source.image_shape,
        encoding=given.source.encoding,
        fields=fields,
        dropped=given.dropped,
        notes=tuple(given.notes),
    )


def _check_output(out: str, force: bool, inputs: tuple[str, ...]) -> None:
    """Check the name of the output before the input is read, which may take long."""
    if out == formats.STANDARD:
        formats.check_stream(force=force)
        return
    suffix = os.path.splitext(out)[1].lower()
    if suffix not in formats.SUFFIXES:
        raise UsageError(out, f"unknown suffix {suffix!r}", f"expected one of {', '.join(formats.SUFFIXES)}")
    formats.check_output(out, force=force, inputs=inputs)


# ------------------------------------------------------------------------------------------------
# what the scores are


def _decide_kind(given: _Input, declared: Kind | None, is_arrays: bool) -> tuple[Kind, str]:
    """Kind of the scores and how it was decided, after a look at all values where it matters."""
    source = given.source
    if not is_arrays and declared is None:
        return source.kind, "the name of the scores"
    if source.kind == "predictions":
        raise UsageError("--kind", f"given, but {source.name} holds predictions", "expected scores")
    values = ScoreValues(source.encoding, source.n_classes)
    over_samples = np.zeros(min(_TELLING, source.pixels * source.n_classes) if source.image_shape else 1)
    for block in given.blocks(frozenset({"scores", *({"labels"} & set(given.dtypes))})):
        assert block.scores is not None
        scores, units = _taking_part(given, block)
        values.update(scores, lambda unit, units=units: int(units[unit]))  # type: ignore[misc]  # bound at once
        over_samples += _over_samples(block.scores, source)
    if "sum" in values.first and source.n_samples > 1 and (np.abs(over_samples - 1) <= TOLERANCE).all():
        found = "values that sum to 1 along the first axis, and not along that of the classes"
        raise DataError(given.scores, found, f"expected {schema.CLASSES_FIRST}")
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


def _taking_part(given: _Input, block: LogitBlock) -> tuple[NDArray[Any], Sequence[int] | NDArray[np.int64]]:
    """Scores of a block without units whose label is ignored and whose scores are none, and which units they are of."""
    source, scores = given.source, block.scores
    assert scores is not None
    ignored = ignored_units(block.labels, source.n_classes)
    flat = scores if scores.ndim == 2 else np.moveaxis(scores, 1, 2).reshape(-1, source.n_classes)
    blank = ignored[~np.isfinite(as_floats(flat[ignored], source.encoding == "bfloat16")).all(axis=1)]
    if not blank.size:
        return scores, range(block.start, block.stop)
    said = f"{flat[blank[0]].max()} at {where_is(source, block.start + int(blank[0]))}"
    if not any("such units take no part" in note for note in given.notes):
        given.notes.append(f"{said}, whose label is ignored: such units take no part")
    kept = np.delete(np.arange(block.stop - block.start), blank)
    return flat[kept], block.start + kept


def _over_samples(scores: NDArray[Any], source: Source) -> NDArray[np.float64]:
    """The sum over the samples of a block, of as many scores of each as tell where the classes are."""
    if not source.image_shape or scores.size % (source.pixels * source.n_classes):  # a part of an image
        return np.zeros(1)
    each = scores.reshape(-1, source.pixels * source.n_classes)[:, :_TELLING]
    return np.asarray(as_floats(each, source.encoding == "bfloat16").sum(axis=0, dtype=np.float64))


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


def _two_classes(given: _Input, kind: Kind) -> _Input:
    """An input of one score of each unit as one of two classes."""
    source = one_column.widened(dataclasses.replace(given.source, kind=kind, notes=()))
    given.notes.extend(source.notes)

    def blocks(fields: frozenset[str]) -> Iterator[LogitBlock]:
        for block in given.blocks(fields):
            if block.scores is not None:
                one = block.scores
                block.scores = np.empty((len(one), 2, *one.shape[2:]), schema.score_dtype(source.encoding))
                one_column.fill(one, given.source.encoding, kind, block.scores)
            yield block

    return dataclasses.replace(given, source=source, blocks=blocks)


# ------------------------------------------------------------------------------------------------
# copying


def _copy(given: _Input, kind: Kind, out: str) -> tuple[tuple[str, ...], SourceEvidence]:
    """Write all blocks; return the names of what was kept beside the scores, and what was seen."""
    source = given.source
    spec = OutputSpec(
        n_samples=source.n_samples,
        n_classes=source.n_classes,
        image_shape=source.image_shape,
        kind=kind,
        encoding=source.encoding,
        layout=source.layout,
        predictions=given.has_predictions,
        dtypes=given.dtypes,
        scalar_delta=given.scalar_delta,
        class_names=source.class_names,
        source_counts=source.source_counts,
        source_prior=source.source_prior,
        attributes=source.attributes,
    )
    fields = frozenset(given.dtypes) | {"scores"} | ({"predictions"} if given.has_predictions else set())
    labels, evidence = ClassCounts(source.n_classes), SourceEvidence(source)
    writer = formats.create(out, spec)
    try:
        for block in given.blocks(fields):
            evidence.look(choose_split(block, source, None))
            if block.labels is not None:
                labels.update(block.labels)
            if given.has_predictions:
                check_predictions(source, block)
            writer.write(block)
        formats.check_unchanged((source,))
        writer.commit()
    except BaseException:
        writer.abort()
        raise
    given.notes.extend(label_notes(labels, source.n_classes))
    extras = ["predictions"] if given.has_predictions else []
    extras += ["delta"] if given.scalar_delta is not None else []
    extras += [name for name in ("source_counts", "source_prior", "class_names") if getattr(source, name) is not None]
    return tuple(sorted([*given.dtypes, *extras])), evidence


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


def label_notes(labels: ClassCounts, n_classes: int) -> list[str]:
    """What to say of labels that are no class."""
    outside = labels.outside.sorted()
    if not outside:
        return []
    listed = ", ".join(f"{value} ({count:,} times)" for value, count in list(outside.items())[:5])
    return [f"labels outside [0, {n_classes}): {listed}{', ...' if len(outside) > 5 else ''}"]


# ------------------------------------------------------------------------------------------------
# HDF5 and Parquet


def _stored_input(name: str, allow_external: bool, asked: Asked) -> _Input:
    """Open a logits file as an input."""
    source = formats.describe(name, allow_external=allow_external, asked=asked)

    def blocks(fields: frozenset[str]) -> Iterator[LogitBlock]:
        reader = formats.open_reader(source)
        try:
            for start, stop in formats.spans(source, BLOCK_BYTES):
                yield from reader.blocks(start, stop, fields)
        finally:
            reader.close()

    has_predictions = formats.has_predictions(source)
    scalar = scalar_delta(source)
    fields = source.fields - {"delta"} if scalar is not None else source.fields
    dtypes = field_dtypes(source, fields)
    notes = list(source.notes)
    if source.single:
        notes.remove(one_column.meaning(source.kind))
        source = one_column.as_stored(source)
    dropped = source.others
    return _Input(source, source.scores_name, blocks, dtypes, scalar, has_predictions, dropped, notes)


def field_dtypes(source: Source, fields: frozenset[str]) -> dict[str, str]:
    """Dtypes of optional fields, by a look at the first unit."""
    if not fields:
        return {}
    reader = formats.open_reader(source)
    try:
        first = formats.first_block(reader, source, 1, fields)
    finally:
        reader.close()
    dtypes = {name: getattr(first, name).dtype for name in sorted(fields)}
    return {name: "str" if dtype.kind == "O" else dtype.name for name, dtype in dtypes.items()}


# ------------------------------------------------------------------------------------------------
# npz and npy


class _Arrays:
    """Which arrays of an npz or npy file are what, and streams over them."""

    def __init__(self, path: str, asked: Asked, labels: str | None) -> None:
        self.path, self.asked = path, asked
        self.members = numpy_files.members(path)
        self.there = {name: names.Facts(*facts) for name, facts in self.members.items()}
        self.notes: list[str] = []
        self.places: dict[str, tuple[str, str]] = {}
        """Path and member of each field that is streamed."""
        self.arrays: Members = {}
        """Shape and dtype of each of these."""
        member = self._choose_logits()
        self.where = f"{path}:{member}"
        self._take("scores", path, member)
        self.encoding = self._encoding(member)
        self._find_labels(labels, member)
        self.shape = self._shape()
        if "labels" in self.places:
            self._check_labels(":".join(self.places["labels"]))
        self.scalar_delta = self._find_delta()
        for name in PER_SAMPLE:
            if name in self.members and self._is_free(name):
                numpy_files.check(f"{path}:{name}", self.members[name][1])
                self._take(name, path, name)
                schema.check_per_sample(f"{path}:{name}", self.arrays[name][0], self.shape.n_samples)
                schema.check_length(f"{path}:{name}", self.arrays[name][1])

    def _choose_logits(self) -> str:
        """Name of the member that holds the scores."""
        if len(self.members) == 1 and self.asked.logits_key is None and formats.detect(self.path) == "npy":
            return next(iter(self.members))
        chosen = names.choose_scores(self.path, self.there, self.asked)
        self.notes += chosen.notes
        if chosen.name is None:
            expected = f"expected --logits-key NAME, or one of {', '.join(names.SCORES)} or logits_..."
            raise DataError(self.path, f"no scores among {_listing(self.there)}", expected)
        return chosen.name

    def _shape(self) -> schema.ScoreShape:
        """Shape of the scores, by what lies beside them where they are images."""
        shape = self.arrays["scores"][0]
        labels = self.arrays["labels"][0] if "labels" in self.arrays else None
        axis = self.asked.class_axis
        if axis is None and labels is not None and labels not in names.unit_shapes(shape or (0,)):
            axis = 1  # what is wrong with the labels is said where they are checked
        if len(shape) == 3 and labels in (shape, (shape[0], 1, *shape[1:])):
            axis = 0
        beside = [labels or (), *([self.members["delta"][0]] if "delta" in self.members else [])]
        per_class = (*names.COUNTS, "source_prior", "class_names")
        lengths = [self.members[name][0][0] for name in per_class if name in self.members and self.members[name][0]]
        axis, notes = names.settle_axis(self.where, shape, axis, beside, lengths)
        self.notes += [*notes, *names.check_turned(self.where, shape, labels, lengths)]
        return schema.score_shape(self.where, shape, axis)

    def _take(self, role: str, path: str, member: str) -> None:
        self.places[role] = (path, member)
        self.arrays[role] = (self.members if path == self.path else numpy_files.members(path))[member]

    def _is_free(self, member: str) -> bool:
        return (self.path, member) not in self.places.values()

    def _encoding(self, member: str) -> Encoding:
        dtype = self.arrays["scores"][1]
        numpy_files.check(f"{self.path}:{member}", dtype)
        if dtype.kind in "iub":
            hint = "; class indices are stored as predictions" if len(self.arrays["scores"][0]) in (1, 3) else ""
            raise DataError(f"{self.path}:{member}", f"{dtype.name} values", f"expected floats{hint}")
        if dtype.name not in ("float16", "float32", "float64"):
            raise DataError(f"{self.path}:{member}", f"{dtype.name} values", "expected float16, float32 or float64")
        return cast("Encoding", dtype.name)

    def _find_labels(self, path: str | None, scores: str) -> None:
        asked, shape = self.asked, self.arrays["scores"][0]
        there, units = self.there, names.unit_shapes(shape) if shape else []
        if path is not None:
            there = {name: names.Facts(*facts) for name, facts in numpy_files.members(path).items()}
            if len(there) == 1 and asked.labels_key is None:
                asked = dataclasses.replace(asked, labels_key=next(iter(there)))
        chosen = names.choose_labels(path or self.path, there, units, asked, scores if path is None else "")
        told = chosen.notes if chosen.name is None else chosen.notes[1:]  # the names that it takes are its own
        self.notes += told
        if chosen.name is not None:
            self._take("labels", path or self.path, chosen.name)
            numpy_files.check(f"{path or self.path}:{chosen.name}", self.arrays["labels"][1])
        elif path is not None:
            raise DataError(path, f"no labels among {_listing(there)}", "expected --labels-key NAME")
        elif not chosen.notes:
            self.notes.append(f"no labels (none of {', '.join(names.LABELS)}; --labels-key NAME takes another)")

    def _check_labels(self, where: str) -> None:
        shape, dtype = self.arrays["labels"]
        scores = self.arrays["scores"][0]
        wanted = (self.shape.n_samples, *self.shape.image_shape)
        if shape == scores and self.shape.n_classes > 1:
            raise DataError(
                where, f"shape {shape}, as of the scores", "expected class indices (one-hot? store its argmax)"
            )
        if dtype.kind == "f":
            raise DataError(
                where, f"{dtype.name} values", "expected integers (whole numbers? store labels.astype(int))"
            )
        if shape == scores[:-1] != wanted:
            raise DataError(
                where, f"shape {shape}", f"expected {wanted}; or --class-axis -1 for classes on the last axis"
            )
        schema.check_labels(where, shape, dtype, self.shape)

    def _find_delta(self) -> float | None:
        if "delta" not in self.members or not self._is_free("delta"):
            return None
        shape, dtype = self.members["delta"]
        self._take("delta", self.path, "delta")
        if schema.check_delta(f"{self.path}:delta", shape, dtype, self.shape) != "scalar":
            return None
        return float(numpy_files.read(self.path, "delta"))

    def as_input(self) -> _Input:
        """Everything that `convert` needs."""
        counts = next((name for name in names.COUNTS if name in self.members and self._is_free(name)), None)
        source_counts, source_prior = self._vector(counts), self._vector("source_prior")
        class_names = self._class_names()
        used = {member for path, member in self.places.values() if path == self.path} | {counts}
        used |= {"source_prior", "class_names"}
        source = Source(
            name=self.path,
            format="numpy",
            n_samples=self.shape.n_samples,
            n_classes=self.shape.n_classes,
            image_shape=self.shape.image_shape,
            kind="logits",
            encoding=self.encoding,
            layout=self.shape.layout,
            fields=frozenset(self.places) - {"scores"},
            source_counts=source_counts,
            source_prior=source_prior,
            class_names=class_names,
            attributes={"converted_from": f"{os.path.basename(self.path)}:{self.places['scores'][1]}"},
        )
        dtypes = {name: self._dtype(name) for name in self.places if name != "scores"}
        if self.scalar_delta is not None:
            del dtypes["delta"]
        reasons = {name: numpy_files.unreadable(dtype) for name, (_, dtype) in self.members.items()}
        dropped = tuple(
            f"{name} ({reasons[name]})" if reasons[name] else name for name in self.members if name not in used
        )
        return _Input(source, self.where, self.blocks, dtypes, self.scalar_delta, False, dropped, self.notes)

    def _vector(self, member: str | None) -> tuple[float, ...] | None:
        if member is None or member not in self.members:
            return None
        where = f"{self.path}:{member}"
        schema.check_vector(where, *self.members[member], self.shape.known_classes)
        return schema.class_vector(where, numpy_files.read(self.path, member), self.shape.known_classes)

    def _class_names(self) -> tuple[str, ...] | None:
        if "class_names" not in self.members:
            return None
        where = f"{self.path}:class_names"
        schema.check_names(where, *self.members["class_names"], self.shape.known_classes)
        return schema.class_names(where, numpy_files.read(self.path, "class_names"), self.shape.known_classes)

    def _dtype(self, role: str) -> str:
        dtype = self.arrays[role][1]
        if role == "labels":
            return "uint8" if dtype.kind == "b" else dtype.name
        if role == "delta":
            return dtype.name if dtype.name in ("float16", "float32") else "float64"
        if dtype.kind in "iu" and role != "sample_id":
            self.notes.append(f"{role}: integers, stored as text")
        return dtype.name if dtype.kind in "iu" and role == "sample_id" else "str"

    def blocks(self, fields: frozenset[str]) -> Iterator[LogitBlock]:
        """All units in order, whole samples at a time."""
        n_samples, pixels = self.shape.n_samples, self.shape.pixels
        itemsize = self.arrays["scores"][1].itemsize
        step = max(1, BLOCK_BYTES // (itemsize * self.shape.n_classes * pixels))
        streams = {name: self._stream(name, step) for name in fields}
        try:
            for first in range(0, n_samples, step):
                last = min(first + step, n_samples)
                block = LogitBlock(first * pixels, last * pixels)
                for name, stream in streams.items():
                    setattr(block, name, self._block_field(name, next(stream), block))
                yield block
        finally:
            for stream in streams.values():
                stream.close()

    def _stream(self, role: str, step: int) -> Any:
        path, member = self.places[role]
        shape, dtype = self.arrays[role]
        row_bytes = int(np.prod(shape[1:], dtype=np.int64)) * dtype.itemsize
        return numpy_files.rows(path, member, step * max(1, row_bytes))

    def _block_field(self, role: str, values: NDArray[Any], block: LogitBlock) -> NDArray[Any]:
        """Rows of one member as a block holds them."""
        pixels = self.shape.pixels
        if role in PER_SAMPLE:
            if values.dtype.kind not in "iu":
                return schema.text(f"{self.path}:{role}", values)
            return values if role == "sample_id" else values.astype(str).astype(object)
        values = np.ascontiguousarray(values, schema.native(values.dtype))
        if role == "labels":
            return values.reshape(-1).view(np.uint8) if values.dtype.kind == "b" else values.reshape(-1)
        if role == "delta":
            flat = values.reshape(-1).astype(np.float64)
            whole = flat.size == block.stop - block.start
            return flat if whole else schema.per_unit(flat, block.start, block.stop, pixels)
        scores = values.view(np.uint16) if values.dtype == np.float16 else values
        if self.shape.layout == "planes":
            return scores.reshape(len(scores), self.shape.n_classes, pixels)
        return scores.reshape(-1, self.shape.n_classes)


def _listing(there: Mapping[str, names.Facts]) -> str:
    """Names, shapes and dtypes, as far as they fit on a line."""
    listed = [f"{name}{facts}" for name, facts in there.items()]
    return ", ".join(listed[:12]) + (", ..." if len(listed) > 12 else "") if listed else "nothing"
