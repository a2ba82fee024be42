"""Contours over two axes of a grid, between whose cells is interpolated as a power law, and their labels.

What settles is nearly a product of powers of the hyperparameters. So on logarithmic axes the logarithm of a positive
quantity is nearly a plane, and contours of it between sparse cells are nearly exact. Contours of the quantity itself
would run in waves from cell to cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from rotsim.errors import InvalidInput

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.contour import ContourSet
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

MARGIN = 3  # pixels between labels, and to the border
_TRIED = 81  # places along a contour where its number may stand


@dataclass(frozen=True)
class Label:
    """A number that stands on a contour: its text, its colour, the parts of the contour, the share where it belongs."""

    ax: Axes
    text: str
    color: str
    parts: list[np.ndarray]
    share: float


def scale_of(values: np.ndarray) -> str:
    """Logarithmic where that can be, linear elsewhere."""
    return "log" if np.nanmin(values, initial=np.inf) > 0 else "linear"


def levels_of(values: np.ndarray, most: int) -> np.ndarray:
    """Round levels, at most so many, over the values that are known: at equal ratios where all are positive."""
    known = values[np.isfinite(values)]
    if known.size == 0 or known.min() == known.max():
        raise InvalidInput("there is nothing to draw contours of: the quantity is the same everywhere, or unknown")
    if known.min() <= 0:
        from matplotlib.ticker import MaxNLocator

        ticks = np.asarray(MaxNLocator(most).tick_values(known.min(), known.max()))
        return ticks[(ticks > known.min()) & (ticks < known.max())]
    low, high = np.log10(known.min()), np.log10(known.max())
    for digits, apart in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
        decades = np.arange(np.floor(low), np.ceil(high) + 1, apart)
        levels = np.unique([digit * 10.0**decade for decade in decades for digit in digits])
        inside = levels[(levels > known.min()) & (levels < known.max())]
        if len(inside) <= most:
            break
    return inside if len(inside) else np.array([np.sqrt(known.min() * known.max())])


def contours(
    ax: Axes, x: np.ndarray, y: np.ndarray, values: np.ndarray, levels: Any, filled: bool = False, **look: Any
) -> ContourSet:
    """Contours, or what lies between them, interpolated along the scales of the axes.

    Parameters
    ----------
    ax : Axes
        Its scales are set.
    x, y : arrays
    values : array of shape (len(y), len(x))
        Logarithms of a positive quantity.
    levels : array
    filled : bool
    **look
        Of matplotlib's contour and contourf.
    """
    along_x, along_y = ax.xaxis.get_transform().transform(x), ax.yaxis.get_transform().transform(y)
    draw = ax.contourf if filled else ax.contour
    ax.set(xlim=(x[0], x[-1]), ylim=(y[0], y[-1]))  # before, so that matplotlib takes no limits from what is drawn
    # coordinates are given as the scales have them: on a logarithmic axis matplotlib would mix 1 and 10 to 5.5
    return draw(along_x, along_y, values, levels=levels, transform=ax.transLimits + ax.transAxes, **look)


def short(number: float) -> str:
    """Three digits, and a power of ten without its sign: 0.01, 1e5."""
    return f"{number:.3g}".replace("e+0", "e")


def write_labels(figure: Figure, labels: Sequence[Label], marks: Sequence[tuple[Axes, Any]]) -> None:
    """Write numbers on their contours, whole and apart from each other and from marked points.

    A number moves along its contour until it has room. One that has room nowhere is left out.
    """
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()  # from here on the place of every panel is known
    taken: dict[Axes, list[Bbox]] = {}
    for ax, point in marks:
        at = ax.transData.transform(point)
        taken.setdefault(ax, []).append(Bbox([at - 2 * MARGIN, at + 2 * MARGIN]))
    for label in labels:
        ax, others = label.ax, taken.setdefault(label.ax, [])
        number = ax.text(
            0, 0, label.text, transform=None, ha="center", va="center", color=label.color, fontsize="medium",
            bbox={"facecolor": "white", "alpha": 0.85, "pad": 1.5, "edgecolor": "none"},
        )  # fmt: skip
        number.set_in_layout(False)
        half = np.array([number.get_window_extent().width, number.get_window_extent().height]) / 2 + MARGIN
        place = _place(label, half, ax.get_window_extent(), others)
        if place is None:
            number.remove()
            continue
        others.append(Bbox([place - half, place + half]))
        number.set_transform(ax.transAxes)
        number.set_position(tuple(ax.transAxes.inverted().transform(place)))


def _place(label: Label, half: np.ndarray, panel: Bbox, taken: Sequence[Bbox]) -> np.ndarray | None:
    """Where on its contour a number of this half size has room, in pixels: as near as may be to its share."""
    from matplotlib.transforms import Bbox

    to_pixels = label.ax.transLimits + label.ax.transAxes
    longest = max((to_pixels.transform(part) for part in label.parts), key=_length)
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(longest, axis=0).T))])
    shares = sorted(np.linspace(0, 1, _TRIED), key=lambda share: abs(share - label.share))
    points = [np.array([np.interp(share * along[-1], along, longest[:, axis]) for axis in (0, 1)]) for share in shares]
    moved = [np.clip(point, panel.min + half, panel.max - half) for point in points]
    whole = [inside for inside, point in zip(moved, points, strict=True) if (inside == point).all()]
    beside = [inside for inside, point in zip(moved, points, strict=True) if (abs(inside - point) < half).all()]
    free = (at for at in (*whole, *beside) if not any(Bbox([at - half, at + half]).overlaps(other) for other in taken))
    return next(free, None)


def _length(part: np.ndarray) -> float:
    return float(np.hypot(*np.diff(part, axis=0).T).sum())
