"""A formula that is generated into ``rotsim/closed_forms.py``: a step of a derivation and a name for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sympy import Eq, Expr, Symbol

from derivations.symbols import ARGUMENTS, SHORTHAND, expand_parts

Step = Callable[[], "Eq | tuple[Eq, ...]"]


class Formula(NamedTuple):
    """One generated function.

    Attributes
    ----------
    name : str
        Name of the function in ``closed_forms``.
    step : callable
        The step of the derivation whose equation has the formula on its right-hand side.
    meaning : str
        One line for the docstring.
    where : tuple of callables
        Steps whose equations define the parts that the formula names, in order of use.
    limit : str
        A bound that ties several arguments together, in code names.
    """

    name: str
    step: Callable[[], Eq]
    meaning: str
    where: tuple[Step, ...] = ()
    limit: str = ""

    @property
    def definitions(self) -> tuple[Eq, ...]:
        """Equations of the parts that the formula uses, each before its first use."""
        available = (*SHORTHAND, *self._named_parts())
        needed = set(self.step().rhs.free_symbols)
        used = []
        for definition in reversed(available):
            if definition.lhs in needed:
                used.append(definition)
                needed |= definition.rhs.free_symbols
        return tuple(reversed(used))

    def _named_parts(self) -> tuple[Eq, ...]:
        results = (step() for step in self.where)
        return tuple(part for result in results for part in (result if isinstance(result, tuple) else (result,)))

    @property
    def expression(self) -> Expr:
        """The right-hand side in terms of the function's arguments alone."""
        return expand_parts(self.step().rhs, self._named_parts())

    @property
    def arguments(self) -> tuple[Symbol, ...]:
        """Free symbols in the order in which every generated function takes them."""
        free = self.expression.free_symbols
        unknown = free - set(ARGUMENTS)
        if unknown:
            raise ValueError(f"{self.name} depends on {sorted(map(str, unknown))}, which no generated function takes")
        return tuple(symbol for symbol in ARGUMENTS if symbol in free)

    @property
    def source(self) -> str:
        """Where the formula is derived: ``derivations.adamw.exact_norm_squared``."""
        return f"{self.step.__module__}.{self.step.__name__}"
