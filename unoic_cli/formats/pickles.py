"""Pickles of arrays, tensors, dicts, lists and tuples, read by a machine of our own that imports and calls nothing.

A pickle is a program for a small stack machine. This one knows the instructions that containers and arrays need, and
of what a pickle would call only the names in a list, for each of which it does the equivalent itself. Long runs of
bytes are not read: where they lie is all that is kept, so a file of any size costs what its names cost.
"""

from __future__ import annotations

import ast
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from unoic_cli.errors import DataError

if TYPE_CHECKING:
    pass

_LONG = 4096
"""Bytes from which on a value is left where it lies."""
_LONGEST_LINE = 1 << 16
_EXPECTED = "expected arrays, tensors, dicts, lists and tuples, and nothing else"


class Blob(NamedTuple):
    """Bytes that were left where they lie.

    Attributes
    ----------
    offset, size : int
        In the file.
    text : bool
        UTF-8 of characters that stand for bytes, as Python 3 writes the arrays of Python 2.
    """

    offset: int
    size: int
    text: bool = False


class Name(NamedTuple):
    """What a pickle would import."""

    module: str
    name: str


class Storage(NamedTuple):
    """What a tensor is a view of.

    Attributes
    ----------
    key : str
        In the file.
    kind : str
        Name of its class in torch, which tells the type of its entries.
    size : int
        Entries.
    """

    key: str
    kind: str
    size: int


class Tensor(NamedTuple):
    """A view of a storage: first entry, shape and strides, in entries; `kind` where it is not the storage's own."""

    storage: Storage
    first: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    kind: str = ""


@dataclass
class Shell:
    """An array of numpy, from when it is announced until its state has come."""

    shape: tuple[int, ...] = ()
    dtype: Type = field(default_factory=lambda: Type(""))
    fortran: bool = False
    data: Any = b""


@dataclass
class Type:
    """A dtype of numpy; `order` and `plain` come with its state."""

    text: str
    order: str = "="
    plain: bool = True

    def as_dtype(self) -> np.dtype[Any] | None:
        """None where it is structured, or of objects."""
        if not self.plain or self.text.lstrip("<>=|")[:1] in ("O", "V", ""):
            return None
        try:
            dtype = np.dtype(self.text)
        except (TypeError, ValueError, SyntaxError):
            return None
        if self.order == ">":
            return dtype.newbyteorder(">")
        return dtype.newbyteorder("<") if self.order == "<" else dtype


class Opaque:
    """Something that is neither array nor container: it may lie in a pickle, and is not read."""


class Stream:
    """Bytes of a file, from `begin` on; long runs can be passed by.

    Parameters
    ----------
    where : str
        For messages.
    read : callable
        Gives `size` bytes at an offset, fewer at the end.
    begin, end : int
    """

    def __init__(self, where: str, read: Callable[[int, int], bytes], begin: int, end: int) -> None:
        self.where, self._read, self.at, self.end = where, read, begin, end
        self._held, self._from = b"", begin

    def take(self, size: int) -> bytes:
        """The next bytes."""
        if not 0 <= size <= self.end - self.at:
            raise self.corrupt("it ends too soon")
        begin = self.at - self._from
        if not 0 <= begin <= begin + size <= len(self._held):
            self._held, self._from, begin = self._read(self.at, max(size, min(1 << 16, self.end - self.at))), self.at, 0
        data = self._held[begin : begin + size]
        if len(data) < size:
            raise self.corrupt("it ends too soon")
        self.at += size
        return data

    def skip(self, size: int) -> int:
        """Pass by bytes; where they begin."""
        if not 0 <= size <= self.end - self.at:
            raise self.corrupt("it ends too soon")
        self.at += size
        return self.at - size

    def line(self) -> str:
        """Text up to the end of the line."""
        found = bytearray()
        while (letter := self.take(1)) != b"\n":
            found += letter
            if len(found) > _LONGEST_LINE:
                raise self.corrupt("a line that does not end")
        return found.decode("latin-1")

    def corrupt(self, why: str) -> DataError:
        """The error for a pickle that makes no sense."""
        return DataError(self.where, f"truncated or corrupt ({why} at byte {self.at:,})", "expected an intact pickle")


class _Mark:
    pass


_MARK = _Mark()
_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric")
_BUILTINS = ("builtins", "__builtin__")
KINDS: dict[str, tuple[str, bool]] = {
    **dict.fromkeys(("FloatStorage", "float32"), ("f4", False)),
    **dict.fromkeys(("DoubleStorage", "float64"), ("f8", False)),
    **dict.fromkeys(("HalfStorage", "float16"), ("f2", False)),
    **dict.fromkeys(("BFloat16Storage", "bfloat16"), ("u2", True)),
    **dict.fromkeys(("LongStorage", "int64"), ("i8", False)),
    **dict.fromkeys(("IntStorage", "int32"), ("i4", False)),
    **dict.fromkeys(("ShortStorage", "int16"), ("i2", False)),
    **dict.fromkeys(("CharStorage", "int8"), ("i1", False)),
    **dict.fromkeys(("ByteStorage", "uint8", "UntypedStorage"), ("u1", False)),
    **dict.fromkeys(("BoolStorage", "bool"), ("u1", False)),
}
"""Types of tensors: numpy's, and whether they are the bits of bfloat16."""


class Machine:
    """Runs one pickle.

    Parameters
    ----------
    stream : Stream
        Stands behind the pickle afterwards.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """What the pickle describes.

        Raises
        ------
        DataError
            It is damaged, or would do anything else than describe arrays.
        """
        try:
            while True:
                code = self.stream.take(1)[0]
                if code == 0x2E:
                    return self._stack.pop()
                step = _STEPS.get(code)
                if step is None:
                    found = f"a pickle with the instruction {bytes([code])!r} at byte {self.stream.at - 1:,}"
                    raise DataError(self.stream.where, found, _EXPECTED)
                step(self)
        except (IndexError, KeyError, ValueError, TypeError, struct.error, OverflowError, SyntaxError) as error:
            raise self.stream.corrupt(type(error).__name__) from None

    # ---------------------------------------------------------------------------------------------- values

    def push(self, value: Any) -> None:
        """Put on the stack."""
        self._stack.append(value)

    def number(self, form: str) -> int:
        """A number of so many bytes."""
        return int(struct.unpack(form, self.stream.take(struct.calcsize(form)))[0])

    def bytes_(self, size: int) -> None:
        """Bytes, or where they lie."""
        self.push(self.stream.take(size) if size < _LONG else Blob(self.stream.skip(size), size))

    def text(self, size: int, encoding: str = "utf-8") -> None:
        """Text, or where it lies."""
        if size < _LONG:
            self.push(self.stream.take(size).decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict"))
        else:
            self.push(Blob(self.stream.skip(size), size, encoding == "utf-8"))

    def items(self) -> list[Any]:
        """What is above the last mark."""
        for place in range(len(self._stack) - 1, -1, -1):
            if self._stack[place] is _MARK:
                found = self._stack[place + 1 :]
                del self._stack[place:]
                return found
        raise IndexError("no mark")

    def pop(self, count: int) -> list[Any]:
        """The topmost values, in order."""
        if count > len(self._stack):
            raise IndexError("too few values")
        found = self._stack[len(self._stack) - count :]
        del self._stack[len(self._stack) - count :]
        if any(value is _MARK for value in found):
            raise ValueError("a mark")
        return found

    def top(self, kind: type) -> Any:
        """The topmost value, of a kind."""
        value = self._stack[-1]
        if not isinstance(value, kind):
            raise TypeError("another value than expected")
        return value

    def set_items(self, pairs: list[Any]) -> None:
        """Put pairs into the dict on top."""
        into = self.top(dict)
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if not isinstance(key, (str, bytes, int, float, type(None))):
                raise TypeError("a key that is no name")
            into[key] = value

    def get(self, place: int) -> None:
        """What was kept."""
        self.push(self._memo[place])

    def put(self, place: int | None = None) -> None:
        """Keep what is on top."""
        if self._stack[-1] is _MARK:
            raise ValueError("a mark")
        self._memo[len(self._memo) if place is None else place] = self._stack[-1]

    # ---------------------------------------------------------------------------------------------- names and calls

    def name(self, module: Any, name: Any) -> None:
        """Something that would be imported."""
        if not (isinstance(module, str) and isinstance(name, str)):
            raise TypeError("a name that is no text")
        found = Name(module, name)
        if found not in _CALLS and not _is_known(found):
            raise DataError(self.stream.where, f"a pickle that would import {module}.{name}"[:200], _EXPECTED)
        self.push(found)

    def call(self) -> None:
        """What a function of the list gives for its arguments."""
        called, arguments = self.pop(2)
        if not isinstance(arguments, tuple):
            raise TypeError("arguments that are none")
        self.push(self._called(called, arguments))

    def _called(self, called: Any, arguments: tuple[Any, ...]) -> Any:
        if called == Name("torch._tensor", "_rebuild_from_type_v2"):
            called, _, arguments, _ = arguments
        if not isinstance(called, Name):
            raise TypeError("a call of no function")
        if called not in _CALLS:
            raise DataError(self.stream.where, f"a pickle that calls {called.module}.{called.name}", _EXPECTED)
        return _CALLS[called](*arguments)

    def build(self) -> None:
        """Give its state to what is on top."""
        state = self.pop(1)[0]
        value = self._stack[-1]
        if isinstance(value, Shell):
            _, shape, dtype, fortran, value.data = state
            value.shape, value.dtype, value.fortran = _extents(shape), dtype, bool(fortran)
            if not isinstance(dtype, Type):
                raise TypeError("an array without a type")
        elif isinstance(value, Type):
            value.order = _text(state[1])
            value.plain = state[2] is None and state[3] is None and state[4] is None
        elif not isinstance(value, (dict, Opaque)):  # a dict's own attributes say nothing here
            raise TypeError("a state of something that has none")

    def storage(self) -> None:
        """What a tensor's numbers lie in."""
        (told,) = self.pop(1)
        if not (isinstance(told, tuple) and len(told) >= 5 and told[0] in ("storage", b"storage")):
            raise TypeError("a reference to no storage")
        kind, key, size = told[1], told[2], told[4]
        if len(told) > 5 and told[5] is not None:
            raise DataError(self.stream.where, "a storage that is a view of another", "expected tensors saved anew")
        if not isinstance(kind, Name) or not isinstance(size, int):
            raise TypeError("a storage of no type")
        self.push(Storage(_text(key), kind.name, size))


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _extents(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, tuple) or not all(type(extent) is int and 0 <= extent < 1 << 62 for extent in shape):
        raise TypeError("a shape that is none")
    if len(shape) > 32:
        raise ValueError("too many axes")
    return shape


def _is_known(found: Name) -> bool:
    """Whether a name may be spoken of, though it is not called."""
    if found.module == "torch":
        return found.name in KINDS or found.name.endswith("Storage") or found.name in ("Tensor", "device", "strided")
    return found in (
        Name("numpy", "ndarray"),
        Name("torch._tensor", "_rebuild_from_type_v2"),
        Name("torch.storage", "UntypedStorage"),
        Name("torch.storage", "TypedStorage"),
        Name("torch.nn.parameter", "Parameter"),
    )


# ------------------------------------------------------------------------------------------------
# what is done in place of a call


def _numpy_type(text: Any, *more: Any) -> Type:
    return Type(_text(text))


def _numpy_array(kind: Any, shape: Any, code: Any) -> Shell:
    return Shell()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, *more: Any) -> Shell:
    if not isinstance(dtype, Type):
        raise TypeError("an array without a type")
    return Shell(_extents(shape), dtype, order == "F", data)


def _scalar(dtype: Any, data: Any = b"") -> Any:
    found = dtype.as_dtype() if isinstance(dtype, Type) else None
    raw = _raw(data)
    return Opaque() if found is None or len(raw) != found.itemsize else np.frombuffer(raw, found)[0].item()


def _encoded(text: Any = "", encoding: Any = "latin1") -> Any:
    return text if isinstance(text, (Blob, bytes, bytearray)) else str(text).encode("latin-1")


def _raw(data: Any) -> bytes:
    if isinstance(data, str):
        return data.encode("latin-1")
    if not isinstance(data, (bytes, bytearray)):
        raise TypeError("no bytes")
    return bytes(data)


def _tensor(storage: Any, first: Any, shape: Any, strides: Any, *more: Any) -> Tensor:
    if not isinstance(storage, Storage) or type(first) is not int or len(_extents(shape)) != len(_extents(strides)):
        raise TypeError("a tensor that is none")
    kind = more[2].name if len(more) > 2 and isinstance(more[2], Name) else ""
    return Tensor(storage, first, shape, strides, kind)


def _parameter(data: Any, *more: Any) -> Any:
    return data


def _ordered(pairs: Any = ()) -> dict[Any, Any]:
    return dict(pairs)


def _size(extents: Any = ()) -> tuple[Any, ...]:
    return tuple(extents)


def _opaque(*more: Any) -> Opaque:
    return Opaque()


_CALLS: dict[Name, Callable[..., Any]] = {
    Name("numpy", "dtype"): _numpy_type,
    **{Name(module, "_reconstruct"): _numpy_array for module in _ARRAY_MODULES},
    **{Name(module, "_frombuffer"): _from_buffer for module in _ARRAY_MODULES},
    **{Name(module, "scalar"): _scalar for module in _ARRAY_MODULES},
    Name("_codecs", "encode"): _encoded,
    **{Name(module, name): _encoded for module in _BUILTINS for name in ("bytes", "bytearray")},
    **{
        Name(module, name): _opaque
        for module in _BUILTINS
        for name in ("set", "frozenset", "complex", "slice", "range")
    },
    Name("collections", "OrderedDict"): _ordered,
    Name("torch._utils", "_rebuild_tensor"): _tensor,
    Name("torch._utils", "_rebuild_tensor_v2"): _tensor,
    Name("torch._utils", "_rebuild_tensor_v3"): _tensor,
    Name("torch._utils", "_rebuild_parameter"): _parameter,
    Name("torch._utils", "_rebuild_parameter_with_state"): _parameter,
    Name("torch", "Size"): _size,
    Name("torch", "device"): _opaque,
    Name("torch.serialization", "_get_layout"): _opaque,
}
"""What may be called, and what is done instead."""


# ------------------------------------------------------------------------------------------------
# instructions


def _persistent_text(machine: Machine) -> None:
    raise DataError(machine.stream.where, "a pickle that refers to another file", _EXPECTED)


def _integer(machine: Machine) -> None:
    line = machine.stream.line()
    machine.push({"00": False, "01": True}[line] if line in ("00", "01") else int(line))


def _long(machine: Machine, size: int) -> None:
    if size > 1024:
        raise machine.stream.corrupt("a number that is too long")
    machine.push(int.from_bytes(machine.stream.take(size), "little", signed=True))


def _quoted(machine: Machine) -> None:
    value = ast.literal_eval(machine.stream.line())
    machine.push(value if isinstance(value, str) else _text(value))


def _append(machine: Machine, values: list[Any]) -> None:
    machine.top(list).extend(values)


def _dict(machine: Machine) -> None:
    pairs = machine.items()
    machine.push({})
    machine.set_items(pairs)


def _frozen(machine: Machine) -> None:
    machine.items()
    machine.push(Opaque())


_STEPS: dict[int, Callable[[Machine], None]] = {
    ord(code): step
    for code, step in {
        "\x80": lambda m: m.stream.take(1),
        "\x95": lambda m: m.stream.take(8),
        "(": lambda m: m.push(_MARK),
        "0": lambda m: m.pop(1),
        "1": lambda m: m.items(),
        "2": lambda m: m.push(m.top(object)),
        "N": lambda m: m.push(None),
        "\x88": lambda m: m.push(True),
        "\x89": lambda m: m.push(False),
        "I": _integer,
        "L": lambda m: m.push(int(m.stream.line().rstrip("L"))),
        "J": lambda m: m.push(m.number("<i")),
        "K": lambda m: m.push(m.number("<B")),
        "M": lambda m: m.push(m.number("<H")),
        "\x8a": lambda m: _long(m, m.number("<B")),
        "\x8b": lambda m: _long(m, m.number("<i")),
        "F": lambda m: m.push(float(m.stream.line())),
        "G": lambda m: m.push(struct.unpack(">d", m.stream.take(8))[0]),
        "S": _quoted,
        "T": lambda m: m.text(m.number("<i"), "latin-1"),
        "U": lambda m: m.text(m.number("<B"), "latin-1"),
        "B": lambda m: m.bytes_(m.number("<I")),
        "C": lambda m: m.bytes_(m.number("<B")),
        "\x8e": lambda m: m.bytes_(m.number("<Q")),
        "\x96": lambda m: m.bytes_(m.number("<Q")),
        "V": lambda m: m.push(m.stream.line().encode("latin-1").decode("raw-unicode-escape")),
        "X": lambda m: m.text(m.number("<I")),
        "\x8c": lambda m: m.text(m.number("<B")),
        "\x8d": lambda m: m.text(m.number("<Q")),
        "]": lambda m: m.push([]),
        "l": lambda m: m.push(m.items()),
        "a": lambda m: _append(m, m.pop(1)),
        "e": lambda m: _append(m, m.items()),
        ")": lambda m: m.push(()),
        "t": lambda m: m.push(tuple(m.items())),
        "\x85": lambda m: m.push(tuple(m.pop(1))),
        "\x86": lambda m: m.push(tuple(m.pop(2))),
        "\x87": lambda m: m.push(tuple(m.pop(3))),
        "}": lambda m: m.push({}),
        "d": _dict,
        "s": lambda m: m.set_items(m.pop(2)),
        "u": lambda m: m.set_items(m.items()),
        "\x8f": lambda m: m.push(Opaque()),
        "\x90": lambda m: m.items(),
        "\x91": _frozen,
        "g": lambda m: m.get(int(m.stream.line())),
        "h": lambda m: m.get(m.number("<B")),
        "j": lambda m: m.get(m.number("<I")),
        "p": lambda m: m.put(int(m.stream.line())),
        "q": lambda m: m.put(m.number("<B")),
        "r": lambda m: m.put(m.number("<I")),
        "\x94": lambda m: m.put(),
        "c": lambda m: m.name(m.stream.line(), m.stream.line()),
        "\x93": lambda m: m.name(*m.pop(2)),
        "R": lambda m: m.call(),
        "\x81": lambda m: m.call(),
        "b": lambda m: m.build(),
        "P": _persistent_text,
        "Q": lambda m: m.storage(),
        "\x98": lambda m: None,
    }.items()
}
