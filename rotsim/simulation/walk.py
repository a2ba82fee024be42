"""The only hot loop: one neuron's state stays in cache for many steps.

`kernel` compiles `_walk` for one optimizer and one gradient model. The kernel validates nothing,
allocates nothing per step and holds no lock; which neurons and how many steps it gets changes
nothing in the numbers.

The update of one step draws the random words of the next: their integer instructions run while
the divider works on the update's roots and quotients. They stand between eight coordinates, half a
round at a time, since a processor looks ahead over less than one pass of the loop.

An update needs nothing of other coordinates, so a pass takes eight vectors that lie side by side, whichever counters
drew their normals. At fixed distances from each other they take one address for each row: registers are few.

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
from rotsim.simulation.workspace import BLOCK, TILE

FASTMATH = {"contract", "nsz", "reassoc", "arcp"}  # not nnan, ninf: a diverging walk must show as NaN

# unsigned: an index never counts from the end
_TILE, _HALF_TILE, _EIGHT = np.uintp(TILE), np.uintp(TILE // 2), np.uintp(8)


class Span(NamedTuple):
    """What an update moves and draws: counters, as many words of each quarter, and eight times as many coordinates.

    `more` is the last row: one more average, where the update keeps one.
    """

    w: np.ndarray
    m: np.ndarray
    v: np.ndarray
    more: np.ndarray
    z: np.ndarray
    words: tuple[np.ndarray, ...]
    counters: np.ndarray


# `kernel` binds these: see there
_update = _sample = _coordinate = _two = _eight = _over_tiles = _over_half_tile = None


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


def _move(span, j, a, b, c, sums):  # type: ignore[no-untyped-def]
    """Update one coordinate and add its terms to the sums ‖w‖², ⟨w, Δw⟩ and ‖Δw‖²."""
    w, m, v = span.w, span.m, span.v
    old = w[j]
    change, m[j], v[j] = _update(old, m[j], v[j], a * span.z[j] + b * old, c)
    new = old + change
    w[j] = new
    return sums[0] + new * new, sums[1] + old * change, sums[2] + change * change


def _move_with_more(span, j, a, b, c, sums):  # type: ignore[no-untyped-def]
    """The same for an update that keeps one more average."""
    w, m, v, more = span.w, span.m, span.v, span.more
    old = w[j]
    change, m[j], v[j], more[j] = _update(old, m[j], v[j], a * span.z[j] + b * old, c, more[j])
    new = old + change
    w[j] = new
    return sums[0] + new * new, sums[1] + old * change, sums[2] + change * change


@kernel_part()
def _span(room, first, last):  # type: ignore[no-untyped-def]
    """The span of these counters of a neuron."""
    rows, words, n, start, stop = room.rows, room.words, room.counters.size, 8 * first, 8 * last
    quarters = (
        words[first:last],
        words[n + first : n + last],
        words[2 * n + first : 2 * n + last],
        words[3 * n + first : 3 * n + last],
    )
    w, m, v, more = rows[0, start:stop], rows[1, start:stop], rows[2, start:stop], rows[-1, start:stop]
    return Span(w, m, v, more, room.z[start:stop], quarters, room.counters[first:last])


def _round_beside_two(x, span, j, width, a, b, c, sums):  # type: ignore[no-untyped-def]
    """A quarter round of the words, half of it before each of two coordinates."""
    x = noise.first_half(x)
    sums = _coordinate(span, j, a, b, c, sums)
    x = noise.second_half(x)
    return x, _coordinate(span, j + width, a, b, c, sums)


def _draw_and_move(span, place, j, width, a, b, c, key0, key1, next_step, sums):  # type: ignore[no-untyped-def]
    """Draw the words of the counter at `place`, and update eight coordinates with g = a·z + b·w: j, j + width, ..."""
    words, two = span.words, width + width
    x = noise.begin(key0, key1, span.counters[place], np.uint32(next_step))
    x, sums = _two(x, span, j, width, a, b, c, sums)
    x, sums = _two(x, span, j + two, width, a, b, c, sums)
    x, sums = _two(x, span, j + two + two, width, a, b, c, sums)
    x, sums = _two(x, span, j + two + two + two, width, a, b, c, sums)
    words[0][place], words[1][place], words[2][place], words[3][place] = x
    return sums


def _tiles(span, lanes, tiles, a, b, c, key0, key1, next_step):  # type: ignore[no-untyped-def]
    """Update a span of so many tiles and draw its words for the next step; ‖w‖², ⟨w, Δw⟩ and ‖Δw‖².

    A tile has TILE counters, a few vectors. So the lanes of a vector of sums are added up after all tiles, not after
    each.
    """
    wide_vectors()
    after, along, moved = lanes
    zero = after.dtype.type(0)
    for i in range(_TILE):
        after[i], along[i], moved[i] = zero, zero, zero
    for tile in range(np.uintp(tiles)):
        for i in range(_TILE):
            place, j = _TILE * tile + i, _EIGHT * _TILE * tile + i
            sums = after[i], along[i], moved[i]
            after[i], along[i], moved[i] = _eight(span, place, j, _TILE, a, b, c, key0, key1, next_step, sums)
    sums = zero, zero, zero
    for i in range(_TILE):
        sums = sums[0] + after[i], sums[1] + along[i], sums[2] + moved[i]
    return sums


def _half_tile(span, halves, a, b, c, key0, key1, next_step):  # type: ignore[no-untyped-def]
    """The same for half a tile, of which there is one or none: what is left where counters do not fill tiles."""
    wide_vectors()
    zero = span.w.dtype.type(0)
    sums = zero, zero, zero
    for i in range(_HALF_TILE * np.uintp(halves)):
        sums = _eight(span, i, i, _HALF_TILE, a, b, c, key0, key1, next_step, sums)
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
    tiles, halves = room.tiles, room.halves
    whole, rest = _span(room, 0, tiles * TILE), _span(room, tiles * TILE, n)
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
                next_step = steps.first + t + 1
                after, along, moved = real(0), real(0), real(0)
                if tiles:
                    after, along, moved = _over_tiles(whole, room.lanes, tiles, a, b, c, key0, key1, next_step)
                if halves:
                    others = _over_half_tile(rest, halves, a, b, c, key0, key1, next_step)
                    after, along, moved = after + others[0], along + others[1], moved + others[2]
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
    bound["_two"] = inlined(_round_beside_two, f"two_{name}", bound, **options)
    bound["_eight"] = inlined(_draw_and_move, f"eight_{name}", bound, **options)
    bound["_over_tiles"] = inlined(_tiles, f"tiles_{name}", bound, interleave=1, **options)
    bound["_over_half_tile"] = inlined(_half_tile, f"half_tile_{name}", bound, interleave=1, **options)
    return compiled(_walk, f"walk_{name}", bound, **options)
