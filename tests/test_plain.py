"""Compiled kernels and their plain twins: the same bits, refusals included; which of them is called, and when."""

from __future__ import annotations

import ast
import pathlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fusion import LATTICE, ORDERS, random_expert
from test_kernels import ENCODINGS, LAYOUTS, encode, random_problem

from unoic_cli import kernels
from unoic_cli.calibrations.fuser import Fuser
from unoic_cli.calibrations.rule import Rule
from unoic_cli.calibrations.view import Look, View
from unoic_cli.data.batch import Batch, InvalidScoreError
from unoic_cli.fusions import FUSIONS, fusion, resolve_weights
from unoic_cli.kernels import Kernel, plain
from unoic_cli.kernels.constants import FIRST_EQUAL, N_COUNTED, N_MOMENTS, N_TIERS
from unoic_cli.kernels.lines import COPIES, add_up, make_point, make_workspace
from unoic_cli.tallies.fused import FusedTally

ALL = {name: kernel for name, kernel in vars(kernels).items() if isinstance(kernel, Kernel)}
FOLDER = pathlib.Path(kernels.__file__).parent

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")
several = settings(max_examples=60, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


def copy(values):
    return [value.copy() if isinstance(value, np.ndarray) else value for value in values]


def check(kernel, given_, *compared):
    """Call both forms; what they return, and the arguments at these places, must be the same to the last bit."""
    ours, theirs = copy(given_), copy(given_)
    found, expected = kernel.plain(*ours), kernel.compiled()(*theirs)
    assert found == expected
    if expected in (None, -1):
        for place in compared:
            assert ours[place].tobytes() == theirs[place].tobytes(), kernel.name
    return expected


def spoiled(rng, problem):
    """A problem, now and then with a score that may not be there."""
    if rng.random() < 0.3:
        row, column = (int(rng.integers(n)) for n in problem.values.shape)
        problem.values[row, column] = rng.choice([np.nan, np.inf, -np.inf, 1e39, -1e39])
    return problem


def any_problem(rng, **options):
    return spoiled(rng, random_problem(rng, str(rng.choice(ENCODINGS)), str(rng.choice(LAYOUTS)), **options))


@several
@given(seeds)
def test_sums_have_the_same_bits(seed):
    rng = np.random.default_rng(seed)
    problem = any_problem(rng)
    scores, labels, lines = problem.batch().scores, problem.labels, problem.lines()
    n_classes, n_units = scores.n_classes, scores.n_units
    work = make_workspace(n_classes)
    block = (scores.raw, scores.brain, scores.allow_zero, scores.pixels)
    check(kernels.sum_posterior, (*block, scores.delta, n_units, lines, np.zeros(n_classes, np.int64), work), 7)
    check(kernels.entropy_of_units, (*block, n_units, n_classes, np.zeros(n_units, np.int64), work), 6)
    betas, n_bins, gaps = np.array([0.3, 1.0, 1.7]), int(rng.integers(1, 20)), np.zeros(n_classes)
    points = np.stack([betas, np.full(3, 2.0**44), np.full(3, 2.0**38)], axis=1).reshape(-1)
    hidden = np.where(problem.masked, np.inf, 0.0)
    kept = np.where((labels >= 0) & problem.masked[labels], -1, labels).astype(np.int32)
    given = (points, rng.normal(size=3 * n_classes), rng.random(n_classes), hidden, n_bins)
    scratch = (np.zeros((2 * n_classes + 3) * 8), np.zeros(8, np.int64), np.zeros(24 * N_MOMENTS, np.int64))
    n_measured = int(rng.integers(1, 4)) * n_bins
    sizes = (2 * N_TIERS, 6 * N_MOMENTS, n_measured, n_measured, 2 * n_measured)
    counts = [np.zeros(size, np.int64) for size in sizes]
    check(kernels.sum_likelihood, (*block, scores.delta, kept, n_classes, *given, *scratch, *counts), *range(15, 20))
    n_tables = problem.n_tables
    bias = np.where(problem.masked, -np.inf, problem.slopes)[: int(rng.choice([0, n_classes]))]
    sizes = (n_classes, n_classes, 2 * N_TIERS * n_classes, 6 * n_classes, 6, 3 * n_bins, 3 * n_bins, 6 * n_bins)
    counts = [np.zeros(n_tables * size, np.int64) for size in sizes]
    shape = (labels, problem.tables, n_classes, bias, betas, n_bins, bool(rng.integers(2)), gaps)
    check(kernels.sum_confidence, (*block, scores.delta, *shape, *counts), *range(13, 21))


@several
@given(seeds)
def test_counts_and_refusals_are_the_same(seed):
    rng = np.random.default_rng(seed)
    problem = any_problem(rng)
    scores, labels, lines, tables = problem.batch().scores, problem.labels, problem.lines(), problem.tables
    n_classes, n_points, n_tables = scores.n_classes, lines.lams.size, problem.n_tables
    work = make_workspace(n_classes)
    block = (scores.raw, scores.brain, scores.allow_zero, scores.delta)
    shape = n_tables, n_points + COPIES, n_classes, 2
    counted = np.zeros(shape, np.int32).reshape(-1), np.zeros(n_tables * COPIES * n_classes, np.int64)
    found = []
    for form in ("plain", "compiled"):
        own = copy(counted)
        kernel = kernels.count_path_columns
        chosen = kernel.plain if form == "plain" else kernel.compiled()
        kept = tables if n_tables > 1 else tables[:0]
        bad = chosen(*block, labels, kept, lines, scores.exact, *own, work, scores.pixels or None)
        hits, predicted = add_up(own[0].reshape(shape))
        support = own[1].reshape(n_tables, COPIES, -1).sum(axis=1)
        found.append((bad, [] if bad >= 0 else [hits.tolist(), predicted.tolist(), support.tolist()]))
    assert found[0] == found[1]
    if found[0][0] >= 0:
        return
    top = int(rng.integers(1, 6))
    ranked = (scores.raw, scores.brain, scores.pixels, scores.delta, labels, tables, lines, top)
    moves, hits = np.zeros(n_points, np.int64), np.zeros(n_tables * n_points, np.int64)
    check(kernels.count_top_k, (*ranked, moves, hits, work), 9)
    point = make_point(problem.slopes, problem.masked, float(rng.choice(problem.lams)))
    out = np.zeros(labels.size, np.int32)
    check(kernels.predict_columns, (*block, point, scores.exact, out, work, scores.pixels or None), 6)
    counts = [np.zeros(n_classes, np.int64) for _ in range(3)]
    confusion = np.zeros(int(rng.choice([0, n_classes**2])), np.int64)
    check(
        kernels.count_point_columns,
        (*block, point, scores.exact, labels, *counts, confusion, work, scores.pixels or None),
        7,
        8,
        9,
        10,
    )


@several
@given(seeds, st.sampled_from(ENCODINGS), st.booleans())
def test_rows_look_the_same(seed, encoding, planes):
    rng = np.random.default_rng(seed)
    n_classes, n_units, images = int(rng.integers(2, 9)), 24, 3
    values = rng.choice([0.0, -0.0, 1.0, 0.5, 0.25, -1.0, -3.0, 900.0, np.nan, np.inf, -np.inf], (n_units, n_classes))
    values[::2] = rng.dirichlet(np.ones(n_classes), len(values[::2]))
    values[::4] = np.log(values[::4])
    values[::5] = values[::5, :1]
    raw, _ = encode(values, encoding)
    pixels = 0
    if planes:
        pixels = n_units // images
        raw = raw.reshape(images, pixels, n_classes).transpose(0, 2, 1)
    brain = encoding == "bfloat16"
    limit = {"float16": np.float16(1.01).view(np.uint16), "bfloat16": np.uint16(0x3F81)}.get(encoding)
    limit = np.dtype(encoding).type(1.01) if limit is None else limit
    units = np.flatnonzero(rng.random(n_units) < 0.8)
    labels = rng.integers(-1, n_classes, n_units).astype(np.int32)[: int(rng.choice([0, n_units]))]
    tolerances = (0.01, float(rng.choice([-1.0, 0.05])))
    counted = np.array([0] * FIRST_EQUAL + [-1] * (N_COUNTED - FIRST_EQUAL))
    flat = np.ascontiguousarray(raw).reshape(-1)
    given_ = (flat, brain, pixels, units, 7 * units, labels, n_classes, limit, bool(rng.integers(2)), tolerances, 21)
    check(kernels.look_at_rows, (*given_, counted), 11)


@several
@given(st.binary(min_size=8, max_size=400), st.sampled_from([2, 4, 8]))
def test_bytes_are_the_same(data, width):
    source = np.frombuffer(data, np.uint8)[: len(data) // width * width]
    out = np.zeros(source.size // width, f"u{width}")
    check(ALL[f"join_{width}"], (source, out), 1)
    check(kernels.split, (source, width, np.zeros_like(source)), 2)
    check(kernels.add_words, (np.frombuffer(data, np.uint8), np.zeros(3, np.uint64)), 1)


@settings(several, max_examples=120)
@given(
    seed=seeds,
    shape=st.tuples(st.integers(1, 40), st.integers(2, 20), st.integers(1, 4)),
    how=st.sampled_from(list(FUSIONS)),
    order=st.sampled_from(ORDERS),
    layout=st.sampled_from(LAYOUTS),
    delta=st.sampled_from([None, "unit", "same", "zero"]),
    size=st.sampled_from([None, None, 1e3, 6e4, 1e30]),
    dtype=st.sampled_from(["float32", "float64"]),
)
def test_fused_decisions_and_posteriors_have_the_same_bits(seed, shape, how, order, layout, delta, size, dtype):
    rng = np.random.default_rng(seed)
    n, k, n_experts = shape
    masks = [None if rng.random() < 0.7 else np.arange(k) == rng.integers(k) for _ in range(n_experts)]
    experts = []
    for masked in masks:
        encoding, kind = (
            str(rng.choice(ENCODINGS)),
            str(rng.choice(["logits", "log_probs"])) if size is None else "logits",
        )
        common = (encoding, kind, layout, size, "unit" if delta == "zero" else delta, float(rng.choice([1.0, 0.5])))
        experts.append(random_expert(rng, n, k, *common, masked, bool(rng.integers(2))))
        if delta == "zero":
            experts[-1].delta[rng.random(n) < 0.2] = 0.0
    found = [fused(form, experts, how, order, dtype, n, k) for form in ("plain", "compiled")]
    assert found[0] == found[1]


def fused(form, experts, how, order, dtype, n, k):
    """What a form decides, counts and writes, as bytes; or what it refuses."""
    parts = [expert.part() for expert in experts]
    labels = np.arange(n, dtype=np.int32) % (k + 1) - 1
    batch = Batch(n, None, None, labels, 0, labels * 0, parts[0], tuple(parts))
    made = View(tuple(Look(e.temperature) for e in experts), order == "rebalance-first").apply(batch)
    slopes, masked = (np.stack([getattr(e, name) for e in experts]) for name in ("slopes", "masked"))
    weights = resolve_weights(how, None, len(experts))
    rule = Rule(fusion(how).OPERATOR, np.array(weights), slopes, masked)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNOIC_KERNELS", form)
        try:
            tally = FusedTally(rule, LATTICE)
            tally.update(made)
            answers = [tally.counts().hits.tobytes(), tally.counts().predicted.tobytes()]
            for in_logs in (False, True):
                out, decisions = np.zeros(n * k, dtype), np.zeros(n, np.int32)
                fuser = Fuser(rule, [0.6])
                fuser.predict(made, decisions)
                fuser.write(made, in_logs, out, n if parts[0].source.image_shape else 0, decisions)
                answers.append(out.tobytes())
            total = View(tuple(Look(e.temperature) for e in experts), weights=weights).apply(batch).scores
            return [*answers, total.raw.tobytes()]
        except InvalidScoreError as error:
            return error.unit, error.modality


# ---------------------------------------------------------------- which is called


def decorated():
    """Every compiled kernel in the sources, as the registry names them."""
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [ast.unparse(decorator) for decorator in getattr(node, "decorator_list", [])]
            if "kernel" in names:
                yield f"{path.stem}.{node.name}"


def test_steps_of_kernels_are_called_by_kernels_alone():
    """FAULT: they have no way in from Python: such a call ends the process."""
    sources = {path: ast.parse(path.read_text()) for path in sorted(FOLDER.parent.rglob("*.py"))}

    def decorators(node):
        return {ast.unparse(one).partition("(")[0] for one in getattr(node, "decorator_list", [])}

    steps = {
        (f"unoic_cli.{path.parent.name}.{path.stem}", node.name)
        for path, tree in sources.items()
        for node in tree.body
        if decorators(node) & {"inlined", "stage"}
    }
    assert len(steps) > 50
    for path, tree in sources.items():
        here = f"unoic_cli.{path.parent.name}.{path.stem}"
        known = {name for module, name in steps if module == here}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                known |= {one.asname or one.name for one in node.names if (node.module, one.name) in steps}
        if not known:
            continue
        plain_ones = [
            node for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and not decorators(node) & {"inlined", "stage", "kernel", "overload"}
            and node.name != "words_win"  # its compiled form is the overload, which is never called from Python either
        ]  # fmt: skip
        for function in plain_ones:
            called = {
                one.func.id for one in ast.walk(function) if isinstance(one, ast.Call) and hasattr(one.func, "id")
            }
            own = {one.arg for one in ast.walk(function) if isinstance(one, ast.arg)}
            own |= {one.name for one in ast.walk(function) if isinstance(one, ast.FunctionDef)}
            assert not (called & known) - own, (path.name, function.name)


def test_every_kernel_has_a_twin():
    assert sorted(f"{kernel.module}.{kernel.name}" for kernel in ALL.values()) == sorted(decorated())
    assert all(name == kernel.name and callable(getattr(plain, name)) for name, kernel in ALL.items())


def test_a_kernel_is_compiled_when_it_has_enough_to_do(monkeypatch):
    monkeypatch.delenv("UNOIC_KERNELS", raising=False)
    monkeypatch.delenv("NUMBA_DISABLE_JIT", raising=False)
    kernel = Kernel("points.count_confusion", lambda labels, *_: labels.size)
    monkeypatch.setattr(kernel, "compiled", lambda: lambda *_: "compiled")
    monkeypatch.setattr(kernel, "plain", lambda *_: "plain")
    few, many = np.zeros(400_000, np.int32), np.zeros(1_000_000, np.int32)
    assert [kernel(few), kernel(few), kernel(few), kernel(few[:1])] == ["plain", "plain", "compiled", "compiled"]
    fresh = Kernel("points.count_confusion", lambda labels, *_: labels.size)
    assert fresh.is_plain(few) and not fresh.is_plain(many)
    for form in ("plain", "compiled"):
        monkeypatch.setenv("UNOIC_KERNELS", form)
        assert (kernel(few), kernel(many)) == (form, form)


@pytest.mark.parametrize("error", [ImportError("no numba here"), RuntimeError("LLVM: no such thing")])
def test_what_cannot_be_compiled_is_left_to_numpy(monkeypatch, error):
    monkeypatch.delenv("UNOIC_KERNELS", raising=False)
    monkeypatch.delenv("NUMBA_DISABLE_JIT", raising=False)
    monkeypatch.setattr(Kernel, "fails", False)
    said = []
    monkeypatch.setattr(kernels.compiling, "failed", said.append)

    def fail():
        raise error

    monkeypatch.setattr(kernels.count_confusion, "compiled", fail)
    monkeypatch.setattr(kernels.count_confusion, "done", kernels.PLAIN_SCORES)
    for _ in range(2):
        table = np.zeros(4, np.int64)
        kernels.count_confusion(np.array([0, 1, 1, -1], np.int32), np.array([0, 0, 1, 1], np.int32), 2, table)
        assert table.tolist() == [1, 0, 1, 1]
    assert said == [error]
    monkeypatch.setenv("UNOIC_KERNELS", "compiled")
    monkeypatch.setattr(Kernel, "fails", False)
    with pytest.raises(type(error)):
        kernels.count_confusion(np.array([0], np.int32), np.array([0], np.int32), 2, table)
