"""How well `prior --estimate` finds class mixes that were made.

    python benchmarks/mix.py FILE.npz ... [--shifts 40] [--rows 1000]

Files hold ``logits`` (or ``logits_NAME``), ``labels``, and ``split`` with val and test; ``train_counts`` where known.
Test rows are drawn again to a mix from a flat Dirichlet distribution, in every fourth run to their own. Printed for
each set: the mean L1 distance from the true mix of the labelled mix, of the estimate, and of what is adopted; the share
of classes inside their interval; how often an estimate is adopted where there is a shift, and where there is none.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import unoic_cli


def sets(path: str) -> Iterator[tuple[str, Any, Any, Any, Any]]:
    """Name, scores, labels, splits and class counts of training, for each network of a file."""
    with np.load(path, allow_pickle=False) as file:
        counts = file.get("train_counts")
        for key in (name for name in file if name == "logits" or name.startswith("logits_")):
            yield f"{Path(path).stem}{key[6:]}", file[key], file["labels"], file["split"], counts


def shifted(rng: np.random.Generator, y: Any, k: int, n: int, plain: bool) -> Any:
    """Rows drawn with replacement to a mix."""
    if plain:
        return rng.choice(y.size, n)
    weights = rng.dirichlet(np.ones(k)) / np.maximum(np.bincount(y, minlength=k), 1)
    return rng.choice(y.size, n, p=weights[y] / weights[y].sum())


def main() -> None:
    """Print a line for each set."""
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+")
    parser.add_argument("--shifts", type=int, default=40)
    parser.add_argument("--rows", type=int, default=1000, help="labelled, and unlabelled")
    chosen = parser.parse_args()
    print(f"{'set':40} {'labelled':>9} {'estimate':>9} {'adopted':>9} {'inside':>7} {'found':>7} {'false':>7}")
    for name, z, y, split, counts in (one for path in chosen.files for one in sets(path)):
        rng, k, rows = np.random.default_rng(0), z.shape[1], []
        for i in range(chosen.shifts):
            val = rng.permutation(np.flatnonzero((split == "val") & (y >= 0)))[: chosen.rows]
            test = np.flatnonzero((split == "test") & (y >= 0))
            drawn = test[shifted(rng, y[test], k, chosen.rows, i % 4 == 3)]
            truth = np.bincount(y[drawn], minlength=k) / drawn.size
            prior = np.bincount(y[val], minlength=k) + 1 if counts is None else counts
            try:
                source = unoic_cli.from_arrays(z[val], y[val])
                made = unoic_cli.prior(z[drawn], estimate=True, labelled=source, source_prior=prior)
            except unoic_cli.UnoicError as error:
                print(f"{name:40} {error}")
                break
            found, prior_ = made.estimated.found, np.array(made.prior)
            inside = (found.interval.lower <= truth) & (truth <= found.interval.upper)
            errors = [np.abs(one - truth).sum() for one in (found.pi, found.mix.q, prior_)]
            rows.append([*errors, inside.mean(), found.reason is None, i % 4 == 3])
        if rows:
            table = np.array(rows, float)
            moved = table[:, 5] == 0
            figures = [*table[moved, :5].mean(axis=0), table[~moved, 4].mean()]
            print(f"{name:40} " + " ".join(f"{one:9.3f}" if j < 3 else f"{one:7.2f}" for j, one in enumerate(figures)))


if __name__ == "__main__":
    main()
