"""`doctor`: what this installation is, has and may use."""

from __future__ import annotations

import platform
import stat
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, TypedDict

from unoic_cli import kernels
from unoic_cli.brief import brief, detached, in_html
from unoic_cli.machine import available_threads, thread_bounds
from unoic_cli.options import Option
from unoic_cli.resolve.options import TellOption

NEEDED = ("numpy", "numba", "llvmlite", "h5py", "pyarrow", "isal", "msgspec", "rich", "typer")
EXTRAS = {
    "cloud": ("fsspec", "adlfs", "gcsfs", "s3fs"),
    "dask": ("distributed",),
    "nifti": ("nibabel",),
    "onnx": ("onnx",),
    "plot": ("matplotlib",),
    "sklearn": ("scikit-learn",),
}
FEATURES = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512fp16", "neon", "fullfp16", "sve", "sve2")
"""Of a processor, those that make a difference to kernels."""


class DoctorOptions(TypedDict, total=False):
    """Options of `doctor`."""

    warm: Annotated[
        bool,
        Option(
            "--warm",
            None,
            "First compile all kernels that commands call, each by one of as many processes as there are CPUs: no "
            "command has to, then.",
            says="how",
        ),
    ]
    tell: TellOption


@dataclass(frozen=True)
class Kernels:
    """What compiled kernels are for, and where they are kept.

    Attributes
    ----------
    processor : str
    features : tuple of str
        Of `FEATURES`, those that it has and kernels may use.
    trouble : str or None
        Why nothing can be compiled.
    cache : str or None
        Their folder, one for each processor and version of the program; None where none can be named.
    refused : str or None
        Why it is not used.
    mode : str or None
        Its permissions, in octal; None where it is not there yet.
    compiled : dict of str to int
        How many forms of each kernel it holds.
    n_bytes : int
        What these weigh.
    """

    processor: str
    features: tuple[str, ...] = ()
    trouble: str | None = None
    cache: str | None = None
    refused: str | None = None
    mode: str | None = None
    compiled: dict[str, int] = field(default_factory=dict)
    n_bytes: int = 0

    __repr__ = brief


@dataclass(frozen=True)
class Warmed:
    """What was compiled ahead.

    Attributes
    ----------
    forms : int
        Kernels that commands call, counted for each type of their arguments.
    compiled : int
        Those of them that were not kept before.
    seconds : float
    processes : int
    """

    forms: int
    compiled: int
    seconds: float
    processes: int


@dataclass(frozen=True)
class Speed:
    """How fast scores that are in memory are counted, as `evaluate` does it, in MB/s of float32.

    Attributes
    ----------
    plain, compiled : float or None
        By numpy, and by compiled kernels; None where these are not compiled yet, or not used.
    """

    plain: float | None = None
    compiled: float | None = None


@dataclass(frozen=True)
class DoctorResult:
    """What was found.

    Attributes
    ----------
    versions : dict of str to str or None
        Of Python, this program and what it needs; None where that is missing.
    extras : dict of str to bool
        Whether each optional extra is complete.
    threads : int
        CPUs that a command uses.
    threads_from : dict of str to int
        What bounds them, the least of which they are.
    form : {"auto", "plain", "compiled"}
        Of the kernels, see `unoic_cli.kernels`.
    plain_scores : int
        Up to which kernels are plain numpy, where the form is ``auto``.
    kernels : Kernels
    warmed : Warmed or None
        Where that was asked for.
    speed : Speed
        What was measured.
    """

    versions: dict[str, str | None]
    extras: dict[str, bool]
    threads: int
    threads_from: dict[str, int]
    form: str
    plain_scores: int
    kernels: Kernels
    warmed: Warmed | None = None
    speed: Speed = field(default_factory=Speed)

    __repr__ = brief
    _repr_html_ = in_html

    @detached
    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command."""
        content = asdict(self)
        about = content.pop("kernels")
        warmed = content.pop("warmed")
        speed = {f"{form}_mb_per_s": rate for form, rate in content.pop("speed").items()}
        return {**content, **about, "features": list(about["features"]), "warmed": warmed, **speed}


def look(warmed: Warmed | None = None, speed: Speed | None = None) -> DoctorResult:
    """Look at this installation.

    Parameters
    ----------
    warmed : Warmed, optional
        What was compiled before.
    speed : Speed, optional
        What was measured.

    Examples
    --------
    >>> import numpy as np
    >>> found = look()
    >>> found.versions["numpy"] == np.__version__, found.threads >= 1, found.warmed
    (True, True, None)
    """
    return DoctorResult(
        versions={"python": platform.python_version(), **{name: _version(name) for name in ("unoic", *NEEDED)}},
        extras={extra: all(map(_version, names)) for extra, names in EXTRAS.items()},
        threads=available_threads(),
        threads_from=thread_bounds(),
        form=kernels.forced() or "auto",
        plain_scores=kernels.PLAIN_SCORES,
        kernels=about_kernels(),
        warmed=warmed,
        speed=speed or Speed(),
    )


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def about_kernels() -> Kernels:
    """What kernels are compiled for, whether they can be, and those that are kept."""
    try:
        from unoic_cli.kernels import jit
    except Exception as error:  # numba is missing, or does not go with numpy
        return Kernels(platform.machine(), trouble=f"{type(error).__name__}: {error}")
    name, features = jit.processor()
    about = Kernels(name, tuple(one for one in FEATURES if one in features), jit.trouble())
    try:
        folder = jit.cache_folder()
    except (OSError, RuntimeError) as error:
        return replace(about, refused=f"{type(error).__name__}: {error}")
    refused = jit.refusal
    if refused is None and not _can_be_made(folder):
        refused = "nothing can be kept there, so every process compiles again (UNOIC_CACHE_DIR names another folder)"
    about = replace(about, cache=str(folder), refused=refused, mode=_mode(folder))
    files = [] if jit.refusal is not None else sorted(folder.glob("*.bin"))
    held = Counter(path.name.rpartition("-")[0] for path in files)
    compiled = {kernel: held[kernel] for kernel in kernels.NAMES if held[kernel]}
    return replace(about, compiled=compiled, n_bytes=sum(path.stat().st_size for path in files))


def _can_be_made(folder: Path) -> bool:
    """Whether something can be put into a folder, or into what it would be made in; nothing is left there."""
    there = next((place for place in (folder, *folder.parents) if place.exists()), folder)
    try:
        with tempfile.TemporaryDirectory(dir=there):
            return True
    except OSError:
        return False


def _mode(folder: Path) -> str | None:
    try:
        return f"{stat.S_IMODE(folder.stat().st_mode):04o}"
    except OSError:
        return None
