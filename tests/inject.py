"""Let the n-th call of the operating system fail, for every command that writes, every call and every n.

Run it as long as you like: ``python tests/inject.py [--seconds N] [--seed N] [--calls open,pwrite] [--only pack]``.
Afterwards there is the old output, or the whole new one; no other file; an exit code of the table; and, where it is not
0, exactly one line on stderr and nothing on stdout. Calls of libraries are counted, too: a small library that is loaded
before all others (`SHIM`, made by the system's C compiler) stands between the process and libc. Each case runs in a
child of this process, which has loaded everything.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import errno
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from said import BESIDE

CALLS = {
    "open": ("EIO", "ENOSPC", "EPERM"),
    "read": ("EIO",),
    "write": ("EIO", "ENOSPC", "EDQUOT"),
    "fallocate": ("EIO", "ENOSPC"),
    "truncate": ("EIO", "ENOSPC"),
    "fsync": ("EIO", "ENOSPC"),
    "close": ("EIO", "ENOSPC"),
    "rename": ("EIO", "ENOSPC", "EPERM"),
    "link": ("EIO", "ENOSPC", "EPERM"),
    "unlink": ("EIO", "EPERM"),
}
CODES = (0, 2, 65, 66, 73, 74)
SECONDS_OF_A_CASE = 60

SHIM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "inject_shim.c")

KEPT = ("--checkpoint", "k", "--every", "0.0001s")
COMMANDS = {
    "search": (["search-lambda", "a.h5", "-o", "o.json", "--curve", "o.tsv"], ["o.json", "o.tsv"]),
    "search-state": (["search-lambda", "a.parquet", "-o", "o.json", "--state", "o.unoic"], ["o.json", "o.unoic"]),
    "calibrate": (["calibrate", "a.h5", "-o", "o.h5"], ["o.h5", "o.calibration.json"]),
    "calibrate-parquet": (["calibrate", "a.h5", "-c", "c.json", "-o", "o.parquet"], ["o.parquet"]),
    "calibrate-arrow": (["calibrate", "a.arrows", "-c", "c.json", "-o", "o.arrows"], ["o.arrows"]),
    "calibrate-delta": (["calibrate", "a.h5", "-l", "1", "--delta", "d.npy", "-o", "o.h5"], ["o.h5"]),
    "calibrate-kept": (["calibrate", "a.h5", "-l", "1", "-o", "o.h5", *KEPT], ["o.h5"]),
    "fuse": (["fuse", "rgb=a.h5", "depth=a.parquet", "-o", "o.h5"], ["o.h5"]),
    "page": (["page", "a.h5", "--test", "z.h5", "-o", "o.html"], ["o.html"]),
    "temperature": (["fit-temperature", "z.h5", "-o", "o.json"], ["o.json"]),
    "delta": (["fit-delta", "a.h5", "-o", "o.json", "--write-delta", "o.h5"], ["o.json", "o.h5"]),
    "prior": (["prior", "a.h5", "-o", "o.json", "--state", "o.unoic"], ["o.json", "o.unoic"]),
    "evaluate-kept": (["evaluate", "a.h5", "--state", "o.unoic", *KEPT], ["o.unoic"]),
    "shard": (["evaluate", "z.h5", "--shard", "1/2", "--state", "o.unoic"], ["o.unoic"]),
    "merge": (["merge", "1.unoic", "2.unoic", "-o", "o.unoic"], ["o.unoic"]),
    "report": (["report", "s.unoic", "-o", "o.json", "--curve", "o.tsv"], ["o.json", "o.tsv"]),
    "pack": (["pack", "a.h5", "o.h5"], ["o.h5"]),
    "pack-zstd": (["pack", "z.h5", "o.h5", "--codec", "zstd", "--dtype", "float16"], ["o.h5"]),
    "pack-parquet": (["pack", "a.h5", "o.parquet"], ["o.parquet"]),
    "convert": (["convert", "x.npz", "o.h5"], ["o.h5"]),
    "convert-parquet": (["convert", "a.h5", "o.parquet"], ["o.parquet"]),
    "convert-arrow": (["convert", "a.parquet", "o.arrows"], ["o.arrows"]),
}  # fmt: skip
"""By name: the words, and the files that are written."""


def build(folder: str) -> str:
    """Compile the shim; raises `FileNotFoundError` where there is no compiler."""
    library = os.path.join(folder, "shim.so")
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise FileNotFoundError("cc")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, SHIM, "-ldl"], check=True)
    return library


def inputs() -> None:
    """Small files of every form, in the current folder."""
    import h5py
    import numpy as np

    import unoic_cli
    from unoic_cli import cli

    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(60, 3)).astype("f4"), rng.integers(0, 3, 60)
    with h5py.File("a.h5", "w") as file:
        file["logits"], file["labels"], file["source_counts"] = z, y, [4, 2, 1]
        file["class_names"] = ["a", "b", "c"]
        file.create_dataset("group", data=["x", "y"] * 30)
    with h5py.File("z.h5", "w") as file:
        file.create_dataset("logits", data=z, chunks=(16, 3), compression="gzip")
        file["labels"], file["source_counts"] = y, [4, 2, 1]
    np.savez("x.npz", logits=z, labels=y)
    np.save("d.npy", rng.uniform(0.5, 1, 60))
    unoic_cli.convert("a.h5", "a.parquet")
    unoic_cli.convert("a.h5", "a.arrows")
    unoic_cli.search_lambda("a.h5", output="c.json")
    for words in (
        *(["evaluate", "a.h5", "--shard", f"{i}/2", "--state", f"{i}.unoic"] for i in (1, 2)),
        ["search-lambda", "a.h5", "--state", "s.unoic"],
    ):
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            assert cli.run(words) == 0


class Harness:
    """Runs cases in children of this process.

    Parameters
    ----------
    shim : ctypes library
    folder : str
        Holds the inputs (``in``), and the place where commands run (``run``).
    """

    def __init__(self, shim: ctypes.CDLL, folder: str) -> None:
        self.shim, self.folder = shim, folder
        self.there, self.place = os.path.join(folder, "in"), os.path.join(folder, "run")
        self.wanted: dict[str, dict[str, bytes]] = {}
        os.mkdir(self.there)
        os.chdir(self.there)
        inputs()

    def child(self, words: list[str], call: str, n: int, error: int) -> dict[str, object]:
        """What a command does when the n-th call fails: exit code, texts, calls, and whether one failed."""
        if not os.path.isdir(self.place):
            shutil.copytree(self.there, self.place)
        report = os.path.join(self.folder, "report")
        child = os.fork()
        if child == 0:
            os.chdir(self.place)
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(os.path.join(self.folder, name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            from unoic_cli import cli

            self.shim.inject_arm(self.place.encode(), call.encode(), n, error)
            code = -1
            try:
                code = cli.run([*words, "--threads", "1"] if words[0] not in ("merge", "report", "convert") else words)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                fired = self.shim.inject_disarm()
                counts = {name: self.shim.inject_count(name.encode()) for name in CALLS}
                pathlib.Path(report).write_text(json.dumps({"code": code, "fired": fired, "counts": counts}))
                os._exit(0)
        deadline = time.monotonic() + SECONDS_OF_A_CASE
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            time.sleep(0.001)
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return {"code": "hangs", "fired": 1, "counts": {}, "out": "", "err": ""}
        found = (
            json.loads(pathlib.Path(report).read_text()) if os.path.exists(report) else {"code": "killed", "fired": 1}
        )
        pathlib.Path(report).unlink(missing_ok=True)
        for name in ("out", "err"):
            found[name] = pathlib.Path(self.folder, name).read_text(errors="replace")
        return found

    def reset(self, old: bool, outputs: list[str]) -> None:
        """The place as it was, with or without older outputs."""
        for name in os.listdir(self.place) if os.path.isdir(self.place) else ():
            if not os.path.exists(os.path.join(self.there, name)):
                os.unlink(os.path.join(self.place, name))
        if not os.path.isdir(self.place):
            shutil.copytree(self.there, self.place)
        if old:
            for name in outputs:
                pathlib.Path(self.place, name).write_text("old")

    def calls(self, name: str, old: bool) -> dict[str, int]:
        """How often each call is made when nothing fails."""
        words, outputs = COMMANDS[name]
        self.reset(old, outputs)
        found = self.child([*words, *(["--force"] if old else [])], "none", 0, 0)
        assert found["code"] == 0, (name, found)
        self.wanted[name] = {one: pathlib.Path(self.place, one).read_bytes() for one in outputs}
        return dict(found["counts"])  # type: ignore[call-overload]

    def fault(self, name: str, old: bool, call: str, n: int, error: str) -> str | None:
        """Run a case; what is wrong with its end, if anything."""
        words, outputs = COMMANDS[name]
        self.reset(old, outputs)
        found = self.child([*words, *(["--force"] if old else [])], call, n, getattr(errno, error))
        left = {one: pathlib.Path(self.place, one).read_bytes() for one in os.listdir(self.place)}
        now = {one: left.pop(one, None) for one in outputs}
        before = dict.fromkeys(outputs, b"old" if old else None)
        more = sorted(set(left) - set(os.listdir(self.there)))
        if found["code"] and name == "evaluate-kept":  # what was counted is kept
            more = [one for one in more if one != "k"]
        lines = str(found["err"]).splitlines()
        errors = [line for line in lines if not line.startswith(BESIDE)]
        if found["code"] not in CODES:
            return f"exit code {found['code']}: {found['err'] or ''}"
        if more:
            return f"left behind: {', '.join(more)} ({found['code']})"
        if found["code"] == 0:
            wrong = [one for one in outputs if now[one] != self.wanted[name][one]]
            return (
                f"exit code 0, and {', '.join(wrong)} is not whole" if wrong else f"said: {errors}" if errors else None
            )
        if now != before:
            return (
                f"exit code {found['code']}, and {[one for one in outputs if now[one] != before[one]]} changed: {lines}"
            )
        if found["out"] or len(lines) != 1 or not lines[0].startswith("unoic: error: ") or "; " not in lines[0]:
            return f"not one line: {lines}, stdout {found['out']!r}"
        return None


def cases(harness: Harness, only: str, calls: list[str]) -> list[tuple[str, bool, str, int, str]]:
    """Every case there is: command, older outputs or none, call, n, error."""
    found = []
    for name in COMMANDS:
        if only in name:
            for old in (False, True):
                counts = harness.calls(name, old)
                found += [
                    (name, old, call, n, error)
                    for call in calls
                    for n in range(1, counts[call] + 1)
                    for error in CALLS[call]
                ]
    return found


def main() -> int:
    """Run as the options say; 1 where a case ends wrongly."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=float, help="Stop after so long; by default, when every case has run.")
    parser.add_argument("--cases", type=int, help="At most so many, chosen by the seed.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="Commands whose name here has this in it.")
    parser.add_argument("--calls", default=",".join(CALLS))
    given = parser.parse_args()
    if "UNOIC_INJECT" not in os.environ:  # once more, with the shim before all libraries
        with tempfile.TemporaryDirectory() as folder:
            library = build(folder)
            more = {"LD_PRELOAD": library, "UNOIC_INJECT": library}
            return subprocess.run([sys.executable, *sys.argv], env={**os.environ, **more}, check=False).returncode
    shim = ctypes.CDLL(os.environ["UNOIC_INJECT"])
    began, wrong = time.monotonic(), 0
    with tempfile.TemporaryDirectory() as folder:
        harness = Harness(shim, os.path.realpath(folder))
        found = cases(harness, given.only, given.calls.split(","))
        random.Random(given.seed).shuffle(found)
        kinds: dict[str, int] = {}
        ran = 0
        for case in found[: given.cases]:
            if given.seconds is not None and time.monotonic() - began > given.seconds:
                break
            ran += 1
            fault = harness.fault(*case)
            if fault is not None:
                wrong += 1
                name, old, call, n, error = case
                kinds[f"{call} {fault[:40]}"] = kinds.get(f"{call} {fault[:40]}", 0) + 1
                print(
                    f"{name}{' over an old output' if old else ''}, {call} {n} fails ({error}): {fault.strip()[:600]}"
                )
        for kind, count in sorted(kinds.items(), key=lambda item: -item[1]):
            print(f"{count:6} {kind}")
        seconds = time.monotonic() - began
        print(f"{ran} of {len(found)} cases in {seconds:.0f} s, {wrong} ended wrongly (seed {given.seed})")
        os.chdir("/")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
