"""Schedules of learning rate and weight decay as functions of the step number, for simulate and predict.

Each factory returns a function from an array of step numbers, counted from 1, to factors of the same shape. A value out
of range raises `InvalidInput`. ``steps`` >= 1 counts all steps of the run. ``final`` >= 0 is the factor at the last of
them, and beyond it the factor stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any

import numpy as np

from rotsim.errors import LARGEST_SIZE, InvalidInput, answer, array, choice, function, integer, is_a, real, require

Factors = Callable[[np.ndarray], np.ndarray]


def constant(factor: float = 1.0) -> Factors:
    """The same factor >= 0 at every step."""
    value = real("factor", factor, "be finite and >= 0", low=0.0)
    return lambda step: np.full(np.shape(step), value)


def warmup(steps: int, then: Factors | None = None) -> Factors:
    """Linear rise over `steps` >= 0 steps, t/steps at step t, then `then` from its own step 1, by default constant."""
    rise = integer("steps", steps, low=0)
    after = constant() if then is None else function("then", then, "of step numbers", 1)

    def factors(step: np.ndarray) -> np.ndarray:
        step = np.asarray(step)
        return np.where(step <= rise, step / max(rise, 1), after(np.maximum(step - rise, 1)))

    return factors


def linear(steps: int, final: float = 0.0) -> Factors:
    """Straight line from 1 to `final` at the last step."""
    total, end = integer("steps", steps, low=1), real("final", final, "be finite and >= 0", low=0.0)
    return lambda step: 1 + (end - 1) * _progress(step, total)


def cosine(steps: int, final: float = 0.0) -> Factors:
    """Half a cosine from 1 to `final` at the last step."""
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


#: What `named` knows.
NAMES = ("constant", "linear", "cosine", "wsd")


def named(name: str, steps: int, warmup_steps: int = 0, final: float = 0.0) -> Factors:
    """A schedule of a whole run by its name: warm-up, then constant, linear or cosine; or warmup, stable, decay.

    Parameters
    ----------
    name : {"constant", "linear", "cosine", "wsd"}
    steps : int
        Of the run, >= 1.
    warmup_steps : int
        Steps of linear warm-up, >= 0 and < `steps`.
    final : float
        Factor at the last step, >= 0; of no effect on "constant".

    Returns
    -------
    callable
        From an array of step numbers to factors, of the same shape.

    Raises
    ------
    InvalidInput
        If a value is out of range.
    """
    choice("schedule", name, NAMES)
    total = integer("steps", steps, low=1)
    rise = integer("warmup", warmup_steps, low=0, high=total)
    if name == "wsd":
        return wsd(total, rise, final=final)
    rest = total - rise
    return warmup(rise, constant() if name == "constant" else {"linear": linear, "cosine": cosine}[name](rest, final))


def _progress(step: np.ndarray, total: int) -> np.ndarray:
    """From just above 0 at the first step to 1 at step `total` and beyond."""
    return np.minimum(np.asarray(step) / total, 1.0)


class Schedule:
    """Factor on a hyperparameter at each step: constant 1, an array, or a function of the step number."""

    def __init__(self, name: str, given: Any, steps: int) -> None:
        self.name = name
        self.given = given
        if given is None or callable(given):
            return
        self.given = array(name, given, f"have shape (steps,) = ({steps},) or be a function")
        if self.given.shape != (steps,):
            raise InvalidInput(
                f"`{name}` must have shape (steps,) = ({steps},) or be a function; got shape {self.given.shape}"
            )

    def __call__(self, step: np.ndarray) -> np.ndarray:
        """Factors at `step` (counted from 1), checked."""
        if self.given is None:
            return np.ones(len(step))
        if callable(self.given):
            found = array(self.name, answer(self.name, self.given, step), "give a factor for each step")
            if found.shape not in ((), step.shape):
                raise InvalidInput(f"`{self.name}` must give a factor for each of {len(step)} steps; got {found.shape}")
            factor = np.broadcast_to(found, step.shape)
        else:
            factor = self.given[step - 1]
        if not (sound := (factor >= 0) & (factor <= LARGEST_SIZE)).all():
            where = int(step[~sound][0])
            rule = f"at most {LARGEST_SIZE:g}" if LARGEST_SIZE < factor[~sound][0] < np.inf else "finite factors >= 0"
            raise InvalidInput(f"`{self.name}` must give {rule}; it does not at step {where}")
        return factor

    def digest(self, steps: int) -> str:
        """Identifies the factors of the first `steps` steps."""
        if self.given is None:
            return "constant"
        hashed = sha256()
        for number in _numbers(steps):
            hashed.update(self(number).tobytes())
        return hashed.hexdigest()


#: How weight decay may follow the learning rate, whose factor is f. Its own is 1, f over the largest f (AdamC), or 1/f:
#: a step then takes the same share of the weights all along.
CONVENTIONS = ("decoupled", "corrected", "independent")


def pair(lr_schedule: Any, wd_schedule: Any, steps: int) -> tuple[Schedule, Schedule]:
    """The schedules of learning rate and weight decay in a run; that of decay may be the name of a convention.

    Parameters
    ----------
    lr_schedule : array_like of shape (steps,), callable or None
    wd_schedule : array_like of shape (steps,), callable, str or None
        A string is one of `CONVENTIONS`.
    steps : int
        Of the run, >= 1.

    Raises
    ------
    InvalidInput
        If either is none of these. Where the factors of a convention do not exist, when they are asked for.
    """
    rate = Schedule("lr_schedule", lr_schedule, steps)
    if is_a(wd_schedule, str):
        wd_schedule = _following(choice("wd_schedule", wd_schedule, CONVENTIONS), rate, steps)
    return rate, Schedule("wd_schedule", wd_schedule, steps)


def _following(convention: str, rate: Schedule, steps: int) -> Factors | None:
    """Factors of weight decay by the name of a convention."""
    if convention == "decoupled":
        return None
    if convention == "corrected":
        peak = max(float(rate(number).max()) for number in _numbers(steps))
        return lambda step: rate(step) / (peak or 1.0)

    def inverse(step: np.ndarray) -> np.ndarray:
        factor = rate(step)
        if not (factor > 0).all():
            raise InvalidInput(
                "`lr_schedule` must be above 0 at every step where decay is independent of it; "
                f"it is 0 at step {int(step[factor <= 0][0])}. Let it end above 0"
            )
        return 1 / factor

    return inverse


def _numbers(steps: int) -> Iterator[np.ndarray]:
    """Numbers of all steps, some at a time."""
    for first in range(1, steps + 1, 1 << 16):
        yield np.arange(first, min(first + (1 << 16), steps + 1))


def digests(schedules: tuple[Schedule, ...], steps: int) -> dict[str, str]:
    """Digest of each schedule by its name, for a dataset's spec."""
    return {schedule.name: schedule.digest(steps) for schedule in schedules}
