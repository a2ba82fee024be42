"""Noise as weights in front of a normalisation layer see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rotsim.compiled import kernel_part
from rotsim.gradients.base import INLINED, GradientPower, Noise, across, one_scale
from rotsim.kernels import inlined
from rotsim.noise import box_muller


def _draw(near, far, x0, x1, w_near, w_far):  # type: ignore[no-untyped-def]
    """`fill_normals` and the overlap with w in one loop: it costs nothing while the normals are in registers."""
    overlap = w_near.dtype.type(0)
    for j in range(far.size):
        near[j], far[j] = box_muller(x0[j], x1[j])
        overlap += near[j] * w_near[j] + far[j] * w_far[j]
    return overlap


_OPTIONS: Any = {"fastmath": INLINED["fastmath"], "_nrt": False}
_draw_few = inlined(_draw, "draw_few", {}, interleave=2, **_OPTIONS)
_draw_many = inlined(_draw, "draw_many", {}, interleave=4, **_OPTIONS)  # loads the many constants half as often


@kernel_part(**INLINED)
def _sample(z, words, w, norm_squared, key0, key1, step, parameters, memory, data, t, i):  # type: ignore[no-untyped-def]
    half = w.size // 2
    pairs = w.size - half
    parts = z[:half], z[pairs : pairs + half], words[0], words[1], w[:half], w[pairs:]
    overlap = _draw_few(*parts) if half < 64 else _draw_many(*parts)
    if half < pairs:  # the last of an odd dim
        z[half], _ = box_muller(words[0, half], words[1, half])
        overlap += z[half] * w[half]
    return across(overlap, w.size, norm_squared, parameters[0])


@dataclass(frozen=True)
class ScaleInvariant(Noise):
    """Noise as scale invariance shapes it: g = P_w⊥ z / ‖w‖ with z ~ N(0, scale²/C · I).

    Parameters
    ----------
    scale : float or sequence of float, one per neuron
        RMS of ‖g̃‖, the gradient norm at ‖w‖ = 1 (up to the factor √(1 - 1/C) of the projection), from 1e-30 to 1e30.

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
