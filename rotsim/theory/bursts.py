r"""Lion under gradients whose scale changes from step to step in a known way: bursts.

The scales s_t are common to the coordinates of a neuron. Given them, c_t and m_t stay Gaussian with variances that
follow from them, and the arcsine law holds with these. A burst fills the momentum with one gradient: the signs of the
next steps are alike, the norm grows and the rotation falls. Correlations multiply along m (`derivations.transient`,
signs_that_change), so that the discounted sum over lags is a recursion for every power of the arcsine:

.. math::
    S_t = \sum_{k \ge 1} a^k \, \frac{2}{\pi} \arcsin r(c_{t-k}, c_t), \qquad
    E\langle w_{t-1}, \mathrm{sign}\, c_t \rangle = -\frac{\eta C}{a} S_t
"""

from __future__ import annotations

import numpy as np

from rotsim import closed_forms
from rotsim.arcsine import discounted_sum
from rotsim.kernels import compiled
from rotsim.optimizers import Lion
from rotsim.theory.sign import arcsine_modes
from rotsim.theory.steady import SteadyState
from rotsim.theory.walk import decoupled, running_sum

_LEAST = 1e-200  # of a mean square, in units of the mean: a gradient that is zero for long must not become 0/0


def _across(kept, lr, beta1, beta2, power, arcsine, square, homogeneity, dim, w2, across):  # type: ignore[no-untyped-def]
    first, m2 = w2, (1 - beta2) / (1 + beta2)  # as if the scale had been its mean before
    past = closed_forms.lion_entered(beta1, beta2, 1.0, m2) ** power / (
        1 - kept * closed_forms.lion_faded(beta2, 1.0, m2) ** power
    )
    for t in range(len(square)):
        gradient = max(square[t] * (w2 / first) ** homogeneity, _LEAST)
        reach, entry = (
            closed_forms.lion_seen(beta1, gradient, m2),
            closed_forms.lion_entered(beta1, beta2, gradient, m2),
        )
        fade = closed_forms.lion_faded(beta2, gradient, m2)
        m2 = max(closed_forms.lion_momentum_power(beta2, gradient, m2), _LEAST)
        total = 0.0
        for n in range(len(power)):
            total += arcsine[n] * reach ** power[n] * past[n]
            past[n] = kept * fade ** power[n] * past[n] + entry ** power[n]
        across[t] = -2 / np.pi * lr * dim * total
        w2 = kept**2 * w2 - 2 * kept * lr * across[t] + lr**2 * dim


_across = compiled(_across, "lion_bursts", {})


def burst_moments(
    optimizer: Lion, dim: int, series: np.ndarray, judged: slice | None = None, homogeneity: int = 0
) -> SteadyState:
    """Second moments of Lion's walk over a series of scales, from the norm at which it would stay.

    By the law of `derivations.lion_transient.signs_that_change`.

    Parameters
    ----------
    optimizer : Lion
        With ``weight_decay`` > 0.
    dim : int
        Fan-in C, >= 1.
    series : ndarray, shape (steps,)
        Scales s_t >= 0 of the gradient, in any unit, not all zero. Before them it is taken to have been steady.
    judged : slice, optional
        Steps to average over: by default the second half, in which the start is forgotten.
    homogeneity : int, 0 or -1
        In {0, -1}: the gradient has E‖g_t‖² ∝ s_t² (E‖w‖²)^homogeneity. 0 is for a measured series, which contains
        the norm, -1 for factors of scale-invariant noise.

    Returns
    -------
    SteadyState
        Means over the judged steps of E‖w‖², 1 - ρ and E‖Δw‖².
    """
    lr, decay = optimizer.lr, optimizer.lr * optimizer.weight_decay
    kept, judged = 1 - decay, slice(len(series) // 2, None) if judged is None else judged
    square = np.asarray(series, dtype=np.float64) ** 2
    square, across = square / square.mean(), np.empty(len(square))
    start, _ = _steady(optimizer, dim)
    for _ in range(1 + abs(homogeneity)):  # across depends on the start where the gradient follows the norm
        _across(kept, lr, *optimizer.betas, *arcsine_modes(), square, float(homogeneity), float(dim), start, across)
        drive = lr**2 * dim - 2 * kept * lr * across
        start = drive[judged].mean() / (1 - kept**2)
    after = running_sum(drive, kept**2, start)
    before = np.append(start, after[:-1])
    moved = closed_forms.walk_moved(lr, optimizer.weight_decay, before, lr, across, dim)
    chord = (moved - (np.sqrt(after) - np.sqrt(before)) ** 2) / np.sqrt(after * before)
    relaxation = closed_forms.lion_relaxation_steps(lr, optimizer.weight_decay)
    means = (float(values[judged].mean()) for values in (after, chord / 2, moved))
    norm_squared, one_minus_cosine, update_squared = means
    return SteadyState(norm_squared, one_minus_cosine, relaxation, update_squared=update_squared)


def burst_factors(optimizer: Lion, series: np.ndarray, judged: slice | None = None) -> tuple[float, float]:
    """Rotation and norm of Lion under bursts, over those under gradients of one scale; arguments as in `burst_moments`.

    Both by `derivations.lion_transient.signs_that_change`.
    """
    bursting = burst_moments(optimizer, 1, series, judged)
    norm_squared, half = _steady(optimizer, 1)
    return (
        float(np.sqrt(bursting.one_minus_cosine / half)),
        float(np.sqrt(bursting.norm_squared / norm_squared)),
    )


def _steady(o: Lion, dim: int) -> tuple[float, float]:
    """E‖w‖² and 1 - ρ without bursts."""
    return decoupled(o.lr, o.weight_decay, dim, discounted_sum(1 - o.lr * o.weight_decay, *o.betas))
