"""Pictures show what results hold, are the same bytes every time, and refuse what they cannot draw in one line."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import os
import pathlib
import subprocess
import sys
import types

import h5py
import numpy as np
import pytest

import unoic_cli
from unoic_cli import plots
from unoic_cli.errors import CannotCreateError, DataError, NoInputError, UsageError
from unoic_cli.plots import look, results
from unoic_cli.plots.kinds import boundary, curve
from unoic_cli.plots.options import PlotOptions

matplotlib = pytest.importorskip("matplotlib", reason="pip install 'unoic[plot]'")
from matplotlib.figure import Figure  # noqa: E402  # after it is known to be there

SAMPLES = pathlib.Path(__file__).resolve().parents[1] / "sample_data"
DIGITS = str(SAMPLES / "digits_lt" / "val.h5")
TEST = str(SAMPLES / "digits_lt" / "test.h5")
FORMS = {"pdf": b"%PDF-", "svg": b"<?xml", "png": b"\x89PNG\r\n"}


@pytest.fixture(scope="module")
def found():
    """A search with constraints, on the digits."""
    return unoic_cli.search_lambda(DIGITS, metric="miou", metrics="recall[3]", subject_to="acc>=base+0.1, f1>=0.6")


@pytest.fixture(scope="module")
def measured(found):
    """What it makes of other digits."""
    return unoic_cli.evaluate(TEST, calibration=found.calibration, metrics=["ece", "nll"], confusion=True)


@pytest.fixture
def content(found):
    return copy.deepcopy(found.to_dict())


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch, found, measured):
    """A folder with printed results, a calibration, and a grid in the plane."""
    monkeypatch.chdir(tmp_path)
    pathlib.Path("run.json").write_text(json.dumps({"schema": "unoic.search-lambda/1", **found.to_dict()}))
    pathlib.Path("c.json").write_text(json.dumps(found.calibration.to_dict()))
    pathlib.Path("e.json").write_text(json.dumps({"schema": "unoic.evaluate/1", **measured.to_dict()}))
    write_grid()
    return tmp_path


def write_grid(name="grid.h5", n=(31, 21), **more):
    """Three classes around three places, on a grid whose nodes come in any order."""
    rng = np.random.default_rng(0)
    points = np.stack([one.ravel() for one in np.meshgrid(*(np.linspace(-2, 2, size) for size in n))], axis=1)
    points = points[rng.permutation(len(points))]
    centres = np.array([[-1.0, -0.5], [1.0, -0.5], [0.0, 1.0]])
    arrays = {"points": points, "logits": -((points[:, None] - centres) ** 2).sum(axis=2), "source_counts": [90, 9, 1]}
    arrays |= more
    if name.endswith(".npz"):
        np.savez(name, **arrays)
    else:
        with h5py.File(name, "w") as file:
            for key, values in arrays.items():
                file[key] = values
    return arrays


KINDS = {
    "curve": ["run.json"],
    "tradeoff": ["run.json"],
    "odds": ["c.json"],
    "boundary": ["grid.h5"],
    "classes": ["run.json"],
    "reliability": ["e.json"],
    "confusion": ["e.json"],
}
"""Inputs of each kind."""


def texts_of(ax):
    """All that is written in a figure."""
    figure = ax.get_figure()
    figure.draw_without_rendering()
    return [one for one in figure.findobj(matplotlib.text.Text) if one.get_text()]


# ------------------------------------------------------------------------------------------------
# what is drawn


def test_every_kind_is_there():
    assert set(plots.KINDS) == set(KINDS) <= set(dir(plots))
    for name in plots.KINDS:
        module = plots.find_kind(name)
        assert module.ABOUT and module.INPUTS and module.RATIO > 0 and module.PANELS >= 1
        assert set(module.OPTIONS) < set(PlotOptions.__annotations__)
        assert getattr(plots, name) is getattr(module, name)
    with pytest.raises(AttributeError):
        plots.nothing  # noqa: B018
    taken = {one for name in plots.KINDS for one in plots.find_kind(name).OPTIONS}
    assert taken | {"output", "size", "force", "tell"} == set(PlotOptions.__annotations__)


def test_curve_draws_the_numbers_of_the_result(found):
    ax = plots.curve(found, metrics=["miou", "acc", "recall[3]"])
    lines = {line.get_label(): line for line in ax.lines}
    for name, label in (("miou", "mIoU"), ("acc", "acc"), ("recall[3]", "recall[3]")):
        assert lines[label].get_xdata().tolist() == found.lams.tolist()
        assert lines[label].get_ydata().tolist() == (100 * found.curve[name]).tolist()
    assert ax.get_ylabel() == "mIoU, acc, recall[3] (%)" and ax.get_xlabel() == "λ"
    at = [line for line in ax.lines if line.get_xdata() == pytest.approx([found.lam]) and line.get_marker() == "o"]
    assert at[0].get_ydata() == pytest.approx([100 * found.best["miou"]])
    flat = {line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"}
    assert {100 * found.baseline[name] for name in ("miou", "acc")} <= flat
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert f"chosen λ = {found.lam:.4g}" in legend and "violates acc ≥ base+0.1" in legend


def test_curve_shades_what_is_as_good_and_hatches_what_is_ruled_out(found):
    ax = plots.curve(found)
    bands = [patch for patch in ax.patches if patch.get_hatch() is None]
    assert [bands[0].get_x(), bands[0].get_x() + bands[0].get_width()] == pytest.approx(found.choice["interval"])
    hatched = [(one.get_x(), one.get_x() + one.get_width()) for one in ax.patches if one.get_hatch()]
    bound = found.baseline["acc"] + 0.1
    for lam, acc, f1 in zip(found.lams, found.curve["acc"], found.curve["f1"], strict=True):
        assert any(a <= lam <= b for a, b in hatched) == (acc < bound or f1 < 0.6), lam


def test_bounds_of_shown_metrics_are_lines(found):
    ax = plots.curve(found, metrics=["f1"])
    assert [60.0, 60.0] in [list(line.get_ydata()) for line in ax.lines]


def test_constraints_on_what_is_not_shown_make_lines_pale(found):
    acc, f1 = found.curve["acc"] < found.baseline["acc"] + 0.1, found.curve["f1"] < 0.6
    ax = plots.tradeoff(found, range="-1:6")
    pale = [line for line in ax.lines if line.get_color() == "white"]
    assert any((~np.isnan(line.get_ydata()) == acc).all() for line in pale)
    both = [ax, plots.curve({"a": found, "b": found})]
    for ax in both:
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        assert [one for one in labels if "violates" in one] == ["violates acc ≥ base+0.1", "violates f1 ≥ 0.6"]
    curves = [line for line in both[1].lines if line.get_label()[:2] in ("a ", "b ")]
    assert [line.get_alpha() for line in curves] == [0.35, 0.35]
    allowed = [line for line in both[1].lines if len(line.get_xdata()) == acc.size and np.isnan(line.get_xdata()).any()]
    assert len(allowed) == 2 and all((np.isnan(line.get_xdata()) == (acc | f1)).all() for line in allowed)


def test_a_run_without_constraints_beside_one_that_has_some_stays_as_it_is(found, content):
    free = {**content, "subject_to": None}
    ax = plots.curve({"free": free, "bound": found})
    alphas = {line.get_label().partition(" ")[0]: line.get_alpha() for line in ax.lines}
    assert alphas["free"] is None and alphas["bound"] == 0.35


def test_what_the_calibration_has_beside_lambda_is_said(content):
    ax = plots.curve({**content, "offsets": {"values": [0.0]}})
    assert any("without offsets" in text.get_text() for text in ax.get_legend().get_texts())


def test_the_points_of_a_short_curve_are_marked(content):
    curve = {name: values[::60] for name, values in content["curve"].items()}
    ax = plots.curve({**content, "curve": curve})
    assert ax.lines[0].get_marker() == "o" and len(ax.lines[0].get_xdata()) <= 30


def test_default_metrics(found, content):
    assert plots.curve(found).get_ylabel() == "mIoU, mAcc (%)"
    assert plots.curve({"a": found, "b": found}).get_ylabel() == "mIoU (%)"
    assert plots.curve({**content, "metric": "f1"}).get_ylabel() == "F1 (%)"


def test_less_is_better_is_said(content):
    content["curve"]["nll"] = np.linspace(2, 1, len(content["curve"]["lambda"])).tolist()
    content["metric"] = "nll"
    ax = plots.curve(content)
    assert ax.get_ylabel() == "NLL, less is better"
    assert ax.lines[0].get_ydata()[0] == 2.0
    with pytest.raises(UsageError, match="NLL, mIoU, which have no unit in common"):
        plots.curve(content, metrics=["nll", "miou"])


def test_what_is_shown_by_default(found):
    assert (found.lams[0], found.lams[-1]) == (-1.0, 6.0) and plots.curve(found).get_xlim() == (0.0, 2.0)
    assert plots.curve(found, range="0:6").get_xlim() == (0.0, 6.0)
    assert plots.curve(found, range=(0.5, 1)).get_xlim() == (0.5, 1.0)
    low, high = plots.curve({"a": found, "b": found}, metrics=["miou"], range=(0, 1)).get_ylim()
    seen = 100 * found.curve["miou"][(found.lams >= 0) & (found.lams <= 1)]
    assert low < seen.min() and seen.max() < high < seen.max() + 10


def test_several_runs(found, content):
    other = {**content, "lambda": 0.5}
    ax = plots.curve({"CE": found, "focal": other})
    assert [line.get_label() for line in ax.lines[:2]] == ["CE (λ = 1.03)", "focal (λ = 0.5)"] or found.lam != 1.03
    assert len({(line.get_color(), line.get_linestyle()) for line in ax.lines if "λ" in line.get_label()}) == 2
    ax = plots.curve({"CE": found, "focal": other}, metrics=["miou", "acc"])
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert [one for one in legend if one in ("mIoU", "acc")] == ["mIoU", "acc"] and "focal (λ = 0.5)" in legend


def test_lines_are_told_apart_in_grey():
    looks = [look.style(i) for i in range(look.MOST_LINES)]
    assert len({(one.colour, str(one.line)) for one in looks}) == look.MOST_LINES
    assert len({str(one.line) for one in looks[:5]}) == 5


def test_gaps_are_gaps(content):
    content["curve"]["miou"][3:6] = [None, math.nan, None]
    ax = plots.curve(content, metrics=["miou"])
    assert np.flatnonzero(np.isnan(ax.lines[0].get_ydata())).tolist() == [3, 4, 5]
    content["curve"]["miou"] = [None] * len(content["curve"]["miou"])
    for draw in (plots.curve, plots.tradeoff):
        texts_of(draw(content))


def test_tradeoff_draws_the_numbers_of_the_result(found):
    ax = plots.tradeoff(found, x="acc", y="miou", range="0:2")
    shown = (found.lams >= 0) & (found.lams <= 2)
    assert ax.lines[0].get_xdata().tolist() == (100 * found.curve["acc"][shown]).tolist()
    assert ax.lines[0].get_ydata().tolist() == (100 * found.curve["miou"][shown]).tolist()
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("acc (%)", "mIoU (%)")
    assert "λ from 0 to 2" in [text.get_text() for text in ax.get_legend().get_texts()]
    assert any(text.get_text() == f"λ = {found.lam:.4g}" for text in ax.texts)
    bound = 100 * (found.baseline["acc"] + 0.1)
    assert any(patch.get_hatch() and patch.get_x() + patch.get_width() == pytest.approx(bound) for patch in ax.patches)


def test_odds_are_powers_of_ratios(found):
    left, right = plots.odds()
    for ax, above in ((left, False), (right, True)):
        for line in ax.lines:
            lam = float(line.get_label().removeprefix("λ = "))
            assert (lam > 1) == above
            assert line.get_ydata().tolist() == (line.get_xdata() ** lam).tolist()
            assert line.get_xdata()[-1] == 5.0
    figure = Figure()
    ax = figure.subplots()
    assert plots.odds(found, ax, reference=3, lams=0.5, log=True) is ax
    prior = np.array(found.calibration.source_prior.values)
    marks = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == 3]
    assert marks == pytest.approx((prior / prior[3]).tolist())
    assert {line.get_linewidth() for line in ax.lines if line.get_label() == f"λ = {found.lam:.4g}, chosen"} == {2.2}
    assert ax.get_xscale() == "log"


def test_boundaries_are_where_decisions_change():
    """Along every line the two best classes are level, and nowhere else is a change of class between two nodes."""
    arrays = write_grid()
    plane = boundary._plane("grid.h5", [0, 1], None, None, None)
    prior = np.array(arrays["source_counts"]) / 100
    centres = np.array([[-1.0, -0.5], [1.0, -0.5], [0.0, 1.0]])
    for lam in plane.lams:
        x, y = boundary.joined(boundary.edges(plane, lam))
        there = np.stack([x, y], axis=1)[~np.isnan(x)]
        assert len(there) > 50
        scores = -((there[:, None] - centres) ** 2).sum(axis=2) - lam * np.log(prior)
        first, second = np.sort(scores, axis=1)[:, :-3:-1].T
        assert np.abs(first - second).max() < 1e-5
        nodes = plane.scores[lam].argmax(axis=2)
        expected = -((arrays["points"][:, None] - centres) ** 2).sum(axis=2) - lam * np.log(prior)
        place = {tuple(point): k for point, k in zip(arrays["points"].tolist(), expected.argmax(1), strict=True)}
        assert all(place[px, py] == nodes[j, i] for j, py in enumerate(plane.y) for i, px in enumerate(plane.x))


def test_edges_are_drawn_once_and_meet():
    """Three half-lines from the place where three classes are level, no piece of them twice."""
    write_grid(source_counts=[1, 1, 1])
    plane = boundary._plane("grid.h5", [0], None, None, None)
    lines = boundary.edges(plane, 0.0)
    meet = np.array([0.0, -1 / 12])  # as far from each centre
    assert max(np.hypot(*(line[[0, -1]] - meet).T).min() for line in lines) < 1e-6
    ends = [[0.0, -2.0], [2.0, meet[1] + 4 / 3], [-2.0, meet[1] + 4 / 3]]
    assert sum(np.hypot(*np.diff(line, axis=0).T).sum() for line in lines) == pytest.approx(
        sum(np.hypot(*(meet - end)) for end in ends)
    )


def test_points_are_drawn_beneath(answer):
    with h5py.File("train.h5", "w") as file:
        file["points"], file["labels"] = [[0.0, 0.0], [1.0, 1.0], [-1.0, 1.0]], [0, 2, 255]
    made = answer("plot", "boundary", "grid.h5", "--points", "train.h5", "-o", "b.svg", "-l", "1")
    assert (made["n_points"], made["lambdas"], made["grid"]) == (2, [1.0], [31, 21])
    ax = plots.boundary("grid.h5", points=([[0.0, 0.0], [1.0, 1.0]], [0, 2]), lams=[1])
    assert [len(one.get_offsets()) for one in ax.collections] == [1, 1]


def test_the_source_prior_moves_boundaries():
    write_grid("grid.npz")
    with_file = plots.boundary("grid.npz", lams=[1]).lines[0].get_xdata()
    given = plots.boundary("grid.npz", lams=[1], source_prior=[90, 9, 1]).lines[0].get_xdata()
    other = plots.boundary("grid.npz", lams=[1], source_prior=[1, 1, 1]).lines[0].get_xdata()
    assert np.array_equal(with_file, given, equal_nan=True) and not np.array_equal(with_file, other, equal_nan=True)


def test_warnings_are_said_once_and_notes_not(run):
    arrays = write_grid()
    labels = arrays["logits"].argmax(axis=1)
    os.remove("grid.h5")
    write_grid(labels=labels, source_counts=np.bincount(labels))
    with h5py.File("grid.h5", "a") as file:
        del file["source_counts"]
    code, out, err = run("plot", "boundary", "grid.h5", "-o", "a.svg")
    lines = err.splitlines()
    assert code == 0 and len(set(lines)) == len(lines), err
    assert all(line.startswith("unoic: warning: ") for line in lines), err
    assert "labels" in json.loads(out)["source_prior"]


def test_a_class_that_is_never_predicted_has_no_boundary():
    ax = plots.boundary("grid.h5", lams=[1], source_prior=[0.5, 0.5, 0.0])
    x = ax.lines[0].get_xdata()
    assert np.nanmax(np.abs(x)) < 1e-6


# ------------------------------------------------------------------------------------------------
# classes, confidence, confusion


def rates_of(name, support, predicted, hits):
    """A metric of each class by its definition; None where there is none."""
    rows = zip(support, predicted, hits, strict=True)
    parts = {
        "recall": lambda n, p, h: (h, n), "precision": lambda n, p, h: (h, p), "iou": lambda n, p, h: (h, n + p - h),
        "f1": lambda n, p, h: (2 * h, n + p),
    }[name]  # fmt: skip
    return [top / bottom if bottom else None for top, bottom in (parts(*row) for row in rows)]


def dumbbells(ax):
    """(before, after) of each row of a plot, in percent, NaN where there is no mark."""
    before = dict(zip(ax.lines[0].get_ydata().tolist(), ax.lines[0].get_xdata().tolist(), strict=True))
    after = {}
    for line in ax.lines[1:4]:
        after |= dict(zip(line.get_ydata().tolist(), line.get_xdata().tolist(), strict=True))
    assert before.keys() == after.keys()
    return [(before[row], after[row]) for row in sorted(before)]


def percent(values):
    return [math.nan if one is None else 100 * one for one in values]


def same(ours, theirs):
    return np.array_equal(np.array(ours, dtype=float), np.array(theirs, dtype=float), equal_nan=True)


@pytest.mark.parametrize("metric", ["recall", "precision", "iou", "f1"])
def test_classes_draws_the_counts_of_a_search(found, metric):
    at = int(np.flatnonzero(found.lams == found.lam)[0])
    plain = unoic_cli.evaluate(DIGITS)
    support = plain.overall.counts.support.tolist()
    wanted = [
        percent(rates_of(metric, support, plain.overall.counts.predicted, plain.overall.counts.hits)),
        percent(rates_of(metric, support, found.counts.predicted[at], found.counts.hits[at])),
    ]
    ax = plots.classes("run.json", metric=metric, sort="training")
    order = np.argsort(-np.array(found.calibration.source_prior.counts), kind="stable")
    shown = dumbbells(ax)
    assert same(shown, np.array(wanted).T[order])
    bars = [tuple(one[:, 0].tolist()) for part in ax.collections for one in part.get_segments()]
    assert sorted(bars) == sorted((a, b) for a, b in shown if a != b and not math.isnan(a + b))
    assert [text.get_text() for text in ax.get_yticklabels()] == [found.calibration.class_names[k] for k in order]
    counts = [f"{found.calibration.source_prior.counts[k]:,.0f}" for k in order]
    assert [text.get_text() for text in ax.texts] == [*counts, "training"]


def test_classes_of_evaluate_are_those_of_its_json(measured, answer):
    rows = measured.to_dict()["per_class"]
    plain = {row["class"]: row for row in unoic_cli.evaluate(TEST).to_dict()["per_class"]}
    made = answer("plot", "classes", "e.json", "-o", "a.svg", "--sort", "change", "--metric", "f1")
    change = [row["f1"] - plain[k]["f1"] for k, row in enumerate(rows)]
    order = sorted(range(10), key=lambda k: (-change[k], k))
    assert [one["class"] for one in made["classes"]] == order and made["sort"] == "change" and made["n_classes"] == 10
    for one in made["classes"]:
        assert (one["before"], one["after"]) == (plain[one["class"]]["f1"], rows[one["class"]]["f1"])
    assert made["lambdas"] == [0.0, measured.lam] and made["metrics"] == ["f1"]
    for result in (measured, measured.to_dict(), pathlib.Path("e.json")):
        ax = plots.classes(result, metric="f1", sort="change")
        assert dumbbells(ax) == [(100 * one["before"], 100 * one["after"]) for one in made["classes"]]


def test_classes_at_another_lambda_of_a_state(found, refuse):
    unoic_cli.run("search-lambda", DIGITS, control=unoic_cli.Control(state="s.unoic"), metric="miou")
    after = unoic_cli.evaluate(DIGITS, lam=0.5).to_dict()["per_class"]
    for result in ("s.unoic", found):
        ax = plots.classes(result, lam=0.5, sort="labels")
        assert [b for _, b in dumbbells(ax)] == percent([row["recall"] for row in after])
    line = refuse(USAGE, "plot", "classes", "s.unoic", "-o", "a.png", "-l", "0.5001")
    assert line == "--lambda: 0.5001, which is no point of the curve; expected one of it, such as 0.5"


def test_of_many_classes_those_that_change_most_are_shown_and_that_is_said():
    rng = np.random.default_rng(5)
    support = rng.integers(0, 50, 1000)
    before, after = (np.minimum(rng.integers(0, 50, 1000), support) for _ in "ab")
    counts = {
        "support": support.tolist(), "before": {"predicted": before.tolist(), "hits": before.tolist()},
        "after": {"predicted": after.tolist(), "hits": after.tolist()},
    }  # fmt: skip
    ax = plots.classes({"lambda": 1, "counts": counts}, most=30)
    change = np.abs(after - before) / np.maximum(support, 1)
    change[support == 0] = -1
    most = sorted(range(1000), key=lambda k: (-change[k], k))[:30]
    named = [int(text.get_text()) for text in ax.get_yticklabels()]
    assert named == sorted(most, key=lambda k: (-support[k], k))
    assert ax.get_title(loc="left") == "30 of 1,000 classes,\nwhose recall changes most"
    wanted = [(100 * (before[k] / support[k]), 100 * (after[k] / support[k])) for k in named]
    assert same(dumbbells(ax), wanted)
    assert (
        ax.get_figure().get_figheight()
        > plots.classes({"lambda": 1, "counts": counts}, most=3).get_figure().get_figheight()
    )


def test_a_class_without_labels_or_that_is_ignored_has_no_mark():
    counts = {
        "support": [4, 0, 5], "before": {"predicted": [4, 5, 0], "hits": [2, 0, 0]},
        "after": {"predicted": [5, 0, 4], "hits": [3, 0, 2]},
    }  # fmt: skip
    nan = math.nan
    assert same(dumbbells(plots.classes({"lambda": 1, "counts": counts})), [[0, 40], [50, 75], [nan, nan]])
    found = plots.classes({"lambda": 1, "counts": counts, "ignore_index": [0]}, metric="precision")
    assert same(dumbbells(found), [[nan, 50], [nan, nan], [0, nan]])


def test_names_that_are_cut_alike_are_told_apart(content):
    content["calibration"]["class_names"] = [f"the same long beginning of all of these names {k}" for k in range(10)]
    labels = [text.get_text() for text in plots.classes(content).get_yticklabels()]
    assert len(set(labels)) == 10 and all(len(one) <= 40 for one in labels)


def test_reliability_draws_the_bins(measured, answer):
    made = answer("plot", "reliability", "e.json", "-o", "a.pdf")
    bins = measured.to_dict()["reliability"]
    ax = plots.reliability("e.json")
    for line, rows in zip(ax.lines, (bins["before"], bins["bins"]), strict=False):
        known = [row for row in rows if row["count"]]
        assert line.get_xdata().tolist() == [100 * row["confidence"] for row in known]
        assert line.get_ydata().tolist() == [100 * row["accuracy"] for row in known]
    for patch, rows in zip(ax.child_axes[0].patches, (bins["before"], bins["bins"]), strict=True):
        values, edges, _ = patch.get_data()
        assert values.tolist() == [row["count"] for row in rows]
        assert edges.tolist() == [*(100 * row["from"] for row in rows), 100]
    ece = {"before": measured.before.values["ece"], "after": measured.overall.values["ece"]}
    assert made["ece"] == pytest.approx(ece, abs=1e-12)
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == [*(f"{name}, ECE = {value:.3g}" for name, value in ece.items()), "calibrated"]


def test_reliability_of_scores_as_they_are():
    plain = unoic_cli.evaluate(TEST, metrics=["nll"])
    ax = plots.reliability(plain)
    ece = unoic_cli.evaluate(TEST, metrics=["ece"]).overall.values["ece"]
    assert [line.get_label() for line in ax.lines] == [f"ECE = {ece:.3g}", "calibrated"]


def test_confusion_draws_the_shares_of_the_truth(measured):
    counts = measured.confusion
    assert (counts.sum(axis=1) == measured.overall.counts.support).all()
    ax = plots.confusion("e.json")
    assert ax.images[0].get_array().tolist() == (100 * (counts / counts.sum(axis=1, keepdims=True))).tolist()
    texts = {text.get_position(): text.get_text() for text in ax.texts}
    assert texts.keys() == {(j, i) for i in range(10) for j in range(10) if counts[i, j]}
    for (j, i), text in texts.items():
        share = 100 * counts[i, j] / counts[i].sum()
        assert text == ("<1" if share < 0.5 else ">99" if 99.5 <= share < 100 else f"{share:.0f}")
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("prediction (cells: % of the truth)", "truth")
    names = list(measured.class_names)
    assert [one.get_text() for one in ax.get_xticklabels()] == [one.get_text() for one in ax.get_yticklabels()] == names


@pytest.mark.parametrize("n", [2, 20, 21, 250, 999])
def test_confusion_of_any_number_of_classes(n, answer):
    counts = np.random.default_rng(n).integers(0, 9, (n, n)) + 400 * np.eye(n, dtype=int)
    counts[1] = 0
    pathlib.Path("big.json").write_text(json.dumps({"confusion": counts.tolist()}))
    made = answer("plot", "confusion", "big.json", "-o", "a.png", "--force")
    side = made["pooled"]
    assert made["n_classes"] == n and side == -(-n // 250)
    ax = plots.confusion("big.json")
    shares = 100 * (counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    shares[1] = np.nan
    drawn = ax.images[0].get_array().filled(np.nan)
    wanted = [
        [np.nanmax([-1, *shares[i : i + side, j : j + side].ravel()]) for j in range(0, n, side)]
        for i in range(0, n, side)
    ]
    assert same(drawn, np.where(np.array(wanted) < 0, np.nan, wanted))
    assert ax.images[0].get_extent() == [-0.5, side * len(wanted) - 0.5, side * len(wanted) - 0.5, -0.5]
    assert len(ax.texts) == (np.count_nonzero(counts) if n <= 20 else 0)
    assert bool(ax.get_title(loc="left")) == (side > 1)
    said = [one.get_ylabel() for one in ax.get_figure().axes] + [ax.get_xlabel()]
    assert any("of the truth" in text and "%" in text for text in said), "the unit, in the bar or below"


def wrong_results(content, measured):
    """Results that cannot be drawn, by kind, and what is said of them."""
    counts, bins = content["counts"], measured["reliability"]["bins"]
    hits = {**counts["after"], "hits": [99] * 10}
    yield "classes", {**content, "counts": None}, "a result without before and after of each class"
    yield "classes", {**content, "counts": {**counts, "support": "a"}}, "counts.support: a str"
    yield "classes", {**content, "counts": {**counts, "support": [-1]}}, "counts.support: -1 at entry 0"
    yield "classes", {**content, "counts": {**counts, "support": []}}, "counts of no class"
    yield "classes", {**content, "counts": {**counts, "after": {}}}, "counts.after.predicted: nothing"
    yield (
        "classes",
        {**content, "counts": {**counts, "after": hits}},
        "counts.after: more hits than predictions or labels",
    )
    yield "classes", {**content, "lambda": None}, "lambda: nothing"
    yield "classes", {**content, "source_prior": {"values": [1]}}, "source_prior.values of 1 classes"
    yield "classes", {"schema": "unoic.compare/1"}, "a result of unoic compare"
    yield "reliability", {**measured, "reliability": None}, "a result without confidence"
    yield "reliability", {"reliability": {"bins": [3]}}, "reliability.bins: no list of bins"
    yield "reliability", {"reliability": {"bins": [{**bins[0], "count": 1.5}]}}, "reliability.bins.count: 1.5 at entry"
    yield "reliability", {"reliability": {"bins": bins[::-1]}}, "reliability.bins: bins that make no sense"
    empty = {"reliability": {"bins": [{**one, "count": 0} for one in bins]}}
    yield "reliability", empty, "reliability.bins: bins that make no sense"
    yield "reliability", content, "a result without confidence"
    yield "confusion", {**measured, "confusion": None}, "a result without a confusion matrix"
    yield "confusion", {"confusion": [[1, 2]]}, "confusion[0]: 2 entries"
    yield "confusion", {"confusion": [[True]]}, "confusion[0]: a bool at entry 0"
    yield "confusion", {"confusion": [0] * 1001}, "a confusion matrix of 1,001 classes; expected 1,000 at most"
    yield "confusion", {"schema": "unoic.search-lambda/1"}, "a result of unoic search-lambda"


def test_results_that_cannot_be_drawn(content, measured, refuse):
    for kind, wrong, line in wrong_results(content, measured.to_dict()):
        pathlib.Path("x.json").write_text(json.dumps(wrong))
        assert refuse(DATA, "plot", kind, "x.json", "-o", "a.png").startswith(f"x.json: {line}"), line
    for kind in ("classes", "reliability", "confusion"):
        assert "a logits file (hdf5); expected a result of unoic" in refuse(DATA, "plot", kind, DIGITS, "-o", "a.png")
        assert "JSON that is a list" in refuse(DATA, "plot", kind, write("list.json", "[1]"), "-o", "a.png")
    assert not os.path.exists("a.png")


def write(name, text):
    pathlib.Path(name).write_text(text)
    return name


def test_states_of_evaluate_are_drawn():
    asked = {"lam": 1.0, "metrics": ["ece"], "confusion": True}
    unoic_cli.run("evaluate", TEST, control=unoic_cli.Control(state="e.unoic"), **asked)
    whole = unoic_cli.evaluate(TEST, **asked)
    assert dumbbells(plots.classes("e.unoic")) == dumbbells(plots.classes(whole))
    texts = [[text.get_text() for text in plots.confusion(one).texts] for one in ("e.unoic", whole)]
    assert texts[0] == texts[1] and len(texts[0]) > 10
    lines = [plots.reliability(one).lines[1].get_ydata().tolist() for one in ("e.unoic", whole)]
    assert lines[0] == lines[1]


def test_constraints_have_hatches_of_their_own(found):
    hatches = {patch.get_hatch() for patch in plots.curve(found).patches if patch.get_hatch()}
    assert len(hatches) == 2
    ax = plots.tradeoff(found, x="acc", y="f1")
    assert len({patch.get_hatch() for patch in ax.patches if patch.get_hatch()}) == 2


# ------------------------------------------------------------------------------------------------
# forms of results


def test_results_in_every_form(found, content, run, monkeypatch):
    unoic_cli.run("search_lambda".replace("_", "-"), DIGITS, control=unoic_cli.Control(state="s.unoic"), metric="miou")
    for result in (found, content, "run.json", pathlib.Path("run.json"), ["run.json"], {"a": found}, ("a=run.json",)):
        assert plots.curve(result).lines[0].get_ydata().tolist() == (100 * found.curve["miou"]).tolist()
    plain = plots.curve("s.unoic").lines[0].get_ydata().tolist()
    assert plain == (100 * unoic_cli.search_lambda(DIGITS, metric="miou").curve["miou"]).tolist()
    stdin = types.SimpleNamespace(buffer=io.BytesIO(pathlib.Path("run.json").read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    assert run("plot", "curve", "-", "-o", "a.svg")[0] == 0


def test_names_of_runs(answer):
    pathlib.Path("a=b.json").write_bytes(pathlib.Path("run.json").read_bytes())
    made = answer("plot", "curve", "run.json", "UNO (x=1)=run.json", "a=b.json", "-o", "a.svg")
    assert [(one["name"], one["file"]) for one in made["runs"]] == [
        ("run", "run.json"), ("UNO (x=1)", "run.json"), ("a=b", "a=b.json"),
    ]  # fmt: skip
    made = answer("plot", "tradeoff", "*n.json", "-o", "b.svg")
    assert [one["name"] for one in made["runs"]] == ["run"]


def test_text_is_drawn_as_it_is(content):
    name = r"$\frac{a}{b}$ \alpha ^_{" + "\n\x1b[2J\u202e" + "z" * 100
    content["calibration"]["class_names"][3] = name
    content["curve"][f"recall[{name}]"] = content["curve"]["acc"]
    for ax in (
        plots.curve({name: content, "b": content}),
        plots.curve(content, metrics=[f"recall[{name}]"]),
        plots.tradeoff({name: content, "b": content}),
        plots.odds(content, reference=name)[0],
        plots.classes(content),
        plots.confusion({"confusion": np.eye(10, dtype=int).tolist(), "per_class": [{"name": name}] * 10}),
    ):
        shown = [text for text in texts_of(ax) if "frac" in text.get_text()]
        assert shown
        for text in shown:
            assert not text.get_parse_math() and len(text.get_text()) <= 60
            assert text.get_text().isprintable()


def test_axes_of_ones_own(found):
    before = dict(matplotlib.rcParams)
    figure = Figure()
    ax = figure.subplots()
    assert plots.curve(found, ax) is ax and plots.tradeoff(found, ax) is ax
    assert figure.get_size_inches().tolist() == [6.4, 4.8]
    left, right = Figure().subplots(1, 2)
    assert plots.odds(None, (left, right)) == (left, right)
    assert dict(matplotlib.rcParams) == before


def test_no_state_of_the_whole_process():
    script = "import sys; from unoic_cli import plots; plots.odds(); print('matplotlib.pyplot' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout == "False\n"


# ------------------------------------------------------------------------------------------------
# files


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_in_every_form(kind, form, answer):
    made = answer("plot", kind, *KINDS[kind], "-o", f"a.{form}", "--size", "page" if form == "png" else "column")
    assert (made["kind"], made["output"], made["form"]) == (kind, f"a.{form}", form)
    assert made["width"] == (6.9 if form == "png" else 3.3)
    first = pathlib.Path(f"a.{form}").read_bytes()
    assert first.startswith(FORMS[form]) and len(first) > 5000
    if form == "png":
        width, height = (int.from_bytes(first[i : i + 4], "big") for i in (16, 20))
        assert (width, height) == (round(made["width"] * 300), pytest.approx(made["height"] * 300, abs=1))
    with matplotlib.rc_context({"lines.linewidth": 7, "font.size": 20, "svg.hashsalt": None}):  # a user's settings
        answer("plot", kind, *KINDS[kind], "-o", f"b.{form}", "--size", "page" if form == "png" else "column")
    assert pathlib.Path(f"b.{form}").read_bytes() == first
    assert sorted(os.listdir()) == sorted({"run.json", "c.json", "e.json", "grid.h5", f"a.{form}", f"b.{form}"})


def test_bytes_do_not_depend_on_the_process():
    words = [sys.executable, "-m", "unoic_cli", "plot", "curve", "run.json", "-q", "-o"]
    subprocess.run([*words, "a.svg"], check=True, capture_output=True)
    unoic_cli.plot("curve", "run.json", output="b.svg")
    assert pathlib.Path("a.svg").read_bytes() == pathlib.Path("b.svg").read_bytes()


def test_a_legend_makes_room_for_itself(found, answer):
    one = unoic_cli.plot("curve", "run.json", output="a.png")
    many = unoic_cli.plot("curve", {f"a long name of run {i}": found for i in range(12)}, output="b.png")
    assert many.height > one.height + 1


@pytest.mark.parametrize("size", ["column", "page"])
@pytest.mark.parametrize("letters", [1, 12, 300])
def test_a_legend_is_whole_beside_long_names(size, letters, answer):
    from unoic_cli.plots.kinds import classes
    from unoic_cli.plots.look import look, new_figure

    counts = {"support": [9] * 4, "before": {"predicted": [4] * 4, "hits": [4] * 4}}
    counts["after"] = {"predicted": [5, 6, 3, 2], "hits": [5, 6, 3, 2]}
    names = [{"name": str(i) + "w" * letters} for i in range(4)]
    found = classes.load({"lambda": 1, "counts": counts, "per_class": names}, {"lam": None})
    with look():
        figure, ax = new_figure(size, classes.RATIO)
        classes.draw(found, ax, {"metric": [], "sort": None, "most": None})
        figure.draw_without_rendering()
        box = ax.get_legend().get_window_extent()
    assert len(ax.get_legend().get_texts()) == 3
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0


@pytest.mark.parametrize("given", [(0, 2), (-0.5, 1), (-99, 99)])
def test_tradeoff_says_which_lambdas_it_shows(given, found):
    shown = found.lams[(found.lams >= given[0]) & (found.lams <= given[1])]
    for runs in (found, {"a": found, "b": found}):
        legend = plots.tradeoff(runs, range=given).get_legend()
        assert f"λ from {shown[0]:.4g} to {shown[-1]:.4g}" in [one.get_text() for one in legend.get_texts()]


def test_an_output_that_exists(refuse, answer):
    pathlib.Path("a.png").write_text("old")
    line = refuse(CannotCreateError.exit_code, "plot", "curve", "run.json", "-o", "a.png")
    assert line == "a.png: the file exists; expected a new name, or --force to replace it"
    assert pathlib.Path("a.png").read_text() == "old"
    answer("plot", "curve", "run.json", "-o", "a.png", "--force")
    assert pathlib.Path("a.png").read_bytes().startswith(FORMS["png"])
    assert "nodir" in refuse(CannotCreateError.exit_code, "plot", "odds", "-o", "nodir/a.png")


def test_a_full_disk_leaves_nothing(refuse, file_limit):
    with file_limit(2000):
        refuse(74, "plot", "curve", "run.json", "-o", "a.png")
    assert sorted(os.listdir()) == ["c.json", "e.json", "grid.h5", "run.json"]


def test_the_table_of_a_terminal(run):
    code, out, _ = run("plot", "curve", "a=run.json", "-o", "a.svg", "--format", "table")
    assert code == 0 and "as good within one SE" in out and "mIoU, mAcc" in out
    code, out, _ = run("plot", "odds", "-o", "b.svg", "--format", "tsv")
    assert code == 0 and "lambdas.0\t0.25\n" in out
    code, out, _ = run("plot", "odds", "-o", "c.svg", "--format", "table", "-l", "2")
    assert code == 0 and "lambdas" in out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["table", "csv", "latex"])
def test_what_every_kind_prints(kind, form, run):
    code, out, err = run("plot", kind, *KINDS[kind], "-o", "a.png", "--format", form)
    assert code == 0 and kind in out, err


# ------------------------------------------------------------------------------------------------
# what is refused


MADE = "a result of unoic search-lambda (--format json), or a state of it"
USAGE, DATA = UsageError.exit_code, DataError.exit_code


def bad_files(content):
    """Files that are no results of a search."""
    deep = "[" * 100_000
    with_schema = {"schema": "unoic.search-lambda/1", **content}
    files = {
        "evaluate.json": {"schema": "unoic.evaluate/1", "acc": 1},
        "newer.json": {**with_schema, "schema": "unoic.search-lambda/9"},
        "list.json": [1],
        "no-curve.json": {**with_schema, "curve": None},
        "text.json": {**with_schema, "curve": {**content["curve"], "miou": ["a"] * len(content["curve"]["lambda"])}},
        "short.json": {**with_schema, "curve": {**content["curve"], "miou": [1]}},
        "order.json": {**with_schema, "curve": {"lambda": [1, 0], "miou": [1, 1]}},
        "single.json": {**with_schema, "curve": {"lambda": [1], "miou": [1]}},
        "huge.json": {**with_schema, "curve": {"lambda": [0, 1], "miou": [0, 10**400]}},
        "lambda.json": {**with_schema, "lambda": "1"},
        "metric.json": {**with_schema, "metric": "gmean"},
        "subject.json": {**with_schema, "subject_to": "acc>>1"},
    }
    for name, value in files.items():
        pathlib.Path(name).write_text(json.dumps(value))
    for name, text in {"deep.json": deep, "empty.json": "", "plain.json": "{", "other.txt": "hello"}.items():
        pathlib.Path(name).write_text(text)
    unoic_cli.run("evaluate", DIGITS, control=unoic_cli.Control(state="e.unoic"))


def test_files_that_are_no_results(refuse, content):
    bad_files(content)
    wrong = {
        "evaluate.json": f"a result of unoic evaluate; expected {MADE}",
        "newer.json": "schema unoic.search-lambda/9; expected unoic.search-lambda/1",
        "list.json": f"JSON that is a list; expected {MADE}",
        "c.json": f"a calibration, which has no curve; expected {MADE}",
        "no-curve.json": f"JSON without a curve; expected {MADE}",
        "text.json": "curve.miou: a str at entry 0; expected numbers, or null",
        "short.json": f"curve.miou of 1 values; expected {len(content['curve']['lambda'])}, one for each lambda",
        "order.json": "curve.lambda that does not rise; expected lambdas in order, none twice, "
        "between -1000000 and 1000000",
        "single.json": "a curve of 1 lambda; expected a search over a range (without --lambda)",
        "huge.json": "curve.miou: a number beyond any float; expected numbers, or null",
        "lambda.json": "lambda: a str; expected a number between -1000000 and 1000000",
        "metric.json": f"a curve without its metric 'gmean'; expected {MADE}",
        "deep.json": f"not JSON; expected {MADE}",
        "empty.json": f"an empty file; expected {MADE}",
        "plain.json": f"not JSON; expected {MADE}",
        "other.txt": f"not JSON; expected {MADE}",
        "e.unoic": f"a state of unoic evaluate; expected {MADE}",
    }
    for name, line in wrong.items():
        for kind in ("curve", "tradeoff"):
            assert refuse(DATA, "plot", kind, name, "-o", "a.png") == f"{name}: {line}"
    assert "'acc>>1'" in refuse(DATA, "plot", "curve", "subject.json", "-o", "a.png")
    line = refuse(DATA, "plot", "curve", DIGITS, "-o", "a.png")
    assert line.startswith(
        f"{DIGITS}: a logits file (hdf5); expected the result of a search on it: unoic search-lambda"
    )
    assert refuse(NoInputError.exit_code, "plot", "curve", "none.json", "-o", "a.png").startswith("none.json: no such")
    assert not os.path.exists("a.png")


VALUES = [None, "x", [], {}, -1, 1e308, math.nan, math.inf, True, 10**400, [1, 2], ["a"], [None, None], {"a": 1}]


@pytest.mark.parametrize("key", ["lambda", "metric", "n_classes", "choice", "curve", "baseline", "subject_to"])
def test_nonsense_in_results_is_one_error(content, key):
    for value in VALUES:
        for wrong in ({key: value}, {"curve": {**content["curve"], key: value}}, {"choice": {"interval": value}}):
            with contextlib.suppress(DataError):
                results.parsed("x", {**content, **wrong}, "x.json")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("curve run.json", "--output: no name for the picture; expected FILE.pdf, FILE.svg or FILE.png"),
        ("curve run.json -o a.gif", "--output: 'a.gif'; expected a name that ends with .pdf, .svg or .png"),
        ("curve run.json -o a", "--output: 'a'; expected a name that ends with .pdf, .svg or .png"),
        (
            "curvy run.json -o a.png",
            "did you mean curve? expected one of boundary, classes, confusion, curve, odds, reliability, tradeoff",
        ),
        ("classes run.json -o a.png --metric acc", "--metric: 'acc' of each class; expected one of recall, precision,"),
        (
            "classes run.json -o a.png --metric f1 --metric iou",
            "--metric: 2 metrics of a plot of classes; expected one",
        ),
        ("classes run.json -o a.png --sort name", "--sort: 'name'; expected one of training, labels, change"),
        ("classes e.json -o a.png --sort training", "--sort: training, which e.json does not know; expected labels"),
        ("classes run.json -o a.png --most 0", "--most: 0; expected 1 to 120"),
        ("classes run.json -o a.png -l 1 -l 2", "--lambda: 2 lambdas of a plot of classes; expected one"),
        ("classes run.json -o a.png -l 1.5", "where run.json has the classes at"),
        (
            "classes run.json e.json -o a.png",
            "INPUTS: 2 inputs of a plot of classes; expected a result of unoic search",
        ),
        ("reliability e.json -o a.png --log", "--log of a plot of reliability; expected none: it has no options"),
        ("confusion -o a.png", "INPUTS: 0 inputs of a plot of confusion; expected a result of unoic evaluate"),
        ("curve -o a.png", "INPUTS: no search result; expected"),
        ("curve run.json -o a.png --size big", "--size: 'big'; expected column or page"),
        ("curve run.json -o a.png --format xml", "--format: 'xml'; expected table, json, tsv, csv or latex"),
        ("curve run.json -o a.png --metric foo", "expected one of acc, macc, miou, f1, recall[3] (search-lambda"),
        ("curve run.json -o a.png --metric nll", "'nll', which the curve of run.json lacks; expected one of acc"),
        ("curve run.json -o a.png -l 1", "--lambda of a plot of curve; expected none but --metric, --range"),
        ("curve run.json -o a.png --log", "--log of a plot of curve; expected none but"),
        ("tradeoff run.json -o a.png --metric acc", "--metric of a plot of tradeoff; expected none but --x, --y"),
        ("tradeoff run.json -o a.png --y miou", "--y: 'miou', which is --x too; expected another metric"),
        ("tradeoff run.json -o a.png --x foo", "--x: 'foo', which the curve of run.json lacks"),
        ("odds -o a.png --x acc", "--x of a plot of odds; expected none but --lambda, --reference, --log"),
        ("boundary grid.h5 -o a.png --range 0:1", "--range of a plot of boundary"),
        ("curve run.json run.json -o a.png", "two runs called 'run'; expected names that differ: NAME=FILE"),
        ("curve a=run.json a=run.json -o a.png", "two runs called 'a'; expected names that differ: NAME=FILE"),
        ("curve a=*.json -o a.png", "a=*.json: 3 files called 'a'; expected one file for a name: NAME=FILE"),
        ("curve =run.json -o a.png", "expected one file for a name: NAME=FILE"),
        ("curve - - -o a.png", "standard input twice"),
        ("curve run.json -o a.png --range 3", "--range: '3'; expected two lambdas: A:B"),
        ("curve run.json -o a.png --range 3:1", "--range: 3:1; expected the lower lambda first"),
        ("curve run.json -o a.png --range a:1", "--range: 'a'; expected a number"),
        ("curve run.json -o a.png --range 8:9", "no two lambdas; expected some of -1:6"),
        ("odds -o a.png --lambda nan", "--lambda: nan; expected a finite number"),
        ("odds -o a.png --lambda x", "--lambda: 'x'; expected a number"),
        ("odds -o a.png --lambda 1e5", "--lambda: 100000, which moves odds by more than 1e+100"),
        ("odds -o a.png --reference 1", "--reference: a class without a calibration"),
        ("odds c.json -o a.png --reference 10", "--reference: '10'; expected a number below 10, or the name of a"),
        ("odds *.json -o a.png", "*.json: 3 files (c.json, e.json, run.json); expected one"),
        ("odds c.json run.json -o a.png", "INPUTS: 2 inputs of a plot of odds; expected one calibration, or none"),
        ("boundary -o a.png", "INPUTS: 0 inputs of a plot of boundary; expected one logits file"),
        ("boundary grid.h5 -o a.png -l inf", "--lambda: inf; expected a finite number"),
        ("boundary grid.h5 -o a.png --source-prior 1,2", "a prior of 2 classes"),
    ],
)
def test_options_that_make_no_sense(words, line, run):
    code, out, err = run("plot", *words.split())
    assert (out, len(err.splitlines())) == ("", 1) and err.startswith("unoic: error: ") and line in err
    assert code in ((USAGE, DATA) if "prior of 2" in line else (USAGE,))
    assert not os.path.exists("a.png")


def test_a_calibration_that_is_none(refuse, content):
    deep = []
    for _ in range(400):
        deep = [deep]
    for wrong in ({"version": deep}, {"lambda": "1"}, {"lambda": 10**400}, {"modalities": []}, {"format": 3}):
        pathlib.Path("bad.json").write_text(json.dumps({**content["calibration"], **wrong}))
        assert refuse(DATA, "plot", "odds", "bad.json", "-o", "a.png").startswith("bad.json: ")
    with pytest.raises(DataError, match="calibration: JSON of another kind"):
        plots.odds(3)


def test_too_many_are_not_told_apart(found):
    with pytest.raises(UsageError, match="36 runs; expected 35 at most"):
        plots.curve({str(i): found for i in range(36)})
    with pytest.raises(UsageError, match="21 lambdas; expected 20 at most"):
        plots.odds(lams=np.linspace(0, 1, 21).tolist())


GRID = np.stack([one.ravel() for one in np.meshgrid(np.arange(4.0), np.arange(3.0))], axis=1)


@pytest.mark.parametrize(
    ("points", "line"),
    [
        (None, "no array points; expected points (N, 2) in the file; it has: logits, source_counts"),
        (GRID[:-1], "points: shape (11, 2); expected (12, 2) numbers"),
        (GRID[:, :1], "points: shape (12, 1); expected (12, 2) numbers"),
        (GRID * [1, 0], "points: 12 points at 4 x 1 different coordinates; expected a grid: every x with every y"),
        (GRID + np.arange(12)[:, None], "different coordinates; expected a grid: every x with every y, once"),
        (np.where(np.arange(12)[:, None] == 5, GRID[4], GRID), "expected a grid: every x with every y, once"),
        (np.where(GRID == 2, np.nan, GRID), "points: a coordinate that is not finite; expected finite numbers"),
        (GRID.astype("S3"), "points: dtype |S3; expected an array of numbers"),
    ],
)
@pytest.mark.parametrize("name", ["g.h5", "g.npz"])
def test_points_that_are_no_grid(points, line, name, refuse):
    arrays = {"logits": np.ones((12, 2)), "source_counts": [2, 1]}
    if points is not None:
        arrays["points"] = points
    if name.endswith("npz"):
        np.savez(name, **arrays)
    else:
        with h5py.File(name, "w") as file:
            for key, values in arrays.items():
                file[key] = values
    found = refuse(DATA, "plot", "boundary", name, "-o", "a.png")
    assert found.startswith(name) and line in found


def test_grids_up_to_rounding():
    x = np.repeat(np.linspace(0, 1, 5) + 1e-12 * np.arange(5), 3) + np.tile([0, 1e-13, -1e-13], 5)
    ax, ay, order = boundary.regular(np.stack([x, np.tile([0.0, 1.0, 2.0], 5)], axis=1), "x")
    assert (ax.size, ay.size) == (5, 3) and sorted(order.ravel().tolist()) == list(range(15))


def test_files_that_are_no_grid(refuse):
    assert "no array points" in refuse(DATA, "plot", "boundary", DIGITS, "-o", "a.png")
    images = str(SAMPLES / "streets" / "rgb" / "val.h5")
    assert "images (64, 96); expected rows (N, K)" in refuse(DATA, "plot", "boundary", images, "-o", "a.png")
    parquet = str(SAMPLES / "digits_lt" / "val.parquet")
    assert "expected points in an HDF5 or npz file" in refuse(DATA, "plot", "boundary", parquet, "-o", "a.png")
    np.savez("p.npz", predictions=[0, 1, 1, 0], points=GRID[:4])
    assert "p.npz" in refuse(DATA, "plot", "boundary", "p.npz", "-o", "a.png")
    for labels, line in (([0, 3, 0], "labels: class 3; expected classes below 3"), ([0.5] * 3, "expected 3 integers")):
        np.savez("t.npz", points=np.zeros((3, 2)), labels=labels)
        assert line in refuse(DATA, "plot", "boundary", "grid.h5", "--points", "t.npz", "-o", "a.png")


def test_python_is_told_the_same():
    with pytest.raises(DataError, match="result: JSON that is a int"):
        plots.curve(3)
    with pytest.raises(UsageError, match="no search result"):
        plots.curve([])
    with pytest.raises(UsageError, match="a dict of a plot of boundary"):
        unoic_cli.plot("boundary", {}, output="a.png")
    with pytest.raises(UsageError, match=r"expected a file, or \(points, labels\)"):
        plots.boundary("grid.h5", points=3)
    with pytest.raises(UsageError, match="lambdas"):
        unoic_cli.plot("curve", "run.json", output="a.png", lambdas=[1])


# ------------------------------------------------------------------------------------------------
# without matplotlib


@pytest.mark.parametrize(
    "code", ["import unoic_cli.plots.command", "cli.run(['doctor'])", "cli.run(['plot', '--help'])"]
)
def test_nothing_else_imports_matplotlib(code):
    script = f"import sys, unoic_cli; from unoic_cli import cli; {code}; print('matplotlib' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "False"


def test_without_matplotlib(refuse, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for words in ([kind, *inputs] for kind, inputs in KINDS.items()):
        line = refuse(USAGE, "plot", *words, "-o", "a.png")
        assert (
            line == "plot: matplotlib, which is not installed; expected it to be installed: pip install 'unoic[plot]'"
        )
    with pytest.raises(UsageError, match="matplotlib, which is not installed"):
        plots.curve("run.json")


def test_doctor_lists_the_extra(answer):
    assert answer("doctor")["extras"]["plot"] is True


def test_units_of_axes():
    assert curve.axis_label(["acc"]) == "acc (%)"
