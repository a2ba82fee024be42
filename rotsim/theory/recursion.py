r"""Second moments of the random walk, one step at a time: exact norm and rotation under any schedule.

Each function advances (E‖w‖², overlaps of w with the optimizer's memory, E of its own moments) by
a map that costs the same at every step. Only E[g_t | past] = 0 and E‖g_t‖² = G (E‖w‖²)^p are used, for Adam that
gradients are Gaussian; neglected is the spread of ‖w‖ over neurons, of order 1/C, and what each function names.

* SGDM: nothing else.
* AdamW: nothing else. v is random as it is, at any course of the gradient; `rotsim.theory.adam_in_time`.
* Adam+L2: the same, with the decay in m and v. Weights and momentum are taken as Gaussian, but in as many parts as it
  takes where decay fills v; what that leaves out is declared there.
* Rotational: the angle of each step at constant norm, with the filling of the inner optimizer's average and the part
  of the update that points along weights which have turned since its gradients were drawn.
* Lion: signs of jointly Gaussian c_t, correlated by the arcsine law with the variances in force at
  both times, transients of m included. asin is a sum of powers, each of which is a mode.

Derivation: `derivations.transient` and `derivations.damped`, from which the maps of one step are generated, and
`derivations.rotational`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rotsim import closed_forms
from rotsim.errors import InvalidInput
from rotsim.gradients import GradientPower
from rotsim.optimizers import SGDM, AdamL2, AdamW, Lion, Rotational
from rotsim.optimizers.base import Optimizer
from rotsim.theory.adam_in_time import MOST_SPLIT, adam_l2, adamw, parts, state
from rotsim.theory.damped import tables
from rotsim.theory.record import kernel as _kernel
from rotsim.theory.record import record_step as _record
from rotsim.theory.second_moment import UpdateCovariance, adam_covariance
from rotsim.theory.sign import arcsine_modes, sign_covariance

QUADRATURE = 1e-6  # of the grid in ζ
_FILLED = 25.0  # memories after which e^-25 of what a fresh optimizer lacks is left
_SMALLEST = 1e-12  # β2 below this is as good as 0


# The maps of one step, generated from derivations.transient and .rotational.


@_kernel
def _sgdm(momentum, power, homogeneity, w2, lr, weight_decay, window, records):  # type: ignore[no-untyped-def]
    overlap, m2 = 0.0, 0.0  # E[w·m], E‖m‖²
    for t in range(len(lr)):
        across = closed_forms.sgdm_across(weight_decay[t], momentum, w2, overlap)  # E[w_{t-1}·m_t]
        m2 = closed_forms.sgdm_momentum_power(weight_decay[t], momentum, w2, overlap, power * w2**homogeneity, m2)
        overlap = closed_forms.sgdm_momentum_overlap(lr[t], across, m2)
        w2 = _record(records[t // window], w2, -lr[t] * across, lr[t] ** 2 * m2)


@_kernel
def _lion(  # type: ignore[no-untyped-def]
    beta1, beta2, odd, arcsine, dim, power, homogeneity, w2, lr, weight_decay, window, records
):
    overlap = np.zeros_like(arcsine)  # of w with m, mode by mode
    m2 = 0.0
    unit = power * w2**homogeneity  # the scale of the first gradient: signs know no other
    for t in range(len(lr)):
        gradient = power * w2**homogeneity / unit
        seen, entered = (
            closed_forms.lion_seen(beta1, gradient, m2),
            closed_forms.lion_entered(beta1, beta2, gradient, m2),
        )
        faded = closed_forms.lion_faded(beta2, gradient, m2)
        m2 = closed_forms.lion_momentum_power(beta2, gradient, m2)
        across = 0.0  # E[w_{t-1}·u_t]
        for n in range(len(arcsine)):
            across += seen ** odd[n] * overlap[n]
            weight = dim * closed_forms.lion_sign_mode(entered, arcsine[n], odd[n])
            overlap[n] = closed_forms.walk_mode_overlap(
                lr[t], weight_decay[t], lr[t], overlap[n], weight, faded ** odd[n]
            )
        along = closed_forms.walk_along(lr[t], weight_decay[t], w2, lr[t], across)
        moved = closed_forms.walk_moved(lr[t], weight_decay[t], w2, lr[t], across, dim)
        w2 = _record(records[t // window], w2, along, moved)


@_kernel
def _rotational(  # type: ignore[no-untyped-def]
    angle, forget, length, correction, weights, roots, norm_squared, error, doubt, window, records
):
    overlap = np.zeros_like(weights)  # of ŵ with each mode of the update
    mean = 0.0
    for t in range(len(angle)):
        radial = 0.0  # E[u_t·ŵ_{t-1}]: older gradients are not orthogonal to weights that have turned since
        for n in range(len(weights)):
            radial += roots[n] * overlap[n] / correction[t]
        across = closed_forms.rotational_across(radial, length[t])
        mean = closed_forms.rotational_mean_length(forget, across, mean)
        square = closed_forms.rotational_squared_angle(forget, t + 1, angle[t], across, mean)
        turned = np.sqrt(square)
        rate = closed_forms.rotational_rate(turned, across)
        kept = closed_forms.rotational_kept(rate, radial, turned)
        for n in range(len(weights)):
            weight = length[t] * correction[t] * weights[n]
            overlap[n] = closed_forms.rotational_mode_overlap(rate, overlap[n], weight, roots[n], kept)
        record = records[t // window]
        record[0] += norm_squared
        record[1] += square
        record[2] += 2 * norm_squared * closed_forms.turned_one_minus_cosine(turned)
        declared = error + doubt[t] * radial**2 / across
        record[4] += declared
        record[5] += declared


def advance(
    optimizer: Optimizer,
    dim: int,
    power: GradientPower,
    norm_squared: float,
    lr: np.ndarray,
    weight_decay: np.ndarray,
    window: int,
) -> tuple[np.ndarray, float]:
    """Second moments over ``len(lr)`` steps from a fresh optimizer state.

    Parameters
    ----------
    optimizer : Optimizer
        AdamW, AdamL2, SGDM, Lion or Rotational; its own lr and weight_decay are not used.
    dim : int
    power : GradientPower
    norm_squared : float
        ‖w_0‖² > 0.
    lr, weight_decay : ndarray of float64, shape (steps,)
    window : int
        Steps per record.

    Returns
    -------
    records : ndarray, shape (windows, 6)
        Sums over each window of E‖w‖², E[angle²] and E‖Δw‖², and of the declared relative errors of
        their square roots, apart from the next.
    model_error : float
        Declared relative error of all, apart from 1/dim.
    """
    records = np.zeros((-(-len(lr) // window), 6))
    law = (power.scale_squared, float(power.homogeneity), norm_squared, lr, weight_decay, window, records)
    try:
        run, error = _RECURSIONS[type(optimizer)](optimizer)
    except KeyError:
        names = ", ".join(spec.__name__ for spec in _RECURSIONS)
        raise InvalidInput(
            f"`optimizer` must be one of {names} to be predicted in time; got {optimizer.describe()}"
        ) from None
    run(dim, law)
    return records, error


def _run_sgdm(o: SGDM) -> tuple[Callable[..., None], float]:
    return lambda dim, law: _sgdm(o.momentum, *law), 0.0


def _run_adam(o: AdamW | AdamL2) -> tuple[Callable[..., None], float]:
    adam_covariance(*o.betas)  # refuses betas at which the update has no variance
    adam = adam_l2 if isinstance(o, AdamL2) else adamw
    by = parts() if adam is adam_l2 else (np.zeros(1), np.ones(1), np.ones(1))

    def run(dim: int, law: tuple[Any, ...]) -> None:
        strongest = np.maximum.accumulate(law[4][::-1])[::-1]
        fixed = (o.betas[0], max(o.betas[1], _SMALLEST), o.eps, tables(), *by, strongest)
        done = adam(*fixed, state(len(by[0]), law[2] / dim), float(dim), *law)
        if done < len(law[3]):
            raise InvalidInput(
                f"weight decay fills Adam's second moment in more than {MOST_SPLIT} steps, by step {done}, of "
                f"{o.describe()}: weights are too long, or lr * weight_decay too large, for a prediction in seconds. "
                "Start nearer to the equilibrium norm, predict fewer steps, or simulate"
            )

    return run, QUADRATURE


def _run_lion(o: Lion) -> tuple[Callable[..., None], float]:
    return lambda dim, law: _lion(*o.betas, *arcsine_modes(), float(dim), *law), 0.0


def _run_rotational(o: Rotational) -> tuple[Callable[..., None], float]:
    def run(dim: int, law: tuple[Any, ...]) -> None:
        _, _, norm_squared, lr, weight_decay, window, records = law
        bias = o.angle_bias(dim)
        angle = o.leading_rotation(lr, weight_decay) * np.sqrt(1 + bias)
        length, correction, doubt, noise = _lengths(o, len(lr))
        modes = noise.weights / noise.lag_0, noise.roots
        fixed = (angle, o.update_norm_decay, length, correction, *modes)
        _rotational(*fixed, norm_squared, abs(bias), doubt, window, records)

    return run, 0.0


def _adamw_lengths(inner: AdamW, steps: int) -> np.ndarray:
    """E u² of a coordinate at each step, from an empty optimizer, v random: AdamW's own course without decay."""
    slowest = max(*inner.betas, 0.5)
    filling = min(steps, int(np.ceil(_FILLED / (1 - slowest))))
    one, none, records = np.ones(filling), np.zeros(filling), np.zeros((filling, 6))
    run, _ = _run_adam(inner)
    run(1, (1.0, 0.0, 1.0, one, none, 1, records))
    return np.append(records[:, 2], np.full(steps - filling, records[-1, 2]))


def _lengths(o: Rotational, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, UpdateCovariance]:
    """What the update is like at each step, and its autocovariance once settled.

    E‖u‖² over its final value, bias correction, and declared share of the radial part.
    """
    step = np.arange(1.0, steps + 1)
    length, correction, doubt = np.ones(steps), np.ones(steps), np.zeros(steps)
    if isinstance(o.inner, SGDM):
        memory = o.inner.momentum
        length = closed_forms.rotational_sgdm_filling(memory, step)
        noise = UpdateCovariance(1.0, np.ones(1), np.array([memory]), 0.0)
    elif isinstance(o.inner, AdamW):
        beta1, beta2 = o.inner.betas
        noise = adam_covariance(beta1, beta2)
        length = _adamw_lengths(o.inner, steps) / noise.lag_0
        correction = 1 - beta1**step
    else:
        beta1, beta2 = o.inner.betas  # type: ignore[attr-defined]
        doubt = beta2**step  # signs are more alike while the momentum is young
        noise = sign_covariance(beta1, beta2)
    return length, correction, doubt, noise


_RECURSIONS: dict[type[Optimizer], Callable[..., tuple[Callable[..., None], float]]] = {
    SGDM: _run_sgdm,
    AdamL2: _run_adam,
    AdamW: _run_adam,
    Lion: _run_lion,
    Rotational: _run_rotational,
}
