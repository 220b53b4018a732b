"""The terminal: help in panels, what TAB completes, curves, what comes next."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import pty
import re
import shlex
import subprocess
import sys
import tomllib

import forked
import numpy as np
import pytest
from rich.console import Console
from test_cli import command, in_terminal, sample, write_h5

from unoic_cli import cli
from unoic_cli.cli import completing, helping
from unoic_cli.commands.demo import COMMANDS, DATA, SAMPLE
from unoic_cli.options import PANELS
from unoic_cli.report.curve import Drawn

SAMPLES = pathlib.Path(__file__).resolve().parents[1] / "sample_data"


# ------------------------------------------------------------------------------------------------
# help


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", [None, *cli.COMMANDS])
def test_help_fits_and_cuts_nothing(name, width, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    words = () if name is None else (name,)
    code, out, err = run(*words, "--help")
    assert (code, err, out.startswith("Example: unoic ")) == (0, "", True)
    assert max(map(len, out.splitlines())) <= width
    assert "\x1b" not in out
    flat = " ".join(out.split())
    for other, summary in cli.COMMANDS.items() if name is None else [(name, cli.COMMANDS[name])]:
        assert " ".join(summary.split()) in flat, other


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_all_options_are_explained_or_named(name, run):
    _, short, _ = run(name, "--help")
    code, every, _ = run(name, "--help-all")
    made = cli.load(name)
    assert code == 0
    assert "Rarely used" not in every
    for one in made.params:
        for flag in getattr(one, "opts", ()) if one.param_type_name == "option" else ():
            assert flag in every.split() or f"{flag}," in every.split()
            assert flag in short
        record = " ".join((one.help or "").split())
        assert (record in " ".join(short.split())) == (one.name not in made.rare), one.name
        assert record in " ".join(every.split())
    assert made.rare <= {one.name for one in made.params}
    heads = [line[:-1] for line in every.splitlines() if line.endswith(":") and line[:-1] in PANELS]
    assert heads == [panel for panel in PANELS if panel in heads]


def test_help_is_coloured_where_that_is_wanted(tmp_path):
    code, shown, _ = in_terminal("evaluate", "--help", env={"TERM": "xterm-256color", "NO_COLOR": ""})
    assert (code, "\x1b[1mMethod:\x1b[0m" in shown) == (0, True)
    for env in ({"TERM": "xterm", "NO_COLOR": "1"}, {"TERM": "dumb", "NO_COLOR": ""}):
        code, shown, _ = in_terminal("evaluate", "--help", env=env)
        assert (code, "\x1b" in shown, "\nMethod:" in shown.replace("\r", "")) == (0, False, True)


def test_examples_can_be_copied():
    text = "unoic compare a.h5 b.h5 -m average --by file"
    lines = helping.copied(text, 24)
    assert " ".join("\n".join(lines).replace("\\\n", "").split()) == text
    assert [line.strip(" \\") for line in lines] == ["unoic compare a.h5", "b.h5 -m average", "--by file"]


# ------------------------------------------------------------------------------------------------
# completion, as a shell asks for it


def asked(shell, line, **more):
    """What a shell gets: exit code, and words."""
    words = line.split(" ")
    env = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_TYPER_COMPLETE_ARGS": line}
    done = command(env=os.environ | env | {completing.VARIABLE: f"complete_{shell}"} | more)
    assert done.stderr == ""
    return done.returncode, done.stdout.split("\n")[:-1]


def test_the_table_is_current():
    stored = completing.PATH.read_text(encoding="utf-8")
    wanted = completing.made({name: cli.load(name) for name in cli.COMMANDS})
    assert stored == wanted, "run python docs/make_cli.py"


def test_a_shell_completes_commands_options_and_values():
    code, words = asked("bash", "unoic ")
    assert (code, words) == (0, list(cli.COMMANDS))
    assert asked("bash", "unoic search-lambda val.h5 --met") == (0, ["--metric", "--method", "--metrics"])
    assert asked("bash", "unoic search-lambda val.h5 --metric m")[1][0] == "macc"
    assert asked("bash", "unoic evaluate --order ") == (0, ["flatten-first", "rebalance-first"])
    assert asked("bash", "unoic evaluate --kind = l") == (0, ["logits", "log_probs"])
    assert asked("bash", "unoic calibrate --emit p") == (0, ["probs", "predictions"])
    assert asked("bash", "unoic evaluate --fusion no") == (0, ["noisy-or"])
    assert asked("bash", "unoic plot cu") == (0, ["curve"])
    assert asked("bash", "unoic evaluate val.h5 --calibration ") == (0, [""])  # files, by the shell itself
    code, words = asked("fish", "unoic evaluate --spl", _TYPER_COMPLETE_FISH_ACTION="get-args")
    assert (code, words) == (0, ["--split\tOnly the samples of this split"])
    assert [asked("fish", f"unoic {line}", _TYPER_COMPLETE_FISH_ACTION="is-args")[0] for line in ("ev", "info ")] == [
        0,
        1,
    ]
    code, words = asked("zsh", "unoic evaluate --kind ")
    assert (code, "\n".join(words)) == (0, '_arguments \'*: :(("logits"\n"log_probs"\n"probs"))\'')


def test_splits_are_those_of_the_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    scores, labels = sample()
    write_h5("rows.h5", scores, labels, split=["val", "test", "train"] * 30)
    pathlib.Path("x.h5").write_text("no file of ours")
    assert asked("bash", "unoic evaluate rows.h5 --split t") == (0, ["test", "train"])
    assert asked("bash", "unoic evaluate rgb=rows.h5 x.h5 - s3://a/b --split ") == (0, ["val", "test", "train"])
    assert asked("bash", "unoic evaluate x.h5 --split ") == (0, [""])


def test_completion_loads_no_library():
    code = "import sys; from unoic_cli import cli; cli.run([]); print([n for n in {!r} if n in sys.modules])"
    heavy = ("numba", "h5py", "pyarrow", "numpy", "rich")
    for shell, line in (("bash", "unoic evaluate --metric"), ("zsh", "unoic evaluate --order ")):
        env = {"COMP_WORDS": line, "COMP_CWORD": "2", "_TYPER_COMPLETE_ARGS": line}
        env[completing.VARIABLE] = f"complete_{shell}"
        shown = subprocess.run(
            [sys.executable, "-c", code.format(heavy)], capture_output=True, text=True, env=os.environ | env, check=True
        )
        assert shown.stdout.splitlines()[-1] == "[]"


def test_completion_is_shown():
    done = command("--show-completion", "bash", env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "complete -o default -F _unoic_completion unoic" in done.stdout


# ------------------------------------------------------------------------------------------------
# curves


def drawn(width, encoding="utf-8", **more):
    lams = np.linspace(0, 6, 601)
    values = np.minimum(lams, 6 - lams) if "values" not in more else more.pop("values")
    curve = Drawn(
        lams, values, ("0.00", "3.00"), **{"choice": 3.0, "interval": (2.0, 4.0), "meaning": "as good"} | more
    )
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=out, width=width).print(curve)
    out.seek(0)
    return out.read().splitlines()


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_curve_is_right_at_every_width(width, encoding):
    lines = drawn(width, encoding)
    assert max(map(len, lines)) <= width and not [line for line in lines if line != line.rstrip()]
    plot, floor, marks, ticks, said = lines[:8], lines[8], lines[9], lines[10], " ".join(lines[11:])
    assert plot[0].startswith("3.00 ") and plot[-1].startswith("0.00 ")
    room = 6
    cells = [line[room:].ljust(len(floor) - room) for line in plot]
    middle = (len(floor) - room - 1) / 2
    tops = [x for x, cell in enumerate(cells[0]) if cell != " "]
    assert abs(np.mean(tops) - middle) <= 1 and len(tops) < 20
    assert cells[-1][0] != " " and cells[-1][-1] != " " and cells[-1][round(middle)] == " "
    assert all(any(row[x] != " " for row in cells) for x in range(len(floor) - room))
    choice, mark = ("▲", "━") if encoding == "utf-8" else ("^", "=")
    assert abs(marks.index(choice) - room - middle) <= 1
    assert (
        abs(marks.index(mark) - room - 2 * middle * 2 / 6) <= 1
        and abs(marks.rindex(mark) - room - 2 * middle * 4 / 6) <= 1
    )
    assert ticks.split() == ["0", "1", "2", "3", "4", "5", "6"]
    tick = "┬" if encoding == "utf-8" else "+"
    assert [x for x, c in enumerate(floor) if c == tick] == [x for x, c in enumerate(ticks) if c != " "]
    assert said == f"{choice} lambda 3; {mark} 2 to 4: as good"


def test_curves_of_little_or_flat():
    flat = drawn(60, values=np.ones(601), interval=(3.0, 3.0))
    assert flat[-1] == "▲ lambda 3" and all("▄" not in line for line in flat[:7])
    holes = np.full(601, np.nan)
    holes[[0, 600]] = 0.0, 1.0
    lines = drawn(60, values=holes)
    assert sum(c in "▀▄█" for line in lines[:8] for c in line) == 2


def test_a_terminal_that_cannot_print_blocks(tmp_path):
    words = ("search-lambda", SAMPLES / "digits_lt" / "val.h5", "--format", "table")
    done = command(*words, env=os.environ | {"PYTHONIOENCODING": "ascii", "COLUMNS": "80"})
    assert (done.returncode, done.stdout.isascii(), "?" in done.stdout) == (0, True, False)
    assert "^ lambda 1.05; = 1 to 1.27: as good as the best within one standard error" in done.stdout


# ------------------------------------------------------------------------------------------------
# what comes next, and the demo


def in_two_terminals(*words, cwd, plain=True):
    """With stdout and stderr on a pseudo-terminal: what both show."""
    main, other = pty.openpty()
    process = forked.Popen(
        [sys.executable, "-m", "unoic_cli", *map(str, words)], stdout=other, stderr=other, cwd=cwd,
        env=os.environ | {"COLUMNS": "80"} | ({"NO_COLOR": "1"} if plain else {"TERM": "xterm-256color"}),
    )  # fmt: skip
    os.close(other)
    shown = b""
    with contextlib.suppress(OSError):  # the other end was closed
        while piece := os.read(main, 65536):
            shown += piece
    os.close(main)
    assert process.wait(60) == 0
    return shown.decode().replace("\r", "")


def test_a_search_says_what_comes_next(tmp_path):
    for name in ("val.h5", "test.h5"):
        (tmp_path / name).write_bytes((SAMPLES / "digits_lt" / name).read_bytes())
    shown = in_two_terminals("search-lambda", "val.h5", "--metric", "miou", cwd=tmp_path).splitlines()
    again = shown[-2].removeprefix("next: ")
    assert again == "unoic search-lambda val.h5 --metric miou -o calibration.json --page page.html"
    shown = in_two_terminals(*shlex.split(again)[1:], cwd=tmp_path).splitlines()
    for line in (shown[-2].removeprefix("next: "), shown[-1]):
        words = shlex.split(line, comments=True)
        assert words[:5] == ["unoic", words[1], "test.h5", "-c", "calibration.json"]
        assert command(*words[1:], cwd=tmp_path).returncode == 0
    assert all((tmp_path / name).exists() for name in ("calibrated.h5", "page.html", "evaluate.html"))
    words = ("search-lambda", "val.h5", "--page", "own.html", "--curve", "c.tsv", "--range", "0:1")
    again = in_two_terminals(*words, cwd=tmp_path).splitlines()[-2].removeprefix("next: ")
    assert again == f"unoic {shlex.join(words)} -o calibration.json --force"
    quiet = in_two_terminals("search-lambda", "val.h5", "-q", cwd=tmp_path)
    assert "next: " not in quiet and "next: " not in command("search-lambda", "val.h5", cwd=tmp_path).stderr


def test_what_comes_next_names_another_split(tmp_path):
    scores, labels = sample()
    write_h5(str(tmp_path / "rows.h5"), scores, labels, source_counts=[7, 2, 1], split=["val", "train", "test"] * 30)
    shown = in_two_terminals("search-lambda", "rows.h5", "--split", "val", "-o", "c.json", cwd=tmp_path).splitlines()
    assert shown[-2].startswith("next: unoic evaluate rows.h5 --split test -c c.json ")
    write_h5(str(tmp_path / "all.h5"), scores, labels, source_counts=[7, 2, 1])
    shown = in_two_terminals("search-lambda", "all.h5", "-o", "d.json", cwd=tmp_path).splitlines()
    assert shown[-2].startswith("next: unoic evaluate TEST.h5 -c d.json ")


def test_the_demo_runs_what_it_says(tmp_path):
    done = command("demo", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "unoic-demo"
    said = [shlex.split(line)[1:] for line in done.stdout.splitlines() if line.startswith("$ ")]
    assert said[0] == ["cd", "unoic-demo"] and {words[0] for words in said[1:]} == {"unoic"}
    assert [words[1] for words in said[1:]] == [words[0] for words in COMMANDS if words[0] in cli.COMMANDS]
    assert {"calibration.json", "test.calibrated.h5", *SAMPLE} <= {path.name for path in folder.iterdir()}
    for words in said[1:]:
        again = command(*words[1:], "--force" if "-o" in words else "--quiet", cwd=folder)
        assert again.returncode == 0 and again.stdout.strip() in done.stdout
    assert "What to read next:" in done.stdout
    again = command("demo", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (73, "")
    assert again.stderr == "unoic: error: unoic-demo: exists; expected a new folder (-o), or --force\n"
    again = command("demo", "-o", "unoic-demo", "--force", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    (tmp_path / "file").touch()
    assert command("demo", "-o", "file/demo", cwd=tmp_path).returncode == 73


def test_the_demo_has_the_sample():
    for name in SAMPLE:
        assert (DATA / name).read_bytes() == (SAMPLES / "fashion_lt" / name).read_bytes()
    packaged = tomllib.loads((SAMPLES.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    kept = {path for pattern in packaged["unoic_cli"] for path in DATA.parent.glob(pattern)}
    assert kept >= {DATA / name for name in SAMPLE} | {completing.PATH}


def test_gains_are_green_and_losses_red(tmp_path):
    """What is surely worse has a colour of its own, in every table of changes."""
    (tmp_path / "val.h5").write_bytes((SAMPLES / "digits_lt" / "val.h5").read_bytes())
    for words in (("calibrate", "val.h5", "-l", "9"), ("evaluate", "val.h5", "-l", "9")):
        shown = in_two_terminals(*words, cwd=tmp_path, plain=False)
        label = "change" if words[0] == "calibrate" else "difference"
        (line,) = [line for line in shown.splitlines() if line.startswith(label)]
        assert re.search(r"\x1b\[31m-\d", line) and not re.search(r"\x1b\[32m-", shown), line
        assert re.search(r"\x1b\[32m\+\d", shown) and not re.search(r"\x1b\[31m\+", shown.split("95 % from")[0])
