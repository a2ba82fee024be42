"""Signum: signs of one average of gradients beside decoupled decay (Bernstein et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rotsim import closed_forms
from rotsim.optimizers.base import Optimizer
from rotsim.optimizers.lion import Lion


@dataclass(frozen=True)
class Signum(Optimizer):
    r"""Signum: Lion with one β, so that it steps by the sign of the average that it keeps.

    .. math::
        m_t = \beta m_{t-1} + (1-\beta) g_t, \qquad w_t = (1 - \eta\lambda)\, w_{t-1} - \eta\, \mathrm{sign}(m_t)

    Parameters
    ----------
    lr : float
        Learning rate η from 1e-30 to 1e30.
    weight_decay : float
        λ, 0 or from 1e-30 to 1e30, with ``lr * weight_decay`` < 1.
    momentum : float
        β in [0, 1); 0 is signSGD.

    Raises
    ------
    InvalidInput
        If a value is out of range.

    Notes
    -----
    sign(0) = 0. Its theory is that of Lion at β1 = β2 (derivations.signum). A momentum m ← βm + g has the same
    signs.
    """

    name = "signum"
    label = "Signum"
    update = staticmethod(Lion.update)
    shape, decay = "sign", "decoupled"

    lr: float
    weight_decay: float
    momentum: float = 0.9

    @property
    def betas(self) -> tuple[float, float]:
        """As Lion's: what makes the update, and what it keeps, are one average."""
        return self.momentum, self.momentum

    @classmethod
    def examples(cls) -> tuple[Signum, Signum]:
        return cls(lr=1e-3, weight_decay=1.0), cls(lr=0.01, weight_decay=2.5)

    def coefficients(self, step: np.ndarray, lr: np.ndarray, weight_decay: np.ndarray) -> tuple[Any, ...]:
        return lr * weight_decay, lr, self.momentum, self.momentum

    def leading_rotation(self, lr: Any, weight_decay: Any) -> Any:
        return closed_forms.lion_leading_rotation(lr, weight_decay, self.momentum, self.momentum)
