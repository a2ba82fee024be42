"""Python functions that numba can compile, as JavaScript: the page runs rotsim's own update rules and courses.

A function is read from its source, and with it every function that it calls and every constant that it names. What is
understood is what kernels are made of: numbers, arrays by index, loops, conditions, tuples, a few functions of NumPy.
Theories and rules for a whole matrix are read with ``arrays``: then arithmetic may meet arrays, and is a call of
`runtime.js`. Everything else raises `Untranslatable`, which names the line. Six rules go beyond syntax:

* ``closed_forms.NAME`` is the function of that name in ``closed_forms.js``, which sympy prints.
* A cached function without arguments is data: it is called here, and its result stands in the page.
* A call for its own sake of what is no part of a kernel and returns something checks arguments. It is left out, since
  the page has sliders.
* ``self.NAME`` is a value of the object where NAME is a field, else what the class has under that name. In a theory
  ``self.spec.NAME`` is the same of its optimizer.
* A property that is no kernel is data: its value for the optimizer's gentle example. The page has no sliders for it.
* ``self.inner``, the optimizer inside another, is an object whose methods it brings (`walk.js`).
"""

from __future__ import annotations

import ast
import inspect
import json
from collections.abc import Callable
from types import FunctionType
from typing import Any

from rotsim.compiled import PARTS, Recipe
from rotsim.page.expressions import Expressions, Untranslatable, safe
from rotsim.page.literals import literal

#: Functions of `runtime.js`.
RUNTIME = (
    "$square", "$zeros", "$ones", "$full", "$zerosLike", "$onesLike", "$named", "$shape", "$backwards",
    "$runningMaximum", "$add", "$subtract", "$multiply", "$divide", "$product", "$transposed", "$size", "$rows",
    "$matrices", "$matrix", "$cells", "$like", "$productOfRows", "$spectral", "$rowResponse", "$inParts",
    "$each", "$range", "$append", "$column", "$count", "$array", "$theory", "$adamCovariance",
)  # fmt: skip


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


class _Reader(Expressions):
    """One function: its statements around its expressions."""

    depth = 0  # of loops

    # --- whole functions

    def definition(self, name: str) -> str:
        """``function name(parameters) {...}``."""
        head = f"function {name}({', '.join(map(safe, self.parameters))})"
        return f"{head} {{\n{self._declared()}{self._block(self._body(), '  ')}}}"

    def loop(self, name: str) -> str:
        """The body for every coordinate, with what it returns put where it belongs."""
        *start, last = self._body()
        if not isinstance(last, ast.Return) or not isinstance(last.value, ast.Tuple):
            raise self._unknown(self.tree, "an update that does not end with what it changes")
        w, m, v, g, c, *more = map(safe, self.parameters)
        kept = {m: "M", v: "V", **dict.fromkeys(more, "S")}  # S is the walker's row for one more average
        change, *new = (self.expression(part) for part in last.value.elts)
        if len(new) != len(kept) or len(more) > 1:
            raise self._unknown(self.tree, "an update that is not (w, m, v, g, c[, s]) -> (change, m, v[, s])")
        read = ", ".join(f"{name} = {row}[i]" for name, row in {w: "W", **kept, g: "G"}.items())
        stored = "".join(f"    {row}[i] = new_{row};\n" for row in kept.values())
        named = ", ".join(f"new_{row} = {value}" for row, value in zip(kept.values(), new, strict=True))
        head, tail = f"    let {read};\n", f"    D[i] = {change};\n    const {named};\n{stored}"
        loop = f"  for (let i = first; i < last; i += 1) {{\n{head}{self._block(start, '    ')}{tail}  }}\n"
        return f"function {name}(W, M, V, G, D, {c}, first, last, {{ S }}) {{\n{self._declared()}{loop}}}"

    def _body(self) -> list[ast.stmt]:
        assert isinstance(self.tree, ast.FunctionDef)
        return self.tree.body

    def _declared(self) -> str:
        return f"  let {', '.join(map(safe, self.variables))};\n" if self.variables else ""

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
            acts = isinstance(called, FunctionType) and inspect.get_annotations(called).get("return") in ("None", None)
            if not isinstance(called, Recipe) and called not in PARTS and not acts:
                return []
        return [f"{self.expression(value)};"]

    def _loop_head(self, node: ast.For) -> str:
        if isinstance(node.target, ast.Tuple):
            return f"for ({self.expression(node.target)} of {self.expression(node.iter)}) {{"
        assert isinstance(node.target, ast.Name)
        self.depth += 1
        name, counter = safe(node.target.id), f"i_{self.depth}"
        call = node.iter
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "range"):
            return f"for ({name} of {self.expression(call)}) {{"
        bounds = [self.expression(argument) for argument in call.args]
        start, end, step = ["0", *bounds, "1"] if len(bounds) == 1 else [*bounds, "1"][:3]
        sign = ">" if step.startswith("-") else "<"
        head = f"for (let {counter} = {start}, end = {end}; {counter} {sign} end; {counter} += {step})"
        return f"{head} {{ {name} = {counter};"


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
