"""Commands ask, one driver answers: the same from files, threads, shards and states."""

from __future__ import annotations

import contextlib
import json
import os

import h5py
import numpy as np
import pytest

import unoic_cli
from unoic_cli.data import steps
from unoic_cli.data.facts import exists, find_out, know, read_text
from unoic_cli.errors import InterruptedRunError, NoInputError
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


def test_a_packing_that_was_stopped_goes_on(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with h5py.File("x.h5", "w") as file:
        file["logits"], file["labels"] = RNG.normal(size=(400, 6)).astype("f4"), RNG.integers(0, 6, 400)
    unoic_cli.pack("x.h5", "whole.h5", dtype="float16")
    monkeypatch.setattr("unoic_cli.data.dataset.SPAN_BYTES", 480)
    monkeypatch.setattr("unoic_cli.commands.pack.BLOCK_BYTES", 480)
    control = unoic_cli.Control(checkpoint="c.unoic", every=0.001, resume=True)
    seen = []

    def stop(done, total):
        seen.append(done)
        if 0 < done < total and len(seen) > 2:
            raise KeyboardInterrupt

    for _ in range(200):
        seen.clear()
        with contextlib.suppress(InterruptedRunError):
            unoic_cli.run("pack", "x.h5", out="o.h5", dtype="float16", control=control, progress=stop, threads=1)
            break
    assert not os.path.exists("c.unoic")
    with h5py.File("whole.h5") as one, h5py.File("o.h5") as other:
        assert np.array_equal(one["logits"][()], other["logits"][()])
        assert np.array_equal(one["labels"][()], other["labels"][()])
