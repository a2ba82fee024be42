r"""Second moments of the random walk, one step at a time: exact norm and rotation under any schedule.

Each function advances (E‖w‖², overlaps of w with the optimizer's memory, E of its own moments) by
a map that is affine in them, at O(1) a step. Only E[g_t | past] = 0 and E‖g_t‖² = G (E‖w‖²)^p are
used; neglected is the spread of ‖w‖ over neurons, of order 1/C, and what each function names.

* SGDM: nothing else.
* AdamW: u = m/√v gets the stationary autocovariance of `rotsim.theory.second_moment`, mode by mode,
  times the mean-field size √E[m²]/√E[v] of the moment, bias corrections included, and times what Var v and
  Cov(m², v) then add to first order, relative to equilibrium. It is exact where v fluctuates as it does in
  equilibrium. Elsewhere, over the first steps and while the gradient's scale changes, half of the correction is
  declared as error of the update; it is carried on to the norm, and from there through the gradient to m and v.
* Adam+L2: as AdamW, and the momentum of λw beside that of the noise, see `rotsim.theory.coupled`.
  Declared besides is how far that settles from the exact equilibrium at the decay of each step or, where it is
  more, the square of the decay's share of v. Where that nears one, v is λ²w² of its own coordinate and the decay a
  sign, which this theory does not have.
* Rotational: the angle of each step at constant norm, with the filling of the inner optimizer's average and the part
  of the update that points along weights which have turned since its gradients were drawn.
* Lion: signs of jointly Gaussian c_t, correlated by the arcsine law with the variances in force at
  both times, transients of m included. asin is a sum of powers, each of which is a mode.

Derivation: `derivations.transient`, from which the maps of one step are generated, `derivations.second_moment`
and `derivations.rotational`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba.extending import register_jitable

from rotsim.errors import InvalidInput
from rotsim.gradients import GradientPower
from rotsim.optimizers import SGDM, AdamL2, AdamW, Lion, Rotational
from rotsim.optimizers.base import Optimizer
from rotsim.simulation.compiled import compiled
from rotsim.simulation.walk import squared_angle
from rotsim.theory import closed_forms
from rotsim.theory.coupled import departure
from rotsim.theory.second_moment import UpdateCovariance, adam_covariance, mean_response
from rotsim.theory.sign import arcsine_modes, sign_covariance

# Declared error of E[m²/v] over what is corrected to first order, and over the change of Var v/v². Chosen after a look
# at direct simulations of m and v at seven betas under constant, falling, rising and dropping gradients.
SECOND_ORDER, SPREAD_ORDER = 0.5, 0.02


# The maps of one step, generated from derivations.transient and derivations.second_moment.
_mode_overlap = register_jitable(closed_forms.walk_mode_overlap)
_along = register_jitable(closed_forms.walk_along)
_moved = register_jitable(closed_forms.walk_moved)
_sgdm_across = register_jitable(closed_forms.sgdm_across)
_sgdm_power = register_jitable(closed_forms.sgdm_momentum_power)
_sgdm_overlap = register_jitable(closed_forms.sgdm_momentum_overlap)
_memory = register_jitable(closed_forms.lion_memory)
_reach = register_jitable(closed_forms.lion_reach)
_entry = register_jitable(closed_forms.lion_entry)
_fade = register_jitable(closed_forms.lion_fade)
_ratio = register_jitable(closed_forms.adam_ratio)
_settled_ratio = register_jitable(closed_forms.adam_settled_ratio)


def _kernel(function: Callable[..., None]) -> Callable[..., None]:
    """Compiled under a name with the digest of `simulation`, whose angle of a chord is inlined here."""
    return compiled(function, f"predict{function.__name__}", {})


@register_jitable
def _record(record, before, along, moved, error=0.0, kept=1.0, inherited=0.0, follows=0.0):  # type: ignore[no-untyped-def]
    """Add ‖w‖², squared angle and ‖Δw‖² of one step to a window, and their declared errors; return the new E‖w‖².

    error: relative, of the update. kept: the share of E‖w‖² that decay leaves, on top of which noise grows it.
    inherited: error of E‖w‖² from before, whose new value is returned as well. follows: what the update owes to
    that, with its sign, since it can damp the error as well as amplify it.
    """
    after = before + 2.0 * along + moved
    norm_before, norm_after = np.sqrt(before), np.sqrt(after)
    radial = (2.0 * along + moved) / (norm_before + norm_after)
    record[0] += after
    perpendicular = max(moved - radial * radial, 0.0)
    record[1] += squared_angle(perpendicular / (norm_before * norm_after))
    record[2] += moved
    inherited = kept * inherited + 2 * (error + follows) * max(after - kept * before, 0.0)
    on_norm, error = abs(inherited) / (2 * after), error + abs(follows)
    record[3] += on_norm
    record[4] += on_norm + error * np.sqrt(moved / max(perpendicular, 1e-12 * moved)) if moved > 0.0 else on_norm
    record[5] += error + on_norm * min(
        1.0, (1 - np.sqrt(kept)) ** 2 * before / max(moved, 1e-300)
    )  # decay's share of Δw
    return after, inherited


@register_jitable
def _adam_size(beta1, beta2, gradient, off, state):  # type: ignore[no-untyped-def]
    """One step of the moments of one coordinate: E[m²/v] over its mean-field value, relative to equilibrium; its error.

    derivations.second_moment.moment_of_the_ratio: to first order in the fluctuations of v it is
    1 + Var v/v² - Cov(m², v)/(E m²·v). `off` is the declared relative error of the gradient's square, which m²
    and v inherit at their own pace: what the update then owes to it is returned as well.
    """
    old_m2, old_v, spread, cross, off_m2, off_v = state
    fresh1, fresh2 = (1 - beta1) ** 2 * gradient, (1 - beta2) * gradient
    m2, v = beta1**2 * old_m2 + fresh1, beta2 * old_v + fresh2
    spread = beta2**2 * spread + fresh2**2  # half of Var v
    cross = beta1**2 * beta2 * cross + fresh1 * fresh2  # half of Cov(m², v)
    off_m2 = (beta1**2 * old_m2 * off_m2 + fresh1 * off) / m2
    off_v = (beta2 * old_v * off_v + fresh2 * off) / v
    size = _ratio(v, m2, spread, cross) / _settled_ratio(beta1, beta2)
    change = abs(2 * spread / v**2 - 2 * (1 - beta2) / (1 + beta2))
    error = SECOND_ORDER * abs(size - 1) + SPREAD_ORDER * change
    return size, error, (off_m2 - off_v) / 2, (m2, v, spread, cross, off_m2, off_v)


@_kernel
def _sgdm(momentum, power, homogeneity, w2, lr, weight_decay, window, records):  # type: ignore[no-untyped-def]
    overlap, m2 = 0.0, 0.0  # E[w·m], E‖m‖²
    for t in range(len(lr)):
        across = _sgdm_across(weight_decay[t], momentum, w2, overlap)  # E[w_{t-1}·m_t]
        m2 = _sgdm_power(weight_decay[t], momentum, w2, overlap, power * w2**homogeneity, m2)
        overlap = _sgdm_overlap(lr[t], across, m2)
        w2, _ = _record(records[t // window], w2, -lr[t] * across, lr[t] ** 2 * m2)


@_kernel
def _adam_l2(  # type: ignore[no-untyped-def]
    beta1,
    beta2,
    eps,
    response,
    memory,
    lag_0,
    weights,
    roots,
    decays,
    departures,
    dim,
    power,
    homogeneity,
    w2,
    lr,
    weight_decay,
    window,
    records,
):
    overlap, filtered = np.zeros_like(weights), np.zeros_like(weights)  # of w and of r with each mode of the noise
    across, r2 = 0.0, 0.0  # E[w·r], E‖r‖², where r remembers the decay term λw
    m2, state, left1, left2, inherited = 0.0, (0.0,) * 6, 1.0, 1.0, 0.0
    fresh, new = 1 - beta1, 1 - memory
    for t in range(len(lr)):
        left1, left2 = left1 * beta1, left2 * beta2
        decay = weight_decay[t]
        gradient = power * w2**homogeneity
        total = (gradient + decay**2 * w2) / dim
        m2 = beta1**2 * m2 + fresh**2 * gradient
        off = (homogeneity * gradient + decay**2 * w2) / (total * dim) * inherited / w2
        size, error, follows, state = _adam_size(beta1, beta2, total, off, state)
        step = lr[t] / (1 - left1) / (np.sqrt(state[1] / (1 - left2)) + eps) * np.sqrt(size)
        noise_w, noise_r = 0.0, 0.0  # E[w_{t-1}·n_t], E[r_t·n_t]
        for n in range(len(weights)):
            earlier = roots[n] * overlap[n]
            filtered[n] = memory * roots[n] * filtered[n] + new * decay * earlier
            noise_w += earlier
            noise_r += filtered[n]
            overlap[n] = earlier - step * (m2 * weights[n] + response * filtered[n])
        r2 = memory**2 * r2 + 2 * memory * new * decay * across + (new * decay) ** 2 * w2
        across = memory * across + new * decay * w2  # E[w_{t-1}·r_t]
        along = -step * (noise_w + response * across)
        moved = step**2 * (m2 * lag_0 + 2 * response * noise_r + response**2 * r2)
        across -= step * (noise_r + response * r2)
        lost = step * decay
        saturated = (decay**2 * w2 / (total * dim)) ** 2
        error += max(np.interp(lost, decays, departures), saturated)
        inherited += 2 * saturated * lost * w2  # decay itself is then off
        w2, inherited = _record(records[t // window], w2, along, moved, error, (1 - lost) ** 2, inherited, follows)


@_kernel
def _adamw(  # type: ignore[no-untyped-def]
    beta1, beta2, eps, lag_0, weights, roots, dim, power, homogeneity, w2, lr, weight_decay, window, records
):
    overlap = np.zeros_like(weights)  # E[w·m], split into the modes of the covariance
    state, left1, left2, inherited = (0.0,) * 6, 1.0, 1.0, 0.0
    for t in range(len(lr)):
        left1, left2 = left1 * beta1, left2 * beta2
        gradient = power * w2**homogeneity / dim
        size, error, follows, state = _adam_size(beta1, beta2, gradient, homogeneity * inherited / w2, state)
        m2, v = state[:2]
        step = lr[t] / (1 - left1) / (np.sqrt(v / (1 - left2)) + eps) * np.sqrt(size)
        across = 0.0
        for n in range(len(weights)):
            across += roots[n] * overlap[n]
            overlap[n] = _mode_overlap(lr[t], weight_decay[t], step, overlap[n], m2 * dim * weights[n], roots[n])
        along = _along(lr[t], weight_decay[t], w2, step, across)
        moved = _moved(lr[t], weight_decay[t], w2, step, across, m2 * dim * lag_0)
        kept = (1 - lr[t] * weight_decay[t]) ** 2
        w2, inherited = _record(records[t // window], w2, along, moved, error, kept, inherited, follows)


@_kernel
def _lion(  # type: ignore[no-untyped-def]
    beta1, beta2, odd, arcsine, dim, power, homogeneity, w2, lr, weight_decay, window, records
):
    past = np.zeros_like(arcsine)  # Σ_j lr_j corr(c_j, m_t)^odd, decayed: what w remembers of each sign
    m2 = 0.0
    unit = power * w2**homogeneity  # the scale of the first gradient: signs know no other
    for t in range(len(lr)):
        decay = lr[t] * weight_decay[t]
        gradient = power * w2**homogeneity / unit
        reach, entry = _reach(beta1, gradient, m2), _entry(beta1, beta2, gradient, m2)
        fade = _fade(beta2, gradient, m2)
        m2 = _memory(beta2, gradient, m2)
        across = 0.0  # E[w_{t-1}·u_t]
        for n in range(len(arcsine)):
            across -= 2 / np.pi * dim * arcsine[n] * reach ** odd[n] * past[n]
            past[n] = (1 - decay) * fade ** odd[n] * past[n] + lr[t] * entry ** odd[n]
        along = _along(lr[t], weight_decay[t], w2, lr[t], across)
        moved = _moved(lr[t], weight_decay[t], w2, lr[t], across, dim)
        w2, _ = _record(records[t // window], w2, along, moved)


@_kernel
def _rotational(  # type: ignore[no-untyped-def]
    angle, forget, length, correction, weights, roots, norm_squared, error, doubt, window, records
):
    overlap = np.zeros_like(weights)  # of ŵ with each mode of the update
    mean, left = 0.0, 1.0
    for t in range(len(angle)):
        radial = 0.0  # E[u_t·ŵ_{t-1}]: older gradients are not orthogonal to weights that have turned since
        for n in range(len(weights)):
            radial += roots[n] * overlap[n] / correction[t]
        across = length[t] - radial**2  # E‖u⊥‖²
        left *= forget
        mean = forget * mean + (1 - forget) * across
        square = angle[t] ** 2 * across / (mean / (1 - left))
        sine, cosine = np.sin(np.sqrt(square)), np.cos(np.sqrt(square))
        rate = sine / np.sqrt(across)
        kept = cosine + rate * radial
        for n in range(len(weights)):
            overlap[n] = kept * roots[n] * overlap[n] - rate * length[t] * correction[t] * weights[n]
        record = records[t // window]
        record[0] += norm_squared
        record[1] += square
        record[2] += norm_squared * (sine**2 + (1 - cosine) ** 2)
        declared = error[t] + doubt[t] * radial**2 / across
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


def _modes(beta1: float, beta2: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Autocovariance of u in units of E[m²], as the recursions carry E[m²] themselves."""
    covariance = adam_covariance(beta1, beta2)
    frozen = (1 - beta1) / (1 + beta1)
    return covariance.lag_0 / frozen, covariance.weights / frozen, covariance.roots


def _run_adam_l2(o: AdamL2) -> tuple[Callable[..., None], float]:
    fixed = (*o.betas, o.eps, *mean_response(*o.betas), *_modes(*o.betas), *departure(*o.betas))
    return lambda dim, law: _adam_l2(*fixed, float(dim), *law), adam_covariance(*o.betas).error


def _run_adamw(o: AdamW) -> tuple[Callable[..., None], float]:
    fixed = (*o.betas, o.eps, *_modes(*o.betas))
    return lambda dim, law: _adamw(*fixed, float(dim), *law), adam_covariance(*o.betas).error


def _run_lion(o: Lion) -> tuple[Callable[..., None], float]:
    return lambda dim, law: _lion(*o.betas, *arcsine_modes(), float(dim), *law), 0.0


def _run_rotational(o: Rotational) -> tuple[Callable[..., None], float]:
    def run(dim: int, law: tuple[Any, ...]) -> None:
        _, _, norm_squared, lr, weight_decay, window, records = law
        bias = o.angle_bias(dim)
        angle = o.leading_rotation(lr, weight_decay) * np.sqrt(1 + bias)
        length, correction, spread, doubt, noise = _lengths(o, len(lr))
        modes = noise.weights / noise.lag_0, noise.roots
        fixed = (angle, o.update_norm_decay, length, correction, *modes)
        _rotational(*fixed, norm_squared, abs(bias) + spread, doubt, window, records)

    return run, 0.0


def _lengths(o: Rotational, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, UpdateCovariance]:
    """What the update is like at each step, and its autocovariance once settled.

    E‖u‖² over its final value, bias correction, declared error of the length, and declared share of the radial part.
    """
    step = np.arange(1.0, steps + 1)
    length, correction, spread, doubt = np.ones(steps), np.ones(steps), np.zeros(steps), np.zeros(steps)
    if isinstance(o.inner, SGDM):
        memory = o.inner.momentum
        length = closed_forms.rotational_sgdm_filling(memory, step)
        noise = UpdateCovariance(1.0, np.ones(1), np.array([memory]), 0.0)
    elif isinstance(o.inner, AdamW):
        beta1, beta2 = o.inner.betas
        length = closed_forms.rotational_adamw_filling(beta1, step)
        correction = 1 - beta1**step
        spread = np.minimum(1, 1 / (1 - o.update_norm_decay) / step) / (1 + np.minimum(step, 1 / (1 - beta2)))
        noise = adam_covariance(beta1, beta2)
    else:
        beta1, beta2 = o.inner.betas  # type: ignore[attr-defined]
        doubt = beta2**step  # signs are more alike while the momentum is young
        noise = sign_covariance(beta1, beta2)
    return length, correction, spread, doubt, noise


_RECURSIONS: dict[type[Optimizer], Callable[..., tuple[Callable[..., None], float]]] = {
    SGDM: _run_sgdm,
    AdamL2: _run_adam_l2,
    AdamW: _run_adamw,
    Lion: _run_lion,
    Rotational: _run_rotational,
}
