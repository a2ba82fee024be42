r"""Adam's rare large updates: what they do to a walk of finite dim, where one coordinate may outweigh all others.

u = m/(√v + ε) is large where v happens to be small, at small β2 beside momentum. E u² then lives on rare events, and
so does the exact E‖w‖²: a run of ordinary length mostly sees a smaller norm, W*. The angle of such a step does not
grow with it: tan²θ = κu² with κ = η²/(a²‖w‖²), a = 1 - ηλ.

1. A step that is orthogonal to w multiplies ‖w‖² by a²(1 + tan²θ), and log ‖w‖² stays the same on average. So growth
   is E log(1 + κu²) in every coordinate, where the exact norm has κ E u², beside the covariances of later lags:

   .. math:: C\, L(κ) + 2 C κ \sum_{k\ge1} a^k K_k = \frac{1 - a^2}{a^2}, \qquad L(κ) = E\log(1 + κ u^2).

   That fixes κ, and with it W*.
2. Under a weight e^(-sv) m is Gaussian with the variance S(s) of `second_moment`, and P(s) is what is left of it:

   .. math:: L(κ) = \int_0^\infty e^{-ε^2 s}\, P(s)\, \left(1 - \frac{1}{\sqrt{1 + 2 s κ S(s)}}\right) \frac{ds}{s},

   with v + ε² in the place of (√v + ε)², and κ in such units that E κu² is exact all the same.
3. The squared angle is another mean of the same kind, since

   .. math:: \arctan^2\sqrt x = \int_0^1 \frac{\log(1 + x) - \log(1 + x t^2)}{1 - t^2}\, dt.

For small κu² all is as if nothing were done. Gaussian updates have an L and a mean angle as well. The exact norm and
`derivations.finite_dim.wide_angle` have these already, so results are over those of Gaussian updates. Neglected is that
‖w‖² fluctuates, and that several coordinates may be large at once. Derivation: `derivations.rare_updates`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import exp, inf, log
from typing import Any

import numpy as np

from rotsim import closed_forms
from rotsim.theory.fixed_point import bracketed_root
from rotsim.theory.second_moment import log_product_and_sum
from rotsim.theory.walk import UpdateCovariance

_STEP = 0.1  # of log s
LEAST_CORRECTION = 1e-4  # relative correction of a squared angle that is left out
LEAST_INTEGRAND = 1e-18  # P·S at which the grid ends
_SHORT = 0.1  # β2 up to which fourth moments are not asked for by themselves
_GAUSS = np.polynomial.legendre.leggauss(16)  # of the integral over t
_HERMITE = np.polynomial.hermite_e.hermegauss(80)  # of a Gaussian update


@lru_cache(maxsize=64)
def _grid(
    beta1: float, beta2: float, eps: float, share: float = 1.0, newest: float = 0.0, *more: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """s, P(s) e^(-ε²s) and S(s) on an even grid of log s."""

    def at(s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_p, total = log_product_and_sum(s, beta1, beta2)
        total = share * total + newest / (1 + 2 * s * (1 - beta2))
        for root, size in zip(more[::2], more[1::2], strict=True):
            total += size * log_product_and_sum(s, root, beta2)[1]
        return log_p, total

    end = 0.0
    while True:
        s = np.array([exp(end)])
        log_p, total = at(s)
        if float(log_p[0] - eps**2 * s[0] + 2 * end + 2 * np.log(total[0])) < log(LEAST_INTEGRAND):
            break
        end += 1.0
    s = np.exp(np.arange(-45.0, end, _STEP))
    log_p, total = at(s)
    return s, np.exp(log_p - eps**2 * s), total


def log_growth(size: float | np.ndarray, *law: float) -> Any:
    """L(κ) = E log(1 + κu²) of the module docstring, for κ = `size` >= 0 of any shape; `law` as in `_grid`.

    It is `derivations.rare_updates.over_the_momentum`.
    """
    s, weight, square = _grid(*law)
    seen = np.log1p(np.multiply.outer(2 * size, s * square))
    return -_STEP * (weight * np.expm1(-seen / 2)).sum(axis=-1)


def squared_angle(size: float, *law: float) -> float:
    """E arctan²(√κ u), the mean squared angle of steps along one coordinate; arguments as in `log_growth`.

    It is `derivations.rare_updates.angle_as_integral`.
    """
    node, by = _GAUSS
    part = ((node + 1) / 2) ** 2
    whole = log_growth(size, *law)
    return float((by * (whole - log_growth(size * part, *law)) / (1 - part)).sum() / 2)


def rare_updates(
    lr: Any, weight_decay: Any, betas: tuple[Any, Any], eps: Any, dim: Any, covariance: UpdateCovariance,
    most: Any = None, squares: tuple[Any, ...] = (1.0, 0.0),
) -> tuple[Any, Any]:  # fmt: skip
    """Squared norm that a run mostly sees, and mean squared angle, over those of the exact second moments; elementwise.

    Parameters
    ----------
    lr, weight_decay : float or ndarray, any shape
        Both > 0, of decoupled decay; their product < 1.
    betas : (float, float) or (ndarray, ndarray), any shape
        Each in [0, 1).
    eps : float or ndarray, any shape
        ε >= 0 in units of the gradient's deviation; > 0 where β2 = 0 < β1.
    dim : int
        Fan-in C >= 2.
    covariance : UpdateCovariance
        Of the updates, from `rotsim.theory.covariance.adam_covariance`.
    most : float or ndarray, any shape, optional
        `heaviest` of the betas, >= 3, where these are arrays.
    squares : tuple of float or ndarray, any shape
        In the place of S stands so much of it, and so much of what the newest gradient alone would have; each >= 0.
        Then pairs of the root of another average, and how much of its S is added.

    Returns
    -------
    norm_squared, squared_angle : float
        Each in (0, 1]; 1 where updates are nearly Gaussian.

    Notes
    -----
    `derivations.rare_updates`.
    """
    kept = 1 - lr * weight_decay
    total = covariance.discounted_sum(kept)
    exact = lr**2 / (kept**2 * closed_forms.lion_exact_norm_squared(lr, weight_decay, dim * covariance.lag_0, total))
    law = (*betas, eps, *squares)
    given = np.broadcast_arrays(*law, exact, dim, covariance.lag_0, total)
    seen, turned = np.ones(given[0].shape), np.ones(given[0].shape)
    if np.max(betas) == 0 and not squares[2:]:  # u is at most 1
        return seen[()], turned[()]
    most = heaviest(*betas) if most is None else most
    for place in map(tuple, np.argwhere(exact * covariance.lag_0 * most >= LEAST_CORRECTION)):
        one = [float(values[place]) for values in given]
        seen[place], turned[place] = _of_one(tuple(one[: len(law)]), *one[len(law) :])
    return seen[()], turned[()]


@lru_cache(maxsize=256)
def heaviest(beta1: float, beta2: float) -> float:
    """Bound of E u⁴/E[u²]², which ε takes towards the 3 of a momentum; none where one gradient may make all of v."""
    return max(3.0, fourth(beta1, beta2, 0.0)) if beta2 > _SHORT else inf


@lru_cache(maxsize=256)
def fourth(*law: float) -> float:
    """E u⁴/E[u²]², however rare the updates that make it; arguments as in `log_growth` without its first.

    It is `derivations.rare_updates.over_the_momentum`, expanded to the second order.
    """
    s, weight, square = _grid(*law)
    second = _STEP * float((s * weight * square).sum())
    return 3 * _STEP * float((s**2 * weight * square**2).sum()) / second**2


def _of_one(law: tuple[float, ...], exact: float, dim: float, lag_0: float, total: float) -> tuple[float, float]:
    """`rare_updates` for one κ, `exact`, of the exact norm, and one discounted sum `total` of the covariance."""
    if exact * lag_0 * fourth(*law) < LEAST_CORRECTION:
        return 1.0, 1.0
    s, weight, square = _grid(*law)
    # The grid has v + ε² where updates have (√v + ε)²; in units of this share their mean square is exact.
    share = lag_0 / (_STEP * float((s * weight * square).sum()))
    seen, turned = _solved(
        lambda size: log_growth(size * share, *law), lambda size: squared_angle(size * share, *law),
        exact, dim, lag_0, total,
    )  # fmt: skip
    node, by = _HERMITE  # what Gaussian updates of the same size have is known already, and no rare event
    square, by = lag_0 * node**2, by / by.sum()
    plain_seen, plain_turned = _solved(
        lambda size: float(by @ np.log1p(size * square)),
        lambda size: float(by @ np.arctan(np.sqrt(size * square)) ** 2),
        exact, dim, lag_0, total,
    )  # fmt: skip
    return min(1.0, seen / plain_seen), min(1.0, turned / plain_turned)


def _solved(
    growth: Callable[[float], float], angle: Callable[[float], float],
    exact: float, dim: float, lag_0: float, total: float,
) -> tuple[float, float]:  # fmt: skip
    """Squared norm and squared angle over those of the exact second moments, by L and E arctan² of κu²."""
    balance = exact * dim * lag_0 * (1 + 2 * total)

    def excess(log_size: float) -> float:
        size = exp(log_size)
        return log(dim * (growth(size) + 2 * size * lag_0 * total) / balance)

    low = log(exact)
    high = low + 1.0
    while excess(high) < 0:
        high += 2.0
    size = exp(bracketed_root(excess, low, high, xtol=1e-10))
    return exact / size, angle(size) / (exact * lag_0)
