r"""AdamW's walk where lasting gradients are orthogonal to the weights: the second moment v follows the weights.

`memory` takes v to be as random as it is under noise alone. What is projected away pulls at the weights, and that pull
knows nothing of v. Where most of a gradient is projected away, neither holds. Here v is expanded instead. Of one
coordinate, with noise z of unit variance, gradient g and projection c:

.. math::
    g_t = z_t + c\,w_{t-1}, \qquad E[g_t w_{t-1}] = 0, \qquad w_t = (1-δ)\,w_{t-1} - η\,u_t, \qquad
    u = \frac{m}{\sqrt{\bar v}} \left(1 - \frac{d}{2} + \frac{3 d^2}{8}\right), \qquad v = \bar v (1 + d)

All but d is linear and Gaussian, and is solved by its spectra. To first order in the variance D_0 of d, of
autocovariance D:

1. A product of m and d has a linear part: d holds squares of gradients, of which m knows.
2. The rest of it is noise on its own, of autocovariance D times that of m over four.
3. That noise, after the walk has brought it back into m, meets the d that made it, τ steps old: D(τ)/4 times the answer
   of m.
4. d itself feels it: where v is large, steps are short, and gradients are not projected away. That prolongs d.

Powers, c and D depend on each other and are iterated. Neglected is the square of D_0. Without projection
`correlated_moment` is exact. What it finds over this expansion there corrects the rest, to the power of E g²: as far as
gradients are left. `derivations.shifting_moment` has 1 to 4.
"""

from __future__ import annotations

from functools import lru_cache
from math import sqrt
from typing import NamedTuple

import numpy as np

from rotsim.theory.boundary import check_time
from rotsim.theory.fixed_point import bracketed_root

MEMORIES = 16  # that a period of the grid has room for: of each e^-8 is left in its half
LARGEST_GRID = 2**17
LEAST_BETA2 = 0.5  # below which v wavers as much as it is
PROJECTED = 0.7  # relative error at a variance of 1 of d, where all of a gradient is projected away
PULLED = 0.1  # the same where hardly any is: in products with the pull of it
_DAMPING = 0.5  # of an iteration, that is taken of what it finds
_TOLERANCE = 1e-7  # of powers, at which iterations end
_MOST_SWEEPS = 100


class Shifting(NamedTuple):
    """Power and 1 - cos of a coordinate's weight, E g² over the noise's, and the variance of d.

    Where the iteration does not settle the variance and the error are infinite.
    """

    square: float
    one_minus_cosine: float
    left: float
    spread: float

    @property
    def error(self) -> float:
        """What may be off of norm and rotation; fitted to walks, beside the exact rest where nothing is projected."""
        return PROJECTED * self.spread**1.5 * sqrt(max(0.0, 1 - self.left)) + PULLED * self.spread**2


def reaches(decay: float, betas: tuple[float, float], correlation: float) -> bool:
    """Whether all memories fit on the largest grid, and v may hardly waver."""
    return betas[1] >= LEAST_BETA2 and _grid(decay, betas, correlation) <= LARGEST_GRID


@lru_cache(maxsize=256)
@np.errstate(all="ignore")  # what leaves the range of floats does not settle
def shifting_moment(decay: float, betas: tuple[float, float], correlation: float, projected: bool) -> Shifting:
    """The walk of the module docstring, in units of the learning rate: η = 1.

    Parameters
    ----------
    decay : float
        δ in (0, 1), the share of a weight that decay takes in a step.
    betas : tuple of float
        β1 and β2, in [0, 1).
    correlation : float
        φ in [0, 1), such that `reaches`.
    projected : bool
        Whether gradients are orthogonal to the weights; else c is 0.

    Returns
    -------
    Shifting
        Cached. It takes 0.1 s at a memory of 1000 steps, and in proportion to it.

    Notes
    -----
    `derivations.shifting_moment`.
    """
    unsettled = Shifting(1.0, 1.0, 0.0, np.inf)
    grid = _grid(decay, betas, correlation)
    delay = np.exp(-2j * np.pi * np.arange(grid // 2 + 1) / grid)
    noise = (1 - correlation**2) / np.abs(1 - correlation * delay) ** 2
    average = (1 - betas[0]) / (1 - betas[0] * delay)
    of_squares = (1 - betas[1]) / (1 - betas[1] * delay)
    both = np.full(len(delay), 2.0)  # frequencies of either sign
    both[[0, -1]] = 1.0

    def lags(spectrum: np.ndarray) -> np.ndarray:
        return np.fft.irfft(spectrum, grid)

    def causal(response: np.ndarray) -> np.ndarray:
        return np.asarray(np.fft.rfft(np.where(np.arange(grid) < grid // 2, response, 0.0)))

    linear = np.zeros(len(delay), dtype=complex)  # what 1 takes from the average
    returning, loose = linear.copy(), np.zeros(len(delay))  # 3, and the spectrum of 2
    left, spread, c, powers = 1.0, 0.0, 0.0, np.zeros(3)
    for _ in range(_MOST_SWEEPS):
        check_time()
        update = (average * (1 + 0.375 * spread + returning) - linear) / np.sqrt(left)  # u of g

        def walk(c: float, update: np.ndarray = update) -> tuple[np.ndarray, np.ndarray]:
            """w of z, and of what is added to u."""
            kick = -1 / (1 - (1 - decay) * delay + c * delay * update)
            return kick * update, kick

        def along(c: float, loose: np.ndarray = loose) -> float:
            """E g·w."""
            weights, kick = walk(c)
            met = noise * ((1 + c * delay * weights) * np.conj(delay * weights)).real
            return float((both * (met + c * loose * np.abs(kick) ** 2)).sum() / grid)

        if projected and correlation > 0:
            high = max(c, 1.0)
            while along(high) < 0 and high < np.inf:
                high *= 2
            if not along(0.0) < 0 <= along(high):
                return unsettled
            c = float(bracketed_root(along, 0.0, high, xtol=1e-14 * high, rtol=1e-10))
        weights, kick = walk(c)
        of_weights = noise * np.abs(weights) ** 2 + loose * np.abs(kick) ** 2
        of_gradients = noise * np.abs(1 + c * delay * weights) ** 2 + loose * np.abs(c * kick) ** 2
        spectra = of_weights, of_weights * np.abs(1 - delay) ** 2, of_gradients
        before, powers = powers, np.array([(both * spectrum).sum() / grid for spectrum in spectra])
        if not (np.isfinite(powers).all() and (powers > 0).all()):
            return unsettled
        if np.allclose(powers, before, rtol=_TOLERANCE, atol=0.0):
            break
        left = left ** (1 - _DAMPING) * powers[2] ** _DAMPING
        scale = 1 / np.sqrt(left)
        answer = lags(c * delay * kick)  # of g to what is added to u
        felt = causal(-scale * answer * lags(of_gradients * np.conj(average))) / powers[2]
        memory = of_squares / (1 - of_squares * felt)
        shared = lags(of_gradients) / powers[2]
        wavering = lags(np.fft.rfft(2 * shared**2).real * np.abs(memory) ** 2)
        in_average = lags(of_gradients * np.abs(average) ** 2)
        found = (
            causal(lags(memory) * lags(of_gradients * average)) / powers[2],
            causal(scale * wavering * lags(average * c * delay * kick)) / 4,
            np.maximum(np.fft.rfft(scale**2 * wavering * in_average).real / 4, 0.0),
            wavering[0],
        )
        linear, returning, loose, spread = (
            old + _DAMPING * (new - old) for old, new in zip((linear, returning, loose, spread), found, strict=True)
        )
    else:
        return unsettled
    return Shifting(float(powers[0]), float(powers[1] / (2 * powers[0])), float(powers[2]), float(spread))


def _grid(decay: float, betas: tuple[float, float], correlation: float) -> int:
    slowest = 1 / min(decay, 1 - max(betas), 1 - abs(correlation))
    return 2 ** max(8, int(np.ceil(np.log2(MEMORIES * slowest))))
