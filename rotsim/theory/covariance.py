"""Autocovariance of Adam's update m/(√v + ε), beside any ε: from a few quadratures that all who ask share.

The quadratures are those of `rotsim.theory.second_moment`. Between them there are polynomials (`rotsim.theory.pieces`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from rotsim.errors import NoEquilibrium
from rotsim.theory.pieces import eps_share, eps_variable, lagrange, points
from rotsim.theory.second_moment import by_quadrature, mean_inverse_root
from rotsim.theory.walk import UpdateCovariance

NEGLIGIBLE_EPS = 1e-6  # share of the update that ε takes, to first order
INTERPOLATION_ERROR = 5e-7  # relative error of the polynomials
_POINTS = points(5)
_LEAST_SMOOTH = 0.02  # smallest β2 for which they are that good
_LEAST_EPS = 1e-100  # smaller is as good as 0


def adam_covariance(beta1: float, beta2: float, eps: float | np.ndarray = 0.0) -> UpdateCovariance:
    """Autocovariance of u = m/(√v + ε) at all lags, for independent Gaussian gradients of constant variance.

    Parameters
    ----------
    beta1, beta2 : float
        Each in [0, 1). The result depends on nothing else but `eps`.
    eps : float or ndarray, any shape
        ε >= 0 in units of the gradient's deviation, elementwise. One that takes less than 1e-6 of the update is left
        out and declared. Others are interpolated between fixed ones, whose quadratures are cached.

    Returns
    -------
    UpdateCovariance
        ``error`` is the largest relative disagreement at 21 lags with a quadrature of three quarters of the step.
        So it is an upper estimate for every discounted sum. It is below 2e-6 for β2 >= 0.5
        and 1e-5 for β2 >= 0.1. The share that an ε left out takes is added, twice since u is squared.

    Raises
    ------
    NoEquilibrium
        For β2 = 0 < β1 and ε = 0: u = m/|g| has infinite variance.

    Notes
    -----
    `derivations.second_moment.modes`.
    """
    eps, left_out = felt_eps(beta1, beta2, eps)
    if not np.any(eps):
        plain = by_quadrature(beta1, beta2, 0.0)
        return replace(plain, error=plain.error + 2 * left_out)
    found = _beside_eps(beta1, beta2, np.asarray(eps, dtype=float))
    return replace(found, error=found.error + 2 * left_out)


def felt_eps(beta1: float, beta2: float, eps: Any) -> tuple[Any, Any]:
    """ε as the equilibrium takes it into account, and the share of the update that one left out takes; elementwise.

    Parameters
    ----------
    beta1, beta2 : float
        In [0, 1).
    eps : float or ndarray, any shape
        ε >= 0 in units of the gradient's deviation.

    Returns
    -------
    eps : float or ndarray, any shape
        As given, or 0 where it takes less than 1e-6 of the update.
    left_out : float or ndarray, any shape
        The share, >= 0; 0 if `eps` is as given.

    Raises
    ------
    NoEquilibrium
        For β2 = 0 < β1 and ε = 0: u = m/|g| has infinite variance.

    Notes
    -----
    `derivations.second_moment.root_and_eps_as_integral`: ε takes so much to first order.
    """
    if beta2 == 0 and np.any(eps < _LEAST_EPS):
        if beta1 > 0:
            raise NoEquilibrium(
                f"`betas[1]` must be > 0 when betas[0] is and eps is 0; with betas = ({beta1:g}, 0) the update m/|g| "
                "has infinite variance. Use method='leading' to ignore it"
            )
        return np.where(eps < _LEAST_EPS, 0.0, eps), 0.0
    taken = eps * mean_inverse_root(beta1, beta2) if beta2 > 0 else np.inf
    negligible = taken < NEGLIGIBLE_EPS
    return np.where(negligible, 0.0, eps)[()], np.where(negligible, taken, 0.0)[()]


def _beside_eps(beta1: float, beta2: float, eps: np.ndarray) -> UpdateCovariance:
    """Where quadratures at some ε, the same for all that ask, give those in between.

    K (1 + share)², `share` being what ε takes to first order, is smooth and has a limit as ε grows.
    """
    flat = eps.ravel()
    parts = list(_parts(beta1, beta2, flat))
    roots = max((one.roots for _, known in parts for one, _ in known), key=len)
    lag_0, error = np.zeros(flat.shape), np.zeros(flat.shape)
    weights = np.zeros((len(roots), len(flat)))
    for cells, known in parts:
        lag_0[cells] = sum(factor * one.lag_0 for one, factor in known)
        error[cells] = max(one.error for one, _ in known) + INTERPOLATION_ERROR * (len(known) > 1)
        for mode, weight in enumerate(weights):
            weight[cells] = sum(factor * one.weights[mode] for one, factor in known if mode < len(one.weights))
    shape = eps.shape
    weights = weights.reshape(-1, *shape)
    return UpdateCovariance(lag_0.reshape(shape)[()], weights, roots, error.reshape(shape)[()])


def _parts(
    beta1: float, beta2: float, eps: np.ndarray
) -> Iterator[tuple[np.ndarray, list[tuple[UpdateCovariance, Any]]]]:
    """Cells of one piece, and the quadratures that they are made of, each with its factor."""
    if beta2 < _LEAST_SMOOTH:
        for one in np.unique(eps):
            yield np.flatnonzero(eps == one), [(by_quadrature(beta1, beta2, float(one)), 1.0)]
        return
    yield np.flatnonzero(eps == 0), [(by_quadrature(beta1, beta2, 0.0), 1.0)]
    to_first_order = mean_inverse_root(beta1, beta2)
    share = eps * to_first_order
    place = eps_variable(share)
    piece = np.where(eps > 0, place, -1).astype(int)
    for number in range(piece.max() + 1):
        cells = np.flatnonzero(piece == number)
        if not len(cells):
            continue
        known = []
        for point, factor in zip(_POINTS, lagrange(place[cells] - number, _POINTS), strict=True):
            at_point = eps_share(number + point)
            left = ((1 + at_point) / (1 + share[cells])) ** 2
            known.append((by_quadrature(beta1, beta2, at_point / to_first_order), factor * left))
        yield cells, known
