"""`simulate`: check what is asked for, walk chunk by chunk on all cores, return the dataset."""

from __future__ import annotations

import os
from collections.abc import Callable
from inspect import signature
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim.errors import flag, function
from rotsim.gradients import Gradient
from rotsim.optimizers import Optimizer
from rotsim.simulation.chunks import Checkpoint, advance
from rotsim.simulation.formats import check_memory_of_gradients
from rotsim.simulation.interrupt import Interrupted, stop_requested
from rotsim.simulation.records import Records
from rotsim.simulation.request import checked_run
from rotsim.simulation.state import without_state

if TYPE_CHECKING:
    import xarray as xr

Progress = Callable[[int, int], None]


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
    wd_schedule: np.ndarray | Callable[[np.ndarray], np.ndarray] | str | None = None,
    keep_state: bool = False,
    resume: xr.Dataset | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    checkpoint_seconds: float = 300.0,
    engine: str = "auto",
    rows: int | None = None,
) -> xr.Dataset:
    """Evolve independent neurons, or under Muon matrices of them, by an optimizer and idealised gradients.

    Parameters
    ----------
    optimizer : Optimizer
        Any of `rotsim.optimizers.OPTIMIZERS`, or the Rotational variant of AdamW, AdamL2, SGDM or Lion.
    dim : int
        Length C >= 2 of a neuron's weight vector (its fan-in); default 1024, or what the given
        arrays have.
    neurons : int
        Number of independent neurons, >= 1 and < 2³²; default 64, or what the given arrays have.
    steps : int
        Total number of optimizer steps, >= 1 and < 2³². With `resume`, this counts the steps already done.
    gradient : Gradient
        ScaleInvariant (default), Isotropic, or any other model of `rotsim.gradients`.
    seed : int
        A whole number in [0, 2⁶⁴). A draw depends on (seed, neuron, step, coordinate) alone.
    initial_norm : float or array_like, shape (neurons,)
        ‖w_0‖ > 0; directions are uniform on the sphere. Squares must stay within `dtype`: float32 takes norms from
        3.3e-10 (from 1.1e-12·√dim at a dim above 90 000) to 3e9, float64 from 1.3e-77 to 1e30. So do the
        sizes of gradients.
    initial_weights : array_like, shape (neurons, dim), optional
        Overrides `initial_norm`. No row may be zero; the norms of rows lie in the same range.
    record_every : int
        Steps per record window, >= 1; the last window may be shorter.
    lr_schedule : array_like of shape (steps,) or callable, optional
        Factor on ``optimizer.lr`` at each step, or a function from an array of step numbers
        (counted from 1) to the factors. In [0, 1e30]; see `rotsim.schedules`.
        What a function of yours raises ends in `InvalidInput`, which has it as its cause.
    dtype : {"float32", "float64"}
        Format of weights and optimizer state. Records are summed in float64. On the same noise float32
        records differ from float64 ones by less than 1e-5 relatively. With Adam 1.5e-8/(1-β2) is added, as β2
        itself is rounded. With Lion it is less than 1e-3, since rounding can turn a sign. Rotations down to
        1e-6 rad are right to 1 %.
    wd_schedule : array_like of shape (steps,), callable or str, optional
        Likewise on ``optimizer.weight_decay``. Or how decay follows the learning rate, whose factor is f: "decoupled",
        not at all; "corrected", by f over its largest value (AdamC); "independent", by 1/f. A step then takes the same
        share of the weights all along.
    keep_state : bool
        Also return weights and optimizer state (of the engine "gram", its few numbers), from which `resume` continues.
    resume : Dataset, optional
        A dataset made with ``keep_state=True`` and the same arguments. Its records are kept, and
        the walk goes on bit for bit as if it had never stopped. A last window that was cut short
        is taken up where it broke off. If it has done all `steps`, it is returned.
    threads : int, optional
        Worker threads, >= 1; default all cores, and at most 4 for each are started. Changes no number.
    progress : callable, optional
        ``progress(steps_done, steps)``, called after every chunk. What it raises ends the walk, unchanged.
    checkpoint : path, optional
        File that gets the walk so far, state included, from time to time; it is replaced
        atomically and continues with `resume`. Where the disk is full the walk goes on with a warning.
    checkpoint_seconds : float
        Least time between two checkpoints, from 1e-30 to 1e30.
    engine : {"auto", "numba", "numpy", "gram", "cuda"}
        "numba": the jitted walk. "numpy": its readable twin (the same numbers up to rounding,
        slower). "gram": SGDM and its rotational variant under plain noise, reduced to three or six numbers
        per neuron (`rotsim.simulation.engines.gram`), and Muon on long rows likewise
        (`rotsim.simulation.engines.gram_matrix`). It takes any dim at the same cost, equal to the walk in distribution
        but on draws of its own, always in float64. "cuda": the walk on an NVIDIA GPU
        (`rotsim.simulation.engines.cuda`; the same draws, the same numbers up to rounding). "auto": "gram" where
        it is valid, unless `keep_state` asks for weights, else "numba"; with `resume`, what that was made with.
    rows : int, optional
        For Muon: how many neurons make one matrix, >= 2, of which `neurons` is a multiple. Default all.

    Returns
    -------
    Dataset
        ``norm``, ``rotation`` (radians) and ``update_rms`` with dims (neuron, step): RMS over each
        window; see `rotsim.schema`.

    Raises
    ------
    InvalidInput
        For any argument out of range, with the value and the rule. For a run that would not fit in memory,
        with the estimate.
    Diverged
        If the weights become infinite or NaN.
    Interrupted
        On Ctrl-C, a `KeyboardInterrupt` that carries the dataset so far.
    """
    keep_state = flag("keep_state", keep_state)
    if progress is not None:
        function("progress", progress, "of steps done and steps", 2)
    file = Checkpoint(checkpoint, checkpoint_seconds)
    run = checked_run(
        optimizer, gradient, dim=dim, neurons=neurons, steps=steps, seed=seed, initial_norm=initial_norm,
        initial_weights=initial_weights, record_every=record_every, lr_schedule=lr_schedule, wd_schedule=wd_schedule,
        dtype=dtype, engine=engine, keep_state=keep_state, resume=resume, threads=threads,
        rows=rows,
    )  # fmt: skip
    state = run.start()
    if run.resume is not None and state.done == run.steps:
        return run.resume.copy() if keep_state else without_state(run.resume)
    records = Records(run, state)
    with stop_requested() as stop:
        for done in advance(run, state, records):
            if progress is not None:
                progress(done, run.steps)
            if stop.is_set() and done < run.steps:
                raise Interrupted(records.so_far(with_state=True))
            file.write_if_due(lambda: records.so_far(with_state=True))
    check_memory_of_gradients(run.problem.optimizer, state.slots)
    return records.so_far(with_state=keep_state, last=True)


def watched(watch: Callable[[int, np.ndarray], object], optimizer: Optimizer, **run: Any) -> xr.Dataset:
    """Walk as `simulate` does, and show the weights of every step.

    Parameters
    ----------
    watch : callable
        ``watch(step, weights)``, from step 0 on. The weights, of shape (neurons, dim), change in the next step.
    optimizer : Optimizer
    **run
        Arguments of `simulate` that say what is walked: dim, neurons, steps, gradient, seed and so on.

    Returns
    -------
    Dataset
        That of `simulate`.

    Raises
    ------
    InvalidInput
        As `simulate` does.
    """
    plain: dict[str, Any] = {
        name: parameter.default
        for name, parameter in signature(simulate).parameters.items()
        if name in signature(checked_run).parameters
    }
    settled = checked_run(**{**plain, **run, "optimizer": optimizer, "keep_state": True})  # chooses one with weights
    state = settled.start()
    records = Records(settled, state)
    watch(0, state.slots[:, 0])
    for done in advance(settled, state, records, most_steps=1):
        watch(done, state.slots[:, 0])
    return records.so_far(with_state=False, last=True)
