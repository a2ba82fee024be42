"""Plain numbers on logarithmic axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import rcParams
from matplotlib.axis import Axis, XAxis
from matplotlib.ticker import NullLocator

RATIO_TICKS = (
    (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1, 1.05, 1.1, 1.15, 1.2, 1.3, 1.4, 1.5),
    (0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.5, 2, 3),
    (0.05, 0.07, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10),
    (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50),
)

_POINTS_PER_INCH = 72
_LINES, _DIGITS = 1.1, 2.2  # sizes of its font that a number takes upwards, and to the right

SIZE_TICKS = tuple(
    tuple(round(digit * 10.0**power, 9) for power in range(-8, 4) for digit in digits)
    for digits in ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1,))
)


def plain_ticks(axis: Axis, choices: Sequence[Sequence[float]], most: int = 7) -> None:
    """Plain numbers on a logarithmic axis, as fine as fits: `most` of them, and none over another."""
    low, high = axis.get_view_interval()
    inside = [[tick for tick in ticks if low <= tick <= high] for ticks in choices]
    apart = _room(axis) * np.log(high / low)
    fitting = (ticks for ticks in inside if len(ticks) <= most and not (np.diff(np.log(ticks)) < apart).any())
    chosen = next(fitting, inside[-1])
    axis.set_ticks(chosen, [f"{tick:g}" for tick in chosen])
    axis.set_minor_locator(NullLocator())


def _room(axis: Axis) -> float:
    """The share of an axis that a number takes."""
    across, panel = isinstance(axis, XAxis), axis.axes
    width, height = panel.figure.get_figure(root=True).get_size_inches()
    place, font = panel.get_position(), float(rcParams["font.size"])
    inches = place.width * width if across else place.height * height
    return (_DIGITS if across else _LINES) * font / (inches * _POINTS_PER_INCH)
