"""Counter-based normals: each draw is a pure function of (seed, neuron, stream, step, coordinate, dim).

Threefry4x32 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a counter (j, step)
into four 32-bit words, two each for the pairs j and ⌈dim/4⌉ + j, in 12 rounds: the fewest that passed the
BigCrush battery there; 20 are the conservative default. Box-Muller turns the words of pair p into two
normals, for the coordinates p and ⌈dim/2⌉ + p. Nothing is carried between draws, so threads, chunks and
resumed runs cannot change a number.

Every function here works on scalars inside a kernel and, called directly, on NumPy arrays: the
twin in `rotsim.simulation.engines.readable` draws the same noise without numba. Where a product and a sum are
rounded once, `fma` says so; the compiler joins no others, so that the bits are the same everywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from rotsim.compiled import kernel_part

GRADIENT_STREAM = 0
INITIAL_WEIGHTS_STREAM = 1

_U, _I = np.uint32, np.int32
_PARITY = np.uint32(0x1BD11BDA)
_OPTIONS: Any = {"fastmath": False}


@kernel_part(**_OPTIONS)
def _mix(x, y, rotation):  # type: ignore[no-untyped-def]
    x = _U(x + y)
    y = _U(_U(y << _U(rotation)) | _U(y >> _U(32 - rotation)))
    return x, _U(y ^ x)


@kernel_part(**_OPTIONS)
def _two_rounds(x0, x1, x2, x3, r0, r1, r2, r3):  # type: ignore[no-untyped-def]
    x0, x1 = _mix(x0, x1, r0)
    x2, x3 = _mix(x2, x3, r1)
    x0, x3 = _mix(x0, x3, r2)
    x2, x1 = _mix(x2, x1, r3)
    return x0, x1, x2, x3


@kernel_part(**_OPTIONS)
def first_rounds(k0, k1, c0, c1):  # type: ignore[no-untyped-def]
    """Rounds 1 to 4 of `threefry4x32` and the key's second injection."""
    x0, x1, x2, x3 = _U(c0 + k0), _U(c1 + k1), _U(0), _U(0)
    x0, x1, x2, x3 = _two_rounds(x0, x1, x2, x3, 10, 26, 11, 21)
    x0, x1, x2, x3 = _two_rounds(x0, x1, x2, x3, 13, 27, 23, 5)
    return _U(x0 + k1), x1, x2, _U(x3 + _U(_U(_PARITY ^ k0 ^ k1) + _U(1)))


@kernel_part(**_OPTIONS)
def middle_rounds(k0, k1, x0, x1, x2, x3):  # type: ignore[no-untyped-def]
    """Rounds 5 to 8 and the third injection."""
    x0, x1, x2, x3 = _two_rounds(x0, x1, x2, x3, 6, 20, 17, 11)
    x0, x1, x2, x3 = _two_rounds(x0, x1, x2, x3, 25, 10, 18, 20)
    return x0, x1, _U(x2 + _U(_PARITY ^ k0 ^ k1)), _U(x3 + _U(k0 + _U(2)))


@kernel_part(**_OPTIONS)
def last_rounds(k0, k1, x0, x1, x2, x3):  # type: ignore[no-untyped-def]
    """Rounds 9 to 12 and the last injection."""
    x0, x1, x2, x3 = _two_rounds(x0, x1, x2, x3, 10, 26, 11, 21)
    x0, x1, x2, x3 = _two_rounds(x0, x1, x2, x3, 13, 27, 23, 5)
    return x0, _U(x1 + _U(_PARITY ^ k0 ^ k1)), _U(x2 + k0), _U(x3 + _U(k1 + _U(3)))


@kernel_part(**_OPTIONS)
def threefry4x32(k0, k1, c0, c1):  # type: ignore[no-untyped-def]
    """Threefry4x32 with 12 rounds: key (k0, k1, 0, 0), counter (c0, c1, 0, 0), all uint32 -> four uint32 words."""
    x0, x1, x2, x3 = first_rounds(k0, k1, c0, c1)
    x0, x1, x2, x3 = middle_rounds(k0, k1, x0, x1, x2, x3)
    return last_rounds(k0, k1, x0, x1, x2, x3)


@kernel_part(**_OPTIONS, inline="always")
def fma(a, b, c):  # type: ignore[no-untyped-def]
    """a·b + c of float32 with one rounding: an instruction in a kernel, and here the same bits from double precision.

    The product of two float32 is exact in float64. Rounding its sum with c again, to float32, goes wrong only where
    the sum lies halfway between two float32 and its own rounding error tells which one is nearer; it is then moved
    one float64 towards the exact value. (For results that are normal numbers of float32.)
    """
    product, c = np.multiply(a, b, dtype=np.float64), np.asarray(c, np.float64)
    total = np.asarray(product + c)
    halfway = total.view(np.int64) & 0x1FFFFFFF == 0x10000000
    if halfway.any():
        share = total - product
        error = (product - (total - share)) + (c - share)  # Knuth's two-sum: exact
        total = np.where(halfway & (error != 0), np.nextafter(total, np.copysign(np.inf, error)), total)
    return total.astype(np.float32)[()]


# Minimax polynomials: log(1+f)/f on [√½ - 1, √2 - 1] and sin(y)/y, in y² on [0, (π/2)²], to a relative 1.1e-6 and 9e-7,
# cos(y) in y² to 5e-8. The errors oscillate: E[z²] is right to 1e-7.
_LOG = tuple(
    np.float32(c)
    for c in (
        9.999999999e-01,
        -5.000084639e-01,
        3.331921995e-01,
        -2.491906136e-01,
        2.044911981e-01,
        -1.858761460e-01,
        1.194944754e-01,
    )
)
_MINUS_2_LOG = tuple(np.float32(-2.0) * c for c in _LOG)
_SIN = tuple(np.float32(c) for c in (9.999990463e-01, -1.666555405e-01, 8.311899379e-03, -1.848813990e-04))
_COS = tuple(
    np.float32(c) for c in (9.999999404e-01, -4.999990463e-01, 4.166358337e-02, -1.385370386e-03, 2.315393249e-05)
)
_MINUS_2_LOG_2 = np.float32(-2.0 * np.log(2.0))
_RADIANS = np.float32(np.pi / 2**32)
_ONE = np.float32(1.0)
_SQRT_HALF_BITS = np.int32(0x3F3504F3)
_SHIFT_BITS = np.int32(0x3F3504F3 + (31 << 23))  # of √½·2³¹
_MANTISSA = np.int32(0x007FFFFF)
_SIGN, _ODD, _NOT_SIGN = np.uint32(0x80000000), np.uint32(1), np.uint32(0x7FFFFFFF)


@kernel_part(**_OPTIONS)
def _bits(x):  # type: ignore[no-untyped-def]
    return np.float32(x).view(np.int32)


@kernel_part(**_OPTIONS)
def _float(bits):  # type: ignore[no-untyped-def]
    return np.int32(bits).view(np.float32)


@kernel_part(**_OPTIONS)
def _minus_2_log(x):  # type: ignore[no-untyped-def]
    """-2·log(x·2⁻³¹) of a positive normal float32, split as x·2⁻³¹ = 2^k (1 + f) with 1 + f in [√½, √2)."""
    shifted = _I(_bits(x) - _SHIFT_BITS)
    k = np.float32(_I(shifted >> _I(23)))
    f = _float(_I(shifted & _MANTISSA) + _SQRT_HALF_BITS) - _ONE
    p = fma(f, _MINUS_2_LOG[6], _MINUS_2_LOG[5])
    p = fma(f, p, _MINUS_2_LOG[4])
    p = fma(f, p, _MINUS_2_LOG[3])
    p = fma(f, p, _MINUS_2_LOG[2])
    p = fma(f, p, _MINUS_2_LOG[1])
    p = fma(f, p, _MINUS_2_LOG[0])
    return fma(f, p, k * _MINUS_2_LOG_2)


@kernel_part(**_OPTIONS)
def box_muller(x0, x1):  # type: ignore[no-untyped-def]
    """Two independent standard normals (float32) from two uniform 32-bit words.

    The radius is of 31 bits of the first word, (2k + 1)·2⁻³¹, so |z| reaches 6.6 standard deviations. The
    second word is an angle in [-π/2, π/2); the radius' sign, the bit left over, spreads it over the circle.
    """
    radius = np.sqrt(_minus_2_log(np.float32(_I(_U(_U(x0 & _NOT_SIGN) | _ODD)))))
    radius = _float(_I(_bits(radius) ^ _I(_U(x0 & _SIGN))))
    y = np.float32(_I(x1)) * _RADIANS
    q = y * y
    sine = fma(q, fma(q, fma(q, _SIN[3], _SIN[2]), _SIN[1]), _SIN[0])
    cosine = fma(q, fma(q, fma(q, fma(q, _COS[4], _COS[3]), _COS[2]), _COS[1]), _COS[0])
    return radius * cosine, radius * y * sine


@kernel_part(**_OPTIONS)
def counters(dim):  # type: ignore[no-untyped-def]
    """How many counters the normals of one neuron take in one step."""
    return (dim + 3) // 4


@kernel_part(**_OPTIONS, inline="always")
def draw_words(words, count, key0, key1, step):  # type: ignore[no-untyped-def]
    """Fill words (2, ≥ 2·count), uint32, from so many counters of one neuron at one step: a column for each pair."""
    for j in range(count):
        x0, x1, x2, x3 = threefry4x32(key0, key1, _U(j), _U(step))
        words[0, j], words[1, j], words[0, count + j], words[1, count + j] = x0, x1, x2, x3


@kernel_part(**_OPTIONS, inline="always")
def fill_normals(z, words):  # type: ignore[no-untyped-def]
    """Turn words (2, ≥ pairs) into the normals z (2·pairs,).

    Words and normals in two loops, not one: each chain of dependent instructions is then short
    enough for the processor to overlap several.
    """
    x0, x1 = words[0], words[1]
    pairs = z.size // 2
    near, far = z[:pairs], z[pairs:]
    for j in range(pairs):
        near[j], far[j] = box_muller(x0[j], x1[j])


@kernel_part(**_OPTIONS, inline="always")
def draw_normals(z, key0, key1, step):  # type: ignore[no-untyped-def]
    """Fill z (even length) with the normals of one neuron at one step, without words drawn before."""
    pairs = z.size // 2
    count = counters(z.size)
    for j in range(count):
        x0, x1, x2, x3 = threefry4x32(key0, key1, _U(j), _U(step))
        z[j], z[pairs + j] = box_muller(x0, x1)
        if count + j < pairs:
            z[count + j], z[pairs + count + j] = box_muller(x2, x3)


@kernel_part(**_OPTIONS)
def _uniform(word):  # type: ignore[no-untyped-def]
    return (np.float64(word) + 0.5) * 2.0**-32


@kernel_part(**_OPTIONS)
def chi_squared(freedom, key0, key1, step):  # type: ignore[no-untyped-def]
    """Chi-square variate with ``freedom`` >= 0 degrees of freedom from counters (1, step), (2, step), ...

    Rejection after Marsaglia and Tsang (2000), exact for every freedom >= 2: half a chi-square is
    a gamma variate of shape freedom/2.
    """
    if freedom == 0:
        return 0.0
    if freedom == 1:
        x0, x1, _, _ = threefry4x32(key0, key1, _U(1), _U(step))
        x, _ = box_muller(x0, x1)
        return np.float64(x) * np.float64(x)
    d = 0.5 * freedom - 1.0 / 3.0
    c = 1.0 / np.sqrt(9.0 * d)
    counter = 1
    while True:
        x0, x1, word, _ = threefry4x32(key0, key1, _U(counter), _U(step))
        normal, _ = box_muller(x0, x1)
        counter += 1
        x = np.float64(normal)
        y = c * x
        if y <= -1.0:
            continue
        excess = y * (3.0 + y * (3.0 + y))  # (1 + y)³ - 1, without cancellation where d is large
        if np.log(_uniform(word)) < 0.5 * x * x + d * (3.0 * np.log1p(y) - excess):
            return 2.0 * d * (1.0 + excess)


@kernel_part(**_OPTIONS)
def components(freedom, key0, key1, step):  # type: ignore[no-untyped-def]
    """Of freedom + 2 normals: those along two given directions, and the length of the rest, float64."""
    x0, x1, _, _ = threefry4x32(key0, key1, _U(0), _U(step))
    z1, z2 = box_muller(x0, x1)
    return np.float64(z1), np.float64(z2), np.sqrt(chi_squared(freedom, key0, key1, step))


def normals(keys: np.ndarray, step: int, dim: int) -> np.ndarray:
    """The same normals without numba, shape (neurons, dim), float32.

    Parameters
    ----------
    keys : ndarray of uint32, shape (neurons, 2)
        From `neuron_keys`.
    step : int
        Step counted from 1.
    dim : int
        Number of coordinates.
    """
    counter = np.arange(counters(dim), dtype=np.uint32)
    x0, x1, x2, x3 = threefry4x32(keys[:, :1], keys[:, 1:], counter, np.full_like(counter, step))
    pairs = (dim + 1) // 2
    words = np.concatenate([x0, x2], axis=1)[:, :pairs], np.concatenate([x1, x3], axis=1)[:, :pairs]
    return np.concatenate(box_muller(*words), axis=1)[:, :dim]


def neuron_keys(seed: int, neurons: int, stream: int) -> np.ndarray:
    """One 64-bit key per neuron and stream, hashed from the seed; uint32, shape (neurons, 2)."""
    neuron = np.arange(neurons, dtype=np.uint32)
    low, high = np.full_like(neuron, seed & 0xFFFFFFFF), np.full_like(neuron, seed >> 32)
    return np.stack(threefry4x32(low, high, neuron, np.full_like(neuron, stream))[:2], axis=-1)
