"""Traces from what others recorded: logs and checkpoints become the dataset that the recorder writes.

A log holds looks, each at one step. It often lacks the hyperparameters, which the user then gives.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim.dataset import build
from rotsim.errors import DatasetError, InvalidInput, instance, integer, is_a, nonnegative, positive, sequence, text
from rotsim.optimizers.base import Optimizer
from rotsim.schedules import named

if TYPE_CHECKING:
    import xarray as xr

_NUMBERS = ("norm", "rotation", "update_rms", "gradient_norm")


@dataclass(frozen=True)
class Hyperparameters:
    """What a training was run with, as far as its log does not say.

    Attributes
    ----------
    optimizer : Optimizer
        With the largest learning rate of the schedule.
    schedule : {"constant", "linear", "cosine", "wsd"}
    steps : int or None
        Of the whole run; None for the last step that there is.
    warmup_steps : int
    final : float
        Factor on lr at the last step.
    """

    optimizer: Optimizer
    schedule: str = "constant"
    steps: int | None = None
    warmup_steps: int = 0
    final: float = 0.0

    def described(self, last: int) -> dict[str, Any]:
        """The schedule as a dataset's spec holds it; checks it."""
        instance("optimizer", self.optimizer, Optimizer, "a spec such as rotsim.AdamW(lr=1e-3, weight_decay=0.1)")
        steps = last if self.steps is None else integer("steps", self.steps, low=1)
        if steps < last:
            raise InvalidInput(f"`steps` must be at least {last}, the last step that was recorded; got {steps}")
        named(self.schedule, steps, self.warmup_steps, self.final)
        given = {"name": self.schedule, "steps": steps, "warmup_steps": self.warmup_steps, "final": float(self.final)}
        return {**given, "lr": self.optimizer.lr}


@dataclass
class Series:
    """One layer as it was recorded.

    Attributes
    ----------
    name : str
    fan_in : int
        Weights per neuron.
    values : dict of str to ndarray, each (neurons, looks)
        ``norm`` and ``rotation``, and what else there is: ``update_rms``, ``gradient_norm``.
    initial_norm : ndarray, shape (neurons,), or None
        Before the first step, or at the first checkpoint.
    rates : dict of str to ndarray, each (looks,)
        ``lr`` and ``weight_decay`` where the log has them.
    """

    name: str
    fan_in: int
    values: dict[str, np.ndarray]
    initial_norm: np.ndarray | None = None
    rates: dict[str, np.ndarray] = field(default_factory=dict)


def trace_of(
    layers: Iterable[Series],
    step: np.ndarray,
    span: np.ndarray,
    given: Hyperparameters,
    scale_invariant: Iterable[str] = (),
    initial_step: int = 0,
    spec: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """The dataset of some layers that were looked at after the same steps.

    Parameters
    ----------
    layers : iterable of Series
    step : ndarray of int, shape (looks,)
        >= 1, rising.
    span : ndarray of int, shape (looks,)
        Steps between the two weights that a look compares, >= 1.
    given : Hyperparameters
    scale_invariant : iterable of str
        Names or patterns of the layers that a normalisation follows.
    initial_step : int
        Steps before `initial_norm`.
    spec : mapping, optional
        What else belongs to the dataset's spec.

    Raises
    ------
    DatasetError
        If there is no layer, or a number is negative or infinite.
    InvalidInput
        If a hyperparameter or a pattern is wrong.
    """
    layers = list(layers)
    if not layers or not len(step):
        raise DatasetError("nothing was recorded: there is no layer with two looks at it")
    schedule, last = given.described(int(step[-1])), int(step[-1])
    factor = named(schedule["name"], schedule["steps"], schedule["warmup_steps"], schedule["final"])(step)
    counts = [len(layer.values["norm"]) for layer in layers]

    def joined(name: str) -> np.ndarray:
        parts = [
            layer.values.get(name, np.full((n, len(step)), np.nan)) for layer, n in zip(layers, counts, strict=True)
        ]
        return _sound(name, np.concatenate(parts))

    def per_neuron(values: Iterable[Any]) -> np.ndarray:
        return np.repeat(list(values), counts)

    optimizer, names = given.optimizer, [layer.name for layer in layers]
    default = {"lr": optimizer.lr * factor, "weight_decay": np.full(len(step), optimizer.weight_decay)}
    rates = {name: np.stack([layer.rates.get(name, value) for layer in layers]) for name, value in default.items()}
    logged = [name for name in default if any(name in layer.rates for layer in layers)]
    values = {name: joined(name) for name in _NUMBERS}
    if not np.isfinite(values["update_rms"]).any():  # the chord at a norm that hardly changes in a step
        values["update_rms"] = 2 * values["norm"] * np.sin(values["rotation"] / 2)
    if np.isfinite(values["gradient_norm"]).any():
        values["gradient_scale"] = values["gradient_norm"] * values["norm"]
    else:
        del values["gradient_norm"]
    moved = {name: _last_moving(row, optimizer) for name, row in zip(names, rates["lr"], strict=True)}
    declared = _matching(scale_invariant, names)
    trace = build(
        "trace",
        step=step,
        variables=values,
        optimizer=optimizer.with_rates(
            positive("lr", max(moved.values())), nonnegative("weight_decay", float(rates["weight_decay"][:, -1].max()))
        ),
        layer=per_neuron(names),
        fan_in=per_neuron(layer.fan_in for layer in layers),
        spec={
            **(spec or {}),
            "steps": last,
            **({"scale_invariant_layers": declared} if declared else {}),
            **({} if "lr" in logged else {"schedule": schedule}),
        },
    ).assign_coords(
        span=("step", np.asarray(span, dtype=np.int64)),
        lr=("neuron", per_neuron(moved.values())),
        weight_decay=("neuron", per_neuron(rates["weight_decay"][:, -1])),
        parameter=("parameter", np.array(names, dtype=str)),
    )
    if all(layer.initial_norm is not None for layer in layers):
        start = _sound("norm", np.concatenate([np.asarray(layer.initial_norm, dtype=float) for layer in layers]))
        trace = trace.assign_coords(
            initial_norm=("neuron", start), initial_step=("neuron", np.full(len(start), initial_step))
        )
    for name, row in rates.items():
        trace[f"window_{name}"] = ("parameter", "step"), _sound(name, row)
    return trace


def _sound(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if (values < 0).any() or np.isinf(values).any() or (values > 1e30).any():
        raise DatasetError(f"`{name}` must hold numbers from 0 to 1e30, or NaN where there is none; it does not")
    return values


def _last_moving(rates: np.ndarray, optimizer: Optimizer) -> float:
    moving = rates[np.isfinite(rates) & (rates > 0)]
    return float(moving[-1]) if len(moving) else optimizer.lr


def _matching(patterns: Iterable[str], names: list[str]) -> list[str]:
    found: set[str] = set()
    for pattern in [patterns] if is_a(patterns, str) else sequence("scale_invariant", patterns):
        matched = {name for name in names if fnmatchcase(name, text("scale_invariant", pattern))}
        if not matched:
            raise InvalidInput(
                f"`scale_invariant` names no layer by {pattern!r}; there are {', '.join(names[:5])}"
                + (f" and {len(names) - 5} more" if len(names) > 5 else "")
            )
        found |= matched
    return sorted(found)
