"""What an engine is: the walks that it takes, the state that it carries, the memory that it needs, and its kernel."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from rotsim.compiled import interpreted
from rotsim.gradients import Gradient
from rotsim.noise import places
from rotsim.optimizers.base import ActsOn, Optimizer
from rotsim.simulation.arguments import Kernel
from rotsim.simulation.state import DRAWN_AT_ONCE, SLOTS, State, fresh
from rotsim.simulation.workspace import Workspace, workspace, workspace_bytes

_BLOCKS_PER_WORKER = 8  # blocks of neurons per worker, which workers take from one queue
_COORDINATE_STEPS_PER_CHUNK = 6e8  # half a second of a core, between looks at progress and Ctrl-C
_INTERPRETED = 3e4  # times as long as a compiled kernel takes what Python interprets
_MAX_DIM = (1 << 32) - 1  # the random numbers of a neuron count so many coordinates
_LEAST_WORK = 64  # coordinates whose step costs as much as the least step of a neuron
_BYTES_OF_A_DRAW = 64  # NumPy's temporaries for one coordinate: words, normals, and what is made of them


@dataclass(frozen=True, eq=False)
class Problem:
    """What an engine is to walk.

    Attributes
    ----------
    optimizer : Optimizer
    gradient : Gradient
    neurons, dim, seed : int
    dtype : dtype
        Of weights and moments.
    norms : ndarray of float64, shape (neurons,)
        ‖w_0‖.
    initial_weights : ndarray of float64, shape (neurons, dim), or None
        None stands for uniform directions.
    rows : int
        Neurons that see each other: those of a matrix, or 1.
    """

    optimizer: Optimizer
    gradient: Gradient
    neurons: int
    dim: int
    seed: int
    dtype: np.dtype[Any]
    norms: np.ndarray
    initial_weights: np.ndarray | None
    rows: int = 1


class Engine(ABC):
    """One way to walk. A subclass is one file here and one entry in `ENGINES`."""

    #: What `simulate` calls it. Engines that act on different things may share a name.
    name: ClassVar[str]
    #: What one update sees at once; an optimizer must act on the same.
    acts_on: ClassVar[ActsOn]
    #: What optimizer and gradient have to be, as an object of "needs".
    needs: ClassVar[str]
    #: `engine="auto"` may take it.
    automatic: ClassVar[bool] = False
    #: Its state has the weights.
    keeps_weights: ClassVar[bool] = True
    #: Share of `chunk_work` in the first chunk, which shows what a step costs; 1 where every chunk costs by itself.
    first_chunk: ClassVar[float] = 1 / 64
    #: The longest neuron that it walks.
    max_dim: ClassVar[int] = _MAX_DIM

    def accepts(self, optimizer: Optimizer, gradient: Gradient) -> bool:
        """Whether it has this optimizer and these gradients."""
        return optimizer.acts_on == self.acts_on

    def fits(self, rows: int, dim: int) -> bool:
        """Whether it takes matrices of this form; every engine of single neurons does."""
        return True

    def check_device(self) -> None:
        """Raise `InvalidInput` where the machine lacks what the engine runs on."""
        return

    def dtype(self, wanted: str) -> np.dtype[Any]:
        """The format that it walks in, where `wanted` is asked for."""
        return np.dtype(wanted)

    @abstractmethod
    def shape(self, problem: Problem) -> tuple[int, int]:
        """(rows, length) of what it carries of a neuron: weights, first and second moment, then what else it needs."""

    @abstractmethod
    def fresh(self, problem: Problem) -> State:
        """The state before the first step, of `shape` and `dtype`."""

    @abstractmethod
    def kernel(self, problem: Problem) -> Kernel:
        """What brings a block of neurons some steps forward; see `rotsim.simulation.arguments`."""

    def workspace(self, problem: Problem) -> Workspace | None:
        """The memory that one thread's kernel works in."""
        return None

    def bytes_beside_state(self, problem: Problem, workers: int) -> int:
        """Memory that it takes at its peak, beyond the state."""
        return 0

    def blocks(self, workers: int) -> int:
        """Into how many parts neurons are cut for so many workers."""
        return _BLOCKS_PER_WORKER * workers

    def work(self, problem: Problem) -> float:
        """Of a step of all neurons, in steps of a coordinate."""
        return problem.neurons * max(self.shape(problem)[1], _LEAST_WORK)

    def chunk_work(self, workers: int) -> float:
        """Coordinate-steps of a chunk at most, after which progress is shown and Ctrl-C heard."""
        return _COORDINATE_STEPS_PER_CHUNK * workers / (_INTERPRETED if interpreted() else 1.0)


class WeightEngine(Engine):
    """An engine whose state is the weights, the moments, and the memory of gradient and optimizer."""

    def shape(self, problem: Problem) -> tuple[int, int]:
        return SLOTS + problem.gradient.memory_slots + problem.optimizer.memory_slots, problem.dim

    def fresh(self, problem: Problem) -> State:
        rows, dim = self.shape(problem)
        shape = (problem.neurons, rows, dim)
        return fresh(shape, problem.seed, problem.norms, problem.initial_weights, problem.dtype)

    def workspace(self, problem: Problem) -> Workspace | None:
        return workspace(problem.gradient, problem.dim, problem.dtype, problem.optimizer.memory_slots)

    def bytes_beside_state(self, problem: Problem, workers: int) -> int:
        one = workspace_bytes(problem.gradient, problem.dim, problem.dtype, problem.optimizer.memory_slots)
        return max(drawn_bytes(problem), min(workers, problem.neurons) * one)


def drawn_bytes(problem: Problem) -> int:
    """Temporaries of the initial weights, which NumPy draws a few neurons at a time."""
    drawn = places(problem.dim)
    return min(problem.neurons * drawn, max(drawn, DRAWN_AT_ONCE)) * _BYTES_OF_A_DRAW


def bytes_in_numpy(problem: Problem) -> int:
    """Temporaries of a step of all neurons in NumPy."""
    scratch = problem.neurons * problem.gradient.scratch(problem.dim) * _BYTES_OF_A_DRAW
    return max(drawn_bytes(problem), scratch)
