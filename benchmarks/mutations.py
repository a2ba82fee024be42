"""Single small faults that a source file could have: which there are, and what each is called.

A mutation exchanges a comparison, an operator, a number, a truth value, a bound or two arguments, or leaves a statement
out. Docstrings, annotations, texts and what only describes a dataclass stay as they are.
"""

import ast
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: What an operator is exchanged for. A comparison has its boundary moved, or is turned round.
_OPERATORS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
}
_PAIRS = [("min", "max"), ("minimum", "maximum"), ("any", "all")]
_NAMES = {a: b for pair in _PAIRS for a, b in (pair, pair[::-1])}
_UNORDERED = {"isinstance", "hasattr", "getattr"}  # exchanged arguments would only raise
_CONTEXT = 24  # characters shown on both sides of a change


@dataclass(frozen=True)
class Mutation:
    """One fault. ``name`` identifies it as long as the function and the text around the change stay."""

    module: str
    function: str
    change: str

    @property
    def name(self) -> str:
        return f"{self.module} {self.function}: {self.change}"


def mutations(module: str, source: str) -> Iterator[Mutation]:
    """Every mutation of a module, given its name and text."""
    yield from (found for found, _ in _mutants(module, ast.parse(source)))


def mutated(mutation: Mutation, source: str) -> str:
    """The text of the module with the mutation in it, as `ast` writes it."""
    tree = ast.parse(source)
    for found, (parent, field, index, new) in _mutants(mutation.module, tree):
        if found == mutation:
            with _replaced(parent, field, index, new):
                return ast.unparse(tree)
    raise LookupError(f"{mutation.name} is no mutation of this text")


def _mutants(module: str, tree: ast.Module) -> Iterator[tuple[Mutation, tuple]]:
    seen = Counter[tuple[str, str]]()
    for function, statement, *place in _sites(tree, "<module>", None):
        before, new = ast.unparse(statement), place[-1]
        with _replaced(*place):
            after = ast.unparse(new if isinstance(new, ast.stmt) else statement)
        if before == after:
            continue
        change = _difference(before, after)
        seen[function, change] += 1
        if seen[function, change] > 1:
            change += f" ({seen[function, change]})"
        yield Mutation(module, function, change), tuple(place)


def code_lines(source: str) -> int:
    """Lines on which a statement begins, docstrings not counted."""
    return len({node.lineno for node in ast.walk(ast.parse(source)) if isinstance(node, ast.stmt) and not _text(node)})


def _text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@contextmanager
def _replaced(parent: ast.AST, field: str, index: int | None, new: ast.AST) -> Iterator[None]:
    holder, key = (vars(parent), field) if index is None else (getattr(parent, field), index)
    old, holder[key] = holder[key], new
    try:
        yield
    finally:
        holder[key] = old


def _sites(parent: ast.AST, function: str, statement: ast.stmt | None) -> Iterator[tuple]:
    """(function, statement around it, parent, field, index, replacement) of every mutation below a node."""
    if isinstance(parent, ast.FunctionDef | ast.ClassDef):
        function = parent.name if function == "<module>" else f"{function}.{parent.name}"
    for field, value in ast.iter_fields(parent):
        if field in ("annotation", "returns") or (field == "decorator_list" and isinstance(parent, ast.ClassDef)):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(child, ast.AST) or _text(child):
                continue
            around = child if isinstance(child, ast.stmt) else statement
            for new in _alternatives(child, parent, field):
                yield function, around, parent, field, index, ast.fix_missing_locations(ast.copy_location(new, child))
            yield from _sites(child, function, around)


def _alternatives(node: ast.AST, parent: ast.AST, field: str) -> Iterator[ast.AST]:
    """What a node is replaced by."""
    yield from (other() for other in _OPERATORS.get(type(node), ()))
    match node:
        case ast.Constant(value=bool(value)):
            yield ast.Constant(not value)
        case ast.Constant(value=0) if field == "slice":
            yield ast.Constant(-1)
        case ast.Constant(value=int(value)):
            yield from (ast.Constant(value + 1), ast.Constant(value - 1))
        case ast.Constant(value=float(value)):
            yield ast.Constant(2 * value or 1.0)
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=1)) if field == "slice":
            yield ast.Constant(0)
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            yield operand
        case ast.Name(id=name) if name in _NAMES:
            yield ast.Name(_NAMES[name], node.ctx)
        case ast.Attribute(attr=name) if name in _NAMES:
            yield ast.Attribute(node.value, _NAMES[name], node.ctx)
        case ast.Call(func=func, args=[first, second, *rest]) if not (
            (isinstance(func, ast.Name) and func.id in _UNORDERED)
            or isinstance(first, ast.Starred)
            or isinstance(second, ast.Starred)
        ):
            yield ast.Call(func, [second, first, *rest], node.keywords)
        case ast.Expr() | ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break():
            yield ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield ast.Pass()
    if field in ("test", "ifs") and not isinstance(node, ast.Compare | ast.BoolOp | ast.UnaryOp):
        yield ast.UnaryOp(ast.Not(), node)


def _difference(before: str, after: str) -> str:
    """The changed part of a text and what it became, with what is around it."""
    start = _same(before, after)
    end = _same(before[start:][::-1], after[start:][::-1])
    shown = [text[max(start - _CONTEXT, 0) : len(text) - max(end - _CONTEXT, 0)] for text in (before, after)]
    return " → ".join(" ".join(text.split()) for text in shown)


def _same(one: str, other: str) -> int:
    """Characters that two texts begin with alike."""
    pairs = zip(one, other, strict=False)
    return next((place for place, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))
