"""npz, npy and safetensors files as they are written: arrays at their places, from any thread."""

from __future__ import annotations

import io
import json
import math
import os
import struct
import zlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from unoic_cli.errors import UsageError
from unoic_cli.formats import schema
from unoic_cli.formats.arrays_writer import ArraysWriter
from unoic_cli.formats.block import OutputSpec

_PIECE = 1 << 20
_LONG = 0xFFFFFFFF
_DAY = 0x21
"""The first of January 1980: the same content is the same bytes, whenever it is written."""


class _Member(NamedTuple):
    name: bytes
    header: int
    begin: int
    size: int


def _small(spec: OutputSpec) -> dict[str, NDArray[Any]]:
    """Arrays that are known from the start."""
    found: dict[str, NDArray[Any]] = {}
    if spec.scalar_delta is not None:
        found["delta"] = np.array(spec.scalar_delta, np.float64)
    for name in ("source_counts", "source_prior"):
        values = getattr(spec, name)
        if values is not None:
            found[name] = np.asarray(values, np.float64)
    return found


def _npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    stream = io.BytesIO()
    facts = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, facts)
    return stream.getvalue()


class NpzWriter(ArraysWriter):
    """An archive of arrays that are stored as they are; checksums are made in the end, from what was written."""

    def __init__(self, path: str, spec: OutputSpec, unfinished: str | None = None) -> None:
        self._members: list[_Member] = []
        self._parts: list[tuple[int, bytes]] = []
        self._at = 0
        super().__init__(path, spec, unfinished)

    def _place_scores(self, shape: tuple[int, ...]) -> None:
        dtype = np.dtype(_numpy_encoding(self._spec)).newbyteorder("<")
        self._offsets["scores"] = self._put(self._spec.kind, shape, dtype)

    def _put(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        head = _npy_header(shape, dtype)
        size = len(head) + math.prod(shape) * dtype.itemsize
        member = _Member(f"{name}.npy".encode(), self._at, self._at + len(_local(name, size, 0)), size)
        self._members.append(member)
        self._parts.append((member.begin, head))
        self._at = member.begin + size
        return member.begin + len(head)

    def _laid_out(self, path: str) -> int:
        return self._at

    def _finish(self, texts: dict[str, NDArray[Any]]) -> None:
        spec, more = self._spec, {name: _as_text(values) for name, values in texts.items()}
        more |= _small(spec)
        if spec.class_names is not None:
            more["class_names"] = np.array(spec.class_names)
        if spec.image_shape and not self._planes and spec.kind != "predictions":
            more["class_axis"] = np.array(3, np.int64)
        if spec.kind == "predictions":
            more["n_classes"] = np.array(spec.n_classes, np.int64)
        if spec.attributes:
            more["unoic"] = np.array(json.dumps(spec.attributes))
        for name, values in more.items():
            array = np.asarray(values, values.dtype.newbyteorder("<"))
            offset = self._put(name, array.shape, array.dtype)
            self._parts.append((offset, array.tobytes()))
        for offset, data in self._parts:
            self._output.pwrite(data, offset)
        self._directory()

    def _directory(self) -> None:
        """Where each member lies, with the checksum of what was written."""
        entries = []
        for member in self._members:
            crc = 0
            for at in range(0, member.size, _PIECE):
                piece = os.pread(self._output.file, min(_PIECE, member.size - at), member.begin + at)
                crc = zlib.crc32(piece, crc)
            self._output.pwrite(_local(member.name.decode().removesuffix(".npy"), member.size, crc), member.header)
            entries.append(_central(member, crc))
        central = b"".join(entries)
        self._output.pwrite(central + _end(len(entries), len(central), self._at), self._at)


def _numpy_encoding(spec: OutputSpec) -> str:
    if spec.encoding == "bfloat16":
        raise UsageError("OUTPUT", "bfloat16 scores, which numpy has no type for", "expected HDF5 or safetensors")
    return spec.encoding


def _as_text(values: NDArray[Any]) -> NDArray[Any]:
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values


def _local(name: str, size: int, crc: int) -> bytes:
    """What stands before a member."""
    stored, long = f"{name}.npy".encode(), size >= _LONG
    extra = struct.pack("<HHQQ", 1, 16, size, size) if long else b""
    short = _LONG if long else size
    fields = (b"PK\3\4", 45 if long else 20, 0x800, 0, 0, _DAY, crc, short, short, len(stored), len(extra))
    return struct.pack("<4sHHHHHIIIHH", *fields) + stored + extra


def _central(member: _Member, crc: int) -> bytes:
    """What the directory says of a member."""
    longs = [value for value in (member.size, member.size, member.header) if value >= _LONG]
    extra = struct.pack(f"<HH{len(longs)}Q", 1, 8 * len(longs), *longs) if longs else b""
    size, header = min(member.size, _LONG), min(member.header, _LONG)
    fields = (b"PK\1\2", 45, 45 if longs else 20, 0x800, 0, 0, _DAY, crc, size, size, len(member.name), len(extra))
    return struct.pack("<4sHHHHHHIIIHHHHHII", *fields, 0, 0, 0, 0o600 << 16, header) + member.name + extra


def _end(count: int, size: int, at: int) -> bytes:
    """What ends an archive whose directory begins at `at`."""
    found = b""
    if at >= _LONG or count >= 0xFFFF:
        found = struct.pack("<4sQHHIIQQQQ", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, at)
        found += struct.pack("<4sIQI", b"PK\6\7", 0, at + size, 1)
    short = min(count, 0xFFFF)
    return found + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, short, short, min(size, _LONG), min(at, _LONG), 0)


class NpyWriter(ArraysWriter):
    """The scores alone, or the predictions where there are no scores."""

    def _place_scores(self, shape: tuple[int, ...]) -> None:
        if self._spec.image_shape and not self._planes:
            expected = "expected npz, or unoic pack --layout planes first"
            raise UsageError("OUTPUT", "images with the classes on the last axis, which npy cannot say", expected)
        dtype = np.dtype(_numpy_encoding(self._spec)).newbyteorder("<")
        self._offsets["scores"] = self._put(self._spec.kind, shape, dtype)

    def _put(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        self._head = _npy_header(shape, dtype)
        self._size = len(self._head) + math.prod(shape) * dtype.itemsize
        return len(self._head)

    def _laid_out(self, path: str) -> int:
        return self._size

    def _finish(self, texts: dict[str, NDArray[Any]]) -> None:
        self._output.pwrite(self._head, 0)


class SafetensorsWriter(ArraysWriter):
    """Numbers behind a header that says where they lie; names of classes and provenance are its texts."""

    def __init__(self, path: str, spec: OutputSpec, unfinished: str | None = None) -> None:
        self._header: dict[str, Any] = {}
        self._at = 0
        super().__init__(path, spec, unfinished)

    def _place_scores(self, shape: tuple[int, ...]) -> None:
        dtype = schema.score_dtype(self._spec.encoding)
        self._offsets["scores"] = self._put(self._spec.kind, shape, dtype, _TYPES[self._spec.encoding])

    def _put(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], kind: str = "") -> int:
        begin, self._at = self._at, self._at + math.prod(shape) * dtype.itemsize
        told = kind or ("BOOL" if dtype.kind == "b" else f"{dtype.kind.upper()}{8 * dtype.itemsize}")
        self._header[name] = {"dtype": told, "shape": list(shape), "data_offsets": [begin, self._at]}
        return begin

    def _laid_out(self, path: str) -> int:
        spec, small = self._spec, _small(self._spec)
        if spec.image_shape and not self._planes and spec.kind != "predictions":
            small["class_axis"] = np.array(3, np.int64)
        if spec.kind == "predictions":
            small["n_classes"] = np.array(spec.n_classes, np.int64)
        places = {name: self._put(name, array.shape, array.dtype) for name, array in small.items()}
        texts = {} if spec.class_names is None else {"class_names": json.dumps(list(spec.class_names))}
        texts |= {"unoic": json.dumps(spec.attributes)} if spec.attributes else {}
        header = json.dumps({**({"__metadata__": texts} if texts else {}), **self._header}).encode()
        header += b" " * (-len(header) % 8)
        self._head = struct.pack("<Q", len(header)) + header
        self._offsets = {name: len(self._head) + at for name, at in self._offsets.items()}
        self._parts = [(len(self._head) + places[name], array.tobytes()) for name, array in small.items()]
        return len(self._head) + self._at

    def _finish(self, texts: dict[str, NDArray[Any]]) -> None:
        self._output.pwrite(self._head, 0)
        for offset, data in self._parts:
            self._output.pwrite(data, offset)


_TYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32", "float64": "F64"}
