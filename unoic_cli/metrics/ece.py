"""Expected calibration error."""

from __future__ import annotations

from typing import Any

from unoic_cli.metrics.probabilities import ONE, OfProbabilities


class CalibrationError(OfProbabilities):
    """Sum over bins of |right predictions - sum of confidences| / N."""

    NAME, TITLE = "ece", "ECE"
    ALIASES = ("expected calibration error", "calibration error", "top-1 ECE")
    HELP = "Expected calibration error, in 15 bins of equal width."
    PERCENT = True

    def sums(self, arrays: Any) -> Any:
        """Of what the bins are off."""
        import numpy as np

        from unoic_cli.tallies.likelihood import whole

        return np.abs(arrays["hits"].astype(object) * ONE - whole(arrays["confidences"])).sum(axis=-1)
