"""Estimators on series whose truth is known: AR(1), exponential transients, white noise."""

import numpy as np
import pytest

from rotsim.statistics import (
    ENOUGH_NEURONS,
    autocorrelation_time,
    equilibration,
    mean,
    root_mean_square,
)


def ar1(a, shape, seed=0):
    """Stationary AR(1) with unit variance; its autocorrelation time is (1 + a)/(1 - a)."""
    rng = np.random.default_rng(seed)
    x = np.empty(shape)
    x[:, 0] = rng.normal(size=shape[0])
    for t in range(1, shape[1]):
        x[:, t] = a * x[:, t - 1] + np.sqrt(1 - a * a) * rng.normal(size=shape[0])
    return x


@pytest.mark.parametrize("a", [0.0, 0.5, 0.9, 0.97])
def test_autocorrelation_time_of_ar1(a):
    true = (1 + a) / (1 - a)
    assert autocorrelation_time(ar1(a, (1, 200_000))) == pytest.approx(true, rel=0.15)
    assert autocorrelation_time(ar1(a, (40, 5000))) == pytest.approx(true, rel=0.15)


def test_autocorrelation_time_is_bounded():
    assert autocorrelation_time(np.zeros(10)) == 1.0
    assert autocorrelation_time(np.array([1.0])) == 1.0
    assert autocorrelation_time(np.arange(50.0)) <= 50


@pytest.mark.parametrize(
    ("neurons", "independent"), [(64, True), (4, True), (4, False)], ids=["many", "few", "one network"]
)
def test_standard_error_covers(neurons, independent):
    """z-scores of the estimated mean have unit variance: the error bars are honest, correlation included."""
    z = []
    for seed in range(300):
        x = ar1(0.9, (neurons, 800), seed)
        estimate = mean(x, independent)
        z.append(estimate.value / estimate.standard_error)
    # t-distributed for 64 neurons; the autocorrelation route is noisier and a little short on 800 samples
    assert 0.85 < np.std(z) < 1.25


@pytest.mark.parametrize(
    ("a", "shape", "allowed"), [(0.9, (1, 200), 0.04), (0.9, (1, 400), 0.02), (0.97, (4, 400), 0.025)], ids=str
)
def test_few_effective_samples_are_not_overrated(a, shape, allowed):
    """Down to ten effective samples, four standard errors are rarely passed; the plain error is passed far oftener."""
    z, plain = [], []
    for seed in range(400):
        x = ar1(a, shape, seed)
        z.append(x.mean() / mean(x, True).standard_error)
        plain.append(x.mean() / np.sqrt(x.var() * autocorrelation_time(x) / x.size))
    assert (np.abs(z) > 4).mean() < allowed / 2 and (np.abs(z) > 3).mean() < allowed
    assert (np.abs(plain) > 3).mean() > allowed


def test_ignoring_correlation_would_not_cover():
    """Negative control: the naive error is wrong by the square root of the autocorrelation time."""
    x = ar1(0.9, (4, 800))
    naive = x.std() / np.sqrt(x.size)
    assert mean(x, True).standard_error > 3 * naive


def test_root_mean_square():
    x = 3.0 + 0.01 * ar1(0.0, (ENOUGH_NEURONS, 1000))
    estimate = root_mean_square(x, True)
    assert estimate.value == pytest.approx(np.sqrt((x**2).mean()), rel=1e-12)
    assert estimate.standard_error == pytest.approx(0.01 / np.sqrt(x.size), rel=0.5)
    assert np.isnan(root_mean_square(np.zeros((2, 5)), True).standard_error)


STEP = np.arange(1, 201) * 100


def transient(tau, noise=0.01, neurons=64, seed=0, start=4.0):
    clean = 1 + (start - 1) * np.exp(-STEP / tau)
    return clean * (1 + noise * ar1(0.8, (neurons, len(STEP)), seed))


def test_stationary_from_the_start():
    found = equilibration(STEP, [1 + 0.01 * ar1(0.8, (64, len(STEP)))], True)
    assert found.reached and found.start == 0


def test_start_lies_beyond_the_transient():
    found = equilibration(STEP, [transient(1000)], True)
    assert found.reached
    assert 3 * np.exp(-STEP[found.start] / 1000) < 2e-3


def test_slowest_of_several_series_decides():
    fast, slow = transient(200), transient(1500, seed=1)
    assert equilibration(STEP, [fast, slow], True).start >= equilibration(STEP, [fast], True).start
    assert equilibration(STEP, [fast, slow], True).start == equilibration(STEP, [slow, fast], True).start


def test_not_equilibrated_says_when_it_would_be():
    found = equilibration(STEP, [transient(10_000, noise=1e-3)], True)
    assert not found.reached
    # 3 e^{-t/τ} = 0.01 at t = 57 000
    assert found.steps_needed == pytest.approx(57_000, rel=0.25)
    assert "still drifting at step 20000" in found.reason


def test_drift_tolerance():
    drifting = np.broadcast_to(1 + 0.02 * STEP / STEP[-1], (64, len(STEP))) * (1 + 1e-4 * ar1(0, (64, len(STEP))))
    assert not equilibration(STEP, [drifting], False).reached
    assert equilibration(STEP, [drifting], False, drift_tolerance=0.04).reached


def test_too_few_windows():
    found = equilibration(STEP[:5], [np.ones((64, 5))], True)
    assert not found.reached and found.steps_needed is None and "at least 8" in found.reason
