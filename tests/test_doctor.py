"""What doctor says, and that small inputs need no numba, and warmed ones no compiler."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import h5py
import numpy as np
import pytest

from unoic_cli import kernels
from unoic_cli.api import measuring, warming
from unoic_cli.api.warming import Form, compile_all, forms
from unoic_cli.commands import doctor
from unoic_cli.errors import DataError, StorageError
from unoic_cli.kernels.jit import JIT_DISABLED

SAMPLES = pathlib.Path(__file__).resolve().parents[1] / "sample_data"
DIGITS, STREETS = SAMPLES / "digits_lt" / "val.h5", SAMPLES / "streets"
COMPILED = pytest.mark.skipif(JIT_DISABLED, reason="nothing is compiled")
RUN = """
import sys
{first}
from unoic_cli import cli
code = cli.run(sys.argv[1:])
heavy = [name for name in ("numba", "llvmlite", "pydantic", "pyarrow") if name in sys.modules]
print(code, *heavy, file=sys.stderr)
"""


@pytest.fixture(autouse=True)
def two(tmp_path, monkeypatch):
    """Two modalities of few units beside one another."""
    monkeypatch.chdir(tmp_path)
    with h5py.File(DIGITS) as file:
        found = {name: file[name][()] for name in ("logits", "labels", "source_counts")}
    for name, scale in (("a.h5", 1), ("b.h5", 0.5)):
        with h5py.File(name, "w") as file:
            for key, value in found.items():
                file[key] = value if key != "logits" else (value * scale).astype(value.dtype)


def run_anew(*words, first="", **variables):
    """Run a command in a process of its own: its result, and lines on stderr, the last: exit code, heavy modules."""
    environment = {key: value for key, value in os.environ.items() if key not in ("UNOIC_KERNELS", "NUMBA_DISABLE_JIT")}
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(first=first), *words],
        capture_output=True, text=True, env={**environment, **variables}, timeout=600,
    )  # fmt: skip
    return done.stdout, done.stderr.splitlines()


SMALL = (
    "--help",
    "--version",
    "search-lambda a.h5",
    "calibrate a.h5 -o out.h5",
    "evaluate a.h5",
    "fit-temperature a.h5",
    "fit-delta a.h5",
    "search-lambda a=a.h5 b=b.h5 --range 0:1:0.1",
    "fuse a=a.h5 b=b.h5 --fusion average -o out.h5",
)


@pytest.mark.parametrize("words", SMALL)
def test_small_inputs_compile_nothing(words):
    _, said = run_anew(*shlex.split(words))
    code, *heavy = said[-1].split()
    assert (code, heavy) == ("0", []), said


MISSING = """
sys.modules["numba"] = sys.modules["llvmlite"] = None
from unoic_cli import kernels
kernels.PLAIN_SCORES = 10
"""


@pytest.mark.parametrize("words", ["search-lambda a.h5 --folds 3", *SMALL[3:]])
def test_without_numba_numpy_does_it(words, run, monkeypatch):
    given = shlex.split(words)
    with monkeypatch.context() as patch:
        patch.setenv("UNOIC_KERNELS", "plain")
        code, wanted, _ = run(*given)
    assert code == 0
    if "out.h5" in given:
        written = pathlib.Path("out.h5").read_bytes()
        given.append("--force")
    found, said = run_anew(*given, first=MISSING)
    assert (said[-1].split()[0], found) == ("0", wanted), said
    notes = [line for line in said if "cannot be compiled" in line]
    assert len(notes) == 1 and notes[0].endswith("numpy does their work, slowly")
    assert "out.h5" not in given or pathlib.Path("out.h5").read_bytes() == written


def test_doctor_without_numba():
    shown, _ = run_anew("doctor", first=MISSING)
    found = json.loads(shown)
    assert found["trouble"].startswith("ModuleNotFoundError") and found["cache"] is None
    out, said = run_anew("doctor", "--warm", first=MISSING)
    assert said[-1].split()[0] == "65" and out == ""
    assert said[-2].startswith("unoic: error: kernels: ModuleNotFoundError") and said[-2].endswith(
        "numba that compiles"
    )


# ------------------------------------------------------------------------------------------------
# what there is


def test_doctor_says_what_there_is(answer, run):
    found = answer("doctor")
    assert found["versions"]["numpy"] == np.__version__ and found["versions"]["unoic"] is not None
    assert set(found["compiled"]) <= set(kernels.NAMES)
    assert found["threads"] >= 1 and found["warmed"] is None and found["refused"] is None
    assert found["trouble"] == ("NUMBA_DISABLE_JIT is set" if JIT_DISABLED else None)
    for form in ("table", "tsv"):
        code, out, err = run("doctor", "--format", form)
        assert (code, err) == (0, "") and "numba" in out


def test_doctor_says_what_bounds_the_threads(answer, run, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    found = answer("doctor")
    assert found["threads"] == 1 and found["threads_from"]["SLURM_CPUS_PER_TASK"] == 1
    assert len(found["threads_from"]) > 1 and min(found["threads_from"].values()) == 1
    monkeypatch.setenv("COLUMNS", "200")
    assert re.search(
        r"threads +1 \(the least of .*SLURM_CPUS_PER_TASK 1\); --threads N", run("doctor", "--format", "table")[1]
    )


def test_doctor_measures_the_forms_that_are_used(answer, run, monkeypatch):
    monkeypatch.setattr(measuring, "_are_kept", lambda: False)
    found = answer("doctor")
    assert found["plain_mb_per_s"] > 0 and found["compiled_mb_per_s"] is None
    assert "compiled kernels are not there to be measured" in " ".join(run("doctor", "--format", "table")[1].split())
    monkeypatch.setattr(measuring, "_are_kept", lambda: True)
    asked = []
    monkeypatch.setattr(measuring, "_count", lambda n: asked.append((n, kernels.forced())) or 123.456)
    found = answer("doctor")
    assert (found["plain_mb_per_s"], found["compiled_mb_per_s"]) == (123.0, 123.0)
    assert asked == [(measuring.UNITS[form], form) for form in ("plain", "compiled")]
    monkeypatch.setenv("UNOIC_KERNELS", "plain")
    assert answer("doctor")["compiled_mb_per_s"] is None and os.environ["UNOIC_KERNELS"] == "plain"


@COMPILED
def test_what_is_measured_need_not_be_compiled(every, tmp_path, monkeypatch):
    """Kernels that are not kept are told from those that are."""
    heard = []
    monkeypatch.setattr(measuring, "is_kept", lambda form: not heard.append(form))
    assert measuring._are_kept() and heard and set(heard) <= set(every)
    monkeypatch.setattr(measuring, "is_kept", lambda form: False)
    assert not measuring._are_kept()


def test_a_missing_package_is_said(answer, run, monkeypatch):
    monkeypatch.setattr(doctor, "NEEDED", ("numpy", "no-such-package"))
    assert answer("doctor")["versions"]["no-such-package"] is None
    assert "no-such-package  missing" in run("doctor", "--format", "table")[1]


@pytest.mark.parametrize("form", ["plain", "compiled"])
def test_doctor_says_which_form_is_asked_for(answer, refuse, monkeypatch, form):
    monkeypatch.setenv("UNOIC_KERNELS", form)
    assert answer("doctor")["form"] == form
    if form == "plain":
        assert refuse(2, "doctor", "--warm").startswith("--warm: --warm with UNOIC_KERNELS=plain; ")


def test_doctor_says_that_others_may_write(tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir(0o700)
    (cache / "x").mkdir()
    shown, _ = run_anew("doctor", UNOIC_CACHE_DIR=str(cache))
    found = json.loads(shown)
    assert (found["refused"], found["mode"]) == (None, None) and found["cache"].startswith(str(cache))
    cache.chmod(0o777)
    shown, _ = run_anew("doctor", UNOIC_CACHE_DIR=str(cache))
    assert json.loads(shown)["refused"] == f"others may write to {cache}"
    shown, _ = run_anew("doctor", "--format", "table", UNOIC_CACHE_DIR=str(cache), COLUMNS="300")
    assert re.search(f"^not used +others may write to {re.escape(str(cache))}$", shown, re.MULTILINE)


@COMPILED
def test_a_folder_that_others_may_write_to_is_not_warmed(tmp_path):
    cache = tmp_path / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    _, said = run_anew("doctor", "--warm", UNOIC_CACHE_DIR=str(cache))
    assert said[-1].startswith("73") and f"others may write to {cache}; expected a folder of ours alone" in said[-2]
    assert not list(cache.iterdir())


# ------------------------------------------------------------------------------------------------
# compiled ahead


@pytest.fixture(scope="module")
def every():
    return forms()


def named(every, *names):
    return [form for form in every if form.name in names]


@COMPILED
def test_every_kernel_is_compiled_ahead_once(every):
    assert len(set(every)) == len(every)
    assert {form.name for form in every} == set(kernels.NAMES)


HEARD = (
    "search-lambda a.h5 --folds 3 --metrics many,few",
    "search-lambda a.h5 --method paper",
    "search-lambda a.h5 --method grid --metric top5 --target-prior labels",
    "search-lambda a.h5 --source-prior mean-posterior --offsets 0,1,2,3,4,5,6,7,8,9",
    f"search-lambda {STREETS}/rgb/fog.h5 --step 0.5 --by file",
    "search-lambda a=a.h5 b=b.h5 --per-modality --delta fit --range 0:1:0.5",
    "search-lambda a=a.h5 b=b.h5 --fusion log-linear --weights a=2,b=1 -o c.json",
    "evaluate a=a.h5 b=b.h5 -c c.json --confusion",
    "evaluate a=a.h5 b=b.h5 -l 0.5 --fusion max --metrics mcc,nll,ece,brier",
    "evaluate a.h5 --metrics mcc,nll,ece,brier,top3 --confusion --by file",
    "fit-temperature a.h5 --calibration c1.json",
    "fit-delta a.h5 -o d.json",
    "calibrate a.h5 --lambda 1 --delta d.json --emit probs -o x.parquet",
    "calibrate a.h5 --lambda 1 --emit predictions -o y.h5",
    "convert a.h5 a.npz.h5",
    "pack a.h5 p.h5 --dtype float16 --chunk 4K --codec gzip --checksums",
    "compare a.h5 -m tuned=c1.json -m whole=c1.json@1",
    "info a.h5 x.parquet p.h5",
    "evaluate p.h5",
    "evaluate x.parquet",
)


@COMPILED
def test_commands_call_no_other_kernels(every, answer):
    known, strangers = set(every), []

    def hear(name, given):
        form = Form(name, tuple(map(getattr(kernels, name).compiled().typeof_pyval, given)))
        if form not in known:
            strangers.append(form)

    answer("search-lambda", "a.h5", "-o", "c1.json")
    with kernels.overheard(hear):
        for words in HEARD:
            answer(*shlex.split(words))
    assert strangers == []


@COMPILED
def test_each_is_compiled_by_one_process_and_kept(every, tmp_path, monkeypatch):
    monkeypatch.setenv("UNOIC_CACHE_DIR", str(tmp_path / "cache"))
    wanted = named(every, "split", "add_words", "count_predictions")
    assert compile_all(wanted, 2) == len(wanted)
    (folder,) = (tmp_path / "cache").iterdir()
    assert sorted(path.name.rpartition("-")[0] for path in folder.glob("*.bin")) == sorted(one.name for one in wanted)
    assert folder.stat().st_mode & 0o777 == 0o700
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert compile_all(wanted, 2) == 0
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


@COMPILED
def test_what_cannot_be_compiled_or_kept_is_said(every, tmp_path, monkeypatch):
    (form,) = named(every, "count_predictions")
    with pytest.raises(DataError, match=r"^kernels: count_predictions: TypeError: .*; expected a kernel that can be"):
        compile_all([Form(form.name, form.types[:1])], 1)
    (tmp_path / "file").touch()
    monkeypatch.setenv("UNOIC_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        StorageError, match="count_predictions: compiled, and not kept; expected a disk that is not full"
    ):
        compile_all([form], 2)
    monkeypatch.setattr(warming, "_WORKER", "import os; os._exit(9)")
    with pytest.raises(DataError, match="the process that compiled it ended with 9; "):
        compile_all([form] * 3, 2)


@COMPILED
def test_doctor_warms(every, run, monkeypatch):
    monkeypatch.setattr(warming, "forms", lambda: named(every, "split"))
    code, out, err = run("doctor", "--warm")
    found = json.loads(out)
    assert code == 0 and ("compiling" in err) == (found["warmed"]["compiled"] > 0)
    assert found["warmed"]["forms"] == 2 and found["compiled"]["split"] >= 2 and found["n_bytes"] > 0
    assert found["mode"] == "0700"
    _, out, err = run("doctor", "--warm", "--format", "table")
    assert err == "" and "0 of the 2 forms that commands call" in out


LARGE = """
import json, sys
from unoic_cli import cli, compiling, kernels
begun = []
compiling.begin = begun.append
codes = [cli.run(words) for words in json.loads(sys.argv[1])]
used = [name for name in kernels.NAMES if getattr(kernels, name).done >= kernels.PLAIN_SCORES]
print(json.dumps([codes, begun, kernels.Kernel.fails, used]), file=sys.stderr)
"""


@COMPILED
def test_nothing_is_compiled_after_it(every):
    """Of more than a million scores; kernels of one type are compiled ahead, into the folder that all tests share."""
    names = ("look_at_rows", "count_path_columns", "count_point_columns", "predict_columns", "fill_rows64")
    float32 = [form for form in named(every, *names) if str(form.types[0]) == "array(float32, 1d, C)"]
    written = [form for form in named(every, "write_fused") if "Pool(" in str(form.types)]
    compile_all([*float32, *written, *named(every, "count_predictions")], 2)
    rng = np.random.default_rng(0)
    with h5py.File("large.h5", "w") as file:
        file["logits"] = rng.normal(size=(300_000, 5)).astype("f4")
        file["labels"] = rng.integers(0, 5, 300_000)
        file["source_counts"] = [50, 40, 30, 20, 10]
    words = [
        ["search-lambda", "large.h5", "--folds", "2", "-o", "c.json"],
        ["evaluate", "large.h5"],
        ["evaluate", "large.h5", "-c", "c.json", "--by", "file"],
        ["calibrate", "large.h5", "-c", "c.json", "-o", "out.h5"],
    ]
    environment = {key: value for key, value in os.environ.items() if key != "UNOIC_KERNELS"}
    done = subprocess.run(
        [sys.executable, "-c", LARGE, json.dumps(words)], capture_output=True, text=True, env=environment, timeout=600
    )
    codes, begun, fails, used = json.loads(done.stderr.splitlines()[-1])
    assert (codes, begun, fails) == ([0] * 4, [], False), done.stderr
    assert {"count_path_columns", "count_point_columns", "predict_columns", "write_fused"} <= set(used)
