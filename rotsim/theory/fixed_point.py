"""E‖w‖² where growth and decay balance, for a walk whose noise depends on it; and the root that this takes."""

from __future__ import annotations

from collections.abc import Callable
from math import copysign, inf
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim.theory.boundary import check_time

if TYPE_CHECKING:
    from rotsim.gradients import GradientPower

EPSILON = 2.0**-52  # spacing of floats at 1
MAX_STEPS = 100  # of a root search
LOG_TOLERANCE = 1e-12  # of log E‖w‖²
_RANGE = 30.0  # of log E‖w‖², either side of a first guess


def settled(image: Callable[[float], float], start: float) -> float:
    """The E‖w‖² = image(E‖w‖²) nearest to `start`, looking where the map leads: up if its image is larger, else down.

    The image is E‖w‖² to which the noise at a given one leads. Where w grows so large that it drowns the noise there
    may be another. `ValueError` if there is none. It is the fixed point of each optimizer's own map, as
    `derivations.adam_l2.exact_norm_squared_map`.
    """

    def excess(log_norm_squared: float) -> float:
        check_time()
        value = image(float(np.exp(log_norm_squared)))
        return float(np.log(value) - log_norm_squared) if 0 < value < np.inf else 1e3

    low = float(np.log(start))
    first = excess(low)
    sign = 1.0 if first > 0 else -1.0
    if abs(first) < _RANGE and sign * excess(low + first) <= 0:  # as where the image falls as E‖w‖² rises
        return float(np.exp(bracketed_root(excess, low, low + first, xtol=1e-13, rtol=1e-13)))
    for reach in np.geomspace(0.01, _RANGE, 60):
        if sign * excess(low + sign * reach) <= 0:
            return float(np.exp(bracketed_root(excess, low, low + sign * reach, xtol=1e-13, rtol=1e-13)))
    raise ValueError("growth and loss do not balance at any norm")


def bracketed_root(
    function: Callable[[float], float], low: float, high: float, *, xtol: float, rtol: float = 4 * EPSILON
) -> float:
    """A root of a continuous function between two points where its signs differ, by Brent's method.

    The steps of `scipy.optimize.brentq`, bit for bit: to import that takes longer than most predictions do. The root is
    off by at most ``xtol + rtol * abs(root)``. `ValueError` if the signs do not differ, or a value is not a number.

    R. P. Brent, "Algorithms for Minimization Without Derivatives" (1973), chapter 4.
    """
    last, here = float(low), float(high)
    at_last, at_here = float(function(last)), float(function(here))
    if at_last == 0.0:
        return last
    if at_here == 0.0:
        return here
    if not at_last * copysign(1.0, at_here) < 0.0:
        raise ValueError(f"no change of sign between {low:g} and {high:g}: values are {at_last:g} and {at_here:g}")
    other = at_other = step = before = 0.0
    for _ in range(MAX_STEPS):
        check_time()
        if at_last != 0.0 and copysign(1.0, at_last) != copysign(1.0, at_here):
            other, at_other = last, at_last  # the root lies between here and there
            before = step = here - last
        if abs(at_other) < abs(at_here):
            last, here, other = here, other, here
            at_last, at_here, at_other = at_here, at_other, at_here
        close, half = (xtol + rtol * abs(here)) / 2, (other - here) / 2
        if at_here == 0.0 or abs(half) < close:
            return here
        attempt = inf
        if abs(before) > close and abs(at_here) < abs(at_last):
            if last == other:
                attempt = -at_here * (here - last) / (at_here - at_last)
            else:
                slope, far = (at_last - at_here) / (last - here), (at_other - at_here) / (other - here)
                curved = far * slope * (at_other - at_last)
                attempt = -at_here * (at_other * far - at_last * slope) / curved if curved else inf
        if 2 * abs(attempt) < min(abs(before), 3 * abs(half) - close):
            before, step = step, attempt
        else:
            before = step = half
        last, at_last = here, at_here
        here += step if abs(step) > close else copysign(close, half)
        at_here = float(function(here))
        if at_here != at_here:
            raise ValueError(f"the value at {here:g} is not a number")
    raise ValueError(f"no root to {xtol:g} between {low:g} and {high:g} within {MAX_STEPS} steps")


def falling(excess: Callable[[Any], Any], start: Any) -> Any:
    """log E‖w‖² at which a walk reproduces it, where E‖w‖² of the walk falls as that of its noise rises; elementwise.

    Parameters
    ----------
    excess : callable
        log E‖w‖² that the noise at given log E‖w‖² leads to, less that. It falls by at least as much as that rises.
    start : float or ndarray, any shape
        First guess of log E‖w‖², any numbers; a root lies no further from it than its excess.

    Returns
    -------
    float or ndarray
        NaN where an excess is no number, or no root is found.

    Notes
    -----
    The fixed point of `derivations.adam_l2.exact_norm_squared_map`, and of AdamW where ε sees the gradient's size.

    N. Anderson, A. Björck, "A new high order method of regula falsi type", BIT 13 (1973) 253. The excess is nearly
    straight, so that few steps do.
    """
    old, at_old = start, excess(start)
    here = start + at_old  # at the root or past it
    at_here = excess(here)
    done = np.zeros(np.shape(here), dtype=bool)
    for _ in range(MAX_STEPS):
        check_time()
        done = done | np.logical_not(abs(at_here) >= LOG_TOLERANCE)
        if done.all():
            break
        found = np.where(done, here, here - at_here * (here - old) / (at_here - at_old))
        at_found = excess(found)
        crossed, left = at_found * at_here < 0, 1 - at_found / at_here
        # an end that stays counts less, or it would stay for ever
        at_old = np.where(crossed, at_here, at_old * np.where(left > 0, left, 0.5))
        old = np.where(crossed, here, old)
        done = done | (abs(found - here) < LOG_TOLERANCE)
        here, at_here = found, at_found
    return np.where(done & ~np.isnan(at_here), here, np.nan)[()]


def noise_variance(law: GradientPower, dim: int, norm_squared: Any) -> Any:
    """Of the noise in one coordinate of the gradient at this E‖w‖² > 0, E‖g‖² being G (E‖w‖²)^p; elementwise.

    `derivations.adamw.random_walk` has the same for white noise.
    """
    return law.scale_squared * norm_squared**law.homogeneity / dim
