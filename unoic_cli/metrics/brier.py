"""Brier score."""

from __future__ import annotations

from typing import Any

from unoic_cli.metrics.probabilities import OfProbabilities


class Brier(OfProbabilities):
    """Mean over units of sum_k (P(k) - [k is the label])^2, Brier's own sum over all classes."""

    NAME, TITLE = "brier", "Brier"
    ALIASES = ("Brier score", "brier score loss", "quadratic score", "mean squared error of probabilities")
    HELP = "Brier score: squared error of the probabilities, summed over classes."

    def sums(self, arrays: Any) -> Any:
        """Of squares."""
        from unoic_cli.tallies.likelihood import whole

        return whole(arrays["squares"])
