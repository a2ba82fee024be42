"""Rotational variants of AdamW, SGDM and Lion: equilibrium rotation at constant norms."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch.optim.adam import adam
from torch.optim.sgd import sgd

from rotsim import closed_forms
from rotsim.errors import flag, nonnegative, require, share
from rotsim.measure.rotation_loop import RotationalOptimizer, Tensors, gradient_of, kernel_for
from rotsim.optimizers import SGDM, AdamW, Lion
from rotsim.optimizers.base import Optimizer, beta_pair


class RotationalAdamW(RotationalOptimizer):
    r"""AdamW whose weight vectors turn by the equilibrium angle at constant norm, without the norm's transient.

    The update direction is AdamW's. The angle is √(2ηλ(1-β1)/(1+β1)) in RMS, with the learning rate in
    force (Kosson, Messmer, Jaggi 2024, table 1 and section 5; `rotsim.measure.rotation_step.rotate_`).

    Parameters
    ----------
    params : iterable of Tensor, of dict, or of (str, Tensor)
        Parameters or parameter groups, as for any `torch.optim.Optimizer`. Every option may differ by group.
    lr : float
        Learning rate η, 0 or from 1e-30 to 1e30.
    betas : (float, float)
        (β1, β2), each in [0, 1).
    eps : float
        ε, 0 or from 1e-30 to 1e30.
    weight_decay : float
        λ, 0 or from 1e-30 to 1e30, with ``lr * weight_decay`` < 1: together with lr it sets the angle.
    per_neuron : bool
        Rotate every row of a weight (True) or every weight as one vector (False).
    zero_mean : bool
        Also remove the mean of the update, and that of the weights before they turn for the first time, at their norm.
    update_norm_decay : float
        Decay per step, in [0, 1), of the running mean of the squared update norm.

    Raises
    ------
    InvalidInput
        If a hyperparameter is out of range, a gradient is sparse or a weight to be rotated is all zeros.

    Notes
    -----
    The running mean of the update's length follows while the moments fill: on white noise the first 40 steps turn
    at 0.79 of the angle, for β1 = 0.9 (`derivations.rotational.filling_average`).

    Rotated are parameters with at least two dimensions in groups with ``weight_decay`` > 0, but for groups with the
    option ``rotational=False``. Their vectors must be longer than 1 (2 with `zero_mean`). All others take the plain
    optimizer's step. Norms stay at
    their initial value: give each layer a normalisation or a learnable gain, or the network cannot choose
    its scales.

    Examples
    --------
    >>> from rotsim.measure import RotationalAdamW
    >>> import torch
    >>> optimizer = RotationalAdamW(torch.nn.Linear(8, 4).parameters(), lr=1e-3, weight_decay=0.1)
    >>> f"{optimizer.rotation(optimizer.param_groups[0]):.6f}"
    '0.003244'
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        per_neuron: bool = True,
        zero_mean: bool = True,
        update_norm_decay: float = 0.9,
    ) -> None:
        super().__init__(
            params, per_neuron, zero_mean, update_norm_decay, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay
        )

    def _check(self, group: dict[str, Any]) -> None:
        beta_pair(group["betas"])
        nonnegative("eps", group["eps"])

    @staticmethod
    def _averages(group: dict[str, Any]) -> tuple[str, ...]:
        return "exp_avg", "exp_avg_sq"

    @staticmethod
    def _inner(group: dict[str, Any]) -> Optimizer:
        return AdamW(1.0, 0.0, group["betas"], group["eps"])

    @staticmethod
    def rotation(group: dict[str, Any]) -> float:
        """√(2ηλ(1-β1)/(1+β1)), radians per step."""
        return float(closed_forms.adamw_leading_rotation(group["lr"], group["weight_decay"], group["betas"][0]))

    def _descend(
        self, group: dict[str, Any], targets: Tensors, parameters: Tensors, lr: float, weight_decay: float
    ) -> None:
        gradients = [gradient_of(p) for p in parameters]
        averages, squares, steps = (self._kept(name, parameters) for name in ("exp_avg", "exp_avg_sq", "step"))
        if weight_decay:
            torch._foreach_mul_(targets, 1 - lr * weight_decay)
        beta1, beta2 = group["betas"]
        adam(
            targets,
            gradients,
            averages,
            squares,
            max_exp_avg_sqs=[],
            state_steps=steps,
            **kernel_for(targets, gradients, averages),
            has_complex=any(map(torch.is_complex, targets)),
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=lr,
            weight_decay=0.0,
            eps=group["eps"],
            maximize=False,
        )


class RotationalSGDM(RotationalOptimizer):
    r"""SGD with momentum whose weight vectors turn by the equilibrium angle at constant norm.

    The update direction is the momentum m = α m + g. The angle is √(2ηλ/(1+α)) in RMS, with the learning
    rate in force (Kosson, Messmer, Jaggi 2024, table 1 and section 5). With Nesterov momentum the direction is
    g + α m and the angle √(2ηλ (1 + 2α - 2α³)/(1+α)) (derivations.nesterov).

    Parameters
    ----------
    params : iterable of Tensor, of dict, or of (str, Tensor)
    lr : float
        Learning rate η, 0 or from 1e-30 to 1e30.
    momentum : float
        α in [0, 1).
    weight_decay : float
        λ, 0 or from 1e-30 to 1e30, with ``lr * weight_decay`` < 1.
    nesterov : bool
        Step by what the momentum will be; needs momentum > 0.
    per_neuron, zero_mean, update_norm_decay
        As in `RotationalAdamW`, as is what is rotated.

    Raises
    ------
    InvalidInput
        As `RotationalAdamW`.

    Notes
    -----
    While the momentum fills, it grows, and the first tens of steps turn faster: at 1.07 of the angle over the first
    40 on white noise, for α = 0.9 (`derivations.rotational.filling_average`).

    Parameters that are not rotated follow `torch.optim.SGD`, whose decay enters the gradient. For rotated
    ones the decay is radial: it only sets the angle.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        per_neuron: bool = True,
        zero_mean: bool = True,
        update_norm_decay: float = 0.9,
    ) -> None:
        own = {"momentum": momentum, "nesterov": nesterov}
        super().__init__(params, per_neuron, zero_mean, update_norm_decay, lr=lr, weight_decay=weight_decay, **own)

    def _check(self, group: dict[str, Any]) -> None:
        share("momentum", group["momentum"])
        if flag("nesterov", group["nesterov"]):
            require(group["momentum"] > 0, "momentum", "be > 0 with nesterov", group["momentum"])

    @staticmethod
    def _averages(group: dict[str, Any]) -> tuple[str, ...]:
        return ("momentum_buffer",) if group["momentum"] else ()

    @staticmethod
    def _inner(group: dict[str, Any]) -> Optimizer:
        return SGDM(1.0, 0.0, group["momentum"], nesterov=group["nesterov"])

    @staticmethod
    def rotation(group: dict[str, Any]) -> float:
        """√(2ηλ/(1+α)), with Nesterov momentum √(1+2α-2α³) times as much; radians per step."""
        form = closed_forms.nesterov_leading_rotation if group["nesterov"] else closed_forms.sgdm_leading_rotation
        return float(form(group["lr"], group["weight_decay"], group["momentum"]))

    def _descend(
        self, group: dict[str, Any], targets: Tensors, parameters: Tensors, lr: float, weight_decay: float
    ) -> None:
        gradients = [gradient_of(p) for p in parameters]
        buffers: list[Any] = self._kept("momentum_buffer", parameters) if group["momentum"] else []
        sgd(
            targets,
            gradients,
            buffers or [None] * len(parameters),
            **kernel_for(targets, gradients, buffers),
            weight_decay=weight_decay,
            momentum=group["momentum"],
            lr=lr,
            dampening=0.0,
            nesterov=group["nesterov"],
            maximize=False,
        )


class RotationalLion(RotationalOptimizer):
    r"""Lion whose weight vectors turn by the equilibrium angle at constant norm, from the first step on.

    The update direction is sign(β1 m + (1-β1) g). The angle is
    √(πηλ((1-β1)² + β1²(1-β2)/(1+β2))) in RMS, with the learning rate in force
    (Kosson, Messmer, Jaggi 2024, table 1 and section 5).

    Parameters
    ----------
    params : iterable of Tensor, of dict, or of (str, Tensor)
    lr : float
        Learning rate η, 0 or from 1e-30 to 1e30.
    betas : (float, float)
        (β1, β2), each in [0, 1).
    weight_decay : float
        λ, 0 or from 1e-30 to 1e30, with ``lr * weight_decay`` < 1.
    exact_angle : bool
        Turn by the rotation of the sign itself, at any decay: `rotsim.Lion.exact_rotation`. The angle above, which is
        the paper's, takes a straight line for the sign and is larger.
    per_neuron, zero_mean, update_norm_decay
        As in `RotationalAdamW`, as is what is rotated; the rest follows `rotsim.measure.Lion`.

    Raises
    ------
    InvalidInput
        As `RotationalAdamW`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        exact_angle: bool = False,
        per_neuron: bool = True,
        zero_mean: bool = True,
        update_norm_decay: float = 0.9,
    ) -> None:
        own = {"betas": betas, "exact_angle": exact_angle}
        super().__init__(params, per_neuron, zero_mean, update_norm_decay, lr=lr, weight_decay=weight_decay, **own)

    def _check(self, group: dict[str, Any]) -> None:
        beta_pair(group["betas"])
        flag("exact_angle", group["exact_angle"])

    @staticmethod
    def _averages(group: dict[str, Any]) -> tuple[str, ...]:
        return ("exp_avg",)

    @staticmethod
    def _inner(group: dict[str, Any]) -> Optimizer:
        return Lion(1.0, 0.0, group["betas"])

    @staticmethod
    def rotation(group: dict[str, Any]) -> float:
        """√(πηλ((1-β1)² + β1²(1-β2)/(1+β2))), or that of the sign itself; radians per step."""
        if group["exact_angle"]:
            return _exact_rotation(group["lr"], group["weight_decay"], tuple(group["betas"]))
        return float(closed_forms.lion_leading_rotation(group["lr"], group["weight_decay"], *group["betas"]))

    def _descend(
        self, group: dict[str, Any], targets: Tensors, parameters: Tensors, lr: float, weight_decay: float
    ) -> None:
        directions = self._updates(group, parameters)
        if weight_decay:
            torch._foreach_mul_(targets, 1 - lr * weight_decay)
        torch._foreach_add_(targets, directions, alpha=-lr)

    def _updates(self, group: dict[str, Any], parameters: Tensors) -> Tensors:
        beta1, beta2 = group["betas"]
        gradients, averages = [gradient_of(p) for p in parameters], self._kept("exp_avg", parameters)
        directions = torch._foreach_lerp(averages, gradients, 1 - beta1)
        torch._foreach_lerp_(averages, gradients, 1 - beta2)
        torch._foreach_sign_(directions)
        return list(directions)


@lru_cache(maxsize=256)
def _exact_rotation(lr: float, weight_decay: float, betas: tuple[float, float]) -> float:
    """Of Lion; groups ask for it in every step."""
    return float(Lion(1.0, 0.0, betas).exact_rotation(lr, weight_decay))
