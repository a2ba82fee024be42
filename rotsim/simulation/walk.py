"""The only hot loop: one neuron's state stays in cache for many steps.

`kernel` compiles `_walk` for one optimizer and one gradient model. The kernel validates nothing,
allocates nothing per step and holds no lock; which neurons and how many steps it gets changes
nothing in the numbers.

The update of one step draws the random words of the next: their integer instructions run while
the divider works on the update's roots and quotients. They stand between four coordinates, a third of
the rounds at a time, since a processor looks ahead over less than one pass of the loop.

Kernels count no references (``_nrt``), which would cost about a tenth of a walk at dim 64: whoever calls
them brings the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from rotsim import noise
from rotsim.angle import squared_angle, squared_chord
from rotsim.compiled import kernel_part, wide_vectors
from rotsim.gradients.base import Gradient
from rotsim.kernels import compiled, inlined
from rotsim.optimizers.base import Optimizer
from rotsim.simulation.workspace import BLOCK

FASTMATH = {"contract", "nsz", "reassoc", "arcp"}  # not nnan, ninf: a diverging walk must show as NaN

_update = _sample = _coordinate = _step = None  # what `kernel` binds: see there


@kernel_part(fastmath=False)
def _record(records, sums, count, first_step, window, first_window):  # type: ignore[no-untyped-def]
    """Add the first `count` columns of `sums`, those of `squared_chord` at steps from `first_step` on, to the records.

    Without any freedom in rounding: where a block of steps ends changes nothing in the numbers.
    """
    before, after, along, moved = sums[0], sums[1], sums[2], sums[3]
    for t in range(count):
        along[t] = squared_chord(before[t], after[t], along[t], moved[t])
    row, room = (first_step - 1) // window - first_window, window - (first_step - 1) % window
    start = 0
    while start < count:  # the steps that fall into one record window
        record, stop = records[:, row], min(count, start + room)
        sum_norm, sum_angle, sum_moved = record[0], record[1], record[2]
        for t in range(start, stop):
            sum_norm += after[t]
            sum_angle += squared_angle(along[t])
            sum_moved += moved[t]
        record[0], record[1], record[2] = sum_norm, sum_angle, sum_moved
        row, room, start = row + 1, window, stop


def _move(w, m, v, z, j, a, b, c):  # type: ignore[no-untyped-def]
    """Update one coordinate; its terms of ‖w‖², ⟨w, Δw⟩ and ‖Δw‖²."""
    old = w[j]
    change, m[j], v[j] = _update(old, m[j], v[j], a * z[j] + b * old, c)
    new = old + change
    w[j] = new
    return new * new, old * change, change * change


@kernel_part()
def _quarters(x, quarter):  # type: ignore[no-untyped-def]
    """The four parts of x (dim,) that take their normals from the same counters."""
    half = (x.size + 1) // 2
    return x[:quarter], x[quarter:half], x[half : half + quarter], x[half + quarter :]


def _advance(w, m, v, z, words, a, b, c, key0, key1, next_step):  # type: ignore[no-untyped-def]
    """Update every coordinate with g = a·z + b·w and draw the next step's words; ‖w‖², ⟨w, Δw⟩ and ‖Δw‖²."""
    wide_vectors()
    zero = w[0].dtype.type(0)
    after, along, moved = zero, zero, zero
    for j in range(w[3].size):
        x0, x1, x2, x3 = noise.first_rounds(key0, key1, np.uint32(j), np.uint32(next_step))
        terms = _coordinate(w[0], m[0], v[0], z[0], j, a, b, c)
        after, along, moved = after + terms[0], along + terms[1], moved + terms[2]
        x0, x1, x2, x3 = noise.middle_rounds(key0, key1, x0, x1, x2, x3)
        terms = _coordinate(w[1], m[1], v[1], z[1], j, a, b, c)
        after, along, moved = after + terms[0], along + terms[1], moved + terms[2]
        x0, x1, x2, x3 = noise.last_rounds(key0, key1, x0, x1, x2, x3)
        terms = _coordinate(w[2], m[2], v[2], z[2], j, a, b, c)
        after, along, moved = after + terms[0], along + terms[1], moved + terms[2]
        words[0][j], words[1][j], words[2][j], words[3][j] = x0, x1, x2, x3
        terms = _coordinate(w[3], m[3], v[3], z[3], j, a, b, c)
        after, along, moved = after + terms[0], along + terms[1], moved + terms[2]
    for j in range(w[3].size, w[0].size):  # the last of a dim that is no multiple of four
        words[0][j], words[1][j], words[2][j], words[3][j] = noise.threefry4x32(
            key0, key1, np.uint32(j), np.uint32(next_step)
        )
        for quarter in range(3):
            if j < w[quarter].size:
                terms = _coordinate(w[quarter], m[quarter], v[quarter], z[quarter], j, a, b, c)
                after, along, moved = after + terms[0], along + terms[1], moved + terms[2]
    return after, along, moved


def _walk(  # type: ignore[no-untyped-def]
    neurons, state, norm_squared, keys, first_step, coefficients, parameters, data, window, first_window, room, records
):
    """Advance ``neurons`` = (start, stop) by ``len(coefficients)`` steps; step numbers start at `first_step`.

    state : (neurons, SLOTS + the gradient's memory, dim); norm_squared : (neurons,) float64, carried so that
    a chunk boundary changes no rounding; coefficients : (steps, 6); parameters : (neurons, count) float64, of the
    sampler; data : (steps, neurons or 1, count) or (0, 0, 0); room : `workspace`; records : (neurons, 3,
    windows) float64, to which ‖w‖², the squared angle and ‖Δw‖² of every step are added.
    """
    wide_vectors()
    rows, z, words, sums = room
    real = state.dtype.type
    steps, dim = coefficients.shape[0], state.shape[2]
    quarter = noise.counters(dim)
    w, m, v, memory = rows[0, :dim], rows[1, :dim], rows[2, :dim], rows[3:]
    parts = _quarters(w, quarter), _quarters(m, quarter), _quarters(v, quarter), _quarters(z[:dim], quarter)
    x = words[0, :quarter], words[1, :quarter], words[0, quarter : 2 * quarter], words[1, quarter : 2 * quarter]
    for i in range(neurons[0], neurons[1]):
        for slot in range(rows.shape[0]):
            for j in range(dim):
                rows[slot, j] = state[i, slot, j]
        key0, key1 = keys[i, 0], keys[i, 1]
        before = norm_squared[i]
        noise.draw_words(words, quarter, key0, key1, first_step)
        for start in range(0, steps, BLOCK):
            count = min(BLOCK, steps - start)
            for k in range(count):
                t = start + k
                scale_z, scale_w = _sample(
                    z, words, w, before, key0, key1, first_step + t, parameters[i], memory, data, t, i
                )
                a, b = real(scale_z), real(scale_w)
                c = coefficients[t]
                c = (c[0], c[1], c[2], c[3], c[4], c[5])
                after, along, moved = _step(
                    parts[0], parts[1], parts[2], parts[3], x, a, b, c, key0, key1, first_step + t + 1
                )
                sums[0, k], sums[1, k], sums[2, k], sums[3, k] = before, after, along, moved
                before = np.float64(after)
            _record(records[i], sums, count, first_step + start, window, first_window)
        norm_squared[i] = before
        for slot in range(rows.shape[0]):
            for j in range(dim):
                state[i, slot, j] = rows[slot, j]


@cache
def kernel(optimizer: type[Optimizer], gradient: type[Gradient]) -> Callable[..., None]:
    """`_walk` for one optimizer and gradient model."""
    name = f"{optimizer.name}_{gradient.name}"
    bound = {"_update": optimizer.update, "_sample": gradient.sample}
    options: Any = {"fastmath": FASTMATH, "_nrt": False}
    bound["_coordinate"] = inlined(_move, f"move_{name}", bound, **options)
    bound["_step"] = inlined(_advance, f"advance_{name}", bound, interleave=1, **options)
    return compiled(_walk, f"walk_{name}", bound, **options)
