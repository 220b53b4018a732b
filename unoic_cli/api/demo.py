"""`demo`: a folder with the sample that is installed with the program."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Unpack

from unoic_cli.calls import public
from unoic_cli.commands.demo import COMMANDS, DATA, SAMPLE, DemoOptions, DemoResult
from unoic_cli.errors import CannotCreateError
from unoic_cli.options import filled


@public
def demo(**options: Unpack[DemoOptions]) -> DemoResult:
    """Make a folder with the sample, and say which commands are for it; ``unoic demo`` runs them, too.

    Parameters
    ----------
    **options : Unpack[DemoOptions]
        See `DemoOptions`.

    Returns
    -------
    DemoResult

    Raises
    ------
    UnoicError
        The folder is there already (and not `force`), or cannot be made.

    Examples
    --------
    >>> import tempfile
    >>> from unoic_cli import demo
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     demo(output=folder + "/demo").files
    ('val.h5', 'test.h5', 'LICENSE')
    """
    chosen = filled(DemoOptions, options)
    folder = Path(chosen["output"])
    try:
        folder.mkdir(parents=True, exist_ok=chosen["force"])
        for name in {words[words.index("-o") + 1] for words in COMMANDS if "-o" in words}:
            (folder / name).unlink(missing_ok=True)
        for name in SAMPLE:
            shutil.copyfile(DATA / name, folder / name)
    except FileExistsError:
        raise CannotCreateError(str(folder), "exists", "expected a new folder (-o), or --force") from None
    except OSError as error:
        found = f"cannot be written ({error.strerror or error})"
        raise CannotCreateError(str(folder), found, "expected a folder that can be made") from None
    return DemoResult(os.fspath(chosen["output"]), SAMPLE, COMMANDS)
