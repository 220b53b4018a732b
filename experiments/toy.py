"""Figure 2: two moons and a circle, nine of one class for one of the other, and a network of three layers.

    python experiments/toy.py

writes `experiments/runs/toy/NAME.SEED.val.h5` and `.test.h5`, and of seed 0 training points and a grid of the plane.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from longtail import RUNS
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

FOLDER = RUNS / "toy"
COUNTS = (2500, 278)
SEEDS = range(5)
GRID = (300, 240)

Points = NDArray[np.float64]


def ring(rng: np.random.Generator, radius: float, n: int) -> Points:
    """Points on a circle about 0."""
    t = rng.random(n) * 2 * np.pi
    return np.c_[radius * np.cos(t), radius * np.sin(t)]


def moons(rng: np.random.Generator, n: int) -> tuple[Points, Points]:
    """Two half circles that reach into each other."""
    t, u = rng.random(n) * np.pi, rng.random(n) * np.pi
    upper, lower = np.c_[np.cos(t), np.sin(t)], np.c_[1 - np.cos(u), 0.5 - np.sin(u)]
    return upper + rng.normal(0, 0.3, upper.shape), lower + rng.normal(0, 0.3, lower.shape)


def circle(rng: np.random.Generator, n: int) -> tuple[Points, Points]:
    """A ring around a smaller one."""
    outer, inner = ring(rng, 1.0, n), ring(rng, 0.5, n)
    return outer + rng.normal(0, 0.2, outer.shape), inner + rng.normal(0, 0.2, inner.shape)


SHAPES: dict[str, tuple[Callable[[np.random.Generator, int], tuple[Points, Points]], tuple[float, ...]]] = {
    "moons": (moons, (-2, 3, -2, 2)),
    "circle": (circle, (-2, 2, -2, 2)),
}
"""Name: what draws n points of each class, and the part of the plane that is shown."""


def draw(name: str, rng: np.random.Generator, counts: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Points (N, 2) and labels (N,)."""
    first, second = SHAPES[name][0](rng, max(counts))
    points = np.concatenate([first[: counts[0]], second[: counts[1]]])
    return points.astype(np.float32), np.repeat([0, 1], counts)


def learn(points: NDArray[np.float32], labels: NDArray[np.int64], seed: int) -> nn.Module:
    """Train a network of three layers by Adam, with cross entropy."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    x, y = torch.from_numpy(points), torch.from_numpy(labels)
    for _ in range(60):
        for rows in torch.randperm(len(x)).split(128):
            optimiser.zero_grad()
            functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimiser.step()
    return network


def save(path: Path, network: nn.Module, points: NDArray[np.float32], labels: NDArray[np.int64] | None) -> None:
    """What the network says of these points."""
    with torch.no_grad():
        logits = network(torch.from_numpy(points)).numpy()
    part = path.with_suffix(".part")
    with h5py.File(part, "w") as file:
        file.attrs["unoic_schema"] = 1
        file["logits"], file["points"], file["source_counts"] = logits.astype(np.float16), points, np.array(COUNTS)
        if labels is not None:
            file["labels"] = labels.astype(np.uint8)
    part.rename(path)


def main() -> None:
    """Train what is not there yet."""
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (_, (left, right, low, high)) in SHAPES.items():
        for seed in SEEDS:
            if (FOLDER / f"{name}.{seed}.test.h5").exists():
                continue
            rng = np.random.default_rng(seed)
            train = draw(name, rng, COUNTS)
            held_out = draw(name, rng, (1000, 1000)), draw(name, rng, (5000, 5000))
            network = learn(*train, seed)
            if seed == 0:
                save(FOLDER / f"{name}.train.h5", network, *train)
                x, y = np.linspace(left, right, GRID[0]), np.linspace(low, high, GRID[1])
                plane = np.stack(np.meshgrid(x, y), -1).reshape(-1, 2).astype(np.float32)
                save(FOLDER / f"{name}.grid.h5", network, plane, None)
            for part, (points, labels) in zip(("val", "test"), held_out, strict=True):
                save(FOLDER / f"{name}.{seed}.{part}.h5", network, points, labels)
            print(f"{name} seed {seed}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
