"""The same examples in every run (``UNOIC_FUZZ=1`` looks for new ones), and commands run in this process."""

from __future__ import annotations

import contextlib
import json
import os
import resource

import pytest
from hypothesis import settings

from unoic_cli import cli, compiling

settings.register_profile("repeatable", derandomize=True)
if not os.environ.get("UNOIC_FUZZ"):
    settings.load_profile("repeatable")

compiling.told()  # a cold cache changes nothing of what the tests look at; those of the note run processes of their own


def no_constant(name):
    raise AssertionError(f"{name} in JSON")


@pytest.fixture
def file_limit():
    """The context in which no file grows past ``size`` bytes: nor does the log of the tests, so it ends in the test."""

    @contextlib.contextmanager
    def limited(size):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited


@pytest.fixture
def run(capfd):
    """Run in process; return exit code, stdout and stderr."""

    def runner(*args):
        code = cli.run([str(arg) for arg in args])
        out, err = capfd.readouterr()
        return code, out, err

    return runner


@pytest.fixture
def answer(run):
    """Run a command that must succeed; return its JSON, parsed strictly."""

    def runner(*args):
        code, out, err = run(*args)
        assert code == 0, err
        assert all(line.startswith("unoic: note: ") for line in err.splitlines()), err
        return json.loads(out, parse_constant=no_constant)

    return runner


@pytest.fixture
def refuse(run):
    """Run a command that must fail with one line; return it."""

    def runner(code, *args):
        got, out, err = run(*args)
        lines = err.splitlines()
        assert (got, out, len(lines)) == (code, "", 1), err
        assert lines[0].startswith("unoic: error: ")
        assert ";" in lines[0]
        return lines[0].removeprefix("unoic: error: ")

    return runner
