"""Routes to norm, rotation and relaxation of AdamW, Adam+L2, SGDM and Lion."""

from __future__ import annotations

import math

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from tests.routes import (
    GENTLE,
    LEADING,
    STRONG,
    adam_l2,
    adamw,
    at_rest,
    balance,
    l2_fixed_point,
    lion_filter,
    moments_map,
    nesterov,
    route,
    same_signs,
    sgdm,
    slope,
    slowest,
    stationary,
    walk,
)

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
    pairs = []
    for share in (1.0, 0.3):  # of lr/(2wd), which is E‖w‖² without ε
        w = share * lr / (2 * wd)
        eps = (lr * w ** (p - 1) / (2 * wd)) ** 0.5 - w ** (p / 2)

        def step(x, eps=eps):
            growth = lr**2 * x[0] ** p / (np.sqrt(x[1]) + eps) ** 2
            return np.array([x[0] * (1 - 2 * lr * wd) + growth, beta2 * x[1] + (1 - beta2) * x[0] ** p])

        pairs.append((f(lr, wd, beta2, p, w ** (p / 2) / (w ** (p / 2) + eps)), slowest(step, [w, w**p])))
    return pairs


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
    lr, wd, beta2, power = 1e-3, 0.05, 0.9998, 3.0
    pairs = []
    for share, p in ((1.0, -1.0), (0.3, -0.5)):
        w = share * balance(lr * power**0.5 / (2 * wd), p / 2)  # without ε η² = 2ηλW/√v
        v = power * w**p
        eps = lr * v / (2 * wd * w) - v**0.5

        def step(x, eps=eps, p=p):
            rate, gradient = lr / (np.sqrt(x[1]) + eps), power * x[0] ** p
            return np.array([x[0] * (1 - 2 * rate * wd) + rate**2 * gradient, beta2 * x[1] + (1 - beta2) * gradient])

        pairs.append((f(lr, wd, beta2, v, p, v**0.5 / (v**0.5 + eps)), slowest(step, [w, v])))
    return pairs


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


# --- Muon ----------------------------------------------------------------------------------------


@route("spectral_eigenvalue")
def _(f):
    """Edges (1 ± √y)², and the middle from the mean of both."""
    low, high = (1 - math.sqrt(0.3)) ** 2, (1 + math.sqrt(0.3)) ** 2
    return [(f(0.0, 0.3), high), (f(math.pi, 0.3), low), (f(math.pi / 3, 0.3), (3 * high + low) / 4)]


@route("muon_published_norm_squared")
def _(f):
    """w and an AR(1) update of mean square 2.5, by Lyapunov's equation."""
    lr, wd, momentum = 0.3, 0.7, 0.8
    entry = math.sqrt(2.5 * (1 - momentum**2))
    system = [[1 - lr * wd, -lr * momentum], [0.0, momentum]], [-lr * entry, entry]
    return [(f(lr, wd, momentum, 2.5), walk(system)[0])]


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


# --- Nesterov momentum ---------------------------------------------------------------------------


@route("nesterov_exact_norm_squared", "nesterov_exact_one_minus_cosine")
def _(f, name):
    pairs = []
    for p in (0.0, -1.0):
        square, half = walk(nesterov(0.1, 0.7, 0.8))
        if name == "nesterov_exact_one_minus_cosine":
            pairs.append((f(0.1, 0.7, 0.8), half))
        else:
            w = balance(square * 3.0, p)
            pairs.append((f(0.1, 0.7, 0.8, 3.0, p), w))
    return pairs


@route("nesterov_leading_rotation", tolerance=LEADING)
def _(f):
    return [(f(*GENTLE, 0.8), math.sqrt(2 * walk(nesterov(*GENTLE, 0.8))[1]))]


@route("nesterov_along", "nesterov_moved", "nesterov_momentum_overlap")
def _(f, name):
    """From a covariance of (w, m) that no walk has, by the matrices of the state."""
    lr, wd, momentum, noise = 0.1, 0.7, 0.8, 1.3
    before = np.array([[0.9, -0.2], [-0.2, 2.1]])
    transition, entry = (np.array(part) for part in nesterov(lr, wd, momentum))
    after = transition @ before @ transition.T + noise * np.outer(entry, entry)
    cross = (transition @ before)[0, 0]  # E w'·w
    pull = noise + wd**2 * before[0, 0]
    across = wd * before[0, 0] + momentum * before[0, 1]  # E w·m'
    if name == "nesterov_along":
        return [(f(lr, wd, momentum, before[0, 0], across), cross - before[0, 0])]
    if name == "nesterov_moved":
        moved = after[0, 0] - 2 * cross + before[0, 0]
        return [(f(lr, wd, momentum, before[0, 1], before[1, 1], pull), moved)]
    return [(f(lr, wd, momentum, across, before[0, 1], before[1, 1], pull), after[0, 1])]


@route("nesterov_fallen")
def _(f):
    lr, wd, momentum = 0.1, 0.7, 0.8
    transition, entry = (np.array(part) for part in nesterov(lr, wd, momentum))
    c = stationary(transition, entry)
    apart = [1 - (np.linalg.matrix_power(transition, k) @ c)[0, 0] / c[0, 0] for k in range(6)]
    return [(f(lr, wd, momentum, apart[k - 1], apart[k - 2]), apart[k]) for k in range(2, 6)]


# --- NAdamW --------------------------------------------------------------------------------------


def nadamw_filter(beta1, ahead, terms=400):
    """Weights of past gradients in the update, by running the recurrence on an impulse."""
    m, found = 0.0, np.empty(terms)
    for step in range(terms):
        g = 1.0 if step == 0 else 0.0
        m = beta1 * m + (1 - beta1) * g
        found[step] = (1 - ahead) * g + ahead * m
    return found


@route("nadamw_newest")
def _(f):
    weights, average = nadamw_filter(0.8, 0.7), nadamw_filter(0.8, 1.0)
    return [(f(0.8, 0.7), weights @ weights - 0.7**2 * average @ average)]


@route("nadamw_leading_rotation", tolerance=LEADING)
def _(f):
    lr, wd = GENTLE
    entry, own = adamw(lr, wd, 0.8)[1], 0.3
    system = [[1 - lr * wd, -lr * 0.7 * 0.8], [0.0, 0.8]], [-lr * (own + 0.7 * entry[1]), entry[1]]
    return [(f(lr, wd, 0.8, 0.7), math.sqrt(2 * walk(system)[1]))]


@route("nadamw_filling")
def _(f):
    """The third update of a fresh state, by the gradients that it holds, and what products of its parts count."""
    beta1, own, held, alone, power = 0.8, 0.3, 1.7, 1.2, 0.1
    average, full = held * (1 - beta1) * beta1 ** np.arange(3), (1 - beta1) / (1 + beta1)
    total = own * (own + 2 * average[0]) * alone + average @ average * power / full
    return [(f(beta1, 3, own, held, alone, power), total)]


@route("nadamw_met_again")
def _(f):
    beta1, beta2, ahead = 0.8, 0.9, 0.7
    weights, total = nadamw_filter(beta1, ahead), 0.0
    for n in range(1, 400):
        later = weights[n:]
        total += weights[:n].sum() * (later * (1 - beta2) * beta2 ** np.arange(len(later))).sum()
    return [(f(beta1, beta2, ahead), total)]


@route("ademamix_met_twice")
def _(f):
    """The mean of q^|i-j| over all pairs of ages in two averages."""
    fast, slow, alike, age = 0.8, 0.93, 0.9, np.arange(600)
    one, other = ((1 - root) * root**age for root in (fast, slow))
    held = [weights @ alike**age for weights in (one, other)]
    return [(f(fast, slow, *held), one @ alike ** np.abs(np.subtract.outer(age, age)) @ other)]


# --- AdEMAMix ------------------------------------------------------------------------------------

MIX = (0.8, 0.93, 1.5)  # β1, β3, and what the slow average counts


def ademamix_filter(beta1, beta3, mix, terms=1200):
    """Weights of past gradients in the update, by running the recurrence on an impulse."""
    fast = slow = 0.0
    found = np.empty(terms)
    for step in range(terms):
        g = 1.0 if step == 0 else 0.0
        fast, slow = beta1 * fast + (1 - beta1) * g, beta3 * slow + (1 - beta3) * g
        found[step] = fast + mix * slow
    return found


def ademamix(lr, wd, beta1, beta3, mix):
    """(w, m, n) per unit noise."""
    new = np.array([1 - beta1, 1 - beta3])
    held = [-lr * beta1, -lr * mix * beta3]
    return [[1 - lr * wd, *held], [0, beta1, 0], [0, 0, beta3]], [-lr * (new @ [1, mix]), *new]


@route("ademamix_shared")
def _(f):
    beta1, beta3, mix = MIX
    fast, slow, between = (ademamix_filter(root, 0.0, 0.0) for root in (beta1, beta3, math.sqrt(beta1 * beta3)))
    return [(f(beta1, beta3, mix), mix * fast @ slow / (between @ between))]


@route("ademamix_linear_power")
def _(f):
    weights = ademamix_filter(*MIX)
    return [(f(*MIX), weights @ weights / weights.sum() ** 2)]


@route("ademamix_leading_norm", "ademamix_leading_rotation", tolerance=LEADING)
def _(f, name):
    square, half = walk(ademamix(*GENTLE, *MIX))
    if name == "ademamix_leading_norm":
        return [(f(*GENTLE, 48.0, MIX[2]), math.sqrt(48 * square))]
    return [(f(*GENTLE, *MIX), math.sqrt(2 * half))]


@route("ademamix_met_again")
def _(f):
    beta1, beta3, mix = MIX
    beta2, weights, total = 0.9, ademamix_filter(*MIX, terms=400), 0.0
    for n in range(1, 400):
        later = weights[n:]
        total += weights[:n].sum() * (later * (1 - beta2) * beta2 ** np.arange(len(later))).sum()
    return [(f(beta1, beta2, beta3, mix), total / (1 + mix) ** 2)]


# --- cautious decay ------------------------------------------------------------------------------


def _where_open(quantity, r):
    """Over the weight x > 0, twice; given x, the update is normal with the mean r x."""
    s = math.sqrt(1 - r * r)
    inside = {
        "decayed": lambda x: x**2 * norm.cdf(r * x / s),
        "overlap": lambda x: x * (r * x * norm.cdf(r * x / s) + s * norm.pdf(r * x / s)),
        "sign_overlap": lambda x: x * norm.cdf(r * x / s),
    }[quantity]
    return 2 * quad(lambda x: norm.pdf(x) * inside(x), 0, 12, epsabs=1e-12)[0]


@route("cautious_decayed", "cautious_overlap", "cautious_sign_overlap")
def _(f, name):
    return [(f(r), _where_open(name.removeprefix("cautious_"), r)) for r in (-0.3, 0.6)]


@route("cautious_of_weight", "cautious_of_update", "cautious_sign_of_weight", "cautious_sign_of_update")
def _(f, name):
    """Least squares of what decays on weight and update."""
    sign, pairs = "sign_" if "sign" in name else "", []
    for r in (-0.3, 0.6):
        together = r * math.sqrt(2 / math.pi) if sign else r
        met = [_where_open("decayed", r), _where_open(f"{sign}overlap", r)]
        slopes = np.linalg.solve([[1.0, together], [together, 1.0]], met)
        pairs.append((f(r), slopes[0 if name.endswith("weight") else 1]))
    return pairs


@route("cautious_length", "cautious_one_minus_cosine")
def _(f, name):
    """A weight that a step leaves as long as it is, and what it has in common with the one before."""
    lr, wd, overlap, acts, met = 0.1, 0.3, -0.08, 0.45, 0.06
    decay = lr * wd

    def grown(w):
        return decay * (decay - 2) * acts * w**2 - 2 * overlap * w + 2 * decay * met * w + 1

    size = brentq(grown, 1, 100)
    if name == "cautious_length":
        return [(f(lr, wd, overlap, acts, met), size)]
    return [(f(lr, wd, size**2, overlap * size, acts), 1 - (size - decay * acts * size - overlap) / size)]
