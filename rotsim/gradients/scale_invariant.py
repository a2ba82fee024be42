"""Noise as weights in front of a normalisation layer see it."""

from __future__ import annotations

from dataclasses import dataclass

from numba.extending import register_jitable

from rotsim.gradients.base import INLINED, GradientPower, Noise, across, one_scale
from rotsim.noise import box_muller


@register_jitable(**INLINED)
def _sample(z, words, w, norm_squared, key0, key1, step, parameters, memory, data, t, i):  # type: ignore[no-untyped-def]
    # `fill_normals` and `shaped` in one loop: the overlap costs nothing while the normals are in registers
    x0, x1 = words[0], words[1]
    overlap = w.dtype.type(0)
    pairs = (w.size + 1) // 2  # not slices: of them LLVM makes a loop that is slow at small dim
    for j in range(w.size // 2):
        near, far = box_muller(x0[j], x1[j])
        z[j], z[pairs + j] = near, far
        overlap += near * w[j] + far * w[pairs + j]
    for j in range(w.size // 2, pairs):  # the last of an odd dim
        z[j], z[pairs + j] = box_muller(x0[j], x1[j])
        overlap += z[j] * w[j]
    return across(overlap, w.size, norm_squared, parameters[0])


@dataclass(frozen=True)
class ScaleInvariant(Noise):
    """Noise as scale invariance shapes it: g = P_w⊥ z / ‖w‖ with z ~ N(0, scale²/C · I).

    Parameters
    ----------
    scale : float or sequence of float, one per neuron
        RMS of ‖g̃‖, the gradient norm at ‖w‖ = 1 (up to the factor √(1 - 1/C) of the projection), > 0.

    Raises
    ------
    InvalidInput
        If a value is out of range.

    Notes
    -----
    Kosson, Messmer, Jaggi 2024, section 3: a normalised layer makes gradients orthogonal to w and as 1/‖w‖; p = -1 in
    `derivations.sgdm`.
    """

    name = "scale_invariant"
    sample = staticmethod(_sample)
    scale_invariant = True

    def power(self, dim: int) -> GradientPower:
        return GradientPower(one_scale(self.scale) ** 2 * (1 - 1 / dim), -1)
