"""The only hot loop: one neuron's state stays in cache for many steps.

`kernel` compiles `_walk` for one optimizer and one gradient model. The kernel validates nothing,
allocates nothing per step and holds no lock; which neurons and how many steps it gets changes
nothing in the numbers.

The update of one step draws the random words of the next: their integer instructions run while
the divider works on the update's roots and quotients. They stand between eight coordinates, half a
round at a time, since a processor looks ahead over less than one pass of the loop.

A neuron's rows are filled up with zeros, which no step moves: the loops have no remainder, whatever the dim.

Kernels count no references (``_nrt``), which would cost about a tenth of a walk at dim 64: whoever calls
them brings the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from rotsim import noise
from rotsim.angle import squared_angle, squared_chord
from rotsim.compiled import kernel_part, wide_vectors
from rotsim.gradients.base import Gradient, Neuron
from rotsim.kernels import compiled, inlined
from rotsim.optimizers.base import Optimizer
from rotsim.optimizers.cautious import masked
from rotsim.simulation.workspace import BLOCK

FASTMATH = {"contract", "nsz", "reassoc", "arcp"}  # not nnan, ninf: a diverging walk must show as NaN


class Parts(NamedTuple):
    """Rows of a neuron cut where one counter's draws go, and the words of a step where one counter's words go.

    `more` is the last row: one more average, where the update keeps one.
    """

    w: tuple[np.ndarray, ...]
    m: tuple[np.ndarray, ...]
    v: tuple[np.ndarray, ...]
    more: tuple[np.ndarray, ...]
    z: tuple[np.ndarray, ...]
    words: tuple[np.ndarray, ...]


_update = _sample = _coordinate = _step = None  # `kernel` binds these: see there


@kernel_part(fastmath=False)
def _record(records, i, sums, count, first_step):  # type: ignore[no-untyped-def]
    """Add the first `count` columns of `sums`, for `squared_chord` at steps from `first_step` on, to those of neuron i.

    Without any freedom in rounding: where a block of steps ends changes nothing in the numbers.
    """
    before, after, along, moved = sums[0], sums[1], sums[2], sums[3]
    for t in range(count):
        along[t] = squared_chord(before[t], after[t], along[t], moved[t])
    window = records.length
    row, room = (first_step - 1) // window - records.first, window - (first_step - 1) % window
    start = 0
    while start < count:  # each turn takes the steps of one record window
        record, stop = records.sums[i, :, row], min(count, start + room)
        sum_norm, sum_angle, sum_moved = record[0], record[1], record[2]
        for t in range(start, stop):
            sum_norm += after[t]
            sum_angle += squared_angle(along[t])
            sum_moved += moved[t]
        record[0], record[1], record[2] = sum_norm, sum_angle, sum_moved
        row, room, start = row + 1, window, stop


@kernel_part()
def fill_rows(rows, state, places):  # type: ignore[no-untyped-def]
    """Copy one neuron's state (≥ slots, dim) to the workspace, and zeros up to so many places."""
    for slot in range(rows.shape[0]):
        for j in range(state.shape[1]):
            rows[slot, j] = state[slot, j]
        for j in range(state.shape[1], places):
            rows[slot, j] = 0


@kernel_part()
def keep_rows(rows, state):  # type: ignore[no-untyped-def]
    """Copy one neuron from the workspace back to its state."""
    for slot in range(rows.shape[0]):
        for j in range(state.shape[1]):
            state[slot, j] = rows[slot, j]


def _move(w, m, v, more, z, j, a, b, c, sums):  # type: ignore[no-untyped-def]
    """Update one coordinate and add its terms to the sums ‖w‖², ⟨w, Δw⟩ and ‖Δw‖²."""
    old = w[j]
    change, m[j], v[j] = _update(old, m[j], v[j], a * z[j] + b * old, c)
    new = old + change
    w[j] = new
    return sums[0] + new * new, sums[1] + old * change, sums[2] + change * change


def _move_with_more(w, m, v, more, z, j, a, b, c, sums):  # type: ignore[no-untyped-def]
    """The same for an update that keeps one more average."""
    old = w[j]
    change, m[j], v[j], more[j] = _update(old, m[j], v[j], a * z[j] + b * old, c, more[j])
    new = old + change
    w[j] = new
    return sums[0] + new * new, sums[1] + old * change, sums[2] + change * change


@kernel_part()
def _eighths(x, n):  # type: ignore[no-untyped-def]
    """The eight parts of x (8n,) that take their normals from the same counters."""
    return (
        x[:n], x[n : 2 * n], x[2 * n : 3 * n], x[3 * n : 4 * n],
        x[4 * n : 5 * n], x[5 * n : 6 * n], x[6 * n : 7 * n], x[7 * n : 8 * n],
    )  # fmt: skip


@kernel_part()
def _quarters(x):  # type: ignore[no-untyped-def]
    """The four parts of x whose words come from the same counters."""
    n = x.size // 4
    return x[:n], x[n : 2 * n], x[2 * n : 3 * n], x[3 * n :]


def _advance(parts, vectors, a, b, c, key0, key1, next_step):  # type: ignore[no-untyped-def]
    """Update every coordinate with g = a·z + b·w and draw the next step's words; ‖w‖², ⟨w, Δw⟩ and ‖Δw‖²."""
    wide_vectors()
    w, m, v, more, z, words = parts.w, parts.m, parts.v, parts.more, parts.z, parts.words
    zero = w[0].dtype.type(0)
    sums = zero, zero, zero
    for j in range(8 * vectors):  # a multiple of eight, as LLVM sees: vectors leave no remainder
        x = noise.begin(key0, key1, np.uint32(j), np.uint32(next_step))
        x = noise.first_half(x)
        sums = _coordinate(w[0], m[0], v[0], more[0], z[0], j, a, b, c, sums)
        x = noise.second_half(x)
        sums = _coordinate(w[1], m[1], v[1], more[1], z[1], j, a, b, c, sums)
        x = noise.first_half(x)
        sums = _coordinate(w[2], m[2], v[2], more[2], z[2], j, a, b, c, sums)
        x = noise.second_half(x)
        sums = _coordinate(w[3], m[3], v[3], more[3], z[3], j, a, b, c, sums)
        x = noise.first_half(x)
        sums = _coordinate(w[4], m[4], v[4], more[4], z[4], j, a, b, c, sums)
        x = noise.second_half(x)
        sums = _coordinate(w[5], m[5], v[5], more[5], z[5], j, a, b, c, sums)
        x = noise.first_half(x)
        sums = _coordinate(w[6], m[6], v[6], more[6], z[6], j, a, b, c, sums)
        x = noise.second_half(x)
        sums = _coordinate(w[7], m[7], v[7], more[7], z[7], j, a, b, c, sums)
        words[0][j], words[1][j], words[2][j], words[3][j] = x
    return sums


def _walk(block, neurons, steps, room, records):  # type: ignore[no-untyped-def]
    """Advance the neurons of a block, one after the other; see `rotsim.simulation.arguments`."""
    wide_vectors()
    state, coefficients, data = neurons.state, steps.coefficients, steps.data
    rows, z, words, sums = room.rows, room.z, room.words, room.sums
    real = state.dtype.type
    number, dim = coefficients.shape[0], state.shape[2]
    n = noise.counters(dim)
    w, memory = rows[0, : 8 * n], rows[3:]
    moved = _eighths(rows[0], n), _eighths(rows[1], n), _eighths(rows[2], n), _eighths(rows[-1], n)
    parts = Parts(moved[0], moved[1], moved[2], moved[3], _eighths(z, n), _quarters(words))
    for i in range(block[0], block[1]):
        fill_rows(rows, state[i], 8 * n)
        key0, key1 = neurons.keys[i, 0], neurons.keys[i, 1]
        before = neurons.norm_squared[i]
        noise.draw_words(words, key0, key1, steps.first)
        for start in range(0, number, BLOCK):
            count = min(BLOCK, number - start)
            for k in range(count):
                t = start + k
                given = data[t, i if data.shape[1] > 1 else 0]
                neuron = Neuron(w, dim, before, key0, key1, steps.first + t, neurons.parameters[i], memory, given)
                scale_z, scale_w = _sample(z, (words, room.constants), neuron)
                for j in range(dim, 8 * n):
                    z[j] = real(0)
                a, b = real(scale_z), real(scale_w)
                c = coefficients[t]
                c = (c[0], c[1], c[2], c[3], c[4], c[5], c[6])
                after, along, moved = _step(parts, n // 8, a, b, c, key0, key1, steps.first + t + 1)
                sums[0, k], sums[1, k], sums[2, k], sums[3, k] = before, after, along, moved
                before = np.float64(after)
            _record(records, i, sums, count, steps.first + start)
        neurons.norm_squared[i] = before
        keep_rows(rows, state[i])


@cache
def kernel(optimizer: type[Optimizer], gradient: type[Gradient], cautious: bool = False) -> Callable[..., None]:
    """`_walk` for one optimizer and gradient model; with cautious decay or without."""
    name = f"{'cautious_' if cautious else ''}{optimizer.name}_{gradient.name}"
    options: Any = {"fastmath": FASTMATH, "_nrt": False}
    update: Any = optimizer.update
    if cautious:
        update = inlined(masked(optimizer), f"update_{name}", {"_plain": optimizer.update}, **options)
    bound = {"_update": update, "_sample": gradient.sample}
    move = _move_with_more if optimizer.memory_slots else _move
    bound["_coordinate"] = inlined(move, f"move_{name}", bound, **options)
    bound["_step"] = inlined(_advance, f"advance_{name}", bound, interleave=1, **options)
    return compiled(_walk, f"walk_{name}", bound, **options)
