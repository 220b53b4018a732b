"""What `doctor` found, for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from unoic_cli.report.common import facts

if TYPE_CHECKING:
    from unoic_cli.commands.doctor import DoctorResult, Kernels, Speed
    from unoic_cli.report.layout import Facts

_FORMS = {
    "auto": "plain numpy up to {:,} scores, compiled beyond",
    "plain": "plain numpy alone (UNOIC_KERNELS)",
    "compiled": "compiled alone (UNOIC_KERNELS, or without the JIT)",
}


def render_doctor(result: DoctorResult) -> Facts:
    """Two columns: what, and what was found of it.

    Parameters
    ----------
    result : DoctorResult
        As returned by `unoic_cli.doctor`.
    """
    rows = [(name, version or "missing") for name, version in result.versions.items()]
    for extra, found in result.extras.items():
        rows.append((f"unoic[{extra}]", "complete" if found else f"not complete: pip install 'unoic[{extra}]'"))
    bounds = ", ".join(f"{name} {n}" for name, n in result.threads_from.items())
    why = f"the least of {bounds}" if len(result.threads_from) > 1 else f"by the {bounds.rpartition(' ')[0]}"
    rows.append(("threads", f"{result.threads} ({why}); --threads N asks for others"))
    rows.append(("kernels", _FORMS[result.form].format(result.plain_scores)))
    rows += _about(result.kernels)
    rows.append(("counting", _speed(result.speed)))
    if result.warmed is not None:
        now = result.warmed
        all_ = f"{now.compiled} of the {now.forms} forms that commands call"
        rows.append(("compiled now", f"{all_}, in {now.seconds:g} s, by {now.processes} processes"))
    return facts(rows)


def _speed(speed: Speed) -> str:
    """How fast scores in memory are counted."""
    compiled = f"compiled {speed.compiled:,.0f} MB/s" if speed.compiled is not None else ""
    rates = ([] if speed.plain is None else [f"numpy {speed.plain:,.0f} MB/s"]) + ([compiled] if compiled else [])
    if not rates:
        return "could not be measured"
    later = "" if compiled else "; compiled kernels are not there to be measured (unoic doctor --warm)"
    return f"{', '.join(rates)} (evaluate, float32 in memory){later}"


def _about(kernels: Kernels) -> Iterator[tuple[str, str]]:
    yield "processor", f"{kernels.processor} ({', '.join(kernels.features) or 'no special features'})"
    yield "numba", "compiles" if kernels.trouble is None else f"cannot be used: {kernels.trouble}"
    mode = "not there yet" if kernels.mode is None else f"permissions {kernels.mode}"
    yield "kept in", "no folder" if kernels.cache is None else f"{kernels.cache} ({mode})"
    if kernels.refused is not None:
        yield "not used", kernels.refused
    n = sum(kernels.compiled.values())
    yield "compiled", f"{n} forms of {len(kernels.compiled)} kernels, {kernels.n_bytes / 1e6:.1f} MB"
