r"""Linear filters of gradients, of which every optimizer makes its update before a shape is given to it.

A filter is its impulse response, a direct part and geometric ones: f_j = d [j=0] + Σ_i c_i μ_i^j. White gradients give

.. math::
    K_k = \sum_j f_j f_{j+k} = \sum_l c_l μ_l^k \left(d + \sum_i \frac{c_i}{1 - μ_i μ_l}\right), \qquad k \ge 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rotsim.theory.walk import UpdateCovariance


@dataclass(frozen=True, eq=False)
class Filter:
    """An impulse response.

    Attributes
    ----------
    direct : float
        d, what the newest gradient has besides its share of the averages.
    weights, roots : ndarray, shape (averages,)
        c_i, and μ_i in [0, 1).
    """

    direct: float
    weights: np.ndarray
    roots: np.ndarray

    def covariance(self) -> UpdateCovariance:
        """Autocovariance of what it makes of white gradients of unit variance, its shape the identity."""
        pairs = 1 / (1 - np.outer(self.roots, self.roots))
        lagged = self.weights * (self.direct + self.weights @ pairs)
        lag_0 = self.direct**2 + 2 * self.direct * self.weights.sum() + self.weights @ pairs @ self.weights
        return UpdateCovariance(float(lag_0), lagged, self.roots)

    def filling(self, steps: int) -> np.ndarray:
        """Mean square of its output over the final one at steps 1, 2, ... of a fresh state, shape (steps,)."""
        age = np.arange(steps)[:, None]
        response = (self.weights * self.roots**age).sum(axis=1)
        response[:1] += self.direct
        filled: np.ndarray = np.cumsum(response**2) / self.covariance().lag_0
        return filled
