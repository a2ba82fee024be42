"""Coordinates under Adam+L2 in parts, by the weight that each had when decay began to fill v; elsewhere all are one.

A part has moments about its own mean under every weight e^(-ζv), ζ on the grid of `rotsim.theory.damped`.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import scipy

from rotsim.compiled import kernel_part
from rotsim.theory.damped import POINTS

PARTS = 40
_MAX_DEVIATIONS = 5.5  # of the largest |w| of a part
# Split when the decay yet to come has this share of v, one again when that times the share of E‖w‖² that goes back to
# the start is below the second. Chosen by hand; in five predictions of 3000 steps, half or twice of either moved
# results by at most 1.5 % of the error declared.
SHARE_TO_SPLIT, SHARE_TO_MERGE = 0.05, 1e-3
WEIGHT, W, M, WW, WM, MM = range(6)  # rows: E e^(-ζv), and under it moments about the part's mean


@cache
def _quadrature() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of parts in (0, 1), weights of an integral over them, and what makes those of every second of them."""
    node, by = scipy.special.roots_legendre(PARTS)
    unit = (node + 1) / 2
    degrees = np.polynomial.legendre.legvander(node, PARTS // 2 - 1)
    halves = np.zeros((PARTS, PARTS))
    halves[1::2] = np.linalg.solve(degrees[1::2].T, degrees.T)
    return unit**1.5, by * np.sqrt(unit), halves


def parts(dim: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """|w| of parts over its deviation, dense near 0; probabilities; and those of every second part, 0 at the others.

    The weights that a walk starts from have a given norm and any direction. Of so many, dim > 2, a coordinate has the
    density (1 - w²/dim)^((dim-3)/2), whose tails are lighter than a Gaussian's. They are what is left of the norm when
    decay, which moves all weights alike but for those near 0, has shortened the others
    (`derivations.damped.gaussian_under_every_weight`).
    """
    place, by, halves = _quadrature()
    point = min(_MAX_DEVIATIONS, np.sqrt(dim)) * place
    share = by * np.exp((dim - 3) / 2 * np.log1p(-(point**2) / dim))
    total, square, coarse = 0.0, 0.0, np.zeros(PARTS)
    for part in range(PARTS):
        total += share[part]
        square += share[part] * point[part] ** 2
        for other in range(PARTS):
            coarse[part] += halves[part, other] * share[other]
    return point / np.sqrt(square / total), share / total, coarse / total


@kernel_part()
def split(rows, counts, centres, v, zeta, point, whole):  # type: ignore[no-untyped-def]
    """One part of mean 0 as many, each with the weights it has now: |w| at so many deviations."""
    for k in range(POINTS + 1):
        for row in range(6):
            whole[row, k] = rows[0, row, k]
    variance = whole[WW, 0]
    for part in range(len(point)):
        w = point[part] * np.sqrt(variance)
        centres[part, 0], centres[part, 1] = w, whole[WM, 0] / variance * w
        counts[part] = counts[0]
        for k in range(POINTS + 1):
            for row in range(6):
                rows[part, row, k] = 0.0
        for k in range(counts[0] + 1):
            weight, ww = whole[WEIGHT, k], whole[WW, k] / whole[WEIGHT, k]
            slope = whole[WM, k] / whole[WW, k]
            mean, rest = slope * w - centres[part, 1], max(whole[MM, k] / weight - slope**2 * ww, 0.0)
            weight *= np.sqrt(variance / ww) * np.exp(-(w**2) / 2 * (1 / ww - 1 / variance))
            rows[part, WEIGHT, k], rows[part, M, k] = weight, weight * mean
            rows[part, MM, k] = weight * (rest + mean**2)
        v[part] = (1 - rows[part, WEIGHT, 1]) / zeta[1]


@kernel_part()
def merge(rows, counts, centres, v, share):  # type: ignore[no-untyped-def]
    """All parts, and their mirror images, as one of mean 0."""
    for k in range(POINTS + 1):
        weight, ww, wm, mm = 0.0, 0.0, 0.0, 0.0
        for part in range(len(share)):
            of, w0, m0, by = rows[part], centres[part, 0], centres[part, 1], share[part]
            weight += by * of[WEIGHT, k]
            ww += by * (of[WW, k] + w0 * (w0 * of[WEIGHT, k] + 2 * of[W, k]))
            wm += by * (of[WM, k] + m0 * of[W, k] + w0 * of[M, k] + w0 * m0 * of[WEIGHT, k])
            mm += by * (of[MM, k] + m0 * (m0 * of[WEIGHT, k] + 2 * of[M, k]))
        rows[0, WEIGHT, k], rows[0, W, k], rows[0, M, k] = weight, 0.0, 0.0
        rows[0, WW, k], rows[0, WM, k], rows[0, MM, k] = ww, wm, mm
    v[0] *= share[0]
    for part in range(len(share)):
        v[0] += share[part] * v[part] if part else 0.0
        centres[part, 0], centres[part, 1] = 0.0, 0.0
        counts[0] = max(counts[0], counts[part])


@kernel_part()
def unlike_neurons(rows, centres, share, point):  # type: ignore[no-untyped-def]
    """Variance of ‖w‖² among neurons that started with one norm, over its squared mean, times their dim.

    Of the fourth moment of a coordinate, less what its second moment and the given norm know: w² at the start.
    """
    square, fourth, along, spread = 0.0, 0.0, 0.0, -1.0
    for part in range(len(share)):
        mean, rest, start = centres[part, 0] ** 2, max(rows[part, WW, 0], 0.0), point[part] ** 2
        square += share[part] * (mean + rest)
        fourth += share[part] * (mean**2 + 6 * mean * rest + 3 * rest**2)
        along += share[part] * (mean + rest) * (start - 1)
        spread += share[part] * start**2
    return max(fourth - square**2 - along**2 / max(spread, 1e-12), 0.0) / square**2


@kernel_part()
def remembered(centres, share):  # type: ignore[no-untyped-def]
    """E w² of the parts' means."""
    total = 0.0
    for part in range(len(share)):
        total += share[part] * centres[part, 0] ** 2
    return total
