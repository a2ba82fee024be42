"""Show a step of a derivation: Unicode for the terminal, LaTeX for Markdown."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterable

from sympy import Add, Eq, Expr, Mul, Pow, S, latex, pretty

WIDTH = 96
INDENT = "    "


def render_step(number: int, title: str, explanation: str, equations: Iterable[Eq], *, style: str) -> str:
    """One step as text: heading, explanation, equations."""
    if style == "text":
        return _as_text(number, title, explanation, equations)
    if style == "markdown":
        return _as_markdown(number, title, explanation, equations)
    raise ValueError(f"`style` must be 'text' or 'markdown'; got {style!r}")


def _as_text(number: int, title: str, explanation: str, equations: Iterable[Eq]) -> str:
    heading = f"{number}. {title}"
    parts = [f"{heading}\n{'─' * len(heading)}"]
    parts += [textwrap.fill(paragraph, WIDTH) for paragraph in _paragraphs(explanation)]
    for item in equations:
        drawn = pretty(_one_root(item), use_unicode=True, num_columns=WIDTH - len(INDENT))
        parts.append("\n".join((INDENT + line).rstrip() for line in drawn.splitlines()))
    return "\n\n".join(parts) + "\n"


def _as_markdown(number: int, title: str, explanation: str, equations: Iterable[Eq]) -> str:
    parts = [f"## {number}. {title}", *_paragraphs(explanation)]
    parts += [f"$$\n{latex(_one_root(item))}\n$$" for item in equations]
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
    joined = Pow(radicand, S.Half, evaluate=False)
    return Mul(*others, joined, evaluate=False) if others else joined
