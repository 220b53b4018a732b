"""Rewrite a logits file in the form that is read fastest, or in one that is smaller."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Unpack, cast

import numpy as np

from unoic_cli import formats
from unoic_cli.brief import brief, detached, in_html
from unoic_cli.calibrations.view import View
from unoic_cli.commands.convert import (
    check_predictions,
    copy_spec,
    described_again,
    field_dtypes,
    kept_fields,
    label_notes,
    not_held,
)
from unoic_cli.commands.info import BLOCK_BYTES, scalar_delta
from unoic_cli.commands.rounding import DTYPES, RoundingTally, Watch, as_encoding, is_exact, make_watch
from unoic_cli.data.batch import Batch
from unoic_cli.data.dataset import DataSet, Span
from unoic_cli.data.steps import Steps, here, rewrite
from unoic_cli.errors import UsageError
from unoic_cli.formats import schema
from unoic_cli.formats.block import Encoding, Layout, LogitBlock, OutputSpec, Source
from unoic_cli.options import Option, filled
from unoic_cli.resolve.common import asked_of, check_threads, described, parse_size, take_output
from unoic_cli.resolve.inputs import expand, single
from unoic_cli.resolve.options import ArrayOptions, DtypeOption, ForceOption, ProgressOption, TellOption, ThreadsOption
from unoic_cli.tallies.contents import CopyTally
from unoic_cli.tallies.findings import findings_of, id_findings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unoic_cli.calibrations.calibration import Calibration
    from unoic_cli.commands.rounding import Watch

LAYOUTS = ("keep", "rows", "planes")
CODECS = ("none", "gzip", "zstd")
SLICE_BYTES = 2 << 20
"""Scores that are converted, counted and encoded at a time."""

CHUNK_LIMITS = (1 << 12, 64 << 20)
"""Bytes of a chunk: smaller ones cost more than they hold, larger ones are not read in parallel."""


@dataclass(frozen=True)
class Changed:
    """Decisions that rounding changed.

    Attributes
    ----------
    lam : float
        The lambda they were made at.
    calibrated : bool
        With the calibration that was given; otherwise the largest score as stored (times delta).
    n_changed, n_units : int
        Of how many.
    """

    lam: float
    calibrated: bool
    n_changed: int
    n_units: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"lambda": self.lam, **{k: v for k, v in dataclasses.asdict(self).items() if k != "lam"}}


@dataclass(frozen=True)
class PackResult:
    """What was written.

    Attributes
    ----------
    input, output : str
        As typed.
    format, storage_from, storage : str
        Format of the output, and one phrase each on how scores were and are stored.
    kind, layout, encoding_from, encoding
        What the scores are, ``rows`` or ``planes``, and the type of a score before and after; None for predictions.
    n_samples, n_classes, image_shape
        N, K, (H, W) or ().
    fields : tuple of str
        What was kept beside the scores.
    n_bytes_from, n_bytes : int
        Sizes of both files.
    changed : tuple of Changed
        Empty where no score was rounded.
    notes : tuple of str
        What the user should know.
    """

    input: str
    output: str
    format: str
    storage_from: str
    storage: str
    kind: str
    layout: str | None
    encoding_from: str | None
    encoding: str | None
    n_samples: int
    n_classes: int
    image_shape: tuple[int, ...]
    fields: tuple[str, ...]
    n_bytes_from: int
    n_bytes: int
    changed: tuple[Changed, ...]
    notes: tuple[str, ...]

    __repr__ = brief
    _repr_html_ = in_html

    @detached
    def to_dict(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        shallow = {item.name: getattr(self, item.name) for item in dataclasses.fields(self)}
        return shallow | {"changed": [one.to_dict() for one in self.changed]}


class PackOptions(ArrayOptions, total=False):
    """Options of `pack`."""

    codec: Annotated[
        str | None,
        Option(
            "--codec",
            "CODEC",
            "Chunks, compressed by gzip or zstd, or none. Default: no chunks.",
            values=("gzip", "zstd", "none"),
        ),
    ]
    chunk: Annotated[
        str | int | None, Option("--chunk", "SIZE", "Bytes of a chunk, like 2M. Default: about 1.5M.", rare=True)
    ]
    dtype: DtypeOption
    layout: Annotated[
        str,
        Option(
            "--layout",
            "LAYOUT",
            "Of images: rows (N, H, W, K), planes (N, K, H, W), or keep.",
            default="keep",
            values=("keep", "rows", "planes"),
        ),
    ]
    checksums: Annotated[
        bool | None,
        Option(
            "--checksums/--no-checksums",
            None,
            "Of the scores, compared when they are read. Default: of chunks and of Parquet; contiguous arrays "
            "have none, and become chunks for their sake.",
        ),
    ]
    calibration: Annotated[
        str | os.PathLike[str] | Calibration | None,
        Option("--calibration -c", "FILE", "Also count what rounding changes under this calibration."),
    ]
    force: ForceOption
    threads: ThreadsOption
    tell: TellOption
    progress: ProgressOption


def pack(
    inputs: str | os.PathLike[str],
    out: str | os.PathLike[str],
    **options: Unpack[PackOptions],
) -> Steps[PackResult]:
    """Rewrite a logits file, all of it: contiguous, or in chunks of a chosen size and codec.

    Parameters
    ----------
    inputs : str
        A logits file, or ``FILE::GROUP``.
    out : str
        Its suffix names the format.
    **options : Unpack[PackOptions]
        See `PackOptions`.

    Returns
    -------
    PackResult

    Raises
    ------
    UsageError
        Options that make no sense for this input or output.
    DataError
        The input is damaged, or holds scores that leave the range of the new type.
    CannotCreateError, StorageError
        The output cannot be written. Nothing is left behind, and an older file is untouched.

    Notes
    -----
    Labels, delta, predictions, text fields, priors, class names and text attributes are kept; what is no part of the
    schema is left behind.

    Examples
    --------
    >>> from unoic_cli import pack
    >>> import os, tempfile, h5py
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "val.h5")
    ...     with h5py.File(path, "w") as file:
    ...         file["logits"] = np.array([[2.0001, 2.0], [0.5, 1.5]], np.float32)
    ...     result = pack(path, os.path.join(folder, "half.h5"), dtype="float16")
    >>> result.storage, result.encoding, result.changed[0].n_changed
    ('contiguous', 'float16', 0)
    """
    name, path = os.fspath(inputs), os.fspath(out)
    chosen = filled(PackOptions, options)
    chunk, dtype, layout, checksums = chosen["chunk"], chosen["dtype"], chosen["layout"], chosen["checksums"]
    codec, calibration = _check_checksums(path, chosen["codec"], chunk, checksums), chosen["calibration"]
    chunk_bytes = _check_options(path, codec, chunk, dtype, layout, chosen["threads"])
    used = (
        (name,)
        if calibration is None or not isinstance(calibration, (str, os.PathLike))
        else (name, os.fspath(calibration))
    )
    path = yield from take_output(path, force=chosen["force"], inputs=used)
    asked = asked_of(chosen)
    name = single(name, (yield from expand(name, asked)))
    opened = yield from described(name, allow_external=chosen["allow_external"], asked=asked)
    scalar = scalar_delta(opened)
    spec = replace(_output_spec(opened, dtype, layout, codec or chunk, scalar), checksums=checksums is not False)
    rounded = not is_exact(opened.encoding, spec.encoding)
    if calibration is not None and not rounded:
        raise UsageError(
            "--calibration", "nothing that is rounded", "expected a --dtype that is narrower than the file's"
        )
    watch = None
    if rounded:
        watch = yield from make_watch(opened, spec.encoding, calibration)
    shard = (yield from here()).shard
    data = DataSet((opened,), None, frozenset(), opened.n_samples, shard=shard)
    first, last = (0, opened.n_units) if shard is None else data.shard_units(*shard)
    part = replace(spec, n_samples=(last - first) // opened.pixels)
    maker = _Packed(opened, part, scalar, watch, *_grain(part, codec, chunk, chunk_bytes), codec or "none", first)
    left_out = formats.left_out(path, part)
    packed = yield from rewrite(data, path, maker)
    seen, *rounding = packed.tallies
    written, n_bytes = described_again(packed.place, spec), os.path.getsize(packed.place)
    notes = [*not_held(path, left_out), *label_notes(seen.labels, opened.n_classes)]
    changed = () if watch is None else _changed(watch, rounding[0], packed.n_units)
    repeated = yield from id_findings([opened], None)
    notes += map(str, findings_of(opened, seen.evidence, repeated))
    left = formats.others([opened])
    if left is not None:
        notes.append(left)
    if rounded and spec.predictions:
        notes.append("predictions are kept as they were stored, whatever the rounding did to the scores")
    is_scores = opened.kind != "predictions"
    return PackResult(
        input=name,
        output=path,
        format=written.format,
        storage_from=opened.storage,
        storage=written.storage,
        kind=opened.kind,
        layout=written.layout if is_scores else None,
        encoding_from=opened.encoding if is_scores else None,
        encoding=written.encoding if is_scores else None,
        n_samples=opened.n_samples,
        n_classes=opened.n_classes,
        image_shape=opened.image_shape,
        fields=tuple(
            name
            for name in kept_fields(opened, spec.dtypes, predictions=spec.predictions, scalar=scalar)
            if name not in left_out
        ),
        n_bytes_from=opened.n_bytes,
        n_bytes=n_bytes,
        changed=changed,
        notes=tuple(notes),
    )


def _check_checksums(path: str, codec: str | None, chunk: Any, checksums: bool | None) -> str | None:
    """The codec: ``none`` where only checksums ask for chunks.

    Raises
    ------
    UsageError
        Checksums where there is no place for them, or none where there are none anyway.
    """
    kind = formats.SUFFIXES.get(os.path.splitext(path)[1].lower())
    if kind == "arrow" and checksums is not None:
        raise UsageError("--checksums", "given, but Arrow streams have none", "expected an output like OUT.h5")
    if kind != "hdf5" or codec is not None or chunk is not None or checksums is None:
        return codec
    if not checksums:
        raise UsageError("--no-checksums", "given, but contiguous arrays have none", "expected --codec or --chunk")
    return "none"


def _check_options(
    path: str, codec: str | None, chunk: str | int | None, dtype: str, layout: str, threads: int | None
) -> int | None:
    """Check what can be checked without the input; return the bytes of a chunk, if they were given."""
    kind = formats.writable(path).NAME
    for option, value, known in (("--codec", codec, CODECS), ("--dtype", dtype, DTYPES), ("--layout", layout, LAYOUTS)):
        if value is not None and value not in known:
            raise UsageError(option, f"{value!r}", f"expected one of {', '.join(known)}")
    check_threads(threads)
    if kind != "hdf5":
        for option, given in (
            ("--codec", codec),
            ("--chunk", chunk),
            ("--layout", None if layout == "keep" else layout),
        ):
            if given is not None:
                raise UsageError(option, f"given, but {path} is no HDF5 file", "expected an output like OUT.h5 for it")
    if chunk is None:
        return None
    size = parse_size(chunk, "--chunk")
    if not CHUNK_LIMITS[0] <= size <= CHUNK_LIMITS[1]:
        raise UsageError("--chunk", f"{size:,} bytes", "expected 4K to 64M")
    return size


def _output_spec(source: Source, dtype: str, layout: str, chunked: Any, scalar: float | None) -> OutputSpec:
    if source.kind == "predictions":
        wanted = {"--dtype": dtype != "keep", "--layout": layout != "keep", "--codec or --chunk": bool(chunked)}
        for option, given in wanted.items():
            if given:
                raise UsageError(option, f"given, but {source.name} holds predictions", "expected scores")
    if layout != "keep" and not source.image_shape:
        raise UsageError("--layout", f"given, but {source.name} holds no images", "expected scores of images")
    dtypes = field_dtypes(source, scalar)
    sample_delta, delta_dtype = source.delta_storage()
    if "delta" in dtypes:
        dtypes["delta"] = delta_dtype
    encoding = source.encoding if dtype == "keep" else cast("Encoding", dtype)
    attributes = dict(source.attributes)
    if encoding != source.encoding:
        attributes["unoic_packed"] = json.dumps({"dtype": [source.encoding, encoding]})
    return replace(
        copy_spec(source, dtypes, scalar),
        encoding=encoding,
        layout=source.layout if layout == "keep" else cast("Layout", layout),
        sample_delta=sample_delta and bool(source.image_shape),
        attributes=attributes,
    )


def _grain(
    spec: OutputSpec, codec: str | None, chunk: str | int | None, chunk_bytes: int | None
) -> tuple[tuple[int, ...], int]:
    """Shape of a chunk of the output, () for none, and its units."""
    if codec is None and chunk is None:
        return (), 1
    from unoic_cli.formats import chunk_writer

    shape = chunk_writer.chunk_shape(spec, chunk_bytes or chunk_writer.CHUNK_BYTES)
    return shape, chunk_writer.chunk_units(spec, shape)


# ------------------------------------------------------------------------------------------------
# copying


@dataclass(frozen=True)
class _Packed:
    """What is copied, and how.

    Attributes
    ----------
    chunk, grain
        Shape of an output chunk, () for none, and its units.
    codec : str
    first : int
        Unit of the source that comes first in the output.
    """

    source: Source
    output: OutputSpec
    scalar: float | None
    watch: Watch | None
    chunk: tuple[int, ...]
    grain: int
    codec: str
    first: int = 0

    view = View()
    as_stored = True

    @property
    def whole(self) -> bool:
        """Whether samples must be seen whole."""
        return self.watch is not None and self.watch.needs_samples

    @property
    def turned(self) -> bool:
        """Whether the classes move to another axis."""
        return bool(self.output.image_shape) and self.output.layout != self.source.layout

    @property
    def fields(self) -> frozenset[str]:
        """What is read."""
        return frozenset(self.output.dtypes) | {"scores"} | ({"predictions"} if self.output.predictions else set())

    @property
    def pieces(self) -> Layout | None:
        """Blocks as they come, or as large as they have to be."""
        return self.output.layout if self.chunk or self.turned or self.whole else None

    def spec(self, n_samples: int) -> OutputSpec:
        """The form of the output."""
        return replace(self.output, n_samples=n_samples)

    def spans(self, data: DataSet) -> list[Span]:
        """Spans of the input, moved to where output chunks (and samples, where these must be seen whole) begin."""
        source, pixels = self.source, self.source.pixels
        first = self.first
        edges = {first, source.n_units if data.shard is None else data.shard_units(*data.shard)[1]}
        for span in data.spans(BLOCK_BYTES):
            unit = (span.start - first) // pixels * pixels if self.whole else span.start - first
            origin = unit // pixels * pixels if self.grain < pixels else 0
            edges.add(first + origin + (unit - origin) // self.grain * self.grain)
        return [Span(source, start, stop) for start, stop in itertools.pairwise(sorted(edges))]

    def create(self, path: str, spec: OutputSpec, unfinished: str | None) -> Any:
        """Start the output, or go on with an unfinished one."""
        if not self.chunk:
            return formats.create(path, spec, unfinished=unfinished)
        from unoic_cli.formats import chunk_writer

        return chunk_writer.create(path, spec, cast("chunk_writer.Codec", self.codec), self.chunk)

    def tallies(self) -> list[Any]:
        """What the input is like, and what rounding changes."""
        rounding = [] if self.watch is None else [RoundingTally(len(self.watch.lams))]
        return [CopyTally(self.source), *rounding]

    def worker(self, spec: OutputSpec, tallies: Sequence[Any]) -> _Packer:
        """What makes blocks in one thread."""
        return _Packer(self, tallies)

    def slices(self, block: LogitBlock) -> Iterator[LogitBlock]:
        """Parts of a block that stay in cache while they are converted, counted and encoded: views, mostly."""
        if block.scores is None or not (self.chunk or self.output.encoding != self.source.encoding or self.turned):
            yield block
            return
        pixels, at = self.source.pixels, block.start
        while at < block.stop:
            end = min(block.stop, self._slice_end(at))
            first, last = at - block.start, end - block.start
            base, (low, high) = block.start // pixels, schema.samples_of(at, end, pixels)
            units = [_part(array, first, last) for array in (block.labels, block.delta, block.predictions)]
            samples = [_part(array, low - base, high - base) for array in (block.split, block.group, block.sample_id)]
            yield LogitBlock(at, end, _slice(block.scores, first, last), units[2], units[0], units[1], *samples)
            at = end

    def _slice_end(self, at: int) -> int:
        """Where a slice ends that begins at a unit: at an output chunk, and inside an image or between two."""
        return self.first + self._end_after(at - self.first)

    def _end_after(self, at: int) -> int:
        pixels, grain = self.source.pixels, self.grain
        units = max(1, SLICE_BYTES // (self.source.n_classes * schema.score_dtype(self.source.encoding).itemsize))
        if units >= pixels or self.whole or grain >= pixels:
            grain = max(grain, pixels)
            return at // grain * grain + max(1, units // grain) * grain
        origin = at // pixels * pixels
        return min(origin + pixels, origin + (at - origin) // grain * grain + max(1, units // grain) * grain)


class _Packer:
    """One thread: converts, and counts what that changes."""

    def __init__(self, maker: _Packed, tallies: Sequence[Any]) -> None:
        self.maker, (self.seen, *rounding) = maker, tallies
        self.counter = None if maker.watch is None else maker.watch.counter(rounding[0].changed)

    def __call__(self, batch: Batch, start: int) -> Iterator[LogitBlock]:
        self.seen.update(batch)
        block = batch.part.block
        moved = start - block.start
        for part in self.maker.slices(block):
            made = self._made(part)
            yield made if not moved else replace(made, start=made.start + moved, stop=made.stop + moved)

    def _made(self, block: LogitBlock) -> LogitBlock:
        """The block as it is to be written."""
        source, spec = self.maker.source, self.maker.output
        if spec.predictions or spec.kind == "predictions":
            check_predictions(source, block)
        if block.scores is None:
            return block
        scores = block.scores
        if spec.encoding != source.encoding:
            scores = as_encoding(scores, source, spec.encoding, block.start)
            if self.counter is not None:
                self.counter.update(block, scores, self.maker.scalar)
        if self.maker.turned:
            scores = _turned(scores, spec, source)
        if not self.maker.chunk:
            return replace(block, scores=scores)
        kept = replace(block, scores=None).own()  # an encoded block is stored later
        return replace(kept, scores=scores)


def _part(array: NDArray[Any] | None, first: int, last: int) -> Any:
    return None if array is None else array[first:last]


def _slice(scores: NDArray[Any], first: int, last: int) -> NDArray[Any]:
    """Units of the scores of a block: whole images or a part of one, where it holds images."""
    if scores.ndim == 2:
        return scores[first:last]
    pixels = scores.shape[2]
    if (last - first) % pixels == 0:
        return scores[first // pixels : last // pixels]
    image = scores[first // pixels]
    return np.ascontiguousarray(image[None, :, first % pixels : first % pixels + last - first])


def _turned(scores: NDArray[Any], spec: OutputSpec, source: Source) -> NDArray[Any]:
    """Scores with the classes on the other axis: (T, K) as (B, K, P), or the other way round."""
    if spec.layout == "rows":
        if scores.ndim == 2:  # pieces of images that were put together
            return scores
        return np.ascontiguousarray(scores.transpose(0, 2, 1)).reshape(-1, spec.n_classes)
    pixels = min(source.pixels, len(scores))
    return np.ascontiguousarray(scores.reshape(-1, pixels, spec.n_classes).transpose(0, 2, 1))


def _changed(watch: Watch, rounding: RoundingTally, n_units: int) -> tuple[Changed, ...]:
    return tuple(
        Changed(lam, i > 0, count, n_units)
        for i, (lam, count) in enumerate(zip(watch.lams, rounding.changed, strict=True))
    )
