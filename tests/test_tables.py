"""Terminal tables at 60, 80 and 120 columns: every number of a command's result stands there whole."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter

import h5py
import numpy as np
import pytest
from rich.cells import cell_len

import unoic_cli
from unoic_cli.report.common import units
from unoic_cli.report.layout import Facts, Grid, shortened, wrapped

WIDTHS = (60, 80, 120)
K = 12
LONG = "a-method-with-a-title-that-is-longer-than-any-terminal-here-is-wide-and-says-little-0123456789"


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two modalities of 14 conditions, classes with long names, counts of many digits; in the current folder."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    labels = np.arange(336) % K
    for name in ("rgb", "depth"):
        with h5py.File(f"{name}.h5", "w") as file:
            file["logits"] = (rng.normal(size=(336, K)) + 2 * np.eye(K)[labels]).astype("f4")
            file["labels"] = labels
            file["source_counts"] = 9 * 10 ** np.arange(K, dtype=np.int64) + 12345
            names = [f"class {k} of the things seen " + "on a long road " * (k % 4) for k in range(K)]
            file["class_names"] = np.array(names, dtype=h5py.string_dtype())
            groups = [f"condition_{i // 24}_" + "x" * (i // 24 * 3) for i in range(336)]
            file["group"] = np.array(groups, dtype=h5py.string_dtype())
    np.savez("x.npz", logits=rng.normal(size=(1000, 3)), labels=np.arange(1000) % 3)
    with h5py.File("one.h5", "w") as file:
        file["logits"], file["labels"] = rng.normal(size=(50, 3)), np.arange(50) % 3
    with h5py.File("wide.h5", "w") as file:
        file["labels"] = labels = np.arange(1200) % 1000
        scores = rng.normal(size=(1200, 1000))
        scores[np.arange(1200), labels] += 5
        file["logits"] = scores.astype("f2")
        file["source_counts"] = 1 + np.arange(1000)[::-1] ** 2
        file["class_names"] = np.array([f"n{k:08d} a kind of things" for k in range(1000)], "S")
    unoic_cli.search_lambda("rgb.h5", lam=1, output="c.json")
    return tmp_path


MANY = "acc,macc,miou,f1,gmean,kappa,mcc,fwiou,nll,ece,brier,balanced-nll"
PAIR = ("rgb=rgb.h5", "depth=depth.h5")
METHODS = ("rgb", "depth", "average", "noisy-or", "max", "product", "log-linear", "average@0.4", f"{LONG}=rgb@1.25")
COMMANDS = {
    "info": ("info", "rgb.h5", "one.h5"),
    "convert": ("convert", "x.npz", "out.h5", "--force"),
    "pack": ("pack", "rgb.h5", "packed.h5", "--force", "--codec", "gzip"),
    "pack float16": ("pack", "rgb.h5", "packed.h5", "--force", "--dtype", "float16"),
    "prior": ("prior", "rgb.h5"),
    "fit-delta": ("fit-delta", "rgb=rgb.h5"),
    "fit-temperature": ("fit-temperature", "rgb.h5"),
    "search-lambda": ("search-lambda", "rgb.h5", "--folds", "3", "--metric", "top5"),
    "search-lambda --by": ("search-lambda", *PAIR, "--by", "group", "--per-modality", "--range", "0:2:0.25"),
    "search-lambda --lambda": ("search-lambda", *PAIR, "--lambda", "rgb=0.123456,depth=0.6"),
    "evaluate": ("evaluate", *PAIR, "--by", "group", "--confusion", "-l", "0.4"),
    "evaluate one": ("evaluate", "one.h5", "--confusion"),
    "calibrate": ("calibrate", "rgb.h5", "-o", "c.h5", "--force"),
    "fuse": ("fuse", *PAIR, "-o", "f.h5", "--force"),
    "compare": ("compare", *PAIR, *(word for method in METHODS for word in ("-m", method)), "--by", "group"),
    "compare few": ("compare", *PAIR, "-m", "average", "-m", f"{LONG}=max", "--metrics", "miou,macc,acc,f1"),
    "compare many": ("compare", *PAIR, "-m", "average", "-m", f"{LONG}=max", "--metrics", MANY),
    "compare many --by": ("compare", *PAIR, "-m", "average", "-m", "rgb", "--metrics", MANY, "--by", "group"),
    "compare as-is": ("compare", "rgb.h5", "-m", "as-is", "--metrics", MANY),
    "evaluate 1000": ("evaluate", "wide.h5", "-l", "1", "--confusion"),
    "search-lambda 1000": ("search-lambda", "wide.h5", "--folds", "2"),
    "info 1000": ("info", "wide.h5"),
    "prior 1000": ("prior", "wide.h5"),
    "export": ("export", "c.json"),
    "state": ("evaluate", "rgb.h5", "--shard", "1/2", "--state", "1.unoic", "--force"),
}


def table(run, monkeypatch, width, command):
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, err = run(*command, "--format", "table")
    assert code == 0, err
    return out


def numbers(text):
    """Words that are numbers, and how often each stands there."""
    return Counter(re.findall(r"(?<!\S)[-+]?\d[\d.,]*(?!\S)", text))


@pytest.mark.parametrize("name", COMMANDS)
def test_no_table_loses_a_digit(files, name, run, monkeypatch):
    wide = table(run, monkeypatch, 1000, COMMANDS[name])
    for width in WIDTHS:
        narrow = table(run, monkeypatch, width, COMMANDS[name])
        lost = numbers(wide) - numbers(narrow)
        assert not lost or (name.startswith("info") and lost.total() <= 4), (width, lost)  # info measures its speed
        assert not re.search(r"(?<!\S)[-+]?\d[\d.,]*…", narrow), "names are shortened, and no number"
        assert max(map(cell_len, narrow.splitlines())) <= width
        assert not [line for line in narrow.splitlines() if line != line.rstrip()]


@pytest.mark.parametrize("name", COMMANDS)
def test_csv_and_latex_have_a_number_a_cell(files, name, run):
    words = [word for word in COMMANDS[name] if word != "--confusion"]
    code, text, err = run(*words, "--format", "csv")
    assert code == 0, err
    head, *rows = csv.reader(text.splitlines())
    assert len(rows) >= 1 and {len(row) for row in rows} == {len(head)}
    code, text, err = run(*words, "--format", "latex")
    assert code == 0, err
    sizes = []
    for part in text.split(r"\end{tabular}")[:-1]:
        lines = part.splitlines()
        body = lines[lines.index(r"\midrule") + 1 : lines.index(r"\bottomrule")]
        spec = next(line for line in lines if line.startswith(r"\begin{tabular}"))
        width = len(re.findall("[lr]", spec.partition("tabular}")[2]))
        assert {len(re.split(r"(?<!\\) & ", line.removesuffix(r" \\"))) for line in body} == {width} or "&" in str(rows)
        sizes.append((len(body), width))
    if name.startswith("evaluate"):
        assert len(sizes) == 2 and sum(n for n, _ in sizes) == len(rows)
        assert sum(width for _, width in sizes) == len(head), "names are in one column, and one says what rows are of"
    elif name.startswith("compare"):
        values, *others = sizes
        assert values[0] == len(rows) and others == ([(3 * (len(rows) - 1), values[1])] if len(rows) > 1 else [])
        assert len(head) == 1 + (values[1] - 1) * (4 if others else 1)
    else:
        assert sizes == [(len(rows), len(head))]


def test_csv_has_what_the_json_has(files, run, answer):
    """All, groups and classes of evaluate; gains of compare and calibrate: every figure as it is, in its column."""

    def rows_of(*words):
        code, text, err = run(*words, "--format", "csv")
        assert code == 0, err
        return list(csv.DictReader(text.splitlines()))

    words = ("evaluate", *PAIR, "--by", "group", "-l", "0.4")
    found, rows = answer(*words), rows_of(*words)
    assert [row["of"] for row in rows] == ["all"] * 5 + ["group"] * len(found["groups"]) + ["class"] * found[
        "n_classes"
    ]
    named = {(row["of"], row["setting"]): row for row in rows}
    assert float(named["all", "after"]["miou"]) == found["miou"]
    assert float(named["all", "difference"]["miou"]) == found["gain"]["miou"]["gain"]
    assert float(named["all", "95 % to"]["miou"]) == found["gain"]["miou"]["interval"][1]
    for one in found["groups"]:
        assert float(named["group", one["group"]]["f1"]) == one["f1"]
    for one in found["per_class"]:
        row = named["class", " ".join((one["name"] or str(one["class"])).split())]
        assert int(row["support"]) == one["support"] and row["acc"] == ""
        for key, head in (("recall", "recall"), ("precision", "precision"), ("iou", "iou"), ("f1", "class f1")):
            assert row[head] == ("" if one[key] is None else repr(one[key]))
    words = ("compare", *PAIR, "-m", "average", "-m", "max", "--by", "group", "--metrics", "macc")
    found, rows = answer(*words), rows_of(*words)
    first, second = rows
    told = found["methods"][1]["differences"]
    gains = {name: one["gain"]["macc"] for name, one in told["conditions"].items()} | {
        "average": told["average"]["macc"]
    }
    for name, gain in gains.items():
        ends = [gain["gain"], *(gain["interval"] or ("", ""))]
        assert [second[f"{name} macc {end}"] for end in ("gain", "low", "high")] == list(map(str, ends))
        assert {first[f"{name} macc {end}"] for end in ("gain", "low", "high")} == {""}
    words = ("calibrate", "rgb.h5", "-o", "c.h5", "--force")
    rows = {row["setting"]: row for row in rows_of(*words)}
    change = float(rows["after"]["macc"]) - float(rows["before (as it is)"]["macc"])
    assert float(rows["change"]["macc"]) == change and rows["gain, cross-fitted"]["macc"]


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        ("search-lambda rgb.h5", ["lambda 0 (as it is)", "lambda 1 (fully rebalanced)"]),
        ("evaluate rgb.h5 -l 0.5", ["as it is", "after"]),
        ("calibrate rgb.h5 -l 0.5 -o c.h5 --force", ["before (as it is)", "after"]),
        ("fit-temperature rgb.h5", ["as stored"]),
        ("compare rgb.h5 -m as-is -m c.json", ["as-is", "c"]),
    ],
)
def test_the_scores_as_they_are_have_a_row(files, command, settings, run, answer):
    wanted = answer("evaluate", "rgb.h5")
    _, text, _ = run(*command.split(), "--format", "csv")
    head, *rows = csv.reader(text.splitlines())
    assert [row[0] for row in rows][: len(settings)] == settings
    place = head.index("acc") if "acc" in head else head.index("miou")
    assert float(rows[0][place]) == pytest.approx(wanted[head[place]], abs=1e-12)
    _, latex, _ = run(*command.split(), "--format", "latex")
    line = next(line for line in latex.splitlines() if line.startswith(settings[0]))
    assert f"{100 * wanted[head[place]]:.2f}" in line


def test_as_is_is_of_one_network(files, refuse):
    assert refuse(2, "compare", *PAIR, "-m", "as-is").startswith("--method: as-is of several modalities; ")
    assert refuse(2, "compare", "rgb.h5", "-m", "as-is@0.4").startswith("--method: as-is@0.4; ")


@pytest.mark.parametrize("name", ["compare", "compare few", "evaluate"])
def test_every_number_of_the_tsv_is_in_the_table(files, name, run, monkeypatch):
    shown = ("miou", "macc") if name == "compare" else ("acc", "macc", "miou", "f1")
    _, tsv, _ = run(*(word for word in COMMANDS[name] if word != "--confusion"), "--format", "tsv")
    head, *rows = (line.split("\t") for line in tsv.splitlines())
    wanted = Counter()
    for row in rows:
        wanted.update(f"{100 * float(row[head.index(metric)]):.2f}" for metric in shown)
    assert len(rows) > 1
    for width in WIDTHS:
        assert not wanted - numbers(table(run, monkeypatch, width, COMMANDS[name]).replace("|", " ")), width


@pytest.mark.parametrize("width", WIDTHS)
def test_every_count_of_the_json_is_in_the_table(files, width, run, monkeypatch, answer):
    found = answer(*COMMANDS["evaluate"])
    out = numbers(table(run, monkeypatch, width, COMMANDS["evaluate"]))
    wanted = Counter(f"{count:,}" for row in found["confusion"] for count in row)
    assert not wanted - out
    found = json.loads(run(*COMMANDS["prior"])[1])
    assert not Counter(f"{count:,}" for count in found["counts"]) - numbers(
        table(run, monkeypatch, width, COMMANDS["prior"])
    )
    text = " ".join(table(run, monkeypatch, width, ("info", "rgb.h5")).split())
    for count in (9 * 10**k + 12345 for k in range(K)):
        assert f" {count:,.10g} " in f"{text} "


def lines(renderable, width):
    from rich.console import Console

    console = Console(width=width)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get().splitlines()


def test_a_wide_grid_is_stacked():
    grid = Grid()
    for head, side in (("", "left"), ("first", "right"), ("second", "right"), ("third", "right")):
        grid.add_column(head, justify=side)
    grid.add_row("a label of many words", "1.00", "2.00 | 3.00", "4.00")
    assert lines(grid, 60) == [
        "                       first       second  third",
        "a label of many words   1.00  2.00 | 3.00   4.00",
    ]
    assert lines(grid, 32) == [
        "              first       second",
        "a label of     1.00  2.00 | 3.00",
        "many words",
        "",
        "              third",
        "a label of     4.00",
        "many words",
    ]
    assert lines(Facts((("name", "as given 1,234,567 of 12"),)), 20) == [
        "name  as given",
        "      1,234,567 of",
        "      12",
    ]


@pytest.mark.parametrize("width", [*WIDTHS, 200])
def test_long_names_are_shortened_and_stay_distinct(width):
    """Three lines at most, in each part; what is short stays as it is."""
    grid = Grid()
    names = ["very " + "long " * 60 + "name", "very " + "long " * 62 + "name", "日本語の" * 40, "short, a 7"]
    grid.add_column("class")
    for head in (*names, "other"):
        grid.add_column(head, justify="right")
    for i, name in enumerate(names):
        grid.add_row(name, *(f"{1234567 + i + 10 * j:,}" for j in range(5)))
    shown = lines(grid, width)
    assert max(map(cell_len, shown)) <= width
    parts = "\n".join(shown).split("\n\n")
    for part in parts:
        head, *rows = part.splitlines()
        assert sum(bool(re.search(r"1,234,\d{3}", line)) for line in rows) == 4 and len(rows) <= 10
        assert "short, a 7" in part
    words = [" ".join(part.split()) for part in parts]
    assert all(text in " ".join(words) for text in (f"{1234567 + i + 10 * j:,}" for i in range(4) for j in range(5)))
    made = shortened(names, 20)
    assert len(set(made)) == 4 and max(map(cell_len, made)) <= 20 and made[3] == names[3]
    assert shortened(["ab" * 30] * 2 + ["x"], 20)[0] == shortened(["ab" * 30] * 2 + ["x"], 20)[1]


def test_names_are_whole_but_on_a_terminal(files, run):
    named = json.loads(run("evaluate", "rgb.h5")[1])["per_class"][11]["name"]
    assert len(named) > 60 and all(
        named.strip() in run("evaluate", "rgb.h5", "--format", form)[1] for form in ("tsv", "csv")
    )


def test_words_are_folded_and_numbers_are_not():
    assert wrapped("(1,234,567.89)", 4) == ["(1,234,567.89)"]
    assert wrapped("/a/path/that/is/long", 8) == ["/a/path/", "that/is/", "long"]
    assert wrapped("", 5) == [""]
    assert wrapped("a\nb", 5) == ["a", "b"]
    assert wrapped("日本語の名前", 6) == ["日本語", "の名前"]


def test_units_are_of_what_is_shown(files, run, monkeypatch):
    """A metric that is no percentage does not stand under that word; one class is one."""
    assert units(["mcc"]) == "as it is" and units(["mcc", "nll"]) == "as they are"
    assert units(["acc", "mcc"]) == "percent (MCC: as it is)" and units(["acc"]) == "percent"
    shown = table(run, monkeypatch, 120, ("compare", *PAIR, "-m", "average", "-m", "max", "--metrics", "mcc"))
    assert "percent" not in shown.replace("points of percent", "") and "MCC" in shown
    shown = table(run, monkeypatch, 120, ("search-lambda", "rgb.h5", "--metrics", "mcc", "--metric", "mcc"))
    assert "\nas it is, tuned and measured" in shown
    for n, said in ((1, "1 never occurs"), (2, "2 never occur")):
        np.savez(f"odd{n}.npz", logits=np.eye(4).repeat(3, 0), labels=np.minimum(np.arange(12) // 3, 3 - n))
        assert f"({said})" in table(run, monkeypatch, 120, ("info", f"odd{n}.npz"))
    assert "make a page" in run("demo", "--help")[1]
