"""The loop over blocks: any cut, thread count, layout or number of files gives the same counts, folds and errors."""

from __future__ import annotations

import itertools
import signal
import subprocess
import sys
import threading
import time

import naive
import numpy as np
import pytest
from driven import open_dataset, sweep
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unoic_cli import machine
from unoic_cli.data.dataset import Span
from unoic_cli.data.folds import Folding, fold_of
from unoic_cli.data.reader import BatchReader
from unoic_cli.errors import DataError
from unoic_cli.formats import arrays
from unoic_cli.kernels.lines import make_lines, make_point
from unoic_cli.runs import threads as engine
from unoic_cli.tallies.labels import LabelTally
from unoic_cli.tallies.path import PathTally
from unoic_cli.tallies.points import PointTally
from unoic_cli.tallies.posterior import PosteriorTally
from unoic_cli.tallies.top_k import TopKTally

N_CLASSES = 4
SLOPES = naive.slopes((8, 4, 2, 1), (1, 1, 1, 1))
LAMS = np.arange(9) / 4
LINES = make_lines(SLOPES, np.zeros(N_CLASSES, bool), LAMS)
POINTS = [make_point(SLOPES, np.zeros(N_CLASSES, bool), 0.3)]

several = settings(
    max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)  # fmt: skip


def table(seed, n_samples, image_shape=()):
    """Scores (N, ..., K), labels with some ignored, delta, split and group."""
    rng = np.random.default_rng(seed)
    shape = (n_samples, *image_shape)
    labels = rng.integers(-1, N_CLASSES, shape).astype(np.int16)
    labels[labels < 0] = 255
    return {
        "scores": (rng.integers(-8, 9, (*shape, N_CLASSES)) / 4).astype(np.float32),
        "labels": labels,
        "delta": rng.choice([0.5, 1.0, 1.7], shape),
        "split": np.array(["val", "test"], object)[rng.integers(0, 2, n_samples)],
        "group": np.array(["a", "b", "c"], object)[rng.integers(0, 3, n_samples)],
    }


def source_of(data, layout="rows", keep=None, name="<array>", fields=("labels", "delta", "split", "group")):
    """A source of (some samples of) a table."""
    keep = slice(None) if keep is None else keep
    scores = data["scores"][keep]
    if scores.ndim > 2 and layout == "planes":
        scores = np.moveaxis(scores, -1, 1)
    axis = 1 if scores.ndim == 2 or layout == "planes" else -1
    return arrays.describe(scores, class_axis=axis, name=name, **{field: data[field][keep] for field in fields})


def cut(data, edges):
    """Spans of each source, cut at given fractions (in 64ths)."""
    spans = []
    for source in data.sources:
        at = sorted({0, source.n_units, *(source.n_units * edge // 64 for edge in edges)})
        spans += [Span(source, a, b) for a, b in itertools.pairwise(at)]
    return spans


def count(data, *, edges=(), n_threads=1, folds=None, groups=None, seed=0):
    """Every kind of count as one nest of lists, to be compared whole."""
    spans = cut(data, edges)
    n_tables = folds or len(groups or "1")
    plan = None if folds is None else Folding(folds, seed)
    tallies = [
        PathTally(LINES, n_tables),
        PointTally(POINTS, n_tables, confusion=True),
        TopKTally([LINES], 2, n_tables),
        LabelTally(N_CLASSES),
        PosteriorTally(N_CLASSES),
    ]
    path, points, top, labels, posterior = tallies
    sweep(data, tallies, spans=spans, folds=plan, groups=groups, n_threads=n_threads)
    found = [path.counts(), points.counts()]
    return {
        "path": [
            (c.hits.tolist(), c.predicted.tolist(), np.broadcast_to(c.support, c.hits.shape).tolist()) for c in found
        ],
        "confusion": points.confusion.tolist(),
        "top": top.hits().tolist(),
        "labels": (labels.counts.tolist(), labels.n_ignored),
        "posterior": (posterior.sums, posterior.n_units),
    }


def dataset(*sources, split=None, ignore_index=()):
    return open_dataset(sources, split=split, ignore_index=ignore_index)


# ---------------------------------------------------------------- law 2: the split of the work never shows

EDGES = st.lists(st.integers(1, 63), max_size=8)
SHAPES = st.sampled_from([(), (3, 5), (1, 7), (4, 4)])


@several
@given(st.integers(0, 99), st.integers(1, 24), SHAPES, EDGES, st.integers(1, 4), st.sampled_from([None, "val"]))
def test_spans_threads_layouts_and_files_never_change_a_count(seed, n_samples, image_shape, edges, n_threads, split):
    data = table(seed, n_samples, image_shape)
    if split:
        data["split"][0] = data["split"][n_samples // 3] = split
    whole = count(dataset(source_of(data), split=split))
    for layout in ("rows", "planes"):
        assert count(dataset(source_of(data, layout), split=split), edges=edges, n_threads=n_threads) == whole
    third = n_samples // 3
    parts = [slice(0, third + 1), slice(third + 1, None)] if third + 1 < n_samples else [slice(None)]
    if split is None or len(parts) == 1 or (data["split"][parts[1]] == split).any():
        files = [source_of(data, "planes", part, f"part{i}") for i, part in enumerate(parts)]
        assert count(dataset(*files, split=split), edges=edges, n_threads=n_threads) == whole


def test_the_counts_are_those_of_naive():
    data = table(5, 40)
    found = count(dataset(source_of(data)), edges=(10, 40), n_threads=2)
    labels = np.where(data["labels"] == 255, -1, data["labels"])
    hits, predicted, support = naive.curve(data["scores"], labels, SLOPES, LAMS, data["delta"])
    assert found["path"][0][:2] == ([hits.tolist()], [predicted.tolist()])
    assert found["path"][0][2][0][0] == support.tolist()
    assert found["top"] == [naive.top_k_hits(data["scores"], labels, SLOPES, LAMS, 2, data["delta"]).tolist()]
    confusion = naive.confusion(labels, naive.predict(data["scores"], SLOPES, 0.3, data["delta"]), N_CLASSES)
    assert found["confusion"] == [confusion.ravel().tolist()]
    assert found["labels"] == (support.tolist(), int((labels < 0).sum()))


@several
@given(st.integers(0, 99), st.integers(6, 24), SHAPES, EDGES, st.integers(1, 4), st.integers(2, 5))
def test_folds_are_the_same_whatever_the_spans_threads_layouts_and_files(seed, n, image_shape, edges, n_threads, folds):
    data = table(seed, n, image_shape)
    data["split"][[0, 5]] = "val"
    for split in (None, "val"):
        whole = count(dataset(source_of(data), split=split), folds=folds)
        for layout in ("rows", "planes"):
            one = dataset(source_of(data, layout), split=split)
            assert count(one, edges=edges, n_threads=n_threads, folds=folds) == whole
        files = [source_of(data, "rows", slice(0, 4), "one"), source_of(data, "planes", slice(4, None), "two")]
        assert count(dataset(*files, split=split), edges=edges, n_threads=n_threads, folds=folds) == whole


@several
@given(st.integers(0, 99), SHAPES, EDGES, st.integers(1, 3))
def test_groups_are_counted_apart(seed, image_shape, edges, n_threads):
    data = table(seed, 12, image_shape)
    names = {"a": 0, "b": 1, "c": 2}
    found = count(dataset(source_of(data, "planes")), edges=edges, n_threads=n_threads, groups=names)
    for name, i in names.items():
        own = data["group"] == name
        if own.any():
            alone = count(dataset(source_of(data, keep=own)))
            assert [part[i] for part in found["path"][0]] == [part[0] for part in alone["path"][0]]
            assert found["top"][i] == alone["top"][0]


# ---------------------------------------------------------------- folds


def folds_of(data, n_folds, *, edges=(), seed=0):
    """The fold and the label of every unit of the data set, in order."""
    spans = cut(data, edges)
    plan = Folding(n_folds, seed).plan(data, spans)
    reader = BatchReader(data, frozenset({"labels"}), folds=plan)
    tables, labels = [], []

    def use(batch):
        tables.extend(batch.tables.tolist())
        labels.extend(batch.labels.tolist())

    for index in reversed(range(len(spans))):  # spans may come in any order
        mine = (tables, labels)
        tables, labels = [], []
        reader.batches(index, spans[index], use)
        tables, labels = tables + mine[0], labels + mine[1]
    reader.close()
    return np.array(tables), np.array(labels)


@several
@given(st.integers(0, 99), st.integers(1, 60), st.integers(2, 7), EDGES, st.integers(-3, 3))
def test_folds_hold_equal_numbers_of_every_class_to_within_one(seed, n_samples, n_folds, edges, fold_seed):
    data = dataset(source_of(table(seed, n_samples)))
    folds, labels = folds_of(data, n_folds, edges=edges, seed=fold_seed)
    again, _ = folds_of(data, n_folds, seed=fold_seed)
    kept = labels >= 0
    assert np.array_equal(folds[kept], again[kept])
    for k in range(N_CLASSES):
        sizes = np.bincount(folds[labels == k], minlength=n_folds)
        assert sizes.size == n_folds
        assert np.ptp(sizes) <= 1


@several
@given(st.integers(0, 99), st.integers(1, 20), st.integers(2, 5), EDGES, st.sampled_from(["rows", "planes"]))
def test_images_are_never_divided_between_folds(seed, n_samples, n_folds, edges, layout):
    data = dataset(source_of(table(seed, n_samples, (2, 3)), layout))
    folds, _ = folds_of(data, n_folds, edges=edges)
    images = folds.reshape(n_samples, 6)
    assert (images == images[:, :1]).all()
    assert np.ptp(np.bincount(images[:, 0], minlength=n_folds)) <= 1


def test_folds_depend_on_the_seed_and_look_random():
    data = dataset(source_of(table(1, 400)))
    one, labels = folds_of(data, 5, seed=1)
    two, _ = folds_of(data, 5, seed=2)
    kept = labels >= 0
    assert 0.1 < (one[kept] == two[kept]).mean() < 0.35
    assert not np.array_equal(one[labels == 0][:10], one[labels == 1][:10])


def test_each_round_of_folds_is_a_permutation():
    for n_folds in (2, 3, 10):
        folds = fold_of(np.arange(30 * n_folds), np.zeros(30 * n_folds, np.int64), n_folds, 7).reshape(30, n_folds)
        assert (np.sort(folds, axis=1) == np.arange(n_folds)).all()
        assert len({tuple(row) for row in folds.tolist()}) > 1


# ---------------------------------------------------------------- labels


def labelled(values, dtype, **options):
    labels = np.array(values, dtype)
    data = {"scores": np.zeros((labels.size, 3), np.float32), "labels": labels}
    return dataset(source_of(data, fields=("labels",)), **options)


def label_counts(data, edges=()):
    tally = LabelTally(3)
    sweep(data, [tally], spans=cut(data, edges))
    return tally.counts.ravel().tolist(), tally.n_ignored


@pytest.mark.parametrize(
    ("values", "dtype", "kept", "ignored"),
    [
        ([0, 255, 1, 255], "uint8", [1, 1, 0], 2),
        ([0, -1, 2, -1], "int8", [1, 0, 1], 2),
        ([-100, 255, -1, 2], "int64", [0, 0, 1], 3),
        ([0, 255, 1, 2], "uint64", [1, 1, 1], 1),
        ([-100, -100], "int16", [0, 0, 0], 2),
    ],
)
def test_the_usual_labels_for_no_label_are_ignored_and_counted(values, dtype, kept, ignored):
    assert label_counts(labelled(values, dtype)) == (kept, ignored)
    assert label_counts(labelled(values, dtype), edges=(16, 32, 48)) == (kept, ignored)


def test_255_is_a_class_like_any_other_where_there_are_so_many():
    data = {"scores": np.zeros((3, 300), np.float32), "labels": np.array([255, 1, -1])}
    tally = LabelTally(300)
    sweep(dataset(source_of(data, fields=("labels",))), [tally])
    assert tally.counts.ravel()[[1, 255]].tolist() == [1, 1]
    assert tally.n_ignored == 1


def test_ignore_index_inside_and_outside_the_classes():
    assert label_counts(labelled([0, 1, 2, 1], "uint8", ignore_index=[1])) == ([1, 0, 1], 2)
    assert label_counts(labelled([0, 7, 2, 255], "uint8", ignore_index=[7])) == ([1, 0, 1], 2)
    assert label_counts(labelled([0, -7, 2], "int32", ignore_index=[-7, 0, 300])) == ([0, 0, 1], 2)
    assert label_counts(labelled([0, 1], "uint8", ignore_index=[-1000, 2**40])) == ([1, 1, 0], 0)


@pytest.mark.parametrize(("values", "dtype", "bad"), [([0, 3, 254], "uint8", 3), ([0, -2, 5], "int8", -2)])
@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("edges", [(), (21, 43)])
def test_other_labels_are_refused_and_the_first_row_is_named(values, dtype, bad, n_threads, edges):
    data = labelled(values, dtype)
    with pytest.raises(DataError) as error:
        sweep(data, [LabelTally(3)], spans=cut(data, edges), n_threads=n_threads)
    assert str(error.value) == (
        f"<array>:labels: label {bad} at row 1; "
        "expected labels in [0, 3), or 255, -1, -100 to be ignored (others: --ignore-index)"
    )
    with pytest.raises(DataError, match=f"label {bad} at row 1;"):
        Folding(2, 0).plan(data, cut(data, edges))


def test_huge_unsigned_labels_are_refused_by_their_value():
    with pytest.raises(DataError, match=f"label {2**64 - 1} at row 1"):
        label_counts(labelled([0, 2**64 - 1], "uint64"))


# ---------------------------------------------------------------- split


@several
@given(st.integers(0, 99), st.integers(1, 20), SHAPES, EDGES, st.sampled_from(["rows", "planes"]))
def test_a_split_equals_choosing_its_samples_beforehand(seed, n_samples, image_shape, edges, layout):
    data = table(seed, n_samples, image_shape)
    data["split"][n_samples // 2] = "val"
    chosen = dataset(source_of(data, layout), split="val")
    before = dataset(source_of(data, layout, data["split"] == "val"))
    assert chosen.n_samples == before.n_samples
    assert count(chosen, edges=edges, n_threads=2) == count(before)
    assert count(chosen, edges=edges, folds=3) == count(before, folds=3)


@pytest.mark.parametrize("layout", ["rows", "planes"])
@pytest.mark.parametrize(("image_shape", "place"), [((), "row 5"), ((2, 3), "sample 5, pixel (1, 2)")])
@pytest.mark.parametrize("field", ["scores", "labels", "delta"])
def test_errors_inside_a_split_name_the_row_of_the_file(layout, image_shape, place, field):
    data = table(0, 9, image_shape)
    data["split"][:] = ["test", "val"] * 4 + ["test"]
    at = (5, *(size - 1 for size in image_shape))
    for sample in (4, 5, 7):  # 4 is of the other split, and nobody looks
        where = (sample, *at[1:])
        data["labels"][where] = 0  # an ignored one would take no part
        data[field][where] = {"scores": np.nan, "labels": 77, "delta": -1}[field]
    for edges in ((), (13, 30, 50)):
        one = dataset(source_of(data, layout), split="val")
        with pytest.raises(DataError) as error:
            count(one, edges=edges, n_threads=2)
        assert f" at {place}" in str(error.value)
        assert str(error.value).startswith("<array>:" + {"scores": "logits"}.get(field, field))


def test_a_split_that_is_not_there():
    source = source_of(table(0, 6))
    with pytest.raises(
        DataError, match=r"<array>:split: no sample of split 'train'; expected one of (val|test) \(\d\)"
    ):
        dataset(source, split="train")
    with pytest.raises(DataError, match="<array>: no split; expected an array split, with the split of each"):
        dataset(source_of(table(0, 6), fields=("labels",)), split="val")


# ---------------------------------------------------------------- errors do not depend on timing


@several
@given(
    st.sets(st.integers(0, 63), min_size=1, max_size=6), EDGES, st.integers(1, 6), st.sampled_from(["rows", "planes"])
)
def test_of_several_bad_rows_the_first_is_named(bad, edges, n_threads, layout):
    data = table(1, 8, (2, 4))
    flat = data["scores"].reshape(64, N_CLASSES)
    for unit in bad:
        flat[unit, unit % N_CLASSES] = np.nan
        data["labels"].reshape(-1)[unit] = 0  # an ignored one would take no part
    sample, pixel = divmod(min(bad), 8)
    one = dataset(source_of(data, layout))
    for tally in (PathTally(LINES), PointTally(POINTS), PosteriorTally(N_CLASSES)):
        with pytest.raises(DataError) as error:
            sweep(one, [tally], spans=cut(one, edges), n_threads=n_threads)
        place = f"sample {sample}, pixel {divmod(pixel, 4)}, class {min(bad) % N_CLASSES}"
        assert str(error.value) == f"<array>:logits: nan at {place}; expected finite logits"


def test_the_first_file_with_a_bad_row_is_named():
    files = []
    for i in range(4):
        data = table(i, 5)
        if i in (1, 3):
            data["scores"][2] = np.inf
        files.append(source_of(data, name=f"file{i}"))
    for n_threads in (1, 4):
        with pytest.raises(DataError, match=r"^file1:logits: inf at row 2, class 0"):
            count(dataset(*files), n_threads=n_threads)


def test_the_scalar_delta_is_named_as_such():
    source = arrays.describe(np.zeros((3, 2), np.float32), np.zeros(3, int), delta=-1.0)
    with pytest.raises(DataError, match=r"<array>:delta: -1\.0 at the scalar"):
        sweep(dataset(source), [PosteriorTally(2)])


def test_progress_never_falls():
    seen = []
    data = dataset(source_of(table(0, 10)))
    sweep(data, [LabelTally(N_CLASSES)], spans=cut(data, (16, 32)), n_threads=2, progress=lambda *at: seen.append(at))
    assert seen == sorted(seen)
    assert all(0 <= done <= total == data.n_units for done, total in seen)


# ---------------------------------------------------------------- the threads


class Worker:
    def __init__(self, act):
        self.act, self.ran, self.closed = act, [], 0

    def run(self, index):
        self.ran.append(index)
        self.act(index)

    def close(self):
        self.closed += 1


def run(n_spans, act, n_threads):
    workers = []

    def make():
        workers.append(Worker(act))
        return workers[-1]

    try:
        engine.run(n_spans, make, n_threads)
    finally:
        assert all(worker.closed == 1 for worker in workers)
    return workers


@pytest.mark.parametrize("n_threads", [1, 2, 7])
def test_every_span_runs_once(n_threads):
    workers = run(20, lambda index: time.sleep(0.0005), n_threads)
    assert len(workers) == n_threads
    assert sorted(itertools.chain.from_iterable(worker.ran for worker in workers)) == list(range(20))
    assert all(worker.ran == sorted(worker.ran) for worker in workers)
    assert len(run(0, lambda index: None, n_threads)) == 1
    assert len(run(3, lambda index: None, 0)) == 1


def test_the_failure_of_the_lowest_span_wins_though_it_comes_last():
    failed = threading.Event()

    def act(index):
        if index == 2:
            failed.wait(5)
            raise ValueError("span 2")
        if index == 3:
            failed.set()
            raise ValueError("span 3")

    for _ in range(5):
        failed.clear()
        with pytest.raises(ValueError, match="span 2"):
            run(50, act, 4)


def test_a_failure_stops_the_rest():
    ran = []

    def act(index):
        ran.append(index)
        if index == 1:
            raise OSError("gone")
        time.sleep(0.01)

    with pytest.raises(OSError, match="gone"):
        run(1000, act, 2)
    assert len(ran) < 20


INTERRUPTED = """
import os, signal, time
from unoic_cli.runs import threads

class Worker:
    def run(self, index):
        if index == 3:
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.02)
    def close(self):
        print("closed", flush=True)

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may ignore it
try:
    threads.run(100_000, Worker, 2)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGINT") or sys.platform == "win32", reason="POSIX signals")
def test_an_interrupt_stops_the_workers_at_once():
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["closed", "closed", "interrupted"]
    assert done.stderr == ""
    assert time.monotonic() - start < 30


def test_the_number_of_threads_obeys_the_scheduler(monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert machine.available_threads() == 1
    for nonsense in ("0", "", "many", "-3"):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", nonsense)
        assert machine.available_threads() >= 1


@pytest.mark.parametrize(
    ("own", "files", "threads"),
    [
        ("0::/job/step", {"job/cpu.max": "250000 100000", "job/step/cpu.max": "max 100000"}, 3),
        ("0::/job/step", {"job/cpu.max": "900000 100000", "job/step/cpu.max": "100000 100000"}, 1),
        ("4:cpu:/job", {"cpu/job/cpu.cfs_quota_us": "200000", "cpu/job/cpu.cfs_period_us": "100000"}, 2),
        ("4:cpu:/job", {"cpu/job/cpu.cfs_quota_us": "-1", "cpu/job/cpu.cfs_period_us": "100000"}, 8),
        ("0::/", {}, 8),
    ],
)  # fmt: skip
def test_quotas_of_control_groups(monkeypatch, tmp_path, own, files, threads):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "own").write_text(own + "\n")
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path)
    monkeypatch.setattr(machine, "_OWN", tmp_path / "own")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert machine.available_threads() == threads
