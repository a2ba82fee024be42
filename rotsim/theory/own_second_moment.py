r"""How a weight's square goes with its own second moment, under Adam and gradients with a memory.

`rotsim.theory.memory` lets a pull act through the mean of 1/√v. It acts through each coordinate's own, so its effect on
the weights' square is 1 + Q times as strong. To first order in 1 - β2, with 1/√v = (1 + ξ) E 1/√v,

.. math::
    Q = \frac{E[ξ_t w_{t-1}^2]}{E w^2}
      = -(1-β_2) \sum_{k \ge 0} β_2^k \, \mathrm{corr}(w_{t-1}, g_{t-k})^2
        + \frac{E ξ^2 (2L + 4D)}{2 (L + D) + 1 - β_2}

The first part is chance: a gradient that moved the weight outwards is in v as well. Fourth moments of Gaussian numbers
are products of second ones (Isserlis). The second part is what a v that stays low for long does. Each step is longer,
and so is each pull L, but not the decoupled decay D. ξ has a quarter of the relative variance of v, remembered as β2^k.
"""

from __future__ import annotations

import numpy as np
import scipy

_W, _M, _Z, _G = range(4)  # rows of the state: weight, average, noise, gradient


def own_second_moment(lr: float, lasting: float, kept: float, betas: tuple[float, float], correlation: float) -> float:
    """Q of this module's docstring, of the linear walk w' = kept·w - lr·m with gradients g = z + lasting·w.

    Parameters
    ----------
    lr : float
        η > 0.
    lasting : float
        What a weight adds to its own gradient, in deviations of the noise z; of any sign.
    kept : float
        In (0, 1], what decoupled decay leaves of a weight.
    betas : (float, float)
        β1 of the average m, and β2 of v, each in [0, 1).
    correlation : float
        φ of the noise, in (-1, 1).

    Returns
    -------
    float
        Infinite where the walk diverges.

    Notes
    -----
    The linear walk is that of `derivations.correlated_adam`, for a constant v.
    """
    beta1, beta2 = betas
    step = np.zeros((4, 4))
    step[_Z, _Z] = correlation
    step[_G] = step[_Z]
    step[_G, _W] = lasting
    step[_M] = (1 - beta1) * step[_G]
    step[_M, _M] = beta1
    step[_W] = -lr * step[_M]
    step[_W, _W] += kept
    if np.abs(np.linalg.eigvals(step)).max() >= 1:
        return float("inf")
    fresh = np.sqrt(1 - correlation**2) * np.array([-lr * (1 - beta1), 1 - beta1, 1.0, 1.0])
    state = scipy.linalg.solve_discrete_lyapunov(step, np.outer(fresh, fresh), method="direct")
    power, with_gradient = state[_G, _G], state[:, _G]
    # Σ β2^k E[state · g of k steps ago]², each pair of the state
    remembered = np.linalg.solve(np.eye(16) - beta2 * np.kron(step, step), np.kron(with_gradient, with_gradient))
    remembered = remembered.reshape(4, 4)
    of_next = step[_G] @ state[:, _W]  # E[w g] of a weight and the gradient that meets it
    chance = (1 - beta2) * (of_next**2 + beta2 * remembered[_W, _W]) / (state[_W, _W] * power)
    spread = 2 * (1 - beta2) / (1 + beta2) * (2 * remembered[_G, _G] / power**2 - 1)  # of v, relative variance
    pull, decay = lr * lasting, 1 - kept
    return float(spread / 4 * (2 * pull + 4 * decay) / (2 * (pull + decay) + 1 - beta2) - chance)
