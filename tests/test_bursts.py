"""Lion under a known series of gradient scales: the recursion against a double sum, the walk, and false series."""

import numpy as np
import pytest

import rotsim
from rotsim.errors import InvalidInput
from rotsim.theory.bursts import burst_factors, burst_moments
from tests import chance

STEPS = 20_000


def slow(spread=0.8, memory=0.995) -> np.ndarray:
    """Log-normal scales that stay large or small for 1/(1-memory) steps."""
    draw = np.random.default_rng(0).standard_normal(STEPS)
    for t in range(1, STEPS):
        draw[t] = memory * draw[t - 1] + np.sqrt(1 - memory**2) * draw[t]
    return np.exp(spread * draw)


def rare() -> np.ndarray:
    return np.where(np.random.default_rng(1).random(STEPS) < 0.005, 20.0, 1.0)


SERIES = {"slow": slow(), "rare": rare(), "white": np.exp(np.random.default_rng(2).standard_normal(STEPS))}


def by_double_sum(optimizer: rotsim.Lion, series: np.ndarray) -> tuple[float, float]:
    """E‖w‖² per coordinate at the last step and E w·sign(c) before it, from the covariance matrix of all c."""
    (beta1, beta2), steps, kept = optimizer.betas, len(series), 1 - optimizer.lr * optimizer.weight_decay
    filters = np.zeros((steps, steps))  # c_t = Σ_s filters[t, s] z_s
    for t in range(steps):
        filters[t, t] = (1 - beta1) * series[t]
        filters[t, :t] = beta1 * (1 - beta2) * beta2 ** np.arange(t)[::-1] * series[:t]
    covariance = filters @ filters.T
    size = np.sqrt(np.diag(covariance))
    signs = 2 / np.pi * np.arcsin(np.clip(covariance / np.outer(size, size), -1, 1))
    share = -optimizer.lr * kept ** np.arange(steps)[::-1]
    return float(share @ signs @ share), float(share[1:] @ signs[-1, :-1])


@pytest.mark.parametrize("name", SERIES)
def test_recursion_is_the_double_sum_over_all_pairs_of_steps(name):
    optimizer, series = rotsim.Lion(2e-2, 2.5, betas=(0.8, 0.9)), SERIES[name][:400]  # forgets all but 100 steps
    square, _ = by_double_sum(optimizer, series)
    last = burst_moments(optimizer, 1, series, judged=slice(-1, None))
    # the double sum starts from w = 0 and from an empty momentum, the recursion from rest: both are forgotten
    assert last.norm_squared == pytest.approx(square, rel=2e-4)
    wrong = burst_moments(optimizer, 1, series[::-1], judged=slice(-1, None))
    assert abs(wrong.norm_squared / square - 1) > 0.01


@pytest.mark.parametrize("settings", [pytest.param((1e-3, 1.0), marks=pytest.mark.slow), (1e-2, 2.5)])
@pytest.mark.parametrize("name", SERIES)
def test_walk_under_bursts_agrees_and_not_under_another_series(name, settings):
    """At lr·wd = 0.025 the norm follows single bursts, and the gradient the norm: that is in the recursion too."""
    optimizer, series = rotsim.Lion(*settings), SERIES[name]
    walk = rotsim.simulate(
        optimizer, dim=256, neurons=32, steps=STEPS, gradient=rotsim.Bursts(series), record_every=1000, seed=3
    ).isel(step=slice(10, None))
    squares = np.array([(walk[name].values ** 2).mean(axis=1) for name in ("rotation", "norm", "update_rms")])
    mean = squares.mean(axis=1)
    error = squares.std(axis=1, ddof=1) / np.sqrt(32) / mean / 2  # relative, of a root mean square

    def off(series):
        found = rotsim.equilibrium(optimizer, 256, rotsim.Bursts(series))
        return np.abs([found.rotation, found.norm, found.update_rms] / np.sqrt(mean) - 1)

    allowed = 1 / 256 + chance.errors(32, 3) * error  # the declared error besides
    assert (off(series) < allowed).all()
    assert (off(np.ones(STEPS)) > allowed + 0.02)[:2].all()  # flattened
    if name == "slow":  # the other two have no order
        assert (off(np.random.default_rng(4).permutation(series)) > allowed)[:2].any()


def test_a_steady_series_is_lions_equilibrium_whatever_its_unit():
    optimizer = rotsim.Lion(1e-3, 1.0)
    plain = rotsim.equilibrium(optimizer, 64)
    for unit in (1.0, 1e-20, 3e7):
        steady = rotsim.equilibrium(optimizer, 64, rotsim.Bursts(np.full(5000, unit)))
        assert (steady.norm, steady.rotation) == pytest.approx((plain.norm, plain.rotation), rel=1e-5)
    rotation, norm = burst_factors(optimizer, SERIES["slow"])
    assert 0.6 < rotation < 0.9 < 1.1 < norm < 1.7
    gaps = np.where(np.arange(5000) % 2500 < 2000, SERIES["white"][:5000], 0.0)  # no gradient for 500 steps
    assert np.isfinite(burst_factors(optimizer, gaps)).all()


def test_other_optimizers_are_told_what_to_do():
    with pytest.raises(InvalidInput, match=r"Bursts for Lion only.*rotation of AdamW and SGDM does not depend"):
        rotsim.equilibrium(rotsim.AdamW(1e-3, 0.1), 64, rotsim.Bursts(np.ones(10)))
    leading = rotsim.equilibrium(rotsim.Lion(1e-3, 1.0), 64, rotsim.Bursts(SERIES["slow"]), method="leading")
    assert leading.rotation == rotsim.equilibrium(rotsim.Lion(1e-3, 1.0), 64, method="leading").rotation
