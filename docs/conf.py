"""The site: `sphinx-build -W docs docs/_build/html`. It needs no network, and what it builds asks nobody for anything.

Two things are not Sphinx's own. Formulas become MathML, by docutils, which browsers draw without a script. And pages
in `repository/` show files that lie outside this folder: each names one, whose text takes its place, with its links
led to where they lead from here. So links between pages are those of the repository, everywhere.
"""

from __future__ import annotations

import os
import pathlib
import re
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from pygments.lexers.python import PythonLexer

from unoic_cli.version import __version__

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent

project = "unoic"
author = "the authors of unoic"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "dollarmath", "html_image"]
myst_heading_anchors = 4
myst_dmath_allow_space = False  # a dollar before a space is one

autodoc_typehints = "none"  # docstrings say what types are
autodoc_member_order = "bysource"
napoleon_google_docstring = False
napoleon_use_ivar = True  # a list of attributes, not an entry each
napoleon_use_param = False  # types are words: "path" is no link to an attribute of that name
napoleon_use_rtype = False
default_role = "code"  # as docstrings are written
smartquotes = False  # two dashes begin an option
toc_object_entries = False  # the sidebar of every page would hold every attribute

html_theme = "furo"
html_title = f"unoic {__version__}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_show_copyright = False
html_copy_source = False
html_show_sourcelink = False

LINK = re.compile(r"(\]\(|\bsrc=\")([^)\s\"]+)")
FENCE = re.compile(r"(^ *```.*?^ *```$)", re.MULTILINE | re.DOTALL)


def shown() -> dict[pathlib.Path, pathlib.Path]:
    """Files outside this folder that have a page, and the pages: each page's first link names its file."""
    pages = sorted((HERE / "repository").glob("*.md"))
    return {(page.parent / LINK.search(page.read_text(encoding="utf-8"))[2]).resolve(): page for page in pages}


PAGES = shown()
FILES = {page: file for file, page in PAGES.items()}


def led(text: str, source: pathlib.Path, page: pathlib.Path) -> str:
    """Markdown of a source with its links as they must be in a page: to pages of files that have one."""

    def lead(found: re.Match[str]) -> str:
        path, hash_, anchor = found[2].partition("#")
        if not path or re.match(r"[a-z]+:", path):
            return found[0]
        target = (source.parent / path).resolve()
        return found[1] + os.path.relpath(PAGES.get(target, target), page.parent) + hash_ + anchor

    return "".join(part if i % 2 else LINK.sub(lead, part) for i, part in enumerate(FENCE.split(text)))


def read_source(app: Any, docname: str, content: list[str]) -> None:
    """Give Sphinx the text of a page."""
    page = pathlib.Path(app.env.doc2path(docname))
    if page.suffix != ".md":
        return
    source = FILES.get(page, page)
    if source is not page:
        app.env.note_dependency(str(source))
        content[0] = source.read_text(encoding="utf-8")
    content[0] = led(content[0], source, page)


def keep_names(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Names of groups in files are no addresses, which they look like to reStructuredText."""
    lines[:] = [re.sub(r"(?<![`\w])FILE::\w+(?!`)", r"``\g<0>``", line) for line in lines]


def visit_math(translator: Any, node: nodes.math) -> None:
    """A formula within a line."""
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_block(translator: Any, node: nodes.math_block) -> None:
    """A formula on a line of its own."""
    translator.body.append(f'<div class="math">{tex2mathml(node.astext(), as_block=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, Any]:
    """What is not Sphinx's own."""
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_block, None))
    app.add_lexer("snakemake", PythonLexer)
    app.connect("source-read", read_source)
    app.connect("autodoc-process-docstring", keep_names)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
