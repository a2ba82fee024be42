"""Functions that take long, known at fixed points and interpolated piece by piece; the points are the same for all.

A piece begins and ends at whole numbers of its variable. In each there is the polynomial through some points, which
crowd at the ends (Chebyshev's extremes), so that neighbours share their ends.
"""

from __future__ import annotations

import numpy as np

_BEND, _WIDTH = 0.02, 0.5  # of a share, and of the logarithm that is a piece long


def points(count: int) -> np.ndarray:
    """Points of a piece, two or more, from 0 to 1 in parts of its length."""
    return (1 - np.cos(np.pi * np.arange(count) / (count - 1))) / 2


def lagrange(at: np.ndarray, known: np.ndarray) -> np.ndarray:
    """What the value at each of `known` counts in the polynomial through them all, `at` some places in [0, 1]."""
    counts = np.ones((len(known), len(at)))
    for row, point in zip(counts, known, strict=True):
        for other in known[known != point]:
            row *= (at - other) / (point - other)
    return counts


def eps_variable(share: np.ndarray) -> np.ndarray:
    """Variable in which what ε does is smooth, of the share >= 0 that it takes of an update to first order."""
    return np.log1p(share / _BEND) / _WIDTH


def eps_share(variable: float) -> float:
    """The share that `eps_variable` gives a value, >= 0."""
    return float(_BEND * np.expm1(variable * _WIDTH))
