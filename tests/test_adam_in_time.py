"""Weighted moments of Adam: quadratures against closed forms, and one step against integrals written out in full."""

from dataclasses import replace

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
        for eps in (0.0, 1e-3, 1.0, 30.0, 1000.0):
            beside = (v**0.5 + eps) ** (-1.0 if root else -2.0)
            assert damped.beside_eps(values, zeta, count, root, eps) == pytest.approx(beside, rel=2e-4)
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
    point, share, coarse = adam_parts.parts(float(DIM))
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


def test_eps_over_the_first_steps_is_felt():
    """At ε = 0.012 √v the first steps turn 1.8 % less than with ε at the mean of v, and 1 % less than without."""
    opt = rotsim.AdamW(0.22, 0.0105, (0.8, 0.99))
    norm = 47 * rotsim.equilibrium(opt, 8192).norm
    run = dict(dim=8192, steps=12, initial_norm=norm, record_every=3)
    walk, course = rotsim.simulate(opt, neurons=24, seed=1, dtype="float64", **run), rotsim.predict(opt, **run)
    square = walk["rotation"].values[:, 0] ** 2
    off = np.sqrt(square.mean()) / course["rotation"].values[0, 0] - 1
    declared = course["rotation_model_error"].values[0, 0]
    noise = chance.errors(24) * square.std(ddof=1) / square.mean() / 2 / np.sqrt(24)
    assert abs(off) < declared + noise and declared + noise < 0.005
    bare = rotsim.predict(replace(opt, eps=0.0), **run)["rotation"].values[0, 0]
    assert bare / course["rotation"].values[0, 0] - 1 > 0.01


EPS = {
    "adamw": rotsim.AdamW(0.01, 1.0, (0.9, 0.95), eps=1e-3),
    "adamw more": rotsim.AdamW(0.01, 1.0, (0.5, 0.6), eps=1e-2),
    "adamw no beta1": rotsim.AdamW(0.01, 1.0, (0.0, 0.95), eps=1e-3),
    "nadamw": rotsim.NAdamW(0.01, 1.0, (0.9, 0.95), eps=1e-3, momentum_decay=1.0),
    "ademamix": rotsim.AdEMAMix(0.01, 1.0, (0.9, 0.95, 0.99), 2.0, eps=1e-3),
    "adam_l2": rotsim.AdamL2(0.02, 0.05, (0.9, 0.95), eps=1e-2),
}


@pytest.mark.parametrize("name", EPS)
def test_beside_any_eps_a_course_settles_on_the_equilibrium(name):
    """Two routes to one number: here eps changes weights of a sum over ζ, there it is in a double integral."""
    optimizer, noise = EPS[name], rotsim.ScaleInvariant(0.01)
    eq = rotsim.equilibrium(optimizer, 256, noise)
    end = rotsim.predict(optimizer, 256, noise, 6000, eq.norm).isel(step=-1)
    bare = rotsim.equilibrium(replace(optimizer, eps=0.0), 256, noise)
    assert abs(bare.norm / eq.norm - 1) > 0.05  # it matters
    for quantity in ("norm", "rotation", "update_rms"):
        assert float(end[quantity][0]) == pytest.approx(getattr(eq, quantity), rel=2e-4)


@pytest.mark.parametrize("name", ["adamw", "adamw no beta1", "nadamw", "ademamix"])
def test_beside_any_eps_first_steps_agree_with_a_walk(name):
    """Short weights, whose gradients are first far above eps and then below it, and hardly anything declared."""
    arguments = dict(dim=256, gradient=rotsim.ScaleInvariant(0.01), steps=100, initial_norm=0.15, record_every=5)
    walk, course = rotsim.simulate(EPS[name], neurons=256, seed=4, **arguments), rotsim.predict(EPS[name], **arguments)
    report = rotsim.compare(walk, course, k=chance.errors(None, 4))
    assert "FAIL" not in {check.verdict for check in report}, "\n" + report.table()
    assert max(float(course[f"{q}_model_error"].max()) for q in ("norm", "rotation", "update_rms")) < 0.02
    assert "FAIL" in {
        check.verdict
        for check in rotsim.compare(walk, rotsim.predict(replace(EPS[name], eps=0.7 * EPS[name].eps), **arguments))
    }
