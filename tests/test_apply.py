"""`Calibration.apply`, `predict_proba` and `predict` on arrays: what ``unoic calibrate`` writes, by numpy alone."""

from __future__ import annotations

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unoic_cli
from unoic_cli import Calibration, cli
from unoic_cli.calibrations.calibration import Modality
from unoic_cli.calibrations.delta import DeltaStatistics
from unoic_cli.calibrations.prior import Prior
from unoic_cli.errors import UnoicError
from unoic_cli.fusions import FUSIONS, fusion

FOLDER = {}
several = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def prior(weights):
    return Prior.from_weights([float(w) for w in weights], "given", counts=True)


def calibration(lam, modalities, k, **more):
    return Calibration(lam, prior([1] * k), tuple(modalities), **more)


def written(made, inputs, tmp_path, emit="log-probs"):
    """What the command writes of files."""
    path = tmp_path / "c.json"
    made.save(path)
    out = str(tmp_path / "out.h5")
    unoic_cli.calibrate(inputs, calibration=str(path), output=out, force=True, emit=emit)
    with h5py.File(out) as file:
        return file["log_probs" if emit == "log-probs" else "probs"][()], file["predictions"][()].astype(np.int64)


def save(path, array, **more):
    with h5py.File(path, "w") as file:
        name = more.pop("kind", "logits")
        file[name] = array
        file[name].attrs["class_axis"] = 1
        for name, values in more.items():
            file[name] = values
    return str(path)


def same(made, arrays, files, tmp_path, **how):
    """Values and decisions are those of the command, and the first largest entry is the decision."""
    axis = how.get("class_axis", 1)
    logs, decided = written(made, files, tmp_path)
    probs = np.exp(logs)
    how = {"class_axis": 1, **how}
    found = made.apply(arrays, **how)
    assert (made.predict(arrays, **how) == decided).all()
    assert (found.argmax(axis=axis) == decided).all()
    assert found.dtype == logs.dtype and found.shape == logs.shape
    np.testing.assert_allclose(found, logs, rtol=2e-6, atol=2e-6)
    shares = made.predict_proba(arrays, **how)
    assert (shares.argmax(axis=axis) == decided).all()
    np.testing.assert_allclose(shares, probs, rtol=3e-5, atol=1e-7)


scores = st.integers(2, 6).flatmap(
    lambda k: st.tuples(
        st.just(k), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from(["float16", "float32", "float64"]),
        st.sampled_from([1, 4, 1000]),
    )
)  # fmt: skip


def drawn(k, n, seed, dtype, grain, shape=()):
    """Scores of few values, so that many tie, or of many."""
    rng = np.random.default_rng(seed)
    return (np.round(rng.normal(size=(n, k, *shape)) * 4 * grain) / grain).astype(dtype), rng


@several
@given(scores, st.sampled_from([0.0, 0.5, 1.0, -0.7, 3.25]), st.sampled_from([1.0, 0.5, 3.0]), st.booleans())
def test_rows(tmp_path, drawn_as, lam, temperature, offsets):
    k, n, seed, dtype, grain = drawn_as
    z, rng = drawn(k, n, seed, dtype, grain)
    bias = tuple(np.round(rng.normal(size=k), 1).tolist()) if offsets else None
    made = calibration(lam, [Modality(None, prior(rng.integers(1, 50, k)), temperature, offsets=bias)], k)
    same(made, z, save(tmp_path / "z.h5", z), tmp_path)


@several
@given(
    scores,
    st.sampled_from(["flatten-first", "rebalance-first"]),
    st.sampled_from(["stored", "sample", "pixel"]),
    st.booleans(),
)
def test_images_with_delta(tmp_path, drawn_as, order, kind, offsets):
    k, n, seed, dtype, grain = drawn_as
    n = min(n, 5)
    z, rng = drawn(k, n, seed, dtype, grain, (3, 4))
    statistics = None if kind == "stored" else DeltaStatistics(0.3, 0.1, per=kind)
    delta = np.round(rng.random(n), 2)
    given_delta = {"delta": delta} if kind == "stored" else {}
    bias = tuple(np.round(rng.normal(size=k), 1).tolist()) if offsets else None
    modality = Modality(
        None, prior(rng.integers(1, 50, k)), 2.0, statistics, stored_delta=kind == "stored", offsets=bias
    )
    made = calibration(0.8, [modality], k, order=order)
    same(made, z, save(tmp_path / "z.h5", z, **given_delta), tmp_path, **given_delta)


@pytest.mark.parametrize("name", FUSIONS)
@several
@given(scores, st.booleans(), st.sampled_from(["flatten-first", "rebalance-first"]), st.booleans())
def test_fusions(name, tmp_path, drawn_as, images, order, uncertain):
    k, n, seed, dtype, grain = drawn_as
    shape = (2, 3) if images else ()
    arrays, files, modalities = {}, {}, []
    for i, one in enumerate(("a", "b", "c")):
        z, rng = drawn(k, min(n, 8), seed + i, dtype, grain, shape)
        arrays[one], files[one] = z, save(tmp_path / f"{one}.h5", z)
        statistics = DeltaStatistics(0.4, 0.1) if uncertain and i else None
        modalities.append(Modality(one, prior(rng.integers(1, 50, k)), 1.0 + i, statistics, share=1.0 - i / 4))
    takes = fusion(name).default_weights(3) is not None
    made = calibration(0.6, modalities, k, fusion=name, order=order, weights=(0.5, 0.0, 0.5) if takes else (1.0,) * 3)
    same(made, arrays, files, tmp_path)


def test_certain_experts_of_different_classes_are_told_apart(tmp_path):
    z = {"a": np.array([[60.0, 0.0, 0.0]] * 3), "b": np.array([[0.0, 61.0, 0.0], [0.0, 59.0, 0.0], [0.0, 60.0, 0.0]])}
    files = {name: save(tmp_path / f"{name}.h5", array) for name, array in z.items()}
    made = calibration(
        0.0, [Modality(name, prior([1, 1, 1]), 1.0) for name in z], 3, fusion="noisy-or", weights=(1.0, 1.0)
    )
    assert made.predict(z).tolist() == [1, 0, 0]
    same(made, z, files, tmp_path)


@pytest.mark.parametrize("kind", ["probs", "log_probs"])
def test_probabilities_and_impossible_classes(tmp_path, kind):
    p = np.array([[0.5, 0.5, 0.0], [0.2, 0.2, 0.6], [0.0, 0.0, 1.0]])
    with np.errstate(divide="ignore"):
        z = p if kind == "probs" else np.log(p)
    made = calibration(0.7, [Modality(None, prior([1, 2, 7]), 2.0)], 3)
    same(made, z, save(tmp_path / "z.h5", z, kind=kind), tmp_path, kind=kind)


def test_masked_classes_are_never_decided(tmp_path):
    z = np.random.default_rng(0).normal(size=(30, 4)).astype(np.float32)
    made = calibration(0.7, [Modality(None, Prior((0.5, 0.5, 0.0, 0.0), "given"), 1.0)], 4)
    assert set(made.predict(z).tolist()) == {0, 1}
    same(made, z, save(tmp_path / "z.h5", z), tmp_path)


def test_a_unit_of_masked_classes_alone_is_refused(tmp_path, refuse):
    p = np.array([[0.2, 0.8, 0.0], [0.0, 0.0, 1.0]])
    made = calibration(0.7, [Modality(None, Prior((0.5, 0.5, 0.0), "given"), 1.0)], 3)
    for way in (made.apply, made.predict_proba, made.predict):
        assert way(p[:1], kind="probs").shape[0] == 1
        with pytest.raises(UnoicError, match="no class of positive probability that may be predicted; expected finite"):
            way(p, kind="probs")
    made.save(tmp_path / "c.json")
    line = refuse(65, "calibrate", save(tmp_path / "p.h5", p, kind="probs"), "-c", tmp_path / "c.json", "-q", "-o",
                  tmp_path / "out.h5")  # fmt: skip
    assert "no class of positive probability that may be predicted" in line


def test_layouts(tmp_path):
    z = np.random.default_rng(1).normal(size=(3, 4, 5, 6)).astype(np.float32)
    made = calibration(0.7, [Modality(None, prior([9, 5, 2, 1]), 1.5)], 4)
    last = np.moveaxis(z, 1, -1)
    assert (made.apply(last, class_axis=-1) == np.moveaxis(made.apply(z), 1, -1)).all()
    assert (made.predict(last, class_axis=-1) == made.predict(z)).all()
    rows = last.reshape(-1, 4)
    assert (made.apply(rows).reshape(last.shape) == made.apply(last, class_axis=-1)).all()
    assert (made.apply(rows[::-2]) == made.apply(np.ascontiguousarray(rows[::-2]))).all()
    assert (made.apply(rows[0]) == made.apply(rows[:1])[0]).all() and made.predict(rows[0]) == made.predict(rows)[0]
    assert made.apply(rows[:0]).shape == (0, 4) and made.predict(z[:0]).shape == (0, 5, 6)
    assert (made.apply(rows.tolist()) == made.apply(rows.astype(np.float64))).all()
    kept = rows.copy()
    rows.flags.writeable = False
    made.apply(rows)
    assert (rows == kept).all()


def test_a_large_array_is_cut_without_a_trace():
    z = np.random.default_rng(2).normal(size=(30_000, 7)).astype(np.float32)
    made = calibration(0.7, [Modality(None, prior(range(1, 8)), 1.5, DeltaStatistics(1.0, 0.2))], 7)
    parts = np.concatenate([made.apply(z[i : i + 997]) for i in range(0, len(z), 997)])
    assert (made.apply(z) == parts).all()


def test_a_factor_for_each_row_or_pixel_and_one_for_all():
    z = np.random.default_rng(3).normal(size=(4, 3, 4, 4))
    made = calibration(0.7, [Modality(None, prior([9, 5, 2]), 1.0)], 3)
    each = made.apply(z, delta=np.full((4, 4, 4), 0.5))
    assert (made.apply(z, delta=0.5) == each).all() and (made.apply(z, delta=np.full(4, 0.5)) == each).all()
    rows = z.transpose(0, 2, 3, 1).reshape(-1, 3)
    factors = np.linspace(0, 1, len(rows))
    one_by_one = np.stack([made.apply(row, delta=factor) for row, factor in zip(rows, factors, strict=True)])
    assert (made.apply(rows, delta=factors) == one_by_one).all()


@pytest.mark.parametrize(
    ("logits", "how", "said"),
    [
        (np.zeros((2, 4)), {}, "4 classes; expected 3"),
        (np.zeros((2, 3, 4)), {}, "expected (N, K), (N, K, H, W)"),
        (np.array([[0, np.nan, 0]]), {}, "NaN or infinite"),
        (np.full((2, 3), -np.inf), {}, "-inf for every class"),
        (np.array([[0, np.inf, 0]]), {"kind": "log_probs"}, "NaN or infinite"),
        (np.array([[0.5, -0.5, 1]]), {"kind": "probs"}, "negative"),
        (np.array([[0.5, 0.5, 0], [0, 0, 0]]), {"kind": "probs"}, "no class of positive probability"),
        (np.full((1, 3), -np.inf), {"kind": "log_probs"}, "no class of positive probability"),
        (np.zeros((2, 3), dtype="U3"), {}, "<U3 values"),
        (np.zeros((2, 3)), {"kind": "odds"}, "expected logits, log_probs, probs"),
        (np.zeros((2, 3)), {"delta": [1, 1, 1]}, "shape (3,)"),
        (np.zeros((2, 3)), {"delta": [1, -1]}, "negative"),
        ([[0, 1, 2], [1]], {}, "cannot be read as an array"),
    ],
)  # fmt: skip
def test_what_is_refused(logits, how, said):
    made = calibration(0.7, [Modality(None, prior([9, 5, 2]), 1.0)], 3)
    with pytest.raises(UnoicError, match=r"(?s).*") as caught:
        made.apply(logits, **how)
    assert said in str(caught.value)


def test_modalities_are_told_by_name():
    made = calibration(
        0.7, [Modality(n, prior([9, 5]), 1.0) for n in ("rgb", "depth")], 2, fusion="average", weights=(0.5, 0.5)
    )
    z = np.zeros((2, 2))
    for given_, said in (
        (z, "expected a mapping of rgb, depth"),
        ({"rgb": z}, "expected rgb, depth"),
        ({"rgb": z, "depth": np.zeros((3, 2))}, "expected (2, 2), as of rgb"),
    ):
        with pytest.raises(UnoicError) as caught:
            made.apply(given_)
        assert said in str(caught.value)


def test_statistics_of_passes_need_a_delta():
    made = calibration(
        0.7, [Modality(None, prior([9, 5]), 1.0, DeltaStatistics(0.3, 0.1, measure="mutual-information"))], 2
    )
    with pytest.raises(UnoicError, match="expected delta="):
        made.apply(np.zeros((2, 2)))
    assert made.apply(np.zeros((2, 2)), delta=[1, 0.5]).shape == (2, 2)


def test_saved_and_loaded_it_is_the_same(tmp_path):
    found = unoic_cli.search_lambda("sample_data/fashion_lt/val.h5").calibration
    found.save(tmp_path / "c.json")
    again = Calibration.load(tmp_path / "c.json")
    assert again == found
    with h5py.File("sample_data/fashion_lt/test.h5") as file:
        z = file["logits"][()]
    assert (again.apply(z) == found.apply(z)).all()
    assert json.loads((tmp_path / "c.json").read_text())["format"] == "unoic calibration"


def test_nothing_but_numpy_is_loaded(tmp_path):
    unoic_cli.search_lambda("sample_data/digits_lt/val.h5", output=str(tmp_path / "c.json"))
    code = f"""
import sys, numpy as np
from unoic_cli import Calibration
made = Calibration.load({str(tmp_path / "c.json")!r})
made.predict_proba(np.zeros((4, 10), np.float32)), made.predict(np.zeros((4, 10)))
print([name for name in ("numba", "h5py", "pyarrow", "rich", "typer", "isal") if name in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_decisions_are_those_of_the_command_on_the_sample(tmp_path):
    cli.run(["search-lambda", "sample_data/fashion_lt/val.h5", "-q", "-o", str(tmp_path / "c.json")])
    made = Calibration.load(tmp_path / "c.json")
    with h5py.File("sample_data/fashion_lt/test.h5") as file:
        same(made, file["logits"][()], "sample_data/fashion_lt/test.h5", tmp_path)


def test_what_the_service_is_given_is_not_guessed():
    two = unoic_cli.search_lambda(np.random.default_rng(0).normal(size=(40, 2)), np.arange(40) % 2, source_prior=[3, 1])
    found = two.calibration
    one = np.linspace(-3, 3, 9)
    pair = np.stack([np.zeros(9), one], axis=1)
    for scores in (one, one[:, None]):
        np.testing.assert_array_equal(found.predict_proba(scores), found.predict_proba(pair))
    masked = np.array([[0.0, -np.inf], [1.0, 2.0]])
    assert found.predict_proba(masked)[0].tolist() == [1, 0]
    with pytest.raises(unoic_cli.errors.DataError, match="-inf for every class"):
        found.predict_proba(np.array([[-np.inf, -np.inf]]))
    probs = np.array([[0.2, 0.8], [0.5, 0.5]])
    for method in (found.apply, found.predict, found.predict_proba):
        with pytest.raises(unoic_cli.errors.UnoicError, match='rows sum to 1; expected logits, or kind="probs"'):
            method(probs)
    assert found.predict_proba(probs, kind="probs").shape == (2, 2)
    square = np.random.default_rng(1).normal(size=(3, 2, 5, 2))
    with pytest.raises(unoic_cli.errors.UnoicError, match="expected class_axis=1 for"):
        found.predict(square)
    assert found.predict(square, class_axis=1).shape == (3, 5, 2)
    assert found.predict(square, class_axis=-1).shape == (3, 2, 5)
