"""What the figures of claims share: curves with error bars over seeds, ticks that can be read from afar, one ending."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator

from rotsim.show.plotting import style


def seed_curve(ax: Axes, settings: Sequence[float] | np.ndarray, values: np.ndarray, **look: Any) -> None:
    """Mean and standard error over seeds of `values` (settings, seeds)."""
    error = values.std(axis=-1, ddof=1) / np.sqrt(values.shape[-1])
    ax.errorbar(settings, values.mean(axis=-1), error, capsize=3, **look)


def setting_axis(ax: Axes, settings: Sequence[float], label: str) -> None:
    """Logarithmic x axis with a tick at every setting that was run."""
    ax.set_xscale("log")
    plain_ticks(ax.xaxis, settings)
    ax.set_xlabel(label)


def loss_axis(ax: Axes) -> None:
    """Logarithmic y axis with plain numbers."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0), numticks=20))
    ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    ax.yaxis.set_minor_locator(NullLocator())


def plain_ticks(axis: Axis, values: Sequence[float]) -> None:
    """Ticks at `values` only, as plain numbers; for a logarithmic axis, after its scale is set."""
    axis.set_ticks(values, [f"{value:g}" for value in values])
    axis.set_minor_locator(NullLocator())


def finish(figure: Figure, message: str, legend_of: Axes | None = None, columns: int = 4) -> Figure:
    """`figure` with its message on top, and below it the legend of one of its panels, if given."""
    with style():
        if legend_of is not None:
            figure.legend(*legend_of.get_legend_handles_labels(), loc="outside lower center", ncols=columns)
        figure.suptitle(message)
    plt.close(figure)
    return figure
