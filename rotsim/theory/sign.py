"""Correlations of the signs that Lion steps by: the arcsine law, expanded in modes and summed over lags."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.polynomial import Chebyshev, Polynomial
from scipy.special import erf

from rotsim.theory import closed_forms
from rotsim.theory.second_moment import UpdateCovariance

_ARCSINE_DEGREE = 12
_LINEAR = 1e-5  # below this correlation asin(x) = x to 2e-11
_GAUSS = np.polynomial.legendre.leggauss(24)


@lru_cache(maxsize=256)
def arcsine_modes(beta1: float, beta2: float) -> np.ndarray:
    """a_n with asin(x) = Σ a_n x^(2n+1), near-minimax up to the largest correlation of two directions that occurs."""
    first = beta1 * (1 - beta2) / np.hypot(beta1 * (1 - beta2), 1 - beta1)  # of steps 1 and 2
    stationary = closed_forms.lion_covariance(beta1, beta2, 1) / closed_forms.lion_variance(beta1, beta2)
    largest = min(1.0, 1.05 * max(first, stationary, 1e-3)) ** 2

    def over_x(square: np.ndarray) -> np.ndarray:
        x = np.sqrt(square)
        return np.arcsin(x) / x

    fit = Chebyshev.interpolate(over_x, _ARCSINE_DEGREE, domain=[0, largest])
    return fit.trim(1e-12).convert(kind=Polynomial).coef


def sign_covariance(beta1: float, beta2: float) -> UpdateCovariance:
    """Autocovariance of Lion's signs under white noise as modes: odd powers of β2 from the arcsine series."""
    beta2 = max(beta2, 1e-9)  # continuous at 0, where 0^0 would be needed
    arcsine = arcsine_modes(beta1, beta2)
    odd = 2 * np.arange(len(arcsine)) + 1
    ratio = closed_forms.lion_covariance(beta1, beta2, 1) / closed_forms.lion_variance(beta1, beta2) / beta2
    return UpdateCovariance(1.0, 2 / np.pi * arcsine * ratio**odd, beta2**odd, 0.0)


def discounted_sum(kept: float, beta1: float, beta2: float) -> float:
    """Σ_{k≥1} kept^k s_k under white noise: term by term while asin bends, then as a geometric tail."""
    lags = 1 if beta2 == 0 else max(1, int(np.ceil(np.log(_LINEAR) / np.log(beta2))))
    k = np.arange(1, lags + 1)
    head = np.sum(kept**k * closed_forms.lion_sign_correlation(beta1, beta2, k))
    tail = kept ** (lags + 1) * closed_forms.lion_sign_correlation(beta1, beta2, lags + 1) / (1 - kept * beta2)
    return float(head + tail)


def discounted_excess(kept: float, covariance: np.ndarray, variance: float) -> float:
    """Σ_{k≥1} kept^k (2/π)(asin x_k - x_k): what the arcsine adds to correlations x_k = covariance[k-1]/variance."""
    x = covariance / variance
    return float(2 / np.pi * (kept ** np.arange(1, len(x) + 1) * (np.arcsin(x) - x)).sum())


def correlated_covariance(beta1: float, beta2: float, correlation: float) -> np.ndarray:
    """Autocovariance of Lion's update direction at lags 1, 2, ... under AR(1) gradients, to where asin is straight."""
    if correlation == 0:
        lags = max(1, int(np.ceil(np.log(_LINEAR) / np.log(max(beta2, 1e-9)))))
        return np.asarray(closed_forms.lion_covariance(beta1, beta2, np.arange(1, lags + 1)))
    apart = 1e-6  # the two memories merge at correlation = β2, and 0^0 is met at 0: both are removable
    if abs(correlation - beta2) < apart or abs(correlation) < apart:
        correlation += 2 * apart if correlation < 0.5 else -2 * apart
    slowest = max(beta2, abs(correlation))
    lags = max(1, int(np.ceil(np.log(_LINEAR) / np.log(slowest))))
    return np.asarray(closed_forms.lion_correlated_covariance(beta1, beta2, np.arange(1, lags + 1), correlation))


def shifted_discounted_sum(kept: float, beta1: float, beta2: float, mean: float) -> tuple[float, float]:
    """Variance K_0 of a sign whose argument has a mean of `mean` standard deviations, and Σ kept^k K_k / K_0.

    derivations.signal.sign_covariance_slope: K_k is (2/π) ∫ exp(-mean²/(1 + sin ψ)) dψ up to the arcsine of the
    correlation. Beyond some 8 deviations the sign does not change within floating point: both are 0.
    """
    lag_0 = 1 - erf(mean / np.sqrt(2)) ** 2
    if lag_0 == 0:
        return 0.0, 0.0
    lags = 1 if beta2 == 0 else max(1, int(np.ceil(np.log(_LINEAR) / np.log(beta2))))
    k = np.arange(1, lags + 1)
    end = np.pi / 2 * closed_forms.lion_sign_correlation(beta1, beta2, k)
    nodes, weights = _GAUSS
    covariance = np.zeros(lags)
    for node, weight in zip(nodes, weights, strict=True):
        covariance += weight * end / np.pi * np.exp(-(mean**2) / (1 + np.sin(end * (1 + node) / 2)))
    tail = kept ** (lags + 1) * covariance[-1] * beta2 / (1 - kept * beta2)
    return float(lag_0), float(((kept**k * covariance).sum() + tail) / lag_0)
