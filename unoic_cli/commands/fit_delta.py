"""`fit-delta`: mean and spread of a modality's uncertainty, from which delta is made; and delta itself."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, Unpack, cast, get_args

import numpy as np

from unoic_cli import formats
from unoic_cli.brief import brief, detached, in_html
from unoic_cli.calibrations.delta import FIXED_POINT, DeltaStatistics, Measure, Per
from unoic_cli.data.facts import Facts
from unoic_cli.data.steps import Steps, count, write_json
from unoic_cli.errors import DataError, UsageError
from unoic_cli.formats.block import SCORE_KINDS, Kind
from unoic_cli.formats.names import check_kind
from unoic_cli.options import Option, filled
from unoic_cli.resolve.common import (
    Inputs,
    Notes,
    check_output,
    check_threads,
    files_among,
    open_inputs,
    output_path,
    provenance,
)
from unoic_cli.resolve.inputs import expand, is_there
from unoic_cli.resolve.options import DataOptions, FileOptions, ForceOption, SplitOptions
from unoic_cli.storage.output import storage_error
from unoic_cli.tallies.entropy import EntropyTally, Moments
from unoic_cli.version import __version__

if TYPE_CHECKING:
    from numpy.typing import NDArray

Origin = Literal["scores", "mc-dropout"]
ORIGINS: tuple[Origin, ...] = get_args(Origin)

_NAMED = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_KEPT = 1 << 22
"""Up to this many samples H is kept for the summary of delta; more only for --write-delta."""
_PIECE = 1 << 16
_HALF = 23  # entropies are below 2**44 units: many of either half can be added
_SLAB_BYTES = 4 << 20
_SHAPES = "expected (N, S, K) or (N, S, K, H, W): samples, passes, classes"
_DEFAULT = "passes"
_LOWEST = -708.0  # exp of less is nothing beside 1, and would not be a normal number


@dataclass(frozen=True)
class FitDeltaResult:
    """Uncertainty of a data set, and the factors that its samples get.

    Attributes
    ----------
    statistics : DeltaStatistics
        As fitted, or as applied.
    n : int
        Samples (or pixels) looked at.
    mu, sigma : float
        Mean and population standard deviation of H over these samples, in nats; those of `statistics` when fitted.
    applied : bool
        The statistics were given, not fitted.
    delta : dict of str to float, or None
        ``mean``, ``min`` and ``max`` of the delta of these samples, and ``below_one``, the share whose delta is
        smaller than 1. None for more than four million samples, unless their delta was written.
    files : tuple of str
        What was read.
    split : str or None
        The split that was looked at.
    notes : tuple of str
        What was worth saying on the way.
    """

    statistics: DeltaStatistics
    n: int
    mu: float
    sigma: float
    applied: bool
    delta: dict[str, float] | None
    files: tuple[str, ...]
    split: str | None
    notes: tuple[str, ...]

    __repr__ = brief
    _repr_html_ = in_html

    @detached
    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command; it can be read where delta statistics are."""
        return {
            "statistics": self.statistics.to_dict(),
            "n": self.n,
            "mu": self.mu,
            "sigma": self.sigma,
            "applied": self.applied,
            "delta": self.delta,
            "files": list(self.files),
            "split": self.split,
            "notes": list(self.notes),
        }


class FitDeltaOptions(SplitOptions, FileOptions, total=False):
    """Options of `fit_delta`."""

    output: Annotated[
        str | os.PathLike[str] | None, Option("--output -o", "FILE", "Write the statistics (JSON).", says="where")
    ]
    origin: Annotated[
        str,
        Option(
            "--from",
            "ORIGIN",
            "Where uncertainty comes from: scores (entropy of their softmax), or mc-dropout: FILES then hold "
            "stochastic passes, (N, S, K) or (N, S, K, H, W), in HDF5 (FILE::DATASET, by default passes), npy or npz: "
            "logits, where --kind says nothing else.",
            default="scores",
            values=("scores", "mc-dropout"),
        ),
    ]
    measure: Annotated[
        str | None,
        Option(
            "--measure",
            "MEASURE",
            "Of passes: predictive-entropy (of their mean; default), or mutual-information (what it exceeds their "
            "mean entropy by).",
            values=("predictive-entropy", "mutual-information"),
        ),
    ]
    delta_power: Annotated[
        float | None,
        Option("--delta-power", "P", "delta = (mu / (max(0, H - mu - sigma) + mu)) ** P. Default: 1."),
    ]
    per_pixel: Annotated[
        bool,
        Option(
            "--per-pixel",
            None,
            "Statistics of pixels, and with them a delta of each pixel of an image: H is the entropy of the pixel's "
            "softmax.",
        ),
    ]
    modality: Annotated[str | None, Option("--modality", "NAME", "Name of the modality, as NAME=FILE.")]
    write_delta: Annotated[
        str | os.PathLike[str] | None,
        Option("--write-delta", "OUT.h5", "Write delta and uncertainty (N,) of the samples to HDF5.", says="where"),
    ]
    statistics: Annotated[
        DeltaStatistics | str | os.PathLike[str] | None,
        Option("--statistics", "FILE", "Fit nothing: --write-delta the factors that these statistics give."),
    ]
    force: ForceOption


def fit_delta(
    inputs: Inputs,
    **options: Unpack[FitDeltaOptions],
) -> Steps[FitDeltaResult]:
    """Fit the statistics that turn a sample's uncertainty into delta, or apply them.

    H of a sample is the mean over its pixels of the entropy (nats) of the softmax of the raw scores: no temperature,
    and no stored delta. Then ``delta = (mu / (max(0, H - mu - sigma) + mu)) ** p``.

    Parameters
    ----------
    inputs : path, sequence of paths, array, or mapping of one name to these
        Logits files, or scores in memory; labels are not needed. A path may be written ``NAME=FILE``, or all of
        them given as ``{name: inputs}``.
        With ``origin="mc-dropout"``, stochastic passes (N, S, K) or (N, S, K, H, W).
    **options : Unpack[FitDeltaOptions]
        See `FitDeltaOptions`.

    Returns
    -------
    FitDeltaResult

    Raises
    ------
    UnoicError
        Bad input, or options that do not go together.

    Examples
    --------
    >>> from unoic_cli import fit_delta
    >>> import numpy as np
    >>> found = fit_delta(np.array([[0.0, 0.0], [0.0, 50.0]], dtype=np.float32))
    >>> round(found.mu, 6), round(found.sigma, 6), found.delta["min"]
    (0.346574, 0.346574, 1.0)
    """
    chosen, looked = filled(FitDeltaOptions, options), filled(DataOptions, options)
    notes, force, delta_power = Notes(chosen["tell"]), chosen["force"], chosen["delta_power"]
    output, write_delta = output_path(chosen["output"]), output_path(chosen["write_delta"])
    origin, statistics = chosen["origin"], chosen["statistics"]
    wanted = _check_origin(origin, chosen["kind"], chosen["measure"], chosen["split"])
    if chosen["per_pixel"]:
        _check_per_pixel(origin, write_delta, statistics)
    if chosen["labels_file"] is not None:
        raise UsageError("--labels", "given to fit-delta", "expected none: labels are not needed")
    _check_power(delta_power)
    plain, modality = yield from _take_names((yield from expand(inputs)), chosen["modality"])
    given = yield from _given_statistics(statistics, wanted, modality, delta_power, output, write_delta)
    others = files_among(statistics)
    if force and output is None and write_delta is None:
        raise UsageError("--force", "--force without an output", "expected --output or --write-delta")
    if output is not None and write_delta is not None and os.path.realpath(output) == os.path.realpath(write_delta):
        raise UsageError("--write-delta", f"{write_delta}, as --output", "expected two names")

    if write_delta is not None and formats.SUFFIXES.get(os.path.splitext(write_delta)[1].lower()) != "hdf5":
        raise UsageError("--write-delta", write_delta, "expected an HDF5 file: .h5, .hdf5 or .hdf")

    def check_outputs(files: Sequence[str]) -> Steps[None]:
        for name in (output, write_delta):
            if name is not None:
                yield from check_output(name, force=force, inputs=(*files, *others), words=("none", "fit"))

    measured = _measure_passes if origin == "mc-dropout" else _measure_scores
    wish = _Wish(chosen["kind"] or "logits", wanted, write_delta, chosen["per_pixel"])
    found = yield from measured(plain, wish, looked, notes, check_outputs)
    moments = found.moments
    if given is None:
        power = 1.0 if delta_power is None else float(delta_power)
        per: Per = "pixel" if chosen["per_pixel"] else "sample"
        made = moments.statistics(power, modality, wanted, {**found.provenance, "from": origin}, per)
        if made.mu == 0:
            notes.add(f"every {per} has an uncertainty of 0: delta is 1 for such {per}s and 0 for all others")
    else:
        made = given
    result = FitDeltaResult(
        statistics=made,
        n=moments.n,
        mu=moments.mean(),
        sigma=moments.deviation(),
        applied=given is not None,
        delta=None if found.kept is None else _summary(made, found.kept),
        files=found.files,
        split=chosen["split"],
        notes=tuple(notes.texts),
    )
    yield from _write(result, found.kept, output, write_delta)
    return result


class _Wish(NamedTuple):
    kind: Kind
    measure: Measure
    write_delta: str | None
    per_pixel: bool = False


class _Measured(NamedTuple):
    """What is known after reading: H of each sample (-1: not in the split), if kept, and its moments."""

    moments: Moments
    kept: NDArray[np.int64] | None
    files: tuple[str, ...]
    provenance: dict[str, Any]


# ------------------------------------------------------------------------------------------------
# options


def _check_origin(origin: str, kind: str | None, measure: str | None, split: str | None) -> Measure:
    """The measure that is meant."""
    if origin not in ORIGINS:
        raise UsageError("--from", f"{origin!r}", f"expected {' or '.join(ORIGINS)}")
    if origin == "scores":
        if measure not in (None, "entropy"):
            raise UsageError("--measure", f"{measure!r} with --from scores", "expected stochastic passes for it")
        return "entropy"
    if kind is not None:
        check_kind("--kind", kind)
    if split is not None:
        raise UsageError("--split", "given with --from mc-dropout", "expected a file with the wanted samples only")
    if measure not in (None, "predictive-entropy", "mutual-information"):
        raise UsageError("--measure", f"{measure!r}", "expected predictive-entropy or mutual-information")
    return cast(Measure, measure or "predictive-entropy")


def _check_per_pixel(origin: str, write_delta: str | None, statistics: Any) -> None:
    if origin != "scores":
        raise UsageError("--per-pixel", f"--per-pixel with --from {origin}", "expected --from scores")
    if statistics is not None or write_delta is not None:
        option = "--statistics" if statistics is not None else "--write-delta"
        expected = "expected none: commands make the delta of each pixel while they read, from --delta STATISTICS"
        raise UsageError("--per-pixel", f"--per-pixel with {option}", expected)


def _check_power(power: float | None) -> None:
    if power is not None and not (math.isfinite(power) and power >= 0):
        raise UsageError("--delta-power", str(power), "expected a finite number, not negative")


def _take_names(inputs: Inputs, modality: str | None) -> Facts[tuple[Inputs, str | None]]:
    """Inputs without their ``NAME=``, and the one name that they and the option give."""
    if modality is not None and not _NAME.fullmatch(modality):
        raise UsageError("--modality", f"{modality!r}", "expected letters, digits, '_', '.' and '-', a letter first")
    if isinstance(inputs, Mapping):
        if len(inputs) != 1:
            raise UsageError("inputs", f"{len(inputs)} modalities", "expected one modality at a time")
        ((name, inputs),) = inputs.items()
        if modality not in (None, name):
            raise UsageError("--modality", f"{modality}, but {name} in the inputs", "expected one modality at a time")
        modality = str(name)
    items: list[Any]
    if isinstance(inputs, str):
        items = [inputs]
    elif isinstance(inputs, (list, tuple)):
        items = list(inputs)
    else:
        return inputs, modality
    for i, item in enumerate(items):
        match = _NAMED.fullmatch(item) if isinstance(item, str) else None
        if match is None or (yield from is_there(item)):
            continue
        name, items[i] = match.groups()
        if modality is not None and name != modality:
            found = f"modality {name}, after {modality}"
            raise UsageError(formats.storage.shown(item), found, "expected one modality at a time")
        modality = name
    return items[0] if isinstance(inputs, str) else items, modality


def _given_statistics(
    statistics: DeltaStatistics | str | os.PathLike[str] | None,
    measure: Measure,
    modality: str | None,
    power: float | None,
    output: str | None,
    write_delta: str | None,
) -> Facts[DeltaStatistics | None]:
    """The statistics to apply, held to what else was asked for."""
    if statistics is None:
        return None
    if write_delta is None:
        raise UsageError("--statistics", "given without --write-delta", "expected a place for the factors")
    if output is not None:
        raise UsageError("--output", "given with --statistics", "expected --write-delta alone: nothing is fitted")
    if power is not None:
        raise UsageError(
            "--delta-power", "given with --statistics", "expected none: the power is that of the statistics"
        )
    if isinstance(statistics, DeltaStatistics):
        where, given = "--statistics", statistics
    else:
        where = os.fspath(statistics)
        given = yield from DeltaStatistics.read(where)
    if given.measure != measure:
        raise DataError(where, f"statistics of {given.measure}", f"expected those of {measure}, as measured here")
    if given.per == "pixel":
        raise DataError(where, "statistics of pixels", "expected those of samples, whose factors can be written")
    if modality is not None and given.modality is not None and given.modality != modality:
        raise DataError(where, f"statistics of modality {given.modality}", f"expected those of {modality}")
    return given


# ------------------------------------------------------------------------------------------------
# entropy of scores


def _measure_scores(
    inputs: Inputs, wish: _Wish, options: DataOptions, notes: Notes, check: Callable[[Sequence[str]], Steps[None]]
) -> Steps[_Measured]:
    data = yield from open_inputs(inputs, None, options, notes)
    for source in data.sources:
        if source.kind == "predictions":
            raise DataError(source.name, "predictions and no scores", f"expected {', '.join(SCORE_KINDS)}")
    names = tuple(source.name for source in data.sources)
    if len(set(names)) < len(names):
        raise UsageError(names[0], "two sources of this name", "expected a name of its own for each")
    yield from check(names)
    if any("delta" in source.fields for source in data.sources):
        notes.add("the input has a delta; the uncertainty is that of the scores without it")
    bare = tuple(replace(source, fields=source.fields & {"split"}) for source in data.sources)
    data = replace(data, sources=bare)
    if wish.per_pixel:
        if all(source.pixels == 1 for source in bare):
            raise UsageError("--per-pixel", "--per-pixel of rows", "expected images")
        pixels = EntropyTally(data.n_classes, per_pixel=True)
        yield from count(data, [pixels])
        return _Measured(pixels.moments, None, names, provenance(data, options))
    kept, tally = None, EntropyTally(data.n_classes)
    sizes = {source.name: source.n_samples for source in bare}
    n_samples = sum(sizes.values())
    if n_samples <= _KEPT:
        tally = EntropyTally(data.n_classes, sizes)
    elif wish.write_delta is not None:
        kept = _room(n_samples, wish.write_delta)
        views = np.split(kept, np.cumsum(list(sizes.values()))[:-1])
        tally = EntropyTally(data.n_classes, into=dict(zip(names, views, strict=True)))
    yield from count(data, [tally])
    if n_samples <= _KEPT:
        kept = np.concatenate([tally.kept(name) for name in names])
    return _Measured(tally.moments, kept, names, provenance(data, options))


def _room(n_samples: int, beside: str) -> NDArray[np.int64]:
    """-1 for each sample, in a nameless file beside the output, so that memory stays flat."""
    try:
        with tempfile.TemporaryFile(dir=os.path.dirname(beside) or ".") as file:
            os.posix_fallocate(file.fileno(), 0, 8 * n_samples)  # a disk that is full later on would end the process
            room = np.memmap(file, dtype=np.int64, mode="r+", shape=(n_samples,))
    except OSError as error:
        raise storage_error(beside, error) from error
    for start in range(0, n_samples, _PIECE):
        room[start : start + _PIECE] = -1
    return room


# ------------------------------------------------------------------------------------------------
# stochastic passes

_Read = Callable[[slice, slice], "NDArray[Any]"]


class _Passes(NamedTuple):
    """An array of passes (N, S, K) or (N, S, K, H, W), wherever it lies.

    `read` gives (samples, S, K, rows, W) of some samples and rows; `steps` says how many of each go well together.
    """

    where: str
    shape: tuple[int, int, int, int, int]
    steps: tuple[int, int]
    read: _Read


def _measure_passes(
    inputs: Inputs, wish: _Wish, options: DataOptions, notes: Notes, check: Callable[[Sequence[str]], Steps[None]]
) -> Steps[_Measured]:
    check_threads(options["threads"])
    items: list[Any]
    if isinstance(inputs, (str, os.PathLike)):
        items = [inputs]
    elif isinstance(inputs, (list, tuple)) and all(isinstance(item, (str, os.PathLike)) for item in inputs):
        items = list(inputs)
    else:
        items = [np.asarray(inputs)]
    if not items:
        raise UsageError("FILES", "no input", "expected at least one file of passes")
    names = tuple("<array>" if isinstance(item, np.ndarray) else os.fspath(item) for item in items)
    split = [formats.split_name(name) for name in names]
    paths = [(formats.file_identity(path), group) for path, group in split]
    if len(set(paths)) < len(paths):
        raise UsageError(names[0], "the same data twice", "expected each input once")
    yield from check(names)
    moments, kept, first = Moments(), [], ("", 0)
    for i, item in enumerate(items):
        with _open_passes(item, options["allow_external"]) as passes:
            n_classes = passes.shape[2]
            if first[1] and n_classes != first[1]:
                raise DataError(passes.where, f"{n_classes} classes", f"expected {first[1]}, as in {first[0]}")
            first = first if first[1] else (passes.where, n_classes)
            values = _uncertainties(passes, wish, options["progress"] if len(items) == 1 else None)
        if len(items) > 1 and options["progress"] is not None:
            options["progress"](i + 1, len(items))
        moments.count(values)
        kept.append(values)
    origin = {"unoic": __version__, "files": list(names), "split": None, "kind": wish.kind}
    return _Measured(moments, np.concatenate(kept), names, origin)


@contextlib.contextmanager
def _open_passes(item: Any, allow_external: bool) -> Iterator[_Passes]:
    """Find passes in a file (or take an array), and let go of it in the end."""
    if isinstance(item, np.ndarray):
        yield _array_passes("<array>", item)
        return
    name = os.fspath(item)
    kind = formats.detect(name)
    if kind not in ("hdf5", "npy", "npz"):
        raise DataError(name, f"a {kind} file", "expected passes in HDF5, npy or npz")
    formats.storage.refuse_remote(name, "file of passes")
    with contextlib.ExitStack() as stack:
        yield _hdf5_passes(name, allow_external, stack) if kind == "hdf5" else _numpy_passes(name, stack)


def _hdf5_passes(name: str, allow_external: bool, stack: contextlib.ExitStack) -> _Passes:
    from unoic_cli.formats import hdf5_files

    path, member = formats.split_name(name)
    member = member.strip("/") or _DEFAULT
    where = f"{path}:{member}"
    file = stack.enter_context(hdf5_files.opened(path, path, watched=False))
    with hdf5_files.damaged(where):
        dataset = hdf5_files.Place(path, file, "/", allow_external).dataset(member)
        if dataset is None:
            raise DataError(where, f"no such dataset among: {hdf5_files.listing(file)}", f"expected {path}::DATASET")
        shape = _pass_shape(where, dataset.shape, dataset.dtype)
        samples, rows = _steps(shape, dataset.dtype.itemsize)
        if dataset.chunks:  # each chunk is decoded once
            grain, tall = dataset.chunks[0], dataset.chunks[3] if dataset.ndim == 5 else 1
            if rows == shape[3]:
                samples = -(-samples // grain) * grain
            else:
                rows = -(-rows // tall) * tall

    def read(samples: slice, rows: slice) -> NDArray[Any]:
        with hdf5_files.damaged(where):
            found = dataset[samples] if dataset.ndim == 3 else dataset[samples, :, :, rows, :]
            return np.asarray(found).reshape(*found.shape[:3], -1, shape[4])

    return _Passes(where, shape, (samples, rows), read)


def _numpy_passes(name: str, stack: contextlib.ExitStack) -> _Passes:
    from unoic_cli.formats import numpy_files, schema

    path, member = formats.split_name(name)
    there = numpy_files.members(path)
    member = member.strip("/") or (next(iter(there)) if len(there) == 1 else _DEFAULT)
    where = f"{path}:{member}"
    if member not in there:
        raise DataError(where, f"no such array among: {', '.join(there) or 'nothing'}", f"expected {path}::ARRAY")
    with numpy_files._stream(path, member) as stream:
        header = numpy_files._header(where, stream)
        shape, dtype = _pass_shape(where, header.shape, header.dtype), header.dtype
        if header.fortran:
            return _array_passes(where, numpy_files.read(path, member))
        begin, left = stream.tell(), math.prod(header.shape) * dtype.itemsize
        file: IO[bytes]
        if not numpy_files._is_zip(path):
            file = stack.enter_context(open(path, "rb"))  # noqa: SIM115
        else:  # the pixels of a sample lie far apart in the stream: it is unpacked once, then read in slabs
            begin, file = 0, stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
            try:
                while left:
                    data = numpy_files._exactly(where, stream, min(left, _SLAB_BYTES))
                    file.write(data)
                    left -= len(data)
                file.flush()
            except OSError as error:
                raise schema.storage_error(tempfile.gettempdir(), error) from error
            numpy_files._check_end(where, stream)
    plane = shape[3] * shape[4] * dtype.itemsize

    def read(samples: slice, rows: slice) -> NDArray[Any]:
        out = np.empty((samples.stop - samples.start, *shape[1:3], rows.stop - rows.start, shape[4]), dtype)
        first = samples.start * shape[1] * shape[2]
        if rows.stop - rows.start == shape[3]:
            schema.pread_into(where, file.fileno(), out, begin + first * plane)
        else:
            skip = begin + rows.start * shape[4] * dtype.itemsize
            for i, one in enumerate(out.reshape(-1, *out.shape[3:])):
                schema.pread_into(where, file.fileno(), one, (first + i) * plane + skip)
        return out

    return _Passes(where, shape, _steps(shape, dtype.itemsize), read)


def _array_passes(where: str, array: NDArray[Any]) -> _Passes:
    shape = _pass_shape(where, array.shape, array.dtype)

    def read(samples: slice, rows: slice) -> NDArray[Any]:
        return array.reshape(shape)[samples, :, :, rows]

    return _Passes(where, shape, _steps(shape, array.dtype.itemsize), read)


def _pass_shape(where: str, shape: Sequence[int] | None, dtype: np.dtype[Any]) -> tuple[int, int, int, int, int]:
    """Check shape and dtype of passes; (N, S, K, H, W), H = W = 1 for rows."""
    if dtype.name not in ("float16", "float32", "float64"):
        raise DataError(where, f"{dtype} values", "expected float16, float32 or float64")
    if shape is None or len(shape) not in (3, 5):
        raise DataError(where, f"shape {tuple(shape or ())}", _SHAPES)
    n, s, k = shape[:3]
    height, width = shape[3:] or (1, 1)
    if n == 0:
        raise DataError(where, "no samples (N = 0)", "expected at least one")
    if s < 2:
        raise DataError(where, f"{s} pass(es) (S = {s})", "expected two or more")
    if k < 2:
        raise DataError(where, f"{k} class(es) (K = {k})", "expected two or more classes")
    if height * width == 0:
        raise DataError(where, f"images of zero size {(height, width)}", "expected at least one pixel")
    return n, s, k, height, width


def _steps(shape: tuple[int, ...], itemsize: int) -> tuple[int, int]:
    """Samples and rows of pixels that are read at once."""
    line = shape[1] * shape[2] * shape[4] * itemsize
    if line * shape[3] <= _SLAB_BYTES:
        return min(shape[0], _SLAB_BYTES // (line * shape[3])), shape[3]
    return 1, max(1, min(shape[3], _SLAB_BYTES // line))


def _uncertainties(passes: _Passes, wish: _Wish, progress: Callable[[int, int], None] | None) -> NDArray[np.int64]:
    """H of each sample in units of 2**-40 nats, (N,)."""
    n, n_passes, n_classes, height, width = passes.shape
    result = np.empty(n, dtype=np.int64)
    pixels = height * width
    for i in range(0, n, passes.steps[0]):
        samples = slice(i, min(i + passes.steps[0], n))
        sums = [0] * (samples.stop - samples.start)
        for row in range(0, height, passes.steps[1]):
            slab = passes.read(samples, slice(row, min(row + passes.steps[1], height)))
            size = slab.shape[3] * width
            flat = np.moveaxis(slab, 0, 2).reshape(n_passes, n_classes, -1)
            units = np.empty(flat.shape[2], dtype=np.int64)
            step = max(256, (1 << 16) // (n_passes * n_classes))
            for start in range(0, units.size, step):
                x = flat[:, :, start : start + step].astype(np.float64, order="C")

                def place(
                    unit: int, start: int = start, row: int = row, i: int = i, size: int = size
                ) -> tuple[int, int]:
                    sample, pixel = divmod(start + unit, size)
                    return i + sample, row * width + pixel

                units[start : start + step] = _entropies_of_passes(x, passes, wish, place)
            high = (units >> _HALF).reshape(-1, size).sum(axis=1).tolist()  # such sums fit
            low = (units & ((1 << _HALF) - 1)).reshape(-1, size).sum(axis=1).tolist()
            sums = [total + (a << _HALF) + b for total, a, b in zip(sums, high, low, strict=True)]
        result[samples] = [(2 * total + pixels) // (2 * pixels) for total in sums]
        if progress is not None:
            progress(samples.stop, n)
    return result


def _entropies_of_passes(
    x: NDArray[np.float64], passes: _Passes, wish: _Wish, place: Callable[[int], tuple[int, int]]
) -> NDArray[np.int64]:
    """Uncertainty of units, scores (S, K, T), in units of 2**-40 nats; overwrites `x`.

    Sums over classes and passes go one by one, so that a unit gets the same bits in any company.
    """
    n_passes, n_classes = x.shape[:2]
    if wish.kind == "probs":
        with np.errstate(divide="ignore", invalid="ignore"):
            np.log(x, out=x)
    top = x.max(axis=1)
    _check_passes(x, top, passes, wish, place)
    with np.errstate(over="ignore"):
        x -= top[:, None]
    np.maximum(x, _LOWEST, out=x)
    e = np.exp(x)
    x *= e
    total, moment = e[:, 0].copy(), x[:, 0].copy()
    for k in range(1, n_classes):
        total += e[:, k]
        moment += x[:, k]
    e /= total[:, None]
    mean = e[0].copy()
    for s in range(1, n_passes):
        mean += e[s]
    mean /= n_passes
    terms = mean * np.log(mean)
    h = -terms[0]
    for k in range(1, n_classes):
        h -= terms[k]
    if wish.measure == "mutual-information":
        own = np.log(total) - moment / total
        expected = own[0].copy()
        for s in range(1, n_passes):
            expected += own[s]
        h -= expected / n_passes
    return np.asarray(np.rint(np.maximum(h, 0.0) * FIXED_POINT), dtype=np.int64)


def _check_passes(
    x: NDArray[np.float64],
    top: NDArray[np.float64],
    passes: _Passes,
    wish: _Wish,
    place: Callable[[int], tuple[int, int]],
) -> None:
    """Refuse NaN, +inf, -inf that is not the log of zero, and passes without any probability."""
    bad = ~(x < np.inf)
    if wish.kind == "logits":
        bad |= x == -np.inf
    empty = top == -np.inf
    if not bad.any() and not empty.any():
        return
    wrong = bad.any(axis=1) | empty
    unit = int(wrong.any(axis=0).argmax())
    s = int(wrong[:, unit].argmax())
    sample, pixel = place(unit)
    where = f"sample {sample}, pass {s}"
    if passes.shape[3] * passes.shape[4] > 1:
        where += f", pixel {divmod(pixel, passes.shape[4])}"
    expected = f"expected finite {wish.kind.replace('_', '-')}"
    if not bad[s, :, unit].any():
        raise DataError(passes.where, f"no class of positive probability at {where}", expected)
    k = int(bad[s, :, unit].argmax())
    value = "a negative, infinite or NaN probability" if wish.kind == "probs" else str(x[s, k, unit])
    raise DataError(passes.where, f"{value} at {where}, class {k}", expected)


# ------------------------------------------------------------------------------------------------
# what comes of it


def _in_pieces(kept: NDArray[np.int64]) -> Iterator[NDArray[np.float64]]:
    """H in nats of the samples that were looked at, in order."""
    for start in range(0, kept.size, _PIECE):
        piece = kept[start : start + _PIECE]
        yield piece[piece >= 0] / FIXED_POINT


def _summary(statistics: DeltaStatistics, kept: NDArray[np.int64]) -> dict[str, float]:
    total, n, below, least, most = 0, 0, 0, 1.0, 0.0
    for uncertainty in _in_pieces(kept):
        if uncertainty.size:
            delta = statistics.delta(uncertainty)
            total += int(np.rint(delta * FIXED_POINT).astype(np.int64).sum())
            n += delta.size
            below += int((delta < 1).sum())
            least, most = min(least, float(delta.min())), max(most, float(delta.max()))
    return {"mean": total / (n * FIXED_POINT), "min": least, "max": most, "below_one": below / n}


def _write(
    result: FitDeltaResult, kept: NDArray[np.int64] | None, output: str | None, write_delta: str | None
) -> Steps[None]:
    """Put the outputs in their files."""
    if output is not None:
        yield from write_json(output, result.statistics.to_dict())
    if write_delta is None:
        return
    from unoic_cli.formats import hdf5_writer

    assert kept is not None
    short = replace(result.statistics, provenance={})  # attributes are small
    pieces = (
        {"delta": result.statistics.delta(piece), "uncertainty": piece} for piece in _in_pieces(kept) if piece.size
    )
    attributes = {"unoic_delta_statistics": json.dumps(short.to_dict())}
    hdf5_writer.write_columns(write_delta, ("delta", "uncertainty"), result.n, attributes, pieces)
