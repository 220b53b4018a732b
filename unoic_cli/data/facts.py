"""What a command finds out about its inputs, asked for one by one.

A function that needs a fact is a generator: it yields a `Fact`, and whoever drives it answers. So the answer may come
from the file, or from what an earlier run knew of it. The functions here are asked with ``yield from``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar, cast

from unoic_cli.errors import DataError, UnoicError
from unoic_cli.storage import witness
from unoic_cli.storage.whole import MOST_BYTES, open_regular, read_whole

A = TypeVar("A")
E = TypeVar("E")
T = TypeVar("T")


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True)
class Fact(Generic[T]):
    """Something that is known of the inputs before their scores are read.

    Attributes
    ----------
    name : str
        What kind of thing, a space, and which one.
    find : callable
        Finds it out.
    write, read : callable
        To and from JSON.
    """

    name: str
    find: Callable[[], T]
    write: Callable[[T], Any] = _same
    read: Callable[[Any], T] = _same


Facts: TypeAlias = Generator[Fact[Any], Any, T]
"""Asks for facts, and returns a T."""


def know(
    name: str, find: Callable[[], T], *, write: Callable[[T], Any] = _same, read: Callable[[Any], T] = _same
) -> Facts[T]:
    """Ask for a fact; see `Fact`."""
    return cast(T, (yield Fact(name, find, write, read)))


def driven(asking: Generator[A, Any, T], answer: Callable[[A], Any], ends: tuple[type[E], ...] = ()) -> T | E:
    """Answer every question until who asks returns; errors are raised where it asked, who may know what to do.

    Parameters
    ----------
    asking : generator
    answer : callable
        Of one question.
    ends : tuple of type
        An answer of such a type ends the asking, and is what comes of it.
    """
    found: Any = None
    error: BaseException | None = None
    while True:
        try:
            asked = asking.send(found) if error is None else asking.throw(error)
        except StopIteration as end:
            return cast(T, end.value)
        found, error = None, None
        try:
            found = answer(asked)
        except BaseException as raised:
            error = raised
        if isinstance(found, ends):
            asking.close()
            return found


def find_out(facts: Facts[T]) -> T:
    """Answer every question from the files as they are.

    Examples
    --------
    >>> find_out(exists("/nothing/of/this/name"))
    False
    """
    return driven(facts, lambda fact: fact.find())


def exists(path: str) -> Facts[bool]:
    """Whether a path leads to something."""
    return (yield from know(f"name {path}", lambda: os.path.exists(path)))


def read_text(path: str, expected: str, encoding: str = "utf-8") -> Facts[str]:
    """The text of a small file, with every end of a line as a newline.

    Raises
    ------
    NoInputError, DataError, StorageError
        As `unoic_cli.storage.whole.read_whole` does; or the file is no text.
    """

    def find() -> str:
        try:
            text = read_whole(path, expected).decode(encoding)
        except UnicodeDecodeError:
            raise DataError(path, "no text (it is not UTF-8)", expected) from None
        return text.replace("\r\n", "\n").replace("\r", "\n")

    return (yield from know(f"file {path}", find))


def read_bytes(path: str, expected: str, most: int = MOST_BYTES) -> Facts[bytes]:
    """The content of a file that is no text, of a bounded size.

    Raises
    ------
    NoInputError, DataError, StorageError
        As `unoic_cli.storage.whole.read_whole` does.
    """
    find = partial(read_whole, path, expected, most=most)
    return (yield from know(f"bytes {path}", find, write=bytes.hex, read=bytes.fromhex))


def head(path: str, size: int) -> Facts[bytes]:
    """The first bytes of a regular file; none when it cannot be opened."""

    def find() -> bytes:
        try:
            file = open_regular(path, "")
        except UnoicError:
            return b""
        try:
            return os.read(file, size)
        except OSError:
            return b""
        finally:
            witness.let_go(file)

    return (yield from know(f"head {path}", find, write=bytes.hex, read=bytes.fromhex))
