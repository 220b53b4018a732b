"""`prior`: count the labels of logits files."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Unpack

from unoic_cli.brief import brief
from unoic_cli.calibrations.prior import parse_list
from unoic_cli.data.steps import Steps, write_json
from unoic_cli.errors import DataError, UsageError
from unoic_cli.options import Option, filled
from unoic_cli.resolve.common import (
    PRIOR_WORDS,
    Inputs,
    Notes,
    check_output,
    count_labels,
    open_inputs,
    output_path,
)
from unoic_cli.resolve.options import DataOptions, ForceOption
from unoic_cli.schemas import marked

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


@dataclass(frozen=True)
class PriorResult:
    """Label counts of a data set.

    Attributes
    ----------
    counts : tuple of int
        (K,).
    prior : tuple of float
        (K,) frequencies.
    n, n_ignored : int
        Labelled and ignored units.
    class_names : tuple of str or None
        (K,).
    imbalance_ratio : float or None
        Largest over smallest positive count.
    files : tuple of str
        What was counted.
    split : str or None
        The split that was counted.
    notes : tuple of str
        What was worth saying on the way.
    """

    counts: tuple[int, ...]
    prior: tuple[float, ...]
    n: int
    n_ignored: int
    class_names: tuple[str, ...] | None
    imbalance_ratio: float | None
    files: tuple[str, ...]
    split: str | None
    notes: tuple[str, ...]

    __repr__ = brief

    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command; ``--source-prior`` and ``--target-prior`` read it."""
        return {
            "counts": list(self.counts),
            "prior": list(self.prior),
            "n": self.n,
            "n_ignored": self.n_ignored,
            "n_classes": len(self.counts),
            "class_names": list(self.class_names) if self.class_names else None,
            "imbalance_ratio": self.imbalance_ratio,
            "files": list(self.files),
            "split": self.split,
            "notes": list(self.notes),
        }


class PriorOptions(DataOptions, total=False):
    """Options of `prior`."""

    output: Annotated[
        str | os.PathLike[str] | None, Option("--output -o", "FILE", "Also write the result as JSON.", says="where")
    ]
    force: ForceOption


def prior(
    inputs: Inputs,
    labels: ArrayLike | None = None,
    **options: Unpack[PriorOptions],
) -> Steps[PriorResult]:
    """Count labels in one stream over the labels alone.

    Parameters
    ----------
    inputs : path, sequence of paths, or array
        Logits files, or scores in memory.
    labels : (N,) or (N, H, W) integers, optional
        With scores in memory.
    **options : Unpack[PriorOptions]
        See `PriorOptions`.

    Returns
    -------
    PriorResult

    Raises
    ------
    UnoicError
        Bad input, or no labels.

    Examples
    --------
    >>> from unoic_cli import prior
    >>> import numpy as np
    >>> prior(np.zeros((4, 3), dtype=np.float32), [0, 2, 2, 255]).counts
    (1, 0, 2)
    """
    chosen = filled(PriorOptions, options)
    notes, output, force = Notes(chosen["tell"]), output_path(chosen["output"]), chosen["force"]
    if force and output is None:
        raise UsageError("--force", "--force without --output", "expected an output that it may replace")
    data = yield from open_inputs(inputs, labels, chosen, notes)
    if output is not None:
        words = (*PRIOR_WORDS, *([output] if parse_list(output, "--output") else []))
        yield from check_output(output, force=force, inputs=tuple(s.name for s in data.sources), words=words)
    data.require("labels", "to count them")
    tally = yield from count_labels(data)
    counts = tally.counts.tolist()
    n = sum(counts)
    if n == 0:
        raise DataError(data.name, f"no labelled sample ({tally.n_ignored} ignored)", "expected labels")
    positive = [count for count in counts if count > 0]
    result = PriorResult(
        counts=tuple(counts),
        prior=tuple(count / n for count in counts),
        n=n,
        n_ignored=tally.n_ignored,
        class_names=data.class_names,
        imbalance_ratio=max(positive) / min(positive),
        files=tuple(source.name for source in data.sources),
        split=chosen["split"],
        notes=tuple(notes.texts),
    )
    if output is not None:
        yield from write_json(output, marked(result))
    return result
