"""Table 3: two tasks of thousands of classes from WordNet's own words, six ways of training.

    python experiments/wordnet.py hypernym blank

writes `experiments/runs/TASK/METHOD.val.h5`: the held-out rows, three of each class, which are tuned and measured on by
`--folds 3` as the paper does. What is there already is not trained again.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
from typing import Any

import data
import numpy as np
import torch
from longtail import RUNS, write
from losses import LDAM_SCALE, class_balanced, make_loss
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

EPOCHS = {"hypernym": 5, "blank": 5}
RATE, BATCH, WIDTH = 4e-3, 256, 96
SEED = 0


class Network(nn.Module):
    """The sum of embedded features, normalised; then the classes."""

    def __init__(self, features: int, n_classes: int, cosine: bool):
        super().__init__()
        self.bag = nn.EmbeddingBag(features, WIDTH, mode="sum", sparse=True)
        nn.init.normal_(self.bag.weight, std=0.05)
        self.norm, self.dropout, self.cosine = nn.LayerNorm(WIDTH), nn.Dropout(0.2), cosine
        self.last = nn.Linear(WIDTH, n_classes, bias=not cosine)
        nn.init.normal_(self.last.weight, std=0.05)

    def forward(self, x: tuple[Tensor, Tensor]) -> Tensor:
        """Logits (N, K), or cosines."""
        h = self.dropout(functional.relu(self.norm(self.bag(*x))))
        if self.cosine:
            return functional.linear(functional.normalize(h), functional.normalize(self.last.weight))
        return self.last(h)


def bags(rows: data.Bags, which: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    """These rows as the network wants them."""
    index, offset = rows.take(which)
    return torch.from_numpy(index), torch.from_numpy(offset)


def learn(
    network: Network,
    source: dict[str, Any],
    loss_name: str,
    epochs: range,
    total: int,
    weights: Tensor | None,
    states: Any,
) -> Any:
    """Train for these epochs of `total` by Adam; the optimisers' states go in and out."""
    rows, labels = source["train"]
    loss = make_loss(loss_name, source["counts"], by_sum=True)
    dense = [p for name, p in network.named_parameters() if name != "bag.weight"]
    optimisers: list[torch.optim.Optimizer] = [
        torch.optim.SparseAdam([network.bag.weight], lr=RATE),
        torch.optim.AdamW(dense, lr=RATE, weight_decay=1e-4),
    ]
    if states is not None:
        for optimiser, state in zip(optimisers, states, strict=True):
            optimiser.load_state_dict(state)
    rng = np.random.default_rng(SEED * 100 + epochs.start)
    network.train()
    for epoch in epochs:
        started, sum_of_costs = time.perf_counter(), 0.0
        for optimiser in optimisers:
            optimiser.param_groups[0]["lr"] = RATE * (0.1 if epoch >= round(0.8 * total) else 1.0)
        order = rng.permutation(len(labels))
        steps = len(labels) // BATCH
        for step in range(steps):
            which = order[step * BATCH : (step + 1) * BATCH]
            for optimiser in optimisers:
                optimiser.zero_grad()
            cost = loss(network(bags(rows, which)), torch.from_numpy(labels[which]), weights)
            cost.backward()
            for optimiser in optimisers:
                optimiser.step()
            sum_of_costs += cost.item()
        seconds = time.perf_counter() - started
        print(
            f"{loss_name} epoch {epoch}: loss {sum_of_costs / steps:.3f}, {seconds:.0f} s", file=sys.stderr, flush=True
        )
    return [copy.deepcopy(optimiser.state_dict()) for optimiser in optimisers]


def save(name: str, method: str, network: Network, source: dict[str, Any]) -> None:
    """What a network says about the held-out rows."""
    rows, labels = source["val"]
    network.eval()
    with torch.no_grad():
        parts = [network(bags(rows, which)).numpy() for which in np.array_split(np.arange(len(labels)), 32)]
    z = np.concatenate(parts) * (LDAM_SCALE if network.cosine else 1.0)
    write(RUNS / name / f"{method}.val.h5", z.astype(np.float16), labels, source["counts"], source["class_names"])
    print(f"{name} {method}: error {100 * (z.argmax(1) != labels).mean():.2f} %", file=sys.stderr, flush=True)


def main() -> None:
    """Train what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=EPOCHS)
    parser.add_argument("--losses", nargs="+", default=["ce", "focal", "ldam"], choices=["ce", "focal", "ldam"])
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.tasks:
        wanted = [loss for loss in args.losses if not (RUNS / name / f"{loss}-drw.val.h5").exists()]
        if not wanted:
            continue
        source = getattr(data, name)()
        n_classes = len(source["class_names"])
        source["counts"] = np.bincount(source["train"][1], minlength=n_classes)
        counts, n = source["counts"], len(source["train"][1])
        text = f"{n_classes} classes, {n} training rows, {counts.max()} to {counts.min()} a class"
        print(f"{name}: {text}; {len(source['val'][1])} held out", file=sys.stderr, flush=True)
        total, weights = EPOCHS[name], class_balanced(counts)
        cut = round(0.8 * total)
        for loss_name in wanted:
            torch.manual_seed(SEED)
            network = Network(source["features"], n_classes, cosine=loss_name == "ldam")
            states = learn(network, source, loss_name, range(cut), total, None, None)
            deferred = copy.deepcopy(network)
            learn(network, source, loss_name, range(cut, total), total, None, states)
            save(name, loss_name, network, source)
            learn(deferred, source, loss_name, range(cut, total), total, weights, states)
            save(name, f"{loss_name}-drw", deferred, source)


if __name__ == "__main__":
    main()
