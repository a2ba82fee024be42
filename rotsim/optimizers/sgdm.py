"""SGD with momentum and coupled weight decay, as in torch.optim.SGD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rotsim import closed_forms
from rotsim.compiled import kernel_part
from rotsim.errors import flag, require, share
from rotsim.optimizers.base import Optimizer


@kernel_part(fastmath={"contract", "nsz", "arcp"})
def _update(w, m, v, g, c):  # type: ignore[no-untyped-def]
    lr, weight_decay, momentum, entering, ahead, kept = c[:6]
    pull = g + weight_decay * w
    m = momentum * m + entering * pull
    return -lr * (kept * m + ahead * pull), m, v


def entering_share(momentum: Any, dampening: Any) -> Any:
    """What dampening leaves of a gradient in the momentum, elementwise; PyTorch's SGD without momentum has none."""
    return 1 - dampening * (momentum > 0)


@dataclass(frozen=True)
class SGDM(Optimizer):
    r"""SGD with heavy-ball momentum; the decay enters the gradient and so the momentum.

    .. math::
        \hat g_t &= g_t + \lambda w_{t-1}, \qquad m_t = \alpha m_{t-1} + (1 - \tau)\, \hat g_t \\
        w_t &= w_{t-1} - \eta\, m_t, \qquad
        \text{with Nesterov}\quad w_t = w_{t-1} - \eta\, (\hat g_t + \alpha m_t)

    Parameters
    ----------
    lr : float
        Learning rate η from 1e-30 to 1e30.
    weight_decay : float
        λ, 0 or from 1e-30 to 1e30, with ``lr * weight_decay`` < 2 (1 + momentum), beyond which the recurrence diverges.
        Nesterov's bound is that over 1 + 2·momentum, dampening's that over 1 - dampening.
    momentum : float
        α in [0, 1).
    dampening : float
        τ in [0, 1), which the first step and SGD without momentum do not have, as in PyTorch.
    nesterov : bool
        Step by what the momentum will be: with momentum > 0 and no dampening, as PyTorch asks for.

    Raises
    ------
    InvalidInput
        If a value is out of range.

    Notes
    -----
    With scale-invariant weights rotation does not depend on the gradient's scale, the norm grows as
    its square root (Kosson et al. 2024, table 1; derivations.sgdm). Nesterov momentum
    keeps the norm and turns faster (derivations.nesterov).
    """

    name = "sgdm"
    label = "SGDM"
    update = staticmethod(_update)
    shape, decay = "identity", "coupled"

    lr: float
    weight_decay: float
    momentum: float = 0.9
    dampening: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        self._set("dampening", share("dampening", self.dampening))
        self._set("nesterov", flag("nesterov", self.nesterov))
        super().__post_init__()
        if self.nesterov:
            require(self.momentum > 0, "momentum", "be > 0 with nesterov", self.momentum)
            require(self.dampening == 0, "dampening", "be 0 with nesterov", self.dampening)

    @property
    def linear(self) -> bool:  # type: ignore[override]
        return not self.nesterov and not self.dampening

    @property
    def decay_limit(self) -> float:
        """Beyond it the recurrence diverges."""
        entering = entering_share(self.momentum, self.dampening)
        return 2 * (1 + self.momentum) / (1 + 2 * self.momentum * self.nesterov) / entering

    def _decay_rule(self) -> str:
        rule = "2 * (1 + momentum)"
        rule += " / (1 + 2 * momentum)" if self.nesterov else " / (1 - dampening)" if self.dampening else ""
        return f"be < {rule} = {self.decay_limit:g}, beyond which SGDM diverges"

    @classmethod
    def examples(cls) -> tuple[SGDM, SGDM]:
        return cls(lr=0.1, weight_decay=1e-2), cls(lr=0.5, weight_decay=0.1)

    def coefficients(self, step: np.ndarray, lr: np.ndarray, weight_decay: np.ndarray) -> tuple[Any, ...]:
        left_out = 1 - entering_share(self.momentum, self.dampening)
        entering = 1 - left_out * np.minimum(step - 1, 1)  # the first gradient enters whole
        ahead = float(self.nesterov)
        return lr, weight_decay, self.momentum, entering, ahead, 1 - ahead * (1 - self.momentum)

    def leading_rotation(self, lr: Any, weight_decay: Any) -> Any:
        if self.nesterov:
            return closed_forms.nesterov_leading_rotation(lr, weight_decay, self.momentum)
        entering = entering_share(self.momentum, self.dampening)
        return closed_forms.sgdm_leading_rotation(lr * entering, weight_decay, self.momentum)
