"""State files that others wrote, and files of a run that lie where they must not: one line, and nothing is lost."""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import random

import h5py
import numpy as np
import pytest
from said import BESIDE_BYTES

from unoic_cli import cli
from unoic_cli.runs import state
from unoic_cli.storage import output

USAGE, DATA, CANNOT_CREATE, STORAGE = 2, 65, 73, 74
COUNTS = [50, 20, 8, 2]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("a.h5", "b.h5"):
        y = rng.choice(4, size=60, p=np.array(COUNTS) / sum(COUNTS))
        with h5py.File(name, "w") as file:
            file["logits"] = (rng.normal(size=(60, 4)) + 2 * np.eye(4)[y]).astype("f2")
            file["labels"], file["source_counts"] = y, COUNTS
            file["split"] = np.array([b"val", b"test"])[np.arange(60) % 2]
    return tmp_path


@pytest.fixture
def unoic(capfdbinary):
    def runner(*args, code=0):
        got = cli.run([str(arg) for arg in args])
        out, err = capfdbinary.readouterr()
        assert got == code, err
        if code:
            assert (out, err.count(b"\n")) == (b"", 1), err
            return err.decode().removeprefix("unoic: error: ")
        return out

    return runner


@pytest.mark.parametrize("option", ["--state", "--checkpoint"])
@pytest.mark.parametrize("command", ["evaluate", "search-lambda"])
def test_inputs_are_not_replaced(unoic, command, option):
    before = pathlib.Path("a.h5").read_bytes()
    for args in (["a.h5"], ["./a.h5"], ["b.h5", "--source-prior", "a.h5"], ["x=a.h5", "y=a.h5::/"]):
        message = unoic(command, *args, option, "a.h5", "--force", code=CANNOT_CREATE)
        assert message.startswith("a.h5: the file is an input")
    unoic(command, "a.h5", "--state", "s")
    assert unoic("merge", "s", "-o", "a.h5", "--force", code=CANNOT_CREATE).startswith("a.h5: the file is an input")
    assert pathlib.Path("a.h5").read_bytes() == before


@pytest.mark.parametrize(
    "args",
    [
        ["evaluate", "a.h5", "--state", "s", "--checkpoint", "./s"],
        ["search-lambda", "a.h5", "-o", "s", "--state", "s"],
        ["search-lambda", "a.h5", "--curve", "s", "--checkpoint", "s"],
        ["calibrate", "a.h5", "-l", "1", "-o", "o.h5", "--checkpoint", "o.h5"],
        ["calibrate", "a.h5", "-l", "1", "-o", "o.h5", "--shard", "1/2", "--checkpoint", "o.0001-of-0002.h5"],
        ["evaluate", "a.h5", "--state", ""],
        ["evaluate", "a.h5", "--state", "-"],
        ["evaluate", "a.h5", "--checkpoint", ""],
    ],
    ids=" ".join,
)
def test_files_of_a_run_have_names_of_their_own(unoic, args):
    assert unoic(*args, code=USAGE).startswith("--")
    assert not {path.name for path in pathlib.Path().iterdir()} & {"s", "o.h5"}


def forge(content, change):
    """The state with another header, and a digest that is right."""
    at = len(state.MAGIC) + 8
    end = at + int.from_bytes(content[at - 8 : at], "little")
    header = change(json.loads(content[at:end]))
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = state.MAGIC + len(text).to_bytes(8, "little") + text + content[end:-32]
    return body + hashlib.blake2b(body, digest_size=32).digest()


def places(value, path=()):
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from places(item, (*path, key))


JUNK = [None, -1, 0, 1, 2**70, 1.5, "", "x", [], [1], {}, {"array": 1, "shape": [1]}, {"table": {}}, True, [[0, 5]]]


def spoil(header, rng):
    path = rng.choice(list(places(header))[1:])
    holder = header
    for key in path[:-1]:
        holder = holder[key]
    if rng.random() < 0.3:
        del holder[path[-1]]
    elif isinstance(holder, dict) and rng.random() < 0.2:
        holder[rng.choice(["n_classes", "needs", "x", "output"])] = holder.pop(path[-1])
    else:
        holder[path[-1]] = rng.choice(JUNK)
    return header


COMMANDS = [
    ("search-lambda", "a.h5", "--range", "0:1", "--folds", "2"),
    ("evaluate", "a.h5", "--confusion"),
    ("fit-delta", "a.h5"),
    ("prior", "a.h5"),
    ("evaluate", "x=a.h5", "y=b.h5", "-l", "1"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_forged_states(unoic, capfdbinary, command):
    """Whatever they say, there is a result or one line, never an internal error."""
    if "x=a.h5" in command:
        with h5py.File("a.h5") as file, h5py.File("b.h5", "r+") as other:
            other["labels"][...] = file["labels"][...]
    unoic(*command, "--state", "s", "-q")
    unoic(*command, "--shard", "1/2", "--state", "s1", "-q")
    whole, half = (pathlib.Path(name).read_bytes() for name in ("s", "s1"))
    rng = random.Random(0)
    for _ in range(70):
        pathlib.Path("t").write_bytes(forge(whole, lambda header: spoil(header, rng)))
        pathlib.Path("u").write_bytes(forge(half, lambda header: spoil(header, rng)))
        for args in (
            ["report", "t", "--format", rng.choice(["json", "table", "tsv"])],
            ["merge", "s1", "u", "--partial"],
            [*command, "--checkpoint", "u", "--resume", "--shard", "1/2", "--state", "v", "--force"],
        ):
            kept = pathlib.Path("u").read_bytes()
            code = cli.run(args)
            out, err = capfdbinary.readouterr()
            lines = [line for line in err.splitlines() if not line.startswith(BESIDE_BYTES)]
            assert code in (0, 2, DATA, 66), (args, err)
            assert len(lines) == (code != 0) and (code == 0 or out == b""), err
            pathlib.Path("u").write_bytes(kept)


def test_states_are_data(unoic):
    """A state does not say where to write, and holds no more than it speaks of."""
    unoic("search-lambda", "a.h5", "--range", "0:1", "--state", "s")
    content = pathlib.Path("s").read_bytes()

    def told(**more):
        def change(header):
            header["arguments"] |= more
            return header

        return change

    for more in ({"output": "here.json"}, {"curve_output": "here.json"}, {"force": True}, {"tell": "x"}):
        pathlib.Path("t").write_bytes(forge(content, told(**more)))
        assert unoic("report", "t", code=DATA).startswith("t: a state whose contents make no sense")
    assert not pathlib.Path("here.json").exists()
    for text in (b"", b"[", b"[]", b"1", b"null", b"\xff", b"[" * 100_000, b'{"unoic": 1e999}'):
        pathlib.Path("t").write_bytes(forge(content, lambda _, text=text: text))
        assert unoic("report", "t", code=DATA).startswith("t: ")


def test_errors_stand_alone(unoic):
    """No note beside an error."""
    for i in (1, 2):
        unoic("evaluate", "a.h5", "--shard", f"{i}/2", "--state", f"s{i}")
    for command in (["report"], ["merge"]):
        message = unoic(*command, "s1", "--partial", "--format", "html", code=USAGE)
        assert message.startswith("--format: 'html'")
    assert unoic("evaluate", "a.h5", "--state", "s3", "--format", "html", code=USAGE).startswith("--format: 'html'")
    assert not pathlib.Path("s3").exists()
    assert unoic("report", "s?") == unoic("report", "s2", "s1")
    assert unoic("evaluate", "a.h5", "--checkpoint", ".", code=CANNOT_CREATE).startswith(".: a folder")


def test_links_are_the_same_data(unoic):
    os.link("a.h5", "hard.h5")
    os.symlink("a.h5", "soft.h5")
    for name in ("hard.h5", "soft.h5"):
        assert f"{name}: the same data as a.h5" in unoic("evaluate", "a.h5", name, code=USAGE)


def test_a_signal_after_the_move_takes_the_file_back(monkeypatch):
    def interrupted(*args, **more):
        move(*args, **more)
        raise KeyboardInterrupt

    move = output._Ready.move
    monkeypatch.setattr(output._Ready, "move", interrupted)
    with pytest.raises(KeyboardInterrupt):
        output.write_bytes("x", b"content")
    assert not [name for name in os.listdir() if name == "x" or name.endswith(".tmp")]  # nothing has been said of it
