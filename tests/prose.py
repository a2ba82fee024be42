"""How long sentences are, in documents and in docstrings."""

import ast
import inspect
import re

LONGEST = 25  # words of a sentence
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
#: Of a page: code, comments, headings, rows of tables.
_NO_PROSE = re.compile(r"^```.*?^```$|<!--.*?-->|^#.*?$|^\|.*?$", re.MULTILINE | re.DOTALL)
#: Of a docstring: formulas, tables, headings of sections, entries of parameters, examples, and blocks that are set off.
_NO_DOCSTRING_PROSE = re.compile(
    r"^\.\. math::.*\n(?:[ ]+.*\n|\n(?=[ ]))*"
    r"|^=[= ]+\n(?:.*\n)*=[= ]+$"
    r"|^\w[\w ]*\n-{3,}$|^\w[\w*, ]* : .*$"
    r"|^\n(?:[ ]{4}.*\n|\n)+|^(?:\x08\n|>>> )(?:.+\n)+",
    re.MULTILINE,
)


def sentences(page):
    """The sentences of a page's paragraphs and list items, without code, tables, links' targets and marks."""
    page = LINK.sub("]", re.sub(r"`[^`]*`", "code", _NO_PROSE.sub("\n\n", page)))
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:- |\d+\. ))", page):
        yield from (s for s in re.split(r"(?<=[.?!:])\W*\s+", " ".join(paragraph.split())) if s)


def words(sentence):
    return len(re.findall(r"[^\s\-–·=+/×*]\S*", sentence))


def too_long(page):
    """The sentences of a page with more than `LONGEST` words, each after its number of words."""
    return [f"{words(sentence)}: {sentence}" for sentence in sentences(page) if words(sentence) > LONGEST]


def docstrings(source):
    """Line and prose of every docstring of a file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and (text := ast.get_docstring(node)):
            yield node.body[0].lineno, _NO_DOCSTRING_PROSE.sub("\n\n", inspect.cleandoc(text) + "\n").replace("``", "`")
