r"""Muon under white or scale-invariant noise without its coordinates: a matrix of 2p columns, whatever dim is.

A matrix has p rows, and so has its momentum m. Noise treats all directions alike, and a spectral update is made of the
rows of m. So norms, angles and all that follows need only the Gram matrix of the 2p rows of (w, m), which is a Markov
chain. Its factor is kept, in an orthonormal frame of the 2p directions that these rows span:

1. Each row's noise has a normal along each of the 2p directions. The rest of p rows spans p more directions. There
   the noise is triangular: normals below the diagonal, and the length of what is left on it. That is the root of a
   chi-square with C - 2p - i degrees of freedom in row i (Bartlett 1933).
2. Momentum, direction and weights move in these 3p coordinates as the matrix does in all C.
3. The frame turns to the new rows: of their Gram matrix, the triangular factor of Cholesky is what they are there.

A step costs the same for every dim. It follows the law of the full walk exactly, not its draws.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, cast

import numpy as np
import scipy

from rotsim.compiled import kernel_part, wide_vectors
from rotsim.gradients.base import Gradient, Noise
from rotsim.kernels import compiled
from rotsim.noise import (
    INITIAL_WEIGHTS_STREAM,
    chi_squared,
    draw_normals,
    neuron_keys,
    normals,
    places,
    random_words,
)
from rotsim.optimizers.base import Optimizer
from rotsim.simulation.arguments import Kernel, Neurons, Steps, Windows
from rotsim.simulation.engines.base import Problem
from rotsim.simulation.engines.gram import Chain
from rotsim.simulation.engines.matrixwise import STATIC, move_row, update_factor
from rotsim.simulation.spectral import (
    SpectralRoom,
    filled_up,
    orthogonalise,
    products_of_rows,
    spectral_bytes,
    spectral_room,
)
from rotsim.simulation.state import SLOTS, State
from rotsim.simulation.walk import FASTMATH

#: Columns over rows from which on the chain takes less time than the matrix.
LEAST_RATIO = 8
_DEPENDENT = 1e-13  # share of a row's square off the rows before it, below which it is rounding


class ChainRoom(NamedTuple):
    """What the kernel works in; p is filled up to a multiple of `rotsim.simulation.spectral.PAD`.

    Attributes
    ----------
    x : ndarray, shape (2p, 3p)
        Rows of the weights and of the momentum in the frame, and beyond it.
    gram : ndarray, shape (2p, 2p)
    noise : ndarray, shape (3p,)
        Of one row.
    z : ndarray of float32, shape (places(3p),)
    spectral : SpectralRoom
    size : int
        Neurons of a matrix.
    factor : float
        Of the update, by the form of the matrix.
    """

    x: np.ndarray
    gram: np.ndarray
    noise: np.ndarray
    z: np.ndarray
    spectral: SpectralRoom
    size: int
    factor: float


@kernel_part(fastmath=FASTMATH)
def turn_frame(x, gram):  # type: ignore[no-untyped-def]
    """Put the triangular factor of x·xᵀ into x: the same lengths and angles, in as many columns as x has rows."""
    products_of_rows(x, x, gram, True)
    count = gram.shape[0]
    for j in range(count):
        mine, own = gram[j], gram[j, j]
        pivot = own
        for k in range(j):
            pivot -= mine[k] * mine[k]
        root = np.sqrt(pivot) if pivot > _DEPENDENT * own else 0.0
        by = 1.0 / root if root > 0.0 else 0.0
        mine[j] = root
        for i in range(j + 1, count):
            row = gram[i]
            total = row[j]
            for k in range(j):
                total -= row[k] * mine[k]
            row[j] = total * by
    for i in range(count):
        row = x[i]
        for k in range(x.shape[1]):
            row[k] = gram[i, k] if k <= i else 0.0


def _walk(block, neurons, steps, room, records, scale, orthogonal, dim):  # type: ignore[no-untyped-def]
    """Walk with ``state`` (neurons, 3, 2 rows): weights and momentum in the frame of their matrix, and nothing."""
    wide_vectors()
    state, keys, coefficients = neurons.state, neurons.keys, steps.coefficients
    x, noise, size = room.x, room.noise, room.size
    d, across, out = room.spectral.d, room.spectral.across, room.spectral.out
    pad = x.shape[0] // 2
    for first in range(block[0], block[1], size):
        for r in range(size):
            for part in range(2):
                for j in range(size):
                    x[part * pad + r, j] = state[first + r, part, j]
                    x[part * pad + r, pad + j] = state[first + r, part, size + j]
        for t in range(coefficients.shape[0]):
            step, c = steps.first + t, coefficients[t]
            momentum, nesterov = c[2], c[3] != 0
            for r in range(size):
                i = first + r
                key0, key1 = keys[i, 0], keys[i, 1]
                draw_normals(room.z, key0, key1, step)
                for part in range(3):
                    for j in range(size):
                        noise[part * pad + j] = np.float64(room.z[part * size + j])
                for j in range(r, size):
                    noise[2 * pad + j] = 0.0
                noise[2 * pad + r] = np.sqrt(
                    chi_squared(dim - 2 * size - r, key1, key0, step)
                )  # other draws: keys swapped
                w, m, direction = x[r], x[pad + r], d[r]
                a, b = scale[i], 0.0
                if orthogonal:
                    square, along = neurons.norm_squared[i], 0.0
                    for j in range(2 * pad):
                        along += w[j] * noise[j]
                    a /= np.sqrt(square)
                    b = -a * along / square
                for j in range(3 * pad):
                    g = a * noise[j] + b * w[j]
                    new = g + momentum * (m[j] - g)
                    m[j] = new
                    new = g + momentum * (new - g) if nesterov else new
                    direction[j] = new
                    across[j, r] = new
            orthogonalise(room.spectral, c[STATIC:], max(c[4], 1e-38))
            shrink, push = -c[0], -c[1] * room.factor
            for r in range(size):
                move_row(x[r], out[r], 3 * pad, shrink, push, False, first + r, step, neurons, records)
            turn_frame(x, room.gram)
        for r in range(size):
            for part in range(2):
                for j in range(size):
                    state[first + r, part, j] = x[part * pad + r, j]
                    state[first + r, part, size + j] = x[part * pad + r, pad + j]


@cache
def _kernel() -> Kernel:
    return compiled(_walk, "gram_matrix", {}, fastmath=FASTMATH)


def initial_frame(problem: Problem) -> np.ndarray:
    """The weights of all matrices in frames of their own, shape (neurons, rows), lower triangles."""
    neurons, rows, dim = problem.neurons, problem.rows, problem.dim
    if problem.initial_weights is not None:
        matrices = np.asarray(problem.initial_weights, np.float64).reshape(-1, rows, dim)
        triangles = [np.asarray(np.linalg.qr(matrix.T, mode="r")).T for matrix in matrices]
        return np.concatenate(triangles)
    keys, row = neuron_keys(problem.seed, neurons, INITIAL_WEIGHTS_STREAM), np.arange(neurons) % rows
    word = random_words(keys[:, 1], keys[:, 0], *np.zeros((2, neurons), np.uint32))[0]
    length = np.sqrt(2 * scipy.special.gammaincinv((dim - row) / 2, (word + 0.5) * 2.0**-32))
    frame = np.where(np.arange(rows) < row[:, None], normals(keys, 0, rows).astype(np.float64), 0.0)
    frame[np.arange(neurons), row] = length
    return frame * (problem.norms / np.linalg.norm(frame, axis=1))[:, None]


class GramMatrix(Chain):
    """Muon by the Gram matrix of its weights and momentum."""

    acts_on = "matrix"

    def accepts(self, optimizer: Optimizer, gradient: Gradient) -> bool:
        spectral = optimizer.acts_on == self.acts_on and optimizer.shape == "spectral"
        return spectral and gradient.plain_noise and not optimizer.cautious

    def fits(self, rows: int, dim: int) -> bool:
        return dim >= LEAST_RATIO * rows

    def shape(self, problem: Problem) -> tuple[int, int]:
        return SLOTS, 2 * problem.rows

    def fresh(self, problem: Problem) -> State:
        state = np.zeros((problem.neurons, *self.shape(problem)))
        state[:, 0, : problem.rows] = initial_frame(problem)
        return State(0, state, (state[:, 0] ** 2).sum(axis=1))

    def workspace(self, problem: Problem) -> Any:
        p = filled_up(problem.rows)
        return ChainRoom(
            np.zeros((2 * p, 3 * p)),
            np.zeros((2 * p, 2 * p)),
            np.zeros(3 * p),
            np.zeros(places(3 * problem.rows), np.float32),
            spectral_room(problem.rows, 3 * p, problem.dtype),
            problem.rows,
            update_factor(problem),
        )

    def bytes_beside_state(self, problem: Problem, workers: int) -> int:
        p = filled_up(problem.rows)
        one = 10 * p * p * problem.dtype.itemsize + spectral_bytes(problem.rows, 3 * p, problem.dtype)
        return min(workers, problem.neurons // problem.rows) * one

    def work(self, problem: Problem) -> float:
        """Products as of a full walk of 3p columns, in a format of twice the bytes."""
        return 6.0 * problem.neurons * problem.rows * (1 + problem.rows)

    def kernel(self, problem: Problem) -> Kernel:
        orthogonal, dim = cast(Noise, problem.gradient).scale_invariant, problem.dim
        unit = 1 / np.sqrt(dim) if orthogonal else 1.0

        def walk(block: tuple[int, int], neurons: Neurons, steps: Steps, room: ChainRoom, records: Windows) -> None:
            _kernel()(block, neurons, steps, room, records, unit * neurons.parameters[:, 0], orthogonal, dim)

        return walk
