"""The site is built without a warning, has a page for every public name and derivation, and needs no network."""

import re
import subprocess
import sys

import pytest

import derivations
import rotsim
import rotsim.measure
from tests.documents import ROOT

pytestmark = pytest.mark.slow
NEEDED = ("sphinx", "myst_nb", "furo", "numpydoc", "sphinx_copybutton", "sphinx_click", "sphinx-mathjax-offline")
#: What a browser loads by itself, unlike a link that a reader follows.
LOADED = re.compile(
    r"<(?:script|img|iframe)\b[^>]*\bsrc=\"(https?:)?//|<link\b[^>]*rel=\"stylesheet\"[^>]*href=\"https?://"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for module in NEEDED:
        pytest.importorskip(module, reason="the site needs the extra `docs`")
    folder = tmp_path_factory.mktemp("site")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-q",
        "-W",
        "--keep-going",
        "-d",
        folder / "trees",
        "docs",
        folder / "html",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_every_public_name_has_a_page(site):
    names = [f"{module.__name__}.{name}" for module in (rotsim, rotsim.measure) for name in module.__all__]
    assert {path.stem for path in (site / "generated" / "api").glob("*.html")} == set(names)
    listed = (site / "generated" / "api.html").read_text(encoding="utf-8")
    assert all(f"api/{name}.html" in listed for name in names)


def test_every_derivation_has_a_page_whose_symbols_are_explained(site):
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (site / "generated" / "theory").glob("*.html")}
    assert pages.keys() == derivations.DERIVATIONS.keys()
    assert all("../glossary.html#term-" in page and 'class="math' in page for page in pages.values())


def test_nothing_is_loaded_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 80
    assert not [path.name for path in pages if LOADED.search(path.read_text(encoding="utf-8"))]
    assert LOADED.search('<script async="async" src="https://cdn.jsdelivr.net/npm/mathjax"></script>')


def test_search_knows_the_words(site):
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    assert "equilibrium" in index and "generated/theory/lion" in index
