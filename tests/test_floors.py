"""Modules import only downwards, registries are complete, and starting the program stays cheap."""

from __future__ import annotations

import ast
import builtins
import pathlib

import numpy as np
import pytest

import unoic_cli
from unoic_cli import cli, formats, fusions, searches
from unoic_cli.errors import UsageError
from unoic_cli.formats.block import LogitBlock, OutputSpec
from unoic_cli.formats.names import Asked

PACKAGE = pathlib.Path(unoic_cli.__file__).parent
FLOORS = (
    {"errors", "signals", "version", "machine", "options", "schemas"}
    | {"brief", "frames", "calls", "compiling", "urls", "weights"},
    {"kernels"},
    {"drawing", "pages"},
    {"storage"},
    {"fusions"},
    {"formats"},
    {"data"},
    {"calibrations"},
    {"tallies"},
    {"metrics"},
    {"searches"},
    {"resolve"},
    {"runs"},
    {"commands"},
    {"api"},
    {"plots", "sklearn"},
    {"report"},
    {"cli"},
    {"__init__", "__main__"},
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
STRANGERS = {("commands", "runs"), ("report", "runs"), ("metrics", "fusions"), ("searches", "formats")}
"""Rooms that do not know others, though these are below."""
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def unit_of(path):
    """The folder or module below the package that a file belongs to."""
    return path.parts[0].removesuffix(".py")


def imports(tree):
    """The modules of the package that a module imports, anywhere in it, also for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = []
        yield from (name.removeprefix("unoic_cli.") for name in names if name.startswith("unoic_cli."))


def climbs(unit, tree):
    """What a module of a unit imports from above, or from a room that it must not know."""
    for name in imports(tree):
        target = name.split(".")[0]
        if target in FLOOR and (FLOOR[target] > FLOOR[unit] or (unit, target) in STRANGERS):
            yield name


def test_every_module_has_a_floor():
    assert {unit_of(path) for path in FILES} <= set(FLOOR)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_imports_go_down(path):
    assert not list(climbs(unit_of(path), ast.parse((PACKAGE / path).read_text())))


def test_no_import_runs_in_a_circle():
    modules = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}
    needs = {}
    for name, path in modules.items():
        found = set()
        for target in imports(ast.parse((PACKAGE / path).read_text())):
            found |= {target if target in modules else target.rpartition(".")[0]} & set(modules)
        room = path.parts[0]  # a format and what it is made of know one another
        needs[name] = {one for one in found - {name} if (room, modules[one].parts[0]) != ("formats", "formats")}
    done, open_ = set(), []

    def visit(name):
        assert name not in open_, f"{' -> '.join(open_[open_.index(name) :])} -> {name}"
        if name not in done:
            open_.append(name)
            for other in sorted(needs[name]):
                visit(other)
            open_.pop()
            done.add(name)

    for name in modules:
        visit(name)


@pytest.mark.parametrize(
    ("unit", "code"),
    [
        ("errors", "from unoic_cli.formats import block"),
        ("data", "from unoic_cli.tallies import points"),
        ("formats", "import unoic_cli.tallies.points"),
        ("searches", "def f():\n    from unoic_cli.formats import schema"),
        ("runs", "from unoic_cli.commands.search import search_lambda"),
        ("commands", "from unoic_cli.runs.driver import drive"),
        ("runs", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from unoic_cli.commands import search"),
        ("metrics", "from unoic_cli import cli"),
    ],
)
def test_a_climb_is_found(unit, code):
    assert list(climbs(unit, ast.parse(code)))


def modules_with(folder, *names):
    """Modules of a folder that define all of these functions or classes."""
    for path in sorted((PACKAGE / folder).glob("*.py")):
        defined = {getattr(node, "name", "") for node in ast.parse(path.read_text()).body}
        if path.stem != "__init__" and set(names) <= defined:
            yield path.stem


def formats_in(path):
    """Classes of a module that have the name of a format."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ClassDef) and any(ast.unparse(one).startswith("NAME = ") for one in node.body):
            yield node.name


def test_members_are_registered():
    assert set(modules_with("searches", "search")) == set(searches.METHODS.values())
    members = {fusions.fusion(name).__name__.rpartition(".")[2] for name in fusions.FUSIONS}
    assert members == set(modules_with("fusions", "default_weights"))
    assert not members & set(dir(builtins)), "importing it would hide that in the package"
    classes = {name for path in (PACKAGE / "formats").glob("*.py") for name in formats_in(path)}
    classes.discard("ParquetImages")  # what a Parquet file with images is described as
    assert classes == {kind.__name__ for kind in formats.FORMATS.values()}
    assert all(suffix in formats.FORMATS[name].SUFFIXES for suffix, name in formats.SUFFIXES.items())
    commands = {path.stem for path in (PACKAGE / "cli").glob("*.py")} - {
        "__init__",
        "common",
        "completing",
        "helping",
        "parser",
        "program",
    }
    assert commands == {name.replace("-", "_") for name in cli.COMMANDS}


@pytest.mark.parametrize("suffix", formats.SUFFIXES)
@pytest.mark.parametrize("image", [(), (2, 3)])
def test_every_format_round_trips(tmp_path, suffix, image):
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(5, 4, *image)).astype("f4"), rng.integers(0, 4, (5, *image))
    path = str(tmp_path / f"x{suffix}")
    layout = "planes" if image else "rows"
    spec = OutputSpec(
        5, 4, image, "logits", "float32", layout, dtypes={"labels": "int64", "split": "str"}, class_names=tuple("abcd")
    )
    holds = formats.FORMATS[formats.SUFFIXES[suffix]].HOLDS
    if image and suffix in (".csv", ".tsv"):
        with pytest.raises(UsageError, match="images, which lines cannot say"):
            formats.create(path, spec)
        return
    writer = formats.create(path, spec)
    pixels = int(np.prod(image))
    block = scores.reshape(5, 4, pixels) if image else scores
    split = np.array(["val"] * 4 + ["test"], dtype=object)
    writer.write(LogitBlock(0, 5 * pixels, scores=block, labels=labels.ravel(), split=split))
    writer.commit()
    asked = Asked(kind="logits", class_axis=1 if image and suffix == ".npy" else None)
    source = formats.describe(path, asked=asked)
    everything = frozenset({"labels", "split", "class_names"})
    assert set(formats.left_out(path, spec)) == everything - (everything if holds is None else holds)
    assert formats.detect(path) == formats.SUFFIXES[suffix] == source.format
    assert (source.n_samples, source.n_classes, source.image_shape) == (5, 4, image)
    assert source.class_names == (tuple("abcd") if holds is None or "class_names" in holds else None)
    reader = formats.open_reader(source)
    wanted = frozenset({"scores", "labels", "split"}) & ({"scores"} | source.fields)
    blocks = [b.own() for span in formats.spans(source, 40) for b in reader.blocks(*span, wanted)]
    turned = [b.scores.transpose(0, 2, 1) if b.scores.ndim == 3 else b.scores for b in blocks]
    got = np.concatenate([one.reshape(-1, 4) for one in turned]).ravel()
    assert got.tolist() == (np.moveaxis(scores, 1, -1) if image else scores).ravel().tolist()
    reader.close()
    if "labels" in wanted:
        assert np.concatenate([b.labels for b in blocks]).tolist() == labels.ravel().tolist()
        only = {"split": "val"} if "split" in wanted else {}
        seen = unoic_cli.evaluate(path, **only)
        n = 4 if only else 5
        assert seen.overall.values["acc"] == np.mean(scores[:n].argmax(1) == labels[:n])
