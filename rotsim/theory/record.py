"""What every walk in time shares: the maps of AdamW's and Lion's step, and the sums of a record window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rotsim.angle import squared_angle, squared_chord
from rotsim.compiled import kernel_part
from rotsim.kernels import compiled


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
