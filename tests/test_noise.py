"""The generator: published known answers, the right distribution, independence across every index."""

import os
import platform
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from rotsim import noise
from rotsim.gradients.base import fill_normals
from rotsim.jit import njit
from tests import chance

pytestmark = pytest.mark.machine

U = np.uint32

# RFC 8439, sections 2.1.1 and 2.2.1: ChaCha's quarter round, input and output
KNOWN_ANSWERS = [
    ((0x11111111, 0x01020304, 0x9B8D6F43, 0x01234567), (0xEA2A92F4, 0xCB1CF8CE, 0x4581472E, 0x5881C4BB)),
    ((0x516461B1, 0x2A5F714C, 0x53372767, 0x3D631689), (0xBDB886DC, 0xCFACAFD2, 0xE46BEA80, 0xCCC07C79)),
]
ROUNDS = 4
SOME_WORDS = [(0,) * 4, (2**32 - 1,) * 4, KNOWN_ANSWERS[1][0], (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]


def quarter_round(a, b, c, d):
    """ChaCha's quarter round as section 2.1 of RFC 8439 describes it, on integers or on arrays of uint64."""
    for turn_d, turn_b in ((16, 12), (8, 7)):
        a = (a + b) % 2**32
        d = d ^ a
        d = (d << turn_d | d >> 32 - turn_d) % 2**32
        c = (c + d) % 2**32
        b = b ^ c
        b = (b << turn_b | b >> 32 - turn_b) % 2**32
    return a, b, c, d


def reference(rounds, key, counter):
    """So many quarter rounds of a key, made different from zero by two of ChaCha's constants, and a counter."""
    expand, and_3 = (int.from_bytes(text, "little") for text in (b"expa", b"nd 3"))
    x = key[0] ^ expand, key[1] ^ and_3, *counter
    for _ in range(rounds):
        x = quarter_round(*x)
    return x


@njit
def words_scalar(key0, key1, counter, step):
    return noise.random_words(key0, key1, counter, step)


@njit
def fma_scalar(a, b, c):
    return noise.fma(a, b, c)


@njit
def fill(z, constants, key0, key1, step):
    words = np.empty(z.size // 2, np.uint32)
    noise.draw_words(words, key0, key1, step)
    fill_normals(z, (words, constants))


@njit
def draw(z, constants, key0, key1, step):
    noise.draw_normals(z, key0, key1, step)


def drawn(dim, seed=0, neuron=0, step=1, stream=noise.GRADIENT_STREAM):
    keys = noise.neuron_keys(seed, neuron + 1, stream)[neuron:]
    return noise.normals(keys, step, dim)[0].astype(np.float64)


@pytest.mark.parametrize(("before", "after"), KNOWN_ANSWERS)
def test_known_answers(before, after):
    assert quarter_round(*before) == after


@pytest.mark.parametrize("words", SOME_WORDS)
def test_the_generator_is_chachas_quarter_round_four_times(words):
    answer = reference(ROUNDS, words[:2], words[2:])
    assert reference(ROUNDS - 1, words[:2], words[2:]) != answer
    words = [U(x) for x in words]
    assert words_scalar(*words) == answer
    assert tuple(int(x[0]) for x in noise.random_words(*(np.array([x]) for x in words))) == answer


def flips(rounds, bit, draws=20_000):
    """How often each of the 128 output bits flips with one input bit, in standard errors off one half."""
    x = np.random.default_rng(bit).integers(0, 2**32, (4, draws), dtype=np.uint64)
    y = x.copy()
    y[bit // 32] ^= np.uint64(1 << bit % 32)
    for _ in range(rounds):
        x, y = quarter_round(*x), quarter_round(*y)
    flipped = np.array(x) ^ np.array(y)
    share = [(flipped >> np.uint64(k) & np.uint64(1)).mean(axis=1) for k in range(32)]
    return (np.array(share) - 0.5) * 2 * np.sqrt(draws)


def test_every_input_bit_flips_every_output_bit_half_of_the_time():
    """After three rounds, one fewer than are used; two are not enough."""
    found = np.array([flips(ROUNDS - 1, bit) for bit in range(128)])
    assert np.abs(found).max() < chance.errors(None, found.size)
    assert abs((found**2).mean() - 1) < chance.errors() * np.sqrt(2 / found.size)
    assert np.abs(flips(ROUNDS - 2, 64)).max() > 50


COUNTERS, MANY_STEPS = 32, 1024


def words_of_a_walk(rounds):
    """All words of one neuron's walk, shape (steps, 4, counters), from so many rounds."""
    key = [int(word) for word in noise.neuron_keys(0, 1, noise.GRADIENT_STREAM)[0]]
    counter, step = np.arange(COUNTERS, dtype=np.uint64), np.arange(1, MANY_STEPS + 1, dtype=np.uint64)[:, None]
    counter, step = np.broadcast_arrays(counter, step)
    found = reference(rounds, [np.full_like(counter, word) for word in key], (counter, step))
    return np.stack(found, axis=1)


def most_standard_errors(words):
    """Largest departure of the bits of a walk: of their means, and of their agreement with neighbours of all kinds."""
    worst, count = 0.0, 0
    one = np.uint64(1)
    pairs = [
        (words, np.zeros_like(words)),
        (words[1:], words[:-1]),  # the next step
        (words[:, :, 1:], words[:, :, :-1]),  # the next counter
        (words[:, 1:], words[:, :-1]),  # another word of the same counter
        (words[1:, :, 1:], words[:-1, :, :-1]),
        (words[32:], words[:-32]),
    ]
    for a, b in pairs:
        for turn in (0, 7, 8, 12):  # bits that a rotation could have brought there
            other = (b << np.uint64(turn) | b >> np.uint64(32 - turn)) % 2**32
            for k in range(32):
                agree = ((a ^ other) >> np.uint64(k) & one).mean(axis=(0, 2))
                worst = max(worst, float(np.abs(agree - 0.5).max() * 2 * np.sqrt(a.size / a.shape[1])))
                count += a.shape[1]
    return worst, count


def test_the_bits_of_a_walk_are_independent():
    """With the keys and counters that a walk uses, nearly all of whose bits are zero; too few rounds are noticed."""
    worst, count = most_standard_errors(words_of_a_walk(ROUNDS))
    assert worst < chance.errors(None, count)
    assert most_standard_errors(words_of_a_walk(ROUNDS - 2))[0] > 20


@pytest.mark.few(2)
@pytest.mark.parametrize("dim", [10_048, 64])
@pytest.mark.parametrize("kernel", [fill, draw])
def test_kernel_and_numpy_draw_the_same_bits(kernel, dim):
    z = np.empty(dim, np.float32)
    key = noise.neuron_keys(2**63 + 5, 3, 0)[2]
    kernel(z, noise.CONSTANTS, key[0], key[1], 77)
    assert np.array_equal(z, noise.normals(key[None], 77, z.size)[0])


@pytest.mark.parametrize("dim", [1, 63, 64, 65, 1000])
def test_places_are_the_least_multiple_of_64(dim):
    assert noise.places(dim) % 64 == 0
    assert dim <= noise.places(dim) < dim + 64
    assert drawn(dim).shape == (dim,)
    assert np.array_equal(drawn(dim), drawn(noise.places(dim))[:dim])


def polar(word):
    """Radius, with a sign, and angle that `box_muller` takes from a word, in double precision."""
    radius = np.sqrt(-2 * np.log((word % 2**31 | 1) * 2.0**-31)) * np.where(word >> 31, -1, 1)
    return radius, (word.astype(np.uint64) * 0x9E3779B1 % 2**32).astype(np.uint32).view(np.int32) * (np.pi / 2**32)


def test_normals_match_box_muller_in_double_precision():
    word = np.random.default_rng(1).integers(0, 2**32, 200_000, dtype=np.uint32)
    word[:6] = [0, 1, 2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1]
    near, far = noise.box_muller(word)
    radius, angle = polar(word)
    for got, expected in ((near, radius * np.cos(angle)), (far, radius * np.sin(angle))):
        # the polynomials' error, and 2^-24 of the uniform, which moves a small radius most: |dr| = 2^-24 / r
        assert (np.abs(got - expected) < 1.7e-6 * np.abs(radius) + 6e-8 / np.abs(radius)).all()
        assert abs((got.astype(np.float64) ** 2 - expected**2).mean()) < 2e-7  # of E[z²] = 1
    assert np.abs(radius).max() == pytest.approx(6.56, abs=0.01)


@pytest.mark.parametrize("zeros", [0, 4, 8, 12, 16, 20, 24])
def test_one_word_spreads_the_angles_of_every_radius(zeros):
    """All words whose radius is beyond a bound, or evenly spaced ones: directions fill the circle evenly."""
    stride = 2 ** max(0, 11 - zeros) + 1  # odd
    small = np.arange(0, 2 ** (31 - zeros), stride, dtype=np.uint32)
    word = np.concatenate([small, small | np.uint32(2**31)])
    radius, angle = polar(word)
    assert np.abs(radius).min() >= np.sqrt(2 * zeros * np.log(2))
    direction = np.sign(radius) * np.exp(1j * angle)
    for power in (1, 2, 3, 4):
        assert abs((direction**power).mean()) < 0.25 / np.sqrt(word.size), power
    near = np.sort(np.angle(direction)) / (2 * np.pi) + 0.5
    assert np.abs(near - (np.arange(word.size) + 0.5) / word.size).max() < 0.4 / np.sqrt(word.size)


def test_the_two_normals_of_a_word_are_independent():
    """Of every 1025th word: mixed moments are nearer to theirs than those of random words; a plain angle is noticed."""
    word = np.arange(0, 2**32, 1025, dtype=np.uint32)
    near, far = (z.astype(np.float64) for z in noise.box_muller(word))
    k = 1 / np.sqrt(word.size)
    for p, q in ((1, 1), (2, 1), (1, 2), (2, 2), (3, 1), (1, 3), (4, 2), (2, 4)):
        exact = [float(stats.norm.moment(2 * n)) for n in (p, q)]
        expected = 1.0 if (p, q) == (2, 2) else 3.0 if p % 2 == q % 2 == 0 else 0.0
        size = np.sqrt(exact[0] * exact[1] - expected**2)
        assert abs((near**p * far**q).mean() - expected) < 0.3 * k * size, (p, q)
    radius, _ = polar(word)
    plain = word.view(np.int32) * (np.pi / 2**32)  # the word itself for an angle
    near, far = radius * np.cos(plain), radius * np.sin(plain)
    assert abs((near**2 * far**2).mean() - 1) > 0.1


def test_fma_rounds_once():
    """Against exact fractions, on random numbers and where the float64 sum is halfway between two float32."""
    rng = np.random.default_rng(2)
    random = rng.standard_normal((3, 300)) * 2.0 ** rng.integers(-12, 13, (3, 300))
    x = 1 + 2.0**-12
    halves = np.array([(x, x, sign * 2.0**-e) for sign in (1, -1) for e in range(26, 60)]).T
    a, b, c = np.concatenate([random, halves], axis=1).astype(np.float32)
    exact = [Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z)) for x, y, z in zip(a, b, c, strict=True)]

    def error(result):
        return [abs(Fraction(float(r)) - e) for r, e in zip(result, exact, strict=True)]

    emulated, compiled = noise.fma(a, b, c), np.array([fma_scalar(*row) for row in zip(a, b, c, strict=True)])
    assert emulated.dtype == np.float32
    assert np.array_equal(emulated, compiled)
    for step in (-np.inf, np.inf):  # no neighbour is nearer
        assert all(
            here <= there for here, there in zip(error(emulated), error(np.nextafter(emulated, step)), strict=True)
        )
    twice = (a.astype(np.float64) * b + c).astype(np.float32)
    assert (twice != emulated).any()  # rounding twice would not do
    assert (a * b + c != emulated).any()


def test_distribution():
    z = drawn(2_000_000, seed=3)
    n, k = z.size, chance.errors(None, 8)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs((z**power).mean() - moment) < k * np.sqrt(variance / n), power
    assert stats.kstest(z, "norm").pvalue > chance.share()
    tail = np.abs(np.concatenate([drawn(2_000_000, step=s) for s in range(1, 11)]))
    for sigma in (3, 4, 5):
        expected = 2 * stats.norm.sf(sigma) * tail.size
        assert abs((tail > sigma).sum() - expected) < k * np.sqrt(expected), sigma


@pytest.mark.parametrize("index", ["seed", "neuron", "step", "stream", "coordinate"])
def test_independent_along(index):
    n = 400_000
    a = drawn(n)
    b = np.roll(a, 1) if index == "coordinate" else drawn(n, **{index: 2 if index == "step" else 1})
    k = chance.errors(n, 3)
    for x, y in ((a, b), (a**2, b**2), (np.abs(a), b)):
        assert abs(np.corrcoef(x, y)[0, 1]) < k / np.sqrt(n)


def test_a_counter_gives_eight_normals_an_eighth_of_the_places_apart():
    many, few = drawn(1024), drawn(192)  # 128 and 24 counters
    for k in range(8):
        assert np.array_equal(many[128 * k : 128 * k + 24], few[24 * k : 24 * k + 24])


def test_keys_differ():
    keys = np.concatenate([noise.neuron_keys(seed, 5000, s) for seed in (0, 1, 2**40) for s in (0, 1)])
    assert len(np.unique(keys, axis=0)) == len(keys)


def on_processor(name, program):
    """What a program prints when numba compiles for the named processor."""
    environment = {**os.environ, "NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names an x86 processor")
def test_the_oldest_processor_draws_the_same_bits():
    program = "from tests.test_noise import *; z = np.empty(4032, np.float32)\n"
    program += "fill(z, noise.CONSTANTS, U(7), U(9), 3); print(z.tobytes().hex())"
    z = np.empty(4032, np.float32)
    fill(z, noise.CONSTANTS, U(7), U(9), 3)
    assert on_processor("x86-64", program).strip() == z.tobytes().hex()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names an x86 processor")
def test_wide_vectors_where_the_compiler_prefers_narrow_ones():
    """Compiled, not run: for a server that has 512-bit vectors, from which LLVM shies."""
    program = """
from numba import float32
from rotsim.compiled import wide_vectors
from rotsim.gradients.base import fill_normals
from rotsim.jit import njit
def narrow(x):
    for j in range(x.size):
        x[j] = x[j] * x[j]
def wide(x):
    wide_vectors()
    for j in range(x.size):
        x[j] = x[j] * x[j]
for function in (narrow, wide):
    kernel = njit((float32[::1],))(function)
    print(any("%zmm" in code for code in kernel.inspect_asm().values()))
"""
    assert on_processor("icelake-server", program).split() == ["False", "True"]
