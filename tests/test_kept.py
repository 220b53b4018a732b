"""The kept sample: the same for every split, all of the data where it is small, and a fair part of it where not."""

from __future__ import annotations

import itertools

import h5py
import numpy as np
import pytest
from driven import open_dataset, open_modalities, sweep

from unoic_cli.calibrations.view import Look, View
from unoic_cli.data.dataset import Span
from unoic_cli.tallies.kept import KeptTally, places_at


def test_levels_are_nested_and_halve():
    whole = places_at(0, 1 << 20, 0)
    before = whole
    for level in range(1, 15):
        found = places_at(0, 1 << 20, level)
        assert np.isin(found, before).all()
        assert abs(found.size - (whole.size >> level)) <= 600 + 4 * np.sqrt(whole.size >> level)
        before = found


@pytest.mark.parametrize("level", [0, 1, 5, 9, 11])
def test_a_level_is_the_same_however_places_are_cut(level):
    whole = places_at(0, 10_000, level)
    rng = np.random.default_rng(level)
    cuts = [0, *np.sort(rng.integers(0, 10_000, 20)).tolist(), 10_000]
    pieces = [places_at(a, b, level) for a, b in itertools.pairwise(cuts)]
    assert np.array_equal(whole, np.concatenate(pieces))


def write(path, n=3000, k=4, images=0, split=False, dtype="f2"):
    rng = np.random.default_rng(n)
    shape = (n, k, 5, 7) if images else (n, k)
    z, y = rng.normal(size=shape).astype(dtype), rng.integers(0, k, (n, *shape[2:]))
    y[rng.random(y.shape) < 0.1] = 255
    with h5py.File(path, "w") as file:
        file["logits"], file["labels"] = z, y.astype("u1")
        file.create_dataset(
            "group", data=[b"a", b"b", b"c"][: 1 + images] * (n // (1 + images)) + [b"a"] * (n % (1 + images))
        )
        if split:
            file["split"] = [b"val" if i % 3 else b"test" for i in range(n)]
    return z, y


def arrays(kept):
    return {name: getattr(kept, name) for name in ("places", "labels", "clusters", "scores", "factors")}


@pytest.mark.parametrize("by", ["unit", "image", "group"])
@pytest.mark.parametrize("images", [0, 2])
def test_any_threads_spans_and_sums_keep_the_same(tmp_path, by, images):
    z, y = write(tmp_path / "a.h5", 90 if images else 3000, images=images)
    data = open_dataset([str(tmp_path / "a.h5")])
    view = View((Look(),))

    def make(limit=500):
        tally = KeptTally.of(data, view, by)
        tally.most = tally.limit = limit
        return KeptTally(tally.n_classes, 1, tally.narrow, tally.before, by, True, limit)

    whole = make()
    sweep(data, [whole], n_threads=1, view=view)
    ours = whole.kept()
    assert ours.seen == (y != 255).sum() and 250 <= ours.n <= 500 and (ours.labels >= 0).all()
    flat = np.moveaxis(z, 1, -1).reshape(-1, 4)
    assert np.array_equal(ours.scores[:, 0], flat[ours.places].astype(np.float32))
    assert np.array_equal(ours.labels, y.reshape(-1)[ours.places])
    if by == "image":
        assert np.array_equal(ours.clusters, ours.places // (35 if images else 1))
    for n_threads, memory in ((2, 1 << 12), (3, 1 << 14)):
        other = make()
        spans = [
            Span(data.sources[0], a, min(a + 35 * (memory >> 12), data.n_units))
            for a in range(0, data.n_units, 35 * (memory >> 12))
        ]
        sweep(data, [other], n_threads=n_threads, view=view, spans=spans)
        for name, array in arrays(other.kept()).items():
            assert np.array_equal(array, getattr(ours, name)), name
    parts = []
    for i in range(3):
        part = make()
        sweep(
            data,
            [part],
            n_threads=1,
            view=view,
            spans=[
                Span(
                    data.sources[0],
                    i * 35 * (data.n_units // 105),
                    (i + 1) * 35 * (data.n_units // 105) if i < 2 else data.n_units,
                )
            ],
        )
        parts.append(part.counters())
    joined = make()
    for counters in reversed(parts):
        joined.absorb(counters)
    for name, array in arrays(joined.kept()).items():
        assert np.array_equal(array, getattr(ours, name)), name
    assert joined.kept().seen == ours.seen


def test_all_are_kept_where_they_are_few_also_of_a_split(tmp_path):
    z, y = write(tmp_path / "a.h5", 2000, split=True)
    data = open_dataset([str(tmp_path / "a.h5")], split="test")
    tally = KeptTally.of(data, View((Look(),)))
    sweep(data, [tally], view=View((Look(),)))
    kept = tally.kept()
    chosen = np.flatnonzero((np.arange(2000) % 3 == 0) & (y != 255))
    assert kept.complete and np.array_equal(kept.places, chosen)
    assert np.array_equal(kept.scores[:, 0], z[chosen].astype(np.float32))


def test_modalities_and_factors_are_kept_apart_or_summed(tmp_path):
    z, _ = write(tmp_path / "a.h5", 300)
    with h5py.File(tmp_path / "a.h5") as one, h5py.File(tmp_path / "b.h5", "w") as file:
        for name in one:
            file[name] = one[name][:] if name != "logits" else -one[name][:]
        file["delta"] = np.linspace(0.5, 2, 300)
    data = open_modalities({"a": [str(tmp_path / "a.h5")], "b": [str(tmp_path / "b.h5")]})
    apart, summed = View((Look(), Look())), View((Look(), Look()), weights=(0.5, 1.0))
    tallies = [KeptTally.of(data, view) for view in (apart, summed)]
    sweep(data, tallies[:1], view=apart)
    sweep(data, tallies[1:], view=summed)
    two, one = (tally.kept() for tally in tallies)
    delta = np.linspace(0.5, 2, 300)[two.places, None]
    assert two.scores.shape[1:] == (2, 4) and one.scores.shape[1:] == (1, 4)
    assert np.array_equal(two.scores[:, 1], -z[two.places].astype(float) * delta)
    assert np.allclose(one.scores[:, 0], 0.5 * two.scores[:, 0] + two.scores[:, 1], rtol=1e-15)
