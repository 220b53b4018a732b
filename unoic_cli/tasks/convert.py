"""Make a logits file: of numpy arrays, or of a logits file in the other format."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from unoic_cli import formats
from unoic_cli.batch import choose_split, ignored_units, stored_batch, where_is
from unoic_cli.block import Kind, LogitBlock, OutputSpec, Source
from unoic_cli.brief import brief
from unoic_cli.errors import DataError, UsageError
from unoic_cli.evidence import findings_of, id_findings
from unoic_cli.formats import names, schema
from unoic_cli.formats import single as one_column
from unoic_cli.formats.names import Asked
from unoic_cli.output import together
from unoic_cli.steps import Steps
from unoic_cli.tallies.contents import ClassCounts, CopyTally, ScoreValues, as_floats
from unoic_cli.tallies.evidence import TOLERANCE
from unoic_cli.tasks.info import BLOCK_BYTES, scalar_delta
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
    asked = Asked(logits_key, labels_key, class_axis, kind, labels)
    source = single(source, (yield from expand(source)))
    is_arrays = formats.says_little(source)
    if labels is not None and not is_arrays:
        found = f"given, but {formats.storage.shown(source)} is no npz or npy file"
        raise UsageError("--labels", found, "expected it for such files only")
    _check_output(out, force, (source,) if labels is None else (source, labels))
    given = _stored_input(source, allow_external, asked, is_arrays)
    decided, reason = _decide_kind(given, kind, is_arrays)
    if given.source.n_classes == 1:
        given = _two_classes(given, decided)
    with together(given.notes.append) as outputs:
        fields, seen = _copy(given, decided, out)
        written = replace(given.source, kind=decided, fields=given.source.fields - {"sample_id"})  # not read twice
        if out != formats.STANDARD:
            written = replace(formats.describe(outputs.found(out)), name=out)
        repeated = yield from id_findings([written], None)
        given.notes.extend(map(str, findings_of(written, seen.evidence, repeated, memory=given.source)))
    left = f"not used: {', '.join(given.dropped)}"
    if given.dropped and left not in given.notes:
        given.notes.append(left)
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


def _copy(given: _Input, kind: Kind, out: str) -> tuple[tuple[str, ...], CopyTally]:
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
    seen = CopyTally(source)
    writer = formats.create(out, spec)
    try:
        for block in given.blocks(fields):
            seen.update(stored_batch(choose_split(block, source, None)))
            if given.has_predictions:
                check_predictions(source, block)
            writer.write(block)
        formats.check_unchanged((source,))
        writer.commit()
    except BaseException:
        writer.abort()
        raise
    given.notes.extend(label_notes(seen.labels, source.n_classes))
    extras = ["predictions"] if given.has_predictions else []
    extras += ["delta"] if given.scalar_delta is not None else []
    extras += [name for name in ("source_counts", "source_prior", "class_names") if getattr(source, name) is not None]
    return tuple(sorted([*given.dtypes, *extras])), seen


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
# the input


def _stored_input(name: str, allow_external: bool, asked: Asked, is_arrays: bool) -> _Input:
    """Open a file as an input; what scores of plain arrays are is decided by all of their values."""
    provisional = replace(asked, kind="logits") if is_arrays else asked
    source = formats.describe(name, allow_external=allow_external, asked=provisional)

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
    if is_arrays:
        origin = f"{os.path.basename(source.name)}:{source.scores_name.rpartition(':')[2]}"
        source = replace(source, attributes={"converted_from": origin})
        notes = _array_notes(source)
    if source.single:
        notes.remove(one_column.meaning(source.kind))
        source = one_column.as_stored(source)
    dropped = source.others
    return _Input(source, source.scores_name, blocks, dtypes, scalar, has_predictions, dropped, notes)


def _array_notes(source: Source) -> list[str]:
    """What to say of plain arrays: the names that they take become the schema's own."""
    notes = [note for note in source.notes if not note.startswith("labels are read from")]
    if "labels" not in source.fields and not any("labels" in note for note in notes):
        notes.append(f"no labels (none of {', '.join(names.LABELS)}; --labels-key NAME takes another)")
    return notes


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
