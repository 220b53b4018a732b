"""Files that are arrays and their names, without a schema: what each sort of them offers, and who opens which."""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from unoic_cli.errors import DataError
from unoic_cli.formats import schema
from unoic_cli.storage import spool, witness

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOST_UNPACKED = 16
"""Arrays that a process keeps unpacked."""
_PIECE = 1 << 20
MOST_NAMES = 100_000
"""Arrays of a file."""


class Entry(NamedTuple):
    """What an array is, without its values.

    Attributes
    ----------
    shape : tuple of int
    dtype : numpy dtype
        Of bfloat16 that of its bits.
    bfloat16 : bool
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    bfloat16: bool = False


class Place(NamedTuple):
    """Where the bytes of an array lie.

    Attributes
    ----------
    offset : int or None
        Of its first byte in the file; None where it must be unpacked first.
    how : str
        In words.
    """

    offset: int | None
    how: str


class Box:
    """The arrays of one file.

    Parameters
    ----------
    path : str

    Attributes
    ----------
    CHECKSUMS : str
        What would show that a bit of an array has changed.
    entries : dict of str to Entry
    texts : dict of str to str
        What the file says of them.
    passed_by : list of str
        Columns that are no integers, and why.
    notes : tuple of str
        What is worth saying of how names were found.
    """

    CHECKSUMS: ClassVar[str] = "none"

    def __init__(self, path: str) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}
        self.texts: dict[str, str] = {}
        self.passed_by: list[str] = []
        self.notes: tuple[str, ...] = ()

    def place(self, member: str) -> Place:
        """Where an array lies; all of its bytes are looked at once where they have a checksum.

        Raises
        ------
        DataError
            It is truncated or damaged, or no array of numbers or text.
        """
        raise NotImplementedError

    def rows(self, member: str, target_bytes: int) -> Iterator[NDArray[Any]]:
        """Blocks of entries of the first axis, C-ordered, about `target_bytes` each."""
        raise NotImplementedError

    def read(self, member: str) -> NDArray[Any]:
        """A whole array; meant for small ones."""
        raise NotImplementedError

    def ids(self) -> Iterator[Any] | None:
        """What the samples are called, one by one, under the name ``sample_id``; None where they are not."""
        entry = self.entries.get("sample_id")
        if entry is None or len(entry.shape) != 1:
            return None
        return (one for block in self.rows("sample_id", _PIECE) for one in block.tolist())

    def class_names(self, where: str, n_classes: int) -> tuple[str, ...] | None:
        """Names of the classes, where they are said by something else than an array."""
        return None


def open_box(path: str) -> Box:
    """The arrays of a file, whatever its format.

    Raises
    ------
    NoInputError, DataError
        The file is missing, empty, unknown or damaged.
    """
    from unoic_cli import formats
    from unoic_cli.formats import nifti

    if path.lower().endswith(nifti.SUFFIXES):
        return nifti.NiftiBox(path)
    if path.lower().endswith(".txt"):
        from unoic_cli.formats.tables import TextBox

        return TextBox(path)
    return formats.FORMATS[formats.detect(path)].box(path)


def seen(file: int) -> None:
    """Let go of a descriptor that was opened for the file to be watched: it must stay as it is."""
    witness.let_go(file)


@functools.lru_cache(maxsize=_MOST_UNPACKED)
def _unpacked(path: str, stamp: Any, member: str) -> spool.Held:
    box = open_box(path)
    held, what = spool.nameless(f"{path}:{member}"), f"{path}:{member}, unpacked"
    for block in box.rows(member, _PIECE):
        spool.append(held, np.ascontiguousarray(block).reshape(-1).view(np.uint8), what)
    return held


_UNPACKING = threading.Lock()


def unpacked(path: str, stamp: Any, member: str) -> spool.Held:
    """An array that does not lie in one piece, as a nameless file with nothing but its rows.

    Each process has its own, made when it is first asked for.

    Raises
    ------
    DataError, StorageError
        The array is damaged, or there is no room.
    """
    with _UNPACKING:
        return _unpacked(path, stamp, member)


def listed_names(where: str, texts: Mapping[str, str], n_classes: int) -> tuple[str, ...] | None:
    """Names of the classes, as JSON under ``class_names`` of what a file says of its arrays."""
    if "class_names" not in texts:
        return None
    try:
        found = json.loads(texts["class_names"])
    except (ValueError, RecursionError):
        raise DataError(where, f"{texts['class_names'][:40]!r}", "expected JSON") from None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise DataError(where, "something else than a list of names", f"expected {n_classes} names")
    return schema.class_names(where, np.array(found, dtype=object), n_classes)


def unreadable(dtype: np.dtype[Any]) -> str:
    """Why arrays of a type are not read; an empty text where they are."""
    if dtype.hasobject:
        return "a pickled (object) array"
    return "a structured array" if dtype.kind == "V" else ""


def check(where: str, dtype: np.dtype[Any]) -> None:
    """Refuse what is not read."""
    if unreadable(dtype):
        raise DataError(where, unreadable(dtype), "expected numbers or fixed-length text")
