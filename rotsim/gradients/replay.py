"""Gradients given in advance."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from rotsim.compiled import kernel_part
from rotsim.errors import LARGEST_SIZE, InvalidInput, array
from rotsim.gradients.base import INLINED, Gradient


@kernel_part(**INLINED)
def sample_given(z, draws, neuron):  # type: ignore[no-untyped-def]
    """The gradient is what `Gradient.given` supplies."""
    for j in range(neuron.dim):
        z[j] = neuron.given[j]
    return 1.0, 0.0


@dataclass(frozen=True, eq=False)
class Replay(Gradient):
    """Gradients given in advance, e.g. recorded from a network.

    Parameters
    ----------
    gradients : array_like of float, shape (steps, neurons, dim)
        Finite values; step t of the walk uses ``gradients[t - 1]``.

    Raises
    ------
    InvalidInput
        If a value is out of range.
    """

    name = "replay"
    sample = staticmethod(sample_given)

    gradients: np.ndarray

    def __post_init__(self) -> None:
        given = array("gradients", self.gradients, "be an array of numbers of shape (steps, neurons, dim)")
        if given.ndim != 3 or 0 in given.shape:
            raise InvalidInput(f"`gradients` must have shape (steps, neurons, dim), none zero; got {given.shape}")
        if not (np.abs(given) <= LARGEST_SIZE).all():
            raise InvalidInput(f"`gradients` must be finite and at most {LARGEST_SIZE:g} in size; some are not")
        self._set("gradients", given)

    @property
    def extent(self) -> tuple[int | None, int | None, int | None]:
        steps, neurons, dim = self.gradients.shape
        return steps, neurons, dim

    def sizes(self) -> np.ndarray:
        return np.array([np.abs(self.gradients).max()])

    def parameters(self) -> np.ndarray:
        return np.zeros((1, 1))

    def given(self, step: np.ndarray, dtype: np.dtype[Any], weights: np.ndarray, keys: np.ndarray) -> np.ndarray:
        return self.gradients[step[0] - 1 : step[-1]].astype(dtype)

    def at(
        self, w: np.ndarray, keys: np.ndarray, step: int, parameters: np.ndarray, memory: np.ndarray, data: np.ndarray
    ) -> np.ndarray:
        return data

    def to_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "shape": list(self.gradients.shape),
            "sha256": sha256(np.ascontiguousarray(self.gradients).tobytes()).hexdigest(),
        }
