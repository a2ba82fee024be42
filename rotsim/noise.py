"""Counter-based normals: each draw is a pure function of (seed, neuron, stream, step, coordinate, dim).

Threefry2x32 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a counter
(pair, step) into two 32-bit words; Box-Muller turns those into two normals, for the coordinates j
and ⌈dim/2⌉ + j of pair j. Nothing is carried between draws, so threads, chunks and resumed runs cannot change a number.

Every function here works on scalars inside a kernel and, called directly, on NumPy arrays: the
twin in `rotsim.simulation.twin` draws the same noise without numba. Where a product and a sum are
rounded once, `fma` says so; the compiler joins no others, so that the bits are the same everywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types
from numba.extending import intrinsic, overload, register_jitable

ROUNDS = 13  # the fewest that pass the BigCrush battery in the Random123 paper; 20 is the conservative default
GRADIENT_STREAM = 0
INITIAL_WEIGHTS_STREAM = 1

_U, _I = np.uint32, np.int32
_PARITY = np.uint32(0x1BD11BDA)
_OPTIONS: Any = {"fastmath": False}


@register_jitable(**_OPTIONS)
def _mix(x0, x1, rotation):  # type: ignore[no-untyped-def]
    x0 = _U(x0 + x1)
    x1 = _U(_U(x1 << _U(rotation)) | _U(x1 >> _U(32 - rotation)))
    return x0, _U(x1 ^ x0)


@register_jitable(**_OPTIONS)
def _inject(x0, x1, k0, k1, count):  # type: ignore[no-untyped-def]
    return _U(x0 + k0), _U(x1 + _U(k1 + _U(count)))


@register_jitable(**_OPTIONS)
def first_rounds(k0, k1, c0, c1):  # type: ignore[no-untyped-def]
    """Rounds 1 to 6 of `threefry2x32`, for a loop that does something else between."""
    k2 = _U(_PARITY ^ k0 ^ k1)
    x0, x1 = _U(c0 + k0), _U(c1 + k1)
    x0, x1 = _mix(x0, x1, 13)
    x0, x1 = _mix(x0, x1, 15)
    x0, x1 = _mix(x0, x1, 26)
    x0, x1 = _mix(x0, x1, 6)
    x0, x1 = _inject(x0, x1, k1, k2, 1)
    x0, x1 = _mix(x0, x1, 17)
    return _mix(x0, x1, 29)


@register_jitable(**_OPTIONS)
def last_rounds(k0, k1, x0, x1):  # type: ignore[no-untyped-def]
    """Rounds 7 to 13, from what `first_rounds` left."""
    k2 = _U(_PARITY ^ k0 ^ k1)
    x0, x1 = _mix(x0, x1, 16)
    x0, x1 = _mix(x0, x1, 24)
    x0, x1 = _inject(x0, x1, k2, k0, 2)
    x0, x1 = _mix(x0, x1, 13)
    x0, x1 = _mix(x0, x1, 15)
    x0, x1 = _mix(x0, x1, 26)
    x0, x1 = _mix(x0, x1, 6)
    x0, x1 = _inject(x0, x1, k0, k1, 3)
    return _mix(x0, x1, 17)


@register_jitable(**_OPTIONS)
def threefry2x32(k0, k1, c0, c1):  # type: ignore[no-untyped-def]
    """Threefry2x32 with 13 rounds: key (k0, k1), counter (c0, c1), all uint32 -> two uint32 words."""
    x0, x1 = first_rounds(k0, k1, c0, c1)
    return last_rounds(k0, k1, x0, x1)


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


@intrinsic
def _fma(typing_context, a, b, c):  # type: ignore[no-untyped-def]
    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.fma(*args)

    return types.float32(types.float32, types.float32, types.float32), generate


@overload(fma, inline="always", jit_options=_OPTIONS)
def _fma_in_kernel(a, b, c):  # type: ignore[no-untyped-def]
    return lambda a, b, c: _fma(a, b, c)


# Chebyshev interpolants in float32, relative error of the polynomial below 2.2e-7:
# log(1+f)/f on [sqrt(1/2)-1, sqrt(2)-1], sin(y)/y and cos(y) in y² on [0, (pi/4)²].
_LOG = tuple(
    np.float32(c)
    for c in (
        9.999999404e-01,
        -5.000037551e-01,
        3.333460689e-01,
        -2.496890724e-01,
        1.991334856e-01,
        -1.727820635e-01,
        1.612624824e-01,
        -9.895350784e-02,
    )
)
_MINUS_2_LOG = tuple(np.float32(-2.0) * c for c in _LOG)
_SIN = tuple(np.float32(c) for c in (1.0, -1.666665077e-01, 8.332035504e-03, -1.950390433e-04))
_COS = tuple(np.float32(c) for c in (1.0, -4.999985695e-01, 4.165501520e-02, -1.358577982e-03))
_MINUS_2_LOG_2 = np.float32(-2.0 * np.log(2.0))
_RADIANS = np.float32(np.pi / 4 / 2**31)
_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_SQRT_HALF_BITS = np.int32(0x3F3504F3)
_SHIFT_BITS = np.int32(0x3F3504F3 + (31 << 23))  # of √½·2³¹
_MANTISSA = np.int32(0x007FFFFF)
_SIGN = np.uint32(0x80000000)


@register_jitable(**_OPTIONS)
def _bits(x):  # type: ignore[no-untyped-def]
    return np.float32(x).view(np.int32)


@register_jitable(**_OPTIONS)
def _float(bits):  # type: ignore[no-untyped-def]
    return np.int32(bits).view(np.float32)


@register_jitable(**_OPTIONS)
def _minus_2_log(x):  # type: ignore[no-untyped-def]
    """-2·log(x·2⁻³¹) of a positive normal float32, split as x·2⁻³¹ = 2^k (1 + f) with 1 + f in [√½, √2)."""
    shifted = _I(_bits(x) - _SHIFT_BITS)
    k = np.float32(_I(shifted >> _I(23)))
    f = _float(_I(shifted & _MANTISSA) + _SQRT_HALF_BITS) - _ONE
    p = fma(f, _MINUS_2_LOG[7], _MINUS_2_LOG[6])
    p = fma(f, p, _MINUS_2_LOG[5])
    p = fma(f, p, _MINUS_2_LOG[4])
    p = fma(f, p, _MINUS_2_LOG[3])
    p = fma(f, p, _MINUS_2_LOG[2])
    p = fma(f, p, _MINUS_2_LOG[1])
    p = fma(f, p, _MINUS_2_LOG[0])
    return fma(f, p, k * _MINUS_2_LOG_2)


@register_jitable(**_OPTIONS)
def box_muller(x0, x1):  # type: ignore[no-untyped-def]
    """Two independent standard normals (float32) from two uniform 32-bit words.

    The radius uses 31 bits, (k + ½)·2⁻³¹, so |z| reaches 6.6 standard deviations. The angle is
    uniform in [-π/4, π/4) by 30 bits; the other two swap cosine and sine and turn the cosine's
    sign, which spreads it over the circle.
    """
    radius = np.sqrt(_minus_2_log(np.float32(_I(_U(x0 >> _U(1)))) + _HALF))
    y = np.float32(_I(_U(x1 << _U(2)))) * _RADIANS
    q = y * y
    sine = _bits(y * fma(q, fma(q, fma(q, _SIN[3], _SIN[2]), _SIN[1]), _SIN[0]))
    cosine = _bits(fma(q, fma(q, fma(q, _COS[3], _COS[2]), _COS[1]), _COS[0]))
    cosine = _I(cosine ^ _I(_U(x1 & _SIGN)))
    swap = _I(_I(sine ^ cosine) & _I(_I(_U(x1 << _U(1))) >> _I(31)))  # xor swap: all bits or none
    return radius * _float(cosine ^ swap), radius * _float(sine ^ swap)


@register_jitable(**_OPTIONS, inline="always")
def draw_words(words, key0, key1, step):  # type: ignore[no-untyped-def]
    """Fill words (2, pairs), uint32, with those of one neuron at one step."""
    x0, x1 = words[0], words[1]
    for j in range(x0.size):
        x0[j], x1[j] = threefry2x32(key0, key1, _U(j), _U(step))


@register_jitable(**_OPTIONS, inline="always")
def fill_normals(z, words):  # type: ignore[no-untyped-def]
    """Turn words (2, pairs) into the normals z (2·pairs,); coordinates j and pairs + j share a counter.

    Words and normals in two loops, not one: each chain of dependent instructions is then short
    enough for the processor to overlap several.
    """
    x0, x1 = words[0], words[1]
    near, far = z[: x0.size], z[x0.size :]
    for j in range(x0.size):
        near[j], far[j] = box_muller(x0[j], x1[j])


@register_jitable(**_OPTIONS, inline="always")
def draw_normals(z, key0, key1, step):  # type: ignore[no-untyped-def]
    """Fill z (even length) with the normals of one neuron at one step, without words drawn before."""
    near, far = z[: z.size // 2], z[z.size // 2 :]
    for j in range(near.size):
        x0, x1 = threefry2x32(key0, key1, _U(j), _U(step))
        near[j], far[j] = box_muller(x0, x1)


@register_jitable(**_OPTIONS)
def _uniform(word):  # type: ignore[no-untyped-def]
    return (np.float64(word) + 0.5) * 2.0**-32


@register_jitable(**_OPTIONS)
def chi_squared(freedom, key0, key1, step):  # type: ignore[no-untyped-def]
    """Chi-square variate with ``freedom`` >= 0 degrees of freedom from counters (1, step), (2, step), ...

    Rejection after Marsaglia and Tsang (2000), exact for every freedom >= 2: half a chi-square is
    a gamma variate of shape freedom/2.
    """
    if freedom == 0:
        return 0.0
    if freedom == 1:
        x0, x1 = threefry2x32(key0, key1, _U(1), _U(step))
        x, _ = box_muller(x0, x1)
        return np.float64(x) * np.float64(x)
    d = 0.5 * freedom - 1.0 / 3.0
    c = 1.0 / np.sqrt(9.0 * d)
    counter = 1
    while True:
        x0, x1 = threefry2x32(key0, key1, _U(counter), _U(step))
        normal, _ = box_muller(x0, x1)
        word, _ = threefry2x32(key0, key1, _U(counter + 1), _U(step))
        counter += 2
        x = np.float64(normal)
        y = c * x
        if y <= -1.0:
            continue
        excess = y * (3.0 + y * (3.0 + y))  # (1 + y)³ - 1, without cancellation where d is large
        if np.log(_uniform(word)) < 0.5 * x * x + d * (3.0 * np.log1p(y) - excess):
            return 2.0 * d * (1.0 + excess)


@register_jitable(**_OPTIONS)
def components(freedom, key0, key1, step):  # type: ignore[no-untyped-def]
    """Of freedom + 2 normals: those along two given directions, and the length of the rest, float64."""
    x0, x1 = threefry2x32(key0, key1, _U(0), _U(step))
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
    pair = np.arange((dim + 1) // 2, dtype=np.uint32)
    step_word = np.full_like(pair, step)
    x0, x1 = threefry2x32(keys[:, :1], keys[:, 1:], pair, step_word)
    return np.concatenate(box_muller(x0, x1), axis=1)[:, :dim]


def neuron_keys(seed: int, neurons: int, stream: int) -> np.ndarray:
    """One 64-bit key per neuron and stream, hashed from the seed; uint32, shape (neurons, 2)."""
    neuron = np.arange(neurons, dtype=np.uint32)
    low, high = np.full_like(neuron, seed & 0xFFFFFFFF), np.full_like(neuron, seed >> 32)
    return np.stack(threefry2x32(low, high, neuron, np.full_like(neuron, stream)), axis=-1)
