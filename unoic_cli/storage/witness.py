"""What a command reads must stay as it is until the command ends: else its result is that of no file."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from contextvars import ContextVar

from unoic_cli.errors import DataError

State = tuple[int, int, int]
"""Number, size and time of a file."""

_SEEN: ContextVar[dict[str, tuple[str, State]] | None] = ContextVar("seen", default=None)


def state_of(status: os.stat_result) -> State:
    """What tells one state of a file from another."""
    return status.st_ino, status.st_size, status.st_mtime_ns


def changed(name: str, what: str = "file", how: str = "changed") -> DataError:
    """The error for an input that is not any more what it was."""
    return DataError(name, f"the {what} {how} while it was in use", "expected it to stay as it was")


def see(name: str, file: int) -> None:
    """Note the state of a file that was just opened; how it was first is how it must stay."""
    seen, status = _SEEN.get(), os.fstat(file)
    if seen is not None and stat.S_ISREG(status.st_mode):
        seen.setdefault(os.path.abspath(name), (name, state_of(status)))


def let_go(file: int) -> None:
    """Close a file that was only read: whatever the system says of it, all that was wanted of it is there."""
    with contextlib.suppress(OSError):
        os.close(file)


def check(name: str, path: str, state: State) -> None:
    """Refuse a file that is not what it was.

    Raises
    ------
    DataError
        It was written to, replaced or removed.
    """
    try:
        now = state_of(os.stat(path))
    except FileNotFoundError:
        raise changed(name, how="was removed") from None
    except OSError as error:
        raise changed(name, how=f"became unreadable ({error.strerror})") from None
    if now != tuple(state):
        raise changed(name)


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Note what is opened within; what was noted must be unchanged when the block ends well."""
    seen: dict[str, tuple[str, State]] = {}
    token = _SEEN.set(seen)
    try:
        yield
        for path, (name, state) in seen.items():
            check(name, path, state)
    finally:
        _SEEN.reset(token)
