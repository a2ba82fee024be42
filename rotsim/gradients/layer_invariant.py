"""Noise of a layer that is scale-invariant as a whole, while its neurons are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rotsim.errors import positive
from rotsim.gradients.base import Gradient, PerNeuron, broadcast, finite, per_neuron
from rotsim.gradients.replay import sample_given
from rotsim.noise import normals


@dataclass(frozen=True)
class LayerInvariant(Gradient):
    r"""Scale invariance of the whole layer W (rows w_i), as LayerNorm behind it gives, with neurons pushed radially.

    .. math::
        \tilde G_i = \frac{s_i}{\sqrt C} z_i + p_i \frac{w_i}{r}, \qquad
        G = \frac{1}{r}\left(\tilde G - \frac{\langle \tilde G, W\rangle}{\|W\|^2}\, W\right), \qquad
        r = \|W\| / \sqrt{n}

    with z_i ~ N(0, I). G is orthogonal to W but not row by row: what one neuron is pushed, the others share.
    With p = 0 and equal scales it is `ScaleInvariant` up to 1/(neurons) and 1/dim.

    Parameters
    ----------
    push : float or sequence of float, one per neuron
        p_i of any sign, the neuron's mean radial gradient in a layer of RMS row norm 1; only differences between
        neurons count.
    scale : float or sequence of float, one per neuron
        s_i, RMS of the noise's norm in a layer of RMS row norm 1, from 1e-30 to 1e30.

    Raises
    ------
    InvalidInput
        If a value is out of range.
    """

    name = "layer_invariant"
    sample = staticmethod(sample_given)
    coupled = True

    push: PerNeuron = 0.0
    scale: PerNeuron = 1.0

    def __post_init__(self) -> None:
        self._set("push", per_neuron("push", self.push, finite))
        self._set("scale", per_neuron("scale", self.scale, positive))
        self.parameters()

    def sizes(self) -> np.ndarray:
        return np.append(super().sizes(), np.max(self.scale) + np.abs(self.push).max())

    def parameters(self) -> np.ndarray:
        return np.stack(broadcast([np.atleast_1d(self.push), np.atleast_1d(self.scale)]), axis=1)

    def given(self, step: np.ndarray, dtype: np.dtype[Any], weights: np.ndarray, keys: np.ndarray) -> np.ndarray:
        w = weights.astype(np.float64)
        push, scale = self.parameters().T[..., None]
        layer = np.linalg.norm(w)
        row = layer / np.sqrt(len(w))
        raw = scale / np.sqrt(w.shape[1]) * normals(keys, int(step[0]), w.shape[1]) + push * w / row
        gradient: np.ndarray = (raw - (raw * w).sum() / layer**2 * w) / row
        return gradient[None].astype(dtype)

    def at(
        self, w: np.ndarray, keys: np.ndarray, step: int, parameters: np.ndarray, memory: np.ndarray, data: np.ndarray
    ) -> np.ndarray:
        return data
