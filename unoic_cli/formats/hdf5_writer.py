"""HDF5 files as they are written: blocks at the offsets of an allocated skeleton, in any order, from any thread."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from unoic_cli.errors import DataError
from unoic_cli.formats import schema
from unoic_cli.formats.arrays_writer import ArraysWriter
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


class Hdf5Writer(ArraysWriter):
    """Writes blocks at the offsets of an allocated skeleton: any order, any thread."""

    def _lay_out(self, path: str) -> int:
        self._skeleton = self._make_skeleton()
        with h5py.File(self._skeleton, "w") as self._open:
            super()._lay_out(path)
        return int(self._skeleton.size)

    def _make_skeleton(self) -> Any:
        return Skeleton()

    def _place_scores(self, shape: tuple[int, ...]) -> None:
        self._make_scores(self._open, shape)
        if self._spec.image_shape:
            self._open[self._spec.kind].attrs["class_axis"] = 1 if self._planes else 3

    def _make_scores(self, file: Any, shape: tuple[int, ...]) -> None:
        self._offsets["scores"] = make(file, self._spec.kind, shape, float_type(self._spec.encoding))

    def _put(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        offset = make(self._open, name, shape, h5py.h5t.py_create(dtype))
        if name == "predictions":
            self._open[name].attrs["n_classes"] = self._spec.n_classes
        return offset

    def _laid_out(self, path: str) -> int:
        self._small(path, self._open)
        return 0

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

    def _finish(self, texts: dict[str, NDArray[Any]]) -> None:
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
