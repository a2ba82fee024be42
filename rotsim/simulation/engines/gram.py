r"""SGDM under white or scale-invariant noise without its coordinates: three numbers per neuron.

Its rotational variant and its hyperball follow in `rotsim.simulation.engines.gram_rotational`, with six, and Muon in
`rotsim.simulation.engines.gram_matrix`.

The noise is isotropic. Only its components along w and along the part of the momentum m across w,
and the length of the rest, matter: two normals and the root of a chi-square with C - 2 degrees of
freedom. Norms and angles then need only the Gram matrix of (w, m), which is a Markov chain. In the
orthonormal basis (w/‖w‖, m across w, the new direction)

.. math:: w = (W, 0, 0), \quad m = (M_1, M_2, 0), \quad g = (g_1, g_2, g_3),

one step costs the same for every dim. It follows the law of the full walk exactly, not its draws.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, cast

import numpy as np

from rotsim.compiled import kernel_part
from rotsim.errors import INT64
from rotsim.gradients.base import Gradient, Noise
from rotsim.kernels import compiled
from rotsim.noise import components
from rotsim.optimizers.base import Optimizer
from rotsim.simulation.arguments import Kernel, Neurons, Steps, Windows
from rotsim.simulation.engines.base import Engine, Problem
from rotsim.simulation.state import State


@kernel_part()
def step(w, m1, m2, g1, g2, g3, lr, weight_decay, momentum):  # type: ignore[no-untyped-def]
    """One step of the chain (W, M1, M2): returns the new three, the angle and ‖Δw‖².

    With w' = w - lr·m', the area spanned by w' and m' is that spanned by w and m': the new M2
    comes from it without cancellation.
    """
    along = momentum * m1 + g1 + weight_decay * w
    across = np.hypot(momentum * m2 + g2, g3)
    ahead, aside = w - lr * along, lr * across
    new = np.hypot(ahead, aside)
    # ⟨w', m'⟩ = ahead·along - aside·across
    return (
        new,
        (ahead * along - aside * across) / new,
        w * across / new,
        np.arctan2(aside, ahead),
        lr * lr * (along * along + across * across),
    )


def _walk(block, neurons, steps, records, scale, orthogonal, freedom):  # type: ignore[no-untyped-def]
    """Walk with ``state`` (neurons, 3, 1) = (W, M1, M2) and g = scale[i]·z or scale[i]·P_w⊥ z / ‖w‖."""
    state, keys, coefficients = neurons.state, neurons.keys, steps.coefficients
    for i in range(block[0], block[1]):
        w, m1, m2 = state[i, 0, 0], state[i, 1, 0], state[i, 2, 0]
        for t in range(coefficients.shape[0]):
            number = steps.first + t
            z1, z2, z3 = components(freedom, keys[i, 0], keys[i, 1], number)
            size = scale[i] / w if orthogonal else scale[i]
            g1 = 0.0 if orthogonal else size * z1
            w, m1, m2, angle, moved = step(
                w, m1, m2, g1, size * z2, size * z3, coefficients[t, 0], coefficients[t, 1], coefficients[t, 2]
            )
            record = records.sums[i, :, (number - 1) // records.length - records.first]
            record[0] += w * w
            record[1] += angle * angle
            record[2] += moved
        state[i, 0, 0], state[i, 1, 0], state[i, 2, 0] = w, m1, m2
        neurons.norm_squared[i] = w * w


@cache
def _kernel() -> Kernel:
    return compiled(_walk, "gram", {})


class Chain(Engine):
    """What the reductions share: a linear update and noise that treat all directions alike, and a few numbers."""

    name = "gram"
    needs = (
        "SGDM, its rotational variant or its hyperball, or Muon on rows of at least eight times as many weights, under "
        "Isotropic or ScaleInvariant gradients, whose law depends on inner products alone"
    )
    automatic = True
    keeps_weights = False
    max_dim = INT64 - 1
    #: Numbers that it carries per neuron.
    numbers: int

    def accepts(self, optimizer: Optimizer, gradient: Gradient) -> bool:
        return super().accepts(optimizer, gradient) and optimizer.plain.linear and gradient.plain_noise

    def dtype(self, wanted: str) -> np.dtype[Any]:
        return np.dtype("float64")

    def shape(self, problem: Problem) -> tuple[int, int]:
        return self.numbers, 1

    def fresh(self, problem: Problem) -> State:
        state = np.zeros((problem.neurons, self.numbers, 1))
        state[:, 0, 0] = problem.norms
        return State(0, state, state[:, 0, 0] ** 2)

    @staticmethod
    def of(chain: Callable[[], Kernel], problem: Problem) -> Kernel:
        """A kernel of `chain`, which draws one by one the noise along the directions that the optimizer tells apart."""
        orthogonal = cast(Noise, problem.gradient).scale_invariant
        unit = 1 / np.sqrt(problem.dim) if orthogonal else 1.0
        freedom = problem.dim - problem.optimizer.min_dim

        def walk(block: tuple[int, int], neurons: Neurons, steps: Steps, _: None, records: Windows) -> None:
            chain()(block, neurons, steps, records, unit * neurons.parameters[:, 0], orthogonal, freedom)

        return walk


class Gram(Chain):
    """SGDM by the Gram matrix of its weights and momentum."""

    acts_on = "coordinate"
    numbers = 3  # W, M1, M2

    def kernel(self, problem: Problem) -> Kernel:
        return self.of(_kernel, problem)
