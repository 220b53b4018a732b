"""File formats: one file and one class each; this registry lists the classes, and knows nothing else of them.

The class of a format is that of the sources that it finds (`unoic_cli.formats.source.FileSource`): it says by what its
files are known, describes one, opens it, cuts it into spans, and creates one where it is writable.
Libraries are imported late: reading Parquet does not load h5py, and the other way round. `storage` says where bytes
lie.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import urllib.parse
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

from unoic_cli import storage as storage
from unoic_cli.errors import CannotCreateError, DataError, NoInputError, UsageError
from unoic_cli.formats import arrow, csv, hdf5, names, npz, parquet, pickled, safetensors
from unoic_cli.formats.arrays import Arrays, Memory
from unoic_cli.formats.arrow import STANDARD as STANDARD
from unoic_cli.formats.block import Kind, LogitBlock, OutputSpec, Reader, Source, Writer
from unoic_cli.formats.source import FileSource
from unoic_cli.storage import objects, witness
from unoic_cli.storage import split_name as split_name
from unoic_cli.storage.whole import open_regular

T = TypeVar("T")

FORMATS: dict[str, type[FileSource]] = {
    one.NAME: one
    for one in (
        *(hdf5.Hdf5, parquet.Parquet, arrow.Arrow, pickled.Torch, npz.Npz, npz.Npy, pickled.Pickle),
        *(safetensors.Safetensors, csv.Csv),
    )
}
"""In the order in which files are asked whether they are one."""
SUFFIXES = {suffix: one.NAME for one in FORMATS.values() if one.WRITABLE for suffix in one.SUFFIXES}
"""Of outputs."""

_EXPECTED = "expected a logits file"
_PAGES, _PAGE = 64, 4096
_START = 256
"""Bytes at the start of a file that tell its format: of an archive, the name of its first member."""
_STREAM = next(one for one in FORMATS.values() if one.STREAM)


def detect(name: str) -> str:
    """Tell the format of a file by its first bytes: a key of `FORMATS`.

    Raises
    ------
    NoInputError
        The file is missing, a folder, or not readable.
    DataError
        It is empty or holds something else.
    """
    path, _ = split_name(name)
    if path == STANDARD:
        return _STREAM.NAME
    if not path:
        raise NoInputError("FILES", "an empty name", _EXPECTED)
    if storage.is_remote(path):
        head, size = storage.first_bytes(path)
        starts = [head[:_START], *(head[at : at + 16] for at in (512, 1024, 2048))]
    else:
        starts, size = _first_bytes(path)
    where = storage.shown(path)
    if not size:
        raise DataError(where, "an empty file (0 bytes)", _EXPECTED)
    for one in FORMATS.values():
        if one.matches(starts, where):
            return one.NAME
    if starts[0].startswith(b"\x1f\x8b"):
        raise DataError(where, "a file that gzip has packed", "expected it unpacked (gzip -d)")
    *some, last = (one.TITLE for one in FORMATS.values())
    raise DataError(where, "unknown first bytes", f"expected {', '.join(some)} or {last}")


def _first_bytes(path: str) -> tuple[list[bytes], int]:
    """What stands where signatures may, and how much stands at the very start."""
    scheme = storage.foreign_scheme(path)
    if scheme is not None and not os.path.exists(path):
        known = ", ".join(f"{known}://" for known in storage.SCHEMES)
        raise NoInputError(path, f"{scheme}:// is not known", f"expected a file or one of {known}")
    file = open_regular(path, _EXPECTED)
    try:
        size = os.fstat(file).st_size
        offsets = itertools.takewhile(lambda offset: offset < size, (512 << n for n in range(50)))
        starts = [
            os.pread(file, _START, 0),
            *(os.pread(file, 8, offset) for offset in offsets),
        ]  # behind any user block
    except OSError as error:
        raise NoInputError(path, f"cannot be read ({error.strerror})", _EXPECTED) from None
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
    one = FORMATS[detect(name)]
    path, group = split_name(name)
    where = storage.shown(name)
    if group != "/" and not one.GROUPS:
        able = " and ".join(kind.NAME.upper() for kind in FORMATS.values() if kind.GROUPS)
        raise UsageError(where, f"a group of a {one.NAME} file", f"FILE::GROUP is for {able}")
    if not one.REMOTE:
        storage.refuse_remote(path, one.TITLE.partition(" ")[2])
    wanted = names.Asked() if asked is None else asked
    labels = None
    if wanted.labels_file is not None:
        from unoic_cli.formats import beside

        labels = beside.find(wanted.labels_file, wanted.labels_key, name)
        wanted = replace(wanted, labels_key=None, beside=names.Facts(labels.entry.shape, labels.entry.dtype))
    found = one.describe(where, path, group, allow_external=allow_external, asked=wanted)
    source = _weighed(understood(_by_folders(found, path), wanted))
    if labels is None and not source.constants:
        return source
    from unoic_cli.formats import beside

    return beside.joined(source, labels)


def _weighed(source: Source) -> Source:
    """A source that says of weights in the file that they are not used."""
    weights = [name for name in source.others if name.lower() in names.WEIGHTS]
    said = [f"{name} is not used: counts are of whole units, each of which counts once" for name in weights]
    return replace(source, notes=(*source.notes, *said)) if said else source


def _by_folders(source: Source, path: str) -> Source:
    """A source with what ``split=...`` and ``group=...`` among its folders say of it, as tables in parts have it."""
    if not isinstance(source, parquet.Parquet):
        return source
    pairs = [folder.partition("=") for folder in os.path.dirname(path).split("/") if "=" in folder]
    said = {key: urllib.parse.unquote(value) for key, _, value in pairs if key in ("split", "group")}
    constants = {key: value for key, value in said.items() if key not in source.fields}
    return replace(source, constants={**source.constants, **constants}) if constants else source


def parts(name: str, asked: names.Asked) -> list[str]:
    """What an input stands for: the parts of a file that holds several data sets; itself, where it holds one."""
    path, group = split_name(name)
    if is_elsewhere(path):
        return [name]
    found = FORMATS[detect(name)].parts(storage.shown(name), path, group, asked)
    between = "::" if group == "/" else "/"
    return [f"{name.rstrip('/')}{between}{part}" for part in found] if len(found) > 1 else [name]


def says_little(name: str) -> bool:
    """Whether a file is of a format whose names alone say what its scores are: conversion looks at all values."""
    return FORMATS[detect(name)].PLAIN


def understood(source: Source, asked: names.Asked) -> Source:
    """What a format found, with one score of each unit as two classes, and a kind by the values where none is said."""
    from unoic_cli.formats import single

    if source.kind == "predictions":
        names.refuse(names.Asked(kind=asked.kind), source.name, "holds predictions")
        return source
    if asked.kind is not None:
        source = _as_told(source, asked.kind)
    elif source.undecided and asked.decide:
        try:
            with contextlib.closing(open_reader(source)) as reader:
                source = single.decided(source, reader, min(source.n_units, single.LOOKED_AT))
        except single.DoubtError:
            if not source.guessed:
                raise
        if source.guessed and (source.undecided or source.kind == "logits"):
            listed = ",".join(source.class_names or ())
            found = f"columns of floats that may be scores, or not, as their rows do not sum to 1 ({listed[:80]})"
            raise DataError(source.name, found, "expected --logits-key with those that are scores, as a list")
    return single.widened(source)


def _as_told(source: Source, kind: Kind) -> Source:
    """A source of another kind than its name says, which is said."""
    notes = source.notes
    if source.kind != kind and not source.undecided:
        called = source.scores_name.rpartition(":")[2]
        notes = (*notes, f"{called} is read as {kind.replace('_', '-')} (--kind)")
    members = source.members if "scores" in source.members else {**source.members, "scores": source.kind}
    return replace(source, kind=kind, undecided=False, notes=notes, members=members)


def fingerprint(source: Source) -> dict[str, Any]:
    """What tells an input's file from another one: its size, when it was written, and a digest of pages all over it."""
    path, _ = split_name(source.name)
    if not source.n_samples:
        return {"bytes": 0}
    if isinstance(source, FileSource) and storage.is_remote(path):
        _, size, state = source.stamp
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
    known = [source for source in sources if isinstance(source, FileSource) and source.stamp is not None]
    far = [source for source in known if storage.is_remote(source.name)]
    for source in known:
        if source not in far:
            witness.check(source.name, source.path, source.stamp)
    checks = [partial(storage.check_stamp, source.name, source.path, source.stamp) for source in far]
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
        return source.path if isinstance(source, FileSource) else path, group
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


def others(sources: Iterable[Source]) -> str | None:
    """What to say of arrays and columns that lie in the files and are written to no output; None if there are none."""
    found: dict[str, list[str]] = {}
    for source in sources:
        for name in source.others:
            found.setdefault(name, []).append(source.name)
    if not found:
        return None
    listed = ", ".join(list(found)[:8]) + (", ..." if len(found) > 8 else "")
    files = list(dict.fromkeys(itertools.chain(*found.values())))
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"not carried over to the output: {listed} (of {files[0]}{more})"


def open_reader(source: Source) -> Reader:
    """Open a source for one thread."""
    if source.constants or source.labels_from is not None:
        from unoic_cli.formats import beside

        return beside.JoinedReader(source, open_reader(beside.as_stored(source)))
    if source.single:
        from unoic_cli.formats import single

        return single.TwoClasses(source, open_reader(single.as_stored(source)))
    return source.open()


def first_block(source: Source, stop: int, fields: frozenset[str]) -> LogitBlock:
    """The first block of units [0, stop).

    Raises
    ------
    DataError
        There is none, though the file says that it has rows.
    """
    with contextlib.closing(open_reader(source)) as reader:
        block = next(reader.blocks(0, stop, fields), None)
    if block is None:
        raise DataError(source.name, "no row where the file tells of some", "expected an intact file")
    return block


def spans(source: Source, target_bytes: int) -> list[tuple[int, int]]:
    """Cut a source into runs of units that one worker reads at once, about `target_bytes` of scores each."""
    if source.single:
        from unoic_cli.formats import single

        return spans(single.as_stored(source), max(1, target_bytes // 2))
    if storage.is_remote(source.name):
        target_bytes = max(target_bytes, objects.SPAN_BYTES)
        if source.layout == "planes":
            image = source.pixels * source.n_classes * (8 if source.encoding == "float64" else 4)
            target_bytes = max(target_bytes, min(image, objects.IMAGE_BYTES))
    return source.spans(target_bytes)


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
    arrow.check_standard_output()


def writable(path: str | Memory) -> type[FileSource] | type[Arrays]:
    """The format of an output: by its suffix, or arrays where it stays in memory.

    Raises
    ------
    UsageError
        No format that is written has it.
    """
    if isinstance(path, Memory):
        return Arrays
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in SUFFIXES:
        raise UsageError(path, f"unknown suffix {suffix!r}", f"expected one of {', '.join(SUFFIXES)}")
    return FORMATS[SUFFIXES[suffix]]


def create(path: str | Memory, spec: OutputSpec, *, unfinished: str | None = None) -> Writer:
    """Start an output, or go on with an unfinished one of the same spec; the suffix of a file names its format."""
    if path == STANDARD:
        return _STREAM.create(path, spec)
    left = left_out(path, spec)
    kind: Any = writable(path)
    kept = {name: dtype for name, dtype in spec.dtypes.items() if name not in left}
    facts: dict[str, Any] = {name: None for name in ("source_counts", "source_prior", "class_names") if name in left}
    scalar = None if "delta" in left else spec.scalar_delta
    predictions = spec.predictions and "predictions" not in left
    attributes = {} if "provenance" in left else spec.attributes
    less = replace(
        spec, dtypes=kept, scalar_delta=scalar, predictions=predictions, attributes=attributes, **facts
    )  # fmt: skip
    made: Writer = kind.create(path, less, unfinished)
    return made


def left_out(path: str | Memory, spec: OutputSpec) -> list[str]:
    """What of an output its format cannot hold; the names of the arrays, of facts of the classes, and provenance."""
    kind = None if path == STANDARD else writable(path)
    holds = None if kind is None or kind is Arrays else cast("type[FileSource]", kind).HOLDS
    if holds is None:
        return []
    there = [*spec.dtypes, *(["delta"] if spec.scalar_delta is not None else [])]
    there += ["predictions"] if spec.predictions and spec.kind != "predictions" else []
    there += [name for name in ("source_counts", "source_prior", "class_names") if getattr(spec, name) is not None]
    there += ["provenance"] if spec.attributes else []
    return [name for name in there if name not in holds]
