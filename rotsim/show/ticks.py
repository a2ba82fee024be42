"""Plain numbers on logarithmic axes."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axis import Axis
from matplotlib.ticker import NullLocator

RATIO_TICKS = (
    (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5),
    (0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.5, 2, 3),
    (0.05, 0.07, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10),
    (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50),
)


SIZE_TICKS = tuple(
    tuple(round(digit * 10.0**power, 9) for power in range(-8, 4) for digit in digits)
    for digits in ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1,))
)


def plain_ticks(axis: Axis, choices: Sequence[Sequence[float]], most: int = 7) -> None:
    """Plain numbers on a logarithmic axis, as fine as fits."""
    low, high = axis.get_view_interval()
    inside = [[tick for tick in ticks if low <= tick <= high] for ticks in choices]
    chosen = next((ticks for ticks in inside if len(ticks) <= most), inside[-1])
    axis.set_ticks(chosen, [f"{tick:g}" for tick in chosen])
    axis.set_minor_locator(NullLocator())
