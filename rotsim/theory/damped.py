r"""Moments of (w, m) weighted with e^(-ζv), on a grid in log ζ that moves with v: what a random 1/√v costs at O(1) a step.

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

Against the double integral of `rotsim.theory.second_moment`, which shares no code, AdamW settles to 1e-7.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from numba.extending import register_jitable
from scipy.special import roots_jacobi, roots_legendre

from rotsim.theory import closed_forms

POINTS = 112  # enough for the tail of the first gradient's 1/v, ζ^(-1/2), down to 1e-7
SPACING = 0.3
_SIDE = 6  # points on either side of a cell that interpolation looks at
_GHOSTS = _SIDE - 1  # of these lie below ζ_1
_STRAIGHT = 0.01  # ζ_1 v at most: a cubic through ζ = 0 and three points is then off by 1e-8
_THREE = (1, 4, 7)  # these points
_GONE = 1e-14  # E e^(-ζv) below which a point is given up
PARTS = 20  # of the coordinates of Adam+L2, by |w| at the start
_FAR = 5.5  # deviations, the largest such |w|
_STEEP = 4.0  # E e^(-ζv) falling by more from point to point is not resolved: ratios to it are held there


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
    """All weights, computed once."""
    below = np.exp(-SPACING * np.arange(1, 400))  # points left of ζ_1, in units of it
    cubic = _lagrange(np.exp(SPACING * (np.array(_THREE) - 1)), below, zero=True)
    return Tables(
        _convolution(root=True) / np.sqrt(np.pi),
        _convolution(root=False),
        np.ascontiguousarray(cubic[:, _GHOSTS - 1 :: -1].T),
        cubic[:, 0].copy(),
        (cubic * SPACING * np.sqrt(below)).sum(axis=1) / np.sqrt(np.pi),
        (cubic * SPACING * below).sum(axis=1),
    )


def _lagrange(nodes: np.ndarray, at: np.ndarray, zero: bool = False) -> np.ndarray:
    """Lagrange's polynomials of `nodes`, and 0 if `zero`, at the points `at`: shape (nodes, at)."""
    nodes = np.append(0.0, nodes) if zero else nodes
    value = np.ones((len(nodes), len(at)))
    for i, own in enumerate(nodes):
        for other in np.delete(nodes, i):
            value[i] *= (at - other) / (own - other)
    return value


def _convolution(root: bool) -> np.ndarray:
    """Weights of F at the points -_GHOSTS, ..., POINTS + _SIDE in ∫_0^∞ F(s) (1 - e^(-s))^(-1/2) ds, or without root."""
    weights = np.zeros(POINTS + 2 * _SIDE)
    smooth, by = roots_legendre(20)
    singular, by_singular = roots_jacobi(20, 0, -0.5)  # (1 + x)^(-1/2) on [-1, 1]
    for cell in range(POINTS):
        x, weight = (smooth + 1) / 2, by / 2
        if root and cell == 0:
            x = (singular + 1) / 2
            weight = by_singular * np.sqrt(x / 2)
        kernel = 1 / np.sqrt(-np.expm1(-SPACING * (cell + x))) if root else 1.0
        near = _lagrange(np.arange(1.0 - _SIDE, 1.0 + _SIDE), x)
        weights[cell : cell + 2 * _SIDE] += (near * weight * kernel * SPACING).sum(axis=1)
    return weights


# The maps of one step, generated from derivations.damped.
_pull = register_jitable(closed_forms.damped_pull)
_share = register_jitable(closed_forms.damped_share)
_share_of_mean = register_jitable(closed_forms.damped_share_of_mean)
_weight = register_jitable(closed_forms.damped_weight)
_momentum = register_jitable(closed_forms.damped_momentum)
_pull_mean = register_jitable(closed_forms.damped_pull_mean)
_weight_square = register_jitable(closed_forms.damped_weight_square)
_overlap = register_jitable(closed_forms.damped_overlap)
_momentum_square = register_jitable(closed_forms.damped_momentum_square)
_moved_weight = register_jitable(closed_forms.moved_weight)
_moved_overlap = register_jitable(closed_forms.moved_overlap)
_moved_weight_square = register_jitable(closed_forms.moved_weight_square)


@register_jitable
def lay(zeta, v):  # type: ignore[no-untyped-def]
    """The grid for a first v of this mean."""
    for k in range(1, POINTS + 1):
        zeta[k] = _STRAIGHT / v * np.exp((k - 1) * SPACING)


@register_jitable
def widen(zeta, rows, counts, v, entering):  # type: ignore[no-untyped-def]
    """Let points enter on the left until F is straight there at this mean of v."""
    while zeta[1] * v > _STRAIGHT and zeta[1] > 0.0:
        for part in range(len(counts)):
            counts[part] = min(counts[part] + 1, POINTS)
            for row in rows[part]:
                new = entering[0] * row[0] + entering[1] * row[1] + entering[2] * row[4] + entering[3] * row[7]
                for k in range(counts[part], 1, -1):
                    row[k] = row[k - 1]
                row[1] = new
        first = zeta[1] * np.exp(-SPACING)
        for k in range(POINTS, 1, -1):
            zeta[k] = zeta[k - 1]
        zeta[1] = first


@register_jitable
def integral(values, zeta, count, root, tail):  # type: ignore[no-untyped-def]
    """∫_0^∞ F dζ, or with `root` π^(-1/2) ∫_0^∞ F dζ/√ζ: the sum over points, those left of ζ_1, and a power's tail."""
    total, before, last = 0.0, 0.0, 0.0
    for k in range(1, count + 1):
        before, last = last, values[k] * (np.sqrt(zeta[k]) if root else zeta[k])
        total += last
    if 0.0 < last < 0.99 * before or 0.0 > last > 0.99 * before:
        total += last / (before / last - 1.0)
    total *= SPACING / np.sqrt(np.pi) if root else SPACING
    left = tail[0] * values[0] + tail[1] * values[1] + tail[2] * values[4] + tail[3] * values[7]
    return total + left * (np.sqrt(zeta[1]) if root else zeta[1])


@register_jitable
def beyond(values, zeta, count, root, weights, ghosts, scratch, out):  # type: ignore[no-untyped-def]
    """The same from every ζ_k upwards, with 1/√(x - ζ_k) if `root`, into out[1:]; out[0] is left to `integral`."""
    for g in range(_GHOSTS):
        at = zeta[1] * np.exp((g - _GHOSTS) * SPACING)
        value = ghosts[g, 0] * values[0] + ghosts[g, 1] * values[1] + ghosts[g, 2] * values[4] + ghosts[g, 3] * values[7]
        scratch[g] = value * (np.sqrt(at) if root else at)
    for k in range(1, count + 1):
        scratch[_GHOSTS + k - 1] = values[k] * (np.sqrt(zeta[k]) if root else zeta[k])
        out[k] = 0.0
    for j in range(_GHOSTS + count):
        weight = weights[j]
        for k in range(min(count, _GHOSTS + count - j)):
            out[k + 1] += weight * scratch[k + j]


@register_jitable
def absorb(rows, count, zeta, centre, decay, beta1, beta2, dim, gradient):  # type: ignore[no-untyped-def]
    """Take a new gradient, and the decay λw beside it, into v and m; return the number of points left."""
    weight, w_first, m_first, w_second, overlap, m_second = rows
    w0, m0 = centre[0], centre[1]
    centre[1] = beta1 * m0 + (1 - beta1) * decay * w0
    for k in range(count + 1):
        share = weight[k]
        w, m = w_first[k] / share, m_first[k] / share
        ww, wm, mm = w_second[k] / share - w * w, overlap[k] / share - w * m, m_second[k] / share - m * m
        w, m = w + w0, m + m0
        pull = _pull(decay, dim, gradient, max(ww, 0.0))
        share *= _share(beta2, zeta[k], pull)
        if w0 != 0.0:
            share *= _share_of_mean(decay, beta2, zeta[k], w, pull)
        new_w = _weight(decay, beta2, zeta[k], w, ww, pull) - w0
        pulled = _pull_mean(decay, beta2, zeta[k], w, pull)
        new_m = beta1 * _momentum(decay, beta2, wm, zeta[k], w, m, pull) + (1 - beta1) * pulled - centre[1]
        weight[k] = share
        w_first[k], m_first[k] = share * new_w, share * new_m
        w_second[k] = share * (_weight_square(decay, beta2, zeta[k], ww, pull) + new_w * new_w)
        overlap[k] = share * (_overlap(decay, beta1, beta2, wm, zeta[k], ww, pull) + new_w * new_m)
        m_second[k] = share * (_momentum_square(decay, beta1, beta2, wm, mm, zeta[k], pull) + new_m * new_m)
    while count > 2 * _SIDE and weight[count] < _GONE:
        rows[:, count] = 0.0
        count -= 1
    return count


@register_jitable
def move(rows, count, zeta, centre, coupled, lr, decay, step, tables, integrals, scratch):  # type: ignore[no-untyped-def]
    """Move the weights by -step·m/√v; return E[w·m/√v] and E[m²/v] of before."""
    weight, w_first, m_first, w_second, overlap, m_second = rows
    root_m, root_wm, root_mm, whole_mm, values = integrals
    m0 = centre[1]
    mean = 0.0
    if coupled:
        root_m[:] = 0.0
        if m0 != 0.0:
            for k in range(count + 1):
                values[k] = m0 * weight[k] + m_first[k]
            mean = integral(values, zeta, count, True, tables.root_tail)
            beyond(values, zeta, count, True, tables.root, tables.ghosts, scratch, root_m)
            root_m[0] = mean
        for k in range(count + 1):
            values[k] = m0 * w_first[k] + overlap[k]
        beyond(values, zeta, count, True, tables.root, tables.ghosts, scratch, root_wm)
        root_wm[0] = integral(values, zeta, count, True, tables.root_tail)
        for k in range(count + 1):
            values[k] = m0 * (m0 * weight[k] + 2 * m_first[k]) + m_second[k]
        beyond(values, zeta, count, False, tables.plain, tables.ghosts, scratch, whole_mm)
        whole_mm[0] = integral(values, zeta, count, False, tables.plain_tail)
        for k in range(count + 1):
            values[k] = m0 * m_first[k] + m_second[k]
    else:
        root_wm[0] = integral(overlap, zeta, count, True, tables.root_tail)
        whole_mm[0] = integral(m_second, zeta, count, False, tables.plain_tail)
        for k in range(count + 1):
            values[k] = m_second[k]
    beyond(values, zeta, count, True, tables.root, tables.ghosts, scratch, root_mm)
    root_mm[0] = integral(values, zeta, count, True, tables.root_tail)
    across, power = root_wm[0] + centre[0] * mean, whole_mm[0]
    if coupled:
        for k in range(count + 1):  # all of it about the mean, which moves by `mean`
            crossed = root_wm[k] - mean * w_first[k]
            square = whole_mm[k] - 2 * mean * root_m[k] + mean * mean * weight[k]
            w_second[k] = _moved_weight_square(lr, decay, step, crossed, square, w_second[k])
            w_first[k] = _moved_weight(lr, decay, step, w_first[k], root_m[k] - mean * weight[k])
    for k in range(count + 1):
        overlap[k] = _moved_overlap(lr, decay, step, overlap[k], root_mm[k] - mean * m_first[k])
    centre[0] = _moved_weight(lr, decay, step, centre[0], mean)
    if coupled:
        last = count
        for k in range(1, count):
            if weight[k] > _STEEP * weight[k + 1]:
                last = k
                break
        for k in range(last + 1, count + 1):
            held = weight[k] / weight[last]
            w_first[k], w_second[k], overlap[k] = (
                held * w_first[last],
                held * w_second[last],
                held * overlap[last],
            )
    return across, power


@register_jitable
def split(rows, counts, centres, v, zeta, point):  # type: ignore[no-untyped-def]
    """One part of mean 0 as many, each with the weights it has now: |w| at so many deviations."""
    whole = rows[0].copy()
    variance = whole[3, 0]
    for part in range(len(point)):
        w = point[part] * np.sqrt(variance)
        centres[part, 0], centres[part, 1] = w, whole[4, 0] / variance * w
        counts[part] = counts[0]
        rows[part] = 0.0
        for k in range(counts[0] + 1):
            weight, ww = whole[0, k], whole[3, k] / whole[0, k]
            slope = whole[4, k] / whole[3, k]
            mean = slope * w - centres[part, 1]
            weight *= np.sqrt(variance / ww) * np.exp(-(w**2) / 2 * (1 / ww - 1 / variance))
            rows[part, 0, k], rows[part, 2, k] = weight, weight * mean
            rows[part, 5, k] = weight * (max(whole[5, k] / whole[0, k] - slope**2 * ww, 0.0) + mean**2)
        v[part] = (1 - rows[part, 0, 1]) / zeta[1]


@register_jitable
def merge(rows, counts, centres, share):  # type: ignore[no-untyped-def]
    """All parts, and their mirror images, as one of mean 0."""
    for k in range(POINTS + 1):
        total = np.zeros(6)
        for part in range(len(share)):
            weight, w, m, ww, wm, mm = rows[part, :, k]
            w0, m0 = centres[part]
            total[0] += share[part] * weight
            total[3] += share[part] * (ww + w0 * (w0 * weight + 2 * w))
            total[4] += share[part] * (wm + m0 * w + w0 * m + w0 * m0 * weight)
            total[5] += share[part] * (mm + m0 * (m0 * weight + 2 * m))
        rows[0, :, k] = total
    centres[:] = 0.0
    counts[0] = counts.max()


@register_jitable
def fourth_moment(rows, count, zeta, centre):  # type: ignore[no-untyped-def]
    """E[m⁴/v²] = ∫ ζ E[m⁴ e^(-ζv)] dζ, m being Gaussian under every weight; that and E[m²/v] of m about its mean."""
    total, central, power = 0.0, 0.0, 0.0
    for k in range(1, count + 1):
        weight = rows[0, k]
        mean = rows[2, k] / weight
        square = max(rows[5, k] / weight - mean**2, 0.0)
        mean += centre[1]
        total += zeta[k] ** 2 * weight * (3 * square**2 + 6 * square * mean**2 + mean**4)
        central += zeta[k] ** 2 * weight * 3 * square**2
        power += zeta[k] * weight * square
    return total * SPACING, central * SPACING, power * SPACING


@register_jitable
def leaves_normal(rows, count, zeta, step, power, across):  # type: ignore[no-untyped-def]
    """E w⁴ - 3 (E w²)² that a step from Gaussian w makes."""
    a, b, k2 = rows[3, 0], across, power
    one, two, three, four = 0.0, 0.0, 0.0, 0.0
    for k in range(1, count + 1):
        weight, z = rows[0, k], zeta[k]
        ww, wm, mm = rows[3, k], rows[4, k], rows[5, k]
        one += np.sqrt(z) * 3 * (ww / weight - a) * wm
        two += z * (ww * mm + 2 * wm * wm) / weight
        three += z * np.sqrt(z) * 6 * wm * mm / weight
        four += z * z * 3 * mm * mm / weight
    one, two, three, four = (
        one * SPACING / np.sqrt(np.pi),
        two * SPACING,
        three * SPACING / np.sqrt(np.pi),
        four * SPACING,
    )
    made = -4 * step * one + 6 * step**2 * (two - a * k2 - 2 * b * b)
    return made - 4 * step**3 * (three - 3 * b * k2) + step**4 * (four - 3 * k2 * k2)


@register_jitable
def room(parts):  # type: ignore[no-untyped-def]
    """Arrays for one walk: ζ; of every part the six weighted moments, number of points and centre; integrals; scratch."""
    size = POINTS + 1
    rows = np.zeros((parts, 6, size))
    rows[:, 0] = 1.0
    counts = np.full(parts, POINTS)
    return np.zeros(size), rows, counts, np.zeros((parts, 2)), np.zeros((5, size)), np.zeros(size + _GHOSTS)


@cache
def starts() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points of a standard normal's absolute value, their probabilities, and those of every second point alone."""
    node, by = roots_legendre(PARTS)
    point = _FAR * ((node + 1) / 2) ** 1.5
    share = by * np.sqrt(node + 1) * np.exp(-(point**2) / 2)
    degrees = np.polynomial.legendre.legvander(node, PARTS // 2 - 1)
    coarse = np.zeros(PARTS)
    coarse[1::2] = np.linalg.solve(degrees[1::2].T, degrees.T @ share)
    coarse, share = coarse / share.sum(), share / share.sum()
    return point / np.sqrt((share * point**2).sum()), share, coarse
