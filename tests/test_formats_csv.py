"""CSV and TSV as inputs: pieces, quotes and line ends change nothing, and each bad line is one error."""

from __future__ import annotations

import csv as standard
import json
import pathlib
import pickle
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import unoic_cli
from unoic_cli import cli, formats
from unoic_cli.errors import DataError, NoInputError, UsageError
from unoic_cli.formats import csv

RNG = np.random.default_rng(0)
SCORES = RNG.normal(size=(60, 3)) * 3
LABELS = RNG.choice(3, 60, p=[0.6, 0.3, 0.1])
HEADER = ["label", "logit_0", "logit_1", "logit_2", "split"]
ROWS = [
    [int(y), *map(repr, map(float, row)), "ab"[i % 2]] for i, (y, row) in enumerate(zip(LABELS, SCORES, strict=True))
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capfd):
    def runner(*args, code=0):
        assert cli.run([str(arg) for arg in args]) == code
        out, err = capfd.readouterr()
        assert code == 0 or (out == "" and err.startswith("unoic: error: ") and err.count("\n") == 1)
        return out if code == 0 else err

    return runner


def store(header=HEADER, rows=ROWS, name="x.csv", end="\n", encoding="utf-8", quoting=standard.QUOTE_MINIMAL):
    with open(name, "w", newline="", encoding=encoding) as file:
        delimiter = "\t" if name.endswith("tsv") else ","
        writer = standard.writer(file, delimiter=delimiter, lineterminator=end, quoting=quoting)
        writer.writerows([header, *rows])
    return name


def read(source, *fields, start=0, stop=None):
    reader = formats.open_reader(source)
    blocks = reader.blocks(start, source.n_units if stop is None else stop, frozenset(fields))
    found = [[np.array(getattr(block, field)) for field in fields] for block in blocks]
    reader.close()
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    piece=st.integers(20, 4000),
    name=st.sampled_from(["x.csv", "x.tsv"]),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
    quoting=st.sampled_from([standard.QUOTE_MINIMAL, standard.QUOTE_ALL]),
    text=st.sampled_from(["", "plain", 'a "b", c', "two\nlines", "\n\n", "é"]),
    cut=st.tuples(st.integers(0, 59), st.integers(1, 60)),
)
def test_pieces_quotes_and_line_ends_change_nothing(monkeypatch, piece, name, end, encoding, quoting, text, cut):
    monkeypatch.setattr(csv, "PIECE_BYTES", max(piece, 60))
    store([*HEADER, "note"], [[*row, text * (i % 3)] for i, row in enumerate(ROWS)], name, end, encoding, quoting)
    source = pickle.loads(pickle.dumps(formats.describe(name)))
    assert (source.n_samples, source.n_classes, source.encoding) == (60, 3, "float64")
    start, stop = sorted({min(cut), max(cut[1], min(cut) + 1)})
    scores, labels = read(source, "scores", "labels", start=start, stop=stop)
    np.testing.assert_array_equal(scores, SCORES[start:stop])
    np.testing.assert_array_equal(labels, LABELS[start:stop])
    spans = formats.spans(source, 100)
    assert [span[0] for span in spans[1:]] == [span[1] for span in spans[:-1]] and spans[-1][1] == 60


@pytest.mark.parametrize("threads", [1, 3])
def test_every_command_equals_the_converted_file(run, monkeypatch, threads):
    monkeypatch.setattr(csv, "PIECE_BYTES", 300)
    name = store()
    run("convert", name, "x.h5")
    for command in (("evaluate", "--split", "a"), ("search-lambda", "--folds", "2"), ("prior",), ("fit-temperature",)):
        outs = [json.loads(run(*command, one, "--format", "json", "--threads", threads)) for one in (name, "x.h5")]
        texts = [json.dumps({k: v for k, v in out.items() if k not in ("notes", "files")}) for out in outs]
        assert texts[0].replace("x.csv", "x.h5") == texts[1]
    for i in (1, 2):
        run("evaluate", name, "--shard", f"{i}/2", "--state", f"{i}.unoic")
    assert run("report", "1.unoic", "2.unoic") == run("evaluate", name)


def test_classes_by_name_and_one_column(run):
    rows = [[y, *row[1:4]] for y, row in zip(LABELS, ROWS, strict=True)]
    source = formats.describe(store(["y", "prob_cat", "prob_dog", "prob_eel"], rows))
    assert (source.kind, source.class_names, source.where("labels")) == ("probs", ("cat", "dog", "eel"), "x.csv:y")
    source = formats.describe(store(["label", "score"], [[y % 2, row[1]] for y, row in zip(LABELS, ROWS, strict=True)]))
    assert source.single and (source.kind, source.n_classes) == ("logits", 2)
    assert "one score of each unit" in " ".join(source.notes)
    assert "unoic convert" in formats.describe(store()).read_path()[1]


def test_what_is_not_used_is_said(run):
    name = store([*HEADER, "path", "age"], [[*row, "a/b", 3] for row in ROWS])
    assert unoic_cli.evaluate(name).to_dict()["notes"][0] == "x.csv: not used: path, age"
    assert json.loads(run("convert", name, "x.h5"))["notes"].count("not used: path, age") == 1


def test_integers_are_scores_too():
    (scores,) = read(formats.describe(store(["a", "logits_0", "logits_1"], [["x", 1, 2], ["y", 3, "-4e1"]])), "scores")
    assert scores.tolist() == [[1, 2], [3, -40]]


GOOD = "label,logit_0,logit_1\n0,1.5,2\n1,0,-1\n"


@pytest.mark.parametrize(("text", "message"), [
    ("", "an empty file"),
    ("\n\n", "two columns of this name, or one without|no scores"),
    ("label,logit_0,logit_1\n", r"x.csv:logit_0: no samples \(N = 0\)"),
    (GOOD + "1,2\n", "2 fields at row 2; expected 3, as the first line has"),
    (GOOD + "1,2,3,4\n", "4 fields at row 2"),
    (GOOD + "1,2,abc\n", "x.csv:logit_1: 'abc' at row 2; expected a number"),
    (GOOD + "1,,3\n", "x.csv:logit_0: '' at row 2; expected a number"),
    (GOOD + ",1,3\n", "x.csv:labels?: '' at row 2|string values; expected integers"),
    (GOOD + "1,nan,3\n", "nan at row 2|NaN at row 2"),
    (GOOD + "x,1,3\n", "string values; expected integers"),
    (GOOD + "1.5,1,3\n", "double values; expected integers"),
    (GOOD + '1,"2,3\n', "x.csv"),
    ("a,b\n1,2\n", "no scores among the columns: a, b"),
    ("0.5,0.25\n0.1,0.9\n", "no scores among the columns"),
    ("label,logit_0,logit_0\n0,1,2\n", "two columns of this name"),
    ("label,logit_0,logit_2\n0,1,2\n", "no logit_1"),
    ("logit_0;logit_1\n1;2\n", "x.csv"),
    ("label\0,logit_0\n", "zero bytes"),
])  # fmt: skip
def test_what_is_wrong_is_one_line(run, text, message):
    pathlib.Path("x.csv").write_text(text)
    said = run("evaluate", "x.csv", code=65)
    assert re.search(message, said), said


def test_bytes_that_are_no_text(run):
    pathlib.Path("x.csv").write_bytes(b"label,logit_0,logit_1\n0,1,\xff\xfe\n")
    assert "expected" in run("evaluate", "x.csv", code=65)
    pathlib.Path("x.csv").write_bytes(b"\xff\xfe" + GOOD.encode("utf-16-le"))
    assert "a first line" in run("evaluate", "x.csv", code=65)
    pathlib.Path("x.csv").write_bytes(bytes(range(256)) * 50)
    assert "x.csv" in run("evaluate", "x.csv", code=65)


def test_lines_without_end(run, monkeypatch):
    monkeypatch.setattr(csv, "PIECE_BYTES", 100)
    monkeypatch.setattr(csv, "LONGEST_LINE", 1000)
    pathlib.Path("x.csv").write_text(GOOD + '0,1,"' + "2\n" * 3000)
    assert "a line of more than" in run("evaluate", "x.csv", code=65)
    pathlib.Path("x.csv").write_text("a" * 3000)
    assert "a first line of more than 100 bytes" in run("evaluate", "x.csv", code=65)


def test_other_refusals(run):
    name = store()
    assert "unknown suffix" in run("convert", name, "out.xls", code=2)
    with pytest.raises(UsageError, match="a group of a csv file"):
        formats.describe(name + "::a")
    with pytest.raises(NoInputError):
        formats.describe("none.csv")
    source = formats.describe(name)
    store(rows=ROWS[:-1])
    with pytest.raises(DataError, match="changed while it was in use"):
        source.open()
    pathlib.Path("prior.csv").write_text("1,2,3\n")
    run("evaluate", store(), "--lambda", "1", "--source-prior", "labels")


def test_a_return_in_the_first_line(run):
    pathlib.Path("x.csv").write_bytes(b"a\rb,logit_0,logit_1\n0,1,2\n")
    assert "a first line that cannot be read" in run("evaluate", "x.csv", code=65)
    np.save("z.npy", np.zeros((3, 2), "f4"))
    pathlib.Path("y.txt").write_bytes(b"a\rb\n0\n1\n1\n")
    assert "a first line that cannot be read" in run("evaluate", "z.npy", "--labels", "y.txt", code=65)
