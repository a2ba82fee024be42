"""How sure each look at growing data must be, so that all looks together err no more than one would.

Spent is what O'Brien and Fleming's boundary spends, in the form of Lan and DeMets (1983): almost nothing early.
"""

from functools import cache

import numpy as np
from scipy import optimize
from scipy.stats import norm

_NODES = np.polynomial.legendre.leggauss(400)


def spent(share: float, level: float) -> float:
    """Two-sided error that may have been made when `share` of the data, in (0, 1], has been seen."""
    return float(2 * norm.sf(norm.isf(level / 2) / np.sqrt(share)))


@cache
def levels(shares: tuple[float, ...], level: float) -> tuple[float, ...]:
    """Two-sided level of the test at every look.

    Parameters
    ----------
    shares : tuple of float
        Of the planned data, increasing, the last one 1.
    level : float
        Of all looks together, in (0, 1).

    Notes
    -----
    A sum of normal increments is followed from look to look. Its density inside the boundary is integrated by
    Gauss-Legendre quadrature. The boundary of each look is where what may be spent there leaves.
    """
    found: list[float] = []
    inside, density, before = np.zeros(1), np.ones(1), 0.0  # nothing seen: the sum is 0
    for share in shares:
        step = np.sqrt(share - before)
        allowed = spent(share, level) - (spent(before, level) if before else 0.0)

        bound = optimize.brentq(_too_many_leave, 0.0, 10 * np.sqrt(share), (inside, density, step, allowed))
        found.append(float(2 * norm.sf(bound / np.sqrt(share))))
        nodes = bound * _NODES[0]
        density = bound * _NODES[1] * (norm.pdf((nodes[:, None] - inside) / step) / step @ density)
        inside, before = nodes, share
    return tuple(found)


def _too_many_leave(bound: float, x: np.ndarray, density: np.ndarray, step: float, allowed: float) -> float:
    """Share that is beyond ±`bound` after a normal step from `x`, less what is allowed."""
    return float(density @ (norm.sf((bound - x) / step) + norm.cdf((-bound - x) / step))) - allowed
