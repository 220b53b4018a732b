"""Every block of the README and the docs is run, or at least read by the parser of the command line.

Python blocks run as they are, on arrays as people have them. Of shell blocks bash makes the words (loops, variables and
patterns included), with functions in place of programs; the commands then run in this process, one after the other.
What tutorials and how-tos show of their output (``text`` after a shell block) is what comes out, but for lines of dots.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import h5py
import numpy as np
import pytest
import test_training as training

from unoic_cli import cli

sybil = pytest.importorskip("sybil", reason="pip install 'unoic[test]'")
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser  # noqa: E402  # after it is known to be there

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = sorted({*ROOT.glob("docs/**/*.md")} - {*ROOT.glob("docs/_build/**/*.md")})
PATHS = (ROOT / "README.md", *DOCS, *sorted(ROOT.glob("sample_data/*/README.md")))
PAGES = [path.relative_to(ROOT).as_posix() for path in PATHS]
SHOWING = ("docs/tutorials/", "docs/how-to/")
"""Pages that show what their commands print, as tables, of the whole sample data."""

ONLY_READ = [
    ("README.md", "pip install", "installs; the continuous integration runs these two blocks as they stand"),
    ("docs/guide.md", "s3://", "needs a bucket; tests/test_remote.py has one"),
    ("docs/guide.md", "--engine dask", "starts a cluster; tests/test_dask.py has one"),
    ("docs/clusters.md", "", "needs SLURM, GNU parallel, Snakemake or Dask; tests/test_clusters.py runs the recipes"),
    (
        "docs/training.md",
        "val.*.h5",
        "needs what ranks write; tests/test_training.py runs their recipe, and reads it so",
    ),
    ("docs/training.md", "rank*.unoic", "needs what ranks write; tests/test_training.py runs their recipe"),
    ("docs/training.md", "predicted.npz", "needs what a framework writes; tests/test_training.py runs the recipe"),
    ("docs/how-to/service.md", "--onnx", "needs a model; tests/test_onnx.py makes some"),
    ("docs/experiments.md", "experiments/runs", "needs logits that the experiments' scripts make"),
    ("docs/experiments.md", "moons.unoic", "needs what such a command writes"),
    ("docs/experiments.md", "blank.unoic", "needs what such a command writes"),
    ("docs/experiments.md", "-q --format table", "48 searches in a loop; tests/test_fusion.py has the methods small"),
]
"""(page, text, reason): commands with this text are read by the parser, and not run; nor are other programs, ever."""
KNOWN = {"python", "sh", "bash", "text", "snakemake", "json", ""}
"""Languages of blocks; ``snakemake`` is run by tests/test_clusters.py, ``text`` and ``json`` show what comes out."""

BASH = r"""
unoic() { [ "$2" != - ] || cat > /dev/null; printf '%s\0' "$BLOCK" "$#" "$@" >> "$RECORD"; }
srun() { "$@"; }
parallel() { while [ "$1" != unoic ]; do shift; done; "$@"; }
sbatch() { local a; for a in "$@"; do case $a in --wrap=*) eval "${a#--wrap=}";; esac; done; echo 1; }
dask() { echo . > cluster.json; }
for name in kill exit sleep scontrol snakemake python python3 torchrun; do eval "$name() { :; }"; done
"""


def why_not(page, command):
    """Why a command is only read; None where it is run."""
    return next((why for at, text, why in ONLY_READ if at == page and text in command), None)


def commands(blocks, folder):
    """The words of each `unoic` of the last block of a page, as bash makes them."""
    record = folder / "record"
    script = BASH + "".join(f"BLOCK={i}\n{text}\n" for i, text in enumerate(blocks))
    environment = {**os.environ, "RECORD": str(record), "SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_JOB_ID": "1"}
    record.write_bytes(b"")
    (folder / "script.sh").write_text(script)
    bash = ["bash", "--norc", "script.sh"]
    subprocess.run(bash, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    words = record.read_bytes().decode().split("\0")[:-1]
    found = []
    while words:
        block, n = int(words[0]), int(words[1])
        if block == len(blocks) - 1:
            found.append(words[2 : 2 + n])
        words = words[2 + n :]
    return found


def read(words):
    """Let the parser of the command line read a command; it runs nothing."""
    assert words and words[0] in cli.COMMANDS, f"no command: unoic {' '.join(words)}"
    cli.load(words[0]).make_context(words[0], list(words[1:]))


@contextlib.contextmanager
def streams(words, kept, monkeypatch):
    """Standard output of a command that writes a stream, and standard input of one that reads it."""
    with monkeypatch.context() as patch, contextlib.ExitStack() as stack:
        if words[-2:] == ["-o", "-"]:
            patch.setattr("sys.stdout", stack.enter_context(open(kept, "w")))
        if words[1:2] == ["-"]:
            patch.setattr("sys.stdin", stack.enter_context(open(kept, "rb")))
        yield


def arrays():
    """What people have: float32 logits and probabilities, int64 labels, counts of the training data."""
    with h5py.File(ROOT / "sample_data/digits_lt/val.h5") as file:
        logits, labels = file["logits"][()].astype(np.float32), file["labels"][()].astype(np.int64)
        train_counts = np.array(file["source_counts"][()])
    exact = np.exp(logits - logits.max(axis=1, keepdims=True))
    return {
        "np": np,
        "h5py": h5py,
        "logits": logits,
        "labels": labels,
        "train_counts": train_counts,
        "class_names": [f"digit {k}" for k in range(len(train_counts))],
        "softmax": exact / exact.sum(axis=1, keepdims=True),
        "rgb_logits": logits,
        "loader": [(logits[:100], labels[:100]), (logits[100:], labels[100:])],
        "depth_logits": logits[:, ::-1].copy()[:, ::-1] / 2,
    }


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """The sample data, of the street scenes every eighth line and column: pages run dozens of commands on them."""
    folder = tmp_path_factory.mktemp("samples")
    for name in ("digits_lt", "fashion_lt"):
        (folder / name).symlink_to(ROOT / "sample_data" / name)
    for path in sorted((ROOT / "sample_data/streets").glob("*/*.h5")):
        thinned = folder / path.relative_to(ROOT / "sample_data")
        thinned.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path) as whole, h5py.File(thinned, "w") as file:
            file.attrs.update(whole.attrs)
            for name, values in whole.items():
                file[name] = values[..., ::8, ::8] if values.ndim > 2 else values[()]
                file[name].attrs.update(values.attrs)
    return folder


def lay_out(folder, samples):
    """The files that the pages speak of."""
    (folder / "sample_data").symlink_to(samples)
    digits = ROOT / "sample_data/digits_lt"
    for name in ("out", "states", "val", "rgb", "depth"):
        (folder / name).mkdir()
    for name in ("val/1.h5", "val/2.h5", "test.h5", "target.h5", "rgb/1.h5", "depth/1.h5"):
        shutil.copy(digits / "test.h5", folder / name)
    shutil.copy(digits / "val.h5", folder / "val.h5")
    (folder / "rgb.txt").write_text("# one a line\nrgb/*.h5\n")


def as_table(words):
    """The command, asked for a table where nothing else is asked for."""
    known = {option for one in cli.load(words[0]).params for option in one.opts}
    asked = {"--format", "--torch"} & {*words} or words[-2:] == ["-o", "-"]
    return words if asked or "--format" not in known else [*words, "--format", "table"]


def left_out(shown, printed):
    """The first part of what is shown that was not printed, in its order; None where all was.

    Parts lie between lines of three dots, which stand for any lines.
    """
    lines, at = [line.rstrip() for line in printed.splitlines()], 0
    for part in re.split(r"^\.\.\.$\n?", shown, flags=re.MULTILINE):
        wanted = [line.rstrip() for line in part.splitlines()]
        places = (i for i in range(at, len(lines) - len(wanted) + 1) if lines[i : i + len(wanted)] == wanted)
        at = next(places, -1) + len(wanted)
        if at < len(wanted):
            return part
    return None


@pytest.mark.parametrize(
    "shown, found",
    [
        ("a\nb\n", None),
        ("a\n...\nd\n", None),
        ("...\nc  \n...\n", None),
        ("a\nc\n", "a\nc\n"),
        ("b\n...\na\n", "a\n"),
        ("a\n...\na\n", "a\n"),
    ],
)
def test_what_is_left_out(shown, found):
    assert left_out(shown, "a\nb\nc\nd \n") == found


@pytest.mark.parametrize("page", PAGES)
def test_blocks(page, samples, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    showing = page.startswith(SHOWING)
    if showing:
        monkeypatch.delenv("COLUMNS", raising=False)  # no line is folded
    lay_out(tmp_path, ROOT / "sample_data" if showing else samples)
    assert cli.run(["search-lambda", "val.h5", "-q", "-o", "c.json"]) == 0  # guide: "-c c.json", of a bucket
    capfd.readouterr()
    shell, printed = [], []

    def in_a_shell(example):
        shell.append(example.parsed)
        printed.clear()
        found = commands(shell, tmp_path)
        assert len(found) >= len(re.findall(r"^unoic ", example.parsed, re.MULTILINE)), example
        for words in found:
            read(words)
            text = "unoic " + " ".join(words)
            if why_not(page, text) is not None:
                continue
            with streams(words, "stream.arrows", monkeypatch):
                code = cli.run(as_table(words) if showing else words)
            out, err = capfd.readouterr()
            printed.append(err + out)
            assert code == 0, f"{page}: {text}\n{err}"

    def shown(example):
        if showing:
            missing, all_of_it = left_out(example.parsed, "".join(printed)), "".join(printed)
            assert missing is None, f"{page} shows\n{missing}\nand what is printed is\n{all_of_it}"

    parsers = [PythonCodeBlockParser(), *(CodeBlockParser(language, in_a_shell) for language in ("sh", "bash"))]
    parsers.append(CodeBlockParser("text", shown))
    document = sybil.Sybil(parsers).parse(ROOT / page)
    document.namespace.update(arrays())
    for example in document.examples():
        if page != training.PAGE or training.framework(str(example.parsed)) is None:  # those it runs, where they can be
            example.evaluate()


def text_of(page):
    return (ROOT / page).read_text(encoding="utf-8")


def test_every_block_has_a_language_that_is_known():
    for page in PAGES:
        fences = re.findall(r"^ *```(\w*)$", text_of(page), re.MULTILINE)
        assert len(fences) % 2 == 0 and set(fences) <= KNOWN, page


@pytest.mark.parametrize("page, text, reason", ONLY_READ)
def test_what_is_only_read_is_there(page, text, reason):
    blocks = re.findall(r"^ *```(?:sh|bash)\n(.*?)^ *```$", text_of(page), re.MULTILINE | re.DOTALL)
    assert reason and any(text in block for block in blocks)


def spoken():
    """Commands within sentences of the pages, and the examples of the help."""
    for page in PAGES:
        prose = re.sub(r"^ *```.*?^ *```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
        yield from ((page, " ".join(found.split())) for found in re.findall(r"`(unoic [a-z-]+ [^`]+)`", prose))
    for name in cli.COMMANDS:
        help_text = cli.load(name).help
        yield from ((name, found) for found in re.findall(r"^\s*Example: (unoic .+)$", help_text, re.MULTILINE))


@pytest.mark.parametrize("where, text", sorted(set(spoken())))
def test_commands_within_sentences(where, text):
    """Their options exist; words like FILES and dots may stand for others."""
    words = shlex.split(text, comments=True)[1:]
    words = words[: words.index("|")] if "|" in words else words
    known = {option for one in cli.load(words[0]).params for option in (*one.opts, *one.secondary_opts)}
    for word in words[1:]:
        if re.match(r"--?[a-z]", word):
            assert word.partition("=")[0] in known | {"--help"}, text
