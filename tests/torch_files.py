"""Files as torch saves them, made without torch: an archive since 1.6, and what came before."""

from __future__ import annotations

import contextlib
import io
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np

STORAGES = {
    "float32": "FloatStorage",
    "float64": "DoubleStorage",
    "float16": "HalfStorage",
    "uint16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Tensor:
    """An array as a tensor; `shape`, `strides` (in entries) and `first` may say anything of its storage."""

    def __init__(self, array, shape=None, strides=None, first=0, parameter=False):
        self.storage = np.ascontiguousarray(array).reshape(-1)
        self.shape = np.shape(array) if shape is None else tuple(shape)
        plain = [int(np.prod(self.shape[i + 1 :])) for i in range(len(self.shape))]
        self.strides = tuple(plain if strides is None else strides)
        self.first, self.parameter = first, parameter


def _rebuild_tensor_v2(*arguments):
    raise AssertionError


def _rebuild_parameter(*arguments):
    raise AssertionError


@contextlib.contextmanager
def pretended():
    """Modules of the names that a pickle of torch's refers to."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for function in (_rebuild_tensor_v2, _rebuild_parameter):
        function.__module__ = "torch._utils"
        setattr(utils, function.__name__, function)
    torch._utils = utils
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    known = {name: sys.modules.get(name) for name in ("torch", "torch._utils")}
    sys.modules |= {"torch": torch, "torch._utils": utils}
    try:
        yield torch
    finally:
        for name, module in known.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class _Storage:
    def __init__(self, array):
        self.array = array


class _Pickler(pickle.Pickler):
    def __init__(self, file, torch, legacy, protocol):
        super().__init__(file, protocol)
        self.torch, self.legacy, self.storages, self.kept = torch, legacy, {}, []

    def reducer_override(self, value):
        if not isinstance(value, Tensor):
            return NotImplemented
        storage = _Storage(value.storage)
        self.kept.append(storage)
        arguments = (storage, value.first, value.shape, value.strides, False, OrderedDict())
        if value.parameter:
            plain = Tensor(value.storage, value.shape, value.strides, value.first)
            self.kept.append(plain)
            return _rebuild_parameter, (plain, True, OrderedDict())
        return _rebuild_tensor_v2, arguments

    def persistent_id(self, value):
        if not isinstance(value, _Storage):
            return None
        key = next((key for key, array in self.storages.items() if array is value.array), str(len(self.storages)))
        self.storages[key] = value.array
        kind = getattr(self.torch, STORAGES[value.array.dtype.name])
        more = (None,) if self.legacy else ()
        return ("storage", kind, key, "cpu", len(value.array), *more)


def save(value, path, protocol=2):
    """As ``torch.save`` does."""
    with pretended() as torch:
        stream = io.BytesIO()
        pickler = _Pickler(stream, torch, False, protocol)
        pickler.dump(value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", stream.getvalue())
        archive.writestr("archive/byteorder", "little")
        for key, array in pickler.storages.items():
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")
    return path


def save_legacy(value, path):
    """As ``torch.save`` did before 1.6."""
    with pretended() as torch, open(path, "wb") as file:
        for head in (MAGIC, PROTOCOL, {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {}}):
            pickle.dump(head, file, 2)
        pickler = _Pickler(file, torch, True, 2)
        pickler.dump(value)
        pickle.dump(sorted(pickler.storages), file, 2)
        for key in sorted(pickler.storages):
            array = pickler.storages[key]
            file.write(struct.pack("<q", len(array)) + array.tobytes())
    return path
