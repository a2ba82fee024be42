"""AdamW: Adam with decoupled weight decay (Loshchilov & Hutter 2019), as in torch.optim.AdamW."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rotsim import closed_forms
from rotsim.compiled import kernel_part
from rotsim.optimizers.base import Optimizer, filled
from rotsim.optimizers.root import denominator, root_factors


@kernel_part(fastmath={"contract", "nsz", "arcp"})
def _update(w, m, v, g, c):  # type: ignore[no-untyped-def]
    decay, per_root, beta1, beta2, per_unit = c[:5]
    m, v = g + beta1 * m, g * g + beta2 * v
    return -decay * w - m / denominator(v, per_root, beta1, beta2, per_unit), m, v


@dataclass(frozen=True)
class AdamW(Optimizer):
    r"""AdamW with the decay multiplied by the learning rate, as PyTorch has it.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1-\beta_1) g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2 \\
        w_t &= (1 - \eta\lambda)\, w_{t-1}
               - \eta\, \frac{m_t/(1-\beta_1^t)}{\sqrt{v_t/(1-\beta_2^t)} + \epsilon}

    Parameters
    ----------
    lr : float
        Learning rate η from 1e-30 to 1e30.
    weight_decay : float
        λ, 0 or from 1e-30 to 1e30, with ``lr * weight_decay`` < 1.
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
    Rotation and norm in equilibrium do not depend on the gradient's scale
    (Kosson et al. 2024, table 1; derivations.adamw). The exact equilibrium keeps the fluctuations of
    v and ε beside them (`rotsim.theory.second_moment`). Where gradients follow the norm, ε makes norm and rotation
    depend on their scale. At small β2 beside momentum rare large updates carry the norm, and their angle is corrected
    (`rotsim.theory.rare_updates`).
    """

    name = "adamw"
    label = "AdamW"
    update = staticmethod(_update)
    shape, decay = "inverse root", "decoupled"

    lr: float
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    @classmethod
    def examples(cls) -> tuple[AdamW, AdamW]:
        return cls(lr=1e-2, weight_decay=0.1), cls(lr=0.05, weight_decay=0.8)

    def coefficients(self, step: np.ndarray, lr: np.ndarray, weight_decay: np.ndarray) -> tuple[Any, ...]:
        beta1, beta2 = self.betas
        per_root, per_unit = root_factors(step, lr / filled(beta1, step), beta2, self.eps)
        return lr * weight_decay, per_root, beta1, beta2, per_unit

    def leading_rotation(self, lr: Any, weight_decay: Any) -> Any:
        return closed_forms.adamw_leading_rotation(lr, weight_decay, self.betas[0])
