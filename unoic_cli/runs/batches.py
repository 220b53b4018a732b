"""Ledgers of batches that were counted as they passed by (`unoic_cli.api.lambda_path`): no rows of a file, but parts.

Each has a name and units of its own, and nobody knows what others count. So parts do not share an input as shards do,
and cannot overlap; joined, they lie one behind the other, in the natural order of their names, or each sample in its
own place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from unoic_cli.errors import DataError
from unoic_cli.formats.block import Source
from unoic_cli.resolve.inputs import natural
from unoic_cli.runs.ledger import Counted, Ledger
from unoic_cli.tallies.kept import renumbered
from unoic_cli.tallies.tally import Counters, added
from unoic_cli.urls import scrub

_INPUT = "input "
_KINDS = ("in order", "by place")
_ALIKE = ("passing", "n_classes", "kind", "source_counts", "class_names")
"""What all parts say."""


def is_passing(ledger: Ledger) -> bool:
    """Whether a ledger is of such batches."""
    return any(isinstance(fact, dict) and fact.get("passing") in _KINDS for _, fact in _inputs(ledger))


def facts_of(sources: Sequence[Source]) -> dict[str, Any]:
    """What a run knows of its inputs, where these are parts."""
    names = [source.name for source in sources]
    return {
        scrub(f"names {' '.join(names)}"): names,
        **{scrub(f"name {name}"): True for name in names},  # never NAME=FILE
        **{scrub(f"{_INPUT}{source.name}"): source.to_dict() for source in sources},
    }


def _inputs(ledger: Ledger) -> list[tuple[str, Any]]:
    return [(name, fact) for name, fact in ledger.facts.items() if name.startswith(_INPUT)]


def _others(ledger: Ledger) -> Ledger:
    """What ledgers of one configuration share: all but their parts."""
    arguments = {name: value for name, value in ledger.arguments.items() if name != "inputs"}
    own = facts_of(sources_of(ledger))
    return Ledger(ledger.name, ledger.command, arguments, {k: v for k, v in ledger.facts.items() if k not in own})


def sources_of(ledger: Ledger) -> list[Source]:
    """The parts of a ledger, in order."""
    known = ledger.facts
    return [Source.from_dict(known[scrub(f"{_INPUT}{name}")]) for name in ledger.arguments["inputs"]]


def join(ledgers: Sequence[Ledger], check_alike: Any) -> Ledger:
    """The sum of ledgers of parts, whatever their order.

    Parameters
    ----------
    ledgers : sequence of Ledger
    check_alike : callable
        Refuses the second of two ledgers, if that is of another run.

    Raises
    ------
    DataError
        Other options or classes, or a part that is in two of them.
    """
    first = ledgers[0]
    for other in ledgers[1:]:
        if not (is_passing(first) and is_passing(other)):
            one = other if is_passing(first) else first
            raise DataError(one.name, "a state of files beside those of batches", "expected states of one kind")
        check_alike(_others(first), _others(other))
    found = [(source, i, k) for i, ledger in enumerate(ledgers) for k, source in enumerate(sources_of(ledger))]
    found.sort(key=lambda one: natural(one[0].name))
    _check_parts(ledgers, found)
    numbers = [dict[int, int]() for _ in ledgers]
    for new, (_, i, k) in enumerate(found):
        numbers[i][k] = new
    by_place = found[0][0].passing == "by place"
    counters = [_renumbered(ledger, own, by_place) for ledger, own in zip(ledgers, numbers, strict=True)]
    sources = [source for source, _, _ in found]
    size = sum(source.n_units for source in sources)
    joined = reduce(lambda ours, theirs: [added(a, b) for a, b in zip(ours, theirs, strict=True)], counters)
    arguments = {**first.arguments, "inputs": [source.name for source in sources]}
    facts = {**_others(first).facts, **facts_of(sources)}
    return Ledger(first.name, first.command, arguments, facts, [Counted(size, False, ([(0, size)], joined))])


def _check_parts(ledgers: Sequence[Ledger], found: Sequence[tuple[Source, int, int]]) -> None:
    owners: dict[str, str] = {}
    first = min(found, key=lambda one: one[1:])[0]
    for source, i, _ in found:
        name = ledgers[i].name
        if source.name in owners:
            expected = "expected each once (states of other batches have names of their own: save(..., name=...))"
            raise DataError(name, f"batches named {source.name}, which {owners[source.name]} has, too", expected)
        owners[source.name] = name
        for key in _ALIKE:
            if getattr(source, key) != getattr(first, key):
                what = "samples that have places, beside others" if key == "passing" else f"counted with other {key}"
                raise DataError(name, what, f"expected those of {ledgers[0].name}")
        if bool(source.image_shape) != bool(first.image_shape):
            raise DataError(name, "counts of images beside those of rows", "expected one of them")
        if (source.encoding == "float64") != (first.encoding == "float64"):
            raise DataError(name, f"counts of {source.encoding} beside {first.encoding}", "expected one of them")


def _renumbered(ledger: Ledger, numbers: Mapping[int, int], by_place: bool) -> list[Counters]:
    """The counters of a ledger, where its parts have other numbers."""
    if len(ledger.passes) != 1 or not ledger.passes[0].complete:
        raise ValueError("batches are counted in one pass")
    order = [numbers[k] for k in range(len(numbers))]
    return [renumbered(one, order, by_place) if "kept" in one else one for one in ledger.passes[0].counters]
