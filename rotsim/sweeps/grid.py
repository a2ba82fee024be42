"""The cells of a sweep: which names take which values, and the optimizer, gradient and settings of each combination."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from itertools import product
from typing import Any

import numpy as np

from rotsim.errors import InvalidInput, constructed, instance, is_a, mapping, sequence, shown
from rotsim.gradients import Gradient, checked_gradient
from rotsim.optimizers import Optimizer

MOST_CELLS = 10_000_000  # a sweep has no more, since their results are held in memory


@dataclass(frozen=True)
class Axis:
    """What one name is set to, along one dimension of the result.

    Attributes
    ----------
    name : str
        A hyperparameter, a parameter of the gradient, or a setting of the measure.
    dimension : str
        Axes of one dimension go together: their n-th values make one cell.
    values : tuple
    """

    name: str
    dimension: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Recipe:
    """Everything that a cell depends on, before it is known whether the values go together.

    Attributes
    ----------
    kind : type of Optimizer
    base : Optimizer or None
        Values of hyperparameters that are not named in `values`.
    gradient : Gradient
    values : dict
        By name: those of the axes and those given once.
    """

    kind: type[Optimizer]
    base: Optimizer | None
    gradient: Gradient
    values: Mapping[str, Any]

    def specs(self) -> tuple[Optimizer, Gradient, dict[str, Any]]:
        """The optimizer, the gradient and the settings that are left; `InvalidInput` where values are out of range."""
        rest = dict(self.values)
        own = {name: rest.pop(name) for name in hyperparameters(self.kind, self.base) if name in rest}
        noise = {name: rest.pop(name) for name in _parameters(self.gradient) if name in rest}
        optimizer = with_values(self.kind, self.base, own)
        return optimizer, replace(self.gradient, **noise) if noise else self.gradient, rest


@dataclass(frozen=True)
class Grid:
    """All cells of a sweep.

    Attributes
    ----------
    axes : tuple of Axis
    shape : dict of str to int
        Length of each dimension, in the order of first mention.
    """

    axes: tuple[Axis, ...]
    shape: dict[str, int]
    kind: type[Optimizer]
    base: Optimizer | None
    gradient: Gradient
    fixed: Mapping[str, Any]

    def __len__(self) -> int:
        return int(np.prod(list(self.shape.values()), dtype=object)) if self.shape else 1

    def cells(self) -> Iterator[Recipe]:
        """The recipes in row-major order of `shape`."""
        for place in product(*map(range, self.shape.values())):
            at = dict(zip(self.shape, place, strict=True))
            swept = {axis.name: axis.values[at[axis.dimension]] for axis in self.axes}
            yield Recipe(self.kind, self.base, self.gradient, {**self.fixed, **swept})


def grid(
    spec: Any, over: Any, settings: Mapping[str, Any], gradient: Gradient | None, fixed: Mapping[str, Any]
) -> Grid:
    """Check what is swept and what is fixed, by name.

    Parameters
    ----------
    spec : type of Optimizer, or Optimizer
    over : mapping of str to sequence, or to (dimension, sequence)
    settings : mapping
        Names that the measure takes.
    gradient : Gradient or None
    fixed : mapping
        Values given once, of hyperparameters, the gradient or the measure.

    Raises
    ------
    InvalidInput
        For an unknown or missing name, an empty sequence, or dimensions that do not fit.
    """
    kind, base = _kind_and_base(spec)
    model = checked_gradient(gradient)
    own = hyperparameters(kind, base)
    known = list(dict.fromkeys([*own, *_parameters(model), *settings]))
    swept, once = mapping("over", over, known), mapping("fixed", fixed, known)
    axes: list[Axis] = []
    shape: dict[str, int] = {}
    for name, given in swept.items():
        if name in once:
            raise InvalidInput(f"`{name}` is both swept and fixed; give it once")
        axis = _axis(name, given)
        if shape.setdefault(axis.dimension, len(axis.values)) != len(axis.values):
            raise InvalidInput(
                f"axes along {axis.dimension!r} must be of one length; "
                f"`{name}` has {len(axis.values)} values, another has {shape[axis.dimension]}"
            )
        axes.append(axis)
    missing = [] if base is not None else [n for n in own if n in _required(kind) and n not in swept and n not in once]
    if missing:
        raise InvalidInput(f"a sweep of {kind.__name__} needs values for {', '.join(missing)}: sweep or fix them")
    found = Grid(tuple(axes), shape, kind, base, model, once)
    if len(found) > MOST_CELLS:
        raise InvalidInput(f"a sweep has at most {MOST_CELLS:,} cells; this one has {len(found):,}. Sweep it in parts")
    return found


def hyperparameters(kind: type[Optimizer], base: Optimizer | None = None) -> list[str]:
    """Names of the numbers that a spec is made of; `betas` as `beta1`, `beta2` ..., those of a wrapped spec beside."""
    names: list[str] = []
    for field in fields(kind):
        if field.name == "inner":
            inner = getattr(base, "inner", None)
            names = [*(hyperparameters(type(inner), inner) if inner is not None else []), *names]
        elif field.init:
            names += _betas(kind) if field.name == "betas" else [field.name]
    return list(dict.fromkeys(names))


def _betas(kind: type[Optimizer]) -> list[str]:
    """Names of the entries of `betas`: `beta1`, `beta2`, and `beta3` where there are three."""
    default: Any = next((field.default for field in fields(kind) if field.name == "betas"), ())
    return [f"beta{place}" for place in range(1, len(default) + 1)]


def _required(kind: type[Optimizer]) -> set[str]:
    return {field.name for field in fields(kind) if field.init and field.default is MISSING}


def _parameters(gradient: Gradient) -> list[str]:
    """Names of the numbers and switches of a gradient model."""
    return [field.name for field in fields(gradient) if is_a(getattr(gradient, field.name), float, int, bool, tuple)]


def _kind_and_base(spec: Any) -> tuple[type[Optimizer], Optimizer | None]:
    if isinstance(spec, type) and issubclass(spec, Optimizer):
        return spec, None
    base: Optimizer = instance("spec", spec, Optimizer, "an optimizer's class or spec, such as rotsim.AdamW")
    return type(base), base


def _axis(name: str, given: Any) -> Axis:
    dimension, values = name, given
    if is_a(given, tuple) and len(given) == 2 and is_a(given[0], str):
        dimension, values = given
    entries = sequence(f"over[{name!r}]", values, "be a list of values, or (dimension, list of values)")
    if not entries:
        raise InvalidInput(f"`over[{name!r}]` has no values; give at least one")
    try:
        json.dumps(entries, default=str)
    except ValueError:  # a list that holds itself
        raise InvalidInput(f"`over[{name!r}]` must have values that can be written; got {shown(entries)}") from None
    return Axis(name, dimension, tuple(entries))


def with_values(kind: type[Optimizer], base: Optimizer | None, values: Mapping[str, Any]) -> Optimizer:
    """The spec with these hyperparameters."""
    given: dict[str, Any] = dict(values)
    names = _betas(kind)
    if not given.keys().isdisjoint(names):
        betas = (base or kind).betas  # type: ignore[union-attr]
        given["betas"] = tuple(given.pop(name, beta) for name, beta in zip(names, betas, strict=True))
    if base is None:
        return constructed(kind, given, kind.__name__)
    if inner := getattr(base, "inner", None):
        own = {field.name for field in fields(kind) if field.init}
        outer = {name: given.pop(name) for name in list(given) if name in own}
        changed: Any = {**outer, "inner": with_values(type(inner), inner, given)}
        return replace(base, **changed)
    return replace(base, **given)
