"""Scores in the shapes in which people keep them: each is read as what it is, by every command alike."""

from __future__ import annotations

import json
import pathlib

import dumps
import numpy as np
import pytest

from unoic_cli import cli


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capfd):
    def runner(*args, code=0):
        assert cli.run([str(arg) for arg in args]) == code, capfd.readouterr().err
        out, err = capfd.readouterr()
        return (json.loads(out) if out.startswith("{") else out) if code == 0 else err

    return runner


@pytest.mark.parametrize("dump", dumps.DUMPS, ids=lambda dump: dump.name)
def test_a_dump_is_read_as_what_it_is(dump, run):
    dump.make()
    files = run("info", dump.name, *dump.args)["files"]
    assert sum(one["n_samples"] for one in files) == dump.n
    assert {one["n_classes"] for one in files} == {dump.k}
    assert {one["kind"] for one in files} == {dump.kind}
    if dump.counts:
        assert [one["source_counts"] for one in files] == [dump.counts] * len(files)
    if dump.classes:
        assert [one["class_names"] for one in files] == [dump.classes] * len(files)
    splits = {}
    for one in files:
        for name, n in (one["splits"] or {}).items():
            splits[name] = splits.get(name, 0) + n
    assert splits == dump.splits
    found = run("evaluate", dump.name, *dump.args)
    np.testing.assert_allclose(found["acc"], dump.acc, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dump", [one for one in dumps.DUMPS if one.splits], ids=lambda dump: dump.name)
def test_parts_are_splits(dump, run):
    dump.make()
    n = {name: run("evaluate", dump.name, *dump.args, "--split", name)["n"] for name in dump.splits}
    assert n == dump.splits
    error = run("evaluate", dump.name, *dump.args, "--split", "elsewhere", code=65)
    assert "no sample of split 'elsewhere'; expected one of" in error and error.count("\n") == 1


def test_the_page_is_made_from_the_dumps():
    text = (pathlib.Path(__file__).parent.parent / "docs" / "dumps.md").read_text()
    assert dumps.page() in text, "python tests/dumps.py"
    assert len(dumps.DUMPS) >= 60
