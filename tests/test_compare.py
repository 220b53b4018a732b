"""`compare`: cells equal what `evaluate` counts, whatever the form; the street scenes that are committed."""

from __future__ import annotations

import csv
import importlib
import json
import pathlib
import shutil

import numpy as np
import pytest
from said import BESIDE

import unoic_cli
from unoic_cli.cli import run
from unoic_cli.formats import describe

STREETS = pathlib.Path(__file__).parent.parent / "sample_data" / "streets"
CONDITIONS = ("fog", "fall", "winter", "winter_night", "rain", "rain_night", "soft_rain")
CLASSES = 14


def pair(*conditions):
    """Inputs of both modalities, as on the command line."""
    return [f"{m}={STREETS / m / c}.h5" for c in conditions for m in ("rgb", "depth")]


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A folder with files of a calibration of both modalities, with delta, and of one."""
    folder = tmp_path_factory.mktemp("searched")
    val = {m: str(STREETS / m / "val.h5") for m in ("rgb", "depth")}
    unoic_cli.search_lambda(val, delta="fit", range="0:1:0.25", output=str(folder / "uno-ic.json"))
    unoic_cli.search_lambda(f"depth={val['depth']}", output=str(folder / "depth.json"))
    return folder


@pytest.fixture
def calibrations(searched, tmp_path, monkeypatch):
    """Those files in the current folder."""
    monkeypatch.chdir(tmp_path)
    for path in searched.iterdir():
        shutil.copy(path, tmp_path)
    return {"UNO-IC": "uno-ic.json", "depth-IC": "depth.json"}


def test_cells_are_what_evaluate_counts(calibrations):
    statistics = {m: unoic_cli.fit_delta(str(STREETS / m / "val.h5")).statistics for m in ("rgb", "depth")}
    methods = {"rgb": "rgb", "mean": "average", "or": "noisy-or", "UNO": "uno", **calibrations}
    table = unoic_cli.compare(pair("fog", "rain"), methods=methods, by="file", delta=statistics)
    assert table.conditions == ("fog", "rain")
    assert [row.name for row in table.rows] == list(methods)
    options = {
        "rgb": (["rgb"], {}),
        "mean": (["rgb", "depth"], {"fusion": "average"}),
        "or": (["rgb", "depth"], {"fusion": "noisy-or"}),
        "UNO": (["rgb", "depth"], {"delta": statistics}),
        "UNO-IC": (["rgb", "depth"], {"calibration": "uno-ic.json"}),
        "depth-IC": (["depth"], {"calibration": "depth.json"}),
    }
    for row in table.rows:
        modalities, more = options[row.name]
        for condition in table.conditions:
            inputs = {m: str(STREETS / m / f"{condition}.h5") for m in modalities}
            alone = unoic_cli.evaluate(inputs, **more).overall
            assert row.cells[condition].values == alone.values
            assert row.cells[condition].n == alone.n == 6 * 64 * 96
        for metric, value in row.average.items():
            assert value == pytest.approx(np.mean([row.cells[c].values[metric] for c in table.conditions]), abs=1e-15)


def test_any_order_and_any_threads_give_the_same_table(calibrations, capsys):
    said = []
    for inputs, threads in ((pair("fog", "rain"), "1"), (pair("fog", "rain")[::-1], "2")):
        assert run(["compare", *inputs, "--by", "group", "-m", "uno-ic.json", "-m", "max", "--threads", threads]) == 0
        found = json.loads(capsys.readouterr().out)
        said.append({row["name"]: row["conditions"] for row in found["methods"]})
    assert said[0] == said[1]
    assert list(said[0]) == ["uno-ic", "max"]


def test_every_form(calibrations, capsys):
    line = [
        "compare",
        *pair("fog", "rain"),
        "--by",
        "file",
        "-m",
        "a|b_c=average",
        "-m",
        "UNO-IC=uno-ic.json",
        "--format",
    ]
    assert run([*line, "table"]) == 0
    assert "mIoU | mAcc, percent" in capsys.readouterr().out
    assert run([*line, "markdown"]) == 0
    head, rule, first, second = capsys.readouterr().out.splitlines()
    assert head == r"| mIoU \| mAcc | fog | rain | average |"
    assert rule == "| --- | ---: | ---: | ---: |"
    assert first.startswith(r"| a\|b_c | ") and second.startswith("| UNO-IC | ")
    assert (first + second).count("**") == 2 * 2 * 3
    assert run([*line, "latex"]) == 0
    latex = capsys.readouterr().out
    assert r"\begin{tabular}{lrrrrrr}" in latex
    assert r"\multicolumn{2}{c}{fog} & \multicolumn{2}{c}{rain}" in latex
    assert all("|" not in line.replace("a|b", "") for line in latex.splitlines()[1:]), "a number a cell"
    assert r"a|b\_c & " in latex
    assert latex.count(r"\textbf{") == 2 * 3, "of values; what is gained is not compared"
    values, gains = latex.split("% difference to a|b_c")
    assert values.count(r" \\") == 4 and gains.count(r" \\") == 2 + 3
    assert run([*line, "csv"]) == 0
    head, *rows = csv.reader(capsys.readouterr().out.splitlines())
    shown = [f"{of} {name}" for of in ("fog", "rain", "average") for name in ("miou", "macc")]
    assert head == ["method", *(f"{one}{end}" for one in shown for end in ("", " gain", " low", " high"))]
    assert [row[0] for row in rows] == ["a|b_c", "UNO-IC"] and all(
        0 <= float(x) <= 1 for row in rows for x in row[1::4]
    )
    assert all(cell == "" for i in (2, 3, 4) for cell in rows[0][i::4])
    assert all(
        low < gain < high for gain, low, high in zip(*(map(float, rows[1][i::4]) for i in (2, 3, 4)), strict=True)
    )
    assert run([*line, "tsv"]) == 0
    rows = [text.split("\t") for text in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["method", "condition", "n", "acc", "macc", "miou", "f1", "lambda"]
    assert [row[:2] for row in rows[1:]] == [[m, c] for m in ("a|b_c", "UNO-IC") for c in ("fog", "rain", "average")]
    assert run([*line, "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [float(value) for value in rows[1][3:-1]] == [
        found["methods"][0]["conditions"]["fog"][name] for name in ("acc", "macc", "miou", "f1")
    ]


@pytest.mark.parametrize(
    ("more", "code", "text"),
    [
        (["-m", "nothing"], 2, "--method: 'nothing'; expected the file of a calibration, or one of depth, rgb"),
        (["-m", "missing.json"], 66, "missing.json: no such file"),
        (["-m", "uno"], 2, "has no delta"),
        (["-m", "a=average", "-m", "a=max"], 2, "--method: a twice"),
        (["-m", "=average"], 2, "expected METHOD or TITLE=METHOD"),
        (["-m", "missing.json@0.4"], 66, "missing.json: no such file"),
        (["-m", "nothing@0.4"], 2, "--method: 'nothing'; expected the file of a calibration, or one of depth, rgb"),
        (["-m", "average@"], 2, "--method: 'average@', where '' is no lambda; expected"),
        (
            ["-m", "average@nan"],
            2,
            "--method: 'average@nan', where 'nan' is no lambda; expected a number (average@0.4)",
        ),
        (["-m", "average@1e9"], 2, "--method: 1000000000.0; expected a finite number"),
        (["-m", "rgb@rgb=x"], 2, "--method: 'rgb@rgb=x', where 'rgb=x' is no lambda"),
        (["-m", "A=max@x"], 2, "--method: 'max@x', where 'x' is no lambda"),
        (["-m", "average@rgb=1"], 2, "--method: no lambda for depth"),
        (["-m", "uno@0.4"], 2, "has no delta"),
        (["-m", "rgb@depth=1"], 2, "--method: the unknown modality depth; expected rgb"),
        (["-m", "rgb@1", "-m", "X=average", "-m", "rgb@1"], 2, "--method: rgb@1 twice"),
        (["--metrics", "miou,miou"], 2, "--metrics"),
        (["--metrics", "top5"], 2, "--metrics: top5 with average"),
        (["--by", "day"], 2, "--by: 'day'"),
        (["--delta", "fit", "-m", "average"], 2, "--delta: --delta without the method uno"),
        (["--delta-power", "2"], 2, "--delta-power"),
        (["--format", "html"], 2, "--format: 'html'; expected table, json, tsv, markdown, csv or latex"),
        (["--absent", "none"], 2, "--absent: 'none'"),
    ],
)
def test_what_is_refused(more, code, text, capsys):
    assert run(["compare", *pair("fog"), *more]) == code
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith(BESIDE)]
    assert out == ""
    assert len(lines) == 1 and lines[0].startswith("unoic: error: ") and text in lines[0], lines


@pytest.mark.parametrize(
    ("lam", "lams"),
    [("0.4", {"depth": 0.4, "rgb": 0.4}), ("rgb=0.3,depth=0.6", {"depth": 0.6, "rgb": 0.3}), ("-2e-1", None)],
)
def test_methods_at_a_given_lambda_are_what_evaluate_counts(calibrations, lam, lams, answer):
    """``METHOD@LAMBDA`` is what ``--lambda`` says elsewhere, and what ``search-lambda --lambda`` writes."""
    lams = lams or {"depth": -0.2, "rgb": -0.2}
    for m in ("rgb", "depth"):
        unoic_cli.fit_delta(f"{m}={STREETS / m / 'val.h5'}", output=f"{m}.delta.json")
    unoic_cli.search_lambda(pair("val"), fusion="average", per_modality=True, range="0:2:0.5", output="own.json")
    delta = ["--delta", "rgb=rgb.delta.json", "--delta", "depth=depth.delta.json"]
    methods = [f"average@{lam}", f"UNO-IC=uno@{lam}", f"uno-ic.json@{lam}", f"O@1=own.json@{lam}", f"rgb@{lams['rgb']}"]
    found = answer("compare", *pair("rain"), *delta, *(text for method in methods for text in ("-m", method)))
    rows = {row["name"]: row for row in found["methods"]}
    assert list(rows) == [f"average@{lam}", "UNO-IC", f"uno-ic@{lam}", "O@1", f"rgb@{lams['rgb']}"]
    answer("search-lambda", *pair("val"), "-c", "own.json", f"--lambda={lam}", "-o", "given.json")
    options = {
        f"average@{lam}": (pair("rain"), "--fusion", "average", "--delta", "none", f"--lambda={lam}"),
        "UNO-IC": (pair("rain"), *delta, f"--lambda={lam}"),
        f"uno-ic@{lam}": (pair("rain"), *delta, f"--lambda={lam}"),
        "O@1": (pair("rain"), "-c", "given.json"),
        f"rgb@{lams['rgb']}": (pair("rain")[:1], f"--lambda={lams['rgb']}"),
    }
    for name, (inputs, *more) in options.items():
        alone, cell = answer("evaluate", *inputs, *more), rows[name]["conditions"]["all"]
        assert cell == {key: alone[key] for key in cell}, name
        expected = {m: lams[m] for m in rows[name]["lambdas"]}
        assert rows[name]["lambdas"] == expected
        assert rows[name]["lambda"] == (expected["rgb"] if len(set(expected.values())) == 1 else None)


def test_a_file_whose_name_has_an_at_comes_first(calibrations, answer, run):
    text = pathlib.Path("uno-ic.json").read_text()
    for name in ("a@0.4", "a@0.4.json", "a=b@0.4"):
        pathlib.Path(name).write_text(text)
    own = json.loads(text)["lambda"]
    methods = ("a@0.4", "B@7=a@0.4.json@0.25", "a@0.4@0.5", "a=b@0.4")
    line = ["compare", *pair("fog"), *(word for method in methods for word in ("-m", method))]
    rows = [(row["name"], row["lambda"]) for row in answer(*line)["methods"]]
    assert rows == [("a@0.4", own), ("B@7", 0.25), ("a@0.4@0.5", 0.5), ("a=b@0.4", own)]
    code, out, _ = run(*line, "--format", "tsv")
    assert (code, [row.split("\t")[-1] for row in out.splitlines()]) == (0, ["lambda", *(repr(lam) for _, lam in rows)])
    code, out, _ = run("compare", *pair("fog"), "-m", "a@0.4@rgb=1,depth=2", "--format", "tsv")
    assert out.splitlines()[1].startswith("a@0.4@rgb=1,depth=2\t") and out.endswith("\tdepth=2.0,rgb=1.0\n")


def test_a_lambda_in_shards(calibrations, answer):
    line = ("compare", *pair("fog", "rain"), "-m", "uno-ic.json@0.4", "-m", "average@rgb=0.3,depth=0.6")
    whole = answer(*line)
    states = [f"{i}.unoic" for i in (1, 2)]
    for i, name in enumerate(states, 1):
        answer(*line, "--shard", f"{i}/2", "--state", name)
    assert answer("report", *states) == whole


def test_what_is_calibrated_already(tmp_path, monkeypatch, refuse, answer):
    """A second rebalancing is refused, as by evaluate; a method that rebalances nothing is not."""
    monkeypatch.chdir(tmp_path)
    val = STREETS / "rgb" / "val.h5"
    answer("search-lambda", val, "--lambda", 0.4, "-o", "c.json")
    answer("calibrate", val, "-c", "c.json", "-o", "x.h5")
    for method in ("c.json", "c.json@1"):
        line = refuse(65, "compare", "x.h5", "-m", method)
        assert line.startswith("x.h5: a file written by unoic calibrate, rebalanced already")
    assert "rebalanced already" in refuse(65, "compare", "a=x.h5", f"b={val}", "-m", "average@0.4")
    answer("compare", "a=x.h5", f"b={val}", "-m", "average", "-m", "a")


def test_a_calibration_of_other_modalities(calibrations, capsys):
    inputs = [text.replace("depth=", "lidar=") for text in pair("fog")]
    assert run(["compare", *inputs, "-m", "uno-ic.json"]) == 2
    assert "a calibration of the modality depth; expected only lidar, rgb" in capsys.readouterr().err


# ---------------------------------------------------------------- the street scenes


def test_the_streets_have_the_difficulties_they_promise():
    sources = {m: describe(str(STREETS / m / "val.h5")) for m in ("rgb", "depth")}
    counts = sources["rgb"].source_counts
    assert len(counts) == CLASSES
    assert max(counts) / min(counts) >= 1000
    assert sources["depth"].source_counts == counts
    for condition in ("val", "test", *CONDITIONS):
        for modality in ("rgb", "depth"):
            source = describe(str(STREETS / modality / f"{condition}.h5"))
            assert source.encoding == "float16"
            assert source.image_shape == (64, 96)
    assert sum(path.stat().st_size for path in STREETS.rglob("*") if path.is_file()) < 20e6


def test_scenes_are_the_same_every_time(monkeypatch):
    monkeypatch.syspath_prepend(STREETS)
    render = importlib.import_module("scenes").render
    first, again = (render(5, "rain_night") for _ in range(2))
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one, other)
    rgb, depth, label = first
    assert (rgb.shape, depth.shape, label.shape) == ((64, 96, 3), (64, 96), (64, 96))
    assert label.max() < CLASSES


def test_figures_of_the_page(calibrations):
    """Averages over the unseen conditions, as docs/experiments.md has them: at lambda 0.4 in the paper's order."""
    delta = {m: unoic_cli.fit_delta(str(STREETS / m / "val.h5")).statistics for m in ("rgb", "depth")}
    val = {m: str(STREETS / m / "val.h5") for m in ("rgb", "depth")}
    unoic_cli.search_lambda(val, delta=delta, order="rebalance-first", lam=0.4, output="r.json")
    methods = ["rgb", "depth", "average", "uno", "average@0.4", "uno@0.4", "r.json", "uno@1", "r.json@1"]
    table = unoic_cli.compare(pair(*CONDITIONS), methods=methods, by="group", delta=delta)
    found = {row.name: [round(100 * row.average[name], 2) for name in ("miou", "macc")] for row in table.rows}
    assert found == {
        "rgb": [29.42, 39.66],
        "depth": [42.26, 51.68],
        "average": [44.02, 50.08],
        "uno": [44.70, 50.74],
        "average@0.4": [44.06, 54.35],
        "uno@0.4": [41.06, 56.28],
        "r": [44.72, 54.89],
        "uno@1": [23.72, 41.91],
        "r@1": [38.41, 61.98],
    }
