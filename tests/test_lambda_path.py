"""`LambdaPath`: batches that are counted as they pass by give what `search_lambda` finds in a file of all of them."""

from __future__ import annotations

import copy
import itertools
import json
import os
import pathlib
import pickle
import signal
import threading
import time

import h5py
import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensors import Tensor

import unoic_cli
from unoic_cli import LambdaPath, from_arrays, search_lambda
from unoic_cli.api import lambda_path
from unoic_cli.data import sampling
from unoic_cli.errors import UnoicError
from unoic_cli.tallies import evidence, kept

COUNTS = [50, 20, 8, 2]
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def made(n, counts=COUNTS, shape=(), dtype="f4", seed=0, ignored=0.1):
    """Logits and labels of a network that has learnt how frequent classes are."""
    rng, p = np.random.default_rng(seed), np.array(counts) / sum(counts)
    y = rng.choice(p.size, size=(n, *shape), p=p)
    z = rng.normal(size=(n, *shape, p.size)) + 2 * np.eye(p.size)[y] + np.log(p)
    y[rng.random(y.shape) < ignored] = 255
    return np.moveaxis(z, -1, 1).astype(dtype), y


def cut(n, edges):
    edges = sorted({0, n, *edges})
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


def counted(path, z, y, pieces, **how):
    for piece in pieces:
        path.update(z[piece], y[piece], **how)
    return path


def plain(result):
    """A result as text."""
    return json.dumps(result if isinstance(result, dict) else result.to_dict())


def state_of(path):
    return pickle.dumps(path)


@pytest.mark.kernel
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_counts_are_those_of_the_formula(data):
    """Ties, equal priors and any cuts: at every lambda the arg max of Eq. 7, the lowest class on ties."""
    k, n = data.draw(st.integers(2, 5)), data.draw(st.integers(1, 30))
    shape = data.draw(st.sampled_from([(), (), (2, 3)]))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    z = (rng.integers(-3, 4, size=(n, k, *shape)) / 2).astype(data.draw(st.sampled_from(["f2", "f4", "f8"])))
    y = rng.integers(0, k, size=(n, *shape))
    y.reshape(-1)[1:][rng.random(y.size - 1) < 0.2] = data.draw(st.sampled_from([255, -1, -100]))
    prior = [data.draw(st.sampled_from([1, 2, 4, 50])) for _ in range(k)]
    path = LambdaPath(k, source_prior=prior, range=(-1, 2), step=0.25, choose="best")
    found = counted(path, z, y, cut(n, data.draw(st.lists(st.integers(0, n))))).compute()
    rows = np.moveaxis(z, 1, -1).reshape(-1, k)
    labels = np.where((y < 0) | (y >= k), -1, y).reshape(-1)
    hits, predicted, support = naive.curve(rows, labels, naive.slopes(prior, np.ones(k)), found.lams)
    assert found.lams.tolist() == np.arange(-1, 2.25, 0.25).tolist()
    assert (found.counts.hits == hits).all() and (found.counts.predicted == predicted).all()
    assert (found.counts.support == support).all() and path.n_units == y.size and found.n == support.sum()
    for g in range(found.lams.size):
        for name, value in naive.metrics(hits[g], predicted[g], support).items():
            assert found.curve[name][g] == pytest.approx(value, nan_ok=True)


WAYS = {
    "rows": {},
    "images": {"shape": (7, 9), "n": 40},
    "half": {"dtype": "f2"},
    "double": {"dtype": "f8"},
    "metric": {"options": {"metric": "miou", "metrics": "gmean,kappa,top2,recall[1]"}},
    "best": {"options": {"choose": "best", "metric": "acc", "absent": "zero"}},
    "bound": {"options": {"subject_to": "recall[0]>=0.5 and acc>=base-0.05", "metric": "f1", "require": "macc>0"}},
    "range": {"options": {"range": "0.5:1.5", "step": 0.05, "temperature": 1.5, "target_prior": [1, 2, 3, 4]}},
    "unit": {"shape": (5, 4), "n": 30, "options": {"cluster": "unit", "ignore_index": [2]}},
    "masked": {"options": {"source_prior": [50, 20, 8, 0], "unseen": "mask"}},
    "names": {"options": {"source_prior": {"a": 5, "b": 2, "c": 1, "d": 1}, "class_names": list("abcd")}},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("spare", [0, 8, 10**9], ids=["apart", "as it is", "here"])
def test_it_is_the_search_of_all_batches(way, spare, monkeypatch):
    """To the last digit, whether batches are counted in threads or here, and whatever they were."""
    monkeypatch.setattr(lambda_path, "_SPARE", spare)
    n = WAYS[way].get("n", 900)
    z, y = made(n, shape=WAYS[way].get("shape", ()), dtype=WAYS[way].get("dtype", "f4"))
    options = {"source_prior": COUNTS, **WAYS[way].get("options", {})}
    names = options.pop("class_names", None)
    known = {} if names is None else {"class_names": names}
    path = LambdaPath(4, **options, **known)
    source = from_arrays(z, y, class_axis=1 if z.ndim == 4 else None, **known)
    right = plain(search_lambda(source, **options))
    for pieces in ([slice(0, n)], cut(n, [1, 2, n // 3, n - 5])):
        assert plain(counted(path, z, y, pieces).compute()) == right
        path.reset()
    assert path.n_units == 0


@pytest.mark.parametrize("kind", ["probs", "log_probs"])
def test_probabilities(kind):
    z, y = made(600)
    p = naive.softmax(z)
    p[5] = [0.5, 0.5, 0, 0]
    with np.errstate(divide="ignore"):
        scores = (p if kind == "probs" else np.log(p)).astype("f4")
    path = counted(LambdaPath(4, source_counts=COUNTS, kind=kind), scores, y, cut(600, [3, 200]))
    source = from_arrays(scores, y, kind=kind, source_counts=COUNTS)
    assert plain(path.compute()) == plain(search_lambda(source))


def test_channels_last_one_score_and_masks():
    z, y = made(30, shape=(6, 5))
    right = plain(search_lambda(from_arrays(z, y, class_axis=1), source_prior=COUNTS))
    path = LambdaPath(4, source_prior=COUNTS)
    for piece in cut(30, [4, 17]):
        path.update(np.moveaxis(z[piece], 1, -1), y[piece], class_axis=-1)
    assert plain(path.compute()) == right
    one, two = made(300, [9, 1])
    for shape in ((300,), (300, 1)):
        flat = (one[:, 1] - one[:, 0]).reshape(shape)
        path = counted(LambdaPath(2, source_prior=[9, 1]), flat, two, cut(300, [100]))
        assert plain(path.compute()) == plain(search_lambda(flat, two, source_prior=[9, 1]))
    z, y = made(300)
    z[7, 2], z[130, [0, 1]], z[11] = -np.inf, -np.inf, np.nan
    y[11] = 255  # a unit without a label takes no part
    path = counted(LambdaPath(4, source_prior=COUNTS), z, y, cut(300, [100, 128]))
    assert plain(path.compute()) == plain(search_lambda(z, y, source_prior=COUNTS))


def test_images_of_several_sizes_are_parts():
    small, large = made(12, shape=(4, 5), seed=1), made(8, shape=(6, 3), seed=2)
    path = LambdaPath(4, source_prior=COUNTS)
    for piece in cut(8, [3]):
        counted(path, *small, [piece])
        counted(path, *large, [piece])
    counted(path, *small, [slice(8, 12)])
    sources = [from_arrays(*one, class_axis=1, name=f"<array {i}>") for i, one in enumerate((small, large), 1)]
    assert plain(path.compute()) == plain(search_lambda(sources, source_prior=COUNTS))
    assert (path.n_samples, path.n_units) == (20, 12 * 20 + 8 * 18)


@pytest.mark.parametrize("shape", [(), (20, 30)])
def test_units_that_are_kept_are_those_of_the_file(shape, monkeypatch):
    """Of more units than are kept, those that a file would keep, whatever the batches."""
    monkeypatch.setattr(kept, "MOST_BYTES", 700 * 4 * 4)
    n = 9 if shape else 6000
    z, y = made(n, shape=shape, seed=3)
    source = from_arrays(z, y, class_axis=1 if shape else None)
    right = search_lambda(source, source_prior=COUNTS)
    assert right.choice["kept"] < right.choice["of"] / 4
    for spare in (0, 10**9):
        monkeypatch.setattr(lambda_path, "_SPARE", spare)
        for pieces in (cut(n, []), cut(n, [1, n // 2]), cut(n, range(0, n, max(1, n // 60)))):
            path = counted(LambdaPath(4, source_prior=COUNTS), z, y, pieces)
            assert plain(path.compute()) == plain(right)


def test_many_pieces_of_the_sample_are_joined(monkeypatch):
    monkeypatch.setattr(kept, "_MOST_PIECES", 4)
    z, y = made(60)
    path = counted(LambdaPath(4, source_prior=COUNTS), z, y, cut(60, range(60)))
    tally = next(one for one in path._tallies if isinstance(one, kept.KeptTally))
    assert len(tally._held) <= 5 and plain(path.compute()) == plain(search_lambda(z, y, source_prior=COUNTS))


# ------------------------------------------------------------------------------------------------ several


def ranks(n, pieces, shape=(), **options):
    z, y = made(n, shape=shape)
    paths = []
    for piece in pieces:
        path = LambdaPath(4, source_prior=COUNTS, **options)
        paths.append(counted(path, z[piece], y[piece], cut(len(z[piece]), [3, 7])))
    return z, y, paths


def sizeless(result, **more):
    """A result but for the names of its inputs, however many these are, and what else is to be said instead."""
    found = copy.deepcopy(result.to_dict())
    found["calibration"]["provenance"].pop("files")
    return plain({**found, "files": [], **more})


@pytest.mark.parametrize("shape", [(), (5, 4)])
def test_sums_are_the_search_of_all(shape):
    n = 60 if shape else 900
    z, y, paths = ranks(n, cut(n, [n // 4, n // 2]), shape)
    right = sizeless(search_lambda(from_arrays(z, y, class_axis=1 if shape else None), source_prior=COUNTS))
    before = [state_of(path) for path in paths]
    a, b, c = paths
    both = a + b
    for total in (both + c, a + (b + c), sum(paths)):
        assert sizeless(total.compute()) == right and total.n_units == y.size
    assert [state_of(path) for path in paths] == before
    total = LambdaPath(4, source_prior=COUNTS)
    total.merge_state(paths)
    assert sizeless(total.compute()) == right
    a.merge_state(b)
    a.merge_state([c])
    assert sizeless(a.compute()) == right


def test_thinned_samples_are_joined_as_they_were_thinned(monkeypatch):
    """Places of a part decide which of its units are kept, so an order or a way of adding changes nothing."""
    monkeypatch.setattr(kept, "MOST_BYTES", 700 * 4 * 4)
    z, y, (a, b, c) = ranks(6000, cut(6000, [1000, 3500]))
    found = [(a + b) + c, a + (b + c)]
    one, other = (sizeless(path.compute()) for path in found)
    whole = search_lambda(z, y, source_prior=COUNTS)
    first = found[0].compute()
    assert one == other and 350 < first.choice["kept"] <= 700 and first.choice["of"] == whole.choice["of"]
    assert (first.counts.hits == whole.counts.hits).all() and (first.counts.predicted == whole.counts.predicted).all()
    assert plain(first.baseline) == plain(whole.baseline) and plain(first.rebalanced) == plain(whole.rebalanced)
    tally = next(one for one in found[0]._tallies if isinstance(one, kept.KeptTally))
    places = tally.joined()["places"]
    assert np.unique(places).size == places.size and kept.of_level(places, tally.level).all()
    for number, path in enumerate((a, b, c)):
        own = next(one for one in path._tallies if isinstance(one, kept.KeptTally)).joined()["places"]
        mine = places[places >> 40 == number] & ((1 << 40) - 1)
        assert set(mine.tolist()) == set(own[kept.of_level(own, tally.level)].tolist())


@pytest.mark.parametrize("spare", [0, 10**9])
@pytest.mark.parametrize("shape", [(), (20, 30)])
def test_samples_that_have_places_may_be_counted_by_anyone(shape, spare, monkeypatch, answer):
    """To the last digit what a file in the order of the data set gives, whoever counts which samples, and when."""
    monkeypatch.setattr(kept, "MOST_BYTES", 700 * 4 * 4)
    monkeypatch.setattr(lambda_path, "_SPARE", spare)
    n = 12 if shape else 6000
    z, y = made(n, shape=shape)
    z[[3, 4, 7, 9]] = 1.5  # what looks wrong is said of the same rows, of each part
    right = search_lambda(from_arrays(z, y, class_axis=1 if shape else None), source_prior=COUNTS)
    assert right.choice["kept"] < right.choice["of"]
    order = np.random.default_rng(7).permutation(n)
    paths = [LambdaPath(4, source_prior=COUNTS) for _ in range(3)]
    for i, index in enumerate(np.array_split(order, 7)):
        paths[i % 3].update(z[index], y[index], index=index)
    alone = LambdaPath(4, source_prior=COUNTS)
    for index in np.array_split(order[::-1], 5):
        alone.update(z[index], y[index], index=index)
    assert plain(alone.compute()) == plain(right) and "equal scores" in right.notes[-1]
    for total in (sum(paths), paths[2] + (paths[0] + paths[1]), pickle.loads(pickle.dumps(sum(paths)))):
        assert sizeless(total.compute(), notes=[]) == sizeless(right, notes=[])
    for i, path in enumerate(paths):
        path.save(f"{i}.unoic")
    answer("merge", "2.unoic", "0.unoic", "-o", "some.unoic")
    for states in (["0.unoic", "1.unoic", "2.unoic"], ["some.unoic", "1.unoic"]):
        assert sizeless(unoic_cli.report_states(states)[1], notes=[]) == sizeless(right, notes=[])


def test_places_are_checked(refuse):
    z, y = made(60)
    path = LambdaPath(4, source_prior=COUNTS)
    path.update(z[:20], y[:20], index=np.arange(20))
    before = state_of(path)
    for index, said in [
        (np.arange(19), "expected integers, (20,)"),
        (np.arange(20.0), "float64 (20,)"),
        (np.arange(-1, 19), "-1 to 18; expected places in [0, 1,099,511,627,776)"),
        (np.arange(20) + (1 << 40), "expected places in"),
        (None, "index: no index; expected one, as before"),
    ]:
        with pytest.raises(UnoicError) as caught:
            path.update(z[20:40], y[20:40], index=index)
        assert said in str(caught.value)
    assert state_of(path) == before
    other = counted(LambdaPath(4, source_prior=COUNTS), z, y, [slice(20, 60)])
    with pytest.raises(UnoicError, match="no index; expected one"):
        path + other
    with pytest.raises(UnoicError, match="an index; expected none"):
        other.update(z[:20], y[:20], index=np.arange(20))
    path.save("a.unoic")
    other.save("b.unoic")
    assert "samples that have places, beside others" in refuse(65, "merge", "a.unoic", "b.unoic")
    images = LambdaPath(4, source_prior=COUNTS)
    images.update(*made(3, shape=(4, 4)), index=[2, 0, 1])
    with pytest.raises(UnoicError, match="places are those of images of one size"):
        images.update(*made(3, shape=(4, 5)), index=[3, 4, 5])


def test_samples_that_two_have_are_counted_twice():
    """As samplers of distributed runs repeat some, to fill up."""
    z, y = made(300, ignored=0)
    paths = [LambdaPath(4, source_prior=COUNTS) for _ in range(2)]
    for path in paths:
        index = np.array([0, *range(1, 300)]) if path is paths[0] else np.array([0, 5])
        path.update(z[index], y[index], index=index)
    for i, path in enumerate(paths):
        path.save(f"{i}.unoic")
    found = sum(paths).compute()
    assert found.n == 302 == found.choice["kept"]
    assert sizeless(unoic_cli.report_states(["0.unoic", "1.unoic"])[1]) == sizeless(found)
    twice = np.concatenate([np.arange(300), [0, 5]])
    assert found.best == search_lambda(z[twice], y[twice], source_prior=COUNTS, range=(found.lam, found.lam)).best


def test_batches_may_follow_a_sum():
    _, _, (a, b) = ranks(200, cut(200, [80]))
    total = a + b
    more, truth = made(50, seed=9)
    total.update(more, truth)
    assert total.n_units == 250
    with_b = counted(LambdaPath(4, source_prior=COUNTS), more, truth, cut(50, []))
    a.update(more, truth)  # behind its own
    assert sizeless(total.compute()) == sizeless((a + b).compute()) != sizeless((b + with_b).compute())


def test_copies_go_their_own_way():
    z, y, (a, _) = ranks(200, cut(200, [80]))
    right = sizeless(search_lambda(z, y, source_prior=COUNTS))
    for other in (pickle.loads(pickle.dumps(a)), copy.deepcopy(a)):
        assert plain(other.compute()) == plain(a.compute())
        other.update(z[80:], y[80:])
        assert sizeless(other.compute()) == right and a.n_units == 80
    empty = LambdaPath(4, source_prior=COUNTS)
    assert plain((empty + a).compute()) == plain((a + empty).compute()) == plain(a.compute())
    assert pickle.loads(pickle.dumps(empty)).n_units == 0


OTHERS = [
    ({"range": "0:3"}, "another range"),
    ({"source_prior": [1, 2, 3, 4]}, "another source_prior"),
    ({"class_names": list("abcd")}, "another class_names"),
    ({"kind": "log_probs"}, "another kind"),
]


@pytest.mark.parametrize("options, said", OTHERS)
def test_others_are_not_added(options, said):
    z, y = made(60)
    path = counted(LambdaPath(4, source_prior=COUNTS), z, y, cut(60, []))
    other = LambdaPath(4, **{"source_prior": COUNTS, **options})
    before = state_of(path)
    for add in (lambda: path + other, lambda: path.merge_state([other])):
        with pytest.raises(UnoicError, match=said):
            add()
    for wrong in (path, [path], [3]):
        with pytest.raises(UnoicError, match=r"the same batches again|expected LambdaPath"):
            path.merge_state(wrong)
    with pytest.raises(UnoicError, match="the same batches again"):
        path + path
    with pytest.raises(TypeError):
        path + 1
    for shape, dtype, text in [((2, 2), "f4", "images of scores"), ((), "f8", "float64 scores")]:
        with pytest.raises(UnoicError, match=text):
            path + counted(LambdaPath(4, source_prior=COUNTS), *made(9, shape=shape, dtype=dtype), cut(9, []))
    assert state_of(path) == before


# ------------------------------------------------------------------------------------------------ states


@pytest.mark.parametrize("shape", [(), (5, 4)])
def test_states_are_merged_and_reported(shape, answer):
    """The JSON of the command on one file of all batches, but for the names of inputs."""
    n = 60 if shape else 900
    z, y, paths = ranks(n, cut(n, [n // 4, n // 2]), shape)
    for i, path in zip((0, 2, 10), paths, strict=True):
        path.save(f"rank{i}.unoic")
    answer("merge", "rank10.unoic", "rank0.unoic", "rank2.unoic", "-o", "all.unoic")
    whole = answer("report", "all.unoic", "-o", "c.json")
    assert whole["files"] == ["rank0", "rank2", "rank10"]
    assert whole == answer("merge", "rank*.unoic") == answer("report", "rank2.unoic", "rank10.unoic", "rank0.unoic")
    with h5py.File("val.h5", "w") as file:
        file["logits"], file["labels"] = z, y.astype("u1")
        file["logits"].attrs["class_axis"] = 1
    right = answer("search-lambda", "val.h5", "--source-prior", ",".join(map(str, COUNTS)))
    for result in (whole, right):
        assert result["calibration"]["provenance"].pop("files") == result.pop("files")
    assert plain(whole) == plain(right)
    assert unoic_cli.Calibration.load("c.json").lam == right["lambda"]
    command, result = unoic_cli.report_states(["all.unoic"])
    assert command == "search-lambda" and sizeless(result) == sizeless(sum(paths).compute())
    answer("merge", "all.unoic", "-o", "again.unoic")
    assert pathlib.Path("again.unoic").read_bytes() == pathlib.Path("all.unoic").read_bytes()


def test_a_state_has_the_name_of_its_file_or_another(answer, refuse):
    _, _, (a, b) = ranks(200, cut(200, [80]))
    os.mkdir("1")
    a.save("val.unoic")
    b.save("1/val.unoic")
    said = refuse(65, "merge", "val.unoic", "1/val.unoic", "-o", "all.unoic")
    assert said.startswith("1/val.unoic: batches named val, which val.unoic has, too; expected each once")
    assert "batches named val" in refuse(65, "report", "val.unoic", "val.unoic")
    b.save("1/val.unoic", name="later", force=True)
    assert answer("merge", "val.unoic", "1/val.unoic")["files"] == ["later", "val"]
    (a + b).save("sum.unoic")
    assert answer("report", "sum.unoic")["files"] == ["sum.1", "sum.2"]
    with pytest.raises(UnoicError, match="exists"):
        a.save("val.unoic")
    for name in ("", "a\nb"):
        with pytest.raises(UnoicError, match="printable name"):
            a.save("x.unoic", name=name)
    with pytest.raises(UnoicError, match="folder"):
        a.save("nowhere/x.unoic")
    with pytest.raises(UnoicError, match="nothing was counted"):
        LambdaPath(4, source_prior=COUNTS).save("x.unoic")
    with pytest.raises(UnoicError, match="nothing was counted"):
        LambdaPath(4, source_prior=COUNTS).compute()
    assert not os.path.exists("x.unoic") and not os.path.exists("all.unoic")


def test_a_name_is_nothing_but_a_name(answer):
    """A pattern, a list, a modality or standard input it would be, were it typed."""
    _, _, (a, b) = ranks(200, cut(200, [80]))
    for name in ("rgb=1", "*", "@list", "-", "a b"):
        a.save("a.unoic", name=name, force=True)
        b.save("b.unoic", name="zz", force=True)
        assert answer("report", "a.unoic", "b.unoic")["files"] == [name, "zz"]


def test_states_of_others_are_refused(refuse):
    z, y, (a, _) = ranks(200, cut(200, [80]))
    a.save("a.unoic")
    with h5py.File("val.h5", "w") as file:
        file["logits"], file["labels"], file["source_counts"] = z, y, COUNTS
    unoic_cli.run("search-lambda", "val.h5", control=unoic_cli.Control(state="file.unoic"))
    for order in (("a.unoic", "file.unoic"), ("file.unoic", "a.unoic")):
        assert "a state of files beside those of batches" in refuse(65, "merge", *order)
    for options, said in [
        ({"range": "0:3"}, 'range is \'"0:3"\'|range is "0:3"'),
        ({"source_counts": COUNTS}, "other source_counts"),
        ({"class_names": list("abcd")}, "other class_names"),
    ]:
        other = LambdaPath(4, **{"source_prior": COUNTS, **options})
        counted(other, z, y, cut(200, [])).save("b.unoic", force=True)
        with pytest.raises(UnoicError, match=said):
            unoic_cli.merge_states(["a.unoic", "b.unoic"], "all.unoic")
    for shape, dtype in [((2, 2), "f4"), ((), "f8")]:
        other = counted(LambdaPath(4, source_prior=COUNTS), *made(9, shape=shape, dtype=dtype), cut(9, []))
        other.save("b.unoic", force=True)
        assert "beside" in refuse(65, "merge", "a.unoic", "b.unoic")


def test_an_object_is_no_part_of_a_state():
    prior = unoic_cli.Prior.from_weights(COUNTS, "mine", counts=True)
    z, y = made(100)
    path = counted(LambdaPath(4, source_prior=prior), z, y, cut(100, [50]))
    assert plain(path.compute()) == plain(search_lambda(z, y, source_prior=prior))
    with pytest.raises(UnoicError, match="an object among the options"):
        path.save("a.unoic")
    assert os.listdir() == []


def test_a_prior_of_a_file_is_read_once(answer):
    with open("prior.json", "w") as file:
        json.dump(COUNTS, file)
    z, y = made(100)
    path = LambdaPath(4, source_prior="prior.json")
    right = plain(search_lambda(z, y, source_prior="prior.json"))
    os.unlink("prior.json")
    with pytest.raises(UnoicError, match="no such file"):
        LambdaPath(4, source_prior="prior.json")
    assert plain(counted(path, z, y, cut(100, [50])).compute()) == right
    path.save("a.unoic")
    assert answer("report", "a.unoic")["lambda"] == json.loads(right)["lambda"]


# ------------------------------------------------------------------------------------------------ habits, and errors


def test_tensors_of_frameworks():
    z, y = made(90)
    path = LambdaPath(4, source_prior=COUNTS)
    path.update(Tensor(z[:30]), Tensor(y[:30], dtype="torch.int64"))
    path.update(Tensor(z[30:60], dtype="torch.bfloat16"), Tensor(y[30:60]))
    path.update(z[60:], y[60:].tolist())
    assert plain(path.compute()) == plain(search_lambda(z, y, source_prior=COUNTS))
    assert "4 classes: 90 units" in repr(path)


REFUSED = [
    ((np.zeros((2, 3)), [0, 1]), "logits: 3 classes; expected 4"),
    ((np.zeros((2, 4, 3, 3), "f4"), np.zeros((2, 3, 3), int)), "images of scores; expected rows, as before"),
    ((np.zeros((2, 4)), [0, 1]), "float64 scores; expected float32, as before"),
    ((np.zeros((2, 4), "f4"), [0, 1, 2]), "labels"),
    ((np.zeros((2, 4), "f4"), [0.0, 1.0]), "labels"),
    ((np.zeros((2, 4), "f4"), [0, 4]), "label 4 at row 1; expected labels in [0, 4)"),
    ((np.zeros((2, 4), "f4"), None), "labels"),
    ((np.array([[0, 1, 2, 3], [0, np.nan, 0, 0]], "f4"), [0, 1]), "nan at row 1, class 1; expected finite logits"),
    ((np.array([[0, 1, 2, 3], [0, np.inf, 0, 0]], "f4"), [0, 1]), "inf at row 1, class 1"),
    ((np.array([[0, 1, 2, 3], [-np.inf] * 4], "f4"), [0, 1]), "only -inf at row 1"),
    ((np.zeros((2, 4), int), [0, 1]), "int64 values; expected float16, float32, float64"),
    (([[1.0, 2.0], [1.0]], [0, 1]), "cannot be read as an array"),
    ((np.zeros(4, "f4"), [0] * 4), "logits: 2 classes; expected 4"),
]


@pytest.mark.parametrize("spare", [0, 10**9])
@pytest.mark.parametrize("batch, said", REFUSED)
def test_what_does_not_fit_is_refused_and_leaves_all_as_it_was(batch, said, spare, monkeypatch):
    monkeypatch.setattr(lambda_path, "_SPARE", spare)
    z, y = made(100)
    path = counted(LambdaPath(4, source_prior=COUNTS), z, y, cut(100, [20]))
    before = state_of(path)
    with pytest.raises(UnoicError) as caught:
        path.update(*batch)
    assert said in str(caught.value) and "\n" not in str(caught.value)
    assert state_of(path) == before
    path.update(z, y)
    assert path.n_units == 200


@pytest.mark.parametrize("spare", [0, 10**9])
@pytest.mark.parametrize("what", ["score", "label"])
def test_a_fault_in_the_last_row_counts_none(what, spare, monkeypatch):
    """Of a batch of many spans, whose first are sound."""
    monkeypatch.setattr(lambda_path, "_SPARE", spare)
    n = (10 << 20) // 16
    z, y = np.tile(np.eye(4, dtype="f4"), (n // 4, 1)) * 9, np.tile(np.arange(4), n // 4)
    path = counted(LambdaPath(4, source_prior=COUNTS), z[:8], y[:8], cut(8, []))
    before = state_of(path)
    wrong, labels = z.copy(), y.copy()
    if what == "score":
        wrong[-1, 2] = np.nan
    else:
        labels[-1] = 77
    with pytest.raises(UnoicError, match=f"at row {n - 1}"):
        path.update(wrong, labels)
    assert state_of(path) == before
    path.update(z, y)
    assert path.n_units == n + 8 and path.compute().counts.support.tolist() == [[(n + 8) // 4] * 4]


def test_a_first_batch_that_is_refused_says_nothing_of_those_to_come():
    path = LambdaPath(4, source_prior=COUNTS)
    with pytest.raises(UnoicError):
        path.update(np.zeros((2, 4, 3, 3)), np.full((2, 3, 3), 9))
    z, y = made(50)
    path.update(z[:0], y[:0])
    assert path.n_units == 0
    path.update(z, y)
    assert plain(path.compute()) == plain(search_lambda(z, y, source_prior=COUNTS))


OPTIONS = [
    ({}, "source_prior: none given"),
    ({"source_prior": "labels"}, "a prior that is counted"),
    ({"source_prior": "mean-posterior"}, "a prior that is counted"),
    ({"source_prior": COUNTS, "target_prior": "labels"}, "a prior that is counted"),
    ({"source_prior": [1, 2, 3]}, "3"),
    ({"source_counts": [1, 2, 3]}, "3"),
    ({"source_prior": COUNTS, "class_names": ["a"]}, "class_names"),
    ({"source_prior": COUNTS, "choose": "paper"}, "again and again"),
    ({"source_prior": COUNTS, "metric": "nll"}, "nll, which is measured at single lambdas"),
    ({"source_prior": COUNTS, "metrics": "acc,ece"}, "ece, which is measured at single lambdas"),
    ({"source_prior": COUNTS, "metric": "mac"}, "mac"),
    ({"source_prior": COUNTS, "range": "2:1"}, "reversed"),
    ({"source_prior": COUNTS, "kind": "predictions"}, "which have no scores"),
    ({"source_prior": COUNTS, "kind": "odds"}, "kind"),
    ({"source_prior": COUNTS, "threads": 0}, "at least 1"),
    ({"source_prior": COUNTS, "cluster": "group"}, "group"),
    ({"source_prior": COUNTS, "folds": 3}, "folds: no argument of LambdaPath"),
    ({"prior": COUNTS}, "did you mean source_prior"),
]


@pytest.mark.parametrize("options, said", OPTIONS)
def test_options_that_make_no_sense(options, said):
    with pytest.raises(UnoicError) as caught:
        LambdaPath(4, **options)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("n", [1, 0, -3, 2.5, "4", True])
def test_classes_are_a_number(n):
    with pytest.raises(UnoicError, match="n_classes"):
        LambdaPath(n, source_prior=[1])


def test_probabilities_are_no_logits():
    z, y = made(50)
    p = naive.softmax(z).astype("f4")
    with pytest.raises(UnoicError, match=r'LambdaPath\(\.\.\., kind="probs"\)'):
        LambdaPath(4, source_prior=COUNTS).update(p, y)


def test_a_range_that_would_grow_is_spoken_of():
    z, y = made(4000, counts=[60, 20, 12, 8], ignored=0)
    z += (1.2 * np.log(np.array([60, 20, 12, 8]) / 100)).astype("f4")  # far more of the prior than there is
    options = {"source_prior": [60, 20, 12, 8], "choose": "best"}
    path = counted(LambdaPath(4, **options), z, y, cut(4000, [900]))
    found, grown = path.compute(), search_lambda(z, y, **options)
    assert grown.lams[-1] > found.lams[-1] == 2 and any("extended" in one for one in grown.notes)
    assert any("touches the upper end of the range 0:2:0.01" in one for one in found.notes)
    wider = LambdaPath(4, **options, range=(0, float(grown.lams[-1])))
    assert counted(wider, z, y, cut(4000, [7])).compute().lam == grown.lam


def test_what_looks_wrong_is_said_of_the_first_rows(monkeypatch):
    z, y = made(300)
    z[[3, 40, 41, 42, 290]] = 1.5
    for limit in (sampling.ALL_ROWS, 100):
        said = set()
        with monkeypatch.context() as patch:
            patch.setattr(sampling, "ALL_ROWS", limit)
            patch.setattr(evidence, "ALL_ROWS", limit)
            for pieces in (cut(300, []), cut(300, [30, 60])):
                said.add(counted(LambdaPath(4, source_prior=COUNTS), z, y, pieces).compute().notes)
        assert len(said) == 1
        (note,) = (one for one in said.pop() if "equal scores" in one)
        rows = "5 of 300 rows hold" if limit > 100 else "4 of 100 rows looked at (the first) hold"
        assert note.startswith(f"<array>:logits: {rows} 4 equal scores, the first (1.5 each) at row 3")
    shifted = made(300)[0], np.minimum(made(300, ignored=0)[1] + 1, 3)
    path = counted(LambdaPath(4, source_prior=COUNTS), *shifted, cut(300, [5]))
    assert any("seem shifted by one: label 0 never occurs, and of 300 rows" in one for one in path.compute().notes)
    path.update(z[:1], [0])  # now it does
    assert not any("shifted" in one for one in path.compute().notes)


def test_an_interrupt_waits_for_the_batch():
    """Counted as a whole, and then raised."""
    done = []

    def work():
        time.sleep(0.3)
        done.append(1)

    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        lambda_path._undisturbed(work)
    assert done == [1]


@pytest.mark.parametrize("spare", [0, 10**9])
def test_counts_that_are_torn_are_not_used(spare, monkeypatch):
    """Memory that runs out while counts are added: nobody can tell what is in them."""
    monkeypatch.setattr(lambda_path, "_SPARE", spare)
    z, y = made(100)
    path = counted(LambdaPath(4, source_prior=COUNTS), z, y, cut(100, [50]))

    def fail(*_):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(*((lambda_path, "add_all") if spare == 0 else (kept.Keeper, "keep")), fail)
        with pytest.raises(MemoryError):
            path.update(z, y)
    for use in (path.compute, lambda: path.update(z, y), lambda: path.save("a.unoic"), lambda: pickle.dumps(path)):
        with pytest.raises(UnoicError, match=r"failed half-way; expected reset\(\)"):
            use()
    path.reset()
    assert plain(counted(path, z, y, cut(100, [])).compute()) == plain(search_lambda(z, y, source_prior=COUNTS))
