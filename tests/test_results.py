"""docs/results.md lists what commands print, and what they read again is refused where another version wrote it."""

from __future__ import annotations

import copy
import importlib.util
import json
import pathlib
import re
import shlex
from dataclasses import replace

import numpy as np
import pytest

import unoic_cli
from unoic_cli.calibrations.calibration import Calibration
from unoic_cli.commands.evaluate import EvaluateResult
from unoic_cli.errors import DataError
from unoic_cli.schemas import SCHEMAS

ROOT = pathlib.Path(__file__).resolve().parents[1]
DIGITS, STREETS = "sample_data/digits_lt", "sample_data/streets/rgb"
MASKING = "--source-prior 0,1,2,3,4,5,6,7,8,9"
NAMED = f"{STREETS}/val.h5 --logits-key logits --labels-key labels --class-axis 1"
RARE = (
    f"search-lambda {STREETS}/val.h5 -o c.json",
    f"search-lambda {DIGITS}/val.h5 {MASKING}",
    f"search-lambda {DIGITS}/val.h5 --offsets fit",
    f"evaluate {DIGITS}/val.h5 -l 1 {MASKING}",
    f"calibrate {DIGITS}/val.h5 -l 1 {MASKING} -o m.h5",
    f"evaluate {NAMED}",
    f"evaluate {DIGITS}/val.h5 -l 0 --offsets 0,1,0,1,0,1,0,1,0,1",
    f"compare {NAMED} -m c.json",
    f"fit-temperature {NAMED}",
    f"show {NAMED} -l 0.4 -o rgb.png",
    "fit-temperature p.npz --floor 1e-6",
    f"prior --estimate {DIGITS}/test.h5 --labelled {DIGITS}/val.h5",
    f"calibrate {DIGITS}/val.h5 {DIGITS}/test.h5 -l 1 -o {{stem}}.r.h5 --dtype float16",
    f"page {DIGITS}/val.h5 -o page.html",
    "doctor",
    "export c.json --bias layer.json",
)
"""Commands that print what the transcripts do not show."""
PLOTS = (
    f"search-lambda {DIGITS}/val.h5 --state run.unoic",
    "plot curve run.unoic -o curve.svg",
    "plot odds c.json -o odds.svg",
    "plot boundary grid.npz -o boundary.svg",
    "plot classes run.unoic -o classes.svg",
    "plot reliability after.unoic -o reliability.svg",
    "plot confusion after.unoic -o confusion.svg",
)


def documented():
    """Keys of each schema on the page, in order."""
    page = (ROOT / "docs" / "results.md").read_text()
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        named = re.search(r"^`(unoic\.[a-z-]+/\d+)`", section, re.MULTILINE)
        if named:
            cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
            yield named[1], [key for cell in cells for key in re.findall(r"`(.+?)`", cell)]


def transcribed():
    """Keys of every object in the transcripts, with its schema."""
    for path in sorted((ROOT / "tests" / "golden").glob("*.txt")):
        for block in re.findall(r"^out: \{\n(.*?)^out: \}$", path.read_text(), re.MULTILINE | re.DOTALL):
            first, *keys = re.findall(r'^out:  "(.+?)":', block, re.MULTILINE)
            assert first == "schema", path
            yield re.search(r'"schema": "(.+?)"', block)[1], keys


@pytest.fixture
def sample(tmp_path, monkeypatch):
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    monkeypatch.chdir(tmp_path)


def test_page_has_every_key_and_no_other(answer, sample):
    printed = {schema: {} for schema in SCHEMAS.values()}
    for schema, keys in transcribed():
        printed[schema] |= dict.fromkeys(keys)
    np.savez("p.npz", probs=np.array([[0.9, 0.1], [0.8, 0.2], [1.0, 0.0], [0.3, 0.7]]), labels=[0, 1, 0, 1])
    x, y = (axis.ravel() for axis in np.meshgrid([0.0, 1.0, 2.0], [0.0, 1.0]))
    np.savez("grid.npz", logits=np.stack([x, y], axis=1), points=np.stack([x, y], axis=1), source_counts=[3, 1])
    asked = {"lam": 1.0, "metrics": ["ece"], "confusion": True}
    unoic_cli.run("evaluate", f"{DIGITS}/val.h5", control=unoic_cli.Control(state="after.unoic"), **asked)
    for command in (*RARE, *(PLOTS if importlib.util.find_spec("matplotlib") else ())):
        found = answer(*shlex.split(command))
        printed[found.pop("schema")] |= dict.fromkeys(found)
    pages = dict(documented())
    if not importlib.util.find_spec("matplotlib"):
        assert pages.pop("unoic.plot/1") and not printed.pop("unoic.plot/1")
    assert {schema: sorted(keys) for schema, keys in pages.items()} == {
        schema: sorted(keys) for schema, keys in printed.items()
    }


def test_schema_is_of_json_alone(run, sample):
    _, out, _ = run("evaluate", f"{DIGITS}/val.h5", "--format", "tsv")
    assert "schema" not in out
    found = unoic_cli.evaluate(f"{DIGITS}/val.h5")
    assert isinstance(found, EvaluateResult) and "schema" not in found.to_dict()


def spoil(value):
    """Change whatever can be changed."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    for key, item in list(items):
        spoil(item)
        if not isinstance(value, tuple):
            value[key] = "spoilt"
    assert not isinstance(value, np.ndarray)


def test_what_a_result_hands_out_is_the_callers_own(sample):
    val, test = f"{DIGITS}/val.h5", f"{DIGITS}/test.h5"
    found = unoic_cli.search_lambda(val)
    results = [
        found, found.calibration, found.calibration.target_prior,
        unoic_cli.search_lambda({one: f"sample_data/streets/{one}/val.h5" for one in ("rgb", "depth")}),
        unoic_cli.search_lambda(val, offsets="fit"),
        unoic_cli.evaluate(val, calibration=found.calibration, by="file", confusion=True, metrics=["ece"]),
        unoic_cli.evaluate("sample_data/streets/rgb/val.h5", by="image"),
        unoic_cli.compare(val, methods={"c": found.calibration}),
        unoic_cli.calibrate(val, output="o.h5"),
        unoic_cli.convert(val, "o.npz"),
        unoic_cli.pack(val, "p.h5"),
        unoic_cli.page(val, output="o.html"),
        unoic_cli.export(found.calibration, bias="b.json"),
        unoic_cli.info(val),
        unoic_cli.prior(test, estimate=True, labelled=val),
        unoic_cli.fit_delta(val), unoic_cli.fit_delta(val).statistics,
        unoic_cli.fit_temperature(val),
    ]  # fmt: skip
    for result in results:
        handed = result.to_dict()
        kept = copy.deepcopy(handed)
        spoil(handed)
        assert result.to_dict() == kept, type(result)


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("prior", "--source-prior"),
        ("search-lambda", "--calibration"),
        ("fit-temperature", "--calibration"),
        ("fit-delta", "--delta"),
    ],
)
def test_another_version_is_refused(run, answer, sample, command, option):
    made = answer(command, f"{DIGITS}/val.h5")
    path, asked = pathlib.Path("x.json"), ("search-lambda" if option == "--delta" else "evaluate")
    given = [asked, f"{DIGITS}/val.h5", option, "x.json"]
    known = made["schema"]
    for schema in (known, "of another program", None):
        path.write_text(json.dumps({**made, "schema": schema}))
        assert run(*given, *(["-l", "1"] if option == "--source-prior" else []))[0] == 0, schema
    path.write_text(json.dumps({**made, "schema": f"unoic.{command}/2"}))
    code, out, err = run(*given, *(["-l", "1"] if option == "--source-prior" else []))
    assert (code, out) == (DataError.exit_code, "")
    assert err == f"unoic: error: x.json: schema unoic.{command}/2; expected {known}\n"


@pytest.mark.parametrize(
    ("entry", "value", "found"),
    [
        ("lambda", "1", "Expected `float`, got `str` - at `$.lambda`"),
        ("unseen", "hide", "Invalid enum value 'hide' - at `$.unseen`"),
        ("modalities", [3], "Expected `object`, got `int` - at `$.modalities[0]`"),
    ],
)
def test_damaged_entries_are_named(sample, entry, value, found):
    made = unoic_cli.search_lambda(f"{DIGITS}/val.h5").calibration.to_dict()
    with pytest.raises(DataError, match=re.escape(f"c.json: a damaged calibration ({found}); expected")):
        Calibration.from_dict({**made, entry: value}, "c.json")


def test_numbers_of_numpy_are_numbers(sample):
    made = unoic_cli.search_lambda(f"{DIGITS}/val.h5").calibration
    made = replace(made, lam=np.float64(0.5))
    assert Calibration.from_dict(made.to_dict(), "c.json").lam == 0.5
