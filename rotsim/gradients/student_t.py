"""Heavy-tailed noise."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rotsim.compiled import kernel_part
from rotsim.errors import require
from rotsim.gradients.base import INLINED, PerNeuron, Structured, finite, per_neuron, shaped
from rotsim.noise import random_words

_U = np.uint32


@kernel_part()
def _student_t(x0, x1, degrees):  # type: ignore[no-untyped-def]
    """Student's t of unit variance from two words: Bailey's (1994) polar method, exact for any degrees > 2."""
    u = (np.float64(x0) + 0.5) * 2.0**-32
    angle = np.float64(x1) * (2.0**-32 * 2.0 * np.pi)
    # t = √(ν(u^(-2/ν) - 1)) cos, over its standard deviation √(ν/(ν-2)); expm1 keeps u near 1 right
    return np.sqrt((degrees - 2.0) * np.expm1(-2.0 / degrees * np.log(u))) * np.cos(angle)


@kernel_part(**INLINED)
def _sample(z, draws, neuron):  # type: ignore[no-untyped-def]
    for j in range(neuron.dim):
        x0, x1, _, _ = random_words(neuron.key0, neuron.key1, _U(j), _U(neuron.step))
        z[j] = _student_t(x0, x1, neuron.parameters[2])
    return shaped(z, neuron)


@dataclass(frozen=True)
class StudentT(Structured):
    """Independent Student-t coordinates of unit variance, before they are shaped.

    Parameters
    ----------
    degrees : float or sequence of float, one per neuron
        Degrees of freedom ν > 2; the tails fall as ``|z|^(-ν-1)``, and ν → ∞ is Gaussian.
    scale : float or sequence of float, one per neuron
        As in `Isotropic` or `ScaleInvariant`, from 1e-30 to 1e30.
    scale_invariant : bool
        Shape the noise as `ScaleInvariant` does (True) or as `Isotropic`.

    Raises
    ------
    InvalidInput
        If a value is out of range.
    """

    name = "student_t"
    sample = staticmethod(_sample)

    degrees: PerNeuron

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("degrees", per_neuron("degrees", self.degrees, _above_two))

    def parameters(self) -> np.ndarray:
        return self._columns(self.degrees)

    def _raw(
        self, z: np.ndarray, keys: np.ndarray, step: int, parameters: np.ndarray, memory: np.ndarray, data: np.ndarray
    ) -> np.ndarray:
        coordinate = np.arange(z.shape[1], dtype=_U)
        x0, x1, _, _ = random_words(keys[:, :1], keys[:, 1:], coordinate, np.full_like(coordinate, step))
        return _student_t(x0, x1, parameters[:, 2:]).astype(z.dtype)


def _above_two(name: str, value: object) -> float:
    number = finite(name, value)
    require(number > 2, name, "be > 2, below which the noise has no variance", number)
    return number
