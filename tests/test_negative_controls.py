"""A negative control for every closed form: change one sign or coefficient, and an independent route notices.

The routes are in `tests/routes`. A mutant is the generated function with one + and − exchanged, one · and /, or one
constant raised by one.
"""

from __future__ import annotations

import ast
import copy
import inspect

import numpy as np
import pytest

from rotsim import closed_forms as forms
from tests.routes import ROUTES, in_time, memories, optimizers, radial  # noqa: F401

FUNCTIONS = dict(inspect.getmembers(forms, inspect.isfunction))

#: What an operator is replaced by.
OTHER = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}


def mutants(function):
    """`function` with one operator or number changed."""
    tree = ast.parse(inspect.getsource(function))
    tree.body[0].body = tree.body[0].body[1:]  # without the docstring
    tree.body[0].decorator_list = []  # no kernel calls a mutant
    for index, node in enumerate(ast.walk(tree)):
        if isinstance(node, ast.BinOp) and type(node.op) in OTHER:
            yield _compiled(tree, index, lambda n: setattr(n, "op", OTHER[type(n.op)]()))
        elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            yield _compiled(tree, index, lambda n: setattr(n, "value", n.value + 1))


def _compiled(tree, index, change):
    changed = copy.deepcopy(tree)
    change(list(ast.walk(changed))[index])
    namespace = dict(vars(forms))
    exec(compile(changed, "<mutant>", "exec"), namespace)
    return namespace[changed.body[0].name], ast.unparse(changed.body[0])


def agrees(pairs, tolerance):
    return all(np.isfinite(found) and abs(found - wanted) <= tolerance * abs(wanted) for found, wanted in pairs)


def test_every_closed_form_has_a_route():
    assert sorted(ROUTES) == sorted(FUNCTIONS)


@pytest.mark.few(30)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_changed_coefficient_is_noticed(name):
    check, tolerance = ROUTES[name]
    assert agrees(check(FUNCTIONS[name]), tolerance)
    survivors, noticed = [], 0
    with np.errstate(all="ignore"):
        for mutant, text in mutants(FUNCTIONS[name]):
            try:
                survives = agrees(check(mutant), tolerance)
            except (ValueError, ZeroDivisionError, TypeError):  # complex, or divided by nothing
                survives = False
            survivors += [text] if survives else []
            noticed += not survives
    assert survivors == []
    assert noticed
