"""Small outputs: complete or absent."""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile

from unoic_cli.errors import CannotCreateError, StorageError


def move_into_place(temporary: str, path: str, *, replace: bool) -> None:
    """Give a finished file its final name.

    Parameters
    ----------
    temporary, path : str
        In the same folder.
    replace : bool
        The name was taken when the work began, and is to be replaced. Otherwise a file that another
        process has put there meanwhile is kept, and this is an error.

    Raises
    ------
    CannotCreateError
        The name was taken meanwhile.
    OSError
        The file system refused.
    """
    if not replace:
        try:
            os.link(temporary, path)  # unlike a rename, this never replaces
        except FileExistsError:
            raise CannotCreateError(
                path, "another process wrote this file meanwhile", "expected a name of its own"
            ) from None
        except OSError:
            pass  # a file system without hard links: rename, as it is the best there is
        else:
            os.unlink(temporary)
            return
    os.replace(temporary, path)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)  # two names of one file stay as they are: of a run that was killed between both


def remove_leftovers(path: str) -> None:
    """Remove what `write_bytes` had not finished when it was killed."""
    folder, name = os.path.split(path)
    for left in glob.glob(os.path.join(glob.escape(folder), f".{glob.escape(name)}.{'[a-z0-9_]' * 8}.tmp")):
        _remove(left)


def write_text(path: str, text: str) -> None:
    """Write a text file: complete or not at all; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: str, content: bytes) -> None:
    """Write a file under a temporary name in the same folder, fsync it and rename it onto `path`.

    Raises
    ------
    CannotCreateError
        The folder does not take new files.
    StorageError
        Writing failed; an older file of that name is untouched.
    """
    folder, name = os.path.split(path)
    replace = os.path.lexists(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder or ".")
    except OSError as error:
        raise CannotCreateError(
            path, f"cannot be created ({error.strerror})", "expected a folder that can be written to"
        ) from None
    try:
        with open(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        move_into_place(temporary, path, replace=replace)
    except OSError as error:
        _remove(temporary)
        raise StorageError(path, f"writing failed ({error.strerror})", "nothing was changed") from None
    except BaseException:
        _remove(temporary)
        raise


def _remove(temporary: str) -> None:
    """Remove what was begun; a signal may have come just after it got its final name."""
    with contextlib.suppress(OSError):
        os.unlink(temporary)
