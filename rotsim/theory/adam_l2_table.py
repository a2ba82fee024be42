"""The chain of Adam+L2 for many settings: exact at fixed points, interpolated in between.

A solution takes some hundredths of a second, and the equilibrium of one setting takes several. h is the pull per step.
Over log h, log E x²/h and log (1 - ρ)/h are smooth. So they are in ε where the update that ε leaves is kept.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from rotsim.theory.adam_l2_chain import steady as solved
from rotsim.theory.pieces import eps_share, eps_variable, lagrange, points
from rotsim.theory.second_moment import mean_inverse_root
from rotsim.theory.steady import SteadyState

_WIDTH = 1.15  # of log h: half a decade
_PULLS, _EPS = points(6), points(4)
_BETWEEN = 5e-7  # relative error of the polynomials
_SMOOTH = 1e-4  # declared error of the chain up to which its cut is the same for neighbours
_LEAST_BETA2 = 0.02  # below it, ε has no share


def steady(h: np.ndarray, beta1: float, beta2: float, eps: np.ndarray) -> SteadyState:
    """`rotsim.theory.adam_l2_chain.steady` without decoupled decay, elementwise.

    Parameters
    ----------
    h : ndarray, shape (cells,)
        ηλ/σ > 0.
    beta1, beta2 : float
        In [0, 1); β2 > 0 unless β1 = 0.
    eps : ndarray, shape (cells,)
        ε/σ >= 0.

    Returns
    -------
    SteadyState
        Of arrays. Where the chain's own error is large, each cell is a solution.

    Notes
    -----
    `derivations.adam_l2_chain.dimensionless_chain`.
    """
    square, half, error = (np.full(h.shape, np.nan) for _ in range(3))
    sound = np.isfinite(h) & (h > 0) & np.isfinite(eps)
    share = eps * mean_inverse_root(beta1, beta2) if beta2 >= _LEAST_BETA2 else np.zeros(h.shape)
    pull = np.where(sound, np.log(h / (1 + share)), 0.0) / _WIDTH
    beside = np.where(eps > 0, eps_variable(share), -1.0)
    tiles = np.floor(np.stack([pull, beside])).astype(int)
    alone = ~sound if beta2 >= _LEAST_BETA2 else np.ones(h.shape, dtype=bool)
    for first, second in np.unique(tiles[:, ~alone], axis=1).T.tolist():
        cells = (tiles[0] == first) & (tiles[1] == second) & ~alone
        values, declared = _tile(beta1, beta2, first, second)
        if declared > _SMOOTH:
            alone |= cells
            continue
        counts = lagrange(pull[cells] - first, _PULLS)
        by_eps = lagrange(beside[cells] - second, _EPS) if second >= 0 else np.ones((1, int(cells.sum())))
        logs = np.zeros((2, int(cells.sum())))
        for i, row in enumerate(by_eps):
            for j, column in enumerate(counts):
                logs += values[:, i, j, None] * (row * column)
        square[cells], half[cells] = np.exp(logs + pull[cells] * _WIDTH)
        error[cells] = declared + _BETWEEN
    for place in np.flatnonzero(alone & sound):
        found = solved(float(h[place]), beta1, beta2, eps=float(eps[place]))
        square[place], half[place], error[place] = found.norm_squared, found.one_minus_cosine, found.model_error
    return SteadyState(square, half, model_error=error)  # type: ignore[arg-type]


@lru_cache(maxsize=4096)
def _tile(beta1: float, beta2: float, first: int, second: int) -> tuple[np.ndarray, float]:
    """Logarithms of E x²/h' and (1 - ρ)/h' at the points, h' = h/(1 + share), and the largest declared error."""
    shares = [eps_share(second + point) for point in _EPS] if second >= 0 else [0.0]
    pulls = np.exp((first + _PULLS) * _WIDTH)
    values, declared = np.empty((2, len(shares), len(pulls))), 0.0
    for i, share in enumerate(shares):
        eps = share / mean_inverse_root(beta1, beta2)
        for j, pull in enumerate(pulls.tolist()):
            found = solved(pull * (1 + share), beta1, beta2, eps=eps)
            declared = max(declared, found.model_error)
            if declared > _SMOOTH:
                return values, declared
            values[:, i, j] = np.log([found.norm_squared / pull, found.one_minus_cosine / pull])
    return values, declared
