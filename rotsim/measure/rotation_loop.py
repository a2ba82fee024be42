"""The loop that all rotational optimizers share: which parameters rotate, which follow the plain rule, and states."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch

from rotsim.errors import InvalidInput, flag, nonnegative, share
from rotsim.measure.arguments import CheckedOptimizer
from rotsim.measure.closure import evaluate
from rotsim.measure.rotation_kernel import fits, turn_
from rotsim.measure.rotation_step import (
    begin,
    called,
    can_rotate,
    keep_precision,
    refuse,
    rotate_,
    rotates,
    zeros_to_stack,
)
from rotsim.optimizers.base import Optimizer, check_decay

Tensors = list[torch.Tensor]
_TURNING = ("per_neuron", "zero_mean", "update_norm_decay")
_OPTIONS = (*_TURNING, "rotational", "nesterov", "exact_angle")  # that a saved state may lack


class RotationalOptimizer(CheckedOptimizer):
    """Shared loop: which parameters rotate, which follow the plain rule, and the options common to all."""

    def __init__(
        self,
        params: Iterable[Any],
        per_neuron: bool,
        zero_mean: bool,
        update_norm_decay: float,
        **hyperparameters: Any,
    ) -> None:
        options = {"per_neuron": per_neuron, "zero_mean": zero_mean, "update_norm_decay": update_norm_decay}
        super().__init__(params, {**hyperparameters, **options, "rotational": None})

    def check(self, group: dict[str, Any]) -> None:
        """Raise `InvalidInput` if a hyperparameter of a group is out of range."""
        nonnegative("lr", group["lr"])
        nonnegative("weight_decay", group["weight_decay"])
        share("update_norm_decay", group["update_norm_decay"])
        for name in ("per_neuron", "zero_mean"):
            flag(name, group[name])
        if group["rotational"] is not None and flag("rotational", group["rotational"]) and not group["weight_decay"]:
            raise InvalidInput("`rotational=True` needs `weight_decay` > 0, which sets the angle with lr; got 0")
        options = ("capturable", "differentiable", "maximize", "amsgrad", "nesterov", "dampening")
        refuse(group, *(name for name in options if name not in self.defaults))
        self._check(group)
        if group["lr"] > 0:  # a schedule may start at 0
            check_decay(group["lr"], group["weight_decay"])

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; return what `closure` returns, if one is given."""
        loss = evaluate(closure)
        if not any(group["weight_decay"] for group in self.param_groups):
            warnings.warn(
                f"{type(self).__name__} rotates nothing: `weight_decay` is 0 in every group, and sets the angle with "
                "lr. Give it, or use the plain optimizer",
                stacklevel=2,
            )
        for group in self.param_groups:
            rotated: list[torch.Tensor] = []
            plain: list[torch.Tensor] = []
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.grad.layout is not torch.strided:
                    raise InvalidInput(
                        f"{type(self).__name__} takes dense gradients only; build the embedding with sparse=False"
                    )
                turns = can_rotate(parameter, group["per_neuron"], group["zero_mean"])
                if group["rotational"] and not turns:
                    raise InvalidInput(
                        f"{called(group, parameter)} of shape {tuple(parameter.shape)} has no direction to turn in; "
                        "put it into a parameter group without rotational=True"
                    )
                turns = turns and rotates(group)
                (rotated if turns else plain).append(parameter)
            if rotated:
                self._turn(group, rotated)
            if plain:
                for parameter in plain:
                    self._ready(group, parameter)
                self._descend(group, plain, plain, group["lr"], group["weight_decay"])
        return loss

    def _turn(self, group: dict[str, Any], parameters: list[torch.Tensor]) -> None:
        options = {name: group[name] for name in _TURNING}
        names = self._averages(group)
        kinds: dict[Any, list[torch.Tensor]] = {}
        for parameter in parameters:
            state = self._ready(group, parameter)
            begin(parameter, state, group)
            fast = fits(parameter, gradient_of(parameter), *(state[name] for name in names))
            kinds.setdefault((parameter.dtype, parameter.device) if fast else None, []).append(parameter)
        for kind, members in kinds.items():
            states = [self.state[p] for p in members]
            if kind is None:
                rotate_(members, self._updates(group, members), states, self.rotation(group), **options)
                continue
            spec, gradients = self._inner(group), [gradient_of(p) for p in members]
            averages = [[state[name] for name in names] for state in states]
            c = spec.coefficient_table(advanced(states), np.ones(len(states)), np.zeros(len(states)))
            turn_(spec.update, members, gradients, averages, states, c, self.rotation(group), **options)

    def _ready(self, group: dict[str, Any], parameter: torch.Tensor) -> dict[str, Any]:
        """The parameter's state, with the optimizer's averages in it."""
        state: dict[str, Any] = self.state[parameter]
        for name in self._averages(group):
            if name not in state:
                state[name] = torch.zeros_like(parameter)
                if name == "exp_avg_sq":
                    state["step"] = torch.tensor(0.0)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the norms of half-precision weights keep their digits.

        A state of the plain optimizer is taken up too: weights then keep the norms that they have at the next step.
        """
        state = self._with_options(state_dict)
        super().load_state_dict(state)
        keep_precision(self, state)

    def _with_options(self, state_dict: Any) -> Any:
        """A saved state whose groups have the options of rotation: their own, else those of this optimizer."""
        groups = state_dict.get("param_groups") if isinstance(state_dict, dict) else None
        if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
            return state_dict  # which `load_state_dict` refuses
        if any("update_norm_decay_factor" in group for group in groups):
            raise InvalidInput(
                "`state_dict` is of the rotational optimizer of the paper's authors, whose running means have other "
                "names; load the weights alone, and start this optimizer anew"
            )
        names = [name for name in _OPTIONS if name in self.defaults]
        own = [{name: group[name] for name in names} for group in self.param_groups]
        own += [{name: self.defaults[name] for name in names}] * max(0, len(groups) - len(own))
        return {**state_dict, "param_groups": [{**a, **b} for a, b in zip(own, groups, strict=False)]}

    def _kept(self, name: str, parameters: Tensors) -> Tensors:
        """What the state of each parameter has under a name."""
        return [self.state[p][name] for p in parameters]

    def _updates(self, group: dict[str, Any], parameters: Tensors) -> Tensors:
        """The plain optimizer's directions of descent: its step from zero, without decay, at lr -1."""
        updates = zeros_to_stack(parameters, group["per_neuron"])
        self._descend(group, updates, parameters, lr=-1.0, weight_decay=0.0)
        return updates

    @staticmethod
    @abstractmethod
    def _averages(group: dict[str, Any]) -> tuple[str, ...]:
        """Names in the state of the optimizer's averages, as its spec orders them."""

    @staticmethod
    @abstractmethod
    def _inner(group: dict[str, Any]) -> Optimizer:
        """The optimizer's spec, whatever its rates."""

    @staticmethod
    @abstractmethod
    def rotation(group: dict[str, Any]) -> float:
        """Angle per step, in radians, at the learning rate and weight decay now in force in `group`."""

    @abstractmethod
    def _check(self, group: dict[str, Any]) -> None:
        """Raise `InvalidInput` if a hyperparameter of its own is out of range."""

    @abstractmethod
    def _descend(
        self, group: dict[str, Any], targets: Tensors, parameters: Tensors, lr: float, weight_decay: float
    ) -> None:
        """Advance the averages by the gradients of `parameters`, and move `targets` by the plain optimizer's step."""


def advanced(states: Sequence[dict[str, Any]]) -> np.ndarray:
    """The step that is being taken, of each; where the optimizer counts steps it is counted on."""
    if "step" not in states[0]:
        return np.ones(len(states))
    steps = [state["step"] for state in states]
    torch._foreach_add_(steps, 1)
    return np.array([float(step) for step in steps])


def gradient_of(parameter: torch.Tensor) -> torch.Tensor:
    """Its gradient, which it has."""
    gradient = parameter.grad
    assert gradient is not None
    return gradient


def kernel_for(*tensors: list[torch.Tensor]) -> dict[str, Any]:
    """Which of torch's kernels: on CPU the fused one, which takes one pass over memory but reads them as they lie.

    Not in half precision, where torch 2.13's fused SGD on CPU is wrong from 32 elements on.
    """
    groups = [group for group in tensors if group]
    fused = all(x.device.type == "cpu" and x.dtype in (torch.float32, torch.float64) for x in groups[0])
    strides = [[x.stride() for x in group] for group in groups]
    fused = fused and all(other == strides[0] for other in strides)
    return {"fused": fused, "foreach": not fused}
