"""Modules import only downwards, registries are complete, and starting the program stays cheap."""

from __future__ import annotations

import ast
import builtins
import pathlib

import numpy as np
import pytest

import unoic_cli
from unoic_cli import cli, formats, fusions, searches
from unoic_cli.block import LogitBlock, OutputSpec

PACKAGE = pathlib.Path(unoic_cli.__file__).parent
FLOORS = (
    {"errors", "machine", "options", "schemas", "urls", "version"},
    {
        "kernels",
        "block",
        "batch",
        "counters",
        "facts",
        "ledger",
        "prior",
        "priors",
        "calibration",
        "lattice",
        "output",
        "brief",
        "calls",
        "compiling",
        "signals",
        "storage",
        "uncertainty",
        "view",
        "witness",
        "fuser",
        "whole",
    },
    {"formats", "tallies", "fusions"},
    {"metrics"},
    {"searches"},
    {"dataset", "evidence", "folds", "sampling", "steps", "reader", "sweep", "rewrite", "driver", "engines", "state"},
    {"tasks"},
    {"api", "cli", "report"},
)
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}
SEPARATE = {"formats", "tallies", "searches", "fusions"}
TYPES_ONLY = {"report": "tasks"}
"""report/ may name the types of tasks/, but not load them."""

OUTSIDE = {"__init__", "__main__"}
FILES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))


def unit_of(path):
    """The folder or module below the package that a file belongs to."""
    return path.parts[0].removesuffix(".py")


def is_type_checking(node):
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(tree, only_types=False):
    """Every import of the package, (unit, under TYPE_CHECKING), anywhere in a module."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "a relative import"
            joined = [f"{node.module}.{alias.name}" for alias in node.names]
            names = joined if node.module == "unoic_cli" else [node.module]
        else:
            names = []
        for name in names:
            parts = name.split(".")
            if parts[0] == "unoic_cli" and len(parts) > 1 and parts[1] in FLOOR:
                yield parts[1], only_types
        yield from imports(node, only_types or is_type_checking(node))


def climbs(unit, tree):
    """What a module of a unit imports from above, or from a neighbour that it must not know."""
    for target, only_types in imports(tree):
        if only_types and TYPES_ONLY.get(unit) == target:
            continue
        if unit == "report" and target == "tasks":
            yield f"{target}, which it may only name under TYPE_CHECKING"
        if FLOOR[target] > FLOOR[unit] or (unit in SEPARATE and target in SEPARATE and unit != target):
            yield target


def test_every_module_has_a_floor():
    assert {unit_of(path) for path in FILES} - OUTSIDE <= set(FLOOR)


@pytest.mark.parametrize("path", [path for path in FILES if unit_of(path) not in OUTSIDE], ids=str)
def test_imports_go_down(path):
    assert not list(climbs(unit_of(path), ast.parse((PACKAGE / path).read_text())))


@pytest.mark.parametrize(
    ("unit", "code"),
    [
        ("errors", "from unoic_cli import block"),
        ("batch", "from unoic_cli.formats import schema"),
        ("formats", "import unoic_cli.tallies.points"),
        ("searches", "def f():\n    from unoic_cli.formats import schema"),
        ("sweep", "from unoic_cli.tasks.common import Options"),
        ("report", "from unoic_cli.tasks.search import SearchResult"),
        ("sweep", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from unoic_cli.tasks import search"),
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
    assert classes == {kind.__name__ for kind in formats.FORMATS.values()}
    assert all(suffix in formats.FORMATS[name].SUFFIXES for suffix, name in formats.SUFFIXES.items())
    commands = {path.stem for path in (PACKAGE / "cli").glob("*.py")} - {"__init__", "common", "parser", "program"}
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
    writer = formats.create(path, spec)
    pixels = int(np.prod(image))
    block = scores.reshape(5, 4, pixels) if image else scores
    split = np.array(["val"] * 4 + ["test"], dtype=object)
    writer.write(LogitBlock(0, 5 * pixels, scores=block, labels=labels.ravel(), split=split))
    writer.commit()
    source = formats.describe(path)
    assert formats.detect(path) == formats.SUFFIXES[suffix] == source.format
    assert (source.n_samples, source.n_classes, source.image_shape, source.class_names) == (5, 4, image, tuple("abcd"))
    reader = formats.open_reader(source)
    wanted = frozenset({"scores", "labels", "split"})
    found = [b.labels.copy() for span in formats.spans(source, 40) for b in reader.blocks(*span, wanted)]
    assert np.concatenate(found).tolist() == labels.ravel().tolist()
    reader.close()
    seen = unoic_cli.evaluate(path, split="val")
    assert seen.overall.values["acc"] == np.mean(scores[:4].argmax(1) == labels[:4])
