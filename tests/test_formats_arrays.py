"""Arrays in memory: blocks for any layout, strides and byte order, and the rules they share with files."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unoic_cli import formats
from unoic_cli.errors import DataError, UsageError
from unoic_cli.formats import arrays, schema


def collect(source, target_bytes, fields):
    out = {name: [] for name in fields}
    reader, at = formats.open_reader(source), 0
    for start, stop in formats.spans(source, target_bytes):
        for block in reader.blocks(start, stop, frozenset(fields)):
            assert block.start == at
            at = block.stop
            for name in fields:
                out[name].append(np.array(per_unit(source, block, name)))
    assert at == source.n_units
    reader.close()
    return {name: np.concatenate(parts) for name, parts in out.items()}


def per_unit(source, block, name):
    if name == "scores":
        if source.kind == "predictions":
            return block.predictions
        if block.scores.ndim == 3:
            return block.scores.transpose(0, 2, 1).reshape(-1, source.n_classes)
        return block.scores
    values = getattr(block, name)
    if name in ("split", "group", "sample_id"):
        return schema.per_unit(values, block.start, block.stop, source.pixels)
    return np.broadcast_to(values, (block.stop - block.start,)) if name == "delta" else values


@settings(max_examples=80, deadline=None)
@given(
    n=st.integers(1, 4),
    k=st.integers(2, 4),
    image=st.one_of(st.just(()), st.tuples(st.integers(1, 4), st.integers(1, 40))),
    last=st.booleans(),
    strided=st.booleans(),
    dtype=st.sampled_from(["<f2", ">f2", "<f4", ">f4", "<f8", ">f8"]),
    sort=st.sampled_from(["scalar", "sample", "unit"]),
    target=st.integers(1, 2000),
)
def test_blocks_equal_the_arrays(n, k, image, last, strided, dtype, sort, target):
    rng = np.random.default_rng(n * k)
    pixels = int(np.prod(image))
    rows = rng.normal(size=(n * pixels, k)).astype(dtype)
    scores = rows.reshape(n, *image, k)
    if image and not last:
        scores = np.moveaxis(scores, -1, 1)
    if not strided:
        scores = np.ascontiguousarray(scores)
    labels = rng.integers(0, k, (n, *image)).astype(">i2")
    delta = rng.random({"scalar": (), "sample": (n,), "unit": (n, *image)}[sort])
    split = [f"s{index}" for index in range(n)]
    source = arrays.describe(
        scores,
        labels,
        delta=delta,
        split=split,
        sample_id=np.arange(n),
        class_axis=-1 if last and image else 1,
        source_counts=[1] * k,
        class_names=["x"] * k,
    )
    assert source.layout == ("planes" if image and not last else "rows")
    got = collect(source, target, ["scores", "labels", "delta", "split", "sample_id"])
    np.testing.assert_array_equal(got["scores"].view(rows.dtype.newbyteorder("=")), rows)
    np.testing.assert_array_equal(got["labels"], labels.ravel())
    assert got["labels"].dtype.isnative
    wide = np.repeat(delta, pixels) if sort == "sample" else np.broadcast_to(delta.ravel(), (n * pixels,))
    np.testing.assert_array_equal(got["delta"], wide)
    assert got["split"].tolist() == np.repeat(split, pixels).tolist()
    np.testing.assert_array_equal(got["sample_id"], np.repeat(np.arange(n), pixels))


def test_blocks_do_not_alias_the_callers_arrays():
    scores = np.ones((4, 3), np.float32)
    (block,) = arrays.describe(scores).open().blocks(0, 4, frozenset({"scores"}))
    assert not np.shares_memory(block.scores, scores)


def test_predictions():
    source = arrays.describe(np.arange(6, dtype=np.uint8).reshape(1, 2, 3), kind="predictions", n_classes=6)
    assert source.image_shape == (2, 3)
    assert collect(source, 2, ["scores"])["scores"].tolist() == list(range(6))


GOOD = np.zeros((4, 3))


@pytest.mark.parametrize(
    "scores, options, message",
    [
        (np.zeros(()), {}, "<array>:logits: shape ()"),
        (np.zeros((4, 3, 2)), {}, "one image is (1, K, H, W)"),
        (np.zeros((2, 4, 5, 3)), {}, "nothing that says which axis holds the classes"),
        (np.zeros((3, 40)), {"labels": np.zeros(40, int)}, "look transposed"),
        (np.zeros((4, 300)), {"labels": np.zeros(4, np.uint8)}, "ends at 255"),
        (np.zeros((4, 3), int), {}, "<array>:logits: int64 values"),
        (np.zeros((0, 3)), {}, "N = 0"),
        (np.zeros((3, 2, 0, 1)), {}, "zero size"),
        (np.zeros((3, 2, 4, 5)), {"class_axis": 2}, "class_axis 2"),
        (GOOD, {"labels": np.zeros(2, int)}, "<array>:labels: shape (2,)"),
        (GOOD, {"labels": np.zeros(4)}, "<array>:labels: float64"),
        (GOOD, {"delta": np.zeros(3)}, "<array>:delta: shape (3,)"),
        (GOOD, {"delta": "a"}, "<array>:delta: text"),
        (GOOD, {"source_prior": [1, 2]}, "<array>:source_prior: shape (2,)"),
        (GOOD, {"class_names": ["a"]}, "<array>:class_names: shape (1,)"),
        (GOOD, {"split": [1, 2, 3, 4]}, "<array>:split: 1; expected text"),
        (GOOD, {"group": ["a"]}, "<array>:group: shape (1,)"),
        (GOOD, {"kind": "predictions"}, "<array>:predictions: float64 values"),
        (np.zeros(3, np.uint8), {"kind": "predictions"}, "no n_classes"),
    ],
)
def test_refused(scores, options, message):
    with pytest.raises(DataError) as caught:
        arrays.describe(scores, **options)
    assert message in str(caught.value)


@given(
    n=st.integers(1, 20),
    pixels=st.integers(1, 300),
    unit=st.integers(1, 50),
    target=st.integers(1, 9999),
    chunk=st.integers(0, 7),
)
def test_spans_cover_everything_once(n, pixels, unit, target, chunk):
    spans = schema.cut_spans(n, pixels, unit, target, chunk)
    assert [start for start, _ in spans] == [0, *(stop for _, stop in spans[:-1])]
    assert spans[-1][1] == n * pixels
    for start, stop in spans:
        assert start < stop
        if start % pixels or (stop % pixels):
            assert start // pixels == (stop - 1) // pixels
        if chunk:
            assert start % (chunk * pixels) == 0


@given(start=st.integers(0, 60), size=st.integers(1, 60), height=st.integers(1, 5), width=st.integers(1, 5))
def test_boxes_visit_each_unit_in_order(start, size, height, width):
    units = np.arange(130 * height * width).reshape(-1, height, width)
    pieces = [
        units[n0:n1, h0:h1, w0:w1].ravel()
        for n0, n1, h0, h1, w0, w1 in schema.boxes(start, start + size, (height, width))
    ]
    assert np.concatenate(pieces).tolist() == list(range(start, start + size))
    assert len(pieces) <= 7


@pytest.mark.parametrize(
    "kind, near",
    [
        ("prob", "probs"), ("softmax", "probs"), ("probabilities", "probs"), ("probs ", "probs"), ("PROBS", "probs"),
        ("sigmoid", "probs"), ("log-probs", "log_probs"), ("log_softmax", "log_probs"), ("Logits", "logits"),
        ("prediction", "predictions"), ("foo", None), ("", None), ("labels", None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shape", [(4, 3), (4,), (4, 1)])
def test_a_word_that_is_no_kind_is_refused(kind, near, shape):
    """No unknown word means logits."""
    with pytest.raises(UsageError) as caught:
        arrays.from_arrays(np.full(shape, 0.5), kind=kind)
    meant = f"did you mean {near}? " if near else ""
    assert str(caught.value) == (f"kind: {kind!r}; {meant}expected one of logits, log_probs, probs, predictions")


@pytest.mark.parametrize("shape, known", [((4, 3), 3), ((4, 1), 2), ((4,), 2), ((2, 3, 4, 5), 3)])
def test_a_number_of_classes_must_be_that_of_the_scores(shape, known):
    axis = 1 if len(shape) == 4 else None
    assert arrays.from_arrays(np.zeros(shape), class_axis=axis, n_classes=known).n_classes == known
    for wrong in (0, -1, 1, known + 1):
        with pytest.raises(DataError, match=f"of {known} classes, but n_classes={wrong}; expected a score for each"):
            arrays.from_arrays(np.zeros(shape), class_axis=axis, n_classes=wrong)


def test_predictions_have_no_axis_of_classes():
    with pytest.raises(UsageError, match=r"^class_axis: given, but predictions have no axis"):
        arrays.from_arrays(np.zeros(4, int), kind="predictions", n_classes=2, class_axis=1)
