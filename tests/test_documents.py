"""What the documents show is what their examples print; their links lead somewhere; their sentences are short."""

import re
import sys
import tomllib

import pytest

from tests import documents, prose
from tests.documents import Block

PAGES = {str(path.relative_to(documents.ROOT)): path for path in documents.PAGES}
PROSE = {**PAGES, **{name: documents.ROOT / name for name in ("CONTRIBUTING.md", "experiments/README.md")}}


def text(name):
    return PROSE[name].read_text(encoding="utf-8")


SHOWN = [name for name in PAGES if documents.examples(text(name))]


@pytest.mark.parametrize(
    "name", [name if name == "README.md" else pytest.param(name, marks=pytest.mark.slow) for name in SHOWN]
)
def test_a_document_shows_what_its_examples_print(name, request):
    if "import torch" in text(name):
        request.getfixturevalue("one_thread")
    for block, shown, printed in documents.outputs(text(name)):
        if shown:
            assert documents.agrees(shown.text, printed, documents.share_of(shown)), f"{block.text}prints\n{printed}"


def test_readme_has_five_examples_with_their_outputs():
    shown = [after for _, after in documents.examples(text("README.md")) if after]
    assert len(shown) == 5 and all(block.text.replace("...", "").strip() for block in shown)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("a 1.25\n", "a  1.25 \n", True),
        ("a 1.25\n", "a 1.26\n", True),  # one unit of the last digit
        ("a 1.25\n", "a 1.27\n", False),
        ("a 1.25\n", "b 1.25\n", False),
        ("7 steps\n", "8 steps\n", False),
        ("-0.00%\n", "+0.00%\n", True),
        ("2e-07\n", "3e-07\n", True),
        ("...\nb\n...\n", "a\nb\nc\n", True),
        ("...\nb\n...\n", "a\nc\n", False),
        ("a\n", "a\nb\n", False),
        ("a\nb\n", "a\n", False),
    ],
)
def test_outputs_agree_to_the_last_digit_shown(shown, printed, same):
    assert documents.agrees(shown, printed) is same


def test_a_share_is_for_numbers_alone():
    assert documents.agrees("a 100\n", "a 119\n", 0.2) and not documents.agrees("a 100\n", "a 121\n", 0.2)
    assert not documents.agrees("a 100\n", "b 100\n", 0.2)


def test_a_wrong_output_is_noticed_and_written_anew():
    page = "x\n\n```python\nn = 2\n```\n\n```python\nprint(n + 1)\n```\n```text\n4\n```\n\ny\n"
    [_, (block, shown, printed)] = documents.outputs(page)
    assert block == Block("python", "", "print(n + 1)\n", 34, 47) and not documents.agrees(shown.text, printed)
    assert documents.written(page) == page.replace("4", "3")


@pytest.mark.parametrize("name", PROSE)
def test_links_lead_to_files(name):
    for target in prose.LINK.findall(text(name)):
        if not target.startswith(("https://", "http://")):
            assert (PROSE[name].parent / target).exists(), f"{name} links to {target}"


def test_every_page_is_listed():
    listed = set(prose.LINK.findall(text("docs/README.md")))
    pages = {path.relative_to(documents.ROOT / "docs").as_posix() for path in documents.WRITTEN}
    assert pages - {"README.md"} <= listed


@pytest.mark.parametrize("name", PROSE)
def test_sentences_are_short(name):
    assert not prose.too_long(text(name))


@pytest.mark.parametrize("name", [name for name in PAGES if "/lessons/" in name])
def test_a_lesson_names_what_it_needs_beside_rotsim(name):
    cells = re.findall(r"^```\{code-cell\}.*?\n(.*?)^```$", text(name), re.MULTILINE | re.DOTALL)
    imported = set(re.findall(r"^(?:from|import) (\w+)", "\n".join(cells), re.MULTILINE)) - sys.stdlib_module_names
    project = tomllib.loads((documents.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    own = {"rotsim", "derivations", *(re.split(r"\W", needed)[0] for needed in project["dependencies"])}
    said = text(name).split("**Goal.**")[1].split("```")[0]
    assert not [each for each in imported - own if each.lower() not in said.lower()]


def test_a_long_sentence_is_counted():
    page = "# Title\n\nShort one. " + "word " * 26 + "\n\n- a `b c d` e\n\n```\n" + "code " * 40 + "\n```\n"
    assert [prose.words(sentence) for sentence in prose.sentences(page)] == [2, 26, 3]
