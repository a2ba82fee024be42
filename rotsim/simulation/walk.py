"""The only hot loop: one neuron's state stays in cache for many steps.

`kernel` compiles `_walk` for one optimizer and one gradient model. The kernel validates nothing,
allocates nothing per step and holds no lock; which neurons and how many steps it gets changes
nothing in the numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numba.extending import register_jitable

from rotsim import noise
from rotsim.gradients.base import Gradient
from rotsim.optimizers.base import Optimizer
from rotsim.simulation.compiled import compiled

FASTMATH = {"contract", "nsz", "reassoc", "arcp"}  # not nnan, ninf: a diverging walk must show as NaN

_update = _sample = None  # what `kernel` binds to the optimizer's update and the gradient's sampler


@register_jitable
def squared_angle(chord_squared):  # type: ignore[no-untyped-def]
    """Square of the angle whose chord on the unit circle has this squared length."""
    if chord_squared < 1e-3:  # series of (2 asin(c/2))², next term c¹⁰/3150
        c = chord_squared
        return c * (1.0 + c * (1.0 / 12.0 + c * (1.0 / 90.0 + c / 560.0)))
    angle = 2.0 * np.arcsin(min(1.0, 0.5 * np.sqrt(chord_squared)))
    return angle * angle


def _walk(  # type: ignore[no-untyped-def]
    neurons, state, norm_squared, keys, first_step, coefficients, parameters, data, window, first_window, z, records
):
    """Advance ``neurons`` = (start, stop) by ``len(coefficients)`` steps; step numbers start at `first_step`.

    state : (neurons, SLOTS + the gradient's memory, dim); norm_squared : (neurons,) float64, carried so that
    a chunk boundary changes no rounding; coefficients : (steps, 6); parameters : (neurons, count) float64, of the
    sampler; data : (steps, neurons or 1, count) or (0, 0, 0); z : the sampler's scratch; records : (neurons,
    windows, 3) float64, to which ‖w‖², the squared angle and ‖Δw‖² of every step are added.
    """
    real = state.dtype.type
    words = np.empty((2, noise.BLOCK), np.uint32)
    steps = coefficients.shape[0]
    for i in range(neurons[0], neurons[1]):
        w, m, v, memory = state[i, 0], state[i, 1], state[i, 2], state[i, 3:]
        dim = w.size
        key0, key1 = keys[i, 0], keys[i, 1]
        before = norm_squared[i]
        norm_before = np.sqrt(before)
        start = 0
        while start < steps:  # the steps that fall into one record window, summed in registers
            record = records[i, (first_step + start - 1) // window - first_window]
            stop = min(steps, start + window - (first_step + start - 1) % window)
            sum_norm, sum_angle, sum_moved = record[0], record[1], record[2]
            for t in range(start, stop):
                scale_z, scale_w = _sample(
                    z, words, w, before, key0, key1, first_step + t, parameters[i], memory, data, t, i
                )
                a, b = real(scale_z), real(scale_w)
                c = coefficients[t]
                c = (c[0], c[1], c[2], c[3], c[4], c[5])
                after, along, moved = real(0), real(0), real(0)
                for j in range(dim):
                    old = w[j]
                    change, m[j], v[j] = _update(old, m[j], v[j], a * z[j] + b * old, c)
                    new = old + change
                    w[j] = new
                    after += new * new
                    along += old * change
                    moved += change * change
                before = np.float64(after)
                norm_after = np.sqrt(before)
                # the radial part from the sums, not from norm_after - norm_before, which cancels
                radial = (2.0 * along + moved) / (norm_before + norm_after)
                chord_squared = max(moved - radial * radial, 0.0) / (norm_before * norm_after)
                sum_norm += before
                sum_angle += squared_angle(chord_squared)
                sum_moved += moved
                norm_before = norm_after
            record[0], record[1], record[2] = sum_norm, sum_angle, sum_moved
            start = stop
        norm_squared[i] = before


@cache
def kernel(optimizer: type[Optimizer], gradient: type[Gradient]) -> Callable[..., None]:
    """`_walk` for one optimizer and gradient model."""
    bound = {"_update": optimizer.update, "_sample": gradient.sample}
    return compiled(_walk, f"walk_{optimizer.name}_{gradient.name}", bound, fastmath=FASTMATH)
