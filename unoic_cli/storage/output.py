"""Outputs: each complete or absent, and all outputs of a command in place, or none of them.

A file is written under a temporary name beside its final one, and fsynced. Within `together` it waits there until all
others are ready, too; then each gets its final name, and what was there before is put back should one of them fail.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from unoic_cli import signals
from unoic_cli.errors import CannotCreateError, StorageError, UnoicError
from unoic_cli.storage import witness

Stamp = witness.State
"""A link or another name of a file has the same."""

_MAX_IO = 1 << 30  # one system call moves less than 2 GiB
_NAME_BYTES = 200  # of the final name in a temporary one, which must not be longer than 255


def storage_error(path: str, error: OSError) -> StorageError:
    """Say in one line why writing failed."""
    reasons = {
        errno.ENOSPC: ("no space left on device", "expected room for the whole output"),
        errno.EDQUOT: ("disk quota exceeded", "expected room for the whole output"),
        errno.EFBIG: ("the file would be larger than allowed", "expected a higher file size limit (ulimit -f)"),
    }
    other = (f"writing failed ({error.strerror or error})", "expected a writable disk")
    found, expected = reasons.get(error.errno or 0, other)
    return StorageError(path, found, expected)


def stamp_of(path: str) -> Stamp | None:
    """The state of the file that has this very name; None where there is none."""
    try:
        return witness.state_of(os.lstat(path))
    except OSError:
        return None


def temporary_start(path: str) -> str:
    """What the temporary names of an output begin with."""
    name = os.fsencode(os.path.basename(path))[:_NAME_BYTES].decode(errors="ignore")
    return f".{name}."


def remove_leftovers(path: str) -> None:
    """Remove what `write_bytes` had not finished when it was killed."""
    start = glob.escape(os.path.join(os.path.dirname(path), temporary_start(path)))
    for left in glob.glob(f"{start}{'[a-z0-9_]' * 8}.tmp"):
        remove(left)


def remove(path: str) -> str:
    """Remove a file; return why it is still there, or nothing."""
    reason = ""
    for _ in range(2):  # storage that fails now and then
        try:
            os.unlink(path)
        except FileNotFoundError:
            return ""
        except OSError as error:
            reason = error.strerror or str(error)
        else:
            return ""
    return reason


def _sync_folder(path: str) -> None:
    # Some network file systems cannot sync a folder; the rename itself has already happened.
    with contextlib.suppress(OSError):
        file = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(file)
        finally:
            os.close(file)


class TemporaryOutput:
    """A file beside its final name, which `commit` moves into place and `abort` removes.

    Parameters
    ----------
    path : str
        The final name. What is there stays untouched until `commit`.
    unfinished : str, optional
        The temporary file of a process that was stopped, to go on with.

    Raises
    ------
    CannotCreateError
        The folder does not take new files.
    StorageError
        There is no room.
    """

    def __init__(self, path: str, unfinished: str | None = None) -> None:
        self.path = path
        self._replace = os.path.lexists(path)
        made = f"{temporary_start(path)}{secrets.token_hex(4)}.tmp"
        self.temporary = unfinished or os.path.join(os.path.dirname(path), made)
        self.file = -1
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if unfinished is None else 0)
        try:
            self.file = os.open(self.temporary, flags, 0o666)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise storage_error(path, error) from error
            reason = f"cannot be created ({error.strerror})"
            raise CannotCreateError(path, reason, "expected a folder that can be written to") from error

    def reserve(self, start: int, stop: int) -> None:
        """Claim disk space for a range of bytes, so that a full disk shows before the work is done."""
        try:
            if start < stop:
                os.posix_fallocate(self.file, start, stop - start)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise storage_error(self.path, error) from error

    def pwrite(self, data: Any, offset: int) -> None:
        """Write all of a buffer at an offset; any thread, any order."""
        view = memoryview(data).cast("B")
        while view:
            try:
                count = os.pwrite(self.file, view[:_MAX_IO], offset)
            except OSError as error:
                raise storage_error(self.path, error) from error
            view, offset = view[count:], offset + count

    def truncate(self, size: int) -> None:
        """Set the size, where nothing could be reserved."""
        try:
            os.ftruncate(self.file, size)
        except OSError as error:
            raise storage_error(self.path, error) from error

    def flush(self) -> None:
        """Put on the disk what was written so far."""
        try:
            os.fsync(self.file)
        except OSError as error:
            raise storage_error(self.path, error) from error

    def commit(self) -> None:
        """Flush to the disk, then move into place: at once, or together with the other outputs of the command."""
        self.flush()
        file, self.file = self.file, -1  # whatever close says, the descriptor is gone
        try:
            os.close(file)
        except OSError as error:
            raise storage_error(self.path, error) from error
        one, open_ = _Ready(self.temporary, self.path, self._replace), _OPEN.get()
        if open_ is None:
            alone = Outputs()
            alone.add(one)
            alone.place()
        else:
            open_.add(one)

    def abort(self) -> None:
        """Remove the temporary file, if it is still there."""
        file, self.file = self.file, -1
        if file >= 0:
            with contextlib.suppress(OSError):
                os.close(file)
        remove(self.temporary)


def write_text(path: str, text: str) -> None:
    """Write a text file: complete or not at all; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: str, content: bytes, *, at_once: bool = False) -> None:
    """Write a small file: complete or not at all.

    Parameters
    ----------
    path : str
    content : bytes
    at_once : bool
        Do not wait for other outputs of the command: this one is none of its results.

    Raises
    ------
    CannotCreateError
        The folder does not take new files.
    StorageError
        Writing failed; an older file of that name is untouched.
    """
    token = _OPEN.set(None if at_once else _OPEN.get())
    file = TemporaryOutput(path)
    try:
        file.pwrite(content, 0)
        file.commit()
    except BaseException:
        file.abort()
        raise
    finally:
        _OPEN.reset(token)


# ------------------------------------------------------------------------------------------------
# several outputs


@dataclass
class _Ready:
    """A finished file that waits for its final name.

    Attributes
    ----------
    temporary, path : str
        In the same folder.
    replace : bool
        The name was taken when the work began, and is to be replaced. Otherwise a file that another process has put
        there meanwhile is kept.
    stamp : Stamp or None
        Of the file.
    fresh : bool
        Nothing has the final name yet.
    backup : str or None
        Another name of what was there before.
    """

    temporary: str
    path: str
    replace: bool
    stamp: Stamp | None = None
    fresh: bool = False
    backup: str | None = None

    def keep(self) -> None:
        """Give what is there now a second name, to be put back if need be."""
        if self.fresh or not self.replace:
            return
        self.backup = f"{self.temporary.removesuffix('.tmp')}.old.tmp"
        try:
            os.link(self.path, self.backup, follow_symlinks=False)
        except OSError:  # a file system without hard links
            os.rename(self.path, self.backup)

    def move(self) -> None:
        """Give the file its final name."""
        if not self.replace:
            taken = CannotCreateError(
                self.path, "another process wrote this file meanwhile", "expected a name of its own"
            )
            try:
                os.link(self.temporary, self.path)  # unlike a rename, this never replaces
            except FileExistsError:
                raise taken from None
            except OSError:  # a file system without hard links: rename, as it is the best there is
                if os.path.lexists(self.path):
                    raise taken from None
            else:
                return
        os.replace(self.temporary, self.path)

    @property
    def placed(self) -> bool:
        """Whether it has its final name: a signal may have come before anything could be noted."""
        return self.stamp is not None and stamp_of(self.path) == self.stamp

    def put_back(self) -> bool:
        """Restore what was there before; False where that fails."""
        try:
            if self.backup is not None and os.path.lexists(self.backup):
                os.replace(self.backup, self.path)  # which does nothing where both are names of one file
            elif self.fresh and self.placed:
                return not remove(self.path)
        except OSError:
            return False
        return True


class Outputs:
    """Finished files that wait for their names: `place` gives all of them theirs, or none.

    Parameters
    ----------
    tell : callable, optional
        Called with notes.

    Attributes
    ----------
    ahead : callable or None
        Called with the stamps of all files by their final (absolute) names before the first is moved.
    """

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self.tell = tell
        self.ahead: Callable[[dict[str, Stamp]], None] | None = None
        self._ready: list[_Ready] = []

    def add(self, one: _Ready) -> None:
        """Take over a finished file."""
        self._ready.append(one)

    def found(self, path: str) -> str:
        """Where an output is that is finished: under its temporary name, as long as it waits."""
        return next((one.temporary for one in self._ready if one.path == path), path)

    def place(self) -> None:
        """Give all files their final names, or none.

        Raises
        ------
        CannotCreateError
            A name was taken meanwhile.
        StorageError
            The file system refused.
        """
        if not self._ready:
            return
        with signals.held():
            for one in self._ready:
                one.stamp, one.fresh = stamp_of(one.temporary), not os.path.lexists(one.path)
            if self.ahead is not None:
                self.ahead({os.path.abspath(one.path): one.stamp for one in self._ready if one.stamp is not None})
            current = self._ready[0]
            try:
                for current in self._ready if len(self._ready) > 1 else ():
                    current.keep()
                for current in self._ready:
                    current.move()
            except BaseException as error:
                lost = [one for one in reversed(self._ready) if not one.put_back()]
                self.drop()
                raise _refusal(current.path, error, lost) from None
            self._clean()

    def _clean(self) -> None:
        """Remove second names; that all is in place cannot fail any more."""
        for one in self._ready:
            for left in (one.temporary, one.backup):
                reason = "" if left is None else remove(left)
                if reason and self.tell is not None:
                    self.tell(f"{one.path} is in place, but {left} could not be removed ({reason})")
        for path in {os.path.dirname(one.path): one.path for one in self._ready}.values():
            _sync_folder(path)
        self._ready = []

    def drop(self) -> None:
        """Remove what was not placed."""
        for one in self._ready:
            remove(one.temporary)
            if one.backup is not None and stamp_of(one.backup) == stamp_of(one.path):
                remove(one.backup)
        self._ready = []


def _refusal(path: str, error: BaseException, lost: list[_Ready]) -> BaseException:
    """The error of outputs that could not be placed."""
    if not isinstance(error, Exception):
        return error
    if lost:
        kept = ", ".join(
            f"{one.path} is new" + ("" if one.backup is None else f" (and was {one.backup})") for one in lost
        )
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return StorageError(path, f"moving into place failed ({reason})", f"not all could be put back: {kept}")
    if isinstance(error, UnoicError) or not isinstance(error, OSError):
        return error
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return storage_error(path, error)
    return StorageError(path, f"moving into place failed ({error.strerror})", "nothing was changed")


_OPEN: ContextVar[Outputs | None] = ContextVar("outputs", default=None)


def place_of(path: str) -> str:
    """Where an output is that is finished: under its temporary name, as long as it waits for others."""
    held = _OPEN.get()
    return path if held is None else held.found(path)


@contextlib.contextmanager
def together(tell: Callable[[str], None] | None = None) -> Iterator[Outputs]:
    """Outputs that are written within are put into place in the end, all or none; a block inside another joins it.

    Inputs that are opened within must be unchanged then.

    Parameters
    ----------
    tell : callable, optional
        Called with notes.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with together():
    ...         write_text(os.path.join(folder, "a"), "1")
    ...         write_text(os.path.join(folder, "b"), "2")
    ...         before = [name for name in os.listdir(folder) if not name.startswith(".")]
    ...     before, sorted(os.listdir(folder))
    ([], ['a', 'b'])
    """
    held = _OPEN.get()
    if held is not None:
        yield held
        return
    outputs = Outputs(tell)
    token = _OPEN.set(outputs)
    signals.begin()
    try:
        with witness.watching():
            yield outputs
        with signals.held():
            outputs.place()
            signals.finish()
    except BaseException:
        outputs.drop()
        raise
    finally:
        _OPEN.reset(token)
