"""The documentation: pages made from the program are current, links lead somewhere, docstrings are whole."""

from __future__ import annotations

import importlib.util
import inspect
import pathlib
import re
import subprocess
import sys

import forked
import pytest

import unoic_cli
from unoic_cli.cli import COMMANDS
from unoic_cli.fusions import FUSIONS, fusion

ROOT = pathlib.Path(__file__).resolve().parents[1]
BUILT = ROOT / "docs" / "_build"
PAGES = sorted(
    {ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("sample_data/*/*.md")} - {*BUILT.glob("**/*.md")}
)
NAMES = {"merge": "merge_states", "report": "report_states"}
"""Commands whose functions are called otherwise."""
FUNCTIONS = [NAMES.get(command, command.replace("-", "_")) for command in COMMANDS]


@pytest.fixture(scope="module")
def make_cli():
    spec = importlib.util.spec_from_file_location("make_cli", ROOT / "docs" / "make_cli.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cli_page_is_current(make_cli, monkeypatch):
    """By processes that begin at once: the help of a process that starts anew is that below."""
    stored = make_cli.PATH.read_text(encoding="utf-8")
    if make_cli.STAMP not in stored:
        pytest.skip("another typer lays help out differently")
    monkeypatch.setattr(make_cli.subprocess, "run", forked.run)
    assert stored == make_cli.page(), "run python docs/make_cli.py"


def test_cli_page_has_every_command(make_cli):
    stored = make_cli.PATH.read_text(encoding="utf-8")
    assert re.findall(r"^## unoic (\S+)$", stored, re.MULTILINE) == list(COMMANDS)


def test_cli_page_does_not_depend_on_the_terminal(make_cli, monkeypatch):
    one = make_cli.help_of("evaluate")
    stored = make_cli.PATH.read_text(encoding="utf-8")
    assert make_cli.STAMP not in stored or one in stored
    for name, value in (("COLUMNS", "200"), ("TERM", "xterm-256color"), ("FORCE_COLOR", "1"), ("TERMINAL_WIDTH", "40")):
        monkeypatch.setenv(name, value)
    assert make_cli.help_of("evaluate") == one
    assert max(map(len, one.splitlines())) <= 80


def test_the_page_of_sensors_lists_every_fusion():
    rows = {}
    for name in FUSIONS:
        module = fusion(name)
        weights, exact = ("yes" if said else "" for said in (module.default_weights(2), module.LINEAR))
        rows[name] = re.sub(" +", " ", f"  | {name} | {module.ABOUT} | {weights} | {exact} |")
    page = (ROOT / "docs" / "sensors.md").read_text()
    stored = re.search(r"  \| fusion \|[^\n]*\n  \| ---[^\n]*\n((?:  \|[^\n]*\n)+)", page)
    assert [re.sub(" +", " ", row) for row in stored[1].splitlines()] == list(rows.values())


def anchors(text):
    """Names that headings of a page can be linked by."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_local_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(r'(?:src|href)="([^"]+)"', prose)
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


def test_commands_are_functions():
    assert set(FUNCTIONS) < set(unoic_cli.__all__)


@pytest.mark.parametrize("name", [name for name in unoic_cli.__all__ if not name.startswith("__")])
def test_docstrings(name):
    thing = getattr(unoic_cli, name)
    text = inspect.getdoc(thing) or ""
    assert re.match(r"\S.*[.:`]", text), "a summary line"
    if inspect.isclass(thing):
        assert re.search(r"^(Attributes|Parameters)\n-+$", text, re.MULTILINE)
        return
    assert name in FUNCTIONS or name in ("from_arrays", "run")
    for section in ("Parameters", "Returns", "Raises", "Examples"):
        assert re.search(rf"^{section}\n-+$", text, re.MULTILINE), section
    described = re.search(r"^Parameters\n-+\n(.*?)\n\n\w+\n-+$", text, re.MULTILINE | re.DOTALL)[1]
    named = {
        part.strip(" *")
        for line in re.findall(r"^\S.*$", described, re.MULTILINE)
        for part in line.split(" : ")[0].split(",")
    }
    assert named == set(inspect.signature(thing).parameters)


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name not in NAMES.values()])
def test_options_are_parameters(name):
    """What the command takes, the function takes: under the same names, apart from those of the terminal."""
    command = getattr(importlib.import_module(f"unoic_cli.cli.{name}"), name)
    function = getattr(unoic_cli, name)
    shared = {
        "split",
        "ignore_index",
        "allow_external",
        "logits_key",
        "labels_key",
        "class_axis",
        "threads",
        "memory",
        "quiet",
        "force",
        *vars(unoic_cli.Control()),
    }
    other = {"files": "inputs", "format": None}
    taken = {other.get(key, key) for key in inspect.signature(command).parameters} - {None}
    assert taken - shared <= set(inspect.signature(function).parameters)


# ------------------------------------------------------------------------------------------------
# the site


def built(folder):
    """The pages, built with warnings as errors; by a process of its own, as what Sphinx imports warns."""
    for needed in ("sphinx", "myst_parser", "furo", "sphinx_copybutton", "sklearn", "matplotlib"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"no {needed}: pip install 'unoic[docs]'")
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "-d", str(folder / "read")]
    made = subprocess.run([*words, "docs", str(folder / "html")], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0 and not made.stderr, made.stderr
    return folder / "html"


def every_page_is_there(site):
    sources = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").glob("**/*.rst")}
    sources |= {page.relative_to(ROOT / "docs").with_suffix("") for page in PAGES if page.is_relative_to(ROOT / "docs")}
    pages = {path.relative_to(site).with_suffix("") for path in site.glob("**/*.html")}
    assert pages == sources | {pathlib.Path("genindex"), pathlib.Path("search"), pathlib.Path("py-modindex")} & pages
    navigation = (site / "index.html").read_text(encoding="utf-8").partition('class="sidebar-tree"')[2]
    assert all(f'href="{source.as_posix()}.html"' in navigation for source in sources - {pathlib.Path("index")})


def nobody_is_asked_for_anything(site):
    """What a browser loads lies beside the page: a link to elsewhere is one that a reader follows."""
    elsewhere = r"[\"']?(?:https?:)?//"
    asks = re.compile(rf"<(?!a\b)[^>]*\b(?:src|href|srcset|data)={elsewhere}[^>]*>|@import|url\({elsewhere}")
    for path in site.glob("**/*.html"):
        assert asks.search(path.read_text(encoding="utf-8")) is None, path
    for path in site.glob("**/*.css"):
        assert asks.search(path.read_text(encoding="utf-8")) is None, path


def links_lead_somewhere(site):
    """Also those of files that lie outside the folder of the docs; `#` is what the theme has for the page itself."""
    texts = {path: path.read_text(encoding="utf-8") for path in site.glob("**/*.html")}
    names = {path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in texts.items()}
    for path, text in texts.items():
        for link in re.findall(r'\b(?:href|src)="([^"]+)"', text):
            if re.match(r"[a-z]+:", link) or link == "#":
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name.partition("?")[0]).resolve() if name else path
            assert target.is_file(), f"{path}: {link}"
            assert not anchor or target not in names or anchor in names[target], f"{path}: {link}"


def formulas_are_drawn(site):
    text = (site / "method.html").read_text(encoding="utf-8")
    assert text.count("<math ") == text.count("</math>") > 40 and "<merror" not in text and "$" not in text


def public_names_are_in_the_reference(site):
    """Those of the package, and the functions and classes of its rooms."""
    from unoic_cli import plots, sklearn

    rooms = {"": unoic_cli.__all__, "plots.": plots.KINDS, "sklearn.": sklearn.__all__}
    pages = "".join(path.read_text(encoding="utf-8") for path in (site / "api").glob("*.html"))
    wanted = {f"unoic_cli.{room}{name}" for room, names in rooms.items() for name in names}
    assert {name for name in wanted if f'id="{name}"' not in pages} == set()


def test_the_site(tmp_path):
    """One test, as one build serves all that is asked of it."""
    site = built(tmp_path)
    every_page_is_there(site)
    nobody_is_asked_for_anything(site)
    links_lead_somewhere(site)
    formulas_are_drawn(site)
    public_names_are_in_the_reference(site)
