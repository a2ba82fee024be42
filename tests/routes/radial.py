"""Routes to a radial part, rotational variants, finite fan-in and planning."""

from __future__ import annotations

import math

import mpmath
import numpy as np
from scipy import stats

from tests.routes import GENTLE, LEADING, STRONG, adamw, at_rest, balance, moments_map, route, sgdm, stationary, walk
from tests.routes.in_time import vectors
from tests.routes.optimizers import BETAS

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


@route("turn_while_growing", tolerance=LEADING)
def _(f):
    lr, wd, beta1, pull = 1e-3, 5e-3, 0.8, 3e-3
    rest = walk(adamw(lr, wd, beta1))[1]
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


@route("hyperball_stretch", "hyperball_angle")
def _(f, name):
    w, u = vectors(2)
    w /= np.linalg.norm(w)
    u *= -np.sign(u @ w)
    new = w - 0.3 * u / np.linalg.norm(u)
    stretch = np.linalg.norm(new)
    return [(f(0.3, u @ w, u @ u), stretch if name == "hyperball_stretch" else math.acos(w @ new / stretch))]


@route("hyperball_lr")
def _(f):
    """Length of an update beside the weights at rest that decay has left: moments of the pair of weight and average."""
    lr, wd, beta = 0.2, 0.3, 0.8
    kept = 1 - lr * wd
    square, _ = walk(adamw(lr, wd, beta))
    power = (1 - beta) / (1 + beta)
    return [(f(lr, wd, kept * beta / (1 - kept * beta)), lr * math.sqrt(power / square) / kept)]


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


@route("decoupled_held", "coupled_held")
def _(f, name):
    """The weights averaged by one more filter r of the same memory, in the Lyapunov equation of (w, m, r)."""
    lr, wd, memory = 0.1, 0.5, 0.8
    transition, entry = adamw(lr, wd, memory) if name == "decoupled_held" else sgdm(lr, wd, memory)
    (ww, wm), (mw, mm) = transition
    of_r = [(1 - memory) * ww, (1 - memory) * wm, memory]
    c = stationary([[ww, wm, 0], [mw, mm, 0], of_r], [*entry, (1 - memory) * entry[0]])
    return [(f(lr, wd, memory), c[0, 2] / c[0, 0])]


@route("adam_met_again")
def _(f):
    """By the filters themselves: what one gradient moved, how v takes that up, and what is left of it in updates."""
    beta1, beta2, steps = 0.9, 0.8, np.arange(2000)
    moved = np.cumsum((1 - beta1) * beta1**steps)  # of its weight, after so many steps and one
    taken_up = np.convolve((1 - beta2) * beta2**steps, moved)[: len(steps)]
    return [(f(beta1, beta2), ((1 - beta1) * beta1 ** (steps + 1) * taken_up).sum())]


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
