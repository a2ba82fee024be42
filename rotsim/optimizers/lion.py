"""Lion with decoupled weight decay (Chen et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rotsim import closed_forms
from rotsim.arcsine import discounted_sum
from rotsim.compiled import kernel_part
from rotsim.optimizers.base import Optimizer


@kernel_part(fastmath={"contract", "nsz", "arcp"})
def _update(w, m, v, g, c):  # type: ignore[no-untyped-def]
    decay, lr, beta1, beta2 = c[:4]
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
        Learning rate η from 1e-30 to 1e30.
    weight_decay : float
        λ, 0 or from 1e-30 to 1e30, with ``lr * weight_decay`` < 1.
    betas : (float, float)
        (β1, β2), each in [0, 1).

    Raises
    ------
    InvalidInput
        If a value is out of range.

    Notes
    -----
    sign(0) = 0. The paper's closed form linearises the sign; the exact one uses the arcsine law
    (derivations.lion).
    """

    name = "lion"
    label = "Lion"
    update = staticmethod(_update)
    shape, decay = "sign", "decoupled"

    lr: float
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.99)

    @classmethod
    def examples(cls) -> tuple[Lion, Lion]:
        return cls(lr=1e-3, weight_decay=1.0), cls(lr=0.01, weight_decay=2.5)

    def coefficients(self, step: np.ndarray, lr: np.ndarray, weight_decay: np.ndarray) -> tuple[Any, ...]:
        beta1, beta2 = self.betas
        return lr * weight_decay, lr, beta1, beta2

    def leading_rotation(self, lr: Any, weight_decay: Any) -> Any:
        return closed_forms.lion_leading_rotation(lr, weight_decay, *self.betas)

    def exact_rotation(self, lr: Any, weight_decay: Any) -> Any:
        """As `leading_rotation`, but of the sign itself, and at any decay: the equilibrium of a long neuron."""
        rates, where = np.unique(np.asarray(lr * weight_decay, dtype=float), return_inverse=True)
        total = discounted_sum(1 - rates, *self.betas)
        half = closed_forms.lion_exact_one_minus_cosine(rates, 1.0, total)
        return (2 * np.arcsin(np.sqrt(half / 2)))[where].reshape(np.shape(lr * weight_decay))
