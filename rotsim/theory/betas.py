"""What Adam's second moment does to updates, for many betas at once: known at fixed points, interpolated in between.

`rotsim.theory.second_moment` takes a hundredth of a second for one pair of betas and one ε. Over log (1+β)/(1-β) of
either all that it gives is smooth, from β2 = `LEAST_BETA2` on. A beta of few values is not interpolated. Functions have
the names of those in `second_moment`, and are those for betas that are numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from rotsim.theory import covariance, rare_updates, second_moment
from rotsim.theory.pieces import eps_share, eps_variable, lagrange, points
from rotsim.theory.second_moment import LEAST_BETA2_BY_CHEBYSHEV as LEAST_BETA2
from rotsim.theory.second_moment import MOST_MODES
from rotsim.theory.walk import UpdateCovariance

INTERPOLATION_ERROR = 1e-5  # relative error of the polynomials, declared
_WIDTH = 0.8  # of log (1+β)/(1-β) that is a piece long
_POINTS, _EPS_POINTS = points(6), points(5)  # of a piece of either beta, and of ε's share
_MOST_VALUES = 12  # of a beta that are all known


class _Known(NamedTuple):
    """Points at which a variable is known, by number, and what each counts for each cell, of shape (cells, points)."""

    numbers: np.ndarray
    counts: np.ndarray
    value: Callable[[int], float]  # the variable at a numbered point


def pays(beta1: np.ndarray, beta2: np.ndarray) -> bool:
    """Whether fewer betas (cells,) would be asked of `rotsim.theory.second_moment` than there are."""
    first, second = _by_betas(beta1, beta2)
    numbers = first.numbers[:, :, None] * (second.numbers.max(initial=0) + 1) + second.numbers[:, None, :]
    return len(np.unique(numbers)) < len(np.unique(np.stack([beta1, beta2]), axis=1).T)


def adam_covariance(beta1: Any, beta2: Any, eps: Any = 0.0) -> UpdateCovariance:
    """`covariance.adam_covariance`, elementwise in betas too.

    Parameters
    ----------
    beta1, beta2 : float or ndarray, shape (cells,)
        In [0, 1); an array of β2 at least `LEAST_BETA2`.
    eps : float or ndarray, shape (cells,)
        ε >= 0 in units of the gradient's deviation.

    Returns
    -------
    UpdateCovariance
        Of roots for each cell where betas are arrays.

    Notes
    -----
    `derivations.second_moment.modes`.
    """
    if not np.ndim(beta1):
        return covariance.adam_covariance(beta1, beta2, eps)
    eps, left_out = felt_eps(beta1, beta2, np.broadcast_to(eps, beta1.shape))
    share = eps * mean_inverse_root(beta1, beta2)
    values = np.zeros((len(beta1), MOST_MODES))
    for cells in (np.flatnonzero(eps > 0), np.flatnonzero(eps == 0)):
        if len(cells):
            felt = bool(eps[cells[0]] > 0)
            by_eps = _by_pieces(eps_variable(share[cells]), _EPS_POINTS, eps_share) if felt else _by_values(eps[cells])
            assert by_eps is not None
            values[cells] = _interpolated(_covariance, *_by_betas(beta1[cells], beta2[cells]), by_eps)
    weights = values.T / (1 + share) ** 2
    roots = beta1 * beta2 ** np.arange(MOST_MODES)[:, None]
    return UpdateCovariance(weights.sum(axis=0), weights, roots, INTERPOLATION_ERROR + 2 * left_out)


def felt_eps(beta1: Any, beta2: Any, eps: Any) -> tuple[Any, Any]:
    """`covariance.felt_eps`, elementwise in betas too (`derivations.second_moment.root_and_eps_as_integral`)."""
    if not np.ndim(beta1):
        return covariance.felt_eps(beta1, beta2, eps)
    taken = eps * mean_inverse_root(beta1, beta2)
    negligible = taken < covariance.NEGLIGIBLE_EPS
    return np.where(negligible, 0.0, eps), np.where(negligible, taken, 0.0)


def mean_inverse_root(beta1: Any, beta2: Any) -> Any:
    """`second_moment.mean_inverse_root`, elementwise in betas too (`derivations.second_moment.lag_zero`)."""
    return _numbers(beta1, beta2)[0] if np.ndim(beta1) else second_moment.mean_inverse_root(beta1, beta2)


def mean_response(beta1: Any, beta2: Any) -> tuple[Any, Any]:
    """`second_moment.mean_response`, elementwise in betas too (`derivations.second_moment.response`)."""
    return _numbers(beta1, beta2)[1:3] if np.ndim(beta1) else second_moment.mean_response(beta1, beta2)


def heaviest(beta1: Any, beta2: Any) -> Any:
    """`rare_updates.heaviest`, elementwise in betas too (`derivations.rare_updates.over_the_momentum`)."""
    return _numbers(beta1, beta2)[3] if np.ndim(beta1) else rare_updates.heaviest(beta1, beta2)


def uneven_pace(beta1: Any, beta2: Any) -> Any:
    """`second_moment.uneven_pace`, elementwise in betas too (`derivations.second_moment.root_as_integral`)."""
    return _numbers(beta1, beta2)[4] if np.ndim(beta1) else second_moment.uneven_pace(beta2)


def _numbers(beta1: np.ndarray, beta2: np.ndarray) -> Any:
    """What depends on betas alone, in rows; white theory asks for it of the same cells again and again."""
    global _last
    if _last is None or _last[0] is not beta1 or _last[1] is not beta2:
        _last = beta1, beta2, _interpolated(_scalars, *_by_betas(beta1, beta2)).T
    return _last[2]


_last: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None


@lru_cache(maxsize=8192)
def _scalars(beta1: float, beta2: float) -> np.ndarray:
    inverse_root = second_moment.mean_inverse_root(beta1, beta2)
    heaviest, uneven = rare_updates.heaviest(beta1, beta2), second_moment.uneven_pace(beta2)
    return np.array([inverse_root, *second_moment.mean_response(beta1, beta2), heaviest, uneven])


@lru_cache(maxsize=8192)
def _covariance(beta1: float, beta2: float, share: float) -> np.ndarray:
    """Weights of all modes, times (1 + share)²."""
    found = second_moment.modes(beta1, beta2, share / second_moment.mean_inverse_root(beta1, beta2))
    return np.append(found, np.zeros(MOST_MODES - len(found))) * (1 + share) ** 2


def _interpolated(at: Callable[..., np.ndarray], *variables: _Known) -> np.ndarray:
    """at(...) of each cell, a polynomial in each variable: the sum over all points of what they count."""
    size = max(len(one.numbers) for one in variables)
    numbers, counts = np.zeros((size, 1), dtype=np.int64), np.ones((size, 1))
    for one in variables:  # all combinations of points, as one number each
        numbers = (numbers[:, :, None] * (one.numbers.max() + 1) + one.numbers[:, None, :]).reshape(size, -1)
        counts = (counts[:, :, None] * one.counts[:, None, :]).reshape(size, -1)
    met, rows = np.unique(numbers, return_inverse=True)
    values = []
    for number in met.tolist():
        place = []
        for one in reversed(variables):
            number, own = divmod(number, int(one.numbers.max()) + 1)
            place.append(one.value(own))
        values.append(at(*reversed(place)))
    table, rows = np.array(values), rows.reshape(numbers.shape)
    return np.asarray(sum(counts[:, k, None] * table[rows[:, k]] for k in range(counts.shape[1])))


def _by_betas(beta1: np.ndarray, beta2: np.ndarray) -> tuple[_Known, _Known]:
    return _by_values(beta1) or _from(0.0, beta1), _by_values(beta2) or _from(LEAST_BETA2, beta2)


def _from(least: float, beta: np.ndarray) -> _Known:
    """A beta by pieces of log (1+β)/(1-β), in which the power (1-β)/(1+β) of an average has no pole."""
    start = 2 * np.arctanh(least)
    place = (2 * np.arctanh(beta) - start) / _WIDTH
    return _by_pieces(np.maximum(place, 0.0), _POINTS, lambda x: float(np.tanh((start + x * _WIDTH) / 2)))


def _by_values(given: np.ndarray) -> _Known | None:
    """A variable that takes few values, each of which is known; None if there are more."""
    values, numbers = np.unique(given, return_inverse=True)
    if len(values) > _MOST_VALUES:
        return None
    return _Known(numbers.reshape(-1, 1), np.ones((len(given), 1)), lambda number: float(values[number]))


def _by_pieces(place: np.ndarray, known: np.ndarray, variable: Callable[[float], float]) -> _Known:
    """A variable that is known at some points of each piece, a whole number long; neighbours share their ends."""
    piece = place.astype(int)
    per_piece = len(known) - 1

    def value(number: int) -> float:
        whole, point = divmod(number, per_piece)
        return variable(whole + float(known[point]))

    return _Known(piece[:, None] * per_piece + np.arange(len(known)), lagrange(place - piece, known).T, value)
