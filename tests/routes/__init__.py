"""Independent routes to every closed form, for `tests.test_negative_controls`: what they share, and their register.

Each route computes the same number without sympy and without another closed form: stationary covariances from a
Lyapunov solver, recursions run as they are defined, sums term by term, quadratures, vectors.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import integrate, stats
from scipy.linalg import solve_discrete_lyapunov
from scipy.optimize import brentq

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


def nesterov(lr, wd, momentum):
    ahead = 1 + momentum
    return [[1 - lr * wd * ahead, -lr * momentum**2], [wd, momentum]], [-lr * ahead, 1.0]


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
