"""Lion with decoupled weight decay (Chen et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from rotsim.errors import positive, real
from rotsim.optimizers.base import Method, Moments, Optimizer, beta_pair, check_decoupled_decay

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower


@njit(inline="always")
def _update(w, m, v, g, c):  # type: ignore[no-untyped-def]
    decay, lr, beta1, beta2, _, _ = c
    direction = np.sign(g + beta1 * (m - g))
    return -decay * w - lr * direction, g + beta2 * (m - g), v


@dataclass(frozen=True)
class Lion(Optimizer):
    r"""Lion; the decay is decoupled and multiplied by the learning rate, as published.

    .. math::
        c_t &= \beta_1 m_{t-1} + (1-\beta_1) g_t, \qquad
        w_t = (1 - \eta\lambda)\, w_{t-1} - \eta\, \mathrm{sign}(c_t) \\
        m_t &= \beta_2 m_{t-1} + (1-\beta_2) g_t

    Parameters
    ----------
    lr : float
        Learning rate η > 0.
    weight_decay : float
        λ ≥ 0 with ``lr * weight_decay`` < 1.
    betas : (float, float)
        (β1, β2), each in [0, 1).

    Notes
    -----
    sign(0) = 0. The paper's closed form linearises the sign; the exact one uses the arcsine law
    (derivations.lion).
    """

    name = "lion"
    label = "Lion"
    update = staticmethod(_update)

    lr: float
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.99)

    def __post_init__(self) -> None:
        self._set("lr", positive("lr", self.lr))
        self._set("weight_decay", real("weight_decay", self.weight_decay, "be finite and >= 0", low=0.0))
        self._set("betas", beta_pair(self.betas))
        check_decoupled_decay(self.lr, self.weight_decay)

    def coefficients(self, step: np.ndarray, lr: np.ndarray, weight_decay: np.ndarray) -> tuple[Any, ...]:
        beta1, beta2 = self.betas
        return lr * weight_decay, lr, beta1, beta2

    def moments(self, dim: int, power: GradientPower, method: Method) -> Moments:
        raise NotImplementedError
