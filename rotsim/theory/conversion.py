"""`convert`: one optimizer's learning rate and decay as those of another, and what that keeps.

Two rates can keep two things. lr·weight_decay sets rotation and memory together, lr/weight_decay the norm. Momentum
alone sets rotation and memory apart. So rotation and time can both be kept where the momentum may change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import isnan, log, sin, sqrt
from typing import Any

from rotsim.errors import InvalidInput, NoEquilibrium, choice, integer, is_a, names, positive, require
from rotsim.gradients import Gradient
from rotsim.optimizers import Hyperball, Rotational, checked_optimizer
from rotsim.optimizers.base import Optimizer
from rotsim.theory.base import required_theory
from rotsim.theory.boundary import within_floats
from rotsim.theory.equilibrium import checked_law, equilibrium
from rotsim.theory.hyperball import hyperball_turning, relative_lr, turning_as
from rotsim.theory.planning import TIMES, Unreachable, plain_class, search, trades_momentum
from rotsim.theory.steady import SteadyState

#: What a step takes of the weights, at the learning rate η of the step and the largest one, η_max.
CONVENTIONS: dict[str, str] = {
    "decoupled": "η λ",
    "independent": "λ",
    "corrected": "η λ η/η_max",
    "relative": "λ η/η_max",
    "l2": "λ w is added to the gradient",
}
KEPT = ("rotation", "time", "norm", "rms", "lr", "weight_decay")
_RATES = ("lr", "weight_decay")
_MOMENTA = (0.0, 0.9, 0.99, 0.999)  # tried where no momentum keeps both rotation and time


@dataclass(frozen=True)
class Pace:
    """A setting at rest, in the numbers by which people compare optimizers.

    Attributes
    ----------
    rotation : float
        RMS angle per step, radians.
    update_ratio : float
        RMS of an update over that of the weights, decay included.
    norm : float
        RMS norm of a neuron.
    rms : float
        The same per entry: norm / √dim.
    half_life : float
        Steps in which decay alone halves the weights: ln 2 times `ema_steps`.
    ema_steps : float
        Steps of the moving average of updates that the weights are: 1/(lr·weight_decay) where decay is decoupled.
    relaxation_steps : float
        Steps in which a small deviation of ‖w‖² shrinks by a factor e.
    gradient_norm : float
        RMS norm of the gradient, which the norm sets behind a normalisation layer.
    relative_lr : float
        Learning rate of the optimizer's hyperball that turns as much: `rotsim.Hyperball`.
    model_error : float
        Declared relative error of the formulas.
    """

    rotation: float
    update_ratio: float
    norm: float
    rms: float
    half_life: float
    ema_steps: float
    relaxation_steps: float
    gradient_norm: float
    relative_lr: float
    model_error: float

    def to_dict(self) -> dict[str, float]:
        """Plain numbers, JSON-serialisable."""
        return asdict(self)


@dataclass(frozen=True)
class Conversion:
    """A setting and its counterpart.

    Attributes
    ----------
    source, target : Optimizer
        Weight decay as PyTorch has it.
    kept : tuple of str
        What both share.
    before, after : Pace
        Of `source` and `target`.
    peak : float
        Largest learning rate of the schedule over that of a setting, >= 1.
    """

    source: Optimizer
    target: Optimizer
    kept: tuple[str, ...]
    before: Pace
    after: Pace
    peak: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, JSON-serialisable; decays in every convention that they can be written in."""
        return {
            "source": {**self.source.to_dict(), "decays": decays(self.source, self.peak)},
            "target": {**self.target.to_dict(), "decays": decays(self.target, self.peak)},
            "kept": list(self.kept),
            "before": self.before.to_dict(),
            "after": self.after.to_dict(),
        }


@within_floats
def convert(
    optimizer: Optimizer,
    to: str,
    *,
    keep: Sequence[str] | None = None,
    convention: str | None = None,
    max_lr: float | None = None,
    dim: int = 1024,
    to_dim: int | None = None,
    gradient: Gradient | None = None,
    rows: int | None = None,
    **fixed: Any,
) -> Conversion:
    """Find the rates of another optimizer that turn as this one does, or remember as long.

    Parameters
    ----------
    optimizer : Optimizer
        The setting to start from, with ``weight_decay`` > 0.
    to : str
        The other optimizer, a name in `rotsim.OPTIMIZERS`; also the same one, with other hyperparameters. "hyperball"
        is the hyperball of this one, which has ``lr`` alone.
    keep : sequence of str, optional
        As many of "rotation", "time" (`Pace.ema_steps`), "norm", "rms", "lr" and "weight_decay" as rates are free.
        Rotation and norm if nothing is said, rotation alone where one rate is in `fixed`, nothing where both are. With
        rotation and time, momentum is solved for as well, and the norm is kept if nothing else is. A hyperball has no
        norm of its own to keep.
    convention : {"decoupled", "independent", "corrected", "relative", "l2"}, optional
        What the optimizer's ``weight_decay`` means: see `CONVENTIONS`. PyTorch's own if nothing is said.
    max_lr : float, optional
        Largest learning rate of the schedule, > 0, for "corrected" and "relative". The optimizer's if nothing is said.
    dim, to_dim : int
        Fan-in C of both, as in `rotsim.equilibrium`; alike if `to_dim` is None.
    gradient : Gradient
        As in `rotsim.equilibrium`.
    rows : int, optional
        Neurons of the layer, >= 2, for Muon, whichever of both it is; a square layer if nothing is said.
    **fixed
        Hyperparameters of the other optimizer, its defaults if nothing is said. A new setting of the same optimizer has
        those of the old one.

    Returns
    -------
    Conversion

    Raises
    ------
    InvalidInput
        If a value is out of range, or no setting keeps all: then it says which comes nearest.
    NoEquilibrium
        If ``weight_decay`` is 0.

    Examples
    --------
    >>> import rotsim
    >>> lion = rotsim.convert(rotsim.AdamW(lr=3e-4, weight_decay=0.1), "lion").target
    >>> f"{lion.lr:.3g} {lion.weight_decay:.3g}"
    '6.88e-05 1.05'
    """
    source = as_torch(checked_optimizer(optimizer), convention, max_lr)
    plain_class((source if is_a(source, Rotational) else source.plain).name)
    ball = is_a(to, str) and to == Hyperball.name
    spec = type(source.plain) if ball else plain_class(to)
    rates = _RATES[:1] if ball else _RATES
    known = [field.name for field in fields(spec) if not (ball and field.name == "weight_decay")]
    if unknown := [name for name in fixed if name not in known]:
        raise InvalidInput(f"{spec.label} has no hyperparameter {unknown[0]!r}; it has {', '.join(known)}")
    dim = integer("dim", dim, low=2)
    to_dim = dim if to_dim is None else integer("to_dim", to_dim, low=2)
    before = pace(source, dim, gradient, rows if source.acts_on == "matrix" or spec.acts_on != "matrix" else None)
    to_rows = rows if spec.acts_on == "matrix" else None
    held = {name: positive(name, fixed[name]) for name in _RATES if name in fixed}
    kept = _checked_keep(keep, held, rates)
    if "norm" in kept or "rms" in kept:
        way_out = "`keep` something else, or give lr or weight_decay of the other optimizer"
        require(not (ball or isnan(before.norm)), "keep", "have no norm where a hyperball keeps any", kept, way_out)
    held |= {name: getattr(source, name) for name in _RATES if name in kept}
    rest = {name: value for name, value in fixed.items() if name not in _RATES}
    if spec is type(source.plain):
        rest = {name: getattr(source.plain, name) for name in known if name not in _RATES} | rest
    peak = 1.0 if max_lr is None else max_lr / source.lr
    if ball:
        held_norm = _hyperball(spec, before, kept, held, rest, dim, gradient, to_rows)
        return Conversion(source, held_norm, kept, before, pace(held_norm, to_dim, gradient, to_rows), peak)
    wanted = {"ema_steps" if name == "time" else name: 0.0 for name in kept if name not in _RATES}
    wanted = {name: getattr(before, name) for name in wanted}
    if "rms" in wanted:
        wanted["norm"] = wanted.pop("rms") * sqrt(to_dim)
    try:
        target = (
            search(spec(1e-3, 1e-3, **rest), wanted, held, to_dim, gradient, pace, to_rows)
            if wanted
            else spec(**held, **rest)
        )
    except Unreachable as error:
        raise InvalidInput(f"{error}. {_nearest(spec, before, rest, wanted, to_dim, gradient, to_rows)}") from None
    return Conversion(source, target, kept, before, pace(target, to_dim, gradient, to_rows), peak)


def _hyperball(
    spec: type[Optimizer],
    before: Pace,
    kept: tuple[str, ...],
    held: dict[str, float],
    rest: dict[str, Any],
    dim: int,
    gradient: Gradient | None,
    rows: int | None,
) -> Hyperball:
    """The hyperball of an optimizer of this class that turns as far, or forgets as fast."""
    start = spec(1.0, 0.0, **rest)
    dim, _, law = checked_law(dim, gradient)
    if "rotation" in kept:
        return hyperball_turning(start, before.rotation, dim, law, rows)
    updates = required_theory(start, rows, dim).updates(dim, law, 1.0)
    lr = held["lr"] if "lr" in held else relative_lr(1 / before.ema_steps, updates)
    return Hyperball(start.with_rates(lr, 0.0))


def pace(optimizer: Optimizer, dim: int = 1024, gradient: Gradient | None = None, rows: int | None = None) -> Pace:
    """`Pace` of one setting, from `rotsim.equilibrium`.

    Parameters
    ----------
    optimizer : Optimizer
        With ``weight_decay`` > 0.
    dim : int
        Fan-in C >= 2.
    gradient : Gradient, optional
        Scale-invariant if nothing is said.
    rows : int, optional
        As in `rotsim.equilibrium`.

    Returns
    -------
    Pace

    Notes
    -----
    What a hyperball's learning rate stands for: `derivations.hyperball`.
    """
    found = equilibrium(optimizer, dim, gradient, rows=rows)
    dim, _, law = checked_law(dim, gradient)
    held = isnan(found.norm)
    square = 1.0 if held else found.norm**2
    decay = float(required_theory(optimizer, rows, dim).decay_of(dim, law, SteadyState(square, 0.0)))
    updates = required_theory(optimizer.plain, rows, dim).updates(dim, law, square)
    return Pace(
        rotation=found.rotation,
        update_ratio=2 * sin(found.rotation / 2) if held else found.update_rms / found.norm,
        norm=found.norm,
        rms=found.norm / sqrt(dim),
        half_life=log(2) / decay,
        ema_steps=1 / decay,
        relaxation_steps=found.relaxation_steps,
        gradient_norm=sqrt(law.scale_squared * found.norm ** (2 * law.homogeneity)),
        relative_lr=turning_as(found.rotation, updates),
        model_error=found.model_error,
    )


def as_torch(optimizer: Optimizer, convention: str | None = None, max_lr: float | None = None) -> Optimizer:
    """The same optimizer, its weight decay read by a convention and written as PyTorch has it.

    Parameters
    ----------
    optimizer : Optimizer
    convention : str, optional
        A key of `CONVENTIONS`, at the learning rate of the optimizer.
    max_lr : float, optional
        η_max > 0; the optimizer's own if nothing is said.

    Returns
    -------
    Optimizer

    Raises
    ------
    InvalidInput
        If the optimizer's decay is of another kind, or a value out of range.
    """
    largest = optimizer.lr if max_lr is None else positive("max_lr", max_lr)
    require(largest >= optimizer.lr, "max_lr", f"be at least lr = {optimizer.lr:g}", largest)
    if convention is None:
        return optimizer
    convention = choice("convention", convention, list(CONVENTIONS))
    coupled = optimizer.decay == "coupled"
    if coupled != (convention == "l2"):
        other = (
            "l2, as its decay passes through the gradient" if coupled else "any but l2, which is SGDM's and Adam+L2's"
        )
        raise InvalidInput(f"`convention` of {optimizer.label} must be {other}; got {convention!r}")
    return optimizer.with_rates(
        optimizer.lr, optimizer.weight_decay * _per_decoupled(convention, optimizer.lr, largest)
    )


def decays(optimizer: Optimizer, peak: float = 1.0) -> dict[str, float]:
    """The weight decay of a setting in every convention that its kind of decay can be written in.

    Parameters
    ----------
    optimizer : Optimizer
        As PyTorch has it.
    peak : float
        η_max over the optimizer's learning rate, >= 1.

    Returns
    -------
    dict
        By names in `CONVENTIONS`.
    """
    if optimizer.decay == "none":
        return {}
    if optimizer.decay == "coupled":
        return {"l2": optimizer.weight_decay}
    largest = optimizer.lr * peak
    return {
        name: optimizer.weight_decay / _per_decoupled(name, optimizer.lr, largest)
        for name in CONVENTIONS
        if name != "l2"
    }


def _per_decoupled(convention: str, lr: float, max_lr: float) -> float:
    """PyTorch's decay over that of a convention."""
    return {"independent": 1 / lr, "corrected": lr / max_lr, "relative": 1 / max_lr}.get(convention, 1.0)


def _checked_keep(keep: Sequence[str] | None, held: dict[str, float], rates: tuple[str, ...]) -> tuple[str, ...]:
    """What is kept, as many things as are free."""
    free = [name for name in rates if name not in held]
    if keep is None:
        return ("rotation", "norm")[: len(free)]
    kept = names("keep", keep, KEPT)
    if twice := [name for name in kept if name in held]:
        raise InvalidInput(f"`keep` and a given value both set {twice[0]}; leave one of them out")
    if "norm" in kept and "rms" in kept:
        raise InvalidInput("`keep` must have norm or rms, not both; got norm, rms")
    if {"rotation", "time"} <= {*kept} and rates == _RATES:
        free.append("momentum")
        if len(kept) < len(free) and not {"norm", "rms"} & {*kept}:
            kept = (*kept, "norm")
    if len(kept) != len(free):
        raise InvalidInput(
            f"`keep` must name as many things as are free ({', '.join(free) or 'none'}); "
            f"got {', '.join(kept) or 'none'}. Rotation and time together ask for a momentum, too"
        )
    return kept


def _nearest(
    spec: type[Optimizer],
    before: Pace,
    rest: dict[str, Any],
    wanted: dict[str, float],
    dim: int,
    gradient: Gradient | None,
    rows: int | None,
) -> str:
    """What comes nearest to rotation and time: rotation and norm, at the best of some momenta."""
    if not trades_momentum(wanted) or "norm" not in wanted:
        return "Keep something else, or fewer things"
    [time] = (name for name in TIMES if name in wanted)
    aims = {name: wanted[name] for name in ("rotation", "norm")}
    found = []
    for momentum in _MOMENTA:
        start = spec(1e-3, 1e-3, **rest).with_beta1(momentum)
        try:
            setting = search(start, aims, {}, dim, gradient, pace, rows)
        except (InvalidInput, NoEquilibrium):
            continue
        ratio = getattr(pace(setting, dim, gradient, rows), time) / wanted[time]
        found.append((abs(log(ratio)), ratio, setting))
    if not found:
        return "No momentum comes near it"
    _, ratio, setting = min(found, key=lambda one: one[0])
    rounded = replace(setting, lr=float(f"{setting.lr:.4g}"), weight_decay=float(f"{setting.weight_decay:.4g}"))
    return f"Nearest at this rotation and norm is {rounded.describe()}, whose time is {ratio:.3g} times as long"
