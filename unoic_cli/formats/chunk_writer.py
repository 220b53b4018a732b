"""Chunked HDF5 outputs: chunks are encoded by any thread, and stored without the library touching the disk."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal, get_args

import h5py
import numpy as np
from numpy.typing import NDArray

from unoic_cli.formats import chunks, hdf5_writer, schema
from unoic_cli.formats.block import LogitBlock, OutputSpec

Codec = Literal["none", "gzip", "zstd"]
CODECS: tuple[Codec, ...] = get_args(Codec)

CHUNK_BYTES = 3 << 19
"""Scores of a chunk: they stay in cache between decoding and counting."""

_LEVEL = 1
"""Of both compressors: on shuffled scores, higher levels take far longer and gain a percent."""


def chunk_shape(spec: OutputSpec, target_bytes: int = CHUNK_BYTES) -> tuple[int, ...]:
    """Chunks of about `target_bytes`: all classes of whole samples, or of whole rows of pixels of one image.

    Examples
    --------
    >>> chunk_shape(OutputSpec(10**6, 14, (), "logits", "float16", "rows"))
    (56173, 14)
    >>> chunk_shape(OutputSpec(500, 14, (512, 512), "logits", "float16", "planes"))
    (1, 14, 109, 512)
    """
    unit_bytes = spec.n_classes * schema.score_dtype(spec.encoding).itemsize
    image_bytes = math.prod(spec.image_shape) * unit_bytes
    samples = min(spec.n_samples, max(1, target_bytes // image_bytes))
    if not spec.image_shape:
        return samples, spec.n_classes
    height, width = spec.image_shape
    if image_bytes > target_bytes:
        height = min(height, max(1, target_bytes // (width * unit_bytes)))
    return (samples, spec.n_classes, height, width) if _planes(spec) else (samples, height, width, spec.n_classes)


def chunk_units(spec: OutputSpec, chunk: tuple[int, ...]) -> int:
    """Units of a chunk: blocks to be written begin at a multiple, counted from their image where that is larger."""
    return math.prod(chunk) // spec.n_classes


def _planes(spec: OutputSpec) -> bool:
    return spec.layout == "planes" and bool(spec.image_shape)


def create(path: str, spec: OutputSpec, codec: Codec, chunk: tuple[int, ...]) -> ChunkWriter:
    """Start an output file whose scores are chunked; everything else is contiguous.

    Raises
    ------
    CannotCreateError
        The folder is not writable.
    StorageError
        There is no room.
    """
    return ChunkWriter(path, spec, codec, chunk)


class _Skeleton(hdf5_writer.Skeleton):
    """Also says where the library puts a chunk, of which nothing is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.dummy = np.zeros(0, np.uint8)
        self.place = -1

    def write(self, data: Any) -> int:
        """Keep metadata; note the place of what comes from the dummy."""
        begin = self.dummy.ctypes.data
        size = len(data)
        if size and begin <= np.frombuffer(data, np.uint8).ctypes.data < begin + self.dummy.size:
            self.place = self._at
            self._at += size
            self.size = max(self.size, self._at)
            return size
        return super().write(data)


class ChunkWriter(hdf5_writer.Hdf5Writer):
    """Writes blocks in order; `prepare` encodes them, in any thread and order."""

    ordered = True

    def __init__(self, path: str, spec: OutputSpec, codec: Codec, chunk: tuple[int, ...]) -> None:
        self._codec = codec
        self._chunk = chunk
        self._itemsize = schema.score_dtype(spec.encoding).itemsize
        self._file: Any = None
        self._scratch = threading.local()
        super().__init__(path, spec)
        size = math.prod(chunk) * self._itemsize
        self._skeleton.dummy = np.zeros(size + 4, np.uint8)  # the largest that is stored
        self._file = h5py.File(self._skeleton, "r+")
        self._dataset = self._file[spec.kind].id

    def _make_skeleton(self) -> _Skeleton:
        return _Skeleton()

    def _make_scores(self, file: Any, shape: tuple[int, ...]) -> None:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk(self._chunk)
        plist.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        plist.set_obj_track_times(False)
        if self._codec != "none":
            plist.set_shuffle()
        if self._codec == "gzip":
            plist.set_deflate(_LEVEL)
        if self._codec == "zstd":
            plist.set_filter(chunks.ZSTD, h5py.h5z.FLAG_OPTIONAL, (_LEVEL,))
        if self._spec.checksums:  # gzip has one of its own, but not where a chunk is stored as it is
            plist.set_fletcher32()
        kind, space = hdf5_writer.float_type(self._spec.encoding), h5py.h5s.create_simple(shape)
        h5py.h5d.create(file.id, self._spec.kind.encode(), kind, space, plist)

    def prepare(self, block: LogitBlock) -> LogitBlock:
        """Encode the scores of a block, which holds whole chunks; what comes back lives as long as its other arrays."""
        assert block.scores is not None
        encode = _encoder(self._codec, self._spec.checksums)
        held = [(place, *encode(part, self._itemsize, self._room("split"))) for place, part in self._parts(block)]
        return replace(block, scores=None, cache={"chunks": held})

    def write(self, block: LogitBlock) -> None:
        """Store a prepared block; see `unoic_cli.formats.block.Writer`."""
        if block.scores is not None:
            block = self.prepare(block)
        for place, mask, data in block.cache["chunks"]:
            with self._lock:
                self._dataset.write_direct_chunk(place, self._skeleton.dummy[: len(data)], mask)
                offset = self._skeleton.place
            self._output.pwrite(data, offset)
        super().write(block)

    def _parts(self, block: LogitBlock) -> Iterator[tuple[tuple[int, ...], NDArray[np.uint8]]]:
        """First element and bytes of each chunk of a block, in memory that is used again; edges hold zeros."""
        spec, chunk = self._spec, self._chunk
        scores, size = block.scores, chunk_units(spec, chunk)
        assert scores is not None
        dtype = schema.score_dtype(spec.encoding)
        if scores.dtype.itemsize != dtype.itemsize:
            raise TypeError(f"a block of {scores.dtype} for {spec.encoding}")
        data = np.ascontiguousarray(scores, dtype.newbyteorder("<")) if scores.dtype.kind == "f" else scores
        planes, in_image = _planes(spec), size < self._pixels
        image_units = self._pixels if in_image else spec.n_samples * self._pixels
        at = block.start
        while at < block.stop:
            sample, pixel = divmod(at, self._pixels)
            first = at - block.start
            count = min(size, block.stop - at, image_units - at % image_units)
            if at % image_units % size or (count < size and (at + count) % image_units):
                raise ValueError(f"units {block.start} to {block.stop} for chunks of {size}")
            whole = self._room("whole").view(data.dtype)
            if count < size:
                whole[:] = 0
            if planes and in_image:
                image = data.reshape(-1, spec.n_classes, data.shape[2])[first // data.shape[2]]
                inside = first % data.shape[2]
                whole.reshape(spec.n_classes, size)[:, :count] = image[:, inside : inside + count]
            else:
                step = spec.n_classes
                whole[: count * step] = data.reshape(-1)[first * step : (first + count) * step]
            yield self._place(sample, pixel), whole.view(np.uint8)
            at += count

    def _room(self, role: str) -> NDArray[np.uint8]:
        """Memory of the calling thread for a chunk; used again for the next."""
        held = getattr(self._scratch, role, None)
        if held is None:
            held = np.empty(math.prod(self._chunk) * self._itemsize, np.uint8)
            setattr(self._scratch, role, held)
        return held

    def _place(self, sample: int, pixel: int) -> tuple[int, ...]:
        if not self._spec.image_shape:
            return sample, 0
        row = pixel // self._spec.image_shape[1]
        return (sample, 0, row, 0) if _planes(self._spec) else (sample, row, 0, 0)

    def commit(self) -> None:
        """Finish the map of the chunks, and the rest as every writer does."""
        self._file.close()
        super().commit()

    def abort(self) -> None:
        """Remove what was written."""
        if self._file is not None:
            with contextlib.suppress(OSError, RuntimeError):  # what is in memory alone is of no use any more
                self._file.close()
        super().abort()


def _encoder(codec: Codec, checksums: bool) -> Callable[[NDArray[np.uint8], int, NDArray[np.uint8]], tuple[int, Any]]:
    """What turns the bytes of a chunk (and as much scratch) into its filter mask and what is stored."""
    from unoic_cli.kernels.octets import fletcher32, shuffle

    def summed(kept: bytes) -> bytes:
        return kept + fletcher32(np.frombuffer(kept, np.uint8)).to_bytes(4, "little") if checksums else kept

    if codec == "none":
        return lambda data, width, split: (0, summed(data.tobytes()))
    compress = _gzip() if codec == "gzip" else _zstd()

    def encode(data: NDArray[np.uint8], width: int, split: NDArray[np.uint8]) -> tuple[int, Any]:
        shuffle(data, width, split)
        small = compress(split)
        mask, kept = (0, small) if len(small) < data.size else (0b10, split.tobytes())
        return mask, summed(kept)

    return encode


def _gzip() -> Callable[[NDArray[np.uint8]], bytes]:
    from isal import isal_zlib

    return lambda data: isal_zlib.compress(data.data, _LEVEL)


def _zstd() -> Callable[[NDArray[np.uint8]], bytes]:
    import pyarrow

    codec = pyarrow.Codec("zstd", compression_level=_LEVEL)

    def compress(data: NDArray[np.uint8]) -> bytes:
        found: bytes = codec.compress(pyarrow.py_buffer(data), asbytes=True)
        return found

    return compress
