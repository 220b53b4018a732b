"""The kernels on columns: realistic scores with many changes, every tail of a tile, and each operation and its twin."""

from __future__ import annotations

import functools
from dataclasses import replace

import naive
import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_kernels import (
    ENCODINGS,
    INF,
    LAYOUTS,
    Problem,
    check_path,
    check_points,
    encode,
    few,
    lattice_of,
    random_problem,
)

from unoic_cli.kernels import columns, path, simd, tile
from unoic_cli.kernels.constants import COLUMN_CLASSES
from unoic_cli.kernels.jit import JIT_DISABLED, NO_COUNTING
from unoic_cli.kernels.lines import COPIES, JOINT_CLASSES, make_lines, make_workspace
from unoic_cli.kernels.simd import LANES
from unoic_cli.tallies import path as path_tally
from unoic_cli.tallies.path import PathTally

pytestmark = [pytest.mark.kernel, pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")]

compiled = numba.njit(**NO_COUNTING)


def callable_from_here(step):
    """A step of kernels, with the wrapper that it lacks."""
    return compiled(getattr(step, "py_func", step))


set_limits, path_of_columns = callable_from_here(path.set_limits), callable_from_here(path.path_of_columns)


# ---------------------------------------------------------------- whole kernels


def realistic(rng, n_units, n_classes, encoding, layout, lams=None, spread=6.0):
    """Scores whose winner changes a few times as lambda grows, as those of networks on imbalanced data."""
    prior = naive.normalised(np.exp(-spread * rng.permutation(n_classes) / n_classes))
    values = rng.normal(size=(n_units, n_classes)) * rng.choice([1.5, 4.0]) + np.log(prior) * rng.choice([0.3, 1.0])
    labels = rng.integers(-1, n_classes, n_units)
    if rng.random() < 0.3:  # ties
        values = np.round(values * 2) / 2
    slopes = naive.slopes(prior, np.ones(n_classes))
    lams = lattice_of(rng.choice(["0:2:0.05", "-1:2:0.25", "0.5:3:0.125"])) if lams is None else lams
    tables = rng.integers(0, rng.choice([1, 4]), n_units)
    return Problem(values, labels, slopes, lams, encoding, layout, tables=tables, n_images=int(rng.choice([1, 2, 3])))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_number_of_classes_and_every_tail(encoding, layout):
    rng = np.random.default_rng([7, ENCODINGS.index(encoding), LAYOUTS.index(layout)])
    for n_classes in (2, 16, 17, 33) if JIT_DISABLED else range(2, 41):
        n_units = int(rng.integers(1, 100))
        problem = realistic(rng, n_units, n_classes, encoding, layout)
        check_path(problem)
        check_points(problem, 2)
        if n_classes % 5 == 0:
            check_path(random_problem(rng, encoding, layout, n_classes, n_units + 16))


@pytest.mark.skipif(JIT_DISABLED, reason="slow without the JIT")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("extra", range(33))
def test_tiles_of_every_size_near_a_multiple(layout, extra):
    rng = np.random.default_rng(extra)
    n_classes = int(rng.integers(9, 33))
    n_units = make_workspace(n_classes).tile.size // n_classes // LANES * LANES - 16 + extra
    problem = realistic(rng, n_units, n_classes, str(rng.choice(ENCODINGS)), layout, np.linspace(0, 2, 9))
    check_path(replace(problem, n_images=1))
    check_points(replace(problem, n_images=1), 2)


@few
@given(
    st.integers(0, 2**32), st.integers(2, 40), st.integers(1, 90), st.sampled_from(ENCODINGS), st.sampled_from(LAYOUTS)
)
def test_realistic_scores_of_any_seed(seed, n_classes, n_units, encoding, layout):
    rng = np.random.default_rng(seed)
    n_units = min(n_units, 20) if JIT_DISABLED else n_units
    problem = realistic(rng, n_units, n_classes, encoding, layout, spread=rng.choice([0.5, 3, 9]))
    if rng.random() < 0.3:
        problem = replace(problem, masked=np.arange(n_classes) % 3 == 2)
    if rng.random() < 0.3:
        problem = replace(problem, delta=rng.choice([0.5, 1.0, 2.0], n_units))
    if rng.random() < 0.2:
        values = np.where(rng.random(problem.values.shape) < 0.2, -INF, problem.values)
        values[np.arange(n_units), 3 * rng.integers(0, (n_classes + 2) // 3, n_units)] = 0.0
        problem = replace(problem, values=values, kind="log_probs")
    check_path(problem)
    check_points(problem, 2)


def test_paths_over_all_classes():
    """Lines of a parabola: each class leads for a while."""
    for n_classes in (5, 12, 20, 32):
        slopes = np.arange(n_classes) / 4.0
        values = -(slopes**2)[None] + np.linspace(-0.3, 0.3, 20)[:, None] * slopes
        problem = Problem(values, np.arange(20) % n_classes, slopes, np.linspace(-1, 17, 181), "float32", "rows")
        check_path(problem)
        check_path(replace(problem, layout="planes", tables=np.arange(20) % 3))


def test_classes_of_equal_lines_are_left_to_float64():
    """Equal lines above a kink: the walk would go round in a circle."""
    values = np.tile(np.array([5.0, 4.9, 4.9, 0.0]), (20, 1))
    check_path(Problem(values, np.arange(20) % 4, np.array([0.0, 1.0, 1.0, 3.0]), np.linspace(0, 4, 41), "float32"))


@pytest.mark.steps
def test_most_changes_are_certain_in_float32(monkeypatch):
    """What is left to float64 is slow: it must stay rare."""
    rng = np.random.default_rng(0)
    n_units, n_classes = (200, 14) if JIT_DISABLED else (20_000, 14)
    problem = realistic(rng, n_units, n_classes, "float16", "rows", lattice_of("0:2:0.01"))
    values = problem.values + rng.normal(size=problem.values.shape)  # no ties
    values[np.arange(n_units), problem.labels] += 14
    problem = replace(problem, values=values, tables=np.zeros(n_units, np.int32))
    work = make_workspace(n_classes)
    batch, lines = problem.batch(), problem.lines()
    counts = np.zeros((lines.lams.size + COPIES) * n_classes * 2, np.int32)
    support, todo = np.zeros(COPIES * n_classes, np.int64), 0
    raw = batch.scores.raw.reshape(n_units, n_classes)
    for first in range(0, n_units - 256, 256):
        tile = raw[first : first + 256].view(np.float16).astype(np.float32).T
        work.tile[: tile.size] = tile.reshape(-1)
        set_limits(float(np.abs(tile).max()), 1e-12, lines, work.limits)
        todo += path_of_columns(
            256, 256, batch.scores.raw, None, problem.labels, np.empty(0, np.int32), first, lines, True, counts,
            support, work,
        )  # fmt: skip
    assert todo < 0.1 * n_units


def test_pairs_of_label_and_prediction_are_emptied_at_a_bad_unit():
    values = np.zeros((5000, 3))
    values[:, 1] = 1.0
    values[4999, 2] = np.nan
    values = values[-300:] if JIT_DISABLED else values
    problem = Problem(values, np.ones(len(values), np.int32), np.zeros(3), np.array([0.0]), "float16")
    tally = PathTally(problem.lines())
    with pytest.raises(path_tally.InvalidScoreError):
        tally.update(problem.batch())
    assert not tally._work.joint.any()
    assert JOINT_CLASSES <= COLUMN_CLASSES


# ---------------------------------------------------------------- rows of many classes

WIDE = (129, 143, 144, 145, 256, 257, 273, 513)
"""Numbers of classes at and beside whole vectors and segments."""


@few
@given(
    st.integers(0, 2**32), st.sampled_from(WIDE), st.integers(1, 40), st.sampled_from(ENCODINGS), st.booleans()
)  # fmt: skip
def test_wide_rows_of_any_seed(seed, n_classes, n_units, encoding, hurts):
    """Ties, equal priors, huge and tiny scores, masks, -inf, delta, folds."""
    rng = np.random.default_rng(seed)
    n_units = min(n_units, 6) if JIT_DISABLED else n_units
    if hurts:
        problem = random_problem(rng, encoding, "rows", n_classes, n_units)
    else:
        problem = realistic(rng, n_units, n_classes, encoding, "rows", spread=rng.choice([0.5, 3, 9]))
        if rng.random() < 0.3:  # classes of equal counts
            problem = replace(problem, slopes=np.round(problem.slopes))
        if rng.random() < 0.3:
            problem = replace(problem, masked=np.arange(n_classes) % 3 == 2)
        if rng.random() < 0.3:
            problem = replace(problem, delta=rng.choice([0.5, 1.0, 2.0], n_units))
        if rng.random() < 0.2:
            values = np.where(rng.random(problem.values.shape) < 0.2, -INF, problem.values)
            values[:, 3 * rng.integers(0, n_classes // 3)] = 0.0
            problem = replace(problem, values=values, kind="log_probs")
    check_path(problem)
    check_points(problem, 2)


def test_paths_over_many_of_many_classes():
    """Lines of a parabola, in any order: most of the classes lead for a while, and the list of changes is emptied."""
    rng = np.random.default_rng(5)
    n_classes, n_units = 300, 3 if JIT_DISABLED else 40
    slopes = rng.permutation(np.arange(n_classes)) / 16.0
    values = -(slopes**2)[None] + np.linspace(-0.3, 0.3, n_units)[:, None] * slopes
    labels = np.arange(n_units) % n_classes
    for encoding in ("float32", "float64"):
        check_path(Problem(values, labels, slopes, np.linspace(-1, 17, 181), encoding, tables=labels % 3))


def test_rows_and_images_of_many_classes_in_one_tally():
    """Both use the tile: what follows the scores of a row is not what images left there."""
    rng = np.random.default_rng(6)
    rows = realistic(rng, 20, 150, "float32", "rows", np.linspace(0, 2, 9))
    rows = replace(rows, tables=np.zeros(20, np.int32), n_images=1)
    high = replace(rows, values=rows.values + 50, layout="planes")
    tally = PathTally(rows.lines())
    for problem in (high, rows, high, rows):
        tally.update(problem.batch())
    counts, expected = tally.counts(), rows.expected()
    assert np.array_equal(counts.hits, 4 * expected[0])
    assert np.array_equal(counts.predicted, 4 * expected[1])


@compiled
def run_row_ends(raw, brain, i, n_classes, factor, out, bias0, bias1, peaks):
    return tile.row_ends(raw, brain, i, n_classes, factor, out, 16, bias0, bias1, peaks, 32)


@compiled
def run_leaders(row, n_vectors, bias0, bias1, peaks, floor0, floor1):
    return simd.leaders(row, 16, n_vectors, bias0, bias1, peaks, 32, floor0, floor1)


@compiled
def run_above_line(row, n_vectors, slope, lam, floor, peaks, share, margin, segments):
    return simd.above_line(row, 16, n_vectors, slope, lam, floor, peaks, 32, share, margin, segments)


@pytest.mark.steps
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("n_classes", [16, 17, 31, 150, 256, 257, 600])
def test_operations_on_rows(encoding, n_classes):
    """What they say, and what their plain twins say; all that is read lies inside the row."""
    rng = np.random.default_rng(n_classes)
    width = -(-n_classes // LANES) * LANES
    n_peaks = 2 * LANES * -(-width // (LANES * simd.SEGMENT))
    halves = {"float16": simd.plain_half, "bfloat16": simd.plain_bfloat16}
    twin = simd._plain_row_ends(halves.get(encoding, lambda values: values.astype(np.float32)))
    for _ in range(10):
        values = rng.integers(-64, 65, n_classes + 3) / 16.0
        raw = encode(values, encoding)[0]
        slope = np.zeros(width, np.float32)
        slope[:n_classes] = rng.integers(-16, 17, n_classes) / 8.0
        bias0, bias1 = np.full(width, -INF, np.float32), np.full(width, -INF, np.float32)
        bias0[:n_classes], bias1[:n_classes] = -slope[:n_classes], 2 * slope[:n_classes]
        bias0[rng.integers(1, n_classes)] = bias1[rng.integers(1, n_classes)] = -INF
        rows, peaks = np.full((2, width + 32), -INF, np.float32), np.full((2, n_peaks + 64), 7.0, np.float32)
        found = run_row_ends(
            raw, encoding == "bfloat16", 3, n_classes, np.float32(0.5), rows[0], bias0, bias1, peaks[0]
        )
        assert found == twin(raw, 3, n_classes, 0.5, rows[1], 16, bias0, bias1, peaks[1], 32)
        assert np.array_equal(rows[0], rows[1])
        assert np.array_equal(peaks[0], peaks[1])
        row = rows[0, 16 : 16 + width]
        assert np.array_equal(row[:n_classes], (values[3:] / 2).astype(np.float32))
        assert found == (np.abs(row[:n_classes]).max(), (row + bias0).max(), (row + bias1).max())
        floors = np.float32(found[1]), np.float32(found[2] - 0.25)
        led = run_leaders(rows[0], width // LANES, bias0, bias1, peaks[0], *floors)
        above = [np.flatnonzero(row + bias >= floor) for bias, floor in zip((bias0, bias1), floors, strict=True)]
        assert led == (above[0][0], above[0].size, above[1][0], above[1].size)
        assert led == simd._plain_leaders(rows[1], 16, width // LANES, bias0, bias1, peaks[1], 32, *floors)
        lam = np.float32(rng.integers(-8, 17) / 8)
        height = np.float32((row + lam * slope).max() - 0.5)
        segments = np.zeros((2, n_peaks), np.int32)
        common = slope, lam, height, peaks[0]
        rest = np.float32((lam + 1) / 3), np.float32(0.0)
        line = run_above_line(rows[0], width // LANES, *common, *rest, segments[0])
        assert line == simd._plain_above_line(rows[1], 16, width // LANES, *common, 32, *rest, segments[1])
        assert np.array_equal(segments[0], segments[1])
        allowed = (bias0 > -INF) & (bias1 > -INF)
        reached = np.flatnonzero(allowed & (row + lam * slope >= height))
        assert set(reached // (LANES * simd.SEGMENT)) <= set(segments[0, : line[1]])
    bad = encode(np.full(n_classes + 3, np.nan), encoding)[0]
    assert not run_row_ends(bad, encoding == "bfloat16", 3, n_classes, 1.0, rows[0], bias0, bias1, peaks[0])[0] < INF


# ---------------------------------------------------------------- operations on columns, and their twins


@functools.cache
def run_turn(name):
    """A way in to one of the operations, compiled once."""
    operation = getattr(columns, name)

    @compiled
    def run(raw, start, n_classes, out):
        operation(raw, start, n_classes, n_classes, out, 16, 48)

    return run


def turned(name, raw, n_classes, start):
    out = np.full(20 * 48, 7.0, np.float32)
    run_turn(name)(raw, start, n_classes, out)
    return out


@pytest.mark.steps
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_rows_are_turned_into_columns(encoding):
    rng = np.random.default_rng(3)
    name = {"float16": "turn_half", "bfloat16": "turn_bfloat16"}.get(encoding, f"turn_{encoding}")
    for n_classes in range(2, 20):
        values = rng.normal(size=16 * n_classes + 30) * 10
        values[5:8] = INF, -INF, np.nan
        stored = values.astype(encoding) if "b" not in encoding else (values.astype(np.float32).view(np.uint32) >> 16)
        raw = stored.view(np.uint16) if encoding == "float16" else stored
        wide = stored.astype(np.float32)
        if encoding == "bfloat16":
            raw, wide = stored.astype(np.uint16), (stored << 16).astype(np.uint32).view(np.float32)
        out = turned(name, raw, n_classes, 3).reshape(20, 48)
        rows = np.stack([wide[3 + i * n_classes :][: min(n_classes, 16)] for i in range(16)])
        assert np.array_equal(out[: min(n_classes, 16), 16:32], rows.T, equal_nan=True)
        out[: min(n_classes, 16), 16:32] = 7.0
        assert (out == 7.0).all()


TRICKY = np.array([0, 1, 0x03FF, 0x0400, 0x3C00, 0x7BFF, 0x7F7F], np.uint16)
"""Magnitudes: zero, subnormal numbers, one, and the largest finite ones of float16 and bfloat16."""


@compiled
def run_first_words(words, n_classes, stride, infinity, starts):
    return columns.first_words(words, 3, n_classes, stride, infinity, starts)


@pytest.mark.steps
@pytest.mark.parametrize("brain", [False, True])
@pytest.mark.parametrize("n_classes", [2, 3, 14, 17])
def test_words_are_in_the_order_of_their_scores(n_classes, brain):
    """Ties go to the first class, zeros of either sign are equal, and whatever is not finite is told."""
    rng = np.random.default_rng(n_classes)
    infinity, stride = (0x7F80 if brain else 0x7C00), 40
    sizes = np.append(TRICKY[infinity > TRICKY], rng.integers(0, infinity, 6).astype(np.uint16))
    for _ in range(5 if JIT_DISABLED else 300):
        words = rng.choice(sizes, n_classes * stride) | (rng.integers(0, 2, n_classes * stride) << 15).astype(np.uint16)
        wide = ((words.astype(np.uint32) << 16).view(np.float32)) if brain else words.view(np.float16)
        starts = np.full(48, -7, np.int32)
        assert not run_first_words(words, n_classes, stride, infinity, starts)
        expected = wide.reshape(n_classes, stride)[:, 3:35].argmax(0)
        assert np.array_equal(starts[3:35], expected)
        assert (starts[:3] == -7).all() and (starts[35:] == -7).all()
        other = np.full(48, -7, np.int32)
        assert not columns._plain_first_words(words, 3, n_classes, stride, infinity, other)
        assert np.array_equal(starts, other)
        place = int(rng.integers(n_classes)) * stride + 3 + int(rng.integers(32))
        words[place] = rng.choice([infinity, infinity + 1, 0x7FFF]) | rng.choice([0, 0x8000])
        assert run_first_words(words, n_classes, stride, infinity, starts)
        assert columns._plain_first_words(words, 3, n_classes, stride, infinity, other)


@compiled
def run_ends(tile, n_classes, stride, lines, exact, work):
    columns.end_columns(
        tile, 16, n_classes, stride, lines.bias0, lines.bias1, exact, work.limits, work.starts, work.ends, work.best0,
        work.best1,
    )  # fmt: skip


@compiled
def run_kinks(lines, work):
    columns.kinks(
        16, lines.n_vectors, lines.bias0, lines.bias1, lines.slope32, work.limits, work.starts, work.ends, work.best0,
        work.best1, work.marks,
    )  # fmt: skip


@compiled
def run_changes(tile, n_classes, stride, lines, work, n_events, n_todo):
    return columns.change_columns(
        tile, 16, n_classes, stride, lines.slope32, work.best0, work.best1, work.marks, work.labels, work.starts,
        work.ends, work.slots, work.old, work.new, work.who, n_events, work.todo, n_todo,
    )  # fmt: skip


@compiled
def run_walk(lines, work):
    return columns.walk_columns(
        work.group, lines.n_classes, lines.slope32, work.limits, work.whole, work.real, work.old, work.new, work.who
    )


@compiled
def run_point(tile, n_classes, stride, lines, exact, margin, work):
    columns.point_columns(tile, 16, n_classes, stride, lines.bias0, exact, margin, work.starts)


def same_work(found, expected, *names):
    for name in names:
        assert np.array_equal(getattr(found, name), getattr(expected, name), equal_nan=True), name


@pytest.mark.steps
@pytest.mark.skipif(JIT_DISABLED, reason="there is nothing to compare")
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("n_classes", [2, 3, 9, 14, 16, 17, 32, 40])
def test_operations_on_columns_do_what_their_twins_do(n_classes, exact):
    rng = np.random.default_rng(n_classes)
    stride = 48
    for _ in range(30):  # numbers of few bits: fused and separate multiplications agree
        slopes = rng.integers(-16, 17, n_classes) / 8.0
        lines = make_lines(slopes, np.zeros(n_classes, bool), np.linspace(0.0 if exact else -1.0, 2, 17))
        two = make_workspace(n_classes), make_workspace(n_classes)
        tile = np.zeros((n_classes + 1) * stride, np.float32)
        tile[:] = rng.integers(-64, 65, tile.size) / 16.0
        labels = rng.integers(-1, n_classes, LANES)
        for work in two:
            set_limits(4.0, 1e-6, lines, work.limits)
            work.labels[16:32] = labels
        run_ends(tile, n_classes, stride, lines, exact, two[0])
        columns._plain_end_columns(
            tile, 16, n_classes, stride, lines.bias0, lines.bias1, exact, two[1].limits, two[1].starts, two[1].ends,
            two[1].best0, two[1].best1,
        )  # fmt: skip
        same_work(*two, "starts", "ends", "best0", "best1")
        run_kinks(lines, two[0])
        columns._plain_kinks(
            16, lines.n_vectors, lines.bias0, lines.bias1, lines.slope32, two[1].limits, two[1].starts, two[1].ends,
            two[1].best0, two[1].best1, two[1].marks,
        )  # fmt: skip
        same_work(*two, "best0", "best1", "marks")
        w = two[1]
        found = run_changes(tile, n_classes, stride, lines, two[0], 3, 5)
        assert found == columns._plain_change_columns(
            tile, 16, n_classes, stride, lines.slope32, w.best0, w.best1, w.marks, w.labels, w.starts, w.ends, w.slots,
            w.old, w.new, w.who, 3, w.todo, 5,
        )  # fmt: skip
        n_events, n_todo = found
        for name, n in (("old", n_events), ("new", n_events), ("who", n_events), ("todo", n_todo)):
            assert np.array_equal(getattr(two[0], name)[:n], getattr(w, name)[:n]), name
        same_work(*two, "slots")
        run_point(tile, n_classes, stride, lines, exact, np.float32(0.1), two[0])
        columns._plain_point_columns(tile, 16, n_classes, stride, lines.bias0, exact, 0.1, w.starts)
        same_work(*two, "starts")


@pytest.mark.steps
@pytest.mark.skipif(JIT_DISABLED, reason="there is nothing to compare")
@pytest.mark.parametrize("n_classes", [3, 9, 14, 17, 32])
def test_walks_go_where_their_twins_go(n_classes):
    rng = np.random.default_rng(n_classes)
    for _ in range(30):
        slopes = rng.permutation(np.arange(n_classes)) / 4.0
        lines = make_lines(slopes, np.zeros(n_classes, bool), np.linspace(0.0, 2, 17))
        two = make_workspace(n_classes), make_workspace(n_classes)
        values = rng.integers(-64, 65, (n_classes, LANES)).astype(np.float32) / 16
        c, e = values.argmax(0), (values + 3 * slopes[:, None]).argmax(0)
        lanes, labels = np.arange(LANES), rng.integers(0, n_classes, LANES)
        for work in two:
            set_limits(4.0, 1e-6, lines, work.limits)
            work.group[:] = values.reshape(-1)
            fate = np.where(c == e, columns.ARRIVED, columns.ACTIVE)
            work.whole[:] = np.concatenate([c, e, e, fate, labels, 0 * c, 0 * c])
            ends = [values[e, lanes], slopes[e]]
            work.real[:] = np.concatenate([values[c, lanes], slopes[c], *ends, *ends])
        w, active = two[1], -1
        while active:
            found = run_walk(lines, two[0])
            assert found == columns._plain_walk_columns(
                w.group, n_classes, lines.slope32, w.limits, w.whole, w.real, w.old, w.new, w.who
            )
            n_events, active = found
            same_work(*two, "whole", "real")
            for name in ("old", "new", "who"):
                assert np.array_equal(getattr(two[0], name)[:n_events], getattr(w, name)[:n_events]), name
