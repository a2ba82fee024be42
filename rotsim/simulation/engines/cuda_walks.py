"""The walk on a GPU: one neuron per block, whose threads take the counters of its noise in turn.

Where a neuron has no more counters than a block has threads, each thread keeps its eight coordinates in registers for
the whole chunk (`walk_in_registers`). A longer one lies in the GPU's memory (`walk_in_memory`).

Noise, update rules and angles are the very functions of the CPU engine, so the draws come from the same counters. Only
the order of sums and what is fused differ. Arguments are those of `rotsim.simulation.walk`, taken apart.
"""

from __future__ import annotations

import numpy as np

KEPT = 32  # steps whose norms and angles are recorded together, by as many threads

# `rotsim.simulation.engines.cuda` binds these
_cuda = _real = _double = _threads = _groups = _update = _words = _normals = _counters = _angle = _chord = None
_moved = _room = _block_sums = _total = _factors = _coefficients = _recorded = _done = None


def room():  # type: ignore[no-untyped-def]
    """What the threads of a block share.

    Their sums (3, threads), these by groups (3, groups), what `recorded` needs of steps (4, KEPT), and the angles.
    """
    sums = _cuda.shared.array((3, _threads), _real)  # one a line: the simulator tells them apart by that
    partial = _cuda.shared.array((3, _groups), _real)
    kept = _cuda.shared.array((4, KEPT), _real)
    angles = _cuda.shared.array(KEPT, _double)
    _cuda.syncthreads()  # the first to leave would take the simulator's `_cuda` away from those that stay
    return sums, partial, kept, angles


def block_sums(sums, partial, me, number):  # type: ignore[no-untyped-def]
    """Add the first `number` rows of `sums` up by groups; `total` does the rest."""
    _cuda.syncthreads()
    if me < _groups:
        for k in range(number):
            group = sums[k, me]
            for g in range(1, _threads // _groups):
                group += sums[k, me + _groups * g]
            partial[k, me] = group
    _cuda.syncthreads()


def total(partial, k):  # type: ignore[no-untyped-def]
    """The sum of a row over the block's threads, in the same order in every thread."""
    found = partial[k, 0]
    for g in range(1, _groups):
        found += partial[k, g]
    return found


def factors(room, me, overlap, scale, dim, before, orthogonal):  # type: ignore[no-untyped-def]
    """a and b of the gradient a·z + b·w, from this thread's share of ⟨z, w⟩."""
    if not orthogonal:
        return scale, _real(0)
    sums, partial, _, _ = room
    sums[0, me] = overlap
    _block_sums(sums, partial, me, 1)
    a = scale / np.sqrt(_real(dim) * before)
    return a, -a * _total(partial, 0) / before


def coefficients_of(table, t):  # type: ignore[no-untyped-def]
    """The optimizer's, of a step."""
    return table[t, 0], table[t, 1], table[t, 2], table[t, 3], table[t, 4], table[t, 5], table[t, 6]


def recorded(kept, angles, count, me, first_step, window, first_window, records):  # type: ignore[no-untyped-def]
    """Add `count` steps from `first_step` on to the sums of the windows, in double precision.

    Columns of `kept` are ‖w‖² before and after a step, ⟨w, Δw⟩ and ‖Δw‖². Threads take steps, then windows.
    """
    _cuda.syncthreads()
    for s in range(me, count, _threads):
        before, after, along, moved = kept[0, s], kept[1, s], kept[2, s], kept[3, s]
        angles[s] = _angle(_chord(np.float64(before), np.float64(after), np.float64(along), np.float64(moved)))
    _cuda.syncthreads()
    first, last = (first_step - 1) // window, (first_step + count - 2) // window
    for row in range(first + me, last + 1, _threads):
        start, stop = row * window + 1 - first_step, (row + 1) * window + 1 - first_step
        start, stop = start if start > 0 else 0, stop if stop < count else count
        place = row - first_window
        sum_norm, sum_angle, sum_moved = records[0, place], records[1, place], records[2, place]
        for s in range(start, stop):
            sum_norm += np.float64(kept[1, s])
            sum_angle += angles[s]
            sum_moved += np.float64(kept[3, s])
        records[0, place], records[1, place], records[2, place] = sum_norm, sum_angle, sum_moved
    _cuda.syncthreads()


def done(  # type: ignore[no-untyped-def]
    room, me, t, last, first_step, window, first_window, records, before, after, along, distance
):
    """Add up the threads' shares of what step t did, and record the steps that are kept if they are many or the last.

    Returns ‖w‖² after it.
    """
    sums, partial, kept, angles = room
    sums[0, me], sums[1, me], sums[2, me] = after, along, distance
    _block_sums(sums, partial, me, 3)
    after = _total(partial, 0)
    s = t % KEPT
    if me == 0:
        kept[0, s], kept[1, s], kept[2, s], kept[3, s] = before, after, _total(partial, 1), _total(partial, 2)
    if s == KEPT - 1 or last:
        _recorded(kept, angles, s + 1, me, first_step + t - s, window, first_window, records)
    return after


def moved(w, m, v, more, j, g, c):  # type: ignore[no-untyped-def]
    """The change of one coordinate, whose moments are moved."""
    change, m[j], v[j] = _update(w[j], m[j], v[j], g, c)
    return change


def moved_with_more(w, m, v, more, j, g, c):  # type: ignore[no-untyped-def]
    """The same for an update that keeps one more average."""
    change, m[j], v[j], more[j] = _update(w[j], m[j], v[j], g, c, more[j])
    return change


def walk_in_registers(  # type: ignore[no-untyped-def]
    state, norm_squared, keys, first_step, coefficients, parameters, orthogonal, window, first_window, z, records
):
    """Advance all neurons, each in the registers of a block's threads; ``z`` is not used."""
    i, me = _cuda.blockIdx.x, _cuda.threadIdx.x
    room = _room()
    w, m, v = _cuda.local.array(8, _real), _cuda.local.array(8, _real), _cuda.local.array(8, _real)
    more, noise = _cuda.local.array(8, _real), _cuda.local.array(8, _real)
    last_row, dim = state.shape[1] - 1, state.shape[2]
    count = _counters(dim)
    mine = (dim - me + count - 1) // count if me < count else 0  # coordinates of this thread: me, me + count, ...
    for k in range(8):
        j = me + k * count
        w[k], m[k], v[k], more[k] = _real(0), _real(0), _real(0), _real(0)
        if k < mine:
            w[k], m[k], v[k], more[k] = state[i, 0, j], state[i, 1, j], state[i, 2, j], state[i, last_row, j]
    key0, key1 = keys[i, 0], keys[i, 1]
    scale, before = _real(parameters[i, 0]), _real(norm_squared[i])
    steps = coefficients.shape[0]
    for t in range(steps):
        words = _words(key0, key1, np.uint32(me), np.uint32(first_step + t))
        for k in range(4):
            noise[k], noise[k + 4] = _normals(words[k])
        overlap = _real(0)
        for k in range(8):
            noise[k] = noise[k] if k < mine else _real(0)
            overlap += noise[k] * w[k]
        a, b = _factors(room, me, overlap, scale, dim, before, orthogonal)
        c = _coefficients(coefficients, t)
        after, along, distance = _real(0), _real(0), _real(0)
        for k in range(8):
            old = w[k]
            change = _moved(w, m, v, more, k, a * noise[k] + b * old, c)
            w[k] = old + change
            after += w[k] * w[k]
            along += old * change
            distance += change * change
        before = _done(
            room, me, t, t == steps - 1, first_step, window, first_window, records[i], before, after, along, distance
        )
    for k in range(8):
        j = me + k * count
        if k < mine:
            state[i, last_row, j] = more[k]
            state[i, 0, j], state[i, 1, j], state[i, 2, j] = w[k], m[k], v[k]
    if me == 0:
        norm_squared[i] = np.float64(before)


def walk_in_memory(  # type: ignore[no-untyped-def]
    state, norm_squared, keys, first_step, coefficients, parameters, orthogonal, window, first_window, z, records
):
    """The same with neurons in the GPU's memory; z : (neurons, places) scratch."""
    i, me = _cuda.blockIdx.x, _cuda.threadIdx.x
    room = _room()
    w, m, v, more = state[i, 0], state[i, 1], state[i, 2], state[i, state.shape[1] - 1]
    dim = state.shape[2]
    count = _counters(dim)
    key0, key1 = keys[i, 0], keys[i, 1]
    scale, before = _real(parameters[i, 0]), _real(norm_squared[i])
    steps = coefficients.shape[0]
    for t in range(steps):
        overlap = _real(0)
        for q in range(me, count, _threads):
            words = _words(key0, key1, np.uint32(q), np.uint32(first_step + t))
            for k in range(4):
                z[i, k * count + q], z[i, (4 + k) * count + q] = _normals(words[k])
            for j in range(q, dim, count):
                overlap += z[i, j] * w[j]
        a, b = _factors(room, me, overlap, scale, dim, before, orthogonal)
        c = _coefficients(coefficients, t)
        after, along, distance = _real(0), _real(0), _real(0)
        for q in range(me, count, _threads):
            for j in range(q, dim, count):
                old = w[j]
                change = _moved(w, m, v, more, j, a * z[i, j] + b * old, c)
                w[j] = old + change
                after += w[j] * w[j]
                along += old * change
                distance += change * change
        before = _done(
            room, me, t, t == steps - 1, first_step, window, first_window, records[i], before, after, along, distance
        )
    if me == 0:
        norm_squared[i] = np.float64(before)
