"""`compare`: cells equal what `evaluate` counts, whatever the form; the street scenes that are committed."""

from __future__ import annotations

import importlib
import json
import pathlib

import numpy as np
import pytest

import unoic_cli
from unoic_cli.cli import run
from unoic_cli.formats import describe

STREETS = pathlib.Path(__file__).parent.parent / "sample_data" / "streets"
CONDITIONS = ("fog", "fall", "winter", "winter_night", "rain", "rain_night", "soft_rain")
CLASSES = 14


def pair(*conditions):
    """Inputs of both modalities, as on the command line."""
    return [f"{m}={STREETS / m / c}.h5" for c in conditions for m in ("rgb", "depth")]


@pytest.fixture
def calibrations(tmp_path, monkeypatch):
    """Files of a calibration of both modalities, with delta, and of one; in the current folder."""
    monkeypatch.chdir(tmp_path)
    val = {m: str(STREETS / m / "val.h5") for m in ("rgb", "depth")}
    unoic_cli.search_lambda(val, delta="fit", range="0:1:0.25", output="uno-ic.json")
    unoic_cli.search_lambda(f"depth={val['depth']}", output="depth.json")
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
    assert r"\begin{tabular}{lccc}" in latex
    assert r"a|b\_c & " in latex
    assert latex.count(r"\textbf{") == 2 * 3
    assert latex.count(r" \\") == 3
    assert run([*line, "tsv"]) == 0
    rows = [text.split("\t") for text in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["method", "condition", "n", "acc", "macc", "miou", "f1"]
    assert [row[:2] for row in rows[1:]] == [[m, c] for m in ("a|b_c", "UNO-IC") for c in ("fog", "rain", "average")]
    assert run([*line, "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [float(value) for value in rows[1][3:]] == [
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
        (["--metrics", "miou,miou"], 2, "--metrics"),
        (["--metrics", "top5"], 2, "--metrics: 'top5'"),
        (["--by", "day"], 2, "--by: 'day'"),
        (["--delta", "fit", "-m", "average"], 2, "--delta: --delta without the method uno"),
        (["--delta-power", "2"], 2, "--delta-power"),
        (["--format", "html"], 2, "--format: 'html'; expected table, json, markdown, latex or tsv"),
        (["--absent", "none"], 2, "--absent: 'none'"),
    ],
)
def test_what_is_refused(more, code, text, capsys):
    assert run(["compare", *pair("fog"), *more]) == code
    out, err = capsys.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith("unoic: note: ")]
    assert out == ""
    assert len(lines) == 1 and lines[0].startswith("unoic: error: ") and text in lines[0], lines


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
    """Single networks and plain fusion under fog, as docs/reproduction.md has them."""
    table = unoic_cli.compare(pair(*CONDITIONS), methods=["rgb", "depth", "average"], by="group")
    found = {row.name: [round(100 * row.average[name], 2) for name in ("miou", "macc")] for row in table.rows}
    assert found == {"rgb": [29.42, 39.66], "depth": [42.26, 51.68], "average": [44.02, 50.08]}
