"""Inverse design: the hyperparameters that give a wanted rotation, norm or time scale.

For every optimizer the product lr·weight_decay sets rotation and time scale together. Momentum sets the
relation between the two: rotation² · relaxation is a function of momentum alone, to leading order. The
ratio lr/weight_decay sets the norm. So three of rotation, relaxation_steps, norm and lr determine
everything, and two determine lr and weight_decay at a given momentum.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from rotsim import closed_forms
from rotsim.errors import InvalidInput, NoEquilibrium, flag, is_a, positive, share, shown
from rotsim.gradients import Gradient, ScaleInvariant
from rotsim.optimizers import Cautious, Hyperball, Rotational, optimizer_class
from rotsim.optimizers.base import Optimizer
from rotsim.theory.boundary import within_floats
from rotsim.theory.equilibrium import Equilibrium, checked_law, equilibrium
from rotsim.theory.hyperball import hyperball_turning

TIMES = {"relaxation_steps": 1.0, "ema_steps": 0.5}  # over the relaxation of ‖w‖², nearly
_TARGETS = ("rotation", "relaxation_steps", "norm")
_PRECISION = 1e-9  # relative, of what is reached
_ROUNDING = 1e-13  # no search comes nearer
_STEP = 1e-6  # of the logarithm of an unknown, for a slope
_MOST_STEPS = 20


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


@within_floats
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
    rows: int | None = None,
    cautious: bool = False,
    **fixed: Any,
) -> Plan:
    """Find the learning rate, weight decay and, where needed, momentum for a wanted equilibrium.

    Parameters
    ----------
    family : str
        A name in `rotsim.OPTIMIZERS`.
    rotation : float, optional
        Wanted RMS angle per step, radians, from 1e-30 to 1e30.
    relaxation_steps : float, optional
        Wanted time scale of ‖w‖², steps, from 1e-30 to 1e30.
    norm : float, optional
        Wanted RMS norm, from 1e-30 to 1e30.
    lr, weight_decay : float, optional
        Held at this value, from 1e-30 to 1e30.
    dim, gradient, rows
        As in `rotsim.equilibrium`.
    cautious : bool
        Whether decay is that of `rotsim.Cautious`, where the update, too, shortens weights.
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
    NoEquilibrium
        If what is held allows none at any rates.

    Notes
    -----
    A root of the exact formulas (`rotsim.equilibrium`), from the rates that `derivations.planning` finds at leading
    order.

    Examples
    --------
    >>> import rotsim
    >>> found = rotsim.plan("adamw", rotation=0.01, norm=1.0, dim=1024)
    >>> f"{found.optimizer.lr:.4g} {found.optimizer.weight_decay:.4g}"
    '0.001368 0.694'
    """
    spec = plain_class(family)
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
    if trades_momentum(wanted):
        free.append("momentum")
        if "momentum" in fixed:
            raise InvalidInput(
                "`momentum` is solved for when rotation and relaxation_steps are both wanted; "
                f"got {shown(fixed['momentum'])}. Leave it out, or one of the two"
            )
    if not free:
        raise InvalidInput("lr and weight_decay are both held, so nothing is left to find; leave one of them out")
    if not wanted or len(free) != len(wanted):
        raise InvalidInput(
            f"{len(wanted)} targets ({', '.join(wanted) or 'none'}) cannot determine {len(free)} unknowns "
            f"({', '.join(free)}); give as many of rotation, relaxation_steps, norm as are unknown, or fix lr"
        )

    start = spec(1e-3, 1e-3, **fixed)
    start = Cautious(start) if flag("cautious", cautious) else start
    optimizer = search(start, wanted, held, dim, gradient, rows=rows)
    return Plan(optimizer, equilibrium(optimizer, dim, gradient, rows=rows))


def search(
    start: Optimizer,
    wanted: Mapping[str, float],
    held: Mapping[str, float],
    dim: int = 1024,
    gradient: Gradient | None = None,
    measure: Callable[..., Any] = equilibrium,
    rows: int | None = None,
) -> Optimizer:
    """The setting of one optimizer at which what is measured has the wanted values.

    Parameters
    ----------
    start : Optimizer
        Any setting. Free are the rates that are not held, and momentum where rotation and a time are both wanted.
    wanted : mapping of str to float
        Attributes of what `measure` gives, each > 0; as many as are free.
    held : mapping of str to float
        ``lr`` or ``weight_decay``, > 0.
    dim, gradient, rows
        As in `rotsim.equilibrium`.
    measure : callable
        ``measure(optimizer, dim, gradient)``: `equilibrium`, or a function that knows more. It gets `rows` by name
        where they are given.

    Returns
    -------
    Optimizer

    Raises
    ------
    Unreachable
        If no setting has the wanted values.
    NoEquilibrium
        If what is held allows none at any rates.
    """
    dim, gradient, law = checked_law(dim, gradient)
    free = [name for name in ("lr", "weight_decay") if name not in held]
    free += ["momentum"] if trades_momentum(wanted) else []
    form = {} if rows is None else {"rows": rows}
    if wanted.get("rotation", 0.0) > np.pi:  # no search need show that
        raise _unreached(start, dim, wanted, held)

    def build(x: np.ndarray) -> Optimizer:
        solved = dict(zip(free, x, strict=True))
        rates: dict[str, float] = {
            name: float(np.exp(solved[name])) for name in ("lr", "weight_decay") if name in solved
        }
        optimizer = start.with_rates(**{**held, **rates})
        if "momentum" in solved:
            return optimizer.with_beta1(1 / (1 + float(np.exp(-solved["momentum"]))))
        return optimizer

    def miss(x: np.ndarray) -> np.ndarray:
        try:
            found = measure(build(x), dim, gradient, **form)
        except (InvalidInput, NoEquilibrium, OverflowError, FloatingPointError):
            return np.full(len(wanted), 1e2)  # outside the optimizer's range: far from everything
        return np.array([np.log(getattr(found, name) / value) for name, value in wanted.items()])

    guess = _start(start, dim, wanted, held, free)
    if not law.radial:  # whose strength some rates outweigh and others do not
        equilibrium(build(guess), dim, gradient, rows=rows)  # says so itself if what is held allows none
    solved = _root(miss, guess)
    if np.abs(miss(solved)).max() > _PRECISION:
        raise _unreached(start, dim, wanted, held)
    return build(solved)


def trades_momentum(wanted: Collection[str]) -> bool:
    """Whether momentum is solved for: rotation and a time are both wanted, which it alone sets apart."""
    return "rotation" in wanted and any(time in wanted for time in TIMES)


@within_floats
def transfer(
    optimizer: Optimizer,
    *,
    momentum: float | None = None,
    batch_factor: float = 1.0,
    steps_factor: float = 1.0,
    dim: int = 1024,
    gradient: Gradient | None = None,
    rows: int | None = None,
) -> Plan:
    """Change momentum, batch size or length of the training, and learn as much: the same angle turned, the same norm.

    To leading order the rates change as `derivations.planning` says, with f = batch_factor / steps_factor. For AdamW,
    Lion and Muon both change by √f (the square-root rule). For SGDM lr changes by batch_factor at the same weight decay
    (the linear rule).

    Parameters
    ----------
    optimizer : Optimizer
        The setting to start from, with ``weight_decay`` > 0. A hyperball has none: its rotation changes alone.
    momentum : float, optional
        New momentum (β1) in [0, 1); rotation per step and norm are kept.
    batch_factor : float
        New batch size over old, from 1e-30 to 1e30, on the same samples: an epoch has 1/batch_factor times as many
        steps. The squared angle turned per epoch is kept, so rotation per step grows by the square root of the factor.
        The gradient is taken as noise, whose scale falls by that root.
    steps_factor : float
        New length of the training over old, from 1e-30 to 1e30, in samples: with `batch_factor` 1 in steps. The
        squared angle turned in the whole training is kept, so that rotation per step falls by the square root of it.
    dim : int
        Fan-in C, as in `rotsim.equilibrium`.
    gradient : Gradient
        At the old batch size, as in `rotsim.equilibrium`.
    rows : int, optional
        As in `rotsim.equilibrium`.

    Returns
    -------
    Plan
        Its equilibrium is that under the gradient of the new batch.

    Raises
    ------
    InvalidInput
        If a value is out of range, no rates reach the wanted rotation, or the optimizer is a rotational variant.
    NoEquilibrium
        If ``weight_decay`` is 0.

    Examples
    --------
    >>> import rotsim
    >>> larger = rotsim.transfer(rotsim.AdamW(lr=1e-3, weight_decay=0.1), batch_factor=4).optimizer
    >>> f"{larger.lr:.4g} {larger.weight_decay:.4g}"
    '0.002003 0.1997'
    """
    batch, length = positive("batch_factor", batch_factor), positive("steps_factor", steps_factor)
    now = equilibrium(optimizer, dim, gradient, rows=rows)
    changed = optimizer if momentum is None else optimizer.with_beta1(share("momentum", momentum))
    rotation = float(closed_forms.transferred_rotation(now.rotation, batch, length))
    noise = (ScaleInvariant() if gradient is None else gradient).averaged(batch)
    if isinstance(changed, Hyperball):
        _, _, law = checked_law(dim, noise)
        new: Optimizer = hyperball_turning(changed.inner, rotation, dim, law, rows)
        then = equilibrium(new, dim, noise, rows=rows)
        if abs(then.rotation / rotation - 1) > _PRECISION:
            raise _unreached(new, dim, {"rotation": rotation}, {})
        return Plan(new, then)
    plain_class((changed if is_a(changed, Rotational) else changed.plain).name)
    new = search(changed, {"rotation": rotation, "norm": now.norm}, {}, dim, noise, rows=rows)
    return Plan(new, equilibrium(new, dim, noise, rows=rows))


def plain_class(family: str) -> type[Optimizer]:
    """The spec class of a registered optimizer that has a norm of its own; `InvalidInput` for a rotational variant."""
    held = {
        Rotational.name: "a rotational variant keeps any norm and turns as its inner optimizer does",
        Hyperball.name: "a hyperball keeps any norm and turns by nearly its lr; rotsim.convert makes one",
    }
    if is_a(family, str) and family in held:
        raise InvalidInput(
            f"`family` must be adamw, adam_l2, sgdm, lion or muon; {held[family]}. Plan or transfer that one"
        )
    return optimizer_class(family)


def _start(
    optimizer: Optimizer, dim: int, wanted: Mapping[str, float], held: Mapping[str, float], free: list[str]
) -> np.ndarray:
    """A first guess: AdamW's rates at leading order, for the wanted rotation or time scale and the wanted norm.

    `optimizer` has the momentum that is held, or the default.
    """
    beta1 = optimizer.beta1
    rotation = wanted.get("rotation")
    if rotation is None:  # of the wanted time scale
        time = next((wanted[name] * factor for name, factor in TIMES.items() if name in wanted), 500.0)
        rotation = float(closed_forms.adamw_leading_rotation(0.5 / time, 1.0, beta1))
    shape = (beta1, dim, wanted.get("norm", 1.0) ** 2, rotation)
    lr, decay = closed_forms.adamw_planned_lr(*shape), closed_forms.adamw_planned_weight_decay(*shape)
    product = min(lr * decay, 0.3)
    lr = held.get("lr", product / held["weight_decay"] if "weight_decay" in held else lr)
    guess = {"lr": np.log(lr), "weight_decay": np.log(product / lr), "momentum": np.log(9)}  # β1 = 0.9
    return np.array([guess[name] for name in free])


def _root(miss: Callable[[np.ndarray], np.ndarray], start: np.ndarray) -> np.ndarray:
    """Where `miss` is 0, by Broyden's method: it is nearly straight, and `start` nearly right.

    Where that does not converge, by Powell's hybrid method, which takes longer to import than most plans to make.
    """
    here, missed = start, miss(start)
    slope = np.stack([(miss(here + step) - missed) / _STEP for step in _STEP * np.eye(len(here))], axis=1)
    for _ in range(_MOST_STEPS):
        if np.abs(missed).max() < _ROUNDING:
            return here
        try:
            step = np.linalg.solve(slope, -missed)
        except np.linalg.LinAlgError:
            break
        there = miss(here + step)
        if not np.abs(there).max() < np.abs(missed).max():
            break
        slope += np.outer(there, step) / (step @ step)
        here, missed = here + step, there
    if np.abs(missed).max() < _PRECISION:
        return here
    from scipy.optimize import root

    found: np.ndarray = root(miss, start, method="hybr", tol=_ROUNDING).x
    return found


class Unreachable(InvalidInput):
    """No setting of the optimizer has the wanted equilibrium."""


def _unreached(spec: Optimizer, dim: int, wanted: Mapping[str, float], held: Mapping[str, float]) -> Unreachable:
    aims = ", ".join(f"{name}={value:g}" for name, value in {**wanted, **held}.items())
    return Unreachable(f"no {spec.label} reaches {aims} at dim={dim}. {_why(spec, wanted)}")


def _why(spec: Optimizer, wanted: Mapping[str, float]) -> str:
    lag = "Adam's second moment adds up to 2/(1-β2) steps to relaxation; " if spec.shape == "inverse root" else ""
    if trades_momentum(wanted):
        return (
            "Momentum trades the two: rotation² times the time lies between 0 and a bound. "
            f"{lag or 'A'}{'a' if lag else ''}sk for a slower rotation{', or set a smaller β2 in betas' if lag else ''}"
        )
    if "relaxation_steps" in wanted:
        return f"{lag}ask for a longer relaxation{', or set a smaller β2 in betas' if lag else ''}"
    return "Ask for a smaller rotation"
