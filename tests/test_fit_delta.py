"""Uncertainty and delta: the entropy kernel and the command against naive.py, and law 2 for mean and deviation."""

from __future__ import annotations

import itertools
import json
import math
import os
from fractions import Fraction

import h5py
import naive
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from driven import open_dataset, sweep
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unoic_cli
from unoic_cli import cli
from unoic_cli.calibrations.delta import FIXED_POINT, DeltaStatistics
from unoic_cli.commands import fit_delta as task
from unoic_cli.data.dataset import Span
from unoic_cli.errors import DataError, UsageError
from unoic_cli.formats import arrays
from unoic_cli.kernels import entropy_of_units
from unoic_cli.kernels.jit import JIT_DISABLED
from unoic_cli.kernels.lines import make_workspace
from unoic_cli.tallies.entropy import EntropyTally, Moments

ENCODINGS = ("float16", "bfloat16", "float32", "float64")
CLOSE = 1e-12

few = settings(
    max_examples=20 if JIT_DISABLED else 80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
several = settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def softmax(z, axis=-1):
    with np.errstate(over="ignore"):
        e = np.exp(z - z.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def entropies(z):
    """By naive.py, of logits (..., K)."""
    return naive.entropy(softmax(np.asarray(z, np.float64)))


def encode(values, encoding):
    """Floats as a block stores them, and what was stored."""
    if encoding == "bfloat16":
        bits = (np.ascontiguousarray(values, dtype=np.float32).view(np.uint32) >> 16).astype(np.uint16)
        return bits, (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    with np.errstate(over="ignore"):
        stored = np.asarray(values, np.float64).astype(encoding)
    return stored.view(np.uint16) if encoding == "float16" else stored, stored.astype(np.float64)


def run_kernel(raw, n_classes, *, brain=False, allow_zero=False, images=0):
    """Entropies of rows (T, K), laid out as so many images of planes (0: as rows), and the unit refused or -1."""
    n_units, pixels = len(raw), 0
    if images:
        pixels = n_units // images
        raw = raw.reshape(images, pixels, n_classes).transpose(0, 2, 1)
    out = np.full(n_units, -7, dtype=np.int64)
    work = make_workspace(n_classes)
    flat = np.ascontiguousarray(raw).reshape(-1)
    return out, entropy_of_units(flat, brain, allow_zero, pixels, n_units, n_classes, out, work)


# ---------------------------------------------------------------- the kernel


@pytest.mark.kernel
@few
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.sampled_from([2, 3, 14, 16, 17, 40]), st.integers(1, 5), st.integers(1, 19)),
    encoding=st.sampled_from(ENCODINGS),
    kind=st.sampled_from(["logits", "log_probs"]),
    magnitude=st.sampled_from([0.0, 1e-5, 1.0, 30.0, 800.0, 6e4, 1e30]),
)
def test_the_kernel_is_naive(seed, shape, encoding, kind, magnitude):
    n_classes, images, pixels = shape
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(images * pixels, n_classes)) * magnitude * rng.choice([1e-3, 1.0], (images * pixels, 1))
    z = np.clip(z, -65504, 65504) if encoding == "float16" else z
    if kind == "log_probs":
        z[rng.random(z.shape) < 0.3] = -np.inf
        z[:, rng.integers(n_classes)] = 0.0
    raw, stored = encode(z, encoding)
    options = {"brain": encoding == "bfloat16", "allow_zero": kind == "log_probs"}
    out, bad = run_kernel(raw, n_classes, **options)
    assert bad == -1
    np.testing.assert_allclose(out / FIXED_POINT, entropies(stored), rtol=0, atol=CLOSE)
    for layout in (1, images):
        other, bad = run_kernel(raw, n_classes, images=layout, **options)
        assert bad == -1
        assert np.array_equal(other, out), "a layout changed a bit"
    alone = [int(run_kernel(raw[i : i + 1], n_classes, **options)[0][0]) for i in range(min(len(raw), 5))]
    assert alone == out[:5].tolist(), "company changed a bit"


@pytest.mark.kernel
@pytest.mark.parametrize("images", [0, 1])
def test_the_ends_of_the_kernel(images):
    huge = np.finfo(np.float64).max
    z = np.array([[huge, -huge], [0.0, -800.0], [0.0, -30.0], [-1e300, -1e300], [5e-324, 0.0], [0.0, 0.0]])
    out, bad = run_kernel(z, 2, images=images)
    assert bad == -1
    assert out[[0, 1]].tolist() == [0, 0]
    np.testing.assert_allclose(out[2] / FIXED_POINT, entropies(z[2]), rtol=0, atol=CLOSE)
    assert set(out[3:].tolist()) == {round(math.log(2) * FIXED_POINT)}
    certain = np.where(np.eye(3) > 0, 0.0, -np.inf)
    out, bad = run_kernel(certain, 3, allow_zero=True, images=images)
    assert (out.tolist(), bad) == ([0, 0, 0], -1)


@pytest.mark.kernel
@pytest.mark.parametrize("images", [0, 2])
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("value", "allow_zero", "refused"),
    [
        (np.nan, False, True),
        (np.nan, True, True),
        (np.inf, False, True),
        (np.inf, True, True),
        (-np.inf, False, True),
        (-np.inf, True, False),
    ],
)
def test_the_kernel_names_the_first_bad_unit(images, encoding, value, allow_zero, refused):
    z = np.random.default_rng(0).normal(size=(38, 3))
    z[13, 1] = z[30, 0] = value
    raw, _ = encode(z, encoding)
    _, bad = run_kernel(raw, 3, brain=encoding == "bfloat16", allow_zero=allow_zero, images=images)
    assert bad == (13 if refused else -1)
    z[13, 1] = z[30, 0] = 0
    z[21] = -np.inf  # no class is left
    raw, _ = encode(z, encoding)
    assert run_kernel(raw, 3, brain=encoding == "bfloat16", allow_zero=True, images=images)[1] == 21


# ---------------------------------------------------------------- moments and the oracle


@given(st.lists(st.integers(0, 2**44 - 1), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_moments_are_exact(values):
    moments, halves = Moments(), [Moments(), Moments()]
    moments.count(np.array(values, dtype=np.int64))
    for i, value in enumerate(values):
        halves[i % 2].count(np.array([value], dtype=np.int64))
    halves[1].add(**vars(halves[0]))
    assert vars(halves[1]) == vars(moments)
    assert (moments.total, moments.squares) == (sum(values), sum(value * value for value in values))
    mean = Fraction(sum(values), len(values))
    variance = sum((value - mean) ** 2 for value in values) / len(values)
    assert moments.mean() == float(mean / FIXED_POINT)
    assert moments.deviation() == pytest.approx(math.sqrt(variance) / FIXED_POINT, rel=1e-14, abs=1e-30)


def test_the_printed_deltas():
    made = DeltaStatistics(0.4, 0.1)
    uncertainty = [0.3, 0.5, 0.51, 0.6, 0.9, 1.7]
    expected = [1, 1, 0.975610, 0.8, 0.5, 0.25]
    np.testing.assert_allclose(made.delta(uncertainty), expected, rtol=0, atol=5e-7)
    np.testing.assert_allclose(naive.entropy_delta(uncertainty, 0.4, 0.1), expected, rtol=0, atol=5e-7)
    np.testing.assert_allclose(made.with_power(2).delta(uncertainty), np.square(expected), rtol=0, atol=2e-6)
    np.testing.assert_allclose(DeltaStatistics(0.0423135, 0.0240740).delta(0.1), 0.557300, rtol=0, atol=2e-6)
    assert DeltaStatistics(0.0, 0.0).delta([0.0, 0.1]).tolist() == [1.0, 0.0]


def test_certain_scores_give_no_nan():
    notes = []
    certain = np.where(np.eye(4) > 0, 0.0, -1000.0)
    found = unoic_cli.fit_delta(certain, tell=notes.append)
    assert (found.mu, found.sigma) == (0.0, 0.0)
    assert found.delta == {"mean": 1.0, "min": 1.0, "max": 1.0, "below_one": 0.0}
    assert "uncertainty of 0" in notes[0]


@pytest.mark.parametrize("image", [(), (3, 4)])
def test_statistics_are_those_of_naive(image):
    z = np.random.default_rng(1).normal(size=(20, *image, 5)) * 2
    H = entropies(z).reshape(20, -1).mean(axis=1)
    found = unoic_cli.fit_delta(np.moveaxis(z, -1, 1), delta_power=2, class_axis=1 if image else None)
    np.testing.assert_allclose([found.mu, found.sigma], [H.mean(), H.std()], rtol=0, atol=CLOSE)
    delta = naive.entropy_delta(H, H.mean(), H.std(), 2)
    expected = {"mean": delta.mean(), "min": delta.min(), "max": delta.max(), "below_one": (delta < 1).mean()}
    assert found.delta == pytest.approx(expected, abs=1e-11)
    assert 0 < found.delta["below_one"] < 1
    assert found.statistics.power == 2
    assert (found.n, found.statistics.n) == (20, 20)


# ---------------------------------------------------------------- law 2

N_CLASSES = 4


def source_of(z, layout, name="<array>", **more):
    """A source of scores (N, ..., K)."""
    planes = z.ndim > 2 and layout == "planes"
    return arrays.describe(
        np.moveaxis(z, -1, 1) if planes else z, class_axis=1 if planes or z.ndim == 2 else -1, name=name, **more
    )


def whole_state(z):
    tally = EntropyTally(z.shape[-1])
    sweep(open_dataset([source_of(z, "rows")]), [tally], n_threads=1)
    return vars(tally.moments)


@several
@given(
    st.integers(0, 99),
    st.integers(1, 12),
    st.sampled_from([(), (1, 1), (3, 5), (1, 7)]),
    st.lists(st.integers(1, 63), max_size=8),
    st.integers(1, 3),
    st.sampled_from(["rows", "planes"]),
    st.booleans(),
)
def test_spans_threads_layouts_and_files_never_change_a_sum(seed, n, image, edges, n_threads, layout, two):
    z = np.random.default_rng(seed).normal(size=(n, *image, N_CLASSES)).astype(np.float32)
    cut = [slice(0, n)] if not two or n == 1 else [slice(0, n // 2), slice(n // 2, n)]
    data = open_dataset([source_of(z[part], layout, f"file{i}") for i, part in enumerate(cut)])
    spans = []
    for source in data.sources:
        at = sorted({0, source.n_units, *(source.n_units * edge // 64 for edge in edges)})
        spans += [Span(source, a, b) for a, b in itertools.pairwise(at)]
    tally = EntropyTally(N_CLASSES, {source.name: source.n_samples for source in data.sources})
    sweep(data, [tally], spans=spans, n_threads=n_threads)
    assert vars(tally.moments) == whole_state(z)
    assert not tally.partial
    H = entropies(z).reshape(n, -1).mean(axis=1)
    np.testing.assert_allclose(
        np.concatenate([tally.kept(source.name) for source in data.sources]) / FIXED_POINT, H, rtol=0, atol=CLOSE
    )
    sample = data.sources[0].pixels * N_CLASSES * 4
    again = EntropyTally(N_CLASSES)
    sweep(data, [again], spans=data.spans(max(1, sample * 3 // 4)), n_threads=n_threads)
    assert vars(again.moments) == vars(tally.moments)


def test_large_images_are_summed_in_halves(monkeypatch):
    z = np.random.default_rng(0).normal(size=(3, 5, 7, N_CLASSES))
    expected = whole_state(z)
    monkeypatch.setattr("unoic_cli.tallies.entropy._PIECE", 8)
    assert whole_state(z) == expected


def test_a_split_is_what_its_samples_are():
    z = np.random.default_rng(3).normal(size=(9, 2, 3, N_CLASSES))
    split = np.array(["val", "test", "val"] * 3)
    one = unoic_cli.fit_delta(source_of(z, "planes", split=split), split="val")
    two = unoic_cli.fit_delta(source_of(z[split == "val"], "rows"))
    assert (one.n, one.mu, one.sigma, one.delta) == (two.n, two.mu, two.sigma, two.delta)
    assert one.split == "val"


def test_a_stored_delta_is_not_applied():
    z = np.random.default_rng(3).normal(size=(9, N_CLASSES))
    plain = unoic_cli.fit_delta(z)
    for delta in (0.5, 1e-200, -1.0):
        assert unoic_cli.fit_delta(unoic_cli.from_arrays(z, delta=np.full(9, delta))).mu == plain.mu


# ---------------------------------------------------------------- the command


def call(capfd, *args):
    """Exit code, JSON of stdout (or None), and stderr."""
    code = cli.run([str(arg) for arg in args])
    out, err = capfd.readouterr()
    return code, json.loads(out) if out else None, err


def write_h5(path, logits, name="logits", **more):
    with h5py.File(path, "w") as file:
        file[name] = logits
        for key, values in more.items():
            file[key] = values
    return path


def test_every_form_of_the_data_gives_the_same_bytes(tmp_path, capfd):
    z = np.random.default_rng(0).normal(size=(40, 3, 5, 7)).astype(np.float16)
    write_h5(tmp_path / "planes.h5", z)
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file.create_dataset("a/logits", data=np.moveaxis(z, 1, -1), chunks=(7, 5, 7, 3), compression="gzip")
        file["a/logits"].attrs["class_axis"] = -1
    write_h5(tmp_path / "one.h5", z[:11])
    write_h5(tmp_path / "two.h5", z[11:].astype(np.float32))
    rows = np.ascontiguousarray(np.moveaxis(z, 1, -1)).reshape(-1, 3)
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), 3)
    table = pa.table({"logits": column}, metadata={"unoic.image_shape": "[5, 7]"})
    pq.write_table(table, tmp_path / "flat.parquet", row_group_size=100)
    seen = set()
    for files in (["planes.h5"], ["rows.h5::a"], ["one.h5", "two.h5"], ["two.h5", "one.h5"], ["flat.parquet"]):
        for threads in (1, 3):
            output = tmp_path / "out.json"
            axis = ("--class-axis", 1) if files[0] in ("planes.h5", "one.h5", "two.h5") else ()
            paths = (tmp_path / name for name in files)
            code, found, _ = call(capfd, "fit-delta", *paths, "-o", output, "--force", "--threads", threads, *axis)
            assert code == 0
            stored = json.loads(output.read_text())
            assert stored == found["statistics"]
            assert DeltaStatistics.load(str(output)) == DeltaStatistics.from_dict(found, "x")
            seen.add(json.dumps([found["mu"], found["sigma"], stored["mu"], stored["sigma"], found["delta"]]))
    assert len(seen) == 1
    H = entropies(np.moveaxis(z.astype(np.float64), 1, -1)).mean(axis=(1, 2))
    np.testing.assert_allclose(json.loads(seen.pop())[:2], [H.mean(), H.std()], rtol=0, atol=CLOSE)


def test_modalities_power_and_formats(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    z = np.random.default_rng(0).normal(size=(6, 3))
    for name in ("a.h5", "b.h5", "x=y.h5"):
        write_h5(tmp_path / name, z)

    def stored(*args):
        code, found, err = call(capfd, "fit-delta", *args)
        assert (code, err) == (0, "")
        return found["statistics"]

    assert stored("a.h5")["modality"] is None
    assert stored("rgb=a.h5", "rgb=b.h5")["modality"] == "rgb"
    assert stored("rgb=a.h5::/", "--modality", "rgb", "--delta-power", "0.5")["power"] == 0.5
    assert unoic_cli.fit_delta({"rgb": z}).statistics.modality == "rgb"
    for inputs, name in (({"rgb": z, "depth": z}, None), ({"rgb": z}, "depth")):
        with pytest.raises(UsageError, match="one modality at a time"):
            unoic_cli.fit_delta(inputs, modality=name)
    assert stored("a.h5", "--modality", "depth-2")["modality"] == "depth-2"
    assert stored("x=y.h5")["modality"] is None, "a file of that name is there"
    assert stored("m=x=y.h5")["provenance"]["files"] == ["x=y.h5"]
    assert cli.run(["fit-delta", "rgb=a.h5", "--format", "table"]) == 0
    assert "rgb" in capfd.readouterr().out
    assert cli.run(["fit-delta", "rgb=a.h5", "--format", "tsv"]) == 0
    assert "statistics.modality\trgb\n" in capfd.readouterr().out


def test_write_delta_and_statistics(tmp_path, capfd):
    rng = np.random.default_rng(0)
    val, test = rng.normal(size=(30, 3)) * 4, rng.normal(size=(20, 3))
    write_h5(tmp_path / "val.h5", val)
    write_h5(tmp_path / "test.h5", test, split=np.array(["a", "b"] * 10, "S"))
    stats, out = tmp_path / "s.json", tmp_path / "d.h5"
    named = f"rgb={tmp_path / 'val.h5'}"
    code, fitted, _ = call(capfd, "fit-delta", named, "-o", stats, "--write-delta", out, "--delta-power", 2)
    assert code == 0
    H = entropies(val)
    with h5py.File(out) as file:
        assert file["delta"].dtype == file["uncertainty"].dtype == np.float64
        np.testing.assert_allclose(file["uncertainty"], H, rtol=0, atol=CLOSE)
        np.testing.assert_allclose(file["delta"], naive.entropy_delta(H, H.mean(), H.std(), 2), rtol=0, atol=1e-11)
        assert json.loads(file.attrs["unoic_delta_statistics"])["mu"] == fitted["mu"]
    apply = ("--statistics", stats, "--write-delta", out, "--force", "--split", "b")
    code, applied, _ = call(capfd, "fit-delta", tmp_path / "test.h5", *apply)
    assert code == 0
    assert applied["applied"] and applied["statistics"] == fitted["statistics"] and applied["n"] == 10
    H = entropies(test[1::2])
    delta = naive.entropy_delta(H, fitted["mu"], fitted["sigma"], 2)
    with h5py.File(out) as file:
        np.testing.assert_allclose(file["delta"], delta, rtol=0, atol=1e-11)
        assert file["delta"].shape == (10,)
    assert applied["delta"]["mean"] == pytest.approx(delta.mean())
    assert cli.run(["fit-delta", str(tmp_path / "test.h5"), *map(str, apply), "--format", "table"]) == 0
    assert "as given" in capfd.readouterr().out


def test_many_samples_lie_in_a_file(tmp_path, monkeypatch):
    z = np.random.default_rng(0).normal(size=(50, 3))
    unoic_cli.fit_delta(z, write_delta=tmp_path / "a.h5")
    monkeypatch.setattr(task, "_KEPT", 10)
    monkeypatch.setattr(task, "_PIECE", 7)
    assert unoic_cli.fit_delta(z).delta is None
    unoic_cli.fit_delta(z, write_delta=tmp_path / "b.h5")
    with h5py.File(tmp_path / "a.h5") as a, h5py.File(tmp_path / "b.h5") as b:
        assert a["delta"][:].tolist() == b["delta"][:].tolist()
        assert a["uncertainty"][:].tolist() == b["uncertainty"][:].tolist()
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "b.h5"]


# ---------------------------------------------------------------- stochastic passes


def passes(seed=0, n=6, s=5, k=4, image=(3, 7)):
    return (np.random.default_rng(seed).normal(size=(n, s, k, *image)) * 3).astype(np.float32)


def of_passes(z, measure):
    """(N,) uncertainty of logits (N, S, K, ...)."""
    p = softmax(z.astype(np.float64), axis=2)
    H = naive.entropy(np.moveaxis(p.mean(axis=1), 1, -1))
    if measure == "mutual-information":
        H = H - naive.entropy(np.moveaxis(p, 2, -1)).mean(axis=1)
    return H.reshape(len(z), -1).mean(axis=1)


@pytest.mark.parametrize("image", [(), (3, 7)])
@pytest.mark.parametrize("measure", ["predictive-entropy", "mutual-information"])
@pytest.mark.parametrize("kind", ["logits", "log_probs", "probs"])
def test_passes_are_those_of_numpy(tmp_path, image, measure, kind):
    z = passes(image=image)
    values = z
    if kind != "logits":
        values = softmax(z.astype(np.float64), axis=2)
        values[1, 2] = np.where(np.arange(4) == 1, 1.0, 0.0).reshape(4, *(1 for _ in image))
        z = z.astype(np.float64)
        z[1, 2] = np.where(values[1, 2] > 0, 0.0, -np.inf)
        with np.errstate(divide="ignore"):
            values = np.log(values) if kind == "log_probs" else values
    H = of_passes(z, measure)
    path = str(write_h5(tmp_path / "x.h5", values, "passes"))
    found = unoic_cli.fit_delta(
        path, origin="mc-dropout", kind=kind, measure=measure, write_delta=tmp_path / "d.h5", modality="rgb"
    )
    assert (found.statistics.measure, found.statistics.modality) == (measure, "rgb")
    np.testing.assert_allclose([found.mu, found.sigma], [H.mean(), H.std()], rtol=0, atol=CLOSE)
    with h5py.File(tmp_path / "d.h5") as file:
        np.testing.assert_allclose(file["uncertainty"], H, rtol=0, atol=CLOSE)
        np.testing.assert_allclose(file["delta"], naive.entropy_delta(H, H.mean(), H.std()), rtol=0, atol=1e-11)


@pytest.mark.parametrize("measure", ["predictive-entropy", "mutual-information"])
@pytest.mark.parametrize("image", [(), (6, 5), (1, 1)])
def test_slabs_and_containers_never_change_a_byte(tmp_path, monkeypatch, image, measure):
    z = passes(1, n=9, image=image).astype(np.float16)
    write_h5(tmp_path / "a.h5", z, "passes")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file.create_dataset("g/mc", data=z, chunks=(2, 1, 4, *(min(2, extent) for extent in image)), compression="gzip")
    np.save(tmp_path / "c.npy", z)
    np.save(tmp_path / "d.npy", np.asfortranarray(z))
    np.savez_compressed(tmp_path / "e.npz", passes=z, other=np.zeros(3))
    np.savez(tmp_path / "f.npz", anything=z.astype(">f4"))
    write_h5(tmp_path / "g.h5", z[:4], "passes")
    write_h5(tmp_path / "h.h5", z[4:], "passes")
    forms = [["a.h5"], ["b.h5::g/mc"], ["c.npy"], ["d.npy"], ["e.npz"], ["e.npz::passes"], ["f.npz"], ["g.h5", "h.h5"]]
    seen = set()
    for slab in (4 << 20, 900, 100):
        monkeypatch.setattr(task, "_SLAB_BYTES", slab)
        for form in forms:
            names = [str(tmp_path / name) for name in form]
            found = unoic_cli.fit_delta(names, origin="mc-dropout", measure=measure)
            seen.add((found.mu, found.sigma, *found.delta.values()))
        seen.add(
            (lambda r: (r.mu, r.sigma, *r.delta.values()))(unoic_cli.fit_delta(z, origin="mc-dropout", measure=measure))
        )
    assert len(seen) == 1
    H = of_passes(z, measure)
    np.testing.assert_allclose(seen.pop()[:2], [H.mean(), H.std()], rtol=0, atol=CLOSE)


def test_equal_passes_hold_no_information(tmp_path):
    z = np.repeat(passes(s=1), 7, axis=1)
    found = unoic_cli.fit_delta(z, origin="mc-dropout", measure="mutual-information")
    assert 0 <= found.mu < CLOSE
    mean = unoic_cli.fit_delta(z, origin="mc-dropout")
    np.testing.assert_allclose(mean.mu, unoic_cli.fit_delta(z[:, 0], class_axis=1).mu, rtol=0, atol=CLOSE)


# ---------------------------------------------------------------- bad input


def passes_file(tmp_path, change):
    z = passes(n=3, k=3, image=())
    return write_h5(tmp_path / "p.h5", change(z), "passes")


def spoiled(at, value):
    def change(z):
        z[at] = value
        return z

    return change


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (lambda z: z[0], [], "p.h5:passes: shape (5, 3); expected (N, S, K) or (N, S, K, H, W): samples, passes"),
        (lambda z: z[:, :1], [], "p.h5:passes: 1 pass(es) (S = 1); expected two or more"),
        (lambda z: z[:, :, :1], [], "p.h5:passes: 1 class(es) (K = 1); expected two or more classes"),
        (lambda z: z[:0], [], "p.h5:passes: no samples (N = 0); expected at least one"),
        (lambda z: z.astype(int), [], "p.h5:passes: int64 values; expected float16, float32 or float64"),
        (spoiled((1, 2, 0), np.nan), [], "p.h5:passes: nan at sample 1, pass 2, class 0; expected finite logits"),
        (spoiled((2, 0, 1), -np.inf), [], "p.h5:passes: -inf at sample 2, pass 0, class 1; expected finite logits"),
        (
            spoiled((2, 0), -np.inf),
            ["--kind", "log_probs"],
            "p.h5:passes: no class of positive probability at sample 2, pass 0; expected finite log-probs",
        ),
        (
            lambda z: spoiled((0, 4, 2), -0.5)(abs(z)),
            ["--kind", "probs"],
            "p.h5:passes: a negative, infinite or NaN probability at sample 0, pass 4, class 2; expected finite probs",
        ),
    ],
)
def test_bad_passes(tmp_path, capfd, change, options, message):
    path = passes_file(tmp_path, change)
    output, written = tmp_path / "o.json", tmp_path / "o.h5"
    args = ["fit-delta", path, "--from", "mc-dropout", *options, "-o", output, "--write-delta", written]
    code, found, err = call(capfd, *args)
    assert (code, found) == (65, None)
    assert err.startswith(f"unoic: error: {tmp_path}/{message}")
    assert err.count("\n") == 1
    assert os.listdir(tmp_path) == ["p.h5"]


def test_a_bad_pixel_of_a_slab_is_named(tmp_path, monkeypatch):
    z = passes(image=(6, 5))
    z[4, 1, 2, 3, 2] = z[5, 0, 0, 0, 0] = np.inf
    for slab in (1 << 20, 300):
        monkeypatch.setattr(task, "_SLAB_BYTES", slab)
        with pytest.raises(DataError, match=r"<array>: inf at sample 4, pass 1, pixel \(3, 2\), class 2; expected"):
            unoic_cli.fit_delta(z, origin="mc-dropout")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["a.h5", "--delta-power", "-1"], 2, "--delta-power: -1.0; expected a finite number, not negative"),
        (["a.h5", "--delta-power", "nan"], 2, "--delta-power: nan; expected"),
        (["a.h5", "--from", "thin air"], 2, "--from: 'thin air'; expected scores or mc-dropout"),
        (["a.h5", "--kind", "odds"], 2, "--kind: 'odds'; expected one of"),
        (["a.h5", "--labels", "a.h5"], 2, "--labels: given to fit-delta"),
        (["a.h5", "--measure", "mutual-information"], 2, "--measure: 'mutual-information' with --from scores"),
        (["a.h5", "--from", "mc-dropout", "--measure", "entropy"], 2, "--measure: 'entropy'; expected predictive-"),
        (
            ["a.h5", "--from", "mc-dropout", "--kind", "odds"],
            2,
            "--kind: 'odds'; expected one of logits, log_probs, probs",
        ),
        (["a.h5", "--from", "mc-dropout", "--split", "val"], 2, "--split: given with --from mc-dropout"),
        (["a.h5", "--modality", "2d"], 2, "--modality: '2d'; expected"),
        (["rgb=a.h5", "depth=b.h5"], 2, "depth=b.h5: modality depth, after rgb; expected one modality at a time"),
        (["rgb=a.h5", "--modality", "depth"], 2, "rgb=a.h5: modality rgb, after depth"),
        (["a.h5", "--force"], 2, "--force: --force without an output"),
        (["a.h5", "--threads", "0"], 2, "--threads: 0; expected at least 1"),
        (["p.h5", "--from", "mc-dropout", "--threads", "0"], 2, "--threads: 0; expected at least 1"),
        (["a.h5", "-o", "n.h5", "--write-delta", "n.h5"], 2, "--write-delta: n.h5, as --output; expected two names"),
        (["a.h5", "--write-delta", "n.json"], 2, "--write-delta: n.json; expected an HDF5 file"),
        (["a.h5", "--statistics", "s.json"], 2, "--statistics: given without --write-delta"),
        (["a.h5", "--statistics", "s.json", "--write-delta", "n.h5", "-o", "n.json"], 2, "--output: given with --stat"),
        (
            ["a.h5", "--statistics", "s.json", "--write-delta", "n.h5", "--delta-power", "1"],
            2,
            "--delta-power: given with --statistics",
        ),
        (
            ["depth=a.h5", "--statistics", "s.json", "--write-delta", "n.h5"],
            65,
            "s.json: statistics of modality rgb; expected those of depth",
        ),
        (
            ["p.h5", "--from", "mc-dropout", "--statistics", "s.json", "--write-delta", "n.h5"],
            65,
            "s.json: statistics of entropy; expected those of predictive-entropy, as measured here",
        ),
        (["a.h5", "--statistics", "a.h5", "--write-delta", "n.h5"], 65, "a.h5: no text"),
        (["a.h5", "--statistics", "none.json", "--write-delta", "n.h5"], 66, "none.json: no such file"),
        (["none.h5"], 66, "none.h5: no such file"),
        (["rgb="], 66, "FILES: an empty name"),
        (["none.h5", "--from", "mc-dropout"], 66, "none.h5: no such file"),
        (["k.h5", "a.h5"], 65, "a.h5: 3 classes; expected 5, as in k.h5"),
        (["p.h5", "q.h5", "--from", "mc-dropout"], 65, "q.h5:passes: 3 classes; expected 4, as in p.h5:passes"),
        (["p.h5", "./p.h5", "--from", "mc-dropout"], 2, "p.h5: the same data twice"),
        (["a.h5", "--from", "mc-dropout"], 65, "a.h5:passes: no such dataset among: logits; expected a.h5::DATASET"),
        (["z.npz", "--from", "mc-dropout"], 65, "z.npz:passes: no such array among: a, b; expected z.npz::ARRAY"),
        (["z.npz::a", "--from", "mc-dropout"], 65, "z.npz:a: int64 values; expected"),
        (["i.h5"], 65, "i.h5: predictions and no scores; expected logits, log_probs, probs"),
        (["bad.h5"], 65, "bad.h5:logits: nan at row 1, class 2; expected finite logits"),
        (["a.h5", "-o", "a.h5", "--force"], 73, "a.h5: the output is also an input"),
        (["a.h5", "-o", "s.json"], 73, "s.json: the file exists"),
        (["a.h5", "--statistics", "s.json", "--write-delta", "p.h5"], 73, "p.h5: the file exists"),
        (["a.h5", "-o", "nowhere/s.json"], 73, "nowhere/s.json: the folder nowhere does not exist"),
        (["bad.h5", "-o", "n.json", "--write-delta", "n.h5"], 65, "bad.h5:logits: nan at row 1"),
    ],
)
def test_bad_input_ends_with_one_line(tmp_path, capfd, monkeypatch, args, code, message):
    monkeypatch.chdir(tmp_path)
    z = np.random.default_rng(0).normal(size=(4, 3))
    for name in ("a.h5", "b.h5"):
        write_h5(tmp_path / name, z)
    write_h5(tmp_path / "k.h5", np.zeros((4, 5)))
    write_h5(tmp_path / "p.h5", passes(image=()), "passes")
    write_h5(tmp_path / "q.h5", passes(k=3, image=()), "passes")
    z[1, 2] = np.nan
    write_h5(tmp_path / "bad.h5", z)
    np.savez(tmp_path / "z.npz", a=np.zeros((2, 2, 2), np.int64), b=np.zeros(3))
    with h5py.File(tmp_path / "i.h5", "w") as file:
        file["predictions"] = np.zeros(4, np.uint8)
        file["predictions"].attrs["n_classes"] = 3
    (tmp_path / "s.json").write_text(json.dumps(DeltaStatistics(0.4, 0.1, modality="rgb").to_dict()))
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    found_code, found, err = call(capfd, "fit-delta", *args)
    assert found is None
    assert err.startswith(f"unoic: error: {message}"), err
    assert err.count("\n") == 1
    assert found_code == code
    assert {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)} == before


def test_damaged_and_distant_passes(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    z = passes(image=())
    write_h5("there.h5", z, "passes")
    with h5py.File("link.h5", "w") as file:
        file["passes"] = h5py.ExternalLink("there.h5", "passes")
    with h5py.File("never.h5", "w") as file:
        file.create_dataset("passes", z.shape, "f4")
    np.save("short.npy", z)
    np.savez_compressed("flipped.npz", passes=z)
    for name, at in (("short.npy", -10), ("flipped.npz", 0)):
        data = bytearray((tmp_path / name).read_bytes())
        data[len(data) // 2] ^= 255
        (tmp_path / name).write_bytes(data[:at] if at else data)
    table = pa.table({"logits_0": [0.0], "logits_1": [1.0]})
    pq.write_table(table, "x.parquet")
    for name, code, message in (
        ("link.h5", 65, "link.h5:passes: a link to another file (there.h5); expected data in the file itself"),
        ("never.h5", 65, "never.h5:passes: storage that was never written"),
        ("short.npy", 74, "short.npy:short: the file ends too soon"),
        ("flipped.npz", 65, "flipped.npz:passes: truncated or corrupt"),
        ("x.parquet", 65, "x.parquet: a parquet file; expected passes in HDF5, npy or npz"),
    ):
        found = call(capfd, "fit-delta", name, "--from", "mc-dropout")
        assert found[:2] == (code, None), found
        assert found[2].startswith(f"unoic: error: {message}"), found
    assert call(capfd, "fit-delta", "link.h5", "--from", "mc-dropout", "--allow-external")[0] == 0


def test_arrays_of_one_name_are_refused():
    one, two = (unoic_cli.from_arrays(np.zeros((3, 2))) for _ in range(2))
    with pytest.raises(UsageError, match="two sources of this name"):
        unoic_cli.fit_delta([one, two])


def test_when_the_second_output_fails_the_first_is_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(task, "write_json", lambda *_: (_ for _ in ()).throw(DataError("x", "full", "room")))
    with pytest.raises(DataError):
        unoic_cli.fit_delta(np.zeros((3, 2)), output=tmp_path / "a.json", write_delta=tmp_path / "a.h5")
    assert os.listdir(tmp_path) == []


# ------------------------------------------------------------------------------------------------
# statistics of pixels


def images_file(path, z, **more):
    with h5py.File(path, "w") as file:
        file["logits"] = np.moveaxis(z, -1, 1)
        file["logits"].attrs["class_axis"] = 1
        for name, values in more.items():
            file[name] = values
    return str(path)


def loaded(path):
    with open(path) as file:
        return json.load(file)


def naive_pixels(z, power=1.0, statistics=None):
    H = entropies(z)
    mu, sigma = (H.mean(), H.std()) if statistics is None else statistics
    return mu, sigma, naive.entropy_delta(H, mu, sigma, power)


@pytest.fixture
def streets(tmp_path, monkeypatch):
    """Images whose pixels differ in how sure they are, for tuning and for testing."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(8)
    made = {}
    for name, n in (("val", 9), ("test", 7)):
        sure = rng.uniform(0.1, 3.0, (n, 5, 6, 1))
        z = (sure * rng.normal(size=(n, 5, 6, 4)) + rng.normal(size=(n, 1, 1, 4))).astype(np.float32)
        y = rng.integers(0, 4, (n, 5, 6))
        made[name] = z, y
        images_file(f"{name}.h5", z, labels=y, source_counts=[50, 20, 5, 1])
    return made


def test_each_pixel_has_a_delta_of_its_own(streets, run):
    code, said, err = run("fit-delta", "rgb=val.h5", "--per-pixel", "--delta-power", "2", "-o", "d.json")
    assert code == 0, err
    fitted = json.loads(said)["statistics"]
    mu, sigma, _ = naive_pixels(streets["val"][0])
    assert (fitted["per"], fitted["n"], json.loads(said)["delta"]) == ("pixel", 270, None)
    assert (fitted["mu"], fitted["sigma"]) == (pytest.approx(mu, abs=1e-9), pytest.approx(sigma, abs=1e-9))
    z, y = streets["test"]
    delta = naive_pixels(z, 2.0, (fitted["mu"], fitted["sigma"]))[2]
    s = naive.slopes([50, 20, 5, 1], np.ones(4))
    for order, lam in itertools.product(("flatten-first", "rebalance-first"), (0.0, 0.7)):
        scores = delta[..., None] * (z + lam * s) if order == "rebalance-first" else delta[..., None] * z + lam * s
        expected = naive.counts(y.ravel(), scores.reshape(-1, 4).argmax(1), 4)
        found = unoic_cli.evaluate("test.h5", delta="d.json", lam=lam, order=order).overall.counts
        assert [found.hits.tolist(), found.predicted.tolist()] == [one.tolist() for one in expected[:2]]
    unoic_cli.calibrate("test.h5", delta="d.json", lam=0.7, output="o.h5")
    with h5py.File("o.h5") as file:
        written = np.moveaxis(file["log_probs"][()], 1, -1)
    assert np.exp(written) == pytest.approx(softmax(delta[..., None] * z + 0.7 * s), abs=1e-6)


def test_pixels_need_no_whole_images(streets, run, monkeypatch):
    """Spans cut images, threads and shards share them: the same bytes."""
    assert run("fit-delta", "val.h5", "--per-pixel", "-o", "whole.json")[0] == 0
    names = ("search-lambda", "val.h5", "--delta", "whole.json", "--order", "rebalance-first", "--folds", "2")
    expected = run(*names)
    assert expected[0] == 0, expected[2]
    tuned = run("search-lambda", "val.h5", "--delta", "whole.json", "-o", "c.json")
    assert tuned[0] == 0 and loaded("c.json")["modalities"][0]["delta"]["per"] == "pixel"
    compared = run("compare", "test.h5", "-m", "tuned=c.json", "--format", "json")
    assert compared[0] == 0, compared[2]
    monkeypatch.setattr("unoic_cli.data.dataset.SPAN_BYTES", 200)
    monkeypatch.setattr("unoic_cli.data.dataset.WHOLE_BYTES", 200)
    assert run("fit-delta", "val.h5", "--per-pixel", "--threads", "3", "-o", "cut.json")[0] == 0
    first, second = map(loaded, ("whole.json", "cut.json"))
    assert (first["mu"], first["sigma"], first["n"]) == (second["mu"], second["sigma"], second["n"])
    assert run(*names, "--threads", "3")[1] == expected[1]
    for i in (1, 2, 3):
        given = "--shard", f"{i}/3", "--state", f"{i}.u"
        assert run("fit-delta", "val.h5", "--per-pixel", *given)[0] == 0
    assert run("merge", "1.u", "2.u", "3.u", "-o", "all.u")[0] == 0
    merged = json.loads(run("report", "all.u")[1])["statistics"]
    assert (merged["mu"], merged["sigma"], merged["per"]) == (first["mu"], first["sigma"], "pixel")


def test_modalities_may_have_statistics_of_either_kind(streets):
    unoic_cli.fit_delta("val.h5", per_pixel=True, output="pixel.json")
    unoic_cli.fit_delta("val.h5", output="sample.json")
    z, _ = streets["test"]
    other = np.random.default_rng(1).normal(size=z.shape).astype(np.float32)
    images_file("depth.h5", other, source_counts=[5, 5, 20, 40])
    deltas = []
    for scores, name in ((z, "pixel"), (other, "sample")):
        made = loaded(f"{name}.json")
        H = entropies(scores) if name == "pixel" else entropies(scores).mean(axis=(1, 2), keepdims=True)
        deltas.append(naive.entropy_delta(H, made["mu"], made["sigma"], 1.0))
    found = unoic_cli.evaluate(
        ["rgb=test.h5", "depth=depth.h5"],
        delta={"rgb": "pixel.json", "depth": "sample.json"},
        lam=0.0,
        fusion="average",
    ).overall.counts
    fused = sum(softmax(d[..., None] * one) for d, one in zip(deltas, (z, other), strict=True))
    assert found.predicted.tolist() == np.bincount(fused.reshape(-1, 4).argmax(1), minlength=4).tolist()


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (("rows.h5", "--per-pixel"), 2, "--per-pixel of rows; expected images"),
        (("val.h5", "--per-pixel", "--write-delta", "w.h5"), 2, "--per-pixel with --write-delta"),
        (("passes.npy", "--per-pixel", "--from", "mc-dropout"), 2, "--per-pixel with --from mc-dropout"),
        (("val.h5", "--statistics", "p.json", "--write-delta", "w.h5"), 65, "statistics of pixels; expected those of"),
        (("val.h5", "--statistics", "bad.json", "--write-delta", "w.h5"), 65, "bad.json: damaged delta statistics"),
    ],
)
def test_what_pixels_do_not_go_with(streets, run, args, code, said):
    with h5py.File("rows.h5", "w") as file:
        file["logits"] = np.zeros((4, 3), "f4")
    np.save("passes.npy", np.zeros((4, 2, 3), "f4"))
    unoic_cli.fit_delta("val.h5", per_pixel=True, output="p.json")
    stored = loaded("p.json")
    with open("bad.json", "w") as file:
        json.dump({**stored, "per": "voxel"}, file)
    got, out, err = run("fit-delta", *args)
    assert (got, out, len(err.splitlines())) == (code, "", 1), err
    assert said in err and not os.path.exists("w.h5")
