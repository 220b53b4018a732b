"""What every command prints and writes on the samples, to the last byte, as it is kept in ``tests/golden``.

A session is commands typed one after another in an empty folder beside ``sample_data``. ``UNOIC_GOLDEN=write pytest
tests/test_golden.py`` writes the transcripts anew; what differs then is to be read line by line.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import pathlib
import re
import shlex

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unoic_cli import __version__

HERE = pathlib.Path(__file__).parent
D, S = "sample_data/digits_lt", "sample_data/streets"
BOTH = f"rgb={S}/rgb/val.h5 depth={S}/depth/val.h5"
FOG = f"rgb={S}/rgb/fog.h5 depth={S}/depth/fog.h5"
FORMS = ("json", "table", "tsv")


def in_forms(command, forms=FORMS):
    return [f"{command} --format {form}" for form in forms]


SESSIONS = {
    "info": [
        *in_forms(f"info {D}/val.h5"),
        *in_forms(f"info {D}/test.parquet"),
        f"info {BOTH}",
        f"info {S}/rgb/fog.h5 --format table",
        f"info {D}/val.h5 {D}/test.h5",
        f"search-lambda {D}/val.h5 --range 0:1:0.25 -o c.json --format tsv",
        *in_forms("info c.json", ("json", "table")),
        f"fit-delta rgb={S}/rgb/val.h5 -o d.json --format tsv",
        f"prior {D}/test.h5 -o p.json --format tsv",
        f"evaluate {D}/val.h5 --shard 1/2 --state s.unoic --format tsv",
        "export c.json --bias layer.npz --format tsv",
        "info d.json p.json s.unoic layer.npz --format table",
    ],
    "convert": [
        f"convert {D}/val.h5 v.parquet",
        f"convert {D}/val.parquet v.h5 --format table",
        f"convert {S}/rgb/fog.h5 fog.parquet",
        f"convert {D}/val.h5 v.arrows --format tsv",
        "evaluate v.arrows",
        f"convert {D}/val.h5 v.h5",
        f"convert {D}/val.h5 v.h5 --force",
    ],
    "pack": [
        *in_forms(f"pack {D}/val.h5 p.h5 --force"),
        f"pack {S}/rgb/fog.h5 f.h5 --codec gzip --dtype float16",
        f"pack {S}/rgb/fog.h5 g.h5 --checksums --chunk 64K",
        f"calibrate {S}/rgb/val.h5 -o x.h5",
        f"pack {D}/val.parquet q.h5 --codec zstd",
        "evaluate f.h5",
        "info f.h5",
    ],
    "prior": [
        *in_forms(f"prior {D}/val.h5"),
        f"prior {S}/rgb/val.h5 -o p.json --format table",
        f"evaluate {S}/rgb/test.h5 -l 0.5 --source-prior p.json",
        f"prior --estimate {D}/test.h5 --labelled {D}/val.h5 --format table",
        f"prior --estimate {S}/rgb/test.h5 --labelled {S}/rgb/val.h5 --format table",
        f"prior --estimate {FOG} --labelled rgb={S}/rgb/val.h5 --labelled depth={S}/depth/val.h5 --format table",
    ],
    "search": [
        *in_forms(f"search-lambda {D}/val.h5"),
        f"search-lambda {D}/val.h5 --folds 3 -o c.json",
        f"search-lambda {D}/val.h5 --folds 3 --format table",
        f"evaluate {D}/test.h5 --calibration c.json",
        f"search-lambda {D}/val.h5 --metric macc --range 0:2:0.1 --curve curve.tsv",
        f"search-lambda {D}/val.h5 --metric miou --subject-to 'acc>=base-0.01' --format table",
        f"search-lambda {D}/val.h5 --method paper",
        f"search-lambda {D}/val.h5 --method paper-printed",
        f"search-lambda {D}/val.h5 --method grid --metric top5",
        f"search-lambda {D}/val.h5 --metric f1 --target-prior labels",
        f"search-lambda {S}/rgb/val.h5 --metric miou --folds 3 -o r.json",
        f"search-lambda {S}/rgb/val.h5 --ignore-index 0",
        f"search-lambda {D}/val.h5 --source-prior mean-posterior --temperature 1.5",
        f"search-lambda {D}/val.h5 --lambda 0.4 -o given.json",
    ],
    "evaluate": [
        *in_forms(f"evaluate {D}/test.h5"),
        f"evaluate {D}/test.parquet --confusion",
        f"evaluate {D}/test.h5 --confusion --format table",
        f"evaluate {D}/test.h5 -l 1",
        f"evaluate {D}/test.h5 -l 1 --format table --require 'macc>0.9 and gain.macc.low>0'",
        f"evaluate {D}/test.h5 {D}/val.h5 --by file --format table",
        *in_forms(f"evaluate {S}/rgb/fog.h5 -l 0.5 --by image"),
        f"evaluate {S}/rgb/test.h5 --by group --format tsv",
        f"evaluate {S}/rgb/fog.h5 --absent zero",
        f"evaluate {BOTH} --fusion average --weights rgb=2,depth=1",
        f"evaluate {FOG} --fusion log-linear -l rgb=0.3,depth=0.6 --format table",
        f"evaluate {FOG} --fusion max -l 0.2 --order rebalance-first --delta fit",
        f"evaluate {S}/rgb/val.h5 --unseen floor -l 1",
    ],
    "temperature": [
        *in_forms(f"fit-temperature {D}/val.h5"),
        f"fit-temperature {S}/rgb/val.h5 -o t.json --format table",
        f"search-lambda {S}/rgb/val.h5 -o s.json",
        f"fit-temperature {S}/rgb/val.h5 --calibration s.json -o t2.json",
        f"evaluate {S}/rgb/fog.h5 -c t2.json",
    ],
    "delta": [
        *in_forms(f"fit-delta {S}/rgb/val.h5"),
        f"fit-delta rgb={S}/rgb/val.h5 -o rgb.json",
        f"fit-delta depth={S}/depth/val.h5 -o depth.json --format table",
        f"search-lambda {BOTH} --delta rgb=rgb.json --delta depth=depth.json -o uno.json",
        f"evaluate {FOG} -c uno.json",
        f"calibrate {FOG} -c uno.json -o fog.h5 --format table",
    ],
    "calibrate": [
        *in_forms(f"calibrate {D}/val.h5 -o v.h5 --force"),
        f"calibrate {D}/test.h5 -l 1 -o t.parquet",
        "evaluate t.parquet",
        f"calibrate {S}/rgb/fog.h5 -l 0.5 -o f.h5 --emit predictions",
        f"calibrate {S}/rgb/fog.h5 -l 0.5 -o g.h5 --emit probs",
        f"calibrate {D}/val.h5 -o a.h5 --shard 1/2",
        f"calibrate {D}/val.h5 -l 1 -o a.h5 --shard 1/2",
        f"calibrate {D}/val.h5 -l 1 -o a.h5 --shard 2/2",
        "evaluate a.0001-of-0002.h5 a.0002-of-0002.h5",
    ],
    "fuse": [
        *in_forms(f"fuse {FOG} -o f.h5 --force"),
        f"fuse {FOG} --fusion product -o g.parquet",
        f"fuse {FOG} --fusion average --weights rgb=3,depth=1 -o h.h5 --emit predictions",
        f"search-lambda {BOTH} --per-modality --fusion noisy-or -o pm.json",
        f"search-lambda {BOTH} --fusion average --format table",
        f"search-lambda {BOTH} --fusion product --metric macc --folds 2",
        f"calibrate {FOG} -c pm.json -o i.h5",
    ],
    "compare": [
        f"search-lambda {D}/val.h5 -o c.json",
        *in_forms(f"compare {D}/test.h5 -m c.json -m half=c.json@0.5", (*FORMS, "markdown", "latex")),
        f"compare {FOG} -m rgb -m depth -m SoftAve=average -m noisy-or@0.4 --format table",
        f"compare rgb={S}/rgb/fog.h5 rgb={S}/rgb/rain.h5 depth={S}/depth/fog.h5 depth={S}/depth/rain.h5 --by file "
        "-m rgb -m average -m noisy-or --format table",
    ],
    "runs": [
        f"search-lambda {D}/val.h5 --folds 2 --shard 1/2 --state 1.unoic",
        f"search-lambda {D}/val.h5 --folds 2 --shard 2/2 --state 2.unoic --format table",
        "merge 1.unoic 2.unoic -o all.unoic",
        "report all.unoic -o c.json",
        "report 1.unoic --partial",
        "report 1.unoic",
        f"evaluate {D}/val.h5 --checkpoint k.unoic --every 60s",
        f"evaluate {D}/val.h5 --state e.unoic",
        "report e.unoic --format table",
        f"fit-delta {S}/rgb/val.h5 --shard 1/1 --state d.unoic",
        "report d.unoic",
    ],
    "refused": [
        "evaluate nothing.h5",
        f"evaluate {D}/val.h5 --by day",
        f"evaluate {D}/val.h5 --by group",
        f"evaluate {D}/val.h5 --by image",
        f"evaluate {D}/val.h5 --require 'macc>0.5 or acc>0.5'",
        f"evaluate {D}/val.h5 -c nothing.json",
        f"search-lambda {D}/val.h5 --method best",
        f"search-lambda {D}/val.h5 --metric best",
        f"search-lambda {D}/val.h5 --range 2:1",
        f"evaluate {BOTH} --fusion sum",
        f"evaluate {D}/val.h5 --threads 0",
        f"evaluate {D}/val.h5 --folds 3",
        f"calibrate {D}/val.h5 -o {D}/val.h5",
        f"evaluate {D}/README.md",
        f"evaluate rgb={D}/val.h5 depth={S}/depth/val.h5",
        f"evaluate {D}/val.h5 {S}/rgb/val.h5",
        f"fuse {D}/val.h5 -o x.h5",
        f"compare {D}/val.h5 -m nothing",
        f"evaluate {D}/val.h5 --source-prior 1,2,3",
        f"evaluate {D}/val.h5 --temperature -1",
        f"convert {D}/val.h5 x.png",
        "frobnicate",
        "report nothing.unoic",
    ],
}
VARYING = (
    (re.compile(re.escape(__version__)), "VERSION"),
    (re.compile(r"\b\d[\d,]*(\.\d+)? (kB|MB|GB|B)/s"), "RATE"),
    (re.compile(r'((?:stored_)?mb_per_s(?:": |\t))[-\d.e+]+'), r"\1RATE"),
)


def constant(text, folder):
    text = text.replace(str(folder), "HERE")
    for pattern, word in VARYING:
        text = pattern.sub(word, text)
    return text


NUMBERS = re.compile(r"(?:[a-z]+: )?[-\d.eE+,\[\] null]+")


def folded(lines):
    """Long rows of numbers as their digest."""
    for numeric, rows in itertools.groupby(lines, lambda line: NUMBERS.fullmatch(line) is not None):
        rows = list(rows)
        if numeric and len(rows) > 12:
            yield f"  {len(rows)} lines of numbers: {hashlib.sha256(chr(10).join(rows).encode()).hexdigest()[:16]}"
        else:
            yield from rows


def array_line(name, values):
    """An array in a line: integers by digest, floats by moments, which no last bit changes."""
    values = np.asarray(values)
    if values.dtype.kind in "iub":
        seen = hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]
    elif values.dtype.kind == "f":
        finite = values[np.isfinite(values)].astype("f8")
        seen = (
            f"{finite.size} finite, mean {finite.mean():.5g}, deviation {finite.std():.5g}" if finite.size else "none"
        )
    else:
        seen = hashlib.sha256(repr(values.tolist()).encode()).hexdigest()[:16]
    return f"  {name} {values.dtype} {values.shape}: {seen}"


def contents(path, folder):
    """What an output holds, in lines."""
    if path.suffix == ".h5":
        with h5py.File(path, "r") as file:
            yield from (f"  @{key} {constant(str(value), folder)}" for key, value in sorted(file.attrs.items()))
            for name in sorted(file):
                title = f"{name} {file[name].compression} {file[name].chunks}"
                with contextlib.suppress(OSError):  # a codec that this library has no plugin for
                    title = array_line(title, file[name][()])
                yield title
    elif path.suffix in (".parquet", ".arrows"):
        table = pq.read_table(path) if path.suffix == ".parquet" else pa.ipc.open_stream(path).read_all()
        yield from (
            f"  @{key.decode()} {constant(value.decode(), folder)}"
            for key, value in sorted((table.schema.metadata or {}).items())
        )
        for name in table.column_names:
            values = table[name].to_pylist()
            yield array_line(name, np.array(values)) if len({np.shape(v) for v in values}) == 1 else f"  {name}"
    elif path.suffix in (".json", ".tsv"):
        yield from ("  " + line for line in constant(path.read_text(), folder).splitlines())


def transcript(session, run, folder):
    """Commands with what they print and write."""
    lines, known = [], {}
    for command in SESSIONS[session]:
        code, out, err = run(*shlex.split(command))
        lines += [f"$ unoic {command}", f"= {code}"]
        lines += folded([f"out: {line}".rstrip() for line in constant(out, folder).splitlines()])
        lines += [f"err: {line}".rstrip() for line in constant(err, folder).splitlines()]
        for path in sorted(folder.iterdir()):
            if path.is_symlink():
                continue
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if known.get(path.name) != digest:
                known[path.name] = digest
                lines += [f"file: {path.name}", *folded(contents(path, folder))]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("session", SESSIONS)
def test_transcripts_are_as_they_were(session, run, tmp_path, monkeypatch):
    (tmp_path / "sample_data").symlink_to(HERE.parent / "sample_data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    found = transcript(session, run, tmp_path)
    kept = HERE / "golden" / f"{session}.txt"
    if os.environ.get("UNOIC_GOLDEN") == "write":
        kept.write_text(found)
    assert found == kept.read_text()
