"""Commands ask, one driver answers: the same from files, threads, shards and states."""

from __future__ import annotations

import json
import os
import time

import h5py
import numpy as np
import pytest

import unoic_cli
from unoic_cli.data import steps
from unoic_cli.data.facts import exists, find_out, know, read_text
from unoic_cli.data.reader import BatchReader
from unoic_cli.errors import DataError, InterruptedRunError, NoInputError
from unoic_cli.runs import driver
from unoic_cli.runs.ledger import Ledger
from unoic_cli.tallies import contents

RNG = np.random.default_rng(3)


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scores = RNG.normal(size=(60, 5, 3, 4)).astype("f4")
    scores[7, 2, 1, 1], scores[31, 0] = np.nan, np.inf
    with h5py.File("images.h5", "w") as file:
        file["logits"], file["labels"] = scores, RNG.integers(-1, 7, (60, 3, 4))
        file["split"] = [f"s{i % 3}" for i in range(60)]
        file["group"] = [f"g{i % 7}" for i in range(60)]
    with h5py.File("rows.h5", "w") as file:
        file["probs"] = RNG.dirichlet(np.ones(4), 50).astype("f4")
        file["labels"], file["delta"] = RNG.integers(0, 4, 50), RNG.random(50)
        file["sample_id"] = np.arange(50) // 2
    return "images.h5", "rows.h5"


def asking():
    """Asks for two things, and knows what to do where the first is not there."""
    try:
        text = yield from read_text("nothing.txt", "expected a text")
    except NoInputError:
        text = "none"
    there = yield from exists("/")
    return text, there


def test_errors_are_raised_where_a_command_asked():
    assert driver.drive(asking()) == find_out(asking()) == ("none", True)


def test_a_ledger_answers_what_it_knows():
    ledger = Ledger()
    assert driver.Run(ledger).drive(know("n x", lambda: 3)) == 3
    ledger.replay = True
    assert driver.Run(ledger).drive(know("n x", lambda: 1 / 0)) == 3


def test_what_is_no_step_is_refused():
    def odd():
        yield 3

    with pytest.raises(TypeError, match="int is no step"):
        driver.drive(odd())


def test_a_run_says_what_it_is():
    ledger = Ledger(shard=(2, 3), facts={"unfinished o.h5": "o.tmp"})
    here = driver.Run(ledger).drive(steps.here())
    assert (here.shard, here.begun, here.stored) == ((2, 3), {"o.h5": "o.tmp"}, True)
    assert driver.drive(steps.here()) == steps.Situation(wrote=driver.drive(steps.here()).wrote)


def without_rates(result):
    shown = result.to_dict()
    for file in shown["files"]:
        file["read"] = None
    return json.dumps(shown)


@pytest.mark.parametrize("split", [None, "s1"])
def test_info_is_the_same_in_threads_and_shards(files, monkeypatch, split):
    names = files if split is None else files[:1]
    more = {} if split is None else {"split": split}
    whole = without_rates(unoic_cli.info(names, threads=1, **more))
    monkeypatch.setattr("unoic_cli.data.dataset.SPAN_BYTES", 240)
    for threads in (1, 2, 5):
        assert without_rates(unoic_cli.info(names, threads=threads, **more)) == whole
    for n in (2, 3):
        states = [f"{n}.{i}.unoic" for i in range(1, n + 1)]
        for i, state in enumerate(states, 1):
            control = unoic_cli.Control(shard=f"{i}/{n}", state=state)
            assert unoic_cli.run("info", list(names), control=control, **more).shard == (i, n)
        command, result = unoic_cli.report_states(states[::-1])
        assert (command, without_rates(result)) == ("info", whole)


@pytest.mark.parametrize("n_names", [1, 3, 9])
def test_names_beyond_the_limit_do_not_depend_on_who_came_first(monkeypatch, n_names):
    monkeypatch.setattr(contents, "MOST_NAMES", 2)
    every = [str(i % n_names) for i in RNG.permutation(90)]
    whole = contents.Names()
    whole.update(every)
    for cut in (1, 30, 89):
        parts = contents.Names(), contents.Names()
        for name in every[:cut]:
            parts[0].update([name])
        parts[1].update(every[cut:])
        parts[0].absorb(parts[1].counters())
        assert (parts[0].sorted(), parts[0].n_more) == (whole.sorted(), whole.n_more)
    assert whole.n_more == 90 - sum(every.count(name) for name in sorted(set(every))[:2])


@pytest.mark.parametrize("how", [{}, {"dtype": "float16"}, {"codec": "gzip", "chunk": 4096}, {"layout": "rows"}])
def test_pack_in_shards_is_pack_in_parts(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    scores, labels = RNG.normal(size=(23, 5, 3, 4)).astype("f4"), RNG.integers(0, 5, (23, 3, 4))
    with h5py.File("x.h5", "w") as file:
        file["logits"], file["labels"] = scores, labels
    unoic_cli.pack("x.h5", "whole.h5", **how)
    parts = [
        unoic_cli.run("pack", "x.h5", out="p.h5", control=unoic_cli.Control(shard=f"{i}/3"), **how) for i in (1, 2, 3)
    ]
    names = [part.output for part in parts]
    assert names == [f"p.000{i}-of-0003.h5" for i in (1, 2, 3)]
    with h5py.File("whole.h5") as file:
        wanted = file["logits"][()], file["labels"][()]
    found = []
    for name in names:
        with h5py.File(name) as file:
            found.append((file["logits"][()], file["labels"][()]))
    for one, joined in zip(wanted, zip(*found, strict=True), strict=True):
        assert np.array_equal(one, np.concatenate(joined))
    changed = [one.n_changed for one in unoic_cli.pack("x.h5", "again.h5", threads=2, **how).changed]
    assert changed == [sum(n) for n in zip(*([c.n_changed for c in part.changed] for part in parts), strict=True)]


@pytest.fixture
def stopped(tmp_path, monkeypatch):
    """A command that is stopped three times while it writes; how it goes on."""
    monkeypatch.chdir(tmp_path)
    make("x.h5", 0)
    batches = BatchReader.batches

    def slow(self, *given):
        time.sleep(0.02)
        batches(self, *given)

    def stop(done, total):
        if 0 < done < total:
            raise KeyboardInterrupt

    def begin(command, **how):
        how |= {"threads": 1, "control": unoic_cli.Control(checkpoint="c.unoic", every=0.001, resume=True)}
        with monkeypatch.context() as patch:
            patch.setattr("unoic_cli.data.dataset.SPAN_BYTES", 480)
            if "out" in how:
                patch.setattr(f"unoic_cli.commands.{command}.BLOCK_BYTES", 480)
            patch.setattr(BatchReader, "batches", slow)
            for _ in range(3):
                with pytest.raises(InterruptedRunError):
                    unoic_cli.run(command, "x.h5", progress=stop, **how)
        assert os.path.exists("c.unoic") and not os.path.exists("o.h5")
        return lambda: unoic_cli.run(command, "x.h5", **how)

    return begin


def make(path, start):
    with h5py.File(path, "w") as file:
        file["logits"] = np.arange(start, start + 2400, dtype="f4").reshape(400, 6)
        file["labels"] = np.arange(400) % 6


@pytest.mark.parametrize(("command", "how"), [("pack", {"dtype": "float16"}), ("convert", {})])
def test_copying_that_was_stopped_goes_on(stopped, command, how):
    getattr(unoic_cli, command)("x.h5", "whole.h5", **how)
    stopped(command, out="o.h5", **how)()
    assert not os.path.exists("c.unoic")
    with h5py.File("whole.h5") as one, h5py.File("o.h5") as other:
        assert np.array_equal(one["logits"][()], other["logits"][()])
        assert np.array_equal(one["labels"][()], other["labels"][()])


@pytest.mark.parametrize("image", [(), (3, 4)])
@pytest.mark.parametrize(
    ("command", "how"),
    [
        ("evaluate", {"confusion": True}),
        ("search-lambda", {"folds": 2, "range": "0:1"}),
        ("fit-temperature", {}),
        ("info", {}),
        ("calibrate", {"lam": 0.5, "output": "o.h5"}),
    ],
)
def test_a_run_goes_on_in_other_pieces_than_it_began_with(stopped, command, how, image):
    """Spans depend on --memory, --threads and the machine: what is counted is neither lost nor counted twice."""
    with h5py.File("x.h5", "w") as file:
        rng = np.random.default_rng(1)
        file["logits"] = np.moveaxis(rng.normal(size=(400, *image, 6)), -1, 1).astype("f4")
        file["labels"], file["source_counts"] = rng.integers(0, 6, (400, *image)), np.arange(1, 7)
    whole = unoic_cli.run(command, "x.h5", **how | ({"output": "w.h5"} if "output" in how else {})).to_dict()
    found = stopped(command, **how)().to_dict()
    for one in (whole, found):
        one.pop("output", None)
        for file in one.get("files", []) if command == "info" else []:
            file["read"] = None
    assert found == whole
    if "output" in how:
        with h5py.File("w.h5") as one, h5py.File("o.h5") as other:
            assert all(np.array_equal(one[name][()], other[name][()]) for name in one)


@pytest.mark.parametrize(("command", "how"), [("pack", {"dtype": "float16"}), ("convert", {})])
def test_copying_does_not_go_on_with_another_input(stopped, command, how):
    again = stopped(command, out="o.h5", **how)
    make("x.h5", 1)
    with pytest.raises(DataError, match=r"x\.h5: changed since the state was stored"):
        again()
    assert not os.path.exists("o.h5")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("calibrate x.h5 -l 1 -o o.arrows --checkpoint c", "a checkpoint of an Arrow stream"),
        ("calibrate x.h5 -l 1 -o - --checkpoint c", "a checkpoint of a stream"),
        ("pack x.h5 o.h5 --codec gzip --checkpoint c", "a checkpoint of chunks"),
        ("convert x.h5 o.parquet --checkpoint c", "a checkpoint of a Parquet output"),
        ("convert x.h5 - --shard 1/2", "a part of a stream"),
        ("calibrate x.h5 -l 1 -o - --shard 1/2", "a part of a stream"),
        ("calibrate x.h5 -l 1 -o o.png", "unknown suffix '.png'"),
    ],
)
def test_outputs_that_cannot_be_cut_or_kept_are_said(tmp_path, monkeypatch, run, command, said):
    monkeypatch.chdir(tmp_path)
    make("x.h5", 0)
    code, out, err = run(*command.split())
    assert (code, out) == (2, "") and said in err.splitlines()[-1]
    assert os.listdir() == ["x.h5"]
