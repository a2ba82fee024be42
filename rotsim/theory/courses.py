"""The course of one recorded layer: norm and rotation of each neuron, window by window, from its rates and its start.

`rotsim.predict` follows white noise of one size under a schedule. Real gradients change their size while a network
learns, and are more than white noise. Each of these is another schedule of the same walk:

* Gradients s times as large. Where decay passes through the average, as in SGDM and Adam+L2, it is weight_decay/s.
  Where the step is not normalised, as in SGDM, the step is s times as long.
* An average over the root of a second moment that lags behind a falling gradient: shorter steps. What v holds are
  sizes over norms, both as they were then.
* A steady norm that is R times as long at the same pace, from what the gradients are like: lr·f and weight_decay/f.
  That is the same lr·weight_decay. With ‖w‖ ∝ (lr/weight_decay)^p it needs f = R^(1/2p).
* A radial part of the gradient: weight_decay·(1 + P/λ).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from rotsim.errors import InvalidInput
from rotsim.gradients import ScaleInvariant
from rotsim.optimizers.base import Optimizer
from rotsim.theory.base import theory_of
from rotsim.theory.equilibrium import equilibrium
from rotsim.theory.own_sizes import own_factors
from rotsim.theory.prediction import MAX_STEPS, follow
from rotsim.theory.rates import Rates
from rotsim.theory.spans import looks
from rotsim.theory.walk import running_sum

_PASSES = 2  # after the first, of a course whose own norm Adam's v remembers
_STEADY = 1e-3  # relative change of sizes or rates that makes no difference to a report
_GRID = 0.5  # of the logarithm of the norm at the start, between the points of which neurons are interpolated
_MOST_NODES = 6  # then quantiles take the place of the grid
_LITTLE = 1.1  # factor over which a power is read off
_LEAST_LIMIT = 0.5  # of lr·weight_decay, below that of every optimizer
_LEAST_MOMENTUM = 1e-9  # stands for 0, which Nesterov's rule does not have
_FILLED = 3.0  # time constants after which an average is taken for full
_CLOSE = 1e-3  # of the logarithm of a norm that a course shall meet
_MOST_TRIES, _FARTHEST = 8, np.log(4.0)  # in search of the norm from which it does, and how far that may be
_BETAS = 16  # values of a momentum that changes, between which its equilibrium is interpolated


@dataclass(frozen=True)
class Influence:
    """What gradients make of a walk besides their size; each of shape (windows,) or a number.

    Attributes
    ----------
    norm, rotation : ndarray or float
        Factors of the steady norm and rotation.
    decay : ndarray or float
        Factor of the weight decay, 1 + P/λ.
    """

    norm: np.ndarray | float = 1.0
    rotation: np.ndarray | float = 1.0
    decay: np.ndarray | float = 1.0


def course(
    optimizer: Optimizer,
    dim: int,
    rates: Rates,
    ends: np.ndarray,
    start_norm: np.ndarray,
    scale: np.ndarray,
    influence: Influence,
    rows: int | None = None,
) -> np.ndarray:
    """RMS norm, rotation and update of each neuron in each window.

    Parameters
    ----------
    optimizer : Optimizer
    dim : int
        Weights per neuron, >= 1.
    rates : Rates
    ends : ndarray of int, shape (windows,)
        Last step of each window, > 0.
    start_norm : ndarray, shape (neurons,)
        ‖w‖ at ``rates.start``, >= 0.
    scale : ndarray, shape (neurons, windows)
        RMS of ‖g‖‖w‖, >= 0; NaN where it is not known.
    influence : Influence
    rows : int, optional
        Neurons of one matrix, as in `rotsim.predict`.

    Returns
    -------
    ndarray, shape (3, neurons, windows)
        In the order of `rotsim.dataset.QUANTITIES`; NaN where theory has no course.

    Notes
    -----
    `rotsim.predict`, hence `derivations.transient`, `derivations.damped` and `derivations.rotational`.
    """
    found = np.full((3, *scale.shape), np.nan)
    finite = np.isfinite(scale)
    total = np.where(finite, scale, 0.0) ** 2
    own = np.sqrt(total.sum(axis=1) / np.maximum(finite.sum(axis=1), 1))
    alive = (own > 0) & (start_norm > 0)
    lr_most, decay_most = (float(rate.max(initial=0.0)) for rate in (rates.lr, rates.weight_decay))  # of no steps: 0
    usable = theory_of(optimizer) is not None and dim >= 3 and alive.any() and lr_most > 0
    usable = usable and float((rates.lr * rates.weight_decay).max()) < optimizer.plain.decay_limit
    if not usable or len(rates.lr) > MAX_STEPS:
        return found
    spec = (optimizer if decay_most or not optimizer.needs_decay else optimizer.plain).with_rates(
        lr_most, min(decay_most, _LEAST_LIMIT / lr_most)
    )
    power = _scale_power(spec, dim, rows)
    middle = float(np.median(own[alive]))
    seen = np.isfinite(scale[alive]).any(axis=0)
    relative = np.full(len(ends), np.nan)  # size in each window, of all neurons
    relative[seen] = np.nanmedian(scale[alive][:, seen] / own[alive][:, None], axis=0)
    place = np.log(start_norm[alive]) - power * np.log(own[alive])
    nodes = _nodes(place)
    given = spec, dim, rates, ends, middle * relative, middle, influence, power, rows
    lr, decay, turned = _equivalent(*given, np.ones(len(rates.lr)))
    sizes = relative[seen]
    steady = not len(sizes) or np.ptp(sizes) < _STEADY * sizes.max()  # then the norms that v remembers cancel
    for _ in range(_PASSES if spec.plain.shape == "inverse root" and not steady else 0):
        start, before = float(np.exp(np.median(place)) * middle**power), lr
        lengths = _every_step(spec, dim, middle, start, lr, decay, rows, rates.start)[0]
        if not np.isfinite(lengths).all():
            return found
        lr, decay, turned = _equivalent(*given, lengths)
        if np.allclose(lr, before, rtol=_STEADY):
            break
    table = np.array([
        _windows(spec, dim, middle, float(np.exp(node) * middle**power), lr, decay, turned, rates, ends, rows)
        for node in nodes
    ])  # fmt: skip
    column = np.interp(place, nodes, np.arange(len(nodes)))
    lower = np.minimum(column.astype(int), len(nodes) - 1)
    upper, share = np.minimum(lower + 1, len(nodes) - 1), column % 1
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(table)
        rise = np.where(table[upper] > 0, logs[upper] - logs[lower], 0.0)  # nothing turns while the rate is 0
        between = logs[lower] + share[:, None, None] * rise
    values = np.exp(between)
    values[:, [0, 2]] *= ((own[alive] / middle) ** power)[:, None, None]
    found[:, alive] = np.moveaxis(values, 0, 1)
    if rates.spans is None:
        sizes = own[alive][:, None] * relative
        with np.errstate(divide="ignore", invalid="ignore"):
            beside = scale[alive] / sizes
        bounds = np.maximum(np.append(rates.start, ends), rates.start) - rates.start
        decay_until = np.append(0.0, np.cumsum(rates.lr * rates.weight_decay))[bounds]
        norm, rotation = found[0, alive], found[1, alive]
        passed = np.diff(bounds), np.diff(decay_until)
        found[:, alive] *= own_factors(spec, dim, beside, sizes, norm, rotation, *passed, rows)
    return found


def _nodes(place: np.ndarray) -> np.ndarray:
    """Where courses are computed: at both ends of every cell of a grid that holds a neuron."""
    if np.ptp(place) < _GRID:
        return np.unique(place[[place.argmin(), place.argmax()]])
    cells = np.unique(np.floor(place / _GRID))
    nodes = _GRID * np.unique(np.append(cells, cells + 1))
    return nodes if len(nodes) <= _MOST_NODES else np.unique(np.quantile(place, np.linspace(0, 1, _MOST_NODES)))


def _equivalent(spec, dim, rates, ends, scale, middle, influence, power, rows, norm):  # type: ignore[no-untyped-def]
    """Schedules under which white noise of one size `middle` takes this course, and what rotation is multiplied by.

    `norm` is ‖w‖ at every step, of which Adam's v holds the inverse square, and forgets it as it does sizes.
    """
    step = rates.steps
    centre = (np.append(rates.start, ends[:-1]) + ends + 1) / 2

    def at_steps(values: np.ndarray | float) -> np.ndarray:
        given = np.broadcast_to(np.asarray(values, dtype=float), centre.shape)
        seen = np.isfinite(given)
        return np.interp(step, centre[seen], given[seen]) if seen.any() else np.ones(len(step))

    lr, decay = rates.lr, rates.weight_decay
    with np.errstate(divide="ignore", invalid="ignore"):
        known = np.log(scale / middle)
    seen = np.isfinite(known)
    every = (
        np.exp(np.interp(np.arange(1, step[-1] + 1), centre[seen], known[seen])) if seen.any() else np.ones(step[-1])
    )
    size = every[rates.start :]
    grown, pace, bent = _other_betas(spec, dim, rates.betas, rows)
    if spec.decay == "none":  # the norm is held, whatever gradients are like
        return lr * pace, decay, at_steps(influence.rotation) * bent
    factor = (at_steps(influence.norm) * grown) ** (1 / (1 - power))
    turned = at_steps(influence.rotation) * bent / factor ** _turning_power(spec, dim, rows)
    if spec.plain.decay == "coupled":
        decay = decay / size
    if spec.plain.shape == "identity":
        lr = lr * size
    if spec.plain.shape == "inverse root":
        # v holds squared sizes over squared norms; that of steady sizes is in the course already
        before = np.full(rates.start, norm[0] if len(norm) else 1.0)
        over = np.append(before, norm) ** -2.0
        v, own = (_averaged(square, spec.averages[1])[rates.start :] for square in (every**2 * over, over))
        lag = size * np.sqrt(own / v)
        if spec.plain.decay == "coupled":
            lr = lr * lag
        else:
            factor = factor * lag
    return lr * factor * pace, decay / factor * at_steps(influence.decay).clip(0), turned


def _averaged(values: np.ndarray, beta: float) -> np.ndarray:
    """A running average with Adam's bias correction."""
    total = (1 - beta) * running_sum(values, beta)
    return total / -np.expm1(np.log(beta) * np.arange(1, len(values) + 1)) if beta > 0 else values


def _other_betas(
    spec: Optimizer, dim: int, betas: np.ndarray, rows: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Factors of norm, pace and rotation where the averages are others than those of `spec`."""
    ones = np.ones(betas.shape[1])
    own = np.array([*spec.averages, np.nan])[:2]
    given = np.where(np.isfinite(betas), betas, own[:, None])
    if np.array_equal(given, np.broadcast_to(own[:, None], given.shape), equal_nan=True) or spec.weight_decay == 0:
        return ones, ones, ones
    chosen = np.unique(np.linspace(0, len(ones) - 1, _BETAS * 8).round().astype(int))
    plain, law = spec.plain, ScaleInvariant()
    home = equilibrium(plain, dim, law, rows=rows)
    table: dict[tuple[float, ...], tuple[float, ...]] = {}
    pairs = [tuple(column) for column in given[: len(plain.averages), chosen].T.tolist()]  # NaN finds no entry
    for pair in pairs:
        if pair not in table:
            one = {"momentum": max(pair[0], _LEAST_MOMENTUM)}
            changed: Any = one if len(plain.averages) == 1 else {"betas": (*pair, *plain.averages[2:])}
            other = equilibrium(replace(plain, **changed), dim, law, rows=rows)
            pace = home.relaxation_steps / other.relaxation_steps
            table[pair] = other.norm / home.norm, pace, other.rotation / home.rotation / np.sqrt(pace)
    found = np.array([table[pair] for pair in pairs])
    grown, pace, bent = (np.interp(np.arange(len(ones)), chosen, factor) for factor in found.T)
    return grown, pace, bent


@lru_cache(maxsize=256)
def _scale_power(spec: Optimizer, dim: int, rows: int | None) -> float:
    """d ln ‖w‖ / d ln s in equilibrium, for gradients of size s."""
    plain = spec.plain
    if plain.weight_decay == 0:
        plain = plain.with_rates(plain.lr, min(1e-3, 1e-3 / plain.lr))
    one, two = (equilibrium(plain, dim, ScaleInvariant(scale), "leading", rows).norm for scale in (1.0, np.e))
    return float(np.log(two / one))


@lru_cache(maxsize=256)
def _turning_power(spec: Optimizer, dim: int, rows: int | None) -> float:
    """d ln θ / d ln f in equilibrium at lr·f and weight_decay/f: not 0 for Adam+L2, whose decay depends on the norm."""
    plain = spec.plain
    if plain.weight_decay == 0:
        plain = plain.with_rates(plain.lr, min(1e-3, 1e-3 / plain.lr))
    two = plain.with_rates(plain.lr * _LITTLE, plain.weight_decay / _LITTLE)
    one, other = (equilibrium(each, dim, ScaleInvariant(), "leading", rows).rotation for each in (plain, two))
    return float(np.log(other / one) / np.log(_LITTLE))


def _windows(spec, dim, scale, start, lr, decay, turned, rates, ends, rows):  # type: ignore[no-untyped-def]
    """Of one neuron: RMS over each window of norm, rotation and update, shape (3, windows)."""
    square = _every_step(spec, dim, scale, start, lr, decay, rows, rates.start) ** 2
    square[1:] *= turned**2
    if rates.spans is not None:
        return looks(spec, dim, square, start, lr * decay, rates.start, ends, rates.spans, rows)
    first, last = np.maximum(np.append(rates.start, ends[:-1]) - rates.start, 0), np.maximum(ends - rates.start, 0)
    sampled = rates.steps % rates.interval == 0  # a window holds these alone
    total = np.concatenate(
        [np.zeros((4, 1)), np.cumsum(np.vstack([square, np.ones(len(lr))]) * sampled, axis=1)], axis=1
    )
    *sums, count = total[:, last] - total[:, np.minimum(first, last)]
    return np.sqrt(np.where(count > 0, sums / np.maximum(count, 1), np.nan))


def _every_step(spec, dim, scale, start, lr, decay, rows, begun):  # type: ignore[no-untyped-def]
    """Norm, rotation and update at every step, shape (3, steps); NaN where theory has no course.

    After `begun` steps averages are full. So some of these are followed too, at the first rates, from a norm that leads
    to `start`. Where there is none, averages begin empty.
    """
    decay = decay if spec.weight_decay else np.zeros(len(lr))
    missing = np.full((3, len(lr)), np.nan)
    if not np.isfinite([lr, decay]).all():
        return missing

    def walked(start: float, lr: np.ndarray, decay: np.ndarray) -> np.ndarray:
        with contextlib.suppress(InvalidInput, ArithmeticError):
            return np.asarray(follow(spec, dim, ScaleInvariant(scale), start, lr, decay, 1, rows)[1].T)
        return np.full((3, len(lr)), np.nan)

    lead = _lead(spec, begun)
    if lead and len(lr):
        before, decay_before = np.full(lead, lr[0]), np.full(lead, decay[0])
        earlier = _meeting(np.log(start), lambda log: np.log(walked(np.exp(log), before, decay_before)[0, -1]))
        if np.isfinite(earlier):
            return walked(np.exp(earlier), np.append(before, lr), np.append(decay_before, decay))[:, lead:]
    return walked(start, lr, decay)


def _lead(spec: Optimizer, begun: int) -> int:
    """Steps in which the average that its update is made of fills, `begun` at most."""
    slowest = spec.beta1 if spec.plain.shape == "inverse root" else max(spec.averages)
    return min(begun, int(np.ceil(_FILLED / (1 - slowest)))) if slowest > 0 else 0


def _meeting(wanted: float, reached: Callable[[float], float]) -> float:
    """The argument at which `reached`, which grows with it, is `wanted`, by secants from there; NaN if none is near."""
    here, slope = wanted, 1.0
    off = reached(here) - wanted
    for _ in range(_MOST_TRIES):
        if not (abs(off) > _CLOSE and slope > 0):  # flat: whatever it starts from is forgotten
            break
        there = here - off / slope
        if not abs(there - wanted) < _FARTHEST:
            return np.nan
        found = reached(there) - wanted
        slope = (found - off) / (there - here)
        here, off = there, found
    return here if abs(off) <= _CLOSE else np.nan
