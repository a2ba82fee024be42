"""From a torch.optim optimizer to the spec that rotsim's theory and simulator take."""

from __future__ import annotations

from typing import Any

import torch

from rotsim.errors import InvalidInput, instance, integer, mapping
from rotsim.measure.arguments import taken_by_torch
from rotsim.measure.lion import Lion as TorchLion
from rotsim.measure.rotational import RotationalAdamW, RotationalLion, RotationalSGDM
from rotsim.optimizers import SGDM, AdamL2, AdamW, Lion, Rotational
from rotsim.optimizers.base import Optimizer

SUPPORTED = (
    "AdamW, Adam, SGD (no nesterov, no dampening), without amsgrad or maximize, and rotsim.measure's Lion, "
    "RotationalAdamW, RotationalSGDM and RotationalLion"
)
_SGDM, _LION = (torch.optim.SGD, RotationalSGDM), (TorchLion, RotationalLion)
_ADAM = (torch.optim.AdamW, torch.optim.Adam, RotationalAdamW)
_ROTATIONAL = (RotationalAdamW, RotationalSGDM, RotationalLion)


class NoSpec(InvalidInput):
    """No spec follows the optimizer's recurrence; ``why`` says it in a clause."""

    def __init__(self, optimizer: torch.optim.Optimizer, why: str) -> None:
        super().__init__(
            f"no spec describes this {type(optimizer).__name__}: {why}; supported are {SUPPORTED}. "
            "To compare with the theory of the closest one, pass that: Recorder(..., spec=rotsim.AdamW(...))"
        )
        self.why = why


def optimizer_spec(optimizer: torch.optim.Optimizer, group: int = 0, **override: float) -> Optimizer:
    """The spec with the hyperparameters now in force in one parameter group.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        ``AdamW``, ``Adam`` (`rotsim.AdamL2`, or `rotsim.AdamW` with ``decoupled_weight_decay``),
        ``SGD`` without Nesterov momentum and dampening, `rotsim.measure.Lion`, or a rotational variant. In a group
        without weight decay, where that does not rotate, it is the optimizer that it is a variant of.
    group : int
        Index into ``optimizer.param_groups``, as in a list.
    **override : float
        Hyperparameters (``lr`` > 0, ``weight_decay`` >= 0) to use in place of those of the group.

    Returns
    -------
    AdamW or AdamL2 or SGDM or Lion or Rotational

    Raises
    ------
    NoSpec, InvalidInput
        If no spec follows the optimizer's recurrence, or its hyperparameters are outside the spec's range.
    """
    instance("optimizer", optimizer, torch.optim.Optimizer, "a torch.optim.Optimizer")
    group = integer("group", group, low=0, high=max(1, len(optimizer.param_groups)))
    override = mapping("override", override, ("lr", "weight_decay", "momentum", "betas", "eps"))
    values = optimizer.param_groups[group]
    kind = type(optimizer)  # subclasses may change the update, so only the classes themselves are taken at their word
    if kind not in (*_SGDM, *_LION, *_ADAM):
        known = [cls.__name__ for cls in kind.__mro__[1:] if cls in (*_SGDM, *_LION, *_ADAM)]
        raise NoSpec(
            optimizer,
            f"a subclass may change the update rule of {known[0]}" if known else "its update rule is unknown to rotsim",
        )
    _refuse_variants(optimizer, values)
    with taken_by_torch("optimizer", "have numbers for hyperparameters in its groups"):
        common = {name: float(values.get(name, 0.0)) for name in ("lr", "weight_decay")} | override
        if kind in _SGDM:
            plain: Optimizer = SGDM(**common, momentum=float(values["momentum"]))
        elif kind in _LION:
            plain = Lion(**common, betas=_betas(values))
        else:
            decoupled = kind is not torch.optim.Adam or values.get("decoupled_weight_decay", False)
            plain = (AdamW if decoupled else AdamL2)(**common, betas=_betas(values), eps=float(values["eps"]))
        if kind not in _ROTATIONAL or not plain.weight_decay:
            return plain
        return Rotational(plain, update_norm_decay=values["update_norm_decay"], zero_mean=values["zero_mean"])


def _betas(values: dict[str, Any]) -> tuple[float, float]:
    return float(values["betas"][0]), float(values["betas"][1])


def _refuse_variants(optimizer: torch.optim.Optimizer, values: dict[str, Any]) -> None:
    for flag in ("amsgrad", "maximize", "nesterov"):
        if values.get(flag, False):
            raise NoSpec(optimizer, f"{flag}=True changes the recurrence")
    if not values.get("per_neuron", True):
        raise NoSpec(optimizer, "per_neuron=False sets the angle of whole weights, not of neurons")
    if values.get("dampening", 0) and values.get("momentum", 0):
        raise NoSpec(optimizer, f"dampening={values['dampening']} changes the recurrence")
