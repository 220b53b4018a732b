"""Errors that end a command: one line for the reader, one exit code for the shell. What may be printed, and how."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from unoic_cli.urls import scrub

MOST_CHARACTERS = 1000
"""Of each part of a message: names and values come from files, which may hold anything."""


def printable(text: str, keep: str = "") -> str:
    r"""Text that a terminal shows and does not obey: control, bidi and other invisible characters as escapes.

    Parameters
    ----------
    text : str
    keep : str
        Characters that stay as they are, such as a newline.

    Examples
    --------
    >>> print(printable("a\x1b[2Jb \u202ec é"))
    a\x1b[2Jb \u202ec é
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def other_names(found: Sequence[str], expected: Sequence[str]) -> str:
    """How class names differ from those that are expected.

    Examples
    --------
    >>> other_names(("cat", "dog"), ("dog", "cat")), other_names(("cat", "dog"), ("cat", "cow"))
    ('the same class names in another order', 'other class names')
    """
    return "the same class names in another order" if sorted(found) == sorted(expected) else "other class names"


def one_line(text: str, most: int = 4 * MOST_CHARACTERS) -> str:
    r"""Printable text on one line, of a bounded length; spaces stay, as names may have them.

    Examples
    --------
    >>> one_line(" a  line\n  and another "), one_line("abcdef", most=3)
    ('a  line and another', 'abc ...')
    """
    cut = text[:most] + (" ..." if len(text) > most else "")
    return printable(re.sub(r"\s*[\r\n]\s*", " ", cut.strip()))


class UnoicError(Exception):
    """A problem that the user can act on.

    Parameters
    ----------
    where : str
        ``FILE[:DATASET]``, or the option at fault.
    found : str
        What was found there.
    expected : str
        What was expected instead.

    Examples
    --------
    >>> str(DataError("val.h5:labels", "7 at row 3", "labels in [0, 5)"))
    'val.h5:labels: 7 at row 3; labels in [0, 5)'
    """

    exit_code = 65

    def __init__(self, where: str, found: str, expected: str) -> None:
        where, found, expected = (scrub(str(part)) for part in (where, found, expected))
        super().__init__(where, found, expected)
        self.where = where
        self.found = found
        self.expected = expected

    def __str__(self) -> str:
        parts = (self.where, self.found, self.expected)
        where, found, expected = (one_line(str(part), MOST_CHARACTERS) for part in parts)
        return f"{where}: {found}; {expected}"


class UnmetError(UnoicError):
    """A result that was shown, and does not show what it must."""

    exit_code = 1


class UsageError(UnoicError):
    """Options that make no sense, alone or together."""

    exit_code = 2


class DataError(UnoicError):
    """A file that is there but does not hold what it should."""

    exit_code = 65


class NoInputError(UnoicError):
    """A file that cannot be opened."""

    exit_code = 66


class CannotCreateError(UnoicError):
    """An output that cannot be made where it was asked for."""

    exit_code = 73


class StorageError(UnoicError):
    """Reading or writing failed half-way."""

    exit_code = 74


class InterruptedRunError(UnoicError):
    """The run was stopped, and what it had counted is saved."""

    exit_code = 75


class Warned(str):
    """A warning: its text begins with its code; `figures` are what JSON has of it."""

    code: str
    figures: dict[str, Any]

    def __new__(cls, text: str, code: str, figures: dict[str, Any]) -> Warned:
        """Text that says it."""
        made = super().__new__(cls, text)
        made.code, made.figures = code, figures
        return made
