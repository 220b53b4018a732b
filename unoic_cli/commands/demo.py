"""`demo`: what a first session looks like, on a sample that is installed with the program."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

from unoic_cli.brief import brief, detached, in_html
from unoic_cli.options import Option
from unoic_cli.resolve.options import ForceOption

FOLDER = "unoic-demo"
DATA = Path(__file__).resolve().parents[1] / "demo_data"
"""The sample; ``sample_data/fashion_lt`` of the repository holds the same bytes."""
SAMPLE = ("val.h5", "test.h5", "LICENSE")
COMMANDS = (
    ("search-lambda", "val.h5", "--folds", "3", "-o", "calibration.json"),
    ("calibrate", "test.h5", "-c", "calibration.json", "-o", "test.calibrated.h5"),
    ("evaluate", "test.h5", "-c", "calibration.json"),
    ("page", "val.h5", "test.h5", "-o", "page.html"),
)
"""In their order; one that this version does not have is left out."""
WHAT = {
    "search-lambda": "find lambda on validation data, cross-validated",
    "calibrate": "write calibrated log-probabilities of other data",
    "evaluate": "measure what that changes: before, after, and what is beyond chance",
    "page": "a page that shows it all, for a browser",
}
NEXT = (
    ("unoic info FILE", "what a file of your own holds, and which commands to run on it"),
    ("unoic search-lambda --help", "metrics, constraints and priors to choose lambda by"),
    ("python -m pydoc unoic_cli.LogitWriter", "how a network writes its logits, batch by batch"),
)


class DemoOptions(TypedDict, total=False):
    """Options of `demo`."""

    output: Annotated[
        str | os.PathLike[str],
        Option("--output -o", "FOLDER", "The folder to make.", default=FOLDER, says="where"),
    ]
    force: ForceOption


@dataclass(frozen=True)
class DemoResult:
    """A folder with the sample, and what to run in it.

    Attributes
    ----------
    folder : str
    files : tuple of str
        Names in it.
    commands : tuple of tuple of str
        The words of each command after ``unoic``.
    """

    folder: str
    files: tuple[str, ...]
    commands: tuple[tuple[str, ...], ...]

    __repr__ = brief
    _repr_html_ = in_html

    @detached
    def to_dict(self) -> dict[str, Any]:
        """Names and words."""
        return {"folder": self.folder, "files": list(self.files), "commands": [list(words) for words in self.commands]}
