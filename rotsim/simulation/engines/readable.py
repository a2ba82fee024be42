"""The walk in plain NumPy: what the kernel computes, in the order a person would write it.

Slow and readable, on the same noise; the tests hold the kernel against it. For a lecture, start
reading rotsim here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, cast

import numpy as np

from rotsim.gradients import Gradient
from rotsim.optimizers.base import N_COEFFICIENTS, ActsOn
from rotsim.optimizers.turning import HOLDING, Turning
from rotsim.simulation.arguments import Kernel, Neurons, Steps, Windows
from rotsim.simulation.engines.base import Problem, WeightEngine, bytes_in_numpy
from rotsim.simulation.engines.coordinatewise import Coordinatewise
from rotsim.simulation.engines.matrixwise import update_factor

# of a step, in steps of a coordinate in the compiled walk
_OF_A_COORDINATE, _OF_CALLS = 50.0, 1e5
#: ``move(slots, g, c, step) -> (new weights, change)``: one step of all neurons; moves their moments in place.
Move = Callable[[np.ndarray, np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray]]


def angle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Angle between rows, from the chord: right for angles far below the arccosine's resolution."""
    u = u.astype(np.float64) / np.linalg.norm(u.astype(np.float64), axis=1, keepdims=True)
    v = v.astype(np.float64) / np.linalg.norm(v.astype(np.float64), axis=1, keepdims=True)
    return 2 * np.arctan2(np.linalg.norm(u - v, axis=1), np.linalg.norm(u + v, axis=1))


def walk_by(move: Move, gradient: Gradient) -> Kernel:
    """The walk that every twin takes: draw gradients, move, record."""

    def walk(block: tuple[int, int], neurons: Neurons, steps: Steps, _: None, records: Windows) -> None:
        chosen = slice(*block)
        state, keys, parameters = neurons.state, neurons.keys[chosen], neurons.parameters[chosen]
        for t, c in enumerate(steps.coefficients):
            step = steps.first + t
            slots = state[chosen]
            given = steps.data[t] if len(steps.data) else steps.data
            given = given[chosen] if len(given) == len(state) else given
            g = gradient.at(slots[:, 0], keys, step, parameters, slots[:, 3:], given)
            new, change = move(slots, g, c, step)
            record = records.sums[chosen, :, (step - 1) // records.length - records.first]
            record[:, 0] += (new.astype(np.float64) ** 2).sum(axis=1)
            record[:, 1] += angle(slots[:, 0], new) ** 2
            record[:, 2] += (change.astype(np.float64) ** 2).sum(axis=1)
            slots[:, 0] = new
        neurons.norm_squared[chosen] = (state[chosen, 0].astype(np.float64) ** 2).sum(axis=1)

    return walk


class Readable(WeightEngine):
    """Update rules that act on a coordinate at a time."""

    name = "numpy"
    acts_on: ClassVar[ActsOn] = "coordinate"
    needs = Coordinatewise.needs

    def kernel(self, problem: Problem) -> Kernel:
        optimizer = problem.optimizer

        def move(slots: np.ndarray, g: np.ndarray, c: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
            w, more = slots[:, 0], [slots[:, -1]] * optimizer.memory_slots
            change, slots[:, 1], slots[:, 2], *more = optimizer.update(w, slots[:, 1], slots[:, 2], g, c, *more)
            if more:
                slots[:, -1] = more[0]
            return w + change, change

        return walk_by(move, problem.gradient)

    def bytes_beside_state(self, problem: Problem, workers: int) -> int:
        return bytes_in_numpy(problem)

    def blocks(self, workers: int) -> int:
        """All neurons at once: Python runs one thread at a time, and each call of NumPy has its cost."""
        return 1

    def work(self, problem: Problem) -> float:
        matrices = problem.neurons / problem.rows if problem.optimizer.acts_on == "matrix" else 1.0
        return _OF_A_COORDINATE * problem.neurons * problem.dim + _OF_CALLS * matrices

    def workspace(self, problem: Problem) -> None:
        return None


class ReadableNeuronwise(Readable):
    """What turns at a norm that stays."""

    acts_on = "neuron"

    def kernel(self, problem: Problem) -> Kernel:
        optimizer = cast(Turning, problem.optimizer)

        def move(slots: np.ndarray, g: np.ndarray, c: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
            w, kept = slots[:, 0], slots[:, -1]
            if step == 1:
                kept[:, 0], kept[:, 1] = 0, np.linalg.norm(w, axis=1)
            u, slots[:, 1], slots[:, 2] = optimizer.plain.update(w, slots[:, 1], slots[:, 2], g, c[:N_COEFFICIENTS])
            rate, decay, age, zero_mean = c[N_COEFFICIENTS:]
            if zero_mean:
                u = u - u.mean(axis=1, keepdims=True)
            centred = w - w.mean(axis=1, keepdims=True) if zero_mean else w
            left = np.maximum((centred**2).sum(axis=1, keepdims=True), 1e-6 * (w**2).sum(axis=1, keepdims=True))
            norm = np.linalg.norm(w, axis=1, keepdims=True)
            share = (u * centred).sum(axis=1, keepdims=True) / left  # of equal weights nothing is left
            u = u - share * centred
            size = np.linalg.norm(u, axis=1)
            kept[:, 0] = decay * kept[:, 0] + (1 - decay) * size**2
            tiny = np.finfo(w.dtype).tiny  # if all signs are alike no update is left, and the neuron stays
            mean = np.maximum(kept[:, 0] / age, tiny)
            turn = optimizer.turn(rate, size**2, (share * norm)[:, 0], mean)[:, None]
            new = kept[:, 1, None] * (np.cos(turn) * w / norm + np.sin(turn) * u / np.maximum(size, tiny)[:, None])
            return new, new - w

        return walk_by(move, problem.gradient)


class ReadableMatrixwise(Readable):
    """Update rules that act on a whole matrix."""

    acts_on = "matrix"

    def kernel(self, problem: Problem) -> Kernel:
        optimizer, rows, factor = problem.optimizer, problem.rows, update_factor(problem)
        held = isinstance(optimizer, Turning)
        rule = optimizer.plain.update if held else optimizer.update

        def move(slots: np.ndarray, g: np.ndarray, c: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
            c, change = c.copy(), np.empty_like(g)
            c[1] *= factor  # the rate of the update, without decay
            inner, rate = (c[:-HOLDING], c[-HOLDING]) if held else (c, 0.0)
            for first in range(0, len(slots), rows):
                one = slice(first, first + rows)
                w, m, v = slots[one, 0], slots[one, 1], slots[one, 2]
                u, slots[one, 1], slots[one, 2] = rule(w, m, v, g[one], inner)
                if held:
                    if step == 1:
                        slots[first, -1, 1] = np.linalg.norm(w)
                    norm = np.linalg.norm(w)
                    along = (u * w).sum() / norm
                    across = u - along * w / norm
                    size = max((across**2).sum(), np.finfo(w.dtype).tiny)
                    angle = cast(Turning, optimizer).turn(rate, size, along, size)
                    turned = np.cos(angle) * w / norm + np.sin(angle) * across / np.sqrt(size)
                    u = slots[first, -1, 1] * turned - w
                change[one] = u
            return slots[:, 0] + change, change

        return walk_by(move, problem.gradient)
