"""Routes to what a random v does, and to the steps of courses in time."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from tests.routes import STRONG, route, sgdm, stationary

# --- a random v ----------------------------------------------------------------------------------


@cache
def coordinates(order=32):
    """Points of w, m and a new gradient, jointly Gaussian with a mean, and their probabilities."""
    x, chance = np.polynomial.hermite_e.hermegauss(order)
    chance = chance / chance.sum()
    one, two, three = (part.ravel() for part in np.meshgrid(x, x, x, indexing="ij"))
    w, m, g = 0.4 + 0.7 * one, -0.3 + 0.35 * one + 0.5 * two, math.sqrt(3.0 / 4.0) * three
    return w, m, g, np.einsum("i,j,k->ijk", chance, chance, chance).ravel()


def covariance(one, other, chance):
    return chance @ (one * other) - (chance @ one) * (chance @ other)


@route(
    "damped_pull", "damped_share", "damped_share_of_mean", "damped_weight", "damped_momentum", "damped_pull_mean",
    "damped_weight_square", "damped_overlap", "damped_momentum_square",
)  # fmt: skip
def _(f, name):
    """What e^(-ζv) makes of probabilities, point by point, when the newest gradient is in v."""
    wd, beta1, beta2, zeta = 0.8, 0.6, 0.8, 1.7
    w, m, g, chance = coordinates()
    y = g + wd * w
    new = beta1 * m + (1 - beta1) * y
    before = {"w": chance @ w, "m": chance @ m}
    ww, wm, mm, yy = (covariance(*pair, chance) for pair in ((w, w), (w, m), (m, m), (y, y)))
    weighed = chance * np.exp(-zeta * (1 - beta2) * y**2)
    centred = chance @ np.exp(-zeta * (1 - beta2) * (y - chance @ y) ** 2)
    after = weighed / weighed.sum()
    return {
        "damped_pull": lambda: [(f(wd, 4.0, 3.0, ww), yy)],
        "damped_share": lambda: [(f(beta2, zeta, yy), centred)],
        "damped_share_of_mean": lambda: [(f(wd, beta2, zeta, before["w"], yy), weighed.sum() / centred)],
        "damped_weight": lambda: [(f(wd, beta2, zeta, before["w"], ww, yy), after @ w)],
        "damped_momentum": lambda: [(f(wd, beta2, wm, zeta, before["w"], before["m"], yy), after @ m)],
        "damped_pull_mean": lambda: [(f(wd, beta2, zeta, before["w"], yy), after @ y)],
        "damped_weight_square": lambda: [(f(wd, beta2, zeta, ww, yy), covariance(w, w, after))],
        "damped_overlap": lambda: [(f(wd, beta1, beta2, wm, zeta, ww, yy), covariance(w, new, after))],
        "damped_momentum_square": lambda: [(f(wd, beta1, beta2, wm, mm, zeta, yy), covariance(new, new, after))],
    }[name]()


@route("moved_weight", "moved_overlap", "moved_weight_square")
def _(f, name):
    """Three coordinates with a v of their own take a step."""
    lr, wd, h = 0.3, 0.8, 0.4
    w, m, v = np.array([0.9, -0.2, 1.4]), np.array([0.5, -0.7, 0.3]), np.array([0.6, 1.9, 1.1])
    weight = np.array([0.5, 0.2, 0.3]) * np.exp(-0.7 * v)
    u = m / np.sqrt(v)
    new = w - lr * wd * w - h * u
    return {
        "moved_weight": lambda: [(f(lr, wd, h, weight @ w, weight @ u), weight @ new)],
        "moved_overlap": lambda: [(f(lr, wd, h, weight @ (w * m), weight @ (u * m)), weight @ (new * m))],
        "moved_weight_square": lambda: [
            (f(lr, wd, h, weight @ (w * u), weight @ u**2, weight @ w**2), weight @ new**2)
        ],
    }[name]()


def joint_cumulant(a, b, c, d, chance):
    """Of four variables of mean 0."""
    pairs = [((a, b), (c, d)), ((a, c), (b, d)), ((a, d), (b, c))]
    return chance @ (a * b * c * d) - sum((chance @ (p * q)) * (chance @ (r * s)) for (p, q), (r, s) in pairs)


@route("fourth_cumulant")
def _(f):
    """Gaussian weights, and an update that depends on them in a way that is not straight."""
    x, chance = np.polynomial.hermite_e.hermegauss(16)
    chance = np.outer(chance, chance).ravel() / chance.sum() ** 2
    w, other = (part.ravel() for part in np.meshgrid(1.3 * x, x, indexing="ij"))
    u, h = 0.3 * w + 0.1 * w**3 + 0.5 * other * w**2, 0.7
    mixed = [joint_cumulant(*four, chance) for four in ((w, w, w, u), (w, w, u, u), (w, u, u, u), (u, u, u, u))]
    return [(f(h, *mixed), joint_cumulant(*[w - h * u] * 4, chance))]


@route("norm_response")
def _(f):
    """The slope of the norm's own map W → kW + c m²/v, whose m² and v have a gradient of power W^p in them."""
    p, square = -0.7, 1.6

    def parts(w):
        return 0.8 * w, 0.4 + 0.5 * w**p, 0.9 + 0.2 * w**p

    def after(w):
        kept, m, v = parts(w)
        return kept + 0.3 * m / v

    kept, m, v = parts(square)
    slope = np.imag(np.log(after(square * (1 + 1e-30j)))) / 1e-30
    return [(f(kept / after(square), p * 0.5 * square**p / m, p * 0.2 * square**p / v), slope)]


# --- courses in time -----------------------------------------------------------------------------


def vectors(count, dim=7, seed=4):
    return np.random.default_rng(seed).standard_normal((count, dim))


@route("walk_mode_overlap", "walk_settled_overlap", "rotational_mode_overlap")
def _(f, name):
    """One mode: u is AR(1) with E u² = p and root μ, X = E w·u."""
    lr, wd, h, p, mu = 0.02, 1.5, 0.05, 0.4, 0.8
    a = 1 - lr * wd
    step = np.array([[a, -h * mu], [0, mu]])
    entry = math.sqrt(p * (1 - mu**2)) * np.array([-h, 1.0])
    if name == "walk_settled_overlap":
        return [(f(lr, wd, h, p, mu), stationary(step, entry)[0, 1])]
    old = np.array([[1.3, -0.2], [-0.2, p]])
    new = (step @ old @ step.T + np.outer(entry, entry))[0, 1]
    return [(f(h, -0.2, p, mu, a) if name.startswith("rotational") else f(lr, wd, h, -0.2, p, mu), new)]


@route("walk_along", "walk_moved")
def _(f, name):
    lr, wd, h = 0.02, 1.5, 0.05
    w, u = vectors(2)
    moved = -lr * wd * w - h * u
    if name == "walk_along":
        return [(f(lr, wd, w @ w, h, w @ u), w @ moved)]
    return [(f(lr, wd, w @ w, h, w @ u, u @ u), moved @ moved)]


@route("sgdm_across", "sgdm_momentum_power", "sgdm_momentum_overlap")
def _(f, name):
    wd, alpha, h = 0.3, 0.8, 0.05
    w, m, raw = vectors(3)
    basis, _ = np.linalg.qr(np.stack([w, m], axis=1))
    g = raw - basis @ (basis.T @ raw)
    new = alpha * m + wd * w + g
    return {
        "sgdm_across": lambda: [(f(wd, alpha, w @ w, w @ m), w @ new)],
        "sgdm_momentum_power": lambda: [(f(wd, alpha, w @ w, w @ m, g @ g, m @ m), new @ new)],
        "sgdm_momentum_overlap": lambda: [(f(h, w @ new, new @ new), (w - h * new) @ new)],
    }[name]()


@route("sgdm_fallen")
def _(f):
    lr, wd, alpha = *STRONG, 0.8
    transition, entry = sgdm(lr, wd, alpha)
    c = stationary(transition, entry)
    fallen = [1 - (np.linalg.matrix_power(transition, k) @ c)[0, 0] / c[0, 0] for k in range(4)]
    return [(f(lr, wd, alpha, fallen[k - 1], fallen[k - 2]), fallen[k]) for k in (2, 3)]


@route("walk_decayed", "walk_taken", "walk_taken_alike")
def _(f, name):
    lr, wd, k = 0.02, 1.5, 5
    a = 1 - lr * wd
    if name == "walk_decayed":
        return [(f(lr, wd, k), 1 - math.prod([a] * k))]
    mu = 0.7 if name == "walk_taken" else a
    total = sum(a ** (k - i) * mu**i for i in range(1, k + 1))
    return [(f(lr, wd, k, mu) if name == "walk_taken" else f(lr, wd, k), total)]
