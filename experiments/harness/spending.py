"""How sure each look at growing data must be, so that all looks together err no more than one would.

Spent is what O'Brien and Fleming's boundary spends, in the form of Lan and DeMets (1983): almost nothing early. What a
look spends may depend on how the data scatter, and so may its time. It must not depend on their mean.
"""

from functools import cache

import numpy as np
from scipy import optimize
from scipy.stats import norm

_NODES = np.polynomial.legendre.leggauss(200)


def spent(share: float, level: float) -> float:
    """Two-sided error that may have been made when `share` of the data, in (0, 1], has been seen."""
    return float(2 * norm.sf(norm.isf(level / 2) / np.sqrt(share)))


@cache
def levels(sizes: tuple[int, ...], spent_in_all: tuple[float, ...]) -> tuple[float, ...]:
    """Two-sided level of the test at every look.

    Parameters
    ----------
    sizes : tuple of int
        Of the data at every look, increasing.
    spent_in_all : tuple of float
        Error that may have been made when that look is over, in (0, 1).

    Returns
    -------
    tuple of float
        0 where a look has nothing left to spend.

    Notes
    -----
    A sum of normal increments is followed from look to look. Its density inside the boundary is integrated by
    Gauss-Legendre quadrature. The boundary of each look is where what may be spent there leaves.
    """
    found: list[float] = []
    inside, density, before, spent_before = np.zeros(1), np.ones(1), 0, 0.0  # nothing seen: the sum is 0
    for size, now in zip(sizes, spent_in_all, strict=True):
        step, far = np.sqrt(size - before), 10 * np.sqrt(size)
        allowed = now - spent_before
        bound = optimize.brentq(_too_many_leave, 0.0, far, (inside, density, step, allowed)) if allowed > 0 else far
        found.append(float(2 * norm.sf(bound / np.sqrt(size))) if allowed > 0 else 0.0)
        nodes = bound * _NODES[0]
        density = bound * _NODES[1] * (norm.pdf((nodes[:, None] - inside) / step) / step @ density)
        inside, before, spent_before = nodes, size, max(now, spent_before)
    return tuple(found)


def _too_many_leave(bound: float, x: np.ndarray, density: np.ndarray, step: float, allowed: float) -> float:
    """Share that is beyond ±`bound` after a normal step from `x`, less what is allowed."""
    return float(density @ (norm.sf((bound - x) / step) + norm.cdf((-bound - x) / step))) - allowed
