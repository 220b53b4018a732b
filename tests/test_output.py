"""Outputs of one command: all in place, or none, whatever fails on the way; and what a run says that was killed."""

from __future__ import annotations

import errno
import os
import pathlib
import signal

import h5py
import numpy as np
import pytest

from unoic_cli import signals
from unoic_cli.api import stored as runs
from unoic_cli.errors import CannotCreateError, StorageError
from unoic_cli.storage import output

STORAGE = 74


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("a.h5", "b.h5"):
        with h5py.File(name, "w") as file:
            file["logits"] = rng.normal(size=(40, 3)).astype("f4")
            file["labels"] = rng.integers(0, 3, 40)
            file["source_counts"] = [3, 2, 1]


def contents():
    return {name: pathlib.Path(name).read_bytes() for name in os.listdir()}


PAIRS = {
    "search": ["search-lambda", "a.h5", "-o", "1.json", "--curve", "2.tsv"],
    "calibrate": ["calibrate", "a.h5", "-o", "1.h5"],
    "fit-delta": ["fit-delta", "a.h5", "-o", "1.json", "--write-delta", "2.h5"],
    "state": ["fit-temperature", "a.h5", "-o", "1.json", "--state", "2.unoic"],
    "prior": ["prior", "a.h5", "-o", "1.json", "--state", "2.unoic"],
}
OUTPUTS = ("1.json", "2.tsv", "1.h5", "1.calibration.json", "2.h5", "2.unoic")


@pytest.mark.parametrize("old", [True, False], ids=["old", "fresh"])
@pytest.mark.parametrize("pair", PAIRS)
def test_both_or_neither(run, monkeypatch, pair, old):
    """Each move into place fails in turn, for good; then none."""
    if old:
        for name in OUTPUTS:
            pathlib.Path(name).write_text(f"old {name}")
    before = contents()
    calls = [0]
    moves = {"link": os.link, "replace": os.replace}

    def failing(name):
        def move(source, target, **more):
            if not target.endswith(".tmp"):
                calls[0] += 1
                if calls[0] >= first and source.endswith(".tmp") and not source.endswith(".old.tmp"):
                    raise OSError(errno.EIO, "Input/output error")
            return moves[name](source, target, **more)

        return move

    for name in moves:
        monkeypatch.setattr(os, name, failing(name))
    for first in (1, 2):  # noqa: B007  # move looks at it
        calls[0] = 0
        code, out, err = run(*PAIRS[pair], *(["--force"] if old else []))
        assert (code, out) == (STORAGE, "")
        assert err.splitlines()[-1].endswith("moving into place failed (Input/output error); nothing was changed")
        assert contents() == before
    monkeypatch.undo()


def test_what_was_there_is_put_back_where_links_are_unknown(monkeypatch):
    def no_link(*_, **__):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_link)
    pathlib.Path("x").write_text("old")
    before = contents()

    def write():
        with output.together():
            output.write_text("x", "new")
            output.write_text("y", "new")
            pathlib.Path("y").write_text("of another process")

    with pytest.raises(CannotCreateError):
        write()
    assert contents() == {**before, "y": b"of another process"}
    os.unlink("y")
    with output.together():
        output.write_text("x", "new")
        output.write_text("y", "new")
    assert contents() == {**before, "x": b"new", "y": b"new"}


def test_what_cannot_be_removed_is_said(monkeypatch):
    notes = []
    unlink = os.unlink

    def stuck(path, **more):
        if str(path).endswith(".tmp"):
            raise OSError(errno.EIO, "Input/output error")
        unlink(path, **more)

    monkeypatch.setattr(os, "unlink", stuck)
    with output.together(notes.append):
        output.write_text("x", "new")
    assert pathlib.Path("x").read_text() == "new"
    assert [note.startswith("x is in place, but .x.") for note in notes] == [True]


@pytest.mark.parametrize("call", ["open", "pwrite", "fsync", "close", "unlink"])
def test_calls_that_fail_once(monkeypatch, call):
    """The old content or the new one, nothing else, and an error exactly where it is the old one."""
    real = getattr(os, call)
    for n in range(1, 9):
        pathlib.Path("x").write_text("old")
        left = [n]

        def failing(*args, left=left, **more):
            left[0] -= 1
            if left[0] == 0 and call == "close":
                real(*args, **more)
            if left[0] == 0:
                raise OSError(errno.EIO, "Input/output error")
            return real(*args, **more)

        before = set(os.listdir())
        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            try:
                output.write_text("x", "new")
                failed = False
            except (StorageError, CannotCreateError):
                failed = True
        assert pathlib.Path("x").read_text() == ("old" if failed else "new")
        assert set(os.listdir()) == before
        if left[0] > 0:
            return
    raise AssertionError("never done")


def test_a_signal_after_the_output_is_in_place(run, monkeypatch):
    """It comes too late: the run ends well, so that nothing is asked to start again."""
    forget = runs._forget

    def struck(*args):
        os.kill(os.getpid(), signal.SIGTERM)
        forget(*args)

    monkeypatch.setattr(runs, "_forget", struck)
    code, out, err = run("calibrate", "a.h5", "-l", "1", "-o", "o.h5", "--checkpoint", "c")
    assert (code, err) == (0, "")
    assert out
    assert not os.path.exists("c")


def test_a_signal_while_outputs_are_moved_waits(monkeypatch):
    move, struck = output._Ready.move, []

    def slow(self):
        move(self)
        os.kill(os.getpid(), signal.SIGTERM)
        struck.append(self.path)

    monkeypatch.setattr(output._Ready, "move", slow)
    before = signal.signal(signal.SIGTERM, signals.interrupt)
    try:
        with output.together():
            output.write_text("x", "1")
            output.write_text("y", "2")
        signal.sigtimedwait([], 0.05)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert struck == ["x", "y"]
    assert contents()["x"] == b"1"
    assert contents()["y"] == b"2"


class Killed(BaseException):
    """In place of SIGKILL: nothing is tidied up."""


KILLED = [
    ["calibrate", "a.h5", "b.h5", "-l", "1", "-o", "o.h5"],
    ["calibrate", "a.h5", "-o", "o.h5"],
    ["search-lambda", "a.h5", "-o", "o.json", "--curve", "o.tsv", "--state", "o.unoic"],
    ["fit-temperature", "a.h5", "-o", "o.json"],
    ["prior", "a.h5", "-o", "o.json"],
]


@pytest.mark.parametrize("command", KILLED, ids=lambda command: f"{command[0]}-{len(command)}")
def test_killed_twice_while_outputs_are_moved(run, monkeypatch, command):
    """A run that is killed after each step of moving, again and again, recognises its own outputs."""
    code, whole, _ = run(*command)
    assert code == 0
    written = {name: value for name, value in contents().items() if name.startswith("o.")}
    for name in written:
        os.unlink(name)
    kept = ["--checkpoint", "c", "--resume", "--every", "0.000001s"]

    def dead(steps):
        left = [steps]

        def stepping(real):
            def step(*args, **more):
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
                return real(*args, **more)

            return step

        return stepping

    for steps in range(12):
        with monkeypatch.context() as patch:
            stepping = dead(steps)
            place = output.Outputs.place

            def killed_in(self, patch=patch, stepping=stepping, place=place):
                for name in ("link", "replace", "unlink"):
                    patch.setattr(os, name, stepping(getattr(os, name)))
                patch.setattr(output.Outputs, "drop", lambda self: None)
                patch.setattr(output._Ready, "put_back", lambda self: True)
                place(self)

            if steps < 11:
                patch.setattr(output.Outputs, "place", killed_in)
            try:
                code, out, err = run(*command, *kept)
            except Killed:
                continue
        assert (code, out) == (0, whole), err
        break
    assert {name: value for name, value in contents().items() if name in written} == written
    assert not [name for name in os.listdir() if name == "c" or name.endswith(".unoic.tmp")]
