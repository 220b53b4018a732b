"""Rebalance saved logits without retraining: the lambda path, calibration and streaming evaluation.

Every command is a function here: `search_lambda`, `calibrate`, `fuse`, `evaluate`, `compare`,
`fit_delta`, `fit_temperature`, `info`, `prior`, `convert`, `pack`, `show`, `export`; `run` cuts those that count into
shards, keeps them in checkpoints and spreads them over a cluster, `merge_states` and `report_states` put them together.
`plot` draws results, `page` makes an HTML file of them, `doctor` says what an installation is, `demo` makes a folder
with a sample. `LogitWriter` writes what commands read while a network runs, `LambdaPath` counts what `search_lambda`
does without a file, and a `Calibration` applies itself to arrays.
Importing the package is cheap; numba, h5py and pyarrow are loaded by the functions that need them.
"""

from __future__ import annotations

import importlib
import os

from unoic_cli.version import __version__

TYPE_CHECKING = False  # without `typing`: the less is loaded before the program listens to signals, the better
if TYPE_CHECKING:
    from typing import Any

    from unoic_cli import commands
    from unoic_cli.api.demo import demo
    from unoic_cli.api.doctor import doctor
    from unoic_cli.api.functions import command
    from unoic_cli.api.lambda_path import LambdaPath
    from unoic_cli.api.page import page
    from unoic_cli.api.stored import Control, StateResult, merge_states, report_states, run
    from unoic_cli.calibrations.calibration import Calibration
    from unoic_cli.calibrations.delta import DeltaStatistics
    from unoic_cli.calibrations.prior import Prior
    from unoic_cli.commands.calibrate import CalibrateResult
    from unoic_cli.commands.compare import CompareResult
    from unoic_cli.commands.convert import ConvertResult
    from unoic_cli.commands.demo import DemoResult
    from unoic_cli.commands.doctor import DoctorResult
    from unoic_cli.commands.evaluate import EvaluateResult
    from unoic_cli.commands.export import ExportResult
    from unoic_cli.commands.fit_delta import FitDeltaResult
    from unoic_cli.commands.fit_temperature import FitTemperatureResult
    from unoic_cli.commands.info import InfoResult
    from unoic_cli.commands.pack import PackResult
    from unoic_cli.commands.page import PageResult
    from unoic_cli.commands.prior import PriorResult
    from unoic_cli.commands.search import SearchResult
    from unoic_cli.commands.show import ShowResult
    from unoic_cli.errors import UnoicError
    from unoic_cli.formats.arrays import from_arrays
    from unoic_cli.formats.block import Source
    from unoic_cli.formats.logit_writer import LogitWriter
    from unoic_cli.plots.command import PlotResult, plot

    calibrate = command(commands.calibrate.calibrate)
    compare = command(commands.compare.compare)
    convert = command(commands.convert.convert)
    evaluate = command(commands.evaluate.evaluate)
    export = command(commands.export.export)
    fit_delta = command(commands.fit_delta.fit_delta)
    fit_temperature = command(commands.fit_temperature.fit_temperature)
    fuse = command(commands.calibrate.fuse)
    info = command(commands.info.info)
    pack = command(commands.pack.pack)
    prior = command(commands.prior.prior)
    search_lambda = command(commands.search.search_lambda)
    show = command(commands.show.show)

_COMMANDS = {
    "calibrate": "commands.calibrate",
    "compare": "commands.compare",
    "convert": "commands.convert",
    "evaluate": "commands.evaluate",
    "export": "commands.export",
    "fit_delta": "commands.fit_delta",
    "fit_temperature": "commands.fit_temperature",
    "fuse": "commands.calibrate",
    "info": "commands.info",
    "pack": "commands.pack",
    "prior": "commands.prior",
    "search_lambda": "commands.search",
    "show": "commands.show",
}
"""Commands, and where their generators are."""
_WHERE = {
    "Calibration": "calibrations.calibration",
    "DeltaStatistics": "calibrations.delta",
    "Prior": "calibrations.prior",
    "CalibrateResult": "commands.calibrate",
    "CompareResult": "commands.compare",
    "ConvertResult": "commands.convert",
    "DemoResult": "commands.demo",
    "DoctorResult": "commands.doctor",
    "EvaluateResult": "commands.evaluate",
    "ExportResult": "commands.export",
    "FitDeltaResult": "commands.fit_delta",
    "FitTemperatureResult": "commands.fit_temperature",
    "InfoResult": "commands.info",
    "PackResult": "commands.pack",
    "PageResult": "commands.page",
    "PlotResult": "plots.command",
    "PriorResult": "commands.prior",
    "SearchResult": "commands.search",
    "ShowResult": "commands.show",
    "Control": "api.stored",
    "StateResult": "api.stored",
    "LambdaPath": "api.lambda_path",
    "LogitWriter": "formats.logit_writer",
    "Source": "formats.block",
    "UnoicError": "errors",
    "demo": "api.demo",
    "doctor": "api.doctor",
    "from_arrays": "formats.arrays",
    "merge_states": "api.stored",
    "page": "api.page",
    "plot": "plots.command",
    "report_states": "api.stored",
    "run": "api.stored",
}
_ROOMS = ("plots",)
"""Modules of functions for Python alone."""

__all__ = [
    "CalibrateResult",
    "Calibration",
    "CompareResult",
    "Control",
    "ConvertResult",
    "DeltaStatistics",
    "DemoResult",
    "DoctorResult",
    "EvaluateResult",
    "ExportResult",
    "FitDeltaResult",
    "FitTemperatureResult",
    "InfoResult",
    "LambdaPath",
    "LogitWriter",
    "PackResult",
    "PageResult",
    "PlotResult",
    "Prior",
    "PriorResult",
    "SearchResult",
    "ShowResult",
    "Source",
    "StateResult",
    "UnoicError",
    "__version__",
    "calibrate",
    "compare",
    "convert",
    "demo",
    "doctor",
    "evaluate",
    "export",
    "fit_delta",
    "fit_temperature",
    "from_arrays",
    "fuse",
    "info",
    "merge_states",
    "pack",
    "page",
    "plot",
    "prior",
    "report_states",
    "run",
    "search_lambda",
    "show",
]


def _is_module(name: str) -> bool:
    return any(os.path.exists(os.path.join(folder, name + suffix)) for folder in __path__ for suffix in ("", ".py"))


def __getattr__(name: str) -> Any:
    if name in _COMMANDS:
        from unoic_cli.api.functions import command

        made = command(getattr(importlib.import_module(f"{__name__}.{_COMMANDS[name]}"), name))
        return globals().setdefault(name, made)
    if name in _WHERE:
        return getattr(importlib.import_module(f"{__name__}.{_WHERE[name]}"), name)
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    if name.startswith("_") or _is_module(name):  # that is asked before it is imported
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from unoic_cli.calls import nearest

    near = nearest(name, __all__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}" + (f"; did you mean {near}?" if near else ""))


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS, *(name for name in globals() if name.startswith("__"))})
