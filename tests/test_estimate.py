"""`prior --estimate`: the mix of unlabelled files, from any form of them, in any number of parts."""

from __future__ import annotations

import json
import os
import shlex
from typing import NamedTuple

import h5py
import numpy as np
import pytest

import unoic_cli
from unoic_cli.api.stored import Control, run
from unoic_cli.searches import target as mixes
from unoic_cli.tallies import kept
from unoic_cli.tallies.margins import margins

USAGE, DATA, NO_INPUT = 2, 65, 66
MIX, SHIFTED = np.array([0.6, 0.3, 0.1]), np.array([0.1, 0.3, 0.6])


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def say(run):
    """Run a line as it is typed."""
    return lambda line: Said(*run(*shlex.split(line)))


def world(seed, mix, n=600, image=(), sharp=2.0, blur=1.0):
    """Scores (N, K, ...) of which Bayes' rule makes a posterior, and labels drawn from a mix."""
    rng = np.random.default_rng(seed)
    y = rng.choice(len(mix), (n, *image), p=mix)
    z = sharp * (sharp * np.eye(len(mix))[y] + blur * rng.normal(size=(*y.shape, len(mix)))) + np.log(MIX[: len(mix)])
    return np.moveaxis(z, -1, 1).astype("f4"), y


def write(path, z, y=None, **more):
    with h5py.File(path, "w") as file:
        file["logits"] = z
        if z.ndim == 4:
            file["logits"].attrs["class_axis"] = 1
        for name, values in {**({} if y is None else {"labels": y}), **more}.items():
            file[name] = values
    return str(path)


def read(path):
    with open(path) as file:
        return json.load(file)


def both(shifted=True, **how):
    """Labelled and unlabelled files."""
    write("val.h5", *world(0, MIX, **how), source_counts=[6000, 3000, 1000])
    write("target.h5", world(1, SHIFTED if shifted else MIX, **how)[0])


def estimated(target="target.h5", labelled="val.h5", **how):
    return unoic_cli.prior(target, estimate=True, labelled=labelled, **how)


def of(labelled, y, target, s, mu, how="map-em"):
    """What the mathematics say of arrays."""
    z, x = (np.moveaxis(one, 1, -1).reshape(-1, one.shape[1]).astype(float) for one in (labelled, target))
    z, x = (one - one.max(axis=1, keepdims=True) for one in (z, x))
    rows = [mixes.Rows(one, margins(one + mu * s)) for one in (z, x)]
    return mixes.estimate(rows[0], y.ravel(), rows[1], s, how)


def test_a_shift_is_found_and_estimated():
    both()
    found = estimated()
    made = found.estimated
    (z, y), (x, t) = world(0, MIX), world(1, SHIFTED)
    expected = of(z, y, x, -np.log(MIX) - np.log(3), made.mu)
    np.testing.assert_allclose(found.prior, expected.prior, atol=1e-9)
    assert made.found.reason is None and made.found.test.p < 1e-9
    assert np.abs(np.array(found.prior) - np.bincount(t) / 600).sum() < 0.15
    np.testing.assert_allclose(made.found.interval.sd, expected.interval.sd, rtol=1e-6)
    assert (made.n_target, made.n_labelled, made.kept_target) == (600, 600, 600)
    assert found.counts == tuple(np.bincount(y)) and made.predicted == tuple(np.bincount(x.argmax(1), minlength=3))


def test_mu_is_that_of_the_search():
    both()
    searched = unoic_cli.search_lambda("val.h5", range="0:6:0.02")
    assert estimated().estimated.mu == pytest.approx(searched.lam)


def test_without_a_shift_the_prior_is_that_of_the_labelled(say):
    both(shifted=False)
    found = say("prior --estimate target.h5 --labelled val.h5 -o p.json")
    made = json.loads(found.out)
    assert (made["adopted"], made["reason"], made["prior"]) == (False, "no shift found", made["pi"])
    assert made["estimate"] != made["pi"] and "no shift found (p = " in found.err
    assert read("p.json") == made


def test_another_domain_is_not_adopted():
    write("val.h5", *world(0, MIX, 800), source_counts=[6, 3, 1])
    write("target.h5", 0.4 * world(1, SHIFTED, 800)[0])
    found = estimated()
    assert found.estimated.found.reason == "not a label shift" and found.estimated.found.distance.fires
    assert found.prior == tuple(found.estimated.found.pi)
    assert any("not a label shift: the margins of target.h5" in note for note in found.notes)


def test_the_estimate_is_a_target_prior_at_once(say):
    both()
    write("test.h5", *world(2, SHIFTED))
    for command in (
        "prior --estimate target.h5 --labelled val.h5 -o prior.json -q",
        "search-lambda val.h5 -l 1 -o c.json -q",
        "calibrate test.h5 -c c.json --target-prior prior.json -o out.h5",
    ):
        found = say(command)
        assert found.code == 0, found.err
    assert "target prior: prior.json, in place of the calibration's (uniform); lambda 1 is kept" in found.err
    prior = read("prior.json")["prior"]
    made = json.loads(found.out)
    assert made["calibration"]["target_prior"]["values"] == pytest.approx(prior)
    x, _ = world(2, SHIFTED)
    scores = x.astype(float) - np.log(MIX) + np.log(prior)
    with h5py.File("out.h5") as file:
        assert (file["log_probs"][:].argmax(1) == scores.argmax(1)).mean() > 0.999
    assert made["after"]["acc"] > made["before"]["acc"] + 0.03
    with open("p.tsv", "w") as file:
        file.write(say("prior --estimate target.h5 --labelled val.h5 --format tsv -q").out)
    again = say("evaluate test.h5 -c c.json --target-prior p.tsv")
    assert json.loads(again.out)["acc"] == pytest.approx(made["after"]["acc"])


def test_a_target_prior_needs_a_lambda(say):
    both()
    say("search-lambda val.h5 -l 0 -o zero.json")
    found = say("calibrate target.h5 -c zero.json --target-prior 1,2,3")
    assert found.code == USAGE and "at lambda 0 no prior plays a part" in found.err


@pytest.mark.parametrize("how", mixes.HOW)
def test_every_way_finds_the_mix(how, say):
    both()
    made = json.loads(say(f"prior --estimate target.h5 --labelled val.h5 --how {how}").out)
    (z, y), (x, _) = world(0, MIX), world(1, SHIFTED)
    expected = of(z, y, x, -np.log(MIX) - np.log(3), made["margins"]["mu"], how)
    assert made["how"] == how and made["estimate"] == pytest.approx(expected.mix.q.tolist(), abs=1e-9)
    assert np.abs(np.array(made["estimate"]) - SHIFTED).sum() < 0.2


def test_splits_of_one_file():
    (z, y), (x, t) = world(0, MIX), world(1, SHIFTED)
    both()
    split = np.array(["val"] * 600 + ["test"] * 600, dtype="S4")
    write("all.h5", np.concatenate([z, x]), np.concatenate([y, t]), split=split, source_counts=[6000, 3000, 1000])
    alone = estimated("all.h5", "all.h5", split="test", labelled_split="val")
    assert alone.prior == estimated().prior and alone.split == "test"


def test_images_are_clusters_and_ignored_labels_are_none(say):
    z, y = world(0, MIX, 40, (5, 4))
    y[:, 0, 0] = 255
    z[0, :, 0, 0] = np.nan  # never predicted, and nobody asks
    x, t = world(1, SHIFTED, 30, (5, 4))
    t[:, 0, 0], x[3, :, 0, 0] = 255, np.nan
    write("val.h5", z, y, source_counts=[6, 3, 1])
    write("target.h5", x, t)
    made = json.loads(say("prior --estimate target.h5 --labelled val.h5").out)
    assert (made["n_labelled"], made["n_ignored"], made["n_target"]) == (40 * 19, 40, 600 - 1)
    assert sum(made["predicted"]) == 599 and made["adopted"]
    assert np.abs(np.array(made["prior"]) - SHIFTED).sum() < 0.15
    rows = estimated(labelled="val.h5").estimated
    assert rows.found.interval.full


def test_few_images_are_said_to_be_few():
    both(n=6, image=(10, 10))
    assert any("from 6 images the test and the intervals are rough" in note for note in estimated().notes)


@pytest.mark.parametrize("fusion", ["noisy-or", "product", "average"])
def test_modalities_are_fused(fusion):
    for name, blur in (("rgb", 1.0), ("depth", 1.5)):
        seed = 0 if name == "rgb" else 10
        (z, y), (x, _) = world(0, MIX, blur=blur), world(1, SHIFTED, blur=blur)
        noise = np.random.default_rng(seed).normal(size=(2, 600, 3)).astype("f4")
        write(f"{name}-val.h5", z + noise[0], y, source_counts=[6000, 3000, 1000])
        write(f"{name}-target.h5", x + noise[1])
    names = {"rgb": "rgb-target.h5", "depth": "depth-target.h5"}
    found = estimated(names, {"rgb": "rgb-val.h5", "depth": "depth-val.h5"}, fusion=fusion)
    assert found.estimated.found.reason is None
    assert np.abs(np.array(found.prior) - SHIFTED).sum() < 0.2
    assert found.files == ("depth=depth-target.h5", "rgb=rgb-target.h5")


def test_command_line_names_modalities(say):
    for name in ("rgb", "depth"):
        write(f"{name}-val.h5", *world(0, MIX), source_counts=[6, 3, 1])
        write(f"{name}-target.h5", world(1, SHIFTED)[0])
    found = say(
        "prior --estimate rgb=rgb-target.h5 depth=depth-target.h5 --labelled rgb=rgb-val.h5 --labelled "
        "depth=depth-val.h5 --fusion product --format table"
    )
    assert found.code == 0, found.err
    assert "adopted (map-em)" in found.out


@pytest.mark.parametrize("image", [(), (5, 4)])
def test_shards_threads_and_samples_change_nothing(image, monkeypatch):
    monkeypatch.setattr(kept, "MOST_BYTES", 3 * 4 * 300)
    both(n=40 if image else 800, image=image)
    whole = estimated(threads=1)
    assert whole.estimated.kept_target < whole.estimated.n_target
    assert any(note.startswith("target.h5: a sample of ") for note in whole.notes)
    assert estimated(threads=3).to_dict() == whole.to_dict()
    states = [f"{i}.unoic" for i in (1, 2, 3)]
    how = {"estimate": True, "labelled": "val.h5"}
    for i, state in enumerate(states, 1):
        run("prior", "target.h5", control=Control(shard=f"{i}/3", state=state), **how)
    for name in ("val.h5", "target.h5"):
        os.rename(name, f"gone-{name}")
    command, merged = unoic_cli.report_states(states)
    assert command == "prior" and merged.to_dict() == whole.to_dict()


def test_a_file_of_both_kinds_of_scores(say):
    both()
    with h5py.File("val.h5") as file, h5py.File("soft.h5", "w") as soft:
        z = file["logits"][:].astype(float)
        soft["probs"] = (np.exp(z) / np.exp(z).sum(1, keepdims=True)).astype("f4")
        soft["labels"], soft["source_counts"] = file["labels"][:], file["source_counts"][:]
    found = json.loads(say("prior --estimate target.h5 --labelled soft.h5").out)
    assert found["prior"] == pytest.approx(list(estimated().prior), abs=1e-3)


def test_a_calibration_says_how_scores_are_made(say):
    both()
    say("search-lambda val.h5 -o c.json --temperature 2 -q")
    halved = json.loads(say("prior --estimate target.h5 --labelled val.h5 -c c.json").out)
    plain = json.loads(say("prior --estimate target.h5 --labelled val.h5").out)
    assert halved["fit"]["a"] == pytest.approx(2 * plain["fit"]["a"], rel=0.05)  # but for its prior
    assert halved["estimate"] == pytest.approx(plain["estimate"], abs=0.01)


# ---------------------------------------------------------------- bad input


def refused(say, command, code, *texts):
    found = say(command)
    assert found.code == code and not found.out, found.err
    last = found.err.strip().splitlines()[-1]
    assert last.startswith("unoic: error: ") and all(text in last for text in texts), last


def test_options_that_do_not_go_together(say):
    both()
    refused(say, "prior --estimate target.h5", USAGE, "--estimate without --labelled")
    refused(say, "prior val.h5 --labelled val.h5", USAGE, "--labelled without --estimate")
    refused(say, "prior val.h5 --how em", USAGE, "--how without --estimate")
    refused(say, "prior val.h5 --fusion product", USAGE, "--fusion without --estimate")
    refused(say, "prior --estimate target.h5 --labelled val.h5 --how mle", USAGE, "'mle'", "map-em, em, bbse")
    refused(say, "prior --estimate target.h5 --labelled nothing.h5", NO_INPUT, "nothing.h5: no such file")
    refused(say, "prior --estimate target.h5 --labelled target.h5", DATA, "no labels")
    os.symlink("val.h5", "link.h5")
    for spelt in ("val.h5", "./val.h5", "link.h5"):
        refused(say, f"prior --estimate {spelt} --labelled val.h5", USAGE, "whose mix is to be estimated")
    refused(say, "prior --estimate target.h5 --labelled val.h5 --fusion product", USAGE, "nothing to fuse")
    refused(say, "prior --estimate target.h5 --labelled val.h5 -o val.h5 --force", 73, "the output is also an input")


def test_data_from_which_nothing_can_be_told(say):
    both()
    (z, y), (x, _) = world(0, MIX), world(1, SHIFTED)
    command = "prior --estimate {} --labelled {}"
    write("four.h5", np.zeros((5, 4), "f4") + np.arange(5)[:, None])
    refused(say, command.format("four.h5", "val.h5"), DATA, "four.h5: 4 classes; expected 3, as val.h5 has")
    write("one.h5", z[:1], y[:1])
    refused(say, command.format("target.h5", "one.h5"), DATA, "1 labelled unit for 3 classes")
    write("few.h5", z[:2], y[:2])
    refused(say, command.format("target.h5", "few.h5"), DATA, "2 labelled units for 3 classes")
    write("none.h5", z, np.full(600, 255), source_counts=[6, 3, 1])
    refused(say, command.format("target.h5", "none.h5"), DATA, "no labelled unit (600 ignored)")
    write("same.h5", z, np.ones(600, int))
    refused(say, command.format("target.h5", "same.h5"), DATA, "all 600 labels are 1")
    write("flat.h5", np.ones_like(z), y)
    refused(say, command.format("target.h5", "flat.h5"), DATA, "the same scores for every unit")
    refused(say, command.format("flat.h5", "val.h5"), DATA, "flat.h5", "the same scores for every unit")
    write("single.h5", x[:1])
    refused(say, command.format("single.h5", "val.h5"), DATA, "single.h5: 1 unit; expected two or more")
    zero = np.abs(z) / np.abs(z).sum(1, keepdims=True)
    zero[0, y[0]] = 0
    with h5py.File("zero.h5", "w") as file:
        file["probs"], file["labels"] = zero / zero.sum(1, keepdims=True), y
    refused(say, command.format("target.h5", "zero.h5"), DATA, "1 labelled unit whose own class has probability zero")
    write("nan.h5", np.where(np.arange(600)[:, None] == 7, np.nan, x))
    refused(say, command.format("nan.h5", "val.h5"), DATA, "nan at row 7")


def test_class_names_must_agree(say):
    (z, y), (x, _) = world(0, MIX), world(1, SHIFTED)
    write("val.h5", z, y, class_names=["a", "b", "c"], source_counts=[6, 3, 1])
    write("moved.h5", x, class_names=["c", "b", "a"])
    write("other.h5", x, class_names=["d", "e", "f"])
    write("target.h5", x)
    command = "prior --estimate {} --labelled val.h5"
    refused(say, command.format("moved.h5"), DATA, "the same class names in another order; expected those of val.h5")
    refused(say, command.format("other.h5"), DATA, "other class names")
    found = say(command.format("target.h5"))
    assert json.loads(found.out)["class_names"] == ["a", "b", "c"] and "taken by position" in found.err


def test_what_makes_it_less_sure_is_said(say):
    z, y = world(0, MIX)
    x = world(1, SHIFTED)[0]
    write("target.h5", x)
    write("val.h5", z[y < 2], y[y < 2], source_counts=[6, 3, 1])
    assert "1 class without a labelled unit" in say("prior --estimate target.h5 --labelled val.h5").err
    right = z.argmax(1) == y
    write("val.h5", z[right] + 50 * np.eye(3, dtype="f4")[y[right]], y[right], source_counts=[6, 3, 1])
    assert "every labelled unit into its class" in say("prior --estimate target.h5 --labelled val.h5").err
    write("val.h5", z, (y + 1) % 3, source_counts=[6, 3, 1])
    assert "or the contrary" in say("prior --estimate target.h5 --labelled val.h5").err
    write("val.h5", z, y, source_counts=[6, 3, 1])
    write("target.h5", x[:2])
    found = say("prior --estimate target.h5 --labelled val.h5")
    assert "too few, or too alike, for intervals" in found.err and json.loads(found.out)["interval"]["lower"] is None


def test_two_classes_and_huge_scores():
    z, y = world(0, MIX[:2] / MIX[:2].sum())
    x, t = world(1, np.array([0.2, 0.8]))
    found = unoic_cli.prior(x, estimate=True, labelled=unoic_cli.from_arrays(z, y), source_prior=[6, 3])
    assert abs(found.prior[1] - np.mean(t)) < 0.12
    huge = unoic_cli.prior(
        x * np.float32(1e30),
        estimate=True,
        labelled=unoic_cli.from_arrays(z * np.float32(1e30), y),
        source_prior=[6, 3],
    )
    assert np.isfinite(huge.prior).all() and huge.prior[0] == pytest.approx(1 - huge.prior[1])
