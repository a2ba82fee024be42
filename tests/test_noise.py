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
from rotsim.jit import njit
from tests import chance

pytestmark = pytest.mark.machine

U = np.uint32

# Random123 kat_vectors, threefry4x32: rounds, key, counter, output
PI = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0, 0x082EFA98, 0xEC4E6C89)
KNOWN_ANSWERS = [
    (13, (0,) * 4, (0,) * 4, (0x531C7E4F, 0x39491EE5, 0x2C855A92, 0x3D6ABF9A)),
    (13, PI[1], PI[0], (0x4AA71D8F, 0x734738C2, 0x431FC6A8, 0xAE6DEBF1)),
    (20, (0,) * 4, (0,) * 4, (0x9C6CA96A, 0xE17EAE66, 0xFC10ECD4, 0x5256A7D8)),
]


def reference(rounds, key, counter):
    """Threefry4x32 of any number of rounds, as section 3 of the Random123 paper describes it."""
    rotations = (10, 26), (11, 21), (13, 27), (23, 5), (6, 20), (17, 11), (25, 10), (18, 20)
    keys = [*key, 0x1BD11BDA ^ key[0] ^ key[1] ^ key[2] ^ key[3]]
    x = [(c + k) % 2**32 for c, k in zip(counter, key, strict=True)]
    for r in range(rounds):
        for left, right, turn in zip((0, 2), (1, 3) if r % 2 == 0 else (3, 1), rotations[r % 8], strict=True):
            x[left] = (x[left] + x[right]) % 2**32
            x[right] = ((x[right] << turn | x[right] >> 32 - turn) % 2**32) ^ x[left]
        if r % 4 == 3:
            added = r // 4 + 1
            x = [(one + keys[(added + i) % 5]) % 2**32 for i, one in enumerate(x)]
            x[3] = (x[3] + added) % 2**32
    return tuple(x)


@njit
def threefry_scalar(k0, k1, c0, c1):
    return noise.threefry4x32(k0, k1, c0, c1)


@njit
def fma_scalar(a, b, c):
    return noise.fma(a, b, c)


@njit
def fill(z, key0, key1, step):
    words = np.empty((2, 2 * noise.counters(z.size)), np.uint32)
    noise.draw_words(words, noise.counters(z.size), key0, key1, step)
    noise.fill_normals(z, words)


@njit
def draw(z, key0, key1, step):
    noise.draw_normals(z, key0, key1, step)


def drawn(dim, seed=0, neuron=0, step=1, stream=noise.GRADIENT_STREAM):
    keys = noise.neuron_keys(seed, neuron + 1, stream)[neuron:]
    return noise.normals(keys, step, dim)[0].astype(np.float64)


@pytest.mark.parametrize(("rounds", "key", "counter", "answer"), KNOWN_ANSWERS)
def test_known_answers(rounds, key, counter, answer):
    assert reference(rounds, key, counter) == answer
    assert reference(12, key, counter) != answer


@pytest.mark.parametrize("words", [(0,) * 4, (2**32 - 1,) * 4, PI[0], (1, 0, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)])
def test_the_generator_is_threefry4x32_in_12_rounds(words):
    """No answer of 12 rounds is published: they come from what gives the published ones of 13 and 20."""
    answer = reference(12, (*words[:2], 0, 0), (*words[2:], 0, 0))
    words = [U(x) for x in words]
    assert threefry_scalar(*words) == answer
    assert tuple(int(x[0]) for x in noise.threefry4x32(*(np.array([x]) for x in words))) == answer


@pytest.mark.parametrize("dim", [10_000, 10_002, 2])
@pytest.mark.parametrize("kernel", [fill, draw])
def test_kernel_and_numpy_draw_the_same_bits(kernel, dim):
    z = np.empty(dim, np.float32)
    key = noise.neuron_keys(2**63 + 5, 3, 0)[2]
    kernel(z, key[0], key[1], 77)
    assert np.array_equal(z, noise.normals(key[None], 77, z.size)[0])


def test_normals_match_box_muller_in_double_precision():
    word = np.random.default_rng(1).integers(0, 2**32, (2, 200_000), dtype=np.uint32)
    word[0, :3], word[1, :3] = [0, 2**32 - 1, 2**31], [0, 2**31, 2**32 - 1]
    near, far = noise.box_muller(word[0], word[1])
    radius = np.sqrt(-2 * np.log((word[0] % 2**31 | 1) * 2.0**-31)) * np.where(word[0] >> 31, -1, 1)
    angle = word[1].view(np.int32) * (np.pi / 2**32)
    for got, expected in ((near, radius * np.cos(angle)), (far, radius * np.sin(angle))):
        # the polynomials' error, and 2^-24 of the uniform, which moves a small radius most: |dr| = 2^-24 / r
        assert (np.abs(got - expected) < 1.7e-6 * np.abs(radius) + 6e-8 / np.abs(radius)).all()
        assert abs((got.astype(np.float64) ** 2 - expected**2).mean()) < 2e-7  # of E[z²] = 1
    assert np.abs(radius).max() == pytest.approx(6.56, abs=0.01)


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


def test_a_counter_gives_four_normals_a_quarter_of_a_neuron_apart():
    many, few = drawn(1001), drawn(154)  # 251 and 39 counters, halves from 501 and 77 on
    for start, other in ((0, 0), (251, 39), (501, 77), (501 + 251, 77 + 39)):
        length = 39 if start in (0, 501) else 38
        assert np.array_equal(many[start : start + length], few[other : other + length])


def test_keys_differ():
    keys = np.concatenate([noise.neuron_keys(seed, 5000, s) for seed in (0, 1, 2**40) for s in (0, 1)])
    assert len(np.unique(keys, axis=0)) == len(keys)


def on_processor(name, program):
    """What a program prints when numba compiles for the named processor."""
    environment = {**os.environ, "NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": ""}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    return done.stdout


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names an x86 processor")
def test_the_oldest_processor_draws_the_same_bits():
    program = "from tests.test_noise import *; z = np.empty(4000, np.float32)\n"
    program += "fill(z, U(7), U(9), 3); print(z.tobytes().hex())"
    z = np.empty(4000, np.float32)
    fill(z, U(7), U(9), 3)
    assert on_processor("x86-64", program).strip() == z.tobytes().hex()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="names an x86 processor")
def test_wide_vectors_where_the_compiler_prefers_narrow_ones():
    """Compiled, not run: for a server that has 512-bit vectors, from which LLVM shies."""
    program = """
from numba import float32
from rotsim.compiled import wide_vectors
from rotsim.jit import njit
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
