"""Inputs that change while a command reads them: one line, and no output, whichever file and however it changes."""

from __future__ import annotations

import json
import os
import pathlib

import h5py
import numpy as np
import pytest

from unoic_cli.commands import convert, pack
from unoic_cli.formats import hdf5_reader
from unoic_cli.runs import sweep

DATA = 65
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.h5", "b.h5"):
        with h5py.File(name, "w") as file:
            file["logits"] = RNG.normal(size=(60, 3)).astype("f4")
            file["labels"] = RNG.integers(0, 3, 60)
            file["source_counts"] = [3, 2, 1]
    np.save("d.npy", RNG.uniform(0.5, 1, 60))
    with h5py.File("d.h5", "w") as file:
        file["delta"] = RNG.uniform(0.5, 1, 60)
    np.savez("x.npz", logits=RNG.normal(size=(60, 3)).astype("f4"), labels=RNG.integers(0, 3, 60))
    pathlib.Path("p.json").write_text("[3, 2, 1]")
    pathlib.Path("c.json").write_text(json.dumps({"lambda": 1, "slopes": [0, 1, 2]}))
    pathlib.Path("list").write_text("a.h5\n")


def append(path):
    with open(path, "ab") as file:
        file.write(b"x")


def overwrite(path):
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        file.write(b"y")


def shorten(path):
    os.truncate(path, os.path.getsize(path) // 2)


def replace(path):
    pathlib.Path("new").write_bytes(pathlib.Path(path).read_bytes())
    os.replace("new", path)


CHANGES = [append, overwrite, shorten, replace, os.unlink]

COMMANDS = {
    "search": ["search-lambda", "a.h5", "--source-prior", "p.json", "-o", "o.json"],
    "evaluate": ["evaluate", "a.h5", "-l", "1", "--source-prior", "p.json"],
    "calibrate": ["calibrate", "a.h5", "-l", "1", "--delta", "d.npy", "-o", "o.h5"],
    "calibrate-h5": ["calibrate", "a.h5", "-l", "1", "--delta", "d.h5", "-o", "o.parquet"],
    "list": ["prior", "@list", "-o", "o.json"],
    "temperature": ["fit-temperature", "a.h5", "-o", "o.json"],
    "delta": ["fit-delta", "a.h5", "-o", "o.json", "--write-delta", "o.h5"],
    "pack": ["pack", "a.h5", "o.h5", "--dtype", "float16"],
    "pack-chunks": ["pack", "a.h5", "o.h5", "--codec", "gzip"],
    "convert": ["convert", "a.h5", "o.h5"],
    "convert-npz": ["convert", "x.npz", "o.h5"],
    "state": ["evaluate", "a.h5", "b.h5", "--state", "o.unoic"],
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
@pytest.mark.parametrize("name", COMMANDS)
def test_an_input_that_changes_is_refused(refuse, monkeypatch, name, change):
    """Each file of the command changes, one at a time, when the last block has been read."""
    command = COMMANDS[name]
    names = set(os.listdir())
    inputs = [word for word in command if word in names] + (["list", "a.h5"] if name == "list" else [])
    for path in inputs:
        kept = pathlib.Path(path).read_bytes()

        changed = []

        def meddle(path=path, changed=changed):
            if os.path.exists(path) and not changed:
                changed.append(path)
                change(path)

        with monkeypatch.context() as patch:
            check = sweep.formats.check_unchanged

            def late(sources, meddle=meddle, check=check):
                meddle()
                check(sources)

            patch.setattr(sweep.formats, "check_unchanged", late)
            line = refuse(DATA, *command)
        assert changed
        assert "while it was in use; expected it to stay as it was" in line
        assert os.path.basename(line.split(":")[0]) == path
        assert {*os.listdir(), path} == names
        pathlib.Path(path).write_bytes(kept)


@pytest.mark.parametrize("change", [shorten, overwrite, replace], ids=lambda change: change.__name__)
@pytest.mark.parametrize("delta", ["d.npy", "d.h5"])
def test_factors_that_change_while_they_are_read(refuse, monkeypatch, delta, change):
    """A file that is cut short under a map of it would end the process."""
    read = hdf5_reader.Hdf5Reader.blocks

    def blocks(self, *args):
        change(delta)
        yield from read(self, *args)

    monkeypatch.setattr(hdf5_reader.Hdf5Reader, "blocks", blocks)
    line = refuse(DATA, "evaluate", "a.h5", "-l", "1", "--delta", delta)
    assert line.startswith(delta)
    assert "changed while it was in use" in line


def test_factors_are_read_at_their_places(answer):
    """Any order in memory, any form of file: the same figures."""
    with h5py.File("d.h5") as file:
        factors = file["delta"][:]
    np.save("c.npy", factors)
    np.save("scalar.npy", np.float64(0.5))
    assert answer("evaluate", "a.h5", "-l", "1", "--delta", "c.npy") == answer(
        "evaluate", "a.h5", "-l", "1", "--delta", "d.h5"
    )
    answer("evaluate", "a.h5", "-l", "1", "--delta", "scalar.npy")
    with h5py.File("i.h5", "w") as file:
        file["logits"] = RNG.normal(size=(5, 3, 4, 2)).astype("f4")
        file["labels"] = RNG.integers(0, 3, (5, 4, 2))
    images = RNG.uniform(0.5, 1, (5, 4, 2))
    found = []
    for name, array in (("c.npy", images), ("f.npy", np.asfortranarray(images)), ("b.npy", images.astype(">f8"))):
        np.save(name, array)
        found.append(answer("evaluate", "i.h5", "-l", "1", "--source-prior", "3,2,1", "--delta", name))
    assert found[0] == found[1] == found[2]


def test_an_input_that_is_gone_leaves_no_output(refuse, monkeypatch):
    """What is said of the input after it was read comes from what was known of it before."""
    for module, command in ((pack, ["pack", "a.h5", "o.h5"]), (convert, ["convert", "b.h5", "o.h5"])):
        monkeypatch.setattr(module.formats, "check_unchanged", lambda sources: [os.unlink(s.name) for s in sources])
        assert "was removed while it was in use" in refuse(DATA, *command)
        assert not os.path.exists("o.h5")
