"""AdEMAMix: AdamW that steps by two averages of the gradient, a fast and a slow one (Pagliardini et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rotsim.compiled import kernel_part
from rotsim.errors import InvalidInput, nonnegative
from rotsim.optimizers.base import Optimizer, filled
from rotsim.optimizers.root import root_factors


@kernel_part(fastmath={"contract", "nsz", "arcp"})
def _update(w, m, v, g, c, slow):  # type: ignore[no-untyped-def]
    decay, per_root, beta1, beta2, per_unit, beta3, mixed = c[:7]
    m = g + beta1 * (m - g)
    v = g * g + beta2 * (v - g * g)
    slow = g + beta3 * (slow - g)
    return -decay * w - (m + mixed * slow) / (np.sqrt(v) * per_root + per_unit), m, v, slow


@dataclass(frozen=True)
class AdEMAMix(Optimizer):
    r"""AdEMAMix: beside AdamW's average stands α times a slower one, which starts from nothing.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1-\beta_1) g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2, \qquad
        n_t = \beta_3 n_{t-1} + (1-\beta_3) g_t \\
        w_t &= (1 - \eta\lambda)\, w_{t-1}
               - \eta\, \frac{m_t/(1-\beta_1^t) + \alpha n_t}{\sqrt{v_t/(1-\beta_2^t)} + \epsilon}

    Parameters
    ----------
    lr : float
        Learning rate η from 1e-30 to 1e30.
    weight_decay : float
        λ, 0 or from 1e-30 to 1e30, with ``lr * weight_decay`` < 1.
    betas : (float, float, float)
        (β1, β2, β3), each in [0, 1).
    alpha : float
        α, 0 or from 1e-30 to 1e30: what the slow average counts. AdamW for 0.
    eps : float
        ε, 0 or from 1e-30 to 1e30.

    Raises
    ------
    InvalidInput
        If a value is out of range.

    Notes
    -----
    This is the published recurrence without its schedules of α and β3, which its code has off unless they are asked
    for. Norm is 1 + α times AdamW's to leading order, where decay is slower than the slow average
    (derivations.ademamix).
    """

    name = "ademamix"
    label = "AdEMAMix"
    update = staticmethod(_update)
    memory_slots = 1
    shape, decay = "inverse root", "decoupled"

    lr: float
    weight_decay: float
    betas: tuple[float, float, float] = (0.9, 0.999, 0.9999)
    alpha: float = 2.0
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("alpha", nonnegative("alpha", self.alpha))

    @classmethod
    def examples(cls) -> tuple[AdEMAMix, AdEMAMix]:
        return cls(1e-2, 0.1, betas=(0.9, 0.999, 0.99)), cls(0.05, 0.8, betas=(0.9, 0.99, 0.98), alpha=1.0)

    def coefficients(self, step: np.ndarray, lr: np.ndarray, weight_decay: np.ndarray) -> tuple[Any, ...]:
        beta1, beta2, beta3 = self.betas
        per_root, per_unit = root_factors(step, lr / filled(beta1, step), beta2, self.eps)
        return lr * weight_decay, per_root, beta1, beta2, per_unit, beta3, self.alpha * filled(beta1, step)

    def leading_rotation(self, lr: Any, weight_decay: Any) -> Any:
        raise InvalidInput(
            f"{self.label} keeps two averages of the gradient and has no rotational variant; use AdamW, SGDM or Lion"
        )
