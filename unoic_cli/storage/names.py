"""What a typed name means: the file, and the group in it."""

from __future__ import annotations

import os
import re

from unoic_cli.errors import CannotCreateError, DataError
from unoic_cli.urls import foreign_scheme, is_remote, shown, split_group


def split_name(name: str) -> tuple[str, str]:
    """Split ``FILE::GROUP`` into the file's path and the group (``/`` when none is named).

    What exists comes first: a file that has ``::`` in its own name, or in that of its folder, is that file.
    """
    path, separator, group = split_group(name) if is_remote(name) else _split_local(name)
    return path, ("/" + group.strip("/")) if separator else "/"


def _split_local(name: str) -> tuple[str, str, str]:
    if "::" not in name:
        return name, "", ""
    for cut in [len(name), *(found.start() for found in reversed([*re.finditer("(?=::)", name)]))]:
        if cut and os.path.exists(name[:cut]):
            return name[:cut], name[cut : cut + 2], name[cut + 2 :]
    folders = [found.start() for found in re.finditer("/", name) if "::" in name[: found.start()]]
    begin = max(
        (cut + 1 for cut in folders if os.path.exists(name[:cut])), default=0
    )  # a missing file or pattern in it
    path, separator, group = name[begin:].partition("::")
    return name[:begin] + path, separator, group


def base_name(name: str) -> str:
    """Last part of a file's name, without folders, query and group."""
    return os.path.basename(shown(split_name(name)[0]))


def refuse_output(path: str) -> None:
    """Refuse to write to a remote place."""
    if is_remote(path) or foreign_scheme(path):
        raise CannotCreateError(shown(path), "a remote place", "expected a local file: write there, then copy it")


def refuse_remote(path: str, what: str) -> None:
    """Refuse a remote file where only local ones are read."""
    if is_remote(path):
        raise DataError(shown(path), f"a remote {what}", "expected a local one: copy it first")
