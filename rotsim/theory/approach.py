r"""Steps to equilibrium: counted in the predicted course, or, where that is too long to follow, in faster ones.

A course is followed for up to `MAX_COURSE_STEPS` steps. Where rates are so small that it is not settled by then,
everything but ‖w‖ is at rest beside it. ‖w‖ knows the rates only as their product with the step number. So lr and
weight decay √k times as large lead to the same equilibrium in about 1/k of the steps:

.. math::
    n(k) = \frac{a}{k} + b + c\,k + \dots

Here a are the steps without any memory, b what memories (momentum, v) add, and c their square over a. Counts at k, 2k
and 4k, from the norm at which the followed part ends, give all three. The count at k = 1 is a + b + c. By how much c
moves it is taken for the error of the answer.
"""

from __future__ import annotations

from math import ceil, isfinite, log, nan, sqrt

import numpy as np

from rotsim.errors import InvalidInput, positive, real
from rotsim.gradients import Gradient, ScaleInvariant
from rotsim.optimizers.base import Optimizer
from rotsim.theory.boundary import within_floats
from rotsim.theory.equilibrium import equilibrium
from rotsim.theory.prediction import predict

MAX_COURSE_STEPS = 500_000  # a second or two
CLOSE = 0.05  # of norm and rotation, where a run counts as in equilibrium
SHARPEST = 1e-6  # courses are no more exact than that
_RECORDS = 20_000  # windows of a course, and so the resolution of a count
RELAXATION_TIMES = 5.0  # relaxation times after which a course is over, apart from those that the wanted share takes
_EXTRAPOLATED = 0.01  # largest share of a count by which its last term may move it


@within_floats
def steps_to_equilibrium(
    optimizer: Optimizer,
    dim: int = 1024,
    gradient: Gradient | None = None,
    initial_norm: float = 1.0,
    within: float = 0.01,
    rows: int | None = None,
) -> int:
    """Steps after which norm and rotation stay within a share `within` of equilibrium.

    Counted in the predicted expectation from a fresh optimizer state, so warming moments and, for
    Adam, the lag of v behind the norm are included.

    Parameters
    ----------
    within : float
        Share of norm and rotation, in [1e-6, 1).
    rows : int, optional
        For Muon, as in `predict`.

    Other parameters as in `predict`.

    Returns
    -------
    int
        Counted to 1/20000 of the course that is followed. Beyond 500 000 steps it is extrapolated from courses at
        faster rates, within 2 %.

    Raises
    ------
    InvalidInput, NoEquilibrium
        If an argument is out of range or ``weight_decay`` is 0. If a course of 500 000 steps neither settles nor
        can be extrapolated, as where moments remember as many steps.

    Notes
    -----
    Read off the course of `predict` (`derivations.transient`).
    """
    gradient = ScaleInvariant() if gradient is None else gradient
    share = real("within", within, f"be in [{SHARPEST:g}, 1)", low=SHARPEST, high=1.0)
    start = positive("initial_norm", initial_norm)
    steps, halfway = _followed(optimizer, dim, gradient, start, share, rows)
    if steps is None:
        rest = _extrapolated(optimizer, dim, gradient, halfway, share, rows)
        steps = None if rest is None else MAX_COURSE_STEPS // 2 + rest
    if steps is None:
        raise InvalidInput(
            f"{optimizer.describe()} is not within {share:g} of equilibrium after {MAX_COURSE_STEPS} steps from "
            f"`initial_norm` {start:g}, and how many more it takes cannot be extrapolated: it depends on more than "
            "lr * weight_decay. Start nearer to the equilibrium norm, or use betas with a shorter memory"
        )
    return steps


def _followed(
    optimizer: Optimizer, dim: int, gradient: Gradient, start: float, share: float, rows: int | None = None
) -> tuple[int | None, float]:
    """Steps until a course of at most `MAX_COURSE_STEPS` is settled, None if it is not; and the norm halfway."""
    goal = equilibrium(optimizer, dim, gradient, rows=rows)
    whole = (goal.relaxation_steps + optimizer.memory_steps) * (RELAXATION_TIMES - log(share)) + 100
    while True:
        steps = min(ceil(whole), MAX_COURSE_STEPS)
        cut = steps < whole  # its end is no equilibrium, and it is compared with that of theory
        window = max(1, steps // _RECORDS)
        course = predict(optimizer, dim, gradient, steps, start, record_every=window, rows=rows)
        outside, arrived = np.zeros(course.sizes["step"], dtype=bool), True
        for name in ("norm", "rotation"):
            values, wanted = course[name].values[0], getattr(goal, name)
            if isfinite(wanted):  # a rotational variant has no norm of its own
                error = goal.model_error + float(course[f"{name}_model_error"][0, -1])
                arrived = arrived and abs(log(values[-1] / wanted)) < share + error
            outside |= np.abs(values / (wanted if cut else values[-1]) - 1) > share
        settled = (int(np.flatnonzero(outside)[-1]) + 1) * window if outside.any() else 0
        inside = min(goal.relaxation_steps, steps / 10) if cut else goal.relaxation_steps * RELAXATION_TIMES
        if arrived and steps - settled >= inside:
            return settled, nan
        if steps == MAX_COURSE_STEPS:
            return None, float(course["norm"][0, len(outside) // 2])
        whole *= 2


def _extrapolated(
    optimizer: Optimizer, dim: int, gradient: Gradient, start: float, share: float, rows: int | None = None
) -> int | None:
    """Steps from the norm `start` with moments at rest beside it; None where faster rates do not tell."""
    goal = equilibrium(optimizer, dim, gradient, rows=rows)
    if goal.relaxation_steps == 0:  # a rotational variant: rates change its angle alone
        return None
    # a norm that is far too long falls at half its rate near equilibrium, or faster
    whole = goal.relaxation_steps * (RELAXATION_TIMES - log(share) + 4 * max(0.0, log(start / goal.norm)))
    slowest = max(1.0, whole / (MAX_COURSE_STEPS / 2))
    counts = []
    for faster in (slowest, 2 * slowest, 4 * slowest):
        rates = optimizer.lr * sqrt(faster), optimizer.weight_decay * sqrt(faster)
        found, _ = _followed(optimizer.with_rates(*rates), dim, gradient, start, share, rows)
        if found is None:
            return None
        counts.append(found)
    near, far = counts[0] - counts[1], counts[1] - counts[2]
    alone = 4 / 3 * (2 * near - far)
    growing = alone / 2 - near
    memories = counts[0] - alone - growing
    steps = alone * slowest + memories + growing / slowest
    return round(steps) if slowest * abs(alone - 2 * near) <= _EXTRAPOLATED * (MAX_COURSE_STEPS / 2 + steps) else None
