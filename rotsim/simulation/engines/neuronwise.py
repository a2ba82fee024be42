"""The walk of what turns at a norm that stays: three passes over a neuron, since the update is projected first.

Arguments, state and records are those of `walk._walk`. The last slot of a neuron holds the running mean of
the squared update norm, and the norm that is kept.
"""

from __future__ import annotations

from functools import cache
from typing import cast

import numpy as np

from rotsim import noise
from rotsim.angle import squared_angle, squared_chord
from rotsim.compiled import wide_vectors
from rotsim.gradients.base import Gradient, Neuron
from rotsim.kernels import compiled
from rotsim.optimizers.base import Optimizer
from rotsim.optimizers.turning import Turning
from rotsim.simulation.arguments import Kernel
from rotsim.simulation.engines.base import Problem, WeightEngine
from rotsim.simulation.engines.coordinatewise import Coordinatewise
from rotsim.simulation.walk import FASTMATH, fill_rows, keep_rows

_update = _turn = _sample = None  # what `kernel` binds: the inner optimizer's update, the turn, the sampler


def _walk(block, neurons, steps, room, records):  # type: ignore[no-untyped-def]
    """Advance the neurons of a block; eleven coefficients a step."""
    wide_vectors()
    state, coefficients, data = neurons.state, steps.coefficients, steps.data
    rows, z, words = room.rows, room.z, room.words
    real = state.dtype.type
    tiny = np.finfo(state.dtype).tiny
    dim = state.shape[2]
    places = noise.places(dim)
    w, m, v, memory = rows[0, :places], rows[1, :places], rows[2, :places], rows[3:]
    for i in range(block[0], block[1]):
        fill_rows(rows, state[i], places)
        kept, before = rows[-1], neurons.norm_squared[i]
        key0, key1 = neurons.keys[i, 0], neurons.keys[i, 1]
        for t in range(coefficients.shape[0]):
            step = steps.first + t
            if step == 1:
                kept[0], kept[1] = real(0), real(np.sqrt(before))
            noise.draw_words(words, key0, key1, step)
            given = data[t, i if data.shape[1] > 1 else 0]
            neuron = Neuron(w, dim, before, key0, key1, step, neurons.parameters[i], memory, given)
            scale_z, scale_w = _sample(z, (words, room.constants), neuron)
            a, b = real(scale_z), real(scale_w)
            c = coefficients[t]
            rate, decay, age, zero_mean = c[7], c[8], c[9], c[10]
            plain = (c[0], c[1], c[2], c[3], c[4], c[5], c[6])
            overlap, mean_u, mean_w = real(0), real(0), real(0)
            for j in range(dim):
                u, m[j], v[j] = _update(w[j], m[j], v[j], a * z[j] + b * w[j], plain)
                z[j] = u
                overlap += w[j] * u
                mean_u += u
                mean_w += w[j]
            if zero_mean == 0:
                mean_u, mean_w = real(0), real(0)
            mean_u, mean_w = mean_u / dim, mean_w / dim
            # off the span of 1 and w, that is off 1 and the centred w; of equal weights nothing is left when centred
            centred = max(real(before) - dim * mean_w * mean_w, real(1e-6) * real(before))
            along = (overlap - dim * mean_w * mean_u) / centred
            offset = along * mean_w - mean_u
            size = real(0)
            for j in range(dim):
                z[j] += offset - along * w[j]
                size += z[j] * z[j]
            kept[0] = decay * kept[0] + (1 - decay) * size
            mean = max(kept[0] / age, tiny)
            turn = _turn(np.float64(rate), np.float64(size), np.float64(along) * np.sqrt(before), mean)
            shrink = real(np.cos(turn) * kept[1] / np.sqrt(before))
            push = real(np.sin(turn) * kept[1] / np.sqrt(max(size, tiny)))
            after, moved, radial = real(0), real(0), real(0)
            for j in range(dim):
                change = (shrink - real(1)) * w[j] + push * z[j]
                radial += w[j] * change
                w[j] += change
                after += w[j] * w[j]
                moved += change * change
            record = records.sums[i, :, (step - 1) // records.length - records.first]
            record[0] += after
            record[1] += squared_angle(squared_chord(before, np.float64(after), radial, moved))
            record[2] += moved
            before = np.float64(after)
        neurons.norm_squared[i] = before
        keep_rows(rows, state[i])


@cache
def _kernel(kind: type[Turning], inner: type[Optimizer], gradient: type[Gradient]) -> Kernel:
    bound = {"_update": inner.update, "_turn": kind.turn, "_sample": gradient.sample}
    return compiled(_walk, f"{kind.name}_{inner.name}_{gradient.name}", bound, fastmath=FASTMATH, _nrt=False)


class Neuronwise(WeightEngine):
    """Update a neuron, project, turn."""

    name = "numba"
    acts_on = "neuron"
    needs = Coordinatewise.needs
    automatic = True

    def kernel(self, problem: Problem) -> Kernel:
        optimizer = cast(Turning, problem.optimizer)
        return _kernel(type(optimizer), type(optimizer.plain), type(problem.gradient))
