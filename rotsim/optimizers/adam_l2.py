"""Adam with L2 regularisation: the decay goes through the preconditioner, as in torch.optim.Adam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rotsim.compiled import kernel_part
from rotsim.optimizers.base import Optimizer, filled
from rotsim.optimizers.root import denominator, root_factors


# Reassociation joins λw and the gradient's own part along w into one product.
@kernel_part(fastmath={"contract", "nsz", "arcp", "reassoc"})
def _update(w, m, v, g, c):  # type: ignore[no-untyped-def]
    weight_decay, per_root, beta1, beta2, per_unit = c[:5]
    g = g + weight_decay * w
    m, v = g + beta1 * m, g * g + beta2 * v
    return -m / denominator(v, per_root, beta1, beta2, per_unit), m, v


@dataclass(frozen=True)
class AdamL2(Optimizer):
    r"""Adam with weight decay added to the gradient (``torch.optim.Adam(weight_decay=...)``).

    .. math::
        \hat g_t &= g_t + \lambda w_{t-1} \\
        m_t &= \beta_1 m_{t-1} + (1-\beta_1) \hat g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1-\beta_2) \hat g_t^2 \\
        w_t &= w_{t-1} - \eta\, \frac{m_t/(1-\beta_1^t)}{\sqrt{v_t/(1-\beta_2^t)} + \epsilon}

    Parameters
    ----------
    lr : float
        Learning rate η from 1e-30 to 1e30.
    weight_decay : float
        λ, 0 or from 1e-30 to 1e30, added to the gradient as λw; the effective decay per step is lr·wd/√v.
    betas : (float, float)
        (β1, β2), each in [0, 1).
    eps : float
        ε, 0 or from 1e-30 to 1e30.

    Raises
    ------
    InvalidInput
        If a value is out of range.

    Notes
    -----
    Rotation depends on the gradient's scale, as scale^(-1/3) for scale-invariant weights: the
    imbalance between neurons that the paper blames for Adam+L2 (derivations.adam_l2). The exact equilibrium
    follows from the moments of one coordinate's Markov chain (`rotsim.theory.adam_l2_chain`).
    """

    name = "adam_l2"
    label = "Adam+L2"
    update = staticmethod(_update)
    shape, decay = "inverse root", "coupled"

    lr: float
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    @classmethod
    def examples(cls) -> tuple[AdamL2, AdamL2]:
        return cls(lr=1e-3, weight_decay=0.05), cls(lr=1e-2, weight_decay=0.1)

    def coefficients(self, step: np.ndarray, lr: np.ndarray, weight_decay: np.ndarray) -> tuple[Any, ...]:
        beta1, beta2 = self.betas
        per_root, per_unit = root_factors(step, lr / filled(beta1, step), beta2, self.eps)
        return weight_decay, per_root, beta1, beta2, per_unit
