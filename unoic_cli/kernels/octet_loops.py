"""The loops of `unoic_cli.kernels.octets`."""

from __future__ import annotations

from typing import Any

import numpy as np

from unoic_cli.kernels.constants import CHECKED
from unoic_cli.kernels.jit import kernel


@kernel
def join_2(source: Any, out: Any) -> None:
    """Elements of two bytes from a plane of each."""
    n = out.size
    for i in range(n):
        out[i] = np.uint16(source[i]) | (np.uint16(source[n + i]) << np.uint16(8))


@kernel
def join_4(source: Any, out: Any) -> None:
    """The same of four."""
    n = out.size
    for i in range(n):
        out[i] = (
            np.uint32(source[i])
            | (np.uint32(source[n + i]) << np.uint32(8))
            | (np.uint32(source[2 * n + i]) << np.uint32(16))
            | (np.uint32(source[3 * n + i]) << np.uint32(24))
        )


@kernel
def join_8(source: Any, out: Any) -> None:
    """The same of eight."""
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
def split(source: Any, width: int, out: Any) -> None:
    """A plane of each byte, of elements of `width` bytes."""
    n = source.size // width
    for j in range(width):
        for i in range(n):
            out[j * n + i] = source[i * width + j]


@kernel
def add_words(data: Any, totals: Any) -> None:
    """Both sums of Fletcher-32 over big-endian words, modulo 65535; totals[2] is the largest byte seen."""
    n = data.size // 2
    first = second = np.uint64(0)
    some = np.uint8(0)
    at = 0
    while at < n:
        count = min(CHECKED, n - at)
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
