"""Damaged inputs of every kind against every command, for as long as you like.

    python tests/fuzz.py --seconds 600 [--seed 1] [--kinds hdf5,npy] [--keep FOLDER]

Each mutant is a good file with some bits, bytes or entries changed. Whatever it holds, a command must end within
`MOST_SECONDS` and `MOST_BYTES`, with an exit code of its list, at most one error line, nothing on stdout where it
failed, and no file but what it was asked for. A worker process runs the commands, so that even a crash is only counted;
mutants that find a fault are kept, with the command. The same seed makes the same mutants.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import pathlib
import pickle
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch_files
from said import BESIDE

CODES = {0, 2, 65, 66, 73, 74}
MOST_SECONDS = 6.0
MOST_BYTES = 1_500_000_000
MOST_ADDRESSES = 8 << 30
FAILURE = re.compile(r"Traceback|Warning:|File \"|^\s+at ", re.MULTILINE)
PROGRESS = re.compile(r"unoic: \d+%, ")
"""Every half a minute, where kernels had to be compiled first."""
N, K = 40, 3

Random = np.random.Generator
Mutate = Callable[[Random, bytes], bytes]


# ------------------------------------------------------------------------------------------------
# good files, and what is said with them


@dataclasses.dataclass(frozen=True)
class Kind:
    """One sort of input.

    Attributes
    ----------
    files : tuple of str
        Good ones.
    commands : tuple of str
        ``{x}`` is the mutant, ``{out}`` an output; other names are good files.
    mutate : tuple of callables
        Besides those for bytes, which every sort gets.
    """

    files: tuple[str, ...]
    commands: tuple[str, ...]
    mutate: tuple[Mutate, ...] = ()


SCORES = (
    "info {x}",
    "evaluate {x}",
    "search-lambda {x}",
    "calibrate {x} -l 1 -o {out}.h5",
    "calibrate {x} -c c.json -o {out}.parquet",
    "pack {x} {out}.h5 --codec gzip",
    "pack {x} {out}.h5",
    "convert {x} {out}.parquet",
    "convert {x} {out}.h5",
    "prior {x}",
    "fit-delta {x} --write-delta {out}.h5",
    "fit-temperature {x}",
    "fuse rgb={x} depth=x.h5 -o {out}.h5",
    "evaluate {x} --by group --format tsv",
    "evaluate x.h5 -l 1 --source-prior {x}",
    "evaluate {x} --split a",
)
PLAIN = (
    "info {x}",
    "evaluate {x}",
    "search-lambda {x}",
    "calibrate {x} -l 1 -o {out}.npz",
    "convert {x} {out}.h5",
    "evaluate logits.npy --labels {x}",
)
STATES = ("info {x}", "report {x}", "merge {x} -o {out}.unoic", "evaluate x.h5 --checkpoint {x} --resume")
PRIORS = ("info {x}", "evaluate x.h5 -l 1 --source-prior {x}", "search-lambda x.h5 --target-prior {x}")


def fields() -> dict[str, Any]:
    """Arrays of a small data set."""
    rng = np.random.default_rng(7)
    labels = np.arange(N) % K
    return {
        "logits": (rng.normal(size=(N, K)) + 2 * np.eye(K)[labels]).astype("f4"),
        "labels": labels,
        "split": [("a", "b")[i % 2] for i in range(N)],
        "group": [("sun", "rain", "fog")[i % 3] for i in range(N)],
        "sample_id": [f"id{i}" for i in range(N)],
        "source_counts": np.array([100.0, 10, 1]),
        "class_names": ["cat", "dog", "owl"],
        "delta": np.linspace(0.5, 1, N),
    }


def write_hdf5(name: str, arrays: dict[str, Any], **options: Any) -> str:
    """A file with these arrays; datasets of scores and labels get `options`."""
    with h5py.File(name, "w") as file:
        for key, values in arrays.items():
            if isinstance(values, list):
                file.create_dataset(key, data=values, dtype=h5py.string_dtype())
            else:
                file.create_dataset(key, data=values, **(options if key in ("logits", "probs", "labels") else {}))
        file.attrs["dataset"] = "a name of variable length"
    return name


def make_hdf5() -> tuple[str, ...]:
    """Contiguous, chunked in several ways, images, probabilities, predictions, text of fixed length."""
    known = fields()
    rng = np.random.default_rng(8)
    plain = {key: known[key] for key in ("logits", "labels", "source_counts")}
    images = {"logits": rng.normal(size=(4, K, 8, 8)).astype("f2"), "labels": rng.integers(0, K, (4, 8, 8))}
    images["delta"] = np.linspace(0.2, 1, 4)
    scores = known["logits"]
    probs = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    fixed = {key: np.array(value, "S4") if isinstance(value, list) else value for key, value in known.items()}
    large = {"logits": rng.normal(size=(4000, K)).astype("f4"), "labels": rng.integers(0, K, 4000)}
    names = [
        write_hdf5("x.h5", known),
        write_hdf5("plain.h5", plain),
        write_hdf5("chunks.h5", large, chunks=True, compression="gzip", shuffle=True, fletcher32=True),
        write_hdf5("lzf.h5", plain, chunks=True, compression="lzf"),
        write_hdf5("images.h5", images),
        write_hdf5("probs.h5", {"probs": probs, "labels": known["labels"]}),
        write_hdf5("fixed.h5", fixed),
    ]
    with h5py.File("predictions.h5", "w") as file:
        file["predictions"] = known["labels"].astype("u1")
        file["predictions"].attrs["n_classes"] = K
        file["labels"] = known["labels"]
    with h5py.File("latest.h5", "w", libver="latest") as file:
        for key in ("logits", "labels"):
            file[key] = known[key]
        for i in range(20):
            file.attrs[f"note{i}"] = "text " * 20
    return (*names, "predictions.h5", "latest.h5")


def table_of(known: dict[str, Any]) -> Any:
    """A table as many people write it."""
    columns = {key: known[key] for key in ("labels", "split", "group", "sample_id", "delta")}
    return pa.table({"logits": list(known["logits"]), **columns}).replace_schema_metadata(
        {"unoic.class_names": json.dumps(known["class_names"]), "unoic.source_counts": "[100, 10, 1]"}
    )


def make_parquet() -> tuple[str, ...]:
    """pyarrow's defaults, small row groups with checksums, a column for each class."""
    table = table_of(fields())
    pq.write_table(table, "x.parquet")
    pq.write_table(table, "groups.parquet", row_group_size=9, compression="zstd", write_page_checksum=True)
    wide = pa.table({**{f"logits_{k}": fields()["logits"][:, k] for k in range(K)}, "label": fields()["labels"]})
    pq.write_table(wide, "wide.parquet", compression="none", use_dictionary=False)
    return "x.parquet", "groups.parquet", "wide.parquet"


def make_arrow() -> tuple[str, ...]:
    """A stream of several record batches, and one with dictionaries."""
    table = table_of(fields())
    coded = table.set_column(2, "split", table["split"].dictionary_encode())
    for name, one in (("x.arrows", table), ("coded.arrows", coded)):
        with pa.OSFile(name, "wb") as sink, pa.ipc.new_stream(sink, one.schema) as writer:
            writer.write_table(one, max_chunksize=15)
    return "x.arrows", "coded.arrows"


def make_numpy() -> tuple[str, ...]:
    """Archives, deflated or not, and plain arrays."""
    known = {key: np.array(value) for key, value in fields().items()}
    np.savez("x.npz", **known)
    np.savez_compressed("small.npz", **known)
    np.save("logits.npy", known["logits"])
    np.save("fortran.npy", np.asfortranarray(known["logits"]))
    np.save("delta.npy", known["delta"])
    return "x.npz", "small.npz", "logits.npy", "fortran.npy"


def make_plain() -> dict[str, tuple[str, ...]]:
    """Pickles, torch files, safetensors and CSV."""
    known = {key: np.array(value) for key, value in fields().items()}
    z, y = known["logits"], known["labels"]
    tensors = {"logits": torch_files.Tensor(z), "labels": torch_files.Tensor(y)}
    pathlib.Path("d.pkl").write_bytes(pickle.dumps({"logits": z, "labels": y.tolist(), "note": "x" * 5000}, 4))
    pathlib.Path("pair.pkl").write_bytes(pickle.dumps(((z[:20], y[:20]), (z[20:], y[20:])), 2))
    pathlib.Path("five.pkl").write_bytes(pickle.dumps({"logits": np.asfortranarray(z), "labels": y}, 5))
    torch_files.save(tensors, "x.pt")
    torch_files.save({"logits": torch_files.Tensor(z.T, (N, K), (1, N)), "y": torch_files.Tensor(y)}, "turned.pt")
    torch_files.save_legacy(tensors, "old.pt")
    header = {"logits": {"dtype": "F32", "shape": [N, K], "data_offsets": [0, z.nbytes]}}
    header["labels"] = {"dtype": "I64", "shape": [N], "data_offsets": [z.nbytes, z.nbytes + y.nbytes]}
    text = json.dumps(header | {"__metadata__": {"class_names": '["cat", "dog", "owl"]'}}).encode()
    pathlib.Path("x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + z.tobytes() + y.tobytes())
    rows = [",".join(["id", *(f"logit_{name}" for name in fields()["class_names"]), "label"])]
    rows += [",".join([f"a{i}", *map(str, z[i]), fields()["class_names"][y[i]]]) for i in range(N)]
    pathlib.Path("x.csv").write_text("\n".join(rows) + "\n")
    np.save("y.npy", y)
    pathlib.Path("y.txt").write_text("\n".join(map(str, y)))
    return {
        "pickle": ("d.pkl", "pair.pkl", "five.pkl"),
        "torch": ("x.pt", "turned.pt", "old.pt"),
        "safetensors": ("x.safetensors",),
        "csv": ("x.csv",),
    }


def make_json(run: Callable[[str], int]) -> tuple[str, ...]:
    """Calibrations, statistics and priors, as the program writes them, and by hand."""
    for line in (
        "search-lambda x.h5 -o c.json",
        "fit-delta x.h5 -o d.json",
        "search-lambda rgb=x.h5 depth=plain.h5 --delta rgb=fit -o fused.json",
        "evaluate x.h5 --shard 1/2 --state 1.unoic",
        "search-lambda x.h5 --state s.unoic",
        *(f"export c.json --bias layer.{form}" for form in ("json", "safetensors", "npz")),
    ):
        assert run(line) == 0, line
    pathlib.Path("prior.json").write_text('{"counts": {"cat": 10, "dog": 3, "owl": 1}}')
    pathlib.Path("list.json").write_text("[0.5, 0.25, 0.25]")
    pathlib.Path("prior.csv").write_text("class,count\ncat,10\ndog,3\nowl,1\n")
    pathlib.Path("prior.tsv").write_text("0\t10\n1\t3\n2\t1\n")
    pathlib.Path("files.txt").write_text("# inputs\nx.h5\nfixed.h5\n")
    return "c.json", "fused.json"


def make_models() -> tuple[str, ...]:
    """ONNX models of one layer, with a softmax and without; none where the library is not installed."""
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ImportError:
        return ()
    x, y = (helper.make_tensor_value_info(name, 1, ["N", size]) for name, size in (("x", 4), ("y", K)))
    rng = np.random.default_rng(9)
    weights = {"w": rng.normal(size=(4, K)).astype("f4"), "b": np.zeros(K, "f4")}
    stored = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    layer = helper.make_node("Gemm", ["x", "w", "b"], ["z"])
    for name, last in (("soft.onnx", "Softmax"), ("plain.onnx", "Identity")):
        graph = helper.make_graph([layer, helper.make_node(last, ["z"], ["y"])], "g", [x], [y], stored)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), name)
    return "soft.onnx", "plain.onnx"


def make_kinds(run: Callable[[str], int]) -> dict[str, Kind]:
    """All good files, in the current folder."""
    hdf5, parquet, arrow, arrays = make_hdf5(), make_parquet(), make_arrow(), make_numpy()
    plain = make_plain()
    calibrations, models = make_json(run), make_models()
    convert = ("convert {x} {out}.h5", "info {x}")
    return {
        "hdf5": Kind(hdf5, (*SCORES, "evaluate x.h5 --delta {x}"), (heap_edit,)),
        "parquet": Kind(parquet, SCORES, (thrift_edit,)),
        "arrow": Kind(arrow, SCORES),
        "numpy": Kind(arrays, convert, (npy_edit, zip_edit)),
        "delta": Kind(
            ("delta.npy",), ("evaluate x.h5 --delta {x}", "calibrate x.h5 -l 1 --delta {x} -o {out}.h5"), (npy_edit,)
        ),
        "calibration": Kind(
            calibrations,
            (
                *("info {x}", "export {x} --bias {out}.npz", "evaluate x.h5 -c {x}"),
                *("evaluate rgb=x.h5 depth=plain.h5 -c {x}", "calibrate x.h5 -c {x} -o {out}.h5"),
            ),
            (json_edit,),
        ),
        "statistics": Kind(
            ("d.json",),
            ("info {x}", "evaluate x.h5 --delta {x}", "fit-delta x.h5 --statistics {x} --write-delta {out}.h5"),
            (json_edit,),
        ),
        "prior": Kind(("prior.json", "list.json"), PRIORS, (json_edit,)),
        "table": Kind(("prior.csv", "prior.tsv"), PRIORS, (text_edit,)),
        "state": Kind(("1.unoic", "s.unoic"), STATES, (state_edit, state_edit, state_edit)),
        "pickle": Kind(plain["pickle"], PLAIN),
        "torch": Kind(plain["torch"], PLAIN, (torch_edit, torch_edit)),
        "safetensors": Kind(plain["safetensors"], PLAIN, (safe_edit,)),
        "csv": Kind(plain["csv"], PLAIN, (text_edit,)),
        "labels": Kind(
            ("y.npy", "y.txt", "x.h5", "wide.parquet"),
            ("evaluate logits.npy --labels {x}", "prior logits.npy --labels {x}"),
        ),
        "list": Kind(("files.txt",), ("evaluate @{x}", "prior @{x}"), (text_edit,)),
        "layer": Kind(("layer.json", "layer.safetensors", "layer.npz"), ("info {x}",), (json_edit,)),
        **({"onnx": Kind(models, ("info {x}", "export c.json --onnx {x} -o {out}.onnx"))} if models else {}),
    }


# ------------------------------------------------------------------------------------------------
# mutations


INTEGERS = (0, 1, -1, 2, 127, 255, 2**15, 2**27, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1)
WORDS = (
    "",
    "-1",
    "0",
    "1e400",
    "NaN",
    "nan",
    "-inf",
    "1" * 5000,
    "[" * 3000,
    '"',
    "\\x1b[2J",
    "\0",
    "\u202e",
    "x.h5",
    "@files.txt",
    "*",
    "-",
    ",",
    "\t",
    "\n",
    "null",
    "true",
    "{}",
    "9007199254740993",
)


def flip(rng: Random, data: bytes) -> bytes:
    """One to eight bits."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
    return bytes(changed)


def flip_edge(rng: Random, data: bytes) -> bytes:
    """Bits near the beginning or the end, where headers and footers are."""
    changed, near = bytearray(data), min(len(data), 2048)
    for _ in range(rng.integers(1, 5)):
        at = rng.integers(near)
        changed[at if rng.integers(2) else -1 - at] ^= 1 << rng.integers(8)
    return bytes(changed)


def cut(rng: Random, data: bytes) -> bytes:
    """The first part."""
    return data[: rng.integers(len(data))]


def splice(rng: Random, data: bytes) -> bytes:
    """A part of the file written over, or into, another one."""
    size = int(rng.integers(1, min(len(data), 400) + 1))
    a, b = rng.integers(len(data), size=2)
    return data[:b] + data[a : a + size] + data[b + (size if rng.integers(2) else 0) :]


def remove(rng: Random, data: bytes) -> bytes:
    """Without a part."""
    at, size = rng.integers(len(data)), rng.integers(1, 64)
    return data[:at] + data[at + size :]


def set_integer(rng: Random, data: bytes) -> bytes:
    """An integer of two, four or eight bytes with another value."""
    width = int(rng.choice([2, 4, 8]))
    value = int(rng.choice(len(INTEGERS)))
    at = int(rng.integers(len(data)))
    at -= at % (width if rng.integers(2) else 1)
    return (data[:at] + (INTEGERS[value] % 256**width).to_bytes(width, "little") + data[at + width :])[: len(data)]


BYTES: tuple[Mutate, ...] = (flip, flip, flip_edge, flip_edge, cut, splice, remove, set_integer, set_integer)


def heap_edit(rng: Random, data: bytes) -> bytes:
    """A change in a global heap, where text of variable length lies."""
    places = [found.start() for found in re.finditer(b"GCOL", data)]
    if not places:
        return flip(rng, data)
    at = int(rng.choice(places)) + int(rng.integers(4, 400))
    return data[:at] + bytes([rng.choice([0, 1, 16, 255, int(rng.integers(256))])]) + data[at + 1 :]


def thrift_edit(rng: Random, data: bytes) -> bytes:
    """A change in the footer."""
    length = int.from_bytes(data[-8:-4], "little")
    at = len(data) - 8 - int(rng.integers(1, max(2, min(length, len(data) - 8))))
    return data[:at] + bytes([int(rng.integers(256))]) + data[at + 1 :]


def npy_edit(rng: Random, data: bytes) -> bytes:
    """Another header of an array."""
    shapes = (
        "()",
        "(40,)",
        "(True,)",
        "(-1, 3)",
        "(40, 3)",
        "(2**40,)",
        "(1099511627776,)",
        "(4611686018427387904, 4)",
        "((40,), 3)",
        "(" * 300,
        "(40L,)",
        "(4" + "0" * 4000 + ",)",
        "'x'",
        "(1.5,)",
        "(40, 3,",
    )
    kinds = (
        "'<f4'",
        "'<f8'",
        "'|O'",
        "'>f8'",
        "'<U2'",
        "'|S268435456'",
        "'f'",
        "[('a', '<f4')]",
        "'<V8'",
        "3",
        "None",
        "'<m8[s]'",
        "'\\x1b'",
        "'<c16'",
        "'|b1'",
        "{" * 200,
    )
    order = rng.choice(["True", "False", "0", "x"])
    text = f"{{'descr': {rng.choice(kinds)}, 'fortran_order': {order}, 'shape': {rng.choice(shapes)}, }}\n"
    version = bytes([int(rng.choice([1, 1, 1, 2, 3, 9])), 0])
    size = len(text).to_bytes(2 if version[0] == 1 else 4, "little")
    start = data.find(b"\x93NUMPY")
    return (
        flip(rng, data)
        if start < 0
        else data[:start] + b"\x93NUMPY" + version + size + text.encode() + data[start + 128 :]
    )


def zip_edit(rng: Random, data: bytes) -> bytes:
    """Another archive: members missing, doubled, renamed, with other headers."""
    if not data.startswith(b"PK"):
        return npy_edit(rng, data)
    sink = io.BytesIO()
    warnings.simplefilter("ignore", UserWarning)  # two members of one name are wanted
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            content = source.read(name)
            luck = rng.integers(12)
            if luck == 0:
                continue
            if luck == 1:
                content = npy_edit(rng, content)
            if luck == 2:
                content = flip(rng, content)
            if luck == 3:
                content += bytes(int(rng.integers(1, 1 << 16)))
            target.writestr(
                name
                if luck != 4
                else str(rng.choice(["\x1b.npy", "../x.npy", "logits.npy", "labels.npy", "a" * 300 + ".npy"])),
                content,
            )
    return sink.getvalue()


def torch_edit(rng: Random, data: bytes) -> bytes:
    """What torch saved, with another pickle or storage, and the checksums of these."""
    if not data.startswith(b"PK"):
        return flip(rng, data)
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(sink, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data.pkl") or rng.integers(6) == 0:
                content = flip(rng, content)
            if rng.integers(30):
                target.writestr(name, content)
    return sink.getvalue()


def safe_edit(rng: Random, data: bytes) -> bytes:
    """Another header, of the size that is told."""
    end = 8 + int.from_bytes(data[:8], "little")
    text = json_edit(rng, data[8:end])
    return len(text).to_bytes(8, "little") + text + data[end:]


def json_edit(rng: Random, data: bytes) -> bytes:
    """One entry, somewhere, with another value."""
    content = json.loads(data)
    places: list[tuple[Any, Any]] = []

    def look(value: Any) -> None:
        for key in value if isinstance(value, dict) else range(len(value)):
            places.append((value, key))
            if isinstance(value[key], (dict, list)):
                look(value[key])

    look(content)
    for _ in range(rng.integers(1, 3)):
        holder, key = places[rng.integers(len(places))]
        values = (
            None,
            True,
            -1,
            0,
            2**70,
            10**400,
            0.5,
            1e308,
            float("nan"),
            "",
            "\x1b[2J",
            "x" * 100_000,
            [],
            {},
            [[]],
            {"a": 1},
            [1, 2],
            [1, 2, 3],
            content,
        )
        if rng.integers(6) == 0 and isinstance(holder, dict):
            holder.pop(key, None)
        else:
            value = values[rng.integers(len(values))]
            holder[key] = json.loads(json.dumps(value)) if value is content else value
    return json.dumps(content).encode()


def text_edit(rng: Random, data: bytes) -> bytes:
    """A word more, less, or other."""
    words = re.split(r"(\W)", data.decode())
    at = int(rng.integers(len(words)))
    words[at] = str(WORDS[rng.integers(len(WORDS))])
    return "".join(words).encode(errors="surrogatepass")


def state_edit(rng: Random, data: bytes) -> bytes:
    """A state whose header says something else, under a checksum that is right."""
    start = data.index(b"\n") + 1
    size = int.from_bytes(data[start : start + 8], "little")
    header, arrays = data[start + 8 : start + 8 + size], data[start + 8 + size : -32]
    luck = rng.integers(8)
    if luck < 6:
        header = json_edit(rng, header)
    elif luck == 6 and arrays:
        arrays = flip(rng, arrays)
    else:
        arrays = arrays[: len(arrays) // 2]
    content = data[:start] + len(header).to_bytes(8, "little") + header + arrays
    return content + hashlib.blake2b(content, digest_size=32).digest()


# ------------------------------------------------------------------------------------------------
# running


def work(pipe: Connection) -> None:
    """Run command lines until told to stop; stdout and stderr go to files."""
    from unoic_cli import cli

    os.setpgid(0, 0)
    resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while (order := pipe.recv()) is not None:
        args, out, err = order
        with contextlib.suppress(OSError):
            pathlib.Path("/proc/self/clear_refs").write_text("5")
        for path, number in ((out, 1), (err, 2)):
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.dup2(file, number)
            os.close(file)
        try:
            code: Any = cli.run(args)
        except BaseException as error:
            code = repr(error)
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        pipe.send((code, peak()))


def peak() -> int:
    """Bytes that this process held at most since the last look."""
    with contextlib.suppress(OSError, AttributeError):
        found = re.search(r"VmHWM:\s*(\d+)", pathlib.Path("/proc/self/status").read_text())
        return 1024 * int(found[1]) if found else 0
    return 0


class Worker:
    """A process that runs commands, and another one when it dies."""

    def __init__(self, logs: pathlib.Path) -> None:
        self._out, self._err = str(logs / "out"), str(logs / "err")
        self._context = multiprocessing.get_context("spawn")
        self._start()

    def _start(self) -> None:
        self._pipe, theirs = self._context.Pipe()
        self._process = self._context.Process(target=work, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, args: list[str], seconds: float = MOST_SECONDS) -> tuple[Any, str, str, str | None]:
        """Exit code, stdout, stderr, and what is wrong with the run as such."""
        self._pipe.send((args, self._out, self._err))
        wrong, code = None, None
        try:
            if not self._ends(seconds):
                wrong = f"no end after {seconds:g} s"
            else:
                code, most = self._pipe.recv()
                if most > MOST_BYTES:
                    wrong = f"{most / 1e9:.1f} GB"
        except EOFError:
            self._process.join(5)
            wrong = f"the process died ({self._process.exitcode})"
        if wrong is not None:
            self.stop()
            self._start()
        texts = [pathlib.Path(name).read_bytes().decode(errors="replace") for name in (self._out, self._err)]
        return code, texts[0], texts[1], wrong

    def _ends(self, seconds: float) -> bool:
        """Whether an answer comes: in so many seconds of its own work, as the machine may be busy, or in ten times."""
        end, before = time.monotonic() + 10 * seconds, self._worked()
        while not self._pipe.poll(0.5):
            if time.monotonic() > end or self._worked() - before > seconds:
                return False
        return True

    def _worked(self) -> float:
        """Seconds for which the process had a processor."""
        try:
            fields = pathlib.Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def judge(code: Any, out: str, err: str, left: set[str]) -> str | None:
    """What a command did that none may do."""
    lines = [line for line in err.splitlines() if not PROGRESS.match(line)]
    errors = [line for line in lines if line.startswith("unoic: error: ")]
    strange = [line for line in lines if not line.startswith(("unoic: error: ", *BESIDE))]
    if code not in CODES:
        return f"exit code {code}"
    if strange or FAILURE.search(err):
        return f"on stderr: {(strange or lines)[0][:200]}"
    if any(len(line) > 4200 or not line.isprintable() for line in lines):
        return "a line that is too long or holds control characters"
    if code == 0 and errors:
        return "an error, and exit code 0"
    if code != 0 and (len(errors) != 1 or len(lines) != 1):
        return f"{len(errors)} error lines of {len(lines)} for exit code {code}"
    if code != 0 and out:
        return "something on stdout of a command that failed"
    if any(ord(c) < 32 and c not in "\n\t" for c in out):
        return "control characters on stdout"
    return f"left behind: {sorted(left)}" if code != 0 and left else None


def mutants(kinds: dict[str, Kind], seed: int) -> Iterator[tuple[str, str, bytes, str]]:
    """Kind, name of the good file, bytes and command of one mutant after the other, without end."""
    content = {name: pathlib.Path(name).read_bytes() for kind in kinds.values() for name in kind.files}
    number = 0
    while True:
        for name, kind in kinds.items():
            rng = np.random.default_rng([seed, number])
            number += 1
            file = kind.files[rng.integers(len(kind.files))]
            data = content[file]
            ways = (*BYTES, *kind.mutate * (len(BYTES) // max(1, len(kind.mutate)) // 2))
            for _ in range(rng.choice([1, 1, 1, 2])):
                with contextlib.suppress(Exception):  # the second change may meet a file that the first has damaged
                    data = ways[rng.integers(len(ways))](rng, data) or data
            yield name, file, data, kind.commands[rng.integers(len(kind.commands))]


def fuzz(
    seconds: float,
    seed: int,
    keep: pathlib.Path,
    *,
    most: int | None = None,
    only: tuple[str, ...] = (),
    limit: float = MOST_SECONDS,
) -> tuple[dict[str, int], list[str]]:
    """Mutants until the time is over: how often each exit code came, and faults in words.

    Parameters
    ----------
    seconds : float
    seed : int
    keep : path
        Where mutants that find a fault go.
    most : int, optional
        Mutants at most.
    only : tuple of str
        Kinds; all by default.
    limit : float
        Seconds of work for each; where there is time to compile, nothing is run before the clock does.
    """
    codes: dict[str, int] = collections.Counter()
    faults: list[str] = []
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        logs = pathlib.Path(folder, "logs")
        logs.mkdir()
        worker = Worker(logs)
        try:
            kinds = make_kinds(lambda line: int(worker.run(line.split(), 600)[0]))
            for kind in (
                kinds.values() if limit <= MOST_SECONDS else ()
            ):  # kernels are compiled, or loaded, before a clock runs
                for file, command in itertools.product(kind.files, kind.commands):
                    worker.run(command.format(x=file, out="warm").split(), 600)
                    for path in pathlib.Path(folder).glob("warm*"):
                        path.unlink()
            kinds = {name: kind for name, kind in kinds.items() if not only or name in only}
            good = set(os.listdir())
            end = time.monotonic() + seconds
            for number, (name, file, data, command) in enumerate(mutants(kinds, seed)):
                if time.monotonic() > end or number == most:
                    break
                mutant = f"mutant{pathlib.Path(file).suffix}"
                pathlib.Path(mutant).write_bytes(data)
                line = command.format(x=mutant, out="out")
                code, out, err, wrong = worker.run(line.split(), limit)
                left = set(os.listdir()) - good - {mutant}
                wrong = wrong or judge(code, out, err, left)
                codes[str(code)] += 1
                if wrong is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    kept = keep / f"{seed}-{number}-{mutant}"
                    shutil.copy(mutant, kept)
                    faults.append(f"{kept}: unoic {line} ({name}, from {file}): {wrong}")
                    print(faults[-1], file=sys.stderr, flush=True)
                for path in left:
                    (shutil.rmtree if os.path.isdir(path) else os.unlink)(path)
                for path in [mutant] if os.path.exists(mutant) else []:
                    os.unlink(path)
        finally:
            worker.stop()
            os.chdir(before)
    return dict(codes), faults


def main() -> int:
    """Parse options and run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--kinds", default="", help="such as hdf5,npy; default: all")
    parser.add_argument(
        "--keep", type=pathlib.Path, default=pathlib.Path("fuzz-faults"), help="folder for mutants that find faults"
    )
    given = parser.parse_args()
    only = tuple(filter(None, given.kinds.split(",")))
    codes, faults = fuzz(given.seconds, given.seed, given.keep.resolve(), only=only)
    listed = ", ".join(f"{code}: {count:,}" for code, count in sorted(codes.items()))
    print(f"seed {given.seed}: {sum(codes.values()):,} mutants, {len(faults)} faults; exit codes {listed}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
