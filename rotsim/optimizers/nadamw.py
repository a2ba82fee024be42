"""NAdamW: AdamW that looks ahead as Nesterov's momentum does, as in torch.optim.NAdam with decoupled weight decay."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf, log
from typing import Any

import numpy as np

from rotsim.compiled import kernel_part
from rotsim.errors import InvalidInput, nonnegative
from rotsim.optimizers.base import Optimizer
from rotsim.optimizers.root import root_factors

FADE = 0.96  # what Dozat's schedule keeps of the distance between μ and β1 in 1/momentum_decay steps
_NEAR = 0.05  # share of the last μ at which the schedule counts as ended
_LEAST_RATE = 1e-300  # of that schedule: at 0 its sums are those of the limit, not 0/0
_TERMS = 54  # of a series in 1/2, the last of which is below a double's resolution


@kernel_part(fastmath={"contract", "nsz", "arcp"})
def _update(w, m, v, g, c):  # type: ignore[no-untyped-def]
    decay, per_root, beta1, beta2, per_unit, ahead = c[:6]
    m = g + beta1 * (m - g)
    v = g * g + beta2 * (v - g * g)
    return -decay * w - (g + ahead * m) / (np.sqrt(v) * per_root + per_unit), m, v


def scheduled(beta1: float, momentum_decay: float, step: Any) -> Any:
    """μ_t, elementwise.

    Parameters
    ----------
    beta1 : float
        In [0, 1).
    momentum_decay : float
        ψ >= 0.
    step : int or ndarray, any shape
        t >= 1.

    Returns
    -------
    float or ndarray
        From β1/2 at first to β1.
    """
    return beta1 * (1 - np.exp(log(FADE) * momentum_decay * step) / 2)


def product_left(beta1: float, momentum_decay: float, step: Any) -> Any:
    """1 - μ_1 ⋯ μ_t, elementwise: t logarithms as one power series, each of whose terms is a geometric sum.

    Parameters
    ----------
    beta1, momentum_decay, step
        As in `scheduled`.

    Returns
    -------
    float or ndarray
        In (0, 1].
    """
    rate = -max(-log(FADE) * momentum_decay, _LEAST_RATE)
    total = step * (log(beta1) if beta1 > 0 else -inf)
    for n in range(1, _TERMS):
        geometric = np.exp(n * rate) * np.expm1(n * rate * step) / np.expm1(n * rate)
        total = total - geometric / (n * 2.0**n)
    return -np.expm1(total)


@dataclass(frozen=True)
class NAdamW(Optimizer):
    r"""NAdamW: the newest gradient counts once more beside AdamW's average, by a weight that falls in training.

    .. math::
        \mu_t &= \beta_1 \left(1 - \tfrac12 \cdot 0.96^{\psi t}\right), \qquad
        m_t = \beta_1 m_{t-1} + (1-\beta_1) g_t, \qquad v_t = \beta_2 v_{t-1} + (1-\beta_2) g_t^2 \\
        w_t &= (1 - \eta\lambda)\, w_{t-1} - \eta\,
               \frac{(1-\mu_t)\, g_t / (1 - \mu_1 \cdots \mu_t) + \mu_{t+1}\, m_t / (1 - \mu_1 \cdots \mu_{t+1})}
                    {\sqrt{v_t/(1-\beta_2^t)} + \epsilon}

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
    momentum_decay : float
        ψ, 0 or from 1e-30 to 1e30: how fast μ grows from β1/2 to β1. It stays at β1/2 for 0.

    Raises
    ------
    InvalidInput
        If a value is out of range.

    Notes
    -----
    This is ``torch.optim.NAdam(decoupled_weight_decay=True)``. The equilibrium is that of the last μ, which the
    default ψ = 0.004 comes near to only after some 20 000 steps; `rotsim.predict` follows μ. Norm is AdamW's to leading
    order, and rotation √(1+2β1-2β1³) times AdamW's (derivations.nadamw).
    """

    name = "nadamw"
    label = "NAdamW"
    update = staticmethod(_update)
    shape, decay = "inverse root", "decoupled"

    lr: float
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum_decay: float = 4e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("momentum_decay", nonnegative("momentum_decay", self.momentum_decay))

    @classmethod
    def examples(cls) -> tuple[NAdamW, NAdamW]:
        quick = 0.2  # a momentum_decay whose schedule ends within a thousand steps
        return cls(lr=1e-2, weight_decay=0.1, momentum_decay=quick), cls(0.05, weight_decay=0.8, momentum_decay=quick)

    @property
    def last_momentum(self) -> Any:
        """μ in the end: β1, or half of it without a schedule."""
        return self.betas[0] * (1.0 if self.momentum_decay > 0 else 0.5)

    @property
    def memory_steps(self) -> float:
        """Those of the schedule of μ, where it is slower than the averages."""
        rate = -log(FADE) * self.momentum_decay
        return max(super().memory_steps, 1 / rate if rate > 0 else 0.0)

    @property
    def schedule_note(self) -> str:
        if self.momentum_decay == 0:
            return ""
        near = ceil(log(2 * _NEAR) / (log(FADE) * self.momentum_decay))
        return (
            f"This is the rest at the last μ, {self.last_momentum:g}, which NAdamW's schedule comes within {_NEAR:.0%} "
            f"of after {near} steps; rotsim predict follows it."
        )

    def shares(self, step: Any) -> tuple[Any, Any]:
        """What the update takes of the newest gradient and of the average m_t, elementwise for t >= 1."""
        beta1, fade = self.betas[0], self.momentum_decay
        own = (1 - scheduled(beta1, fade, step)) / product_left(beta1, fade, step)
        return own, scheduled(beta1, fade, step + 1) / product_left(beta1, fade, step + 1)

    def coefficients(self, step: np.ndarray, lr: np.ndarray, weight_decay: np.ndarray) -> tuple[Any, ...]:
        beta1, beta2 = self.betas
        own, ahead = self.shares(step)
        per_root, per_unit = root_factors(step, lr * own, beta2, self.eps)
        return lr * weight_decay, per_root, beta1, beta2, per_unit, ahead / own

    def leading_rotation(self, lr: Any, weight_decay: Any) -> Any:
        raise InvalidInput(
            f"the momentum of {self.label} changes in training, so it has no rotational variant; use AdamW or Lion"
        )
