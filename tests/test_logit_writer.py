"""`LogitWriter`: batches of a training loop become a file that commands read, complete or absent."""

from __future__ import annotations

import contextlib
import os
import warnings

import h5py
import numpy as np
import pytest
from tensors import Tensor

import unoic_cli
from unoic_cli import LogitWriter
from unoic_cli.errors import UnoicError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def batches(n, k, shape=(), seed=0, size=7):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, k, *shape)).astype(np.float32) * 3
    y = rng.integers(k, size=(n, *shape))
    return z, y, [slice(i, i + size) for i in range(0, n, size)]


@pytest.mark.parametrize("shape", [(), (3, 5)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_batches_are_one_array(shape, dtype):
    z, y, cuts = batches(30, 4, shape)
    with LogitWriter("val.h5", source_counts=[4, 3, 2, 1], class_names="abcd", dtype=dtype) as writer:
        for cut in cuts:
            writer.write(z[cut], y[cut], group=["even", "odd"][cut.start % 2], sample_id=np.arange(30)[cut])
            assert not os.path.exists("val.h5")
    with h5py.File("val.h5") as file:
        assert (file["logits"][()] == z.astype(dtype)).all() and file["logits"].dtype == dtype
        assert file["logits"].chunks is None and (file["labels"][()] == y).all() and file["labels"].dtype == np.uint8
        assert (file["sample_id"][()] == np.arange(30)).all()
    whole = unoic_cli.evaluate(z.astype(dtype), y, source_prior=[4, 3, 2, 1], lam=0.7)
    assert unoic_cli.evaluate("val.h5", lam=0.7).overall.values == whole.overall.values
    assert set(unoic_cli.evaluate("val.h5", by="group").groups) == {"even", "odd"}
    assert writer.n_units == y.size
    assert writer.changed == (z.astype(dtype).argmax(1) != z.argmax(1)).sum()
    assert os.listdir() == ["val.h5"]


def test_tensors_of_frameworks():
    z, y, _ = batches(6, 3)
    with LogitWriter("val.h5", dtype="float32") as writer:
        writer.write(Tensor(z[:2]), Tensor(y[:2], dtype="torch.int64"))
        writer.write(Tensor(z[2:4], dtype="torch.bfloat16"), Tensor(y[2:4]))
        writer.write(z[4:].tolist(), y[4:].tolist())
    with h5py.File("val.h5") as file:
        assert (file["logits"][()] == z).all() and (file["labels"][()] == y).all()


def test_files_of_several_ranks_are_one_data_set():
    z, y, _ = batches(30, 4)
    for rank in range(3):
        with LogitWriter(f"val.{rank}.h5", dtype="float32") as writer:
            writer.write(z[rank::3], y[rank::3])
    both = unoic_cli.evaluate("val.*.h5"), unoic_cli.evaluate(z, y)
    assert both[0].overall.values == both[1].overall.values


def test_ignored_labels_and_delta_and_channels_last():
    z, y, _ = batches(4, 3, (2, 2))
    y[0, 0] = [255, -1]
    y[1, 1, 1] = -100
    with LogitWriter("val.h5") as writer:
        writer.write(np.moveaxis(z, 1, -1), y, delta=np.array([1, 0.5, 0.25, 1]), class_axis=-1)
    with h5py.File("val.h5") as file:
        assert (file["logits"][()] == z.astype(np.float16)).all()
        assert file["delta"][()].tolist() == np.broadcast_to([[[1]], [[0.5]], [[0.25]], [[1]]], (4, 2, 2)).tolist()
    assert unoic_cli.evaluate("val.h5").overall.n_ignored == 3


def test_many_classes_have_wider_labels():
    z, y, _ = batches(5, 300)
    y[0], y[1] = 255, -1
    with LogitWriter("val.h5") as writer:
        writer.write(z, y)
    with h5py.File("val.h5") as file:
        assert file["labels"][()].tolist() == y.tolist()
    assert unoic_cli.evaluate("val.h5").overall.n_ignored == 1


def test_without_labels_it_can_be_calibrated():
    with LogitWriter("new.h5", source_counts=[9, 1]) as writer:
        writer.write(np.zeros((3, 2)))
    assert unoic_cli.calibrate("new.h5", lam=1, output="out.h5").n_units == 3


@pytest.mark.parametrize("how", ["error", "interrupt", "abort", "nothing", "forgotten"])
def test_what_is_not_finished_leaves_no_file(how):
    if how in ("error", "interrupt"):
        kind = ValueError if how == "error" else KeyboardInterrupt
        with contextlib.suppress(kind), LogitWriter("val.h5") as writer:
            writer.write(np.zeros((2, 3)), [0, 1])
            raise kind
    elif how == "nothing":
        with pytest.raises(UnoicError, match="nothing was written"), LogitWriter("val.h5"):
            pass
    else:
        writer = LogitWriter("val.h5")
        writer.write(np.zeros((2, 3)), [0, 1])
        if how == "abort":
            writer.abort()
        del writer
    assert os.listdir() == []


def test_a_batch_that_is_refused_leaves_those_before():
    with LogitWriter("val.h5") as writer:
        writer.write(2 * np.eye(3)[:2], [0, 1])
        with pytest.raises(UnoicError):
            writer.write(np.zeros((2, 3)), [0, 7])
        writer.write(np.eye(3)[2:], [2])
    assert unoic_cli.evaluate("val.h5").overall.values["acc"] == 1.0


def test_rounding_that_changes_decisions_is_spoken_of():
    z = 1000 + np.array([[0.0, 0.01], [0.01, 0.0]] * 50)
    said = pytest.warns(UserWarning, match=r"rounding to float16 changes 50 % of the decisions")
    with said, LogitWriter("val.h5") as writer:
        writer.write(z, [1, 0] * 50)
    assert writer.changed == 50
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with LogitWriter("wide.h5", dtype="float64") as writer:
            writer.write(z, [1, 0] * 50)
    assert writer.changed == 0


REFUSED = [
    ((np.zeros((2, 4)), [0, 1]), "4 classes; expected 3, as before"),
    ((np.zeros((2, 3, 4, 4)), np.zeros((2, 4, 4), int)), "shape (2, 3, 4, 4); expected (N, K), as before"),
    ((np.zeros((2, 3)), [0, 1, 2]), "shape (3,); expected (2,)"),
    ((np.zeros((2, 3)), np.eye(3)[:2].astype(int)), "class numbers and not one-hot"),
    ((np.zeros((2, 3)), [0.0, 1.0]), "float64 values; expected integers"),
    ((np.zeros((2, 3)), [0, 3]), "label 3; expected 0 to 2"),
    ((np.zeros((2, 3)), None), "expected labels, as before"),
    ((np.full((2, 3), np.nan), [0, 1]), "NaN or infinite in row 0"),
    ((np.full((2, 3), 1e5), [0, 1]), "100000, which is infinite as float16"),
    ((np.zeros((2, 3), int), [0, 1]), "int64 values; expected floats"),
    ((np.zeros(3), [0]), "expected (N, K) or (N, K, H, W)"),
    (([[1.0, 2.0], [1.0]], [0, 1]), "cannot be read as an array"),
]


@pytest.mark.parametrize(("batch", "said"), REFUSED)
def test_what_does_not_fit_is_refused(batch, said):
    with LogitWriter("val.h5") as writer:
        writer.write(np.zeros((2, 3)), [0, 1])
        with pytest.raises(UnoicError) as caught:
            writer.write(*batch)
        assert said in str(caught.value)


def test_names_and_places_are_checked(tmp_path):
    (tmp_path / "val.h5").write_text("mine")
    with pytest.raises(UnoicError, match="exists already"):
        LogitWriter("val.h5")
    with pytest.raises(UnoicError, match="folder"):
        LogitWriter("nowhere/val.h5")
    with pytest.raises(UnoicError, match="expected float16"):
        LogitWriter("a.h5", dtype="int8")
    with pytest.raises(UnoicError, match="kind"):
        LogitWriter("a.h5", kind="odds")
    for given in ({"source_counts": [1, 2]}, {"class_names": ["a"]}):
        with pytest.raises(UnoicError), LogitWriter("a.h5", **given) as writer:
            writer.write(np.zeros((2, 3)), [0, 1])
    assert (tmp_path / "val.h5").read_text() == "mine"
    with LogitWriter("val.h5", force=True) as writer:
        writer.write(np.zeros((2, 3)), [0, 1])
    assert h5py.is_hdf5("val.h5") and os.listdir() == ["val.h5"]
    with pytest.raises(UnoicError, match="closed"):
        writer.write(np.zeros((2, 3)), [0, 1])


def sized(path, seed=0, scale=1.0, **more):
    """A file of images of three sizes, written one or two at a time; and what was written."""
    rng, images, masks = np.random.default_rng(seed), [], []
    with LogitWriter(path, source_counts=[8, 3, 1], class_names=["a", "b", "c"], dtype="float32", **more) as writer:
        for i, shape in enumerate([(4, 6), (4, 6), (5, 3), (4, 6), (2, 2), (5, 3), (2, 2)]):
            logits = (rng.normal(size=(1 + i % 2, 3, *shape)) * scale).astype("f4")
            labels = rng.integers(0, 3, (len(logits), *shape))
            writer.write(logits, labels, group=[f"g{i}"] * len(logits))
            images += list(logits)
            masks += list(labels)
    assert writer.n_samples == len(images) and writer.n_units == sum(mask.size for mask in masks)
    return images, masks


def test_images_of_changing_size(tmp_path):
    path = str(tmp_path / "val.h5")
    images, masks = sized(path)
    right = np.concatenate([(image.argmax(0) == mask).ravel() for image, mask in zip(images, masks, strict=True)])
    found = unoic_cli.evaluate(path)
    assert found.overall.n == right.size and found.overall.values["acc"] == right.mean()
    with h5py.File(path) as file:
        assert list(file.attrs["unoic_parts"]) == ["4x6", "5x3", "2x2"]
        for name, group in file.items():
            wanted = [i for i, image in enumerate(images) if "x".join(map(str, image.shape[1:])) == name]
            assert group["sample_id"][...].tolist() == wanted
            assert all((group["logits"][j] == images[i]).all() for j, i in enumerate(wanted))
            assert all((group["labels"][j] == masks[i]).all() for j, i in enumerate(wanted))
            texts = [text.decode() for text in group["group"][...]]
            assert texts == [f"g{[0, 1, 1, 2, 3, 3, 4, 5, 5, 6][i]}" for i in wanted]


def test_every_command_reads_images_of_changing_size(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, masks = sized("val.h5")
    sized("depth.h5", seed=0, scale=0.5)
    parts = []
    for name in ("4x6", "5x3", "2x2"):
        keep = [i for i, image in enumerate(images) if "x".join(map(str, image.shape[1:])) == name]
        with LogitWriter(f"{name}.h5", source_counts=[8, 3, 1], class_names=["a", "b", "c"], dtype="float32") as writer:
            writer.write(np.stack([images[i] for i in keep]), np.stack([masks[i] for i in keep]))
        parts.append(f"{name}.h5")
    whole, apart = (unoic_cli.search_lambda(one, folds=2) for one in ("val.h5", parts))
    assert (whole.lam, whole.curve["macc"].tolist()) == (apart.lam, apart.curve["macc"].tolist())
    assert unoic_cli.fit_delta("val.h5").mu == unoic_cli.fit_delta(parts).mu
    fused = unoic_cli.search_lambda({"rgb": "val.h5", "depth": "depth.h5"}, fusion="noisy-or")
    assert fused.to_dict()["n"] == sum(mask.size for mask in masks)
    assert len(unoic_cli.info("val.h5").files) == 3
    whole.calibration.save("c.json")
    assert (
        unoic_cli.compare("val.h5", methods=["c.json"]).to_dict()["methods"]
        == (unoic_cli.compare(parts, methods=["c.json"]).to_dict()["methods"])
    )
    with pytest.raises(UnoicError, match="images of different sizes"):
        unoic_cli.calibrate("val.h5", lam=1.0, output="o.h5")
