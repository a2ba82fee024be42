"""Weighted moments of Adam: quadratures against closed forms, and one step against integrals written out in full."""

import numpy as np
import pytest
from scipy.integrate import quad

import rotsim
from rotsim.theory import adam_parts, damped
from tests import chance

DIM = 10**9  # neurons do not differ


def test_quadratures_of_a_constant_v():
    """F = e^(-ζv): 1/√v and 1/v at ζ = 0, and e^(-ζv) times them from every ζ upwards."""
    tables, v, count = damped.tables(), 2.5, 40
    zeta, scratch, out = np.zeros(damped.POINTS + 1), np.zeros(damped.POINTS + 1 + damped.GHOSTS), np.zeros(200)
    damped.lay(zeta, v)
    values = np.exp(-zeta * v)
    shown = slice(1, 1 + int(np.searchsorted(zeta[1:] * v, 2.0)))  # beyond, points are too far apart
    for root, weights, tail, expected in (
        (True, tables.root, tables.root_tail, v**-0.5),
        (False, tables.plain, tables.plain_tail, 1 / v),
    ):
        assert damped.integral(values, zeta, count, root, tail) == pytest.approx(expected, rel=1e-8)
        damped.beyond(values, zeta, count, root, weights, tables.ghosts, scratch, out)
        assert out[shown] == pytest.approx(expected * values[shown], rel=3e-6)
        assert out[shown] != pytest.approx(expected, rel=1e-2)


def test_points_that_enter_are_those_of_a_finer_grid():
    """v grows a hundredfold: the points that enter are e^(-ζv) again."""
    zeta, rows, counts = np.zeros(damped.POINTS + 1), np.zeros((1, 1, damped.POINTS + 1)), np.array([60])
    damped.lay(zeta, 1.0)
    rows[0, 0] = np.exp(-zeta)
    damped.widen(zeta, rows, counts, 1, 100.0, damped.tables().entering)
    assert zeta[1] * 100 <= 0.01 < zeta[2] * 100
    assert rows[0, 0, : counts[0] + 1] == pytest.approx(np.exp(-zeta[: counts[0] + 1]), abs=1e-8)


@pytest.mark.parametrize(
    "betas",
    [(0.9, 0.95), *(pytest.param(b, marks=pytest.mark.slow) for b in [(0.0, 0.9), (0.98, 0.5), (0.5, 0.999)])],
    ids=str,
)
def test_update_power_while_the_gradient_falls(betas):
    """Scale-invariant weights far too short: E[m²/v] by the integral over all gradients so far, at their own sizes.

    What E[m²]/E[v] gives instead is wrong by a per cent or more.
    """
    beta1, beta2 = betas
    optimizer, steps = rotsim.AdamW(0.02, 0.0, betas, eps=0.0), 25
    start = 0.01 * rotsim.equilibrium(rotsim.AdamW(0.02, 0.5, betas), DIM).norm
    run = rotsim.predict(optimizer, DIM, steps=steps, initial_norm=start, record_every=1)
    before = np.append(start, run.norm.values[0, :-1])
    variance = (1 - 1 / DIM) / before**2 / DIM  # of a gradient coordinate
    assert variance[0] > 50 * variance[-1]
    wrong = []
    for t in (1, 2, 5, steps):
        age = np.arange(t)[::-1]
        c, d = (1 - beta1) * beta1**age, (1 - beta2) * beta2**age
        square = variance[:t]

        def integrand(s, c=c, d=d, square=square):
            q = 1 + 2 * np.exp(s) * d * square
            return np.exp(s - np.log(q).sum() / 2) * (c**2 * square / q).sum()

        middle = -np.log((d * square).sum())
        pieces = [quad(integrand, middle + a, middle + a + 10, epsabs=0, epsrel=1e-9)[0] for a in range(-40, 70, 10)]
        expected = sum(pieces) * (1 - beta2**t) / (1 - beta1**t) ** 2
        found = float(run.update_rms[0, t - 1]) ** 2 / (optimizer.lr**2 * DIM)
        assert found == pytest.approx(expected, rel=2e-6)
        mean_field = (c**2 * square).sum() / (d * square).sum() * (1 - beta2**t) / (1 - beta1**t) ** 2
        wrong.append(abs(mean_field / expected - 1))
    assert max(wrong) > 0.01


def test_parts_are_a_standard_normal():
    point, share, coarse = adam_parts.parts()
    for law, digits in ((share, 1e-6), (coarse, 1e-3)):
        assert law.sum() == pytest.approx(1, rel=digits)
        assert (law * point**2).sum() == pytest.approx(1, rel=digits)
        assert (law * point**4).sum() == pytest.approx(3, rel=digits)


def test_parts_follow_a_decay_that_is_a_sign():
    """Adam+L2 with decay 10⁴ times the gradients, no momentum: every weight moves by lr towards 0, whatever its size.

    E w² of |w| - lr·t is in closed form; Gaussian weights, one part, would stay Gaussian and lose as much of each.
    """
    optimizer, dim, steps, start = rotsim.AdamL2(0.01, 1.0, (0.0, 0.999), eps=0.0), 10**6, 120, 1e3
    run = rotsim.predict(optimizer, dim, rotsim.Isotropic(1e-4), steps, start, record_every=1)
    found = run.norm.values[0] / start
    moved = optimizer.lr * 30  # v still knows the first step alone: u = 1 for weights that hardly change
    expected = np.sqrt(1 + moved**2 - 2 * moved * np.sqrt(2 / np.pi))
    assert found[29] == pytest.approx(expected, rel=0.02)
    assert found[29] != pytest.approx(1 - moved, rel=0.05)


def test_eps_over_the_first_steps_is_declared():
    """At ε = 0.012 √v the first steps turn 1.8 % less than with ε at the mean of v."""
    opt = rotsim.AdamW(0.22, 0.0105, (0.8, 0.99))
    norm = 47 * rotsim.equilibrium(opt, 8192).norm
    run = dict(dim=8192, steps=12, initial_norm=norm, record_every=3)
    walk, course = rotsim.simulate(opt, neurons=24, seed=1, dtype="float64", **run), rotsim.predict(opt, **run)
    square = walk["rotation"].values[:, 0] ** 2
    off = np.sqrt(square.mean()) / course["rotation"].values[0, 0] - 1
    declared = course["rotation_model_error"].values[0, 0]
    noise = chance.errors(24) * square.std(ddof=1) / square.mean() / 2 / np.sqrt(24)
    assert -0.025 - noise < off < -1 / 8192 - noise  # far beyond 1/dim
    assert abs(off) < declared + noise and declared < 0.15
