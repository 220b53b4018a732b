"""The recipes of docs/clusters.md, run as they are written: SLURM's programs have small stand-ins."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys

import forked
import h5py
import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "clusters.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^`([\w.-]+)`:\n\n```\w+\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
K = 4
COUNTS = [50, 20, 8, 2]
RECORDED = "search-lambda val.*.h5 --range 0:2 --folds 3"

SLOW = """
import time
from unoic_cli.data import dataset
from unoic_cli.runs import sweep
dataset.SPAN_BYTES = 512
run = sweep.StreamWorker.run
def slow(worker, index):
    open("counting", "a").close()
    time.sleep(0.1)
    run(worker, index)
sweep.StreamWorker.run = slow
from unoic_cli.cli import main
main()
"""
"""A run that takes seconds, so that a signal finds it at work; it leaves a mark when it counts."""

SBATCH = f"""#!{sys.executable}
'''Runs the tasks of an array one after another; sends the signal that was asked for once in each task's first life.'''
import os, re, signal, subprocess, sys, time

words, options = sys.argv[1:], {{}}
script = None
for word in words:
    if word.startswith("--"):
        name, _, value = word[2:].partition("=")
        options[name] = value
    else:
        script = word
if script is not None:
    text = open(script).read()
    options |= dict(re.findall(r"^#SBATCH --([\\w-]+)=?(\\S*)$", text, re.MULTILINE)) | options
job = len([n for n in os.listdir() if n.startswith("slurm-")]) + 100
output = open(options.get("output", f"slurm-{{job}}.out"), "a")
if "wrap" in options:
    sys.exit(subprocess.call(["sh", "-c", options["wrap"]], stdout=output))
low, high = map(int, options.get("array", "1-1").split("-"))
codes = []
for task in range(low, high + 1):
    names = {{"ID": task, "MIN": low, "MAX": high, "COUNT": high - low + 1, "STEP": 1}}
    environment = {{**os.environ, "SLURM_ARRAY_JOB_ID": str(job), "SLURM_JOB_ID": str(job + task % (high - low + 1)),
                   **{{f"SLURM_ARRAY_TASK_{{name}}": str(value) for name, value in names.items()}}}}
    for life in range(9):
        for name in ("counting", "step", "requeued"):
            if os.path.exists(name):
                os.unlink(name)
        process = subprocess.Popen(["bash", script], env=environment, stdout=output)
        if "signal" in options and life == 0:
            while not os.path.exists("counting") and process.poll() is None:
                time.sleep(0.01)
            time.sleep(0.15)
            batch = options["signal"].startswith("B:")
            os.kill(process.pid if batch else int(open("step").read()), signal.SIGUSR1)
        code = process.wait()
        if not os.path.exists("requeued"):
            break
        assert "requeue" in options and code == 75, (options, code)
        assert open("requeued").read() == f"requeue {{job}}_{{task}}\\n"
        print("requeued", task, file=open("requeues", "a"))
    codes.append(code)
if "parsable" in options:
    print(job)
sys.exit(max(codes))
"""
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
echo $$ > step
exec "$@"
"""
SCONTROL = """#!/bin/bash
echo "$@" > requeued
"""
PARALLEL = f"""#!{sys.executable}
'''Just what the recipe uses: {{}} and :::, one after another.'''
import subprocess, sys
words = sys.argv[1:]
first = words.index("unoic")
at = words.index(":::")
sys.exit(sum(subprocess.call([word.replace("{{}}", one) for word in words[first:at]]) != 0 for one in words[at + 1:]))
"""


@pytest.fixture
def place(tmp_path):
    """A folder with inputs and every block of the page, and the programs that these call."""
    rng = np.random.default_rng(0)
    for name, n in (("val.1.h5", 400), ("val.2.h5", 350)):
        y = rng.choice(K, size=n, p=np.array(COUNTS) / sum(COUNTS))
        with h5py.File(tmp_path / name, "w") as file:
            file["logits"] = (rng.normal(size=(n, K)) * 1.5 + 2 * np.eye(K)[y] + np.log(COUNTS)).astype("f2")
            file["labels"], file["source_counts"] = y.astype("u1"), COUNTS
    (tmp_path / "hosts").write_text(":\n")
    (tmp_path / "bin").mkdir()
    for name, text in BLOCKS.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.fixture
def bash(place):
    """Run a block of the page."""

    def install(unoic=("-m", "unoic_cli"), **programs):
        programs["unoic"] = f'#!/bin/bash\nexec {forked.command(*unoic)} "$@"\n'
        for name, text in programs.items():
            (place / "bin" / name).write_text(text)
            (place / "bin" / name).chmod(stat.S_IRWXU)

    def run(*words, code=0, **programs):
        install(**programs)
        path = [str(place / "bin"), str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]
        python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SLURM_")},
            "PATH": os.pathsep.join(path), "PYTHONPATH": python_path, "HOME": str(place),
        }  # fmt: skip
        if "UNOIC_CACHE_DIR" not in os.environ:
            environment["UNOIC_CACHE_DIR"] = os.path.expanduser("~/.cache/unoic")
        done = subprocess.run(
            ["bash", *words], cwd=place, env=environment, capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == code, (done, list(place.glob("*")))
        return done.stdout

    return run


def compare(place, bash, command=RECORDED, output="calibration.json"):
    """The report, and what the run wrote, are those of one plain run."""
    (place / "calibration.json").replace(place / "found.json")
    plain = bash("-c", f"unoic {command} -q -o {output}")
    assert (place / "report.json").read_text() == plain
    assert (place / output).read_bytes() == (place / "found.json").read_bytes()


def test_every_block_is_run():
    """A block of the page without a test would be a promise."""
    text = pathlib.Path(__file__).read_text(encoding="utf-8")
    assert len(BLOCKS) == PAGE.count("\n```\n")
    assert not [name for name in BLOCKS if f'"{name}"' not in text]


def test_slurm_arrays(place, bash):
    assert "count.sh" in BLOCKS["submit.sh"]
    assert "--range 0:2 --folds 3" in BLOCKS["count.sh"]
    bash("submit.sh", sbatch=SBATCH)
    assert len(list((place / "states").iterdir())) == 8
    compare(place, bash)


@pytest.mark.parametrize("script", ["long.sh", "long-batch.sh"])
def test_slurm_requeues_what_was_interrupted(place, bash, script):
    submit = BLOCKS["submit.sh"].replace('"count.sh"', script).replace("count.sh", script)
    (place / script).write_text(BLOCKS[script].replace("--array=1-8", "--array=1-3"))
    (place / "submit.sh").write_text(submit)
    bash("submit.sh", unoic=("-c", SLOW), sbatch=SBATCH, srun=SRUN, scontrol=SCONTROL)
    assert (place / "requeues").read_text() == "requeued 1\nrequeued 2\nrequeued 3\n"
    assert sorted(path.name for path in (place / "states").iterdir()) == ["1.unoic", "2.unoic", "3.unoic"]
    compare(place, bash)


def test_gnu_parallel(place, bash):
    real = shutil.which("parallel")
    bash("parallel.sh", **({} if real else {"parallel": PARALLEL}))
    compare(place, bash)


def test_snakemake(place, bash):
    if shutil.which("snakemake") is None:
        pytest.skip("no snakemake")
    assert (place / "Snakefile").exists() and BLOCKS["Snakefile"]
    bash("snakemake.sh")
    assert not list((place / "states").glob("*.ckpt"))
    compare(place, bash)


def test_dask(place, bash):
    pytest.importorskip("distributed")
    bash("dask.sh", srun=SRUN)
    assert not (place / "run.ckpt").exists()
    compare(place, bash)


def test_dask_with_tls(place, bash):
    pytest.importorskip("distributed")
    if shutil.which("openssl") is None:
        pytest.skip("no openssl")
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    keys = ["-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(["openssl", "req", "-x509", *keys, *name], cwd=place, check=True, capture_output=True)
    shutil.copy(place / "cert.pem", place / "ca.pem")
    with __import__("socket").socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    (place / "tls.sh").write_text(BLOCKS["tls.sh"].replace("8786", str(port)).replace("sleep 5", "sleep 8"))
    bash("tls.sh")
    assert (place / "report.json").read_text() == bash("-c", "unoic evaluate val.*.h5 -q")


def test_several_passes(place, bash):
    bash("passes.sh")
    assert len(list((place / "states").glob("pass*.unoic"))) > 1
    compare(place, bash, "fit-temperature val.*.h5")


def test_parts_of_calibrated_files(place, bash):
    bash("-c", f"unoic {RECORDED} -q -o calibration.json")
    bash("calibrate.sh")
    bash("-c", "unoic calibrate val.*.h5 -q -c calibration.json -o whole.h5")
    plain = bash("-c", "unoic evaluate whole.h5 --format tsv")
    parts = bash("-c", "unoic evaluate calibrated.*-of-0004.h5 --format tsv")
    keep = re.compile(r"^(?!files)", re.MULTILINE)
    assert [line for line in plain.splitlines() if keep.match(line)] == [
        line for line in parts.splitlines() if keep.match(line)
    ]


def test_the_page_says_what_options_do(bash):
    """Options that the page names are options of the program."""
    known = "".join(
        bash("-c", f"unoic {command} --help") for command in ("search-lambda", "calibrate", "report", "doctor")
    )
    options = set(re.findall(r"unoic[^`\n]*?(--[a-z-]+)", PAGE)) - {"--jobs"}
    assert {option for option in options if option not in known} == set()
