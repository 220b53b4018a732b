"""Messages of protocol buffers, looked through on disk: what is not asked for is stepped over, however large it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

MOST_FIELDS = 2_000_000
"""That are looked at in one file."""
MOST_TEXT = 256 << 20
"""Bytes of all texts that are asked for."""
_NUMBER, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5
_HEAD = 20
"""Bytes of a key and of a length, at most."""


class Field(NamedTuple):
    """A field of a message.

    Attributes
    ----------
    number : int
        Of the field.
    value : int
        A number, where it is one.
    begin, end : int
        Where its bytes lie, where it has some.
    """

    number: int
    value: int
    begin: int
    end: int

    @property
    def size(self) -> int:
        """Its bytes."""
        return self.end - self.begin


class Messages:
    """A file of messages.

    Parameters
    ----------
    file : int
        A descriptor.

    Raises
    ------
    ValueError
        By all that read: what is there is no message.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self.size = os.fstat(file).st_size
        self._left, self._text_left = MOST_FIELDS, MOST_TEXT

    def fields(self, begin: int = 0, end: int | None = None) -> Iterator[Field]:
        """The fields of the message that lies there; of the whole file by default."""
        at, stop = begin, self.size if end is None else end
        while at < stop:
            self._left -= 1
            if self._left < 0:
                raise ValueError("more fields than any such file needs")
            head = os.pread(self._file, min(_HEAD, stop - at), at)
            key, used = _varint(head, 0)
            number, kind = key >> 3, key & 7
            value, first = 0, at + used
            if kind == _NUMBER:
                value, used = _varint(head, used)
                last = first = at + used
            elif kind == _BYTES:
                size, used = _varint(head, used)
                first = at + used
                last = first + size
            elif kind in (_DOUBLE, _FLOAT):
                last = first + (8 if kind == _DOUBLE else 4)
            else:
                raise ValueError(f"a field of kind {kind}")
            if not number or last > stop:
                raise ValueError("a field beyond the end")
            yield Field(number, value, first, last)
            at = last

    def text(self, field: Field) -> str:
        """The text of a field."""
        self._text_left -= field.size
        if self._text_left < 0:
            raise ValueError("more text than any such file needs")
        data = os.pread(self._file, field.size, field.begin)
        if len(data) < field.size:
            raise ValueError("a text that is cut off")
        return data.decode("utf-8", "replace")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """An integer, seven bits a byte, and where it ends.

    Examples
    --------
    >>> _varint(bytes([0x96, 0x01, 7]), 0)
    (150, 2)
    """
    value = 0
    for i, byte in enumerate(data[at : at + 10]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise ValueError("a number that does not end")
