"""White noise."""

from __future__ import annotations

from dataclasses import dataclass

from rotsim.compiled import kernel_part
from rotsim.gradients.base import INLINED, GradientPower, Noise, fill_normals, isotropic_spread, one_scale


@kernel_part(**INLINED)
def _sample(z, draws, neuron):  # type: ignore[no-untyped-def]
    fill_normals(z, draws)
    return neuron.parameters[0], 0.0


@dataclass(frozen=True)
class Isotropic(Noise):
    """White noise: g ~ N(0, scale² I).

    Parameters
    ----------
    scale : float or sequence of float, one per neuron
        Standard deviation of one coordinate, from 1e-30 to 1e30.

    Raises
    ------
    InvalidInput
        If a value is out of range.

    Notes
    -----
    The variance of a coordinate that the walks of `derivations.adamw` and its siblings start from, with p = 0.
    """

    name = "isotropic"
    sample = staticmethod(_sample)
    scale_invariant = False

    def power(self, dim: int) -> GradientPower:
        return GradientPower(dim * one_scale(self.scale) ** 2, 0)

    def angle_spread(self, dim: int) -> float:
        return isotropic_spread(dim)
