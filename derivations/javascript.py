"""Functions of ``rotsim/page/closed_forms.js``: the derived formulas, by sympy's JavaScript printer."""

from typing import Any

from sympy import Expr, Pow, erf
from sympy.printing.jscode import JavascriptCodePrinter

from derivations.formula import Formula
from derivations.symbols import TABLE


class _Printer(JavascriptCodePrinter):
    """sympy's, with the names of the generated code, and squares as products."""

    def __init__(self) -> None:
        super().__init__({"contract": False})

    def _print_Symbol(self, expression: Any) -> str:
        return TABLE[expression].code

    def _print_Pow(self, expression: Pow) -> str:
        if expression.exp == 2:
            return f"$square({self._print(expression.base)})"
        if expression.exp == -2:
            return f"1/$square({self._print(expression.base)})"
        return str(super()._print_Pow(expression))

    def _print_expm1(self, expression: Any) -> str:
        return f"Math.expm1({self._print(expression.args[0])})"

    def _print_log1p(self, expression: Any) -> str:
        return f"Math.log1p({self._print(expression.args[0])})"


def known(formula: Formula) -> bool:
    """Whether JavaScript has every function of a formula."""
    return not formula.expression.has(erf)


def function(formula: Formula) -> str:
    """Source of one generated function, a member of ``closed_forms``."""
    arguments = ", ".join(TABLE[symbol].code for symbol in formula.arguments)
    parts = [f"    const {_code(part.lhs)} = {_code(part.rhs)};" for part in formula.definitions]
    lines = [
        f"  // {formula.meaning} {formula.source}",
        f"  {formula.name}({arguments}) {{",
        *parts,
        f"    return {_code(formula.step().rhs)};",
        "  },",
    ]
    return "\n".join(lines)


def _code(expression: Expr) -> str:
    return str(_Printer().doprint(expression))
