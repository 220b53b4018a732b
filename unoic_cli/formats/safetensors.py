"""safetensors files: a header in JSON that says where the arrays lie, and the arrays."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from unoic_cli.errors import DataError
from unoic_cli.formats import boxes, schema
from unoic_cli.formats.block import OutputSpec, Writer
from unoic_cli.formats.boxes import Entry, Place
from unoic_cli.formats.plain import Plain
from unoic_cli.storage.whole import open_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_HEADER = 16 << 20
"""Bytes of names, shapes and texts."""
_TYPES = {
    **{f"F{size}": f"<f{size // 8}" for size in (16, 32, 64)},
    **{f"I{size}": f"<i{size // 8}" for size in (8, 16, 32, 64)},
    **{f"U{size}": f"<u{size // 8}" for size in (8, 16, 32, 64)},
    "BF16": "<u2",
    "BOOL": "|b1",
}
_EXPECTED = "expected an intact safetensors file"


class SafetensorsBox(boxes.Box):
    """The arrays of a file, where its header says that they lie."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._places: dict[str, int] = {}
        with self._open() as file:
            size = os.fstat(file.fileno()).st_size
            told = int.from_bytes(file.read(8), "little")
            if size < 8 or not 2 <= told <= size - 8:
                raise DataError(path, f"a header of {told:,} bytes in a file of {size:,}", _EXPECTED)
            if told > MOST_HEADER:
                raise DataError(path, f"a header of {told:,} bytes", f"expected at most {MOST_HEADER:,}")
            try:
                header = json.loads(file.read(told))
            except (ValueError, RecursionError):
                raise DataError(path, "a header that is no JSON", _EXPECTED) from None
        if not isinstance(header, dict) or len(header) > boxes.MOST_NAMES:
            raise DataError(path, "a header that names no arrays", _EXPECTED)
        texts = header.pop("__metadata__", None)
        if isinstance(texts, dict):
            self.texts = {key: text for key, text in texts.items() if isinstance(text, str)}
        for name, facts in header.items():
            self._take(name, facts, 8 + told, size)

    def _open(self) -> IO[bytes]:
        return open(open_regular(self.path, "expected a safetensors file"), "rb")

    def _take(self, name: str, facts: Any, begin: int, size: int) -> None:
        where = f"{self.path}:{name}"
        try:
            text, shape, (first, last) = facts["dtype"], tuple(facts["shape"]), facts["data_offsets"]
        except (TypeError, KeyError, ValueError):
            raise DataError(where, "no dtype, shape and offsets", _EXPECTED) from None
        if not all(type(one) is int and one >= 0 for one in (*shape, first, last)) or len(shape) > 32:
            raise DataError(where, "a shape or offsets that are none", _EXPECTED)
        if not isinstance(text, str) or text not in _TYPES:
            return
        dtype = np.dtype(_TYPES[text])
        need = math.prod(shape) * dtype.itemsize
        if last - first != need or begin + last > size:
            found = f"{text} {shape} at bytes {first:,} to {last:,} of {size - begin:,}"
            raise DataError(where, found, f"expected {need:,} bytes inside the file")
        self.entries[name] = Entry(shape, dtype, text == "BF16")
        self._places[name] = begin + first

    def place(self, member: str) -> Place:
        """See `unoic_cli.formats.boxes.Box`."""
        return Place(self._places[member], "contiguous")

    def read(self, member: str) -> NDArray[Any]:
        """See `unoic_cli.formats.boxes.Box`."""
        shape, dtype, _ = self.entries[member]
        array = np.empty(shape, dtype)
        with self._open() as file:
            if array.size:
                schema.pread_into(f"{self.path}:{member}", file.fileno(), array, self._places[member])
        return array

    def rows(self, member: str, target_bytes: int) -> Iterator[NDArray[Any]]:
        """See `unoic_cli.formats.boxes.Box`."""
        shape, dtype, _ = self.entries[member]
        if not shape:
            yield self.read(member)
            return
        row = math.prod(shape[1:]) * dtype.itemsize
        step = max(1, target_bytes // max(1, row))
        with self._open() as file:
            for start in range(0, shape[0], step):
                block = np.empty((min(step, shape[0] - start), *shape[1:]), dtype)
                if block.size:
                    schema.pread_into(f"{self.path}:{member}", file.fileno(), block, self._places[member] + start * row)
                yield block

    def class_names(self, where: str, n_classes: int) -> tuple[str, ...] | None:
        """Of the entry ``class_names`` of the header's texts: JSON, a list of names."""
        return boxes.listed_names(where, self.texts, n_classes)


@dataclass(frozen=True, repr=False, kw_only=True)
class Safetensors(Plain):
    """Scores among the arrays of a safetensors file."""

    NAME = "safetensors"
    TITLE = "a safetensors file"
    SUFFIXES = (".safetensors",)
    WRITABLE = True
    HOLDS = frozenset({"labels", "delta", "predictions", "source_counts", "source_prior", "class_names", "provenance"})

    @classmethod
    def matches(cls, starts: Sequence[bytes], name: str) -> bool:
        """By its suffix, or by a header that begins where one would."""
        start = starts[0]
        named = name.lower().endswith(cls.SUFFIXES)
        return named or (start[8:10] == b'{"' and int.from_bytes(start[:8], "little") <= MOST_HEADER)

    @classmethod
    def box(cls, path: str) -> boxes.Box:
        """See `FileSource.box`."""
        return SafetensorsBox(path)

    @classmethod
    def create(cls, path: str, spec: OutputSpec, unfinished: str | None = None) -> Writer:
        """Start a file; see `FileSource.create`."""
        from unoic_cli.formats import plain_writer

        return plain_writer.SafetensorsWriter(path, spec, unfinished)
