"""Scores as columns of an Arrow schema: what Parquet files and Arrow streams have in common."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from unoic_cli.errors import DataError
from unoic_cli.formats import names, schema
from unoic_cli.formats.block import FIELDS, SCORE_KINDS, Encoding, Kind, LogitBlock, OutputSpec
from unoic_cli.formats.source import ColumnSource

_ENCODINGS: dict[Any, Encoding] = {pa.float16(): "float16", pa.float32(): "float32", pa.float64(): "float64"}
_ARROW = {encoding: kind for kind, encoding in _ENCODINGS.items()}
_PREFIX = "unoic."
_LISTS = (*names.COUNTS, "source_prior", "class_names")
_KNOWN_KEYS = (*_LISTS, "image_shape", "n_classes", "dtype", "schema")
Found = TypeVar("Found", bound=ColumnSource)
_EXPECTED = f"expected columns {', '.join(f'{kind}_0...' for kind in SCORE_KINDS)}, one list column of such a name"

# ------------------------------------------------------------------------------------------------
# describing


def describe(
    kind_of_source: type[Found],
    name: str,
    table: Any,
    storage: str,
    first: Callable[[str], Any],
    asked: names.Asked,
    **more: Any,
) -> Found:
    """Find the scores by the schema and its metadata.

    Parameters
    ----------
    kind_of_source : class
        Of the format.
    name, storage : str
        As in `Source`.
    table : pyarrow.Schema
    first : callable
        Gives an array with at least the first row of a column, or None when there is no row.
    asked : Asked
        What was said of the names of columns.
    **more
        What the format itself must know: its own attributes, the number of `rows` of each piece among them.

    Raises
    ------
    DataError
        The columns are not what the logits schema asks for.
    """
    n_rows = sum(more["rows"])
    metadata = _metadata(table.metadata)
    names.refuse(names.Asked(class_axis=asked.class_axis), name, "holds a row for each unit")
    kind, columns, form, notes, called, guessed = _find_scores(name, table, asked)
    if n_rows == 0:
        raise schema.EmptyError(f"{name}:{columns[0]}", "no samples (N = 0)", "expected at least one")
    n_classes, encoding = _score_facts(name, table, first, columns, form, metadata)
    _check_stated(name, metadata, n_classes)
    image_shape = _image_shape(name, metadata)
    pixels = math.prod(image_shape)
    if n_rows % pixels:
        raise DataError(f"{name}:unoic.image_shape", f"{list(image_shape)} for {n_rows} rows", "expected whole images")
    # the same limits as for HDF5: K >= 2, at least one sample
    shape = schema.score_shape(f"{name}:{columns[0]}", (n_rows // pixels, n_classes))
    known = _class_names(name, metadata, shape.known_classes)
    if known is None and called:
        known = schema.class_names(f"{name}:class_names", np.array(called, object), shape.known_classes)
    fields, more_notes = _fields(name, table, shape.known_classes, asked, columns, known)
    lengths = [len(values) for values in (_json(name, metadata, key) for key in _LISTS) if isinstance(values, list)]
    if form != "predictions" and not image_shape and "labels" not in fields:
        more_notes += names.check_turned(f"{name}:{columns[0]}", (n_rows, n_classes), None, lengths)
    member = columns[0] if form != "wide" or called else (names.stem(columns[0]) or (columns[0],))[0]
    return kind_of_source(
        name=name,
        format=kind_of_source.NAME,
        n_samples=n_rows // pixels,
        n_classes=n_classes,
        image_shape=image_shape,
        kind=kind or "logits",
        encoding=encoding,
        layout="rows",
        fields=frozenset(fields),
        source_counts=_counts(name, metadata, shape.known_classes),
        source_prior=_vector(name, metadata, "source_prior", shape.known_classes),
        class_names=known,
        storage=storage,
        attributes={key: value for key, value in metadata.items() if key not in _KNOWN_KEYS},
        members={
            **({"scores": member} if member != kind else {}),
            **({"labels": fields["labels"]} if fields.get("labels", "labels") != "labels" else {}),
        },
        notes=(*notes, *more_notes),
        undecided=kind is None,
        guessed=guessed,
        has_predictions=kind != "predictions" and _are_predictions(table, n_classes),
        others=tuple(one for one in table.names if one not in {*columns, *fields.values(), "predictions"}),
        columns=tuple(columns),
        form=form,
        places=fields,
        **more,
    )


def _are_predictions(table: Any, n_classes: int) -> bool:
    """Whether usable predictions lie beside the scores; those that do not fit are left alone."""
    if "predictions" not in table.names or not _is_integer(table.field("predictions").type):
        return False
    with contextlib.suppress(DataError):
        _check_holds("predictions", table.field("predictions").type, n_classes)
        return True
    return False


def _metadata(stored: dict[bytes, bytes] | None) -> dict[str, str]:
    """Our own keys, without their prefix."""
    texts = ((key.decode(errors="replace"), value.decode(errors="replace")) for key, value in (stored or {}).items())
    return {key.removeprefix(_PREFIX): value for key, value in texts if key.startswith(_PREFIX)}


class _Scores(NamedTuple):
    """Kind, columns, form (``wide``, ``column`` or ``predictions``), what to say, names of classes, if by guess."""

    kind: Kind | None
    columns: list[str]
    form: str
    notes: tuple[str, ...] = ()
    called: tuple[str, ...] = ()
    guessed: bool = False


def _find_scores(name: str, table: Any, asked: names.Asked) -> _Scores:
    if len(set(table.names)) < len(table.names):
        twice = next(column for column in table.names if table.names.count(column) > 1)
        raise DataError(f"{name}:{twice}", "two columns of this name", "expected names that differ")
    groups = _groups(table)
    if found := listed(table, asked):
        return _Scores(None, list(found), "wide", (), tuple(found))
    key = asked.logits_key
    if key is not None and key not in groups and f"{key}_*" in groups:
        asked = replace(asked, logits_key=f"{key}_*")
    facts = {label: _facts(table, label, group) for label, group in groups.items()}
    chosen = names.choose_scores(name, facts, asked)
    if chosen.name == "predictions" and not names.are_floats(facts["predictions"]):
        return _Scores("predictions", ["predictions"], "predictions")
    if chosen.name is not None and chosen.name.endswith("_*"):
        stem = chosen.name.removesuffix("_*")
        return _Scores(chosen.kind, _in_order(name, stem, groups[chosen.name]), "wide", chosen.notes)
    if chosen.name is not None:
        return _Scores(chosen.kind, [chosen.name], "column", chosen.notes)
    if by_word := by_class(table):
        word, called = next(iter(by_word)).partition("_")[0], tuple(by_word.values())
        return _Scores(names.kind_of(word), list(by_word), "wide", (), called)
    if "predictions" in table.names:
        return _Scores("predictions", ["predictions"], "predictions")
    if by_name := by_text(table, asked):
        note = f"scores: the columns {_shortly(by_name)}, taken as classes of these names (--logits-key)"
        return _Scores(None, list(by_name), "wide", (note,), tuple(by_name), True)
    there = ", ".join(table.names[:20]) or "nothing"
    expected = f"{_EXPECTED}, or predictions, or --logits-key NAME (A,B,...: a column for each class)"
    raise DataError(name, f"no scores among the columns: {there}", expected)


def by_class(table: Any) -> dict[str, str]:
    """Columns like ``logit_cat``, ``logit_dog``, and the names of their classes."""
    found: dict[str, list[str]] = {}
    for column in table.names:
        word, _, rest = column.partition("_")
        if word.lower() in names.SCORES and rest and column.lower() not in names.SCORES:
            found.setdefault(word, []).append(column)
    lists = [(word, columns) for word, columns in found.items() if len(columns) > 1]
    if len(lists) != 1 or any(names.stem(column) for column in lists[0][1]):
        return {}
    return {column: column.partition("_")[2] for column in lists[0][1]}


def by_text(table: Any, asked: names.Asked) -> dict[str, str]:
    """Columns of floats that may be named by the classes: those that lie beside labels and mean nothing else."""
    if asked.logits_key is not None:
        return {}
    taken = {*FIELDS, "predictions", asked.labels_key}
    labels = [column for column in table.names if column.lower() in names.LABELS or column == asked.labels_key]
    floats = [
        column
        for column in table.names
        if column not in taken and column not in labels and table.field(column).type in _ENCODINGS
    ]
    named = any(
        names.is_scores(column) or names.is_scores(f"{(names.stem(column) or (column,))[0]}") for column in floats
    )
    return {column: column for column in floats} if labels and len(floats) > 1 and not named else {}


def listed(table: Any, asked: names.Asked) -> dict[str, str]:
    """Columns that ``--logits-key`` lists, with commas between; nothing where it names one."""
    key = asked.logits_key
    if key is None or key in table.names or "," not in key:
        return {}
    wanted = [column.strip() for column in key.split(",")]
    return {column: column for column in wanted} if set(wanted) <= set(table.names) else {}


def _shortly(found: Iterable[str]) -> str:
    listed = list(found)
    return ", ".join(listed[:5]) + (f", ... ({len(listed)})" if len(listed) > 5 else "")


def _is_text(table: Any, column: str | None) -> bool:
    """Whether a column holds text."""
    if column is None:
        return False
    kind = table.field(column).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _groups(table: Any) -> dict[str, dict[int, str]]:
    """Columns by what they are called, those with numbers together under ``NAME_*``."""
    groups: dict[str, dict[int, str]] = {}
    for column in table.names:
        numbered = names.stem(column)
        label, number = (f"{numbered[0]}_*", numbered[1]) if numbered else (column, 0)
        groups.setdefault(label, {})[number] = column
    return groups


def _facts(table: Any, label: str, group: dict[int, str]) -> names.Facts:
    """Rank and numbers of a column, in lists or not, or of columns together."""
    kind = _plain(table.field(group[min(group)]).type)
    is_row = _is_list(kind) or _is_binary(kind) or label.endswith("_*")
    shape = (1, 1) if is_row else (1,)
    kind = _plain(kind.value_type) if _is_list(kind) else kind
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or kind in _ENCODINGS:
        return names.Facts(shape, np.dtype(kind.to_pandas_dtype()), "")
    return names.Facts(shape, np.dtype(np.float32) if _is_binary(kind) else None, "")


def _in_order(name: str, stem: str, numbered: dict[int, str]) -> list[str]:
    if sorted(numbered) != list(range(len(numbered))):
        missing = min(set(range(len(numbered))) - set(numbered))
        raise DataError(name, f"{len(numbered)} columns {stem}_*, but no {stem}_{missing}", "expected no gap from 0 on")
    return [numbered[index] for index in range(len(numbered))]


def _check_stated(name: str, metadata: dict[str, str], n_classes: int) -> None:
    """Refuse columns of another K than the one that the metadata states."""
    stated = _json(name, metadata, "n_classes")
    if stated is not None and stated != n_classes:
        raise DataError(f"{name}:unoic.n_classes", f"{stated!r}", f"expected {n_classes}, as the columns have")


def _plain(kind: Any) -> Any:
    """Return the storage type of an extension type, such as a fixed-shape tensor."""
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _score_facts(
    name: str,
    table: Any,
    first: Callable[[str], Any],
    columns: list[str],
    form: str,
    metadata: dict[str, str],
) -> tuple[int, Encoding]:
    where = f"{name}:{columns[0]}"
    for column in columns:
        _check_rank(f"{name}:{column}", table.field(column).type)
    types = [_plain(table.field(column).type) for column in columns]
    if form == "predictions":
        return _prediction_facts(name, types[0], metadata)
    if form == "wide":
        if len(set(types)) > 1:
            raise DataError(where, f"columns of types {', '.join(sorted(map(str, set(types))))}", "expected one type")
        return len(columns), _encoding(where, types[0])
    if pa.types.is_fixed_size_binary(types[0]):
        return _binary_facts(where, types[0], metadata)
    if pa.types.is_fixed_size_list(types[0]):
        return types[0].list_size, _encoding(where, types[0].value_type)
    if pa.types.is_list(types[0]) or pa.types.is_large_list(types[0]):
        encoding = _encoding(where, types[0].value_type)
        return _first_length(where, first(columns[0])), encoding
    if types[0] in _ENCODINGS:
        return 1, _ENCODINGS[types[0]]
    raise DataError(where, f"a column of type {types[0]}", "expected a list of floats or fixed-size binary")


def _check_rank(where: str, kind: Any) -> None:
    """Refuse rows that hold anything but one list of K scores: flattened, axes would be taken for classes."""
    shape = getattr(kind, "shape", None) if isinstance(kind, pa.BaseExtensionType) else None
    rank = 1 if shape is None else len(shape)
    inner = _plain(kind)
    while _is_list(inner):
        inner = _plain(inner.value_type)
        rank += _is_list(inner)
    if rank != 1:
        found = f"tensors of shape {tuple(shape)} in each row" if shape is not None else f"{kind}, lists in lists"
        expected = "expected K scores in each row: images take a row for each pixel and unoic.image_shape, or HDF5"
        raise DataError(where, found, f"{expected} (N, K, H, W)")


def _is_list(kind: Any) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _encoding(where: str, kind: Any) -> Encoding:
    if kind not in _ENCODINGS:
        raise DataError(where, f"{kind} values", "expected halffloat, float or double")
    return _ENCODINGS[kind]


def _binary_facts(where: str, kind: Any, metadata: dict[str, str]) -> tuple[int, Encoding]:
    stored = metadata.get("dtype", "")
    encoding = next((known for known in schema.SCORE_DTYPES if known == stored), None)
    if encoding is None:
        expected = f"expected metadata unoic.dtype: one of {', '.join(schema.SCORE_DTYPES)}"
        raise DataError(where, f"binary scores of dtype {stored!r}", expected)
    size = schema.score_dtype(encoding).itemsize
    if kind.byte_width % size:
        raise DataError(where, f"{kind.byte_width} bytes per row", f"expected a multiple of {size} for {encoding}")
    return kind.byte_width // size, encoding  # type: ignore[return-value]  # SCORE_DTYPES has the names of Encoding


def _prediction_facts(name: str, kind: Any, metadata: dict[str, str]) -> tuple[int, Encoding]:
    if not _is_integer(kind):
        raise DataError(f"{name}:predictions", f"{kind} values", "expected integers")
    n_classes = _json(name, metadata, "n_classes")
    if not isinstance(n_classes, int):
        raise DataError(f"{name}:unoic.n_classes", f"{n_classes!r}", "expected the number of classes K")
    _check_holds(f"{name}:predictions", kind, n_classes)
    return n_classes, "float32"


def _first_length(where: str, column: Any) -> int:
    if column is None or not len(column):
        return 0
    values = _storage_array(column)[0]
    if not values.is_valid:
        raise DataError(where, "a null at row 0", "expected a value in each row")
    return len(values)


def _image_shape(name: str, metadata: dict[str, str]) -> tuple[int, ...]:
    value = _json(name, metadata, "image_shape")
    if value is None or value == []:
        return ()
    if not isinstance(value, list) or len(value) != 2 or not all(isinstance(n, int) and n > 0 for n in value):
        raise DataError(f"{name}:unoic.image_shape", f"{value!r}", "expected [H, W]")
    return tuple(value)


def _json(name: str, metadata: dict[str, str], key: str) -> Any:
    if key not in metadata:
        return None
    try:
        return json.loads(metadata[key])
    except ValueError:
        raise DataError(f"{name}:unoic.{key}", f"{metadata[key][:40]!r}", "expected JSON") from None


def _vector(name: str, metadata: dict[str, str], key: str, n_classes: int) -> tuple[float, ...] | None:
    value, where = _json(name, metadata, key), f"{name}:unoic.{key}"
    if value is None:
        return None
    try:
        array = np.asarray(value)
    except ValueError:
        raise DataError(where, "a ragged list", f"expected {n_classes} numbers") from None
    return schema.class_vector(where, array, n_classes)


def _counts(name: str, metadata: dict[str, str], n_classes: int) -> tuple[float, ...] | None:
    """Training counts under any of their names."""
    found = {key: _vector(name, metadata, key, n_classes) for key in names.COUNTS if key in metadata}
    if len(set(found.values())) > 1:
        raise names.candidates(name, [f"unoic.{key}" for key in found], "--source-prior")
    return next(iter(found.values()), None)


def _class_names(name: str, metadata: dict[str, str], n_classes: int) -> tuple[str, ...] | None:
    value, where = _json(name, metadata, "class_names"), f"{name}:unoic.class_names"
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DataError(where, "something else than a list of names", f"expected {n_classes} names")
    return schema.class_names(where, np.array(value, dtype=object), n_classes)


def _fields(
    name: str, table: Any, n_classes: int, asked: names.Asked, scores: list[str], called: Sequence[str] | None
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Column of each optional field, and what to say of the labels."""
    there = {
        column: names.Facts((1,), np.dtype(np.int64) if _may_label(table, column, called) else None, "")
        for column in table.names
        if column not in scores
    }
    if asked.beside is not None:
        there = {}
    chosen = names.choose_labels(name, there, [(1,)], asked, scores[0])
    found = {field: field for field in FIELDS if field in table.names and field != "labels"}
    if chosen.name is not None:
        found["labels"] = chosen.name
    for field, column in found.items():
        if field == "labels" and called and _is_text(table, column):
            continue
        _check_field(f"{name}:{column}", field, table.field(column).type, n_classes)
    return found, chosen.notes


def _may_label(table: Any, column: str, called: Sequence[str] | None) -> bool:
    """Whether a column holds integers; where classes have names, also text of a name that labels have."""
    if _is_integer(table.field(column).type):
        return True
    return bool(called) and column.lower() in names.LABELS and _is_text(table, column)


def _is_integer(kind: Any) -> bool:
    """Whether a column holds integers, dictionary-encoded or not, or true and false."""
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_integer(inner) or pa.types.is_boolean(inner))


def _check_holds(where: str, kind: Any, n_classes: int) -> None:
    """Refuse integers of a type that cannot hold the last class."""
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    schema.check_holds(where, np.dtype(inner.to_pandas_dtype()), n_classes)


def _check_field(where: str, field: str, kind: Any, n_classes: int) -> None:
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    is_text = pa.types.is_string(inner) or pa.types.is_large_string(inner)
    is_integer = pa.types.is_integer(kind)
    fits = {
        "labels": _is_integer(kind),
        "delta": is_integer or kind in _ENCODINGS,
        "sample_id": is_text or is_integer,
    }
    expected = {"labels": "integers", "delta": "floats", "sample_id": "text or integers"}
    if not fits.get(field, is_text):
        raise DataError(where, f"{kind} values", f"expected {expected.get(field, 'text')}")
    if field == "labels":
        _check_holds(where, kind, n_classes)


# ------------------------------------------------------------------------------------------------
# reading


class ColumnBlocks:
    """Makes blocks of record batches, for one reader.

    Parameters
    ----------
    source : Source
    errors : callable
        Makes a context, for a place in messages, that turns what pyarrow raises into errors of ours.
    """

    def __init__(self, source: ColumnSource, errors: Callable[[str], AbstractContextManager[None]]) -> None:
        self._source = source
        self._errors = errors
        self._buffers = schema.Buffers()

    def columns(self, fields: frozenset[str]) -> list[str]:
        """Names of the columns that hold these fields."""
        columns: list[str] = []
        for field in sorted(fields):
            if field == "scores":
                columns += self._source.columns
            else:
                columns += [field if field == "predictions" else self._source.places[field]]
        return columns

    def rows(self, target_bytes: int) -> int:
        """Rows whose scores take about so many bytes; at least one."""
        size = schema.score_dtype(self._source.encoding).itemsize
        return max(1, target_bytes // (size * self._source.n_classes))

    def block(self, batch: Any, start: int, stop: int, fields: frozenset[str]) -> LogitBlock:
        """Units [start, stop), which are the rows of the batch."""
        block = LogitBlock(start, stop)
        for field in fields:
            if field == "predictions" or (field == "scores" and self._source.kind == "predictions"):
                block.predictions = self._numbers(batch, "predictions")
            elif field == "scores":
                block.scores = self._scores(batch, start)
            elif field == "labels" and _is_text(batch.schema, self._source.places[field]):
                block.labels = self._by_name(batch, self._source.places[field], start)
            elif field in ("labels", "delta"):
                values = self._numbers(batch, self._source.places[field])
                setattr(block, field, values.astype(np.float64) if field == "delta" else values)
            else:
                setattr(block, field, self._per_sample(batch, field, start, stop))
        return block

    def _column(self, batch: Any, column: str) -> Any:
        """Return a column without nulls."""
        array = _storage_array(batch.column(batch.schema.get_field_index(column)))
        self._refuse_nulls(array, column)
        _check_codes(f"{self._source.name}:{column}", array)
        return array

    def _refuse_nulls(self, array: Any, column: str) -> None:
        if array.null_count:
            raise DataError(
                f"{self._source.name}:{column}", f"{array.null_count} nulls", "expected a value in each row"
            )

    def _numbers(self, batch: Any, column: str) -> NDArray[Any]:
        array = self._column(batch, column)
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
            self._refuse_nulls(array, column)
        values: NDArray[Any] = array.to_numpy(zero_copy_only=False)
        return values.view(np.uint8) if values.dtype == np.bool_ else values

    def _by_name(self, batch: Any, column: str, start: int) -> NDArray[Any]:
        """Labels that are names of classes."""
        known = {name: k for k, name in enumerate(self._source.class_names or ())}
        texts = self._column(batch, column).to_pylist()
        found = np.array([known.get(text, -2) for text in texts], np.int64)
        if (found == -2).any():
            i = int((found == -2).argmax())
            listed = ", ".join(list(known)[:8]) + (", ..." if len(known) > 8 else "")
            where = f"{self._source.name}:{column}"
            raise DataError(where, f"{texts[i]!r} at row {start + i}", f"expected one of {listed}")
        return found

    def _scores(self, batch: Any, start: int) -> NDArray[Any]:
        """Copy the scores of a batch into a reused buffer, (T, K)."""
        source = self._source
        dtype = schema.score_dtype(source.encoding)
        out = self._buffers.take("scores", (batch.num_rows, source.n_classes), dtype)
        columns = source.columns
        if source.form == "wide":
            for index, column in enumerate(columns):
                out[:, index] = self._numbers(batch, column).view(dtype)
        else:
            array = self._column(batch, columns[0])
            flat = self._flat(array, columns[0], start) if _is_list(array.type) or _is_binary(array.type) else None
            out[...] = (self._numbers(batch, columns[0]) if flat is None else flat).view(dtype).reshape(out.shape)
        return out

    def _flat(self, array: Any, column: str, start: int) -> NDArray[Any]:
        if pa.types.is_fixed_size_binary(array.type):
            width = array.type.byte_width
            return np.frombuffer(array.buffers()[1], np.uint8)[
                array.offset * width : (array.offset + len(array)) * width
            ]
        if not pa.types.is_fixed_size_list(array.type):
            self._check_lengths(array, column, start)
        values = array.flatten()
        self._refuse_nulls(values, column)
        flat: NDArray[Any] = values.to_numpy(zero_copy_only=False)
        return flat

    def _check_lengths(self, array: Any, column: str, start: int) -> None:
        lengths = np.diff(array.offsets.to_numpy())
        wrong = np.flatnonzero(lengths != self._source.n_classes)
        if wrong.size:
            found = f"{lengths[wrong[0]]} scores at row {start + wrong[0]}"
            raise DataError(f"{self._source.name}:{column}", found, f"expected {self._source.n_classes} as in row 0")

    def _per_sample(self, batch: Any, field: str, start: int, stop: int) -> NDArray[Any]:
        """Take the value of each touched sample from its first row in the batch."""
        pixels = self._source.pixels
        array = self._column(batch, self._source.places[field])
        first, last = schema.samples_of(start, stop, pixels)
        if pixels > 1:
            array = array.take(pa.array(np.maximum(np.arange(first, last) * pixels - start, 0)))
        if pa.types.is_dictionary(array.type) and pa.types.is_integer(array.type.value_type):
            array = array.dictionary_decode()
        if pa.types.is_integer(array.type):
            numbers: NDArray[Any] = array.to_numpy(zero_copy_only=False)
            return numbers
        where = f"{self._source.name}:{field}"
        with self._errors(where):
            if not pa.types.is_dictionary(array.type):
                return schema.text(where, np.array(array.to_pylist(), dtype=object))
            known = schema.text(where, np.array(array.dictionary.to_pylist(), dtype=object))
            texts: NDArray[Any] = known[array.indices.to_numpy()]
        return texts


def _check_codes(where: str, array: Any) -> None:
    """Refuse entries that their dictionary lacks: neither numpy nor Arrow looks."""
    if pa.types.is_dictionary(array.type) and len(array):
        codes = array.indices.to_numpy(zero_copy_only=False)
        if not 0 <= int(codes.min()) <= int(codes.max()) < len(array.dictionary):
            raise DataError(where, "an entry that its dictionary lacks", "expected an intact file")


def _is_binary(kind: Any) -> bool:
    return bool(pa.types.is_fixed_size_binary(kind))


def _storage_array(array: Any) -> Any:
    return array.storage if isinstance(array, pa.ExtensionArray) else array


# ------------------------------------------------------------------------------------------------
# writing


class RowWriter:
    """Makes record batches of blocks, which come in order, and cuts them into groups of equal size.

    Parameters
    ----------
    spec : OutputSpec
    group_bytes : int
        What the scores of a group weigh, about.
    """

    def __init__(self, spec: OutputSpec, group_bytes: int) -> None:
        self.schema = _arrow_schema(spec)
        self._own = len(self.schema)
        self._carried = None if spec.carried is None else spec.carried.rows()
        if spec.carried is not None:
            self.schema = pa.schema([*self.schema, *spec.carried.fields()], self.schema.metadata)
        self._spec = spec
        self._pixels = math.prod(spec.image_shape)
        self._next = 0
        self._pending: list[Any] = []
        self._pending_rows = 0
        unit_bytes = 8 if spec.kind == "predictions" else spec.n_classes * schema.score_dtype(spec.encoding).itemsize
        self.group_rows = max(1, group_bytes // unit_bytes)

    def add(self, block: LogitBlock) -> Any:
        """Copy the next block; returns a table of whole groups when there are some, else None."""
        if block.start != self._next:
            raise ValueError(f"unit {block.start} where {self._next} comes next")
        self._next = block.stop
        arrays = [self._array(field.name, field.type, block) for field in list(self.schema)[: self._own]]
        if self._carried is not None:
            arrays += self._carried.take(block.stop - block.start)
        self._pending.append(pa.record_batch(arrays, schema=self.schema))
        self._pending_rows += block.stop - block.start
        if self._pending_rows < self.group_rows:
            return None
        return self._take(self._pending_rows // self.group_rows * self.group_rows)

    def rest(self) -> Any:
        """What is left, as a table, or None; every unit must have come."""
        units = self._spec.n_samples * self._pixels
        if self._next != units:
            raise ValueError(f"{self._next} of {units} units were written")
        return self._take(self._pending_rows) if self._pending_rows else None

    def _take(self, rows: int) -> Any:
        table = pa.Table.from_batches(self._pending, self.schema)
        rest = table.slice(rows)
        self._pending, self._pending_rows = rest.to_batches(), rest.num_rows
        return table.slice(0, rows)

    def _array(self, name: str, kind: Any, block: LogitBlock) -> Any:
        """Copy one field of a block, which may be a view of a reused buffer."""
        rows = block.stop - block.start
        if name == self._spec.kind and name != "predictions":
            return self._scores(kind, block)
        if name == "delta" and self._spec.scalar_delta is not None:
            return pa.array(np.full(rows, self._spec.scalar_delta))
        values = getattr(block, name)
        if values is None:
            raise ValueError(f"a block without {name}")
        if name in ("split", "group", "sample_id"):
            return self._per_row(values, kind, block)
        return pa.array(np.array(np.broadcast_to(values, (rows,)), kind.to_pandas_dtype()), kind)

    def _per_row(self, values: NDArray[Any], kind: Any, block: LogitBlock) -> Any:
        array = pa.array(values.tolist(), kind)
        if self._pixels == 1:
            return array
        codes = schema.per_unit(np.arange(len(values)), block.start, block.stop, self._pixels)
        return array.take(pa.array(codes))

    def _scores(self, kind: Any, block: LogitBlock) -> Any:
        scores, spec = block.scores, self._spec
        dtype = schema.score_dtype(spec.encoding)
        if scores is None or scores.dtype.itemsize != dtype.itemsize:
            raise TypeError(f"a block without {spec.encoding} scores")
        if scores.ndim == 3:
            scores = scores.transpose(0, 2, 1)
        flat = np.array(scores, order="C").reshape(-1)
        rows = block.stop - block.start
        if pa.types.is_fixed_size_binary(kind):
            return pa.Array.from_buffers(kind, rows, [None, pa.py_buffer(flat)])
        values = pa.Array.from_buffers(kind.value_type, len(flat), [None, pa.py_buffer(flat)])
        return pa.FixedSizeListArray.from_arrays(values, type=kind)


def _arrow_schema(spec: OutputSpec) -> Any:
    columns = [
        pa.field(name, _text_or_integer(spec.dtypes[name]), nullable=False)
        for name in ("sample_id", "split", "group")
        if name in spec.dtypes
    ]
    if "labels" in spec.dtypes:
        columns.append(pa.field("labels", pa.from_numpy_dtype(schema.native(spec.dtypes["labels"])), nullable=False))
    if spec.scalar_delta is not None:
        columns.append(pa.field("delta", pa.float64(), nullable=False))
    elif "delta" in spec.dtypes:
        columns.append(pa.field("delta", pa.from_numpy_dtype(schema.native(spec.dtypes["delta"])), nullable=False))
    if spec.predictions or spec.kind == "predictions":
        kind = pa.from_numpy_dtype(schema.prediction_dtype(spec.n_classes))
        columns.append(pa.field("predictions", kind, nullable=False))
    if spec.kind != "predictions":
        columns.append(pa.field(spec.kind, _score_type(spec), nullable=False))
    return pa.schema(columns, metadata=_stored_metadata(spec))


def _score_type(spec: OutputSpec) -> Any:
    if spec.encoding == "bfloat16":  # Arrow has no such type
        return pa.binary(2 * spec.n_classes)
    return pa.list_(pa.field("element", _ARROW[spec.encoding], nullable=False), spec.n_classes)


def _text_or_integer(dtype: str) -> Any:
    kind = schema.native(dtype)
    return pa.from_numpy_dtype(kind) if kind.kind in "iu" else pa.string()


def _stored_metadata(spec: OutputSpec) -> dict[str, str]:
    lists = {
        "image_shape": spec.image_shape or None,
        "class_names": spec.class_names,
        "source_counts": spec.source_counts,
        "source_prior": spec.source_prior,
    }
    metadata = {key: value for key, value in spec.attributes.items() if key not in _KNOWN_KEYS}
    metadata |= {key: json.dumps(list(value)) for key, value in lists.items() if value is not None}
    metadata |= {"schema": "1", "n_classes": str(spec.n_classes), "dtype": spec.encoding}
    return {_PREFIX + key: value for key, value in metadata.items()}
