"""What every walk in time shares: the sums of a record window, and parts between which it can be stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim.angle import squared_angle, squared_chord
from rotsim.compiled import kernel_part
from rotsim.kernels import compiled
from rotsim.theory.boundary import check_time

if TYPE_CHECKING:
    from rotsim.theory.base import Course

STEPS_AT_ONCE = 4096  # of a course: tenths of a second where a step takes longest
AT_REST = 2.5e-9  # relative change of squares from part to part: over the longest course roots change by less than 1e-6


def in_parts(advance: Callable[[Any, int, int], Any], carried: Any, course: Course) -> None:
    """Follow a course some steps at a time: between them the clock is looked at, and Ctrl-C is heard.

    Where rates stay what they are and records too, the rest of the course is as the last part.

    Parameters
    ----------
    advance : callable
        ``advance(carried, first, last)`` takes the steps from `first` up to `last`, and returns what the next carry on.
    carried : tuple of numbers
        Before the first step.
    course : Course

    Notes
    -----
    The maps of a step are in `derivations.transient` and `derivations.damped`.
    """
    _, lr, weight_decay, window, records = course
    steps, before = len(lr), np.full(records.shape[1], np.inf)
    constant = int(np.flatnonzero(np.append(True, (np.diff(lr) != 0) | (np.diff(weight_decay) != 0)))[-1])
    for first in range(0, steps, STEPS_AT_ONCE):
        check_time()
        last = min(first + STEPS_AT_ONCE, steps)
        touched = records[first // window : (last - 1) // window + 1]
        held = touched[0].copy()
        carried = advance(carried, first, last)
        mean = (touched.sum(axis=0) - held) / (last - first)
        size = np.append(mean[:3], np.ones(len(mean) - 3))  # errors are relative already
        if first - STEPS_AT_ONCE >= constant and (abs(mean - before) <= AT_REST * size).all():
            starts = window * np.arange(len(records))
            left = np.minimum(starts + window, steps) - np.maximum(starts, last)
            records += np.maximum(left, 0)[:, None] * mean
            return
        before = mean


def kernel(function: Callable[..., Any], name: str | None = None, **bound: Any) -> Callable[..., Any]:
    """A kernel of theory, under a name of its own."""
    return compiled(function, f"predict_{name}" if name else f"predict{function.__name__}", bound)


@kernel_part()
def record_step(record, before, along, moved):  # type: ignore[no-untyped-def]
    """Add ‖w‖², squared angle and ‖Δw‖² of one step to a window; return the new E‖w‖²."""
    after = before + 2.0 * along + moved
    record[0] += after
    record[1] += squared_angle(squared_chord(before, after, along, moved))
    record[2] += moved
    return after
