"""What options say of pictures: which images, the colours of the classes, and the images that were put in."""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unoic_cli.calls import as_array
from unoic_cli.data.dataset import DataSet, parts
from unoic_cli.data.facts import Facts, know, read_text
from unoic_cli.drawing.colours import ALIASES, CITYSCAPES, palette
from unoic_cli.errors import DataError, NoInputError, UsageError
from unoic_cli.formats import pictures, storage
from unoic_cli.formats.pictures import Pictures
from unoic_cli.resolve.inputs import natural
from unoic_cli.resolve.modalities import names_of, split_by_name

MOST_IMAGES = 100
"""Rows of one picture."""
_WORD = "cityscapes"
_EXPECTED = 'expected JSON, {class: "#rrggbb"} or {class: [r, g, b]}, or lines of name r g b'


# ------------------------------------------------------------------------------------------------
# which images


def in_split(data: DataSet) -> Facts[list[int]]:
    """Places of the images of the split among those of all files, from 0."""
    n = sum(source.n_samples for source in data.sources)
    if data.split is None:
        return list(range(n))
    return list((yield from _found(data, "split")))


def _found(data: DataSet, field: str) -> Facts[dict[int, str]]:
    """Places of the images of the split, and what a field says of them."""
    return (yield from know(f"{field} of every image", partial(_look, data, field)))


def _look(data: DataSet, field: str) -> dict[int, str]:
    begins = np.cumsum([0, *(source.n_samples for source in data.sources)]).tolist()
    first = dict(zip((source.name for source in data.sources), begins, strict=False))
    found: dict[int, str] = {}
    for _, part in parts(data, data.alone().spans(), field):
        values = np.asarray(getattr(part.block, field)).tolist()
        found |= {first[part.source.name] + i: str(one) for i, one in zip(part.samples.tolist(), values, strict=True)}
    return found


def chosen_images(given: Any, data: DataSet, there: Sequence[int]) -> Facts[list[int]]:
    """The images that were asked for: whole numbers are places in the files, from 0; all else are sample_ids.

    Raises
    ------
    UsageError
        An image that there is not, one that is asked for twice, or too many.
    """
    texts = _items(given)
    n = sum(source.n_samples for source in data.sources)
    named: dict[str, int] = {}
    if not all(re.fullmatch(r"\d+", text) for text in texts):
        if not data.has("sample_id"):
            text = next(text for text in texts if not re.fullmatch(r"\d+", text))
            raise UsageError("--images", f"{text!r}, and no sample_id in {data.name}", "expected numbers from 0")
        named = {name: place for place, name in (yield from _found(data, "sample_id")).items()}
    found: list[int] = []
    known = set(there)
    for text in texts:
        place = named.get(text, -1) if not re.fullmatch(r"\d{1,18}", text) else int(text)
        if place not in known:
            inside = "" if data.split is None else f" of the split {data.split}"
            raise UsageError(
                "--images",
                f"no image {text}{inside}",
                f"expected numbers from 0 to {n - 1}, or sample_ids that are no numbers",
            )
        if place in found:
            raise UsageError("--images", f"the image {text} twice", "expected each once")
        found.append(place)
    return found


def _items(given: Any) -> list[str]:
    """The images that were asked for, as texts."""
    items = [given] if isinstance(given, (str, int)) else given
    if not isinstance(items, (list, tuple)) or not all(isinstance(one, (str, int)) for one in items):
        raise UsageError("--images", f"{given!r}", "expected numbers, or sample_ids")
    texts = [text.strip() for one in items for text in str(one).split(",")]
    if not all(texts) or not texts:
        raise UsageError("--images", f"{given!r}", "expected numbers or sample_ids with commas between them")
    if len(texts) > MOST_IMAGES:
        raise UsageError("--images", f"{len(texts)} images", f"expected at most {MOST_IMAGES}")
    return texts


# ------------------------------------------------------------------------------------------------
# colours


def colours_of(given: Any, data: DataSet) -> Facts[NDArray[np.uint8]]:
    """The colour of each class, (K, 3).

    Raises
    ------
    UnoicError
        A file that cannot be read, or has no colour for a class.
    """
    if given is None:
        return palette(data.n_classes)
    if given == _WORD and not os.path.exists(_WORD):
        return _by_name(_cityscapes(data), data, "--palette cityscapes")
    if isinstance(given, (list, tuple)):
        given = dict(enumerate(given))
    if isinstance(given, Mapping):
        return _by_name(_entries(given, "--palette"), data, "--palette")
    if not isinstance(given, (str, os.PathLike)):
        raise UsageError("--palette", f"a {type(given).__name__}", "expected a file, cityscapes, or a mapping")
    path = os.fspath(given)
    return _by_name(_parsed((yield from read_text(path, _EXPECTED, "utf-8-sig")), path), data, path)


def _cityscapes(data: DataSet) -> dict[str, tuple[int, int, int]]:
    """By name; of 19 classes without names, by trainId."""
    if data.class_names is None and data.n_classes == len(CITYSCAPES):
        return {str(k): colour for k, colour in enumerate(CITYSCAPES.values())}
    if data.class_names is None:
        found = f"{data.n_classes} classes without names"
        raise UsageError("--palette", f"cityscapes, and {found}", f"expected class_names, or {len(CITYSCAPES)} classes")
    return CITYSCAPES | {other: CITYSCAPES[name] for other, name in ALIASES.items()}


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.strip()).casefold()


def _by_name(entries: Mapping[str, tuple[int, int, int]], data: DataSet, where: str) -> NDArray[np.uint8]:
    """Colours in the order of the classes; a class is known by its name, by a likeness of it, or by its number."""
    alike = {_plain(name): colour for name, colour in entries.items()}
    found = []
    for k in range(data.n_classes):
        name = data.class_names[k] if data.class_names else str(k)
        colour = entries.get(name) or alike.get(_plain(name)) or entries.get(str(k))
        if colour is None:
            known = f"class {k}" + (f" ({name})" if data.class_names else "")
            raise DataError(where, f"no colour of {known}", f"expected one for each of {data.n_classes} classes")
        found.append(colour)
    return np.array(found, dtype=np.uint8)


def _parsed(text: str, where: str) -> dict[str, tuple[int, int, int]]:
    """Entries of a palette: JSON, or lines."""
    if not text.lstrip().startswith("{"):
        return _lines(text, where)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(where, f"damaged JSON ({error})", _EXPECTED) from None
    return _entries(content, where)


def _lines(text: str, where: str) -> dict[str, tuple[int, int, int]]:
    """``name r g b`` or ``name #rrggbb`` on each line, with blanks or commas between; a heading may come first."""
    found = {}
    lines = [(i, line.strip()) for i, line in enumerate(text.split("\n"), 1)]
    lines = [(i, line) for i, line in lines if line and not line.startswith("#")]
    for place, (i, line) in enumerate(lines):
        cells = re.split(r"[,;\t]" if re.search(r"[,;\t]", line) else r"\s+", line)
        cells = [cell.strip().strip('"') for cell in cells]
        size = 1 if cells[-1].startswith("#") else 3
        if len(cells) <= size or (size == 3 and not all(map(str.isdecimal, cells[-3:]))):
            if not place:
                continue
            raise DataError(f"{where}:{i}", f"{line!r}", _EXPECTED)
        found[" ".join(cells[:-size])] = _colour(cells[-1] if size == 1 else [*map(int, cells[-3:])], f"{where}:{i}")
    return found


def _entries(content: Mapping[Any, Any], where: str) -> dict[str, tuple[int, int, int]]:
    return {str(name): _colour(value, f"{where}:{name}") for name, value in content.items()}


def _colour(value: Any, where: str) -> tuple[int, int, int]:
    """Red, green and blue of ``#rrggbb`` or [r, g, b]."""
    if isinstance(value, str) and re.fullmatch(r"#[0-9a-fA-F]{6}", value):
        return int(value[1:3], 16), int(value[3:5], 16), int(value[5:], 16)
    whole = isinstance(value, (list, tuple)) and all(type(one) is int and 0 <= one <= 255 for one in value)
    if not whole or len(value) != 3:
        raise DataError(where, f"{value!r}, which is no colour", "expected #rrggbb, or [r, g, b] of 0 ... 255")
    return int(value[0]), int(value[1]), int(value[2])


# ------------------------------------------------------------------------------------------------
# images that were put in


def shown_inputs(given: Any, data: DataSet) -> Facts[dict[str | None, list[tuple[int, Pictures]]]]:
    """Images of each modality that has any: runs of them, each with the place of its first among all.

    Raises
    ------
    UnoicError
        Images that cannot be read, or are not as many as the samples.
    """
    n = sum(source.n_samples for source in data.sources)
    asked = yield from _asked(given, data)
    found: dict[str | None, list[tuple[int, Pictures]]] = {}
    for member in sorted(data.modalities, key=lambda one: _order(data, one.modality)):
        name = member.modality
        if name in asked:
            one = yield from _series(asked[name], name)
            if one.n != n:
                raise DataError(one.name, f"{one.n} images", f"expected {n}, as there are samples")
            found[name] = [(0, one)]
        elif runs := (yield from _beside(member)):
            found[name] = runs
    return found


def _asked(given: Any, data: DataSet) -> Facts[dict[str | None, Any]]:
    """What was given for each modality."""
    names = names_of(data)
    if isinstance(given, Mapping):
        for stranger in [name for name in given if name not in names]:
            expected = (
                f"expected {', '.join(map(str, names))}" if names != (None,) else "expected inputs like NAME=FILE"
            )
            raise UsageError("--inputs", f"the unknown modality {stranger}", expected)
        return dict(given)
    found = dict.fromkeys(names, given) if hasattr(given, "__array__") else None
    found = (yield from split_by_name(given, names, "--inputs")) if found is None else found
    if len(names) > 1 and len(found) == len(names) and len({id(one) for one in found.values()}) == 1:
        raise UsageError("--inputs", "images without the name of a modality", f"expected {names[0]}=IMAGES")
    return found


def _order(data: DataSet, name: str | None) -> int:
    """Modalities stand in the order in which they were given."""
    return data.given.index(name) if name in data.given else 0


def _series(given: Any, name: str | None) -> Facts[Pictures]:
    if hasattr(given, "__array__"):
        where = "inputs" if name is None else f"inputs {name}"
        return pictures.of_array(as_array(given, where), where)
    if not isinstance(given, (str, os.PathLike)):
        raise UsageError("--inputs", f"a {type(given).__name__}", pictures.EXPECTED)
    text = os.fspath(given)
    return (yield from know(f"images {text}", partial(_opened, text, name)))


def _opened(text: str, name: str | None) -> Pictures:
    """A file of images, or the files of a folder or a pattern."""
    path, _ = storage.split_name(text)
    if os.path.isdir(path):
        files = [os.path.join(path, one) for one in os.listdir(path) if one.lower().endswith(pictures.SUFFIXES)]
        if not files:
            raise DataError(text, "a folder without PNG or JPEG files", pictures.EXPECTED)
        return pictures.of_files(sorted(files, key=natural), text)
    if path.lower().endswith(pictures.SUFFIXES) and os.path.exists(path):
        return pictures.of_files([path], text)
    if glob.has_magic(path) and not os.path.exists(path):
        files = [one for one in glob.glob(path, recursive=True) if not os.path.isdir(one)]
        if not files:
            raise NoInputError(text, "no file matches", "expected a pattern of existing files")
        return pictures.of_files(sorted(files, key=natural), text)
    return pictures.opened(text, name)


def _beside(member: DataSet) -> Facts[list[tuple[int, Pictures]]]:
    """Images that lie beside the scores, of the files that have some."""
    found, first = [], 0
    for source in member.sources:
        one = yield from know(f"images beside {source.name}", partial(pictures.beside, source))
        if one is not None:
            if one.n != source.n_samples:
                raise DataError(one.name, f"{one.n} images", f"expected {source.n_samples}, as there are samples")
            found.append((first, one))
        first += source.n_samples
    return found
