"""The documentation site: `python -m sphinx docs site` (extra ``docs``), then open site/index.html; no network needed.

Sphinx reads this file. Pages that are written elsewhere are made by `docs/site_pages.py` before it reads the rest.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

import site_pages  # noqa: E402
from numpydoc.xref import DEFAULT_LINKS  # noqa: E402

import rotsim  # noqa: E402

project = "rotsim"
author = "The rotsim developers"
release = version = rotsim.__version__
copyright = f"2026, {author}"

extensions = [
    "myst_nb",  # MyST Markdown, and lessons that are run
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_copybutton",
    "sphinx_click",
    "sphinx-mathjax-offline",
]
exclude_patterns = ["README.md"]  # a list of pages, which the site's own first page takes the place of
suppress_warnings = ["myst.strikethrough", "misc.highlighting_failure"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
nb_execution_timeout = 120  # seconds that a lesson may take
nb_execution_raise_on_error = True
nb_merge_streams = True
nb_render_markdown_format = "myst"  # with its mathematics
default_role = "py:obj"
smartquotes = False  # they turn the dashes of options into others
numpydoc_xref_param_type = True
numpydoc_xref_aliases = {name: name for name in DEFAULT_LINKS}  # of Python and NumPy, whose pages are elsewhere
numpydoc_xref_ignore = set(DEFAULT_LINKS)
numpydoc_show_class_members = False
autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say them in words

html_theme = "furo"
html_title = f"rotsim {version}"
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
copybutton_exclude = ".linenos, .gp, .go"


def setup(app: object) -> None:
    """Make the pages first; then send links out of docs/ to where their targets are on the site."""
    app.connect("config-inited", lambda app, config: site_pages.write(Path(app.srcdir)))  # type: ignore[attr-defined]
    app.connect("source-read", site_pages.on_source_read)  # type: ignore[attr-defined]
