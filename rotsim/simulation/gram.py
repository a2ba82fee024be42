r"""SGDM under white or scale-invariant noise without its coordinates: three numbers per neuron.

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
from numba.extending import register_jitable

from rotsim.errors import InvalidInput
from rotsim.gradients import Gradient, Isotropic, ScaleInvariant
from rotsim.noise import box_muller, threefry2x32
from rotsim.optimizers.base import Optimizer
from rotsim.optimizers.sgdm import SGDM
from rotsim.simulation.compiled import compiled

_U = np.uint32


def valid(optimizer: Optimizer, gradient: Gradient) -> bool:
    """Whether the reduction is exact: a linear update that treats all directions alike."""
    return isinstance(optimizer, SGDM) and isinstance(gradient, Isotropic | ScaleInvariant)


def require_valid(optimizer: Optimizer, gradient: Gradient) -> None:
    """Raise `InvalidInput` unless `valid`."""
    if not valid(optimizer, gradient):
        raise InvalidInput(
            "`engine='gram'` needs SGDM under Isotropic or ScaleInvariant gradients, whose law depends on inner "
            f"products alone; got {optimizer.label} under {gradient.name}. Use engine='numba'"
        )


@register_jitable
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


@register_jitable
def _uniform(word):  # type: ignore[no-untyped-def]
    return (np.float64(word) + 0.5) * 2.0**-32


@register_jitable
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


def _walk(  # type: ignore[no-untyped-def]
    neurons, state, norm_squared, keys, first_step, coefficients, scale, orthogonal, freedom, window, first_window,
    records,
):  # fmt: skip
    """As `walk._walk`, with ``state`` (neurons, 3, 1) = (W, M1, M2) and g = scale[i]·z or scale[i]·P_w⊥ z / ‖w‖."""
    for i in range(neurons[0], neurons[1]):
        w, m1, m2 = state[i, 0, 0], state[i, 1, 0], state[i, 2, 0]
        key0, key1 = keys[i, 0], keys[i, 1]
        for t in range(coefficients.shape[0]):
            number = first_step + t
            x0, x1 = threefry2x32(key0, key1, _U(0), _U(number))
            z1, z2 = box_muller(x0, x1)
            z3 = np.sqrt(chi_squared(freedom, key0, key1, number))
            size = scale[i] / w if orthogonal else scale[i]
            g1 = 0.0 if orthogonal else size * z1
            w, m1, m2, angle, moved = step(
                w, m1, m2, g1, size * z2, size * z3, coefficients[t, 0], coefficients[t, 1], coefficients[t, 2]
            )
            record = records[i, (number - 1) // window - first_window]
            record[0] += w * w
            record[1] += angle * angle
            record[2] += moved
        state[i, 0, 0], state[i, 1, 0], state[i, 2, 0] = w, m1, m2
        norm_squared[i] = w * w


@cache
def _kernel() -> Callable[..., None]:
    return compiled(_walk, "gram", {})


def kernel(gradient: Gradient, dim: int) -> Callable[..., None]:
    """A function with the arguments of the walk's kernel, for neurons of this dim."""
    orthogonal = isinstance(gradient, ScaleInvariant)
    unit = 1 / np.sqrt(dim) if orthogonal else 1.0

    def walk(  # type: ignore[no-untyped-def]
        neurons, state, norm_squared, keys, first_step, coefficients, parameters, _data, window, first_window, _z,
        records,
    ) -> None:  # fmt: skip
        _kernel()(
            neurons, state, norm_squared, keys, first_step, coefficients, unit * parameters[:, 0], orthogonal, dim - 2,
            window, first_window, records,
        )  # fmt: skip

    return walk
