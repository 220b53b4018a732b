"""Numpy arrays in memory as a format: sources that are held to the same rules as files, and outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from unoic_cli.calls import as_array, plain, public
from unoic_cli.errors import DataError, StorageError, UsageError
from unoic_cli.formats import names, schema, single
from unoic_cli.formats.block import SCORE_KINDS, Encoding, Kind, LogitBlock, OutputSpec, Reader, Source, Writer
from unoic_cli.weights import are_probabilities, weights_by_class

_ENCODINGS: dict[str, Encoding] = {"float16": "float16", "float32": "float32", "float64": "float64"}


@dataclass
class Memory:
    """A place for an output that is no file: what was written, when it is complete.

    Attributes
    ----------
    arrays : dict of str to ndarray
        ``log_probs`` or ``probs``, and ``predictions``; empty before.
    """

    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)


@dataclass(frozen=True, repr=False, kw_only=True)
class Arrays(Source):
    """Scores in memory.

    Attributes
    ----------
    arrays : dict of str to ndarray
        By ``scores`` or the name of a field.
    """

    NAME: ClassVar[str] = "arrays"
    TITLE: ClassVar[str] = "arrays in memory"

    arrays: dict[str, NDArray[Any]]

    @classmethod
    def create(cls, path: Memory, spec: OutputSpec, unfinished: str | None = None) -> Writer:
        """Start an output in memory.

        Raises
        ------
        StorageError
            There is no memory for it.
        """
        return ArrayWriter(path, spec)

    def open(self) -> Reader:
        """A reader, for one thread."""
        return ArrayReader(self)

    def spans(self, target_bytes: int) -> list[tuple[int, int]]:
        """Whole samples of about `target_bytes`, or pieces of one image."""
        unit_bytes = self.arrays["scores"].dtype.itemsize * (1 if self.kind == "predictions" else self.n_classes)
        return schema.cut_spans(self.n_samples, self.pixels, unit_bytes, target_bytes)

    @property
    def n_bytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays.values())


@public
def from_arrays(
    scores: ArrayLike,
    labels: ArrayLike | None = None,
    *,
    kind: Kind = "logits",
    delta: ArrayLike | None = None,
    source_counts: ArrayLike | Mapping[Any, float] | None = None,
    source_prior: ArrayLike | Mapping[Any, float] | None = None,
    class_names: ArrayLike | None = None,
    split: ArrayLike | None = None,
    group: ArrayLike | None = None,
    sample_id: ArrayLike | None = None,
    class_axis: int | None = None,
    n_classes: int | None = None,
    name: str = "<array>",
) -> Source:
    """Describe arrays in memory as an input of `search_lambda`, `evaluate` and `calibrate`, as fully as a file would.

    Parameters
    ----------
    scores : array_like
        (N, K), (N, K, H, W) or (N, H, W, K) floats; one score of each unit, (N,), (N, 1) or the shape of the labels,
        stands for two classes. With ``kind="predictions"`` (N,) or (N, H, W) integers. Kept, not copied.
    labels : array_like, optional
        (N,) or (N, H, W) integers.
    kind : {"logits", "log_probs", "probs", "predictions"}
        What the scores are.
    delta : array_like, optional
        Scalar, (N,) or (N, H, W).
    source_counts, source_prior : array_like, or mapping by class name or index, optional
        (K,), of the training data.
    class_names : array_like, optional
        (K,) text.
    split, group, sample_id : array_like, optional
        (N,) text; `sample_id` may be integers.
    class_axis : int, optional
        Axis of the classes: 1, or the last; needed where labels (or another array) do not settle it.
    n_classes : int, optional
        K: needed for ``kind="predictions"``, else a check that the scores have as many.
    name : str
        What messages call the arrays.

    Returns
    -------
    Source

    Raises
    ------
    UsageError
        A word that is no kind of scores, or an argument that means nothing for this kind.
    DataError
        A wrong shape or dtype.

    Examples
    --------
    >>> import unoic_cli
    >>> probs = np.array([[0.7, 0.3], [0.6, 0.4], [0.2, 0.8]], dtype=np.float32)
    >>> source = unoic_cli.from_arrays(probs, [0, 1, 1], kind="probs", source_counts=[3, 1])
    >>> source
    <Source <array>: probs (3, 2), float32, labels, source_counts=(3, 1)>
    >>> unoic_cli.evaluate(source, lam=1.0).overall.values["acc"]
    0.6666666666666666
    """
    names.check_kind("kind", kind, (*SCORE_KINDS, "predictions"))
    if isinstance(scores, np.ma.MaskedArray) or isinstance(labels, np.ma.MaskedArray):
        raise DataError(name, "a masked array", "expected plain arrays; ignored labels are 255, -1 or -100")
    array = as_array(scores, f"{name}:{kind}")
    if kind == "predictions" and array.dtype.kind == "b":
        array = array.view(np.uint8)
    where = f"{name}:{kind}"
    stated = [values for values in (source_counts, source_prior, class_names) if values is not None]
    beside = [None if values is None else as_array(values, name).shape for values in (labels, delta)]
    lengths = [len(values) for values in stated if isinstance(values, Sized)]
    shape, notes = _shape(where, array, kind, class_axis, n_classes, beside, lengths)
    arrays: dict[str, Any] = {"scores": array}
    given = {"labels": labels, "delta": delta, "split": split, "group": group, "sample_id": sample_id}
    for key, values in given.items():
        if values is not None:
            arrays[key] = _field(f"{name}:{key}", key, as_array(values, f"{name}:{key}"), shape)
    texts = None if class_names is None else as_array(class_names, f"{name}:class_names")
    known = None if texts is None else schema.class_names(f"{name}:class_names", texts, shape.known_classes)
    source = Arrays(
        name=name,
        format=Arrays.NAME,
        n_samples=shape.n_samples,
        n_classes=shape.n_classes,
        image_shape=shape.image_shape,
        kind=kind,
        encoding=_ENCODINGS.get(array.dtype.name, "float32"),
        layout=shape.layout,
        fields=frozenset(arrays) - {"scores"},
        class_names=known,
        storage="in memory",
        arrays=arrays,
        source_counts=_vector(f"{name}:source_counts", source_counts, shape.known_classes, known),
        source_prior=_vector(f"{name}:source_prior", source_prior, shape.known_classes, known),
        notes=notes,
    )
    return single.widened(source)


describe = from_arrays
"""As the modules of the other formats call it."""


def look_like_probabilities(source: Source) -> bool:
    """Whether scores given as logits are probabilities: all in [0, 1], and every unit's sum to 1."""
    assert isinstance(source, Arrays)
    array = source.arrays["scores"]
    if source.single:
        return array.size > 0 and bool(array.min() >= 0 and array.max() <= 1)
    return are_probabilities(array, 1 if source.layout == "planes" or array.ndim == 2 else -1)


def _shape(
    where: str,
    array: NDArray[Any],
    kind: Kind,
    class_axis: int | None,
    n_classes: int | None,
    beside: Sequence[tuple[int, ...] | None],
    lengths: Sequence[int],
) -> tuple[schema.ScoreShape, tuple[str, ...]]:
    """The shape of scores, and what to say of it; `beside` has those of labels and delta."""
    if kind == "predictions":
        schema.check_integers(where, array.dtype)
        if n_classes is None:
            raise DataError(where, "no n_classes", "expected the number of classes K")
        if class_axis is not None:
            raise UsageError("class_axis", "given, but predictions have no axis of classes", "expected it with scores")
        schema.check_holds(where, array.dtype, n_classes)
        return schema.prediction_shape(where, array.shape, n_classes), ()
    if array.dtype.name not in _ENCODINGS:
        hint = ", or from_arrays(..., kind='predictions', n_classes=K)" if array.dtype.kind in "iu" else ""
        raise DataError(where, f"{array.dtype} values", f"expected {', '.join(_ENCODINGS)}{hint}")
    labels = beside[0]
    if class_axis is None and array.ndim > 0 and labels is not None and labels not in names.unit_shapes(array.shape):
        class_axis = 1  # what is wrong with the labels is said where they are checked
    if array.ndim == 3 and labels in (array.shape, (len(array), 1, *array.shape[1:])):
        class_axis = 0
    axis, notes = names.settle_axis(where, array.shape, class_axis, [one for one in beside if one], lengths)
    notes += names.check_turned(where, array.shape, labels, lengths)
    shape = schema.score_shape(where, array.shape, axis)
    if n_classes not in (None, shape.known_classes):
        found = f"shape {array.shape}, of {shape.known_classes} classes, but n_classes={n_classes}"
        raise DataError(where, found, "expected a score for each class (or no n_classes)")
    return shape, notes


def _vector(
    where: str, values: ArrayLike | Mapping[Any, float] | None, n_classes: int, known: Sequence[str] | None
) -> tuple[float, ...] | None:
    if values is None:
        return None
    taken = plain(values, where)
    if isinstance(taken, Mapping):
        taken = weights_by_class(taken, known, where)
    return schema.class_vector(where, as_array(taken, where), n_classes)


def _field(where: str, key: str, values: NDArray[Any], shape: schema.ScoreShape) -> NDArray[Any]:
    if key == "labels":
        schema.check_labels(where, values.shape, values.dtype, shape)
        return values.view(np.uint8) if values.dtype.kind == "b" else values
    if key == "delta":
        schema.check_delta(where, values.shape, values.dtype, shape)
    else:
        schema.check_per_sample(where, values.shape, shape.n_samples)
        if key != "sample_id" or values.dtype.kind not in "iu":
            return schema.text(where, values)
    return values


class ArrayReader:
    """Copies blocks out of arrays, whatever their strides and byte order."""

    def __init__(self, source: Arrays) -> None:
        self._source = source
        self._buffers = schema.Buffers()

    def blocks(self, start: int, stop: int, fields: frozenset[str]) -> Iterator[LogitBlock]:
        """Units [start, stop); see `unoic_cli.formats.block.Reader`."""
        source = self._source
        for first, last in schema.pieces(start, stop, source.pixels, source.layout):
            block = LogitBlock(first, last)
            for name in fields:
                self._fill(block, name)
            yield block

    def close(self) -> None:
        """Nothing to let go of."""

    def _fill(self, block: LogitBlock, name: str) -> None:
        source, (start, stop) = self._source, (block.start, block.stop)
        array = source.arrays[name]
        if name == "scores" and source.kind != "predictions":
            block.scores = self._scores(array, start, stop)
        elif name == "scores":
            block.predictions = self._units("predictions", array, start, stop, array.dtype)
        elif name == "labels":
            block.labels = self._units(name, array, start, stop, array.dtype)
        elif name == "delta":
            block.delta = self._delta(array, start, stop)
        else:
            first, last = schema.samples_of(start, stop, source.pixels)
            setattr(block, name, array[first:last])

    def _scores(self, array: NDArray[Any], start: int, stop: int) -> NDArray[Any]:
        source = self._source
        if source.layout == "rows":
            out = self._buffers.take("scores", (stop - start, source.n_classes), schema.native(array.dtype))
            self._copy(array, start, stop, out)
        else:
            first, last = schema.samples_of(start, stop, source.pixels)
            pixels = (stop - start) // (last - first)
            shape = (last - first, source.n_classes, pixels)
            out = self._buffers.take("scores", shape, schema.native(array.dtype))
            begin = start - first * source.pixels
            for image, target in zip(array[first:last], out, strict=True):
                at = 0
                for _, _, h0, h1, w0, w1 in schema.boxes(begin, begin + pixels, source.image_shape):
                    size = (h1 - h0) * (w1 - w0)
                    target[:, at : at + size] = image[:, h0:h1, w0:w1].reshape(source.n_classes, size)
                    at += size
        return out.view(schema.score_dtype(source.encoding))

    def _units(self, role: str, array: NDArray[Any], start: int, stop: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        source = self._source
        flat = array.reshape(source.n_samples, *source.image_shape)  # drops a class axis of length 1
        out = self._buffers.take(role, (stop - start,), schema.native(dtype))
        self._copy(flat, start, stop, out)
        return out

    def _copy(self, array: NDArray[Any], start: int, stop: int, out: NDArray[Any]) -> None:
        """Copy units, box by box, as reshaping a strided array would copy all of it."""
        at = 0
        for n0, n1, h0, h1, w0, w1 in schema.boxes(start, stop, self._source.image_shape):
            piece = array[n0:n1, h0:h1, w0:w1] if self._source.image_shape else array[n0:n1]
            size = (n1 - n0) * (h1 - h0) * (w1 - w0)
            out[at : at + size] = piece.reshape(size, *out.shape[1:])
            at += size

    def _delta(self, array: NDArray[Any], start: int, stop: int) -> NDArray[np.float64]:
        source = self._source
        if array.ndim == 0:
            return array.reshape(1).astype(np.float64)
        if array.ndim == 1:
            first, last = schema.samples_of(start, stop, source.pixels)
            return schema.per_unit(array[first:last].astype(np.float64), start, stop, source.pixels)
        return self._units("delta", array, start, stop, np.dtype(np.float64))


class ArrayWriter:
    """Puts blocks into arrays, from any thread in any order.

    Parameters
    ----------
    place : Memory
        Gets the arrays when all is written.
    spec : OutputSpec
    """

    ordered = False

    def __init__(self, place: Memory, spec: OutputSpec) -> None:
        self._place, self._spec = place, spec
        n, k, image = spec.n_samples, spec.n_classes, spec.image_shape
        self._pixels = math.prod(image)
        shape = (n, k, *image) if spec.layout == "planes" else (n, *image, k)
        try:
            self._arrays: dict[str, NDArray[Any]] = {}
            if spec.kind != "predictions":
                self._arrays[spec.kind] = np.empty(shape, spec.encoding)
            if spec.kind == "predictions" or spec.predictions:
                self._arrays["predictions"] = np.empty((n, *image), np.min_scalar_type(k - 1))
        except MemoryError:
            expected = 'expected memory for it, or output="FILE.h5"'
            raise StorageError("output", f"no room for an array {shape} in memory", expected) from None

    def write(self, block: LogitBlock) -> None:
        """Store a block whose `start` and `stop` count units of the output."""
        spec = self._spec
        if block.predictions is not None and "predictions" in self._arrays:
            self._arrays["predictions"].reshape(-1)[block.start : block.stop] = block.predictions
        if block.scores is None or spec.kind == "predictions":
            return
        if spec.layout == "rows":
            self._arrays[spec.kind].reshape(-1, spec.n_classes)[block.start : block.stop] = block.scores
            return
        flat = self._arrays[spec.kind].reshape(spec.n_samples, spec.n_classes, self._pixels)
        (first, at), size = divmod(block.start, self._pixels), block.scores.shape[2]
        flat[first : first + len(block.scores), :, at : at + size] = block.scores

    def commit(self) -> None:
        """Hand all of it over."""
        self._place.arrays.update(self._arrays)

    def abort(self) -> None:
        """Let go of what was written."""
        self._arrays = {}
