"""Lion for PyTorch, which has none of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from rotsim.errors import InvalidInput, nonnegative
from rotsim.measure.arguments import CheckedOptimizer
from rotsim.measure.closure import evaluate
from rotsim.optimizers.base import beta_pair, check_decay


class Lion(CheckedOptimizer):
    r"""Lion (Chen et al. 2023), with the decay decoupled and multiplied by the learning rate.

    .. math::
        c_t &= \beta_1 m_{t-1} + (1-\beta_1) g_t, \qquad
        w_t = (1 - \eta\lambda)\, w_{t-1} - \eta\, \mathrm{sign}(c_t) \\
        m_t &= \beta_2 m_{t-1} + (1-\beta_2) g_t

    Parameters
    ----------
    params : iterable of Tensor, of dict, or of (str, Tensor)
        Parameters or parameter groups, as for any `torch.optim.Optimizer`.
    lr : float
        Learning rate η, 0 or from 1e-30 to 1e30 (0 so that a schedule may start there).
    betas : (float, float)
        (β1, β2), each in [0, 1).
    weight_decay : float
        λ, 0 or from 1e-30 to 1e30, with ``lr * weight_decay`` < 1.

    Raises
    ------
    InvalidInput
        If a hyperparameter of any group is out of range, or a gradient is sparse.

    Notes
    -----
    The recurrence is that of the spec `rotsim.Lion`. sign(0) = 0.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    def check(self, group: dict[str, Any]) -> None:
        """Raise `InvalidInput` if a hyperparameter of a group is out of range."""
        lr, weight_decay = nonnegative("lr", group["lr"]), nonnegative("weight_decay", group["weight_decay"])
        if lr > 0:
            check_decay(lr, weight_decay)
        beta_pair(group["betas"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; return what `closure` returns, if one is given."""
        loss = evaluate(closure)
        for group in self.param_groups:
            lr, (beta1, beta2) = group["lr"], group["betas"]
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                if gradient.layout is not torch.strided:
                    raise InvalidInput("Lion takes dense gradients only; build the embedding with sparse=False")
                state = self.state[parameter]
                if not state:
                    state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                average = state["exp_avg"]
                direction = average.mul(beta1).add_(gradient, alpha=1 - beta1).sign_()
                parameter.mul_(1 - lr * group["weight_decay"]).add_(direction, alpha=-lr)
                average.mul_(beta2).add_(gradient, alpha=1 - beta2)
        return loss
