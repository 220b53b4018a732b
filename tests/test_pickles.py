"""Pickles, torch and safetensors files: read where they lie, whatever wrote them; nothing that they name is run."""

from __future__ import annotations

import io
import json
import os
import pathlib
import pickle
import pickletools
import struct
import sys
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch_files
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import unoic_cli
from unoic_cli import cli, formats
from unoic_cli.errors import UnoicError
from unoic_cli.formats import boxes, pickled, pickles
from unoic_cli.formats.safetensors import SafetensorsBox

RNG = np.random.default_rng(3)
Z, Y = RNG.normal(size=(50, 3)).astype("f4"), RNG.integers(0, 3, 50)
DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1", ">f4", ">i8")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(capfd):
    """The one line in which a command refuses an input."""

    def runner(*args, code=65):
        assert cli.run([str(arg) for arg in args]) == code, capfd.readouterr()
        out, err = capfd.readouterr()
        lines = [line for line in err.splitlines() if ": note: " not in line]
        assert not out and len(lines) == 1 and lines[0].startswith("unoic: error: "), err
        return lines[0]

    return runner


def same(got, wanted):
    assert got.dtype == wanted.dtype and got.shape == wanted.shape
    np.testing.assert_array_equal(got, wanted)


def all_of(box, member):
    """An array as it is read: in one piece, in rows, and at its place."""
    whole = box.read(member)
    pieces = [np.asarray(piece) for piece in box.rows(member, 16)]
    if whole.ndim:
        np.testing.assert_array_equal(np.concatenate([whole[:0], *pieces]), whole)
    place = box.place(member)
    if place.offset is not None and whole.size:
        same(np.fromfile(box.path, whole.dtype, whole.size, offset=place.offset).reshape(whole.shape), whole)
    return whole


arrays = hnp.arrays(st.sampled_from(DTYPES), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from("abc"), arrays, min_size=1), st.integers(2, 5), st.booleans())
def test_a_pickle_is_what_pickle_reads(found, protocol, fortran):
    found = {name: np.asfortranarray(array) if fortran else array for name, array in found.items()}
    pathlib.Path("x.pkl").write_bytes(pickle.dumps(found, protocol))
    box = pickled.PickleBox("x.pkl")
    assert list(box.entries) == list(found)
    for name, array in found.items():
        same(all_of(box, name), array)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("size", [5, 5000])
def test_every_protocol_and_size(protocol, size):
    z, y = RNG.normal(size=(size, 3)), RNG.integers(0, 3, size)
    value = OrderedDict([("logits", z), ("labels", y.tolist()), ("n", np.int64(3)), ("said", "text"), ("none", None)])
    pathlib.Path("x.pkl").write_bytes(pickle.dumps(value, protocol))
    if protocol == 0 and size > 5:
        with pytest.raises(UnoicError):
            pickled.PickleBox("x.pkl")  # a line of text that is longer than any
        return
    box = pickled.PickleBox("x.pkl")
    assert list(box.entries) == ["logits", "labels"] and box.texts == {"said": "text"}
    same(all_of(box, "logits"), z)
    same(all_of(box, "labels"), y)


def test_arrays_of_python_2():
    """Raw bytes as a string, short and long; as Python 3 writes them for it, as characters."""
    for array in (Z[:4], np.tile(Z, (40, 1))):
        text = array.tobytes()
        head = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85U\x01b\x87Rq\x02"
        shape = b"(K\x01J" + struct.pack("<i", len(array)) + b"K\x03\x86cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
        state = b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        body = (b"U" + bytes([len(text)]) if len(text) < 256 else b"T" + struct.pack("<i", len(text))) + text
        pathlib.Path("x.pkl").write_bytes(head + shape + state + body + b"tb.")
        same(all_of(pickled.PickleBox("x.pkl"), "x"), array)


def test_long_arrays_are_not_read():
    big = np.zeros((1 << 20, 4), "f4")
    with open("x.pkl", "wb") as file:
        pickle.dump({"logits": big, "labels": np.zeros(len(big), "i8")}, file, 4)
    read = []

    def watched(file, count, at, pread=os.pread):
        read.append(count)
        return pread(file, count, at)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "pread", watched)
        pickled.PickleBox("x.pkl")
    assert sum(read) < 1 << 20


# ------------------------------------------------------------------------------------------------
# what is never run


class _Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def _touched(*arguments):
    pathlib.Path("touched").touch()
    return {}


HARM = {
    "os.system": lambda: pickle.dumps({"logits": _Runs(os.system, "touch touched")}),
    "eval": lambda: pickle.dumps(_Runs(eval, "open('touched', 'w')")),
    "a class": lambda: pickle.dumps(pathlib.PurePosixPath("a")),
    "a method of numpy": lambda: pickle.dumps(_Runs(np.load, "x.pkl")),
    "by hand": lambda: b"cos\nsystem\n(S'touch touched'\ntR.",
    "an instance": lambda: b"(S'touch touched'\nios\nsystem\n.",
    "an object": lambda: b"(cos\nsystem\nS'touch touched'\no.",
    "an extension": lambda: b"\x80\x02\x82\x01.",
    "a persistent name": lambda: b"Pfile\n.",
    "getattr": lambda: pickle.dumps(_Runs(getattr, np.ndarray, "tofile")),
    "through torch": lambda: b"\x80\x02ctorch\nload\nq\x00U\x01x\x85R.",
    "from_type of anything": lambda: b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nNU\x01x\x85NtR.",
    "a call of a type": lambda: b"\x80\x02cnumpy\nndarray\nK\x05\x85R.",
}


@pytest.mark.parametrize("case", HARM)
@pytest.mark.parametrize("suffix", [".pkl", ".pt"])
def test_nothing_that_a_pickle_names_is_run(case, suffix, refused):
    data = HARM[case]()
    if suffix == ".pkl":
        pathlib.Path("x.pkl").write_bytes(data)
    else:
        with zipfile.ZipFile("x.pt", "w") as archive:
            archive.writestr("archive/data.pkl", data)
    modules = set(sys.modules)
    line = refused("evaluate", f"x{suffix}")
    assert f"x{suffix}: " in line and "a pickle" in line
    assert not os.path.exists("touched") and "torch" not in set(sys.modules) - modules


DAMAGE = {
    "truncated": lambda data: data[:-40],
    "no end": lambda data: data[:-1],
    "empty stack": lambda data: b"\x80\x02.",
    "no mark": lambda data: b"\x80\x02t.",
    "no memo": lambda data: b"\x80\x02h\x05.",
    "a huge memo": lambda data: b"\x80\x02Nr\xff\xff\xff\x7f0j\xff\xff\xff\x7f.",
    "a huge text": lambda data: b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
    "a huge negative text": lambda data: b"\x80\x02T\xff\xff\xff\xffx.",
    "a huge number": lambda data: b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + b"x.",
    "a key that is a list": lambda data: b"\x80\x02}]K\x01s.",
    "a circle": lambda data: b"\x80\x02]q\x00h\x00a.",
    "deep": lambda data: b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b".",
    "laughs": lambda data: b"\x80\x02]" + b"q\x00]h\x00ah\x00ah\x00ah\x00a" * 200 + b".",
    "another shape": lambda data: data.replace(b"K2K\x03\x86", b"KcK\x03\x86"),
    "a shape of text": lambda data: data.replace(b"K2K\x03\x86", b"U\x01aK\x03\x86"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_pickles_end_in_one_line(case, refused):
    data = pickle.dumps({"logits": Z, "labels": Y}, 3)
    pathlib.Path("x.pkl").write_bytes(DAMAGE[case](data))
    assert "x.pkl" in refused("evaluate", "x.pkl")


def test_any_bytes_end_in_one_line():
    """Every instruction, with whatever follows it: an error of ours, or arrays."""
    codes = [ord(one.code) for one in pickletools.opcodes]
    for _ in range(3000):
        parts = [bytes([RNG.choice(codes)]) + RNG.bytes(int(RNG.integers(0, 6))) for _ in range(RNG.integers(1, 12))]
        pathlib.Path("x.pkl").write_bytes(b"\x80\x02" + b"".join(parts) + b".")
        try:
            box = pickled.PickleBox("x.pkl")
        except UnoicError:
            continue
        assert all(isinstance(entry, boxes.Entry) for entry in box.entries.values())


@pytest.mark.parametrize("name", ["x.pkl", "x.pt", "x.safetensors", "old.pt"])
def test_a_flipped_bit_is_an_error_or_an_array(name):
    """Of formats with checksums never another array; of those without, none of another shape."""
    value = {"logits": Z, "labels": Y}
    tensors = {key: torch_files.Tensor(array) for key, array in value.items()}
    if name == "x.pkl":
        pathlib.Path(name).write_bytes(pickle.dumps(value, 4))
    elif name == "x.pt":
        torch_files.save(tensors, name)
    elif name == "old.pt":
        torch_files.save_legacy(tensors, name)
    else:
        pathlib.Path(name).write_bytes(safe(value))
    good = pathlib.Path(name).read_bytes()
    for at in RNG.integers(0, len(good), 300).tolist():
        damaged = bytearray(good)
        damaged[at] ^= 1 << int(RNG.integers(8))
        pathlib.Path(name).write_bytes(damaged)
        boxes._unpacked.cache_clear()
        try:
            source = formats.describe(name)
            found = [block.scores.copy() for block in source.open().blocks(0, source.n_units, frozenset({"scores"}))]
        except UnoicError:
            continue
        assert sum(len(one) for one in found) == source.n_units
        if name == "x.pt" and source.arrays["scores"].member == "logits" and source.encoding == "float32":
            np.testing.assert_array_equal(np.concatenate(found), Z)


# ------------------------------------------------------------------------------------------------
# torch


@pytest.mark.parametrize("how", [torch_files.save, torch_files.save_legacy])
@pytest.mark.parametrize("dtype", torch_files.STORAGES)
def test_tensors_of_every_type(how, dtype):
    array = RNG.integers(0, 2, (7, 3)).astype(dtype)
    how({"x": torch_files.Tensor(array), "y": torch_files.Tensor(array[1:], first=0)}, "x.pt")
    box = formats.FORMATS[formats.detect("x.pt")].box("x.pt")
    assert box.entries["x"].bfloat16 == (dtype == "uint16")
    same(all_of(box, "x"), array.view("u1") if dtype == "bool" else array)
    assert box.place("x").how == "contiguous"


def test_views_of_one_storage():
    base = np.arange(60, dtype="f4").reshape(10, 6)
    views = {
        "turned": torch_files.Tensor(base, (6, 10), (1, 6)),
        "columns": torch_files.Tensor(base, (10, 3), (6, 2), 1),
        "one": torch_files.Tensor(base, (), (), 7),
        "rows": torch_files.Tensor(base, (4, 6), (6, 1), 12),
        "none": torch_files.Tensor(base, (0, 6), (6, 1)),
    }
    storage = views["turned"].storage
    for view in views.values():
        view.storage = storage
    torch_files.save(views, "x.pt")
    box = pickled.TorchBox("x.pt")
    wanted = {
        "turned": base.T,
        "columns": base[:, 1::2],
        "one": np.array(base[1, 1]),
        "rows": base[2:6],
        "none": base[:0],
    }
    for name, array in wanted.items():
        same(all_of(box, name), array.copy())
    assert box.place("rows").offset is not None and box.place("turned").offset is None


@pytest.mark.parametrize(
    ("shape", "strides", "first", "says"),
    [
        ((50, 3), (3, 1), 1, "in a storage of 150 entries"),
        ((51, 3), (3, 1), 0, "in a storage of 150 entries"),
        ((50, 3), (3, 10**9), 0, "in a storage of 150 entries"),
        ((50, 3), (-3, 1), 147, "a shape that is none|truncated or corrupt"),
        ((10**9, 3), (0, 1), 0, "that repeats 150 entries"),
        ((2**40, 2**40), (0, 0), 0, "that repeats 150 entries"),
        ((50, 3), (3, 1), -1, "in a storage of 150 entries"),
    ],
)
def test_a_tensor_stays_in_its_storage(shape, strides, first, says, refused):
    torch_files.save({"logits": torch_files.Tensor(Z, shape, strides, first), "labels": torch_files.Tensor(Y)}, "x.pt")
    line = refused("evaluate", "x.pt")
    assert any(one in line for one in says.split("|")), line


def test_archives_that_are_not_what_torch_writes(refused):
    torch_files.save({"logits": torch_files.Tensor(Z), "labels": torch_files.Tensor(Y)}, "good.pt")
    with zipfile.ZipFile("good.pt") as good:
        members = {name: good.read(name) for name in good.namelist()}
    with zipfile.ZipFile("packed.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    assert "packed.pt" in refused("evaluate", "packed.pt") and "compressed" in refused("evaluate", "packed.pt")
    with zipfile.ZipFile("less.pt", "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data[:-4] if name.endswith("/0") else data)
    assert "in a storage of 149 entries" in refused("evaluate", "less.pt")
    with zipfile.ZipFile("none.pt", "w") as archive:
        for name, data in members.items():
            if not name.endswith("/0"):
                archive.writestr(name, data)
    assert "no storage 0" in refused("evaluate", "none.pt")
    with zipfile.ZipFile("script.pt", "w") as archive:
        for name, data in {**members, "archive/constants.pkl": b""}.items():
            archive.writestr(name, data)
    assert "a TorchScript program" in refused("evaluate", "script.pt")
    with zipfile.ZipFile("other.pt", "w") as archive:
        archive.writestr("a.txt", "text")
    assert "no data.pkl" in refused("evaluate", "other.pt")
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a/data.pkl", "w") as file:
        for _ in range(300):
            file.write(bytes(1 << 20))
    pathlib.Path("bomb.pt").write_bytes(bomb.getvalue())
    assert "a data.pkl of 314,572,800 bytes" in refused("evaluate", "bomb.pt")


def test_real_torch_reads_and_writes_the_same():
    torch = pytest.importorskip("torch")
    z = torch.from_numpy(Z)
    torch.save({"logits": z.T.contiguous().T, "labels": torch.from_numpy(Y), "half": z.bfloat16()}, "x.pt")
    box = pickled.TorchBox("x.pt")
    same(all_of(box, "logits"), Z)
    same(all_of(box, "labels"), Y)
    same(all_of(box, "half"), z.bfloat16().view(torch.int16).numpy().view("u2"))
    torch.save({"logits": z}, "old.pt", _use_new_zipfile_serialization=False)
    same(all_of(pickled.PickleBox("old.pt"), "logits"), Z)
    torch_files.save({"logits": torch_files.Tensor(Z)}, "ours.pt")
    same(torch.load("ours.pt", weights_only=True)["logits"].numpy(), Z)


# ------------------------------------------------------------------------------------------------
# safetensors


def safe(value, **changes):
    header, data = {}, b""
    for key, array in value.items():
        raw = array.tobytes()
        kind = {"f": "F", "i": "I", "u": "U", "b": "BOOL"}[array.dtype.kind] + (
            "" if array.dtype.kind == "b" else str(8 * array.itemsize)
        )
        header[key] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        header[key] |= changes if key == "logits" else {}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from("abc"), hnp.arrays(
    st.sampled_from([one for one in DTYPES if one[0] != ">"]), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)
), min_size=1))  # fmt: skip
def test_safetensors_are_what_the_library_writes(found):
    save_file = pytest.importorskip("safetensors.numpy").save_file
    save_file(found, "x.safetensors", {"class_names": '["a", "b"]'})
    box = SafetensorsBox("x.safetensors")
    assert set(box.entries) == set(found) and box.class_names("x", 2) == ("a", "b")
    for name, array in found.items():
        same(all_of(box, name), array)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (struct.pack("<Q", 1 << 30) + b'{"', "a header of 1,073,741,824 bytes"),
        (struct.pack("<Q", 1 << 63) + b'{"', "a header of 9,223,372,036,854,775,808 bytes"),
        (struct.pack("<Q", 2) + b"[]", "a header that names no arrays"),
        (struct.pack("<Q", 9) + b'{"a": nope', "a header that is no JSON"),
        (safe({"logits": Z, "labels": Y}, shape=[51, 3]), "expected 612 bytes inside the file"),
        (safe({"logits": Z, "labels": Y}, data_offsets=[4, 604]), None),
        (safe({"logits": Z, "labels": Y}, data_offsets=[10**6, 10**6 + 600]), "inside the file"),
        (safe({"logits": Z, "labels": Y}, data_offsets=[-8, 592]), "a shape or offsets that are none"),
        (safe({"logits": Z, "labels": Y}, dtype="F99"), "no scores among labels"),
        (safe({"logits": Z, "labels": Y})[:-8], "inside the file"),
        (struct.pack("<Q", 60_000) + b"[" * 60_000, "a header that is no JSON"),
    ],
)
def test_safetensors_that_are_not(data, says, refused):
    pathlib.Path("x.safetensors").write_bytes(data)
    if says is None:
        assert cli.run(["evaluate", "x.safetensors"]) == 0  # arrays may overlap
    else:
        assert says in refused("evaluate", "x.safetensors")


def test_a_stream_that_ends_says_so():
    stream = pickles.Stream("x", lambda at, size: b"ab"[at : at + size], 0, 5)
    assert stream.take(2) == b"ab"
    with pytest.raises(UnoicError, match="it ends too soon at byte 2"):
        stream.take(2)


@pytest.mark.parametrize("nested", [False, True])
def test_names_of_classes_in_a_list(nested):
    content = {"logits": np.eye(3, dtype="f4"), "labels": np.arange(3), "class_names": ["mel", "nv", "b c"]}
    for protocol in (0, 2, 5):
        pathlib.Path("x.pkl").write_bytes(pickle.dumps({"val": content} if nested else content, protocol))
        assert unoic_cli.evaluate("x.pkl").to_dict()["per_class"][2]["name"] == "b c"
    content["class_names"] = ["mel", "nv"]
    pathlib.Path("x.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(unoic_cli.errors.DataError, match="class_names"):
        unoic_cli.evaluate("x.pkl")
