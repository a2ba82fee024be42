"""Noise about a persistent mean: what the loss itself asks for."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rotsim.compiled import kernel_part
from rotsim.errors import require
from rotsim.gradients.base import (
    INLINED,
    GradientPower,
    PerNeuron,
    Structured,
    fill_normals,
    finite,
    one_scale,
    per_neuron,
    scaled,
    shaped,
)

LARGEST_RATIO = 1000.0  # beyond it the noise drowns in the rounding of the mean


@kernel_part(**INLINED)
def _sample(z, draws, neuron):  # type: ignore[no-untyped-def]
    fill_normals(z, draws)
    for j in range(neuron.dim):
        z[j] += neuron.parameters[2]
    return shaped(z, neuron)


@dataclass(frozen=True)
class Signal(Structured):
    """Noise about a persistent mean, z ~ N(ratio, 1) in every coordinate before it is shaped.

    All coordinates having one mean costs no generality where the optimizer treats signs alike.

    Parameters
    ----------
    ratio : float or sequence of float, one per neuron
        Mean over standard deviation of a coordinate: the signal-to-noise ratio of one gradient, in [-1000, 1000].
    scale : float or sequence of float, one per neuron
        As in `Isotropic` or `ScaleInvariant`, of the noise, from 1e-30 to 1e30.
    scale_invariant : bool
        Shape z as `ScaleInvariant` does (True), which turns w until the mean is radial, or as `Isotropic`.

    Raises
    ------
    InvalidInput
        If a value is out of range.

    Notes
    -----
    What it does to norm and rotation is derived in `derivations.signal`.
    """

    name = "signal"
    sample = staticmethod(_sample)

    ratio: PerNeuron

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("ratio", per_neuron("ratio", self.ratio, _resolved))

    def parameters(self) -> np.ndarray:
        return self._columns(self.ratio)

    def averaged(self, factor: float) -> Signal:
        noise = super().averaged(factor)
        return replace(noise, ratio=scaled(self.ratio, factor**0.5))  # type: ignore[call-arg, return-value]

    def power(self, dim: int) -> GradientPower:
        return self._noise_power(dim, signal=one_scale(self.ratio, "ratio"))

    def _raw(
        self, z: np.ndarray, keys: np.ndarray, step: int, parameters: np.ndarray, memory: np.ndarray, data: np.ndarray
    ) -> np.ndarray:
        return z + parameters[:, 2:].astype(z.dtype)


def _resolved(name: str, value: object) -> float:
    number = finite(name, value)
    require(abs(number) <= LARGEST_RATIO, name, f"be in [-{LARGEST_RATIO:g}, {LARGEST_RATIO:g}]", number)
    return number
