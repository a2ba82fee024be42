r"""SGDM under white or scale-invariant noise without its coordinates: three numbers per neuron.

Its rotational variant follows in `rotsim.simulation.gram_rotational`, with six.

The noise is isotropic, so only its components along w, along the part of the momentum m across w,
and the length of the rest matter: two normals and the root of a chi-square with C - 2 degrees of
freedom. Norms and angles then need only the Gram matrix of (w, m), which is a Markov chain. In the
orthonormal basis (w/‖w‖, m across w, the new direction)

.. math:: w = (W, 0, 0), \quad m = (M_1, M_2, 0), \quad g = (g_1, g_2, g_3),

one step costs the same for every dim. It follows the law of the full walk exactly, not its draws.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np

from rotsim.compiled import compiled, kernel_part
from rotsim.errors import InvalidInput
from rotsim.gradients import Gradient, Isotropic, ScaleInvariant
from rotsim.noise import components
from rotsim.optimizers.base import Optimizer
from rotsim.optimizers.rotational import Rotational
from rotsim.optimizers.sgdm import SGDM
from rotsim.simulation import gram_rotational
from rotsim.simulation.start import State

SLOTS = 3  # W, M1, M2


def valid(optimizer: Optimizer, gradient: Gradient) -> bool:
    """Whether the reduction is exact: a linear update that treats all directions alike."""
    plain = optimizer.inner if isinstance(optimizer, Rotational) else optimizer
    return isinstance(plain, SGDM) and isinstance(gradient, Isotropic | ScaleInvariant)


def require_valid(optimizer: Optimizer, gradient: Gradient) -> None:
    """Raise `InvalidInput` unless `valid`."""
    if not valid(optimizer, gradient):
        raise InvalidInput(
            "`engine='gram'` needs SGDM or its rotational variant under Isotropic or ScaleInvariant gradients, whose "
            f"law depends on inner products alone; got {optimizer.describe()} under {gradient.name}. Use engine='numba'"
        )


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


def _walk(  # type: ignore[no-untyped-def]
    neurons, state, norm_squared, keys, first_step, coefficients, scale, orthogonal, freedom, window, first_window,
    records,
):  # fmt: skip
    """As `walk._walk`, with ``state`` (neurons, 3, 1) = (W, M1, M2) and g = scale[i]·z or scale[i]·P_w⊥ z / ‖w‖."""
    for i in range(neurons[0], neurons[1]):
        w, m1, m2 = state[i, 0, 0], state[i, 1, 0], state[i, 2, 0]
        for t in range(coefficients.shape[0]):
            number = first_step + t
            z1, z2, z3 = components(freedom, keys[i, 0], keys[i, 1], number)
            size = scale[i] / w if orthogonal else scale[i]
            g1 = 0.0 if orthogonal else size * z1
            w, m1, m2, angle, moved = step(
                w, m1, m2, g1, size * z2, size * z3, coefficients[t, 0], coefficients[t, 1], coefficients[t, 2]
            )
            record = records[i, :, (number - 1) // window - first_window]
            record[0] += w * w
            record[1] += angle * angle
            record[2] += moved
        state[i, 0, 0], state[i, 1, 0], state[i, 2, 0] = w, m1, m2
        norm_squared[i] = w * w


@cache
def _kernel() -> Callable[..., None]:
    return compiled(_walk, "gram", {})


def slots(optimizer: Optimizer) -> int:
    """Numbers that the chain carries per neuron."""
    return gram_rotational.SLOTS if isinstance(optimizer, Rotational) else SLOTS


def fresh(optimizer: Optimizer, dim: int, seed: int, norms: np.ndarray, initial_weights: np.ndarray | None) -> State:
    """State before the first step: the norms, no momentum, and what a rotational variant starts from."""
    neurons = len(norms)
    state = np.zeros((neurons, slots(optimizer), 1))
    state[:, 0, 0] = norms
    if isinstance(optimizer, Rotational):
        state[:, 5, 0] = 1.0
        if optimizer.zero_mean:
            state[:, 4, 0], state[:, 5, 0] = gram_rotational.initial_shares(neurons, dim, seed, initial_weights)
    return State(0, state, state[:, 0, 0] ** 2)


def kernel(optimizer: Optimizer, gradient: Gradient, dim: int) -> Callable[..., None]:
    """A function with the arguments of the walk's kernel, for neurons of this dim."""
    orthogonal = isinstance(gradient, ScaleInvariant)
    unit = 1 / np.sqrt(dim) if orthogonal else 1.0
    rotational = isinstance(optimizer, Rotational)
    named = 3 if isinstance(optimizer, Rotational) and optimizer.zero_mean else 2  # directions with a component each

    def walk(  # type: ignore[no-untyped-def]
        neurons, state, norm_squared, keys, first_step, coefficients, parameters, _data, window, first_window, _room,
        records,
    ) -> None:  # fmt: skip
        chain = gram_rotational.kernel() if rotational else _kernel()
        chain(
            neurons, state, norm_squared, keys, first_step, coefficients, unit * parameters[:, 0], orthogonal,
            dim - named, window, first_window, records,
        )  # fmt: skip

    return walk
