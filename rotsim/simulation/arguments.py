"""What every kernel is called with: ``kernel(block, neurons, steps, room, records)``, with ``block`` = (start, stop).

A kernel brings the neurons of its block through the steps. It changes their `state` and `norm_squared` in place and
adds to the sums of the records. It validates nothing; blocks of one chunk may run at the same time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Kernel = Callable[..., None]


class Neurons(NamedTuple):
    """All neurons of a run.

    Attributes
    ----------
    state : ndarray, shape (neurons, rows, length)
        What the engine carries, in its format.
    norm_squared : ndarray of float64, shape (neurons,)
        ‖w‖², carried so that the end of a chunk changes no rounding.
    keys : ndarray of uint32, shape (neurons, 2)
        Of the noise, from `rotsim.noise.neuron_keys`.
    parameters : ndarray of float64, shape (neurons, count)
        Of the gradient model.
    """

    state: np.ndarray
    norm_squared: np.ndarray
    keys: np.ndarray
    parameters: np.ndarray


class Steps(NamedTuple):
    """The steps of a chunk.

    Attributes
    ----------
    first : int
        Number of the first, counted from 1.
    coefficients : ndarray, shape (steps, count)
        Of the optimizer, in the engine's format.
    data : ndarray, shape (steps, neurons or 1, count); count is 0 for noise models
        What `Gradient.given` supplies.
    """

    first: int
    coefficients: np.ndarray
    data: np.ndarray


class Windows(NamedTuple):
    """The record windows of a run.

    Attributes
    ----------
    sums : ndarray of float64, shape (neurons, 3, windows)
        Of ‖w‖², the squared angle and ‖Δw‖² over the steps of a window.
    length : int
        Steps of a window.
    first : int
        Number of the first in `sums`, counted from 0.
    """

    sums: np.ndarray
    length: int
    first: int
