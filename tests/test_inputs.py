"""What names stand for: patterns, lists, names of modalities, and what is refused."""

from __future__ import annotations

import json
import os
import pathlib

import h5py
import numpy as np
import pytest

import unoic_cli
from unoic_cli.errors import DataError, NoInputError, UsageError
from unoic_cli.formats import storage
from unoic_cli.resolve.inputs import expanded, natural

RNG = np.random.default_rng(0)
USAGE, DATA, NO_INPUT = 2, 65, 66


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make(path, n=12, group=""):
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "a") as file:
        place = file.require_group(group) if group else file
        place["logits"] = RNG.normal(size=(n, 3)).astype("f4")
        place["labels"] = np.arange(n) % 3
    return path


def write(path, text):
    pathlib.Path(path).write_bytes(text if isinstance(text, bytes) else text.encode())
    return f"@{path}"


@pytest.fixture
def accept(run):
    def runner(*args):
        code, out, err = run(*args)
        assert code == 0, err
        return json.loads(out)

    return runner


# ------------------------------------------------------------------------------------------------
# patterns


def test_natural_order():
    names = ["v10.h5", "v9.h5", "v.h5", "V1.h5", "v09.h5", "a/v1.h5", "10", "9", "١"]
    assert sorted(names, key=natural) == ["9", "10", "V1.h5", "a/v1.h5", "v09.h5", "v9.h5", "v10.h5", "v.h5", "١"]


def test_patterns():
    for name in ("val/10.h5", "val/9.h5", "val/deep/1.h5", "val/.hidden.h5", "test/1.h5"):
        make(name)
    os.mkdir("val/folder.h5")
    assert expanded("val/*.h5") == ["val/9.h5", "val/10.h5"]
    assert expanded(["val/*.h5", "test/?.h5"]) == ["val/9.h5", "val/10.h5", "test/1.h5"]
    assert expanded("**/1.h5") == ["test/1.h5", "val/deep/1.h5"]
    assert expanded(["rgb=val/[0-9]*.h5", "depth=test/*.h5"]) == ["rgb=val/9.h5", "rgb=val/10.h5", "depth=test/1.h5"]
    assert expanded("val/*.h5::a/b") == ["val/9.h5::a/b", "val/10.h5::a/b"]
    assert expanded({"rgb": "val/*.h5", "depth": np.zeros(3)})["rgb"] == ["val/9.h5", "val/10.h5"]
    assert expanded(pathlib.Path("val") / "*.h5") == ["val/9.h5", "val/10.h5"]
    assert expanded("plain.h5") == ["plain.h5"]
    array = np.zeros((2, 3))
    assert expanded(array) is array
    assert expanded([[0.5, 1.5], [1.0, 0.0]]) == [[0.5, 1.5], [1.0, 0.0]]


def test_names_that_exist_are_taken_as_they_are(accept):
    for name in ("a[1].h5", "a1.h5", "@list.h5", "rgb=x.h5", "odd*.h5"):
        make(name)
    assert expanded("a[1].h5") == ["a[1].h5"]
    assert expanded("a[12].h5") == ["a1.h5"]
    assert expanded("a[1].h5::g") == ["a[1].h5::g"]
    assert accept("evaluate", "@list.h5")["files"] == ["@list.h5"]
    assert accept("evaluate", "rgb=x.h5")["files"] == ["rgb=x.h5"]
    assert expanded("odd*.h5") == ["odd*.h5"]


COMMANDS = {
    "info": (),
    "prior": (),
    "evaluate": (),
    "search-lambda": (),
    "calibrate": ("-o", "out.h5", "--force", "--lambda", "1"),
    "fit-temperature": (),
    "fit-delta": (),
    "compare": ("-m", "x=c.json"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_patterns_and_lists(accept, refuse, command):
    files = [make(f"val/{i}.h5") for i in (2, 10)]
    accept("search-lambda", *files, "-o", "c.json")
    more = COMMANDS[command]

    def answer(*names):
        found = accept(command, *names, *more)
        for one in found["files"] if command == "info" else []:
            del one["read"]  # a speed is never the same twice
        return found

    plain = answer(*files)
    assert answer("val/*.h5") == plain
    assert answer(write("list.txt", "val/2.h5\nval/10.h5")) == plain
    assert "none/*.h5: no file matches" in refuse(NO_INPUT, command, "none/*.h5", *more)
    assert "missing.txt: no such file" in refuse(NO_INPUT, command, "@missing.txt", *more)


def test_modalities(accept):
    files = [f"{name}={make(f'{name}/{i}.h5')}" for name in ("rgb", "depth") for i in (2, 10)]
    plain = accept("evaluate", *files)
    assert accept("evaluate", "rgb=rgb/*.h5", "depth=depth/*.h5") == plain
    assert accept("evaluate", write("all.txt", "\n".join(files))) == plain
    write("rgb.txt", "rgb/2.h5\nrgb/10.h5\n")
    assert accept("evaluate", "rgb=@rgb.txt", "depth=depth/*.h5") == plain
    fused = accept("fuse", write("some.txt", "rgb=rgb/*.h5\ndepth=depth/*.h5"), "-o", "fused.h5")
    assert fused["files"] == plain["files"]
    same = unoic_cli.evaluate({"rgb": "rgb/*.h5", "depth": ["depth/*.h5"]})
    assert same.overall.values["acc"] == plain["acc"]


def test_groups_within_files(accept):
    for i in (1, 2):
        make(f"{i}.h5", group="val")
    assert accept("evaluate", "*.h5::val")["files"] == ["1.h5::val", "2.h5::val"]


def test_a_prior_by_a_pattern(accept):
    make("x.h5")
    for i in (1, 2):
        make(f"train/{i}.h5")
    listed = accept("search-lambda", "x.h5", "--source-prior", "train/1.h5")
    assert accept("search-lambda", "x.h5", "--source-prior", "train/*.h5")["lambda"] == listed["lambda"]


def test_a_prior_that_is_no_pattern(refuse):
    make("x.h5")
    assert "expected uniform, labels" in refuse(USAGE, "evaluate", "x.h5", "--lambda", "1", "--source-prior", "[1 2 3]")
    assert "no file matches" in refuse(NO_INPUT, "evaluate", "x.h5", "--lambda", "1", "--source-prior", "n*.h5")


def test_one_input_where_one_is_meant(refuse, accept):
    make("1.h5"), make("2.h5")
    assert "2 files (1.h5, 2.h5); expected one" in refuse(USAGE, "convert", "*.h5", "out.parquet")
    assert accept("convert", "1*.h5", "out.parquet")["input"] == "1.h5:logits"


def test_outputs_never_replace_what_a_pattern_means(refuse):
    make("val/1.h5")
    said = refuse(73, "calibrate", "val/*.h5", "--lambda", "1", "-o", "val/1.h5", "--force")
    assert "also an input" in said
    make("x.h5")
    prior = ("--source-prior", "val/*.h5", "--lambda", "1")
    assert "also an input" in refuse(73, "calibrate", "x.h5", *prior, "-o", "val/1.h5", "--force")


def test_the_same_file_twice(refuse):
    make("1.h5")
    assert "the same data as" in refuse(USAGE, "evaluate", "1.h5", "*.h5")


# ------------------------------------------------------------------------------------------------
# lists


def test_what_a_list_may_hold(accept):
    make("1.h5"), make("a b.h5"), make("2.h5", group="val"), make("é.h5")
    text = "\ufeff# files\r\n\n  1.h5  \r\na b.h5\n2.h5::val\né.h5"
    files = accept("evaluate", write("list.txt", text))["files"]
    assert files == ["1.h5", "a b.h5", "2.h5::val", "é.h5"]


def test_names_in_lists_count_from_the_current_folder(accept):
    make("1.h5"), make("sub/other.h5")
    assert accept("evaluate", write("sub/list.txt", "1.h5"))["files"] == ["1.h5"]


def test_lists_that_are_refused(refuse):
    make("1.h5")
    write("inner.txt", "1.h5")
    cases = {
        "": (DATA, "an empty list"),
        "# nothing\n\n": (DATA, "an empty list"),
        b"\xff\xfe1\x00": (DATA, "not UTF-8"),
        "1.h5\0": (DATA, "zero bytes"),
        "@inner.txt": (USAGE, "list.txt:1: the list @inner.txt"),
        "1.h5\nrgb=@inner.txt": (USAGE, "list.txt:2: the list @inner.txt"),
        "none*.h5": (NO_INPUT, "none*.h5: no file matches"),
        "none.h5": (NO_INPUT, "none.h5: no such file"),
        "1.h5\n1.h5": (USAGE, "the same data as"),
    }
    for text, (code, said) in cases.items():
        assert said in refuse(code, "evaluate", write("list.txt", text))
    write("list.txt", "depth=1.h5")
    assert "list.txt:1: depth=1.h5 in a list of one modality" in refuse(USAGE, "evaluate", "rgb=@list.txt")
    assert "a group of a list" in refuse(USAGE, "evaluate", "@list.txt::val")
    assert "a folder" in refuse(NO_INPUT, "evaluate", "@.")
    assert "@: a list without a name" in refuse(USAGE, "evaluate", "@")
    with open("binary.txt", "wb") as file:
        file.write(pathlib.Path("1.h5").read_bytes())
    assert "not UTF-8" in refuse(DATA, "evaluate", "@binary.txt")
    make("none.h5")
    assert "a file without a name" in refuse(USAGE, "evaluate", write("list.txt", "rgb=1.h5\nnone.h5"))


def test_errors_of_the_python_functions():
    with pytest.raises(NoInputError, match="no file matches"):
        unoic_cli.evaluate("none/*.h5")
    with pytest.raises(DataError, match="an empty list"):
        unoic_cli.evaluate([write("list.txt", "")])
    with pytest.raises(UsageError, match="standard input twice"):
        unoic_cli.evaluate({"rgb": "-", "depth": ["-"]})


# ------------------------------------------------------------------------------------------------
# remote names, without a network


def test_credentials_are_never_shown():
    cases = {
        "s3://key:secret@bucket/a.h5?region=x": "s3://bucket/a.h5",
        "https://me:secret@host:1/a.h5?sig=secret&x=1": "https://host:1/a.h5",
        "https://host/a.h5?sig=secret::val": "https://host/a.h5::val",
        "https://host/a.h5::val": "https://host/a.h5::val",
        "http://[::1]:80/a.h5::val": "http://[::1]:80/a.h5::val",
        "abfs://box@account.dfs.core.windows.net/a.h5": "abfs://box@account.dfs.core.windows.net/a.h5",
        "gs://anonymous@bucket/a.h5": "gs://anonymous@bucket/a.h5",
        "rgb=https://me:secret@host/a.h5": "rgb=https://host/a.h5",
        "s3://bucket/a?b.h5": "s3://bucket/a?b.h5",
        "val.h5?x=1": "val.h5?x=1",
    }
    for name, shown in cases.items():
        assert storage.shown(name) == shown
        assert "secret" not in storage.scrub(f"{name}: x; y {name}")


def test_names_of_other_places(refuse):
    for name in ("ftp://host/x.h5", "file:///x.h5"):
        assert "is not known; expected a file or one of s3://" in refuse(NO_INPUT, "evaluate", name)
    make("x.h5")
    for output in ("s3://bucket/out.h5", "https://me:secret@host/out.h5", "ftp://host/out.h5"):
        said = refuse(73, "calibrate", "x.h5", "--lambda", "1", "-o", output)
        assert "a remote place; expected a local file: write there, then copy it" in said
        assert "secret" not in said
        refuse(73, "convert", "x.h5", output)
        refuse(73, "search-lambda", "x.h5", "-o", output.replace(".h5", ".json"))
    assert "s3://bucket: no object named" in refuse(NO_INPUT, "evaluate", "s3://bucket")
    assert "web servers have no listing" in refuse(USAGE, "evaluate", "https://host/*.h5")
    assert "a pattern in place of a bucket" in refuse(NO_INPUT, "evaluate", "s3://*/x.h5")
    assert "a remote file of factors" in refuse(
        DATA, "evaluate", "x.h5", "--lambda", "1", "--delta", "https://host/d.h5"
    )
    assert "secret" not in refuse(NO_INPUT, "evaluate", "x.h5", "--calibration", "https://host/c.json?sig=secret")


# ------------------------------------------------------------------------------------------------
# names that look like something else: what exists comes first, in every place that takes a name

ODD = [
    "run::1.h5", "::.h5", "deep::er/x::y.h5", "rgb=x.h5", "@x.h5", "a*[1]?.h5", " lead.h5", "100%d{0}.h5",
    "new\nline.h5", "#x.h5", "a,b@0.5.h5", "s3:x.h5", "a=-.h5",
]  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_what_commands_write_they_read(name, accept, monkeypatch):
    """An output of any name is read back under that name: as input, factors, prior, calibration, state, in a list."""
    make("in.h5")
    os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
    accept("calibrate", "in.h5", "-l", "1", "--source-prior", "3,2,1", "-o", name)
    assert os.path.exists(name)
    plain = accept("evaluate", name)
    assert plain["n"] == 12 and plain["files"] == [name]
    assert accept("evaluate", "in.h5", "-l", "1", "--source-prior", name)["n"] == 12
    assert accept("evaluate", "in.h5", name, "--by", "file")["n"] == 24
    if "\n" not in name and not name.startswith("#"):
        assert accept("evaluate", write("list.txt", f"{name}\n"))["files"] == [name]
    with h5py.File(name, "a") as file:
        file["factors"] = np.full(12, 0.5)
    assert (
        accept("evaluate", "in.h5", "-l", "0", "--delta", f"{name}::factors")["acc"]
        == accept("evaluate", "in.h5")["acc"]
    )
    assert accept("evaluate", f"{name}::/")["n"] == 12
    text = name + ".json"
    accept("prior", name, "-o", text)
    accept("search-lambda", "in.h5", "--source-prior", text, "-o", f"{name}.c.json")
    assert accept("evaluate", "in.h5", "-c", f"{name}.c.json")["lambda"] is not None
    state = name + ".unoic"
    whole = accept("evaluate", name, "--by", "file", "--state", state)
    os.rename(name, "elsewhere.h5")
    assert accept("report", state) == whole  # names in a state are split as they were


def test_groups_of_files_with_colons(accept, refuse):
    make("run::1.h5", group="a")
    make("run::1.h5", n=9, group="b/c")
    make("run", n=6, group="1.h5")
    assert accept("evaluate", "run::1.h5::a")["n"] == 12
    assert accept("evaluate", "run::1.h5::b/c")["n"] == 9
    os.remove("run::1.h5")
    assert accept("evaluate", "run::1.h5")["n"] == 6
    os.mkdir("d::e")
    make("d::e/1.h5", group="g")
    assert accept("evaluate", "d::e/*.h5::g")["n"] == 12
    assert refuse(NO_INPUT, "evaluate", "d::e/2.h5::g").startswith("d::e/2.h5: no such file")


@pytest.mark.parametrize("name", ["uniform", "labels", "mean-posterior", "1,2,3"])
def test_outputs_that_would_be_read_as_a_word(name, accept, refuse):
    make("in.h5")
    assert f"expected ./{name}" in refuse(USAGE, "prior", "in.h5", "-o", name)
    accept("prior", "in.h5", "-o", f"./{name}")
    assert accept("evaluate", "in.h5", "-l", "1", "--source-prior", f"./{name}")["n"] == 12
    for word in ("none", "fit"):
        assert f"expected ./{word}" in refuse(USAGE, "fit-delta", "in.h5", "-o", word)


# ------------------------------------------------------------------------------------------------
# what else lies in the files


@pytest.mark.parametrize("suffix", ["h5", "parquet", "arrows"])
def test_what_is_not_carried_over_is_said(suffix, run):
    """The user's own columns and datasets are in no output, and a note names them; ours are no news."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    logits = RNG.normal(size=(12, 3)).astype("f4")
    if suffix == "h5":
        make("in.h5")
        with h5py.File("in.h5", "a") as file:
            file["path"], file["epoch"] = [b"a"] * 12, np.arange(12)
            file["source_counts"], file["split"] = [3, 2, 1], [b"a"] * 12
            file.create_group("more")["x"] = 1
            file["away"] = h5py.ExternalLink("other.h5", "/x")
    else:
        columns = {f"logits_{k}": logits[:, k] for k in range(3)} | {"label": np.arange(12) % 3, "split": ["a"] * 12}
        table = pa.table(columns | {"path": ["a"] * 12, "epoch": np.arange(12)})
        if suffix == "parquet":
            pq.write_table(table, "in.parquet")
        else:
            with pa.ipc.new_stream("in.arrows", table.schema) as writer:
                writer.write_table(table)
    name, options = f"in.{suffix}", ("-l", "1", "--source-prior", "3,2,1")
    calls = [("calibrate", name, *options, "-o", "o.h5"), ("convert", name, "o2.h5"), ("pack", name, "o3.h5")]
    calls.append(("fuse", f"a={name}", "b=in2.h5", "-o", "o4.h5"))
    make("in2.h5")
    for call in calls:
        code, _, err = run(*call)
        said = [line for line in err.splitlines() if "not carried over" in line or "not used" in line]
        assert code == 0 and len(said) == 1, err
        assert ("path, epoch" in said[0] or "epoch, path" in said[0]) and "split" not in said[0]
        assert "more" not in said[0] and "away" not in said[0]
    assert "not carried over" not in run("calibrate", "in2.h5", *options, "-o", "plain.h5")[2]
