"""Estimators on series whose truth is known: AR(1), exponential transients, white noise."""

import numpy as np
import pytest
from scipy import stats
from scipy.signal import lfilter

from rotsim.statistics import (
    ENOUGH_NEURONS,
    Equilibration,
    autocorrelation_time,
    equilibration,
    mean,
    median_ratio,
    root_mean_square,
    scatter,
)
from tests import chance


def ar1(a, shape, seed=0):
    """Stationary AR(1) with unit variance; its autocorrelation time is (1 + a)/(1 - a)."""
    noise, scale = np.random.default_rng(seed).normal(size=shape), np.sqrt(1 - a * a)
    noise[:, 0] /= scale
    return lfilter([scale], [1, -a], noise, axis=1)


@pytest.mark.parametrize("shape", [(1, 1_000_000), (40, 25_000)], ids=str)
@pytest.mark.parametrize("a", [0.0, 0.5, 0.9, 0.97])
def test_autocorrelation_time_of_ar1(a, shape):
    """Summed to a lag of W = 5τ, τ has a relative variance of 2 (2W + 1)/N (Sokal 1997)."""
    true = (1 + a) / (1 - a)
    error = np.sqrt(2 * (2 * 5 * true + 1) / np.prod(shape))
    assert autocorrelation_time(ar1(a, shape)) == pytest.approx(true, rel=chance.errors() * error)


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
    for seed in range(500):
        x = ar1(0.9, (neurons, 800), seed)
        estimate = mean(x, independent)
        z.append(estimate.value / estimate.standard_error)
    # 1.02 for 64 neurons (Student's t); the autocorrelation route is widened for few samples: 0.90 to 0.94
    assert abs(np.std(z) - 1) < 0.12 + chance.errors() * chance.error_of_deviation(z)


@pytest.mark.parametrize(
    ("a", "shape", "trials"),
    [pytest.param(0.9, (1, 200), 2500, marks=pytest.mark.slow), (0.9, (1, 400), 400), (0.97, (4, 400), 400)],
    ids=str,
)
def test_few_effective_samples_are_not_overrated(a, shape, trials):
    """Down to ten effective samples, 3 standard errors are passed in less than 4 % of trials and 4 in less than 2 %."""
    z, plain = [], []
    for seed in range(trials):
        x = ar1(a, shape, seed)
        z.append(abs(x.mean()) / mean(x, True).standard_error)
        plain.append(abs(x.mean()) / np.sqrt(x.var() * autocorrelation_time(x) / x.size))
    passed, by_plain = np.greater(z, 3).sum(), np.greater(plain, 3).sum()
    assert not chance.too_many(passed, trials, 0.04) and not chance.too_many(np.greater(z, 4).sum(), trials, 0.02)
    if trials == 2500:  # negative control: the series' own variance and time are passed in 10 %
        assert chance.too_many(by_plain, trials, 0.04)


def test_ignoring_correlation_would_not_cover():
    """Negative control: the naive error is wrong by the square root of the autocorrelation time."""
    x = ar1(0.9, (4, 80_000))  # long enough that the error itself is known to a few per cent, and √19 is 4.4
    naive = x.std() / np.sqrt(x.size)
    assert mean(x, True).standard_error > 3 * naive


def test_root_mean_square():
    x = 3.0 + 0.01 * ar1(0.0, (ENOUGH_NEURONS, 1000))
    estimate = root_mean_square(x, True)
    assert estimate.value == pytest.approx(np.sqrt((x**2).mean()), rel=1e-12)
    spread = stats.chi2(ENOUGH_NEURONS - 1)  # of the variance over neurons, in units of the true one
    found, share = (estimate.standard_error / 0.01) ** 2 * x.size * spread.args[0], chance.share() / 2
    assert spread.ppf(share) < found < spread.isf(share)
    assert np.isnan(root_mean_square(np.zeros((2, 5)), True).standard_error)


STEP = np.arange(1, 201) * 100


def transient(tau, noise=0.01, neurons=64, seed=0, start=4.0):
    clean = 1 + (start - 1) * np.exp(-STEP / tau)
    return clean * (1 + noise * ar1(0.8, (neurons, len(STEP)), seed))


def test_stationary_from_the_start():
    """Three standard errors are passed once in 300 series: seldom more often, and then a later start is found."""
    found = [equilibration(STEP, [1 + 0.01 * ar1(0.8, (64, len(STEP)), seed)], True) for seed in range(200)]
    assert all(x.reached for x in found)  # that no start of 25 will do did not happen once in 4 million series
    assert not chance.too_many(sum(x.start > 0 for x in found), len(found), 0.01)


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


# --- against loops ---------------------------------------------------------------------------------


def covariance_by_loops(x):
    """At every lag, products of deviations from the mean of all, averaged over the pairs that there are."""
    off, (rows, samples) = x - x.mean(), x.shape
    return np.array(
        [np.mean([off[i, t] * off[i, t + k] for i in range(rows) for t in range(samples - k)]) for k in range(samples)]
    )


def time_by_loops(covariance, factor=5.0):
    tau = 1.0
    for lag in range(len(covariance)):
        tau = 1 + 2 * sum(covariance[1 : lag + 1]) / covariance[0]
        if lag >= factor * tau:
            break
    return min(max(tau, 1.0), len(covariance))


SERIES = {
    "white": ar1(0.0, (1, 60)),
    "correlated": ar1(0.7, (3, 60), 1),
    "alternating": ar1(-0.8, (2, 40), 2),
    "slow": ar1(0.99, (2, 30), 3),
    "own levels": ar1(0.5, (3, 20), 4) + 5 * np.arange(3)[:, None],
    "ramp": np.arange(12.0)[None],
    "two rows of two": np.array([[0.0, 0.0], [1.0, 1.0]]),
}


@pytest.mark.parametrize("name", SERIES)
@pytest.mark.parametrize("factor", [0.0, 2.0, 5.0])
def test_autocorrelation_time_is_sokals_sum(name, factor):
    x = SERIES[name]
    assert autocorrelation_time(x, factor) == pytest.approx(time_by_loops(covariance_by_loops(x), factor), rel=1e-9)


def test_the_sum_stops_at_the_lag_that_equals_its_bound():
    # deviations ±1, covariances 1, 1/3, ...: τ = 1, 5/3; at lag 0 with 0, at lag 1 with exactly 3/5 · 5/3
    x = np.array([[1.0, 1.0, -1.0, -1.0]])
    tau = 1 + 2 * (1 / 3)
    assert covariance_by_loops(x)[:2] == pytest.approx([1.0, 1 / 3])
    assert autocorrelation_time(x, 0.6 - 1e-9) == pytest.approx(tau)
    assert autocorrelation_time(x, 0.6 + 1e-9) != pytest.approx(tau)


@pytest.mark.parametrize("name", SERIES)
def test_the_error_of_few_series_is_its_fixed_point(name):
    """The variance of the mean is missed at every lag of the autocovariance: added back until both agree."""
    x = SERIES[name]
    covariance, missed = covariance_by_loops(x), 0.0
    for _ in range(100):
        tau = time_by_loops(covariance + missed)
        missed = min((covariance[0] + missed) * tau / x.size, covariance[0])
    wider = stats.t.isf(stats.norm.sf(3), max(x.size / tau / 3, 1.5)) / 3
    found = mean(x, True)
    assert found.value == pytest.approx(x.mean(), rel=1e-12)
    assert found.standard_error == pytest.approx(np.sqrt(missed) * wider, rel=1e-4)


def test_the_error_of_many_independent_rows_is_that_of_their_means():
    x = ar1(0.5, (ENOUGH_NEURONS, 10)) + np.arange(ENOUGH_NEURONS)[:, None]
    rows = [sum(row) / len(row) for row in x]
    spread = sum((row - sum(rows) / len(rows)) ** 2 for row in rows) / (len(rows) - 1)
    assert mean(x, True).standard_error == pytest.approx((spread / len(rows)) ** 0.5, rel=1e-12)
    assert mean(x[:, :1], True).standard_error == pytest.approx(x[:, 0].std(ddof=1) / len(x) ** 0.5, rel=1e-12)
    # one network's neurons are one series; fewer rows than enough are read along time
    shared, alone = mean(x, False), mean(x.mean(axis=0)[None], True)
    assert shared.value == pytest.approx(alone.value, rel=1e-12) and shared.standard_error == alone.standard_error
    assert mean(x[1:], True).standard_error != pytest.approx(x[1:].mean(axis=1).std(ddof=1) / (len(x) - 1) ** 0.5)
    assert np.isnan(mean(x[1:, :1], True).standard_error) and np.isfinite(mean(x[1:, :2], True).standard_error)
    assert mean(np.ones((2, 9)), True).standard_error == 0.0


def test_root_mean_square_halves_the_relative_error_of_the_square():
    x = np.linspace(1.0, 2.0, ENOUGH_NEURONS)[:, None] * np.ones((1, 3))
    square, found = mean(x**2, True), root_mean_square(x, True)
    assert found.value == pytest.approx(square.value**0.5, rel=1e-12)
    assert found.standard_error / found.value == pytest.approx(square.standard_error / square.value / 2, rel=1e-12)
    assert root_mean_square(x, False) != found


def falling_to_one(at, windows=40, neurons=ENOUGH_NEURONS):
    """2 before window `at` and 1 from there on, the same in every neuron: no noise hides the fall."""
    return np.where(np.arange(windows) < at, 2.0, 1.0) * np.ones((neurons, 1))


@pytest.mark.parametrize(("at", "start"), [(0, 0), (1, 2), (5, 10), (12, 24), (15, 24), (24, 24)])
def test_the_start_is_doubled_but_keeps_the_last_two_fifths(at, start):
    step = 10 * np.arange(1, 41)
    found = equilibration(step, [falling_to_one(at)], True)
    assert found == Equilibration(True, start, None, f"stationary from step {10 * (start + 1)}")
    assert equilibration(step, [falling_to_one(0), falling_to_one(at), falling_to_one(0)], True) == found


def test_eight_windows_must_remain():
    step = np.arange(1, 13)
    assert equilibration(step, [falling_to_one(4, 12)], True).start == 7
    assert not equilibration(step, [falling_to_one(5, 12)], True).reached
    assert not equilibration(step[:7], [falling_to_one(0, 7)], True).reached
    assert equilibration(step[:8], [falling_to_one(0, 8)], True).start == 0


def test_what_no_exponential_explains_needs_twice_as_long():
    step = np.arange(10, 410, 10)
    rising = np.linspace(-1, -2, 40) * np.ones((ENOUGH_NEURONS, 1))  # towards no positive limit
    fallen = (1 + 3 * np.exp(-step / 20)) * np.ones((ENOUGH_NEURONS, 1))  # over by step 400, but not to all digits
    for series in (rising, fallen):
        assert equilibration(step, [series], True) == Equilibration(False, 0, 800, "still drifting at step 400")


@pytest.mark.parametrize(("limit", "amplitude"), [(1.0, 3.0), (2.0, -1.0), (0.5, 0.2)])
def test_the_steps_needed_are_those_of_an_exact_exponential(limit, amplitude):
    step = np.arange(10, 410, 10)
    tau = 390 * np.geomspace(0.05, 20, 60)[40]
    clean = limit + amplitude * np.exp(-(step - 10) / tau)
    found = equilibration(step, [np.ones((ENOUGH_NEURONS, 40)), clean * np.ones((ENOUGH_NEURONS, 1))], True)
    assert not found.reached and found.reason == "still drifting at step 400"
    assert found.steps_needed == pytest.approx(10 + tau * np.log(abs(amplitude) / (0.01 * limit)), abs=2)


@pytest.mark.parametrize("independent", [True, False])
def test_a_drift_of_three_standard_errors_is_the_last_that_counts_as_noise(independent):
    """Early third and late half, each with the plain error of its own series: of all rows, or of their mean."""
    noise = ar1(0.3, (4, 24), 7)
    early, late = np.arange(24) < 8, np.arange(24) >= 12

    def error(x):
        x = x if independent else x.mean(axis=0, keepdims=True)
        return (x.var() * time_by_loops(covariance_by_loops(x)) / x.size) ** 0.5

    centered = noise - noise[:, early].mean() * early - noise[:, late].mean() * late
    allowed = 3 * np.hypot(error(centered[:, early]), error(centered[:, late]))

    def found(drift, tolerance):
        return equilibration(np.arange(24), [10 + centered + drift * late], independent, tolerance)

    for tolerance, sign in ((0.0, 1), (0.0, -1), (0.04, 1), (0.04, -1)):
        most = sign * (allowed + tolerance * 10) / (1 - sign * tolerance)  # of the late mean, 10 + most
        assert found(0.999 * most, tolerance).reached and found(0.999 * most, tolerance).start == 0
        assert found(1.001 * most, tolerance) != found(0.999 * most, tolerance)


def test_many_independent_rows_drift_by_three_errors_of_their_own_drifts():
    draw = np.random.default_rng(3)
    x = 10 + draw.normal(size=(ENOUGH_NEURONS, 1)) * np.ones(24) + 0.1 * draw.normal(size=(ENOUGH_NEURONS, 24))
    late = np.arange(24) >= 12
    drifts = x[:, late].mean(axis=1) - x[:, :8].mean(axis=1)
    x = x - drifts.mean() * late  # levels of rows differ by far more than their drifts do
    most = 3 * drifts.std(ddof=1) / ENOUGH_NEURONS**0.5
    assert equilibration(np.arange(24), [x + 0.999 * most * late], True).start == 0
    moved = equilibration(np.arange(24), [x + 1.001 * most * late], True)
    assert moved.start > 0 or not moved.reached


@pytest.mark.few(2)
@pytest.mark.parametrize(
    ("neurons", "shared", "own"), [(48, 0.02, 0.1), (48, 0.05, 0.01), (8, 0.0, 0.1), (1, 0.05, 0.0)]
)
def test_three_errors_of_a_median_ratio_are_passed_as_seldom_as_three_of_a_normal(neurons, shared, own):
    """Noise that neurons share in a window, and what each has of its own; a prediction that drifts is not noise."""
    draw, windows, runs = np.random.default_rng(0), 24, 2000
    z = []
    for _ in range(runs):
        truth = np.linspace(1.0, 1.3, windows)  # what the prediction gets wrong
        noise = shared * draw.normal(size=windows) + own * draw.normal(size=(neurons, 1))
        measured = truth * (1 + noise)
        quarter = slice(6, 12)
        expected = np.ones_like(measured)
        found = median_ratio(measured[:, quarter], expected[:, quarter], scatter(measured / expected))
        z.append((found.value - np.sqrt((truth[quarter] ** 2).mean())) / found.standard_error)
    z = np.array(z)
    assert np.mean(np.abs(z) > 3) < 0.0027 + chance.errors() * np.sqrt(0.0027 / runs)
    assert z.std() > 0.5  # and not because the error is far too large


def test_the_error_of_a_median_ratio_where_little_is_known():
    one = np.ones((1, 4))
    assert np.isnan(median_ratio(one, one, scatter(one)).standard_error)
    same = np.ones((3, 4))
    assert median_ratio(2 * same, same, scatter(same)).value == 2.0
    assert median_ratio(2 * same, same, scatter(same)).standard_error == 0.0
    drift = np.arange(1.0, 21) * np.ones((3, 1))
    assert scatter(drift).value == pytest.approx(0.0, abs=1e-12)
