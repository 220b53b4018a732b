"""Errors that end a command: one line for the reader, one exit code for the shell."""

from __future__ import annotations


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
        super().__init__(where, found, expected)
        self.where = where
        self.found = found
        self.expected = expected

    def __str__(self) -> str:
        return " ".join(f"{self.where}: {self.found}; {self.expected}".split())


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
