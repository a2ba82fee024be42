r"""Correlations of updates whose singular values are shaped: their parts, by one sine transform, and sums over lags.

A large p × q matrix of Gaussians has its squared singular values x on a semicircle (`derivations.muon.semicircle`). An
update φ(d) is a sum of parts of odd degree. The part of degree 2k+1 has the size b_k², and meets its own later self
with r^(2k+1), r being the correlation of d. Here φ is any function: Newton and Schulz's iteration as it is, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy

from rotsim import closed_forms

ANGLES = 8192  # on the semicircle, and so the most parts that are told apart
SMALLEST_PART = 1e-13  # of all; smaller ones are left out
_ANGLES_OF_PAIRS = 512
_LARGEST_POWER, _POWER_RATIO = 1e5, 1.3
_MOST_EXACT_MODES = 24


@dataclass(frozen=True, eq=False)
class Spectral:
    """A shape of singular values for one form of matrices.

    Attributes
    ----------
    power : float
        E‖u‖² over the shorter side of the matrix: the mean square of φ.
    parts : ndarray, shape (parts,)
        Shares b_k² of it by degree 2k + 1, which add up to 1.
    """

    power: float
    parts: np.ndarray

    @property
    def degrees(self) -> np.ndarray:
        """Of the parts: 1, 3, 5, ..."""
        return 2 * np.arange(len(self.parts)) + 1

    def __call__(self, correlation: np.ndarray | float) -> np.ndarray:
        """Correlation of updates where directions are correlated like this, elementwise."""
        given = np.asarray(correlation, dtype=float)
        found: np.ndarray = (self.parts * given[..., None] ** self.degrees).sum(axis=-1)
        return found

    def discounted_sum(self, kept: float, largest: float, root: float) -> float:
        """Σ_{k>=1} kept^k s_k of correlations r_k = largest·root^(k-1): each part is a geometric series of its own.

        It is `derivations.shapes.sum_over_lags`.
        """
        degrees = self.degrees
        return float((self.parts * largest**degrees * kept / (1 - kept * root**degrees)).sum())

    def modes(self) -> tuple[np.ndarray, np.ndarray]:
        """Few odd powers and their factors with the same s(r) on [0, 1] but for some 1e-6, for a course in time.

        Parts of high degree matter near r = 1 alone, where powers that lie far apart can stand for all between.
        """
        if len(self.parts) <= _MOST_EXACT_MODES:
            return self.degrees.astype(float), self.parts
        powers = [1.0]
        while powers[-1] < min(_LARGEST_POWER, 4.0 * len(self.parts)):
            powers.append(1 + 2 * round(max((powers[-1] + 1) / 2, _POWER_RATIO * (powers[-1] - 1) / 2)))
        power = np.array(powers)
        x = np.unique(np.concatenate([np.linspace(0.02, 1, 400), 1 - np.geomspace(1e-7, 1, 1600)[:-1]]))
        fit, *_ = np.linalg.lstsq(x[:, None] ** (power - 1), self(x) / x, rcond=1e-12)
        return power, fit


def of_polynomials(polynomials: tuple[tuple[float, float, float], ...], shorter: int, longer: int) -> Spectral:
    """The shape of Newton and Schulz's iteration on d/‖d‖, whose singular values are √(x/p).

    Parameters
    ----------
    polynomials : tuple of (float, float, float)
        Of the iteration, each finite.
    shorter, longer : int
        Sides of the matrix, 1 <= p <= q.

    Returns
    -------
    Spectral

    Notes
    -----
    `derivations.muon.coefficients`; for p, q → ∞, so that what is left out is of relative order 1/p.
    """
    return _of_polynomials(polynomials, shorter, shorter / longer)


@lru_cache(maxsize=256)
def _of_polynomials(polynomials: tuple[tuple[float, float, float], ...], shorter: int, aspect: float) -> Spectral:
    angle = (np.arange(ANGLES) + 0.5) * (np.pi / ANGLES)
    root = np.sqrt(closed_forms.spectral_eigenvalue(angle, aspect))
    return spectral(after(polynomials, root / np.sqrt(shorter)) / root, angle)


@lru_cache(maxsize=256)
def row_response(polynomials: tuple[tuple[float, float, float], ...], rows: int, columns: int) -> float:
    """Relative change of E‖u‖² of a row over that of the size of its gradient, all other rows as they are.

    Parameters
    ----------
    polynomials : tuple of (float, float, float)
        Of the iteration, each finite.
    rows, columns : int

    Returns
    -------
    float
        2 for an update as long as its gradient, 0 where no row is longer than another. Rows drift apart below -2.

    Notes
    -----
    `derivations.muon.response_of_a_row`.
    """
    shorter, longer = sorted((rows, columns))
    aspect = shorter / longer
    halves = np.arange(1, 2 * _ANGLES_OF_PAIRS) * (np.pi / (2 * _ANGLES_OF_PAIRS))
    x = closed_forms.spectral_eigenvalue(halves, aspect)
    square = after(polynomials, np.sqrt(x / shorter)) ** 2
    mass = np.sin(halves) ** 2 / x
    one, other = slice(None, None, 2), slice(1, None, 2)  # two grids, whose points never meet
    apart = x[one, None] - x[other]
    pairs = (x[one, None] + x[other]) * (square[one, None] - square[other]) / apart
    found = float(mass[one] @ pairs @ mass[other] / mass[other].sum() / (mass[one] @ square[one]))
    return found if rows <= columns else aspect * found + 2 * (1 - aspect)


def after(polynomials: tuple[tuple[float, float, float], ...], values: np.ndarray) -> np.ndarray:
    """Singular values after the polynomials, one after the other."""
    for a, b, c in polynomials:
        square = values**2
        values = values * (a + square * (b + square * c))
    return values


def spectral(shaped: np.ndarray, angle: np.ndarray) -> Spectral:
    """From φ(√x)/√x at the middles of equal intervals of the angle on the semicircle, both (angles,).

    They are `derivations.muon.coefficients` and `correlation_of_updates`.
    """
    sine = np.sin(angle)
    parts = (scipy.fft.dst(shaped * sine, type=2) / len(angle)) ** 2
    power = float(2 * np.mean((shaped * sine) ** 2))
    left = np.cumsum(parts[::-1])[::-1] / power  # of all degrees from here on
    known = max(1, int((left > SMALLEST_PART).sum()))
    return Spectral(power, parts[:known] / power)
