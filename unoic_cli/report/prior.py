"""What `prior` counted, or estimated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group

from unoic_cli.report.common import cell, facts, percent
from unoic_cli.report.layout import Grid

if TYPE_CHECKING:
    from unoic_cli.commands.prior import PriorResult
    from unoic_cli.commands.target_mix import Estimated


def render_prior(result: PriorResult) -> Group:
    """Facts, and a row for each class."""
    if result.estimated is not None:
        return _render_estimate(result, result.estimated)
    table = Grid()
    table.add_column("class")
    table.add_column("count", justify="right")
    table.add_column("%", justify="right")
    for name, count, share in zip(_names(result), result.counts, result.prior, strict=True):
        table.add_row(name, f"{count:,}", percent(share, 4))
    ratio = "-" if result.imbalance_ratio is None else f"{result.imbalance_ratio:.6g}"
    rows = [("labelled", f"{result.n:,} ({result.n_ignored:,} ignored)"), ("largest : smallest", ratio)]
    return Group(facts(rows), table)


def _render_estimate(result: PriorResult, made: Estimated) -> Group:
    """Whether the estimate is adopted and why; of each class the share, labelled and estimated, with its interval."""
    found = made.found
    table = Grid()
    for name in ("class", "labelled %", "estimate %", "95 % interval", "prior %"):
        table.add_column(name, justify="left" if name == "class" else "right")
    between = found.interval
    for k, name in enumerate(_names(result)):
        ends = f"{percent(between.lower[k])} to {percent(between.upper[k])}" if between.full else "-"
        table.add_row(name, percent(found.pi[k]), percent(found.mix.q[k]), ends, percent(result.prior[k]))
    return Group(facts(_about(made)), table)


def _about(made: Estimated) -> list[tuple[str, str]]:
    found, test, far = made.found, made.found.test, made.found.distance
    of = "" if test.rest is None else f" and {test.rest}"
    verdict = "adopted" if found.reason is None else f"not adopted: {found.reason}"
    return [
        ("estimate", f"{verdict} ({found.how})"),
        ("shift", f"T2 {test.t2:.6g}, df {test.df}{of}, p {test.p:.3g}"),
        ("margins", f"KS {far.ks:.4f} of {far.n_eff:,.0f} units{', which differ' if far.fires else ''}"),
        ("unlabelled", _of(made.n_target, made.kept_target)),
        ("labelled", _of(made.n_labelled, made.kept_labelled)),
        ("fit", f"a {found.fit.a:.6g}, tau {found.fit.tau:g}"),
    ]


def _of(n: int, kept: int) -> str:
    return f"{n:,}" if n == kept else f"{n:,}, of which a sample of {kept:,}"


def _names(result: PriorResult) -> list[str]:
    return list(result.class_names or map(str, range(len(result.prior))))


def prior_tsv(result: PriorResult) -> str:
    """Class and count, or class and estimated share; `--source-prior` and `--target-prior` read it."""
    if result.estimated is not None:
        rows = zip(_names(result), map(repr, result.prior), strict=True)
        return "\n".join(["class\tprior", *(f"{cell(name)}\t{share}" for name, share in rows)]) + "\n"
    lines = ["class\tcount"]
    lines += [f"{cell(name)}\t{count}" for name, count in zip(_names(result), result.counts, strict=True)]
    return "\n".join(lines) + "\n"
