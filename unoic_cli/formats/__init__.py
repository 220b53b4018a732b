"""File formats: one file each; this registry is the only other place that knows their names.

A format module offers
    NAME, SUFFIXES
    matches(head: bytes) -> bool                 does a file that starts like this belong to the format?
    describe(name, path, group, *, allow_external, strict) -> Source
    open_reader(source) -> Reader
    spans(source, target_bytes) -> list[(start, stop)]   units; what one worker reads at once
    create(path, spec: OutputSpec) -> Writer             (formats that can be written)
Modules are imported late: reading Parquet does not load h5py, and the other way round. `storage` says where bytes lie.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import os
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any, TypeVar

from unoic_cli import witness
from unoic_cli.block import Kind, LogitBlock, OutputSpec, Reader, Source, Writer
from unoic_cli.errors import CannotCreateError, DataError, NoInputError, UsageError
from unoic_cli.formats import names, storage
from unoic_cli.formats.storage import split_name as split_name
from unoic_cli.whole import open_regular

T = TypeVar("T")

MODULES = {name: f"unoic_cli.formats.{name}" for name in ("hdf5", "parquet", "arrow")}
"""Formats that commands read and write; conversion also knows npz and npy (`formats.numpy_files`)."""

_PAGES, _PAGE = 64, 4096
SIGNATURES = {
    "hdf5": b"\x89HDF\r\n\x1a\n",
    "parquet": b"PAR1",
    "arrow": b"\xff\xff\xff\xff",
    "npz": b"PK\x03\x04",
    "npy": b"\x93NUMPY",
}
SUFFIXES = {
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".hdf": "hdf5",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrows": "arrow",
}
STANDARD = "-"
"""Standard input or output, as an Arrow IPC stream."""
_ARROW_FILE = b"ARROW1"


def module(name: str) -> ModuleType:
    """Import the module of a registered format."""
    return importlib.import_module(MODULES[name])


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
    if path == STANDARD:
        return "arrow"
    expected = "an HDF5 or Parquet file"
    if not path:
        raise NoInputError("FILES", "an empty name", f"expected {expected}")
    if storage.is_remote(path):
        head, size = storage.first_bytes(path)
        starts = [head[at : at + 16] for at in (0, 512, 1024, 2048)]
    else:
        starts, size = _first_bytes(path, expected)
    where = storage.shown(path)
    if not size:
        raise DataError(where, "an empty file (0 bytes)", f"expected {expected}")
    if any(start.startswith(SIGNATURES["hdf5"]) for start in starts):
        return "hdf5"
    if starts[0].startswith(_ARROW_FILE):
        return "arrow"
    for kind, signature in SIGNATURES.items():
        if starts[0].startswith(signature):
            return kind
    raise DataError(where, "neither HDF5 nor Parquet (unknown first bytes)", f"expected {expected}")


def _first_bytes(path: str, expected: str) -> tuple[list[bytes], int]:
    """What stands where signatures may, and how much stands at the very start."""
    scheme = storage.foreign_scheme(path)
    if scheme is not None and not os.path.exists(path):
        known = ", ".join(f"{known}://" for known in storage.SCHEMES)
        raise NoInputError(path, f"{scheme}:// is not known", f"expected a file or one of {known}")
    file = open_regular(path, f"expected {expected}")
    try:
        size = os.fstat(file).st_size
        offsets = itertools.takewhile(lambda offset: offset < size, (512 << n for n in range(50)))
        starts = [os.pread(file, 16, 0), *(os.pread(file, 8, offset) for offset in offsets)]  # behind any user block
    except OSError as error:
        raise NoInputError(path, f"cannot be read ({error.strerror})", f"expected {expected}") from None
    finally:
        witness.let_go(file)
    return starts, len(starts[0])


def describe(name: str, *, allow_external: bool = False, asked: names.Asked | None = None) -> Source:
    """Look into an input and say where its scores lie and what they are; a name that does not say it costs a look.

    Parameters
    ----------
    name : str
        ``FILE`` or ``FILE::GROUP``.
    allow_external : bool
        Follow what an HDF5 file says of other files.
    asked : Asked, optional
        What was said of the names of arrays, and of the class axis.
    """
    kind = detect(name)
    path, group = split_name(name)
    where = storage.shown(path)
    if kind not in MODULES:
        raise DataError(where, f"a {kind} file", f"make a logits file of it first: unoic convert {where} OUT.h5")
    if kind != "hdf5" and group != "/":
        raise UsageError(storage.shown(name), f"a group of a {kind} file", "FILE::GROUP is for HDF5")
    if kind == "arrow":
        storage.refuse_remote(path, "Arrow stream")
    wanted = names.Asked() if asked is None else asked
    shown = storage.shown(name)
    source: Source = module(kind).describe(shown, path, group, allow_external=allow_external, asked=wanted)
    return understood(source, wanted.kind)


def understood(source: Source, kind: Kind | None) -> Source:
    """What a format found, with one score of each unit as two classes, and a kind by the values where none is said."""
    from unoic_cli.formats import single

    if source.locator.get("undecided") and kind is not None:
        source = replace(source, kind=kind)
    elif source.locator.get("undecided"):
        reader = open_reader(source)
        try:
            source = single.decided(source, reader, min(source.n_units, single.LOOKED_AT))
        finally:
            reader.close()
    return single.widened(source)


def fingerprint(source: Source) -> dict[str, Any]:
    """What tells an input's file from another one: its size, when it was written, and a digest of pages all over it."""
    path, _ = split_name(source.name)
    if not source.n_samples:
        return {"bytes": 0}
    if storage.is_remote(path):
        _, size, state = source.locator["stamp"]
        return {"bytes": size, "digest": state}
    return fingerprint_of(path)


def fingerprint_of(path: str) -> dict[str, Any]:
    """As `fingerprint`, of any local file."""
    status = os.stat(path)
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        for i in range(_PAGES):
            file.seek(max(0, status.st_size - _PAGE) * i // (_PAGES - 1))
            digest.update(file.read(_PAGE))
    return {"bytes": status.st_size, "modified": status.st_mtime_ns, "digest": digest.hexdigest()}


def describe_all(
    inputs: Sequence[str], *, allow_external: bool = False, asked: names.Asked | None = None
) -> list[Source]:
    """Look into several inputs; those far away at the same time. The first that is at fault, in order, is the error.

    Beside others, one without samples is a source of none.
    """
    look = describe if len(inputs) == 1 else _describe_or_empty
    return _at_once([partial(look, name, allow_external=allow_external, asked=asked) for name in inputs], inputs)


def _describe_or_empty(name: str, *, allow_external: bool, asked: names.Asked | None) -> Source:
    from unoic_cli.formats.schema import EmptyError

    try:
        return describe(name, allow_external=allow_external, asked=asked)
    except EmptyError:
        return Source(storage.shown(name), "nowhere", 0, 0, (), "logits", "float32", "rows", frozenset())


def check_unchanged(sources: Iterable[Source]) -> None:
    """Make sure, after reading, that files and remote objects are still what they were before.

    Raises
    ------
    DataError
        One of them is another now: parts of both may have been read.
    """
    known = [source for source in sources if source.locator.get("stamp") is not None]
    far = [source for source in known if storage.is_remote(source.name)]
    for source in known:
        if source not in far and source.format in MODULES:
            witness.check(source.name, source.locator["path"], source.locator["stamp"])
    checks = [partial(storage.check_stamp, s.name, s.locator["path"], s.locator["stamp"]) for s in far]
    _at_once(checks, [source.name for source in far])


def _at_once(calls: Sequence[Callable[[], T]], inputs: Sequence[str]) -> list[T]:
    """Results in order; calls for remote names wait for their servers side by side."""
    far = [i for i, name in enumerate(inputs) if storage.is_remote(name)]
    if len(far) < 2:
        return [call() for call in calls]
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(min(16, len(far)))
    try:
        waiting = {i: pool.submit(calls[i]) for i in far}
        return [waiting[i].result() if i in waiting else call() for i, call in enumerate(calls)]
    finally:
        pool.shutdown(cancel_futures=True)


def identity(source: Source) -> tuple[Any, str]:
    """Tells a source from others: the file that its name leads to, links or not, and the group."""
    path, group = split_name(source.name)
    if storage.is_remote(path):
        return str(source.locator.get("path", path)), group
    return file_identity(path), group


def file_identity(path: str) -> Any:
    """Tells a file from others: by device and number, if it is there."""
    if is_elsewhere(path):
        return path
    try:
        status = os.stat(path)
    except OSError:
        return os.path.realpath(path)
    return status.st_dev, status.st_ino


def size_of(source: Source) -> int:
    """Bytes of the file, or of the arrays in memory."""
    if source.format == "arrays":
        return sum(getattr(one, "nbytes", 0) for one in source.locator.values())
    if source.format == "arrow":
        return int(source.locator["size"])
    stamp = source.locator.get("stamp")
    return os.path.getsize(split_name(source.name)[0]) if stamp is None else int(stamp[1])


def is_elsewhere(path: str) -> bool:
    """Whether a name is that of no local file: a remote object, or standard input."""
    return path == STANDARD or storage.is_remote(path)


def stem_of(name: str) -> tuple[str, str]:
    """A file's name without folders, in two parts: what outputs beside it are called after, and the suffix.

    Examples
    --------
    >>> stem_of("s3://bucket/val.h5::a"), stem_of("-")
    (('val', '.h5'), ('stdin', ''))
    """
    path, _ = split_name(name)
    return ("stdin", "") if path == STANDARD else os.path.splitext(storage.base_name(path))


def has_predictions(source: Source) -> bool:
    """Tell whether usable predictions lie beside the scores; readers then give ``predictions`` when asked."""
    return bool(source.locator.get("has_predictions"))


def others(sources: Iterable[Source]) -> str | None:
    """What to say of arrays and columns that lie in the files and are written to no output; None if there are none."""
    found: dict[str, list[str]] = {}
    for source in sources:
        for name in source.locator.get("others", ()):
            found.setdefault(name, []).append(source.name)
    if not found:
        return None
    listed = ", ".join(list(found)[:8]) + (", ..." if len(found) > 8 else "")
    files = list(dict.fromkeys(itertools.chain(*found.values())))
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"not carried over to the output: {listed} (of {files[0]}{more})"


def read_path(source: Source) -> tuple[str, str]:
    """How scores are read, in a word or two, and why that is slower than it could be (or nothing)."""
    if source.format != "hdf5":
        return {"parquet": "row groups"}.get(source.format, source.format), ""
    found: tuple[str, str] = module("hdf5").read_path(source)
    return found


def decoded_whole(source: Source) -> int:
    """Bytes of scores that must be decoded at once, however little memory there is; 0 where buffers are bounded."""
    found: int = module("hdf5").decoded_whole(source) if source.format == "hdf5" else 0
    return found


def checksums(source: Source) -> str | None:
    """What would show that a bit of the stored scores has changed: ``none``, or its name; None where nobody knows."""
    found: str | None = source.locator.get("checksums", "none")
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
    if source.single:
        from unoic_cli.formats import single

        return single.TwoClasses(source, open_reader(single.as_stored(source)))
    if source.format == "arrays":
        from unoic_cli.formats import arrays

        return arrays.open_reader(source)
    reader: Reader = module(source.format).open_reader(source)
    return reader


def first_block(reader: Reader, source: Source, stop: int, fields: frozenset[str]) -> LogitBlock:
    """The first block of units [0, stop).

    Raises
    ------
    DataError
        There is none, though the file says that it has rows.
    """
    block = next(reader.blocks(0, stop, fields), None)
    if block is None:
        raise DataError(source.name, "no row where the file tells of some", "expected an intact file")
    return block


def spans(source: Source, target_bytes: int) -> list[tuple[int, int]]:
    """Cut a source into runs of units that one worker reads at once, about `target_bytes` of scores each."""
    if source.single:
        from unoic_cli.formats import single

        return spans(single.as_stored(source), max(1, target_bytes // 2))
    if source.format == "arrays":
        from unoic_cli.formats import arrays

        return arrays.spans(source, target_bytes)
    if source.format == "nowhere":
        return [(0, source.n_units)] if source.n_units else []
    if storage.is_remote(source.name):
        target_bytes = max(target_bytes, storage.SPAN_BYTES)
        if source.layout == "planes":
            image = source.pixels * source.n_classes * (8 if source.encoding == "float64" else 4)
            target_bytes = max(target_bytes, min(image, storage.IMAGE_BYTES))
    result: list[tuple[int, int]] = module(source.format).spans(source, target_bytes)
    return result


def check_output(
    path: str,
    *,
    force: bool,
    inputs: tuple[str, ...] = (),
    option: str = "--output",
    words: Container[str] = (),
) -> None:
    """Refuse an output that exists (without `force`), is an input, has no folder, or a name with another meaning.

    Parameters
    ----------
    path : str
    force : bool
        Whether it may replace a file.
    inputs : tuple of str
        Files that it must not replace.
    option : str
        For messages.
    words : container of str
        What is no file where the output will be read.
    """
    if not path:
        raise UsageError(option, "an empty name", "expected the name of a file")
    if path == STANDARD:
        raise UsageError(option, "-", "expected the name of a file (./- for one of that name)")
    if path in words:
        raise UsageError(option, f"{path!r}, a word with a meaning where the file is read", f"expected ./{path}")
    storage.refuse_output(path)
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


def check_stream(*, force: bool) -> None:
    """Refuse a stream on standard output where it cannot go, and options that mean nothing to it."""
    if force:
        raise UsageError("--force", "--force with a stream on standard output", "expected it for files only")
    module("arrow").check_standard_output()


def create(path: str, spec: OutputSpec, *, unfinished: str | None = None) -> Writer:
    """Start an output file, or go on with an unfinished one of the same spec; its suffix names its format."""
    if path == STANDARD:
        stream: Writer = module("arrow").create(path, spec)
        return stream
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        raise UsageError(path, f"unknown suffix {suffix!r}", f"expected one of {', '.join(SUFFIXES)}")
    more = {} if unfinished is None else {"unfinished": unfinished}
    writer: Writer = module(SUFFIXES[suffix]).create(path, spec, **more)
    return writer
