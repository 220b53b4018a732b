"""One block of scores as it travels from a file to a kernel, and what a reader may be asked for.

Units
-----
A *sample* is one entry of the file's first axis; a *unit* is what gets a label: the sample itself,
or each of its pixels. Units are numbered ``sample * pixels_per_sample + pixel`` in every layout.
"""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from unoic_cli.brief import short, wrapped
from unoic_cli.errors import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unoic_cli.formats.beside import LabelFile
    from unoic_cli.formats.carried import Carried

Kind = Literal["logits", "log_probs", "probs", "predictions"]
Encoding = Literal["float16", "bfloat16", "float32", "float64"]
Layout = Literal["rows", "planes"]
Passing = Literal["", "in order", "by place"]

_FACTS = ("source_counts", "source_prior", "class_names")
SCORE_KINDS: tuple[Kind, ...] = ("logits", "log_probs", "probs")
FIELDS = ("labels", "delta", "split", "group", "sample_id")
IGNORED_LABELS = (255, -1, -100)
"""Labels outside [0, K) that mean "no label"; others need ``--ignore-index``."""
"""Optional arrays of a logits file. labels and delta are per unit, the rest per sample."""


@dataclass(frozen=True)
class Source:
    """Where one file's scores lie and what they are: small, picklable, reopened by each worker.

    Each format has a class of its own, which also knows where the arrays are and how they are read; one of this class
    is what is known from a state file: it can be spoken of, not read.

    Attributes
    ----------
    name : str
        The input as the user typed it (``FILE`` or ``FILE::GROUP``); errors start with it.
    format : str
        Name in the registry of formats; ``arrays`` for data in memory, ``nowhere`` for what cannot be read.
    n_samples, n_classes : int
        N and K.
    image_shape : tuple of int
        ``(H, W)``, or ``()`` when a sample is a single row of scores.
    kind : str
        What the scores are, by the name of their dataset or columns. ``predictions`` files
        hold class indices only (``encoding`` and ``layout`` then mean nothing).
    encoding : str
        How a score is stored; blocks hold float16 and bfloat16 as their uint16 bits.
    layout : str
        ``rows``: the K scores of a unit lie side by side, (N, K) or (N, H, W, K).
        ``planes``: class-major images, (N, K, H, W).
    fields : frozenset of str
        Which of `FIELDS` the file has.
    source_counts, source_prior : tuple of float or None
        (K,) as stored.
    class_names : tuple of str or None
        (K,) as stored.
    storage : str
        One phrase for `info`: ``contiguous``, ``chunked (64, 14), gzip``, ``3 row groups, zstd`` ...
    attributes : dict of str to str
        Other text metadata worth showing (provenance written by `calibrate`, for one).
    single : bool
        One score of each unit is stored, and read as two classes (K = 2).
    members : dict of str to str
        What ``scores`` and ``labels`` are called in the file, where the name is not the schema's.
    notes : tuple of str
        What is worth saying of how the file is read.
    undecided : bool
        No name says what the scores are: `kind` is to be found out by their values.
    has_predictions : bool
        Usable predictions lie beside the scores; readers then give ``predictions`` when asked.
    others : tuple of str
        Arrays and columns that are not read.
    stored_bytes : int or None
        Bytes that the scores take in the file, where the format says so.
    checksums : str or None
        What would show that a bit of the stored scores has changed: ``none``, or its name; None where nobody knows.
    stored_encoding : str or None
        Of the one score of a `single` source, as `encoding` of all others.
    constants : dict of str to str
        Fields that have one value for all samples, which the name of the file or of its part says.
    labels_from : LabelFile or None
        Another file that holds the labels.
    guessed : bool
        Scores were found by no name: they must look like probabilities.
    volume : tuple of int
        ``(Z, Y, X)`` where an image is a volume, its slices one behind the other: ``image_shape`` is (Z * Y, X).
    passing : {"", "in order", "by place"}
        Batches that were counted as they passed by: nobody knew how many there would be, and none can be read again.
        Each sample lies behind those before it, or has a place of its own in the data.
    """

    name: str
    format: str
    n_samples: int
    n_classes: int
    image_shape: tuple[int, ...]
    kind: Kind
    encoding: Encoding
    layout: Layout
    fields: frozenset[str]
    source_counts: tuple[float, ...] | None = None
    source_prior: tuple[float, ...] | None = None
    class_names: tuple[str, ...] | None = None
    storage: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    single: bool = False
    members: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    undecided: bool = field(default=False, kw_only=True)
    has_predictions: bool = field(default=False, kw_only=True)
    others: tuple[str, ...] = field(default=(), kw_only=True)
    stored_bytes: int | None = field(default=None, kw_only=True)
    checksums: str | None = field(default="none", kw_only=True)
    stored_encoding: Encoding | None = field(default=None, kw_only=True)
    constants: dict[str, str] = field(default_factory=dict, kw_only=True)
    labels_from: LabelFile | None = field(default=None, kw_only=True)
    guessed: bool = field(default=False, kw_only=True)
    volume: tuple[int, ...] = field(default=(), kw_only=True)
    passing: Passing = field(default="", kw_only=True)

    def __repr__(self) -> str:
        rows = (self.n_samples, self.n_classes)
        shape = (*rows, *self.image_shape) if self.layout == "planes" else (*rows[:1], *self.image_shape, *rows[1:])
        parts = [f"{self.kind} {shape if self.kind != 'predictions' else (self.n_samples, *self.image_shape)}"]
        parts += [self.encoding] if self.kind != "predictions" else [f"n_classes={self.n_classes}"]
        parts += sorted(self.fields)
        parts += [f"{name}={short(value)}" for name in _FACTS if (value := getattr(self, name)) is not None]
        return wrapped(f"<Source {self.name}: {', '.join(parts)}>")

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(printable(repr(self), keep=chr(10)))}</pre>"

    def to_dict(self) -> dict[str, Any]:
        """All but where it lies, as JSON."""
        said = [one.name for one in fields(Source) if one.name != "format" and not one.kw_only]
        more = {"passing": self.passing} if self.passing else {}
        return {name: getattr(self, name) for name in said} | {"fields": sorted(self.fields)} | more

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Source:
        """What `to_dict` wrote: a source that can be spoken of, not read."""
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        known |= {"format": "nowhere", "fields": frozenset(content["fields"])}
        return cls(**known)

    def open(self) -> Reader:
        """A reader, for one thread."""
        raise TypeError(f"{self.name} is known, and cannot be read")

    def spans(self, target_bytes: int) -> list[tuple[int, int]]:
        """Runs of units that one worker reads at once, about `target_bytes` of scores each."""
        return [(0, self.n_units)] if self.n_units else []

    @property
    def n_bytes(self) -> int:
        """Bytes of the file, or of the arrays in memory."""
        return 0

    def read_path(self) -> tuple[str, str]:
        """How scores are read, in a word or two, and why that is slower than it could be (or nothing)."""
        return self.format, ""

    def decoded_whole(self) -> int:
        """Bytes of scores that must be decoded at once, however little memory there is; 0 where buffers are bounded."""
        return 0

    def delta_storage(self) -> tuple[bool, str]:
        """Whether delta is stored once per image, and as which dtype."""
        return False, "float64"

    @property
    def pixels(self) -> int:
        """Units per sample; H * W, or 1."""
        count = 1
        for extent in self.image_shape:
            count *= extent
        return count

    @property
    def n_units(self) -> int:
        """Rows of scores in the file; N, or N * H * W."""
        return self.n_samples * self.pixels

    @property
    def scores_name(self) -> str:
        """``FILE:DATASET`` of the scores, for messages."""
        return self.where("scores")

    def where(self, role: str) -> str:
        """``FILE:DATASET`` of the scores or the labels, for messages."""
        return f"{self.name}:{self.members.get(role) or (self.kind if role == 'scores' else role)}"


@dataclass
class LogitBlock:
    """Consecutive units of one source, as stored (nothing scaled, checked or dropped yet).

    Attributes
    ----------
    start, stop : int
        Units of the source that the block holds. A `planes` block holds whole images, or a part
        of one single image.
    scores : ndarray or None
        Native-endian and C-contiguous; uint16 bits for float16 and bfloat16, else float32 or
        float64. Shape (T, K) for `rows`; (B, K, P) for `planes` with T = B * P. None when not asked for.
    predictions : ndarray or None
        (T,) unsigned integers, of a ``predictions`` source.
    labels : ndarray or None
        (T,), the stored integer dtype, native-endian.
    delta : ndarray or None
        (T,) float64, already repeated per unit; or (1,) when the file has one scalar.
    split, group, sample_id : ndarray or None
        Per SAMPLE: one entry for each sample that the block touches, in order
        (samples ``start // pixels`` to ``ceil(stop / pixels)``). Text as object arrays of str
        (`split`, `group`); `sample_id` as stored (text or integers).

    cache : dict
        What was worked out from the block, for those that ask again.

    Notes
    -----
    Arrays may be views of a reader's reused buffers: valid until the next block is asked for. Whoever keeps a block
    longer keeps what `own` returns, and takes it before asking for the next.
    """

    start: int
    stop: int
    scores: NDArray[Any] | None = None
    predictions: NDArray[Any] | None = None
    labels: NDArray[Any] | None = None
    delta: NDArray[np.float64] | None = None
    split: NDArray[Any] | None = None
    group: NDArray[Any] | None = None
    sample_id: NDArray[Any] | None = None
    cache: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def own(self) -> LogitBlock:
        """The block in memory of its own, which outlives the reader's buffers."""
        arrays: dict[str, Any] = {name: value.copy() for name, value in vars(self).items() if hasattr(value, "dtype")}
        return replace(self, **arrays, cache={})


class Reader(Protocol):
    """An open source, owned by one thread."""

    def blocks(self, start: int, stop: int, fields: frozenset[str]) -> Iterator[LogitBlock]:
        """Units [start, stop) in order, as one or more blocks, with just the fields asked for.

        `fields` may name ``scores`` (of a predictions source: the predictions) and any of the source's `fields`.
        """
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class Writer(Protocol):
    """An output file under a temporary name, until it is committed."""

    ordered: bool
    """True when blocks must come in the order of their units, from one thread at a time."""

    def write(self, block: LogitBlock) -> None:
        """Store a block whose `start` and `stop` count units of the OUTPUT."""
        ...

    def commit(self) -> None:
        """Flush, fsync and rename onto the final name."""
        ...

    def abort(self) -> None:
        """Remove what was written. Safe to call twice, or after `commit`."""
        ...


@runtime_checkable
class ResumableWriter(Writer, Protocol):
    """A writer whose unfinished file another process can go on with."""

    @property
    def temporary(self) -> str:
        """The name of the unfinished file."""
        ...

    def flush(self) -> None:
        """Put on the disk what was written so far."""
        ...


@dataclass(frozen=True)
class OutputSpec:
    """What a writer must know of a file before its first block.

    Attributes
    ----------
    n_samples, n_classes, image_shape, kind, encoding, layout, class_names
        As in `Source`. ``kind="predictions"`` writes no scores.
    predictions : bool
        Also write ``predictions`` (the smallest unsigned dtype that holds K - 1).
    dtypes : dict of str to numpy dtype string
        For each optional field to be written, the dtype of what will come (``"int32"``, ``"str"`` ...).
    scalar_delta : float or None
        Stored as the scalar ``delta``; blocks then carry none.
    sample_delta : bool
        delta is the same for all pixels of an image, and stored once where the format can.
    source_counts, source_prior : tuple of float or None
        (K,).
    attributes : dict of str to str
        Text metadata.
    checksums : bool
        Write them where the format has a place for them: chunks of HDF5, pages of Parquet.
    carried : Carried or None
        Columns of the input that Parquet keeps beside.
    """

    n_samples: int
    n_classes: int
    image_shape: tuple[int, ...]
    kind: Kind
    encoding: Encoding
    layout: Layout
    predictions: bool = False
    dtypes: dict[str, str] = field(default_factory=dict)
    scalar_delta: float | None = None
    sample_delta: bool = False
    class_names: tuple[str, ...] | None = None
    source_counts: tuple[float, ...] | None = None
    source_prior: tuple[float, ...] | None = None
    attributes: dict[str, str] = field(default_factory=dict)
    checksums: bool = True
    carried: Carried | None = None
