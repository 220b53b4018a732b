"""What `page` wrote, for a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unoic_cli.metrics import title
from unoic_cli.report.common import facts

if TYPE_CHECKING:
    from unoic_cli.commands.page import PageResult
    from unoic_cli.report.layout import Facts


def render_page(result: PageResult) -> Facts:
    """Two columns: the file, and a row for each tab.

    Parameters
    ----------
    result : PageResult
        As returned by `unoic_cli.page`.
    """
    rows = [("written", f"{result.output} ({result.n_bytes:,} bytes)")]
    for tab in result.tabs:
        size = f"{tab['n']:,} labelled, {tab['n_classes']:,} classes, {tab['n_lambdas']:,} lambdas"
        shares, lam = tab["shares"], tab["lambda"]
        each = "" if shares is None else f" ({', '.join(f'{name} {lam * share:g}' for name, share in shares.items())})"
        which = f"{'lambda' if shares is None else 'factor'} {lam:g}{each}"
        rows.append((tab["name"], f"{size}; {which}; {', '.join(map(title, tab['metrics']))}"))
    return facts(rows)
