"""What looks wrong about the data: one place decides, and `info` and every computing command say what it found.

Whatever streams the scores lets an `EvidenceTally` look at them; what it counted becomes *findings*, each with a code
and one sentence. Nothing is refused here, and no figure changes.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from unoic_cli import formats
from unoic_cli.data.batch import where_is
from unoic_cli.data.facts import Facts, know
from unoic_cli.data.sampling import looks_at_all, steps
from unoic_cli.formats.block import IGNORED_LABELS, Source
from unoic_cli.tallies.evidence import EvidenceTally, LabelsSeen, RowsSeen

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unoic_cli.data.dataset import DataSet

CODES: dict[str, str] = {
    "named-not-probs": "scores named logits or log_probs whose rows lie in [0, 1] and sum to 1",
    "inside-unit": "scores named logits that all lie in [0, 1], in rows that do not sum to 1",
    "named-probs": "scores named probs that are not all in [0, 1]",
    "probs-sum": "probabilities whose rows do not sum to 1",
    "log-probs-sum": "scores named log_probs whose exponentials do not sum to 1",
    "half-probs": "probabilities in float16, where those below 6e-8 are zero",
    "large-chunks": "chunks of scores so large that memory cannot be bounded",
    "masked-logits": "logits that are -inf: a class that the unit cannot have",
    "equal-scores": "more than a few rows whose scores are all equal, as in rows that were never filled",
    "repeated-ids": "a sample_id that occurs more than once",
    "minus-labels": "labels of two classes of which none is 0, while many are ignored: 1 and -1?",
    "shifted-labels": "labels without the first (or last) class that agree better with predictions one class off",
}
"""Every finding there is."""

MOST_IDS = 1 << 22
"""Samples whose `sample_id` is compared with those of all others; of more, the first."""

_NEARLY_ALL, _NEARLY_NONE = 0.99, 0.01
_FEW = 3
_TOO_FEW = 10
"""Rows that do not tell similarities from logits yet."""


@dataclass(frozen=True)
class Finding:
    """Something that looks wrong.

    Attributes
    ----------
    code : str
        A key of `CODES`.
    name : str
        The input, as typed.
    array : str
        Which array of it.
    said : str
        The sentence.
    """

    code: str
    name: str
    array: str
    said: str

    def __str__(self) -> str:
        return f"{self.name}:{self.array}: {self.said}"


# ------------------------------------------------------------------------------------------------
# rows of scores


def source_findings(source: Source) -> Iterator[Finding]:
    """What is known before a score is read."""
    if source.kind == "probs" and source.encoding == "float16":
        said = "float16 cannot hold a rare class (below 6e-8 it is zero); store logits where you can"
        yield Finding("half-probs", source.name, source.kind, said)
    yield from memory_findings(source)


def memory_findings(source: Source) -> Iterator[Finding]:
    """What reading the source costs, whatever is asked for."""
    size = source.decoded_whole()
    if size:
        said = (
            f"chunks of {size >> 20:,} MB are decoded whole, which takes up to twice as much memory, whatever --memory "
        )
        yield Finding("large-chunks", source.name, source.kind, f"{said}says; unoic pack makes a file without them")


def row_findings(source: Source, seen: RowsSeen) -> Iterator[Finding]:
    """What the rows of a source say."""
    filled = seen.counts["rows"] - seen.counts["equal"]
    found = None
    if source.kind == "probs":
        found = _as_probs(source, seen)
    elif filled > 0:
        found = _as_logits(source, seen, filled) if source.kind == "logits" else _as_log_probs(source, seen, filled)
    if found is not None:
        yield Finding(found[0], source.name, source.kind, found[1])
    masked = seen.first("first_masked")
    if masked is not None and source.kind == "logits":
        n = seen.counts["masked"]
        more = f" (as in {_of(n, seen, source)})" if n > 1 else ""
        said = f"-inf at {where_is(source, masked[0])}{more}: read as a class that the unit cannot have"
        yield Finding("masked-logits", source.name, source.kind, said)
    if seen.counts["equal"] > (_FEW if looks_at_all(source) else 0):
        place, value = seen.first("first_equal") or (0, 0.0)
        said = f"{_of(seen.counts['equal'], seen, source)} hold {source.n_classes} equal scores, the first "
        said += f"({value:.6g} each) at {where_is(source, place)}: rows that were never filled? They are counted like "
        said += "all others"
        yield Finding("equal-scores", source.name, source.kind, said)


def _as_logits(source: Source, seen: RowsSeen, filled: int) -> tuple[str, str] | None:
    if seen.counts["one"] >= _NEARLY_ALL * filled:
        return "named-not-probs", _not_probs(source)
    first = seen.first("first_sum")
    if seen.counts["inside"] >= _NEARLY_ALL * filled and filled >= _TOO_FEW and first is not None:
        said = f"named logits, but all values lie in [0, 1], in rows that do not sum to 1 ({first[1]:.6g} at "
        said += f"{where_is(source, first[0])}): outputs of sigmoids are no logits (log(p / (1 - p)) are), nor are "
        return "inside-unit", said + "similarities without the temperature of their network (--temperature)"
    return None


def _as_log_probs(source: Source, seen: RowsSeen, filled: int) -> tuple[str, str] | None:
    if seen.counts["one"] >= _NEARLY_ALL * filled:
        return "named-not-probs", _not_probs(source)
    if seen.counts["exp_one"] < _NEARLY_ALL * seen.counts["closer"]:
        said = "named log_probs, but the exponentials of a row do not sum to 1: taken as logits, which may have any sum"
        return "log-probs-sum", said
    return None


def _not_probs(source: Source) -> str:
    said = f"named {source.kind}, but the values look like probabilities (they lie in [0, 1], and rows sum to 1); "
    return said + f"if so: {rename_command(source, 'probs')}"


def _as_probs(source: Source, seen: RowsSeen) -> tuple[str, str] | None:
    rows = seen.counts["rows"]
    outside = seen.first("first_outside")
    if outside is not None:
        place, value = outside
        looks = "the values look like logits: " if 2 * seen.counts["inside"] < rows else ""
        said = f"named probs, but {looks}{_of(rows - seen.counts['inside'], seen, source)} hold values outside [0, 1], "
        said += f"the first {value:.6g} at {where_is(source, place)}; if they are logits: "
        said += f"{rename_command(source, 'logits')} (percentages do no harm: each row is divided by its sum)"
        return "named-probs", said
    first = seen.first("first_sum")
    if first is not None and seen.counts["inside"] > seen.counts["one"]:
        said = f"{_of(seen.counts['inside'] - seen.counts['one'], seen, source)} do not sum to 1, the first ("
        said += f"{first[1]:.6g}) at {where_is(source, first[0])}: each is divided by its sum, as is right where a "
        said += "factor or a class is missing; outputs of independent sigmoids are no distribution over the classes, "
        return "probs-sum", said + "and are better stored as logits, log(p / (1 - p))"
    return None


def _of(n: int, seen: RowsSeen, source: Source) -> str:
    """How many rows, of how many."""
    rows, every = seen.counts["rows"], steps(source)[0]
    which = f"every {every}th" if every > 1 else "the first" if source.passing and rows < source.n_units else ""
    return f"{n:,} of {rows:,} rows" + (f" looked at ({which})" if which else "")


# ------------------------------------------------------------------------------------------------
# labels


def label_findings(name: str, labels: LabelsSeen, rows: Iterable[RowsSeen]) -> Iterator[Finding]:
    """Whether labels seem to be shifted by one, or to be 1 and -1."""
    if labels.n_classes == 2 and labels.has_last and not labels.has_first and labels.ignored > _NEARLY_NONE * labels.n:
        said = f"no label that counts is 0, and {labels.ignored:,} of {labels.n:,} are ignored (255, -1, -100, "
        said += "--ignore-index): if -1 is the other class, store 0 and 1"
        yield Finding("minus-labels", name, "labels", said)
        return
    if labels.n_classes == 2 and labels.has_first and not labels.has_last and labels.ignored > _NEARLY_NONE * labels.n:
        said = f"every label that counts is 0, and {labels.ignored:,} of {labels.n:,} are ignored (255, -1, -100, "
        said += "--ignore-index): if 255 is the other class, as masks of images have it, store 0 and 1"
        yield Finding("mask-labels", name, "labels", said)
        return
    counts = [seen.counts for seen in rows]
    n, as_is, down, up = (sum(count[key] for count in counts) for key in ("labelled", "as_is", "down", "up"))
    cases = (
        ("-", labels.has_first, down, 0, "do they start at 1?"),
        ("+", labels.has_last, up, labels.n_classes - 1, "do the scores begin with a class of their own (background)?"),
    )
    for sign, occurs, shifted, lacking, cause in cases:
        if not occurs and shifted > 3 * as_is and (shifted - as_is) ** 2 > 4 * (shifted + as_is):
            said = f"seem shifted by one: label {lacking} never occurs, and of {n:,} rows looked at, predictions "
            said += f"agree with label {sign} 1 in {shifted / n:.0%}, with the label itself in {as_is / n:.0%}; {cause}"
            yield Finding("shifted-labels", name, "labels", said)
            return


# ------------------------------------------------------------------------------------------------
# samples


def id_findings(sources: Sequence[Source], split: str | None) -> Facts[list[Finding]]:
    """Samples of some files that are counted more than once, by their `sample_id`."""
    known = [source for source in sources if "sample_id" in source.fields]
    said = ""
    if known:
        said = yield from know(f"sample_id {known[0].name}", lambda: _repeated(known, split))
    return [Finding("repeated-ids", known[0].name, "sample_id", said)] if said else []


def _repeated(sources: Sequence[Source], split: str | None) -> str:
    """A sentence on samples whose id has occurred before; empty if there are none."""
    hashes, places, n = [], [], 0
    for i, first, ids in _ids(sources, split):
        ids = ids[: MOST_IDS - n]
        hashes.append(np.fromiter(map(hash, map(str, ids.tolist())), dtype=np.int64, count=len(ids)))
        places.append((n, i, first[: len(ids)]))
        n += len(ids)
        if n >= MOST_IDS:
            break
    if n < 2:
        return ""
    every = np.concatenate(hashes)
    _, firsts, inverse = np.unique(every, return_index=True, return_inverse=True)
    again = np.flatnonzero(firsts[inverse] != np.arange(n))
    if not again.size:
        return ""
    told = [_sample(sources, places, int(k)) for k in (again[0], firsts[inverse[again[0]]])]
    looked = f"the first {n:,}" if sum(source.n_samples for source in sources) > n >= MOST_IDS else f"{n:,}"
    here, there = (f"sample {k}" + (f" of {sources[i].name}" if len(sources) > 1 else "") for i, k in told)
    said = f"{again.size:,} of {looked} samples have a sample_id that occurred before, the first at {here}, as at "
    return said + f"{there}: each is counted (samplers of distributed runs repeat samples to fill up)"


def _sample(sources: Sequence[Source], places: Sequence[tuple[int, int, NDArray[np.int64]]], k: int) -> tuple[int, int]:
    """Source and sample behind the k-th id that was looked at."""
    begin, i, samples = next(place for place in reversed(places) if place[0] <= k)
    return i, int(samples[k - begin])


def _ids(sources: Sequence[Source], split: str | None) -> Iterator[tuple[int, NDArray[np.int64], NDArray[Any]]]:
    """Which source, which samples of it, and their ids, block by block, each sample once."""
    for i, source in enumerate(sources):
        fields = frozenset({"sample_id", *({"split"} if split is not None and "split" in source.fields else ())})
        seen = 0
        with contextlib.closing(formats.open_reader(source)) as reader:
            for start, stop in formats.spans(source, _ID_BYTES):
                for block in reader.blocks(start, stop, fields):
                    assert block.sample_id is not None
                    begin = block.start // source.pixels
                    samples = np.arange(begin, begin + len(block.sample_id))
                    kept = samples >= seen
                    seen = max(seen, begin + len(samples))
                    if block.split is not None:
                        kept &= np.asarray(block.split == split)
                    yield i, samples[kept], block.sample_id[kept]


_ID_BYTES = 4 << 20


# ------------------------------------------------------------------------------------------------
# what runs keep


def findings_of(
    source: Source, seen: EvidenceTally, repeated: Sequence[Finding], *, memory: Source | None = None
) -> list[Finding]:
    """What there is to say of one source, in the order in which `info` lists it.

    Parameters
    ----------
    source : Source
    seen : EvidenceTally
        What its rows and labels look like; of a copy, those of the original.
    repeated : sequence of Finding
        What `id_findings` found.
    memory : Source, optional
        The original of a copy, where that may be an array in memory.
    """
    rows = next(iter(seen.rows.values()), RowsSeen())
    found = [] if memory is None else [*memory_findings(memory)]
    found += source_findings(source)
    if source.kind != "predictions":
        found += row_findings(source, rows)
    return [*found, *label_findings(source.name, seen.labels, [rows]), *repeated]


@dataclass
class Evidence:
    """What a run has seen of its data so far, and says once.

    Attributes
    ----------
    say : callable
        Called with each sentence.
    seen : set of str
        Names of the sources whose rows are known.
    knows_labels : bool
        Labels were seen beside scores.
    """

    say: Callable[[str], None]
    seen: set[str] = field(default_factory=set)
    knows_labels: bool = False

    def begin(self, data: DataSet, *, apart: bool = False) -> Facts[None]:
        """Say what is known before a score is read.

        Of several modalities, one that has a `sample_id` is looked at; `apart`: repetitions count within a file only.
        """
        found = [finding for source in data.all_sources for finding in source_findings(source)]
        member = next((one for one in data.modalities if any("sample_id" in s.fields for s in one.sources)), data)
        for sources in [[source] for source in member.sources] if apart else [member.sources]:
            found += yield from id_findings(sources, member.split)
        for finding in joined(found):
            self.say(str(finding))

    def tally(self, data: DataSet, fields: frozenset[str]) -> EvidenceTally | None:
        """What is to look at a stream that reads these fields; None when it would learn nothing new."""
        names = {source.name for source in data.all_sources}
        labels = "labels" in fields and data.has("labels") and not self.knows_labels
        if "scores" not in fields or (names <= self.seen and not labels):
            return None
        return EvidenceTally(data.n_classes, sorted(names), _wanted(data) if labels else ())

    def take(self, data: DataSet, tally: EvidenceTally, fields: frozenset[str]) -> None:
        """Say what a tally has seen."""
        for finding in joined(row for source in self._new(data) for row in _rows(source, tally)):
            self.say(str(finding))
        self.seen |= {source.name for source in data.all_sources}
        if "labels" in fields and data.has("labels") and not self.knows_labels:
            self.knows_labels = True
            rows = [tally.rows[source.name] for source in data.sources if source.name in tally.rows]
            for finding in label_findings(data.name, tally.labels, rows):
                self.say(str(finding))
            for value in _wanted(data):
                if value not in tally.labels.met:
                    self.say(f"--ignore-index {value}: no label is {value}")

    def _new(self, data: DataSet) -> list[Source]:
        return [source for source in data.all_sources if source.name not in self.seen]


def _wanted(data: DataSet) -> tuple[int, ...]:
    """Labels that are left out only as somebody wished it: no classes, and none that always are."""
    return tuple(sorted(one for one in data.ignored if not 0 <= one < data.n_classes and one not in IGNORED_LABELS))


def _rows(source: Source, tally: EvidenceTally) -> Iterator[Finding]:
    if source.name in tally.rows and source.kind != "predictions":
        yield from row_findings(source, tally.rows[source.name])


def joined(findings: Iterable[Finding]) -> list[Finding]:
    """Findings of one sort as one: that of the first file, and how many more there are.

    Examples
    --------
    >>> one, other = (Finding("half-probs", name, "probs", "float16") for name in ("a.h5", "b.h5"))
    >>> print(*joined([one, other]))
    a.h5:probs: float16 (and so in 1 more file)
    """
    found = []
    for _, group in itertools.groupby(sorted(findings, key=lambda finding: [*CODES].index(finding.code)), _code):
        first, *more = group
        said = f"{first.said} (and so in {len(more)} more file{'s' if len(more) > 1 else ''})" if more else first.said
        found.append(Finding(first.code, first.name, first.array, said))
    return found


def _code(finding: Finding) -> str:
    return finding.code


# ------------------------------------------------------------------------------------------------
# commands that mend


def beside(name: str, ending: str) -> str:
    """Name of an output beside an input, for the shell; an ending without a dot takes the input's suffix.

    Examples
    --------
    >>> beside("some folder/val.h5", "probs"), beside("val.h5::a", "packed.h5")
    ("'some folder/val.probs.h5'", 'val.packed.h5')
    """
    path = formats.split_name(name)[0]
    near = not formats.is_elsewhere(path)  # else in the current folder
    stem, suffix = os.path.splitext(path) if near else formats.stem_of(path)
    suffix = suffix if suffix.lower() in formats.SUFFIXES else ".h5"
    return shlex.quote(f"{stem}.{ending}" if "." in ending else f"{stem}.{ending}{suffix}")


def rename_command(source: Source, kind: str) -> str:
    """Command that stores the scores of an input under another kind; of arrays in memory, the call that says it."""
    if source.passing:
        return f'LambdaPath(..., kind="{kind}")'
    if source.format == "arrays":
        return f'from_arrays(..., kind="{kind}")'
    return f"unoic convert {shlex.quote(source.name)} {beside(source.name, kind)} --kind {kind}"
