"""What `simulate` was asked for: every argument checked, the engine chosen, the memory counted."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import dataset
from rotsim.errors import LARGEST_SIZE, DatasetError, InvalidInput, array, choice, instance, integer, require
from rotsim.gradients import Gradient, checked_gradient
from rotsim.memory import check_fits
from rotsim.optimizers import Optimizer, checked_optimizer
from rotsim.optimizers.base import matrix_rows
from rotsim.schedules import Schedule, digests, pair
from rotsim.simulation.engines import AUTO, NAMES, engine_for, hint_of_reduced
from rotsim.simulation.engines.base import Engine, Problem
from rotsim.simulation.formats import check_format
from rotsim.simulation.state import State, check_resumable, resumed

if TYPE_CHECKING:
    import xarray as xr

_DEFAULT_DIM, _DEFAULT_NEURONS = 1024, 64
_MAX_NEURONS = 1 << 32  # the random numbers count so many neurons
_MAX_STEPS = 1 << 32  # and so many steps
_MAX_THREADS_PER_CORE = 4
_BYTES_OF_A_NEURON = 64  # keys, norms, and what checking them takes


@dataclass(frozen=True, eq=False)
class Run:
    """A walk that can begin.

    Attributes
    ----------
    problem : Problem
    engine : Engine
    steps : int
        In all, those of `resume` included.
    window : int
        Steps per record window.
    schedules : tuple of Schedule
        Factors on learning rate and weight decay.
    dtype, initial : str
        As a dataset's spec says them: the format asked for, and a description of the initial weights.
    workers : int
    resume : Dataset or None
    """

    problem: Problem
    engine: Engine
    steps: int
    window: int
    schedules: tuple[Schedule, Schedule]
    dtype: str
    initial: str
    workers: int
    resume: xr.Dataset | None

    def spec(self, steps: int) -> dict[str, Any]:
        """What determines the numbers of the first `steps` steps, besides the optimizer."""
        problem = self.problem
        return {
            "dim": problem.dim,
            "neurons": problem.neurons,
            **({"rows": problem.rows} if problem.optimizer.acts_on == "matrix" else {}),
            "steps": steps,
            "gradient": problem.gradient.to_dict(),
            "seed": problem.seed,
            "record_every": self.window,
            "dtype": self.dtype,
            "engine": self.engine.name,
            **digests(self.schedules, steps),
            "initial": self.initial,
        }

    def start(self) -> State:
        """The state that it begins with; `InvalidInput` if `resume` is of another run."""
        if self.resume is None:
            return self.engine.fresh(self.problem)
        optimizer, was = dataset.optimizer_of(self.resume), dataset.spec_of(self.resume)
        if optimizer != self.problem.optimizer:
            raise InvalidInput(
                f"`resume` was run with {optimizer.describe()}, not {self.problem.optimizer.describe()}; "
                "continue it with the same optimizer"
            )
        for name, value in self.spec(was["steps"]).items():
            if json.dumps(value) != json.dumps(was.get(name)):
                raise InvalidInput(
                    f"`resume` was run with {name}={was.get(name)!r}, not {value!r}; give the same {name}"
                )
        done = int(self.resume.step[-1])
        require(self.steps >= done, "steps", f"be >= {done}, the steps that the resumed run has done", self.steps)
        shape = (self.problem.neurons, *self.engine.shape(self.problem))
        return resumed(self.resume, shape, self.problem.dtype)


def checked_run(
    optimizer: Any,
    gradient: Any,
    *,
    dim: Any,
    neurons: Any,
    steps: Any,
    seed: Any,
    initial_norm: Any,
    initial_weights: Any,
    record_every: Any,
    lr_schedule: Any,
    wd_schedule: Any,
    dtype: Any,
    engine: Any,
    keep_state: bool,
    resume: Any,
    threads: Any,
    rows: Any,
) -> Run:
    """The run that these arguments of `simulate` ask for, all of them checked."""
    optimizer = checked_optimizer(optimizer)
    if not hasattr(optimizer.plain, "update"):
        raise InvalidInput(optimizer.refusal())
    gradient = checked_gradient(gradient)
    steps = integer("steps", steps, low=1, high=_MAX_STEPS)
    window = integer("record_every", record_every, low=1)
    seed = integer("seed", seed, low=0, high=1 << 64)
    dtype = choice("dtype", dtype, ("float32", "float64"))
    engine = choice("engine", engine, NAMES)
    workers = _workers(threads)
    if resume is not None:
        import xarray as xr

        instance("resume", resume, xr.Dataset, "a dataset, such as rotsim.load reads from a file")
        check_resumable(resume)
        engine = _engine_of(resume) if engine == AUTO else engine
    initial_weights = _weights(initial_weights)
    neurons, dim = _shape(neurons, dim, steps, gradient, initial_weights)
    rows = _rows(rows, optimizer, neurons, dim)
    chosen = engine_for(engine, optimizer, gradient, (rows, dim), keep_weights=keep_state)
    hint = hint_of_reduced(optimizer, gradient, (rows, dim)) if chosen.keeps_weights else ""
    require(dim <= chosen.max_dim, "dim", f"be <= {chosen.max_dim}{hint}", dim)
    least = optimizer.min_dim
    require(dim >= least, "dim", f"be >= {least} for {optimizer.label}, which tells {least} directions apart", dim)
    norms = _norms(neurons, initial_norm, initial_weights)
    problem = Problem(optimizer, gradient, neurons, dim, seed, chosen.dtype(dtype), norms, initial_weights, rows)
    _check_memory(problem, chosen, workers, -(-steps // window), hint)
    source = "initial_norm" if initial_weights is None else "initial_weights"
    check_format(optimizer, gradient, norms, dim, problem.dtype, source)
    schedules = pair(lr_schedule, wd_schedule, steps)
    initial = dataset.initial_description(initial_norm, initial_weights)
    return Run(problem, chosen, steps, window, schedules, dtype, initial, workers, resume)


def _check_memory(problem: Problem, engine: Engine, workers: int, windows: int, hint: str) -> None:
    """Raise `InvalidInput` if the run does not fit."""
    rows, length = engine.shape(problem)
    state = problem.neurons * rows * length * problem.dtype.itemsize + engine.bytes_beside_state(problem, workers)
    neuron = problem.gradient.parameters().shape[1] * 8 + _BYTES_OF_A_NEURON
    check_fits(state + problem.neurons * neuron, 3 * problem.neurons * windows * 24, hint)


def _workers(threads: Any) -> int:
    """Threads to start."""
    cores = os.cpu_count() or 1
    return cores if threads is None else min(integer("threads", threads, low=1), _MAX_THREADS_PER_CORE * cores)


def _engine_of(resume: xr.Dataset) -> str:
    """The name of the engine that a dataset was made with."""
    made_with = dataset.spec_of(resume).get("engine", "numba")
    if made_with not in NAMES:
        raise DatasetError(f"`engine` in the spec of `resume` is no engine of this rotsim: {made_with!r}")
    return str(made_with)


def _shape(
    neurons: int | None, dim: int | None, steps: int, gradient: Gradient, initial_weights: np.ndarray | None
) -> tuple[int, int]:
    """(neurons, dim) from the arguments and from whatever arrays were given; they must agree."""
    neurons = None if neurons is None else integer("neurons", neurons, low=1, high=_MAX_NEURONS)
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
        integer("neurons", _DEFAULT_NEURONS if neurons is None else neurons, low=1, high=_MAX_NEURONS),
        integer("dim", _DEFAULT_DIM if dim is None else dim, low=2),
    )


def _rows(rows: Any, optimizer: Optimizer, neurons: int, dim: int) -> int:
    """Neurons that see each other: of a matrix, all unless it is said; 1 where an optimizer knows no matrices."""
    found = matrix_rows(optimizer, neurons if rows is None and optimizer.acts_on == "matrix" else rows, dim)
    if found is None:
        return 1
    require(neurons % found == 0, "neurons", f"be a multiple of rows={found}, which make one matrix", neurons)
    return found


def _norms(neurons: int, initial_norm: Any, initial_weights: Any) -> np.ndarray:
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


def _weights(initial_weights: Any) -> np.ndarray | None:
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
