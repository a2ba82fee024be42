"""E‖w‖² where growth and decay balance, for a walk whose noise depends on it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq

from rotsim.gradients import GradientPower

_RANGE = 30.0  # of log E‖w‖², either side of a first guess


def settled(image: Callable[[float], float], start: float) -> float:
    """The E‖w‖² = image(E‖w‖²) nearest to `start`, looking where the map leads: up if its image is larger, else down.

    Where w grows so large that it drowns the noise there may be another.

    Parameters
    ----------
    image : callable
        E‖w‖² to which the noise at a given E‖w‖² leads.
    start : float
        > 0.

    Returns
    -------
    float

    Raises
    ------
    ValueError
        If there is none.

    Notes
    -----
    The fixed point of each optimizer's own map, as `derivations.adam_l2.exact_norm_squared_map`.
    """

    def excess(log_norm_squared: float) -> float:
        value = image(float(np.exp(log_norm_squared)))
        return float(np.log(value) - log_norm_squared) if 0 < value < np.inf else 1e3

    low = float(np.log(start))
    sign = 1.0 if excess(low) > 0 else -1.0
    for reach in np.geomspace(0.01, _RANGE, 60):
        if sign * excess(low + sign * reach) <= 0:
            return float(np.exp(brentq(excess, low, low + sign * reach, xtol=1e-13, rtol=1e-13)))
    raise ValueError("growth and loss do not balance at any norm")


def noise_variance(law: GradientPower, dim: int, norm_squared: float) -> float:
    """Of the noise in one coordinate of the gradient at this E‖w‖², E‖g‖² being G (E‖w‖²)^p.

    Parameters
    ----------
    law : GradientPower
    dim : int
        Fan-in C >= 1.
    norm_squared : float
        > 0.

    Returns
    -------
    float

    Notes
    -----
    `derivations.adamw.random_walk` has the same for white noise.
    """
    return float(law.scale_squared * norm_squared**law.homogeneity / dim)
