"""Estimates from correlated series: autocorrelation time, standard errors, and when equilibrium began.

Record windows of one neuron are correlated over a relaxation time, so a standard error that counts
windows as independent is too small. Many independent neurons give the error from their spread.
Few neurons, or neurons of one network, give it from the autocorrelation time of the series
(Sokal's automatic window, as in emcee).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy

from rotsim.errors import INT64, InvalidInput, array, flag, nonnegative, require, sequence

ENOUGH_NEURONS = 16  # from here on the spread over independent neurons gives the standard error
_Z_DRIFT = 3.0
_LATEST_START = 0.6
_MIN_WINDOWS = 8
_ENOUGH_BENDS = 3  # second differences, of which a median is taken
_OF_A_MEDIAN = 1.2533  # standard error of a median over that of a mean, for near-normal spread
MOST_ERRORS = 37.0  # standard errors that a normal is beyond with a chance that is a float
LARGEST_VALUE = 1e75  # whose fourth power is a float


@dataclass(frozen=True)
class Estimate:
    """A mean (or root mean square) with its standard error."""

    value: float
    standard_error: float


@dataclass(frozen=True)
class Equilibration:
    """Whether and from where on a set of series is stationary.

    Attributes
    ----------
    reached : bool
    start : int
        Index of the first window to use; 0 if not reached.
    steps_needed : int or None
        If not reached, total number of steps until the remaining transient is below 1 %, by an
        exponential fit. None if the series is too short to tell.
    reason : str
        One clause for a person.
    """

    reached: bool
    start: int
    steps_needed: int | None
    reason: str


def autocorrelation_time(series: np.ndarray, window_factor: float = 5.0) -> float:
    """Integrated autocorrelation time τ = 1 + 2 Σ ρ_k, in samples.

    Parameters
    ----------
    series : ndarray, shape (replicates, samples) or (samples,)
        The autocorrelation is averaged over independent replicates.
    window_factor : float
        Summation stops at the first lag k >= window_factor · τ(k) (Sokal 1997).

    Returns
    -------
    float
        At least 1; at most the number of samples.
    """
    x = np.atleast_2d(_checked("series", series, (1, 2)))
    return _integrated(_autocovariance(x), nonnegative("window_factor", window_factor))


def _checked(name: str, values: Any, ndims: tuple[int, ...] = (2,)) -> np.ndarray:
    """Values as float64, of so many dimensions, none empty, whose squares can be summed."""
    rule = "be an array of numbers of shape (neurons, windows), none empty"
    found = array(name, values, rule)
    if found.ndim not in ndims or not found.size:
        raise InvalidInput(f"`{name}` must {rule}; got shape {found.shape}")
    if (np.abs(found) > LARGEST_VALUE).any():  # NaN is taken, and gives NaN
        raise InvalidInput(f"`{name}` must be at most {LARGEST_VALUE:g} in size; some values are not")
    return found


def _autocovariance(x: np.ndarray) -> np.ndarray:
    """At every lag, averaged over replicates (rows), about the mean of all: a row's own would hide slow modes."""
    samples = x.shape[1]
    spectrum = np.fft.rfft(x - x.mean(), n=2 * samples, axis=1)
    covariance = np.fft.irfft(np.abs(spectrum) ** 2, axis=1)[:, :samples].mean(axis=0)
    return np.asarray(covariance / np.arange(samples, 0, -1))


def _integrated(covariance: np.ndarray, window_factor: float = 5.0) -> float:
    samples = len(covariance)
    if samples < 2 or covariance[0] <= 0:
        return 1.0
    tau = 2 * np.cumsum(covariance / covariance[0]) - 1
    enough = np.arange(samples) >= window_factor * tau
    chosen = tau[np.argmax(enough)] if enough.any() else tau[-1]
    return float(np.clip(chosen, 1.0, samples))


def _plain_error(x: np.ndarray) -> float:
    """Standard error of a mean from the series' own variance and autocorrelation time."""
    return float(np.sqrt(x.var() * autocorrelation_time(x) / x.size))


def _error_of_mean(x: np.ndarray) -> float:
    """Standard error of the mean of correlated replicates, for use in multiples of about three.

    Deviations from a series' own mean miss the variance of that mean, at every lag: it is added back until both agree.
    The error itself is an estimate with few degrees of freedom. It is widened so that three of it are passed as
    seldom as three standard deviations of a normal. The t quantile at a third of the effective sample size
    calibrates it on AR(1) series.
    """
    covariance = _autocovariance(x)
    if covariance[0] <= 0:
        return 0.0
    missed, tau = 0.0, 1.0
    for _ in range(30):
        tau = _integrated(covariance + missed)
        found = min((covariance[0] + missed) * tau / x.size, covariance[0])
        if abs(found - missed) < 1e-6 * found:
            break
        missed = found
    degrees = max(x.size / tau / 3, 1.5)
    return float(np.sqrt(missed)) * as_seldom(3.0, degrees) / 3


def as_seldom(k: float, degrees: float, among: int = 1) -> float:
    """Standard errors that a Student t is above as seldom as a normal is above k, shared by so many chances.

    Parameters
    ----------
    k : float
        Standard errors of a normal, >= 0.
    degrees : float
        Degrees of freedom of the t, > 0.
    among : int
        Chances, >= 1: each is wrong with that part of the probability.
    """
    # `scipy.stats` has the same, and takes a second to import
    return float(-scipy.special.stdtrit(degrees, scipy.special.ndtr(-k) / among))


def mean(series: np.ndarray, independent: bool) -> Estimate:
    """Mean over neurons and windows with its standard error.

    Parameters
    ----------
    series : ndarray, shape (neurons, windows)
    independent : bool
        True if neurons are independent replicates (a simulation); False if they share one
        network's history.
    """
    x, independent = _checked("series", series), flag("independent", independent)
    neurons, windows = x.shape
    value = float(x.mean())
    if independent and neurons >= ENOUGH_NEURONS:
        return Estimate(value, float(x.mean(axis=1).std(ddof=1) / np.sqrt(neurons)))
    if not independent:
        x = x.mean(axis=0, keepdims=True)
    return Estimate(value, _error_of_mean(x) if windows > 1 else float("nan"))


def root_mean_square(series: np.ndarray, independent: bool) -> Estimate:
    """RMS over neurons and windows of a series of RMS values, with its standard error (delta method)."""
    square = mean(_checked("series", series) ** 2, independent)
    value = float(np.sqrt(square.value))
    return Estimate(value, square.standard_error / (2 * value) if value > 0 else float("nan"))


def running_mean(series: np.ndarray, windows: int) -> np.ndarray:
    """Mean over so many neighbouring windows of each neuron, at least one and at most all; over fewer at both ends."""
    box = np.ones(min(max(1, windows), max(1, series.shape[1])))
    count = np.convolve(np.ones(series.shape[1]), box, "same")
    return np.array([np.convolve(row, box, "same") for row in series]).reshape(series.shape) / count


def over(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Their ratio, elementwise.

    Parameters
    ----------
    one, other : ndarray, of one shape

    Returns
    -------
    ndarray
        1 where they are the same, 0 or infinite; infinite where `other` alone is 0.
    """
    same = np.where(one == other, 1.0, np.inf)
    return np.divide(one, other, out=same, where=(other != 0) & (one != other))


def scatter(ratio: np.ndarray) -> Estimate:
    """Standard deviation of the noise that all neurons of a network share in a window; its error is relative.

    It is read off the second differences of their median in time. Drifts and transients are no noise: they are what a
    prediction gets wrong. The median of these differences is not moved by a few windows that are bent.

    Parameters
    ----------
    ratio : ndarray, shape (neurons, windows)
        Measured over predicted.

    Returns
    -------
    Estimate
        Zero, without an error, where fewer than five windows tell nothing.
    """
    course = np.median(ratio, axis=0)
    bends = np.diff(course[np.isfinite(course)], 2)
    if len(bends) < _ENOUGH_BENDS:
        return Estimate(0.0, 0.0)
    # a normal's SD is 1.4826 times its median size, and a second difference of white noise has 6 times the variance
    return Estimate(float(1.4826 * np.median(np.abs(bends)) / np.sqrt(6)), float(np.sqrt(1.36 / len(bends))))


def median_ratio(measured: np.ndarray, expected: np.ndarray, shared: Estimate) -> Estimate:
    """Median over the neurons of one network of measured over expected RMS, with its standard error.

    Noise is what differs from neuron to neuron, and what they share in a window. As that of `mean`, the error is an
    estimate. It is widened so that three of it are passed as seldom as three standard deviations of a normal.

    Parameters
    ----------
    measured, expected : ndarray, shape (neurons, windows)
        Series of RMS values.
    shared : Estimate
        From `scatter`.

    Returns
    -------
    Estimate
        Its error is NaN for one neuron without a `scatter`.
    """
    neurons, windows = measured.shape
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.sqrt((measured**2).mean(axis=1) / (expected**2).mean(axis=1))
    value = float(np.median(each))
    low, high = np.quantile(each, [0.16, 0.84])
    across = _OF_A_MEDIAN * float(high - low) / 2 / np.sqrt(neurons)
    along = shared.value / np.sqrt(windows)
    error = float(np.hypot(across, along))
    if neurons == 1 and not shared.standard_error:
        return Estimate(value, float("nan"))
    if not error > 0:
        return Estimate(value, error)
    # degrees of freedom of a sum of variances, after Welch and Satterthwaite
    own, common = (across / error) ** 2, (along / error) ** 2
    degrees = 1 / (own**2 / max(neurons - 1, 1) + 2 * (common * shared.standard_error) ** 2)
    return Estimate(value, error * as_seldom(3, degrees) / 3)


def equilibration(
    step: np.ndarray, series: list[np.ndarray], independent: bool, drift_tolerance: float = 0.0
) -> Equilibration:
    """Find where several series over the same windows become stationary together.

    The start is moved forward until first third and last half of what remains agree in every series, within
    3 standard errors plus `drift_tolerance`. Then it is doubled, since the
    transient that hides in the noise at t has decayed to its square at 2t.

    Parameters
    ----------
    step : ndarray of int, shape (windows,)
    series : list of ndarray, each of shape (neurons, windows)
    independent : bool
        As in `mean`.
    drift_tolerance : float
        Relative drift that counts as stationary (0 for simulations; real networks always drift).
    """
    rule = "be an array of whole numbers, of shape (windows,)"
    step, independent = array("step", step, rule), flag("independent", independent)
    require(step.ndim == 1 and bool((np.abs(step) <= INT64).all()), "step", rule, step)
    windows = len(step)
    drift_tolerance = nonnegative("drift_tolerance", drift_tolerance)
    if windows < _MIN_WINDOWS:
        return Equilibration(
            False, 0, None, f"only {windows} record window{'s' * (windows != 1)}, at least {_MIN_WINDOWS} are needed"
        )
    series = [_checked(f"series[{i}]", x) for i, x in enumerate(sequence("series", series))]
    if wrong := [x.shape for x in series if x.shape[1] != windows]:
        raise InvalidInput(f"`series` must have {windows} windows, as `step` has; got shape {wrong[0]}")
    latest = int(_LATEST_START * windows)
    for start in np.unique(np.linspace(0, latest, 25).astype(int)):
        if windows - start >= _MIN_WINDOWS and all(
            _stationary(x[:, start:], independent, drift_tolerance) for x in series
        ):
            margin = min(2 * int(start), latest)
            return Equilibration(True, margin, None, f"stationary from step {int(step[margin])}")
    needed = max((_steps_needed(step, x.mean(axis=0)) for x in series), default=0)
    if needed <= step[-1]:
        # the slow mode is not a simple exponential; all that is known is that this was too short
        needed = 2 * int(step[-1])
    return Equilibration(False, 0, needed, f"still drifting at step {int(step[-1])}")


def _stationary(x: np.ndarray, independent: bool, drift_tolerance: float) -> bool:
    windows = x.shape[1]
    early, late = x[:, : windows // 3], x[:, windows // 2 :]
    drift = late.mean() - early.mean()
    if independent and len(x) >= ENOUGH_NEURONS:
        noise = mean((late.mean(axis=1) - early.mean(axis=1))[:, None], independent).standard_error
    else:
        # not the widened error of `mean`: a drift looks like a long correlation, and would hide in it
        parts = (early, late) if independent else (early.mean(axis=0), late.mean(axis=0))
        noise = float(np.hypot(_plain_error(parts[0]), _plain_error(parts[1])))
    return bool(abs(drift) <= _Z_DRIFT * noise + drift_tolerance * abs(late.mean()))


def _steps_needed(step: np.ndarray, y: np.ndarray) -> int:
    """Steps until an exponential fit A + B exp(-t/τ) is within 1 % of A."""
    best = (np.inf, 0.0, 0.0, 1.0)
    span = float(step[-1] - step[0]) or 1.0
    for tau in span * np.geomspace(0.05, 20, 60):
        basis = np.stack([np.ones(len(step)), np.exp(-(step - step[0]) / tau)], axis=1)
        coefficients, *_ = np.linalg.lstsq(basis, y, rcond=None)
        error = float(((basis @ coefficients - y) ** 2).sum())
        if error < best[0] and coefficients[0] > 0:
            best = (error, *coefficients, tau)
    _, limit, amplitude, tau = best
    if limit <= 0 or amplitude == 0:
        return 0
    return int(step[0] + tau * max(0.0, np.log(abs(amplitude) / (0.01 * limit))))
