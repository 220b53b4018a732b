"""Rebalance saved logits without retraining: the lambda path, calibration and streaming evaluation.

Every command is a function here: `search_lambda`, `calibrate`, `fuse`, `evaluate`, `compare`,
`fit_delta`, `fit_temperature`, `info`, `prior`, `convert`, `pack`; `run` cuts those that count into shards, keeps them
in checkpoints and spreads them over a cluster, `merge_states` and `report_states` put them together.
Importing the package is cheap; numba, h5py and pyarrow are loaded by the functions that need them.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

from unoic_cli.errors import UnoicError
from unoic_cli.version import __version__

if TYPE_CHECKING:
    from unoic_cli import tasks
    from unoic_cli.api import command
    from unoic_cli.calibration import Calibration
    from unoic_cli.formats.arrays import from_arrays
    from unoic_cli.priors import Prior
    from unoic_cli.tasks.calibrate import CalibrateResult
    from unoic_cli.tasks.compare import CompareResult
    from unoic_cli.tasks.convert import ConvertResult
    from unoic_cli.tasks.evaluate import EvaluateResult
    from unoic_cli.tasks.fit_delta import FitDeltaResult
    from unoic_cli.tasks.fit_temperature import FitTemperatureResult
    from unoic_cli.tasks.info import InfoResult
    from unoic_cli.tasks.pack import PackResult
    from unoic_cli.tasks.prior import PriorResult
    from unoic_cli.tasks.runs import Control, StateResult, merge_states, report_states, run
    from unoic_cli.tasks.search import SearchResult

    calibrate = command(tasks.calibrate.calibrate)
    compare = command(tasks.compare.compare)
    convert = command(tasks.convert.convert)
    evaluate = command(tasks.evaluate.evaluate)
    fit_delta = command(tasks.fit_delta.fit_delta)
    fit_temperature = command(tasks.fit_temperature.fit_temperature)
    fuse = command(tasks.calibrate.fuse)
    info = command(tasks.info.info)
    pack = command(tasks.pack.pack)
    prior = command(tasks.prior.prior)
    search_lambda = command(tasks.search.search_lambda)

_COMMANDS = {
    "calibrate": "tasks.calibrate",
    "compare": "tasks.compare",
    "convert": "tasks.convert",
    "evaluate": "tasks.evaluate",
    "fit_delta": "tasks.fit_delta",
    "fit_temperature": "tasks.fit_temperature",
    "fuse": "tasks.calibrate",
    "info": "tasks.info",
    "pack": "tasks.pack",
    "prior": "tasks.prior",
    "search_lambda": "tasks.search",
}
"""Commands, and where their generators are."""
_WHERE = {
    "Calibration": "calibration",
    "Prior": "priors",
    "CalibrateResult": "tasks.calibrate",
    "CompareResult": "tasks.compare",
    "ConvertResult": "tasks.convert",
    "EvaluateResult": "tasks.evaluate",
    "FitDeltaResult": "tasks.fit_delta",
    "FitTemperatureResult": "tasks.fit_temperature",
    "InfoResult": "tasks.info",
    "PackResult": "tasks.pack",
    "PriorResult": "tasks.prior",
    "SearchResult": "tasks.search",
    "Control": "tasks.runs",
    "StateResult": "tasks.runs",
    "from_arrays": "formats.arrays",
    "merge_states": "tasks.runs",
    "report_states": "tasks.runs",
    "run": "tasks.runs",
}

__all__ = [
    "CalibrateResult",
    "Calibration",
    "CompareResult",
    "Control",
    "ConvertResult",
    "EvaluateResult",
    "FitDeltaResult",
    "FitTemperatureResult",
    "InfoResult",
    "PackResult",
    "Prior",
    "PriorResult",
    "SearchResult",
    "StateResult",
    "UnoicError",
    "__version__",
    "calibrate",
    "compare",
    "convert",
    "evaluate",
    "fit_delta",
    "fit_temperature",
    "from_arrays",
    "fuse",
    "info",
    "merge_states",
    "pack",
    "prior",
    "report_states",
    "run",
    "search_lambda",
]


def _is_module(name: str) -> bool:
    return any(os.path.exists(os.path.join(folder, name + suffix)) for folder in __path__ for suffix in ("", ".py"))


def __getattr__(name: str) -> Any:
    if name in _COMMANDS:
        from unoic_cli.api import command

        made = command(getattr(importlib.import_module(f"{__name__}.{_COMMANDS[name]}"), name))
        return globals().setdefault(name, made)
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    if name.startswith("_") or _is_module(name):  # that is asked before it is imported
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from unoic_cli.calls import nearest

    near = nearest(name, __all__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}" + (f"; did you mean {near}?" if near else ""))


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
