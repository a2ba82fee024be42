"""Any optimizer's directions with any rotation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from rotsim.errors import InvalidInput, answer, flag, instance, is_a, mapping, nonnegative, require, share, shown
from rotsim.measure.arguments import STATE_RULE, check_state, taken_by_torch
from rotsim.measure.closure import evaluate
from rotsim.measure.rotation_kernel import difference, fits, turn_
from rotsim.measure.rotation_step import begin, can_rotate, keep_precision, refuse, rotate_, rotates
from rotsim.optimizers.base import N_COEFFICIENTS, Optimizer, filled


class Rotated(torch.optim.Optimizer):
    """Take the direction from an inner optimizer and the angle from elsewhere; norms stay constant.

    This is the paper's control experiment: ``Rotated(torch.optim.Adam(..., weight_decay=...), 0.01)``
    moves along Adam+L2's directions and turns every neuron equally, which Adam+L2 does not
    (Kosson, Messmer, Jaggi 2024, section 6).

    Parameters
    ----------
    inner : torch.optim.Optimizer
        Its parameter groups are this optimizer's: a scheduler on either drives both.
    rotation : float, Optimizer spec or callable
        Angle per step in radians ≥ 0. Or a spec such as ``rotsim.AdamW(lr=1e-3, weight_decay=0.1)``, for its
        leading-order rotation (SGDM, AdamW, Lion: not Adam+L2, whose rotation depends on the gradient). Or
        ``f(group) -> float``, called at every step, to follow a schedule. A number and a spec do not follow one.
    per_neuron, zero_mean, update_norm_decay
        As in `rotsim.measure.RotationalAdamW`, for all groups.
    decay_in_direction : bool
        False is the paper's special wrapper, of `torch.optim.Adam` alone. Its v is still that of g + λw. The direction
        is the average of g, without that of λw, over √v. True takes the inner optimizer's whole update.
    factors : mapping of Tensor to Tensor, optional
        For chosen parameters, a number ≥ 0 for every row: the row turns by that many times the angle.

    Raises
    ------
    InvalidInput
        If an argument is not of these kinds or out of range.

    Notes
    -----
    Rotated are parameters with at least two dimensions in groups with ``weight_decay`` > 0, or in all groups if none
    has any. A group option ``rotational``, True or False, decides otherwise. The inner optimizer alone moves others.
    The update is the difference of the weights before and after the inner
    step. It is divided by lr, so that schedules do not disturb its running norm. Weights are copied once per
    step, into memory that is kept for it. Where ``lr`` is below 1e-6 of the weights' size, float32
    differences lose digits, unlike with `RotationalAdamW` and its siblings.

    Examples
    --------
    >>> import torch
    >>> from rotsim.measure import Rotated
    >>> model = torch.nn.Linear(8, 4)
    >>> optimizer = Rotated(torch.optim.Adam(model.parameters(), weight_decay=0.1), rotation=0.01)
    """

    def __init__(
        self,
        inner: torch.optim.Optimizer,
        rotation: float | Optimizer | Callable[[dict[str, Any]], float],
        *,
        per_neuron: bool = True,
        zero_mean: bool = True,
        update_norm_decay: float = 0.9,
        decay_in_direction: bool = True,
        factors: Mapping[torch.Tensor, torch.Tensor] | None = None,
    ) -> None:
        instance("inner", inner, torch.optim.Optimizer, "a torch.optim.Optimizer")
        self.rotation_spec = rotation if isinstance(rotation, Optimizer) else None
        if isinstance(rotation, Optimizer):
            spec = rotation
            require(
                spec.weight_decay > 0, "rotation.weight_decay", "be > 0, since it sets the angle", spec.weight_decay
            )
            rotation = float(spec.leading_rotation(spec.lr, spec.weight_decay))
        if not callable(rotation):
            rotation = nonnegative("rotation", rotation)
        self._options: dict[str, Any] = {
            "per_neuron": flag("per_neuron", per_neuron),
            "zero_mean": flag("zero_mean", zero_mean),
            "update_norm_decay": share("update_norm_decay", update_norm_decay),
        }
        self._whole = flag("decay_in_direction", decay_in_direction)
        if not self._whole and type(inner) is not torch.optim.Adam:
            raise InvalidInput(
                f"`decay_in_direction=False` takes the decay out of Adam's average of gradients; "
                f"{type(inner).__name__} has another rule, so leave it out"
            )
        self._factors = _checked_factors(factors, inner, per_neuron)
        self._copies: dict[torch.Tensor, torch.Tensor] = {}
        self.inner = inner
        self._rotation = rotation
        super().__init__(inner.param_groups, dict(inner.defaults))
        self.param_groups = inner.param_groups  # the same list: groups added to either belong to both

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group to the inner optimizer."""
        refuse({**self.inner.defaults, **mapping("param_group", param_group)}, "capturable", "differentiable")
        if any(group is param_group for group in self.inner.param_groups):
            return  # the constructor of Optimizer passes the inner groups on
        with taken_by_torch("param_group"):
            self.inner.add_param_group(param_group)

    def rotation(self, group: dict[str, Any]) -> float:
        """Angle per step, in radians, that `group` now gets."""
        if not callable(self._rotation):
            return float(self._rotation)
        angle = answer("rotation", self._rotation, group)
        return nonnegative(
            "rotation(group)", angle.item() if is_a(angle, torch.Tensor) and angle.numel() == 1 else angle
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; return what `closure` returns, if one is given."""
        loss = evaluate(closure)
        groups = [(group, turning) for group in self.param_groups if (turning := self._rotating(group))]
        for group, turning in groups:
            for parameter in turning:
                begin(parameter, self.state[parameter], {**group, **self._options})
            torch._foreach_copy_([self._copy(p) for p in turning], turning)
        self.inner.step()
        for group, turning in groups:
            if not self._whole:
                self._average_decay(group, turning)
            if group["lr"] > 0:  # else nothing moved: there is no direction, and the average must not see zeros
                self._turn(group, turning)
        return loss

    def _turn(self, group: dict[str, Any], parameters: list[torch.Tensor]) -> None:
        rate, rotation = 1 / float(group["lr"]), self.rotation(group)
        kinds: dict[Any, list[torch.Tensor]] = {}
        for parameter in parameters:
            copy = self._copies[parameter]
            fast = self._whole and fits(parameter, copy)
            kinds.setdefault((parameter.dtype, parameter.device) if fast else None, []).append(parameter)
        for kind, members in kinds.items():
            states, old = [self.state[p] for p in members], [self._copies[p] for p in members]
            options = {**self._options, "factors": [self._factors_of(p) for p in members] if self._factors else None}
            if kind is None:
                updates = list(torch._foreach_sub(old, members))
                torch._foreach_mul_(updates, rate)
                if not self._whole:
                    torch._foreach_sub_(updates, [self._share_of_decay(group, p) for p in members])
                torch._foreach_copy_(members, old)
                rotate_(members, updates, states, rotation, **options)
                continue
            c = np.full((len(members), N_COEFFICIENTS), rate)
            turn_(difference, members, old, [()] * len(members), states, c, rotation, **options, restore=True)

    def _average_decay(self, group: dict[str, Any], parameters: list[torch.Tensor]) -> None:
        """Advance the part of Adam's average that is of λw."""
        if any(group.get(name) for name in ("amsgrad", "maximize", "decoupled_weight_decay")):
            raise InvalidInput("`decay_in_direction=False` needs Adam without amsgrad, maximize or decoupled decay")
        beta1 = float(group["betas"][0])
        for parameter in parameters:
            state = self.state[parameter]
            if "exp_avg_decay" not in state:
                state["exp_avg_decay"] = torch.zeros_like(parameter)
            weights, share = self._copies[parameter], (1 - beta1) * float(group["weight_decay"])
            state["exp_avg_decay"].mul_(beta1).add_(weights, alpha=share)

    def _share_of_decay(self, group: dict[str, Any], parameter: torch.Tensor) -> torch.Tensor:
        """What that part is of Adam's update."""
        inner, (beta1, beta2) = self.inner.state[parameter], map(float, group["betas"])
        step = float(inner["step"])
        root = (inner["exp_avg_sq"] / filled(beta2, step)).sqrt_().add_(group["eps"])
        share: torch.Tensor = self.state[parameter]["exp_avg_decay"] / filled(beta1, step) / root
        return share

    def _copy(self, parameter: torch.Tensor) -> torch.Tensor:
        """Where its weights before the step are kept: fresh memory would cost as much as the step."""
        copy = self._copies.get(parameter)
        if copy is None or any(getattr(copy, x) != getattr(parameter, x) for x in ("shape", "dtype", "device")):
            copy = self._copies[parameter] = torch.empty_like(parameter)
        return copy

    def _factors_of(self, parameter: torch.Tensor) -> torch.Tensor:
        factors = self._factors.get(parameter)
        kind = self.state[parameter]["norm"]
        return torch.ones_like(kind) if factors is None else factors.to(kind)

    def _rotating(self, group: dict[str, Any]) -> list[torch.Tensor]:
        decays = any(each.get("weight_decay", 0.0) > 0 for each in self.param_groups)
        if not rotates(group, otherwise=not decays):
            return []
        per_neuron, zero_mean = self._options["per_neuron"], self._options["zero_mean"]
        return [p for p in group["params"] if p.grad is not None and can_rotate(p, per_neuron, zero_mean)]

    def state_dict(self) -> dict[str, Any]:
        """The inner optimizer's state under ``inner`` beside the norms and running averages kept here."""
        return {**super().state_dict(), "inner": self.inner.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        state = mapping("state_dict", state_dict)
        if "inner" not in state:
            raise InvalidInput("the state has no 'inner' part; it was not made by Rotated.state_dict()")
        inner = state.pop("inner")
        with taken_by_torch("state_dict", STATE_RULE):
            check_state(self, state)
            self.inner.load_state_dict(inner)
            super().load_state_dict(state)
        keep_precision(self, state)
        self.param_groups = self.inner.param_groups


def _checked_factors(
    given: Mapping[torch.Tensor, torch.Tensor] | None, inner: torch.optim.Optimizer, per_neuron: bool
) -> dict[torch.Tensor, torch.Tensor]:
    if given is not None and not is_a(given, Mapping):
        raise InvalidInput(f"`factors` must be a mapping of tensors to tensors; got {shown(given)}")
    factors = dict(given or {})
    if factors and not per_neuron:
        raise InvalidInput("`factors` are per row; use per_neuron=True")
    known = {id(parameter) for group in inner.param_groups for parameter in group["params"]}
    for parameter, values in factors.items():
        if id(parameter) not in known:
            raise InvalidInput("`factors` names a tensor that the inner optimizer does not update")
        if not is_a(values, torch.Tensor) or values.is_complex():
            raise InvalidInput(f"`factors` must hold tensors of real numbers; got {shown(values)}")
        if values.shape != parameter.shape[:1] or not bool((values >= 0).all()) or not bool(values.isfinite().all()):
            raise InvalidInput(
                f"`factors` must hold one finite number >= 0 for each of the {parameter.shape[0]} rows; "
                f"got {shown(values)} of shape {tuple(values.shape)}"
            )
    return {
        p: values.detach().to(p.device, torch.promote_types(p.dtype, torch.float32)) for p, values in factors.items()
    }
