"""Blocks of HDF5 files: around the library where arrays lie in one piece or in known chunks, else through it."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from unoic_cli.errors import DataError
from unoic_cli.formats import chunks, hdf5_files, schema
from unoic_cli.formats.flat import FlatReader
from unoic_cli.formats.hdf5 import Hdf5
from unoic_cli.formats.hdf5_describe import texts


class Hdf5Reader(FlatReader):
    """Reads blocks of one source; libhdf5 is opened only when an array needs it."""

    _source: Hdf5

    def __init__(self, source: Hdf5) -> None:
        self._library: Any = None
        self._closing = contextlib.ExitStack()
        self._datasets: dict[str, Any] = {}
        self._chunked: dict[str, chunks.ChunkReader] = {}
        super().__init__(source)

    def close(self) -> None:
        """Let go of the file."""
        self._chunked.clear()
        self._datasets.clear()
        self._library = None
        self._closing.close()
        super().close()

    def _read_planes(self, start: int, stop: int, out: NDArray[Any]) -> None:
        boxes = list(schema.boxes(start, stop, self._source.image_shape))
        if len(boxes) == 1:
            self._read_box("scores", boxes[0], out.reshape(-1))
            return
        at = 0
        for box in boxes:
            piece = self._read_box("scores", box).reshape(len(out), -1)
            out[:, at : at + piece.shape[1]] = piece
            at += piece.shape[1]

    def _read_boxes(self, name: str, start: int, stop: int, out: NDArray[Any]) -> None:
        flat, at = out.reshape(-1), 0
        image = self._source.image_shape if len(self._arrays[name].shape) > 2 else ()
        for box in schema.boxes(start, stop, image):
            at += self._read_box(name, box, flat[at:]).size

    def _read_box(self, name: str, box: tuple[int, ...], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Read one hyperslab; file and memory have the same shape, else libhdf5 goes element by element."""
        entry = self._arrays[name]
        n0, n1, h0, h1, w0, w1 = box
        begin, count = [0] * len(entry.shape), list(entry.shape)
        begin[0], count[0] = n0, n1 - n0
        if len(count) > 2:
            axis = entry.image_axis
            begin[axis : axis + 2], count[axis : axis + 2] = [h0, w0], [h1 - h0, w1 - w0]
        size = math.prod(count)
        out = np.empty(size, schema.native(entry.dtype)) if out is None else out[:size]
        if entry.layout is None:
            self._read_slab(name, begin, count, out)
        else:
            self._chunk_reader(name).read(begin, count, out)
        return out

    def _read_slab(self, name: str, begin: Sequence[int], count: Sequence[int], out: NDArray[Any]) -> None:
        with self._read_errors(name):
            dataset = self._dataset(name).id
            space = dataset.get_space()
            space.select_hyperslab(tuple(begin), tuple(count))
            # the file's own type: no conversion, and bfloat16 passes as its bits
            dataset.read(h5py.h5s.create_simple(tuple(count)), space, out.reshape(count), dataset.get_type())

    def _chunk_reader(self, name: str) -> chunks.ChunkReader:
        if name in self._chunked:
            return self._chunked[name]
        entry, path, stamp = self._arrays[name], self._source.path, self._source.stamp
        where, layout = self._where(name), entry.layout
        assert layout is not None

        def make() -> chunks.ChunkMap:
            size = os.path.getsize(path) if isinstance(self._file, int) else self._file.size
            with self._opened() as file, hdf5_files.damaged(where):
                return chunks.make_map(where, file[entry.member], layout, size)

        found = chunks.shared_map((path, stamp, entry.member), make)

        def by_library(begin: Sequence[int], count: Sequence[int], out: NDArray[Any]) -> None:
            self._read_slab(name, begin, count, out)

        self._chunked[name] = chunks.ChunkReader(where, self._file, layout, found, by_library)
        return self._chunked[name]

    def _text(self, name: str, first: int, last: int) -> NDArray[Any]:
        with self._read_errors(name):
            self._check_texts(name, first, last)
            values = texts(self._where(name), self._dataset(name), first, last)
        return values if self._arrays[name].is_text else values.astype(schema.native(values.dtype))

    def _check_texts(self, name: str, first: int, last: int) -> None:
        """Refuse lengths that no text has: the library makes room for whatever an entry says."""
        dataset = self._dataset(name)
        kind, offset = h5py.check_string_dtype(dataset.dtype), dataset.id.get_offset()
        if kind is None or kind.length is not None or offset is None or last <= first:
            return
        entries = np.empty((last - first, 4), dtype="<u4")  # length, place of the heap (8 bytes), number in it
        schema.pread_into(self._where(name), self._file, entries, offset + first * 16)
        longest = int(entries[:, 0].max())
        if longest > schema.LONGEST_TEXT and not dataset.file.userblock_size:
            most = f"expected at most {schema.LONGEST_TEXT:,}"
            raise DataError(self._where(name), f"a text of {longest:,} bytes", most)

    def _dataset(self, name: str) -> Any:
        if self._library is None:
            self._library = self._closing.enter_context(self._opened())
        if name not in self._datasets:
            self._datasets[name] = self._library[self._arrays[name].member]
        return self._datasets[name]

    def _opened(self) -> contextlib.AbstractContextManager[Any]:
        """The file, opened by the library."""
        there = self._source.path if isinstance(self._file, int) else self._file.as_file()
        return hdf5_files.opened(self._source.name, there, watched=not self._source.allow_external, most=None)

    def _read_errors(self, name: str) -> contextlib.AbstractContextManager[None]:
        return schema.damaged(self._where(name), "cannot be read", "expected an intact file")
