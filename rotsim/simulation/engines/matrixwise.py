"""The jitted walk of Muon: all neurons of a matrix step by step, and the matrix products between them.

Arguments, state and records are those of `walk._walk`. A matrix stays on one thread, in products of our own. So no
number depends on threads, and a small matrix on no library that would start more of them.
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
from rotsim.kernels import compiled
from rotsim.noise import CONSTANTS, places
from rotsim.optimizers.base import ActsOn, Optimizer
from rotsim.simulation.arguments import Kernel
from rotsim.simulation.engines.base import Problem, WeightEngine
from rotsim.simulation.state import SLOTS
from rotsim.simulation.walk import FASTMATH, fill_rows

_sample = None  # what `kernel` binds: the gradient's sampler
_PAD = 8  # columns are filled up with zeros to a multiple of it, rows of products to a multiple of four
_STATIC = 5  # coefficients before those of the polynomials


class MatrixRoom(NamedTuple):
    """What the kernel works in.

    Attributes
    ----------
    rows : ndarray, shape (SLOTS + gradient.memory_slots, places)
        One neuron's state.
    z : ndarray, shape (gradient.scratch(dim),)
    words : ndarray of uint32, shape (places/2,)
    constants : tuple of float32
    d, other : ndarray, shape (p, q), filled up with zeros
        The matrix with its shorter side first, and the same after the next polynomial.
    gram, square : ndarray, shape (p, p), filled up with zeros
    size : int
        Neurons of a matrix.
    factor : float
        Of the update, by the form of the matrix.
    """

    rows: np.ndarray
    z: np.ndarray
    words: np.ndarray
    constants: tuple[np.float32, ...]
    d: np.ndarray
    other: np.ndarray
    gram: np.ndarray
    square: np.ndarray
    size: int
    factor: float


@kernel_part(fastmath=FASTMATH)
def _products_of_rows(x, out):  # type: ignore[no-untyped-def]
    """out = x·xᵀ (p, p), the lower half by blocks of 4 × 2 inner products, then mirrored; p a multiple of 4."""
    p, q = x.shape
    zero = x.dtype.type(0)
    for i in range(0, p, 4):
        a0, a1, a2, a3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        for j in range(0, i + 4, 2):
            b0, b1 = x[j], x[j + 1]
            s00 = s01 = s10 = s11 = s20 = s21 = s30 = s31 = zero
            for k in range(q):
                left, right = b0[k], b1[k]
                s00 += a0[k] * left
                s01 += a0[k] * right
                s10 += a1[k] * left
                s11 += a1[k] * right
                s20 += a2[k] * left
                s21 += a2[k] * right
                s30 += a3[k] * left
                s31 += a3[k] * right
            out[i, j], out[i, j + 1], out[i + 1, j], out[i + 1, j + 1] = s00, s01, s10, s11
            out[i + 2, j], out[i + 2, j + 1], out[i + 3, j], out[i + 3, j + 1] = s20, s21, s30, s31
    for i in range(p):
        for j in range(i):
            out[j, i] = out[i, j]


@kernel_part(fastmath=FASTMATH)
def _apply(g, x, a, out):  # type: ignore[no-untyped-def]
    """out = a·x + g·x, four rows of out and four of x at a time."""
    p, q = x.shape
    for i in range(0, p, 4):
        o0, o1, o2, o3 = out[i], out[i + 1], out[i + 2], out[i + 3]
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        for k in range(q):
            o0[k], o1[k], o2[k], o3[k] = a * x0[k], a * x1[k], a * x2[k], a * x3[k]
        for j in range(0, p, 4):
            x0, x1, x2, x3 = x[j], x[j + 1], x[j + 2], x[j + 3]
            g00, g01, g02, g03 = g[i, j], g[i, j + 1], g[i, j + 2], g[i, j + 3]
            g10, g11, g12, g13 = g[i + 1, j], g[i + 1, j + 1], g[i + 1, j + 2], g[i + 1, j + 3]
            g20, g21, g22, g23 = g[i + 2, j], g[i + 2, j + 1], g[i + 2, j + 2], g[i + 2, j + 3]
            g30, g31, g32, g33 = g[i + 3, j], g[i + 3, j + 1], g[i + 3, j + 2], g[i + 3, j + 3]
            for k in range(q):
                y0, y1, y2, y3 = x0[k], x1[k], x2[k], x3[k]
                o0[k] += g00 * y0 + g01 * y1 + g02 * y2 + g03 * y3
                o1[k] += g10 * y0 + g11 * y1 + g12 * y2 + g13 * y3
                o2[k] += g20 * y0 + g21 * y1 + g22 * y2 + g23 * y3
                o3[k] += g30 * y0 + g31 * y1 + g32 * y2 + g33 * y3


@kernel_part(fastmath=FASTMATH)
def _combine(b, gram, c, square):  # type: ignore[no-untyped-def]
    """gram = b·gram + c·square."""
    for i in range(gram.shape[0]):
        one, two = gram[i], square[i]
        for j in range(gram.shape[1]):
            one[j] = b * one[j] + c * two[j]


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
    tall = size > dim
    iterations = (coefficients.shape[1] - _STATIC) // 3
    for first in range(block[0], block[1], size):
        for t in range(coefficients.shape[0]):
            step, c = steps.first + t, coefficients[t]
            momentum, nesterov = c[2], c[3] != 0
            d, other = room.d, room.other
            length = 0.0
            for r in range(size):
                i = first + r
                key0, key1 = neurons.keys[i, 0], neurons.keys[i, 1]
                fill_rows(rows, state[i], spots)
                noise.draw_words(words, key0, key1, step)
                given = data[t, i if data.shape[1] > 1 else 0]
                neuron = Neuron(w, dim, neurons.norm_squared[i], key0, key1, step, neurons.parameters[i], memory, given)
                scale_z, scale_w = _sample(z, (words, room.constants), neuron)
                a, b = real(scale_z), real(scale_w)
                m, squares = state[i, 1], real(0)
                for j in range(dim):
                    g = a * z[j] + b * w[j]
                    new = g + momentum * (m[j] - g)
                    m[j] = new
                    if nesterov:
                        new = g + momentum * (new - g)
                    z[j] = new
                    squares += new * new
                length += np.float64(squares)
                if tall:
                    for j in range(dim):
                        d[j, r] = z[j]
                else:
                    for j in range(dim):
                        d[r, j] = z[j]
                for slot in range(memory.shape[0]):
                    for j in range(dim):
                        state[i, 3 + slot, j] = memory[slot, j]
            by = real(1.0 / max(np.sqrt(length), np.float64(c[4]), least))
            for i in range(d.shape[0]):
                row = d[i]
                for j in range(d.shape[1]):
                    row[j] *= by
            for n in range(iterations):
                p0, p1, p2 = c[_STATIC + 3 * n], c[_STATIC + 3 * n + 1], c[_STATIC + 3 * n + 2]
                _products_of_rows(d, room.gram)
                _products_of_rows(room.gram, room.square)
                _combine(p1, room.gram, p2, room.square)
                _apply(room.gram, d, p0, other)
                d, other = other, d
            shrink, push = -c[0], -real(np.float64(c[1]) * room.factor)
            for r in range(size):
                i = first + r
                weights = state[i, 0]
                after, moved, along = real(0), real(0), real(0)
                for j in range(dim):
                    u = d[j, r] if tall else d[r, j]
                    old = weights[j]
                    change = shrink * old + push * u
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


@cache
def _kernel(optimizer: type[Optimizer], gradient: type[Gradient]) -> Kernel:
    bound = {"_sample": gradient.sample}
    return compiled(_walk, f"matrix_{optimizer.name}_{gradient.name}", bound, fastmath=FASTMATH, _nrt=False)


def filled_up(count: int, to: int) -> int:
    """The least multiple of `to` that is at least `count`."""
    return -(-count // to) * to


class Matrixwise(WeightEngine):
    """Updates whose shape is spectral, by Newton and Schulz's iteration."""

    name = "numba"
    acts_on: ClassVar[ActsOn] = "matrix"
    needs = "an optimizer that acts on coordinates, neurons or matrices"
    automatic = True

    def accepts(self, optimizer: Optimizer, gradient: Gradient) -> bool:
        return super().accepts(optimizer, gradient) and optimizer.shape == "spectral"

    def _sides(self, problem: Problem) -> tuple[int, int]:
        """Of the products."""
        short, long = sorted((problem.rows, problem.dim))
        return filled_up(short, _PAD), filled_up(long, _PAD)

    def workspace(self, problem: Problem) -> Any:
        p, q = self._sides(problem)
        gradient, dim, dtype = problem.gradient, problem.dim, problem.dtype
        spots = places(dim)
        return MatrixRoom(
            np.zeros((SLOTS + gradient.memory_slots, spots), dtype),
            np.zeros(gradient.scratch(dim), dtype),
            np.zeros(spots // 2, np.uint32),
            CONSTANTS,
            np.zeros((p, q), dtype),
            np.zeros((p, q), dtype),
            np.zeros((p, p), dtype),
            np.zeros((p, p), dtype),
            problem.rows,
            update_factor(problem),
        )

    def bytes_beside_state(self, problem: Problem, workers: int) -> int:
        p, q = self._sides(problem)
        one = 2 * p * (p + q) * problem.dtype.itemsize
        return super().bytes_beside_state(problem, workers) + min(workers, problem.neurons // problem.rows) * one

    def work(self, problem: Problem) -> float:
        """Beside a step of a coordinate, the products: each takes as many multiplications as the matrix is wide."""
        return super().work(problem) * (1 + min(problem.rows, problem.dim))

    def kernel(self, problem: Problem) -> Kernel:
        return _kernel(type(problem.optimizer), type(problem.gradient))


def update_factor(problem: Problem) -> float:
    """By which the form of the matrices multiplies updates; 1 where an optimizer has no such rule."""
    rule: Any = getattr(problem.optimizer, "update_factor", None)
    return 1.0 if rule is None else float(rule(problem.rows, problem.dim))
