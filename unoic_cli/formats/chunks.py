"""Chunked HDF5 datasets around the library: a map of the chunks, positioned reads, and decoding in the calling thread.

libhdf5 decodes under its global lock, so threads wait for one another. Here the library only says where chunks lie,
once per process and dataset. What `layout` does not know (lzf, szip, blosc, ...) stays with the library.

Memory of a `ChunkReader`, which belongs to one thread: the chunk as stored, what each filter makes of it, and up to
`KEPT` bytes of chunks that were used in part (or the last of these, if it alone is larger).
"""

from __future__ import annotations

import itertools
import math
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from unoic_cli import storage
from unoic_cli.errors import DataError
from unoic_cli.formats import schema

DEFLATE, SHUFFLE, FLETCHER32, ZSTD = 1, 2, 3, 32015
"""Registered numbers of the filters that are undone here."""

SMALLEST, LARGEST = 4 << 10, 64 << 20
"""Decoded bytes of a chunk; the library reads others, where it has their filters: it is quicker at tiny ones."""

KEPT = 8 << 20
"""Decoded bytes of partly used chunks that a reader keeps."""

_LISTS_CHUNKS = hasattr(h5py.h5d.DatasetID, "chunk_iter")  # not where HDF5 is old: one by one takes quadratic time
_MOST_MAPS = 32
_PIECE = 1 << 20
"""Bytes inflated at a time: larger allocations come fresh from the system each time, and threads wait for its pages."""

_WHOLE = 4 << 20
"""zstd chunks up to this are decoded by one call, larger ones by a stream, without a second copy in memory."""

_use_library = False
"""Set by benchmarks: everything through the library."""


@dataclass(frozen=True)
class Layout:
    """How a chunked dataset is stored.

    Attributes
    ----------
    shape, chunks : tuple of int
    itemsize : int
        Bytes of an element.
    filters : tuple of (int, int)
        Number and first parameter of each filter, in the order of writing.
    available : bool
        The library has all of them, too.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    itemsize: int
    filters: tuple[tuple[int, int], ...]
    available: bool

    @property
    def chunk_bytes(self) -> int:
        """Decoded bytes of a chunk."""
        return math.prod(self.chunks) * self.itemsize

    @property
    def grid(self) -> tuple[int, ...]:
        """Chunks along each axis."""
        return tuple(-(-extent // chunk) for extent, chunk in zip(self.shape, self.chunks, strict=True))


def layout(dataset: Any) -> Layout | None:
    """How a dataset is stored, if its chunks can be read here; None if it must go through the library."""
    plist = dataset.id.get_create_plist()
    itemsize = dataset.id.get_type().get_size()
    if _use_library or not _LISTS_CHUNKS or plist.get_layout() != h5py.h5d.CHUNKED:
        return None
    if itemsize not in (1, 2, 4, 8):
        return None
    found = [plist.get_filter(index) for index in range(plist.get_nfilters())]
    filters = tuple((int(code), int(values[0]) if values else 0) for code, _, values, _ in found)
    codes = [code for code, _ in filters]
    if not set(codes) <= {DEFLATE, SHUFFLE, FLETCHER32, ZSTD} or codes.count(DEFLATE) + codes.count(ZSTD) > 1:
        return None
    if any(code == SHUFFLE and width < 1 for code, width in filters):
        return None
    available = all(h5py.h5z.filter_avail(code) for code in codes)
    found_layout = Layout(tuple(dataset.shape), tuple(dataset.chunks), itemsize, filters, available)
    fits = SMALLEST <= found_layout.chunk_bytes <= LARGEST
    return None if available and not fits else found_layout


def check_sizes(where: str, dataset: Any) -> None:
    """Refuse chunks that the library would fill the memory with: it decodes whatever they hold.

    Raises
    ------
    DataError
        A chunk is far larger than all of the data, or is stored in more bytes than it can need.
    """
    size = math.prod(dataset.chunks) * dataset.id.get_type().get_size()
    whole = dataset.size * dataset.id.get_type().get_size()
    if size > max(LARGEST, 8 * whole):
        raise DataError(where, f"a chunk of {size:,} bytes for {whole:,} bytes of data", "expected smaller chunks")
    if not dataset.id.get_create_plist().get_nfilters() or not _LISTS_CHUNKS:
        return
    largest = 0

    def see(info: Any) -> None:
        nonlocal largest
        largest = max(largest, info.size)

    dataset.id.chunk_iter(see)
    if largest > most_stored(size):
        raise DataError(where, f"a chunk stored in {largest:,} bytes that holds {size:,}", "expected an intact file")


def most_stored(size: int) -> int:
    """Bytes that any filters need for a chunk of `size` bytes."""
    return size + size // 50 + 4096


# ------------------------------------------------------------------------------------------------
# the map


@dataclass(frozen=True)
class ChunkMap:
    """Where the chunks of a dataset lie, by their number in C order of the grid.

    Attributes
    ----------
    offsets, sizes : (C,) int64
        Byte of the file, and stored bytes; -1 where a chunk was never written.
    masks : (C,) uint32 or None
        Bits of the filters that were left out; None where none ever was.
    """

    offsets: NDArray[np.int64]
    sizes: NDArray[np.int64]
    masks: NDArray[np.uint32] | None


def make_map(where: str, dataset: Any, stored: Layout, file_bytes: int) -> ChunkMap:
    """Ask the library for all chunks at once.

    Raises
    ------
    DataError
        A chunk lies outside the file, or off the grid.
    """
    count = math.prod(stored.grid)
    offsets, sizes = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    masks = np.zeros(count, np.uint32)
    places, facts = array("q"), array("Q")

    def see(info: Any) -> None:
        places.extend(info[0])
        facts.extend(info[1:])

    dataset.id.chunk_iter(see)
    first = np.frombuffer(places, np.int64).reshape(-1, len(stored.shape))
    found = np.frombuffer(facts, np.uint64).reshape(-1, 3)
    grid_places = first // stored.chunks
    astray = bool((first % stored.chunks).any() or ((grid_places < 0) | (grid_places >= stored.grid)).any())
    if not astray:
        numbers = np.ravel_multi_index(tuple(grid_places.T), stored.grid)
        masks[numbers] = found[:, 0]
        offsets[numbers], sizes[numbers] = found[:, 1].astype(np.int64), found[:, 2].astype(np.int64)
    user_block = dataset.file.userblock_size
    if user_block and offsets[0] >= 0:
        offsets += _missing_user_block(dataset, offsets[0], sizes[0], user_block) * (offsets >= 0)
    outside = (offsets >= 0) & ((sizes < 0) | (sizes > file_bytes) | (offsets > file_bytes - sizes))
    bloated = sizes > most_stored(stored.chunk_bytes)
    if bloated.any() and not outside.any():
        first_bloated = place_of(int(bloated.argmax()), stored)
        reason = f"chunk at {first_bloated}: stored in {sizes.max():,} bytes"
        raise DataError(where, f"cannot be read ({reason})", "expected an intact file")
    if outside.any() or astray:
        place = place_of(int(outside.argmax()), stored) if outside.any() else "a place off the grid"
        expected = f"expected a complete file ({file_bytes:,} bytes)"
        raise DataError(where, f"cannot be read (the chunk at {place} lies outside of the file)", expected)
    return ChunkMap(offsets, sizes, masks if masks.any() else None)


def _missing_user_block(dataset: Any, offset: int, size: int, user_block: int) -> int:
    """What to add to offsets: some releases of the library count from the end of the user block."""
    stored = dataset.id.read_direct_chunk((0,) * dataset.ndim)[1]
    with open(dataset.file.filename, "rb") as file:
        for more in (0, user_block):
            file.seek(int(offset) + more)
            if file.read(int(size)) == stored:
                return more
    return 0


def place_of(number: int, stored: Layout) -> tuple[int, ...]:
    """First element of a chunk."""
    places = np.unravel_index(number, stored.grid)
    return tuple(int(place) * chunk for place, chunk in zip(places, stored.chunks, strict=True))


_maps: OrderedDict[Any, ChunkMap] = OrderedDict()
_maps_lock = threading.Lock()


def shared_map(key: Any, make: Callable[[], ChunkMap]) -> ChunkMap:
    """The map of this key, made once per process while it is in use; the latest few are kept."""
    with _maps_lock:
        if key not in _maps:
            _maps[key] = make()
            while len(_maps) > _MOST_MAPS:
                _maps.popitem(last=False)
        _maps.move_to_end(key)
        return _maps[key]


# ------------------------------------------------------------------------------------------------
# reading


class _DecodeError(Exception):
    """A chunk that is not what its filters write."""


class ChunkReader:
    """One thread's way to the chunks of one dataset.

    Parameters
    ----------
    where : str
        ``FILE:DATASET`` for messages.
    file : descriptor or remote object
    stored : Layout
    chunk_map : ChunkMap
    by_library : callable
        Reads a hyperslab (begin, count, out) with the library.
    """

    def __init__(
        self,
        where: str,
        file: storage.File,
        stored: Layout,
        chunk_map: ChunkMap,
        by_library: Callable[[Sequence[int], Sequence[int], NDArray[Any]], None],
    ) -> None:
        self._where = where
        self._file = file
        self._layout = stored
        self._map = chunk_map
        self._by_library = by_library
        self._memory: dict[int, NDArray[np.uint8]] = {}
        self._steps: dict[int, list[tuple[int, int]]] = {}
        self._undo = [_filter(code, width) for code, width in stored.filters]
        self._dtype = np.dtype(f"u{stored.itemsize}")
        self._kept: OrderedDict[int, NDArray[Any]] = OrderedDict()
        self._kept_bytes = 0

    def read(self, begin: Sequence[int], count: Sequence[int], out: NDArray[Any]) -> None:
        """Fill `out`, C-contiguous and of shape `count`, with a hyperslab in the file's byte order."""
        target = out.reshape(tuple(count)).view(self._dtype)
        chunks, shape, grid = self._layout.chunks, self._layout.shape, self._layout.grid
        ends = [at + n for at, n in zip(begin, count, strict=True)]
        ranges = [range(at // c, (end - 1) // c + 1) for at, end, c in zip(begin, ends, chunks, strict=True)]
        for place in itertools.product(*ranges):
            number, inner, outer, whole, used = 0, [], [], True, True
            for p, c, extent, n, at, end in zip(place, chunks, shape, grid, begin, ends, strict=True):
                number = number * n + p
                origin = p * c
                low, high, last = max(at, origin), min(end, origin + c), min(extent, origin + c)
                inner.append(slice(low - origin, high - origin))
                outer.append(slice(low - at, high - at))
                whole = whole and high - low == c
                used = used and high - low == last - origin
            piece = target[tuple(outer)]
            if whole and piece.flags.c_contiguous:
                self._decode(number, piece.reshape(-1).view(np.uint8))
            else:
                piece[...] = self._chunk(number, keep=not used)[tuple(inner)]

    def _chunk(self, number: int, *, keep: bool) -> NDArray[Any]:
        """A decoded chunk: kept, if the rest of it may be asked for next."""
        if number in self._kept:
            self._kept.move_to_end(number)
            return self._kept[number]
        size = self._layout.chunk_bytes
        while keep and self._kept and (len(self._kept) + 1) * size > KEPT:
            self._kept.popitem(last=False)
        data = schema.room(size) if keep else self._scratch(-2, size)
        self._decode(number, data)
        chunk = data.view(self._dtype).reshape(self._layout.chunks)
        if keep:
            self._kept[number] = chunk
        return chunk

    def _decode(self, number: int, out: NDArray[np.uint8]) -> None:
        """Read a chunk and undo its filters into `out`, (chunk bytes,)."""
        offset, size = int(self._map.offsets[number]), int(self._map.sizes[number])
        mask = int(self._map.masks[number]) if self._map.masks is not None else 0
        if offset < 0:
            raise self._error(number, "was never written")
        steps = self._steps.get(mask)
        if steps is None:
            steps = self._steps[mask] = self._plan(mask)
        if not steps:
            if size != out.size:
                raise self._error(number, f"{size:,} bytes, expected {out.size:,}")
            schema.pread_into(self._where, self._file, out, offset)
            return
        if size == out.size and self._layout.available and self._is_edge(number):
            self._read_edge(number, out)
            return
        data = self._scratch(-1, size)
        schema.pread_into(self._where, self._file, data, offset)
        try:
            for i, step_size in steps:
                last = i == steps[-1][0] and step_size == out.size
                data = self._undo[i](data, out if last else self._scratch(i, step_size))
        except _DecodeError as error:
            raise self._error(number, str(error)) from error.__cause__
        if data.size != out.size:
            raise self._error(number, f"{data.size:,} bytes after decoding, expected {out.size:,}")
        if not np.may_share_memory(data, out):
            out[...] = data
        if out.size >= schema.LARGE:
            schema.give_back()

    def _scratch(self, role: int, size: int) -> NDArray[np.uint8]:
        """Memory for a chunk as stored (-1), decoded (-2), or for what was given to a filter."""
        found = self._memory.get(role)
        if found is None or found.size < size:
            found = self._memory[role] = schema.room(size)
        return found[:size]

    def _error(self, number: int, reason: str) -> DataError:
        place = place_of(number, self._layout)
        return DataError(self._where, f"cannot be read (chunk at {place}: {reason})", "expected an intact file")

    def _plan(self, mask: int) -> list[tuple[int, int]]:
        """Filters in the order of undoing, each with the bytes it was given, as far as known; 0 after a compression."""
        size, plan = self._layout.chunk_bytes, []
        for i, (code, _) in enumerate(self._layout.filters):
            if mask >> i & 1:
                continue
            plan.append((i, size))
            if code in (DEFLATE, ZSTD):
                size = 0
            elif code == FLETCHER32 and size:
                size += 4
        return plan[::-1]

    def _is_edge(self, number: int) -> bool:
        """Whether a chunk reaches beyond the dataset. A file may say that filters leave such chunks alone."""
        place = place_of(number, self._layout)
        return any(at + c > n for at, c, n in zip(place, self._layout.chunks, self._layout.shape, strict=True))

    def _read_edge(self, number: int, out: NDArray[np.uint8]) -> None:
        """Let the library read a chunk of which the map does not tell whether it was filtered."""
        place = place_of(number, self._layout)
        ends = zip(place, self._layout.chunks, self._layout.shape, strict=True)
        count = [min(c, n - at) for at, c, n in ends]
        part = np.empty(count, self._dtype)
        self._by_library(place, count, part)
        inner = tuple(slice(0, n) for n in count)
        out.view(self._dtype).reshape(self._layout.chunks)[inner] = part


Undo = Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.uint8]]
"""Undoes a filter: takes what it wrote, and memory for what it was given; returns the used part of either."""


def _filter(code: int, width: int) -> Undo:
    if code == SHUFFLE:
        return _unshuffler(width)
    return {DEFLATE: _inflater, ZSTD: _zstd, FLETCHER32: _checker}[code]()


def _inflater() -> Undo:
    from isal import isal_zlib

    failure: Any = isal_zlib.error  # its stub calls it a number

    def undo(data: NDArray[np.uint8], out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        stream, at, taken, rest = isal_zlib.decompressobj(), 0, 0, b""
        while not stream.eof:
            given = rest or data[taken : taken + _PIECE].data
            taken += 0 if rest else len(given)
            try:
                found = stream.decompress(given, min(_PIECE, out.size + 1 - at))
            except failure as error:
                raise _DecodeError(str(error)) from error
            if at + len(found) > out.size or not (len(given) or found):
                raise _DecodeError("a deflate stream that does not end where it should")
            out[at : at + len(found)] = np.frombuffer(found, np.uint8)
            at, rest = at + len(found), stream.unconsumed_tail
        return out[:at]

    return undo


def _zstd() -> Undo:
    import pyarrow

    codec = pyarrow.Codec("zstd")

    def undo(data: NDArray[np.uint8], out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        try:
            source = pyarrow.py_buffer(data)
            if out.size <= _WHOLE:
                return np.frombuffer(codec.decompress(source, out.size), np.uint8)
            with pyarrow.CompressedInputStream(pyarrow.BufferReader(source), "zstd") as stream:
                at = 0
                while at < out.size and (count := stream.readinto(out[at:])):
                    at += count
                if at < out.size or stream.read(1):
                    raise _DecodeError("a zstd stream that does not end where it should")
            return out
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise _DecodeError(str(error).split("\n", maxsplit=1)[0]) from error

    return undo


def _checker() -> Undo:
    from unoic_cli.kernels.octets import fletcher32

    def undo(data: NDArray[np.uint8], out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if data.size < 4:
            raise _DecodeError("no room for its checksum")
        content, stored = data[:-4], int.from_bytes(data[-4:].tobytes(), "little")
        found = fletcher32(content)
        # old releases swapped the bytes of both halves on some machines, and libhdf5 accepts that
        swapped = (found & 0x00FF00FF) << 8 | (found >> 8) & 0x00FF00FF
        if stored not in (found, swapped):
            raise _DecodeError("its checksum differs")
        return content

    return undo


def _unshuffler(width: int) -> Undo:
    from unoic_cli.kernels.octets import unshuffle

    def undo(data: NDArray[np.uint8], out: NDArray[np.uint8]) -> NDArray[np.uint8]:
        target = out[: data.size] if out.size >= data.size else np.empty(data.size, np.uint8)
        unshuffle(data, width, target)
        return target

    return undo
