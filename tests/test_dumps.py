"""Scores in the shapes in which people keep them: each is read as what it is, by every command alike."""

from __future__ import annotations

import json
import pathlib

import dumps
import numpy as np
import pytest
from tensors import Tensor

from unoic_cli import cli


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capfd):
    def runner(*args, code=0):
        assert cli.run([str(arg) for arg in args]) == code, capfd.readouterr().err
        out, err = capfd.readouterr()
        return (json.loads(out) if out.startswith("{") else out) if code == 0 else err

    return runner


@pytest.mark.parametrize("dump", dumps.DUMPS, ids=lambda dump: dump.name)
def test_a_dump_is_read_as_what_it_is(dump, run):
    dump.make()
    files = run("info", dump.name, *dump.args)["files"]
    assert sum(one["n_samples"] for one in files) == dump.n
    assert {one["n_classes"] for one in files} == {dump.k}
    assert {one["kind"] for one in files} == {dump.kind}
    if dump.counts:
        assert [one["source_counts"] for one in files] == [dump.counts] * len(files)
    if dump.classes:
        assert [one["class_names"] for one in files] == [dump.classes] * len(files)
    splits = {}
    for one in files:
        for name, n in (one["splits"] or {}).items():
            splits[name] = splits.get(name, 0) + n
    assert splits == dump.splits
    found = run("evaluate", dump.name, *dump.args)
    np.testing.assert_allclose(found["acc"], dump.acc, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dump", [one for one in dumps.DUMPS if one.splits], ids=lambda dump: dump.name)
def test_parts_are_splits(dump, run):
    dump.make()
    n = {name: run("evaluate", dump.name, *dump.args, "--split", name)["n"] for name in dump.splits}
    assert n == dump.splits
    error = run("evaluate", dump.name, *dump.args, "--split", "elsewhere", code=65)
    assert "no sample of split 'elsewhere'; expected one of" in error and error.count("\n") == 1


def test_one_part_is_no_mixture_of_splits(run):
    """Neither the note that all splits are used nor the warning that lambda is tuned on them is said of one part."""
    next(one for one in dumps.DUMPS if one.name == "i.npz").make()
    whole, part = (run("search-lambda", name) for name in ("i.npz", "i.npz::val"))
    assert any("has a split field" in note for note in whole["notes"])
    assert any(one["code"] == "splits" for one in whole["warnings"])
    assert not any("split" in note for note in part["notes"])
    assert not any(one["code"] == "splits" for one in part["warnings"])


def test_the_page_is_made_from_the_dumps():
    text = (pathlib.Path(__file__).parent.parent / "docs" / "dumps.md").read_text()
    assert dumps.page() in text, "python tests/dumps.py"
    assert len(dumps.DUMPS) >= 60


# ------------------------------------------------------------------------------------------------
# what is refused, and what is not used


BAD = {
    "a ragged row": ("x.csv", "logit_0,logit_1,label\n1,2,0\n1,2\n", "2 fields at row 1; expected 3"),
    "a longer row": ("x.csv", "logit_0,logit_1,label\n1,2,0\n1,2,0,3\n", "4 fields at row 1; expected 3"),
    "NaN": ("x.csv", "logit_0,logit_1,label\n1,2,0\nnan,2,1\n", "nan at row 1"),
    "a text": ("x.csv", "logit_0,logit_1,label\n1,2,0\nhigh,2,1\n", "'high' at row 1; expected a number"),
    "nothing": ("x.csv", "logit_0,logit_1,label\n1,2,0\n,2,1\n", "'' at row 1; expected a number"),
    "a million columns": ("x.csv", ",".join(f"logit_{k}" for k in range(10**6)), "a first line of more than"),
    "a class of no name": (
        "x.csv",
        "prob_cat,prob_dog,label\n.5,.5,cat\n.4,.6,cow\n",
        "'cow' at row 1; expected one of cat, dog",
    ),
    "floats that may be anything": (
        "x.csv",
        "loss,margin,label\n.5,2.5,1\n.4,3.5,0\n",
        "columns of floats that may be scores",
    ),
    "no labels": ("x.csv", "logit_0,logit_1\n1,2\n", "no labels"),
    "only names": ("x.csv", "logit_0,logit_1,label\n", "no samples"),
}


@pytest.mark.parametrize("case", BAD)
def test_tables_that_are_refused(case, run):
    name, text, says = BAD[case]
    pathlib.Path(name).write_text(text)
    error = run("evaluate", name, code=65)
    assert says in error and len([line for line in error.splitlines() if "error" in line]) == 1


def test_labels_that_are_none(run):
    one_hot = np.eye(dumps.K)[dumps.Y]
    np.savez("hot.npz", logits=dumps.Z, labels=one_hot)
    assert "one-hot" in run("evaluate", "hot.npz", code=65)
    np.savez("float.npz", logits=dumps.Z, labels=dumps.Y.astype("f4"))
    assert "expected integers" in run("evaluate", "float.npz", code=65)
    np.save("z.npy", dumps.Z)
    for labels, says in ((one_hot, "one-hot"), (dumps.Y[:-1], "expected (60,)"), (dumps.Y.astype("f4"), "integers")):
        np.save("y.npy", labels)
        error = run("evaluate", "z.npy", "--labels", "y.npy", code=65)
        assert "y.npy" in error and (says in error or "shape" in error or "integers" in error)
    assert "no such file" in run("evaluate", "z.npy", "--labels", "none.npy", code=66)
    assert "{stem}" not in run("evaluate", "z.npy", "--labels", "truth/{stem}.npy", code=66)
    np.savez("many.npz", a=dumps.Y, b=dumps.Y)
    assert "no labels among a" in run("evaluate", "z.npy", "--labels", "many.npz", code=65)
    assert run("evaluate", "z.npy", "--labels", "many.npz::b")["n"] == dumps.N
    assert "labels.npy lies beside it" not in run("evaluate", "z.npy", code=65)
    np.save("labels.npy", dumps.Y)
    assert "labels.npy lies beside it (--labels labels.npy)" in run("evaluate", "z.npy", code=65)


def test_weights_are_not_used_and_that_is_said(run, capfd):
    np.savez("w.npz", logits=dumps.Z, labels=dumps.Y, sample_weight=np.ones(dumps.N))
    assert any("sample_weight is not used" in note for note in run("evaluate", "w.npz")["notes"])


def test_labels_of_each_file_of_several(run, folder):
    (folder / "truth").mkdir()
    for name, (z, y) in {"a": dumps.VAL, "b": dumps.TEST}.items():
        np.save(f"{name}.npy", z)
        np.save(f"truth/{name}_gt.npy", y)
        np.savetxt(f"truth/{name}.txt", y, "%d")
    for labels in ("truth/{stem}_gt.npy", "truth"):
        found = run("evaluate", "a.npy", "b.npy", "--labels", labels)
        assert found["n"] == dumps.N and found["acc"] == pytest.approx(dumps.acc(dumps.Z, dumps.Y), abs=1e-12)
    np.save("c.npy", dumps.VAL[0])
    assert "no file c.* in the folder" in run("evaluate", "a.npy", "c.npy", "--labels", "truth", code=66)


def test_a_table_whose_labels_change_is_another(run):
    """What stands in for the labels must stay as it is until the command ends, like every input."""
    np.save("z.npy", dumps.Z)
    np.save("y.npy", dumps.Y)
    import unoic_cli

    def rewrite(text):
        np.save("y.npy", dumps.Y[::-1])

    with pytest.raises(unoic_cli.errors.DataError, match=r"y\.npy.*changed while it was in use"):
        unoic_cli.evaluate("z.npy", labels="y.npy", tell=rewrite)


def test_arrays_as_people_have_them():
    import unoic_cli

    wanted = unoic_cli.evaluate(dumps.Z, dumps.Y).overall.values
    frozen = dumps.Z.copy()
    frozen.flags.writeable = False
    wide = np.zeros((dumps.N, 2 * dumps.K), "f4")
    wide[:, ::2] = dumps.Z
    for scores in (frozen, wide[:, ::2], np.asfortranarray(dumps.Z), dumps.Z.tolist(), dumps.Z.astype(">f4")):
        assert unoic_cli.evaluate(scores, dumps.Y).overall.values == wanted
    assert unoic_cli.evaluate(Tensor(dumps.Z), Tensor(dumps.Y)).overall.values == wanted
    assert unoic_cli.evaluate(dumps.P, dumps.Y, kind="probs").overall.values == wanted
    np.save("y.npy", dumps.Y)
    np.save("z.npy", dumps.Z)
    assert unoic_cli.evaluate("z.npy", "y.npy").overall.values == wanted
    assert unoic_cli.evaluate("z.npy", labels_file="y.npy").overall.values == wanted


def test_columns_that_are_no_classes_are_never_taken_for_some(run):
    """A column of floats that is no class makes K + 1 of K: rows that do not sum to 1 are refused, with the list."""
    names, labels = dumps.NAMES, [dumps.NAMES[k] for k in dumps.Y]
    for scores in (dumps.P, dumps.Z):
        for truth in (labels, dumps.Y):
            dumps.csv("x.csv", [*names, "loss", "label"], *scores.T, dumps.P[:, 0] * 3, truth)()
            error = run("evaluate", "x.csv", code=65)
            assert "columns of floats that may be scores" in error and "cat,dog,elk,fox,loss" in error
            found = run("evaluate", "x.csv", "--logits-key", "cat,dog,elk,fox")
            assert found["n_classes"] == 4 and found["acc"] == pytest.approx(dumps.acc(dumps.Z, dumps.Y), abs=1e-12)
    dumps.csv("y.csv", [*names, "label"], *dumps.Z.T, labels)()
    assert "--logits-key" in run("evaluate", "y.csv", code=65)


def test_masks_of_0_and_255(run):
    rng = np.random.default_rng(0)
    z, m = rng.normal(size=(4, 2, 8, 8)).astype("f4"), rng.random((4, 8, 8)) < 0.4
    np.savez("m.npz", logits=z, masks=m.astype("u1") * 255)
    assert any("if 255 is the other class" in note for note in run("evaluate", "m.npz")["notes"])
    assert [one["code"] for one in run("info", "m.npz")["files"][0]["findings"]] == ["mask-labels"]


def test_labels_elsewhere_of_other_samples_are_refused(run):
    order = np.random.default_rng(1).permutation(dumps.N)
    np.savez("z.npz", logits=dumps.Z, sample_id=np.arange(dumps.N))
    np.savez("t.npz", logits=dumps.Z, sample_id=np.array([f"é{i}" for i in range(dumps.N)]))
    dumps.csv("same.csv", ["sample_id", "label"], range(dumps.N), dumps.Y)()
    dumps.csv("other.csv", ["sample_id", "label"], order, dumps.Y[order])()
    dumps.csv("texts.csv", ["sample_id", "label"], [f"é{i}" for i in range(dumps.N)], dumps.Y)()
    dumps.h5("other.h5", label=dumps.Y[order], sample_id=order)()
    found = run("evaluate", "z.npz", "--labels", "same.csv")
    assert found["n"] == dumps.N and any("labels are read from same.csv:label" in note for note in found["notes"])
    assert run("evaluate", "t.npz", "--labels", "texts.csv")["n"] == dumps.N
    for other in ("other.csv", "other.h5", "texts.csv"):
        error = run("evaluate", "z.npz", "--labels", other, code=65)
        assert f"{other}:sample_id: " in error and "at sample 0" in error
    np.savez("own.npz", logits=dumps.Z, labels=dumps.Y[::-1])
    np.save("y.npy", dumps.Y)
    found = run("evaluate", "own.npz", "--labels", "y.npy")
    assert found["acc"] == pytest.approx(dumps.acc(dumps.Z, dumps.Y), abs=1e-12)
    assert any("labels are read from y.npy" in note for note in found["notes"])


def test_percentages_are_no_logits(run):
    np.savez("p.npz", outputs=dumps.P * 100, labels=dumps.Y)
    assert "or percentages); expected --kind" in run("evaluate", "p.npz", code=65)
    assert run("evaluate", "p.npz", "--kind", "probs")["n"] == dumps.N


def test_one_image_or_volume(run):
    np.save("i.npy", dumps.IMAGES[0])
    np.save("i_gt.npy", dumps.MASKS[0])
    found = run("evaluate", "i.npy", "--labels", "i_gt.npy")
    assert found["acc"] == pytest.approx(dumps.acc(dumps.IMAGES[0], dumps.MASKS[0], 0), abs=1e-12)
    cube = np.random.default_rng(0).normal(size=(4, 4, 5, 6)).astype("f4")
    np.savez("c.npz", logits=cube, labels=np.zeros((4, 5, 6), "i8"))
    found = run("evaluate", "c.npz")
    assert any("--class-axis 0 reads one volume" in note for note in found["notes"])
    assert found["acc"] == (cube.argmax(1) == 0).mean()
    assert run("evaluate", "c.npz", "--class-axis", "0")["acc"] == (cube.argmax(0) == 0).mean()
    dumps.nnunet()
    assert [one["axes"] for one in run("info", "pred")["files"]] == ["NCHW", "NCHW"]
    assert {one["n_samples"] for one in run("info", "pred")["files"]} == {1}


def test_tables_with_other_delimiters_and_packed_files(run):
    import gzip

    dumps.csv("s.csv", [*dumps.wide("logit", dumps.Z), "label"], *dumps.Z.T, dumps.Y, sep=";")()
    dumps.csv("t.csv", [*dumps.wide("logit", dumps.Z), "label"], *dumps.Z.T, dumps.Y, sep="\t")()
    for name in ("s.csv", "t.csv"):
        assert run("evaluate", name)["acc"] == pytest.approx(dumps.acc(dumps.Z, dumps.Y), abs=1e-12)
    pathlib.Path("s.csv.gz").write_bytes(gzip.compress(pathlib.Path("s.csv").read_bytes()))
    assert "gzip has packed; expected it unpacked" in run("evaluate", "s.csv.gz", code=65)


def test_batches_and_containers_of_pickles(run):
    z, y = dumps.Z, dumps.Y
    cuts = [slice(0, 25), slice(25, 50), slice(50, 60)]
    wanted = pytest.approx(dumps.acc(z, y), abs=1e-12)
    dumps.pickled("b.pkl", {"logits": [z[cut] for cut in cuts], "labels": [y[cut] for cut in cuts]})()
    dumps.pickled("p.pkl", [(z[cut], y[cut]) for cut in cuts])()
    dumps.torch("b.pt", {"logits": [dumps.torch_files.Tensor(z[cut]) for cut in cuts], "labels": y.tolist()})()
    for name in ("b.pkl", "p.pkl", "b.pt"):
        found = run("evaluate", name)
        assert found["acc"] == wanted and any("3 batches, put one behind the other" in note for note in found["notes"])
    dumps.pickled("m.pkl", {"rgb": z, "depth": z})()
    assert "no scores among" in run("evaluate", "m.pkl", code=65)
    dumps.pickled("two.pkl", (z, z))()
    assert "error" in run("evaluate", "two.pkl", code=65)
    dumps.pickled("n.pkl", {"resnet": {"logits": z, "labels": y}, "vit": {"logits": z[::-1], "labels": y}})()
    assert "2 candidates (resnet, vit); expected n.pkl::resnet" in run("evaluate", "n.pkl", code=65)
    assert run("evaluate", "n.pkl::resnet")["acc"] == wanted
    assert run("evaluate", "n.pkl::vit")["acc"] == (z[::-1].argmax(1) == y).mean()
