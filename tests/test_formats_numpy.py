"""npy and npz as streams: rows in blocks, no pickles, and clean errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unoic_cli.errors import DataError, NoInputError, UsageError
from unoic_cli.formats import numpy_files


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(0, 5), min_size=1, max_size=4).map(tuple),
    dtype=st.sampled_from(["<f2", ">f4", "<f8", "u1", ">i8", "U3"]),
    order=st.sampled_from("CF"),
    save=st.sampled_from(["npy", "npz", "compressed"]),
    target=st.integers(1, 300),
)
def test_rows_equal_the_array(tmp_path, shape, dtype, order, save, target):
    array = np.asarray(np.arange(np.prod(shape)).reshape(shape).astype(dtype), order=order)
    path = str(tmp_path / ("x.npy" if save == "npy" else "x.npz"))
    if save == "npy":
        np.save(path, array)
    else:
        (np.savez if save == "npz" else np.savez_compressed)(path, x=array, y=np.zeros(2))
    assert numpy_files.members(path)["x"] == (shape, array.dtype)
    blocks = list(numpy_files.rows(path, "x", target))
    assert all(block.flags.c_contiguous for block in blocks)
    whole = np.concatenate(blocks) if blocks else np.empty(shape, dtype)
    np.testing.assert_array_equal(whole, array)
    np.testing.assert_array_equal(numpy_files.read(path, "x"), array)
    row_bytes = int(np.prod(shape[1:])) * array.dtype.itemsize
    assert all(block.nbytes <= max(target, row_bytes) for block in blocks)


def test_a_scalar_has_no_rows(tmp_path):
    np.save(tmp_path / "x.npy", np.float64(3))
    assert numpy_files.read(str(tmp_path / "x.npy"), "x") == 3
    with pytest.raises(DataError, match="a single number"):
        list(numpy_files.rows(str(tmp_path / "x.npy"), "x", 10))


def test_newer_headers(tmp_path):
    with open(tmp_path / "x.npy", "wb") as file:
        np.lib.format.write_array(file, np.arange(4), version=(3, 0))
    assert numpy_files.read(str(tmp_path / "x.npy"), "x").tolist() == [0, 1, 2, 3]


def test_pickles_are_refused(tmp_path):
    path = str(tmp_path / "x.npz")
    np.savez(path, x=np.array([{}, None], dtype=object))
    assert list(numpy_files.members(path)) == ["x"]
    for use in (lambda path: numpy_files.read(path, "x"), lambda path: next(numpy_files.rows(path, "x", 100))):
        with pytest.raises(DataError, match=r"x\.npz:x: a pickled \(object\) array"):
            use(path)


def test_missing_files_and_members(tmp_path):
    with pytest.raises(NoInputError):
        numpy_files.members(str(tmp_path / "x.npz"))
    np.savez(tmp_path / "x.npz", a=np.zeros(2), b=np.zeros(3))
    with pytest.raises(UsageError, match="expected one of a, b"):
        numpy_files.read(str(tmp_path / "x.npz"), "c")


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_truncated(tmp_path, name):
    path = tmp_path / name
    (np.savez if name.endswith("z") else np.save)(path, np.arange(100.0))
    member = next(iter(numpy_files.members(str(path))))
    whole = path.read_bytes()
    for size in (4, 9, 60, 300, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="truncated or corrupt"):
            list(numpy_files.rows(str(path), member, 64))


def test_damage_in_a_zip_is_never_silent(tmp_path):
    rng = np.random.default_rng(0)
    path, array = tmp_path / "x.npz", rng.random(50)
    for save in (np.savez, np.savez_compressed):
        save(path, x=array)
        whole = path.read_bytes()
        for _ in range(100):
            damaged = bytearray(whole)
            damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            try:
                got = np.concatenate(list(numpy_files.rows(str(path), "x", 80)))
            except (DataError, UsageError):
                continue
            np.testing.assert_array_equal(got, array)


def test_structured_arrays_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3, [("a", "f4")]))
    with pytest.raises(DataError, match="structured"):
        numpy_files.read(str(tmp_path / "x.npy"), "x")


def test_damaged_headers_end_in_our_errors(tmp_path):
    rng = np.random.default_rng(1)
    np.save(tmp_path / "x.npy", np.arange(3.0))
    whole = (tmp_path / "x.npy").read_bytes()
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[rng.integers(6, 128)] = rng.integers(32, 127)
        (tmp_path / "x.npy").write_bytes(damaged)
        try:
            blocks = list(numpy_files.rows(str(tmp_path / "x.npy"), "x", 80))
        except DataError:
            continue
        assert all(isinstance(block, np.ndarray) for block in blocks)
