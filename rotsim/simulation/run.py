"""`simulate`: validate, allocate, run the kernel chunk by chunk on all cores, return the dataset."""

from __future__ import annotations

import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np

from rotsim import dataset, files
from rotsim.errors import DatasetError, InvalidInput, choice, flag, function, instance, integer, positive, require
from rotsim.gradients import Gradient, checked_gradient
from rotsim.memory import check_fits
from rotsim.noise import GRADIENT_STREAM, neuron_keys
from rotsim.optimizers import Optimizer, Rotational, Unmodelled, checked_optimizer
from rotsim.simulation import cuda, gram, rotational, twin, walk
from rotsim.simulation.formats import Diverged, check_format, check_memory_of_gradients, lost
from rotsim.simulation.interrupt import Interrupted, stop_requested
from rotsim.simulation.start import (
    DRAWN_AT_ONCE,
    SLOTS,
    STATE_VARIABLES,
    Schedule,
    State,
    digests,
    fresh,
    given_norms,
    given_weights,
    initial_description,
    resumed,
    shape_of_run,
)
from rotsim.simulation.workspace import Workspace, workspace, workspace_bytes

if TYPE_CHECKING:
    import xarray as xr

Progress = Callable[[int, int], None]
Engine = Literal["auto", "numba", "numpy", "gram", "cuda"]

_COORDINATE_STEPS_PER_CHUNK = 3e8  # a few tenths of a second per core between two looks at progress and Ctrl-C
_LEAST_COST = 64  # a step costs at least as much as that of so many coordinates
_MAX_CHUNK = 1 << 16
_THREADS_PER_CORE = 4  # more are not started
_LONGEST_ROW = 1 << 32  # coordinates that the random numbers of a walk count
_BYTES_OF_A_DRAW = 64  # of the temporaries of one coordinate in NumPy: words, normals, and what is made of them
_BYTES_OF_A_NEURON = 64  # keys, norms and what their check takes


def simulate(
    optimizer: Optimizer,
    dim: int | None = None,
    neurons: int | None = None,
    steps: int = 20_000,
    gradient: Gradient | None = None,
    seed: int = 0,
    initial_norm: float | np.ndarray = 1.0,
    initial_weights: np.ndarray | None = None,
    record_every: int = 100,
    lr_schedule: np.ndarray | Callable[[np.ndarray], np.ndarray] | None = None,
    dtype: str = "float32",
    *,
    wd_schedule: np.ndarray | Callable[[np.ndarray], np.ndarray] | None = None,
    keep_state: bool = False,
    resume: xr.Dataset | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 300.0,
    engine: Engine = "auto",
) -> xr.Dataset:
    """Evolve independent neurons under an optimizer and idealised gradients.

    Parameters
    ----------
    optimizer : Optimizer
        AdamW, AdamL2, SGDM, Lion, or the Rotational variant of one.
    dim : int
        Length C >= 2 of a neuron's weight vector (its fan-in); default 1024, or what the given
        arrays have.
    neurons : int
        Number of independent neurons, >= 1; default 64, or what the given arrays have.
    steps : int
        Total number of optimizer steps, >= 1 and < 2³². With `resume`, this counts the steps already done.
    gradient : Gradient
        ScaleInvariant (default), Isotropic, or any other model of `rotsim.gradients`.
    seed : int
        A whole number in [0, 2⁶⁴). A draw depends on (seed, neuron, step, coordinate) alone.
    initial_norm : float or array_like, shape (neurons,)
        ‖w_0‖ > 0; directions are uniform on the sphere.
    initial_weights : array_like, shape (neurons, dim), optional
        Overrides `initial_norm`. No row may be zero.
    record_every : int
        Steps per record window, >= 1; the last window may be shorter.
    lr_schedule : array_like of shape (steps,) or callable, optional
        Factor on ``optimizer.lr`` at each step, or a function from an array of step numbers
        (counted from 1) to the factors. Finite and >= 0; see `rotsim.theory.schedules`.
    dtype : {"float32", "float64"}
        Format of weights and optimizer state. Records are summed in float64. On the same noise float32
        records differ from float64 ones by less than 1e-5 relatively, plus 1.5e-8/(1-β2) with Adam (β2
        itself is rounded); with Lion by less than 1e-3, since rounding can turn a sign. Rotations down to
        1e-6 rad are right to 1 %.
    wd_schedule : array_like of shape (steps,) or callable, optional
        Likewise on ``optimizer.weight_decay``.
    keep_state : bool
        Also return weights and optimizer state (of the engine "gram", its few numbers), from which `resume` continues.
    resume : Dataset, optional
        A dataset made with ``keep_state=True`` and the same arguments; its records are kept and
        the walk goes on, bit for bit as if it had never stopped. A last window that was cut short
        is taken up where it broke off. If it has done all `steps`, it is returned.
    threads : int, optional
        Worker threads, >= 1; default all cores. Changes no number.
    progress : callable, optional
        ``progress(steps_done, steps)``, called after every chunk.
    checkpoint : path, optional
        File that gets the walk so far, state included, from time to time; it is replaced
        atomically and continues with `resume`. Where the disk is full the walk goes on with a warning.
    checkpoint_seconds : float
        Least time between two checkpoints, > 0.
    engine : {"auto", "numba", "numpy", "gram", "cuda"}
        "numba": the jitted walk. "numpy": its readable twin (the same numbers up to rounding,
        slower). "gram": SGDM and its rotational variant under plain noise, reduced to three or six numbers
        per neuron (`rotsim.simulation.gram`): any dim at the same cost, equal to the walk in distribution
        but on draws of its own, always in float64. "cuda": the walk on an NVIDIA GPU
        (`rotsim.simulation.cuda`; the same draws, the same numbers up to rounding). "auto": "gram" where
        it is valid, unless `keep_state` asks for weights, else "numba"; with `resume`, what that was made with.

    Returns
    -------
    Dataset
        ``norm``, ``rotation`` (radians) and ``update_rms`` with dims (neuron, step): RMS over each
        window; see `rotsim.dataset`.

    Raises
    ------
    InvalidInput
        For any argument out of range, with the value and the rule, and for a run that would not
        fit in memory, with the estimate.
    Diverged
        If the weights become infinite or NaN.
    Interrupted
        On Ctrl-C, a `KeyboardInterrupt` that carries the dataset so far.
    """
    checked_optimizer(optimizer)
    if isinstance(optimizer, Unmodelled):
        raise InvalidInput(optimizer.refusal())
    gradient = checked_gradient(gradient)
    steps = integer("steps", steps, low=1, high=1 << 32)
    window = integer("record_every", record_every, low=1)
    seed = integer("seed", seed, low=0, high=1 << 64)
    dtype = choice("dtype", dtype, ("float32", "float64"))
    engine = choice("engine", engine, get_args(Engine))
    keep_state = flag("keep_state", keep_state)
    cores = os.cpu_count() or 1
    workers = cores if threads is None else min(integer("threads", threads, low=1), _THREADS_PER_CORE * cores)
    if progress is not None:
        function("progress", progress, "of steps done and steps")
    if resume is not None:
        import xarray as xr

        instance("resume", resume, xr.Dataset, "a dataset, such as rotsim.load reads from a file")
    checkpoint_seconds = positive("checkpoint_seconds", checkpoint_seconds)
    if checkpoint is not None:
        checkpoint = files.check_writable(checkpoint)
    initial_weights = given_weights(initial_weights)
    neurons, dim = shape_of_run(neurons, dim, steps, gradient, initial_weights)
    if engine == "auto":
        engine = _automatic(optimizer, gradient, keep_state, resume)
    if engine == "gram":
        gram.require_valid(optimizer, gradient)
    if engine == "cuda":
        cuda.require_valid(optimizer, gradient)
    if engine != "gram":
        require(dim < _LONGEST_ROW, "dim", "be < 2**32 unless engine='gram'", dim)
    if isinstance(optimizer, Rotational) and optimizer.zero_mean:
        require(dim >= 3, "dim", "be >= 3 for a rotational variant with zero_mean", dim)
    real = np.dtype("float64" if engine == "gram" else dtype)
    check_fits(*_memory(optimizer, gradient, engine, neurons, dim, real, steps, window, workers))
    norms = given_norms(neurons, initial_norm, initial_weights)
    source = "initial_norm" if initial_weights is None else "initial_weights"
    check_format(optimizer, gradient, norms, dim, real, source)
    schedules = Schedule("lr_schedule", lr_schedule, steps), Schedule("wd_schedule", wd_schedule, steps)
    spec = {
        "dim": dim,
        "neurons": neurons,
        "steps": steps,
        "gradient": gradient.to_dict(),
        "seed": seed,
        "record_every": window,
        "dtype": dtype,
        "engine": engine,
        **digests(schedules, steps),
        "initial": initial_description(initial_norm, initial_weights),
    }
    if resume is not None:
        shape, kept_as = (
            ((gram.slots(optimizer), 1), np.dtype("float64"))
            if engine == "gram"
            else ((_slots(optimizer, gradient), dim), real)
        )
        state = resumed(resume, optimizer, spec, steps, schedules, (neurons, *shape), kept_as)
        if state.done == steps:
            return resume.copy() if keep_state else resume.drop_vars(STATE_VARIABLES)
    elif engine == "gram":
        state = gram.fresh(optimizer, dim, seed, norms, initial_weights)
    else:
        state = fresh(neurons, dim, seed, norms, initial_weights, real, _slots(optimizer, gradient))

    first_window = state.done // window
    records = np.zeros((neurons, len(dataset.QUANTITIES), -(-steps // window) - first_window))
    records[:, :, 0] = state.open_window

    def so_far(with_state: bool, last: bool = False) -> xr.Dataset:
        """The dataset of the steps done: what a run of that many steps returns."""
        reached = {**spec, "steps": state.done, **digests(schedules, state.done)}
        if with_state:
            unfinished = state.done % window > 0
            state.open_window = records[:, :, state.done // window - first_window].copy() if unfinished else 0.0
        sums = records if last else records.copy()
        result = _dataset(state, sums, first_window, window, optimizer, reached, resume)
        if with_state:
            state.store_in(result)
        return result

    blocks, work = 8 * workers, _COORDINATE_STEPS_PER_CHUNK * workers
    if engine == "gram":
        kernel = gram.kernel(optimizer, gradient, dim)
    elif engine == "cuda":
        kernel, blocks, work = cuda.kernel(optimizer, gradient), 1, cuda.COORDINATE_STEPS_PER_CHUNK
    elif isinstance(optimizer, Rotational):
        kernel = (rotational.kernel if engine == "numba" else rotational.twin)(optimizer, gradient)
    elif engine == "numba":
        kernel = walk.kernel(type(optimizer), type(gradient))
    else:
        kernel = twin.kernel(optimizer, gradient)
    saved = time.monotonic()
    run = (optimizer, gradient, schedules, seed, window, records, workers, blocks, work)
    with stop_requested() as stop:
        for done in _advance(kernel, state, steps, *run):
            if progress is not None:
                progress(done, steps)
            if stop.is_set() and done < steps:
                raise Interrupted(so_far(with_state=True))
            if checkpoint is not None and time.monotonic() - saved >= checkpoint_seconds:
                try:
                    dataset.save(so_far(with_state=True), checkpoint)
                except (OSError, InvalidInput) as error:  # a full disk or a lost folder stops no walk
                    warnings.warn(f"{error}; the walk goes on", stacklevel=2)
                saved = time.monotonic()
    check_memory_of_gradients(optimizer, state.slots)
    return so_far(with_state=keep_state, last=True)


def _slots(optimizer: Optimizer, gradient: Gradient) -> int:
    """Rows of length dim that a walk keeps per neuron."""
    return SLOTS + gradient.memory_slots + optimizer.memory_slots


def _memory(
    optimizer: Optimizer,
    gradient: Gradient,
    engine: str,
    neurons: int,
    dim: int,
    real: np.dtype[Any],
    steps: int,
    window: int,
    workers: int,
) -> tuple[int, int, str]:
    """Bytes of the state and of the records of a run, and what else than a smaller run would take less."""
    records = 3 * neurons * -(-steps // window) * 24
    parameters = neurons * gradient.parameters().shape[1] * 8 + neurons * _BYTES_OF_A_NEURON
    if engine == "gram":
        return neurons * gram.slots(optimizer) * 8 + parameters, records, ""
    state = neurons * _slots(optimizer, gradient) * dim * real.itemsize
    drawn = min(neurons * dim, max(dim, DRAWN_AT_ONCE)) * _BYTES_OF_A_DRAW
    if engine == "numpy":
        room = max(drawn, neurons * gradient.scratch(dim) * _BYTES_OF_A_DRAW)
    else:
        room = max(drawn, min(workers, neurons) * workspace_bytes(gradient, dim, real))
    return state + parameters + room, records, ", or take engine='gram'" if gram.valid(optimizer, gradient) else ""


def _automatic(optimizer: Optimizer, gradient: Gradient, keep_state: bool, resume: xr.Dataset | None) -> Engine:
    """The engine that `simulate` takes unless told."""
    if resume is not None:
        made_with = dataset.spec_of(resume).get("engine", "numba")
        if made_with not in get_args(Engine):
            raise DatasetError(f"`engine` in the spec of `resume` is no engine of this rotsim: {made_with!r}")
        return cast(Engine, made_with)
    return "gram" if gram.valid(optimizer, gradient) and not keep_state else "numba"


def _dataset(
    state: State,
    records: np.ndarray,
    first_window: int,
    window: int,
    optimizer: Optimizer,
    spec: dict[str, Any],
    resume: xr.Dataset | None,
) -> xr.Dataset:
    """RMS of every window up to ``state.done``, in place of its sums, after those of the run that was resumed."""
    windows = -(-state.done // window)
    last_step = np.minimum(np.arange(first_window + 1, windows + 1) * window, state.done)
    length = (last_step - np.arange(first_window, windows) * window).astype(float)
    rms = records[:, :, : len(length)]
    rms /= length
    np.sqrt(rms, out=rms)
    result = dataset.build(
        "simulation",
        step=last_step,
        variables={name: rms[:, k] for k, name in enumerate(dataset.QUANTITIES)},
        optimizer=optimizer,
        fan_in=spec["dim"],
        spec=spec,
    )
    if resume is None:
        return result
    import xarray as xr

    earlier = resume[list(dataset.QUANTITIES)].isel(step=slice(0, first_window))
    return xr.concat([earlier, result], dim="step", join="exact").assign_attrs(result.attrs)


def _advance(
    kernel: Callable[..., None],
    state: State,
    steps: int,
    optimizer: Optimizer,
    gradient: Gradient,
    schedules: tuple[Schedule, Schedule],
    seed: int,
    window: int,
    records: np.ndarray,
    workers: int,
    blocks: int,
    work: float,
) -> Iterator[int]:
    """Bring `state` to `steps` in chunks of so much `work`, adding to `records`; yields steps done.

    Neurons are cut into `blocks`, which the workers take from one queue: nobody wakes for every block.
    """
    neurons, _, dim = state.slots.shape
    real = state.slots.dtype
    keys = neuron_keys(seed, neurons, GRADIENT_STREAM)
    edges = np.linspace(0, neurons, min(neurons, blocks) + 1).astype(int).tolist()
    chunk = int(np.clip(work / (neurons * max(dim, _LEAST_COST)), 1, _MAX_CHUNK))
    first_window = state.done // window
    parameters = gradient.parameters()
    parameters = np.broadcast_to(parameters, (neurons, parameters.shape[1])).copy()
    if gradient.coupled:
        chunk = 1

    rooms = [workspace(gradient, dim, real) for _ in range(min(workers, len(edges) - 1))]  # once, not in every chunk

    def advance(
        room: Workspace, waiting: deque[tuple[int, int]], first: int, table: np.ndarray, data: np.ndarray
    ) -> None:
        while waiting:
            try:
                block = waiting.popleft()
            except IndexError:  # another worker took the last
                return
            kernel(
                block, state.slots, state.norm_squared, keys, first, table, parameters, data,
                window, first_window, room, records,
            )  # fmt: skip

    with ThreadPoolExecutor(max(1, workers - 1)) as pool, np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        while state.done < steps:
            step = np.arange(state.done + 1, min(state.done + chunk, steps) + 1)
            lr = optimizer.lr * schedules[0](step)
            weight_decay = optimizer.weight_decay * schedules[1](step)
            table = optimizer.coefficient_table(step, lr, weight_decay).astype(real)
            data = gradient.given(step, real, state.slots[:, 0], keys)
            waiting = deque(pairwise(edges))
            jobs = [pool.submit(advance, room, waiting, int(step[0]), table, data) for room in rooms[1:]]
            advance(rooms[0], waiting, int(step[0]), table, data)
            for job in jobs:
                job.result()
            state.done = int(step[-1])
            gone = lost(state.norm_squared, dim, real)
            if gone.any():
                what = "infinite or NaN" if not np.isfinite(state.norm_squared).all() else f"too small for {real}"
                raise Diverged(
                    f"the weights of {gone.sum()} of {neurons} neurons became {what} by step {state.done}; "
                    "lower lr or weight_decay, or use dtype='float64'"
                )
            yield state.done
