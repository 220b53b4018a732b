"""Small text outputs: complete or absent."""

from __future__ import annotations

import os
import tempfile

from unoic_cli.errors import CannotCreateError, StorageError


def write_text(path: str, text: str) -> None:
    """Write a file under a temporary name in the same folder, fsync it and rename it onto `path`.

    Raises
    ------
    CannotCreateError
        The folder does not take new files.
    StorageError
        Writing failed; an older file of that name is untouched.
    """
    folder, name = os.path.split(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".tmp", dir=folder or ".")
    except OSError as error:
        raise CannotCreateError(
            path, f"cannot be created ({error.strerror})", "expected a folder that can be written to"
        ) from None
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as error:
        os.unlink(temporary)
        raise StorageError(path, f"writing failed ({error.strerror})", "nothing was changed") from None
    except BaseException:
        os.unlink(temporary)
        raise
