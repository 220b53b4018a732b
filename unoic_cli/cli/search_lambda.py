"""``unoic search-lambda``."""

import os
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from unoic_cli.cli.common import TYPED, check_format, check_met, check_quoted, say, show
from unoic_cli.cli.completing import splits_of
from unoic_cli.cli.program import MODALITIES, counting
from unoic_cli.commands.search import SearchOptions
from unoic_cli.errors import UsageError


def check(given: Mapping[str, Any], form: str) -> None:
    """Refuse what the curve alone does not show, and what the shell took apart."""
    check_quoted("--subject-to", given["subject_to"])
    check_quoted("--require", given["require"])
    if form == "tsv" and given["folds"] is not None:
        raise UsageError("--folds", "--folds with --format tsv, which is the curve alone", "expected table or json")


def then(files: Sequence[str], given: Mapping[str, Any]) -> None:
    """Say the next command: with what was written, or how it is written."""
    if given["output"] is None:
        page = ["--page", "page.html"] if given["page"] is None else []
        force = ["--force"] if not given["force"] and (given["page"] or given["curve_output"]) else []
        say(f"next: {shlex.join(['unoic', *TYPED, '-o', 'calibration.json', *page, *force])}")
        more = ", and a page whose slider moves lambda" if page else ""
        say(f"      # the same, and writes the calibration for unoic evaluate and unoic calibrate{more}")
        return
    rest = f" -c {shlex.quote(os.fspath(given['output']))}"
    if given["split"] is None:
        others = [_test_of(name) for name in files]
    else:
        others = list(files)
        known = [name for name in splits_of(files) if name != given["split"]]
        rest = f" --split {shlex.quote(min(known, key=lambda name: 'test' not in name, default='NAME'))}{rest}"
    what = "what it gains on data that lambda was not chosen on, and a page of that"
    say(f"next: unoic evaluate {shlex.join(others)}{rest} --page evaluate.html   # {what}")
    say(f"      unoic calibrate {shlex.join(others)}{rest} -o calibrated.h5   # and what it makes of them")


def _test_of(name: str) -> str:
    """The file of test data beside one of validation data, or a word in its place."""
    modality, equals, path = name.rpartition("=")
    folder, file = os.path.split(path)
    there = os.path.join(folder, re.sub("validation|valid|val", "test", file))
    return modality + equals + (there if there != path and os.path.exists(there) else "TEST.h5")


HELP = """Predictions are argmax(delta * z + lambda * s) with s = log target prior - log source prior; those of several
modalities are fused (--fusion). With --calibration, that file holds all but lambda. With --lambda, a lambda that is
known (from a paper, say) is measured and kept as a calibration.

Example: unoic search-lambda val.h5 --folds 3 -o calibration.json
"""


@counting(SearchOptions, MODALITIES, check=check, then=then, help=HELP)
def search_lambda(result: Any, format: str | None) -> None:
    """Show the result."""
    from unoic_cli.commands.search import curve_tsv
    from unoic_cli.report.search import render_search, search_sheet

    if check_format(format) == "tsv" and result.folds is not None:
        raise UsageError("--format", "tsv, the curve alone, of a search with folds", "expected table or json")
    show(result, format, render_search, curve_tsv, search_sheet)
    check_met(result.met)
