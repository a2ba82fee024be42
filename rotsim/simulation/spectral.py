"""Newton and Schulz's iteration for kernels, by inner products of rows alone.

The iteration multiplies a matrix x by polynomials of x·xᵀ, which all commute. So it is one matrix of the shorter side
times x. That matrix and the Gram matrix that it is made of stay symmetric: half of their entries are computed, and the
longer side counts twice in all, not in every iteration.

A matrix stays on one thread, in products of our own. So no number depends on threads, and a small matrix on no library
that would start more of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from rotsim.compiled import kernel_part
from rotsim.simulation.walk import FASTMATH

PAD = 8  # sides are filled up with zeros to a multiple of it; rows are taken by fours
#: Rounding may grow to this share of a singular value near 0, before the Gram matrix is computed anew.
_DRIFT = 1e-4


class SpectralRoom(NamedTuple):
    """What `orthogonalise` works in; sides are filled up with zeros.

    Attributes
    ----------
    d, across : ndarray, shapes (p, q) and (q, p)
        The matrix with its shorter side first, and transposed.
    out : ndarray, shape (rows, columns)
        The result, as the caller's matrix lies.
    gram, polynomial, product, spare : ndarray, shape (p, p)
    """

    d: np.ndarray
    across: np.ndarray
    out: np.ndarray
    gram: np.ndarray
    polynomial: np.ndarray
    product: np.ndarray
    spare: np.ndarray


def filled_up(count: int, to: int = PAD) -> int:
    """The least multiple of `to` that is at least `count`."""
    return -(-count // to) * to


def spectral_room(rows: int, columns: int, dtype: np.dtype[Any]) -> SpectralRoom:
    """Room for a matrix of this form."""
    p, q = sorted((filled_up(rows), filled_up(columns)))
    forms = ((p, q), (q, p), (filled_up(rows), filled_up(columns)), *[(p, p)] * 4)
    return SpectralRoom(*(np.zeros(form, dtype) for form in forms))


def spectral_bytes(rows: int, columns: int, dtype: np.dtype[Any]) -> int:
    """Of `spectral_room`."""
    p, q = sorted((filled_up(rows), filled_up(columns)))
    return (3 * p * q + 4 * p * p) * dtype.itemsize


@kernel_part(fastmath=FASTMATH)
def products_of_rows(x, y, out, symmetric):  # type: ignore[no-untyped-def]
    """out = x·yᵀ by blocks of 4 × 2 inner products; where that is symmetric its lower half, which is then mirrored."""
    zero = x.dtype.type(0)
    for i in range(0, x.shape[0], 4):
        a0, a1, a2, a3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        for j in range(0, i + 4 if symmetric else y.shape[0], 2):
            b0, b1 = y[j], y[j + 1]
            s00 = s01 = s10 = s11 = s20 = s21 = s30 = s31 = zero
            for k in range(x.shape[1]):
                left, right = b0[k], b1[k]
                s00 += a0[k] * left
                s01 += a0[k] * right
                s10 += a1[k] * left
                s11 += a1[k] * right
                s20 += a2[k] * left
                s21 += a2[k] * right
                s30 += a3[k] * left
                s31 += a3[k] * right
            out[i, j], out[i, j + 1], out[i + 1, j], out[i + 1, j + 1] = s00, s01, s10, s11
            out[i + 2, j], out[i + 2, j + 1], out[i + 3, j], out[i + 3, j + 1] = s20, s21, s30, s31
    if symmetric:
        for i in range(x.shape[0]):
            for j in range(i):
                out[j, i] = out[i, j]


@kernel_part(fastmath=FASTMATH)
def _evaluate(a, b, c, gram, out):  # type: ignore[no-untyped-def]
    """out = a + b·gram + c·gram² of a symmetric matrix."""
    products_of_rows(gram, gram, out, True)
    for i in range(gram.shape[0]):
        one, two = gram[i], out[i]
        for j in range(gram.shape[1]):
            two[j] = b * one[j] + c * two[j]
        two[i] += a


@kernel_part(fastmath=FASTMATH)
def orthogonalise(room, polynomials, least):  # type: ignore[no-untyped-def]
    """Put the matrix of `room` into its `out`, every singular value σ replaced by polynomials of σ/‖d‖.

    `polynomials` holds a, b, c of one after the other, `least` the least value that d is divided by. `d` and `across`
    are used up. The Gram matrix follows the iteration: x → P·x takes G to P·G·P. What rounding leaves of a singular
    value near 0 grows by a² each time, and would end below 0. Before it does, the matrix is multiplied out.
    """
    d, across, out, gram, polynomial = room.d, room.across, room.out, room.gram, room.polynomial
    product, spare = room.product, room.spare
    p, real = d.shape[0], d.dtype.type
    wide = out.shape[0] == p
    products_of_rows(d, d, gram, True)
    square = 0.0
    for i in range(p):
        square += np.float64(gram[i, i])
    by = real(1.0 / max(np.sqrt(square), least))
    for i in range(p):
        row = gram[i]
        for j in range(p):
            row[j] = row[j] * by * by
    most = _DRIFT / np.finfo(d.dtype).eps
    growth, fresh = 1.0, True
    for n in range(polynomials.size // 3):
        a, b, c = polynomials[3 * n], polynomials[3 * n + 1], polynomials[3 * n + 2]
        if not fresh:
            before = np.float64(polynomials[3 * n - 3])
            growth *= before * before
            if growth > most:
                products_of_rows(product, across, d, False)
                for i in range(p):
                    for j in range(d.shape[1]):
                        d[i, j] *= by
                        across[j, i] = d[i, j]
                products_of_rows(d, d, gram, True)
                by, growth, fresh = real(1), 1.0, True
            else:
                products_of_rows(polynomial, gram, spare, True)
                products_of_rows(polynomial, spare, gram, True)
        _evaluate(a, b, c, gram, polynomial)
        if fresh:
            for i in range(p):
                for j in range(p):
                    product[i, j] = polynomial[i, j]
        else:
            products_of_rows(polynomial, product, spare, True)
            product, spare = spare, product
        fresh = False
    if wide:
        products_of_rows(product, across, out, False)
    else:
        products_of_rows(across, product, out, False)
    for i in range(out.shape[0]):
        row = out[i]
        for j in range(out.shape[1]):
            row[j] *= by
