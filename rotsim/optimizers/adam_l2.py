"""Adam with L2 regularisation: the decay goes through the preconditioner, as in torch.optim.Adam."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import closed_forms
from rotsim.compiled import kernel_part
from rotsim.optimizers.base import LEAST_LR, TINY, Method, Moments, Optimizer, filled
from rotsim.theory.adam_l2_chain import Steady, steady
from rotsim.theory.fixed_point import falling
from rotsim.theory.second_moment import felt_eps, mean_response

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower


@kernel_part(fastmath={"contract", "nsz", "arcp"})
def _update(w, m, v, g, c):  # type: ignore[no-untyped-def]
    weight_decay, per_root, beta1, beta2, per_unit = c[:5]
    g = g + weight_decay * w
    m = g + beta1 * (m - g)
    v = g * g + beta2 * (v - g * g)
    return -m / (np.sqrt(v) * per_root + per_unit), m, v


@dataclass(frozen=True)
class AdamL2(Optimizer):
    r"""Adam with weight decay added to the gradient (``torch.optim.Adam(weight_decay=...)``).

    .. math::
        \hat g_t &= g_t + \lambda w_{t-1} \\
        m_t &= \beta_1 m_{t-1} + (1-\beta_1) \hat g_t, \qquad
        v_t = \beta_2 v_{t-1} + (1-\beta_2) \hat g_t^2 \\
        w_t &= w_{t-1} - \eta\, \frac{m_t/(1-\beta_1^t)}{\sqrt{v_t/(1-\beta_2^t)} + \epsilon}

    Parameters
    ----------
    lr : float
        Learning rate η > 0.
    weight_decay : float
        λ ≥ 0, added to the gradient as λw; the effective decay per step is lr·wd/√v.
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
    Rotation depends on the gradient's scale, as scale^(-1/3) for scale-invariant weights: the
    imbalance between neurons that the paper blames for Adam+L2 (derivations.adam_l2). The exact equilibrium
    follows from the moments of one coordinate's Markov chain (`rotsim.theory.adam_l2_chain`).
    """

    name = "adam_l2"
    label = "Adam+L2"
    update = staticmethod(_update)

    lr: float
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    @classmethod
    def examples(cls) -> tuple[AdamL2, AdamL2]:
        return cls(lr=1e-3, weight_decay=0.05), cls(lr=1e-2, weight_decay=0.1)

    def coefficients(self, step: np.ndarray, lr: np.ndarray, weight_decay: np.ndarray) -> tuple[Any, ...]:
        beta1, beta2 = self.betas
        step_size = np.maximum(lr, LEAST_LR) / filled(beta1, step)  # the update divides by the denominator over it
        root_correction = 1 / np.sqrt(filled(beta2, step))
        return weight_decay, root_correction / step_size, beta1, beta2, max(self.eps, TINY) / step_size

    def moments(self, dim: int, power: GradientPower, method: Method) -> Moments:
        lr, weight_decay, beta1, beta2 = self.lr, self.weight_decay, *self.betas
        law = (power.scale_squared, power.homogeneity)
        leading_norm = closed_forms.adam_l2_leading_norm(lr, weight_decay, dim, *law)
        if method == "leading":
            rotation = closed_forms.adam_l2_leading_rotation(lr, weight_decay, beta1, dim, *law)
            v = closed_forms.adam_l2_second_moment(0.0, dim, leading_norm**2, *law)
            relaxation = closed_forms.adam_l2_relaxation_steps(lr, weight_decay, v, power.homogeneity)
            # neglected: finite effective decay, and λw beside g in the second moment
            error = 1 / relaxation / (1 - beta1) + (1 - beta2) + weight_decay**2 * leading_norm**2 / (v * dim)
            return Moments(leading_norm**2, rotation**2 / 2, relaxation, error)

        left_out = 0.0  # share of the update that an ε takes which the chain is not told of

        def walk(log_norm_squared: float) -> tuple[Steady, float]:
            """The chain of one coordinate, whose noise the norm sets; log E‖w‖² of it beyond what was put in."""
            nonlocal left_out
            variance = power.scale_squared * np.exp(power.homogeneity * log_norm_squared) / dim
            eps, left_out = felt_eps(beta1, beta2, float(self.eps / np.sqrt(variance)))
            found = steady(float(lr * weight_decay / np.sqrt(variance)), beta1, beta2, eps=eps)
            return found, float(np.log(found.square * dim * variance / weight_decay**2)) - log_norm_squared

        log_norm_squared = 2 * float(np.log(leading_norm))
        if power.homogeneity:
            log_norm_squared = falling(lambda x: walk(x)[1], log_norm_squared)
        found, excess = walk(log_norm_squared)
        jump = abs(excess) if power.homogeneity else 0.0  # where the chain's cut changes, and with it a poor result
        norm_squared = float(np.exp(log_norm_squared + excess))
        response, _ = mean_response(beta1, beta2)
        v = closed_forms.adam_l2_second_moment(weight_decay, dim, norm_squared, *law)
        relaxation = closed_forms.adam_l2_relaxation_steps(lr, weight_decay * response, v, power.homogeneity)
        if power.homogeneity:  # the gradient follows the norm, and v follows the gradient
            relaxation = closed_forms.adam_l2_lagged_relaxation_steps(
                lr, weight_decay * response, beta2, v, power.homogeneity
            )
        return Moments(norm_squared, found.one_minus_cosine, relaxation, found.error + jump + left_out)
