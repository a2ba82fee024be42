"""The course of a walk as looks at it see it that are many steps apart: checkpoints, rather than one step.

Noise of a step is not along the weights that it meets. So of weights some steps ago, only decay takes:

    E⟨w_b, w_e⟩ = ‖w_b‖² · Π(1 - decay) · (1 + what the averages still hold at b)

The average of gradients at b points against w_b, which it has moved there, and goes on to move it a while. This is
proportional to the squared rotation of a step at b, and known from the correlation in equilibrium.
"""

from __future__ import annotations

from functools import lru_cache
from math import expm1, log1p
from typing import Any

import numpy as np

from rotsim.gradients import GradientPower, ScaleInvariant
from rotsim.optimizers.base import Optimizer
from rotsim.theory.base import Theory, required_theory

_GENTLE = 1e-3  # lr·weight_decay at which an optimizer that has no decay is looked at


def at_rest(plain: Optimizer, dim: int, rows: int | None) -> tuple[Optimizer, Theory[Any], GradientPower]:
    """An optimizer, decaying gently if it has no decay, its theory, and the law of scale-invariant noise."""
    if plain.weight_decay == 0:
        plain = plain.with_rates(plain.lr, min(_GENTLE, _GENTLE / plain.lr))
    return plain, required_theory(plain, rows, dim), ScaleInvariant().power(dim)


@lru_cache(maxsize=1024)
def kept_by_averages(spec: Optimizer, dim: int, span: int, rows: int | None = None) -> tuple[float, float]:
    """What averages keep of weights over a span: ln of the factor in E⟨w_b, w_e⟩ that decay alone does not explain.

    It is over the squared rotation of a step at the start, and over tan² of the angle between both ends. Both are NaN
    where the decay of the optimizer depends on more than its rates. They are `derivations.transient.over_many_steps`;
    for SGDM `coupled_over_many_steps`.
    """
    plain, theory, law = at_rest(spec if spec.decay == "none" else spec.plain, dim, rows)
    step, whole = (theory.fallen(dim, law, steps) for steps in (1, span))
    decay = theory.lasting_decay(np.array([plain.lr * plain.weight_decay]))
    if decay is None or not 0 < whole < 1:
        return np.nan, np.nan
    kept = log1p(-whole) - span * log1p(-float(decay[0]))
    return kept / (2 * step), kept / expm1(-2 * log1p(-whole))


def looks(
    spec: Optimizer,
    dim: int,
    square: np.ndarray,
    start: float,
    decay: np.ndarray,
    first: int,
    ends: np.ndarray,
    spans: np.ndarray,
    rows: int | None = None,
) -> np.ndarray:
    """Norm at each look, and angle and length of the way from the look before, or from the step before.

    Parameters
    ----------
    spec : Optimizer
    dim : int
        Fan-in C > 2.
    square : ndarray, shape (3, steps)
        Squares of norm, rotation and update at every step after `first`.
    start : float
        ‖w‖ > 0 after step `first`.
    decay : ndarray, shape (steps,)
        lr·weight_decay at every step.
    first : int
        Steps before the first of these, >= 0.
    ends, spans : ndarray of int, shape (windows,)
        The step of each look, > 0, and how many steps >= 1 before it the weights are that it is compared with.
    rows : int, optional
        Neurons of one matrix, as in `rotsim.predict`.

    Returns
    -------
    ndarray, shape (3, windows)
        NaN where a span begins before `first`, or theory has no correlation over it.

    Notes
    -----
    `derivations.transient.over_many_steps`.
    """
    found = np.full((3, len(ends)), np.nan)
    norms = np.sqrt(np.append(start**2, square[0]))
    lasting = required_theory(spec, rows, dim).lasting_decay(decay)
    taken = None if lasting is None else np.append(0.0, np.cumsum(-np.log1p(-np.minimum(lasting, 1 - 1e-12))))
    for column, (end, span) in enumerate(zip((ends - first).tolist(), spans.tolist(), strict=True)):
        begin = end - span
        if end < 1 or begin < 0:
            continue
        found[0, column] = norms[end]
        if span == 1:
            found[1:, column] = np.sqrt(square[1:, end - 1])
        elif taken is not None:
            memory = kept_by_averages(spec, dim, span, rows)[0] * square[1, begin - 1] if begin else 0.0
            kept = np.exp(taken[begin] - taken[end] + memory)
            half = np.clip((norms[end] - kept * norms[begin]) / norms[end] / 2, 0.0, 1.0)
            found[1, column] = 2 * np.arcsin(np.sqrt(half))
            found[2, column] = np.sqrt((norms[end] - norms[begin]) ** 2 + 4 * norms[end] * norms[begin] * half)
    return found
