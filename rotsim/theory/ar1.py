r"""Equilibrium under AR(1) gradients, which resemble those before them: E z_t z_{t+k} = φ^k.

Gradients orthogonal to the weights lose what the noise repeats along w; others do not, and their weights grow by the
noise's spectral density at frequency zero. One coordinate under all but SGDM, in units of the noise, ℓ the decay inside
v and c the projection (derivations.correlated_adam):

.. math::
    r^i_t = ρ_i r^i_{t-1} + (1-ρ_i)\, w_{t-1}, \qquad
    w_t = a\, w_{t-1} - η \left( u_t + (ℓ - c)\, κ \sum_i s_i r^i_t \right), \qquad c\, E w^2 = E[w_t z_{t+1}]

u has the autocovariance of `correlated_moment`, with v as random as it is; κ, s and ρ are its answer to a pull. Lion's
signs have that of the arcsine law, and answer by its slope (derivations.lion_autocorrelated.lion_answer). Exact as
η·weight_decay → 0, under Adam also for constant v; neglected are products of the pull and what is not linear. Declared
is the share of the pull in the power of what is averaged, and for Lion in that of the sign's argument, and
4 φ² η·weight_decay. Under Adam+L2 only the ratio to white noise is taken from this, since that is known exactly.
SGDM is linear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import isfinite, sqrt
from typing import NamedTuple

import numpy as np
import scipy

from rotsim import closed_forms
from rotsim.gradients import GradientPower
from rotsim.optimizers import SGDM, AdamL2, AdamW, Lion
from rotsim.optimizers.base import Method, Moments, Optimizer
from rotsim.theory.correlated_moment import CorrelatedUpdate, correlated_update
from rotsim.theory.fixed_point import bracketed_root, noise_variance, settled
from rotsim.theory.sign import correlated_covariance, discounted_excess

_SWEEPS = 30  # of v and of what depends on it
_CLOSE = 1e-13
_FAR = 20.0  # of log size
_LEAST_BETA = 1e-6  # of Lion's momentum, which is divided by: the rest of a shorter memory is as good as none


class Remembering(NamedTuple):
    """Stationary walk of one coordinate under unit noise: E w², 1 - ρ, and E[w_t z_{t+1}]."""

    square: float
    one_minus_cosine: float
    overlap: float


def remembering(lr: float, pull: float, kept: float, correlation: float, update: CorrelatedUpdate) -> Remembering:
    """The walk of the module docstring for a given pull (ℓ - c)κ.

    Parameters
    ----------
    lr : float
        η > 0.
    pull : float
        Of any sign.
    kept : float
        a in (0, 1], what decoupled decay leaves of the weights.
    correlation : float
        φ of `update`, in (-1, 1).
    update : CorrelatedUpdate

    Returns
    -------
    Remembering
        Of infinite square where the walk diverges.

    Notes
    -----
    `derivations.correlated_adam.walk` and `overlap_with_the_next`.
    """
    roots = update.roots
    # rows of the state (w, r) after a step, apart from the noise
    moved = np.append(-(update.shares * (1 - roots)).sum(), -update.shares * roots) * lr * pull
    moved[0] += kept - 1
    transition = np.diag(np.append(0.0, roots))
    transition[0], transition[1:, 0] = moved, 1 - roots
    transition[0, 0] += 1
    if np.abs(np.linalg.eigvals(transition)).max() >= 1:
        return Remembering(np.inf, 2.0, 0.0)
    first = np.eye(4)[0]
    # every state that a step becomes, lag by lag, in doubling blocks
    lags = len(update.covariance) - 1
    later, power = first[:, None], transition
    while later.shape[1] < lags:
        later, power = np.hstack([later, power @ later]), power @ power
    with_next = -lr * later[:, :lags] @ update.covariance[1:]  # E[state · u_{t+1}]
    crossed = np.outer(transition @ with_next, first)
    fresh = lr**2 * update.covariance[0] * np.outer(first, first)
    state = scipy.linalg.solve_discrete_lyapunov(transition, fresh - lr * (crossed + crossed.T), method="direct")
    change = moved @ state @ moved - 2 * lr * moved @ with_next + lr**2 * update.covariance[0]
    seen = np.linalg.solve(np.eye(4) - correlation * transition, first)[0]
    return Remembering(
        float(state[0, 0]),
        float(change / (2 * state[0, 0])),
        float(-lr * update.overlap * correlation * seen),
    )


def autocorrelated_moments(
    optimizer: Optimizer, dim: int, law: GradientPower, method: Method, white: Moments
) -> Moments:
    """Steady state under AR(1) gradients.

    Parameters
    ----------
    optimizer : AdamW, AdamL2, SGDM or Lion
        With ``weight_decay`` > 0.
    dim : int
        Fan-in C >= 2.
    law : GradientPower
        With ``correlation``.
    method : {"exact", "leading"}
    white : Moments
        The same under white noise.

    Returns
    -------
    Moments

    Raises
    ------
    KeyError
        For any other optimizer.

    Notes
    -----
    `derivations.autocorrelated` and `derivations.correlated_adam`.
    """
    return _WALKS[type(optimizer)](optimizer, dim, law, method, white)


def _adam(o: AdamW | AdamL2, dim: int, law: GradientPower, method: Method, white: Moments) -> Moments:
    if method == "leading":
        power, growth = _factors(o.betas[0], law)
        if isinstance(o, AdamW):
            return _by_factors(white, growth, closed_forms.correlated_squared_rotation(power, growth))
        norm = closed_forms.adam_l2_correlated_norm_squared(law.homogeneity, growth)
        turn = closed_forms.adam_l2_correlated_squared_rotation(law.homogeneity, power, growth)
        return _by_factors(white, norm, turn)
    plain = _adam_walk(o, dim, law, 0.0, white.norm_squared)
    found = _adam_walk(o, dim, law, law.correlation, white.norm_squared)
    moments = _by_factors(white, found[0] / plain[0], found[1] / plain[1])
    return replace(moments, model_error=white.model_error + found[2])


def _adam_walk(
    o: AdamW | AdamL2, dim: int, law: GradientPower, correlation: float, start: float
) -> tuple[float, float, float]:
    """E‖w‖², 1 - ρ and the share of the gradient's power that moves with w."""
    coupled = isinstance(o, AdamL2)
    update = correlated_update(*o.betas, correlation)
    kept, decay = (1.0, o.weight_decay) if coupled else (1 - o.lr * o.weight_decay, 0.0)

    def at(norm_squared: float) -> tuple[float, float, float]:
        noise = noise_variance(law, dim, norm_squared)
        v = noise
        for _ in range(_SWEEPS):
            pull = decay * update.response / sqrt(v)
            projected = _projection(o.lr, pull, kept, correlation, update) if law.homogeneity else 0.0
            walk = remembering(o.lr, pull + projected, kept, correlation, update)
            if not isfinite(walk.square):
                return np.inf, 2.0, np.inf
            overlap = walk.overlap * noise / sqrt(v)  # E w·g, before projection
            along = overlap**2 * v / noise / walk.square if law.homogeneity else 0.0  # of the noise, projected away
            # of λw, where it meets an overlap as this walk has it: else v might be negative
            power = decay**2 * (norm_squared / dim if law.homogeneity else walk.square * noise / v)
            before, v = v, noise - along + power + (0.0 if law.homogeneity else 2 * decay * overlap)
            if abs(v / before - 1) < _CLOSE:
                break
        return dim * walk.square * noise / v, walk.one_minus_cosine, (along + power) / noise

    norm_squared = settled(lambda given: at(given)[0], start)
    return (norm_squared, *at(norm_squared)[1:])


def _projection(lr: float, pull: float, kept: float, correlation: float, update: CorrelatedUpdate) -> float:
    """-cκ, at which what is projected away is what the noise repeats along w."""

    def excess(projected: float) -> float:
        walk = remembering(lr, pull + projected, kept, correlation, update)
        return projected + update.response * walk.overlap / walk.square  # of a walk that diverges, the first alone

    repeated = correlation * update.overlap
    if repeated == 0:
        return 0.0
    lost = pull + (1 - kept) / lr
    if repeated < 0:  # pushes outwards, less than decay pulls in
        return float(bracketed_root(excess, -lost * (1 - 1e-9), 0.0, xtol=1e-16 * lost, rtol=1e-13))
    high = lost
    while excess(high) < 0:
        high *= 2
    return float(bracketed_root(excess, 0.0, high, xtol=1e-16 * lost, rtol=1e-13))


def _factors(beta: float, law: GradientPower) -> tuple[float, float]:
    """Of E‖m‖², and of growth: that where gradients are orthogonal to w, by their spectral density at 0 elsewhere."""
    power = closed_forms.average_power_factor(beta, law.correlation)
    return power, power if law.homogeneity else closed_forms.average_power_factor(1.0, law.correlation)


def _by_factors(white: Moments, norm_squared: float, squared_rotation: float) -> Moments:
    return replace(
        white,
        norm_squared=white.norm_squared * norm_squared,
        one_minus_cosine=white.one_minus_cosine * squared_rotation,
    )


def _sgdm(o: SGDM, dim: int, law: GradientPower, method: Method, white: Moments) -> Moments:
    hyper = (o.lr, o.weight_decay, o.momentum, law.correlation)
    if method == "leading":
        power, growth = _factors(o.momentum, law)
        norm_squared = closed_forms.sgdm_correlated_norm_squared(law.homogeneity, growth)
        return _by_factors(white, norm_squared, closed_forms.correlated_squared_rotation(power, growth))
    if law.homogeneity:
        gain, half = closed_forms.sgdm_projected_gain(*hyper), white.one_minus_cosine
    else:
        gain, half = closed_forms.sgdm_free_gain(*hyper), closed_forms.sgdm_free_one_minus_cosine(*hyper)
    norm_squared = (gain * law.scale_squared) ** (1 / (1 - law.homogeneity))
    return replace(white, norm_squared=float(norm_squared), one_minus_cosine=float(half))


def _lion(o: Lion, dim: int, law: GradientPower, method: Method, white: Moments) -> Moments:
    kept = 1 - o.lr * o.weight_decay if method == "exact" else 1.0
    if method == "leading" and law.homogeneity:
        covariance = correlated_covariance(*o.betas, law.correlation)
        excess = discounted_excess(kept, covariance, closed_forms.lion_correlated_variance(*o.betas, law.correlation))
        ratio = closed_forms.lion_overlap_ratio(*o.betas, law.correlation)
        total = closed_forms.lion_linear_sum(o.lr, o.weight_decay, *o.betas, ratio) + excess
    else:
        update = signs(o, law.correlation)
        if law.homogeneity:
            return _projected_lion(o, dim, law.correlation, update, white)
        total = float((kept ** np.arange(1, len(update.covariance)) * update.covariance[1:]).sum())
    norm_squared = closed_forms.lion_exact_norm_squared(o.lr, o.weight_decay, dim, total)
    half = closed_forms.lion_exact_one_minus_cosine(o.lr, o.weight_decay, total)
    return replace(white, norm_squared=float(norm_squared), one_minus_cosine=float(half))


def signs(o: Lion, correlation: float) -> CorrelatedUpdate:
    """Lion's signs under gradients that know nothing of the weights, and their answer to a pull.

    Parameters
    ----------
    o : Lion
    correlation : float
        φ in (-1, 1).

    Returns
    -------
    CorrelatedUpdate

    Notes
    -----
    `derivations.lion_autocorrelated.lion_covariance` and `lion_answer`.
    """
    beta1, beta2 = o.betas[0], max(o.betas[1], _LEAST_BETA)
    variance = closed_forms.lion_correlated_variance(beta1, beta2, correlation)
    covariance = 2 / np.pi * np.arcsin(correlated_covariance(beta1, beta2, correlation) / variance)
    slope = float(np.sqrt(2 / np.pi / variance))
    overlap = slope * variance * closed_forms.lion_overlap_ratio(beta1, beta2, correlation)
    lasting = beta1 / beta2  # the momentum as if it had begun with the newest gradient, which the second share mends
    shares = np.array([lasting, 1 - lasting, 0.0])
    return CorrelatedUpdate(np.append(1.0, covariance), float(overlap), slope, shares, np.array([beta2, 0.0, 0.0]))


def _projected_lion(o: Lion, dim: int, correlation: float, update: CorrelatedUpdate, white: Moments) -> Moments:
    kept = 1 - o.lr * o.weight_decay
    walk, share = unit_steps(
        o.lr, kept, correlation, update, lambda signs: _projection(o.lr, 0.0, kept, correlation, signs)
    )
    error = white.model_error + share + 4 * correlation**2 * o.lr * o.weight_decay  # the 4: after a look at 300 walks
    norm_squared = dim * walk.square
    return replace(white, norm_squared=norm_squared, one_minus_cosine=walk.one_minus_cosine, model_error=error)


def unit_steps(
    lr: float, kept: float, correlation: float, update: CorrelatedUpdate, pull: Callable[[CorrelatedUpdate], float]
) -> tuple[Remembering, float]:
    """Lion's walk with a pull: free signs and the answer to it are scaled so that together they have the size of one.

    Parameters
    ----------
    lr : float
        η > 0.
    kept : float
        a in (0, 1].
    correlation : float
        φ of `update`, in (-1, 1).
    update : CorrelatedUpdate
        Of signs, as `signs` has it.
    pull : callable
        The pull on signs whose answer is scaled.

    Returns
    -------
    walk : Remembering
    share : float
        Power of the pull in the sign's argument over that of the noise.

    Notes
    -----
    `derivations.lion_autocorrelated.lion_answer`.
    """

    def scaled(size: float) -> tuple[Remembering, float]:
        signs = replace(
            update,
            covariance=size**2 * update.covariance,
            overlap=size * update.overlap,
            response=size * update.response,
        )
        pulled = pull(signs)
        return remembering(lr, pulled, kept, correlation, signs), pulled

    def excess(log_size: float) -> float:
        walk, _ = scaled(float(np.exp(log_size)))
        if not isfinite(walk.square):
            return _FAR
        moved = kept * 2 * walk.one_minus_cosine + (1 - kept) ** 2  # E(w' - aw)² over E w²
        return float(np.log(moved * walk.square / lr**2))

    size = 0.0
    if abs(excess(0.0)) > _CLOSE:
        size = bracketed_root(excess, -_FAR, 1.0, xtol=_CLOSE)
    walk, pulled = scaled(float(np.exp(size)))
    return walk, float(pulled**2 * walk.square * np.pi / 2)


_WALKS: dict[type[Optimizer], Callable[..., Moments]] = {
    AdamW: _adam,
    AdamL2: _adam,
    SGDM: _sgdm,
    Lion: _lion,
}
