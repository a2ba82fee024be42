"""Expected norm and rotation in time: `predict`, `settling` and `rotation_over`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import asin, sqrt
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim import closed_forms, dataset
from rotsim.angle import spread_out
from rotsim.errors import InvalidInput, NoEquilibrium, array, instance, integer, positive, require
from rotsim.gradients import Gradient, GradientPower, ScaleInvariant
from rotsim.optimizers.base import Optimizer
from rotsim.schedules import digests, pair
from rotsim.theory.base import Course, Theory, required_theory
from rotsim.theory.boundary import within_floats
from rotsim.theory.equilibrium import equilibrium

if TYPE_CHECKING:
    import xarray as xr

ScheduleLike = np.ndarray | Callable[[np.ndarray], np.ndarray] | None

MAX_STEPS = 3_000_000  # of a course: 0.3 GB with its schedules
_SETTLING = 100  # points at which `settling` computes equilibria


@within_floats
def predict(
    optimizer: Optimizer,
    dim: int = 1024,
    gradient: Gradient | None = None,
    steps: int = 20_000,
    initial_norm: float = 1.0,
    lr_schedule: ScheduleLike = None,
    wd_schedule: ScheduleLike | str = None,
    record_every: int = 100,
    rows: int | None = None,
) -> xr.Dataset:
    """Expected norm, rotation and update size at every step, for any schedule and initial norm.

    Parameters
    ----------
    optimizer : Optimizer
        AdamW, AdamL2, SGDM, Lion, Muon or their kin, whose ``weight_decay`` may be 0; or Cautious, Hyperball or
        Rotational.
    dim : int
        Fan-in C > 2 of the neuron.
    gradient : Gradient
        ScaleInvariant (default) or Isotropic. Where decay is in the gradient, under SGDM and Adam+L2, also Radial: its
        pull is decay, which no schedule changes.
    steps : int
        Optimizer steps, >= 1 and <= 3 000 000, from a fresh optimizer state.
    initial_norm : float
        ‖w_0‖ from 1e-30 to 1e30.
    lr_schedule, wd_schedule : array_like of shape (steps,) or callable, optional
        Factors on ``lr`` and ``weight_decay`` at each step, as in `rotsim.simulate`; see
        `rotsim.theory.schedules`. `wd_schedule` may be "decoupled", "corrected" or "independent" as well.
    record_every : int
        Steps per record window, >= 1; the last window may be shorter.
    rows : int, optional
        For Muon: how many neurons make one matrix, >= 2; default as many as `dim`.

    Returns
    -------
    Dataset
        ``norm``, ``rotation`` (radians) and ``update_rms`` with dims (neuron, step): one neuron,
        the expectation; RMS over the same windows as `rotsim.simulate` records. ``norm_model_error``
        and so on are the declared relative errors of each window, at least 1/dim.

    Raises
    ------
    InvalidInput
        If an argument is out of range, or the gradient follows no law.

    Notes
    -----
    The maps of one step are derived in `derivations.transient`, `derivations.damped` and `derivations.rotational`.

    SGDM, AdamW and Lion are exact but for differences between neurons of one dim, of relative size 1/dim in
    everything recorded. Where theory ends, each time declared from the state at the step:

    * SGDM behind a normalisation from weights that are far too short: the first gradients make nearly all of the new
      weights, and differ by √(2/dim) in their squares. Neurons with shorter weights turn by more, and the mean squared
      angle grows by 6/dim. So rotation is off by 3/dim, norm and update by less.
    * AdamW and Adam+L2 with β1 > √β2 from weights that are far too short: v forgets the first large gradients, m
      does not, and the norm runs away until it does. Neurons then differ by more and more, and their mean is not
      the course of a mean neuron: at dim 16, from 0.01 times the equilibrium norm, 1.8 times as much after 60
      steps.
    * Adam+L2 whose decay fills v (weights far too long, or lr·weight_decay/√v above 0.1): the update is then like
      the sign of a weight, and the shape of the distribution of weights matters. While weights cross zero one after
      the other, those that were largest at the start are what is left of the norm. Neurons then differ in it, by more
      than 1/dim. Rotation was 19 % off after a runaway. At rest, at lr·weight_decay/√v of
      0.1, it is 0.4 % off with betas (0.98, 0.5), 0.03 % with (0.98, 0.9), less elsewhere. Above 0.3 with momentum
      and β2 of 0.5, predictions are wrong and what is declared is an order of magnitude.
    * Adam+L2 whose decay fills v, beside an ``eps`` of a hundredth of √v or more: declared is up to all that it takes.

    60 random settings of each optimizer draw rates, betas, noise, schedule, and a start at 0.01 to 100 times the
    equilibrium norm. tests/test_prediction_battery.py has more of them. No window of 12 was beyond its Bonferroni
    bound and the declared error. Share of windows further than 3 standard errors from the prediction, and than those
    plus the declared error; then the median of that error:

    ==========  =====  ======  =====
    AdamW       1.2 %  0 %     0.4 %
    Adam+L2     4.2 %  0.05 %  0.4 %
    SGDM        0.3 %  0 %     0.4 %
    Lion        6.6 %  0 %     0.4 %
    Rotational  1.6 %  0 %     0.4 %
    ==========  =====  ======  =====

    Examples
    --------
    >>> import rotsim
    >>> from rotsim.theory.schedules import cosine
    >>> opt = rotsim.AdamW(lr=1e-2, weight_decay=0.1)
    >>> ds = rotsim.predict(opt, dim=256, steps=4000, initial_norm=0.5, lr_schedule=cosine(4000))
    >>> ds.sizes["step"]
    40
    """
    gradient = ScaleInvariant() if gradient is None else gradient
    theory, dim, _ = _checked(optimizer, dim, gradient, rows, pulled=True)
    steps, window = _countable("steps", integer("steps", steps, low=1)), integer("record_every", record_every, low=1)
    start = positive("initial_norm", initial_norm)
    number = np.arange(1, steps + 1)
    schedules = pair(lr_schedule, wd_schedule, steps)
    lr, wd = (schedule(number) for schedule in schedules)
    course = follow(optimizer, dim, gradient, start, optimizer.lr * lr, optimizer.weight_decay * wd, window, rows)
    last, rms, error, errors = course
    result = dataset.build(
        "prediction",
        step=last,
        variables={name: rms[None, :, column] for column, name in enumerate(dataset.QUANTITIES)},
        optimizer=optimizer,
        fan_in=dim,
        spec={
            "dim": dim,
            **({"rows": theory.rows} if theory.rows else {}),
            "steps": steps,
            "gradient": gradient.to_dict(),
            "record_every": window,
            **digests(schedules, steps),
            "initial": dataset.initial_description(start, None),
            "model_error": error,
        },
    )
    for name, each in zip(dataset.QUANTITIES, errors.T, strict=True):
        result[f"{name}_model_error"] = (("neuron", "step"), each[None])
    return result


@within_floats
def follow(
    optimizer: Optimizer,
    dim: int,
    gradient: Gradient,
    start: float,
    lr: np.ndarray,
    weight_decay: np.ndarray,
    window: int,
    rows: int | None = None,
) -> tuple[np.ndarray, np.ndarray, float, np.ndarray]:
    """`predict` as plain arrays.

    Parameters
    ----------
    optimizer : Optimizer
    dim : int
        Fan-in C > 2.
    gradient : Gradient
        As in `predict`.
    start : float
        ‖w_0‖ > 0.
    lr, weight_decay : ndarray, shape (steps,)
        At each step, >= 0.
    window : int
        Steps per record window, >= 1.
    rows : int, optional
        As in `predict`.

    Returns
    -------
    last : ndarray of int, shape (windows,)
        Last step of each window.
    rms : ndarray, shape (windows, 3)
        In the order of `rotsim.dataset.QUANTITIES`.
    error : float
        What is declared of all.
    errors : ndarray, shape (windows, 3)
        What is declared of each.

    Notes
    -----
    As of `predict`: `derivations.transient`, `derivations.damped` and `derivations.rotational`. That a pull is decay:
    `derivations.radial`.
    """
    theory, dim, law = _checked(optimizer, dim, gradient, rows, pulled=True)
    pull = gradient.power(dim).radial
    least = float(weight_decay.min())
    require(pull + least >= 0, "strength", f"not push outwards by more than the least weight decay, {least:g}", pull)
    weight_decay = weight_decay + pull
    _check_stable(optimizer, lr * weight_decay)
    steps = len(lr)
    records = np.zeros((-(-steps // window), 6))
    error = theory.advance(dim, law, Course(start**2, lr, weight_decay, window, records)) + 1 / dim
    last = np.minimum(np.arange(1, len(records) + 1) * window, steps)
    mean = records / np.diff(last, prepend=0)[:, None]
    rms = np.sqrt(mean[:, :3])
    if not np.isfinite(mean).all() or not (rms[:, 0] > 0).all():
        raise FloatingPointError  # which `within_floats` puts into words
    if optimizer.decay != "none":  # else it turns by an angle, whatever the norm does
        young = _young(theory, dim, law, start, lr, weight_decay, rms[:, 0], last)
        rms[:, 1] = spread_out(rms[:, 1], gradient.angle_spread(dim) * young)
    return last, rms, error, error + mean[:, 3:]


@within_floats
def settling(
    optimizer: Optimizer,
    dim: int,
    gradient: Gradient,
    step: np.ndarray,
    lr_schedule: ScheduleLike = None,
    wd_schedule: ScheduleLike | str = None,
    rows: int | None = None,
) -> xr.Dataset:
    """The equilibrium of the rates in force at each step: where norm and rotation are heading.

    Parameters
    ----------
    step : ndarray of int, shape (points,)
        Step numbers >= 1 and <= 3 000 000, rising. The equilibrium is computed at up to 100 of them and interpolated
        between.

    Other parameters as in `predict`.

    Returns
    -------
    Dataset
        ``norm`` and ``rotation`` (radians), and the rates ``lr`` and ``weight_decay``, dim step; NaN where a
        rate is 0.

    Raises
    ------
    InvalidInput
        If a schedule or another argument is out of range.

    Notes
    -----
    `rotsim.equilibrium` at each rate; of a schedule slow against relaxation the course of `derivations.transient`
    follows it.
    """
    import xarray as xr

    rule = "be rising whole numbers >= 1, shape (points,)"
    given = array("step", step, rule)
    rising = given.ndim == 1 and given.size > 0 and given[0] >= 1 and bool((np.diff(given) > 0).all())
    require(rising and bool((given % 1 == 0).all()), "step", rule, step)
    number = np.arange(1, _countable("step[-1]", int(given[-1])) + 1)
    step = given.astype(np.int64)
    factors = [schedule(number)[step - 1] for schedule in pair(lr_schedule, wd_schedule, len(number))]
    lr, wd = optimizer.lr * factors[0], optimizer.weight_decay * factors[1]
    chosen = np.unique(np.linspace(0, len(step) - 1, _SETTLING).round().astype(int))
    found = np.full((2, len(chosen)), np.nan)
    known: dict[tuple[float, float], tuple[float, float]] = {}  # of a constant rate only one is computed
    for column, rates in enumerate(zip(lr[chosen].tolist(), wd[chosen].tolist(), strict=True)):
        if rates[0] > 0 and (rates[1] > 0 or not optimizer.needs_decay):
            if rates not in known:
                state = equilibrium(optimizer.with_rates(*rates), dim, gradient, rows=rows)
                known[rates] = state.norm, state.rotation
            found[:, column] = known[rates]
    norm, rotation = (np.interp(step, step[chosen], row) for row in found)
    columns = {"norm": norm, "rotation": rotation, "lr": lr, "weight_decay": wd}
    return xr.Dataset({name: ("step", column) for name, column in columns.items()}, coords={"step": step})


@within_floats
def rotation_over(
    optimizer: Optimizer, dim: int, lag: int, gradient: Gradient | None = None, rows: int | None = None
) -> float:
    """Angle in radians between weights `lag` steps apart in equilibrium, from their autocorrelation.

    It grows as the square root of the lag once momentum is forgotten, and saturates at π/2 when
    the weights are.

    Parameters
    ----------
    optimizer : Optimizer
        AdamW, AdamL2, SGDM, Lion, Muon or their kin, with ``weight_decay`` > 0; or Rotational, Hyperball, Cautious.
    dim : int
        Fan-in C > 2.
    lag : int
        >= 0; the steps of one epoch give the rotation over an epoch.
    gradient : Gradient
        ScaleInvariant (default) or Isotropic.
    rows : int, optional
        For Muon, as in `predict`.

    Returns
    -------
    float
        arccos of the correlation, without cancellation; relative error of order 1/dim. For AdamL2 the correlation
        is that of its Markov chain, where that has a solution; else v is taken constant.

    Raises
    ------
    InvalidInput, NoEquilibrium
        If an argument is out of range, or ``weight_decay`` is 0.

    Notes
    -----
    `derivations.transient.over_many_steps`; for SGDM `coupled_over_many_steps`, for AdamL2
    `derivations.adam_l2_chain.dimensionless_chain`, for Rotational `derivations.rotational.mode_overlap`.
    """
    gradient = ScaleInvariant() if gradient is None else gradient
    theory, dim, law = _checked(optimizer, dim, gradient, rows)
    lag = integer("lag", lag, low=0)
    if not optimizer.settles:
        raise NoEquilibrium("`weight_decay` must be > 0 for an equilibrium to exist; got 0.0")
    fallen = theory.fallen(dim, law, lag)
    if lag == 0:
        return 0.0
    if not fallen > 0:
        raise FloatingPointError  # which `within_floats` puts into words
    return 2 * asin(min(1.0, sqrt(fallen / 2)))


def _young(
    theory: Theory[Any], dim: int, law: GradientPower, start: float, lr: np.ndarray, weight_decay: np.ndarray,
    norm: np.ndarray, last: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """How much less than in equilibrium ‖w‖ spreads the angle while part of it is the given start.

    derivations.finite_dim.young_spread, with the share of the start in E‖w‖². Only isotropic noise has this spread.
    Where decay depends on more than rates and norm, as under cautious decay, the share is taken as 0.
    """
    first = np.append(0, last[:-1])
    lasting = theory.decay_in_time(dim, law, lr, weight_decay, np.repeat(norm, last - first))
    if law.homogeneity or lasting is None:
        return np.ones(len(norm))
    left = np.exp(2 * np.cumsum(np.log1p(-np.minimum(lasting, 1 - 1e-12))))
    share = start**2 * np.add.reduceat(left, first) / (last - first) / norm**2
    return np.asarray(closed_forms.young_angle_spread(dim, np.minimum(1, share)))


def _checked(
    optimizer: Optimizer, dim: int, gradient: Gradient, rows: int | None = None, pulled: bool = False
) -> tuple[Theory[Any], int, GradientPower]:
    """Validate what all functions here share; the theory, the dimension and the law of the gradient.

    With `pulled`, a radial part is left out of the law where it is decay: where decay is in the gradient.
    """
    required_theory(optimizer)
    instance("gradient", gradient, Gradient, "a spec such as rotsim.ScaleInvariant()")
    dim = integer("dim", dim, low=3)
    law = gradient.power(dim)
    if pulled and optimizer.decay == "coupled":
        law = replace(law, radial=0.0)
    if not law.white:
        raise InvalidInput(
            "`gradient` must be Isotropic or ScaleInvariant to be predicted in time; "
            f"got {type(gradient).__name__}, for which rotsim.equilibrium gives the state it settles in"
        )
    theory = required_theory(optimizer, rows, dim)
    theory.check_size(dim)
    return theory, dim, law


def _countable(name: str, steps: int) -> int:
    """Refuse a course that takes all memory; the clock stops one that takes too long."""
    way_out = "`steps_to_equilibrium` and `equilibrium` say when and where a longer course ends"
    require(steps <= MAX_STEPS, name, f"be at most {MAX_STEPS}", steps, way_out)
    return steps


def _check_stable(optimizer: Optimizer, decay: np.ndarray) -> None:
    """Schedules may push lr·wd past where the optimizer's spec would refuse it."""
    limit = optimizer.plain.decay_limit
    largest = float(decay.max())
    require(
        largest < limit,
        "lr_schedule",
        f"keep lr * weight_decay < {limit:g} at every step",
        largest,
        "Lower its largest factor",
    )
