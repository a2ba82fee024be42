"""Show a step of a derivation: Unicode for the terminal, LaTeX for Markdown."""

import inspect
import textwrap
from collections.abc import Iterable

from sympy import Add, Eq, Expr, Mul, Pow, S, Symbol
from sympy.printing.latex import LatexPrinter
from sympy.printing.pretty.pretty import PrettyPrinter
from sympy.printing.pretty.pretty_symbology import pretty_use_unicode
from sympy.printing.pretty.stringpict import prettyForm

from derivations.symbols import Entry

WIDTH = 96
INDENT = "    "


def reading_order(term: Expr) -> tuple[bool, bool]:
    """Sort key for the terms of a sum: positive before negative, numbers first, so 1 - x and not -x + 1."""
    return term.could_extract_minus_sign(), not term.is_number


class _ReadingOrder:
    """Printer in which the terms of a sum stand in `reading_order`."""

    def _as_ordered_terms(self, expr: Add, order: str | None = None) -> list[Expr]:
        return sorted(super()._as_ordered_terms(expr, order=order), key=reading_order)  # type: ignore[misc]


#: Greek letters that sympy spells out in a terminal.
LETTERS = {"vartheta": "ϑ", "varrho": "ϱ", "varkappa": "ϰ", "ell": "ℓ"}


class _Pretty(_ReadingOrder, PrettyPrinter):
    def _print_Symbol(self, e: Symbol, bold_name: bool = False) -> prettyForm:
        return (
            prettyForm(LETTERS[e.name])
            if e.name in LETTERS and pretty_use_unicode()
            else super()._print_Symbol(e, bold_name)
        )

    def _print_expm1(self, e: Expr) -> prettyForm:
        return prettyForm(*prettyForm(*self._print(e.args[0]).parens()).left("expm1"))


class _Latex(_ReadingOrder, LatexPrinter):
    def _print_expm1(self, e: Expr) -> str:
        return rf"\operatorname{{expm1}}\left({self._print(e.args[0])}\right)"


def _draw(item: Expr, style: str) -> str:
    """In Unicode, or ASCII for the style "ascii", whatever sympy believes of the terminal."""
    unicode = style != "ascii"
    before = pretty_use_unicode(unicode)
    try:
        return _Pretty({"num_columns": WIDTH - len(INDENT), "use_unicode": unicode}).doprint(item)
    finally:
        pretty_use_unicode(before)


def render_head(headline: str, legend: Iterable[tuple[Symbol, Entry]], *, style: str) -> str:
    """Headline, and what every symbol is called in the code."""
    if style == "markdown":
        rows = [f"| ${_Latex().doprint(symbol)}$ | `{code}` | {meaning} |" for symbol, (code, meaning, _) in legend]
        return "\n".join([f"# {headline}", "", "| symbol | in the code | meaning |", "|---|---|---|", *rows, ""])
    drawn = [(_draw(symbol, style), code, meaning) for symbol, (code, meaning, _) in legend]
    width = max([3, *(len(letter) for letter, *_ in drawn)])
    rows = [f"    {letter:{width}} {code:17} {meaning}" for letter, code, meaning in drawn]
    return "\n".join([headline, "", *rows, ""])


def render_step(number: int, title: str, explanation: str, equations: Iterable[Eq], *, style: str) -> str:
    """One step as text: heading, explanation, equations."""
    if style in ("text", "ascii"):
        return _as_text(number, title, explanation, equations, style)
    if style == "markdown":
        return _as_markdown(number, title, explanation, equations)
    raise ValueError(f"`style` must be 'text', 'ascii' or 'markdown'; got {style!r}")


def _as_text(number: int, title: str, explanation: str, equations: Iterable[Eq], style: str) -> str:
    heading = f"{number}. {title}"
    parts = [f"{heading}\n{'─' * len(heading)}"]
    parts += [textwrap.fill(paragraph, WIDTH) for paragraph in _paragraphs(explanation)]
    for item in equations:
        parts.append("\n".join((INDENT + line).rstrip() for line in _draw(_one_root(item), style).splitlines()))
    return "\n\n".join(parts) + "\n"


def _as_markdown(number: int, title: str, explanation: str, equations: Iterable[Eq]) -> str:
    parts = [f"## {number}. {title}", *_paragraphs(explanation)]
    parts += [f"$$\n{_Latex().doprint(_one_root(item))}\n$$" for item in equations]
    return "\n\n".join(parts) + "\n"


def _paragraphs(docstring: str) -> list[str]:
    """Docstring paragraphs, each on one line."""
    return [" ".join(paragraph.split()) for paragraph in inspect.cleandoc(docstring).split("\n\n")]


def _one_root(item: Eq) -> Eq:
    """Gather the square roots of a product under one root, as one writes by hand; sympy keeps them apart."""
    return item.func(_gather(item.lhs), _gather(item.rhs), evaluate=False)


def _gather(expression: Expr) -> Expr:
    if not isinstance(expression, Mul):
        return expression
    roots = [f for f in expression.args if f.is_Pow and f.exp.is_Rational and f.exp.q == 2]
    if len(roots) < 2 or any(isinstance(f, Add) for f in roots):
        return expression
    radicand = Mul(*(f**2 for f in roots))
    others = [f for f in expression.args if f not in roots]
    over, under = radicand.as_numer_denom()
    joined = Pow(under, -S.Half, evaluate=False) if over == 1 else Pow(radicand, S.Half, evaluate=False)
    return Mul(*others, joined, evaluate=False) if others else joined
