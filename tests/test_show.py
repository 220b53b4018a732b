"""`unoic show`: what is drawn, of which images, and with which colours."""

from __future__ import annotations

import csv
import io
import json
import pathlib
import subprocess
import sys

import h5py
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import unoic_cli
from unoic_cli.drawing import panel
from unoic_cli.drawing.colours import ALIASES, CITYSCAPES, IGNORED, palette
from unoic_cli.formats import pictures
from unoic_cli.tallies import changed

STREETS = pathlib.Path(__file__).resolve().parents[1] / "sample_data" / "streets"
MODALITIES = ("depth", "rgb")
LAMBDA = 0.4
RNG = np.random.default_rng(3)


def files(condition):
    return {name: str(STREETS / name / f"{condition}.h5") for name in MODALITIES}


def named(condition):
    return [f"{name}={path}" for name, path in files(condition).items()]


@pytest.fixture(scope="module")
def deltas(tmp_path_factory):
    folder = tmp_path_factory.mktemp("delta")
    for name, path in files("val").items():
        unoic_cli.fit_delta({name: path}, output=str(folder / f"{name}.json"))
    return {name: str(folder / f"{name}.json") for name in MODALITIES}


@pytest.fixture(scope="module")
def calibration(tmp_path_factory, deltas):
    path = str(tmp_path_factory.mktemp("calibration") / "uno-ic.json")
    unoic_cli.search_lambda(files("val"), delta=deltas, lam=LAMBDA, output=path)
    return path


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def decided(condition, deltas, lam):
    """Algorithm 1 in plain numpy: delta, rebalance, noisy-or; labels, and (N, H, W) decisions."""
    missed = 0.0
    for name, path in files(condition).items():
        with h5py.File(path) as file:
            z, labels, counts = file["logits"][()].astype("f8"), file["labels"][()].astype(int), file["source_counts"]
            slopes = -np.log(counts[()] / counts[()].sum())
        known = json.loads(pathlib.Path(deltas[name]).read_text())
        p = softmax(z)
        entropy = -np.sum(p * np.log(np.where(p > 0, p, 1)), axis=1).mean(axis=(1, 2))
        delta = known["mu"] / (np.maximum(0, entropy - known["mu"] - known["sigma"]) + known["mu"])
        fused = softmax(delta[:, None, None, None] * z + lam * slopes[:, None, None])
        missed = missed + np.log1p(-fused)
    return labels, np.argmin(missed, axis=1)


@pytest.fixture
def small(tmp_path):
    """Two files of images of different sizes, and what a lambda of 1 makes of them."""
    names, counts = ["sky", "road", "traffic light"], np.array([50, 30, 2])
    paths, scores, labels = [], [], []
    for i, (n, high, wide) in enumerate([(5, 4, 6), (4, 3, 8)]):
        z, y = RNG.normal(size=(n, 3, high, wide)).astype("f4"), RNG.integers(0, 3, (n, high, wide)).astype("u1")
        y[:, 0, 0] = 255
        with h5py.File(tmp_path / f"{i}.h5", "w") as file:
            file["logits"], file["labels"], file["source_counts"], file["class_names"] = z, y, counts, names
            file["sample_id"], file["group"] = [f"{i}-{j}" for j in range(n)], ["day", *["night"] * (n - 1)]
            file["split"] = ["val", *["test"] * (n - 1)]
        paths.append(str(tmp_path / f"{i}.h5"))
        scores += list(z)
        labels += list(y)
    slopes = -np.log(counts / counts.sum())[:, None, None]
    before, after = ([np.argmax(z + lam * slopes, axis=0) for z in scores] for lam in (0, 1))
    return paths, labels, before, after


def moved(labels, before, after):
    return [int(((a != b) & (y < 255)).sum()) for y, a, b in zip(labels, before, after, strict=True)]


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def colours_in(path):
    return {tuple(one) for one in pixels_of(path).reshape(-1, 3).tolist()}


# ------------------------------------------------------------------------------------------------
# what is counted


def test_counts_are_those_of_plain_numpy(answer, tmp_path, deltas, calibration):
    found = answer("show", *named("rain"), "-c", calibration, "-o", tmp_path / "x.png")
    labels, before = decided("rain", deltas, 0.0)
    _, after = decided("rain", deltas, LAMBDA)
    assert found["columns"] == ["truth", "before", "after", "differences"]
    assert [one["number"] for one in found["images"]] == list(range(6))
    for i, one in enumerate(found["images"]):
        right, was = after[i] == labels[i], before[i] == labels[i]
        assert one["group"] == "rain" and one["pixels"] == one["labelled"] == 64 * 96
        assert one["changed"] == (before[i] != after[i]).sum() > 100
        assert (one["now_right"], one["now_wrong"]) == ((right & ~was).sum(), (was & ~right).sum())
        assert one["both_wrong"] == ((before[i] != after[i]) & ~right & ~was).sum()
        assert one["accuracy"] == {"before": was.mean(), "after": right.mean()}


def test_methods_are_those_of_compare(answer, tmp_path, deltas, calibration):
    given = [word for name, path in deltas.items() for word in ("--delta", f"{name}={path}")]
    methods = ["-m", "SoftAve=average", "-m", "UNO=uno", "-m", f"UNO-IC={calibration}", "-m", "rgb@0.3"]
    found = answer("show", *named("rain"), *methods, *given, "-o", tmp_path / "x.png")
    table = answer("compare", *named("rain"), *methods, *given, "--metrics", "acc")
    assert found["columns"] == ["truth", "SoftAve", "UNO", "UNO-IC", "rgb@0.3"]
    for row in table["methods"]:
        each = [one["accuracy"][row["name"]] for one in found["images"]]
        assert np.mean(each) == pytest.approx(row["average"]["acc"], abs=1e-12)
        assert found["methods"][row["name"]] == row["about"]
    _, uno = decided("rain", deltas, 0.0)
    shown = unoic_cli.show(files("rain"), methods={"UNO": "uno", "IC": calibration}, delta=deltas)
    assert all((one.predictions["UNO"] == uno[i]).all() for i, one in enumerate(shown.images))


def test_before_is_what_evaluate_calls_so(answer, tmp_path, calibration):
    for words in (["-c", calibration], ["-l", "0.3", "--fusion", "average", "--temperature", "rgb=2,depth=1"]):
        found = answer("show", *named("fog"), *words, "-o", tmp_path / "x.png", "--force")
        told = answer("evaluate", *named("fog"), *words)
        mean = {name: np.mean([one["accuracy"][name] for one in found["images"]]) for name in ("before", "after")}
        assert mean["before"] == pytest.approx(told["before"]["acc"], abs=1e-12)
        assert mean["after"] == pytest.approx(told["acc"], abs=1e-12)


def test_nothing_depends_on_threads_and_chunks(small, tmp_path):
    paths, *_ = small
    results = []
    for i, how in enumerate([{"threads": 1}, {"threads": 3}, {"threads": 2, "memory": "3MB"}]):
        path = tmp_path / f"{i}.png"
        shown = unoic_cli.show(paths, lam=1, output=str(path), most_changed=4, **how)
        results.append((path.read_bytes(), [one.to_dict() for one in shown.images]))
    packed = [str(tmp_path / f"{i}.arrows") for i in range(2)]
    for path, output in zip(paths, packed, strict=True):
        unoic_cli.convert(path, output)
    shown = unoic_cli.show(packed, lam=1, output=str(tmp_path / "p.png"), most_changed=4)
    results.append(((tmp_path / "p.png").read_bytes(), [one.to_dict() for one in shown.images]))
    assert all(one == results[0] for one in results)


def test_large_images_are_put_together_of_pieces(monkeypatch):
    from unoic_cli.data import dataset

    monkeypatch.setattr(dataset, "SPAN_BYTES", 4000)
    scores, labels = RNG.normal(size=(3, 4, 40, 50)).astype("f4"), RNG.integers(0, 4, (3, 40, 50))
    shown = unoic_cli.show(scores, labels, images=[2, 0], threads=2)
    assert [one.number for one in shown.images] == [2, 0]
    for one in shown.images:
        assert (one.truth == labels[one.number]).all()
        assert (one.predictions["prediction"] == scores[one.number].argmax(axis=0)).all()


# ------------------------------------------------------------------------------------------------
# which images


def test_most_changed_come_first_and_equals_in_their_order(small):
    paths, *known = small
    counts = moved(*known)
    order = sorted(range(9), key=lambda i: (-counts[i], i))
    assert len(set(counts)) < 9, "a tie"
    for n in (1, 4, 9):
        shown = unoic_cli.show(paths, lam=1, most_changed=n)
        assert [one.number for one in shown.images] == order[:n]
        assert [one.to_dict()["changed"] for one in shown.images] == [counts[i] for i in order[:n]]
    assert [one.number for one in unoic_cli.show(paths, lam=1).images] == order[:6]
    assert [one.number for one in unoic_cli.show(paths).images] == list(range(6)), "where nothing changes"
    assert [one.truth.shape for one in unoic_cli.show(paths, lam=1, images="8,0").images] == [(3, 8), (4, 6)]


def test_images_by_number_by_name_and_of_a_split(small):
    paths, *_ = small
    shown = unoic_cli.show(paths, lam=1, images="7, 0-3,0")
    assert [(one.number, one.sample_id, one.group) for one in shown.images] == [
        (7, "1-2", "night"),
        (3, "0-3", "night"),
        (0, "0-0", "day"),
    ]
    assert [one.number for one in unoic_cli.show(paths, lam=1, split="val").images] == [0, 5]
    assert {one.group for one in unoic_cli.show(paths, lam=1, split="test", most_changed=7).images} == {"night"}


def test_without_labels_all_pixels_count(small, tmp_path):
    paths, _, before, after = small
    for path in paths:
        with h5py.File(path, "a") as file:
            del file["labels"]
    shown = unoic_cli.show(paths, lam=1, most_changed=2, output=str(tmp_path / "x.png"))
    counts = [int((a != b).sum()) for a, b in zip(before, after, strict=True)]
    order = sorted(range(9), key=lambda i: (-counts[i], i))[:2]
    assert shown.columns == ("before", "after", "differences")
    rows = [one.to_dict() for one in shown.images]
    assert [(one["number"], one["changed_unlabelled"]) for one in rows] == [(i, counts[i]) for i in order]
    assert all(one["changed"] == one["labelled"] == 0 and one["accuracy"]["after"] is None for one in rows)


# ------------------------------------------------------------------------------------------------
# what is drawn


def test_pixels_have_the_colours_of_the_classes(small, answer, tmp_path):
    paths, *_ = small
    colours = {"sky": "#1020c0", "Road": [9, 8, 7], "traffic_light": [250, 0, 1]}
    (tmp_path / "p.json").write_text(json.dumps(colours))
    answer("show", *paths, "-l", "1", "--palette", tmp_path / "p.json", "-o", tmp_path / "x.png", "--images", "1")
    seen = colours_in(tmp_path / "x.png")
    assert {(16, 32, 192), (9, 8, 7), (250, 0, 1), IGNORED} <= seen
    assert {tuple(one) for one in panel.CHANGE_COLOURS[[panel.UNCHANGED, panel.RIGHT, panel.WRONG]].tolist()} <= seen
    assert pixels_of(tmp_path / "x.png").shape[1] == 2070


def test_every_pixel_is_a_square_of_one_colour():
    classes = RNG.integers(-1, 5, (7, 11))
    drawn = panel.coloured(classes, palette(5))
    picture = panel.draw(panel.Panel(("",), (panel.Row("", (drawn,)),)), "png", "column")
    found = pixels_of(io.BytesIO(picture))
    rows, columns = (np.flatnonzero((found != 255).any(axis=(axis, 2))) for axis in (1, 0))
    found = found[rows[0] + 2 : rows[-1] - 1, columns[0] + 2 : columns[-1] - 1]  # within the frame
    y, x = (((np.arange(n) + 2) * m / (n + 4)) for n, m in zip(found.shape, classes.shape, strict=False))
    inside = np.ix_(*(np.abs(one - np.rint(one)) > 0.05 for one in (y, x)))  # not at the edge of a pixel
    assert (found[inside] == drawn[np.ix_(y.astype(int), x.astype(int))][inside]).all()


@pytest.mark.parametrize("form", ["png", "pdf", "svg"])
def test_a_picture_has_the_same_bytes_every_time(small, run, tmp_path, form):
    paths, *_ = small
    for name in "ab":
        words = ["show", *paths, "-l", "1", "-o", tmp_path / f"{name}.{form}", "--images", "2,5", "--size", "column"]
        assert run(*words)[0] == 0
    assert (tmp_path / f"a.{form}").read_bytes() == (tmp_path / f"b.{form}").read_bytes()


def test_inputs_of_every_kind(small, tmp_path):
    paths, *_ = small
    rgb, depth = RNG.integers(0, 255, (9, 8, 12, 3)).astype("u1"), 1 + 99 * RNG.random((9, 8, 12)).astype("f4")
    np.savez(tmp_path / "a.npz", rgb=rgb, depth=depth)
    np.savez_compressed(tmp_path / "c.npz", image=rgb.transpose(0, 3, 1, 2))
    np.save(tmp_path / "a.npy", rgb / 255)
    with h5py.File(tmp_path / "i.h5", "w") as file:
        file.create_dataset("a/image", data=rgb, chunks=(2, 8, 12, 3), compression="gzip")
        file["x"] = np.zeros(3)
    (tmp_path / "photos").mkdir()
    for i, one in enumerate(rgb):
        Image.fromarray(one).save(tmp_path / "photos" / f"photo {i + 3}.png")
    several = [f"{tmp_path}/{name}" for name in (
        "a.npz::rgb", "c.npz", "a.npy", "i.h5::a/image", "photos", "photos/*.png", "i.h5::/a/image")]  # fmt: skip
    wanted = unoic_cli.show(paths, lam=1, input_images=rgb, images="0,8", output=str(tmp_path / "x.png"))
    assert wanted.columns[0] == "input"
    for i, name in enumerate(several):
        unoic_cli.show(paths, lam=1, input_images=name, images="0,8", output=str(tmp_path / f"{i}.png"))
        assert (tmp_path / f"{i}.png").read_bytes() == (tmp_path / "x.png").read_bytes(), name
    both = {"rgb": paths, "depth": [str(tmp_path / "d0.h5"), str(tmp_path / "d1.h5")]}
    for path, copy in zip(paths, both["depth"], strict=True):
        pathlib.Path(copy).write_bytes(pathlib.Path(path).read_bytes())
    given = {name: str(tmp_path / "a.npz") for name in ("rgb", "depth")}
    assert unoic_cli.show(both, input_images=given).columns == ("rgb", "depth", "truth", "prediction")
    assert unoic_cli.show(both, input_images={"depth": depth}).columns == ("depth", "truth", "prediction")


def test_images_far_larger_than_the_page_are_thinned(small, tmp_path):
    colours = np.uint8([[9, 0, 0], [0, 9, 0], [0, 0, 9]])
    large = colours[RNG.integers(0, 3, (9, 800, 1200))]
    shown = unoic_cli.show(small[0], input_images=large, images=4, size="column", output=str(tmp_path / "x.png"))
    picture = pixels_of(tmp_path / "x.png")
    assert shown.images[0].pixels == 24 and picture.shape[1] == 1980
    inside = picture[200:400, 100:600].reshape(-1, 3)
    assert (np.sort(inside, axis=1) == [0, 0, 9]).all(), "no colour between two"


def test_images_beside_the_scores_are_drawn(small, tmp_path):
    paths, *_ = small
    with h5py.File(paths[1], "a") as file:
        file["image"] = np.full((4, 3, 8, 3), (1, 99, 1), dtype="u1")
    shown = unoic_cli.show(paths, lam=1, images="0,5", output=str(tmp_path / "x.png"))
    assert shown.columns[0] == "input"
    assert (1, 99, 1) in colours_in(tmp_path / "x.png")


def test_depth_is_grey_between_percentiles_and_in_logarithms_where_it_is_wide():
    even = panel.grey(np.arange(101.0)[None])[0, :, 0]
    assert (even[1], even[50], even[99]) == (0, 128, 255)
    wide = panel.grey(np.geomspace(1, 1000, 101)[None])[0, :, 0]
    assert (wide[1], wide[50], wide[99]) == (0, 128, 255)
    assert panel.grey(np.array([[1.0, np.nan], [1.0, np.inf]])).tolist() == [[[0] * 3, [*IGNORED]]] * 2


@pytest.mark.parametrize(
    ("mode", "dtype", "shape"), [("L", "u1", (2, 3)), ("I;16", "u2", (2, 3)), ("RGBA", "u1", (2, 3, 4)), ("P", "u1", 0)]
)
def test_files_of_every_mode(tmp_path, mode, dtype, shape):
    stored = np.arange(6 if shape and len(shape) == 2 else 24).reshape(shape or (4, 6)).astype(dtype)
    image = Image.fromarray(stored) if mode != "P" else Image.fromarray(stored).convert("P")
    image.save(tmp_path / "x.png")
    found = pictures.of_files([str(tmp_path / "x.png")], "x").image(0)
    assert found.shape == (stored.shape[:2] if mode in ("L", "I;16") else (*stored.shape[:2], 3))
    if mode in ("L", "I;16"):
        assert (found == stored).all()


def test_palette_is_stable_and_all_classes_differ():
    assert (palette(300)[:40] == palette(40)).all() and len(np.unique(palette(256), axis=0)) == 256
    assert len(CITYSCAPES) == 19 and set(ALIASES.values()) <= set(CITYSCAPES)
    assert not {IGNORED, (255, 255, 255)} & set(map(tuple, palette(256).tolist()))


def test_cityscapes_by_name_and_by_number(small):
    paths, *_ = small
    assert unoic_cli.show(paths, palette="cityscapes").colours.tolist() == [
        [70, 130, 180],
        [128, 64, 128],
        [250, 170, 30],
    ]
    scores = RNG.normal(size=(1, 19, 2, 2))
    assert unoic_cli.show(scores, class_axis=1, palette="cityscapes").colours.tolist() == [
        list(one) for one in CITYSCAPES.values()
    ]


@pytest.mark.parametrize(
    "text",
    ["name,r,g,b\nsky,1,2,3\nroad,4,5,6\ntraffic light,7,8,9\n",
     "# a comment\n0 1 2 3\nroad #040506\nTraffic-Light 7 8 9",
     '{"sky": [1, 2, 3], "1": "#040506", "traffic light": "#070809"}'],
)  # fmt: skip
def test_palettes_of_every_form(small, tmp_path, text):
    (tmp_path / "p").write_text(text)
    shown = unoic_cli.show(small[0], palette=tmp_path / "p")
    assert shown.colours.tolist() == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_names_are_texts_and_very_many_classes_are_not_all_named(tmp_path):
    scores = RNG.normal(size=(2, 60, 9, 9))
    names = [f"$\\frac{{{k}}}$ a_b" * (1 + 9 * (k % 2)) for k in range(60)]
    labels = np.full((2, 9, 9), 255)
    source = unoic_cli.from_arrays(scores, labels, class_names=names)
    shown = unoic_cli.show(source, output=str(tmp_path / "x.svg"))
    text = (tmp_path / "x.svg").read_text()
    assert text.startswith("<?xml") and shown.columns == ("prediction",)
    unoic_cli.show(source, output=str(tmp_path / "x.png"), size="column")
    assert pixels_of(tmp_path / "x.png").shape[1] == 990


def test_one_image_is_drawn_into_given_axes():
    axes = Figure().add_subplot()
    panel.draw_panel(axes, panel.coloured(np.array([[0, 1], [-1, 2]]), palette(3)), "$a$")
    assert axes.images[0].get_interpolation() == "nearest" and axes.get_title() == "$a$"


# ------------------------------------------------------------------------------------------------
# rows that change


NAMES = ["cat", "big, dog", 'a "cow"', "d\te"]
COUNTS = np.array([400, 90, 9, 1])


def log_softmax(z):
    z = z - z.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


@pytest.fixture
def rows(tmp_path):
    """Two files of rows, with names; all scores and labels of them, one behind the other."""
    z, y = RNG.normal(size=(500, 4)).astype("f4"), RNG.integers(0, 4, 500)
    z[40:44] = z[40]  # rows that move equally far
    y[::7] = 255
    paths = []
    for i, part in enumerate((slice(0, 200), slice(200, 500))):
        with h5py.File(tmp_path / f"r{i}.h5", "w") as file:
            file["logits"], file["labels"], file["source_counts"], file["class_names"] = z[part], y[part], COUNTS, NAMES
            file["sample_id"] = [f"s,{k}" for k in range(part.start, part.stop)]
            file["split"] = ["val" if k % 2 else "test" for k in range(part.start, part.stop)]
        paths.append(str(tmp_path / f"r{i}.h5"))
    return paths, z.astype("f8"), y


def changed_by(z, y, lam, temperature=1.0):
    """(log-odds past the tie, place, label, before, after, four probabilities) of rows that change, in order."""
    early, late = log_softmax(z), log_softmax(z / temperature - lam * np.log(COUNTS / COUNTS.sum()))
    before, after = early.argmax(axis=1), late.argmax(axis=1)
    found = []
    for i in np.flatnonzero(before != after).tolist():
        a, b = before[i], after[i]
        four = np.exp([early[i, a], early[i, b], late[i, a], late[i, b]]).tolist()
        found.append((late[i, b] - late[i, a], i, y[i], a, b, four))
    return sorted(found, key=lambda one: (-round(one[0], 9), one[1]))


def lines_of(path, delimiter=","):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter=delimiter))


@pytest.mark.parametrize(("suffix", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_rows_that_change_most_are_a_table(rows, answer, tmp_path, suffix, delimiter):
    paths, z, y = rows
    words = ["-l", "1.2", "--temperature", "1.5", "-o", tmp_path / f"c.{suffix}"]
    made = answer("show", *paths, *words)
    wanted = changed_by(z, y, 1.2, 1.5)
    lines = lines_of(tmp_path / f"c.{suffix}", delimiter)
    assert len(wanted) > 100 and len(lines) == 100 and made["columns"] == ["before", "after"] and made["images"] == []
    for line, (past, i, label, a, b, four) in zip(lines, wanted, strict=False):
        place = (paths[0], i) if i < 200 else (paths[1], i - 200)
        assert (line["file"], int(line["row"]), line["sample_id"]) == (*place, f"s,{i}")
        assert (line["label"], line["before"], line["after"]) == (
            "" if label == 255 else NAMES[label],
            NAMES[a],
            NAMES[b],
        )
        names = [f"p_{when}_of_{which}" for when in ("before", "after") for which in ("before", "after")]
        assert [float(line[name]) for name in names] == pytest.approx(four, rel=1e-9)
        assert float(line["log_odds"]) == pytest.approx(past, abs=1e-9) and past > 0
    known = [(label, a, b) for _, _, label, a, b, _ in wanted if label != 255]
    right, was = ([label == one[i] for label, *one in known] for i in (1, 0))
    assert made["rows"] == {
        "n": 500, "changed": len(known), "now_right": sum(right), "now_wrong": sum(was),
        "both_wrong": len(known) - sum(right) - sum(was), "changed_unlabelled": len(wanted) - len(known), "shown": 100,
    }  # fmt: skip


def test_probabilities_of_rows_are_those_that_calibrate_writes(rows, tmp_path):
    paths, *_ = rows
    shown = unoic_cli.show(paths, lam=0.7, most_changed=500).rows
    unoic_cli.calibrate(paths, lam=0.7, emit="probs", output=str(tmp_path / "o.h5"))
    with h5py.File(tmp_path / "o.h5") as file:
        probs = file["probs"][()]
    for row in shown:
        assert np.float32(row.p_after_of_after) == pytest.approx(probs[row.place, row.after], rel=1e-6)
        assert np.float32(row.p_after_of_before) == pytest.approx(probs[row.place, row.before], rel=1e-6)


def test_rows_do_not_depend_on_threads_spans_layout_and_number(rows, tmp_path, monkeypatch):
    from unoic_cli.data import dataset

    paths, z, y = rows
    unoic_cli.show(paths, lam=1, most_changed=500, output=str(tmp_path / "a.csv"))
    whole = (tmp_path / "a.csv").read_text().splitlines()
    order = [i for _, i, *_ in changed_by(z, y, 1)]
    assert [row.place for row in unoic_cli.show(paths, lam=1, most_changed=500).rows] == order
    assert len([i for i in order if 40 <= i < 44]) in (0, 4) and len(whole) == len(order) + 1 > 100
    packed = []
    for i, path in enumerate(paths):
        unoic_cli.convert(path, str(tmp_path / f"p{i}.parquet"))
        packed.append(str(tmp_path / f"p{i}.parquet"))
    monkeypatch.setattr(dataset, "SPAN_BYTES", 300)
    for i, (given, threads, most) in enumerate([(paths, 1, 500), (paths, 3, 7), (packed, 2, 50), (paths, 2, 1)]):
        output = tmp_path / f"{i}.csv"
        unoic_cli.show(given, lam=1, most_changed=most, output=str(output), threads=threads)
        lines = output.read_text().replace(".parquet", ".h5").replace("/p", "/r").splitlines()
        assert lines == [line.replace("/p", "/r") for line in whole[: most + 1]]


def test_any_split_of_a_row_tally_adds_to_the_same(rows, monkeypatch):
    kept = []
    make = changed.RowTally.recipe
    monkeypatch.setattr(changed.RowTally, "recipe", lambda self: kept.append(self) or make(self))
    shown = unoic_cli.show(rows[0], lam=1, most_changed=9, threads=1)
    whole = kept[0]
    assert tuple(whole.rows) == shown.rows
    pieces = [whole.fresh() for _ in range(4)]
    for i, row in enumerate(whole.rows):
        pieces[i * 7 % 4].rows.append(row)
    for order in ((0, 1, 2, 3), (3, 1, 0, 2)):
        joined, added_ = whole.fresh(), whole.fresh()
        for i in order:
            joined.absorb(json.loads(json.dumps(pieces[i].counters())))
            added_.add(pieces[i])
        assert joined.rows == added_.rows == whole.rows


def test_rows_between_methods_of_a_split_and_of_several_sensors(rows, answer, tmp_path):
    paths, z, y = rows
    words = ["--split", "val", "-o", tmp_path / "m.csv", "--most-changed", "500"]
    unoic_cli.search_lambda(paths, lam=1.0, output=str(tmp_path / "c.json"))
    made = answer("show", *paths, "-m", f"small={tmp_path}/c.json@0.2", "-m", f"mid={tmp_path}/c.json@0.5", "-m",
                  f"large={tmp_path}/c.json@1.5", *words)  # fmt: skip
    slopes = -np.log(COUNTS / COUNTS.sum())
    before, after = (np.argmax(z + lam * slopes, axis=1) for lam in (0.2, 1.5))
    places = [i for i in range(1, 500, 2) if before[i] != after[i]]
    lines = lines_of(tmp_path / "m.csv")
    assert made["columns"] == ["small", "mid", "large"] and made["rows"]["n"] == 250
    assert sorted(int(line["sample_id"][2:]) for line in lines) == places
    both = {"a": z[:100], "b": z[100:200]}
    shown = unoic_cli.show(both, y[:100], lam=0.8, source_prior=COUNTS.tolist(), fusion="average", most_changed=100)
    early, late = ((softmax(one) + softmax(two)) / 2 for one, two in (
        (z[:100], z[100:200]), (z[:100] + 0.8 * slopes, z[100:200] + 0.8 * slopes)))  # fmt: skip
    wanted = np.flatnonzero(early.argmax(axis=1) != late.argmax(axis=1)).tolist()
    assert sorted(row.place for row in shown.rows) == wanted and len(wanted) > 10
    for row in shown.rows:
        i, a, b = row.place, row.before, row.after
        four = [early[i, a], early[i, b], late[i, a], late[i, b]]
        assert list(row[8:]) == pytest.approx(four, rel=1e-9)
        assert row.log_odds == pytest.approx(np.log(late[i, b] / late[i, a]), abs=1e-9)


def test_a_class_that_is_masked_is_infinitely_far(tmp_path):
    scores = np.log([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    shown = unoic_cli.show(scores, lam=0.5, source_prior=[0, 1, 1], output=str(tmp_path / "x.csv"))
    assert [(row.before, row.after, row.log_odds, row.p_after_of_before) for row in shown.rows] == [(0, 1, np.inf, 0.0)]
    (line,) = lines_of(tmp_path / "x.csv")
    assert (line["log_odds"], line["label"]) == ("inf", "") and float(line["p_before_of_before"]) == pytest.approx(0.6)
    assert "sample_id" not in line and shown.counts["changed_unlabelled"] == 1


def test_rows_of_nothing_are_not_shown():
    """Scores of an ignored row that are no numbers are none: it is not said to change."""
    scores = np.array([[np.nan, np.nan], [1.0, 0.9]])
    shown = unoic_cli.show(scores, [255, 1], lam=1, source_prior=[9, 1])
    assert [row.row for row in shown.rows] == [1]
    assert shown.counts["changed"] == shown.counts["now_right"] == 1 and shown.counts["changed_unlabelled"] == 0


def test_forms_of_the_result_of_rows(rows, run, tmp_path):
    words = ["show", *rows[0], "-l", "1", "-o", tmp_path / "x.csv", "--force", "-q"]
    code, out, err = run(*words, "--format", "tsv")
    heading, line = (one.split("\t") for one in out.splitlines())
    assert (code, err) == (0, "") and dict(zip(heading, line, strict=True))["n"] == "500"
    code, out, _ = run(*words, "--format", "table")
    assert code == 0 and "now right" in out and "500" in out


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["-o", "x.csv"], 2, "--output: rows that change, where nothing changes; expected --calibration, --lambda"),
        (["-o", "x.csv", "-l", "1", "--most-changed", "0"], 2, "--most-changed: 0; expected 1 to 100,000"),
        (["-o", "x.csv", "-l", "1", "--images", "1"], 2, "--images: --images of rows, which have no picture"),
        (["-o", "x.csv", "-l", "1", "--size", "column"], 2, "--size: --size of rows, which have no picture"),
        (["-o", "x.csv", "-l", "1", "--palette", "cityscapes"], 2, "--palette: --palette of rows"),
        (["-o", "there.csv", "-l", "1"], 73, "there.csv: the file exists"),
        (["-o", "r0.h5", "-l", "1"], 2, "--output: 'r0.h5'; expected a name"),
    ],
)
def test_what_is_refused_of_rows(rows, refuse, tmp_path, monkeypatch, words, code, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.csv").write_text("")
    assert refuse(code, "show", "r0.h5", *words).startswith(text)
    assert not (tmp_path / "x.csv").exists()


def test_no_matplotlib_is_needed_for_rows(rows, answer, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert answer("show", *rows[0], "-l", "1", "-o", tmp_path / "x.csv")["rows"]["shown"] == 100


# ------------------------------------------------------------------------------------------------
# what is refused


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        ([], 2, "--output: no file; expected one for the picture: .png, .pdf or .svg"),
        (["-o", "x.gif"], 2, "--output: 'x.gif'; expected a name that ends with .pdf, .svg or .png"),
        (["-o", "x.csv"], 2, "--output: 'x.csv', a table, of images; expected a picture of them: .png, .pdf or .svg"),
        (["-o", "no/x.png"], 73, "no/x.png: the folder no does not exist"),
        (["-o", "there.png"], 73, "there.png: the file exists; expected a new name, or --force"),
        (["-o", "photo.png", "--force", "--inputs", "photo.png", "--images", "0"], 65, "photo.png: 1 images"),
        (["-o", "x.png", "--images", "9"], 2, "--images: no image 9; expected numbers from 0 to 8, or sample_ids"),
        (["-o", "x.png", "--images", "nobody"], 2, "--images: no image nobody"),
        (["-o", "x.png", "--images", "3,0-3"], 2, "--images: the image 0-3 twice; expected each once"),
        (["-o", "x.png", "--images", "3,"], 2, "--images: '3,'; expected numbers or sample_ids with commas"),
        (["-o", "x.png", "--images", "1", "--split", "val"], 2, "--images: no image 1 of the split val"),
        (["-o", "x.png", "--images", "1", "--most-changed", "2"], 2, "--most-changed: --most-changed beside --images"),
        (["-o", "x.png", "--most-changed", "2"], 2, "--most-changed: --most-changed where nothing changes"),
        (["-o", "x.png", "-l", "1", "--most-changed", "0"], 2, "--most-changed: 0; expected 1 to 100"),
        (["-o", "x.png", "--size", "poster"], 2, "--size: 'poster'; expected column or page"),
        (["-o", "x.png", "-l", "1", "-m", "c.json"], 2, "--lambda: --lambda beside --method"),
        (["-o", "x.png", "-c", "c.json"], 66, "c.json: no such file"),
        (["-o", "x.png", "-m", "nothing"], 2, "--method: 'nothing'; expected the file of a calibration"),
        (["-o", "x.png", "--unseen", "floor"], 2, "--unseen: --unseen without --lambda"),
        (["-o", "x.png", "--inputs", "rgb=a.npy"], 2, "--inputs: the unknown modality rgb; expected inputs like"),
        (["-o", "x.png", "--inputs", "none.npy"], 66, "none.npy: no such file; expected images"),
        (["-o", "x.png", "--inputs", "none/*.png"], 66, "none/*.png: no file matches"),
        (["-o", "x.png", "--inputs", "empty"], 65, "empty: a folder without PNG or JPEG files"),
        (["-o", "x.png", "--inputs", "few.npy"], 65, "few.npy: 2 images; expected 9, as there are samples"),
        (["-o", "x.png", "--inputs", "flat.npy"], 65, "flat.npy: an array of shape (9, 4), float64; expected"),
        (["-o", "x.png", "--inputs", "wide.npy"], 65, "wide.npy: colours from -5 to 300; expected them in 0 ... 1"),
        (["-o", "x.png", "--inputs", "two.npz"], 65, "two.npz: 2 arrays that may be images (a, b)"),
        (["-o", "x.png", "--inputs", "two.npz::c"], 65, "two.npz::c: no array c; expected one of a, b"),
        (["-o", "x.png", "--inputs", "p.json"], 65, "p.json: unknown first bytes"),
        (["-o", "x.png", "--inputs", "broken"], 65, "broken/0.png: no image that can be read"),
        (["-o", "x.png", "--palette", "none.json"], 66, "none.json: no such file"),
        (["-o", "x.png", "--palette", "p.json"], 65, "p.json: no colour of class 1 (road); expected one for each of 3"),
        (["-o", "x.png", "--palette", "bad.json"], 65, "bad.json:sky: 'blue', which is no colour; expected #rrggbb"),
        (["-o", "x.png", "--palette", "damaged.json"], 65, "damaged.json: damaged JSON ("),
        (["-o", "x.png", "--palette", "bad.txt"], 65, "bad.txt:2: 'road 1 2'; expected JSON"),
        (["-o", "x.png", "--format", "yaml"], 2, "--format: 'yaml'"),
    ],
)  # fmt: skip
def test_what_is_refused(small, refuse, tmp_path, monkeypatch, words, code, text):
    paths, *_ = small
    monkeypatch.chdir(tmp_path)
    for name, content in {
        "there.png": "", "p.json": '{"sky": "#000000"}', "bad.json": '{"sky": "blue"}', "damaged.json": "{",
        "bad.txt": "sky 1 2 3\nroad 1 2\n",
    }.items():  # fmt: skip
        (tmp_path / name).write_text(content)
    for name in ("empty", "broken"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.zeros((4, 6, 3), "u1")).save("photo.png")
    for i in range(9):
        (tmp_path / "broken" / f"{i}.png").write_bytes(pathlib.Path("photo.png").read_bytes()[:40])
    np.save("few.npy", np.zeros((2, 4, 6)))
    np.save("flat.npy", np.zeros((9, 4)))
    np.save("wide.npy", np.tile([-5.0, 0, 300], (9, 4, 6, 1)))
    np.savez("two.npz", a=np.zeros((9, 4, 6)), b=np.zeros((9, 4, 6)))
    before = sorted(tmp_path.iterdir())
    assert refuse(code, "show", *paths, *words).startswith(text)
    assert sorted(tmp_path.iterdir()) == before


def test_rows_are_no_images(refuse, tmp_path):
    np.savez(tmp_path / "x.npz", logits=np.eye(3), labels=[0, 1, 2])
    said = refuse(65, "show", tmp_path / "x.npz", "-l", "1", "-o", tmp_path / "x.png")
    assert said.endswith(
        "x.npz: rows of scores, one for each sample; expected those of images, (N, K, H, W) or (N, H, W, K); of rows a "
        "table: .csv or .tsv"
    )


def test_a_palette_lacks_a_class(refuse, tmp_path):
    said = refuse(65, "show", STREETS / "rgb" / "rain.h5", "--palette", "cityscapes", "-o", tmp_path / "x.png")
    assert said == "--palette cityscapes: no colour of class 6 (lane_marking); expected one for each of 14 classes"


def test_an_input_is_not_replaced(small, refuse, tmp_path):
    (tmp_path / "photos").mkdir()
    for i in range(9):
        Image.fromarray(np.zeros((4, 6, 3), "u1")).save(tmp_path / "photos" / f"{i}.png")
    output = tmp_path / "photos" / "3.png"
    said = refuse(73, "show", *small[0], "--inputs", tmp_path / "photos", "-o", output, "--force")
    assert said == f"{output}: the output is also an input; expected another name"


def test_several_modalities_have_names(refuse, tmp_path, monkeypatch):
    np.save(tmp_path / "a.npy", np.zeros((6, 4, 6)))
    said = refuse(2, "show", *named("rain"), "--inputs", tmp_path / "a.npy", "-o", tmp_path / "x.png")
    assert said == "--inputs: images without the name of a modality; expected depth=IMAGES"
    said = refuse(2, "show", *named("rain"), "-m", "average", "--delta", "fit", "-o", tmp_path / "x.png")
    assert said == "--delta: --delta without the method uno; expected it only for --method uno"


def test_without_matplotlib_one_line_says_what_to_install(small, refuse, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = refuse(2, "show", *small[0], "-o", tmp_path / "x.png")
    assert said == ("--output: matplotlib, which is not installed; "
                    "expected it to be installed: pip install 'unoic[plot]'")  # fmt: skip


def test_predictions_are_shown_as_they_are(answer, refuse, tmp_path):
    path = STREETS / "rgb_ldam" / "test.h5"
    found = answer("show", path, "-o", tmp_path / "x.png")
    assert found["columns"] == ["truth", "prediction"] and len(found["images"]) == 6
    said = refuse(65, "show", path, "-m", "average", "-o", tmp_path / "y.png")
    assert "predictions without scores" in said
    said = refuse(2, "show", path, "-l", "1", "-o", tmp_path / "y.png")
    assert said.startswith("--lambda: a calibration for a file of predictions")


def test_forms_of_the_result(small, run, tmp_path):
    words = ["show", *small[0], "-l", "1", "-o", tmp_path / "x.png", "--force", "--images", "0-1", "-q"]
    code, out, err = run(*words, "--format", "tsv")
    heading, line = (one.split("\t") for one in out.splitlines())
    assert (code, err) == (0, "") and line[:4] == ["1", "0-1", "night", "24"] and heading[-1] == "accuracy after"
    code, out, _ = run(*words, "--format", "table")
    assert code == 0 and "now right" in out and "0-1" in out


def test_other_commands_load_no_matplotlib(tmp_path):
    code = (
        "import sys\nfrom unoic_cli import cli\n"
        f"assert cli.run(['evaluate', {str(STREETS / 'rgb' / 'rain.h5')!r}]) == 0\n"
        "assert cli.run(['show', '--help']) == 0\n"
        "assert not {'matplotlib', 'PIL'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
