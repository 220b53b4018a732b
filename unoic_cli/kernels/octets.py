"""Bytes of stored chunks: the byte shuffle of HDF5, back and forth, and its Fletcher-32 checksum."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.kernels.jit import kernel

_BLOCK = 1 << 14
"""Words of one partial checksum: 16-bit words times weights below 2**14 cannot leave 64 bits."""


@kernel
def _join_2(source: Any, out: Any) -> None:
    n = out.size
    for i in range(n):
        out[i] = np.uint16(source[i]) | (np.uint16(source[n + i]) << np.uint16(8))


@kernel
def _join_4(source: Any, out: Any) -> None:
    n = out.size
    for i in range(n):
        out[i] = (
            np.uint32(source[i])
            | (np.uint32(source[n + i]) << np.uint32(8))
            | (np.uint32(source[2 * n + i]) << np.uint32(16))
            | (np.uint32(source[3 * n + i]) << np.uint32(24))
        )


@kernel
def _join_8(source: Any, out: Any) -> None:
    n = out.size
    for i in range(n):
        low = (
            np.uint32(source[i])
            | (np.uint32(source[n + i]) << np.uint32(8))
            | (np.uint32(source[2 * n + i]) << np.uint32(16))
            | (np.uint32(source[3 * n + i]) << np.uint32(24))
        )
        high = (
            np.uint32(source[4 * n + i])
            | (np.uint32(source[5 * n + i]) << np.uint32(8))
            | (np.uint32(source[6 * n + i]) << np.uint32(16))
            | (np.uint32(source[7 * n + i]) << np.uint32(24))
        )
        out[i] = np.uint64(low) | (np.uint64(high) << np.uint64(32))


@kernel
def _split(source: Any, width: int, out: Any) -> None:
    n = source.size // width
    for j in range(width):
        for i in range(n):
            out[j * n + i] = source[i * width + j]


@kernel
def _sums(data: Any, totals: Any) -> None:
    """Both sums of Fletcher-32 over big-endian words, modulo 65535; totals[2] is the largest byte seen."""
    n = data.size // 2
    first = second = np.uint64(0)
    some = np.uint8(0)
    at = 0
    while at < n:
        count = min(_BLOCK, n - at)
        plain = weighted = np.uint64(0)
        for i in range(count):
            word = (np.uint64(data[2 * (at + i)]) << np.uint64(8)) | np.uint64(data[2 * (at + i) + 1])
            plain += word
            weighted += word * np.uint64(count - i)
        second = (second + first * np.uint64(count) + weighted) % np.uint64(65535)
        first = (first + plain) % np.uint64(65535)
        if plain:
            some = np.uint8(1)
        at += count
    if data.size % 2:
        first = (first + (np.uint64(data[data.size - 1]) << np.uint64(8))) % np.uint64(65535)
        second = (second + first) % np.uint64(65535)
        if data[data.size - 1]:
            some = np.uint8(1)
    totals[0], totals[1], totals[2] = first, second, some


_JOIN = {2: (np.uint16, _join_2), 4: (np.uint32, _join_4), 8: (np.uint64, _join_8)}


def unshuffle(source: NDArray[np.uint8], width: int, out: NDArray[np.uint8]) -> None:
    """Undo the byte shuffle: first all first bytes, then all second ones, ...; a rest that fills no element stays.

    Parameters
    ----------
    source, out : (n,) uint8
    width : int
        Bytes of an element.

    Examples
    --------
    >>> out = np.empty(5, np.uint8)
    >>> unshuffle(np.array([1, 3, 2, 4, 9], np.uint8), 2, out)
    >>> out.tolist()
    [1, 2, 3, 4, 9]
    """
    count = source.size // width
    whole = count * width
    if width < 2 or count < 2:
        out[...] = source
        return
    out[whole:] = source[whole:]
    if width in _JOIN and out.ctypes.data % width == 0 and np.little_endian:
        dtype, join = _JOIN[width]
        join(source[:whole], out[:whole].view(dtype))
    else:
        out[:whole].reshape(count, width)[...] = source[:whole].reshape(width, count).T


def shuffle(source: NDArray[np.uint8], width: int, out: NDArray[np.uint8]) -> None:
    """The byte shuffle; see `unshuffle`."""
    count = source.size // width
    whole = count * width
    if width < 2 or count < 2:
        out[...] = source
        return
    out[whole:] = source[whole:]
    _split(source[:whole], width, out[:whole])


def fletcher32(data: NDArray[np.uint8]) -> int:
    """The checksum that libhdf5 stores: Fletcher-32 over big-endian words; an odd byte counts as the upper one.

    Examples
    --------
    >>> hex(fletcher32(np.frombuffer(b"abcde", np.uint8)))
    '0x4ff029c7'
    """
    totals = np.zeros(3, np.uint64)
    _sums(data, totals)
    first, second, some = totals.tolist()
    if some:  # sums are folded, not reduced: 65535 stands where the remainder is 0
        first, second = first or 65535, second or 65535
    return int(second << 16 | first)
