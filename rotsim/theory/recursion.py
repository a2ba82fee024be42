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
from rotsim.theory import closed_forms, damped
from rotsim.theory.second_moment import UpdateCovariance, adam_covariance
from rotsim.theory.sign import arcsine_modes, sign_covariance

QUADRATURE = 1e-6  # of the grid in ζ
import os
MERGED = float(os.environ.get('MERGED','1e-3'))
SHOW = int(os.environ.get('SHOW','0'))
SPLIT = float(os.environ.get('SPLIT','0.05'))
_SMALLEST = 1e-12  # β2 below this is as good as 0

# The maps of one step, generated from derivations.transient and derivations.second_moment.
_along = register_jitable(closed_forms.walk_along)
_moved = register_jitable(closed_forms.walk_moved)
_sgdm_across = register_jitable(closed_forms.sgdm_across)
_sgdm_power = register_jitable(closed_forms.sgdm_momentum_power)
_sgdm_overlap = register_jitable(closed_forms.sgdm_momentum_overlap)


def _kernel(function: Callable[..., None]) -> Callable[..., None]:
    """Compiled under a name with the digest of `simulation`, whose angle of a chord is inlined here."""
    return compiled(function, f"predict{function.__name__}", {})


@register_jitable
def _record(record, before, along, moved):  # type: ignore[no-untyped-def]
    """Add ‖w‖², squared angle and ‖Δw‖² of one step to a window; return the new E‖w‖²."""
    after = before + 2.0 * along + moved
    norm_before, norm_after = np.sqrt(before), np.sqrt(after)
    radial = (2.0 * along + moved) / (norm_before + norm_after)
    record[0] += after
    record[1] += squared_angle(max(moved - radial * radial, 0.0) / (norm_before * norm_after))
    record[2] += moved
    return after


@_kernel
def _sgdm(momentum, power, homogeneity, w2, lr, weight_decay, window, records):  # type: ignore[no-untyped-def]
    overlap, m2 = 0.0, 0.0  # E[w·m], E‖m‖²
    for t in range(len(lr)):
        across = _sgdm_across(weight_decay[t], momentum, w2, overlap)  # E[w_{t-1}·m_t]
        m2 = _sgdm_power(weight_decay[t], momentum, w2, overlap, power * w2**homogeneity, m2)
        overlap = _sgdm_overlap(lr[t], across, m2)
        w2 = _record(records[t // window], w2, -lr[t] * across, lr[t] ** 2 * m2)


@_kernel
def _adam(  # type: ignore[no-untyped-def]
    beta1, beta2, eps, coupled, tables, point, share, coarse, strongest, dim, power, homogeneity, w2, lr, weight_decay,
    window, records,
):  # fmt: skip
    zeta, rows, counts, centres, integrals, scratch = damped.room(len(point))
    rows[0, 3] = w2 / dim
    parts, last_filled, c4, off_normal, ex, ea, eb = 1, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    one_power, one_across, felt, old_rows = 0.0, 0.0, 1.0, rows[0]
    v, left1, left2 = np.zeros(len(point)), 1.0, 1.0
    xx, xa, xb, aa, ab, bb, noise, total_m, total_v = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for t in range(len(lr)):
        left1, left2 = left1 * beta1, left2 * beta2
        inside, outside = (weight_decay[t], 0.0) if coupled else (0.0, weight_decay[t])
        gradient = power * w2**homogeneity
        if coupled:
            filled = strongest[t] ** 2 * w2
            filled = filled / (gradient + filled)
            if parts > 1:
                if (share * centres[:, 0] ** 2).sum() * dim / w2 * filled < MERGED:
                    damped.merge(rows, counts, centres, share)
                    v[0] = (share * v).sum()
                    parts, last_filled = 1, filled
            elif filled > SPLIT and filled > 2 * last_filled:
                parts = len(point)
                if t == 0:
                    zeta[1:] = 1.0
                else:
                    damped.widen(zeta, rows[:1], counts[:1], v[0] * point[-1] ** 2, tables.entering)
                damped.split(rows, counts, centres, v, zeta, point)
        for part in range(parts):
            square = centres[part, 0] ** 2 + rows[part, 3, 0]
            v[part] = beta2 * v[part] + (1 - beta2) * damped._pull(inside, dim, gradient, square)
        if t == 0:
            damped.lay(zeta, v.max())
        else:
            zeta /= beta2
            damped.widen(zeta, rows[:parts], counts[:parts], v[:parts].max(), tables.entering)
        across, update_power, fourth, off_norm, off_power = 0.0, 0.0, 0.0, 0.0, 0.0
        wild = 0.0
        step = lr[t] / (1 - left1) * np.sqrt(1 - left2)
        for part in range(parts):
            part_of, centre = rows[part], centres[part]
            count = damped.absorb(part_of, counts[part], zeta, centre, inside, beta1, beta2, dim, gradient)
            deviation = np.sqrt(v[part] / (1 - left2))
            felt = deviation / (deviation + eps)
            part_share = share[part] if parts > 1 else 1.0
            total4, central4, central2 = damped.fourth_moment(part_of, count, zeta, centre)
            fourth += part_share * felt**4 * total4
            if coupled and central2 > 0.0:
                about = inside**2 * max(part_of[3, 0], 0.0)
                about = about / (gradient / dim + about + (inside * centre[0]) ** 2)
                wild += part_share * felt**2 * 2 * about**2 * abs(central4 / (3 * central2 * central2) - 1) * central2
            old_rows = part_of.copy()
            one, two = damped.move(
                part_of, count, zeta, centre, coupled, lr[t], outside, step * felt, tables, integrals, scratch
            )
            across += part_share * felt * one
            update_power += part_share * felt**2 * two
            counts[part] = count
            one_power, one_across = two, one
            if parts > 1:
                off_norm += (coarse[part] - share[part]) * (centre[0] ** 2 + part_of[3, 0])
                off_power += (coarse[part] - share[part]) * felt**2 * two
        along = _along(lr[t], outside, w2, step, dim * across)
        moved = _moved(lr[t], outside, w2, step, dim * across, dim * update_power)
        after = w2 + 2 * along + moved
        # how neurons of one dim differ: relative deviations x of ‖w‖², a of m² and b of v
        lost = lr[t] * outside + step / np.sqrt(v[:parts].mean()) * inside
        kept = max(1 - lost, 0.0) ** 2
        pulled = inside**2 * w2
        follows = (homogeneity * gradient + pulled) / (gradient + pulled)
        fresh1, fresh2 = (1 - beta1) ** 2 * (gradient + pulled), (1 - beta2) * (gradient + pulled)
        old1, old2 = beta1**2 * total_m, beta2 * total_v
        total_m, total_v = old1 + fresh1, old2 + fresh2
        pm, qm = old1 / total_m, fresh1 / total_m * follows
        pv, qv = old2 / total_v, fresh2 / total_v * follows
        xa, xb, aa, ab, bb = (
            pm * xa + qm * xx,
            pv * xb + qv * xx,
            pm * pm * aa + 2 * pm * qm * xa + qm * qm * xx,
            pm * pv * ab + pm * qv * xa + pv * qm * xb + qm * qv * xx,
            pv * pv * bb + 2 * pv * qv * xb + qv * qv * xx,
        )
        made = 0.0
        if parts == 1:
            made = damped.leaves_normal(old_rows, counts[0], zeta, step * felt, one_power, one_across)
        if parts == 1:
            c4 = c4 * kept**2 + made
            off_normal = abs(c4) / (3 * (after / dim) ** 2)
            started = 1.0
        else:
            started = (share * centres[:, 0] ** 2).sum() * dim / after
        filled_now = pulled / (gradient + pulled)
        err = 0.0
        if coupled:
            err = wild / update_power + filled_now * off_normal * started
        f, g = kept * w2 / after, max(1 - kept * w2 / after, 0.0)
        iid = max(2.0, fourth / update_power**2 - 1) / dim
        noise_new = iid * max(1 - f * f, 0.0)
        xx_new = f * f * xx + 2 * f * g * (xa - xb) + g * g * (aa - 2 * ab + bb) + noise_new
        xa, xb = f * xa + g * (aa - ab), f * xb + g * (ab - bb)
        xx = xx_new
        ea, eb = pm * ea + qm * ex, pv * eb + qv * ex
        ex = f * ex + g * (ea - eb + 2 * err)
        record = records[t // window]
        if SHOW and (t % SHOW == 0 or t < 20):
            print(t, parts, 'filled', filled_now, 'e4', off_normal, 'u4', fourth / update_power**2 / 3, after, 'err', err, ex)
        radial = np.sqrt(after) - np.sqrt(w2)
        steeper = np.sqrt(moved / max(moved - radial * radial, 1e-12 * moved)) if moved > 0 else 1.0
        w2 = _record(record, w2, along, moved)
        spread = max(xx / 2 - 1 / dim, 0.0)
        on_norm = abs(off_norm) * dim / (2 * w2) / 2
        on_power = abs(off_power) / (2 * update_power) / 2
        record[3] += on_norm + spread + abs(ex) / 2
        record[4] += on_norm + (on_power + err) * steeper + spread + abs(ea - eb - ex) / 2
        record[5] += on_power + max(spread, (aa - 2 * ab + bb + iid) / 2 - 1 / dim) + err + abs(ea - eb) / 2


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
        deviation = np.sqrt(beta1**2 * m2 + (1 - beta1) ** 2 * gradient)
        now = beta1 * np.sqrt(m2) / deviation  # corr(c_t, m_{t-1})
        new = beta2**2 * m2 + (1 - beta2) ** 2 * gradient
        then = (beta1 * beta2 * m2 + (1 - beta1) * (1 - beta2) * gradient) / (deviation * np.sqrt(new))
        fade = beta2 * np.sqrt(m2 / new)  # corr(m_{t-1}, m_t)
        m2 = new
        across = 0.0  # E[w_{t-1}·u_t]
        for n in range(len(arcsine)):
            across -= 2 / np.pi * dim * arcsine[n] * now ** odd[n] * past[n]
            past[n] = (1 - decay) * fade ** odd[n] * past[n] + lr[t] * then ** odd[n]
        along = _along(lr[t], weight_decay[t], w2, lr[t], across)
        moved = _moved(lr[t], weight_decay[t], w2, lr[t], across, dim)
        w2 = _record(records[t // window], w2, along, moved)


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


def _run_adam(o: AdamW | AdamL2) -> tuple[Callable[..., None], float]:
    adam_covariance(*o.betas)  # refuses betas at which the update has no variance
    coupled = isinstance(o, AdamL2)
    starts = damped.starts() if coupled else (np.zeros(1), np.ones(1), np.ones(1))

    def run(dim: int, law: tuple[Any, ...]) -> None:
        strongest = np.maximum.accumulate(law[4][::-1])[::-1]
        fixed = (o.betas[0], max(o.betas[1], _SMALLEST), o.eps, coupled, damped.tables(), *starts, strongest)
        _adam(*fixed, float(dim), *law)

    return run, QUADRATURE


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
    AdamL2: _run_adam,
    AdamW: _run_adam,
    Lion: _run_lion,
    Rotational: _run_rotational,
}
