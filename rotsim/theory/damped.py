r"""Moments of (w, m) weighted with e^(-ζv), on a grid in log ζ that moves with v: 1/√v of a random v.

For a coordinate of Adam, f a product of two of w and m or 1, and F_f(ζ) = E[f e^(-ζv)],

.. math::
    E\left[\frac{f}{\sqrt v}\, e^{-ζv}\right] = \frac{1}{\sqrt\pi} \int_ζ^\infty \frac{F_f(x)}{\sqrt{x-ζ}}\, dx,
    \qquad E\left[\frac{f}{v}\, e^{-ζv}\right] = \int_ζ^\infty F_f(x)\, dx,

and a new gradient maps F(β2 ζ) to F(ζ) point by point (derivations.damped). The grid is ζ = 0 and a geometric
sequence, ζ_k = ζ_1 e^(0.3 (k-1)), from where F is straight to where e^(-ζv) has vanished:

* Every step multiplies ζ by 1/β2, so that points stay what they are. As they leave to the right, others enter on the
  left, interpolated between ζ = 0 and the first.
* With x = ζe^s the first integral has the kernel (1 - e^(-s))^(-1/2), the same for every ζ: a table of weights, exact
  for polynomials of degree 11 in s between neighbouring points, and a convolution.
* At ζ = 0 both are sums over the points. F is analytic in log ζ, so the trapezoidal rule converges geometrically.

In what kernels call, `zeta` (POINTS + 1,) is the grid. `values`, or a row of `rows`, has F at its points. `count`, of
each part in `counts`, is the index of the last point in use, 2·SIDE <= count <= POINTS. v > 0 is the mean of v.

Against the double integral of `rotsim.theory.second_moment`, which shares no code, AdamW settles to 1e-7.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import scipy

from rotsim.compiled import kernel_part
from rotsim.theory.pieces import lagrange

POINTS = 112  # enough for the tail of the first gradient's 1/v, ζ^(-1/2), down to 1e-7
SPACING = 0.3
SIDE = 6  # points on either side of a cell that interpolation looks at
GHOSTS = SIDE - 1  # of these lie below ζ_1
MAX_FIRST_EXPONENT = 0.01  # ζ_1 v at most: a cubic through ζ = 0 and three points is then off by 1e-8
_STRAIGHT = 20  # points under ζ_1 over which F is still straight, and constant below
_UNFELT = 1e-3  # ε√ζ up to which ε changes no weight
_TERMS, _FRACTIONS = 40, 80  # good to 1e-9
_FAR = 20.0  # from here on what ε leaves is its series, two terms of which are good to 1e-4
_THREE = (1, 4, 7)  # these points
_AT_ONCE = POINTS - 12  # new points that leave room for these beside them


class Tables(NamedTuple):
    """Weights of the quadratures; see `integral` and `beyond`."""

    root: np.ndarray
    plain: np.ndarray
    ghosts: np.ndarray
    entering: np.ndarray
    root_tail: np.ndarray
    plain_tail: np.ndarray


@cache
def tables() -> Tables:
    """All weights of the quadratures over ζ (`derivations.damped.even_in_the_logarithm`), computed once.

    ``root`` and ``plain``, shape (POINTS + 2·SIDE,), are the convolutions with and without 1/√(x-ζ). The others act on
    the cubic through ζ = 0 and three points. ``ghosts``, shape (GHOSTS, 4), gives F left of ζ_1. ``entering``, shape
    (4,), gives a new first point. ``root_tail`` and ``plain_tail``, shape (4,), give what sums leave out from 0 to ζ_1.
    """
    below = np.exp(-SPACING * np.arange(1, 400))  # points left of ζ_1, in units of it
    cubic = lagrange(below, np.append(0.0, np.exp(SPACING * (np.array(_THREE) - 1))))
    return Tables(
        _convolution(root=True) / np.sqrt(np.pi),
        _convolution(root=False),
        np.ascontiguousarray(cubic[:, GHOSTS - 1 :: -1].T),
        cubic[:, 0].copy(),
        (cubic * SPACING * np.sqrt(below)).sum(axis=1) / np.sqrt(np.pi),
        (cubic * SPACING * below).sum(axis=1),
    )


def _convolution(root: bool) -> np.ndarray:
    """Weights of F at the points -GHOSTS, ..., POINTS + SIDE in ∫_0^∞ F(s) (1 - e^(-s))^(-1/2) ds, or without root."""
    weights = np.zeros(POINTS + 2 * SIDE)
    smooth, by = scipy.special.roots_legendre(20)
    singular, by_singular = scipy.special.roots_jacobi(20, 0, -0.5)  # (1 + x)^(-1/2) on [-1, 1]
    for cell in range(POINTS):
        x, weight = (smooth + 1) / 2, by / 2
        if root and cell == 0:
            x = (singular + 1) / 2
            weight = by_singular * np.sqrt(x / 2)
        kernel = 1 / np.sqrt(-np.expm1(-SPACING * (cell + x))) if root else 1.0
        near = lagrange(x, np.arange(1.0 - SIDE, 1.0 + SIDE))
        weights[cell : cell + 2 * SIDE] += (near * weight * kernel * SPACING).sum(axis=1)
    return weights


@kernel_part()
def lay(zeta, v) -> None:  # type: ignore[no-untyped-def]
    """The grid for a first v, from where F is straight (`derivations.damped.even_in_the_logarithm`); its 0 stays."""
    for k in range(1, POINTS + 1):
        zeta[k] = MAX_FIRST_EXPONENT / v * np.exp((k - 1) * SPACING)


@kernel_part()
def _cubic(by, zero, first, second, third):  # type: ignore[no-untyped-def]
    """A sum over ζ = 0 and the three points."""
    return by[0] * zero + by[1] * first + by[2] * second + by[3] * third


@kernel_part()
def widen(zeta, rows, counts, parts, v, entering) -> None:  # type: ignore[no-untyped-def]
    """Let points enter on the left until F is straight there (`derivations.damped.even_in_the_logarithm`).

    The grid, `rows` (parts, 6, POINTS + 1) and `counts` are changed in place; the first `parts` are in use. `entering`
    is that of `tables`.
    """
    missing, first = 0, zeta[1]
    while first * v > MAX_FIRST_EXPONENT and first > 0.0:
        first *= np.exp(-SPACING)
        missing += 1
    while missing > 0:
        new = min(missing, _AT_ONCE)
        missing -= new
        for part in range(parts):
            count = min(counts[part] + new, POINTS)
            counts[part] = count
            for row in range(rows.shape[1]):
                values = rows[part, row]
                for k in range(count, new, -1):
                    values[k] = values[k - new]
                for k in range(new, 0, -1):
                    values[k] = _cubic(entering, values[0], values[k + 1], values[k + 4], values[k + 7])
        for k in range(POINTS, new, -1):
            zeta[k] = zeta[k - new]
        for k in range(new, 0, -1):
            zeta[k] = zeta[k + 1] * np.exp(-SPACING)


@kernel_part()
def integral(values, zeta, count, root, tail):  # type: ignore[no-untyped-def]
    """∫_0^∞ F dζ, or with `root` π^(-1/2) ∫_0^∞ F dζ/√ζ: the sum over points, those left of ζ_1, and a power's tail.

    They are E[f/v] and E[f/√v] (`derivations.damped.damped_moments`). `tail` is ``root_tail`` or ``plain_tail``.
    """
    total, before, last = 0.0, 0.0, 0.0
    for k in range(1, count + 1):
        before, last = last, values[k] * (np.sqrt(zeta[k]) if root else zeta[k])
        total += last
    if 0.0 < last < 0.99 * before or 0.0 > last > 0.99 * before:
        total += last / (before / last - 1.0)
    total *= SPACING / np.sqrt(np.pi) if root else SPACING
    return total + _cubic(tail, values[0], values[1], values[4], values[7]) * (np.sqrt(zeta[1]) if root else zeta[1])


@kernel_part()
def _left(x, root):  # type: ignore[no-untyped-def]
    """What ε leaves of the weight of a point, x = ε√ζ >= 0: 1 - √π x erfcx(x), and of 1/v its slope in ε."""
    if x > _FAR:
        return (0.5 - 0.75 / x**2) / x**2 if root else (1.0 - 3.0 / x**2) / x**3 / np.sqrt(np.pi)
    if x > 2.0:  # √π erfcx(x) = 1/(x + rest), a continued fraction
        rest = 0.0
        for k in range(_FRACTIONS, 0, -1):
            rest = 0.5 * k / (x + rest)
        return rest / (x + rest) if root else (1.0 - 2.0 * x * rest) / (x + rest) / np.sqrt(np.pi)
    term, total = x, x
    for n in range(1, _TERMS):  # of erf(x) e^(x²)
        term *= 2.0 * x * x / (2 * n + 1)
        total += term
    scaled = np.sqrt(np.pi) * np.exp(x * x) - 2.0 * total
    return 1.0 - x * scaled if root else ((1.0 + 2.0 * x * x) * scaled - 2.0 * x) / np.sqrt(np.pi)


@kernel_part()
def beside_eps(values, zeta, count, root, eps):  # type: ignore[no-untyped-def]
    """E[f/(√v + ε)²], or with `root` E[f/(√v + ε)], of `values` that are E[f e^(-ζv)] (`integral`).

    F is straight below ζ_1, where ε may still change the weight (`derivations.second_moment.eps_weight`).
    """
    total, before, last = 0.0, 0.0, 0.0
    felt_from = max(eps * np.sqrt(zeta[1]) / _UNFELT, 1.0)
    below = int(2.0 * np.log(felt_from) / SPACING) + _STRAIGHT  # points under ζ_1
    for k in range(1 - below, count + 1):
        if k > 0:
            at, value = zeta[k], values[k]
        else:
            share = np.exp((k - 1) * SPACING)
            at, value = zeta[1] * share, values[0] + (values[1] - values[0]) * share
        before, last = last, value * _left(eps * np.sqrt(at), root) * (np.sqrt(at) if root else at)
        total += last
        if k == 1 - below:  # and all points further below, where nothing changes any more
            total += last / (np.exp(0.5 * SPACING if root else SPACING) - 1.0)
    if 0.0 < last < 0.99 * before or 0.0 > last > 0.99 * before:
        total += last / (before / last - 1.0)
    return total * SPACING / (np.sqrt(np.pi) if root else 1.0)


@kernel_part()
def flatten(values, count, evenly, out) -> None:  # type: ignore[no-untyped-def]
    """Let ``out``, which `beyond` made of `values`, be flatter in v: as beside an ε that takes the share `evenly`.

    1/(√v + ε) has the slope of a sum of 1/√v and a constant, with these shares. ``out[0]`` stays what it is.
    """
    if evenly > 0.0 and values[0] != 0.0:
        scale = out[0] / values[0]
        for k in range(1, count + 1):
            out[k] = (1.0 - evenly) * out[k] + evenly * scale * values[k]


@kernel_part()
def beyond(values, zeta, count, root, weights, ghosts, scratch, out) -> None:  # type: ignore[no-untyped-def]
    """The same from every ζ_k upwards, with 1/√(x - ζ_k) if `root`, into out[1:]; out[0] is left to `integral`.

    They are the moments after a division by v or √v, at every ζ (`derivations.damped.damped_moments`). `weights` are
    ``root`` or ``plain`` of `tables`, and `ghosts` are of them. `scratch` (POINTS + 1 + GHOSTS,) is overwritten.
    """
    for g in range(GHOSTS):
        at = zeta[1] * np.exp((g - GHOSTS) * SPACING)
        value = (
            ghosts[g, 0] * values[0] + ghosts[g, 1] * values[1] + ghosts[g, 2] * values[4] + ghosts[g, 3] * values[7]
        )
        scratch[g] = value * (np.sqrt(at) if root else at)
    for k in range(1, count + 1):
        scratch[GHOSTS + k - 1] = values[k] * (np.sqrt(zeta[k]) if root else zeta[k])
        out[k] = 0.0
    for j in range(GHOSTS + count):
        weight = weights[j]
        for k in range(min(count, GHOSTS + count - j)):
            out[k + 1] += weight * scratch[k + j]
