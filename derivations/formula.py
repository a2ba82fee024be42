"""Steps of a derivation in the order in which they are defined, and the formulas that are generated from them.

`step` decorates a function that returns an equation, or several. With a name it is generated into
``rotsim/closed_forms.py`` as well. Nothing else has to be told of it.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from sympy import Eq, Expr, Symbol

from derivations.symbols import ARGUMENTS, SHORTHAND, expand_parts

Step = Callable[[], Any]  # an equation, or a tuple of them


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


#: By module, in order of definition.
STEPS: dict[str, list[Step]] = defaultdict(list)
FORMULAS: dict[str, list[Formula]] = defaultdict(list)


def step(
    formula: str | Step, meaning: str = "", where: tuple[Step, ...] = (), limit: str = "", shown: bool = True
) -> Any:
    """The next step of a module's argument, worked out once: ``@step``, or ``@step("name", "meaning")``.

    Parameters
    ----------
    formula : str
        Name of the function that is generated from the step's equation.
    meaning, where, limit
        As in `Formula`.
    shown : bool
        False for an equation that is generated and takes no part in the argument.
    """

    def register(function: Callable[[], Any]) -> Any:
        found = cache(function)
        if shown:
            follow(function.__module__, found)
        if isinstance(formula, str):
            generated(function.__module__, formula, found, meaning, where, limit)
        return found

    return register if isinstance(formula, str) else register(formula)


def follow(module: str, *steps: Step) -> None:
    """Steps that another module defines, at this place of the argument of `module`."""
    STEPS[module] += steps


def generated(module: str, name: str, step: Step, meaning: str, where: tuple[Step, ...] = (), limit: str = "") -> None:
    """One more function that `module` generates, from an equation that has one already or stands elsewhere."""
    FORMULAS[module].append(Formula(name, step, meaning, where, limit))


def expression(module: str, name: str) -> Expr:
    """What `module` generates under a name, in the function's arguments."""
    return next(formula.expression for formula in FORMULAS[module] if formula.name == name)
