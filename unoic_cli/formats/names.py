"""What arrays and columns are called, in every format: one table, and one way to choose among what is there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from unoic_cli.calls import nearest
from unoic_cli.errors import DataError, UsageError
from unoic_cli.formats.block import FIELDS, SCORE_KINDS, Kind
from unoic_cli.formats.schema import CLASSES_FIRST

PROBABILITIES = (
    *("prob", "proba", "probas", "p", "probability", "probabilities", "pred_prob", "pred_probs", "pred_proba"),
    *("softmax", "sigmoid", "posteriors", "y_prob", "y_probs", "y_proba", "y_pred_prob", "y_pred_proba"),
)
NEUTRAL = ("outputs", "output", "scores", "score", "y_score", "y_scores", "preds", "pred", "y_pred",
           "keras_predictions")  # fmt: skip
"""Names that do not say whether logits or probabilities are meant: the values at the beginning do."""

SCORES: dict[str, Kind | None] = {
    **dict.fromkeys(("logits", "logit", "pred_logits", "y_logits"), "logits"),
    **dict.fromkeys(("log_probs", "log_prob", "logprobs", "logprob", "log_softmax"), "log_probs"),
    **dict.fromkeys(("probs", *PROBABILITIES), "probs"),
    **dict.fromkeys(NEUTRAL, None),
}
"""Names of scores and what they say the scores are; the schema's own are `SCORE_KINDS`."""

LABELS = (
    *("labels", "label", "label_ids", "label_id", "targets", "target", "y", "y_true", "true_label", "true_labels"),
    *("gt", "gts", "ground_truth", "masks", "mask"),
)
_WEAK = ("masks", "mask")
"""Names that may mean something else where a better one is there."""
COUNTS = ("source_counts", "train_counts", "class_counts")
WEIGHTS = ("sample_weight", "sample_weights", "weight", "weights")
SPLITS = (
    *("train", "training", "val", "valid", "validation", "test", "testing", "tst", "cal", "calib", "calibration"),
    *("dev", "eval", "holdout"),
)
"""What a part of a data set is called, before or behind the name of an array: ``val_logits``, ``labels_test``."""
_SCHEMA_LABELS = ("labels", "label")
_TAKEN = (*FIELDS, *COUNTS, "source_prior", "class_names", "predictions", *SCORE_KINDS)
_NUMBERED = re.compile(r"(.+)_(\d+)")
_SPLIT = "|".join(SPLITS)
_BEFORE = re.compile(rf"({_SPLIT})[_./-](.+)", re.IGNORECASE)
_BEHIND = re.compile(rf"(.+)[_./-]({_SPLIT})", re.IGNORECASE)


@dataclass(frozen=True)
class Asked:
    """What was said about the arrays of a file, beside their names.

    Attributes
    ----------
    logits_key, labels_key : str or None
        The array (or column, or the part of a column's name before its number) that holds them.
    class_axis : int or None
        Of 4-D scores: 1, or 3 / -1.
    kind : str or None
        What scores are, whatever their name says.
    labels_file : str or None
        Another file that holds them.
    beside : Facts or None
        Those of the labels that lie in another file.
    lenient : bool
        Another file was meant: keys count where it has such arrays.
    decide : bool
        What scores are whose name does not say it is decided by their first values.
    """

    logits_key: str | None = None
    labels_key: str | None = None
    class_axis: int | None = None
    kind: Kind | None = None
    labels_file: str | None = None
    beside: Facts | None = None
    lenient: bool = False
    decide: bool = True

    def options(self) -> list[str]:
        """The options that were given."""
        given = {
            "--logits-key": self.logits_key,
            "--labels-key": self.labels_key,
            "--labels": self.labels_file,
            "--kind": self.kind,
            "--class-axis": self.class_axis,
        }
        return [name for name, value in given.items() if value is not None]


class AxisError(DataError):
    """Nothing says which axis of 4-D scores holds the classes."""

    def __init__(self, where: str, found: str, expected: str, shape: tuple[int, ...] = ()) -> None:
        super().__init__(where, found, expected)
        self.shape = shape

    def beside(self, n_classes: int, image_shape: tuple[int, ...]) -> int | None:
        """The class axis where the same images of as many classes lie beside; None where both or none would do."""
        fit = [axis for axis, k, image in ((1, self.shape[1], self.shape[2:]), (-1, self.shape[3], self.shape[1:3]))
               if (k, image) == (n_classes, image_shape)]  # fmt: skip
        return fit[0] if len(fit) == 1 else None


class Facts(NamedTuple):
    """Shape and type of an array; no type where that is not known to numpy, and another text where shapes are not."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None
    text: str | None = None

    def __str__(self) -> str:
        known = f" {self.shape} {'?' if self.dtype is None else self.dtype.name}"
        return known if self.text is None else self.text


class Chosen(NamedTuple):
    """An array that was chosen.

    Attributes
    ----------
    name : str or None
        None when there is none.
    kind : str or None
        What the name says scores are; None when it does not.
    notes : tuple of str
        What is worth saying of the choice.
    """

    name: str | None
    kind: Kind | None
    notes: tuple[str, ...]


def kind_of(name: str) -> Kind | None:
    """What the name of scores says they are.

    Examples
    --------
    >>> kind_of("val_logits"), kind_of("log_probs_rgb"), kind_of("softmax_out"), kind_of("x")
    ('logits', 'log_probs', 'probs', None)
    """
    low = name.lower()
    if low in SCORES:
        return SCORES[low]
    for kind, parts in (
        ("log_probs", ("log_prob", "logprob", "log_softmax")),
        ("probs", ("prob", "softmax", "sigmoid")),
        ("logits", ("logit",)),
    ):
        if any(part in low for part in parts):
            return kind  # type: ignore[return-value]  # the keys are names of a Kind
    return None


def check_kind(where: str, given: str, known: Sequence[str] = SCORE_KINDS) -> None:
    """Refuse a word that is no kind of scores, and say which one was probably meant.

    Examples
    --------
    >>> check_kind("kind", "softmax")
    Traceback (most recent call last):
        ...
    unoic_cli.errors.UsageError: kind: 'softmax'; did you mean probs? expected one of logits, log_probs, probs
    """
    if given not in known:
        word = given.strip().replace("-", "_")
        near = kind_of(word) or nearest(word, known)
        meant = f"did you mean {near}? " if near in known else ""
        raise UsageError(where, f"{given!r}", f"{meant}expected one of {', '.join(known)}")


def stem(column: str) -> tuple[str, int] | None:
    """Name and number of a column like ``logits_3``."""
    match = _NUMBERED.fullmatch(column)
    return (match[1], int(match[2])) if match else None


def is_scores(name: str) -> bool:
    """Whether a name is one of those in the table; ``logits_*`` are columns ``logits_0``, ``logits_1`` ..."""
    low = _bare(name).lower()
    return low in SCORES or (low.startswith("logits_") and split_of(low) is None)


def _bare(name: str) -> str:
    return name.removesuffix("_*")


def are_floats(facts: Facts) -> bool:
    """Whether an array holds floats."""
    return facts.dtype is not None and facts.dtype.kind == "f"


def choose_scores(where: str, there: Mapping[str, Facts], asked: Asked) -> Chosen:
    """The array that holds the scores: as asked for, by a name of the schema, else by a name of the table.

    Parameters
    ----------
    where : str
        The file, for messages.
    there : mapping of str to Facts
        What the file holds.
    asked : Asked

    Raises
    ------
    DataError
        Two could be meant, or the one asked for is not there.
    """
    if asked.logits_key is not None and (asked.logits_key in there or not asked.lenient):
        key = _there(where, there, asked.logits_key, "--logits-key")
        return Chosen(key, kind_of(_bare(key)), ())
    own = [name for name in there if _bare(name) in SCORE_KINDS]
    others = [name for name, facts in there.items() if name not in own and is_scores(name) and _may_be_scores(facts)]
    floats = [name for name in ("predictions", "predictions_*") if name in there and _may_be_scores(there[name])]
    floats = [name for name in floats if len(there[name].shape) > 1]  # class indices may be stored as floats
    if len(own) > 1:
        both = f"two candidates ({', '.join(sorted(own))})"
        raise DataError(where, both, f"expected exactly one of {', '.join(SCORE_KINDS)}, or --logits-key NAME")
    for found in (own, others, floats):
        if len(found) > 1:
            raise candidates(where, found, "--logits-key")
        if found:
            left = [name for name in others if name != found[0]]
            notes = [f"scores: {found[0]} is read; {', '.join(left)} could be meant (--logits-key)"] if left else []
            return Chosen(found[0], kind_of(_bare(found[0])), tuple(notes))
    return Chosen(None, None, ())


def split_of(name: str) -> tuple[str, str] | None:
    """The split that a name speaks of, and what is called so there.

    Examples
    --------
    >>> split_of("val_logits"), split_of("y_test"), split_of("test.logits"), split_of("logits")
    (('val', 'logits'), ('test', 'y'), ('test', 'logits'), None)
    """
    if match := _BEFORE.fullmatch(name):
        return match[1], match[2]
    if match := _BEHIND.fullmatch(name):
        return match[2], match[1]
    return None


def of_split(there: Mapping[str, Facts], split: str) -> dict[str, str]:
    """Arrays of a split: what they are called in it, and in the file; what belongs to no split belongs to each.

    Examples
    --------
    >>> of_split(dict.fromkeys(["val_logits", "y_val", "test_logits", "train_counts"], Facts((), None)), "val")
    {'logits': 'val_logits', 'y': 'y_val', 'train_counts': 'train_counts'}
    """
    found: dict[str, str] = {}
    for name in there:
        parted = split_of(name)
        if name in COUNTS or parted is None:
            found.setdefault(name, name)
        elif parted[0] == split:
            found[parted[1]] = name
    return found


def parts(there: Mapping[str, Facts], asked: Asked) -> list[str]:
    """The splits whose scores are told apart by name; none where scores have a name of their own.

    Examples
    --------
    >>> there = {name: Facts((9, 3), np.dtype("f4")) for name in ("val_logits", "test_logits")}
    >>> parts(there, Asked()), parts({**there, "logits": Facts((9, 3), np.dtype("f4"))}, Asked())
    (['val', 'test'], [])
    """
    if (asked.logits_key or "") in there or any(is_scores(name) and _may_be_scores(there[name]) for name in there):
        return []
    found: dict[str, None] = {}
    for name, facts in there.items():
        parted = None if name in COUNTS else split_of(name)
        if (parted and _may_be_scores(facts) and parted[1] == asked.logits_key) or (
            parted and asked.logits_key is None and is_scores(parted[1]) and _may_be_scores(facts)
        ):
            found[parted[0]] = None
    return list(found)


def below(there: Mapping[str, Facts], asked: Asked) -> list[str]:
    """Containers in a file (``resnet`` of ``resnet.logits``) that hold scores; none where scores lie beside them.

    Examples
    --------
    >>> there = {name: Facts((9, 3), np.dtype("f4")) for name in ("resnet.logits", "vit.logits")}
    >>> below(there, Asked()), under(there, "vit")
    (['resnet', 'vit'], {'logits': 'vit.logits'})
    """
    if asked.logits_key is not None or any(is_scores(name) and _may_be_scores(there[name]) for name in there):
        return []
    found: dict[str, None] = {}
    for name, facts in there.items():
        container, _, last = name.rpartition(".")
        if container and is_scores(last) and _may_be_scores(facts):
            found[container] = None
    return list(found)


def under(there: Iterable[str], container: str) -> dict[str, str]:
    """Arrays in a container of a file, and those that belong to no other: what they are called in it, and in the file.

    Examples
    --------
    >>> under(["a.logits", "b.logits", "train_counts"], "a")
    {'logits': 'a.logits', 'train_counts': 'train_counts'}
    """
    found = {name.removeprefix(f"{container}."): name for name in there if name.startswith(f"{container}.")}
    return {**found, **{name: name for name in there if "." not in name and name not in found}} if found else {}


def candidates(where: str, found: Sequence[str], option: str) -> DataError:
    """More than one array could be meant."""
    return DataError(where, f"{len(found)} candidates ({', '.join(found)})", f"expected {option} NAME")


def _there(where: str, there: Mapping[str, Facts], key: str, option: str) -> str:
    if key in there:
        return key
    listed = ", ".join(f"{name}{facts}" for name, facts in list(there.items())[:12]) + (", ..." * (len(there) > 12))
    raise DataError(f"{where}:{key}", f"no such array for {option}", f"expected one of {listed or 'nothing'}")


def _may_be_scores(facts: Facts) -> bool:
    return 1 <= len(facts.shape) <= 4 and are_floats(facts)


def choose_labels(
    where: str, there: Mapping[str, Facts], units: Sequence[tuple[int, ...]], asked: Asked, scores: str
) -> Chosen:
    """The array that holds the labels, and what to say where none does although one looks like it.

    Parameters
    ----------
    where : str
        The file, for messages.
    there : mapping of str to Facts
        What the file holds.
    units : sequence of tuple of int
        Shapes that labels may have.
    asked : Asked
    scores : str
        The array of the scores, which is no candidate.

    Raises
    ------
    DataError
        Two could be meant, or the one asked for is not there.
    """
    if asked.labels_key is not None and (asked.labels_key in there or not asked.lenient):
        return Chosen(_there(where, there, asked.labels_key, "--labels-key"), None, ())
    there = {name: facts for name, facts in there.items() if name != scores}
    named = [name for name in there if name.lower() in LABELS]
    own = [name for name in named if name in _SCHEMA_LABELS]
    fit = [name for name in named if name in own or _may_be_labels(there[name], units)]
    strong = [name for name in fit if name.lower() not in _WEAK] or fit
    if len(strong) > 1:
        raise candidates(where, strong, "--labels-key")
    if strong:
        left = [name for name in fit if name not in strong]
        notes = [] if strong[0] in own else [f"labels are read from {strong[0]}"]
        notes += [f"labels: {strong[0]} is read; {', '.join(left)} could be meant (--labels-key)"] if left else []
        return Chosen(strong[0], None, tuple(notes))
    notes = [f"{name}{there[name]} is not read as labels: expected integers, one for each unit" for name in named]
    like = [name for name, facts in there.items() if name.lower() not in _TAKEN and _may_be_labels(facts, units)]
    if like:
        listed = ", ".join(f"{name}{there[name]}" for name in like[:5]) + (", ..." if len(like) > 5 else "")
        notes.append(f"no labels by name; {listed} may be them (--labels-key NAME)")
    return Chosen(None, None, tuple(notes))


def _may_be_labels(facts: Facts, units: Sequence[tuple[int, ...]]) -> bool:
    return facts.dtype is not None and facts.dtype.kind in "iub" and facts.shape in units


def unit_shapes(shape: Sequence[int]) -> list[tuple[int, ...]]:
    """Shapes that labels of scores of this shape may have, wherever the classes are.

    Examples
    --------
    >>> unit_shapes((10, 3)), unit_shapes((2, 3, 4, 5))
    ([(10,), (10, 1)], [(2, 4, 5), (2, 1, 4, 5), (2, 3, 4), (2, 1, 3, 4)])
    """
    if not shape:
        return []
    n, *rest = shape
    images: list[tuple[int, ...]] = [tuple(rest)] if len(rest) == 2 else [()]
    if len(rest) == 3:
        images = [tuple(rest[1:]), tuple(rest[:-1])]
    return [found for image in images for found in ((n, *image), (n, 1, *image))]


def settle_axis(
    where: str, shape: Sequence[int], stated: int | None, units: Sequence[tuple[int, ...]], lengths: Iterable[int]
) -> tuple[int, tuple[str, ...]]:
    """The class axis of scores: as stated, or as the shapes of what lies beside them prove, and what to say of it.

    Parameters
    ----------
    where : str
        ``FILE:DATASET``, for messages.
    shape : sequence of int
        Of the scores.
    stated : int or None
        By an option or an attribute.
    units : sequence of tuple of int
        Shapes of labels, predictions, delta.
    lengths : iterable of int
        Of what has an entry for each class.

    Raises
    ------
    DataError
        Nothing says where the classes of images are.

    Examples
    --------
    >>> settle_axis("val.h5:logits", (2, 4, 5, 3), None, [(2, 4, 5)], [])
    (3, ('the last axis of (2, 4, 5, 3) holds the classes, as the shapes beside the scores say',))
    """
    if stated is not None or len(shape) != 4:
        return (1 if stated is None else stated), ()
    n, first, middle, last = shape
    axes = {1: [(n, middle, last), (n, 1, middle, last)], 3: [(n, first, middle), (n, 1, first, middle)]}
    known = [found for found in units if any(found in allowed for allowed in axes.values())]
    fit = [axis for axis, allowed in axes.items() if all(found in allowed for found in known)]
    lengths = set(lengths)
    fit = [axis for axis in fit if not lengths or shape[axis] in lengths] or fit
    if len(fit) == 2 and not n * first * middle * last:
        return 1, ()
    if len(fit) != 1:
        expected = "expected --class-axis (or the attribute class_axis): 1 for (N, K, H, W), -1 for (N, H, W, K)"
        expected += f"; for (K, Z, Y, X), 0 in npz and npy, else 1 and {CLASSES_FIRST}"
        found = f"shape {tuple(shape)}, and nothing that says which axis holds the classes"
        raise AxisError(where, found, expected, tuple(shape))
    if fit[0] == 3:
        return 3, (f"the last axis of {tuple(shape)} holds the classes, as the shapes beside the scores say",)
    return 1, ()


def check_turned(
    where: str, shape: Sequence[int], labels: tuple[int, ...] | None, lengths: Iterable[int] = ()
) -> tuple[str, ...]:
    """Refuse (K, N) scores whose labels prove it; what to say where nothing does, but N and K look exchanged.

    Examples
    --------
    >>> check_turned("val.h5:logits", (4, 2595), None)
    ('2595 classes of 4 samples: are the scores transposed? expected (N, K)',)
    >>> check_turned("val.h5:logits", (4, 2595), (4,))
    ()
    """
    if len(shape) != 2:
        return ()
    n, k = shape
    if labels is not None and labels[:1] == (k,) and n != k:
        found = f"shape {(n, k)} with {k} labels: the scores look transposed"
        raise DataError(where, found, "expected (N, K): a row for each sample")
    if labels is None and k > max(16, 2 * n) and k not in set(lengths):
        return (f"{k} classes of {n} samples: are the scores transposed? expected (N, K)",)
    return ()


def refuse(asked: Asked, where: str, found: str) -> None:
    """Refuse options about names where they mean nothing."""
    if asked.options():
        raise UsageError(asked.options()[0], f"given, but {where} {found}", "expected it for files that need it")
