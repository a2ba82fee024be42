"""AdamW: Adam with decoupled weight decay (Loshchilov & Hutter 2019), as in torch.optim.AdamW."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import closed_forms
from rotsim.compiled import kernel_part
from rotsim.optimizers.base import LEAST_LR, TINY, Method, Moments, Optimizer, check_decoupled_decay, filled
from rotsim.theory.fixed_point import falling
from rotsim.theory.rare_updates import rare_updates
from rotsim.theory.second_moment import UpdateCovariance, adam_covariance

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower


@kernel_part(fastmath={"contract", "nsz", "arcp"})
def _update(w, m, v, g, c):  # type: ignore[no-untyped-def]
    decay, per_root, beta1, beta2, per_unit = c[:5]
    m = g + beta1 * (m - g)
    v = g * g + beta2 * (v - g * g)
    return -decay * w - m / (np.sqrt(v) * per_root + per_unit), m, v


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
        Learning rate η > 0.
    weight_decay : float
        λ ≥ 0 with ``lr * weight_decay`` < 1.
    betas : (float, float)
        (β1, β2), each in [0, 1).
    eps : float
        ε ≥ 0.

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

    lr: float
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_decoupled_decay(self.lr, self.weight_decay)

    @classmethod
    def examples(cls) -> tuple[AdamW, AdamW]:
        return cls(lr=1e-2, weight_decay=0.1), cls(lr=0.05, weight_decay=0.8)

    def coefficients(self, step: np.ndarray, lr: np.ndarray, weight_decay: np.ndarray) -> tuple[Any, ...]:
        beta1, beta2 = self.betas
        step_size = np.maximum(lr, LEAST_LR) / filled(beta1, step)  # the update divides by the denominator over it
        root_correction = 1 / np.sqrt(filled(beta2, step))
        return lr * weight_decay, root_correction / step_size, beta1, beta2, max(self.eps, TINY) / step_size

    def leading_rotation(self, lr: Any, weight_decay: Any) -> Any:
        return closed_forms.adamw_leading_rotation(lr, weight_decay, self.betas[0])

    def moments(self, dim: int, power: GradientPower, method: Method) -> Moments:
        lr, weight_decay, beta1, beta2 = self.lr, self.weight_decay, *self.betas
        relaxation = closed_forms.adamw_relaxation_steps(lr, weight_decay)
        if power.homogeneity and method == "exact":  # the gradient follows the norm, and v follows the gradient
            relaxation = closed_forms.adamw_lagged_relaxation_steps(lr, weight_decay, beta2, power.homogeneity)
        if method == "leading":
            rotation = self.leading_rotation(self.lr, self.weight_decay)
            norm = closed_forms.adamw_leading_norm(lr, weight_decay, dim)
            # neglected: finite lr·wd against the momentum window, and the spread of v
            error = lr * weight_decay / (1 - beta1) + (1 - beta2)
            return Moments(norm**2, rotation**2 / 2, relaxation, error)

        def walk(log_norm_squared: float) -> tuple[UpdateCovariance, float, float]:
            """Updates under the noise that a norm sets, their discounted sum, log E‖w‖² beyond what was put in."""
            deviation = np.sqrt(power.scale_squared * np.exp(power.homogeneity * log_norm_squared) / dim)
            covariance = adam_covariance(beta1, beta2, float(self.eps / deviation))
            total = covariance.discounted_sum(1 - lr * weight_decay)
            # Lion's forms hold for any update with given autocorrelation, here in units of E[u²]
            image = closed_forms.lion_exact_norm_squared(lr, weight_decay, dim * covariance.lag_0, total)
            return covariance, total, float(np.log(image)) - log_norm_squared

        log_norm_squared = 2 * float(np.log(closed_forms.adamw_leading_norm(lr, weight_decay, dim)))
        if power.homogeneity:
            log_norm_squared = falling(lambda x: walk(x)[2], log_norm_squared)
        covariance, total, excess = walk(log_norm_squared)
        norm_squared = float(np.exp(log_norm_squared + excess))
        one_minus_cosine = closed_forms.lion_exact_one_minus_cosine(lr, weight_decay, total)
        deviation = np.sqrt(power.scale_squared * norm_squared**power.homogeneity / dim)
        seen, turned = rare_updates(lr, weight_decay, self.betas, float(self.eps / deviation), dim, covariance)
        # neglected: that a run mostly sees less of the norm; in the angle, as much as rare updates take of it
        error = covariance.error + max(abs(np.log(seen)), abs(np.log(turned))) / 2
        return Moments(norm_squared, one_minus_cosine, relaxation, error, angle_factor=float(np.sqrt(turned)))
