r"""The rotational variant and the hyperball of SGDM under white or scale-invariant noise without their coordinates.

`rotsim.simulation.engines.gram` keeps the Gram matrix of (w, m). Here the step sees a third fixed vector as well,
that of ones, if the mean is taken out of the update (`zero_mean`). With e = 1/√C·(1, ..., 1) where it is, split

.. math:: w = W\,(p\,e + q\,c), \qquad p^2 + q^2 = 1,

into its mean and the centred weights, c a unit vector across e. Without `zero_mean` e plays no part: p = 0,
q = 1 and c is the direction of w. The step, with γ, θ and s as in `rotsim.Rotational`:

1. The momentum m = αm + g. Take the orthonormal basis (c, d, the new direction), d along the part of m across
   e and c. There m = (M_1, M_2, 0) and g = (g_1, g_2, g_3). M_1 becomes along = αM_1 + g_1, and the rest has the length
   across = ‖(αM_2 + g_2, g_3)‖. Let d point along that rest from here on. The component of m along e drops out: the
   update loses it, and nothing else reads it. The decay is in θ alone.
2. u⊥ = -across·d, since u = -m loses its parts along e and c. So s and the angle φ = θ across / √(s/(1-γ^t)) follow.
3. w/W turns to p cos φ·e + (q cos φ·c - sin φ·d). The norm stays, and the mean shrinks by cos φ. The new c is
   (cos ψ, -sin ψ) in the basis (c, d). Here (cos ψ, sin ψ) = (q cos φ, sin φ)/q' and q'² = q² cos²φ + sin²φ. Without
   `zero_mean` ψ = φ.
4. m itself does not change, but its frame does: M_1 = along cos ψ - across sin ψ. Across the new c, in the plane of
   c and d, M_2 = |along sin ψ + across cos ψ|. Its sign is left to the direction of d.

(p, q, M_1, M_2, s) is therefore a Markov chain of its own, given the noise along c, along d and in the rest. White
noise has a normal along each. In the rest it has a chi-square of C - 2 degrees of freedom, C - 3 where e is
set apart. Scale invariance takes away the component along w. In the plane (e, c) one normal is left, along
(-q, p): the noise along c is p times it, and zero without `zero_mean`.

Equal weights have q = 0 and no direction c: only the mean is taken out of the update then, and c begins as d. Otherwise
q is at least |sin φ| of the last step.

A hyperball turns by another angle φ, and has neither s nor e. So p = 0 and q = 1 here, and s is what no step asks for.
"""

from __future__ import annotations

from functools import cache
from typing import Any, cast

import numpy as np
import scipy

from rotsim.gradients import Gradient
from rotsim.kernels import compiled
from rotsim.noise import INITIAL_WEIGHTS_STREAM, components, neuron_keys, random_words
from rotsim.optimizers.base import Optimizer
from rotsim.optimizers.rotational import Rotational
from rotsim.optimizers.turning import Turning
from rotsim.simulation.arguments import Kernel
from rotsim.simulation.engines.base import Problem
from rotsim.simulation.engines.gram import Chain
from rotsim.simulation.state import State

_TINY = np.finfo(np.float64).tiny
_EQUAL = 1e-12  # a smaller q is but rounding of the mean


_turn: Any = None  # what a kernel binds: `Turning.turn`


def _step(m1, m2, power, mean, centred, g1, g2, g3, momentum, rate, decay, age):  # type: ignore[no-untyped-def]
    """One step of the chain (M_1, M_2, s, p, q): returns the new five and the angle, in [0, π]; ``age`` is 1 - γ^t."""
    along, across = momentum * m1 + g1, np.hypot(momentum * m2 + g2, g3)
    if centred == 0.0:
        along, across = 0.0, np.hypot(along, across)
    power = decay * power + (1.0 - decay) * across * across
    turn = _turn(rate, across * across, -along, max(power / age, _TINY))  # NaN where the squares overflow
    cosine, sine = np.cos(turn), np.sin(turn)
    aside = np.arctan2(sine, centred * cosine)  # ψ, 0 where neither is left
    c, s = np.cos(aside), np.sin(aside)
    return (
        along * c - across * s,
        abs(along * s + across * c),
        power,
        mean * cosine,
        np.hypot(centred * cosine, sine),
        abs(np.arctan2(sine, cosine)),
    )


def _walk(block, neurons, steps, records, scale, orthogonal, freedom):  # type: ignore[no-untyped-def]
    """As `gram._walk`, with ``state`` (neurons, 6, 1) = (W, M_1, M_2, s, p, q)."""
    state, keys, coefficients = neurons.state, neurons.keys, steps.coefficients
    for i in range(block[0], block[1]):
        w, m1, m2, power, mean, centred = (
            state[i, 0, 0], state[i, 1, 0], state[i, 2, 0], state[i, 3, 0], state[i, 4, 0], state[i, 5, 0]
        )  # fmt: skip
        size = scale[i] / w if orthogonal else scale[i]
        for t in range(coefficients.shape[0]):
            number = steps.first + t
            z1, z2, z3 = components(freedom, keys[i, 0], keys[i, 1], number)
            g1 = size * z1 * mean if orthogonal else size * z1
            c = coefficients[t]
            m1, m2, power, mean, centred, angle = _step(
                m1, m2, power, mean, centred, g1, size * z2, size * z3, c[2], c[7], c[8], c[9]
            )
            chord = 2.0 * w * np.sin(0.5 * angle)
            record = records.sums[i, :, (number - 1) // records.length - records.first]
            record[0] += w * w
            record[1] += angle * angle
            record[2] += chord * chord
        state[i, 1, 0], state[i, 2, 0], state[i, 3, 0], state[i, 4, 0], state[i, 5, 0] = m1, m2, power, mean, centred
        neurons.norm_squared[i] = w * w * (mean * mean + centred * centred)  # W², or NaN once the chain has overflowed


@cache
def _kernel(kind: type[Turning]) -> Kernel:
    step = compiled(_step, f"gram_{kind.name}_step", {"_turn": kind.turn})
    return compiled(_walk, f"gram_{kind.name}", {"_step": step})


def initial_shares(neurons: int, dim: int, seed: int, initial_weights: Any) -> tuple[np.ndarray, np.ndarray]:
    """(p, q) of given weights, or of uniform directions: p/q √(C-1) is Student's t of C - 1 degrees of freedom."""
    if initial_weights is not None:
        weights = np.asarray(initial_weights, dtype=np.float64)
        average = weights.mean(axis=1, keepdims=True)
        mean, centred = np.sqrt(dim) * average[:, 0], np.linalg.norm(weights - average, axis=1)
    else:
        keys = neuron_keys(seed, neurons, INITIAL_WEIGHTS_STREAM)
        zero = np.zeros(neurons, np.uint32)
        word = random_words(keys[:, 0], keys[:, 1], zero, zero)[0]
        mean, centred = scipy.special.stdtrit(dim - 1, (word + 0.5) * 2.0**-32), np.full(neurons, np.sqrt(dim - 1))
    norm = np.hypot(mean, centred)
    return mean / norm, np.where(centred > _EQUAL * norm, centred / norm, 0.0)


class GramRotational(Chain):
    """What turns by SGDM's momentum, by the Gram matrix of ones, weights and momentum."""

    acts_on = "neuron"
    numbers = 6  # W, M_1, M_2, s, p, q

    def accepts(self, optimizer: Optimizer, gradient: Gradient) -> bool:
        return super().accepts(optimizer, gradient) and isinstance(optimizer, Turning)

    def fresh(self, problem: Problem) -> State:
        state = super().fresh(problem)
        state.slots[:, 5, 0] = 1.0
        if isinstance(problem.optimizer, Rotational) and problem.optimizer.zero_mean:
            shares = initial_shares(problem.neurons, problem.dim, problem.seed, problem.initial_weights)
            state.slots[:, 4, 0], state.slots[:, 5, 0] = shares
        return state

    def kernel(self, problem: Problem) -> Kernel:
        return self.of(lambda: _kernel(cast(type[Turning], type(problem.optimizer))), problem)
