"""An HDF5 file as the library sees it: nothing that it would loop over for ever, or fill the memory with.

Text of variable length lies in *global heaps*: collections of objects, one behind the other, each with its size. The
library walks along them without a check that it moves, and while it does, no signal is answered. So each collection is
looked at when its first bytes pass by here, before the library has them.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import struct
from typing import Any

from unoic_cli.errors import DataError

try:
    import fcntl
except ImportError:  # a system without them
    fcntl = None  # type: ignore[assignment]

MOST_TEXT = 32 << 20
"""Bytes of one heap, and so of the longest text: a calibration as an attribute, for many classes."""
MOST_PIECE = 64 << 20
"""Bytes that the library may ask for at once while a file is described: metadata and small arrays."""

_HEAP = re.compile(rb"GCOL\x01")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_HEAD = 16
_EXPECTED = "expected an intact HDF5 file"


def lock_shared(file: int) -> None:
    """Take the lock that the library takes when it reads, where locks work.

    Raises
    ------
    BlockingIOError
        Somebody writes to the file.
    """
    if fcntl is None or os.environ.get("HDF5_USE_FILE_LOCKING", "").upper() in ("FALSE", "0"):
        return
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        pass


class WatchedFile(io.RawIOBase):
    """A file object for the library, which reads another one.

    Parameters
    ----------
    name : str
        For messages.
    file : file object
        With `seek` and `readinto`; closed with this one.
    path : str, optional
        What the library is told that the file's name is.
    most : int, optional
        Bytes that may be asked for at once.
    """

    def __init__(self, name: str, file: Any, path: str = "", *, most: int | None = MOST_PIECE) -> None:
        super().__init__()
        self._name, self._file, self._path = name, file, path
        self._size = file.seek(0, 2)
        self._at = 0
        self._known: set[int] = set()  # heaps that are sound
        self._width = self._width_of_lengths()
        self._most = most

    def __repr__(self) -> str:
        return self._path or super().__repr__()  # h5py takes it for the name

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move."""
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def tell(self) -> int:
        """Where we are."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the file goes.

        Raises
        ------
        DataError
            It is larger than `most`, or a heap in it is damaged or holds texts beyond measure.
        """
        view = memoryview(buffer).cast("B")
        if self._most is not None and len(view) > self._most:
            raise DataError(self._name, f"{len(view):,} bytes of metadata in one piece", _EXPECTED)
        at = self._at
        done = self._fill(view, at)
        view[done:] = bytes(len(view) - done)
        self._at = at + done
        around = self._read(max(0, at - 4), 4) + bytes(view[:4])  # a signature across the edge
        for start, part in ((at - 4, around), (at, view[:done])):
            for found in _HEAP.finditer(part):
                self._check_heap(start + found.start())
        return done

    def close(self) -> None:
        """Let go of the file."""
        with contextlib.suppress(OSError):  # all that was wanted of it is there
            self._file.close()
        super().close()

    def _fill(self, view: memoryview, at: int) -> int:
        if not 0 <= at < self._size:
            return 0
        self._file.seek(at)
        done = 0
        while done < len(view) and (count := self._file.readinto(view[done:])):
            done += count
        return done

    def _read(self, at: int, size: int) -> bytes:
        data = bytearray(size)
        return bytes(data[: self._fill(memoryview(data), at)]) if size > 0 else b""

    def _width_of_lengths(self) -> int:
        """Bytes of a size in this file, as its superblock says; 8 almost everywhere."""
        for base in (0, 512, 1024, 2048):
            head = self._read(base, 16)
            if head.startswith(_SIGNATURE) and len(head) == 16:
                return head[14] if head[8] < 2 else head[10]
        return 8

    def _check_heap(self, at: int) -> None:
        """Walk along a collection as the library will."""
        if at in self._known or self._width not in (2, 4, 8):
            return
        size = int.from_bytes(self._read(at + 8, self._width), "little")
        if size > MOST_TEXT:
            raise DataError(self._name, f"text of {size:,} bytes in one piece", f"expected at most {MOST_TEXT:,}")
        data = self._read(at, size)
        step = -(-(8 + self._width) // 8) * 8
        place = step
        while place + step <= size:
            if place + step > len(data):
                raise DataError(self._name, f"a heap of text that ends beyond the file (byte {at:,})", _EXPECTED)
            (index,) = struct.unpack_from("<H", data, place)
            length = int.from_bytes(data[place + 8 : place + 8 + self._width], "little")
            whole = step + -(-length // 8) * 8 if index else length
            if not 0 < whole <= size - place:
                raise DataError(self._name, f"a damaged heap of text (byte {at + place:,})", _EXPECTED)
            place += whole
        self._known.add(at)
