"""State files: a run's ledger on disk, and the sum of several.

A file is a line of text, the length and the bytes of a JSON header, the arrays that it speaks of (int64, deflated),
and a digest of everything before it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
import operator
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from unoic_cli.errors import DataError, UsageError
from unoic_cli.runs import batches
from unoic_cli.runs.ledger import Counted, Ledger, joined, missing
from unoic_cli.schemas import STATE
from unoic_cli.storage.output import write_bytes
from unoic_cli.storage.whole import read_whole
from unoic_cli.tallies.tally import added, same
from unoic_cli.version import __version__

MAGIC = STATE + b"1\n"
MOST_BYTES = 1 << 28
"""Of a state file."""
MOST_HEADER = 1 << 25
"""Of its JSON, which takes many times that in memory."""
MOST_COUNTED = 1 << 30
"""Bytes of all counters of a state, unpacked."""
_DENSEST = 1100
"""Bytes that one deflated byte can stand for, at most."""
_RANK = 16
_DIGEST = 32
_EXPECTED = "expected a state file written by unoic (--state, --checkpoint or unoic merge)"


def _pack(value: Any, arrays: list[bytes]) -> Any:
    """Counters as JSON; arrays go to a list of their own."""
    if isinstance(value, dict):
        return {"table": {name: _pack(item, arrays) for name, item in sorted(value.items())}}  # whoever came first
    if isinstance(value, np.ndarray):
        arrays.append(zlib.compress(np.ascontiguousarray(value, dtype="<i8").tobytes(), 1))
        return {"array": len(arrays[-1]), "shape": list(value.shape)}
    return [int(item) for item in value] if isinstance(value, list) else int(value)


def _arrays_of(value: Any) -> Iterator[dict[str, Any]]:
    """What `_pack` said of each array."""
    if isinstance(value, dict) and "array" in value and "shape" in value:
        yield value
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _arrays_of(item)


def _unpack(value: Any, content: memoryview, at: int) -> tuple[Any, int]:
    """What `_pack` made; and where the next array begins."""
    if isinstance(value, dict) and "table" in value:
        table = {}
        for name, item in value["table"].items():
            table[name], at = _unpack(item, content, at)
        return table, at
    if isinstance(value, dict):
        shape = [operator.index(extent) for extent in value["shape"]]
        size, end = 8 * math.prod(shape), at + operator.index(value["array"])
        if not 0 <= size <= MOST_COUNTED or len(shape) > _RANK or size > _DENSEST * (end - at) + 64:
            raise ValueError("an array that its bytes cannot hold")
        engine = zlib.decompressobj()
        flat = engine.decompress(content[at:end], size) if size else b""  # no more than is spoken of
        if min(shape, default=0) < 0 or len(flat) != size or not at < end <= len(content):
            raise ValueError("an array of another size")
        return np.frombuffer(flat, dtype="<i8").reshape(shape).astype(np.int64), end
    if not (isinstance(value, int) or (isinstance(value, list) and all(isinstance(item, int) for item in value))):
        raise TypeError("counters that are no integers")
    return value, at


def nonsense(path: str) -> DataError:
    """The error for a file that is intact, and says what no run of ours does."""
    return DataError(path, "a state whose contents make no sense", _EXPECTED)


@contextlib.contextmanager
def sensible(path: str) -> Iterator[None]:
    """Turn what goes wrong with the contents of a state into one error."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, AssertionError, ArithmeticError, zlib.error):
        if os.environ.get("UNOIC_DEBUG"):
            raise
        raise nonsense(path) from None
    except RecursionError:
        raise nonsense(path) from None


def dump(ledger: Ledger) -> bytes:
    """A ledger as the bytes of a state file; the same ledger gives the same bytes."""
    arrays: list[bytes] = []
    passes = []
    for entry in ledger.passes:
        done, counters = entry.counted
        packed = [_pack(one, arrays) for one in counters]
        passes.append({"size": entry.size, "shared": entry.shared, "done": joined(done), "counters": packed})
    header = {
        "unoic": __version__,
        "command": ledger.command,
        "arguments": dict(sorted(ledger.arguments.items())),
        "shard": ledger.shard,
        "facts": dict(sorted((ledger.before | ledger.facts).items())),
        "passes": passes,
        **({"outputs": ledger.outputs} if ledger.outputs else {}),
    }
    counted = sum(8 * math.prod(one["shape"]) for one in _arrays_of(passes))
    text = json.dumps(header).encode()
    if counted > MOST_COUNTED or len(text) > MOST_HEADER:
        found = f"{counted:,} bytes of counters, {len(text):,} of facts"
        raise DataError(ledger.name, found, f"expected at most {MOST_COUNTED:,} and {MOST_HEADER:,} in a state")
    # what a fact lists stays in its order: groups are counted in it
    content = MAGIC + len(text).to_bytes(8, "little") + text + b"".join(arrays)
    return content + hashlib.blake2b(content, digest_size=_DIGEST).digest()


def save(ledger: Ledger, path: str) -> None:
    """Write a state file, one of the outputs of a command: complete, or not at all."""
    write_bytes(path, dump(replace(ledger, outputs={})))


def save_checkpoint(ledger: Ledger, path: str) -> None:
    """Write a state file now, beside outputs that are not finished."""
    write_bytes(path, dump(ledger), at_once=True)


def load(path: str) -> Ledger:
    """Read a state file.

    Raises
    ------
    NoInputError, DataError
        It cannot be read, is damaged, or was written by another version.
    """
    content = read_whole(path, _EXPECTED, most=MOST_BYTES, watch=False)  # a checkpoint is written by the run itself
    if not content.startswith(MAGIC):
        found = "an empty file" if not content else "a file of another kind, or of another format version"
        raise DataError(path, found, _EXPECTED)
    body = content[:-_DIGEST]
    if hashlib.blake2b(body, digest_size=_DIGEST).digest() != content[-_DIGEST:]:
        raise DataError(path, "a damaged state file (its checksum is wrong)", "expected it as it was written")
    with sensible(path):
        return _parse(path, body)


def about(path: str) -> dict[str, Any]:
    """What a state file says of its run, as JSON.

    Raises
    ------
    NoInputError, DataError
        As `load` does.
    """
    ledger = load(path)
    entry = ledger.passes[-1] if ledger.passes else None
    return {
        "command": ledger.command,
        "arguments": ledger.arguments,
        "shard": None if ledger.shard is None else list(ledger.shard),
        "passes": len(ledger.passes),
        "counted": 0 if entry is None else sum(stop - start for start, stop in entry.done),
        "total": 0 if entry is None else entry.size,
        "missing": None if entry is None or entry.complete else missing(entry),
    }


def _parse(path: str, body: bytes) -> Ledger:
    start = len(MAGIC) + 8
    at = start + int.from_bytes(body[len(MAGIC) : start], "little")
    if at - start > MOST_HEADER:
        raise ValueError("a header larger than any")
    header = json.loads(body[start:at])
    if sum(8 * math.prod(map(operator.index, one["shape"])) for one in _arrays_of(header["passes"])) > MOST_COUNTED:
        raise ValueError("more counters than any state has")
    if header["unoic"] != __version__:
        raise DataError(path, f"a state of unoic {header['unoic']}", f"expected one of this version, {__version__}")
    passes = []
    for entry in header["passes"]:
        counters = []
        for one in entry["counters"]:
            value, at = _unpack(one, memoryview(body), at)
            if not isinstance(value, dict):
                raise TypeError("counters without names")
            counters.append(value)
        size, done = operator.index(entry["size"]), [(operator.index(a), operator.index(b)) for a, b in entry["done"]]
        edges = [0, *itertools.chain(*done), size]
        if edges != sorted(edges):
            raise ValueError("rows that are not there")
        passes.append(Counted(size, bool(entry["shared"]), (done, counters)))
    shard = (
        None if header["shard"] is None else (operator.index(header["shard"][0]), operator.index(header["shard"][1]))
    )
    command, arguments, facts = header["command"], header["arguments"], header["facts"]
    if not (isinstance(command, str) and isinstance(arguments, dict) and isinstance(facts, dict)):
        raise TypeError("a header of another kind")
    outputs = {
        name: [list(map(operator.index, one)) for one in many] for name, many in header.get("outputs", {}).items()
    }
    return Ledger(path, command, arguments, facts, passes, shard, outputs=outputs)


def check_alike(first: Ledger, other: Ledger) -> None:
    """Refuse the ledger of another run.

    Raises
    ------
    DataError
        Another command, other arguments, or inputs that were not the same.
    """
    if other.command != first.command:
        raise DataError(other.name, f"a state of {other.command}", f"expected {first.command}, as in {first.name}")
    for name in sorted({*first.arguments, *other.arguments}):
        ours, theirs = first.arguments.get(name), other.arguments.get(name)
        if ours != theirs:
            found = f"another configuration: {name} is {_short(theirs)}"
            raise DataError(other.name, found, f"expected {_short(ours)}, as in {first.name}")
    for name in sorted({*first.facts, *other.facts}):
        ours, theirs = first.facts.get(name), other.facts.get(name)
        if _lasting(ours) != _lasting(theirs):
            kind, _, of = name.partition(" ")
            found = f"counted from another {kind} {of}" if of else f"another {kind}"
            raise DataError(other.name, found, f"expected that of {first.name}")


def _lasting(fact: Any) -> Any:
    """A fact without what a copy of the file does not share."""
    if isinstance(fact, dict) and isinstance(fact.get("fingerprint"), dict):
        return {**fact, "fingerprint": {k: v for k, v in fact["fingerprint"].items() if k != "modified"}}
    return fact


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


def merge(ledgers: Sequence[Ledger], *, partial: bool = False) -> Ledger:
    """The sum of the ledgers of one run's shards, in any order.

    Parameters
    ----------
    ledgers : sequence of Ledger
    partial : bool
        Allow rows that nobody has counted.

    Raises
    ------
    DataError
        Shards of different runs, rows that were counted twice, or rows that are missing.

    Ledgers of batches (`unoic_cli.runs.batches`) are those of parts that lie one behind the other.
    """
    if not ledgers:
        raise UsageError("FILES", "no state file", "expected at least one")
    first = ledgers[0]
    if any(map(batches.is_passing, ledgers)):
        with sensible(ledgers[-1].name):
            return batches.join(ledgers, check_alike)
    for other in ledgers[1:]:
        check_alike(first, other)
        if len(other.passes) != len(first.passes):
            found = f"{len(other.passes)} passes over the data"
            raise DataError(other.name, found, f"expected {len(first.passes)}, as in {first.name}")
    with sensible(ledgers[-1].name):
        passes = [_sum(ledgers, place) for place in range(len(first.passes))]
    total = Ledger(first.name, first.command, first.arguments, first.facts, passes)
    for entry in passes:
        if not entry.complete and not partial:
            expected = "expected every shard of the run (--partial goes on without)"
            raise DataError(first.name, f"{missing(entry)} in no state file", expected)
    return total


def _sum(ledgers: Sequence[Ledger], place: int) -> Counted:
    """One pass of all ledgers."""
    entries = [ledger.passes[place] for ledger in ledgers]
    first = entries[0]
    if any((entry.size, entry.shared) != (first.size, first.shared) for entry in entries):
        raise DataError(ledgers[0].name, "passes over different data", "expected shards of one run")
    earlier = place < len(ledgers[0].passes) - 1 and all(entry.complete for entry in entries)
    if first.shared or earlier:  # all shards have counted, or been given, the whole of it
        for ledger, entry in zip(ledgers, entries, strict=True):
            if entry.done != first.done or not _same_counters(entry, first):
                raise DataError(
                    ledger.name, "counts of an earlier pass that differ", f"expected those of {ledgers[0].name}"
                )
        return first
    done: list[tuple[int, int]] = []
    owners: list[tuple[tuple[int, int], str]] = []
    for ledger, entry in zip(ledgers, entries, strict=True):
        for extent in entry.done:
            for taken, owner in owners:
                low, high = max(taken[0], extent[0]), min(taken[1], extent[1])
                if low < high:
                    found = f"rows {low:,} to {high - 1:,}, which {owner} has counted, too"
                    raise DataError(ledger.name, found, "expected each row in one state file")
            owners.append((extent, ledger.name))
        done += entry.done
    counters = list(first.counters)
    for entry in entries[1:]:
        counters = [added(a, b) for a, b in zip(counters, entry.counters, strict=True)] if entry.counters else counters
    return Counted(first.size, first.shared, (joined(done), counters))


def _same_counters(ours: Counted, theirs: Counted) -> bool:
    return same(dict(enumerate(ours.counters)), dict(enumerate(theirs.counters)))
