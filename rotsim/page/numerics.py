"""The numeric core of the page: rotsim's optimizers, courses and noise as JavaScript.

Every optimizer of the registry is there, with its update rule and, where theory follows it in time, with its course.
Nothing here or in the page asks for an optimizer's name.
"""

from __future__ import annotations

import inspect
from dataclasses import fields
from importlib.resources import files
from typing import Any

from rotsim import closed_forms, noise
from rotsim.angle import squared_angle, squared_chord
from rotsim.optimizers import OPTIMIZERS, Optimizer
from rotsim.page.literals import literal
from rotsim.page.translate import Program, Untranslatable
from rotsim.theory.base import theory_of

#: Hand-written files that need no browser, in the order in which they stand in the page.
CORE = ("noise.js", "schedules.js", "walk.js", "prediction.js", "predictions.js", "state.js", "lab.js")


def script() -> str:
    """Everything of the page that computes, as one script: it runs in Node.js as in a browser.

    Returns
    -------
    str
    """
    program = Program()
    described = ",\n".join(_described(program, kind) for kind in OPTIMIZERS.values() if walked(kind))
    angle, chord = program.function(squared_angle), program.function(squared_chord)
    constants = {
        "key": [int(word) for word in noise._KEY],
        "constants": [float(number) for number in noise.CONSTANTS],
        "sqrt_half_bits": int(noise._SQRT_HALF_BITS),
        "shift_bits": int(noise._SHIFT_BITS),
        "golden": int(noise._GOLDEN),
    }
    own = (
        f"const NOISE = {literal(constants)};\n"
        f"const OPTIMIZERS = [\n{described},\n];\n"
        "function squaredAngle(before, after, along, moved) {\n"
        f"  return {angle}({chord}(before, after, along, moved));\n}}\n"
    )
    return "\n".join([text("runtime.js"), text("closed_forms.js"), program.source(), own, *map(text, CORE)])


def walked(kind: type[Optimizer]) -> bool:
    """Whether the page has an optimizer: it draws neurons, and translates rules that act on a coordinate."""
    return hasattr(kind, "update") and kind.acts_on != "matrix"


def text(name: str) -> str:
    """One of the page's files."""
    return (files("rotsim.page") / name).read_text(encoding="utf-8")


def _described(program: Program, kind: type[Optimizer]) -> str:
    """What the page knows of an optimizer: names, hyperparameters, and its functions."""
    gentle, _ = kind.examples()
    own: dict[str, Any] = {field.name: getattr(gentle, field.name) for field in fields(kind)}
    functions = {
        "move": program.loop(kind.update, f"$move_{kind.name}"),
        "coefficients": program.function(kind.coefficients, kind),
        "course": _of_theory(program, gentle, "advance"),
        "lasting_decay": _of_theory(program, gentle, "lasting_decay"),
        "leading_rotation": (
            program.function(kind.leading_rotation, kind)
            if kind.leading_rotation is not Optimizer.leading_rotation
            else "null"
        ),
    }
    functions["equilibrium"] = _equilibrium(kind)
    limit = inspect.getattr_static(kind, "decay_limit")
    functions["decay_limit"] = program.function(limit.fget, kind)
    traits = {
        "name": kind.name,
        "python": kind.__name__,
        "label": kind.label,
        "shape": kind.shape,
        "decay": kind.decay,
        "hyperparameters": own,
    }
    described = [f"{key}: {literal(value)}" for key, value in traits.items()]
    return f"  {{ {', '.join([*described, *(f'{key}: {name}' for key, name in functions.items())])} }}"


def _equilibrium(kind: type[Optimizer]) -> str:
    """The paper's norm and rotation, by the closed forms that bear the optimizer's name; null if there are none."""
    names = [f"{kind.name}_leading_{quantity}" for quantity in ("norm", "rotation")]
    if not all(hasattr(closed_forms, name) for name in names):
        return "null"
    given = {
        "lr": "self.lr", "weight_decay": "self.weight_decay", "momentum": "self.momentum", "beta1": "self.betas[0]",
        "beta2": "self.betas[1]", "dim": "dim", "gradient_power": "power", "homogeneity": "homogeneity",
    }  # fmt: skip
    calls = []
    for quantity, name in zip(("norm", "rotation"), names, strict=True):
        arguments = inspect.signature(getattr(closed_forms, name)).parameters
        calls.append(f"{quantity}: closed_forms.{name}({', '.join(given[argument] for argument in arguments)})")
    return f"(self, dim, power, homogeneity) => ({{ {', '.join(calls)} }})"


def _of_theory(program: Program, optimizer: Optimizer, method: str) -> str:
    """A method of its theory, or null: without a theory, or with one that is more than loops."""
    theory = theory_of(optimizer)
    if theory is None:
        return "null"
    try:
        return program.function(getattr(type(theory), method), type(theory))
    except Untranslatable:
        return "null"
