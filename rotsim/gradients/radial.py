"""Noise with a radial part: the gradient of weights that are not scale-invariant."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rotsim.compiled import kernel_part
from rotsim.gradients.base import (
    INLINED,
    GradientPower,
    PerNeuron,
    Structured,
    fill_normals,
    finite,
    one_scale,
    per_neuron,
    shaped,
)


@kernel_part(**INLINED)
def _sample(z, draws, neuron):  # type: ignore[no-untyped-def]
    fill_normals(z, draws)
    a, b = shaped(z, neuron)
    return a, b + neuron.parameters[2]


@dataclass(frozen=True)
class Radial(Structured):
    """Noise plus a pull towards the origin (or a push away): g = noise + strength·w.

    Parameters
    ----------
    strength : float or sequence of float, one per neuron
        Pull per unit of w, of any sign, in units of a coupled weight decay; negative pushes outwards.
    scale : float or sequence of float, one per neuron
        Of the noise, as in `Isotropic` or `ScaleInvariant`, from 1e-30 to 1e30.
    scale_invariant : bool
        Shape the noise as `ScaleInvariant` does (True) or as `Isotropic`.

    Raises
    ------
    InvalidInput
        If a value is out of range.

    Notes
    -----
    What it does to norm and rotation is derived in `derivations.radial`.
    """

    name = "radial"
    sample = staticmethod(_sample)

    strength: PerNeuron

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("strength", per_neuron("strength", self.strength, finite))

    def parameters(self) -> np.ndarray:
        return self._columns(self.strength)

    def power(self, dim: int) -> GradientPower:
        return self._noise_power(dim, radial=one_scale(self.strength, "strength"))

    def at(
        self, w: np.ndarray, keys: np.ndarray, step: int, parameters: np.ndarray, memory: np.ndarray, data: np.ndarray
    ) -> np.ndarray:
        return super().at(w, keys, step, parameters, memory, data) + parameters[:, 2:].astype(w.dtype) * w
