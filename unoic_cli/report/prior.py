"""What `prior` counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group

from unoic_cli.report.common import cell, facts, percent
from unoic_cli.report.layout import Grid

if TYPE_CHECKING:
    from unoic_cli.commands.prior import PriorResult


def render_prior(result: PriorResult) -> Group:
    """Facts, and a row for each class."""
    table = Grid()
    table.add_column("class")
    table.add_column("count", justify="right")
    table.add_column("%", justify="right")
    names = result.class_names or [str(k) for k in range(len(result.counts))]
    for name, count, share in zip(names, result.counts, result.prior, strict=True):
        table.add_row(name, f"{count:,}", percent(share, 4))
    ratio = "-" if result.imbalance_ratio is None else f"{result.imbalance_ratio:.6g}"
    rows = [("labelled", f"{result.n:,} ({result.n_ignored:,} ignored)"), ("largest : smallest", ratio)]
    return Group(facts(rows), table)


def prior_tsv(result: PriorResult) -> str:
    """Class and count; `--source-prior` reads it."""
    names = result.class_names or [str(k) for k in range(len(result.counts))]
    lines = ["class\tcount"]
    lines += [f"{cell(name)}\t{count}" for name, count in zip(names, result.counts, strict=True)]
    return "\n".join(lines) + "\n"
