"""Logits in HDF5: arrays that are contiguous, or chunked by known filters, go around the library; the rest through it.

libhdf5 runs under one global lock. A contiguous dataset is a run of bytes at a known offset, so
readers fetch it with ``preadv`` and writers store it with ``pwrite``, from any number of threads.
Chunks are read and decoded in `unoic_cli.formats.chunks`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unoic_cli.formats import schema
from unoic_cli.formats.block import OutputSpec, Reader, Writer
from unoic_cli.formats.boxes import Box
from unoic_cli.formats.names import Asked
from unoic_cli.formats.source import ArraySource

MOST_BYTES = 64 << 20
"""Scores that one span of a chunked dataset may hold, when the chunks are read here."""

_TINY = 1 << 16


@dataclass(frozen=True, repr=False, kw_only=True)
class Hdf5(ArraySource):
    """Scores in a group of an HDF5 file.

    Attributes
    ----------
    chunks : tuple of int
        Of the scores; () where they are not chunked.
    allow_external : bool
        Follow external links, external storage and virtual datasets.
    """

    NAME = "hdf5"
    TITLE = "an HDF5 file"
    SUFFIXES = (".h5", ".hdf5", ".hdf")
    SIGNATURES = (b"\x89HDF\r\n\x1a\n",)
    WRITABLE = True
    GROUPS = True

    chunks: tuple[int, ...] = ()
    allow_external: bool = False

    @classmethod
    def matches(cls, starts: Sequence[bytes], name: str) -> bool:
        """Also behind a user block."""
        return any(start.startswith(cls.SIGNATURES) for start in starts)

    @classmethod
    def describe(cls, name: str, path: str, group: str, *, allow_external: bool, asked: Asked) -> Hdf5:
        """Find the scores of a group; see `FileSource.describe`."""
        from unoic_cli.formats.hdf5_describe import describe

        return describe(name, path, group, allow_external=allow_external, asked=asked)

    @classmethod
    def parts(cls, name: str, path: str, group: str, asked: Asked) -> list[str]:
        """The splits that names of datasets tell apart; see `FileSource.parts`."""
        from unoic_cli.formats.hdf5_describe import parts

        return parts(name, path, group, asked)

    @classmethod
    def box(cls, path: str) -> Box:
        """See `FileSource.box`."""
        from unoic_cli.formats.hdf5_box import Hdf5Box

        return Hdf5Box(path)

    @classmethod
    def create(cls, path: str, spec: OutputSpec, unfinished: str | None = None) -> Writer:
        """Start a file of contiguous arrays; see `FileSource.create`."""
        from unoic_cli.formats.hdf5_writer import Hdf5Writer

        return Hdf5Writer(path, spec, unfinished)

    def open(self) -> Reader:
        """A reader, for one thread."""
        from unoic_cli.formats.hdf5_reader import Hdf5Reader

        return Hdf5Reader(self)

    @property
    def chunk_bytes(self) -> int:
        """Decoded bytes of a chunk of scores; 0 where there are none."""
        return math.prod(self.chunks) * np.dtype(self.arrays["scores"].dtype).itemsize if self.chunks else 0

    def spans(self, target_bytes: int) -> list[tuple[int, int]]:
        """Cut at chunks where there are any, at images where they fit, else inside images.

        Chunks that cut across many images are decoded again for each `MOST_BYTES` of scores they have a share in.
        """
        stored, scores = self.chunks, self.arrays["scores"]
        if not stored or scores.layout is None:
            grain = stored[0] if stored else 0
            return schema.cut_spans(self.n_samples, self.pixels, self.unit_bytes, target_bytes, grain)
        image_bytes = self.pixels * self.unit_bytes
        if stored[0] == 1 and self.pixels > 1 and image_bytes > target_bytes:
            return self._row_spans(stored[scores.image_axis], target_bytes)
        parts = -(-stored[0] * image_bytes // MOST_BYTES)
        return schema.cut_spans(self.n_samples, self.pixels, self.unit_bytes, target_bytes, -(-stored[0] // parts))

    def _row_spans(self, rows: int, target_bytes: int) -> list[tuple[int, int]]:
        """Bands of images, each of whole chunks, which are so many rows high."""
        height, width = self.image_shape
        rows *= max(1, target_bytes // (rows * width * self.unit_bytes))
        edges = [*range(0, height, rows), height]
        return [
            (sample * self.pixels + a * width, sample * self.pixels + b * width)
            for sample in range(self.n_samples)
            for a, b in itertools.pairwise(edges)
        ]

    def read_path(self) -> tuple[str, str]:
        """How scores are read (``contiguous``, ``chunks``, ``library``), and why that is slower than it could be."""
        entry, chunk_bytes = self.arrays["scores"], self.chunk_bytes
        if not self.chunks:
            return ("contiguous" if entry.offset is not None else "library"), ""
        tiny = ""
        if chunk_bytes < _TINY and (self.stored_bytes or 0) > chunk_bytes:
            tiny = f"chunks of {chunk_bytes:,} bytes cost more than they hold"
        if entry.layout is None:
            what = f"chunks of {chunk_bytes >> 20} MB" if self.decoded_whole() else "chunks of this codec"
            return "library", tiny or f"{what} are decoded by the HDF5 library, one at a time"
        return "chunks", self._cut_across() or tiny

    def _cut_across(self) -> str:
        """Why chunks that are read here cost more than they need, if so."""
        if self.kind == "predictions":
            return ""
        if self.chunks[0] * self.pixels * self.unit_bytes > max(MOST_BYTES, self.chunk_bytes):
            return "chunks hold small parts of many samples, and are decoded again for each few of these"
        if self.chunks[1 if self.layout == "planes" else -1] < self.n_classes:
            return "chunks cut across the classes"
        return ""

    def decoded_whole(self) -> int:
        """Bytes of a chunk of scores, where it is so large that the library must decode it in one piece; else 0."""
        from unoic_cli.formats import chunks

        return self.chunk_bytes if self.arrays["scores"].layout is None and self.chunk_bytes > chunks.LARGEST else 0
