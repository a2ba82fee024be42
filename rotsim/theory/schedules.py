"""Learning-rate schedules as functions of the step number, for `lr_schedule` of simulate and predict.

Each factory returns a function from an array of step numbers (counted from 1) to factors on the
learning rate, of the same shape. ``final`` is the factor at the last step; beyond it the factor stays.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rotsim.errors import function, integer, real, require

Factors = Callable[[np.ndarray], np.ndarray]


def constant(factor: float = 1.0) -> Factors:
    """The same factor at every step.

    Parameters
    ----------
    factor : float
        >= 0.

    Returns
    -------
    callable
        From an array of step numbers to factors, of the same shape.

    Raises
    ------
    InvalidInput
        If it is negative or not finite.
    """
    value = real("factor", factor, "be finite and >= 0", low=0.0)
    return lambda step: np.full(np.shape(step), value)


def warmup(steps: int, then: Factors | None = None) -> Factors:
    """Linear rise over some steps, t/steps at step t, then another schedule from its own step 1.

    Parameters
    ----------
    steps : int
        >= 0; with 0 it is `then` alone.
    then : callable, optional
        Default constant.

    Returns
    -------
    callable
        From an array of step numbers to factors, of the same shape.

    Raises
    ------
    InvalidInput
        If `steps` is no whole number >= 0, or `then` no function.
    """
    rise = integer("steps", steps, low=0)
    after = constant() if then is None else function("then", then, "of step numbers")

    def factors(step: np.ndarray) -> np.ndarray:
        step = np.asarray(step)
        return np.where(step <= rise, step / max(rise, 1), after(np.maximum(step - rise, 1)))

    return factors


def linear(steps: int, final: float = 0.0) -> Factors:
    """Straight line from 1 to `final` at the last step.

    Parameters
    ----------
    steps : int
        >= 1.
    final : float
        >= 0.

    Returns
    -------
    callable
        From an array of step numbers to factors, of the same shape.

    Raises
    ------
    InvalidInput
        If a value is out of range.
    """
    total, end = integer("steps", steps, low=1), real("final", final, "be finite and >= 0", low=0.0)
    return lambda step: 1 + (end - 1) * _progress(step, total)


def cosine(steps: int, final: float = 0.0) -> Factors:
    """Half a cosine from 1 to `final` at the last step.

    Parameters
    ----------
    steps : int
        >= 1.
    final : float
        >= 0.

    Returns
    -------
    callable
        From an array of step numbers to factors, of the same shape.

    Raises
    ------
    InvalidInput
        If a value is out of range.
    """
    total, end = integer("steps", steps, low=1), real("final", final, "be finite and >= 0", low=0.0)
    return lambda step: end + (1 - end) * (1 + np.cos(np.pi * _progress(step, total))) / 2


def wsd(steps: int, warmup_steps: int = 0, decay_steps: int | None = None, final: float = 0.0) -> Factors:
    """Warmup, stable, decay: linear rise, constant 1, then a straight line to `final` at step `steps`.

    Parameters
    ----------
    steps : int
        Total, >= 1.
    warmup_steps, decay_steps : int
        >= 0, together at most `steps`. Default decay: the last fifth.
    final : float
        Factor at the last step, >= 0.

    Returns
    -------
    callable
        From an array of step numbers to factors, of the same shape.

    Raises
    ------
    InvalidInput
        If a value is out of range, or warmup and decay together are longer than `steps`.
    """
    total, rise = integer("steps", steps, low=1), integer("warmup_steps", warmup_steps, low=0)
    fall = total // 5 if decay_steps is None else integer("decay_steps", decay_steps, low=0)
    require(rise + fall <= total, "warmup_steps + decay_steps", f"be <= steps = {total}", rise + fall)
    end = real("final", final, "be finite and >= 0", low=0.0)

    def stable_then_decay(step: np.ndarray) -> np.ndarray:
        return 1 + (end - 1) * np.clip((np.asarray(step) - (total - rise - fall)) / max(fall, 1), 0.0, float(fall > 0))

    return warmup(rise, stable_then_decay)


def _progress(step: np.ndarray, total: int) -> np.ndarray:
    """From just above 0 at the first step to 1 at step `total` and beyond."""
    return np.minimum(np.asarray(step) / total, 1.0)
