"""The walk in plain NumPy: what the kernel computes, in the order a person would write it.

Slow and readable, on the same noise; the tests hold the kernel against it. For a lecture, start
reading rotsim here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rotsim.gradients import Gradient
from rotsim.optimizers.base import Optimizer


def angle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Angle between rows, from the chord: right for angles far below the arccosine's resolution."""
    u = u.astype(np.float64) / np.linalg.norm(u.astype(np.float64), axis=1, keepdims=True)
    v = v.astype(np.float64) / np.linalg.norm(v.astype(np.float64), axis=1, keepdims=True)
    return 2 * np.arctan2(np.linalg.norm(u - v, axis=1), np.linalg.norm(u + v, axis=1))


def kernel(optimizer: Optimizer, gradient: Gradient) -> Callable[..., None]:
    """A function with the arguments of the jitted kernel and the same effect on them."""

    def walk(  # type: ignore[no-untyped-def]
        neurons, state, norm_squared, keys, first_step, coefficients, parameters, data, window, first_window, z, records
    ):
        chosen = slice(*neurons)
        for t, c in enumerate(coefficients):
            step = first_step + t
            w, m, v = (state[chosen, slot] for slot in range(3))
            given = data[t] if len(data) else data
            given = given[chosen] if len(given) == len(keys) else given
            g = gradient.at(w, keys[chosen], step, parameters[chosen], state[chosen, 3:], given)
            change, m, v = optimizer.update(w, m, v, g, c)
            new = w + change
            record = records[chosen, (step - 1) // window - first_window]
            record[:, 0] += (new.astype(np.float64) ** 2).sum(axis=1)
            record[:, 1] += angle(w, new) ** 2
            record[:, 2] += (change.astype(np.float64) ** 2).sum(axis=1)
            state[chosen, 0], state[chosen, 1], state[chosen, 2] = new, m, v
        norm_squared[chosen] = (state[chosen, 0].astype(np.float64) ** 2).sum(axis=1)

    return walk
