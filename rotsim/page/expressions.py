"""Python expressions as JavaScript: names, operators, indices, calls. `rotsim/page/translate.py` says which."""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import textwrap
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Protocol

import numpy as np

from rotsim.compiled import Recipe
from rotsim.optimizers import OPTIMIZERS, WRAPPERS, Optimizer
from rotsim.page.literals import FUNCTIONS, METHODS, literal
from rotsim.theory.base import theory_of

_OPERATORS = {ast.Add: ("+", 11), ast.Sub: ("-", 11), ast.Mult: ("*", 12), ast.Div: ("/", 12), ast.Mod: ("%", 12)}
_OF_ARRAYS = {
    ast.Add: "$add", ast.Sub: "$subtract", ast.Mult: "$multiply", ast.Div: "$divide", ast.MatMult: "$product",
}  # fmt: skip
_COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "===", ast.NotEq: "!=="}
_INNER = ("self.inner", "self.spec.inner")
_RESERVED = {"new", "in", "of", "with", "var", "let", "default", "delete", "function", "const", "this", "void", "enum"}
_ATOM = 20  # how tightly a name or number binds: more than any operator


class Untranslatable(Exception):
    """A function has something that no kernel needs."""


class Definitions(Protocol):
    """Where the functions stand that an expression calls; it defines those that are new."""

    def function(self, function: Callable[..., Any] | Recipe, owner: type | None = None, arrays: bool = False) -> str:
        """The name of a function in JavaScript."""

    def data(self, function: Callable[[], Any]) -> str:
        """The name of the result of a cached function."""


class Expressions:
    """The expressions of one function, from its source."""

    def __init__(
        self,
        program: Definitions,
        function: Callable[..., Any],
        bound: dict[str, Any],
        owner: type | None,
        arrays: bool,
    ) -> None:
        assert isinstance(function, FunctionType)
        self.program, self.owner, self.arrays = program, owner, arrays
        self.kind = _kind_of(owner)
        self.scope = {**vars(builtins), **function.__globals__, **bound}
        self.title = function.__qualname__
        (self.tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
        assert isinstance(self.tree, ast.FunctionDef)
        self.parameters = [argument.arg for argument in self.tree.args.args]
        lambdas = [n.args for n in ast.walk(self.tree) if isinstance(n, ast.Lambda)]
        inner = {one.arg for of in lambdas for one in (*of.args, *filter(None, [of.vararg]))}
        names = {n.id for n in ast.walk(self.tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        self.variables = sorted(names - set(self.parameters))
        self.locals = names | set(self.parameters) | inner

    def expression(self, node: ast.expr | None) -> str:
        """JavaScript of an expression."""
        return self._bound(node)[0]

    def _bound(self, node: ast.expr | None) -> tuple[str, int]:
        """JavaScript of an expression, and how tightly its outermost operator binds."""
        if isinstance(node, ast.BinOp):
            return self._binary(node.left, node.op, node.right)
        if isinstance(node, ast.UnaryOp):
            sign = {ast.USub: "-", ast.UAdd: "+", ast.Not: "!"}.get(type(node.op))
            if sign == "-" and self.arrays and not isinstance(node.operand, ast.Constant):
                return f"$multiply(-1, {self.expression(node.operand)})", _ATOM
            if sign:
                return sign + self._within(node.operand, 13), 13
        if isinstance(node, ast.Compare):
            return self._comparison(node)
        if isinstance(node, ast.BoolOp):
            sign, level = (" && ", 4) if isinstance(node.op, ast.And) else (" || ", 3)
            return sign.join(self._within(value, level + 1) for value in node.values), level
        if isinstance(node, ast.IfExp):
            test, then, other = (self._within(part, 3) for part in (node.test, node.body, node.orelse))
            return f"{test} ? {then} : {other}", 2
        return self._atom(node), _ATOM

    def _within(self, node: ast.expr, level: int) -> str:
        text, binds = self._bound(node)
        return text if binds >= level else f"({text})"

    def _binary(self, left: ast.expr, operator: ast.operator, right: ast.expr) -> tuple[str, int]:
        if isinstance(operator, ast.MatMult) and isinstance(right, ast.Attribute) and right.attr == "T":
            return f"$productOfRows({self.expression(left)}, {self.expression(right.value)})", _ATOM
        if self.arrays and type(operator) in _OF_ARRAYS:
            return f"{_OF_ARRAYS[type(operator)]}({self.expression(left)}, {self.expression(right)})", _ATOM
        if isinstance(operator, ast.Pow):
            if self.arrays and isinstance(right, ast.Constant) and right.value == 2:
                return f"$multiply({self.expression(left)}, {self.expression(left)})", _ATOM
            if isinstance(right, ast.Constant) and right.value == 2:
                return f"$square({self.expression(left)})", _ATOM
            return self._elementwise("Math.pow", f"{self.expression(left)}, {self.expression(right)}"), _ATOM
        if isinstance(operator, ast.FloorDiv):
            return f"Math.floor({self._within(left, 12)} / {self._within(right, 13)})", _ATOM
        if type(operator) not in _OPERATORS:
            raise self._unknown(operator)
        sign, level = _OPERATORS[type(operator)]
        return f"{self._within(left, level)} {sign} {self._within(right, level + 1)}", level

    def _comparison(self, node: ast.Compare) -> tuple[str, int]:
        sides = [self._within(side, 11) for side in (node.left, *node.comparators)]
        if any(type(operator) not in _COMPARISONS for operator in node.ops):
            raise self._unknown(node)
        signs = [_COMPARISONS[type(operator)] for operator in node.ops]
        if self.arrays and len(signs) == 1 and signs[0] in "<>=":
            return self._elementwise(f"(a, b) => a {signs[0]} b", ", ".join(sides)), _ATOM
        pairs = [f"{a} {sign} {b}" for a, sign, b in zip(sides, signs, sides[1:], strict=False)]
        return " && ".join(pairs), 4 if len(pairs) > 1 else 9

    def _atom(self, node: ast.expr | None) -> str:
        if isinstance(node, ast.Constant):
            return literal(node.value)
        if isinstance(node, ast.Name):
            return safe(node.id) if node.id in self.locals else self._value(node, self._looked_up(node))
        if isinstance(node, ast.Tuple | ast.List):
            return f"[{', '.join(map(self.expression, node.elts))}]"
        if isinstance(node, ast.Starred):
            return f"...{self.expression(node.value)}"
        if isinstance(node, ast.Attribute):
            return self._attribute(node)
        if isinstance(node, ast.Subscript):
            return self._subscript(node)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.Lambda):
            given = [safe(one.arg) for one in node.args.args]
            given += [f"...{safe(node.args.vararg.arg)}"] if node.args.vararg else []
            return f"(({', '.join(given)}) => {self.expression(node.body)})"
        raise self._unknown(node or self.tree)

    def _looked_up(self, node: ast.Name) -> Any:
        if node.id not in self.scope:
            raise self._unknown(node, f"the name {node.id}")
        return self.scope[node.id]

    def _value(self, node: ast.AST, value: Any) -> str:
        """A constant or a function that a name stands for."""
        if isinstance(value, Recipe | FunctionType) or hasattr(value, "__wrapped__"):
            return self.program.function(value, arrays=self.arrays)
        if value is None or isinstance(value, bool | int | float | str | tuple | np.ndarray | np.generic):
            return literal(value)
        raise self._unknown(node)

    def _attribute(self, node: ast.Attribute) -> str:
        base = node.value
        if isinstance(base, ast.Call) and isinstance(base.func, ast.Name) and base.func.id == "type":
            base = base.args[0]
        if self.owner is not None and isinstance(base, ast.Name) and base.id == "self":
            return self._of_self(node)
        if ast.unparse(base) in _INNER:
            return f"{self.expression(base)}.{safe(node.attr)}"
        if self._is_spec(base):
            return self._of_spec(node)
        if isinstance(base, ast.Name) and base.id not in self.locals:
            module = self._looked_up(base)
            if isinstance(module, ModuleType):
                if hasattr(module, node.attr):
                    return self._value(node, getattr(module, node.attr))
                raise self._unknown(node)
        if node.attr == "T" and self.arrays:
            return f"$transposed({self.expression(base)})"
        if node.attr == "shape":
            return f"$shape({self.expression(base)})"
        return f"{self.expression(base)}.{safe(node.attr)}"

    def _of_self(self, node: ast.Attribute) -> str:
        assert self.owner is not None
        given = (
            {field.name for field in fields(self.owner)} if is_dataclass(self.owner) else {"spec", "rows", "cautious"}
        )
        if node.attr in given:
            return f"self.{node.attr}"
        found = inspect.getattr_static(self.owner, node.attr, None)
        if isinstance(found, property) and found.fget is not None:
            return self._property(found.fget, self.owner, "self")
        return self._value(node, getattr(self.owner, node.attr, None))

    def _is_spec(self, node: ast.expr) -> bool:
        """Whether it is ``self.spec`` of a theory."""
        return self.kind is not None and ast.unparse(node) == "self.spec"

    def _of_spec(self, node: ast.Attribute) -> str:
        """What the optimizer of a theory has: a field, or a property."""
        assert self.kind is not None
        found = inspect.getattr_static(self.kind, node.attr, None)
        if isinstance(found, property) and found.fget is not None:
            return self._property(found.fget, self.kind, "self.spec")
        return f"self.spec.{safe(node.attr)}"

    def _property(self, getter: Callable[..., Any], owner: type, of: str) -> str:
        """A property's value, computed; or that of the gentle example, where it is no kernel."""
        try:
            return f"{self.program.function(getter, owner, self.arrays)}({of})"
        except Untranslatable:
            if not issubclass(owner, Optimizer) or _moves(getter, owner.examples()[0]):
                raise
            return literal(getter(owner.examples()[0]))

    def _subscript(self, node: ast.Subscript) -> str:
        base, index = self._atom(node.value), node.slice
        if isinstance(index, ast.Slice):
            step = index.step
            if index.lower is None and index.upper is None and step is not None and ast.unparse(step) == "-1":
                return f"$backwards({base})"
            if index.lower is not None and index.upper is None and step is None:
                return f"{base}.slice({self.expression(index.lower)})"
            if index.upper is not None and index.lower is step is None:
                return f"{base}.slice(0, {self.expression(index.upper)})"
            raise self._unknown(node)
        places = index.elts if isinstance(index, ast.Tuple) else [index]
        if len(places) == 2 and ast.unparse(places[0]) == ":":
            return f"$column({base}, {self.expression(places[1])})"
        for place in places:
            number = ast.unparse(place)
            base = f"{base}[{base}.length - {number[1:]}]" if number[:1] == "-" else f"{base}[{self.expression(place)}]"
        return base

    def _call(self, node: ast.Call) -> str:
        if node.keywords:
            raise self._unknown(node, "keyword arguments")
        arguments = ", ".join(map(self.expression, node.args))
        if (written := ast.unparse(node.func)) == "len":
            return f"{arguments}.length"
        if written == "np.where":
            test, then, other = (self._within(argument, 3) for argument in node.args)
            return f"({test} ? {then} : {other})"
        if written == "np.maximum.accumulate":
            return f"$runningMaximum({arguments})"
        if written == "chain" and len(node.args) == 1 and isinstance(node.args[0], ast.Starred):
            return f"{self._atom(node.args[0].value)}.flat()"
        if isinstance(node.func, ast.Attribute):
            if written.endswith(".dtype.type"):
                return arguments
            if node.func.attr == "reshape" and len(node.args) == 2 and ast.unparse(node.args[0]) == "-1":
                return f"$rows({self.expression(node.func.value)}, {self.expression(node.args[1])})"
            if isinstance(node.func.value, ast.Call) and node.func.attr in METHODS:
                return f"{self.expression(node.func.value)}.{METHODS[node.func.attr]}({arguments})"
        if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) in _INNER:
            return f"{self.expression(node.func)}({arguments})"
        called = self._called(node.func)
        if called in (np, None):
            raise self._unknown(node)
        if isinstance(called, type) and hasattr(called, "_fields"):
            return f"$named({json.dumps(called._fields)}, [{arguments}])"
        if isinstance(called, type) and is_dataclass(called):
            given = dict(zip((field.name for field in fields(called)), map(self.expression, node.args), strict=False))
            rest = {field.name: literal(field.default) for field in fields(called) if field.name not in given}
            return f"{{ {', '.join(f'{name}: {value}' for name, value in (given | rest).items())} }}"
        module = getattr(called, "__module__", "") or ""
        if (known := f"{module}.{getattr(called, '__name__', '')}") in FUNCTIONS:
            return f"{FUNCTIONS[known]}({arguments})"
        if module == "rotsim.closed_forms":
            return self._elementwise(f"closed_forms.{called.__name__}", arguments)
        plain = isinstance(called, BuiltinFunctionType | type | np.ufunc) or module.split(".")[0] in ("numpy", "math")
        if plain:
            if called.__name__ not in FUNCTIONS:
                raise self._unknown(node, f"the function {written}")
            name = FUNCTIONS[called.__name__]
            return self._elementwise(name, arguments) if isinstance(called, np.ufunc) else f"{name}({arguments})"
        if hasattr(called, "cache_info") and not node.args:
            return self.program.data(called)
        if written.startswith("self.") and isinstance(called, FunctionType):  # a method
            of, owner = ("self.spec", self.kind) if written.startswith("self.spec.") else ("self", self.owner)
            name = self.program.function(called, owner, self.arrays)
            return f"{name}({', '.join(filter(None, (of, arguments)))})"
        return f"{self.program.function(called, arrays=self.arrays)}({arguments})"

    def _elementwise(self, name: str, arguments: str) -> str:
        """A call of a function of numbers, where its arguments may be arrays."""
        return f"$each({name}, {arguments})" if self.arrays else f"{name}({arguments})"

    def _called(self, function: ast.expr) -> Any:
        """What a call calls: something that Python has, never a local variable."""
        if isinstance(function, ast.Name) and function.id not in self.locals:
            return self._looked_up(function)
        if isinstance(function, ast.Attribute):
            base = function.value
            if ast.unparse(base) in ("self", "type(self)") and self.owner is not None:
                return getattr(self.owner, function.attr)
            if self._is_spec(base):
                return getattr(self.kind, function.attr)
            if isinstance(base, ast.Name) and base.id not in self.locals:
                return getattr(self._looked_up(base), function.attr)
            if ast.unparse(base) == "np.linalg" and self.scope.get("np") is np:
                return getattr(np.linalg, function.attr)
        raise self._unknown(function)

    def _unknown(self, node: ast.AST, what: str = "") -> Untranslatable:
        line = getattr(node, "lineno", 0)
        said = what or ast.unparse(node)
        return Untranslatable(f"{self.title}, line {line}: no JavaScript for {said}")


def _kind_of(owner: type | None) -> type[Optimizer] | None:
    """The optimizer that a theory is of."""
    for kind in (*OPTIMIZERS.values(), *WRAPPERS.values()) if owner is not None else ():
        if type(theory_of(kind.examples()[0])) is owner:
            return kind
    return None


def _moves(getter: Callable[..., Any], example: Optimizer) -> bool:
    """Whether a property changes with a hyperparameter that has a slider: a number, a switch or betas."""
    for field in fields(example):
        value: Any = getattr(example, field.name)
        other: Any = not value if isinstance(value, bool) else 0.9 * value if isinstance(value, float) else None
        if field.name == "betas":
            other = tuple(0.9 * beta for beta in value)
        if other is not None and getter(replace(example, **{field.name: other})) != getter(example):
            return True
    return False


def safe(name: str) -> str:
    """A name that JavaScript does not keep for itself."""
    return f"{name}_" if name in _RESERVED else name
