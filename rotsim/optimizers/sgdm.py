"""SGD with momentum and coupled weight decay, as in torch.optim.SGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rotsim import closed_forms
from rotsim.compiled import kernel_part
from rotsim.optimizers.base import Optimizer


@kernel_part(fastmath={"contract", "nsz", "arcp"})
def _update(w, m, v, g, c):  # type: ignore[no-untyped-def]
    lr, weight_decay, momentum, _, _, _ = c
    m = momentum * m + (g + weight_decay * w)
    return -lr * m, m, v


@dataclass(frozen=True)
class SGDM(Optimizer):
    r"""SGD with heavy-ball momentum; the decay enters the gradient and so the momentum.

    .. math::
        m_t = \alpha m_{t-1} + (g_t + \lambda w_{t-1}), \qquad w_t = w_{t-1} - \eta\, m_t

    Parameters
    ----------
    lr : float
        Learning rate η from 1e-30 to 1e30.
    weight_decay : float
        λ, 0 or from 1e-30 to 1e30, with ``lr * weight_decay`` < 2 (1 + momentum), beyond which the recurrence diverges.
    momentum : float
        α in [0, 1). No dampening, no Nesterov, PyTorch's defaults.

    Raises
    ------
    InvalidInput
        If a value is out of range.

    Notes
    -----
    With scale-invariant weights rotation does not depend on the gradient's scale, the norm grows as
    its square root (Kosson et al. 2024, table 1; derivations.sgdm).
    """

    name = "sgdm"
    label = "SGDM"
    linear = True
    update = staticmethod(_update)
    shape, decay = "identity", "coupled"

    lr: float
    weight_decay: float
    momentum: float = 0.9

    @property
    def decay_limit(self) -> float:
        """Beyond it the recurrence diverges."""
        return 2 * (1 + self.momentum)

    def _decay_rule(self) -> str:
        return f"be < 2 * (1 + momentum) = {self.decay_limit:g}, beyond which SGDM diverges"

    @classmethod
    def examples(cls) -> tuple[SGDM, SGDM]:
        return cls(lr=0.1, weight_decay=1e-2), cls(lr=0.5, weight_decay=0.1)

    def coefficients(self, step: np.ndarray, lr: np.ndarray, weight_decay: np.ndarray) -> tuple[Any, ...]:
        return lr, weight_decay, self.momentum

    def leading_rotation(self, lr: Any, weight_decay: Any) -> Any:
        return closed_forms.sgdm_leading_rotation(lr, weight_decay, self.momentum)
