"""Noise with a memory: gradients of neighbouring steps resemble each other."""

from __future__ import annotations

from dataclasses import dataclass

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
    shaped,
)


@kernel_part(**INLINED)
def _sample(z, draws, neuron):  # type: ignore[no-untyped-def]
    fill_normals(z, draws)
    memory = neuron.memory
    if neuron.step > 1:  # the first draw has the stationary variance already
        correlation = neuron.parameters[2]
        fresh = np.sqrt(1.0 - correlation * correlation)
        for j in range(neuron.dim):
            z[j] = correlation * memory[0, j] + fresh * z[j]
    for j in range(neuron.dim):
        memory[0, j] = z[j]
    return shaped(z, neuron)


@dataclass(frozen=True)
class Autocorrelated(Structured):
    r"""First-order autoregressive noise of unit variance, before it is shaped.

    .. math::
        z_t = \phi\, z_{t-1} + \sqrt{1-\phi^2}\; \xi_t, \qquad E[z_t z_{t+k}] = \phi^{|k|}

    Parameters
    ----------
    correlation : float or sequence of float, one per neuron
        φ in (-1, 1), the correlation of neighbouring steps; 0 is white noise.
    scale : float or sequence of float, one per neuron
        As in `Isotropic` or `ScaleInvariant`, from 1e-30 to 1e30.
    scale_invariant : bool
        Shape z as `ScaleInvariant` does (True) or as `Isotropic`.

    Raises
    ------
    InvalidInput
        If a value is out of range.

    Notes
    -----
    What it does to norm and rotation is derived in `derivations.autocorrelated` and `correlated_adam`.
    """

    name = "autocorrelated"
    sample = staticmethod(_sample)
    memory_slots = 1

    correlation: PerNeuron

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("correlation", per_neuron("correlation", self.correlation, _inside))

    def parameters(self) -> np.ndarray:
        return self._columns(self.correlation)

    def power(self, dim: int) -> GradientPower:
        return self._noise_power(dim, correlation=one_scale(self.correlation, "correlation"))

    def _raw(
        self, z: np.ndarray, keys: np.ndarray, step: int, parameters: np.ndarray, memory: np.ndarray, data: np.ndarray
    ) -> np.ndarray:
        if step > 1:
            correlation = parameters[:, 2:]
            z = (correlation * memory[:, 0] + np.sqrt(1 - correlation**2) * z).astype(z.dtype)
        memory[:, 0] = z
        return z


def _inside(name: str, value: object) -> float:
    number = finite(name, value)
    require(abs(number) < 1, name, "be in (-1, 1)", number)
    return number
