"""File formats: one file each; this registry is the only other place that knows their names.

A format module offers
    NAME, SUFFIXES
    matches(head: bytes) -> bool                 does a file that starts like this belong to the format?
    describe(name, path, group, *, allow_external, strict) -> Source
    open_reader(source) -> Reader
    spans(source, target_bytes) -> list[(start, stop)]   units; what one worker reads at once
    create(path, spec: OutputSpec) -> Writer             (formats that can be written)
Modules are imported late: reading Parquet does not load h5py, and the other way round.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from types import ModuleType
from typing import Any

from unoic_cli.block import OutputSpec, Reader, Source, Writer
from unoic_cli.errors import CannotCreateError, DataError, NoInputError, UsageError

MODULES = {"hdf5": "unoic_cli.formats.hdf5", "parquet": "unoic_cli.formats.parquet"}
"""Formats that commands read and write; conversion also knows npz and npy (`formats.numpy_files`)."""

_PAGES, _PAGE = 64, 4096
SIGNATURES = {"hdf5": b"\x89HDF\r\n\x1a\n", "parquet": b"PAR1", "npz": b"PK\x03\x04", "npy": b"\x93NUMPY"}
SUFFIXES = {".h5": "hdf5", ".hdf5": "hdf5", ".hdf": "hdf5", ".parquet": "parquet", ".pq": "parquet"}


def module(name: str) -> ModuleType:
    """Import the module of a registered format."""
    return importlib.import_module(MODULES[name])


def split_name(name: str) -> tuple[str, str]:
    """Split ``FILE::GROUP`` into the file's path and the group (``/`` when none is named)."""
    path, separator, group = name.partition("::")
    return path, ("/" + group.strip("/")) if separator else "/"


def detect(name: str) -> str:
    """Tell the kind of a file by its first bytes: a key of `SIGNATURES`.

    Raises
    ------
    NoInputError
        The file is missing, a folder, or not readable.
    DataError
        It is empty or holds something else.
    """
    path, _ = split_name(name)
    expected = "an HDF5 or Parquet file"
    if not path:
        raise NoInputError("FILES", "an empty name", f"expected {expected}")
    if os.path.exists(path) and not os.path.isdir(path) and not os.path.isfile(path):
        raise NoInputError(path, "a device or a pipe", f"expected {expected}")
    try:
        with open(path, "rb") as file:
            head = file.read(16)
            for offset in (0, 512, 1024, 2048):
                file.seek(offset)
                if file.read(8) == SIGNATURES["hdf5"]:
                    return "hdf5"
    except FileNotFoundError:
        raise NoInputError(path, "no such file", f"expected {expected}") from None
    except IsADirectoryError:
        raise NoInputError(path, "a folder", f"expected {expected}") from None
    except OSError as error:
        raise NoInputError(path, f"cannot be opened ({error.strerror or error})", f"expected {expected}") from None
    if not head:
        raise DataError(path, "an empty file (0 bytes)", f"expected {expected}")
    for kind, signature in SIGNATURES.items():
        if head.startswith(signature):
            return kind
    raise DataError(path, "neither HDF5 nor Parquet (unknown first bytes)", f"expected {expected}")


def describe(name: str, *, allow_external: bool = False) -> Source:
    """Look into an input and say where its scores lie and what they are, without reading them."""
    kind = detect(name)
    path, group = split_name(name)
    if kind not in MODULES:
        raise DataError(path, f"a {kind} file", f"make a logits file of it first: unoic convert {path} OUT.h5")
    if kind != "hdf5" and group != "/":
        raise UsageError(name, f"a group of a {kind} file", "FILE::GROUP is for HDF5")
    source: Source = module(kind).describe(name, path, group, allow_external=allow_external)
    return source


def fingerprint(path: str) -> dict[str, Any]:
    """What tells a file from another one: its size, when it was written, and a digest of pages all over it."""
    status = os.stat(path)
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        for i in range(_PAGES):
            file.seek(max(0, status.st_size - _PAGE) * i // (_PAGES - 1))
            digest.update(file.read(_PAGE))
    return {"bytes": status.st_size, "modified": status.st_mtime_ns, "digest": digest.hexdigest()}


def has_predictions(source: Source) -> bool:
    """Tell whether usable predictions lie beside the scores; readers then give ``predictions`` when asked."""
    return bool(source.locator.get("has_predictions"))


def read_path(source: Source) -> tuple[str, str]:
    """How scores are read, in a word or two, and why that is slower than it could be (or nothing)."""
    if source.format != "hdf5":
        return {"parquet": "row groups"}.get(source.format, source.format), ""
    found: tuple[str, str] = module("hdf5").read_path(source)
    return found


def stored_bytes(source: Source) -> int | None:
    """Bytes that the scores take in the file, where the format says so."""
    found: int | None = source.locator.get("stored_bytes")
    return found


def delta_storage(source: Source) -> tuple[bool, str]:
    """Whether delta is stored once per image, and as which dtype."""
    import numpy as np

    entry = source.locator.get("arrays", {}).get("delta", {})
    return source.locator.get("delta") == "sample", np.dtype(entry.get("dtype", "f8")).name


def open_reader(source: Source) -> Reader:
    """Open a source for one thread."""
    if source.format == "arrays":
        from unoic_cli.formats import arrays

        return arrays.open_reader(source)
    reader: Reader = module(source.format).open_reader(source)
    return reader


def spans(source: Source, target_bytes: int) -> list[tuple[int, int]]:
    """Cut a source into runs of units that one worker reads at once, about `target_bytes` of scores each."""
    if source.format == "arrays":
        from unoic_cli.formats import arrays

        return arrays.spans(source, target_bytes)
    if source.format == "nowhere":
        return [(0, source.n_units)] if source.n_units else []
    result: list[tuple[int, int]] = module(source.format).spans(source, target_bytes)
    return result


def check_output(path: str, *, force: bool, inputs: tuple[str, ...] = ()) -> None:
    """Refuse an output that exists (without `force`), equals an input, or has no folder to go to."""
    if not path:
        raise UsageError("--output", "an empty name", "expected the name of a file")
    folder = os.path.dirname(path) or "."
    for name in inputs:
        source = split_name(name)[0]
        if os.path.exists(path) and os.path.exists(source) and os.path.samefile(path, source):
            raise CannotCreateError(path, "the output is also an input", "expected another name")
    if not os.path.isdir(folder):
        raise CannotCreateError(path, f"the folder {folder} does not exist", "expected an existing folder")
    if os.path.isdir(path):
        raise CannotCreateError(path, "a folder", "expected a file name")
    if os.path.exists(path) and not os.path.isfile(path):
        raise CannotCreateError(path, "a device, pipe or socket", "expected a file name")
    if os.path.lexists(path) and not force:
        raise CannotCreateError(path, "the file exists", "expected a new name, or --force to replace it")


def create(path: str, spec: OutputSpec, *, unfinished: str | None = None) -> Writer:
    """Start an output file, or go on with an unfinished one of the same spec; its suffix names its format."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        raise UsageError(path, f"unknown suffix {suffix!r}", f"expected one of {', '.join(SUFFIXES)}")
    more = {} if unfinished is None else {"unfinished": unfinished}
    writer: Writer = module(SUFFIXES[suffix]).create(path, spec, **more)
    return writer
