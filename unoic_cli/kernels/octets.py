"""Bytes of stored chunks: the byte shuffle of HDF5, back and forth, and its Fletcher-32 checksum."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unoic_cli.kernels import add_words, join_2, join_4, join_8, split

_JOIN = {2: (np.uint16, join_2), 4: (np.uint32, join_4), 8: (np.uint64, join_8)}


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
    split(source[:whole], width, out[:whole])


def fletcher32(data: NDArray[np.uint8]) -> int:
    """The checksum that libhdf5 stores: Fletcher-32 over big-endian words; an odd byte counts as the upper one.

    Examples
    --------
    >>> hex(fletcher32(np.frombuffer(b"abcde", np.uint8)))
    '0x4ff029c7'
    """
    totals = np.zeros(3, np.uint64)
    add_words(data, totals)
    first, second, some = totals.tolist()
    if some:  # sums are folded, not reduced: 65535 stands where the remainder is 0
        first, second = first or 65535, second or 65535
    return int(second << 16 | first)
