"""`calibrate`: write the calibrated posterior, and say what it changed."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeAlias, Unpack, cast, get_args

import numpy as np

from unoic_cli import formats
from unoic_cli.brief import brief, detached, in_html
from unoic_cli.calibrations.calibration import Calibration
from unoic_cli.calibrations.fuser import Fuser, Piece
from unoic_cli.calibrations.view import View
from unoic_cli.commands.class_offsets import asks_for_fit
from unoic_cli.commands.convert import not_held
from unoic_cli.commands.evaluate import Metrics
from unoic_cli.commands.harm import (
    flattened_of,
    flips_of,
    margins_of,
    tell_flattened,
    tell_flips,
    tell_margins,
)
from unoic_cli.commands.rounding import RoundingTally, as_encoding, check_dtype
from unoic_cli.commands.sampled import GAIN_FOLDS
from unoic_cli.commands.search import Folds, SearchResult, search_prepared
from unoic_cli.data.batch import Batch, stored_field
from unoic_cli.data.dataset import DataSet, Span, text_counts
from unoic_cli.data.steps import Rewritten, Steps, rewrite, write_json
from unoic_cli.errors import DataError, UsageError
from unoic_cli.formats.arrays import Memory
from unoic_cli.formats.block import Kind, LogitBlock, OutputSpec, Writer
from unoic_cli.formats.single import wide
from unoic_cli.formats.source import FileSource
from unoic_cli.fusions import divides
from unoic_cli.kernels.lines import make_workspace
from unoic_cli.metrics import ABSENT, NAMES, Absent, Counted, Counts
from unoic_cli.options import Option, filled
from unoic_cli.resolve.asked import ask, tell_averaged
from unoic_cli.resolve.common import (
    Inputs,
    Notes,
    check_output,
    files_among,
    files_of,
    open_inputs,
    take_output,
    tell_loss,
    tell_predictions,
)
from unoic_cli.resolve.decider import Decider, make_decider
from unoic_cli.resolve.modalities import Resolved, resolve
from unoic_cli.resolve.options import AbsentOption, DataOptions, DtypeOption, ForceOption, MethodOptions, StrictOption
from unoic_cli.tallies.flattened import FlattenedTally
from unoic_cli.tallies.flips import FlipTally
from unoic_cli.tallies.margins import MarginKeeper
from unoic_cli.tallies.points import predict
from unoic_cli.tallies.units import UnitTally
from unoic_cli.tallies.viewed import ViewedTally
from unoic_cli.version import __version__

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    from unoic_cli.formats.block import Encoding
    from unoic_cli.formats.carried import Carried

Emit = Literal["log-probs", "probs", "predictions"]
EMIT: tuple[Emit, ...] = get_args(Emit)
_KINDS: dict[Emit, Kind] = {"log-probs": "log_probs", "probs": "probs", "predictions": "predictions"}
CROSS_FIT_FOLDS = 3


@dataclass(frozen=True)
class CalibrateResult:
    """What `calibrate` did. `to_dict` is the JSON that the command prints.

    Attributes
    ----------
    calibration : Calibration
        What was applied to the output.
    output : str or None
        The file written; None where the output is arrays.
    calibration_output : str or None
        Where a calibration that was fitted here was written.
    before, after : Metrics or None
        Metrics of the scores as they are (nothing rebalanced, no class masked) and after; None without labels. When
        lambda was fitted here, `after` is cross-fitted: each unit is predicted with the lambda tuned on the folds
        without it.
    fitted : SearchResult or None
        The search, when lambda was fitted here.
    gained, lost : tuple of dict
        Classes whose recall changed most: class, name, support, before, after.
    n_units : int
        Units written.
    emit : str
        What was written.
    masked : Metrics or None
        Metrics at lambda = 0 with masked classes (prior zero, ``unseen="mask"``), where these change anything.
    changed : int or None
        Units that are decided otherwise by the scores as they were rounded (``dtype``).
    outputs : tuple of str
        Where each input has an output of its own (``{stem}`` in the name).
    log_probs, probs : ndarray or None
        Of arrays, without a name for a file: what a file would hold, by `emit` one or the other or none, in the layout
        of the scores (of modalities that differ, classes last).
    predictions : ndarray of (N,) or (N, H, W) unsigned integers, or None
        Decisions; the largest of their type stands for units of which nothing is known.
    """

    calibration: Calibration
    output: str | None
    calibration_output: str | None
    before: Metrics | None
    after: Metrics | None
    fitted: SearchResult | None
    gained: tuple[dict[str, Any], ...]
    lost: tuple[dict[str, Any], ...]
    n_units: int
    emit: Emit
    files: tuple[str, ...]
    split: str | None
    notes: tuple[str, ...]
    masked: Metrics | None = None
    warnings: list[dict[str, Any]] = field(default_factory=list)
    changed: int | None = None
    outputs: tuple[str, ...] = ()
    log_probs: NDArray[Any] | None = None
    probs: NDArray[Any] | None = None
    predictions: NDArray[Any] | None = None

    __repr__ = brief
    _repr_html_ = in_html

    def glance(self) -> dict[str, list[Any]]:
        """What notebooks show: metrics before and after."""
        rows = {"before": self.before, "after": self.after}
        known = {name: one for name, one in rows.items() if one is not None}
        if not known:
            return {}
        return {"": list(known), **{name: [one.values.get(name) for one in known.values()] for name in NAMES}}

    @property
    def folds(self) -> Folds | None:
        """The cross-fit behind `after`, if there was one."""
        return None if self.fitted is None else self.fitted.folds

    @detached
    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command."""
        folds = None
        if self.fitted is not None and self.fitted.folds is not None:
            folds = self.fitted.folds.to_dict(self.fitted.best)
        return {
            "output": self.output,
            **({} if not self.outputs else {"outputs": list(self.outputs)}),
            **({} if self.changed is None else {"changed": self.changed}),
            "emit": self.emit,
            "n_written": self.n_units,
            "lambda": self.calibration.lam,
            "temperature": self.calibration.temperature,
            "fitted": self.fitted is not None,
            **({} if self.fitted is None else self.fitted.chosen()),
            "before": None if self.before is None else self.before.to_dict(),
            **({} if self.masked is None else {"masked": self.masked.to_dict()}),
            "after": None if self.after is None else self.after.to_dict(),
            "after_is": self.after_is,
            "gained": list(self.gained),
            "lost": list(self.lost),
            "folds": folds,
            "calibration_output": self.calibration_output,
            "files": list(self.files),
            "split": self.split,
            "population": self.population,
            "notes": list(self.notes),
            "warnings": self.warnings,
            "calibration": self.calibration.to_dict(),
        }

    @property
    def population(self) -> str | None:
        """What the probabilities are posteriors of; None where none are written."""
        if self.emit == "predictions":
            return None
        lam, origin = self.calibration.lam, self.calibration.target_prior.origin
        target = "that was given" if origin.startswith("--") else origin
        if lam == 0:
            return "for the class mix that the scores are for (lambda 0)"
        if self.fitted is not None and self.calibration is not self.fitted.calibration:  # by the joint fit
            fit = leans(self.fitted, lam)
            if fit is None:
                return f"posterior for the target prior {target}"
            return (
                f"none is fitted: lambda {lam:.4g} was chosen for its decisions, and the likelihood calls for {fit:.4g}"
            )
        return f"moved {'towards' if lam > 0 else 'away from'} the target prior {target} by lambda {lam:g}"

    @property
    def after_is(self) -> str | None:
        """What `after` was measured on."""
        if self.after is None:
            return None
        if self.fitted is not None and self.fitted.offsets is not None:
            return f"cross-fitted over {GAIN_FOLDS} folds: each kept unit by the lambda and the offsets of the others"
        if self.fitted is not None:
            return f"cross-fitted over {CROSS_FIT_FOLDS} folds: each unit by the lambda tuned on the others"
        return "the given lambda on this input"


def default_output(data: DataSet, word: str = "calibrated") -> str:
    """``STEM.calibrated.SUFFIX`` in the current folder."""
    stem, suffix = formats.stem_of(data.sources[0].name)
    return f"{stem}.{word}{suffix if suffix.lower() in formats.SUFFIXES else '.h5'}"


def _changes(before: Metrics, after: Metrics, class_names: Sequence[str] | None, most: int = 3) -> Any:
    """Classes whose recall rose and fell most."""
    rows = []
    for old, new in zip(before.per_class(class_names), after.per_class(class_names), strict=True):
        if old["recall"] is not None and new["recall"] != old["recall"]:
            rows.append(
                {
                    "class": old["class"],
                    "name": old["name"],
                    "support": old["support"],
                    "before": old["recall"],
                    "after": new["recall"],
                }
            )
    rows.sort(key=lambda row: row["before"] - row["after"])
    gained = tuple(row for row in rows[:most] if row["after"] > row["before"])
    lost = tuple(row for row in reversed(rows[-most:]) if row["after"] < row["before"])
    return gained, lost


@dataclass(frozen=True)
class _Posterior:
    """Makes the calibrated posterior of every batch, and counts before and after."""

    data: DataSet
    decider: Decider
    emit: Emit
    margins: Callable[[], MarginKeeper] | None = None
    dtype: str = "keep"
    carried: Carried | None = None

    @property
    def view(self) -> View:
        """How scores are made."""
        return self.decider.view

    as_stored = False
    pieces = None
    fields = frozenset({"scores", "labels", "group", "sample_id", "split"})

    def spans(self, data: DataSet) -> list[Span]:
        """What a worker reads at once."""
        return data.spans(whole_samples=self.view.needs_samples)

    def create(self, path: str | Memory, spec: OutputSpec, unfinished: str | None) -> Writer:
        """Start the output, or go on with an unfinished one."""
        return formats.create(path, spec, unfinished=unfinished)

    def spec(self, n_samples: int) -> OutputSpec:
        """The form of the output."""
        made = _output_spec(self.data, self.decider.calibration, self.emit, n_samples)
        encoding = made.encoding if self.dtype == "keep" else cast("Encoding", self.dtype)
        return replace(made, encoding=encoding, carried=self.carried)

    def tallies(self) -> list[Any]:
        """Counts at lambda 0 and after, units, counts of the scores as they are where those do not tell, flips."""
        lam, plain = self.decider.calibration.lam, self.decider.plain
        beside: list[Any] = [] if plain is None else [ViewedTally(plain.view, plain.tally([0.0]))]
        flips = flips_of(self.decider)
        margins = None if self.margins is None else self.margins()
        rounding = None if self.dtype == "keep" else RoundingTally(1)
        more = [tally for tally in (flips, margins, flattened_of(self.decider), rounding) if tally is not None]
        return [self.decider.tally([0.0, lam] if lam else [lam]), UnitTally(), *beside, *more]

    def worker(self, spec: OutputSpec, tallies: Sequence[Any]) -> _Maker:
        """What makes blocks in one thread."""
        is_double = any(source.encoding == "float64" for source in self.data.all_sources)
        return _Maker(self.decider, spec, tallies, "float64" if is_double else "float32")


class _Maker:
    """One thread's blocks."""

    def __init__(self, decider: Decider, spec: OutputSpec, tallies: Sequence[Any], made_as: Encoding) -> None:
        self.decider, self.spec, self.wide = decider, spec, made_as
        lam = decider.calibration.lam
        self.fuser = decider.writer(lam)
        self.work = make_workspace(spec.n_classes)
        self.lines = decider.point(lam)
        self.points: Any
        self.points, *self.others = (tally for tally in tallies if not isinstance(tally, RoundingTally))
        self.rounding = next((tally for tally in tallies if isinstance(tally, RoundingTally)), None)

    def __call__(self, batch: Batch, start: int) -> Iterator[LogitBlock]:
        spec, decider = self.spec, self.decider
        predictions = np.empty(batch.n_units, dtype=np.int32)
        block = batch.part.block
        assert block.scores is not None
        out, pixels, in_logs = np.empty(0), 0, spec.kind == "log_probs"
        if spec.kind != "predictions":
            out = np.empty(batch.n_units * spec.n_classes, dtype=np.dtype(self.wide))
            pixels = block.scores.shape[2] if spec.layout == "planes" else 0

        def write(fuser: Fuser, piece: Piece) -> None:
            if out.size:
                fuser.write_piece(batch, piece, in_logs, out, pixels, predictions)

        if decider.linear:
            if batch.labels is not None:
                self.points.update(batch, predictions)
            else:
                predict(batch, self.lines, predictions, self.work)
            if out.size:
                self.fuser.write(batch, in_logs, out, pixels, predictions)
        elif batch.labels is not None:
            self.points.update(batch, predictions, write)
        else:
            self.fuser.predict(batch, predictions, write)
        for tally in self.others:
            if isinstance(tally, FlipTally):
                tally.look(batch, predictions)
            elif batch.labels is not None or isinstance(tally, (MarginKeeper, FlattenedTally)):
                tally.update(batch)
        shape = (-1, spec.n_classes, pixels) if pixels else (-1, spec.n_classes)
        smallest = np.min_scalar_type(spec.n_classes - 1)
        if batch.blank is not None:  # nothing is known of such a unit, and nothing is made up
            predictions[batch.blank] = np.iinfo(smallest).max
            if out.size and pixels:
                image, pixel = np.divmod(np.flatnonzero(batch.blank), pixels)
                out.reshape(shape)[image, :, pixel] = np.nan
            elif out.size:
                out.reshape(shape)[batch.blank] = np.nan
        scores: Any = out.reshape(shape) if out.size else None
        if self.rounding is not None and scores is not None:
            scores = self._rounded(scores, batch, predictions)
        yield LogitBlock(
            start=start,
            stop=start + batch.n_units,
            scores=scores,
            predictions=predictions.astype(smallest),
            labels=stored_field(block.labels, spec.dtypes.get("labels")),
            group=block.group,
            split=block.split,
            sample_id=stored_field(block.sample_id, spec.dtypes.get("sample_id")),
        )

    def _rounded(self, scores: NDArray[Any], batch: Batch, predictions: NDArray[np.int32]) -> NDArray[Any]:
        """Scores as they are stored, and how many decisions that changes."""
        assert self.rounding is not None
        spec = self.spec
        if spec.encoding == self.wide:
            made = scores
        else:
            source = replace(batch.part.source, encoding=self.wide, n_classes=spec.n_classes)
            made = as_encoding(scores, source, spec.encoding, batch.part.block.start)
        decided = wide(made, spec.encoding).argmax(axis=1).reshape(-1)
        changed = decided != predictions
        if batch.blank is not None:
            changed[batch.blank] = False
        self.rounding.changed[0] += int(np.count_nonzero(changed))
        return made


def _dtype_of(data: DataSet, field: str) -> str:
    """The dtype that holds a field of every source."""
    dtypes = []
    for source in data.sources:
        with contextlib.closing(formats.open_reader(source)) as reader:
            block = next(iter(reader.blocks(0, source.pixels, frozenset({field}))))
            dtypes.append(np.asarray(getattr(block, field)).dtype)
    if any(dtype.kind in "OUS" for dtype in dtypes):
        return "str"
    joined = np.result_type(*dtypes)
    return str(joined if joined.kind in "iu" else np.dtype(np.int64))  # uint64 beside signed ones


def _output_spec(data: DataSet, calibration: Calibration, emit: Emit, n_samples: int) -> OutputSpec:
    """The form of the output: that of the input, with log-probabilities or probabilities."""
    shapes = {source.image_shape for source in data.sources}
    if len(shapes) > 1:
        raise DataError(
            data.name,
            f"images of different sizes: {', '.join(map(str, sorted(shapes)))}",
            "expected one size for one output file",
        )
    layouts = {source.layout for source in data.all_sources}
    double = any(source.encoding == "float64" for source in data.all_sources)
    fields = [name for name in ("labels", "group", "sample_id", "split") if data.has(name)]
    return OutputSpec(
        n_samples=n_samples,
        n_classes=data.n_classes,
        image_shape=shapes.pop(),
        kind=_KINDS[emit],
        encoding="float64" if double else "float32",
        layout="planes" if layouts == {"planes"} else "rows",
        predictions=True,
        dtypes={name: _dtype_of(data, name) for name in fields},
        class_names=data.class_names,
        attributes={
            "unoic_version": __version__,
            "unoic_calibration": json.dumps(calibration.to_dict()),
            **({} if data.shard is None else {"unoic_part": f"{data.shard[0]}/{data.shard[1]}"}),
        },
    )


class _Measured(NamedTuple):
    """Metrics of the scores as they are, at lambda 0 with masked classes where these change anything, and after."""

    before: Metrics | None = None
    masked: Metrics | None = None
    after: Metrics | None = None


def _metrics(written: Rewritten, decider: Decider, absent: Absent, data: DataSet, notes: Notes) -> _Measured:
    """What was counted beside the writing, if there are labels."""
    points, units, *more = written.tallies
    beside: list[Any] = [tally for tally in more if isinstance(tally, ViewedTally)]
    counts = points.counts()
    support, asked = counts.support[0, 0], ask(None, data, absent)
    if not support.any():
        return _Measured()

    def of(counts: Counts, i: int) -> Metrics:
        one = Counts(counts.hits[0, i], counts.predicted[0, i], support)
        return Metrics.of(Counted(one), units.n_ignored, asked)

    first, after = of(counts, 0), of(counts, -1)
    before = of(beside[0].tally.counts(), 0) if beside else first
    pairs = ((before.counts.hits, first.counts.hits), (before.counts.predicted, first.counts.predicted))
    same = all(np.array_equal(one, other) for one, other in pairs)
    tell_predictions(
        after.counts.predicted, support, decider.slopes.masked, decider.calibration.lam, data, notes
    )  # fmt: skip
    return _Measured(before, None if same or not decider.masks else first, after)


EmitOption: TypeAlias = Annotated[
    Emit,
    Option(
        "--emit",
        "WHAT",
        "log-probs, probs, or predictions alone.",
        default="log-probs",
        takes='{"log-probs", "probs", "predictions"}',
    ),
]


class CalibrateOptions(MethodOptions, DataOptions, total=False):
    """Options of `calibrate`."""

    output: Annotated[
        str | os.PathLike[str] | None,
        Option(
            "--output -o",
            "FILE",
            "HDF5, Parquet, Arrow stream (.arrows), npz, npy, CSV or safetensors; - streams to stdout. {stem} in the "
            "name: an output for each input. Default: STEM.calibrated.SUFFIX here.",
            says="where",
        ),
    ]
    emit: EmitOption
    dtype: DtypeOption
    metric: Annotated[
        str | None,
        Option("--metric", "METRIC", "What to maximise where lambda is fitted. Default: macc.", values=("<metric>",)),
    ]
    absent: AbsentOption
    force: ForceOption
    strict: StrictOption


def calibrate(
    inputs: Inputs,
    labels: ArrayLike | None = None,
    **options: Unpack[CalibrateOptions],
) -> Steps[CalibrateResult]:
    """Make the calibrated posterior: of files as a file, with labels, groups and the rest carried over.

    Of arrays, and without `output`, the result has what a file would hold: `log_probs` or `probs`, and `predictions`.

    Parameters
    ----------
    inputs : path, sequence of paths, (N, K), (N, K, H, W) array, or mapping of these by modality
        Logits files, or scores in memory; of several modalities (Algorithm 1 as a whole) ``NAME=FILE``, or a mapping.
    labels : (N,) or (N, H, W) integers, optional
        With scores in memory.
    **options : Unpack[CalibrateOptions]
        See `CalibrateOptions`.

    Returns
    -------
    CalibrateResult

    Raises
    ------
    UnoicError
        Bad input, or an output that cannot be written; the old file is then untouched.

    Notes
    -----
    Eq. 7: softmax(delta / temperature * z + offsets + lambda * s), fused where there are several modalities. The
    largest entry of each row written is the decision in float64, so evaluating the output gives the counts of
    evaluating the input with the calibration.

    Examples
    --------
    >>> from unoic_cli import calibrate
    >>> import os, tempfile
    >>> import numpy as np
    >>> scores = np.array([[2.0, 1.5], [2.0, 0.0]], dtype=np.float32)
    >>> result = calibrate(scores, lam=1.0, source_prior=[3, 1], emit="probs")
    >>> result.probs.round(3)
    array([[0.355, 0.645],
           [0.711, 0.289]], dtype=float32)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "out.h5")
    ...     result = calibrate(scores, [1, 0], output=path, lam=1.0, source_prior=[3, 1])
    >>> result.before.values["acc"], result.after.values["acc"]
    (0.5, 1.0)
    """
    chosen = filled(CalibrateOptions, options)
    notes = Notes(chosen["tell"])
    data = yield from open_inputs(inputs, labels, chosen, notes)
    return (yield from _calibrate(data, chosen, notes, fit=True))


class FuseOptions(MethodOptions, DataOptions, total=False):
    """Options of `fuse`."""

    output: Annotated[
        str | os.PathLike[str] | None,
        Option(
            "--output -o",
            "FILE",
            "As of calibrate. Default: STEM.fused.SUFFIX here.",
            says="where",
        ),
    ]
    emit: EmitOption
    dtype: DtypeOption
    absent: AbsentOption
    force: ForceOption


def fuse(
    inputs: Inputs,
    labels: ArrayLike | None = None,
    **options: Unpack[FuseOptions],
) -> Steps[CalibrateResult]:
    """Make the fused posterior of several modalities; without a lambda or a calibration, nothing is rebalanced.

    Of arrays, and without `output`, the result has what a file would hold: `log_probs` or `probs`, and `predictions`.

    Parameters
    ----------
    inputs : mapping of str to path, sequence of paths or array; or sequence of ``NAME=FILE``
        The modalities, aligned row by row.
    labels : (N,) or (N, H, W) integers, optional
        With scores in memory.
    **options : Unpack[FuseOptions]
        See `FuseOptions`.

    Returns
    -------
    CalibrateResult

    Raises
    ------
    UnoicError
        Bad input, or an output that cannot be written; the old file is then untouched.

    Examples
    --------
    >>> from unoic_cli import fuse
    >>> import numpy as np
    >>> rgb, depth = np.log([[0.6, 0.4]]), np.log([[0.2, 0.8]])
    >>> result = fuse({"rgb": rgb, "depth": depth}, [1])
    >>> np.exp(result.log_probs).round(3).tolist(), result.predictions.tolist(), result.after.values["acc"]
    ([[0.436, 0.564]], [1], 1.0)
    """
    chosen = filled(CalibrateOptions, options)
    notes = Notes(chosen["tell"])
    data = yield from open_inputs(inputs, labels, chosen, notes)
    if data.modality is None:
        raise UsageError(data.name, "inputs without names", "expected modalities like rgb=FILE depth=FILE")
    return (yield from _calibrate(data, chosen, notes, fit=False))


def _calibrate(data: DataSet, chosen: CalibrateOptions, notes: Notes, *, fit: bool) -> Steps[CalibrateResult]:
    """`calibrate`, and `fuse`, which fits nothing."""
    output, emit, absent = chosen["output"], chosen["emit"], chosen["absent"]
    if emit not in EMIT:
        raise UsageError("--emit", f"{emit!r}", f"expected one of {', '.join(EMIT)}")
    data.require_scores()
    names = tuple(source.name for source in data.all_sources)
    if absent not in ABSENT:
        raise UsageError("--absent", f"{absent!r}", f"expected one of {', '.join(ABSENT)}")
    given_files = (chosen["calibration"], chosen["source_prior"], chosen["target_prior"], chosen["delta"])
    kept = (*names, *files_among(*given_files, chosen["offsets"]))
    check_dtype(chosen["dtype"])
    if emit == "predictions" and chosen["dtype"] != "keep":
        raise UsageError("--dtype", "given with --emit predictions", "expected scores to round")
    place: str | Memory = Memory()
    outputs: list[tuple[str | Memory, DataSet]] = [(place, data)]
    if output is not None or all(isinstance(source, FileSource) for source in data.all_sources):
        place = default_output(data, "calibrated" if fit else "fused") if output is None else os.fspath(output)
        outputs = yield from _outputs(place, data, chosen["force"], kept, notes)
        place = place if _STEM in place else str(outputs[0][0])
    fitted, beside = None, None
    if fit and chosen["calibration"] is None and chosen["lam"] is None:
        if isinstance(place, str) and place != formats.STANDARD:  # a stream carries the calibration itself
            beside = os.path.splitext(place)[0] + ".calibration.json"
            if _STEM in place:
                beside = os.path.join(os.path.dirname(place), "calibration.json")
            yield from check_output(beside, force=chosen["force"], inputs=kept)
        if data.shard is not None:
            expected = "expected --calibration or --lambda: a part must not be fitted by itself"
            raise UsageError("--shard", "neither --calibration nor --lambda", expected)
        fitted, resolved = yield from _fit(data, chosen, notes)
    else:
        if chosen["metric"] is not None:
            raise UsageError("--metric", "--metric beside a given lambda", "expected it only where lambda is fitted")
        given = yield from resolve(chosen, data, chosen, notes, lam=None if fit else 0.0)
        assert given is not None
        resolved = given
        _tell_rests(given.calibration, chosen, data, notes)
    for name in ("labels", "group", "sample_id", "split"):
        if not data.has(name) and any(name in source.fields for source in data.sources):
            notes.add(f"{name} is not written: some of the inputs have none")
    applied = resolved.calibration
    decider = yield from make_decider(applied, data, resolved.factors)
    margins = None if fitted is not None else (yield from margins_of(decider, resolved, data))
    keeper = None if margins is None else margins.recipe()
    made = _Posterior(data, decider, emit, keeper, chosen["dtype"])
    written = yield from _written(outputs, made, notes)
    if beside is not None:
        yield from write_json(beside, applied.to_dict())
    rounded = next((tally.changed[0] for tally in written.tallies if isinstance(tally, RoundingTally)), 0)
    if rounded:
        said = f"rounding to {chosen['dtype']} decides {rounded:,} of {written.n_units:,} units otherwise"
        notes.add(f"{said}: predictions are those before it")
    before, masked, after = _metrics(written, decider, absent, data, notes)
    flips = next((tally for tally in written.tallies if isinstance(tally, FlipTally)), None)
    if fitted is None and flips is not None:
        tell_flips(applied, flips.flips, flips.n, data, notes)
    flattened = next((tally for tally in written.tallies if isinstance(tally, FlattenedTally)), None)
    if fitted is None:
        tell_flattened(decider, flattened, data, notes)
    seen = next((tally for tally in written.tallies if isinstance(tally, MarginKeeper)), None)
    if after is not None and after.n:
        tell_margins(resolved, seen, after.counts.support.astype(float), "the class mix of this data", notes)
    elif chosen["calibration"] is not None and chosen["target_prior"] is not None:
        tell_margins(resolved, seen, np.array(applied.target_prior.values), "--target-prior", notes)
    if fitted is None and before is not None and after is not None:
        tell_loss(before.values, after.values, after.n, applied.lam, notes)
        tell_averaged(before.counts, after.counts, ask(None, data, absent), data, notes)
    notes.settle(chosen["strict"], data.name)
    if fitted is not None and fitted.offsets is not None and before is not None:
        after = Metrics.of(fitted.offsets.crossed, before.n_ignored, ask(None, data, absent))
    elif fitted is not None and fitted.folds is not None and before is not None:
        after = Metrics.of(Counted(fitted.folds.pooled_after), before.n_ignored, ask(None, data, absent))
    gained, lost = ((), ()) if before is None or after is None else _changes(before, after, data.class_names)
    return CalibrateResult(
        calibration=applied,
        output=place if isinstance(place, str) else None,
        calibration_output=beside,
        before=before,
        after=after,
        fitted=fitted,
        gained=gained,
        lost=lost,
        n_units=written.n_units,
        emit=emit,
        files=tuple(files_of(data)),
        split=chosen["split"],
        notes=tuple(notes.texts),
        masked=masked,
        warnings=notes.told(),
        changed=next((tally.changed[0] for tally in written.tallies if isinstance(tally, RoundingTally)), None),
        outputs=tuple(str(one) for one, _ in outputs) if len(outputs) > 1 else (),
        **({} if isinstance(place, str) else place.arrays),
    )


_STEM = "{stem}"
"""In the name of an output: that of the input, so that there is one for each."""


def _outputs(
    path: str, data: DataSet, force: bool, kept: tuple[str, ...], notes: Notes
) -> Steps[list[tuple[str | Memory, DataSet]]]:  # fmt: skip
    """Each output, and what is written to it: all of the data to one, or each input to its own."""
    if _STEM not in path:
        return [((yield from take_output(path, force=force, inputs=kept)), data)]
    if data.shard is not None:
        raise UsageError("--shard", "an output for each input", "expected one output, or an input for each task")
    for one in data.beside:
        if [source.n_samples for source in one.sources] != [source.n_samples for source in data.sources]:
            raise UsageError(
                "--output", f"{path}, but files that differ by modality", "expected files of the same samples"
            )
    placed: list[tuple[str | Memory, DataSet]] = []
    for i, source in enumerate(data.sources):
        if data.split is not None and not (yield from text_counts(source, "split"))[data.split]:
            notes.add(f"{source.name} has no sample of split {data.split}: it gets no output")
            continue
        stem, part = formats.stem_of(source.name)[0], formats.split_name(source.name)[1].strip("/").replace("/", ".")
        name = path.replace(_STEM, f"{stem}.{part}" if part else stem)
        if any(name == other for other, _ in placed):
            raise UsageError("--output", f"{name} for two inputs of that name", "expected names that differ")
        own = tuple(replace(one, sources=(one.sources[i],), n_samples=source.n_samples) for one in data.beside)
        part_of = replace(data, sources=(source,), n_samples=source.n_samples, beside=own)
        placed.append(((yield from take_output(name, force=force, inputs=kept)), part_of))
    return placed


def _written(outputs: list[tuple[str | Memory, DataSet]], made: _Posterior, notes: Notes) -> Steps[Rewritten]:
    """Write each output; what was counted is that of all together."""
    total: Rewritten | None = None
    for place, data in outputs:
        one = replace(made, data=data, carried=_carried(place, data, made))
        spec = one.spec(data.n_samples)
        for text in () if place == formats.STANDARD else not_held(place, formats.left_out(place, spec)):
            notes.add(text)
        names = () if one.carried is None else one.carried.columns
        left = formats.others(
            [replace(s, others=tuple(o for o in s.others if o not in names)) for s in data.all_sources]
        )
        if left is not None:
            notes.add(left)
        written = yield from rewrite(data, place, one)
        if total is None:
            total = written
        else:
            for tally, more in zip(total.tallies, written.tallies, strict=True):
                tally.add(more)
            total = total._replace(n_units=total.n_units + written.n_units)
    assert total is not None
    return total


_KEPT = {"parquet": ("parquet",), "csv": ("csv", "parquet")}
"""By the format of inputs, those of outputs that keep columns which mean nothing here."""


def _carried(place: str | Memory, data: DataSet, made: _Posterior) -> Carried | None:
    """Columns that an output keeps of inputs: of Parquet in Parquet, of lines in lines or Parquet."""
    forms = _KEPT.get(getattr(data.sources[0], "NAME", ""), ())
    if not isinstance(place, str) or place == formats.STANDARD or formats.writable(place).NAME not in forms:
        return None
    from unoic_cli.formats import carried, csv_writer

    spec = made.spec(1)
    taken = [*spec.dtypes, spec.kind, "predictions", "labels", "delta", *csv_writer.score_columns(spec)]
    window = (0, data.n_units) if data.shard is None else data.shard_units(*data.shard)
    return carried.carried(data.sources, data.split, window, taken)


def _tell_rests(calibration: Calibration, chosen: CalibrateOptions, data: DataSet, notes: Notes) -> None:
    """Say what a lambda rests on that no label has confirmed."""
    if chosen["lam"] is None or calibration.lam == 0 or data.has("labels"):
        return
    notes.add(
        f"lambda = {calibration.lam:g} rests on the source prior ({calibration.source_prior.origin}) and on scores "
        "that carry it: after training with reweighted or balanced batches it does harm; unoic search-lambda on "
        "labelled units tells"
    )


def _fit(data: DataSet, chosen: CalibrateOptions, notes: Notes) -> Steps[tuple[SearchResult, Resolved]]:
    """Tune lambda on the labels of this input, with cross-fitting."""
    if not data.has("labels"):
        raise UsageError(
            data.name,
            "no labels, and neither --calibration nor --lambda",
            "expected a calibration from labelled data (unoic search-lambda VAL.h5 -o c.json), or --lambda 1",
        )
    fits_offsets = asks_for_fit(chosen)
    wanted: MethodOptions = {**filled(MethodOptions, chosen), "offsets": None if fits_offsets else chosen["offsets"]}
    resolved = yield from resolve(wanted, data, chosen, notes, lam=1.0)
    assert resolved is not None
    metric = chosen["metric"] or "macc"
    result = yield from search_prepared(
        data, resolved, metric, CROSS_FIT_FOLDS, chosen["absent"], chosen, notes, fits_offsets
    )
    notes.add(
        f"no calibration given: lambda = {result.lam:g} was fitted on these labels; the figures after it are "
        f"cross-fitted over {CROSS_FIT_FOLDS} folds"
    )
    return result, replace(resolved, calibration=with_scale(result, notes))


NEAR = 0.25
"""From the lambda that the likelihood calls for: so near, probabilities are as good as those of a posterior."""


def leans(result: SearchResult, lam: float) -> float | None:
    """The lambda of the joint fit, where a chosen one lies further from it than `NEAR` and two standard errors."""
    fit, se = result.choice.get("fit"), result.choice.get("se_fit")
    if fit is None or se is None or not math.isfinite(se) or abs(lam - fit) <= max(NEAR, 2 * se):
        return None
    return float(fit)


def with_scale(result: SearchResult, notes: Notes) -> Calibration:
    """The calibration with the scale of the joint fit, softmax(a * (z / T + b + lambda * s)): it moves no decision."""
    found, a = result.calibration, result.choice.get("a")
    divided = found.fusion is not None and divides(found.fusion)
    if a is None or not result.linear or divided:
        return found
    modalities = tuple(
        replace(
            modality,
            temperature=modality.temperature / a,
            offsets=None if modality.offsets is None else tuple(a * offset for offset in modality.offsets),
        )
        for modality in found.modalities
    )
    warm = {one.name: f"{one.temperature:.4g}" for one in modalities}
    said = warm[modalities[0].name] if len(set(warm.values())) == 1 else ", ".join(f"{k} {v}" for k, v in warm.items())
    notes.add(
        f"probabilities have the temperature of the joint fit, {said}, and lambda {a * found.lam:.4g}: they decide as "
        f"lambda {found.lam:g} does by itself"
    )
    fit = leans(result, a * found.lam)
    if fit is not None and found.lam != 0:
        notes.add(
            f"the likelihood of the labels calls for lambda {fit:.4g}: what is written decides well, and is no "
            "posterior (unoic fit-temperature -o fits one)"
        )
    return replace(found, lam=a * found.lam, modalities=modalities)
