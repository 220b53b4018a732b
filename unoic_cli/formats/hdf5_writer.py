"""HDF5 files as they are written: blocks at the offsets of an allocated skeleton, in any order, from any thread."""

from __future__ import annotations

import io
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from unoic_cli.errors import DataError
from unoic_cli.formats import schema
from unoic_cli.formats.block import LogitBlock, OutputSpec
from unoic_cli.formats.flat import TEXT_FIELDS
from unoic_cli.formats.watched import MOST_TEXT


class Skeleton(io.RawIOBase):
    """A file in memory that keeps only the metadata that libhdf5 writes, and where.

    The library never touches the disk: a full one can crash it, while our own writes just fail.
    """

    def __init__(self) -> None:
        self.parts: list[tuple[int, bytes]] = []
        self.size = 0
        self._at = 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def writable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move."""
        self._at = offset + (0, self._at, self.size)[whence]
        return self._at

    def tell(self) -> int:
        """Where we are."""
        return self._at

    def truncate(self, size: int | None = None) -> int:
        """Set the size; nothing is stored for the gap."""
        self.size = self._at if size is None else size
        return self.size

    def write(self, data: Any) -> int:
        """Keep a part."""
        part = bytes(data)
        self.parts.append((self._at, part))
        self._at += len(part)
        self.size = max(self.size, self._at)
        return len(part)

    def readinto(self, buffer: Any) -> int:
        """Give back what was written, later parts over earlier ones."""
        begin, end = self._at, self._at + len(buffer)
        out = bytearray(len(buffer))
        for at, part in self.parts:
            low, high = max(begin, at), min(end, at + len(part))
            if low < high:
                out[low - begin : high - begin] = part[low - at : high - at]
        buffer[:] = out
        self._at = end
        return len(out)

    def copy_to(self, output: schema.TemporaryOutput) -> None:
        """Write the metadata into the file itself."""
        for offset, part in self.parts:
            output.pwrite(part, offset)
        output.truncate(self.size)  # where nothing could be reserved


def write_columns(
    path: str, names: Sequence[str], n: int, attributes: Mapping[str, str], pieces: Iterable[Mapping[str, NDArray[Any]]]
) -> None:
    """Write float64 columns of n rows, piece by piece; all or nothing.

    Raises
    ------
    CannotCreateError, StorageError
        The file cannot be written.
    """
    skeleton, dtype = Skeleton(), np.dtype("<f8")
    with h5py.File(skeleton, "w") as file:
        offsets = {name: make(file, name, (n,), h5py.h5t.py_create(dtype)) for name in names}
        for name, text in attributes.items():
            file.attrs[name] = text
    output = schema.TemporaryOutput(path)
    try:
        output.reserve(0, skeleton.size)
        for piece in pieces:
            for name in names:
                data = np.ascontiguousarray(piece[name], dtype)
                output.pwrite(data, offsets[name])
                offsets[name] += data.nbytes
        skeleton.copy_to(output)
        output.commit()
    except BaseException:
        output.abort()
        raise


def float_type(encoding: str) -> Any:
    """The type of scores of an encoding, as HDF5 has it."""
    if encoding != "bfloat16":
        return h5py.h5t.py_create(np.dtype(encoding).newbyteorder("<"))
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_ebias(127)
    kind.set_precision(16)
    kind.set_size(2)
    return kind


def _text_type(length: int) -> Any:
    kind = h5py.h5t.C_S1.copy()
    kind.set_size(max(1, length))
    kind.set_cset(h5py.h5t.CSET_UTF8)
    kind.set_strpad(h5py.h5t.STR_NULLPAD)
    return kind


def make(file: Any, name: str, shape: tuple[int, ...], kind: Any) -> int:
    """Make a contiguous dataset with a place in the file but no data; return its offset."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_layout(h5py.h5d.CONTIGUOUS)
    plist.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    plist.set_obj_track_times(False)  # the same content is the same bytes, whenever it is written
    dataset = h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple(shape), plist)
    return int(dataset.get_offset())


class Hdf5Writer:
    """Writes blocks at the offsets of an allocated skeleton: any order, any thread."""

    ordered = False

    def __init__(self, path: str, spec: OutputSpec, unfinished: str | None = None) -> None:
        self._spec = spec
        self._pixels = math.prod(spec.image_shape)
        self._planes = spec.layout == "planes" and bool(spec.image_shape)
        self._offsets: dict[str, int] = {}
        self._dtypes: dict[str, np.dtype[Any]] = {}
        self._columns = {name: _column(spec, name) for name in TEXT_FIELDS if name in spec.dtypes}
        self._lock = threading.Lock()
        self._written = 0
        self._skeleton = self._make_skeleton()
        with h5py.File(self._skeleton, "w") as file:
            self._build(path, file)
        self._output = schema.TemporaryOutput(path, unfinished)
        try:
            self._output.reserve(0, self._skeleton.size)
        except BaseException:
            self._output.abort()
            raise

    def _make_skeleton(self) -> Any:
        return Skeleton()

    def _build(self, path: str, file: Any) -> None:
        spec = self._spec
        units = (spec.n_samples, *spec.image_shape)
        if spec.kind != "predictions":
            shape = (spec.n_samples, spec.n_classes, *spec.image_shape) if self._planes else (*units, spec.n_classes)
            self._make_scores(file, shape)
            if spec.image_shape:
                file[spec.kind].attrs["class_axis"] = 1 if self._planes else 3
        if spec.predictions or spec.kind == "predictions":
            self._add(file, "predictions", units, schema.prediction_dtype(spec.n_classes))
            file["predictions"].attrs["n_classes"] = spec.n_classes
        if "labels" in spec.dtypes:
            self._add(file, "labels", units, np.dtype(spec.dtypes["labels"]))
        if "delta" in spec.dtypes and spec.scalar_delta is None:
            shape = (spec.n_samples,) if spec.sample_delta else units
            self._add(file, "delta", shape, np.dtype(spec.dtypes["delta"]))
        self._small(path, file)

    def _make_scores(self, file: Any, shape: tuple[int, ...]) -> None:
        self._offsets["scores"] = make(file, self._spec.kind, shape, float_type(self._spec.encoding))

    def _small(self, path: str, file: Any) -> None:
        spec = self._spec
        if spec.scalar_delta is not None:
            file["delta"] = np.float64(spec.scalar_delta)
        for name in ("source_counts", "source_prior"):
            values = getattr(spec, name)
            if values is not None:
                file[name] = np.asarray(values, np.float64)
        if spec.class_names is not None:
            file.create_dataset("class_names", data=list(spec.class_names), dtype=h5py.string_dtype())
        file.attrs["unoic_schema"] = 1
        for key, value in spec.attributes.items():
            if key == "unoic_schema":
                continue
            try:
                if len(value) > MOST_TEXT:
                    raise ValueError
                file.attrs[key] = value
            except (OSError, RuntimeError, ValueError) as error:
                raise DataError(path, f"attribute {key} cannot be stored", "expected short text") from error

    def _add(self, file: Any, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._dtypes[name] = dtype.newbyteorder("<")
        self._offsets[name] = make(file, name, shape, h5py.h5t.py_create(self._dtypes[name]))

    def write(self, block: LogitBlock) -> None:
        """Store a block; see `unoic_cli.formats.block.Writer`."""
        if "scores" in self._offsets and block.scores is not None:
            self._write_scores(block.scores, block.start, block.stop)
        for name, dtype in self._dtypes.items():
            values = getattr(block, name)
            if values is not None:
                data, at = np.broadcast_to(values, (block.stop - block.start,)), block.start
                if name == "delta" and self._spec.sample_delta:  # that of the first pixel of each image
                    at = -(-block.start // self._pixels)
                    data = data[at * self._pixels - block.start :: self._pixels]
                self._output.pwrite(np.ascontiguousarray(data, dtype), self._offsets[name] + at * dtype.itemsize)
        first, _ = schema.samples_of(block.start, block.stop, self._pixels)
        with self._lock:
            self._written += block.stop - block.start
            for name, column in self._columns.items():
                values = getattr(block, name)
                if values is not None:
                    column.put(first, values)

    def _write_scores(self, scores: NDArray[Any], start: int, stop: int) -> None:
        spec = self._spec
        dtype = schema.score_dtype(spec.encoding).newbyteorder("<")
        if scores.dtype.kind == "f" and scores.dtype.itemsize == 2:
            scores = scores.view(np.uint16)
        if schema.native(scores.dtype) != schema.native(dtype):
            raise TypeError(f"a block of {scores.dtype} for {spec.encoding}")
        data = np.ascontiguousarray(scores, dtype)
        if not self._planes or (stop - start) % self._pixels == 0:
            unit_bytes = spec.n_classes * dtype.itemsize
            self._output.pwrite(data, self._offsets["scores"] + start * unit_bytes)
            return
        sample, pixel = divmod(start, self._pixels)
        for index, row in enumerate(data[0]):
            at = ((sample * spec.n_classes + index) * self._pixels + pixel) * dtype.itemsize
            self._output.pwrite(row, self._offsets["scores"] + at)

    @property
    def temporary(self) -> str:
        """The name of the unfinished file."""
        return self._output.temporary

    def flush(self) -> None:
        """Put on the disk what was written so far."""
        self._output.flush()

    def commit(self) -> None:
        """Add the text fields and the metadata, flush, and rename onto the final name."""
        units = self._spec.n_samples * self._pixels
        if self._written < units:
            raise ValueError(f"{self._written} of {units} units were written")
        texts = {name: column.encoded() for name, column in self._columns.items()}
        reserved = self._skeleton.size
        with h5py.File(self._skeleton, "r+") as file:
            for name, values in texts.items():
                is_text = values.dtype.kind == "S"
                kind = _text_type(values.dtype.itemsize) if is_text else h5py.h5t.py_create(values.dtype)
                self._offsets[name] = make(file, name, values.shape, kind)
        self._output.reserve(reserved, self._skeleton.size)
        for name, values in texts.items():
            self._output.pwrite(values.view(np.uint8), self._offsets[name])
        self._skeleton.copy_to(self._output)
        self._output.commit()

    def abort(self) -> None:
        """Remove what was written."""
        self._output.abort()


class _Codes:
    """A text column of few distinct values: one small integer per sample."""

    def __init__(self, n_samples: int) -> None:
        self._codes = np.zeros(n_samples, np.int32)
        self._known: dict[str, int] = {"": 0}

    def put(self, first: int, values: NDArray[Any]) -> None:
        """Keep the values of consecutive samples."""
        codes = [self._known.setdefault(value, len(self._known)) for value in values.tolist()]
        self._codes[first : first + len(codes)] = codes

    def encoded(self) -> NDArray[Any]:
        """Fixed-length UTF-8."""
        return np.array([value.encode() for value in self._known])[self._codes]


class _Texts:
    """A text column of distinct values, as fixed-length UTF-8 that widens when it must."""

    def __init__(self, n_samples: int) -> None:
        self._values = np.zeros(n_samples, "S1")

    def put(self, first: int, values: NDArray[Any]) -> None:
        """Keep the values of consecutive samples."""
        encoded = np.array([value.encode() for value in schema.text("sample_id", values)])
        if encoded.dtype.itemsize > self._values.dtype.itemsize:
            self._values = self._values.astype(encoded.dtype)
        self._values[first : first + len(encoded)] = encoded

    def encoded(self) -> NDArray[Any]:
        """Fixed-length UTF-8."""
        return self._values


class _Integers:
    """A column of integers."""

    def __init__(self, n_samples: int, dtype: np.dtype[Any]) -> None:
        self._values = np.zeros(n_samples, dtype.newbyteorder("<"))

    def put(self, first: int, values: NDArray[Any]) -> None:
        """Keep the values of consecutive samples."""
        self._values[first : first + len(values)] = values

    def encoded(self) -> NDArray[Any]:
        """Little-endian integers."""
        return self._values


def _column(spec: OutputSpec, name: str) -> _Codes | _Texts | _Integers:
    if name != "sample_id":
        return _Codes(spec.n_samples)
    if spec.dtypes[name] in ("str", "object") or np.dtype(spec.dtypes[name]).kind not in "iu":
        return _Texts(spec.n_samples)
    return _Integers(spec.n_samples, np.dtype(spec.dtypes[name]))
