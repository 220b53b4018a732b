"""Modalities as inputs: files cut and laid out in any way, delta from anywhere, conditions, and whatever is wrong."""

from __future__ import annotations

import itertools
import json
import pathlib

import h5py
import naive
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from said import BESIDE

import unoic_cli
from unoic_cli import cli
from unoic_cli.data.dataset import DataSet
from unoic_cli.fusions import FUSIONS

USAGE, DATA, NO_INPUT, CANNOT_CREATE = 2, 65, 66, 73
COUNTS, OTHER = [6, 3, 1], [1, 2, 5]
OUTPUTS = {"evaluate": [], "search-lambda": [], "calibrate": ["-o", "o.h5"], "fuse": ["-o", "o.h5"]}
COMMANDS = tuple(OUTPUTS)
LAMBDA = {"evaluate": ["--lambda", "1"], "search-lambda": [], "calibrate": ["--lambda", "1"], "fuse": ["--lambda", "1"]}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def no_constant(name):
    raise AssertionError(f"{name} in JSON")


def snapshot():
    """Every file below the folder, with its bytes."""
    return {str(path): path.read_bytes() for path in pathlib.Path().rglob("*") if path.is_file()}


@pytest.fixture
def refuse(run):
    """Run a command that must fail: one line, an exit code, no output, no file; return the line."""

    def runner(code, *args):
        before = snapshot()
        got, out, err = run(*args)
        lines = [line for line in err.splitlines() if not line.startswith(BESIDE)]
        assert (got, out, len(lines)) == (code, "", 1), (args, got, err, out[:200])
        assert lines[0].startswith("unoic: error: ")
        assert ";" in lines[0]
        assert snapshot() == before
        return lines[0].removeprefix("unoic: error: ")

    return runner


@pytest.fixture
def small_spans(monkeypatch):
    """Set what a span should weigh, and up to which size images are read whole."""
    original = DataSet.spans

    def patch(span, whole):
        def spans(self, target_bytes=span, *, whole_samples=False):
            return original(self, target_bytes, whole_samples=whole_samples)

        monkeypatch.setattr(DataSet, "spans", spans)
        monkeypatch.setattr("unoic_cli.data.dataset.SPAN_BYTES", span)
        monkeypatch.setattr("unoic_cli.data.dataset.WHOLE_BYTES", whole)

    return patch


def world(seed=0, n=24, k=3, image=(), n_experts=2):
    """Scores (N, K, ...) of each modality, float32, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(k, size=(n, *image), p=np.array([6.0] + [4.0 / (k - 1)] * (k - 1)) / 10)
    zs = []
    for m in range(n_experts):
        sure = rng.uniform(0.2, 4.0, (n, *([1] * len(image)), 1))  # samples differ in entropy
        z = sure * (rng.normal(size=(n, *image, k)) + np.eye(k)[labels])
        z[..., m % k] += 0.5
        zs.append(np.moveaxis(z, -1, 1).astype("f4"))
    return zs, labels


def write(path, z=None, labels=None, chunks=None, **more):
    """A file as its suffix says: HDF5 planes, HDF5 rows (`.rows.h5`), or Parquet."""
    path = str(path)
    image = () if z is None else z.shape[2:]
    if path.endswith(".parquet"):
        rows = np.ascontiguousarray(np.moveaxis(z, 1, -1)).reshape(-1, z.shape[1])
        columns = {"logits": pa.FixedSizeListArray.from_arrays(rows.ravel(), rows.shape[1])}
        if labels is not None:
            columns["label"] = labels.ravel()
        for name in ("split", "group", "sample_id", "delta"):
            if name in more:
                values = np.asarray(more.pop(name))
                size = len(rows) // len(values) if values.ndim == 1 else 1
                columns[name] = pa.array(np.repeat(values.ravel(), size).tolist())
        metadata = {f"unoic.{name}": json.dumps(list(values)) for name, values in more.items()}
        metadata |= {"unoic.image_shape": json.dumps(list(image))} if image else {}
        pq.write_table(pa.table(columns, metadata=metadata), path, row_group_size=chunks or 1000)
        return path
    with h5py.File(path, "w") as file:
        if z is not None:
            last = bool(image) and ".rows." in path
            values = np.moveaxis(z, 1, -1) if last else z
            file.create_dataset("logits", data=values, chunks=chunks)
            if image:
                file["logits"].attrs["class_axis"] = -1 if last else 1
        if labels is not None:
            file["labels"] = labels
        for name, values in more.items():
            text = isinstance(values, (list, tuple)) and isinstance(values[0], str)
            file[name] = np.array(values, "S") if text else values
    return path


def pair(seed=0, image=(), **more):
    """rgb.h5 (labels, group, split) and depth.h5; what NAME=FILE names them."""
    zs, labels = world(seed, image=image)
    n = len(labels)
    write(
        "rgb.h5",
        zs[0],
        labels,
        source_counts=COUNTS,
        group=["day", "night"] * (n // 2),
        split=["val", "test"] * (n // 2),
    )
    write("depth.h5", zs[1], source_counts=OTHER, **more)
    return ["rgb=rgb.h5", "depth=depth.h5"]


def content(path):
    """What an output holds, as bytes."""
    if path.endswith(".parquet"):
        table = pq.read_table(path)
        return {name: table[name].combine_chunks().to_pylist() for name in table.column_names}
    with h5py.File(path) as file:
        return {name: (str(file[name].dtype), file[name][()].tobytes()) for name in file}


def numbers(result):
    """JSON of a command without the names of files."""
    dropped = {"files", "notes", "calibration", "source_prior", "calibration_output", "provenance"}
    return {key: value for key, value in result.items() if key not in dropped}


def counts_of(result):
    counts = result.overall.counts
    return [counts.hits.tolist(), counts.predicted.tolist(), counts.support.tolist(), result.overall.n_ignored]


# ------------------------------------------------------------------------------------------------
# law 2: cuts, threads, files, layouts


def cut_files(stem, suffix, edges, z, labels, **more):
    """One modality in several files."""
    names = []
    for i, (a, b) in enumerate(itertools.pairwise([0, *edges, len(z)])):
        part = {key: values if key == "source_counts" else values[a:b] for key, values in more.items()}
        names.append(write(f"{stem}{i}{suffix}", z[a:b], None if labels is None else labels[a:b], **part))
    return names


@pytest.mark.parametrize("how", ["noisy-or", "product"])
@pytest.mark.parametrize("image", [(), (5, 7)])
def test_files_and_layouts_change_nothing(answer, how, image):
    zs, labels = world(1, n=30, image=image)
    labels.flat[::11] = 255
    ids = np.arange(30) + 5
    delta = np.random.default_rng(0).uniform(0.3, 1.0, 30)
    rgb = {"sample_id": ids, "source_counts": COUNTS}
    depth = {"sample_id": ids, "source_counts": OTHER, "delta": delta}
    forms = [
        (cut_files("r", ".h5", [], zs[0], labels, **rgb), cut_files("d", ".h5", [], zs[1], None, **depth)),
        (cut_files("ra", ".h5", [], zs[0], labels, **rgb), cut_files("da", ".parquet", [4, 19], zs[1], None, **depth)),
        (
            cut_files("rb", ".rows.h5", [11, 12], zs[0], labels, **rgb),
            cut_files("db", ".h5", [11, 20], zs[1], labels, **depth),
        ),
        (
            cut_files("rc", ".parquet", [29], zs[0], labels, **rgb),
            cut_files("dc", ".rows.h5", [1, 2], zs[1], None, **depth),
        ),
    ]
    results = []
    for i, ((ours, theirs), counts) in enumerate(zip(forms, [(1, 5), (2,), (5,), (1, 2)], strict=True)):
        inputs = [f"rgb={name}" for name in ours] + [f"depth={name}" for name in theirs]
        for threads in counts:
            more = ["--fusion", how, "--threads", threads]
            seen = [
                numbers(answer("evaluate", *inputs, "--confusion", *more, "--lambda", "rgb=0.3,depth=0.8")),
                numbers(answer("evaluate", *inputs, *more, "--delta", "fit")),
                numbers(answer("search-lambda", *inputs, *more, "--folds", 3, "--step", "0.1")),
                numbers(answer("search-lambda", *inputs, *more, "--per-modality", "--step", "0.1")),
            ]
            if threads == counts[-1]:
                answer("fuse", *inputs, *more, "--lambda", 0.7, "-o", f"o{i}.parquet", "--order", "rebalance-first")
            results.append(seen)
    assert all(result == results[0] for result in results[1:])
    first = content("o0.parquet")
    assert all(content(f"o{i}.parquet") == first for i in range(1, len(forms)))


@pytest.mark.parametrize("suffix", [".h5", ".rows.h5", ".parquet"])
@pytest.mark.parametrize("order", ["flatten-first", "rebalance-first"])
def test_images_that_are_cut(answer, small_spans, suffix, order):
    """delta of an image is the same where spans cut it: each fusion with another delta, all pairs in all cases."""
    zs, labels = world(2, n=7, image=(16, 20))
    more = {"chunks": (1, 3, 8, 20)} if suffix == ".h5" else {}
    write(f"rgb{suffix}", zs[0], labels, source_counts=COUNTS, **more)
    for i, (a, b) in enumerate([(0, 3), (3, 7)]):
        write(f"depth{i}.h5", zs[1][a:b], source_counts=OTHER)
    inputs = [f"rgb=rgb{suffix}", "depth=depth0.h5", "depth=depth1.h5"]
    answer("fit-delta", f"rgb=rgb{suffix}", "-o", "s.json")
    results, outputs = [], []
    sizes = [(2 << 20, 16 << 20), (400, 16 << 20), (400, 100), (3000, 8000), (64, 64)]
    deltas = [["fit"], ["rgb=s.json"], ["rgb=s.json", "depth=fit"]]
    turn = (".h5", ".rows.h5", ".parquet").index(suffix) + (order == "flatten-first")
    for i, (span, whole) in enumerate(sizes):
        small_spans(span, whole)
        for j, how in enumerate(("noisy-or", "average", "product")):
            delta, threads = deltas[(j + turn) % 3], (1, 5)[(i + j) % 2]
            given_ = [item for spec in delta for item in ("--delta", spec)]
            given_ += ["--threads", threads, "--fusion", how, "--order", order]
            results.append((how, tuple(delta), numbers(answer("evaluate", *inputs, *given_, "--lambda", 0.6))))
        found = answer("search-lambda", *inputs, *given_, "--folds", 2, "--step", "0.25")
        results.append(("search", (), numbers(found)))
        answer("fuse", *inputs, *given_, "--lambda", 0.6, "-o", f"o{i}.h5")
        outputs.append(content(f"o{i}.h5"))
    for how, delta, seen in results:
        first = next(other for name, spec, other in results if (name, spec) == (how, delta))
        assert seen == first
    assert all(output == outputs[0] for output in outputs[1:])


def test_images_of_one_pixel_beside_larger_ones(small_spans):
    """Whether spans cut images is asked of every file."""
    parts = [world(s, n=4, image=shape) for s, shape in enumerate([(1, 1), (16, 20)])]
    given_ = {
        name: [unoic_cli.from_arrays(zs[m], labels, name=f"{name}{i}") for i, (zs, labels) in enumerate(parts)]
        for m, name in enumerate(("rgb", "depth"))
    }
    whole = counts_of(unoic_cli.evaluate(given_, delta="fit"))
    small_spans(300, 100)
    assert counts_of(unoic_cli.evaluate(given_, delta="fit")) == whole


@pytest.mark.parametrize("how", ["noisy-or", "average", "max"])
def test_files_of_scores_that_swallow_lambda(how):
    """FAULT: beside scores of 1e17, float64 loses lambda * s where float32 keeps it; which is used depends on the cut.

    Only where delta differs from image to image with rebalance-first are decisions made in float64 throughout.
    """
    z, labels = np.full((4, 2, 2, 2), 1e17, "f4"), np.zeros((4, 2, 2), int)
    delta = np.array([0.5, 0.6, 0.7, 0.8])
    seen = []
    for cut in ([slice(0, 4)], [slice(i, i + 1) for i in range(4)]):
        given_ = {
            name: [
                unoic_cli.from_arrays(
                    z[rows], labels[rows], delta=delta[rows], name=f"{name}{rows.start}", class_axis=1
                )
                for rows in cut
            ]
            for name in ("rgb", "depth")
        }
        more = {"lam": 1.0, "source_prior": [0.9, 0.1], "order": "rebalance-first", "fusion": how}
        seen.append(counts_of(unoic_cli.evaluate(given_, **more)))
    assert seen[0] == seen[1]


def test_the_split_of_one_modality_serves_all(answer):
    inputs = pair()
    zs, labels = world()
    rows = np.arange(24) % 2 == 0
    direct = unoic_cli.evaluate({"rgb": zs[0][rows], "depth": zs[1][rows]}, labels[rows])
    seen = answer("evaluate", *inputs, "--split", "val")
    assert [row["predicted"] for row in seen["per_class"]] == direct.overall.counts.predicted.tolist()
    answer("fuse", *inputs, "--split", "val", "-o", "o.h5")
    assert answer("evaluate", "o.h5")["per_class"] == seen["per_class"]


def test_a_fit_sees_the_split_alone():
    """The split of the reference decides for a modality without one, too."""
    zs, labels = world()
    rows = np.arange(24) % 2 == 0
    inputs = pair()
    options = {"delta": "fit", "lam": 0.5, "source_prior": "mean-posterior"}
    direct = unoic_cli.evaluate({"rgb": zs[0][rows], "depth": zs[1][rows]}, labels[rows], **options)
    seen = unoic_cli.evaluate(inputs, split="val", **options)
    assert seen.details["modalities"] == direct.details["modalities"]
    assert counts_of(seen) == counts_of(direct)


# ------------------------------------------------------------------------------------------------
# delta


def naive_delta(z, power=1.0, mu=None, sigma=None):
    """Entropies of samples (mean over pixels), their statistics, and delta."""
    H = naive.entropy(naive.softmax(np.moveaxis(z, 1, -1)))
    H = H.reshape(len(z), -1).mean(1)
    mu, sigma = H.mean() if mu is None else mu, H.std() if sigma is None else sigma
    return mu, sigma, naive.entropy_delta(H, mu, sigma, power)


@pytest.mark.parametrize("power", [None, 2.5, 0.0])
@pytest.mark.parametrize("how", FUSIONS)
def test_delta_from_statistics(answer, how, power):
    image = ((), (4, 5))[([*FUSIONS].index(how) + (power is None)) % 2]
    zs, labels = world(3, n=40, image=image)
    factors = [naive_delta(z, 1.0 if power is None else power)[2] for z in zs]
    names = ["rgb", "depth"]
    for m, name in enumerate(names):
        write(f"{name}.h5", zs[m], labels, source_counts=COUNTS)
        write(f"{name}.stored.h5", zs[m], labels, source_counts=COUNTS, delta=factors[m])
        answer("fit-delta", f"{name}={name}.h5", "-o", f"{name}.json", *(["--delta-power", power] if power else []))
        np.save(f"{name}.npy", factors[m])
        pixels = np.broadcast_to(factors[m].reshape(-1, *([1] * len(image))), labels.shape)
        write(f"{name}.d.h5", delta=pixels, **{"deep/factors": factors[m].astype("f8")})
    inputs = [f"{name}={name}.h5" for name in names]
    more = ["--fusion", how, "--lambda", "rgb=0.4,depth=0.9"]
    stored = answer("evaluate", *[f"{name}={name}.stored.h5" for name in names], *more)
    pick = [] if power is None else ["--delta-power", power]
    specs = [
        (["--delta", "fit", *pick]),
        (["--delta", "rgb=rgb.json", "--delta", "depth=depth.json", *pick]),
        (["--delta", "rgb=rgb.npy", "--delta", "depth=depth.npy"]),
        (["--delta", "rgb=rgb.d.h5", "--delta", "depth=depth.d.h5::deep/factors"]),
        (["--delta", "rgb=rgb.d.h5::delta", "--delta", "depth=fit", *pick]),
    ]
    for spec in specs:
        assert answer("evaluate", *inputs, *more, *spec)["per_class"] == stored["per_class"], spec
    plain = answer("evaluate", *inputs, *more)
    ignored = answer("evaluate", *[f"{name}={name}.stored.h5" for name in names], *more, "--delta", "none")
    assert plain["per_class"] == ignored["per_class"]
    if power == 0:
        assert plain["per_class"] == stored["per_class"]
    seen = answer("evaluate", *inputs, *more, "--delta", "fit")["modalities"]
    for m, name in enumerate(names):
        mu, sigma, _ = naive_delta(zs[m])
        assert seen[name]["delta"] == {
            "mu": pytest.approx(mu, abs=1e-9), "sigma": pytest.approx(sigma, abs=1e-9), "power": 1.0
        }  # fmt: skip
    fitted = answer("search-lambda", *inputs, "--fusion", how, "--delta", "fit", "--step", "0.1", "-o", "c.json")
    given_ = answer(
        "search-lambda", *inputs, "--fusion", how, "--delta", "rgb=rgb.json", "--delta", "depth=depth.json",
        "--step", "0.1", *(["--delta-power", 1] if power else []),
    )  # fmt: skip
    assert fitted["curve"] == given_["curve"]
    if power is None:  # statistics travel in the calibration
        again = answer("evaluate", *inputs, "--calibration", "c.json")
        assert again["macc"] == fitted["best"]["macc"]


def test_factors_of_a_split(answer):
    zs, labels = world(4)
    inputs = pair(4)
    factors = np.random.default_rng(0).uniform(0.1, 1.5, 24)
    np.save("f.npy", factors)
    rows = np.arange(24) % 2 == 1
    seen = answer("evaluate", *inputs, "--split", "test", "--delta", "depth=f.npy", "--lambda", 1)
    depth = unoic_cli.from_arrays(zs[1][rows], delta=factors[rows], source_counts=OTHER)
    rgb = unoic_cli.from_arrays(zs[0][rows], labels[rows], source_counts=COUNTS)
    direct = unoic_cli.evaluate({"rgb": rgb, "depth": depth}, lam=1)
    assert [row["predicted"] for row in seen["per_class"]] == direct.overall.counts.predicted.tolist()


def test_a_file_of_factors_is_let_go_of(answer):
    """An HDF5 file of factors is closed with the command, not when garbage is collected."""
    inputs = pair()
    for value in (0.5, 0.7):
        write("f.h5", delta=np.full(24, value))
        answer("evaluate", *inputs, "--delta", "f.h5")
    unoic_cli.evaluate(inputs, delta={"rgb": "f.h5"})
    write("f.h5", delta=np.ones(24))
    with pytest.raises(unoic_cli.UnoicError):
        unoic_cli.evaluate(inputs, delta={"rgb": "f.h5::nothing"})
    write("f.h5", delta=-np.ones(24))
    with pytest.raises(unoic_cli.UnoicError):
        unoic_cli.evaluate(inputs, delta={"rgb": "f.h5"})
    write("f.h5", delta=np.ones(24))


def test_factors_of_several_sources_of_one_name():
    """Arrays are all called <array>: factors are aligned by position."""
    zs, labels = world(5, n=60)
    factors = np.random.default_rng(0).choice([0.0, 0.2, 5.0], 60)
    np.save("f.npy", factors)
    more = {"delta": {"rgb": "f.npy"}, "lam": 1.0, "source_prior": COUNTS}
    depth = unoic_cli.from_arrays(zs[1], name="depth")
    one = unoic_cli.from_arrays(zs[0], labels, delta=factors)
    cut = [unoic_cli.from_arrays(zs[0][rows], labels[rows]) for rows in (slice(0, 20), slice(20, 60))]
    stored = unoic_cli.evaluate({"rgb": one, "depth": depth}, lam=1.0, source_prior=COUNTS)
    assert counts_of(unoic_cli.evaluate({"rgb": cut, "depth": depth}, **more)) == counts_of(stored)


# ------------------------------------------------------------------------------------------------
# conditions


@pytest.mark.parametrize("how", ["noisy-or", "product"])
def test_each_file_is_a_condition(answer, how):
    names = ["fog", "rain", "sun"]
    for i, name in enumerate(names):
        zs, labels = world(i, n=20 + i)
        write(f"rgb.{name}.h5", zs[0], labels, source_counts=COUNTS)
        write(f"depth.{name}.h5", zs[1], source_counts=OTHER)
    inputs = [f"{m}={m}.{name}.h5" for m in ("rgb", "depth") for name in names]
    more = ["--fusion", how]
    seen = answer("evaluate", *inputs, *more, "--by", "file", "--lambda", 0.8)
    assert [group["group"] for group in seen["groups"]] == [f"rgb.{name} + depth.{name}" for name in names]
    for group, name in zip(seen["groups"], names, strict=True):
        alone = answer("evaluate", f"rgb=rgb.{name}.h5", f"depth=depth.{name}.h5", *more, "--lambda", 0.8)
        assert all(group[key] == alone[key] for key in ("n", "n_ignored", "acc", "macc", "miou", "f1", "per_class"))
    found = answer("search-lambda", *inputs, *more, "--by", "file", "--range", "0:2:0.1")
    plain = answer("search-lambda", *inputs, *more, "--range", "0:2:0.1")
    assert (found["lambda"], found["curve"]) == (plain["lambda"], plain["curve"])
    for name in names:
        own = found["groups"][f"rgb.{name} + depth.{name}"]
        alone = answer("search-lambda", f"rgb=rgb.{name}.h5", f"depth=depth.{name}.h5", *more, "--range", "0:2:0.1")
        assert own["own_lambda"] == alone["lambda"]
        assert own["own_best"] == {key: value for key, value in alone["best"].items() if key != "lambda"}
        assert own["baseline"] == {key: value for key, value in alone["baseline"].items() if key != "lambda"}
        index = round(found["lambda"] * 10)
        assert all(own["best"][key] == alone["curve"][key][index] for key in ("acc", "macc", "miou", "f1"))


def test_each_group_is_a_condition(answer):
    inputs = pair()
    zs, labels = world()
    seen = answer("evaluate", *inputs, "--by", "group", "--lambda", 0.8, "--split", "val")
    assert [group["group"] for group in seen["groups"]] == ["day"]
    seen = answer("evaluate", *inputs, "--by", "group", "--lambda", 0.8)
    found = answer("search-lambda", *inputs, "--by", "group", "--range", "0:2:0.1")
    for i, name in enumerate(("day", "night")):
        rgb = unoic_cli.from_arrays(zs[0][i::2], labels[i::2], source_counts=COUNTS)
        depth = unoic_cli.from_arrays(zs[1][i::2], source_counts=OTHER)
        alone = unoic_cli.evaluate({"rgb": rgb, "depth": depth}, lam=0.8)
        assert seen["groups"][i]["per_class"] == alone.overall.per_class(None)
        searched = unoic_cli.search_lambda({"rgb": rgb, "depth": depth}, range="0:2:0.1")
        assert found["groups"][name]["own_lambda"] == searched.lam


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("form", ["table", "tsv", "json"])
def test_every_form(run, command, form):
    inputs = pair()
    more = {"evaluate": ["--by", "group"], "search-lambda": ["--by", "group", "--per-modality"]}.get(command, [])
    turn = COMMANDS.index(command) + ("table", "tsv", "json").index(form)
    for how in [*FUSIONS][turn % 3 :: 3]:
        given_ = [*OUTPUTS[command], *more, "--fusion", how, "--delta", "fit", "--format", form]
        given_ += ["--force"] if OUTPUTS[command] else []
        code, out, err = run(command, *inputs, *given_)
        assert (code, bool(out)) == (0, True), err
        if form == "json":
            json.loads(out, parse_constant=no_constant)


# ------------------------------------------------------------------------------------------------
# bad data


def both(command):
    """A command with what it needs to run on pair()."""
    return [command, "rgb=rgb.h5", "depth=depth.h5", *OUTPUTS[command]]


@pytest.mark.parametrize("how", FUSIONS)
@pytest.mark.parametrize("command", COMMANDS)
def test_a_nan_names_its_file_and_row(refuse, command, how):
    zs, _ = world()
    for value in (np.nan, np.inf):
        pair()
        bad = zs[1].copy()
        bad[17, 2] = value
        bad[20, 0] = value
        write("depth.h5", bad, source_counts=OTHER)
        line = refuse(DATA, *both(command), "--fusion", how, *LAMBDA[command])
        assert line.startswith(f"depth.h5:logits: {value} at row 17, class 2;"), line


@pytest.mark.parametrize("command", COMMANDS)
def test_modalities_that_do_not_go_together(refuse, command):
    zs, labels = world()
    pair()
    write("depth.h5", world(k=4)[0][1])
    assert refuse(DATA, *both(command)).startswith("depth.h5: 4 classes; expected 3, as in rgb.h5")
    write("depth.h5", zs[1][:23])
    assert refuse(DATA, *both(command)).startswith("depth.h5: 23 samples; expected 24, as in rgb.h5")
    other = labels.copy()
    other[[13, 19]] = (other[[13, 19]] + 1) % 3
    write("depth.h5", zs[1], other)
    line = refuse(DATA, *both(command))
    assert line.startswith(
        f"depth.h5:labels: label {other[13]} at row 13; expected {labels[13]}, as in rgb.h5 (row 13)"
    )
    write("depth.h5", zs[1], source_counts=[1, 2])
    assert "shape" in refuse(DATA, *both(command))
    write("depth.h5", world(image=(2, 2))[0][1])
    assert "images of shape (2, 2)" in refuse(DATA, *both(command))
    write("rgb.h5", zs[0], labels, class_names=["a", "b", "c"])
    write("depth.h5", zs[1], class_names=["a", "c", "b"])
    assert "the same class names in another order" in refuse(DATA, *both(command))


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("texts", [False, True])
def test_rows_of_other_samples(refuse, command, texts):
    zs, labels = world()
    ids = np.arange(24) * 3
    others = ids.copy()
    others[[11, 12]] = others[[12, 11]]
    for value, array in (("rgb.h5", ids), ("depth.h5", others)):
        names = [f"s{i}" for i in array.tolist()] if texts else array
        write(value, zs[value != "rgb.h5"], labels if value == "rgb.h5" else None, sample_id=names)
    line = refuse(DATA, *both(command))
    found, expected = ("s36", "s33") if texts else ("36", "33")
    assert line.startswith(f"depth.h5:sample_id: {found} at sample 11; expected {expected}, as in rgb.h5"), line


def test_sample_ids_in_files_that_are_cut(refuse):
    zs, labels = world()
    ids = np.arange(24)
    write("rgb.h5", zs[0], labels, sample_id=ids)
    write("d0.h5", zs[1][:10], sample_id=ids[:10])
    write("d1.h5", zs[1][10:], sample_id=[*range(10, 20), 99, 21, 22, 23])
    line = refuse(DATA, "evaluate", "rgb=rgb.h5", "depth=d0.h5", "depth=d1.h5")
    assert line.startswith("d1.h5:sample_id: 99 at sample 10; expected 20, as in rgb.h5"), line
    assert "99 at sample 10" in refuse(DATA, "evaluate", "rgb=rgb.h5", "depth=d0.h5", "depth=d1.h5", "--threads", 1)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_stored_delta_that_may_not_be(refuse, command):
    for value in (-0.5, np.nan, np.inf):
        factors = np.ones(24)
        factors[9] = value
        pair(delta=factors)
        line = refuse(DATA, *both(command), *LAMBDA[command])
        assert line.startswith(f"depth.h5:delta: {value} at row 9; expected finite factors"), line
    pair(delta=np.ones(23))
    assert "shape" in refuse(DATA, *both(command))


@pytest.mark.parametrize("command", COMMANDS)
def test_files_of_factors(refuse, command):
    pair()
    good = np.ones(24)
    bad = (
        (np.ones(23), DATA, "(23,)"),
        (np.ones((24, 2)), DATA, "(24, 2)"),
        (good * -1, DATA, "-1.0 at row 0"),
        (np.where(np.arange(24) == 6, np.nan, good), DATA, "nan at row 6"),
        (np.where(np.arange(24) == 6, np.inf, good), DATA, "inf at row 6"),
        (good.astype(complex), DATA, "complex128"),
        (good.astype(bool), DATA, "bool"),
        (np.float64(-1), DATA, "-1.0 at the scalar"),
    )
    for i, (values, code, found) in enumerate(bad):
        np.save(f"f{i}.npy", values)
        write(f"f{i}.h5", **{"delta": values, "deep/x": values})
        names = [f"f{i}.npy", f"f{i}.h5", f"f{i}.h5::deep/x"]
        for name in names:
            line = refuse(code, *both(command), *LAMBDA[command], "--delta", f"depth={name}")
            assert found in line and line.startswith(name), line
    for name, code, found in (
        ("missing.npy", NO_INPUT, "no such file"),
        ("missing.h5", NO_INPUT, "no such file"),
        ("missing.json", NO_INPUT, "no such file"),
        (".", NO_INPUT, "a folder"),
        ("f0.h5::nothing", DATA, "no such dataset"),
        ("f0.h5::deep", DATA, "no such dataset"),
        ("x.parquet", DATA, "parquet"),
        ("text.txt", DATA, "unknown first bytes"),
    ):
        pathlib.Path("text.txt").write_text("hello")
        write("x.parquet", world()[0][0])
        assert found in refuse(code, *both(command), *LAMBDA[command], "--delta", f"depth={name}")


@pytest.mark.parametrize("damage", ["cut", "header", "objects", "empty"])
def test_npy_files_that_are_damaged(refuse, damage):
    pair()
    np.save("f.npy", np.ones(24))
    whole = pathlib.Path("f.npy").read_bytes()
    if damage == "objects":
        np.save("f.npy", np.array([None] * 24), allow_pickle=True)
    else:
        pathlib.Path("f.npy").write_bytes(whole[: {"cut": 200, "header": 20, "empty": 8}[damage]])
    assert refuse(DATA, *both("evaluate"), "--delta", "depth=f.npy").startswith("f.npy: ")


def test_h5_files_of_factors_that_are_damaged(refuse):
    pair()
    write("f.h5", delta=np.ones(24))
    whole = pathlib.Path("f.h5").read_bytes()
    for size in (9, 100, 700, len(whole) - 10):
        pathlib.Path("f.h5").write_bytes(whole[:size])
        code, line = None, None
        for expected in (DATA, NO_INPUT):
            try:
                line, code = refuse(expected, *both("evaluate"), "--delta", "depth=f.h5"), expected
            except AssertionError:
                continue
        assert code is not None, size
        assert line.startswith("f.h5")


@pytest.mark.parametrize("command", COMMANDS)
def test_statistics_of_something_else(answer, refuse, command):
    pair()
    answer("fit-delta", "rgb=rgb.h5", "-o", "rgb.json")
    line = refuse(DATA, *both(command), *LAMBDA[command], "--delta", "depth=rgb.json")
    assert line.startswith("rgb.json: delta statistics of the modality rgb; expected those of depth"), line
    refuse(DATA, *both(command), *LAMBDA[command], "--delta", "rgb.json")
    for measure in ("mutual-information", "predictive-entropy"):
        statistics = json.loads(pathlib.Path("rgb.json").read_text()) | {"measure": measure, "modality": None}
        pathlib.Path("m.json").write_text(json.dumps(statistics))
        line = refuse(DATA, *both(command), *LAMBDA[command], "--delta", "depth=m.json")
        assert line.startswith(f"m.json: statistics of the {measure} of stochastic passes"), line
    for text in ("{", "{}", "[]", '{"format": "unoic delta statistics"}'):
        pathlib.Path("m.json").write_text(text)
        assert refuse(DATA, *both(command), *LAMBDA[command], "--delta", "m.json").startswith("m.json: ")


def test_an_input_of_predictions(answer, refuse):
    inputs = pair()
    answer("calibrate", "rgb.h5", "--lambda", "1", "--emit", "predictions", "-o", "p.h5")
    for command in COMMANDS:
        more = ["-o", "o.h5"] if OUTPUTS[command] else []
        assert refuse(DATA, command, inputs[0], "depth=p.h5", *more).startswith("p.h5: predictions without scores")
        assert refuse(DATA, command, "a=p.h5", "b=depth.h5", *more).startswith("p.h5: predictions without scores")


# ------------------------------------------------------------------------------------------------
# bad calls

USAGE_ERRORS = [
    # names
    ("METHOD LAM --lambda lidar=1", "--lambda: the unknown modality lidar; expected depth, rgb"),
    ("METHOD LAM --lambda rgb=1,lidar=1", "--lambda: the unknown modality lidar"),
    ("METHOD LAM --lambda rgb=1", "--lambda: no lambda for depth"),
    ("METHOD LAM --lambda rgb=1,rgb=2", "--lambda: rgb twice"),
    ("METHOD LAM --lambda rgb=1,depth=2,rgb=1", "--lambda: rgb twice"),
    ("METHOD LAM --lambda rgb=1,2", "--lambda: '2'"),
    ("METHOD LAM --lambda 1,rgb=2", "--lambda: "),
    ("METHOD LAM --lambda rgb=one,depth=1", "--lambda: 'one'"),
    ("METHOD LAM --lambda rgb=nan,depth=1", "--lambda: nan"),
    ("METHOD LAM --lambda rgb=,depth=1", "--lambda: "),
    ("METHOD LAM --lambda 0.3,0.6", "--lambda: '0.3,0.6'"),
    ("METHOD --delta lidar=fit", "--delta: the unknown modality lidar"),
    ("METHOD --delta fit --delta rgb=none", "--delta: "),
    ("METHOD --delta rgb=fit --delta none", "--delta: "),
    ("METHOD --delta rgb=fit --delta rgb=none", "--delta: rgb twice"),
    ("METHOD 1LAM --source-prior lidar=uniform", "--source-prior: the unknown modality lidar"),
    ("METHOD 1LAM --source-prior rgb=uniform --source-prior rgb=labels", "--source-prior: rgb twice"),
    ("METHOD 1LAM --source-prior rgb=uniform --source-prior labels", "--source-prior: "),
    ("METHOD --temperature lidar=2", "--temperature: the unknown modality lidar"),
    ("METHOD --temperature rgb=2,rgb=3", "--temperature: rgb twice"),
    ("METHOD --temperature rgb=0", "--temperature: 0"),
    ("METHOD --temperature rgb=-1", "--temperature: -1"),
    ("METHOD --temperature rgb=nan", "--temperature: nan"),
    ("METHOD --temperature rgb=x", "--temperature: 'x'"),
    ("METHOD --fusion average --weights lidar=1,rgb=2", "--weights: the unknown modality lidar"),
    ("METHOD --fusion average --weights rgb=1", "--weights: no weight for depth"),
    ("METHOD --fusion average --weights rgb=1,rgb=1", "--weights: rgb twice"),
    ("METHOD --fusion average --weights 1", "--weights: 1 weights; expected 2"),
    ("METHOD --fusion average --weights 1,2,3", "--weights: 3 weights; expected 2"),
    ("METHOD --fusion average --weights 0,0", "--weights: 0, 0"),
    ("METHOD --fusion average --weights=-1,2", "--weights: -1, 2"),
    ("METHOD --fusion log-linear --weights nan,2", "--weights: nan, 2"),
    ("METHOD --fusion log-linear --weights inf,2", "--weights: inf, 2"),
    ("METHOD --fusion log-linear --weights a,2", "--weights: 'a'"),
    ("METHOD --fusion log-linear --weights=", "--weights: "),
    ("METHOD --weights 1,2", "--weights: weights for noisy-or"),
    ("METHOD --fusion max --weights 1,2", "--weights: weights for max"),
    ("METHOD --fusion product --weights 1,2", "--weights: weights for product"),
    # ways
    ("METHOD --fusion or", "--fusion: 'or'; expected one of noisy-or"),
    ("METHOD --fusion=", "--fusion: ''"),
    ("METHOD --delta fit --order first", "--order: 'first'"),
    ("METHOD --order flatten-first", "--order: --order without delta"),
    ("METHOD --delta none --order rebalance-first", "--order: --order without delta"),
    ("METHOD --delta-power 2", "--delta-power: --delta-power without delta statistics"),
    ("METHOD --delta none --delta-power 2", "--delta-power: --delta-power without delta statistics"),
    ("METHOD --delta fit --delta-power -1", "--delta-power: -1"),
    ("METHOD --delta fit --delta-power nan", "--delta-power: nan"),
    ("evaluate PAIR --by nonsense", "--by: 'nonsense'"),
    ("search-lambda PAIR --by nonsense", "--by: 'nonsense'"),
    ("search-lambda PAIR --by file --folds 3", "--by: --by beside --folds"),
    ("search-lambda PAIR --method path", "--method: path with noisy-or"),
    ("search-lambda PAIR --method path --fusion average", "--method: path with average"),
    ("search-lambda PAIR --method path --fusion product --delta fit --order rebalance-first", "--method: path with"),
    ("search-lambda PAIR --metric top2", "--metric: top2 with noisy-or"),
    ("search-lambda PAIR --metric acc --subject-to top2>=0.1", "--metric: top2 with noisy-or"),
    ("search-lambda PAIR --force", "--force: --force without --output"),
    ("fuse PAIR --source-prior uniform -o o.h5", "--source-prior: --source-prior without --lambda"),
    ("fuse PAIR --target-prior uniform -o o.h5", "--target-prior: --target-prior without --lambda"),
    ("fuse PAIR --unseen floor -o o.h5", "--unseen: --unseen without --lambda"),
    ("evaluate PAIR --target-prior uniform", "--target-prior: --target-prior without --lambda"),
    # inputs
    ("METHOD depth.h5", "depth.h5: a file without a name beside named ones"),
    ("METHOD depth=rgb.h5", "rgb.h5: the same data as rgb.h5"),
    ("fuse rgb.h5 -o o.h5", "rgb.h5: inputs without names"),
    ("search-lambda rgb.h5 --per-modality", "--per-modality: one modality"),
    ("search-lambda rgb=rgb.h5 --per-modality", "--per-modality: one modality"),
    ("search-lambda rgb.h5 --fusion average", "--fusion: one data set, and nothing to fuse"),
    ("evaluate rgb.h5 --lambda 1 --fusion average", "--fusion: one data set, and nothing to fuse"),
    ("search-lambda rgb.h5 --weights 1", "--weights: weights for one modality"),
    ("search-lambda rgb=rgb.h5 --fusion average --weights 1", "--weights: weights for one modality"),
    ("search-lambda rgb=rgb.h5 --fusion nonsense", "--fusion: 'nonsense'"),
    ("search-lambda rgb.h5 --temperature rgb=2", "--temperature: the unknown modality rgb; expected inputs like"),
    ("search-lambda rgb.h5 --source-prior rgb=uniform", "--source-prior: the unknown modality rgb"),
]


@pytest.mark.parametrize("line, found", USAGE_ERRORS)
def test_usage(refuse, line, found):
    pair()
    words = line.split(" ")
    for command in COMMANDS if words[0] == "METHOD" else words[:1]:
        rest = words[1:]
        if "LAM" in rest and command == "search-lambda":
            continue  # it has no --lambda
        given_ = []
        for word in rest:
            given_ += {"PAIR": ["rgb=rgb.h5", "depth=depth.h5"], "LAM": [], "1LAM": LAMBDA[command]}.get(word, [word])
        named = [] if "PAIR" in rest or words[0] != "METHOD" else ["rgb=rgb.h5"]
        if named and not (given_ and given_[0].startswith("depth")):
            named.append("depth=depth.h5")
        more = OUTPUTS[command] if words[0] == "METHOD" else []
        assert refuse(USAGE, command, *named, *given_, *more).startswith(found)


def test_weights_whose_sum_overflows(run):
    inputs = pair()
    code, _, err = run("evaluate", *inputs, "--fusion", "average", "--weights", "1e308,1e308")
    assert code in (0, USAGE), err


@pytest.mark.parametrize("inputs", [{}, {"rgb": []}])
def test_a_mapping_of_nothing(inputs):
    with pytest.raises(unoic_cli.UnoicError):
        unoic_cli.evaluate(inputs)


@pytest.mark.parametrize("weights", [3.0, True])
def test_weights_that_are_one_number(weights):
    zs, labels = world()
    with pytest.raises(unoic_cli.UnoicError):
        unoic_cli.evaluate({"rgb": zs[0], "depth": zs[1]}, labels, fusion="average", weights=weights)


def test_commands_for_one_modality(refuse):
    inputs = pair()
    refuse(USAGE, "fit-delta", *inputs)
    refuse(USAGE, "fit-temperature", *inputs)


def test_files_that_do_not_correspond(refuse):
    zs, labels = world()
    for i, (a, b) in enumerate([(0, 10), (10, 24)]):
        write(f"r{i}.h5", zs[0][a:b], labels[a:b])
    for i, (a, b) in enumerate([(0, 11), (11, 24)]):
        write(f"d{i}.h5", zs[1][a:b])
    write("d.h5", zs[1])
    for command in ("evaluate", "search-lambda"):
        rgb = [command, "rgb=r0.h5", "rgb=r1.h5", "--by", "file"]
        assert refuse(USAGE, *rgb, "depth=d0.h5", "depth=d1.h5").startswith("--by: 2 files of 11, 13 samples for depth")
        assert refuse(USAGE, *rgb, "depth=d.h5").startswith("--by: 1 files of 24 samples for depth")
        assert "no group" in refuse(DATA, *rgb[:-1], "group", "depth=d.h5")


def test_the_output_is_an_input(refuse, answer):
    inputs = pair()
    np.save("f.npy", np.ones(24))
    write("f.h5", delta=np.ones(24))
    answer("fit-delta", "rgb=rgb.h5", "-o", "s.json")
    answer("search-lambda", *inputs, "-o", "c.json", "--curve", "c.tsv")
    for name in ("rgb.h5", "depth.h5", "f.h5"):
        for command in ("fuse", "calibrate"):
            given_ = ["--delta", "rgb=f.h5", "--lambda", "1"]
            assert "also an input" in refuse(CANNOT_CREATE, command, *inputs, *given_, "-o", name, "--force")
    assert "also an input" in refuse(
        CANNOT_CREATE, "search-lambda", *inputs, "--delta", "rgb=s.json", "-o", "s.json", "--force"
    )
    assert "the file exists" in refuse(CANNOT_CREATE, "fuse", *inputs, "-o", "f.h5")
    assert "the file exists" in refuse(CANNOT_CREATE, "search-lambda", *inputs, "-o", "c.json")
    assert "two names" in refuse(USAGE, "search-lambda", *inputs, "-o", "x", "--curve", "./x")


# ------------------------------------------------------------------------------------------------
# calibrations of modalities


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The text of a calibration of pair() with weights and delta statistics."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("searched"))
        options = {"fusion": "average", "weights": {"rgb": 3, "depth": 1}, "delta": {"depth": "fit"}}
        unoic_cli.search_lambda(pair(), per_modality=True, **options, output="c.json")
        return pathlib.Path("c.json").read_text()


@pytest.fixture
def calibration(searched):
    """pair(), and a calibration of it in c.json."""
    pair()
    pathlib.Path("c.json").write_text(searched)
    return json.loads(searched)


def test_a_calibration_for_other_inputs(refuse, calibration):
    pair()
    for command in ("evaluate", "calibrate", "fuse", "search-lambda"):
        given_ = ["--calibration", "c.json", *OUTPUTS[command]]
        assert refuse(USAGE, command, "rgb=rgb.h5", *given_).startswith("c.json: modalities rgb; expected depth=FILE")
        assert "modalities a, b" in refuse(USAGE, command, "a=rgb.h5", "b=depth.h5", *given_)
        refuse(USAGE, command, "rgb=rgb.h5", "lidar=depth.h5", *given_)
        if command != "fuse":
            assert refuse(USAGE, command, "rgb.h5", *given_).startswith("c.json: inputs without names")
        for more in (
            "--fusion average", "--weights 1,1", "--order flatten-first", "--delta fit", "--delta none",
            "--delta-power 2", "--temperature 2", "--source-prior uniform",
        ):  # fmt: skip
            assert "beside --calibration" in refuse(USAGE, *both(command), "--calibration", "c.json", *more.split())
        if command != "search-lambda":
            refuse(USAGE, *both(command), "--calibration", "c.json", "--lambda", 1)


DAMAGE = {
    "no modalities": lambda c: c | {"modalities": []},
    "modalities of the wrong type": lambda c: c | {"modalities": {"a": 1}},
    "one of two": lambda c: c | {"modalities": c["modalities"][:1]},
    "the same name twice": lambda c: c | {"modalities": [c["modalities"][0]] * 2},
    "no name": lambda c: c | {"modalities": [c["modalities"][0] | {"name": None}, c["modalities"][1]]},
    "a name of the wrong type": lambda c: c | {"modalities": [c["modalities"][0] | {"name": 3}, c["modalities"][1]]},
    "one weight": lambda c: c | {"weights": [1.0]},
    "three weights": lambda c: c | {"weights": [1.0, 1.0, 1.0]},
    "a NaN weight": lambda c: c | {"weights": [float("nan"), 1.0]},
    "weights of the wrong type": lambda c: c | {"weights": ["a", "b"]},
    "no fusion": lambda c: c | {"fusion": None},
    "a fusion of the wrong type": lambda c: c | {"fusion": 3},
    "another order": lambda c: c | {"order": "first"},
    "a share that is NaN": lambda c: (
        c | {"modalities": [c["modalities"][0] | {"share": float("nan")}, c["modalities"][1]]}
    ),
    "no temperature": lambda c: c | {"modalities": [c["modalities"][0] | {"temperature": 0}, c["modalities"][1]]},
    "delta of the wrong type": lambda c: c | {"modalities": [c["modalities"][0] | {"delta": 3}, c["modalities"][1]]},
    "a negative mu": lambda c: (
        c
        | {"modalities": [c["modalities"][0] | {"delta": c["modalities"][0]["delta"] | {"mu": -1}}, c["modalities"][1]]}
    ),
    "another number of classes": lambda c: (
        c | {"modalities": [c["modalities"][0] | {"source_prior": {"values": [0.5, 0.5]}}, c["modalities"][1]]}
    ),
}

FAULTY = {  # what parses, and makes no sense
    "an unknown fusion": lambda c: c | {"fusion": "or"},
    "a negative weight": lambda c: c | {"weights": [-1.0, 2.0]},
    "weights of zero": lambda c: c | {"weights": [0.0, 0.0]},
    "weights for a fusion that has none": lambda c: c | {"fusion": "noisy-or"},
    "statistics of another measure": lambda c: (
        c
        | {
            "modalities": [
                c["modalities"][0] | {"delta": c["modalities"][0]["delta"] | {"measure": "mutual-information"}},
                c["modalities"][1],
            ]
        }
    ),
}


@pytest.mark.parametrize("kind", [*DAMAGE, *FAULTY])
def test_a_damaged_calibration(refuse, calibration, kind):
    pathlib.Path("c.json").write_text(json.dumps((DAMAGE | FAULTY)[kind](calibration)))
    for command in COMMANDS:
        assert refuse(DATA, *both(command), "--calibration", "c.json").startswith("c.json: ")


def test_modalities_of_a_calibration_in_another_order(answer, calibration):
    """They are taken by name: each modality gets its own prior, delta and weight."""
    seen = answer("evaluate", "rgb=rgb.h5", "depth=depth.h5", "--calibration", "c.json")
    turned = calibration | {"modalities": calibration["modalities"][::-1], "weights": calibration["weights"][::-1]}
    pathlib.Path("c.json").write_text(json.dumps(turned))
    again = answer("evaluate", "rgb=rgb.h5", "depth=depth.h5", "--calibration", "c.json")
    assert again["per_class"] == seen["per_class"]


@pytest.mark.parametrize("spec", ["fit", "none", "rgb=fit"])
def test_delta_beside_a_calibration_without_one(answer, refuse, spec):
    """Fit and none are no names of files."""
    inputs = pair()
    answer("search-lambda", *inputs, "-o", "c.json")
    line = refuse(USAGE, "evaluate", *inputs, "--calibration", "c.json", "--delta", spec)
    assert "beside --calibration" in line


def test_a_calibration_of_one_named_modality(answer):
    pair()
    found = answer("search-lambda", "rgb=rgb.h5", "-o", "c.json")
    for inputs in (["rgb=rgb.h5"], ["rgb.h5"]):
        assert answer("evaluate", *inputs, "--calibration", "c.json")["macc"] == found["best"]["macc"]
    answer("search-lambda", "rgb.h5", "-o", "c.json", "--force")
    assert answer("evaluate", "any=rgb.h5", "--calibration", "c.json")["macc"] == found["best"]["macc"]


# ------------------------------------------------------------------------------------------------
# any options at all


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_options(data, capfd, tmp_path, monkeypatch):
    """Success, or one line and an exit code that is no fault of the program."""
    monkeypatch.chdir(tmp_path)
    if not pathlib.Path("s.json").exists():
        pair()
        np.save("f.npy", np.ones(24) * 0.5)
        cli.run(["fit-delta", "rgb.h5", "-o", "s.json"])
        cli.run(["search-lambda", "rgb=rgb.h5", "depth=depth.h5", "-o", "c.json"])
        zs, _ = world(k=3)
        with np.errstate(divide="ignore"), h5py.File("zeros.h5", "w") as file:
            p = naive.softmax(zs[0])
            p[p < 0.2] = 0
            file["log_probs"] = np.log(p / p.sum(1, keepdims=True))
        capfd.readouterr()
    pools = {
        "--fusion": [*FUSIONS],
        "--weights": ["1,2", "rgb=0,depth=1", "0,1"],
        "--order": ["flatten-first", "rebalance-first"],
        "--delta": ["fit", "none", "s.json", "rgb=s.json", "rgb=f.npy", "depth=fit", "f.npy"],
        "--delta-power": ["0", "2", "40"],
        "--temperature": ["2", "rgb=0.01", "rgb=2,depth=100"],
        "--offsets": ["0,1,-1", "rgb=0,0.5,2", "depth=1,2", "f.npy"],
        "--source-prior": ["uniform", "rgb=1,2,0", "rgb=labels", "mean-posterior", "1,1,0", "depth=0,1,1"],
        "--target-prior": ["1,2,3", "0,1,1", "labels"],
        "--unseen": ["mask", "floor", "smooth"],
        "--split": ["val", "test"],
        "--threads": ["1", "3"],
        "--calibration": ["c.json"],
    }
    lams = ["0", "1", "rgb=1,depth=-3", "500000"]
    own = {
        "evaluate": {"--lambda": lams, "--by": ["group", "file"], "--confusion": [""]},
        "search-lambda": {
            "--metric": ["acc", "miou", "top2"], "--method": ["grid", "paper", "path"], "--by": ["group", "file"],
            "--folds": ["2", "5"], "--range": ["0:1:0.5", "-2:2:1", "1:3:1"], "--per-modality": [""],
            "--subject-to": ["acc>=base-0.1", "miou>=0.99"], "--choose": ["anchored", "best", "paper"],
            "--cluster": ["unit", "image", "group"], "--strict": [""],
        },
        "calibrate": {"--lambda": lams, "--emit": ["probs", "predictions"], "--metric": ["f1"], "--strict": [""]},
        "fuse": {"--lambda": lams, "--emit": ["probs", "predictions"]},
    }  # fmt: skip
    command = data.draw(st.sampled_from(COMMANDS))
    depth = data.draw(st.sampled_from(["depth=depth.h5", "depth=depth.h5", "depth=zeros.h5"]))
    inputs = data.draw(st.sampled_from([["rgb=rgb.h5", depth], ["rgb=rgb.h5", depth], ["rgb=rgb.h5"], ["rgb.h5"]]))
    pools |= own[command]
    args = [command, *inputs]
    for option in data.draw(st.lists(st.sampled_from(sorted(pools)), max_size=5, unique=True)):
        value = data.draw(st.sampled_from(pools[option]))
        args += [option, value] if value else [option]
    args += ["-o", "o.h5", "--force"] if OUTPUTS[command] else []
    code = cli.run(args)
    out, err = capfd.readouterr()
    lines = [line for line in err.splitlines() if not line.startswith(BESIDE)]
    beside = "--calibration" in args and any(spec.endswith(("fit", "none")) for spec in args)
    assert code in ((0, USAGE, DATA, NO_INPUT) if beside else (0, USAGE, DATA)), (args, err)
    assert (len(lines), bool(out)) == ((0, True) if code == 0 else (1, False)), (args, err)
    if code == 0:
        json.loads(out, parse_constant=no_constant)


# ------------------------------------------------------------------------------------------------
# what newcomers met


def test_weights_without_names_come_in_the_order_of_the_inputs(answer):
    inputs = pair()
    more = ["--fusion", "average", "--weights"]
    seen = answer("evaluate", *inputs, *more, "rgb=3,depth=1")
    assert seen["weights"] == {"depth": 0.25, "rgb": 0.75}
    for line in (["3,1"], ["rgb=3", "--weights", "depth=1"]):
        assert answer("evaluate", *inputs, *more, *line)["per_class"] == seen["per_class"]
    turned = answer("evaluate", *inputs[::-1], *more, "1,3")
    assert turned["per_class"] == seen["per_class"]
    zs, labels = world()
    found = unoic_cli.evaluate({"rgb": zs[0], "depth": zs[1]}, labels, fusion="average", weights=[3, 1])
    assert found.details["weights"] == seen["weights"]


def test_an_option_for_each_modality_may_be_repeated_and_one_for_all_may_not(answer, refuse):
    inputs = pair()
    apart = answer("evaluate", *inputs, "-l", "rgb=1", "-l", "depth=2")
    assert apart["per_class"] == answer("evaluate", *inputs, "-l", "rgb=1,depth=2")["per_class"]
    refuse(USAGE, "evaluate", *inputs, "-l", "0.1", "-l", "0.9")


def test_factors_may_be_an_array():
    zs, labels = world()
    factors = np.linspace(0.2, 1, len(labels))
    stored = {"rgb": unoic_cli.from_arrays(zs[0], labels, delta=factors), "depth": unoic_cli.from_arrays(zs[1], labels)}
    given_ = unoic_cli.evaluate({"rgb": zs[0], "depth": zs[1]}, labels, delta={"rgb": factors})
    assert counts_of(given_) == counts_of(unoic_cli.evaluate(stored))


def test_methods_have_precedence_over_files_of_their_name(answer, tmp_path):
    inputs = pair()
    before = answer("compare", *inputs, "-m", "average", "-m", "rgb")
    for name in ("average", "rgb"):
        (tmp_path / name).mkdir()
    assert answer("compare", *inputs, "-m", "average", "-m", "rgb")["methods"] == before["methods"]


def test_the_labelled_modality_settles_the_class_axis_of_the_others(answer, refuse):
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, (3, 4, 5))
    zs = [rng.normal(size=(3, 3, 4, 5)).astype("f4") for _ in range(2)]
    write("rgb.h5", zs[0], labels)
    write("planes.h5", zs[1])
    write("rows.h5", np.ascontiguousarray(np.moveaxis(zs[1], 1, -1)))
    options = ("--lambda", "1", "--source-prior", "5,3,1")
    for stored in ("planes.h5", "rows.h5"):
        with h5py.File(stored, "r+") as file:
            file["logits"].attrs.pop("class_axis", None)
    found = [answer("evaluate", "rgb=rgb.h5", f"depth={name}", *options) for name in ("planes.h5", "rows.h5")]
    assert found[0]["per_class"] == found[1]["per_class"]
    assert "which axis" in refuse(DATA, "fuse", "a=planes.h5", "b=rows.h5", *options, "-o", "o.h5")
