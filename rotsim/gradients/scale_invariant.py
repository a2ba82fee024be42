"""Noise as weights in front of a normalisation layer see it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rotsim.compiled import kernel_part, wide_vectors
from rotsim.gradients.base import INLINED, GradientPower, Noise, across, one_scale
from rotsim.kernels import inlined
from rotsim.noise import pair_of_normals


def _draw(near, far, words, constants, w_near, w_far):  # type: ignore[no-untyped-def]
    """`fill_normals` and the overlap with w in one loop: it costs nothing while the normals are in registers."""
    wide_vectors()
    overlap = w_near.dtype.type(0)
    for j in range(words.size):
        near[j], far[j] = pair_of_normals(words[j], constants)
        overlap += near[j] * w_near[j] + far[j] * w_far[j]
    return overlap


_OPTIONS: Any = {"fastmath": INLINED["fastmath"], "_nrt": False}
_draw_across = inlined(_draw, "draw_across", {}, interleave=2, **_OPTIONS)


@kernel_part(**INLINED)
def _sample(z, draws, neuron):  # type: ignore[no-untyped-def]
    words, constants = draws
    n = words.size
    overlap = _draw_across(z[:n], z[n : 2 * n], words, constants, neuron.w[:n], neuron.w[n : 2 * n])
    return across(overlap, neuron.dim, neuron.norm_squared, neuron.parameters[0])


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
