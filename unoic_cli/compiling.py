"""Kernels that are compiled on first use: who is told before it begins, and whether it goes on."""

from __future__ import annotations

import sys
from collections.abc import Callable

from unoic_cli.errors import one_line

Listener = Callable[[str], None]


class _State:
    """Who is told, whether that was done in this process, and how many compilations have begun and not ended."""

    listener: Listener | None = None
    told = False
    running = 0


def listen(listener: Listener | None) -> None:
    """Say who is told, once a process, before the first kernel is compiled."""
    _State.listener = listener


def told() -> None:
    """Nobody needs to be told any more."""
    _State.told = True


def begin(kept: str | None) -> None:
    """A kernel will be compiled.

    Parameters
    ----------
    kept : str or None
        The folder that keeps it, if one can.
    """
    _State.running += 1
    if _State.told:
        return
    _State.told = True
    text = f"compiling the kernels of this command, once for this processor (10 to 20 s), kept in {kept}"
    if kept is None:
        text = "compiling kernels for this processor (10 to 20 s); no folder can keep them, so every process does it "
        text += "again (UNOIC_CACHE_DIR names a folder)"
    _say(text)


def _say(text: str) -> None:
    if _State.listener is not None:
        _State.listener(text)
    elif hasattr(sys, "ps1"):  # somebody sits before it
        print(f"unoic: note: {text}", file=sys.stderr, flush=True)


def failed(error: Exception) -> None:
    """Kernels cannot be compiled."""
    _State.running = 0
    _say(f"kernels cannot be compiled ({one_line(f'{type(error).__name__}: {error}')}); numpy does their work, slowly")


def end() -> None:
    """A kernel is compiled."""
    _State.running -= 1


def active() -> bool:
    """Whether kernels are being compiled."""
    return _State.running > 0
