"""What does each part of the engine cost? ``pytest benchmarks --benchmark-only -n 0`` (no time is asserted)."""

import numpy as np
import pytest

import rotsim
from rotsim import noise
from rotsim.gradients.base import fill_normals
from rotsim.jit import njit
from rotsim.optimizers import OPTIMIZERS

DIM, NEURONS, STEPS = 1024, 4, 2000


@njit
def _draw(z, words, constants, key0, key1, steps):
    for step in range(steps):
        noise.draw_words(words, key0, key1, step)
        fill_normals(z, (words, constants))


def test_normals(benchmark):
    """The generator alone, one core, DIM normals a step."""
    z, words = np.empty(DIM, np.float32), np.empty(DIM // 2, np.uint32)
    key0, key1 = noise.neuron_keys(0, 1, 0)[0]
    _draw(z, words, noise.CONSTANTS, key0, key1, 1)
    benchmark(_draw, z, words, noise.CONSTANTS, key0, key1, NEURONS * STEPS)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("gradient", [rotsim.Isotropic(), rotsim.ScaleInvariant()], ids=lambda g: g.name)
@pytest.mark.parametrize("name", list(OPTIMIZERS))
def test_walk(benchmark, name, gradient, dtype):
    """Every kernel through the public function, one core."""
    optimizer = OPTIMIZERS[name].examples()[0]
    options = dict(dim=DIM, neurons=NEURONS, gradient=gradient, dtype=dtype, threads=1, engine="numba")
    rotsim.simulate(optimizer, steps=1, **options)
    benchmark(rotsim.simulate, optimizer, steps=STEPS, **options)


@pytest.mark.parametrize("rotational", [False, True])
def test_gram(benchmark, rotational):
    """The O(1) chains at a billion coordinates, one core."""
    optimizer = rotsim.SGDM(0.1, 0.01)
    optimizer = rotsim.Rotational(optimizer) if rotational else optimizer
    rotsim.simulate(optimizer, dim=10**9, neurons=1, steps=1)
    benchmark(rotsim.simulate, optimizer, dim=10**9, neurons=NEURONS, steps=STEPS, threads=1)
