"""Numbers of one window for a chart, layer by layer, under names that trackers sort into groups."""

from __future__ import annotations

import contextlib

import numpy as np

from rotsim.dataset import layer_name
from rotsim.errors import InvalidInput
from rotsim.measure.assembly import entries_of
from rotsim.measure.quantities import VARIABLES
from rotsim.measure.recorded import Recorded
from rotsim.measure.windows import Windows

_GROUPS = {"rotation/measured": "rotation", "l2_norm/param": "norm", "l2_norm/update": "update_rms"}


def metrics(recorded: Recorded, windows: Windows) -> dict[str, float]:
    """What the last window says of each layer.

    Parameters
    ----------
    recorded : Recorded
    windows : Windows

    Returns
    -------
    dict of float
        ``rotation/measured/LAYER`` in rad per step, ``l2_norm/param/LAYER`` and ``l2_norm/update/LAYER``: root mean
        squares over the neurons. ``rotation/predicted/LAYER`` is the rotation in equilibrium, to leading order, at the
        rates now in force. It is absent where it depends on the gradient, and without weight decay.
    """
    if not windows.ends:
        return {}
    squares = dict(zip(VARIABLES, windows.last().astype(float) ** 2, strict=True))
    found: dict[str, float] = {}
    start = 0
    for entry in entries_of(recorded, windows):
        labels = np.array(entry.labels)
        for label in dict.fromkeys(entry.labels):
            rows = start + np.flatnonzero(labels == label)
            layer = layer_name(label).replace("[", ".").removesuffix("]")  # a name that every tracker takes
            for group, name in _GROUPS.items():
                values = squares[name][rows]
                if np.isfinite(values).any():
                    found[f"{group}/{layer}"] = float(np.sqrt(np.nanmean(values)))
            lr, decay = entry.in_force
            if lr > 0 and decay > 0:
                with contextlib.suppress(InvalidInput):  # that of Adam+L2 depends on the gradient
                    found[f"rotation/predicted/{layer}"] = float(entry.spec.leading_rotation(lr, decay))
        start += entry.neurons
    return found
