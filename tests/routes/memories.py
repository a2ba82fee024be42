"""Routes to a persistent mean and to gradients with a memory."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy import integrate, stats
from scipy.optimize import brentq

from tests.routes import (
    GENTLE,
    LEADING,
    STRONG,
    adamw,
    balance,
    lion_filter,
    projected,
    remembering,
    route,
    sgdm,
    stationary,
    walk,
)
from tests.routes.in_time import coordinates, covariance
from tests.routes.optimizers import BETAS

# --- a persistent mean ---------------------------------------------------------------------------


@route("adamw_fixed_norm_squared", "adamw_noise_share")
def _(f, name):
    wd, dim, r = 0.4, 16.0, 0.7
    x, weight = np.polynomial.hermite_e.hermegauss(8)
    weight = weight / weight.sum()
    u = (r + x) / math.sqrt(weight @ (r + x) ** 2)
    mean, w = weight @ u, 0.0
    if name == "adamw_noise_share":
        return [(f(r), weight @ (u - mean) ** 2)]
    for _ in range(800):
        w = (1 - 0.1 * wd) * w - 0.1 * mean
    return [(f(wd, dim, r), dim * w**2)]


@route("sgdm_fixed_norm_squared")
def _(f):
    wd, power, r, dim = 0.4, 3.0, 0.7, 16
    w, m = 0.0, 0.0
    for _ in range(2000):
        m = 0.5 * m + r * math.sqrt(power / dim) + wd * w
        w = w - 0.1 * m
    return [(f(wd, power, r), dim * w**2)]


@route("lion_sign_mean", "lion_fixed_norm_squared")
def _(f, name):
    wd, dim, r = 0.4, 16.0, 0.1
    weights = lion_filter(*BETAS)
    mean = 2 * stats.norm.cdf(r * weights.sum() / math.sqrt(weights @ weights)) - 1
    if name == "lion_sign_mean":
        return [(f(*BETAS, r), mean)]
    w = 0.0
    for _ in range(800):
        w = (1 - 0.1 * wd) * w - 0.1 * mean
    return [(f(wd, *BETAS, dim, r), dim * w**2)]


@route("sign_covariance_by_arc", tolerance=1e-5)
def _(f):
    """Central difference of the covariance of two signs with a mean, from the probability of a quadrant."""
    h, step = 0.7, 1e-3

    def product(arc):
        x, rest = math.sin(arc), math.cos(arc)
        both = integrate.quad(
            lambda z: stats.norm.pdf(z) * stats.norm.cdf((h + x * z) / rest), -h, 12, epsabs=1e-13, epsrel=1e-12
        )[0]
        return 4 * both - 4 * stats.norm.cdf(h) + 1

    return [(f(0.5, h), (product(0.5 + step) - product(0.5 - step)) / (2 * step))]


@route("adamw_takeover", tolerance=LEADING)
def _(f):
    """r² at which the mean weight's square is that of the noise's."""
    lr, wd = GENTLE
    return [(f(lr, wd), walk(adamw(lr, wd, 0.8))[0] * wd**2)]


@route("signal_alignment", "signal_squared_mean", "signal_pull", tolerance=1e-6)
def _(f, name):
    """Run the overlap with the mean to rest, decay against what projection leaves of the mean."""
    ell, square, target = 0.3, 2.0, 0.37

    def rest(mu):
        x = 0.0
        for _ in range(20_000):
            x -= 0.01 * (ell * x + mu * (1 - x * x / square))
        return x

    mu = brentq(lambda size: rest(size) ** 2 / square - target, 0.01, 3.0, xtol=1e-10)
    if name == "signal_squared_mean":
        return [(f(square, target, ell), mu**2)]
    if name == "signal_alignment":
        return [(f((mu / ell) ** 2 / square), target)]
    axis, other = np.eye(2)
    w = -math.sqrt(target * square) * axis + math.sqrt((1 - target) * square) * other
    left = mu * (axis - (axis @ w) / square * w)
    return [(f(target, ell), left @ other / (w @ other))]


@route("lion_left_of_a_sign")
def _(f):
    mean = 0.8 * 0.6
    up = (1 + mean) / 2
    return [(f(0.8, 0.6), up * (1 - mean) ** 2 + (1 - up) * (-1 - mean) ** 2)]


# --- gradients with a memory ---------------------------------------------------------------------

PHI = 0.6


@route(
    "sgdm_correlated_norm_squared", "adam_l2_correlated_norm_squared", "adam_l2_correlated_squared_rotation",
    "correlated_squared_rotation",
)  # fmt: skip
def _(f, name):
    power, growth = 2.2, 3.1
    if name == "correlated_squared_rotation":  # at a gentle decay, free gradients: F at β1 and at 1
        lr, wd, beta1 = 1e-5, 1e-3, 0.8
        free, white = remembering(adamw(lr, wd, beta1), PHI), walk(adamw(lr, wd, beta1))
        m = remembering_average(beta1, PHI)
        return [(round(f(m, free[0] / white[0]), 4), round(free[1] / white[1], 4))]
    pairs = []
    for p in (-1.0, -0.5):
        square = balance(growth, p if name.startswith("sgdm") else p / 2)
        plain = name.endswith("norm_squared")
        pairs.append((f(p, growth), square) if plain else (f(p, power, growth), power / square))
    return pairs


def remembering_average(beta, phi):
    """E m² under AR(1) gradients over that under white noise."""
    fresh = math.sqrt(1 - phi**2)
    c = stationary([[beta, (1 - beta) * phi], [0, phi]], [(1 - beta) * fresh, fresh])
    return c[0, 0] / stationary([[beta]], [1 - beta])[0, 0]


@route("average_power_factor")
def _(f):
    return [(f(0.8, PHI), remembering_average(0.8, PHI))]


@route("sgdm_free_gain", "sgdm_free_one_minus_cosine", "sgdm_projected_gain")
def _(f, name):
    lr, wd, alpha = *STRONG, 0.8
    if name == "sgdm_projected_gain":
        return [(f(lr, wd, alpha, PHI), projected(1.0, wd, alpha, 1.0, lr, PHI)[0])]
    found = remembering(sgdm(lr, wd, alpha), PHI)
    return [(f(lr, wd, alpha, PHI), found[name == "sgdm_free_one_minus_cosine"])]


@route("remembered_power", "damped_covariance", "averaged")
def _(f, name):
    """A gradient that remembers the last one enters m and v, point by point in probability."""
    beta1, beta2, zeta = 0.6, 0.8, 1.7
    last, m, fresh, chance = coordinates()
    if name == "remembered_power":
        variance = covariance(last, last, chance)
        z = PHI * last + math.sqrt(1 - PHI**2) * fresh * math.sqrt(4 / 3)  # of unit variance
        return [(f(PHI, variance), covariance(z, z, chance))]
    y = PHI * last + fresh + 0.2
    weighed = chance * np.exp(-zeta * (1 - beta2) * y**2)
    after = weighed / weighed.sum()
    if name == "averaged":
        new = beta1 * m + (1 - beta1) * y
        return [(f(beta1, after @ m, after @ y), after @ new)]
    yy, my, ly = (covariance(one, y, chance) for one in (y, m, last))
    given = beta2, zeta, yy
    return [
        (f(*given, covariance(m, last, chance), my, ly), covariance(m, last, after)),
        (f(*given, chance @ m, my, chance @ y), after @ m),
    ]


@route("lion_overlap_ratio", "lion_correlated_variance", "lion_correlated_covariance", "lion_correlated_rotation")
def _(f, name):
    overlap, covariance, growth = _filtered()
    if name == "lion_overlap_ratio":
        return [(f(*BETAS, PHI), overlap / covariance[0])]
    if name == "lion_correlated_variance":
        return [(f(*BETAS, PHI), covariance[0])]
    if name == "lion_correlated_covariance":
        return [(f(*BETAS, k, PHI), covariance[k]) for k in (1, 4)]
    return [(f(*BETAS, overlap / covariance[0]), 1 / growth)]


@cache
def _filtered():
    """E[c·g] and E[c_t c_{t+k}] by lag k, by the sum over all pairs of gradients; growth of ‖w‖² per step over η²C."""
    weights, age = lion_filter(*BETAS, 1200), np.arange(1200)
    covariance = {k: weights @ PHI ** np.abs(np.subtract.outer(age, age + k)) @ weights for k in (0, 1, 4)}
    # each sign with what earlier ones left of it in its own direction
    seen = PHI ** np.abs(np.subtract.outer(age, age)) @ weights  # Σ_i κ_i R_{n-i}
    inner = np.concatenate([[0.0], np.cumsum(seen)[:-1]])
    return weights @ PHI**age, covariance, 1 + 4 / math.pi * weights @ inner / covariance[0]


@route("lion_linear_sum")
def _(f):
    lr, wd = STRONG
    weights, age = lion_filter(*BETAS, 1200), np.arange(1200)
    seen = PHI ** np.abs(np.subtract.outer(age, age)) @ weights
    shifted = np.array([weights[j:] @ seen[: len(age) - j] for j in range(1200)])
    total = 2 / math.pi * sum((1 - lr * wd) ** j * shifted[j] / shifted[0] for j in range(1, 1200))
    return [(f(lr, wd, *BETAS, weights @ PHI**age / shifted[0]), total)]


def linear_lion(lr, wd, beta1, beta2, phi, steps=3000):
    """Lion with the sign made slope·c and white noise, E u² = 1, under projected AR(1) gradients: E w² at rest."""
    a, ww, wm, mm, wz, mz, gain = 1 - lr * wd, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0
    for _ in range(steps):
        wz, mz = phi * wz, phi * mz
        along = wz / ww
        gg, gw, gm, gz = 1 - along * wz, 0.0, mz - along * wm, 1 - along * wz
        new = 1 - beta1
        cc = beta1**2 * mm + 2 * beta1 * new * gm + new**2 * gg
        cw, cm, cz, cg = beta1 * wm + new * gw, beta1 * mm + new * gm, beta1 * mz + new * gz, beta1 * gm + new * gg
        # m' = β2 m + (1-β2) g
        fresh = 1 - beta2
        mm_new = beta2**2 * mm + 2 * beta2 * fresh * gm + fresh**2 * gg
        wm_new, mz_new, cm_new = beta2 * wm + fresh * gw, beta2 * mz + fresh * gz, beta2 * cm + fresh * cg
        gain = math.sqrt(2 / (math.pi * cc))
        ww_new = a * a * ww - 2 * a * lr * gain * cw + lr**2
        ww, wm, mm, wz, mz = ww_new, a * wm_new - lr * gain * cm_new, mm_new, a * wz - lr * gain * cz, mz_new
    return ww
