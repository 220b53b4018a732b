"""The functions as Python users call them: arrays, near misses of names, wrong types, and what results look like."""

from __future__ import annotations

import ast
import collections
import contextlib
import inspect
import pathlib
import re
from typing import Annotated, Any, Unpack

import numpy as np
import pytest
import typed
import typer

import unoic_cli
from unoic_cli.api import stored as runs
from unoic_cli.api.functions import command
from unoic_cli.calls import ArgumentError, annotations_of, keywords_of, public
from unoic_cli.cli import program
from unoic_cli.data.steps import Steps
from unoic_cli.errors import UnoicError, UsageError
from unoic_cli.metrics import NAMES, find, known
from unoic_cli.options import Option, filled
from unoic_cli.resolve.options import DataOptions

SPELLINGS = {one.NAME: one.ALIASES for one in known()}
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(60, 3)).astype(np.float32)
LABELS = RNG.integers(0, 3, 60)
COUNTS = np.array([50, 30, 20])
NAMED = {"cat": 30, "dog": 20, "bee": 50}
FUNCTIONS = [one for name in unoic_cli.__all__ if inspect.isfunction(one := getattr(unoic_cli, name))]


class Tensor:
    """What a tensor of another library has of an array."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __array__(self, dtype=None, copy=None):
        return self.values if dtype is None else self.values.astype(dtype)


class Series(Tensor):
    """What a series of pandas has: `value_counts` puts the most frequent first."""

    ndim = 1

    def __init__(self, table):
        super().__init__(list(table.values()))
        self.table, self.index = table, list(table)

    def __len__(self):
        return len(self.table)

    def to_dict(self):
        return dict(self.table)


class OnDevice:
    """A tensor that lies elsewhere."""

    def __array__(self, dtype=None, copy=None):
        raise TypeError("can't convert\na device tensor")


PRIORS = [
    COUNTS.tolist(), tuple(COUNTS), COUNTS.astype(np.float32), COUNTS.astype("u8")[::-1][::-1], Tensor(COUNTS),
    collections.Counter({2: 20, 0: 50, 1: 30}), {np.int64(k): v for k, v in enumerate(COUNTS)},
    {"0": 50, "1": 30, "2": 20}, Series({1: 30, 0: 50, 2: 20}), "50,30,20",
    unoic_cli.Prior.from_weights([50, 30, 20], "given", counts=True),
]  # fmt: skip


@pytest.mark.parametrize("given", PRIORS, ids=lambda given: type(given).__name__)
@pytest.mark.parametrize("scores", [LOGITS, {"rgb": LOGITS, "depth": LOGITS[:, ::-1]}], ids=["one", "two"])
def test_priors_as_people_have_them(given, scores):
    """One modality or several, source or target, search or counting: the same as the list."""
    right = unoic_cli.evaluate(scores, LABELS, lam=0.7, source_prior=[50, 30, 20], target_prior="uniform")
    found = unoic_cli.evaluate(scores, LABELS, lam=0.7, source_prior=given)
    assert (found.overall.counts.hits == right.overall.counts.hits).all()
    assert unoic_cli.evaluate(scores, LABELS, lam=0.7, source_prior=given, target_prior=given).lam == 0.7
    assert unoic_cli.search_lambda(scores, LABELS, source_prior=given, range=(0, 1, 0.5)).lams.tolist() == [0, 0.5, 1]


@pytest.mark.parametrize("make", [list, tuple, np.array, Tensor], ids=["list", "tuple", "array", "tensor"])
def test_counts_weights_and_factors(make):
    two = {"rgb": LOGITS, "depth": LOGITS[:, ::-1]}
    by_modality = {"rgb": make([50, 30, 20]), "depth": make([20, 30, 50])}
    arguments = {"fusion": "average", "order": "flatten-first", "by": None}
    found = unoic_cli.evaluate(
        two, LABELS, lam=np.float32(0.5), source_prior=by_modality, weights=make([2, 1]),
        delta={"rgb": np.full(60, 0.5), "depth": np.full(60, 2.0)}, temperature={"rgb": np.float64(2), "depth": 1},
        ignore_index=make([255]), threads=np.int64(1), **arguments,
    )  # fmt: skip
    plain = unoic_cli.evaluate(
        two, LABELS, lam=0.5, source_prior={"rgb": [50, 30, 20], "depth": [20, 30, 50]}, weights="rgb=2,depth=1",
        delta={"rgb": np.full(60, 0.5), "depth": np.full(60, 2.0)}, temperature="rgb=2,depth=1", **arguments,
    )  # fmt: skip
    assert (found.overall.counts.hits == plain.overall.counts.hits).all()
    source = unoic_cli.from_arrays(Tensor(LOGITS), make(LABELS.tolist()), source_counts=make([50, 30, 20]))
    assert source.source_counts == (50, 30, 20)


def test_counts_by_class_name():
    names = np.array(["bee", "cat", "dog"])
    source = unoic_cli.from_arrays(LOGITS, LABELS, source_counts=NAMED, class_names=names)
    assert source.source_counts == (50, 30, 20)
    found = unoic_cli.search_lambda(source, source_prior=Series(NAMED))
    assert found.calibration.source_prior.counts == (50, 30, 20)
    with pytest.raises(UnoicError, match="classes cat, fox"):
        unoic_cli.search_lambda(source, source_prior={"cat": 1, "fox": 2, "dog": 3})


@pytest.mark.parametrize(
    "given, step",
    [((0, 2), None), ([0, 2, 0.01], None), (np.array([0, 2]), None), ("0:2", np.float64(0.01)), ((0, 2), "0.01")],
)
def test_ranges(given, step):
    assert unoic_cli.search_lambda(LOGITS, LABELS, source_prior=COUNTS, range=given, step=step).lams.size == 201


@pytest.mark.parametrize("given", [2, (0,), (0, 1, 2, 3), (0, "x"), {"a": 1}, np.zeros((2, 2)), (0, None)])
def test_what_is_no_range(given):
    with pytest.raises(UsageError, match=r"--range: .*; expected") as caught:
        unoic_cli.search_lambda(LOGITS, LABELS, source_prior=COUNTS, range=given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, near",
    [
        ("source_priors", "source_prior"),
        ("train_counts", "source_prior"),
        ("lambda_", "lam"),
        ("Fold", "folds"),
        ("thread", "threads"),
        ("ignore_idx", "ignore_index"),
    ],
)
def test_a_misspelt_keyword_names_the_near_one(name, near):
    function = unoic_cli.evaluate if near == "lam" else unoic_cli.search_lambda
    with pytest.raises(TypeError, match=f"^{name}: no argument of {function.__name__}; did you mean {near}\\?$"):
        function(LOGITS, LABELS, **{name: 1})
    if near not in ("source_prior", "folds"):
        with pytest.raises(UnoicError, match=f"did you mean {near}"):
            unoic_cli.run("evaluate", LOGITS, labels=LABELS, **{name: 1})


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda one: one.__name__)
def test_every_function_knows_its_keywords(function):
    if "**" in annotations_of(function):
        return  # run and report_states hand them on
    with pytest.raises(ArgumentError, match=r"^nonsense_: no argument of "):
        function(nonsense_=1)
    if all(one.kind is one.KEYWORD_ONLY for one in inspect.signature(function).parameters.values()):
        return  # it needs none
    with pytest.raises(ArgumentError, match="missing a required argument") as caught:
        function()
    assert "\n" not in str(caught.value)


BAD = {"bool": "yes", "int": 2.5, "float": "much", "str": 3, "Absent": 3, "Sequence[int]": "255"}


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda one: one.__name__)
def test_wrong_types_are_named(function):
    """Each keyword whose annotation is one type refuses another, and an array is never asked whether it is true."""
    known = annotations_of(function)
    needed = [one.name for one in inspect.signature(function).parameters.values() if one.default is one.empty]
    first = dict.fromkeys(needed, "missing.h5")
    first.pop("options", None)
    for name, annotation in known.items():
        kinds = set(annotation.split(" | ")) - {"None"}
        if len(kinds) == 1 and (bad := BAD.get(next(iter(kinds)))) is not None and name not in needed:
            for value in (bad, np.zeros((2, 2))):
                with pytest.raises(ArgumentError, match=f"^{name}: .*; expected "):
                    function(**first, **{name: value})


@pytest.mark.parametrize("name", ["source_prior", "target_prior", "delta", "weights", "temperature", "lam", "split"])
def test_nonsense_is_one_line(name):
    two = {"rgb": LOGITS, "depth": LOGITS}
    for value in (np.zeros((2, 3)), 3 + 4j, object(), {1, 2}, b"x", [[1], [2, 3]], ["a", 1], OnDevice(), np.str_("?")):
        arguments = {"lam": 0.5, "source_prior": COUNTS, "fusion": "average", name: value}
        with pytest.raises(UnoicError) as caught:
            unoic_cli.evaluate(two, LABELS, **arguments)
        assert "\n" not in str(caught.value)


def test_arrays_that_are_none():
    for scores in (OnDevice(), [[1.0, 2.0], [3.0]], "abc", 3, None):
        with pytest.raises(UnoicError) as caught:
            unoic_cli.evaluate(scores, LABELS)
        assert "\n" not in str(caught.value)


def test_paths_and_iterators(tmp_path):
    output = tmp_path / "out.h5"
    made = unoic_cli.calibrate(LOGITS, LABELS, lam=1, source_prior=COUNTS, output=output)
    assert made.output == str(output)
    assert unoic_cli.prior(tmp_path.glob("*.h5")).n == 60
    unoic_cli.prior([output], output=tmp_path / "prior.json")
    found = unoic_cli.search_lambda(LOGITS, LABELS, source_prior=pathlib.Path(tmp_path / "prior.json"))
    assert found.calibration.source_prior.counts == tuple(np.bincount(LABELS))


def test_zero_is_said_in_a_stored_run(tmp_path):
    """A state keeps lambda = 0, which is not the same as none."""
    made = unoic_cli.calibrate(LOGITS, LABELS, lam=0, source_prior=COUNTS, output=tmp_path / "out.h5")
    state = tmp_path / "x.unoic"
    direct = unoic_cli.run(
        "evaluate", made.output, lam=0, source_prior=COUNTS, control=unoic_cli.Control(state=str(state))
    )
    assert unoic_cli.report_states([state])[1].to_dict() == direct.to_dict()


def test_what_types_tell_is_refused_in_one_line_too():
    """Calls that mypy reports; those that it does not are fine."""
    tree = ast.parse(inspect.getsource(typed.bad))
    calls = [
        line.value for line in tree.body[0].body if isinstance(line, ast.Expr) and isinstance(line.value, ast.Call)
    ]
    assert len(calls) == inspect.getsource(typed.bad).count("type: ignore[") > 5
    for call in calls:
        with pytest.raises(UnoicError) as caught:
            eval(compile(ast.Expression(call), "typed.py", "eval"), vars(typed))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda one: one.__name__)
def test_options_are_described(function):
    """What a TypedDict says of an option is what help() says of the keyword, in the words of Python."""
    text, parameters = inspect.getdoc(function), inspect.signature(function).parameters
    for name, keyword in keywords_of(function).items():
        assert parameters[name].default == keyword.default
        described = re.search(rf"^{name} : .*(\n    .*)+", text, re.MULTILINE)[0]
        assert not re.search(r"(?<!\w)--?[a-z]", described)
        assert keyword.option.help.split()[0] in described


class FewOptions(DataOptions, total=False):
    """Options of a command that is none yet."""

    most: Annotated[int, Option("--most -m", "N", "Stop after N files; see --split.", default=3)]


def few(inputs: Any, **options: Unpack[FewOptions]) -> Steps[tuple[Any, ...]]:
    """Look at few files.

    Parameters
    ----------
    inputs : paths
    **options : Unpack[FewOptions]
        See `FewOptions`.

    Returns
    -------
    tuple
    """
    yield from ()
    chosen = filled(FewOptions, options)
    return inputs[: chosen["most"]], chosen["split"]


def test_an_option_is_said_once(capsys):
    """Its declaration and the line that uses it are all that it takes: for Python, the shell, help and stored runs."""
    function, shown = command(few), []
    assert function("abcde") == ("abc", None) and function("abcde", most=np.int8(2), split="val") == ("ab", "val")
    assert inspect.signature(function).parameters["most"].default == 3
    assert "most : int, default 3\n    Stop after N files; see split.\n" in function.__doc__
    with pytest.raises(ArgumentError, match=r"^moist: no argument of few; did you mean most\?$"):
        function("abcde", moist=2)
    with pytest.raises(ArgumentError, match=r"^most: 'two'; expected a whole number$"):
        function("abcde", most="two")
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(program.command(FewOptions, program.FILES, help="Few.")(lambda **given: shown.append(given)))
    for words in (["a", "b", "-m", "1"], ["a"]):
        app(words, standalone_mode=False)
    assert [(given["files"], given["most"], given["split"]) for given in shown] == [
        (["a", "b"], 1, None),
        (["a"], 3, None),
    ]
    app(["--help"], standalone_mode=False)
    assert re.search(r"--most +N +Stop after N files; see --split. +\[default:\s+3\]", capsys.readouterr().out)
    stored = runs._configuration("x.h5", {"most": 2, "threads": 1}, keywords_of(few))
    assert stored == {"inputs": "x.h5", "most": 2}


def test_no_option_is_said_twice():
    """One text stands in one place; what the parser is told is made there, too."""
    calls = [
        ast.unparse(node)
        for path in pathlib.Path(unoic_cli.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("Option", "typer.Option")
    ]
    assert len(calls) > 50 and not [text for text, times in collections.Counter(calls).items() if times > 1]
    assert sum(text.startswith("typer.") for text in calls) == 2  # of any option, and --version


def test_signatures_stay():
    @public
    def function(inputs: str, *, folds: int | None = None) -> None: ...

    assert list(inspect.signature(function).parameters) == ["inputs", "folds"]


def test_names_of_the_package():
    assert set(unoic_cli.__all__) <= set(dir(unoic_cli))
    more = {name for name in dir(unoic_cli) if not name.startswith("__")} - set(unoic_cli.__all__)
    assert more == {"plots"} and all(hasattr(unoic_cli, name) for name in dir(unoic_cli))
    with pytest.raises(AttributeError, match="did you mean search_lambda"):
        _ = unoic_cli.serach_lambda
    with pytest.raises(AttributeError, match="no attribute '_private'"):
        _ = unoic_cli._private


def test_results_are_shown_in_a_handful_of_lines(tmp_path):
    logits, names = RNG.normal(size=(600, 200)).astype(np.float32), [f"class {k}" for k in range(200)]
    labels, counts = RNG.integers(0, 200, 600), np.arange(1, 201)
    source = unoic_cli.from_arrays(logits, labels, source_counts=counts, class_names=names)
    two = {"rgb": logits, "depth": logits}
    made = [
        source,
        unoic_cli.search_lambda(source, folds=3, range=(0, 1, 0.1)),
        unoic_cli.evaluate(source, lam=1, confusion=True),
        unoic_cli.calibrate(source, lam=1, output=tmp_path / "out.h5"),
        unoic_cli.fit_temperature(source),
        unoic_cli.fit_delta(logits),
        unoic_cli.prior(source),
        unoic_cli.compare(two, labels),
        unoic_cli.info(tmp_path / "out.h5"),
    ]
    made += [made[1].calibration, made[1].folds, made[1].counts, made[2].overall, made[1].calibration.source_prior]
    for one in made:
        lines = repr(one).splitlines()
        assert len(lines) <= 8 and max(map(len, lines)) <= 220, repr(one)
        assert any(kind.__name__ in lines[0] for kind in type(one).__mro__[:-1])  # a source of any format
    assert "logits (600, 200)" in repr(source) and "labels" in repr(source) and "'class 0'" in repr(source)
    assert f"lam={made[1].lam:.5g}" in repr(made[1]) and "'macc'" in repr(made[1])


@pytest.mark.parametrize("own", NAMES)
def test_other_names_of_metrics(own):
    for name in (own, *SPELLINGS[own]):
        for text in (name, name.upper(), name.replace(" ", "_"), name.replace(" ", "-"), name.replace(" ", "")):
            assert find(text, "--metric").name == own
    found = unoic_cli.search_lambda(LOGITS, LABELS, source_prior=COUNTS, metric=SPELLINGS[own][0])
    assert found.metric == own and own in found.best


def test_other_names_of_metrics_everywhere(answer, refuse, tmp_path):
    made = unoic_cli.calibrate(LOGITS, LABELS, lam=0, source_prior=COUNTS, output=tmp_path / "out.h5")
    options = ("--source-prior", "50,30,20")
    found = answer("search-lambda", made.output, *options, "--metric", "Top-2")
    assert found["metric"] == "top2" and "top2" in found["best"]
    found = answer("search-lambda", made.output, *options, "--subject-to", "balanced-accuracy>=0.1 and mean_iou<=0.9")
    assert found["subject_to"] == "balanced-accuracy>=0.1 and mean_iou<=0.9"
    assert unoic_cli.compare(LOGITS, LABELS, methods={"x": found["calibration"]}, metrics="mAcc,mIoU").metrics == (
        "macc",
        "miou",
    )
    line = refuse(2, "search-lambda", made.output, *options, "--metric", "balanced_acuracy")
    assert "did you mean macc? expected one of acc, macc, miou, f1, topN" in line
    assert "did you mean" not in refuse(2, "search-lambda", made.output, *options, "--metric", "zzz")


def test_the_shell_takes_the_sign(refuse, tmp_path, monkeypatch, capfd):
    line = refuse(2, "search-lambda", "val.h5", "--subject-to", "acc")
    assert line.startswith("--subject-to: 'acc', which compares nothing") and "--subject-to 'acc>=0.8'" in line
    import os

    from unoic_cli import cli

    monkeypatch.chdir(tmp_path)
    saved = os.dup(1)
    try:
        with open("=0.8", "w") as file:
            os.dup2(file.fileno(), 1)
            assert cli.run(["search-lambda", "val.h5", "--subject-to", "acc"]) == 2
    finally:
        os.dup2(saved, 1)
        os.close(saved)
    assert "'=0.8'" in capfd.readouterr().err
    with pytest.raises(UsageError, match="quoted for the shell"):
        unoic_cli.search_lambda(LOGITS, LABELS, source_prior=COUNTS, subject_to="acc")


def test_a_result_stands_for_its_calibration():
    found = unoic_cli.search_lambda(LOGITS, LABELS, source_prior=COUNTS)
    for given in (found, found.calibration, found.calibration.to_dict()):
        assert unoic_cli.evaluate(LOGITS, LABELS, calibration=given).lam == found.lam
        assert unoic_cli.compare(LOGITS, LABELS, methods={"it": given}).rows[-1].name == "it"
        assert unoic_cli.fit_temperature(LOGITS, LABELS, calibration=given).lam_before == found.lam
    for given in (3, [found]):
        with pytest.raises(UsageError, match="expected a calibration"):
            unoic_cli.evaluate(LOGITS, LABELS, calibration=given)


def test_runs_of_what_is_none():
    for arguments, said in [
        ({"command": "evaluat"}, "did you mean evaluate"),
        ({"command": "evaluate", "control": {"shard": "1/2"}}, "control: a dict"),
        ({"command": "evaluate", "absent": None}, "absent: None; expected a value"),
    ]:
        with pytest.raises(ArgumentError, match=said):
            unoic_cli.run(inputs=LOGITS, labels=LABELS, **arguments)


PROBS = RNG.dirichlet([1, 1, 1], 60).astype(np.float32)


def test_probabilities_in_memory_are_refused_for_what_they_are():
    for scores, said in [
        (PROBS, "values in [0, 1] whose rows sum to 1"),
        (PROBS[:, 1], "one value of each unit, all in"),
    ]:
        with pytest.raises(UnoicError) as caught:
            unoic_cli.evaluate(scores, np.minimum(LABELS, scores.ndim))
        assert said in str(caught.value) and 'kind="probs"' in str(caught.value)
        assert ("sum to 1" in str(caught.value)) == (scores.ndim == 2)


def test_advice_for_arrays_is_a_call():
    found = unoic_cli.evaluate(unoic_cli.from_arrays(PROBS, LABELS))
    assert any('if so: from_arrays(..., kind="probs")' in note for note in found.notes)
    found = unoic_cli.evaluate(unoic_cli.from_arrays(2 + PROBS, LABELS, kind="probs", name="mine"))
    assert any('if they are logits: from_arrays(..., kind="logits")' in note for note in found.notes)
    for scores, kind in [(PROBS, "logits"), (2 + PROBS, "probs"), (LOGITS, "logits")]:
        seen = unoic_cli.info(unoic_cli.from_arrays(scores, LABELS, kind=kind)).files[0]
        assert not any("unoic " in text for text in (*seen.warnings, *seen.next))


def test_info_of_what_is_in_memory():
    source = unoic_cli.from_arrays(LOGITS, LABELS, split=["val"] * 60)
    by_array, by_source = (unoic_cli.info(*given).files[0] for given in [(LOGITS, LABELS), (source,)])
    for seen in (by_array, by_source, unoic_cli.info([source]).files[0]):
        assert seen.labels.counts == tuple(np.bincount(LABELS)) and seen.values.look == "logits"
        assert seen.n_bytes >= LOGITS.nbytes
    assert unoic_cli.info(LOGITS[:, 0]).files[0].n_classes == 2
    assert unoic_cli.info(LOGITS.reshape(5, 3, 2, 6), class_axis=1).files[0].axes == "NCHW"
    for given, options, said in [
        ([], {}, "FILES: no input"),
        ({"rgb": source}, {}, "inputs: a mapping"),
        (source, {"labels": LABELS}, "labels beside files"),
        (source, {"class_axis": 1}, "--class-axis: given, but the input is described already"),
        (LOGITS, {"logits_key": "x"}, "--logits-key: given, but the input is an array in memory"),
        (LOGITS, {"split": "val"}, "no split, but --split val"),
    ]:
        with pytest.raises(UnoicError, match=said):
            unoic_cli.info(given, **options)


def test_an_axis_beside_what_is_described_is_refused():
    source = unoic_cli.from_arrays(LOGITS, LABELS)
    for given in (source, [source], {"rgb": source, "depth": [source]}):
        with pytest.raises(UsageError, match="--class-axis: given, but <array> is described already"):
            unoic_cli.evaluate(given, class_axis=-1)
    assert unoic_cli.evaluate(LOGITS, LABELS, class_axis=1).overall.n == 60


NO_INPUT = [None, 3, object(), b"x", np.float32(3), [None], [object()], {"a": None}, pathlib.Path("missing.h5"), ""]
NO_INPUT += [LOGITS, unoic_cli.from_arrays(LOGITS), [unoic_cli.from_arrays(LOGITS)], {3: LOGITS}, [], {}]


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda one: one.__name__)
def test_whatever_is_given_ends_with_a_result_or_one_line(function, tmp_path):
    """No exception of another library, or of Python itself."""
    parameters = inspect.signature(function).parameters.values()
    needed = [one.name for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD]
    usual = dict.fromkeys(needed, "missing.h5")
    usual |= {name: str(tmp_path / "o.h5") for name in ("output", "out") if name in needed}
    usual |= {"command": "evaluate"} if "command" in needed else {}
    for name in needed:
        for value in NO_INPUT:
            with contextlib.suppress(UnoicError):
                function(**{**usual, name: value})


@pytest.mark.parametrize("given", [3, None, object(), [3], [None], {3: 4}, LOGITS])
def test_names_that_are_no_texts(given):
    for call in (
        lambda: unoic_cli.merge_states(given, "o.unoic"),
        lambda: unoic_cli.report_states(given),
        lambda: unoic_cli.compare(LOGITS, LABELS, metrics=given),
        lambda: unoic_cli.compare(LOGITS, LABELS, methods=3 if given is None else given),
    ):
        with pytest.raises(UnoicError) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_one_name_is_a_list_of_one(tmp_path):
    for given in ("missing.unoic", pathlib.Path("missing.unoic"), iter(["missing.unoic"])):
        with pytest.raises(UnoicError, match=r"^missing\.unoic: no such file"):
            unoic_cli.report_states(given)
