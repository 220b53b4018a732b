"""Tables 2 and 6: train nine ways on long-tailed and step-imbalanced data and save what the networks say.

    python experiments/longtail.py fashion cldr --seeds 0 1 2

writes `experiments/runs/DATA/SETTING/SEED/METHOD.val.h5` and `.test.h5`. What is there already is not trained again.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import data
import h5py
import numpy as np
import torch
from losses import LDAM_SCALE, class_balanced, make_loss
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

RUNS = Path(__file__).parent / "runs"
SETTINGS = ("lt100", "lt10", "step100", "step10")
METHODS = ("ce", "focal", "ldam", "cb-ce", "cb-focal", "ce-drw", "focal-drw", "ldam-drw", "bbn")


@dataclass(frozen=True)
class Recipe:
    """How one data set is cut and learned."""

    largest: int
    validation: int
    epochs: int
    rate: float
    decay: float
    batch: int = 128

    @property
    def cut(self) -> int:
        """The epoch from which the rate is a tenth, and DRW's weights count."""
        return round(0.8 * self.epochs)

    def factor(self, epoch: int) -> float:
        """Part of the learning rate in this epoch."""
        return float(0.1 ** ((epoch >= self.cut) + (epoch >= round(0.93 * self.epochs))))


RECIPES = {
    "fashion": Recipe(largest=1000, validation=500, epochs=16, rate=0.05, decay=5e-4),
    "cldr": Recipe(largest=500, validation=100, epochs=20, rate=0.3, decay=1e-5),
}


def class_sizes(setting: str, n_classes: int, largest: int) -> NDArray[np.int64]:
    """Training samples of each class: an exponential tail, or one half large and one half small."""
    kind, ratio = (setting[:-3], 100) if setting.endswith("100") else (setting[:-2], 10)
    if kind == "lt":
        n = largest * ratio ** (-np.arange(n_classes) / (n_classes - 1))
    else:
        n = np.where(np.arange(n_classes) < n_classes // 2, largest, largest / ratio)
    return np.floor(n + 1e-9).astype(np.int64)


class Cosine(nn.Module):
    """A last layer of angles alone, as LDAM has it."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-1, 1).renorm(2, 0, 1e-5) * 1e5)

    def forward(self, x: Tensor) -> Tensor:
        """Cosines (N, K)."""
        return functional.linear(functional.normalize(x), functional.normalize(self.weight))


class Network(nn.Module):
    """Three convolutions, or the mean of embedded n-grams; then one hidden layer, two branches of it for BBN."""

    def __init__(self, name: str, n_classes: int, cosine: bool = False, branches: bool = False):
        super().__init__()
        hidden = 64
        self.bag = nn.EmbeddingBag(data.GRAM_BUCKETS, 64, mode="mean") if name == "cldr" else None
        if self.bag is not None:
            nn.init.normal_(self.bag.weight, std=0.1)
            self.base = nn.Sequential(nn.BatchNorm1d(64), nn.ReLU())

            def head() -> nn.Sequential:
                return nn.Sequential(nn.Linear(64, hidden), nn.BatchNorm1d(hidden), nn.ReLU())
        else:
            layers: list[nn.Module] = []
            for before, after, size in ((1, 16, 5), (16, 32, 3), (32, 48, 3)):
                layers.append(nn.Conv2d(before, after, size, 2, size // 2, bias=False))
                layers += [nn.BatchNorm2d(after), nn.ReLU()]
            self.base = nn.Sequential(*layers, nn.Flatten())

            def head() -> nn.Sequential:
                return nn.Sequential(nn.Linear(48 * 16, hidden), nn.ReLU())

        self.head, self.last = head(), (Cosine if cosine else nn.Linear)(hidden, n_classes)
        self.branches = branches
        if branches:
            self.head2, self.last2 = head(), nn.Linear(hidden, n_classes)

    def both(self, x: Any) -> tuple[Tensor, Tensor]:
        """Logits of the two branches; one and the same where there is one."""
        b = self.base(self.bag(*x) if self.bag is not None else x)
        z = self.last(self.head(b))
        return z, (self.last2(self.head2(b)) if self.branches else z)

    def forward(self, x: Any) -> Tensor:
        """Logits (N, K): of two branches, their mean."""
        z, z2 = self.both(x)
        return 0.5 * (z + z2) if self.branches else z


def take(inputs: Any, rows: NDArray[np.int64]) -> Any:
    """These rows as the network wants them."""
    if isinstance(inputs, data.Bags):
        return tuple(torch.from_numpy(part) for part in inputs.take(rows))
    return torch.from_numpy(inputs[rows])


@dataclass
class Task:
    """One cut of one data set."""

    name: str
    recipe: Recipe
    inputs: Any
    labels: NDArray[np.int64]
    train: NDArray[np.int64]
    counts: NDArray[np.int64]
    seed: int

    def network(self, method: str) -> Network:
        """A new network, the same one for every loss with the same last layer."""
        torch.manual_seed(self.seed)
        return Network(self.name, len(self.counts), cosine=method.startswith("ldam"), branches=method == "bbn")

    def learn(
        self, network: Network, loss_name: str, epochs: range, weights: Tensor | None, state: Any = None
    ) -> dict[str, Any]:
        """Train for these epochs of the recipe by momentum; the optimiser's state goes in and out."""
        recipe, loss = self.recipe, make_loss(loss_name, self.counts)
        optimiser = torch.optim.SGD(
            network.parameters(), recipe.rate, momentum=0.9, weight_decay=recipe.decay, nesterov=True
        )
        if state is not None:
            optimiser.load_state_dict(state)
        rng = np.random.default_rng(self.seed * 1000 + epochs.start)
        y = self.labels[self.train]
        steps = len(y) // recipe.batch
        rows_of = [np.flatnonzero(y == k) for k in range(len(self.counts))]
        rare = 1 / self.counts
        rare /= rare.sum()
        network.train()
        for epoch in epochs:
            order = rng.permutation(len(y))
            for step in range(steps):
                warm = min(1.0, (epoch * steps + step + 1) / (steps + 1))
                optimiser.param_groups[0]["lr"] = recipe.rate * recipe.factor(epoch) * warm
                rows = order[step * recipe.batch : (step + 1) * recipe.batch]
                optimiser.zero_grad()
                if network.branches:
                    drawn = rng.choice(len(rare), recipe.batch, p=rare)
                    others = np.array([rng.choice(rows_of[k]) for k in drawn])
                    share = 1 - (epoch / recipe.epochs) ** 2
                    z = share * network.both(take(self.inputs, self.train[rows]))[0]
                    z = z + (1 - share) * network.both(take(self.inputs, self.train[others]))[1]
                    cost = share * loss(z, torch.from_numpy(y[rows]), None)
                    cost = cost + (1 - share) * loss(z, torch.from_numpy(y[others]), None)
                else:
                    cost = loss(network(take(self.inputs, self.train[rows])), torch.from_numpy(y[rows]), weights)
                cost.backward()
                optimiser.step()
        return copy.deepcopy(optimiser.state_dict())


def predict(network: Network, inputs: Any, rows: NDArray[np.int64], scale: float) -> NDArray[np.float16]:
    """Logits of these rows, rounded to half precision: what is measured is what ships."""
    network.eval()
    with torch.no_grad():
        parts = [network(take(inputs, part)).numpy() * scale for part in np.array_split(rows, -(-len(rows) // 1000))]
    return np.concatenate(parts).astype(np.float16)


def write(path: Path, logits: NDArray[Any], labels: NDArray[Any], counts: NDArray[np.int64], names: list[str]) -> None:
    """One file of the schema, complete or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    small = np.uint8 if len(counts) <= 256 else np.int16
    with h5py.File(part, "w") as file:
        file.attrs["unoic_schema"] = 1
        file.create_dataset("logits", data=logits, compression="gzip", compression_opts=6, shuffle=True)
        file.create_dataset("labels", data=labels.astype(small), compression="gzip", compression_opts=6)
        file.create_dataset("source_counts", data=counts)
        file.create_dataset("class_names", data=names, dtype=h5py.string_dtype())
    part.rename(path)


def run(name: str, source: dict[str, Any], setting: str, seed: int) -> None:
    """Train every method on one cut."""
    recipe, (inputs, labels), (test_inputs, test_labels) = RECIPES[name], source["train"], source["test"]
    names = source["class_names"]
    folder = RUNS / name / setting / f"s{seed}"
    if all((folder / f"{method}.test.h5").exists() for method in METHODS):
        return
    counts = class_sizes(setting, len(names), recipe.largest)
    rng = np.random.default_rng(100 + seed)
    train, val = [], []
    for k, n in enumerate(counts):
        order = rng.permutation(np.flatnonzero(labels == k))
        val.append(order[: recipe.validation])
        train.append(order[recipe.validation : recipe.validation + n])
    rows, held_out = np.concatenate(train), np.concatenate(val)
    task = Task(name, recipe, inputs, labels, rows, counts, seed)
    weights, first, last = class_balanced(counts), range(recipe.cut), range(recipe.cut, recipe.epochs)
    started = time.perf_counter()

    def save(network: Network, method: str) -> None:
        nonlocal started
        scale = LDAM_SCALE if method.startswith("ldam") else 1.0
        write(folder / f"{method}.val.h5", predict(network, inputs, held_out, scale), labels[held_out], counts, names)
        z = predict(network, test_inputs, np.arange(len(test_labels)), scale)
        write(folder / f"{method}.test.h5", z, test_labels, counts, names)
        error, seconds = 100 * (z.argmax(1) != test_labels).mean(), time.perf_counter() - started
        print(f"{name} {setting} seed {seed} {method}: test error {error:.2f} %, {seconds:.0f} s", file=sys.stderr)
        started = time.perf_counter()

    for loss_name in ("ce", "focal", "ldam"):
        network = task.network(loss_name)
        state = task.learn(network, loss_name, first, None)
        deferred = copy.deepcopy(network)
        task.learn(network, loss_name, last, None, state)
        save(network, loss_name)
        task.learn(deferred, loss_name, last, weights, state)
        save(deferred, f"{loss_name}-drw")
    for loss_name in ("ce", "focal"):
        network = task.network(loss_name)
        task.learn(network, loss_name, range(recipe.epochs), weights)
        save(network, f"cb-{loss_name}")
    network = task.network("bbn")
    task.learn(network, "ce", range(recipe.epochs), None)
    save(network, "bbn")


def main() -> None:
    """Train what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", choices=RECIPES)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    for name in args.data:
        source = getattr(data, name)()
        for seed in args.seeds:
            for setting in args.settings:
                run(name, source, setting, seed)


if __name__ == "__main__":
    main()
