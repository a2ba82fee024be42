r"""A linear filter of gradients: the newest one, and a geometric average beside it, as of Nesterov's momentum.

Its impulse response is f_j = [j=0] + c μ^j. White gradients give

.. math::
    K_k = \sum_j f_j f_{j+k} = c μ^k \left(1 + \frac{c}{1 - μ^2}\right), \qquad k \ge 1.
"""

from __future__ import annotations

import numpy as np

from rotsim.theory.walk import UpdateCovariance


def led(weight: float, root: float) -> UpdateCovariance:
    """Autocovariance of what it makes of white gradients of unit variance.

    Parameters
    ----------
    weight, root : float
        c, and μ in [0, 1).

    Returns
    -------
    UpdateCovariance

    Notes
    -----
    The sum of `derivations.lion.filter_weights`.
    """
    power = weight**2 / (1 - root**2)
    return UpdateCovariance(1 + 2 * weight + power, np.array([weight + power]), np.array([root]))


def led_filling(weight: float, root: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean square of its output, and its covariance with later ones, over the final ones at steps 1, 2, ... .

    Parameters
    ----------
    weight, root : float
        c, and μ in [0, 1).
    steps : int
        >= 1.

    Returns
    -------
    tuple of ndarray, each of shape (steps,)

    Notes
    -----
    The sum of `derivations.lion.filter_weights`, less what is older than the state.
    """
    older = root ** (2 * np.arange(1.0, steps + 1))
    missing = weight**2 / (1 - root**2) / led(weight, root).lag_0
    return 1 - missing * older, 1 - weight / (1 - root**2 + weight) * older
