r"""What a finite fan-in C changes, to first order in 1/C and as ηλ → 0: declared, not corrected.

Isotropic noise leaves weights Gaussian, and nothing at that order is missing, unless updates are signs. In front of a
normalisation layer a neuron's own weights shape its gradient (`derivations.finite_dim.projected_variance` and after):

* A gradient's variance along coordinate i is 1 - ŵ_i². What a gradient moves w_i by is seen by the normalisation of
  later updates that still hold that gradient. So they overlap with w, and E‖w‖² grows by 2Q/C.
* Gradients are orthogonal to the weights of their step, updates are not: they hold older gradients, and are no linear
  function of them. ‖w‖² wavers by the share f of what it does under isotropic noise, 2/C. What that does to the
  gradient comes back through the averages. One step has the share ν of its power, u being no linear function.
* Under Adam+L2 a long weight has a small v, if v forgets before the weight moves: decay is stronger by 1/C.

Declared is (|Q| + f + ν/2)(1 + 3/C)/C, at least 1/C². The second order was not derived: its 3 is an estimate, the
kurtosis of a coordinate. `tests/test_declared.py` holds the whole to walks of few weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np

SECOND_ORDER = 3.0  # over the first, times C
MOST_WAVERING = 1e3  # times as much wavering, at most: a neuron's norm then runs away from the mean


def wavering(held: Any, linear: Any, kept: Any) -> Any:
    """f: the share of ‖w‖²'s wavering under isotropic noise that projection leaves; elementwise.

    Parameters
    ----------
    held : float or ndarray, any shape
        In [0, 1]: mean correlation of the weights with those of all gradients in the average.
    linear : float or ndarray, any shape
        Share of the update's power in the long run that is a linear function of gradients, in [0, 1].
    kept : float or ndarray, any shape
        What a step leaves of the weights, in [0, 1].

    Returns
    -------
    float or ndarray
        In [0, 1].

    Notes
    -----
    `derivations.finite_dim.wavering`.
    """
    across = 1 - np.clip(linear, 0, 1) * np.clip(held, 0, 1) ** 2
    single = (1 - kept**2) / (1 + kept**2)  # of the squares of steps themselves, which no projection takes
    return across + (1 - across) * single


def fed_back(kept: Any, momentum: Any, second: float | None) -> Any:
    """How much more ‖w‖² wavers since the gradient follows it: momentum and v see it late; elementwise.

    Parameters
    ----------
    kept : float or ndarray, any shape
        What a step leaves of the weights, in [0, 1].
    momentum : float or ndarray, any shape
        Memory of the average, in [0, 1).
    second : float or None
        That of v, in [0, 1); None where nothing divides by the gradient's size.

    Returns
    -------
    float or ndarray
        1 if there were no such feedback; at most 1000, also where it runs away.

    Notes
    -----
    The stationary covariance of `derivations.damped.neurons_differ`.
    """
    kept, momentum = np.broadcast_arrays(np.asarray(kept, dtype=float), momentum)
    new, q_m, q_v = 1 - kept**2, momentum**2, 1.0 if second is None else second
    matrix = np.zeros((*kept.shape, 3, 3))
    matrix[..., 0, 0], matrix[..., 0, 1], matrix[..., 0, 2] = kept**2 + new * (q_m - q_v), new * q_m, -new * q_v
    matrix[..., 1, 0], matrix[..., 1, 1] = q_m - 1, q_m  # E‖g‖² goes as 1/‖w‖²
    matrix[..., 2, 0], matrix[..., 2, 2] = q_v - 1, q_v if second is not None else 0.0
    settles = np.abs(np.linalg.eigvals(matrix)).max(axis=-1) < 1 - 1 / MOST_WAVERING * new
    matrix = np.where(settles[..., None, None], matrix, 0.0)
    twice = np.einsum("...ij,...kl->...ikjl", matrix, matrix).reshape(*kept.shape, 9, 9)
    drive = np.zeros((*kept.shape, 9, 1))
    drive[..., 0, 0] = 1 - kept**4
    found = np.linalg.solve(np.eye(9) - twice, drive)[..., 0, 0]
    return np.where(settles, np.minimum(found, MOST_WAVERING), MOST_WAVERING)[()]


def declared(dim: Any, met: Any, wavers: Any, bent: Any) -> Any:
    """The declared relative error of norm and rotation; elementwise.

    Parameters
    ----------
    dim : int or ndarray, any shape
        C >= 2.
    met : float or ndarray, any shape
        Q of the module docstring, any number.
    wavers : float or ndarray, any shape
        f of it, >= 0.
    bent : float or ndarray, any shape
        ν of it, any number; below 0 it counts as 0.

    Returns
    -------
    float or ndarray
        At least 1/C², the second order where the first is nothing.

    Notes
    -----
    `derivations.finite_dim.met_again` and after it.
    """
    first = abs(met) + wavers + np.maximum(0.0, bent) / 2
    return np.maximum(first * (1 + SECOND_ORDER / dim), 1 / dim) / dim
