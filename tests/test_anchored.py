"""The anchored one-SE rule: against its oracle, and for every split."""

from __future__ import annotations

import numpy as np
import pytest

from unoic_cli import search_lambda

Z = np.array([
    [2, 0.5, -1], [1.5, 1.2, 0], [3, 0.2, 0.1], [0.9, 0.7, -0.5], [2.2, -0.3, 0.4], [1.1, 0.3, 0.9], [1.4, 1, -0.2],
    [0.6, 1.3, 0.1], [1.8, 1.6, 0.2], [1, 0.2, 0.8], [0.9, -0.4, 1.5], [1.7, 0.1, 0.6],
])  # fmt: skip
Y = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
PS = (0.7, 0.2, 0.1)


@pytest.mark.parametrize(
    ("metric", "anchor", "best", "lam", "before", "after"),
    [
        ("macc", 0.50, 0.74, 0.58, 0.555556, 0.833333),
        ("miou", 0.26, 0.74, 0.22, 0.422222, 0.5),
        ("f1", None, None, 0.22, 0.583333, 0.666667),
    ],
)
def test_the_oracle(metric, anchor, best, lam, before, after):
    result = search_lambda(Z, Y, source_prior=PS, metric=metric, range="0:6:0.02")
    assert result.lam == pytest.approx(lam, abs=1e-12)
    assert result.baseline[metric] == pytest.approx(before, abs=5e-7)
    assert result.best[metric] == pytest.approx(after, abs=5e-7)
    choice = result.choice
    assert (choice["a"], choice["fit"], choice["se_fit"]) == pytest.approx((1.816615, 0.914094, 0.446375), abs=6e-7)
    if anchor is not None:
        assert (choice["anchor"], choice["best"]) == pytest.approx((anchor, best), abs=1e-12)


def test_the_gain_of_the_oracle():
    gain = search_lambda(Z, Y, source_prior=PS, range="0:6:0.02").gain["macc"]
    assert gain.se == pytest.approx(0.173916, abs=6e-7)
