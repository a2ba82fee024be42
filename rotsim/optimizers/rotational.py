"""The rotational variant of an optimizer: equilibrium rotation at constant norm, without the norm's transient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from rotsim.compiled import kernel_part
from rotsim.errors import InvalidInput, flag, require, share
from rotsim.optimizers.base import filled
from rotsim.optimizers.lion import Lion
from rotsim.optimizers.turning import Turning


@kernel_part()
def _turn(rate, size, along, mean):  # type: ignore[no-untyped-def]
    return rate * np.sqrt(size / mean)


@dataclass(frozen=True)
class Rotational(Turning):
    r"""Rotational variant (RV): the optimizer's update direction, turned by its equilibrium rotation at every step.

    u_t is the update of the optimizer without decay. u⊥ is its part orthogonal to the weights, and to the vector of
    ones if `zero_mean`. :math:`\theta_t` is the optimizer's leading-order rotation at the :math:`\eta\lambda` in force:

    .. math::
        s_t &= \gamma s_{t-1} + (1-\gamma) \|u_\perp\|^2, \qquad
        \phi_t = \theta_t\, \|u_\perp\| / \sqrt{s_t / (1-\gamma^t)} \\
        w_t &= \|w_0\| \left(\frac{w_{t-1}}{\|w_{t-1}\|} \cos\phi_t - \frac{u_\perp}{\|u_\perp\|} \sin\phi_t\right)

    Parameters
    ----------
    inner : Optimizer
        AdamW, SGDM or Lion with ``weight_decay`` > 0, which sets the angle together with ``lr``.
    update_norm_decay : float
        γ in [0, 1).
    zero_mean : bool
        Take the mean out of the update as well: that of the weights then only shrinks, by cos φ_t a step. Needs
        dim >= 3.
    exact_angle : bool
        :math:`\theta_t` is Lion's own equilibrium rotation in long neurons, where its leading order takes a straight
        line for the sign. For Lion alone.

    Raises
    ------
    InvalidInput
        If a value is out of range, or `inner` has no rotation of its own: that of Adam+L2 depends on the gradient.

    Notes
    -----
    The same recurrence as `rotsim.measure.RotationalAdamW` and its siblings with ``per_neuron=True``
    (Kosson, Messmer, Jaggi 2024, section 5; derivations.rotational). If `zero_mean`, these take the mean out of the
    weights before their first turn; a walk begins where it is put. Its equilibrium has no norm of its own:
    `rotsim.equilibrium` gives NaN for norm and update size.
    """

    name = "rotational"
    label = "Rotational"
    turn = staticmethod(_turn)

    update_norm_decay: float = 0.9
    zero_mean: bool = True
    exact_angle: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set("update_norm_decay", share("update_norm_decay", self.update_norm_decay))
        self._set("zero_mean", flag("zero_mean", self.zero_mean))
        if flag("exact_angle", self.exact_angle) and not isinstance(self.inner, Lion):
            raise InvalidInput(f"`exact_angle=True` is for Lion; got inner={self.inner.describe()}. Leave it out")
        require(self.weight_decay > 0, "weight_decay", "be > 0, since it sets the angle with lr", self.weight_decay)
        self.leading_rotation(self.lr, self.weight_decay)

    @classmethod
    def examples(cls) -> tuple[Rotational, Rotational]:
        from rotsim.optimizers.adamw import AdamW

        gentle, strong = AdamW.examples()
        return cls(gentle), cls(strong)

    @property
    def min_dim(self) -> int:
        return 3 if self.zero_mean else 2  # one direction must be left across the weights and the vector of ones

    def leading_rotation(self, lr: Any, weight_decay: Any) -> Any:
        if self.exact_angle:  # of Lion
            return self.inner.exact_rotation(lr, weight_decay)  # type: ignore[attr-defined]
        return self.inner.leading_rotation(lr, weight_decay)

    def holding(self, step: Any, lr: Any, weight_decay: Any) -> tuple[Any, Any, Any, float]:
        memory = self.update_norm_decay
        return self.leading_rotation(lr, weight_decay), memory, filled(memory, step), float(self.zero_mean)

    def describe(self) -> str:
        values = f"update_norm_decay={self.update_norm_decay!r}, zero_mean={self.zero_mean!r}"
        values += ", exact_angle=True" if self.exact_angle else ""
        return f"{self.label}({self.inner.describe()}, {values})"
