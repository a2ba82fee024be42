"""From a torch.optim optimizer to the spec that rotsim's theory and simulator take."""

from __future__ import annotations

from typing import Any

import torch

from rotsim.errors import InvalidInput
from rotsim.measure.lion import Lion as TorchLion
from rotsim.optimizers import SGDM, AdamL2, AdamW, Lion
from rotsim.optimizers.base import Optimizer

SUPPORTED = "AdamW, Adam, SGD (no nesterov, no dampening) and rotsim.measure.Lion, without amsgrad or maximize"


def optimizer_spec(optimizer: torch.optim.Optimizer, group: int = 0, **override: float) -> Optimizer:
    """The spec with the hyperparameters now in force in one parameter group.

    Parameters
    ----------
    optimizer : torch.optim.Optimizer
        ``AdamW``, ``Adam`` (`rotsim.AdamL2`, or `rotsim.AdamW` with ``decoupled_weight_decay``),
        ``SGD`` without Nesterov momentum and dampening, or `rotsim.measure.Lion`.
    group : int
        Index into ``optimizer.param_groups``.
    **override : float
        Hyperparameters (``lr``, ``weight_decay``) to use in place of those of the group.

    Returns
    -------
    AdamW or AdamL2 or SGDM or Lion

    Raises
    ------
    InvalidInput
        If no spec follows the optimizer's recurrence, or its hyperparameters are outside the spec's range.
    """
    if not 0 <= group < len(optimizer.param_groups):
        raise InvalidInput(f"`group` must be in [0, {len(optimizer.param_groups)}); got {group!r}")
    values = optimizer.param_groups[group]
    _refuse_variants(optimizer, values)
    common = {"lr": float(values["lr"]), "weight_decay": float(values["weight_decay"]), **override}
    # subclasses may change the update, so only the classes themselves are taken at their word
    kind = type(optimizer)
    if kind is torch.optim.SGD:
        return SGDM(**common, momentum=float(values["momentum"]))
    if kind in (TorchLion, torch.optim.Adam, torch.optim.AdamW):
        betas = (float(values["betas"][0]), float(values["betas"][1]))
        if kind is TorchLion:
            return Lion(**common, betas=betas)
        decoupled = kind is torch.optim.AdamW or values.get("decoupled_weight_decay", False)
        return (AdamW if decoupled else AdamL2)(**common, betas=betas, eps=float(values["eps"]))
    raise InvalidInput(_no_spec(optimizer, "its update rule is unknown to rotsim"))


def _refuse_variants(optimizer: torch.optim.Optimizer, values: dict[str, Any]) -> None:
    for flag in ("amsgrad", "maximize", "nesterov"):
        if values.get(flag, False):
            raise InvalidInput(_no_spec(optimizer, f"{flag}=True changes the recurrence"))
    if values.get("dampening", 0) and values.get("momentum", 0):
        raise InvalidInput(_no_spec(optimizer, f"dampening={values['dampening']} changes the recurrence"))


def _no_spec(optimizer: torch.optim.Optimizer, why: str) -> str:
    return (
        f"no spec describes this {type(optimizer).__name__}: {why}; supported are {SUPPORTED}. "
        "To record it all the same, pass the closest one yourself: Recorder(..., spec=rotsim.AdamW(...))"
    )
