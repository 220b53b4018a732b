"""npz, npy, safetensors and CSV as outputs: other libraries read what was meant, and every bit comes back."""

from __future__ import annotations

import json
import pathlib

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unoic_cli
from unoic_cli import cli, formats
from unoic_cli.formats import plain_writer
from unoic_cli.formats.block import LogitBlock, OutputSpec

RNG = np.random.default_rng(5)
Z, Y = RNG.normal(size=(300, 4)).astype("f4"), RNG.integers(0, 4, 300)
IMAGES, MASKS = RNG.normal(size=(5, 3, 4, 6)).astype("f4"), RNG.integers(0, 3, (5, 4, 6)).astype("u1")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capfd):
    def runner(*args, code=0):
        assert cli.run([str(arg) for arg in args]) == code, capfd.readouterr().err
        out, err = capfd.readouterr()
        return (json.loads(out) if out.startswith("{") else out, err) if code == 0 else err

    return runner


def store(name="x.h5", **arrays):
    with h5py.File(name, "w") as file:
        for key, array in arrays.items():
            file[key] = array
    return name


def rows():
    return store(
        logits=Z, labels=Y, source_counts=[9, 3, 2, 1], class_names=["a", "b", "c", "d"],
        split=np.array(["val", "tést"] * 150, object), group=np.array([f"g{i % 7}" for i in range(300)], object),
        sample_id=np.arange(300), delta=np.linspace(0.5, 1, 300),
    )  # fmt: skip


def test_numpy_reads_the_npz(run):
    run("convert", rows(), "o.npz")
    with np.load("o.npz") as found:
        assert found["logits"].dtype == np.float32 and (found["logits"] == Z).all()
        assert (found["labels"] == Y).all() and found["split"].tolist() == ["val", "tést"] * 150
        assert found["group"][8] == "g1" and (found["sample_id"] == np.arange(300)).all()
        assert found["class_names"].tolist() == list("abcd") and found["source_counts"].tolist() == [9, 3, 2, 1]
        np.testing.assert_array_equal(found["delta"], np.linspace(0.5, 1, 300))


@pytest.mark.parametrize("long", [300, 500, 5000])
def test_archives_of_any_size(run, monkeypatch, long):
    """Sizes and places that 32 bits cannot hold are told in 64: here, all above a few bytes."""
    monkeypatch.setattr(plain_writer, "_LONG", long)
    packed = plain_writer.struct.pack

    def widened(form, *values):  # what is at the limit is told as all ones
        return packed(form, *(0xFFFFFFFF if value == long and "I" in form else value for value in values))

    monkeypatch.setattr(plain_writer.struct, "pack", widened)
    run("convert", rows(), "o.npz")
    with np.load("o.npz") as found:
        assert (found["logits"] == Z).all() and (found["labels"] == Y).all()


@pytest.mark.parametrize("layout", ["planes", "rows"])
def test_images(run, layout):
    logits = IMAGES if layout == "planes" else np.moveaxis(IMAGES, 1, -1)
    with h5py.File("x.h5", "w") as file:
        file["logits"], file["labels"] = logits, MASKS
        file["logits"].attrs["class_axis"] = 1 if layout == "planes" else -1
    wanted = run("evaluate", "x.h5")[0]["acc"]
    for name in ("o.npz", "o.safetensors"):
        run("convert", "x.h5", name)
        assert run("evaluate", name)[0]["acc"] == wanted
        run("convert", name, "back.h5", "--force")
        with h5py.File("back.h5") as back:
            assert (back["logits"][...] == logits).all() and (back["labels"][...] == MASKS).all()
    if layout == "rows":
        assert "which npy cannot say" in run("convert", "x.h5", "o.npy", code=2)
    else:
        run("convert", "x.h5", "o.npy")
        assert (np.load("o.npy") == IMAGES).all()
    assert "images, which lines cannot say" in run("convert", "x.h5", "o.csv", code=2)
    assert not pathlib.Path("o.csv").exists()


def test_the_library_reads_safetensors(run):
    load_file = pytest.importorskip("safetensors.numpy").load_file
    _, err = run("convert", rows(), "o.safetensors")
    assert "holds no group, sample_id, split: left out" in err
    found = load_file("o.safetensors")
    assert (found["logits"] == Z).all() and (found["labels"] == Y).all()
    assert run("info", "o.safetensors")[0]["files"][0]["class_names"] == list("abcd")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["float16", "bfloat16", "float32", "float64"]),
    st.sampled_from(["o.csv", "o.tsv", "o.npz", "o.safetensors"]),
    st.integers(0, 2**32 - 1),
)
def test_every_bit_comes_back(encoding, name, seed):
    """Whatever the bits of the scores, as long as they are numbers."""
    if encoding == "bfloat16" and name == "o.npz":
        return
    rng = np.random.default_rng(seed)
    size = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}[encoding]
    bits = rng.integers(0, 1 << 8 * size, (20, 3), dtype=f"u{size}")
    exponent = {"float16": 0x7C00, "bfloat16": 0x7F80, "float32": 0x7F800000, "float64": 0x7FF0000000000000}[encoding]
    bits[(bits & exponent) == exponent] = 0
    spec = OutputSpec(20, 3, (), "logits", encoding, "rows", dtypes={"labels": "int64"})
    pathlib.Path(name).unlink(missing_ok=True)
    writer = formats.create(name, spec)
    scores = bits if size == 2 else bits.view(f"f{size}")
    for start, stop in ((0, 7), (7, 20)):
        writer.write(LogitBlock(start, stop, scores=scores[start:stop], labels=np.arange(start, stop) % 3))
    writer.commit()
    source = formats.describe(name)
    (block,) = source.open().blocks(0, 20, frozenset({"scores", "labels"}))
    assert (block.labels == np.arange(20) % 3).all()
    if name.endswith("sv"):
        wide = formats.single.wide(scores, encoding)
        assert block.scores.tobytes() == (wide + 0.0 * (wide == 0)).tobytes() or (block.scores == wide).all()
    else:
        assert block.scores.tobytes() == scores.tobytes()


def test_rounding_is_counted(run):
    close = Z.copy()
    close[:40, 1] = close[:40].max(1) + 1e-6  # a class above the others that float16 cannot tell from them
    store("c.h5", logits=close, labels=Y)
    half = close.astype("f2")
    wanted = int((half.argmax(1) != close.argmax(1)).sum())
    assert wanted > 5
    for name in ("o.npz", "o.h5", "o.safetensors"):
        found, _ = run("convert", "c.h5", name, "--dtype", "float16")
        assert found["changed"] == wanted and found["encoding"] == "float16"
    assert (np.load("o.npz")["logits"] == half).all()
    assert run("convert", "c.h5", "o2.npz")[0]["changed"] is None
    assert run("convert", "o.npz", "o3.npz", "--dtype", "float32")[0]["changed"] is None
    assert "--dtype: 'int8'; expected one of" in run("convert", "c.h5", "o4.npz", "--dtype", "int8", code=2)
    store("big.h5", logits=close * 1e6, labels=Y)
    assert "expected values in the range of float16" in run(
        "convert", "big.h5", "o5.npz", "--dtype", "float16", code=65
    )
    assert "numpy has no type for" in run("convert", "c.h5", "o6.npz", "--dtype", "bfloat16", code=2)
    assert not list(pathlib.Path().glob("*o[56]*"))


@pytest.mark.parametrize("suffix", ["npz", "safetensors", "csv", "npy"])
def test_calibrated_scores_in_every_form(run, suffix):
    run("calibrate", rows(), "--lambda", "1", "-o", "o.h5")
    run("calibrate", "x.h5", "--lambda", "1", "-o", f"o.{suffix}")
    labels = () if suffix != "npy" else ("--labels", "x.h5::labels", "--kind", "log_probs")
    got, wanted = run("evaluate", f"o.{suffix}", *labels)[0], run("evaluate", "o.h5")[0]
    assert [got[key] for key in ("acc", "macc", "miou", "n")] == [wanted[key] for key in ("acc", "macc", "miou", "n")]


def test_predictions_alone(run):
    run("calibrate", rows(), "--lambda", "1", "--emit", "predictions", "-o", "o.npz")
    run("calibrate", "x.h5", "--lambda", "1", "--emit", "predictions", "-o", "o.h5")
    assert run("evaluate", "o.npz")[0]["acc"] == run("evaluate", "o.h5")[0]["acc"]
    with np.load("o.npz") as found:
        assert found["n_classes"] == 4 and found["predictions"].shape == (300,)


def test_threads_and_blocks_give_the_same_bytes(monkeypatch):
    rows()
    found = set()
    for threads, size in ((1, 1 << 20), (3, 200), (2, 1000)):
        monkeypatch.setattr("unoic_cli.data.dataset.SPAN_BYTES", size)
        unoic_cli.calibrate("x.h5", lam=1.0, output="o.npz", threads=threads, force=True)
        found.add(pathlib.Path("o.npz").read_bytes())
    assert len(found) == 1


# ------------------------------------------------------------------------------------------------
# outputs of calibrate


@pytest.fixture
def several():
    """Two files of rows, and one of the same."""
    for name, part in {"in_a": slice(0, 110), "in_b": slice(110, 300)}.items():
        np.savez(f"{name}.npz", logits=Z[part], labels=Y[part], source_counts=[9, 3, 2, 1])
    np.savez("whole.npz", logits=Z, labels=Y, source_counts=[9, 3, 2, 1])


@pytest.mark.parametrize("options", [("--lambda", "1"), ()])
def test_an_output_for_each_input(run, several, options):
    pathlib.Path("out").mkdir()
    found, _ = run("calibrate", "in_*.npz", *options, "-o", "out/{stem}.h5")
    whole, _ = run("calibrate", "whole.npz", *options, "-o", "whole.h5")
    assert found["outputs"] == ["out/in_a.h5", "out/in_b.h5"] and found["n_written"] == 300
    keys = ("lambda", "before", "after", "emit", "temperature", "gained", "lost")
    assert [found[key] for key in keys] == [whole[key] for key in keys]
    with h5py.File("out/in_a.h5") as a, h5py.File("out/in_b.h5") as b, h5py.File("whole.h5") as one:
        for name in ("log_probs", "labels", "predictions"):
            assert (np.concatenate([a[name], b[name]]) == one[name][...]).all()
    made = sorted(path.name for path in pathlib.Path("out").iterdir())
    assert made == (["in_a.h5", "in_b.h5"] if options else ["calibration.json", "in_a.h5", "in_b.h5"])


def test_several_outputs_come_together_or_not_at_all(run, several):
    pathlib.Path("out").mkdir()
    pathlib.Path("out/in_b.h5").touch()
    assert "out/in_b.h5: the file exists" in run(
        "calibrate", "in_*.npz", "--lambda", "1", "-o", "out/{stem}.h5", code=73
    )
    assert [path.name for path in pathlib.Path("out").iterdir()] == ["in_b.h5"]
    bad = Z[110:].copy()
    bad[50, 2] = np.nan
    np.savez("in_b.npz", logits=bad, labels=Y[110:], source_counts=[9, 3, 2, 1])
    assert "nan" in run("calibrate", "in_*.npz", "--lambda", "1", "-o", "out/{stem}.h5", "--force", code=65)
    assert [path.name for path in pathlib.Path("out").iterdir()] == ["in_b.h5"]
    pathlib.Path("deep").mkdir()
    np.savez("deep/in_a.npz", logits=Z, labels=Y)
    said = run("calibrate", "in_a.npz", "deep/in_a.npz", "--lambda", "1", "-o", "out/{stem}.h5", code=2)
    assert "out/in_a.h5 for two inputs of that name" in said
    assert "an output for each input" in run(
        "calibrate", "in_*.npz", "--lambda", "1", "-o", "{stem}.h5", "--shard", "1/2", code=2
    )


def test_parts_and_sizes_have_outputs_of_their_own(run):
    np.savez("p.npz", val_logits=Z[:100], val_labels=Y[:100], test_logits=Z[100:], test_labels=Y[100:])
    found, _ = run("calibrate", "p.npz", "--lambda", "1", "--source-prior", "4,3,2,1", "-o", "{stem}.h5")
    assert found["outputs"] == ["p.val.h5", "p.test.h5"]
    run(
        "calibrate",
        "p.npz",
        "--split",
        "test",
        "--lambda",
        "1",
        "--source-prior",
        "4,3,2,1",
        "-o",
        "{stem}.h5",
        "--force",
    )
    with unoic_cli.LogitWriter("sized.h5", source_counts=[9, 3, 1]) as writer:
        writer.write(IMAGES, MASKS)
        writer.write(IMAGES[:, :, :2], MASKS[:, :2])
    found, _ = run("calibrate", "sized.h5", "--lambda", "1", "-o", "{stem}.h5")
    assert found["outputs"] == ["sized.4x6.h5", "sized.2x6.h5"]
    with h5py.File("sized.2x6.h5") as file:
        assert file["log_probs"].shape == (5, 3, 2, 6)


def test_several_modalities_have_an_output_for_each_pair(run, several):
    for name in "ab":
        pathlib.Path(f"other_{name}.npz").write_bytes(pathlib.Path(f"in_{name}.npz").read_bytes())
    inputs = ["rgb=in_a.npz", "rgb=in_b.npz", "depth=other_a.npz", "depth=other_b.npz"]
    found, _ = run("fuse", *inputs, "-o", "{stem}.fused.h5", "--delta", "fit")
    one, _ = run("fuse", *inputs, "-o", "one.h5", "--delta", "fit")
    assert found["n_written"] == one["n_written"] and found["after"] == one["after"]
    parts = [h5py.File(name)["log_probs"][...] for name in found["outputs"]]
    assert (np.concatenate(parts) == h5py.File("one.h5")["log_probs"][...]).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("emit", ["log-probs", "probs"])
@pytest.mark.parametrize("image", [False, True])
def test_rounded_posteriors_are_counted(run, dtype, emit, image):
    rng = np.random.default_rng(1)
    z = rng.normal(size=(40, 3, *((5, 6) if image else ()))).astype("f8")
    z[:, 1] = z[:, 0] + rng.normal(size=z[:, 0].shape) * 1e-4
    y = rng.integers(0, 3, (40, *z.shape[2:]))
    store("x.h5", logits=z, labels=y, source_counts=[3.0, 2.9, 1.0])
    run("calibrate", "x.h5", "--lambda", "0.01", "--emit", emit, "-o", "wide.h5")
    found, _ = run("calibrate", "x.h5", "--lambda", "0.01", "--emit", emit, "-o", "o.h5", "--dtype", dtype)
    kind = emit.replace("-", "_")
    with h5py.File("wide.h5") as file:
        exact, predicted = file[kind][...], file["predictions"][...]
    source = formats.describe("o.h5")
    assert source.encoding == dtype
    blocks = [one.own().scores for one in source.open().blocks(0, source.n_units, frozenset({"scores"}))]
    got = formats.single.wide(np.concatenate(blocks).reshape(40, 3, *([30] if image else [])), dtype)
    changed = int((got.argmax(1).reshape(-1) != predicted.reshape(-1)).sum())
    assert found["changed"] == changed and (changed > 5 or dtype == "float32")
    np.testing.assert_allclose(got.reshape(exact.shape), exact, rtol=1e-2, atol=1e-6)
    assert "given with --emit predictions" in run(
        "calibrate", "x.h5", "--lambda", "1", "--emit", "predictions", "--dtype", dtype, "-o", "p.h5", code=2
    )


def test_columns_of_others_are_kept(run):
    import pyarrow as pa
    import pyarrow.parquet as pq

    n = 1000
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, 3)).astype("f4")
    columns = {f"logits_{k}": z[:, k] for k in range(3)} | {
        "target": rng.integers(0, 3, n),
        "path": [f"img{i}" for i in range(n)],
        "split": ["val" if i % 3 else "test" for i in range(n)],
        "meta": [{"a": i, "b": [i, i + 1]} for i in range(n)],
        "score_of_another": [None if i % 5 else float(i) for i in range(n)],
    }
    whole = pa.table(columns)
    pq.write_table(whole.slice(0, 333), "a.parquet", row_group_size=70)
    pq.write_table(whole.slice(333), "b.parquet", row_group_size=1000)
    others = ["path", "meta", "score_of_another"]
    common = ("--lambda", "1", "--source-prior", "5,3,2")
    _, err = run("calibrate", "a.parquet", "b.parquet", *common, "-o", "o.parquet", "--threads", "2")
    assert "not carried over" not in err
    found = pq.read_table("o.parquet")
    assert found.select(others).equals(whole.select(others)) and found.num_rows == n
    run("calibrate", "a.parquet", "b.parquet", *common, "--split", "test", "-o", "t.parquet")
    wanted = whole.filter(pa.compute.equal(whole.column("split"), "test"))
    assert pq.read_table("t.parquet").select(others).equals(wanted.select(others))
    run("calibrate", "a.parquet", "b.parquet", *common, "--shard", "2/3", "-o", "s.parquet")
    (part,) = pathlib.Path().glob("s.*.parquet")
    assert pq.read_table(part).select(others).equals(whole.select(others).slice(333, 333))
    _, err = run("calibrate", "a.parquet", *common, "-o", "o.h5")
    assert "not carried over to the output: path, meta, score_of_another" in err
    pq.write_table(whole.slice(0, 333).drop_columns(["path"]), "c.parquet")
    run("calibrate", "a.parquet", "c.parquet", *common, "-o", "less.parquet")
    assert "path" not in pq.read_table("less.parquet").schema.names
    assert run("evaluate", "o.parquet")[0]["n"] == n


@pytest.mark.parametrize("into", ["csv", "tsv", "parquet"])
def test_columns_of_lines_are_kept(run, monkeypatch, into):
    import pandas as pd

    monkeypatch.setattr("unoic_cli.formats.csv.PIECE_BYTES", 4000)
    n = 300
    rng = np.random.default_rng(0)
    names = ["mel", "nv", "df"]
    z = rng.normal(size=(n, 3))
    texts = [["im,1", 'say "x"', "", " 0012", "two\nlines", "1e5", "-"][i % 7] for i in range(n)]
    others = {"image": [f"im{i}" for i in range(n)], "what": texts, "age": [str(i % 90) for i in range(n)]}
    splits = ["val" if i % 3 else "test" for i in range(n)]
    whole = pd.DataFrame(others | {name: z[:, k] for k, name in enumerate(names)} | {"split": splits})
    whole.iloc[:101].to_csv("a.csv", index=False)
    whole.iloc[101:].to_csv("b.csv", index=False)

    def read(path):
        if into == "parquet":
            return pd.read_parquet(path)[list(others)].reset_index(drop=True)
        table = pd.read_csv(path, dtype=str, keep_default_na=False, sep="\t" if into == "tsv" else ",")
        assert list(table.columns)[:3] == list(others) and "predictions" in table.columns
        return table[list(others)]

    common = ("--lambda", "1", "--source-prior", "5,3,2", "--logits-key", ",".join(names), "--kind", "logits")
    _, err = run("calibrate", "a.csv", "b.csv", *common, "-o", f"o.{into}", "--threads", "2")
    assert "not carried over" not in err
    assert read(f"o.{into}").equals(whole[list(others)])
    run("calibrate", "a.csv", "b.csv", *common, "--split", "test", "-o", f"t.{into}")
    assert read(f"t.{into}").equals(whole[whole["split"] == "test"][list(others)].reset_index(drop=True))
    run("calibrate", "a.csv", "b.csv", *common, "--shard", "2/3", "-o", f"s.{into}")
    (part,) = pathlib.Path().glob(f"s.*.{into}")
    assert read(part).equals(whole.iloc[100:200][list(others)].reset_index(drop=True))
    assert run("info", f"o.{into}")[0]["files"][0]["n_samples"] == n


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_decisions_alone_keep_columns_too(run, form):
    import pandas as pd

    z = np.random.default_rng(0).normal(size=(20, 3))
    table = pd.DataFrame({f"logits_{k}": z[:, k] for k in range(3)} | {"image": [f"im{i}" for i in range(20)]})
    if form == "csv":
        table.to_csv("a.csv", index=False)
    else:
        table.to_parquet("a.parquet", index=False)
    run(
        "calibrate", f"a.{form}", "--lambda", "1", "--source-prior", "5,3,2", "--emit", "predictions", "-o", f"o.{form}"
    )
    found = pd.read_csv("o.csv") if form == "csv" else pd.read_parquet("o.parquet")
    assert list(found["image"]) == list(table["image"]) and "predictions" in found.columns
