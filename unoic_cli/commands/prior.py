"""`prior`: count the labels of logits files, or estimate how often each class occurs without them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Unpack

from unoic_cli.brief import brief, detached, in_html
from unoic_cli.calibrations.calibration import Calibration
from unoic_cli.calibrations.prior import parse_list
from unoic_cli.commands.target_mix import SCORES, Estimated, estimate_mix
from unoic_cli.data.dataset import DataSet
from unoic_cli.data.steps import Steps, write_json
from unoic_cli.errors import UsageError
from unoic_cli.formats.block import Source
from unoic_cli.frames import Framed
from unoic_cli.fusions import DEFAULT, FUSIONS, listed
from unoic_cli.options import Option, filled, given_flags
from unoic_cli.resolve.common import (
    PRIOR_WORDS,
    Inputs,
    Notes,
    check_output,
    count_labels,
    files_among,
    files_of,
    no_labels,
    open_inputs,
    output_path,
)
from unoic_cli.resolve.options import DataOptions, DeltaPowerOption, ForceOption, WeightsOption
from unoic_cli.schemas import marked
from unoic_cli.searches.target import HOW

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


How: TypeAlias = Literal["map-em", "em", "bbse"]


@dataclass(frozen=True)
class PriorResult(Framed):
    """Label counts of a data set, or an estimate.

    Attributes
    ----------
    counts : tuple of int
        (K,); of the labelled data, where the prior is estimated.
    prior : tuple of float
        (K,) frequencies.
    n, n_ignored : int
        Labelled and ignored units; of the labelled data, where the prior is estimated.
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
    estimated : Estimated or None
        How the prior was estimated; None where labels were counted.
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
    estimated: Estimated | None = None

    __repr__ = brief
    _repr_html_ = in_html

    def glance(self) -> dict[str, list[Any]]:
        """What notebooks show: the classes."""
        counts = {} if self.estimated is not None else {"count": list(self.counts)}
        return {"class": self._names(), **counts, "prior": list(self.prior)}

    def _columns(self) -> dict[str, Any]:
        """A row for each class: its count where it was counted, and its share."""
        found = self.glance()
        return {"class": list(range(len(self.prior))), "name": found.pop("class"), **found}

    def _names(self) -> list[str]:
        return list(self.class_names or map(str, range(len(self.prior))))

    @detached
    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command; ``--source-prior`` and ``--target-prior`` read it."""
        if self.estimated is not None:
            return {
                "prior": list(self.prior),
                "n_classes": len(self.prior),
                "class_names": list(self.class_names) if self.class_names else None,
                "imbalance_ratio": self.imbalance_ratio,
                **self.estimated.to_dict(),
                "files": list(self.files),
                "split": self.split,
                "notes": list(self.notes),
            }
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
    estimate: Annotated[
        bool,
        Option(
            "--estimate",
            None,
            "Estimate the class frequencies of FILES, whose labels are not looked at, from labelled data.",
        ),
    ]
    labelled: Annotated[
        Any,
        Option(
            "--labelled",
            "FILES",
            "With --estimate: logits files of the same network, with labels (repeatable; NAME=FILE for a modality).",
            many=True,
            takes="path, sequence of paths, Source, or mapping of these by modality",
        ),
    ]
    labelled_split: Annotated[
        str | None, Option("--labelled-split", "NAME", "With --estimate: only these labelled samples.", rare=True)
    ]
    how: Annotated[
        How | None,
        Option(
            "--how",
            "HOW",
            "With --estimate: map-em (default), em (no prior on the frequencies), or bbse (from predictions alone).",
            takes='{"map-em", "em", "bbse"}',
        ),
    ]
    calibration: Annotated[
        str | os.PathLike[str] | Calibration | None,
        Option(
            "--calibration -c",
            "FILE",
            "With --estimate: scores as this calibration makes them (delta, temperature, fusion), its source prior.",
        ),
    ]
    source_prior: Annotated[
        Any,
        Option(
            "--source-prior",
            "PRIOR",
            "With --estimate: class frequencies in training, as of search-lambda. Default: what the labelled files "
            "store, else their labels.",
            many=True,
            takes="str, path, Prior, (K,) array, mapping by class, or mapping of these by modality",
        ),
    ]
    delta: Annotated[
        Any,
        Option(
            "--delta",
            "SPEC",
            "With --estimate: statistics written by fit-delta, fit (on the labelled files), or none; NAME=SPEC for a "
            "modality (repeatable). Default: what the files store.",
            many=True,
            takes="str, path, DeltaStatistics or mapping by modality",
        ),
    ]
    delta_power: DeltaPowerOption
    fusion: Annotated[
        str | None,
        Option("--fusion", "HOW", f"With --estimate: {listed([f'{DEFAULT} (default)', *FUSIONS[1:]])}."),
    ]
    weights: WeightsOption


ESTIMATING = ("labelled", "labelled_split", "how", *SCORES)
"""Options that an estimate alone has."""


def prior(
    inputs: Inputs,
    labels: ArrayLike | None = None,
    **options: Unpack[PriorOptions],
) -> Steps[PriorResult]:
    """Count labels in one stream over the labels alone, or estimate class frequencies without them.

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

    Notes
    -----
    An estimate makes the labelled scores a posterior (BCTS-MAP: one factor, and an offset for each class), and then
    finds the frequencies under which the unlabelled scores are likeliest, by expectation maximisation. It is adopted
    when the mean posteriors of both differ (T2, p < .001), and when the margins of the labelled units, weighted to
    the estimate, are those of the unlabelled ones; else the prior is that of the labelled units.

    Examples
    --------
    >>> from unoic_cli import prior
    >>> import numpy as np
    >>> prior(np.zeros((4, 3), dtype=np.float32), [0, 2, 2, 255]).counts
    (1, 0, 2)

    >>> from unoic_cli import from_arrays
    >>> rng = np.random.default_rng(0)
    >>> y, t = rng.choice(2, 500, p=[0.8, 0.2]), rng.choice(2, 500, p=[0.2, 0.8])
    >>> z, x = (rng.normal(size=(500, 2)) + 2 * np.eye(2)[k] for k in (y, t))
    >>> found = prior(x, estimate=True, labelled=from_arrays(z, y), source_prior=[0.8, 0.2])
    >>> found.estimated.found.reason, [round(share, 1) for share in found.prior]
    (None, [0.3, 0.7])
    """
    chosen = filled(PriorOptions, options)
    notes, output, force = Notes(chosen["tell"]), output_path(chosen["output"]), chosen["force"]
    if force and output is None:
        raise UsageError("--force", "--force without --output", "expected an output that it may replace")
    _check_options(chosen)
    data = yield from open_inputs(inputs, labels, chosen, notes)
    if chosen["estimate"]:
        result = yield from _estimate(data, output, chosen, notes)
    else:
        yield from _check_output(output, data.sources, force)
        result = yield from _count(data, chosen, notes)
    if output is not None:
        yield from write_json(output, marked(result))
    return result


def _check_options(chosen: PriorOptions) -> None:
    """Refuse options that would have no effect, and an estimate from nothing."""
    if not chosen["estimate"]:
        for option in given_flags(PriorOptions, chosen, ESTIMATING):
            raise UsageError(option, f"{option} without --estimate", "expected both")
        return
    if chosen["labelled"] is None:
        expected = "expected labelled data of the same network (--labelled FILES)"
        raise UsageError("--estimate", "--estimate without --labelled", expected)
    if chosen["how"] is not None and chosen["how"] not in HOW:
        raise UsageError("--how", f"{chosen['how']!r}", f"expected one of {', '.join(HOW)}")


def _check_output(output: str | None, sources: Sequence[Source], force: bool, *named: str) -> Steps[None]:
    if output is None:
        return
    words = (*PRIOR_WORDS, *([output] if parse_list(output, "--output") else []))
    yield from check_output(output, force=force, inputs=(*(source.name for source in sources), *named), words=words)


def _estimate(target: DataSet, output: str | None, chosen: PriorOptions, notes: Notes) -> Steps[PriorResult]:
    """The prior of data whose labels are not looked at."""
    theirs: PriorOptions = {**chosen, "split": chosen["labelled_split"]}
    labelled = yield from open_inputs(chosen["labelled"], None, theirs, notes, option="--labelled-split")
    wanted = {name: value for name, value in chosen.items() if name in SCORES}
    sources = (*target.all_sources, *labelled.all_sources)
    yield from _check_output(output, sources, chosen["force"], *files_among(*wanted.values()))
    made = yield from estimate_mix(labelled, target, chosen["how"] or HOW[0], wanted, theirs, notes)
    prior = made.found.prior.tolist()
    positive = [share for share in prior if share > 0]
    return PriorResult(
        counts=made.counts,
        prior=tuple(prior),
        n=made.n_labelled,
        n_ignored=made.n_ignored,
        class_names=labelled.class_names or target.class_names,
        imbalance_ratio=max(positive) / min(positive),
        files=tuple(files_of(target)),
        split=chosen["split"],
        notes=tuple(notes.texts),
        estimated=made,
    )


def _count(data: DataSet, chosen: PriorOptions, notes: Notes) -> Steps[PriorResult]:
    """The prior of counted labels."""
    data.require("labels", "to count them")
    tally = yield from count_labels(data)
    counts = tally.counts.tolist()
    n = sum(counts)
    if n == 0:
        raise no_labels(data, tally.n_ignored)
    positive = [count for count in counts if count > 0]
    return PriorResult(
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
