"""Results as people meet them in Python: a few lines, text in notebooks, tables of pandas and polars, arrays."""

from __future__ import annotations

import dataclasses
import html.parser
import inspect
import os
import sys

import h5py
import numpy as np
import pytest

import unoic_cli
from unoic_cli import frames
from unoic_cli.brief import MOST_LINES
from unoic_cli.errors import UnoicError, UsageError

RNG = np.random.default_rng(0)
K = 4
LABELS = RNG.integers(0, K, 90)
LOGITS = (RNG.normal(size=(90, K)) + 2 * np.eye(K)[LABELS]).astype(np.float32)
COUNTS = [80, 40, 20, 10]
EVIL = ["</script><img src=x onerror=alert(1)>", "<b>&amp;", '"><script>alert(2)</script>', "a'&\u00e9\"b"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def results(names=None, logits=LOGITS, labels=LABELS, counts=COUNTS):
    """One of every result that needs no file of its own, by its name."""
    kept = {"source_counts": counts, "class_names": names}
    source = unoic_cli.from_arrays(logits, labels, **kept, group=[f"g{i % 2}<i>" for i in range(len(labels))])
    other = unoic_cli.from_arrays(logits[:, ::-1].copy(), labels, **kept)
    search = unoic_cli.search_lambda(source, folds=3)
    evaluate = unoic_cli.evaluate(source, calibration=search, confusion=True, by="group", metrics="acc,macc,nll")
    unoic_cli.calibrate(source, lam=1, output="out.h5")
    search.calibration.save("<i>.json")
    delta = unoic_cli.fit_delta(logits)
    return {
        "source": source, "search": search, "evaluate": evaluate,
        "calibrate": unoic_cli.calibrate(source), "fuse": unoic_cli.fuse({"a": source, "b": other}),
        "compare": unoic_cli.compare({"a": source, "b": other}, by="file"),
        "prior": unoic_cli.prior(source), "fit_delta": delta, "fit_temperature": unoic_cli.fit_temperature(source),
        "export": unoic_cli.export(search.calibration), "info": unoic_cli.info([source, "<i>.json"]),
        "estimated": unoic_cli.prior(source, estimate=True, labelled=source),
        "by": unoic_cli.search_lambda(source, by="group"),
        "doctor": unoic_cli.doctor(), "demo": unoic_cli.demo(),
        "control": unoic_cli.Control(), "statistics": delta.statistics,
        "two": unoic_cli.search_lambda({"a": source, "b": other}, delta="fit", per_modality=True),
        "state": unoic_cli.run("evaluate", "out.h5", control=unoic_cli.Control(shard="1/2", state="s.unoic")),
        "pack": unoic_cli.pack("out.h5", "packed.h5"), "convert": unoic_cli.convert("out.h5", "out.parquet"),
        "page": unoic_cli.page(source, output="page.html", range="0:1:0.5"),
    }  # fmt: skip


def within(thing, depth=3):
    """A result, and the dataclasses that are its attributes."""
    yield thing
    if depth and dataclasses.is_dataclass(thing):
        for field in dataclasses.fields(thing):
            value = getattr(thing, field.name)
            for one in value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else [value]:
                if dataclasses.is_dataclass(one) and not isinstance(one, type):
                    yield from within(one, depth - 1)


# ---------------------------------------------------------------- sessions and notebooks


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Of many classes with long names."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 60, 180)
    logits = (rng.normal(size=(180, 60)) + 3 * np.eye(60)[labels]).astype(np.float32)
    names = [f"a class of a rather long name, number {k} of sixty" for k in range(60)]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("large"))
        return results(names, logits, labels, np.arange(1, 61))


def test_every_result_is_a_few_lines(large):
    seen = set()
    for result in large.values():
        for one in within(result, 6):
            lines = repr(one).splitlines()
            seen.add(type(one).__name__)
            assert len(lines) <= MOST_LINES and max(map(len, lines)) <= 130, repr(one)
    public = {name for name in unoic_cli.__all__ if name.endswith("Result")} - {"PlotResult", "ShowResult"}
    assert public | {"Calibration", "Prior", "DeltaStatistics", "Modality", "Metrics", "Control"} <= seen


def test_what_sessions_show(large):
    assert f"lam={large['search'].lam:.5g}" in repr(large["search"])
    assert "log_probs=<(180, 60) float32>" in repr(large["calibrate"])
    assert repr(large["source"]).startswith("<Source <array>: logits (180, 60), float32")
    assert "mu=" in repr(large["statistics"]) and "provenance" not in repr(large["statistics"])
    assert "before=Measured(nll=" in repr(large["fit_temperature"])
    with unoic_cli.LogitWriter("x.h5") as writer:
        writer.write(LOGITS, LABELS)
        assert repr(writer) == "<LogitWriter x.h5: 90 units of 4 classes, open>"
    assert repr(writer).endswith("closed>")


def test_dir_is_complete():
    """What is loaded when it is asked for is listed before."""
    assert {"plots", "Source", "DeltaStatistics", *unoic_cli.__all__} <= set(dir(unoic_cli))
    for name in dir(unoic_cli):
        assert getattr(unoic_cli, name) is not None or name.startswith("__")


class Tags(html.parser.HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tags, self.texts, self.open = set(), [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        assert not attrs
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def test_notebooks_show_text():
    """Names from files are never tags, and control characters are seen."""
    shown = 0
    found = results(EVIL)
    for name, result in found.items():
        for one in within(result):
            if not hasattr(one, "_repr_html_"):
                continue
            text = one._repr_html_()
            page = Tags(text)
            assert page.tags <= {"table", "caption", "tr", "th", "td", "pre"} and not page.open, (name, text)
            assert "\x1b" not in text and "\u202e" not in text and len(text) < 20_000
            shown += any(evil.split("<")[-1][:8] in "".join(page.texts) for evil in EVIL[:3])
    assert shown > 5
    hostile = dataclasses.replace(found["search"].calibration, class_names=("a\x1b[31m\u202eb", *EVIL[:3]))
    text = hostile._repr_html_()
    assert "\x1b" not in text and "\u202e" not in text and "<script" not in text and "<img" not in text


@pytest.mark.parametrize("name", ["search", "evaluate", "calibrate", "compare", "prior", "export"])
def test_notebooks_show_figures(name):
    result = results()[name]
    rows, text = result.glance(), "".join(Tags(result._repr_html_()).texts)
    for column, values in rows.items():
        assert column in text and len(values) == len(next(iter(rows.values())))
        for value in values:
            assert (f"{value:.5g}" if isinstance(value, float) else str(value) if value is not None else "") in text


def test_results_are_json(large):
    import json

    for result in large.values():
        if hasattr(result, "to_dict"):
            json.dumps(result.to_dict())
    assert "log_probs" not in large["calibrate"].to_dict() and large["calibrate"].to_dict()["output"] is None


# ---------------------------------------------------------------- tables


def plain(frame):
    """Columns of either library, None where there is no number."""
    if type(frame).__module__.startswith("polars"):
        return {name: frame[name].to_list() for name in frame.columns}
    columns = {name: frame[name].tolist() for name in frame.columns}
    return {name: [None if value != value else value for value in values] for name, values in columns.items()}


def other(name):
    return {"pandas": "polars", "polars": "pandas"}[name]


@pytest.mark.parametrize("library", frames.LIBRARIES)
def test_tables(library):
    module = pytest.importorskip(library, reason=f"pip install {library}")
    labels = np.where(LABELS == 3, 2, LABELS)  # a class without a unit has no recall
    source = unoic_cli.from_arrays(
        LOGITS, labels, source_counts=COUNTS, class_names=EVIL, group=[f"g{i % 3}" for i in range(90)]
    )
    found = unoic_cli.search_lambda(source)
    table = found.to_dataframe(library)
    assert isinstance(table, module.DataFrame)
    assert plain(table) == {"lambda": found.lams.tolist(), **{k: v.tolist() for k, v in found.curve.items()}}
    result = unoic_cli.evaluate(source, lam=1)
    rows = result.overall.per_class(EVIL)
    assert plain(result.to_dataframe(library)) == {name: [row[name] for row in rows] for name in rows[0]}
    assert rows[3]["recall"] is None and plain(result.to_dataframe(library))["name"] == EVIL
    two = {"a": source, "b": unoic_cli.from_arrays(LOGITS[:, ::-1].copy(), class_names=EVIL)}
    for by in (None, "group"):
        compared = unoic_cli.compare(two, methods={"a@0.5": "a@0.5", "both": "average"}, by=by)
        columns = plain(compared.to_dataframe(library))
        assert columns["method"] == ["a@0.5", "both"] and columns["lambda"] == [row.lam for row in compared.rows]
        for metric in ("miou", "macc"):
            assert columns[metric] == [row.average[metric] for row in compared.rows]
            for name in compared.conditions if by else ():
                assert columns[f"{metric} {name}"] == [row.cells[name].values[metric] for row in compared.rows]
        assert len(columns) == 4 + (6 if by else 0)
    counted = unoic_cli.prior(source)
    assert plain(counted.to_dataframe(library)) == {
        "class": list(range(K)), "name": EVIL, "count": list(counted.counts), "prior": list(counted.prior),
    }  # fmt: skip
    types = plain_types(result.to_dataframe(library))
    assert types["support"] == "int64" and types["recall"] == "float64"


def plain_types(frame):
    return {name: str(frame[name].dtype).lower() for name in frame.columns}


def test_what_is_installed(monkeypatch):
    for library in frames.LIBRARIES:
        pytest.importorskip(library, reason=f"pip install {library}")
    result = unoic_cli.search_lambda(LOGITS, LABELS, source_prior=COUNTS)
    assert type(result.to_dataframe()).__module__.startswith("pandas")
    with pytest.raises(UsageError, match=r"^library: 'numpy'; expected pandas or polars$"):
        result.to_dataframe("numpy")
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert type(result.to_dataframe()).__module__.startswith("polars")
    with pytest.raises(UsageError, match=r"^to_dataframe: pandas, which is not installed; .*pip install pandas$"):
        result.to_dataframe("pandas")
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(UsageError, match=r"^to_dataframe: neither pandas nor polars is installed; .*install pandas$"):
        result.to_dataframe()


def as_frames(library):
    module = pytest.importorskip(library, reason=f"pip install {library}")
    columns = {f"class {k}": LOGITS[:, k] for k in range(K)}
    return (
        module,
        module.DataFrame(columns),
        module.Series("labels", LABELS) if library == "polars" else module.Series(LABELS, index=np.arange(90)[::-1]),
    )


@pytest.mark.parametrize("library", frames.LIBRARIES)
def test_tables_as_inputs(library):
    module, scores, labels = as_frames(library)
    right = unoic_cli.evaluate(LOGITS, LABELS, lam=0.5, source_prior=COUNTS).to_dict()
    counts = module.Series("n", COUNTS) if library == "polars" else module.Series(COUNTS)
    assert unoic_cli.evaluate(scores, labels, lam=0.5, source_prior=counts).to_dict() == right
    assert unoic_cli.evaluate(unoic_cli.from_arrays(scores, labels), lam=0.5, source_prior=COUNTS).to_dict() == right
    found = unoic_cli.search_lambda({"a": scores, "b": scores}, labels, source_prior=COUNTS)
    assert found.lam == unoic_cli.search_lambda({"a": LOGITS, "b": LOGITS}, LABELS, source_prior=COUNTS).lam
    made = unoic_cli.calibrate(scores, lam=0.5, source_prior=COUNTS)
    np.testing.assert_array_equal(made.log_probs, unoic_cli.calibrate(LOGITS, lam=0.5, source_prior=COUNTS).log_probs)
    np.testing.assert_array_equal(found.calibration.apply({"a": scores, "b": scores}),
                                  found.calibration.apply({"a": LOGITS, "b": LOGITS}))  # fmt: skip
    methods = {"it": unoic_cli.search_lambda(LOGITS, LABELS, source_prior=COUNTS)}
    compared = unoic_cli.compare(scores, labels, methods=methods)
    assert compared.to_dict() == unoic_cli.compare(LOGITS, LABELS, methods=methods).to_dict()
    assert unoic_cli.prior(scores, labels).counts == tuple(np.bincount(LABELS))
    assert unoic_cli.fit_temperature(scores, labels, source_prior=COUNTS).temperature > 0


@pytest.mark.parametrize("library", frames.LIBRARIES)
def test_tables_that_are_no_scores(library):
    module, scores, labels = as_frames(library)
    text = module.DataFrame({"a": ["x"] * 90, "b": ["y"] * 90})
    missing = module.DataFrame({"a": [None, *LOGITS[1:, 0].tolist()], "b": LOGITS[:, 1].tolist()})
    for given, beside in [(text, labels), (missing, labels), (scores, text), (labels, labels)]:
        with pytest.raises(UnoicError) as caught:
            unoic_cli.evaluate(given, beside)
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- arrays in, arrays out


def stored(path):
    with h5py.File(path) as file:
        return {name: file[name][()] for name in ("log_probs", "probs", "predictions") if name in file}


def held(result):
    assert result.output is None and result.calibration_output is None
    arrays = {"log_probs": result.log_probs, "probs": result.probs, "predictions": result.predictions}
    return {name: array for name, array in arrays.items() if array is not None}


def check(function, inputs, labels=None, **options):
    """What a call without a file gives is, to the last bit and type, what it writes with one."""
    before = sorted(os.listdir())
    found = function(inputs, labels, **options)
    assert sorted(os.listdir()) == before
    function(inputs, labels, **options, output="out.h5", force=True)
    right = stored("out.h5")
    for name in os.listdir():
        os.remove(name)
    arrays = held(found)
    assert set(arrays) == set(right)
    for name, array in arrays.items():
        assert array.dtype == right[name].dtype and array.shape == right[name].shape
        np.testing.assert_array_equal(array, right[name])
    return found


IMAGES = RNG.normal(size=(5, K, 6, 7)).astype(np.float32)
MAPS = RNG.integers(0, K, (5, 6, 7))


@pytest.mark.parametrize("emit", ["log-probs", "probs", "predictions"])
@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("images", [False, True])
def test_calibrate_gives_arrays(emit, labelled, images):
    scores, labels = (IMAGES, MAPS) if images else (LOGITS, LABELS)
    options = {"lam": 0.7, "source_prior": COUNTS, "emit": emit, **({"class_axis": 1} if images else {})}
    found = check(unoic_cli.calibrate, scores, labels if labelled else None, **options)
    assert (found.before is None) == (not labelled)
    if emit == "log-probs":
        assert found.log_probs.dtype == np.float32 and found.probs is None
        np.testing.assert_array_equal(found.log_probs.argmax(1), found.predictions)
        np.testing.assert_allclose(np.exp(found.log_probs.astype(float)).sum(1), 1, atol=1e-5)
    if emit == "predictions":
        assert found.log_probs is None and found.probs is None


def test_lambda_that_is_fitted_is_in_the_result():
    found = check(unoic_cli.calibrate, LOGITS, LABELS, source_prior=COUNTS)
    assert found.fitted is not None and found.calibration.apply(LOGITS).shape == LOGITS.shape
    np.testing.assert_allclose(found.log_probs, found.calibration.apply(LOGITS), atol=1e-6)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("last", [False, True])
def test_types_and_layouts(dtype, last):
    scores = (np.moveaxis(IMAGES, 1, -1) if last else IMAGES).astype(dtype)
    axis = {"class_axis": -1} if last else {}
    found = check(unoic_cli.calibrate, scores, MAPS, lam=0.7, source_prior=COUNTS, **axis)
    assert found.log_probs.shape == scores.shape
    assert found.log_probs.dtype == (np.float64 if dtype == "f8" else np.float32)


def test_kinds_and_single_scores():
    probs = RNG.dirichlet(np.ones(K), 50).astype(np.float32)
    check(unoic_cli.calibrate, unoic_cli.from_arrays(probs, kind="probs"), lam=1, source_prior=COUNTS)
    check(unoic_cli.calibrate, unoic_cli.from_arrays(np.log(probs), kind="log_probs"), lam=1, source_prior=COUNTS)
    found = check(unoic_cli.calibrate, LOGITS[:, 0], lam=1, source_prior=[3, 1])
    assert found.log_probs.shape == (90, 2)
    masked = check(unoic_cli.calibrate, LOGITS, lam=1, source_prior=[5, 3, 2, 0])
    assert (masked.log_probs[:, 3] == -np.inf).all()


def test_units_of_which_nothing_is_known():
    blank = LOGITS.copy()
    blank[[3, 40]] = np.nan
    labels = np.where(np.isnan(blank[:, 0]), 255, LABELS)
    found = check(unoic_cli.calibrate, blank, labels, lam=0.5, source_prior=COUNTS)
    assert np.isnan(found.log_probs[[3, 40]]).all() and (found.predictions[[3, 40]] == 255).all()


def test_one_split():
    source = unoic_cli.from_arrays(LOGITS, LABELS, split=["val", "test", "val"] * 30)
    found = check(unoic_cli.calibrate, source, lam=0.5, source_prior=COUNTS, split="val")
    assert found.log_probs.shape == (60, K)
    whole = unoic_cli.calibrate(source, lam=0.5, source_prior=COUNTS)
    np.testing.assert_array_equal(whole.log_probs[np.arange(90) % 3 != 1], found.log_probs)


@pytest.mark.parametrize("fusion", ["noisy-or", "average", "bayes", "product"])
@pytest.mark.parametrize("images", [False, True])
def test_fuse_gives_arrays(fusion, images):
    first, labels = (IMAGES, MAPS) if images else (LOGITS, LABELS)
    inputs = {"rgb": first, "depth": first[:, ::-1].copy(), "lidar": (2 * first).astype("f2")}
    prior = {"source_prior": COUNTS} if fusion == "bayes" else {}
    prior |= {"class_axis": 1} if images else {}
    axis = {"class_axis": 1} if images else {}
    check(unoic_cli.fuse, inputs, fusion=fusion, **prior)
    check(unoic_cli.fuse, inputs, labels, fusion=fusion, delta="fit", **prior)
    check(unoic_cli.calibrate, inputs, labels, fusion=fusion, lam=0.4, source_prior=COUNTS, delta="fit", **axis)
    statistics = {name: unoic_cli.fit_delta(one, **axis).statistics for name, one in inputs.items()}
    check(unoic_cli.fuse, inputs, fusion=fusion, delta=statistics, **prior)


def test_layouts_that_differ_are_turned():
    inputs = {
        "a": unoic_cli.from_arrays(IMAGES, class_axis=1),
        "b": unoic_cli.from_arrays(np.moveaxis(IMAGES, 1, -1).copy(), class_axis=-1),
    }
    found = check(unoic_cli.fuse, inputs)
    assert found.log_probs.shape == (5, 6, 7, K)


def test_delta_beside_the_scores():
    for delta in (0.5, np.linspace(0.1, 1, 5), np.linspace(0.1, 1, MAPS.size).reshape(MAPS.shape)):
        source = unoic_cli.from_arrays(IMAGES, MAPS, delta=delta)
        check(unoic_cli.calibrate, source, lam=0.7, source_prior=COUNTS)


def test_large_images_are_written_in_pieces():
    """Images are cut where spans are smaller; threads write side by side."""
    rng = np.random.default_rng(3)
    images = rng.normal(size=(2, 8, 256, 200)).astype(np.float32)
    for threads in (1, 3):
        options = {"memory": "4MB", "threads": threads, "lam": 1, "source_prior": list(range(1, 9))}
        found = check(unoic_cli.calibrate, images, class_axis=1, **options)
        check(unoic_cli.calibrate, np.moveaxis(images, 1, -1).copy(), class_axis=-1, **options)
    whole = unoic_cli.calibrate(images, class_axis=1, lam=1, source_prior=list(range(1, 9)))
    np.testing.assert_array_equal(found.log_probs, whole.log_probs)


def test_files_are_written_where_they_are_asked_for():
    made = unoic_cli.calibrate(LOGITS, LABELS, lam=1, source_prior=COUNTS, output="mine.h5")
    assert made.output == "mine.h5" and made.log_probs is None and made.predictions is None
    again = unoic_cli.calibrate("mine.h5", lam=0, source_prior=COUNTS)
    assert again.output == "mine.calibrated.h5" and again.log_probs is None
    mixed = unoic_cli.fuse({"a": "mine.h5", "b": unoic_cli.from_arrays(LOGITS)})
    assert mixed.log_probs.shape == LOGITS.shape and sorted(os.listdir()) == ["mine.calibrated.h5", "mine.h5"]


def test_what_fails_gives_nothing():
    bad = LOGITS.copy()
    bad[50] = np.nan
    with pytest.raises(UnoicError, match="row 50"):
        unoic_cli.calibrate(bad, lam=1, source_prior=COUNTS)
    with pytest.raises(UnoicError, match="arrays or objects in a run that is stored"):
        unoic_cli.run(
            "calibrate", LOGITS, lam=1.0, source_prior=COUNTS, control=unoic_cli.Control(checkpoint="c.unoic")
        )
    assert not os.listdir()
    made = unoic_cli.run("calibrate", LOGITS, lam=1.0, source_prior=COUNTS)
    assert made.log_probs.shape == LOGITS.shape and not os.listdir()


def test_calibrated_arrays_are_evaluated_as_the_calibration_says():
    found = unoic_cli.calibrate(LOGITS, LABELS, lam=0.8, source_prior=COUNTS)
    again = unoic_cli.evaluate(unoic_cli.from_arrays(found.log_probs, LABELS, kind="log_probs"))
    direct = unoic_cli.evaluate(LOGITS, LABELS, lam=0.8, source_prior=COUNTS)
    np.testing.assert_array_equal(again.overall.counts.hits, direct.overall.counts.hits)
    decided = unoic_cli.from_arrays(found.predictions, LABELS, kind="predictions", n_classes=K)
    assert unoic_cli.evaluate(decided).overall.values == direct.overall.values


def test_no_function_of_arrays_writes_files():
    unoic_cli.search_lambda(LOGITS, LABELS, source_prior=COUNTS)
    unoic_cli.evaluate(LOGITS, LABELS)
    unoic_cli.compare({"a": LOGITS, "b": LOGITS}, LABELS)
    unoic_cli.prior(LOGITS, LABELS)
    unoic_cli.fit_delta(LOGITS)
    unoic_cli.fit_temperature(LOGITS, LABELS, source_prior=COUNTS)
    unoic_cli.info(LOGITS, LABELS)
    unoic_cli.calibrate(LOGITS, LABELS, source_prior=COUNTS)
    unoic_cli.fuse({"a": LOGITS, "b": LOGITS}, LABELS)
    assert not os.listdir()
    with pytest.raises(UnoicError, match="kind='predictions', n_classes=K"):
        unoic_cli.prior(LABELS)
    made = unoic_cli.prior(unoic_cli.from_arrays(LABELS, LABELS, kind="predictions", n_classes=K))
    assert made.counts == tuple(np.bincount(LABELS))


def test_frames_know_their_docstrings():
    for kind in ("SearchResult", "EvaluateResult", "CompareResult", "PriorResult"):
        assert "pandas" in inspect.getdoc(getattr(unoic_cli, kind).to_dataframe)
