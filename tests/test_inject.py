"""Some of the faults that ``python tests/inject.py`` injects: see there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

HARNESS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inject.py")


@pytest.mark.parametrize("calls", ["open,read,fallocate,truncate", "write,fsync,close", "rename,link,unlink"])
def test_injected_faults(calls):
    """Whatever call fails, there is the old output or the new one, nothing else, and a line that says so."""
    if shutil.which("cc") is None and shutil.which("gcc") is None:
        pytest.skip("no C compiler")
    only = {"r": "search", "o": "delta", "w": "pack"}[calls[0]]
    words = [sys.executable, HARNESS, "--cases", "40", "--calls", calls, "--only", only]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ", 0 ended wrongly" in ended.stdout
