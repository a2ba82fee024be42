"""The numeric core of the page: rotsim's optimizers, courses and noise as JavaScript.

Every optimizer of the registry is there, with its update rule and, where theory follows it in time, with its course.
So is what turns weights along the update of another optimizer. Nothing here asks for an optimizer's name, nor does the
page.
"""

from __future__ import annotations

import inspect
from dataclasses import fields
from importlib.resources import files
from typing import Any

from rotsim import closed_forms, noise
from rotsim.angle import squared_angle, squared_chord
from rotsim.compiled import specialised
from rotsim.errors import InvalidInput
from rotsim.gradients import ScaleInvariant
from rotsim.optimizers import OPTIMIZERS, WRAPPERS, Cautious, Optimizer
from rotsim.optimizers.cautious import masked
from rotsim.optimizers.turning import Turning
from rotsim.page.expressions import Untranslatable
from rotsim.page.literals import literal
from rotsim.page.translate import Program
from rotsim.statistics import ENOUGH_NEURONS
from rotsim.theory import second_moment
from rotsim.theory.base import theory_of

#: Hand-written files that need no browser, in the order in which they stand in the page.
CORE = (
    "noise.js", "schedules.js", "spectral.js", "second_moment.js", "walk.js", "prediction.js", "predictions.js",
    "state.js", "lab.js",
)  # fmt: skip
#: What turns weights at a norm that stays, by name.
TURNING = {name: kind for name, kind in WRAPPERS.items() if issubclass(kind, Turning)}


def script() -> str:
    """Everything of the page that computes, as one script: it runs in Node.js as in a browser.

    Returns
    -------
    str
    """
    program = Program()
    described = ",\n".join(_described(program, kind) for kind in OPTIMIZERS.values() if walked(kind))
    turning = ",\n".join(f"  {name}: {_turning(program, kind)}" for name, kind in TURNING.items())
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
        f"const TURNING = {{\n{turning},\n}};\n"
        f"const ENOUGH_NEURONS = {ENOUGH_NEURONS};\n"
        f"const SECOND_MOMENT = {_second_moment(program)};\n"
        "function squaredAngle(before, after, along, moved) {\n"
        f"  return {angle}({chord}(before, after, along, moved));\n}}\n"
    )
    return "\n".join([text("runtime.js"), text("closed_forms.js"), program.source(), own, *map(text, CORE)])


def walked(kind: type[Optimizer]) -> bool:
    """Whether the page has an optimizer: rotsim can walk it."""
    return hasattr(kind, "update")


def text(name: str) -> str:
    """One of the page's files."""
    return (files("rotsim.page") / name).read_text(encoding="utf-8")


def _described(program: Program, kind: type[Optimizer]) -> str:
    """What the page knows of an optimizer: names, hyperparameters, and its functions."""
    gentle, _ = kind.examples()
    own: dict[str, Any] = {field.name: getattr(gentle, field.name) for field in fields(kind)}
    functions = {
        "move": _move(program, kind),
        "cautious": _behind_a_mask(program, gentle),
        "coefficients": program.function(kind.coefficients, kind),
        "course": _of_theory(program, gentle, "advance"),
        "lasting_decay": _of_theory(program, gentle, "lasting_decay"),
        "remembered": _of_theory(program, gentle, "remembered"),
        "leading_rotation": _leading_rotation(program, gentle),
        "filling": _filling(program, gentle),
    }
    functions["equilibrium"] = _equilibrium(program, gentle, functions["leading_rotation"])
    limit = inspect.getattr_static(kind, "decay_limit")
    functions["decay_limit"] = program.function(limit.fget, kind)
    traits = {
        "name": kind.name,
        "python": kind.__name__,
        "label": kind.label,
        "shape": kind.shape,
        "decay": kind.decay,
        "hyperparameters": own,
        "matrices": kind.acts_on == "matrix",
        "turned": [name for name, wrapper in TURNING.items() if _accepts(wrapper, gentle)],
        "fixed": [name for name, value in own.items() if not isinstance(value, float | bool) and name != "betas"],
    }
    described = [f"{key}: {literal(value)}" for key, value in traits.items()]
    return f"  {{ {', '.join([*described, *(f'{key}: {name}' for key, name in functions.items())])} }}"


def _accepts(kind: type[Turning], inner: Optimizer) -> bool:
    """Whether it turns weights along the update of an optimizer, with decay or without."""
    decay = inner.weight_decay if kind.needs_decay else 0.0
    try:
        kind(inner.with_rates(inner.lr, decay))
    except InvalidInput:
        return False
    return True


def _turning(program: Program, kind: type[Turning]) -> str:
    """What the page knows of what turns weights: names, hyperparameters of its own, and its functions."""
    gentle, _ = kind.examples()
    traits = {
        "python": kind.__name__,
        "label": kind.label,
        "needs_decay": kind.needs_decay,
        "own": {one.name: getattr(gentle, one.name) for one in fields(kind) if one.init and one.name != "inner"},
    }
    functions = {
        "holding": program.function(kind.holding, kind),
        "turn": program.function(kind.turn),
        "leading_rotation": program.function(kind.leading_rotation, kind),
        "course": _of_theory(program, gentle, "advance"),
    }
    described = [f"{key}: {literal(value)}" for key, value in traits.items()]
    return f"{{ {', '.join([*described, *(f'{key}: {name}' for key, name in functions.items())])} }}"


def _second_moment(program: Program) -> str:
    """What `second_moment.js` sums: the integrand, its grid, and the degree of the polynomial that it becomes."""
    constants = {
        "step": second_moment.STEP,
        "left": second_moment.LEFT_END,
        "negligible": second_moment.NEGLIGIBLE,
        "degree": second_moment.DEGREES[-1],
        "trimmed": second_moment.TRIMMED,
    }
    described = [f"{key}: {literal(value)}" for key, value in constants.items()]
    described.append(f"substituted: {program.function(second_moment.substituted)}")
    described.append(f"logProductAndSum: {program.function(second_moment.log_product_and_sum)}")
    return f"{{ {', '.join(described)} }}"


def _move(program: Program, kind: type[Optimizer]) -> str:
    """A step of all neurons: of each coordinate, or of each matrix."""
    if kind.acts_on == "coordinate":
        return program.loop(kind.update, f"$move_{kind.name}")
    factor = getattr(kind, "update_factor", None)
    scale = "null" if factor is None else program.function(factor, kind)
    return f"$matrices({program.function(kind.update, arrays=True)}, {scale})"


def _behind_a_mask(program: Program, optimizer: Optimizer) -> str:
    """The same step with cautious decay; null for an optimizer that has none, and for matrices."""
    if optimizer.acts_on == "matrix":
        return "null"
    try:
        Cautious(optimizer)
    except InvalidInput:
        return "null"
    kind = type(optimizer)
    name = f"move_cautious_{kind.name}"
    return program.loop(specialised(masked(kind), name, {"_plain": kind.update}), f"${name}")


def _leading_rotation(program: Program, optimizer: Optimizer) -> str:
    """The angle of its rotational variant; null where it has none."""
    try:
        optimizer.leading_rotation(optimizer.lr, optimizer.weight_decay)
    except InvalidInput:
        return "null"
    return program.function(type(optimizer).leading_rotation, type(optimizer))


def _equilibrium(program: Program, optimizer: Optimizer, rotation: str) -> str:
    """The paper's norm and rotation, by the closed forms that bear the optimizer's name; null if there are none."""
    kind, theory = type(optimizer), theory_of(optimizer)
    names = {quantity: f"{kind.name}_leading_{quantity}" for quantity in ("norm", "rotation")}
    if theory is None or not all(hasattr(closed_forms, name) for name in names.values()):
        return "null"
    lr = program.function(inspect.getattr_static(type(theory), "lr").fget, type(theory))
    given = {
        "lr": f"{lr}({{ spec: self }})", "weight_decay": "self.weight_decay", "momentum": "self.momentum",
        "beta1": "self.betas[0]", "beta2": "self.betas[1]", "beta3": "self.betas[2]", "mix": "self.alpha", "dim": "dim",
        "gradient_power": "power", "homogeneity": "homogeneity",
    }  # fmt: skip
    calls = {}
    for quantity, name in names.items():
        arguments = inspect.signature(getattr(closed_forms, name)).parameters
        calls[quantity] = f"closed_forms.{name}({', '.join(given[argument] for argument in arguments)})"
    if rotation != "null":
        calls["rotation"] = f"{rotation}(self, self.lr, self.weight_decay)"
    return f"(self, dim, power, homogeneity) => ({{ {', '.join(f'{name}: {call}' for name, call in calls.items())} }})"


def _filling(program: Program, optimizer: Optimizer) -> str:
    """What its updates are like at a norm that is held; null where theory does not know."""
    theory = theory_of(optimizer)
    try:
        if theory is not None:
            theory.filling(3, ScaleInvariant().power(3), 1)
    except InvalidInput:
        return "null"
    return _of_theory(program, optimizer, "filling")


def _of_theory(program: Program, optimizer: Optimizer, method: str) -> str:
    """A method of its theory, or null: without a theory, or with one that is more than the page can calculate."""
    theory = theory_of(optimizer)
    if theory is None:
        return "null"
    try:
        return program.function(getattr(type(theory), method), type(theory), arrays=True)
    except Untranslatable:
        return "null"
