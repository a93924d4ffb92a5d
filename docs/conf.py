"""How Sphinx builds the site: `make docs`, or `sphinx-build -c docs . site`.

The source directory is the root of the project, so that the same relative links lead through the pages here and on a
forge. Nothing is fetched, neither while building nor while reading: formulas become MathML, fonts are the system's,
and the search index is a file. Docstrings are reStructuredText, which is why this is Sphinx.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from latex2mathml.converter import convert

import striate

project = "striate"
author = "the authors of striate"
project_copyright = f"{author}; Apache-2.0 OR MIT"
version = release = striate.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = ["docs/**.md", "*.md", "bench/record/README.md"]
exclude_patterns = [".*", "target", "site", "dist", "rust", "python", "tests", "cuda"]
suppress_warnings = ["myst.header", "misc.highlighting_failure"]

myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
myst_dmath_double_inline = True

autodoc_member_order = "bysource"
autodoc_typehints = (
    "none"  # signatures as the type checkers see them are in the sources; shapes are in the text
)
autodoc_inherit_docstrings = False
autodoc_default_options = {"members": True}
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"striate {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_extra_path = ["_root"]  # index.html at the top, which leads to docs/index.html
html_show_sphinx = False
html_copy_source = False
html_theme_options: dict[str, Any] = {"top_of_page_buttons": []}
html_math_renderer = "mathml"


def _mathml(translator: Any, node: nodes.Element, display: str) -> None:
    """A formula as MathML, which browsers draw by themselves."""
    translator.body.append(convert(node.astext().strip(), display=display))
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Register the renderer of formulas."""
    app.add_html_math_renderer(
        "mathml",
        (lambda translator, node: _mathml(translator, node, "inline"), None),
        (lambda translator, node: _mathml(translator, node, "block"), None),
    )
