"""Look into files: what they hold, whether it can be used, and what to run next."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Unpack

import numpy as np

from unoic_cli import formats
from unoic_cli.brief import brief, detached, in_html
from unoic_cli.calls import ArgumentError
from unoic_cli.commands.explained import Explained, explain, explain_text
from unoic_cli.data.batch import where_is
from unoic_cli.data.dataset import DataSet
from unoic_cli.data.facts import know
from unoic_cli.data.steps import Pass, Steps, count_each, here
from unoic_cli.errors import DataError, UsageError
from unoic_cli.formats import arrays, schema
from unoic_cli.formats.block import IGNORED_LABELS, Source
from unoic_cli.formats.names import Asked, refuse
from unoic_cli.options import Option, filled
from unoic_cli.resolve.common import Inputs, asked_of, check_threads, described
from unoic_cli.resolve.inputs import expand
from unoic_cli.resolve.options import (
    ArrayOptions,
    ProgressOption,
    TellOption,
    ThreadsOption,
)
from unoic_cli.tallies.contents import ClassCounts, ContentsTally, Factors, Look, ScoreValues
from unoic_cli.tallies.findings import Finding, beside, findings_of, id_findings

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

BLOCK_BYTES = 4 << 20
MEASURED_BYTES, MEASURED_SECONDS = 32 << 20, 0.3
"""How much is read to say how fast that is, whichever comes first."""

_NEARLY_BALANCED = 1.2
_LARGE = 16 << 20
"""Scores that are worth another form."""

_TUNING_SPLITS = ("val", "valid", "validation", "dev", "cal", "calibration")
_TEST_SPLITS = ("test", "tst", "eval", "evaluation")


def scalar_delta(source: Source) -> float | None:
    """Read the one delta of all units, if the file has a single number; two units tell."""
    if "delta" not in source.fields:
        return None
    first = formats.first_block(source, min(2, source.n_units), frozenset({"delta"}))
    is_scalar = first.delta is not None and first.delta.size == 1 < first.stop
    return float(first.delta[0]) if first.delta is not None and is_scalar else None


# ------------------------------------------------------------------------------------------------
# results


@dataclass(frozen=True)
class ValuesInfo:
    """Attributes as in `ScoreValues`; minimum and maximum are None where nothing is finite."""

    look: Look
    n_nan: int
    n_pos_inf: int
    n_neg_inf: int
    minimum: float | None
    maximum: float | None


@dataclass(frozen=True)
class CountsInfo:
    """Labels or predictions by class.

    Attributes
    ----------
    dtype : str
        As stored.
    counts : tuple of int
        (K,).
    imbalance : float or None
        Largest count / smallest count that is not zero.
    n_empty : int
        Classes that do not occur.
    ignored : dict of int to int
        Count of each value that stands for "no label".
    outside : dict of int to int
        Count of each other value outside [0, K).
    n_outside : int
        Their sum, values too many to list included.
    """

    dtype: str
    counts: tuple[int, ...]
    imbalance: float | None
    n_empty: int
    ignored: dict[int, int]
    outside: dict[int, int]
    n_outside: int

    __repr__ = brief


@dataclass(frozen=True)
class DeltaInfo:
    """Form is ``scalar`` or ``per unit``; `n_invalid` counts negative, infinite and NaN factors."""

    form: str
    minimum: float | None
    maximum: float | None
    n_invalid: int


@dataclass(frozen=True)
class ReadInfo:
    """How fast scores are read by one thread, measured on a part of them just now.

    Attributes
    ----------
    path : str
        ``contiguous``; ``chunks``, decoded by each thread for itself; ``library``, one chunk at a time whatever the
        threads; or ``row groups`` of Parquet.
    mb_per_s : float
        Decoded megabytes in a second.
    stored_mb_per_s : float or None
        The same as megabytes of the file; None where the format does not say.
    slow : str
        Why `unoic pack` would make it faster; empty where it would not.
    """

    path: str
    mb_per_s: float
    stored_mb_per_s: float | None
    slow: str


@dataclass(frozen=True)
class FileInfo:
    """What `info` says about one file.

    Attributes
    ----------
    name, format, storage, n_bytes
        The input as typed, its format, one phrase on how scores are stored, and the file's size.
    kind, encoding, layout, axes, shape
        What the scores are called, their type, ``rows`` or ``planes``, ``NK``, ``NCHW`` or ``NHWC``, and their shape.
    n_samples, n_classes, image_shape, n_units
        N, K, (H, W) or (), and N * H * W.
    split : str or None
        The one split that values, labels, groups and delta are about.
    values : ValuesInfo or None
        None for predictions.
    labels, predictions : CountsInfo or None
        By class; `predictions` only of a file that holds nothing else.
    delta : DeltaInfo or None
        Factors of the logits.
    source_counts, source_prior, source_imbalance
        As stored, and largest / smallest that is not zero.
    splits, groups : dict of str to int
        Samples of each; empty when the file has none.
    fields, class_names, attributes
        As in `unoic_cli.formats.block.Source`.
    warnings : tuple of str
        What stands in the way of using the file, and the sentences of `findings`.
    advice : tuple of str
        Why `next` is not the obvious.
    next : tuple of str
        Command lines to run next.
    read : ReadInfo or None
        How fast scores are read; None for predictions.
    checksums : str or None
        What would show that a bit of the scores has changed: ``fletcher32``, ``crc32``, ``adler32`` (of gzip) or
        ``none``; None where that cannot be told.
    findings : tuple of Finding
        What looks wrong, as every computing command says it.
    """

    name: str
    format: str
    storage: str
    n_bytes: int
    kind: str
    encoding: str | None
    layout: str | None
    axes: str
    shape: tuple[int, ...]
    n_samples: int
    n_classes: int
    image_shape: tuple[int, ...]
    n_units: int
    split: str | None
    values: ValuesInfo | None
    labels: CountsInfo | None
    predictions: CountsInfo | None
    delta: DeltaInfo | None
    source_counts: tuple[float, ...] | None
    source_prior: tuple[float, ...] | None
    source_imbalance: float | None
    splits: dict[str, int]
    groups: dict[str, int]
    fields: tuple[str, ...]
    class_names: tuple[str, ...] | None
    attributes: dict[str, str]
    warnings: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    next: tuple[str, ...] = ()
    read: ReadInfo | None = None
    checksums: str | None = None
    findings: tuple[Finding, ...] = ()

    __repr__ = brief
    _repr_html_ = in_html


@dataclass(frozen=True)
class InfoResult:
    """What `info` saw. `to_dict` is the JSON that the command prints.

    Attributes
    ----------
    files : tuple of FileInfo
        One for each input that holds scores, in order.
    explained : tuple of Explained
        One for each other: calibrations, statistics of delta, priors, states, layers and ONNX models.
    """

    files: tuple[FileInfo, ...]
    explained: tuple[Explained, ...] = ()

    __repr__ = brief
    _repr_html_ = in_html

    @detached
    def to_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        files = [dataclasses.asdict(one) for one in self.files]
        return {"files": files, "explained": [one.to_dict() for one in self.explained]}


# ------------------------------------------------------------------------------------------------
# the task


class InfoOptions(ArrayOptions, total=False):
    """Options of `info`."""

    split: Annotated[str | None, Option("--split", "NAME", "Look only at samples of this split.")]
    threads: ThreadsOption
    tell: TellOption
    progress: ProgressOption


def info(
    inputs: Inputs,
    labels: ArrayLike | None = None,
    **options: Unpack[InfoOptions],
) -> Steps[InfoResult]:
    """Read logits files once, in fixed memory, and say what they hold; explain what others are, and how they are used.

    Labels out of range, NaN and infinities are counted and warned of, not refused. Calibrations, statistics of delta,
    priors, states, layers that `export` wrote and ONNX models are explained.

    Parameters
    ----------
    inputs : path, sequence of paths, or array
        ``FILE`` or ``FILE::GROUP``, or scores in memory; each is looked at by itself.
    labels : (N,) or (N, H, W) integers, optional
        With scores in memory.
    **options : Unpack[InfoOptions]
        See `InfoOptions`.

    Returns
    -------
    InfoResult

    Raises
    ------
    NoInputError, DataError
        A file cannot be opened or does not follow the schema, or has no such split.

    Examples
    --------
    >>> from unoic_cli import info
    >>> import os, tempfile, h5py
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "val.h5")
    ...     with h5py.File(path, "w") as file:
    ...         file["logits"] = np.array([[2.0, -1.0], [0.5, 1.5], [3.0, 0.0]], np.float32)
    ...         file["labels"] = np.array([0, 1, 0])
    ...     seen = info([path]).files[0]
    >>> seen.axes, seen.values.look, seen.labels.counts, seen.labels.imbalance
    ('NK', 'logits', (2, 1), 2.0)
    """
    chosen = filled(InfoOptions, options)
    check_threads(chosen["threads"])
    asked, split = asked_of(chosen), chosen["split"]
    given: list[str | Source] = yield from _given(inputs, labels, asked)
    run, looks, told = (yield from here()), [], []
    for one in given:
        source = one if isinstance(one, Source) else (yield from _looked_at(one, chosen, asked))
        if isinstance(source, Explained):
            told.append(source)
            continue
        if split is not None and "split" not in source.fields:
            raise DataError(source.name, f"no split, but --split {split}", "expected a dataset or column named split")
        stored = yield from know(f"storage {source.name}", partial(_stored, source, measured=not run.stored))
        repeated = yield from id_findings([source], split)
        looks.append((ContentsTally(source, split), stored, repeated))
    if looks:
        yield from count_each([_pass(look[0], run.shard) for look in looks])
    return InfoResult(tuple(_file(*look) for look in looks), tuple(told))


def _looked_at(name: str, chosen: InfoOptions, asked: Asked) -> Steps[Source | Explained]:
    """The source of a file, or what it is where it holds no scores."""
    told = yield from explain(name)
    if told is not None:
        return told
    try:
        return (yield from described(name, allow_external=chosen["allow_external"], asked=asked))
    except DataError:
        told = yield from explain_text(name)
        if told is None:
            raise
        return told


def _pass(gathered: ContentsTally, shard: tuple[int, int] | None) -> Pass:
    source = gathered.source
    return Pass(DataSet((source,), None, frozenset(), source.n_samples, shard=shard), [gathered], as_stored=True)


def _given(inputs: Any, labels: Any, asked: Asked) -> Steps[list[str | Source]]:
    """What is to be looked at, as names and sources."""
    found = yield from expand(inputs, asked)
    if isinstance(found, Mapping):
        raise ArgumentError("inputs", "a mapping", "expected files, sources or an array, each looked at by itself")
    if isinstance(found, (str, os.PathLike, Source)):
        found = [found]
    if isinstance(found, (list, tuple)) and all(isinstance(one, (str, os.PathLike, Source)) for one in found):
        if not found:
            raise UsageError("FILES", "no input", "expected at least one logits file")
        if labels is not None:
            raise UsageError("labels", "labels beside files", "expected them in the files, or arrays as inputs")
        if any(isinstance(one, Source) for one in found):
            refuse(asked, "the input", "is described already")
        return [one if isinstance(one, Source) else os.fspath(one) for one in found]
    refuse(dataclasses.replace(asked, class_axis=None, kind=None), "the input", "is an array in memory")
    return [arrays.describe(found, labels, class_axis=asked.class_axis, kind=asked.kind or "logits")]


def _file(gathered: ContentsTally, stored: Mapping[str, Any], repeated: Sequence[Finding]) -> FileInfo:
    """What one read of a file, and the file itself, tell."""
    source, split = gathered.source, gathered.split
    splits = gathered.splits.sorted()
    if split is not None and split not in splits:
        known = ", ".join([*splits][:20])
        raise DataError(f"{source.name}:split", f"no sample of split {split}", f"expected one of {known}")
    if "delta" in source.fields and stored["delta"] is not None:
        gathered.delta.update(np.array([stored["delta"]]))
    seen = _file_info(source, gathered, stored)
    findings = findings_of(source, gathered.evidence, repeated)
    warnings = [*_warnings(seen, gathered), *(f"{finding.array}: {finding.said}" for finding in findings)]
    masks = seen.values.n_neg_inf if seen.values is not None and seen.kind == "logits" else 0
    if masks and not any(finding.code == "masked-logits" for finding in findings):
        warnings.append(f"logits: {masks:,} values are -inf: each is read as a class that the unit cannot have")
    reason = _prior_option(seen)[1] if source.format != arrays.Arrays.NAME else ""  # of the commands to run next
    advice = (*source.notes, *((reason,) if reason else ()))
    if seen.read is not None and seen.read.slow:
        advice = (*advice, f"slow to read: {seen.read.slow}; unoic pack makes a file that is not")
    return dataclasses.replace(
        seen, warnings=tuple(warnings), findings=tuple(findings), advice=advice, next=tuple(_next(seen))
    )


def _stored(source: Source, *, measured: bool) -> dict[str, Any]:
    """What the file itself tells of how it is stored."""
    read = _measure(source) if measured else None
    return {
        "format": source.format,
        "storage": source.storage,
        "bytes": source.n_bytes,
        "checksums": source.checksums,
        "delta": scalar_delta(source),
        "read": None if read is None else dataclasses.asdict(read),
    }


def _measure(source: Source) -> ReadInfo | None:
    """Read some of the scores again, which the system still has in memory if it ever will."""
    if source.kind == "predictions":
        return None
    unit_bytes = schema.score_dtype(source.encoding).itemsize * source.n_classes
    spans = formats.spans(source, BLOCK_BYTES)
    with contextlib.closing(formats.open_reader(source)) as reader:
        units, begin = 0, 0.0
        for number, (start, stop) in enumerate([spans[0], *spans]):  # once to warm up
            if number == 1:
                begin = time.perf_counter()
            for block in reader.blocks(start, stop, frozenset({"scores"})):
                units += block.stop - block.start if number else 0
            seconds = time.perf_counter() - begin
            if number and (units * unit_bytes > MEASURED_BYTES or seconds > MEASURED_SECONDS):
                break
    rate = units * unit_bytes / max(seconds, 1e-9) / 1e6
    stored = source.stored_bytes
    share = None if stored is None else stored / (source.n_units * unit_bytes)
    path, slow = source.read_path()
    slow = slow if source.n_units * unit_bytes >= _LARGE else ""
    return ReadInfo(path, round(rate, 1), None if share is None else round(rate * share, 1), slow)


def _file_info(source: Source, gathered: ContentsTally, stored: Mapping[str, Any]) -> FileInfo:
    is_predictions = source.kind == "predictions"
    axes, shape = _axes(source)
    weights = source.source_counts or source.source_prior
    return FileInfo(
        name=source.name,
        format=stored["format"],
        storage=stored["storage"],
        n_bytes=stored["bytes"],
        checksums=stored["checksums"],
        kind=source.kind,
        encoding=None if is_predictions else source.encoding,
        layout=None if is_predictions else source.layout,
        axes=axes,
        shape=shape,
        n_samples=source.n_samples,
        n_classes=source.n_classes,
        image_shape=source.image_shape,
        n_units=source.n_units,
        split=gathered.split,
        values=None if is_predictions else _values_info(gathered.scores),
        labels=_counts_info(gathered.labels, IGNORED_LABELS) if "labels" in source.fields else None,
        predictions=_counts_info(gathered.predictions, ()) if is_predictions else None,
        delta=_delta_info(gathered.delta, scalar=stored["delta"] is not None) if "delta" in source.fields else None,
        source_counts=source.source_counts,
        source_prior=source.source_prior,
        source_imbalance=None if weights is None else imbalance_ratio(weights),
        splits=gathered.splits.sorted(),
        groups=gathered.groups.sorted(),
        fields=tuple(sorted(source.fields)),
        class_names=source.class_names,
        attributes=dict(source.attributes),
        read=None if stored["read"] is None else ReadInfo(**stored["read"]),
    )


def _axes(source: Source) -> tuple[str, tuple[int, ...]]:
    """Name of the axes, and the shape as stored."""
    n, k, image = source.n_samples, source.n_classes, source.image_shape
    if source.kind == "predictions":
        return ("NHW" if image else "N"), (n, *image)
    if not image:
        return "NK", (n, k)
    return ("NCHW", (n, k, *image)) if source.layout == "planes" else ("NHWC", (n, *image, k))


def imbalance_ratio(weights: Sequence[float]) -> float | None:
    """Largest weight / smallest weight that is not zero; None when all are zero.

    Examples
    --------
    >>> imbalance_ratio([90, 0, 9])
    10.0
    """
    positive = [weight for weight in weights if weight > 0]
    return max(positive) / min(positive) if positive else None


def _values_info(values: ScoreValues) -> ValuesInfo:
    known = values.range.known
    return ValuesInfo(
        look=values.look,
        n_nan=values.sorts["nan"],
        n_pos_inf=values.sorts["+inf"],
        n_neg_inf=values.sorts["-inf"],
        minimum=values.range.minimum if known else None,
        maximum=values.range.maximum if known else None,
    )


def _counts_info(found: ClassCounts, ignorable: tuple[int, ...]) -> CountsInfo:
    counts = tuple(found.counts.tolist())
    outside = {value: n for value, n in found.outside.sorted().items() if value not in ignorable}
    return CountsInfo(
        dtype=found.dtype,
        counts=counts,
        imbalance=imbalance_ratio(counts),
        n_empty=counts.count(0),
        ignored={value: n for value, n in found.outside.sorted().items() if value in ignorable},
        outside=outside,
        n_outside=sum(outside.values()) + found.outside.n_more,
    )


def _delta_info(delta: Factors, *, scalar: bool) -> DeltaInfo:
    return DeltaInfo(
        form="scalar" if scalar else "per unit",
        minimum=delta.range.minimum if delta.range.known else None,
        maximum=delta.range.maximum if delta.range.known else None,
        n_invalid=delta.n_invalid,
    )


# ------------------------------------------------------------------------------------------------
# what stands in the way, and what to do next


def _warnings(seen: FileInfo, gathered: ContentsTally) -> list[str]:
    found = _label_warnings(seen)
    if seen.values is not None:
        places = {key: where_is(gathered.source, finding.unit) for key, finding in gathered.scores.first.items()}
        found += _value_warnings(seen, seen.values, places)
    if seen.delta is not None and seen.delta.n_invalid:
        found.append(f"delta: {seen.delta.n_invalid:,} factors are negative, infinite or NaN; they will be refused")
    return found


def _value_warnings(seen: FileInfo, values: ValuesInfo, places: dict[str, str]) -> list[str]:
    found = []
    bad = [("nan", "NaN", values.n_nan), ("+inf", "+inf", values.n_pos_inf)]
    bad += [("-inf", "-inf", values.n_neg_inf)] if seen.kind == "probs" else []
    for key, label, n in bad:
        if n:
            said = f"{seen.kind}: {n:,} values are {label}, the first at {places[key]}"
            found.append(f"{said}; they will be refused, except where the label is ignored")
    return found


def _label_warnings(seen: FileInfo) -> list[str]:
    found = []
    for name, counted in (("labels", seen.labels), ("predictions", seen.predictions)):
        if counted is not None and counted.n_outside:
            listed = ", ".join(f"{value} ({count:,} times)" for value, count in list(counted.outside.items())[:5])
            hint = "; they will be refused" + (" unless named by --ignore-index" if name == "labels" else "")
            found.append(f"{name}: {counted.n_outside:,} lie outside [0, {seen.n_classes}): {listed}{hint}")
    if seen.labels is not None and not any(seen.labels.counts):
        found.append("labels: not one lies in [0, K); only commands that need no labels will work")
    return found


def _next(seen: FileInfo) -> list[str]:
    """Command lines to run next; arrays in memory have none."""
    if seen.format == arrays.Arrays.NAME:
        return []
    pack = (
        [f"unoic pack {shlex.quote(seen.name)} {beside(seen.name, 'packed.h5')}"]
        if seen.read and seen.read.slow
        else []
    )
    return [*pack, *_commands(seen)]


def _commands(seen: FileInfo) -> list[str]:
    name, ignore = shlex.quote(seen.name), _ignore_option(seen)
    if seen.predictions is not None:
        return [f"unoic evaluate {name}{ignore}"] if seen.labels else []
    prior, _ = _prior_option(seen)
    calibrated = beside(seen.name, "calibrated")
    if seen.labels is None or not any(seen.labels.counts):
        return [f"unoic calibrate {name} --lambda 1{prior} -o {calibrated}"]
    if "unoic_calibration" in seen.attributes:
        return [f"unoic evaluate {name}{ignore}"]
    tuning, test = _choose_splits(seen)
    if not tuning:
        return [
            f"unoic search-lambda {name}{ignore}{prior}",
            f"unoic calibrate {name}{ignore}{prior} -o {calibrated}",
        ]
    calibration = beside(seen.name, "calibration.json")
    lines = [f"unoic search-lambda {name}{tuning}{ignore}{prior} -o {calibration}"]
    lines += [f"unoic evaluate {name}{test}{ignore} --calibration {calibration}"] if test else []
    return [*lines, f"unoic calibrate {name} --calibration {calibration}{ignore} -o {calibrated}"]


def _prior_option(seen: FileInfo) -> tuple[str, str]:
    """``--source-prior`` where neither the file nor its labels tell it, and why."""
    if seen.predictions is not None or seen.source_counts is not None or seen.source_prior is not None:
        return "", ""
    if seen.labels is None or not any(seen.labels.counts):
        reason = "no labels and no counts of the training data: the mean predicted posterior is taken as source prior"
    elif seen.labels.n_empty == 0 and (seen.labels.imbalance or 1) < _NEARLY_BALANCED:
        reason = "no counts of the training data, and labels too balanced to stand in for them: "
        reason += "the mean predicted posterior is taken as source prior"
    else:
        return "", ""
    return " --source-prior mean-posterior", reason


def _choose_splits(seen: FileInfo) -> tuple[str, str]:
    """``--split`` options of the samples to tune on and of those to report on."""
    if seen.split is not None:
        return f" --split {shlex.quote(seen.split)}", ""
    names = list(seen.splits)
    if not names:
        return "", ""
    test = next((name for name in names if name.lower() in _TEST_SPLITS), None)
    rest = [name for name in names if name != test] or names
    tuning = next((name for name in rest if name.lower() in _TUNING_SPLITS), rest[0])
    test = test or next((name for name in names if name != tuning), None)
    return f" --split {shlex.quote(tuning)}", "" if test in (None, tuning) else f" --split {shlex.quote(str(test))}"


def _ignore_option(seen: FileInfo) -> str:
    """``--ignore-index`` for the one value that is out of range everywhere, as void labels are."""
    if seen.labels is None or len(seen.labels.outside) != 1:
        return ""
    return f" --ignore-index {next(iter(seen.labels.outside))}"
