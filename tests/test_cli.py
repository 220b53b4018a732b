"""The command line through its entry point, the same tasks from Python, and law 3: calibrate, then evaluate."""

from __future__ import annotations

import io
import json
import os
import pathlib
import pty
import subprocess
import sys

import forked
import h5py
import naive
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

import unoic_cli
from unoic_cli import cli, compiling
from unoic_cli.calibrations.lattice import Lattice
from unoic_cli.commands import calibrate as calibrate_task
from unoic_cli.data.folds import fold_of
from unoic_cli.formats import arrays
from unoic_cli.metrics import NAMES, Counts
from unoic_cli.runs.driver import drive
from unoic_cli.searches import METHODS, Curve, method

COUNTS = [700, 200, 100]


def sample(n=90, k=3, seed=0, shape=(), dtype="f4"):
    """Scores (N, K, ...) that favour class 0, and imbalanced labels."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(k, size=(n, *shape), p=np.array([7.0] + [3.0 / (k - 1)] * (k - 1)) / 10)
    scores = rng.normal(size=(n, *shape, k)) + 1.2 * np.eye(k)[labels]
    scores[..., 0] += 0.8
    return np.moveaxis(scores, -1, 1).astype(dtype), labels


def write_h5(path, scores, labels=None, kind="logits", last=False, **more):
    with h5py.File(path, "w") as file:
        file[kind] = np.moveaxis(scores, 1, -1) if last else scores
        if scores.ndim == 4:
            file[kind].attrs["class_axis"] = -1 if last else 1
        if labels is not None:
            file["labels"] = labels
        for name, values in more.items():
            file[name] = np.array(values, "S") if isinstance(values[0], str) else values
    return str(path)


def write_parquet(path, scores, labels, kind="logits", counts=None, **more):
    image = scores.shape[2:]
    rows = np.ascontiguousarray(np.moveaxis(scores, 1, -1)).reshape(-1, scores.shape[1])
    columns = {kind: pa.FixedSizeListArray.from_arrays(rows.ravel(), rows.shape[1])}
    if labels is not None:
        columns["label"] = labels.ravel()
    metadata = {} if counts is None else {"unoic.source_counts": json.dumps(counts)}
    metadata |= {"unoic.image_shape": json.dumps(list(image))} if image else {}
    pq.write_table(pa.table(columns | more, metadata=metadata), path, row_group_size=50)
    return str(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def rows(folder):
    scores, labels = sample()
    split = ["val", "val", "test"] * 30
    group = ["day", "night"] * 45
    return write_h5("rows.h5", scores, labels, source_counts=COUNTS, split=split, group=group, class_names=list("abc"))


def no_constant(name):
    raise AssertionError(f"{name} in JSON")


def command(*args, module=False, **options):
    start = [sys.executable, "-m", "unoic_cli"] if module else [str(pathlib.Path(sys.executable).with_name("unoic"))]
    return subprocess.run([*start, *map(str, args)], capture_output=True, text=True, timeout=120, **options)


def in_terminal(*args, env=None):
    """Run with stdout on a pseudo-terminal; return exit code and what it showed."""
    main, other = pty.openpty()
    process = forked.Popen(
        [sys.executable, "-m", "unoic_cli", *args], stdout=other, stderr=subprocess.PIPE, env=os.environ | (env or {})
    )
    os.close(other)
    shown = b""
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # the other end was closed
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    _, err = process.communicate(timeout=60)
    return process.returncode, shown.decode(), err.decode()


def counts_of(result):
    counts = result.overall.counts
    return [counts.hits.tolist(), counts.predicted.tolist(), counts.support.tolist(), result.overall.n_ignored]


# ------------------------------------------------------------------------------------------------
# the entry points


def test_help_and_version():
    for module in (False, True):
        shown = command("--help", module=module)
        assert (shown.returncode, shown.stderr) == (0, "")
        assert all(name in shown.stdout for name in cli.COMMANDS)
    assert command("--version").stdout == f"unoic {unoic_cli.__version__}\n"
    assert command().stdout == command("-h").stdout


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_a_command(name, run):
    code, out, err = run(name, "--help")
    assert (code, err) == (0, "")
    assert "Example: unoic " + name in out


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_options_that_every_command_has(name, run):
    """The demo alone has none of them: it runs commands as they are typed, and shows what they show."""
    _, out, _ = run(name, "--help-all")
    for option in ("--format", "-q, --quiet"):
        assert (option in out) == (name != "demo"), option
    assert ("--force" in out) == (name != "doctor"), "which writes nothing"


def test_quiet_reports(rows, run):
    """``report`` and ``merge`` repeat the notes of a run, unless these are not wanted."""
    assert run("search-lambda", rows, "--state", "all.unoic")[0] == 0
    for words in (
        ("report", "all.unoic"),
        ("merge", "all.unoic"),
        ("merge", "all.unoic", "-o", "more.unoic", "--force"),
    ):
        code, out, err = run(*words)
        code_quiet, out_quiet, err_quiet = run(*words, "-q")
        assert code == code_quiet == 0 and out == out_quiet and err_quiet == ""
        assert ("splits: lambda is tuned on all splits" in err) == ("-o" not in words)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("search-lambda", ("group", "file")),
        ("compare", ("group", "file")),
        ("evaluate", ("group", "file", "image")),
        ("page", ("group", "file", "image")),
    ],
)
def test_by_says_what_works(name, known, folder, run):
    """Help, what TAB completes and the message name the same ways, and these work."""
    z, y = sample(shape=(2, 3))
    path = write_h5("images.h5", z, y, group=["day", "night"] * 45, source_counts=COUNTS)
    more = {"compare": ["-m", "as-is"], "page": ["-o", "page.html", "--force"]}.get(name, [])
    *first, last = known
    code, _, err = run(name, path, *more, "--by", "foo")
    assert code == 2 and f"--by: 'foo'; expected {', '.join(first)} or {last}" in err
    told = " ".join(run(name, "--help-all")[1].split())
    said = told.split("--by WHAT")[1].split(" --")[0]
    for way in ("group", "file", "image"):
        assert (way in said.replace("files'", "")) == (way in known), said
        code, _, err = run(name, path, *more, "--by", way)
        assert (code == 0) == (way in known), err
    if "image" not in known:
        assert err.endswith("expected group or file (each image: unoic evaluate and unoic page)\n"), err


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("info", []),
        ("search-lambda", []),
        ("evaluate", []),
        ("compare", ["-m", "as-is"]),
        ("calibrate", ["-l", "1", "-o", "out.h5"]),
        ("prior", []),
        ("fit-delta", []),
        ("fit-temperature", []),
        ("convert", ["out.h5"]),
        ("pack", ["out.h5"]),
        ("fuse", ["-o", "out.h5"]),
        ("show", ["-l", "1", "-o", "out.csv"]),
        ("page", ["-o", "out.html"]),
    ],
)
def test_a_stream_is_read_by_all_but_the_page(name, more, rows):
    """As docs/guide.md has it."""
    assert command("convert", rows, "rows.arrows").returncode == 0
    what = ["a=-", f"b={rows}"] if name == "fuse" else ["-"]
    with open("rows.arrows", "rb") as stream:
        made = command(name, *what, *more, stdin=stream)
    if name == "page":
        assert made.returncode == 2 and "-: a stream, which is opened once; expected files" in made.stderr
    else:
        assert made.returncode == 0, made.stderr


def test_options_without_effect_are_told(rows, run):
    """A loop over files gives the same options to all, so that these are notes; an axis of no images is refused."""
    z, y = sample()
    y = np.where(np.arange(len(y)) % 9 == 0, 255, y)
    np.savez("rows.npz", logits=z, labels=y, source_counts=COUNTS)
    np.savez("more.npz", logits=z, labels=np.where(y == 255, 77, y), source_counts=COUNTS)
    search = ("search-lambda", "--threads", "2")
    others = ("evaluate",), ("evaluate", "-l", "1"), ("calibrate", "-l", "1", "--force"), ("compare", "-m", "as-is")
    for words in (search, *others):
        for labels in ((77,), (78, 77), (255,), (1,)):
            asked = [word for label in labels for word in ("--ignore-index", str(label))]
            for name in ("rows.npz", "more.npz"):
                code, _, err = run(words[0], name, *words[1:], *asked)
                if name == "more.npz" and 77 not in labels:
                    assert code == 65
                    continue
                assert code == 0, err
                said = [line for line in err.splitlines() if "--ignore-index" in line]
                wanted = sorted({78, 77} & set(labels) - ({77} if name == "more.npz" else set()))
                assert said == [f"unoic: note: --ignore-index {one}: no label is {one}" for one in wanted], words
    z, y = np.concatenate([z, z]), np.concatenate([np.where(y == 255, 0, y), np.where(y == 255, 77, y)])
    np.savez("late.npz", logits=z, labels=y, source_counts=COUNTS)
    for i in (1, 2):  # what a shard lacks, another may have
        shard = ("--shard", f"{i}/2", "--state", f"{i}.unoic")
        assert run("evaluate", "late.npz", "--ignore-index", "77", "--ignore-index", "-5", *shard)[0] == 0
    code, out, err = run("merge", "2.unoic", "1.unoic")
    assert code == 0 and "--ignore-index -5: no label is -5" in err and "--ignore-index 77" not in err
    whole = json.loads(run("evaluate", "late.npz", "--ignore-index", "77")[1])
    assert json.loads(out)["macc"] == whole["macc"] and json.loads(out)["n_ignored"] == whole["n_ignored"] == 10
    code, _, err = run("evaluate", "rows.npz", "--allow-external")
    assert code == 0 and "note: --allow-external: rows.npz is no HDF5, which alone has external links" in err
    assert "--allow-external" not in run("evaluate", rows, "--allow-external")[2]
    for name in ("rows.npz", rows):
        code, _, err = run("evaluate", name, "--class-axis", "1")
        assert code == 2 and "--class-axis: given, but" in err and "holds no images" in err


def test_light_start():
    heavy = "print([name for name in ('numba', 'h5py', 'pyarrow', 'numpy') if name in sys.modules])"
    for code in ("import sys, unoic_cli", "import sys; from unoic_cli import cli; cli.run(['--help'])"):
        shown = subprocess.run([sys.executable, "-c", f"{code}; {heavy}"], capture_output=True, text=True, check=True)
        assert shown.stdout.splitlines()[-1] == "[]"


def test_little_is_loaded_before_the_program_listens_to_signals():
    """Ctrl-C before that is answered with a traceback of Python's."""
    script = "import sys; import unoic_cli.signals; print([n for n in ('typing', 're', 'typer') if n in sys.modules])"
    there = os.environ | {"PYTHONPATH": str(pathlib.Path(unoic_cli.__file__).parents[1])}
    shown = subprocess.run([sys.executable, "-S", "-c", script], capture_output=True, text=True, check=True, env=there)
    assert shown.stdout == "[]\n"


def test_a_pipe_gets_json_and_no_escape_codes(rows):
    for args in (["search-lambda", rows], ["evaluate", rows], ["info", rows], ["prior", rows]):
        for env in ({}, {"NO_COLOR": "1"}, {"TERM": "xterm-256color"}):
            shown = forked.run(
                [sys.executable, "-m", "unoic_cli", *args], capture_output=True, text=True, env=os.environ | env
            )
            assert shown.returncode == 0
            assert "\x1b" not in shown.stdout + shown.stderr
            json.loads(shown.stdout, parse_constant=no_constant)


def test_a_terminal_gets_a_table(rows):
    code, shown, err = in_terminal("evaluate", rows, env={"TERM": "xterm-256color"})
    assert (code, "\x1b[" in shown) == (0, True)
    assert "mIoU" in shown
    assert "{" not in shown
    code, shown, err = in_terminal(
        "search-lambda", rows, "--folds", "3", env={"TERM": "xterm-256color", "NO_COLOR": "1"}
    )
    assert (code, "fully rebalanced" in shown) == (0, True)
    assert not any(f"\x1b[{colour}m" in shown for colour in range(30, 38))
    code, shown, err = in_terminal("evaluate", rows, "--format", "json")
    assert json.loads(shown)["n"] == 90
    assert "split field" in err


def test_a_terminal_without_the_characters(rows):
    shown = command(
        "search-lambda", rows, "--folds", "3", "--format", "table", env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert (shown.returncode, "held out" in shown.stdout) == (0, True)


@pytest.mark.parametrize("name", ["info", "prior", "search-lambda", "calibrate", "evaluate", "convert"])
def test_formats(name, rows, run):
    more = {"calibrate": ["--lambda", "1", "-o", "out.h5", "--force"], "convert": ["out.parquet", "--force"]}.get(
        name, []
    )
    code, out, _ = run(name, rows, *more, "--format", "json")
    assert (code, type(json.loads(out))) == (0, dict)
    code, out, _ = run(name, rows, *more, "--format", "table")
    assert (code, "\x1b" in out, "{" in out) == (0, False, False)
    code, out, _ = run(name, rows, *more, "--format", "tsv")
    lines = out.splitlines()
    assert code == 0
    assert out.endswith("\n")
    assert len({line.count("\t") for line in lines}) == 1
    assert lines[0].count("\t") >= 1


def test_names_are_no_markup_and_stay_in_their_cell(folder, run):
    scores, labels = sample(k=3)
    path = write_h5(
        "x.h5", scores, labels, class_names=["[/x]", "[red]b", ":smile:\tc"], group=["[/g]", "a\tb", "c"] * 30
    )
    for more in ([], ["--confusion"], ["--by", "group"]):
        code, out, _ = run("evaluate", path, "--format", "table", *more)
        assert (code, "[/x]" in out, "[red]b" in out, ":smile:" in out) == (0, True, True, True)
    for args in (["evaluate", path], ["evaluate", path, "--by", "group"], ["prior", path]):
        code, out, _ = run(*args, "--format", "tsv")
        assert (code, len({line.count("\t") for line in out.splitlines()})) == (0, 1)


# ------------------------------------------------------------------------------------------------
# what each command promises


def test_search_keys(rows, answer):
    found = answer("search-lambda", rows, "--folds", 3, "--split", "val")
    assert {
        "lambda", "plateau", "metric", "n", "n_ignored", "n_classes", "source_prior", "target_prior", "baseline",
        "rebalanced", "best", "curve", "folds", "files", "split", "method", "evaluations", "reads", "range",
        "subject_to", "temperature", "unseen", "absent", "absent_rule", "ignore_index", "notes", "calibration",
            "fusion", "order", "groups", "modalities", "choice", "gain", "warnings",
    } <= set(found)  # fmt: skip
    assert (found["n"], found["n_classes"], found["split"], found["files"]) == (60, 3, "val", ["rows.h5"])
    assert found["source_prior"] == {"values": [0.7, 0.2, 0.1], "counts": COUNTS, "origin": "source_counts of rows.h5"}
    assert set(found["curve"]) == {"lambda", *NAMES}
    assert {len(values) for values in found["curve"].values()} == {601}
    assert found["choice"]["rule"] == "anchored"
    assert found["choice"]["interval"][0] <= found["lambda"] <= found["choice"]["interval"][1]
    assert found["plateau"][0] <= found["lambda"] <= found["plateau"][1]
    assert [found[key]["lambda"] for key in ("baseline", "rebalanced", "best")] == [0, 1, found["lambda"]]
    for key, index in (("baseline", 0), ("rebalanced", 100)):
        assert all(found[key][name] == found["curve"][name][index] for name in NAMES)
    folds = found["folds"]
    assert (folds["k"], folds["seed"], folds["unit"], folds["ddof"]) == (3, 0, "samples", 1)
    assert len(folds["lambda"]["values"]) == 3


def test_evaluate_keys(rows, answer):
    seen = answer("evaluate", rows, "--confusion", "--by", "group")
    assert {"n", "n_ignored", *NAMES, "per_class", "confusion", "groups", "lambda", "absent", "files", "split"} <= set(
        seen
    )
    keys = {"class", "name", "support", "predicted", "hits", "recall", "precision", "iou", "f1"}
    assert [set(row) for row in seen["per_class"]] == [keys] * 3
    assert [row["name"] for row in seen["per_class"]] == ["a", "b", "c"]
    scores, labels = sample()
    table = naive.confusion(labels, scores.argmax(1), 3)
    assert seen["confusion"] == table.tolist()
    expected = naive.metrics(np.diag(table), table.sum(0), table.sum(1))
    assert all(seen[name] == pytest.approx(expected[name], abs=1e-15) for name in NAMES)
    assert [group["group"] for group in seen["groups"]] == ["day", "night"]
    for i, group in enumerate(seen["groups"]):
        part = naive.confusion(labels[i::2], scores[i::2].argmax(1), 3)
        expected = naive.metrics(np.diag(part), part.sum(0), part.sum(1))
        assert (group["n"], group["macc"]) == (45, pytest.approx(expected["macc"], abs=1e-15))


def test_other_commands_keys(rows, answer, run):
    counted = answer("prior", rows, "-o", "prior.json")
    labels = sample()[1]
    assert counted["counts"] == np.bincount(labels).tolist()
    assert (counted["n"], counted["n_ignored"], counted["class_names"]) == (90, 0, ["a", "b", "c"])
    assert json.loads(pathlib.Path("prior.json").read_text()) == counted
    made = answer("calibrate", rows, "--lambda", 1)
    assert (made["output"], made["lambda"], made["fitted"], made["n_written"]) == ("rows.calibrated.h5", 1, False, 90)
    assert set(NAMES) < set(made["before"])
    assert {"after", "after_is", "gained", "lost", "folds", "calibration_output", "files", "calibration"} < set(made)
    looked = answer("info", rows, "rows.calibrated.h5")
    assert [file["kind"] for file in looked["files"]] == ["logits", "log_probs"]
    assert answer("convert", rows, "rows.parquet")["kind"] == "logits"
    _, out, _ = run("search-lambda", rows, "--format", "tsv")
    assert out.splitlines()[0] == "lambda\t" + "\t".join(NAMES)


def test_undefined_figures_are_null(folder, answer):
    path = write_h5("x.h5", np.eye(3, dtype="f4")[[0, 0, 1]], np.array([0, 0, 0]), group=["a", "a", "b"])
    seen = answer("evaluate", path, "--by", "group")
    assert [row["recall"] for row in seen["per_class"]] == [2 / 3, None, None]
    assert seen["per_class"][2]["iou"] is None
    write_h5("x.h5", np.eye(3, dtype="f4")[[0, 0, 1]], np.array([0, 0, 255]), group=["a", "a", "b"])
    assert answer("evaluate", path, "--by", "group")["groups"][1]["acc"] is None


# ------------------------------------------------------------------------------------------------
# from Python


def test_every_command_is_a_function(rows):
    for name in cli.COMMANDS:
        assert name in ("merge", "report") or callable(getattr(unoic_cli, name.replace("-", "_")))
    scores, labels = sample()
    path = pathlib.Path(rows)
    of_path = unoic_cli.search_lambda(path)
    of_array = unoic_cli.search_lambda(scores, labels, source_prior=COUNTS)
    assert (of_path.lam, of_path.curve["miou"].tolist()) == (of_array.lam, of_array.curve["miou"].tolist())
    assert counts_of(unoic_cli.evaluate([path])) == counts_of(unoic_cli.evaluate(scores, labels))
    assert unoic_cli.prior(path).counts == unoic_cli.prior(scores, labels).counts
    made = unoic_cli.calibrate(path, output=pathlib.Path("a.h5"), calibration=of_path.calibration)
    again = unoic_cli.calibrate(scores, labels, output="b.h5", lam=of_path.lam, source_prior=COUNTS)
    assert counts_of(unoic_cli.evaluate(made.output)) == counts_of(unoic_cli.evaluate(again.output))
    assert unoic_cli.info([rows]).files[0].n_classes == 3
    assert unoic_cli.convert(rows, "a.parquet").n_samples == 90
    json.dumps([of_path.to_dict(), made.to_dict()], allow_nan=False)
    with pytest.raises(AttributeError):
        unoic_cli.nothing  # noqa: B018


def test_paths_as_objects(rows):
    found = unoic_cli.search_lambda(
        pathlib.Path(rows), output=pathlib.Path("c.json"), curve_output=pathlib.Path("c.tsv")
    )
    seen = unoic_cli.evaluate(rows, calibration=pathlib.Path("c.json"))
    assert seen.lam == found.lam
    json.dumps(seen.to_dict())
    json.dumps(unoic_cli.prior(rows, output=pathlib.Path("p.json")).to_dict())


# ------------------------------------------------------------------------------------------------
# law 3


@settings(max_examples=70, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 9999),
    dtype=st.sampled_from(["f2", "f4", "f8"]),
    kind=st.sampled_from(["logits", "log_probs", "probs"]),
    layout=st.sampled_from(["rows", "planes", "nhwc"]),
    target=st.sampled_from(["uniform", "1,0,2,1", "5,1,1,1"]),
    lam=st.sampled_from([0.0, 0.4, 1.0, 2.7, -0.8, 40.0]),
    temperature=st.sampled_from([None, 0.3, 2.0]),
    emit=st.sampled_from(["log-probs", "probs", "predictions"]),
    out=st.sampled_from(["out.h5", "out.parquet"]),
    split=st.sampled_from([None, "val"]),
    delta=st.sampled_from([None, "scalar", "sample", "unit"]),
    files=st.sampled_from([1, 2]),
    ignored=st.booleans(),
)
def test_calibrate_then_evaluate(
    tmp_path, monkeypatch, seed, dtype, kind, layout, target, lam, temperature, emit, out, split, delta, files, ignored
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("unoic_cli.data.dataset.SPAN_BYTES", 300)
    rng = np.random.default_rng(seed)
    sources = []
    for _ in range(files):
        n = int(rng.integers(2, 9))
        image = () if layout == "rows" else (2, 3)
        scores, labels = sample(n, 4, int(rng.integers(1 << 30)), image)
        scores = scores * rng.choice([0.01, 1.0, 30.0])
        scores = np.round(scores, 1) if rng.random() < 0.5 else scores  # ties
        if kind != "logits":
            scores = np.moveaxis(naive.softmax(np.moveaxis(scores, 1, -1)), -1, 1)
            scores = np.log(scores) if kind == "log_probs" else scores
        if dtype == "f2" and kind == "probs":
            scores = np.maximum(scores, 1e-7)
        scores = scores.astype(dtype)
        if ignored:
            labels[rng.random(labels.shape) < 0.3] = 255
            labels.flat[0] = 1
        labels.flat[-1] = 0
        shapes = {"scalar": (), "sample": (n,), "unit": (n, *image)}
        factor = None if delta is None else rng.uniform(0.1, 1.5, shapes[delta])
        splits = np.array(["val", "test"] * n)[:n]
        sources.append(
            arrays.describe(
                np.moveaxis(scores, 1, -1) if layout == "nhwc" else scores, labels, kind=kind, delta=factor,
                split=splits,
                group=splits, class_axis=-1 if layout == "nhwc" else 1, source_counts=[50, 20, 20, 10],
            )
        )  # fmt: skip
    made = unoic_cli.calibrate(
        sources, output=out, lam=lam, temperature=temperature, target_prior=target, emit=emit, split=split, force=True
    )
    direct = unoic_cli.evaluate(sources, calibration=made.calibration, split=split, confusion=True, by="group")
    written = unoic_cli.evaluate(out, confusion=True, by="group")
    assert counts_of(written) == counts_of(direct)
    assert np.array_equal(written.confusion, direct.confusion)
    assert list(written.groups) == list(direct.groups)
    assert made.after is not None
    assert made.after.counts.hits.tolist() == direct.overall.counts.hits.tolist()
    plain = unoic_cli.evaluate(sources, split=split)
    assert made.before.counts.hits.tolist() == plain.overall.counts.hits.tolist()


@pytest.mark.parametrize("out", ["o.h5", "o.parquet"])
@pytest.mark.parametrize("layout", ["rows", "planes", "nhwc"])
def test_pipeline_by_command(folder, answer, out, layout):
    scores, labels = sample(24, 3, 5, () if layout == "rows" else (4, 5), "f2")
    labels[::5] = -1
    path = write_h5("x.h5", scores, labels, last=layout == "nhwc", source_counts=COUNTS, split=["val", "test"] * 12)
    answer("search-lambda", path, "--split", "val", "--target-prior", "1,1,0", "-o", "c.json")
    for emit in ("log-probs", "probs", "predictions"):
        answer("calibrate", path, "-c", "c.json", "--split", "test", "--emit", emit, "-o", out, "--force")
        seen = answer("evaluate", out, "--confusion")
        direct = answer("evaluate", path, "-c", "c.json", "--split", "test", "--confusion")
        assert seen["confusion"] == direct["confusion"]
        assert (seen["n"], seen["n_ignored"]) == (direct["n"], direct["n_ignored"])
        assert np.array(seen["confusion"])[:, 2].sum() == 0
        assert answer("info", out)["files"][0]["kind"] == emit.replace("-", "_")


def test_the_posterior_is_eq_7(folder):
    scores, labels = sample(40, 4, 3)
    unoic_cli.calibrate(
        scores, labels, output="o.h5", lam=0.7, temperature=2.0, source_prior=[7, 1, 1, 1], target_prior=[1, 1, 1, 2]
    )
    expected = naive.posterior(scores, naive.slopes([7, 1, 1, 1], [1, 1, 1, 2]), 0.7, 0.5)
    with h5py.File("o.h5") as file:
        assert np.allclose(np.exp(file["log_probs"][()]), expected, rtol=1e-5)
        assert file["predictions"][()].tolist() == expected.argmax(1).tolist()


def test_oracle_a(folder):
    posterior = {
        0: (0.7, 0.2, 0.1),
        0.5: (0.522879, 0.279491, 0.19763),
        1: (1 / 3,) * 3,
        2: (0.086957, 0.304348, 0.608696),
    }
    scores = np.log(np.array([[0.7, 0.2, 0.1]] * 2))
    for lam, expected in posterior.items():
        unoic_cli.calibrate(scores, output="o.h5", lam=lam, source_prior=[7, 2, 1], emit="probs", force=True)
        with h5py.File("o.h5") as file:
            assert file["probs"][0] == pytest.approx(expected, abs=1e-6)


def test_many_classes(folder, answer):
    """A calibration of thousands of classes fits beside the scores."""
    rng = np.random.default_rng(0)
    path = write_h5(
        "x.h5",
        rng.normal(size=(300, 3000)).astype("f4"),
        rng.integers(0, 3000, 300),
        source_counts=rng.integers(1, 99, 3000),
    )
    for out in ("o.h5", "o.parquet"):
        answer("calibrate", path, "--lambda", "0.5", "-o", out)
        assert answer("evaluate", out)["per_class"] == answer("evaluate", path, "--lambda", "0.5")["per_class"]


def test_files_of_other_integers(folder):
    scores, labels = sample(10)
    write_h5("a.h5", scores, labels.astype("u8"), sample_id=np.arange(10))
    write_h5("b.h5", scores, labels.astype("i1"), sample_id=[f"s{i}" for i in range(10)])
    unoic_cli.calibrate(["a.h5", "b.h5"], output="o.h5", lam=1)
    with h5py.File("o.h5") as file:
        assert file["labels"][()].tolist() == [*labels, *labels]
        assert file["sample_id"][9:11].tolist() == [b"9", b"s0"]


# ------------------------------------------------------------------------------------------------
# calibrations


def test_calibration_may_be_a_saved_result(rows, answer, run):
    _, out, _ = run("search-lambda", rows, "-o", "c.json")
    pathlib.Path("saved.json").write_text(out)
    lam = json.loads(out)["lambda"]
    assert json.loads(pathlib.Path("c.json").read_text())["lambda"] == lam
    assert (
        answer("evaluate", rows, "-c", "saved.json")["per_class"]
        == answer("evaluate", rows, "-c", "c.json")["per_class"]
    )
    _, out, _ = run("calibrate", rows, "-o", "o.h5")
    pathlib.Path("made.json").write_text(out)
    assert json.loads(out)["calibration_output"] == "o.calibration.json"
    one = answer("evaluate", rows, "-c", "made.json")
    assert one["per_class"] == answer("evaluate", rows, "-c", "o.calibration.json")["per_class"]
    assert one["lambda"] == json.loads(out)["lambda"]


def test_calibration_survives_its_file(rows):
    found = unoic_cli.search_lambda(rows, target_prior=[0, 1, 3], unseen="mask", temperature=1.7, output="c.json")
    assert unoic_cli.Calibration.load("c.json") == found.calibration


def test_calibrate_without_lambda_is_cross_fitted(rows, answer):
    made = answer("calibrate", rows)
    found = answer("search-lambda", rows, "--folds", 3)
    assert (made["fitted"], made["after_is"][:12]) == (True, "cross-fitted")
    a, lam = found["choice"]["a"], found["lambda"]
    assert (made["lambda"], made["temperature"]) == (pytest.approx(a * lam), pytest.approx(1 / a))
    assert made["folds"]["lambda"] == found["folds"]["lambda"]
    assert made["calibration_output"] == "rows.calibrated.calibration.json"
    seen, plain = answer("evaluate", rows, "-c", made["calibration_output"]), answer("evaluate", rows, "-l", lam)
    assert (seen["lambda"], seen["temperature"]) == (made["lambda"], made["temperature"])
    assert seen["per_class"] == plain["per_class"]  # the scale moves no decision
    folds = unoic_cli.search_lambda(rows, folds=3).folds
    assert made["after"]["acc"] == folds.pooled_after.hits.sum() / 90


def test_default_output_names(rows, answer):
    os.mkdir("sub")
    path = write_h5("sub/in.h5", *sample(10))
    assert answer("calibrate", path, "--lambda", 1)["output"] == "in.calibrated.h5"
    assert answer("convert", rows, "sub/in.parquet")["output"] == "sub/in.parquet"
    assert answer("calibrate", "sub/in.parquet", "--lambda", 1)["output"] == "in.calibrated.parquet"
    with h5py.File("g.hdf5", "w") as file:
        file["a/logits"], file["a/labels"] = sample(10)
    assert answer("calibrate", "g.hdf5::a", "--lambda", 1)["output"] == "g.calibrated.hdf5"


def test_force_replaces(rows, answer, run):
    for args in (
        ["calibrate", "--lambda", "1", "-o", "o.h5"],
        ["search-lambda", "-o", "o.json"],
        ["prior", "-o", "p.json"],
    ):
        args = [args[0], rows, *args[1:]]
        answer(*args)
        before = pathlib.Path(args[-1]).read_bytes()
        code, out, err = run(*args)
        assert (code, out) == (73, "")
        assert "the file exists" in err
        pathlib.Path(args[-1]).write_text("old")
        answer(*args, "--force")
        assert pathlib.Path(args[-1]).read_bytes() == before


# ------------------------------------------------------------------------------------------------
# several inputs, groups of HDF5, splits


def test_files_are_one_data_set(folder, answer):
    scores, labels = sample(90)
    write_h5("all.h5", scores, labels, source_counts=COUNTS)
    write_h5("a.h5", scores[:40], labels[:40], source_counts=COUNTS)
    write_parquet("b.parquet", scores[40:], labels[40:], counts=COUNTS)
    with h5py.File("two.h5", "w") as file:
        for name, part in (("x/y", slice(0, 40)), ("z", slice(40, 90))):
            file[f"{name}/logits"], file[f"{name}/labels"], file[f"{name}/source_counts"] = (
                scores[part],
                labels[part],
                COUNTS,
            )
    keys = ("lambda", "plateau", "n", "baseline", "best", "curve", "folds")
    whole = answer("search-lambda", "all.h5", "--folds", 3)
    for files in (["a.h5", "b.parquet"], ["two.h5::x/y", "two.h5::/z"], ["two.h5::x/y/logits", "b.parquet"]):
        parts = answer("search-lambda", *files, "--folds", 3)
        assert {key: parts[key] for key in keys} == {key: whole[key] for key in keys}
    made = answer("calibrate", "a.h5", "b.parquet", "--lambda", 1, "-o", "o.h5")
    assert made["n_written"] == 90
    assert answer("evaluate", "o.h5")["per_class"] == answer("evaluate", "all.h5", "--lambda", 1)["per_class"]


def test_split_and_ignore_index(rows, answer):
    scores, labels = sample()
    val = np.arange(90) % 3 < 2
    seen = answer("evaluate", rows, "--split", "val", "--confusion", "--ignore-index", "2")
    assert seen["confusion"] == naive.confusion(labels[val], scores[val].argmax(1), 3, ignore=2).tolist()
    assert (seen["n"], seen["n_ignored"]) == ((labels[val] != 2).sum(), (labels[val] == 2).sum())
    assert answer("prior", rows, "--ignore-index", 0, "--ignore-index", 1)["counts"][:2] == [0, 0]


def test_groups_of_one_split(folder, answer):
    path = write_h5("x.h5", *sample(4), group=["b", "a", "b", "c"], split=["val", "val", "val", "test"])
    assert [group["group"] for group in answer("evaluate", path, "--by", "group", "--split", "val")["groups"]] == [
        "b",
        "a",
    ]


# ------------------------------------------------------------------------------------------------
# rules and policies


@pytest.mark.parametrize(("rule", "miou"), [("reference", 0.366667), ("truth-only", 0.55), ("zero", 0.366667)])
def test_absent(folder, answer, rule, miou):
    scores = np.eye(3, dtype="f4")[[0, 0, 1, 2, 1, 1, 1, 2]]
    path = write_h5("x.h5", scores, np.array([0, 0, 0, 0, 1, 1, 1, 1]))
    seen = answer("evaluate", path, "--absent", rule)
    assert seen["miou"] == pytest.approx(miou, abs=1e-6)
    assert seen["absent"] == rule
    found = answer("search-lambda", path, "--absent", rule, "--source-prior", "uniform")
    made = answer("calibrate", path, "--absent", rule, "--lambda", 0, "--source-prior", "uniform")
    assert found["baseline"]["miou"] == made["before"]["miou"] == seen["miou"]


def test_oracle_e_with_an_ignored_label(folder, answer):
    path = write_h5("x.h5", np.eye(3, dtype="f4")[[0, 0, 1, 2, 1, 1, 1, 2]], np.array([0, 0, 0, 0, 1, 1, 1, -1]))
    seen = answer("evaluate", path)
    assert [round(seen[name], 6) for name in ("acc", "macc", "miou")] == [0.714286, 0.75, 0.416667]


@pytest.mark.parametrize("policy", ["mask", "floor", "smooth"])
def test_unseen(folder, answer, policy):
    scores, labels = sample(60)
    path = write_h5("x.h5", scores, labels)
    args = ["--source-prior", "30,20,0", "--unseen", policy]
    seen = answer("evaluate", path, "--lambda", "0.5", *args)
    prior = {"mask": [30, 20, 1], "floor": [30, 20, 20], "smooth": [31, 21, 1]}[policy]
    values = naive.scores(scores, naive.slopes(prior, [1, 1, 1]), 0.5)
    if policy == "mask":
        values[:, 2] = -np.inf
    assert [row["predicted"] for row in seen["per_class"]] == np.bincount(values.argmax(1), minlength=3).tolist()
    found = answer("search-lambda", path, *args)
    assert (found["unseen"], found["calibration"]["unseen"]) == (policy, policy)


def test_temperature_moves_lambda(rows, answer):
    """Only lambda * temperature decides: at temperature 2 the curve is that of half the lambda."""
    warm = answer("search-lambda", rows, "--temperature", 2, "--range", "0:1", "--step", "0.01", "-o", "c.json")
    cold = answer("search-lambda", rows, "--range", "0:2", "--step", "0.02")
    assert warm["curve"]["macc"] == cold["curve"]["macc"]
    assert answer("evaluate", rows, "-c", "c.json")["macc"] == warm["best"]["macc"]
    assert answer("evaluate", rows, "--lambda", warm["lambda"], "--temperature", 2)["macc"] == warm["best"]["macc"]


def test_priors(rows, answer):
    scores, labels = sample()
    counts = np.bincount(labels).tolist()
    answer("prior", rows, "-o", "p.json")
    pathlib.Path("p.csv").write_text(
        "class,count\n" + "".join(f"{name},{n}\n" for name, n in zip("cba", counts[::-1], strict=True))
    )
    pathlib.Path("p.tsv").write_text("\n".join(map(str, counts)))
    for spec in ("p.json", "p.csv", "p.tsv", "labels", ",".join(map(str, counts)), rows, f"{rows}::/"):
        found = answer("search-lambda", rows, "--source-prior", spec)
        assert found["source_prior"]["counts"] == counts
        assert found["source_prior"]["values"] == [count / 90 for count in counts]
    seen = answer("search-lambda", rows, "--target-prior", "mean-posterior")
    expected = naive.softmax(scores).mean(0)
    assert seen["target_prior"]["values"] == pytest.approx(expected, abs=1e-9)
    warm = answer("search-lambda", rows, "--target-prior", "mean-posterior", "--temperature", 3)
    assert warm["target_prior"]["values"] == pytest.approx(naive.softmax(scores / 3).mean(0), abs=1e-9)
    same = answer("search-lambda", rows, "--target-prior", "0.7,0.2,0.1")
    assert same["lambda"] == 0
    assert len(set(same["curve"]["acc"])) == 1
    assert "lambda changes nothing" in " ".join(same["notes"])


def test_mean_posterior_serves_unlabelled_data(folder, answer):
    path = write_h5("x.h5", sample()[0])
    made = answer("calibrate", path, "--lambda", 1, "--source-prior", "mean-posterior")
    assert (made["before"], made["after"], made["after_is"]) == (None, None, None)
    assert (
        answer("calibrate", path, "--lambda", 1, "--source-prior", "mean-posterior", "-o", "o.parquet")["n_written"]
        == 90
    )


# ------------------------------------------------------------------------------------------------
# ranges, methods, constraints


def test_methods_agree(rows):
    """Every registered method finds the same lambda on a concave curve: a unit crosses between any two points."""
    z = np.arange(-0.995, 3, 0.01)
    scores = np.stack([z, np.zeros_like(z)], 1) * np.log(9)
    labels = (z < 1).astype(int)
    found = {name: unoic_cli.search_lambda(scores, labels, source_prior=[9, 1], method=name) for name in METHODS}
    assert {name: (result.lam, result.best["macc"]) for name, result in found.items()} == dict.fromkeys(
        METHODS, (1.0, 1.0)
    )
    for more in ({}, {"range": "-1:1:0.25"}, {"metric": "top2", "range": "-0.5:3"}, {"folds": 4, "seed": 3}):
        path = unoic_cli.search_lambda(rows, method="path", **more)
        grid = unoic_cli.search_lambda(rows, method="grid", **more)
        assert path.lam == grid.lam
        assert all(path.curve[name].tolist() == grid.curve[name].tolist() for name in path.curve)
        assert (path.folds and path.folds.lams) == (grid.folds and grid.folds.lams)
        assert (path.baseline, path.rebalanced) == (grid.baseline, grid.rebalanced)
    paper = unoic_cli.search_lambda(rows, method="paper")
    path = unoic_cli.search_lambda(rows)
    for lam, value in zip(paper.lams, paper.curve["macc"], strict=True):
        if lam <= path.lams[-1]:
            assert value == path.curve["macc"][np.flatnonzero(np.isclose(path.lams, lam))[0]]
    assert paper.best["macc"] >= paper.baseline["macc"]


def test_oracle_g():
    t = np.array([0.25, 1.55, 0.55, 0.65, 3.0])
    scores = np.stack([t * np.log(9), np.zeros(5)], 1)
    found = unoic_cli.search_lambda(
        scores, [1, 1, 0, 0, 0], metric="acc", source_prior=[0.9, 0.1], range="0:4", choose="best"
    )
    assert 0.25 < found.lam <= 0.55
    assert found.best["acc"] == 0.8
    values = dict(zip(found.lams.round(2).tolist(), found.curve["acc"].tolist(), strict=True))
    assert [values[lam] for lam in (0.2, 0.4, 0.6, 1.0, 2.0, 3.5)] == [0.6, 0.8, 0.6, 0.4, 0.6, 0.4]


class Fake:
    """A problem whose metric is a given function of lambda."""

    def __init__(self, metric):
        self.metric = metric
        self.asked = []

    def _curve(self, lams):
        self.asked += lams
        lams = np.array(lams)
        empty = np.zeros((1, lams.size, 2), np.int64)
        return Curve(lams, Counts(empty, empty, empty[:, :1]))

    def path(self, lattice):
        return self._curve(lattice.values().tolist())

    def points(self, lams):
        yield from ()
        return self._curve(list(lams))

    def objective(self, curve):
        return np.array([self.metric(lam) for lam in curve.lams.tolist()], dtype=np.float64)


def paper(metric, lattice="0:2:0.1", name="paper"):
    problem = Fake(metric)
    found = drive(method(name)(problem, Lattice.parse(lattice)))
    return float(found.curve.lams[found.choice]), found, problem


PRINTED = [0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.91, 0.91, 0.80, 0.70]


def test_oracle_h_finds_the_maximum():
    lam, found, problem = paper(lambda lam: PRINTED[round(lam * 10)] if lam < 1.25 else 0.6 - lam / 100)
    assert lam in (0.9, 1.0)
    assert len(problem.asked) == len(set(problem.asked)) == found.evaluations == found.reads


def test_oracle_h_looks_beyond_the_range():
    lam, found, problem = paper(lambda lam: -abs(lam - 2.1))
    assert lam == pytest.approx(2.1)
    assert found.notes == ()
    assert max(problem.asked) <= 16.0
    assert paper(lambda lam: -abs(lam - 9.3))[0] == pytest.approx(9.3)


@pytest.mark.parametrize("lattice", ["0:2:0.1", "0:16:0.1", "0:20:0.5", "0:1:0.5"])
def test_oracle_h_is_bounded_and_never_worse_than_lambda_zero(lattice):
    assert paper(lambda lam: 0.5, lattice)[0] == 0.0
    assert paper(lambda lam: 1.0 if lam == 0 else lam / 100, lattice)[0] == 0.0
    assert paper(lambda lam: -np.inf, lattice)[1].notes == ()
    rng = np.random.default_rng(0)
    for _ in range(50):
        noise = rng.normal(size=1000)
        lam, _, problem = paper(lambda lam, noise=noise: noise[round(lam * 10)], lattice)
        assert 0.0 in problem.asked
        assert noise[round(lam * 10)] >= noise[0]
        assert noise[round(lam * 10)] == max(noise[round(one * 10)] for one in problem.asked)


def test_oracle_h_warns_of_two_peaks():
    metric = {0.0: 0.5, 1.0: 0.3}
    _, found, _ = paper(lambda lam: metric.get(round(lam, 1), 0.4 + lam / 100))
    assert "one peak" in found.notes[0]


@settings(max_examples=200, deadline=None)
@given(peak=st.integers(0, 150), seed=st.integers(0, 999), flat=st.booleans())
def test_paper_is_the_naive_algorithm_on_one_peak(peak, seed, flat):
    rng = np.random.default_rng(seed)
    steps = rng.integers(1, 4, 400)
    values = -np.abs(np.cumsum(steps) - np.cumsum(steps)[peak]).astype(float)
    best, _ = naive.algorithm2(lambda i: values[i], 20, 160)
    lam, _, _ = paper(lambda lam: values[round(lam * 10)])
    assert round(lam * 10) == best == peak


def printed(metric, lattice="0:2:0.1"):
    return paper(metric, lattice, "paper-printed")


def test_oracle_h_as_printed():
    lam, found, problem = printed(lambda lam: PRINTED[round(lam * 10)] if lam < 1.25 else 0.6 - lam / 100)
    assert (lam, problem.metric(lam)) == (1.1, 0.80)
    assert found.notes == ("Algorithm 2 as printed ends at lambda 1.1, but 0.9, which it saw, is better",)
    assert len(problem.asked) == len(set(problem.asked)) == found.evaluations == found.reads


def test_oracle_g_as_printed():
    """A curve that is not concave: the text ends where it is worse than at lambda 0, and says so."""
    t = np.array([0.25, 1.55, 0.55, 0.65, 3.0])
    given_ = (np.stack([t * np.log(9), np.zeros(5)], 1), [1, 1, 0, 0, 0])
    found = unoic_cli.search_lambda(*given_, metric="acc", source_prior=[0.9, 0.1], method="paper-printed")
    assert (found.lam, found.best["acc"], found.baseline["acc"]) == (3.4, 0.4, 0.6)
    assert any("ends at lambda 3.4, but 0, which it saw, is better" in note for note in found.notes)
    mended = unoic_cli.search_lambda(*given_, metric="acc", source_prior=[0.9, 0.1], method="paper")
    assert mended.best["acc"] >= 0.6


def test_as_printed_the_first_step_and_the_growth_of_the_range():
    assert printed(lambda lam: 1.0 if lam == 0 else 0.99 + lam / 1000)[0] == 0.0  # metric(0.1) < metric(0)
    _, _, problem = printed(lambda lam: -abs(lam - 2.1))
    assert [lam for lam in problem.asked if lam >= 2] == pytest.approx([2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 2.2, 2.3, 2.1])


@pytest.mark.parametrize("lattice", ["0:2:0.1", "0:16:0.1", "0:20:0.5", "0:1:0.5"])
@pytest.mark.parametrize("level", [0.5, -np.inf])
def test_as_printed_a_constant_metric_ends(lattice, level):
    lam, found, problem = printed(lambda lam: level, lattice)
    assert lam == 0.0
    assert max(problem.asked) <= 20
    assert "never ends here" in found.notes[0]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=161, max_size=161))
def test_as_printed_is_the_text(values):
    lam, found, problem = printed(lambda lam: values[round(lam * 10)])
    naive_lam = naive.algorithm2_printed(lambda i: values[i], 20, 160)
    seen = [values[round(lam * 10)] for lam in problem.asked]
    endless = any("never ends" in note for note in found.notes)
    assert round(lam * 10) == (0 if endless and max(seen) <= values[0] else naive_lam)
    assert any("is better" in note for note in found.notes) == (max(seen) > values[round(lam * 10)])


def test_algorithm_2_has_the_steps_of_the_paper(rows):
    for name in ("paper", "paper-printed"):
        found = unoic_cli.search_lambda(rows, method=name)
        assert np.allclose(found.lams * 10, (found.lams * 10).round(), atol=1e-9)
        fine = unoic_cli.search_lambda(rows, method=name, step=0.01)
        assert not np.allclose(fine.lams * 10, (fine.lams * 10).round(), atol=1e-9)


def test_as_printed_and_a_constraint_that_it_does_not_keep(rows, refuse):
    line = refuse(65, "search-lambda", rows, "--method", "paper-printed", "--metric", "acc", "--subject-to", "macc>=2")
    assert "--subject-to: no lambda in" in line


@pytest.mark.parametrize("option", ["--lambda", "--range"])
def test_a_given_lambda(rows, option, answer, run):
    """Nothing is searched: the row of the whole curve, a calibration that says so, and no word of a choice."""
    whole = answer("search-lambda", rows, "--range", "0:1:0.1", "--metric", "top2")
    value = "0.4" if option == "--lambda" else "0.4:0.4"
    for metric, columns in (("macc", ("acc", "macc", "miou", "f1")), ("top2", ("acc", "top2"))):
        line = ("search-lambda", rows, option, value, "--metric", metric)
        found = answer(*line, "-o", "c.json", "--curve", "c.tsv", "--force")
        assert (found["lambda"], found["plateau"], found["given"], found["reads"]) == (0.4, [0.4, 0.4], option, 1)
        assert {name: found["best"][name] for name in columns} == {name: whole["curve"][name][4] for name in columns}
        assert (found["baseline"]["acc"], found["rebalanced"]["acc"]) == (
            whole["baseline"]["acc"],
            whole["rebalanced"]["acc"],
        )
        assert found["notes"] == whole["notes"][:1] and "split" in found["notes"][0]
        assert len(pathlib.Path("c.tsv").read_text().splitlines()) == 2
        stored = json.loads(pathlib.Path("c.json").read_text())
        assert (stored["lambda"], stored["provenance"]["given"]) == (0.4, option)
        one, other = (answer("evaluate", rows, *by) for by in (("-c", "c.json"), ("-l", "0.4")))
        assert one["per_class"] == other["per_class"]
        code, out, _ = run(*line, "--format", "table")
        assert code == 0 and "lambda 0.4 (given)" in out and f"as given ({option})" in out
        assert not any(word in out for word in ("chosen", "plateau", "tuned", "over lambda"))
    assert unoic_cli.search_lambda(rows, lam=0.4).best == unoic_cli.search_lambda(rows, range="0.4:0.4").best
    states = ["1.unoic", "2.unoic"]
    for i, name in enumerate(states, 1):
        answer("search-lambda", rows, option, value, "--shard", f"{i}/2", "--state", name)
    assert answer("report", *states) == answer("search-lambda", rows, option, value)


def test_a_given_lambda_with_a_calibration_holds_all_else(rows, answer):
    answer("search-lambda", rows, "--temperature", 2, "--target-prior", "3,2,1", "-o", "c.json")
    found = answer("search-lambda", rows, "-c", "c.json", "-l", "0.4", "-o", "d.json")
    before, after = (json.loads(pathlib.Path(name).read_text()) for name in ("c.json", "d.json"))
    assert (after["lambda"], after["modalities"][0]["temperature"], after["target_prior"]) == (
        0.4,
        2,
        before["target_prior"],
    )
    again = answer("evaluate", rows, "-l", "0.4", "--temperature", 2, "--target-prior", "3,2,1")
    assert all(found["best"][name] == again[name] for name in ("acc", "macc", "miou", "f1"))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--lambda", "0.4", "--range", "0:1"), "--range: --range beside --lambda"),
        (("--lambda", "0.4", "--step", "0.1"), "--step: --step beside --lambda"),
        (("--lambda", "0.4", "--method", "path"), "--method: --method beside --lambda"),
        (("--lambda", "0.4", "--subject-to", "acc>=base"), "--subject-to: --subject-to beside --lambda"),
        (("--lambda", "0.4", "--folds", "3"), "--folds: --folds beside --lambda"),
        (("--lambda", "nan"), "--lambda: nan; expected a finite number"),
        (("--lambda", "x"), "--lambda: 'x'; expected a number"),
        (("--lambda", "rgb=1"), "--lambda: the unknown modality rgb"),
        (("--range", "0.4:0.4", "--folds", "3"), "--folds: --folds beside --range 0.4:0.4"),
        (("--range", "0.4:0.4", "--step", "0.1"), "--step: a step in 0.4:0.4"),
        (("--range", "0:0", "--method", "paper"), "--range: 0:0 with --method paper"),
        (("--range", "0.4:0.4", "--choose", "best"), "--choose: --choose beside --range 0.4:0.4"),
        (("--lambda", "0.4", "--choose", "best"), "--choose: --choose beside --lambda"),
        (("--choose", "anchored", "--metric", "nll"), "--choose: anchored for nll, whose standard error is not known"),
        (("--choose", "anchored", "--method", "paper"), "--choose: anchored beside --method paper"),
        (("--choose", "most"), "--choose: 'most'; expected one of anchored, best, paper"),
    ],
)
def test_nothing_chooses_beside_a_given_lambda(rows, options, text, refuse):
    assert refuse(2, "search-lambda", rows, *options).startswith(text)


def test_range_grows_only_by_itself(folder, answer):
    """Class 1 wins from lambda 3.2 on: the default range grows, an explicit one says that it ends too early."""
    scores = np.array([[3.2 * np.log(9), 0], [40, 0], [3.1 * np.log(9), 0]])
    path = write_h5("x.h5", scores, np.array([1, 0, 1]), source_counts=[9, 1])
    found = answer("search-lambda", path)
    assert (found["range"], found["reads"]) == ([0, 6], 2)  # no wider one is better
    best = ("search-lambda", path, "--choose", "best")
    found = answer(*best)
    assert (found["range"], found["best"]["acc"]) == ([0, 2], pytest.approx(1 / 3))  # flat up to 2: no reason to grow
    scores[2, 0] = 1.99 * np.log(9)
    write_h5("x.h5", scores, np.array([1, 0, 1]), source_counts=[9, 1])
    found = answer(*best)
    assert (found["range"], found["best"]["acc"], found["reads"]) == ([0, 4], 1.0, 3)
    assert any("extended to 0:4:0.01" in note for note in found["notes"])
    assert not any("touches" in note for note in found["notes"])  # no accuracy is above 1
    for args in (best, best[:2]):
        found = answer(*args, "--range", "0:2")
        assert (found["range"], found["reads"]) == ([0, 2], 1)
        assert any("touches the upper end" in note for note in found["notes"])
    found = answer("search-lambda", path, "--range", "0.5:1.5:0.5")
    assert found["curve"]["lambda"] == [0.5, 1.0, 1.5]
    assert found["baseline"]["acc"] == pytest.approx(1 / 3)
    scores[::2, 0] = 7.2 * np.log(9), 5.9 * np.log(9)
    write_h5("x.h5", scores, np.array([1, 0, 1]), source_counts=[9, 1])
    found = answer("search-lambda", path)
    assert (found["range"], found["reads"]) == ([0, 12], 2)  # 16 at most: no wider one
    assert any("extended to 0:12:0.01" in note for note in found["notes"])


def test_ranges_below_zero(rows, answer):
    scores, labels = sample()
    for text, lams in (("-1:1:0.5", [-1, -0.5, 0, 0.5, 1]), ("-2:-1:0.5", [-2, -1.5, -1])):
        found = answer("search-lambda", rows, "--range", text, "--metric", "miou")
        tp, predicted, support = naive.curve(scores, labels, naive.slopes(COUNTS, [1, 1, 1]), lams)
        expected = [naive.metrics(*row, support)["miou"] for row in zip(tp, predicted, strict=True)]
        assert found["curve"]["lambda"] == lams
        assert found["curve"]["miou"] == pytest.approx(expected, abs=1e-15)
        assert found["baseline"]["lambda"] == 0


def test_top_n(folder, answer):
    scores, labels = sample(80, 6)
    path = write_h5("x.h5", scores, labels, source_counts=[70, 10, 5, 5, 5, 5])
    for more in ([], ["--range", "0.5:1.5"]):
        found = answer("search-lambda", path, "--metric", "top2", *more)
        hits = naive.top_k_hits(
            scores, labels, naive.slopes([70, 10, 5, 5, 5, 5], [1] * 6), found["curve"]["lambda"], 2
        )
        assert found["curve"]["top2"] == (hits / 80).tolist()
        assert found["best"]["top2"] == max(found["curve"]["top2"])
        assert found["baseline"]["top2"] == naive.top_k_hits(scores, labels, [0] * 6, [0.0], 2)[0] / 80
    found = answer("search-lambda", path, "--subject-to", "top2>=base", "--folds", 3)
    assert "top2" in found["folds"]["held_out"]


def test_subject_to(rows, answer):
    free = answer("search-lambda", rows)
    bound = free["baseline"]["acc"]
    tied = answer("search-lambda", rows, "--subject-to", "acc >= base-0.01 and macc>0.1")
    assert tied["best"]["acc"] >= bound - 0.01
    feasible = [
        m for m, a in zip(tied["curve"]["macc"], tied["curve"]["acc"], strict=True) if a >= bound - 0.01 and m > 0.1
    ]
    assert tied["best"]["macc"] == max(feasible)
    assert tied["subject_to"] == "acc >= base-0.01 and macc>0.1"
    for name in METHODS:
        one = answer("search-lambda", rows, "--subject-to", "acc>=base-0.01", "--method", name)
        assert one["best"]["acc"] >= bound - 0.01
    below = answer("search-lambda", rows, "--subject-to", f"acc<{bound - 0.05}", "--metric", "acc", "--method", "paper")
    assert below["best"]["acc"] < bound - 0.05


# ------------------------------------------------------------------------------------------------
# folds


@pytest.mark.parametrize("name", ["paper", "paper-printed"])
def test_folds_of_algorithm_2_see_their_own_values_only(folder, name):
    """Each fold's lambda is where the algorithm ends on the others: not the best of what all of them led to."""
    scores, labels = sample(90, 3, 33)
    ranks = np.array([np.sum(labels[:i] == label) for i, label in enumerate(labels)])
    folds = fold_of(ranks, labels, 3, 1)
    slopes, lams = naive.slopes(COUNTS, [1, 1, 1]), [i / 10 for i in range(161)]
    found = unoic_cli.search_lambda(scores, labels, source_prior=COUNTS, metric="acc", method=name, folds=3, seed=1)
    expected = []
    for fold in range(3):
        tp, _, support = naive.curve(scores[folds != fold], labels[folds != fold], slopes, lams)
        values = tp.sum(axis=1) / support.sum()
        if name == "paper":
            expected.append(lams[naive.algorithm2(lambda i, values=values: values[i], 20, 160)[0]])
        else:
            expected.append(lams[naive.algorithm2_printed(lambda i, values=values: values[i], 20, 160)])
    assert list(found.folds.lams) == expected
    for fold, lam in enumerate(expected):
        held = unoic_cli.evaluate(scores[folds == fold], labels[folds == fold], source_prior=COUNTS, lam=lam)
        assert found.folds.tested[fold]["acc"] == held.overall.values["acc"]
    assert found.details["reads"] >= found.details["evaluations"]


def test_fold_protocol_by_hand(folder):
    """Tune on k - 1 folds, test on the one held out, with naive counts over the folds of `fold_of`."""
    scores, labels = sample(31, 3, 9)
    ranks = np.array([np.sum(labels[:i] == label) for i, label in enumerate(labels)])
    folds = fold_of(ranks, labels, 3, 7)
    lams = np.arange(0, 1.01, 0.25)
    slopes = naive.slopes(COUNTS, [1, 1, 1])
    result = unoic_cli.search_lambda(
        scores, labels, source_prior=COUNTS, range="0:1:0.25", folds=3, seed=7, choose="best"
    )
    assert result.folds is not None

    def values(kept):
        tp, predicted, support = naive.curve(scores[kept], labels[kept], slopes, lams)
        return np.array([naive.metrics(*row, support)["macc"] for row in zip(tp, predicted, strict=True)])

    for fold in range(3):
        tuned = values(folds != fold)
        best = np.flatnonzero(np.isclose(tuned, tuned.max(), atol=1e-15))
        assert np.all(np.diff(best) == 1)  # one plateau in this sample: its middle is taken
        chosen = best[(len(best) - 1) // 2]
        assert result.folds.lams[fold] == lams[chosen]
        assert result.folds.tested[fold]["macc"] == pytest.approx(values(folds == fold)[chosen], abs=1e-15)
        assert result.folds.baseline[fold]["macc"] == pytest.approx(values(folds == fold)[0], abs=1e-15)
    pooled = sum(
        naive.confusion(labels[folds == f], naive.predict(scores[folds == f], slopes, result.folds.lams[f]), 3)
        for f in range(3)
    )
    assert result.folds.pooled_after.hits.tolist() == np.diag(pooled).tolist()
    assert result.folds.pooled_after.predicted.tolist() == pooled.sum(0).tolist()
    summary = result.to_dict()["folds"]
    held_out = summary["held_out"]["macc"]
    assert held_out["std"] == pytest.approx(np.std(held_out["values"], ddof=1))


def test_folds_do_not_depend_on_the_reading(folder, monkeypatch):
    scores, labels = sample(200, 4, 2)
    write_h5("x.h5", scores, labels, source_counts=[7, 1, 1, 1])
    want = unoic_cli.search_lambda("x.h5", folds=5, seed=2).to_dict()
    monkeypatch.setattr("unoic_cli.data.dataset.SPAN_BYTES", 100)
    assert unoic_cli.search_lambda("x.h5", folds=5, seed=2, threads=2).to_dict() == want
    assert unoic_cli.search_lambda("x.h5", folds=5, seed=3).to_dict()["folds"] != want["folds"]


def test_images_are_never_divided(folder, answer):
    scores, labels = sample(9, 3, 1, (4, 4))
    path = write_h5("x.h5", scores, labels, source_counts=COUNTS)
    found = answer("search-lambda", path, "--folds", 3)
    assert found["folds"]["unit"] == "images"
    baseline = found["folds"]["baseline"]["acc"]["values"]
    right = (scores.argmax(1) == labels).reshape(9, 16).sum(1)
    folds = fold_of(np.arange(9), np.zeros(9, np.int64), 3, 0)
    assert baseline == [right[folds == fold].sum() / 48 for fold in range(3)]


def test_threads_and_spans_change_nothing(folder, monkeypatch, run):
    scores, labels = sample(300, 4, 4)
    path = write_h5("x.h5", scores, labels, source_counts=[7, 1, 1, 1], group=["a", "b", "c"] * 100)
    calls = (
        ["search-lambda", path, "--folds", "3"],
        ["evaluate", path, "--by", "group", "--confusion"],
        ["prior", path],
    )
    want = [run(*args, "--threads", "1") for args in calls]
    for out in ("o.h5", "o.parquet"):
        run("calibrate", path, "--lambda", 1, "-o", out, "--threads", 1)
    monkeypatch.setattr("unoic_cli.data.dataset.SPAN_BYTES", 64)
    for threads in ("1", "2", "5"):
        assert [run(*args, "--threads", threads) for args in calls] == want
        for out in ("o.h5", "o.parquet"):
            code, _, _ = run("calibrate", path, "--lambda", 1, "-o", f"again-{out}", "--threads", threads, "--force")
            assert code == 0
        assert pathlib.Path("o.h5").read_bytes() == pathlib.Path("again-o.h5").read_bytes()
        assert pq.read_table("o.parquet").equals(pq.read_table("again-o.parquet"))


def test_progress_goes_to_a_terminal_only(rows, monkeypatch):
    line = cli.common.ProgressLine()
    line.started -= 5
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    line(1, 4)
    line.clear()
    assert stream.getvalue() == ""
    stream.isatty = lambda: True
    line(1, 4)
    assert "25%" in stream.getvalue()
    line.clear()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_reports_fit_a_terminal(rows):
    from unoic_cli.report.calibrate import render_calibrate
    from unoic_cli.report.search import render_search

    console = Console(file=io.StringIO(), width=80)
    console.print(render_search(unoic_cli.search_lambda(rows, folds=3, subject_to="acc>=base-0.5")))
    console.print(render_calibrate(unoic_cli.calibrate(rows, output="o.h5")))
    shown = console.file.getvalue()
    assert max(map(len, shown.splitlines())) <= 80
    assert all(text in shown for text in ("held out, mean", "subject to", "gain and lose most", "o.calibration.json"))


def test_default_output_of_arrays_is_hdf5():
    class Data:
        sources = (arrays.describe(np.zeros((2, 2), np.float32)),)

    assert calibrate_task.default_output(Data) == "<array>.calibrated.h5"


def test_a_calibrated_file_is_not_rebalanced_again(rows, tmp_path):
    out = str(tmp_path / "again.h5")
    made = unoic_cli.calibrate(rows, output=out, lam=1.0)
    for run_task in (
        lambda: unoic_cli.evaluate(out, lam=1.0),
        lambda: unoic_cli.evaluate(out, calibration=made.calibration),
        lambda: unoic_cli.search_lambda(out),
        lambda: unoic_cli.calibrate(out, output=str(tmp_path / "twice.parquet"), lam=1.0),
    ):
        with pytest.raises(unoic_cli.UnoicError, match="rebalanced already"):
            run_task()
    assert unoic_cli.evaluate(out).overall.n
    assert unoic_cli.evaluate(out, lam=1.0, source_prior=COUNTS).overall.n
    assert not (tmp_path / "twice.parquet").exists()


def test_priors_follow_class_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scores, labels = sample(40)
    names = [f"class {k}" for k in range(scores.shape[1])]
    one = write_h5("one.h5", scores, labels, class_names=names)
    two = write_h5("two.h5", scores, labels, class_names=names[::-1])
    counts = unoic_cli.prior(one, output="one.json").counts
    table = dict(zip(names, counts, strict=True))
    for prior in ("one.json", "one.h5", table):
        assert unoic_cli.search_lambda(two, source_prior=prior).calibration.source_prior.counts == counts[::-1]
    assert unoic_cli.search_lambda(one, source_prior="one.json").calibration.source_prior.counts == counts
    with pytest.raises(unoic_cli.UnoicError, match="class names"):
        unoic_cli.search_lambda(two, source_prior={"other": 1, **table})


def test_priors_that_disagree(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_h5("both.h5", *sample(20), source_counts=COUNTS, source_prior=np.array(COUNTS[::-1]) / sum(COUNTS))
    with pytest.raises(unoic_cli.UnoicError, match="disagree"):
        unoic_cli.search_lambda(path)
    assert unoic_cli.search_lambda(path, source_prior=COUNTS).n == 20


def test_arrays_say_what_they_are():
    scores, labels = sample(30)
    probs = np.exp(scores.astype(np.float64)) / np.exp(scores.astype(np.float64)).sum(1, keepdims=True)
    with pytest.raises(unoic_cli.UnoicError, match="rows sum to 1"):
        unoic_cli.search_lambda(probs, labels, source_prior=COUNTS)
    source = unoic_cli.from_arrays(probs, labels, kind="probs", source_counts=COUNTS)
    assert unoic_cli.search_lambda(source).lam == unoic_cli.search_lambda(scores, labels, source_prior=COUNTS).lam
    with pytest.raises(unoic_cli.UnoicError, match="masked"):
        unoic_cli.evaluate(scores, np.ma.array(labels, mask=labels > 0))


def test_class_names_that_would_steer_a_terminal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scores, labels = sample(10)
    for names in (["\x1b[31mred", "b", "c"], ["a", "b\nc", "d"]):
        path = write_h5("names.h5", scores, labels, class_names=names)
        with pytest.raises(unoic_cli.UnoicError, match="control characters"):
            unoic_cli.info(path)


def test_a_file_that_appeared_meanwhile_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_h5("x.h5", *sample(20))
    for out, run_task in (
        ("o.h5", lambda: unoic_cli.calibrate(path, output="o.h5", lam=1.0, source_prior=COUNTS)),
        ("o.parquet", lambda: unoic_cli.convert(path, "o.parquet")),
        ("o.json", lambda: unoic_cli.prior(path, output="o.json")),
    ):
        link = os.link

        def late(temporary, final, out=out, link=link):
            pathlib.Path(out).write_text("theirs")
            link(temporary, final)

        with monkeypatch.context() as patch:
            patch.setattr(os, "link", late)
            with pytest.raises(unoic_cli.UnoicError, match="meanwhile"):
                run_task()
        assert pathlib.Path(out).read_text() == "theirs"
        assert not [name for name in os.listdir() if name.startswith(".")]


def test_compiling_is_said_before_it_begins(monkeypatch, capsys):
    """Once, at once, and the bar does not stand at 0 % meanwhile; nothing with --quiet."""
    monkeypatch.setattr(compiling, "_State", type("State", (), {"listener": None, "told": False, "running": 0}))
    with cli.common.Told() as told:
        compiling.begin("~/.cache/unoic")
        compiling.begin("~/.cache/unoic")
        err = capsys.readouterr().err
        assert err.startswith("unoic: note: compiling the kernels of this command, once") and err.count("\n") == 1
        assert err.endswith("kept in ~/.cache/unoic\n")
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        told.line.started -= 5
        told.line(0, 1000)
        assert "compiling kernels, 0 s so far" in capsys.readouterr().err
        compiling.end()
        compiling.end()
        told.line(0, 1000)
        assert "0%, 0 B of 1.0 kB" in capsys.readouterr().err
    capsys.readouterr()
    compiling._State.told = False
    with cli.common.Told(quiet=True):
        compiling.begin(None)
    compiling.begin(None)  # nobody listens any more
    assert capsys.readouterr().err == ""
