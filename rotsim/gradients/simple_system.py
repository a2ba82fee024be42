"""Back-propagated gradients of the smallest normalised network."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rotsim.compiled import kernel_part
from rotsim.errors import integer, require
from rotsim.gradients.base import INLINED, Gradient, PerNeuron, finite, per_neuron
from rotsim.noise import draw_normals, normals, places


@kernel_part(fastmath=INLINED["fastmath"])
def _sample(z, draws, neuron):  # type: ignore[no-untyped-def]
    w, dim, parameters = neuron.w, neuron.dim, neuron.parameters
    batch, gain_out, gain_in = int(parameters[0]), parameters[1], parameters[2:]
    start = places(dim)  # behind the gradient's numbers stand the batch, the weights of the loss and the outputs
    inputs, loss = z[start : start + batch * dim], z[start + batch * dim : start + batch * dim + batch]
    output = z[z.size - batch :]
    draw_normals(z[start : z.size - batch], neuron.key0, neuron.key1, neuron.step)
    for j in range(dim):
        z[j] = w[j] * gain_in[j % gain_in.size]
    mean = 0.0
    for b in range(batch):
        total = z[0] * inputs[b * dim]
        for j in range(1, dim):
            total += z[j] * inputs[b * dim + j]
        output[b] = total
        mean += total / batch
    variance, loss_mean, loss_slope = 0.0, 0.0, 0.0
    for b in range(batch):
        output[b] -= mean
        variance += output[b] * output[b] / batch
        loss_mean += loss[b] / batch
        loss_slope += loss[b] * output[b] / batch
    factor = gain_out / (batch * np.sqrt(variance))
    for j in range(dim):
        z[j] = 0.0
    for b in range(batch):
        output[b] = factor * (loss[b] - loss_mean - loss_slope / variance * output[b])
        back = output[b]  # `back` has the precision of the weights
        for j in range(dim):
            z[j] += back * inputs[b * dim + j]
    for j in range(dim):
        z[j] *= gain_in[j % gain_in.size]
    return 1.0, 0.0


@dataclass(frozen=True)
class SimpleSystem(Gradient):
    r"""Gradients of the paper's simple system f(X) = γ_out ⊙ N(W(γ_in ⊙ X)) under a random linear loss.

    N normalises each output over the batch. At every step a neuron gets a batch X of N(0, 1) inputs and a
    loss :math:`L = \frac1B \sum_b r_b f_b` with r_b ~ N(0, 1), both drawn anew. Its gradient is back-propagated:

    .. math::
        y_b = \sum_j w_j \gamma^{in}_j x_{bj}, \quad \hat y_b = \frac{y_b - \bar y}{s_y}, \quad
        \frac{\partial L}{\partial w_j} = \frac{\gamma^{out}}{B s_y}
        \sum_b \left(r_b - \bar r - \overline{r\hat y}\,\hat y_b\right) \gamma^{in}_j x_{bj}

    Each neuron has a batch of its own, so neurons are independent; in a layer they would share it.

    Parameters
    ----------
    batch : int
        B >= 3; with 2 the normalised outputs are constants and the gradient vanishes.
    gain_out : float or sequence of float, one per neuron
        γ_out of any sign, not 0: scales the neuron's gradients.
    gain_in : float or sequence of float, one per coordinate
        γ_in of any sign, not 0: makes coordinates differ in size.

    Raises
    ------
    InvalidInput
        If a value is out of range.

    Notes
    -----
    Source: Kosson, Messmer, Jaggi 2024, the "simple system" of section 3.
    """

    name = "simple_system"
    sample = staticmethod(_sample)

    batch: int = 32
    gain_out: PerNeuron = 1.0
    gain_in: PerNeuron = 1.0

    def __post_init__(self) -> None:
        self._set("batch", integer("batch", self.batch, low=3))
        self._set("gain_out", per_neuron("gain_out", self.gain_out, _not_zero))
        self._set("gain_in", per_neuron("gain_in", self.gain_in, _not_zero))

    @property
    def extent(self) -> tuple[int | None, int | None, int | None]:
        neurons, dim = (len(gain) if isinstance(gain, tuple) else None for gain in (self.gain_out, self.gain_in))
        return None, neurons, dim

    def parameters(self) -> np.ndarray:
        gain_out, gain_in = np.atleast_1d(self.gain_out), np.atleast_1d(self.gain_in)
        shared = np.broadcast_to(gain_in, (len(gain_out), len(gain_in)))
        return np.column_stack([np.full(len(gain_out), float(self.batch)), gain_out, shared])

    def sizes(self) -> np.ndarray:
        gain_out, gain_in = np.abs(np.atleast_1d(self.gain_out)), np.abs(np.atleast_1d(self.gain_in))
        return np.outer([gain_out.min(), gain_out.max()], [gain_in.min(), gain_in.max()]).ravel()

    def scratch(self, dim: int) -> int:
        return places(dim) + places(self.batch * (dim + 1)) + self.batch

    def at(
        self, w: np.ndarray, keys: np.ndarray, step: int, parameters: np.ndarray, memory: np.ndarray, data: np.ndarray
    ) -> np.ndarray:
        neurons, dim = w.shape
        drawn = normals(keys, step, self.batch * (dim + 1)).astype(w.dtype)
        x = drawn[:, : self.batch * dim].reshape(neurons, self.batch, dim) * parameters[:, None, 2:].astype(w.dtype)
        loss = drawn[:, self.batch * dim :]
        y = np.einsum("nbj,nj->nb", x, w)
        spread = y.std(axis=1, keepdims=True)
        normed = (y - y.mean(axis=1, keepdims=True)) / spread
        slope = (loss * normed).mean(axis=1, keepdims=True)
        back = parameters[:, 1:2] / (self.batch * spread) * (loss - loss.mean(axis=1, keepdims=True) - slope * normed)
        gradient: np.ndarray = np.einsum("nb,nbj->nj", back.astype(w.dtype), x)
        return gradient


def _not_zero(name: str, value: object) -> float:
    number = finite(name, value)
    require(number != 0, name, "not be 0", number)
    return number
