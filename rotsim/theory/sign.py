"""Correlations of the signs that Lion steps by: the arcsine law, expanded in modes and summed over lags.

In all functions betas and `kept`, which decay leaves of a weight, are in [0, 1), and a correlation in (-1, 1).
"""

from __future__ import annotations

from functools import cache
from math import ceil, log

import numpy as np

from rotsim import closed_forms
from rotsim.arcsine import MOST_LAGS
from rotsim.errors import require
from rotsim.theory.memory import CorrelatedUpdate
from rotsim.theory.walk import UpdateCovariance, discounted

_LARGEST_POWER, _POWER_RATIO = 1e6, 1.5
_LEAST_BETA2 = 1e-6  # of a momentum, which is divided by: the rest of a shorter memory is as good as none
LARGEST_UNBENT = 1e-5  # below this correlation asin(x) = x to 2e-11
_GAUSS = np.polynomial.legendre.leggauss(24)


@cache
def arcsine_modes() -> tuple[np.ndarray, np.ndarray]:
    """Powers ν_n and factors a_n with asin(x) = Σ a_n x^(ν_n) on [0, 1], for sums in which each power is a mode.

    The Taylor series needs ever more terms as x → 1, where a momentum still holds one large early gradient. But its
    coefficients fall as n^(-3/2), a power law, which few geometrically spaced powers represent: within 2e-7 for
    x < 0.99, 3e-6 for x < 0.9999 and 3e-4 at 1.
    """
    powers = [1.0]
    while powers[-1] < _LARGEST_POWER:
        powers.append(1 + 2 * round(max((powers[-1] + 1) / 2, _POWER_RATIO * (powers[-1] - 1) / 2)))
    x = np.unique(np.concatenate([np.linspace(1e-3, 1, 1000), 1 - np.geomspace(1e-7, 1, 4000)[:-1]]))
    power = np.array(powers)
    fit, *_ = np.linalg.lstsq(x[:, None] ** (power[1:] - 1), np.arcsin(x) / x - 1, rcond=1e-13)
    return power, np.append(1.0, fit)


def sign_covariance(beta1: float, beta2: float) -> UpdateCovariance:
    """Autocovariance of Lion's signs under white noise as modes: powers of β2 from those of the arcsine.

    It is `derivations.lion_transient.sign_mode`.
    """
    beta2 = max(beta2, 1e-7)  # continuous at 0, where 0^0 would be needed
    power, factor = arcsine_modes()
    largest = closed_forms.lion_covariance(beta1, beta2, 1) / closed_forms.lion_variance(beta1, beta2)
    felt = np.count_nonzero(largest**power > 1e-13)
    power, factor = power[:felt], factor[:felt]
    return UpdateCovariance(1.0, closed_forms.lion_sign_mode(largest / beta2, factor, power), beta2**power, 0.0)


def _lags(root: float) -> np.ndarray:
    """Lags 1, 2, ... up to where a correlation that falls as root^lag is so small that asin is linear."""
    last = 1 if root == 0 else max(1, ceil(log(LARGEST_UNBENT) / log(root)))
    way_out = f"Use betas[1], and a correlation, of at most 1 - {-log(LARGEST_UNBENT) / MOST_LAGS:.0e}"
    require(last <= MOST_LAGS, "betas", f"leave signs uncorrelated after {MOST_LAGS} steps", last, way_out)
    return np.arange(1, last + 1)


def discounted_excess(kept: float, covariance: np.ndarray, variance: float) -> float:
    """Σ_{k≥1} kept^k (2/π)(asin x_k - x_k): what the arcsine adds to correlations x_k = covariance[k-1]/variance.

    `covariance` has the lags 1, 2, ..., none above `variance` > 0 (`derivations.lion_autocorrelated.lion_sum`).
    """
    x = covariance / variance
    return float(2 / np.pi * (kept ** np.arange(1, len(x) + 1) * (np.arcsin(x) - x)).sum())


def correlated_covariance(beta1: float, beta2: float, correlation: float) -> np.ndarray:
    """Autocovariance of Lion's update direction at lags 1, 2, ... under AR(1) gradients, to where asin is straight.

    It is `derivations.lion_autocorrelated.lion_covariance`; `derivations.lion.covariance` where `correlation` is 0.
    """
    if correlation == 0:
        return np.asarray(closed_forms.lion_covariance(beta1, beta2, _lags(beta2)))
    apart = 1e-6  # the two memories merge at correlation = β2, and 0^0 is met at 0: both are removable
    if abs(correlation - beta2) < apart or abs(correlation) < apart:
        correlation += 2 * apart if correlation < 0.5 else -2 * apart
    lags = _lags(max(beta2, abs(correlation)))
    return np.asarray(closed_forms.lion_correlated_covariance(beta1, beta2, lags, correlation))


def shifted_discounted_sum(kept: float, beta1: float, beta2: float, mean: float) -> tuple[float, float]:
    """Variance K_0 of a sign whose argument has a mean of `mean` >= 0 standard deviations, and Σ kept^k K_k / K_0.

    Beyond some 8 deviations the sign does not change within floating point: both are 0. K_k is the integral of
    `derivations.signal.sign_covariance_by_arc` up to the arcsine of the correlation.
    """
    ratio = mean * np.sqrt(closed_forms.lion_variance(beta1, beta2))
    lag_0 = 1 - closed_forms.lion_sign_mean(beta1, beta2, ratio) ** 2
    if lag_0 == 0:
        return 0.0, 0.0
    end = np.pi / 2 * closed_forms.lion_sign_correlation(beta1, beta2, _lags(beta2))
    nodes, weights = _GAUSS
    covariance = np.zeros(len(end))
    for node, weight in zip(nodes, weights, strict=True):
        covariance += weight * end / 2 * closed_forms.sign_covariance_by_arc(end * (1 + node) / 2, mean)
    return float(lag_0), discounted(kept, covariance, beta2) / float(lag_0)


def answering_signs(beta1: float, beta2: float, correlation: float) -> CorrelatedUpdate:
    """Lion's signs under gradients that know nothing of the weights, and their answer to a pull.

    They are `derivations.lion_autocorrelated.lion_covariance` and `lion_answer`.
    """
    beta2 = max(beta2, _LEAST_BETA2)
    variance = closed_forms.lion_correlated_variance(beta1, beta2, correlation)
    covariance = 2 / np.pi * np.arcsin(correlated_covariance(beta1, beta2, correlation) / variance)
    slope = float(np.sqrt(2 / np.pi / variance))
    overlap = slope * variance * closed_forms.lion_overlap_ratio(beta1, beta2, correlation)
    lasting = beta1 / beta2  # the momentum as if it had begun with the newest gradient, which the second share mends
    shares = np.array([lasting, 1 - lasting, 0.0])
    return CorrelatedUpdate(np.append(1.0, covariance), float(overlap), slope, shares, np.array([beta2, 0.0, 0.0]))


def met_again(beta1: float, beta2: float) -> float:
    """Q of `rotsim.theory.few_weights`, times the power of signs in the long run.

    As `derivations.finite_dim.met_again`: the variance of the sign's argument stands in the place of v.
    """
    beta2 = max(beta2, _LEAST_BETA2)
    lag = _lags(beta2)
    variance = closed_forms.lion_variance(beta1, beta2)
    weight = np.append(1 - beta1, beta1 * (1 - beta2) * beta2 ** (lag[:-1] - 1))
    alike = np.minimum(closed_forms.lion_covariance(beta1, beta2, lag) / variance, 1 - 1e-12)
    return float(2 / np.pi * (alike / np.sqrt(1 - alike**2) * np.cumsum(weight**2) / variance).sum())
