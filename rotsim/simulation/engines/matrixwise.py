"""The jitted walk of Muon: all neurons of a matrix step by step, and `rotsim.simulation.spectral` between them.

Arguments, state and records are those of `walk._walk`.
"""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar, NamedTuple

import numpy as np

from rotsim import noise
from rotsim.angle import squared_angle, squared_chord
from rotsim.compiled import kernel_part, wide_vectors
from rotsim.gradients import Gradient
from rotsim.gradients.base import Neuron
from rotsim.kernels import compiled, inlined
from rotsim.noise import CONSTANTS, places
from rotsim.optimizers.base import ActsOn, Optimizer
from rotsim.optimizers.turning import HOLDING, Turning
from rotsim.simulation.arguments import Kernel
from rotsim.simulation.engines.base import Problem, WeightEngine
from rotsim.simulation.spectral import SpectralRoom, orthogonalise, spectral_bytes, spectral_room
from rotsim.simulation.state import SLOTS
from rotsim.simulation.walk import FASTMATH, fill_rows

_sample = _drive = _turn = None  # what `kernel` binds: the gradient's sampler, `decayed` or `held`, and for this a turn
_masked = False  # whether decay is cautious
_beside = 0  # and how many coefficients follow those of the polynomials
STATIC = 5  # coefficients before those of the polynomials


class MatrixRoom(NamedTuple):
    """What the kernel works in.

    Attributes
    ----------
    rows : ndarray, shape (SLOTS + gradient.memory_slots, places)
        One neuron's state.
    z : ndarray, shape (gradient.scratch(dim),)
    words : ndarray of uint32, shape (places/2,)
    constants : tuple of float32
    spectral : SpectralRoom
    size : int
        Neurons of a matrix.
    factor : float
        Of the update, by the form of the matrix.
    """

    rows: np.ndarray
    z: np.ndarray
    words: np.ndarray
    constants: tuple[np.float32, ...]
    spectral: SpectralRoom
    size: int
    factor: float


@kernel_part(fastmath=FASTMATH)
def move_row(weights, update, count, shrink, push, masked, i, step, neurons, records):  # type: ignore[no-untyped-def]
    """Add ``shrink * weights + push * update`` to the weights of neuron i, and to its record what became of them.

    If `masked`, only weights shrink that the update makes smaller.
    """
    real = weights.dtype.type
    after, moved, along = real(0), real(0), real(0)
    for j in range(count):
        old = weights[j]
        change = push * update[j]
        if not masked or change * old <= 0:
            change += shrink * old
        value = old + change
        weights[j] = value
        along += old * change
        after += value * value
        moved += change * change
    before, reached = neurons.norm_squared[i], np.float64(after)
    record = records.sums[i, :, (step - 1) // records.length - records.first]
    record[0] += reached
    record[1] += squared_angle(squared_chord(before, reached, np.float64(along), np.float64(moved)))
    record[2] += np.float64(moved)
    neurons.norm_squared[i] = reached


def decayed(out, c, first, size, step, neurons, factor):  # type: ignore[no-untyped-def]
    """What multiplies weights and update where weights decay, less 1 for the weights."""
    return -c[0], -out.dtype.type(np.float64(c[1]) * factor)


def held(out, c, first, size, step, neurons, factor):  # type: ignore[no-untyped-def]
    """The same for a matrix that turns at the norm that it began with. What `out` has beyond the matrix is no part."""
    state, tiny, real = neurons.state, np.finfo(neurons.state.dtype).tiny, out.dtype.type
    square, along, power = 0.0, 0.0, 0.0
    for r in range(size):
        square += neurons.norm_squared[first + r]
        weights = state[first + r, 0]
        for j in range(state.shape[2]):
            along -= np.float64(weights[j]) * np.float64(out[r, j])
            power += np.float64(out[r, j]) * np.float64(out[r, j])
    norm = np.sqrt(square)
    kept = state[first, state.shape[1] - 1]
    if step == 1:
        kept[1] = norm
    along /= norm
    across = max(power - along * along, 0.0)
    angle = _turn(np.float64(c[c.size - HOLDING]), across, along, max(across, tiny))
    push = np.sin(angle) / np.sqrt(max(across, tiny))  # of what is left of the update across the weights
    shrink = (np.cos(angle) - push * along) / norm
    return real(kept[1] * shrink - 1.0), real(-kept[1] * push)


def _walk(block, neurons, steps, room, records):  # type: ignore[no-untyped-def]
    """Advance the matrices of a block."""
    wide_vectors()
    state, coefficients, data = neurons.state, steps.coefficients, steps.data
    rows, z, words, size = room.rows, room.z, room.words, room.size
    real = state.dtype.type
    least = max(np.float64(np.finfo(state.dtype).tiny), 1e-38)
    dim = state.shape[2]
    spots = noise.places(dim)
    w, memory = rows[0, :spots], rows[3:]
    d, across, out = room.spectral.d, room.spectral.across, room.spectral.out
    tall = out.shape[0] > d.shape[0]
    for first in range(block[0], block[1], size):
        for t in range(coefficients.shape[0]):
            step, c = steps.first + t, coefficients[t]
            momentum, nesterov = c[2], c[3] != 0
            for r in range(size):
                i = first + r
                key0, key1 = neurons.keys[i, 0], neurons.keys[i, 1]
                fill_rows(rows, state[i], spots)
                noise.draw_words(words, key0, key1, step)
                given = data[t, i if data.shape[1] > 1 else 0]
                neuron = Neuron(w, dim, neurons.norm_squared[i], key0, key1, step, neurons.parameters[i], memory, given)
                scale_z, scale_w = _sample(z, (words, room.constants), neuron)
                a, b = real(scale_z), real(scale_w)
                m = state[i, 1]
                for j in range(dim):
                    g = a * z[j] + b * w[j]
                    new = g + momentum * (m[j] - g)
                    m[j] = new
                    z[j] = g + momentum * (new - g) if nesterov else new
                there, turned = (across, d) if tall else (d, across)
                for j in range(dim):
                    there[r, j] = z[j]
                    turned[j, r] = z[j]
                for slot in range(memory.shape[0]):
                    for j in range(dim):
                        state[i, 3 + slot, j] = memory[slot, j]
            orthogonalise(room.spectral, c[STATIC : c.size - _beside], max(np.float64(c[4]), least))
            shrink, push = _drive(out, c, first, size, step, neurons, room.factor)
            for r in range(size):
                i = first + r
                move_row(state[i, 0], out[r], dim, shrink, push, _masked, i, step, neurons, records)


@cache
def _kernel(optimizer: type[Optimizer], gradient: type[Gradient], masked: bool) -> Kernel:
    if issubclass(optimizer, Turning):
        drive, beside = inlined(held, f"held_{optimizer.name}", {"_turn": optimizer.turn}), HOLDING
    else:
        drive, beside = inlined(decayed, "decayed", {}), 0
    bound = {"_sample": gradient.sample, "_drive": drive, "_beside": beside, "_masked": masked}
    return compiled(_walk, f"matrix_{optimizer.name}_{gradient.name}", bound, fastmath=FASTMATH, _nrt=False)


class Matrixwise(WeightEngine):
    """Updates whose shape is spectral, by Newton and Schulz's iteration."""

    name = "numba"
    acts_on: ClassVar[ActsOn] = "matrix"
    needs = "an optimizer that acts on coordinates, neurons or matrices"
    automatic = True

    def accepts(self, optimizer: Optimizer, gradient: Gradient) -> bool:
        return super().accepts(optimizer, gradient) and optimizer.plain.shape == "spectral"

    def workspace(self, problem: Problem) -> Any:
        gradient, dim, dtype = problem.gradient, problem.dim, problem.dtype
        spots = places(dim)
        return MatrixRoom(
            np.zeros((SLOTS + gradient.memory_slots, spots), dtype),
            np.zeros(gradient.scratch(dim), dtype),
            np.zeros(spots // 2, np.uint32),
            CONSTANTS,
            spectral_room(problem.rows, dim, dtype),
            problem.rows,
            update_factor(problem),
        )

    def bytes_beside_state(self, problem: Problem, workers: int) -> int:
        one = spectral_bytes(problem.rows, problem.dim, problem.dtype)
        return super().bytes_beside_state(problem, workers) + min(workers, problem.neurons // problem.rows) * one

    def work(self, problem: Problem) -> float:
        """Beside a step of a coordinate, the products: each takes as many multiplications as the matrix is wide."""
        return super().work(problem) * (1 + min(problem.rows, problem.dim))

    def kernel(self, problem: Problem) -> Kernel:
        return _kernel(type(problem.optimizer), type(problem.gradient), problem.optimizer.cautious)


def update_factor(problem: Problem) -> float:
    """By which the form of the matrices multiplies updates; 1 where an optimizer has no such rule."""
    rule: Any = getattr(problem.optimizer, "update_factor", None)
    return 1.0 if rule is None else float(rule(problem.rows, problem.dim))
