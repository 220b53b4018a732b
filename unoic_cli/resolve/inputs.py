"""What names stand for: patterns and lists become the files that they mean, in one place for every command."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from unoic_cli.data.facts import Facts, know
from unoic_cli.errors import DataError, NoInputError, UnoicError, UsageError
from unoic_cli.formats import FORMATS, STANDARD, parts, storage
from unoic_cli.formats.block import Source
from unoic_cli.formats.names import Asked
from unoic_cli.storage.whole import read_whole

NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]*)=(.+)", re.DOTALL)
"""``NAME=VALUE``: something said of one modality."""

MOST_NAMES = 100_000
"""Inputs of one list: each is opened and looked into before anything is read."""
FORMATS_OF = {suffix: one.NAME for one in FORMATS.values() for suffix in one.SUFFIXES}
INPUT_SUFFIXES = tuple(FORMATS_OF)
"""By which the logits files of a folder are known."""


def is_named(text: Any) -> bool:
    """Whether a text is ``NAME=FILE``, and no file's own name.

    Examples
    --------
    >>> is_named("rgb=a.h5"), is_named("a.h5")
    (True, False)
    """
    return isinstance(text, str) and NAME.fullmatch(text) is not None and not os.path.exists(text)


def expand(inputs: Any, asked: Asked | None = None) -> Facts[Any]:
    """Inputs with patterns, lists and folders replaced by names; arrays and sources pass as they are.

    Parameters
    ----------
    inputs : path, sequence of paths, mapping of these by modality, or arrays
        ``'val/*.h5'`` (``**`` for folders at any depth; ``::GROUP`` and ``NAME=`` as with files), ``@LIST`` (a text
        file with one input per line), a folder of logits files, or ``-`` (standard input).
    asked : Asked, optional
        What was said of names. Where given, a file that holds several parts stands for these.

    Returns
    -------
    list, mapping, or what was given

    Raises
    ------
    UnoicError
        A pattern without a match, a list that cannot be read or is empty, or standard input more than once.

    """
    texts = [inputs] if isinstance(inputs, str) else inputs
    if isinstance(texts, (list, tuple)) and all(isinstance(text, str) for text in texts):
        return (yield from know(f"names {' '.join(texts)}", lambda: expanded(inputs, asked)))
    return expanded(inputs, asked)


def expanded(inputs: Any, asked: Asked | None = None) -> Any:
    """As `expand`, from the files as they are.

    Examples
    --------
    >>> expanded(["rgb=a.h5", "depth=b.h5"])
    ['rgb=a.h5', 'depth=b.h5']
    """
    if isinstance(inputs, Mapping):
        found: Any = {name: _parts(_expand_all(value, named=False), asked) for name, value in inputs.items()}
        texts = [item for value in found.values() if _is_names(value) for item in value]
    else:
        found = _parts(_expand_all(inputs, named=True), asked)
        texts = found if _is_names(found) else []
    if sum(is_standard(text) for text in texts) > 1:
        raise UsageError(STANDARD, "standard input twice", "expected it once: it can be read only once")
    return found


def is_there(name: str) -> Facts[bool]:
    """Whether the file of ``FILE`` or ``FILE::GROUP`` exists."""
    return (yield from know(f"name {name}", lambda: os.path.exists(storage.split_name(name)[0])))


def is_pattern(text: str) -> bool:
    """Whether a name without ``NAME=`` stands for others: a list, or a pattern that is no file's own name."""
    path, _ = storage.split_name(text)
    if storage.is_remote(path):
        scheme, _, address, _ = storage.split_url(path)
        return "*" in address if scheme in ("http", "https") else glob.has_magic(address)
    return not os.path.exists(path) and (path.startswith("@") or glob.has_magic(path))


def is_standard(item: Any) -> bool:
    """Whether an input is standard input, with the name of a modality or without."""
    if not isinstance(item, str):
        return False
    match = NAME.fullmatch(item)
    return item == STANDARD or (match is not None and match[2] == STANDARD and not os.path.exists(item))


def _is_names(inputs: Any) -> bool:
    return isinstance(inputs, (list, tuple)) and all(isinstance(item, (str, os.PathLike, Source)) for item in inputs)


def _parts(found: Any, asked: Asked | None) -> Any:
    """Names with files that hold several parts replaced by these."""
    if asked is None or not _is_names(found):
        return found
    return [one for item in found for one in ([item] if isinstance(item, Source) else _parts_of(item, asked))]


def _parts_of(text: str, asked: Asked) -> list[str]:
    match = None if os.path.exists(storage.split_name(text)[0]) else NAME.fullmatch(text)
    prefix, name = (f"{match[1]}=", match[2]) if match else ("", text)
    try:
        return [prefix + part for part in parts(name, asked)]
    except UnoicError:
        return [text]  # what is wrong is said when it is opened


def _expand_all(inputs: Any, *, named: bool) -> Any:
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    if not _is_names(inputs):
        return inputs
    found: list[Any] = []
    for item in inputs:
        if isinstance(item, Source):
            found.append(item)
        else:
            found += _expand_one(os.fspath(item), named)
    return found


def _expand_one(text: str, named: bool, origin: str | None = None) -> list[str]:
    """The names that one input stands for."""
    if os.path.isdir(text):
        return _folder(text)
    if os.path.exists(storage.split_name(text)[0]):
        return [text]
    match = NAME.fullmatch(text) if named else None
    prefix, plain = (f"{match[1]}=", match[2]) if match else ("", text)
    if os.path.isdir(plain):
        return [prefix + name for name in _folder(plain)]
    if not is_pattern(plain):
        return [text]
    if plain.startswith("@"):
        if origin is not None:
            raise UsageError(origin, f"the list {plain}", "expected files or patterns: no list inside a list")
        return [prefix + line for line in _read_list(plain, named=named and not prefix)]
    return [prefix + name for name in _matches(plain)]


def _matches(pattern: str) -> list[str]:
    """Files that match a pattern, in natural order: 2 before 10."""
    path, group = storage.split_name(pattern)
    suffix = pattern[len(path) :] if group != "/" else ""
    if storage.is_remote(path):
        names = storage.listing(path)
    else:
        names = [name for name in glob.glob(path, recursive=True) if not os.path.isdir(name)]
    if not names:
        raise NoInputError(storage.shown(pattern), "no file matches", "expected a pattern of existing files")
    return [name + suffix for name in sorted(names, key=natural)]


def _folder(path: str) -> list[str]:
    """The logits files of a folder, at any depth, in natural order; none that is hidden or begins with ``_``.

    Of a table in Parquet, nothing but that; arrays with a pickle of their properties beside each are the arrays.
    """
    by_suffix: dict[str, list[str]] = {}
    for folder, inner, names in os.walk(path):
        inner[:] = [one for one in inner if not one.startswith((".", "_"))]
        for name in names:
            suffix = next((known for known in INPUT_SUFFIXES if name.lower().endswith(known)), None)
            if suffix is not None and not name.startswith((".", "_")):
                by_suffix.setdefault(FORMATS_OF[suffix], []).append(os.path.join(folder, name))
    for table, beside in (("parquet", ""), ("npz", "pickle")):
        if table in by_suffix and (not beside or _stems(by_suffix[table]) == _stems(by_suffix.get(beside, []))):
            by_suffix = {table: by_suffix[table]}
    if not by_suffix:
        raise NoInputError(path, "a folder without logits files", f"expected files of {', '.join(INPUT_SUFFIXES)}")
    if len(by_suffix) > 1:
        listed = ", ".join(f"{len(found)} {kind}" for kind, found in by_suffix.items())
        raise UsageError(path, f"files of {len(by_suffix)} formats ({listed})", f"expected a pattern: '{path}/*.h5'")
    (found,) = by_suffix.values()
    if len(found) > MOST_NAMES:
        raise DataError(path, f"more than {MOST_NAMES:,} files", "expected fewer, larger files")
    return sorted(found, key=natural)


def _stems(names: Sequence[str]) -> set[str]:
    return {os.path.splitext(name)[0] for name in names}


def natural(name: str) -> tuple[Any, ...]:
    """Order in which people count.

    Examples
    --------
    >>> sorted(["val_10.h5", "val_2.h5", "b.h5"], key=natural)
    ['b.h5', 'val_2.h5', 'val_10.h5']
    """
    parts = re.split(r"([0-9]+)", name)
    return (*((part, 0) if i % 2 == 0 else ("", int(part)) for i, part in enumerate(parts)), name)


def _read_list(text: str, *, named: bool) -> list[str]:
    """The inputs of a list, one a line; blank lines and those that begin with ``#`` say nothing."""
    path = text[1:]
    if not path:
        raise UsageError(text, "a list without a name", "expected @LIST, a text file with one input per line")
    if "::" in path and not os.path.exists(path):
        raise UsageError(text, "a group of a list", "expected FILE::GROUP on its lines")
    if storage.is_remote(path):
        raise UsageError(f"@{storage.shown(path)}", "a remote list", "expected a local one: copy it first")
    expected = "expected a text file (UTF-8) with one input per line"
    data = read_whole(path, expected)
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError:
        raise DataError(path, "a list that is not UTF-8", expected) from None
    if "\0" in data.decode("utf-8-sig"):
        raise DataError(path, "a list with zero bytes", expected)
    found: list[str] = []
    for number, line in enumerate(lines, 1):
        entry = line.strip()
        if not entry or entry.startswith("#"):
            continue
        if entry != line and os.path.exists(storage.split_name(line)[0]):  # of that very name, spaces and all
            entry = line
        where = f"{path}:{number}"
        match = NAME.fullmatch(entry)
        if match and not named and not os.path.exists(storage.split_name(entry)[0]):
            found_text = f"{storage.shown(entry)} in a list of one modality"
            raise UsageError(where, found_text, "expected lines without NAME=, or @LIST without one")
        found += _expand_one(entry, named, where)
        if len(found) > MOST_NAMES:
            raise DataError(path, f"more than {MOST_NAMES:,} inputs", "expected fewer, larger files")
    if not found:
        raise DataError(path, "an empty list", expected)
    return found


def single(name: str, inputs: Sequence[str]) -> str:
    """The one input that a command takes.

    Raises
    ------
    UsageError
        The name stands for several.
    """
    if len(inputs) != 1:
        listed = ", ".join(map(storage.shown, inputs[:3])) + (", ..." if len(inputs) > 3 else "")
        raise UsageError(storage.shown(name), f"{len(inputs)} files ({listed})", "expected one")
    return inputs[0]
