r"""Adam's noise and a radial pull through one fluctuating preconditioner, to first order in the pull.

The update is split by linear response. The noise g alone gives u = m/√v the autocovariance
K_k = Σ_n p_n μ_n^k of `rotsim.theory.second_moment`. The decay term λw, small beside g and slow,
shifts it in proportion, after a memory β. That is the momentum's, but for the pull of each gradient
on its own v:

.. math::
    r_t = \beta r_{t-1} + (1-\beta) w_{t-1}, \qquad
    w_t = a\, w_{t-1} - \eta\,(n_t + \ell\, r_t), \qquad \ell = \lambda\kappa/\sqrt{E v},

with κ and β the response of u to a lasting shift of g (1 and β1 for constant v), and a = 1: the walk of AdamW
or Lion with a radial gradient is the same with a = 1 - ηλ. Setting all second moments
of this linear walk stationary, with X_n = E[w·(mode n of future noise)], gives

.. math::
    X_n = \frac{-\eta p_n}{1-a\mu_n+\eta\ell(1-\beta)\mu_n/(1-\beta\mu_n)},
    \qquad A = \sum_n \mu_n X_n, \qquad B = \sum_n \frac{(1-\beta)\mu_n}{1-\beta\mu_n} X_n

and two linear equations for W = E‖w‖² and δ = W - E[w·r]:

.. math::
    \delta(1-a\beta) = (1-a) W + \eta(B + \ell Q), \qquad
    \frac{1-a^2}{\eta} W + 2a(A + \ell(W - \beta\delta)) = \eta(K_0 + 2\ell B + \ell^2 Q), \qquad
    Q = E\|r\|^2 = W - \frac{2\beta}{1+\beta}\delta.

Exact for ηℓ → 0 at any β2 and for β2 → 1 at any ηℓ. A product of the two is neglected, and
(λw)² beside g² other than in the mean of v. It serves what the exact chain of `adam_l2_chain` cannot: decoupled decay
beside a pull, and angles over many steps.
"""

from __future__ import annotations

import numpy as np

from rotsim.theory.steady import SteadyState
from rotsim.theory.walk import UpdateCovariance


def stationary(lr: float, decay: float, memory: float, noise: UpdateCovariance, kept: float = 1.0) -> SteadyState:
    """The walk above, per coordinate and for unit noise.

    Parameters
    ----------
    lr : float
        η > 0.
    decay : float
        ℓ, of any sign, of the decay that passes through the momentum.
    memory : float
        Root β of the response, in [0, 1).
    noise : UpdateCovariance
    kept : float
        a in (0, 1], what decoupled decay leaves of the weights in a step.

    Returns
    -------
    SteadyState
        Of infinite ``norm_squared`` where the walk diverges.

    Notes
    -----
    The docstring of this module; for constant v it is the walk of `derivations.adam_l2` and `derivations.radial`.
    """
    fresh, mu, lost = 1 - memory, noise.roots, 1 - kept
    if lr * decay * fresh >= (1 + kept) * (1 + memory) or lr * decay + lost <= 0:
        return SteadyState(np.inf, 2.0)
    filtered = fresh * mu / (1 - memory * mu)
    overlap = -lr * noise.weights / (1 - kept * mu + lr * decay * filtered)
    a, b = float((mu * overlap).sum()), float((filtered * overlap).sum())
    lag = 2 * memory / (1 + memory)  # (W - Q) / δ
    # rows: the two equations of the docstring in (W, δ)
    matrix = np.array(
        [
            [-lr * decay - lost, 1 - kept * memory + lr * decay * lag],
            [
                lost * (1 + kept) / lr + 2 * kept * decay - lr * decay**2,
                -2 * kept * decay * memory + lr * decay**2 * lag,
            ],
        ]
    )
    right = np.array([lr * b, lr * (noise.lag_0 + 2 * decay * b) - 2 * kept * a])
    norm_squared, gap = np.linalg.solve(matrix, right)
    moved = lr**2 * (noise.lag_0 + 2 * decay * b + decay**2 * (norm_squared - lag * gap))
    moved += lost**2 * norm_squared + 2 * lost * lr * (a + decay * (norm_squared - memory * gap))
    return SteadyState(float(norm_squared), float(moved / (2 * norm_squared)))
