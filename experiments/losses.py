"""What Tables 2 and 3 compare: losses, weights of classes, and when they begin to count."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

LDAM_SCALE = 30.0

Loss = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]


def class_balanced(counts: NDArray[np.int64], beta: float = 0.9999) -> Tensor:
    """Weights by the effective number of samples, (1 - beta) / (1 - beta^n), K in sum (Cui et al. 2019)."""
    w = (1 - beta) / (1 - np.power(beta, counts.astype(np.float64)))
    return torch.tensor(w / w.sum() * len(w), dtype=torch.float32)


def make_loss(name: str, counts: NDArray[np.int64], gamma: float = 1.0, by_sum: bool = False) -> Loss:
    """`ce`, `focal` (Lin et al. 2017) or `ldam` (Cao et al. 2019), of logits (N, K), labels (N,) and weights or None.

    LDAM takes cosines; its margins are C / n^(1/4), the largest 0.5. `by_sum` divides by the sum of the weights.
    """
    margin = counts.astype(np.float64) ** -0.25
    margins = torch.tensor(0.5 * margin / margin.max(), dtype=torch.float32)

    def loss(z: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        if name == "ldam":
            less = torch.zeros_like(z)
            less[torch.arange(len(y)), y] = margins[y]
            z = LDAM_SCALE * (z - less)
        each = functional.cross_entropy(z, y, reduction="none")
        if name == "focal":
            each = (1 - torch.exp(-each)) ** gamma * each
        if weights is None:
            return each.mean()
        return (each * weights[y]).sum() / weights[y].sum() if by_sum else (each * weights[y]).mean()

    return loss
