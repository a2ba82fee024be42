"""Step by step in chunks: threads, divergence, and the file that is kept on the way."""

from __future__ import annotations

import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import dataset, files
from rotsim.errors import InvalidInput, positive
from rotsim.noise import GRADIENT_STREAM, neuron_keys
from rotsim.simulation.arguments import Neurons, Steps, Windows
from rotsim.simulation.formats import check_kept
from rotsim.simulation.records import Records
from rotsim.simulation.request import Run
from rotsim.simulation.state import State
from rotsim.simulation.workspace import Workspace

if TYPE_CHECKING:
    import xarray as xr

MAX_CHUNK_STEPS = 1 << 16
CHUNK_SECONDS = 1.0  # at most, about: between chunks progress is shown and Ctrl-C is heard
#: The noise counts modulo 2³², which Python warns of where nothing is compiled; a diverging walk is refused below.
_QUIET: Any = {"over": "ignore", "invalid": "ignore", "divide": "ignore"}


def advance(run: Run, state: State, records: Records, most_steps: int = MAX_CHUNK_STEPS) -> Iterator[int]:
    """Bring `state` to the end of a run in chunks of at most so many steps, adding to `records`; yields the steps done.

    Neurons are cut into blocks, which the workers take from one queue: nobody wakes for every block. No block cuts
    through a matrix.
    """
    problem, engine = run.problem, run.engine
    optimizer, gradient, count = problem.optimizer, problem.gradient, problem.neurons
    kernel = engine.kernel(problem)
    units = count // problem.rows
    blocks = min(units, engine.blocks(run.workers))
    edges = (np.linspace(0, units, blocks + 1).astype(int) * problem.rows).tolist()
    most, chunk = (1, 1) if gradient.coupled else (min(steps, most_steps) for steps in _chunk_steps(run))
    parameters = gradient.parameters()
    parameters = np.broadcast_to(parameters, (count, parameters.shape[1])).copy()
    keys = neuron_keys(problem.seed, count, GRADIENT_STREAM)
    neurons = Neurons(state.slots, state.norm_squared, keys, parameters)
    windows = Windows(records.windows, run.window, records.first_window)
    rooms = [engine.workspace(problem) for _ in range(min(run.workers, blocks))]  # made once, and used in every chunk

    def work(room: Workspace | None, waiting: deque[tuple[int, int]], steps: Steps) -> None:
        while waiting:
            try:
                block = waiting.popleft()
            except IndexError:  # another worker has taken the last block
                return
            kernel(block, neurons, steps, room, windows)
            records.complete(block, steps.first - 1, steps.first - 1 + len(steps.coefficients))

    with (
        ThreadPoolExecutor(max(1, run.workers - 1), initializer=partial(np.seterr, **_QUIET)) as pool,
        np.errstate(**_QUIET),  # which threads do not share
    ):
        while state.done < run.steps:
            step = np.arange(state.done + 1, min(state.done + chunk, run.steps) + 1)
            lr = optimizer.lr * run.schedules[0](step)
            weight_decay = optimizer.weight_decay * run.schedules[1](step)
            table = optimizer.coefficient_table(step, lr, weight_decay).astype(problem.dtype)
            steps = Steps(int(step[0]), table, gradient.given(step, problem.dtype, state.slots[:, 0], keys))
            waiting = deque(pairwise(edges))
            began = time.perf_counter()
            jobs = [pool.submit(work, room, waiting, steps) for room in rooms[1:]]
            work(rooms[0], waiting, steps)
            for job in jobs:
                job.result()
            state.done = int(step[-1])
            if run.engine.first_chunk < 1:
                chunk = _next_chunk(chunk, most, time.perf_counter() - began)
            check_kept(state.norm_squared, problem.dim, problem.dtype, state.done)
            yield state.done


def _chunk_steps(run: Run) -> tuple[int, int]:
    """Most steps of a chunk, and those of the first."""
    most = run.engine.chunk_work(run.workers) / run.engine.work(run.problem)
    longest, first = np.clip([most, most * run.engine.first_chunk], 1, MAX_CHUNK_STEPS).astype(int).tolist()
    return longest, first


def _next_chunk(chunk: int, most: int, seconds: float) -> int:
    """Steps of the next chunk, after one that took so long: what a step costs depends on gradients and machine."""
    return int(np.clip(chunk * CHUNK_SECONDS / max(seconds, 1e-9), 1, most))


class Checkpoint:
    """A file that gets the walk so far, from time to time; without a path none is written."""

    def __init__(self, path: str | os.PathLike[str] | None, seconds: float) -> None:
        self.seconds = positive("checkpoint_seconds", seconds)
        self.path: Path | None = None if path is None else files.check_writable(path)
        self._written = time.monotonic()

    def write_if_due(self, so_far: Callable[[], xr.Dataset]) -> None:
        """Save the dataset that `so_far` makes; a full disk or a lost folder stops no walk."""
        if self.path is None or time.monotonic() - self._written < self.seconds:
            return
        try:
            dataset.save(so_far(), self.path)
        except (OSError, InvalidInput) as error:
            warnings.warn(f"{error}; the walk goes on", stacklevel=3)
        self._written = time.monotonic()
