"""Counter-based normals: each draw is a pure function of (seed, neuron, stream, step, coordinate, dim).

ChaCha's quarter round (RFC 8439), four times, turns a key and a counter (j, step) into four 32-bit words. Two of
its four rotations move whole bytes: one instruction on processors that cannot rotate vectors. Word k of counter j is
word p = k·n + j of the neuron, which has n counters. Box-Muller turns it into two normals, for the coordinates p and
4n + p. Nothing is carried between draws, so threads, chunks and resumed runs cannot change a number.

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
_KEY = np.uint32(0x61707865), np.uint32(0x3320646E)  # "expa", "nd 3" as in ChaCha: zeros would stay zeros
_OPTIONS: Any = {"fastmath": False}


@kernel_part(**_OPTIONS)
def _half_round(a, b, c, d, turn_d, turn_b):  # type: ignore[no-untyped-def]
    a = _U(a + b)
    d = _U(d ^ a)
    d = _U(_U(d << _U(turn_d)) | _U(d >> _U(32 - turn_d)))
    c = _U(c + d)
    b = _U(b ^ c)
    b = _U(_U(b << _U(turn_b)) | _U(b >> _U(32 - turn_b)))
    return a, b, c, d


@kernel_part(**_OPTIONS)
def begin(key0, key1, counter, step):  # type: ignore[no-untyped-def]
    """What `random_words` starts from: key and counter, in four uint32."""
    return _U(key0 ^ _KEY[0]), _U(key1 ^ _KEY[1]), _U(counter), _U(step)


@kernel_part(**_OPTIONS)
def first_half(x):  # type: ignore[no-untyped-def]
    """The first half of ChaCha's quarter round, on four uint32."""
    return _half_round(x[0], x[1], x[2], x[3], 16, 12)


@kernel_part(**_OPTIONS)
def second_half(x):  # type: ignore[no-untyped-def]
    """The second half of ChaCha's quarter round."""
    return _half_round(x[0], x[1], x[2], x[3], 8, 7)


@kernel_part(**_OPTIONS)
def random_words(key0, key1, counter, step):  # type: ignore[no-untyped-def]
    """Four uint32 words from a key and a counter of two uint32 each: ChaCha's quarter round, four times."""
    x = begin(key0, key1, counter, step)
    x = second_half(first_half(x))
    x = second_half(first_half(x))
    x = second_half(first_half(x))
    return second_half(first_half(x))


@kernel_part(**_OPTIONS, inline="always")
def fma(a, b, c):  # type: ignore[no-untyped-def]
    """a·b + c of float32 with one rounding: an instruction in a kernel, and here the same bits from double precision.

    The product of two float32 is exact in float64. Its sum with c is rounded again, to float32. That goes wrong only
    where the sum lies halfway between two float32, and its own rounding error tells which one is nearer. It is then
    moved one float64 towards the exact value. (For results that are normal numbers of float32.)
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
_SIN = tuple(np.float32(c) for c in (9.999990463e-01, -1.666555405e-01, 8.311899379e-03, -1.848813990e-04))
_COS = tuple(
    np.float32(c) for c in (9.999999404e-01, -4.999990463e-01, 4.166358337e-02, -1.385370386e-03, 2.315393249e-05)
)
#: Of the normals. Kernels get them as an argument: a known constant LLVM loads and spreads over a vector anew at each
#: use, where registers are few, a sixth of all instructions. A variable waits as a whole vector.
CONSTANTS = (
    *(np.float32(-2.0) * c for c in _LOG),
    *_SIN,
    *_COS,
    np.float32(-2.0 * np.log(2.0)),
    np.float32(np.pi / 2**32),  # radians
)
_ONE = np.float32(1.0)
_SQRT_HALF_BITS = np.int32(0x3F3504F3)
_SHIFT_BITS = np.int32(0x3F3504F3 + (31 << 23))  # of √½·2³¹
_MANTISSA = np.int32(0x007FFFFF)
_GOLDEN = np.uint32(0x9E3779B1)  # 2³² over the golden ratio, odd
_SIGN, _ODD, _NOT_SIGN = np.uint32(0x80000000), np.uint32(1), np.uint32(0x7FFFFFFF)


@kernel_part(**_OPTIONS)
def _bits(x):  # type: ignore[no-untyped-def]
    return np.float32(x).view(np.int32)


@kernel_part(**_OPTIONS)
def _float(bits):  # type: ignore[no-untyped-def]
    return np.int32(bits).view(np.float32)


@kernel_part(**_OPTIONS)
def _minus_2_log(x, c):  # type: ignore[no-untyped-def]
    """-2·log(x·2⁻³¹) of a positive normal float32, split as x·2⁻³¹ = 2^k (1 + f) with 1 + f in [√½, √2)."""
    shifted = _I(_bits(x) - _SHIFT_BITS)
    k = np.float32(_I(shifted >> _I(23)))
    f = _float(_I(shifted & _MANTISSA) + _SQRT_HALF_BITS) - _ONE
    p = fma(f, c[6], c[5])
    p = fma(f, p, c[4])
    p = fma(f, p, c[3])
    p = fma(f, p, c[2])
    p = fma(f, p, c[1])
    p = fma(f, p, c[0])
    return fma(f, p, k * c[16])


@kernel_part(**_OPTIONS)
def pair_of_normals(word, c):  # type: ignore[no-untyped-def]
    """`box_muller` with its constants as an argument."""
    radius = np.sqrt(_minus_2_log(np.float32(_I(_U(_U(word & _NOT_SIGN) | _ODD))), c))
    radius = _float(_I(_bits(radius) ^ _I(_U(word & _SIGN))))
    y = np.float32(_I(_U(word * _GOLDEN))) * c[17]
    q = y * y
    sine = fma(q, fma(q, fma(q, c[10], c[9]), c[8]), c[7])
    cosine = fma(q, fma(q, fma(q, fma(q, c[15], c[14]), c[13]), c[12]), c[11])
    return radius * cosine, radius * y * sine


@kernel_part(**_OPTIONS)
def box_muller(word):  # type: ignore[no-untyped-def]
    """Two independent standard normals (float32) from one uniform 32-bit word.

    The radius is of 31 bits of the word, (2k + 1)·2⁻³¹, so |z| reaches 6.6 standard deviations. The angle in
    [-π/2, π/2) is the word times the golden section, modulo one turn: words that are near get angles as far
    apart as can be. The radius' sign, the word's first bit, spreads it over the circle.
    """
    return pair_of_normals(word, CONSTANTS)


@kernel_part(**_OPTIONS)
def counters(dim):  # type: ignore[no-untyped-def]
    """How many counters the normals of one neuron take in one step: a multiple of eight, so that vectors are full."""
    return (dim + 63) // 64 * 8


@kernel_part(**_OPTIONS)
def places(dim):  # type: ignore[no-untyped-def]
    """Normals that so many counters give, at least dim: a multiple of 64."""
    return 8 * counters(dim)


@kernel_part(**_OPTIONS, inline="always")
def draw_words(words, key0, key1, step):  # type: ignore[no-untyped-def]
    """Fill words (places/2,), uint32, from the counters of one neuron at one step."""
    count = words.size // 4
    x0, x1, x2, x3 = words[:count], words[count : 2 * count], words[2 * count : 3 * count], words[3 * count :]
    for j in range(count):
        x0[j], x1[j], x2[j], x3[j] = random_words(key0, key1, _U(j), _U(step))


@kernel_part(**_OPTIONS, inline="always")
def draw_normals(z, key0, key1, step):  # type: ignore[no-untyped-def]
    """Fill z (a multiple of 64) with the normals of one neuron at one step, without words drawn before."""
    count = z.size // 8
    for j in range(count):
        p = j
        for word in random_words(key0, key1, _U(j), _U(step)):
            z[p], z[4 * count + p] = box_muller(word)
            p += count


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
        x, _ = box_muller(random_words(key0, key1, _U(1), _U(step))[0])
        return np.float64(x) * np.float64(x)
    d = 0.5 * freedom - 1.0 / 3.0
    c = 1.0 / np.sqrt(9.0 * d)
    counter = 1
    while True:
        first, second, _, _ = random_words(key0, key1, _U(counter), _U(step))
        normal, _ = box_muller(first)
        counter += 1
        x = np.float64(normal)
        y = c * x
        if y <= -1.0:
            continue
        excess = y * (3.0 + y * (3.0 + y))  # (1 + y)³ - 1, without cancellation where d is large
        if np.log(_uniform(second)) < 0.5 * x * x + d * (3.0 * np.log1p(y) - excess):
            return 2.0 * d * (1.0 + excess)


@kernel_part(**_OPTIONS)
def components(freedom, key0, key1, step):  # type: ignore[no-untyped-def]
    """Of freedom + 2 normals: those along two given directions, and the length of the rest, float64."""
    z1, z2 = box_muller(random_words(key0, key1, _U(0), _U(step))[0])
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
    words = np.concatenate(random_words(keys[:, :1], keys[:, 1:], counter, np.full_like(counter, step)), axis=1)
    return np.concatenate(box_muller(words), axis=1)[:, :dim]


def neuron_keys(seed: int, neurons: int, stream: int) -> np.ndarray:
    """One 64-bit key per neuron and stream, hashed from the seed; uint32, shape (neurons, 2)."""
    neuron = np.arange(neurons, dtype=np.uint32)
    low, high = np.full_like(neuron, seed & 0xFFFFFFFF), np.full_like(neuron, seed >> 32)
    return np.stack(random_words(low, high, neuron, np.full_like(neuron, stream))[:2], axis=-1)
