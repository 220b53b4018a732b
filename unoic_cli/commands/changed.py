"""Rows whose decision changes, those that change most first: what `show` finds of data without images."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np

from unoic_cli.calibrations.rule import Rule
from unoic_cli.data.dataset import DataSet
from unoic_cli.data.steps import Steps, count
from unoic_cli.kernels.operator import Pool
from unoic_cli.resolve.decider import Decider
from unoic_cli.tallies.changed import ChangedRow, Posterior, RowTally
from unoic_cli.tallies.kept import places_before
from unoic_cli.tallies.ways import Way

N_ROWS, MOST_ROWS = 100, 100_000
"""Shown where nothing else is asked for, and at most."""
DELIMITERS = {"csv": ",", "tsv": "\t"}
"""By the suffix of a table."""
_COLUMNS = ChangedRow._fields[ChangedRow._fields.index("p_before_of_before") :]


def changed_rows(
    data: DataSet, deciders: Sequence[Decider], ways: Sequence[Way], lams: Sequence[float], most: int
) -> Steps[tuple[dict[str, int], tuple[ChangedRow, ...]]]:
    """Count the rows that change from the first method to the last, and find those that change most.

    Parameters
    ----------
    data : DataSet
        Of rows.
    deciders, ways, lams : sequences
        Of each method.
    most : int
        Rows.
    """
    ends = (0, -1)
    posteriors = [_posterior(deciders[i], lams[i]) for i in ends]
    fields = frozenset({"labels", "sample_id"})
    tally = RowTally([ways[i] for i in ends], places_before(data), posteriors, most, fields)
    whole = any(deciders[i].view.needs_samples for i in ends)
    yield from count(data, [tally], raw=True, whole_samples=whole)
    return tally.counts, tuple(tally.rows)


def _posterior(decider: Decider, lam: float) -> Posterior:
    """Of a decider: its fusion, or softmax(z + lambda * s) of scores that are lines."""
    if decider.rule is not None:
        return Posterior(decider.rule, lam, joint=False)
    slopes = decider.slopes
    return Posterior(Rule(Pool, np.ones(1), slopes.values[None], slopes.masked[None]), lam, joint=True)


def table_of(rows: Sequence[ChangedRow], class_names: Sequence[str] | None, form: str) -> bytes:
    """Rows as lines of CSV or TSV, under a heading; numbers keep all their digits.

    Examples
    --------
    >>> row = ChangedRow(0.5, 3, "a.npz", 3, None, -1, 0, 1, 0.6, 0.4, 0.25, 0.75)
    >>> print(table_of([row], ["cat", "dog"], "csv").decode().splitlines()[1])
    a.npz,3,,cat,dog,0.5,0.6,0.4,0.25,0.75
    """
    named = any(row.sample_id is not None for row in rows)
    out = io.StringIO()
    writer = csv.writer(out, delimiter=DELIMITERS[form], lineterminator="\n")
    ids = ["sample_id"] if named else []
    writer.writerow(["file", "row", *ids, "label", "before", "after", "log_odds", *_COLUMNS])
    for row in rows:
        sample = [row.sample_id or ""] if named else []
        classes = [called(k, class_names) for k in (row.label, row.before, row.after)]
        numbers = [repr(one) for one in (row.log_odds, *(getattr(row, name) for name in _COLUMNS))]
        writer.writerow([row.file, row.row, *sample, *classes, *numbers])
    return out.getvalue().encode("utf-8", "backslashreplace")


def called(k: int, class_names: Sequence[str] | None) -> str:
    """A class by its name, or number; nothing where there is none."""
    return "" if k < 0 else str(k) if class_names is None else class_names[k]


def for_json(counts: Mapping[str, int], rows: Sequence[ChangedRow]) -> dict[str, int]:
    """How many rows change, and how many of them are shown."""
    return {**counts, "shown": len(rows)}
