"""What writers of arrays have in common: each array has its place from the start, and blocks come in any order."""

from __future__ import annotations

import math
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.formats import schema
from unoic_cli.formats.block import LogitBlock, OutputSpec
from unoic_cli.formats.flat import TEXT_FIELDS


class ArraysWriter:
    """Writes blocks at the offsets of arrays: any order, any thread.

    Texts are kept until the end, as it is not known before how long they are.

    Parameters
    ----------
    path : str
    spec : OutputSpec
    unfinished : str, optional
        What a process left that was stopped, to go on with.
    """

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
        size = self._lay_out(path)
        self._output = schema.TemporaryOutput(path, unfinished)
        try:
            self._output.reserve(0, size)
        except BaseException:
            self._output.abort()
            raise

    def _lay_out(self, path: str) -> int:
        """Give each array its place; the bytes up to the end of the last."""
        spec = self._spec
        units = (spec.n_samples, *spec.image_shape)
        if spec.kind != "predictions":
            shape = (spec.n_samples, spec.n_classes, *spec.image_shape) if self._planes else (*units, spec.n_classes)
            self._place_scores(shape)
        if spec.predictions or spec.kind == "predictions":
            self._add("predictions", units, schema.prediction_dtype(spec.n_classes))
        if "labels" in spec.dtypes:
            self._add("labels", units, np.dtype(spec.dtypes["labels"]))
        if "delta" in spec.dtypes and spec.scalar_delta is None:
            self._add("delta", (spec.n_samples,) if spec.sample_delta else units, np.dtype(spec.dtypes["delta"]))
        return self._laid_out(path)

    def _place_scores(self, shape: tuple[int, ...]) -> None:
        """Give the scores their place, in `_offsets`."""
        raise NotImplementedError

    def _add(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._dtypes[name] = dtype.newbyteorder("<")
        self._offsets[name] = self._put(name, shape, self._dtypes[name])

    def _put(self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> int:
        """The offset of an array."""
        raise NotImplementedError

    def _laid_out(self, path: str) -> int:
        """Note what is small; the bytes of all that has a place by now."""
        raise NotImplementedError

    def _finish(self, texts: dict[str, NDArray[Any]]) -> None:
        """Write the texts, and what tells where arrays lie."""
        raise NotImplementedError

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
        self._finish({name: column.encoded() for name, column in self._columns.items()})
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
