"""Arrays that lie in a file in one piece are read at their offsets, by any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli import storage
from unoic_cli.formats import schema
from unoic_cli.formats.block import LogitBlock
from unoic_cli.formats.source import ArraySource, Stored

TEXT_FIELDS = ("split", "group", "sample_id")


class FlatReader:
    """Reads blocks of one source; what lies otherwise is left to formats that know how.

    Parameters
    ----------
    source : ArraySource
    """

    def __init__(self, source: ArraySource) -> None:
        self._source = source
        self._arrays = source.arrays
        self._buffers = schema.Buffers()
        self._file: storage.File = storage.open_file(source.name, source.path, source.stamp, f"expected {source.TITLE}")

    def blocks(self, start: int, stop: int, fields: frozenset[str]) -> Iterator[LogitBlock]:
        """Units [start, stop); see `unoic_cli.formats.block.Reader`."""
        for first, last in schema.pieces(start, stop, self._source.pixels, self._source.layout):
            block = LogitBlock(first, last)
            for name in fields:
                self._fill(block, name)
            yield block

    def close(self) -> None:
        """Let go of the file."""
        if self._file != -1:
            storage.close_file(self._file)
            self._file = -1

    def _fill(self, block: LogitBlock, name: str) -> None:
        start, stop = block.start, block.stop
        if name in TEXT_FIELDS:
            setattr(block, name, self._text(name, *schema.samples_of(start, stop, self._source.pixels)))
        elif name == "delta":
            block.delta = self._delta(start, stop)
        elif name in ("labels", "predictions"):
            setattr(block, name, self._flat(name, start, stop))
        elif self._source.kind == "predictions":
            block.predictions = self._flat(name, start, stop)
        else:
            block.scores = self._scores(start, stop)

    def _where(self, name: str) -> str:
        return self._source.where(name)

    def _take(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        return self._buffers.take(name, shape, schema.native(self._arrays[name].dtype))

    def _scores(self, start: int, stop: int) -> NDArray[Any]:
        source = self._source
        if source.layout == "rows":
            out = self._take("scores", (stop - start, source.n_classes))
            self._read_run("scores", start, stop, out)
        else:
            first, last = schema.samples_of(start, stop, source.pixels)
            out = self._take("scores", (last - first, source.n_classes, (stop - start) // (last - first)))
            if (stop - start) % source.pixels == 0:
                self._read_run("scores", start, stop, out)
            else:
                self._read_part(start, stop, out[0])
        return out.view(schema.score_dtype(source.encoding))

    def _flat(self, name: str, start: int, stop: int) -> NDArray[Any]:
        out = self._take(name, (stop - start,))
        self._read_run(name, start, stop, out)
        return out

    def _read_run(self, name: str, start: int, stop: int, out: NDArray[Any]) -> None:
        """Fill `out` with units that lie one behind the other in the file."""
        entry = self._arrays[name]
        if entry.offset is None:
            self._read_boxes(name, start, stop, out)
        else:
            self._pread(name, out, entry.offset + start * (out.nbytes // (stop - start)))
        _swap(entry, out)

    def _read_part(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Fill `out`, (K, P), with a part of one image: one strided run per class."""
        entry, pixels = self._arrays["scores"], self._source.pixels
        if entry.offset is None:
            self._read_planes(start, stop, out)
        else:
            sample, pixel = divmod(start, pixels)
            for index, row in enumerate(out):
                at = ((sample * len(out) + index) * pixels + pixel) * out.itemsize
                self._pread("scores", row, entry.offset + at)
        _swap(entry, out)

    def _pread(self, name: str, out: NDArray[Any], offset: int) -> None:
        schema.pread_into(self._where(name), self._file, out, offset)

    def _read_boxes(self, name: str, start: int, stop: int, out: NDArray[Any]) -> None:
        """Fill `out` with units of an array that does not lie in one piece."""
        raise NotImplementedError

    def _read_planes(self, start: int, stop: int, out: NDArray[Any]) -> None:
        """Fill `out` with a part of one image of scores that do not lie in one piece."""
        raise NotImplementedError

    def _delta(self, start: int, stop: int) -> NDArray[np.float64]:
        value = self._arrays["delta"].value
        if value is not None:
            return np.array([value])
        if self._source.delta == "unit":
            return self._flat("delta", start, stop).astype(np.float64)
        pixels = self._source.pixels
        values = self._flat("delta", *schema.samples_of(start, stop, pixels)).astype(np.float64)
        return schema.per_unit(values, start, stop, pixels)

    def _text(self, name: str, first: int, last: int) -> NDArray[Any]:
        """Entries of samples [first, last)."""
        out = self._take(name, (last - first,))
        entry = self._arrays[name]
        assert entry.offset is not None
        self._pread(name, out, entry.offset + first * out.itemsize)
        if not entry.is_text:
            _swap(entry, out)
            return out
        return schema.text(self._where(name), out.view(np.dtype(entry.dtype)))


def _swap(entry: Stored, out: NDArray[Any]) -> None:
    if not np.dtype(entry.dtype).isnative:
        out.byteswap(inplace=True)
