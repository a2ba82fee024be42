"""Curves with error bars over seeds, against a logarithmic setting, with ticks that can be read from afar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullLocator


def seed_curve(ax: Axes, settings: Sequence[float], values: np.ndarray, **look: Any) -> None:
    """Mean and standard error over seeds of `values` (settings, seeds)."""
    error = values.std(axis=-1, ddof=1) / np.sqrt(values.shape[-1])
    ax.errorbar(settings, values.mean(axis=-1), error, capsize=3, **look)


def setting_axis(ax: Axes, settings: Sequence[float], label: str) -> None:
    """Logarithmic x axis with a tick at every setting that was run."""
    ax.set_xscale("log")
    ax.set_xticks(settings, [f"{value:g}" for value in settings])
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel(label)


def loss_axis(ax: Axes) -> None:
    """Logarithmic y axis with plain numbers."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(base=10, subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0), numticks=20))
    ax.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    ax.yaxis.set_minor_locator(NullLocator())
