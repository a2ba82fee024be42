"""What a run starts from: its shape, its schedule, its initial weights or the state of an earlier run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import dataset
from rotsim.errors import LARGEST_SIZE, DatasetError, InvalidInput, array, integer, require
from rotsim.gradients import Gradient
from rotsim.noise import INITIAL_WEIGHTS_STREAM, neuron_keys, normals
from rotsim.optimizers.base import Optimizer

if TYPE_CHECKING:
    import xarray as xr

DEFAULT_DIM, DEFAULT_NEURONS = 1024, 64
STATE_VARIABLES = ("state", "norm_squared", "open_window")
MOST_NEURONS = 1 << 32  # which the random numbers of a neuron count
DRAWN_AT_ONCE = 1 << 20  # coordinates drawn at once
SLOTS = 3  # weights, first and second moment; a gradient model's memory follows


@dataclass
class State:
    """Everything the walk carries from step to step."""

    done: int
    slots: np.ndarray  # (neurons, at least SLOTS, dim)
    norm_squared: np.ndarray  # (neurons,) float64
    open_window: np.ndarray | float = 0.0  # (neurons, 3) sums of a record window cut short, else 0

    def store_in(self, result: xr.Dataset) -> None:
        """Add what `resumed` needs to a dataset."""
        neurons = len(self.norm_squared)
        sums = np.broadcast_to(np.asarray(self.open_window, np.float64), (neurons, 3))
        for name, part in zip(STATE_VARIABLES, (self.slots, self.norm_squared, sums), strict=True):
            result[name] = (dataset.FORMS[name][0], part.copy())


def shape_of_run(
    neurons: int | None, dim: int | None, steps: int, gradient: Gradient, initial_weights: np.ndarray | None
) -> tuple[int, int]:
    """(neurons, dim) from the arguments and from whatever arrays were given; they must agree."""
    neurons = None if neurons is None else integer("neurons", neurons, low=1, high=MOST_NEURONS)
    dim = None if dim is None else integer("dim", dim, low=2)
    found: dict[str, tuple[int | None, int | None]] = {}
    if initial_weights is not None:
        found["initial_weights"] = initial_weights.shape
    available, made_for_neurons, made_for_dim = gradient.extent
    require(
        available is None or steps <= available,
        "steps",
        f"be <= {available}, the steps that the gradient's data have",
        steps,
    )
    found["gradient"] = (made_for_neurons, made_for_dim)
    for source, (n, c) in found.items():
        if (n is not None and neurons not in (None, n)) or (c is not None and dim not in (None, c)):
            made_for = f"{'any number of' if n is None else n} neurons of {'any dim' if c is None else f'dim {c}'}"
            raise InvalidInput(f"`{source}` has {made_for}, which contradicts neurons={neurons}, dim={dim}")
        neurons, dim = neurons if n is None else n, dim if c is None else c
    return (
        integer("neurons", DEFAULT_NEURONS if neurons is None else neurons, low=1, high=MOST_NEURONS),
        integer("dim", DEFAULT_DIM if dim is None else dim, low=2),
    )


class Schedule:
    """Factor on a hyperparameter at each step: constant 1, an array, or a function of the step number."""

    def __init__(self, name: str, given: Any, steps: int) -> None:
        self.name = name
        self.given = given
        if given is None or callable(given):
            return
        self.given = array(name, given, f"have shape (steps,) = ({steps},) or be a function")
        if self.given.shape != (steps,):
            raise InvalidInput(
                f"`{name}` must have shape (steps,) = ({steps},) or be a function; got shape {self.given.shape}"
            )

    def __call__(self, step: np.ndarray) -> np.ndarray:
        """Factors at `step` (counted from 1), checked."""
        if self.given is None:
            return np.ones(len(step))
        if callable(self.given):
            found = array(self.name, self.given(step), "give a factor for each step")
            if found.shape not in ((), step.shape):
                raise InvalidInput(f"`{self.name}` must give a factor for each of {len(step)} steps; got {found.shape}")
            factor = np.broadcast_to(found, step.shape)
        else:
            factor = self.given[step - 1]
        if not (sound := (factor >= 0) & (factor <= LARGEST_SIZE)).all():
            where = int(step[~sound][0])
            rule = f"at most {LARGEST_SIZE:g}" if LARGEST_SIZE < factor[~sound][0] < np.inf else "finite factors >= 0"
            raise InvalidInput(f"`{self.name}` must give {rule}; it does not at step {where}")
        return factor

    def digest(self, steps: int) -> str:
        """Identifies the factors of the first `steps` steps."""
        if self.given is None:
            return "constant"
        hashed = sha256()
        for first in range(1, steps + 1, 1 << 16):
            hashed.update(self(np.arange(first, min(first + (1 << 16), steps + 1))).tobytes())
        return hashed.hexdigest()


def digests(schedules: tuple[Schedule, ...], steps: int) -> dict[str, str]:
    """Digest of each schedule by its name, for a dataset's spec."""
    return {schedule.name: schedule.digest(steps) for schedule in schedules}


def given_norms(neurons: int, initial_norm: Any, initial_weights: Any) -> np.ndarray:
    """‖w_0‖ of every neuron, checked."""
    if initial_weights is not None:
        norm: np.ndarray = np.linalg.norm(initial_weights, axis=1)
        if not (np.isfinite(norm) & (norm > 0)).all():
            raise InvalidInput("`initial_weights` must be finite with no zero row; a zero vector has no direction")
        return norm
    rule = f"be finite and > 0, one number or one per neuron ({neurons})"
    norm = array("initial_norm", initial_norm, rule)
    require(norm.shape in ((), (neurons,)) and bool((norm > 0).all()), "initial_norm", rule, initial_norm)
    require(bool((norm <= LARGEST_SIZE).all()), "initial_norm", f"be at most {LARGEST_SIZE:g}", initial_norm)
    return np.broadcast_to(norm, (neurons,))


def given_weights(initial_weights: Any) -> np.ndarray | None:
    """The initial weights as float64, shape (neurons, dim), if there are any."""
    if initial_weights is None:
        return None
    rule = "be an array of numbers of shape (neurons, dim)"
    weights = array("initial_weights", initial_weights, rule)
    if weights.ndim != 2:
        raise InvalidInput(f"`initial_weights` must have shape (neurons, dim); got {weights.shape}")
    if not np.abs(weights).max(initial=0.0) <= LARGEST_SIZE:
        raise InvalidInput(f"`initial_weights` must be finite and at most {LARGEST_SIZE:g} in size; some are not")
    return weights


def fresh(
    neurons: int,
    dim: int,
    seed: int,
    norms: np.ndarray,
    initial_weights: np.ndarray | None,
    dtype: np.dtype[Any],
    slots_needed: int = SLOTS,
) -> State:
    """State before the first step: given weights, or uniform directions of the given norms."""
    keys = neuron_keys(seed, neurons, INITIAL_WEIGHTS_STREAM)
    slots, norm_squared = np.zeros((neurons, slots_needed, dim), dtype), np.zeros(neurons)
    rows = max(1, DRAWN_AT_ONCE // dim)  # a few at a time: the temporaries of a draw are larger than its result
    for block in (slice(first, first + rows) for first in range(0, neurons, rows)):
        if initial_weights is None:
            direction = normals(keys[block], 0, dim).astype(np.float64)
            slots[block, 0] = direction * (norms[block] / np.linalg.norm(direction, axis=1))[:, None]
        else:
            slots[block, 0] = initial_weights[block]
        norm_squared[block] = (slots[block, 0].astype(np.float64) ** 2).sum(axis=1)
    return State(0, slots, norm_squared)


def initial_description(initial_norm: Any, initial_weights: Any) -> str:
    """Identifies the initial weights in a dataset's spec."""
    if initial_weights is not None:
        return "weights " + sha256(np.ascontiguousarray(initial_weights).tobytes()).hexdigest()
    norm = np.asarray(initial_norm, dtype=np.float64)
    return f"norm {float(norm)!r}" if norm.ndim == 0 else "norms " + sha256(norm.tobytes()).hexdigest()


def resumed(
    earlier: xr.Dataset,
    optimizer: Optimizer,
    spec: dict[str, Any],
    steps: int,
    schedules: tuple[Schedule, ...],
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
) -> State:
    """State saved in an earlier dataset, after checking that it belongs to the same run, whose state has this form."""
    dataset.validate(earlier)
    if "state" not in earlier:
        raise InvalidInput("`resume` needs a dataset made with keep_state=True; this one holds records only")
    if "open_window" not in earlier or "norm_squared" not in earlier:
        raise InvalidInput("`resume` was made by an older rotsim, without the sums of an open window; walk it again")
    done = int(earlier.step[-1])
    was = dataset.spec_of(earlier)
    now = {**spec, **digests(schedules, was["steps"])}
    if dataset.optimizer_of(earlier) != optimizer:
        raise InvalidInput(
            f"`resume` was run with {dataset.optimizer_of(earlier).describe()}, not {optimizer.describe()}; "
            "continue it with the same optimizer"
        )
    for name in now:
        if name != "steps" and json.dumps(now[name]) != json.dumps(was.get(name)):
            raise InvalidInput(
                f"`resume` was run with {name}={was.get(name)!r}, not {now[name]!r}; give the same {name}"
            )
    require(steps >= done, "steps", f"be >= {done}, the steps that the resumed run has done", steps)
    parts = [earlier[name].values.copy() for name in STATE_VARIABLES]
    forms = [(shape, dtype), (shape[:1], np.dtype("float64")), ((shape[0], 3), np.dtype("float64"))]
    found = [(part.shape, part.dtype) for part in parts]
    if done != was["steps"] or found != forms or not all(np.isfinite(part).all() for part in parts):
        raise DatasetError(
            f"`resume` is damaged: its state after {done} of {was['steps']} steps must be finite and of {forms}; "
            f"it is of {found}"
        )
    return State(done, *parts)
