"""Pages hold what commands count, are complete or absent, and are right in a browser: to the last digit."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import html.parser
import json
import pathlib
import re
import shlex
import shutil
import time
import zlib
from dataclasses import replace

import h5py
import numpy as np
import pytest

import unoic_cli
from unoic_cli.commands import along
from unoic_cli.commands import page as steps
from unoic_cli.errors import CannotCreateError, DataError, UsageError
from unoic_cli.pages.document import document, packed

SAMPLES = pathlib.Path(__file__).resolve().parents[1] / "sample_data"
VAL, TEST = str(SAMPLES / "fashion_lt" / "val.h5"), str(SAMPLES / "fashion_lt" / "test.h5")
DIGITS = str(SAMPLES / "digits_lt" / "val.h5")
STREETS = [f"{name}={SAMPLES / 'streets' / name / 'val.h5'}" for name in ("rgb", "depth")]
METRICS = "acc,macc,miou,f1,precision,fwiou,gmean,kappa,mcc,many,medium,few,specificity,"
METRICS += "recall[bag],iou[3],specificity[bag],top2"
HOSTILE = [
    "</script><img src=x onerror=alert(1)>",
    "<!--",
    'a,"b"',
    "=1+1",
    "\u202e",
    "&amp;",
    "__proto__",
    "",
    "7",
    "ok",
]


def unpacked(content):
    """The data of a page, read as the script reads it, in Python."""
    text = content.decode()
    raw = zlib.decompress(base64.b64decode(re.search(r'id="data">([^<]*)<', text)[1]), 31)
    size = int.from_bytes(raw[:4], "little")
    return revived(json.loads(raw[4 : 4 + size]), raw[4 + size :])


def revived(value, raw):
    if isinstance(value, list):
        return [revived(one, raw) for one in value]
    if not isinstance(value, dict):
        return value
    if {"at", "shape", "type"} != set(value):
        return {key: revived(one, raw) for key, one in value.items()}
    found = np.frombuffer(raw, f"<{value['type']}", int(np.prod(value["shape"])), value["at"]).reshape(value["shape"])
    return found if value["type"] == "f8" else found.astype(np.int64).cumsum(axis=0)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """The page of a search with all that there is, and of a test set."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    unoic_cli.page(
        VAL,
        output=path,
        test=TEST,
        metrics=METRICS,
        metric="miou",
        subject_to="acc>=base+0.02",
        by="file",
        range="0:3:0.05",
    )
    return path


def chosen():
    """The calibration of that page."""
    return unoic_cli.search_lambda(VAL, metric="miou", subject_to="acc>=base+0.02", range="0:3:0.05").calibration


def hostile(path="hostile.h5", names=HOSTILE, n=400):
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file["labels"] = labels = rng.integers(0, len(names), n)
        file["logits"] = (rng.normal(size=(n, len(names))) + 3 * np.eye(len(names))[labels]).astype("f4")
        file["class_names"] = np.array(names, dtype=h5py.string_dtype())
        file["group"] = np.array([names[i % 3] for i in range(n)], dtype=h5py.string_dtype())
        file["source_counts"] = np.arange(1, len(names) + 1) * 30
    return path


# ------------------------------------------------------------------------------------------------
# what it holds


@pytest.mark.parametrize(
    ("dtype", "most"), [(np.uint8, 200), (np.int32, 1 << 30), (np.int64, 200), (np.int64, 1 << 40)]
)
@pytest.mark.parametrize("shape", [(0,), (1,), (7,), (5, 3), (4, 0)])
def test_arrays_come_back(dtype, most, shape):
    array = np.random.default_rng(0).integers(0, most, shape).astype(dtype)
    content = unpacked(document("x", {"a": array, "b": [1, {"c": np.array([0.1, np.nan])}], "d": float("nan")}))
    assert content["a"].tolist() == array.tolist() and content["d"] is None
    assert content["b"][1]["c"].tobytes() == np.array([0.1, np.nan]).tobytes()


@pytest.mark.parametrize(("most", "kind"), [((1 << 31) - 1, b'"i4"'), (1 << 31, b'"i8"')])
def test_counts_are_four_bytes_as_long_as_they_fit(most, kind):
    assert kind in zlib.decompress(packed({"a": np.array([most, 0])}), 31)


@pytest.mark.parametrize("tab", [0, 1])
def test_counts_and_intervals_are_those_of_evaluate(made, tab):
    content = unpacked(made.read_bytes())["tabs"][tab]
    known = {one["name"]: one for one in content["metrics"]}
    calibration = chosen()
    assert content["lambda"] == calibration.lam == content["lams"][content["chosen"]]
    for g in (0, 7, 21, 60):
        lam = float(content["lams"][g])
        found = unoic_cli.evaluate((VAL, TEST)[tab], calibration=replace(calibration, lam=lam), metrics=METRICS)
        for name in ("hits", "predicted", "support"):
            here = content["counts"][name] if name == "support" else content["counts"][name][g]
            assert here.tolist() == getattr(found.overall.counts, name).tolist()
            assert content["base"][name].tolist() == getattr(found.before.counts, name).tolist()
        for name, one in known.items():
            assert one["base"] == found.before.values[name]
            if "values" in one:
                assert one["values"][g] == found.overall.values[name]
            gain = found.difference.gain[name]
            assert (one["low"][g], one["high"][g]) == (gain.low, gain.high) if "low" in one else name == "top2"
    assert {name for name, one in known.items() if "values" in one} == {"fwiou", "gmean", "kappa", "mcc", "top2"}


def test_groups_have_counts_of_their_own():
    hostile(names=list("abcdefg"))
    unoic_cli.page("hostile.h5", output="p.html", by="group")
    content = unpacked(pathlib.Path("p.html").read_bytes())["tabs"][0]
    g = 130
    found = unoic_cli.evaluate("hostile.h5", lam=float(content["lams"][g]), by="group")
    assert [one["name"] for one in content["groups"]] == list(found.groups) == ["a", "b", "c"]
    for one in content["groups"]:
        for name in ("hits", "predicted"):
            assert one["counts"][name][g].tolist() == getattr(found.groups[one["name"]].counts, name).tolist()
            assert one["base"][name].tolist() == getattr(found.before_by[one["name"]].counts, name).tolist()


def test_a_lambda_between_two_points_is_a_point_of_its_own():
    calibration = unoic_cli.search_lambda(VAL).calibration
    made = unoic_cli.page(
        VAL,
        output="p.html",
        calibration=calibration,
        lam=1.2345,
        by="file",
        subject_to="acc>=base+0.03",
        metrics="acc,gmean",
    )
    content = unpacked(pathlib.Path("p.html").read_bytes())["tabs"][0]
    found = unoic_cli.evaluate(VAL, calibration=replace(calibration, lam=1.2345), metrics="acc,gmean")
    g = content["chosen"]
    assert content["lams"][g] == made.tabs[0]["lambda"] == 1.2345 and len(content["lams"]) == 602
    assert content["counts"]["hits"][g].tolist() == found.overall.counts.hits.tolist()
    assert content["groups"][0]["counts"]["hits"][g].tolist() == found.overall.counts.hits.tolist()
    known = {one["name"]: one for one in content["metrics"]}
    assert known["gmean"]["values"][g] == found.overall.values["gmean"]
    assert known["acc"]["low"][g] == found.difference.gain["acc"].low
    assert content["ruled_out"][g] == (found.overall.values["acc"] < found.before.values["acc"] + 0.03)
    assert dict(content["facts"])["lambda"].startswith("1.2345, as given (--lambda); searched for on this data: ")


def test_constraints_rule_out_what_the_search_does(made):
    content = unpacked(made.read_bytes())["tabs"][0]
    hits, n = content["counts"]["hits"].sum(axis=1), content["counts"]["support"].sum()
    need = content["base"]["hits"].sum() + 0.02 * n
    assert content["ruled_out"].tolist() == (hits < need - 1e-9).tolist()
    assert 0 < content["ruled_out"].sum() < len(hits)


def test_confusion_and_reliability_are_those_of_evaluate(made):
    content = unpacked(made.read_bytes())["tabs"][1]["at"]
    found = unoic_cli.evaluate(TEST, calibration=chosen(), confusion=True, metrics="ece")
    matrix = found.confusion
    assert content["confusion"]["matrix"].tolist() == matrix.tolist()
    truth, who, n = content["confusion"]["pairs"][0]
    off = matrix - np.diag(np.diag(matrix))
    assert n == off.max() == off[truth, who] and content["confusion"]["n"] == np.count_nonzero(off)
    assert content["reliability"] == found.reliability
    assert content["mcnemar"] == found.difference.mcnemar.to_dict()


def test_a_state_has_what_it_knows(run, answer):
    answer("search-lambda", VAL, "--by", "file", "--state", "a.unoic")
    answer("search-lambda", VAL, "--metric", "miou", "--state", "b.unoic")
    answer("search-lambda", VAL, "--by", "file", "--page", "data.html")
    told = answer("page", "CE=a.unoic", "b.unoic", "-o", "p.html")
    assert [one["name"] for one in told["tabs"]] == ["CE", "b.unoic"]
    one, two = unpacked(pathlib.Path("p.html").read_bytes())["tabs"]
    assert one["at"] is None and (one["goal"], two["goal"]) == ("macc", "miou")
    data = unpacked(pathlib.Path("data.html").read_bytes())["tabs"][0]
    assert one["counts"]["hits"].tolist() == data["counts"]["hits"].tolist()
    assert one["groups"][0]["counts"]["predicted"].tolist() == data["groups"][0]["counts"]["predicted"].tolist()
    answer("report", "a.unoic", "--page", "r.html")
    again = unpacked(pathlib.Path("r.html").read_bytes())
    assert again["command"] == f"unoic search-lambda {VAL} --by file --page r.html"
    assert again["tabs"][0]["counts"]["hits"].tolist() == data["counts"]["hits"].tolist()


def test_fused_runs_and_methods_are_tabs(answer):
    answer("page", *STREETS, "--range", "0:1:0.25", "-o", "fused.html")
    (fused,) = unpacked(pathlib.Path("fused.html").read_bytes())["tabs"]
    found = unoic_cli.evaluate(STREETS, lam=0.5)
    assert fused["counts"]["hits"][2].tolist() == found.overall.counts.hits.tolist()
    assert ["fusion", "noisy-or"] in fused["facts"]
    told = answer("compare", *STREETS, "-m", "rgb", "-m", "average", "-m", "max@0.5", "--page", "methods.html")
    tabs = unpacked(pathlib.Path("methods.html").read_bytes())["tabs"]
    assert [one["name"] for one in tabs] == [one["name"] for one in told["methods"]] == ["rgb", "average", "max@0.5"]
    for tab, one in zip(tabs, told["methods"], strict=True):
        counts = tab["counts"]
        assert np.mean(counts["hits"][0] / counts["support"]) == pytest.approx(one["average"]["macc"], abs=1e-12)
    gain = told["methods"][1]["differences"]["conditions"]["all"]["gain"]["macc"]
    shown = {one["name"]: one for one in tabs[1]["metrics"]}["macc"]
    assert [shown["low"][0], shown["high"][0]] == gain["interval"] and tabs[1]["against"] == "rgb"


def test_images_are_shown(answer):
    path = STREETS[0].partition("=")[2]
    told = answer("evaluate", path, "-l", "0.4", "--by", "image", "--page", "e.html")
    (tab,) = unpacked(pathlib.Path("e.html").read_bytes())["tabs"]
    for one in tab["images"]["metrics"]:
        wanted = told["images"]["metrics"][one["name"]]
        assert [one["mean"][0], *one["quartiles"][0]] == [wanted["mean"], *wanted["quartiles"]]
    assert tab["images"]["points"] == 1 and tab["at"]["confusion"] is None
    answer("page", path, "--range", "0:1:0.5", "--by", "image", "-o", "p.html")
    (tab,) = unpacked(pathlib.Path("p.html").read_bytes())["tabs"]
    assert tab["groups"] is None and tab["images"]["n"] == told["images"]["n"]


@pytest.mark.parametrize("inputs", [STREETS[:1], STREETS], ids=["one", "fused"])
def test_images_are_those_of_evaluate_at_every_lambda(run, answer, inputs, monkeypatch):
    """Of a split alone, of images without labels, of a chosen lambda beside the curve, and whatever reads the data."""
    for text in inputs:
        name, _, path = text.partition("=")
        with h5py.File(path) as stored, h5py.File(f"{name}.h5", "w") as file:
            for key in stored:
                stored.copy(key, file)
            file["labels"][2:4] = 255
            file["split"] = np.array(["a", "b", "a"] * 4, dtype=h5py.string_dtype())
    given = [f"{name}={name}.h5" for name in ("rgb", "depth")[: len(inputs)]] if len(inputs) > 1 else ["rgb.h5"]
    common = ["--split", "a", "--by", "image", "--metrics", "miou,recall[3]"]
    # a chosen lambda that is no point: of a fixed calibration
    run("search-lambda", *given, "--split", "a", "--range", "0:1:0.5", "-o", "c.json")
    calibration = unoic_cli.Calibration.load("c.json")
    said = answer("page", *given, "-c", "c.json", "--lambda", "0.37", "--range", "0:2:0.4", *common, "-o", "p.html")
    first = pathlib.Path("p.html").read_bytes()
    (tab,) = unpacked(first)["tabs"]
    shown, lams = tab["images"], tab["lams"].tolist()
    assert shown["points"] == len(lams) == 7 and 0.37 in lams and said["tabs"][0]["lambda"] == 0.37
    fallen = 0
    for g, lam in enumerate(lams):
        pathlib.Path("n.json").write_text(json.dumps(replace(calibration, lam=lam).to_dict()))
        found = answer("evaluate", *given, "-c", "n.json", *common)["images"]
        assert shown["n"] == found["n"] == 6 and shown["n_empty"] == found["n_empty"] == 2
        for one in shown["metrics"]:
            wanted = found["metrics"][one["name"]]
            assert [one["n"][g], one["mean"][g], *one["quartiles"][g]] == [
                wanted["n"], wanted["mean"], *wanted["quartiles"],
            ]  # fmt: skip
            assert one["before"] == wanted["before"]["mean"] and one["gain"][g] == wanted["gain"]
            assert [one["low"][g], one["high"][g]] == wanted["interval"]
        for i, one in enumerate(found["worst"]):
            assert shown["listed"][shown["worst"][g, i]] == [one["sample_id"], one["n"]]
            for metric in shown["metrics"]:
                value = metric["worst"][g, i]
                assert value == one[metric["name"]] or (np.isnan(value) and one[metric["name"]] is None)
        lost = shown["losers"]
        assert (lost["images"][g] >= 0).sum() == len(found["losers"])
        for i, one in enumerate(found["losers"]):
            assert shown["listed"][lost["images"][g, i]] == [one["sample_id"], one["n"]]
            assert [lost[key][g, i] for key in ("before", "now", "change")] == [
                one["before"], one["miou"], one["change"],
            ]  # fmt: skip
            assert one["change"] == one["miou"] - one["before"] < 0
        changes = [one["change"] for one in found["losers"]]
        assert changes == sorted(changes)
        fallen += len(changes)
    assert fallen
    monkeypatch.setattr("unoic_cli.data.dataset.SPAN_BYTES", 40_000)
    again = ["-c", "c.json", "--lambda", "0.37", "--range", "0:2:0.4", *common, "-o", "p.html", "--force"]
    assert run("page", *given, *again, "--threads", "1")[0] == 0
    assert pathlib.Path("p.html").read_bytes() == first


def test_too_many_images_are_those_of_the_chosen_lambda(answer, monkeypatch):
    path = STREETS[0].partition("=")[2]
    monkeypatch.setattr(along, "MOST_CELLS", 100)
    said = answer("page", path, "--range", "0:1:0.5", "--by", "image", "-o", "p.html")
    assert any("each image by itself is shown at the lambda of the page alone" in text for text in said["notes"])
    (tab,) = unpacked(pathlib.Path("p.html").read_bytes())["tabs"]
    assert tab["images"]["points"] == 1
    said = answer("page", path, "--range", "0:1:0.5", "--by", "image", "--metrics", "nll", "-o", "p.html", "--force")
    assert any("(beside NLL)" in text for text in said["notes"])


# ------------------------------------------------------------------------------------------------
# the file


def test_the_same_inputs_give_the_same_bytes_by_the_command_that_is_named(run):
    words = [
        "page",
        DIGITS,
        "-o",
        "p.html",
        "--metrics",
        "recall[3],acc",
        "--subject-to",
        "acc>=base",
        "--ignore-index",
        "4",
    ]
    assert run(*words)[0] == 0
    first = pathlib.Path("p.html").read_bytes()
    command = shlex.split(unpacked(first)["command"])
    assert command[:3] == ["unoic", "page", DIGITS]
    assert run(*command[1:], "--force", "--threads", "1")[0] == 0
    assert pathlib.Path("p.html").read_bytes() == first


def test_the_second_file_is_the_test_set(run):
    """Of files that were given as one set there is no line, as a line would part them."""
    assert run("page", DIGITS, str(SAMPLES / "digits_lt" / "test.h5"), "-o", "p.html", "--range", "0:1")[0] == 0
    page = unpacked(pathlib.Path("p.html").read_bytes())
    assert [pathlib.Path(one["name"]).name for one in page["tabs"]] == ["val.h5", "test.h5"]
    assert [one["tuned"] for one in page["tabs"]] == [True, False]
    assert "--test" in page["command"]
    together = unoic_cli.page([DIGITS, str(SAMPLES / "digits_lt" / "test.h5")], output="q.html", range="0:1")
    assert len(together.tabs) == 1 and together.command is None
    for name in ("a=1.h5", "b=1.h5"):  # names of their own, and of no modality
        shutil.copy(DIGITS, name)
    together = unoic_cli.page(["a=1.h5", "b=1.h5"], output="r.html", range="0:1")
    assert len(together.tabs) == 1 and together.command is None


def test_arrays_have_no_command_line():
    made = unoic_cli.page([[2.0, 1.5], [2.0, 0.0], [0.2, 1.0]], [1, 0, 1], source_prior=[3, 1], output="p.html")
    assert made.command is None and unpacked(pathlib.Path("p.html").read_bytes())["command"] is None


def test_credentials_are_not_in_the_command():
    line = steps.paged.command_line(
        "page", "https://me:secret@host/v.h5?sig=1", steps.PageOptions, {"output": "p.html"}
    )
    assert line == "unoic page https://host/v.h5 --output p.html"


class Reader(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.inside = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.inside.append((self.lasttag, data))


def test_nothing_but_its_own_script_and_style_may_run():
    hostile()
    unoic_cli.page("hostile.h5", output="p.html", by="group")
    text = pathlib.Path("p.html").read_text()
    reader = Reader()
    reader.feed(text)
    assert "onerror" not in text.replace(".onerror", "")
    (policy,) = [one["content"] for tag, one in reader.tags if one.get("http-equiv") == "Content-Security-Policy"]
    parts = dict(one.strip().split(" ", 1) for one in policy.split(";"))
    assert parts["default-src"] == "'none'" and {"base-uri", "form-action"} <= set(parts)
    script, style = (
        re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1],
        re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1],
    )
    for name, content in (("script-src", script), ("style-src", style)):
        assert parts[name] == f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"
    for _, attributes in reader.tags:
        assert not any(name.startswith("on") or name in ("style", "src") for name in attributes)
        assert attributes.get("href", "data:,") == "data:,"
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)


@pytest.mark.parametrize(
    ("args", "error", "said"),
    [
        ((DIGITS,), UsageError, "--output: no file; expected one for the page"),
        ((DIGITS, "-o", "there.html"), CannotCreateError, "there.html: the file exists; expected a new name, or"),
        (("-", "-o", "p.html"), UsageError, "-: a stream, which is opened once; expected files"),
        ((DIGITS, "--test", "-", "-o", "p.html"), UsageError, "-: a stream, which is opened once; expected files"),
        ((DIGITS, "--offsets", "fit", "-o", "p.html"), UsageError, "--offsets: fit, which moves all classes at every"),
        ((DIGITS, "--test", VAL, "-o", "p.html"), DataError, VAL),
        (
            (DIGITS, VAL, TEST, "-o", "p.html"),
            UsageError,
            f"{TEST}: a third file; expected VAL and TEST: files that are",
        ),
        (
            (DIGITS, "--test-split", "a", "-o", "p.html"),
            UsageError,
            "--test-split: --test-split without a test set; expected",
        ),
        ((DIGITS, VAL, "--test", TEST, "-o", "p.html"), UsageError, f"--test: a test set beside {VAL}; expected one"),
        (("s.unoic", DIGITS, "-o", "p.html"), UsageError, f"{DIGITS}: no state, beside some that are; expected"),
        (("s.unoic", "--metric", "miou", "-o", "p.html"), UsageError, "--metric: --metric beside a state, which has"),
        (("e.unoic", "-o", "p.html"), DataError, "e.unoic: a state of unoic evaluate; expected one of unoic search"),
        (
            (*STREETS, "--lambda", "rgb=0.4,depth=0.2", "--range", "0:1:0.5", "-o", "p.html"),
            UsageError,
            "--lambda: a lambda for each modality, in other proportions than the curve's; expected one number",
        ),
        ((DIGITS, "-o", DIGITS, "--force"), UsageError, f"--output: '{DIGITS}'; expected a name that ends with .html"),
        ((DIGITS, "-c", "c.html", "-o", "c.html", "--force"), CannotCreateError, "c.html: the output is also an input"),
    ],
)
def test_what_cannot_be_is_one_line_and_no_file(run, args, error, said):
    pathlib.Path("there.html").write_text("mine")
    if "unoic" in args[0]:
        assert (
            run("search-lambda", DIGITS, "--state", "s.unoic")[0]
            == run("evaluate", DIGITS, "--state", "e.unoic")[0]
            == 0
        )
    if "c.html" in args:
        assert run("search-lambda", DIGITS, "-o", "c.html")[0] == 0
    code, out, err = run("page", *args)
    assert (code, out, err.count("\n")) == (error.exit_code, "", 1), err
    assert err.startswith(f"unoic: error: {said}")
    assert not pathlib.Path("p.html").exists() and pathlib.Path("there.html").read_text() == "mine"


def test_force_is_for_an_output(run):
    for command in ("search-lambda", "evaluate", "compare"):
        code, _, err = run(command, DIGITS, "--force", *(["-m", "rgb"] if command == "compare" else []))
        assert code == 2 and "--force without" in err
        pathlib.Path("p.html").write_text("mine")
        more = ["-l", "1"] if command == "evaluate" else []
        if command != "compare":
            assert run(command, DIGITS, *more, "--page", "p.html")[0] == 73
            assert run(command, DIGITS, *more, "--page", "p.html", "--force")[0] == 0
            assert pathlib.Path("p.html").read_text().startswith("<!DOCTYPE html>")


def test_nothing_is_written_after_a_warning_with_strict(run):
    hostile("few.h5", n=30)
    code, _, err = run("page", "few.h5", "-o", "p.html", "--strict")
    assert code == 65 and "W4" in err and not pathlib.Path("p.html").exists()


# ------------------------------------------------------------------------------------------------
# in a browser


@pytest.fixture(scope="session")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="pip install 'unoic[test-page]'")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with api.sync_playwright() as playwright:
        try:
            one = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"no browser: {str(error).splitlines()[0]}")
        yield one
        one.close()


@pytest.fixture
def opened(browser):
    """What opens a page, and sees to it that it says nothing and asks for nothing."""
    with contextlib.ExitStack() as stack:
        said, asked, addresses = [], [], set()

        def show(path, after="", **options):
            context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
            stack.callback(context.close)
            tab = context.new_page()
            tab.on("console", lambda one: said.append(one.text))
            tab.on("pageerror", lambda one: said.append(str(one)))
            tab.on("request", lambda one: asked.append(one.url))
            tab.on("dialog", lambda one: said.append("a dialog"))
            address = pathlib.Path(path).resolve().as_uri()
            addresses.add(address)
            tab.goto(address + after)
            tab.wait_for_selector("html[data-ready]")
            return tab

        yield show
        assert said == [] and set(asked) == addresses


TABLE = """name => [...document.querySelectorAll(`#${name} tbody tr:not(.gap)`)].filter(row => !row.hidden).map(row => [
    row.children[0].textContent,
    ...[...row.querySelectorAll("data")].map(one => one.value === "" ? null : one.value.split(" ").map(Number))])"""


def until(tab, true):
    """Wait until an expression is true; the page lets nobody else watch it."""
    for _ in range(100):
        if tab.evaluate(true):
            return
        time.sleep(0.05)
    raise AssertionError(f"never: {true}")


def table(tab, name):
    """Rows of a table: a name, and numbers as they are, not as they are shown."""
    return {
        row[0]: [one if one is None or len(one) > 1 else one[0] for one in row[1:]] for row in tab.evaluate(TABLE, name)
    }


def slide(tab, place):
    tab.evaluate(
        "i => { const s = document.getElementById('lam'); s.value = i; s.dispatchEvent(new Event('input')); }", place
    )
    return float(tab.text_content("#now"))


@pytest.mark.parametrize("which", [0, 1])
def test_twenty_places_are_the_json_to_the_last_digit(made, opened, answer, which):
    tab = opened(made)
    if which:
        tab.click("#tab-1")
    calibration = chosen()
    ious = [one["iou"] for one in answer("evaluate", (VAL, TEST)[which])["per_class"]]
    for place in np.linspace(0, 60, 20).round().astype(int).tolist():
        lam = slide(tab, place)
        pathlib.Path("c.json").write_text(json.dumps(replace(calibration, lam=lam).to_dict()))
        told = answer("evaluate", (VAL, TEST)[which], "-c", "c.json", "--metrics", METRICS, "--by", "file")
        rows = table(tab, "metrics")
        listed = {one["title"]: one["name"] for one in unpacked(made.read_bytes())["tabs"][0]["metrics"]}
        assert set(rows) == set(listed) and set(listed.values()) == set(told["gain"])
        for title, (base, now, change, interval) in rows.items():
            name = listed[title]
            gain = told["gain"][name]
            assert (base, now, change, interval) == (told["before"][name], told[name], gain["gain"], gain["interval"])
        changes = {one["name"]: one["gain"] for one in told["changes"]}
        for one, row in zip(told["per_class"], table(tab, "classes").items(), strict=True):
            recall, change, precision, iou, iou_change, *rest = row[1]
            wanted = [one[key] for key in ("f1", "support", "predicted")]
            assert [row[0], recall, precision, iou] == [one[key] for key in ("name", "recall", "precision", "iou")]
            assert rest[:3] == wanted and iou_change == pytest.approx(one["iou"] - ious[one["class"]], abs=1e-12)
            assert change == pytest.approx(changes.get(one["name"], 0.0), abs=1e-12)
        (group,) = told["groups"]
        values = table(tab, "groups")[group["group"]]
        assert values[:3] == [group["n"], group["acc"], group["gain"]["acc"]["gain"]]
        shots = table(tab, "shots")
        assert [row[2] for row in shots.values()] == [told[name] for name in ("many", "medium", "few")]


def test_keys_and_the_pointer_move_lambda(made, opened):
    tab = opened(made)
    now = lambda: float(tab.text_content("#now"))  # noqa: E731
    tab.focus("#lam")
    tab.keyboard.press("Home")
    assert now() == 0.0
    for key, lam in (("ArrowRight", 0.05), ("ArrowUp", 0.1), ("ArrowLeft", 0.05), ("End", 3.0)):
        tab.keyboard.press(key)
        assert now() == lam
    tab.keyboard.press("PageDown")
    assert 0 < now() < 3.0
    assert tab.get_attribute("#lam", "aria-valuetext").startswith(f"lambda {now():g}, mIoU ")
    before = table(tab, "metrics")
    for name, share in (("#lam", 0.2), ("#curve svg", 0.8)):
        tab.locator(name).scroll_into_view_if_needed()
        box = tab.locator(name).bounding_box()
        tab.mouse.click(box["x"] + share * box["width"], box["y"] + box["height"] / 2)
        assert abs(now() - 3 * share) < 0.35
        assert table(tab, "metrics") != before
    box = tab.locator("#curve svg").bounding_box()
    tab.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 50)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 3 * box["width"], box["y"] + 50)
    tab.mouse.up()
    assert now() == 3.0
    tab.click("#jumps button:has-text('chosen')")
    assert now() == unpacked(made.read_bytes())["tabs"][0]["lambda"]
    dot, ring = (tab.locator(f"#plane svg circle.{name}") for name in ("dot", "chosen"))
    assert [dot.get_attribute(one) for one in ("cx", "cy")] == [ring.get_attribute(one) for one in ("cx", "cy")]


def test_the_address_keeps_what_is_shown(made, opened):
    tab = opened(made)
    tab.click("#tab-1")
    tab.select_option("#curve select", "gmean")
    tab.select_option("#plane select >> nth=0", "acc")
    tab.click("#classes thead button:has-text('recall') >> nth=0")
    tab.fill("#classes input", "s")
    slide(tab, 11)
    until(tab, "location.hash.includes('l=0.55')")
    seen = table(tab, "classes")
    other = opened(made, tab.evaluate("location.hash"))
    assert other.text_content("#now") == "0.55" and other.get_attribute("#tab-1", "aria-selected") == "true"
    assert other.input_value("#curve select") == "gmean" and other.input_value("#plane select >> nth=0") == "acc"
    assert list(table(other, "classes").items()) == list(seen.items()) and 0 < len(seen) < 10
    broken = opened(made, "#t=9&l=x&m=none&x=&s=%3Cb%3E&d=0&q=")
    assert len(table(broken, "classes")) == 10


def test_classes_are_sorted_and_searched(made, opened):
    tab = opened(made)
    heads = [one.strip() for one in tab.locator("#classes thead button").all_inner_texts()]
    assert heads == [
        "class",
        "recall",
        "recall, change",
        "precision",
        "IoU",
        "IoU, change",
        "F1",
        "units",
        "predicted",
        "trained on",
    ]
    for j, name in enumerate(heads):
        tab.locator("#classes thead button").nth(j).click()
        tab.wait_for_timeout(20)
        values = [row[j - 1] for row in table(tab, "classes").values()]
        order = tab.locator("#classes thead th").nth(j).get_attribute("aria-sort")
        if j:
            assert order == "descending" and values == sorted(values, reverse=True), name
            tab.locator("#classes thead button").nth(j).click()
            values = [row[j - 1] for row in table(tab, "classes").values()]
            assert values == sorted(values)
            slide(tab, 40)
            values = [row[j - 1] for row in table(tab, "classes").values()]
            assert values == sorted(values), "also when lambda moves"
    tab.fill("#classes input", "BOOT")
    assert list(table(tab, "classes")) == ["ankle boot"]
    tab.fill("#classes input", "no such class")
    assert not table(tab, "classes")


def test_tables_are_copied_as_csv(made, opened):
    tab = opened(made, permissions=["clipboard-read", "clipboard-write"])
    slide(tab, 20)
    for name, shown in (("metrics", 17), ("classes", 10), ("shots", 3), ("groups", 1)):
        tab.locator(f"#{name} button:has-text('copy as CSV')").click()
        until(tab, f"document.getElementById('status').textContent.includes('{shown} rows')")
        lines = tab.evaluate("navigator.clipboard.readText()").split("\r\n")
        assert len(lines) == shown + 2 and lines[-1] == ""
        first, cells = lines[1].split(","), next(iter(table(tab, name).values()))
        assert float(first[2]) == cells[1]
    tab.locator("#metrics button:has-text('copy as CSV')").click()
    until(tab, "document.getElementById('status').textContent.includes('17 rows')")
    heads, *rows = csv.reader(tab.evaluate("navigator.clipboard.readText()").splitlines())
    assert heads[3:] == ["change", "95 % interval of it, from", "95 % interval of it, to"]
    assert all(len(row) == len(heads) for row in rows)
    name, _, _, change, low, high = rows[0]
    assert name == "acc" and float(low) < float(change) < float(high)
    tab.locator("#classes button:has-text('copy as CSV')").click()
    until(tab, "document.getElementById('status').textContent.startsWith('Classes: 10 rows')")
    heads, *rows = csv.reader(tab.evaluate("navigator.clipboard.readText()").splitlines())
    assert heads[-2:] == ["precision, change", "F1, change"], "no columns on the page, for want of room"
    found = [unoic_cli.evaluate(VAL, calibration=replace(chosen(), lam=lam)).to_dict()["per_class"] for lam in (0, 1)]
    for row, before, after in zip(rows, *found, strict=True):
        for text, key in zip(row[-2:], ("precision", "f1"), strict=True):
            assert float(text) == pytest.approx(after[key] - before[key], abs=1e-12)
    tab.locator("#chosen button:has-text('copy as CSV')").nth(1).click()
    until(tab, "document.getElementById('status').textContent.startsWith('Confusion')")
    heads, first, *_ = csv.reader(tab.evaluate("navigator.clipboard.readText()").splitlines())
    assert heads == ["truth", "predicted as", "units", "of the class"] and 0 < float(first[3]) < 1
    tab.locator("#curve button:has-text('copy as CSV')").click()
    until(tab, "document.getElementById('status').textContent.includes('61 rows')")
    copied = tab.evaluate("navigator.clipboard.readText()").split("\r\n")
    assert copied[0].startswith("lambda,acc,macc,miou,f1,") and copied[21].startswith("1,")


def test_names_are_text(opened):
    hostile()
    unoic_cli.page("hostile.h5", output="p.html", by="group")
    tab = opened("p.html", permissions=["clipboard-read", "clipboard-write"])
    assert tab.evaluate("document.images.length") == 0
    names = [one[0] for one in tab.evaluate(TABLE, "classes")]
    assert names == HOSTILE and HOSTILE[0] in tab.text_content("#groups") and HOSTILE[0] in tab.text_content("#chosen")
    tab.locator("#classes button:has-text('copy as CSV')").click()
    until(tab, "document.getElementById('status').textContent.includes('10 rows')")
    copied = tab.evaluate("navigator.clipboard.readText()")
    assert '"a,""b"""' in copied and "\r\n'=1+1," in copied and "\r\n=1+1" not in copied, "no formula of a spreadsheet"


LOOKS = {
    "light": {}, "dark": {"color_scheme": "dark"}, "phone": {"viewport": {"width": 390, "height": 844}},
    "dark phone": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"},
}  # fmt: skip


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_everybody_can_use_it(made, opened, look):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="pip install 'unoic[test-page]'")
    tab = opened(made, **look)
    for which in (0, 1):
        tab.click(f"#tab-{which}")
        slide(tab, 30)
        tab.evaluate("document.querySelector('details').open = true")
        found = axe.Axe().run(tab)
        assert not found.violations_count, found.generate_report()
        assert tab.evaluate("document.documentElement.scrollWidth") <= tab.viewport_size["width"]
        wide = "[...document.querySelectorAll('#classes tbody td')].filter((c) => c.scrollWidth > c.clientWidth + 1)"
        assert tab.evaluate(f"{wide}.length") == 0, "no number over another"
    ground = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == ("color_scheme" not in look)


def test_tabs_are_reached_by_keys(made, opened):
    tab = opened(made)
    tab.focus("#tab-0")
    tab.keyboard.press("ArrowRight")
    assert (
        tab.evaluate("document.activeElement.id") == "tab-1" and tab.get_attribute("#tab-1", "aria-selected") == "true"
    )
    assert TEST in tab.text_content("#about") and "cross-fitted" not in tab.text_content("#metrics")
    tab.keyboard.press("Home")
    assert "cross-fitted" in tab.text_content("#metrics")
    assert tab.evaluate("document.activeElement.id") == "tab-0"


def test_many_classes_are_written_as_far_as_they_are_seen(opened):
    names = [f"class {i}" for i in range(1000)]
    hostile("many.h5", names, 5000)
    made = unoic_cli.page("many.h5", output="p.html", range="0:2")
    assert made.n_bytes < 1_000_000 and made.tabs[0]["n_lambdas"] == 201
    tab = opened("p.html")
    count = "document.querySelectorAll('#classes tbody tr:not(.gap)').length"
    assert tab.evaluate(count) < 40
    tab.evaluate("document.querySelector('#classes .rows').scrollTop = 1e9")
    until(tab, "document.querySelector('#classes tbody').textContent.includes('class 999')")
    assert list(table(tab, "classes"))[-1] == "class 999" and tab.evaluate(count) < 40
    assert tab.evaluate("document.querySelector('#classes .rows').scrollHeight") > 29_000
    slide(tab, 150)
    found = unoic_cli.evaluate("many.h5", lam=1.5).overall
    assert table(tab, "classes")["class 999"][7] == int(found.counts.predicted[999])
    tab.emulate_media(media="print")
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.evaluate(count) == 1000
    tab.emulate_media(media="screen")
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert len(table(tab, "classes")) < 40


def test_a_page_of_a_state_says_what_it_lacks(opened, answer):
    answer("search-lambda", DIGITS, "--state", "s.unoic")
    answer("page", "s.unoic", "-o", "p.html")
    tab = opened("p.html")
    assert "unoic page FILES -o FILE has them" in tab.text_content("#chosen") and tab.is_hidden("#tabs")


def test_what_is_measured_at_one_lambda_has_no_slider(opened, answer):
    told = answer("evaluate", DIGITS, "--page", "p.html", "--metrics", "acc,nll", "--confusion")
    tab = opened("p.html")
    assert tab.is_hidden("#lam") and tab.is_hidden("#curve") and tab.is_visible("#classes")
    assert {name: row[0] for name, row in table(tab, "metrics").items()}["NLL"] == told["nll"]


def test_methods_stand_beside_each_other(opened, answer):
    told = answer("compare", *STREETS, "-m", "rgb", "-m", "average", "-m", "max@0.5", "--page", "p.html")
    tab = opened("p.html")
    for which in (0, 2):
        tab.click(f"#tab-{which}")
        rows = tab.evaluate(TABLE, "chosen")
        for one in told["methods"]:
            cells = next(row[1:] for row in rows if row[0] == one["name"])
            names = list(told["methods"][0]["average"])
            assert [cell[0] for cell in cells[::2]] == [one["average"][name] for name in names]
            gains = one["differences"]["average"] if one["differences"] else {}
            wanted = [[gains[name]["gain"]] if name in gains else None for name in names]
            assert [cell if isinstance(cell, list) else None for cell in cells[1::2]] == wanted


def test_images_are_those_of_evaluate(opened, answer):
    told = answer("evaluate", STREETS[0].partition("=")[2], "-l", "0.4", "--by", "image", "--page", "p.html")["images"]
    tab = opened("p.html")
    rows = {row[0]: row[1:] for row in tab.evaluate(TABLE, "images")}
    for name, title in (("acc", "acc"), ("miou", "mIoU")):
        one = told["metrics"][name]
        wanted = [one["n"], one["mean"], *one["quartiles"], one["before"]["mean"], one["gain"]]
        assert rows[title] == [*([value] for value in wanted), one["interval"]]
    worst, every = told["worst"][0], tab.evaluate(TABLE, "images")
    assert [worst["sample_id"], [worst["n"]], [worst["acc"]]] in [row[:3] for row in every]


def test_images_move_with_lambda(opened, answer):
    path = STREETS[0].partition("=")[2]
    answer("page", path, "--range", "0:1:0.1", "--by", "image", "-o", "p.html")
    tab = opened("p.html")
    for place in (0, 4, 10):
        lam = slide(tab, place)
        told = answer("evaluate", path, "-l", str(lam), "--by", "image")["images"]
        rows = {row[0]: row[1:] for row in tab.evaluate(TABLE, "images")}
        one = told["metrics"]["miou"]
        assert rows["mIoU"][1:7] == [[value] for value in (one["mean"], *one["quartiles"])]
        assert rows["mIoU"][8:] == [[one["gain"]], one["interval"]]
        worst = told["worst"][0]
        every = tab.evaluate(TABLE, "images")
        assert [worst["sample_id"], [worst["n"]], [worst["acc"]]] in [row[:3] for row in every]
        for one in told["losers"]:
            wanted = [[one["n"]], [one["before"]], [one["miou"]], [one["change"]]]
            assert [one["sample_id"], *wanted] in every


# ------------------------------------------------------------------------------------------------
# words


def longtailed(path, n=1500, seed=1, k=8, split=False):
    """Scores that carry their prior, of balanced labels."""
    counts = np.round(2000 * 0.5 ** np.arange(k)) + 3
    centers = np.random.default_rng(99).normal(size=(k, 6))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, k, n)
    x = centers[labels] + rng.normal(size=(n, 6)) * 0.8
    logits = -((x[:, None] - centers) ** 2).sum(-1) / 1.28 + np.log(counts)
    with h5py.File(path, "w") as file:
        file["logits"], file["labels"], file["source_counts"] = logits.astype("f4"), labels, counts
        if split:
            names = ["val"] * (n // 2) + ["test"] * (n - n // 2)
            file["split"] = np.array(names, dtype=h5py.string_dtype())
    return path


@pytest.mark.parametrize("how", ["--lambda", "-c", "-c --lambda", "neither"])
def test_every_sentence_says_of_which_lambda_it_is(how, opened, answer):
    longtailed("val.h5")
    longtailed("test.h5", seed=2)
    found = answer("search-lambda", "val.h5", "--range", "-2:3:0.1", "-o", "c.json")["lambda"]
    stored = json.loads(pathlib.Path("c.json").read_text())
    stored["lambda"], stored["tuning"] = -2.0, None
    stored["modalities"][0]["lambda"] = -2.0
    pathlib.Path("c.json").write_text(json.dumps(stored))
    given = {"--lambda": ["--lambda", "-2"], "-c": ["-c", "c.json"], "neither": []}
    more = given.get(how, ["-c", "c.json", "--lambda", "-1.95"])
    answer("page", "val.h5", "test.h5", "--range", "-2:3:0.1", *more, "-o", "p.html")
    lam = {"neither": found, "-c --lambda": -1.95}.get(how, -2.0)
    tabs = unpacked(pathlib.Path("p.html").read_bytes())["tabs"]
    facts = dict(tabs[0]["facts"])
    given = how != "neither"
    words = "as the calibration has it" if how == "-c" else "as given (--lambda)" if given else "chosen on other data"
    assert [one["given"] for one in tabs] == [words if given else None, words]
    assert dict(tabs[1]["facts"])["lambda"] == f"{lam:g}, {words}"
    assert not {"metric", "method", "metric of the search"} & set(dict(tabs[1]["facts"])), "nothing is searched there"
    for name in facts:
        if name.startswith("gain"):
            assert (f"of lambda {found:g}, searched for here, cross-fitted" in name) == given
    told = answer("evaluate", "val.h5", "-c", "c.json") if how == "-c" else None
    if told is not None:
        assert tabs[0]["warnings"] == told["warnings"]
    tab = opened("p.html")
    curve, text = tab.text_content("#curve"), tab.text_content("#metrics")
    assert (f"Circle: the lambda of this page, {lam:g}, {words}." in curve) == given
    assert (f"Circle: the chosen lambda, {lam:g}." in curve) == (not given)
    assert ("for the choice of lambda on this data" in text) == (not given)
    assert (f"at lambda {found:g}, which the search on this data takes, nothing is taken off" in text) == given
    assert tab.text_content("#h-chosen") == ("At the lambda of this page" if given else "At the chosen lambda")
    assert tab.locator("#jumps button").all_inner_texts()[-1] == ("given" if given else "chosen")
    tab.click("#tab-1")
    assert f"Circle: the lambda of this page, {lam:g}, {words}." in tab.text_content("#plane")
    assert "is taken off" not in tab.text_content("#metrics")


def test_warnings_of_the_search_are_not_those_of_the_page(opened, answer):
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [400, 60, 8])
    logits = rng.normal(size=(468, 3)) + 2 * np.eye(3)[labels] + np.log([0.8, 0.15, 0.05])
    np.savez("val.npz", logits=logits.astype("f4"), labels=labels, source_counts=[800, 150, 50])
    own = {one["code"] for one in answer("search-lambda", "val.npz", "--range", "-2:3:0.1")["warnings"]}
    assert {"W4", "W5"} <= own
    said = answer("page", "val.npz", "--range", "-2:3:0.1", "--lambda", "0.1", "-o", "p.html")["warnings"]
    assert {each["text"].partition(": ")[0] for each in said if each["code"] in ("W4", "W5")} == {
        "of the lambda that the search on this data takes"
    }
    (one,) = unpacked(pathlib.Path("p.html").read_bytes())["tabs"]
    assert not own & {each["code"] for each in one["warnings"]}
    assert own == {each["code"] for each in one["searched"]["warnings"]}
    text = opened("p.html").text_content("#said")
    lam = one["searched"]["lambda"]
    head = f"Of the search on this data, which takes lambda {lam:g}"
    assert text.index("No warnings of lambda 0.1.") < text.index(head) < text.index("W4")
    answer("page", "val.npz", "--range", "-2:3:0.1", "-o", "q.html")
    (one,) = unpacked(pathlib.Path("q.html").read_bytes())["tabs"]
    assert one["searched"] is None and own <= {each["code"] for each in one["warnings"]}


def test_tabs_are_told_apart(opened, answer):
    longtailed("a.h5", split=True)
    told = answer("page", "a.h5", "a.h5", "--split", "val", "--test-split", "test", "--range", "0:1", "-o", "p.html")
    names = ["a.h5 (val)", "a.h5 (test)"]
    assert [one["name"] for one in told["tabs"]] == names
    assert [one["name"] for one in unpacked(pathlib.Path("p.html").read_bytes())["tabs"]] == names
    tab = opened("p.html")
    assert tab.locator("#tabs button").all_inner_texts() == names
    assert tab.text_content("h1") == tab.title() == "a.h5 (val) and a.h5 (test)"
    for command in (["search-lambda", "--range", "0:1"], ["evaluate", "-l", "1"]):
        answer(command[0], "a.h5", *command[1:], "--split", "val", "--page", "q.html", "--force")
        assert unpacked(pathlib.Path("q.html").read_bytes())["title"] == "a.h5 (val)"
    longtailed("b.h5")
    told = answer("page", "b.h5", "b.h5", "--range", "0:1", "-o", "r.html")
    assert [one["name"] for one in told["tabs"]] == ["b.h5", "b.h5 (2)"]


@pytest.fixture
def sensors(answer):
    rng = np.random.default_rng(3)
    for i, name in enumerate(("depth", "rgb")):
        labels = np.random.default_rng(0).integers(0, 4, 600)
        logits = rng.normal(size=(600, 4)) + (1.5 + i) * np.eye(4)[labels] + (1 + i) * np.log([0.6, 0.2, 0.15, 0.05])
        np.savez(f"{name}.npz", logits=logits.astype("f4"), labels=labels, source_counts=[600, 200, 150, 50])
    return ["rgb=rgb.npz", "depth=depth.npz"]


@pytest.mark.parametrize("how", ["--lambda", "--per-modality"])
def test_the_slider_is_a_factor_where_modalities_have_lambdas_of_their_own(sensors, how, opened, run, answer):
    answer("search-lambda", *sensors, "-o", "c.json")
    more = ["-c", "c.json", "--lambda", "rgb=0.3,depth=0.6"] if how == "--lambda" else ["--per-modality"]
    told = answer("page", *sensors, *more, "--range", "0:2:0.1", "-o", "p.html")
    (one,) = unpacked(pathlib.Path("p.html").read_bytes())["tabs"]
    shares = told["tabs"][0]["shares"]
    assert [[name, share] for name, share in shares.items()] == one["shares"]
    if how == "--lambda":
        assert shares == {"depth": 0.6, "rgb": 0.3}
        assert dict(one["facts"])["lambda"].startswith("depth 0.6, rgb 0.3 (factor 1), as given (--lambda)")
        shown = run("page", *sensors, *more, "-o", "t.html", "--format", "table")[1]
        assert re.search(r"factor 1\s+(rgb=\S+\s+)?\(depth 0.6, rgb 0.3\);", shown)
    tab = opened("p.html")
    for place in (0, 10, 15):
        factor = slide(tab, place)
        each = ", ".join(f"{name} {factor * share:g}" for name, share in shares.items())
        assert tab.text_content("#each") == each
        head = f"factor {factor:g} (lambda {each})"
        assert head in tab.text_content("#metrics thead") and head in tab.get_attribute("#lam", "aria-valuetext")
    texts = tab.locator("#bar").inner_text()
    assert "as the counts say" not in texts and "factor of lambda depth" in texts
    assert tab.text_content("#word") == "factor"
    assert tab.locator("#jumps button").all_inner_texts()[:2] == ["0", "factor 1"]
    assert "factor of lambda depth" in tab.text_content("#curve svg")
    assert re.search(r"Circle: the (chosen factor|factor of this page)", tab.text_content("#curve"))
    answer("evaluate", *sensors, "-l", "rgb=0.3,depth=0.6", "--page", "e.html")
    assert "factor 1 (lambda depth 0.6, rgb 0.3)" in opened("e.html").text_content("#metrics thead")


@pytest.mark.parametrize("name", ["p.pdf", "p.txt", "p", "p.html.gz", "html", "p.xhtml"])
@pytest.mark.parametrize("command", ["page", "search-lambda", "evaluate", "compare", "report"])
def test_a_page_has_the_name_of_one(run, command, name):
    """Before anything is read: the file need not be there."""
    option = "--output" if command == "page" else "--page"
    given = "none.h5"
    if command == "report":
        assert run("evaluate", DIGITS, "--state", "s.unoic")[0] == 0
        given = "s.unoic"
    code, out, err = run(command, given, *(["-m", "rgb"] if command == "compare" else []), option, name)
    assert (code, out) == (2, "")
    assert err == f"unoic: error: {option}: '{name}'; expected a name that ends with .html or .htm\n"
    assert not pathlib.Path(name).exists()


def test_metrics_of_a_single_lambda_have_their_values(opened, answer):
    given = ["--metrics", "acc,nll,ece,few", "--range", "0:2:0.1"]
    answer("page", DIGITS, *given, "-o", "p.html")
    (one,) = unpacked(pathlib.Path("p.html").read_bytes())["tabs"]
    told = answer("evaluate", DIGITS, "-l", str(one["lambda"]), "--metrics", "acc,nll,ece,few")
    tab = opened("p.html")
    assert tab.text_content("#metrics p").startswith(f"NLL and ECE: at lambda {one['lambda']:g} alone, below.")
    rows = {row[0]: row[1:3] for row in tab.evaluate(TABLE, "chosen") if len(row) == 5}
    for title, name in (("NLL", "nll"), ("ECE", "ece"), ("acc", "acc")):
        assert rows[title] == [[told["before"][name]], [told[name]]], title
    assert {"acc", "few"} <= set(table(tab, "metrics")) and "NLL" not in table(tab, "metrics")
    answer("search-lambda", DIGITS, *given, "--page", "q.html")
    assert "NLL and ECE: of a single lambda, which needs a read" in opened("q.html").text_content("#metrics p")


def test_errors_of_the_test_set_are_of_the_test_set(run, sensors):
    longtailed("val.h5")
    longtailed("other.h5", k=5)
    with h5py.File("val.h5") as file:
        np.savez("plain.npz", logits=file["logits"][()], source_counts=file["source_counts"][()])
    for given, wanted in [
        (["val.h5", "plain.npz"], "plain.npz: no labels; expected labels to evaluate the test set"),
        (["val.h5", "other.h5"], "other.h5: 5 classes; expected 8, as the data that lambda is searched on has"),
        ([*sensors, "--test", "rgb.npz"], "--test: inputs without names; expected depth=FILE rgb=FILE, as the data"),
    ]:
        code, _, err = run("page", *given, "--range", "0:1", "-o", "p.html")
        assert code in (2, 65) and err.splitlines()[-1].startswith(f"unoic: error: {wanted}"), err
    run("search-lambda", "val.h5", "-o", "c.json")
    assert "expected 8, as the calibration has" in run("page", "val.h5", "other.h5", "-c", "c.json", "-o", "p.html")[2]


# ------------------------------------------------------------------------------------------------
# layout


@pytest.mark.parametrize("width", [1280, 1215, 1200, 1100, 1024, 961, 640, 390])
def test_tables_fit_or_show_that_there_is_more(made, opened, width):
    tab = opened(made, viewport={"width": width, "height": 900})
    boxes = tab.evaluate(
        """[...document.querySelectorAll('.scroll')].map(box => [box.getAttribute('aria-label'),
            box.scrollWidth - box.clientWidth, box.scrollHeight - box.clientHeight,
            box.querySelectorAll('tbody tr:not(.gap)').length,
            getComputedStyle(box).backgroundImage.split('linear-gradient').length - 1])"""
    )
    for name, right, down, rows, cues in boxes:
        assert cues == 8, name
        assert down <= 1 or rows > 20, f"{name}: {rows} rows are seen in part"
        assert right <= 1 or width < 1024 or name == "Groups", f"{name} is {right} pixels too wide"
    assert {"Classes", "Reliability", "Confusion"} <= {one[0] for one in boxes}
    cells = "[...document.querySelectorAll('#classes tbody td, #classes thead th')]"
    wide = f"{cells}.filter((c) => c.scrollWidth > c.clientWidth + 1)"
    assert tab.evaluate(f"{wide}.length") == 0 and tab.evaluate("document.documentElement.scrollWidth") <= width


def test_long_names_are_shortened_alike(opened):
    names = ["very " + "long " * 60 + f"name {i}" for i in range(3)] + ["x" * 300, "short"]
    hostile("long.h5", names)
    unoic_cli.page("long.h5", output="p.html", range="0:1:0.5")
    for width in (1280, 390):
        tab = opened("p.html", viewport={"width": width, "height": 900})
        tab.evaluate("document.querySelector('details').open = true")
        rows = tab.evaluate(
            """[...document.querySelectorAll('[aria-label=Confusion] tbody tr')].map(row => [row.offsetHeight,
                ...[...row.children].slice(0, 2).map(cell => [cell.title, cell.textContent, cell.offsetWidth])])"""
        )
        for height, truth, predicted in rows:
            assert height < 40 and truth[0] == truth[1] and predicted[0] == predicted[1]
            assert truth[2] + predicted[2] < width
        head = tab.evaluate("document.querySelector('[aria-label$=matrix] thead').offsetHeight")
        assert head < 150


def test_axes_have_two_ticks_at_least(opened):
    hostile()
    unoic_cli.page("hostile.h5", output="p.html", range="0:1:0.5")
    source = (pathlib.Path(unoic_cli.__file__).parent / "pages" / "page.js").read_text()
    function = re.search(r"^function ticks\(.*?^}", source, re.DOTALL | re.MULTILINE)[0]
    rng = np.random.default_rng(0)
    low = rng.normal(size=2000) * 10.0 ** rng.integers(-3, 4, 2000)
    ranges = [*np.stack([low, low + 10.0 ** rng.uniform(-5, 4, 2000)], axis=1).tolist(), [0, 1], [49, 51], [0, 100]]
    made = opened("p.html").evaluate(f"(ranges) => {{ {function}; return ranges.map((x) => ticks(...x)); }}", ranges)
    for (a, b), found in zip(ranges, made, strict=True):
        room = (b - a) * 1e-6
        assert 3 <= len(found) <= 8 and min(found) >= a - room and max(found) <= b + room, (a, b, found)
