"""Python functions that numba can compile, as JavaScript: the page runs rotsim's own update rules and courses.

A function is read from its source, and with it every function that it calls and every constant that it names. What is
understood is what kernels are made of: numbers, arrays by index, loops, conditions, tuples, a few functions of NumPy.
Rules for a whole matrix are read with ``arrays``: then arithmetic may meet matrices, and is a call of `runtime.js`.
Everything else raises `Untranslatable`, which names the line. Five rules go beyond syntax:

* ``closed_forms.NAME`` is the function of that name in ``closed_forms.js``, which sympy prints.
* A cached function without arguments is data: it is called here, and its result stands in the page.
* A call for its own sake of what is no part of a kernel checks arguments, and is left out. The page has sliders.
* ``self.NAME`` is a value of the object where NAME is a field, else what the class has under that name. In a theory
  ``self.spec.NAME`` is the same of its optimizer.
* A property that is no kernel is data: its value for the optimizer's gentle example. The page has no sliders for it.
"""

from __future__ import annotations

import ast
import builtins
import inspect
import json
import textwrap
from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np

from rotsim.compiled import PARTS, Recipe
from rotsim.optimizers import OPTIMIZERS, Optimizer
from rotsim.page.literals import FUNCTIONS, METHODS, literal
from rotsim.theory.base import theory_of

#: Functions of `runtime.js`.
RUNTIME = (
    "$square", "$zeros", "$ones", "$full", "$zerosLike", "$named", "$shape", "$backwards", "$runningMaximum", "$add",
    "$subtract", "$multiply", "$divide", "$product", "$transposed", "$size", "$rows", "$matrices", "$matrix",
    "$cells", "$like", "$productOfRows", "$spectral",
    "$rowResponse",
)  # fmt: skip
_OPERATORS = {ast.Add: ("+", 11), ast.Sub: ("-", 11), ast.Mult: ("*", 12), ast.Div: ("/", 12), ast.Mod: ("%", 12)}
_OF_ARRAYS = {
    ast.Add: "$add", ast.Sub: "$subtract", ast.Mult: "$multiply", ast.Div: "$divide", ast.MatMult: "$product",
}  # fmt: skip
_COMPARISONS = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "===", ast.NotEq: "!=="}
_RESERVED = {"new", "in", "of", "with", "var", "let", "default", "delete", "function", "const", "this", "void", "enum"}
_ATOM = 20  # how tightly a name or number binds: more than any operator


class Untranslatable(Exception):
    """A function has something that no kernel needs."""


class Program:
    """JavaScript of functions and of all that they call, each once."""

    def __init__(self) -> None:
        self._definitions: dict[str, str] = {}
        self._names: dict[Any, str] = {}

    def source(self) -> str:
        """All definitions; data after what makes it."""
        return "\n".join(self._definitions.values()) + "\n"

    def function(self, function: Callable[..., Any] | Recipe, owner: type | None = None, arrays: bool = False) -> str:
        """The name that a function, or a method of `owner`, has in JavaScript; defined if it is new."""
        recipe = function if isinstance(function, Recipe) else None
        plain = inspect.unwrap(recipe.function if recipe else function)  # type: ignore[arg-type]
        arrays = arrays and recipe is None and plain not in PARTS  # kernels calculate with numbers
        key = (recipe or plain, owner, arrays)
        if key not in self._names:
            stem = recipe.name if recipe else f"{owner.__name__}_{plain.__name__}" if owner else plain.__name__
            self._names[key] = name = self._fresh(stem.lstrip("_"))
            self._definitions[name] = ""  # the name is taken, should the function call itself
            reader = _Reader(self, plain, {} if recipe is None else recipe.bound, owner, arrays)
            try:
                self._definitions[name] = reader.definition(name)
            except Untranslatable:
                del self._names[key], self._definitions[name]
                raise
        return self._names[key]

    def loop(self, update: Callable[..., Any], name: str) -> str:
        """A function that applies the update of a coordinate to a range of coordinates; see `walk.js`."""
        reader = _Reader(self, inspect.unwrap(update), {}, None, False)
        self._definitions[name] = reader.loop(name)
        return name

    def data(self, function: Callable[[], Any]) -> str:
        """The name of the result of a cached function without arguments."""
        if function not in self._names:
            self._names[function] = name = self._fresh(function.__name__.lstrip("_") + "_data")
            self._definitions[name] = f"const {name} = {literal(function())};"
        return self._names[function]

    def _fresh(self, stem: str) -> str:
        """A name that neither `runtime.js` nor a function before it has; no local variable starts with a dollar."""
        name, number = f"${stem}", 2
        while name in self._definitions or name in RUNTIME:
            name, number = f"${stem}_{number}", number + 1
        return name


class _Reader:
    """One function, from its source."""

    def __init__(
        self,
        program: Program,
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
        names = {n.id for n in ast.walk(self.tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        self.variables = sorted(names - set(self.parameters))
        self.locals = names | set(self.parameters)
        self.depth = 0

    # --- whole functions

    def definition(self, name: str) -> str:
        """``function name(parameters) {...}``."""
        head = f"function {name}({', '.join(map(_safe, self.parameters))})"
        return f"{head} {{\n{self._declared()}{self._block(self._body(), '  ')}}}"

    def loop(self, name: str) -> str:
        """The body for every coordinate, with what it returns put where it belongs."""
        *start, last = self._body()
        if len(self.parameters) != 5 or not isinstance(last, ast.Return) or not isinstance(last.value, ast.Tuple):
            raise self._unknown(self.tree, "an update that is not (w, m, v, g, c) -> (change, m, v)")
        w, m, v, g, c = map(_safe, self.parameters)
        change, new_m, new_v = (self.expression(part) for part in last.value.elts)
        head = f"    let {w} = W[i], {m} = M[i], {v} = V[i], {g} = G[i];\n"
        tail = (
            f"    D[i] = {change};\n    const new_m = {new_m}, new_v = {new_v};\n    M[i] = new_m;\n    V[i] = new_v;\n"
        )
        loop = f"  for (let i = first; i < last; i += 1) {{\n{head}{self._block(start, '    ')}{tail}  }}\n"
        return f"function {name}(W, M, V, G, D, {c}, first, last) {{\n{self._declared()}{loop}}}"

    def _body(self) -> list[ast.stmt]:
        assert isinstance(self.tree, ast.FunctionDef)
        return self.tree.body

    def _declared(self) -> str:
        return f"  let {', '.join(map(_safe, self.variables))};\n" if self.variables else ""

    # --- statements

    def _block(self, body: list[ast.stmt], indent: str) -> str:
        return "".join(indent + line + "\n" for node in body for line in self.statement(node))

    def _inner(self, body: list[ast.stmt]) -> list[str]:
        return ["  " + line for node in body for line in self.statement(node)]

    def statement(self, node: ast.stmt) -> list[str]:
        """Lines of one statement."""
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            return self._assign(node.targets[0], node.value)
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            return self._assign(node.target, node.value)
        if isinstance(node, ast.AugAssign):
            return [f"{self.expression(node.target)} = {self._binary(node.target, node.op, node.value)[0]};"]
        if isinstance(node, ast.Expr):
            return self._for_its_own_sake(node.value)
        if isinstance(node, ast.Return):
            return [f"return {self.expression(node.value)};" if node.value else "return;"]
        if isinstance(node, ast.If):
            lines = [f"if ({self.expression(node.test)}) {{", *self._inner(node.body), "}"]
            return lines + (["else {", *self._inner(node.orelse), "}"] if node.orelse else [])
        if isinstance(node, ast.While) and not node.orelse:
            return [f"while ({self.expression(node.test)}) {{", *self._inner(node.body), "}"]
        if isinstance(node, ast.For) and not node.orelse and isinstance(node.target, ast.Name | ast.Tuple):
            return [self._loop_head(node), *self._inner(node.body), "}"]
        if isinstance(node, ast.Raise):
            return [f"throw new RangeError({json.dumps(f'{self.title} has no answer here')});"]
        if isinstance(node, ast.Break | ast.Continue | ast.Pass):
            return [{"Break": "break;", "Continue": "continue;", "Pass": ""}[type(node).__name__]]
        raise self._unknown(node)

    def _assign(self, target: ast.expr, value: ast.expr) -> list[str]:
        if not isinstance(target, ast.Tuple):
            return [self._set(target, self.expression(value))]
        targets = target.elts
        if (
            isinstance(value, ast.Tuple)
            and len(value.elts) == len(targets)
            and not any(isinstance(item, ast.Starred) for item in value.elts)
        ):
            values = [self.expression(item) for item in value.elts]
            if not _depend(targets, value.elts):
                return [self._set(one, held) for one, held in zip(targets, values, strict=True)]
            held = ", ".join(f"part_{place} = {one}" for place, one in enumerate(values))
            return [f"{{ const {held};", *(f"  {self._set(one, f'part_{i}')}" for i, one in enumerate(targets)), "}"]
        if isinstance(value, ast.Subscript) and isinstance(value.slice, ast.Slice) and value.slice.lower is None:
            value = value.value  # the targets take the first items
        if isinstance(value, ast.Name):
            return [self._set(one, f"{self.expression(value)}[{place}]") for place, one in enumerate(targets)]
        return [f"[{', '.join(map(self.expression, targets))}] = {self.expression(value)};"]

    def _set(self, target: ast.expr, value: str) -> str:
        """An assignment; to a whole row where the last index is a colon."""
        if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Tuple):
            *places, last = target.slice.elts
            if isinstance(last, ast.Slice) and last.lower is last.upper is last.step is None:
                row = self._atom(target.value) + "".join(f"[{self.expression(place)}]" for place in places)
                return f"{row}.fill({value});"
        return f"{self.expression(target)} = {value};"

    def _for_its_own_sake(self, value: ast.expr) -> list[str]:
        if isinstance(value, ast.Constant):
            return []  # a docstring
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
            called = self.scope.get(value.func.id)
            if not isinstance(called, Recipe) and called not in PARTS:
                return []
        return [f"{self.expression(value)};"]

    def _loop_head(self, node: ast.For) -> str:
        if isinstance(node.target, ast.Tuple):
            return f"for ({self.expression(node.target)} of {self.expression(node.iter)}) {{"
        assert isinstance(node.target, ast.Name)
        self.depth += 1
        name, counter = _safe(node.target.id), f"i_{self.depth}"
        call = node.iter
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "range"):
            return f"for ({name} of {self.expression(call)}) {{"
        bounds = [self.expression(argument) for argument in call.args]
        start, end, step = ["0", *bounds, "1"] if len(bounds) == 1 else [*bounds, "1"][:3]
        sign = ">" if step.startswith("-") else "<"
        head = f"for (let {counter} = {start}, end = {end}; {counter} {sign} end; {counter} += {step})"
        return f"{head} {{ {name} = {counter};"

    # --- expressions

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
            return f"Math.pow({self.expression(left)}, {self.expression(right)})", _ATOM
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
        pairs = [f"{a} {sign} {b}" for a, sign, b in zip(sides, signs, sides[1:], strict=False)]
        return " && ".join(pairs), 4 if len(pairs) > 1 else 9

    def _atom(self, node: ast.expr | None) -> str:
        if isinstance(node, ast.Constant):
            return literal(node.value)
        if isinstance(node, ast.Name):
            return _safe(node.id) if node.id in self.locals else self._value(node, self._looked_up(node))
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
        return f"{self.expression(base)}.{_safe(node.attr)}"

    def _of_self(self, node: ast.Attribute) -> str:
        assert self.owner is not None
        given = {field.name for field in fields(self.owner)} if is_dataclass(self.owner) else {"spec", "rows"}
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
        return f"self.spec.{_safe(node.attr)}"

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
            raise self._unknown(node)
        places = index.elts if isinstance(index, ast.Tuple) else [index]
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
        called = self._called(node.func)
        if called in (np, None):
            raise self._unknown(node)
        if isinstance(called, type) and hasattr(called, "_fields"):
            return f"$named({json.dumps(called._fields)}, [{arguments}])"
        module = getattr(called, "__module__", "") or ""
        if (known := f"{module}.{getattr(called, '__name__', '')}") in FUNCTIONS:
            return f"{FUNCTIONS[known]}({arguments})"
        if module == "rotsim.closed_forms":
            return f"closed_forms.{called.__name__}({arguments})"
        plain = isinstance(called, BuiltinFunctionType | type | np.ufunc) or module.split(".")[0] in ("numpy", "math")
        if plain:
            if called.__name__ not in FUNCTIONS:
                raise self._unknown(node, f"the function {written}")
            return f"{FUNCTIONS[called.__name__]}({arguments})"
        if hasattr(called, "cache_info") and not node.args:
            return self.program.data(called)
        if written.startswith("self.") and isinstance(called, FunctionType):  # a method
            of, owner = ("self.spec", self.kind) if written.startswith("self.spec.") else ("self", self.owner)
            name = self.program.function(called, owner, self.arrays)
            return f"{name}({', '.join(filter(None, (of, arguments)))})"
        return f"{self.program.function(called, arrays=self.arrays)}({arguments})"

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
    for kind in OPTIMIZERS.values() if owner is not None else ():
        if hasattr(kind, "update") and type(theory_of(kind.examples()[0])) is owner:
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


def _safe(name: str) -> str:
    return f"{name}_" if name in _RESERVED else name


def _depend(targets: list[ast.expr], values: list[ast.expr]) -> bool:
    """Whether a later value or place has a name that an earlier target changes."""
    changed: set[str] = set()
    for target, value in zip(targets, values, strict=True):
        used = {n.id for n in ast.walk(value) if isinstance(n, ast.Name)} | _indices(target)
        if used & changed:
            return True
        changed |= {n.id for n in ast.walk(target) if isinstance(n, ast.Name)} - _indices(target)
    return False


def _indices(target: ast.expr) -> set[str]:
    """Names that say where in an array, and do not change."""
    return {n.id for n in ast.walk(getattr(target, "slice", ast.Pass())) if isinstance(n, ast.Name)}
