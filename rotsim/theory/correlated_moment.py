r"""Adam's update under AR(1) gradients, or gradients with a mean, v left random: its autocovariance and its answers.

`second_moment` does this for independent gradients by a product over them. With a memory, z_t = φ z_{t-1} + noise,
there is no product. Under a weight e^(-sv), however, all remains jointly Gaussian. Its covariances follow from the step
before, at β2 s (derivations.correlated_adam):

.. math::
    K_k = E\left[\frac{m_t\, m_{t+k}}{\sqrt{v_t v_{t+k}}}\right]
        = \frac1\pi \iint \frac{ds\,dr}{\sqrt{s r}}\; E\left[m_t\, m_{t+k}\; e^{-s v_t - r v_{t+k}}\right]

1. A table over s of E e^(-sv) and the moments of (z, m) under it. It comes from one chain of steps s → s/β2, or from
   several that start apart where β2 is small.
2. For each s on the grid of `damped` and all ζ on it at once: from the table at s + ζ, k more steps under ζ → ζ/β2
   carry the covariances with m_t along. The sums over ζ and then over s are those of `damped`.
3. The means of z and m for a shift of all gradients, and for one that grows with age, follow in the same chain. A
   shift that is not small, a signal, also takes its part of E e^(-sv).

At φ = 0 it agrees with `second_moment`, which shares nothing with it but the integral for a root, to 2e-7 of any lag.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import scipy

from rotsim import closed_forms
from rotsim.compiled import kernel_part
from rotsim.errors import require
from rotsim.kernels import compiled
from rotsim.theory.boundary import check_time
from rotsim.theory.damped import POINTS, SIDE, integral, lay, tables, widen
from rotsim.theory.memory import CorrelatedUpdate

_SPACING = 0.03  # of log s in the table: a cubic between its points is off by 1e-8
_LEAST_DAMPING = 1e-9  # s v below which nothing is damped
_MEMORY_EXPONENT = 25.0  # e^-25 of a memory is left out
_LEAST_EXPECTATION = 1e-20  # E e^(-ζv) below which a point is given up
_SMALLEST = 1e-12  # β2 below this is as good as 0
LARGEST_BETA2 = 1 - 2e-6  # whose table takes seconds to fill
MOST_LAGS = 1_000_000  # that are carried: about five seconds, and 1 GB
_MAX_LAGS = 300  # beyond the memory of m, until a shift's covariance is geometric
_LEAST_ROOT_GAP = 1e-3  # roots closer than this count as one
#: rows: E e^(-ζv), and under it covariances, then means for a shift of one; f is m at the earlier time
_WEIGHT, _ZZ, _ZM, _MM, _ZF, _MF, _Z, _M, _F = range(9)
_SHIFTED_Z, _SHIFTED_M, _AGED = 4, 5, 7  # columns of the table after the first four: means of z and m, and by age


@lru_cache(maxsize=256)
def correlated_update(beta1: float, beta2: float, correlation: float) -> CorrelatedUpdate:
    """The update of Adam under AR(1) gradients that know nothing of the weights.

    Parameters
    ----------
    beta1, beta2 : float
        In [0, 1); β2 > 0 unless β1 = 0, or the update has no variance.
    correlation : float
        φ in (-1, 1).

    Returns
    -------
    CorrelatedUpdate
        Cached. It takes 0.1 s at a memory of 1000 steps, and in proportion to the longest of β1 and φ.

    Notes
    -----
    `derivations.correlated_adam`.
    """
    if beta2 < _SMALLEST and beta1 == 0:  # a sign
        mean = np.sqrt(2 / np.pi)
        covariance = 2 / np.pi * np.arcsin(correlation ** np.arange(_lags(beta1, correlation) + 1.0))
        return CorrelatedUpdate(covariance, float(mean), float(mean), np.array([1.0, 0.0, 0.0]), np.zeros(3))
    covariance, at_zeta, rooted = _solve(beta1, max(beta2, _SMALLEST), correlation, 0.0)
    weight = at_zeta[:, _WEIGHT]
    inverse, overlap = rooted(weight.copy()), rooted(weight * at_zeta[:, _ZM])
    response, age = rooted(weight * at_zeta[:, _SHIFTED_M]), rooted(weight * at_zeta[:, _AGED])
    shares, roots = _answer(beta1, beta2, correlation, inverse, response, age)
    return CorrelatedUpdate(covariance, overlap, response, shares, roots)


@lru_cache(maxsize=256)
def signal_update(beta1: float, beta2: float, signal_ratio: float) -> tuple[float, np.ndarray]:
    """Mean and autocovariance of the update under independent gradients with a mean.

    Parameters
    ----------
    beta1, beta2 : float
        In [0, 1); β2 > 0 unless β1 = 0, or the update has no variance.
    signal_ratio : float
        Mean of a gradient coordinate over its deviation, of any sign.

    Returns
    -------
    mean : float
        E u.
    covariance : ndarray, shape (lags + 1,)
        E[u_t u_{t+k}] - (E u)², to where it falls as β2^k.

    Notes
    -----
    `derivations.correlated_adam`, whose shift need not be small for the means of z and m under a weight.
    """
    if beta2 < _SMALLEST and beta1 == 0:
        mean = scipy.special.erf(signal_ratio / np.sqrt(2))
        return float(mean), np.array([1 - mean**2, 0.0])
    covariance, at_zeta, rooted = _solve(beta1, max(beta2, _SMALLEST), 0.0, signal_ratio)
    mean = rooted(at_zeta[:, _WEIGHT] * at_zeta[:, _SHIFTED_M]) * signal_ratio
    return mean, covariance - mean**2


def _lags(beta1: float, correlation: float) -> int:
    """To where neither remembers; `InvalidInput` if that is too far."""
    last = _forgotten(max(beta1, abs(correlation)))
    way_out = f"Use betas[0], and a correlation, of at most 1 - {_MEMORY_EXPONENT / MOST_LAGS:.1e}"
    require(last <= MOST_LAGS, "betas", f"leave averages uncorrelated after {MOST_LAGS} steps", last, way_out)
    return last


def _forgotten(root: float) -> int:
    return max(1, int(np.ceil(_MEMORY_EXPONENT / -np.log(max(root, 1e-9)))))


def _solve(
    beta1: float, beta2: float, correlation: float, shift: float
) -> tuple[np.ndarray, np.ndarray, Callable[[np.ndarray], float]]:
    """E[u_t u_{t+k}] by lag, the table at the points of the grid, and the sum over them that takes a root."""
    rule = f"be at most {LARGEST_BETA2:.6f} where gradients have a memory or a mean"
    require(beta2 <= LARGEST_BETA2, "betas[1]", rule, beta2)
    lags = _lags(beta1, correlation)
    rate = -np.log(beta2)
    chains, stride = max(1, int(np.ceil(rate / _SPACING))), max(1, int(_SPACING / rate))
    spacing = rate / chains * stride
    zeta = np.zeros(POINTS + 1)
    lay(zeta, 1 / beta2)  # a step moves points by 1/β2 before others enter
    points = int(np.log(2 * zeta[-1] / _LEAST_DAMPING) / spacing) + 4
    table = np.zeros((points, 8))
    _fill(beta1, beta2, correlation, shift, chains, stride, spacing, table)
    if shift != 0:  # v, remembered beyond m, goes on; in the end as β2^k
        lags = max(lags, min(_forgotten(beta2), _MAX_LAGS))
    inner, covariance = np.zeros((lags + 1, POINTS + 1)), np.zeros(lags + 1)
    by = tables()
    room = np.zeros(POINTS + 1), np.zeros((1, 9, POINTS + 1)), np.zeros(1, dtype=np.int64), np.zeros(POINTS + 1)
    given = beta1, beta2, correlation, shift, table, spacing, zeta, by.root_tail, by.entering, inner, covariance, *room
    for point in range(POINTS + 1):
        check_time()
        _carry(point, *given)
    at_zeta = np.zeros((POINTS + 1, 8))
    for point in range(POINTS + 1):
        _look_up(table, zeta[point], spacing, at_zeta[point])

    def rooted(values: np.ndarray) -> float:
        return float(integral(values, zeta, POINTS, True, by.root_tail))

    return covariance, at_zeta, rooted


def _answer(
    beta1: float, beta2: float, correlation: float, inverse: float, response: float, age: float
) -> tuple[np.ndarray, np.ndarray]:
    """The numerator's share of the answer, known, and two of v's, which have its sum and mean age (lstsq: or one)."""
    of_v = np.array([beta2 * correlation, beta2 * beta1])
    if abs(of_v[0] - of_v[1]) < _LEAST_ROOT_GAP:
        of_v[1] += _LEAST_ROOT_GAP if of_v[1] < 0.5 else -_LEAST_ROOT_GAP
    matrix = np.array([1 / (1 - of_v), of_v / (1 - of_v) ** 2])
    owed = np.array([inverse - response, inverse * beta1 / (1 - beta1) - age])
    size = np.linalg.lstsq(matrix, owed, rcond=1e-12)[0] / (1 - of_v)
    return np.append(inverse, -size) / response, np.append(beta1, of_v)


@kernel_part()
def _absorb(correlation, beta1, beta2, zeta, zz, zm, mm):  # type: ignore[no-untyped-def]
    """One more gradient: what it leaves of E e^(-ζv), its variance and covariance with m before, and the new three."""
    pull, mz = closed_forms.remembered_power(correlation, zz), correlation * zm
    share = closed_forms.damped_share(beta2, zeta, pull)
    mm, zm = (
        closed_forms.damped_covariance(beta2, zeta, pull, mm, mz, mz),
        closed_forms.damped_covariance(beta2, zeta, pull, mz, mz, pull),
    )
    zz = closed_forms.damped_covariance(beta2, zeta, pull, pull, pull, pull)
    old, new = closed_forms.averaged(beta1, mm, zm), closed_forms.averaged(beta1, zm, zz)
    return share, pull, mz, zz, new, closed_forms.averaged(beta1, old, new)


def _fill(beta1, beta2, correlation, shift, chains, stride, spacing, table):  # type: ignore[no-untyped-def]
    for q in range(len(table)):
        if q < chains:  # nothing is damped yet
            with_z = (1 - beta1) / (1 - beta1 * correlation)
            power = (1 - beta1) / (1 + beta1) * closed_forms.average_power_factor(beta1, correlation)
            weight, zz, zm, mm = 1.0, 1.0, with_z, power
            z, m, aged_z, aged_m = 0.0, 1.0, 0.0, beta1 / (1 - beta1)
        else:
            row = table[q - chains]
            weight, zz, zm, mm = row[0], row[1], row[2], row[3]
            z, m, aged_z, aged_m = row[4], row[5], row[6], row[7]
        for step in range(stride):
            zeta = _LEAST_DAMPING * np.exp(q * spacing) * beta2 ** (stride - 1 - step)
            share, pull, mz, zz, zm, mm = _absorb(correlation, beta1, beta2, zeta, zz, zm, mm)
            weight *= share
            # shifts of all gradients, and by their age: they have all become one step older
            shifted, aged = correlation * z + 1.0, correlation * (aged_z + z)
            weight *= closed_forms.damped_share_of_mean(1.0, beta2, zeta, shift * shifted, pull)
            aged_m = closed_forms.damped_covariance(beta2, zeta, pull, aged_m + m, mz, aged)
            aged_z = closed_forms.damped_covariance(beta2, zeta, pull, aged, pull, aged)
            m = closed_forms.damped_covariance(beta2, zeta, pull, m, mz, shifted)
            z = closed_forms.damped_covariance(beta2, zeta, pull, shifted, pull, shifted) - 1.0
            m, aged_m = closed_forms.averaged(beta1, m, z + 1.0), closed_forms.averaged(beta1, aged_m, aged_z)
        row = table[q]
        row[0], row[1], row[2], row[3] = weight, zz, zm, mm
        row[4], row[5], row[6], row[7] = z, m, aged_z, aged_m


def _look_up(table, s, spacing, out):  # type: ignore[no-untyped-def]
    """The table at any s: a cubic in log s."""
    q, x = 1, 0.0
    if s > _LEAST_DAMPING:
        x = np.log(s / _LEAST_DAMPING) / spacing
        q = min(max(int(x), 1), len(table) - 3)
    f = min(x - q, 1.0)
    before, here = -f * (f - 1) * (f - 2) / 6, (f + 1) * (f - 1) * (f - 2) / 2
    after, beyond = -(f + 1) * f * (f - 2) / 2, (f + 1) * f * (f - 1) / 6
    for i in range(len(out)):
        out[i] = before * table[q - 1, i] + here * table[q, i] + after * table[q + 1, i] + beyond * table[q + 2, i]


def _carry(  # type: ignore[no-untyped-def]
    point, beta1, beta2, correlation, shift, table, spacing, grid, tail, entering, inner, covariance, zeta, rows,
    counts, values,
):  # fmt: skip
    """The integral over r for an s on the grid, into inner[lag, point]; after the last of these that over s, by lag."""
    start, row = np.empty(8), rows[0]
    counts[0] = POINTS
    for k in range(POINTS + 1):
        zeta[k] = grid[k]
        _look_up(table, grid[point] + grid[k], spacing, start)
        row[_WEIGHT, k], row[_ZZ, k], row[_ZM, k], row[_MM, k] = start[0], start[1], start[2], start[3]
        row[_ZF, k], row[_MF, k] = start[2], start[3]
        row[_Z, k], row[_M, k], row[_F, k] = start[_SHIFTED_Z], start[_SHIFTED_M], start[_SHIFTED_M]
    felt = row[_WEIGHT, 0] >= _LEAST_EXPECTATION
    for lag in range(len(inner) if felt else 0):
        if lag > 0:
            count = counts[0]
            while count > 2 * SIDE and row[_WEIGHT, count] < _LEAST_EXPECTATION:
                count -= 1
            counts[0] = count
            for k in range(1, POINTS + 1):
                zeta[k] /= beta2
            for k in range(count + 1):
                fz = correlation * row[_ZF, k]
                share, pull, mz, zz, zm, mm = _absorb(
                    correlation, beta1, beta2, zeta[k], row[_ZZ, k], row[_ZM, k], row[_MM, k]
                )
                mf = closed_forms.damped_covariance(beta2, zeta[k], pull, row[_MF, k], mz, fz)
                zf = closed_forms.damped_covariance(beta2, zeta[k], pull, fz, pull, fz)
                if shift != 0.0:
                    y = correlation * row[_Z, k] + 1.0
                    share *= closed_forms.damped_share_of_mean(1.0, beta2, zeta[k], shift * y, pull)
                    row[_Z, k] = closed_forms.damped_covariance(beta2, zeta[k], pull, y, pull, y) - 1.0
                    m = closed_forms.damped_covariance(beta2, zeta[k], pull, row[_M, k], mz, y)
                    row[_M, k] = closed_forms.averaged(beta1, m, row[_Z, k] + 1.0)
                    row[_F, k] = closed_forms.damped_covariance(beta2, zeta[k], pull, row[_F, k], fz, y)
                row[_WEIGHT, k] *= share
                row[_ZZ, k], row[_ZM, k], row[_MM, k] = zz, zm, mm
                row[_ZF, k], row[_MF, k] = zf, closed_forms.averaged(beta1, mf, zf)
            widen(zeta, rows, counts, 1, 1 / beta2, entering)
        for k in range(counts[0] + 1):
            values[k] = row[_WEIGHT, k] * (row[_MF, k] + shift**2 * row[_F, k] * row[_M, k])
        inner[lag, point] = integral(values, zeta, counts[0], True, tail)
    if point == POINTS:
        for lag in range(len(inner)):
            covariance[lag] = integral(inner[lag], grid, POINTS, True, tail)


_look_up = compiled(_look_up, "correlated_look_up", {})
_fill = compiled(_fill, "correlated_fill", {})
_carry = compiled(_carry, "correlated_carry", {"_look_up": _look_up})
