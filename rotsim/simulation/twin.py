"""The walk in plain NumPy: what the kernel computes, in the order a person would write it.

Slow and readable, on the same noise; the tests hold the kernel against it. For a lecture, start
reading rotsim here.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rotsim.gradients import Gradient, Isotropic, Replay, ScaleInvariant
from rotsim.noise import normals
from rotsim.optimizers.base import Optimizer


def gradient_at(name: str, w: np.ndarray, keys: np.ndarray, step: int, scale: float, data: np.ndarray) -> np.ndarray:
    """Gradient of every neuron at one step, shape (neurons, dim)."""
    if name == Replay.name:
        return data
    z = normals(keys, step, w.shape[1]).astype(w.dtype)
    if name == Isotropic.name:
        return z * w.dtype.type(scale)
    if name == ScaleInvariant.name:
        norm = np.linalg.norm(w, axis=1, keepdims=True)
        direction = w / norm
        across = z - (z * direction).sum(axis=1, keepdims=True) * direction
        return across * w.dtype.type(scale / np.sqrt(w.shape[1])) / norm
    raise NotImplementedError(f"the NumPy twin has no gradient model {name!r}")


def angle(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Angle between rows, from the chord: right for angles far below the arccosine's resolution."""
    u = u.astype(np.float64) / np.linalg.norm(u.astype(np.float64), axis=1, keepdims=True)
    v = v.astype(np.float64) / np.linalg.norm(v.astype(np.float64), axis=1, keepdims=True)
    return 2 * np.arctan2(np.linalg.norm(u - v, axis=1), np.linalg.norm(u + v, axis=1))


def kernel(optimizer: type[Optimizer], gradient: type[Gradient]) -> Callable[..., None]:
    """A function with the arguments of the jitted kernel and the same effect on them."""

    def walk(  # type: ignore[no-untyped-def]
        neurons, state, norm_squared, keys, first_step, coefficients, parameter, data, window, first_window, z, records
    ):
        chosen = slice(*neurons)
        for t, c in enumerate(coefficients):
            step = first_step + t
            w, m, v = (state[chosen, slot] for slot in range(3))
            given = data[t, chosen] if len(data) else data
            g = gradient_at(gradient.name, w, keys[chosen], step, parameter, given)
            change, m, v = optimizer.update(w, m, v, g, c)
            new = w + change
            record = records[chosen, (step - 1) // window - first_window]
            record[:, 0] += (new.astype(np.float64) ** 2).sum(axis=1)
            record[:, 1] += angle(w, new) ** 2
            record[:, 2] += (change.astype(np.float64) ** 2).sum(axis=1)
            state[chosen, 0], state[chosen, 1], state[chosen, 2] = new, m, v
        norm_squared[chosen] = (state[chosen, 0].astype(np.float64) ** 2).sum(axis=1)

    return walk
