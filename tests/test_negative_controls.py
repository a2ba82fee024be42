"""A negative control for every closed form: change one sign or coefficient, and an independent route notices.

Each route computes the same number without sympy and without another closed form: stationary covariances from a
Lyapunov solver, recursions run as they are defined, sums term by term, quadratures, vectors. A mutant is the generated
function with one + and − exchanged, one · and /, or one constant raised by one.
"""

from __future__ import annotations

import ast
import copy
import inspect
import math
from functools import cache

import mpmath
import numpy as np
import pytest
from scipy import integrate, stats
from scipy.linalg import solve_discrete_lyapunov
from scipy.optimize import brentq

from rotsim import closed_forms as forms

FUNCTIONS = dict(inspect.getmembers(forms, inspect.isfunction))
EXACT, LEADING = 1e-8, 2e-3
ROUTES = {}


def route(*names, tolerance=EXACT):
    """Register ``check(f) -> [(found, reference), ...]`` as the independent route of some formulas."""

    def register(check):
        for name in names:
            ROUTES[name] = (check if len(names) == 1 else lambda f, name=name: check(f, name)), tolerance
        return check

    return register


# --- tools ---------------------------------------------------------------------------------------


def stationary(transition, *entries):
    """Covariance of x_t = A x_{t-1} + Σ b e_t."""
    return solve_discrete_lyapunov(np.array(transition, float), sum(np.outer(b, b) for b in entries))


def adamw(lr, wd, beta1, pull=0.0):
    """(w, m) per unit noise."""
    a, new = 1 - lr * wd, 1 - beta1
    return [[a - lr * new * pull, -lr * beta1], [new * pull, beta1]], [-lr * new, new]


def sgdm(lr, wd, momentum):
    return [[1 - lr * wd, -lr * momentum], [wd, momentum]], [-lr, 1.0]


def adam_l2(lr, wd, beta1, v):
    step, new = lr / math.sqrt(v), 1 - beta1
    return [[1 - step * new * wd, -step * beta1], [new * wd, beta1]], [-step * new, new]


def walk(system):
    """E w² and 1 - ρ per unit noise."""
    transition, entry = system
    c = stationary(transition, entry)
    return c[0, 0], 1 - (np.array(transition) @ c)[0, 0] / c[0, 0]


def remembering(system, phi):
    """The same walk under AR(1) noise z: state (w, m, z)."""
    transition, entry = (np.array(part, float) for part in system)
    wide = np.zeros((3, 3))
    wide[:2, :2], wide[:2, 2], wide[2, 2] = transition, entry * phi, phi
    fresh = math.sqrt(1 - phi**2)
    c = stationary(wide, [*(entry * fresh), fresh])
    return c[0, 0], 1 - (wide @ c)[0, 0] / c[0, 0], phi * c[0, 2]


def projected(a, from_w, from_m, entry, lr, phi, steps=6000):
    """Inner products of w, m, z in high dimension, z AR(1), its part along w taken out in every step."""
    ww, wm, mm, wz, mz = 1.0, 0.0, 0.0, 0.0, 0.0  # z·z = 1; of z at the last step
    for _ in range(steps):
        wz, mz = phi * wz, phi * mz  # with the new z
        along = wz / ww
        # m' = from_w·w + from_m·m + entry·(z - along·w)
        p, q, r = from_w - entry * along, from_m, entry
        new_mm = p * p * ww + q * q * mm + r * r + 2 * (p * q * wm + p * r * wz + q * r * mz)
        w_new, z_new = p * ww + q * wm + r * wz, p * wz + q * mz + r
        share = wz**2 / ww
        ww_new = a * a * ww - 2 * a * lr * w_new + lr**2 * new_mm
        rho = (a * ww - lr * w_new) / ww
        ww, wm, mm, wz, mz = ww_new, a * w_new - lr * new_mm, new_mm, a * wz - lr * z_new, z_new
    return ww, 1 - rho, share


def lion_filter(beta1, beta2, terms=6000):
    """Weights of past gradients in Lion's direction, by running the recurrence on an impulse."""
    m, found = 0.0, np.empty(terms)
    for step in range(terms):
        g = 1.0 if step == 0 else 0.0
        found[step] = beta1 * m + (1 - beta1) * g
        m = beta2 * m + (1 - beta2) * g
    return found


def slope(variance):
    """E|c|/E c² of a Gaussian, by quadrature."""
    size = integrate.quad(lambda x: x * math.exp(-(x**2) / (2 * variance)), 0, 40 * math.sqrt(variance))[0]
    return 2 * size / math.sqrt(2 * math.pi * variance) / variance


def same_signs(correlation):
    """E sign·sign of two Gaussians, from the probability of a quadrant by quadrature over the first."""
    rest = math.sqrt(1 - correlation**2)
    both = integrate.quad(lambda x: stats.norm.pdf(x) * stats.norm.cdf(correlation * x / rest), 0, 12, epsabs=1e-13)[0]
    return 4 * both - 1


def balance(grow, power):
    """W of growth grow·W^power = W."""
    return brentq(lambda w: grow * w**power / w - 1, 1e-6, 1e6, xtol=1e-14, rtol=1e-14)


def slowest(step, point):
    """Steps per e-fold of the slowest mode of a map, from its Jacobian."""
    jacobian = np.empty((len(point), len(point)))
    for i in range(len(point)):
        moved = np.array(point, complex)
        moved[i] += 1e-30j
        jacobian[:, i] = np.imag(step(moved)) / 1e-30
    return -1 / math.log(np.max(np.abs(np.linalg.eigvals(jacobian))))


def moments_map(system_and_variance):
    """One step of (E w², E wm, E m²); system and noise may follow E w²."""

    def step(x):
        (transition, entry), variance = system_and_variance(x[0])
        transition, entry = np.array(transition), np.array(entry)
        new = transition @ np.array([[x[0], x[1]], [x[1], x[2]]]) @ transition.T + np.outer(entry, entry) * variance
        return np.array([new[0, 0], new[0, 1], new[1, 1]])

    return step


def at_rest(system, variance):
    c = stationary(*system) * variance
    return [c[0, 0], c[0, 1], c[1, 1]]


def l2_fixed_point(lr, wd, beta1, dim, power, p):
    """E‖w‖² of Adam+L2 for constant v."""

    def image(w):
        noise = power * w**p / dim
        return dim * walk(adam_l2(lr, wd, beta1, noise + wd**2 * w / dim))[0] * noise

    root = brentq(lambda x: math.log(image(math.exp(x))) - x, -12, 12, xtol=1e-13)
    return math.exp(root)


GENTLE, STRONG = (1e-3, 5e-3), (0.02, 1.5)  # lr, weight decay

# --- AdamW ---------------------------------------------------------------------------------------


@route("adamw_leading_rotation", "adamw_leading_norm", tolerance=LEADING)
def _(f, name):
    square, half = walk(adamw(*GENTLE, 0.8))
    if name == "adamw_leading_norm":
        return [(f(*GENTLE, 48.0), math.sqrt(48 * square))]
    return [(f(*GENTLE, 0.8), math.sqrt(2 * half))]


@route("adamw_exact_norm_squared", "adamw_exact_one_minus_cosine")
def _(f, name):
    square, half = walk(adamw(*STRONG, 0.8))
    return [(f(*STRONG, 0.8, 48.0), 48 * square) if name == "adamw_exact_norm_squared" else (f(*STRONG, 0.8), half)]


@route("adamw_relaxation_steps", "lion_relaxation_steps", tolerance=LEADING)
def _(f, name):
    return [(f(*GENTLE), slowest(lambda x: x * (1 - GENTLE[0] * GENTLE[1]) ** 2, [1.0]))]


@route("adamw_lagged_relaxation_steps", tolerance=LEADING)
def _(f):
    lr, wd, beta2, p = 1e-3, 0.05, 0.9998, -1

    def step(x):
        return np.array([x[0] * (1 - 2 * lr * wd) + lr**2 * x[0] ** p / x[1], beta2 * x[1] + (1 - beta2) * x[0] ** p])

    w = lr / (2 * wd)
    return [(f(lr, wd, beta2, p), slowest(step, [w, w**p]))]


# --- Adam+L2 -------------------------------------------------------------------------------------


@route("adam_l2_leading_norm", "adam_l2_leading_rotation", tolerance=LEADING)
def _(f, name):
    pairs = []
    for p in (0.0, -1.0):
        lr, wd, beta1, dim, power = 1e-7, 1e-2, 0.8, 16.0, 3.0
        w = l2_fixed_point(lr, wd, beta1, dim, power, p)
        half = walk(adam_l2(lr, wd, beta1, power * w**p / dim + wd**2 * w / dim))[1]
        if name == "adam_l2_leading_norm":
            pairs.append((f(lr, wd, dim, power, p), math.sqrt(w)))
        else:
            pairs.append((f(lr, wd, beta1, dim, power, p), math.sqrt(2 * half)))
    return pairs


@route("adam_l2_second_moment")
def _(f):
    x, weight = np.polynomial.hermite_e.hermegauss(6)
    g, w = np.meshgrid(x * math.sqrt(3.0 * 2.0**-1 / 16), x * math.sqrt(2.0 / 16))
    mean = ((g + 0.3 * w) ** 2 * np.outer(weight, weight)).sum() / weight.sum() ** 2
    return [(f(0.3, 16.0, 2.0, 3.0, -1.0), mean)]


@route("adam_l2_exact_norm_squared_map", "adam_l2_exact_one_minus_cosine")
def _(f, name):
    lr, wd, beta1, dim, w, power, p = 0.05, 0.3, 0.8, 16.0, 2.0, 3.0, -1.0
    noise = power * w**p / dim
    v = noise + wd**2 * w / dim
    square, half = walk(adam_l2(lr, wd, beta1, v))
    if name == "adam_l2_exact_one_minus_cosine":
        return [(f(lr, wd, beta1, v), half)]
    return [(f(lr, wd, beta1, dim, w, power, p), dim * square * noise)]


@route("adam_l2_relaxation_steps", tolerance=LEADING)
def _(f):
    lr, wd, beta1, power, p = 1e-6, 1e-2, 0.5, 3.0, -1.0
    w = l2_fixed_point(lr, wd, beta1, 1.0, power, p)

    def at(square):
        noise = power * square**p
        return adam_l2_by(lr, wd, beta1, noise + wd**2 * square), noise

    v = power * w**p + wd**2 * w
    return [(f(lr, wd, v, p), slowest(moments_map(at), at_rest(adam_l2(lr, wd, beta1, v), power * w**p)))]


def adam_l2_by(lr, wd, beta1, v):
    """`adam_l2` for complex v."""
    step, new = lr / np.sqrt(v), 1 - beta1
    return [[1 - step * new * wd, -step * beta1], [new * wd, beta1]], [-step * new, new]


@route("adam_l2_lagged_relaxation_steps", tolerance=LEADING)
def _(f):
    lr, wd, beta2, power, p = 1e-3, 0.05, 0.9998, 3.0, -1.0
    w = balance(lr * power**0.5 / (2 * wd), p / 2)  # η² = 2ηλW/√v

    def step(x):
        rate = lr / np.sqrt(x[1])
        return np.array(
            [x[0] * (1 - 2 * rate * wd) + rate**2 * power * x[0] ** p, beta2 * x[1] + (1 - beta2) * power * x[0] ** p]
        )

    return [(f(lr, wd, beta2, power * w**p, p), slowest(step, [w, power * w**p]))]


# --- SGDM ----------------------------------------------------------------------------------------


@route("sgdm_leading_rotation", "sgdm_leading_norm", tolerance=LEADING)
def _(f, name):
    square, half = walk(sgdm(*GENTLE, 0.8))
    if name == "sgdm_leading_rotation":
        return [(f(*GENTLE, 0.8), math.sqrt(2 * half))]
    return [(f(*GENTLE, 0.8, 3.0, p), math.sqrt(balance(3.0 * square, p))) for p in (0.0, -1.0)]


@route("sgdm_exact_norm_squared", "sgdm_exact_one_minus_cosine")
def _(f, name):
    square, half = walk(sgdm(*STRONG, 0.8))
    if name == "sgdm_exact_one_minus_cosine":
        return [(f(*STRONG, 0.8), half)]
    return [(f(*STRONG, 0.8, 3.0, p), balance(3.0 * square, p)) for p in (0.0, -1.0)]


@route("sgdm_relaxation_steps", tolerance=LEADING)
def _(f):
    lr, wd, momentum, p = 1e-6, 0.5, 0.5, -1.0
    w = balance(walk(sgdm(lr, wd, momentum))[0], p)
    step = moments_map(lambda square: (sgdm(lr, wd, momentum), square**p))
    return [(f(lr, wd, momentum, p), slowest(step, at_rest(sgdm(lr, wd, momentum), w**p)))]


# --- Lion ----------------------------------------------------------------------------------------

BETAS = (0.9, 0.97)


@route("lion_leading_rotation", "lion_leading_norm")
def _(f, name):
    weights = lion_filter(*BETAS)
    lr, wd, dim = 0.01, 0.2, 48.0
    contribution = lr * slope(weights @ weights) * weights.sum()
    square = dim * contribution**2 / (2 * lr * wd)  # growth balances loss
    if name == "lion_leading_norm":
        return [(f(lr, wd, *BETAS, dim), math.sqrt(square))]
    return [(f(lr, wd, *BETAS), lr * math.sqrt(dim) / math.sqrt(square))]


@route("lion_variance", "lion_covariance", "lion_sign_correlation", "lion_weight")
def _(f, name):
    weights = lion_filter(*BETAS)
    variance = weights @ weights
    return {
        "lion_variance": lambda: [(f(*BETAS), variance)],
        "lion_weight": lambda: [(f(*BETAS, k), weights[k]) for k in (1, 4)],
        "lion_covariance": lambda: [(f(*BETAS, k), weights[k:] @ weights[:-k]) for k in (1, 4)],
        "lion_sign_correlation": lambda: [
            (f(*BETAS, k), same_signs(weights[k:] @ weights[:-k] / variance)) for k in (1, 4)
        ],
    }[name]()


@route("lion_exact_norm_squared", "lion_exact_one_minus_cosine")
def _(f, name):
    lr, wd = STRONG
    a, mu, share, dim = 1 - lr * wd, 0.9, 0.6, 48.0
    total = sum(a**k * share * mu**k for k in range(1, 2000))  # signs whose correlation is share·μ^k
    correlation = np.where(np.arange(2000) == 0, 1.0, share * mu ** np.arange(2000))
    lags = np.abs(np.subtract.outer(np.arange(2000), np.arange(2000)))
    powers = a ** np.arange(2000)
    square = lr**2 * powers @ correlation[lags] @ powers
    half = 1 - a - lr**2 * powers[:-1] @ correlation[1:] / square
    if name == "lion_exact_norm_squared":
        return [(f(lr, wd, dim, total), dim * square)]
    return [(f(lr, wd, total), half)]


@route("lion_momentum_power", "lion_seen", "lion_entered", "lion_faded")
def _(f, name):
    beta1, beta2 = BETAS
    noise, power = 1.7, 0.3
    rules = np.array([[1.0, 0.0], [beta1, 1 - beta1], [beta2, 1 - beta2]])  # m, c, m′ of (m, g)
    c = rules @ np.diag([power, noise]) @ rules.T
    r = c / np.sqrt(np.outer(np.diag(c), np.diag(c)))
    return {
        "lion_momentum_power": lambda: [(f(beta2, noise, power), c[2, 2])],
        "lion_seen": lambda: [(f(beta1, noise, power), r[0, 1])],
        "lion_entered": lambda: [(f(beta1, beta2, noise, power), r[1, 2])],
        "lion_faded": lambda: [(f(beta2, noise, power), r[0, 2])],
    }[name]()


@route("lion_sign_mode")
def _(f):
    n = np.arange(60)
    factor = np.array([math.comb(2 * k, k) / 4.0**k / (2 * k + 1) for k in n.tolist()])
    return [(float(np.sum(f(0.6, factor, 2 * n + 1.0))), same_signs(0.6))]


@route("lion_sign_slope", "sign_slope")
def _(f, name):
    weights = lion_filter(*BETAS)
    return [(f(0.3) if name == "sign_slope" else f(*BETAS), slope(0.3 if name == "sign_slope" else weights @ weights))]


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
    weights = lion_filter(*BETAS, 1200)
    age = np.arange(1200)
    correlation = PHI ** np.abs(np.subtract.outer(age, age))
    power, overlap = weights @ correlation @ weights, weights @ PHI**age
    if name == "lion_overlap_ratio":
        return [(f(*BETAS, PHI), overlap / power)]
    if name == "lion_correlated_variance":
        return [(f(*BETAS, PHI), power)]
    if name == "lion_correlated_covariance":
        return [(f(*BETAS, k, PHI), weights @ PHI ** np.abs(np.subtract.outer(age, age + k)) @ weights) for k in (1, 4)]
    # growth of ‖w‖² per step over η²C: each sign with what earlier ones left of it in its own direction
    seen = correlation @ weights  # Σ_i κ_i R_{n-i}
    inner = np.concatenate([[0.0], np.cumsum(seen)[:-1]])
    growth = 1 + 4 / math.pi * weights @ inner / power
    return [(f(*BETAS, overlap / power), 1 / growth)]


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


# --- a radial part -------------------------------------------------------------------------------


@route("lion_radial_norm_squared", "lion_radial_variance")
def _(f, name):
    """A linear walk driven by gradients and by what is left of the sign, which is white."""
    lr, wd, (beta1, beta2), gain, excess, pull = *STRONG, BETAS, 1.3, 0.05, 0.7
    a, strength = 1 - lr * wd, pull / gain
    c_row, c_new = np.array([(1 - beta1) * strength, beta1]), 1 - beta1
    step = np.array([[a, 0.0], [(1 - beta2) * strength, beta2]])
    step[0] -= lr * gain * c_row
    left = 0.0
    for _ in range(40):
        found = stationary(step, [-lr * gain * c_new, 1 - beta2], [lr * math.sqrt(max(left, 0.0)), 0.0])
        power = c_row @ found @ c_row + c_new**2
        left = 1 + 2 * excess - gain**2 * power
    if name == "lion_radial_variance":
        return [(f(lr, wd, beta1, beta2, gain, excess, pull), power)]
    return [(f(lr, wd, beta1, beta2, 48.0, gain, excess, pull), 48 * found[0, 0])]


@route("lion_one_minus_cosine")
def _(f):
    lr, wd = STRONG
    angle, square = 0.3, 2.0
    w, new = math.sqrt(square) * np.eye(2)[0], math.sqrt(square) * np.array([math.cos(angle), math.sin(angle)])
    step = new - (1 - lr * wd) * w
    return [(f(lr, wd, step @ step / lr**2, square), 1 - math.cos(angle))]


@route("decay_per_step", "turn_while_growing", tolerance=LEADING)
def _(f, name):
    lr, wd, beta1, pull = 1e-3, 5e-3, 0.8, 3e-3
    rest = walk(adamw(lr, wd, beta1))[1]
    if name == "decay_per_step":
        return [(f(beta1, math.sqrt(2 * rest)), 2 * lr * wd)]
    # a radial part, at rest; and a norm that grows, momentum filled
    pulled = walk(adamw(lr, wd, beta1, pull))[1]
    system = adamw(lr, wd, beta1)
    step, x = moments_map(lambda _: (system, 1.0)), np.array(at_rest(system, 1.0)) * [0.5, 1, 1]
    for _ in range(200):
        before, x = x, step(x)
    transition = np.array(system[0])
    ahead = transition[0, 0] * before[0] + transition[0, 1] * before[1]
    turned = 2 * (1 - ahead / math.sqrt(before[0] * x[0]))
    growth = math.log(x[0] / before[0]) / (2 * lr * wd)
    return [(f(pull / wd, 0.0), math.sqrt(pulled / rest)), (f(0.0, growth), math.sqrt(turned / (2 * rest)))]


@route("adam_l2_turn_excess", tolerance=LEADING)
def _(f):
    """Mean field: v follows ‖w‖, steps have one length. Off balance, and with a radial part."""
    lr, wd, scale = 1e-5, 1e-2, 1.0
    rest = balance(lr * scale / (2 * wd), -0.5)
    pairs = []
    for pull, off in ((0.0, 0.6), (0.004, 1.0), (0.004, 1.5)):
        w = off * rest
        rate = lr * math.sqrt(w) / scale
        growth = math.log1p(lr**2 / w - 2 * rate * (wd + pull)) / (2 * lr * math.sqrt(rest) / scale * wd)
        pairs.append((1 + f(pull / wd, growth, math.sqrt(rest / w)), 1.0))
    return pairs


# --- rotational variants -------------------------------------------------------------------------


@route(
    "rotational_across", "rotational_rate", "rotational_kept", "turned_one_minus_cosine", "rotational_squared_angle",
    "rotational_mean_length",
)  # fmt: skip
def _(f, name):
    w, u = vectors(2)
    w /= np.linalg.norm(w)
    across = u - (u @ w) * w
    length, angle, gamma, theta = across @ across, 0.4, 0.7, 0.1
    new = math.cos(angle) * w - math.sin(angle) * across / math.sqrt(length)
    (kept, rate), *_ = np.linalg.lstsq(np.stack([w, -u], axis=1), new, rcond=None)
    lengths = np.array([0.8, 1.3, 0.6, 1.9])  # newest last
    weights = gamma ** np.arange(4)[::-1]
    mean = (1 - gamma) * weights @ lengths
    return {
        "rotational_across": lambda: [(f(u @ w, u @ u), length)],
        "rotational_rate": lambda: [(f(angle, length), rate)],
        "rotational_kept": lambda: [(f(rate, u @ w, angle), kept)],
        "turned_one_minus_cosine": lambda: [(f(angle), 1 - w @ new)],
        "rotational_mean_length": lambda: [(f(gamma, lengths[-1], (1 - gamma) * weights[1:] @ lengths[:-1]), mean)],
        "rotational_squared_angle": lambda: [
            (f(gamma, 4, theta, lengths[-1], mean), theta**2 * lengths[-1] / (weights @ lengths / weights.sum()))
        ],
    }[name]()


@route("rotational_sgdm_filling", "rotational_adamw_filling")
def _(f, name):
    beta, step = 0.8, 4
    filled = sum(beta ** (2 * age) for age in range(step)) / sum(beta ** (2 * age) for age in range(400))
    whole = sum(beta**age for age in range(step)) / sum(beta**age for age in range(400))
    return [(f(beta, step), filled if name == "rotational_sgdm_filling" else filled / whole**2)]


@route("rotational_bias")
def _(f):
    beta, gamma, n = 0.8, 0.7, 12.0
    age = np.arange(300)
    weights, r = (1 - gamma) * gamma**age, beta ** (2 * np.abs(np.subtract.outer(age, age)))
    return [(f(beta, gamma, n), 2 / n * (weights @ r @ weights - weights @ r[0]))]


# --- finite fan-in, planning ---------------------------------------------------------------------


@route("isotropic_angle_spread")
def _(f):
    across = stats.chi2(8).expect(lambda x: x)
    return [(f(9), across * stats.chi2(9).expect(lambda x: 1 / x))]


@route("young_angle_spread", tolerance=0.02)
def _(f):
    dim, share = 4000, 0.6
    away = dim * share / (1 - share)  # Σμ²/σ²
    x = stats.ncx2(dim, away)
    inverse = x.expect(lambda q: 1 / q, lb=x.ppf(1e-13), ub=x.ppf(1 - 1e-13)) * (dim + away)
    settled = dim / (dim - 2)
    return [(dim * (f(dim, share) - 1), dim * (inverse / settled - 1))]


@route("adamw_planned_lr", "adamw_planned_weight_decay", tolerance=LEADING)
def _(f, name):
    square, half = walk(adamw(*GENTLE, 0.8))
    return [(f(0.8, 48.0, 48 * square, math.sqrt(2 * half)), GENTLE[name == "adamw_planned_weight_decay"])]


@route("transferred_rotation")
def _(f):
    steps, theta, batch, length = 1200, 0.01, 4.0, 1.5
    now = f(theta, batch, length)
    return [(round(steps * length / batch) * now**2, steps * theta**2)]


@route("eps_far_weight", tolerance=1e-12)
def _(f):
    """1 - √π x e^(x²) erfc(x) in 60 digits."""
    with mpmath.workdps(60):
        x = mpmath.mpf(60)
        exact = 1 - mpmath.sqrt(mpmath.pi) * x * mpmath.exp(x**2) * mpmath.erfc(x)
    return [(f(60.0), float(exact))]


# --- the controls --------------------------------------------------------------------------------


#: What an operator is replaced by.
OTHER = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult}


def mutants(function):
    """`function` with one operator or number changed."""
    tree = ast.parse(inspect.getsource(function))
    tree.body[0].body = tree.body[0].body[1:]  # without the docstring
    tree.body[0].decorator_list = []  # no kernel calls a mutant
    for index, node in enumerate(ast.walk(tree)):
        if isinstance(node, ast.BinOp) and type(node.op) in OTHER:
            yield _compiled(tree, index, lambda n: setattr(n, "op", OTHER[type(n.op)]()))
        elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
            yield _compiled(tree, index, lambda n: setattr(n, "value", n.value + 1))


def _compiled(tree, index, change):
    changed = copy.deepcopy(tree)
    change(list(ast.walk(changed))[index])
    namespace = dict(vars(forms))
    exec(compile(changed, "<mutant>", "exec"), namespace)
    return namespace[changed.body[0].name], ast.unparse(changed.body[0])


def agrees(pairs, tolerance):
    return all(np.isfinite(found) and abs(found - wanted) <= tolerance * abs(wanted) for found, wanted in pairs)


def test_every_closed_form_has_a_route():
    assert sorted(ROUTES) == sorted(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_changed_coefficient_is_noticed(name):
    check, tolerance = ROUTES[name]
    assert agrees(check(FUNCTIONS[name]), tolerance)
    survivors, noticed = [], 0
    with np.errstate(all="ignore"):
        for mutant, text in mutants(FUNCTIONS[name]):
            try:
                survives = agrees(check(mutant), tolerance)
            except (ValueError, ZeroDivisionError, TypeError):  # complex, or divided by nothing
                survives = False
            survivors += [text] if survives else []
            noticed += not survives
    assert survivors == []
    assert noticed
