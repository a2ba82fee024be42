"""Inverse design: the hyperparameters that give a wanted rotation, norm or time scale.

For every optimizer the product lr·weight_decay sets rotation and time scale together, and momentum the
relation between the two (rotation² · relaxation is a function of momentum alone, to leading order); the
ratio lr/weight_decay sets the norm. So three of rotation, relaxation_steps, norm and lr determine
everything, and two determine lr and weight_decay at a given momentum.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from scipy.optimize import root
from scipy.special import expit

from rotsim.errors import InvalidInput, positive
from rotsim.gradients import Gradient
from rotsim.optimizers import Rotational, optimizer_class
from rotsim.optimizers.base import Optimizer
from rotsim.theory.equilibrium import Equilibrium, equilibrium

_TARGETS = ("rotation", "relaxation_steps", "norm")
_PRECISION = 1e-9


@dataclass(frozen=True)
class Plan:
    """Hyperparameters and the equilibrium they give.

    Attributes
    ----------
    optimizer : Optimizer
    equilibrium : Equilibrium
        What `rotsim.equilibrium` predicts for it, equal to the targets.
    """

    optimizer: Optimizer
    equilibrium: Equilibrium


def plan(
    family: str,
    *,
    rotation: float | None = None,
    relaxation_steps: float | None = None,
    norm: float | None = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    dim: int = 1024,
    gradient: Gradient | None = None,
    **fixed: Any,
) -> Plan:
    """Find the learning rate, weight decay and, where needed, momentum for a wanted equilibrium.

    Parameters
    ----------
    family : str
        A name in `rotsim.OPTIMIZERS`.
    rotation : float, optional
        Wanted RMS angle per step, radians.
    relaxation_steps : float, optional
        Wanted time scale of ‖w‖².
    norm : float, optional
        Wanted RMS norm.
    lr, weight_decay : float, optional
        Held at this value.
    dim, gradient
        As in `rotsim.equilibrium`.
    **fixed
        Other hyperparameters (``betas``, ``momentum``, ``eps``). With rotation and relaxation_steps both
        wanted, momentum (β1) is solved for, and must not be fixed; ``betas`` then gives β2 alone.

    Returns
    -------
    Plan

    Raises
    ------
    InvalidInput
        If the targets are too few or too many for the unknowns, or no setting reaches them.

    Examples
    --------
    >>> import rotsim
    >>> found = rotsim.plan("adamw", rotation=0.01, norm=1.0, dim=1024)
    >>> f"{found.optimizer.lr:.4g} {found.optimizer.weight_decay:.4g}"
    '0.001368 0.6943'
    """
    spec = _plain_class(family)
    names = [field.name for field in fields(spec)]
    if unknown := [name for name in fixed if name not in names]:
        raise InvalidInput(f"{spec.label} has no hyperparameter {unknown[0]!r}; it has {', '.join(names)}")
    wanted = {
        name: positive(name, value)
        for name, value in zip(_TARGETS, (rotation, relaxation_steps, norm), strict=True)
        if value is not None
    }
    held = {
        name: positive(name, value) for name, value in (("lr", lr), ("weight_decay", weight_decay)) if value is not None
    }
    free = [name for name in ("lr", "weight_decay") if name not in held]
    if "rotation" in wanted and "relaxation_steps" in wanted:
        free.append("momentum")
    if len(free) != len(wanted):
        raise InvalidInput(
            f"{len(wanted)} targets ({', '.join(wanted) or 'none'}) cannot determine {len(free)} unknowns "
            f"({', '.join(free)}); give as many of rotation, relaxation_steps, norm as are unknown, or fix lr"
        )

    def build(x: np.ndarray) -> Optimizer:
        solved = dict(zip(free, x, strict=True))
        rates = {name: float(np.exp(solved[name])) for name in ("lr", "weight_decay") if name in solved}
        optimizer = spec(**fixed, **held, **rates)
        return _with_momentum(optimizer, float(expit(solved["momentum"]))) if "momentum" in solved else optimizer

    def miss(x: np.ndarray) -> np.ndarray:
        try:
            found = equilibrium(build(x), dim, gradient)
        except (InvalidInput, OverflowError, FloatingPointError):
            return np.full(len(wanted), 1e2)  # outside the optimizer's range: far from everything
        return np.array([np.log(getattr(found, name) / value) for name, value in wanted.items()])

    start = _start(wanted, held, free)
    with np.errstate(all="ignore"):
        solved = root(miss, start, method="hybr", tol=1e-13)
    if np.abs(miss(solved.x)).max() > _PRECISION:
        aims = ", ".join(f"{name}={value:g}" for name, value in {**wanted, **held}.items())
        raise InvalidInput(f"no {spec.label} reaches {aims} at dim={dim}. {_why(wanted)}")
    optimizer = build(solved.x)
    return Plan(optimizer, equilibrium(optimizer, dim, gradient))


def transfer(
    optimizer: Optimizer, *, momentum: float | None = None, batch_factor: float = 1.0, dim: int = 1024,
    gradient: Gradient | None = None,
) -> Plan:  # fmt: skip
    """Change momentum or batch size and keep learning at the same pace.

    Parameters
    ----------
    optimizer : Optimizer
        The setting to start from.
    momentum : float, optional
        New momentum (β1); rotation per step and norm are kept.
    batch_factor : float
        Batch size times this, and so steps per epoch divided by it. The squared angle turned per epoch is
        kept: rotation per step grows by the square root of the factor, to leading order lr·wd by the factor,
        so that the time scale stays the same in epochs. The norm is kept.
    dim, gradient
        As in `rotsim.equilibrium`.

    Returns
    -------
    Plan
    """
    factor = positive("batch_factor", batch_factor)
    _plain_class(optimizer.name)
    now = equilibrium(optimizer, dim, gradient)
    changed = optimizer if momentum is None else _with_momentum(optimizer, momentum)
    fixed = {f.name: getattr(changed, f.name) for f in fields(changed) if f.name not in ("lr", "weight_decay")}
    return plan(
        optimizer.name, rotation=now.rotation * factor**0.5, norm=now.norm, dim=dim, gradient=gradient, **fixed
    )  # fmt: skip


def _plain_class(family: str) -> type[Optimizer]:
    if family == Rotational.name:
        raise InvalidInput(
            "`family` must be adamw, adam_l2, sgdm or lion; a rotational variant keeps any norm and turns as its inner "
            "optimizer does. Plan or transfer that one"
        )
    return optimizer_class(family)


def _with_momentum(optimizer: Optimizer, momentum: float) -> Optimizer:
    if hasattr(optimizer, "momentum"):
        return replace(optimizer, momentum=momentum)  # type: ignore[call-arg]
    return replace(optimizer, betas=(momentum, optimizer.betas[1]))  # type: ignore[attr-defined, call-arg]


def _start(wanted: dict[str, float], held: dict[str, float], free: list[str]) -> np.ndarray:
    """A first guess from AdamW's leading order: lr·wd from the rotation or time scale, lr/wd from nothing."""
    product = wanted["rotation"] ** 2 * 5 if "rotation" in wanted else 0.5 / wanted.get("relaxation_steps", 500.0)
    product = min(product, 0.3)
    lr = held.get("lr", product / held["weight_decay"] if "weight_decay" in held else 1e-2)
    guess = {"lr": np.log(lr), "weight_decay": np.log(product / lr), "momentum": np.log(0.9 / 0.1)}
    return np.array([guess[name] for name in free])


def _why(wanted: dict[str, float]) -> str:
    if "rotation" in wanted and "relaxation_steps" in wanted:
        return (
            "Momentum trades the two: rotation² · relaxation_steps lies between 0 and a bound below 1, and "
            "Adam's second moment adds up to 2/(1-β2) steps; ask for a slower rotation, or set a smaller β2 in betas"
        )
    return "Ask for a smaller rotation or a longer relaxation"
