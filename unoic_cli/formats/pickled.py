"""Pickles, and tensors that torch has saved, as boxes of arrays: what lies in one piece is read where it lies."""

from __future__ import annotations

import codecs
import itertools
import json
import math
import os
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.errors import DataError
from unoic_cli.formats import boxes, numpy_files, pickles
from unoic_cli.formats.boxes import Entry, Place
from unoic_cli.formats.names import Facts, are_floats
from unoic_cli.formats.plain import Plain
from unoic_cli.storage.whole import open_regular

_MOST_PICKLE = 1 << 28
"""Bytes of the pickle of a torch file: names and shapes."""
_DEEPEST = 6
"""Containers in containers whose arrays are looked at."""
_LEGACY = 0x1950A86A20F9469CFC6C
"""What a file of torch before 1.6 begins with, pickled."""
_BATCHES = object()
"""Stands for the place in a list."""
_NAMES = "class_names"
_LISTED = "class_names[]"
"""Of the texts: a list of them, as JSON; no name of a text holds brackets."""
_PAIRS = ("val", "test")
"""What two pairs of scores and labels are."""


@dataclass(frozen=True)
class Lying:
    """An array and where it lies.

    Attributes
    ----------
    entry : Entry
    data : bytes or Blob
        In memory, or in the file.
    first : int
        Entries before the first one.
    strides : tuple of int or None
        In entries; None in C order.
    parts : tuple of Lying
        Batches, one behind the other, in place of data.
    """

    entry: Entry
    data: bytes | pickles.Blob
    first: int = 0
    strides: tuple[int, ...] | None = None
    parts: tuple[Lying, ...] = ()

    def is_plain(self) -> bool:
        """Whether its rows lie one behind the other."""
        shape, strides = self.entry.shape, self.strides
        if strides is None or 0 in shape:
            return True
        wanted = 1
        for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
            if extent != 1 and stride != wanted:
                return False
            wanted *= extent
        return True


class PickleBox(boxes.Box):
    """The arrays of a pickle, or of what ``torch.save`` wrote before 1.6."""

    TITLE = "a pickle"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._lying: dict[str, Lying] = {}
        with self._open() as file:
            self._fill(path, self._tree(file))

    def _open(self) -> IO[bytes]:
        return open(open_regular(self.path, f"expected {self.TITLE}"), "rb")

    def _tree(self, file: IO[bytes]) -> Any:
        """What the file describes, with `Lying` in place of arrays."""
        size = os.fstat(file.fileno()).st_size
        stream = pickles.Stream(self.path, lambda at, count: os.pread(file.fileno(), count, at), 0, size)
        tree = pickles.Machine(stream).run()
        if tree == _LEGACY:
            return self._legacy(stream)
        return _replaced(self.path, tree, size, {})

    def _legacy(self, stream: pickles.Stream) -> Any:
        """Version, system and tree, each a pickle; then keys and storages."""
        pickles.Machine(stream).run()
        system = pickles.Machine(stream).run()
        tree, keys = pickles.Machine(stream).run(), pickles.Machine(stream).run()
        order = "<" if not isinstance(system, dict) or system.get("little_endian", True) else ">"
        sizes = _storages(tree)
        places = {}
        for key in keys if isinstance(keys, list) else []:
            count = int.from_bytes(stream.take(8), "little")
            kind = sizes.get(str(key))
            if kind not in pickles.KINDS:
                raise stream.corrupt("a storage that nothing refers to, or of an unknown type")
            size = count * np.dtype(pickles.KINDS[kind][0]).itemsize
            places[str(key)] = pickles.Blob(stream.skip(size), size)
        return _replaced(self.path, tree, stream.end, places, order)

    def class_names(self, where: str, n_classes: int) -> tuple[str, ...] | None:
        """A list of texts under ``class_names``."""
        return boxes.listed_names(where, {_NAMES: self.texts[_LISTED]}, n_classes) if _LISTED in self.texts else None

    def _fill(self, path: str, tree: Any) -> None:
        found, self.texts, self.notes = _named(path, tree)
        for name, lying in found.items():
            self.entries[name] = lying.entry
            self._lying[name] = lying

    def place(self, member: str) -> Place:
        """See `unoic_cli.formats.boxes.Box`."""
        lying = self._lying[member]
        if lying.parts:
            return Place(None, f"{len(lying.parts)} batches")
        if not lying.is_plain():
            return Place(None, "a view that is not contiguous")
        if isinstance(lying.data, bytes):
            return Place(None, "inside the pickle")
        if lying.data.text:
            return Place(None, "text of Python 2")
        return Place(lying.data.offset + lying.first * lying.entry.dtype.itemsize, "contiguous")

    def read(self, member: str) -> NDArray[Any]:
        """See `unoic_cli.formats.boxes.Box`."""
        found = list(self.rows(member, 1 << 62))
        shape, dtype, _ = self.entries[member]
        if len(found) > 1:
            return np.concatenate(found)
        return found[0] if found else np.empty(shape, dtype)

    def rows(self, member: str, target_bytes: int) -> Iterator[NDArray[Any]]:
        """See `unoic_cli.formats.boxes.Box`."""
        lying = self._lying[member]
        with self._open() as file:
            for part in lying.parts or (lying,):
                yield from self._part_rows(file, part, target_bytes)

    def _part_rows(self, file: IO[bytes], lying: Lying, target_bytes: int) -> Iterator[NDArray[Any]]:
        shape, dtype = lying.entry.shape, lying.entry.dtype
        whole = self._view(file, lying)
        if not shape:
            yield whole.copy()
        else:
            step = max(1, target_bytes // max(1, math.prod(shape[1:]) * dtype.itemsize))
            for start in range(0, shape[0], step):
                yield np.ascontiguousarray(whole[start : start + step])

    def _view(self, file: IO[bytes], lying: Lying) -> NDArray[Any]:
        """The array over the bytes of the file; those of text are decoded first."""
        (shape, dtype, _), data = lying.entry, lying.data
        if not math.prod(shape):
            return np.empty(shape, dtype)
        flat: NDArray[Any]
        if isinstance(data, bytes):
            flat = np.frombuffer(data, np.uint8)
        elif data.text:
            flat = np.frombuffer(_decoded(self.path, file, data), np.uint8)
        else:
            flat = np.memmap(file, np.uint8, "r", data.offset, (data.size,))
        first = lying.first * dtype.itemsize
        strides = lying.strides
        if strides is None:
            size = math.prod(shape) * dtype.itemsize
            if flat.size < first + size:
                raise DataError(self.path, f"{flat.size:,} bytes of an array", f"expected {first + size:,}")
            return flat[first : first + size].view(dtype).reshape(shape)
        whole = flat[: flat.size // dtype.itemsize * dtype.itemsize].view(dtype)[lying.first :]
        return np.lib.stride_tricks.as_strided(
            whole, shape, [stride * dtype.itemsize for stride in strides], writeable=False
        )


class TorchBox(PickleBox):
    """The tensors that ``torch.save`` wrote, in an archive."""

    TITLE = "a torch file"
    CHECKSUMS = "crc32"

    def _tree(self, file: IO[bytes]) -> Any:
        with numpy_files.corrupt(self.path, "torch"), zipfile.ZipFile(file) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if len(members) > boxes.MOST_NAMES:
                raise DataError(self.path, f"{len(members):,} members", f"expected at most {boxes.MOST_NAMES:,}")
            name = next((name for name in members if name == "data.pkl" or name.endswith("/data.pkl")), None)
            if name is None:
                raise DataError(self.path, "no data.pkl in the archive", "expected what torch.save writes")
            if any(one.endswith("/constants.pkl") for one in members):
                raise DataError(self.path, "a TorchScript program", "expected tensors: save the outputs, not the model")
            prefix = name.removesuffix("data.pkl")
            if members[name].file_size > _MOST_PICKLE:
                raise DataError(self.path, f"a data.pkl of {members[name].file_size:,} bytes", "expected tensors")
            data = _member(archive, members[name])
            order = ">" if _order(archive, members.get(prefix + "byteorder")) == b"big" else "<"
            places = {}
            self._crcs = {}
            for key, info in members.items():
                if key.startswith(prefix + "data/"):
                    at = numpy_files.stored_at(file, info)
                    if at is None:
                        raise DataError(f"{self.path}:{key}", "compressed", "expected what torch.save writes")
                    places[key.removeprefix(prefix + "data/")] = pickles.Blob(at, info.file_size)
                    self._crcs[at] = info.filename
        stream = pickles.Stream(self.path, lambda at, count: data[at : at + count], 0, len(data))
        return _replaced(self.path, pickles.Machine(stream).run(), os.fstat(file.fileno()).st_size, places, order)

    def place(self, member: str) -> Place:
        """See `unoic_cli.formats.boxes.Box`; the checksum is that of the whole storage."""
        data = self._lying[member].data
        if isinstance(data, pickles.Blob) and data.offset in self._crcs:
            with (
                numpy_files.corrupt(f"{self.path}:{member}", "torch"),
                self._open() as file,
                zipfile.ZipFile(file) as archive,
                archive.open(self._crcs[data.offset]) as inside,
            ):
                while inside.read(1 << 20):
                    pass
        return super().place(member)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """What a small member holds, and no more than it says."""
    with archive.open(info) as file:
        return file.read(info.file_size + 1)


def _order(archive: zipfile.ZipFile, info: zipfile.ZipInfo | None) -> bytes:
    return b"little" if info is None or info.file_size > 16 else _member(archive, info).strip()


def _decoded(where: str, file: IO[bytes], data: pickles.Blob) -> bytes:
    """The bytes that characters stand for."""
    decoder, found = codecs.getincrementaldecoder("utf-8")(), bytearray()
    try:
        for at in range(0, data.size, 1 << 20):
            piece = os.pread(file.fileno(), min(1 << 20, data.size - at), data.offset + at)
            found += decoder.decode(piece, at + len(piece) >= data.size).encode("latin-1")
    except UnicodeError:
        raise DataError(where, "text in place of an array's bytes", "expected an intact pickle") from None
    return bytes(found)


# ------------------------------------------------------------------------------------------------
# from what a pickle describes to arrays with names


def _storages(tree: Any) -> dict[str, str]:
    """Kind of each storage that tensors refer to."""
    return {one.storage.key: one.storage.kind for _, one in _leaves(tree) if isinstance(one, pickles.Tensor)}


def _leaves(tree: Any) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """What is no container, with the keys that lead there; bounded in depth and number, whatever refers to what."""
    waiting: list[tuple[tuple[Any, ...], Any]] = [((), tree)]
    for _ in range(boxes.MOST_NAMES):
        if not waiting:
            return
        path, node = waiting.pop()
        inner: list[tuple[Any, Any]] = []
        if isinstance(node, dict):
            inner = list(node.items())
        elif _is_list(node) and not _is_numbers(node):
            inner = list(enumerate(node))
        else:
            yield path, node
            continue
        if len(path) < _DEEPEST:
            waiting += [((*path, key), one) for key, one in reversed(inner[: boxes.MOST_NAMES])]


def _is_list(node: Any) -> bool:
    return type(node) in (list, tuple)


def _is_numbers(node: Any) -> bool:
    """Whether a list is one of numbers, or of lists of as many numbers."""
    if not node:
        return True
    first = node[0]
    if type(first) in (int, float, bool):
        return all(type(one) in (int, float, bool) for one in node)
    if _is_list(first) and first and type(first[0]) in (int, float):
        width = len(first)
        return all(_is_list(one) and len(one) == width and all(type(x) in (int, float) for x in one) for one in node)
    return False


def _replaced(where: str, tree: Any, size: int, storages: Mapping[str, pickles.Blob], order: str = "<") -> Any:
    """The tree as leaves: arrays by the keys that lead to them, and what else there is."""
    found: dict[tuple[Any, ...], Any] = {}
    for path, leaf in _leaves(tree):
        if isinstance(leaf, pickles.Shell):
            found[path] = _of_numpy(where, leaf)
        elif isinstance(leaf, pickles.Tensor):
            found[path] = _of_torch(where, leaf, storages, order)
        elif _is_list(leaf) and leaf:
            found[path] = _of_numbers(where, leaf)
        elif isinstance(leaf, (str, int, float)):
            found[path] = leaf
    return found


def _of_numpy(where: str, shell: pickles.Shell) -> Lying | None:
    dtype = shell.dtype.as_dtype()
    if dtype is None:
        return None
    data: Any = shell.data
    if isinstance(data, str):
        data = data.encode("latin-1")
    if isinstance(data, bytearray):
        data = bytes(data)
    need = math.prod(shell.shape) * dtype.itemsize
    held = data.size if isinstance(data, pickles.Blob) else len(data) if isinstance(data, bytes) else -1
    is_text = isinstance(data, pickles.Blob) and data.text
    if need >= 1 << 62 or (held != need and not (is_text and need <= held <= 2 * need)):
        raise DataError(where, f"an array of shape {shell.shape} and {max(0, held):,} bytes", f"expected {need:,}")
    strides = None
    if shell.fortran and len(shell.shape) > 1:
        strides = tuple(itertools.accumulate(shell.shape[:-1], int.__mul__, initial=1))
    return Lying(Entry(shell.shape, dtype), data, 0, strides)


def _of_torch(
    where: str, tensor: pickles.Tensor, storages: Mapping[str, pickles.Blob], order: str
) -> Lying | None:  # fmt: skip
    kind = tensor.kind or tensor.storage.kind
    if kind not in pickles.KINDS:
        return None
    text, bfloat16 = pickles.KINDS[kind]
    dtype = np.dtype(order + text)
    blob = storages.get(tensor.storage.key)
    if blob is None:
        raise DataError(where, f"no storage {tensor.storage.key}", "expected an intact torch file")
    shape, strides = tensor.shape, tensor.strides
    there = blob.size // dtype.itemsize
    n = math.prod(shape)
    if n:
        last = tensor.first + sum((extent - 1) * stride for extent, stride in zip(shape, strides, strict=True))
        if tensor.first < 0 or min(strides, default=0) < 0 or last >= there:
            found = f"a tensor of shape {shape} and strides {strides} in a storage of {there:,} entries"
            raise DataError(where, found, "expected an intact torch file")
        if n > there:
            found = f"a tensor of shape {shape} that repeats {there:,} entries"
            raise DataError(where, found, "expected tensor.contiguous() to be saved")
    return Lying(Entry(shape, dtype, bfloat16), blob, tensor.first, strides)


def _of_numbers(where: str, values: Sequence[Any]) -> Lying | None:
    try:
        array = np.array(values)
    except (ValueError, OverflowError):
        return None
    if array.dtype.kind not in "iufb":
        return None
    return Lying(Entry(array.shape, array.dtype), array.tobytes())


def _named(path: str, found: Mapping[tuple[Any, ...], Any]) -> tuple[dict[str, Lying], dict[str, str], tuple[str, ...]]:
    """Arrays by name, texts by name, and what to say; keys in keys are joined by dots."""
    lying, said = _batches({keys: one for keys, one in found.items() if isinstance(one, Lying)})
    texts = {_joined(keys): str(one) for keys, one in found.items() if isinstance(one, str)}
    class_names = [one for keys, one in found.items() if isinstance(one, str) and keys[-2:-1] == (_NAMES,)]
    if class_names:
        texts[_LISTED] = json.dumps(class_names)
    pairs = _pairs(lying)
    if pairs:
        listed = f"{len(pairs)} pair{'' if len(pairs) == 1 else 's'} of scores and labels without names"
        called = f", taken as {' and '.join(pairs)}" if len(pairs) == len(_PAIRS) else ""
        named: dict[str, Lying] = {}
        for split, (scores, labels) in pairs.items():
            prefix = f"{split}." if split else ""
            named |= {f"{prefix}scores": lying[scores], f"{prefix}labels": lying[labels]}
        return named, texts, (*said, listed + called)
    stem = os.path.splitext(os.path.basename(path))[0]
    return {_joined(keys) or stem: one for keys, one in lying.items()}, texts, tuple(said)


def _batches(lying: Mapping[tuple[Any, ...], Lying]) -> tuple[dict[tuple[Any, ...], Lying], list[str]]:
    """Arrays, with those that are the batches of one, in a list with a name, put one behind the other; and what to say.

    Of a list of three pairs (scores, labels) or more, which a loop over batches leaves, both are put together.
    """
    groups: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    for keys in lying:
        place = next((i for i, key in enumerate(keys) if type(key) is int), None)
        if place is not None and len(keys) - place <= 2:
            groups.setdefault((*keys[:place], _BATCHES, *keys[place + 1 :]), []).append(keys)
    made, said = dict(lying), []
    for name, members in groups.items():
        is_named, is_pair = name[0] is not _BATCHES, type(name[-1]) is int
        if len(members) < (3 if is_pair else 2) or not (is_named or is_pair):
            continue
        parts = tuple(lying[keys] for keys in members)
        if not _are_batches(parts):
            continue
        for keys in members:
            del made[keys]
        first = parts[0].entry
        shape = (sum(part.entry.shape[0] for part in parts), *first.shape[1:])
        kept = tuple(key for key in name if key is not _BATCHES)
        made[kept] = Lying(Entry(shape, first.dtype, first.bfloat16), b"", parts=parts)
        said.append(f"{_joined(kept)}: {len(parts)} batches, put one behind the other")
    return made, said


def _are_batches(parts: Sequence[Lying]) -> bool:
    """Whether arrays differ in the number of their rows alone."""
    first = parts[0].entry
    return bool(first.shape) and all(
        one.entry.shape[:1] and (one.entry.shape[1:], one.entry[1:]) == (first.shape[1:], first[1:]) for one in parts
    )


def _joined(keys: Sequence[Any]) -> str:
    return ".".join(key.decode("latin-1") if isinstance(key, bytes) else str(key) for key in keys)


def _pairs(lying: Mapping[tuple[Any, ...], Lying]) -> dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]]:
    """Tuples (scores, labels), by the split that they are; nothing where anything else is there."""
    groups: dict[tuple[Any, ...], list[tuple[Any, ...]]] = {}
    if () in lying:
        return {}
    for keys in lying:
        groups.setdefault(keys[:-1], []).append(keys)
    if not groups or any(not _is_pair(prefix, keys, lying) for prefix, keys in groups.items()):
        return {}
    if list(groups) == [()]:
        return {"": (groups[()][0], groups[()][1])}
    if any(len(prefix) != 1 or type(prefix[0]) is not int for prefix in groups):
        return {}
    names = _PAIRS if len(groups) == len(_PAIRS) else [f"part{prefix[0]}" for prefix in groups]
    return {name: (keys[0], keys[1]) for name, keys in zip(names, groups.values(), strict=True)}


def _is_pair(prefix: tuple[Any, ...], keys: Sequence[tuple[Any, ...]], lying: Mapping[tuple[Any, ...], Lying]) -> bool:
    if [key[-1] for key in keys] != [0, 1] or any(type(key[-1]) is not int for key in keys):
        return False
    scores, labels = (lying[key].entry for key in keys)
    floats = scores.bfloat16 or are_floats(Facts(scores.shape, scores.dtype))
    fit = labels.shape[:1] == scores.shape[:1] and len(scores.shape) >= 2
    return floats and labels.dtype.kind in "iu" and not labels.bfloat16 and fit


@dataclass(frozen=True, repr=False, kw_only=True)
class Pickle(Plain):
    """Scores in a pickle."""

    NAME = "pickle"
    TITLE = "a pickle"
    SUFFIXES = (".pkl", ".pickle", ".p")

    @classmethod
    def matches(cls, starts: Sequence[bytes], name: str) -> bool:
        """By the protocol that a pickle begins with; one of the first protocols by its suffix."""
        start = starts[0]
        return (start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5") or name.lower().endswith(cls.SUFFIXES)

    @classmethod
    def box(cls, path: str) -> boxes.Box:
        """See `Plain`."""
        return PickleBox(path)


@dataclass(frozen=True, repr=False, kw_only=True)
class Torch(Plain):
    """Scores among the tensors of a file that torch has saved."""

    NAME = "torch"
    TITLE = "a torch file"
    SUFFIXES = (".pt", ".pth")

    @classmethod
    def matches(cls, starts: Sequence[bytes], name: str) -> bool:
        """An archive whose first member is a pickle."""
        if not starts[0].startswith(b"PK\x03\x04"):
            return False
        size = int.from_bytes(starts[0][26:28], "little")
        return starts[0][30 : 30 + size].endswith(b"data.pkl") or name.lower().endswith(cls.SUFFIXES)

    @classmethod
    def box(cls, path: str) -> boxes.Box:
        """See `Plain`."""
        return TorchBox(path)
