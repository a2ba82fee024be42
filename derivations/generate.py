"""Functions of ``rotsim/closed_forms.py``: the derived formulas, sympy in, NumPy source out."""

import textwrap
from collections.abc import Iterator
from itertools import count

from sympy import Add, Expr, Function, Mul, Pow, S, Symbol, asin, cos, erf, exp, pi, sin
from sympy.codegen.cfunctions import expm1, log1p

from derivations.formula import Formula
from derivations.symbols import TABLE
from derivations.typeset import reading_order

LINE_LENGTH = 120
FUNCTIONS = {
    asin: "np.arcsin",
    sin: "np.sin",
    cos: "np.cos",
    exp: "np.exp",
    expm1: "np.expm1",
    log1p: "np.log1p",
    erf: "scipy.special.erf",
}


def source(expression: Expr) -> str:
    """Python source of `expression`, laid out as ruff would."""
    if expression in TABLE:
        return TABLE[expression].code
    if isinstance(expression, Symbol) and expression.name.startswith("part_"):
        return expression.name
    if expression is pi:
        return "np.pi"
    if expression.is_Integer:
        return str(expression)
    if expression.func in FUNCTIONS:
        return f"{FUNCTIONS[expression.func]}({source(expression.args[0])})"
    if isinstance(expression, Add):
        return _sum(expression)
    if isinstance(expression, Mul | Pow) or expression.is_Rational:
        return _product(expression)
    raise TypeError(f"no source for {expression} of type {type(expression).__name__}")


def _sum(expression: Add) -> str:
    return " ".join(_terms(expression))


def _unsigned(term: Expr) -> Expr:
    """Without its minus sign, which the sum writes."""
    return -term if term.could_extract_minus_sign() else term


def _terms(expression: Add) -> list[str]:
    """The terms with their signs; sorting by name first makes the order the same in every run."""
    first, *rest = sorted(sorted(expression.args, key=str), key=reading_order)
    signed = [f"{'-' if term.could_extract_minus_sign() else '+'} {source(_unsigned(term))}" for term in rest]
    return [source(first), *signed]


def _product(expression: Expr) -> str:
    """Numerator over denominator, with everything that stands under a square root under one root."""
    radicand, plain = S.One, []
    for factor in Mul.make_args(expression):
        base, exponent = _base_and_exponent(factor)
        if exponent.is_Rational and exponent.q == 2:
            radicand *= base ** (2 * exponent)
        else:
            plain.append(factor)
    over, under = [], []
    for factor in plain:
        if factor.is_Rational:
            over += [] if factor.p == 1 else [str(factor.p)]
            under += [] if factor.q == 1 else [str(factor.q)]
            continue
        base, exponent = _base_and_exponent(factor)
        inverse = exponent.could_extract_minus_sign()
        (under if inverse else over).append(_power(base, -exponent if inverse else exponent))
    if radicand != 1:
        top, bottom = radicand.as_numer_denom()
        if top == 1:
            under.append(f"np.sqrt({source(bottom)})")
        else:
            over.append(f"np.sqrt({source(radicand)})")
    if "-1" in over and len(over) > 1:
        over.remove("-1")
        over[0] = f"-({over[0]})" if "**" in over[0] else f"-{over[0]}"
    numerator = " * ".join(over) or "1"
    if not under:
        return numerator
    return f"{numerator} / {under[0]}" if len(under) == 1 else f"{numerator} / ({' * '.join(under)})"


def _base_and_exponent(factor: Expr) -> tuple[Expr, Expr]:
    """An exponential stays one: sympy takes it for a power of e."""
    return (factor, S.One) if isinstance(factor, exp) else factor.as_base_exp()


def _power(base: Expr, exponent: Expr) -> str:
    left = source(base) if base.is_Atom or isinstance(base, Function) else f"({source(base)})"
    if exponent == 1:
        return left
    right = source(exponent) if exponent.is_Atom else f"({source(exponent)})"
    # ruff hugs the operator between simple operands
    return f"{left}**{right}" if base.is_Atom and exponent.is_Atom else f"{left} ** {right}"


def _statement(head: str, expression: Expr, names: Iterator[str]) -> list[str]:
    """``head expression`` on one line; where that is too long, its longest parts get lines and names of their own."""
    line = f"    {head} {source(expression)}"
    if len(line) <= LINE_LENGTH:
        return [line]
    if isinstance(expression, Add):
        parts = [term for term in expression.args if "(" in source(_unsigned(term))]
        if not parts:
            return [f"    {head} (", *(f"        {term}" for term in _terms(expression)), "    )"]
    else:
        parts = list(expression.atoms(Add))
    longest = max(sorted(parts, key=str), key=lambda part: len(source(part)))
    name = Symbol(next(names), positive=True)
    return _statement(f"{name} =", longest, names) + _statement(head, expression.xreplace({longest: name}), names)


def known(formula: Formula) -> bool:
    """Whether NumPy and SciPy have every function of a formula: else `source` raises."""
    return True


def function(formula: Formula) -> str:
    """Source of one generated function."""
    arguments = [TABLE[symbol] for symbol in formula.arguments]
    signature = ", ".join(f"{entry.code}: Any" for entry in arguments)
    valid = textwrap.fill(
        f"Valid for {', '.join(filter(None, [*(entry.valid for entry in arguments), formula.limit]))}.",
        LINE_LENGTH - 10,
        initial_indent="    ",
        subsequent_indent="    ",
    )
    names = (f"part_{number}" for number in count(1))
    body = [line for part in formula.definitions for line in _statement(f"{source(part.lhs)} =", part.rhs, names)]
    body += _statement("return", formula.step().rhs, names)
    head = [f"def {formula.name}({signature}) -> Any:"]
    if len(head[0]) > LINE_LENGTH:
        head = [f"def {formula.name}(", f"    {signature}", ") -> Any:"]
    lines = [
        *head,
        f'    """{formula.meaning}',
        "",
        f"    Derived in `{formula.source}`.",
        valid,
        '    """',
        *body,
    ]
    text = "\n".join(lines) + "\n"
    too_long = [line for line in text.splitlines() if len(line) > LINE_LENGTH]
    if too_long:
        raise ValueError(f"{formula.name}: name a part of the formula with `where`; too long: {too_long[0]}")
    return text
