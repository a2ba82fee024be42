"""Noise as weights in front of a normalisation layer see it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba.extending import register_jitable

from rotsim.gradients.base import INLINED, GradientPower, Noise, one_scale, shape_noise, shaped
from rotsim.noise import fill_normals, normals


@register_jitable(**INLINED)
def _sample(z, words, w, norm_squared, key0, key1, step, parameters, memory, data, t, i):  # type: ignore[no-untyped-def]
    fill_normals(z, words, key0, key1, step)
    return shaped(z, w, norm_squared, parameters[0], 1.0)


@dataclass(frozen=True)
class ScaleInvariant(Noise):
    """Noise as scale invariance shapes it: g = P_w⊥ z / ‖w‖ with z ~ N(0, scale²/C · I).

    Parameters
    ----------
    scale : float or sequence of float, one per neuron
        RMS of ‖g̃‖, the gradient norm at ‖w‖ = 1 (up to the factor √(1 - 1/C) of the projection), > 0.
    """

    name = "scale_invariant"
    sample = staticmethod(_sample)

    def at(
        self, w: np.ndarray, keys: np.ndarray, step: int, parameters: np.ndarray, memory: np.ndarray, data: np.ndarray
    ) -> np.ndarray:
        return shape_noise(normals(keys, step, w.shape[1]).astype(w.dtype), w, parameters[:, 0], True)

    def power(self, dim: int) -> GradientPower:
        return GradientPower(one_scale(self.scale) ** 2 * (1 - 1 / dim), -1)
