"""`doctor`: what this installation is, after its kernels were compiled where that is asked for."""

from __future__ import annotations

from typing import Unpack

from unoic_cli.api.measuring import measure
from unoic_cli.api.warming import warm
from unoic_cli.calls import public
from unoic_cli.commands.doctor import DoctorOptions, DoctorResult, look
from unoic_cli.options import filled


@public
def doctor(**options: Unpack[DoctorOptions]) -> DoctorResult:
    """Say what this installation is, has and may use.

    Parameters
    ----------
    **options : Unpack[DoctorOptions]
        See `DoctorOptions`.

    Returns
    -------
    DoctorResult

    Raises
    ------
    UnoicError
        With `warm`: numba cannot compile, no folder keeps what it compiles, or kernels are to be plain.

    Examples
    --------
    >>> from unoic_cli import doctor
    >>> import numpy as np
    >>> doctor().versions["numpy"] == np.__version__
    True
    """
    chosen = filled(DoctorOptions, options)
    return look(warm(chosen["tell"]) if chosen["warm"] else None, measure())
